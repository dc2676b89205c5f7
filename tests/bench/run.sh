#!/bin/sh
# One core for the gateway, keep-alive, 32 connections, 1,000 tokens in turn, all stages on: its rate beside that of a
# bare hyper forwarder and of nginx with a log and limit_req. Prints each round and the medians.
#
#   tests/bench/run.sh [ROUNDS [SECONDS]]         7 rounds of 4 s if not said
#
# Needs wrk, taskset and two cores; nginx is the upstream and, where installed, a row. BARE names the yardstick's
# source folder, BUILD a scratch folder. PROFILE is dist (what ships) or release.
set -eu
rounds=${1:-7} seconds=${2:-4}
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
BARE=${BARE:-$root/../shared/bench/bare-forwarder}
BUILD=${BUILD:-${TMPDIR:-/tmp}/tidegate-bench}
PROFILE=${PROFILE:-dist}
for tool in wrk taskset nginx; do
    command -v $tool >/dev/null || { echo "skipped: $tool is not installed"; exit 0; }
done
[ -d "$BARE" ] || { echo "skipped: no bare forwarder at $BARE (set BARE)"; exit 0; }
mkdir -p "$BUILD/bare" "$BUILD/run"
cp -r "$BARE/." "$BUILD/bare"
chmod -R u+w "$BUILD/bare"
echo "building" >&2
(cd "$BUILD/bare" && CARGO_TARGET_DIR=$BUILD/target cargo build -q --release)
(cd "$root" && CARGO_TARGET_DIR=$BUILD/target cargo build -q --no-default-features --profile "$PROFILE" --example bench-gateway)
bare=$BUILD/target/release/bare-forwarder
gateway=$BUILD/target/$PROFILE/examples/bench-gateway

nginx_conf() { # name, listener and location of a server
    cat <<CONF
worker_processes 1; daemon off; pid $BUILD/run/$1.pid; error_log $BUILD/run/$1.error warn;
events { worker_connections 1024; }
http {
  client_body_temp_path $BUILD/run/body; proxy_temp_path $BUILD/run/proxy; fastcgi_temp_path $BUILD/run/f;
  uwsgi_temp_path $BUILD/run/u; scgi_temp_path $BUILD/run/s;
  keepalive_requests 1000000000; keepalive_timeout 3600s;
  $2
}
CONF
}
nginx_conf up 'access_log off; server { listen 127.0.0.1:19100 backlog=1024;
  location / { default_type application/json; return 200 "{\"id\":7,\"name\":\"Tide\",\"status\":\"available\"}"; } }' >"$BUILD/run/up.conf"
nginx_conf proxy "access_log $BUILD/run/access.log; limit_req_zone \$http_authorization zone=z:10m rate=1000000r/s;
  upstream up { server 127.0.0.1:19100; keepalive 64; }
  server { listen 127.0.0.1:19103 backlog=1024; limit_req zone=z burst=100000 nodelay;
  location / { proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection \"\"; } }" >"$BUILD/run/proxy.conf"

pids=
trap 'kill $pids 2>/dev/null || true' EXIT INT TERM
on() { # core, command: starts it there
    core=$1; shift
    taskset -c "$core" "$@" & pids="$pids $!"; last=$!
}
on 1 nginx -c "$BUILD/run/up.conf"
on 0 "$bare" 127.0.0.1:19101 127.0.0.1:19100; p_bare=$last
on 0 "$gateway" 127.0.0.1:19102 127.0.0.1:19100 "$BUILD/run"; p_gateway=$last
on 0 nginx -c "$BUILD/run/proxy.conf"
sleep 1
echo "resident memory of the gateway alone, idle: $(awk '/VmRSS/{print $2}' /proc/$p_gateway/status) kB" 

measure() { # name, port, pid: appends "rate cpu-ns-per-request"
    before=0; after=0
    [ -n "$3" ] && before=$(awk '{s+=$1} END{printf "%.0f", s}' /proc/$3/task/*/schedstat)
    out=$(taskset -c 1 wrk -t1 -c32 -d"${seconds}s" -s "$BUILD/run/tokens.lua" "http://127.0.0.1:$2")
    [ -n "$3" ] && after=$(awk '{s+=$1} END{printf "%.0f", s}' /proc/$3/task/*/schedstat)
    case $out in *Non-2xx*) echo "$1 refused requests" >&2; echo "$out" >&2; exit 1 ;; esac
    echo "$out" | awk -v cpu=$((after - before)) '/requests in/{n=$1} /Requests\/sec/{print int($2), int(cpu / n)}' >>"$BUILD/run/$1.rates"
    : >"$BUILD/run/usage.log"; : >"$BUILD/run/access.log"
}
rm -f "$BUILD"/run/*.rates
round=1
while [ "$round" -le "$rounds" ]; do
    measure bare 19101 "$p_bare"; measure gateway 19102 "$p_gateway"; measure nginx 19103 ""
    printf 'round %d: bare %s, gateway %s, nginx %s requests/s\n' "$round" \
        "$(tail -1 "$BUILD/run/bare.rates" | cut -d' ' -f1)" "$(tail -1 "$BUILD/run/gateway.rates" | cut -d' ' -f1)" \
        "$(tail -1 "$BUILD/run/nginx.rates" | cut -d' ' -f1)"
    round=$((round + 1))
done
median() { cut -d' ' -f"$2" "$BUILD/run/$1.rates" | sort -n | sed -n "$(((rounds + 1) / 2))p"; }
b=$(median bare 1) g=$(median gateway 1) n=$(median nginx 1) bc=$(median bare 2) gc=$(median gateway 2)
echo
echo "| median of $rounds | requests/s | of bare | CPU a request | of bare |"
echo "|---|---|---|---|---|"
awk -v b="$b" -v g="$g" -v n="$n" -v bc="$bc" -v gc="$gc" 'BEGIN {
    printf "| bare hyper forwarder | %d | 1.00 | %.1f µs | 1.00 |\n", b, bc / 1000
    printf "| gateway, all stages | %d | %.2f | %.1f µs | %.2f |\n", g, g / b, gc / 1000, bc / gc
    printf "| nginx, log and limit_req | %d | %.2f | | |\n", n, n / b }'
echo
echo "resident memory of the gateway alone, after the load: $(awk '/VmRSS/{print $2}' /proc/$p_gateway/status) kB"
