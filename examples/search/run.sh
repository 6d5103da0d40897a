#!/usr/bin/env bash
# A search, scattered over the members and gathered. Five nodes, and about a thousand real documents; while queries are answered a worker and
# then the leader are killed. Every answer is compared with what awk counts.
#
# Needs Rust, a C compiler and Debian's package manager. Installs, if missing: Rust's target wasm32-wasip2 (by rustup) and
# the package jq. Writes to target/, guests/target/ and a temporary folder that it removes.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=../lib.sh
. "$root/examples/lib.sh"
here=$root/examples/search
group=search
# shellcheck source=../cluster.sh
. "$root/examples/cluster.sh"

documents=$root/target/search/documents
queries=$root/target/search/queries
rm -rf "$queries" && mkdir -p "$queries"
build search
make_documents "$documents"
say "$(find "$documents" -type f | wc -l) documents, $(du -sh --apparent-size "$documents" | cut -f 1)"
start 5

# ask WORD : a file that is whole when it is there.
ask() { echo "$1" >"$queries/$1.aside" && mv "$queries/$1.aside" "$queries/$1.query"; }
is_answered() { [ -f "$queries/$1.answer" ]; }
workers() { with_role '.role == "worker"'; }

ask wasm
wait_for 60 "an answer" is_answered wasm
for word in memory async the; do ask "$word"; done
lost=$(workers | head -n 1)
say "killing the worker $lost"
admin kill "$lost"
for word in license Rust; do ask "$word"; done
kill_leader
for word in unsafe nowhere_to_be_found; do ask "$word"; done

# The same by awk: the number of each document, then all of them, the largest first.
expected() {
    (
        cd "$documents"
        find . -type f -print0 | LC_ALL=C xargs -0 awk -v word="${1,,}" 'BEGIN { RS = "[^A-Za-z0-9_]+" }
            tolower($0) == word { times[FILENAME]++ }
            END { for (name in times) print times[name], substr(name, 3) }'
    ) | LC_ALL=C sort -t ' ' -k 1,1nr -k 2 >"$work/counted"
    awk '{ times += $1 } END { printf "%d times in %d documents\n", times, NR }' "$work/counted"
    head -n 10 "$work/counted"
}

unequal=0
for word in wasm memory async the license Rust unsafe nowhere_to_be_found; do
    wait_for 120 "the answer to $word" is_answered "$word"
    expected "$word" >"$work/expected"
    if cmp -s "$work/expected" "$queries/$word.answer"; then
        echo "$word: equal ($(head -n 1 "$work/expected"))"
    else
        echo "$word: NOT equal; < awk, > bellwether"
        diff "$work/expected" "$queries/$word.answer" | head -n 20 || true
        unequal=1
    fi
done
[ "$unequal" -eq 0 ] && echo "equal"
exit "$unequal"
