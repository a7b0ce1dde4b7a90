#!/usr/bin/env python3
"""Checks that every #include points down the layers or stays in its folder.

Usage: check_includes.py SRC. Prints one line for each include that breaks a rule.
"""
import pathlib
import re
import sys

# A layer and what it may include besides itself. Layers that are not named here are an error.
ALLOWED = {
    "base": set(),
    "cpu": {"base"},
    "mmu": {"base", "cpu"},
    "dbt": {"base", "cpu", "mmu"},
    "devices": {"base"},
    "machine": {"base", "cpu", "mmu", "dbt", "devices"},
    "frontend": {"base", "cpu", "mmu", "dbt", "devices", "machine"},
    "embedded": set(),  # a guest: a program of its own
}

INCLUDE = re.compile(r'^\s*#\s*include\s+(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)

# Headers of the C library that only one place may use (style: "only ... includes ...").
ONLY = {
    "capstone/capstone.h": {"dbt"},
    "libelf.h": {"machine"},
    "termios.h": {"frontend"},
}


def check(src):
    problems = []
    for path in sorted(src.rglob("*")):
        if path.suffix not in (".c", ".h", ".S", ".def"):
            continue
        where = path.relative_to(src)
        layer = where.parts[0]
        if layer not in ALLOWED:
            problems.append(f"{where}: '{layer}' is not in the table of layers")
            continue
        for match in INCLUDE.finditer(path.read_text()):
            name, system = match.groups()
            if system:
                if layer not in ONLY.get(system, {layer}):
                    problems.append(f"{where}: <{system}> is not for {layer}")
                continue
            if name.endswith(".c"):
                problems.append(f'{where}: includes a source file, "{name}"')
            if layer == "embedded":
                continue
            target = name.split("/")[0]
            if not (src / name).is_file():
                problems.append(f'{where}: "{name}" is not written from src/')
            elif target != layer and target not in ALLOWED[layer]:
                problems.append(f'{where}: "{name}" is not below {layer}')
    return problems


def main():
    problems = check(pathlib.Path(sys.argv[1]))
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
