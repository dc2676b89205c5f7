//! The drop folder: which files are taken, which stay, and how many are kept. Its other users may do anything in it.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidegate::bundle::Medium;
use tidegate::bundle::container::MAX_FILE;
use tidegate::bundle::inbox::{Inbox, MAX_CANDIDATES, MAX_PARTS, MAX_REJECTED, REST};

use crate::source::{Unkind, unkind};
use crate::world::{Device, GOLDEN_SEQ, bundle, golden, key};

const LONG: Duration = Duration::from_secs(20);

/// An inbox in a folder of its own.
fn alone() -> (TempDir, Inbox) {
    let folder = tempfile::tempdir().expect("a folder");
    let inbox = Inbox::open(folder.path(), &folder.path().join("rejected"), 0).expect("watched");
    (folder, inbox)
}

/// The inbox of a device, which keeps what it refuses in its state folder.
fn inbox(device: &Device) -> (PathBuf, Inbox) {
    let folder = device.folder.path().join("in");
    let _ = fs::remove_file(folder.join("offered.tgb"));
    let inbox = Inbox::open(&folder, &rejected(device), 0).expect("watched");
    (folder, inbox)
}

fn rejected(device: &Device) -> PathBuf {
    device.state().join("rejected")
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<_> = entries.map(|name| name.into_string().expect("text")).collect();
    names.sort();
    names
}

/// Imports what stands at `path` as the daemon does; the result's name.
fn judged(device: &mut Device, inbox: &mut Inbox, path: &Path) -> &'static str {
    judged_at(Instant::now(), device, inbox, path)
}

fn judged_at(now: Instant, device: &mut Device, inbox: &mut Inbox, path: &Path) -> &'static str {
    let outcome = device.import(path);
    inbox.settle(path, &outcome, now).expect("settled");
    outcome.result.name()
}

#[test]
fn a_file_is_ready_when_its_writer_closed_it_and_not_before() {
    let (folder, mut inbox) = alone();
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
    let (folder, mut inbox) = alone();
    inbox.wait(Duration::ZERO).expect("looked");
    for name in [".hidden.tgb", "a.tgb.part", "notes.txt", "a.tgb.result.json"] {
        fs::write(folder.path().join(name), b"x").expect("written");
    }
    fs::write(folder.path().join("b.part"), b"x").expect("written");
    fs::rename(folder.path().join("b.part"), folder.path().join("b.tgb")).expect("moved");
    assert_eq!(inbox.wait(LONG).expect("looked").ready, [folder.path().join("b.tgb")]);
}

#[test]
fn an_upload_that_stalls_is_left_to_its_writer_and_what_rests_long_enough_is_ready() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.tgb");
    let mut file = fs::File::create(&path).expect("created");
    file.write_all(b"half").expect("written");
    let mut inbox = Inbox::open(folder.path(), &folder.path().join("rejected"), 0).expect("watched");
    let start = Instant::now();
    let mut ready_at = |after: Duration| inbox.look(start + after).expect("looked").ready;
    for seconds in [0, 2, 4, 10, 30, 59] {
        assert!(ready_at(Duration::from_secs(seconds)).is_empty(), "silent for {seconds} s");
    }
    file.write_all(b"more").expect("it grows");
    assert!(ready_at(REST).is_empty(), "it did grow");
    assert!(ready_at(2 * REST - Duration::from_secs(1)).is_empty(), "silent again");
    assert_eq!(ready_at(2 * REST), [path]);
    assert!(ready_at(3 * REST).is_empty(), "taken once");
}

#[test]
fn what_rested_before_the_start_is_ready_at_once_and_what_was_just_written_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.tgb");
    fs::write(&path, b"x").expect("written");
    let written = fs::metadata(&path).expect("it is there").ctime();
    // A wall clock that ran backwards says nothing.
    for (started, ready) in [(written + 60, true), (written + 59, false), (written - 1_000, false)] {
        let mut inbox = Inbox::open(folder.path(), &folder.path().join("rejected"), started).expect("watched");
        let now = Instant::now();
        assert_eq!(inbox.look(now).expect("looked").ready.len(), usize::from(ready), "{started}");
        let at_rest = inbox.look(now + Duration::from_secs(1)).expect("looked").ready.len();
        assert_eq!(at_rest, usize::from(started == written + 59), "{started}");
    }
}

