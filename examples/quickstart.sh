#!/usr/bin/env bash
# The quickstart: three nodes count the words of some megabytes of text; the leader is killed half-way, and the logic of the
# running group is swapped between two passes. Both results are compared with what coreutils count.
#
# Needs Rust, a C compiler and Debian's package manager. Installs, if missing: Rust's target wasm32-wasip2 (by rustup) and
# the package jq. Writes to target/, guests/target/ and a temporary folder that it removes.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=lib.sh
. "$root/examples/lib.sh"

case ${1:-} in
    "") ;;
    *) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; [ "$1" = --help ] && exit 0 || exit 2 ;;
esac

here=$root/examples/quickstart
group=wordcount
corpus=$root/target/quickstart/corpus
# shellcheck source=cluster.sh
. "$root/examples/cluster.sh"
# The nodes' log is a part of what there is to see.
log=

# --- what is needed -------------------------------------------------------------------------------------------------

build wordcount-v1 wordcount-v2
make_documents "$corpus"
say "the corpus: $(find "$corpus" -type f | wc -l) files, $(du -sh --apparent-size "$corpus" | cut -f 1)"

# --- three nodes ----------------------------------------------------------------------------------------------------

progress() { read_state get progress; }
# progress_is FILTER : whether the filter of jq holds for the job's progress.
progress_is() { progress | jq -e "$1" >/dev/null 2>&1; }

start 3
say "pass 1 counts the words as they are written"

wait_for 120 "the first half of pass 1" progress_is '.pass == 1 and .done * 2 >= .total'
before=$(progress | jq .done)
progress_is '.pass == 1 and .state == "counting"' || die "pass 1 was over before its leader could be killed; give it more text"
say "killing the leader after $before chunks of $(progress | jq .total)"
kill_leader
wait_for 120 "the new leader to go on" progress_is ".pass > 1 or .done > $before or .state == \"finished\""
wait_for 300 "the end of pass 1" progress_is '.pass == 1 and .state == "finished"'

gather() {
    local key keys
    keys=$(read_state list "result/$1/") || die "the result of pass $1 cannot be listed"
    [ -n "$keys" ] || die "pass $1 has no result"
    for key in $keys; do
        read_state get "$key" || die "the result's key $key cannot be read"
    done >"$work/pass-$1"
}
gather 1

# --- the swap -------------------------------------------------------------------------------------------------------

say "swapping $group to version 2 on every node, the workers first; nothing restarts, and $(leader) goes on leading"
leads=$(leader)
for node in $(with_role '.role == "worker"') "$leads"; do
    admin --node "$node" swap "$group" "$components/wordcount_v2.wasm" || die "$node could not be swapped"
done
[ "$(leader)" = "$leads" ] || die "leadership has moved in the swap: it was $leads's and is now $(leader)'s"

say "pass 2 counts the words without regard to case"
wait_for 300 "the end of pass 2" progress_is '.pass == 2 and .state == "finished" and .version == "v2" and .mode == "folded"'
gather 2

# --- the proof ------------------------------------------------------------------------------------------------------

# Lines, so that a file that does not end in one is not joined to the next; then letters only; then counted.
lines() { find "$corpus" -type f -print0 | LC_ALL=C sort -z | LC_ALL=C xargs -0 grep -ah ''; }
counted() { LC_ALL=C tr -cs 'A-Za-z' '\n' | sed '/^$/d' | LC_ALL=C sort | LC_ALL=C uniq -c | awk '{ print $1 " " $2 }'; }
say "the same, counted by coreutils"
lines | counted >"$work/expected-1"
# shellcheck disable=SC2018,SC2019  # ASCII is what is meant
lines | LC_ALL=C tr 'A-Z' 'a-z' | counted >"$work/expected-2"

unequal=0
for pass in 1 2; do
    words=$(awk '{ words += $1 } END { print words + 0 }' "$work/pass-$pass")
    if diff -q "$work/expected-$pass" "$work/pass-$pass" >/dev/null; then
        echo "pass $pass: equal ($words words, $(wc -l <"$work/pass-$pass") different ones)"
    else
        echo "pass $pass: NOT equal; < coreutils, > bellwether"
        diff "$work/expected-$pass" "$work/pass-$pass" | head -n 20 || true
        unequal=1
    fi
done
[ "$unequal" -eq 0 ] && echo "equal"
exit "$unequal"
