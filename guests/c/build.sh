#!/usr/bin/env bash
# Builds the guest in C; prints the component's path. Needs Debian (bookworm or later) and Rust: installs clang and lld by apt-get, and,
# below target/, the C library for WASI 0.2 (of bookworm-backports, where Debian's own is older) and the generator of bindings. Rust brings
# wasm-component-ld, which makes a component of what lld links.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../lib.sh
. "$here/../lib.sh"

begin c
need_packages clang-19 lld-19 libclang-rt-19-dev-wasm32
need_wasi_libc
need_guest_tools
linkers=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin
[ -x "$linkers/wasm-component-ld" ] || die "Rust's toolchain has no wasm-component-ld in $linkers: install Rust by rustup (https://rustup.rs)"
rm -rf "$work/bindings"
"$guest_tools" bindings c "$root/wit" stateful-service "$work/bindings"
builtins=/usr/lib/llvm-19/lib/clang/19/lib/wasi/libclang_rt.builtins-wasm32.a
PATH=$linkers:/usr/lib/llvm-19/bin:$PATH clang-19 --target=wasm32-wasip2 --sysroot="$wasi_libc" -mexec-model=reactor -std=c17 -O2 -Wall -Wextra -Werror \
    -nodefaultlibs -isystem "$work/bindings" \
    "$here/sums.c" "$work/bindings/guest.c" "$work/bindings/guest_component_type.o" -lc "$builtins" -o "$work/new.wasm" >&2
finish "$work/new.wasm"
