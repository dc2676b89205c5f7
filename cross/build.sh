#!/usr/bin/env bash
# Builds the device's two programs for one TARGET, smoke-tests them (under qemu-user where TARGET is not this machine's),
# and checks what came out against cross/budgets.toml. Works from any folder, also the second time.
#
# Environment: TIDEGATE_CROSS_CACHE  the folder for what is fetched (default ~/.cache/tidegate-cross)
#              CARGO_TARGET_DIR      as cargo's; default target/ of the project
#              SOURCE_DATE_EPOCH     the time of the build (default that of the last commit)
# Exit: 0 built and smoke-tested, 64 wrong usage, 65 over a budget, or other bytes the second time, 69 something is
# missing (its message names it), else a step failed.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
shipped=(
  aarch64-unknown-linux-musl
  armv7-unknown-linux-musleabihf
  arm-unknown-linux-musleabihf
  x86_64-unknown-linux-musl
  aarch64-unknown-linux-gnu
  armv7-unknown-linux-gnueabihf
)

usage() {
  cat >&2 <<'EOF'
usage: cross/build.sh TARGET            builds it, smoke-tests it, and prints its line of the table
       cross/build.sh all               the first six of these, and the table
       cross/build.sh --twice TARGET    builds it in two other folders, with tools in two, and compares the bytes

  aarch64-unknown-linux-musl     64-bit ARM, static
  armv7-unknown-linux-musleabihf 32-bit ARM (Pi 2 and 3), static
  arm-unknown-linux-musleabihf   ARMv6 (Pi Zero and 1), static
  x86_64-unknown-linux-musl      industrial PCs, static
  aarch64-unknown-linux-gnu      64-bit ARM, distributions with glibc
  armv7-unknown-linux-gnueabihf  32-bit ARM, distributions with glibc
  x86_64-unknown-linux-gnu       this machine: no emulator needed
EOF
  exit 64
}

twice=''
if [[ ${1:-} == --twice ]]; then twice=yes && shift; fi
(($# == 1)) || usage
target=$1

heading='target                         |  tidegated |   tidegate | first answer | idle RSS | child RSS'
if [[ $target == all ]]; then
  [[ ! $twice ]] || usage
  table=() failed=0
  for target in "${shipped[@]}"; do
    code=0
    row=$("${BASH_SOURCE[0]}" "$target") || code=$?
    # What is over a budget has its figures all the same.
    if ((code)); then failed=$code row="${row:-$(printf '%-30s' "$target")} | exit $code"; fi
    echo "$row" >&2
    table+=("$row")
  done
  echo
  printf '%s\n' "$heading" "${table[@]}"
  exit "$failed"
fi

# How it is linked, and qemu's name of the architecture. For gcc: Debian's names of the architecture and of the compiler.
# std is built from source where nobody has it built for this target.
architecture='' gnu='' qemu='' std=built
case $target in
  x86_64-unknown-linux-gnu) linker=native ;;
  aarch64-unknown-linux-gnu) linker=gcc architecture=arm64 gnu=aarch64-linux-gnu qemu=aarch64 ;;
  armv7-unknown-linux-gnueabihf) linker=gcc architecture=armhf gnu=arm-linux-gnueabihf qemu=arm std=source ;;
  aarch64-unknown-linux-musl) linker=zig qemu=aarch64 std=source ;;
  armv7-unknown-linux-musleabihf) linker=zig qemu=arm std=source ;;
  arm-unknown-linux-musleabihf)
    linker=zig qemu=arm std=source
    export QEMU_CPU=arm1176
    ;;
  x86_64-unknown-linux-musl) linker=zig std=source ;;
  *) usage ;;
esac

# shellcheck source=cross/toolchain.sh
. "$root/cross/toolchain.sh"

mkdir -p "$cache"
# As the compiler finds it: its links followed.
cache=$(cd "$cache" && pwd -P)
out=${CARGO_TARGET_DIR:-$root/target}
# Nothing unwinds through the C of zstd and ring: a panic is Rust's.
export CFLAGS="${CFLAGS:+$CFLAGS }-fno-asynchronous-unwind-tables -fno-unwind-tables"

