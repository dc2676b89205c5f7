//! The sealed side of the spool: turns open rows into files, keeps them until the hub has them.
//!
//! A generation is a small sled folder; files go into the newest and leave from the oldest, and only
//! one is open at a time. One file's parts, its entry, the chain's state and the cursors of the open
//! logs are one atomic commit. Invariant: a row is in its log or in a file, never in both; `seq` of a
//! stream is never used twice. A ledger that returned an error is good for a report at most: open a new one. Lives in
//! the spool's child process.
//!
//! A generation that cannot be read, wherever that shows, is set aside and becomes a gap, and what was
//! asked is done without it ([`recover`]). If it was the newest, or came back without its last commits,
//! nobody knows which numbers were used: a new stream begins.

mod drain;
mod recover;
mod retain;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::disk;
use crate::ids::StreamId;
use crate::keys::{self, SigningKey};
use crate::spool::backlog::Stock;
use crate::spool::gather::{Gather, Gathered, ReadAt};
use crate::spool::generations::{Generations, Name};
use crate::spool::lane;
use crate::spool::log::BootId;
use crate::spool::renew;
use crate::spool::segment::{self, Builder, Place, Unverified};
use crate::spool::state::{DONE, DRAINED, Drained, Entry, STATE, State, ToldSums, told_key, write_mark};
use crate::spool::tombstones::Tombstones;
use crate::spool::wire::{Known, Report, Seal, Setup};
use crate::store::generation::{self, Changes, Generation, Key, SEGMENT, VALUE_LIMIT};

