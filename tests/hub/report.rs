//! What the program tells a person of a hub that runs: its books are those of the files that were sent.

use std::fs;
use std::process::{Command, Output};

use tidegate::ids::{DeviceId, Digest};
use tidegate::keys::sha256;
use tidegate::spool::backlog::{Cursor, UsageFile};
use tidegate::spool::record::{Gap, GapReason, Outcome, RollUp, Row, UsageRecord};
use tidegate::spool::segment::{Builder, Place, StandsFor};

use crate::http::{put, raw, status};
use crate::scene::{Premises, Running, STREAM, chain, device, path, record};

fn settings(premises: &Premises) {
    let text = format!("database = {:?}\nkey_file = \"none.key\"\n", premises.path("usage.sqlite"));
    fs::write(premises.path("hub.toml"), text).expect("written");
}

fn hub(premises: &Premises, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-hub"));
    command.args(arguments).args(["--config", "hub.toml"]).current_dir(premises.path("")).output().expect("it runs")
}

/// What it says where all is well, and beside it.
fn said(premises: &Premises, arguments: &[&str]) -> (String, String) {
    let output = hub(premises, arguments);
    let text = |bytes| String::from_utf8(bytes).expect("text");
    let (out, aside) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(0), "{out}{aside}");
    (out, aside)
}

/// Sends each file of the test device, and again.
async fn send(running: &Running, files: &[UsageFile]) {
    for file in files.iter().chain(files) {
        let answer = raw(running.address, &put(&path(&device(), file.at.seq), "", &file.bytes)).await;
        assert_eq!(status(&answer), "200", "{}", String::from_utf8_lossy(&answer));
    }
}

fn sealed(seq: u64, previous: Option<Digest>, rows: &[Row<'_>]) -> UsageFile {
    let mut builder = Builder::new();
    for row in rows {
        builder.push(row).expect("there is room");
    }
    let bytes = builder.seal(&Place { stream: STREAM, seq, previous, policy: None }, &device()).expect("it seals");
    UsageFile { at: Cursor { stream: STREAM, seq }, digest: sha256(&bytes), bytes }
}

/// A tombstone for the first two files of a chain of ten requests each.
fn tombstone(chain: &[UsageFile]) -> UsageFile {
    let sum = RollUp {
        from_ms: record(10).at_ms,
        to_ms: record(29).at_ms,
        outcome: Outcome::Admitted,
        count: 20,
        bytes_in: 0,
        bytes_out: 20 * 512,
        api: "petstore",
        application: "till",
    };
    let mut builder = Builder::new();
    builder.push(&Row::RollUp(sum)).expect("there is room");
    let place = Place { stream: STREAM, seq: 2, previous: None, policy: None };
    let stands_for = StandsFor { first: 1, digest: chain[1].digest };
    let bytes = builder.bury(&place, stands_for, &device()).expect("it seals");
    UsageFile { at: Cursor { stream: STREAM, seq: 2 }, digest: sha256(&bytes), bytes }
}

#[tokio::test]
async fn the_books_of_report_and_export_are_those_of_the_files_after_re_sends_tombstones_and_sums() {
    let premises = Premises::new();
    settings(&premises);
    let running = Running::start(premises.config()).await;
    let mut files = chain(4);
    let outcome = |outcome, api| Row::Request(UsageRecord { outcome, api, bytes_in: 3, ..record(900) });
    let gap = |count| Row::Gap(Gap { reason: GapReason::Dropped, from_ms: 1, to_ms: 2, count });
    let rows = [
        outcome(Outcome::TokenExpired, "pet,\"store\""),
        outcome(Outcome::RateLimited, "petstore"),
        outcome(Outcome::UpstreamTimeout, "petstore"),
        gap(Some(11)),
        gap(None),
    ];
    files.push(sealed(5, files.last().map(|file| file.digest), &rows));
    send(&running, &files).await;
    let usage = ["report", "--format", "csv", "--by", "api,outcome,device"];
    let (before, aside) = said(&premises, &usage);
    let id = DeviceId::from(device().public().id());
    let line = |api: &str, outcome: &str, requests: u64, bytes_in: u64| {
        format!("{api},{outcome},{id},till,{requests},{bytes_in},{}\r\n", requests * 512)
    };
    let expected = [
        "api,outcome,device,name,requests,bytes_in,bytes_out\r\n".to_owned(),
        line("\"pet,\"\"store\"\"\"", "TokenExpired", 1, 3),
        line("petstore", "Admitted", 40, 0),
        line("petstore", "RateLimited", 1, 3),
        line("petstore", "UpstreamTimeout", 1, 3),
    ];
    assert_eq!(before, expected.concat());
    assert!(aside.contains("not in it: 11 requests that are lost for certain"), "{aside}");
    // All of it through the running hub, whose files were re-sent; and now a tombstone takes two of them away.
    send(&running, &[tombstone(&files)]).await;
    send(&running, &files).await;
    assert_eq!(said(&premises, &usage).0, before);
    assert_eq!(premises.number("SELECT count(*) FROM records"), 23, "the control: 20 are told as a sum");

    let (json, _) = said(&premises, &["report", "gaps", "--by", "device", "--format", "json"]);
    let gaps: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&gaps["gaps"], &gaps["lost"], &gaps["unknown"]), (&1.into(), &11.into(), &1.into()), "{json}");
    let (table, _) = said(&premises, &["report", "devices"]);
    assert!(table.lines().count() == 2 && table.contains("till  enrolled"), "{table}");
    assert_eq!(said(&premises, &["report", "devices", "--silent", "24h"]).0.lines().count(), 1);

    let export = ["export", "--format", "wso2", "out"];
    let (told, _) = said(&premises, &export);
    let expected = "1 files: 21 request, 1 fault and 1 throttle events\n\
                    not in them: 1 requests refused before their API, for which the form has no event\n\
                    not in them: 20 requests that are told as sums only\n\
                    not in them: 11 requests that are lost for certain\n\
                    not in them: 1 intervals in which nobody can know what is lost\n";
    // 20 records of files 3 and 4, and one fault and one throttle of file 5.
    assert_eq!(told, expected.replace("21 request", "20 request"));
    let names = || {
        let entries = fs::read_dir(premises.path("out")).expect("a folder");
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect::<Vec<_>>()
    };
    let first = names();
    assert!(first.len() == 1 && first[0].starts_with("api-usage-data.dat.17640000"), "{first:?}");
    said(&premises, &export);
    assert_eq!(names(), first, "the same again");
    running.stop().await;
}

#[test]
fn what_cannot_be_told_is_refused_with_a_reason() {
    let premises = Premises::new();
    settings(&premises);
    let refused: [(&[&str], i32, &str); 6] = [
        (&["report", "--silent", "24h"], 64, "--silent is of devices"),
        (&["report", "devices", "--by", "day"], 64, "a line for each device"),
        (&["report", "devices", "--from", "2026-01-01"], 64, "is of now"),
        (&["report", "--from", "2026-1-1"], 64, "not a day, as 2026-01-31"),
        (&["export", "--format", "csv", "out"], 64, "wso2"),
        (&["report"], 74, "the hub's database"),
    ];
    for (arguments, code, why) in refused {
        let output = hub(&premises, arguments);
        let said = String::from_utf8(output.stderr).expect("text");
        assert!(said.contains(why) && output.status.code() == Some(code), "{arguments:?}: {:?} {said}", output.status);
    }
    assert!(!premises.path("usage.sqlite").exists());
}