# Sets the compiler, the linker and, for both, $out.
prepare() {
  [[ $linker != native ]] || return 0
  # One at a time: a second run waits here for the first one's downloads.
  exec 9>"$cache/lock"
  flock 9
  if [[ $qemu ]]; then need_packages qemu-user-static; fi
  case $linker in
    gcc)
      need_packages "gcc-$gnu" "libc6-dev-$architecture-cross" lld-16
      # gcc of another architecture looks for a linker of that one's name, or where it is told.
      mkdir -p "$cache/lld"
      ln -sfn "$(command -v ld.lld-16)" "$cache/lld/ld.lld"
      local triple=${target//-/_}
      export "CARGO_TARGET_${triple^^}_LINKER=$gnu-gcc" "CC_$triple=$gnu-gcc" "AR_$triple=$gnu-ar"
      if has_std "$target"; then
        say "the Rust toolchain has the std of $target: it is used"
        std=built
        exec 9>&-
        return
      fi
      if [[ $std == source ]]; then use_debian_rust source; else use_debian_rust "$architecture"; fi
      ;;
    zig) use_zig ;;
  esac
  # Apart from the workstation's builds, which another version of the compiler made.
  out=$out/cross
  exec 9>&-
}

# Compiles the project in folder $1 into the target folder $2.
compile() {
  local project=$1 into=$2
  # Panic messages name source files: not by this machine's folders. The last that fits counts.
  local flags=(
    "--remap-path-prefix=$project=/tidegate"
    "--remap-path-prefix=$into=/tidegate/target"
    "--remap-path-prefix=$cache=/toolchain" # std, where it is built from source
    "--remap-path-prefix=${CARGO_HOME:-${HOME:-/root}/.cargo}=/cargo"
  )
  local build=(build)
  if [[ $linker == zig ]]; then
    build=(zigbuild)
    # zig brings the C library's start files itself.
    flags+=(-Clink-self-contained=no)
  fi
  # Functions of the same code become one, and relocations are packed, as build.rs has it on x86-64; GNU's linker cannot.
  if [[ $linker == gcc ]]; then
    flags+=("-Clink-arg=-B$cache/lld" -Clink-arg=-fuse-ld=lld "-Clink-arg=-Wl,--icf=all" "-Clink-arg=-Wl,-z,pack-relative-relocs")
  fi
  # Thumb-2, which every ARMv7 has: a fifth less code. ARMv6 has not.
  if [[ $target == armv7-* ]]; then flags+=(-Ctarget-feature=+thumb-mode); fi
  # ARMv6 has but the long form of each instruction, so its code is as small as the compiler makes it, for speed it has not.
  if [[ $target == arm-* ]]; then
    build+=(--config 'profile.dist.opt-level="z"')
    local crate
    for crate in http httparse hyper mio; do build+=(--config "profile.dist.package.$crate.opt-level=\"z\""); done
  fi
  if [[ $std == source ]]; then
    build+=("-Zbuild-std=std,panic_unwind")
    export RUSTC_BOOTSTRAP=1
  fi
  # The least that a device's clock can be; the commit's time, so that the same source gives the same bytes.
  local built_at=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct 2>/dev/null || true)}
  if [[ $built_at ]]; then export TIDEGATE_BUILD_TIME=$built_at; fi
  local IFS=$'\x1f'
  export CARGO_ENCODED_RUSTFLAGS="${flags[*]}"
  CARGO_TARGET_DIR=$into cargo "${build[@]}" --manifest-path "$project/Cargo.toml" --locked --target "$target" --profile dist \
    --no-default-features --bin tidegated --bin tidegate
}

