//! A state folder survives versions, up and down: docs/upgrades.md has the rule.
//!
//! `tests/fixtures/state/v1` is the folder as the first version left it; it is never made again. Every version must start on
//! it and find all that is in it, and must write records that the frozen readers here, which share no code with the
//! program, still read: they are the version before. What a later version may leave is tolerated, or refused by name with
//! nothing changed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use tidegate::bundle::{Imported, Importer, OpenError, journal};
use tidegate::disk::Machine;
use tidegate::ids::Digest;

use crate::generator::{documents, lists, sound};
use crate::world::{Device, compile};

/// Of the fixture's names and bytes.
const FIXTURE: &str = "c6b4dee20533b065bfc9911d51882057a070042d77dd6e728aa4d17876f059d8";
/// The formats that the version before reads.
const STATE: u8 = 3;
const ENROLMENT: u8 = 2;
const TIME: u8 = 2;

fn fixture() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/state/v1"))
}

/// A device that was never started.
fn off() -> Device {
    let folder = tempfile::tempdir().expect("a folder");
    Device::off(folder, Arc::new(Machine), sound::root().bytes(), sound::device(), compile)
}

/// All files below a folder, by their path in it.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let name = entry.file_name().into_string().expect("a name");
        if entry.path().is_dir() {
            found.extend(files(&entry.path()).into_iter().map(|(below, bytes)| (format!("{name}/{below}"), bytes)));
        } else {
            found.insert(name, fs::read(entry.path()).expect("a file"));
        }
    }
    found
}

/// The device of the fixture, off.
fn old() -> Device {
    let device = off();
    for (name, bytes) in files(&fixture()) {
        let path = device.state().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, bytes).expect("written");
    }
    device
}

/// The reader of two alternating records, frozen: which file is the newest, its counter, and the body.
fn newest(folder: &Path, name: &str) -> (PathBuf, u64, Vec<u8>) {
    let read = |which: u8| {
        let path = folder.join(format!("trust/{name}.{which}"));
        let record = fs::read(&path).ok()?;
        let (signed, checksum) = record.split_at(record.len().checked_sub(8)?);
        assert_eq!(digest(&SHA256, signed).as_ref()[..8], *checksum, "{name}.{which}");
        assert_eq!(&signed[..4], b"TGP1");
        let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |n, byte| n << 8 | u64::from(*byte));
        assert_eq!(number(&signed[4..8]), signed.len() as u64 - 16);
        Some((path, number(&signed[8..16]), signed[16..].to_vec()))
    };
    [0, 1].into_iter().filter_map(read).max_by_key(|(_, counter, _)| *counter).expect("a record")
}

/// What the frozen reader of state record 3 finds: epoch, highest number, active and previous digest, root version, list,
/// what the permit leads to.
fn state(device: &Device) -> (u64, u64, [String; 2], u64, String, String) {
    let (_, _, body) = newest(&device.state(), "state");
    assert_eq!((body[0], body.len()), (STATE, 874), "a format that the version before does not read: docs/upgrades.md");
    let number = |at: usize| body[at..at + 8].iter().fold(0_u64, |n, byte| n << 8 | u64::from(*byte));
    let text = |at: usize| body[at..at + 32].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    (number(1), number(9), [text(57), text(89)], number(121), text(217), text(329))
}

fn list() -> Vec<u8> {
    lists::parts().signed(&sound::LISTS)
}

fn next() -> Vec<u8> {
    sound::policy(sound::SEQ + 1, "next")
}

fn leave() -> Vec<u8> {
    sound::permit(1, &next(), &sound::older())
}

fn text(digest: Digest) -> String {
    digest.to_string()
}

/// Everything of the fixture is in force.
fn serves_all(device: &Device) {
    let serving = device.serving.as_ref().map(|(digest, _)| *digest);
    assert_eq!(serving, Some(sound::digest(&next())));
    assert_eq!(device.list.as_ref().map(|(digest, _)| *digest), Some(sound::digest(&list())));
    let labels = &device.importer.as_ref().expect("it runs").device().labels;
    assert_eq!(labels.get("site").map(String::as_str), Some("quay"));
    let (epoch, highest, [active, previous], root, of_list, permitted) = state(device);
    assert_eq!((epoch, highest, root), (1, sound::SEQ + 1, 2));
    assert_eq!([active, previous], [text(sound::digest(&next())), text(sound::digest(&sound::golden()))]);
    assert_eq!((of_list, permitted), (text(sound::digest(&list())), text(sound::digest(&sound::older()))));
}

#[test]
#[ignore = "made the folder, once; a folder of a later version gets a name of its own"]
fn write_the_state() {
    let mut device = off();
    device.start();
    for bundle in [sound::golden(), list(), documents::enrolment(7, "quay"), next(), leave()] {
        device.takes(&bundle);
    }
    device.start();
    device.importer = None;
    for (name, bytes) in files(&device.state()).into_iter().filter(|(name, _)| name != "lock") {
        let path = fixture().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, bytes).expect("written");
    }
}

