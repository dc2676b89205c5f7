//! The stream of events of one device: what there is under bundles for it, by a name that changes with it.
//!
//! ```text
//! event: bundles
//! data: {hint, 16 hex}       at the beginning, and whenever it is another one
//!
//! :                          every 20 seconds, so that both ends see a link that is gone
//! ```
//!
//! A stream is a receiver of two watches and one timer; what it sends is made where the folder is looked through. It ends
//! at once when the hub drains and when its device is revoked.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::Response;
use hyper::body::{Body, Frame};
use hyper::header;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::body::{Answer, AnswerBody};
use super::bundles::Follower;
use super::devices::Changes;
use crate::spool::protocol::EVENTS_TYPE;

/// How often something is said where there is nothing to say.
const BEAT: Duration = Duration::from_secs(20);

/// What a stream listens to.
pub(super) struct Stream {
    pub(super) follower: Follower,
    pub(super) devices: Changes,
    pub(super) draining: watch::Receiver<bool>,
    /// What was said last.
    pub(super) said: Option<String>,
    pub(super) _place: OwnedSemaphorePermit,
}

/// The answer that lasts.
pub(super) fn answer(stream: Stream) -> Answer {
    let response = Response::builder()
        .header(header::CONTENT_TYPE, EVENTS_TYPE)
        .header(header::CACHE_CONTROL, "no-store")
        .header("x-accel-buffering", "no"); // nginx would keep events back
    response.body(AnswerBody::Events(Events(Box::pin(next(stream))))).expect("the headers are constants")
}

/// A stream as a body.
pub(super) struct Events(Next);

/// What is said next, and by whom from then on.
type Next = Pin<Box<dyn Future<Output = Option<(Bytes, Stream)>> + Send>>;

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Events")
    }
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let said = ready!(self.0.as_mut().poll(cx));
        Poll::Ready(said.map(|(bytes, stream)| {
            self.0 = Box::pin(next(stream));
            Ok(Frame::data(bytes))
        }))
    }
}

/// What it says next; `None` at its end.
async fn next(mut stream: Stream) -> Option<(Bytes, Stream)> {
    let beat = tokio::time::sleep(BEAT);
    tokio::pin!(beat);
    let device = stream.follower.device();
    loop {
        if *stream.draining.borrow() {
            return None;
        }
        let hint = stream.follower.hint();
        if stream.said.as_ref() != Some(&hint) {
            let bytes = Bytes::from(format!("event: bundles\ndata: {hint}\n\n"));
            stream.said = Some(hint);
            return Some((bytes, stream));
        }
        let is_silent = {
            let drained = async { drop(stream.draining.wait_for(|draining| *draining).await) };
            tokio::select! {
                changed = stream.follower.changed() => changed.map(|()| false)?,
                () = stream.devices.revoked(device) => return None,
                () = drained => return None,
                () = &mut beat => true,
            }
        };
        if is_silent {
            return Some((Bytes::from_static(b": \n\n"), stream));
        }
    }
}
