#!/usr/bin/env bash
# Runs all tests, or those whose names contain FILTER ("quickstart" runs the quickstart alone):
#
#   tests/run.sh [FILTER]
#
# Installs, if missing: Rust's target wasm32-wasip2 (by rustup) and the packages zookeeper, libcurator-recipes-java,
# iproute2, iptables, libfaketime, docker-registry, jq, python3 and a JDK (by apt-get, as root or by sudo), and what the guests in other languages than Rust need: see
# guests/*/build.sh. What the projects that `bellwether new` makes install lies below target/projects. Prints a summary and fails if anything did.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=../examples/lib.sh
. "$root/examples/lib.sh"
cd "$root"

case ${1:-} in
    -*) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; [ "$1" = --help ] && exit 0 || exit 2 ;;
esac
filter=${1:-}
# A guest's or a test's panic is reported without the host's backtrace, which would only hide it.
export RUST_BACKTRACE=${RUST_BACKTRACE:-0}

passed=0 failed=0 problems=()
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# run WHAT COMMAND... : runs a command that prints results as cargo test does, and adds them up.
run() {
    local what=$1 status=0 results ok bad
    shift
    say "$what"
    "$@" </dev/null 2>&1 | tee "$log" || status=$?
    results=$(sed -nE 's/^test result: [^.]*\. ([0-9]+) passed; ([0-9]+) failed;.*/\1 \2/p' "$log")
    ok=$(awk '{ n += $1 } END { print n + 0 }' <<<"$results")
    bad=$(awk '{ n += $2 } END { print n + 0 }' <<<"$results")
    passed=$((passed + ok))
    failed=$((failed + bad))
    while read -r name; do
        problems+=("$what: $name")
    done < <(sed -nE 's/^test (.*) \.\.\. FAILED$/\1/p' "$log")
    if [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; then
        # It did not come as far as a test: it does not compile, or a test program was killed.
        failed=$((failed + 1))
        problems+=("$what: ended with status $status")
    fi
}

# example WHAT SCRIPT : runs one whose own checks say whether it went well.
example() {
    say "$1"
    if "$2" </dev/null; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        problems+=("$1")
    fi
}

need_rust
need_command jq jq
if [ "$filter" != quickstart ]; then
    need_packages zookeeper libcurator-recipes-java docker-registry iproute2 iptables libfaketime
    need_command javac default-jdk-headless
    say "building the guests"
    build_guests "$root"
    for language in $(build_languages "$root"); do
        failed=$((failed + 1))
        problems+=("the guest in $language: it could not be built")
    done
    # They are: the tests need not build them again, one by one.
    export BELLWETHER_TEST_GUESTS=prebuilt
    run "the runtime" cargo test --locked --workspace --no-fail-fast -- ${filter:+"$filter"}
    run "the guests' own logic" env CARGO_TARGET_DIR="$root/guests/target" \
        cargo test --locked --manifest-path guests/Cargo.toml -p wordcount-common -p shards --no-fail-fast -- ${filter:+"$filter"}
fi
for script in examples/*/run.sh; do
    name=$(basename "$(dirname "$script")")
    # With the binary that the tests were run with.
    [[ $name != *"$filter"* ]] || BELLWETHER_TEST_BINARY=${CARGO_TARGET_DIR:-$root/target}/debug/bellwether example "the example $name" "$script"
done
[[ quickstart != *"$filter"* ]] || example "the quickstart" examples/quickstart.sh

say "summary"
for problem in ${problems[@]+"${problems[@]}"}; do
    echo "FAILED $problem"
done
if [ $((passed + failed)) -eq 0 ]; then
    echo "no test has ${filter@Q} in its name"
    exit 1
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