/// Why the ledger did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// sled failed: see its message.
    #[error(transparent)]
    Store(#[from] generation::Error),
    /// The system failed: see its message.
    #[error("cannot use the spool's folder")]
    Io(#[from] io::Error),
    /// The open logs cannot be read: see the system's message.
    #[error("cannot read the open logs")]
    Logs(#[source] io::Error),
    /// The file could not be made: a defect of Tidegate.
    #[error("cannot seal")]
    Seal(#[from] segment::Error),
    /// The disk or the backlog is full; the rows stay where they are.
    #[error("{0}")]
    Refused(&'static str),
    /// The random source failed or the seed is none: look at the system's log.
    #[error("no key or no random numbers")]
    Key,
    /// The receipt is for other bytes than those under that number: look into it, the file is kept.
    #[error("the acknowledged digest is not the file's")]
    DigestMismatch,
}

/// Why nothing is sealed for want of room.
pub(super) const BACKLOG_FULL: &str = "the backlog has reached its limit";
pub(super) const DISK_FULL: &str = "the disk is nearly full";

type Result<T> = std::result::Result<T, Error>;

/// What sled may write when it is opened. Kept as ballast while there is plenty.
const ROOM: u64 = 2 * SEGMENT;

/// Beyond so many generations each is so many times larger.
const MANY_GENERATIONS: usize = 32;
const ROOMY: u64 = 8;

type Open = dyn FnMut(u32, &Path) -> std::result::Result<Generation, generation::Error>;

/// Opens the generation of a number in a folder. The child tells its daemon around it, so that the daemon
/// knows what it died of; tests have one that fails.
pub(super) struct Opener(Box<Open>);

impl Opener {
    pub(super) fn new(
        open: impl FnMut(u32, &Path) -> std::result::Result<Generation, generation::Error> + 'static,
    ) -> Self {
        Self(Box::new(open))
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opener")
    }
}

/// The open ledger.
#[derive(Debug)]
pub(super) struct Ledger {
    setup: Setup,
    key: SigningKey,
    boot: BootId,
    generations: Generations,
    tombstones: Tombstones,
    opener: Opener,
    read: ReadAt,
    open: Option<(Name, Generation)>,
    /// The generation in use or being opened: the one to blame for what goes wrong.
    at: Option<Name>,
    /// The open generation holds nothing yet: what its first commit must say of the files before it.
    fresh: Option<Drained>,
    /// What was sealed before the newest generation's first file.
    before: Stock,
    /// What has left each generation, as far as that was seen.
    left: BTreeMap<u32, Stock>,
    state: State,
    told: ToldSums,
    builder: Builder,
    left_over: bool,
    notes: Vec<String>,
}

impl Ledger {
    /// Opens the newest generation that can be opened; whatever is damaged is set aside and noted.
    /// `known` is what the daemon knows from children before this one.
    pub(super) fn open(setup: Setup, known: &Known, opener: Opener, now_ms: i64) -> Result<Self> {
        let key = SigningKey::from_seed(&setup.seed.0).ok_or(Error::Key)?;
        make_room(&setup)?;
        let generations = Generations::open(&setup.folder)?;
        let tombstones = Tombstones::open(&setup.folder)?;
        let (boot, builder) = (lane::boot_id(), Builder::new());
        // `collect` would bring a sort of its own, 6 KB of code.
        let mut left = BTreeMap::new();
        left.extend(known.left.iter().copied());
        let mut ledger = Self {
            setup,
            key,
            boot,
            generations,
            tombstones,
            opener,
            read: |file, bytes, at| file.read_at(bytes, at),
            open: None,
            at: None,
            fresh: None,
            before: Stock::default(),
            left,
            state: State::default(),
            told: ToldSums::new(),
            builder,
            left_over: true,
            notes: Vec::new(),
        };
        let names = ledger.generations.list()?;
        let named = |number| names.iter().find(|name| Some(name.number) == number);
        if let Some(name) = named(known.condemned) {
            ledger.condemn(*name, "it cannot be read", now_ms)?;
        } else if let Some(name) = named(known.unsynced) {
            ledger.generations.rewrite(*name)?;
        }
        ledger.recover(now_ms)?;
        Ok(ledger)
    }

    /// Seals what waits into one file, if anything waits and there is room.
    pub(super) fn seal(&mut self, seal: &Seal) -> Result<Report> {
        self.survive(seal.now_ms, |ledger| ledger.try_seal(seal))
    }

    fn try_seal(&mut self, seal: &Seal) -> Result<Report> {
        if disk::free_bytes(&self.setup.folder)? < self.setup.free_floor {
            return Err(Error::Refused(DISK_FULL));
        }
        if self.is_over_limit()? {
            self.replace_spent()?;
            if !self.make_way(seal.now_ms)? {
                return Err(Error::Refused(BACKLOG_FULL));
            }
        }
        self.newest()?;
        let folder = self.setup.folder.join("open");
        let Self { state, told, boot, read, .. } = self;
        let gather = Gather { folder: &folder, state, told, seal, boot: *boot, read: *read };
        let taken = gather.run(&mut self.builder).map_err(Error::Logs)?;
        let rows = self.builder.rows();
        let finished = if rows > 0 { self.commit_file(seal, taken)? } else { self.keep(taken) };
        if !finished.is_empty() {
            for (_, path) in &finished {
                if let Err(error) = fs::remove_file(path) {
                    // Its cursor says that it is done, so it costs nothing but its place.
                    self.notes.push(format!("{} is not removed: {error}", path.display()));
                }
            }
            disk::sync_folder(&folder)?;
        }
        let mut report = self.report()?;
        report.rows = rows;
        report.sealed.extend(finished.into_iter().map(|(id, _)| (id, DONE, 0)));
        Ok(report)
    }

    fn is_over_limit(&self) -> Result<bool> {
        Ok(self.disk_bytes()? >= self.setup.backlog_limit)
    }

    /// The disk that sealed usage takes.
    fn disk_bytes(&self) -> Result<u64> {
        let open = self.open.as_ref().map(|(name, _)| *name);
        Ok(self.generations.disk_bytes(open)?.saturating_add(self.tombstones.disk_bytes()))
    }

    /// The size of a generation. Where many wait they are read back one after another, which larger ones make cheaper;
    /// and months of them are a few hundred folders and not thousands.
    fn roomy(&self) -> Result<u64> {
        let has_many = self.generations.list()?.len() > MANY_GENERATIONS;
        Ok(self.setup.generation_size.saturating_mul(if has_many { ROOMY } else { 1 }))
    }

    /// What a pass found without rows: logs that are done with.
    fn keep(&mut self, taken: Gathered) -> Vec<(u64, PathBuf)> {
        self.left_over = taken.left_over;
        taken.finished
    }

    fn commit_file(&mut self, seal: &Seal, taken: Gathered) -> Result<Vec<(u64, PathBuf)>> {
        let State { stream, next_seq: seq, previous, .. } = self.state;
        let place = Place { stream: StreamId(stream), seq, previous, policy: seal.policy };
        // On an error the rows are in the logs as they were.
        let bytes = std::mem::take(&mut self.builder).seal(&place, &self.key)?;
        let header = *Unverified::parse(&bytes)?.claimed();
        let digest = keys::sha256(&bytes);

        let is_full = match &self.open {
            Some((name, _)) if name.held.is_some() || name.stream != stream => true,
            Some((_, generation)) => generation.disk_bytes()? >= self.roomy()?,
            None => true,
        };
        if is_full {
            self.begin(header.first_ms)?;
        }
        let mut changes = Changes::default();
        let mut parts: u16 = 0;
        for chunk in bytes.chunks(VALUE_LIMIT) {
            parts += 1; // FILE_LIMIT is some 300 parts
            changes.put(Key { seq, part: parts }, chunk)?;
        }
        let len = u32::try_from(bytes.len()).expect("a usage file is at most FILE_LIMIT bytes");
        let requests = (header.others == 0).then_some(header.requests);
        let entry = Entry { digest, len, parts, requests, first_ms: header.first_ms, last_ms: header.last_ms };
        put(&mut changes, Key { seq, part: 0 }, &entry)?;

        if self.state.cursors.iter().any(|old| taken.cursors.iter().all(|new| new.id != old.id)) {
            // A log that a power cut brings back must find its cursor: only forget it once it is gone for good.
            disk::sync_folder(&self.setup.folder.join("open"))?;
        }
        self.state.next_seq = seq + 1;
        self.state.previous = Some(digest);
        self.state.sealed.add(Stock { files: 1, bytes: len.into() });
        self.state.cursors = taken.cursors;
        self.state.gaps = taken.gaps;
        self.state.heard = seal.losses.heard();
        self.told.extend(taken.told);
        self.write(changes)?;
        if let Err(error) = renew::done(&self.setup.folder) {
            self.notes.push(format!("the mark of a copied spool is not removed: {error}"));
        }
        self.left_over = taken.left_over;
        self.mark();
        Ok(taken.finished)
    }

    /// How the spool stands. Opens nothing: what left a generation that was not opened yet is not known, so
    /// there may be fewer files than it says, and never more.
    pub(super) fn report(&mut self) -> Result<Report> {
        let (Stock { files, bytes }, newest) = self.waiting()?;
        let sealed = self.state.cursors.iter().map(|cursor| (cursor.id, cursor.offset, cursor.rows)).collect();
        Ok(Report {
            stream: self.state.stream,
            files,
            bytes,
            disk_bytes: self.disk_bytes()?,
            left: self.left.iter().map(|(number, left)| (*number, *left)).collect(),
            sealed,
            rows: 0,
            is_spent: newest.files == 0 && self.has_held(),
            left_over: self.left_over,
            notes: std::mem::take(&mut self.notes),
        })
    }

    /// What waits for receipts, at most; in all generations, and in the newest.
    fn waiting(&mut self) -> Result<(Stock, Stock)> {
        let names = self.generations.list()?;
        self.left.retain(|number, _| names.iter().any(|name| name.number == *number));
        let (mut waiting, mut newest) = (self.tombstones.stock(), Stock::default());
        for name in names.iter() {
            let held = name.held.unwrap_or(self.state.sealed.without(self.before));
            newest = held.without(self.left.get(&name.number).copied().unwrap_or_default());
            waiting.add(newest);
        }
        Ok((waiting, newest))
    }

    /// Whether a file was ever in the newest generation.
    fn has_held(&self) -> bool {
        self.state.sealed != self.before
    }

    /// Closes the newest generation, which must be open, and begins the next.
    fn begin(&mut self, first_ms: i64) -> Result<()> {
        if let Some((name, generation)) = self.open.take() {
            drop(generation);
            if name.held.is_none() {
                self.generations.close(name, self.state.sealed.without(self.before))?;
            }
        }
        let State { stream, next_seq: first_seq, sealed, .. } = self.state;
        let number = self.generations.next_number()?;
        self.use_generation(Name { number, stream, first_seq, first_ms, held: None })?;
        self.before = sealed;
        self.fresh = Some(Drained { before: sealed, left: Stock::default() });
        Ok(())
    }

    /// Commits `changes` together with the state.
    fn write(&mut self, mut changes: Changes) -> Result<()> {
        put(&mut changes, STATE, &self.state)?;
        for (worker, told) in &self.told {
            put(&mut changes, told_key(*worker), told)?;
        }
        if let Some(drained) = self.fresh {
            put(&mut changes, DRAINED, &drained)?;
        }
        self.generation()?.commit(changes)?;
        if self.fresh.take().is_some()
            && let Some((name, _)) = &self.open
        {
            self.generations.mark_used(*name)?;
        }
        Ok(())
    }

    fn mark(&mut self) {
        if let Err(error) = write_mark(&self.setup.folder, &self.state, &self.told) {
            self.notes.push(format!("the mark is not written: {error}"));
        }
    }

    /// Opens the newest generation, if there is one.
    fn newest(&mut self) -> Result<()> {
        match self.generations.list()?.last() {
            Some(name) => self.use_generation(*name),
            None => Ok(()),
        }
    }

    fn use_generation(&mut self, name: Name) -> Result<()> {
        if self.open.as_ref().is_some_and(|(open, _)| *open == name) {
            return Ok(());
        }
        self.open = None; // one at a time: each costs memory
        make_room(&self.setup)?;
        self.at = Some(name);
        self.generations.touch(name);
        self.open = Some((name, (self.opener.0)(name.number, &self.generations.path(name))?));
        let drained: Drained = self.value(DRAINED)?.unwrap_or_default();
        self.left.insert(name.number, drained.left);
        Ok(())
    }

    fn generation(&self) -> Result<&Generation> {
        let none = || Error::Io(io::Error::other("no generation is open"));
        self.open.as_ref().map(|(_, generation)| generation).ok_or_else(none)
    }

    fn value<T: DeserializeOwned>(&self, key: Key) -> Result<Option<T>> {
        let Some(bytes) = self.generation()?.read(key)? else { return Ok(None) };
        postcard::from_bytes(bytes.as_ref()).map(Some).map_err(|_| damaged("a value of an unknown form"))
    }
}

fn damaged(why: &str) -> Error {
    generation::Error::Damaged(why.into()).into()
}

fn put(changes: &mut Changes, key: Key, value: &impl Serialize) -> Result<()> {
    let bytes = postcard::to_allocvec(value).map_err(io::Error::other)?;
    Ok(changes.put(key, &bytes)?)
}

/// Sees to it that sled has room before it opens anything: it writes then, and what it cannot finish may read as damage.
/// Gives up the ballast where that makes the room; where not, nothing is opened.
fn make_room(setup: &Setup) -> Result<()> {
    let ballast = setup.folder.join("ballast");
    let free = disk::free_bytes(&setup.folder)?;
    if free < ROOM && ballast.exists() {
        fs::remove_file(&ballast)?;
        return has_room(&setup.folder);
    }
    if free >= setup.free_floor.max(2 * ROOM).saturating_add(ROOM) && !ballast.exists() {
        let file = fs::File::create(&ballast)?;
        if rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, ROOM).is_err() {
            fs::remove_file(&ballast)?; // a file system that cannot reserve
        }
    }
    has_room(&setup.folder)
}

fn has_room(folder: &Path) -> Result<()> {
    if disk::free_bytes(folder)? < ROOM { Err(Error::Refused(DISK_FULL)) } else { Ok(()) }
}

#[cfg(all(test, feature = "hub"))]
mod golden_tests;
#[cfg(all(test, feature = "hub"))]
mod model_tests;
#[cfg(test)]
mod retain_tests;
#[cfg(all(test, feature = "hub"))]
pub(crate) mod sim_tests;
#[cfg(test)]
mod sync_tests;
#[cfg(test)]
mod tests;
