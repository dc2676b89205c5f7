//! Where a worker leaves its usage records: those of one turn of the worker in one write(2).
//!
//! Whatever happens, the request goes on: a record that cannot be written, or that there is no room
//! for, is added to a sum. Never blocks on another thread, never syncs, opens no file, allocates
//! nothing. Invariant: when `flush` returns, every record is in the page cache, in a log or in a sum, and so
//! survives the process. Called by the gateway's turn, before the answers' last bytes leave.

#[cfg(test)]
mod tests;

use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::spool::budget::Budget;
use crate::spool::counts::slot_offset;
use crate::spool::lane::{Lane, OpenLog, Sums, bump};
use crate::spool::log::{FRAME_LIMIT, HEAD, finish_frame};
use crate::spool::record::{Row, UsageRecord};

/// A worker's end of the spool. Dropping it closes its log in order.
#[derive(Debug)]
pub struct Intake {
    pub(super) lane: Arc<Lane>,
    pub(super) log: Option<Arc<OpenLog>>,
    /// The next log, made ahead by the writer thread.
    pub(super) spares: Receiver<Arc<OpenLog>>,
    pub(super) sums: Sums,
    pub(super) budget: Budget,
    pub(super) log_size: u64,
    pub(super) written: u64,
    pub(super) held: Batch,
}

impl Intake {
    /// One for when the writer thread has gone: all it does is count.
    pub(super) fn lost() -> Self {
        Self {
            lane: Arc::default(),
            log: None,
            spares: channel().1,
            sums: Sums::none(),
            budget: Budget::new(0, 1),
            log_size: 0,
            written: 0,
            held: Batch::default(),
        }
    }

    /// Takes a record of an authenticated request, and writes it.
    pub fn append(&mut self, record: &UsageRecord<'_>) {
        self.hold(record);
        self.flush();
    }

    /// Takes a record of a request that was refused before anybody was known, and writes it: in full while the budget
    /// and the room for those last, else into a sum. `now` is a time since any fixed moment that never goes back.
    pub fn append_unauthenticated(&mut self, record: &UsageRecord<'_>, now: Duration) {
        self.hold_unauthenticated(record, now);
        self.flush();
    }

    /// The same as [`Intake::append`], but it is written by the next [`Intake::flush`] at the latest.
    pub fn hold(&mut self, record: &UsageRecord<'_>) {
        if !self.take(record, self.lane.limit.load(Ordering::Relaxed)) {
            self.roll_up(Gist::of(record));
        }
    }

    /// The same of a request that needed no token: anybody can send those, so they are rows only while there is the room
    /// that refusals have.
    pub fn hold_open(&mut self, record: &UsageRecord<'_>) {
        if !self.take_of_anybody(record) {
            self.roll_up(Gist::of(record));
        }
    }

    /// The same as [`Intake::append_unauthenticated`], but it is written by the next [`Intake::flush`] at the latest.
    pub fn hold_unauthenticated(&mut self, record: &UsageRecord<'_>, now: Duration) {
        if !self.budget.take(now) || !self.take_of_anybody(record) {
            self.roll_up(Gist::of(record));
        }
    }

    /// Whether the record is held as a row, in the room for what anybody can send.
    fn take_of_anybody(&mut self, record: &UsageRecord<'_>) -> bool {
        let limit = self.lane.refusals_limit.load(Ordering::Relaxed);
        limit > 0 && self.take(record, limit)
    }

    /// Whether the record is held as a row.
    fn take(&mut self, record: &UsageRecord<'_>, limit: u64) -> bool {
        let waiting = self.written.saturating_sub(self.lane.sealed_bytes.load(Ordering::Relaxed));
        if waiting > limit || self.lane.disk_full.load(Ordering::Relaxed) {
            return false;
        }
        self.rotate();
        if self.held.is_full() {
            self.flush();
        }
        let Some(log) = &self.log else { return false };
        self.held.push(record, log.rows.load(Ordering::Relaxed))
    }

    /// Goes on to the next log if this one is full and the next is there.
    fn rotate(&mut self) {
        let held = self.held.len as u64;
        let is_full = self.log.as_ref().is_none_or(|log| log.end.load(Ordering::Relaxed) + held >= self.log_size);
        if is_full && let Ok(next) = self.spares.try_recv() {
            self.close();
            self.log = Some(next);
        }
    }

