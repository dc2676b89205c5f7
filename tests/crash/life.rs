//! A process at work on a card, from its boot to its death.
//!
//! It is this binary again, with a hidden entry, and in each life the machine has another boot id: what tells a power cut from
//! a killed process. What it tells comes line by line through its standard input, a socket.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

const ORDERS: &str = "TIDEGATE_TEST_CRASH_ORDERS";
/// How long a life may take that should end by itself.
const LIMIT: Duration = Duration::from_secs(120);

/// What a life is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Task {
    /// Work until the power goes.
    Work,
    /// Start, tell what is there, and stop in order.
    Tell,
}

/// What a life is told at its start.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Orders {
    pub task: Task,
    pub root: PathBuf,
    pub seed: u64,
    /// The first number that it may use.
    pub first: u64,
}

/// A life's own end: its orders, and where it tells what it did.
pub(crate) struct Own {
    pub orders: Orders,
    socket: UnixStream,
}

impl Own {
    /// `None` in an ordinary test run: then the entry is no test.
    pub(crate) fn take() -> Option<Self> {
        let orders = serde_json::from_str(&std::env::var(ORDERS).ok()?).expect("orders");
        let socket = std::io::stdin().as_fd().try_clone_to_owned().expect("a socket");
        Some(Self { orders, socket: socket.into() })
    }

    pub(crate) fn tell(&mut self, what: &impl Serialize) {
        let line = serde_json::to_string(what).expect("it can be told") + "\n";
        self.socket.write_all(line.as_bytes()).expect("somebody listens");
    }
}

/// The test's end.
pub(crate) struct Life {
    process: Child,
    lines: Option<JoinHandle<Vec<String>>>,
    claims: Arc<AtomicU64>,
    boot: TempDir,
}

impl Life {
    /// Starts one at `entry`. Lines that tell one of `claims` are counted.
    pub(crate) fn start(entry: &str, named: &'static [&'static str], orders: &Orders) -> Self {
        static BOOTS: AtomicU64 = AtomicU64::new(1);
        let boot = tempfile::tempdir().expect("a folder");
        let (number, pid) = (BOOTS.fetch_add(1, Ordering::Relaxed), std::process::id());
        let id = boot.path().join("boot_id");
        fs::write(&id, format!("{pid:08x}-0000-4000-8000-{number:012x}\n")).expect("written");
        let (ours, theirs) = UnixStream::pair().expect("a socket");
        // A mount that only this process and its children see.
        let script = r#"mount --bind "$1" /proc/sys/kernel/random/boot_id && shift && exec "$@""#;
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]).arg(&id);
        command.arg(std::env::current_exe().expect("a path")).args(["--exact", entry, "--nocapture"]);
        command.env(ORDERS, serde_json::to_string(orders).expect("orders")).env("RUST_BACKTRACE", "0");
        command.stderr(File::create(boot.path().join("said")).expect("a file"));
        let process = command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).spawn().expect("it starts");
        drop(command); // and with it our copy of the other end
        let claims = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&claims);
        let read = move || {
            let count = |line: &String| {
                let is_claim = |name: &&str| line.strip_prefix("{\"").is_some_and(|line| line.starts_with(name));
                counted.fetch_add(u64::from(named.iter().any(is_claim)), Ordering::Relaxed);
            };
            BufReader::new(ours).lines().map_while(Result::ok).inspect(count).collect()
        };
        let lines = Some(std::thread::spawn(read));
        Self { process, lines, claims, boot }
    }

    /// How many claims it has made.
    pub(crate) fn claims(&self) -> u64 {
        self.claims.load(Ordering::Relaxed)
    }

    /// Waits until it has made so many, or has ended.
    pub(crate) fn until_claims(&mut self, count: u64) {
        let deadline = Instant::now() + LIMIT;
        while self.claims() < count && self.has_ended().is_none() {
            assert!(Instant::now() < deadline, "it does nothing");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether it has ended by itself, and what it said of that.
    pub(crate) fn has_ended(&mut self) -> Option<String> {
        let status = self.process.try_wait().expect("it can be waited for")?;
        let said = fs::read_to_string(self.boot.path().join("said")).unwrap_or_default();
        Some(format!("{status}: {}", said.trim()))
    }

    /// Kills it, as the power's going does; what it told before.
    pub(crate) fn kill<T: DeserializeOwned>(mut self) -> Vec<T> {
        let _ = self.process.kill();
        self.lines()
    }

    /// Waits for its end; what it told, or how it failed.
    pub(crate) fn end<T: DeserializeOwned>(mut self) -> Result<Vec<T>, String> {
        let deadline = Instant::now() + LIMIT;
        let said = loop {
            match self.has_ended() {
                Some(said) => break said,
                None if Instant::now() >= deadline => return Err("it does not end".into()),
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        let told = self.lines();
        let is_well = self.process.wait().is_ok_and(|status| status.success());
        if is_well { Ok(told) } else { Err(format!("it failed, {said}")) }
    }

    /// The last one may have been cut off in its midst.
    fn lines<T: DeserializeOwned>(&mut self) -> Vec<T> {
        let _ = self.process.wait();
        let lines = self.lines.take().map(|lines| lines.join().expect("read")).unwrap_or_default();
        lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The card's root as a path that a life works in.
pub(crate) fn folder(root: &Path, name: &str) -> PathBuf {
    let folder = root.join(name);
    fs::create_dir_all(&folder).expect("a folder");
    folder
}
