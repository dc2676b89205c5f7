//! The sealed side of the spool: turns open rows into files, keeps them until the hub has them.
//!
//! A generation is a small sled folder; files go into the newest and leave from the oldest, and only
//! one is open at a time. One file's parts, its entry, the chain's state and the cursors of the open
//! logs are one atomic commit. Invariant: a row is in its log or in a file, never in both; `seq` of a
//! stream is never used twice. A ledger that returned an error other than [`Error::Refused`] is not to be used
//! again: open a new one. Lives in the spool's child process.
//!
//! A generation that cannot be read is set aside and becomes a gap. If it was the newest, or came back
//! without its last commits, nobody knows which numbers were used: a new stream begins.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::disk;
use crate::ids::{Digest, StreamId};
use crate::keys::{self, SigningKey};
use crate::spool::backlog::{Cursor, UsageFile};
use crate::spool::gather::{Gather, Gathered};
use crate::spool::generations::{Generations, Name};
use crate::spool::lane;
use crate::spool::log::BootId;
use crate::spool::segment::{self, Builder, FILE_LIMIT, Place, Unverified};
use crate::spool::state::{
    BEFORE_FILES, DONE, DRAINED, Drained, Entry, STATE, State, ToldSums, generation_gap, read_mark, told_key,
    write_mark,
};
use crate::spool::wire::{Report, Seal, Setup};
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

type Result<T> = std::result::Result<T, Error>;

/// Freed before sled is opened on a disk that is nearly full, so that it has room to recover.
const BALLAST: u64 = 2 * SEGMENT;

/// The open ledger.
#[derive(Debug)]
pub(super) struct Ledger {
    setup: Setup,
    key: SigningKey,
    boot: BootId,
    generations: Generations,
    open: Option<(Name, Generation)>,
    /// The open generation holds nothing yet: what its first commit must say of the files before it.
    fresh: Option<Drained>,
    /// Files and bytes that have left, ever; `None` until the oldest generation was asked.
    left: Option<(u64, u64)>,
    state: State,
    told: ToldSums,
    builder: Builder,
    left_over: bool,
    notes: Vec<String>,
}

impl Ledger {
    /// Opens the newest generation that can be opened; whatever is damaged is set aside and noted.
    pub(super) fn open(setup: Setup, now_ms: i64) -> Result<Self> {
        let key = SigningKey::from_seed(&setup.seed).ok_or(Error::Key)?;
        make_room(&setup)?;
        let generations = Generations::open(&setup.folder)?;
        let (boot, builder) = (lane::boot_id(), Builder::new());
        let mut ledger = Self {
            setup,
            key,
            boot,
            generations,
            open: None,
            fresh: None,
            left: None,
            state: State::default(),
            told: ToldSums::new(),
            builder,
            left_over: true,
            notes: Vec::new(),
        };
        ledger.recover(now_ms)?;
        Ok(ledger)
    }

    fn recover(&mut self, now_ms: i64) -> Result<()> {
        let (mut damaged, mut empty) = (Vec::new(), Vec::new());
        let mut lost = None;
        for name in self.generations.list()?.into_iter().rev() {
            match self.load(name) {
                Ok(true) => break,
                // Its first commit never happened, so it holds nothing; unless the mark says otherwise.
                Ok(false) => {
                    self.open = None;
                    empty.push(name);
                }
                Err(Error::Store(generation::Error::Damaged(why))) => {
                    self.notes.push(format!("generation {}: {why}", name.number));
                    self.open = None;
                    lost = Some(lost.unwrap_or(name.first_ms).min(name.first_ms));
                    damaged.push(name);
                }
                Err(error) => return Err(error),
            }
        }
        if let Some((mark, told)) = read_mark(&self.setup.folder)
            && mark.files > self.state.files
        {
            lost = Some(lost.unwrap_or_else(|| self.open.as_ref().map_or(now_ms, |(name, _)| name.first_ms)));
            (self.state.cursors, self.state.gaps, self.told) = (mark.cursors, mark.gaps, told);
        }
        if self.state.stream == 0 || lost.is_some() {
            let stream = u64::from_be_bytes(keys::random().ok_or(Error::Key)?) | 1;
            self.state.begin_stream(stream);
        }
        if let Some(from_ms) = lost {
            self.state.note(generation_gap(from_ms, now_ms, None));
            let first = self.open.as_ref().map_or(0, |(name, _)| name.number);
            damaged.append(&mut empty);
            let first = damaged.iter().map(|name| name.number).fold(first, u32::max);
            self.begin(first, from_ms)?;
            self.write(Changes::default())?;
            self.mark();
        }
        for name in damaged {
            self.generations.set_aside(name, now_ms)?;
        }
        for name in empty {
            self.generations.remove(name)?;
        }
        Ok(())
    }

