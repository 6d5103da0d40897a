#!/usr/bin/env bash
# A cron of which one runs, wherever it is. Eight nodes; the leader is killed in the middle of a run, twice, and again if none was hit. Then what the runs have
# written is looked at: no run was done twice, and those that were interrupted were not done again.
#
# Needs Rust, a C compiler and Debian's package manager. Installs, if missing: Rust's target wasm32-wasip2 (by rustup) and
# the package jq. Writes to target/, guests/target/ and a temporary folder that it removes.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=../lib.sh
. "$root/examples/lib.sh"
here=$root/examples/scheduler
group=scheduler
# shellcheck source=../cluster.sh
. "$root/examples/cluster.sh"

ledger=$root/target/scheduler/ledger
rm -rf "$ledger" && mkdir -p "$ledger"
build scheduler
start 8

runs() { cat "$ledger"/* 2>/dev/null | wc -l; }
have_run() { [ "$(runs)" -ge "$1" ]; }
# A run of the job that is under way, as "SLOT claimed".
under_way() { read_state get job/backup | grep -q claimed; }

interrupted() { read_state list interrupted/ | wc -l; }
not_under_way() { ! under_way; }

kills=0
# Once more, should a run have ended just before its leader did.
while [ "$kills" -lt 2 ] || { [ "$(interrupted)" -eq 0 ] && [ "$kills" -lt 7 ]; }; do
    wait_for 60 "some runs" have_run $((kills * 3 + 3))
    killed=$(leader)
    wait_for 60 "a run to be under way" under_way
    kill_leader "$killed"
    kills=$((kills + 1))
    wait_for 60 "the new leader to look at it" not_under_way
done
wait_for 60 "runs by the last leader" have_run $(($(runs) + 4))

unequal=0
twice=$(for job in "$ledger"/*; do sort "$job" | uniq -d | sed "s|^|${job##*/} |"; done)
if [ -n "$twice" ]; then
    echo "NOT once: these were done twice: $twice"
    unequal=1
fi
for interrupted in $(read_state list interrupted/); do
    run=${interrupted#interrupted/}
    times=$(grep -cx "${run#*-}" "$ledger/${run%-*}" || true)
    say "$run was interrupted; it was done $times times and is not done again"
    [ "$times" -le 1 ] || unequal=1
done
[ "$(interrupted)" -ge 1 ] || { echo "NOT shown: no run was interrupted"; unequal=1; }
# Within a job, each run is later than the one before, whoever did it.
for job in "$ledger"/*; do
    sort -nc "$job" || { echo "NOT in order: ${job##*/}"; unequal=1; }
done
[ "$unequal" -eq 0 ] && echo "once: $(runs) runs by $((kills + 1)) leaders, none of them twice"
exit "$unequal"
