#!/usr/bin/env bash
# Builds the guest in JavaScript; prints the component's path. Needs Node.js 18 or later, and installs, below target/, what
# puts JavaScript and the engine QuickJS into one component.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../lib.sh
. "$here/../lib.sh"

begin javascript
need_npm_package componentize-qjs 0.4.5
# --sync: the contract's functions are plain ones, and the runtime offers no asynchronous components.
"$programs/componentize-qjs" --sync -j "$here/sums.js" -w "$root/wit" -n stateful-service -o "$work/new.wasm" >&2
finish "$work/new.wasm"
