//! Time resets: the root's way back from a floor that was raised too far, and what must not pass for one.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate::bundle::container::{Signature, signature_block};
use tidegate::bundle::reset::{self, MAGIC, MEDIA_TYPE};
use tidegate::bundle::root::RootDocument;
use tidegate::bundle::{Imported, Importer, Medium, Moment, canonical, pack};
use tidegate::clock::Reading;
use tidegate::disk::Machine;
use tidegate::store::time::{BUILD_TIME, TimeFloor};

use crate::rotation::{link, third};
use crate::world::{
    Device, GOLDEN_AT, GOLDEN_SEQ, ascending, bundle, case, compile, device_facts, draft, key, root, sign,
};

const DAY: i64 = 86_400;
/// What the resets here set the floor to.
const RIGHT: i64 = BUILD_TIME + 30 * DAY;
/// Where a signer's clock was.
const WRONG: i64 = BUILD_TIME + 9 * 365 * DAY;

fn value(seq: u64) -> Value {
    json!({
        "at": RIGHT,
        "author": {"reason": "the clock at the desk was wrong", "tool": "tests", "who": "Ada"},
        "deployment": "harbour",
        "epoch": 1,
        "seq": seq,
        "target": {"devices": [device_facts().id]},
        "type": "time-reset",
        "undoes": WRONG,
    })
}

pub fn laid(document: &[u8], signatures: &[Signature]) -> Vec<u8> {
    let length = u32::try_from(document.len()).expect("short").to_be_bytes();
    [&MAGIC[..], &[0, 1], &length, document, &signature_block(signatures)].concat()
}

pub fn signed_as(media_type: &str, document: &[u8], seeds: &[u8]) -> Vec<u8> {
    let one = |seed: &u8| Signature { key: key(*seed).public().id(), bytes: key(*seed).sign(media_type, document) };
    laid(document, &ascending(seeds.iter().map(one).collect()))
}

pub(crate) fn reset_with(seq: u64, seeds: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut document = value(seq);
    change(&mut document);
    signed_as(MEDIA_TYPE, &canonical::write(&document).expect("canonical"), seeds)
}

fn good(seq: u64) -> Vec<u8> {
    reset_with(seq, &[1, 2], |_| ())
}

fn floor(device: &Device) -> TimeFloor {
    device.importer.as_ref().expect("it runs").time().floor()
}

fn lower(device: &Device) -> i64 {
    // Within hours: the clock of these devices counts a minute a call.
    let hour = Duration::from_secs(60 * 60);
    floor(device).bounds(&Reading { wall_ms: 0, boot: hour }, false).lower
}

fn near(floor: i64, expected: i64) -> bool {
    (expected..expected + DAY).contains(&floor)
}

/// A device whose active policy says that it was made nine years ahead.
fn led_astray() -> Device {
    let mut device = Device::with_golden();
    device.takes(&astray(GOLDEN_SEQ + 1));
    assert!(near(lower(&device), WRONG));
    device
}

fn astray(seq: u64) -> Vec<u8> {
    let mut draft = draft(seq, "astray");
    draft.issued_at = WRONG;
    sign(&draft.assemble(&root()).expect("a sound draft"))
}

#[test]
fn a_reset_that_a_device_had_no_need_of_winds_its_clock_back_at_no_later_day() {
    let mut device = Device::with_golden();
    for days in [1_i64, 100, 3_000] {
        let mut next = draft(GOLDEN_SEQ + days.unsigned_abs(), "next");
        next.issued_at = RIGHT + days * DAY;
        device.takes(&sign(&next.assemble(&root()).expect("a sound draft")));
        let before = floor(&device);
        device.refuses(&case("ResetNotApplicable", format!("{days} days on"), good(1)));
        assert_eq!(floor(&device), before);
    }
    // The control: it is good where the floor is as far ahead as it says.
    device.takes(&astray(GOLDEN_SEQ + 4_000));
    assert!(matches!(device.offer(&good(1)).result, Imported::TimeReset { .. }));
    assert!(near(lower(&device), RIGHT));
}

#[test]
fn a_reset_is_the_way_back_and_works_once() {
    let mut device = led_astray();
    let outcome = device.offer(&good(3));
    assert!(
        matches!(outcome.result, Imported::TimeReset { from, to } if near(from, WRONG) && to == RIGHT),
        "{outcome:?}"
    );
    let line = device.journal().pop().expect("a line");
    assert_eq!((line.result.as_str(), line.seq, line.signers.len()), ("TimeReset", Some(3), 2));
    assert!(near(line.at, RIGHT) && line.detail.contains(&RIGHT.to_string()), "{line:?}");
    // Replayed, and any before it.
    for seq in [3, 2, 1] {
        let before = floor(&device);
        device.refuses(&case("Rollback", format!("number {seq}"), good(seq)));
        assert_eq!(floor(&device), before);
    }
    // The policy that led astray serves on, and neither a start nor its coming again moves the floor.
    device.start();
    assert_eq!(device.serving.as_ref().expect("it serves").1, "astray");
    assert!(near(lower(&device), RIGHT));
    assert!(matches!(device.offer(&astray(GOLDEN_SEQ + 1)).result, Imported::AlreadyInstalled));
    assert!(near(lower(&device), RIGHT));
    device.refuses(&case("Rollback", "replayed after a start", good(3)));
    // A policy of today is not refused as one of long ago, and raises the floor as ever.
    let mut next = draft(GOLDEN_SEQ + 2, "next");
    (next.issued_at, next.expires_at) = (RIGHT + 10 * DAY, Some(RIGHT + 100 * DAY));
    let next = sign(&next.assemble(&root()).expect("a sound draft"));
    device.takes(&next);
    assert!(near(lower(&device), RIGHT + 10 * DAY));
}

