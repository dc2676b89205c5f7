//! The bundles that a device holds, and which of them serves: steps 17 and the start.
//!
//! ```text
//! slots/<manifest digest>/head     all before the payload
//! slots/<manifest digest>/<kind>   a blob
//! trust/state.0 and .1             (store/pair) the commit point; body, big-endian:
//!   off  size  field
//!   0    1     version = 1
//!   1    8     epoch            of the root that the numbers belong to
//!   9    8     highest seq      0 = none
//!   17   32    highest digest
//!   49   8     security floor
//!   57   32    active digest    zeros = none
//!   89   32    previous digest  zeros = none
//! ```
//!
//! A slot is whole and durable, names included, before a state record names it; the slot that serves is
//! never touched. One that a record names is written again only where it did not verify, and another one or
//! none serves. So a power cut leaves the old policy or the new one. The record says what was chosen; what
//! serves is what verifies again at each start: active, else previous, else nothing.
//!
//! What was seen (highest, floor, epoch) never goes back. With one record broken, the other one may be from
//! before the last activation: the slots then tell what it cannot. What a start finds out is written at
//! once; where that fails (a full disk) it holds all the same, and is found out again by the next start.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::container::PREAMBLE;
use super::error::{Refused, SemanticProblem};
use super::manifest::{DeviceFacts, Entries, Entry, EntryKind, Manifest};
use super::root::RootDocument;
use super::trust::{History, Seen, Trust};
use super::verify::{Findings, Judge, Purpose, Source, Verdict, Verified, verify};
use crate::disk::Disk;
use crate::ids::{Digest, KeyId};
use crate::store::pair::{Found, Pair};
use crate::units::UnixSeconds;

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

/// Where that which serves after a start comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// No bundle was ever activated: safe mode.
    Fresh,
    /// The active slot.
    Active,
    /// The previous slot, for the active one did not verify.
    Previous(Refused),
    /// Nothing: safe mode, for no slot verified. The reason is the active slot's.
    Nothing(Refused),
}

