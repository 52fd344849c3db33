#!/usr/bin/env bash
# Measures whole operations in a lab of its own, with a release build, beside Debian's dockerd. Arguments go to berth-bench.
set -euo pipefail
cd "$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")"
export LAB=${LAB:-bench} LAB_PROFILE=release LAB_FEATURES= LAB_EXTRA=${LAB_EXTRA-"docker.io iptables"}
cargo build --quiet --release --package berth-tests --bin berth-bench
trap 'tests/lab.sh down' EXIT
tests/lab.sh up
bench=${CARGO_TARGET_DIR:-target}/release/berth-bench
if [ "$(id -u)" = 0 ]; then "$bench" "$@"; else sudo -E "$bench" "$@"; fi
