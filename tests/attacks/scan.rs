//! A stick: what of it is worth offering, and in which order.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use tidegate::bundle::inbox::MAX_CANDIDATES;
use tidegate::bundle::pack;
use tidegate::bundle::scan::{Scan, known_root, scan};

use crate::enrolment::enrolment;
use crate::permit::{older, permit};
use crate::rotation::{link, signed, third};
use crate::time::reset_with;
use crate::world::{Device, GOLDEN_SEQ, bundle, device_facts, golden, root};

fn names(scan: &Scan) -> Vec<String> {
    let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
    scan.candidates.iter().map(|candidate| name(&candidate.path)).collect()
}

#[test]
fn each_kind_is_offered_in_its_order_and_what_nobody_vouches_for_is_not() {
    let stick = tempfile::tempdir().expect("a folder");
    let put = |name: &str, bytes: &[u8]| fs::write(stick.path().join(name), bytes).expect("written");
    put("a-golden.tgb", &golden());
    put("b-next.tgb", &bundle(GOLDEN_SEQ + 1, "next"));
    put("c-permit.tgb", &permit(1, &golden(), &older()));
    put("d-enrolment.tgd", &enrolment(1, "quay"));
    put("e-garbage.tgb", b"garbage");
    let mut forged = bundle(GOLDEN_SEQ + 9, "forged");
    let at = forged.windows(4).position(|part| part == b"pier" || part == b"Ada\"").expect("the author");
    forged[at] ^= 1;
    put("f-forged.tgb", &forged);
    put("notes.txt", b"notes");
    symlink("b-next.tgb", stick.path().join("g-link.tgb")).expect("a link");
    fs::create_dir(stick.path().join("h-folder.tgb")).expect("a folder");
    mknodat(CWD, stick.path().join("i-pipe.tgb"), FileType::Fifo, Mode::RUSR, 0).expect("a pipe");
    let found = scan(stick.path(), &root(), Some(device_facts().id)).expect("few files");
    assert_eq!(names(&found), ["d-enrolment.tgd", "c-permit.tgb", "b-next.tgb", "a-golden.tgb"]);
    let why: Vec<_> = found.refused.iter().map(|(_, why)| why.name()).collect();
    let irregular = ["SourceNotRegular"; 3];
    assert_eq!(why, [&["BadMagic", "SignatureInvalid"], &irregular[..]].concat(), "{found:?}");
}

#[test]
fn what_brings_the_newest_root_comes_first_and_all_are_judged_by_it() {
    let stick = tempfile::tempdir().expect("a folder");
    let put = |name: &str, bytes: &[u8]| fs::write(stick.path().join(name), bytes).expect("written");
    let under_third = |seq, routes: &str| signed(&third(|_| ()), seq, routes, &[14, 15]);
    let chain = [link(&third(|_| ()), &[1, 2, 11, 12])];
    put("newest.tgb", &under_third(GOLDEN_SEQ + 5, "newest"));
    put("with-root.tgb", &pack::with_chain(&under_third(GOLDEN_SEQ + 2, "older"), &chain).expect("it fits"));
    put("old-keys.tgb", &bundle(GOLDEN_SEQ + 9, "by the keys that are given up"));
    let found = scan(stick.path(), &root(), None).expect("few files");
    assert_eq!(names(&found), ["with-root.tgb", "newest.tgb"]);
    assert!(matches!(&*found.refused, [(_, why)] if why.name() == "ThresholdNotMet"), "{found:?}");

    // Once the device has that root, the number alone decides.
    let mut device = Device::with_golden();
    device.takes(&fs::read(stick.path().join("with-root.tgb")).expect("there"));
    let known = known_root(&root(), &device.state());
    assert_eq!(known.version(), 3);
    let found = scan(stick.path(), &known, None).expect("few files");
    assert_eq!(names(&found), ["newest.tgb", "with-root.tgb"]);
    assert_eq!(known_root(&root(), stick.path()).version(), 2, "without a state folder the pinned one");
}

#[test]
fn a_time_reset_comes_first_unless_the_root_that_it_needs_has_to_come_before_it() {
    let stick = tempfile::tempdir().expect("a folder");
    let put = |name: &str, bytes: &[u8]| fs::write(stick.path().join(name), bytes).expect("written");
    put("reset-7.tgb", &reset_with(7, &[1, 2], |_| ()));
    put("reset-8.tgb", &reset_with(8, &[1, 2], |_| ()));
    put("enrolment.tgd", &enrolment(1, "quay"));
    put("forged.tgb", &reset_with(9, &[4, 5], |_| ()));
    put("another.tgb", &reset_with(9, &[1, 2], |v| v["target"] = serde_json::json!({"devices": ["08".repeat(16)]})));
    let found = scan(stick.path(), &root(), Some(device_facts().id)).expect("few files");
    assert_eq!(names(&found), ["reset-8.tgb", "reset-7.tgb", "enrolment.tgd"]);
    let why: Vec<_> = found.refused.iter().map(|(_, why)| why.name()).collect();
    assert_eq!(why, ["NotForThisDevice", "ThresholdNotMet"]);

    let under_third = signed(&third(|_| ()), GOLDEN_SEQ + 2, "older", &[14, 15]);
    let chain = [link(&third(|_| ()), &[1, 2, 11, 12])];
    put("with-root.tgb", &pack::with_chain(&under_third, &chain).expect("it fits"));
    put("reset-9.tgb", &reset_with(9, &[11, 12], |_| ()));
    let found = scan(stick.path(), &root(), None).expect("few files");
    assert_eq!(names(&found)[..2], ["with-root.tgb", "reset-9.tgb"], "{found:?}");
}

#[test]
fn a_crowded_stick_is_refused_and_other_files_do_not_count() {
    let stick = tempfile::tempdir().expect("a folder");
    for n in 0..MAX_CANDIDATES {
        fs::write(stick.path().join(format!("{n}.tgb")), b"").expect("written");
        fs::write(stick.path().join(format!("{n}.jpg")), b"").expect("written");
    }
    let found = scan(stick.path(), &root(), None).expect("as many as there may be");
    assert_eq!(found.refused.len(), MAX_CANDIDATES);
    fs::write(stick.path().join("one-more.tgb"), b"").expect("written");
    assert_eq!(scan(stick.path(), &root(), None).expect_err("too many").name(), "TooManyCandidates");
}