#[test]
fn a_folder_with_too_many_bundles_is_refused_whole_and_told_once() {
    let mut device = Device::with_golden();
    let (folder, mut inbox) = inbox(&device);
    for n in 0..=MAX_CANDIDATES {
        fs::write(folder.join(format!("{n}.tgb")), b"x").expect("written");
    }
    let start = Instant::now();
    let look = inbox.look(start).expect("looked");
    let refused = look.refused.expect("too many");
    assert_eq!(look.ready.len(), 0);
    assert!(inbox.look(start + REST).expect("looked").refused.is_none(), "told once");
    let now = device.now();
    device.importer.as_mut().expect("it runs").record(&refused, &Medium::Inbox, &now).expect("written");
    assert_eq!(device.journal().pop().expect("a line").result, "TooManyCandidates");
    device.still_serves_golden();
    fs::remove_file(folder.join("0.tgb")).expect("removed");
    inbox.look(start).expect("looked");
    assert_eq!(inbox.look(start + REST).expect("looked").ready.len(), MAX_CANDIDATES, "and then no more");
}

#[test]
fn other_names_hide_no_bundle_however_many_they_are() {
    // Folders in memory list the newest name first.
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder");
    fs::write(folder.path().join("a.tgb"), b"x").expect("written");
    for n in 0..20_000 {
        fs::hard_link(folder.path().join("a.tgb"), folder.path().join(format!("{n}.junk"))).expect("linked");
    }
    let mut inbox = Inbox::open(folder.path(), &folder.path().join("rejected"), 0).expect("watched");
    let start = Instant::now();
    inbox.look(start).expect("looked");
    assert_eq!(inbox.look(start + REST).expect("looked").ready, [folder.path().join("a.tgb")]);
}

#[test]
fn an_accepted_file_goes_and_refused_ones_are_kept_up_to_a_number() {
    let mut device = Device::with_golden();
    let (folder, mut inbox) = inbox(&device);
    let good = folder.join("good.tgb");
    fs::write(&good, bundle(GOLDEN_SEQ + 1, "next")).expect("written");
    assert_eq!(judged(&mut device, &mut inbox, &good), "Activated");
    assert!(!good.exists());

    for n in 0..MAX_REJECTED + 5 {
        let path = folder.join(format!("{n:02}.tgb"));
        fs::write(&path, b"garbage").expect("written");
        assert_eq!(judged(&mut device, &mut inbox, &path), "BadMagic");
        assert!(!path.exists(), "{n} went");
    }
    let kept: Vec<_> = (5..MAX_REJECTED + 5).map(|n| format!("{n:02}.tgb")).collect();
    assert_eq!(names(&rejected(&device)), kept, "the newest");
    assert_eq!(fs::metadata(rejected(&device)).expect("the folder").mode() & 0o777, 0o700, "nobody else's");
}

#[test]
fn copies_that_were_cut_off_do_not_pile_up_and_the_newest_may_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut inbox = Inbox::open(folder.path(), &folder.path().join("rejected"), 0).expect("watched");
    let part = |n: usize| format!(".usb=0781:5567=policy-{n}.tgb.part");
    for n in 0..MAX_PARTS + 3 {
        fs::write(folder.path().join(part(n)), b"half of it").expect("written");
        // The oldest is the one that changed first, by a clock that may be coarse.
        until_the_clock_moves();
    }
    fs::write(folder.path().join(".bashrc"), b"another's").expect("written");
    assert!(inbox.look(Instant::now()).expect("looked").ready.is_empty());
    let kept: Vec<_> = names(folder.path()).into_iter().filter(|name| name.ends_with(".part")).collect();
    assert_eq!(kept, (3..MAX_PARTS + 3).map(part).collect::<Vec<_>>());
    assert!(folder.path().join(".bashrc").exists());
}

/// Until a file that is made now has a later ctime than one made before.
fn until_the_clock_moves() {
    let file = tempfile::tempfile().expect("a file");
    let stamp = |file: &fs::File| file.metadata().map(|meta| (meta.ctime(), meta.ctime_nsec())).expect("it is open");
    let before = stamp(&file);
    while stamp(&file) == before {
        file.set_len(0).and_then(|()| file.set_permissions(fs::Permissions::from_mode(0o600))).expect("it is ours");
    }
}

