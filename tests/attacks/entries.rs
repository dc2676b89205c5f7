//! Steps 13 to 15: what is inside.

use serde_json::json;
use tidegate::bundle::EntryKind;
use tidegate::keys::sha256;

use crate::world::{Case, GOLDEN_SEQ, bundle, case, with_manifest};

pub fn cases() -> Vec<Case> {
    let entry = |kind: &str, len: u64| json!({"kind": kind, "len": len, "name": "x", "sha256": sha256(b"p")});
    let entries = |name, about: &str, entries: serde_json::Value| {
        case(name, about, with_manifest(b"p", |m| m["entries"] = entries))
    };
    let named = |name: &str| json!([{"kind": "routes", "len": 1, "name": name, "sha256": sha256(b"p")}]);
    let good = bundle(GOLDEN_SEQ + 1, "next");
    let mut altered = good.clone();
    *altered.last_mut().expect("a payload") ^= 1;
    let swapped = with_manifest(b"ab", |m| {
        m["entries"] = json!([
            {"kind": "routes", "len": 1, "name": "x", "sha256": sha256(b"b")},
            {"kind": "issuers", "len": 1, "name": "x", "sha256": sha256(b"a")},
        ]);
    });
    vec![
        entries("EntryCount", "none", json!([])),
        entries("EntryCount", "seven", json!(vec![entry("routes", 0); 7])),
        entries("EntryKindUnknown", "a kind of the future", json!([entry("weather", 1)])),
        entries("EntryKindUnknown", "a path", json!([entry("../../etc/passwd", 1)])),
        entries("EntryDuplicate", "routes twice", json!([entry("routes", 1), entry("routes", 0)])),
        entries("EntryName", "a path as the name", named("../../../etc/passwd")),
        entries("EntryName", "no name", named("")),
        entries("EntryName", "a name of 65", named(&"x".repeat(65))),
        entries(
            "EntryTooLarge",
            "a byte over its kind's limit",
            json!([entry("issuers", EntryKind::Issuers.limit() + 1)]),
        ),
        entries("EntryTooLarge", "2^53 bytes", json!([entry("routes", 1 << 53)])),
        entries("PayloadLengthMismatch", "a byte short", json!([entry("routes", 0)])),
        entries("PayloadLengthMismatch", "a byte over", json!([entry("routes", 2)])),
        entries(
            "EntryDigestMismatch",
            "another blob",
            json!([{"kind": "routes", "len": 1, "name": "x", "sha256": sha256(b"q")}]),
        ),
        entries("UnsupportedRequirement", "probes: this version runs none", json!([entry("probes", 1)])),
        case("EntryDigestMismatch", "the last bit of the payload", altered),
        case("EntryDigestMismatch", "two blobs swapped", swapped),
        case("WeakKey", "a weak key", bundle(GOLDEN_SEQ + 1, "weak")),
        case("DuplicateKid", "one kid twice", bundle(GOLDEN_SEQ + 1, "twice")),
        case("PrivateKeyInBundle", "a private key", bundle(GOLDEN_SEQ + 1, "private")),
        case("SemanticInvalid", "no sense", bundle(GOLDEN_SEQ + 1, "nonsense")),
    ]
}
