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
name=swap
# shellcheck source=tests/bench/common.sh
. "$here/common.sh"

echo "making the bundles" >&2
bundle() { # name, APIs
    python3 "$here/large.py" "$site" 127.0.0.1:19200 "$2"
    tidegate bundle build "$site" -o "$run/$1.tgb"
    tidegate bundle sign "$run/$1.tgb" --key "$site/keys/policy.key" --yes
}
bundle small 1
for number in $(seq "$times"); do bundle "large-$number" 100; done
"$BUILD/target/dist/tidegate" token mint --key "$site/keys/issuer.pem" --kid 2026-01 --iss https://tokens.example.com \
    --aud edge --sub ada --client key-0 --scope read --ttl 7d >"$run/token"
settings 19202
nginx_conf up 'access_log off; server { listen 127.0.0.1:19200; location / { return 200 "{}"; } }'
as_unit
nginx -c "$run/up.conf" & pids="$pids $!"
"$daemon" run --config "$run/tidegated.toml" 2>"$run/daemon.log" & gateway=$!; pids="$pids $gateway"
python3 "$here/swap.py" "$run" "$gateway" "$times" 127.0.0.1:19202
