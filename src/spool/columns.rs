//! The body of a usage file: its rows as columns, before compression. Pure; called by [`super::segment`] only.
//!
//! What repeats together is interned together, so a row costs five short indices in place of fifteen
//! strings and numbers. Rows that are not requests are few and stay rows. Rows come out grouped:
//! requests first, then the others, each group in the order in which it was put in.
//!
//! ```text
//! off  size  field
//! 0    4·19  length of each section, u32 big-endian
//! 76   …     the sections back to back; their lengths fill the body exactly
//!
//!  #  section     per entry
//!  0  endpoints   API | version | route | method | upstream           dictionary; string = varint length | UTF-8
//!  1  callers     application | plan | consumer | issuer              dictionary
//!  2  principals  principal                                           dictionary
//!  3  clients     u8 length (0, 4 or 16) | address                    dictionary
//!  4  endings     status u16 big-endian | outcome u8 | time quality u8 (0 synced, 1 floor, 2 lost)    dictionary
//!  5  at          signed varint: at_ms − that of the row before (first: − 0), wrapping
//!  6–10           varint: index into dictionary 0–4, in order of first use
//! 11  bytes_in    varint
//! 12  bytes_out   varint
//! 13  upstream    varint: upstream_us
//! 14  own         signed varint: total_us − upstream_us
//! 15  id tag      u8: 0 the id is the next 16 bytes of section 16, and its first half joins the known halves
//!                 while they are fewer than 255; n its first half is the n-th known one
//! 16  id whole    16 bytes
//! 17  id step     signed varint: second half − that of the last id with the same first half, wrapping; big-endian halves
//! 18  others      varint length | row of `record`, never a request
//! ```
//!
//! varint: LEB128 of a u64, at most 10 bytes; signed: zigzag first.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;

use super::record::{METHOD_LIMIT, NAME_LIMIT, Outcome, ROW_LIMIT, Row, TEXT_LIMIT, UsageRecord, clip};
use super::segment::ROWS_LIMIT;
use crate::ids::RequestId;
use crate::units::TimeQuality;

const SECTIONS: usize = 19;
const TABLE_LEN: usize = SECTIONS * 4;
const DICTIONARIES: usize = 5;
const KNOWN_HALVES: usize = 255;

/// The most that one row can add to the body, in bytes.
pub(super) const ROW_GROWTH: usize = ROW_LIMIT + 256;

/// The body is not what the table above says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Columns that grow row by row. Keeps its buffers when cleared.
#[derive(Debug, Default)]
pub(super) struct Columns {
    dictionaries: [Interner; DICTIONARIES],
    indices: [Vec<u8>; DICTIONARIES],
    at: Vec<u8>,
    bytes_in: Vec<u8>,
    bytes_out: Vec<u8>,
    upstream: Vec<u8>,
    own: Vec<u8>,
    id_tag: Vec<u8>,
    id_whole: Vec<u8>,
    id_step: Vec<u8>,
    others: Vec<u8>,
    last_at: i64,
    halves: Halves,
    scratch: Vec<u8>,
}

impl Columns {
    pub(super) fn push(&mut self, record: &UsageRecord<'_>) {
        let name = |text| clip(text, NAME_LIMIT);
        let text = |text| clip(text, TEXT_LIMIT);
        let method = clip(record.method, METHOD_LIMIT);
        let endpoint = [name(record.api), name(record.version), text(record.route), method, name(record.upstream)];
        self.intern(0, |entry| endpoint.iter().for_each(|one| put_str(entry, one)));
        let caller = [name(record.application), name(record.plan), name(record.consumer), text(record.issuer)];
        self.intern(1, |entry| caller.iter().for_each(|one| put_str(entry, one)));
        self.intern(2, |entry| put_str(entry, text(record.principal)));
        self.intern(3, |entry| put_client(entry, record.client));
        self.intern(4, |entry| {
            entry.extend(record.status.to_be_bytes());
            entry.extend([record.outcome.number(), quality_number(record.time)]);
        });

        put_signed(&mut self.at, record.at_ms.wrapping_sub(self.last_at));
        self.last_at = record.at_ms;
        put_varint(&mut self.bytes_in, record.bytes_in);
        put_varint(&mut self.bytes_out, record.bytes_out);
        put_varint(&mut self.upstream, record.upstream_us.into());
        put_signed(&mut self.own, i64::from(record.total_us) - i64::from(record.upstream_us));

        let (first, second) = split(record.request);
        if let Some((tag, step)) = self.halves.step_to(first, second) {
            self.id_tag.push(tag);
            put_signed(&mut self.id_step, step);
        } else {
            self.halves.learn(first, second);
            self.id_tag.push(0);
            self.id_whole.extend(record.request.0);
        }
    }

