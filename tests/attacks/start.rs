//! Starts on a device whose flash has rotted, whose records are lost, or whose journal was touched.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tidegate::bundle::journal::{self, Event};
use tidegate::bundle::root::RootDocument;
use tidegate::bundle::{Importer, OpenError, Origin, pack};
use tidegate::disk::Machine;

use crate::source::Unkind;
use crate::world::{Device, GOLDEN_SEQ, bundle, case, compile, draft, golden, key, root, root_draft, sign};

/// Flips one bit in the middle of a file.
fn rot(path: &PathBuf) {
    let mut bytes = fs::read(path).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).expect("written");
}

fn slot(device: &Device, bundle: &[u8]) -> PathBuf {
    device.state().join("slots").join(pack::digest(bundle).expect("a digest").to_string())
}

#[test]
fn a_bundle_that_does_not_serve_passes_no_trial() {
    let mut device = Device::with_golden();
    let passed = |device: &mut Device| {
        (0..12).find_map(|_| {
            let now = device.now();
            device.importer.as_mut().expect("it runs").attend(&now, true).expect("written")
        })
    };
    let next = bundle(GOLDEN_SEQ + 1, "next");
    let digest = |bytes: &[u8]| pack::digest(bytes).expect("it has a digest");
    assert_eq!(passed(&mut device), Some(digest(&golden())));
    device.takes(&next);
    rot(&slot(&device, &next).join("head"));
    device.start();
    assert_eq!(device.serving.as_ref().expect("the one before").1, "golden");
    assert_eq!((device.importer.as_ref().expect("it runs").on_trial(), passed(&mut device)), (None, None));
    // Its slot made good, it is on trial for as long as any.
    device.takes(&next);
    assert_eq!(device.importer.as_ref().expect("it runs").on_trial(), Some(digest(&next)));
    assert_eq!(passed(&mut device), Some(digest(&next)));
}

#[test]
fn a_slot_with_a_file_missing_or_a_file_more_is_rotten() {
    let mut device = Device::with_golden();
    let slot = slot(&device, &golden());
    fs::write(slot.join("throttle"), b"more").expect("written");
    device.start();
    assert!(matches!(device.origin, Origin::Nothing(_)) && device.serving.is_none());
    fs::remove_file(slot.join("throttle")).expect("removed");
    device.still_serves_golden();
    fs::remove_file(slot.join("routes")).expect("removed");
    device.start();
    assert!(matches!(device.origin, Origin::Nothing(_)) && device.serving.is_none());
}

#[test]
fn with_both_slots_rotten_the_device_is_in_safe_mode_and_still_takes_a_bundle() {
    let next = bundle(GOLDEN_SEQ + 1, "next");
    let mut device = Device::with_golden();
    device.takes(&next);
    rot(&slot(&device, &next).join("head"));
    rot(&slot(&device, &golden()).join("head"));
    device.start();
    assert!(device.serving.is_none());
    assert!(device.journal().iter().any(|line| line.event == Event::SafeMode));
    device.refuses(&case("Rollback", "the highest seen stays", golden()));
    device.takes(&next);
}

#[test]
fn one_broken_state_record_rolls_nothing_back_and_is_told_once() {
    let mut raised = draft(GOLDEN_SEQ + 1, "next");
    raised.security_floor = GOLDEN_SEQ;
    let next = sign(&raised.assemble(&root()).expect("a sound draft"));
    for record in ["trust/state.0", "trust/state.1"] {
        for remove in [false, true] {
            let mut device = Device::with_golden();
            device.takes(&next);
            let path = device.state().join(record);
            if remove {
                fs::remove_file(path).expect("removed")
            } else {
                rot(&path)
            }
            device.start();
            let told =
                |device: &Device| device.journal().iter().filter(|line| line.event == Event::StateDamaged).count();
            let serving = device.serving.as_ref().expect("it serves").1.clone();
            assert_eq!((serving.as_str(), &device.origin), ("next", &Origin::Active), "{record}");
            assert_eq!(told(&device), 1, "{record}");
            device.refuses(&case("BelowSecurityFloor", "the floor", bundle(GOLDEN_SEQ - 1, "old")));
            device.refuses(&case("Rollback", "the order", golden()));
            device.start();
            assert_eq!(told(&device), 1, "{record}: it was written again");
            // The one before is still there to fall back to.
            rot(&slot(&device, &next).join("head"));
            device.start();
            assert_eq!(device.serving.as_ref().expect("the previous").1, "golden", "{record}");
        }
    }
}

