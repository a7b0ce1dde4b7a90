#!/usr/bin/env python3
"""Checks what base, cpu, mmu and dbt import: they run while the guest's FPU state is live in the host's
registers, so every function that they call outside must be known not to touch it.

Usage: check_symbols.py NM ARCHIVE... A symbol that no archive given defines must be in one of the
tables below.
"""
import fnmatch
import subprocess
import sys

# Allowed everywhere: bare system calls and what does not return.
ANYWHERE = {
    "__assert_fail": "does not return",
    "abort": "does not return",
    "__errno_location": "returns an address",
    "_GLOBAL_OFFSET_TABLE_": "not a function",
    "__stack_chk_fail": "does not return",
    "mmap": "system call",
    "munmap": "system call",
    "mprotect": "system call",
    "madvise": "system call",
    "fallocate": "system call",
    "ftruncate": "system call",
    "memfd_create": "system call",
    "close": "system call",
    "syscall": "system call",
    "sigaction": "system call",
    "sigaltstack": "system call",
    "getauxval": "reads the auxiliary vector",
    "__popcountdi2": "libgcc, integer arithmetic",
    "__cpu_model": "data of libgcc",
    "stderr": "data",
}

# Allowed in these objects only, with the reason why the guest's FPU state is not live there.
IN_OBJECT = [
    ("err.c.o", {"vsnprintf"}, "sentences are made before the guest runs, or with the FPU parked"),
    ("log.c.o", {"*"}, "log_write's callers park the FPU (base/log.h)"),
    ("mmu.c.o", {"open", "read", "strtol", "strerror", "calloc", "free"}, "mmu_create, mmu_destroy"),
    ("ram.c.o", {"strerror"}, "mmu_create"),
    ("dbt.c.o", {"calloc", "free", "strerror"}, "dbt_create, dbt_destroy"),
    ("dbt.c.o", {"fprintf"}, "before and after the run, statistics"),
    ("run.c.o", {"fprintf"}, "an internal error ends the run"),
    ("cache.c.o", {"strerror"}, "dbt_create"),
    ("context.c.o", {"strerror"}, "dbt_create"),
    ("fault.c.o", {"strerror", "pthread_once", "sigaddset", "sigemptyset"}, "dbt_create"),
    ("fault.c.o", {"raise"}, "the process dies of a signal that somebody sent"),
    ("listing.c.o", {"cs_*", "fprintf", "fputs", "fputc", "snprintf"}, "listings park the FPU"),
    ("verify.c.o", {"fprintf"}, "the report of a difference ends the run"),
]


def undefined(nm, archive):
    """(object, symbol) pairs that the archive's objects import, and the set of what they define."""
    imports, defined, member = [], set(), archive
    out = subprocess.run([nm, "-A", archive], check=True, capture_output=True, text=True).stdout
    for line in out.splitlines():
        place, rest = line.split(":", 2)[1:]
        fields = rest.split()
        kind, name = fields[-2], fields[-1]
        if kind in "Uw":
            imports.append((place, name))
        elif kind.isupper() or kind == "u":
            defined.add(name)
    return imports, defined


def allowed(member, name):
    if name in ANYWHERE or name.startswith(("__asan_", "__ubsan_", "__sanitizer_")):
        return True
    return any(
        fnmatch.fnmatch(member, objects) and any(fnmatch.fnmatch(name, n) for n in names)
        for objects, names, _ in IN_OBJECT
    )


def main():
    nm, archives = sys.argv[1], sys.argv[2:]
    imports, defined = [], set()
    for archive in archives:
        i, d = undefined(nm, archive)
        imports += i
        defined |= d
    bad = sorted({(m, n) for m, n in imports if n not in defined and not allowed(m, n)})
    for member, name in bad:
        print(f"{member} imports {name}, which is not on the allow-list")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
