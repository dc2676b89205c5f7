//! What a signer sees: all that changes, by name; and several signers in turn, each on a machine of their own.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tidegate::exit;

use crate::check::harmed;
use crate::copy_into;
use crate::program::{done, out, refused, tidegate};

fn change(folder: &Path, file: &str, change: impl FnOnce(String) -> String) {
    let path = folder.join("p").join(file);
    let text = fs::read_to_string(&path).expect("the file");
    let changed = change(text.clone());
    assert_ne!(changed, text, "{file} is as it was");
    fs::write(path, changed).expect("written");
}

/// A folder of one policy, its bundle, and the same after changes of every kind.
fn changed() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    done(at, &["init", "p", "--policy-keys", "3", "--policy-threshold", "2"]);
    done(at, &["bundle", "build", "p", "-o", "old.tgb"]);
    done(at, &["token", "keygen", "--name", "site-2", "--out", "p/issuers", "--kid", "2026-02"]);
    change(at, "issuers/site.toml", |text| text + "\n[[keys]]\nfile = \"issuers/site-2.jwks.json\"\n");
    fs::remove_file(at.join("p/issuers/site-2.pem")).expect("the private half is there");
    change(at, "apis/example.toml", |text| {
        text.replacen("\nscopes = [\"pets:read\"]", "\nscopes = []", 1)
            + "\n[[routes]]\npath = \"/open\"\nmethods = [\"GET\"]\nauth = \"none\"\n"
    });
    change(at, "plans.toml", |text| text.replacen("second burst 200", "second burst 300", 1));
    change(at, "deployment.toml", |text| format!("security_floor = 1\n{text}"));
    change(at, "applications.toml", |text| {
        (0..30).fold(text, |text, n| text + &format!("\n[applications.app-{n:02}]\nkeys = [\"c-{n:02}\"]\n"))
    });
    change(at, "revocations.toml", |text| {
        text + "\n[[cut_offs]]\nissuer = \"site\"\nsubject = \"mallory\"\nbefore = 2026-01-01T00:00:00Z\n"
    });
    folder
}

#[test]
fn what_opens_or_closes_a_way_in_is_listed_by_name() {
    let folder = changed();
    let at = folder.path();
    let told = done(at, &["bundle", "diff", "old.tgb", "p"]);
    for line in [
        "~ security floor: 0 → 1",
        "issuer keys: 1 added, 0 removed, 0 changed",
        "+ \"site\" EdDSA kid \"2026-02\": jwk ",
        "GET \"/open\": auth none",
        "scopes pets:read → (none)",
        "cut-offs: 1 added",
        "subject \"mallory\" of \"https://tokens.example.com\": issued before 2026-01-01T00:00:00Z",
        "applications: 30 added, 0 removed, 0 changed",
        "+ app-00",
        "… and 10 more",
    ] {
        assert!(told.contains(line), "wanted {line} in {told}");
    }
    assert!(!told.contains("app-25"), "{told}");
    assert!(done(at, &["bundle", "diff", "old.tgb", "p", "--all"]).contains("app-25"));
    done(at, &["bundle", "build", "p", "-o", "new.tgb"]);
    let told = done(at, &["bundle", "diff", "new.tgb", "old.tgb"]);
    assert!(
        told.contains("~ seq: 2 → 1") && told.contains("- app-00") && told.contains("(none) → pets:read"),
        "{told}"
    );
    assert_eq!(done(at, &["bundle", "diff", "new.tgb", "p"]), "nothing differs\n");
    let json = done(at, &["bundle", "diff", "old.tgb", "new.tgb", "--json"]);
    let said: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(said["manifest"]["security floor"], serde_json::json!({"from": "0", "to": "1"}));
    assert_eq!(said["parts"]["applications"]["added"].as_object().map(serde_json::Map::len), Some(30));
}

