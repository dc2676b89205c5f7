//! The manifest: what a bundle is, for whom, after which, and what is inside. Canonical JSON, signed.
//!
//! ```text
//! author {reason,tool,who} · base? · deployment · entries [{kind,len,name,sha256}] · epoch · expires_at? ·
//! issued_at · permit? {from,to} · requires [] · root_version · security_floor · seq ·
//! target {"all":true | "devices":[] | "labels":{k:[v]}} · type · version?
//! ```
//!
//! Parsing checks the form (step 8); what the values mean for this device is judged in `verify`.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::canonical;
use super::container::{BundleType, MAX_PAYLOAD};
use super::error::{Refused, plain};
use crate::ids::{DeviceId, Digest};
use crate::units::UnixSeconds;

/// The latest moment that a document may name: the last second of the year 9999.
pub const LAST_SECOND: UnixSeconds = 253_402_300_799;

const MAX_TEXT: usize = 256;
const MAX_REQUIRES: usize = 16;
const MAX_DEVICES: usize = 1_024;
const MAX_LABELS: usize = 16;
const MAX_LABEL_VALUES: usize = 256;
const MAX_VERSION: usize = 64;

/// The parts of a policy, and the packages of a release by their Debian architecture; each at most once in a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKind {
    /// Upstreams, APIs and their routes.
    Routes,
    /// Who may sign tokens, with the pinned keys.
    Issuers,
    /// Plans: rates and quotas.
    Throttle,
    /// Which application has which plan on which API.
    Subscriptions,
    /// Which tokens are no longer good.
    Revocations,
    /// Requests with known answers, to try a policy before it serves.
    Probes,
    /// The package for 64-bit x86.
    Amd64,
    /// The package for 64-bit ARM.
    Arm64,
    /// The package for 32-bit ARM with hard floats.
    Armhf,
}

impl EntryKind {
    /// The parts of a policy, in the order of their use.
    pub const ALL: [Self; 6] =
        [Self::Routes, Self::Issuers, Self::Throttle, Self::Subscriptions, Self::Revocations, Self::Probes];
    /// The packages of a release.
    pub const PACKAGES: [Self; 3] = [Self::Amd64, Self::Arm64, Self::Armhf];
    /// The package that this program would come in.
    pub const OWN_PACKAGE: Option<Self> = if cfg!(target_arch = "x86_64") {
        Some(Self::Amd64)
    } else if cfg!(target_arch = "aarch64") {
        Some(Self::Arm64)
    } else if cfg!(target_arch = "arm") {
        Some(Self::Armhf)
    } else {
        None
    };

    /// The word in the manifest, and the file name in a slot.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Routes => "routes",
            Self::Issuers => "issuers",
            Self::Throttle => "throttle",
            Self::Subscriptions => "subscriptions",
            Self::Revocations => "revocations",
            Self::Probes => "probes",
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
            Self::Armhf => "armhf",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().chain(Self::PACKAGES).find(|kind| kind.name() == name)
    }

    /// Whether it is a package of a release, and no part of a policy.
    #[must_use]
    pub const fn is_package(self) -> bool {
        matches!(self, Self::Amd64 | Self::Arm64 | Self::Armhf)
    }

    /// Most bytes of an entry of this kind.
    #[must_use]
    pub const fn limit(self) -> u64 {
        match self {
            Self::Routes => 4 << 20,
            Self::Issuers | Self::Throttle | Self::Probes => 1 << 20,
            Self::Subscriptions => 12 << 20,
            Self::Revocations => MAX_PAYLOAD, // a million ids are 16 MB
            Self::Amd64 | Self::Arm64 | Self::Armhf => MAX_PAYLOAD,
        }
    }
}

impl fmt::Display for EntryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The entries of one bundle, by kind.
pub type Entries = BTreeMap<EntryKind, Vec<u8>>;

/// Who made the bundle, and why; for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Author {
    /// The person.
    pub who: String,
    /// The program and its version.
    pub tool: String,
    /// Why the policy changes.
    pub reason: String,
}

impl Author {
    /// What is wrong with a text of it.
    pub(super) fn check(&self) -> Result<(), String> {
        for (member, text) in [("who", &self.who), ("tool", &self.tool), ("reason", &self.reason)] {
            if text.len() > MAX_TEXT || text.chars().any(char::is_control) {
                return Err(format!("author.{member} is longer than {MAX_TEXT} bytes or has control characters"));
            }
        }
        Ok(())
    }
}

/// For which devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Every device of the deployment.
    All,
    /// These ones.
    Devices(Vec<DeviceId>),
    /// Those that have, for each key, one of its values.
    Labels(BTreeMap<String, Vec<String>>),
}

/// What a device is, where a target asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceFacts {
    /// Its id.
    pub id: DeviceId,
    /// Its labels, from a signed enrolment; never from the configuration.
    pub labels: BTreeMap<String, String>,
}

