//! What any store must do.

use super::super::*;
use super::scene::*;
use crate::ids::Digest;
use crate::spool::backlog::{Stock, Waits};
use crate::spool::receipt::Receipt;

macro_rules! for_both_stores {
    ($($name:ident),* $(,)?) => {
        mod on_sqlite {
            $(#[test]
            fn $name() {
                super::$name(&super::Site::sqlite());
            })*
        }

        mod on_clickhouse {
            $(#[test]
            fn $name() {
                if let Some(site) = super::Site::clickhouse() {
                    super::$name(&site);
                }
            })*
        }
    };
}

pub(super) use for_both_stores;

for_both_stores! {
    a_file_sent_many_times_over_restarts_counts_once_and_has_one_receipt,
    files_in_any_order_count_and_only_the_contiguous_number_waits,
    a_batch_is_judged_as_if_its_files_came_one_by_one,
    a_fork_is_kept_apart_and_never_counted,
    a_tombstone_and_its_files_count_once_in_any_order,
    tombstones_that_contradict_are_kept_apart,
    daily_use_is_what_the_records_say_after_repeats_and_tombstones,
    a_repeat_is_signed_with_the_key_that_the_hub_has_now_and_keeps_its_time,
    devices_are_enrolled_renamed_and_revoked_and_each_is_a_change,
    of_what_a_device_tells_of_its_backlog_the_last_stands,
    every_column_says_what_the_record_said,
}

fn a_file_sent_many_times_over_restarts_counts_once_and_has_one_receipt(site: &Site) {
    let file = file(1, None, 1);
    let mut receipts = Vec::new();
    for round in 0..4 {
        // Opened anew: as after a crash between the commit and the answer.
        let mut ledger = site.ledger();
        for n in 0..5 {
            match take(&mut ledger, &file, round * 10 + n) {
                Taken::Kept { receipt, .. } => receipts.push(receipt),
                apart @ Taken::Apart(_) => panic!("{apart:?}"),
            }
        }
        assert_eq!(site.counted(), (3, 0));
        assert_eq!(site.number("SELECT count(*) FROM gaps WHERE count IS NULL"), 1);
    }
    assert_eq!(receipts.len(), 20);
    assert!(receipts.iter().all(|receipt| *receipt == receipts[0]));
    let receipt = Receipt::verify(&receipts[0], &[key(9).public()]).expect("it is ours");
    assert_eq!((receipt.device, receipt.seq, receipt.digest, receipt.at_ms), (device().id(), 1, file.0.digest(), 0));
}

fn files_in_any_order_count_and_only_the_contiguous_number_waits(site: &Site) {
    let mut ledger = site.ledger();
    let files = chain(5);
    let (ahead, next) = (|missing| Verdict::Ahead { missing }, Verdict::Contiguous);
    let steps = [(3, ahead(1), 0), (5, ahead(1), 0), (1, next, 1), (2, next, 3), (2, Verdict::Repeat, 3), (4, next, 5)];
    for (seq, expected, contiguous) in steps {
        assert_eq!(verdict(&take(&mut ledger, &files[seq - 1], 0)), expected, "{seq}");
        assert_eq!(site.number("SELECT contiguous FROM streams"), contiguous, "after {seq}");
    }
    assert_eq!(site.lines("SELECT name, highest FROM streams"), ["till|5"]);
    assert_eq!(site.counted(), (15, 0));
    assert_eq!(site.number("SELECT count(DISTINCT request_id) FROM records"), 15);
}

fn a_batch_is_judged_as_if_its_files_came_one_by_one(site: &Site) {
    let mut ledger = site.ledger();
    let (files, device) = (chain(3), device());
    let other = file(2, Some(files[0].0.digest()), 9);
    let batch = [&files[0], &files[1], &files[1], &other, &files[2]];
    let batch = batch.map(|(file, bytes)| Incoming { device: &device, file, bytes });
    let taken = ledger.take(&batch, 5).expect("the ledger writes");
    let verdicts: Vec<_> = taken.iter().map(verdict).collect();
    assert_eq!((verdicts[2], verdicts[3]), (Verdict::Repeat, Verdict::ChainFork));
    assert!(
        matches!((&taken[1], &taken[2]), (Taken::Kept { receipt: one, .. }, Taken::Kept { receipt: two, .. }) if one == two)
    );
    assert_eq!(site.number("SELECT contiguous FROM streams"), 3);
    assert_eq!(site.counted(), (9, 0));
}