#[test]
fn a_link_or_folder_in_the_inbox_makes_the_device_touch_nothing_else() {
    let mut device = Device::with_golden();
    let (folder, mut inbox) = inbox(&device);
    let victim = device.folder.path().join("victim");
    fs::create_dir(&victim).expect("made");
    for n in 0..2 * MAX_REJECTED {
        fs::create_dir_all(victim.join(n.to_string()).join("deep")).expect("made");
        fs::write(victim.join(format!("{n}.tgb.result.json")), b"precious").expect("written");
    }
    let before = names(&victim);
    for name in ["rejected", "a.result.json", "link.tgb"] {
        symlink(&victim, folder.join(name)).expect("linked");
    }
    for n in 0..80 {
        fs::create_dir_all(folder.join(format!("{n}.result.json/deep"))).expect("made");
    }
    fs::create_dir_all(folder.join("folder.tgb/deep")).expect("made");

    for n in 0..2 * MAX_REJECTED {
        let path = folder.join(format!("bad {n}.tgb"));
        fs::write(&path, b"garbage").expect("written");
        judged(&mut device, &mut inbox, &path);
    }
    // What is no file is told, and left to its owner.
    for name in ["link.tgb", "folder.tgb"] {
        assert_eq!(judged(&mut device, &mut inbox, &folder.join(name)), "SourceNotRegular");
        assert!(fs::symlink_metadata(folder.join(name)).is_ok(), "{name}");
    }
    assert_eq!(names(&victim), before);
    assert!(folder.join("0.result.json/deep").is_dir() && folder.join("folder.tgb/deep").is_dir());
    assert_eq!(names(&rejected(&device)).len(), MAX_REJECTED);
}

#[test]
fn folders_among_the_rejected_stop_no_file_from_being_moved_there() {
    let mut device = Device::with_golden();
    let (folder, mut inbox) = inbox(&device);
    for n in 0..2 * MAX_REJECTED {
        fs::create_dir_all(rejected(&device).join(format!("{n}/deep"))).expect("made");
    }
    let path = folder.join("bad.tgb");
    fs::write(&path, b"garbage").expect("written");
    judged(&mut device, &mut inbox, &path);
    assert!(!path.exists() && rejected(&device).join("bad.tgb").is_file());
    assert!(rejected(&device).join("0/deep").is_dir(), "not ours to remove");
}

#[test]
fn an_inbox_on_another_file_system_gives_its_refused_files_up_too() {
    let mut device = Device::with_golden();
    let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else { return skipped("there is no /dev/shm") };
    let device_of = |path: &Path| fs::metadata(path).expect("there").dev();
    if device_of(elsewhere.path()) == device_of(&device.state()) {
        return skipped("/dev/shm is on the file system of the other folders");
    }
    let mut inbox = Inbox::open(elsewhere.path(), &rejected(&device), 0).expect("watched");
    let large = vec![b'x'; 18 << 20];
    for (name, bytes, kept) in [("a.tgb", &b"garbage"[..], 7), ("b.tgb", &large[..], MAX_FILE)] {
        let path = elsewhere.path().join(name);
        fs::write(&path, bytes).expect("written");
        judged(&mut device, &mut inbox, &path);
        assert!(!path.exists(), "{name}");
        let copy = fs::metadata(rejected(&device).join(name)).expect("kept");
        assert_eq!((copy.len(), copy.mode() & 0o777), (kept, 0o600), "{name}: no more than a bundle can have");
    }
    assert_eq!(names(&rejected(&device)), ["a.tgb", "b.tgb"], "no part is left");
}

#[test]
fn a_file_that_takes_the_name_of_one_under_way_is_judged_for_itself() {
    // The one under way is accepted, or refused; meanwhile another is moved over it, or more is written to it.
    for (first, result) in [(golden(), "AlreadyInstalled"), (b"garbage".to_vec(), "BadMagic")] {
        let (mut device, disk) = unkind();
        let (folder, mut inbox) = inbox(&device);
        let (path, newer) = (folder.join("a.tgb"), folder.join("a.part"));
        fs::write(&path, first).expect("written");
        assert_eq!(inbox.wait(LONG).expect("looked").ready, [path.as_path()]);
        fs::write(&newer, bundle(GOLDEN_SEQ + 1, "next")).expect("written");
        let over = path.clone();
        disk.meanwhile(move || fs::rename(&newer, &over).expect("moved over"));
        assert_eq!(judged(&mut device, &mut inbox, &path), result);
        assert_eq!(
            inbox.wait(LONG).expect("looked").ready,
            [path.as_path()],
            "{result}: it waits for its own judgement"
        );
        assert_eq!(judged(&mut device, &mut inbox, &path), "Activated", "after {result}");
        assert!(!path.exists());
    }
    let (mut device, disk) = unkind();
    let (folder, mut inbox) = inbox(&device);
    let path = folder.join("a.tgb");
    fs::write(&path, golden()).expect("written");
    let again = path.clone();
    disk.meanwhile(move || fs::write(&again, golden()).expect("written again"));
    assert_eq!(judged(&mut device, &mut inbox, &path), "AlreadyInstalled");
    assert!(path.exists(), "it was written to");
}

