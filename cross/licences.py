"""Prints the terms of every crate that is in the programs: licences.py SBOM <METADATA

SBOM is CycloneDX in JSON, METADATA what `cargo metadata` says of the same build. Each text stands once, below the crates
that it belongs to; a crate without a file of its own has the expression that its manifest gives.
"""

import json
import pathlib
import sys

NAMES = ("licen", "copying", "notice", "copyright", "unlicense")


def texts(folder: pathlib.Path):
    """The files of a crate that tell its terms, in order of name."""
    found = [path for path in folder.iterdir() if path.is_file() and path.name.lower().startswith(NAMES)]
    return [path.read_text(errors="replace").strip() for path in sorted(found)]


def main():
    with open(sys.argv[1]) as file:
        wanted = {(part["name"], part["version"]) for part in json.load(file)["components"]}
    packages = {(it["name"], it["version"]): it for it in json.load(sys.stdin)["packages"]}
    by_text, bare = {}, []
    for crate in sorted(wanted):
        package = packages[crate]
        label = f"{crate[0]} {crate[1]} ({package['license'] or 'see below'})"
        if "ring" == crate[0]:
            label += ", with code of BoringSSL and OpenSSL"
        found = texts(pathlib.Path(package["manifest_path"]).parent)
        if not found:
            bare.append((label, package["authors"]))
        for text in found:
            by_text.setdefault(text, []).append(label)
    print("Tidegate's programs hold these crates, under the terms that follow their names.\n")
    for label, authors in bare:
        print(f"{label}, by {', '.join(authors) or 'its authors'}: no file of terms comes with it")
    for text, labels in by_text.items():
        print("\n" + "=" * 80)
        print("\n".join(labels))
        print("=" * 80 + "\n")
        print(text)


main()