impl Target {
    /// Whether `device` is meant.
    #[must_use]
    pub fn names(&self, device: &DeviceFacts) -> bool {
        match self {
            Self::All => true,
            Self::Devices(ids) => ids.contains(&device.id),
            Self::Labels(wanted) => {
                wanted.iter().all(|(key, values)| device.labels.get(key).is_some_and(|value| values.contains(value)))
            }
        }
    }

    /// Whether it can name no device at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::All => false,
            Self::Devices(ids) => ids.is_empty(),
            Self::Labels(wanted) => wanted.is_empty() || wanted.values().any(Vec::is_empty),
        }
    }
}

/// Leave to go from one exact bundle to another: what a bundle of type permit says. In the order of its members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Permit {
    /// The bundle that serves.
    pub from: Digest,
    /// The one that may take its place, though it is older, or another of its number.
    pub to: Digest,
}

/// One line of the entry table, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Which part.
    pub kind: EntryKind,
    /// Where it begins in the payload, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u64,
    /// For people.
    pub name: String,
    /// Its SHA-256.
    pub sha256: Digest,
}

/// A manifest whose form is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    form: Form,
    kind: BundleType,
    /// For which devices.
    pub target: Target,
}

/// The members as they are written. Their names and types are the format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Form {
    pub(super) author: Author,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) base: Option<Digest>,
    pub(super) deployment: String,
    pub(super) entries: Vec<EntryForm>,
    pub(super) epoch: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expires_at: Option<UnixSeconds>,
    pub(super) issued_at: UnixSeconds,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) permit: Option<Permit>,
    pub(super) requires: Vec<String>,
    pub(super) root_version: u64,
    pub(super) security_floor: u64,
    pub(super) seq: u64,
    pub(super) target: TargetForm,
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) version: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EntryForm {
    pub(super) kind: String,
    pub(super) len: u64,
    pub(super) name: String,
    pub(super) sha256: Digest,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TargetForm {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    all: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    devices: Option<Vec<DeviceId>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    labels: Option<BTreeMap<String, Vec<String>>>,
}

impl From<&Target> for TargetForm {
    fn from(target: &Target) -> Self {
        match target {
            Target::All => Self { all: Some(true), ..Self::default() },
            Target::Devices(ids) => Self { devices: Some(ids.clone()), ..Self::default() },
            Target::Labels(wanted) => Self { labels: Some(wanted.clone()), ..Self::default() },
        }
    }
}

impl Manifest {
    /// Step 8: canonical JSON, then the schema of a manifest of type `expected`.
    pub fn parse(bytes: &[u8], expected: BundleType) -> Result<Self, Refused> {
        let value = canonical::read(bytes).map_err(|error| Refused::ManifestNotCanonical(error.to_string()))?;
        let form: Form = canonical::typed(value).map_err(|error| Refused::ManifestSchema(plain(&error)))?;
        if form.kind != expected.name() {
            let detail = format!("the manifest says {:?}, the preamble {:?}", plain(&form.kind), expected.name());
            return Err(Refused::TypeMismatch(detail));
        }
        if form.permit.is_some() != (expected == BundleType::Permit) {
            return Err(Refused::ManifestSchema("permit: a bundle of that type has it, and no other".into()));
        }
        if form.version.is_some() != (expected == BundleType::Release) {
            return Err(Refused::ManifestSchema("version: a release has it, and no other".into()));
        }
        let target = form.check().map_err(Refused::ManifestSchema)?;
        Ok(Self { form, kind: expected, target })
    }

    /// What it is the manifest of.
    #[must_use]
    pub fn kind(&self) -> BundleType {
        self.kind
    }

    /// Who made it.
    #[must_use]
    pub fn author(&self) -> &Author {
        &self.form.author
    }

    /// Which deployment it is for.
    #[must_use]
    pub fn deployment(&self) -> &str {
        &self.form.deployment
    }

    /// The root's generation that it counts in.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.form.epoch
    }

    /// Its place in the order; at least 1.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.form.seq
    }

    /// The least root version that it may be judged with.
    #[must_use]
    pub fn root_version(&self) -> u64 {
        self.form.root_version
    }

    /// When it was made.
    #[must_use]
    pub fn issued_at(&self) -> UnixSeconds {
        self.form.issued_at
    }

    /// Until when it may be installed.
    #[must_use]
    pub fn expires_at(&self) -> Option<UnixSeconds> {
        self.form.expires_at
    }

    /// The sequence number below which nothing may be installed after it.
    #[must_use]
    pub fn security_floor(&self) -> u64 {
        self.form.security_floor
    }

    /// What it gives leave to; a bundle of type permit has it, and no other.
    #[must_use]
    pub fn permit(&self) -> Option<Permit> {
        self.form.permit
    }

    /// The version of the packages; a release has it, and no other.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.form.version.as_deref()
    }

    /// The bundle that a device must serve to take this policy.
    #[must_use]
    pub fn base(&self) -> Option<Digest> {
        self.form.base
    }

    /// What a reader must be able to do, beyond format 1. Only a policy stands on another bundle.
    pub fn requires(&self) -> impl Iterator<Item = &str> {
        let base = self.form.base.filter(|_| self.kind() != BundleType::Policy).map(|_| "base");
        self.form.requires.iter().map(String::as_str).chain(base)
    }

    /// Step 13: the entry table, which must fill `payload_len` bytes exactly.
    pub fn entries(&self, payload_len: u64) -> Result<Vec<Entry>, Refused> {
        let forms = &self.form.entries;
        let most = match self.kind() {
            BundleType::Permit => 0,
            BundleType::Release => EntryKind::PACKAGES.len(),
            BundleType::Policy | BundleType::Revocation => EntryKind::ALL.len(),
        };
        if let Some(form) = forms.first().filter(|_| most == 0) {
            return Err(Refused::EntryNotAllowed(format!("{:?} in a permit", plain(&form.kind))));
        }
        if !(most.min(1)..=most).contains(&forms.len()) {
            let detail = format!("{} entries; a bundle of its type has 1 to {most}", forms.len());
            return Err(Refused::EntryCount(detail));
        }
        let mut entries: Vec<Entry> = Vec::with_capacity(forms.len());
        let mut offset = 0_u64;
        for form in forms {
            let kind = EntryKind::from_name(&form.kind)
                .ok_or_else(|| Refused::EntryKindUnknown(format!("{:?}", plain(&form.kind))))?;
            if !is_name(&form.name) {
                return Err(Refused::EntryName(format!("{:?} of {kind}", plain(&form.name))));
            }
            if self.kind() == BundleType::Revocation && kind != EntryKind::Revocations {
                return Err(Refused::EntryNotAllowed(format!("{kind} in a list of revocations")));
            }
            if kind.is_package() != (self.kind() == BundleType::Release) {
                return Err(Refused::EntryNotAllowed(format!("{kind} in a {}", self.kind().name())));
            }
            if entries.iter().any(|before| before.kind == kind) {
                return Err(Refused::EntryDuplicate(format!("a second entry of kind {kind}")));
            }
            if form.len > kind.limit() {
                let detail = format!("{kind} has {} bytes; at most {}", form.len, kind.limit());
                return Err(Refused::EntryTooLarge(detail));
            }
            entries.push(Entry { kind, offset, len: form.len, name: form.name.clone(), sha256: form.sha256 });
            offset = offset.saturating_add(form.len);
        }
        if offset != payload_len {
            let detail = format!("the entries add up to {offset} bytes, the payload has {payload_len}");
            return Err(Refused::PayloadLengthMismatch(detail));
        }
        Ok(entries)
    }
}

