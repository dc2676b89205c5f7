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

bundle_of_site 19400
tokens 1000 200
upstream_conf 19400
taskset -c 1 nginx -c "$run/up.conf" & pids="$pids $!"
python3 "$here/memory.py" "$run" "glibc=$daemon" "$@"
