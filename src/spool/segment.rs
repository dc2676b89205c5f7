//! The usage file: a signed, compressed run of rows, the unit of spooling and uploading.
//!
//! It can be made only with the device's key and read only after everything that can be checked was
//! checked, in the order below; there is no way to its rows around the signature. The same rows, place
//! and key give the same bytes. Pure. Called by the spool (seal), the hub and `tidegate spool` (open).
//!
//! Bytes, big-endian:
//!
//! ```text
//! off  size  field
//! 0    8     magic 89 54 47 55 0D 0A 1A 0A          "\x89TGU\r\n\x1a\n": a 7-bit, text-mode or cut-off copy shows at once
//! 8    2     format = 1
//! 10   1     kind = 1, rows of usage; 2, a tombstone: sums and gaps in the place of files that retention took
//! 11   1     reserved = 0
//! 12   4     header_len  1..1024
//! 16   4     body_len    1..2113536     as compressed
//! 20   4     raw_len     76..2097152    as uncompressed
//! 24   …     header      postcard: stream u64 | seq u64 | key id 32 | previous option 32 | policy option 32 |
//!                        body SHA-256 32 | requests u32 | others u32 | first_ms i64 | last_ms i64
//!                        kind 2: | first u64 | digest 32, as `StandsFor` tells
//! …    …     body        zstd, one frame, level 1, of what `columns` draws
//! …    64    signature   Ed25519 over PAE("application/vnd.tidegate.usage.v1", preamble ‖ header)
//! end = 24 + header_len + body_len + 64, exactly
//! ```
//!
//! The file's digest is the SHA-256 of all its bytes. The device's id is the first half of the key id.
//! `seq` starts at 1 in each stream; `previous` is the digest of the file before and absent at 1 only. A tombstone has the
//! number of the last file that it stands for and the `previous` of the first, so that the chain goes through it.

mod error;

pub use error::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::columns::{self, Columns, Malformed, ROW_GROWTH};
pub use super::columns::{Dictionaries, Indexed};
use super::record::Row;
use crate::ids::{DeviceId, Digest, KeyId, StreamId};
use crate::keys::{PublicKey, SigningKey, sha256};

/// Most rows in a file; also where a file is sealed at the latest.
pub const ROWS_LIMIT: u32 = 10_000;
/// Longest body before compression, in bytes; also where a file is sealed at the latest.
pub const RAW_LIMIT: usize = 2 << 20;
/// Longest body after compression: rows that do not compress grow a little.
pub const BODY_LIMIT: usize = RAW_LIMIT + (16 << 10);
/// Longest header, in bytes.
pub const HEADER_LIMIT: usize = 1024;
/// Longest usage file, in bytes.
pub const FILE_LIMIT: usize = PREAMBLE_LEN + HEADER_LIMIT + BODY_LIMIT + SIGNATURE_LEN;
/// Highest sequence number: every JSON reader and database holds it exactly.
pub const SEQ_LIMIT: u64 = 1 << 53;

const MAGIC: [u8; 8] = *b"\x89TGU\r\n\x1a\n";
const FORMAT: u16 = 1;
const KIND_ROWS: u8 = 1;
const KIND_TOMBSTONE: u8 = 2;
const PREAMBLE_LEN: usize = 24;
pub const SIGNATURE_LEN: usize = 64;
const RAW_MIN: usize = 76;
const LEVEL: i32 = 1;
const MEDIA_TYPE: &str = super::protocol::USAGE_TYPE;

/// Where a file stands: what its maker says of it beside the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The spool's identity.
    pub stream: StreamId,
    /// Which file of the stream, from 1.
    pub seq: u64,
    /// Digest of the file before; `None` for the first only.
    pub previous: Option<Digest>,
    /// Manifest digest of the policy bundle that was in force when it was sealed.
    pub policy: Option<Digest>,
}

impl Place {
    /// With `first`, the lowest number that the file stands for.
    fn is_possible(&self, first: u64) -> bool {
        (1..=SEQ_LIMIT).contains(&self.seq)
            && (1..=self.seq).contains(&first)
            && (first == 1) == self.previous.is_none()
    }
}

/// Which files a tombstone stands for, beside the last number, which is its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandsFor {
    /// The lowest of their numbers.
    pub first: u64,
    /// Digest of the last of them, which the file after it names as `previous`.
    pub digest: Digest,
}

