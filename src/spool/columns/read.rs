//! Columns to rows; every byte may be hostile.

use std::net::IpAddr;

use super::{DICTIONARIES, Halves, Malformed, SECTIONS, TABLE_LEN, client, split};
use crate::ids::RequestId;
use crate::spool::record::{Client, METHOD_LIMIT, NAME_LIMIT, Outcome, Pseudonym, Row, TEXT_LIMIT, UsageRecord};
use crate::spool::segment::ROWS_LIMIT;
use crate::units::TimeQuality;

/// Of each text of an endpoint and of a caller, in bytes, in the order of [`Dictionaries`].
const ENDPOINT_LIMITS: [usize; 5] = [NAME_LIMIT, NAME_LIMIT, TEXT_LIMIT, METHOD_LIMIT, NAME_LIMIT];
const CALLER_LIMITS: [usize; 4] = [NAME_LIMIT, NAME_LIMIT, NAME_LIMIT, TEXT_LIMIT];

/// What rows have in common, each entry once.
#[derive(Debug, Clone, Default)]
pub struct Dictionaries<'a> {
    /// API, version, route, method, upstream.
    pub endpoints: Vec<[&'a str; 5]>,
    /// Application, plan, consumer, issuer.
    pub callers: Vec<[&'a str; 4]>,
    /// Principals.
    pub principals: Vec<&'a str>,
    /// Clients.
    pub clients: Vec<Client>,
    /// Status, outcome, quality of the time.
    pub endings: Vec<(u16, Outcome, TimeQuality)>,
}

/// A request whose common parts are told by their place in the [`Dictionaries`] of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in `UsageRecord`, and in the dictionaries of the same name")]
pub struct Indexed {
    pub at_ms: i64,
    pub request: RequestId,
    pub endpoint: usize,
    pub caller: usize,
    pub principal: usize,
    pub client: usize,
    pub ending: usize,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub total_us: u32,
    pub upstream_us: u32,
}

/// The rows of a body, read one by one; strings borrow from the body.
#[derive(Debug, Clone)]
pub(in crate::spool) struct Rows<'a> {
    dictionaries: Dictionaries<'a>,
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
    pub(in crate::spool) fn read(body: &'a [u8]) -> Result<Self, Malformed> {
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
        let dictionaries = Dictionaries {
            endpoints: d0.entries(|input| input.strings(ENDPOINT_LIMITS))?,
            callers: d1.entries(|input| input.strings(CALLER_LIMITS))?,
            principals: d2.entries(|input| input.string(TEXT_LIMIT))?,
            clients: d3.entries(Input::client)?,
            endings: d4.entries(Input::ending)?,
        };
        Ok(Self {
            dictionaries,
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
    pub(in crate::spool) fn next_row(&mut self) -> Result<Option<Row<'a>>, Malformed> {
        if !self.id_tag.0.is_empty() {
            return self.request().map(|record| Some(Row::Request(record)));
        }
        if let Some(row) = self.next_other()? {
            return Ok(Some(row));
        }
        let columns = [self.at, self.bytes_in, self.bytes_out, self.upstream, self.own, self.id_whole, self.id_step];
        let left = columns.iter().chain(&self.indices).any(|input| !input.0.is_empty());
        if left { Err(Malformed) } else { Ok(None) }
    }

    /// The next row that is not a request, or `None` after the last.
    pub(in crate::spool) fn next_other(&mut self) -> Result<Option<Row<'a>>, Malformed> {
        if self.others.0.is_empty() {
            return Ok(None);
        }
        let len = usize::try_from(self.others.varint()?).map_err(|_| Malformed)?;
        match Row::decode(self.others.take(len)?) {
            Ok(Row::Request(_)) | Err(_) => Err(Malformed),
            Ok(row) => Ok(Some(row)),
        }
    }

    /// What the requests have in common.
    pub(in crate::spool) fn dictionaries(&self) -> &Dictionaries<'a> {
        &self.dictionaries
    }

    /// The next request, or `None` after the last.
    pub(in crate::spool) fn next_indexed(&mut self) -> Result<Option<Indexed>, Malformed> {
        if self.id_tag.0.is_empty() { Ok(None) } else { self.indexed().map(Some) }
    }

    fn indexed(&mut self) -> Result<Indexed, Malformed> {
        let request = self.id()?;
        let [endpoint, caller, principal, client, ending] = &mut self.indices;
        let Dictionaries { endpoints, callers, principals, clients, endings } = &self.dictionaries;
        let (endpoint, caller) = (pick(endpoints, endpoint)?, pick(callers, caller)?);
        let (principal, client) = (pick(principals, principal)?, pick(clients, client)?);
        let ending = pick(endings, ending)?;
        self.last_at = self.last_at.wrapping_add(self.at.signed()?);
        let upstream_us = u32::try_from(self.upstream.varint()?).map_err(|_| Malformed)?;
        let total_us = i64::from(upstream_us).checked_add(self.own.signed()?).ok_or(Malformed)?;
        Ok(Indexed {
            at_ms: self.last_at,
            request,
            endpoint,
            caller,
            principal,
            client,
            ending,
            bytes_in: self.bytes_in.varint()?,
            bytes_out: self.bytes_out.varint()?,
            total_us: u32::try_from(total_us).map_err(|_| Malformed)?,
            upstream_us,
        })
    }

    fn request(&mut self) -> Result<UsageRecord<'a>, Malformed> {
        let row = self.indexed()?;
        self.dictionaries.resolve(&row).ok_or(Malformed)
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

impl<'a> Dictionaries<'a> {
    /// The request as a record; `None` if it is of another file.
    #[must_use]
    pub fn resolve(&self, row: &Indexed) -> Option<UsageRecord<'a>> {
        let [api, version, route, method, upstream] = *self.endpoints.get(row.endpoint)?;
        let [application, plan, consumer, issuer] = *self.callers.get(row.caller)?;
        let (status, outcome, time) = *self.endings.get(row.ending)?;
        let Indexed { at_ms, request, bytes_in, bytes_out, total_us, upstream_us, .. } = *row;
        Some(UsageRecord {
            at_ms,
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
            principal: self.principals.get(row.principal)?,
            bytes_in,
            bytes_out,
            total_us,
            upstream_us,
            upstream,
            client: *self.clients.get(row.client)?,
            consumer,
            issuer,
        })
    }
}

/// A place that `entries` has.
fn pick<T>(entries: &[T], index: &mut Input<'_>) -> Result<usize, Malformed> {
    usize::try_from(index.varint()?).ok().filter(|index| *index < entries.len()).ok_or(Malformed)
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

    fn strings<const N: usize>(&mut self, limits: [usize; N]) -> Result<[&'a str; N], Malformed> {
        let mut strings = [""; N];
        for (text, limit) in strings.iter_mut().zip(limits) {
            *text = self.string(limit)?;
        }
        Ok(strings)
    }

    fn client(&mut self) -> Result<Client, Malformed> {
        Ok(match self.byte()? {
            client::ABSENT => Client::Absent,
            client::WHOLE_4 => Client::Whole(IpAddr::from(self.array::<4>()?)),
            client::WHOLE_6 => Client::Whole(IpAddr::from(self.array::<16>()?)),
            client::NETWORK_4 => Client::Network4(self.array()?),
            client::NETWORK_6 => Client::Network6(self.array()?),
            client::HASHED => Client::Hashed(Pseudonym(self.array()?)),
            _ => return Err(Malformed),
        })
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
