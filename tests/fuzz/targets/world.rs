//! A deployment with keys of fixed seeds and a device of it: that of `tests/fixtures/bundle`, whose root is the pinned one.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};
use std::sync::{Arc, LazyLock};

use tidegate::bundle::container::Signature;
use tidegate::bundle::entry::{CutOff, CutOffKind, HashedId, Revocations};
use tidegate::bundle::manifest::{Author, Permit, Target};
use tidegate::bundle::pack::{self, Draft};
use tidegate::bundle::reset::{self, TimeReset};
use tidegate::bundle::root::{Role, RoleKeys, RootDocument};
use tidegate::bundle::trust::{History, Seen, Table, Trust};
use tidegate::bundle::verify::{Findings, Judge, Purpose, Verdict, Whole, verify};
use tidegate::bundle::{DeviceFacts, EntryKind, Refused, compile};
use tidegate::ids::{DeviceId, Digest};
use tidegate::keys::SigningKey;
use tidegate::policy::Policy;

/// When the golden files were made, and the least that the device holds it to be.
pub const AT: i64 = 1_795_564_800;
/// The sequence number of the golden bundle.
pub const SEQ: u64 = 7;
/// Its security floor.
pub const FLOOR: u64 = 3;
/// So many keys there are: root 1 to 3 (2 of 3), policy 4 to 6 (2 of 3), revocation, permit and release 7. Key 8 joins the
/// role root with version 3; key 9 is the device's.
pub const KEYS: u8 = 9;

static SIGNING: LazyLock<Vec<SigningKey>> =
    LazyLock::new(|| (1..=KEYS).map(|seed| SigningKey::from_seed(&[seed; 32]).expect("a seed makes a key")).collect());

/// The key of `seed`, 1 to [`KEYS`].
pub fn key(seed: u8) -> &'static SigningKey {
    &SIGNING[usize::from(seed - 1)]
}

/// The keys whose bits stand in `mask`, from the lowest: key 1 up to key 8.
pub fn keys_of(mask: u8) -> impl Iterator<Item = &'static SigningKey> {
    (0..8).filter(move |bit| mask >> bit & 1 == 1).map(|bit| key(bit + 1))
}

/// How many of `keys` have their bit in `mask`.
pub fn count(mask: u8, keys: impl IntoIterator<Item = u8>) -> usize {
    keys.into_iter().filter(|key| mask >> (key - 1) & 1 == 1).count()
}

/// The signatures of `mask`'s keys over `message`, ascending.
pub fn signatures(mask: u8, media_type: &str, message: &[u8]) -> Vec<Signature> {
    let sign = |key: &SigningKey| Signature { key: key.public().id(), bytes: key.sign(media_type, message) };
    let mut signatures: Vec<_> = keys_of(mask).map(sign).collect();
    signatures.sort_by_key(|signature| signature.key);
    signatures
}

/// What was made with the threshold's keys, and may be taken.
pub struct Golden {
    pub root: RootDocument,
    pub policy: Vec<u8>,
    pub list: Vec<u8>,
    pub permit: Vec<u8>,
    pub reset: Vec<u8>,
    /// Root versions 3 and 4; the second begins epoch 2.
    pub roots: Vec<RootDocument>,
    /// The links of a chain that lead there.
    pub links: Vec<Vec<u8>>,
}

