#!/usr/bin/env bash
# Process 1 of a system of its own: boot.sh ROOT GROUP, inside of `within.py --system`. Becomes the systemd of the file
# system ROOT, whose control groups hang below the new one GROUP; without ROOT takes GROUP away again.
set -euo pipefail

root=$1
groups=$(mktemp -d)
mount -t cgroup2 none "$groups"
mine=$groups/$2
if [[ ! $root ]]; then
  find "$mine" -depth -type d -exec rmdir {} + && umount "$groups" && rmdir "$groups"
  exit
fi
# So that it moves nobody else's processes.
mkdir "$mine"
echo $$ >"$mine/cgroup.procs"
umount "$groups"
rmdir "$groups"
# shellcheck disable=SC2016 # expanded inside
exec unshare --cgroup bash -euc '
  mount --bind "$1" "$1"
  cd "$1"
  mount -t proc proc proc
  mount -t sysfs -o ro sysfs sys
  mount -t cgroup2 none sys/fs/cgroup
  for each in run tmp dev; do mount -t tmpfs tmpfs "$each"; done
  for each in full null random tty urandom zero; do
    touch "dev/$each"
    mount --bind "/dev/$each" "dev/$each"
  done
  mkdir dev/pts dev/shm
  mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
  ln -s pts/ptmx dev/ptmx
  ln -s /proc/self/fd dev/fd
  mkdir -p .outside
  pivot_root . .outside
  umount -l /.outside
  exec env -i container=tidegate PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system' boot "$root"
