//! The request's body on its way up: counted, limited, and never waited for without end.
//!
//! Trailers end here, in both directions (RFC 9110, 6.5.1, lets us): hyper does not ask a body for more after them, so
//! their end could not be told, and no field of theirs passes [`fields`](super::fields) unseen.

use std::cell::Cell;
use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Sleep;

use crate::spool::record::Outcome;

/// How far a request's body has come; shared between the body and whoever waits for the answer.
#[derive(Debug)]
pub(super) struct Tally {
    bytes: Cell<u64>,
    state: Cell<Progress>,
}

/// Where a request's body stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// More may come.
    Running,
    /// It was all sent at this moment.
    Whole(Instant),
    /// It is larger than its API allows.
    TooLarge,
    /// Nothing came for too long.
    Stalled,
    /// Downstream broke it off.
    Broken,
    /// Its chunks are not written as chunks are.
    Malformed,
}

impl Tally {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    pub(super) fn progress(&self) -> Progress {
        self.state.get()
    }

    /// What the request ends as by the fault of its own body.
    pub(super) fn fault(&self) -> Option<Outcome> {
        match self.progress() {
            Progress::Running | Progress::Whole(_) => None,
            Progress::TooLarge => Some(Outcome::BodyTooLarge),
            Progress::Stalled | Progress::Broken => Some(Outcome::DownstreamAborted),
            Progress::Malformed => Some(Outcome::BadRequest),
        }
    }
}

/// A request's body, as it goes to the upstream; `None` where there is none: nothing to count, nothing allocated. Boxed,
/// since hyper has room for 64 requests by each connection.
#[derive(Debug, Default)]
pub(super) struct Upload(Option<Box<Flow>>);

#[derive(Debug)]
struct Flow {
    inner: Incoming,
    tally: Rc<Tally>,
    limit: u64,
    idle: Duration,
    /// Armed only while nothing comes.
    timer: Option<Pin<Box<Sleep>>>,
}

/// Why a body is broken off; hyper carries it, [`Progress`] tells it.
#[derive(Debug, thiserror::Error)]
#[error("the request body was broken off")]
pub(super) struct BrokenOff;

impl Upload {
    /// A body of at most `limit` bytes that may pause for `idle`.
    pub(super) fn new(inner: Incoming, limit: u64, idle: Duration) -> (Self, Option<Rc<Tally>>) {
        if inner.is_end_stream() {
            return (Self(None), None);
        }
        let tally = Rc::new(Tally { bytes: Cell::new(0), state: Cell::new(Progress::Running) });
        let flow = Flow { inner, tally: Rc::clone(&tally), limit, idle, timer: None };
        (Self(Some(Box::new(flow))), Some(tally))
    }

    /// Whether there is no body.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl Flow {
    fn finish(&self) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        self.tally.state.set(Progress::Whole(Instant::now()));
        Poll::Ready(None)
    }

    fn stop(&self, state: Progress) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        self.tally.state.set(state);
        Poll::Ready(Some(Err(BrokenOff)))
    }
}

/// Whether bytes came that are no chunks, rather than none.
fn is_malformed(error: &hyper::Error) -> bool {
    let io = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    io.is_some_and(|io| matches!(io.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData))
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let Some(flow) = &mut self.get_mut().0 else { return Poll::Ready(None) };
        let Poll::Ready(frame) = Pin::new(&mut flow.inner).poll_frame(cx) else {
            let idle = flow.idle;
            let timer = flow.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
            ready!(timer.as_mut().poll(cx));
            return flow.stop(Progress::Stalled);
        };
        flow.timer = None;
        match frame {
            Some(Ok(frame)) if frame.is_trailers() => flow.finish(),
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                let bytes = flow.tally.bytes.get().saturating_add(length);
                flow.tally.bytes.set(bytes);
                if bytes > flow.limit {
                    return flow.stop(Progress::TooLarge);
                }
                if flow.inner.is_end_stream() {
                    flow.tally.state.set(Progress::Whole(Instant::now()));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => flow.stop(if is_malformed(&error) { Progress::Malformed } else { Progress::Broken }),
            None => flow.finish(),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|flow| flow.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or(SizeHint::with_exact(0), |flow| flow.inner.size_hint())
    }
}
