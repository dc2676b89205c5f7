//! What a person is told of either store: the books of a report are those of the records, whatever came and in what order.

use std::fs;

use super::super::{By as EnrolledBy, Device, Heard};
use super::scene::*;
use super::shared::for_both_stores;
use crate::hub::export::{Export, Streams, export_wso2};
use crate::hub::fleet::figures;
use crate::hub::report::{By, Format, Period, Query, Subject, report};
use crate::ids::{DeviceId, Digest};
use crate::spool::backlog::{Stock, Waits};
use crate::spool::record::{Gap, GapReason, Outcome, Row, UsageRecord};
use crate::spool::segment::{Builder, Place, open};
use crate::units::Span;

for_both_stores! {
    the_sums_of_a_report_are_those_of_the_records_by_whatever_it_is,
    a_report_is_of_the_days_and_the_device_that_were_asked_for,
    gaps_that_were_counted_and_gaps_that_nobody_can_know_are_told_apart,
    a_device_is_told_with_its_bundle_its_holes_and_its_silence,
    an_export_has_an_event_for_each_record_that_counts_and_says_what_it_has_not,
    the_pages_figures_are_those_of_what_counts,
}

fn query(subject: Subject, by: &[By]) -> Query {
    let by = by.to_vec();
    Query { subject, by, period: Period::default(), device: None, silent: None, format: Format::Csv }
}

/// Names and lines of a report as CSV.
fn told(site: &Site, query: &Query) -> (Vec<String>, Vec<Vec<String>>, String) {
    let (mut out, mut aside) = (Vec::new(), Vec::new());
    report(&site.config, query, &mut out, &mut aside).expect("it reads");
    let mut reader = csv::Reader::from_reader(&out[..]);
    let texts = |record: &csv::StringRecord| record.iter().map(str::to_owned).collect();
    let names = texts(reader.headers().expect("names"));
    let lines = reader.records().map(|line| texts(&line.expect("RFC 4180"))).collect();
    (names, lines, String::from_utf8(aside).expect("text"))
}

/// The sums of the last three columns.
fn sums(lines: &[Vec<String>]) -> [u64; 3] {
    let mut sums = [0; 3];
    for line in lines {
        for (sum, field) in sums.iter_mut().zip(&line[line.len() - 3..]) {
            *sum += field.parse::<u64>().expect("a number");
        }
    }
    sums
}

