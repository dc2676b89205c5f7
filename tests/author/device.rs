//! A device's records at the desk: its journal in words, and its own judgement of what it was not yet given.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use tidegate::bundle::manifest::DeviceFacts;
use tidegate::bundle::{Importer, Medium, Moment, Settings, compile};
use tidegate::clock::Reading;
use tidegate::disk::Machine;
use tidegate::exit;
use tidegate::ids::DeviceId;

use crate::program::{done, refused};

/// A deployment in `p`, and a device whose state is in `state`, after it was offered `files`.
fn offer(at: &Path, files: &[&str]) {
    let device = DeviceFacts { id: DeviceId([9; 16]), labels: BTreeMap::new() };
    let settings = Settings {
        state: at.join("state"),
        root: at.join("p/root.json"),
        device,
        trial: std::time::Duration::from_secs(600),
    };
    let now = Moment { reading: Reading::now(), trusted: false };
    let mut importer = Importer::open(Arc::new(Machine), settings, compile, &now).expect("a device").importer;
    for file in files {
        drop(importer.import(&at.join(file), &Medium::Usb("0951:1666 A1".into()), &now));
    }
}

fn started() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    done(at, &["init", "p"]);
    fs::create_dir(at.join("state")).expect("a folder");
    for bundle in ["one.tgb", "two.tgb", "three.tgb"] {
        done(at, &["bundle", "build", "p", "-o", bundle, "--reason", "because"]);
        done(at, &["bundle", "sign", bundle, "--key", "p/keys/policy.key", "--yes"]);
    }
    offer(at, &["one.tgb", "two.tgb", "one.tgb"]);
    folder
}

/// Every file below a folder with its bytes.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("the folder") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            let bytes = fs::read(&path).expect("readable");
            found.insert(path, bytes);
        }
    }
    found
}

#[test]
fn a_bundle_is_judged_by_what_a_device_has_seen_and_nothing_of_it_is_changed() {
    let folder = started();
    let at = folder.path();
    let before = contents(&at.join("state"));
    let verify = |file| ["bundle", "verify", file, "--root", "p/root.json", "--state", "state"];
    assert!(done(at, &verify("three.tgb")).starts_with("accepted\n"));
    assert!(done(at, &verify("two.tgb")).contains("has it already"));
    assert!(
        refused(at, exit::DATA, &verify("one.tgb")).contains("refused: Rollback: sequence 1; the highest seen is 2")
    );
    // Without its records nobody knows: the control.
    assert!(done(at, &["bundle", "verify", "one.tgb", "--root", "p/root.json"]).starts_with("accepted\n"));
    // A damaged record is made good from the slots, as the device would; the file stays as it is.
    let record = at.join("state/trust/state.0");
    fs::write(&record, b"rot").expect("written");
    assert!(refused(at, exit::DATA, &verify("one.tgb")).contains("refused: Rollback"));
    assert_eq!(fs::read(&record).expect("the record"), b"rot");
    fs::write(&record, &before[&record]).expect("written");
    assert_eq!(contents(&at.join("state")), before);
    refused(at, exit::IO, &["bundle", "verify", "one.tgb", "--root", "p/root.json", "--state", "none"]);
}

