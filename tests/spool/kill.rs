//! SIGKILL in mid-traffic, again and again: what was appended is there, once.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tidegate::spool::Config;
use tidegate::units::{Bytes, Span};

use crate::support::{Books, drain, record, start};

const FOLDER: &str = "TIDEGATE_TEST_SPOOL_FOLDER";
const FIRST: &str = "TIDEGATE_TEST_SPOOL_FIRST";
const BUFFERED: &str = "TIDEGATE_TEST_SPOOL_BUFFERED";

fn busy() -> Config {
    Config {
        generation_size: Bytes(1 << 20),
        log_size: Bytes(64 << 10),
        seal_after_offline: Span::millis(30),
        ..Config::default()
    }
}

/// The process that is killed; not a test otherwise. Tells each number once it is appended.
#[test]
fn writer_entry() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let first: u64 = std::env::var(FIRST).expect("a number").parse().expect("a number");
    let is_buffered = std::env::var_os(BUFFERED).is_some();
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
    }
}

/// Runs a writer for a while, kills it, and returns the numbers that it told.
fn run_and_kill(folder: &Path, first: u64, is_buffered: bool, after: Duration) -> Vec<u64> {
    let (mut ours, theirs) = UnixStream::pair().expect("a socket");
    let mut command = Command::new(std::env::current_exe().expect("a path"));
    command.args(["--exact", "kill::writer_entry"]).env(FOLDER, folder).env(FIRST, first.to_string());
    if is_buffered {
        command.env(BUFFERED, "1");
    }
    command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null());
    let mut writer = command.spawn().expect("the writer starts");
    drop(command); // and with it our copy of the writer's end
    let begun = std::time::Instant::now();
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
