//! The spool's child: all of sled, sealing and reading back, in a process that ends when the work does.
//!
//! sled keeps what memory it took until its process ends, so the process ends: after a few files, and
//! as soon as there is nothing to do. The daemon starts its own binary again with a hidden argument,
//! which calls [`run`]; they speak through the child's standard input, a socket (`wire`). The child
//! dies with its daemon, and two children never have the folder at the same time.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::ids::StreamId;
use crate::spool::Program;
use crate::spool::backlog::{Cursor, UsageFile};
use crate::spool::ledger::{self, Ledger, Opener};
use crate::spool::wire::{Blame, Reply, Request, receive, receive_bytes, send, send_bytes};
use crate::store::generation::{self, Generation, is_unreadable};

/// glibc keeps freed memory by default; a few threads of sled each in an arena of their own make that
/// many megabytes. Other C libraries do not heed these.
const ALLOCATOR: [(&str, &str); 3] =
    [("MALLOC_ARENA_MAX", "1"), ("MALLOC_TRIM_THRESHOLD_", "65536"), ("MALLOC_MMAP_THRESHOLD_", "65536")];
/// A child that does not answer for so many steps, two minutes, is given up: a slow card's sync takes seconds. Between
/// them the writer shows that it lives, or the watchdog would end the daemon first, and again after the next start.
const STEP: Duration = Duration::from_secs(5);
const STEPS: u32 = 24;
/// Files that a child reads before it is let go, or half as many that it seals: its memory grows with them, from 1 MB
/// after one to 1.9 after eight sealed.
const FILES_LIMIT: u32 = 8;

/// The child's whole life: answers requests on standard input until the daemon closes it. Call it first
/// thing in `main`, before any thread or runtime is made; after an error end with a code that is not 0.
pub fn run() -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    serve(UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?), |_, folder| Generation::open(folder))
}

pub(super) fn serve(
    mut socket: UnixStream,
    open: fn(u32, &Path) -> Result<Generation, generation::Error>,
) -> io::Result<()> {
    let Some(Request::Open { setup, known, now_ms }) = receive(&mut socket)? else { return Ok(()) };
    let lock = std::fs::File::create(setup.folder.join("child.lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?; // a child of a killed daemon has it for a moment yet
    let mut telling = socket.try_clone()?;
    let opener = Opener::new(move |number, folder| {
        // Where the daemon has gone, the next answer fails too.
        let _ = send(&mut telling, &Reply::Opening(number));
        let opened = open(number, folder);
        let _ = send(&mut telling, &Reply::Opened(number));
        opened
    });
    let opened = Ledger::open(setup, &known, opener, now_ms).and_then(|mut ledger| Ok((ledger.report()?, ledger)));
    let mut ledger = match opened {
        Ok((report, ledger)) => {
            send(&mut socket, &Reply::Done(report))?;
            ledger
        }
        Err(error) => return send(&mut socket, &failed(&error)),
    };
    while let Some(request) = receive(&mut socket)? {
        match answer(&mut ledger, &request) {
            Ok((reply, file)) => {
                send(&mut socket, &reply)?;
                if let Some(file) = file {
                    send_bytes(&mut socket, &file.bytes)?;
                }
            }
            Err(error) => return send(&mut socket, &failed(&error)),
        }
    }
    // Everything is committed: sled has nothing to add, and its way down takes longer than ours.
    std::process::exit(0)
}

fn answer(ledger: &mut Ledger, request: &Request) -> Result<(Reply, Option<UsageFile>), ledger::Error> {
    Ok(match request {
        Request::Open { .. } => (Reply::Done(ledger.report()?), None),
        Request::Seal(seal) => (Reply::Done(ledger.seal(seal)?), None),
        Request::Oldest { after, now_ms } => {
            let after = after.map(|(stream, seq)| Cursor { stream: StreamId(stream), seq });
            let found = ledger.oldest(after, *now_ms)?;
            let report = ledger.report()?;
            match found {
                Some(file) => {
                    let Cursor { stream, seq } = file.at;
                    (Reply::File { stream: stream.0, seq, digest: file.digest, report }, Some(file))
                }
                None => (Reply::NoFile(report), None),
            }
        }
        Request::Acknowledge { stream, seq, digest, now_ms } => {
            let at = Cursor { stream: StreamId(*stream), seq: *seq };
            (Reply::Done(ledger.acknowledge(at, digest, *now_ms)?), None)
        }
    })
}

fn failed(error: &ledger::Error) -> Reply {
    let blame = match error {
        ledger::Error::Store(generation::Error::Unreadable(_)) => Blame::Generation,
        ledger::Error::Store(generation::Error::NotDurable(_)) => Blame::Unsynced,
        ledger::Error::Logs(error) if is_unreadable(error) => Blame::Logs,
        _ => Blame::Nothing,
    };
    // The error and its causes in one line.
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    let why = causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"));
    Reply::Failed { why, blame }
}

/// The daemon's end of a running child.
#[derive(Debug)]
pub(super) struct Link {
    socket: UnixStream,
    process: Child,
    files: u32,
    /// The generation that it used last, and whether it is still opening it.
    generation: Option<u32>,
    is_opening: bool,
}

impl Link {
    /// Starts a child; the first request must be to open the spool.
    pub(super) fn start(program: &Program) -> io::Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        socket.set_read_timeout(Some(STEP))?;
        socket.set_write_timeout(Some(STEP))?;
        let process = Command::new(&program.path)
            .args(&program.arguments)
            .envs(ALLOCATOR)
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self { socket, process, files: 0, generation: None, is_opening: false })
    }

    /// Asks and waits for the answer; `beat` is called while it waits.
    pub(super) fn ask(&mut self, request: &Request, beat: &dyn Fn()) -> io::Result<Reply> {
        self.files += match request {
            Request::Seal(_) => 2,
            Request::Oldest { .. } => 1,
            _ => 0,
        };
        let mut patient = Patient { socket: &self.socket, beat };
        send(&mut patient, request)?;
        loop {
            let reply = receive(&mut patient)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            (self.generation, self.is_opening) = match reply {
                Reply::Opening(number) => (Some(number), true),
                Reply::Opened(number) => (Some(number), false),
                reply => return Ok(reply),
            };
        }
    }

    /// The generation that the child used last.
    pub(super) fn generation(&self) -> Option<u32> {
        self.generation
    }

    /// What is to blame where [`Link::ask`] gave no answer but `error`: a generation that the child hung or died in
    /// while opening it. Whoever was killed, for want of memory perhaps, did not die of that.
    pub(super) fn blame(&mut self, error: &io::Error) -> Blame {
        if !self.is_opening || (!has_hung(error) && self.was_killed()) { Blame::Nothing } else { Blame::Generation }
    }

    fn was_killed(&mut self) -> bool {
        for _ in 0..20 {
            if let Ok(Some(status)) = self.process.try_wait() {
                return status.signal() == Some(Signal::KILL.as_raw());
            }
            std::thread::sleep(Duration::from_millis(5)); // its socket is closed, so it is all but gone
        }
        false
    }

    /// The frame that follows [`Reply::File`].
    pub(super) fn bytes(&mut self, beat: &dyn Fn()) -> io::Result<Vec<u8>> {
        receive_bytes(&mut Patient { socket: &self.socket, beat })?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Whether it has done enough, and a new one would be smaller.
    pub(super) fn is_worn(&self) -> bool {
        self.files >= FILES_LIMIT
    }

    /// Lets the child go: it ends by itself, and is ended where it does not.
    pub(super) fn close(mut self) {
        let _ = self.socket.shutdown(Shutdown::Write);
        let _ = self.socket.read(&mut [0]); // its end closes with it
    }
}

/// The socket as the writer waits on it: step by step.
struct Patient<'a> {
    socket: &'a UnixStream,
    beat: &'a dyn Fn(),
}