/// A file of those rows, after `previous`.
fn file_with(seq: u64, previous: Option<Digest>, policy: Option<Digest>, rows: &[Row<'_>]) -> Sealed {
    let mut builder = Builder::new();
    for row in rows {
        builder.push(row).expect("there is room");
    }
    let bytes = builder.seal(&Place { stream: STREAM, seq, previous, policy }, &key(1)).expect("it seals");
    (open(&bytes, &key(1).public()).expect("it opens"), bytes)
}

fn the_sums_of_a_report_are_those_of_the_records_by_whatever_it_is(site: &Site) {
    let mut ledger = site.ledger();
    let files = chain(4);
    let all = [By::Api, By::Application, By::Device, By::Day, By::Outcome];
    let books = |site: &Site| {
        for by in all {
            let (_, lines, _) = told(site, &query(Subject::Usage, &[by]));
            assert_eq!(sums(&lines), [12, 12, 84], "{by:?}: {lines:?}");
        }
        let (names, lines, _) = told(site, &query(Subject::Usage, &all));
        assert_eq!(sums(&lines), [12, 12, 84]);
        assert_eq!(names[..6], ["api", "application", "device", "name", "day", "outcome"].map(String::from));
        assert_eq!(lines[0][..4], ["petstore", "till", &device().id().to_string(), "till"].map(String::from));
    };
    for file in files.iter().chain(&files) {
        take(&mut ledger, file, 0);
    }
    books(site);
    // What a tombstone stands for counts once, before and after its files, and whatever contradicts the chain never.
    take(&mut ledger, &tombstone(&files, 2, 3, 0), 0);
    take(&mut ledger, &files[1], 0);
    take(&mut ledger, &file(1, None, 9), 0);
    books(site);
    take(&mut ledger, &tombstone(&files, 1, 4, 0), 0);
    books(site);
    assert_eq!(site.counted(), (0, 12), "the control: nothing of it is a record any more");
}

fn a_report_is_of_the_days_and_the_device_that_were_asked_for(site: &Site) {
    let mut ledger = site.ledger();
    let at = |at_ms, api| Row::Request(UsageRecord { at_ms, api, ..record(1) });
    let day = 86_400_000;
    let rows = [at(day - 1, "a"), at(day, "b"), at(2 * day - 1, "b"), at(2 * day, "c")];
    take(&mut ledger, &file_with(1, None, None, &rows), 0);
    let day = |text: &str| Some(text.parse().expect("a day"));
    let period = Period { from: day("1970-01-02"), to: day("1970-01-02") };
    let asked = Query { period, ..query(Subject::Usage, &[By::Api]) };
    assert_eq!(told(site, &asked).1, [["b", "2", "2", "14"].map(String::from)]);
    let of = |device| Query { device: Some(device), ..asked.clone() };
    assert_eq!(told(site, &of(device().id())).1.len(), 1);
    assert_eq!(told(site, &of(DeviceId([1; 16]))).1.len(), 0);
    let (_, lines, _) = told(site, &query(Subject::Usage, &[By::Day]));
    let days: Vec<&str> = lines.iter().map(|line| line[0].as_str()).collect();
    assert_eq!(days, ["1970-01-01", "1970-01-02", "1970-01-03"]);
    let refused = report(&site.config, &query(Subject::Gaps, &[By::Api]), &mut Vec::new(), &mut Vec::new());
    assert_eq!(refused.expect_err("gaps have no API").to_string(), "a report of gaps is not by api");
}

fn gaps_that_were_counted_and_gaps_that_nobody_can_know_are_told_apart(site: &Site) {
    let mut ledger = site.ledger();
    let gap = |reason, count| Row::Gap(Gap { reason, from_ms: 1_000, to_ms: 2_000, count });
    let rows = [
        gap(GapReason::Dropped, Some(1 << 40)),
        gap(GapReason::Dropped, Some(7)),
        gap(GapReason::NoSpace, Some(0)),
        gap(GapReason::UncleanStop, None),
        gap(GapReason::Dropped, None),
        Row::Request(record(1)),
    ];
    let one = file_with(1, None, None, &rows);
    for _ in 0..3 {
        take(&mut ledger, &one, 0);
    }
    let (names, lines, _) = told(site, &query(Subject::Gaps, &[By::Reason]));
    assert_eq!(names, ["reason", "gaps", "lost", "unknown", "first", "last"]);
    let of = |reason: &str, gaps: &str, lost: u64, unknown: &str| {
        let (first, last) = ("1970-01-01T00:00:01Z", "1970-01-01T00:00:02Z");
        [reason, gaps, &lost.to_string(), unknown, first, last].map(String::from)
    };
    let expected =
        [of("dropped", "2", (1 << 40) + 7, "1"), of("no_space", "1", 0, "0"), of("unclean_stop", "0", 0, "1")];
    assert_eq!(lines, expected);
    let (_, by_day, _) = told(site, &query(Subject::Gaps, &[By::Day, By::Device]));
    assert_eq!(by_day.len(), 1);
    assert_eq!(by_day[0][..3], ["1970-01-01", &device().id().to_string(), "till"].map(String::from));
    let (_, _, aside) = told(site, &query(Subject::Usage, &[By::Api]));
    assert!(aside.contains(&format!("{} requests that are lost", (1u64 << 40) + 7)), "{aside}");
    assert!(aside.contains("in 2 intervals in which nobody can know"), "{aside}");
}

fn a_device_is_told_with_its_bundle_its_holes_and_its_silence(site: &Site) {
    let mut ledger = site.ledger();
    let other = Device { key: key(2).public(), name: "quay".into(), came_by_itself: false };
    ledger.enrol(&other, EnrolledBy::Command, 0).expect("it is written");
    ledger.revoke(other.id(), 5).expect("it is written");
    let policy = Digest([7; 32]);
    let row = [Row::Request(record(1))];
    let first = file_with(1, None, None, &row);
    let later: Vec<Sealed> = (2..=9).map(|seq| file_with(seq, Some(first.0.digest()), Some(policy), &row)).collect();
    // 2, 3 and 5 to 7 are away, and a tombstone for 8 and 9 covers two.
    let mut chain = vec![first];
    chain.extend(later);
    take(&mut ledger, &chain[0], 1_000);
    take(&mut ledger, &chain[3], 2_000);
    let wide = tombstone(&chain, 8, 9, 0);
    take(&mut ledger, &wide, 3_000);
    take(&mut ledger, &file(1, None, 9), 4_000);
    let waits = Waits { stock: Stock { files: 3, bytes: 900 }, oldest: Some(7) };
    ledger.touch(&[Heard { device: device().id(), waits: Some((waits, 4_000)) }], 4_000).expect("it is written");
    let (names, lines, _) = told(site, &query(Subject::Devices, &[]));
    let field =
        |line: &[String], name: &str| line[names.iter().position(|column| column == name).expect("a column")].clone();
    assert_eq!(lines.len(), 2, "{lines:?}");
    let (quay, till) = (&lines[0], &lines[1]);
    assert_eq!((field(quay, "name"), field(quay, "standing")), ("quay".into(), "revoked".into()));
    assert_eq!((field(quay, "last_contact"), field(quay, "silent")), (String::new(), String::new()));
    assert_eq!((field(till, "name"), field(till, "standing")), ("till".into(), "enrolled".into()));
    assert_eq!(field(till, "last_contact"), "1970-01-01T00:00:04Z");
    assert_eq!((field(till, "missing"), field(till, "forks")), ("5".into(), "1".into()));
    assert_eq!((field(till, "waiting"), field(till, "waiting_bytes")), ("3".into(), "900".into()));
    assert!(field(till, "waiting_for").parse::<u64>().is_ok_and(|seconds| seconds > 1_700_000_000), "since 1970");
    assert_eq!(field(till, "told"), "1970-01-01T00:00:04Z");
    assert_eq!((field(quay, "waiting"), field(quay, "waiting_for"), field(quay, "told")), Default::default());
    // A tombstone says of no bundle; the file before it did.
    assert_eq!(field(till, "bundle"), "");
    take(&mut ledger, &file_with(10, Some(chain[8].0.digest()), Some(policy), &row), 5_000);
    let silent = |span| told(site, &Query { silent: Some(span), ..query(Subject::Devices, &[]) }).1;
    let now = silent(Span::hours(24));
    assert_eq!((now.len(), field(&now[1], "bundle")), (2, policy.to_string()));
    // Never heard of is silent however long one asks; 1970 is not, for a thousand years.
    assert_eq!(silent(Span::hours(24 * 365 * 1_000)).len(), 1);
}

fn the_pages_figures_are_those_of_what_counts(site: &Site) {
    const HOUR_MS: i64 = 3_600_000;
    // Noon of 2026-03-03.
    let now_ms = 1_772_539_200_000;
    let mut ledger = site.ledger();
    let other = Device { key: key(2).public(), name: "quay".into(), came_by_itself: false };
    ledger.enrol(&other, EnrolledBy::Command, 0).expect("it is written");
    ledger.revoke(other.id(), 5).expect("it is written");
    let at = |at_ms, outcome| Row::Request(UsageRecord { at_ms, outcome, ..record(1) });
    let gap = |count| Row::Gap(Gap { reason: GapReason::Dropped, from_ms: now_ms, to_ms: now_ms, count });
    let first =
        file_with(1, None, None, &[at(now_ms, Outcome::Admitted), at(now_ms, Outcome::TokenExpired), gap(Some(9))]);
    // The page shows 30 days; what is older, or of a clock that runs ahead, counts without a bar.
    let yesterday = at(now_ms - 24 * HOUR_MS, Outcome::RateLimited);
    let aside = [at(now_ms - 31 * 24 * HOUR_MS, Outcome::Admitted), at(now_ms + 24 * HOUR_MS, Outcome::Admitted)];
    let second = file_with(2, Some(first.0.digest()), None, &[yesterday, aside[0], aside[1], gap(None)]);
    for file in [&first, &second, &first, &file(1, None, 9)] {
        take(&mut ledger, file, now_ms - 2 * HOUR_MS);
    }
    let told = || {
        let json = figures::read(&site.config, None, 7, now_ms).expect("it reads");
        serde_json::from_slice::<serde_json::Value>(&json).expect("JSON")
    };
    let before = told();
    let lines = before["devices"].as_array().expect("lines");
    assert_eq!((&lines[0][1], &lines[0][2], lines.len()), (&"quay".into(), &"revoked".into(), 2));
    assert_eq!((&lines[1][1], &lines[1][2]), (&"till".into(), &"enrolled".into()));
    // Nothing is missing; one gap of nine, one that nobody can know, one fork; it told of no backlog.
    let numbers = |line: &serde_json::Value| [7, 8, 9, 10, 11, 12, 16].map(|field| line[field].as_u64());
    assert_eq!(numbers(&lines[1]), [Some(0), Some(1), Some(9), Some(1), Some(1), None, Some(5)]);
    let total = |told: &serde_json::Value, name: &str| told["totals"][name].as_u64().expect("a number");
    let names = ["devices", "revoked", "hour", "day", "silent", "gaps", "backlog", "requests"];
    assert_eq!(names.map(|name| total(&before, name)), [1, 1, 0, 1, 0, 1, 0, 5]);
    assert_eq!((&before["unread"], &before["first_day"]), (&7.into(), &"2026-02-02".into()));
    let days = before["days"].as_array().expect("days");
    let sums: Vec<Vec<u64>> = days.iter().map(|day| serde_json::from_value(day.clone()).expect("sums")).collect();
    assert_eq!(sums[29], [1, 1, 0, 0, 0, 0, 0]);
    assert_eq!(sums[28], [0, 0, 0, 1, 0, 0, 0]);
    assert_eq!((sums.len(), sums[..28].concat().iter().sum::<u64>()), (30, 0));
    // What a tombstone stands for counts no more, and its sum does, on its own day; what the device tells is shown.
    take(&mut ledger, &tombstone(&[first, second], 1, 2, 0), now_ms);
    let waits = Waits { stock: Stock { files: 3, bytes: 900 }, oldest: Some(7) };
    ledger.touch(&[Heard { device: device().id(), waits: Some((waits, now_ms)) }], now_ms).expect("it is written");
    let after = told();
    assert_eq!(names.map(|name| total(&after, name)), [1, 1, 1, 1, 0, 1, 1, 6]);
    assert_eq!(["files", "bytes", "oldest"].map(|name| total(&after, name)), [3, 900, 7]);
    let till = &after["devices"][1];
    assert_eq!(numbers(till), [0, 0, 0, 0, 1, 3, 6].map(Some));
    assert!(after["days"].to_string().chars().all(|one| !one.is_ascii_digit() || one == '0'), "{}", after["days"]);
}

fn an_export_has_an_event_for_each_record_that_counts_and_says_what_it_has_not(site: &Site) {
    let mut ledger = site.ledger();
    let files = chain(3);
    for file in files.iter().chain(&files) {
        take(&mut ledger, file, 0);
    }
    take(&mut ledger, &tombstone(&files, 1, 1, 0), 0);
    take(&mut ledger, &tombstone(&files, 1, 2, 0), 0);
    let outcome = |outcome| Row::Request(UsageRecord { outcome, status: 429, ..record(1) });
    let mut rows = vec![outcome(Outcome::TokenExpired), outcome(Outcome::QuotaExceeded)];
    rows.push(outcome(Outcome::UpstreamConnect));
    rows.push(Row::Gap(Gap { reason: GapReason::Dropped, from_ms: 1, to_ms: 2, count: Some(4) }));
    take(&mut ledger, &file_with(4, Some(files[2].0.digest()), None, &rows), 0);
    let folder = tempfile::tempdir().expect("a folder can be made");
    let export = |streams| {
        let folder = folder.path().join("out");
        let asked = Export { streams, period: Period::default(), device: None, folder };
        export_wso2(&site.config, &asked).expect("it is written")
    };
    let listed = || {
        let entries = fs::read_dir(folder.path().join("out")).expect("a folder");
        let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        names.sort();
        names
    };
    let done = export(Streams::V3_2_0);
    assert_eq!((done.files, done.requests, done.faults, done.throttled, done.refused), (1, 3, 1, 1, 1));
    assert_eq!((done.summed, done.lost, done.unknown, done.altered), (6, 4, 1, 0));
    let first = listed();
    let content = fs::read(&first[0]).expect("a file");
    let text = String::from_utf8_lossy(&content);
    assert_eq!(text.matches("streamId-KS-").count(), 5);
    assert_eq!(text.matches("statistics.request:3.2.0").count(), 3);
    // Made again it is the same, and another form is another file.
    assert_eq!((export(Streams::V3_2_0), listed()), (done, first));
    export(Streams::V3_0_0);
    assert_eq!(listed().len(), 2);
}

#[test]
fn a_database_that_is_not_there_or_of_another_kind_is_told_and_none_is_made() {
    let site = Site::sqlite();
    let ask = || report(&site.config, &query(Subject::Usage, &[]), &mut Vec::new(), &mut Vec::new());
    ask().expect_err("there is none");
    assert!(!site.path().exists());
    drop(site.ledger());
    ask().expect("the control: a hub has made it");
    let db = rusqlite::Connection::open(site.path()).expect("it opens");
    db.pragma_update(None, "user_version", 2).expect("it is written");
    assert!(ask().expect_err("it is older").to_string().contains("start the hub once"));
    db.pragma_update(None, "application_id", 1).expect("it is written");
    assert!(ask().expect_err("it is foreign").is_configuration());
}
