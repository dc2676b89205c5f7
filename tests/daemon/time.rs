//! Clocks that are wrong, under the daemon and the hub as they ship: a shim in front of the C library moves their wall
//! clock, so that nothing of theirs is made for the test. Without a C compiler these tests say so and do nothing.
#![cfg(feature = "hub")]

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::Connection;
use tidegate::admin::{PolicyStatus, Status};
use tidegate::keys::sha256;
use tidegate::units::TimeQuality;

use crate::site::{Daemon, Site, free_address, serves, until};
use crate::wire::{get, upstream};

const DAY: i64 = 86_400;

/// Moves CLOCK_REALTIME by `WALL_OFFSET` seconds, and on every other reading by `WALL_JUMP` more.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
static long by(const char *name) { const char *text = getenv(name); return text ? atol(text) : 0; }
int clock_gettime(clockid_t id, struct timespec *now) {
    static unsigned readings;
    long failed = syscall(SYS_clock_gettime, id, now);
    if (failed == 0 && id == CLOCK_REALTIME) {
        now->tv_sec += by("WALL_OFFSET");
        if (__sync_fetch_and_add(&readings, 1) % 2) now->tv_sec += by("WALL_JUMP");
    }
    return (int)failed;
}
"#;

fn shim(folder: &Path) -> Option<PathBuf> {
    crate::site::shim(folder, SHIM)
}

fn wall() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("this machine is past 1970");
    i64::try_from(since.as_secs()).expect("a time")
}

/// Moves the wall clock of a command.
fn moved(command: &mut Command, shim: &Path, offset: i64, jump: i64) {
    command.env("LD_PRELOAD", shim).env("WALL_OFFSET", offset.to_string()).env("WALL_JUMP", jump.to_string());
}

/// The hub's program, over TLS, its clock a hundred days ahead: so the device's time can only be from it.
struct Hub {
    child: Child,
    address: SocketAddr,
    pin: String,
    database: PathBuf,
}

const AHEAD: i64 = 100 * DAY;

impl Hub {
    fn start(site: &Site, shim: &Path) -> Self {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
        fs::write(site.path("hub.pem"), made.cert.pem()).expect("written");
        fs::write(site.path("hub-tls.key"), made.signing_key.serialize_pem()).expect("written");
        let pin = sha256(&rcgen::PublicKeyData::subject_public_key_info(&made.signing_key)).to_string();
        let (address, database) = (free_address(), site.path("usage.sqlite"));
        let text = format!(
            "listen = \"{address}\"\ndatabase = {database:?}\nkey_file = {:?}\nenrol = \"any\"\n[tls]\ncertificate = {:?}\nkey = {:?}\n",
            site.path("policy/keys/hub.key"),
            site.path("hub.pem"),
            site.path("hub-tls.key"),
        );
        fs::write(site.path("hub.toml"), text).expect("written");
        let log = File::create(site.path("hub.log")).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-hub"));
        command.args(["run", "--config"]).arg(site.path("hub.toml")).stdout(Stdio::null()).stderr(log);
        moved(&mut command, shim, AHEAD, 0);
        let child = command.spawn().expect("it starts");
        until("the hub listens", || std::net::TcpStream::connect(address).ok());
        Self { child, address, pin, database }
    }

    /// Lines for the settings of a device that uploads here.
    fn settings(&self) -> String {
        format!(
            "[upload]\nhubs = [\"https://{}\"]\nhub_pins = [\"{}\"]\nretry_base = \"20ms\"\nretry_cap = \"100ms\"\n\
             [spool]\nseal_after = \"100ms\"\nseal_after_offline = \"100ms\"\n",
            self.address, self.pin
        )
    }

