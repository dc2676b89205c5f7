//! Usage by stick, through the programs as they ship: out of the spool, into the hub, and the receipts back.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rusqlite::Connection;
use serde_json::Value;
use tidegate::ids::hex;
use tidegate::store::device_key;

use crate::site::{Daemon, Site, free_address, skipped, until};
use crate::wire::{get, upstream};

pub(crate) const SEALS: &str = "[spool]\nseal_after = \"100ms\"\nseal_after_offline = \"100ms\"\n";

pub(crate) struct Told {
    pub(crate) code: Option<i32>,
    pub(crate) text: String,
}

impl Told {
    pub(crate) fn has(&self, what: &str) -> bool {
        self.text.contains(what)
    }

    fn json(&self) -> Value {
        serde_json::from_str(self.text.lines().next().unwrap_or_default()).unwrap_or_else(|_| panic!("{}", self.text))
    }
}

pub(crate) fn told(output: &Output) -> Told {
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Told { code: output.status.code(), text }
}

/// `tidegate spool …` on the device.
pub(crate) fn spool(site: &Site, arguments: &[&str]) -> Told {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.arg("spool").args(arguments);
    if arguments.first() != Some(&"verify") {
        command.args(["--config", "gate.toml"]);
    }
    told(&command.current_dir(site.path("")).output().expect("it runs"))
}

pub(crate) fn at_hub(site: &Site, arguments: &[&str]) -> Told {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-hub"));
    told(&command.args(arguments).current_dir(site.path("")).output().expect("it runs"))
}

pub(crate) fn import(site: &Site, stick: &str) -> Told {
    at_hub(site, &["import", "--config", "hub.toml", stick])
}

/// The hub's settings, with the site's device enrolled.
pub(crate) fn enrol(site: &Site) {
    let key = hex(device_key::open(&site.path("state"), None).expect("there").public().raw());
    let settings = format!(
        "listen = \"{}\"\ndatabase = {:?}\nkey_file = {:?}\n[[devices]]\nname = \"pier\"\nkey = \"{key}\"\n",
        fs::read_to_string(site.path("hub")).unwrap_or_else(|_| "127.0.0.1:0".into()),
        site.path("usage.sqlite"),
        site.path("policy/keys/hub.key"),
    );
    fs::write(site.path("hub.toml"), settings).expect("written");
}

/// A daemon with a policy whose upstream answers, and so many requests in at least `files` sealed files.
pub(crate) fn begun(site: &Site, files: u64) -> (Daemon, u64) {
    let daemon = site.start();
    assert_eq!(daemon.takes("one.tgb", &site.bundle(upstream("one"))), "Activated");
    (daemon, 0).traffic(site, files)
}

trait Traffic {
    fn traffic(self, site: &Site, files: u64) -> (Daemon, u64);
}

impl Traffic for (Daemon, u64) {
    fn traffic(self, site: &Site, files: u64) -> (Daemon, u64) {
        let (daemon, mut sent) = self;
        let (token, before) = (site.token(), daemon.status().spool.backlog_files);
        for more in 1..=files {
            for _ in 0..3 {
                assert_eq!(get(site.gateway, "/quay/ping", Some(&token)).status, 200);
                sent += 1;
            }
            until("it is sealed", || {
                let spool = daemon.status().spool;
                (spool.open_bytes == 0 && spool.backlog_files >= before + more).then_some(())
            });
        }
        (daemon, sent)
    }
}

pub(crate) fn counted(site: &Site) -> u64 {
    let db = Connection::open(site.path("usage.sqlite")).expect("it opens");
    db.query_row("SELECT count(*) FROM records", [], |row| row.get::<_, i64>(0)).expect("it answers").cast_unsigned()
}

pub(crate) fn backlog(daemon: &Daemon) -> u64 {
    daemon.status().spool.backlog_files
}

