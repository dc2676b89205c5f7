//! From one root to the next: made by one, signed by several in turn, and followed by a device.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tidegate::bundle::manifest::DeviceFacts;
use tidegate::bundle::{Importer, Medium, Moment, Settings, compile};
use tidegate::clock::Reading;
use tidegate::disk::Machine;
use tidegate::exit;
use tidegate::ids::DeviceId;

use crate::program::{done, refused};

/// What a device that was given `root` says to these files, one after the other.
pub(crate) fn device(folder: &Path, root: &str, files: &[&str]) -> Vec<&'static str> {
    let state = tempfile::tempdir().expect("a temporary folder");
    let device = DeviceFacts { id: DeviceId([9; 16]), labels: Default::default() };
    let settings = Settings {
        state: state.path().into(),
        root: folder.join(root),
        device,
        trial: std::time::Duration::from_secs(600),
    };
    let now = Moment { reading: Reading::now(), trusted: false };
    let mut importer =
        Importer::open(std::sync::Arc::new(Machine), settings, compile, &now).expect("a device").importer;
    files.iter().map(|file| importer.import(&folder.join(file), &Medium::Inbox, &now).result.name()).collect()
}

/// Signs with one key after the other; what the last one said.
fn sign_root(at: &Path, root: &str, keys: &[&str]) -> String {
    keys.iter().fold(String::new(), |_, key| done(at, &["root", "sign", root, "--key", key, "--yes"]))
}

fn sign(at: &Path, bundle: &str, key: &str, root: &str) {
    done(at, &["bundle", "sign", bundle, "--key", key, "--root", root, "--yes"]);
}

#[test]
fn a_device_on_version_1_takes_a_bundle_of_version_3_and_no_old_key_any_more() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    done(at, &["init", "p", "--deployment", "harbour"]);
    for name in ["dora", "ben", "cleo"] {
        done(at, &["key", "new", name]);
    }
    done(at, &["bundle", "build", "p", "-o", "one.tgb"]);
    sign(at, "one.tgb", "p/keys/policy.key", "p/root.json");

    // Version 2: a root key goes and one comes. Version 3: the policy key is replaced by two of two.
    let rotated = done(
        at,
        &["root", "rotate", "p/root.json", "-o", "p/root-2.json", "--remove", "root-1", "--add", "root=dora.pub"],
    );
    for told in ["- root: root-1 (", "+ root: dora (", "version 2 after version 1", "at least 2 of them"] {
        assert!(rotated.contains(told), "wanted {told} in {rotated}");
    }
    let first = sign_root(at, "p/root-2.json", &["p/keys/root-2.key"]);
    assert!(
        first.contains("version 1's root keys: 1 of 2 (root-2)") && first.contains("Pass both files on"),
        "{first}"
    );
    let unfinished = ["bundle", "build", "p", "-o", "x.tgb", "--root-chain", "p/root-2.json"];
    assert!(refused(at, exit::DATA, &unfinished).contains("refused: RootThresholdOld: 1 of 2 signatures of root 2"));
    // root-1 may vouch for its own removal, which is not enough for version 2; dora's is.
    let second = sign_root(at, "p/root-2.json", &["p/keys/root-1.key"]);
    assert!(second.contains("version 1's root keys: 2 of 2") && second.contains("version 2's root keys: 1 of 2"));
    assert!(sign_root(at, "p/root-2.json", &["dora.key"]).contains("It is complete"));
    let rotate = [
        "root",
        "rotate",
        "p/root-2.json",
        "-o",
        "p/root-3.json",
        "--remove",
        "policy",
        "--add",
        "policy=ben.pub",
        "--add",
        "policy=cleo.pub",
        "--threshold",
        "policy=2",
    ];
    assert!(done(at, &rotate).contains("~ policy: 1 of 1 → 2 of 2"));
    sign_root(at, "p/root-3.json", &["dora.key", "p/keys/root-3.key"]);

    let chain = ["--root-chain", "p/root-2.json", "p/root-3.json"];
    let built = done(at, &[&["bundle", "build", "p", "-o", "two.tgb"][..], &chain].concat());
    assert!(built.contains("root version 3"), "{built}");
    let old = ["bundle", "sign", "two.tgb", "--key", "p/keys/policy.key", "--root", "p/root.json", "--yes"];
    assert!(refused(at, exit::DATA, &old).contains("does not have the role policy"), "it was rotated out");
    // Each signs by the root that they have: the bundle leads from there to version 3.
    sign(at, "two.tgb", "ben.key", "p/root.json");
    sign(at, "two.tgb", "cleo.key", "p/root-3.json");
    let shown = done(at, &["bundle", "inspect", "two.tgb", "--root", "p/root.json"]);
    assert!(shown.contains("root chain      version 2, 3") && shown.contains("ben ("), "{shown}");
    let verified = done(at, &["bundle", "verify", "two.tgb", "--root", "p/root.json"]);
    assert!(verified.contains("ben, cleo") || verified.contains("cleo, ben"), "named by the newest root: {verified}");

    assert_eq!(device(at, "p/root.json", &["one.tgb", "two.tgb"]), ["Activated", "Activated"]);
    assert_eq!(device(at, "p/root-2.json", &["two.tgb"]), ["Activated"]);
    // The old key's next bundle is worth nothing to a device that has rotated, and still is to one that has not.
    done(at, &["bundle", "build", "p", "-o", "late.tgb"]);
    sign(at, "late.tgb", "p/keys/policy.key", "p/root.json");
    assert_eq!(device(at, "p/root.json", &["two.tgb", "late.tgb"]), ["Activated", "ThresholdNotMet"]);
    assert_eq!(device(at, "p/root.json", &["late.tgb"]), ["Activated"]);
    // Without the link between, a device on version 1 cannot follow, and the desk says so.
    let gap = ["bundle", "build", "p", "-o", "x.tgb", "--root-chain", "p/root-3.json"];
    assert!(refused(at, exit::DATA, &gap).contains("root version 3; the device has 1"));
}

