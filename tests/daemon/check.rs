//! `tidegated check`, what `run` says of settings that cannot be right, and the command line.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tidegate::exit;

use crate::site::{Site, ended, tidegated};

const CONFIG: Option<i32> = Some(exit::CONFIG as i32);

/// `task` on settings of these lines, in a folder of its own.
fn on(folder: &Path, task: &str, text: &str) -> (Command, PathBuf) {
    let path = folder.join("tidegated.toml");
    fs::write(&path, text).expect("written");
    (tidegated(&[task, "--config", path.to_str().expect("UTF-8")]), path)
}

/// What is wrong with these settings: the keys, as they are told.
fn keys(said: &str) -> Vec<&str> {
    let lines = said.lines().skip(1).filter(|line| line.starts_with("  "));
    lines.filter_map(|line| line.trim().split(": ").nth(1)).collect()
}

#[test]
fn every_problem_is_told_at_once_whatever_its_kind_by_check_and_by_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = format!(
        "stat = \"x\"\nstate = {state:?}\ninbox = {inbox:?}\n[trust]\nroot = \"{folder}/absent.json\"\n\
         [upload]\nhubs = [\"http://example.com\"]\n[gateway.limits]\nconnections = 0\nhead = 5\n\
         [admin]\nsocket = \"{folder}/absent/admin.sock\"\n",
        state = folder.path().join("state"),
        inbox = "/proc/nowhere",
        folder = folder.path().display(),
    );
    for task in ["check", "run"] {
        let (code, said) = ended(&mut on(folder.path(), task, &text).0);
        assert_eq!(code, CONFIG, "{task}: {said}");
        let mut told = keys(&said);
        told.sort_unstable();
        let all = ["admin.socket", "gateway.limits.connections", "gateway.limits.head", "inbox", "stat", "trust.root"];
        assert_eq!(told, [&all[..], &["upload.hubs"]].concat(), "{task}: {said}");
        assert!(said.starts_with("tidegated: 7 problems in the configuration\n"), "{said}");
    }
    assert_eq!(fs::read_dir(&folder).expect("there").count(), 1, "nothing was made");
}

#[test]
fn nonsense_is_not_good() {
    let site = Site::new();
    let with = |key: &str, value: &str| {
        let mut settings: toml::Table = format!(
            "state = {:?}\ninbox = {:?}\n[trust]\nroot = {:?}\n[admin]\nsocket = {:?}\n",
            site.path("state"),
            site.path("inbox"),
            site.path("policy/root.json"),
            site.path("gate.sock"),
        )
        .parse()
        .expect("TOML");
        let (sections, key) = key.rsplit_once('.').unwrap_or(("", key));
        let mut table = &mut settings;
        for section in sections.split('.').filter(|section| !section.is_empty()) {
            let inner = table.entry(section).or_insert_with(|| toml::Table::new().into());
            table = inner.as_table_mut().expect("a section");
        }
        let value = format!("v = {value}").parse::<toml::Table>().expect("TOML")["v"].clone();
        table.insert(key.into(), value);
        ended(&mut on(&site.path(""), "check", &settings.to_string()).0)
    };
    assert_eq!(with("throttle.slots", "8192").0, Some(0), "the control");
    for (key, value) in [
        ("gateway.limits.connections", "0"),
        ("gateway.timeouts.head", "'0s'"),
        ("gateway.workers", "65535"),
        ("throttle.slots", "0"),
        ("spool.sync_interval", "'0s'"),
        ("spool.log_size", "'0'"),
        ("spool.open_limit", "'0'"),
        ("state", "'/proc/nowhere'"),
        ("admin.socket", "'/absent/admin.sock'"),
        ("telemetry.modules.gatway", "'debug'"),
        ("gateway.listeners", "[]"),
    ] {
        let (code, said) = with(key, value);
        assert_eq!(code, CONFIG, "{key} = {value}: {said}");
        let [told] = keys(&said)[..] else { panic!("{key} = {value}: {said}") };
        assert!(key.starts_with(told), "{key} = {value}: {said}");
    }
}

