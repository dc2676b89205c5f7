# What run.sh and swap.sh share. Sourced: `name` is the folder of the run in BUILD, `here` that of this file.
# Sets run, site, daemon; gives tidegate, settings, nginx_conf, as_unit; what is put into pids ends with the script.
root=$(cd "$here/../.." && pwd)
BUILD=${BUILD:-${TMPDIR:-/tmp}/tidegate-bench}
for tool in wrk taskset python3 nginx; do
    command -v $tool >/dev/null || { echo "skipped: $tool is not installed"; exit 0; }
done
run=$BUILD/$name
site=$run/site
rm -rf "$run"
mkdir -p "$run/inbox" "$run/state"
echo "building" >&2
(cd "$root" && CARGO_TARGET_DIR=$BUILD/target cargo build -q --no-default-features --profile dist --bin tidegated --bin tidegate)
daemon=$BUILD/target/dist/tidegated
tidegate() { "$BUILD/target/dist/tidegate" "$@" >>"$run/tidegate.log" 2>&1 || { cat "$run/tidegate.log"; exit 1; }; }

# The same where TIDEGATE_PASSPHRASE is set for other keys: those of a benchmark lie in clear.
tidegate init "$site" --deployment bench --no-passphrase

settings() { # port: the daemon's settings
    cat >"$run/tidegated.toml" <<CONF
state = "$run/state"
inbox = "$run/inbox"
[trust]
root = "$site/root.json"
[time]
trust = ["rtc"]
[gateway]
workers = 1
[[gateway.listeners]]
address = "127.0.0.1:$1"
[admin]
socket = "$run/admin.sock"
CONF
}

nginx_conf() { # name, listener and location of a server
    cat >"$run/$1.conf" <<CONF
worker_processes 1; daemon off; pid $run/$1.pid; error_log $run/$1.error warn;
events { worker_connections 1024; }
http {
  client_body_temp_path $run/body; proxy_temp_path $run/proxy; fastcgi_temp_path $run/f;
  uwsgi_temp_path $run/u; scgi_temp_path $run/s;
  keepalive_requests 1000000000; keepalive_timeout 3600s;
  $2
}
CONF
}

as_unit() { # what is started from here on has the environment that the daemon's unit gives it
    setting=$(sed -n 's/^Environment=//p' "$root/systemd/tidegated.service")
    export "${setting?}"
}

pids=
trap 'kill $pids 2>/dev/null || true; wait 2>/dev/null || true' EXIT INT TERM
