//! The bundles that a device holds, and which of them serves: steps 17 and the start.
//!
//! ```text
//! slots/<manifest digest>/head     all before the payload
//! slots/<manifest digest>/<kind>   a blob
//! trust/state.0 and .1             (`state`) the commit point
//! trust/roots/<version>            (`roots`) the roots that followed the pinned one
//! ```
//!
//! A slot is whole and durable, names included, before a state record names it; the slot that serves is
//! never touched. One that a record names is written again only where it did not verify, and another one or
//! none serves. So a power cut leaves the old policy or the new one. The record says what was chosen; what
//! serves is what verifies again at each start: active, else previous, else nothing.
//!
//! What was seen (highest, floor, epoch, root) never goes back. With one record broken, the other one may be from
//! before the last activation: the slots then tell what it cannot. What a start finds out is written at
//! once; where that fails (a full disk) it holds all the same, and is found out again by the next start.
//!
//! A root that follows is kept whatever becomes of the bundle that brought it. A slot is judged by the root under
//! which it was accepted, so a rotation of the policy keys takes nothing out of service. If the record names a later
//! root than can be reached from the pinned one, the root is lost: nothing serves and nothing is taken until a bundle
//! brings the chain that leads there, for an older root may trust keys that were given up. A newer root that the
//! operator pins counts at once; slots from before it are then judged by it.
//!
//! A bundle is on trial until it has served for a while ([`Slots::pass`]). If the processes that serve it end abnormally
//! too often within one boot (`trial`), the one before it that passed its trial takes its place, or the one that
//! served before it where none has, and it is known bad from then on. What was seen does not go back with it.
//!
//! A permit waits in the record, and is gone with the next activation, whichever that is.
//!
//! A list of revocations is a slot of its own, beside the policy's. It goes with no policy and has nothing to fall back
//! to: the one before it would give access back. If it does not verify, nothing serves until a list is brought.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{Refused, SemanticProblem};
use super::manifest::{DeviceFacts, Entries, EntryKind, Manifest, Permit};
use super::root::RootDocument;
use super::roots::Roots;
use super::start::{Choice, Origin, Records, lost_root};
use super::state::{Chosen, State};
use super::trial::{MAX_ENDS, Trial};
use super::trust::{History, Rotated, Seen, Table, Trust};
use super::verify::{Hashed, Source, Verified};
use crate::clock::BootId;
use crate::disk::Disk;
use crate::ids::{Digest, KeyId};
use crate::policy::revocations::Revocations;
use crate::store::pair::{Found, Pair};

/// The seam of step 15: what makes a policy of entries.
pub type Compile<T> = fn(&Entries) -> Result<T, SemanticProblem>;

/// A bundle that serves, and its policy.
#[derive(Debug)]
pub struct Active<T> {
    /// Its identity.
    pub digest: Digest,
    /// Its manifest.
    pub manifest: Manifest,
    /// Who signed it.
    pub signers: Vec<KeyId>,
    /// What serves.
    pub policy: T,
}

/// What serves again, though it did not at the start.
#[derive(Debug)]
pub struct Resumed<T> {
    /// The policy.
    pub serving: Option<Active<T>>,
    /// The list of revocations.
    pub list: Option<Active<Revocations>>,
}

impl<T> Default for Resumed<T> {
    fn default() -> Self {
        Self { serving: None, list: None }
    }
}

impl<T> Active<T> {
    /// Gives up the bytes and keeps what serves.
    pub(super) fn of(verified: Verified<T>) -> Self {
        let (digest, manifest, signers, policy) = verified.into_parts();
        Self { digest, manifest, signers, policy }
    }
}

/// What a start found.
#[derive(Debug)]
pub struct Started<T> {
    /// The slots, to activate more.
    pub slots: Slots,
    /// What serves; `None` is safe mode.
    pub serving: Option<Active<T>>,
    /// The list of revocations in force.
    pub list: Option<Active<Revocations>>,
    /// Why that.
    pub origin: Origin,
    /// What the state records were worth.
    pub records: Records,
    /// What could not be written down.
    pub unrecorded: Option<io::Error>,
}