#[test]
fn without_a_reset_a_policy_of_today_is_expired_on_a_device_that_was_led_astray() {
    let mut device = led_astray();
    let mut next = draft(GOLDEN_SEQ + 2, "next");
    (next.issued_at, next.expires_at) = (GOLDEN_AT, Some(RIGHT + 100 * DAY));
    device.refuses(&case("Expired", "the control", sign(&next.assemble(&root()).expect("a sound draft"))));
}

#[test]
fn a_new_epoch_counts_resets_anew_and_takes_none_of_the_one_before() {
    let mut device = led_astray();
    assert!(matches!(device.offer(&good(9)).result, Imported::TimeReset { .. }));
    let epoch: RootDocument = third(|draft| draft.epoch = 2);
    device.offer(&pack::with_chain(&astray(GOLDEN_SEQ + 1), &[link(&epoch, &[1, 2, 11, 12])]).expect("it fits"));
    let before = floor(&device);
    let old = good(10);
    assert_eq!(device.offer(&old).result.name(), "ThresholdNotMet", "its keys were rotated out");
    let of_old_epoch = reset_with(10, &[11, 12], |_| ());
    assert_eq!(device.offer(&of_old_epoch).result.name(), "EpochMismatch");
    assert_eq!(floor(&device), before);
    let first = reset_with(1, &[11, 12], |v| {
        (v["epoch"], v["at"], v["undoes"]) = (2.into(), (RIGHT - DAY).into(), RIGHT.into());
    });
    assert!(matches!(device.offer(&first).result, Imported::TimeReset { .. }));
}

#[test]
fn what_the_tool_makes_is_what_devices_take() {
    let made = reset::TimeReset {
        at: RIGHT,
        author: draft(1, "").author,
        deployment: "harbour".into(),
        epoch: 1,
        seq: 1,
        target: tidegate::bundle::manifest::Target::All,
        undoes: WRONG,
    };
    let unsigned = made.assemble().expect("sound");
    let once = reset::sign(&unsigned, &root(), &key(2)).expect("key 2 may");
    assert!(reset::sign(&once, &root(), &key(2)).is_err() && reset::sign(&once, &root(), &key(4)).is_err());
    let mut device = led_astray();
    device.refuses(&case("ThresholdNotMet", "half signed", once.clone()));
    let both = reset::sign(&once, &root(), &key(1)).expect("key 1 may");
    assert!(matches!(device.offer(&both).result, Imported::TimeReset { .. }));
    assert!(near(lower(&device), RIGHT));
}

#[test]
fn no_clock_and_no_jump_of_it_refuses_a_valid_bundle() {
    let clocks = [0, 59, -1, 1 << 31, 1 << 32, 4_291_747_200, 253_402_300_799, i64::MIN, i64::MAX];
    let moments = clocks.iter().flat_map(|a| clocks.map(|b| (*a, b))).zip([true, false].into_iter().cycle());
    let mut device = Device::new(Arc::new(Machine));
    let mut seq = GOLDEN_SEQ;
    let file = device.folder.path().join("in/next.tgb");
    for ((first, second), trusted) in moments {
        seq += 1;
        let boot = Duration::from_secs(seq);
        let moment = |wall: i64| Moment { reading: Reading { wall_ms: wall.saturating_mul(1_000), boot }, trusted };
        // A restart at one clock, an import at another, and the list of what is revoked after it.
        device.importer = None;
        let opened = Importer::open(Arc::clone(&device.disk), device.settings(), compile, &moment(first));
        let mut importer = opened.expect("it starts").importer;
        std::fs::write(&file, bundle(seq, "next")).expect("written");
        let outcome = importer.import(&file, &Medium::Inbox, &moment(second));
        assert_eq!(outcome.result.name(), "Activated", "{first}, then {second}, trusted {trusted}: {outcome:?}");
        let again = importer.import(&file, &Medium::Inbox, &moment(first));
        assert_eq!(again.result.name(), "AlreadyInstalled", "{second}, then {first}: {again:?}");
        for outcome in [&outcome, &again] {
            assert!(outcome.unrecorded.is_none(), "{first}, then {second}, trusted {trusted}: {outcome:?}");
            outcome.receipt.put_beside(&file, &key(9)).expect("a receipt");
        }
        let lower = importer.time().floor().bounds(&moment(0).reading, false).lower;
        assert!(near(lower, GOLDEN_AT), "no clock is written down: {lower}");
    }
}
