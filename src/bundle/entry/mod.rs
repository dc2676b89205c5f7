//! The wire form of each entry of a policy bundle: what the author's side writes and `compile` reads.
//!
//! `routes`, `issuers`, `throttle` and `probes` are canonical JSON: members in the order of the structs here
//! (which is alphabetical), no white space, absent members left out, integers of at most 2^53, named
//! things in the order of their names. `subscriptions` and `revocations` are tables of fixed-width
//! big-endian rows over a string pool, sorted. Reading checks that writing what was read gives the same
//! bytes, so each content has exactly one form.

mod issuers;
mod probes;
mod revocations;
mod routes;
mod subscriptions;
mod table;
mod throttle;

pub use issuers::{Claims, Issuer, Issuers, Jwk, Key};
pub use probes::{Expected, HeaderField, Probe, Probes};
pub use revocations::{
    CutOff, CutOffKind, CutOffRow, CutOffRows, HashedId, RevocationReader, RevocationRows, Revocations,
};
pub use routes::{Api, Route, Routes, Upstream, Usage};
pub use subscriptions::{Application, ConsumerKey, Row, Rows, Subscription, Subscriptions};
pub use throttle::{Limit, Per, Plan, Throttle};

use std::io;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Serializer;
use serde_json::ser::{CompactFormatter, Formatter};

use super::canonical::MAX_INTEGER;

/// Why an entry's bytes are not of its format.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// The JSON does not have the members of this entry: build the bundle again with this version's tool.
    #[error("not the JSON of this entry")]
    Json(#[from] serde_json::Error),
    /// The content is right but not in its one form: build the bundle again.
    #[error("not in canonical form")]
    NotCanonical,
    /// An integer over 2^53, which not every JSON reader keeps exactly: give a smaller one.
    #[error("an integer over 2^53")]
    Integer,
    /// The table's magic or version is another: build the bundle again with this version's tool.
    #[error("not this entry's table format")]
    Magic,
    /// The table ends early, goes on past its end, or refers outside itself.
    #[error("the table's sizes or references do not fit its bytes")]
    Malformed,
}

/// An entry that is canonical JSON.
pub trait JsonEntry: Serialize + DeserializeOwned {
    /// Whether what it lists stands in the order of its names. The same name twice is left to `compile`,
    /// which can say whose it is.
    fn is_sorted(&self) -> bool;

    /// Its bytes.
    fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain structs of strings and integers serialise")
    }

    /// Reads and checks that this is the one form.
    fn from_bytes(bytes: &[u8]) -> Result<Self, EntryError> {
        let entry: Self = serde_json::from_slice(bytes)?;
        let mut rest = Rest(bytes);
        entry.serialize(&mut Serializer::with_formatter(&mut rest, Exact)).map_err(|error| {
            match error.io_error_kind() {
                Some(io::ErrorKind::Unsupported) => EntryError::Integer,
                _ => EntryError::NotCanonical,
            }
        })?;
        if rest.0.is_empty() && entry.is_sorted() { Ok(entry) } else { Err(EntryError::NotCanonical) }
    }
}

impl JsonEntry for Issuers {
    fn is_sorted(&self) -> bool {
        self.issuers.is_sorted_by(|a, b| a.name <= b.name)
    }
}

impl JsonEntry for Routes {
    fn is_sorted(&self) -> bool {
        self.apis.is_sorted_by(|a, b| (&a.name, &a.version) <= (&b.name, &b.version))
            && self.upstreams.is_sorted_by(|a, b| a.name <= b.name)
    }
}

impl JsonEntry for Probes {
    fn is_sorted(&self) -> bool {
        self.probes.is_sorted_by(|a, b| a.name <= b.name)
    }
}

impl JsonEntry for Throttle {
    fn is_sorted(&self) -> bool {
        self.plans.is_sorted_by(|a, b| a.name <= b.name)
    }
}

/// Compact JSON that has no integer over [`MAX_INTEGER`]. Entries hold no negative ones and no fractions.
struct Exact;

impl Formatter for Exact {
    fn write_u64<W: io::Write + ?Sized>(&mut self, writer: &mut W, value: u64) -> io::Result<()> {
        if value > MAX_INTEGER.unsigned_abs() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        CompactFormatter.write_u64(writer, value)
    }
}

/// What is still to be written; anything else is an error.
struct Rest<'b>(&'b [u8]);

impl io::Write for Rest<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.strip_prefix(bytes).ok_or(io::ErrorKind::InvalidData)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests;
