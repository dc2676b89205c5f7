//! A deployment with keys of fixed seeds, a device in a throw-away folder, and the golden bundle.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate::bundle::container::{BundleType, Signature};
use tidegate::bundle::journal::{self, Line};
use tidegate::bundle::manifest::{Author, Target};
use tidegate::bundle::pack::{self, Draft};
use tidegate::bundle::root::{Role, RoleKeys, RootDocument, RootDraft};
use tidegate::bundle::trust::Trust;
use tidegate::bundle::verify::{Findings, Judge, Purpose, Verdict, Whole, verify};
use tidegate::bundle::{
    Compile, DeviceFacts, Entries, EntryKind, ImportOutcome, Imported, Importer, Medium, Moment, Origin, Refused,
    SemanticProblem, Settings, canonical,
};
use tidegate::clock::Reading;
use tidegate::disk::{Disk, Machine};
use tidegate::ids::{DeviceId, Digest};
use tidegate::keys::{SigningKey, sha256};
use tidegate::policy::revocations::Revocations;
use tidegate::store::time::BUILD_TIME;

/// When the golden bundle was made.
pub const GOLDEN_AT: i64 = BUILD_TIME + 1_000;
/// Its place in the order, with room below.
pub const GOLDEN_SEQ: u64 = 10;
/// Its security floor.
pub const GOLDEN_FLOOR: u64 = 5;

/// The test's policy: the text of the routes.
pub type Policy = String;

/// The seam of step 15. Routes in JSON go through the real compiler; any other text stands for itself, in tests
/// that only ask which bundle serves.
pub fn compile(entries: &Entries) -> Result<Policy, SemanticProblem> {
    let routes = entries.get(&EntryKind::Routes).ok_or(SemanticProblem::SemanticInvalid("no routes".into()))?;
    let routes = String::from_utf8_lossy(routes).into_owned();
    if routes.starts_with('{') {
        tidegate::bundle::compile(entries)?;
    }
    Ok(routes)
}

/// The entries of a small policy that the real compiler takes.
pub fn policy() -> Value {
    let api = |name: &str| {
        json!({
            "audiences": [], "base_path": format!("/{name}"), "forward_token": false, "hosts": [], "issuers": ["site"],
            "max_body": 1024, "name": name, "plan": "gold",
            "routes": [{"auth": "token", "methods": ["GET"], "scopes": ["read"], "template": "/{id}", "uncertain": "allow"}],
            "strip_base_path": true, "subscription": false, "token_header": "authorization", "upstream": "shop",
            "version": "1",
        })
    };
    let key = json!({"alg": "EdDSA", "jwk": {"crv": "Ed25519", "kty": "OKP", "x": PUBLIC}, "kid": "k1"});
    json!({
        "issuers": {"issuers": [{
            "absent_type": false, "allow_demo_keys": false, "audiences": ["edge"],
            "claims": {"application": [], "scope": "scope"}, "iss": "https://site.example", "keys": [key],
            "name": "site", "profile": "strict", "types": ["at+jwt"],
        }]},
        "routes": {
            "apis": [api("pets"), api("shop")],
            "upstreams": [{
                "ca": [], "connect_timeout_ms": 1000, "endpoints": ["http://127.0.0.1:8080"], "keep_host": false,
                "name": "shop", "response_timeout_ms": 1000,
            }],
        },
        "throttle": {"plans": [{"limits": [{"count": 1000, "per": "day"}], "name": "gold"}]},
    })
}

/// The public key of RFC 8037, A.2.
const PUBLIC: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

/// The entries of [`policy`] after `change`, in canonical form, each then put through `edit` as text.
pub fn entries(
    change: impl FnOnce(&mut Value),
    edit: impl Fn(String) -> String,
) -> BTreeMap<EntryKind, (String, Vec<u8>)> {
    let mut policy = policy();
    change(&mut policy);
    let kinds = [EntryKind::Routes, EntryKind::Issuers, EntryKind::Throttle];
    let text = |kind: EntryKind| {
        let bytes = canonical::write(&policy[kind.name()]).expect("canonical");
        edit(String::from_utf8(bytes).expect("text")).into_bytes()
    };
    kinds.map(|kind| (kind, (kind.name().to_owned(), text(kind)))).into()
}

