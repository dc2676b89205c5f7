//! What a folder compiles to.

use std::fs;
use std::path::Path;

use tidegate::bundle::compile::compile;
use tidegate::bundle::entry::{Limit, Per, Subscriptions};
use tidegate::bundle::manifest::Target;
use tidegate::bundle::{Entries, EntryKind};
use tidegate::cli::source::{parse_limit, read};

use crate::{PACKAGE, copy_of, fixture};

fn entries(folder: &Path) -> Entries {
    read(folder).unwrap_or_else(|error| panic!("{error}")).entries()
}

/// To make them anew after a change that is meant: `TIDEGATE_WRITE_GOLDEN=1 cargo test --test author golden`.
#[test]
fn the_fixture_folder_compiles_to_its_golden_bytes() {
    let golden = fixture("policy-source.golden");
    for (kind, bytes) in entries(&fixture("policy-source")) {
        let file = golden.join(kind.name());
        if std::env::var_os("TIDEGATE_WRITE_GOLDEN").is_some() {
            fs::write(&file, &bytes).expect("the golden file is written");
        }
        let expected = fs::read(&file).expect("a golden file for each entry");
        assert!(bytes == expected, "{kind}:\n{}\n{}", bytes.escape_ascii(), expected.escape_ascii());
    }
}

#[test]
fn the_fixture_folder_says_what_its_manifest_needs_and_a_device_takes_it() {
    let source = read(&fixture("policy-source")).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((source.deployment.name.as_str(), source.deployment.security_floor), ("golden", 3));
    assert!(matches!(&source.deployment.target, Target::Labels(labels) if labels.len() == 2));
    assert_eq!(source.deployment.valid_for.map(|span| span.0.as_secs()), Some(90 * 86_400));
    assert!(source.notes.iter().any(|note| note.message.contains("allow_demo_keys")), "{:?}", source.notes);
    let policy = compile(&source.entries()).expect("the daemon's compiler takes it");
    assert_eq!((policy.apis.len(), policy.routes.len(), policy.subscribers.subscriptions()), (3, 4, 3));
}

#[test]
fn the_order_of_files_and_rows_does_not_show() {
    let folder = copy_of(&fixture("policy-source"));
    let before = entries(folder.path());
    fs::rename(folder.path().join("apis/stock.toml"), folder.path().join("apis/0.toml")).expect("renamed");
    let csv = folder.path().join("subscriptions.csv");
    let text = fs::read_to_string(&csv).expect("the CSV");
    let mut lines: Vec<_> = text.lines().collect();
    lines[1..].reverse();
    fs::write(&csv, lines.join("\r\n")).expect("written");
    assert_eq!(entries(folder.path()), before);
}

#[test]
fn subscriptions_are_the_same_from_toml_as_from_csv() {
    let folder = copy_of(&fixture("policy-source"));
    let before = entries(folder.path());
    fs::remove_file(folder.path().join("subscriptions.csv")).expect("removed");
    let rows = [("Z till", "pets", "1.0", "gold", false), ("robot", "pets", "2.0", "unlimited", true)];
    let mut toml: String = rows.map(|(application, api, version, plan, blocked)| {
        format!("[[subscriptions]]\napplication = \"{application}\"\napi = \"{api}\"\nversion = \"{version}\"\nplan = \"{plan}\"\nblocked = {blocked}\n")
    }).concat();
    toml.push_str("[[subscriptions]]\napplication = \"robot\"\napi = \"stock\"\nplan = \"bronze\"\n");
    fs::write(folder.path().join("subscriptions.toml"), toml).expect("written");
    assert_eq!(entries(folder.path()), before);
}

#[test]
fn the_shipped_example_compiles_and_a_device_takes_it() {
    let entries = entries(&Path::new(PACKAGE).join("config/policy-example"));
    let policy = compile(&entries).expect("the daemon's compiler takes it");
    assert_eq!((policy.apis.len(), policy.plans.len(), policy.issuers.all().len()), (1, 2, 1));
}

#[test]
fn ten_thousand_subscriptions_from_csv_are_sorted_and_all_there() {
    let folder = copy_of(&fixture("policy-source"));
    let mut applications = String::new();
    let mut csv = String::from("application,api,version,plan\n");
    for n in 0..10_000 {
        let n = (n * 7_919) % 10_000;
        applications.push_str(&format!("[applications.app-{n}]\nkeys = [\"key-{n}\"]\n"));
        csv.push_str(&format!("app-{n},pets,1.0,gold\n"));
    }
    fs::write(folder.path().join("applications.toml"), applications).expect("written");
    fs::write(folder.path().join("subscriptions.csv"), csv).expect("written");
    let entries = entries(folder.path());
    let read = Subscriptions::from_bytes(&entries[&EntryKind::Subscriptions]).expect("canonical: sorted, none twice");
    assert_eq!((read.applications.len(), read.keys.len(), read.subscriptions.len()), (10_000, 10_000, 10_000));
    compile(&entries).expect("the daemon's compiler takes it");
}

#[test]
fn limits_read_as_they_are_spoken() {
    let limit = |count, per, burst| Ok(Limit { burst, count, per });
    assert_eq!(parse_limit("100/second burst 200"), limit(100, Per::Second, Some(200)));
    assert_eq!(parse_limit("30/minute"), limit(30, Per::Minute, None));
    assert_eq!(parse_limit("1_000_000/month"), limit(1_000_000, Per::Month, None));
    for (wrong, why) in [
        ("100", "write COUNT/second"),
        ("100/s", "write COUNT/second"),
        ("/second", "write COUNT/second"),
        ("-1/second", "write COUNT/second"),
        ("+1/second", "write COUNT/second"),
        ("1.5/second", "write COUNT/second"),
        ("1/second burst", "write COUNT/second"),
        ("1/second burst 2 3", "write COUNT/second"),
        ("99999999999999999999/day", "write COUNT/second"),
        ("0/day", "0 would let nothing through"),
        ("1/second burst 0", "0 would let nothing through"),
        ("10/day burst 5", "a quota has no burst"),
        ("4294967296/second", "a rate is at most"),
    ] {
        let error = parse_limit(wrong).expect_err(wrong);
        assert!(error.contains(why), "{wrong}: {error}");
    }
}

#[test]
fn a_probe_of_the_folder_is_judged_against_its_policy() {
    let folder = copy_of(&Path::new(PACKAGE).join("config/policy-example"));
    assert!(!entries(folder.path()).contains_key(&EntryKind::Probes), "the example's is a comment");
    let probe = |expect: &str| {
        let text = format!(
            "[probes.pets]\nmethod = \"GET\"\npath = \"/example/1.0.0/pets\"\nat = 2026-01-01T00:00:00Z\n\
             expect = \"{expect}\"\nroute = \"/pets\"\nheaders = {{ X-Test = [\"1\"] }}\n"
        );
        fs::write(folder.path().join("probes.toml"), text).expect("written");
        compile(&entries(folder.path()))
    };
    probe("TokenMissing").expect("it comes out as it says");
    let problem = probe("Admitted").expect_err("nobody comes in without a token");
    assert!(matches!(problem, tidegate::bundle::SemanticProblem::ProbeFailed(_)), "{problem:?}");
}
