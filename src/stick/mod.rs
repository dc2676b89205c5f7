//! Usage by stick, both ways: usage files out, the hub's receipts back.
//!
//! ```text
//! DIR/DEVICE/STREAM/SEQ.tgu          a usage file as the spool holds it; FIRST-SEQ.tgu for a tombstone
//! DIR/DEVICE/STREAM/SEQ.tgs          the same, sealed to the hub's usage key (`seal`)
//! DIR/DEVICE/manifest.json           what was written, last of all (`manifest`)
//! DIR/receipts/STREAM/SEQ.tgr        the hub's signed receipt for it, with the file's own name
//! ```
//!
//! DEVICE is 32 hex digits, STREAM 16, SEQ and FIRST decimal: names that every file system takes. Each file is whole or not
//! there (`.part`, fsync, rename), so a stick that was pulled out is a good stick with fewer files. A stick is a stranger's:
//! no link on it is followed, nothing but a regular file is read, and each read has a limit. Nothing is believed for its
//! name or for the manifest; files and receipts prove themselves. Nothing is ever deleted from a stick.
//!
//! Called by `tidegate spool` and by `tidegate-hub import`; what exports or takes receipts does so from any [`Source`].

pub mod export;
pub mod folder;
pub mod key;
pub mod manifest;
pub mod receipts;
pub mod seal;
pub mod verify;
mod walk;

use std::future::Future;
use std::sync::Arc;

use crate::ids::{Digest, StreamId};
use crate::spool::Spool;
use crate::spool::backlog::{Backlog as _, Cursor, UsageFile};
use crate::spool::segment::Header;

pub use walk::{Item, Strange, walk, walk_receipts};

/// The folder of receipts on a stick.
pub const RECEIPTS: &str = "receipts";

/// The spool that files are taken from could not be read or written: it says why.
#[derive(Debug, thiserror::Error)]
#[error("the spool")]
pub struct SourceFailed(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Sealed files, oldest first: a running daemon's, or those of a spool that no daemon uses.
pub trait Source {
    /// How many wait at most, where that is known.
    fn waiting(&self) -> Option<u64>;

    /// The oldest file after `after`, or of all.
    fn next(&self, after: Option<Cursor>) -> impl Future<Output = Result<Option<UsageFile>, SourceFailed>>;

    /// The hub has this file for good, by `receipt`, which was checked: it may be deleted.
    fn acknowledge(
        &self,
        at: Cursor,
        digest: &Digest,
        receipt: &[u8],
    ) -> impl Future<Output = Result<(), SourceFailed>>;
}

impl Source for Arc<Spool> {
    fn waiting(&self) -> Option<u64> {
        Spool::waiting(self).map(|waiting| waiting.files)
    }

    async fn next(&self, after: Option<Cursor>) -> Result<Option<UsageFile>, SourceFailed> {
        self.oldest(after).await.map_err(|error| SourceFailed(error.into()))
    }

    async fn acknowledge(&self, at: Cursor, digest: &Digest, _: &[u8]) -> Result<(), SourceFailed> {
        Spool::acknowledge(self, at, digest).await.map_err(|error| SourceFailed(error.into()))
    }
}

/// What a file on a stick is, by the ending of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// `.tgu`: a usage file.
    Clear,
    /// `.tgs`: one that is sealed to the hub's key.
    Sealed,
    /// `.tgr`: a receipt.
    Receipt,
}

impl Form {
    const ALL: [Self; 3] = [Self::Clear, Self::Sealed, Self::Receipt];

    const fn ending(self) -> &'static str {
        match self {
            Self::Clear => "tgu",
            Self::Sealed => "tgs",
            Self::Receipt => "tgr",
        }
    }
}

/// The name of a file on a stick, with the folder that it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// The stream's folder.
    pub stream: StreamId,
    /// The file's number.
    pub seq: u64,
    /// For a tombstone, the lowest number that it stands for.
    pub first: Option<u64>,
    /// What it is.
    pub form: Form,
}

impl Name {
    /// That of a usage file.
    #[must_use]
    pub fn of(header: &Header, form: Form) -> Self {
        let first = header.stands_for.map(|stands_for| stands_for.first);
        Self { stream: header.stream, seq: header.seq, first, form }
    }

    /// Reads the name of a file in the folder of `stream`; it has one form.
    #[must_use]
    pub fn parse(stream: StreamId, name: &str) -> Option<Self> {
        let (stem, ending) = name.split_once('.')?;
        let form = Form::ALL.into_iter().find(|form| form.ending() == ending)?;
        let (first, seq) = match stem.split_once('-') {
            Some((first, seq)) => (Some(first.parse().ok()?), seq),
            None => (None, stem),
        };
        let parsed = Self { stream, seq: seq.parse().ok()?, first, form };
        (parsed.file_name() == name).then_some(parsed)
    }

    /// The name in its folder.
    #[must_use]
    pub fn file_name(&self) -> String {
        let ending = self.form.ending();
        match self.first {
            Some(first) => format!("{first}-{}.{ending}", self.seq),
            None => format!("{}.{ending}", self.seq),
        }
    }

    /// The name of the file's receipt.
    #[must_use]
    pub fn receipt(self) -> Self {
        Self { form: Form::Receipt, ..self }
    }

    /// Where it stands.
    #[must_use]
    pub fn at(&self) -> Cursor {
        Cursor { stream: self.stream, seq: self.seq }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_form() {
        let stream = StreamId(7);
        for (name, first, seq, form) in [
            ("1.tgu", None, 1, Form::Clear),
            ("2-9.tgs", Some(2), 9, Form::Sealed),
            ("5-5.tgr", Some(5), 5, Form::Receipt),
        ] {
            let parsed = Name { stream, seq, first, form };
            assert_eq!(Name::parse(stream, name), Some(parsed));
            assert_eq!(parsed.file_name(), name);
        }
        for other in ["", "1", ".tgu", "01.tgu", "+1.tgu", "1.tgu.part", "1.TGU", "1-.tgu", "-1.tgu", "a.tgu", "1.tgx"]
        {
            assert_eq!(Name::parse(stream, other), None, "{other}");
        }
    }
}
