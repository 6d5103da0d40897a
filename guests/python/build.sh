#!/usr/bin/env bash
# Builds the guest in Python; prints the component's path. Needs Python 3.10 or later, and installs, below target/, what
# makes components of Python programs.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../lib.sh
. "$here/../lib.sh"

begin python
need_pypi_package componentize-py 0.25.1
# The bindings are for people and their editors; componentize-py makes its own while it builds.
rm -rf "$work/bindings"
"$programs/componentize-py" --quiet -d "$root/wit" -w stateful-service bindings "$work/bindings"
"$programs/componentize-py" --quiet -d "$root/wit" -w stateful-service componentize -p "$here" -p "$work/bindings" -o "$work/new.wasm" sums
finish "$work/new.wasm"
