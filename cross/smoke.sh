#!/usr/bin/env bash
# Smoke test of the two programs in BINARY_DIR: the command writes a policy, signs a bundle and mints a token; the daemon
# starts with no policy, takes the bundle, lets one request through, refuses one, seals one usage file with both, and
# stops cleanly; then it starts once more, and it is measured how long that takes to the first answered request, what memory
# the spool's child had at most to seal it, and what the daemon has a while later. All in a throw-away folder, on loopback.
# For another architecture's programs: cross/emulate.sh.
#
# usage: cross/smoke.sh BINARY_DIR
#
# Environment: TIDEGATE_SMOKE_FIGURES  a file for the three figures: milliseconds, and KiB resident of the
#                                     daemon and of the spool's child (0: the child was not seen)
#
# Exit: 0 all of it happened; else what did not is named, and the daemon's log is printed.
set -euo pipefail

(($# == 1)) || { sed -n 's/^# usage: /usage: /p' "${BASH_SOURCE[0]}" >&2; exit 64; }
binaries=$(cd "$1" && pwd)
# Seconds for any one step: an emulated program on a busy machine is slow.
patience=60

for program in curl python3; do
  command -v "$program" >/dev/null || { echo "smoke: needs $program" >&2; exit 69; }
done
work=$(mktemp -d)
daemon='' upstream='' step='set-up' passed=''

# A step that ends the script may have its output redirected; the trap inherits that.
exec 3>&2
finish() {
  local code=$?
  trap - EXIT
  exec 2>&3
  if [[ ! $passed ]]; then
    ((code)) || code=1
    echo "smoke: FAILED at: $step" >&2
    local file
    for file in command.log daemon.log upstream.log; do
      [[ -s $work/$file ]] || continue
      echo "--- $file (its last 40 lines)" >&2
      tail -n 40 "$work/$file" >&2
    done
  fi
  exec 2>/dev/null
  local child
  for child in $daemon $upstream; do kill -KILL "$child" || true; done
  wait || true
  rm -rf "$work"
  exit "$code"
}
trap finish EXIT
trap 'exit 130' INT TERM

# Runs the command until it succeeds; the step fails when patience ends, or the daemon does.
await() {
  local deadline=$((SECONDS + patience))
  until "$@"; do
    ((SECONDS < deadline)) || { echo "smoke: not within $patience s: $*" >&2; return 1; }
    [[ ! $daemon ]] || kill -0 "$daemon" 2>/dev/null || { echo 'smoke: the daemon is gone' >&2; return 1; }
    sleep 0.1
  done
}

admin() { curl --silent --fail --max-time 10 --unix-socket "$work/admin.sock" "http://localhost/$1"; }
answers() { admin livez >/dev/null; }
ready() { admin readyz >/dev/null; }
# Prints the HTTP status of a GET through the gateway.
through() { curl --silent --max-time 10 --output "$work/body" --write-out '%{http_code}' "$@" "http://127.0.0.1:$port/smoke/ping"; }
status_has() {
  admin status >"$work/status" && python3 - "$work/status" "$@" <<'EOF'
import json, sys
spool = json.load(open(sys.argv[1]))["spool"]
sys.exit(0 if all(spool[key] >= int(least) for key, least in (word.split("=") for word in sys.argv[2:])) else 1)
EOF
}
expect() {
  local what=$1 want=$2 got=$3
  [[ $got == "$want" ]] || { echo "smoke: $what: wanted $want, got $got: $(head -c 300 "$work/body" 2>/dev/null)" >&2; return 1; }
}

step='the upstream'
python3 - "$work/upstream.port" >"$work/upstream.log" 2>&1 <<'EOF' &
import http.server, os, sys
class Pong(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"pong")
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pong)
with open(sys.argv[1] + ".part", "w") as file:
    file.write(str(server.server_port))
os.rename(sys.argv[1] + ".part", sys.argv[1])
server.serve_forever()
EOF
upstream=$!
await test -s "$work/upstream.port"
upstream_port=$(<"$work/upstream.port")
# Nobody listens there at this moment.
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')

step='tidegate init, bundle build, bundle sign, token mint'
policy=$work/policy
{
  "$binaries/tidegate" init "$policy" --deployment smoke --no-passphrase
  cat >"$policy/apis/smoke.toml" <<EOF
name = "smoke"
version = "1"
base_path = "/smoke"
upstream = "smoke"
issuers = ["site"]
subscription = false

[[routes]]
path = "/ping"
methods = ["GET"]
scopes = ["ping"]

[upstreams.smoke]
endpoints = ["http://127.0.0.1:$upstream_port"]
EOF
  "$binaries/tidegate" bundle build "$policy" -o "$work/smoke.tgb"
  "$binaries/tidegate" bundle sign "$work/smoke.tgb" --key "$policy/keys/policy.key" --yes
  "$binaries/tidegate" token mint --key "$policy/keys/issuer.pem" --iss https://tokens.example.com --aud edge \
    --sub smoke --client smoke --scope ping >"$work/token"
} >"$work/command.log" 2>&1

step='tidegated check'
mkdir "$work/state" "$work/inbox"
cat >"$work/tidegated.toml" <<EOF
state = "$work/state"
inbox = "$work/inbox"

[trust]
root = "$policy/root.json"

[[gateway.listeners]]
address = "127.0.0.1:$port"

[spool]
seal_after = "1s"
seal_after_offline = "1s"

[admin]
socket = "$work/admin.sock"
EOF
"$binaries/tidegated" check --config "$work/tidegated.toml" >"$work/command.log" 2>&1

step='tidegated run: safe mode'
"$binaries/tidegated" run --config "$work/tidegated.toml" >"$work/daemon.log" 2>&1 </dev/null &
daemon=$!
await answers
if ready; then echo 'smoke: ready with no policy' >&2; exit 1; fi

step='the bundle, through the inbox'
cp "$work/smoke.tgb" "$work/inbox/.smoke.tgb.part"
mv "$work/inbox/.smoke.tgb.part" "$work/inbox/smoke.tgb"
await ready

step='an authorised request'
expect 'with a token' 200 "$(through --header "Authorization: Bearer $(<"$work/token")")"
expect 'the body' pong "$(<"$work/body")"

step='a refused request'
expect 'with no token' 401 "$(through)"

step='a usage file'
await status_has appended=2 backlog_files=1

gone() { ! kill -0 "$daemon" 2>/dev/null; }
stop() {
  kill -TERM "$daemon"
  local deadline=$((SECONDS + patience)) stopped=0
  until gone; do
    ((SECONDS < deadline)) || { echo "smoke: still runs $patience s after SIGTERM" >&2; return 1; }
    sleep 0.1
  done
  wait "$daemon" || stopped=$?
  daemon=''
  expect 'exit of the daemon' 0 "$stopped"
}

step='a clean stop'
stop
[[ ! -e $work/admin.sock ]] || { echo 'smoke: the admin socket is left behind' >&2; exit 1; }

step='a second start'
begun=$(date +%s%N)
"$binaries/tidegated" run --config "$work/tidegated.toml" >>"$work/daemon.log" 2>&1 </dev/null &
daemon=$!
first_answer_ms=$(python3 - "$port" "$work/token" "$begun" "$patience" <<'EOF'
import http.client, sys, time
port, token, begun, patience = int(sys.argv[1]), open(sys.argv[2]).read().strip(), int(sys.argv[3]), int(sys.argv[4])
while time.time_ns() - begun < patience * 10**9:
    try:
        caller = http.client.HTTPConnection("127.0.0.1", port, timeout=patience)
        caller.request("GET", "/smoke/ping", headers={"Authorization": "Bearer " + token})
        if caller.getresponse().status == 200:
            print((time.time_ns() - begun) // 10**6)
            sys.exit()
    except OSError:
        pass
    time.sleep(0.002)
sys.exit(f"smoke: no request was answered within {patience} s of a second start")
EOF
)
# The child stays for a second after its work.
child_kib=0
sealed() {
  local has=0 children child kib
  status_has appended=1 backlog_files=2 || has=1
  mapfile -t children < <(cat "/proc/$daemon/task"/*/children 2>/dev/null | tr ' ' '\n')
  for child in "${children[@]}"; do
    kib=$(awk '/^VmHWM:/ { print $2 }' "/proc/$child/status" 2>/dev/null) || continue
    ((${kib:-0} <= child_kib)) || child_kib=$kib
  done
  return "$has"
}
await sealed
# Until it has gone, and a while longer.
sleep 3
idle_kib=$(awk '/^VmRSS:/ { print $2 }' "/proc/$daemon/status")
stop
if [[ ${TIDEGATE_SMOKE_FIGURES:-} ]]; then echo "$first_answer_ms $idle_kib $child_kib" >"$TIDEGATE_SMOKE_FIGURES"; fi

passed=yes
echo "smoke: safe mode, bundle, 200, 401, usage file and clean stop: as they should be"
echo "smoke: started again it answers after $first_answer_ms ms, and has $idle_kib KiB of memory; its child had $child_kib"