/// The signed description of a usage file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The spool's identity.
    #[serde(serialize_with = "write_stream", deserialize_with = "read_stream")]
    pub stream: StreamId,
    /// Which file of the stream, from 1.
    pub seq: u64,
    /// The key that signed.
    pub key: KeyId,
    /// Digest of the file before.
    pub previous: Option<Digest>,
    /// Manifest digest of the policy bundle that was in force when it was sealed.
    pub policy: Option<Digest>,
    /// SHA-256 of the compressed body.
    pub body: Digest,
    /// How many rows are requests.
    pub requests: u32,
    /// How many rows are roll-ups or gaps.
    pub others: u32,
    /// The earliest moment that a row tells, in milliseconds since the Unix epoch.
    pub first_ms: i64,
    /// The latest.
    pub last_ms: i64,
    /// For a tombstone: the files in whose place it is.
    #[serde(skip)]
    pub stands_for: Option<StandsFor>,
}

impl Header {
    /// The lowest number that the file stands for: its own, where it is no tombstone.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.stands_for.map_or(self.seq, |stands_for| stands_for.first)
    }

    /// What the file after it names as `previous`, where this one's digest is `own`.
    #[must_use]
    pub fn chain_digest(&self, own: Digest) -> Digest {
        self.stands_for.map_or(own, |stands_for| stands_for.digest)
    }

    /// The device that made it.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        self.key.into()
    }

    /// Its place in the chain.
    #[must_use]
    pub fn place(&self) -> Place {
        Place { stream: self.stream, seq: self.seq, previous: self.previous, policy: self.policy }
    }
}

fn write_stream<S: Serializer>(stream: &StreamId, to: S) -> Result<S::Ok, S::Error> {
    if to.is_human_readable() { to.collect_str(stream) } else { stream.0.serialize(to) }
}

fn read_stream<'de, D: Deserializer<'de>>(from: D) -> Result<StreamId, D::Error> {
    u64::deserialize(from).map(StreamId)
}

/// What the header counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tally {
    requests: u32,
    others: u32,
    first_ms: i64,
    last_ms: i64,
}

impl Tally {
    const EMPTY: Self = Self { requests: 0, others: 0, first_ms: i64::MAX, last_ms: i64::MIN };

    fn rows(&self) -> u32 {
        self.requests.saturating_add(self.others)
    }

    fn add(&mut self, row: &Row<'_>) {
        let (count, from, to) = match row {
            Row::Request(record) => (&mut self.requests, record.at_ms, record.at_ms),
            Row::RollUp(sum) => (&mut self.others, sum.from_ms, sum.to_ms),
            Row::Gap(gap) => (&mut self.others, gap.from_ms, gap.to_ms),
        };
        *count = count.saturating_add(1);
        self.first_ms = self.first_ms.min(from).min(to);
        self.last_ms = self.last_ms.max(from).max(to);
    }
}

/// A usage file in the making. Takes rows one at a time; allocates only while its buffers grow.
#[derive(Debug)]
pub struct Builder {
    columns: Columns,
    tally: Tally,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// An empty one; allocates nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self { columns: Columns::default(), tally: Tally::EMPTY }
    }

    /// Adds a row. [`Error::Full`] means that the row was not taken: seal, then push it again.
    pub fn push(&mut self, row: &Row<'_>) -> Result<(), Error> {
        if self.tally.rows() >= ROWS_LIMIT || self.raw_len() + ROW_GROWTH > RAW_LIMIT {
            return Err(Error::Full);
        }
        match row {
            Row::Request(record) => self.columns.push(record),
            row => self.columns.push_other(row),
        }
        self.tally.add(row);
        Ok(())
    }

    /// How many rows it holds.
    #[must_use]
    pub fn rows(&self) -> u32 {
        self.tally.rows()
    }

    /// Bytes that the rows take before compression.
    #[must_use]
    pub fn raw_len(&self) -> usize {
        self.columns.len()
    }

    /// Seals the rows into a usage file. What it holds is let go as it is put together, so that a child holds little.
    pub fn seal(self, place: &Place, key: &SigningKey) -> Result<Vec<u8>, Error> {
        self.seal_for(place, None, key)
    }

    /// Seals the rows, none of which may be a request, into a tombstone: `place` has the number of the last file that it
    /// stands for and the `previous` of the first.
    pub fn bury(self, place: &Place, stands_for: StandsFor, key: &SigningKey) -> Result<Vec<u8>, Error> {
        if self.tally.requests > 0 {
            return Err(Error::RowsMismatch);
        }
        self.seal_for(place, Some(stands_for), key)
    }

    fn seal_for(mut self, place: &Place, stands_for: Option<StandsFor>, key: &SigningKey) -> Result<Vec<u8>, Error> {
        if self.tally.rows() == 0 {
            return Err(Error::Empty);
        }
        if !place.is_possible(stands_for.map_or(place.seq, |stands_for| stands_for.first)) {
            return Err(Error::BadPlace);
        }
        let raw = std::mem::take(&mut self.columns).to_body(); // and they are gone
        let body = zstd::bulk::compress(&raw, LEVEL).map_err(|_| Error::Compress)?;
        let raw_len = raw.len();
        drop(raw);
        Ok(assemble(&self.header(place, stands_for, key, &body), raw_len, &body, key))
    }

    fn header(&self, place: &Place, stands_for: Option<StandsFor>, key: &SigningKey, body: &[u8]) -> Header {
        let Place { stream, seq, previous, policy } = *place;
        let Tally { requests, others, first_ms, last_ms } = self.tally;
        let (key, body) = (key.public().id(), sha256(body));
        Header { stream, seq, key, previous, policy, body, requests, others, first_ms, last_ms, stands_for }
    }
}