fn a_fork_is_kept_apart_and_never_counted(site: &Site) {
    let mut ledger = site.ledger();
    take(&mut ledger, &file(1, None, 1), 0);
    for mark in 2..6 {
        assert_eq!(take(&mut ledger, &file(1, None, mark), 0), Taken::Apart(Verdict::ChainFork));
    }
    assert_eq!(take(&mut ledger, &file(1, None, 2), 0), Taken::Apart(Verdict::ChainFork));
    let stranger = file(2, Some(Digest([9; 32])), 3);
    assert_eq!(take(&mut ledger, &stranger, 0), Taken::Apart(Verdict::PreviousMismatch));
    assert_eq!(site.counted(), (3, 0));
    assert_eq!(site.lines("SELECT contiguous, highest FROM streams"), ["1|1"]);
    assert_eq!(site.number("SELECT count(*) FROM forks"), 5);
    assert_eq!(site.number("SELECT max(times) FROM forks"), 2);
}

fn a_tombstone_and_its_files_count_once_in_any_order(site: &Site) {
    let mut ledger = site.ledger();
    let files = chain(6);
    // The file first, then what stands for it and the next; then the next file itself.
    take(&mut ledger, &files[0], 0);
    take(&mut ledger, &files[1], 0);
    assert_eq!(verdict(&take(&mut ledger, &tombstone(&files, 2, 4, 0), 0)), Verdict::Contiguous);
    assert_eq!(site.number("SELECT contiguous FROM streams"), 4);
    assert_eq!(site.counted(), (3, 9));
    for _ in 0..2 {
        assert!(matches!(take(&mut ledger, &files[2], 0), Taken::Kept { .. }));
        assert_eq!(site.counted(), (3, 9));
    }
    assert_eq!(verdict(&take(&mut ledger, &files[3], 0)), Verdict::Covered);
    assert_eq!(verdict(&take(&mut ledger, &files[4], 0)), Verdict::Contiguous);
    // One within the other, before and after.
    assert_eq!(verdict(&take(&mut ledger, &tombstone(&files, 3, 4, 0), 0)), Verdict::Covered);
    assert_eq!(site.counted(), (6, 9));
    assert!(matches!(take(&mut ledger, &tombstone(&files, 1, 4, 0), 0), Taken::Kept { .. }));
    assert_eq!(site.counted(), (3, 12));
    // A tombstone for one file alone gives way to it, whichever came first.
    assert_eq!(verdict(&take(&mut ledger, &tombstone(&files, 5, 5, 0), 0)), Verdict::Covered);
    assert_eq!(verdict(&take(&mut ledger, &tombstone(&files, 6, 6, 0), 0)), Verdict::Contiguous);
    assert_eq!(site.counted(), (3, 15));
    assert!(matches!(take(&mut ledger, &files[5], 0), Taken::Kept { .. }));
    assert_eq!(site.counted(), (6, 12));
    assert_eq!(site.lines("SELECT contiguous, highest FROM streams"), ["6|6"]);
    assert_eq!(site.number("SELECT count(*) FROM forks"), 0);
}

fn tombstones_that_contradict_are_kept_apart(site: &Site) {
    let mut ledger = site.ledger();
    let files = chain(5);
    assert_eq!(verdict(&take(&mut ledger, &tombstone(&files, 1, 3, 0), 1)), Verdict::Contiguous);
    assert_eq!(take(&mut ledger, &tombstone(&files, 2, 5, 0), 1), Taken::Apart(Verdict::ChainFork));
    assert_eq!(take(&mut ledger, &file(3, Some(files[1].0.digest()), 9), 1), Taken::Apart(Verdict::ChainFork));
    let stranger = file(4, Some(Digest([9; 32])), 3);
    assert_eq!(take(&mut ledger, &stranger, 1), Taken::Apart(Verdict::PreviousMismatch));
    // Of two for the same range the first counts.
    assert_eq!(verdict(&take(&mut ledger, &tombstone(&files, 1, 3, 1), 2)), Verdict::Covered);
    assert_eq!(site.counted(), (0, 9));
    assert_eq!(site.lines("SELECT from_ms FROM roll_ups"), ["1000"]);
    assert_eq!(site.number("SELECT contiguous FROM streams"), 3);
    assert_eq!(site.number("SELECT count(*) FROM forks"), 3);
}

fn daily_use_is_what_the_records_say_after_repeats_and_tombstones(site: &Site) {
    let mut ledger = site.ledger();
    let files = chain(3);
    let daily =
        || site.lines("SELECT day, api, application, outcome, requests, bytes_in, bytes_out FROM daily ORDER BY day");
    for file in files.iter().chain(&files) {
        take(&mut ledger, file, 0);
    }
    let first = site.lines("SELECT day FROM daily").remove(0);
    assert_eq!(daily(), [format!("{first}|petstore|till|Admitted|9|9|63")]);
    take(&mut ledger, &tombstone(&files, 1, 2, 0), 0);
    take(&mut ledger, &files[0], 0);
    // The tombstone's roll-up ends on the second day.
    assert_eq!(
        daily(),
        [format!("{first}|petstore|till|Admitted|3|3|21"), "1970-01-02|petstore|till|Admitted|6|6|42".into()]
    );
    assert_eq!(site.lines("SELECT device FROM daily")[0], device().id().to_string());
}

