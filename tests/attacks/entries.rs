//! Steps 13 to 15: what is inside.

use std::io::{self, Cursor, Read};

use serde_json::{Value, json};
use tidegate::bundle::container::{BundleType, MAX_FILE};
use tidegate::bundle::manifest::Entry;
use tidegate::bundle::trust::Trust;
use tidegate::bundle::verify::{Findings, Judge, Purpose, Source, verify};
use tidegate::bundle::{EntryKind, canonical, pack};
use tidegate::keys::sha256;
use tidegate::store::time::BUILD_TIME;

use crate::world::{
    GOLDEN_SEQ, compile, device_facts, draft, entries, judge, manifest_value, root, sign, signed_bytes,
};

/// A probe of the sound policy that comes out as it expects.
fn probe(name: &str) -> Value {
    json!({
        "at": 1_700_000_000, "expect": {"result": "TokenMissing", "route": "/{id}"}, "method": "GET", "name": name,
        "path": "/pets/1",
    })
}

fn probed(probes: &Value) -> Vec<u8> {
    let mut draft = draft(GOLDEN_SEQ + 1, "");
    draft.entries = entries(|_| (), |text| text);
    let bytes = canonical::write(&json!({"probes": probes})).expect("canonical");
    draft.entries.insert(EntryKind::Probes, ("probes".into(), bytes));
    sign(&draft.assemble(&root()).expect("a sound draft"))
}

#[test]
fn probes_that_come_out_as_they_say_are_no_hindrance() {
    let mut unknown = probe("unknown");
    (unknown["path"], unknown["expect"]) = ("/parrots".into(), json!({"result": "NoRoute"}));
    let mut garbled = probe("garbled");
    garbled["headers"] = json!([{"name": "authorization", "value": "Bearer x.y.z"}]);
    garbled["expect"]["result"] = "TokenBase64".into();
    let mut twice = probe("twice");
    twice["headers"] = json!([{"name": "authorization", "value": "a"}, {"name": "authorization", "value": "b"}]);
    twice["expect"]["result"] = "BadRequest".into();
    judge(&probed(&json!([garbled, probe("one"), twice, unknown]))).expect("all come out as they say");
}

fn compiled(change: impl FnOnce(&mut Value), edit: impl Fn(String) -> String) -> Vec<u8> {
    let mut draft = draft(GOLDEN_SEQ + 1, "");
    draft.entries = entries(change, edit);
    sign(&draft.assemble(&root()).expect("a sound draft"))
}

#[test]
fn the_policy_that_the_cases_spoil_is_itself_taken() {
    judge(&compiled(|_| (), |text| text)).expect("a sound policy");
    judge(&compiled(|_| (), |text| text.replace(":1000,\"per\"", ":9007199254740992,\"per\""))).expect("2^53 itself");
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
