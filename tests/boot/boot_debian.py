#!/usr/bin/env python3
"""Boots Debian's 32-bit kernel and initrd to a shell and works in it.

Usage: boot_debian.py COMMAND [OPTION...]: build/novt, or qemu-system-i386 -accel tcg, which the test was
checked against. It adds -kernel and so on itself.

A second cpio archive behind the initrd brings a file known to the host: Linux unpacks both.
"""
import gzip
import hashlib
import os
import random
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from console import INITRD, KERNEL, Console, Failure  # noqa: E402

PROMPT = r"# (\x1b\[6n)?$"
BOOT_SECONDS = 120
FORKS = 500


def known_data():
    """3 MB that compress to about a third."""
    rng = random.Random(386)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(2000)]
    return " ".join(rng.choice(words) for _ in range(450000)).encode()


def cpio(name, data):
    def entry(name, mode, data):
        fields = [1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
        out = b"070701" + b"".join(b"%08X" % f for f in fields) + name.encode() + b"\0"
        out += b"\0" * (-len(out) % 4) + data
        return out + b"\0" * (-len(out) % 4)

    return entry(name, 0o100644, data) + entry("TRAILER!!!", 0, b"")


def command(console, line, expected, timeout):
    """Types a line; the pattern must come after its echo, and then the prompt again."""
    console.send(line + "; echo st''atus $?\n")
    match = console.expect(expected, timeout)
    console.expect(r"status 0\r", timeout)
    console.expect(PROMPT, timeout)
    return match


def session(console, data):
    console.expect(PROMPT, BOOT_SECONDS)
    command(console, "mount -t proc proc /proc", "", 20)
    command(console, "cat /proc/cpuinfo", r"processor\s*: 0[\s\S]*flags\s*:.* fpu ", 20)

    digest = hashlib.md5(data).hexdigest()
    command(console, "dd if=/known.gz bs=64k | gunzip | md5sum", digest, 60)
    command(console, "gunzip -c /known.gz | dd of=/known bs=4k; md5sum /known", digest, 60)

    loop = f"i=0; while [ $i -lt {FORKS} ]; do (exit 7) || i=$((i+1)); done; echo did $i fo''rks"
    command(console, loop, rf"did {FORKS} forks", 120)
    command(console, "for i in 1 2 3 4 5; do ls / | grep -q known && uname -m; done", r"i.86", 60)

    console.send("poweroff -f\n")
    status = console.wait(30)
    if status != 0:
        raise Failure(f"exit status {status} after poweroff")
    if not console.is_restored():
        raise Failure("the terminal was not restored")


def main():
    data = known_data()
    with tempfile.TemporaryDirectory() as folder:
        initrd = os.path.join(folder, "initrd")
        with open(INITRD, "rb") as original, open(initrd, "wb") as out:
            head = original.read()
            out.write(head + b"\0" * (-len(head) % 512))
            out.write(cpio("known.gz", gzip.compress(data, 6, mtime=0)))
        argv = sys.argv[1:] + [
            "-kernel", KERNEL, "-initrd", initrd, "-append", "console=ttyS0 rdinit=/bin/sh",
            "-m", "512", "-nographic", "-no-reboot",
        ]
        with Console(argv) as console:
            try:
                session(console, data)
            except Failure as failure:
                print(f"\nFAILED: {failure}")
                return 1
    print("\npassed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