# Two builds in two folders that have nothing in common but what is committed and changed here; the second with compiler, std and
# crates in another cache folder, as another user has.
compare() {
  local folder side tool program different=0
  folder=$(mktemp -d)
  # shellcheck disable=SC2064 # now
  trap "rm -rf '$folder'" EXIT
  for side in one another/place; do
    mkdir -p "$folder/$side"
    git -C "$root" ls-files -z --cached --others --exclude-standard | (cd "$root" && xargs -0 cp --parents -t "$folder/$side")
    if [[ $side == another/place ]]; then
      mkdir "$folder/tools"
      for tool in "$cache"/{cargo,lld,zig,debian-rust-*}; do
        [[ ! -e $tool ]] || cp -a "$tool" "$folder/tools"
      done
      cache=$(cd "$folder/tools" && pwd -P)
      prepare
    fi
    compile "$folder/$side" "$folder/$side/built"
  done
  for program in tidegated tidegate; do
    sha256sum "$folder"/{one,another/place}/"built/$target/dist/$program"
    cmp "$folder"/{one,another/place}/"built/$target/dist/$program" || different=1
  done
  ((different == 0)) || refuse 65 "$target: the same source gave other bytes in another folder"
  say "$target: the same bytes twice"
}

# What may be at most, of the target's table: budget KEY. Nothing where it has no such key.
budget() {
  awk -v table="[$target]" -v key="$1" '$1 ~ /^\[/ { inside = $1 == table } inside && $1 == key { gsub("_", "", $3); print $3 }' "$root/cross/budgets.toml"
}

# Says whether VALUE of what KEY names is within the budget: within KEY VALUE UNIT.
within() {
  local limit
  limit=$(budget "$1")
  [[ $limit ]] || return 0
  if (($2 > limit)); then
    say "$target: $1 is $2 $3, $(($2 - limit)) over its budget of $limit"
    return 1
  fi
}

started=$SECONDS
prepare
if [[ $twice ]]; then
  compare
  exit
fi
compile "$root" "$out"
say "built in $((SECONDS - started)) s"
programs=$out/$target/dist
for folder in "$root" "$out" "$cache" "${CARGO_HOME:-${HOME:-/root}/.cargo}"; do
  [[ ! $folder =~ ^/(tidegate|toolchain|cargo)$ ]] || continue
  if found=$(grep --text --only-matching --max-count=1 --fixed-strings "$folder/" "$programs/tidegated" "$programs/tidegate"); then
    refuse 65 "$target: a program names a folder of the machine that built it: ${found%%:*}: $folder"
  fi
done
[[ $(budget tidegated) && $(budget tidegate) ]] || refuse 65 "cross/budgets.toml has no budget of tidegated and tidegate for $target"
over=0
daemon=$(stat --format=%s "$programs/tidegated") tool=$(stat --format=%s "$programs/tidegate")
within tidegated "$daemon" bytes || over=1
within tidegate "$tool" bytes || over=1

smoke=("$root/cross/smoke.sh" "$programs")
if [[ $qemu ]]; then smoke=("$root/cross/emulate.sh" "$qemu" "${smoke[@]}"); fi
# Where an emulated program's libc is.
if [[ $gnu ]]; then export QEMU_LD_PREFIX=/usr/$gnu; fi
TIDEGATE_SMOKE_FIGURES=$(mktemp)
export TIDEGATE_SMOKE_FIGURES
trap 'rm -f "$TIDEGATE_SMOKE_FIGURES"' EXIT
"${smoke[@]}" >&2
read -r answer_ms idle_kib child_kib <"$TIDEGATE_SMOKE_FIGURES"
within first_answer_ms "$answer_ms" ms || over=1
# What an emulator takes is not the program's.
idle='(emulated)' child='(emulated)'
if [[ ! $qemu ]]; then
  idle="$idle_kib KiB" child="$child_kib KiB"
  within idle_rss_kib "$idle_kib" KiB || over=1
  ((child_kib)) || child='(not seen)'
  within child_rss_kib "$child_kib" KiB || over=1
fi
say "$target done in $((SECONDS - started)) s: $programs"
if [[ -t 1 ]]; then echo "$heading"; fi
printf '%-30s | %10d | %10d | %9d ms | %s | %s\n' "$target" "$daemon" "$tool" "$answer_ms" "$idle" "$child"
exit $((over ? 65 : 0))
