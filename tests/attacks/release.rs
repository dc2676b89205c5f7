//! Releases at the daemon: what it hands to the installer, and in which order; and that the installer goes by its own record.

use std::fs;
use std::path::PathBuf;

use tidegate::bundle::installer::{Installer, Taken};
use tidegate::bundle::manifest::{Permit, Target};
use tidegate::bundle::{EntryKind, Imported, is_taken, pack};
use tidegate::ids::{DeviceId, Digest};

use crate::world::{Device, device_facts, draft, golden, key, root};

/// A device, and the installer's folder beside its state.
struct Board {
    device: Device,
}

fn release_with(seq: u64, change: impl FnOnce(&mut pack::Draft)) -> Vec<u8> {
    let package = |kind: EntryKind| (kind, (kind.name().to_owned(), format!("!<arch>\n{kind} {seq}").into_bytes()));
    let mut draft = draft(seq, "");
    (draft.security_floor, draft.entries) = (0, EntryKind::PACKAGES.map(package).into());
    change(&mut draft);
    let unsigned = draft.assemble_release(&format!("0.{seq}.0"), &root()).expect("a sound release");
    pack::sign(&unsigned, &root(), &key(7)).expect("key 7 may sign")
}

fn release(seq: u64) -> Vec<u8> {
    release_with(seq, |_| ())
}

fn permit(seq: u64, from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut draft = draft(seq, "");
    (draft.security_floor, draft.target) = (0, Target::Devices(vec![device_facts().id]));
    draft.entries.clear();
    let permit = Permit { from: digest(from), to: digest(to) };
    pack::sign(&draft.assemble_permit(permit, &root()).expect("a sound permit"), &root(), &key(7)).expect("signed")
}

fn digest(bundle: &[u8]) -> Digest {
    pack::digest(bundle).expect("it has a digest")
}

impl Board {
    /// With an installer that has run, and nothing else.
    fn new() -> Self {
        let board = Self { device: Device::with_golden() };
        fs::create_dir(board.own("")).expect("the installer's folder");
        let seed = "09".repeat(32) + "\n";
        fs::write(board.device.state().join("device.key"), seed).expect("the device's key");
        board.installer();
        board
    }

    fn own(&self, name: &str) -> PathBuf {
        self.device.folder.path().join("state-release").join(name)
    }

    fn handed(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.device.state().join("release").join(name)).ok()
    }

    fn installer(&self) -> Installer {
        Installer::open(&self.own(""), &self.device.state(), root()).expect("it opens")
    }

    /// The name of the result. What was refused is not handed over, and what was handed over is what was offered.
    fn offers(&mut self, bundle: &[u8], name: &str) -> &'static str {
        let before = self.handed(name);
        let result = self.device.offer(bundle).result.name();
        let after = if matches!(result, "HandedOver" | "Permitted") { Some(bundle.to_vec()) } else { before };
        assert!(self.handed(name) == after, "{result}");
        result
    }

    fn release(&mut self, bundle: &[u8]) -> &'static str {
        self.offers(bundle, "release.tgb")
    }

    /// The installer takes what was handed over, and it serves, or does not.
    fn ends(&self, serves: bool) -> &'static str {
        let Taken { permit, release } = self.installer().take().expect("it takes");
        let ended = match release.expect("a release was handed over") {
            Ok(Some(_)) if serves => self.installer().installed().map(|()| "Installed").expect("noted"),
            Ok(Some(_)) => self.installer().failed().map(|()| "Failed").expect("noted"),
            Ok(None) => "AlreadyInstalled",
            Err(refused) => refused.name(),
        };
        assert!(permit.is_none_or(|permit| permit.is_ok()), "{ended}");
        let _ = fs::remove_file(self.own("next"));
        assert!(self.handed("release.tgb").is_none() && self.handed("permit.tgb").is_none());
        ended
    }
}