#[test]
fn a_broken_record_of_the_time_floor_is_told() {
    let mut device = Device::with_golden();
    rot(&device.state().join("trust/time.0"));
    device.start();
    assert!(device.journal().iter().any(|line| line.event == Event::StateDamaged && line.detail.contains("time")));
    device.still_serves_golden();
}

#[test]
fn a_full_disk_stops_no_start_even_when_the_state_was_lost() {
    let disk = Arc::new(Unkind::default());
    let mut device = Device::new(Arc::<Unkind>::clone(&disk));
    device.takes(&golden());
    for record in ["trust/state.0", "trust/state.1"] {
        rot(&device.state().join(record));
    }
    disk.fail(Some(("state", io::ErrorKind::StorageFull)));
    device.importer = None;
    let now = device.now();
    let opened = Importer::open(Arc::<Unkind>::clone(&disk) as _, device.settings(), compile, &now).expect("it starts");
    assert_eq!(opened.serving.expect("it serves").policy, "golden");
    assert_eq!(opened.unrecorded.expect("told").kind(), io::ErrorKind::StorageFull);
    drop(opened.importer);
    disk.fail(None);
    device.still_serves_golden();
    assert!(device.journal().iter().any(|line| line.event == Event::StateLost));
}

#[test]
fn a_state_record_cut_at_any_byte_leaves_the_old_choice_or_the_new() {
    let next = bundle(GOLDEN_SEQ + 1, "next");
    let mut device = Device::with_golden();
    device.takes(&next);
    let newest = ["trust/state.0", "trust/state.1"].map(|record| device.state().join(record));
    for path in newest {
        let whole = fs::read(&path).expect("a record");
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).expect("written");
            device.importer = None;
            device.start();
            let serving = device.serving.as_ref().expect("one of the two").1.clone();
            assert!(["golden", "next"].contains(&serving.as_str()), "{length}: {serving}");
            fs::write(&path, &whole).expect("written");
        }
    }
}

#[test]
fn a_journal_that_cannot_be_written_stops_no_import_and_is_told() {
    let disk = Arc::new(Unkind::default());
    let mut device = Device::new(Arc::<Unkind>::clone(&disk));
    disk.fail(Some((".jsonl", io::ErrorKind::StorageFull)));
    let outcome = device.offer(&golden());
    assert_eq!(outcome.result.name(), "Activated");
    assert!(outcome.unrecorded.is_some());
    disk.fail(None);
    device.still_serves_golden();
}

#[test]
fn a_touched_journal_is_told_kept_and_followed_by_a_new_file() {
    let mut device = Device::with_golden();
    device.offer(b"garbage");
    let folder = device.state().join("journal");
    let path = folder.join("00000001.jsonl");
    let text = fs::read_to_string(&path).expect("the journal");
    fs::write(&path, text.replacen("BadMagic", "Activate", 1).replacen("Activated", "BadMagick", 1)).expect("written");
    assert_eq!(journal::read(&Machine, &folder).expect_err("it was touched").name(), "JournalBroken");
    device.importer = None;
    device.start();
    let second = fs::read_to_string(folder.join("00000002.jsonl")).expect("a new file");
    assert!(second.contains("JournalBroken"), "{second}");
    device.offer(b"garbage");
    assert_eq!(journal::read(&Machine, &folder).expect_err("it stays told").name(), "JournalBroken");
}

#[test]
fn a_line_removed_from_the_journal_shows() {
    let mut device = Device::with_golden();
    device.offer(b"garbage");
    device.offer(b"garbage");
    let folder = device.state().join("journal");
    let path = folder.join("00000001.jsonl");
    let text = fs::read_to_string(&path).expect("the journal");
    let lines: Vec<_> = text.lines().collect();
    for gone in 0..lines.len() - 1 {
        let mut left = lines.clone();
        left.remove(gone);
        fs::write(&path, left.join("\n") + "\n").expect("written");
        assert!(journal::read(&Machine, &folder).is_err(), "line {gone}");
    }
}