/// A device that could not be started with its trust.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The pinned root is not sound, or of an epoch before the device's: place the right one.
    #[error("the pinned root: {name}: {0}", name = .0.name())]
    Root(Refused),
    /// The pinned root cannot be read: place it where `trust.root` says.
    #[error("the pinned root {path}", path = .0.display())]
    NoRoot(PathBuf, #[source] io::Error),
    /// The state folder cannot be used: check its owner, rights and disk.
    #[error("the state folder")]
    State(#[from] io::Error),
    /// The state was written by a newer version: run that one.
    #[error("the state record is of a newer version")]
    Newer,
    /// Another process uses the state folder: end it first.
    #[error("{name}: {0}", name = .0.name())]
    Busy(Refused),
}

/// The slots, the state record and the roots.
#[derive(Debug)]
pub struct Slots {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) folder: PathBuf,
    pair: Pair,
    pub(super) state: State,
    pub(super) roots: Roots,
    pub(super) trust: Trust,
    trial: Trial,
    boot: BootId,
}

impl Slots {
    /// Opens the slots below the state folder, verifies what is chosen, and drops what is not.
    pub fn open<T>(
        disk: Arc<dyn Disk>,
        state_folder: &Path,
        root: RootDocument,
        device: &DeviceFacts,
        compile: Compile<T>,
        boot: BootId,
    ) -> Result<Started<T>, OpenError> {
        let folder = state_folder.join("slots");
        let trust_folder = state_folder.join("trust");
        for each in [&folder, &trust_folder] {
            disk.create_folder(each)?;
        }
        disk.sync_folder(state_folder)?;
        let roots = Roots::open(Arc::clone(&disk), trust_folder.join("roots"), root)?;
        let (pair, found) = Pair::open(Arc::clone(&disk), &trust_folder, "state");
        let held: Vec<Digest> = disk.list(&folder)?.iter().filter_map(|name| name.parse().ok()).collect();
        // A record's checksum is good, so another form is another version's.
        let read = |body| State::from_bytes(body).ok_or(OpenError::Newer);
        let recorded = found.body().map(read).transpose()?;
        let records = match found {
            Found::Record(_) => Records::Sound,
            Found::Survivor(_) => Records::Damaged,
            Found::Fresh if held.is_empty() && roots.highest_kept().is_none() => Records::Sound,
            Found::Fresh | Found::Lost => Records::Lost,
        };
        let state = recorded.unwrap_or_default();
        let lost = lost_root(&state, records, &roots)?;
        let state = lost.map_or_else(|| state.under(roots.newest()), |root| State { root, ..state });
        let trust = Trust { lost, ..Trust::new(roots.newest().clone()) };
        let trial = Trial::open(Arc::clone(&disk), &trust_folder);
        let mut slots = Self { disk, folder, pair, state, roots, trust, trial, boot };
        match records {
            Records::Sound => {}
            Records::Damaged => slots.catch_up(&held, device, compile),
            Records::Lost => slots.rebuild(&held, device, compile),
        }
        let (failed, noted) = slots.judge_trial();
        // A first record, so that from here on a missing one is a lost one; a broken one made good; a later root or
        // epoch, from which there is no way back.
        let known = records == Records::Sound && recorded == Some(slots.state);
        let written = if known { Ok(()) } else { slots.pair.write(&slots.state.to_bytes()) };
        let Choice { serving, list, origin } = slots.choose(device, compile);
        let origin = match failed {
            Some(failed) => origin.after(failed),
            None => origin,
        };
        if slots.on_trial().is_none() {
            let _ = slots.trial.end(); // what becomes of this process is not its doing
        }
        // With the root lost, nobody can tell what is of use.
        if lost.is_none() {
            slots.drop_others();
            slots.roots.drop_others();
        }
        let unrecorded = written.and(noted).err();
        Ok(Started { slots, serving, list, origin, records, unrecorded })
    }

    /// Whether the bundle on trial has ended its processes abnormally too often; if so it is out, and this is why.
    /// Before anything of it is read: that may be what ends them.
    fn judge_trial(&mut self) -> (Option<Refused>, io::Result<()>) {
        let Some(active) = self.state.active.filter(|_| self.state.on_trial) else { return (None, Ok(())) };
        let (ends, noted) = self.trial.begin(active.digest, self.boot);
        if ends < MAX_ENDS {
            return (None, noted);
        }
        self.state = self.state.failed();
        let next = self.state.active.filter(|_| self.state.on_trial);
        let noted = match next {
            Some(next) => self.trial.begin(next.digest, self.boot).1,
            None => self.trial.end(),
        };
        (Some(Refused::KnownBad(format!("bundle {} ended abnormally {ends} times on trial", active.digest))), noted)
    }

