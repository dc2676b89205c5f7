//! What becomes of the oldest files when the backlog is full: a tombstone in their place.
//!
//! ```text
//! oldest generation ─ read ─▶ summary ─ signed, synced ─▶ tombstone ─▶ generation removed
//! ```
//!
//! By whole generations, for those give their disk back. A tombstone stands for a run of files without a hole: a number
//! that the hub has acknowledged is in none, or the hub would take it back. It grows with the next generation while its
//! rows fit into a file. Where tombstones too become many, the oldest keep the count alone.
//!
//! Files that a former key of the device signed cannot be stood for by the present one: those become a gap in the
//! present stream.

use super::drain::Next;
use super::{Ledger, Result, damaged};
use crate::ids::{Digest, StreamId};
use crate::spool::WhenFull;
use crate::spool::backlog::{Cursor, UsageFile};
use crate::spool::generations::Name;
use crate::spool::record::{Gap, GapReason};
use crate::spool::segment::{self, Builder, Place, ROWS_LIMIT, StandsFor, Verified};
use crate::spool::state::{DRAINED, Drained, generation_gap, join};
use crate::spool::summary::Summary;
use crate::spool::tombstones;
use crate::store::generation::Changes;

/// Generations that one seal retires at most; the next one goes on.
const RETIRED_LIMIT: u32 = 16;
/// Tombstones take at most this part of the backlog's limit.
const TOMBSTONES_SHARE: u64 = 8;
/// A tombstone of more bytes can be given up for a shorter one.
const SHORT: u64 = 2 << 10;

/// Files one after another, and what they come to.
struct Run {
    stream: u64,
    first: u64,
    seq: u64,
    previous: Option<Digest>,
    /// Digest of the last of them, for the chain.
    last: Digest,
    summary: Summary,
}

impl Run {
    fn of(file: &Verified) -> Self {
        let (header, mut summary) = (file.header(), Summary::default());
        file.rows().for_each(|row| summary.add(&row));
        let (first, seq, previous) = (header.first(), header.seq, header.previous);
        Self { stream: header.stream.0, first, seq, previous, last: header.chain_digest(file.digest()), summary }
    }

    /// Both as one; `None` if the other one does not follow, or both together are too much for a file.
    fn and(&self, next: &Self) -> Option<Self> {
        if self.stream != next.stream || self.seq.saturating_add(1) != next.first {
            return None;
        }
        let mut summary = self.summary.clone();
        summary.merge(&next.summary);
        let fits = summary.rows() <= ROWS_LIMIT as usize && summary.fill(&mut Builder::new()).is_ok();
        fits.then_some(Self { first: self.first, previous: self.previous, summary, ..*next })
    }
}

impl Ledger {
    /// Makes room by what the configuration says of a full backlog. `false` if it is full all the same.
    pub(super) fn make_way(&mut self, now_ms: i64) -> Result<bool> {
        for _ in 0..RETIRED_LIMIT {
            if !self.is_over_limit()? {
                return Ok(true);
            }
            if self.setup.when_full == WhenFull::DropNewest || !self.retire_oldest(now_ms)? {
                return Ok(false);
            }
        }
        Ok(!self.is_over_limit()?)
    }

    /// Puts a tombstone in the place of the oldest generation; `false` if there is none but the newest.
    pub(super) fn retire_oldest(&mut self, now_ms: i64) -> Result<bool> {
        let names = self.generations.list()?;
        let [name, _, ..] = *names else { return Ok(false) };
        let (mut runs, mut foreign, mut found, mut after) = (Vec::<Run>::new(), None, 0, None);
        loop {
            match self.next_file(name, after)? {
                Next::Nothing => break,
                Next::Damaged(seq, entry) => self.lose_file(name, seq, entry, now_ms)?,
                // A tombstone was put for it, and then there was a crash.
                Next::Retired(seq, _) => {
                    found += 1;
                    after = Some(Cursor { stream: StreamId(name.stream), seq });
                }
                Next::File(file) => {
                    found += 1;
                    after = Some(file.at);
                    match segment::open(&file.bytes, &self.key.public()) {
                        Ok(file) => self.gather(&mut runs, Run::of(&file)),
                        Err(_) => foreign = Some(self.foreign(&file, foreign, now_ms)?),
                    }
                }
            }
        }
        for run in runs {
            self.bury(run)?;
        }
        if let (Some(gap), Some(last)) = (foreign, after) {
            self.note_once((name.stream, last.seq), gap)?;
            self.use_generation(name)?;
        }
        let drained: Drained = self.value(DRAINED)?.unwrap_or_default();
        if name.held.is_some_and(|held| drained.left.files.saturating_add(found) < held.files) {
            return Err(damaged("it has lost files without a trace"));
        }
        self.open = None;
        self.generations.remove(name)?;
        self.notes
            .push(format!("the backlog is full: {found} files of generation {} are told as sums now", name.number));
        self.shorten(now_ms)?;
        Ok(true)
    }