    /// Opens a generation and takes its state; `false` if it has none.
    fn load(&mut self, name: Name) -> Result<bool> {
        self.use_generation(name)?;
        let Some(state) = self.value::<State>(STATE)? else { return Ok(false) };
        self.told.clear();
        let mut key = told_key(0);
        key.part -= 1;
        while let Some(next) = self.generation()?.key_after(key)?.filter(|next| next.seq == 0) {
            let worker = next.part.saturating_sub(told_key(0).part);
            if let Some(told) = self.value(next)? {
                self.told.insert(worker, told);
            }
            key = next;
        }
        self.state = state;
        Ok(true)
    }

    /// Seals what waits into one file, if anything waits and there is room.
    pub(super) fn seal(&mut self, seal: &Seal) -> Result<Report> {
        let report = self.report()?;
        if report.bytes >= self.setup.backlog_limit {
            return Err(Error::Refused("the backlog has reached its limit"));
        }
        if disk::free_bytes(&self.setup.folder)? < self.setup.free_floor {
            return Err(Error::Refused("the disk is nearly full"));
        }
        self.newest()?;
        let folder = self.setup.folder.join("open");
        let gather = Gather { folder: &folder, state: &self.state, told: &self.told, seal, boot: self.boot };
        let taken = gather.run(&mut self.builder)?;
        let rows = self.builder.rows();
        let finished = if rows > 0 { self.commit_file(seal, taken)? } else { self.keep(taken) };
        if !finished.is_empty() {
            finished.iter().try_for_each(|(_, path)| fs::remove_file(path))?;
            disk::sync_folder(&folder)?;
        }
        let mut report = self.report()?;
        report.rows = rows;
        report.sealed.extend(finished.into_iter().map(|(id, _)| (id, DONE, 0)));
        Ok(report)
    }

    /// What a pass found without rows: logs that are done with.
    fn keep(&mut self, taken: Gathered) -> Vec<(u64, PathBuf)> {
        self.left_over = taken.left_over;
        taken.finished
    }

