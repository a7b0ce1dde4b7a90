"""A guest behind a pseudo-terminal: what the boot tests and benchmarks type and read."""
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time

IMAGES = "/usr/lib/debian-installer/images/12/i386/text/debian-installer/i386"
KERNEL = f"{IMAGES}/linux"
INITRD = f"{IMAGES}/initrd.gz"


class Failure(Exception):
    pass


class Console:
    """Runs argv with a pseudo-terminal as stdin and stdout; stderr goes to `stderr` (inherited)."""

    def __init__(self, argv, echo=True, stderr=None):
        self.master, self.slave = pty.openpty()
        self.saved = termios.tcgetattr(self.slave)
        self.echo = echo
        self.text = ""
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            argv, stdin=self.slave, stdout=self.slave, stderr=stderr, start_new_session=True,
            preexec_fn=lambda: fcntl_ctty(self.slave),
        )

    def _read(self, timeout):
        ready, _, _ = select.select([self.master], [], [], max(0, timeout))
        if not ready:
            return False
        data = os.read(self.master, 65536).decode("latin-1")
        self.text += data
        if self.echo:
            sys.stdout.write(data)
            sys.stdout.flush()
        return True

    def expect(self, pattern, timeout):
        """Reads until the pattern is found; what is before and the match are consumed."""
        end = time.monotonic() + timeout
        regex = re.compile(pattern)
        while True:
            match = regex.search(self.text)
            if match:
                self.text = self.text[match.end():]
                return match
            left = end - time.monotonic()
            if left <= 0:
                raise Failure(f"no {pattern!r} within {timeout} s")
            if not self._read(min(left, 0.2)) and self.process.poll() is not None:
                if not self._read(0):
                    raise Failure(f"no {pattern!r}: ended with status {self.process.returncode}")

    def send(self, text):
        os.write(self.master, text.encode("latin-1"))

    def wait(self, timeout):
        """The exit status, with output read meanwhile."""
        end = time.monotonic() + timeout
        while self.process.poll() is None:
            if time.monotonic() > end:
                raise Failure(f"does not end within {timeout} s")
            self._read(0.1)
        while self._read(0):
            pass
        return self.process.returncode

    def is_restored(self):
        return termios.tcgetattr(self.slave) == self.saved

    def is_raw(self):
        return not termios.tcgetattr(self.slave)[3] & termios.ICANON

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def fcntl_ctty(fd):
    """In the child: makes the pseudo-terminal the controlling one, so that signals and tcgetpgrp work."""
    import fcntl

    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)
