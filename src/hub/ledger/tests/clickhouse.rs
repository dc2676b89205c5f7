//! What is particular to ClickHouse: a hub that dies between any two statements.

use super::super::clickhouse::{self, ClickHouse};
use super::super::*;
use super::scene::*;
use crate::hub::config::{ClickHouse as Settings, Config};
use crate::ids::StreamId;

/// Takes files as one batch.
fn take_all(store: &mut ClickHouse, files: &[&Sealed]) -> Result<Vec<Judged>, Error> {
    let device = device();
    let batch: Vec<_> = files.iter().map(|(file, bytes)| Incoming { device: &device, file, bytes }).collect();
    store.take(&batch, 1)
}

#[test]
fn a_hub_that_dies_between_any_two_statements_counts_exactly_once() {
    let Some(site) = Site::clickhouse() else { return };
    drop(site.ledger());
    // A store holds nothing but its connection, so one that was mended is the next hub.
    let mut store = ClickHouse::open(site.config.clickhouse.as_ref().expect("a site of ClickHouse")).expect("it opens");
    let mut died = 0;
    for (round, is_sent) in [(1, false), (2, true)] {
        for left in 0.. {
            let stream = StreamId(round * 1_000 + left as u64);
            let files = chain_in(stream, 4);
            let fork = file_in(stream, 1, None, 9);
            let wide = tombstone(&files, 2, 3, 0);
            let story = [[&files[0], &files[2], &fork], [&wide, &files[1], &files[3]]];
            store.fuse(Some(Fuse { left, is_sent }));
            let is_dead = story.iter().any(|batch| take_all(&mut store, batch).is_err());
            // The next hub, and a device that sends all again.
            store.fuse(None);
            for batch in &story {
                let judged = take_all(&mut store, batch).expect("it lives");
                for (file, judged) in batch.iter().zip(judged) {
                    assert_eq!(is_apart(judged.verdict), file.0.digest() == fork.0.digest(), "{left} {is_sent}");
                }
            }
            assert_eq!(site.counted_in(stream), (6, 6), "{left} {is_sent}");
            let contiguous = format!("SELECT contiguous FROM streams WHERE stream = '{stream}'");
            assert_eq!(site.number(&contiguous), 4, "{left} {is_sent}");
            died += usize::from(is_dead);
            if !is_dead {
                break;
            }
        }
    }
    let daily = site.number("SELECT sum(requests) FROM daily");
    assert_eq!(daily, 12 * (i64::try_from(died).expect("a few") + 2), "the daily sums are those of all rounds");
    assert!(died > 30, "it died at {died} places");
}

#[test]
fn what_the_server_says_is_told_and_nothing_is_acknowledged() {
    let Some(site) = Site::clickhouse() else { return };
    let mut ledger = site.ledger();
    site.lines("DROP TABLE request_rows");
    let error = try_take(&mut ledger, &file(1, None, 1), 0).expect_err("there is no table");
    assert!(error.to_string().starts_with("ClickHouse says: Code: 60"), "{error}");
    assert_eq!(site.number("SELECT count(*) FROM claims"), 0);
}

#[test]
fn a_server_that_is_away_and_settings_that_cannot_be_are_told_apart() {
    let settings = |url: &str| Settings { url: url.into(), database: "a".into(), user: None, password_file: None };
    let open = |settings: Settings| {
        let opened = Ledger::open(&Config { clickhouse: Some(settings), ..Config::default() }, key(9));
        opened.expect_err("there is none").to_string()
    };
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port is free");
    assert_eq!(open(settings(&format!("http://{free}"))), "cannot reach ClickHouse");
    for url in ["https://a", "http://a/b", "a:1", ""] {
        assert_eq!(open(settings(url)), clickhouse::Error::Url.to_string(), "{url}");
    }
    assert_eq!(
        open(Settings { database: "a b".into(), ..settings("http://a") }),
        clickhouse::Error::DatabaseName.to_string()
    );
}
