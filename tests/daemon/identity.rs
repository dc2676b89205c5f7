//! Who the device is: what it signs, and what it is told of itself.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tidegate::bundle::Receipt;
use tidegate::bundle::journal::{self, Line};
use tidegate::disk::Machine;
use tidegate::ids::hex;
use tidegate::keys::{SigningKey, sha256};
use tidegate::store::device_key;
use tidegate::store::hardware::Hardware;

use crate::site::{Site, serves, skipped, until};
use crate::wire::upstream;

/// The device's key, as the daemon made it.
fn key(site: &Site) -> SigningKey {
    device_key::open(&site.path("state"), None).expect("the daemon made it")
}

fn journal(site: &Site) -> Vec<Line> {
    journal::read(&Machine, &site.path("state/journal")).expect("the chain holds")
}

/// The operator's command, whatever it ends with.
fn tidegate(site: &Site, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(arguments).current_dir(site.path("")).output().expect("it runs")
}

fn verify(site: &Site, receipt: &Path) -> (Option<i32>, String) {
    let receipt = receipt.to_str().expect("UTF-8");
    let output = tidegate(site, &["receipt", "verify", receipt, "--device-key", "device.pub"]);
    (output.status.code(), String::from_utf8(output.stdout).expect("text"))
}

#[test]
fn a_receipt_is_the_devices_word_and_names_its_place_in_the_journal() {
    let site = Site::new();
    let daemon = site.start();
    assert_eq!(daemon.takes("first.tgb", &site.bundle(upstream("one"))), "Activated");
    let path = site.path("inbox/first.tgb.result.json");
    let bytes = fs::read(&path).expect("a receipt");
    fs::write(site.path("device.pub"), hex(key(&site).public().raw()) + "\n").expect("written");
    let (code, told) = verify(&site, &path);
    assert!(code == Some(0) && told.starts_with("result   Activated\n"), "{told}");

    let receipt = Receipt::verify(&bytes, &key(&site).public()).expect("the device's own");
    let end = receipt.journal.expect("the journal was written");
    let file = fs::read(site.path(&format!("state/journal/{:08}.jsonl", end.file))).expect("the journal");
    let until_then = &file[..usize::try_from(end.length).expect("small")];
    let last = until_then.strip_suffix(b"\n").expect("whole lines").rsplit(|byte| *byte == b'\n').next();
    let last = last.expect("a line");
    assert_eq!(sha256(last), end.hash);
    let line: Line = serde_json::from_slice(last).expect("a line of the journal");
    assert_eq!((line.result, line.digest, line.boot), (receipt.result, receipt.digest, receipt.boot));

    // The control: another result, and another device.
    let forged = String::from_utf8(bytes).expect("text").replace("Activated", "Rejected!");
    fs::write(site.path("forged.json"), forged).expect("written");
    let (code, told) = verify(&site, &site.path("forged.json"));
    assert!(code == Some(65) && told.starts_with("refused: SignatureInvalid"), "{told}");
    let other = SigningKey::from_seed(&[1; 32]).expect("a seed makes a key");
    fs::write(site.path("device.pub"), hex(other.public().raw())).expect("written");
    let (code, told) = verify(&site, &path);
    assert!(code == Some(65) && told.starts_with("refused: ThresholdNotMet"), "{told}");
    daemon.stop();
}

#[test]
fn a_receipt_that_cannot_be_written_is_told_in_the_journal_and_stops_nothing() {
    let site = Site::new();
    let daemon = site.start();
    // No file can take the place of a folder: as good as a stick that takes none.
    fs::create_dir_all(site.path("inbox/first.tgb.result.part/deep")).expect("made");
    crate::site::drop_in(&site.path("inbox"), "first.tgb", &site.bundle(upstream("one")));
    let line = until("the journal tells of it", || {
        journal(&site).into_iter().find(|line| line.result == "Unreceipted" && line.file.is_some())
    });
    assert_eq!((line.file.as_deref(), line.medium.as_deref()), (Some("first.tgb"), Some("inbox")));
    serves(&site, &site.token(), "one");
    daemon.stop();
}

