//! Enrolments: which labels a device has, by the policy or the hub role, and in which order.

use serde_json::{Value, json};
use tidegate::bundle::canonical;
use tidegate::bundle::document::{Document, DocumentKind};
use tidegate::bundle::enrolment::Request;
use tidegate::ids::{DeviceId, hex};

use super::sound::{self, POLICY};
use super::{Folder, folder};
use crate::enrolment::framed;
use crate::world::key;

/// The device's own key.
const DEVICE: u8 = 9;
const FILE: &str = "candidate.tgd";

pub fn body(seq: u64, site: &str) -> Value {
    json!({
        "deployment": "harbour",
        "device": sound::device().id,
        "epoch": 1,
        "issued_at": sound::MADE_AT,
        "key": hex(key(DEVICE).public().raw()),
        "labels": {"site": site},
        "root_version": 2,
        "seq": seq,
    })
}

pub fn of(body: &Value, seeds: &[u8]) -> Vec<u8> {
    framed(DocumentKind::Enrolment, &canonical::write(body).expect("canonical"), seeds)
}

/// The enrolment `seq`, by the policy role.
pub fn enrolment(seq: u64, site: &str) -> Vec<u8> {
    of(&body(seq, site), &POLICY)
}

/// The first enrolment, of these labels.
pub fn labelled(labels: Value) -> Vec<u8> {
    let mut body = body(1, "quay");
    body["labels"] = labels;
    of(&body, &POLICY)
}

fn case(slug: &str, name: &str, about: &str, bytes: Vec<u8>) -> Folder {
    folder("enrolment", slug, about).offer(FILE, name, bytes)
}

fn with(slug: &str, name: &str, about: &str, change: impl FnOnce(&mut Value)) -> Folder {
    let mut body = body(1, "quay");
    change(&mut body);
    case(slug, name, about, of(&body, &POLICY))
}

fn schema(slug: &str, about: &str, change: impl FnOnce(&mut Value)) -> Folder {
    with(slug, "ManifestSchema", about, change)
}

/// The body of the hub's enrolment under version 3, which has a hub.
pub fn under_third(seq: u64, site: &str) -> Value {
    let mut body = body(seq, site);
    body["root_version"] = 3.into();
    body
}

/// A device of version 3, which was enrolled by the policy role.
pub fn under_the_policy_role(slug: &str, about: &str) -> Folder {
    let rotated = sound::policy_under(&sound::third(), sound::SEQ + 1, "next", &[14, 15]);
    folder("enrolment", slug, about)
        .before("rotated.tgb", sound::bringing(&rotated, &[sound::to_third()]))
        .before("policy-role.tgd", of(&under_third(5, "quay"), &[14, 15]))
}

/// A device of version 3, which was enrolled by the hub after that.
pub fn enrolled_by_hub(slug: &str, about: &str) -> Folder {
    under_the_policy_role(slug, about).before("hub.tgd", of(&under_third(9, "pier"), &[17]))
}

