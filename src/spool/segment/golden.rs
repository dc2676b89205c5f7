//! The golden files of format 1: every later version must read them, and read this in them.
//!
//! `cargo test --lib writes_the_golden_file -- --ignored` made each, once. The device's key is the seed 01…01.

use std::net::IpAddr;
use std::path::PathBuf;

use super::super::record::{Client, Gap, GapReason, Outcome, PSEUDONYM_LEN, Pseudonym, RollUp, SAMPLE, UsageRecord};
use super::*;
use crate::ids::RequestId;
use crate::units::TimeQuality;

const SEED: [u8; 32] = [1; 32];
const PLACE: Place = Place {
    stream: StreamId(0x0123_4567_89ab_cdef),
    seq: 42,
    previous: Some(Digest([0xa1; 32])),
    policy: Some(Digest([0xb2; 32])),
};

const STANDS_FOR: StandsFor = StandsFor { first: 40, digest: Digest([0xd4; 32]) };

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/usage")).join(name)
}

/// Every kind of row, every form of every column but a client's.
fn rows() -> Vec<Row<'static>> {
    let qualities = [TimeQuality::Synced, TimeQuality::Floor, TimeQuality::Lost];
    let whole = |address: &str| Client::Whole(address.parse().expect("an address"));
    let clients = [Client::Absent, whole("192.0.2.7"), whole("2001:db8::7")];
    let mut rows = Vec::new();
    // What came to the list after the golden file was made is not in it.
    let outcomes = Outcome::ALL.iter().filter(|outcome| **outcome != Outcome::RevocationsStale);
    for (n, outcome) in outcomes.enumerate() {
        let small = u32::try_from(n).expect("few outcomes");
        let mut id = [0xc3; 16];
        id[7] = (n % 3) as u8;
        id[15] = n as u8;
        let served = *outcome == Outcome::Admitted;
        rows.push(Row::Request(UsageRecord {
            at_ms: 1_764_000_000_000 + i64::from(small) * 250 - if n == 5 { 10_000 } else { 0 },
            time: qualities[n % 3],
            request: RequestId(id),
            api: if served { "petstore" } else { "" },
            version: if served { "1.0.0" } else { "" },
            route: if served { "/pets/{petId}" } else { "" },
            method: if n % 2 == 0 { "GET" } else { "POST" },
            status: if served { 200 } else { 400 + (n % 100) as u16 },
            outcome: *outcome,
            application: "till-7",
            plan: "gold",
            principal: if n % 4 == 0 { "ägypten@example" } else { "" },
            bytes_in: u64::from(small) * 1_000_003,
            bytes_out: if n == 9 { u64::MAX } else { 512 },
            total_us: if n == 7 { u32::MAX } else { 1_500 + small },
            upstream_us: if served { 1_200 } else { small * 3_000 },
            upstream: if served { "127.0.0.1:9000" } else { "" },
            client: clients[n % 3],
            consumer: "shop",
            issuer: "https://idp.example",
        }));
    }
    rows.push(Row::RollUp(RollUp {
        from_ms: 1_764_000_000_000,
        to_ms: 1_764_000_059_999,
        outcome: Outcome::TokenMissing,
        count: 12_345,
        bytes_in: 1,
        bytes_out: 2,
        api: "petstore",
        application: "",
    }));
    for (reason, count) in GapReason::ALL.iter().zip([None, Some(0), Some(7), Some(u64::MAX), None]) {
        rows.push(Row::Gap(Gap { reason: *reason, from_ms: -1, to_ms: 1_764_000_000_000, count }));
    }
    rows
}

/// What a tombstone tells: sums and gaps, and no request.
fn sums() -> Vec<Row<'static>> {
    rows().into_iter().filter(|row| !matches!(row, Row::Request(_))).collect()
}

