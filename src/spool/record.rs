//! One line of usage: what became of a request, or why a request is not told one by one.
//!
//! A record borrows its strings, so that writing one allocates nothing. Its wire form is postcard;
//! the open log writes it row by row, and [`super::segment`] turns many of them into columns.
//! Strings over their limit are clipped where they are written and refused where they are read, so
//! whatever was written can be read back. Called by the gateway's meter, the spool and the hub.
//!
//! ```text
//! row = postcard: u8 kind (0 request, 1 roll-up, 2 gap) | the fields in the order of the type
//! outcome, gap reason: one byte, the stable number of their enum
//! ```

mod client;
mod outcome;

pub use client::{Client, PSEUDONYM_LEN, Pseudonym};
pub use outcome::{GapReason, Outcome};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::ids::RequestId;
use crate::units::TimeQuality;

/// Longest name in a record (API, version, application, plan, upstream, consumer), in bytes.
pub const NAME_LIMIT: usize = 128;
/// Longest HTTP method in a record, in bytes.
pub const METHOD_LIMIT: usize = 24;
/// Longest route template, principal or issuer in a record, in bytes.
pub const TEXT_LIMIT: usize = 256;
/// Longest row in its wire form, in bytes: a buffer of this size holds any row.
pub const ROW_LIMIT: usize = 2048;

/// Why a row could not be written or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The buffer is smaller than [`ROW_LIMIT`] and the row did not fit: a defect of Tidegate.
    #[error("the buffer is too small for the row")]
    NoRoom,
    /// The bytes are not a row: cut off, altered, or written by a newer version.
    #[error("not a usage row")]
    Malformed,
    /// Bytes follow the row: altered.
    #[error("bytes follow the row")]
    TrailingBytes,
}

/// One row of the open log or of a usage file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Row<'a> {
    /// One request.
    #[serde(borrow)]
    Request(UsageRecord<'a>),
    /// Requests that are told as a sum, because full records would cost too much.
    RollUp(RollUp<'a>),
    /// Usage that is lost, said aloud.
    Gap(Gap),
}

/// One request, refused or served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRecord<'a> {
    /// When the request's head was complete, in milliseconds since the Unix epoch, by the device's clock.
    pub at_ms: i64,
    /// How much that clock was worth.
    pub time: TimeQuality,
    /// Correlates it with logs and with the upstream.
    pub request: RequestId,
    /// The API; empty if no route matched.
    #[serde(borrow, serialize_with = "write_name", deserialize_with = "read_name")]
    pub api: &'a str,
    /// The API's version.
    #[serde(serialize_with = "write_name", deserialize_with = "read_name")]
    pub version: &'a str,
    /// The route's template; empty if none matched.
    #[serde(serialize_with = "write_text", deserialize_with = "read_text")]
    pub route: &'a str,
    /// The HTTP method.
    #[serde(serialize_with = "write_method", deserialize_with = "read_method")]
    pub method: &'a str,
    /// The status that was sent downstream.
    pub status: u16,
    /// What became of it.
    pub outcome: Outcome,
    /// The client application; empty if unknown.
    #[serde(serialize_with = "write_name", deserialize_with = "read_name")]
    pub application: &'a str,
    /// The plan that its subscription has; empty if unknown.
    #[serde(serialize_with = "write_name", deserialize_with = "read_name")]
    pub plan: &'a str,
    /// Who it was: the token's `sub`, or its [`Pseudonym`]'s text; empty if no token was accepted, or it is not kept.
    #[serde(serialize_with = "write_text", deserialize_with = "read_text")]
    pub principal: &'a str,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// From the request's head to the last byte handed over, in microseconds; `u32::MAX` where longer.
    pub total_us: u32,
    /// The part of it spent waiting for the upstream, in microseconds.
    pub upstream_us: u32,
    /// The endpoint that answered; empty if none was asked.
    #[serde(serialize_with = "write_name", deserialize_with = "read_name")]
    pub upstream: &'a str,
    /// The downstream's address, as much of it as is kept.
    pub client: Client,
    /// Who is billed; empty if unknown.
    #[serde(serialize_with = "write_name", deserialize_with = "read_name")]
    pub consumer: &'a str,
    /// Who signed the token; empty if none was accepted.
    #[serde(serialize_with = "write_text", deserialize_with = "read_text")]
    pub issuer: &'a str,
}

