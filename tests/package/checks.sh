#!/usr/bin/env bash
# The checks of tests/package/run, which starts this inside of a namespace: checks.sh WORK DEBIAN OLD NEW BROKEN TARBALL
set -euo pipefail

work=$1 debian=$2 old=$3 new=$4 broken=$5 tarball=$6
root=$work/root
# shellcheck source=tests/package/check.sh
. "$(dirname "${BASH_SOURCE[0]}")/check.sh"

inside() { chroot "$root" env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 "$@"; }
# dpkg, with what it prints kept for `told`.
dpkg() { inside dpkg "$@" >"$work/output" 2>&1 || { local code=$?; cat "$work/output"; return $code; }; }
# MODE OWNER:GROUP of a path.
facts() { inside stat --format='%a %U:%G' "$1"; }
# Every path, but for what changes of itself, what is dpkg's own record, and the old copies of the lists of users.
listing() {
  (cd "$root" && find . -xdev \( -path ./proc -o -path ./dev -o -path ./var/lib/dpkg -o -path ./var/log -o -path ./var/cache \
    -o -path ./stub -o -path ./given -o -path ./tmp \) -prune -o -path './etc/*-' -o -print | sort)
}

# A fresh system: nothing is left of the one before.
fresh() {
  echo "$1"
  if [[ -d $root ]]; then
    umount -l "$root/proc" "$root/dev"
    rm -rf "$root"
  fi
  mkdir "$root"
  tar --extract --file "$debian" --directory "$root" --exclude='./dev/*'
  mount --rbind /proc "$root/proc"
  mount --rbind /dev "$root/dev"
  mkdir "$root/given"
  cp "$old" "$root/given/old.deb"
  cp "$new" "$root/given/new.deb"
  cp "$broken" "$root/given/broken.deb"
  listing >"$work/before"
}

# systemd's stand-in. What it was asked is in /stub/calls, what runs by it in /stub/active.
pretend_systemd() {
  mkdir -p "$root/run/systemd/system" "$root/stub/active"
  cat >"$root/usr/local/sbin/systemctl" <<'EOF'
#!/bin/sh
echo "$*" >>/stub/calls
action='' units=''
for word in "$@"; do
  case $word in
    -*) ;;
    *) if [ "$action" ]; then units="$units $word"; else action=$word; fi ;;
  esac
done
for unit in $units; do
  case $action in
    is-active) [ -e "/stub/active/$unit" ] || exit 3 ;;
    is-enabled) ls /etc/systemd/system/*.wants/"$unit" >/dev/null 2>&1 && echo enabled || { echo disabled && exit 1; } ;;
    start | restart) touch "/stub/active/$unit" ;;
    stop) rm -f "/stub/active/$unit" ;;
    reload) [ ! -e /stub/reload-fails ] || exit 1 ;;
  esac
done
# What is done by links alone, the real one does.
case $action in
  enable | disable | mask | unmask | preset) SYSTEMD_OFFLINE=1 exec /usr/bin/systemctl "$@" ;;
esac
EOF
  chmod 0755 "$root/usr/local/sbin/systemctl"
  listing >"$work/before"
}
calls() { cat "$root/stub/calls" 2>/dev/null || true; }
forget() { rm -f "$root/stub/calls"; }
was_asked() { calls | grep -E -e "$1" || { calls && false; }; }
socket_untouched() { not was_asked '(^| )(stop|restart|try-restart|reload-or-restart|kill|mask|disable)( .*)? tidegated\.socket'; }
# The settings become whole: the root of a deployment is there.
bring_root() {
  inside tidegate init /tmp/policy --no-passphrase >/dev/null 2>&1
  inside install -m 0644 /tmp/policy/root.json /etc/tidegate/root.json
}

wants=/etc/systemd/system/multi-user.target.wants/tidegated.service
listens=/etc/systemd/system/sockets.target.wants/tidegated.socket
releases=/etc/systemd/system/multi-user.target.wants/tidegate-release.path
# What every way of installing leaves.
check_installed() {
  local path want
  while read -r path want; do
    check "$path is $want" is "$want" "$(facts "$path" 2>&1)"
  done <<'EOF'
/usr/bin/tidegated 755 root:root
/usr/bin/tidegate 755 root:root
/usr/lib/tidegate 755 root:root
/usr/lib/tidegate/stick 755 root:root
/usr/lib/tidegate/release 755 root:root
/usr/lib/systemd/system/tidegate-release.path 644 root:root
/usr/lib/systemd/system/tidegate-release.service 644 root:root
/usr/lib/systemd/system/tidegated.service 644 root:root
/usr/lib/systemd/system/tidegated.socket 644 root:root
/usr/lib/systemd/system/tidegate-sideload@.service 644 root:root
/usr/lib/udev/rules.d/60-tidegate.rules 644 root:root
/usr/lib/sysusers.d/tidegate.conf 644 root:root
/usr/lib/tmpfiles.d/tidegate.conf 644 root:root
/etc/tidegate 755 root:root
/etc/tidegate/tidegated.toml 644 root:root
/etc/tidegate/tidegated.d 755 root:root
/usr/share/man/man8/tidegated.8.gz 644 root:root
/usr/share/man/man1/tidegate-sums-verify.1.gz 644 root:root
/usr/share/doc/tidegate/copyright 644 root:root
/usr/share/doc/tidegate/third-party-licences.gz 644 root:root
/var/lib/tidegate 750 tidegate:tidegate
/var/lib/tidegate/inbox 2770 tidegate:tidegate
/run/tidegate 750 tidegate:tidegate
EOF
  check 'the user has its folder and no shell' is /var/lib/tidegate:/usr/sbin/nologin "$(inside getent passwd tidegate | cut -d : -f 6,7)"
}
check_enabled() {
  check 'the service is enabled' test -L "$root$wants"
  check 'the socket is enabled' test -L "$root$listens"
}

fresh 'a system that does not run (an image that is built)'
check 'it installs' dpkg --install /given/old.deb
check_installed
check_enabled
check 'releases are taken' test -L "$root$releases"
check 'every file is as the package has it' dpkg --verify tidegate
check 'the daemon runs' inside tidegated --version
check 'a device without a root is told so' inside sh -c 'runuser -u tidegate tidegated check 2>&1 | grep -F /etc/tidegate/root.json'
bring_root
check 'with a root the settings are good' inside runuser -u tidegate tidegated check
while read -r word; do
  check "the daemon's page tells $word" grep -F -e "${word//-/\\-}" <(gzip -dc "$root/usr/share/man/man8/tidegated.8.gz")
  for completion in bash-completion/completions/tidegated zsh/vendor-completions/_tidegated fish/vendor_completions.d/tidegated.fish; do
    check "$completion knows $word" grep -F -e "${word#--}" "$root/usr/share/$completion"
  done
done < <(inside tidegated --help | grep -o -E -e '--[a-z-]+|^  tidegated [a-z]+' | sed 's/^  tidegated //' | sort -u)
check "each of tidegate's commands has a page, and no page is of another" is \
  "$(inside tidegate --help | sed -n '/^Commands:/,/^$/s/^  \([a-z][a-z-]*\) .*/\1/p' | grep -v '^help$' | sort | xargs)" \
  "$(find "$root/usr/share/man/man1" -name 'tidegate-*' -printf '%f\n' | sed -n 's/^tidegate-\([a-z]*\)\.1\.gz$/\1/p' | sort | xargs)"

