//! ClickHouse's `RowBinary`: what the hub inserts.
//!
//! ```text
//! integers        little-endian, of their width
//! FixedString(n)  n bytes
//! String          varint length | bytes
//! Nullable        u8: 1 null, 0 the value follows
//! ```

use super::super::{Incoming, int};
use crate::spool::chain::Link;
use crate::spool::record::{Gap, RollUp, Row};
use crate::spool::segment::{Header, Verified};

pub(super) const CLAIM_COLUMNS: &str = "device,stream,seq,first_seq,kind,digest,claim,previous,chain_digest,policy,\
    requests,others,first_ms,last_ms,received_ms,bytes,withdrawn";
pub(super) const REQUEST_COLUMNS: &str = "device,stream,seq,first_seq,kind,digest,row,at_ms,request,api,version,route,\
    method,upstream,application,plan,consumer,issuer,principal,client,status,outcome,time,bytes_in,bytes_out,total_us,\
    upstream_us";
pub(super) const ROLL_UP_COLUMNS: &str = "device,stream,seq,first_seq,kind,digest,row,from_ms,to_ms,outcome,count,\
    bytes_in,bytes_out,api,application";
pub(super) const GAP_COLUMNS: &str = "device,stream,seq,first_seq,kind,digest,row,reason,from_ms,to_ms,count";

/// Rows in the making.
#[derive(Debug, Default)]
pub(super) struct Rows(pub(super) Vec<u8>);

impl Rows {
    pub(super) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn text(&mut self, text: impl AsRef<[u8]>) -> &mut Self {
        let text = text.as_ref();
        let mut len = text.len();
        while len >= 0x80 {
            self.0.push(len as u8 | 0x80);
            len >>= 7;
        }
        self.0.push(len as u8);
        self.raw(text)
    }

    pub(super) fn u64(&mut self, number: u64) -> &mut Self {
        self.raw(&number.to_le_bytes())
    }

    pub(super) fn u32(&mut self, number: u32) -> &mut Self {
        self.raw(&number.to_le_bytes())
    }

    pub(super) fn i64(&mut self, number: i64) -> &mut Self {
        self.raw(&number.to_le_bytes())
    }

    pub(super) fn is_null(&mut self, is_null: bool) -> &mut Self {
        self.raw(&[u8::from(is_null)])
    }

    /// The columns that every row of a file begins with.
    pub(super) fn key(&mut self, header: &Header, link: &Link) -> &mut Self {
        self.raw(&header.device().0).raw(&header.stream.0.to_be_bytes()).u64(link.seq).u64(link.first);
        self.raw(&[if link.is_tombstone { 2 } else { 1 }]).raw(&link.digest.0)
    }

    /// A line of `claims`.
    pub(super) fn claim(&mut self, incoming: &Incoming<'_>, link: &Link, claim: u64, now_ms: i64, withdrawn: bool) {
        let header = incoming.file.header();
        self.key(header, link)
            .u64(claim)
            .text(link.previous.map(|digest| digest.0).as_ref().map_or(&[][..], |raw| raw));
        self.raw(&link.chain_digest.0).text(header.policy.map(|digest| digest.0).as_ref().map_or(&[][..], |raw| raw));
        self.u32(header.requests).u32(header.others).i64(header.first_ms).i64(header.last_ms).i64(now_ms);
        self.u32(u32::try_from(incoming.bytes.len()).unwrap_or(u32::MAX)).raw(&[u8::from(withdrawn)]);
    }
}

/// The requests of a file, given to `full` whenever they are `limit` bytes or more, and at the end.
pub(super) fn requests<E>(
    file: &Verified,
    link: &Link,
    rows: &mut Rows,
    limit: usize,
    mut full: impl FnMut(Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let mut key = Rows::default();
    key.key(file.header(), link);
    let (dictionaries, requests) = file.indexed();
    // What repeats is encoded once and copied.
    let encoded = |write: &dyn Fn(&mut Rows)| {
        let mut entry = Rows::default();
        write(&mut entry);
        entry.0
    };
    let endpoints: Vec<_> = dictionaries.endpoints.iter().map(|entry| encoded(&|to| texts(to, entry))).collect();
    let callers: Vec<_> = dictionaries.callers.iter().map(|entry| encoded(&|to| texts(to, entry))).collect();
    let clients = dictionaries.clients.iter().map(|client| {
        encoded(&|to| {
            let client = client.to_text();
            to.is_null(client.is_none());
            if let Some(client) = client {
                to.text(client);
            }
        })
    });
    let clients: Vec<_> = clients.collect();
    let endings = dictionaries.endings.iter().map(|(status, outcome, time)| {
        encoded(&|to| {
            to.raw(&status.to_le_bytes()).text(outcome.name()).text(time.name());
        })
    });
    let endings: Vec<_> = endings.collect();
    for (row, number) in requests.zip(0..) {
        rows.raw(&key.0).u32(number).i64(row.at_ms).raw(&row.request.0);
        rows.raw(&endpoints[row.endpoint]).raw(&callers[row.caller]).text(dictionaries.principals[row.principal]);
        rows.raw(&clients[row.client]).raw(&endings[row.ending]);
        // As SQLite has them, which has no more bits.
        rows.i64(int(row.bytes_in)).i64(int(row.bytes_out)).u32(row.total_us).u32(row.upstream_us);
        if rows.0.len() >= limit {
            full(std::mem::take(&mut rows.0))?;
        }
    }
    Ok(())
}

fn texts(to: &mut Rows, texts: &[&str]) {
    for text in texts {
        to.text(text);
    }
}

/// The other rows of a file.
pub(super) fn others(file: &Verified, link: &Link, roll_ups: &mut Rows, gaps: &mut Rows) {
    for (row, number) in file.others().zip(file.header().requests..) {
        match row {
            Row::Request(_) => {}
            Row::RollUp(RollUp { from_ms, to_ms, outcome, count, bytes_in, bytes_out, api, application }) => {
                roll_ups.key(file.header(), link).u32(number).i64(from_ms).i64(to_ms).text(outcome.name());
                roll_ups.i64(int(count)).i64(int(bytes_in)).i64(int(bytes_out)).text(api).text(application);
            }
            Row::Gap(Gap { reason, from_ms, to_ms, count }) => {
                gaps.key(file.header(), link).u32(number).text(reason.name()).i64(from_ms).i64(to_ms);
                gaps.is_null(count.is_none());
                if let Some(count) = count {
                    gaps.i64(int(count));
                }
            }
        }
    }
}
