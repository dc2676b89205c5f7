//! How files leave the ledger: read oldest first, removed for a receipt, and counted at the end.
//!
//! A file that is not whole becomes a gap. A generation that is empty is deleted only if as many files
//! came out of it as its name says that it held; if not, sled has cut it, and it is set aside as lost.

use super::{Error, Ledger, Result, damaged, put};
use crate::ids::{Digest, StreamId};
use crate::keys;
use crate::spool::backlog::Stock;
use crate::spool::backlog::{Cursor, UsageFile};
use crate::spool::generations::Name;
use crate::spool::segment::FILE_LIMIT;
use crate::spool::state::{BEFORE_FILES, DRAINED, Drained, Entry, generation_gap};
use crate::spool::wire::Report;
use crate::store::generation::{Changes, Key};

/// What stands next in a generation.
pub(super) enum Next {
    File(UsageFile),
    /// Number and length of a file that a tombstone stands for.
    Retired(u64, u32),
    /// Number and entry of a file whose parts are not those that were sealed; the entry may be gone too.
    Damaged(u64, Option<Entry>),
    Nothing,
}

impl Ledger {
    /// The oldest file after `after`, or of all.
    pub(in crate::spool) fn oldest(&mut self, after: Option<Cursor>, now_ms: i64) -> Result<Option<UsageFile>> {
        self.survive(now_ms, |ledger| ledger.try_oldest(after, now_ms))
    }

    fn try_oldest(&mut self, after: Option<Cursor>, now_ms: i64) -> Result<Option<UsageFile>> {
        if let Some(tombstone) = self.next_tombstone(after, now_ms)? {
            return Ok(Some(tombstone));
        }
        let names = self.generations.list()?;
        // The last generation that can hold the file behind `after`: those before it hold none that was not passed.
        let may_hold =
            |name: &Name, after: Cursor| name.stream == after.stream.0 && name.first_seq <= after.seq.saturating_add(1);
        let begin = after.and_then(|after| names.iter().rposition(|name| may_hold(name, after)));
        for name in names.iter().copied().skip(begin.unwrap_or(0)) {
            loop {
                match self.next_file(name, after)? {
                    Next::File(file) => return Ok(Some(file)),
                    Next::Damaged(seq, entry) => self.lose_file(name, seq, entry, now_ms)?,
                    Next::Retired(seq, len) => {
                        let changes = self.removal(seq, len)?;
                        self.generation()?.commit(changes)?;
                    }
                    Next::Nothing => break,
                }
            }
            self.remove_if_drained(name)?;
        }
        Ok(None)
    }

    pub(super) fn next_file(&mut self, name: Name, after: Option<Cursor>) -> Result<Next> {
        self.use_generation(name)?;
        let after = after.filter(|after| after.stream.0 == name.stream);
        let after = after.map_or(BEFORE_FILES, |after| Key { seq: after.seq, part: u16::MAX });
        let Some(Key { seq, .. }) = self.generation()?.key_after(after)? else { return Ok(Next::Nothing) };
        let Some(entry) = self.value::<Entry>(Key { seq, part: 0 })? else { return Ok(Next::Damaged(seq, None)) };
        if self.tombstones.cover(name.stream, seq) {
            return Ok(Next::Retired(seq, entry.len));
        }
        let mut bytes = Vec::new();
        for part in 1..=entry.parts {
            let Some(chunk) = self.generation()?.read(Key { seq, part })? else { break };
            bytes.extend_from_slice(chunk.as_ref());
            if bytes.len() > FILE_LIMIT {
                break;
            }
        }
        // A part that is missing or altered shows here too.
        if keys::sha256(&bytes) != entry.digest {
            return Ok(Next::Damaged(seq, Some(entry)));
        }
        let at = Cursor { stream: StreamId(name.stream), seq };
        Ok(Next::File(UsageFile { at, digest: entry.digest, bytes }))
    }

    /// Deletes a file that the hub has for good. One that is not there was deleted before.
    pub(in crate::spool) fn acknowledge(&mut self, at: Cursor, digest: &Digest, now_ms: i64) -> Result<Report> {
        self.survive(now_ms, |ledger| ledger.try_acknowledge(at, digest))
    }

