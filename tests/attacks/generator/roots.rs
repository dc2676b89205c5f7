//! Step 6: the form of the chain of roots that a bundle brings, and whether its roots are sound in themselves.

use serde_json::{Value, json};
use tidegate::bundle::canonical;
use tidegate::bundle::container::{BundleType, MAX_CHAIN};
use tidegate::bundle::pack::lay;
use tidegate::bundle::root::{RootDocument, RootDraft};
use tidegate::ids::hex;

use super::{Folder, refused, sound};
use crate::world::key;

/// A chain of these documents, unsigned: the length, the document, no signatures.
fn chain(documents: &[&[u8]]) -> Vec<u8> {
    let link = |document: &&[u8]| {
        let length = u32::try_from(document.len()).expect("short").to_be_bytes();
        [&length[..], document, &[0]].concat()
    };
    documents.iter().flat_map(link).collect()
}

/// The next bundle, which brings `trust`.
fn bringing(trust: &[u8]) -> Vec<u8> {
    let next = sound::next();
    let signatures = crate::world::ascending(sound::POLICY.map(|seed| next.signature(seed)).into());
    lay(BundleType::Policy, trust, &next.manifest, &signatures, &next.payload).expect("fits")
}

fn document(change: impl FnOnce(&mut RootDraft)) -> Vec<u8> {
    sound::root_with(change).bytes().to_vec()
}

/// The device's own root with its JSON changed past what a draft allows.
fn edited(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut value = canonical::read(sound::root().bytes()).expect("canonical");
    change(&mut value);
    canonical::write(&value).expect("canonical")
}

fn text_edited(from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8(sound::root().bytes().to_vec()).expect("text");
    assert!(text.contains(from), "{from}");
    text.replacen(from, to, 1).into_bytes()
}

/// Sound links from the device's root on, each root like the one before it.
pub fn long_chain(links: usize) -> Vec<Vec<u8>> {
    let root = |version| -> RootDocument { sound::root_with(|draft| draft.version = version) };
    (2..).take(links).map(|version| sound::link(&root(version), &sound::ROOTS)).collect()
}

/// Seventeen keys of the policy role, all of which must sign.
fn seventeen_of_seventeen(root: &mut Value) {
    let public = |seed| hex(key(seed).public().raw());
    root["keys"] = (1..=17).map(|n| json!({"alg": "ed25519", "name": n.to_string(), "public": public(n)})).collect();
    root["roles"]["policy"] = json!({"keys": (0..17).collect::<Vec<_>>(), "threshold": 17});
}