pub fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32]).expect("a seed makes a key")
}

/// Root keys 1–3 (2 of 3), policy keys 4–6 (2 of 3), revocation, permit and release key 7.
pub fn root_draft() -> RootDraft {
    let role = |keys: &[usize], threshold| RoleKeys { keys: keys.to_vec(), threshold };
    RootDraft {
        deployment: "harbour".into(),
        epoch: 1,
        version: 2,
        issued_at: BUILD_TIME,
        keys: (1..=7).map(|seed| (format!("key {seed}"), key(seed).public())).collect(),
        roles: BTreeMap::from([
            (Role::Root, role(&[0, 1, 2], 2)),
            (Role::Policy, role(&[3, 4, 5], 2)),
            (Role::Revocation, role(&[6], 1)),
            (Role::Permit, role(&[6], 1)),
            (Role::Release, role(&[6], 1)),
        ]),
    }
}

pub fn root() -> RootDocument {
    RootDocument::build(root_draft()).expect("a sound root")
}

pub fn device_facts() -> DeviceFacts {
    DeviceFacts { id: DeviceId::from(key(9).public().id()), labels: BTreeMap::from([("site".into(), "pier".into())]) }
}

pub fn draft(seq: u64, routes: &str) -> Draft {
    Draft {
        author: Author { who: "Ada".into(), tool: "tests".into(), reason: "a change".into() },
        target: Target::All,
        seq,
        security_floor: GOLDEN_FLOOR,
        issued_at: GOLDEN_AT,
        expires_at: None,
        base: None,
        requires: Vec::new(),
        entries: BTreeMap::from([
            (EntryKind::Routes, ("routes".into(), routes.into())),
            (EntryKind::Issuers, ("issuers".into(), b"issuers".to_vec())),
        ]),
    }
}

pub fn sign(unsigned: &[u8]) -> Vec<u8> {
    let once = pack::sign(unsigned, &root(), &key(4)).expect("key 4 may sign");
    pack::sign(&once, &root(), &key(5)).expect("key 5 may sign")
}

pub fn bundle(seq: u64, routes: &str) -> Vec<u8> {
    sign(&draft(seq, routes).assemble(&root()).expect("a sound draft"))
}

pub fn golden() -> Vec<u8> {
    bundle(GOLDEN_SEQ, "golden")
}

/// The signature of `seed`'s key over `message`.
pub fn signature(seed: u8, bundle_type: BundleType, message: &[u8]) -> Signature {
    let key = key(seed);
    Signature { key: key.public().id(), bytes: key.sign(bundle_type.media_type(), message) }
}

pub fn ascending(mut signatures: Vec<Signature>) -> Vec<Signature> {
    signatures.sort_by_key(|signature| signature.key);
    signatures
}

/// A bundle of exactly these manifest bytes, signed by the keys of `seeds` for `bundle_type`.
pub fn signed_bytes(bundle_type: BundleType, trust: &[u8], manifest: &[u8], seeds: &[u8], payload: &[u8]) -> Vec<u8> {
    let signatures = ascending(seeds.iter().map(|seed| signature(*seed, bundle_type, manifest)).collect());
    pack::lay(bundle_type, trust, manifest, &signatures, payload).expect("within the limits")
}

/// A sound manifest for `payload` as one entry `routes`, changed by `change`, signed by the policy role.
pub fn with_manifest(payload: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut manifest = manifest_value(GOLDEN_SEQ + 1, payload);
    change(&mut manifest);
    let bytes = canonical::write(&manifest).expect("canonical");
    signed_bytes(BundleType::Policy, &[], &bytes, &[4, 5], payload)
}

