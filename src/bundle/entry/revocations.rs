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
//!
//! A million ids are 16 MB: devices check the table where it lies ([`RevocationRows`]), and compare the next one with
//! the one before it as that is read ([`RevocationRows::lacks`]). [`Revocations`] is for the author's side.

use std::collections::HashMap;
use std::io::{self, BufReader, Read};

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
        let rows = RevocationRows::from_bytes(bytes)?;
        let owned = |row: CutOffRow<'_>| CutOff {
            kind: row.kind,
            issuer: row.issuer.to_owned(),
            value: row.value.to_owned(),
            before: row.before,
        };
        Ok(Self { cut_offs: rows.cut_offs().map(owned).collect(), ids: rows.ids().collect() })
    }
}

/// A cut-off where it lies; ordered by what it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CutOffRow<'b> {
    /// What `value` names.
    pub kind: CutOffKind,
    /// The exact `iss`.
    pub issuer: &'b str,
    /// Whose tokens.
    pub value: &'b str,
    /// Unix seconds.
    pub before: i64,
}

/// The rows of a table that is in its one form.
#[derive(Debug, Clone, Copy)]
pub struct RevocationRows<'b> {
    cut_offs: &'b [[u8; WIDTHS[0]]],
    ids: &'b [[u8; WIDTHS[1]]],
    pool: &'b str,
}

impl<'b> RevocationRows<'b> {
    /// Checks sizes and references, that rows are sorted, none twice, and that this is the one form.
    pub fn from_bytes(bytes: &'b [u8]) -> Result<Self, EntryError> {
        let (from, [cut_offs, _]) = Reader::new(bytes, MAGIC, WIDTHS)?;
        let (rows, pool) = from.parts();
        let (cut_offs, ids) = rows.split_at_checked(cut_offs * WIDTHS[0]).ok_or(EntryError::Malformed)?;
        let table = Self { cut_offs: cut_offs.as_chunks().0, ids: ids.as_chunks().0, pool };
        table.check()?;
        Ok(table)
    }

    /// The cut-offs, in order.
    pub fn cut_offs(&self) -> impl Iterator<Item = CutOffRow<'b>> {
        let pool = self.pool;
        self.cut_offs.iter().filter_map(move |row| cut_off(row, pool))
    }

    /// The ids, in order.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = HashedId> + 'b {
        self.ids.iter().map(hashed_id)
    }

    fn check(&self) -> Result<(), EntryError> {
        if self.cut_offs().count() != self.cut_offs.len() {
            return Err(EntryError::Malformed);
        }
        let named = |row: CutOffRow<'b>| (row.kind, row.issuer, row.value);
        let sorted =
            self.cut_offs().map(named).is_sorted_by(|a, b| a < b) && self.ids().is_sorted_by(|a, b| a.hash < b.hash);
        // Each distinct text is in the pool once, in order of first use, and nothing else is.
        let mut places = HashMap::new();
        let mut end = 0;
        for (text, place) in self.cut_offs.iter().flat_map(texts).map(|place| (text(place, self.pool), place)) {
            let first = *places.entry(text).or_insert_with(|| {
                let first = (end, place.1);
                end += place.1;
                first
            });
            if first != place {
                return Err(EntryError::NotCanonical);
            }
        }
        if sorted && end == self.pool.len() { Ok(()) } else { Err(EntryError::NotCanonical) }
    }

    /// The first thing that the list in `before` takes away and this one does not, though it still counts when it is at
    /// least `lower`: an id that ends later than that, or ends sooner here; a cut-off, or an earlier one here. Reads
    /// `before` once, from front to end.
    pub fn lacks(&self, before: &mut dyn Read, lower: i64) -> io::Result<Option<String>> {
        let mut before = BufReader::with_capacity(64 << 10, before);
        let malformed = || io::Error::from(io::ErrorKind::InvalidData);
        let mut head = [0; 20];
        before.read_exact(&mut head)?;
        let count = |at: usize| head[at..at + 4].iter().fold(0_u64, |n, byte| n << 8 | u64::from(*byte));
        if head[..8] != MAGIC {
            return Err(malformed());
        }
        let mut old_rows = Vec::new();
        before.by_ref().take(count(8) * WIDTHS[0] as u64).read_to_end(&mut old_rows)?;
        let mut ids = self.ids().peekable();
        for _ in 0..count(12) {
            let mut row = [0; WIDTHS[1]];
            before.read_exact(&mut row)?;
            let old = hashed_id(&row);
            while ids.next_if(|new| new.hash < old.hash).is_some() {}
            let kept = ids.peek().is_some_and(|new| new.hash == old.hash && new.until >= old.until);
            if !kept && old.until > lower {
                return Ok(Some(format!("the id {:016x}, which counts until {}", old.hash, old.until)));
            }
        }
        let mut pool = String::new();
        before.take(count(16)).read_to_string(&mut pool)?;
        let mut cut_offs = self.cut_offs().peekable();
        for row in old_rows.as_chunks().0 {
            let old = cut_off(row, &pool).ok_or_else(malformed)?;
            let named = |row: &CutOffRow<'_>| (row.kind, row.issuer.to_owned(), row.value.to_owned());
            let old_name = named(&old);
            while cut_offs.next_if(|new| named(new) < old_name).is_some() {}
            if !cut_offs.peek().is_some_and(|new| named(new) == old_name && new.before >= old.before) {
                let kind = format!("{:?}", old.kind).to_lowercase();
                return Ok(Some(format!("the cut-off of a {kind} at {}", old.before)));
            }
        }
        Ok(None)
    }
}

fn hashed_id(row: &[u8; WIDTHS[1]]) -> HashedId {
    let [a, b, c, d, e, f, g, h, until @ ..] = *row;
    HashedId { hash: u64::from_be_bytes([a, b, c, d, e, f, g, h]), until: i64::from_be_bytes(until) }
}

/// `None` where the kind is unknown or a text is not in the pool.
fn cut_off<'p>(row: &[u8; WIDTHS[0]], pool: &'p str) -> Option<CutOffRow<'p>> {
    let kind = match row[0] {
        2 => CutOffKind::Subject,
        3 => CutOffKind::Client,
        4 => CutOffKind::Key,
        _ => return None,
    };
    let [issuer, value] = texts(row).map(|(at, len)| pool.get(at..at.checked_add(len)?));
    let [.., a, b, c, d, e, f, g, h] = *row;
    Some(CutOffRow { kind, issuer: issuer?, value: value?, before: i64::from_be_bytes([a, b, c, d, e, f, g, h]) })
}

/// Where the issuer and the value lie in the pool: offset and length.
fn texts(row: &[u8; WIDTHS[0]]) -> [(usize, usize); 2] {
    let number = |at: usize| row[at..at + 4].iter().fold(0_usize, |n, byte| n << 8 | usize::from(*byte));
    [(number(1), number(5)), (number(9), number(13))]
}

fn text((at, len): (usize, usize), pool: &str) -> &str {
    pool.get(at..at.saturating_add(len)).unwrap_or_default()
}
