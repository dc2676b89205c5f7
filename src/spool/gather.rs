//! Reads what is not sealed yet, from the open logs and the sums, into a usage file in the making.
//!
//! Never changes a log and never deletes one: that follows the commit. A damaged stretch is stepped
//! over and becomes a gap, exact where a good row follows. Called by the ledger.

use std::collections::{BTreeMap, BinaryHeap};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::spool::counts::{self, SLOT, Sum};
use crate::spool::log::{self, BootId, FRAME_LIMIT, Found, Name, PREAMBLE, Preamble};
use crate::spool::record::{Gap, GapReason, Outcome, RollUp, Row};
use crate::spool::segment::Builder;
use crate::spool::state::{DONE, LogCursor, State, Told, ToldSums};
use crate::spool::wire::Seal;
use crate::store::generation::is_unreadable;

/// Bytes of a log that are read at a time.
const WINDOW: usize = 64 << 10;
/// What a disk loses at a time, in bytes.
const SECTOR: usize = 4 << 10;
/// The longest that a log may wait for a sync, and what a sync may last, on a slow card under load.
const LONGEST_SYNC_MS: i64 = 600_000;
const SYNC_LASTS_MS: i64 = 60_000;
/// Most logs that have cursors at a time: they must fit one value.
const LOGS_LIMIT: usize = 128;

/// What a pass took, to be committed together with the file.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub cursors: Vec<LogCursor>,
    pub told: ToldSums,
    /// Gaps that found no room in the file.
    pub gaps: Vec<Gap>,
    /// Logs that hold nothing more.
    pub finished: Vec<(u64, PathBuf)>,
    /// Something is left that no running intake holds.
    pub left_over: bool,
}

/// Reads a part of a log; a seam, so that tests can have a disk that fails.
pub(super) type ReadAt = fn(&File, &mut [u8], u64) -> io::Result<usize>;

/// One pass over the folder of open logs.
#[derive(Debug)]
pub(super) struct Gather<'a> {
    pub folder: &'a Path,
    pub state: &'a State,
    pub told: &'a ToldSums,
    pub seal: &'a Seal,
    pub boot: BootId,
    pub read: ReadAt,
}