#[test]
fn an_enrolment_and_a_time_reset_are_judged_as_the_device_does() {
    let folder = started();
    let at = folder.path();
    tidegate::store::device_key::open(&at.join("state"), None).expect("made");
    let before = contents(&at.join("state"));
    let verify = |file, more: &[&'static str]| [&["bundle", "verify", file, "--root", "p/root.json"], more].concat();
    let state = ["--state", "state"];
    done(at, &["device", "request", "--state", "state", "-o", "ask.tgd"]);
    let enrol = ["device", "enrol", "ask.tgd", "--key", "p/keys/policy.key", "--seq", "1", "--yes", "-o", "labels.tgd"];
    done(at, &enrol);
    assert!(done(at, &verify("labels.tgd", &state)).starts_with("accepted\n"));
    let elsewhere = refused(at, exit::DATA, &verify("labels.tgd", &["--device", "00000000000000000000000000000001"]));
    assert!(elsewhere.contains("refused: NotForThisDevice"), "{elsewhere}");
    assert!(refused(at, exit::DATA, &verify("ask.tgd", &state)).contains("refused: TypeMismatch"));

    let reset = ["time", "reset", "--root", "p/root.json", "--key", "p/keys/root-1.key", "--key", "p/keys/root-2.key"];
    let when = ["--at", "1900000000", "--undoes", "4000000000", "--author", "ops", "--all", "--yes", "-o", "r.tgb"];
    done(at, &[&reset[..], &when].concat());
    let needless = refused(at, exit::DATA, &verify("r.tgb", &state));
    assert!(needless.contains("refused: ResetNotApplicable: it takes back a floor of 4000000000"), "{needless}");
    refused(at, exit::DATA, &verify("r.tgb", &["--now", "3999999999"]));
    assert!(done(at, &verify("r.tgb", &["--now", "4000000000"])).starts_with("accepted\n"));
    assert!(done(at, &verify("r.tgb", &[])).starts_with("accepted\n"), "of a device that nobody knows");
    assert_eq!(contents(&at.join("state")), before);
}

#[test]
fn a_list_is_judged_by_the_one_that_the_device_has() {
    let folder = started();
    let at = folder.path();
    for (output, seq, token) in [("list-1.tgb", "1", "t-1"), ("list-2.tgb", "2", "t-2")] {
        done(at, &["revoke", "p", "-o", output, "--seq", seq, "--issuer", "site", "--jti", token]);
        done(at, &["bundle", "sign", output, "--key", "p/keys/revocation.key", "--yes"]);
    }
    offer(at, &["list-1.tgb"]);
    let verify = ["bundle", "verify", "list-2.tgb", "--root", "p/root.json"];
    let with_records = [&verify[..], &["--state", "state"]].concat();
    assert!(refused(at, exit::DATA, &with_records).contains("refused: RevocationShrunk: it lacks the id"));
    assert!(done(at, &verify).starts_with("accepted\n"), "without the records");
}

/// What asks to be confirmed is shown with its digest, and is not written before.
fn confirmed(at: &Path, line: &[&str], output: &str) {
    let unasked = refused(at, exit::DATA, line);
    let (shown, digest) = unasked.split_once("--confirm ").expect("it says how");
    let digest = digest.trim();
    assert!(shown.contains("digest  ") && shown.contains(digest), "{unasked}");
    let other = refused(at, exit::DATA, &[line, &["--confirm", &"ab".repeat(32)]].concat());
    assert!(other.contains("not signed: its digest is"), "{other}");
    assert!(!at.join(output).exists(), "{output}");
    done(at, &[line, &["--confirm", digest]].concat());
    fs::remove_file(at.join(output)).expect("written");
    done(at, &[line, &["--yes"]].concat());
    assert!(at.join(output).exists(), "{output}");
}

#[test]
fn labels_and_time_resets_are_signed_only_when_their_digest_is_confirmed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    done(at, &["init", "p"]);
    // A device whose key is no file of its state folder.
    fs::create_dir(at.join("credentials")).expect("a folder");
    let key = tidegate::store::device_key::open(&at.join("credentials"), None).expect("made");
    let id = DeviceId::from(key.public().id()).to_string();
    let asked = done(at, &["device", "request", "--device-key", "credentials/device.key", "-o", "ask.tgd"]);
    assert!(asked.contains(&id), "{asked}");
    refused(at, exit::IO, &["device", "request", "--state", ".", "-o", "none.tgd"]);

    let enrol = ["device", "enrol", "ask.tgd", "--key", "p/keys/policy.key", "--label", "site=quay", "--seq", "1"];
    confirmed(at, &[&enrol[..], &["--now", "1800000000", "-o", "labels.tgd"]].concat(), "labels.tgd");
    let too = ["device", "enrol", "labels.tgd", "--key", "p/keys/hub.key", "-o", "both.tgd"];
    confirmed(at, &too, "both.tgd");

    let reset = ["time", "reset", "--root", "p/root.json", "--key", "p/keys/root-1.key", "--at", "1800000000"];
    let reset = [&reset[..], &["--undoes", "1900000000", "--author", "ops", "--seq", "1", "-o", "r.tgb"]].concat();
    let told = refused(at, exit::USAGE, &reset);
    assert!(told.contains("<--device <ID>|--all>"), "{told}");
    confirmed(at, &[&reset[..], &["--all"]].concat(), "r.tgb");
    let sign = ["time", "sign", "r.tgb", "--root", "p/root.json", "--key", "p/keys/root-2.key"];
    let before = fs::read(at.join("r.tgb")).expect("made");
    let unasked = refused(at, exit::DATA, &sign);
    let digest = unasked.split_once("--confirm ").expect("it says how").1.trim();
    assert_eq!(fs::read(at.join("r.tgb")).expect("made"), before);
    assert!(done(at, &[&sign[..], &["--confirm", digest]].concat()).contains("2 of 2 signatures"));
}

