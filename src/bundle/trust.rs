//! What a device goes by when it judges a bundle: the root of its deployment, and what it has seen.
//!
//! A root is followed by the next version if the thresholds of both sign it, and by nothing else. Neither the
//! root nor what was seen ever goes back with a slot. Pure; `activate` keeps it on disk.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::io::{self, Read};
use std::sync::Arc;

use super::container::{BundleType, ChainLink, Head};
use super::error::Refused;
use super::manifest::{Manifest, Permit};
use super::root::{self, Role, RootDocument, Signers};
use crate::ids::{Digest, KeyId};
use crate::units::UnixSeconds;

/// A document issued further ahead of the time floor than this is refused: ten years, in seconds.
pub const MAX_AHEAD: UnixSeconds = 10 * 31_557_600;

/// A sequence number, and which bundle had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The number.
    pub seq: u64,
    /// The bundle.
    pub digest: Digest,
}

/// What a device has seen, in one epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct History {
    /// The epoch that the numbers belong to.
    pub epoch: u64,
    /// The highest sequence number that was ever activated.
    pub highest: Option<Seen>,
    /// Below this sequence number nothing is taken.
    pub security_floor: u64,
    /// The bundle that serves now.
    pub serving: Option<Digest>,
    /// The bundle that was activated last, whether its slot still verifies or not.
    pub active: Option<Digest>,
    /// The last permit that was taken; permits have an order of their own.
    pub permit: Option<Seen>,
    /// What it gives leave to, until the next activation.
    pub pending: Option<Permit>,
    /// The highest list of revocations that was ever taken; lists have an order of their own.
    pub revoked: Option<Seen>,
    /// The list that is in force now.
    pub list: Option<Digest>,
    /// Bundles that failed a trial on this device.
    pub known_bad: KnownBad,
}

/// Bundles that failed a trial, the last sixteen. An older one that is forgotten is no way in: its sequence number is
/// below the highest seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KnownBad([Option<Digest>; Self::MAX]);

impl KnownBad {
    /// So many are remembered.
    pub(super) const MAX: usize = 16;

    /// Whether `bundle` is one of them.
    #[must_use]
    pub fn contains(&self, bundle: Digest) -> bool {
        self.0.contains(&Some(bundle))
    }

    /// These, and `bundle` as the newest.
    #[must_use]
    pub(super) fn and(mut self, bundle: Digest) -> Self {
        self.0.rotate_right(1);
        self.0[0] = Some(bundle);
        self
    }

    /// Newest first.
    pub(super) fn all(&self) -> &[Option<Digest>; Self::MAX] {
        &self.0
    }

    /// As they were read.
    pub(super) fn of(all: [Option<Digest>; Self::MAX]) -> Self {
        Self(all)
    }
}

/// A root by what a record says of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RootName {
    /// Its version; 0 = none.
    pub version: u64,
    /// Which one of that version, if that is known.
    pub digest: Option<Digest>,
}

impl RootName {
    /// Of `root`.
    #[must_use]
    pub fn of(root: &RootDocument) -> Self {
        Self { version: root.version(), digest: Some(root.digest()) }
    }

    /// Whether `root` is the one that is meant.
    #[must_use]
    pub fn is(&self, root: &RootDocument) -> bool {
        self.version == root.version() && self.digest.is_none_or(|digest| digest == root.digest())
    }
}

/// A root that follows another one, and what shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    /// The new root.
    pub root: RootDocument,
    /// The keys of the role `root`, in the old root or the new one, that signed it.
    pub signers: Vec<KeyId>,
    /// The chain link as it came: length, document, signature block.
    pub link: Vec<u8>,
}

/// The root, and the history.
#[derive(Debug, Clone)]
pub struct Trust {
    /// Placed by the operator, or the last of those that followed it.
    pub root: RootDocument,
    /// What was seen.
    pub history: History,
    /// Likewise of releases, which have an order of their own: what serves there is the release that is installed.
    pub releases: History,
    /// A later root that this device had and lost. Until a bundle leads there again nothing is taken: a key that was
    /// rotated out must not become good again because flash rotted.
    pub lost: Option<RootName>,
    /// The table of the list of revocations that the next one is compared with. It binds within its epoch: a later one
    /// is the way back from a list that took too much.
    pub list: Option<Arc<dyn Table>>,
}

