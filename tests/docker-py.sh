#!/usr/bin/env bash
# Puts docker-py (from the Python registry) into the cache, once, and prints where.
set -euo pipefail
cache=${BERTH_CACHE_DIR:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/berth}
version=7.1.0
dir=$cache/docker-py-$version
if [ ! -e "$dir/.complete" ]; then
    rm -rf "$dir"
    mkdir -p "$dir"
    python3 -m pip install --quiet --root-user-action ignore --target "$dir" --only-binary :all: "docker==$version" >&2
    touch "$dir/.complete"
fi
echo "$dir"
