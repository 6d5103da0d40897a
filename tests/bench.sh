#!/usr/bin/env bash
# Measures Bellwether beside what a user would pick instead (Curator's recipes, Kazoo), in one run on one ZooKeeper:
#
#   tests/bench.sh [NAME...] [--peers none|kazoo|curator|all] [--rounds N] [--json]
#
# NAME is handover, failover, registry, tasks, footprint, swap or callback; all of them if none is given. More options: tests/bench.sh --help.
# Installs what is missing: ZooKeeper, Curator and a JDK by apt-get; Kazoo from PyPI, below target/. Builds with the release profile (some
# minutes the first time); BENCH_PROFILE=dev takes the daily one. Figures go to stdout as they come, progress to stderr.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=../examples/lib.sh
. "$root/examples/lib.sh"
cd "$root"

need_rust
need_packages zookeeper libcurator-recipes-java
need_command javac default-jdk-headless
need_command python3 python3
python3 -c 'import ensurepip, venv' 2>/dev/null || need_packages python3-venv
say "building"
build_guests "$root" --package minimal --package stamp
profile=${BENCH_PROFILE:-release}
# The whole workspace: with other features wasmtime would be compiled once more.
cargo build --locked --workspace --profile "$profile" --bin bellwether --bin bellwether-bench </dev/null
[ "$profile" = dev ] && folder=debug || folder=$profile
export RUST_BACKTRACE=${RUST_BACKTRACE:-0} BELLWETHER_TEST_GUESTS=prebuilt BELLWETHER_TEST_REPORTS=none
# Whoever speaks to a thousand candidates has many files open.
ulimit -n "$(ulimit -Hn)"
export BELLWETHER_TEST_BINARY=${CARGO_TARGET_DIR:-$root/target}/$folder/bellwether
say "measuring with the profile $profile, on $(nproc) cores; load: $(cut -d' ' -f1-3 /proc/loadavg)"
exec "${CARGO_TARGET_DIR:-$root/target}/$folder/bellwether-bench" "$@"