/// A sum of requests with the same outcome, in place of their records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollUp<'a> {
    /// The first of them, in milliseconds since the Unix epoch.
    pub from_ms: i64,
    /// The last of them.
    pub to_ms: i64,
    /// What became of all of them.
    pub outcome: Outcome,
    /// How many.
    pub count: u64,
    /// Bytes of their bodies, together.
    pub bytes_in: u64,
    /// Bytes of the answers' bodies, together.
    pub bytes_out: u64,
    /// The API, where one was known.
    #[serde(borrow, serialize_with = "write_name", deserialize_with = "read_name")]
    pub api: &'a str,
    /// The application, where one was known.
    #[serde(serialize_with = "write_name", deserialize_with = "read_name")]
    pub application: &'a str,
}

/// Lost usage: an exact count, or an interval in which nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Why it is lost.
    pub reason: GapReason,
    /// Nothing before this moment is lost, in milliseconds since the Unix epoch.
    pub from_ms: i64,
    /// Nothing after this moment is lost.
    pub to_ms: i64,
    /// How many records are lost; `None` where nobody can know.
    pub count: Option<u64>,
}

impl<'a> Row<'a> {
    /// Writes the row into `buffer` and returns the part that it took. [`ROW_LIMIT`] bytes always suffice.
    pub fn encode<'b>(&self, buffer: &'b mut [u8]) -> Result<&'b [u8], Error> {
        postcard::to_slice(self, buffer).map(|row| &*row).map_err(|_| Error::NoRoom)
    }

    /// Reads a row that fills `bytes` exactly; its strings borrow from `bytes`.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Error> {
        let (row, rest) = postcard::take_from_bytes(bytes).map_err(|_| Error::Malformed)?;
        if rest.is_empty() { Ok(row) } else { Err(Error::TrailingBytes) }
    }
}

/// As much of `text` as fits `limit` bytes without breaking a character.
pub(super) fn clip(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

macro_rules! limited {
    ($($write:ident $read:ident $limit:ident),*) => {$(
        fn $write<S: Serializer>(text: &str, to: S) -> Result<S::Ok, S::Error> {
            to.serialize_str(clip(text, $limit))
        }

        fn $read<'de, D: Deserializer<'de>>(from: D) -> Result<&'de str, D::Error> {
            let text = <&'de str>::deserialize(from)?;
            if text.len() <= $limit { Ok(text) } else { Err(D::Error::custom("over its limit")) }
        }
    )*};
}

limited!(write_name read_name NAME_LIMIT, write_method read_method METHOD_LIMIT, write_text read_text TEXT_LIMIT);