/// An entry that a device keeps, to be read once more.
pub trait Table: std::fmt::Debug + Send + Sync {
    /// From its first byte, and its length in bytes.
    fn read(&self) -> io::Result<(Box<dyn Read + Send>, u64)>;
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
        let history = History { epoch: root.epoch(), ..History::default() };
        Self { root, history, releases: history, lost: None, list: None }
    }

    /// Step 6: the trust after the chain that a bundle brings. The roots that follow go into `accepted`, those before
    /// a link that is refused too: each stands by its own signatures.
    pub(super) fn follow(
        &self,
        head: &Head,
        lower: UnixSeconds,
        accepted: &mut Vec<Rotated>,
    ) -> Result<Cow<'_, Self>, Refused> {
        let followed = follow(&self.root, &head.chain()?, Some(lower), accepted);
        if let Some(lost) = self.lost
            && !accepted.iter().any(|next| lost.is(&next.root))
        {
            accepted.clear();
            followed?;
            let detail = format!("root version {}, which this device had, is not reached", lost.version);
            return Err(Refused::StateLost(detail));
        }
        followed?;
        Ok(self.rotated(accepted))
    }

    /// The trust after these roots. A root of a later epoch restarts the history; what serves goes on.
    pub(super) fn rotated(&self, by: &[Rotated]) -> Cow<'_, Self> {
        let Some(Rotated { root, .. }) = by.last() else { return Cow::Borrowed(self) };
        let (history, releases) = (self.history.under(root), self.releases.under(root));
        Cow::Owned(Self { root: root.clone(), history, releases, lost: None, list: self.list.clone() })
    }

    /// Step 12: the order of bundles of a type.
    pub(super) fn order(&self, manifest: &Manifest, digest: Digest) -> Result<Order, Refused> {
        match manifest.kind() {
            BundleType::Revocation => self.order_of_lists(manifest, digest),
            BundleType::Permit => self.history_of(manifest).order_of_permits(manifest, digest),
            BundleType::Release => self.releases.order_of_policies(manifest, digest),
            BundleType::Policy => {
                let order = self.history.order_of_policies(manifest, digest)?;
                let base = manifest.base().filter(|base| order == Order::Next && Some(*base) != self.history.serving);
                match base {
                    Some(base) => Err(Refused::DeltaBaseMismatch(format!("it was made to follow bundle {base}"))),
                    None => Ok(order),
                }
            }
        }
    }

    /// Whether a permit is about the release that is installed; else it is one for policies.
    #[must_use]
    pub fn permits_release(&self, permit: &Permit) -> bool {
        self.releases.serving.is_some_and(|serving| serving == permit.from || serving == permit.to)
    }

    /// The history that a permit is for.
    fn history_of(&self, manifest: &Manifest) -> &History {
        if manifest.permit().is_some_and(|permit| self.permits_release(&permit)) {
            &self.releases
        } else {
            &self.history
        }
    }

    /// A list counts for itself: neither a policy nor its floor says anything about it.
    fn order_of_lists(&self, manifest: &Manifest, digest: Digest) -> Result<Order, Refused> {
        if self.history.list == Some(digest) {
            return Ok(Order::AlreadyInstalled);
        }
        let seq = manifest.seq();
        if let Some(highest) = self.history.revoked.filter(|highest| *highest != Seen { seq, digest })
            && seq <= highest.seq
        {
            if seq == highest.seq {
                return Err(Refused::Equivocation(format!("list {seq} was already bundle {}", highest.digest)));
            }
            let detail = format!("list {seq}; the highest seen is {}, bundle {}", highest.seq, highest.digest);
            return Err(Refused::RevocationRollback(detail));
        }
        no_floor(manifest)
    }

    /// The list that the next one may not fall short of.
    pub(super) fn binding_list(&self) -> Option<&dyn Table> {
        self.list.as_deref().filter(|_| self.history.revoked.is_some())
    }
}

impl History {
    /// The history under `root`. A later epoch restarts it; what serves goes on.
    fn under(self, root: &RootDocument) -> Self {
        let Self { serving, active, list, known_bad, .. } = self;
        let restarted = Self { epoch: root.epoch(), serving, active, list, known_bad, ..Self::default() };
        if root.epoch() > self.epoch { restarted } else { self }
    }

    /// The rules stand in BUNDLE.md's order.
    fn order_of_policies(&self, manifest: &Manifest, digest: Digest) -> Result<Order, Refused> {
        let Self { highest, security_floor, serving, known_bad, .. } = *self;
        let seq = manifest.seq();
        if known_bad.contains(digest) {
            return Err(Refused::KnownBad("it failed its trial on this device".into()));
        }
        if seq < security_floor {
            return Err(Refused::BelowSecurityFloor(format!("sequence {seq}; the floor is {security_floor}")));
        }
        let pending = self.pending.filter(|permit| Some(permit.from) == serving);
        if pending.is_some_and(|permit| permit.to == digest) {
            return Ok(Order::Next);
        }
        if serving == Some(digest) {
            return Ok(Order::AlreadyInstalled);
        }
        // The active bundle may come again: its slot has rotted, or it would serve. The highest seen may not where a permit
        // led away from it: whoever still offers it would undo the way back.
        if self.active == Some(digest) {
            return Ok(Order::Next);
        }
        if let Some(highest) = highest.filter(|highest| seq <= highest.seq) {
            if let Some(Permit { to, .. }) = pending {
                return Err(Refused::PermitDigestMismatch(format!("the permit that was taken names bundle {to}")));
            }
            if seq == highest.seq && digest != highest.digest {
                let detail = format!("sequence {seq} was already used by bundle {}", highest.digest);
                return Err(Refused::Equivocation(detail));
            }
            return Err(Refused::Rollback(format!("sequence {seq}; the highest seen is {}", highest.seq)));
        }
        let floor = manifest.security_floor();
        if floor < security_floor || floor > seq {
            let detail = format!("security floor {floor}; it must lie between {security_floor} and {seq}");
            return Err(Refused::SecurityFloorInvalid(detail));
        }
        Ok(Order::Next)
    }

