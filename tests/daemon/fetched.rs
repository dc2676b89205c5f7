//! What a device fetches from its hub, and what it does not fetch again.

use std::fs;
use std::process::{Child, Command, Stdio};

use tidegate::admin::PolicyStatus;
use tidegate::bundle::{journal, pack};
use tidegate::disk::Machine;

use crate::site::{Daemon, Site, drop_in, free_address, serves, until};
use crate::wire::upstream;

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A hub that lets anybody in and serves the folder `bundles` of the site.
fn hub(site: &mut Site) -> Ended {
    hub_that(site, "policy/keys/hub.key", "enrol = \"any\"")
}

/// A hub that has this key and serves the folder `bundles` of the site, with these settings besides; where it listens is in
/// `hub`.
fn hub_that(site: &mut Site, key: &str, settings: &str) -> Ended {
    let (address, bundles) = (free_address(), site.path("bundles"));
    fs::create_dir(&bundles).expect("made");
    let settings = format!(
        "listen = \"{address}\"\ndatabase = {:?}\nkey_file = {:?}\nbundles = {bundles:?}\n{settings}\n",
        site.path("usage.sqlite"),
        site.path(key),
    );
    fs::write(site.path("hub.toml"), settings).expect("written");
    fs::write(site.path("hub"), format!("http://{address}")).expect("written");
    site.more = format!("[upload]\nhubs = [\"http://{address}\"]\npull_interval = \"1h\"\nretry_base = \"50ms\"\n");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-hub"));
    command.args(["run", "--config", "hub.toml"]).current_dir(site.path(""));
    Ended(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts"))
}

/// How often this became of something that came from the hub.
fn pulled(site: &Site, result: &str) -> usize {
    let lines = journal::read(&Machine, &site.path("state/journal")).unwrap_or_default();
    let is_pulled = |medium: Option<&str>| medium.is_some_and(|medium| medium.starts_with("pull "));
    lines.iter().filter(|line| line.result == result && is_pulled(line.medium.as_deref())).count()
}

#[test]
fn what_was_refused_for_want_of_its_base_is_fetched_again_once_the_base_came_by_hand() {
    let mut site = Site::new();
    let upstream = free_address();
    let (one, two) = (site.bundle(upstream), site.bundle(upstream));
    let base = pack::digest(&two).expect("it has one").to_string();
    site.tidegate(&["bundle", "build", "policy", "-o", "three.tgb", "--base", &base]);
    site.tidegate(&["bundle", "sign", "three.tgb", "--key", "policy/keys/policy.key", "--yes"]);
    let _hub = hub(&mut site);
    drop_in(&site.path("bundles"), "three.tgb", &fs::read(site.path("three.tgb")).expect("it was made"));

    let daemon = site.start();
    until("it is refused", || (pulled(&site, "DeltaBaseMismatch") == 1).then_some(()));
    daemon.stop();
    // Another start, and nothing that would help.
    let daemon = site.start();
    assert_eq!(daemon.takes("one.tgb", &one), "Activated");
    until("it is fetched again, and refused again", || (pulled(&site, "DeltaBaseMismatch") == 2).then_some(()));
    assert_eq!(daemon.takes("two.tgb", &two), "Activated");
    until("it is fetched again", || (pulled(&site, "Activated") == 1).then_some(()));
    assert_eq!(pulled(&site, "DeltaBaseMismatch"), 2, "a start alone fetches nothing again");
    daemon.stop();
}

#[test]
fn a_permit_at_the_hub_leads_a_device_back_though_the_newer_policy_lies_there_too() {
    let mut site = Site::new();
    let upstream = free_address();
    for name in ["one.tgb", "two.tgb"] {
        fs::write(site.path(name), site.bundle(upstream)).expect("written");
    }
    let _hub = hub(&mut site);
    site.more = site.more.replace("1h", "200ms");
    let put = |name: &str| drop_in(&site.path("bundles"), name, &fs::read(site.path(name)).expect("it was made"));
    ["one.tgb", "two.tgb"].into_iter().for_each(put);
    let daemon = site.start();
    let seq = || match daemon.status().policy {
        PolicyStatus::Active { seq, .. } => Some(seq),
        PolicyStatus::SafeMode => None,
    };
    until("the newest is in force", || seq().filter(|seq| *seq == 2));
    let device = daemon.status().device.to_string();
    let permit = ["permit", "--device", &device, "--from", "two.tgb", "--to", "one.tgb", "--root", "policy/root.json"];
    site.tidegate(&[&permit[..], &["--author", "ada", "-o", "permit.tgb"]].concat());
    site.tidegate(&["bundle", "sign", "permit.tgb", "--key", "policy/keys/permit.key", "--yes"]);
    put("permit.tgb");
    until("the one before is in force", || seq().filter(|seq| *seq == 1));
    // It stays there: nothing that the hub has leads away again.
    let fetched = pulled(&site, "Activated");
    drop_in(&site.path("bundles"), "three.tgb", &site.bundle(upstream));
    until("the next is in force", || seq().filter(|seq| *seq == 3));
    assert_eq!((fetched, pulled(&site, "Activated")), (2, 3));
    daemon.stop();
}

#[test]
fn a_device_asks_its_hub_is_enrolled_at_the_desk_and_has_its_labels_and_their_policy_without_a_stick() {
    let mut site = Site::new();
    fs::create_dir(site.path("requests")).expect("made");
    // It lists no device: that the desk has enrolled one is enough to fetch.
    let settings = format!("requests = {:?}\nroot = {:?}", site.path("requests"), site.path("policy/root.json"));
    let _hub = hub_that(&mut site, "policy/keys/hub.key", &settings);
    site.more = site.more.replace("1h", "200ms");
    let hub = fs::read_to_string(site.path("hub")).expect("written");
    let targets = "[targets.quay]\nlabels = { site = [\"quay\"] }\n";
    fs::write(site.path("policy/targets.toml"), targets).expect("written");
    let deployment = fs::read_to_string(site.path("policy/deployment.toml")).expect("a file");
    fs::write(site.path("policy/deployment.toml"), format!("target = \"quay\"\n{deployment}")).expect("written");
    drop_in(&site.path("bundles"), "one.tgb", &site.bundle(free_address()));

    let daemon = site.start();
    let device = daemon.status().device.to_string();
    let told = site.tidegate(&["device", "request", "--state", "state", "--label", "site=quay", "--hub", &hub]);
    assert!(told.contains(&device) && told.contains(&hub), "{told}");
    // At the desk: what lies there names the device; the id is compared, the rest is as ever.
    let request = format!("requests/{device}.request.tgd");
    let enrol = ["device", "enrol", &request, "--yes", "--key", "policy/keys/policy.key", "--label", "site=quay"];
    let told = site.tidegate(&[&enrol[..], &["-o", "pump-3.tgd"]].concat());
    assert!(told.contains(&device) && told.contains("It is complete"), "{told}");
    assert!(daemon.status().labels.is_empty(), "asking gives nothing");
    drop_in(&site.path("bundles"), "pump-3.tgd", &fs::read(site.path("pump-3.tgd")).expect("it was made"));
    until("it has its labels", || {
        (daemon.status().labels == [("site".to_owned(), "quay".to_owned())].into()).then_some(())
    });
    until("the policy for them is in force", || {
        matches!(daemon.status().policy, PolicyStatus::Active { seq: 1, .. }).then_some(())
    });
    assert_eq!((pulled(&site, "Enrolled"), pulled(&site, "Activated")), (1, 1));
    daemon.stop();
}

#[test]
fn a_hub_that_is_not_there_or_takes_no_request_is_told_with_what_to_do() {
    let mut site = Site::new();
    let _hub = hub_that(&mut site, "policy/keys/hub.key", "");
    let daemon = site.start();
    let hub = fs::read_to_string(site.path("hub")).expect("written");
    let ask = |hub: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(["device", "request", "--state", "state", "--hub", hub]).current_dir(site.path(""));
        let output = command.output().expect("it runs");
        (output.status.code(), String::from_utf8(output.stderr).expect("text"))
    };
    let (code, told) = until("the hub listens", || Some(ask(&hub)).filter(|(code, _)| *code != Some(69)));
    assert!(code == Some(65) && told.contains("NotFound"), "{told}");
    let (code, told) = ask(&format!("http://{}", free_address()));
    assert!(code == Some(69) && told.contains("-o FILE"), "{told}");
    let (code, told) = ask("https://hub.example.com");
    assert!(code == Some(65) && told.contains("--hub-pin"), "{told}");
    let (code, told) = ask("http://hub.example.com");
    assert!(code == Some(65) && told.contains("--allow-plain-http"), "{told}");
    daemon.stop();
}