echo 'an upgrade there'
echo 'state = "/var/lib/tidegate" # mine' >>"$root/etc/tidegate/tidegated.d/mine.toml"
sed -i 's/^level = "info"/level = "debug"/' "$root/etc/tidegate/tidegated.toml"
cp "$root/etc/tidegate/tidegated.toml" "$work/mine.toml"
inside runuser -u tidegate -- sh -c 'echo kept >/var/lib/tidegate/spool.record'
check 'it upgrades' dpkg --force-confdef --force-confold --install /given/new.deb
check 'settings that were changed stay' same "$work/mine.toml" "$root/etc/tidegate/tidegated.toml"
check 'those of the new version lie beside them' test -f "$root/etc/tidegate/tidegated.toml.dpkg-dist"
check 'state stays' is kept "$(cat "$root/var/lib/tidegate/spool.record")"
check_enabled
check 'installing once more changes nothing' dpkg --force-confdef --force-confold --install /given/new.deb

echo 'a removal there'
check 'it is removed' dpkg --remove tidegate
check 'it says what stays' told '/var/lib/tidegate stays'
for path in /usr/bin/tidegated /usr/bin/tidegate /usr/lib/tidegate /usr/lib/systemd/system/tidegated.socket /usr/lib/udev/rules.d/60-tidegate.rules /usr/share/doc/tidegate; do
  check "$path is gone" not test -e "$root$path"
done
check 'settings stay' same "$work/mine.toml" "$root/etc/tidegate/tidegated.toml"
check 'state stays' is kept "$(cat "$root/var/lib/tidegate/spool.record")"
check 'the user stays' inside getent passwd tidegate
check 'it installs again' dpkg --force-confdef --force-confold --install /given/old.deb
check_enabled

echo 'a purge there'
check 'it is purged' dpkg --purge tidegate
check 'it says what it deletes' told 'deleting /var/lib/tidegate'
check 'what a person brought stays' is 'mine.toml root.json' "$(cd "$root/etc/tidegate" && find . -type f -printf '%f\n' | sort | xargs)"
rm -r "$root/etc/tidegate"
listing >"$work/after"
check 'nothing else is left' same "$work/before" "$work/after"

