//! What the server holds near some files, and how far streams have come.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::str::FromStr;

use super::Error;
use super::http::Http;
use crate::ids::{Digest, hex, unhex};
use crate::spool::chain::Link;

/// Lines of one stream that are read at a time to find its next hole.
const WALK: usize = 1_000;

/// A device's stream, as columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stream {
    pub(super) device: [u8; 16],
    pub(super) stream: [u8; 8],
}

impl Stream {
    /// In SQL.
    pub(super) fn condition(&self) -> String {
        format!("device = {} AND stream = {}", fixed(&self.device), fixed(&self.stream))
    }

    fn read(device: &str, stream: &str) -> Result<Self, Error> {
        let wrong = |_| Error::Answer;
        Ok(Self { device: unhex(device).map_err(wrong)?, stream: unhex(stream).map_err(wrong)? })
    }
}

/// A constant in SQL.
pub(super) fn fixed(bytes: &[u8]) -> String {
    format!("toFixedString(unhex('{}'), {})", hex(bytes), bytes.len())
}

pub(super) fn number<T: FromStr>(field: &str) -> Result<T, Error> {
    field.parse().map_err(|_| Error::Answer)
}

pub(super) fn unhexed(field: &str) -> Result<Vec<u8>, Error> {
    let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = field.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect::<Option<Vec<_>>>();
    bytes.filter(|_| rest.is_empty()).ok_or(Error::Answer)
}

/// Claims that stand, with the time of the first of each file.
#[derive(Debug, Default)]
pub(super) struct Near(BTreeMap<Stream, Vec<(Link, i64)>>);

impl Near {
    /// All that touch or overlap one of the files, without those strictly inside of it.
    pub(super) fn read(http: &mut Http, files: &[(Stream, Link)]) -> Result<Self, Error> {
        let mut near = Self::default();
        if files.is_empty() {
            return Ok(near);
        }
        let mut places = String::new();
        for (stream, Link { first, seq, .. }) in files {
            let (before, after) = (first.saturating_sub(1), seq.saturating_add(1));
            let or = if places.is_empty() { "" } else { " OR " };
            let _ = write!(
                places,
                "{or}({} AND ((kind = 1 AND seq IN ({before}, {first}, {seq}, {after})) OR (kind = 2 AND seq >= {before} \
                 AND first_seq <= {after} AND NOT (first_seq > {first} AND seq < {seq}))))",
                stream.condition()
            );
        }
        let answer = http.select(&format!(
            "SELECT lower(hex(device)), lower(hex(stream)), seq, first_seq, kind, lower(hex(digest)), min(r),
                    lower(hex(any(p))), lower(hex(any(c)))
             FROM (SELECT device, stream, seq, first_seq, kind, digest, claim, min(received_ms) AS r,
                          any(previous) AS p, any(chain_digest) AS c
                   FROM claims WHERE {places}
                   GROUP BY device, stream, seq, first_seq, kind, digest, claim HAVING max(withdrawn) = 0)
             GROUP BY device, stream, seq, first_seq, kind, digest FORMAT TabSeparated"
        ))?;
        for line in std::str::from_utf8(&answer).map_err(|_| Error::Answer)?.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            let [device, stream, seq, first, kind, digest, received_ms, previous, chain_digest] = fields[..] else {
                return Err(Error::Answer);
            };
            let digest_of = |field: &str| unhex(field).map(Digest).map_err(|_| Error::Answer);
            let link = Link {
                first: number(first)?,
                seq: number(seq)?,
                is_tombstone: kind == "2",
                digest: digest_of(digest)?,
                previous: if previous.is_empty() { None } else { Some(digest_of(previous)?) },
                chain_digest: digest_of(chain_digest)?,
            };
            near.add(Stream::read(device, stream)?, link, number(received_ms)?);
        }
        Ok(near)
    }

    pub(super) fn add(&mut self, stream: Stream, link: Link, received_ms: i64) {
        self.0.entry(stream).or_default().push((link, received_ms));
    }

    /// Those that touch or overlap this one.
    pub(super) fn of(&self, stream: Stream, link: &Link) -> impl Iterator<Item = &Link> {
        let (before, after) = (link.first.saturating_sub(1), link.seq.saturating_add(1));
        let held = self.0.get(&stream).into_iter().flatten().map(|(held, _)| held);
        held.filter(move |held| held.seq >= before && held.first <= after)
    }

    pub(super) fn received_ms(&self, stream: Stream, digest: &Digest) -> Option<i64> {
        let mut held = self.0.get(&stream)?.iter();
        held.find(|(held, _)| held.digest == *digest).map(|(_, received_ms)| *received_ms)
    }
}

/// How far each stream is known to have come without a hole.
pub(super) fn contiguous(
    http: &mut Http,
    streams: impl Iterator<Item = Stream>,
) -> Result<BTreeMap<Stream, u64>, Error> {
    let places: Vec<String> = streams.map(|stream| format!("({})", stream.condition())).collect();
    if places.is_empty() {
        return Ok(BTreeMap::new());
    }
    let answer = http.select(&format!(
        "SELECT lower(hex(device)), lower(hex(stream)), max(value) FROM marks WHERE mark = 1 AND ({})
         GROUP BY device, stream FORMAT TabSeparated",
        places.join(" OR ")
    ))?;
    let lines = std::str::from_utf8(&answer).map_err(|_| Error::Answer)?.lines().map(|line| {
        let fields: Vec<&str> = line.split('\t').collect();
        let [device, stream, value] = fields[..] else { return Err(Error::Answer) };
        Ok((Stream::read(device, stream)?, number(value)?))
    });
    lines.collect()
}

/// How far each has come now: on from `before`, over everything that begins before the next hole.
pub(super) fn walk(
    http: &mut Http,
    streams: impl Iterator<Item = Stream>,
    mut before: BTreeMap<Stream, u64>,
) -> Result<BTreeMap<Stream, u64>, Error> {
    let mut left: Vec<Stream> = streams.collect();
    while !left.is_empty() {
        let places: Vec<String> = left
            .iter()
            .map(|stream| {
                let so_far = before.get(stream).copied().unwrap_or(0);
                let end = so_far.saturating_add(WALK as u64);
                format!("({} AND seq > {so_far} AND first_seq <= {end})", stream.condition())
            })
            .collect();
        let answer = http.select(&format!(
            "SELECT lower(hex(device)), lower(hex(stream)), first_seq, max(seq) FROM (
                 SELECT device, stream, first_seq, seq, claim FROM claims WHERE {}
                 GROUP BY device, stream, seq, first_seq, kind, digest, claim HAVING max(withdrawn) = 0)
             GROUP BY device, stream, first_seq ORDER BY device, stream, first_seq LIMIT {WALK} BY device, stream
             FORMAT TabSeparated",
            places.join(" OR ")
        ))?;
        let mut walked: BTreeMap<Stream, u64> = BTreeMap::new();
        for line in std::str::from_utf8(&answer).map_err(|_| Error::Answer)?.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            let [device, stream, first, seq] = fields[..] else { return Err(Error::Answer) };
            let stream = Stream::read(device, stream)?;
            let so_far = before.entry(stream).or_default();
            let (first, seq) = (number::<u64>(first)?, number::<u64>(seq)?);
            if first <= so_far.saturating_add(1) && seq > *so_far {
                *walked.entry(stream).or_default() += seq - *so_far;
                *so_far = seq;
            }
        }
        // Where as much as was asked for was walked, there may be more.
        left.retain(|stream| walked.get(stream).is_some_and(|steps| *steps >= WALK as u64));
    }
    Ok(before)
}
