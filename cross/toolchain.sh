# shellcheck shell=bash
# What a cross-build needs, found or fetched. Sourced by build.sh; sets nothing up that outlives it but the cache folder.
#
#   compiler, std   the pinned rustup toolchain where it has TARGET's std (`rustup target add TARGET`), else Debian's own
#                   packages of both, unpacked into the cache folder: they are never installed, so they cannot collide
#                   with rustup, and no foreign architecture is added to the machine
#   linker, qemu    Debian packages of the machine: installed when run as root, else named in the refusal;
#                   for musl targets zig, which is a Python package, and std is built from source
#
# It never writes outside the cache folder, except through `apt-get install` as root.

: "${root:?the project folder, set by build.sh}" "${target:?set by build.sh}"
cache=${TIDEGATE_CROSS_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/tidegate-cross}

say() { printf 'cross: %s\n' "$*" >&2; }
# Ends with a sysexits code: refuse CODE MESSAGE.
refuse() {
  local code=$1
  shift
  say "$*"
  exit "$code"
}

installed() { [[ $(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null) == installed ]]; }

# Installs those Debian packages that are missing, or says which they are.
need_packages() {
  local missing=() package
  command -v apt-get >/dev/null || refuse 69 "no apt-get here: this script fetches its tools from Debian's packages; on another system use cross or cargo zigbuild (docs/device.md)"
  for package in "$@"; do installed "$package" || missing+=("$package"); done
  ((${#missing[@]})) || return 0
  local command="apt-get install --yes --no-install-recommends ${missing[*]}" lock
  ((EUID == 0)) || refuse 69 "missing packages; as root run: $command"
  say "installing ${missing[*]}"
  # One of these scripts at a time; whoever else holds dpkg has ten minutes.
  exec {lock}>"$cache/apt-lock"
  flock "$lock"
  local install=(apt-get -o DPkg::Lock::Timeout=600 install --yes --no-install-recommends "${missing[@]}")
  local -x DEBIAN_FRONTEND=noninteractive
  "${install[@]}" >"$cache/apt.log" 2>&1 </dev/null || { apt-get update && "${install[@]}"; } >"$cache/apt.log" 2>&1 </dev/null ||
    { tail -n 20 "$cache/apt.log" >&2; refuse 69 "could not install: ${missing[*]} (by hand: apt-get update, then $command)"; }
  exec {lock}>&-
}

# True where the toolchain on PATH (rustup's, pinned by rust-toolchain.toml) can compile for $1 as it is.
has_std() {
  local folder
  folder=$(cd "$root" && rustc --print target-libdir --target "$1" 2>/dev/null) && compgen -G "$folder/libstd-*.rlib" >/dev/null
}

# Debian's compiler with the std of Debian architecture $1, or with std's source where $1 is `source`, in
# "$cache/debian-rust-$1". Its own apt state lives in the cache folder: no root needed, and the machine's lists stay as
# they are.
unpack_debian_rust() {
  local kind=$1 to=$cache/debian-rust-$1 apt=$cache/apt host std version least deb
  [[ -e $to/complete ]] && return
  command -v apt-get >/dev/null || refuse 69 "no apt-get here, and the Rust toolchain has no std for $target: rustup target add $target"
  host=$(dpkg --print-architecture)
  [[ $host == amd64 ]] || refuse 69 "this script cross-builds on amd64 only, this machine is $host"

  mkdir -p "$apt/lists/partial" "$apt/archives/partial"
  cat >"$apt/apt.conf" <<EOF
#clear APT::Architectures;
APT::Architectures { "$host"; "${kind/source/$host}"; };
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "3";
Dir::State::Lists "$apt/lists";
Dir::State::status "/dev/null";
Dir::Cache "$apt";
EOF
  say "fetching Debian's Rust and its std ($kind) into $cache"
  APT_CONFIG=$apt/apt.conf apt-get update --quiet >"$apt/log" 2>&1 </dev/null || { cat "$apt/log" >&2; refuse 69 "apt-get update failed"; }

  std=$(depends libstd-rust-web-dev "^libstd-rust-web-[0-9]") || refuse 69 "this Debian has no package libstd-rust-web-dev; with rustup: rustup target add $target"
  version=${std#libstd-rust-web-}
  least=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")
  dpkg --compare-versions "$version" ge "$least" || refuse 69 "this Debian's Rust is $version, Tidegate needs $least; with rustup: rustup target add $target"

  local packages=(rustc-web cargo-web "libstd-rust-web-dev:$host" "$std:$host")
  if [[ $kind == source ]]; then packages+=(rust-web-src); else packages+=("libstd-rust-web-dev:$kind" "$std:$kind"); fi
  rm -rf "$to" "$to.part"
  mkdir -p "$to.part/debs"
  (cd "$to.part/debs" && APT_CONFIG=$apt/apt.conf apt-get download --quiet "${packages[@]}" >"$apt/log" 2>&1 </dev/null) || { cat "$apt/log" >&2; refuse 69 "the download failed"; }
  for deb in "$to.part"/debs/*.deb; do dpkg-deb --extract "$deb" "$to.part"; done
  rm -rf "$to.part/debs"
  # The shared libraries that compiler and cargo load; those are the machine's own.
  depends "rustc-web cargo-web $std" '^lib(git2|llvm|ssh2|curl|sqlite3|ssl)[0-9.-]' >"$to.part/libraries"
  touch "$to.part/complete"
  mv "$to.part" "$to"
  rm -rf "$apt"
}

# The direct dependencies of packages $1 (words) whose name matches $2, from the cache folder's lists.
depends() {
  # shellcheck disable=SC2086 # $1 is a list of words
  APT_CONFIG=$cache/apt/apt.conf apt-cache depends $1 2>/dev/null | sed -n 's/^ *|\{0,1\}Depends: //p' | grep -E "$2" | sort -u
}

# Puts Debian's compiler for architecture $1 first, with a CARGO_HOME of its own: two versions of cargo do not share one.
use_debian_rust() {
  local folder=$cache/debian-rust-$1 libraries
  unpack_debian_rust "$1"
  mapfile -t libraries <"$folder/libraries"
  need_packages gcc libc6-dev binutils "${libraries[@]}"
  local theirs=${CARGO_HOME:-${HOME:-/root}/.cargo}
  export CARGO_HOME=$cache/cargo
  mkdir -p "$CARGO_HOME"
  # A registry mirror or proxy that the user has set stays in force.
  if [[ -e $theirs/config.toml ]]; then ln -sfn "$theirs/config.toml" "$CARGO_HOME/config.toml"; fi
  export PATH=$folder/usr/bin:$PATH RUSTC=$folder/usr/bin/rustc
  export LD_LIBRARY_PATH=$folder/usr/lib/x86_64-linux-gnu${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  unset RUSTUP_TOOLCHAIN RUSTC_WRAPPER
}

# For a musl target: Debian's compiler, std built from its source, and zig as C compiler and linker with the target's
# libc, by cargo-zigbuild. Both come as Python packages, into a folder of their own.
use_zig() {
  # The last zig with musl's own malloc. From 0.16 on it brings another, whose calloc writes its zeros and which gives nothing back:
  # the spool's child took 31.6 MB with 0.17.1, and takes 4.7 (docs/device.md, "Memory").
  local python=$cache/zig zig=0.15.2 zigbuild=0.24.1
  use_debian_rust source
  if [[ ! -e $python/complete-$zig-$zigbuild ]]; then
    python3 -c 'import ensurepip, venv' 2>/dev/null || need_packages python3 python3-venv
    say "fetching zig $zig and cargo-zigbuild $zigbuild into $cache"
    rm -rf "$python"
    python3 -m venv "$python"
    "$python/bin/pip" install --quiet --disable-pip-version-check "ziglang==$zig" "cargo-zigbuild==$zigbuild" || refuse 69 'pip could not fetch zig'
    touch "$python/complete-$zig-$zigbuild"
  fi
  export PATH=$PATH:$python/bin CARGO_ZIGBUILD_ZIG_PATH=$python/bin/python-zig RUSTC_BOOTSTRAP=1
}
