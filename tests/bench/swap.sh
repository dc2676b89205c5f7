#!/bin/sh
# A large policy comes while requests run: how long it takes, what memory, and what a request feels of it.
#
#   tests/bench/swap.sh [TIMES]       5 swaps if not said
#
# 10,000 routes in 100 APIs and 100,000 subscriptions, signed. The daemon as it ships, one worker, serves a small policy
# to a client that never stops; then two large policies take turns. Printed: the time from the file's rename to its
# result beside it, the most memory that the daemon ever had, and the longest that any request waited.
#
# Needs two cores, wrk, taskset, python3, nginx (the upstream). BUILD names a scratch folder.
set -eu
times=${1:-5}
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
BUILD=${BUILD:-${TMPDIR:-/tmp}/tidegate-bench}
for tool in wrk taskset python3 nginx; do
    command -v $tool >/dev/null || { echo "skipped: $tool is not installed"; exit 0; }
done
run=$BUILD/swap
rm -rf "$run"
mkdir -p "$run/inbox" "$run/state"
echo "building" >&2
(cd "$root" && CARGO_TARGET_DIR=$BUILD/target cargo build -q --no-default-features --profile dist --bin tidegated --bin tidegate)
daemon=$BUILD/target/dist/tidegated
tidegate() { "$BUILD/target/dist/tidegate" "$@" >>"$run/tidegate.log" 2>&1 || { cat "$run/tidegate.log"; exit 1; }; }

echo "making the bundles" >&2
site=$run/site
tidegate init "$site" --deployment bench
bundle() { # name, APIs
    python3 "$here/large.py" "$site" 127.0.0.1:19200 "$2"
    tidegate bundle build "$site" -o "$run/$1.tgb"
    tidegate bundle sign "$run/$1.tgb" --key "$site/keys/policy.key" --yes
}
bundle small 1
for number in $(seq "$times"); do bundle "large-$number" 100; done
"$BUILD/target/dist/tidegate" token mint --key "$site/keys/issuer.pem" --kid 2026-01 --iss https://tokens.example.com \
    --aud edge --sub ada --client key-0 --scope read --ttl 7d >"$run/token"
cat >"$run/tidegated.toml" <<CONF
state = "$run/state"
inbox = "$run/inbox"
[trust]
root = "$site/root.json"
[time]
trust = ["rtc"]
[gateway]
workers = 1
[[gateway.listeners]]
address = "127.0.0.1:19202"
[admin]
socket = "$run/admin.sock"
CONF
cat >"$run/up.conf" <<CONF
worker_processes 1; daemon off; pid $run/up.pid; error_log $run/up.error warn;
events { worker_connections 1024; }
http {
  access_log off; client_body_temp_path $run/body; proxy_temp_path $run/proxy; fastcgi_temp_path $run/f;
  uwsgi_temp_path $run/u; scgi_temp_path $run/s; keepalive_requests 1000000000;
  server { listen 127.0.0.1:19200; location / { return 200 "{}"; } }
}
CONF
setting=$(sed -n 's/^Environment=//p' "$root/systemd/tidegated.service")
export "${setting?}"
pids=
trap 'kill $pids 2>/dev/null || true; wait 2>/dev/null || true' EXIT INT TERM
nginx -c "$run/up.conf" & pids="$pids $!"
"$daemon" run --config "$run/tidegated.toml" 2>"$run/daemon.log" & gateway=$!; pids="$pids $gateway"
python3 "$here/swap.py" "$run" "$gateway" "$times" 127.0.0.1:19202
