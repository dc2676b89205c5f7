//! Time resets: what must not pass for the root's word on the time.

use serde_json::{Value, json};
use tidegate::bundle::canonical;
use tidegate::bundle::container::Signature;
use tidegate::bundle::reset::MEDIA_TYPE;
use tidegate::ids::DeviceId;

use super::sound::{self, LAST, ROOTS};
use super::{Folder, folder, refused};
use crate::time::{laid, signed_as};
use crate::world::key;

/// What the resets of most cases set the time to.
pub const AT: i64 = 1_000;

/// Sets the time to 1970 where it is later: every device takes it, and keeps its program's build time.
pub fn value(seq: u64) -> Value {
    json!({
        "at": AT,
        "author": {"reason": "the clock at the desk was wrong", "tool": "tests", "who": "Ada"},
        "deployment": "harbour",
        "epoch": 1,
        "seq": seq,
        "target": {"devices": [sound::device().id]},
        "type": "time-reset",
        "undoes": 2_000,
    })
}

fn document(seq: u64) -> Vec<u8> {
    canonical::write(&value(seq)).expect("canonical")
}

pub fn reset(seq: u64) -> Vec<u8> {
    signed_as(MEDIA_TYPE, &document(seq), &ROOTS)
}

fn case(slug: &str, name: &str, about: &str, bytes: Vec<u8>) -> Folder {
    refused("time-reset", slug, name, about, bytes)
}

fn with(slug: &str, name: &str, about: &str, change: impl FnOnce(&mut Value)) -> Folder {
    let mut value = value(1);
    change(&mut value);
    case(slug, name, about, signed_as(MEDIA_TYPE, &canonical::write(&value).expect("canonical"), &ROOTS))
}

fn by(slug: &str, about: &str, seeds: &[u8]) -> Folder {
    case(slug, "ThresholdNotMet", about, signed_as(MEDIA_TYPE, &document(1), seeds))
}

