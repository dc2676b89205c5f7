//! What the cases spoil: a root, a device, and bundles of each type that a device takes.
//!
//! Moments are fixed. A device's time is that of its program's build, today or in 2090, and nothing here hangs on it:
//! what has expired did so when it was made, what counts does until 3000, and what is too far ahead is of 9999.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tidegate::bundle::container::{BundleType, Signature};
use tidegate::bundle::manifest::{Author, Permit, Target};
use tidegate::bundle::pack::{self, Draft};
use tidegate::bundle::root::{Role, RoleKeys, RootDocument, RootDraft};
use tidegate::bundle::{DeviceFacts, EntryKind, canonical};
use tidegate::ids::Digest;

use super::p256::{self, Form};
use crate::world::{self, key, root_draft};

/// 2026-11-25: when the root was made.
pub const AT: i64 = 1_795_564_800;
/// When bundles were made.
pub const MADE_AT: i64 = AT + 1_000;
/// The year 3000.
pub const LATE: i64 = 32_503_680_000;
/// The last second of the year 9999.
pub const LAST: i64 = 253_402_300_799;

/// The golden bundle's sequence number, with room below.
pub const SEQ: u64 = 10;
/// Its security floor.
pub const FLOOR: u64 = 5;

/// Who of the policy role signs, of the revocation, permit and release role, and of the role root.
pub const POLICY: [u8; 2] = [4, 5];
pub const LISTS: [u8; 1] = [7];
pub const PERMITS: [u8; 1] = [7];
pub const ROOTS: [u8; 2] = [1, 2];

/// Version 2: root keys 1 to 3 (2 of 3), policy keys 4 to 6 (2 of 3), key 7 for the rest.
pub fn root() -> RootDocument {
    root_with(|_| ())
}

pub fn root_with(change: impl FnOnce(&mut RootDraft)) -> RootDocument {
    let mut draft = root_draft();
    draft.issued_at = AT;
    change(&mut draft);
    RootDocument::build(draft).expect("a sound root")
}

/// The same keys in another deployment.
pub fn other_deployment() -> RootDocument {
    root_with(|draft| draft.deployment = "quay".into())
}

/// Version 3: other root keys and other policy keys (each 2 of 3), and a key for the hub.
pub fn third_with(change: impl FnOnce(&mut RootDraft)) -> RootDocument {
    root_with(|draft| {
        draft.version = 3;
        draft.issued_at = AT + 500;
        draft.keys = [11, 12, 13, 14, 15, 16, 7, 17].map(|seed| (format!("key {seed}"), key(seed).public())).into();
        draft.roles.insert(Role::Hub, RoleKeys { keys: vec![7], threshold: 1 });
        change(draft);
    })
}

pub fn third() -> RootDocument {
    third_with(|_| ())
}

/// The link of a chain to `root`, signed by these.
pub fn link(root: &RootDocument, seeds: &[u8]) -> Vec<u8> {
    pack::link(root, seeds.iter().map(|seed| pack::sign_root(root, &key(*seed))).collect()).expect("few signatures")
}

/// The sound link to version 3.
pub fn to_third() -> Vec<u8> {
    link(&third(), &[1, 2, 11, 12])
}

pub fn bringing(bundle: &[u8], links: &[Vec<u8>]) -> Vec<u8> {
    pack::with_chain(bundle, links).expect("it fits")
}

pub fn device() -> DeviceFacts {
    world::device_facts()
}

/// A sound policy that says `reason`, not assembled yet.
pub fn draft(seq: u64, reason: &str) -> Draft {
    Draft {
        author: Author { who: "Ada".into(), tool: "tests".into(), reason: reason.into() },
        target: Target::All,
        seq,
        security_floor: FLOOR.min(seq),
        issued_at: MADE_AT,
        expires_at: None,
        base: None,
        requires: Vec::new(),
        entries: world::entries(|_| (), |text| text),
    }
}

/// The sections of a bundle whose signatures are still to be made.
pub struct Parts {
    pub bundle_type: BundleType,
    pub manifest: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Parts {
    pub fn of(unsigned: &[u8]) -> Self {
        let head = pack::head(unsigned).expect("a head");
        let payload = unsigned[head.bytes().len()..].to_vec();
        Self { bundle_type: head.preamble().bundle_type, manifest: head.manifest().to_vec(), payload }
    }

    pub fn value(&self) -> Value {
        canonical::read(&self.manifest).expect("canonical")
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.manifest.clone()).expect("text")
    }

    /// With a manifest of these exact bytes.
    pub fn saying(self, manifest: impl Into<Vec<u8>>) -> Self {
        Self { manifest: manifest.into(), ..self }
    }

    pub fn changed(self, change: impl FnOnce(&mut Value)) -> Self {
        let mut value = self.value();
        change(&mut value);
        self.saying(canonical::write(&value).expect("canonical"))
    }

    pub fn signed(&self, seeds: &[u8]) -> Vec<u8> {
        world::signed_bytes(self.bundle_type, &[], &self.manifest, seeds, &self.payload)
    }

    pub fn signature_of_p256(&self, private: usize, form: Form) -> Signature {
        p256::of_bundle(private, form, self.bundle_type, &self.manifest)
    }