    /// Adds a row that is not a request.
    pub(super) fn push_other(&mut self, row: &Row<'_>) {
        let mut buffer = [0; ROW_LIMIT];
        let row = row.encode(&mut buffer).expect("a buffer of ROW_LIMIT holds any row");
        put_varint(&mut self.others, row.len() as u64);
        self.others.extend_from_slice(row);
    }

    /// Length of the body so far, in bytes.
    pub(super) fn len(&self) -> usize {
        self.sections().iter().map(|section| section.len()).sum::<usize>() + TABLE_LEN
    }

    /// The body's bytes.
    pub(super) fn to_body(&self) -> Vec<u8> {
        let sections = self.sections();
        let mut body = Vec::with_capacity(self.len());
        for section in sections {
            body.extend(u32::try_from(section.len()).expect("a body is limited to 2 MiB").to_be_bytes());
        }
        sections.iter().for_each(|section| body.extend_from_slice(section));
        body
    }

    pub(super) fn clear(&mut self) {
        self.dictionaries.iter_mut().for_each(Interner::clear);
        self.indices.iter_mut().for_each(Vec::clear);
        for column in [
            &mut self.at,
            &mut self.bytes_in,
            &mut self.bytes_out,
            &mut self.upstream,
            &mut self.own,
            &mut self.id_tag,
            &mut self.id_whole,
            &mut self.id_step,
            &mut self.others,
        ] {
            column.clear();
        }
        self.last_at = 0;
        self.halves.known.clear();
    }

    fn sections(&self) -> [&[u8]; SECTIONS] {
        let [d0, d1, d2, d3, d4] = &self.dictionaries;
        let [i0, i1, i2, i3, i4] = &self.indices;
        [
            &d0.pool,
            &d1.pool,
            &d2.pool,
            &d3.pool,
            &d4.pool,
            &self.at,
            i0,
            i1,
            i2,
            i3,
            i4,
            &self.bytes_in,
            &self.bytes_out,
            &self.upstream,
            &self.own,
            &self.id_tag,
            &self.id_whole,
            &self.id_step,
            &self.others,
        ]
    }

    fn intern(&mut self, which: usize, write: impl FnOnce(&mut Vec<u8>)) {
        self.scratch.clear();
        write(&mut self.scratch);
        let index = self.dictionaries[which].intern(&self.scratch);
        put_varint(&mut self.indices[which], index.into());
    }
}

/// Distinct byte strings back to back, found again by an open-addressed table.
#[derive(Debug, Default)]
struct Interner {
    pool: Vec<u8>,
    ends: Vec<u32>,
    /// Index + 1 of an entry, 0 where free; a power of two long, at most half full.
    slots: Vec<u32>,
    hash: RandomState,
}

impl Interner {
    fn intern(&mut self, entry: &[u8]) -> u32 {
        if self.slots.len() <= self.ends.len() * 2 {
            self.grow();
        }
        let mut at = self.home(entry);
        loop {
            match self.slots[at].checked_sub(1) {
                Some(index) if self.entry(index) == entry => return index,
                Some(_) => at = (at + 1) & (self.slots.len() - 1),
                None => break,
            }
        }
        let index = u32::try_from(self.ends.len()).expect("a file has at most ROWS_LIMIT entries");
        self.pool.extend_from_slice(entry);
        self.ends.push(u32::try_from(self.pool.len()).expect("a body is limited to 2 MiB"));
        self.slots[at] = index + 1;
        index
    }

    fn entry(&self, index: u32) -> &[u8] {
        let index = index as usize;
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        &self.pool[start..self.ends[index] as usize]
    }

    fn home(&self, entry: &[u8]) -> usize {
        // Only the low bits choose the slot, so a narrower usize loses nothing.
        self.hash.hash_one(entry) as usize & (self.slots.len() - 1)
    }

    fn grow(&mut self) {
        let len = (self.slots.len() * 2).max(16);
        self.slots.clear();
        self.slots.resize(len, 0);
        for index in 0..u32::try_from(self.ends.len()).expect("a file has at most ROWS_LIMIT entries") {
            let mut at = self.home(self.entry(index));
            while self.slots[at] != 0 {
                at = (at + 1) & (len - 1);
            }
            self.slots[at] = index + 1;
        }
    }

    fn clear(&mut self) {
        self.pool.clear();
        self.ends.clear();
        self.slots.fill(0);
    }
}