/// Every form of a client, and of a principal beside it: what is kept by policy came after the first golden file.
fn kept<'a>(room: &'a mut [u8; PSEUDONYM_LEN]) -> Vec<Row<'a>> {
    let pseudonym = Pseudonym([0x0f, 1, 2, 3, 4, 5, 6, 7, 8, 0xff]);
    let hashed: &'a str = pseudonym.write(room);
    let clients = [
        (Client::Absent, ""),
        (Client::Whole(IpAddr::from([192, 0, 2, 7])), "ägypten@example"),
        (Client::Network4([192, 0, 2]), hashed),
        (Client::Network6([0x20, 0x01, 0x0d, 0xb8, 0, 1]), hashed),
        (Client::Hashed(pseudonym), hashed),
        (Client::Network4([192, 0, 2]), ""),
    ];
    clients.map(|(client, principal)| Row::Request(UsageRecord { client, principal, ..SAMPLE })).into()
}

fn told(file: &Verified) -> String {
    let told = |row: Row<'_>| {
        let mut told = serde_json::to_value(row).expect("it is JSON");
        if let Row::Request(record) = row {
            told["Request"]["client"] = record.client.to_text().into();
        }
        told
    };
    let rows: Vec<_> = file.rows().map(told).collect();
    let mut told = serde_json::json!({ "digest": file.digest(), "header": file.header(), "rows": rows });
    if let Some(StandsFor { first, digest }) = file.header().stands_for {
        told["stands_for"] = serde_json::json!({ "first": first, "digest": digest });
    }
    serde_json::to_string_pretty(&told).expect("it is JSON") + "\n"
}

fn key() -> SigningKey {
    SigningKey::from_seed(&SEED).expect("a seed makes a key")
}

fn sealed(name: &str, rows: &[Row<'_>]) -> Vec<u8> {
    let mut builder = Builder::new();
    rows.iter().for_each(|row| builder.push(row).expect("the file has room"));
    let sealed = match name {
        "v1-tombstone" => builder.bury(&PLACE, STANDS_FOR, &key()),
        _ => builder.seal(&PLACE, &key()),
    };
    sealed.expect("rows can be sealed")
}

/// The golden files by name, with what is in them.
fn each(mut check: impl FnMut(&str, &[Row<'_>])) {
    check("v1", &rows());
    check("v1-kept", &kept(&mut [0; PSEUDONYM_LEN]));
    check("v1-tombstone", &sums());
}

#[test]
fn the_golden_files_are_read_as_they_were_written() {
    each(|name, rows| {
        let bytes = std::fs::read(fixture(&format!("{name}.tgu"))).expect("the fixture is there");
        let file = open(&bytes, &key().public()).expect("format 1 is readable for ever");
        let expected = std::fs::read_to_string(fixture(&format!("{name}.json"))).expect("the fixture is there");
        assert_eq!(told(&file), expected, "{name}");
        assert_eq!(file.rows().collect::<Vec<_>>(), rows, "{name}");
    });
}

#[test]
fn the_rows_of_the_golden_files_are_still_written_the_same() {
    each(|name, rows| {
        let bytes = std::fs::read(fixture(&format!("{name}.tgu"))).expect("the fixture is there");
        let golden = open(&bytes, &key().public()).expect("format 1 is readable for ever");
        let sealed = sealed(name, rows);
        let now = open(&sealed, &key().public()).expect("it opens");
        // Before compression: another release of zstd may find a shorter form of the same.
        assert_eq!(now.raw, golden.raw, "{name}");
        assert_eq!(now.header, Header { body: now.header.body, ..golden.header }, "{name}");
    });
}

#[test]
#[ignore = "writes the fixtures that are not there; a committed one must never change"]
fn writes_the_golden_file() {
    each(|name, rows| {
        let path = fixture(&format!("{name}.tgu"));
        if path.exists() {
            return;
        }
        let bytes = sealed(name, rows);
        let file = open(&bytes, &key().public()).expect("it opens");
        std::fs::write(fixture(&format!("{name}.json")), told(&file)).expect("it can be written");
        std::fs::write(path, bytes).expect("it can be written");
    });
}
