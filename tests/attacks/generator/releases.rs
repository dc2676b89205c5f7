//! Bundles of type 4: a new version of the daemon. On the device of the cases nothing installs one; what is wrong with a
//! release is told before that.

use serde_json::{Value, json};
use tidegate::bundle::EntryKind;
use tidegate::keys::sha256;

use super::sound::{self, LISTS, Parts};
use super::{Folder, refused};

/// A sound release of a package for each architecture.
fn parts() -> Parts {
    let package = |kind: EntryKind| (kind, (kind.name().to_owned(), format!("!<arch>\n{kind}").into_bytes()));
    let entries = EntryKind::PACKAGES.map(package).into();
    let mut draft = sound::draft(1, "a release");
    (draft.security_floor, draft.entries) = (0, entries);
    Parts::of(&draft.assemble_release("0.2.0", &sound::root()).expect("a sound release"))
}

fn case(slug: &str, name: &str, about: &str, bytes: Vec<u8>) -> Folder {
    refused("releases", slug, name, about, bytes)
}

fn with(slug: &str, name: &str, about: &str, change: impl FnOnce(&mut Value)) -> Folder {
    case(slug, name, about, parts().changed(change).signed(&LISTS))
}

fn table(slug: &str, name: &str, about: &str, change: impl FnOnce(&mut Vec<Value>)) -> Folder {
    with(slug, name, about, |m| change(m["entries"].as_array_mut().expect("a list")))
}

pub fn cases() -> Vec<Folder> {
    let flipped = || {
        let mut release = parts().signed(&LISTS);
        *release.last_mut().expect("a byte") ^= 1;
        release
    };
    let in_a_policy = |change: fn(&mut Value)| sound::with_manifest(change);
    vec![
        case(
            "nothing-installs-it",
            "NoInstaller",
            "A sound release, where nothing installs one.",
            parts().signed(&LISTS),
        ),
        case("by-the-policy-role", "ThresholdNotMet", "By all holders of the policy role.", parts().signed(&[4, 5, 6])),
        case("by-the-root-role", "ThresholdNotMet", "By all holders of the role root.", parts().signed(&[1, 2, 3])),
        case("by-nobody", "ThresholdNotMet", "Signed by nobody.", parts().signed(&[])),
        case("one-bit-of-a-package", "EntryDigestMismatch", "One bit of a package is another.", flipped()),
        with("no-version", "ManifestSchema", "It does not say which version it is.", |m| {
            m.as_object_mut().expect("an object").remove("version");
        }),
        with("version-empty", "ManifestSchema", "An empty version.", |m| m["version"] = "".into()),
        with("version-an-option", "ManifestSchema", "A version that a program would read as an option.", |m| {
            m["version"] = "--root=/".into()
        }),
        with("version-a-path", "ManifestSchema", "A version that is a path.", |m| m["version"] = "0/../../etc".into()),
        with("version-two-lines", "ManifestSchema", "A version of two lines.", |m| {
            m["version"] = "0.2.0\n0.3.0".into()
        }),
        with("version-of-65", "ManifestSchema", "A version one letter over its limit.", |m| {
            m["version"] = "1".repeat(65).into()
        }),
        case("version-of-a-policy", "ManifestSchema", "A policy that says a version.", {
            in_a_policy(|m| m["version"] = "0.2.0".into())
        }),
        with("with-a-permit", "ManifestSchema", "A release that permits something too.", |m| {
            let digest = sha256(b"a bundle").to_string();
            m["permit"] = json!({"from": digest, "to": digest});
        }),
        with("with-a-base", "UnsupportedRequirement", "A release that is to follow a bundle.", |m| {
            m["base"] = json!(sha256(b"a bundle"))
        }),
        with("floor-above-itself", "SecurityFloorInvalid", "Its security floor is above its number.", |m| {
            m["security_floor"] = 2.into()
        }),
        with("another-device", "NotForThisDevice", "For another device.", |m| m["target"] = sound::others()),
        with("no-device", "TargetEmpty", "For no device.", |m| m["target"] = json!({"devices": []})),
        with("another-deployment", "WrongDeployment", "For another deployment.", |m| m["deployment"] = "quay".into()),
        with("another-epoch", "EpochMismatch", "Of another epoch.", |m| m["epoch"] = 2.into()),
        with("a-later-root", "RootTooOld", "Made for a root that the device does not have.", |m| {
            m["root_version"] = 3.into()
        }),
        table("no-package", "EntryCount", "No package.", Vec::clear),
        table("four-packages", "EntryCount", "More packages than architectures.", |entries| {
            entries.push(entries[0].clone())
        }),
        table("a-package-twice", "EntryDuplicate", "Two packages for one architecture.", |entries| {
            entries[1] = entries[0].clone()
        }),
        table(
            "another-architecture",
            "EntryKindUnknown",
            "A package for an architecture that there is not.",
            |entries| entries[0]["kind"] = "vax".into(),
        ),
        table("with-routes", "EntryNotAllowed", "Routes in a release.", |entries| entries[0]["kind"] = "routes".into()),
        case("a-package-in-a-policy", "EntryNotAllowed", "A package in a policy.", {
            in_a_policy(|m| m["entries"][0]["kind"] = "arm64".into())
        }),
    ]
}
