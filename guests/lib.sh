# shellcheck shell=bash
# What the guests' build scripts share. Sourced by guests/*/build.sh, never run; the caller has set -euo pipefail.
#
# Tools and packages are kept in target/guest-tools, components and what is generated for them in guests/target/languages: only
# Debian's packages are installed outside of this repository, and nothing is generated among the sources.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=../examples/lib.sh
. "$root/examples/lib.sh"

tools=$root/target/guest-tools
languages=$root/guests/target/languages

# begin LANGUAGE : takes the language's lock and makes its folder, $work. If the component is there and was made of the sources
# as they are, says where it is and ends the script.
begin() {
    language=$1
    work=$languages/$language
    component=$languages/$language.wasm
    mkdir -p "$work" "$tools"
    # Whoever builds the same at the same time waits, and then finds it done.
    exec 9>"$work.lock"
    flock 9
    stamp=$(cd "$root" && find "guests/$language" guests/lib.sh guests/tools/src guests/tools/Cargo.lock wit -type f ! -name '*.md' -print0 | sort -z | xargs -0 sha256sum)
    [ "$language" != rust ] || stamp+=$(cd "$root" && sha256sum guests/Cargo.toml guests/Cargo.lock)
    if [ -f "$component" ] && [ "$stamp" = "$(cat "$work.stamp" 2>/dev/null)" ]; then
        echo "$component"
        exit 0
    fi
    # Whatever goes wrong from here on, nobody takes the old one for the new.
    rm -f "$work.stamp" "$component"
    say "building the guest in $language"
}

# finish FILE : makes FILE the component.
finish() {
    mv "$1" "$component"
    printf '%s' "$stamp" >"$work.stamp"
    echo "$component"
}

# tool NAME VERSION COMMAND... : has COMMAND install something, once for each version, in a folder of its own: $tools/NAME. What
# others install at the same time waits.
tool() {
    local folder=$tools/$1 version=$2
    shift 2
    (
        flock 8
        [ "$version" = "$(cat "$folder/.version" 2>/dev/null)" ] && exit 0
        rm -rf "$folder"
        mkdir -p "$folder"
        say "installing ${folder##*/} $version below target/"
        # Not `"$@" || die`: to the left of an `||` bash would go on after what fails.
        set +e
        (set -e; "$@") </dev/null >&2
        local status=$?
        set -e
        [ "$status" -eq 0 ] || die "${folder##*/} $version could not be installed (see above); the guest in $language needs it"
        printf '%s' "$version" >"$folder/.version"
    ) 8>"$tools/.${folder##*/}.lock"
}

# need_guest_tools : what makes bindings and components for C and Go (guests/tools); sets $guest_tools.
need_guest_tools() {
    command -v cargo >/dev/null || die "Rust is needed for the bindings: https://rustup.rs"
    # Settings for the host's programs are not meant for this; cargo's own lock keeps two builds apart.
    env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS -u CARGO_BUILD_TARGET -u RUSTC_WRAPPER CARGO_TARGET_DIR="$tools/guest-tools" \
        cargo build --quiet --locked --manifest-path "$root/guests/tools/Cargo.toml" </dev/null >&2
    guest_tools=$tools/guest-tools/debug/guest-tools
}

install_wasi_libc() {
    local folder=$1 apt mirror
    # The mirror that this machine has bookworm itself from.
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' 'Label: Debian' | head -n 1)
    [ -n "$mirror" ] || die "apt-get knows no mirror of Debian's bookworm"
    # The lists of its backports in a folder of their own: what else this machine installs is not touched.
    mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror bookworm-backports main" >"$folder/sources.list"
    apt=(-q -o "Dir::Etc::sourcelist=$folder/sources.list" -o Dir::Etc::sourceparts=/dev/null -o "Dir::State::lists=$folder/lists"
        -o "Dir::Cache=$folder/cache" -o APT::Get::List-Cleanup=0 -o "APT::Sandbox::User=$(id -un)")
    apt-get "${apt[@]}" update
    (cd "$folder" && apt-get "${apt[@]}" download "wasi-libc=$2")
    dpkg-deb -x "$folder"/wasi-libc_*.deb "$folder"
    rm -rf "$folder/lists" "$folder/cache" "$folder"/*.deb
}

# need_wasi_libc : C's library for WASI 0.2; sets $wasi_libc to what clang takes as --sysroot. The package of Debian's bookworm is too old: the
# one in its backports is unpacked below target/.
need_wasi_libc() {
    local release version='0.0~git20240708.3f43ea9-2~bpo12+1'
    release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    wasi_libc=/usr
    if [ "$release" = bookworm ]; then
        tool wasi-libc "$version" install_wasi_libc "$tools/wasi-libc" "$version"
        wasi_libc=$tools/wasi-libc/usr
    else
        need_packages wasi-libc
    fi
    [ -f "$wasi_libc/lib/wasm32-wasip2/libc.a" ] || die "$wasi_libc has no C library for wasm32-wasip2: Debian's package wasi-libc of 2024 or later has"
}

install_npm_package() { npm install --prefix "$1" --no-audit --no-fund --no-update-notifier "$2"; }

# need_npm_package NAME VERSION : below $tools/NAME; sets $programs to the folder of its commands.
need_npm_package() {
    need_command node nodejs
    need_command npm npm
    local major
    major=$(node -p 'process.versions.node.split(".")[0]')
    [ "$major" -ge 18 ] || die "Node.js $major is too old for $1: 18 is needed"
    tool "$1" "$2" install_npm_package "$tools/$1" "$1@$2"
    programs=$tools/$1/node_modules/.bin
}

install_pypi_package() {
    python3 -m venv "$1"
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check "$2"
}

# need_pypi_package NAME VERSION : in an environment of its own, $tools/NAME; sets $programs to the folder of its commands.
need_pypi_package() {
    need_command python3 python3
    python3 -c 'import ensurepip, venv' 2>/dev/null || need_packages python3-venv
    tool "$1" "$2" install_pypi_package "$tools/$1" "$1==$2"
    programs=$tools/$1/bin
}
