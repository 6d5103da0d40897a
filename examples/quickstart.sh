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
components=$root/guests/target/wasm32-wasip2/release
bellwether=${CARGO_TARGET_DIR:-$root/target}/debug/bellwether

# --- what is needed -------------------------------------------------------------------------------------------------

need_rust
need_command jq jq

say "building the guests and bellwether (the first time takes minutes: wasmtime is among it)"
build_guests "$root" -p wordcount-v1 -p wordcount-v2
cargo build --locked --manifest-path "$root/Cargo.toml" -p bellwether

# Real text that any machine has that has built this: the Markdown files of our dependencies, and of Debian's licences.
make_corpus() {
    local registry=${CARGO_HOME:-$HOME/.cargo}/registry/src new=$corpus.new
    rm -rf "$new" && mkdir -p "$new"
    if [ -d "$registry" ]; then
        # By its own name each, so that the corpus does not depend on where the files were; 1,000 files or 6 MB at the most.
        (
            cd "$registry"
            find . -name '*.md' -type f -size -400k -printf '%s %p\n' | LC_ALL=C sort -k 2 \
                | awk '{ size += $1; if (NR <= 1000 && size <= 6000000) { sub(/^[0-9]+ /, ""); print } }' \
                | xargs -r -d '\n' cp --parents --no-preserve=mode -t "$new"
        )
    fi
    find "$root/runtime" "$root/guests/README.md" -name '*.md' -type f -not -path '*/target/*' -exec cp --parents -t "$new" {} + 2>/dev/null || true
    [ -d /usr/share/common-licenses ] && cp -L --no-preserve=mode -r /usr/share/common-licenses "$new/licences"
    rm -rf "$corpus" && mv "$new" "$corpus"
}
[ -d "$corpus" ] || { say "gathering some text to count"; make_corpus; }
say "the corpus: $(find "$corpus" -type f | wc -l) files, $(du -sh --apparent-size "$corpus" | cut -f 1)"

# --- three nodes ----------------------------------------------------------------------------------------------------

# Short, for the path of a Unix socket may have no more than 107 bytes.
work=$(mktemp -d "${TMPDIR:-/tmp}/bellwether-XXXXXX")
nodes=

clean_up() {
    local status=$?
    trap - EXIT INT TERM
    if [ -n "$nodes" ] && kill -0 "$nodes" 2>/dev/null; then
        kill -TERM "$nodes" 2>/dev/null || true
        for _ in $(seq 100); do
            kill -0 "$nodes" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$nodes" 2>/dev/null || true
        wait "$nodes" 2>/dev/null || true
    fi
    rm -rf "$work" "$here/.bellwether"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# wait_for SECONDS WHAT COMMAND... : until the command succeeds; fails if it takes too long or the nodes are gone.
wait_for() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        kill -0 "$nodes" 2>/dev/null || die "the nodes have stopped while waiting for $what; their log is above"
        [ $SECONDS -lt $deadline ] || die "waited too long for $what; the last progress was: $(progress || true)"
        sleep 0.2
    done
}

say "starting three nodes in one process, with the coordinator built in"
(cd "$here" && exec "$bellwether" --log-format human dev bellwether.toml --nodes 3 --data "$work/data") </dev/null &
nodes=$!

socket=
find_socket() {
    socket=$(find "$work/data" "$here/.bellwether" -name admin.sock -type s 2>/dev/null | head -n 1 || true)
    [ -n "$socket" ] && status >/dev/null
}
admin() { "$bellwether" --admin "unix:$socket" "$@"; }
status() { admin status --json 2>/dev/null; }
# with_role FILTER : the nodes whose role in the group is one that the filter of jq names.
with_role() { status | jq -r --arg group "$group" ".nodes[] | select(any(.groups[]; .name == \$group and ($1))) | .node"; }
leader() { with_role '.role == "leader"' | head -n 1; }
# read_state get KEY, read_state list PREFIX
read_state() { admin state "$1" "$group" "$2" 2>/dev/null; }
progress() { read_state get progress; }
# progress_is FILTER : whether the filter of jq holds for the job's progress.
progress_is() { progress | jq -e "$1" >/dev/null 2>&1; }
three_are_ready() { [ "$(with_role '.role == "leader" or .role == "worker"' | wc -l)" -eq 3 ] && [ -n "$(leader)" ]; }
another_leads() { local now; now=$(leader) && [ -n "$now" ] && [ "$now" != "$killed" ]; }

wait_for 60 "the nodes' admin socket" find_socket
wait_for 60 "three nodes" three_are_ready
say "$(leader) leads; pass 1 counts the words as they are written"

wait_for 120 "the first half of pass 1" progress_is '.pass == 1 and .done * 2 >= .total'
killed=$(leader)
before=$(progress | jq .done)
progress_is '.pass == 1 and .state == "counting"' || die "pass 1 was over before its leader could be killed; give it more text"
say "killing the leader, $killed, after $before chunks of $(progress | jq .total)"
admin kill "$killed"
wait_for 60 "another leader" another_leads
say "$(leader) leads now and goes on"
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