    /// The signature of one key over it.
    pub fn signature(&self, seed: u8) -> Signature {
        world::signature(seed, self.bundle_type, &self.manifest)
    }

    pub fn with(&self, signatures: &[Signature]) -> Vec<u8> {
        let signatures = world::ascending(signatures.to_vec());
        pack::lay(self.bundle_type, &[], &self.manifest, &signatures, &self.payload).expect("within the limits")
    }
}

/// The parts of the policy that comes next.
pub fn next() -> Parts {
    Parts::of(&draft(SEQ + 1, "next").assemble(&root()).expect("a sound draft"))
}

/// The next policy with another manifest, signed.
pub fn with_manifest(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    next().changed(change).signed(&POLICY)
}

pub fn policy(seq: u64, reason: &str) -> Vec<u8> {
    policy_under(&root(), seq, reason, &POLICY)
}

pub fn policy_under(root: &RootDocument, seq: u64, reason: &str, seeds: &[u8]) -> Vec<u8> {
    Parts::of(&draft(seq, reason).assemble(root).expect("a sound draft")).signed(seeds)
}

/// The next policy with other entries, signed.
pub fn with_entries(entries: BTreeMap<EntryKind, (String, Vec<u8>)>) -> Vec<u8> {
    let draft = Draft { entries, ..draft(SEQ + 1, "next") };
    Parts::of(&draft.assemble(&root()).expect("a sound draft")).signed(&POLICY)
}

/// The next policy after `change` of its entries as JSON, and `edit` of their text.
pub fn compiled(change: impl FnOnce(&mut Value), edit: impl Fn(String) -> String) -> Vec<u8> {
    with_entries(world::entries(change, edit))
}

/// The next policy with one entry more, or in place of its own.
pub fn with_entry(kind: EntryKind, bytes: Vec<u8>) -> Vec<u8> {
    let mut entries = world::entries(|_| (), |text| text);
    entries.insert(kind, (kind.name().into(), bytes));
    with_entries(entries)
}

/// 2095-01-01: later than any build of today, so that devices which have taken [`later`] know it, and nothing later.
pub const FAR: i64 = 3_944_678_400;

/// Policies on the way to [`FAR`], each less than ten years after the one before it.
pub fn later() -> Vec<Vec<u8>> {
    let step = |n: i64| MADE_AT + (FAR - MADE_AT) * n / 7;
    (1_i64..).zip(LATER).map(|(n, _)| at(SEQ + n.unsigned_abs(), "later", step(n))).collect()
}

/// The names of their files.
pub const LATER: [&str; 7] = [
    "world/later-1.tgb",
    "world/later-2.tgb",
    "world/later-3.tgb",
    "world/later-4.tgb",
    "world/later-5.tgb",
    "world/later-6.tgb",
    "world/later-7.tgb",
];

/// The number of the policy after them.
pub const AFTER_LATER: u64 = SEQ + LATER.len() as u64 + 1;

/// A policy that was made at that moment.
pub fn at(seq: u64, reason: &str, issued_at: i64) -> Vec<u8> {
    Parts::of(&Draft { issued_at, ..draft(seq, reason) }.assemble(&root()).expect("a sound draft")).signed(&POLICY)
}

pub fn golden() -> Vec<u8> {
    policy(SEQ, "golden")
}

/// The golden bundle by other holders: the same bundle.
pub fn golden_by(seeds: &[u8]) -> Vec<u8> {
    policy_under(&root(), SEQ, "golden", seeds)
}

pub fn digest(bundle: &[u8]) -> Digest {
    pack::digest(bundle).expect("it has a digest")
}

/// The list `seq` of this table.
pub fn list_parts(root: &RootDocument, seq: u64, table: Vec<u8>) -> Parts {
    let entries = [(EntryKind::Revocations, ("revocations".into(), table))].into();
    let draft = Draft { security_floor: 0, entries, ..draft(seq, "a list") };
    Parts::of(&draft.assemble_list(root).expect("a sound list"))
}

pub fn list(seq: u64, table: Vec<u8>) -> Vec<u8> {
    list_parts(&root(), seq, table).signed(&LISTS)
}

/// The permit `seq` from one bundle to another, for the device of the cases.
pub fn permit_parts(seq: u64, from: &[u8], to: &[u8]) -> Parts {
    let target = Target::Devices(vec![device().id]);
    let draft = Draft { security_floor: 0, entries: BTreeMap::new(), target, ..draft(seq, "a way back") };
    let permit = Permit { from: digest(from), to: digest(to) };
    Parts::of(&draft.assemble_permit(permit, &root()).expect("a sound permit"))
}

pub fn permit(seq: u64, from: &[u8], to: &[u8]) -> Vec<u8> {
    permit_parts(seq, from, to).signed(&PERMITS)
}

/// What the sound permits lead to: older than the golden bundle, and not below its floor.
pub fn older() -> Vec<u8> {
    policy(FLOOR, "older")
}

/// A manifest's target of other devices.
pub fn others() -> Value {
    json!({"devices": ["08".repeat(16)]})
}