#[test]
fn a_key_that_others_can_read_and_a_file_where_the_socket_goes_are_told_before_a_start() {
    let site = Site::new();
    site.start().stop();
    let settings = site.path("gate.toml");
    let check = || ended(&mut tidegated(&["check", "--config", settings.to_str().expect("UTF-8")]));
    assert_eq!(check().0, Some(0), "the control: {}", check().1);
    let key = site.path("state/device.key");
    fs::set_permissions(&key, Permissions::from_mode(0o644)).expect("set");
    fs::write(site.path("gate.sock"), "").expect("written");
    let (code, said) = check();
    assert_eq!((code, keys(&said)), (CONFIG, vec!["admin.socket", "state"]), "{said}");
    assert!(said.contains("chmod 600") && said.contains("not a socket"), "{said}");

    // A start that only a person can help still says so by its code.
    assert_eq!(site.launch("gate", |_| {}).end().code(), CONFIG);
    fs::remove_file(site.path("gate.sock")).expect("it is there");
    assert_eq!(site.launch("gate", |_| {}).end().code(), Some(exit::NO_PERMISSION.into()));
    fs::set_permissions(&key, Permissions::from_mode(0o600)).expect("set");
    fs::write(&key, "rot").expect("written");
    assert!(keys(&check().1) == ["state"], "{}", check().1);
    assert_eq!(site.launch("gate", |_| {}).end().code(), Some(exit::DATA.into()));
}

#[test]
fn more_connections_than_descriptors_are_told_before_the_daemon_starts() {
    let folder = tempfile::tempdir().expect("a folder");
    for (connections, is_told) in [(1_024, true), (600, false)] {
        let text = format!("[gateway.limits]\nconnections = {connections}\n");
        for task in ["check", "run"] {
            let path = on(folder.path(), task, &text).1;
            let mut command = Command::new("sh");
            command.args([
                "-c",
                "ulimit -n 2000; exec \"$@\"",
                "sh",
                env!("CARGO_BIN_EXE_tidegated"),
                task,
                "--config",
            ]);
            let (code, said) = ended(command.arg(path).env("TIDEGATE_TRUST__ROOT", "/absent.json"));
            assert_eq!((code, keys(&said).contains(&"gateway.limits.connections")), (CONFIG, is_told), "{said}");
        }
    }
}

#[test]
fn a_folder_that_may_yet_come_is_told_of_but_is_no_reason_to_wait_for_a_person() {
    let site = Site::new();
    let text = format!(
        "state = {:?}\ninbox = {:?}\n[trust]\nroot = {:?}\n[[gateway.listeners]]\naddress = \"{}\"\n\
         [admin]\nsocket = \"/absent/admin.sock\"\n",
        site.path("state"),
        site.path("inbox"),
        site.path("policy/root.json"),
        site.gateway,
    );
    let (code, said) = ended(&mut on(&site.path(""), "run", &text).0);
    assert_eq!(code, Some(exit::UNAVAILABLE.into()), "{said}");
    assert!(
        said.contains("  settings: admin.socket: /absent: ") && said.contains("\ntidegated: cannot open"),
        "{said}"
    );
    assert!(site.path("state").exists(), "it tried");
}

#[test]
fn the_environment_wins_and_what_is_not_ours_in_it_does_not_matter() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = format!("[trust]\nroot = \"/absent.json\"\n[admin]\nsocket = \"{}/s\"\n", folder.path().display());
    let (mut command, _) = on(folder.path(), "check", &text);
    command.env("TIDEGATE_STATE", folder.path().join("state")).env("TIDEGATE_INBOX", folder.path().join("inbox"));
    command.env("TIDEGATE_GATEWAY__LIMITS__CONNECTIONS", "0").env("TIDEGATE_CI_CACHE", "x");
    command.env("TIDEGATE_BUILD_TIME", OsStr::from_bytes(b"\xff")).env(OsStr::from_bytes(b"\xfe"), "x");
    let (code, said) = ended(&mut command);
    assert_eq!((code, keys(&said)), (CONFIG, vec!["gateway.limits.connections", "trust.root"]), "{said}");
    let (_, said) = ended(command.env("TIDEGATE_SPOOL__LOG_SIZE", OsStr::from_bytes(b"\xff")));
    assert!(said.contains("TIDEGATE_SPOOL__LOG_SIZE: spool.log_size: not UTF-8 text"), "{said}");
}

#[test]
fn a_wrong_command_line_is_told_even_where_it_is_not_text() {
    for arguments in [&[][..], &[b"\xff".as_slice()], &[b"check", b"--\xff"], &[b"run", b"check"]] {
        let (code, said) = ended(tidegated(&[]).args(arguments.iter().copied().map(OsStr::from_bytes)));
        assert_eq!(code, Some(exit::USAGE.into()), "{arguments:?}: {said}");
    }
    let absent = OsStr::from_bytes(b"/absent/\xff.toml");
    let (code, said) = ended(tidegated(&["check", "--config"]).arg(absent));
    assert!(code == CONFIG && said.contains("1 problem in") && said.contains("/absent/"), "{said}");
}
