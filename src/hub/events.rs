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
//! at once when the hub drains and when its device is revoked. It takes its connection over from the HTTP server, whose
//! buffers of 16 KiB a connection would be most of the hub's memory where ten thousand devices listen.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, watch};

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

/// A date of HTTP (RFC 9110 section 5.6.7).
const DATE: &[BorrowedFormatItem<'_>] =
    format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");

/// Tells a device what is new, until the hub drains, the device is revoked or goes away. The connection is the stream's from
/// here to its end.
pub(super) async fn tell(mut connection: impl AsyncRead + AsyncWrite + Unpin, mut stream: Stream) -> io::Result<()> {
    connection.write_all(head().as_bytes()).await?;
    loop {
        let said = tokio::select! {
            said = next(&mut stream) => said,
            () = gone(&mut connection) => return Ok(()),
        };
        let Some(said) = said else { return connection.shutdown().await };
        connection.write_all(&said).await?;
        connection.flush().await?;
    }
}

/// The answer's head. Its body ends with the connection (RFC 9112 section 6.3).
fn head() -> String {
    let date = OffsetDateTime::now_utc().format(DATE).unwrap_or_default();
    // nginx would keep events back without the last one.
    format!(
        "HTTP/1.1 200 OK\r\ndate: {date}\r\ncontent-type: {EVENTS_TYPE}\r\ncache-control: no-store\r\n\
         connection: close\r\nx-accel-buffering: no\r\n\r\n"
    )
}

/// Resolves when the device has gone. What it says meanwhile is of no use: there is no further answer.
async fn gone(connection: &mut (impl AsyncRead + Unpin)) {
    let mut heard = [0; 64];
    while connection.read(&mut heard).await.is_ok_and(|read| read > 0) {}
}

/// What it says next; `None` at its end.
async fn next(stream: &mut Stream) -> Option<Bytes> {
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
            return Some(bytes);
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
            return Some(Bytes::from_static(b": \n\n"));
        }
    }
}