    /// The bundle on trial: the active one, until it has passed, while it serves. One whose slot does not verify proves
    /// nothing.
    #[must_use]
    pub fn on_trial(&self) -> Option<Digest> {
        self.trust
            .history
            .serving
            .filter(|serving| self.state.on_trial && self.state.active.is_some_and(|active| active.digest == *serving))
    }

    /// Notes that this process serves what is on trial, if anything is. If it cannot, an abnormal end goes uncounted.
    fn note_trial(&mut self) {
        if let Some(bundle) = self.on_trial() {
            let _ = self.trial.begin(bundle, self.boot);
        }
    }

    /// The bundle on trial has served for long enough: it is good from here on.
    pub fn pass(&mut self) -> Result<(), Refused> {
        self.commit(&self.state.passed())?;
        let _ = self.trial.end(); // an open note says nothing of a bundle that is not on trial
        Ok(())
    }

    /// This process ends in order, or goes on with slots that it opens anew.
    pub(super) fn close(&mut self) {
        let _ = self.trial.end(); // else an orderly end counts for an abnormal one: two more are wanted
    }

    /// The root that the operator placed.
    pub(super) fn pinned(&self) -> &RootDocument {
        self.roots.pinned()
    }

    /// The root and what was seen.
    #[must_use]
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// What the installer has seen of releases.
    pub(super) fn releases_are(&mut self, releases: History) {
        self.trust.releases = releases;
    }

    /// The root of that version, or the nearest one that is known.
    pub(super) fn root_of(&self, version: u64) -> &RootDocument {
        self.roots.nearest(version)
    }

    /// Step 6, on disk: keeps the roots that a bundle brought, and judges by the newest from here on. On an error the
    /// root is the old one; the next start may find the new one.
    pub fn rotate(&mut self, rotated: &[Rotated]) -> Result<(), Refused> {
        let Some(Rotated { root, .. }) = rotated.last() else { return Ok(()) };
        self.roots.keep(rotated).map_err(|error| stored("a root", &error))?;
        let state = self.state.under(root);
        self.commit(&state)?;
        self.roots.taken(rotated);
        self.trust = self.trust.rotated(rotated).into_owned();
        self.trust.history = state.history(self.trust.history.serving, self.trust.history.list);
        Ok(())
    }

    /// What was in the way of serving may be made good by a root or a list that came: what then serves that did not.
    pub fn resume<T>(&mut self, device: &DeviceFacts, compile: Compile<T>) -> Resumed<T> {
        let History { serving: None, list: before, .. } = self.trust.history else { return Resumed::default() };
        let Choice { serving, list, .. } = self.choose(device, compile);
        self.note_trial();
        Resumed { serving, list: list.filter(|list| before != Some(list.digest)) }
    }

    /// Step 17: makes a verified bundle the active one. On an error nothing that served is touched.
    pub fn activate<T>(&mut self, verified: Verified<T>) -> Result<Active<T>, Refused> {
        let (seq, digest) = (verified.manifest().seq(), verified.digest());
        let History { serving, list, .. } = self.trust.history;
        if self.state.list.is_some() && list.is_none() {
            return Err(Refused::StateLost("the list of revocations does not verify; bring it, or a later one".into()));
        }
        if serving != Some(digest) {
            self.whole(digest, self.write_slot(&verified))?;
            let state = self.state.after(Seen { seq, digest }, verified.manifest().security_floor(), serving);
            // The commit point. If it fails the slot stays: the record may have reached the disk all the same.
            self.commit(&state)?;
            self.trust.history = state.history(Some(digest), list);
            self.drop_others();
            self.note_trial();
        }
        Ok(Active::of(verified))
    }

    /// Step 17 for a list of revocations, which comes from its source once more: it takes the place of the one before it.
    pub fn revoke(
        &mut self,
        verified: Verified<Revocations>,
        source: &mut dyn Source,
    ) -> Result<Active<Revocations>, Refused> {
        let (seq, digest) = (verified.manifest().seq(), verified.digest());
        let History { serving, list, .. } = self.trust.history;
        if list != Some(digest) {
            self.whole(digest, self.write_list(&verified, source))?;
            let state = self.state.after_list(Seen { seq, digest });
            self.commit(&state)?;
            self.trust.history = state.history(serving, Some(digest));
            self.trust.list = Some(self.table(digest));
            self.drop_others();
        }
        Ok(Active::of(verified))
    }