/// Puts the signed file together.
fn assemble(header: &Header, raw_len: usize, body: &[u8], key: &SigningKey) -> Vec<u8> {
    let mut buffer = [0; HEADER_LIMIT];
    let kind = if header.stands_for.is_some() { KIND_TOMBSTONE } else { KIND_ROWS };
    let header = match &header.stands_for {
        None => postcard::to_slice(header, &mut buffer),
        Some(stands_for) => postcard::to_slice(&(header, stands_for), &mut buffer),
    };
    let header = header.expect("a header is under 250 bytes");
    let len = |len: usize| u32::try_from(len).expect("sections are limited to 2 MiB").to_be_bytes();
    let mut file = Vec::with_capacity(PREAMBLE_LEN + header.len() + body.len() + SIGNATURE_LEN);
    file.extend(MAGIC);
    file.extend(FORMAT.to_be_bytes());
    file.extend([kind, 0]);
    file.extend(len(header.len()));
    file.extend(len(body.len()));
    file.extend(len(raw_len));
    file.extend_from_slice(header);
    let signature = key.sign(MEDIA_TYPE, &file);
    file.extend_from_slice(body);
    file.extend(signature);
    file
}

/// A file whose header can be read and must not be believed yet.
#[derive(Debug, Clone, Copy)]
pub struct Unverified<'a> {
    header: Header,
    signed: &'a [u8],
    body: &'a [u8],
    raw_len: usize,
    signature: &'a [u8; SIGNATURE_LEN],
    whole: &'a [u8],
}

impl<'a> Unverified<'a> {
    /// Checks lengths and form: steps 1 to 3.
    pub fn parse(whole: &'a [u8]) -> Result<Self, Error> {
        // 1 preamble
        let (preamble, rest) = whole.split_first_chunk::<PREAMBLE_LEN>().ok_or(Error::Truncated)?;
        let [magic @ .., f1, f0, kind, reserved, h3, h2, h1, h0, b3, b2, b1, b0, r3, r2, r1, r0] = *preamble;
        if magic != MAGIC {
            return Err(Error::BadMagic);
        }
        if u16::from_be_bytes([f1, f0]) != FORMAT {
            return Err(Error::UnsupportedFormat);
        }
        if kind != KIND_ROWS && kind != KIND_TOMBSTONE {
            return Err(Error::UnknownKind);
        }
        if reserved != 0 {
            return Err(Error::ReservedNotZero);
        }
        // 2 section limits, then the exact length
        let header_len = section([h3, h2, h1, h0], 1, HEADER_LIMIT)?;
        let body_len = section([b3, b2, b1, b0], 1, BODY_LIMIT)?;
        let raw_len = section([r3, r2, r1, r0], RAW_MIN, RAW_LIMIT)?;
        let (header, rest) = rest.split_at_checked(header_len).ok_or(Error::Truncated)?;
        let (body, rest) = rest.split_at_checked(body_len).ok_or(Error::Truncated)?;
        let (signature, rest) = rest.split_first_chunk().ok_or(Error::Truncated)?;
        if !rest.is_empty() {
            return Err(Error::TrailingData);
        }
        let signed = &whole[..PREAMBLE_LEN + header_len];
        // 3 header
        let header = read_header(header, kind).ok_or(Error::HeaderMalformed)?;
        Ok(Self { header, signed, body, raw_len, signature, whole })
    }

    /// What the file says of itself: good for finding the key, and for nothing else.
    #[must_use]
    pub fn claimed(&self) -> &Header {
        &self.header
    }

