//! Starts and ends: what a daemon finds again, and what it leaves behind.

use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};

use rustix::process::{Resource, Rlimit, Signal, getrlimit};
use tidegate::admin::{PolicyStatus, Status};

use crate::site::{Site, ended, serves, tidegated, until};
use crate::wire::{get, upstream};

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        match entry.path() {
            path if path.is_dir() => files(&path, found),
            path => found.push(path),
        }
    }
}

#[test]
fn a_restart_serves_the_same_policy_but_only_if_it_verifies_again() {
    let site = Site::new();
    let (token, bundle) = (site.token(), site.bundle(upstream("one")));
    let daemon = site.start();
    assert_eq!(daemon.takes("first.tgb", &bundle), "Activated");
    let before = daemon.status();
    daemon.stop();
    assert!(TcpStream::connect(site.gateway).is_err(), "nobody listens any more");

    let daemon = site.start();
    let after = daemon.status();
    let id = |status: &PolicyStatus| match status {
        PolicyStatus::Active { id, .. } => *id,
        PolicyStatus::SafeMode => panic!("safe mode"),
    };
    assert_eq!((after.device, id(&after.policy)), (before.device, id(&before.policy)));
    serves(&site, &token, "one");
    daemon.stop();

    // One byte of what it keeps is changed while it is away.
    let mut kept = Vec::new();
    files(&site.path("state/slots"), &mut kept);
    let largest = kept.iter().max_by_key(|path| fs::metadata(path).map_or(0, |meta| meta.len()));
    let largest = largest.expect("the bundle is kept");
    let mut bytes = fs::read(largest).expect("read");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(largest, bytes).expect("written");
    let daemon = site.start();
    assert_eq!(daemon.status().policy, PolicyStatus::SafeMode, "{}", daemon.log());
    assert_eq!(get(site.gateway, "/quay/ping", Some(&token)).status, 503);
    daemon.stop();
}

#[test]
fn a_killed_daemon_starts_again_on_what_it_left() {
    let mut site = Site::new();
    site.more = "[spool]\nseal_after = \"1h\"\nseal_after_offline = \"1h\"\n".into();
    let token = site.token();
    let daemon = site.start();
    assert_eq!(daemon.takes("first.tgb", &site.bundle(upstream("one"))), "Activated");
    for _ in 0..5 {
        serves(&site, &token, "one");
    }
    let (socket, device) = (daemon.socket.clone(), daemon.status().device);
    daemon.kill();
    assert!(socket.exists(), "nobody tidied up");

    let daemon = site.start();
    assert_eq!(daemon.status().device, device);
    serves(&site, &token, "one");
    until("what the open log held is sealed", || (daemon.status().spool.backlog_files == 1).then_some(()));
    let spool = daemon.status().spool;
    assert_eq!((spool.rolled_up, spool.lost), (0, 0), "{spool:?}");
    daemon.stop();
}

#[test]
fn a_policy_that_brings_the_daemon_down_three_times_gives_way_to_the_one_before_it() {
    let mut site = Site::new();
    site.trial = "3s".into();
    let token = site.token();
    let (first, second) = (site.bundle(upstream("one")), site.bundle(upstream("two")));
    let on_trial = |status: &Status| matches!(status.policy, PolicyStatus::Active { on_trial: true, .. });

    let daemon = site.start();
    assert_eq!(daemon.takes("first.tgb", &first), "Activated");
    until("it has passed", || daemon.log().contains("has passed its trial").then_some(()));
    until("status says so", || (!on_trial(&daemon.status())).then_some(()));
    daemon.stop();

    site.trial = "1h".into();
    let mut daemon = site.start();
    assert_eq!(daemon.takes("second.tgb", &second), "Activated");
    assert!(on_trial(&daemon.status()), "from the first moment");
    for _ in 0..2 {
        daemon.kill();
        daemon = site.start();
        assert!(on_trial(&daemon.status()), "and again after a start");
        serves(&site, &token, "two");
    }
    daemon.stop();
    let daemon = site.start();
    serves(&site, &token, "two"); // an end in order counts for nothing
    daemon.kill();
    let daemon = site.start();
    serves(&site, &token, "one");
    assert!(daemon.log().contains("KnownBad"), "{}", daemon.log());
    assert!(!on_trial(&daemon.status()), "it passed its own");
    assert_eq!(daemon.takes("again.tgb", &second), "KnownBad");
    serves(&site, &token, "one");
    daemon.stop();
}

