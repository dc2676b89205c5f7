#!/bin/sh
# The daemon as it ships (profile dist, tidegated, a signed bundle, the spool with its child) beside a bare hyper forwarder
# and nginx as a plain proxy with a log and limit_req; prints the tables of docs/benchmarks.md.
#
#   tests/bench/run.sh [ROUNDS [TURNS]]         7 rounds of 8 turns of one second if not said
#
# One core for each server, keep-alive, 32 connections, 1,000 tokens in turn, every stage on: route, token, scopes,
# subscription, a rate and a quota on the subscription and a rate on the API, forward, one usage record a request.
# In a round each side has its turns of one second, the sides one after the other, since a virtual machine's speed changes
# by the second; a round's rate is that of all its turns, and the ratio is made round by round.
#
# Needs two cores, wrk, taskset, python3, nginx (the upstream, and a row); valgrind counts instructions and allocations
# where it is installed. BARE names the yardstick's source folder, BUILD a scratch folder.
set -eu
rounds=${1:-7} turns=${2:-8}
here=$(cd "$(dirname "$0")" && pwd)
BARE=${BARE:-$here/../../../shared/bench/bare-forwarder}
[ -d "$BARE" ] || { echo "skipped: no bare forwarder at $BARE (set BARE)"; exit 0; }
name=run
# shellcheck source=tests/bench/common.sh
. "$here/common.sh"
mkdir -p "$BUILD/bare"
cp -r "$BARE/." "$BUILD/bare"
chmod -R u+w "$BUILD/bare"
(cd "$BUILD/bare" && CARGO_TARGET_DIR=$BUILD/target cargo build -q --release)
bare=$BUILD/target/release/bare-forwarder

# --- the site: a policy of some 60 KiB, 1,000 tokens -------------------------------------------------------------------
bundle_of_site 19100
tokens 1000 200
settings 19102

# --- nginx: the upstream, and the peer ---------------------------------------------------------------------------------
upstream_conf 19100
nginx_conf peer "access_log $run/access.log; limit_req_zone \$http_authorization zone=z:10m rate=1000000r/s;
  upstream up { server 127.0.0.1:19100; keepalive 64; }
  server { listen 127.0.0.1:19103 backlog=1024; limit_req zone=z burst=100000 nodelay;
  location / { proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection \"\"; } }"

on() { # core, command: starts it there
    core=$1; shift
    taskset -c "$core" "$@" 2>>"$run/servers.log" & last=$!; pids="$pids $last"
}
on 1 nginx -c "$run/up.conf"
on 0 "$bare" 127.0.0.1:19101 127.0.0.1:19100; p_bare=$last
on 0 nginx -c "$run/peer.conf"; p_nginx=$last
as_unit

# --- start, idle, load -------------------------------------------------------------------------------------------------
measure="python3 $here/measure.py"
$measure activate "$daemon" "$run/tidegated.toml" "$run/token" 127.0.0.1:19102 "$run/bench.tgb" "$run/inbox"
$measure start 21 "$daemon" "$run/tidegated.toml" "$run/token" 127.0.0.1:19102 >"$run/start"

on 0 "$daemon" run --config "$run/tidegated.toml"; p_gateway=$last
$measure idle "$p_gateway" "$run/token" 127.0.0.1:19102 >"$run/idle"
$measure memory "$p_gateway" 0 >"$run/load" & p_memory=$!

cpu() { awk '{s += $1} END {printf "%.0f", s}' /proc/"$1"/task/*/schedstat; } # ns; a child's are not in it
load() { # round, name, port, pid: a turn; appends "round requests µs cpu-ns"
    before=$(cpu "$4")
    out=$(taskset -c 1 wrk -t1 -c32 -d1s -s "$run/tokens.lua" "http://127.0.0.1:$3")
    after=$(cpu "$4")
    case $out in *Non-2xx* | *"Socket errors"*) echo "$2 failed requests" >&2; echo "$out" >&2; exit 1 ;; esac
    echo "$out" | awk -v round="$1" -v cpu=$((after - before)) \
        '/requests in/ {n = $1} /Requests\/sec/ {printf "%d %d %.0f %.0f\n", round, n, n / $2 * 1e6, cpu}' >>"$run/$2.turns"
    : >"$run/access.log"
}
p_nginx_worker=$(pgrep -P "$p_nginx")
for round in $(seq "$rounds"); do
    for _ in $(seq "$turns"); do
        load "$round" bare 19101 "$p_bare"; load "$round" gateway 19102 "$p_gateway"; load "$round" nginx 19103 "$p_nginx_worker"
    done
    for side in bare gateway nginx; do
        awk -v round="$round" -v side=$side '$1 == round {n += $2; us += $3} END {printf "%s %d/s  ", side, n / us * 1e6}' "$run/$side.turns" >&2
    done
    echo >&2
done
curl --silent --unix-socket "$run/admin.sock" http://localhost/status >"$run/status" || true
kill "$p_gateway"
wait "$p_gateway" || { echo "the daemon did not end well" >&2; exit 1; }
wait "$p_memory" || true
# Again, with the usage of that load in the spool and the rest of it in an open log.
$measure start 21 "$daemon" "$run/tidegated.toml" "$run/token" 127.0.0.1:19102 >"$run/start.loaded"

# --- instructions and allocations --------------------------------------------------------------------------------------
if command -v valgrind >/dev/null; then
    $measure counts "$run" 19111 "$bare" 127.0.0.1:19111 127.0.0.1:19100 >"$run/counts.bare"
    sed "s/19102/19112/; s,admin.sock,counts.sock," "$run/tidegated.toml" >"$run/counts.toml"
    $measure counts "$run" 19112 "$daemon" run --config "$run/counts.toml" >"$run/counts.gateway"
fi

$measure tables "$run" "$daemon"
