//! Losses that only the daemon saw, from then until the child has told them in a usage file.
//!
//! They are counted and numbered within a run, and the ledger keeps how far it has told them in the same
//! commit: so a child that dies between its commit and its answer tells none of them twice. They are in a
//! file while they wait, so that a stop does not forget them. Owned by the writer thread.
//!
//! File `losses` in the spool's folder, there only while something waits: postcard `Losses` ‖ CRC-32 of it, big-endian.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::disk;
use crate::keys;
use crate::spool::record::{Gap, GapReason};
use crate::spool::state::join;

const FILE_LIMIT: u64 = 64 << 10;
/// Most gaps that wait; more are told as one.
const GAPS_LIMIT: usize = 64;

/// What is to be told.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Losses {
    /// Random: numbers and counts are of this run.
    run: u64,
    /// The number of the first of the gaps; those before are told.
    first: u32,
    gaps: Vec<Gap>,
    /// Records of which nothing was kept, ever in this run; those that are told; when the last were told.
    lost: u64,
    told: u64,
    since_ms: i64,
}

/// How far the losses of a run are told: a part of the ledger's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Heard {
    run: u64,
    gaps: u32,
    lost: u64,
}

impl Losses {
    fn new(now_ms: i64) -> Self {
        // Without a random number the clock must do: it only has to differ from the run before.
        let run = keys::random().map_or(now_ms.cast_unsigned(), u64::from_be_bytes);
        Self { run, since_ms: now_ms, ..Self::default() }
    }

    /// Notes a gap. The same damage seen again, after a crash, is the same gap.
    pub(super) fn note(&mut self, gap: Gap) {
        let is_same =
            |known: &&mut Gap| known.reason == gap.reason && known.from_ms == gap.from_ms && gap.count.is_none();
        if let Some(known) = self.gaps.iter_mut().find(is_same) {
            known.to_ms = known.to_ms.max(gap.to_ms);
            return;
        }
        if self.gaps.len() >= GAPS_LIMIT {
            // The first two: the last may be told already, and what is joined to that would never be.
            let first = self.gaps.remove(0);
            if let Some(second) = self.gaps.first_mut() {
                *second = join(first, *second);
            }
            self.first = self.first.saturating_add(1);
        }
        self.gaps.push(gap);
    }

    /// Notes that this many records are lost by now, all told.
    pub(super) fn lost(&mut self, lost: u64) {
        self.lost = self.lost.max(lost);
    }

    /// How many records are lost.
    pub(super) fn count(&self) -> u64 {
        self.lost
    }

    /// Whether all is told.
    pub(super) fn is_empty(&self) -> bool {
        self.gaps.is_empty() && self.lost == self.told
    }

    /// What a ledger that has heard this much has not told yet.
    pub(super) fn untold(&self, heard: &Heard, now_ms: i64) -> Vec<Gap> {
        let (gaps, lost) = if heard.run == self.run { (heard.gaps, heard.lost) } else { (0, 0) };
        let known = usize::try_from(gaps.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let mut untold: Vec<Gap> = self.gaps.iter().skip(known).copied().collect();
        let count = self.lost.saturating_sub(lost.max(self.told));
        if count > 0 {
            let (from_ms, to_ms) = (self.since_ms.min(now_ms), now_ms);
            untold.push(Gap { reason: GapReason::WriteFailed, from_ms, to_ms, count: Some(count) });
        }
        untold
    }

    /// What a ledger has heard that told all of this.
    pub(super) fn heard(&self) -> Heard {
        let gaps = u32::try_from(self.gaps.len()).unwrap_or(u32::MAX);
        Heard { run: self.run, gaps: self.first.saturating_add(gaps), lost: self.lost }
    }

    /// All that was `sent` is told.
    pub(super) fn are_told(&mut self, sent: &Self, now_ms: i64) {
        let until = sent.heard().gaps;
        let told = usize::try_from(until.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.gaps.drain(..told.min(self.gaps.len()));
        self.first = until;
        (self.told, self.since_ms) = (sent.lost, now_ms);
    }

    /// Reads what waited at the last stop. A file that cannot be read is itself a loss.
    pub(super) fn load(spool: &Path, now_ms: i64) -> Self {
        let bytes = match disk::read_limited(&path(spool), FILE_LIMIT) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::new(now_ms),
            Err(_) => Vec::new(),
        };
        let content =
            bytes.split_last_chunk::<4>().filter(|(content, sum)| crc32fast::hash(content).to_be_bytes() == **sum);
        content.and_then(|(content, _)| postcard::from_bytes(content).ok()).unwrap_or_else(|| {
            let mut losses = Self::new(now_ms);
            losses.note(Gap { reason: GapReason::LogDamaged, from_ms: 0, to_ms: now_ms, count: None });
            losses
        })
    }

    /// Keeps what waits, durably.
    pub(super) fn save(&self, spool: &Path) -> io::Result<()> {
        if self.is_empty() {
            return match fs::remove_file(path(spool)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()), // one that a power cut brings back is told already
            };
        }
        let mut bytes = postcard::to_allocvec(self).map_err(io::Error::other)?;
        bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
        disk::replace(&path(spool), &bytes, 0o600)
    }
}

