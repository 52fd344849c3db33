#!/usr/bin/env bash
# Runs all tests: those that need nothing, and the suites that need the lab, which is booted before and ended after.
# Arguments go to cargo nextest. Closes with nextest's own summary.
set -euo pipefail
cd "$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")"
export LAB=${LAB:-test}
# The lab is root's; so are the tests that look into it. Building stays with who called.
if [ "$(id -u)" != 0 ]; then
    export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="sudo -E" CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="sudo -E"
fi
cargo nextest run --workspace --no-run
tests/docker-py.sh
trap 'tests/lab.sh down' EXIT
tests/lab.sh up
echo "docker CLI: $(tests/lab.sh exec docker --version) ($(command -v docker || echo "Debian's package"))"
cargo nextest run --workspace "$@"
