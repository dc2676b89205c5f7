//! Two hubs at one ClickHouse, that die at random, with repeats, forks and tombstones; and the books.

use std::collections::BTreeSet;

use proptest::prelude::Rng as _;
use proptest::test_runner::{RngAlgorithm, TestRng};

use super::super::clickhouse::ClickHouse;
use super::super::*;
use super::scene::*;
use crate::ids::StreamId;

/// What a round draws from; the seed is told where the books do not balance.
fn draws(seed: u64) -> TestRng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)
}

/// A hub's store, anew.
fn store(site: &Site) -> ClickHouse {
    ClickHouse::open(site.config.clickhouse.as_ref().expect("a site of ClickHouse")).expect("it opens")
}

/// Sends a random story by two hubs at once, each killed again and again; who was given a receipt. With `is_hasty` they
/// give one before it is durable.
fn story(hubs: &mut [ClickHouse; 2], all: &[Sealed], seed: u64, is_hasty: bool) -> BTreeSet<[u8; 32]> {
    let hub = |store: &mut ClickHouse, which: u64| {
        let (mut random, device) = (draws(seed * 2 + which), device());
        let mut receipts = BTreeSet::new();
        let mut is_dead = true;
        for _ in 0..10 {
            let draw = random.next_u32() as usize;
            if is_dead {
                store.fuse(Some(Fuse {
                    left: draw / 7 % if is_hasty { 3 } else { 24 },
                    is_sent: draw.is_multiple_of(2),
                }));
            }
            let (file, bytes) = &all[random.next_u32() as usize % all.len()];
            let taken = store.take(&[Incoming { device: &device, file, bytes }], (random.next_u32() % 100).into());
            is_dead = taken.is_err();
            let is_kept = taken.map_or(is_hasty, |judged| !is_apart(judged[0].verdict));
            if is_kept {
                receipts.insert(file.digest().0);
            }
        }
        store.fuse(None);
        receipts
    };
    let [one, two] = hubs;
    std::thread::scope(|scope| {
        let other = scope.spawn(|| hub(two, 1));
        let mut receipts = hub(one, 0);
        receipts.extend(other.join().expect("no hub panics"));
        receipts
    })
}

/// Every file, and every receipt, against what is counted.
fn books(site: &Site, all: &[Sealed], receipts: &BTreeSet<[u8; 32]>) -> Result<(), String> {
    let stream = all[0].0.header().stream;
    let counted = site.lines(&format!(
        "SELECT first_seq, seq, digest FROM (SELECT lower(hex(stream)) AS s, first_seq, seq, lower(hex(digest)) AS digest
         FROM counted) WHERE s = '{stream}' ORDER BY first_seq, seq"
    ));
    let mut numbers = BTreeSet::new();
    let mut expected = 0;
    for line in &counted {
        let fields: Vec<&str> = line.split('|').collect();
        let (first, seq): (u64, u64) = (fields[0].parse().expect("a number"), fields[1].parse().expect("a number"));
        for number in first..=seq {
            if !numbers.insert(number) {
                return Err(format!("{number} counts twice: {counted:?}"));
            }
            expected += 3;
        }
    }
    let (records, sums) = site.counted_in(stream);
    if records + sums != expected {
        return Err(format!("{records} records and {sums} in sums, of {expected}"));
    }
    for (file, _) in all {
        let header = file.header();
        if receipts.contains(&file.digest().0) && !(header.first()..=header.seq).all(|number| numbers.contains(&number))
        {
            return Err(format!("{} to {} has a receipt and does not count", header.first(), header.seq));
        }
    }
    Ok(())
}

/// Six files, tombstones of which none contradicts another, and forks of two of the files.
fn everything(stream: StreamId) -> Vec<Sealed> {
    let mut all = chain_in(stream, 6);
    let tombstones = [(1, 2), (3, 4), (1, 4), (6, 6)].map(|(first, last)| tombstone(&all, first, last, 0));
    let forks = [(3, 8), (6, 9)].map(|(seq, mark): (u64, u8)| {
        file_in(stream, seq, Some(all[usize::try_from(seq).expect("small") - 2].0.digest()), mark)
    });
    all.extend(tombstones);
    all.extend(forks);
    all
}

#[test]
fn two_hubs_at_one_clickhouse_killed_at_random_count_exactly_once() {
    let Some(site) = Site::clickhouse() else { return };
    let mut hubs = [store(&site), store(&site)];
    for seed in 0..6 {
        let all = everything(StreamId(seed));
        let mut receipts = story(&mut hubs, &all, seed, false);
        books(&site, &all, &receipts).unwrap_or_else(|wrong| panic!("seed {seed}, as they died: {wrong}"));
        // All is sent again to a hub that lives.
        let device = device();
        let batch: Vec<_> = all.iter().map(|(file, bytes)| Incoming { device: &device, file, bytes }).collect();
        for _ in 0..2 {
            let judged = hubs[0].take(&batch, 200).expect("it lives");
            let kept = all.iter().zip(judged).filter(|(_, judged)| !is_apart(judged.verdict));
            receipts.extend(kept.map(|((file, _), _)| file.digest().0));
        }
        books(&site, &all, &receipts).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
        let contiguous = format!("SELECT contiguous FROM streams WHERE stream = '{}'", StreamId(seed));
        assert_eq!(site.number(&contiguous), 6, "seed {seed}");
    }
}

#[test]
fn the_books_catch_a_store_that_acknowledges_before_it_is_durable() {
    let Some(site) = Site::clickhouse() else { return };
    let mut hubs = [store(&site), store(&site)];
    let caught = (0..4).filter(|seed| {
        let all = everything(StreamId(*seed));
        let receipts = story(&mut hubs, &all, *seed, true);
        books(&site, &all, &receipts).is_err()
    });
    assert!(caught.count() > 0, "the books see nothing");
}
