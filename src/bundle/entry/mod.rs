//! The wire form of each entry of a policy bundle: what the author's side writes and `compile` reads.
//!
//! `routes`, `issuers` and `throttle` are canonical JSON: members in the order of the structs here
//! (which is alphabetical), no white space, absent members left out. `subscriptions` and `revocations`
//! are tables of fixed-width big-endian rows over a string pool, sorted. Reading checks that writing
//! what was read gives the same bytes, so each content has exactly one form.

mod issuers;
mod revocations;
mod routes;
mod subscriptions;
mod table;
mod throttle;

pub use issuers::{Claims, Issuer, Issuers, Jwk, Key};
pub use revocations::{CutOff, CutOffKind, HashedId, Revocations};
pub use routes::{Api, Route, Routes, Upstream};
pub use subscriptions::{Application, ConsumerKey, Subscription, Subscriptions};
pub use throttle::{Limit, Per, Plan, Throttle};

use serde::{Serialize, de::DeserializeOwned};

/// Why an entry's bytes are not of its format.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// The JSON does not have the members of this entry: build the bundle again with this version's tool.
    #[error("not the JSON of this entry")]
    Json(#[from] serde_json::Error),
    /// The content is right but not in its one form: build the bundle again.
    #[error("not in canonical form")]
    NotCanonical,
    /// The table's magic or version is another: build the bundle again with this version's tool.
    #[error("not this entry's table format")]
    Magic,
    /// The table ends early, goes on past its end, or refers outside itself.
    #[error("the table's sizes or references do not fit its bytes")]
    Malformed,
}

/// An entry that is canonical JSON.
pub trait JsonEntry: Serialize + DeserializeOwned {
    /// Its bytes.
    fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain structs of strings and integers serialise")
    }

    /// Reads and checks that this is the one form.
    fn from_bytes(bytes: &[u8]) -> Result<Self, EntryError> {
        let entry: Self = serde_json::from_slice(bytes)?;
        if entry.to_bytes() == bytes { Ok(entry) } else { Err(EntryError::NotCanonical) }
    }
}

impl JsonEntry for Issuers {}
impl JsonEntry for Routes {}
impl JsonEntry for Throttle {}

#[cfg(test)]
mod tests;
