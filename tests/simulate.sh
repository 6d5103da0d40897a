#!/usr/bin/env bash
# Simulates clusters under faults: tests/simulate.sh [--seeds N] [--from SEED] [--steps N] [--nodes N] [--trace]
# A seed that breaks an invariant is printed with the command that replays it.
set -euo pipefail
cd "$(dirname "$0")/.."
exec cargo run --quiet -p bellwether-simulation -- "$@"
