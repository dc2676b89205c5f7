//! What the ledger must remember from one commit to the next: where the chain stands and how far the
//! open logs and the sums are told.
//!
//! It is committed together with each sealed file, in the same batch: so a crash leaves a row either
//! in its log or in a file, never in both and never in neither. Values at sequence number 0:
//!
//! ```text
//! part 0        State, postcard
//! part 1        Drained, postcard
//! part 16 + w   the told sums of worker w, postcard list of Told
//! ```
//!
//! The *mark* is a copy of all of it in a plain file, written after each commit and not synced. It only
//! serves to notice that a generation came back without its last commits, which its own check sums
//! cannot show, and then to know the logs' cursors.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::disk;
use crate::ids::{Digest, KeyId};
use crate::spool::backlog::Stock;
use crate::spool::counts::Sum;
use crate::spool::losses::Heard;
use crate::spool::record::{Gap, GapReason};
use crate::store::generation::Key;

pub(super) const STATE: Key = Key { seq: 0, part: 0 };
pub(super) const DRAINED: Key = Key { seq: 0, part: 1 };
/// Nothing of the spool's own is behind this key, and every file is.
pub(super) const BEFORE_FILES: Key = Key { seq: 0, part: u16::MAX };

const TOLD_PART: u16 = 16;
const MARK_LIMIT: u64 = 1 << 20;
/// Most gaps that wait to be told; more are told as one.
const GAPS_LIMIT: usize = 16;
/// A log whose every row is sealed.
pub(super) const DONE: u64 = u64::MAX;

/// Where the sums of a worker lie.
pub(super) fn told_key(worker: u16) -> Key {
    Key { seq: 0, part: TOLD_PART.saturating_add(worker) }
}

/// How far one log is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LogCursor {
    pub id: u64,
    /// Offset of the next row, or [`DONE`].
    pub offset: u64,
    /// Number of the next row.
    pub rows: u32,
    /// Time of the last row; of the log's making before there was one.
    pub last_ms: i64,
}

/// How much of a sum is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Told {
    pub outcome: u8,
    pub epoch: u64,
    pub count: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub to_ms: i64,
}

impl Told {
    pub(super) fn of(outcome: u8, sum: &Sum) -> Self {
        let Sum { epoch, count, bytes_in, bytes_out, to_ms, .. } = *sum;
        Self { outcome, epoch, count, bytes_in, bytes_out, to_ms }
    }
}

/// The sums of each worker, as far as they are told.
pub(super) type ToldSums = BTreeMap<u16, Vec<Told>>;

/// Where the chain and the cursors stand.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct State {
    pub stream: u64,
    /// The key that signs the files of the stream.
    pub key: Option<KeyId>,
    pub next_seq: u64,
    pub previous: Option<Digest>,
    /// What was sealed in all generations that there ever were.
    pub sealed: Stock,
    pub cursors: Vec<LogCursor>,
    /// Losses that are not in a file yet.
    pub gaps: Vec<Gap>,
    /// How far the daemon's own losses are told.
    pub heard: Heard,
    /// Stream and number of the last file that was noted as lost, so that a crash does not note it twice.
    pub lost_file: Option<(u64, u64)>,
}

impl State {
    /// A new stream, signed by `key`, with what `self` knew of the logs.
    pub(super) fn begin_stream(&mut self, stream: u64, key: KeyId) {
        (self.stream, self.key, self.next_seq, self.previous) = (stream, Some(key), 1, None);
    }

    /// Notes a loss to be told in the next file; the same once more is one that was seen again after a crash.
    pub(super) fn note(&mut self, gap: Gap) {
        if !self.gaps.contains(&gap) {
            self.note_another(gap);
        }
    }

    /// Notes a loss that was not noted before, even if it looks like another.
    pub(super) fn note_another(&mut self, gap: Gap) {
        let is_full = self.gaps.len() >= GAPS_LIMIT;
        match self.gaps.last_mut().filter(|_| is_full) {
            Some(last) => *last = join(*last, gap),
            None => self.gaps.push(gap),
        }
    }
}

/// One gap for two: it is exact only if both are.
pub(super) fn join(one: Gap, other: Gap) -> Gap {
    Gap {
        reason: one.reason,
        from_ms: one.from_ms.min(other.from_ms),
        to_ms: one.to_ms.max(other.to_ms),
        count: one.count.zip(other.count).map(|(a, b)| a.saturating_add(b)),
    }
}

/// A generation, or a part of one, that is gone.
pub(super) fn generation_gap(from_ms: i64, to_ms: i64, count: Option<u64>) -> Gap {
    Gap { reason: GapReason::GenerationLost, from_ms: from_ms.min(to_ms), to_ms, count }
}

/// What a generation knows of the files before it and of those that left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Drained {
    /// What was sealed before its first, ever.
    pub before: Stock,
    /// What was in it and is there no more: acknowledged, or lost and told.
    pub left: Stock,
}

/// One sealed file in a generation: the value at part 0 of its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub digest: Digest,
    pub len: u32,
    pub parts: u16,
    /// How many requests it tells; `None` if it also has roll-ups or gaps.
    pub requests: Option<u32>,
    pub first_ms: i64,
    pub last_ms: i64,
}

/// Writes the mark. Not synced: it only matters if a generation is damaged too.
pub(super) fn write_mark(spool: &Path, state: &State, told: &ToldSums) -> io::Result<()> {
    let mut bytes = postcard::to_allocvec(&(state, told)).map_err(io::Error::other)?;
    bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
    fs::write(spool.join("mark.part"), bytes)?;
    fs::rename(spool.join("mark.part"), spool.join("mark"))
}

/// Reads the mark, if there is a whole one.
pub(super) fn read_mark(spool: &Path) -> Option<(State, ToldSums)> {
    let bytes = disk::read_limited(&spool.join("mark"), MARK_LIMIT).ok()?;
    let (content, sum) = bytes.split_last_chunk::<4>()?;
    if crc32fast::hash(content).to_be_bytes() != *sum {
        return None;
    }
    postcard::from_bytes(content).ok()
}