impl Gather<'_> {
    /// Fills `builder` as far as it goes.
    pub(super) fn run(&self, builder: &mut Builder) -> io::Result<Gathered> {
        let mut taken = Gathered::default();
        let seen = self.seal.losses.untold(&self.state.heard, self.seal.now_ms);
        for gap in self.state.gaps.iter().chain(&seen) {
            taken.tell(builder, *gap);
        }
        let mut logs = Vec::new();
        for entry in fs::read_dir(self.folder)? {
            let path = entry?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if let Some(worker) = counts::worker_of(name) {
                self.sums(worker, &path, builder, &mut taken)?;
            } else if let Some(name) = Name::parse(name) {
                logs.push((name, path));
            }
        }
        // Those that nobody writes any more first: they are done with afterwards, and never wait behind live ones.
        let live = |name: &Name| self.seal.live.iter().find(|(id, _)| *id == name.id).map(|(_, end)| *end);
        let known = |name: &Name| self.state.cursors.iter().find(|cursor| cursor.id == name.id);
        let logs: BinaryHeap<_> = logs.into_iter().map(|(name, path)| (live(&name).is_some(), name, path)).collect();
        let logs = logs.into_sorted_vec();
        let placed = logs.iter().filter(|(_, name, _)| known(name).is_some()).count();
        let mut places = LOGS_LIMIT.saturating_sub(placed);
        let mut cuts = Cuts::new();
        for (_, name, path) in logs {
            let (live, known) = (live(&name), known(&name));
            if live == Some(known.map_or(PREAMBLE as u64, |cursor| cursor.offset)) {
                taken.cursors.extend(known); // nothing came since
                continue;
            }
            if known.is_none() && places == 0 {
                taken.left_over |= live.is_none();
                continue;
            }
            places -= usize::from(known.is_none());
            let cursor = match known {
                Some(cursor) if cursor.offset == DONE => *cursor,
                known => match Pass::open(&path, name.id, known, live, self) {
                    Err(error) if self.gives_up(&error) => self.lost_log(name.id, known, &mut taken, builder),
                    pass => pass?.run(builder, &mut taken, &mut cuts)?,
                },
            };
            if cursor.offset == DONE {
                taken.finished.push((name.id, path));
            } else {
                taken.left_over |= live.is_none();
            }
            taken.cursors.push(cursor);
        }
        for (boot, cut) in cuts {
            if let Some(gap) = cut.gap(boot, self.seal.now_ms) {
                taken.tell(builder, gap);
            }
        }
        taken.left_over |= !taken.gaps.is_empty();
        Ok(taken)
    }

    /// Whether what cannot be read is to be taken for damaged.
    fn gives_up(&self, error: &io::Error) -> bool {
        self.seal.around && is_unreadable(error)
    }

    /// A log that cannot even be opened.
    fn lost_log(&self, id: u64, known: Option<&LogCursor>, taken: &mut Gathered, builder: &mut Builder) -> LogCursor {
        let (from_ms, to_ms) = (known.map_or(0, |cursor| cursor.last_ms), self.seal.now_ms);
        let from_ms = from_ms.min(to_ms);
        taken.tell(builder, Gap { reason: GapReason::LogDamaged, from_ms, to_ms, count: None });
        LogCursor { id, offset: DONE, rows: known.map_or(0, |cursor| cursor.rows), last_ms: to_ms }
    }

    /// Tells how much the sums of a worker have grown.
    fn sums(&self, worker: u16, path: &Path, builder: &mut Builder, taken: &mut Gathered) -> io::Result<()> {
        let mut bytes = Vec::new();
        // One of another length is the daemon's to repair; what it holds up to there counts.
        match File::open(path).and_then(|file| file.take(counts::FILE as u64).read_to_end(&mut bytes)) {
            Ok(_) => {}
            Err(error) if is_unreadable(&error) && !self.seal.around => return Err(error),
            // The worker has them in memory; the daemon, which opens them to write, tells what is damaged.
            Err(_) => return Ok(()),
        }
        let mut told = self.told.get(&worker).cloned().unwrap_or_default();
        let mut grown = false;
        for (number, slot) in (0u8..).zip(bytes.as_chunks::<SLOT>().0) {
            let (Some(sum), Some(outcome)) = (Sum::parse(slot), Outcome::from_number(number)) else { continue };
            let known = told.iter().position(|told| told.outcome == number);
            let before = known.and_then(|at| told.get(at)).filter(|told| told.epoch == sum.epoch).copied();
            let Some(row) = growth(outcome, &sum, before) else { continue };
            if builder.push(&Row::RollUp(row)).is_err() {
                break; // the next file tells it
            }
            grown = true;
            match known.and_then(|at| told.get_mut(at)) {
                Some(told) => *told = Told::of(number, &sum),
                None => told.push(Told::of(number, &sum)),
            }
        }
        if grown {
            // A power cut must not set a sum back behind what was told of it.
            File::open(path)?.sync_data()?;
            taken.told.insert(worker, told);
        }
        Ok(())
    }
}

/// What came to a sum since it was told.
fn growth(outcome: Outcome, sum: &Sum, told: Option<Told>) -> Option<RollUp<'static>> {
    let (count, bytes_in, bytes_out) = told.map_or((0, 0, 0), |told| (told.count, told.bytes_in, told.bytes_out));
    let count = sum.count.checked_sub(count).filter(|count| *count > 0)?;
    // What came since lies between the last that was told and the last; a clock that was set back turns them round.
    let before = told.map_or(sum.from_ms, |told| told.to_ms);
    Some(RollUp {
        from_ms: before.min(sum.to_ms),
        to_ms: if told.is_some() { sum.to_ms } else { before.max(sum.to_ms) },
        outcome,
        count,
        bytes_in: sum.bytes_in.saturating_sub(bytes_in),
        bytes_out: sum.bytes_out.saturating_sub(bytes_out),
        api: "",
        application: "",
    })
}

impl Gathered {
    fn tell(&mut self, builder: &mut Builder, gap: Gap) {
        if builder.push(&Row::Gap(gap)).is_err() {
            self.gaps.push(gap);
        }
    }
}