#[test]
fn a_device_asks_is_enrolled_by_stick_and_takes_the_bundles_of_its_labels() {
    let site = Site::new();
    let daemon = site.start();
    let asked = site.tidegate(&["device", "request", "--state", "state", "--label", "site=pier", "-o", "ask.tgd"]);
    assert!(asked.contains(&daemon.status().device.to_string()), "{asked}");
    let enrol = ["device", "enrol", "ask.tgd", "--yes", "--key", "policy/keys/policy.key", "--seq"];
    let told = site.tidegate(&[&enrol[..], &["2", "--label", "site=quay", "-o", "two.tgd"]].concat());
    assert!(told.contains("labels      site=quay\n") && told.contains("It is complete"), "{told}");
    site.tidegate(&[&enrol[..], &["1", "--labels-as-requested", "-o", "one.tgd"]].concat());
    let by_hub =
        ["device", "enrol", "ask.tgd", "--yes", "--key", "policy/keys/hub.key", "--seq", "3", "-o", "three.tgd"];
    let told = site.tidegate(&[&by_hub[..], &["--label", "site=quay"]].concat());
    assert!(told.contains("signed by the role hub"), "{told}");
    let wrong =
        tidegate(&site, &["device", "enrol", "ask.tgd", "--yes", "--key", "policy/keys/permit.key", "-o", "x.tgd"]);
    assert!(!wrong.status.success() && !site.path("x.tgd").exists());

    let bytes = |name: &str| fs::read(site.path(name)).expect("it was made");
    let deployment = fs::read_to_string(site.path("policy/deployment.toml")).expect("a file");
    fs::write(site.path("policy/deployment.toml"), format!("target = \"quay\"\n{deployment}")).expect("written");
    let targets = "[targets.quay]\nlabels = { site = [\"quay\"] }\n";
    fs::write(site.path("policy/targets.toml"), targets).expect("written");
    let labelled = site.bundle(upstream("quay"));
    assert_eq!(daemon.takes("early.tgb", &labelled), "NotForThisDevice");
    assert_eq!(daemon.takes("two.tgd", &bytes("two.tgd")), "Enrolled");
    assert_eq!(daemon.status().labels, [("site".to_owned(), "quay".to_owned())].into());
    assert_eq!(daemon.takes("one.tgd", &bytes("one.tgd")), "EnrolmentRollback");
    assert_eq!(daemon.takes("late.tgb", &labelled), "Activated");
    let receipt = site.path("inbox/late.tgb.result.json");
    let by_enrolment = ["receipt", "verify", receipt.to_str().expect("UTF-8"), "--enrolment", "two.tgd", "--root"];
    let told = site.tidegate(&[&by_enrolment[..], &["policy/root.json"]].concat());
    assert!(told.starts_with("result   Activated\n"), "{told}");
    daemon.stop();
    // The desk judges by the labels that the device goes by; the control, without its state or by others.
    fs::write(site.path("again.tgb"), &labelled).expect("written");
    let verify = ["bundle", "verify", "again.tgb", "--root", "policy/root.json"];
    let by_state = [&verify[..], &["--state", "state"]].concat();
    assert!(site.tidegate(&by_state).contains("has it already"));
    for other in [&verify[..], &[&by_state[..], &["--label", "site=pier"]].concat()] {
        let told = String::from_utf8(tidegate(&site, other).stdout).expect("text");
        assert!(told.starts_with("refused: NotForThisDevice"), "{told}");
    }

    let daemon = site.start();
    assert_eq!(daemon.status().labels, [("site".to_owned(), "quay".to_owned())].into());
    serves(&site, &site.token(), "quay");
    assert_eq!(daemon.takes("three.tgd", &bytes("three.tgd")), "Enrolled");
    daemon.stop();
}

#[test]
fn asking_makes_no_key() {
    let site = Site::new();
    fs::create_dir(site.path("empty")).expect("made");
    let asked = tidegate(&site, &["device", "request", "--state", "empty", "-o", "ask.tgd"]);
    assert!(!asked.status.success());
    assert!(fs::read_dir(site.path("empty")).expect("there").next().is_none() && !site.path("ask.tgd").exists());
}

#[test]
fn a_card_from_another_machine_is_told_until_it_is_enrolled_and_its_usage_is_parted() {
    let site = Site::new();
    let here = Hardware::here();
    if here == Hardware::default() {
        return skipped("this machine has neither a serial number nor a machine id");
    }
    let daemon = site.start();
    assert_eq!(daemon.takes("first.tgb", &site.bundle(upstream("one"))), "Activated");
    serves(&site, &site.token(), "one");
    daemon.stop();
    let state = site.path("state");
    let aside = site.path("state/spool/open.aside-1");

    // The control: the same machine.
    let daemon = site.start();
    assert_eq!((daemon.status().card, aside.exists()), (None, false));
    serves(&site, &site.token(), "one");
    daemon.stop();

    let elsewhere = Hardware::of(Some("another board"), Some("another system"));
    elsewhere.write(&state).expect("written");
    let moved = elsewhere.moved_to(&here).expect("it is another one").name();
    for _ in 0..2 {
        let daemon = site.start();
        assert_eq!(daemon.status().card.as_deref(), Some(moved));
        let metrics = daemon.ask("/metrics").expect("an answer").1;
        assert!(metrics.contains(&format!("tidegate_card_moved{{how=\"{moved}\"}} 1\n")), "{metrics}");
        serves(&site, &site.token(), "one");
        daemon.stop();
    }
    let told: Vec<_> = journal(&site).into_iter().filter(|line| line.result == moved).collect();
    assert!(told.len() == 1 && told[0].detail.contains("open.aside-1"), "once: {told:?}");
    assert!(fs::read_dir(&aside).expect("what was not sealed").next().is_some());
    assert!(!site.path("state/spool/open.aside-2").exists());

    let daemon = site.start();
    site.tidegate(&["device", "request", "--state", "state", "-o", "ask.tgd"]);
    site.tidegate(&["device", "enrol", "ask.tgd", "--yes", "--key", "policy/keys/policy.key", "-o", "anew.tgd"]);
    assert_eq!(daemon.takes("anew.tgd", &fs::read(site.path("anew.tgd")).expect("it was made")), "Enrolled");
    assert_eq!(daemon.status().card, None);
    daemon.stop();
    let daemon = site.start();
    assert_eq!(daemon.status().card, None);
    daemon.stop();
}