fresh 'a system that runs (by a stand-in)'
pretend_systemd
check 'it installs' dpkg --install /given/old.deb
check_enabled
check 'without a root neither the daemon nor its socket is started' not was_asked '(^| )(re)?start( .*)? tidegated'
check 'and what is missing is told' told /etc/tidegate/root.json
bring_root
forget
check 'it is configured again' inside dpkg-reconfigure --frontend noninteractive tidegate
check 'the units are read again' was_asked daemon-reload
check 'the socket is started' test -e "$root/stub/active/tidegated.socket"
check 'the service is started' test -e "$root/stub/active/tidegated.service"

echo 'an upgrade there'
forget
check 'it upgrades' dpkg --force-confdef --force-confold --install /given/new.deb
check 'the service is asked whether the new one takes its settings' was_asked 'reload tidegated\.service'
check 'and restarted' was_asked ' restart tidegated\.service'
check 'the socket is left alone' socket_untouched
check 'nothing is stopped' not was_asked '(^| )stop( |$)'
forget
touch "$root/stub/reload-fails"
check 'it upgrades where the new one refuses the settings' dpkg --force-confdef --force-confold --install /given/old.deb
check 'then the old one goes on' not was_asked '(^| )(re)?start( |$)'
check 'which is told' told 'was not restarted'
rm "$root/stub/reload-fails"
forget
dpkg --force-confdef --force-confold --install /given/broken.deb || true
check 'negative control: a package that restarts the socket is seen' not socket_untouched
inside rm -f /stub/active/tidegated.service /etc/systemd/system/multi-user.target.wants/tidegated.service
inside deb-systemd-helper disable tidegated.service >/dev/null 2>&1 || true
forget
check 'it upgrades where a person has disabled the service' dpkg --force-confdef --force-confold --install /given/new.deb
check 'which is not started then' not was_asked ' (re)?start .*tidegated\.service'
check 'and stays disabled' not test -e "$root$wants"

echo 'a removal and a purge there'
touch "$root/stub/active/tidegated.service"
forget
check 'it is removed' dpkg --remove tidegate
check 'the service and the socket are stopped' is '' "$(ls "$root/stub/active")"
check 'the units are read again' was_asked daemon-reload
check 'it is purged' dpkg --purge tidegate
check 'its state is gone' not test -e "$root/var/lib/tidegate"
check 'no unit is enabled or masked any more' is '' "$(find "$root/etc/systemd/system" "$root/var/lib/systemd" -name 'tidegated.*')"

fresh 'a system without deb-systemd-helper'
rm "$root"/usr/bin/deb-systemd-{helper,invoke}
check 'it installs' dpkg --install /given/old.deb
check_installed
check_enabled
check 'it is purged' dpkg --purge tidegate
check 'no unit is enabled any more' not test -L "$root$wants" -o -L "$root$listens" -o -L "$root$releases"

fresh 'a system without systemd'
rm "$root"/usr/bin/{deb-systemd-helper,deb-systemd-invoke,systemctl,systemd-sysusers,systemd-tmpfiles}
check 'it installs' dpkg --install /given/old.deb
check_installed
check 'it is purged' dpkg --purge tidegate
check 'its state is gone' not test -e "$root/var/lib/tidegate"

if [[ $tarball ]]; then
  fresh 'the tar.gz'
  pretend_systemd
  tar --extract --file "$tarball" --directory "$root/given" --no-same-owner
  install=/given/$(basename "$tarball" .tar.gz)/install.sh
  check 'it installs, also where root has a strict mask' inside sh -c "umask 077 && exec $install"
  check_installed
  check_enabled
  check 'releases, which are packages, are not taken' not test -L "$root$releases"
  bring_root
  forget
  sed -i 's/^level = "info"/level = "debug"/' "$root/etc/tidegate/tidegated.toml"
  cp "$root/etc/tidegate/tidegated.toml" "$work/mine.toml"
  touch "$root/stub/active/tidegated.service" "$root/stub/active/tidegated.socket"
  check 'it installs over what runs' inside "$install"
  check 'settings that were changed stay' same "$work/mine.toml" "$root/etc/tidegate/tidegated.toml"
  check 'those of the package lie beside them' test -f "$root/etc/tidegate/tidegated.toml.new"
  check 'the service is restarted' was_asked 'restart tidegated\.service'
  check 'the socket is left alone' socket_untouched
  check 'it is removed' inside "$install" --remove
  check 'settings stay' same "$work/mine.toml" "$root/etc/tidegate/tidegated.toml"
  check 'state stays' test -d "$root/var/lib/tidegate/inbox"
  check 'it is purged' inside "$install" --purge
  inside rm -r /etc/tidegate
  listing >"$work/after"
  check 'nothing else is left' same "$work/before" "$work/after"
  dpkg --install /given/old.deb
  check 'it refuses where dpkg has installed it' not inside "$install"
else
  echo 'skipped: the tar.gz: none of this version lies beside the package'
  skipped=$((skipped + 1))
fi

echo 'lintian'
check 'lintian finds nothing that is not explained' lintian --fail-on error,warning --tag-display-limit 0 "$old"

conclude
