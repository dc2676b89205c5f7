//! What serves after a start: the chosen slots, each verified again, and what the slots tell that a broken state record
//! cannot.

use std::io::{self, Read};
use std::path::PathBuf;

use super::activate::{Active, Compile, OpenError, Slots};
use super::container::{BundleType, PREAMBLE};
use super::error::Refused;
use super::manifest::{DeviceFacts, Entry, EntryKind, Manifest};
use super::roots::Roots;
use super::state::{Chosen, State};
use super::trust::{RootName, Seen, Trust};
use super::verify::{Findings, Judge, Purpose, Source, Verdict, verify};
use crate::disk::Disk;
use crate::ids::Digest;
use crate::policy::revocations::Revocations;
use crate::units::UnixSeconds;

/// Where that which serves after a start comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// No bundle was ever activated: safe mode.
    Fresh,
    /// The active slot.
    Active,
    /// The previous slot, for the active one did not verify or failed its trial.
    Previous(Refused),
    /// Nothing: safe mode, for no slot verified. The reason is the active slot's.
    Nothing(Refused),
    /// Nothing: safe mode, for the list of revocations in force did not verify.
    NoList(Refused),
}

impl Origin {
    /// The same where the bundle that should serve failed its trial.
    pub(super) fn after(self, failed: Refused) -> Self {
        match self {
            Self::Active => Self::Previous(failed),
            Self::Fresh => Self::Nothing(failed),
            other => other,
        }
    }
}

/// What the two state records were worth at a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Records {
    /// As they were written.
    Sound,
    /// One was broken: the last activation was cut off, or the flash rots. What the other did not know was
    /// taken from the slots.
    Damaged,
    /// Neither was there or whole; they were made again from the slots.
    Lost,
}

/// What was chosen to serve, and why.
pub(super) struct Choice<T> {
    pub(super) serving: Option<Active<T>>,
    pub(super) list: Option<Active<Revocations>>,
    pub(super) origin: Origin,
}

impl Slots {
    /// The slots that verify, in the order in which they were accepted.
    fn good<T>(&self, held: &[Digest], device: &DeviceFacts, compile: Compile<T>) -> Vec<(Manifest, Chosen)> {
        let known = [self.state.active, self.state.previous, self.state.list];
        let mut good: Vec<(Manifest, Chosen)> = Vec::new();
        for digest in held {
            // One that no record names was accepted under the newest root that takes it, as far as anybody can tell.
            let named = known.into_iter().flatten().find(|slot| slot.digest == *digest);
            let unnamed = self.roots.newest_first().map(|root| Chosen { digest: *digest, root: root.version() });
            let slots: Vec<Chosen> = named.map_or_else(|| unnamed.collect(), |slot| vec![slot]);
            let verified = slots.into_iter().find_map(|slot| Some((self.verify(slot, device, compile).ok()?, slot)));
            let place = |manifest: &Manifest| (manifest.epoch(), manifest.seq());
            if let Some((verdict, slot)) = verified
                && let Some(manifest) = verdict.manifest()
            {
                let at = good.partition_point(|(before, _)| place(before) <= place(manifest));
                good.insert(at, (manifest.clone(), slot));
            }
        }
        good
    }

    /// What the slots know and the record does not: a slot of this epoch above the highest was accepted after it was
    /// written. Nothing is lowered. If the activation was cut off, this ends it.
    pub(super) fn catch_up<T>(&mut self, held: &[Digest], device: &DeviceFacts, compile: Compile<T>) {
        let active = self.state.active.map(|slot| slot.digest);
        let permitted = self.state.pending.filter(|permit| Some(permit.from) == active);
        for (manifest, slot) in self.good(held, device, compile) {
            if permitted.is_some_and(|permit| permit.to == slot.digest) {
                let seen = Seen { seq: manifest.seq(), digest: slot.digest };
                self.state = State { active: Some(slot), ..self.state.after(seen, manifest.security_floor(), active) };
                continue;
            }
            let seen = Seen { seq: manifest.seq(), digest: slot.digest };
            let list = manifest.kind() == BundleType::Revocation;
            let highest = if list { self.state.revoked } else { self.state.highest };
            if manifest.epoch() != self.state.epoch || highest.is_some_and(|highest| seen.seq <= highest.seq) {
                continue;
            }
            if list {
                self.state.revoked = Some(seen);
                self.state.list = Some(slot);
            } else {
                let serving = self.state.active.map(|slot| slot.digest);
                let security_floor = self.state.security_floor.max(manifest.security_floor());
                self.state = State { highest: Some(seen), security_floor, ..self.state.choosing(slot, serving) };
            }
        }
    }

    /// The state as the slots tell it: whatever verifies was accepted once, and the highest was the last.
    pub(super) fn rebuild<T>(&mut self, held: &[Digest], device: &DeviceFacts, compile: Compile<T>) {
        for (manifest, slot) in self.good(held, device, compile) {
            let seen =
                (manifest.epoch() == self.state.epoch).then_some(Seen { seq: manifest.seq(), digest: slot.digest });
            if manifest.kind() == BundleType::Revocation {
                self.state.revoked = seen;
                self.state.list = Some(slot);
            } else {
                let serving = self.state.active.map(|slot| slot.digest);
                let security_floor = seen.map_or(0, |_| manifest.security_floor());
                // Nobody knows whether they passed their trials.
                self.state = State { highest: seen, security_floor, ..self.state.choosing(slot, serving) };
            }
        }
    }