#[test]
fn what_is_kept_of_persons_comes_first_and_in_plain_words() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    done(at, &["init", "p"]);
    done(at, &["bundle", "build", "p", "-o", "old.tgb"]);
    let usage = |file: &str, usage: &str| change(at, file, |text| format!("usage = {usage}\n{text}"));
    usage("apis/example.toml", "{ principal = \"clear\" }");
    change(at, "plans.toml", |text| text.replacen("second burst 200", "second burst 300", 1));
    let told = done(at, &["bundle", "diff", "old.tgb", "p"]);
    let first = "PRIVACY (what usage records keep of persons): 0 added, 0 removed, 1 changed\n  \
                 ~ \"example\" \"1.0.0\": principal hashed by default → clear\n";
    assert!(told.starts_with(first), "{told}");
    assert!(!told.contains("APIs: "), "what else is signed of the API is as it was: {told}");

    // The deployment's word is that of each API that has none of its own.
    usage("deployment.toml", "{ principal = \"absent\", address = \"hashed\", rotate = \"day\" }");
    let told = done(at, &["bundle", "diff", "old.tgb", "p"]);
    for line in [
        "~ \"example\" \"1.0.0\": address truncated by default → hashed by default; new hashes each month by default → \
         day by default; principal hashed by default → clear\n",
        "~ by default, and of what no API takes: address truncated by default → hashed; new hashes each month by default \
         → day; principal hashed by default → absent\n",
    ] {
        assert!(told.contains(line), "wanted {line} in {told}");
    }
    done(at, &["bundle", "build", "p", "-o", "new.tgb"]);
    let told = done(at, &["bundle", "inspect", "new.tgb"]);
    for line in [
        "usage keeps principal clear, address hashed by default, new hashes each day by default",
        "by default, and of what no API takes: usage keeps principal absent, address hashed, new hashes each day",
    ] {
        assert!(told.contains(line), "wanted {line} in {told}");
    }
    done(at, &["bundle", "check", "p"]);

    for (usage, says) in [
        ("{ principal = \"clean\" }", "\"clear\""),
        ("{ principal = \"truncated\" }", "principal"),
        ("{ rotate = \"never\" }", "rotate"),
        ("{ adress = \"absent\" }", "address"),
        ("\"absent\"", "usage must be a table"),
    ] {
        change(at, "deployment.toml", |text| {
            text.lines().skip(1).fold(format!("usage = {usage}\n"), |text, line| text + line + "\n")
        });
        let told = refused(at, exit::DATA, &["bundle", "check", "p"]);
        assert!(told.contains("deployment.toml:1") && told.contains(says), "wanted {says} in {told}");
    }
}

#[test]
fn each_signer_sees_the_changes_on_a_machine_of_their_own_and_confirms_the_same_digest() {
    let folder = changed();
    let at = folder.path();
    let built = done(at, &["bundle", "build", "p", "-o", "new.tgb"]);
    let digest = built.lines().find_map(|line| line.strip_prefix("digest  ")).expect("a digest").trim().to_owned();
    // Each has only a key, the root and the last bundle; the draft goes from one to the next.
    let machine = |key: &str| {
        let machine = tempfile::tempdir().expect("a temporary folder");
        for file in ["root.json", "keys"] {
            let (from, to) = (at.join("p").join(file), machine.path().join(file));
            if from.is_dir() {
                fs::create_dir(&to).expect("a new folder");
                copy_into(&from, &to);
            } else {
                fs::copy(from, to).expect("a copy");
            }
        }
        for entry in fs::read_dir(machine.path().join("keys")).expect("the folder") {
            let path = entry.expect("readable").path();
            if path.file_name().is_some_and(|name| name != key) {
                fs::remove_file(path).expect("removed");
            }
        }
        fs::copy(at.join("old.tgb"), machine.path().join("old.tgb")).expect("a copy");
        machine
    };
    let mut draft = fs::read(at.join("new.tgb")).expect("the bundle");
    for (key, told) in [("policy-3.key", "1 of 2 signatures"), ("policy-1.key", "It is complete.")] {
        let machine = machine(key);
        fs::write(machine.path().join("new.tgb"), &draft).expect("written");
        let key = format!("keys/{key}");
        let sign = ["bundle", "sign", "new.tgb", "--key", &key, "--previous", "old.tgb", "--confirm"];
        // Another bundle of the same number is not what was agreed on.
        let other = "ab".repeat(32);
        let wrong = [&sign[..], &[&other]].concat();
        assert!(refused(machine.path(), exit::DATA, &wrong).contains(&format!("its digest is {digest}")));
        assert_eq!(fs::read(machine.path().join("new.tgb")).expect("the bundle"), draft, "nothing was signed");
        let signed = done(machine.path(), &[&sign[..], &[&digest]].concat());
        for wanted in [told, "changes against old.tgb", "\"/open\": auth none", &digest] {
            assert!(signed.contains(wanted), "wanted {wanted} in {signed}");
        }
        draft = fs::read(machine.path().join("new.tgb")).expect("the bundle");
    }
    fs::write(at.join("signed.tgb"), &draft).expect("written");
    assert_eq!(crate::root::device(at, "p/root.json", &["signed.tgb"]), ["Activated"]);
    let alone = tidegate(at, &["bundle", "sign", "new.tgb", "--key", "p/keys/policy-2.key", "--yes"]);
    assert!(out(&alone).contains("Not compared with the bundle before it"), "{}", out(&alone));
}

