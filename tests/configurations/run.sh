#!/bin/sh
# Builds one more configuration and runs its tests.
# Usage: run.sh SOURCE BUILD LABELS EXCLUDED-LABELS CMAKE-OPTION...
set -eu
source=$1 build=$2 labels=$3 exclude=$4
shift 4
cmake -G Ninja -S "$source" -B "$build" "$@" >/dev/null
ninja -C "$build" --quiet
ctest --test-dir "$build" --output-on-failure -j "$(nproc)" -L "$labels" -LE "$exclude"
