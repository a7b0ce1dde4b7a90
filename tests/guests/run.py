#!/usr/bin/env python3
"""Boots one small guest and checks that it found nothing wrong.

Usage: run.py GUEST.elf COMMAND [OPTION...]: build/novt, or qemu-system-i386, which the guests were checked
against. A guest prints its lines on COM1 and writes 0 to port F4h when all its comparisons held.
"""
import os
import subprocess
import sys

ALL_HELD = 0 << 1 | 1
SECONDS = 100


def main():
    guest, argv = sys.argv[1], sys.argv[2:]
    argv += ["-kernel", guest, "-nographic", "-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
    name = os.path.basename(guest).removesuffix(".elf")
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=SECONDS)
    except subprocess.TimeoutExpired as expired:
        sys.stdout.write((expired.stdout or b"").decode("latin-1"))
        print(f"{name}: does not end within {SECONDS} s")
        return 1
    text = done.stdout.decode("latin-1")
    sys.stdout.write(text)
    if done.returncode != ALL_HELD or ": ok, " not in text:
        print(f"{name}: exit status {done.returncode}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