/// What a start found.
#[derive(Debug)]
pub struct Started<T> {
    /// The slots, to activate more.
    pub slots: Slots,
    /// What serves; `None` is safe mode.
    pub serving: Option<Active<T>>,
    /// Why that.
    pub origin: Origin,
    /// What the state records were worth.
    pub records: Records,
    /// What could not be written down.
    pub unrecorded: Option<io::Error>,
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

/// A device that could not be started with its trust.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The pinned root is not sound, or of an epoch before the device's: place the right one.
    #[error("the pinned root: {name}: {0}", name = .0.name())]
    Root(Refused),
    /// The pinned root cannot be read: place it where `trust.root` says.
    #[error("the pinned root {path}: {1}", path = .0.display())]
    NoRoot(PathBuf, #[source] io::Error),
    /// The state folder cannot be used: check its owner, rights and disk.
    #[error("the state folder: {0}")]
    State(#[from] io::Error),
    /// The state was written by a newer version: run that one.
    #[error("the state record is of a newer version")]
    Newer,
    /// Another process uses the state folder: end it first.
    #[error("{name}: {0}", name = .0.name())]
    Busy(Refused),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct State {
    epoch: u64,
    highest: Option<Seen>,
    security_floor: u64,
    active: Option<Digest>,
    previous: Option<Digest>,
}

/// The slots and the state record.
#[derive(Debug)]
pub struct Slots {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    pair: Pair,
    state: State,
    trust: Trust,
}

impl Slots {
    /// Opens the slots below the state folder, verifies what is chosen, and drops what is not.
    pub fn open<T>(
        disk: Arc<dyn Disk>,
        state_folder: &Path,
        root: RootDocument,
        device: &DeviceFacts,
        compile: Compile<T>,
    ) -> Result<Started<T>, OpenError> {
        let folder = state_folder.join("slots");
        let trust_folder = state_folder.join("trust");
        for each in [&folder, &trust_folder] {
            disk.create_folder(each)?;
        }
        disk.sync_folder(state_folder)?;
        let (pair, found) = Pair::open(Arc::clone(&disk), &trust_folder, "state");
        let held: Vec<Digest> = disk.list(&folder)?.iter().filter_map(|name| name.parse().ok()).collect();
        let recorded = found.body().map(State::from_bytes).transpose()?;
        let records = match found {
            Found::Record(_) => Records::Sound,
            Found::Survivor(_) => Records::Damaged,
            Found::Fresh if held.is_empty() => Records::Sound,
            Found::Fresh | Found::Lost => Records::Lost,
        };
        let mut slots = Self { disk, folder, pair, state: recorded.unwrap_or_default(), trust: Trust::new(root) };
        slots.adopt_epoch(recorded.is_some())?;
        match records {
            Records::Sound => {}
            Records::Damaged => slots.catch_up(&held, device, compile),
            Records::Lost => slots.rebuild(&held, device, compile),
        }
        // A first record, so that from here on a missing one is a lost one; a broken one made good; a later epoch, from
        // which there is no way back.
        let known = records == Records::Sound && recorded == Some(slots.state);
        let written = if known { Ok(()) } else { slots.pair.write(&slots.state.to_bytes()) };
        let (serving, origin) = slots.choose(device, compile);
        slots.trust.history = slots.state.history(serving.as_ref().map(|active| active.digest));
        slots.drop_others();
        Ok(Started { slots, serving, origin, records, unrecorded: written.err() })
    }

    /// The root and what was seen.
    #[must_use]
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Step 17: makes a verified bundle the active one. On an error nothing that served is touched.
    pub fn activate<T>(&mut self, verified: Verified<T>) -> Result<Active<T>, Refused> {
        let digest = verified.digest();
        self.write_slot(&verified).map_err(|error| stored(&error))?;
        let state = self.state.after(&verified, self.trust.history.serving);
        // The commit point. If it fails the slot stays: the record may have reached the disk all the same.
        self.pair
            .write(&state.to_bytes())
            .map_err(|error| Refused::StateLost(format!("writing the state record: {error}")))?;
        self.state = state;
        self.trust.history = state.history(Some(digest));
        self.drop_others();
        let (digest, manifest, signers, policy) = verified.into_parts();
        Ok(Active { digest, manifest, signers, policy })
    }

    /// Every file and every name of the slot, durable.
    fn write_slot<T>(&self, verified: &Verified<T>) -> io::Result<()> {
        let slot = self.folder.join(verified.digest().to_string());
        // A rotten or half-written slot of this very bundle; it cannot be the one that serves.
        self.disk.remove_folder(&slot)?;
        self.disk.create_folder(&slot)?;
        self.disk.write(&slot.join("head"), verified.head().bytes(), 0o600)?;
        for (kind, blob) in verified.entries() {
            self.disk.write(&slot.join(kind.name()), blob, 0o600)?;
        }
        self.disk.sync_folder(&slot)?;
        self.disk.sync_folder(&self.folder)
    }

    /// A root of a later epoch restarts the counters; one of an earlier epoch is refused.
    fn adopt_epoch(&mut self, recorded: bool) -> Result<(), OpenError> {
        let epoch = self.trust.root.epoch();
        if recorded && epoch < self.state.epoch {
            let detail = format!("epoch {epoch}; the device has seen epoch {}", self.state.epoch);
            return Err(OpenError::Root(Refused::RootEpochRegression(detail)));
        }
        if epoch > self.state.epoch {
            self.state = State { epoch, highest: None, security_floor: 0, ..self.state };
        }
        Ok(())
    }

    /// The slots that verify, in the order in which they were accepted.
    fn good<T>(&self, held: &[Digest], device: &DeviceFacts, compile: Compile<T>) -> Vec<(Manifest, Digest)> {
        let verified = held.iter().filter_map(|digest| self.verify_slot(*digest, device, compile).ok());
        let mut good: Vec<(Manifest, Digest)> = verified.map(|active| (active.manifest, active.digest)).collect();
        good.sort_by_key(|(manifest, _)| (manifest.epoch(), manifest.seq()));
        good
    }

    /// What the slots know and the record does not: a slot of this epoch above the highest was accepted after it was
    /// written. Nothing is lowered. If the activation was cut off, this ends it.
    fn catch_up<T>(&mut self, held: &[Digest], device: &DeviceFacts, compile: Compile<T>) {
        for (manifest, digest) in self.good(held, device, compile) {
            let seq = manifest.seq();
            if manifest.epoch() == self.state.epoch && self.state.highest.is_none_or(|highest| seq > highest.seq) {
                self.state.highest = Some(Seen { seq, digest });
                self.state.security_floor = self.state.security_floor.max(manifest.security_floor());
                self.state.previous = self.state.active.replace(digest);
            }
        }
    }

    /// The state as the slots tell it: whatever verifies was accepted once, and the highest was the last.
    fn rebuild<T>(&mut self, held: &[Digest], device: &DeviceFacts, compile: Compile<T>) {
        let mut good = self.good(held, device, compile);
        if let Some((newest, digest)) = good.pop() {
            if newest.epoch() == self.state.epoch {
                self.state.highest = Some(Seen { seq: newest.seq(), digest });
                self.state.security_floor = newest.security_floor();
            }
            self.state.active = Some(digest);
            self.state.previous = good.pop().map(|(_, digest)| digest);
        }
    }

    /// Active, else previous, else nothing; each verified in full.
    fn choose<T>(&self, device: &DeviceFacts, compile: Compile<T>) -> (Option<Active<T>>, Origin) {
        let Some(active) = self.state.active else { return (None, Origin::Fresh) };
        let why = match self.verify_slot(active, device, compile) {
            Ok(active) => return (Some(active), Origin::Active),
            Err(why) => why,
        };
        let previous = self.state.previous.and_then(|digest| self.verify_slot(digest, device, compile).ok());
        match previous {
            Some(previous) => (Some(previous), Origin::Previous(why)),
            None => (None, Origin::Nothing(why)),
        }
    }

    fn verify_slot<T>(&self, digest: Digest, device: &DeviceFacts, compile: Compile<T>) -> Result<Active<T>, Refused> {
        let mut source = Slot { disk: &*self.disk, folder: self.folder.join(digest.to_string()) };
        let by = Judge { trust: &self.trust, lower: UnixSeconds::MIN, device, purpose: Purpose::Serve };
        match verify(&mut source, &by, compile, &mut Findings::default())? {
            Verdict::Accepted(verified) if verified.digest() == digest => {
                let (digest, manifest, signers, policy) = verified.into_parts();
                Ok(Active { digest, manifest, signers, policy })
            }
            _ => Err(Refused::EntryDigestMismatch("the slot holds another bundle than its name says".into())),
        }
    }

    /// Frees the room of slots that no record names. Best effort: what stays is dropped next time.
    fn drop_others(&self) {
        let kept = [self.state.active, self.state.previous, self.trust.history.serving];
        for name in self.disk.list(&self.folder).unwrap_or_default() {
            if !kept.iter().flatten().any(|digest| digest.to_string() == name) {
                let _ = self.disk.remove_folder(&self.folder.join(name));
            }
        }
    }
}

/// A write that failed before the commit.
fn stored(error: &io::Error) -> Refused {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Refused::NoSpace(format!("writing the slot: {error}"))
        }
        _ => Refused::SourceIo(format!("writing the slot: {error}")),
    }
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

const VERSION: u8 = 1;
const NONE: [u8; 32] = [0; 32];

impl State {
    fn after<T>(&self, verified: &Verified<T>, serving: Option<Digest>) -> Self {
        let manifest = verified.manifest();
        Self {
            epoch: self.epoch,
            highest: Some(Seen { seq: manifest.seq(), digest: verified.digest() }),
            security_floor: self.security_floor.max(manifest.security_floor()),
            active: Some(verified.digest()),
            previous: serving,
        }
    }

    fn history(&self, serving: Option<Digest>) -> History {
        History { highest: self.highest, security_floor: self.security_floor, serving }
    }

    fn to_bytes(self) -> Vec<u8> {
        let seen = self.highest.unwrap_or(Seen { seq: 0, digest: Digest(NONE) });
        let digest = |digest: Option<Digest>| digest.map_or(NONE, |digest| digest.0);
        [
            &[VERSION][..],
            &self.epoch.to_be_bytes(),
            &seen.seq.to_be_bytes(),
            &seen.digest.0,
            &self.security_floor.to_be_bytes(),
            &digest(self.active),
            &digest(self.previous),
        ]
        .concat()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, OpenError> {
        let read = || {
            let (version, rest) = bytes.split_first()?;
            let (epoch, rest) = rest.split_first_chunk::<8>()?;
            let (seq, rest) = rest.split_first_chunk::<8>()?;
            let (highest, rest) = rest.split_first_chunk::<32>()?;
            let (floor, rest) = rest.split_first_chunk::<8>()?;
            let (active, rest) = rest.split_first_chunk::<32>()?;
            let previous: &[u8; 32] = rest.try_into().ok()?;
            let digest = |bytes: &[u8; 32]| (*bytes != NONE).then_some(Digest(*bytes));
            let seq = u64::from_be_bytes(*seq);
            (*version == VERSION).then(|| Self {
                epoch: u64::from_be_bytes(*epoch),
                highest: (seq > 0).then_some(Seen { seq, digest: Digest(*highest) }),
                security_floor: u64::from_be_bytes(*floor),
                active: digest(active),
                previous: digest(previous),
            })
        };
        // The record's checksum is good, so another form is another version's.
        read().ok_or(OpenError::Newer)
    }
}
