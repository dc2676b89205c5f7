//! The root document: the keys of a deployment, and how many of which must sign what.
//!
//! ```text
//! deployment · epoch · issued_at · keys [{alg,name,public}] ·
//! roles {hub?,permit?,policy,release?,revocation?,root: {keys:[index],threshold}} · type "root" · version
//! ```
//!
//! `alg` is `ed25519` or `ecdsa-p256`, `public` the raw key in lower-case hex. Indexes ascend. A role that
//! is left out can be played by nobody. A device trusts the root that its operator placed; a value of
//! [`RootDocument`] is sound in itself, which says nothing about whether it is trusted.

use std::collections::{BTreeMap, BinaryHeap};

use serde::{Deserialize, Serialize};

use super::canonical;
use super::container::{BundleType, MAX_ROOT, MAX_SIGNATURES, Signature};
use super::error::{Refused, plain};
use super::manifest::{LAST_SECOND, is_name};
use crate::ids::{Digest, KeyId, hex};
use crate::keys::{KeyAlg, PublicKey, sha256};
use crate::units::UnixSeconds;

/// The media type that signatures over a root document are made for.
pub const MEDIA_TYPE: &str = "application/vnd.tidegate.root.v1+json";

const MAX_KEYS: usize = 64;
const MAX_KEY_NAME: usize = 64;

/// What a key may sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Receipts, time and leases.
    Hub,
    /// Leave to go back to an exact bundle.
    Permit,
    /// Policy bundles.
    Policy,
    /// Releases of the daemon.
    Release,
    /// Lists of what is revoked.
    Revocation,
    /// The next root.
    Root,
}

impl Role {
    /// All of them, in the order of the document.
    pub const ALL: [Self; 6] = [Self::Hub, Self::Permit, Self::Policy, Self::Release, Self::Revocation, Self::Root];

    /// The role of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// The word in the document.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hub => "hub",
            Self::Permit => "permit",
            Self::Policy => "policy",
            Self::Release => "release",
            Self::Revocation => "revocation",
            Self::Root => "root",
        }
    }

    /// Who signs bundles of that type.
    #[must_use]
    pub const fn of(bundle_type: BundleType) -> Self {
        match bundle_type {
            BundleType::Policy => Self::Policy,
            BundleType::Revocation => Self::Revocation,
            BundleType::Permit => Self::Permit,
            BundleType::Release => Self::Release,
        }
    }
}

/// A role's keys, as indexes into the document's, and how many of them must sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleKeys {
    /// Ascending indexes.
    pub keys: Vec<usize>,
    /// 1 to the number of keys, and no more than a signature block holds.
    pub threshold: usize,
}

/// What a root is made of, before it is checked and has bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootDraft {
    /// The deployment's name.
    pub deployment: String,
    /// Its generation; a new one restarts the counters of devices.
    pub epoch: u64,
    /// The first is 1.
    pub version: u64,
    /// When it was made.
    pub issued_at: UnixSeconds,
    /// The keys, each with the name of who holds it.
    pub keys: Vec<(String, PublicKey)>,
    /// Who plays what.
    pub roles: BTreeMap<Role, RoleKeys>,
}

/// A root that is sound in itself: known roles, thresholds that can be met, no key twice, none weak.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootDocument {
    draft: RootDraft,
    bytes: Vec<u8>,
}

/// What the signatures of a document are worth for one role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signers {
    /// The role's keys that signed, ascending.
    pub keys: Vec<KeyId>,
    /// How many are needed.
    pub threshold: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    deployment: String,
    epoch: u64,
    issued_at: UnixSeconds,
    keys: Vec<KeyForm>,
    roles: BTreeMap<Role, RoleKeys>,
    #[serde(rename = "type")]
    kind: String,
    version: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyForm {
    alg: String,
    name: String,
    public: String,
}

impl RootDocument {
    /// Builds the document; `RootInvalid` says what is unsound.
    pub fn build(draft: RootDraft) -> Result<Self, Refused> {
        let form = Form {
            deployment: draft.deployment.clone(),
            epoch: draft.epoch,
            issued_at: draft.issued_at,
            keys: draft.keys.iter().map(|(name, key)| KeyForm::new(name, key)).collect(),
            roles: draft.roles.clone(),
            kind: "root".into(),
            version: draft.version,
        };
        let bytes = canonical::write(&form).map_err(|error| Refused::RootInvalid(error.to_string()))?;
        Self::parse(&bytes)
    }

    /// The same from a file: one line feed after the document is forgiven.
    pub fn from_file(bytes: &[u8]) -> Result<Self, Refused> {
        Self::parse(bytes.strip_suffix(b"\n").unwrap_or(bytes))
    }

