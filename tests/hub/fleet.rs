//! The fleet page: its figures are those of what was put in, nobody sees them without the password, and a browser shows them.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rusqlite::{Connection, params};
use serde_json::Value;
use tidegate::hub::{Config, Fleet, Hub};
use tidegate::ids::DeviceId;
use tidegate::spool::backlog::UsageFile;
use tidegate::spool::record::{Gap, GapReason, Outcome, RollUp, Row, UsageRecord};
use tidegate::spool::segment::{Builder, Place, StandsFor};

use crate::http::{put, raw, status};
use crate::scene::{Premises, Running, STREAM, device, key, path, record};

const PASSWORD: &str = "seventeen-herons";
/// What a hostile person calls a device.
const HOSTILE: &str = "<script>document.title=\"taken\"</script><img src=x onerror=alert(1)>'\"&amp;";
const HOUR_MS: i64 = 3_600_000;

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    i64::try_from(since.as_millis()).expect("it is long before the end")
}

fn config(premises: &Premises) -> Config {
    let password_file = premises.path("fleet.password");
    fs::write(&password_file, format!("{PASSWORD}\n")).expect("it can be written");
    let fleet = Some(Fleet { listen: SocketAddr::from(([127, 0, 0, 1], 0)), password_file });
    Config { fleet, ..premises.config() }
}

async fn ask(hub: &Running, method: &str, path: &str, password: Option<&str>) -> Vec<u8> {
    let shown = password.map(|password| STANDARD.encode(format!("fleet:{password}")));
    let shown = shown.map(|shown| format!("Authorization: Basic {shown}\r\n")).unwrap_or_default();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n{shown}\r\n");
    raw(hub.fleet.expect("there is a page"), request.as_bytes()).await
}

fn body(answer: &[u8]) -> (String, String) {
    let (head, body) = std::str::from_utf8(answer).expect("text").split_once("\r\n\r\n").expect("a whole answer");
    (head.to_ascii_lowercase(), body.to_owned())
}

async fn figures(hub: &Running) -> Value {
    let answer = ask(hub, "GET", "/fleet.json", Some(PASSWORD)).await;
    assert_eq!(status(&answer), "200");
    serde_json::from_str(&body(&answer).1).expect("JSON")
}

/// Puts devices into the store of a hub that does not run: each with a name, when it was heard, and what waits on it.
/// Of ten one was never heard; of the rest one in nine some days ago; one in seven has a backlog.
fn populate(premises: &Premises, devices: u32) {
    let mut db = Connection::open(premises.path("usage.sqlite")).expect("it opens");
    let transaction = db.transaction().expect("it begins");
    // One key for all: none of them comes.
    let (now, owner) = (now_ms(), key(3).public());
    for number in 0..devices {
        let mut id = [0xd0; 16];
        id[12..].copy_from_slice(&number.to_be_bytes());
        let name = if number == 10 { HOSTILE.to_owned() } else { format!("quay {number}") };
        transaction
            .execute("INSERT INTO devices VALUES (?1, ?2, ?3, 'config', 0, NULL)", params![id, owner.raw(), name])
            .expect("a device");
        if number % 10 == 0 {
            continue;
        }
        let ago = i64::from(number % 50) * if number % 9 == 0 { 4 * HOUR_MS + 26 * HOUR_MS } else { HOUR_MS / 60 };
        transaction.execute("INSERT INTO contacts VALUES (?1, ?2)", params![id, now - ago]).expect("a contact");
        let files = if number % 7 == 0 { i64::from(number) } else { 0 };
        let oldest = (files > 0).then(|| (now - 5 * HOUR_MS) / 1_000);
        transaction
            .execute("INSERT INTO backlogs VALUES (?1, ?2, ?3, ?4, ?5)", params![id, now, files, files * 1_000, oldest])
            .expect("a backlog");
    }
    transaction.commit().expect("it is written");
}