    /// The list of revocations, and with it active, else previous, else nothing; each verified in full.
    pub(super) fn choose<T>(&mut self, device: &DeviceFacts, compile: Compile<T>) -> Choice<T> {
        let choice = self.choice(device, compile);
        let list = choice.list.as_ref().map(|list| list.digest);
        self.trust.history = self.state.history(choice.serving.as_ref().map(|active| active.digest), list);
        // A list that cannot be read is no measure for the next one.
        let kept = self.state.list.filter(|_| !matches!(choice.origin, Origin::NoList(_)));
        self.trust.list = kept.map(|slot| self.table(slot.digest));
        choice
    }

    fn choice<T>(&self, device: &DeviceFacts, compile: Compile<T>) -> Choice<T> {
        let without = |origin| Choice { serving: None, list: None, origin };
        if let Some(lost) = self.trust.lost {
            let has = self.trust.root.version();
            let detail = format!("root version {} was taken; what is kept leads to {has} only", lost.version);
            return without(Origin::Nothing(Refused::StateLost(detail)));
        }
        let list = match self.state.list.map(|slot| self.verify(slot, device, compile)) {
            Some(Ok(Verdict::Revocations(verified))) => Some(Active::of(*verified)),
            Some(Ok(_)) => return without(Origin::NoList(of_another_type())),
            Some(Err(why)) => return without(Origin::NoList(why)),
            None => None,
        };
        let policy = |slot| match self.verify(slot, device, compile)? {
            Verdict::Accepted(verified) => Ok(Active::of(*verified)),
            _ => Err(of_another_type()),
        };
        let Some(active) = self.state.active else { return Choice { list, ..without(Origin::Fresh) } };
        let why = match policy(active) {
            Ok(active) => return Choice { serving: Some(active), list, origin: Origin::Active },
            Err(why) => why,
        };
        match self.state.previous.and_then(|slot| policy(slot).ok()) {
            Some(previous) => Choice { serving: Some(previous), list, origin: Origin::Previous(why) },
            None => Choice { list, ..without(Origin::Nothing(why)) },
        }
    }

    /// Judges a slot by the root of its time.
    fn verify<T>(&self, slot: Chosen, device: &DeviceFacts, compile: Compile<T>) -> Result<Verdict<T>, Refused> {
        let trust = Trust::new(self.roots.nearest(slot.root).clone());
        let by = Judge { trust: &trust, lower: UnixSeconds::MIN, device, purpose: Purpose::Serve };
        let mut source = Slot { disk: &*self.disk, folder: self.folder.join(slot.digest.to_string()) };
        let mut found = Findings::default();
        let verdict = verify(&mut source, &by, compile, &mut found)?;
        if found.digest != Some(slot.digest) {
            return Err(Refused::EntryDigestMismatch("the slot holds another bundle than its name says".into()));
        }
        Ok(verdict)
    }
}

/// The root that the device had and that cannot be reached, if there is one. The pinned root counts where it is not
/// older than what the record names; then its epoch may not be before the device's.
pub(super) fn lost_root(state: &State, records: Records, roots: &Roots) -> Result<Option<RootName>, OpenError> {
    let (pinned, newest) = (roots.pinned(), roots.newest());
    if pinned.epoch() <= state.epoch && pinned.version() < state.root.version {
        if !roots.newest_first().any(|root| state.root.is(root)) {
            return Ok(Some(state.root));
        }
    } else if newest.epoch() < state.epoch {
        let detail = format!("epoch {}; the device has seen epoch {}", newest.epoch(), state.epoch);
        return Err(OpenError::Root(Refused::RootEpochRegression(detail)));
    }
    // A record that may be the one before the last may name the root before the last: what is kept of a later one and
    // does not follow was one.
    let rotten = roots.highest_kept().filter(|kept| records != Records::Sound && *kept > newest.version());
    Ok(rotten.map(|version| RootName { version, digest: None }))
}

fn of_another_type() -> Refused {
    Refused::TypeMismatch("the slot holds a bundle of another type than the record says".into())
}

/// A slot's files as one bundle.
struct Slot<'a> {
    disk: &'a dyn Disk,
    folder: PathBuf,
}

impl Source for Slot<'_> {
    fn length(&mut self) -> io::Result<u64> {
        let mut length = 0_u64;
        for name in self.disk.list(&self.folder)? {
            if name == "head" || EntryKind::from_name(&name).is_some() {
                length = length.saturating_add(self.disk.open(&self.folder.join(name))?.1);
            }
        }
        // A head that is gone must not look like a short file of another kind.
        if length < PREAMBLE as u64 { Err(io::ErrorKind::NotFound.into()) } else { Ok(length) }
    }

    fn head(&mut self) -> io::Result<Box<dyn Read + '_>> {
        Ok(self.disk.open(&self.folder.join("head"))?.0)
    }

    fn blob(&mut self, entry: &Entry, _payload: u64) -> io::Result<Box<dyn Read + '_>> {
        Ok(self.disk.open(&self.folder.join(entry.kind.name()))?.0)
    }
}