/// Where they wait.
pub(super) fn path(spool: &Path) -> PathBuf {
    spool.join("losses")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(from_ms: i64) -> Gap {
        Gap { reason: GapReason::LogDamaged, from_ms, to_ms: 9, count: None }
    }

    #[test]
    fn nothing_is_told_twice_whichever_answers_are_lost() {
        let mut losses = Losses::new(0);
        let mut heard = Heard::default();
        losses.note(gap(1));
        losses.lost(5);
        assert_eq!(losses.untold(&heard, 10).iter().map(|gap| gap.count).collect::<Vec<_>>(), [None, Some(5)]);
        heard = losses.heard(); // committed, and the answer is lost
        assert_eq!(losses.untold(&heard, 10), []);
        losses.note(gap(2));
        losses.lost(7);
        let untold: Vec<_> = losses.untold(&heard, 10).iter().map(|gap| (gap.from_ms, gap.count)).collect();
        assert_eq!(untold, [(2, None), (0, Some(2))]);
        let sent = losses.clone();
        heard = losses.heard();
        losses.note(gap(3)); // while the child works
        losses.are_told(&sent, 20);
        assert_eq!(losses.untold(&heard, 30), [gap(3)]);
        assert_eq!(losses.untold(&Heard::default(), 30), [gap(3)], "not what another state was told");
    }

    #[test]
    fn of_more_gaps_than_there_is_room_for_the_oldest_become_one_and_none_vanishes() {
        let mut losses = Losses::new(0);
        let mut heard = Heard::default();
        for from_ms in 0..100 {
            losses.note(Gap { to_ms: from_ms + 1000, ..gap(from_ms) });
        }
        let untold = losses.untold(&heard, 0);
        assert_eq!(untold.len(), GAPS_LIMIT);
        assert_eq!((untold[0].from_ms, untold[0].to_ms, untold[0].count), (0, 1036, None));
        assert_eq!(untold[1..].iter().map(|gap| gap.from_ms).collect::<Vec<_>>(), (37..100).collect::<Vec<_>>());
        // The ledger has told them, and its answer is lost; then one more comes, and one while the next seal works.
        heard = losses.heard();
        losses.note(gap(2000));
        assert_eq!(losses.untold(&heard, 0), [gap(2000)]);
        let sent = losses.clone();
        heard = losses.heard();
        losses.note(gap(3000));
        losses.are_told(&sent, 0);
        assert_eq!((losses.untold(&heard, 0), losses.gaps.len()), (vec![gap(3000)], 1));
    }

    #[test]
    fn what_waits_survives_a_stop_with_its_run_and_a_damaged_file_is_a_gap() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut losses = Losses::load(folder.path(), 1);
        losses.save(folder.path()).expect("nothing is saved");
        assert!(!path(folder.path()).exists());
        losses.note(gap(1));
        losses.note(Gap { to_ms: 12, ..gap(1) });
        losses.save(folder.path()).expect("it is saved");
        let loaded = Losses::load(folder.path(), 2);
        assert_eq!((&loaded, loaded.gaps.len()), (&losses, 1));
        let mut bytes = fs::read(path(folder.path())).expect("it reads");
        bytes[3] ^= 1;
        fs::write(path(folder.path()), bytes).expect("it writes");
        let damaged = Losses::load(folder.path(), 3);
        assert_eq!(damaged.untold(&losses.heard(), 3), [Gap { to_ms: 3, ..gap(0) }]);
        losses.are_told(&losses.clone(), 4);
        losses.save(folder.path()).expect("it is removed");
        assert!(!path(folder.path()).exists());
    }
}