#[test]
fn a_release_goes_to_the_installer_as_it_came_and_changes_nothing_of_the_policy() {
    let mut board = Board::new();
    let before = board.device.kept();
    let outcome = board.device.offer(&release(1));
    assert!(matches!(&outcome.result, Imported::HandedOver { version, seq: 1 } if version == "0.1.0"), "{outcome:?}");
    assert_eq!((outcome.receipt.result.as_str(), outcome.receipt.seq), ("HandedOver", Some(1)));
    assert!(is_taken("HandedOver") && outcome.receipt.detail.contains("tidegate release status"), "{outcome:?}");
    assert_eq!(board.device.kept(), before);
    assert_eq!(board.device.journal().last().expect("a line").result, "HandedOver");
    board.device.still_serves_golden();
    assert!(board.handed("release.tgb").is_some_and(|bytes| bytes == release(1)));
    assert_eq!(board.ends(true), "Installed");
    assert_eq!(board.release(&release(1)), "AlreadyInstalled");
}

#[test]
fn where_nothing_installs_releases_the_receipt_says_so() {
    let mut device = Device::with_golden();
    let outcome = device.offer(&release(1));
    assert_eq!(outcome.result.name(), "NoInstaller");
    assert!(outcome.receipt.detail.contains("by hand"), "{}", outcome.receipt.detail);
    assert!(!device.state().join("release").exists());
}

#[test]
fn numbers_of_releases_never_go_back_and_count_for_themselves() {
    let mut board = Board::new();
    // The golden policy has number 10; neither counts for the other.
    assert_eq!(board.release(&release(3)), "HandedOver");
    assert_eq!(board.release(&release(2)), "Rollback", "a later one waits");
    assert_eq!(board.release(&release(3)), "HandedOver", "the same again");
    assert_eq!(board.ends(true), "Installed");
    for (seq, name) in [(1, "Rollback"), (2, "Rollback"), (3, "AlreadyInstalled"), (4, "HandedOver")] {
        assert_eq!(board.release(&release(seq)), name, "{seq}");
    }
    assert_eq!(board.ends(false), "Failed");
    assert_eq!(board.release(&release(4)), "KnownBad");
    assert_eq!(board.release(&release_with(4, |draft| draft.issued_at += 1)), "Equivocation");
    assert_eq!(board.release(&release(3)), "AlreadyInstalled", "it is what is installed");
    assert_eq!(board.release(&release_with(5, |draft| draft.security_floor = 5)), "HandedOver");
    assert_eq!(board.ends(true), "Installed");
    assert_eq!(board.release(&release(4)), "KnownBad");
    assert_eq!(board.release(&release(2)), "BelowSecurityFloor");
    board.device.still_serves_golden();
}

#[test]
fn a_permit_for_a_release_waits_with_the_installer_and_is_used_up() {
    let mut board = Board::new();
    for seq in [1, 2] {
        assert_eq!(board.release(&release(seq)), "HandedOver");
        assert_eq!(board.ends(true), "Installed");
    }
    assert_eq!(board.release(&release(1)), "Rollback", "the control");
    assert_eq!(board.offers(&permit(1, &release(1), &release(3)), "permit.tgb"), "PermitNotApplicable");
    assert_eq!(board.offers(&permit(1, &release(1), &release(2)), "permit.tgb"), "PermitUsed", "it is there already");
    let leave = permit(1, &release(2), &release(1));
    let before = board.device.kept();
    assert_eq!(board.offers(&leave, "permit.tgb"), "Permitted");
    assert_eq!(board.device.kept(), before, "it is none for policies");
    assert_eq!(board.release(&release(1)), "HandedOver");
    assert_eq!(board.ends(true), "Installed");
    assert_eq!(board.offers(&leave, "permit.tgb"), "PermitUsed");
    assert_eq!(board.release(&release(2)), "Rollback");
    // One for policies stays with the daemon.
    let other = crate::permit::permit(9, &golden(), &crate::permit::older());
    board.device.takes(&other);
    assert!(board.handed("permit.tgb").is_none());
}

