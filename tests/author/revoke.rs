//! Lists of revocations and permits, from the desk to a device, which is the judge in this process.

use std::fs;
use std::path::Path;

use tidegate::exit;

use crate::program::{done, refused};
use crate::root::device;

const ISS: &str = "https://tokens.example.com";
/// The id of the device of [`device`].
const DEVICE: &str = "09090909090909090909090909090909";

fn started() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    done(folder.path(), &["init", "p"]);
    folder
}

fn sign(at: &Path, bundle: &str, role: &str) {
    let key = format!("p/keys/{role}.key");
    done(at, &["bundle", "sign", bundle, "--key", &key, "--yes"]);
}

fn revoke(at: &Path, output: &str, more: &[&str]) -> String {
    let told = done(at, &[&["revoke", "-o", output, "--root", "p/root.json"][..], more].concat());
    sign(at, output, "revocation");
    told
}

#[test]
fn a_list_is_made_of_the_folder_then_of_the_list_before_and_devices_take_both() {
    let folder = started();
    let at = folder.path();
    let row = "\n[[revoked]]\nissuer = \"site\"\ntoken = \"t-1\"\nuntil = 2100-01-01T00:00:00Z\n";
    fs::write(at.join("p/revocations.toml"), row).expect("written");
    assert!(done(at, &["revoke", "p", "-o", "1.tgb"]).contains("1 ids, 0 cut-offs"));
    sign(at, "1.tgb", "revocation");
    let more = ["--previous", "1.tgb", "--issuer", ISS, "--sub", "mallory", "--client", "till-9", "--jti", "t-2"];
    assert!(revoke(at, "2.tgb", &more).contains("4 ids, 0 cut-offs"));
    let cut =
        ["--previous", "2.tgb", "--issuer", ISS, "--sub", "eve", "--kid", "k-1", "--before", "2026-01-31T12:00:00Z"];
    assert!(revoke(at, "3.tgb", &cut).contains("4 ids, 2 cut-offs"));
    assert_eq!(device(at, "p/root.json", &["1.tgb", "2.tgb", "3.tgb"]), ["Activated"; 3]);
    assert_eq!(device(at, "p/root.json", &["3.tgb", "2.tgb"]), ["Activated", "RevocationRollback"]);
    let told = done(at, &["bundle", "diff", "2.tgb", "3.tgb"]);
    assert!(told.contains("~ seq: 2 → 3") && told.contains("cut-offs: 2 added"), "{told}");
    // Only who has the role signs it.
    let wrong = ["bundle", "sign", "3.tgb", "--key", "p/keys/policy.key", "--yes"];
    assert!(refused(at, exit::DATA, &wrong).contains("does not have the role revocation"));
}

#[test]
fn a_list_that_gives_access_back_is_refused_at_the_desk_as_a_device_would() {
    let folder = started();
    let at = folder.path();
    let first =
        ["p", "--issuer", "site", "--jti", "t-1", "--jti", "t-2", "--sub", "eve", "--until", "2100-01-01T00:00:00Z"];
    revoke(at, "1.tgb", &first);
    // The folder's own list lacks what the flags said last time.
    let shrunk = ["revoke", "p", "--previous", "1.tgb", "-o", "2.tgb", "--issuer", "site", "--jti", "t-1"];
    let told = refused(at, exit::DATA, &shrunk);
    assert!(told.contains("refused: RevocationShrunk: it lacks the id") && !at.join("2.tgb").exists(), "{told}");
    // Made all the same, a device refuses it by the same comparison; kept, it takes it.
    let sly = ["p", "--seq", "2", "--issuer", "site", "--jti", "t-1", "--until", "2100-01-01T00:00:00Z"];
    revoke(at, "sly.tgb", &sly);
    assert_eq!(device(at, "p/root.json", &["1.tgb", "sly.tgb"]), ["Activated", "RevocationShrunk"]);
    let compared = ["bundle", "sign", "sly.tgb", "--key", "p/keys/revocation.key", "--previous", "1.tgb", "--yes"];
    assert!(refused(at, exit::DATA, &compared).contains("it lacks the id"), "a signer who compares is told too");
    revoke(at, "kept.tgb", &["p", "--keep", "--previous", "1.tgb"]);
    assert_eq!(device(at, "p/root.json", &["1.tgb", "kept.tgb"]), ["Activated"; 2]);
    // What has run out may go.
    let short = ["p", "--issuer", "site", "--jti", "t-9", "--until", "1900000100", "--now", "1900000000"];
    revoke(at, "short.tgb", &short);
    revoke(at, "gone.tgb", &["--previous", "short.tgb", "--now", "1900000200"]);
    assert_eq!(device(at, "p/root.json", &["short.tgb", "gone.tgb"]), ["Activated"; 2]);
    let inspected = done(at, &["bundle", "inspect", "gone.tgb"]);
    assert!(inspected.contains("0 cut-offs, 0 ids"), "{inspected}");
}

