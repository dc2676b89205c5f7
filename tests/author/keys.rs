//! Keys of people: made where they are held, under a passphrase, and lost to nobody who only reads the file.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tidegate::exit;

use crate::program::{done, err, out, refused, tidegate};

const PASSPHRASE: &str = "a stone in the tide";

pub(crate) fn secret_file(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::write(&path, text).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode");
}

#[test]
fn a_key_is_made_shown_and_encrypted_in_its_own_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    secret_file(at, "pass", &format!("{PASSPHRASE}\nanother line\n"));
    let made = tidegate(at, &["key", "new", "ada"]);
    assert!(made.status.success() && err(&made).contains("whoever reads ./ada.key can sign"), "{}", err(&made));
    let both = ["key", "new", "eve", "--passphrase-file", "pass", "--no-passphrase"];
    assert!(refused(at, exit::USAGE, &both).contains("cannot be used with"));
    let told = refused(at, exit::CANT_CREATE, &["key", "new", "ada"]);
    assert!(told.contains("never written over"), "{told}");
    let shown = |file: &str| -> serde_json::Value {
        serde_json::from_str(&done(at, &["key", "show", file, "--json"])).expect("JSON")
    };
    let (private, public) = (shown("ada.key"), shown("ada.pub"));
    assert_eq!((&private["secret"], &public["secret"]), (&"clear".into(), &"absent".into()));
    for same in ["name", "key_id", "public", "algorithm"] {
        assert_eq!(private[same], public[same], "{same}");
    }
    let clear = fs::read_to_string(at.join("ada.key")).expect("the key");
    let seed = clear.split("\"seed\":\"").nth(1).expect("a seed").get(..64).expect("64 digits").to_owned();
    assert!(!done(at, &["key", "show", "ada.key"]).contains(&seed));

    done(at, &["key", "encrypt", "ada.key", "--passphrase-file", "pass"]);
    let sealed = fs::read_to_string(at.join("ada.key")).expect("the key");
    assert!(!sealed.contains(&seed) && shown("ada.key")["secret"] == "encrypted", "{sealed}");
    assert_eq!(fs::metadata(at.join("ada.key")).expect("the key").permissions().mode() & 0o777, 0o600);
    secret_file(at, "wrong", "a stone in the sea");
    let told = refused(at, exit::DATA, &["key", "decrypt", "ada.key", "--passphrase-file", "wrong"]);
    assert!(told.contains("wrong passphrase"), "{told}");
    assert_eq!(fs::read_to_string(at.join("ada.key")).expect("the key"), sealed, "nothing changed");
    assert!(refused(at, exit::DATA, &["key", "encrypt", "ada.key"]).contains("encrypted already"));
    done(at, &["key", "decrypt", "ada.key", "--passphrase-file", "pass"]);
    assert_eq!(fs::read_to_string(at.join("ada.key")).expect("the key"), clear);
}

#[test]
fn where_nobody_can_be_asked_a_missing_passphrase_is_told_and_an_open_file_with_one_is_not_taken() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    done(at, &["key", "new", "ada"]);
    let told = refused(at, exit::DATA, &["key", "encrypt", "ada.key"]);
    assert!(told.contains("--passphrase-file") && told.contains("TIDEGATE_PASSPHRASE"), "{told}");
    secret_file(at, "pass", PASSPHRASE);
    fs::set_permissions(at.join("pass"), fs::Permissions::from_mode(0o644)).expect("its mode");
    let told = refused(at, exit::DATA, &["key", "encrypt", "ada.key", "--passphrase-file", "pass"]);
    assert!(told.contains("others may read it"), "{told}");
    secret_file(at, "empty", "\n");
    assert!(
        refused(at, exit::DATA, &["key", "encrypt", "ada.key", "--passphrase-file", "empty"]).contains("1 to 1024")
    );
}

#[test]
fn every_command_that_signs_takes_an_encrypted_key() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    secret_file(at, "pass", PASSPHRASE);
    let init = tidegate(at, &["init", "p", "--passphrase-file", "pass"]);
    assert!(init.status.success() && !err(&init).contains("in clear"), "{}", err(&init));
    for (key, secret) in [("root-1", "encrypted"), ("policy", "encrypted"), ("permit", "encrypted"), ("hub", "clear")] {
        let shown = done(at, &["key", "show", &format!("p/keys/{key}.key"), "--json"]);
        assert!(shown.contains(&format!("\"secret\": \"{secret}\"")), "{shown}");
    }
    let pem = fs::read_to_string(at.join("p/keys/issuer.pem")).expect("the key");
    assert!(pem.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"), "{pem}");

    done(at, &["bundle", "build", "p", "-o", "a.tgb"]);
    let sign = ["bundle", "sign", "a.tgb", "--key", "p/keys/policy.key", "--yes"];
    let unasked = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .current_dir(at)
        .args(sign)
        .env_remove("TIDEGATE_PASSPHRASE")
        .stdin(Stdio::null())
        .output()
        .expect("it runs");
    assert!(!unasked.status.success(), "{}", err(&unasked));
    let by_variable = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .current_dir(at)
        .args(sign)
        .env("TIDEGATE_PASSPHRASE", PASSPHRASE)
        .output()
        .expect("it runs");
    assert!(out(&by_variable).contains("1 of 1 signatures"), "{}", err(&by_variable));
    done(at, &["root", "rotate", "p/root.json", "-o", "p/root-2.json"]);
    for key in ["p/keys/root-1.key", "p/keys/root-2.key"] {
        done(at, &["root", "sign", "p/root-2.json", "--key", key, "--yes", "--passphrase-file", "pass"]);
    }
    let mint = ["token", "mint", "--key", "p/keys/issuer.pem", "--iss", "i", "--passphrase-file", "pass"];
    assert_eq!(done(at, &mint).split('.').count(), 3);
}

