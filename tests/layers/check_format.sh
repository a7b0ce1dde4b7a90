#!/bin/sh
# Checks that clang-format has nothing to change. Usage: check_format.sh CLANG-FORMAT REPOSITORY
cd "$2" || exit 1
find src tests bench -name '*.[ch]' -exec "$1" --dry-run -Werror {} +