impl Patient<'_> {
    fn wait<T>(&self, mut attempt: impl FnMut(&UnixStream) -> io::Result<T>) -> io::Result<T> {
        let mut tried = 0;
        loop {
            (self.beat)();
            tried += 1;
            match attempt(self.socket) {
                Err(error) if has_hung(&error) && tried < STEPS => {}
                done => return done,
            }
        }
    }
}

impl Read for Patient<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.wait(|mut socket| socket.read(into))
    }
}

impl Write for Patient<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.wait(|mut socket| socket.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn has_hung(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

impl Drop for Link {
    /// No child outlives its link: one that did not answer, or not in order, or that does not end. What it was to keep is
    /// committed, or it will be asked for again.
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A child that does nothing for an hour, waited for with short steps.
    fn hung() -> Link {
        let link = Link::start(&Program { path: "sleep".into(), arguments: vec!["3600".into()] }).expect("it starts");
        link.socket.set_read_timeout(Some(Duration::from_millis(1))).expect("a time-out can be set");
        link
    }

    #[test]
    fn a_child_that_hangs_is_given_up_and_meanwhile_the_writer_beats_at_each_step() {
        let beats = Cell::new(0);
        let mut link = hung();
        let asked = link.ask(&Request::Oldest { after: None, now_ms: 0 }, &|| beats.set(beats.get() + 1));
        let error = asked.expect_err("nobody answers");
        assert!(has_hung(&error), "{error}");
        assert!(beats.get() >= STEPS, "{}", beats.get());
        assert_eq!(link.blame(&error), Blame::Nothing, "it opened nothing");
        link.is_opening = true;
        assert_eq!(link.blame(&error), Blame::Generation);
    }

    #[test]
    fn a_child_that_does_not_end_holds_nobody_up() {
        let link = hung();
        let pid = link.process.id();
        link.close();
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}
