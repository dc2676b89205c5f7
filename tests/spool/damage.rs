//! Damaged files and full disks: the spool starts, goes on, and says what is gone.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidegate::disk::free_bytes;
use tidegate::keys::sha256;
use tidegate::spool::backlog::Backlog as _;
use tidegate::spool::record::{GapReason, Outcome};
use tidegate::spool::{Config, Spool};
use tidegate::units::Bytes;

use crate::run::pretend_another_boot;
use crate::support::{Books, append, drain, patient, record, start, wait};

/// Sealed records, in files of this many; then some that are not, and requests that are only summed.
const SEALED: u64 = 4500;
const A_FILE: u64 = 450;
const RECORDS: u64 = SEALED + 300;
const SUMMED: u64 = 20;

fn config() -> Config {
    Config { generation_size: Bytes((1 << 19) + 1), log_size: Bytes(64 << 10), unauthenticated_records: 0, ..patient() }
}

/// A spool with several generations, an acknowledged file, unsealed rows and sums.
fn prepare(folder: &Path) -> Books {
    let spool = start(folder, &config());
    let mut intake = spool.intake(0);
    for number in 0..SEALED {
        append(&mut intake, number);
        if number % A_FILE == A_FILE - 1 {
            spool.seal_now();
            let _ = wait(spool.oldest(None)); // so that it is sealed, and generations are opened in between
        }
    }
    let mut books = Books::default();
    let file = wait(spool.oldest(None)).expect("it answers").expect("it was sealed");
    wait(spool.acknowledge(file.at, &file.digest)).expect("it answers");
    books.enter(file);
    (SEALED..RECORDS).for_each(|number| append(&mut intake, number));
    (0..SUMMED).for_each(|number| intake.append_unauthenticated(&record(number), Duration::ZERO));
    drop(intake);
    spool.stop();
    books
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).expect("it lists") {
        let path = entry.expect("it lists").path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all.sort();
    all
}

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
    assert!(done.success());
}

/// Something that happens to a file.
#[derive(Debug, Clone, Copy)]
enum Harm {
    /// A byte changes.
    Flip(u64),
    /// A stretch reads as zeros, or as anything.
    Fill { at: u64, len: u64, random: bool },
    /// It ends here.
    Truncate(u64),
    /// It is gone.
    Delete,
}

impl Harm {
    fn to(path: &Path) -> Vec<Self> {
        let len = fs::metadata(path).expect("it is there").len();
        let (flips, fills) = if path.ends_with("db") { (12, 3) } else { (4, 1) };
        let place = |part: u64, parts: u64| len * part / parts + (len / parts) * 5 / 13;
        let mut all: Vec<Self> = (0..flips.min(len)).map(|part| Self::Flip(place(part, flips))).collect();
        for (part, random) in (0..fills.min(len)).flat_map(|part| [(part, false), (part, true)]) {
            let at = place(part, fills) / 2;
            all.push(Self::Fill { at, len: (len - at).min(32 << 10), random });
        }
        all.extend((0..fills.min(len)).map(|part| Self::Truncate(place(part, fills))));
        all.extend([Self::Truncate(0), Self::Fill { at: 0, len, random: false }, Self::Delete]);
        all
    }

    fn apply(self, path: &Path) {
        if let Self::Delete = self {
            return fs::remove_file(path).expect("removed");
        }
        let file = fs::OpenOptions::new().read(true).write(true).open(path).expect("it opens");
        let (at, bytes) = match self {
            Self::Flip(at) => {
                let mut byte = [0];
                file.read_exact_at(&mut byte, at).expect("it reads");
                (at, vec![byte[0] ^ 0x55])
            }
            Self::Fill { at, len, random: false } => (at, vec![0; usize::try_from(len).expect("small")]),
            Self::Fill { at, len, random: true } => {
                (at, (0..len).map(|n| sha256(&n.to_be_bytes()).0[0]).collect::<Vec<u8>>())
            }
            Self::Truncate(len) => return file.set_len(len).expect("cut off"),
            Self::Delete => return,
        };
        file.write_all_at(&bytes, at).expect("it writes");
    }
}

