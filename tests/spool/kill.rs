//! SIGKILL in mid-traffic, again and again: what was appended is there, once.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tidegate::ids::StreamId;
use tidegate::keys::sha256;
use tidegate::spool::backlog::{Backlog as _, Cursor, UsageFile};
use tidegate::spool::{Config, Spool};
use tidegate::units::{Bytes, Span};

use crate::support::{Books, drain, record, start, wait};

const FOLDER: &str = "TIDEGATE_TEST_SPOOL_FOLDER";
const FIRST: &str = "TIDEGATE_TEST_SPOOL_FIRST";
const BUFFERED: &str = "TIDEGATE_TEST_SPOOL_BUFFERED";
const UPLOADS: &str = "TIDEGATE_TEST_SPOOL_UPLOADS";
/// In place of a number: a file comes.
const FILE: u64 = u64::MAX;

fn busy() -> Config {
    Config {
        generation_size: Bytes(1 << 20),
        log_size: Bytes(64 << 10),
        seal_after_offline: Span::millis(30),
        // However fast the machine, and however seldom a child lives long enough to seal: nothing is only counted.
        open_limit: Bytes(4 << 30),
        ..Config::default()
    }
}

/// The process that is killed; not a test otherwise. Tells each number once it is appended.
#[test]
fn writer_entry() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let first: u64 = std::env::var(FIRST).expect("a number").parse().expect("a number");
    let (is_buffered, uploads) = (std::env::var_os(BUFFERED).is_some(), std::env::var_os(UPLOADS).is_some());
    let socket = std::io::stdin().as_fd().try_clone_to_owned().expect("a socket");
    let mut socket = UnixStream::from(socket);
    let spool = start(Path::new(&folder), &busy());
    let mut intake = spool.intake(0);
    let mut held = Vec::new();
    for number in first.. {
        if is_buffered {
            held.push(number); // in this process's memory, like a BufWriter or a ring
            if held.len() == 64 {
                held.drain(..).for_each(|number| intake.append(&record(number)));
            }
        } else {
            intake.append(&record(number));
        }
        if socket.write_all(&number.to_be_bytes()).is_err() {
            return;
        }
        if uploads && number % 500 == 0 {
            upload(&spool, &mut socket);
        }
    }
}

/// Gives the oldest file to the hub, and lets it go. A child that was killed does not answer; another will.
fn upload(spool: &Spool, socket: &mut UnixStream) {
    let Ok(Some(file)) = wait(spool.oldest(None)) else { return };
    let words = [FILE, file.at.stream.0, file.at.seq, file.bytes.len() as u64];
    let message = [&words.map(u64::to_be_bytes).concat()[..], &file.bytes].concat();
    if socket.write_all(&message).is_ok() {
        let _ = wait(spool.acknowledge(file.at, &file.digest));
    }
}

/// The hub's end: each file once, whatever is sent again.
fn receive(from: &mut UnixStream, books: &mut Books) -> std::io::Result<()> {
    let mut words = [[0; 8]; 3];
    words.iter_mut().try_for_each(|word| from.read_exact(word))?;
    let [stream, seq, len] = words.map(u64::from_be_bytes);
    let mut bytes = vec![0; usize::try_from(len).expect("small")];
    from.read_exact(&mut bytes)?; // cut off: the hub has not got it
    let at = Cursor { stream: StreamId(stream), seq };
    enter_once(UsageFile { at, digest: sha256(&bytes), bytes }, books);
    Ok(())
}

fn enter_once(file: UsageFile, books: &mut Books) {
    match books.files.iter().find(|known| known.at == file.at) {
        Some(known) => assert_eq!(known.digest, file.digest, "{:?} is sent again as another file", file.at),
        None => books.enter(file),
    }
}

/// Starts a writer; `how` is a word of its environment.
fn begin(folder: &Path, first: u64, how: &str) -> (UnixStream, Child) {
    let (ours, theirs) = UnixStream::pair().expect("a socket");
    let mut command = Command::new(std::env::current_exe().expect("a path"));
    command.args(["--exact", "kill::writer_entry"]).env(FOLDER, folder).env(how, "1").env(FIRST, first.to_string());
    command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null());
    let writer = command.spawn().expect("the writer starts");
    drop(command); // and with it our copy of the writer's end
    (ours, writer)
}

/// Runs a writer for a while, kills it, and returns the numbers that it told.
fn run_and_kill(folder: &Path, first: u64, is_buffered: bool, after: Duration) -> Vec<u64> {
    let (mut ours, mut writer) = begin(folder, first, if is_buffered { BUFFERED } else { FIRST });
    let begun = Instant::now();
    let (mut told, mut bytes) = (Vec::new(), [0; 8]);
    while ours.read_exact(&mut bytes).is_ok() {
        told.push(u64::from_be_bytes(bytes));
        if begun.elapsed() >= after {
            break;
        }
    }
    writer.kill().expect("it can be killed");
    writer.wait().expect("it ends");
    while ours.read_exact(&mut bytes).is_ok() {
        told.push(u64::from_be_bytes(bytes)); // told before it died
    }
    told
}

