#!/usr/bin/env bash
# Makes a card for a 64-bit ARM board: Debian 12, its kernel, and Tidegate from a package; or only the files that turn a
# Raspberry Pi OS card into a gateway.
#
# usage: cross/image.sh --deb FILE -o IMAGE [--boot DIR] [--size MiB]   an image to write onto a card, a stick or an eMMC
#        cross/image.sh --overlay --tar FILE -o OVERLAY.tar.gz          from cross/package.sh's archive: files for the root
#                                                                       partition of a card that has a system already
#        cross/image.sh --fetch                                         only what an image takes of Debian, into the cache folder
#
#   --boot DIR   goes into the small partition's folder `tidegate`: root.json, settings, authorized_keys, bundles
#   --size MiB   of the whole image; the rest of a larger card is taken at the first boot (default: as small as it gets)
#
# The image has a GPT and three partitions:
#
#   TGBOOT  FAT   systemd-boot, the kernel, an initial file system; and the folder `tidegate`
#   TGROOT  ext4  Debian and Tidegate, mounted read-only for good
#   TGDATA  ext4  what differs from it (an overlay), and /var/lib/tidegate
#
# It starts on whatever has UEFI, also U-Boot's. No two boards that it was written to are the same: keys, ids and the host's
# ssh key are made at the first boot. What is fetched stays in the cache folder (TIDEGATE_CROSS_CACHE). Needs root, for files of
# other owners; mounts nothing on this machine. Exit: 0 made, 64 wrong usage, 69 something is missing, else a step failed.
set -euo pipefail
# What goes onto a card has the same modes whoever makes it.
umask 022

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=aarch64 # of toolchain.sh's messages
# shellcheck source=cross/toolchain.sh
. "$root/cross/toolchain.sh"
here=$root/cross/image

usage() { sed -n '5,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 64; }

mode=image deb='' archive='' out='' boot='' size=''
while (($#)); do
  case $1 in
    --overlay) mode=overlay && shift && continue ;;
    --fetch) mode=fetch && shift && continue ;;
    --deb | --tar | -o | --boot | --size) (($# >= 2)) || usage ;;
    *) usage ;;
  esac
  case $1 in
    --deb) deb=$2 ;;
    --tar) archive=$2 ;;
    -o) out=$2 ;;
    --boot) boot=$2 ;;
    --size) size=$2 ;;
  esac
  shift 2
done
[[ $out || $mode == fetch ]] || usage
mkdir -p "$cache"
work=$(mktemp -d "$cache/image.XXXXXX")
trap 'rm -rf "$work"' EXIT

# Installs file $1 of cross/image as $2 of the root file system $3 (mode $4).
put() { install -D -m "${4:-0644}" "$here/$1" "$3$2"; }
# Enables unit $1 for $2 in root $3, as `systemctl enable` does.
enable() {
  mkdir -p "$3/etc/systemd/system/$2.wants"
  ln -sfn "/usr/lib/systemd/system/$1" "$3/etc/systemd/system/$2.wants/$1"
}

# The distribution's packages, as a tar file named after what is in it.
base() {
  local packages=(
    ca-certificates curl dbus dosfstools e2fsprogs fdisk iproute2 kmod libnss-resolve openssh-server systemd-resolved
    systemd-sysv systemd-timesyncd udev zstd
  )
  local key
  key=$(printf '%s\n' "${packages[@]}" | cat - <(sed -n '/^  base)/,/;;/p' "$here/rootfs.sh") | sha256sum | cut -c 1-12)
  base=$cache/debian-$key.tar
  [[ ! -e $base ]] || return 0
  say "Debian's packages for the board: some minutes, once"
  python3 "$root/cross/within.py" "$here/rootfs.sh" base arm64 "$base.part.tar" "${packages[@]}" >"$cache/image-base.log" 2>&1 ||
    { tail -n 20 "$cache/image-base.log" >&2; refuse 69 "could not make the root file system ($cache/image-base.log)"; }
  mv "$base.part.tar" "$base"
}

