//! Reading and writing the big-endian tables of `subscriptions` and `revocations`.
//!
//! A text is a reference into a pool at the table's end: u32 offset, u32 length. The pool holds each
//! distinct text once, in order of first use by the rows, so that equal content has equal bytes.

use std::collections::HashMap;

use super::EntryError;

/// Length of a text reference.
const TEXT: usize = 8;

/// Builds a table's rows and its pool.
#[derive(Debug, Default)]
pub(super) struct Writer {
    rows: Vec<u8>,
    pool: Vec<u8>,
    places: HashMap<String, (u32, u32)>,
}

impl Writer {
    pub(super) fn u8(&mut self, value: u8) {
        self.rows.push(value);
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.rows.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.rows.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn i64(&mut self, value: i64) {
        self.rows.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn text(&mut self, text: &str) {
        let (at, len) = match self.places.get(text) {
            Some(place) => *place,
            None => {
                let place = (count(self.pool.len()), count(text.len()));
                self.pool.extend_from_slice(text.as_bytes());
                self.places.insert(text.to_owned(), place);
                place
            }
        };
        self.u32(at);
        self.u32(len);
    }

    /// `magic`, the counts, the pool's length, the rows, the pool.
    pub(super) fn finish(self, magic: [u8; 8], counts: &[usize]) -> Vec<u8> {
        let mut bytes = magic.to_vec();
        for rows in counts.iter().copied().chain([self.pool.len()]) {
            bytes.extend_from_slice(&count(rows).to_be_bytes());
        }
        bytes.extend_from_slice(&self.rows);
        bytes.extend_from_slice(&self.pool);
        bytes
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).expect("an entry of more than 4 GiB cannot be in a bundle")
}

/// Reads a table; every read is checked against its bytes.
#[derive(Debug)]
pub(super) struct Reader<'b> {
    rows: &'b [u8],
    pool: &'b str,
    /// Where each text stands that was read, and how much of the pool those are.
    places: HashMap<&'b str, (u32, u32)>,
    used: u32,
}

impl<'b> Reader<'b> {
    /// Checks magic and sizes; gives the counts. `widths` are the bytes of one row of each kind.
    pub(super) fn new<const N: usize>(
        bytes: &'b [u8],
        magic: [u8; 8],
        widths: [usize; N],
    ) -> Result<(Self, [usize; N]), EntryError> {
        let body = bytes.strip_prefix(&magic).ok_or(EntryError::Magic)?;
        let mut head = Reader { rows: body, pool: "", places: HashMap::new(), used: 0 };
        let mut counts = [0; N];
        let mut rows_len = 0_usize;
        for (count, width) in counts.iter_mut().zip(widths) {
            *count = head.u32()? as usize;
            rows_len =
                count.checked_mul(width).and_then(|len| len.checked_add(rows_len)).ok_or(EntryError::Malformed)?;
        }
        let pool_len = head.u32()? as usize;
        let (rows, pool) = head.rows.split_at_checked(rows_len).ok_or(EntryError::Malformed)?;
        if pool.len() != pool_len {
            return Err(EntryError::Malformed);
        }
        let pool = std::str::from_utf8(pool).map_err(|_| EntryError::Malformed)?;
        Ok((Reader { rows, pool, ..head }, counts))
    }

    /// The rows and the pool, unread.
    pub(super) fn parts(self) -> (&'b [u8], &'b str) {
        (self.rows, self.pool)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], EntryError> {
        let (head, rest) = self.rows.split_first_chunk::<N>().ok_or(EntryError::Malformed)?;
        self.rows = rest;
        Ok(*head)
    }

    pub(super) fn u8(&mut self) -> Result<u8, EntryError> {
        self.take::<1>().map(|[byte]| byte)
    }

    pub(super) fn u32(&mut self) -> Result<u32, EntryError> {
        self.take().map(u32::from_be_bytes)
    }

    /// The next text. Each distinct one stands in the pool once, in the order of first use: else `NotCanonical`.
    pub(super) fn text(&mut self) -> Result<&'b str, EntryError> {
        let (at, len) = (self.u32()?, self.u32()?);
        let end = at.checked_add(len).ok_or(EntryError::Malformed)?;
        let text = self.pool.get(at as usize..end as usize).ok_or(EntryError::Malformed)?;
        let place = *self.places.entry(text).or_insert((self.used, len));
        if place != (at, len) {
            return Err(EntryError::NotCanonical);
        }
        self.used = self.used.max(end);
        Ok(text)
    }

    /// After the last row: all of the pool was used.
    pub(super) fn check_end(&self) -> Result<(), EntryError> {
        if self.rows.is_empty() && self.used as usize == self.pool.len() {
            Ok(())
        } else {
            Err(EntryError::NotCanonical)
        }
    }
}

/// Bytes of a row with `texts` references and `fixed` other bytes.
pub(super) const fn width(texts: usize, fixed: usize) -> usize {
    texts * TEXT + fixed
}