pub fn cases() -> Vec<Folder> {
    let good = || reset(1);
    let edited = |at: usize, bytes: &[u8]| {
        let mut file = good();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    let one = Signature { key: key(1).public().id(), bytes: key(1).sign(MEDIA_TYPE, &document(1)) };
    let mut twice = laid(&document(1), &[one]);
    let at = twice.len() - 97;
    let signature = twice[at + 1..].to_vec();
    twice[at] = 2;
    twice.extend(signature);
    let root = tidegate::bundle::root::MEDIA_TYPE;
    vec![
        by("by-nobody", "Signed by nobody.", &[]),
        by("by-one-of-two", "By one holder of the role root.", &[1]),
        by("by-the-policy-role", "By the policy role, which raises the time and never lowers it.", &[4, 5]),
        by("by-one-and-others", "By one holder of the role root and those of other roles.", &[2, 4, 5, 6, 7]),
        case("by-one-key-twice", "SignersNotAscending", "One holder as two.", twice),
        case(
            "signed-as-a-root",
            "SignatureInvalid",
            "Signed over the media type of a root.",
            signed_as(root, &document(1), &ROOTS),
        ),
        case("altered", "SignatureInvalid", "A digit of the time was altered on the way.", {
            let text = String::from_utf8_lossy(&document(1)).replace("\"at\":1000", "\"at\":1001");
            [&good()[..14], text.as_bytes(), &good()[14 + text.len()..]].concat()
        }),
        with("other-deployment", "WrongDeployment", "For another deployment.", |v| v["deployment"] = "pier".into()),
        with("earlier-epoch", "EpochMismatch", "Of the epoch before.", |v| v["epoch"] = 0.into()),
        with("later-epoch", "EpochMismatch", "Of a later epoch.", |v| v["epoch"] = 2.into()),
        with("another-device", "NotForThisDevice", "For another device.", |v| {
            v["target"] = json!({"devices": [DeviceId([8; 16])]})
        }),
        with("another-site", "NotForThisDevice", "For another site.", |v| {
            v["target"] = json!({"labels": {"site": ["quay"]}})
        }),
        with("no-device", "TargetEmpty", "For no device.", |v| v["target"] = json!({})),
        with(
            "not-needed",
            "ResetNotApplicable",
            "It takes back a time of 9999, which the device never believed.",
            |v| v["undoes"] = LAST.into(),
        ),
        with("forwards", "ResetNotApplicable", "It would set the time forward by thousands of years.", |v| {
            (v["at"], v["undoes"]) = ((LAST - 1).into(), LAST.into())
        }),
        with("before-1970", "ManifestSchema", "To a time before 1970.", |v| v["at"] = (-1).into()),
        with("after-9999", "ManifestSchema", "To a time after 9999.", |v| {
            (v["at"], v["undoes"]) = ((LAST + 1).into(), (LAST + 2).into())
        }),
        with("number-0", "ManifestSchema", "Number 0; the first is 1.", |v| v["seq"] = 0.into()),
        with("takes-nothing-back", "ManifestSchema", "It takes back the time that it sets.", |v| {
            v["undoes"] = v["at"].clone()
        }),
        with("without-undoes", "ManifestSchema", "It does not say what it takes back.", |v| {
            drop(v.as_object_mut().expect("members").remove("undoes"))
        }),
        with("without-at", "ManifestSchema", "It does not say what time it is.", |v| {
            drop(v.as_object_mut().expect("members").remove("at"))
        }),
        with("member-more", "ManifestSchema", "A member that no reset has.", |v| v["more"] = 1.into()),
        with("says-policy", "TypeMismatch", "It says that it is a policy.", |v| v["type"] = "policy".into()),
        case(
            "space",
            "ManifestNotCanonical",
            "A space in the document, signed.",
            signed_as(MEDIA_TYPE, b"{\"at\": 1}", &ROOTS),
        ),
        case("format-2", "UnsupportedFormat", "A format of the future.", edited(8, &[0, 2])),
        case("document-of-0", "SectionTooLarge", "No document.", edited(10, &[0, 0, 0, 0])),
        case("document-over", "SectionTooLarge", "A document one byte over its limit.", edited(10, &[0, 1, 0, 1])),
        case("longer-than-any", "SectionTooLarge", "A file longer than any reset.", [good(), vec![0; 80_000]].concat()),
        case("byte-more", "TrailingData", "A byte after the end.", [good(), vec![0]].concat()),
        case("magic-converted", "BadMagic", "A text-mode copy.", [&good()[..4], b"\n", &good()[6..]].concat()),
        case("seventeen-signatures", "SigSectionMalformed", "Seventeen signatures.", {
            let mut file = laid(&document(1), &[]);
            *file.last_mut().expect("the count") = 17;
            [file, vec![7; 96 * 17]].concat()
        }),
        case("signatures-descending", "SignersNotAscending", "Two signatures in the wrong order.", {
            let good = good();
            let (before, signatures) = good.split_at(good.len() - 192);
            [before, &signatures[96..], &signatures[..96]].concat()
        }),
        with(
            "reason-control-character",
            "ManifestSchema",
            "A reason that moves the cursor of whoever reads it.",
            |v| v["author"]["reason"] = "\u{1b}[2J".into(),
        ),
        case("as-a-bundle", "SectionTooLarge", "A reset under the magic of a bundle.", {
            let mut file = edited(3, b"B");
            file[10..12].copy_from_slice(&[1, 0]);
            file
        }),
        folder(
            "time-reset",
            "twice",
            "A reset was taken; it comes again, and could wind the clock back at any later day.",
        )
        .before("reset.tgb", reset(3))
        .again("reset.tgb", "Rollback"),
        folder("time-reset", "older-number", "A reset was taken; one of a lower number comes.")
            .before("reset.tgb", reset(3))
            .offer("older.tgb", "Rollback", reset(2)),
        folder("time-reset", "same-number", "A reset was taken; another one of its number comes.")
            .before("reset.tgb", reset(3))
            .offer("other.tgb", "Rollback", {
                let mut other = value(3);
                other["at"] = 1_001.into();
                signed_as(MEDIA_TYPE, &canonical::write(&other).expect("canonical"), &ROOTS)
            }),
    ]
}