pub fn manifest_value(seq: u64, payload: &[u8]) -> Value {
    json!({
        "author": {"reason": "a change", "tool": "tests", "who": "Ada"},
        "deployment": "harbour",
        "entries": [{"kind": "routes", "len": payload.len(), "name": "routes", "sha256": sha256(payload)}],
        "epoch": 1,
        "issued_at": GOLDEN_AT,
        "requires": [],
        "root_version": 2,
        "security_floor": GOLDEN_FLOOR,
        "seq": seq,
        "target": {"all": true},
        "type": "policy",
    })
}

/// One hostile bundle, and the name of its refusal.
#[derive(Debug, Clone)]
pub struct Case {
    pub name: &'static str,
    pub about: String,
    pub bytes: Vec<u8>,
}

pub fn case(name: &'static str, about: impl Into<String>, bytes: Vec<u8>) -> Case {
    Case { name, about: about.into(), bytes }
}

/// Judges bytes without a device: what the operator's command does.
pub fn judge(bytes: &[u8]) -> Result<Digest, Refused> {
    let (trust, device) = (Trust::new(root()), device_facts());
    let by = Judge { trust: &trust, lower: BUILD_TIME, device: &device, purpose: Purpose::Install };
    match verify(&mut Whole(std::io::Cursor::new(bytes)), &by, compile, &mut Findings::default())? {
        Verdict::Accepted(verified) => Ok(verified.digest()),
        Verdict::Revocations(list) => Ok(list.digest()),
        Verdict::Release(permit) => Ok(permit.digest()),
        Verdict::Permit(permit) => Ok(permit.digest()),
        Verdict::TimeReset(_) => Err(Refused::UnknownBundleType("a time reset; no case here makes one".into())),
        Verdict::AlreadyInstalled(digest) => Ok(digest),
    }
}

/// By what all bundles come.
pub const STICK: &str = "0781:5567/4C53";

/// A device in a folder of its own.
pub struct Device {
    pub folder: TempDir,
    pub disk: Arc<dyn Disk>,
    pub facts: DeviceFacts,
    pub compile: Compile<Policy>,
    pub importer: Option<Importer<Policy>>,
    pub origin: Origin,
    pub serving: Option<(Digest, Policy)>,
    /// The list of revocations in force.
    pub list: Option<(Digest, Revocations)>,
    pub minutes: u64,
}