    fn gather(&self, runs: &mut Vec<Run>, mut run: Run) {
        if self.setup.when_full == WhenFull::DropOldest {
            run.summary = run.summary.dropped();
        }
        match runs.last().and_then(|last| last.and(&run)) {
            Some(both) => drop(runs.pop().map(|_| runs.push(both))),
            None => runs.push(run),
        }
    }

    /// What a file by another key comes to, with the `others` before it.
    fn foreign(&self, file: &UsageFile, others: Option<Gap>, now_ms: i64) -> Result<Gap> {
        let header = *segment::Unverified::parse(&file.bytes)?.claimed();
        let count = (header.others == 0).then_some(u64::from(header.requests));
        let (from_ms, to_ms) = (header.first_ms, header.last_ms.min(now_ms).max(header.first_ms));
        let gap = Gap { reason: GapReason::Dropped, from_ms, to_ms, count };
        Ok(others.map_or(gap, |others| join(others, gap)))
    }

    /// Keeps a tombstone for a run, as one with the last tombstone where it goes on from there.
    fn bury(&mut self, run: Run) -> Result<()> {
        let last = self.tombstones.list().next_back();
        let widened = last.and_then(|last| Some((last.order, self.dug_up(last)?.and(&run)?)));
        let (order, run) = widened.unwrap_or((self.tombstones.next_order(), run));
        self.keep_tombstone(order, &run)
    }

    fn keep_tombstone(&mut self, order: u32, run: &Run) -> Result<()> {
        let Run { stream, first, seq, previous, last, ref summary } = *run;
        let mut builder = Builder::new();
        summary.fill(&mut builder)?;
        // The same files give the same bytes: a crash makes no second form of it.
        let place = Place { stream: StreamId(stream), seq, previous, policy: None };
        let bytes = builder.bury(&place, StandsFor { first, digest: last }, &self.key)?;
        let (from_ms, to_ms) = summary.span().unwrap_or_default();
        let name = tombstones::Name { order, stream, first, seq, count: summary.count(), from_ms, to_ms };
        Ok(self.tombstones.put(name, &bytes)?)
    }

    /// What a tombstone tells; `None` if it cannot be read, or another key signed it.
    fn dug_up(&self, name: tombstones::Name) -> Option<Run> {
        let file = segment::open(&self.tombstones.read(name)?, &self.key.public()).ok()?;
        let header = file.header();
        let is_itself = (header.stream.0, header.first(), header.seq) == (name.stream, name.first, name.seq);
        is_itself.then(|| Run::of(&file))
    }

    /// Where tombstones take too much, the oldest are left with their counts.
    pub(super) fn shorten(&mut self, now_ms: i64) -> Result<()> {
        while self.tombstones.disk_bytes() > self.setup.backlog_limit / TOMBSTONES_SHARE {
            let Some((before, name)) = self.tombstones.longer_than(SHORT) else { return Ok(()) };
            let Some(mut run) = self.dug_up(name) else {
                self.lose_tombstone(name, now_ms)?;
                continue;
            };
            run.summary = run.summary.dropped();
            let both = before.and_then(|before| Some((before.order, self.dug_up(before)?.and(&run)?)));
            match both {
                Some((order, both)) => self.keep_tombstone(order, &both)?,
                None => self.keep_tombstone(name.order, &run)?,
            }
        }
        Ok(())
    }

