//! How long a caller may take for the head of its next request, or rest between two: the same limit.
//!
//! A connection's timer is not moved with each request. It rings when it was set to, and is then set to what is due by
//! that time; so a request costs no timer.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

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

    /// Ready when a head has been awaited for too long. `awaited`: since when one is, if it is.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, awaited: &Cell<Option<Instant>>) -> Poll<()> {
        if self.is_armed && !self.sleep.is_elapsed() {
            return Poll::Pending;
        }
        self.is_armed = true;
        while self.sleep.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let due = awaited.get().unwrap_or(now).checked_add(self.timeout);
            match due {
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

    const TIMEOUT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn it_rings_when_a_head_is_overdue_and_not_while_a_request_is_served() {
        let (mut timer, awaited) = (HeadTimer::new(TIMEOUT), Cell::new(None));
        let served = tokio::time::timeout(5 * TIMEOUT, poll_fn(|cx| timer.poll(cx, &awaited))).await;
        assert!(served.is_err(), "a request may take as long as it takes");
    }

    #[tokio::test]
    async fn it_counts_from_the_last_answer_and_not_from_when_it_was_set() {
        let timeout = Duration::from_millis(200);
        let (mut timer, begun) = (HeadTimer::new(timeout), Instant::now());
        let answered = begun + Duration::from_millis(150);
        let awaited = Cell::new(Some(answered));
        poll_fn(|cx| timer.poll(cx, &awaited)).await;
        assert!(answered.elapsed() >= timeout, "{:?}", answered.elapsed());
    }
}