    /// Writes what is held. A row that the log does not take goes into a sum.
    pub fn flush(&mut self) {
        let (Some(log), false) = (self.log.clone(), self.held.rows.is_empty()) else { return };
        let whole = self.write(&log);
        self.lane.appended.fetch_add(whole as u64, Ordering::Relaxed);
        for row in whole..self.held.rows.len() {
            self.roll_up(self.held.rows[row]);
        }
        self.held.rows.clear();
        self.held.len = 0;
    }

    /// Writes the held bytes at the end of the log, and returns how many rows of them are whole there.
    fn write(&mut self, log: &OpenLog) -> usize {
        let end = log.end.load(Ordering::Relaxed);
        // Of an error the sums tell; what is wrong with the disk, the writer thread finds out for itself.
        let taken = log.file.write_at(&self.held.bytes[..self.held.len], end).unwrap_or(0);
        let whole = self.held.rows.iter().take_while(|row| row.end <= taken).count();
        let len = whole.checked_sub(1).map_or(0, |last| self.held.rows[last].end) as u64;
        if len < self.held.len as u64 {
            let _ = log.file.set_len(end + len); // if that fails too, the next row overwrites it
        }
        self.written += len;
        let rows = u32::try_from(whole).unwrap_or(u32::MAX);
        log.rows.store(log.rows.load(Ordering::Relaxed).saturating_add(rows), Ordering::Relaxed);
        log.end.store(end + len, Ordering::Release);
        whole
    }

    fn roll_up(&mut self, gist: Gist) {
        match self.sums.add(gist.slot, gist.at_ms, gist.bytes_in, gist.bytes_out) {
            Ok(()) => {
                bump(&self.lane.rolled_up);
                self.lane.counted.store(true, Ordering::Release);
            }
            Err(_) => bump(&self.lane.lost),
        }
    }

    /// Ends the log: what is held, then the end row.
    fn close(&mut self) {
        self.flush();
        if let Some(log) = self.log.take() {
            let mut frame = [0; HEAD];
            finish_frame(&mut frame, log.rows.load(Ordering::Relaxed));
            let end = log.end.load(Ordering::Relaxed);
            if log.file.write_at(&frame, end).is_ok_and(|len| len == HEAD) {
                self.written += HEAD as u64;
                log.rows.fetch_add(1, Ordering::Relaxed);
                log.end.store(end + HEAD as u64, Ordering::Release);
            } else {
                let _ = log.file.set_len(end);
            }
            log.closed.store(true, Ordering::Release);
        }
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        self.close();
    }
}

/// Rows that wait for the next flush, as the log will have them.
#[derive(Debug)]
pub(super) struct Batch {
    bytes: Box<[u8; HELD_BYTES]>,
    len: usize,
    rows: heapless::Vec<Gist, HELD_ROWS>,
}

/// Most rows that wait.
const HELD_ROWS: usize = 64;
/// Room for them: most take a tenth of [`FRAME_LIMIT`].
const HELD_BYTES: usize = 16 << 10;

/// What a sum wants to know of a record.
#[derive(Debug, Clone, Copy)]
struct Gist {
    slot: u64,
    at_ms: i64,
    bytes_in: u64,
    bytes_out: u64,
    /// Where its row ends among those that are held.
    end: usize,
}

impl Gist {
    fn of(record: &UsageRecord<'_>) -> Self {
        let UsageRecord { outcome, at_ms, bytes_in, bytes_out, .. } = *record;
        Self { slot: slot_offset(outcome), at_ms, bytes_in, bytes_out, end: 0 }
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self { bytes: Box::new([0; HELD_BYTES]), len: 0, rows: heapless::Vec::new() }
    }
}

impl Batch {
    /// Whether there may be no room for one more.
    fn is_full(&self) -> bool {
        self.rows.is_full() || self.len + FRAME_LIMIT > HELD_BYTES
    }

    /// Adds a row to those of a log that has `written` already; `false` if it cannot be one.
    fn push(&mut self, record: &UsageRecord<'_>, written: u32) -> bool {
        let frame = &mut self.bytes[self.len..][..FRAME_LIMIT]; // the room that `is_full` tells of
        let Ok(payload) = Row::Request(*record).encode(&mut frame[HEAD..]).map(<[u8]>::len) else { return false };
        let number = u32::try_from(self.rows.len()).unwrap_or(u32::MAX).saturating_add(written);
        finish_frame(&mut frame[..HEAD + payload], number);
        let end = self.len + HEAD + payload;
        let is_held = self.rows.push(Gist { end, ..Gist::of(record) }).is_ok();
        if is_held {
            self.len = end;
        }
        is_held
    }
}