/// First halves of request ids that were seen, each with the last second half: ids that one worker
/// counts up cost a byte or two, random ones their 16.
#[derive(Debug, Clone, Default)]
struct Halves {
    known: Vec<(u64, u64)>,
}

impl Halves {
    fn step_to(&mut self, first: u64, second: u64) -> Option<(u8, i64)> {
        let position = self.known.iter().position(|(known, _)| *known == first)?;
        let tag = u8::try_from(position + 1).ok()?;
        let last = std::mem::replace(&mut self.known[position].1, second);
        Some((tag, second.wrapping_sub(last).cast_signed()))
    }

    fn step(&mut self, tag: u8, step: i64) -> Option<(u64, u64)> {
        let half = self.known.get_mut(usize::from(tag).checked_sub(1)?)?;
        half.1 = half.1.wrapping_add(step.cast_unsigned());
        Some(*half)
    }

    fn learn(&mut self, first: u64, second: u64) {
        if self.known.len() < KNOWN_HALVES {
            self.known.push((first, second));
        }
    }
}

/// The rows of a body, read one by one; strings borrow from the body.
#[derive(Debug, Clone)]
pub(super) struct Rows<'a> {
    endpoints: Vec<[&'a str; 5]>,
    callers: Vec<[&'a str; 4]>,
    principals: Vec<&'a str>,
    clients: Vec<Option<IpAddr>>,
    endings: Vec<(u16, Outcome, TimeQuality)>,
    at: Input<'a>,
    indices: [Input<'a>; DICTIONARIES],
    bytes_in: Input<'a>,
    bytes_out: Input<'a>,
    upstream: Input<'a>,
    own: Input<'a>,
    id_tag: Input<'a>,
    id_whole: Input<'a>,
    id_step: Input<'a>,
    others: Input<'a>,
    last_at: i64,
    halves: Halves,
}

impl<'a> Rows<'a> {
    /// Splits a body into its sections and reads the dictionaries.
    pub(super) fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let (table, mut rest) = body.split_at_checked(TABLE_LEN).ok_or(Malformed)?;
        let mut sections = [Input(&[]); SECTIONS];
        for (section, len) in sections.iter_mut().zip(table.as_chunks::<4>().0) {
            let len = usize::try_from(u32::from_be_bytes(*len)).map_err(|_| Malformed)?;
            let (bytes, after) = rest.split_at_checked(len).ok_or(Malformed)?;
            *section = Input(bytes);
            rest = after;
        }
        if !rest.is_empty() {
            return Err(Malformed);
        }
        let [d0, d1, d2, d3, d4, at, i0, i1, i2, i3, i4, bytes_in, bytes_out, upstream, own, tag, whole, step, others] =
            sections;
        Ok(Self {
            endpoints: d0.entries(|input| input.strings(TEXT_LIMIT))?,
            callers: d1.entries(|input| input.strings(TEXT_LIMIT))?,
            principals: d2.entries(|input| input.string(TEXT_LIMIT))?,
            clients: d3.entries(Input::client)?,
            endings: d4.entries(Input::ending)?,
            at,
            indices: [i0, i1, i2, i3, i4],
            bytes_in,
            bytes_out,
            upstream,
            own,
            id_tag: tag,
            id_whole: whole,
            id_step: step,
            others,
            last_at: 0,
            halves: Halves::default(),
        })
    }

    /// The next row, or `None` after the last, when every section must be used up.
    pub(super) fn next_row(&mut self) -> Result<Option<Row<'a>>, Malformed> {
        if !self.id_tag.0.is_empty() {
            return self.request().map(|record| Some(Row::Request(record)));
        }
        if !self.others.0.is_empty() {
            let len = usize::try_from(self.others.varint()?).map_err(|_| Malformed)?;
            return match Row::decode(self.others.take(len)?) {
                Ok(Row::Request(_)) | Err(_) => Err(Malformed),
                Ok(row) => Ok(Some(row)),
            };
        }
        let columns = [self.at, self.bytes_in, self.bytes_out, self.upstream, self.own, self.id_whole, self.id_step];
        let left = columns.iter().chain(&self.indices).any(|input| !input.0.is_empty());
        if left { Err(Malformed) } else { Ok(None) }
    }

    fn request(&mut self) -> Result<UsageRecord<'a>, Malformed> {
        let request = self.id()?;
        let [endpoint, caller, principal, client, ending] = &mut self.indices;
        let [api, version, route, method, upstream] = *pick(&self.endpoints, endpoint)?;
        let [application, plan, consumer, issuer] = *pick(&self.callers, caller)?;
        let (status, outcome, time) = *pick(&self.endings, ending)?;
        self.last_at = self.last_at.wrapping_add(self.at.signed()?);
        let upstream_us = u32::try_from(self.upstream.varint()?).map_err(|_| Malformed)?;
        let total_us = i64::from(upstream_us).checked_add(self.own.signed()?).ok_or(Malformed)?;
        Ok(UsageRecord {
            at_ms: self.last_at,
            time,
            request,
            api,
            version,
            route,
            method,
            status,
            outcome,
            application,
            plan,
            principal: pick(&self.principals, principal)?,
            bytes_in: self.bytes_in.varint()?,
            bytes_out: self.bytes_out.varint()?,
            total_us: u32::try_from(total_us).map_err(|_| Malformed)?,
            upstream_us,
            upstream,
            client: *pick(&self.clients, client)?,
            consumer,
            issuer,
        })
    }

    fn id(&mut self) -> Result<RequestId, Malformed> {
        let tag = self.id_tag.byte()?;
        if tag != 0 {
            let (first, second) = self.halves.step(tag, self.id_step.signed()?).ok_or(Malformed)?;
            return Ok(RequestId((u128::from(first) << 64 | u128::from(second)).to_be_bytes()));
        }
        let id = RequestId(self.id_whole.array()?);
        let (first, second) = split(id);
        self.halves.learn(first, second);
        Ok(id)
    }
}

