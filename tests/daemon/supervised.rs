//! The daemon under systemd's protocols: readiness, watchdog, reload, passed sockets, and the unit itself.

use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use rustix::process::Signal;
use tidegate::{exit, gateway};

use crate::site::{SOON, Site, free_address, serves, shim, until};
use crate::wire::{get, upstream};

/// The supervisor's end of `NOTIFY_SOCKET`.
struct Ear(UnixDatagram);

impl Ear {
    fn at(path: &Path) -> Self {
        let ear = UnixDatagram::bind(path).expect("a socket");
        ear.set_read_timeout(Some(SOON)).expect("a time-out can be set");
        Self(ear)
    }

    /// The next message that has `line`; those before it were about something else.
    fn hears(&self, line: &str) -> String {
        until(line, || {
            let mut buffer = [0; 4096];
            let length = self.0.recv(&mut buffer).expect("the daemon goes on telling");
            let text = std::str::from_utf8(&buffer[..length]).expect("text");
            text.lines().any(|told| told == line).then(|| text.to_owned())
        })
    }
}

#[test]
fn a_supervisor_hears_of_start_life_reload_and_end() {
    let mut site = Site::new();
    site.more = "[spool]\nseal_after = \"1h\"\nseal_after_offline = \"1h\"\n".into();
    let ear = Ear::at(&site.path("notify"));
    let mut daemon = site.launch("gate", |command| {
        command.env("NOTIFY_SOCKET", site.path("notify")).env("WATCHDOG_USEC", "400000");
    });
    let ready = ear.hears("READY=1");
    assert!(ready.contains("STATUS=safe mode"), "{ready}");
    ear.hears("WATCHDOG=1");
    ear.hears("WATCHDOG=1");
    // Ready means that it answers, on both sides.
    assert_eq!(get(site.gateway, "/", None).status, 503);
    assert_eq!(daemon.ask("/livez"), Some((200, "ok\n".into())));

    let token = site.token();
    assert_eq!(daemon.takes("first.tgb", &site.bundle(upstream("one"))), "Activated");
    serves(&site, &token, "one");
    assert_eq!(daemon.status().spool.backlog_files, 0, "it is not time to seal yet");
    until("what waits to be sealed is told", || (daemon.status().spool.open_bytes > 0).then_some(()));
    for files in [1, 2] {
        let before = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        daemon.signal(Signal::HUP);
        let reloading = ear.hears("RELOADING=1");
        let at = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).expect("systemd asks for it");
        let at: i64 = at.parse().expect("a number");
        assert!(at >= before.tv_sec * 1_000_000 + before.tv_nsec / 1_000, "{reloading}");
        assert!(ear.hears("READY=1").contains(&format!("; {files} usage files wait")));
        let spool = daemon.status().spool;
        assert_eq!((spool.backlog_files, &spool.last_error), (files, &None), "{spool:?}");
        assert!(spool.stream.is_some() && spool.disk_bytes >= spool.backlog_bytes, "{spool:?}");
        let metrics = daemon.ask("/metrics").expect("an answer").1;
        assert!(metrics.contains(&format!("\ntidegate_spool_disk_bytes {}\n", spool.disk_bytes)), "{metrics}");
        assert!(metrics.contains("\ntidegate_spool_failing 0\n"), "{metrics}");
        serves(&site, &token, "one");
    }

    daemon.signal(Signal::TERM);
    // The drain, which may be longer than the unit waits, and what comes after it.
    let stopping = ear.hears("STOPPING=1");
    assert!(stopping.lines().any(|line| line == "EXTEND_TIMEOUT_USEC=40000000"), "{stopping}");
    assert_eq!(daemon.end().code(), Some(0), "{}", daemon.log());
}

#[test]
fn a_reload_tries_the_hub_at_once_however_long_it_was_out_of_reach() {
    let mut site = Site::new();
    let hub = TcpListener::bind("127.0.0.1:0").expect("a free port");
    hub.set_nonblocking(true).expect("it can be set");
    let address = hub.local_addr().expect("bound");
    site.more =
        format!("[upload]\nhubs = [\"http://{address}\"]\nretry_base = \"1h\"\nretry_cap = \"1h\"\npull = false\n");
    let daemon = site.start();
    drop(until("it asks for the time", || hub.accept().ok()));
    until("that has failed", || daemon.status().upload.filter(|upload| upload.failures == 1));
    daemon.signal(Signal::HUP);
    drop(until("it asks again", || hub.accept().ok()));
    daemon.stop();
}

/// Fails what a thread that is called `ENDS` waits by: its runtime takes that for a defect and panics.
const ENDS: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
int epoll_wait(int fd, struct epoll_event *events, int most, int ms) {
    char name[16] = "";
    const char *ends = getenv("ENDS");
    prctl(PR_GET_NAME, name);
    if (ends && strcmp(name, ends) == 0) { errno = EBADF; return -1; }
    return (int)syscall(SYS_epoll_pwait, fd, events, most, ms, NULL, 8);
}
"#;

