#!/bin/sh
# What makes resident memory, of builds of the daemon and with settings of the allocator; prints the table of docs/device.md.
#
#   tests/bench/memory.sh [NAME=DAEMON...]      beside the build that it makes itself (glibc), others: musl=path/to/tidegated
#
# Each: a start with a policy of 56 KiB, five seconds of rest; then ten seconds of all that 32 connections can ask of one core,
# with every stage on and the spool's child; then rest until the child has gone. Needs what run.sh needs.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
name=memory
# shellcheck source=tests/bench/common.sh
. "$here/common.sh"

python3 "$here/site.py" "$site" 127.0.0.1:19400
tidegate bundle build "$site" -o "$run/bench.tgb"
tidegate bundle sign "$run/bench.tgb" --key "$site/keys/policy.key" --yes
seq 0 999 | awk 'BEGIN {print "sub,client,scope"} {printf "user-%d,app-7,pets:read\n", $1}' >"$run/holders.csv"
"$BUILD/target/dist/tidegate" token mint --key "$site/keys/issuer.pem" --kid 2026-01 --iss https://tokens.example.com \
    --aud edge --ttl 7d --batch "$run/holders.csv" >"$run/tokens.json"
nginx_conf up 'access_log off; server { listen 127.0.0.1:19400 backlog=1024;
  location / { default_type application/json; return 200 "{\"id\":7,\"name\":\"Tide\",\"status\":\"available\"}"; } }'
taskset -c 1 nginx -c "$run/up.conf" & pids="$pids $!"
python3 "$here/memory.py" "$run" "glibc=$daemon" "$@"
