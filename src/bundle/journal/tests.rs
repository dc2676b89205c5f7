use super::*;
use crate::disk::double::CrashDisk;

const FOLDER: &str = "/journal";

fn disk() -> Arc<CrashDisk> {
    let disk = CrashDisk::new();
    disk.create_folder(Path::new(FOLDER)).unwrap();
    disk.sync_folder(Path::new("/")).unwrap();
    Arc::new(disk)
}

fn open(disk: &Arc<CrashDisk>) -> Journal {
    let journal = Journal::open(Arc::<CrashDisk>::clone(disk), Path::new(FOLDER));
    assert_eq!(journal.broken(), None);
    journal
}

fn line(detail: &str) -> Line {
    Line::new(Event::Import, "BadMagic", TimeBounds::floor(7)).saying(detail)
}

fn details(disk: &Arc<CrashDisk>) -> Vec<String> {
    let lines = read(&**disk, Path::new(FOLDER)).unwrap();
    lines.into_iter().map(|line| line.detail).collect()
}

#[test]
fn a_power_cut_at_any_step_loses_no_acknowledged_line_and_the_chain_goes_on() {
    for cut in 0..8 {
        for seed in 0..40 {
            let disk = disk();
            let mut journal = open(&disk);
            journal.append(line("first")).unwrap();
            disk.cut_after(cut);
            let second = journal.append(line("second")).is_ok();
            let third = journal.append(line("third")).is_ok();
            let after = Arc::new(disk.after_power_cut(seed));
            open(&after).append(line("later")).unwrap();
            let told = details(&after);
            let why = format!("cut {cut} seed {seed}: {told:?}");
            assert!(told.starts_with(&["first".into()]) && told.ends_with(&["later".into()]), "{why}");
            assert!(!second || told.contains(&"second".into()), "{why}");
            assert!(!third || told.contains(&"third".into()), "{why}");
        }
    }
}

#[test]
fn the_first_line_of_a_new_file_survives_too() {
    for cut in 0..8 {
        for seed in 0..40 {
            let disk = disk();
            let mut journal = open(&disk);
            disk.cut_after(cut);
            let done = journal.append(line("first")).is_ok();
            let after = Arc::new(disk.after_power_cut(seed));
            open(&after).append(line("later")).unwrap();
            let told = details(&after);
            assert!(!done || told.first().is_some_and(|first| first == "first"), "cut {cut} seed {seed}: {told:?}");
        }
    }
}

#[test]
fn a_long_journal_goes_on_in_further_files_and_drops_the_oldest() {
    let disk = disk();
    let mut journal = open(&disk);
    // Files are filled by hand: a mebibyte of lines takes long to hash in a test.
    for n in 0..MAX_FILES + 3 {
        journal.append(line(&n.to_string())).unwrap();
        journal.length = MAX_FILE;
    }
    assert_eq!(disk.list(Path::new(FOLDER)).unwrap().len(), MAX_FILES);
    assert_eq!(details(&disk).first().map(String::as_str), Some("3"), "the chain holds without its beginning");
    open(&disk).append(line("after a restart")).unwrap();
    assert_eq!(details(&disk).last().map(String::as_str), Some("after a restart"));
    // A file taken out of the middle shows.
    disk.remove_file(&path(Path::new(FOLDER), 10)).unwrap();
    assert!(read(&*disk, Path::new(FOLDER)).is_err());
}

#[test]
fn offers_that_change_nothing_are_written_up_to_an_allowance_and_the_rest_is_counted() {
    let disk = disk();
    let mut journal = open(&disk);
    for _ in 0..OFFER_BURST + 7 {
        journal.append_unchanged(line("garbage"), Duration::from_secs(1)).unwrap();
    }
    assert_eq!(details(&disk).len(), OFFER_BURST as usize);
    journal.append_unchanged(line("later"), Duration::from_secs(1) + OFFER_EVERY).unwrap();
    let lines = read(&*disk, Path::new(FOLDER)).unwrap();
    assert_eq!(lines.last().map(|line| (line.detail.as_str(), line.suppressed)), Some(("later", 7)));
    journal.append(line("an activation is never held back")).unwrap();
    assert_eq!(details(&disk).len(), OFFER_BURST as usize + 2);
}

#[test]
fn hostile_text_becomes_one_bounded_line() {
    let disk = disk();
    let mut hostile = line(&"\n\u{1b}[2J\"}".repeat(10_000));
    hostile.file = Some(plain(&"\u{0}".repeat(300)));
    open(&disk).append(hostile).unwrap();
    let bytes = disk.read(&path(Path::new(FOLDER), 1), MAX_LINE).unwrap();
    assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 1);
    assert!(!bytes.contains(&0x1b));
}

#[test]
fn a_line_that_was_half_written_before_the_disk_filled_does_not_break_the_chain() {
    let disk = disk();
    let mut journal = open(&disk);
    journal.append(line("first")).unwrap();
    // Half a line reaches the file, then the write fails.
    disk.append(&path(Path::new(FOLDER), 1), b"{\"at\":7,").unwrap();
    journal.doubtful = true;
    journal.append(line("second")).unwrap();
    assert_eq!(details(&disk), ["first", "second"]);
}