#[test]
fn what_a_list_cannot_mean_is_refused() {
    let folder = started();
    let at = folder.path();
    let refusal =
        |code, more: &[&str]| refused(at, code, &[&["revoke", "p", "-o", "x.tgb", "--issuer", "site"], more].concat());
    assert!(refusal(exit::DATA, &["--sub", "eve", "--before", "2100-01-01T00:00:00Z"]).contains("lies in the future"));
    assert!(refusal(exit::DATA, &["--jti", "t", "--before", "1700000000"]).contains("--before cuts off"));
    assert!(refusal(exit::DATA, &["--jti", "t", "--until", "1700000000"]).contains("--until has passed"));
    assert!(refusal(exit::USAGE, &["--kid", "k"]).contains("--before"));
    assert!(refusal(exit::USAGE, &["--jti", "t", "--until", "soon"]).contains("2026-01-31T12:00:00Z"));
    let bare = |more: &[&str]| refused(at, exit::USAGE, &[&["revoke", "p", "-o", "x.tgb"], more].concat());
    for (more, missing) in [
        (&["--before", "1700000000"][..], "--issuer"),
        (&["--until", "2100-01-01T00:00:00Z"], "--issuer"),
        (&["--issuer", "site"], "--jti"),
        (&["--issuer", "site", "--before", "1700000000"], "--sub"),
        (&["--issuer", "site", "--until", "2100-01-01T00:00:00Z"], "--client"),
    ] {
        assert!(bare(more).contains(missing) && !at.join("x.tgb").exists(), "{more:?}");
    }
    let unknown = ["revoke", "p", "-o", "x.tgb", "--issuer", "sight", "--jti", "t"];
    assert!(refused(at, exit::DATA, &unknown).contains("no issuer \"sight\""));
    done(at, &["bundle", "build", "p", "-o", "a.tgb"]);
    let policy = ["revoke", "--previous", "a.tgb", "--root", "p/root.json", "-o", "x.tgb"];
    assert!(refused(at, exit::DATA, &policy).contains("is a policy bundle, not a list"));
}

#[test]
fn a_permit_leads_one_device_back_once_and_no_other() {
    let folder = started();
    let at = folder.path();
    for bundle in ["one.tgb", "two.tgb"] {
        done(at, &["bundle", "build", "p", "-o", bundle]);
        sign(at, bundle, "policy");
    }
    let permit = |device: &str, output: &str, seq: &str| {
        let to = ["--from", "two.tgb", "--to", "one.tgb", "--root", "p/root.json", "--author", "ops"];
        done(at, &[&["permit", "--device", device, "-o", output, "--seq", seq][..], &to].concat());
        sign(at, output, "permit");
    };
    permit(DEVICE, "permit.tgb", "1");
    permit(&"0a".repeat(16), "other.tgb", "1");
    assert_eq!(device(at, "p/root.json", &["one.tgb", "two.tgb", "one.tgb"]), ["Activated", "Activated", "Rollback"]);
    let way = ["one.tgb", "two.tgb", "permit.tgb", "one.tgb"];
    assert_eq!(device(at, "p/root.json", &way), ["Activated", "Activated", "Permitted", "Activated"]);
    let other = ["one.tgb", "two.tgb", "other.tgb", "one.tgb"];
    assert_eq!(device(at, "p/root.json", &other), ["Activated", "Activated", "NotForThisDevice", "Rollback"]);
    let again = ["one.tgb", "two.tgb", "permit.tgb", "one.tgb", "permit.tgb"];
    assert_eq!(device(at, "p/root.json", &again).last(), Some(&"PermitUsed"));
    let shown = done(at, &["bundle", "inspect", "permit.tgb"]);
    let digest = done(at, &["bundle", "inspect", "one.tgb"]);
    let digest = digest.lines().nth(1).and_then(|line| line.split_whitespace().last()).expect("a digest");
    assert!(shown.contains("to bundle") && shown.contains(digest), "{shown}");

    let permit = |to: &'static str| {
        let who = ["permit", "--device", DEVICE, "--root", "p/root.json", "--author", "a", "-o", "x.tgb"];
        [&who[..], &["--from", digest, "--to", to]].concat()
    };
    assert!(refused(at, exit::DATA, &permit("one.tgb")).contains("--from and --to are one bundle"));
    assert!(refused(at, exit::IO, &permit("none.tgb")).contains("neither a digest nor a bundle"));
}
