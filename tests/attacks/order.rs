//! Step 12: no bundle from before, and no second one of the same number.

use tidegate::bundle::journal::OFFER_BURST;
use tidegate::bundle::pack::Draft;
use tidegate::bundle::{Imported, Medium};

use crate::world::{Device, GOLDEN_SEQ, bundle, case, draft, golden, root, sign};

#[test]
fn a_bundle_that_follows_another_is_taken_where_that_one_serves() {
    let mut device = Device::with_golden();
    let digest = |bytes: &[u8]| tidegate::bundle::pack::digest(bytes).expect("a head");
    let following = |seq: u64, text: &str, base: &[u8]| {
        let draft = Draft { base: Some(digest(base)), ..draft(seq, text) };
        sign(&draft.assemble(&root()).expect("a sound draft"))
    };
    let (second, third) =
        (following(GOLDEN_SEQ + 1, "second", &golden()), following(GOLDEN_SEQ + 2, "third", &golden()));
    device.takes(&second);
    assert_eq!(device.offer(&third).result.name(), "DeltaBaseMismatch");
    assert!(matches!(device.offer(&second).result, Imported::AlreadyInstalled), "it serves, whatever it followed");
}

#[test]
fn the_active_bundle_again_is_success_and_changes_nothing() {
    let mut device = Device::with_golden();
    let before = device.kept();
    assert!(matches!(device.offer(&golden()).result, Imported::AlreadyInstalled));
    assert_eq!(device.kept(), before);
    assert_eq!(device.journal().last().expect("a line").result, "AlreadyInstalled");
}

#[test]
fn the_active_bundle_offered_again_and_again_does_not_fill_the_journal() {
    let mut device = Device::with_golden();
    let path = device.folder.path().join("in/offered.tgb");
    let (now, before) = (device.now(), device.journal().len());
    for _ in 0..60 {
        std::fs::write(&path, golden()).expect("written");
        let outcome = device.importer.as_mut().expect("it runs").import(&path, &Medium::Inbox, &now);
        assert!(matches!(outcome.result, Imported::AlreadyInstalled));
    }
    assert!(device.journal().len() - before <= OFFER_BURST as usize);
    device.offer(b"garbage");
    let told = device.journal().len() - before;
    assert_eq!(device.journal().last().expect("a line").suppressed, 60 - (told as u64 - 1), "the rest is counted");
}

#[test]
fn no_garbage_keeps_two_bundles_of_one_number_out_of_the_journal() {
    let mut device = Device::with_golden();
    let (path, now) = (device.folder.path().join("in/offered.tgb"), device.now());
    let mut offer = |bytes: &[u8]| {
        std::fs::write(&path, bytes).expect("written");
        let outcome = device.importer.as_mut().expect("it runs").import(&path, &Medium::Inbox, &now);
        let told = device.journal();
        (outcome.result.name(), told.len(), told.last().expect("a line").result.clone())
    };
    let full = (0..60).map(|_| offer(b"garbage").1).last().expect("lines");
    assert_eq!(offer(b"garbage").1, full, "the control: the allowance is used up");
    for (number, text) in ["other", "yet another"].into_iter().enumerate() {
        for _ in 0..3 {
            let (name, lines, last) = offer(&bundle(GOLDEN_SEQ, text));
            assert_eq!((name, last.as_str()), ("Equivocation", "Equivocation"));
            assert_eq!(lines, full + number + 1, "once each");
        }
    }
    // Whoever has the keys for it writes no more than some lines more.
    let flooded = (0..60).map(|n| offer(&bundle(GOLDEN_SEQ, &format!("flood {n}"))).1).last().expect("lines");
    assert!(flooded <= full + 16, "{flooded}");
}

#[test]
fn the_next_bundle_is_taken_and_the_one_before_never_again() {
    let mut device = Device::with_golden();
    device.takes(&bundle(GOLDEN_SEQ + 1, "next"));
    device.refuses(&case("Rollback", "the one before", golden()));
    device.start();
    device.refuses(&case("Rollback", "after a restart", golden()));
    assert_eq!(device.serving.as_ref().expect("it serves").1, "next");
}

#[test]
fn the_security_floor_rises_with_a_bundle_and_stays() {
    let mut device = Device::with_golden();
    let mut raised = draft(GOLDEN_SEQ + 5, "raised");
    raised.security_floor = GOLDEN_SEQ + 4;
    device.takes(&sign(&raised.assemble(&root()).expect("a sound draft")));
    device.start();
    device.refuses(&case("BelowSecurityFloor", "below the raised floor", bundle(GOLDEN_SEQ + 3, "late")));
    device.refuses(&case("SecurityFloorInvalid", "a floor that goes back", bundle(GOLDEN_SEQ + 6, "lower")));
}
