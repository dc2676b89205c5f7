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
    let (journal, broken) = Journal::open(Arc::<CrashDisk>::clone(disk), Path::new(FOLDER));
    assert_eq!(broken, None);
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
fn refusals_are_written_up_to_an_allowance_and_the_rest_is_counted() {
    let disk = disk();
    let mut journal = open(&disk);
    for _ in 0..REFUSAL_BURST + 7 {
        journal.append_refusal(line("garbage"), Duration::from_secs(1)).unwrap();
    }
    assert_eq!(details(&disk).len(), REFUSAL_BURST as usize);
    journal.append_refusal(line("later"), Duration::from_secs(1) + REFUSAL_EVERY).unwrap();
    let lines = read(&*disk, Path::new(FOLDER)).unwrap();
    assert_eq!(lines.last().map(|line| (line.detail.as_str(), line.suppressed)), Some(("later", 7)));
    journal.append(line("an activation is never held back")).unwrap();
    assert_eq!(details(&disk).len(), REFUSAL_BURST as usize + 2);
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