/// Takes out what there is, seals, and so on until nothing comes any more. What the hub had before counts once.
fn empty(spool: &Spool, before: &Books, books: &mut Books) {
    loop {
        while let Some(file) = wait(spool.oldest(None)).expect("the spool answers") {
            wait(spool.acknowledge(file.at, &file.digest)).expect("the spool answers");
            let is_known = before.files.iter().chain(&books.files).any(|known| known.digest == file.digest);
            if !is_known {
                books.enter_after_a_hole(file);
            }
        }
        let files = books.files.len();
        spool.seal_now();
        if wait(spool.oldest(None)).expect("the spool answers").is_none() {
            assert_eq!(spool.status().open_bytes, 0);
            return;
        }
        assert!(books.files.len() - files < 1000);
    }
}

#[test]
fn damage_anywhere_is_survived_and_every_loss_is_a_gap() {
    // In memory, where there is such a folder: two hundred starts wait for a disk's syncs else.
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder");
    let whole = folder.path().join("whole");
    fs::create_dir(&whole).expect("a folder");
    let before = prepare(&whole);
    let generations = fs::read_dir(whole.join("generations")).expect("it lists").count();
    assert!(generations >= 3, "{generations}");
    let (mut cases, mut exact, mut unknown, mut lossless, mut deleted) = (0, 0, 0, 0, 0);
    for path in files(&whole) {
        let relative = path.strip_prefix(&whole).expect("it is in it");
        for harm in Harm::to(&path) {
            let damaged = folder.path().join("damaged");
            copy(&whole, &damaged);
            let is_open = relative.starts_with("open");
            if is_open && matches!(harm, Harm::Truncate(_)) {
                // What ends early in the boot that wrote it was a killed process, which lost nothing.
                pretend_another_boot(&damaged.join("open"));
            }
            harm.apply(&damaged.join(relative));
            let what = format!("{harm:?} of {}", relative.display());

            let spool = start(&damaged, &config());
            let mut intake = spool.intake(0);
            append(&mut intake, RECORDS); // it goes on
            let mut books = Books::default();
            empty(&spool, &before, &mut books);
            assert!(books.requests.contains_key(&RECORDS), "{what}");
            let came = |number: &u64| before.requests.contains_key(number) || books.requests.contains_key(number);
            let missing = (0..RECORDS).filter(|number| !came(number)).count() as u64
                + SUMMED.saturating_sub(books.summed.values().sum());
            let twice =
                books.requests.iter().filter(|(number, count)| before.requests.contains_key(number) || **count > 1);
            assert_eq!(twice.count(), 0, "{what}");
            cases += 1;
            if is_open && matches!(harm, Harm::Delete) {
                // The one thing that nothing tells: a log whose rows are sealed is deleted, and counts that nobody has
                // yet are not there, so what is missing is no damage. Its rows go, and no others.
                deleted += u64::from(missing > 0);
                assert!(missing <= RECORDS - SEALED + SUMMED, "{what}: {missing} lost");
                drop((intake, spool));
                fs::remove_dir_all(&damaged).expect("removed");
                continue;
            }
            match books.gaps.iter().map(|gap| gap.count).sum::<Option<u64>>() {
                Some(told) => assert_eq!(told, missing, "{what}: {:?}", books.gaps),
                None => unknown += u64::from(missing > 0),
            }
            assert!(missing == 0 || !books.gaps.is_empty(), "{what}: {missing} lost in silence");
            exact += u64::from(missing > 0 && books.gaps.iter().all(|gap| gap.count.is_some()));
            lossless += u64::from(missing == 0);
            drop(intake);
            drop(spool);
            fs::remove_dir_all(&damaged).expect("removed");
        }
    }
    println!(
        "{cases} cases: {lossless} lost nothing, {exact} an exact number, {unknown} nobody knows how many; {deleted} told nothing"
    );
    assert!(exact > 0 && unknown > 0 && lossless > 0, "if nothing is ever lost, this proves nothing");
}