fn sealed(seq: u64, previous: Option<&UsageFile>, rows: &[Row<'_>]) -> UsageFile {
    let mut builder = Builder::new();
    for row in rows {
        builder.push(row).expect("there is room");
    }
    let place = Place { stream: STREAM, seq, previous: previous.map(|file| file.digest), policy: None };
    let bytes = builder.seal(&place, &device()).expect("it seals");
    let at = tidegate::spool::backlog::Cursor { stream: STREAM, seq };
    UsageFile { at, digest: tidegate::keys::sha256(&bytes), bytes }
}

/// Three files of the test device: requests of today by each outcome, gaps, and what became of the first under a tombstone.
async fn send(hub: &Running) {
    let at_ms = now_ms() - 1_000;
    let request = |outcome, number| Row::Request(UsageRecord { at_ms, outcome, ..record(number) });
    let gap = |count| Row::Gap(Gap { reason: GapReason::Dropped, from_ms: at_ms, to_ms: at_ms, count });
    let first = sealed(1, None, &[request(Outcome::Admitted, 1), request(Outcome::NoRoute, 2), gap(Some(9))]);
    let rows: Vec<_> = Outcome::ALL.iter().zip(10..).map(|(outcome, number)| request(*outcome, number)).collect();
    let second = sealed(2, Some(&first), &rows);
    let third = sealed(3, Some(&second), &[gap(Some(4)), gap(None), request(Outcome::Admitted, 3)]);
    for file in [&first, &second, &third, &second] {
        let answer = raw(hub.address, &put(&path(&device(), file.at.seq), "", &file.bytes)).await;
        assert_eq!(status(&answer), "200");
    }
    let mut builder = Builder::new();
    let (from_ms, to_ms) = (at_ms, at_ms);
    let sum = RollUp {
        from_ms,
        to_ms,
        outcome: Outcome::Admitted,
        count: 1_000,
        bytes_in: 0,
        bytes_out: 0,
        api: "petstore",
        application: "till",
    };
    builder.push(&Row::RollUp(sum)).expect("there is room");
    let place = Place { stream: STREAM, seq: 1, previous: None, policy: None };
    let wide = StandsFor { first: 1, digest: first.digest };
    let tombstone = builder.bury(&place, wide, &device()).expect("it seals");
    // One number has its file already, so this one counts for nothing.
    let answer = raw(hub.address, &put(&path(&device(), 1), "", &tombstone)).await;
    assert_eq!(status(&answer), "200");
}

#[tokio::test]
async fn the_figures_are_those_of_what_was_put_in() {
    let premises = Premises::new();
    Running::start(config(&premises)).await.stop().await;
    populate(&premises, 300);
    let hub = Running::start(config(&premises)).await;
    send(&hub).await;
    let told = figures(&hub).await;
    let lines = told["devices"].as_array().expect("lines");
    assert_eq!((lines.len(), &told["more"]), (301, &0.into()));
    let (mut hour, mut day, mut backlog, mut files) = (1, 1, 0, 0);
    for number in (0_u64..300).filter(|number| number % 10 != 0) {
        let minutes = (number % 50) * if number % 9 == 0 { 30 * 60 } else { 1 };
        hour += u64::from(minutes < 60);
        day += u64::from(minutes < 24 * 60);
        if number % 7 == 0 {
            (backlog, files) = (backlog + 1, files + number);
        }
    }
    let totals = &told["totals"];
    let of = |name: &str| totals[name].as_u64().expect("a number");
    assert_eq!((of("devices"), of("revoked"), of("hour"), of("day")), (301, 0, hour, day));
    assert_eq!((of("silent"), of("backlog"), of("files"), of("bytes")), (301 - day, backlog, files, files * 1_000));
    assert!(day < 280 && backlog > 30, "the control: there is something to tell");
    let oldest = totals["oldest"].as_i64().expect("there is one");
    assert!((now_ms() / 1_000 - oldest - 5 * 3_600).abs() < 60);
    let outcomes = Outcome::ALL.len() as u64;
    assert_eq!((of("gaps"), of("requests")), (1, 3 + outcomes));
    // By group, today.
    let today = told["days"].as_array().and_then(|days| days.last()).expect("days");
    // A test that runs over midnight has them on the day before.
    let before = &told["days"][28];
    let sum = |group: usize| today[group].as_u64().expect("a sum") + before[group].as_u64().expect("a sum");
    assert_eq!(told["groups"][0], "answered");
    assert_eq!([0, 1, 2, 3, 4, 5, 6].map(sum), [3, 29, 8, 2, 4, 4, 2]);
    assert_eq!([0, 1, 2, 3, 4, 5, 6].map(sum).iter().sum::<u64>(), 3 + outcomes, "the control: each has its group");
    let id = DeviceId::from(device().public().id()).to_string();
    let till = lines.iter().find(|line| line[0] == id.as_str()).expect("it is there");
    assert_eq!((&till[1], &till[2]), (&"till".into(), &"enrolled".into()));
    // Gaps that were counted, requests in them, unknown intervals, files that contradict.
    assert_eq!([8, 9, 10, 11].map(|field| till[field].as_u64().expect("a number")), [2, 13, 1, 0]);
    assert_eq!((&till[12], &till[16]), (&Value::Null, &(3 + outcomes).into()), "it told nothing of its backlog");
    assert!(lines.iter().any(|line| line[1] == HOSTILE), "a name is told as it is");
    // What is asked again at once was kept.
    assert_eq!(figures(&hub).await["at"], told["at"]);
    hub.stop().await;
}

#[tokio::test]
async fn nobody_sees_anything_without_the_password_and_guesses_are_few() {
    let premises = Premises::new();
    let hub = Running::start(config(&premises)).await;
    for path in ["/fleet", "/fleet.json", "/", "/livez"] {
        let answer = ask(&hub, "GET", path, None).await;
        let (head, body) = body(&answer);
        assert!(head.starts_with("http/1.1 401") && head.contains("www-authenticate: basic"), "{head}");
        assert!(!body.contains("script") && !body.contains("totals"), "{body}");
    }
    assert_eq!(status(&ask(&hub, "GET", "/fleet.json", Some("seventeen-heron")).await), "401");
    let answer = ask(&hub, "GET", "/fleet", Some(PASSWORD)).await;
    let (head, page) = body(&answer);
    assert!(page.contains("<title>Fleet</title>"), "the control");
    for header in [
        "content-security-policy: default-src 'none'; script-src 'sha256-",
        "cache-control: no-store",
        "x-content-type-options: nosniff",
        "x-frame-options: deny",
        "frame-ancestors 'none'",
        "content-type: text/html; charset=utf-8",
    ] {
        assert!(head.contains(header), "{header}: {head}");
    }
    assert_eq!(status(&ask(&hub, "GET", "/fleet/", Some(PASSWORD)).await), "404");
    assert_eq!(status(&ask(&hub, "POST", "/fleet", Some(PASSWORD)).await), "405");
    // Devices' door knows no page, and the page's none of theirs.
    let request = "GET /fleet HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n";
    assert_eq!(status(&raw(hub.address, request.as_bytes()).await), "404");
    let mut guesses = 0;
    while status(&ask(&hub, "GET", "/fleet", Some("wrong wrong wrong")).await) == "401" {
        guesses += 1;
        assert!(guesses < 50, "nobody held it back");
    }
    assert!(guesses >= 4, "one may err");
    let late = ask(&hub, "GET", "/fleet", Some(PASSWORD)).await;
    assert!(body(&late).0.contains("retry-after: ") && status(&late) == "429", "even the right one has to wait");
    hub.stop().await;
}

#[tokio::test]
async fn a_page_that_would_tell_the_password_to_the_network_or_has_a_weak_one_keeps_the_hub_from_starting() {
    let premises = Premises::new();
    let wrong = async |config: Config| Hub::bind(config).await.expect_err("it is refused").to_string();
    let mut open = config(&premises);
    open.fleet.as_mut().expect("a page").listen = SocketAddr::from(([0, 0, 0, 0], 0));
    let said = wrong(open).await;
    assert!(said.contains("in clear") && said.contains("SSH tunnel"), "{said}");
    let short = config(&premises);
    fs::write(premises.path("fleet.password"), "short\n").expect("it can be written");
    assert!(wrong(short.clone()).await.contains("fewer than 12 bytes"));
    fs::remove_file(premises.path("fleet.password")).expect("it is removed");
    assert!(wrong(short).await.contains("fleet.password"));
    let whole = config(&premises);
    Hub::bind(whole).await.expect("the control");
}

/// How a browser shows the page at `width`: what it says of itself, and its whole document. `None`, having said why,
/// where there is no browser. With `FLEET_SHOTS` it leaves a picture in that folder.
async fn look(hub: &Running, width: u32, dark: bool, name: &str) -> Option<String> {
    let address = hub.fleet.expect("there is a page");
    let url = format!("http://fleet:{PASSWORD}@{address}/fleet");
    let (folder, name) = (tempfile::tempdir().expect("a folder can be made"), name.to_owned());
    let profile = folder.path().to_owned();
    let run = move |more: &[String]| {
        let height = if width < 700 { 844 } else { 900 };
        let mut browser = Command::new("timeout");
        browser.args(["120", "chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]);
        browser.args(["--no-first-run", "--disable-background-networking", "--disable-component-update"]);
        // Nobody but this machine is to be found, whatever the page asks for.
        browser.arg("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1");
        browser.arg(format!("--user-data-dir={}", profile.display()));
        browser.arg(format!("--blink-settings=preferredColorScheme={}", u8::from(!dark)));
        // A window has at least 500 pixels; a screen may have fewer.
        browser.arg(format!("--screen-info={{{width}x{height}}}"));
        browser.args(["--start-fullscreen", "--virtual-time-budget=5000"]);
        browser.args(more).arg(&url).output()
    };
    let looked = tokio::task::spawn_blocking(move || {
        if Command::new("chromium").arg("--version").output().is_err() {
            eprintln!("skipped: no chromium here; on Debian, `apt-get install chromium`");
            return None;
        }
        if let Ok(shots) = std::env::var("FLEET_SHOTS") {
            run(&[format!("--screenshot={shots}/fleet-{name}.png")]).expect("it runs");
        }
        Some(run(&["--dump-dom".into()]).expect("it runs"))
    });
    let output = looked.await.expect("it does not panic")?;
    let document = String::from_utf8(output.stdout).expect("text");
    assert!(document.contains("<html"), "{} {}", output.status, String::from_utf8_lossy(&output.stderr));
    Some(document)
}

/// What the page says of itself.
fn said(document: &str, what: &str) -> String {
    let (_, rest) = document.split_once(&format!(" data-{what}=\"")).unwrap_or_default();
    rest.split('"').next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_browser_shows_every_device_on_phone_and_desk_in_light_and_dark_and_asks_nobody_else() {
    let premises = Premises::new();
    Running::start(config(&premises)).await.stop().await;
    populate(&premises, 300);
    let hub = Running::start(config(&premises)).await;
    send(&hub).await;
    for (width, dark) in [(390, false), (390, true), (1_440, false), (1_440, true)] {
        let name = format!("{}-{}", if width < 700 { "phone" } else { "desk" }, if dark { "dark" } else { "light" });
        let Some(page) = look(&hub, width, dark, &name).await else { return hub.stop().await };
        let told = ["state", "cells", "rows", "overflow", "foreign", "width"].map(|what| said(&page, what));
        assert_eq!(told, ["ready", "301", "100", "no", "0", &width.to_string()], "{name}");
        assert_eq!(said(&page, "bars"), "7", "{name}: today, by group");
        assert_eq!(page.matches("class=\"cell s-").count(), 301, "{name}");
        assert!(page.contains("<title>Fleet</title>") && !page.contains("<img"), "{name}: a device's name ran");
        assert!(page.contains("&lt;script&gt;document.title=\"taken\"&lt;/script&gt;"), "{name}: it is text");
    }
    hub.stop().await;
}

#[tokio::test]
async fn a_browser_shows_a_fleet_of_ten_thousand_and_says_how_to_begin_where_there_is_none() {
    let premises = Premises::new();
    let alone = Config { devices: Vec::new(), ..config(&premises) };
    let hub = Running::start(alone.clone()).await;
    let Some(page) = look(&hub, 1_440, false, "none").await else { return hub.stop().await };
    assert_eq!([said(&page, "state"), said(&page, "overflow")], ["empty", "no"]);
    assert!(page.contains("tidegate-hub device add --config FILE NAME KEY"));
    hub.stop().await;
    populate(&premises, 10_000);
    let hub = Running::start(alone).await;
    let begun = Instant::now();
    let answer = ask(&hub, "GET", "/fleet.json", Some(PASSWORD)).await;
    eprintln!("10,000 devices: {} bytes of JSON, read in {:?}", answer.len(), begun.elapsed());
    for (width, name) in [(390, "phone-10000"), (1_440, "desk-10000")] {
        let page = look(&hub, width, true, name).await.expect("as before");
        let told = ["state", "cells", "rows", "overflow", "foreign"].map(|what| said(&page, what));
        assert_eq!(told, ["ready", "10000", "100", "no", "0"]);
        assert!(page.contains("1–100 of 10,000"), "it says which part it shows");
    }
    hub.stop().await;
}