/// What a power cut took, by the boot that it ended.
type Cuts = BTreeMap<BootId, Cut>;

#[derive(Debug, Default)]
struct Cut {
    /// The earliest last row of the logs that were not closed.
    from_ms: Option<i64>,
    /// The latest row of all logs of the boot, and how long a row of them may have stayed unsynced.
    latest_ms: i64,
    unsynced_ms: i64,
}

impl Cut {
    /// Nothing is lost of a log before its last row, nor of any log that was written so long before the cut that it was
    /// synced; and the cut was not before the latest row, by a clock that nobody has set back. An idle worker's log
    /// says only the first.
    fn gap(&self, boot: BootId, now_ms: i64) -> Option<Gap> {
        let is_telling = boot != BootId::default() && self.latest_ms <= now_ms;
        let synced = if is_telling { self.latest_ms.saturating_sub(self.unsynced_ms) } else { i64::MIN };
        let from_ms = self.from_ms?.max(synced).min(now_ms);
        Some(Gap { reason: GapReason::UncleanStop, from_ms, to_ms: now_ms, count: None })
    }
}

/// One log, from its cursor on.
struct Pass {
    file: File,
    cursor: LogCursor,
    /// Where its rows end, as far as they may be read.
    end: u64,
    is_live: bool,
    same_boot: bool,
    boot: BootId,
    /// How long a row of it may stay unsynced.
    unsynced_ms: i64,
    read: ReadAt,
    /// Take what cannot be read for damaged.
    around: bool,
    now_ms: i64,
    window: Vec<u8>,
    /// Offset in the file of the window's first byte.
    base: u64,
    at: usize,
}

