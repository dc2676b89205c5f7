//! Steps 1 to 11: forms at their limits, signatures by more than are needed, targets that name the device.

use serde_json::{Value, json};
use tidegate::bundle::container::{MAX_MANIFEST, MAX_SIGNATURES, Signature};

use super::super::p256::Form;
use super::super::sound::{self, FLOOR, LAST, LATE, MADE_AT, POLICY, SEQ};
use super::super::{CANDIDATE, Folder, documents, folder, refused};
use super::taken;

fn with(slug: &str, about: &str, change: impl FnOnce(&mut Value)) -> Folder {
    taken(slug, about, sound::with_manifest(change))
}

fn forms() -> Vec<Folder> {
    vec![
        with("texts-of-256", "Who, tool and reason of 256 bytes, which are 128 letters.", |m| {
            m["author"] = json!({"reason": "é".repeat(128), "tool": "ß".repeat(128), "who": "ñ".repeat(128)});
        }),
        with("texts-of-nothing", "An author who says nothing.", |m| {
            m["author"] = json!({"reason": "", "tool": "", "who": ""})
        }),
        with("texts-escaped", "Texts with quotes, a backslash, a solidus, and letters beyond 16 bits.", |m| {
            m["author"]["reason"] = "\"a\\b\"/c \u{2028}\u{a0} \u{1f30a}".into();
        }),
        with("number-of-2-53", "The largest number that there can be.", |m| m["seq"] = (1_u64 << 53).into()),
        with("earlier-root", "It needs root version 0, which is older than any.", |m| m["root_version"] = 0.into()),
        with("made-in-1970", "Made in the first second of 1970, as by a machine without a clock.", |m| {
            m["issued_at"] = 0.into()
        }),
        with("expires-in-3000", "It expires in the year 3000.", |m| m["expires_at"] = LATE.into()),
        with("expires-in-9999", "It expires in the last second of 9999.", |m| m["expires_at"] = LAST.into()),
        with("entry-names-of-64", "Entries of names of 64 letters, which are not those of their kinds.", |m| {
            for entry in m["entries"].as_array_mut().expect("a list") {
                entry["name"] = format!("0{}", ".".repeat(63)).into();
            }
        }),
        refused(
            "schema",
            "requires-16",
            "UnsupportedRequirement",
            "As many features as may be required, none of which there is: the form is right.",
            sound::with_manifest(|m| {
                m["requires"] = (0..16).map(|n| format!("{n:x}{}", "-".repeat(63))).collect();
            }),
        ),
        with("for-1024-devices", "For 1024 devices, in no order, this one among them.", |m| {
            let others = (1..1_024).rev().map(|n| format!("{n:032x}"));
            m["target"] = json!({"devices": others.chain([sound::device().id.to_string()]).collect::<Vec<_>>()});
        }),
        with("for-this-device", "For this device alone.", |m| m["target"] = json!({"devices": [sound::device().id]})),
        with("for-its-label", "For two sites, in no order, the second of which is the device's.", |m| {
            m["target"] = json!({"labels": {"site": ["quay", "pier"]}});
        }),
        with(
            "for-256-values",
            "For a label of 256 values, one of which is of 256 bytes and another the device's.",
            |m| {
                let values = (0..254).map(|n| n.to_string()).chain(["x".repeat(256), "pier".into()]);
                m["target"] = json!({"labels": {"site": values.collect::<Vec<_>>()}});
            },
        ),
    ]
}

/// The entries of a device of sixteen labels, whose keys are as long as may be.
fn sixteen() -> Vec<(String, String)> {
    (0..16).map(|n| (format!("{n:x}{}", "_".repeat(63)), "v".repeat(256))).collect()
}

/// For a device of those labels, with other values beside its own.
fn for_sixteen(others: impl Fn(usize) -> Vec<String>) -> Value {
    let row = |(n, (key, value)): (usize, (String, String))| (key, [others(n), vec![value]].concat().into());
    json!({"labels": sixteen().into_iter().enumerate().map(row).collect::<serde_json::Map<_, _>>()})
}