    /// Whether the body is the one that the header names: for whoever keeps the file and cannot check its signature.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        sha256(self.body) == self.header.body
    }

    /// Checks the rest: steps 4 to 8.
    pub fn verify(self, key: &PublicKey) -> Result<Verified, Error> {
        // 4 signature
        if key.id() != self.header.key {
            return Err(Error::KeyMismatch);
        }
        if !key.verifies(MEDIA_TYPE, self.signed, self.signature) {
            return Err(Error::SignatureInvalid);
        }
        // 5 body digest
        if sha256(self.body) != self.header.body {
            return Err(Error::BodyDigestMismatch);
        }
        // 6 decompression into a buffer of the announced length, which step 2 limited
        let raw = zstd::bulk::decompress(self.body, self.raw_len).map_err(|_| Error::BodyNotZstd)?;
        if raw.len() != self.raw_len {
            return Err(Error::BodyNotZstd);
        }
        let verified = Verified { header: self.header, digest: sha256(self.whole), raw };
        verified.check_rows()?;
        Ok(verified)
    }
}

/// The header of a file of a known kind, if all of it is one.
fn read_header(bytes: &[u8], kind: u8) -> Option<Header> {
    let (mut header, mut rest) = postcard::take_from_bytes::<Header>(bytes).ok()?;
    if kind == KIND_TOMBSTONE {
        let (stands_for, after) = postcard::take_from_bytes(rest).ok()?;
        (header.stands_for, rest) = (Some(stands_for), after);
        if header.requests > 0 {
            return None;
        }
    }
    (rest.is_empty() && header.place().is_possible(header.first())).then_some(header)
}

fn section(len: [u8; 4], min: usize, max: usize) -> Result<usize, Error> {
    let len = usize::try_from(u32::from_be_bytes(len)).map_err(|_| Error::SectionTooLarge)?;
    if (min..=max).contains(&len) { Ok(len) } else { Err(Error::SectionTooLarge) }
}

/// Reads a usage file that `key` must have signed: every check, in order.
pub fn open(bytes: &[u8], key: &PublicKey) -> Result<Verified, Error> {
    Unverified::parse(bytes)?.verify(key)
}

/// Whether `signature`, which ends the file, is by `key` over the preamble and the header at its beginning. `None` if
/// not all of the header is there.
#[must_use]
pub fn is_begun_by(beginning: &[u8], signature: &[u8; SIGNATURE_LEN], key: &PublicKey) -> Option<bool> {
    let [.., h3, h2, h1, h0, _, _, _, _, _, _, _, _] = *beginning.first_chunk::<PREAMBLE_LEN>()?;
    let Ok(header_len) = section([h3, h2, h1, h0], 1, HEADER_LIMIT) else { return Some(false) };
    let signed = beginning.get(..PREAMBLE_LEN + header_len)?;
    Some(key.verifies(MEDIA_TYPE, signed, signature))
}

const READ_BEFORE: &str = "verify read every row once";

/// A file that passed every check. Only [`Unverified::verify`] makes one.
#[derive(Debug, Clone)]
pub struct Verified {
    header: Header,
    digest: Digest,
    raw: Vec<u8>,
}

impl Verified {
    /// Its signed description.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// SHA-256 of the whole file.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Its rows: requests first, then the others. A row's number is its position here, from 0.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        let mut rows = columns::Rows::read(&self.raw).expect(READ_BEFORE);
        std::iter::from_fn(move || rows.next_row().expect(READ_BEFORE))
    }

    /// Its rows that are not requests, in order. They come after the requests, of which there are `header().requests`.
    pub fn others(&self) -> impl Iterator<Item = Row<'_>> {
        let mut rows = columns::Rows::read(&self.raw).expect(READ_BEFORE);
        std::iter::from_fn(move || rows.next_other().expect(READ_BEFORE))
    }

    /// Its requests, in order, by their places in what they have in common.
    pub fn indexed(&self) -> (columns::Dictionaries<'_>, impl Iterator<Item = Indexed>) {
        let mut rows = columns::Rows::read(&self.raw).expect(READ_BEFORE);
        (rows.dictionaries().clone(), std::iter::from_fn(move || rows.next_indexed().expect(READ_BEFORE)))
    }

    fn check_rows(&self) -> Result<(), Error> {
        let malformed = |Malformed| Error::ColumnsMalformed;
        // 7 columns
        let mut rows = columns::Rows::read(&self.raw).map_err(malformed)?;
        // 8 rows
        let mut tally = Tally::EMPTY;
        while let Some(row) = rows.next_row().map_err(malformed)? {
            tally.add(&row);
            if tally.rows() > ROWS_LIMIT {
                return Err(Error::RowsMismatch);
            }
        }
        let Header { requests, others, first_ms, last_ms, .. } = self.header;
        let told = Tally { requests, others, first_ms, last_ms };
        if tally == told && tally.rows() > 0 { Ok(()) } else { Err(Error::RowsMismatch) }
    }
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;
