//! Signed documents, `*.tgd`, and files of public keys.
//!
//! ```text
//! {"body":…         a document as it comes: only the golden ones are ever believed
//! kind, signers, device, body   (kind < 0x20) the harness signs with the real keys; `device` is 1 for the device's own
//! else              a file of keys
//! ```

use std::sync::LazyLock;

use serde_json::{Value, json};
use tidegate::bundle::container::Signature;
use tidegate::bundle::document::{Document, DocumentKind, MAGIC, MAX_DOCUMENT};
use tidegate::bundle::enrolment::{Enrolment, Request};
use tidegate::bundle::{Receipt, canonical};
use tidegate::ids::{DeviceId, hex};
use tidegate::keys::{KeyAlg, PublicKey, sha256};
use tidegate::policy::issuer::{Alg, MAX_KEYS};
use tidegate::token::keys::{KeyTerms, import};

use super::world::{self, AT, GOLDEN};

const KINDS: [DocumentKind; 3] = [DocumentKind::ImportReceipt, DocumentKind::DeviceRequest, DocumentKind::Enrolment];
/// The seed of the device's key.
const DEVICE: u8 = 9;

/// A body of each kind, in their order.
pub static BODIES: LazyLock<[Value; 3]> = LazyLock::new(|| {
    let (device, key) = (world::device().id, hex(world::key(DEVICE).public().raw()));
    let labels = json!({"site": "quay"});
    [
        json!({"at": AT, "boot": "b", "detail": "in force", "device": device, "name": "a.tgb", "quality": "floor",
               "result": "Activated", "seq": 7}),
        json!({"device": device, "key": key, "labels": labels, "model": "board"}),
        json!({"deployment": "harbour", "device": device, "epoch": 1, "issued_at": AT, "key": key, "labels": labels,
               "root_version": 2, "seq": 1}),
    ]
});

/// The golden documents, in the order of the kinds.
pub static DOCUMENTS: LazyLock<[Vec<u8>; 3]> = LazyLock::new(|| {
    let body = |at: usize| canonical::write(&BODIES[at]).expect("it has a form");
    [framed(0, &body(0), 0, true), framed(1, &body(1), 0, true), framed(2, &body(2), 0b1_1000, false)]
});