#[test]
fn a_journal_is_told_in_words_and_its_break_by_its_place() {
    let folder = started();
    let at = folder.path();
    let show = ["journal", "show", "--verify", "--state", "state"];
    let told = done(at, &show);
    for line in [
        "started: Nothing",
        "import: Activated",
        "import: Rollback",
        "file two.tgb",
        "by usb 0951:1666 A1",
        "reason because",
        "each follows the one before",
    ] {
        assert!(told.contains(line), "wanted {line} in {told}");
    }
    let said: Value = serde_json::from_str(&done(at, &["journal", "show", "state/journal", "--json"])).expect("JSON");
    assert_eq!(said["lines"].as_array().expect("lines").iter().filter(|line| line["result"] == "Activated").count(), 2);

    let file = at.join("state/journal/00000001.jsonl");
    let text = fs::read_to_string(&file).expect("the journal");
    // A power cut in the middle of a line is told, and is no break.
    fs::write(&file, &text[..text.len() - 20]).expect("written");
    let told = done(at, &show);
    assert!(told.contains("note: 00000001.jsonl: line 4: it was not written to its end"), "{told}");
    // Somebody who tidies a line up is.
    fs::write(&file, text.replacen("one.tgb", "two.tgb", 1)).expect("written");
    let told = refused(at, exit::DATA, &show);
    assert!(told.contains("BROKEN: 00000001.jsonl: line 3: it does not follow the line before"), "{told}");
    let told = done(at, &["journal", "show", "state/journal/00000001.jsonl"]);
    assert!(told.contains("BROKEN"), "told without --verify too: {told}");
    refused(at, exit::IO, &["journal", "show", "none"]);
    refused(at, exit::USAGE, &["journal", "show"]);
}

#[test]
fn the_key_is_made_once_and_by_nobody_but_the_folders_owner() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    std::fs::create_dir(at.join("state")).expect("a folder");
    let id = done(at, &["device", "key", "--state", "state"]);
    assert_eq!(id.trim().len(), 32, "{id}");
    assert_eq!(done(at, &["device", "key", "--state", "state"]), id);
    assert!(done(at, &["device", "request", "--state", "state", "-o", "ask.tgd"]).contains(id.trim()));
    refused(at, exit::IO, &["device", "key", "--state", "none"]);
    if !rustix::process::geteuid().is_root() {
        println!("only root can give a folder to another user: not tried that the key is not made there");
        return;
    }
    std::fs::create_dir(at.join("theirs")).expect("a folder");
    std::os::unix::fs::chown(at.join("theirs"), Some(4711), None).expect("given away");
    let error = refused(at, exit::IO, &["device", "key", "--state", "theirs"]);
    assert!(error.contains("user 4711"), "{error}");
    assert!(!at.join("theirs/device.key").exists());
}
