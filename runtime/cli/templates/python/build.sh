#!/bin/sh
# Builds build/guest.wasm. Needs Python 3.10 or later; installs what makes components of Python, componentize-py of PyPI, into .venv.
set -eu
cd "$(dirname "$0")"

command -v python3 >/dev/null || { echo "error: Python is needed: apt-get install python3 python3-venv" >&2; exit 1; }
if ! cmp -s requirements.txt .venv/installed; then
    python3 -c 'import ensurepip, venv' 2>/dev/null || { echo "error: Python's venv is needed: apt-get install python3-venv" >&2; exit 1; }
    echo "installing $(cat requirements.txt) from PyPI into .venv"
    python3 -m venv --clear .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
    cp requirements.txt .venv/installed
fi
mkdir -p build
# The bindings are for editors; componentize-py makes its own while it builds.
rm -rf build/bindings
.venv/bin/componentize-py --quiet -d wit -w guest bindings build/bindings
.venv/bin/componentize-py --quiet -d wit -w guest componentize -p src -p build/bindings -o build/new.wasm app
mv build/new.wasm build/guest.wasm
