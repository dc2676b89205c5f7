//! Steps 8 to 11: the one form of a manifest, and for whom and when it is; `schema` is about its members.

use serde_json::{Value, json};

use super::sound::{self, SEQ};
use super::{CANDIDATE, Folder, folder, refused};

/// The next policy with the text of its manifest edited, soundly signed.
fn edited(from: &str, to: &str) -> Vec<u8> {
    let next = sound::next();
    let text = next.text();
    assert!(text.contains(from), "{from}");
    next.saying(text.replacen(from, to, 1)).signed(&sound::POLICY)
}

fn saying(text: impl Into<Vec<u8>>) -> Vec<u8> {
    sound::next().saying(text).signed(&sound::POLICY)
}

fn case(slug: &str, name: &str, about: &str, bytes: Vec<u8>) -> Folder {
    refused("manifest", slug, name, about, bytes)
}

fn with(slug: &str, name: &str, about: &str, change: impl FnOnce(&mut Value)) -> Folder {
    case(slug, name, about, sound::with_manifest(change))
}

fn canonical() -> Vec<Folder> {
    let case = |slug: &str, about: &str, bytes| case(slug, "ManifestNotCanonical", about, bytes);
    let text = sound::next().text();
    vec![
        case("space-after", "A space after the document.", saying(format!("{text} "))),
        case("space-inside", "A space between two members.", edited(",\"epoch\"", ", \"epoch\"")),
        case("line-feed-after", "A line feed after the document.", saying(format!("{text}\n"))),
        case("byte-order-mark", "A byte order mark before it.", saying(format!("\u{feff}{text}"))),
        case("two-documents", "The document twice.", saying(text.repeat(2))),
        case("member-twice", "The epoch twice, with two values.", edited("{", "{\"epoch\":9,")),
        case(
            "member-twice-alike",
            "The epoch twice, with one value.",
            edited("\"epoch\":1", "\"epoch\":1,\"epoch\":1"),
        ),
        case(
            "member-twice-escaped",
            "The epoch twice, once with an escaped letter.",
            edited("\"epoch\":1", "\"epoch\":1,\"\\u0065poch\":9"),
        ),
        case(
            "members-unsorted",
            "Two members in the wrong order.",
            edited("\"epoch\":1,\"issued_at\":1795565800", "\"issued_at\":1795565800,\"epoch\":1"),
        ),
        case("fraction", "A number with a fraction of nothing.", edited("\"seq\":11", "\"seq\":11.0")),
        case("exponent", "A number with an exponent.", edited("\"seq\":11", "\"seq\":1e3")),
        case("minus-zero", "Minus zero.", edited("\"seq\":11", "\"seq\":-0")),
        case("leading-zero", "A number with a leading zero.", edited("\"seq\":11", "\"seq\":011")),
        case(
            "integer-over-2-53",
            "2^53 + 1, which many readers take for 2^53.",
            edited("\"seq\":11", "\"seq\":9007199254740993"),
        ),
        case("integer-over-2-64", "2^64, which does not fit.", edited("\"seq\":11", "\"seq\":18446744073709551616")),
        case("null", "A member of null.", edited("\"seq\":11", "\"seq\":null")),
        case(
            "null-for-absent",
            "A member that may be absent, in its place, of null.",
            edited("\"deployment\"", "\"base\":null,\"deployment\""),
        ),
        case("escape-needless", "A letter as an escape.", edited("Ada", "\\u0041da")),
        case("escape-solidus", "An escaped solidus.", edited("next", "ne\\/xt")),
        case("escape-in-capitals", "A control character as an escape in capitals.", edited("Ada", "Ada\\u001F")),
        case("lone-surrogate", "Half of a surrogate pair.", edited("Ada", "\\ud800")),
        case("key-not-ascii", "A key that is not ASCII.", edited("{", "{\"\u{e9}poch\":1,")),
        case("not-utf-8", "A byte that is no UTF-8.", {
            let mut bytes = text.clone().into_bytes();
            let at = text.find("Ada").expect("the author");
            bytes[at] = 0xff;
            saying(bytes)
        }),
        case("not-json", "A word.", saying("hello")),
        case("deep-nesting", "Ten thousand open brackets.", saying("[".repeat(10_000))),
        case("comment", "A comment.", edited("{", "/* */{")),
        case("trailing-comma", "A comma before the end.", saying(format!("{},}}", &text[..text.len() - 1]))),
    ]
}