/// A record for tests to vary.
#[cfg(test)]
pub(crate) const SAMPLE: UsageRecord<'static> = UsageRecord {
    at_ms: 1_700_000_000_000,
    time: TimeQuality::Synced,
    request: RequestId([9; 16]),
    api: "petstore",
    version: "1.0",
    route: "/pets",
    method: "GET",
    status: 200,
    outcome: Outcome::Admitted,
    application: "till",
    plan: "gold",
    principal: "",
    bytes_in: 0,
    bytes_out: 512,
    total_us: 900,
    upstream_us: 800,
    upstream: "127.0.0.1:9000",
    client: Client::Absent,
    consumer: "shop",
    issuer: "https://idp.example",
};

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn a_row_reads_back_and_nothing_shorter_or_longer_does() {
        let gap = Gap { reason: GapReason::UncleanStop, from_ms: 1, to_ms: 2, count: None };
        let sum = RollUp {
            from_ms: 1,
            to_ms: 2,
            outcome: Outcome::TokenMissing,
            count: 3,
            bytes_in: 4,
            bytes_out: 5,
            api: "a",
            application: "",
        };
        let record = |client| Row::Request(UsageRecord { at_ms: -1, time: TimeQuality::Floor, client, ..SAMPLE });
        let whole = record(Client::Whole(IpAddr::from([127, 0, 0, 1])));
        let truncated = [Client::Network4([192, 0, 2]), Client::Network6([0x20, 1, 0xd, 0xb8, 0, 1])].map(record);
        let hashed = record(Client::Hashed(Pseudonym([7; 10])));
        let [four, six] = truncated;
        for row in [record(Client::Absent), whole, four, six, hashed, Row::RollUp(sum), Row::Gap(gap)] {
            let mut buffer = [0; ROW_LIMIT];
            let bytes = row.encode(&mut buffer).expect("a row fits its limit").to_vec();
            assert_eq!(Row::decode(&bytes), Ok(row));
            for end in 0..bytes.len() {
                assert!(Row::decode(&bytes[..end]).is_err(), "cut at {end}");
            }
            let longer = [&bytes[..], &[0]].concat();
            assert_eq!(Row::decode(&longer), Err(Error::TrailingBytes));
        }
    }

    #[test]
    fn a_clients_form_is_what_open_logs_of_before_have() {
        // Before there was anything but whole addresses, the field was an `Option<IpAddr>`.
        for address in [None, Some(IpAddr::from([192, 0, 2, 7])), Some(IpAddr::from([9; 16]))] {
            let now = address.map_or(Client::Absent, Client::Whole);
            assert_eq!(postcard::to_allocvec(&now), postcard::to_allocvec(&address));
        }
    }

    #[test]
    fn the_longest_strings_are_clipped_between_characters_and_still_fit_the_limit() {
        let long = "ü".repeat(1000);
        let longest = UsageRecord {
            at_ms: i64::MIN,
            api: &long,
            version: &long,
            route: &long,
            method: &long,
            status: u16::MAX,
            application: &long,
            plan: &long,
            principal: &long,
            bytes_in: u64::MAX,
            bytes_out: u64::MAX,
            total_us: u32::MAX,
            upstream_us: u32::MAX,
            upstream: &long,
            client: Client::Whole(IpAddr::from([255; 16])),
            consumer: &long,
            issuer: &format!("x{long}"),
            ..SAMPLE
        };
        let mut buffer = [0; ROW_LIMIT];
        let bytes = Row::Request(longest).encode(&mut buffer).expect("a row fits its limit").to_vec();
        let Ok(Row::Request(read)) = Row::decode(&bytes) else { panic!("it does not read back") };
        assert_eq!((read.api, read.issuer.len()), (&*"ü".repeat(64), TEXT_LIMIT - 1));
    }

    #[test]
    fn a_string_over_its_limit_is_refused() {
        let long = "x".repeat(NAME_LIMIT + 1);
        let mut bytes = vec![1];
        bytes.extend(postcard::to_allocvec(&(1i64, 2i64, 0u8, 1u64, 0u64, 0u64, long.as_str(), "")).expect("it fits"));
        assert_eq!(Row::decode(&bytes), Err(Error::Malformed));
    }

    #[test]
    fn numbers_and_names_are_closed_and_unique() {
        for outcome in Outcome::ALL {
            assert_eq!(Outcome::from_number(outcome.number()), Some(*outcome));
            assert_eq!(Outcome::from_name(outcome.name()), Some(*outcome));
            assert_eq!(outcome.name(), format!("{outcome:?}"));
        }
        assert_eq!(Outcome::from_number(255), None);
        assert_eq!(Outcome::from_name("admitted"), None);
    }
}
