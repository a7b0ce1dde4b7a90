"""Small kernel images for tests, good and bad, built byte by byte."""
import struct

LOAD_AT = 0x100000
# Endless sleep, deaf to interrupts: cli; hlt; jmp to the hlt.
SLEEP = b"\xfa\xf4\xeb\xfd"
# Endless loop: jmp to itself.
SPIN = b"\xeb\xfe"
# lidt of an empty table, then int3: a triple fault.
TRIPLE_FAULT = b"\x0f\x01\x1d" + struct.pack("<I", LOAD_AT + 0x80) + b"\xcc"


def out_byte(port, value):
    """mov dx, port; mov al, value; out dx, al."""
    return b"\x66\xba" + struct.pack("<H", port) + b"\xb0" + bytes([value]) + b"\xee"


def multiboot(code, flags=0x10000, size=None):
    """A multiboot image with its addresses in the header; the code is at LOAD_AT + 20h."""
    end = LOAD_AT + (size or 0x1000)
    header = struct.pack(
        "<8I", 0x1BADB002, flags, -(0x1BADB002 + flags) & 0xFFFFFFFF,
        LOAD_AT, LOAD_AT, end, end, LOAD_AT + 0x20,
    )
    return (header + code).ljust(0x1000, b"\0")


def elf32(code, paddr=LOAD_AT, machine=3, kind=2, memsz=None, filesz=None, entry=None, phnum=1,
          phoff=52):
    size = len(code)
    header = b"\x7fELF\x01\x01\x01" + b"\0" * 9 + struct.pack(
        "<HHIIIIIHHHHHH", kind, machine, 1, paddr if entry is None else entry, phoff, 0, 0, 52, 32,
        phnum, 0, 0, 0,
    )
    program = struct.pack(
        "<8I", 1, 0x80, paddr, paddr, size if filesz is None else filesz,
        size if memsz is None else memsz, 7, 4,
    )
    return (header + program).ljust(0x80, b"\0") + code


def elf64(code):
    header = b"\x7fELF\x02\x01\x01" + b"\0" * 9 + struct.pack(
        "<HHIQQQIHHHHHH", 2, 62, 1, LOAD_AT, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    program = struct.pack("<IIQQQQQQ", 1, 7, 0x80, LOAD_AT, LOAD_AT, len(code), len(code), 4096)
    return (header + program).ljust(0x80, b"\0") + code


def bzimage(code=SLEEP, version=0x20F, loadflags=1, xloadflags=0, setup_sects=1, syssize=None,
            init_size=0x200000, payload=(0, 0), cmdline_size=2047, jump=b"\xeb\x66"):
    body = code.ljust(0x1000, b"\0")
    setup = bytearray((setup_sects + 1) * 512)
    struct.pack_into("<BHI", setup, 0x1F1, setup_sects, 0,
                     len(body) // 16 if syssize is None else syssize)
    setup[0x1FE:0x200] = b"\x55\xaa"
    setup[0x200:0x202] = jump
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", setup, 0x206, version)
    setup[0x211] = loadflags
    struct.pack_into("<I", setup, 0x214, LOAD_AT)
    struct.pack_into("<II", setup, 0x22C, 0x37FFFFFF, 0x200000)
    struct.pack_into("<H", setup, 0x236, xloadflags)
    struct.pack_into("<I", setup, 0x238, cmdline_size)
    struct.pack_into("<II", setup, 0x248, *payload)
    struct.pack_into("<Q", setup, 0x258, 0x1000000)
    struct.pack_into("<I", setup, 0x260, init_size)
    return bytes(setup) + body
