//! What the uploader sees of the spool: the oldest file that the hub does not have yet.
//!
//! The trait stands here because upload may import spool and not the other way round. The spool's
//! handle implements it; so do the uploader's tests, without a disk.

use std::future::Future;

use crate::ids::{Digest, StreamId};

/// A place between two files: uploads go in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor {
    /// The spool's identity.
    pub stream: StreamId,
    /// Which file of the stream.
    pub seq: u64,
}

/// A sealed file that waits for its receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageFile {
    /// Which one.
    pub at: Cursor,
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// At most [`super::segment::FILE_LIMIT`] of them.
    pub bytes: Vec<u8>,
}

/// The spool could not be read or written; it has said why in its own log. Try again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the spool does not answer")]
pub struct Unavailable;

/// Sealed files, oldest first. Methods wait for the spool's own thread, never for a disk on this one.
pub trait Backlog: Send + Sync + 'static {
    /// How many files wait at most, where that is known without reading anything. At 0 there is none.
    fn waiting(&self) -> Option<u64>;

    /// The oldest file after `after`, or the oldest of all.
    fn oldest(&self, after: Option<Cursor>) -> impl Future<Output = Result<Option<UsageFile>, Unavailable>> + Send;

    /// The hub has this file for good, by a receipt that was checked: it may be deleted. Once this
    /// returns `Ok`, `oldest` no longer gives it.
    fn acknowledge(&self, at: Cursor, digest: &Digest) -> impl Future<Output = Result<(), Unavailable>> + Send;
}

impl<B: Backlog> Backlog for std::sync::Arc<B> {
    fn waiting(&self) -> Option<u64> {
        B::waiting(self)
    }

    fn oldest(&self, after: Option<Cursor>) -> impl Future<Output = Result<Option<UsageFile>, Unavailable>> + Send {
        B::oldest(self, after)
    }

    fn acknowledge(&self, at: Cursor, digest: &Digest) -> impl Future<Output = Result<(), Unavailable>> + Send {
        B::acknowledge(self, at, digest)
    }
}
