#!/usr/bin/env bash
# Packages the device's two programs for one TARGET, into CARGO_TARGET_DIR/package/TARGET (default target/package/TARGET):
#
#   tidegate_VERSION_ARCH.deb          by cargo-deb
#   tidegate-VERSION-TARGET.tar.gz     the same files, with install.sh
#   tidegate-VERSION-TARGET.cdx.json   what the programs are made of (CycloneDX)
#   SHA256SUMS                         of these three; with --key also SHA256SUMS.sigs
#
# usage: cross/package.sh [--bin DIR] [--version VERSION] [--key FILE]... [--twice] TARGET
#
#   --bin DIR          packages the programs in DIR, which cross/build.sh has built; else it builds them
#   --version VERSION  of the package, as Debian has it (default: Cargo.toml's, and -1)
#   --key FILE         signs SHA256SUMS with a key of the role release (tidegate key new); may be given several times
#   --twice            packages the same programs twice, and compares the bytes
#
# Environment: as cross/build.sh. Where SOURCE_DATE_EPOCH is not set, the time of the last commit is the time of every file,
# so that the same source gives the same bytes.
# Exit: 0 packaged, 64 wrong usage, 65 other bytes the second time or what cannot be packaged, 69 something is missing (its
# message names it), else a step failed.
set -euo pipefail
# What ships has the same modes whoever packages it.
umask 022

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
usage() {
  sed -n 's/^# usage: /usage: /p' "${BASH_SOURCE[0]}" >&2
  exit 64
}

bin='' version='' twice='' keys=() target=''
while (($#)); do
  case $1 in
    --bin | --version | --key)
      (($# >= 2)) || usage
      case $1 in
        --bin) bin=$(cd "$2" && pwd) ;;
        --version) version=$2 ;;
        --key) keys+=(--key "$(realpath "$2")") ;;
      esac
      shift
      ;;
    --twice) twice=yes ;;
    -*) usage ;;
    *) [[ ! $target ]] || usage && target=$1 ;;
  esac
  shift
done

# Debian's name of the architecture. For ARMv6 with hard floats that is armhf: so Raspberry Pi OS calls its Zero and 1, and
# dpkg there takes nothing else; Debian's own armhf begins with ARMv7, which runs ARMv6 as well.
case $target in
  aarch64-unknown-linux-*) architecture=arm64 ;;
  armv7-unknown-linux-*eabihf | arm-unknown-linux-musleabihf) architecture=armhf ;;
  x86_64-unknown-linux-*) architecture=amd64 ;;
  *) usage ;;
esac

# shellcheck source=cross/toolchain.sh
. "$root/cross/toolchain.sh"

mkdir -p "$cache"
exec 9>"$cache/lock"

[[ $version ]] || version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml")
# A version without a revision is that of a package that Debian itself maintains.
[[ $version == *-* ]] || version=$version-1
dpkg --validate-version "$version" || refuse 64 "no version of a package: $version"
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct)} || refuse 69 'no git history here: set SOURCE_DATE_EPOCH'
export SOURCE_DATE_EPOCH
into=${CARGO_TARGET_DIR:-$root/target}/package/$target
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A tool of crates.io, at the version given, in the cache folder: use_crate NAME VERSION [FLAG...]
use_crate() {
  local name=$1 pinned=$2 folder=$cache/$1-$2
  shift 2
  if [[ ! -x $folder/bin/$name ]]; then
    say "building $name $pinned into $cache"
    # Without optimisation: it runs for a second.
    CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=0 CARGO_TARGET_DIR=$cache/$name-build \
      cargo install --quiet --locked --debug --root "$folder" --version "=$pinned" "$name" "$@" >&2
    rm -rf "$cache/$name-build"
  fi
  PATH=$folder/bin:$PATH
}

