//! What leaves at the end of a worker's turn: first the records of the requests that ended in it, in one write, then
//! what is to be sent, in the order in which it came.
//!
//! ```text
//! all that is ready ─▶ requests are served, records held, short answers queued ─▶ records written ─▶ answers sent
//! ```
//!
//! So no answer is whole before its record is safe from SIGKILL, and that costs one system call a turn, not one a
//! request; and a peer that sleeps is woken once for all that it gets. Nothing waits for company: a turn ends as soon as
//! what was ready with it is done, and a lone request leaves at once.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;

use super::meter::{Caller, Intake};
use super::wire::Line;
use crate::spool::record::UsageRecord;

/// Most bytes that wait to be sent; more end the turn.
const ROOM: usize = 64 << 10;

/// One worker's turns.
pub(super) struct Turn {
    intake: RefCell<Box<dyn Intake>>,
    /// Whether the intake holds records that are not written.
    holds: Cell<bool>,
    queue: RefCell<Queue>,
    has_begun: Cell<bool>,
    begun: Notify,
}

/// What is to be sent, end to end, and which part goes where.
#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    parts: Vec<(Rc<RefCell<Line>>, Range<usize>)>,
}

impl Turn {
    pub(super) fn new(intake: Box<dyn Intake>) -> Self {
        Self {
            intake: RefCell::new(intake),
            holds: Cell::new(false),
            queue: RefCell::default(),
            has_begun: Cell::new(false),
            begun: Notify::new(),
        }
    }

    /// Takes a record; for `now` see [`Intake::append_unauthenticated`].
    pub(super) fn record(&self, record: &UsageRecord<'_>, of: Caller, now: Duration) {
        let mut intake = self.intake.borrow_mut();
        match of {
            Caller::Known => intake.append(record),
            Caller::Anybody => intake.append_open(record),
            Caller::Refused => intake.append_unauthenticated(record, now),
        }
        self.holds.set(true);
        self.begin();
    }

    /// Queues `pieces` to be sent on `line`.
    pub(super) fn queue<'b>(&self, line: &Rc<RefCell<Line>>, pieces: impl Iterator<Item = &'b [u8]>) {
        if self.queue.borrow().bytes.len() > ROOM {
            self.end();
        }
        let Queue { bytes, parts } = &mut *self.queue.borrow_mut();
        let start = bytes.len();
        pieces.for_each(|piece| bytes.extend_from_slice(piece));
        parts.push((Rc::clone(line), start..bytes.len()));
        self.begin();
    }

    fn begin(&self) {
        if !self.has_begun.replace(true) {
            self.begun.notify_one();
        }
    }

    /// Ends the turn now: before anything is sent that did not wait for its end.
    pub(super) fn end(&self) {
        self.has_begun.set(false);
        if self.holds.replace(false) {
            self.intake.borrow_mut().flush();
        }
        let mut queue = self.queue.borrow_mut();
        let Queue { bytes, parts } = &mut *queue;
        for (line, part) in parts.drain(..) {
            line.borrow_mut().send(&bytes[part]);
        }
        bytes.clear();
    }

    /// Ends turn after turn. A task of its own: it is behind all that was ready when the turn began.
    pub(super) async fn run(&self) {
        loop {
            self.begun.notified().await;
            self.end();
        }
    }
}
