//! The demo as a gate: it ends, says no where it should, and takes its children with it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tidegate::exit;

/// A demo in its first phase, which is longer than the test.
struct Demo {
    child: Child,
    folder: tempfile::TempDir,
    children: Vec<(Pid, String)>,
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // What the demo has left, and nothing else that has come to the number.
        for (pid, line) in self.children.iter().filter(|(pid, line)| command_line(*pid).as_ref() == Some(line)) {
            println!("left behind: {line}");
            let _ = kill_process(*pid, Signal::KILL);
        }
    }
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Demo {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let told = File::create(folder.path().join("told")).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(["demo", "--exit", "--requests", "1000000", "--dir", "site"]).current_dir(folder.path());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(told).spawn().expect("it starts");
        let mut demo = Self { child, folder, children: Vec::new() };
        let judged = demo.path("site/inbox/policy-1.tgb.result.json");
        until("the policy is in force", || judged.exists().then_some(()));
        demo.children = children(demo.child.id());
        assert_eq!(demo.children.len(), 3, "{:?}", demo.children);
        demo
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Its end and what it said, once none of its children is left.
    fn ended(&mut self) -> (ExitStatus, String) {
        let status = until("the demo ends", || self.child.try_wait().expect("it is ours"));
        for (pid, name) in &self.children {
            until(&format!("{name} is ended"), || test_kill_process(*pid).is_err().then_some(()));
        }
        (status, fs::read_to_string(self.path("told")).expect("text"))
    }
}

fn command_line(pid: Pid) -> Option<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    Some(String::from_utf8_lossy(&line).replace('\0', " "))
}

/// The children of a process, with their command lines.
fn children(parent: u32) -> Vec<(Pid, String)> {
    let entries =
        fs::read_dir("/proc").expect("Linux has it").filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let child = |name: String| {
        let pid = Pid::from_raw(name.parse().ok()?)?;
        let stat = fs::read_to_string(Path::new("/proc").join(name).join("stat")).ok()?;
        let (_, after) = stat.rsplit_once(") ")?;
        let is_child = after.split(' ').nth(1)?.parse() == Ok(parent);
        Some((pid, command_line(pid)?)).filter(|_| is_child)
    };
    entries.filter_map(child).collect()
}

#[test]
fn a_signal_ends_the_demo_and_all_its_children() {
    let mut demo = Demo::start();
    let pid = Pid::from_child(&demo.child);
    kill_process(pid, Signal::TERM).expect("it is ours");
    let (status, told) = demo.ended();
    assert_eq!(status.code(), Some(exit::DATA.into()), "{told}");
    assert!(told.contains("broken off by a signal"), "{told}");
}

#[test]
fn a_gateway_that_dies_where_it_should_live_ends_the_demo_with_an_error() {
    let mut demo = Demo::start();
    let gateway = demo.children.iter().find(|(_, line)| line.contains("demo-role gateway")).expect("a gateway").0;
    kill_process(gateway, Signal::KILL).expect("it is the demo's");
    let (status, told) = demo.ended();
    assert_eq!(status.code(), Some(exit::DATA.into()), "{told}");
    assert!(told.contains("the gateway ended with signal: 9"), "{told}");
}