/// Values that make a manifest longer by so many bytes, each with two quotes and a comma.
fn values(mut missing: usize) -> Vec<String> {
    let mut values = Vec::new();
    while missing > 0 {
        let length = if missing > 259 { (missing - 103).min(256) } else { missing - 3 };
        values.push(format!("{:0>length$}", values.len()));
        missing -= length + 3;
    }
    values
}

fn largest() -> Vec<Folder> {
    let enrolled = |slug: &str, about: &str| {
        let labels: serde_json::Map<_, _> = sixteen().into_iter().map(|(key, value)| (key, value.into())).collect();
        folder("taken", slug, about).before("enrolment.tgd", documents::labelled(labels.into()))
    };
    let for_all = |others: &[String]| {
        let part = |n: usize| others.iter().skip(n).step_by(16).cloned().collect();
        sound::next().changed(|m| m["target"] = for_sixteen(part))
    };
    let filled = for_all(&values(MAX_MANIFEST as usize - for_all(&[]).manifest.len()));
    assert_eq!(filled.manifest.len(), MAX_MANIFEST as usize);
    vec![
        enrolled("sixteen-labels", "A device of sixteen labels of 64 and 256 bytes; a policy for all sixteen.").offer(
            CANDIDATE,
            "Activated",
            for_all(&[]).signed(&POLICY),
        ),
        enrolled("manifest-of-131072", "A manifest of as many bytes as it may have.").offer(
            CANDIDATE,
            "Activated",
            filled.signed(&POLICY),
        ),
    ]
}

fn signers() -> Vec<Folder> {
    let next = sound::next();
    let strangers = |n: u8| (0..n).map(|at| next.signature(40 + at));
    let garbage = Signature { bytes: [0; 64], ..next.signature(40) };
    vec![
        taken("three-of-three", "By all three holders, of whom two are enough.", next.signed(&[4, 5, 6])),
        taken("two-others-of-three", "By the first and the third of three holders.", next.signed(&[4, 6])),
        taken(
            "with-strangers",
            "By two holders, and as many strangers as fill the block: none of them counts, and none harms.",
            next.with(
                &strangers(MAX_SIGNATURES - 2).chain([4, 5].map(|seed| next.signature(seed))).collect::<Vec<_>>(),
            ),
        ),
        taken(
            "with-another-role",
            "By two holders, and by the one of the roles revocation, permit and release.",
            next.signed(&[4, 5, 7]),
        ),
        taken(
            "with-a-strangers-garbage",
            "By two holders; a key that the root does not name stands over 64 zeros.",
            next.with(&[next.signature(4), next.signature(5), garbage]),
        ),
        taken(
            "with-a-strangers-p-256",
            "By two holders, and by a key on P-256 that the root does not name.",
            next.with(&[next.signature(4), next.signature(5), next.signature_of_p256(1, Form::Low)]),
        ),
    ]
}

fn in_order() -> Vec<Folder> {
    let base = |seq: u64, base: Vec<u8>| {
        let base = sound::digest(&base);
        sound::next().changed(|m| (m["seq"], m["base"]) = (seq.into(), json!(base))).signed(&POLICY)
    };
    vec![
        taken("base-that-serves", "It was made to follow the bundle that serves.", base(SEQ + 1, sound::golden())),
        folder("taken", "base-that-serves-now", "It was made to follow the next bundle, which came before it.")
            .before("next.tgb", sound::policy(SEQ + 1, "next"))
            .offer(CANDIDATE, "Activated", base(SEQ + 2, sound::policy(SEQ + 1, "next"))),
        with("later-made", "It was made days after all others: it says that it is at least so late.", |m| {
            m["issued_at"] = (MADE_AT + 1_000_000).into()
        })
        .from(MADE_AT + 1_000_000),
        with("floor-stays", "A security floor that is the device's.", |m| m["security_floor"] = FLOOR.into())
            .again(CANDIDATE, "AlreadyInstalled"),
    ]
}

pub fn cases() -> Vec<Folder> {
    [forms(), largest(), signers(), in_order()].concat()
}
