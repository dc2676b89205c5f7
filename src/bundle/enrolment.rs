//! Which labels a device has, by somebody else's word: what it asks for, and what it is given.
//!
//! ```text
//! request     device · key · labels · model                             signed by the device's own key
//! enrolment   deployment · device · epoch · issued_at · key · labels ·  signed by the threshold of the role policy,
//!             root_version · seq                                        or by a key of the role hub
//! ```
//!
//! Both are signed documents (`*.tgd`); `key` is the raw Ed25519 key in hex. The request shows that whoever asks holds
//! the key. An enrolment is taken through the importer, by the same steps as a bundle where they apply. `(epoch, seq)`
//! only ever rises: that of the policy role counts by itself, so that whoever has the hub's key cannot lock it out by a
//! number; the hub's must be above both. It takes no policy out of service: labels decide about what comes after it. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::address::Address;
use super::canonical;
use super::document::{Document, DocumentKind};
use super::error::{Refused, plain};
use super::manifest::{LAST_SECOND, Target, is_name};
use super::root::{Role, RootDocument};
use super::trust::plausible;
use super::verify::{Findings, Judge, Purpose};
use crate::ids::{DeviceId, Digest, KeyId, hex, unhex};
use crate::keys::{KeyAlg, PublicKey, SigningKey, sha256};
use crate::units::UnixSeconds;

/// Most labels of a device.
pub const MAX_LABELS: usize = 16;
/// Most bytes of a label's value, and of a model's name.
const MAX_TEXT: usize = 256;

/// Labels by their keys.
pub type Labels = BTreeMap<String, String>;

/// What a device says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The device.
    pub device: DeviceId,
    key: String,
    /// The labels that it would like to have; whoever enrols it decides.
    pub labels: Labels,
    /// What kind of machine it is, for people.
    pub model: String,
}

impl Request {
    /// The request of the device of `key`.
    pub fn sign(key: &SigningKey, labels: Labels, model: &str) -> Result<Document, Refused> {
        let public = key.public();
        let device = DeviceId::from(public.id());
        let request = Self { device, key: hex(public.raw()), labels, model: model.to_owned() };
        request.check()?;
        Document::sign(DocumentKind::DeviceRequest, &request, key)
    }

    /// Reads a request; whoever made it holds the key that is returned.
    pub fn verify(document: &Document) -> Result<(Self, PublicKey), Refused> {
        document.expect(DocumentKind::DeviceRequest)?;
        let request: Self = document.read()?;
        let key = public(&request.key)?;
        document.signed_by(&key)?;
        owned(request.device, &key)?;
        request.check()?;
        Ok((request, key))
    }

    fn check(&self) -> Result<(), Refused> {
        check_labels(&self.labels)?;
        check_text("the model", &self.model)
    }
}

/// What a device is told of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolment {
    /// Which deployment it belongs to.
    pub deployment: String,
    /// The device.
    pub device: DeviceId,
    /// The generation of the root that it counts in.
    pub epoch: u64,
    /// When it was made.
    pub issued_at: UnixSeconds,
    key: String,
    /// What targets of bundles ask for.
    pub labels: Labels,
    /// The least root version that it may be judged with.
    pub root_version: u64,
    /// Its place in the order of this device's enrolments by its role; at least 1.
    pub seq: u64,
}

impl Enrolment {
    /// The enrolment of the device of `key` in the deployment of `root`, not signed yet.
    pub fn new(
        root: &RootDocument,
        key: &PublicKey,
        labels: Labels,
        seq: u64,
        issued_at: UnixSeconds,
    ) -> Result<Self, Refused> {
        let enrolment = Self {
            deployment: root.deployment().to_owned(),
            device: DeviceId::from(key.id()),
            epoch: root.epoch(),
            issued_at,
            key: hex(key.raw()),
            labels,
            root_version: root.version(),
            seq,
        };
        enrolment.check()?;
        Ok(enrolment)
    }

