//! The drop folder: which files are taken, which stay, and how many are kept.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::time::Duration;

use tidegate::bundle::inbox::{Inbox, MAX_CANDIDATES, MAX_REJECTED};
use tidegate::bundle::{Imported, Medium};

use crate::world::{Device, GOLDEN_SEQ, Policy, bundle};

pub const NAMES: &[&str] = &["TooManyCandidates"];

const LONG: Duration = Duration::from_secs(20);

fn refused() -> Imported<Policy> {
    Imported::Refused(tidegate::bundle::Refused::BadMagic("garbage".into()))
}

#[test]
fn a_file_is_ready_when_its_writer_closed_it_and_not_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut inbox = Inbox::open(folder.path()).expect("watched");
    let path = folder.path().join("a.tgb");
    let mut file = fs::File::create(&path).expect("created");
    file.write_all(b"half").expect("written");
    assert!(inbox.wait(Duration::ZERO).expect("looked").ready.is_empty(), "still open, and seen once");
    drop(file);
    assert_eq!(inbox.wait(LONG).expect("looked").ready, [path]);
    assert!(inbox.wait(Duration::ZERO).expect("looked").ready.is_empty(), "taken once");
}

#[test]
fn a_file_moved_in_is_ready_and_other_names_are_passed_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut inbox = Inbox::open(folder.path()).expect("watched");
    inbox.wait(Duration::ZERO).expect("looked");
    for name in [".hidden.tgb", "a.tgb.part", "notes.txt", "a.tgb.result.json"] {
        fs::write(folder.path().join(name), b"x").expect("written");
    }
    fs::write(folder.path().join("b.part"), b"x").expect("written");
    fs::rename(folder.path().join("b.part"), folder.path().join("b.tgb")).expect("moved");
    assert_eq!(inbox.wait(LONG).expect("looked").ready, [folder.path().join("b.tgb")]);
}

#[test]
fn what_lay_there_before_the_start_is_ready_once_it_rests() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.tgb");
    fs::write(&path, b"x").expect("written");
    let mut inbox = Inbox::open(folder.path()).expect("watched");
    assert!(inbox.look().expect("looked").ready.is_empty(), "it may still be growing");
    fs::OpenOptions::new().append(true).open(&path).and_then(|mut file| file.write_all(b"y")).expect("it grows");
    assert!(inbox.look().expect("looked").ready.is_empty(), "it did grow");
    assert_eq!(inbox.look().expect("looked").ready, [path]);
    assert!(inbox.look().expect("looked").ready.is_empty(), "taken once");
}

#[test]
fn a_folder_with_too_many_bundles_is_refused_whole_and_told() {
    let mut device = Device::with_golden();
    let folder = device.folder.path().join("in");
    let mut inbox = Inbox::open(&folder).expect("watched");
    for n in 0..=MAX_CANDIDATES {
        fs::write(folder.join(format!("{n}.tgb")), b"x").expect("written");
    }
    let look = inbox.look().expect("looked");
    let refused = look.refused.expect("too many");
    assert_eq!((refused.name(), look.ready.len()), ("TooManyCandidates", 0));
    let now = device.now();
    device.importer.as_mut().expect("it runs").record(&refused, &Medium::Inbox, &now).expect("written");
    assert_eq!(device.journal().last().expect("a line").result, "TooManyCandidates");
    device.still_serves_golden();
}

#[test]
fn an_accepted_file_goes_and_refused_ones_are_kept_up_to_a_number() {
    let mut device = Device::with_golden();
    let folder = device.folder.path().join("in");
    let mut inbox = Inbox::open(&folder).expect("watched");
    let good = folder.join("good.tgb");
    fs::write(&good, bundle(GOLDEN_SEQ + 1, "next")).expect("written");
    let outcome = device.import(&good);
    assert_eq!(outcome.result.name(), "Activated");
    inbox.settle(&good, &outcome.result).expect("settled");
    assert!(!good.exists() && folder.join("good.tgb.result.json").exists());

    for n in 0..MAX_REJECTED + 5 {
        let path = folder.join(format!("{n}.tgb"));
        // Every sort of thing that can stand there.
        match n % 3 {
            0 => fs::write(&path, b"garbage").expect("written"),
            1 => fs::create_dir_all(path.join("deep/er")).expect("made"),
            _ => symlink("/etc/passwd", &path).expect("linked"),
        }
        inbox.settle(&path, &refused()).expect("settled");
        assert!(fs::symlink_metadata(&path).is_err(), "{n} went");
    }
    assert_eq!(fs::read_dir(folder.join("rejected")).expect("the folder").count(), MAX_REJECTED);
    assert!(std::path::Path::new("/etc/passwd").exists());
}

#[test]
fn a_file_refused_for_lack_of_space_stays_and_is_taken_again_only_when_it_changes() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut inbox = Inbox::open(folder.path()).expect("watched");
    let path = folder.path().join("a.tgb");
    fs::write(&path, b"x").expect("written");
    assert_eq!(inbox.wait(LONG).expect("looked").ready.len(), 1);
    let full: Imported<Policy> = Imported::Refused(tidegate::bundle::Refused::NoSpace("full".into()));
    inbox.settle(&path, &full).expect("settled");
    assert!(path.exists());
    assert!(inbox.look().expect("looked").ready.is_empty());
    assert!(inbox.look().expect("looked").ready.is_empty());
    fs::write(&path, b"xy").expect("offered again");
    assert_eq!(inbox.wait(LONG).expect("looked").ready, [path]);
}
