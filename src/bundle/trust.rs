//! What a device goes by when it judges a bundle: the root that it was given, and what it has seen.
//!
//! What was seen never goes back with a slot. Pure; `activate` keeps it on disk.

use super::container::{BundleType, ChainLink, Head};
use super::error::Refused;
use super::manifest::Manifest;
use super::root::RootDocument;
use crate::ids::Digest;

/// A sequence number, and which bundle had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The number.
    pub seq: u64,
    /// The bundle.
    pub digest: Digest,
}

/// What a device has seen, in the root's present epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct History {
    /// The highest sequence number that was ever activated.
    pub highest: Option<Seen>,
    /// Below this sequence number nothing is taken.
    pub security_floor: u64,
    /// The bundle that serves now.
    pub serving: Option<Digest>,
}

/// The root, and the history.
#[derive(Debug, Clone)]
pub struct Trust {
    /// Placed by the operator.
    pub root: RootDocument,
    /// Since then.
    pub history: History,
}

/// Where a bundle stands in the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// It comes next.
    Next,
    /// It serves already.
    AlreadyInstalled,
}

impl Trust {
    /// Trust in a root, with nothing seen.
    #[must_use]
    pub fn new(root: RootDocument) -> Self {
        Self { root, history: History::default() }
    }

    /// Step 6: the trust chain of a bundle. Older roots are passed over, an equal one must be identical.
    ///
    /// A next root is refused by name: this version does not rotate roots.
    pub(super) fn check_chain(&self, head: &Head) -> Result<(), Refused> {
        let mut before: Option<u64> = None;
        for ChainLink { document, .. } in head.chain()? {
            let root = RootDocument::parse(document)?;
            let (version, mine) = (root.version(), self.root.version());
            if root.deployment() != self.root.deployment() {
                return Err(Refused::RootWrongDeployment(format!("a root of deployment {:?}", root.deployment())));
            }
            if before.is_some_and(|before| version != before.saturating_add(1)) {
                return Err(Refused::RootGap(format!("root version {version} does not follow the one before it")));
            }
            before = Some(version);
            if version == mine && document != self.root.bytes() {
                return Err(Refused::RootFork(format!("another root of version {version}")));
            }
            if version > mine {
                if root.epoch() < self.root.epoch() {
                    let detail = format!("epoch {} after epoch {}", root.epoch(), self.root.epoch());
                    return Err(Refused::RootEpochRegression(detail));
                }
                if version > mine.saturating_add(1) {
                    return Err(Refused::RootGap(format!("root version {version}; the device has {mine}")));
                }
                let detail = format!("root version {version} would replace {mine}; this version does not rotate roots");
                return Err(Refused::UnsupportedRequirement(detail));
            }
        }
        Ok(())
    }

    /// Step 12: the order of policy bundles. The rules stand in BUNDLE.md's order.
    pub(super) fn order(&self, manifest: &Manifest, digest: Digest) -> Result<Order, Refused> {
        let History { highest, security_floor, serving } = self.history;
        let seq = manifest.seq();
        if seq < security_floor {
            return Err(Refused::BelowSecurityFloor(format!("sequence {seq}; the floor is {security_floor}")));
        }
        if serving == Some(digest) {
            return Ok(Order::AlreadyInstalled);
        }
        if let Some(highest) = highest {
            // The very bundle that was seen last may come again: its slot may have rotted.
            if seq == highest.seq && digest != highest.digest {
                let detail = format!("sequence {seq} was already used by bundle {}", highest.digest);
                return Err(Refused::Equivocation(detail));
            }
            if seq < highest.seq {
                return Err(Refused::Rollback(format!("sequence {seq}; the highest seen is {}", highest.seq)));
            }
        }
        let floor = manifest.security_floor();
        if floor < security_floor || floor > seq {
            let detail = format!("security floor {floor}; it must lie between {security_floor} and {seq}");
            return Err(Refused::SecurityFloorInvalid(detail));
        }
        Ok(Order::Next)
    }

    /// Types that this version can check but not apply.
    pub(super) fn check_type(bundle_type: BundleType) -> Result<(), Refused> {
        if bundle_type == BundleType::Policy {
            return Ok(());
        }
        let detail = format!("a {} bundle; this version installs policy bundles only", bundle_type.name());
        Err(Refused::UnsupportedRequirement(detail))
    }
}
