#!/usr/bin/env bash
# Installs what building and testing berth needs on a Debian machine that has Rust.
# Asks the package manager only for what is missing, so a second run costs nothing and needs no network.
set -euo pipefail

packages=(
    # build
    build-essential pkg-config libseccomp-dev
    # the lab: a Debian root, its firewall and links, images
    mmdebstrap nftables iproute2 busybox-static util-linux
    # unit files are verified, docker-py runs in the lab
    systemd python3 python3-pip
)

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

missing=()
for package in "${packages[@]}"; do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing+=("$package")
done
if [ "${#missing[@]}" -gt 0 ]; then
    echo "installing: ${missing[*]}" >&2
    as_root apt-get update -q >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}" >&2
fi

if ! command -v cargo >/dev/null; then
    echo "cargo is not on the path: install Rust (rust-version in Cargo.toml) first" >&2
    exit 1
fi
for component in fmt clippy; do
    cargo "$component" --version >/dev/null 2>&1 || rustup component add "${component/fmt/rustfmt}" >&2
done
cargo nextest --version >/dev/null 2>&1 || cargo install --locked cargo-nextest >&2
