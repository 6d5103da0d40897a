#!/usr/bin/env bash
# A failover controller that calls an HTTP hook. First its scenarios are played (`bellwether test`). Then five nodes; two servers and the hook
# are a small Python program. The primary fails, and in the moment in which the hook has made the standby primary, and nobody knows yet,
# the controller's leader is killed. If that came too late the other server fails, and so on. The hook must have done each change once, in order.
#
# Needs Rust, a C compiler and Debian's package manager. Installs, if missing: Rust's target wasm32-wasip2 (by rustup) and
# the packages jq and python3. Writes to target/, guests/target/ and a temporary folder that it removes.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=../lib.sh
. "$root/examples/lib.sh"
here=$root/examples/failover
group=failover
# shellcheck source=../cluster.sh
. "$root/examples/cluster.sh"

need_command python3 python3
build failover
say "the scenarios"
"$bellwether" test "$here/scenarios.toml"

calls=$work/calls
touch "$calls"
python3 "$here/servers.py" "$calls" >"$work/addresses" &
helpers+=($!)
for _ in $(seq 100); do
    [ "$(wc -l <"$work/addresses")" -lt 3 ] || break
    sleep 0.1
done
{ read -r a && read -r b && read -r hook; } <"$work/addresses" || die "the servers did not start"
sed -e "s|@A@|$a|g" -e "s|@B@|$b|g" -e "s|@HOOK@|$hook|g" \
    -e "s|\"../../guests|\"$root/guests|" "$here/bellwether.toml" >"$work/bellwether.toml"
here=$work
start 5

primary() { read_state get primary; }
is_primary() { [[ "$(primary)" == "$1 $2 called" ]]; }
has_heard() { grep -q " $1 $2 done" "$calls"; }
# tell SERVER fail, tell SERVER mend
tell() { python3 -c 'import sys, urllib.request; urllib.request.urlopen("/".join(sys.argv[1:]), b"")' "$1" "$2"; }
# Whether a leader asked again about the change that a leader before it had made.
made_sure_by_another() {
    awk -v change="$1" '
        $2 == change && $4 == "done" { by = $1 }
        $2 == change && $4 == "known" && by != "" && $1 > by { sure = 1 }
        END { exit !sure }' "$calls"
}

change=1 now=$a standby=$b
expected="1 $a"
wait_for 60 "the first primary" is_primary 1 "$a"
# Once more, should the leader have heard of it before it was killed. There is a node left each time.
while [ "$change" -le 4 ]; do
    say "$now is primary; now it fails"
    change=$((change + 1))
    expected+=$'\n'"$change $standby"
    killed=$(leader)
    tell "$now" fail
    wait_for 60 "the hook to hear of it" has_heard "$change" "$standby"
    kill_leader "$killed"
    wait_for 60 "the standby to be primary" is_primary "$change" "$standby"
    tell "$now" mend
    failed_one=$now now=$standby standby=$failed_one
    ! made_sure_by_another "$change" || break
done
say "$now is primary; what the hook heard (epoch, change, server, verdict):"
cat "$calls"

unequal=0
done=$(awk '$4 == "done" { print $2, $3 }' "$calls")
[ "$done" = "$expected" ] || { echo "NOT once and in order: $done"; unequal=1; }
cut -d ' ' -f 1 "$calls" | sort -nc || { echo "NOT fenced: the epochs go back"; unequal=1; }
made_sure_by_another "$change" || { echo "NOT made sure of: no successor asked again about what a killed leader had called"; unequal=1; }
# The hook stands behind the fence: a leader of old is refused, whatever it believes.
stale=$(python3 - "$hook/primary" "$a" <<'END'
import sys, urllib.error, urllib.request
request = urllib.request.Request(sys.argv[1], sys.argv[2].encode(), {"bellwether-epoch": "0", "idempotency-key": "99"})
try:
    print(urllib.request.urlopen(request).status)
except urllib.error.HTTPError as error:
    print(error.code)
END
)
[ "$stale" = 409 ] || { echo "NOT fenced: a call with an old epoch was answered $stale"; unequal=1; }
[ "$unequal" -eq 0 ] && echo "each of $change changes once, the last by two leaders: the primary was $standby and is $now"
exit "$unequal"
