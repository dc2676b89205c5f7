//! How long a caller may take for the head of its next request, or rest between two: the same limit.
//!
//! A connection's timer is not moved with each request. It rings when it was set to, and is then set to what is due by
//! that time; so a request costs no timer.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use super::body::{Progress, Tally};

/// What a connection from downstream waits for: shared by its wire, its requests and its timer.
#[derive(Debug)]
pub(super) struct Pace {
    /// Since when the head of the next request is awaited; `None` while a request is served.
    awaited: Cell<Option<Instant>>,
    /// Whether bytes wait that the peer does not take: its answer has not ended yet, though its record has.
    is_behind: Cell<bool>,
    /// Whether the peer may be sending what nobody will read.
    pub(super) is_sending: Cell<bool>,
    /// The body of the last request, where it was on its way when the answer ended.
    upload: RefCell<Option<Rc<Tally>>>,
}

impl Default for Pace {
    fn default() -> Self {
        let awaited = Cell::new(Some(Instant::now()));
        Self { awaited, is_behind: Cell::new(false), is_sending: Cell::new(false), upload: RefCell::new(None) }
    }
}

impl Pace {
    /// A request has come.
    pub(super) fn begin(&self) {
        self.awaited.set(None);
    }

    /// Its answer has been handed over; `upload` is its body, if more of that is to come.
    pub(super) fn end(&self, now: Instant, is_sending: bool, upload: Option<&Rc<Tally>>) {
        self.is_sending.set(is_sending);
        self.awaited.set(Some(now));
        if upload.is_some() || self.upload.borrow().is_some() {
            *self.upload.borrow_mut() = upload.cloned();
        }
    }

    /// The peer takes no more bytes.
    pub(super) fn fall_behind(&self) {
        self.is_behind.set(true);
    }

    /// The peer took some.
    pub(super) fn catch_up(&self, now: Instant) {
        self.is_behind.set(false);
        self.awaited.set(self.awaited.get().map(|_| now));
    }

    /// Since when nothing but a head has been awaited.
    fn since(&self, now: Instant) -> Instant {
        let awaited = if self.is_behind.get() { None } else { self.awaited.get() };
        // One whose reader has gone comes to no end: hyper reads no further then, and closes.
        let upload = self.upload.borrow();
        match upload.as_ref().filter(|tally| Rc::strong_count(tally) > 1).map(|tally| tally.progress()) {
            Some(Progress::Running) => now,
            Some(Progress::Whole(at)) => awaited.map_or(now, |awaited| awaited.max(at)),
            _ => awaited.unwrap_or(now),
        }
    }
}

/// The timer of one connection.
#[derive(Debug)]
pub(super) struct HeadTimer {
    timeout: Duration,
    sleep: Pin<Box<Sleep>>,
    /// It has the waker of its task, which stays the same.
    is_armed: bool,
}

impl HeadTimer {
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout, sleep: Box::pin(tokio::time::sleep(timeout)), is_armed: false }
    }

    /// Ready when a head has been awaited for too long.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, pace: &Pace) -> Poll<()> {
        if self.is_armed && !self.sleep.is_elapsed() {
            return Poll::Pending;
        }
        self.is_armed = true;
        while self.sleep.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            match pace.since(now).checked_add(self.timeout) {
                Some(due) if due <= now => return Poll::Ready(()),
                Some(due) => self.sleep.as_mut().reset(due.into()),
                None => return Poll::Pending, // longer than the clock goes
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[test]
    fn a_head_is_awaited_from_the_last_answer_and_not_while_a_request_is_served_or_a_peer_takes_nothing() {
        let pace = Pace::default();
        let [answered, taken, now] = [1, 2, 3].map(|second| Instant::now() + Duration::from_secs(second));
        pace.begin();
        assert_eq!(pace.since(now), now, "a request may take as long as it takes");
        pace.end(answered, false, None);
        assert_eq!(pace.since(now), answered);
        pace.fall_behind();
        assert_eq!(pace.since(now), now, "the wire watches a peer that takes nothing");
        pace.catch_up(taken);
        assert_eq!(pace.since(now), taken);
    }

    #[tokio::test]
    async fn it_does_not_ring_while_a_request_is_served() {
        let timeout = Duration::from_millis(10);
        let (mut timer, pace) = (HeadTimer::new(timeout), Pace::default());
        pace.begin();
        assert!(tokio::time::timeout(10 * timeout, poll_fn(|cx| timer.poll(cx, &pace))).await.is_err());
    }

    #[tokio::test]
    async fn it_counts_from_the_last_answer_and_not_from_when_it_was_set() {
        let timeout = Duration::from_millis(200);
        let (mut timer, begun) = (HeadTimer::new(timeout), Instant::now());
        let answered = begun + Duration::from_millis(150);
        let pace = Pace::default();
        pace.end(answered, false, None);
        poll_fn(|cx| timer.poll(cx, &pace)).await;
        assert!(answered.elapsed() >= timeout, "{:?}", answered.elapsed());
    }
}