# Kernel, boot loader and busybox, as Debian has them, unpacked into $kernel.
kernel() {
  local apt=$cache/image-apt name
  kernel=$cache/image-kernel
  [[ ! -e $kernel/complete ]] || return 0
  say "Debian's kernel for the board"
  mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$apt/debs"
  : >"$apt/status"
  cat >"$apt/sources.list" <<END
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian-security bookworm-security main
END
  cat >"$apt/apt.conf" <<END
#clear APT::Architectures;
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
APT::Sandbox::User "";
Dir::State "$apt";
Dir::State::status "$apt/status";
Dir::Cache "$apt";
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
END
  export APT_CONFIG=$apt/apt.conf
  apt-get update --quiet=2 || refuse 69 'cannot fetch the list of packages'
  name=$(apt-cache depends linux-image-arm64 | awk '$1 == "Depends:" && $2 ~ /^linux-image-/ { print $2; exit }')
  [[ $name ]] || refuse 69 'Debian names no kernel for arm64'
  rm -rf "$kernel.part" "$apt/debs"/*
  mkdir -p "$kernel.part"
  (cd "$apt/debs" && apt-get download --quiet=2 "$name" systemd-boot-efi busybox-static) || refuse 69 "cannot fetch $name"
  unset APT_CONFIG
  for name in "$apt/debs"/*.deb; do dpkg-deb --extract "$name" "$kernel.part"; done
  depmod -b "$kernel.part" "$(basename "$kernel.part"/lib/modules/*)"
  rm -rf "$kernel"
  mv "$kernel.part" "$kernel"
  : >"$kernel/complete"
}

# The initial file system: busybox, cross/image/init, and the drivers that a board may need to reach its card.
initial() {
  local version to=$work/initial modules
  version=$(basename "$kernel"/lib/modules/*)
  modules=$to/lib/modules/$version
  mkdir -p "$to/bin" "$modules/kernel"
  cp "$kernel/bin/busybox" "$to/bin/"
  ln -s busybox "$to/bin/sh"
  cp "$here/init" "$to/init"
  (cd "$kernel/lib/modules/$version" && cp --parents -r kernel/block kernel/crypto kernel/lib kernel/fs/{ext4,jbd2,overlayfs,mbcache.ko} \
    modules.builtin.modinfo kernel/drivers/{ata,block/virtio_blk.ko,bus,clk,dma,gpio,i2c,mailbox,mfd,mmc,nvme,pci,phy,pinctrl,regulator,reset,scsi/sd_mod.ko,scsi/scsi_mod.ko,scsi/scsi_common.ko,soc,usb,virtio} \
    modules.builtin modules.order "$modules/" 2>"$work/absent" || ! grep -v 'No such file' "$work/absent")
  rm -rf "$modules"/kernel/drivers/usb/{atm,class,gadget,image,misc,mon,serial,usbip}
  depmod -b "$to" "$version"
  (cd "$to" && find . -print0 | sort -z | cpio --null --create --format=newc --owner=0:0 --quiet) | zstd --quiet -19 -T0 >"$work/initrd"
}

# What a card has beyond the package, in root $1: the units enabled, and what makes two boards different.
personal() {
  local unit
  put tidegate-first-boot /usr/lib/tidegate/first-boot "$1" 0755
  put tidegate-first-boot.service /usr/lib/systemd/system/tidegate-first-boot.service "$1"
  for unit in tidegated.service tidegated.socket; do put provisioned.conf "/etc/systemd/system/$unit.d/provisioned.conf" "$1"; done
  enable tidegate-first-boot.service sysinit.target "$1"
  enable tidegated.socket sockets.target "$1"
  enable tidegated.service multi-user.target "$1"
}

# The board's root file system in $work/root.
system() {
  local to=$work/root version
  version=$(basename "$kernel"/lib/modules/*)
  mkdir "$to"
  tar --extract --file "$base" --directory "$to" --numeric-owner --preserve-permissions
  mkdir -p "$to/usr/lib/modules"
  cp -r "$kernel/lib/modules/$version" "$to/usr/lib/modules/"
  python3 "$root/cross/within.py" "$here/rootfs.sh" install "$to" "$deb" >"$work/install.log" 2>&1 ||
    { cat "$work/install.log" >&2; refuse 69 "$deb cannot be installed"; }
  personal "$to"
  put tidegate-grow /usr/lib/tidegate/grow "$to" 0755
  put tidegate-grow.service /usr/lib/systemd/system/tidegate-grow.service "$to"
  put repart.conf /usr/lib/repart.d/50-tidegate-data.conf "$to"
  put wired.network /etc/systemd/network/80-wired.network "$to"
  put journald.conf /etc/systemd/journald.conf.d/tidegate.conf "$to"
  put timesyncd.conf /etc/systemd/timesyncd.conf.d/tidegate.conf "$to"
  put sshd.conf /etc/ssh/sshd_config.d/tidegate.conf "$to"
  for unit in tidegated.service tidegated.socket tidegate-first-boot.service; do
    put data.conf "/etc/systemd/system/$unit.d/data.conf" "$to"
  done
  enable tidegate-grow.service multi-user.target "$to"
  enable tidegate-release.path multi-user.target "$to"
  enable systemd-networkd.service multi-user.target "$to"
  enable systemd-resolved.service multi-user.target "$to"
  # It looks for the disk of the root file system, which is an overlay here: tidegate-grow names the disk.
  ln -sfn /dev/null "$to/etc/systemd/system/systemd-repart.service"
  # It looks for volumes of LVM, which no such card has, for seven seconds of each boot of the emulated board.
  ln -sfn /dev/null "$to/etc/systemd/system/e2scrub_reap.service"
  ln -sfn ../run/systemd/resolve/stub-resolv.conf "$to/etc/resolv.conf"
  # What each board makes itself.
  rm -f "$to"/etc/ssh/ssh_host_* "$to/var/lib/dbus/machine-id" "$to"/var/lib/tidegate/device.key
  : >"$to/etc/machine-id"
  echo tidegate >"$to/etc/hostname"
  printf '127.0.0.1 localhost tidegate\n::1 localhost tidegate\n' >"$to/etc/hosts"
  : >"$to/etc/fstab"
  # Nobody has a password; keys come from the small partition.
  mkdir -p "$to/root/.ssh" "$to/media/system" "$to/media/data"
  chmod 0700 "$to/root/.ssh"
  rm -rf "$to"/var/cache/apt/* "$to"/var/lib/apt/lists/*
}

# Writes the file system in file $1 to sector $2 of the image.
place() { dd if="$1" of="$out.part" bs=512 seek="$2" conv=notrunc,sparse status=none; }

card() {
  local mib=2048 boot_mib=128 data_mib=64 system_mib version
  version=$(basename "$kernel"/lib/modules/*)
  # A tenth and 48 MiB for the file system's own.
  system_mib=$(($(du --summarize --block-size=1M "$work/root" | cut -f 1) * 11 / 10 + 48))

  truncate -s "${boot_mib}M" "$work/boot.img"
  mkfs.vfat -F 32 -n TGBOOT "$work/boot.img" >/dev/null
  mkdir -p "$work/esp/EFI/BOOT" "$work/esp/loader/entries" "$work/esp/tidegate"
  cp "$kernel/usr/lib/systemd/boot/efi/systemd-bootaa64.efi" "$work/esp/EFI/BOOT/BOOTAA64.EFI"
  cp "$kernel/boot/vmlinuz-$version" "$work/esp/vmlinuz"
  cp "$work/initrd" "$work/esp/initrd"
  cp "$here/README.txt" "$work/esp/"
  printf 'timeout 0\ndefault tidegate.conf\n' >"$work/esp/loader/loader.conf"
  printf 'title Tidegate\nlinux /vmlinuz\ninitrd /initrd\noptions quiet\n' >"$work/esp/loader/entries/tidegate.conf"
  printf 'title Tidegate, put back to what was flashed\nlinux /vmlinuz\ninitrd /initrd\noptions tidegate.reset\n' >"$work/esp/loader/entries/tidegate-reset.conf"
  if [[ $boot ]]; then cp -r "$boot"/. "$work/esp/tidegate/"; fi
  mcopy -i "$work/boot.img" -s "$work/esp"/* ::/

  mke2fs -q -t ext4 -L TGROOT -m 0 -O ^has_journal -d "$work/root" "$work/system.img" "${system_mib}M" >"$work/mke2fs.log"
  # Room to grow: descriptors for a card of some terabytes.
  mke2fs -q -t ext4 -L TGDATA -m 1 -b 4096 -i 16384 -E resize=268435456 "$work/data.img" "${data_mib}M" >"$work/mke2fs.log"

  local boot_at=2048 system_at data_at end
  system_at=$((boot_at + boot_mib * mib))
  data_at=$((system_at + system_mib * mib))
  end=$((data_at + data_mib * mib))
  rm -f "$out.part"
  truncate -s $(((end + mib) * 512)) "$out.part"
  sfdisk --quiet "$out.part" <<END
label: gpt
first-lba: 2048
start=$boot_at, size=$((boot_mib * mib)), type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name=TGBOOT
start=$system_at, size=$((system_mib * mib)), type=B921B045-1DF0-41C3-AF44-4C6F280D3FAE, name=TGROOT
start=$data_at, size=$((data_mib * mib)), type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name=TGDATA
END
  place "$work/boot.img" $boot_at
  place "$work/system.img" $system_at
  place "$work/data.img" $data_at
  if [[ $size ]]; then
    ((size * 1048576 >= $(stat --format=%s "$out.part"))) || refuse 64 "--size: it takes $(($(stat --format=%s "$out.part") / 1048576)) MiB at least"
    truncate -s "${size}M" "$out.part"
    # The table's copy belongs at the end of the disk.
    sfdisk --quiet --relocate gpt-bak-std "$out.part"
  fi
  mv "$out.part" "$out"
}

if [[ $mode == overlay ]]; then
  [[ -f $archive ]] || usage
  mkdir "$work/unpacked" "$work/root"
  tar --extract --gzip --file "$archive" --directory "$work/unpacked"
  cp -r "$work/unpacked"/*/files/. "$work/root/"
  personal "$work/root"
  # Of the archive's time, so that the same archive gives the same bytes.
  tar --create --sort=name --format=gnu --owner=0 --group=0 --numeric-owner --mtime="@$(stat --format=%Y "$work/unpacked"/*)" --directory "$work/root" \
    --exclude=./usr/share/man --exclude=./usr/share/lintian . | gzip -9n >"$out.part"
  mv "$out.part" "$out"
  say "$out: unpack it as root over the root partition of the card: tar -C /media/you/rootfs --no-overwrite-dir -xzf ${out##*/}"
  exit
fi
[[ -f $deb || $mode == fetch ]] || usage
((EUID == 0)) || refuse 69 'only root can write files of other owners: run it as root'
exec 9>"$cache/image.lock"
flock 9
need_packages mmdebstrap e2fsprogs dosfstools mtools fdisk kmod cpio zstd qemu-user-static debian-archive-keyring python3
base
kernel
[[ $mode != fetch ]] || exit 0
initial
system
card
say "$out: $(stat --format='%s bytes' "$out"), $(du --block-size=1M "$out" | cut -f 1) MiB of it written"
