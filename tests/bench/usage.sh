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

bundle_of_site 19300
tokens 200 50
upstream_conf 19300
as_unit
nginx -c "$run/up.conf" & pids="$pids $!"
python3 "$here/usage.py" "$run" "$daemon" "$BUILD/target/release/tidegate-hub" "$minutes" ${2:+"$2"}