#[test]
fn a_task_that_ends_takes_the_daemon_down_even_where_no_watchdog_does_and_that_counts_in_a_trial() {
    let mut site = Site::new();
    let Some(shim) = shim(&site.path(""), ENDS) else { return };
    let token = site.token();
    let (first, second) = (site.bundle(upstream("one")), site.bundle(upstream("two")));
    site.trial = "1s".into();
    let daemon = site.start();
    assert_eq!(daemon.takes("first.tgb", &first), "Activated");
    until("it has passed", || daemon.log().contains("has passed its trial").then_some(()));
    daemon.stop();
    site.trial = "1h".into();
    let daemon = site.start();
    assert_eq!(daemon.takes("second.tgb", &second), "Activated");
    daemon.stop();

    let broken = |name: &str, watchdog: Option<&str>| {
        site.launch(name, |command| {
            command.env("LD_PRELOAD", &shim).env("ENDS", "accept");
            command.envs(watchdog.map(|limit| ("WATCHDOG_USEC", limit)));
        })
    };
    for _ in 0..2 {
        let mut daemon = broken("unwatched", None);
        assert_eq!(daemon.end().code(), Some(exit::SOFTWARE.into()), "{}", daemon.log());
        assert!(daemon.log().contains("tidegated: task accept has ended"), "{}", daemon.log());
    }
    // The control: a watchdog is left to do it.
    let daemon = broken("watched", Some("400000"));
    until("it is not fed", || daemon.log().contains("task accept has ended; the watchdog is not fed").then_some(()));
    assert!(daemon.ask("/livez").is_some_and(|(status, _)| status == 503));
    assert!(daemon.ask("/metrics").is_some_and(|(_, text)| text.contains("\ntidegate_panics_total 1\n")));
    daemon.kill();

    let daemon = site.start();
    serves(&site, &token, "one");
    assert!(daemon.log().contains("KnownBad"), "{}", daemon.log());
    daemon.stop();
}

#[test]
fn a_supervisor_that_does_not_listen_holds_nothing_up() {
    let site = Site::new();
    let _deaf = Ear::at(&site.path("notify"));
    let daemon = site.launch("gate", |command| {
        command.env("NOTIFY_SOCKET", site.path("notify")).env("WATCHDOG_USEC", "4000");
    });
    until("it answers", || daemon.ask("/livez"));
    // A thousand beats a second soon fill whatever room there is.
    until("it goes on", || (daemon.status().uptime_seconds >= 3).then_some(()));
    assert_eq!(daemon.ask("/livez"), Some((200, "ok\n".into())));
    daemon.stop();
}

#[test]
fn a_socket_that_is_passed_serves_its_own_block_and_one_too_many_is_told() {
    let mut site = Site::new();
    let passed = TcpListener::bind(free_address()).expect("a free port");
    let (address, spare) =
        (passed.local_addr().expect("bound"), TcpListener::bind("127.0.0.1:0").expect("a free port"));
    let spare_at = spare.local_addr().expect("bound");
    site.gateway = address;
    let daemon = site.launch("gate", |command| {
        command.stdin(OwnedFd::from(passed)).stdout(OwnedFd::from(spare));
        command.env("LISTEN_FDS", "2").env("LISTEN_FDS_FIRST_FD", "0");
    });
    until("it answers", || daemon.ask("/livez"));
    assert_eq!(get(address, "/", None).status, 503);
    let log = daemon.log();
    let told = |line: &&str| line.contains(" warn daemon") && line.contains(&spare_at.to_string());
    assert!(log.lines().any(|line| told(&line)), "{log}");
    daemon.stop();
}

/// The values of a setting of the daemon's unit.
fn unit(key: &str) -> Vec<String> {
    setting("tidegated.service", key)
}

/// Those of a file in `systemd`.
fn setting(file: &str, key: &str) -> Vec<String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(file)).expect("a file");
    text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).map(str::to_owned).collect()
}

#[test]
fn the_unit_fits_the_program() {
    assert_eq!(unit("Type"), ["notify"]);
    // Where a restart cannot help, systemd waits for a person.
    let waits: Vec<_> = unit("RestartPreventExitStatus")
        .iter()
        .flat_map(|codes| codes.split(' ').map(str::to_owned).collect::<Vec<_>>())
        .collect();
    assert_eq!(waits, [exit::DATA, exit::NO_PERMISSION, exit::CONFIG].map(|code| code.to_string()));
    // Workers; main, accept, spool, imports and a blocking one or two; the spool's child with twenty of sled's.
    let tasks: u16 = unit("TasksMax")[0].parse().expect("a number");
    assert!(tasks >= gateway::WORKERS_LIMIT + 6 + 21, "{tasks}");
    // The socket is the one that the default settings would bind, and the daemon comes after it.
    let listeners = gateway::Config::default().listeners;
    assert_eq!(setting("tidegated.socket", "ListenStream"), [listeners[0].address.to_string()]);
    assert!(unit("After")[0].contains("tidegated.socket") && unit("Wants") == ["tidegated.socket"]);
}