fn field(folder: &Path, file: &str, name: &str) -> String {
    let json: serde_json::Value = serde_json::from_slice(&fs::read(folder.join(file)).expect("the key")).expect("JSON");
    json[name].as_str().expect("text").to_owned()
}

#[test]
fn what_is_encrypted_here_openssl_reads_and_the_other_way_round() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    let openssl = |arguments: &[&str]| Command::new("openssl").current_dir(at).args(arguments).output();
    match openssl(&["version"]) {
        Ok(version) if out(&version).starts_with("OpenSSL 3") => {}
        _ => return crate::skipped("OpenSSL 3 is absent"),
    }
    secret_file(at, "pass", PASSPHRASE);
    // A key of ours, by the hands of somebody who has lost this program.
    done(at, &["key", "new", "ada"]);
    let seed = field(at, "ada.key", "seed");
    done(at, &["key", "encrypt", "ada.key", "--passphrase-file", "pass"]);
    let der = STANDARD.decode(field(at, "ada.key", "encrypted")).expect("base64");
    fs::write(at.join("ada.der"), der).expect("written");
    let read =
        openssl(&["pkey", "-inform", "DER", "-in", "ada.der", "-passin", "file:pass", "-text"]).expect("it runs");
    let digits: String =
        out(&read).split("priv:").nth(1).expect("it opens").chars().filter(char::is_ascii_hexdigit).collect();
    assert!(digits.starts_with(&seed), "{}", err(&read));

    done(at, &["token", "keygen", "--name", "k", "--alg", "ES256"]);
    done(at, &["key", "encrypt", "k.pem", "--passphrase-file", "pass"]);
    for kdf in [&["-scrypt"][..], &["-v2prf", "hmacWithSHA256"]] {
        let passphrase = format!("pass:{PASSPHRASE}");
        let topk8 =
            ["pkcs8", "-topk8", "-in", "k.pem", "-out", "o.pem", "-passin", &passphrase, "-passout", &passphrase];
        let made = openssl(&[&topk8[..], kdf].concat()).expect("it runs");
        assert!(made.status.success(), "{}", err(&made));
        let mint = ["token", "mint", "--key", "o.pem", "--iss", "i", "--passphrase-file", "pass"];
        assert_eq!(done(at, &mint).split('.').count(), 3, "{kdf:?}");
    }
}

#[test]
fn a_person_at_a_terminal_types_the_digest_and_a_passphrase_that_is_not_shown() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    let is_there = Command::new("script").arg("--version").output().is_ok_and(|output| output.status.success());
    if !is_there {
        return crate::skipped("script(1) is absent");
    }
    secret_file(at, "pass", PASSPHRASE);
    done(at, &["init", "p", "--passphrase-file", "pass"]);
    let built = done(at, &["bundle", "build", "p", "-o", "a.tgb"]);
    let digest = built.lines().find_map(|line| line.strip_prefix("digest  ")).expect("a digest").trim().to_owned();
    // Each answer is typed when its question is there: what is typed ahead of it is thrown away.
    let signed = |dialogue: &[(&str, &str)]| {
        let command = format!("{} bundle sign a.tgb --first --key p/keys/policy.key", env!("CARGO_BIN_EXE_tidegate"));
        let mut script = Command::new("timeout")
            .current_dir(at)
            .args(["60", "script", "-qec", &command, "/dev/null"])
            .env_remove("TIDEGATE_PASSPHRASE")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let (mut types, mut reads) = (script.stdin.take().expect("a pipe"), script.stdout.take().expect("a pipe"));
        let mut said = Vec::new();
        for (question, answer) in dialogue {
            let before = said.len();
            while !String::from_utf8_lossy(&said[before..]).contains(question) {
                let mut byte = [0];
                assert_eq!(reads.read(&mut byte).expect("readable"), 1, "{}", String::from_utf8_lossy(&said));
                said.extend(byte);
            }
            types.write_all(answer.as_bytes()).expect("written");
            types.write_all(b"\n").expect("written");
        }
        reads.read_to_end(&mut said).expect("readable");
        drop(types);
        (script.wait().expect("it ends").code(), String::from_utf8_lossy(&said).into_owned())
    };
    let (passphrase, digits) = ("Passphrase of the key \"policy\": ", "first 8 digits of its digest: ");
    let (code, said) = signed(&[(passphrase, PASSPHRASE), (digits, "yes")]);
    assert!(code == Some(65) && said.contains("not the first 8 digits"), "{said}");
    let (code, said) = signed(&[(passphrase, "wrong"), (passphrase, "wronger"), (passphrase, "wrongest")]);
    assert!(code == Some(65) && said.contains("wrong passphrase") && !said.contains("wrongest"), "{said}");
    let (code, said) = signed(&[(passphrase, "wrong"), (passphrase, PASSPHRASE), (digits, &digest[..8])]);
    assert!(code == Some(0) && said.contains("It is complete."), "{said}");
    assert!(!said.contains(PASSPHRASE), "it is not shown: {said}");
}