fn forms() -> Vec<Folder> {
    let sound = enrolment(1, "quay");
    let text = String::from_utf8(sound.clone()).expect("text");
    let raw = |body: &str| framed(DocumentKind::Enrolment, body.as_bytes(), &POLICY);
    let edited = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1).into_bytes()
    };
    let descending = {
        let start = text.find("{\"key\":").expect("signatures");
        let end = text.find("],\"type\"").expect("the type");
        let (first, second) =
            text[start..end].split_once("},{").map(|(a, b)| (format!("{a}}}"), format!("{{{b}"))).expect("two");
        format!("{}{second},{first}{}", &text[..start], &text[end..]).into_bytes()
    };
    vec![
        case("cut-in-the-middle", "Truncated", "Half of it.", sound[..sound.len() / 2].to_vec()),
        case("without-line-feed", "Truncated", "Its last byte is missing.", sound[..sound.len() - 1].to_vec()),
        case("two-line-feeds", "Truncated", "A line feed more at its end.", [&sound[..], b"\n"].concat()),
        case(
            "space-in-a-signature",
            "SigSectionMalformed",
            "A space between a word and its value, outside of what is signed.",
            edited("\"signature\":", "\"signature\" :"),
        ),
        case(
            "signature-in-capitals",
            "SigSectionMalformed",
            "A key id in capitals: another text of the same document.",
            {
                let at = text.find("{\"key\":\"").expect("a signature") + 8;
                format!("{}{}{}", &text[..at], text[at..at + 64].to_uppercase(), &text[at + 64..]).into_bytes()
            },
        ),
        case(
            "no-signatures",
            "SigSectionMalformed",
            "Nobody signed it.",
            framed(DocumentKind::Enrolment, &canonical::write(&body(1, "quay")).expect("canonical"), &[]),
        ),
        case(
            "seventeen-signatures",
            "SigSectionMalformed",
            "Seventeen signatures.",
            of(&body(1, "quay"), &(40..57).collect::<Vec<u8>>()),
        ),
        case("signatures-descending", "SignersNotAscending", "Two signatures in the wrong order.", descending),
        case("version-2", "UnknownBundleType", "A document of a version of the future.", edited("v1+json", "v2+json")),
        case("white-space-before", "BadMagic", "A space before it.", format!(" {text}").into_bytes()),
        case(
            "over-its-limit",
            "SectionTooLarge",
            "A document longer than any.",
            raw(&format!("{{\"a\":\"{}\"}}", "x".repeat(40_000))),
        ),
        case("space-in-its-body", "ManifestNotCanonical", "A space within its body, signed.", raw("{ \"a\":1}")),
        case("not-json", "ManifestNotCanonical", "A body that is not JSON, signed.", raw("quay")),
        case("member-twice", "ManifestNotCanonical", "Its labels twice, with two values, signed.", {
            let body = String::from_utf8(canonical::write(&body(1, "quay")).expect("canonical")).expect("text");
            raw(&body.replacen("\"labels\"", "\"labels\":{\"site\":\"pier\"},\"labels\"", 1))
        }),
    ]
}

fn signers() -> Vec<Folder> {
    let own = key(DEVICE);
    let sound = String::from_utf8(enrolment(1, "quay")).expect("text");
    let request = Request::sign(&own, Default::default(), "board").expect("signed").to_bytes();
    let receipt = Document::sign(DocumentKind::ImportReceipt, &body(1, "quay"), &own).expect("signed").to_bytes();
    let moved = framed(DocumentKind::DeviceRequest, &canonical::write(&body(1, "quay")).expect("canonical"), &POLICY);
    let moved = String::from_utf8(moved).expect("text").replace("device-request", "enrolment").into_bytes();
    vec![
        case("by-one-of-two", "ThresholdNotMet", "By one holder of the policy role.", of(&body(1, "quay"), &[4])),
        case(
            "by-another-role",
            "ThresholdNotMet",
            "By the holder of the roles revocation, permit and release.",
            of(&body(1, "quay"), &[7]),
        ),
        case("by-the-roots-keys", "ThresholdNotMet", "By the role root.", of(&body(1, "quay"), &[1, 2, 3])),
        case(
            "by-the-device",
            "ThresholdNotMet",
            "By the device itself: its labels would be its own choice.",
            of(&body(1, "quay"), &[DEVICE]),
        ),
        case(
            "by-a-later-hub",
            "ThresholdNotMet",
            "By the key that a later root makes the hub's.",
            of(&body(1, "quay"), &[17]),
        ),
        case("a-request", "TypeMismatch", "The device's request in place of its answer.", request),
        case("a-receipt", "TypeMismatch", "A receipt in its place.", receipt),
        case("signed-as-a-request", "SignatureInvalid", "Signatures over the media type of a request.", moved),
        case(
            "another-site",
            "SignatureInvalid",
            "The site was altered on the way.",
            sound.replace("quay", "pier").into_bytes(),
        ),
    ]
}