impl Pass {
    fn open(
        path: &Path,
        id: u64,
        known: Option<&LogCursor>,
        live: Option<u64>,
        gather: &Gather<'_>,
    ) -> io::Result<Self> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        let mut preamble = [0; PREAMBLE];
        let preamble = file.read_exact_at(&mut preamble, 0).ok().and_then(|()| Preamble::parse(&preamble));
        let made_ms = preamble.map_or(gather.seal.now_ms, |preamble| preamble.made_ms);
        let cursor = known.copied().unwrap_or(LogCursor { id, offset: PREAMBLE as u64, rows: 0, last_ms: made_ms });
        Ok(Self {
            file,
            cursor,
            end: live.unwrap_or(len).min(len),
            is_live: live.is_some(),
            // A log has its name once its preamble is on the disk: one that is shorter was damaged, not cut by a power failure.
            // A machine that does not tell its boots apart may have lost power.
            same_boot: len < PREAMBLE as u64
                || gather.boot != BootId::default() && preamble.is_some_and(|preamble| preamble.boot == gather.boot),
            boot: preamble.map_or(BootId::default(), |preamble| preamble.boot),
            unsynced_ms: match preamble.map_or(0, |preamble| preamble.sync) {
                0 => LONGEST_SYNC_MS,
                tenths => i64::from(tenths) * 100,
            } + SYNC_LASTS_MS,
            read: gather.read,
            around: gather.seal.around,
            now_ms: gather.seal.now_ms,
            window: Vec::new(),
            base: cursor.offset,
            at: 0,
        })
    }

    /// Takes rows until the log or the file is full. `cuts` collects what a power cut may have taken.
    fn run(mut self, builder: &mut Builder, taken: &mut Gathered, cuts: &mut Cuts) -> io::Result<LogCursor> {
        // One that ends before what was read of it lost what came behind.
        let mut ragged = self.end < self.cursor.offset;
        let ended = loop {
            self.fill()?;
            let rest = self.window.get(self.at..).unwrap_or_default();
            if rest.is_empty() {
                break false;
            }
            match log::look(rest) {
                Found::Row { number, payload, len } => {
                    if !self.cursor.take(number, payload, builder, taken) {
                        self.cursor.offset = self.offset();
                        return Ok(self.cursor);
                    }
                    self.at += len;
                    ragged = false;
                }
                Found::End { number } => {
                    self.cursor.missed(number, self.cursor.last_ms, taken, builder);
                    break true;
                }
                Found::Partial if self.is_live => break false,
                found => {
                    // One row that is merely cut off was never answered for; anything else is damage.
                    ragged |= found == Found::Damaged;
                    let is_all = self.base + self.window.len() as u64 >= self.end;
                    match log::resync(rest) {
                        Some(skip) => self.at += skip,
                        None if !is_all => self.at += rest.len().saturating_sub(FRAME_LIMIT - 1),
                        None => {
                            self.at = self.window.len();
                            break false;
                        }
                    }
                }
            }
        };
        self.cursor.offset = if self.is_live { self.offset() } else { DONE };
        let last_ms = self.cursor.last_ms;
        if !self.is_live && !self.same_boot {
            let cut = cuts.entry(self.boot).or_insert(Cut { from_ms: None, latest_ms: last_ms, unsynced_ms: 0 });
            cut.latest_ms = cut.latest_ms.max(last_ms);
            cut.unsynced_ms = cut.unsynced_ms.max(self.unsynced_ms);
            if !ended {
                cut.from_ms = Some(cut.from_ms.map_or(last_ms, |from_ms| from_ms.min(last_ms)));
            }
        } else if !self.is_live && !ended && ragged {
            let (reason, from_ms, to_ms) = (GapReason::LogDamaged, last_ms.min(self.now_ms), self.now_ms);
            taken.tell(builder, Gap { reason, from_ms, to_ms, count: None });
        }
        Ok(self.cursor)
    }

    fn offset(&self) -> u64 {
        self.base + self.at as u64
    }

    /// Sees to it that a whole row is in the window, unless the log ends before.
    fn fill(&mut self) -> io::Result<()> {
        let have = self.window.len().saturating_sub(self.at);
        let next = self.base + self.window.len() as u64;
        if have >= FRAME_LIMIT || next >= self.end {
            return Ok(());
        }
        self.window.drain(..self.at);
        self.base += self.at as u64;
        self.at = 0;
        let more = usize::try_from(self.end - next).unwrap_or(WINDOW).min(WINDOW);
        let start = self.window.len();
        self.window.resize(start + more, 0);
        let read = match (self.read)(&self.file, &mut self.window[start..], next) {
            Err(error) if self.around && is_unreadable(&error) => self.read_around(start, next),
            read => read?,
        };
        self.window.truncate(start + read);
        if read == 0 {
            self.end = next;
        }
        Ok(())
    }

    /// Fills the window from `start` on piece by piece, and zeros stand for what cannot be read: they are no row.
    fn read_around(&mut self, start: usize, mut at: u64) -> usize {
        let Some(rest) = self.window.get_mut(start..) else { return 0 };
        for piece in rest.chunks_mut(SECTOR) {
            let read = (self.read)(&self.file, piece, at).unwrap_or(0);
            piece.get_mut(read..).unwrap_or_default().fill(0);
            at += piece.len() as u64;
        }
        rest.len()
    }
}

impl LogCursor {
    /// Takes a row; `false` if the file is full.
    fn take(&mut self, number: u32, payload: &[u8], builder: &mut Builder, taken: &mut Gathered) -> bool {
        let row = Row::decode(payload);
        let at_ms = match row {
            Ok(Row::Request(record)) => record.at_ms,
            _ => self.last_ms,
        };
        let row = row.unwrap_or(Row::Gap(Gap {
            reason: GapReason::LogDamaged, // whole, but not of a form that this version knows
            from_ms: self.last_ms,
            to_ms: self.last_ms,
            count: Some(1),
        }));
        if builder.push(&row).is_err() {
            return false;
        }
        self.missed(number, at_ms, taken, builder);
        self.rows = number.saturating_add(1);
        self.last_ms = at_ms;
        true
    }

    /// Tells the rows between the last one and `number`.
    fn missed(&mut self, number: u32, at_ms: i64, taken: &mut Gathered, builder: &mut Builder) {
        let count = number.saturating_sub(self.rows);
        if count > 0 {
            let (from_ms, to_ms) = (self.last_ms.min(at_ms), self.last_ms.max(at_ms));
            taken.tell(builder, Gap { reason: GapReason::LogDamaged, from_ms, to_ms, count: Some(count.into()) });
            self.rows = number;
        }
    }
}

#[cfg(test)]
mod tests;
