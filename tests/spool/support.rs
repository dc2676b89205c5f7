//! What the tests share: a spool in a folder of its own, records that are told apart, and books.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tidegate::ids::RequestId;
use tidegate::keys::{SigningKey, sha256};
use tidegate::spool::backlog::{Backlog as _, Unavailable, UsageFile};
use tidegate::spool::record::{Client, Gap, Outcome, RollUp, Row, UsageRecord};
use tidegate::spool::{Config, Intake, Program, Spool, child, segment};
use tidegate::units::{Span, TimeQuality};

const CHILD: &str = "TIDEGATE_TEST_SPOOL_CHILD";

/// The entry of the spool's child; not a test otherwise.
#[test]
fn child_entry() {
    if std::env::var_os(CHILD).is_some() {
        child::run().expect("the child serves");
        std::process::exit(0);
    }
}

/// This binary as the spool's child. `env` makes the entry serve.
pub(crate) fn program() -> Program {
    let path = "/usr/bin/env".into();
    let exe = std::env::current_exe().expect("a test has a path");
    let arguments = [&format!("{CHILD}=1"), exe.to_str().expect("UTF-8"), "--exact", "support::child_entry"];
    Program { path, arguments: arguments.map(String::from).into() }
}

pub(crate) fn key() -> SigningKey {
    SigningKey::from_seed(&[7; 32]).expect("a seed makes a key")
}

pub(crate) fn start(folder: &Path, config: &Config) -> Spool {
    Spool::start(config, folder, &key(), program(), 1).expect("the spool starts")
}

/// Settings that seal only when asked, or when a file is full.
pub(crate) fn patient() -> Config {
    Config { seal_after: Span::secs(3600), seal_after_offline: Span::secs(3600), ..Config::default() }
}

pub(crate) fn id(number: u64) -> RequestId {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    RequestId(id)
}

pub(crate) fn number(id: RequestId) -> u64 {
    u64::from_be_bytes(id.0[8..].try_into().expect("eight bytes"))
}

pub(crate) fn record<'a>(number: u64) -> UsageRecord<'a> {
    UsageRecord {
        at_ms: 1_700_000_000_000 + i64::try_from(number).expect("small"),
        time: TimeQuality::Synced,
        request: id(number),
        api: "petstore",
        version: "1.0",
        route: "/pets/{id}",
        method: "GET",
        status: 200,
        outcome: Outcome::Admitted,
        application: "till",
        plan: "gold",
        principal: "someone",
        bytes_in: 10,
        bytes_out: 512,
        total_us: 900,
        upstream_us: 800,
        upstream: "127.0.0.1:9000",
        client: Client::Absent,
        consumer: "shop",
        issuer: "https://idp.example",
    }
}

/// Appends a record that does not compress, so that few of them fill a generation.
pub(crate) fn append(intake: &mut Intake, number: u64) {
    let noise: String =
        (0..4u64).map(|part| sha256(&[number.to_be_bytes(), part.to_be_bytes()].concat()).to_string()).collect();
    intake.append(&UsageRecord { principal: &noise, ..record(number) });
}

pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), future).await.expect("within a minute") })
}

/// What came out of a spool.
#[derive(Debug, Default)]
pub(crate) struct Books {
    /// How often each request came.
    pub(crate) requests: BTreeMap<u64, u32>,
    /// How many were summed, by outcome.
    pub(crate) summed: BTreeMap<Outcome, u64>,
    pub(crate) gaps: Vec<Gap>,
    pub(crate) files: Vec<UsageFile>,
}

impl Books {
    /// Enters a file, after checking it and its place in the chain.
    pub(crate) fn enter(&mut self, file: UsageFile) {
        if let Some(before) = self.files.last().filter(|before| before.at.stream == file.at.stream) {
            assert_eq!(file.at.seq, before.at.seq + 1, "the stream has no hole");
        }
        self.enter_after_a_hole(file);
    }

    /// Enters a file, where those before it may be lost.
    pub(crate) fn enter_after_a_hole(&mut self, file: UsageFile) {
        let verified = segment::open(&file.bytes, &key().public()).expect("what the spool gives verifies");
        let place = verified.header().place();
        assert_eq!((place.stream, place.seq), (file.at.stream, file.at.seq));
        let is_next = |before: &&UsageFile| before.at.stream == place.stream && before.at.seq + 1 == place.seq;
        if let Some(before) = self.files.last().filter(is_next) {
            assert_eq!(place.previous, Some(before.digest), "the chain holds");
        }
        for row in verified.rows() {
            match row {
                Row::Request(record) => *self.requests.entry(number(record.request)).or_default() += 1,
                Row::RollUp(RollUp { outcome, count, .. }) => *self.summed.entry(outcome).or_default() += count,
                Row::Gap(gap) => self.gaps.push(gap),
            }
        }
        self.files.push(file);
    }

    /// Each of these exactly once, and no other.
    pub(crate) fn holds_once(&self, numbers: impl IntoIterator<Item = u64>) {
        let expected: BTreeMap<u64, u32> = numbers.into_iter().map(|number| (number, 1)).collect();
        let missing: Vec<_> = expected.keys().filter(|key| !self.requests.contains_key(key)).take(5).collect();
        let twice: Vec<_> = self.requests.iter().filter(|(_, count)| **count != 1).take(5).collect();
        assert!(missing.is_empty(), "lost: {missing:?}");
        assert!(twice.is_empty(), "twice: {twice:?}");
        assert_eq!(self.requests.len(), expected.len(), "nobody made the others");
    }
}

/// The answer; what the spool says of itself, where it has none.
fn answered<T>(spool: &Spool, answer: Result<T, Unavailable>) -> T {
    answer.unwrap_or_else(|Unavailable| panic!("the spool has no answer: {:?}", spool.status()))
}

/// Seals everything, takes every file out and acknowledges it.
pub(crate) fn drain(spool: &Spool, books: &mut Books) {
    loop {
        spool.seal_now();
        match answered(spool, wait(spool.oldest(None))) {
            Some(file) => {
                answered(spool, wait(spool.acknowledge(file.at, &file.digest)));
                books.enter(file);
            }
            None if spool.status().open_bytes == 0 => return,
            None => {}
        }
    }
}