    fn try_acknowledge(&mut self, at: Cursor, digest: &Digest) -> Result<Report> {
        if self.acknowledge_tombstone(at, digest)? {
            return self.report();
        }
        let names = self.generations.list()?;
        let of_stream: Vec<Name> = names.iter().copied().filter(|name| name.stream == at.stream.0).collect();
        for (index, name) in of_stream.iter().enumerate() {
            let ends_before = of_stream.get(index + 1).is_some_and(|next| next.first_seq <= at.seq);
            if ends_before || at.seq < name.first_seq {
                continue;
            }
            self.use_generation(*name)?;
            let Some(entry) = self.value::<Entry>(Key { seq: at.seq, part: 0 })? else { continue };
            if entry.digest != *digest {
                return Err(Error::DigestMismatch);
            }
            let changes = self.removal(at.seq, entry.len)?;
            self.generation()?.commit(changes)?;
            self.remove_if_drained(*name)?;
        }
        self.report()
    }

    /// What takes a file of `len` bytes out of the open generation.
    pub(super) fn removal(&mut self, seq: u64, len: u32) -> Result<Changes> {
        let mut changes = Changes::default();
        let mut key = Key { seq: seq.saturating_sub(1), part: u16::MAX };
        while let Some(next) = self.generation()?.key_after(key)?.filter(|next| next.seq == seq) {
            changes.remove(next);
            key = next;
        }
        let mut drained: Drained = self.value(DRAINED)?.unwrap_or_default();
        drained.left.add(Stock { files: 1, bytes: len.into() });
        put(&mut changes, DRAINED, &drained)?;
        if let Some((name, _)) = &self.open {
            self.left.insert(name.number, drained.left);
        }
        Ok(changes)
    }

    /// Begins the next generation where everything came out of the newest, which never shrinks.
    pub(super) fn replace_spent(&mut self) -> Result<()> {
        self.newest()?;
        let Some(spent) = self.open.as_ref().map(|(name, _)| *name) else { return Ok(()) };
        if !self.has_held() || self.generation()?.key_after(BEFORE_FILES)?.is_some() {
            return Ok(());
        }
        self.begin(spent.first_ms)?;
        self.write(Changes::default())?;
        self.mark();
        let closed = self.generations.list()?.iter().copied().find(|name| name.number == spent.number);
        closed.map_or(Ok(()), |closed| self.remove_if_drained(closed))
    }

    /// Deletes a generation out of which everything came; one out of which less came is damaged.
    pub(super) fn remove_if_drained(&mut self, name: Name) -> Result<()> {
        let names = self.generations.list()?;
        if !names.contains(&name) || names.last() == Some(&name) {
            return Ok(()); // the newest holds the state
        }
        self.use_generation(name)?;
        if self.generation()?.key_after(BEFORE_FILES)?.is_some() {
            return Ok(());
        }
        let drained: Drained = self.value(DRAINED)?.unwrap_or_default();
        if name.held.is_some_and(|held| drained.left.files < held.files) {
            return Err(damaged("it has lost files without a trace"));
        }
        self.open = None;
        Ok(self.generations.remove(name)?)
    }

    /// Notes one file as lost and removes what is left of it.
    pub(super) fn lose_file(&mut self, name: Name, seq: u64, entry: Option<Entry>, now_ms: i64) -> Result<()> {
        self.notes.push(format!("file {seq} of generation {} is not whole", name.number));
        let is_newest = self.generations.list()?.last() == Some(&name);
        if self.state.lost_file != Some((name.stream, seq)) {
            let (from_ms, to_ms) = entry.map_or((name.first_ms, now_ms), |entry| (entry.first_ms, entry.last_ms));
            let count = entry.and_then(|entry| entry.requests).map(u64::from);
            self.state.note_another(generation_gap(from_ms, to_ms, count));
            self.state.lost_file = Some((name.stream, seq));
            self.left_over = true;
            if !is_newest {
                self.newest()?;
                self.write(Changes::default())?;
            }
        }
        self.use_generation(name)?;
        let changes = self.removal(seq, entry.map_or(0, |entry| entry.len))?;
        if is_newest { self.write(changes) } else { Ok(self.generation()?.commit(changes)?) }
    }
}
