#!/usr/bin/env python3
"""The command line: what bad input gets, what the options do, and the terminal.

Usage: test_cli.py NOVT [TEST...]
Bad input gets one sentence on stderr that names the option or file, status 1, in under two seconds, and
leaves no file behind.
"""
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import images  # noqa: E402
from console import KERNEL, Console  # noqa: E402

NOVT = "novt"
QUICK = 2.0


def novt(*args, **options):
    options.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run([NOVT, *args], capture_output=True, timeout=60, **options)


class Folder(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def file(self, name, data):
        with open(self.path(name), "wb") as out:
            out.write(data)
        return self.path(name)

    def sleeper(self):
        return self.file("sleeper", images.multiboot(images.SLEEP))

    def exiting(self, value, port=0xF4):
        return self.file("exiting", images.multiboot(images.out_byte(port, value) + images.SLEEP))


class BadInput(Folder):
    def refused(self, args, pattern):
        started = time.monotonic()
        done = novt(*args)
        took = time.monotonic() - started
        text = done.stderr.decode()
        self.assertEqual(done.returncode, 1, (args, text))
        self.assertRegex(text, r"\Anovt: [^\n]+\n\Z", args)
        self.assertRegex(text, pattern, args)
        self.assertEqual(done.stdout, b"", args)
        self.assertLess(took, QUICK, args)

    def test_bad_options_are_named(self):
        for args, pattern in [
            (["-frobnicate"], "-frobnicate: unknown option"),
            (["--frobnicate"], "--frobnicate: unknown option"),
            (["kernel"], "'kernel' is not an option"),
            ([""], "'' is not an option"),
            (["-"], "'-' is not an option"),
            (["--"], "--: unknown option"),
            (["-kernel"], "-kernel: needs an argument"),
            (["--initrd"], "--initrd: needs an argument"),
            (["-m"], "-m: needs an argument"),
            (["-append", "x"], "-append: only with -kernel"),
            (["-initrd", "x"], "-initrd: only with -kernel"),
            (["-m", "0"], "-m: '0'"),
            (["-m", "1M"], "-m: '1M'"),
            (["-m", "8G"], "-m: '8G'"),
            (["-m", "3585"], "-m: '3585'"),
            (["-m", "abc"], "-m: 'abc'"),
            (["-m", ""], "-m: ''"),
            (["-m", "-5"], "-m: '-5'"),
            (["-m", "12Q"], "-m: '12Q'"),
            (["-m", "12MM"], "-m: '12MM'"),
            (["-m", "0x"], "-m: '0x'"),
            (["-m", "99999999999999999999"], "-m: '9+'"),
            (["-m", "17000000000000000G"], "-m: '17"),
            (["-engine", "kvm"], "--engine: there is no engine 'kvm'"),
            (["--engine", ""], "--engine: there is no engine ''"),
            (["-device", "e1000"], "-device: there is no device 'e1000'"),
            (["-device", "isa-debug-exi"], "-device: there is no device"),
            (["-device", "isa-debug-exit,foo=1"], "-device: .*no property 'foo'"),
            (["-device", "isa-debug-exit,iobase=zz"], "-device: .*'iobase=zz'"),
            (["-device", "isa-debug-exit,iobase=0x10000"], "-device: .*'iobase=0x10000'"),
            (["-device", "isa-debug-exit,iosize=3"], "-device: .*iosize"),
            (["-device", "isa-debug-exit,"], "-device: "),
            (["-serial", "tcp:1"], "-serial: 'tcp:1'"),
            (["-serial", "file:"], "-serial: 'file:'"),
            (["-serial", "null", "-serial", "null"], "-serial: given twice"),
            (["-debugcon", "udp"], "-debugcon: 'udp'"),
            (["-d", "nothing"], "-d: .*'nothing'"),
            (["-dfilter", "x"], "-dfilter: 'x'"),
            (["-dfilter", "0x2000..0x1000"], "-dfilter: "),
            (["-dfilter", "0x1000..0x100000000"], "-dfilter: "),
            (["-dfilter", "0x1000+0"], "-dfilter: "),
            (["-display", "sdl"], "-display.*'sdl'"),
        ]:
            with self.subTest(args=args):
                self.refused(args, pattern)

    def test_bad_kernels_are_named(self):
        good = images.bzimage()
        elf = images.elf32(images.SLEEP)
        with open(KERNEL, "rb") as kernel:
            debian = kernel.read()
        for name, data, pattern in [
            ("empty", b"", "is empty"),
            ("one-byte", b"x", "not a Linux bzImage, a multiboot image or an ELF"),
            ("text", b"hello\n" * 1000, "not a Linux bzImage"),
            ("zeros", b"\0" * 100000, "not a Linux bzImage"),
            ("elf64", images.elf64(images.SLEEP), "64-bit"),
            ("x32", images.elf32(images.SLEEP, machine=62), "64-bit"),
            ("arm", images.elf32(images.SLEEP, machine=40), "not for x86"),
            ("object", images.elf32(images.SLEEP, kind=1), "not an executable"),
            ("dynamic", images.elf32(images.SLEEP, kind=3), "not an executable"),
            ("elf-head", elf[:20], "corrupt|truncated"),
            ("elf-ident", elf[:4], "corrupt|truncated"),
            ("elf-no-phdr", elf[:52], "corrupt|truncated"),
            ("elf-half-phdr", elf[:70], "corrupt|truncated"),
            ("elf-no-phdrs", images.elf32(images.SLEEP, phnum=0), "no program headers"),
            ("elf-far-phdrs", images.elf32(images.SLEEP, phoff=0xFFFFFF00), "corrupt|truncated"),
            ("elf-filesz", images.elf32(images.SLEEP, filesz=0x7FFFFFFF, memsz=0x7FFFFFFF), "truncated"),
            ("elf-sizes", images.elf32(images.SLEEP, filesz=4, memsz=2), "corrupt"),
            ("elf-wrap", images.elf32(images.SLEEP, paddr=0xFFFFF000, memsz=0x2000), "corrupt"),
            ("elf-high", images.elf32(images.SLEEP, paddr=0xF0000000), "not RAM"),
            ("elf-vga", images.elf32(images.SLEEP, paddr=0xB8000), "not RAM"),
            ("elf-huge", images.elf32(images.SLEEP, memsz=0x40000000), "not RAM"),
            ("elf-entry", images.elf32(images.SLEEP, entry=0x12345678), "entry point"),
            ("multiboot-flags", images.multiboot(images.SLEEP, flags=0x10008), "multiboot features"),
            ("multiboot-no-elf", images.multiboot(images.SLEEP, flags=0), "not an ELF file"),
            ("multiboot-short", images.multiboot(images.SLEEP, size=0x9000), "truncated"),
            ("multiboot-head", images.multiboot(images.SLEEP)[:20], "truncated"),
            ("bz-64", images.bzimage(xloadflags=1), "64-bit"),
            ("bz-short", good[:-1000], "truncated"),
            ("bz-setup-only", good[:1024], "truncated"),
            ("bz-header-only", good[:0x208], "corrupt|truncated"),
            ("bz-zimage", images.bzimage(loadflags=0), "no bzImage"),
            ("bz-ancient", images.bzimage(version=0x200), "no bzImage"),
            ("bz-jump", images.bzimage(jump=b"\x90\x90"), "corrupt"),
            ("bz-syssize-0", images.bzimage(syssize=0), "corrupt"),
            ("bz-syssize-huge", images.bzimage(syssize=0xFFFFFFFF), "corrupt"),
            ("bz-payload", images.bzimage(payload=(0xFFFFFFFF, 0xFFFFFFFF)), "corrupt"),
            ("bz-init-size", images.bzimage(init_size=0xFFFFFFFF), "corrupt"),
            ("bz-memory", images.bzimage(init_size=0x40000000), "-m: .*needs at least"),
            ("debian-half", debian[: len(debian) // 2], "truncated"),
            ("debian-1000", debian[:1000], "truncated"),
            ("debian-513", debian[:513], "not a Linux bzImage"),
            ("debian-530", debian[:530], "corrupt|truncated"),
        ]:
            with self.subTest(name):
                path = self.file(name, data)
                self.refused(["-kernel", path], re.escape(f"'{path}'"))
                self.refused(["-kernel", path], pattern)

    def test_files_that_cannot_be_read_are_named(self):
        self.refused(["-kernel", self.path("absent")], "-kernel: .*absent.*No such file")
        self.refused(["-kernel", self.folder.name], "-kernel: .* is a directory")
        self.refused(["-kernel", "/dev/zero"], "-kernel: '/dev/zero' does not end")
        self.refused(["-kernel", "/dev/null"], "-kernel: '/dev/null' is empty")
        self.refused(["-kernel", ""], "-kernel: ")
        good = self.file("good", images.bzimage())
        self.refused(["-kernel", good, "-initrd", self.path("absent")], "-initrd: .*absent")
        self.refused(["-kernel", good, "-initrd", self.folder.name], "-initrd: .*directory")
        self.refused(["-kernel", good, "-initrd", self.file("e", b"")], "-initrd: .*'.*e' is empty")
        if os.geteuid() != 0:
            secret = self.file("secret", images.bzimage())
            os.chmod(secret, 0)
            self.refused(["-kernel", secret], "-kernel: .*secret.*Permission denied")

    def test_an_initrd_that_does_not_fit_is_named(self):
        big = self.path("big")
        with open(big, "wb") as out:
            out.truncate(200 << 20)
        good = self.file("good", images.bzimage())
        self.refused(["-kernel", good, "-initrd", big], "-initrd: .*big.*does not fit")
        self.refused(["-kernel", good, "-initrd", big, "-m", "216"], "-initrd: .*does not fit")
        multiboot = self.file("mb", images.multiboot(images.SLEEP))
        self.refused(["-kernel", multiboot, "-initrd", big], "-initrd: .*does not fit")
        self.refused(["-kernel", self.file("elf", images.elf32(images.SLEEP)), "-initrd", good],
                     "-initrd: .*plain ELF")

    def test_a_command_line_that_is_too_long_is_named(self):
        good = self.file("good", images.bzimage())
        self.refused(["-kernel", good, "-append", "x" * 2048], "-append: 2048 bytes.*at most 2047")

    def test_outputs_that_cannot_be_opened_are_named(self):
        bad = self.path("absent/file")
        for option in (["-serial", f"file:{bad}"], ["-debugcon", f"file:{bad}"], ["-D", bad]):
            self.refused(["-kernel", self.sleeper(), *option], option[0] + ": .*absent/file")

    def test_nothing_is_written_when_the_input_is_bad(self):
        out = self.path("out")
        self.refused(["-kernel", self.path("absent"), "-serial", f"file:{out}", "-D", out], "absent")
        self.refused(["-serial", f"file:{out}", "-D", out, "-m", "1"], "-m")
        self.assertFalse(os.path.exists(out))


class Options(Folder):
    def test_help_and_version_go_to_stdout(self):
        for flag in ("-h", "-help", "--help"):
            done = novt(flag)
            self.assertEqual((done.returncode, done.stderr), (0, b""))
            for option in (b"-kernel", b"-initrd", b"-append", b"-serial", b"-verify"):
                self.assertIn(option, done.stdout)
        self.assertRegex(novt("--version").stdout, rb"\Anovt \d+\.\d+\.\d+\n\Z")
        self.assertIn(b"in_asm", novt("-d", "help").stdout)
        self.assertIn(b"isa-debug-exit", novt("-device", "help").stdout)

    def test_debug_exit_gives_the_status(self):
        device = ["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]
        for value in (0, 1, 16, 127):
            done = novt("-kernel", self.exiting(value), *device)
            self.assertEqual(done.returncode, value << 1 & 0xFF | 1, done.stderr)
        done = novt("--kernel", self.exiting(3, 0x501), "--device", "isa-debug-exit")
        self.assertEqual(done.returncode, 7, done.stderr)

    def test_every_image_format_boots(self):
        code = images.out_byte(0xF4, 5) + images.SLEEP
        for image in (images.multiboot(code), images.elf32(code), images.bzimage(code)):
            done = novt("-kernel", self.file("image", image),
                        "-device", "isa-debug-exit,iobase=0xf4", "-display", "none")
            self.assertEqual((done.returncode, done.stderr), (11, b""))

    def test_a_kernel_may_come_through_a_pipe(self):
        image = images.multiboot(images.out_byte(0xF4, 5) + images.SLEEP)
        done = novt("-kernel", "/dev/stdin", "-device", "isa-debug-exit,iobase=0xf4", "-serial", "null",
                    stdin=None, input=image)
        self.assertEqual((done.returncode, done.stderr), (11, b""))

    def test_sizes_are_read_as_qemu_does(self):
        for size in ("2M", "2048K", "64", "64m", "size=64M", "1G", "0.5G", "3584M", "0x40"):
            done = novt("-kernel", self.exiting(1), "-device", "isa-debug-exit,iobase=0xf4", "-m", size)
            self.assertEqual((done.returncode, done.stderr), (3, b""), size)

    def test_serial_and_debugcon_go_where_they_are_sent(self):
        code = b"".join(images.out_byte(0x3F8, c) for c in b"COM1\n")
        code += b"".join(images.out_byte(0xE9, c) for c in b"E9\n")
        image = self.file("image", images.multiboot(code + images.out_byte(0xF4, 0)))
        base = ["-kernel", image, "-device", "isa-debug-exit,iobase=0xf4"]
        self.assertEqual(novt(*base).stdout, b"COM1\n")
        self.assertEqual(novt(*base, "-serial", "null").stdout, b"")
        self.assertEqual(novt(*base, "-serial", "none", "-debugcon", "stdio").stdout, b"E9\n")
        serial, debug = self.path("serial"), self.path("debug")
        novt(*base, "-serial", f"file:{serial}", "-debugcon", f"file:{debug}")
        with open(serial, "rb") as s, open(debug, "rb") as d:
            self.assertEqual((s.read(), d.read()), (b"COM1\n", b"E9\n"))

    def test_a_triple_fault_ends_with_status_3_and_shows_the_state(self):
        image = self.file("image", images.multiboot(images.TRIPLE_FAULT))
        done = novt("-kernel", image, "-no-reboot")
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertRegex(done.stderr.decode(), r"(?i)EIP")

    def test_stats_and_log_are_written(self):
        log = self.path("log")
        done = novt("-kernel", self.exiting(1), "-device", "isa-debug-exit,iobase=0xf4", "--stats",
                    "-d", "in_asm,exits,port", "-D", log)
        self.assertEqual(done.returncode, 3)
        self.assertGreater(done.stderr.count(b"\n"), 5)
        self.assertGreater(os.path.getsize(log), 0)

    def test_verify_runs_a_guest(self):
        done = novt("-kernel", self.exiting(1), "-device", "isa-debug-exit,iobase=0xf4", "--verify")
        self.assertEqual((done.returncode, done.stderr), (3, b""))

    def test_closed_standard_files_do_no_harm(self):
        args = [NOVT, "-kernel", self.exiting(1), "-device", "isa-debug-exit,iobase=0xf4"]
        for closed in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-", "</dev/null", ">/dev/full"):
            done = subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *args], timeout=30,
                                  capture_output=True)
            self.assertEqual(done.returncode, 3, closed)

    def test_a_reader_that_goes_away_does_not_stop_the_guest(self):
        code = b"\x66\xba\xf8\x03\xb9\x00\x00\x02\x00\xb0\x41\xee\xe2\xfd"  # 128K bytes to COM1
        image = self.file("image", images.multiboot(code + images.out_byte(0xF4, 9)))
        read, write = os.pipe()
        os.close(read)
        done = subprocess.run([NOVT, "-kernel", image, "-device", "isa-debug-exit,iobase=0xf4"],
                              stdin=subprocess.DEVNULL, stdout=write, timeout=60)
        os.close(write)
        self.assertEqual(done.returncode, 19)


class Embedded(unittest.TestCase):
    def test_the_embedded_guest_prints_its_table_and_all_holds(self):
        done = novt()
        self.assertEqual(done.returncode, 0, done.stdout.decode("latin-1"))
        for name in (b"SGDT", b"POPF", b"VERW", b"STR", b"CALL", b"INT n"):
            self.assertIn(name, done.stdout)


class Terminal(Folder):
    def start(self, *args, code=images.SLEEP):
        image = self.file("image", images.multiboot(code))
        console = Console([NOVT, "-kernel", image, *args], echo=False, stderr=subprocess.PIPE)
        self.addCleanup(console.close)
        self.addCleanup(console.process.stderr.close)
        end = time.monotonic() + 10
        while not console.is_raw() and time.monotonic() < end:
            time.sleep(0.01)
        self.assertTrue(console.is_raw())
        time.sleep(0.1)
        return console

    def test_ctrl_a_x_quits_and_restores(self):
        for code in (images.SLEEP, images.SPIN):
            console = self.start("-nographic", code=code)
            console.send("\x01x")
            self.assertEqual(console.wait(5), 0)
            self.assertTrue(console.is_restored())

    def test_ctrl_a_h_helps_and_the_guest_goes_on(self):
        console = self.start()
        console.send("\x01h")
        self.assertIn(b"Ctrl-A", os.read(console.process.stderr.fileno(), 4096))
        self.assertIsNone(console.process.poll())
        console.send("\x01x")
        self.assertEqual(console.wait(5), 0)

    def test_ctrl_c_goes_to_the_guest(self):
        # Waits for a byte at COM1 and ends with it: poll the LSR, read, write to F4h.
        code = (b"\x66\xba\xfd\x03\xec\xa8\x01\x74\xf7\x66\xba\xf8\x03\xec"
                b"\x66\xba\xf4\x00\xee" + images.SLEEP)
        for typed, value in (("\x03", 3), ("\x01\x01", 1), ("\x01z\x1a", 0x1A)):
            console = self.start("-device", "isa-debug-exit,iobase=0xf4", code=code)
            console.send(typed)
            self.assertEqual(console.wait(5), value << 1 | 1)

    def test_serial_stdio_leaves_ctrl_c_to_the_terminal(self):
        console = self.start("-serial", "stdio")
        console.send("\x03")
        self.assertEqual(console.wait(5), -signal.SIGINT)
        self.assertTrue(console.is_restored())

    def test_the_terminal_is_restored_after_signals(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGSEGV,
                       signal.SIGABRT, signal.SIGBUS):
            for code in (images.SLEEP, images.SPIN):
                with self.subTest(number.name):
                    console = self.start(code=code)
                    console.process.send_signal(number)
                    self.assertEqual(console.wait(5), -number)
                    self.assertTrue(console.is_restored(), number.name)

    def test_the_terminal_is_restored_while_stopped(self):
        console = self.start()
        console.process.send_signal(signal.SIGTSTP)
        time.sleep(0.2)
        self.assertTrue(console.is_restored())
        console.process.send_signal(signal.SIGCONT)
        time.sleep(0.2)
        self.assertTrue(console.is_raw())
        console.send("\x01x")
        self.assertEqual(console.wait(5), 0)

    def test_end_of_input_does_not_end_the_guest(self):
        image = self.sleeper()
        process = subprocess.Popen([NOVT, "-kernel", image], stdin=subprocess.DEVNULL)
        time.sleep(0.5)
        self.assertIsNone(process.poll())
        process.terminate()
        self.assertEqual(process.wait(5), -signal.SIGTERM)


if __name__ == "__main__":
    NOVT = os.path.abspath(sys.argv.pop(1))
    unittest.main()
