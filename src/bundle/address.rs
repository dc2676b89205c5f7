//! Step 10: whether something is for this deployment, this root and this device. The one place where that is judged, of
//! bundles, enrolments and time resets alike. Pure.

use super::error::{Refused, plain};
use super::manifest::Target;
use super::root::RootDocument;
use super::verify::{Judge, Purpose};

/// What a signed document says of whom it is for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Address<'a> {
    pub(super) deployment: &'a str,
    /// The least version of the root; 0 where it says none.
    pub(super) root_version: u64,
    pub(super) epoch: u64,
    pub(super) target: &'a Target,
    /// Whether it may name nothing but exact devices.
    pub(super) exact: bool,
}

impl Address<'_> {
    /// Whether it is for `by.device`, under the root that judges it.
    pub(super) fn reaches(&self, by: &Judge<'_>) -> Result<(), Refused> {
        let root = &by.trust.root;
        self.is_under(root)?;
        // What serves was counted in the epoch of its time; a new one restarts the counters, not the service.
        let epoch_fits = match by.purpose {
            Purpose::Install => self.epoch == root.epoch(),
            Purpose::Serve => self.epoch <= root.epoch(),
        };
        if !epoch_fits {
            return Err(Refused::EpochMismatch(format!("epoch {}; the root's is {}", self.epoch, root.epoch())));
        }
        if self.target.is_empty() {
            return Err(Refused::TargetEmpty("the target names no device".into()));
        }
        if self.exact && !matches!(self.target, Target::Devices(_)) {
            return Err(Refused::PermitForbidden("the target is not one of exact devices".into()));
        }
        // What was taken under other labels serves on: a new enrolment decides about what comes after it.
        let was_labelled = by.purpose == Purpose::Serve && matches!(self.target, Target::Labels(_));
        if !was_labelled && !self.target.names(by.device) {
            return Err(Refused::NotForThisDevice(format!("the target does not name device {}", by.device.id)));
        }
        Ok(())
    }

    /// The part of it that needs no device: of the root's deployment, and not of a later root.
    pub(super) fn is_under(&self, root: &RootDocument) -> Result<(), Refused> {
        is_of(self.deployment, root)?;
        if self.root_version > root.version() {
            let detail = format!("needs root version {}; here is {}", self.root_version, root.version());
            return Err(Refused::RootTooOld(detail));
        }
        Ok(())
    }
}

/// Whether `deployment` is the root's.
pub(super) fn is_of(deployment: &str, root: &RootDocument) -> Result<(), Refused> {
    if deployment == root.deployment() {
        return Ok(());
    }
    let (is, wanted) = (plain(deployment), root.deployment());
    Err(Refused::WrongDeployment(format!("for {is:?}; the root is of {wanted:?}")))
}