#[test]
fn bytes_that_the_manifest_does_not_name_are_never_shown_as_what_is_signed() {
    let folder = changed();
    let at = folder.path();
    done(at, &["bundle", "build", "p", "-o", "new.tgb"]);
    let mut bytes = fs::read(at.join("new.tgb")).expect("the bundle");
    *bytes.last_mut().expect("not empty") ^= 1;
    fs::write(at.join("new.tgb"), &bytes).expect("written");
    let told = refused(at, exit::DATA, &["bundle", "diff", "old.tgb", "new.tgb"]);
    assert!(told.contains("the bytes of revocations are not those that the manifest names"), "{told}");
    let sign = ["bundle", "sign", "new.tgb", "--key", "p/keys/policy-1.key", "--yes"];
    assert!(refused(at, exit::DATA, &sign).contains("are not those that the manifest names"));
}

#[test]
fn rows_whose_names_run_together_hide_nothing_from_the_signer() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    done(at, &["init", "p"]);
    let api = |name: &str, version: &str, base: &str, auth: &str| {
        let head = format!("name = {name:?}\nversion = {version:?}\nbase_path = {base:?}\nupstream = \"example\"\n");
        format!("{head}issuers = [\"site\"]\n\n[[routes]]\npath = \"/pets\"\nmethods = [\"GET\"]\nauth = {auth:?}\n")
    };
    fs::write(at.join("p/apis/a.toml"), api("pet shop", "1.0.0", "/shop", "token")).expect("written");
    let cut_off = |whose: &str| {
        format!("\n[[cut_offs]]\nissuer = \"site\"\nsubject = {whose:?}\nbefore = 2026-01-01T00:00:00Z\n")
    };
    change(at, "revocations.toml", |text| text + &cut_off("Eve"));
    let subscription = |api: &str, version: &str| {
        format!("\n[[subscriptions]]\napplication = \"till\"\napi = {api:?}\nversion = {version:?}\nplan = \"gold\"\n")
    };
    change(at, "subscriptions.toml", |text| text + &subscription("pet shop", "1.0.0"));
    done(at, &["bundle", "build", "p", "-o", "old.tgb"]);
    fs::write(at.join("p/apis/b.toml"), api("pet", "shop 1.0.0", "/back", "none")).expect("written");
    change(at, "revocations.toml", |text| text + &cut_off("eve"));
    change(at, "subscriptions.toml", |text| text + &subscription("pet", "shop 1.0.0"));
    done(at, &["bundle", "build", "p", "-o", "new.tgb"]);
    let told = done(at, &["bundle", "diff", "old.tgb", "new.tgb"]);
    for line in [
        "APIs: 1 added, 0 removed, 0 changed",
        "+ \"pet\" \"shop 1.0.0\": ",
        "base_path /back",
        "routes: 1 added, 0 removed, 0 changed",
        "+ \"pet\" \"shop 1.0.0\" GET \"/pets\": auth none",
        "subscriptions: 1 added, 0 removed, 0 changed",
        "+ \"till\" on \"pet\" \"shop 1.0.0\": plan gold",
        "cut-offs: 1 added, 0 removed, 0 changed",
        "+ subject \"eve\" of ",
    ] {
        assert!(told.contains(line), "wanted {line} in {told}");
    }
    let shown = done(at, &["bundle", "inspect", "new.tgb"]);
    for line in ["API \"pet\" \"shop 1.0.0\" at \"/back\": ", "API \"pet shop\" \"1.0.0\" at \"/shop\": "] {
        assert!(shown.contains(line), "wanted {line} in {shown}");
    }
    // Two rows that nothing tells apart, as only a forged bundle has them, are no row that hides the other.
    harmed(at, |source| {
        let mut twice = source.routes.apis[0].clone();
        twice.base_path = "/twice".into();
        source.routes.apis.insert(0, twice);
    });
    let told = refused(at, exit::DATA, &["bundle", "diff", "old.tgb", "p.tgb"]);
    assert!(told.contains("stands twice in it, so what changes cannot be told"), "{told}");
    let sign = ["bundle", "sign", "p.tgb", "--key", "p/keys/policy.key", "--yes"];
    assert!(refused(at, exit::DATA, &sign).contains("stands twice in it"));
}