/// They.
pub static GOLDEN: LazyLock<Golden> = LazyLock::new(|| {
    let root = RootDocument::from_file(include_bytes!("../../fixtures/bundle/root.json")).expect("a sound root");
    let policy = include_bytes!("../../fixtures/bundle/v1.tgb").to_vec();
    let digest = pack::digest(&policy).expect("a bundle");
    let author = Author { who: "Ada".into(), tool: "tests".into(), reason: "golden".into() };
    let ids = vec![HashedId { hash: 5, until: AT + 3_600 }, HashedId { hash: 1 << 63, until: AT + 7_200 }];
    let cut_off = CutOff { kind: CutOffKind::Subject, issuer: "site".into(), value: "sam".into(), before: AT };
    let entry = Revocations { cut_offs: vec![cut_off], ids }.to_bytes();
    let mut draft = Draft {
        author: author.clone(),
        target: Target::All,
        seq: 2,
        security_floor: 0,
        issued_at: AT,
        expires_at: None,
        base: None,
        requires: Vec::new(),
        entries: BTreeMap::from([(EntryKind::Revocations, ("ids".into(), entry))]),
    };
    let sign = |bundle: Vec<u8>| pack::sign(&bundle, &root, key(7)).expect("key 7 may sign");
    let list = sign(draft.assemble_list(&root).expect("a sound list"));
    draft.target = Target::Devices(vec![device().id]);
    draft.entries.clear();
    let permit = Permit { from: digest, to: Digest([7; 32]) };
    let permit = sign(draft.assemble_permit(permit, &root).expect("a sound permit"));
    let reset = TimeReset {
        at: AT,
        author,
        deployment: root.deployment().into(),
        epoch: root.epoch(),
        seq: 1,
        target: Target::All,
        undoes: AT + 1,
    };
    let reset = [1, 2].iter().fold(reset.assemble().expect("a sound reset"), |file, seed| {
        reset::sign(&file, &root, key(*seed)).expect("it may sign")
    });
    let mut next = root.draft().clone();
    (next.version, next.issued_at) = (3, AT + 1);
    next.keys.push(("key 8".into(), key(8).public()));
    next.roles.insert(Role::Root, RoleKeys { keys: vec![0, 1, 7], threshold: 2 });
    let third = RootDocument::build(next.clone()).expect("a sound root");
    (next.version, next.epoch) = (4, 2);
    let fourth = RootDocument::build(next).expect("a sound root");
    let roots = vec![third, fourth];
    let link = |root| pack::link(root, vec![pack::sign_root(root, key(1)), pack::sign_root(root, key(2))]);
    let links = roots.iter().map(|root| link(root).expect("two fit")).collect();
    Golden { root, policy, list, permit, reset, roots, links }
});

/// What the device is.
pub fn device() -> DeviceFacts {
    DeviceFacts { id: DeviceId::from(key(9).public().id()), labels: BTreeMap::from([("site".into(), "pier".into())]) }
}

/// The trust of a device that has seen nothing, by `root`.
pub fn fresh(root: &RootDocument) -> Trust {
    Trust::new(root.clone())
}

/// The trust of a device on which the golden bundle serves and the golden list is in force, by `root`.
pub fn serving(root: &RootDocument) -> Trust {
    let [policy, list] = [&GOLDEN.policy, &GOLDEN.list].map(|bundle| pack::digest(bundle).expect("a bundle"));
    let history = History {
        epoch: 1,
        highest: Some(Seen { seq: SEQ, digest: policy }),
        security_floor: FLOOR,
        serving: Some(policy),
        active: Some(policy),
        revoked: Some(Seen { seq: 2, digest: list }),
        list: Some(list),
        ..History::default()
    };
    Trust { history, list: Some(Arc::new(GoldenTable)), ..Trust::new(root.clone()) }
}

#[derive(Debug)]
struct GoldenTable;

impl Table for GoldenTable {
    fn read(&self) -> io::Result<(Box<dyn Read + Send>, u64)> {
        let table = payload(&GOLDEN.list);
        Ok((Box::new(table), table.len() as u64))
    }
}

/// The payload of a bundle that is sound.
pub fn payload(bundle: &[u8]) -> &[u8] {
    &bundle[pack::head(bundle).expect("a bundle").bytes().len()..]
}

/// The whole judgement of `bytes`, and what came to light.
pub fn judge(bytes: &[u8], trust: &Trust, purpose: Purpose) -> (Result<Verdict<Policy>, Refused>, Findings) {
    let (device, mut found) = (device(), Findings::default());
    let by = Judge { trust, lower: AT, device: &device, purpose };
    let verdict = verify(&mut Whole(Cursor::new(bytes)), &by, compile, &mut found);
    (verdict, found)
}

/// The bundle that a verdict is about; a time reset is none.
pub fn taken(verdict: &Verdict<Policy>) -> Option<Digest> {
    match verdict {
        Verdict::Accepted(verified) => Some(verified.digest()),
        Verdict::Release(release) => Some(release.digest()),
        Verdict::Revocations(list) => Some(list.digest()),
        Verdict::Permit(permit) => Some(permit.digest()),
        Verdict::AlreadyInstalled(digest) => Some(*digest),
        Verdict::TimeReset(_) => None,
    }
}