/// Every file on the stick with this ending.
pub(crate) fn files(stick: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![stick.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.expect("it lists").path();
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn usage_goes_out_by_stick_while_the_daemon_runs_and_the_receipts_empty_the_spool() {
    let mut site = Site::new();
    site.more = SEALS.into();
    let (daemon, sent) = begun(&site, 3);
    enrol(&site);
    for stick in ["one", "two"] {
        fs::create_dir(site.path(stick)).expect("made");
    }
    let refused = spool(&site, &["export", "one"]);
    assert!(refused.code == Some(64) && refused.has("--to usage-key.tgd"), "{}", refused.text);
    let listed = spool(&site, &["ls", "--json"]).json();
    assert_eq!((&listed["daemon"], &listed["streams"][0]["files"]), (&true.into(), &backlog(&daemon).into()));

    let exported = spool(&site, &["export", "one", "--clear"]);
    assert_eq!(exported.code, Some(0), "{}", exported.text);
    let first = files(&site.path("one"), "tgu").len();
    let (daemon, sent) = (daemon, sent).traffic(&site, 1);
    let second = spool(&site, &["export", "two", "--clear", "--json"]).json();
    assert_eq!(second["files"].as_u64(), Some(backlog(&daemon)));
    assert!(backlog(&daemon) > first as u64, "nothing leaves the spool by an export");
    let key = hex(device_key::open(&site.path("state"), None).expect("there").public().raw());
    let verified = spool(&site, &["verify", "two", "--device-key", &key]);
    assert!(verified.code == Some(0) && verified.has("signature good"), "{}", verified.text);

    // The later stick comes first: the same files on both count once.
    let imported = [import(&site, "two"), import(&site, "one")];
    assert!(imported.iter().all(|told| told.code == Some(0)), "{} {}", imported[0].text, imported[1].text);
    assert!(imported[0].has(": Taken") && !imported[1].has(": Taken") && imported[1].has(": Repeat"));
    assert_eq!(counted(&site), sent);
    let receipts = |stick| files(&site.path(stick), "tgr").iter().map(|path| fs::read(path).expect("there")).collect();
    let before: Vec<Vec<u8>> = receipts("two");
    assert_eq!(import(&site, "two").code, Some(0));
    assert_eq!(receipts("two"), before, "a second import gives the same receipts");

    let taken = spool(&site, &["receipts", "one"]);
    assert!(taken.code == Some(0) && taken.has(&format!("{first} files deleted")), "{}", taken.text);
    let taken = spool(&site, &["receipts", "two"]);
    assert!(taken.code == Some(0) && taken.has(": GoneBefore") && taken.has(": Deleted"), "{}", taken.text);
    until("nothing waits", || (backlog(&daemon) == 0).then_some(()));
    assert_eq!(counted(&site), sent);
    daemon.stop();
}

#[test]
fn what_comes_by_stick_and_by_the_link_at_once_counts_once() {
    let mut site = Site::new();
    let address = free_address();
    fs::write(site.path("hub"), address.to_string()).expect("written");
    site.more =
        format!("[upload]\nhubs = [\"http://{address}\"]\nretry_base = \"50ms\"\nretry_cap = \"100ms\"\n{SEALS}");
    let (daemon, sent) = begun(&site, 3);
    enrol(&site);
    fs::create_dir(site.path("stick")).expect("made");
    assert_eq!(spool(&site, &["export", "stick", "--clear"]).code, Some(0));
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-hub"));
    command.args(["run", "--config", "hub.toml"]).current_dir(site.path("")).stdout(Stdio::null());
    let mut hub = command.stderr(Stdio::null()).spawn().expect("it starts");
    // Beside the hub that runs and takes the same files.
    let imported = import(&site, "stick");
    until("the link has emptied the spool", || (backlog(&daemon) == 0).then_some(()));
    let taken = spool(&site, &["receipts", "stick"]);
    let counted = counted(&site);
    hub.kill().expect("it runs");
    hub.wait().expect("it is our child");
    assert_eq!((imported.code, taken.code), (Some(0), Some(0)), "{} {}", imported.text, taken.text);
    assert_eq!(counted, sent);
    daemon.stop();
}

#[test]
fn of_a_broken_stick_with_junk_on_it_what_is_whole_is_taken() {
    let mut site = Site::new();
    site.more = SEALS.into();
    let (daemon, sent) = begun(&site, 3);
    enrol(&site);
    let stick = site.path("stick");
    fs::create_dir(&stick).expect("made");
    assert_eq!(spool(&site, &["export", "stick", "--clear"]).code, Some(0));
    let whole = files(&stick, "tgu");
    assert!(whole.len() >= 3, "{whole:?}");
    let (stream, device) = (whole[0].parent().expect("a folder"), stick.join(daemon.status().device.to_string()));
    let last = fs::read(&whole[2]).expect("there");
    fs::write(&whole[2], &last[..last.len() - 1]).expect("cut off");
    fs::remove_file(device.join("manifest.json")).expect("there");
    fs::write(site.path("outside"), b"secret").expect("written");
    symlink(site.path("outside"), stream.join("900.tgu")).expect("a link");
    symlink(site.path(""), device.join("00000000000000aa")).expect("a link");
    assert!(Command::new("mkfifo").arg(stream.join("901.tgu")).status().expect("it runs").success());
    File::create(stream.join("902.tgu")).and_then(|file| file.set_len(1 << 40)).expect("a huge file");
    fs::copy(&whole[0], stream.join("903.tgu")).expect("under another's name");
    fs::write(stream.join("1.tgu.part"), b"half").expect("written");
    fs::write(stick.join("holiday.jpg"), b"").expect("written");
    let stranger = stick.join("00000000000000000000000000000001/0000000000000001");
    fs::create_dir_all(&stranger).expect("made");
    fs::write(stranger.join("1.tgu"), &last).expect("written");

    let imported = import(&site, "stick");
    assert_eq!(imported.code, Some(65), "{}", imported.text);
    for line in [
        "900.tgu: NotRegular",
        "901.tgu: NotRegular",
        "902.tgu: FileTooLarge",
        "903.tgu: Misplaced",
        "1.tgu: UnknownDevice",
        ": Truncated",
        "1.tgu.part: skipped",
        "00000000000000aa: skipped",
        "no manifest",
        ": Taken",
    ] {
        assert!(imported.has(line), "{line} is not in\n{}", imported.text);
    }
    assert!(!imported.has("holiday") && counted(&site) < sent, "{}", imported.text);
    let taken = spool(&site, &["receipts", "stick"]);
    assert_eq!(taken.code, Some(0), "{}", taken.text);
    assert_eq!(backlog(&daemon), 1, "the one that was not whole stays");
    assert_eq!(spool(&site, &["verify", "stick"]).code, Some(65));

    // A receipt that is not the hub's deletes nothing.
    assert_eq!(spool(&site, &["export", "stick", "--clear"]).code, Some(0));
    let forged = files(&stick, "tgr").remove(0);
    let mut bytes = fs::read(&forged).expect("there");
    bytes[60] ^= 1;
    fs::write(&forged, bytes).expect("written");
    let taken = spool(&site, &["receipts", "stick"]);
    assert!(taken.code == Some(65) && taken.has("SignatureInvalid") && backlog(&daemon) == 1, "{}", taken.text);
    import(&site, "stick");
    assert_eq!(spool(&site, &["receipts", "stick"]).code, Some(0));
    assert_eq!((backlog(&daemon), counted(&site)), (0, sent));
    daemon.stop();
}

#[test]
fn a_sealed_stick_is_for_the_hub_alone() {
    let mut site = Site::new();
    site.more = SEALS.into();
    let (daemon, sent) = begun(&site, 1);
    enrol(&site);
    fs::create_dir(site.path("stick")).expect("made");
    let made = at_hub(&site, &["usage-key", "--config", "hub.toml", "usage-key.tgd"]);
    assert!(made.code == Some(0) && made.has("usage key "), "{}", made.text);
    let mut altered = fs::read_to_string(site.path("usage-key.tgd")).expect("there");
    let digit = altered.find("\"public\":\"").expect("the key") + 10;
    let other = if altered.as_bytes()[digit] == b'0' { "1" } else { "0" };
    altered.replace_range(digit..=digit, other);
    fs::write(site.path("altered.tgd"), altered).expect("written");
    let refused = spool(&site, &["export", "stick", "--to", "altered.tgd"]);
    assert!(refused.code == Some(65) && refused.has("SignatureInvalid"), "{}", refused.text);
    let exported = spool(&site, &["export", "stick", "--to", "usage-key.tgd"]);
    assert_eq!(exported.code, Some(0), "{}", exported.text);
    assert!(files(&site.path("stick"), "tgu").is_empty() && !files(&site.path("stick"), "tgs").is_empty());

    let key = site.path("policy/keys/hub.usage-key");
    fs::rename(&key, site.path("away")).expect("there");
    let without = import(&site, "stick");
    assert!(without.code == Some(65) && without.has(": NoUsageKey"), "{}", without.text);
    assert_eq!(at_hub(&site, &["usage-key", "--config", "hub.toml", "other.tgd"]).code, Some(0));
    let another = import(&site, "stick");
    assert!(another.code == Some(65) && another.has(": SealedToAnotherKey"), "{}", another.text);
    fs::rename(site.path("away"), &key).expect("back");
    let imported = import(&site, "stick");
    assert!(imported.code == Some(0) && counted(&site) == sent, "{}", imported.text);
    assert_eq!(spool(&site, &["receipts", "stick"]).code, Some(0));
    assert_eq!(backlog(&daemon), 0);
    daemon.stop();
}

#[test]
fn an_export_that_is_killed_leaves_whole_files_and_the_next_one_ends_it() {
    let mut site = Site::new();
    site.more = SEALS.into();
    let (daemon, _) = begun(&site, 4);
    let stick = site.path("stick");
    for killed_after in 0..3 {
        let _ = fs::remove_dir_all(&stick);
        fs::create_dir(&stick).expect("made");
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(["spool", "export", "stick", "--clear", "--config", "gate.toml"]).current_dir(site.path(""));
        let mut export = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        until("it has come so far", || {
            let has_ended = export.try_wait().expect("it is our child").is_some();
            (has_ended || files(&stick, "tgu").len() >= killed_after).then_some(())
        });
        let _ = export.kill();
        export.wait().expect("it is our child");
        if killed_after > 0 {
            let verified = spool(&site, &["verify", "stick"]);
            assert_eq!(verified.code, Some(0), "{}", verified.text);
        }
        let again = spool(&site, &["export", "stick", "--clear", "--json"]).json();
        let all = again["files"].as_u64().zip(again["there"].as_u64()).map(|(new, there)| new + there);
        assert_eq!(all, Some(backlog(&daemon)));
        assert!(files(&stick, "part").is_empty() && files(&stick, "json").len() == 1);
    }
    daemon.stop();
}

#[test]
fn without_a_daemon_the_spool_is_locked_and_with_one_never_opened_twice() {
    let mut site = Site::new();
    site.more = SEALS.into();
    let (daemon, sent) = begun(&site, 2);
    enrol(&site);
    fs::create_dir(site.path("stick")).expect("made");
    // A daemon that is not where this configuration says is told by name, and its spool left alone.
    let gate = fs::read_to_string(site.path("gate.toml")).expect("there");
    fs::write(site.path("gate.toml"), gate.replace("gate.sock", "nobody.sock")).expect("written");
    let locked = spool(&site, &["export", "stick", "--clear"]);
    assert!(locked.code == Some(69) && locked.has("a daemon runs on this spool"), "{}", locked.text);
    fs::write(site.path("gate.toml"), gate).expect("written");
    daemon.kill();

    // Files that another user makes there the daemon could not open afterwards. Only root can see to this here.
    let folder = site.path("state/spool");
    if std::os::unix::fs::chown(&folder, Some(1), None).is_ok() {
        let foreign = spool(&site, &["ls"]);
        assert!(foreign.code == Some(77) && foreign.has("belongs to user 1"), "{}", foreign.text);
        std::os::unix::fs::chown(&folder, Some(0), None).expect("and back");
    }
    let listed = spool(&site, &["ls", "--json"]).json();
    assert_eq!((&listed["daemon"], &listed["streams"][0]["requests"]), (&false.into(), &sent.into()));
    assert_eq!(spool(&site, &["export", "stick", "--clear"]).code, Some(0));
    let imported = import(&site, "stick");
    assert!(imported.code == Some(0) && counted(&site) == sent, "{}", imported.text);
    assert_eq!(spool(&site, &["receipts", "stick"]).code, Some(0));
    let listed = spool(&site, &["ls"]);
    assert!(listed.code == Some(0) && listed.has("nothing waits"), "{}", listed.text);
    let daemon = site.start();
    until("the daemon has the spool again", || daemon.status().spool.stream.or(Some(String::new())));
    daemon.stop();
}

/// A file system of 64 KiB in memory, unmounted when dropped.
struct Tiny<'a>(&'a Path);

impl Drop for Tiny<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn a_full_stick_is_a_good_stick_with_fewer_files() {
    let mut site = Site::new();
    site.more = SEALS.into();
    let (daemon, sent) = begun(&site, 3);
    enrol(&site);
    let (small, rest) = (site.path("small"), site.path("rest"));
    [&small, &rest].into_iter().for_each(|folder| fs::create_dir(folder).expect("made"));
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&small).output();
    if !mount.is_ok_and(|mount| mount.status.success()) {
        return skipped("no file system can be mounted");
    }
    let _tiny = Tiny(&small);
    // Room for one file, of a block, and for no other.
    fs::write(small.join("holiday.jpg"), [0; 60 << 10]).expect("written");
    let exported = spool(&site, &["export", "small", "--clear"]);
    assert!(exported.code == Some(74) && exported.has("the stick is full"), "{}", exported.text);
    assert_eq!((files(&small, "tgu").len(), files(&small, "part").len()), (1, 0), "{}", exported.text);
    fs::remove_file(small.join("holiday.jpg")).expect("there"); // else no receipt fits either
    let imported = import(&site, "small");
    assert!(imported.code == Some(0) && imported.has("no manifest"), "{}", imported.text);
    assert_eq!(spool(&site, &["export", "rest", "--clear"]).code, Some(0));
    assert_eq!(import(&site, "rest").code, Some(0));
    for stick in ["small", "rest"] {
        let taken = spool(&site, &["receipts", stick]);
        assert_eq!(taken.code, Some(0), "{}", taken.text);
    }
    assert_eq!((backlog(&daemon), counted(&site)), (0, sent));
    daemon.stop();
}