fn a_repeat_is_signed_with_the_key_that_the_hub_has_now_and_keeps_its_time(site: &Site) {
    let one = file(1, None, 1);
    take(&mut site.ledger(), &one, 77);
    let mut renewed = Ledger::open(&site.config, key(5)).expect("it opens");
    let Taken::Kept { receipt, verdict } = take(&mut renewed, &one, 99) else { panic!("it is a repeat") };
    let receipt = Receipt::verify(&receipt, &[key(5).public()]).expect("a device that knows the new key believes it");
    assert_eq!((verdict, receipt.digest, receipt.at_ms), (Verdict::Repeat, one.0.digest(), 77));
}

fn devices_are_enrolled_renamed_and_revoked_and_each_is_a_change(site: &Site) {
    let (mut ledger, mut other) = (site.ledger(), site.ledger());
    let mut changes = vec![ledger.changes().expect("it answers")];
    let mut is_change = |ledger: &mut Ledger| {
        let now = ledger.changes().expect("it answers");
        let is_new = !changes.contains(&now);
        changes.push(now);
        is_new
    };
    let device = device();
    other.enrol(&device, By::Config, 1).expect("it is written");
    assert!(!is_change(&mut ledger), "nothing is new");
    let named = Device { name: "till\t'2'".into(), ..device.clone() };
    other.enrol(&named, By::Command, 2).expect("it is written");
    assert!(is_change(&mut ledger));
    other.enrol(&device, By::Config, 3).expect("it is written");
    assert!(!is_change(&mut ledger), "the person's word stays");
    assert!(other.store.revoke(device.id(), 4).expect("it is written"));
    assert!(is_change(&mut ledger));
    other.enrol(&device, By::Config, 5).expect("it is written");
    let expected = Enrolled { device: named.clone(), by: By::Command, is_revoked: true };
    assert_eq!(ledger.devices().expect("it answers"), std::slice::from_ref(&expected));
    other.enrol(&named, By::Command, 6).expect("it is written");
    assert!(is_change(&mut ledger));
    assert_eq!(ledger.devices().expect("it answers"), [Enrolled { is_revoked: false, ..expected }]);
    assert!(!other.store.revoke(DeviceId([7; 16]), 4).expect("it answers"));
    let heard = Heard { device: device.id(), waits: None };
    ledger.touch(&[heard], 123).expect("it is written");
    ledger.touch(&[heard], 100).expect("it is written");
    assert_eq!(site.number("SELECT contact_ms FROM fleet"), 123);
}

fn every_column_says_what_the_record_said(site: &Site) {
    let mut ledger = site.ledger();
    take(&mut ledger, &file(1, None, 1), 0);
    let row = "SELECT device, stream, seq, row, at_ms, time, request_id, api, version, route, method, status, outcome,
               application, plan, principal, bytes_in, bytes_out, total_us, upstream_us, upstream, client, consumer,
               issuer FROM records ORDER BY row LIMIT 1";
    let (device, request) = (device().id(), "0a".repeat(16));
    let expected = format!(
        "{device}|{STREAM}|1|0|1000|floor|{request}|petstore|1.0|/pets|GET|200|Admitted|till|gold||1|7|3|2|127.0.0.1:9000|\\N|shop|\
         https://idp.example"
    );
    assert_eq!(site.lines(row), [expected]);
    let gap = "SELECT device, stream, seq, row, reason, from_ms, to_ms, count FROM gaps";
    assert_eq!(site.lines(gap), [format!("{device}|{STREAM}|1|3|unclean_stop|5|6|\\N")]);
}

fn of_what_a_device_tells_of_its_backlog_the_last_stands(site: &Site) {
    let mut ledger = site.ledger();
    let told = |files, oldest, at_ms| {
        let waits = Waits { stock: Stock { files, bytes: files * 100 }, oldest };
        Heard { device: device().id(), waits: Some((waits, at_ms)) }
    };
    let waiting = || site.lines("SELECT told_ms, files, bytes, coalesce(oldest_s, -1) FROM waiting");
    assert!(waiting().is_empty());
    for (heard, expected) in [
        (told(3, Some(77), 10), "10|3|300|77"),
        (Heard { waits: None, ..told(0, None, 0) }, "10|3|300|77"),
        (told(1 << 52, None, 20), "20|4503599627370496|450359962737049600|-1"),
        (told(9, Some(1), 15), "20|4503599627370496|450359962737049600|-1"),
        (told(0, None, 30), "30|0|0|-1"),
    ] {
        ledger.touch(&[heard], 40).expect("it is written");
        assert_eq!(waiting(), [expected]);
    }
    let id = device().id().to_string();
    assert_eq!(site.lines("SELECT device, told_ms FROM waiting"), [format!("{id}|30")]);
    assert_eq!(site.number("SELECT contact_ms FROM fleet"), 40);
}
