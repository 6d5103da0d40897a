#!/usr/bin/env bash
# Builds the guest in Rust; prints the component's path. Needs Rust, and adds its target wasm32-wasip2.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../lib.sh
. "$here/../lib.sh"

begin rust
need_rust
build_guests "$root" --package sums >&2
cp "$root/guests/target/wasm32-wasip2/release/sums.wasm" "$work/new.wasm"
finish "$work/new.wasm"