    /// Reads the document's exact bytes: `RootSchema` for its form, `RootInvalid` for its sense.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        if bytes.len() > MAX_ROOT as usize {
            return Err(Refused::RootSchema(format!("{} bytes; at most {MAX_ROOT}", bytes.len())));
        }
        let value = canonical::read(bytes).map_err(|error| Refused::RootSchema(error.to_string()))?;
        let form: Form = canonical::typed(value).map_err(|error| Refused::RootSchema(plain(&error)))?;
        if form.kind != "root" {
            return Err(Refused::RootSchema(format!("type is {:?}", plain(&form.kind))));
        }
        let keys = form.keys.iter().map(KeyForm::read).collect::<Result<Vec<_>, Refused>>()?;
        let draft = RootDraft {
            deployment: form.deployment,
            epoch: form.epoch,
            version: form.version,
            issued_at: form.issued_at,
            keys,
            roles: form.roles,
        };
        draft.check().map_err(Refused::RootInvalid)?;
        Ok(Self { draft, bytes: bytes.to_vec() })
    }

    /// What it is made of.
    #[must_use]
    pub fn draft(&self) -> &RootDraft {
        &self.draft
    }

    /// Its exact bytes, which are signed and pinned.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// SHA-256 of its bytes.
    #[must_use]
    pub fn digest(&self) -> Digest {
        sha256(&self.bytes)
    }

    /// The deployment's name.
    #[must_use]
    pub fn deployment(&self) -> &str {
        &self.draft.deployment
    }

    /// Its generation.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.draft.epoch
    }

    /// Its number in the chain of roots.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.draft.version
    }

    /// When it was made.
    #[must_use]
    pub fn issued_at(&self) -> UnixSeconds {
        self.draft.issued_at
    }

    /// The keys of a role; none where nobody plays it.
    pub fn role_keys(&self, role: Role) -> impl Iterator<Item = &PublicKey> {
        let indexes = self.draft.roles.get(&role).map_or(&[][..], |keys| &keys.keys);
        indexes.iter().filter_map(|at| self.draft.keys.get(*at)).map(|(_, key)| key)
    }

    /// How many keys of a role must sign; `None` where nobody plays it.
    #[must_use]
    pub fn threshold(&self, role: Role) -> Option<usize> {
        self.draft.roles.get(&role).map(|keys| keys.threshold)
    }

    /// The name of who holds a key, for people.
    #[must_use]
    pub fn holder(&self, key: KeyId) -> Option<&str> {
        self.draft.keys.iter().find(|(_, candidate)| candidate.id() == key).map(|(name, _)| name.as_str())
    }

    /// Step 7: the role's keys whose signatures over `message` are good. Unknown key ids are passed over;
    /// a bad signature that claims one of the role's keys is fatal.
    pub fn signers(
        &self,
        role: Role,
        media_type: &str,
        message: &[u8],
        signatures: &[Signature],
    ) -> Result<Signers, Refused> {
        let threshold = self
            .threshold(role)
            .ok_or_else(|| Refused::ThresholdNotMet(format!("the root gives nobody the role {}", role.name())))?;
        let mut keys = BinaryHeap::new();
        for key in self.role_keys(role) {
            // The id is computed from the pinned key: what the file says is only where to look.
            let id = key.id();
            let Some(signature) = signatures.iter().find(|signature| signature.key == id) else { continue };
            if !key.verifies(media_type, message, &signature.bytes) {
                return Err(Refused::SignatureInvalid(format!("the signature of key {id}")));
            }
            keys.push(id);
        }
        Ok(Signers { keys: keys.into_sorted_vec(), threshold })
    }
}

impl Signers {
    /// `ThresholdNotMet` where too few signed.
    pub fn meet(self, role: Role) -> Result<Vec<KeyId>, Refused> {
        if self.keys.len() < self.threshold {
            let detail = format!("{} of {} signatures by the role {}", self.keys.len(), self.threshold, role.name());
            return Err(Refused::ThresholdNotMet(detail));
        }
        Ok(self.keys)
    }
}

impl RootDraft {
    fn check(&self) -> Result<(), String> {
        if !is_name(&self.deployment) {
            return Err("deployment is not a name".into());
        }
        if self.version == 0 {
            return Err("version is 0; the first is 1".into());
        }
        if !(0..=LAST_SECOND).contains(&self.issued_at) {
            return Err("issued_at is not between 1970 and 9999".into());
        }
        if !(1..=MAX_KEYS).contains(&self.keys.len()) {
            return Err(format!("{} keys; the limits are 1 to {MAX_KEYS}", self.keys.len()));
        }
        for (at, (name, key)) in self.keys.iter().enumerate() {
            if name.is_empty() || name.len() > MAX_KEY_NAME || name.chars().any(char::is_control) {
                return Err(format!("the name of key {at} is empty, too long or has control characters"));
            }
            if self.keys.iter().take(at).any(|(_, before)| before == key) {
                return Err(format!("key {at} is there twice"));
            }
        }
        for role in [Role::Root, Role::Policy] {
            if !self.roles.contains_key(&role) {
                return Err(format!("nobody has the role {}", role.name()));
            }
        }
        for (role, RoleKeys { keys, threshold }) in &self.roles {
            let role = role.name();
            if !keys.is_sorted_by(|a, b| a < b) {
                return Err(format!("the key indexes of {role} do not ascend"));
            }
            if keys.iter().any(|at| *at >= self.keys.len()) {
                return Err(format!("{role} names a key that is not there"));
            }
            if !(1..=keys.len()).contains(threshold) {
                return Err(format!("the threshold of {role} is {threshold} of {} keys", keys.len()));
            }
            if *threshold > usize::from(MAX_SIGNATURES) {
                return Err(format!("the threshold of {role} is {threshold}; {MAX_SIGNATURES} can sign a document"));
            }
        }
        Ok(())
    }
}

impl KeyForm {
    fn new(name: &str, key: &PublicKey) -> Self {
        Self { alg: key.alg().name().into(), name: name.into(), public: hex(key.raw()) }
    }

    fn read(&self) -> Result<(String, PublicKey), Refused> {
        let unknown = || Refused::RootSchema(format!("unknown key algorithm {:?}", plain(&self.alg)));
        let alg = KeyAlg::from_name(&self.alg).ok_or_else(unknown)?;
        let raw = alg.unhex(&self.public).map_err(|error| Refused::RootSchema(format!("public: {error}")))?;
        let key = PublicKey::new(alg, &raw)
            .map_err(|error| Refused::RootInvalid(format!("key {:?}: {error}", plain(&self.name))))?;
        Ok((self.name.clone(), key))
    }
}
