//! The README keeps its word: what it tells a new user to paste is run here as it stands.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::PACKAGE;

/// How long all of it may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// The one line that a user changes: which ports are free.
const PORTS: &str = "upstream=9000 gateway=8080 hub=8443 ";

fn readme() -> String {
    fs::read_to_string(Path::new(PACKAGE).join("README.md")).expect("the README")
}

/// The blocks of `language` under the heading that begins with `heading`.
fn blocks(readme: &str, heading: &str, language: &str) -> Vec<String> {
    let section = readme.split("\n## ").find(|section| section.starts_with(heading)).expect("the section");
    let fence = format!("\n```{language}\n");
    let blocks = section.split(&fence).skip(1);
    blocks.map(|rest| rest.split("\n```\n").next().expect("an end").to_owned() + "\n").collect()
}

/// A shell and everything that it started; all of it is killed when dropped.
struct Session(Child);

impl Session {
    fn start(folder: &Path, script: &str) -> Self {
        let programs = Path::new(env!("CARGO_BIN_EXE_tidegate")).parent().expect("a folder");
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").expect("a PATH"));
        let file = |name: &str| fs::File::create(folder.join(name)).expect("a file");
        let shell = Command::new("bash")
            .args(["-e", "-c", script])
            .current_dir(folder)
            .env("PATH", path)
            .stdin(Stdio::null())
            .stdout(file("said"))
            .stderr(file("complained"))
            .process_group(0)
            .spawn();
        Self(shell.expect("bash starts"))
    }

    /// Whether it ended well in time.
    fn ends_well(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.0.try_wait().expect("a child of ours") {
                return status.success();
            }
            sleep(Duration::from_millis(20));
        }
        false
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let group = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        // Nothing of it is left where all went well.
        let _ = group.map(|group| kill_process_group(group, Signal::KILL));
        let _ = self.0.wait();
    }
}

fn is_there(program: &str) -> bool {
    let asked = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    asked.is_ok_and(|status| status.success())
}

/// Three ports that nobody listens on at this moment.
fn free_ports() -> [u16; 3] {
    let listeners = [(); 3].map(|()| TcpListener::bind(("127.0.0.1", 0)).expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("its address").port())
}

#[test]
fn near_the_top_stand_exactly_two_commands() {
    let readme = readme();
    let first = readme.split("\n```sh\n").nth(1).expect("a block").split("\n```\n").next().expect("an end");
    let commands: Vec<_> = first.lines().map(|line| line.split('#').next().expect("a command").trim()).collect();
    assert_eq!(commands, ["cargo run --release -- demo", "cargo test"]);
    let before = readme.split("\n```sh\n").next().expect("the head").lines().count();
    assert!(before < 30, "{before} lines come before them");
}

#[test]
fn the_first_device_of_the_readme_works_as_it_is_pasted() {
    if option_env!("CARGO_BIN_EXE_tidegate-hub").is_none() {
        return crate::skipped("this build has no hub");
    }
    if let Some(missing) = ["bash", "curl", "python3", "sqlite3"].into_iter().find(|program| !is_there(program)) {
        return crate::skipped(&format!("{missing} is absent"));
    }
    let readme = readme();
    let blocks = blocks(&readme, "A first device in ten minutes", "sh");
    let [build, site, records, end, _board] = &blocks[..] else { panic!("other blocks: {blocks:#?}") };
    assert!(build.contains("cargo build --release") && build.contains("target/release"), "{build}");
    let [upstream, gateway, hub] = free_ports();
    assert_eq!(site.matches(PORTS).count(), 1, "{site}");
    let site = site.replace(PORTS, &format!("upstream={upstream} gateway={gateway} hub={hub} "));
    // The hub's line is asked again until it has both requests; a person does the same.
    let records = format!(
        "until records=$({}) && grep -q '|200|Admitted|till$' <<< \"$records\" && grep -q TokenMissing <<< \"$records\"\n\
         do sleep 0.2; done\n",
        records.trim()
    );
    let folder = tempfile::tempdir().expect("a temporary folder");
    symlink(Path::new(PACKAGE).join("config"), folder.path().join("config")).expect("a link");
    let mut session = Session::start(folder.path(), &format!("{site}{records}{end}"));
    let well = session.ends_well();
    let mut logs: Vec<PathBuf> = ["said", "complained"].map(|name| folder.path().join(name)).into();
    logs.extend(["hub.log", "tidegated.log", "upstream.log"].map(|name| folder.path().join("site").join(name)));
    let all = || logs.iter().map(|log| fs::read_to_string(log).unwrap_or_default()).collect::<Vec<_>>().join("\n---\n");
    assert!(well, "{}", all());
    let said = fs::read_to_string(folder.path().join("said")).expect("what it said");
    for told in [
        "8 routes",
        "has 1 of 1 signatures",
        "accepted\n",
        "[\"Selkie\", \"Bosun\"]\n200\n",
        "\"error\":\"TokenMissing\"",
        "\n401\n",
        "\"result\":\"Activated\"",
    ] {
        assert!(said.contains(told), "wanted {told} in {}", all());
    }
    assert!(!folder.path().join("site").exists(), "the last block tidies up");
}

#[test]
fn the_board_of_the_readme_may_report_to_its_hub() {
    let readme = readme();
    let blocks = blocks(&readme, "A first device in ten minutes", "toml");
    let [hub] = &blocks[..] else { panic!("other blocks: {blocks:#?}") };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    let check = |drop_in: &str| {
        fs::write(at.join("tidegated.d/hub.toml"), drop_in).expect("written");
        let config = at.join("tidegated.toml");
        Command::new(env!("CARGO_BIN_EXE_tidegated"))
            .arg("check")
            .arg("--config")
            .arg(config)
            .output()
            .expect("it runs")
    };
    fs::create_dir(at.join("tidegated.d")).expect("a folder");
    crate::program::done(at, &["init", "p"]);
    let settings = format!(
        "state = {:?}\ninbox = {:?}\ntrust.root = {:?}\nadmin.socket = {:?}\n",
        at.join("state"),
        at.join("inbox"),
        at.join("p/root.json"),
        at.join("admin.sock")
    );
    fs::write(at.join("tidegated.toml"), settings).expect("written");
    let good = check(hub);
    assert!(good.status.success(), "{}", crate::program::err(&good));
    let without: String =
        hub.lines().filter(|line| !line.starts_with("allow_plain_http")).map(|l| format!("{l}\n")).collect();
    assert!(!check(&without).status.success(), "the line is needed");
}