    fn rows(&self, sql: &str) -> Vec<(String, i64)> {
        let db = Connection::open(&self.database).expect("it opens");
        db.busy_timeout(crate::site::SOON).expect("set");
        let mut query = db.prepare(sql).expect("it is SQL");
        let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("it answers");
        rows.collect::<Result<_, _>>().expect("rows")
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A token that lives longer than the hub's clock is ahead.
fn token(site: &Site) -> String {
    let mut arguments = vec!["token", "mint", "--key", "policy/keys/issuer.pem", "--kid", "2026-01", "--ttl", "300d"];
    arguments.extend(["--iss", "https://tokens.example.com", "--aud", "edge", "--sub", "ada", "--client", "till"]);
    arguments.extend(["--scope", "ping"]);
    site.tidegate(&arguments).trim().to_owned()
}

fn at(site: &Site, shim: &Path, name: &str, target: i64, jump: i64) -> Daemon {
    let daemon = site.launch(name, |command| moved(command, shim, target - wall(), jump));
    daemon.answers();
    daemon
}

/// The status once the device has the hub's time.
fn told_by_hub(daemon: &Daemon) -> Status {
    until("the hub's time is heard", || Some(daemon.status()).filter(|now| now.time.lower >= wall() + AHEAD - 60))
}

#[test]
fn a_device_at_any_clock_takes_its_policy_serves_reaches_its_hub_over_tls_and_gets_its_time() {
    let site = Site::new();
    let Some(shim) = shim(&site.path("")) else { return };
    let hub = Hub::start(&site, &shim);
    let (token, answers) = (token(&site), upstream("one"));
    // 1970; a minute later; 2038; 2106; the last hour of the year 9999; and one that jumps between 1970 and 2106 from one
    // reading to the next. Not before 1970 and after 9999: hyper's date panics there, which has no switch, and Linux sets
    // no such time (timespec64_valid_settod: from 1970 to 2232). What is ours is tested there in its own tests.
    let clocks = [(0, 0), (59, 0), (1 << 31, 0), (1 << 32, 0), (253_402_300_799 - 3_600, 0), (0, 1 << 32)];
    for (number, (target, jump)) in clocks.into_iter().enumerate() {
        let mut site = Site::beside(&site, number);
        site.more = hub.settings();
        let bundle = site.bundle(answers);
        let daemon = at(&site, &shim, "gate", target, jump);
        assert_eq!(daemon.takes("first.tgb", &bundle), "Activated", "{target}");
        assert_eq!(daemon.takes("first.tgb", &bundle), "AlreadyInstalled", "{target}");
        serves(&site, &token, "one");
        assert_eq!(get(site.gateway, "/quay/ping", None).status, 401, "{target}");
        let status = told_by_hub(&daemon);
        assert_eq!((status.time.quality, status.time.upper), (TimeQuality::Floor, None), "{target}");
        until("its usage is at the hub", || Some(daemon.status().upload?.files > 0).filter(|is| *is));
        let age = daemon.status().upload.and_then(|upload| upload.last_success_seconds);
        assert!(age.is_some_and(|age| age < 600), "it was just now, at {target} too: {age:?}");
        let metrics = daemon.ask("/metrics").expect("an answer").1;
        assert!(metrics.contains("tidegate_time_quality{quality=\"floor\"} 1"), "{metrics}");
        assert!(metrics.contains("\ntidegate_time_lower_bound_timestamp_seconds "), "{metrics}");
        let log = daemon.log();
        assert!(log.contains("quality=floor") && log.contains("the hub's time raises the floor"), "{log}");
        assert!(metrics.contains("\ntidegate_panics_total 0\n"), "{metrics}{log}");
        // The clock was where this test says that it was.
        let told = log.split("wall_s=").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<i64>().ok());
        assert!(told.is_some_and(|wall| jump > 0 || (target - 60..target + 60).contains(&wall)), "{target}: {log}");
        daemon.stop();
    }
    // The records say what their time was worth, and none is before what the device knew.
    let rows = hub.rows("SELECT time, at_ms FROM records");
    assert!(rows.len() >= clocks.len(), "{rows:?}");
    assert!(rows.iter().all(|(time, at)| time == "floor" && *at >= (wall() - DAY) * 1_000), "{rows:?}");
}

#[test]
fn a_trusted_clock_is_synced_in_status_metric_log_and_records_and_a_lost_floor_is_lost_in_them() {
    let site = Site::new();
    let Some(shim) = shim(&site.path("")) else { return };
    let hub = Hub::start(&site, &shim);
    let mut site = Site::beside(&site, 0);
    let answers = upstream("one");
    let token = token(&site);
    let shows = |daemon: &Daemon, quality: TimeQuality| {
        let (name, now) = (quality.name(), daemon.status().time);
        assert_eq!(now.quality, quality);
        assert_eq!(now.upper.is_some(), quality == TimeQuality::Synced, "{now:?}");
        let metrics = daemon.ask("/metrics").expect("an answer").1;
        assert!(metrics.contains(&format!("tidegate_time_quality{{quality=\"{name}\"}} 1")), "{metrics}");
        assert!(daemon.log().contains(&format!("quality={name}")), "{}", daemon.log());
    };
    site.more = format!("{}[time]\ntrust = [\"rtc\"]\n", hub.settings());
    // By the hub's own clock: else its word, whenever it comes, leaves this one too far behind to be trusted.
    let daemon = at(&site, &shim, "synced", wall() + AHEAD, 0);
    assert_eq!(daemon.takes("first.tgb", &site.bundle(answers)), "Activated");
    serves(&site, &token, "one");
    shows(&daemon, TimeQuality::Synced);
    until("its usage is at the hub", || Some(daemon.status().upload?.files > 0).filter(|is| *is));
    daemon.stop();

    // The flash lost both records; nothing vouches for the clock, and there is no hub.
    site.more = "[time]\ntrust = []\n[spool]\nseal_after = \"100ms\"\nseal_after_offline = \"100ms\"\n".into();
    for record in ["state/trust/time.0", "state/trust/time.1"] {
        fs::write(site.path(record), b"rot").expect("written");
    }
    let daemon = at(&site, &shim, "lost", 0, 0);
    shows(&daemon, TimeQuality::Lost);
    assert!(daemon.status().time.lower >= wall() - DAY, "the bundle's time is known: {:?}", daemon.status().time);
    serves(&site, &token, "one");
    daemon.stop();

    site.more = hub.settings();
    let daemon = at(&site, &shim, "found", 0, 0);
    told_by_hub(&daemon);
    shows(&daemon, TimeQuality::Floor);
    until("all of its usage is at the hub", || {
        let rows = hub.rows("SELECT time, count(*) FROM records GROUP BY time ORDER BY time");
        (rows == [("lost".into(), 1), ("synced".into(), 1)]).then_some(())
    });
    daemon.stop();
}

/// The site's policy, whose API closes when what is known of revocations is older than 30 days, made at `at`.
fn built(site: &Site, name: &str, at: i64) -> Vec<u8> {
    let api = site.path("policy/apis/quay.toml");
    let text = fs::read_to_string(&api).expect("it is there");
    if !text.contains("revocations_max_age") {
        fs::write(&api, text.replace("\n[[routes]]", "revocations_max_age = \"30d\"\n\n[[routes]]")).expect("written");
    }
    site.tidegate(&["bundle", "build", "policy", "-o", name, "--now", &at.to_string()]);
    site.tidegate(&["bundle", "sign", name, "--key", "policy/keys/policy.key", "--yes"]);
    fs::read(site.path(name)).expect("made")
}

#[test]
fn the_roots_holders_take_a_wrong_floor_back_with_the_tool_and_each_reset_works_once() {
    let site = Site::new();
    let daemon = site.start();
    let answers = upstream("one");
    let token = token(&site);
    let reply = || get(site.gateway, "/quay/ping", Some(&token));
    site.bundle(answers);
    let first = built(&site, "first.tgb", wall());
    assert_eq!(daemon.takes("first.tgb", &first), "Activated");
    assert_eq!(reply().status, 200, "as fresh as it can be, the moment it is in force");
    // The clock of the desk is years ahead once.
    assert_eq!(daemon.takes("ahead.tgb", &built(&site, "b.tgb", wall() + 3_000 * DAY)), "Activated");
    let lower = || daemon.status().time.lower;
    until("the floor is raised", || (lower() >= wall() + 3_000 * DAY - 60).then_some(()));
    until("tokens are refused", || (reply().status == 401).then_some(()));

    let device = daemon.status().device.to_string();
    let (now, undone) = (wall().to_string(), lower().to_string());
    let reset = [
        "time",
        "reset",
        "--root",
        "policy/root.json",
        "--at",
        &now,
        "--undoes",
        &undone,
        "--author",
        "ops",
        "--yes",
        "--device",
        &device,
        "-o",
        "r.tgb",
    ];
    let once = site.tidegate(&[&reset[..], &["--key", "policy/keys/root-1.key"]].concat());
    assert!(once.contains("1 of 2 signatures"), "{once}");
    assert_eq!(daemon.takes("r.tgb", &fs::read(site.path("r.tgb")).expect("made")), "ThresholdNotMet");
    assert!(lower() >= wall() + 3_000 * DAY - 60);
    let sign = ["time", "sign", "r.tgb", "--root", "policy/root.json", "--key", "policy/keys/root-2.key", "--yes"];
    let twice = site.tidegate(&sign);
    assert!(twice.contains("It is complete"), "{twice}");
    let file = fs::read(site.path("r.tgb")).expect("made");
    let verdict = site.tidegate(&["bundle", "verify", "r.tgb", "--root", "policy/root.json", "--device", &device]);
    assert!(verdict.starts_with("accepted\nsets the time to"), "{verdict}");
    assert_eq!(daemon.takes("r.tgb", &file), "TimeReset");
    until("the floor is right", || (wall() - 60..=wall() + 60).contains(&lower()).then_some(()));
    // What the desk knew of revocations when its clock was ahead proves nothing.
    let stale = reply();
    assert!(stale.status == 503 && stale.body.contains("RevocationsStale"), "{stale:?}");
    assert_eq!(daemon.status().revocations_age_seconds, Some(u64::MAX));
    assert_eq!(daemon.takes("again.tgb", &built(&site, "again.tgb", wall())), "Activated");
    assert_eq!(reply().status, 200);
    assert_eq!(daemon.takes("r.tgb", &file), "Rollback");
    daemon.stop();
    let daemon = site.start();
    assert!(daemon.status().time.lower <= wall() + 60);
    serves(&site, &token, "one");
    daemon.stop();
}

#[test]
fn a_route_that_wants_fresh_revocations_closes_when_what_is_known_is_too_old_and_opens_with_what_is_newer() {
    let mut site = Site::new();
    site.more = "[time]\ntrust = [\"rtc\"]\n".into();
    let answers = upstream("one");
    site.bundle(answers);
    let (old, new) = (built(&site, "old.tgb", wall() - 31 * DAY), built(&site, "new.tgb", wall() - 29 * DAY));
    let listed = site.tidegate(&["bundle", "inspect", "new.tgb"]);
    assert!(listed.contains("revocations not older than 30d"), "{listed}");
    let token = token(&site);
    let daemon = site.start();
    let age = || daemon.status().revocations_age_seconds.and_then(|age| i64::try_from(age).ok());
    assert_eq!(age(), None, "safe mode");

    assert_eq!(daemon.takes("old.tgb", &old), "Activated");
    let reply = get(site.gateway, "/quay/ping", Some(&token));
    assert!(reply.status == 503 && reply.body.contains("RevocationsStale"), "{reply:?}");
    assert!(age().is_some_and(|age| (31 * DAY..32 * DAY).contains(&age)), "{:?}", age());
    assert_eq!(daemon.takes("new.tgb", &new), "Activated");
    serves(&site, &token, "one");
    assert!(age().is_some_and(|age| (29 * DAY..30 * DAY).contains(&age)), "{:?}", age());
    let metrics = daemon.ask("/metrics").expect("an answer").1;
    assert!(metrics.contains("\ntidegate_revocations_age_seconds 25"), "{metrics}");
    assert!(metrics.contains("tidegate_requests_total{outcome=\"RevocationsStale\"} 1"), "{metrics}");
    daemon.stop();
}

#[test]
fn a_trusted_clock_that_runs_ahead_keeps_no_good_bundle_out_and_shows_what_serves_as_stale() {
    let site = Site::new();
    let Some(shim) = shim(&site.path("")) else { return };
    let deployment = fs::read_to_string(site.path("policy/deployment.toml")).expect("a file");
    fs::write(site.path("policy/deployment.toml"), format!("valid_for = \"100d\"\n{deployment}")).expect("written");
    let ahead = wall() + 400 * DAY;
    let stale = |daemon: &Daemon| match daemon.status().policy {
        PolicyStatus::Active { stale, .. } => stale,
        PolicyStatus::SafeMode => panic!("{}", daemon.log()),
    };
    for (trust, quality, shown) in [("rtc", TimeQuality::Synced, true), ("", TimeQuality::Floor, false)] {
        let sources = if trust.is_empty() { String::new() } else { format!("{trust:?}") };
        let mut site = Site::beside(&site, usize::from(shown));
        site.more = format!("[time]\ntrust = [{sources}]\n");
        let daemon = at(&site, &shim, "gate", ahead, 0);
        assert_eq!(daemon.status().time.quality, quality);
        assert_eq!(daemon.takes("one.tgb", &site.bundle(free_address())), "Activated", "{}", daemon.log());
        assert_eq!(stale(&daemon), shown);
        daemon.stop();
    }
}