    /// Step 17 for a permit: it waits for the bundle that it names.
    pub fn permit(&mut self, verified: &Verified<Permit>) -> Result<Permit, Refused> {
        let (seq, digest, permit) = (verified.manifest().seq(), verified.digest(), *verified.policy());
        let state = self.state.permitting(Seen { seq, digest }, permit);
        self.commit(&state)?;
        self.trust.history = state.history(self.trust.history.serving, self.trust.history.list);
        Ok(permit)
    }

    fn commit(&mut self, state: &State) -> Result<(), Refused> {
        let written = self.pair.write(&state.to_bytes());
        written.map_err(|error| Refused::StateLost(format!("writing the state record: {error}")))?;
        self.state = *state;
        Ok(())
    }

    /// Removes the slot that was not `written` whole: a full disk is the last to have room for it.
    fn whole(&self, digest: Digest, written: Result<(), Refused>) -> Result<(), Refused> {
        if written.is_err() {
            let _ = self.disk.remove_folder(&self.folder.join(digest.to_string())); // what stays is dropped at a start
        }
        written
    }

    /// As [`Slots::write_slot`]; what is written is hashed once more as it goes by.
    fn write_list(&self, verified: &Verified<Revocations>, source: &mut dyn Source) -> Result<(), Refused> {
        self.write_slot(verified)?;
        let slot = self.folder.join(verified.digest().to_string());
        let preamble = verified.head().preamble();
        for entry in &verified.manifest().entries(preamble.payload_len())? {
            let unread = |error| Refused::SourceIo(format!("reading entry {}: {error}", entry.kind));
            let mut blob = Hashed::of(source.blob(entry, preamble.head_len()).map_err(unread)?, entry);
            let written = self.disk.write_from(&slot.join(entry.kind.name()), &mut blob, 0o600);
            written.and_then(|()| self.disk.sync_folder(&slot)).map_err(|error| stored("the slot", &error))?;
            blob.check()?;
        }
        Ok(())
    }

    /// Every file and every name of the slot, durable.
    fn write_slot<T>(&self, verified: &Verified<T>) -> Result<(), Refused> {
        let slot = self.folder.join(verified.digest().to_string());
        self.write_files(&slot, verified).map_err(|error| stored("the slot", &error))
    }

    fn write_files<T>(&self, slot: &Path, verified: &Verified<T>) -> io::Result<()> {
        // A rotten or half-written slot of this very bundle; it cannot be the one that serves.
        self.disk.remove_folder(slot)?;
        self.disk.create_folder(slot)?;
        self.disk.write(&slot.join("head"), verified.head().bytes(), 0o600)?;
        for (kind, blob) in verified.entries() {
            self.disk.write(&slot.join(kind.name()), blob, 0o600)?;
        }
        self.disk.sync_folder(slot)?;
        self.disk.sync_folder(&self.folder)
    }

    pub(super) fn table(&self, list: Digest) -> Arc<dyn Table> {
        let path = self.folder.join(list.to_string()).join(EntryKind::Revocations.name());
        Arc::new(KeptTable { disk: Arc::clone(&self.disk), path })
    }

    /// Frees the room of slots that no record names. Best effort: what stays is dropped next time.
    fn drop_others(&self) {
        let slot = |slot: Option<Chosen>| slot.map(|slot| slot.digest);
        let State { active, previous, list, .. } = self.state;
        let kept = [slot(active), slot(previous), slot(list), self.trust.history.serving];
        for name in self.disk.list(&self.folder).unwrap_or_default() {
            if !kept.iter().flatten().any(|digest| digest.to_string() == name) {
                let _ = self.disk.remove_folder(&self.folder.join(name));
            }
        }
    }
}

/// A write that failed before the commit.
fn stored(what: &str, error: &io::Error) -> Refused {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Refused::NoSpace(format!("writing {what}: {error}"))
        }
        _ => Refused::SourceIo(format!("writing {what}: {error}")),
    }
}

/// The table of a list that a slot keeps.
#[derive(Debug)]
struct KeptTable {
    disk: Arc<dyn Disk>,
    path: PathBuf,
}

impl Table for KeptTable {
    fn read(&self) -> io::Result<(Box<dyn Read + Send>, u64)> {
        self.disk.open(&self.path)
    }
}