#[test]
fn a_new_epoch_begins_the_sequence_numbers_of_a_device_anew() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    done(at, &["init", "p"]);
    done(at, &["bundle", "build", "p", "-o", "far.tgb", "--seq", "9007199254740991"]);
    sign(at, "far.tgb", "p/keys/policy.key", "p/root.json");
    let rotated = done(at, &["root", "rotate", "p/root.json", "-o", "p/root-2.json", "--new-epoch"]);
    assert!(rotated.contains("EPOCH 1 → 2"), "{rotated}");
    sign_root(at, "p/root-2.json", &["p/keys/root-1.key", "p/keys/root-2.key"]);
    let build = ["bundle", "build", "p", "-o", "back.tgb", "--seq", "1", "--root-chain", "p/root-2.json"];
    done(at, &build);
    sign(at, "back.tgb", "p/keys/policy.key", "p/root.json");
    assert_eq!(device(at, "p/root.json", &["far.tgb", "back.tgb"]), ["Activated", "Activated"]);
    done(at, &["bundle", "build", "p", "-o", "low.tgb", "--seq", "1"]);
    sign(at, "low.tgb", "p/keys/policy.key", "p/root.json");
    assert_eq!(device(at, "p/root.json", &["far.tgb", "low.tgb"]), ["Activated", "Rollback"], "not without it");
}