# The packages that hold the C libraries that the programs name, at the least version that has all they ask for.
depends() {
  local library least='' unwinder=''
  for library in $(readelf -d "$bin/tidegated" "$bin/tidegate" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | sort -u); do
    case $library in
      libc.so.6 | libm.so.6 | libdl.so.2 | libpthread.so.0 | librt.so.1 | ld-linux*.so.*)
        # Packed relocations, which have no number, came with 2.36.
        least=$(readelf --wide --version-info "$bin/tidegated" "$bin/tidegate" | sed 's/GLIBC_ABI_DT_RELR/GLIBC_2.36/' |
          sed -n 's/.*Name: GLIBC_\([0-9.]*\) .*/\1/p' | sort --version-sort | tail -n 1)
        [[ $least ]] || refuse 65 "no version of glibc in $bin/tidegated"
        ;;
      # What Rust takes of it unwinds, and has been there since GCC 3.
      libgcc_s.so.1) unwinder=', libgcc-s1' ;;
      *) refuse 65 "$library: no Debian package is known here that has it" ;;
    esac
  done
  # A static program names no library, and needs nothing.
  if [[ $least ]]; then echo "libc6 (>= $least)$unwinder"; fi
}

# What lintian is told to pass over, each tag below its reason. "~" stands before what is of static programs alone.
overrides() {
  if [[ $target == *-musl* ]]; then sed 's/^~//' "$root/cross/deb/lintian-overrides"; else sed '/^~/d' "$root/cross/deb/lintian-overrides"; fi
}

# Runs a program of the project as `cargo test` builds it. The build scripts of what holds C are run again where
# SOURCE_DATE_EPOCH changes, which costs minutes; no byte that ships comes from there.
workstation() { (cd "$root" && env -u SOURCE_DATE_EPOCH cargo run --quiet --locked "$@"); }

# What does not depend on how often it is packaged: pages, completions, SBOM, terms, in "$work/generated".
generate() {
  local to=$work/generated part
  workstation --example pages -- "$to"
  sed -e "s/@VERSION@/$version/" -e "s/@DATE@/$(date --utc --date="@$SOURCE_DATE_EPOCH" +%Y-%m-%d)/" \
    "$root/cross/tidegated.8" >"$to/man/tidegated.8"
  overrides >"$to/lintian-overrides"
  mkdir "$to/scripts"
  cp "$root"/cross/deb/{postinst,prerm,postrm} "$to/scripts"
  if [[ $target == armv7-* ]]; then cp "$root/cross/deb/preinst.armv7" "$to/scripts/preinst"; fi
  cp "$root/cross/deb/copyright" "$to"
  if [[ $target == *-musl* ]]; then cat "$root/cross/deb/copyright.musl" >>"$to/copyright"; fi
  gzip -9n <"$root/CHANGELOG.md" >"$to/changelog.gz"
  # Debian's own form. What changed is told beside it.
  cat >"$to/changelog" <<EOF
tidegate ($version) stable; urgency=medium

  * What changed is told in changelog.gz.

 -- $(sed -n 's/^maintainer = "\(.*\)"/\1/p' "$root/Cargo.toml")  $(date --utc --date="@$SOURCE_DATE_EPOCH" -R)
EOF
  project "$work/sbom"
  (cd "$work/sbom" && cargo cyclonedx --quiet --no-default-features --target "$target" --format json --spec-version 1.5 --override-filename bom)
  # The folder where it was made says nothing.
  python3 - "$work/sbom/bom.json" "$work/sbom" "$version" "$target" >"$to/tidegate.cdx.json" <<'EOF'
import json, sys
path, folder, version, target = sys.argv[1:]
bom = json.loads(open(path).read().replace(f"path+file://{folder}", "pkg:cargo/tidegate").replace("file://.", ""))
bom["metadata"].setdefault("properties", []).extend(
    [{"name": "tidegate:package-version", "value": version}, {"name": "tidegate:target", "value": target}])
print(json.dumps(bom, indent=1, sort_keys=True, ensure_ascii=False))
EOF
  for part in "$root" "$work"; do
    if grep -q -F "$part" "$to/tidegate.cdx.json"; then refuse 70 "the SBOM names $part"; fi
  done
  (cd "$root" && cargo metadata --quiet --locked --filter-platform "$target" --format-version 1) | python3 "$root/cross/licences.py" "$to/tidegate.cdx.json" | gzip -9n >"$to/third-party-licences.gz"
}

