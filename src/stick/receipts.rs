//! The hub's receipts from a stick: what lets files be deleted, each checked before anything is.
//!
//! A receipt counts if a key of the root's hub role signed it and the spool has a file of its device, stream and number
//! with its digest. Anything else is told by name and changes nothing. The same stick again changes nothing either.

use std::io;

use super::folder::Folder;
use super::{Item, Source, SourceFailed, Strange, walk_receipts};
use crate::ids::DeviceId;
use crate::keys::PublicKey;
use crate::spool::backlog::Cursor;
use crate::spool::receipt::{self, Receipt};
use crate::spool::segment::Unverified;

/// What became of one receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Its file was deleted.
    Deleted,
    /// Its file has gone before: by an upload, or by this receipt.
    GoneBefore,
    /// Its file is part of a tombstone by now, which has a receipt of its own.
    Retired,
    /// It is another device's, whose files are on this stick too.
    OfAnother,
    /// It is another device's, and nothing else of that one is here.
    WrongDevice,
    /// The spool has another file of that number: the card was copied or set back.
    WrongDigest,
    /// Not a receipt, or nobody's whom the root knows as a hub.
    Refused(receipt::Error),
    /// It cannot be read, or is no regular file.
    Unreadable,
}

impl Outcome {
    /// Whether somebody should look into it.
    #[must_use]
    pub fn is_bad(self) -> bool {
        matches!(self, Self::WrongDevice | Self::WrongDigest | Self::Refused(_) | Self::Unreadable)
    }

    /// Whether the device let go of its file.
    #[must_use]
    pub fn lets_go(self) -> bool {
        self == Self::Deleted
    }

    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Deleted => "Deleted",
            Self::GoneBefore => "GoneBefore",
            Self::Retired => "Retired",
            Self::OfAnother => "OfAnotherDevice",
            Self::WrongDevice => "WrongDevice",
            Self::WrongDigest => "WrongDigest",
            Self::Refused(receipt::Error::Malformed) => "Malformed",
            Self::Refused(receipt::Error::KeyUnknown) => "KeyUnknown",
            Self::Refused(receipt::Error::SignatureInvalid) => "SignatureInvalid",
            Self::Unreadable => "Unreadable",
        }
    }
}

/// Why it ended early. What was deleted until then had its receipt.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stick cannot be read.
    #[error("the stick")]
    Stick(#[from] io::Error),
    /// See [`SourceFailed`].
    #[error(transparent)]
    Source(#[from] SourceFailed),
}

/// Takes the receipts of a stick for `source`, which is the spool of `device`; `told` hears of each. Gives what is strange
/// among them.
pub async fn take(
    source: &impl Source,
    root: &Folder,
    device: DeviceId,
    hubs: &[PublicKey],
    mut told: impl FnMut(&Item, Outcome),
) -> Result<Vec<Strange>, Error> {
    let (items, strange) = walk_receipts(root)?;
    for item in items {
        let outcome = match item.read(root, receipt::LEN) {
            Ok(bytes) => one(source, root, device, &bytes, hubs).await?,
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Outcome::Refused(receipt::Error::Malformed),
            Err(_) => Outcome::Unreadable,
        };
        told(&item, outcome);
    }
    Ok(strange)
}

async fn one(
    source: &impl Source,
    root: &Folder,
    device: DeviceId,
    bytes: &[u8],
    hubs: &[PublicKey],
) -> Result<Outcome, SourceFailed> {
    let receipt = match Receipt::verify(bytes, hubs) {
        Ok(receipt) => receipt,
        Err(error) => return Ok(Outcome::Refused(error)),
    };
    let at = Cursor { stream: receipt.stream, seq: receipt.seq };
    let before = Cursor { seq: receipt.seq.saturating_sub(1), ..at };
    let held = source.next(Some(before)).await?;
    let held = held.as_ref().and_then(|file| Some((file, *Unverified::parse(&file.bytes).ok()?.claimed())));
    let covers = |first: u64, seq: u64| (first..=seq).contains(&at.seq);
    match held {
        // Of a copied card, files that another key signed are in this spool too.
        Some((file, header)) if file.at == at && header.device() == receipt.device => {
            if file.digest == receipt.digest {
                source.acknowledge(at, &file.digest, bytes).await?;
                return Ok(Outcome::Deleted);
            }
            Ok(if header.stands_for.is_some() { Outcome::Retired } else { Outcome::WrongDigest })
        }
        Some((file, header))
            if header.stands_for.is_some() && file.at.stream == at.stream && covers(header.first(), header.seq) =>
        {
            Ok(Outcome::Retired)
        }
        _ if receipt.device == device => Ok(Outcome::GoneBefore),
        _ if root.folder(&receipt.device.to_string()).is_ok() => Ok(Outcome::OfAnother),
        _ => Ok(Outcome::WrongDevice),
    }
}

#[cfg(test)]
#[path = "receipts_tests.rs"]
mod tests;
