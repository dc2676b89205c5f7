#!/usr/bin/env bash
# The checks of tests/package/run that need a systemd which runs: live.sh WORK DEBIAN OLD NEW BROKEN. It is process 1 of a
# system of its own; where it does not come up here, that is said, and nothing is checked.
set -euo pipefail

work=$1 debian=$2 old=$3 new=$4 broken=$5
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$work/live
group=tidegate-package-test-$$
# shellcheck source=tests/package/check.sh
. "$here/check.sh"

echo 'a system that runs'
mkdir "$root"
python3 "$here/../../cross/within.py" tar --extract --file "$debian" --directory "$root" --exclude='./dev/*'
mkdir "$root/given"
cp "$old" "$root/given/old.deb"
cp "$new" "$root/given/new.deb"
cp "$broken" "$root/given/broken.deb"

python3 "$here/../../cross/within.py" --system "$work/first" bash "$here/boot.sh" "$root" "$group" >"$work/boot" 2>&1 &
booting=$! caller=''
finish() {
  local code=$?
  trap - EXIT
  [[ ! $caller ]] || kill "$caller" 2>/dev/null || true
  [[ ! -e $work/first ]] || kill -KILL "$(<"$work/first")" 2>/dev/null || true
  wait 2>/dev/null || true
  python3 "$here/../../cross/within.py" --system "$work/second" bash "$here/boot.sh" '' "$group" || true
  exit "$code"
}
trap finish EXIT

inside() { nsenter --target "$(<"$work/first")" --all -- env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 "$@"; }
dpkg() { inside dpkg --force-confdef --force-confold "$@" >"$work/output" 2>&1 || { local code=$?; cat "$work/output"; return $code; }; }
property() { inside systemctl show --value --property "$1" "$2"; }
active() { is active "$(property ActiveState "$1")"; }
inactive() { is inactive "$(property ActiveState "$1")"; }
# Runs a command until it ends well, for a minute at most.
await() {
  local deadline=$((SECONDS + 60))
  until "$@" >"$work/told" 2>&1; do
    ((SECONDS < deadline)) || { cat "$work/told" && return 1; }
    sleep 0.2
  done
}
is_up() { [[ -e $work/first ]] && [[ $(inside systemctl is-system-running) == @(running|degraded) ]]; }

begun=$SECONDS
until is_up 2>/dev/null; do
  if ! kill -0 "$booting" 2>/dev/null || ((SECONDS - begun > 60)); then
    echo "skipped: systemd does not come up here as process 1 of a namespace: $(tail -n 1 "$work/boot"); tests/device/run has one on a board"
    exit 0
  fi
  sleep 0.2
done
echo "  (systemd is up after $((SECONDS - begun)) s)"

# Keeps connecting, until `calls_end`.
calls_begin() {
  mkfifo "$work/stop"
  nsenter --target "$(<"$work/first")" --net -- python3 "$here/caller.py" 8080 <"$work/stop" >"$work/calls" &
  caller=$!
  exec 7>"$work/stop"
  rm "$work/stop"
}
calls_end() {
  sleep 0.3
  exec 7>&-
  wait "$caller"
  caller=''
}
all_answered() { python3 -c 'import json, sys; it = json.load(sys.stdin); sys.exit(not (it["answered"] > 20 and it["refused"] == it["unanswered"] == 0))' <"$work/calls" || { cat "$work/calls" && false; }; }
# What of a socket is another after it was stopped and started.
incarnation() { property InvocationID tidegated.socket; }

check 'it installs' dpkg --install /given/old.deb
check 'without a root the service is not started' inactive tidegated.service
check 'nor the socket' inactive tidegated.socket
check 'both are enabled' is 'enabled enabled' "$(inside systemctl is-enabled tidegated.service tidegated.socket | xargs)"
inside tidegate init /root/policy --no-passphrase >/dev/null 2>&1
inside install -m 0644 /root/policy/root.json /etc/tidegate/root.json
check 'with a root it starts' inside systemctl start tidegated
check 'the service runs' active tidegated.service
check 'and its socket' active tidegated.socket
check 'as the user tidegate' is tidegate "$(inside stat --format=%U "/proc/$(property MainPID tidegated.service)")"

echo 'an upgrade there'
before=$(property MainPID tidegated.service) socket=$(incarnation)
calls_begin
sleep 1
check 'it upgrades while callers connect' dpkg --install /given/new.deb
check 'the service runs' active tidegated.service
check 'it is another process' not is "$before" "$(property MainPID tidegated.service)"
check 'its program is the new one' not inside sh -c "readlink /proc/$(property MainPID tidegated.service)/exe | grep deleted"
check 'the socket is the same' is "$socket" "$(incarnation)"
calls_end
check "nobody was refused, and all were answered: $(<"$work/calls")" all_answered

echo 'an upgrade with settings that are wrong'
before=$(property MainPID tidegated.service)
echo 'nonsense = true' >"$root/etc/tidegate/tidegated.d/wrong.toml"
check 'it upgrades' dpkg --install /given/old.deb
check 'it says that the old daemon goes on' told 'was not restarted'
check 'which it does' is "active $before" "$(property ActiveState tidegated.service) $(property MainPID tidegated.service)"
rm "$root/etc/tidegate/tidegated.d/wrong.toml"

echo 'negative control: a package that restarts the socket'
socket=$(incarnation)
dpkg --install /given/broken.deb || true
check 'is seen by that check' not is "$socket" "$(incarnation)"

echo 'a removal there'
await active tidegated.service || inside systemctl start tidegated || true
check 'it is removed' dpkg --remove tidegate
check 'the service is stopped' not active tidegated.service
check 'and the socket' not active tidegated.socket
check 'it is purged' dpkg --purge tidegate
check 'its state is gone' not test -e "$root/var/lib/tidegate"
conclude