# A folder that cargo takes for the project, in which files may be written.
project() {
  local entry
  mkdir "$1"
  for entry in "$root"/*; do
    case ${entry##*/} in
      target | Cargo.toml) ;;
      *) ln -s "$entry" "$1" ;;
    esac
  done
  sed -e "s/^depends = \"\".*/depends = \"$depends\"/" -e 's/^\(description = "[^:]*\):.*/\1"/' "$root/Cargo.toml" >"$1/Cargo.toml"
}

# All that ships, into folder $1.
package() {
  local to=$1 stage=$1.stage name=tidegate-$version-$target
  project "$stage"
  cp -r "$work/generated" "$stage/package"
  mkdir -p "$to" "$stage/built/$target/dist"
  cp "$bin/tidegated" "$bin/tidegate" "$stage/built/$target/dist"
  (cd "$stage" && CARGO_TARGET_DIR=$stage/built cargo deb --quiet --no-build --no-strip --locked --target "$target" --profile dist \
    --deb-version "$version" --output "$to/" >/dev/null)
  local deb=$to/tidegate_${version}_$architecture.deb
  [[ -e $deb ]] || refuse 70 "cargo-deb made no $deb"

  mkdir "$stage/$name"
  dpkg-deb --extract "$deb" "$stage/$name/files"
  dpkg-deb --control "$deb" "$stage/$name/scripts"
  rm -f "$stage/$name"/scripts/{control,conffiles,md5sums,sha256sums} "$stage/$name/files/usr/share/lintian" -r
  install -m 0755 "$root/cross/deb/install.sh" "$stage/$name"
  tar --create --sort=name --format=gnu --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" \
    --directory "$stage" "$name" | gzip -9n >"$to/$name.tar.gz"
  cp "$work/generated/tidegate.cdx.json" "$to/$name.cdx.json"
  (cd "$to" && sha256sum -- *.cdx.json *.deb *.tar.gz >SHA256SUMS)
  rm -rf "$stage"
}

started=$SECONDS
if [[ ! $bin ]]; then
  "$root/cross/build.sh" "$target" >&2
  out=${CARGO_TARGET_DIR:-$root/target}
  # Debian's compiler builds apart.
  bin=$out/cross/$target/dist
  [[ ! $out/$target/dist/tidegated -nt $bin/tidegated ]] || bin=$out/$target/dist
fi
for program in tidegated tidegate; do
  [[ -f $bin/$program ]] || refuse 69 "no $program in $bin"
done
flock 9
need_packages binutils python3
use_crate cargo-deb 3.8.0 --no-default-features --features lzma
use_crate cargo-cyclonedx 0.5.9
depends=$(depends)
generate
exec 9>&-
package "$work/one"
if [[ $twice ]]; then
  # Other files of the same time must not be of the same second.
  sleep 1.1
  package "$work/two"
  for file in "$work"/one/*; do cmp "$file" "$work/two/${file##*/}" || refuse 65 "$target: other bytes the second time"; done
  say "$target: the same bytes twice"
fi
mkdir -p "$into"
# Packages of other versions stay; the list is of this one.
rm -f "$into"/SHA256SUMS*
cp "$work"/one/* "$into"
if ((${#keys[@]})); then
  workstation --bin tidegate -- sums sign "$into/SHA256SUMS" "${keys[@]}" --yes >&2
fi
say "$target packaged in $((SECONDS - started)) s${depends:+, needs $depends}: $into"
ls "$into"
