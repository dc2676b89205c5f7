#!/usr/bin/env bash
# The part of cross/image.sh that runs programs of the board's architecture. Inside cross/within.py.
#
# usage: rootfs.sh base ARCHITECTURE OUT.tar PACKAGE...       Debian's packages, configured
#        rootfs.sh install ROOT DEB                           one more, into a root file system that is unpacked already
set -euo pipefail

format=/usr/lib/binfmt.d/qemu-aarch64.conf
register() { mount -t binfmt_misc none /proc/sys/fs/binfmt_misc && cat "$format" >/proc/sys/fs/binfmt_misc/register; }
if [[ ! -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ]] && ! register; then
  echo "image: cannot register $format here; as root: systemctl restart systemd-binfmt" >&2
  exit 69
fi

case $1 in
  base)
    architecture=$2 out=$3
    shift 3
    mirror=http://deb.debian.org
    # Manuals and translations are of no use on a board without a screen.
    mmdebstrap --variant=minbase --mode=root --architectures="$architecture" --skip=setup/mknod,check/qemu,check/chown \
      --include="$(IFS=, && echo "$*")" --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
      --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
      bookworm "$out" "deb $mirror/debian bookworm main" "deb $mirror/debian bookworm-updates main" \
      "deb $mirror/debian-security bookworm-security main"
    ;;
  install)
    root=$2 deb=$3
    cp "$deb" "$root/tmp/package.deb"
    mount --rbind /dev "$root/dev"
    mount --rbind /proc "$root/proc"
    # It starts nothing: there is no systemd in there. The mounts end with the namespace.
    chroot "$root" dpkg --install /tmp/package.deb
    rm "$root/tmp/package.deb"
    ;;
esac