pub fn cases() -> Vec<Folder> {
    let mut cases = canonical();
    cases.extend([
        with("type-permit", "TypeMismatch", "A policy that says that it is a permit.", |m| m["type"] = "permit".into()),
        with("type-unknown", "TypeMismatch", "A policy that says that it is something else.", |m| {
            m["type"] = "firmware".into()
        }),
        with("made-too-far-ahead", "IssuedAtImplausible", "Made in 9999: it would close every token.", |m| {
            m["issued_at"] = sound::LAST.into()
        }),
        with("other-deployment", "WrongDeployment", "For another deployment, by this one's keys.", |m| {
            m["deployment"] = "quay".into()
        }),
        with("later-epoch", "EpochMismatch", "Of a later epoch than the root's.", |m| m["epoch"] = 2.into()),
        with("earlier-epoch", "EpochMismatch", "Of an earlier epoch than the root's.", |m| m["epoch"] = 0.into()),
        with("target-no-devices", "TargetEmpty", "For devices, and none.", |m| m["target"] = json!({"devices": []})),
        with("target-no-labels", "TargetEmpty", "For labels, and none: all devices would match.", |m| {
            m["target"] = json!({"labels": {}})
        }),
        with("target-label-without-values", "TargetEmpty", "For a label of no value.", |m| {
            m["target"] = json!({"labels": {"site": []}})
        }),
        with("target-one-label-without-values", "TargetEmpty", "For a label that fits, and one of no value.", |m| {
            m["target"] = json!({"labels": {"hall": [], "site": ["pier"]}})
        }),
        with("target-not-all", "TargetEmpty", "For all: false.", |m| m["target"] = json!({"all": false})),
        with("target-nothing", "TargetEmpty", "For nobody named.", |m| m["target"] = json!({})),
        with("another-device", "NotForThisDevice", "For another device.", |m| m["target"] = sound::others()),
        with("another-site", "NotForThisDevice", "For another value of the device's label.", |m| {
            m["target"] = json!({"labels": {"site": ["quay"]}})
        }),
        with("label-it-lacks", "NotForThisDevice", "For a label that the device lacks.", |m| {
            m["target"] = json!({"labels": {"hall": ["1"]}})
        }),
        with("one-label-of-two", "NotForThisDevice", "For two labels, of which the device has one.", |m| {
            m["target"] = json!({"labels": {"hall": ["1"], "site": ["pier"]}})
        }),
        with("label-in-capitals", "NotForThisDevice", "For the device's label in other letters.", |m| {
            m["target"] = json!({"labels": {"site": ["Pier"]}})
        }),
        with("label-prefix", "NotForThisDevice", "For a value that begins like the device's.", |m| {
            m["target"] = json!({"labels": {"site": ["pie", "pier2", "pier "]}})
        }),
        with(
            "unknown-feature",
            "UnsupportedRequirement",
            "It requires a feature that there is not: what it means cannot be known.",
            |m| m["requires"] = json!(["teleport"]),
        ),
        with("base-that-does-not-serve", "DeltaBaseMismatch", "It was made to follow another bundle.", |m| {
            m["base"] = "ab".repeat(32).into()
        }),
        with("base-itself", "DeltaBaseMismatch", "It was made to follow one of the digest of nothing.", |m| {
            m["base"] = "00".repeat(32).into()
        }),
        with("expired", "Expired", "It expired in 1970.", |m| m["expires_at"] = 1.into()),
        with(
            "expired-when-made",
            "Expired",
            "It expires in the second in which it was made, days after all others.",
            |m| {
                (m["issued_at"], m["expires_at"]) =
                    ((sound::MADE_AT + 1_000_000).into(), (sound::MADE_AT + 1_000_000).into());
            },
        )
        .with(|offer| offer.floor = Some(sound::MADE_AT + 1_000_000)),
        with(
            "later-and-foreign",
            "WrongDeployment",
            "For another deployment, and made days later: it must not move the time.",
            |m| {
                (m["issued_at"], m["deployment"]) = ((sound::MADE_AT + 1_000_000).into(), "quay".into());
            },
        ),
        with(
            "later-and-for-another-device",
            "NotForThisDevice",
            "For another device, and made days later: the threshold vouches for the time.",
            |m| {
                (m["issued_at"], m["target"]) = ((sound::MADE_AT + 1_000_000).into(), sound::others());
            },
        )
        .with(|offer| offer.floor = Some(sound::MADE_AT + 1_000_000)),
    ]);
    cases.push({
        let about = "A bundle that follows the golden one comes after another did.";
        let golden = sound::digest(&sound::golden());
        let late = sound::next().changed(|m| (m["seq"], m["base"]) = ((SEQ + 2).into(), json!(golden)));
        let next = sound::policy(SEQ + 1, "next");
        folder("manifest", "base-that-served", about).before("next.tgb", next).offer(
            CANDIDATE,
            "DeltaBaseMismatch",
            late.signed(&sound::POLICY),
        )
    });
    cases
}
