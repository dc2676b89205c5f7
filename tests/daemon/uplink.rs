//! What uploads cost requests: nothing that a worker does.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::site::{Site, until};
use crate::wire::{Caller, upstream};

/// A thread of the daemon: its folder, and how far it stands behind others.
fn thread(pid: Pid, is: impl Fn(&str) -> bool) -> (PathBuf, i32) {
    let tasks = fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())).expect("it runs").flatten();
    let named =
        tasks.map(|task| task.path()).find(|task| is(fs::read_to_string(task.join("comm")).expect("a name").trim()));
    let task = named.expect("there is such a thread");
    let stat = fs::read_to_string(task.join("stat")).expect("it runs");
    // proc(5): the 19th field, counted behind the name in brackets, which is the second.
    let nice = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(16)).expect("a field");
    (task, nice.parse().expect("a number"))
}

/// Nanoseconds that a thread has had a processor.
fn ran(task: &std::path::Path) -> u64 {
    let stat = fs::read_to_string(task.join("schedstat")).expect("it runs");
    stat.split(' ').next().and_then(|ns| ns.parse().ok()).expect("a number")
}

#[test]
fn an_uploader_that_never_rests_costs_a_worker_nothing_and_stands_behind_it() {
    let mut site = Site::new();
    let (hub, busy) = (TcpListener::bind("127.0.0.1:0").expect("a free port"), Arc::new(AtomicBool::new(false)));
    let address = hub.local_addr().expect("bound");
    let is_busy = Arc::clone(&busy);
    // It tells no time and takes no file: each is sent, and sent again, as fast as that goes. Or it keeps the caller waiting.
    std::thread::spawn(move || {
        for mut stream in hub.incoming().flatten() {
            while !is_busy.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
            let mut begin = [0; 64 << 10];
            let read = stream.read(&mut begin).unwrap_or(0);
            if begin[..read].starts_with(b"GET ") {
                let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
            }
        }
    });
    site.more = format!(
        "[upload]\nhubs = [\"http://{address}\"]\nretry_base = \"10ms\"\nretry_cap = \"10ms\"\npull = false\n\
         [gateway]\nworkers = 1\n"
    );
    let token = site.token();
    let daemon = site.start();
    assert_eq!(daemon.takes("one.tgb", &site.bundle(upstream("one"))), "Activated");
    let mut caller = Caller::connect(site.gateway).expect("it listens");
    let mut ask = |times: usize| {
        for _ in 0..times {
            assert_eq!(caller.get("/quay/ping", Some(&token)).expect("an answer").status, 200);
        }
    };
    ask(100);
    daemon.signal(Signal::HUP);
    until("a file waits", || (daemon.status().spool.backlog_files > 0).then_some(()));

    let (worker, worker_nice) = thread(daemon.pid(), |name| name.starts_with("gateway"));
    let (_, own_nice) = thread(daemon.pid(), |name| name == "tidegated");
    assert_eq!((worker_nice, own_nice), (0, 5));
    let failures = || daemon.status().upload.expect("it has a hub").failures;
    let (mut costs, mut rounds) = ([Vec::new(), Vec::new()], 0);
    for turn in 0..10 {
        let is_busy = turn % 2 == 1;
        busy.store(is_busy, Ordering::Relaxed);
        let before = failures();
        if is_busy {
            until("it uploads without a rest", || (failures() > before + 3).then_some(()));
        }
        let (begun, failed) = (ran(&worker), failures());
        ask(60);
        costs[usize::from(is_busy)].push((ran(&worker) - begun) / 60);
        rounds += if is_busy { failures() - failed } else { 0 };
    }
    costs.iter_mut().for_each(|cost| cost.sort_unstable());
    let [quiet, busy] = costs.each_ref().map(|cost| cost[cost.len() / 2]);
    println!("a request costs its worker {quiet} ns of a processor, and {busy} ns beside {rounds} rounds of uploads");
    println!("each turn: {costs:?}");
    assert!(rounds > 20, "{rounds} rounds: it was no load");
    // Caches are shared; a lock or a wait that spins would be a multiple.
    assert!(busy < quiet * 2, "{busy} ns in place of {quiet}");
    daemon.stop();
}
