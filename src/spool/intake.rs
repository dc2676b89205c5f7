//! Where a worker leaves its usage records: one write(2) each, and no more.
//!
//! Whatever happens, the request goes on: a record that cannot be written, or that there is no room
//! for, is added to a sum. Never blocks on another thread, never syncs, opens no file, allocates
//! nothing. Invariant: when `append` returns, the record is in the page cache, in a log or in a sum, and so
//! survives the process. Called by the gateway's meter, before the answer's last bytes leave.

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
    pub(super) frame: [u8; FRAME_LIMIT],
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
            frame: [0; FRAME_LIMIT],
        }
    }

    /// Takes a record of an authenticated request.
    pub fn append(&mut self, record: &UsageRecord<'_>) {
        if !self.write(record, self.lane.limit.load(Ordering::Relaxed)) {
            self.roll_up(record);
        }
    }

    /// Takes a record of a request that was refused before anybody was known: in full while the budget
    /// and the room for those last, else into a sum. `now` is a time since any fixed moment that never goes back.
    pub fn append_unauthenticated(&mut self, record: &UsageRecord<'_>, now: Duration) {
        let limit = self.lane.refusals_limit.load(Ordering::Relaxed);
        if limit == 0 || !self.budget.take(now) || !self.write(record, limit) {
            self.roll_up(record);
        }
    }

    fn write(&mut self, record: &UsageRecord<'_>, limit: u64) -> bool {
        let waiting = self.written.saturating_sub(self.lane.sealed_bytes.load(Ordering::Relaxed));
        if waiting > limit || self.lane.disk_full.load(Ordering::Relaxed) {
            return false;
        }
        self.rotate();
        let Some(log) = self.log.clone() else { return false };
        let Ok(len) = Row::Request(*record).encode(&mut self.frame[HEAD..]).map(<[u8]>::len) else { return false };
        let done = self.put(&log, len);
        if done {
            bump(&self.lane.appended);
        }
        done
    }

    /// Goes on to the next log if this one is full and the next is there.
    fn rotate(&mut self) {
        let is_full = self.log.as_ref().is_none_or(|log| log.end.load(Ordering::Relaxed) >= self.log_size);
        if is_full && let Ok(next) = self.spares.try_recv() {
            self.close();
            self.log = Some(next);
        }
    }

    /// Writes the frame at the log's end with one system call; a half-written one is cut off again.
    fn put(&mut self, log: &OpenLog, payload: usize) -> bool {
        let end = log.end.load(Ordering::Relaxed);
        let number = log.rows.load(Ordering::Relaxed);
        let frame = &mut self.frame[..HEAD + payload];
        finish_frame(frame, number);
        let whole = match log.file.write_at(frame, end) {
            Ok(len) => len == frame.len(),
            Err(error) => {
                self.lane.errno.store(error.raw_os_error().unwrap_or(0), Ordering::Relaxed);
                false
            }
        };
        if whole {
            let len = frame.len() as u64;
            self.written += len;
            log.rows.store(number.saturating_add(1), Ordering::Relaxed);
            log.end.store(end + len, Ordering::Release);
        } else {
            let _ = log.file.set_len(end); // if that fails too, the next row overwrites it
        }
        whole
    }

    fn roll_up(&mut self, record: &UsageRecord<'_>) {
        match self.sums.add(slot_offset(record.outcome), record.at_ms, record.bytes_in, record.bytes_out) {
            Ok(()) => {
                bump(&self.lane.rolled_up);
                self.lane.counted.store(true, Ordering::Release);
            }
            Err(_) => bump(&self.lane.lost),
        }
    }

    fn close(&mut self) {
        if let Some(log) = self.log.take() {
            self.put(&log, 0);
            log.closed.store(true, Ordering::Release);
        }
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        self.close();
    }
}