#[test]
fn a_release_that_is_not_this_devices_is_refused_by_name() {
    let mut board = Board::new();
    let own = EntryKind::OWN_PACKAGE.expect("tests run on an architecture that has packages");
    let cases = [
        ("NotForThisDevice", release_with(1, |draft| drop(draft.entries.remove(&own)))),
        ("NotForThisDevice", release_with(1, |draft| draft.target = Target::Devices(vec![DeviceId([7; 16])]))),
        ("NotForThisDevice", {
            release_with(1, |draft| draft.target = Target::Labels([("site".into(), vec!["elsewhere".into()])].into()))
        }),
        ("Expired", release_with(1, |draft| draft.expires_at = Some(draft.issued_at - 1_000_000))),
    ];
    for (name, bundle) in cases {
        assert_eq!(board.release(&bundle), name);
    }
    let whole = release(1);
    for part in 0..16 {
        assert_eq!(board.release(&whole[..whole.len() * part / 16]), "Truncated", "{part} sixteenths");
    }
    // The role's key and no other: the policy's two, the root's, one of another deployment.
    let head = pack::head(&whole).expect("a head");
    let payload = &whole[head.bytes().len()..];
    for seeds in [&[4, 5][..], &[1, 2, 3], &[40]] {
        let kind = head.preamble().bundle_type;
        let bundle = crate::world::signed_bytes(kind, &[], head.manifest(), seeds, payload);
        assert_eq!(board.release(&bundle), "ThresholdNotMet", "{seeds:?}");
    }
    // The negative control: nothing but the signature was wrong with it.
    assert_eq!(board.release(&whole), "HandedOver");
}

#[test]
fn the_installer_goes_by_its_own_record_whatever_the_daemon_hands_over() {
    let mut board = Board::new();
    assert_eq!(board.release(&release(2)), "HandedOver");
    assert_eq!(board.ends(true), "Installed");
    let hand_over = |board: &Board, bundle: &[u8]| {
        fs::create_dir_all(board.device.state().join("release")).expect("the daemon's folder");
        fs::write(board.device.state().join("release/release.tgb"), bundle).expect("the daemon writes what it likes");
    };
    // A daemon that was taken over: its own judgement is none.
    for (bundle, name) in [(release(1), "Rollback"), (release_with(2, |d| d.issued_at += 1), "Equivocation")] {
        hand_over(&board, &bundle);
        assert_eq!(board.ends(true), name);
    }
    // It says that it is another device: the id that was first known counts.
    fs::write(board.device.state().join("device.key"), "01".repeat(32) + "\n").expect("written");
    let other = DeviceId::from(key(1).public().id());
    hand_over(&board, &release_with(3, |draft| draft.target = Target::Devices(vec![other])));
    assert_eq!(board.ends(true), "NotForThisDevice");
    hand_over(&board, &release_with(3, |draft| draft.target = Target::Devices(vec![device_facts().id])));
    assert_eq!(board.ends(true), "Installed");
    // What tells the daemon is no measure for the installer; broken, it is written anew.
    fs::write(board.own("seen"), b"rot").expect("written");
    hand_over(&board, &release(1));
    assert_eq!(board.ends(true), "Rollback");
    assert_eq!(board.release(&release(1)), "Rollback");
}

#[test]
fn what_the_daemon_hands_over_while_the_installer_takes_another_has_its_turn() {
    let mut board = Board::new();
    assert_eq!(board.release(&release(1)), "HandedOver");
    // Cut off after it had taken the name, and before it had judged it.
    let folder = board.device.state().join("release");
    fs::rename(folder.join("release.tgb"), folder.join("release.taken")).expect("renamed");
    assert_eq!(board.release(&release(2)), "HandedOver");
    let Taken { release: first, .. } = board.installer().take().expect("it takes");
    assert_eq!(first.expect("one").expect("sound").expect("new").seen.seq, 1);
    board.installer().installed().expect("noted");
    assert!(board.handed("release.tgb").is_some() && board.handed("release.taken").is_none());
    fs::remove_file(board.own("next")).expect("removed");
    assert_eq!(board.ends(true), "Installed");
    assert_eq!(board.installer().history().1.expect("a number").seq, 2);
}

#[test]
fn a_record_of_the_installer_that_rotted_installs_nothing() {
    let mut board = Board::new();
    assert_eq!(board.release(&release(1)), "HandedOver");
    assert_eq!(board.ends(true), "Installed");
    for which in ["state.0", "state.1"] {
        if board.own(which).exists() {
            fs::write(board.own(which), b"rot").expect("written");
        }
    }
    let refused = Installer::open(&board.own(""), &board.device.state(), root()).expect_err("both are broken");
    assert!(format!("{refused:?}").contains("remove state.0 and state.1"), "{refused:?}");
}