impl Device {
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        let mut device =
            Self::off(tempfile::tempdir().expect("a folder"), disk, root().bytes(), device_facts(), compile);
        device.start();
        device
    }

    /// A device that was never started.
    pub fn off(
        folder: TempDir,
        disk: Arc<dyn Disk>,
        root: &[u8],
        facts: DeviceFacts,
        compile: Compile<Policy>,
    ) -> Self {
        fs::write(folder.path().join("root.json"), root).expect("the root is placed");
        fs::create_dir(folder.path().join("state")).expect("the state folder");
        fs::create_dir(folder.path().join("in")).expect("the drop folder");
        let (importer, origin, serving, list) = (None, Origin::Fresh, None, None);
        Self { folder, disk, facts, compile, importer, origin, serving, list, minutes: 0 }
    }

    /// A device on which the golden bundle serves.
    pub fn with_golden() -> Self {
        let mut device = Self::new(Arc::new(Machine));
        device.takes(&golden());
        device
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub fn settings(&self) -> Settings {
        let root = self.folder.path().join("root.json");
        Settings { state: self.state(), root, device: self.facts.clone(), trial: Duration::from_secs(600) }
    }

    /// A wall clock at 1970, and a minute more at each call, so that the journal's allowance never runs out.
    pub fn now(&mut self) -> Moment {
        self.minutes += 1;
        Moment { reading: Reading { wall_ms: 0, boot: Duration::from_secs(60 * self.minutes) }, trusted: false }
    }

    /// Starts, or ends and starts again.
    pub fn start(&mut self) {
        self.importer = None;
        let now = self.now();
        let opened = Importer::open(Arc::clone(&self.disk), self.settings(), self.compile, &now).expect("it starts");
        self.importer = Some(opened.importer);
        self.origin = opened.origin;
        self.serving = opened.serving.map(|active| (active.digest, active.policy));
        self.list = opened.list.map(|list| (list.digest, list.policy));
    }

    pub fn import(&mut self, path: &Path) -> ImportOutcome<Policy> {
        let now = self.now();
        self.import_at(path, &now)
    }

    pub fn import_at(&mut self, path: &Path, now: &Moment) -> ImportOutcome<Policy> {
        let medium = Medium::Usb(STICK.into());
        let mut outcome = self.importer.as_mut().expect("it runs").import(path, &medium, now);
        if let Some(list) = outcome.resumed.list.take() {
            self.list = Some((list.digest, list.policy));
        }
        if let Some(active) = outcome.resumed.serving.take() {
            self.serving = Some((active.digest, active.policy));
        }
        outcome
    }

    /// Puts the bytes into a file and imports it.
    pub fn offer(&mut self, bytes: &[u8]) -> ImportOutcome<Policy> {
        let path = self.folder.path().join("in/offered.tgb");
        fs::write(&path, bytes).expect("the file is written");
        self.import(&path)
    }

    pub fn takes(&mut self, bytes: &[u8]) {
        match self.offer(bytes).result {
            Imported::Activated(active) => self.serving = Some((active.digest, active.policy)),
            Imported::Permitted(_) | Imported::HandedOver { .. } | Imported::Enrolled(_) => {}
            Imported::Revoked(list) => self.list = Some((list.digest, list.policy)),
            other => panic!("{other:?}"),
        }
    }

    /// The case's bundle is refused by its name and changes nothing; the journal tells of it.
    pub fn refuses(&mut self, case: &Case) {
        let before = self.kept();
        let outcome = self.offer(&case.bytes);
        self.was_refused(&outcome, case.name, &case.about, &before);
    }

    pub fn was_refused(&self, outcome: &ImportOutcome<Policy>, name: &str, about: &str, before: &[(PathBuf, Vec<u8>)]) {
        assert_eq!(outcome.result.name(), name, "{about}: {outcome:?}");
        assert_eq!(self.kept(), before, "{about}: state or slots changed");
        let last = self.journal().pop().expect("a line");
        assert_eq!((last.result.as_str(), last.medium.as_deref()), (name, Some(&*format!("usb {STICK}"))), "{about}");
        assert!(outcome.unrecorded.is_none(), "{about}: {outcome:?}");
    }

    /// After a restart too.
    pub fn still_serves_golden(&mut self) {
        self.start();
        let (digest, policy) = self.serving.as_ref().expect("something serves");
        assert_eq!((policy.as_str(), *digest), ("golden", pack::digest(&golden()).expect("it has a digest")));
        assert_eq!(self.origin, Origin::Active);
    }

    /// State records, enrolment and slots with all their bytes. The time floor is apart: a refused bundle may raise it.
    pub fn kept(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut kept = Vec::new();
        for record in ["trust/state.0", "trust/state.1", "trust/enrolment.0", "trust/enrolment.1"] {
            let path = self.state().join(record);
            kept.extend(fs::read(&path).ok().map(|bytes| (path, bytes)));
        }
        for slot in fs::read_dir(self.state().join("slots")).expect("the slots").flatten() {
            for file in fs::read_dir(slot.path()).expect("a slot").flatten() {
                kept.push((file.path(), fs::read(file.path()).expect("a file of a slot")));
            }
        }
        kept.sort();
        kept
    }

    /// The whole journal, its chain checked.
    pub fn journal(&self) -> Vec<Line> {
        journal::read(&Machine, &self.state().join("journal")).expect("the chain holds")
    }
}