#[test]
fn a_list_of_two_texts_and_one_text_that_reads_like_it_differ() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    done(at, &["init", "p"]);
    let scopes = |scopes: [&'static str; 2]| {
        move |source: &mut tidegate::cli::source::Source| {
            let route = source.routes.apis[0].routes.iter_mut().find(|route| !route.scopes.is_empty());
            let scopes = scopes.into_iter().filter(|scope| !scope.is_empty()).map(str::to_owned);
            route.expect("one with scopes").scopes = scopes.collect();
        }
    };
    harmed(at, scopes(["a, b", ""]));
    fs::rename(at.join("p.tgb"), at.join("both.tgb")).expect("moved");
    harmed(at, scopes(["a", "b"]));
    let told = done(at, &["bundle", "diff", "both.tgb", "p.tgb"]);
    assert!(told.contains("scopes [\"a, b\"] → a, b"), "{told}");
}

#[test]
fn a_base_and_a_changed_probe_are_shown_in_full_before_anybody_signs() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    done(at, &["init", "p"]);
    let probe = |header: &str| {
        let request = "method = \"GET\"\npath = \"/example/1.0.0/pets\"\nat = 2026-01-01T00:00:00Z\n";
        format!("[probes.pets]\n{request}expect = \"TokenMissing\"\nheaders = {{ X-Berth = [{header:?}] }}\n")
    };
    fs::write(at.join("p/probes.toml"), probe("seven")).expect("written");
    done(at, &["bundle", "build", "p", "-o", "old.tgb"]);
    fs::write(at.join("p/probes.toml"), probe("eight")).expect("written");
    let base = "b5".repeat(32);
    done(at, &["bundle", "build", "p", "-o", "new.tgb", "--base", &base]);
    let told = done(at, &["bundle", "diff", "old.tgb", "new.tgb"]);
    assert!(told.contains(&format!("~ base: (none) → {base}")), "{told}");
    assert!(told.contains("probes: 0 added, 0 removed, 1 changed") && told.contains("~ pets: headers "), "{told}");
    assert!(told.contains("seven") && told.contains("eight"), "{told}");
    let sign = ["bundle", "sign", "new.tgb", "--key", "p/keys/policy.key", "--yes"];
    let shown = done(at, &sign);
    assert!(shown.lines().any(|line| line.starts_with("base ") && line.ends_with(&base)), "{shown}");
}
