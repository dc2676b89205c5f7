#!/usr/bin/env bash
# Builds the device's two programs for one TARGET, checks their size against cross/budgets.toml, and smoke-tests them
# (under qemu-user where TARGET is not this machine's). Works from any folder, also the second time.
#
# Environment: TIDEGATE_CROSS_CACHE  the folder for what is fetched (default ~/.cache/tidegate-cross)
#              CARGO_TARGET_DIR      as cargo's; default target/ of the project
# Exit: 0 built and smoke-tested, 64 wrong usage, 69 something is missing (its message names it), else a step failed.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usage() {
  cat >&2 <<'EOF'
usage: cross/build.sh TARGET

  aarch64-unknown-linux-gnu      64-bit ARM, distributions with glibc
  aarch64-unknown-linux-musl     64-bit ARM, static
  armv7-unknown-linux-musleabihf 32-bit ARM (Pi 2 and 3), static
  x86_64-unknown-linux-gnu       this machine: no emulator needed
EOF
  exit 64
}

(($# == 1)) || usage
target=$1
# How it is linked, and qemu's name of the architecture. For gcc: Debian's names of the architecture and of the compiler.
architecture='' gnu='' qemu=''
case $target in
  x86_64-unknown-linux-gnu) linker=native ;;
  aarch64-unknown-linux-gnu) linker=gcc architecture=arm64 gnu=aarch64-linux-gnu qemu=aarch64 ;;
  aarch64-unknown-linux-musl) linker=zig qemu=aarch64 ;;
  armv7-unknown-linux-musleabihf) linker=zig qemu=arm ;;
  arm-unknown-linux-musleabihf | x86_64-unknown-linux-musl | armv7-unknown-linux-gnueabihf)
    printf 'cross: this script does not build %s yet; cross does: cross build --profile dist --no-default-features --target %s\n' "$target" "$target" >&2
    exit 69
    ;;
  *) usage ;;
esac

# shellcheck source=cross/toolchain.sh
. "$root/cross/toolchain.sh"

mkdir -p "$cache"
out=${CARGO_TARGET_DIR:-$root/target}

# Sets the compiler, the linker and, for both, $out.
prepare() {
  [[ $linker != native ]] || return 0
  # One at a time: a second run waits here for the first one's downloads.
  exec 9>"$cache/lock"
  flock 9
  need_packages qemu-user-static
  case $linker in
    gcc)
      need_packages "gcc-$gnu" "libc6-dev-$architecture-cross"
      local triple=${target//-/_}
      export "CARGO_TARGET_${triple^^}_LINKER=$gnu-gcc" "CC_$triple=$gnu-gcc" "AR_$triple=$gnu-ar"
      if has_std "$target"; then
        say "the Rust toolchain has the std of $target: it is used"
        exec 9>&-
        return
      fi
      use_debian_rust "$architecture"
      ;;
    zig) use_zig ;;
  esac
  # Apart from the workstation's builds, which another version of the compiler made.
  out=$out/cross
  exec 9>&-
}

compile() {
  # Panic messages name source files: not by this machine's folders.
  local flags=("--remap-path-prefix=$root=/tidegate" "--remap-path-prefix=${CARGO_HOME:-${HOME:-/root}/.cargo}=/cargo") build=(build)
  if [[ $linker == zig ]]; then
    build=(zigbuild "-Zbuild-std=std,panic_unwind")
    # zig brings the C library's start files itself.
    flags+=(-Clink-self-contained=no)
  fi
  # The least that a device's clock can be; the commit's time, so that the same source gives the same bytes.
  local built_at=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct 2>/dev/null || true)}
  if [[ $built_at ]]; then export TIDEGATE_BUILD_TIME=$built_at; fi
  # Nothing unwinds through the C of zstd and ring: a panic is Rust's.
  export CFLAGS="${CFLAGS:+$CFLAGS }-fno-asynchronous-unwind-tables -fno-unwind-tables"
  local IFS=$'\x1f'
  export CARGO_ENCODED_RUSTFLAGS="${flags[*]}"
  CARGO_TARGET_DIR=$out cargo "${build[@]}" --manifest-path "$root/Cargo.toml" --locked --target "$target" --profile dist \
    --no-default-features --bin tidegated --bin tidegate
}

# The budget of program $1 for this target in bytes: its key in the target's table.
budget() {
  awk -v table="[$target]" -v key="$1" '$1 ~ /^\[/ { inside = $1 == table } inside && $1 == key { gsub("_", "", $3); print $3 }' "$root/cross/budgets.toml"
}

check_size() {
  local program size limit over=0
  for program in tidegated tidegate; do
    size=$(stat --format=%s "$out/$target/dist/$program")
    limit=$(budget "$program")
    [[ $limit ]] || refuse 65 "cross/budgets.toml has no budget for $program on $target"
    printf '%-28s %-10s %9d bytes of %9d\n' "$target" "$program" "$size" "$limit"
    if ((size > limit)); then
      over=1
      say "$program is $((size - limit)) bytes over its budget"
    fi
  done
  return $over
}

started=$SECONDS
prepare
compile
say "built in $((SECONDS - started)) s"
check_size
smoke=("$root/cross/smoke.sh" "$out/$target/dist")
if [[ $qemu ]]; then smoke=("$root/cross/emulate.sh" "$qemu" "${smoke[@]}"); fi
# Where an emulated program's libc is.
if [[ $gnu ]]; then export QEMU_LD_PREFIX=/usr/$gnu; fi
"${smoke[@]}"
say "$target done in $((SECONDS - started)) s: $out/$target/dist"
