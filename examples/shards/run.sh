#!/usr/bin/env bash
# Shards are assigned to whoever is there. Five nodes; a worker is killed, then the leader resigns, so that members come and go. After each
# change every shard has one owner, all owners have equally many, nothing moved that could stay, and each node serves what it is assigned.
#
# Needs Rust, a C compiler and Debian's package manager. Installs, if missing: Rust's target wasm32-wasip2 (by rustup) and
# the package jq. Writes to target/, guests/target/ and a temporary folder that it removes.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=../lib.sh
. "$root/examples/lib.sh"
here=$root/examples/shards
group=shards
# shellcheck source=../cluster.sh
. "$root/examples/cluster.sh"

build shards
start 5

assignment() { read_state get assignment; }
members() { with_role '.role == "worker"' | sort; }
# Each shard has an owner that is there, and the numbers differ by one at the most.
is_fair() {
    local now there
    now=$(assignment | cut -d ' ' -f 2 | sort | uniq -c | awk '{ print $2, $1 }')
    there=$(members)
    [ "$(cut -d ' ' -f 1 <<<"$now")" = "$there" ] && awk '{ if (NR == 1 || $2 < least) least = $2; if ($2 > most) most = $2 } END { exit most - least > 1 }' <<<"$now"
}
# What each member says that it serves is what it is assigned.
is_followed() {
    local member says
    for member in $(members); do
        says=$(grep -a " $member.*serves" "$log" | tail -n 1 | sed 's/.*serves:\{0,1\} *//' | grep -oE '[0-9]+' | sort -n | paste -sd ' ')
        [ "$says" = "$(assignment | awk -v member="$member" '$2 == member { print $1 }' | sort -n | paste -sd ' ')" ] || return 1
    done
}
# moved BEFORE AFTER : how many shards have another owner.
moved() { diff <(cat <<<"$1") <(cat <<<"$2") | grep -c '^>' || true; }

unequal=0
# check WHAT LEAST : waits until all is well, and compares how many shards moved with the least that had to.
check() {
    local after count
    wait_for 60 "a fair assignment after $1" is_fair
    wait_for 60 "each member to serve its shards after $1" is_followed
    after=$(assignment)
    count=$(moved "$before" "$after")
    if [ "$count" -eq "$2" ]; then
        echo "$1: 60 shards, each with one owner; $count moved, and no fewer could"
    else
        echo "NOT the least: after $1, $count shards moved where $2 had to"
        unequal=1
    fi
    before=$after
}

wait_for 60 "the first assignment" is_fair
wait_for 60 "each member to serve its shards" is_followed
before=$(assignment)
owned() { awk -v member="$1" '$2 == member' <<<"$before" | wc -l; }

lost=$(members | head -n 1)
had=$(owned "$lost")
say "killing the worker $lost, which serves $had shards"
admin kill "$lost"
check "$lost was killed" "$had"

old=$(leader)
say "$old gives leadership up: it comes back as a worker, and one of the workers goes"
admin --node "$old" resign "$group"
wait_for 60 "another leader" leads_another_than "$old"
check "$(leader) took over from $old" "$(owned "$(leader)")"
exit "$unequal"