#[test]
fn the_fixture_is_what_it_was() {
    let all: Vec<u8> =
        files(&fixture()).into_iter().flat_map(|(name, bytes)| [name.into_bytes(), bytes].concat()).collect();
    assert_eq!(text(tidegate::keys::sha256(&all)), FIXTURE);
}

#[test]
fn what_the_first_version_left_serves_and_goes_on() {
    let mut device = old();
    device.start();
    serves_all(&device);
    assert!(device.journal().len() > 5, "the journal's chain goes on");
    // The permit that waited leads back, and what is older than what was seen stays out.
    assert_eq!(device.offer(&sound::golden()).result.name(), "PermitDigestMismatch");
    device.takes(&sound::older());
    device.start();
    assert_eq!(device.serving.as_ref().map(|(digest, _)| *digest), Some(sound::digest(&sound::older())));
}

#[test]
fn what_this_version_writes_the_version_before_reads() {
    let mut device = old();
    device.start();
    let later = sound::policy(sound::SEQ + 2, "later");
    device.takes(&later);
    device.takes(&documents::enrolment(8, "quay"));
    let time = device.importer.as_ref().expect("it runs").time();
    let moment = device.now();
    time.raise(sound::MADE_AT + 1_000_000, &moment.reading).expect("written");
    let (_, highest, [active, previous], ..) = state(&device);
    assert_eq!(highest, sound::SEQ + 2);
    assert_eq!([active, previous], [text(sound::digest(&later)), text(sound::digest(&next()))]);
    for (name, format) in [("enrolment", ENROLMENT), ("time", TIME)] {
        assert_eq!(newest(&device.state(), name).2[0], format, "{name}: docs/upgrades.md");
    }
    // A slot is the bundle in two parts, as it was.
    let slot = device.state().join("slots").join(text(sound::digest(&later)));
    let read = |name: &str| fs::read(slot.join(name)).expect("a file of the slot");
    assert_eq!(files(&slot).keys().collect::<Vec<_>>(), ["head", "issuers", "routes", "throttle"]);
    assert!([read("head"), read("issuers"), read("routes"), read("throttle")].concat().len() == later.len());
    assert!(later.starts_with(&read("head")));
    // Lines of the journal have the members that they had, and no event that the version before does not know.
    let events = ["started", "import", "root-rotated", "trial-passed", "fell-back", "safe-mode"];
    for line in device.journal() {
        let line = serde_json::to_value(&line).expect("JSON");
        assert!(events.contains(&line["event"].as_str().expect("a word")), "{line}: docs/upgrades.md");
    }
}

#[test]
fn files_and_members_that_a_later_version_left_are_in_nobodys_way() {
    let mut device = old();
    for name in
        ["releases.0", "trust/releases.0", "trust/later/deep", "later/deep/file", "slots/README", "journal/notes.txt"]
    {
        let path = device.state().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, b"of a later version").expect("written");
    }
    // A line of the journal with a member more.
    let journal = device.state().join("journal/00000001.jsonl");
    let text = fs::read_to_string(&journal).expect("the journal");
    let last = text.lines().last().expect("a line");
    let mut line: Value = serde_json::from_str(last).expect("JSON");
    line["prev"] = json!(tidegate::keys::sha256(last.as_bytes()));
    line["weather"] = "fair".into();
    fs::write(&journal, format!("{text}{line}\n")).expect("written");
    device.start();
    serves_all(&device);
    assert!(!device.journal().iter().any(|line| line.event == journal::Event::JournalBroken));
    let later = sound::policy(sound::SEQ + 2, "later");
    assert!(matches!(device.offer(&later).result, Imported::Activated(_)));
    for name in ["releases.0", "trust/releases.0", "trust/later/deep", "later/deep/file"] {
        assert!(device.state().join(name).exists(), "{name} is not ours to remove");
    }
}

#[test]
fn a_state_record_of_a_later_version_stops_the_start_and_changes_nothing() {
    let mut device = old();
    let (path, counter, mut body) = newest(&device.state(), "state");
    body[0] = STATE + 1;
    body.extend_from_slice(b"and more");
    let length = u32::try_from(body.len()).expect("short").to_be_bytes();
    let mut record = [&b"TGP1"[..], &length, &counter.to_be_bytes(), &body].concat();
    let checksum = digest(&SHA256, &record);
    record.extend_from_slice(&checksum.as_ref()[..8]);
    fs::write(path, record).expect("written");
    let kept = |device: &Device| {
        let all = files(&device.state()).into_iter();
        all.filter(|(name, _)| name != "lock").collect::<BTreeMap<_, _>>()
    };
    let (before, now) = (kept(&device), device.now());
    let refused = Importer::open(Arc::new(Machine), device.settings(), compile, &now).map(|_| ());
    assert!(matches!(refused, Err(OpenError::Newer)), "{refused:?}");
    assert!(kept(&device) == before, "nothing is lost: the later version starts again");
}