    /// What a document of it is called: SHA-256 of its canonical form, which is what is signed.
    pub fn digest(&self) -> Result<Digest, Refused> {
        let body = canonical::write(self).map_err(|error| Refused::ManifestNotCanonical(error.to_string()))?;
        Ok(sha256(&body))
    }

    /// Reads an enrolment that the policy or the hub role of `root` signed, whichever device it is for; its key, and
    /// who signed.
    pub fn verify(document: &Document, root: &RootDocument) -> Result<Signed, Refused> {
        document.expect(DocumentKind::Enrolment)?;
        // 7 count distinct role keys with good signatures, before parsing
        let (role, signers) = signers(document, root)?;
        // 8 canonical JSON, schema, type
        let enrolment: Self = document.read()?;
        enrolment.check()?;
        let key = enrolment.key()?;
        // 10 (a part of it) deployment, root_version
        enrolment.address(&enrolment.target()).is_under(root)?;
        Ok(Signed { enrolment, key, role, signers })
    }

    /// The key that it is for, whose id is the device's. Nothing is verified by that.
    pub fn key(&self) -> Result<PublicKey, Refused> {
        let key = public(&self.key)?;
        owned(self.device, &key)?;
        Ok(key)
    }

    fn target(&self) -> Target {
        Target::Devices(vec![self.device])
    }

    fn address<'a>(&'a self, target: &'a Target) -> Address<'a> {
        let Self { deployment, epoch, root_version, .. } = self;
        Address { deployment, root_version: *root_version, epoch: *epoch, target, exact: false }
    }

    fn check(&self) -> Result<(), Refused> {
        if !is_name(&self.deployment) || self.seq == 0 || !(0..=LAST_SECOND).contains(&self.issued_at) {
            return Err(Refused::ManifestSchema("deployment, seq or issued_at has no sound value".into()));
        }
        check_labels(&self.labels)
    }
}

/// An enrolment that a role of the root vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// What it says.
    pub enrolment: Enrolment,
    /// The device's key.
    pub key: PublicKey,
    /// The role whose threshold was met.
    pub role: Role,
    /// Its keys that signed.
    pub signers: Vec<KeyId>,
}

/// The enrolment that a device has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// What it says.
    pub enrolment: Enrolment,
    /// Which one.
    pub digest: Digest,
    /// Whose word it is: the role policy or the role hub.
    pub role: Role,
}

/// Where an enrolment stands in the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) epoch: u64,
    pub(super) seq: u64,
    pub(super) digest: Digest,
}

/// The last enrolment that a device took of each role.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) policy: Option<Place>,
    pub(super) hub: Option<Place>,
}

impl Places {
    /// These, after `held` was taken.
    #[must_use]
    pub(super) fn with(self, held: &Held) -> Self {
        let Enrolment { epoch, seq, .. } = held.enrolment;
        let place = Some(Place { epoch, seq, digest: held.digest });
        if held.role == Role::Hub { Self { hub: place, ..self } } else { Self { policy: place, ..self } }
    }

    /// Step 12: whether `held` comes next.
    fn order(&self, held: &Held) -> Result<(), Refused> {
        let Held { enrolment: Enrolment { epoch, seq, .. }, digest, role } = held;
        let own = if *role == Role::Hub { self.hub } else { self.policy };
        if let Some(last) = own.filter(|last| (last.epoch, last.seq) == (*epoch, *seq) && last.digest != *digest) {
            return Err(Refused::Equivocation(format!("sequence {seq} was already used by enrolment {}", last.digest)));
        }
        let above = [own, self.policy].into_iter().flatten().max_by_key(|last| (last.epoch, last.seq));
        match above.filter(|last| (*epoch, *seq) <= (last.epoch, last.seq)) {
            None => Ok(()),
            Some(last) => {
                let detail = format!("sequence {seq}; the device has seen {} of epoch {}", last.seq, last.epoch);
                Err(Refused::EnrolmentRollback(detail))
            }
        }
    }
}

