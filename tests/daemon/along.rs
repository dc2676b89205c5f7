//! Usage that goes along with a stick, by leave of the policy role, and the receipts that come back with it: what
//! `systemd/stick` has `tidegate` do.

use std::fs;
use std::process::Command;

use tidegate::bundle::journal;
use tidegate::disk::Machine;

use crate::site::Site;
use crate::sticks::{SEALS, Told, at_hub, backlog, begun, counted, enrol, files, import, spool, told};

/// As the unit runs it: the stick read-only, receipts and leave elsewhere. Whether there is leave.
fn sideload(site: &Site, stick: &str) -> (Told, bool) {
    fs::create_dir_all(site.path("receipts")).expect("made");
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["sideload", stick, "--receipts", "receipts", "--grant", "grant", "--config", "gate.toml"])
        .args(["--inbox", "inbox", "--root", "policy/root.json", "--state", "state"])
        .current_dir(site.path(""))
        .output();
    (told(&output.expect("it runs")), site.path("grant").exists())
}

/// A note for `device`, signed by `key` of the site.
fn note(site: &Site, device: &str, key: &str, until: &str, output: &str) {
    let sign = ["device", "export-usage", "--yes", "--device", device, "--until", until, "--key", key, "-o", output];
    site.tidegate(&[&sign[..], &["--root", "policy/root.json"]].concat());
}

fn in_journal(site: &Site, result: &str) -> usize {
    let lines = journal::read(&Machine, &site.path("state/journal")).expect("the chain holds");
    lines.into_iter().filter(|line| line.result == result).count()
}

#[test]
fn a_stick_takes_usage_along_by_a_note_of_the_policy_role_and_brings_the_receipts_back() {
    let mut site = Site::new();
    site.more = SEALS.into();
    let (daemon, sent) = begun(&site, 2);
    enrol(&site);
    let (device, stick) = (daemon.status().device.to_string(), site.path("stick"));
    fs::create_dir(&stick).expect("made");
    let at = |name: &str| format!("stick/{name}");

    // The controls: no note; another's; a stranger's; one that has ended. None of them gives leave.
    let (bare, leave) = sideload(&site, "stick");
    assert!(bare.code == Some(65) && !leave, "{}", bare.text);
    let stranger = Site::new();
    note(&site, "00000000000000000000000000000001", "policy/keys/policy.key", "2099-01-01T00:00:00Z", &at("other.tgd"));
    note(&stranger, &device, "policy/keys/policy.key", "2099-01-01T00:00:00Z", "theirs.tgd");
    fs::copy(stranger.path("theirs.tgd"), stick.join("theirs.tgd")).expect("copied");
    let ended = ["device", "export-usage", "--yes", "--device", &device, "--now", "1000", "--until", "2000"];
    site.tidegate(&[&ended[..], &["--key", "policy/keys/policy.key", "-o", &at("ended.tgd")]].concat());
    let (refused, leave) = sideload(&site, "stick");
    assert!(refused.code == Some(65) && !leave, "{}", refused.text);
    for line in ["other.tgd: NotForThisDevice", "theirs.tgd: ThresholdNotMet", "ended.tgd: Expired"] {
        assert!(refused.has(line), "{line} is not in\n{}", refused.text);
    }

    // A note, and nothing to seal to.
    note(&site, &device, "policy/keys/policy.key", "2099-01-01T00:00:00Z", &at("note.tgd"));
    let (without, leave) = sideload(&site, "stick");
    assert!(without.code == Some(0) && without.has("UsageMayLeave") && without.has("NoUsageKey"), "{}", without.text);
    assert!(!leave, "{}", without.text);
    // A key that nobody vouches for is not sealed to.
    let forged = stranger.path("policy/keys/hub.key");
    let settings = fs::read_to_string(site.path("hub.toml")).expect("there");
    let theirs =
        settings.replace(site.path("policy/keys/hub.key").to_str().expect("text"), forged.to_str().expect("text"));
    fs::write(site.path("theirs.toml"), theirs).expect("written");
    assert_eq!(at_hub(&site, &["usage-key", "--config", "theirs.toml", &at("usage-key.tgd")]).code, Some(0));
    let (forged, leave) = sideload(&site, "stick");
    assert!(forged.has("NoUsageKey") && forged.has("no key of the root's hub role") && !leave, "{}", forged.text);

    fs::remove_file(stick.join("usage-key.tgd")).expect("there");
    assert_eq!(at_hub(&site, &["usage-key", "--config", "hub.toml", &at("usage-key.tgd")]).code, Some(0));
    let (granted, leave) = sideload(&site, "stick");
    assert!(granted.code == Some(0) && granted.has("usage goes along") && leave, "{}", granted.text);
    assert!(!granted.has("usage-key.tgd: "), "the key is no candidate: {}", granted.text);
    assert_eq!(in_journal(&site, "UsageMayLeave"), 3, "who let usage go, and when, is in the journal");
    let kept = fs::read_to_string(site.path(&format!("receipts/tidegate-{device}.txt"))).expect("for the stick");
    assert!(kept.contains("other.tgd: NotForThisDevice") && kept.contains("note.tgd: UsageMayLeave"), "{kept}");
    let exported = spool(&site, &["export", "stick", "--to", "grant"]);
    assert_eq!(exported.code, Some(0), "{}", exported.text);
    assert!(files(&stick, "tgu").is_empty() && files(&stick, "tgs").len() as u64 == backlog(&daemon));

    // To the hub and back, with no other command on the device than the unit's.
    let imported = import(&site, "stick");
    assert!(imported.code == Some(0) && counted(&site) == sent, "{}", imported.text);
    let (back, _) = sideload(&site, "stick");
    assert!(back.code == Some(0) && back.has("files deleted"), "{}", back.text);
    assert_eq!(backlog(&daemon), 0);
    // A stick that has only receipts, which are known: nothing is left to take.
    for name in ["note.tgd", "other.tgd", "theirs.tgd", "ended.tgd"] {
        fs::remove_file(stick.join(name)).expect("there");
    }
    let (again, leave) = sideload(&site, "stick");
    assert!(again.code == Some(65) && again.has("0 files deleted") && !leave, "{}", again.text);
    daemon.stop();
}

#[test]
fn where_any_stick_may_take_usage_it_is_sealed_to_the_key_of_the_settings() {
    let mut site = Site::new();
    site.more = format!("{SEALS}[usb]\nexport = \"any\"\nusage_key = {:?}\n", site.path("held.tgd"));
    let (daemon, sent) = begun(&site, 1);
    enrol(&site);
    fs::create_dir(site.path("stick")).expect("made");
    let (without, leave) = sideload(&site, "stick");
    assert!(without.code == Some(65) && without.has("NoUsageKey") && !leave, "{}", without.text);
    assert_eq!(at_hub(&site, &["usage-key", "--config", "hub.toml", "held.tgd"]).code, Some(0));
    let (granted, leave) = sideload(&site, "stick");
    assert!(granted.code == Some(0) && leave, "{}", granted.text);
    assert_eq!(spool(&site, &["export", "stick", "--to", "grant"]).code, Some(0));
    assert!(import(&site, "stick").code == Some(0) && counted(&site) == sent);

    // What an earlier stick was given is not left for the next.
    fs::remove_file(site.path("held.tgd")).expect("there");
    let (without, leave) = sideload(&site, "stick");
    assert!(without.has("NoUsageKey") && !leave, "{}", without.text);
    daemon.stop();
}