#[test]
fn a_full_disk_makes_no_further_files_and_the_journal_goes_on_when_there_is_room() {
    // Within a line; at the first line of a new file; and after a break, which is to be told first.
    for (room, begins, breaks) in [(10, false, false), (0, true, false), (0, false, true), (10, false, true)] {
        let disk = three_files();
        let before = details(&disk);
        if breaks {
            disk.append(&path(Path::new(FOLDER), 3), b"nothing of ours\n").unwrap();
        }
        let reopen = || Journal::open(Arc::<CrashDisk>::clone(&disk), Path::new(FOLDER));
        let mut journal = reopen();
        if begins {
            journal.length = MAX_FILE;
        }
        disk.set_room(Some(room));
        for n in 0..2 * MAX_FILES {
            assert!(journal.append(line("lost")).is_err());
            if n % 3 == 0 {
                journal = reopen();
            }
        }
        disk.set_room(None);
        journal.append(line("room again")).unwrap();
        assert!(disk.list(Path::new(FOLDER)).unwrap().len() <= 4, "{:?}", disk.list(Path::new(FOLDER)));
        assert!((1..=3).all(|number| disk.open(&path(Path::new(FOLDER), number)).is_ok()), "nothing is pushed out");
        if !breaks {
            let after = details(&disk);
            assert_eq!((&after[..before.len()], after.last().unwrap().as_str()), (&before[..], "room again"));
        }
        assert!(journal.broken().is_none() && open(&disk).broken().is_none());
    }
}

/// A journal of three files with two lines each, of which the newest follows the one before.
fn three_files() -> Arc<CrashDisk> {
    let disk = disk();
    let mut journal = open(&disk);
    for n in 0..6 {
        journal.append(line(&n.to_string())).unwrap();
        journal.length = if n % 2 == 0 { journal.length } else { MAX_FILE };
    }
    assert_eq!(disk.list(Path::new(FOLDER)).unwrap().len(), 3);
    disk
}

#[test]
fn an_altered_cut_or_missing_file_before_the_newest_is_told_once_and_a_new_one_begun() {
    let second = path(Path::new(FOLDER), 2);
    let edit = |disk: &CrashDisk, change: fn(&str) -> String| {
        let text = String::from_utf8(disk.read(&second, MAX_FILE).unwrap()).unwrap();
        disk.write(&second, change(&text).as_bytes(), 0o600).unwrap();
    };
    let first_line: fn(&str) -> String = |text| text.replacen("\"2\"", "\"7\"", 1);
    let last_line: fn(&str) -> String = |text| text.replacen("\"3\"", "\"7\"", 1);
    let cut: fn(&str) -> String = |text| text.lines().next().unwrap().to_owned() + "\n";
    let removed: fn(&str) -> String = |_| String::new();
    for (change, about) in [(first_line, "first"), (last_line, "last"), (cut, "cut"), (removed, "removed")] {
        let disk = three_files();
        edit(&disk, change);
        if about == "removed" {
            disk.remove_file(&second).unwrap();
        }
        let mut journal = Journal::open(Arc::<CrashDisk>::clone(&disk), Path::new(FOLDER));
        assert_eq!(journal.broken().map(Refused::name), Some("JournalBroken"), "{about}");
        journal.append(line("later")).unwrap();
        assert_eq!(journal.broken(), None, "{about}");
        let told = disk.read(&path(Path::new(FOLDER), 4), MAX_FILE).unwrap();
        let told = check(&told, None).unwrap();
        assert_eq!(told.iter().map(|(line, _)| line.event).collect::<Vec<_>>(), [Event::JournalBroken, Event::Import]);
        assert_eq!(open(&disk).broken(), None, "{about}: told once");
    }
    assert_eq!(open(&three_files()).broken(), None);
}

#[test]
fn a_break_that_is_found_after_a_failed_write_is_told_too() {
    let disk = disk();
    let mut journal = open(&disk);
    journal.append(line("first")).unwrap();
    journal.append(line("second")).unwrap();
    disk.rot(&path(Path::new(FOLDER), 1), 5);
    journal.doubtful = true;
    journal.append(line("third")).unwrap();
    let told = disk.read(&path(Path::new(FOLDER), 2), MAX_FILE).unwrap();
    let told = check(&told, None).unwrap();
    assert_eq!(told.iter().map(|(line, _)| line.event).collect::<Vec<_>>(), [Event::JournalBroken, Event::Import]);
}

#[test]
fn a_start_is_written_when_it_says_something_new_and_else_once_an_hour() {
    let disk = disk();
    let digest = |n| Some(Digest([n; 32]));
    let started = |at, n| Line { digest: digest(n), ..Line::new(Event::Started, "Serving", TimeBounds::floor(at)) };
    let starts = |line: Line| {
        let before = details(&disk).len();
        open(&disk).append_start(None, line).unwrap();
        details(&disk).len() - before
    };
    assert_eq!(starts(started(0, 1)), 1, "the first");
    assert_eq!((1..1_000).map(|n| starts(started(2 * n, 1))).sum::<usize>(), 0, "a crash loop");
    assert_eq!(starts(started(3_600, 1)), 1, "an hour later");
    assert_eq!(starts(started(3_601, 2)), 1, "another bundle");
    assert_eq!(starts(Line { boot: "another".into(), ..started(3_602, 2) }), 1, "another boot");
    assert_eq!(starts(started(3_603, 2).saying("EntryDigestMismatch")), 1, "for another reason");
    open(&disk).append(Line::new(Event::Import, "BadMagic", TimeBounds::floor(3_604))).unwrap();
    assert_eq!(starts(started(3_605, 2).saying("EntryDigestMismatch")), 0, "a refusal is no change");
    open(&disk).append(Line::new(Event::Import, "Activated", TimeBounds::floor(3_606))).unwrap();
    assert_eq!(starts(started(3_607, 2).saying("EntryDigestMismatch")), 1, "an activation is");
}