/// The document of any bytes as its body, as the table of the format draws it.
fn framed(kind: usize, body: &[u8], mask: u8, device: bool) -> Vec<u8> {
    let media_type = KINDS[kind].media_type();
    let mut signatures = world::signatures(mask, media_type, body);
    if device {
        let key = world::key(DEVICE);
        signatures.push(Signature { key: key.public().id(), bytes: key.sign(media_type, body) });
        signatures.sort_by_key(|signature| signature.key);
    }
    let written = |one: &Signature| format!(r#"{{"key":"{}","signature":"{}"}}"#, one.key, hex(&one.bytes));
    let signatures = signatures.iter().map(written).collect::<Vec<_>>().join(",");
    [MAGIC, body, format!(",\"signatures\":[{signatures}],\"type\":\"{media_type}\"}}\n").as_bytes()].concat()
}

/// The target.
pub fn run(bytes: &[u8]) -> bool {
    match bytes {
        [b'{', b'"', b'b', ..] => as_it_comes(bytes, &world::key(DEVICE).public()),
        [kind @ 0..0x20, mask, device, body @ ..] => signed(usize::from(*kind) % 3, *mask, *device == 1, body),
        _ => keys(bytes),
    }
}

/// Whatever the bytes, whoever trusts the root and the device of `key` believes the golden documents alone.
pub fn as_it_comes(bytes: &[u8], key: &PublicKey) -> bool {
    let receipt = Receipt::verify(bytes, key);
    let Ok(document) = Document::parse(bytes) else {
        assert!(receipt.is_err(), "a receipt without a frame");
        return false;
    };
    assert_eq!(document.to_bytes(), bytes, "a document has two forms");
    assert_eq!(document.digest(), sha256(document.body()));
    assert!(bytes.len() as u64 <= MAX_DOCUMENT && (1..=16).contains(&document.signatures().len()));
    assert!(document.signatures().windows(2).all(|pair| pair[0].key < pair[1].key), "the signers do not ascend");
    let believed =
        [receipt.is_ok(), Request::verify(&document).is_ok(), Enrolment::verify(&document, &GOLDEN.root).is_ok()];
    for (at, believed) in believed.into_iter().enumerate() {
        assert_eq!(believed, bytes == DOCUMENTS[at], "believed, and not golden");
    }
    believed.contains(&true)
}

/// A body of the fuzzer's words under the real keys' signatures.
fn signed(kind: usize, mask: u8, device: bool, body: &[u8]) -> bool {
    let bytes = framed(kind, body, mask, device);
    let document = Document::parse(&bytes);
    let signers = mask.count_ones() + u32::from(device);
    let fits = signers > 0 && bytes.len() as u64 <= MAX_DOCUMENT;
    assert_eq!(document.is_ok(), fits, "a frame of {signers} signatures and {} bytes", bytes.len());
    let Ok(document) = document else { return false };
    assert_eq!((document.kind(), document.body()), (KINDS[kind], body));
    let receipt = Receipt::verify(&bytes, &world::key(DEVICE).public());
    let (request, enrolment) = (Request::verify(&document), Enrolment::verify(&document, &GOLDEN.root));
    let taken = [receipt.is_ok(), request.is_ok(), enrolment.is_ok()];
    assert!((0..3).all(|at| at == kind || !taken[at]), "one document is of two kinds");
    if !taken[kind] {
        return false;
    }
    let value: Value = serde_json::from_slice(body).expect("what is believed is JSON");
    assert_eq!(canonical::write(&value).as_deref(), Ok(body));
    match kind {
        0 => {
            assert!(device && signers == 1, "somebody else's receipt");
            assert_eq!(value["device"], world::device().id.to_string());
        }
        1 => assert!(signers == 1, "one key asks for itself"),
        _ => {
            assert!(world::count(mask, 4..=6) >= 2, "enrolled without the threshold");
            assert_eq!(value["deployment"], "harbour");
            assert!(value["root_version"].as_u64().is_some_and(|version| version <= 2));
            assert!(value["seq"].as_u64().is_some_and(|seq| seq >= 1));
            assert!(value["issued_at"].as_i64().is_some_and(|at| (0..=253_402_300_799).contains(&at)));
        }
    }
    if kind > 0 {
        let raw = value["key"].as_str().expect("a key");
        let raw = tidegate::ids::unhex::<32>(raw).expect("hex");
        let key = PublicKey::new(KeyAlg::Ed25519, &raw).expect("no weak key");
        assert_eq!(value["device"], DeviceId::from(key.id()).to_string(), "a device of another key");
        let signed = |one: &Signature| one.key == key.id() && key.verifies(KINDS[kind].media_type(), body, &one.bytes);
        assert!(kind == 2 || document.signatures().iter().all(signed), "it does not hold the key");
        let labels = value["labels"].as_object().expect("labels");
        assert!(labels.len() <= 16);
        for label in labels.values() {
            assert!(
                label.as_str().is_some_and(|text| (1..=256).contains(&text.len()) && !text.contains(char::is_control))
            );
        }
    }
    true
}

/// A file of keys gives public ones that a token can name, or nothing.
fn keys(bytes: &[u8]) -> bool {
    for alg in [None, Some(Alg::EdDsa), Some(Alg::Ps256)] {
        let Ok(keys) = import(bytes, KeyTerms { alg, allow_demo_keys: false }) else { continue };
        assert!((1..=MAX_KEYS).contains(&keys.len()));
        for (at, key) in keys.iter().enumerate() {
            assert!(alg.is_none_or(|alg| alg == key.alg()));
            assert!(key.kid().is_none() || keys[..at].iter().all(|before| before.kid() != key.kid()), "a kid twice");
        }
        if let Ok(value) = serde_json::from_slice::<Value>(bytes) {
            let private = |jwk: &Value| ["d", "k", "p", "q"].iter().any(|name| jwk.get(name).is_some());
            assert!(
                !private(&value) && !value["keys"].as_array().is_some_and(|all| all.iter().any(private)),
                "private"
            );
        }
        return true;
    }
    false
}
