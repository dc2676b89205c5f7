//! A site in a folder of its own: keys and bundles by the operator's command, settings, and daemons on them.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use serde_json::Value;
use tempfile::TempDir;
use tidegate::admin::{Status, client};

use crate::wire;

/// How long a test waits for what must come; the machine may be busy.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// Looks until there is something to see.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "not within {SOON:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An address that nobody listens on. Below the ports that the system gives to those who ask for any, so that no
/// connection of another test gets it meanwhile.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 10_000).expect("less than 10,000");
    loop {
        let port = 12_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

pub(crate) struct Site {
    folder: TempDir,
    /// Where the gateway listens.
    pub(crate) gateway: SocketAddr,
    /// Lines for the settings, beside those that each daemon here has.
    pub(crate) more: String,
    /// How long a trial lasts.
    pub(crate) trial: String,
}

impl Site {
    /// A site with keys but without a bundle.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let site = Self { folder, gateway: free_address(), more: String::new(), trial: "10m".into() };
        site.tidegate(&["init", "policy", "--deployment", "harbour"]);
        site
    }

    /// A site for another device of the same deployment: the policy and its keys are shared, by a copy.
    #[cfg(feature = "hub")]
    pub(crate) fn beside(other: &Self, number: usize) -> Self {
        let folder = tempfile::Builder::new().prefix(&format!("beside-{number}-")).tempdir().expect("a folder");
        let copied = Command::new("cp").arg("-a").arg(other.path("policy")).arg(folder.path()).status();
        assert!(copied.expect("it runs").success());
        Self { folder, gateway: free_address(), more: String::new(), trial: "10m".into() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn tidegate(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        let output = command.args(arguments).current_dir(&self.folder).output().expect("it runs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// The bytes of a signed bundle whose one route, `/quay/ping`, goes to `upstream`; each is newer than the last.
    pub(crate) fn bundle(&self, upstream: SocketAddr) -> Vec<u8> {
        let api = format!(
            "name = \"quay\"\nversion = \"1\"\nbase_path = \"/quay\"\nupstream = \"quay\"\nissuers = [\"site\"]\n\
             subscription = false\n\n[[routes]]\npath = \"/ping\"\nmethods = [\"GET\"]\nscopes = [\"ping\"]\n\n\
             [upstreams.quay]\nendpoints = [\"http://{upstream}\"]\n"
        );
        fs::write(self.path("policy/apis/quay.toml"), api).expect("written");
        self.tidegate(&["bundle", "build", "policy", "-o", "b.tgb"]);
        self.tidegate(&["bundle", "sign", "b.tgb", "--key", "policy/keys/policy.key", "--yes"]);
        let bytes = fs::read(self.path("b.tgb")).expect("it was made");
        fs::remove_file(self.path("b.tgb")).expect("it is there");
        bytes
    }

    /// A token that the route takes.
    pub(crate) fn token(&self) -> String {
        let mut arguments = vec!["token", "mint", "--key", "policy/keys/issuer.pem", "--kid", "2026-01"];
        arguments.extend(["--iss", "https://tokens.example.com", "--aud", "edge", "--sub", "ada", "--client", "till"]);
        arguments.extend(["--scope", "ping"]);
        self.tidegate(&arguments).trim().to_owned()
    }

    /// Writes the settings to `name.toml`. All that they name is of this site; `name` tells admin sockets apart.
    fn settings(&self, name: &str) -> PathBuf {
        let text = format!(
            "state = {state:?}\ninbox = {inbox:?}\n{more}\n[trust]\nroot = {root:?}\ntrial = {trial:?}\n\n\
             [[gateway.listeners]]\naddress = \"{listen}\"\n\n[admin]\nsocket = {socket:?}\n",
            state = self.path("state"),
            inbox = self.path("inbox"),
            root = self.path("policy/root.json"),
            listen = self.gateway,
            socket = self.path(&format!("{name}.sock")),
            more = self.more,
            trial = self.trial,
        );
        let path = self.path(&format!("{name}.toml"));
        fs::write(&path, text).expect("written");
        path
    }

    /// A daemon that answers on its admin socket.
    pub(crate) fn start(&self) -> Daemon {
        let daemon = self.launch("gate", |_| {});
        daemon.answers();
        daemon
    }

    /// Starts a daemon, changed by `with`, and waits for nothing.
    pub(crate) fn launch(&self, name: &str, with: impl FnOnce(&mut Command)) -> Daemon {
        let settings = self.settings(name);
        let log = self.path(&format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).expect("a log");
        let mut command = tidegated(&["run", "--config", settings.to_str().expect("UTF-8")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        with(&mut command);
        let child = command.spawn().expect("it starts");
        Daemon { child, log, socket: self.path(&format!("{name}.sock")), inbox: self.path("inbox") }
    }
}

/// A library of this C, to be put in front of a program's own; none where there is no C compiler, which is told.
pub(crate) fn shim(folder: &Path, source: &str) -> Option<PathBuf> {
    let library = folder.join("shim.so");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-x", "c", "-", "-o"]).arg(&library).stdin(Stdio::piped());
    let Ok(mut compiling) = cc.spawn() else {
        skipped("there is no C compiler");
        return None;
    };
    compiling.stdin.take().expect("a pipe").write_all(source.as_bytes()).expect("it reads");
    assert!(compiling.wait().expect("it runs").success(), "the shim compiles");
    Some(library)
}

/// Tells that a test does nothing here, and why. Past the test harness, which shows nothing of a test that passes.
pub(crate) fn skipped(why: &str) {
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
}

/// The daemon's own binary, with nothing of this process's environment that it would heed.
pub(crate) fn tidegated(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegated"));
    command.args(arguments).env_clear();
    command
}

/// Runs the binary to its end.
pub(crate) fn ended(command: &mut Command) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = command.output().expect("it runs");
    (status.code(), String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr))
}

/// A running daemon; killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
    pub(crate) socket: PathBuf,
    inbox: PathBuf,
}

impl Daemon {
    /// The answer to one question at the admin socket.
    pub(crate) fn ask(&self, path: &'static str) -> Option<(u16, String)> {
        let reply = block_on(client::ask(&self.socket, path)).ok()?;
        Some((reply.status.as_u16(), String::from_utf8(reply.body.to_vec()).expect("text")))
    }

    pub(crate) fn status(&self) -> Status {
        block_on(client::status(&self.socket)).unwrap_or_else(|error| panic!("{error}: {}", self.log()))
    }

    pub(crate) fn answers(&self) {
        until(&format!("the daemon answers: {}", self.log()), || self.ask("/livez"));
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("a log")
    }

    /// Brings a bundle as a person would, and waits until it is judged; gives the result's name.
    pub(crate) fn takes(&self, name: &str, bytes: &[u8]) -> String {
        let result = self.inbox.join(format!("{name}.result.json"));
        let _ = fs::remove_file(&result);
        drop_in(&self.inbox, name, bytes);
        let text = until(&format!("{name} is judged: {}", self.log()), || {
            serde_json::from_slice::<Value>(&fs::read(&result).ok()?).ok()
        });
        text["body"]["result"].as_str().expect("a result has a name").to_owned()
    }

    pub(crate) fn pid(&self) -> Pid {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it runs");
    }

    /// Sets how many descriptors it may have; gives what was set before.
    pub(crate) fn descriptors(&self, limit: Rlimit) -> Rlimit {
        prlimit(Some(self.pid()), Resource::Nofile, limit).expect("it is our child")
    }

    /// Waits for its end.
    pub(crate) fn end(&mut self) -> ExitStatus {
        let log = self.log.clone();
        until(&format!("the daemon ends: {}", log.display()), || self.child.try_wait().expect("it is our child"))
    }

    /// SIGTERM, and all that must be true afterwards.
    pub(crate) fn stop(mut self) {
        self.signal(Signal::TERM);
        assert_eq!(self.end().code(), Some(0), "{}", self.log());
        assert!(!self.socket.exists(), "the admin socket is left behind");
    }

    /// SIGKILL: it gets no chance to tidy up.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it is our child");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it has ended, then
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), self.log());
        }
    }
}

/// Copies beside, and moves in.
pub(crate) fn drop_in(inbox: &Path, name: &str, bytes: &[u8]) {
    let part = inbox.join(format!(".{name}.part"));
    fs::write(&part, bytes).expect("the inbox takes files");
    fs::rename(part, inbox.join(name)).expect("moved");
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

/// Sees that a request with `token` is let through, to the upstream that says `body`.
pub(crate) fn serves(site: &Site, token: &str, body: &str) {
    let reply = wire::get(site.gateway, "/quay/ping", Some(token));
    assert_eq!((reply.status, reply.body.as_str()), (200, body));
}