#[test]
fn a_file_refused_for_the_moment_is_offered_again_ever_more_rarely_until_it_is_taken() {
    // No room; a state record that cannot be written; a slot that cannot.
    type Trouble = fn(&Unkind, bool);
    let troubles: [(&str, Trouble); 3] = [
        ("NoSpace", |disk, on| disk.fill(on)),
        ("StateLost", |disk, on| disk.fail(on.then_some(("/trust/state", std::io::ErrorKind::Other)))),
        ("SourceIo", |disk, on| disk.fail(on.then_some(("/routes", std::io::ErrorKind::Other)))),
    ];
    for (name, trouble) in troubles {
        let (mut device, disk) = unkind();
        let (folder, mut inbox) = inbox(&device);
        let path = folder.join("a.tgb");
        fs::write(&path, bundle(GOLDEN_SEQ + 1, "next")).expect("written");
        assert_eq!(inbox.wait(LONG).expect("looked").ready.len(), 1);
        trouble(&disk, true);
        let mut now = Instant::now();
        assert_eq!(judged_at(now, &mut device, &mut inbox, &path), name);
        assert!(path.exists(), "{name}");
        for wait in [60, 120, 240, 480, 960, 1_920, 3_600, 3_600] {
            now += Duration::from_secs(wait);
            let too_soon = inbox.look(now - Duration::from_secs(1)).expect("looked").ready;
            assert!(too_soon.is_empty(), "{name}, before {wait} s");
            assert_eq!(inbox.look(now).expect("looked").ready, [path.as_path()], "{name}, after {wait} s");
            assert!(inbox.look(now + LONG).expect("looked").ready.is_empty(), "{name}: under way");
            assert_eq!(judged_at(now, &mut device, &mut inbox, &path), name);
        }
        trouble(&disk, false);
        assert_eq!(inbox.look(now + Duration::from_secs(3_600)).expect("looked").ready, [path.as_path()]);
        assert_eq!(judged(&mut device, &mut inbox, &path), "Activated", "{name}");
        assert!(!path.exists());
    }
}

#[test]
fn a_file_that_changes_after_a_refusal_of_the_moment_waits_for_nothing() {
    let (mut device, disk) = unkind();
    let (folder, mut inbox) = inbox(&device);
    let path = folder.join("a.tgb");
    fs::write(&path, bundle(GOLDEN_SEQ + 1, "next")).expect("written");
    assert_eq!(inbox.wait(LONG).expect("looked").ready.len(), 1);
    disk.fill(true);
    assert_eq!(judged(&mut device, &mut inbox, &path), "NoSpace");
    disk.fill(false);
    fs::write(&path, bundle(GOLDEN_SEQ + 1, "next")).expect("offered again");
    assert_eq!(inbox.wait(LONG).expect("looked").ready, [path.as_path()]);
    assert_eq!(judged(&mut device, &mut inbox, &path), "Activated");
}

/// Not through the macros, whose words the test runner keeps to itself.
fn skipped(why: &str) {
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
}

#[test]
fn the_result_can_be_read_by_the_group_of_the_inbox_whatever_the_umask() {
    // A process has one umask, and this one's belongs to all its tests: a child has the unit's.
    let program = std::env::current_exe().expect("this program");
    let under = "umask 077; exec \"$0\" --exact --ignored inbox::under_the_umask_of_the_unit";
    let child = Command::new("sh").args(["-c", under]).arg(program).output().expect("it runs");
    let told = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && told.contains("1 passed"), "{told}");
}

#[test]
#[ignore = "runs in a child, under another umask"]
fn under_the_umask_of_the_unit() {
    let mut device = Device::with_golden();
    let path = device.folder.path().join("in/a.tgb");
    fs::write(&path, b"garbage").expect("written");
    device.import(&path).receipt.put_beside(&path, &key(1)).expect("written");
    let mode = fs::metadata(device.folder.path().join("in/a.tgb.result.json")).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    let other = device.folder.path().join("in/b");
    fs::File::create(&other).expect("created");
    assert_eq!(fs::metadata(other).expect("there").permissions().mode() & 0o777, 0o600, "the control: the umask is so");
}
