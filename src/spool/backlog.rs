//! What the uploader sees of the spool: the oldest file that the hub does not have yet.
//!
//! The trait stands here because upload may import spool and not the other way round. The spool's
//! handle implements it; so do the uploader's tests, without a disk.

use std::fmt;
use std::future::Future;

use serde::{Deserialize, Serialize};

use crate::ids::{Digest, StreamId};
use crate::units::UnixSeconds;

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

/// Some files, and their bytes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Stock {
    /// How many.
    pub files: u64,
    /// Bytes of all of them.
    pub bytes: u64,
}

impl Stock {
    /// This many more.
    pub(super) fn add(&mut self, more: Self) {
        self.files = self.files.saturating_add(more.files);
        self.bytes = self.bytes.saturating_add(more.bytes);
    }

    /// What is left of it without `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self { files: self.files.saturating_sub(other.files), bytes: self.bytes.saturating_sub(other.bytes) }
    }
}

/// What a device tells the hub of its backlog with each request: a hint, which nothing is decided by.
///
/// As text `files=12, bytes=34567, oldest=1764000000`, decimal without leading zeros, in this order; `oldest` is left out
/// where nobody knows it, and where nothing waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waits {
    /// Sealed files that the hub does not have; a file that comes with it not among them.
    pub stock: Stock,
    /// Nothing in them is older than this, by the device's clock.
    pub oldest: Option<UnixSeconds>,
}

impl Waits {
    /// Most bytes of its text.
    const TEXT_LIMIT: usize = 80;
    /// A number of it is below this: whoever reads JSON has it exactly.
    const LIMIT: u64 = 1 << 53;

    /// Reads what [`fmt::Display`] writes, and no other spelling.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        if text.len() > Self::TEXT_LIMIT {
            return None;
        }
        let mut parts = text.split(", ");
        let mut next = |name: &str| -> Option<u64> {
            let number = parts.next()?.strip_prefix(name)?.strip_prefix('=')?.parse().ok()?;
            Some(number).filter(|number| *number < Self::LIMIT)
        };
        let stock = Stock { files: next("files")?, bytes: next("bytes")? };
        let waits = Self { stock, oldest: next("oldest").map(u64::cast_signed) };
        (waits.to_string() == text).then_some(waits)
    }
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stock { files, bytes } = self.stock;
        write!(f, "files={files}, bytes={bytes}")?;
        match self.oldest {
            Some(oldest) if files > 0 => write!(f, ", oldest={oldest}"),
            _ => Ok(()),
        }
    }
}

/// The spool could not be read or written; it has said why in its own log. Try again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the spool does not answer")]
pub struct Unavailable;

/// Sealed files, oldest first. Methods wait for the spool's own thread, never for a disk on this one.
pub trait Backlog: Send + Sync + 'static {
    /// What waits at most, where that is known without reading anything. At 0 files there is none.
    fn waiting(&self) -> Option<Stock>;

    /// The oldest file after `after`, or the oldest of all.
    fn oldest(&self, after: Option<Cursor>) -> impl Future<Output = Result<Option<UsageFile>, Unavailable>> + Send;

    /// The hub has this file for good, by a receipt that was checked: it may be deleted. Once this
    /// returns `Ok`, `oldest` no longer gives it.
    fn acknowledge(&self, at: Cursor, digest: &Digest) -> impl Future<Output = Result<(), Unavailable>> + Send;
}

impl<B: Backlog> Backlog for std::sync::Arc<B> {
    fn waiting(&self) -> Option<Stock> {
        B::waiting(self)
    }

    fn oldest(&self, after: Option<Cursor>) -> impl Future<Output = Result<Option<UsageFile>, Unavailable>> + Send {
        B::oldest(self, after)
    }

    fn acknowledge(&self, at: Cursor, digest: &Digest) -> impl Future<Output = Result<(), Unavailable>> + Send {
        B::acknowledge(self, at, digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_reads_back_and_no_other_spelling_does() {
        let stock = Stock { files: 12, bytes: 34_567 };
        let text = "files=12, bytes=34567, oldest=1764000000";
        assert_eq!(Waits { stock, oldest: Some(1_764_000_000) }.to_string(), text);
        let most = Stock { files: Waits::LIMIT - 1, bytes: Waits::LIMIT - 1 };
        for waits in [
            Waits::default(),
            Waits { stock, oldest: None },
            Waits { stock, oldest: Some(0) },
            Waits { stock: most, oldest: Some((Waits::LIMIT - 1).cast_signed()) },
        ] {
            assert_eq!(Waits::read(&waits.to_string()), Some(waits));
        }
        for wrong in [
            "",
            "files=12",
            "bytes=1, files=2",
            "files=1,bytes=2",
            "files=1, bytes=2, oldest=",
            "files=1, bytes=2, oldest=3, more=4",
            "files=1, bytes=2, ",
            "files=0, bytes=0, oldest=3",
            "files=01, bytes=2",
            "files=+1, bytes=2",
            "files=-1, bytes=2",
            "files=1, bytes=2, oldest=-1",
            "files=1, bytes=9007199254740992",
            "files=1, bytes=99999999999999999999999",
            "files=1, bytes=2, oldest=1\u{661}",
            &format!("files=1, bytes=2{}", " ".repeat(80)),
        ] {
            assert_eq!(Waits::read(wrong), None, "{wrong}");
        }
    }
}
