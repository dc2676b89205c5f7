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
    Case, GOLDEN_SEQ, bundle, case, compile, device_facts, draft, entries, judge, manifest_value, root, sign,
    signed_bytes, with_manifest,
};

pub fn cases() -> Vec<Case> {
    let entry = |kind: &str, len: u64| json!({"kind": kind, "len": len, "name": "x", "sha256": sha256(b"p")});
    let table = |name, about: &str, entries: Value| case(name, about, with_manifest(b"p", |m| m["entries"] = entries));
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
        table("EntryCount", "none", json!([])),
        table("EntryCount", "seven", json!(vec![entry("routes", 0); 7])),
        table("EntryKindUnknown", "a kind of the future", json!([entry("weather", 1)])),
        table("EntryKindUnknown", "a path", json!([entry("../../etc/passwd", 1)])),
        table("EntryDuplicate", "routes twice", json!([entry("routes", 1), entry("routes", 0)])),
        table("EntryName", "a path as the name", named("../../../etc/passwd")),
        table("EntryName", "no name", named("")),
        table("EntryName", "a name of 65", named(&"x".repeat(65))),
        table(
            "EntryTooLarge",
            "a byte over its kind's limit",
            json!([entry("issuers", EntryKind::Issuers.limit() + 1)]),
        ),
        table("EntryTooLarge", "2^53 bytes", json!([entry("routes", 1 << 53)])),
        table("PayloadLengthMismatch", "a byte short", json!([entry("routes", 0)])),
        table("PayloadLengthMismatch", "a byte over", json!([entry("routes", 2)])),
        table(
            "EntryDigestMismatch",
            "another blob",
            json!([{"kind": "routes", "len": 1, "name": "x", "sha256": sha256(b"q")}]),
        ),
        case("EntryDigestMismatch", "the last bit of the payload", altered),
        case("EntryDigestMismatch", "two blobs swapped", swapped),
    ]
    .into_iter()
    .chain(policies())
    .chain(probes())
    .collect()
}

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

/// Step 16: probes that come out otherwise than they say, or are none.
fn probes() -> Vec<Case> {
    let with = |name, about: &str, change: fn(&mut Value)| {
        let mut probe = probe("one");
        change(&mut probe);
        case(name, format!("a probe {about}"), probed(&json!([probe])))
    };
    let many: Vec<Value> = (0..257).map(|at| probe(&format!("{at:03}"))).collect();
    let set = |name, about: &str, probes: &[Value]| case(name, about, probed(&json!(probes)));
    vec![
        with("ProbeFailed", "that should be let in without a token", |p| p["expect"]["result"] = "Admitted".into()),
        with("ProbeFailed", "with garbage for a token", |p| {
            p["headers"] = json!([{"name": "authorization", "value": "Bearer x.y.z"}]);
        }),
        with("ProbeFailed", "by another route", |p| p["expect"]["route"] = "/{name}".into()),
        with("ProbeFailed", "for an application", |p| p["expect"]["application"] = "till".into()),
        with("ProbeFailed", "of a path that is not published", |p| p["path"] = "/parrots/1".into()),
        with("ProbeFailed", "of a method that is not", |p| p["method"] = "DELETE".into()),
        with("ProbeFailed", "that expects no result that there is", |p| {
            p["expect"]["result"] = "\u{1b}[2J\n".repeat(100).into();
        }),
        with("SemanticInvalid", "with a header in upper case", |p| {
            p["headers"] = json!([{"name": "Authorization", "value": "Bearer x.y.z"}]);
        }),
        with("SemanticInvalid", "without a name", |p| p["name"] = "".into()),
        with("SemanticInvalid", "with a member more", |p| p["when"] = 1.into()),
        with("SemanticInvalid", "before 1970", |p| p["at"] = (-1).into()),
        set("SemanticInvalid", "two probes of one name", &[probe("one"), probe("one")]),
        set("SemanticInvalid", "probes out of order", &[probe("two"), probe("one")]),
        set("SemanticInvalid", "257 probes", &many),
        set("ProbeFailed", "the last of many probes", &{
            let mut probes = many[..256].to_vec();
            probes[255]["expect"]["result"] = "NoRoute".into();
            probes
        }),
    ]
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

/// Step 15: what the real compiler says of a sound policy that was spoilt.
fn policies() -> Vec<Case> {
    let spoilt = |name, about: &str, change: fn(&mut Value)| case(name, about, compiled(change, |text| text));
    let edited = |about, from, to| case("SemanticInvalid", about, compiled(|_| (), |text| text.replace(from, to)));
    let mut cases = vec![
        spoilt("WeakKey", "a small-order point", |p| key(p)["jwk"]["x"] = "A".repeat(43).into()),
        spoilt("WeakKey", "RSA of 512 bits", |p| {
            let n = "v".repeat(85) + "w";
            (key(p)["alg"], key(p)["jwk"]) = ("RS256".into(), json!({"e": "AQAB", "kty": "RSA", "n": n}));
        }),
        spoilt("DuplicateKid", "one kid twice", |p| {
            let twice = json!([key(p), key(p)]);
            p["issuers"]["issuers"][0]["keys"] = twice;
        }),
        spoilt("PrivateKeyInBundle", "a symmetric key", |p| {
            (key(p)["alg"], key(p)["jwk"]) = ("HS256".into(), json!({"k": "c2VjcmV0", "kty": "oct"}));
        }),
        spoilt("PrivateKeyInBundle", "a private key that is not text", |p| key(p)["jwk"]["d"] = 7.into()),
        spoilt("PrivateKeyInBundle", "a set with a private key", |p| {
            let set = json!({"keys": [{"crv": "Ed25519", "d": "AA", "kty": "OKP", "x": "AA"}]});
            key(p)["jwk"] = set;
        }),
        spoilt("SemanticInvalid", "an upstream that is not there", |p| {
            p["routes"]["apis"][0]["upstream"] = "gone".into();
        }),
        spoilt("SemanticInvalid", "a symmetric algorithm", |p| key(p)["alg"] = "HS256".into()),
        spoilt("SemanticInvalid", "an unknown member of a key", |p| key(p)["jwk"]["x5c"] = "".into()),
        spoilt("SemanticInvalid", "APIs out of order", |p| {
            p["routes"]["apis"].as_array_mut().expect("a list").reverse();
        }),
        spoilt("SemanticInvalid", "upstreams out of order", |p| {
            let mut other = p["routes"]["upstreams"][0].clone();
            other["name"] = "a".into();
            p["routes"]["upstreams"].as_array_mut().expect("a list").push(other);
        }),
        spoilt("SemanticInvalid", "plans out of order", |p| {
            p["throttle"]["plans"].as_array_mut().expect("a list").push(json!({"limits": [], "name": "a"}));
        }),
        edited("an integer over 2^53", ":1000,\"per\"", ":9007199254740993,\"per\""),
        edited("an integer over 2^63", ":1000,\"per\"", ":18446744073709551615,\"per\""),
        edited("white space", "\"name\":\"gold\"", "\"name\": \"gold\""),
        edited("no JSON", "\"plans\"", "plans"),
    ];
    for member in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
        let private = |p: &mut Value| key(p)["jwk"][member] = "AA".into();
        cases.push(case("PrivateKeyInBundle", member, compiled(private, |text| text)));
    }
    cases
}

fn key(policy: &mut Value) -> &mut Value {
    &mut policy["issuers"]["issuers"][0]["keys"][0]
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
