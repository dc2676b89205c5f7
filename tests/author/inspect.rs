//! What a signer is shown: all that is signed, and nothing that hides.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tidegate::keys::sha256;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::program::done;
use crate::{copy_of, fixture};

/// Adds `text` to a file of the folder.
fn add(folder: &Path, file: &str, text: &str) {
    let path = folder.join(file);
    let before = fs::read_to_string(&path).expect("the file is there");
    fs::write(path, before + text).expect("written");
}

/// `bundle inspect` as text and as JSON, of the fixture folder with more in it; and the fingerprint of its CA.
fn shown() -> (String, Value, String) {
    let folder = copy_of(&fixture("policy-source"));
    let at = folder.path();
    let ca = rcgen::generate_simple_self_signed(["ca.example".to_owned()]).expect("a certificate");
    fs::write(at.join("apis/ca.pem"), ca.cert.pem()).expect("written");
    add(at, "apis/pets-2.toml", "ca = [\"apis/ca.pem\"]\n");
    add(at, "plans.toml", "[plans.\"gold\u{202e}\u{200b}\"]\nlimits = [\"7/second burst 77\"]\n");
    let probe =
        "[probes.open]\nmethod = \"GET\"\npath = \"/stock\"\nat = 2026-01-01T00:00:00Z\nexpect = \"Admitted\"\n";
    let headers = "headers = { X-Berth = [\"berth-7\"], Accept = [\"text/plain\", \"image/webp\"] }\n";
    fs::write(at.join("probes.toml"), format!("{probe}{headers}")).expect("written");
    let home = tempfile::tempdir().expect("a temporary folder");
    done(home.path(), &["init", "p", "--deployment", "golden"]);
    let source = at.to_str().expect("a path that is text");
    let base = "b5".repeat(32);
    let build = ["bundle", "build", source, "-o", "a.tgb", "--root", "p/root.json", "--seq", "9", "--base", &base];
    done(home.path(), &[&build[..], &["--reason", "why\u{2066}"]].concat());
    done(home.path(), &["bundle", "sign", "a.tgb", "--key", "p/keys/policy.key", "--yes"]);
    let text = done(home.path(), &["bundle", "inspect", "a.tgb", "--root", "p/root.json"]);
    let json = done(home.path(), &["bundle", "inspect", "a.tgb", "--root", "p/root.json", "--json"]);
    (text, serde_json::from_str(&json).expect("JSON"), sha256(ca.cert.der()).to_string())
}

/// Every text and number of `value`, as the listing writes it.
fn leaves(name: &str, value: &Value, to: &mut Vec<String>) {
    let moment = |seconds: i64| {
        let date = OffsetDateTime::from_unix_timestamp(seconds).expect("a date");
        date.format(&Rfc3339).expect("a date as text")
    };
    match value {
        Value::Object(members) => members.iter().for_each(|(name, value)| leaves(name, value, to)),
        // Of a certificate its fingerprint is shown.
        Value::Array(_) if name == "ca" => {}
        Value::Array(items) => items.iter().for_each(|item| leaves(name, item, to)),
        Value::Number(number) if ["before", "until", "issued_at", "expires_at"].contains(&name) => {
            let seconds = number.as_i64().expect("whole seconds");
            to.push(if seconds == i64::MAX { "for ever".to_owned() } else { moment(seconds) });
        }
        Value::Number(number) => to.push(number.to_string()),
        Value::String(text) => to.push(
            text.chars().map(|c| if c.is_ascii() { c.to_string() } else { c.escape_unicode().to_string() }).collect(),
        ),
        Value::Bool(_) | Value::Null => {}
    }
}

#[test]
fn the_text_shows_all_that_the_json_has() {
    let (text, json, ca) = shown();
    let mut all = Vec::new();
    leaves("", &json, &mut all);
    assert!(all.len() > 150, "{all:?}");
    for leaf in &all {
        assert!(text.contains(leaf.as_str()), "wanted {leaf} in\n{text}");
    }
    // And what is yes or no, or has a word of its own.
    for told in [
        &format!("ca sha256 {ca}"),
        "uncertain deny",
        "uncertain bound",
        "uncertain allow",
        "the caller's Host is forwarded",
        "types at+jwt, jwt or none",
        "application in /application/uuid, azp; scopes in scp",
        "application in the profile's own claims; scopes in scope",
        "DEMO KEYS ALLOWED",
        "token is forwarded",
        "base path is forwarded",
        "no subscription wanted",
        "BLOCKED",
        "open to anybody",
        "issuers none",
    ] {
        assert!(text.contains(told), "wanted {told} in\n{text}");
    }
}

#[test]
fn nothing_in_a_bundle_can_steer_the_terminal_or_hide() {
    let (text, ..) = shown();
    assert!(text.contains("gold\\u{202e}\\u{200b}") && text.contains("why\\u{2066}"), "{text}");
    let hidden = |c: char| c.is_control() && c != '\n' || !c.is_ascii();
    assert!(!text.contains(hidden), "{text}");
}
