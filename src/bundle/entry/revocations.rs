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
//! A million ids are 16 MB: devices check the table of a policy where it lies ([`RevocationRows`]), and that of a
//! revocation bundle as it comes by ([`RevocationReader`], called by `list`). [`Revocations`] is for the author's side.

use std::collections::HashMap;
use std::io::{self, BufReader, Read};

use super::EntryError;
use super::table::{Reader, Writer, width};

const MAGIC: [u8; 8] = *b"TGREVO\0\x01";
const HEAD: usize = 20;
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
    pub fn cut_offs(&self) -> impl Iterator<Item = CutOffRow<'b>> + use<'b> {
        let Self { cut_offs, pool, .. } = *self;
        cut_offs.iter().filter_map(move |row| cut_off(row, pool))
    }

    /// The ids, in order.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = HashedId> + use<'b> {
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
}

/// Reads a table from front to end: the rows of the cut-offs, which are held, then id by id, then the pool. It checks
/// sizes (`InvalidData`), and leaves the order of the ids to its caller.
#[derive(Debug)]
pub struct RevocationReader<R> {
    from: BufReader<R>,
    cut_offs: Vec<[u8; WIDTHS[0]]>,
    left: u64,
    next: Option<HashedId>,
    pool: u64,
}

impl<R: Read> RevocationReader<R> {
    /// Begins a table of `len` bytes.
    pub fn new(from: R, len: u64) -> io::Result<Self> {
        let mut from = BufReader::with_capacity(64 << 10, from);
        let mut head = [0; HEAD];
        if len < HEAD as u64 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        from.read_exact(&mut head)?;
        let [cut_offs, left, pool] = [8, 12, 16].map(|at| number(&head, at) as u64);
        let [rows, ids] = [cut_offs * WIDTHS[0] as u64, left * WIDTHS[1] as u64];
        if head[..MAGIC.len()] != MAGIC || HEAD as u64 + rows + ids + pool != len {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut reader = Self { from, cut_offs: Vec::new(), left, next: None, pool };
        for _ in 0..cut_offs {
            let row = reader.row()?;
            reader.cut_offs.push(row);
        }
        reader.load()?;
        Ok(reader)
    }

    /// How many ids are still to come.
    #[must_use]
    pub fn ids_left(&self) -> usize {
        usize::try_from(self.left).unwrap_or(usize::MAX).saturating_add(usize::from(self.next.is_some()))
    }

    /// The next id, left where it is.
    #[must_use]
    pub fn peek(&self) -> Option<HashedId> {
        self.next
    }

    /// The next id.
    pub fn next_id(&mut self) -> io::Result<Option<HashedId>> {
        let next = self.next;
        self.load()?;
        Ok(next)
    }

    /// The cut-offs, once all ids were read.
    pub fn finish(mut self) -> io::Result<CutOffRows> {
        while self.next_id()?.is_some() {}
        let mut pool = String::new();
        let read = self.from.take(self.pool).read_to_string(&mut pool)?;
        if read as u64 != self.pool {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(CutOffRows { rows: self.cut_offs, pool })
    }

    fn load(&mut self) -> io::Result<()> {
        self.next = match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Some(hashed_id(&self.row()?))
            }
            None => None,
        };
        Ok(())
    }

    fn row<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut row = [0; N];
        self.from.read_exact(&mut row)?;
        Ok(row)
    }
}

/// The cut-offs of a table that was read from front to end.
#[derive(Debug)]
pub struct CutOffRows {
    rows: Vec<[u8; WIDTHS[0]]>,
    pool: String,
}

impl CutOffRows {
    /// As [`RevocationRows::from_bytes`].
    pub fn check(&self) -> Result<(), EntryError> {
        self.table().check()
    }

    /// They, in order.
    pub fn rows(&self) -> impl Iterator<Item = CutOffRow<'_>> {
        self.table().cut_offs()
    }

    fn table(&self) -> RevocationRows<'_> {
        RevocationRows { cut_offs: &self.rows, ids: &[], pool: &self.pool }
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
    [(number(row, 1), number(row, 5)), (number(row, 9), number(row, 13))]
}

/// The u32 at `at`, which lies inside.
fn number(bytes: &[u8], at: usize) -> usize {
    bytes[at..at + 4].iter().fold(0, |n, byte| n << 8 | usize::from(*byte))
}

fn text((at, len): (usize, usize), pool: &str) -> &str {
    pool.get(at..at.saturating_add(len)).unwrap_or_default()
}
