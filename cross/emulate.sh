#!/usr/bin/env bash
# Runs COMMAND where programs of ARCHITECTURE (qemu's name: aarch64, arm) start like this machine's own, also when one
# starts the other: the daemon starts a child of its own binary, so naming an emulator in front of it is not enough.
#
# usage: cross/emulate.sh ARCHITECTURE COMMAND [ARGUMENT...]
#
# Where the machine has the emulator registered already, COMMAND just runs. Else it is registered in a user and mount
# namespace of COMMAND's own (Linux 6.7 or later): nothing of the machine changes, and no root is needed.
set -euo pipefail

(($# >= 2)) || { sed -n 's/^# usage: /usage: /p' "${BASH_SOURCE[0]}" >&2; exit 64; }
architecture=$1
shift
[[ ! -e /proc/sys/fs/binfmt_misc/qemu-$architecture ]] || exec "$@"

format=/usr/lib/binfmt.d/qemu-$architecture.conf
[[ -e $format ]] || { echo "emulate: no $format: install qemu-user-static" >&2; exit 69; }
# shellcheck disable=SC2016 # expanded inside
exec unshare --user --map-root-user --mount bash -euc '
  mount -t binfmt_misc none /proc/sys/fs/binfmt_misc && cat "$1" >/proc/sys/fs/binfmt_misc/register ||
    { echo "emulate: cannot register $1 here; as root: systemctl restart systemd-binfmt" >&2; exit 69; }
  shift
  exec "$@"' emulate "$format" "$@"
