# shellcheck shell=bash
# What the scripts of this repository share. Sourced, never run; the caller has set -euo pipefail.

say() { printf '\033[1m== %s\033[0m\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# need_packages PACKAGE... : installs what is missing by Debian's package manager, and says so.
need_packages() {
    local missing=() package sudo=()
    for package in "$@"; do
        dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    command -v apt-get >/dev/null || die "these packages are needed, and there is no apt-get to install them by: ${missing[*]}"
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || die "these packages are needed; install them as root: apt-get install ${missing[*]}"
        sudo=(sudo)
    fi
    say "installing Debian packages: ${missing[*]}"
    local install=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}")
    # The lists of packages may be missing or old: refresh them only if the first attempt fails.
    "${install[@]}" </dev/null >&2 || { "${sudo[@]}" apt-get update -q </dev/null >&2 && "${install[@]}" </dev/null >&2; } \
        || die "apt-get could not install: ${missing[*]}"
}

# need_command COMMAND PACKAGE : the same for one command, wherever it comes from.
need_command() { command -v "$1" >/dev/null || need_packages "$2"; }

# need_rust : Rust, a C compiler and the target that guests are compiled for.
need_rust() {
    command -v cargo >/dev/null || die "Rust is needed: https://rustup.rs"
    command -v cc >/dev/null || die "a C compiler is needed: apt-get install gcc libc6-dev"
    [ "${BELLWETHER_TEST_GUESTS:-}" = prebuilt ] && return
    local libraries
    libraries=$(rustc --print target-libdir --target wasm32-wasip2 2>/dev/null || true)
    [ -n "$libraries" ] && compgen -G "$libraries/libstd-*" >/dev/null && return
    if command -v rustup >/dev/null; then
        say "adding Rust's target wasm32-wasip2"
        rustup target add wasm32-wasip2 </dev/null >&2 && return
    fi
    cat >&2 <<'MESSAGE'
error: Rust's target wasm32-wasip2 is missing and rustup cannot add it
  The guests are WebAssembly components; without the target they cannot be compiled.
  help: where rustup works, run: rustup target add wasm32-wasip2
  help: Debian 12 has what is needed as packages: rustc-web, rust-web-src and lld-19, and wasi-libc from bookworm-backports.
        Compile the guests by
          RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 \
          CARGO_TARGET_WASM32_WASIP2_RUSTFLAGS="-Clink-self-contained=no -L native=/usr/lib/wasm32-wasip2 -Clink-arg=--wasm-ld-path=/usr/bin/wasm-ld-19" \
          CARGO_TARGET_DIR=guests/target \
          cargo build --release -Zbuild-std=std,panic_abort --target wasm32-wasip2 --manifest-path guests/Cargo.toml
        and run this again with BELLWETHER_TEST_GUESTS=prebuilt
MESSAGE
    exit 1
}

# build_guests ROOT [CARGO OPTION...] : compiles the guests into guests/target, unless they were built by other means.
build_guests() {
    local root=$1
    shift
    [ "${BELLWETHER_TEST_GUESTS:-}" = prebuilt ] && return
    # Settings for the host's programs are not meant for guests.
    env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS -u CARGO_BUILD_TARGET -u RUSTC_WRAPPER CARGO_TARGET_DIR="$root/guests/target" \
        cargo build --locked --release --target wasm32-wasip2 --manifest-path "$root/guests/Cargo.toml" "$@"
}

# build_languages ROOT : has the guest that is written in several languages (guests/README.md) built in each of them, installing what that takes. A
# language that cannot be had does not keep the others from being built; the names of those are printed.
build_languages() {
    local root=$1 script
    [ "${BELLWETHER_TEST_GUESTS:-}" = prebuilt ] && return
    for script in "$root"/guests/*/build.sh; do
        "$script" </dev/null >/dev/null || basename "$(dirname "$script")"
    done
}
