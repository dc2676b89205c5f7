//! Bundles that people carry: on a stick, and over ssh.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Output};

use tidegate::bundle::Receipt;
use tidegate::bundle::journal;
use tidegate::disk::Machine;
use tidegate::ids::hex;
use tidegate::store::device_key;

use crate::site::{Site, serves};
use crate::wire::upstream;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The operator's command on the device, with `path` before the machine's own programs.
fn tidegate(site: &Site, arguments: &[&str], path: Option<&Path>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    if let Some(path) = path {
        let before = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{before}", path.display()));
    }
    command.args(arguments).current_dir(site.path("")).output().expect("it runs")
}

fn sideload(site: &Site, stick: &str) -> (Option<i32>, String) {
    let at = ["--inbox", "inbox", "--root", "policy/root.json", "--state", "state"];
    let output = tidegate(site, &[&["sideload", stick][..], &at].concat(), None);
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

fn media(site: &Site, result: &str) -> Vec<String> {
    let lines = journal::read(&Machine, &site.path("state/journal")).expect("the chain holds");
    lines.into_iter().filter(|line| line.result == result).filter_map(|line| line.medium).collect()
}

#[test]
fn of_a_stick_the_highest_that_is_acceptable_is_taken_and_the_receipt_goes_back() {
    let site = Site::new();
    let daemon = site.start();
    let (one, two) = (site.bundle(upstream("one")), site.bundle(upstream("two")));
    fs::create_dir(site.path("stick")).expect("made");
    let put = |name: &str, bytes: &[u8]| fs::write(site.path("stick").join(name), bytes).expect("written");
    put("one.tgb", &one);
    put("two.tgb", &two);
    put("stranger.tgb", &Site::new().bundle(upstream("stranger")));
    put("a name with $(spaces) & 'quotes'.tgb", b"garbage");
    symlink("two.tgb", site.path("stick/link.tgb")).expect("a link");
    fs::create_dir(site.path("stick/folder.tgb")).expect("made");

    let (code, told) = sideload(&site, "stick");
    assert_eq!(code, Some(0), "{told}");
    for line in
        ["two.tgb: Activated", "stranger.tgb: ThresholdNotMet", "link.tgb: SourceNotRegular", "folder.tgb: Source"]
    {
        assert!(told.contains(line), "{line} is not in\n{told}");
    }
    assert!(!told.contains("one.tgb"), "{told}");
    serves(&site, &site.token(), "two");
    assert!(
        media(&site, "Activated").iter().all(|medium| medium.starts_with("usb ")),
        "{:?}",
        media(&site, "Activated")
    );
    let receipt = fs::read(site.path("stick/two.tgb.result.json")).expect("on the stick");
    let key = device_key::open(&site.path("state"), None).expect("there").public();
    assert_eq!(Receipt::verify(&receipt, &key).expect("the device's own").result, "Activated");
    assert!(!site.path("stick/stranger.tgb.result.json").exists());

    // The same stick again changes nothing; one with nothing for this device says so.
    let (code, told) = sideload(&site, "stick");
    assert!(code == Some(0) && told.contains("two.tgb: AlreadyInstalled"), "{told}");
    fs::remove_file(site.path("stick/two.tgb")).expect("there");
    let (code, told) = sideload(&site, "stick");
    assert!(code == Some(65) && told.contains("one.tgb: Rollback") && told.contains("nothing there"), "{told}");
    daemon.stop();
}

#[test]
fn an_enrolment_on_the_stick_comes_before_the_policy_for_its_labels_and_a_stick_may_take_no_receipt() {
    let site = Site::new();
    let daemon = site.start();
    fs::create_dir(site.path("stick")).expect("made");
    let deployment = fs::read_to_string(site.path("policy/deployment.toml")).expect("a file");
    fs::write(site.path("policy/deployment.toml"), format!("target = \"quay\"\n{deployment}")).expect("written");
    fs::write(site.path("policy/targets.toml"), "[targets.quay]\nlabels = { site = [\"quay\"] }\n").expect("written");
    fs::write(site.path("stick/a.tgb"), site.bundle(upstream("quay"))).expect("written");
    // No file can take the place of a folder: as good as a stick that takes none.
    fs::create_dir_all(site.path("stick/a.tgb.result.json.part/deep")).expect("made");
    let (code, told) = sideload(&site, "stick");
    assert!(code == Some(65) && told.contains("a.tgb: NotForThisDevice"), "the control: {told}");
    site.tidegate(&["device", "request", "--state", "state", "-o", "ask.tgd"]);
    let enrol = ["device", "enrol", "ask.tgd", "--yes", "--key", "policy/keys/policy.key", "--label", "site=quay"];
    site.tidegate(&[&enrol[..], &["-o", "stick/z.tgd"]].concat());
    let (code, told) = sideload(&site, "stick");
    assert_eq!(code, Some(0), "{told}");
    let order = told.find("z.tgd: Enrolled").zip(told.find("a.tgb: Activated"));
    assert!(order.is_some_and(|(first, second)| first < second), "{told}");
    assert!(told.contains("no receipt on the stick"), "{told}");
    daemon.stop();
}

#[test]
fn of_a_stick_that_is_only_read_the_receipts_go_where_they_are_wanted() {
    let site = Site::new();
    let daemon = site.start();
    for folder in ["stick", "receipts"] {
        fs::create_dir(site.path(folder)).expect("made");
    }
    fs::write(site.path("stick/a.tgb"), site.bundle(upstream("one"))).expect("written");
    fs::write(site.path("stick/b.tgb"), b"garbage").expect("written");
    let at = ["--inbox", "inbox", "--root", "policy/root.json", "--state", "state", "--receipts", "receipts"];
    let output = tidegate(&site, &[&["sideload", "stick"][..], &at].concat(), None);
    assert!(output.status.success(), "{output:?}");
    let names = |folder: &str| {
        let entries = fs::read_dir(site.path(folder)).expect("a folder");
        let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
        names.sort();
        names
    };
    let device = daemon.status().device;
    assert_eq!(names("receipts"), ["a.tgb.result.json".into(), OsString::from(format!("tidegate-{device}.txt"))]);
    // For whoever has the stick and no console: also what got no receipt.
    let told = fs::read_to_string(site.path(&format!("receipts/tidegate-{device}.txt"))).expect("there");
    assert!(told.contains("a.tgb: Activated") && told.contains("b.tgb: BadMagic"), "{told}");
    assert_eq!(names("stick"), ["a.tgb", "b.tgb"], "nothing is written onto it");
    let receipt = fs::read(site.path("receipts/a.tgb.result.json")).expect("there");
    let key = device_key::open(&site.path("state"), None).expect("there").public();
    assert_eq!(Receipt::verify(&receipt, &key).expect("the device's own").result, "Activated");
    daemon.stop();
}

#[test]
fn where_the_devices_key_is_no_file_of_the_state_folder_its_public_half_can_be_named() {
    let site = Site::new();
    let daemon = site.start();
    fs::create_dir(site.path("stick")).expect("made");
    fs::write(site.path("stick/a.tgb"), site.bundle(upstream("one"))).expect("written");
    let public = device_key::open(&site.path("state"), None).expect("there").public();
    let stranger = tidegate::keys::SigningKey::generate().expect("random").public();
    fs::write(site.path("device.pub"), hex(public.raw())).expect("written");
    fs::write(site.path("stranger.pub"), hex(stranger.raw())).expect("written");
    let bring = |key: &str| {
        let at = ["--inbox", "inbox", "--root", "policy/root.json", "--state", "elsewhere", "--device-key", key];
        let output = tidegate(&site, &[&["sideload", "stick"][..], &at].concat(), None);
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    let (code, told) = bring("stranger.pub");
    assert!(code == Some(65) && told.contains("signed by key"), "the control: {told}");
    let (code, told) = bring("device.pub");
    assert!(code == Some(0) && told.contains("a.tgb: AlreadyInstalled"), "{told}");
    daemon.stop();
}

#[test]
fn without_a_daemon_nothing_stays_in_the_inbox() {
    let site = Site::new();
    fs::create_dir(site.path("inbox")).expect("made");
    fs::create_dir(site.path("stick")).expect("made");
    fs::write(site.path("stick/a.tgb"), site.bundle(upstream("one"))).expect("written");
    let at = ["--inbox", "inbox", "--root", "policy/root.json", "--state", "state", "--wait", "0"];
    let output = tidegate(&site, &[&["sideload", "stick"][..], &at].concat(), None);
    assert!(!output.status.success() && text(&output.stderr).contains("is it running?"), "{output:?}");
    assert!(fs::read_dir(site.path("inbox")).expect("there").next().is_none());
}

#[test]
fn a_receipt_that_is_of_another_file_is_nobodys_word_on_this_one() {
    let site = Site::new();
    let daemon = site.start();
    fs::create_dir(site.path("stick")).expect("made");
    fs::write(site.path("stick/a.tgb"), site.bundle(upstream("one"))).expect("written");
    let (code, told) = sideload(&site, "stick");
    assert!(code == Some(0) && told.contains("a.tgb: Activated"), "the control: {told}");
    daemon.stop();
    let other = site.path("stick/a.tgb.result.json");
    fs::rename(&other, site.path("other.json")).expect("it came back");

    // On a stick: it appears the moment that the file is offered.
    fs::write(site.path("stick/a.tgb"), site.bundle(upstream("two"))).expect("written");
    let (offered, beside) = (site.path("inbox/usb=unknown=a.tgb"), site.path("inbox/usb=unknown=a.tgb.result.json"));
    let (code, told) = std::thread::scope(|scope| {
        scope.spawn(|| {
            crate::site::until("it is offered", || offered.exists().then_some(()));
            fs::copy(site.path("other.json"), &beside).expect("copied");
        });
        let at = ["--inbox", "inbox", "--root", "policy/root.json", "--state", "state", "--wait", "2"];
        let output = tidegate(&site, &[&["sideload", "stick"][..], &at].concat(), None);
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    });
    assert!(code != Some(0) && told.contains("of another file") && !told.contains("Activated"), "{told}");
    assert!(!other.exists() && !offered.exists());

    // Over ssh: it is there as soon as the file is moved in.
    let doubles = doubles(&site);
    let mv =
        format!("#!/bin/sh\nPATH=${{PATH#*:}}\nmv \"$@\" && cp -- {:?} \"$4.result.json\"\n", site.path("other.json"));
    fs::write(doubles.join("mv"), mv).expect("written");
    fs::set_permissions(doubles.join("mv"), Permissions::from_mode(0o755)).expect("set");
    let inbox = site.path("inbox");
    let push = ["push", "ops@pump", "stick/a.tgb", "--inbox", inbox.to_str().expect("UTF-8"), "--wait"];
    let output = tidegate(&site, &[&push[..], &["1"]].concat(), Some(&doubles));
    let told = text(&output.stdout) + &text(&output.stderr);
    assert!(
        !output.status.success() && told.contains("no receipt of this file") && !told.contains("result "),
        "{told}"
    );
    let daemon = site.start();
    let output = tidegate(&site, &[&push[..], &["60"]].concat(), Some(&doubles));
    let told = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success() && told.contains("seq      2\n"), "{told}");
    daemon.stop();
}

#[test]
fn an_enrolment_by_the_policy_role_comes_by_stick_beside_a_higher_one_of_the_hub() {
    let site = Site::new();
    let daemon = site.start();
    site.tidegate(&["device", "request", "--state", "state", "-o", "ask.tgd"]);
    fs::create_dir(site.path("stick")).expect("made");
    let enrol = |key: &str, seq: &str, output: &str| {
        let enrol = ["device", "enrol", "ask.tgd", "--yes", "--key", key, "--seq", seq, "--label", "site=quay"];
        site.tidegate(&[&enrol[..], &["-o", output]].concat());
    };
    enrol("policy/keys/hub.key", "9", "taken.tgd");
    enrol("policy/keys/hub.key", "8", "stick/hub.tgd");
    enrol("policy/keys/policy.key", "5", "stick/policy.tgd");
    assert_eq!(daemon.takes("taken.tgd", &fs::read(site.path("taken.tgd")).expect("made")), "Enrolled");
    let (code, told) = sideload(&site, "stick");
    assert!(code == Some(0) && told.contains("hub.tgd: EnrolmentRollback"), "{told}");
    assert!(told.contains("policy.tgd: Enrolled"), "{told}");
    daemon.stop();
}

#[test]
fn a_time_reset_comes_by_stick_and_over_ssh_and_counts_as_taken() {
    let site = Site::new();
    let daemon = site.start();
    let reset = |seq: &str, output: &str| {
        let keys = ["--key", "policy/keys/root-1.key", "--key", "policy/keys/root-2.key"];
        let what = ["time", "reset", "--root", "policy/root.json", "--at", "1", "--undoes", "2", "--author", "ada"];
        site.tidegate(&[&what[..], &["--all", "--yes"], &keys, &["--seq", seq, "-o", output]].concat());
    };
    fs::create_dir(site.path("stick")).expect("made");
    fs::write(site.path("stick/a.tgb"), site.bundle(upstream("one"))).expect("written");
    reset("1", "stick/one.tgb");
    reset("2", "stick/two.tgb");
    let (code, told) = sideload(&site, "stick");
    assert_eq!(code, Some(0), "{told}");
    let order = told.find("two.tgb: TimeReset").zip(told.find("a.tgb: Activated"));
    assert!(order.is_some_and(|(first, second)| first < second) && !told.contains("one.tgb"), "{told}");
    let (code, told) = sideload(&site, "stick");
    assert!(code == Some(0) && told.contains("two.tgb: Rollback") && told.contains("AlreadyInstalled"), "{told}");

    let doubles = doubles(&site);
    reset("3", "three.tgb");
    let inbox = site.path("inbox");
    let push = ["push", "ops@pump", "three.tgb", "--inbox", inbox.to_str().expect("UTF-8")];
    let output = tidegate(&site, &push, Some(&doubles));
    assert!(output.status.success() && text(&output.stdout).starts_with("result   TimeReset\n"), "{output:?}");
    daemon.stop();

    let output = tidegate(&site, &["bundle", "inspect", "three.tgb"], None);
    let told = text(&output.stderr);
    assert!(output.status.code() == Some(65) && told.contains("a time reset") && told.contains("time sign"), "{told}");
}

#[test]
fn an_older_policy_that_brings_the_root_keeps_no_newer_one_on_the_stick() {
    let site = Site::new();
    let daemon = site.start();
    site.tidegate(&["root", "rotate", "policy/root.json", "-o", "next.json"]);
    let keys = ["--key", "policy/keys/root-1.key", "--key", "policy/keys/root-2.key"];
    site.tidegate(&[&["root", "sign", "next.json", "--previous", "policy/root.json", "--yes"][..], &keys].concat());
    fs::create_dir(site.path("stick")).expect("made");
    let build = |output: &str, under: [&str; 2], seq: &str| {
        let built = ["bundle", "build", "policy", "-o", output, "--seq", seq];
        site.tidegate(&[&built[..], &under].concat());
        let sign = ["bundle", "sign", output, "--key", "policy/keys/policy.key", "--root", "next.json", "--yes"];
        site.tidegate(&sign);
    };
    site.bundle(upstream("quay")); // makes the folder's API; the number is given again
    build("stick/old.tgb", ["--root-chain", "next.json"], "4");
    build("stick/new.tgb", ["--root", "next.json"], "9");
    let (code, told) = sideload(&site, "stick");
    assert_eq!(code, Some(0), "{told}");
    let order = told.find("old.tgb: Activated").zip(told.find("new.tgb: Activated"));
    assert!(order.is_some_and(|(first, second)| first < second), "{told}");
    daemon.stop();
}

#[test]
fn a_hostile_stick_takes_little_memory_before_a_signature_is_looked_at() {
    use tidegate::bundle::container::{BundleType, MAX_MANIFEST, MAX_TRUST, Preamble};
    use tidegate::bundle::inbox::MAX_CANDIDATES;
    let site = Site::new();
    fs::create_dir(site.path("stick")).expect("made");
    let preamble = Preamble::new(BundleType::Policy, MAX_TRUST as usize, MAX_MANIFEST as usize, 16, 0).expect("limits");
    let mut head = vec![0; usize::try_from(preamble.file_len()).expect("386 KiB")];
    head[..32].copy_from_slice(&preamble.to_bytes());
    let count = head.len() - (1 + 96 * 16);
    head[count] = 16;
    for number in 0..MAX_CANDIDATES {
        fs::write(site.path("stick").join(format!("{number}.tgb")), &head).expect("written");
    }
    // All heads at once would be 97 MiB; 32 MiB of data hold the program and a few of them.
    let run = "ulimit -d 32768 && exec \"$0\" sideload stick --inbox inbox --root policy/root.json --state state";
    let mut command = Command::new("sh");
    command.args(["-c", run, env!("CARGO_BIN_EXE_tidegate")]).current_dir(site.path(""));
    let output = command.output().expect("it runs");
    let told = text(&output.stdout);
    assert!(output.status.code() == Some(65) && told.contains("nothing there"), "{:?}: {told}", output.status);
    assert_eq!(told.matches("SignersNotAscending").count(), MAX_CANDIDATES);
}

/// Programs that stand for ssh and scp, and do on this machine what they would do on the other.
fn doubles(site: &Site) -> std::path::PathBuf {
    let folder = site.path("doubles");
    fs::create_dir(&folder).expect("made");
    let scp = "#!/bin/sh\n[ \"$1 $2\" = \"-q --\" ] && [ $# = 4 ] || exit 9\nexec cp -- \"$3\" \"${4#ops@pump:}\"\n";
    let ssh = "#!/bin/sh\n[ \"$1 $2\" = \"-- ops@pump\" ] && [ $# = 3 ] || exit 9\nexec sh -c \"$3\"\n";
    for (name, script) in [("scp", scp), ("ssh", ssh)] {
        fs::write(folder.join(name), script).expect("written");
        fs::set_permissions(folder.join(name), Permissions::from_mode(0o755)).expect("set");
    }
    folder
}

#[test]
fn a_push_copies_beside_moves_in_and_prints_the_devices_receipt() {
    let site = Site::new();
    let daemon = site.start();
    let doubles = doubles(&site);
    let inbox = site.path("inbox");
    let inbox = inbox.to_str().expect("UTF-8");
    let hostile = "-o $(touch pwned); 'x' .tgb";
    fs::write(site.path(hostile), site.bundle(upstream("one"))).expect("written");
    let push = |file: &str, more: &[&str]| {
        let arguments = [&["push", "ops@pump", "--inbox", inbox][..], more, &["--", file]].concat();
        let output = tidegate(&site, &arguments, Some(&doubles));
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    let (code, told) = push(hostile, &["--receipt", "kept.json"]);
    assert!(code == Some(0) && told.starts_with("result   Activated\n") && told.contains("not verified"), "{told}");
    serves(&site, &site.token(), "one");
    let activated = media(&site, "Activated");
    assert!(activated.len() == 1 && activated[0].starts_with("scp "), "{activated:?}");
    assert!(!site.path("pwned").exists() && !site.path("inbox/pwned").exists());

    let key = device_key::open(&site.path("state"), None).expect("there").public();
    fs::write(site.path("device.pub"), hex(key.raw())).expect("written");
    assert!(Receipt::verify(&fs::read(site.path("kept.json")).expect("kept"), &key).is_ok());
    let (code, told) = push(hostile, &["--device-key", "device.pub"]);
    assert!(
        code == Some(0) && told.starts_with("result   AlreadyInstalled\n") && !told.contains("not verified"),
        "{told}"
    );
    // The control: another device answers.
    fs::write(site.path("device.pub"), hex(tidegate::keys::SigningKey::generate().expect("random").public().raw()))
        .expect("written");
    let (code, told) = push(hostile, &["--device-key", "device.pub"]);
    assert!(code == Some(65) && told.contains("signed by key"), "{told}");

    fs::write(site.path("garbage.tgb"), b"garbage").expect("written");
    let (code, told) = push("garbage.tgb", &[]);
    assert!(code == Some(65) && told.starts_with("result   BadMagic\n"), "{told}");
    daemon.stop();
    let (code, told) = push("garbage.tgb", &["--wait", "0"]);
    assert!(code != Some(0) && told.contains("is tidegated running on ops@pump?"), "{told}");
}

#[test]
fn a_push_takes_no_option_for_a_host_and_no_path_that_a_shell_could_read() {
    let site = Site::new();
    fs::write(site.path("a.tgb"), b"").expect("written");
    let doubles = doubles(&site);
    for arguments in [
        ["push", "a.tgb", "--inbox", "/x", "--", "-oProxyCommand=touch pwned"],
        ["push", "ops@pump", "a.tgb", "--inbox", "/x;touch pwned", "--wait=0"],
        ["push", "ops@pump", "a.tgb", "--inbox", "relative", "--wait=0"],
        ["push", "ops@pump", "absent.tgb", "--inbox", "/x", "--wait=0"],
    ] {
        let output = tidegate(&site, &arguments, Some(&doubles));
        assert!(!output.status.success(), "{arguments:?}");
        assert!(!site.path("pwned").exists(), "{arguments:?}");
    }
}

#[cfg(feature = "hub")]
#[test]
fn what_the_hub_has_for_a_device_comes_by_itself() {
    use std::process::{Child, Stdio};
    struct Ended(Child);
    impl Drop for Ended {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    let mut site = Site::new();
    let hub = crate::site::free_address();
    let bundles = site.path("bundles");
    fs::create_dir(&bundles).expect("made");
    let settings = format!(
        "listen = \"{hub}\"\ndatabase = {:?}\nkey_file = {:?}\nenrol = \"any\"\nbundles = {bundles:?}\n",
        site.path("usage.sqlite"),
        site.path("policy/keys/hub.key"),
    );
    fs::write(site.path("hub.toml"), settings).expect("written");
    let put = |name: &str, bytes: &[u8]| {
        fs::write(bundles.join(".part"), bytes).expect("written");
        fs::rename(bundles.join(".part"), bundles.join(name)).expect("moved");
    };
    put("one.tgb", &site.bundle(upstream("one")));
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-hub"));
    command.args(["run", "--config", "hub.toml"]).current_dir(site.path(""));
    let _hub = Ended(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts"));

    site.more = format!(
        "[upload]\nhubs = [\"http://{hub}\"]\npull_interval = \"1h\"\nretry_base = \"50ms\"\n[spool]\nseal_after = \"200ms\"\n"
    );
    let daemon = site.start();
    let seq = |daemon: &crate::site::Daemon| match daemon.status().policy {
        tidegate::admin::PolicyStatus::Active { seq, .. } => Some(seq),
        tidegate::admin::PolicyStatus::SafeMode => None,
    };
    crate::site::until("the first is in force", || seq(&daemon).filter(|seq| *seq == 1));
    serves(&site, &site.token(), "one");
    put("two.tgb", &site.bundle(upstream("two")));
    // Long before the hour is over: the answer to the next usage file hints at it.
    let token = site.token();
    crate::site::until("the second is in force", || {
        crate::wire::get(site.gateway, "/quay/ping", Some(&token));
        seq(&daemon).filter(|seq| *seq == 2)
    });
    serves(&site, &site.token(), "two");
    assert_eq!(media(&site, "Activated"), ["pull 127.0.0.1", "pull 127.0.0.1"]);
    assert!(media(&site, "AlreadyInstalled").is_empty());
    daemon.stop();
}
