#!/bin/sh
# What a usage record costs, from the daemon as it ships: bytes in the usage files that it sealed, beside the same records as
# lines of JSON under zstd; and bytes that reach the flash. Prints the tables of docs/spool-measurements.md.
#
#   tests/bench/usage.sh [MINUTES]         a run of 20 minutes if not said; the intervals of sealing are the defaults
#   tests/bench/usage.sh MINUTES rest      only what is written where nobody asks, which takes hours to be seen
#
# Daemons at 0, 1, 10 and 100 requests a second, each with no hub and with one in reach, all at once, each on a disk of its
# own: an ext4 in a file, with blocks of 4 KiB as on a card, whose block device counts what is written, journal included (root only; else the kernel's count for
# the process and its ended children, without the journal). Then one at as near to 10,000 a second as wrk comes. At the end
# all of it goes to a hub, where the books must balance: as many records as requests were answered.
#
# Needs two cores, wrk, taskset, python3, nginx (the upstream), zstd, curl. BUILD names a scratch folder.
set -eu
minutes=${1:-20}
here=$(cd "$(dirname "$0")" && pwd)
for tool in zstd curl; do
    command -v $tool >/dev/null || { echo "skipped: $tool is not installed"; exit 0; }
done
name=usage
# shellcheck source=tests/bench/common.sh
. "$here/common.sh"
(cd "$root" && CARGO_TARGET_DIR=$BUILD/target cargo build -q --release --bin tidegate-hub)

python3 "$here/site.py" "$site" 127.0.0.1:19300
tidegate bundle build "$site" -o "$run/bench.tgb"
tidegate bundle sign "$run/bench.tgb" --key "$site/keys/policy.key" --yes
seq 0 199 | awk 'BEGIN {print "sub,client,scope"} {printf "user-%d,app-%d,pets:read\n", $1, $1 % 50}' >"$run/holders.csv"
"$BUILD/target/dist/tidegate" token mint --key "$site/keys/issuer.pem" --kid 2026-01 --iss https://tokens.example.com \
    --aud edge --ttl 7d --batch "$run/holders.csv" >"$run/tokens"
nginx_conf up 'access_log off; server { listen 127.0.0.1:19300 backlog=1024;
  location / { default_type application/json; return 200 "{\"id\":7,\"name\":\"Tide\",\"status\":\"available\"}"; } }'
as_unit
nginx -c "$run/up.conf" & pids="$pids $!"
python3 "$here/usage.py" "$run" "$daemon" "$BUILD/target/release/tidegate-hub" "$minutes" ${2:+"$2"}