/// How a judgement that refused nothing ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ruling {
    /// It may be taken.
    Next(Held),
    /// The device has it already.
    AlreadyInstalled,
}

/// Judges an enrolment for `by.device`, which has `held` until now and has taken those of `places`.
pub(super) fn judge(
    document: &Document,
    by: &Judge<'_>,
    (held, places): (Option<Digest>, &Places),
    found: &mut Findings,
) -> Result<Ruling, Refused> {
    let digest = document.digest();
    found.digest = Some(digest);
    if let Some(lost) = by.trust.lost.filter(|_| by.purpose == Purpose::Install) {
        let detail = format!("root version {}, which this device had, is not reached", lost.version);
        return Err(Refused::StateLost(detail));
    }
    // 7, 8, and of 10 deployment and root_version
    let root = &by.trust.root;
    let Signed { enrolment, role, signers, .. } = Enrolment::verify(document, root)?;
    found.signers = signers;
    found.seq = Some(enrolment.seq);
    if by.purpose == Purpose::Install {
        // 9 plausible `issued_at`, then raise the time floor; not by the hub, which vouches for no time without a limit
        plausible(enrolment.issued_at, by.lower)?;
        found.issued_at = (role == Role::Policy).then_some(enrolment.issued_at);
    }
    // 10 epoch, target
    enrolment.address(&enrolment.target()).reaches(by)?;
    // 12 order
    if held == Some(digest) {
        return Ok(Ruling::AlreadyInstalled);
    }
    let next = Held { enrolment, digest, role };
    places.order(&next)?;
    Ok(Ruling::Next(next))
}

/// The role policy where its threshold is met, else the role hub.
fn signers(document: &Document, root: &RootDocument) -> Result<(Role, Vec<KeyId>), Refused> {
    let by = |role| {
        let counted =
            root.signers(role, DocumentKind::Enrolment.media_type(), document.body(), document.signatures())?;
        Ok((role, counted.meet(role)?))
    };
    match by(Role::Policy) {
        Err(Refused::ThresholdNotMet(policy)) => by(Role::Hub).map_err(|refused| match refused {
            Refused::ThresholdNotMet(hub) => Refused::ThresholdNotMet(format!("{policy}; {hub}")),
            other => other,
        }),
        other => other,
    }
}

fn public(text: &str) -> Result<PublicKey, Refused> {
    let raw = unhex::<32>(text).map_err(|error| Refused::ManifestSchema(format!("key: {error}")))?;
    PublicKey::new(KeyAlg::Ed25519, &raw).map_err(|error| Refused::WeakKey(format!("the device's key: {error}")))
}

fn owned(device: DeviceId, key: &PublicKey) -> Result<(), Refused> {
    let of_key = DeviceId::from(key.id());
    if device == of_key {
        return Ok(());
    }
    Err(Refused::NotForThisDevice(format!("it names device {device}; its key is that of {of_key}")))
}

fn check_labels(labels: &Labels) -> Result<(), Refused> {
    if labels.len() > MAX_LABELS {
        return Err(Refused::ManifestSchema(format!("{} labels; at most {MAX_LABELS}", labels.len())));
    }
    for (key, value) in labels {
        if !is_name(key) {
            let detail = format!("label {:?}: a key is of a-z, 0-9, dot, dash and underscore", plain(key));
            return Err(Refused::ManifestSchema(detail));
        }
        check_text(&format!("the label {key}"), value)?;
    }
    Ok(())
}

fn check_text(what: &str, text: &str) -> Result<(), Refused> {
    if text.is_empty() || text.len() > MAX_TEXT || text.chars().any(char::is_control) {
        let detail = format!("{what} is empty, longer than {MAX_TEXT} bytes or has control characters");
        return Err(Refused::ManifestSchema(detail));
    }
    Ok(())
}