    fn commit_file(&mut self, seal: &Seal, taken: Gathered) -> Result<Vec<(u64, PathBuf)>> {
        let State { stream, next_seq: seq, previous, .. } = self.state;
        let place = Place { stream: StreamId(stream), seq, previous, policy: seal.policy };
        let bytes = self.builder.seal(&place, &self.key)?;
        self.builder = Builder::new(); // sled's turn: give the memory back first
        let header = *Unverified::parse(&bytes)?.claimed();
        let digest = keys::sha256(&bytes);

        let newest = self.open.as_ref().map(|(name, _)| name.number);
        let is_full = match &self.open {
            Some((_, generation)) => generation.disk_bytes()? >= self.setup.generation_size,
            None => true,
        };
        if is_full {
            self.begin(newest.unwrap_or(0), header.first_ms)?;
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
        self.state.files += 1;
        self.state.bytes += u64::from(len);
        self.state.cursors = taken.cursors;
        self.state.gaps = taken.gaps;
        self.told.extend(taken.told);
        self.write(changes)?;
        self.left_over = taken.left_over;
        self.mark();
        Ok(taken.finished)
    }

    /// The oldest file after `after`, or of all.
    pub(super) fn oldest(&mut self, after: Option<Cursor>, now_ms: i64) -> Result<Option<UsageFile>> {
        let names = self.generations.list()?;
        let begin = after.and_then(|after| names.iter().position(|name| name.stream == after.stream.0));
        for name in names.into_iter().skip(begin.unwrap_or(0)) {
            loop {
                match self.next_file(name, after) {
                    Ok(Next::File(file)) => return Ok(Some(file)),
                    Ok(Next::Nothing) => break,
                    Ok(Next::Damaged(seq, entry)) => self.lose_file(name, seq, &entry)?,
                    Err(Error::Store(generation::Error::Damaged(why))) => {
                        self.lose(name, &why, now_ms)?;
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
            self.remove_if_drained(name)?;
        }
        Ok(None)
    }

    fn next_file(&mut self, name: Name, after: Option<Cursor>) -> Result<Next> {
        self.use_generation(name)?;
        let after = after.filter(|after| after.stream.0 == name.stream);
        let after = after.map_or(BEFORE_FILES, |after| Key { seq: after.seq, part: u16::MAX });
        let Some(key) = self.generation()?.key_after(after)? else { return Ok(Next::Nothing) };
        let seq = key.seq;
        let entry: Entry = self.value(Key { seq, part: 0 })?.ok_or_else(|| damaged("a file without its entry"))?;
        let mut bytes = Vec::new();
        for part in 1..=entry.parts {
            let Some(chunk) = self.generation()?.read(Key { seq, part })? else { break };
            bytes.extend_from_slice(chunk.as_ref());
            if bytes.len() > FILE_LIMIT {
                break;
            }
        }
        if keys::sha256(&bytes) != entry.digest {
            return Ok(Next::Damaged(seq, entry));
        }
        let at = Cursor { stream: StreamId(name.stream), seq };
        Ok(Next::File(UsageFile { at, digest: entry.digest, bytes }))
    }

    /// Deletes a file that the hub has for good. One that is not there was deleted before.
    pub(super) fn acknowledge(&mut self, at: Cursor, digest: &Digest, now_ms: i64) -> Result<Report> {
        let names = self.generations.list()?;
        for name in names.into_iter().filter(|name| name.stream == at.stream.0) {
            let entry = match self.entry(name, at.seq) {
                Err(Error::Store(generation::Error::Damaged(why))) => {
                    self.lose(name, &why, now_ms)?;
                    continue;
                }
                entry => entry?,
            };
            let Some(entry) = entry else { continue };
            if entry.digest != *digest {
                return Err(Error::DigestMismatch);
            }
            let changes = self.removal(at.seq, &entry)?;
            self.generation()?.commit(changes)?;
            self.remove_if_drained(name)?;
            break;
        }
        self.report()
    }

    fn entry(&mut self, name: Name, seq: u64) -> Result<Option<Entry>> {
        self.use_generation(name)?;
        self.value(Key { seq, part: 0 })
    }

    /// What takes a file out of the open generation.
    fn removal(&mut self, seq: u64, entry: &Entry) -> Result<Changes> {
        let mut changes = Changes::default();
        (0..=entry.parts).for_each(|part| changes.remove(Key { seq, part }));
        let mut drained: Drained = self.value(DRAINED)?.unwrap_or_default();
        drained.files += 1;
        drained.bytes += u64::from(entry.len);
        put(&mut changes, DRAINED, &drained)?;
        self.left = None;
        Ok(changes)
    }

    fn remove_if_drained(&mut self, name: Name) -> Result<()> {
        let names = self.generations.list()?;
        if !names.contains(&name) || names.last() == Some(&name) {
            return Ok(()); // the newest holds the state
        }
        self.use_generation(name)?;
        if self.generation()?.key_after(BEFORE_FILES)?.is_none() {
            self.open = None;
            self.generations.remove(name)?;
            self.left = None;
        }
        Ok(())
    }

    /// Notes a generation as lost, durably, and sets it aside.
    fn lose(&mut self, name: Name, why: &str, now_ms: i64) -> Result<()> {
        self.notes.push(format!("generation {}: {why}", name.number));
        self.state.note(generation_gap(name.first_ms, now_ms, None));
        self.left_over = true;
        self.left = None;
        match self.generations.list()?.last() {
            Some(newest) if *newest != name => self.use_generation(*newest)?,
            _ => self.begin(name.number, now_ms)?, // what the state says was read before, and still holds
        }
        self.write(Changes::default())?;
        Ok(self.generations.set_aside(name, now_ms)?)
    }

    /// Notes one file as lost and removes what is left of it.
    fn lose_file(&mut self, name: Name, seq: u64, entry: &Entry) -> Result<()> {
        self.notes.push(format!("file {seq} of generation {} does not have its digest", name.number));
        self.state.note(generation_gap(entry.first_ms, entry.last_ms, entry.requests.map(u64::from)));
        self.left_over = true;
        self.newest()?;
        self.write(Changes::default())?;
        self.use_generation(name)?;
        let changes = self.removal(seq, entry)?;
        Ok(self.generation()?.commit(changes)?)
    }

    /// How the spool stands.
    pub(super) fn report(&mut self) -> Result<Report> {
        let (files, bytes) = match self.left {
            Some(left) => left,
            None => {
                let drained = match self.generations.list()?.first() {
                    Some(oldest) => {
                        self.use_generation(*oldest)?;
                        self.value::<Drained>(DRAINED)?.unwrap_or_default()
                    }
                    None => Drained::default(),
                };
                let left = (drained.files_before + drained.files, drained.bytes_before + drained.bytes);
                *self.left.insert(left)
            }
        };
        let sealed = self.state.cursors.iter().map(|cursor| (cursor.id, cursor.offset, cursor.rows)).collect();
        Ok(Report {
            files: self.state.files.saturating_sub(files),
            bytes: self.state.bytes.saturating_sub(bytes),
            sealed,
            rows: 0,
            left_over: self.left_over,
            notes: std::mem::take(&mut self.notes),
        })
    }

    /// Begins the generation after `number`.
    fn begin(&mut self, number: u32, first_ms: i64) -> Result<()> {
        self.open = None;
        let number = number.checked_add(1).ok_or_else(|| damaged("generation numbers are used up"))?;
        self.use_generation(Name { number, stream: self.state.stream, first_ms })?;
        let State { files, bytes, .. } = self.state;
        self.fresh = Some(Drained { files_before: files, bytes_before: bytes, ..Drained::default() });
        Ok(())
    }

    /// Commits `changes` together with the state.
    fn write(&mut self, mut changes: Changes) -> Result<()> {
        put(&mut changes, STATE, &self.state)?;
        for (worker, told) in &self.told {
            put(&mut changes, told_key(*worker), told)?;
        }
        if let Some(drained) = self.fresh.take() {
            put(&mut changes, DRAINED, &drained)?;
        }
        Ok(self.generation()?.commit(changes)?)
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
        self.open = Some((name, Generation::open(&self.generations.path(name))?));
        Ok(())
    }

    fn generation(&self) -> Result<&Generation> {
        self.open.as_ref().map(|(_, generation)| generation).ok_or_else(|| damaged("no generation is open"))
    }

    fn value<T: DeserializeOwned>(&self, key: Key) -> Result<Option<T>> {
        let Some(bytes) = self.generation()?.read(key)? else { return Ok(None) };
        postcard::from_bytes(bytes.as_ref()).map(Some).map_err(|_| damaged("a value of an unknown form"))
    }
}

/// What stands next in a generation.
enum Next {
    File(UsageFile),
    Damaged(u64, Entry),
    Nothing,
}

fn damaged(why: &str) -> Error {
    generation::Error::Damaged(why.into()).into()
}

fn put(changes: &mut Changes, key: Key, value: &impl Serialize) -> Result<()> {
    let bytes = postcard::to_allocvec(value).map_err(io::Error::other)?;
    Ok(changes.put(key, &bytes)?)
}

/// Frees the ballast where the disk is nearly full, before sled is opened: once sled has failed to open
/// for want of room, it cannot be opened again.
fn make_room(setup: &Setup) -> io::Result<()> {
    let ballast = setup.folder.join("ballast");
    let free = disk::free_bytes(&setup.folder)?;
    let floor = setup.free_floor.max(2 * BALLAST);
    if free < floor && ballast.exists() {
        fs::remove_file(&ballast)?;
    } else if free >= floor + BALLAST && !ballast.exists() {
        let file = fs::File::create(&ballast)?;
        if rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, BALLAST).is_err() {
            fs::remove_file(&ballast)?; // a file system that cannot reserve
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
