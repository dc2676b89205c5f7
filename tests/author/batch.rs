//! Batches of tokens from the desk: a line each, whole or not at all, and each is what a device takes.

use std::fs;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use tidegate::exit;
use tidegate::keys::sha256;

use crate::program::{done, refused};

const X5T: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

#[test]
fn a_batch_is_a_token_a_line_for_whom_the_list_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    done(at, &["token", "keygen", "--name", "site", "--kid", "k1"]);
    let list = format!("sub,client,scope,x5t#S256\nada,till-1,,\n,till-2,stock:read stock:write,\nbob,till-3,,{X5T}\n");
    fs::write(at.join("tills.csv"), list).expect("written");
    let mint = ["token", "mint", "--key", "site.pem", "--kid", "k1", "--iss", "https://site.example", "--aud", "quay"];
    let mint = [&mint[..], &["--ttl", "180d", "--scope", "sell", "--now", "1800000000"]].concat();
    let printed = done(at, &[&mint[..], &["--batch", "tills.csv"]].concat());
    let lines: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).expect("a JSON object")).collect();
    let told = |line: &Value, name: &str| line[name].as_str().map(str::to_owned);
    let whom: Vec<_> = lines.iter().map(|line| (told(line, "sub"), told(line, "client"))).collect();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(whom, [(text("ada"), text("till-1")), (None, text("till-2")), (text("bob"), text("till-3"))]);
    let ids: std::collections::BTreeSet<_> = lines.iter().map(|line| told(line, "jti").expect("an id")).collect();
    assert_eq!(ids.len(), 3, "each can be revoked by itself");

    // Six months later, by the floor of a device that never had the time since.
    let check = ["token", "check", "--jwks", "site.jwks.json", "--issuer", "https://site.example", "--aud", "quay"];
    for (number, line) in lines.iter().enumerate() {
        assert_eq!(line["exp"], 1_800_000_000_i64 + 180 * 86_400);
        let token = line["token"].as_str().expect("a token");
        let judged = |now: &str, accepted| {
            let arguments = [&check[..], &["--now", now, token]].concat();
            if accepted { done(at, &arguments) } else { refused(at, exit::DATA, &arguments) }
        };
        // The third is bound to a certificate, which nobody shows here.
        let said = judged("1815000000", number < 2);
        assert!(said.contains(["sell", "stock:write", "PopMissing"][number]), "{said}");
        assert!(judged("1816000000", false).contains("TokenExpired"));
    }

    // By a floor alone a token is good until it has certainly expired.
    let token = lines[0]["token"].as_str().expect("a token");
    let by = |time: &str| done(at, &[&check[..], &[time, "1815000000", token]].concat());
    assert!(by("--floor").contains("by floor") && by("--now").contains("certain"), "{}", by("--floor"));
    refused(at, exit::DATA, &[&check[..], &["--floor", "1816000000", token]].concat());

    // A list with an error gives no token at all.
    for (list, says) in [("sub\nada\n\"\"\n", "line 3"), ("who\nada\n", "\"who\"")] {
        fs::write(at.join("tills.csv"), list).expect("written");
        let said = refused(at, exit::DATA, &[&mint[..], &["--batch", "tills.csv"]].concat());
        assert!(said.contains(says) && !said.contains("token\":"), "{said}");
    }
    let both = [&mint[..], &["--batch", "tills.csv", "--sub", "ada"]].concat();
    refused(at, exit::USAGE, &both);
}

#[test]
fn a_bound_token_is_judged_by_the_certificate_that_is_shown_with_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    done(at, &["token", "keygen", "--name", "site", "--kid", "k1"]);
    let own = rcgen::generate_simple_self_signed(["till-1".to_owned()]).expect("a certificate").cert;
    let other = rcgen::generate_simple_self_signed(["till-2".to_owned()]).expect("a certificate").cert;
    fs::write(at.join("own.pem"), own.pem() + &other.pem()).expect("written");
    fs::write(at.join("other.pem"), other.pem()).expect("written");
    let x5t = URL_SAFE_NO_PAD.encode(sha256(own.der()).0);
    let mint = ["token", "mint", "--key", "site.pem", "--kid", "k1", "--iss", "i", "--aud", "quay", "--claim"];
    let token = done(at, &[&mint[..], &[&format!("cnf={{\"x5t#S256\":\"{x5t}\"}}")]].concat());
    let check = ["token", "check", "--jwks", "site.jwks.json", "--issuer", "i", "--aud", "quay", token.trim()];
    let with = |file| [&check[..], &["--certificate", file]].concat();
    assert!(done(at, &with("own.pem")).starts_with("accepted"));
    assert!(refused(at, exit::DATA, &with("other.pem")).contains("PopMismatch"));
    assert!(refused(at, exit::DATA, &check).contains("PopMissing"));
    assert!(refused(at, exit::DATA, &with("site.pem")).contains("certificate site.pem"));
}

#[test]
fn a_batch_into_a_pipe_that_nobody_reads_any_more_ends_quietly_and_a_full_disk_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    done(at, &["token", "keygen", "--name", "site", "--kid", "k1"]);
    fs::write(at.join("tills.csv"), "sub\nada\nben\n").expect("written");
    let into = |output: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(["token", "mint", "--key", "site.pem", "--iss", "https://site.example", "--batch", "tills.csv"]);
        let output = command.current_dir(at).stdout(output).output().expect("it runs");
        (output.status.code(), String::from_utf8(output.stderr).expect("text"))
    };
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    assert_eq!(into(writer.into()), (Some(0), String::new()));
    let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let (code, told) = into(full.into());
    assert!(code == Some(i32::from(exit::IO)) && told.contains("standard output"), "{code:?} {told}");
}
