#!/bin/sh
# Installs what lies beside it, as the .deb does; for systems without dpkg. As root:
#
#   ./install.sh             installs, or replaces an older version; settings that were changed stay
#   ./install.sh --remove    stops it and takes its files away; settings and state stay
#   ./install.sh --purge     the same, and deletes settings and state: the device's key, and usage that no hub has yet
set -eu
# The daemon's user reads settings and programs, whatever mask root has.
umask 022

here=$(cd "$(dirname "$0")" && pwd)
if [ "$(id -u)" -ne 0 ]; then
    echo 'install.sh: run it as root' >&2
    exit 77
fi
if command -v dpkg-query >/dev/null 2>&1 && dpkg-query -W tidegate >/dev/null 2>&1; then
    echo 'install.sh: dpkg has installed tidegate here; take the .deb, or first: dpkg --purge tidegate' >&2
    exit 69
fi

# Every file; every folder, those within before those around them.
each() { (cd "$here/files" && find . ! -type d | sed 's,^\.,,' | sort); }
folders() { (cd "$here/files" && find . -depth -type d | sed 's,^\.,,'); }

put() {
    mode=0644
    [ ! -x "$here/files$1" ] || mode=0755
    mkdir -p "$(dirname "$2")"
    # By a rename: a program that runs is not written over.
    cp "$here/files$1" "$2.part"
    chmod $mode "$2.part"
    mv "$2.part" "$2"
}

install_all() {
    before=''
    [ ! -x /usr/bin/tidegated ] || before=$(/usr/bin/tidegated --version | cut -d ' ' -f 2)
    [ ! -e "$here/scripts/preinst" ] || "$here/scripts/preinst" install
    each | while read -r file; do
        case $file in
            /etc/*)
                if [ -e "$file" ] && ! cmp -s "$here/files$file" "$file"; then
                    echo "install.sh: $file was changed and stays; the new one is $file.new"
                    put "$file" "$file.new"
                    continue
                fi
                ;;
        esac
        put "$file" "$file"
    done
    "$here/scripts/postinst" configure "$before"
}

# Takes away the folders below $1 that are empty now.
sweep() {
    folders | while read -r folder; do
        case $folder in
            "$1"*) rmdir "$folder" 2>/dev/null || true ;;
        esac
    done
}

remove_all() {
    "$here/scripts/prerm" remove
    each | while read -r file; do
        case $file in
            /etc/*) ;;
            *) rm -f "$file" ;;
        esac
    done
    sweep /usr
    "$here/scripts/postrm" remove
}

purge_all() {
    remove_all
    each | while read -r file; do
        case $file in
            /etc/*) rm -f "$file" "$file.new" ;;
        esac
    done
    sweep /etc/tidegate
    "$here/scripts/postrm" purge
}

case ${1:-} in
    '') install_all ;;
    --remove) remove_all ;;
    --purge) purge_all ;;
    *)
        sed -n 's/^#   //p' "$0" >&2
        exit 64
        ;;
esac
