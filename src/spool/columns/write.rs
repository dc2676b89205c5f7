//! Rows to columns.

use std::net::IpAddr;

use super::intern::Interner;
use super::{DICTIONARIES, Halves, SECTIONS, TABLE_LEN, client, split};
use crate::spool::record::{Client, METHOD_LIMIT, NAME_LIMIT, ROW_LIMIT, Row, TEXT_LIMIT, UsageRecord, clip};
use crate::units::TimeQuality;

/// Columns that grow row by row. Keeps its buffers when cleared.
#[derive(Debug, Default)]
pub(in crate::spool) struct Columns {
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
    pub(in crate::spool) fn push(&mut self, record: &UsageRecord<'_>) {
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
    pub(in crate::spool) fn push_other(&mut self, row: &Row<'_>) {
        let mut buffer = [0; ROW_LIMIT];
        let row = row.encode(&mut buffer).expect("a buffer of ROW_LIMIT holds any row");
        put_varint(&mut self.others, row.len() as u64);
        self.others.extend_from_slice(row);
    }

    /// Length of the body so far, in bytes.
    pub(in crate::spool) fn len(&self) -> usize {
        self.sections().iter().map(|section| section.len()).sum::<usize>() + TABLE_LEN
    }

    /// The body's bytes.
    pub(in crate::spool) fn to_body(&self) -> Vec<u8> {
        let sections = self.sections();
        let mut body = Vec::with_capacity(self.len());
        for section in sections {
            body.extend(u32::try_from(section.len()).expect("a body is limited to 2 MiB").to_be_bytes());
        }
        sections.iter().for_each(|section| body.extend_from_slice(section));
        body
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

fn put_client(to: &mut Vec<u8>, client: Client) {
    let mut put = |form: u8, bytes: &[u8]| {
        to.push(form);
        to.extend_from_slice(bytes);
    };
    match client {
        Client::Absent => put(client::ABSENT, &[]),
        Client::Whole(IpAddr::V4(address)) => put(client::WHOLE_4, &address.octets()),
        Client::Whole(IpAddr::V6(address)) => put(client::WHOLE_6, &address.octets()),
        Client::Network4(network) => put(client::NETWORK_4, &network),
        Client::Network6(network) => put(client::NETWORK_6, &network),
        Client::Hashed(pseudonym) => put(client::HASHED, &pseudonym.0),
    }
}