#[test]
fn a_root_is_made_of_public_halves_and_shown_in_words_and_json() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    for name in ["ada", "ben"] {
        done(at, &["key", "new", name]);
    }
    let new = [
        "root",
        "new",
        "-o",
        "root.json",
        "--deployment",
        "harbour",
        "--add",
        "root=ada.pub",
        "--add",
        "root=ben.pub",
        "--add",
        "policy=ada.pub",
        "--threshold",
        "root=2",
        "--now",
        "1800000000",
    ];
    done(at, &new);
    assert!(refused(at, exit::CANT_CREATE, &new).contains("root.json"));
    assert!(sign_root(at, "root.json", &["ada.key"]).contains("1 of 2 (ada)"));
    let shown = done(at, &["root", "show", "root.json"]);
    for told in ["version 1 of deployment harbour", "2 of 2", "ada, ben", "nobody", "1 of 2 (ada)", "policy, root"] {
        assert!(shown.contains(told), "wanted {told} in {shown}");
    }
    let said: Value = serde_json::from_str(&done(at, &["root", "show", "root.json", "--json"])).expect("JSON");
    assert_eq!((&said["version"], &said["roles"]["root"]["threshold"]), (&1.into(), &2.into()));
    assert_eq!(said["keys"][0]["roles"], serde_json::json!(["policy", "root"]));

    // Signatures that are not what they were are told, and nobody adds to them.
    let mut block = fs::read(at.join("root.sigs")).expect("the signatures");
    *block.last_mut().expect("not empty") ^= 1;
    fs::write(at.join("root.sigs"), &block).expect("written");
    assert!(done(at, &["root", "show", "root.json"]).contains("WRONG: SignatureInvalid"));
    let sign = ["root", "sign", "root.json", "--key", "ben.key", "--yes"];
    assert!(refused(at, exit::DATA, &sign).contains("the signature of key"));
}

#[test]
fn a_rotation_that_cannot_be_meant_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    done(at, &["init", "p"]);
    done(at, &["init", "big", "--deployment", "other", "--root-keys", "10", "--root-threshold", "9"]);
    done(at, &["key", "new", "policy"]);
    done(at, &["key", "new", "dora"]);
    let refusal = |more: &[&str]| {
        let told = refused(at, exit::DATA, &[&["root", "rotate", "p/root.json", "-o", "x.json"], more].concat());
        assert!(!at.join("x.json").exists());
        told
    };
    assert!(refusal(&["--remove", "nobody"]).contains("0 keys have the name \"nobody\"; the root has: root-1,"));
    assert!(refusal(&["--add", "policy=policy.pub"]).contains("--remove policy"), "a second key of one name");
    assert!(refusal(&["--remove", "root-1", "--remove", "root-2"]).contains("the threshold of root is 2 of 1 keys"));
    assert!(refusal(&["--remove", "policy"]).contains("nobody has the role policy"));
    assert!(refusal(&["--remove", "hub=policy"]).contains("does not have that role"));
    assert!(refusal(&["--add", "root=p/root.json"]).contains("not a key file"));
    assert!(
        refused(at, exit::USAGE, &["root", "rotate", "p/root.json", "-o", "x", "--add", "king=dora.pub"])
            .contains("ROLE=")
    );
    // Nine of ten old keys and nine of ten new ones do not fit into sixteen signatures.
    let mut more: Vec<String> = Vec::new();
    for n in 1..=10 {
        done(at, &["key", "new", &format!("new-{n}")]);
        more.extend(["--remove".to_owned(), format!("root-{n}"), "--add".to_owned(), format!("root=new-{n}.pub")]);
    }
    let rotate = ["root", "rotate", "big/root.json", "-o", "x.json"];
    let all: Vec<_> = rotate.into_iter().chain(more.iter().map(String::as_str)).collect();
    assert!(refused(at, exit::DATA, &all).contains("want 18 signatures; 16 fit"));
    // A signer is not made to sign what they cannot compare.
    done(at, &["root", "rotate", "p/root.json", "-o", "alone.json"]);
    let sign = ["root", "sign", "alone.json", "--key", "p/keys/root-1.key", "--yes"];
    assert!(refused(at, exit::DATA, &sign).contains("name it with --previous"));
    let other = [&sign[..], &["--previous", "big/root.json"]].concat();
    assert!(
        refused(at, exit::DATA, &other).contains("a root of deployment \"example\" after one of \"other\""),
        "another deployment's root"
    );
    let wrong = [&sign[..4], &["p/keys/policy.key", "--yes", "--previous", "p/root.json"]].concat();
    assert!(refused(at, exit::DATA, &wrong).contains("does not have the role root"));
    let sign = ["root", "sign", "alone.json", "--previous", "p/root.json", "--key", "p/keys/root-1.key", "--confirm"];
    let digest = "00".repeat(32);
    assert!(refused(at, exit::DATA, &[&sign[..], &[&digest]].concat()).contains("not signed: its digest is"));
}