impl Form {
    /// The rules that types alone do not say; gives the target.
    pub(super) fn check(&self) -> Result<Target, String> {
        if !is_name(&self.deployment) {
            return Err("deployment is not a name".into());
        }
        self.author.check()?;
        if self.seq == 0 {
            return Err("seq is 0; the first is 1".into());
        }
        let times = [Some(self.issued_at), self.expires_at];
        if times.into_iter().flatten().any(|at| !(0..=LAST_SECOND).contains(&at)) {
            return Err("a time is not between 1970 and 9999".into());
        }
        if self.requires.len() > MAX_REQUIRES || !self.requires.iter().all(|name| is_name(name)) {
            return Err(format!("requires holds more than {MAX_REQUIRES} features or one that is not a name"));
        }
        if !self.version.as_deref().is_none_or(is_version) {
            return Err("version is not one that begins with a digit, of a-z, A-Z, 0-9 and .+~-".into());
        }
        self.target.check()
    }
}

impl TargetForm {
    pub(super) fn check(&self) -> Result<Target, String> {
        match (self.all, &self.devices, &self.labels) {
            (Some(true), None, None) => Ok(Target::All),
            (None, Some(ids), None) if ids.len() <= MAX_DEVICES => Ok(Target::Devices(ids.clone())),
            (None, None, Some(labels)) => {
                let bounded = |text: &String| text.len() <= MAX_TEXT;
                let fits = labels.len() <= MAX_LABELS
                    && labels.keys().all(bounded)
                    && labels.values().all(|values| values.len() <= MAX_LABEL_VALUES && values.iter().all(bounded));
                if !fits {
                    return Err("target.labels is over its limits".into());
                }
                Ok(Target::Labels(labels.clone()))
            }
            // `{}` and `{"all":false}` name nobody: well formed, and refused in step 10.
            (None | Some(false), None, None) => Ok(Target::Devices(Vec::new())),
            _ => Err(format!("target is not one of all, devices (at most {MAX_DEVICES}) and labels")),
        }
    }
}

/// `[0-9][A-Za-z0-9.+~-]{0,63}`: a Debian version without an epoch.
fn is_version(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'+' | b'~' | b'-');
    bytes.len() <= MAX_VERSION && bytes.first().is_some_and(u8::is_ascii_digit) && bytes.iter().all(inner)
}

/// `[a-z0-9][a-z0-9._-]{0,63}`: names of deployments, entries and features.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let inner = |byte: u8| letter(byte) || matches!(byte, b'.' | b'_' | b'-');
    let bytes = text.as_bytes();
    bytes.len() <= 64 && bytes.first().is_some_and(|first| letter(*first)) && bytes.iter().all(|byte| inner(*byte))
}