/// Does something on a small file system of its own; says so where that cannot be had.
fn on_small_disk(make: impl FnOnce(&Path, &Path) -> bool, what: impl FnOnce(&Path) + std::panic::UnwindSafe) {
    let folder = tempfile::tempdir().expect("a folder");
    let mount = folder.path().join("small");
    fs::create_dir(&mount).expect("a folder");
    if !make(folder.path(), &mount) {
        // Not by println!, which nobody sees of a test that passes.
        let test = std::thread::current().name().unwrap_or_default().to_owned();
        let _ = writeln!(std::io::stderr(), "skipped: {test}: this needs the right to mount a small file system");
        return;
    }
    let outcome = std::panic::catch_unwind(|| what(&mount));
    let _ = Command::new("umount").arg(&mount).status();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

fn runs(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn tmpfs(_: &Path, mount: &Path) -> bool {
    runs(Command::new("mount").args(["-t", "tmpfs", "-o", "size=12m", "tmpfs"]).arg(mount))
}

fn ext4(folder: &Path, mount: &Path) -> bool {
    let image = folder.join("image");
    fs::File::create(&image).and_then(|file| file.set_len(100 << 20)).expect("an image");
    runs(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image))
        && runs(Command::new("mount").args(["-o", "loop"]).args([&image, mount]))
}

#[test]
fn a_full_disk_turns_records_into_counts_and_heals_by_itself() {
    on_small_disk(tmpfs, full_disk);
}

#[test]
fn sealed_files_survive_being_asked_for_on_a_disk_that_others_keep_full() {
    // The control: nobody asks, so nothing can happen to them.
    for asks in [false, true] {
        on_small_disk(ext4, |mount| {
            let files = 60;
            prepare_small_files(mount, files);
            let hog = Hog::start(mount.join("filler"));
            if asks {
                let spool = start(mount, &patient());
                // A file while the ballast makes room, and a refusal as soon as somebody has that.
                let is_refused = || {
                    wait(spool.oldest(None)).is_err()
                        && spool.status().last_error.is_some_and(|error| error.contains("nearly full"))
                };
                assert!((0..20).any(|_| is_refused()), "{:?}", spool.status());
                spool.stop();
            }
            hog.stop();
            let spool = start(mount, &patient());
            let mut books = Books::default();
            drain(&spool, &mut books);
            books.holds_once(0..files * SMALL_FILE);
            assert_eq!(books.gaps, [], "{asks}");
        });
    }
}

#[test]
fn a_disk_that_somebody_fills_stops_the_records_alone_and_the_spool_heals_without_a_start() {
    on_small_disk(ext4, |mount| {
        let config = Config { free_floor: Bytes(1 << 20), ..config() };
        let spool = start(mount, &config);
        let mut intake = spool.intake(0);
        let mut next = 0;
        let mut append = |intake: &mut tidegate::spool::Intake, count: u64| {
            (next..next + count).for_each(|number| intake.append(&record(number)));
            next += count;
        };
        append(&mut intake, 2000);
        spool.seal_now();
        let sealed = wait(spool.oldest(None)).expect("it answers").expect("it was sealed");

        let hog = Hog::start(mount.join("filler"));
        let deadline = Instant::now() + Duration::from_secs(60);
        while spool.status().rolled_up < 5000 || spool.status().last_error.is_none() {
            append(&mut intake, 500);
            spool.seal_now();
            let _ = wait(spool.oldest(None)); // an answer or an error, but no hang
            assert!(Instant::now() < deadline, "{:?}", spool.status());
        }
        let full = spool.status();
        hog.stop();

        let deadline = Instant::now() + Duration::from_secs(60);
        while spool.status().appended < full.appended + 2000 || spool.status().last_error.is_some() {
            append(&mut intake, 100);
            spool.seal_now();
            let _ = wait(spool.oldest(None));
            assert!(Instant::now() < deadline, "it does not heal: {:?}", spool.status());
        }
        let status = spool.status();
        assert_eq!((status.appended + status.rolled_up, status.lost), (next, 0), "each was kept or counted");
        let mut books = Books::default();
        while books.summed.get(&Outcome::Admitted).copied().unwrap_or(0) < status.rolled_up {
            drain(&spool, &mut books);
        }
        assert_eq!(books.files.first().map(|file| file.digest), Some(sealed.digest), "what was sealed is as it was");
        assert_eq!((books.requests.len() as u64, books.gaps.len()), (status.appended, 0), "{:?}", books.gaps);
        assert!(books.requests.values().all(|count| *count == 1));
        println!("{} in full and {} counted, none lost", status.appended, status.rolled_up);
    });
}

const SMALL_FILE: u64 = 30;

fn prepare_small_files(folder: &Path, files: u64) {
    let spool = start(folder, &patient());
    let mut intake = spool.intake(0);
    for file in 0..files {
        (0..SMALL_FILE).for_each(|number| intake.append(&record(file * SMALL_FILE + number)));
        spool.seal_now();
        wait(spool.oldest(None)).expect("it answers"); // so that it is sealed
    }
    // One more where the writer looked in the midst of a file's records.
    assert!(spool.status().files >= files, "{:?}", spool.status());
    drop(intake);
    spool.stop();
}

/// Somebody who takes whatever is free on a disk, at once.
struct Hog {
    is_over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
    file: PathBuf,
}

impl Hog {
    /// Returns once the disk is full.
    fn start(path: PathBuf) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let (full, is_full) = std::sync::mpsc::channel();
        let (over, file) = (Arc::clone(&is_over), path.clone());
        let thread = std::thread::spawn(move || {
            let mut file = fs::File::create(file).expect("it is made");
            let all = vec![1; 1 << 20]; // less, where there is less
            while !over.load(Ordering::Relaxed) {
                if !file.write(&all).is_ok_and(|taken| taken > 0) {
                    let _ = full.send(());
                }
            }
        });
        is_full.recv_timeout(Duration::from_secs(60)).expect("it fills the disk");
        Self { is_over, thread, file: path }
    }

    /// Gives all of it back. A file that is removed while the system writes it, for somebody's `sync` perhaps, keeps its
    /// room until that is done: tens of milliseconds, as measured, in which a spool that starts finds a full disk.
    fn stop(self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().expect("it ends");
        let free = || free_bytes(self.file.parent().expect("a folder")).expect("the disk tells");
        let (taken, before) = (fs::metadata(&self.file).expect("it is there").len(), free());
        fs::remove_file(&self.file).expect("removed");
        let deadline = Instant::now() + Duration::from_secs(60);
        while free() < before + taken / 2 {
            assert!(Instant::now() < deadline, "{} of {taken} bytes are free", free());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn full_disk(mount: &Path) {
    let config = Config { free_floor: Bytes(0), ..config() };
    let spool = start(mount, &config);
    let mut intake = spool.intake(0);
    let mut next = 0;
    let mut append = |intake: &mut tidegate::spool::Intake, count: u64| {
        (next..next + count).for_each(|number| intake.append(&record(number)));
        next += count;
    };
    append(&mut intake, 20_000);
    spool.seal_now();
    fs::write(mount.join("filler"), vec![1; 20 << 20]).expect_err("it fills the disk");
    append(&mut intake, 20_000);
    spool.seal_now();
    let _ = wait(spool.oldest(None)); // an answer or an error, but no hang
    let status = spool.status();
    assert!(status.rolled_up > 0, "{status:?}");
    assert_eq!((status.appended + status.rolled_up, status.lost), (40_000, 0));
    fs::remove_file(mount.join("filler")).expect("removed");
    append(&mut intake, 1000);
    let status = spool.status();
    assert_eq!(status.appended + status.rolled_up, 41_000);
    drop(intake);
    spool.stop();
    drop(spool);

    let spool = start(mount, &config);
    let mut books = Books::default();
    while books.summed.get(&Outcome::Admitted).copied().unwrap_or(0) < status.rolled_up {
        drain(&spool, &mut books);
    }
    let twice = books.requests.values().filter(|count| **count > 1).count();
    assert_eq!(twice, 0);
    let lost = status.appended - books.requests.len() as u64;
    assert!(
        lost == 0 || books.gaps.iter().any(|gap| gap.reason == GapReason::GenerationLost),
        "{lost} lost in silence"
    );
    assert_eq!(lost, 0, "ENOSPC damages nothing: {:?}", books.gaps);
}