    /// The oldest tombstone after `after`, or of all.
    pub(super) fn next_tombstone(&mut self, after: Option<Cursor>, now_ms: i64) -> Result<Option<UsageFile>> {
        let has_stream = |name: &Name| after.is_some_and(|after| after.stream.0 == name.stream);
        let is_behind = self.generations.list()?.iter().any(has_stream);
        let of_stream = |name: &tombstones::Name| after.is_some_and(|after| after.stream.0 == name.stream);
        let names: Vec<_> = self.tombstones.list().collect();
        // All of an older stream, and of its own those with lower numbers, are before it.
        let begin = match (after, names.iter().position(of_stream)) {
            (Some(after), Some(at)) => {
                let passed = |name: &&tombstones::Name| of_stream(name) && name.seq <= after.seq;
                at + names.iter().skip(at).take_while(passed).count()
            }
            (Some(_), None) if is_behind => names.len(),
            _ => 0,
        };
        for name in names.into_iter().skip(begin) {
            let bytes = self.tombstones.read(name).filter(|bytes| stands_for(bytes, name));
            let Some(bytes) = bytes else {
                self.lose_tombstone(name, now_ms)?;
                continue;
            };
            let at = Cursor { stream: StreamId(name.stream), seq: name.seq };
            return Ok(Some(UsageFile { at, digest: crate::keys::sha256(&bytes), bytes }));
        }
        Ok(None)
    }

    /// Removes the tombstone that the hub has for good, if it still is that one: it may have grown since.
    pub(super) fn acknowledge_tombstone(&mut self, at: Cursor, digest: &Digest) -> Result<bool> {
        let named = |name: &tombstones::Name| name.stream == at.stream.0 && name.seq == at.seq;
        let Some(name) = self.tombstones.list().find(named) else { return Ok(false) };
        let is_that = self.tombstones.read(name).is_some_and(|bytes| crate::keys::sha256(&bytes) == *digest);
        if is_that {
            self.sweep(name)?;
            self.tombstones.remove(name)?;
        }
        Ok(is_that)
    }

    /// Removes the files that a tombstone stands for and that a crash left: without it nobody would know of them, and they
    /// would be stood for once more, together with others.
    fn sweep(&mut self, tombstone: tombstones::Name) -> Result<()> {
        for name in self.generations.list()?.iter().copied() {
            if name.stream != tombstone.stream || name.first_seq > tombstone.seq {
                continue;
            }
            while let Next::Retired(seq, len) = self.next_file(name, None)? {
                let changes = self.removal(seq, len)?;
                self.generation()?.commit(changes)?;
            }
            self.remove_if_drained(name)?;
        }
        Ok(())
    }

    /// Tells a tombstone that cannot be read as a gap, by its name, and removes it.
    fn lose_tombstone(&mut self, name: tombstones::Name, now_ms: i64) -> Result<()> {
        self.notes.push(format!("the tombstone of files {} to {} cannot be read", name.first, name.seq));
        let gap =
            generation_gap(name.from_ms, name.to_ms.clamp(name.from_ms, now_ms.max(name.from_ms)), Some(name.count));
        self.note_once((name.stream, name.seq), gap)?;
        Ok(self.tombstones.remove(name)?)
    }

    /// Notes a loss for the next file, durably, once.
    fn note_once(&mut self, what: (u64, u64), gap: Gap) -> Result<()> {
        if self.state.lost_file == Some(what) {
            return Ok(());
        }
        self.state.note_another(gap);
        self.state.lost_file = Some(what);
        self.left_over = true;
        self.newest()?;
        self.write(Changes::default())
    }
}

/// Whether these bytes are what the name says. Which key signed them is for the hub to judge: it may be a former one.
fn stands_for(bytes: &[u8], name: tombstones::Name) -> bool {
    let Ok(file) = segment::Unverified::parse(bytes) else { return false };
    let header = file.claimed();
    file.is_whole() && (header.stream.0, header.first(), header.seq) == (name.stream, name.first, name.seq)
}
