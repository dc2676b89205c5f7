# shellcheck shell=sh
# What run.sh, swap.sh, usage.sh and memory.sh share. Sourced: `name` is the folder of the run in BUILD, `here` that of this file.
# Sets run, site, daemon; gives the functions below; what is put into pids ends with the script.
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

settings() { # port: the daemon's settings in the folder of the run
    python3 "$here/measure.py" settings "$run" "$site" "$1" >/dev/null
}

bundle_of_site() { # port of the upstream: the policy of site.py, signed
    python3 "$here/site.py" "$site" "127.0.0.1:$1"
    tidegate bundle build "$site" -o "$run/bench.tgb"
    tidegate bundle sign "$run/bench.tgb" --key "$site/keys/policy.key" --yes
}

tokens() { # how many, of how many applications: a line of JSON each in $run/tokens, and as wrk's script in $run/tokens.lua
    seq 0 $(($1 - 1)) | awk -v of="$2" 'BEGIN {print "sub,client,scope"} {printf "user-%d,app-%d,pets:read\n", $1, $1 % of}' >"$run/holders.csv"
    "$BUILD/target/dist/tidegate" token mint --key "$site/keys/issuer.pem" --kid 2026-01 --iss https://tokens.example.com \
        --aud edge --ttl 7d --batch "$run/holders.csv" >"$run/tokens"
    { echo 'local tokens = {'; sed 's/.*"token" *: *\("[^"]*"\).*/  \1,/' "$run/tokens"; cat "$here/tokens.lua"; } >"$run/tokens.lua"
    sed -n '2s/^ *"\(.*\)",$/\1/p' "$run/tokens.lua" >"$run/token"
}

upstream_conf() { # port: an nginx that answers as the upstream of site.py
    nginx_conf up "access_log off; server { listen 127.0.0.1:$1 backlog=1024;
      location / { default_type application/json; return 200 '{\"id\":7,\"name\":\"Tide\",\"status\":\"available\"}'; } }"
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