fn pick<'e, T>(entries: &'e [T], index: &mut Input<'_>) -> Result<&'e T, Malformed> {
    usize::try_from(index.varint()?).ok().and_then(|index| entries.get(index)).ok_or(Malformed)
}

fn split(id: RequestId) -> (u64, u64) {
    let id = u128::from_be_bytes(id.0);
    ((id >> 64) as u64, id as u64)
}

fn quality_number(quality: TimeQuality) -> u8 {
    match quality {
        TimeQuality::Synced => 0,
        TimeQuality::Floor => 1,
        TimeQuality::Lost => 2,
    }
}

fn put_varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

fn put_signed(to: &mut Vec<u8>, value: i64) {
    put_varint(to, (value << 1 ^ value >> 63).cast_unsigned());
}

fn put_str(to: &mut Vec<u8>, text: &str) {
    put_varint(to, text.len() as u64);
    to.extend_from_slice(text.as_bytes());
}

fn put_client(to: &mut Vec<u8>, client: Option<IpAddr>) {
    match client {
        None => to.push(0),
        Some(IpAddr::V4(address)) => {
            to.push(4);
            to.extend(address.octets());
        }
        Some(IpAddr::V6(address)) => {
            to.push(16);
            to.extend(address.octets());
        }
    }
}

/// What is left of a section.
#[derive(Debug, Clone, Copy)]
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// All entries of a dictionary.
    fn entries<T>(mut self, read: impl Fn(&mut Self) -> Result<T, Malformed>) -> Result<Vec<T>, Malformed> {
        let mut entries = Vec::new();
        while !self.0.is_empty() {
            if entries.len() >= ROWS_LIMIT as usize {
                return Err(Malformed);
            }
            entries.push(read(&mut self)?);
        }
        Ok(entries)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.0.split_first().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*first)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(Malformed);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    fn signed(&mut self) -> Result<i64, Malformed> {
        let value = self.varint()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    fn string(&mut self, limit: usize) -> Result<&'a str, Malformed> {
        let len = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
        if len > limit {
            return Err(Malformed);
        }
        std::str::from_utf8(self.take(len)?).map_err(|_| Malformed)
    }

    fn strings<const N: usize>(&mut self, limit: usize) -> Result<[&'a str; N], Malformed> {
        let mut strings = [""; N];
        for text in &mut strings {
            *text = self.string(limit)?;
        }
        Ok(strings)
    }

    fn client(&mut self) -> Result<Option<IpAddr>, Malformed> {
        match self.byte()? {
            0 => Ok(None),
            4 => Ok(Some(IpAddr::from(self.array::<4>()?))),
            16 => Ok(Some(IpAddr::from(self.array::<16>()?))),
            _ => Err(Malformed),
        }
    }

    fn ending(&mut self) -> Result<(u16, Outcome, TimeQuality), Malformed> {
        let [high, low, outcome, quality] = self.array()?;
        let outcome = Outcome::from_number(outcome).ok_or(Malformed)?;
        let quality = match quality {
            0 => TimeQuality::Synced,
            1 => TimeQuality::Floor,
            2 => TimeQuality::Lost,
            _ => return Err(Malformed),
        };
        Ok((u16::from_be_bytes([high, low]), outcome, quality))
    }
}