/// Kills the children of a process.
fn kill_children(of: u32) -> u32 {
    let children = std::fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap_or_default();
    let threads = std::fs::read_dir(format!("/proc/{of}/task")).into_iter().flatten().flatten();
    let others = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    let all: BTreeSet<i32> = others
        .chain([children])
        .flat_map(|ids| ids.split(' ').filter_map(|id| id.parse().ok()).collect::<Vec<_>>())
        .collect();
    let kill = |id| Pid::from_raw(id).is_some_and(|id| kill_process(id, Signal::KILL).is_ok());
    u32::try_from(all.into_iter().filter(|id| kill(*id)).count()).expect("few")
}

fn cycles(folder: &Path, cycles: u64, is_buffered: bool) -> (BTreeSet<u64>, Books) {
    let mut told = BTreeSet::new();
    for cycle in 0..cycles {
        let after = Duration::from_millis(40 + cycle * 7919 % 170);
        told.extend(run_and_kill(folder, cycle * 10_000_000, is_buffered, after));
    }
    let spool = start(folder, &busy());
    let mut books = Books::default();
    drain(&spool, &mut books);
    (told, books)
}

#[test]
fn every_record_that_was_appended_survives_sigkill_exactly_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let (told, books) = cycles(folder.path(), 25, false);
    assert!(told.len() > 10_000, "there was traffic: {}", told.len());
    let lost: Vec<_> = told.iter().filter(|number| !books.requests.contains_key(number)).take(5).collect();
    let twice: Vec<_> = books.requests.iter().filter(|(_, count)| **count > 1).take(5).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    assert!(twice.is_empty(), "twice: {twice:?}");
    // The one record a cycle that was appended and not yet told, and no other.
    assert!(books.requests.len() - told.len() <= 25, "{} of {}", books.requests.len(), told.len());
    assert_eq!(books.gaps, [], "a kill loses nothing, so it tells no gap");
    println!("{} records in {} files survived 25 kills", told.len(), books.files.len());
}

#[test]
fn negative_control_a_writer_that_buffers_loses_records() {
    let folder = tempfile::tempdir().expect("a folder");
    let (told, books) = cycles(folder.path(), 8, true);
    let lost = told.iter().filter(|number| !books.requests.contains_key(number)).count();
    assert!(lost > 0, "if this writer loses nothing, the test above proves nothing");
}

#[test]
fn files_that_the_hub_took_and_those_that_wait_survive_kills_of_daemon_and_child_exactly_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut told, mut books, mut children) = (BTreeSet::new(), Books::default(), 0);
    for cycle in 0..12_u64 {
        let (mut ours, mut writer) = begin(folder.path(), cycle * 10_000_000, UPLOADS);
        let (begun, mut killed_at) = (Instant::now(), Duration::ZERO);
        let lives = Duration::from_millis(300 + cycle * 7919 % 500);
        let mut word = [0; 8];
        while begun.elapsed() < lives && ours.read_exact(&mut word).is_ok() {
            match u64::from_be_bytes(word) {
                FILE => receive(&mut ours, &mut books).expect("it lives"),
                number => drop(told.insert(number)),
            }
            if begun.elapsed() - killed_at > Duration::from_millis(37 + cycle) {
                children += kill_children(writer.id());
                killed_at = begun.elapsed();
            }
        }
        writer.kill().expect("it can be killed");
        writer.wait().expect("it ends");
        while ours.read_exact(&mut word).is_ok() {
            match u64::from_be_bytes(word) {
                FILE => drop(receive(&mut ours, &mut books)),
                number => drop(told.insert(number)),
            }
        }
    }
    let taken = books.files.len();
    let spool = start(folder.path(), &busy());
    loop {
        spool.seal_now();
        match wait(spool.oldest(None)).expect("the spool answers") {
            Some(file) => {
                wait(spool.acknowledge(file.at, &file.digest)).expect("the spool answers");
                enter_once(file, &mut books);
            }
            None if spool.status().open_bytes == 0 => break,
            None => {}
        }
    }
    assert!(taken > 2 && children > 5 && told.len() > 5000, "{taken} files, {children} children, {}", told.len());
    let lost: Vec<_> = told.iter().filter(|number| !books.requests.contains_key(number)).take(5).collect();
    let twice: Vec<_> = books.requests.iter().filter(|(_, count)| **count > 1).take(5).collect();
    assert!(books.summed.is_empty(), "not a record but counted: {:?}", books.summed);
    assert!(lost.is_empty() && twice.is_empty(), "lost: {lost:?}, twice: {twice:?}");
    assert_eq!(books.gaps, [], "a kill loses nothing, so it tells no gap");
    println!("{} records, {taken} files taken between 12 kills of the daemon and {children} of a child", told.len());
}