#[test]
fn a_new_root_comes_by_pull_and_its_policy_keys_and_the_receipts_of_its_hub_key_count_from_then_on() {
    let mut site = Site::new();
    for name in ["ada", "centre"] {
        site.tidegate(&["key", "new", name]);
    }
    let rotate =
        ["root", "rotate", "policy/root.json", "-o", "next.json", "--remove", "policy", "--add", "policy=ada.pub"];
    site.tidegate(&[&rotate[..], &["--remove", "hub", "--add", "hub=centre.pub"]].concat());
    let keys = ["--key", "policy/keys/root-1.key", "--key", "policy/keys/root-2.key"];
    site.tidegate(&[&["root", "sign", "next.json", "--previous", "policy/root.json", "--yes"][..], &keys].concat());
    // The hub has the new root's key already.
    let _hub = hub_that(&mut site, "centre.key", "enrol = \"any\"");
    site.more = site.more.replace("1h", "200ms")
        + "retry_cap = \"100ms\"\n[spool]\nseal_after = \"100ms\"\nseal_after_offline = \"100ms\"\n";

    let daemon = site.start();
    let token = site.token();
    assert_eq!(daemon.takes("one.tgb", &site.bundle(upstream("one"))), "Activated");
    serves(&site, &token, "one");
    until("a receipt comes, of a key that the root does not name", || {
        let told = daemon.status().upload?.last_error?;
        told.contains("not to be believed").then_some(())
    });
    assert!(waits(&daemon) > 0 && sent(&daemon) == 0, "nothing is let go for it");

    let put = |seq: &str, key: &str, under: &[&str], signed_under: &str| {
        let build = ["bundle", "build", "policy", "-o", "built.tgb", "--seq", seq];
        site.tidegate(&[&build[..], under].concat());
        site.tidegate(&["bundle", "sign", "built.tgb", "--key", key, "--root", signed_under, "--yes"]);
        let bytes = fs::read(site.path("built.tgb")).expect("made");
        fs::remove_file(site.path("built.tgb")).expect("there");
        drop_in(&site.path("bundles"), &format!("{seq}.tgb"), &bytes);
    };
    let in_force = |daemon: &Daemon, wanted: u64| {
        until("it is in force", || match daemon.status().policy {
            PolicyStatus::Active { seq, .. } => (seq == wanted).then_some(()),
            PolicyStatus::SafeMode => None,
        });
    };
    put("10", "ada.key", &["--root-chain", "next.json"], "next.json");
    in_force(&daemon, 10);
    until("what waited is let go", || (waits(&daemon) == 0 && sent(&daemon) > 0).then_some(()));
    put("11", "ada.key", &["--root", "next.json"], "next.json");
    in_force(&daemon, 11);
    // The control: the key that was rotated out.
    put("12", "policy/keys/policy.key", &["--root", "policy/root.json"], "policy/root.json");
    until("it is refused", || (pulled(&site, "ThresholdNotMet") == 1).then_some(()));
    daemon.stop();

    let daemon = site.start();
    in_force(&daemon, 11);
    serves(&site, &token, "one");
    until("the receipts count after a start too", || (waits(&daemon) == 0 && sent(&daemon) > 0).then_some(()));
    daemon.stop();
}

/// Usage files that the hub has not acknowledged.
fn waits(daemon: &Daemon) -> u64 {
    daemon.status().spool.backlog_files
}

/// Those that it has, since the start.
fn sent(daemon: &Daemon) -> u64 {
    daemon.status().upload.expect("it has a hub").files
}