    /// A permit uses itself up: the bundle that it leads away from serves no more. Its number keeps it from coming again
    /// when that bundle does; a newer permit takes the place of one that waits.
    fn order_of_permits(&self, manifest: &Manifest, digest: Digest) -> Result<Order, Refused> {
        let Self { serving, permit, pending, .. } = *self;
        let seq = manifest.seq();
        if pending.is_some() && permit.is_some_and(|last| last.digest == digest) {
            return Ok(Order::AlreadyInstalled);
        }
        let wanted = manifest.permit().filter(|wanted| Some(wanted.to) != serving);
        let wanted = wanted.ok_or_else(|| Refused::PermitUsed("the bundle that it names serves".into()))?;
        if self.known_bad.contains(wanted.to) {
            return Err(Refused::PermitForbidden("the bundle that it leads to failed its trial on this device".into()));
        }
        if let Some(last) = permit.filter(|last| seq <= last.seq) {
            return Err(Refused::PermitUsed(format!("permit {seq}; permit {} was taken", last.seq)));
        }
        if Some(wanted.from) != serving {
            let serving = serving.map_or_else(|| "nothing".into(), |digest| digest.to_string());
            return Err(Refused::PermitNotApplicable(format!("it leads away from {}; {serving} serves", wanted.from)));
        }
        no_floor(manifest)
    }
}

/// Neither lists nor permits say below which policy nothing is taken.
fn no_floor(manifest: &Manifest) -> Result<Order, Refused> {
    match manifest.security_floor() {
        0 => Ok(Order::Next),
        floor => Err(Refused::SecurityFloorInvalid(format!("security floor {floor}; only a policy has one"))),
    }
}

/// Follows a chain of roots from `from`. Older links are passed over, an equal one must be identical, a later one must
/// be the next. `lower` is the least that the time can be, where links are judged for the first time.
pub(super) fn follow(
    from: &RootDocument,
    chain: &[ChainLink<'_>],
    lower: Option<UnixSeconds>,
    accepted: &mut Vec<Rotated>,
) -> Result<(), Refused> {
    let mut before: Option<u64> = None;
    let mut lower = lower;
    for link in chain {
        let root = RootDocument::parse(link.document)?;
        let mine = accepted.last().map_or(from, |last| &last.root);
        let version = root.version();
        if root.deployment() != mine.deployment() {
            return Err(Refused::RootWrongDeployment(format!("a root of deployment {:?}", root.deployment())));
        }
        if before.is_some_and(|before| version != before.saturating_add(1)) {
            return Err(Refused::RootGap(format!("root version {version} does not follow the one before it")));
        }
        before = Some(version);
        match version.cmp(&mine.version()) {
            Ordering::Less => {}
            Ordering::Equal if link.document != mine.bytes() => {
                return Err(Refused::RootFork(format!("another root of version {version}")));
            }
            Ordering::Equal => {}
            Ordering::Greater => {
                let signers = succeed(mine, &root, link)?;
                lower = lower.map(|lower| plausible(root.issued_at(), lower)).transpose()?;
                accepted.push(Rotated { root, signers, link: link.bytes.to_vec() });
            }
        }
    }
    Ok(())
}

/// Whether `new` follows `old`: the next version, no earlier epoch, and signed by the thresholds of both.
fn succeed(old: &RootDocument, new: &RootDocument, link: &ChainLink<'_>) -> Result<Vec<KeyId>, Refused> {
    if new.epoch() < old.epoch() {
        return Err(Refused::RootEpochRegression(format!("epoch {} after epoch {}", new.epoch(), old.epoch())));
    }
    if new.version() != old.version().saturating_add(1) {
        return Err(Refused::RootGap(format!("root version {}; the device has {}", new.version(), old.version())));
    }
    let signers = |root: &RootDocument| root.signers(Role::Root, root::MEDIA_TYPE, link.document, &link.signatures);
    let short = |Signers { keys, threshold }: &Signers| {
        (keys.len() < *threshold).then(|| format!("{} of {threshold} signatures of root {}", keys.len(), new.version()))
    };
    let (by_old, by_new) = (signers(old)?, signers(new)?);
    if let Some(detail) = short(&by_old) {
        return Err(Refused::RootThresholdOld(detail));
    }
    if let Some(detail) = short(&by_new) {
        return Err(Refused::RootThresholdNew(detail));
    }
    let mut keys = BinaryHeap::from([by_old.keys, by_new.keys].concat()).into_sorted_vec();
    keys.dedup();
    Ok(keys)
}

/// The lower bound of the time that a document's own time raises; `IssuedAtImplausible` where that is too far ahead.
pub(super) fn plausible(issued_at: UnixSeconds, lower: UnixSeconds) -> Result<UnixSeconds, Refused> {
    if issued_at > lower.saturating_add(MAX_AHEAD) {
        let detail = format!("issued at {issued_at}, more than ten years after {lower}");
        return Err(Refused::IssuedAtImplausible(detail));
    }
    Ok(lower.max(issued_at))
}
