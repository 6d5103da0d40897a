#!/usr/bin/env bash
# Simulates clusters of the production core under faults, seed by seed:
#
#   tests/simulate.sh [--seeds N] [--from SEED] [--steps N] [--nodes N] [--trouble SECONDS] [--rollouts] [--without SAFEGUARD] [--trace]
#
# "--steps 1000000" runs seeds until a million steps are done. A seed that breaks an invariant is printed with the command that
# replays it; "--without lease" (or proof, told, owner, suffix-order, admission, waves, relist, worker-fence) shows that a
# missing safeguard is noticed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec cargo run --quiet --locked -p bellwether-simulation -- "$@"
