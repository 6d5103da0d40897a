#!/bin/sh
# Builds build/guest.wasm. Installs nothing: what is missing is said, with the command that installs it.
set -eu
cd "$(dirname "$0")"

missing() { printf 'error: %s is missing\n  help: %s\n' "$1" "$2" >&2; exit 1; }

cc=${CC:-clang-19}
# Another place of C's library for WASI, such as share/wasi-sysroot of a WASI SDK.
sysroot=${WASI_SYSROOT:-/usr}
command -v "$cc" >/dev/null || missing "$cc" "apt-get install clang-19 lld-19 libclang-rt-19-dev-wasm32, or CC=<another clang>"
builtins=$("$cc" --print-resource-dir)/lib/wasi/libclang_rt.builtins-wasm32.a
[ -f "$builtins" ] || missing "$builtins" "apt-get install libclang-rt-19-dev-wasm32"
[ -f "$sysroot/lib/wasm32-wasip2/libc.a" ] || missing "C's library for WASI 0.2 in $sysroot" \
    "apt-get install wasi-libc (on Debian 12: that of bookworm-backports), or WASI_SYSROOT=<share/wasi-sysroot of a WASI SDK>"
command -v cargo >/dev/null || missing Rust "it compiles tools/, which makes the bindings, and brings the linker: https://rustup.rs"
linkers=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin
[ -x "$linkers/wasm-component-ld" ] || missing "$linkers/wasm-component-ld" "it is part of Rust as rustup installs it: https://rustup.rs"

mkdir -p build
cargo run --quiet --locked --manifest-path tools/Cargo.toml -- bindings c wit guest build/bindings
PATH=$linkers:$(dirname "$(readlink -f "$(command -v "$cc")")"):$PATH "$cc" --target=wasm32-wasip2 --sysroot="$sysroot" \
    -mexec-model=reactor -std=c17 -O2 -Wall -Wextra -nodefaultlibs -isystem build/bindings \
    guest.c build/bindings/guest.c build/bindings/guest_component_type.o -lc "$builtins" -o build/new.wasm
mv build/new.wasm build/guest.wasm