#[test]
fn a_policy_on_trial_is_not_blamed_for_a_stop_that_the_supervisor_cuts_short() {
    let mut site = Site::new();
    (site.more, site.trial) = ("[gateway.timeouts]\ndrain = \"10m\"\n".into(), "1s".into());
    let (token, mute) = (site.token(), TcpListener::bind("127.0.0.1:0").expect("a free port"));
    mute.set_nonblocking(true).expect("it can be set");
    let (first, second) = (site.bundle(upstream("one")), site.bundle(mute.local_addr().expect("bound")));
    let daemon = site.start();
    assert_eq!(daemon.takes("first.tgb", &first), "Activated");
    until("it has passed", || daemon.log().contains("has passed its trial").then_some(()));
    daemon.stop();
    site.trial = "1h".into();
    let daemon = site.start();
    assert_eq!(daemon.takes("second.tgb", &second), "Activated");
    daemon.stop();
    for number in 1..=4 {
        let daemon = site.launch(&format!("gate{number}"), |_| {});
        daemon.answers();
        let mut caller = TcpStream::connect(site.gateway).expect("it listens");
        let head = format!("GET /quay/ping HTTP/1.1\r\nHost: quay.example\r\nAuthorization: Bearer {token}\r\n\r\n");
        caller.write_all(head.as_bytes()).expect("it reads");
        // And never answers, so the drain lasts.
        let _held = until("the second policy serves", || mute.accept().ok());
        daemon.signal(Signal::TERM);
        until("it drains", || daemon.log().contains("requests in flight may end").then_some(()));
        daemon.kill();
    }
    let daemon = site.launch("last", |_| {});
    daemon.answers();
    assert!(!daemon.log().contains("KnownBad"), "{}", daemon.log());
    daemon.stop();
}

#[test]
fn descriptors_that_run_out_are_told_once_and_counted_and_connections_come_again_with_them() {
    let site = Site::new();
    let daemon = site.start();
    let ours = getrlimit(Resource::Nofile);
    let taken = daemon.descriptors(Rlimit { current: Some(0), ..ours });
    assert_eq!(taken.current, ours.maximum, "it takes what it is given");
    let _caller = TcpStream::connect(site.gateway).expect("the kernel takes it");
    let told = || daemon.log().matches("no connection can be accepted").count();
    until("it is told", || (told() > 0).then_some(()));
    daemon.descriptors(taken);
    let errors = || {
        let metrics = daemon.ask("/metrics")?.1;
        metrics.lines().find_map(|line| line.strip_prefix("tidegate_accept_errors_total ")?.parse::<u64>().ok())
    };
    assert!(until("it answers", errors) > 0);
    assert_eq!(get(site.gateway, "/", None).status, 503, "and it serves");
    assert_eq!(told(), 1);
    daemon.stop();
}

#[test]
fn a_second_daemon_on_the_same_state_says_so_and_disturbs_nothing() {
    let site = Site::new();
    let token = site.token();
    let daemon = site.start();
    assert_eq!(daemon.takes("first.tgb", &site.bundle(upstream("one"))), "Activated");

    let mut second = site.launch("second", |_| {});
    let code = second.end().code();
    let log = second.log();
    assert!(code.is_some_and(|code| ![0, 78].contains(&code)), "{code:?}: {log}");
    let last = log.lines().last().expect("it says something");
    assert!(last.starts_with("tidegated: ") && last.contains("another process"), "{log}");
    assert!(!second.socket.exists());

    serves(&site, &token, "one");
    assert_eq!(daemon.ask("/livez"), Some((200, "ok\n".into())));
    // Asking is allowed, also beside a running daemon.
    let settings = site.path("gate.toml");
    let (code, said) = ended(&mut tidegated(&["check", "--config", settings.to_str().expect("UTF-8")]));
    assert_eq!(code, Some(0), "{said}");
    daemon.stop();
}
