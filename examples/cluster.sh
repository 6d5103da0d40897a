# shellcheck shell=bash
# A cluster for an example: several nodes in one process, with the coordinator built in. Sourced after lib.sh by quickstart.sh and */run.sh, never
# run; the caller has set -euo pipefail, and set root (of the repository), here (the folder of bellwether.toml) and group.

components=$root/guests/target/wasm32-wasip2/release
# BELLWETHER_TEST_BINARY names one that is built already, as for the tests.
bellwether=${BELLWETHER_TEST_BINARY:-${CARGO_TARGET_DIR:-$root/target}/debug/bellwether}
# Short, for the path of a Unix socket may have no more than 107 bytes.
work=$(mktemp -d "${TMPDIR:-/tmp}/bellwether-XXXXXX")
# Where the nodes' log goes; empty: to stderr.
log=$work/log
nodes=
socket=
# Processes besides the nodes that end with the example.
helpers=()

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
    for helper in ${helpers[@]+"${helpers[@]}"}; do
        kill "$helper" 2>/dev/null || true
    done
    rm -rf "$work"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# build PACKAGE... : builds the guests and bellwether, unless that is done.
build() {
    local packages=()
    for package in "$@"; do packages+=(-p "$package"); done
    need_rust
    need_command jq jq
    say "building the guests and bellwether (the first time takes minutes: wasmtime is among it)"
    build_guests "$root" "${packages[@]}"
    [ -n "${BELLWETHER_TEST_BINARY:-}" ] || cargo build --locked --manifest-path "$root/Cargo.toml" -p bellwether
}

# failed WHAT : ends the example; shows the end of the nodes' log if that is a file.
failed() {
    [ ! -f "$log" ] || tail -n 30 "$log" >&2
    die "$1"
}

# wait_for SECONDS WHAT COMMAND... : until the command succeeds; fails if it takes too long or the nodes are gone.
wait_for() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        kill -0 "$nodes" 2>/dev/null || failed "the nodes have stopped while waiting for $what"
        [ $SECONDS -lt $deadline ] || failed "waited too long for $what; the state was: $(shown_state)"
        sleep 0.1
    done
}

find_socket() {
    socket=$(find "$work/data" -name admin.sock -type s 2>/dev/null | head -n 1 || true)
    [ -n "$socket" ] && status >/dev/null
}
admin() { "$bellwether" --admin "unix:$socket" "$@"; }
status() { admin status --json 2>/dev/null; }
# with_role FILTER : the nodes whose role in the group is one that the filter of jq names.
with_role() { status | jq -r --arg group "$group" ".nodes[] | select(any(.groups[]; .name == \$group and ($1))) | .node"; }
leader() { with_role '.role == "leader"' | head -n 1; }
# read_state get KEY, read_state list PREFIX
read_state() { admin state "$1" "$group" "$2" 2>/dev/null; }
shown_state() {
    local key
    for key in $(read_state list "" || true); do
        printf '%s = %s; ' "$key" "$(read_state get "$key" | head -c 200 | tr '\n' ' ')"
    done
}
are_ready() { [ "$(with_role '.role == "leader" or .role == "worker"' | wc -l)" -eq "$1" ] && [ -n "$(leader)" ]; }
leads_another_than() { local now; now=$(leader) && [ -n "$now" ] && [ "$now" != "$1" ]; }

# start NUMBER : starts so many nodes, and waits until one leads and the others work.
start() {
    say "starting $1 nodes in one process, with the coordinator built in"
    (
        [ -z "$log" ] || exec 2>"$log"
        cd "$here" && exec "$bellwether" --log-format human dev bellwether.toml --nodes "$1" --data "$work/data"
    ) </dev/null &
    nodes=$!
    wait_for 60 "the nodes' admin socket" find_socket
    wait_for 60 "$1 nodes" are_ready "$1"
    say "$(leader) leads"
}

# kill_leader [NODE] : ends the leader (NODE, if it is known already) as a crash would, and waits until another node leads. Sets killed.
kill_leader() {
    killed=${1:-$(leader)}
    admin kill "$killed"
    wait_for 60 "another leader" leads_another_than "$killed"
    say "$killed was killed, $(leader) leads"
}

# make_documents FOLDER : real text that any machine has that has built this: the Markdown files of our dependencies, and of Debian's licences.
make_documents() {
    local folder=$1 registry=${CARGO_HOME:-$HOME/.cargo}/registry/src new=$1.new
    [ ! -d "$folder" ] || return 0
    say "gathering some text"
    rm -rf "$new" && mkdir -p "$new"
    if [ -d "$registry" ]; then
        # By its own name each, so that the text does not depend on where the files were; 1,000 files or 6 MB at the most.
        (
            cd "$registry"
            find . -name '*.md' -type f -size -400k -printf '%s %p\n' | LC_ALL=C sort -k 2 \
                | awk '{ size += $1; if (NR <= 1000 && size <= 6000000) { sub(/^[0-9]+ /, ""); print } }' \
                | xargs -r -d '\n' cp --parents --no-preserve=mode -t "$new"
        )
    fi
    find "$root/runtime" "$root/guests/README.md" -name '*.md' -type f -not -path '*/target/*' -exec cp --parents -t "$new" {} + 2>/dev/null || true
    [ -d /usr/share/common-licenses ] && cp -L --no-preserve=mode -r /usr/share/common-licenses "$new/licences"
    rm -rf "$folder" && mv "$new" "$folder"
}
