//! Entry `revocations`: cut-offs and hashed ids.
//!
//! ```text
//! off size field                       (big-endian; a text is u32 offset, u32 length into the pool)
//! 0   8    magic "TGREVO\0\x01"
//! 8   4    number of cut-offs
//! 12  4    number of ids
//! 16  4    length of the pool
//! 20  25·n cut-offs   u8 kind, text issuer, text value, i64 before     by kind, issuer, value
//!     16·n ids        u64 hash, i64 until                              by hash
//!     …    pool, UTF-8
//! ```
//!
//! An id (of a token, a subject or a client) is hashed with its kind and issuer: `policy::revocations`.

use super::EntryError;
use super::table::{Reader, Writer, width};

const MAGIC: [u8; 8] = *b"TGREVO\0\x01";
const WIDTHS: [usize; 2] = [width(2, 9), 16];

/// The entry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Revocations {
    /// Sorted by kind, issuer, value.
    pub cut_offs: Vec<CutOff>,
    /// Tokens, subjects and clients; sorted by hash.
    pub ids: Vec<HashedId>,
}

/// No token that was issued before a moment is good any more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CutOff {
    /// What `value` names.
    pub kind: CutOffKind,
    /// The exact `iss`.
    pub issuer: String,
    /// Whose tokens.
    pub value: String,
    /// Unix seconds; compared with the token's signed `iat`.
    pub before: i64,
}

/// Whose tokens a cut-off ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum CutOffKind {
    /// A subject's.
    Subject = 2,
    /// A client application's.
    Client = 3,
    /// Those that one key signed.
    Key = 4,
}

/// A 64-bit truncated hash of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HashedId {
    /// The hash.
    pub hash: u64,
    /// Unix seconds after which no such token can be valid, so that the row may go.
    pub until: i64,
}

impl Revocations {
    /// Its bytes. The caller has sorted the rows.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::default();
        for row in &self.cut_offs {
            out.u8(row.kind as u8);
            out.text(&row.issuer);
            out.text(&row.value);
            out.i64(row.before);
        }
        for row in &self.ids {
            out.u64(row.hash);
            out.i64(row.until);
        }
        out.finish(MAGIC, &[self.cut_offs.len(), self.ids.len()])
    }

    /// Reads and checks that rows are sorted, none twice, and this is the one form.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, EntryError> {
        let (mut from, [cut_offs, ids]) = Reader::new(bytes, MAGIC, WIDTHS)?;
        let mut entry = Self::default();
        for _ in 0..cut_offs {
            let kind = match from.u8()? {
                2 => CutOffKind::Subject,
                3 => CutOffKind::Client,
                4 => CutOffKind::Key,
                _ => return Err(EntryError::Malformed),
            };
            entry.cut_offs.push(CutOff { kind, issuer: from.text()?, value: from.text()?, before: from.i64()? });
        }
        entry.ids.reserve_exact(ids);
        for _ in 0..ids {
            entry.ids.push(HashedId { hash: from.u64()?, until: from.i64()? });
        }
        let sorted = entry.cut_offs.is_sorted_by(|a, b| (a.kind, &a.issuer, &a.value) < (b.kind, &b.issuer, &b.value))
            && entry.ids.is_sorted_by(|a, b| a.hash < b.hash);
        if sorted && entry.to_bytes() == bytes { Ok(entry) } else { Err(EntryError::NotCanonical) }
    }
}
