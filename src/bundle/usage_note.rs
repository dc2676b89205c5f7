//! Leave to take a device's usage along on a stick: the EXPORT-USAGE note.
//!
//! ```text
//! note   deployment · devices · epoch · expires_at · issued_at · root_version    signed by the threshold of the role policy
//! ```
//!
//! A signed document (`*.tgd`). Usage tells of persons, so a stick alone is no reason to hand it out. A note names exact
//! devices and its last moment, counts as often as it is brought until then, and changes nothing on the device: what it
//! allows happens to the stick that brought it, by whoever reads sticks. Pure.

use serde::{Deserialize, Serialize};

use super::address::Address;
use super::document::{Document, DocumentKind};
use super::error::Refused;
use super::manifest::{LAST_SECOND, Target, is_name};
use super::root::{Role, RootDocument};
use super::trust::plausible;
use super::verify::{Findings, Judge, Purpose};
use crate::ids::{DeviceId, KeyId};
use crate::units::UnixSeconds;

/// Most devices that a note names: a technician's round.
pub const MAX_DEVICES: usize = 256;

/// Whose usage may leave, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsageNote {
    /// Which deployment it belongs to.
    pub deployment: String,
    /// The devices; ascending.
    pub devices: Vec<DeviceId>,
    /// The generation of the root that it counts in.
    pub epoch: u64,
    /// The moment from which on it is worth nothing.
    pub expires_at: UnixSeconds,
    /// When it was made.
    pub issued_at: UnixSeconds,
    /// The least root version that it may be judged with.
    pub root_version: u64,
}

impl UsageNote {
    /// A note for `devices` in the deployment of `root`, not signed yet.
    pub fn new(
        root: &RootDocument,
        mut devices: Vec<DeviceId>,
        issued_at: UnixSeconds,
        expires_at: UnixSeconds,
    ) -> Result<Self, Refused> {
        devices.sort_unstable();
        devices.dedup();
        let (deployment, epoch, root_version) = (root.deployment().to_owned(), root.epoch(), root.version());
        let note = Self { deployment, devices, epoch, expires_at, issued_at, root_version };
        note.check()?;
        Ok(note)
    }

    /// Reads a note that the policy role of `root` signed, whichever devices it is for; and who signed.
    pub fn verify(document: &Document, root: &RootDocument) -> Result<(Self, Vec<KeyId>), Refused> {
        document.expect(DocumentKind::ExportUsage)?;
        // 7 count distinct role keys with good signatures, before parsing
        let media_type = DocumentKind::ExportUsage.media_type();
        let counted = root.signers(Role::Policy, media_type, document.body(), document.signatures())?;
        let signers = counted.meet(Role::Policy)?;
        // 8 canonical JSON, schema, type
        let note: Self = document.read()?;
        note.check()?;
        // 10 (a part of it) deployment, root_version
        note.address(&note.target()).is_under(root)?;
        Ok((note, signers))
    }

    fn target(&self) -> Target {
        Target::Devices(self.devices.clone())
    }

    fn address<'a>(&'a self, target: &'a Target) -> Address<'a> {
        let Self { deployment, epoch, root_version, .. } = self;
        Address { deployment, root_version: *root_version, epoch: *epoch, target, exact: true }
    }

    fn check(&self) -> Result<(), Refused> {
        let moments = [self.issued_at, self.expires_at];
        if !is_name(&self.deployment) || moments.iter().any(|at| !(0..=LAST_SECOND).contains(at)) {
            return Err(Refused::ManifestSchema("deployment, issued_at or expires_at has no sound value".into()));
        }
        if self.devices.is_empty() || self.devices.len() > MAX_DEVICES {
            let detail = format!("{} devices; a note names 1 to {MAX_DEVICES}", self.devices.len());
            return Err(Refused::ManifestSchema(detail));
        }
        if !self.devices.is_sorted_by(|a, b| a < b) {
            return Err(Refused::ManifestSchema("the devices do not ascend".into()));
        }
        Ok(())
    }
}

/// Judges a note for `by.device`; gives the moment from which on it is worth nothing.
pub fn judge(document: &Document, by: &Judge<'_>, found: &mut Findings) -> Result<UnixSeconds, Refused> {
    found.digest = Some(document.digest());
    if let Some(lost) = by.trust.lost.filter(|_| by.purpose == Purpose::Install) {
        let detail = format!("root version {}, which this device had, is not reached", lost.version);
        return Err(Refused::StateLost(detail));
    }
    // 7, 8, and of 10 deployment and root_version
    let (note, signers) = UsageNote::verify(document, &by.trust.root)?;
    found.signers = signers;
    // 9 plausible `issued_at`, then raise the time floor
    let lower = plausible(note.issued_at, by.lower)?;
    found.issued_at = Some(note.issued_at);
    // 10 epoch, target
    note.address(&note.target()).reaches(by)?;
    // 11 expiry against the floor's lower bound only
    if note.expires_at <= lower {
        return Err(Refused::Expired(format!("expired at {}; it is at least {lower}", note.expires_at)));
    }
    Ok(note.expires_at)
}
