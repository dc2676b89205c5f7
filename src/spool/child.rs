//! The spool's child: all of sled, sealing and reading back, in a process that ends when the work does.
//!
//! sled keeps what memory it took until its process ends, so the process ends: after a few files, and
//! as soon as there is nothing to do. The daemon starts its own binary again with a hidden argument,
//! which calls [`run`]; they speak through the child's standard input, a socket (`wire`). The child
//! dies with its daemon, and two children never have the folder at the same time.

use std::io;
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
/// A child that does not answer for this long is given up: a slow card's sync takes seconds, not minutes.
const PATIENCE: Duration = Duration::from_secs(120);
/// Files that a child seals or reads before it is let go: its memory grows with them.
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
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let process = Command::new(&program.path)
            .args(&program.arguments)
            .envs(ALLOCATOR)
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self { socket, process, files: 0, generation: None, is_opening: false })
    }

    /// Asks and waits for the answer.
    pub(super) fn ask(&mut self, request: &Request) -> io::Result<Reply> {
        self.files += u32::from(matches!(request, Request::Seal(_) | Request::Oldest { .. }));
        send(&mut self.socket, request)?;
        loop {
            let reply = receive(&mut self.socket)?.ok_or(io::ErrorKind::UnexpectedEof)?;
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
        let has_hung = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        if !self.is_opening || (!has_hung && self.was_killed()) { Blame::Nothing } else { Blame::Generation }
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
    pub(super) fn bytes(&mut self) -> io::Result<Vec<u8>> {
        receive_bytes(&mut self.socket)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Whether it has done enough, and a new one would be smaller.
    pub(super) fn is_worn(&self) -> bool {
        self.files >= FILES_LIMIT
    }

    /// Lets the child go: it ends by itself.
    pub(super) fn close(mut self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        let _ = self.process.wait();
    }
}

impl Drop for Link {
    /// An unfinished link: the child did not answer, or not in order.
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}