/// The eight points of small order have these y coordinates (and their encodings of y + p), with either sign of x.
const SMALL_ORDER: [(&str, &str); 6] = [
    ("order-4", "0000000000000000000000000000000000000000000000000000000000000000"),
    ("order-1", "0100000000000000000000000000000000000000000000000000000000000000"),
    ("order-2", "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    ("order-8", "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    ("order-8-other-sign", "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"),
    ("order-1-not-canonical", "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"),
];

fn case(slug: &str, name: &str, about: &str, trust: Vec<u8>) -> Folder {
    refused("roots", slug, name, about, bringing(&trust))
}

fn schema() -> Vec<Folder> {
    let edit =
        |slug: &str, about: &str, change: fn(&mut Value)| case(slug, "RootSchema", about, chain(&[&edited(change)]));
    let mine = sound::root().bytes().to_vec();
    vec![
        case("not-json", "RootSchema", "A document that is not JSON.", chain(&[b"{"])),
        case(
            "white-space",
            "RootSchema",
            "The device's own root with a space after it.",
            chain(&[&[&mine[..], b" "].concat()]),
        ),
        case(
            "member-twice",
            "RootSchema",
            "The epoch twice, with two values.",
            chain(&[&text_edited("{\"deployment\"", "{\"epoch\":9,\"deployment\"")]),
        ),
        case(
            "fraction",
            "RootSchema",
            "Version 2.0 in place of 2.",
            chain(&[&text_edited("\"version\":2", "\"version\":2.0")]),
        ),
        edit("unknown-member", "A member that no root has.", |v| v["extra"] = 1.into()),
        edit("another-type", "It says that it is a policy.", |v| v["type"] = "policy".into()),
        edit("unknown-role", "A role that there is not.", |v| v["roles"]["king"] = v["roles"]["root"].clone()),
        edit("unknown-algorithm", "A key of an algorithm that there is not.", |v| v["keys"][0]["alg"] = "rsa".into()),
        edit("key-not-hex", "A key that is not hex.", |v| v["keys"][0]["public"] = "zz".repeat(32).into()),
        edit("key-in-capitals", "A key in capitals: the same key, written otherwise.", |v| {
            let capitals = v["keys"][0]["public"].as_str().expect("hex").to_uppercase();
            v["keys"][0]["public"] = capitals.into();
        }),
        edit("key-short", "A key of 31 bytes.", |v| v["keys"][0]["public"] = "ab".repeat(31).into()),
        edit("ed25519-as-ecdsa", "An Ed25519 key that is said to be one for ECDSA.", |v| {
            v["keys"][0]["alg"] = "ecdsa-p256".into()
        }),
        edit("negative-threshold", "A threshold below 0.", |v| v["roles"]["policy"]["threshold"] = (-1).into()),
        edit("negative-epoch", "An epoch below 0.", |v| v["epoch"] = (-1).into()),
    ]
}

fn unsound() -> Vec<Folder> {
    let edit =
        |slug: &str, about: &str, change: fn(&mut Value)| case(slug, "RootInvalid", about, chain(&[&edited(change)]));
    let mut cases = vec![
        edit("key-twice", "One key as two: one person would be two of a threshold.", |v| {
            v["keys"][1]["public"] = v["keys"][0]["public"].clone()
        }),
        edit("threshold-of-0", "A policy by nobody.", |v| v["roles"]["policy"]["threshold"] = 0.into()),
        edit("threshold-over-keys", "Four signatures of three keys.", |v| v["roles"]["policy"]["threshold"] = 4.into()),
        edit("threshold-over-block", "Seventeen signatures: more than a block holds.", seventeen_of_seventeen),
        edit("index-twice", "One key twice in a role.", |v| v["roles"]["policy"]["keys"] = json!([3, 3])),
        edit("index-descending", "The keys of a role in the wrong order.", |v| {
            v["roles"]["policy"]["keys"] = json!([4, 3])
        }),
        edit("index-past-end", "A key that is not there.", |v| v["roles"]["policy"]["keys"] = json!([3, 7])),
        edit("role-without-keys", "A role of no keys, with a threshold of 0.", |v| {
            v["roles"]["policy"] = json!({"keys": [], "threshold": 0})
        }),
        edit("nobody-for-root", "A root that no later root can follow.", |v| {
            drop(v["roles"].as_object_mut().expect("roles").remove("root"))
        }),
        edit("nobody-for-policy", "A root under which there is no policy.", |v| {
            drop(v["roles"].as_object_mut().expect("roles").remove("policy"))
        }),
        edit("no-keys", "A root of no keys.", |v| v["keys"] = json!([])),
        edit("sixty-five-keys", "More keys than a root has.", |v| {
            let public = |seed| hex(key(seed).public().raw());
            v["keys"] =
                (1..=65).map(|n| json!({"alg": "ed25519", "name": n.to_string(), "public": public(n)})).collect();
        }),
        edit("control-character", "A holder's name that moves the cursor of whoever reads it.", |v| {
            v["keys"][0]["name"] = "\u{1b}[2J".into()
        }),
        edit("name-of-65", "A holder's name one letter over its limit.", |v| {
            v["keys"][0]["name"] = "k".repeat(65).into()
        }),
        edit("name-empty", "A holder without a name.", |v| v["keys"][0]["name"] = "".into()),
        edit("name-delete", "A holder's name with the control character DEL.", |v| {
            v["keys"][0]["name"] = "k\u{7f}".into()
        }),
        edit("deployment-path", "A deployment that is a path.", |v| v["deployment"] = "../harbour".into()),
        edit("version-0", "A version before the first.", |v| v["version"] = 0.into()),
        edit("before-1970", "Made before 1970.", |v| v["issued_at"] = (-1).into()),
        edit("after-9999", "Made after 9999.", |v| v["issued_at"] = (sound::LAST + 1).into()),
        edit("ecdsa-compressed", "A P-256 key in the compressed form, which has another id for the same key.", |v| {
            v["keys"][0] = json!({"alg": "ecdsa-p256", "name": "k", "public": format!("03{}", "ab".repeat(64))});
        }),
    ];
    cases.extend(SMALL_ORDER.map(|(slug, public)| {
        let about = "A point of small order: anybody can sign for it.";
        case(
            &format!("weak-{slug}"),
            "RootInvalid",
            about,
            chain(&[&edited(|v| v["keys"][0]["public"] = public.into())]),
        )
    }));
    cases
}

pub fn cases() -> Vec<Folder> {
    let mine = sound::root().bytes().to_vec();
    let version = |version| document(|draft| draft.version = version);
    let mut cut = chain(&[&mine]);
    cut.truncate(cut.len() - 20);
    let form = vec![
        case(
            "fork",
            "RootFork",
            "Another root of the device's version, sound in itself.",
            chain(&[&document(|draft| draft.issued_at += 1)]),
        ),
        case("fork-signed", "RootFork", "Another root of the device's version, signed by the threshold.", {
            sound::link(&sound::root_with(|draft| draft.issued_at += 1), &sound::ROOTS)
        }),
        case("gap", "RootGap", "A root two versions on.", chain(&[&version(4)])),
        case(
            "hole",
            "RootGap",
            "A chain with a hole, before and after the device's version.",
            chain(&[&version(1), &version(3)]),
        ),
        case("backwards", "RootGap", "A chain that goes backwards.", chain(&[&mine, &version(1)])),
        case("same-twice", "RootGap", "The device's own root twice.", chain(&[&mine, &mine])),
        case("version-of-2-53", "RootGap", "The largest version that there can be.", chain(&[&version(1 << 53)])),
        case("unsigned", "RootThresholdOld", "The next root, signed by nobody.", chain(&[&mine, &version(3)])),
        case(
            "other-deployment",
            "RootWrongDeployment",
            "The root of another deployment, with the same keys.",
            chain(&[sound::other_deployment().bytes()]),
        ),
        case(
            "earlier-epoch",
            "RootEpochRegression",
            "A later root of an earlier epoch.",
            chain(&[&document(|draft| (draft.version, draft.epoch) = (3, 0))]),
        ),
        case("cut-off", "RootChainMalformed", "A document that ends outside the section.", cut),
        case("document-of-0", "RootChainMalformed", "A document of no bytes.", vec![0, 0, 0, 0, 0]),
        case("document-of-4-gib", "RootChainMalformed", "A document of 4 GiB.", [&[0xff; 4][..], &mine].concat()),
        case("document-over", "RootChainMalformed", "A document one byte over its limit.", chain(&[&[b' '; 16_385]])),
        case("length-cut", "RootChainMalformed", "A chain of three bytes: not even a length.", vec![0, 0, 1]),
        case(
            "no-signature-block",
            "RootChainMalformed",
            "A document, and nothing behind it.",
            chain(&[&mine])[..mine.len() + 4].to_vec(),
        ),
        case(
            "missing-signatures",
            "RootChainMalformed",
            "Three signatures that are not there.",
            [&chain(&[&mine])[..mine.len() + 4], &[3]].concat(),
        ),
        case(
            "seventeen-signatures",
            "RootChainMalformed",
            "A link with seventeen signatures.",
            [&chain(&[&mine])[..mine.len() + 4], &[17], &[7; 96 * 17]].concat(),
        ),
        case(
            "sixty-five-documents",
            "RootChainMalformed",
            "A sound chain of one document too many: none of its roots is taken.",
            long_chain(MAX_CHAIN + 1).concat(),
        ),
        case(
            "sixty-five-fragments",
            "RootChainMalformed",
            "Sixty-five documents of a byte: they are counted before one is parsed.",
            chain(&[&b"{"[..]; 65][..]),
        ),
    ];
    [form, schema(), unsound()].concat()
}