#[test]
fn a_crash_loop_does_not_fill_the_journal_and_an_altered_older_file_is_told() {
    let mut device = Device::with_golden();
    let before = device.journal().len();
    (0..30).for_each(|_| device.start());
    assert_eq!(device.journal().len() - before, 1, "thirty starts in thirty minutes");

    let folder = device.state().join("journal");
    let first = folder.join("00000001.jsonl");
    let line = fs::read_to_string(&first).expect("the journal");
    fs::write(folder.join("00000002.jsonl"), line.lines().next().expect("a line").to_owned() + "\n").expect("written");
    device.start();
    let third = fs::read_to_string(folder.join("00000003.jsonl")).expect("a new file");
    assert!(third.starts_with(r#"{"at":"#) && third.contains("journal-broken"), "{third}");
    (0..5).for_each(|_| device.start());
    assert_eq!(fs::read_to_string(folder.join("00000003.jsonl")).expect("the file"), third, "told once");
}

#[test]
fn a_torn_last_line_is_cut_off_and_the_chain_goes_on() {
    let mut device = Device::with_golden();
    let path = device.state().join("journal/00000001.jsonl");
    let whole = fs::read(&path).expect("the journal");
    let lines = device.journal().len();
    fs::write(&path, &whole[..whole.len() - 7]).expect("written");
    device.start();
    assert_eq!(device.journal().len(), lines, "one torn off, one of the new start");
}

#[test]
fn a_root_of_an_earlier_epoch_is_refused_and_one_of_a_later_restarts_the_counters() {
    let mut device = Device::with_golden();
    let place = |device: &Device, epoch: u64| {
        let mut draft = root_draft();
        draft.epoch = epoch;
        let root = RootDocument::build(draft).expect("a sound root");
        fs::write(device.folder.path().join("root.json"), root.bytes()).expect("placed");
        root
    };
    place(&device, 0);
    device.importer = None;
    let now = device.now();
    match Importer::open(Arc::new(Machine), device.settings(), compile, &now) {
        Err(OpenError::Root(refused)) => assert_eq!(refused.name(), "RootEpochRegression"),
        other => panic!("{other:?}"),
    }
    let root = place(&device, 2);
    device.still_serves_golden();
    // The later epoch is kept from the first start on, before any bundle of it came.
    place(&device, 1);
    device.importer = None;
    let now = device.now();
    match Importer::open(Arc::new(Machine), device.settings(), compile, &now) {
        Err(OpenError::Root(refused)) => assert_eq!(refused.name(), "RootEpochRegression"),
        other => panic!("{other:?}"),
    }
    place(&device, 2);
    device.still_serves_golden();
    let mut first = draft(1, "first of its epoch");
    first.security_floor = 0;
    let signed = [4, 5].iter().fold(first.assemble(&root).expect("a sound draft"), |bundle, seed| {
        pack::sign(&bundle, &root, &key(*seed)).expect("it may sign")
    });
    device.refuses(&case("EpochMismatch", "a bundle of the epoch before", bundle(GOLDEN_SEQ + 1, "next")));
    device.takes(&signed);
    device.start();
    assert_eq!(device.serving.as_ref().expect("it serves").1, "first of its epoch");
}

#[test]
fn without_a_sound_root_the_device_says_so_and_does_not_start() {
    let mut device = Device::with_golden();
    device.importer = None;
    let path = device.folder.path().join("root.json");
    let now = device.now();
    fs::write(&path, b"{}").expect("written");
    assert!(matches!(Importer::open(Arc::new(Machine), device.settings(), compile, &now), Err(OpenError::Root(_))));
    fs::remove_file(&path).expect("removed");
    assert!(matches!(Importer::open(Arc::new(Machine), device.settings(), compile, &now), Err(OpenError::NoRoot(..))));
}

#[test]
fn a_refused_bundle_raises_the_time_floor_only_if_its_signatures_vouch_for_it() {
    let mut device = Device::with_golden();
    let lower = |device: &mut Device| {
        let now = device.now();
        let floor = device.importer.as_ref().expect("it runs").time().floor();
        floor.bounds(&now.reading, false).lower
    };
    let before = lower(&mut device);
    let late = crate::world::with_manifest(b"p", |m| {
        m["issued_at"] = (before + 1_000_000).into();
        m["target"] = serde_json::json!({"devices": []});
    });
    let mut forged = late.clone();
    let signatures = forged.len() - 1 - 64;
    forged[signatures] ^= 1;
    device.refuses(&case("SignatureInvalid", "forged", forged));
    assert!(lower(&mut device) < before + 1_000);
    device.refuses(&case("TargetEmpty", "late", late));
    assert!(lower(&mut device) >= before + 1_000_000);
    device.start();
    assert!(lower(&mut device) >= before + 1_000_000, "it is kept");
}