pub fn cases() -> Vec<Folder> {
    let other = || key(8).public();
    let told = vec![
        schema("something-else", "Another document, signed by the right people.", |b| *b = json!({"a": 1})),
        schema("member-more", "A member that no enrolment has.", |b| b["admin"] = true.into()),
        schema("number-0", "Number 0; the first is 1.", |b| b["seq"] = 0.into()),
        schema("label-in-capitals", "A label that no target names.", |b| b["labels"] = json!({"Site": "quay"})),
        schema("label-empty", "A label of no value.", |b| b["labels"] = json!({"site": ""})),
        schema("label-of-257", "A label's value one byte over its limit.", |b| {
            b["labels"] = json!({"site": "x".repeat(257)})
        }),
        schema("label-control-character", "A label that moves the cursor of whoever reads it.", |b| {
            b["labels"] = json!({"site": "\u{1b}[2J"})
        }),
        schema("label-delete", "A label with the control character DEL.", |b| b["labels"] = json!({"site": "\u{7f}"})),
        schema("label-key-of-65", "A label's key one letter over its limit.", |b| {
            b["labels"] = json!({"s".repeat(65): "x"})
        }),
        schema("labels-17", "Seventeen labels.", |b| {
            b["labels"] =
                (0..17).map(|n| (format!("l{n}"), Value::from("x"))).collect::<serde_json::Map<_, _>>().into();
        }),
        schema("key-short", "A key of 31 bytes.", |b| b["key"] = "ab".repeat(31).into()),
        with("weak-key", "WeakKey", "A key that anybody can sign with.", |b| b["key"] = "00".repeat(32).into()),
        with("other-deployment", "WrongDeployment", "Of another deployment.", |b| b["deployment"] = "airport".into()),
        with("later-root", "RootTooOld", "For a later root.", |b| b["root_version"] = 3.into()),
        with("earlier-epoch", "EpochMismatch", "Of an earlier epoch.", |b| b["epoch"] = 0.into()),
        with("later-epoch", "EpochMismatch", "Of a later epoch.", |b| b["epoch"] = 2.into()),
        with("too-far-ahead", "IssuedAtImplausible", "Made in 9999.", |b| b["issued_at"] = sound::LAST.into()),
        with("another-device", "NotForThisDevice", "For another device.", move |b| {
            b["key"] = hex(other().raw()).into();
            b["device"] = DeviceId::from(other().id()).to_string().into();
        }),
        with("another-devices-key", "NotForThisDevice", "For this device, with another one's key.", move |b| {
            b["key"] = hex(other().raw()).into()
        }),
        with("another-devices-id", "NotForThisDevice", "For another device, with this one's key.", move |b| {
            b["device"] = DeviceId::from(other().id()).to_string().into();
        }),
        folder("enrolment", "rollback", "An older enrolment than the device has.")
            .before("enrolment.tgd", enrolment(7, "quay"))
            .offer(FILE, "EnrolmentRollback", enrolment(6, "pier")),
        folder("enrolment", "equivocation", "Another enrolment of the number that the device has.")
            .before("enrolment.tgd", enrolment(7, "quay"))
            .offer(FILE, "Equivocation", enrolment(7, "pier")),
        under_the_policy_role(
            "hub-first-below",
            "The hub's first enrolment, of a number below that of the policy role's.",
        )
        .offer(FILE, "EnrolmentRollback", of(&under_third(4, "berth"), &[17])),
        under_the_policy_role("hub-first-at", "The hub's first enrolment, of the number of the policy role's.").offer(
            FILE,
            "EnrolmentRollback",
            of(&under_third(5, "berth"), &[17]),
        ),
        enrolled_by_hub("hub-undoes-policy-role", "The hub's enrolment of a number below that of the policy role's.")
            .offer(FILE, "EnrolmentRollback", of(&under_third(4, "berth"), &[17])),
        enrolled_by_hub("hub-equivocates", "A second enrolment of the hub's of one number.").offer(
            FILE,
            "Equivocation",
            of(&under_third(9, "berth"), &[17]),
        ),
        enrolled_by_hub("hub-too-far-ahead", "The hub's enrolment of the year 9999.").offer(
            FILE,
            "IssuedAtImplausible",
            {
                let mut body = under_third(10, "berth");
                body["issued_at"] = sound::LAST.into();
                of(&body, &[17])
            },
        ),
        enrolled_by_hub("policy-roles-again", "What the policy role said before the hub spoke.")
            .again("policy-role.tgd", "EnrolmentRollback"),
    ];
    [forms(), signers(), told].concat()
}
