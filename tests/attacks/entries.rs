//! Steps 13 to 15: what is inside.

use std::io::{self, Cursor, Read};

use serde_json::json;
use tidegate::bundle::container::{BundleType, MAX_FILE};
use tidegate::bundle::manifest::Entry;
use tidegate::bundle::trust::Trust;
use tidegate::bundle::verify::{Findings, Judge, Purpose, Source, verify};
use tidegate::bundle::{EntryKind, canonical, pack};
use tidegate::keys::sha256;
use tidegate::store::time::BUILD_TIME;

use crate::world::{
    Case, GOLDEN_SEQ, bundle, case, compile, device_facts, manifest_value, root, signed_bytes, with_manifest,
};

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

/// A bundle whose payload is made while it is read, and which tells how much was asked for at once.
struct Endless {
    head: Vec<u8>,
    payload: u64,
    largest: usize,
    opened: usize,
}

struct Zeros<'a> {
    left: u64,
    largest: &'a mut usize,
}

impl Read for Zeros<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        *self.largest = buffer.len().max(*self.largest);
        let n = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        buffer[..n].fill(0);
        self.left -= n as u64;
        Ok(n)
    }
}

impl Source for Endless {
    fn length(&mut self) -> io::Result<u64> {
        Ok(self.head.len() as u64 + self.payload)
    }
    fn head(&mut self) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(Cursor::new(&self.head)))
    }
    fn blob(&mut self, entry: &Entry, _payload: u64) -> io::Result<Box<dyn Read + '_>> {
        self.opened += 1;
        Ok(Box::new(Zeros { left: entry.len, largest: &mut self.largest }))
    }
}

#[test]
fn a_large_payload_that_is_not_the_signed_one_is_refused_through_one_small_buffer() {
    let len = EntryKind::Revocations.limit();
    assert!(len < MAX_FILE);
    let mut manifest = manifest_value(GOLDEN_SEQ + 1, b"");
    manifest["entries"] = json!([{"kind": "revocations", "len": len, "name": "x", "sha256": sha256(b"other")}]);
    let manifest = canonical::write(&manifest).expect("canonical");
    // The head is laid out for the true payload, which is then left away.
    let whole =
        signed_bytes(BundleType::Policy, &[], &manifest, &[4, 5], &vec![0; usize::try_from(len).expect("12 MiB")]);
    let head = pack::head(&whole).expect("a head").bytes().to_vec();
    let mut source = Endless { head, payload: len, largest: 0, opened: 0 };
    let (trust, device) = (Trust::new(root()), device_facts());
    let by = Judge { trust: &trust, lower: BUILD_TIME, device: &device, purpose: Purpose::Install };
    let refused =
        verify(&mut source, &by, compile, &mut Findings::default()).map(|_| ()).expect_err("not the signed one");
    assert_eq!(refused.name(), "EntryDigestMismatch");
    assert_eq!((source.largest, source.opened), (64 << 10, 1), "never read into memory");
}
