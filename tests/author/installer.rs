//! Releases from the desk to an installed package: systemd/release with the real dpkg in a root of its own, a systemd that is
//! a stub, and a power that goes at every step.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tidegate::exit;

use crate::program::{done, err, out, refused};
use crate::{PACKAGE, skipped};

/// The device's key, a seed of 32 bytes of 9, and another device's id.
const KEY: &str = "0909090909090909090909090909090909090909090909090909090909090909\n";
const OTHER: &str = "00000000000000000000000000000001";

/// When the power goes: never; before the n-th step of a run that changes anything; when dpkg has unpacked the new package
/// and not yet configured it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cut {
    Never,
    Before(u32),
    Unpacked,
}

/// A device: what dpkg has installed in `root`, what the daemon left in `state`, the installer's folder `own`.
struct Board {
    folder: tempfile::TempDir,
    script: PathBuf,
}

/// What stands for a program of the machine: where its arguments change anything (`counts`, a pattern) it counts itself, and
/// takes the power away where it is told to.
fn stub(counts: &str, work: &str) -> String {
    format!(
        "#!/bin/sh\nexec 9>&-\nread -r cut <\"$W/cut\"\ngone() {{ kill -9 \"$(/bin/cat \"$W/pid\")\"; exit 9; }}\n\
         case \" $* \" in {counts})\n\
         read -r n <\"$W/calls\"; n=$((n + 1)); echo $n >\"$W/calls\"; [ \"$n\" != \"$cut\" ] || gone ;;\nesac\n{work}\n"
    )
}

impl Board {
    /// With version 0.1.0 of the package, on which the operator has changed the settings.
    fn new() -> Option<Self> {
        if !Path::new("/usr/bin/dpkg-deb").exists() || !is_root() {
            skipped("no dpkg here, or not root");
            return None;
        }
        let script = Path::new(PACKAGE).join("systemd/release");
        let board = Self { folder: tempfile::tempdir().expect("a temporary folder"), script };
        let at = board.at();
        for folder in ["root/var/lib/dpkg/info", "root/var/lib/dpkg/updates", "state/release", "own", "stubs"] {
            fs::create_dir_all(at.join(folder)).expect("a folder");
        }
        fs::write(at.join("root/var/lib/dpkg/status"), "").expect("written");
        fs::write(at.join("root/var/lib/dpkg/available"), "").expect("written");
        fs::write(at.join("state/device.key"), KEY).expect("written");
        fs::set_permissions(at.join("state/device.key"), PermissionsExt::from_mode(0o600)).expect("its mode");
        for file in ["calls", "stamp", "bad", "uptime"] {
            fs::write(at.join(file), "0\n").expect("written");
        }
        fs::write(at.join("cut"), "never\n").expect("written");
        let dpkg = "case \"$cut $*\" in unpacked*\" -i new.deb\") /usr/bin/dpkg $there --unpack new.deb; gone ;; esac\n\
             exec /usr/bin/dpkg $there \"$@\"";
        let dpkg = format!(
            "there=\"--root=$W/root --force-script-chrootless --force-unsafe-io --force-not-root --log=/dev/null\"\n{dpkg}"
        );
        // Each question takes it seven seconds. READY unless the version that is installed is a bad one; each start has a stamp of its own.
        let systemctl = "case $1 in\n\
             --no-block) echo $(($(cat \"$W/stamp\") + 1)) >\"$W/stamp\" ;;\n\
             show) sleep 7; read -r is <\"$W/root/usr/bin/tidegated\"; read -r bad <\"$W/bad\"; read -r stamp <\"$W/stamp\"\n\
             if [ \"$is\" = \"$bad\" ]; then echo ActiveState=activating; else echo ActiveState=active; fi\n\
             echo MainPID=1; echo ExecMainStartTimestampMonotonic=$stamp ;;\nesac";
        let real = env!("CARGO_BIN_EXE_tidegate");
        for (name, counts, work) in [
            ("dpkg", "*' -i '* | *' --configure '*", dpkg.as_str()),
            ("dpkg-query", "nothing", "exec /usr/bin/dpkg-query --admindir=\"$W/root/var/lib/dpkg\" \"$@\""),
            ("dpkg-deb", "*' --build '*", "exec /usr/bin/dpkg-deb \"$@\""),
            ("systemctl", "*' --no-block '*", systemctl),
            ("sync", "*", ""),
            ("mv", "*", "exec /bin/mv \"$@\""),
            ("rm", "*", "exec /bin/rm \"$@\""),
            ("sleep", "nothing", "read -r up <\"$W/uptime\"; echo $((${up%.*} + $1)).5 >\"$W/uptime\""),
            ("tidegate", "*", &format!("exec {real} \"$@\"")),
        ] {
            fs::write(at.join("stubs").join(name), stub(counts, work)).expect("written");
            fs::set_permissions(at.join("stubs").join(name), PermissionsExt::from_mode(0o755)).expect("its mode");
        }
        board.desk(&["init", "p", "--deployment", "harbour", "--no-passphrase"]);
        let first = board.package("0.1.0");
        let installed = board.command("dpkg").arg("-i").arg(&first).output().expect("dpkg runs");
        assert!(installed.status.success(), "{}", err(&installed));
        fs::write(at.join("root/etc/tidegate.toml"), "the operator's\n").expect("written");
        Some(board)
    }

    fn at(&self) -> &Path {
        self.folder.path()
    }

    fn own(&self, name: &str) -> PathBuf {
        self.at().join("own").join(name)
    }

    fn desk(&self, arguments: &[&str]) -> String {
        done(self.at(), arguments)
    }

    fn command(&self, program: &str) -> Command {
        let at = self.at();
        let mut command = Command::new(at.join("stubs").join(program));
        command.env("W", at).env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", at.join("stubs").display()));
        command
    }

    /// A package of that version for this machine.
    fn package(&self, version: &str) -> PathBuf {
        let (tree, at) = (self.at().join("tree"), self.at());
        let deb = at.join(format!("tidegate_{version}.deb"));
        let _ = fs::remove_dir_all(&tree);
        for folder in ["DEBIAN", "usr/bin", "etc"] {
            fs::create_dir_all(tree.join(folder)).expect("a folder");
        }
        fs::write(tree.join("usr/bin/tidegated"), format!("{version}\n")).expect("written");
        symlink("tidegated", tree.join("usr/bin/tidegated-link")).expect("a link");
        fs::write(tree.join("etc/tidegate.toml"), format!("as {version} ships it\n")).expect("written");
        fs::write(tree.join("DEBIAN/conffiles"), "/etc/tidegate.toml\n").expect("written");
        let script = format!("#!/bin/sh\necho {version} \"$@\" >>\"$DPKG_ROOT/scripts.log\"\n");
        fs::write(tree.join("DEBIAN/postinst"), script).expect("written");
        fs::set_permissions(tree.join("DEBIAN/postinst"), PermissionsExt::from_mode(0o755)).expect("its mode");
        let control = format!(
            "Package: tidegate\nVersion: {version}\nArchitecture: {}\nMaintainer: Ada <ada@example.com>\n\
             Description: a gateway\n of several\n lines\n",
            architecture()
        );
        fs::write(tree.join("DEBIAN/control"), control).expect("written");
        let built =
            Command::new("dpkg-deb").args(["-Znone", "--root-owner-group", "--build"]).arg(&tree).arg(&deb).output();
        assert!(built.expect("dpkg-deb runs").status.success());
        deb
    }

    /// A signed release of that version.
    fn release(&self, version: &str, seq: &str, more: &[&str]) -> String {
        self.package(version);
        self.release_of(&format!("tidegate_{version}.deb"), version, seq, "release", more)
    }

    fn release_of(&self, package: &str, version: &str, seq: &str, key: &str, more: &[&str]) -> String {
        let file = format!("release-{seq}-{version}.tgb");
        let build = ["release", "build", package, "--version", version, "--seq", seq, "-o", &file];
        self.desk(&[&build[..], &["--root", "p/root.json", "--author", "ada"], more].concat());
        let key = format!("p/keys/{key}.key");
        self.desk(&["bundle", "sign", &file, "--key", &key, "--yes"]);
        file
    }

    /// As the daemon does it.
    fn hand_over(&self, file: &str, name: &str) {
        fs::copy(self.at().join(file), self.at().join("state/release").join(name)).expect("a copy");
    }

    /// systemd/release, once.
    fn run_until(&self, cut: Cut) -> Output {
        let cut = match cut {
            Cut::Never => "never".to_owned(),
            Cut::Before(step) => step.to_string(),
            Cut::Unpacked => "unpacked".to_owned(),
        };
        fs::write(self.at().join("cut"), cut + "\n").expect("written");
        fs::write(self.at().join("calls"), "0\n").expect("written");
        let mut run = Command::new("sh");
        run.envs(self.command("sh").get_envs().filter_map(|(name, value)| Some((name, value?))));
        let folder = |name: &str| self.at().join(name);
        run.env("TIDEGATE_RELEASE_FOLDER", folder("own")).env("TIDEGATE_RELEASE_STATE", folder("state"));
        run.env("TIDEGATE_RELEASE_PINNED", folder("p/root.json")).env("TIDEGATE_RELEASE_ROOT", folder("root"));
        run.env("TIDEGATE_RELEASE_UPTIME", folder("uptime"));
        run.args(["-c", "echo $$ >\"$W/pid\"; exec \"$0\""]).arg(&self.script).output().expect("it runs")
    }

    fn run(&self) -> Output {
        self.run_until(Cut::Never)
    }

    fn installed(&self) -> String {
        let asked = self.command("dpkg-query").args(["-W", "-f=${db:Status-Status} ${Version}", "tidegate"]).output();
        out(&asked.expect("dpkg-query runs"))
    }

    fn status(&self) -> Value {
        serde_json::from_slice(&fs::read(self.own("status.json")).expect("a status")).expect("JSON")
    }

    /// Offers a release, and tells how that ended.
    fn ends(&self, file: &str) -> (String, Option<i32>) {
        self.hand_over(file, "release.tgb");
        let run = self.run();
        assert!(!self.at().join("state/release/release.tgb").exists(), "it is not tried twice");
        self.is_tidy();
        (self.status()["result"].as_str().expect("a word").to_owned(), run.status.code())
    }

    fn is_bad(&self, version: &str) {
        fs::write(self.at().join("bad"), format!("{version}\n")).expect("written");
    }

    fn is_tidy(&self) {
        for left in ["step", "next", "new.deb", "work", "candidate", "previous.deb", "previous.part"] {
            assert!(!self.own(left).exists(), "{left} is left");
        }
    }

    /// The whole package of that version, and the operator's settings.
    fn has(&self, version: &str) {
        assert_eq!(self.installed(), format!("installed {version}"));
        let read = |name: &str| fs::read_to_string(self.at().join("root").join(name)).expect("it is there");
        assert_eq!(read("usr/bin/tidegated").trim_end(), version);
        assert_eq!(read("usr/bin/tidegated-link").trim_end(), version);
        assert_eq!(read("etc/tidegate.toml"), "the operator's\n");
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        _ => "armhf",
    }
}

#[test]
fn a_release_is_installed_and_stays_where_the_new_daemon_serves() {
    let Some(board) = Board::new() else { return };
    let second = board.release("0.2.0", "1", &[]);
    assert_eq!(board.ends(&second), ("Installed".into(), Some(0)));
    board.has("0.2.0");
    assert_eq!(board.ends(&second), ("AlreadyInstalled".into(), Some(0)));
    let mode = fs::metadata(board.own("seen")).expect("the daemon goes by it").permissions().mode() & 0o777;
    assert_eq!(mode, 0o644);
    let shown = board.desk(&["release", "status", "--folder", "own"]);
    assert!(shown.contains("AlreadyInstalled"), "{shown}");
    // The third goes back to the second by the package that was kept, not by one that is built again.
    let third = board.release("0.3.0", "2", &[]);
    board.is_bad("0.3.0");
    assert_eq!(board.ends(&third), ("RolledBack".into(), Some(65)));
    board.has("0.2.0");
}

#[test]
fn the_version_before_comes_back_where_the_new_daemon_does_not_serve_and_it_is_not_tried_again() {
    let Some(board) = Board::new() else { return };
    let second = board.release("0.2.0", "1", &[]);
    board.is_bad("0.2.0");
    assert_eq!(board.ends(&second), ("RolledBack".into(), Some(65)));
    board.has("0.1.0");
    let log = fs::read_to_string(board.at().join("root/scripts.log")).expect("the scripts ran");
    assert!(
        log.lines().any(|line| line.starts_with("0.1.0 configure 0.2.0")),
        "the rebuilt package has its scripts: {log}"
    );
    assert_eq!(board.ends(&second), ("KnownBad".into(), Some(65)));
    board.has("0.1.0");
    // The same package with a higher number, and a daemon that serves now.
    let again = board.release("0.2.0", "2", &[]);
    board.is_bad("none");
    assert_eq!(board.ends(&again), ("Installed".into(), Some(0)));
    board.has("0.2.0");
    assert_eq!(board.ends(&second), ("KnownBad".into(), Some(65)));
}

#[test]
fn the_two_minutes_are_the_machines_and_not_as_many_questions() {
    let Some(board) = Board::new() else { return };
    let second = board.release("0.2.0", "1", &[]);
    board.is_bad("0.2.0");
    assert_eq!(board.ends(&second), ("RolledBack".into(), Some(65)));
    board.has("0.1.0");
    let uptime = fs::read_to_string(board.at().join("uptime")).expect("it was read");
    let seconds: f64 = uptime.trim().parse().expect("seconds");
    // Two minutes in vain, and ten seconds of the version before; at most two questions more for each.
    assert!((130.0..165.0).contains(&seconds), "{seconds} s");
}

#[test]
fn a_power_cut_at_any_step_leaves_one_whole_version_and_the_next_start_ends_it() {
    let Some(board) = Board::new() else { return };
    let file = board.release("0.2.0", "1", &[]);
    board.hand_over(&file, "release.tgb");
    let (at, folders) = (board.at(), ["root", "state", "own"]);
    let copy = |from: &str, to: &str| {
        let copied = Command::new("cp").args(["-aT", from, to]).current_dir(at).status().expect("cp runs");
        assert!(copied.success());
    };
    folders.iter().for_each(|name| copy(name, &format!("first-{name}")));
    for (bad, ends, known) in [("none", "Installed", "AlreadyInstalled"), ("0.2.0", "RolledBack", "KnownBad")] {
        board.is_bad(bad);
        let mut cuts = 0;
        for cut in [Cut::Unpacked].into_iter().chain((1..).map(Cut::Before)) {
            for name in folders {
                fs::remove_dir_all(at.join(name)).expect("removed");
                copy(&format!("first-{name}"), name);
            }
            let first = board.run_until(cut);
            let was_cut = first.status.code().is_none();
            // The machine comes up again: the unit starts.
            let next = board.run();
            let why = format!("{cut:?}, {ends}:\n{}{}--\n{}{}", out(&first), err(&first), out(&next), err(&next));
            let status = board.status();
            assert_eq!((&status["result"], &status["version"]), (&ends.into(), &"0.2.0".into()), "{why}");
            board.has(if bad == "none" { "0.2.0" } else { "0.1.0" });
            board.is_tidy();
            assert!(!at.join("state/release/release.tgb").exists(), "{why}");
            if cuts % 4 == 0 {
                assert_eq!(board.ends(&file).0, known, "its number was seen: {why}");
            }
            if !was_cut {
                break;
            }
            cuts += 1;
        }
        assert!(cuts > 30, "{ends}: {cuts} cuts");
    }
}

#[test]
fn what_the_power_stops_again_and_again_is_given_up() {
    let Some(board) = Board::new() else { return };
    let second = board.release("0.2.0", "1", &[]);
    board.hand_over(&second, "release.tgb");
    for _ in 0..3 {
        assert!(board.run_until(Cut::Unpacked).status.code().is_none());
        assert_eq!(board.installed(), "unpacked 0.2.0");
    }
    let last = board.run();
    assert_eq!(board.status()["result"], "RolledBack", "{}{}", out(&last), err(&last));
    board.has("0.1.0");
}

#[test]
fn a_script_that_did_not_note_its_step_would_be_found_out() {
    // The negative control of the two before.
    let Some(mut board) = Board::new() else { return };
    let text = fs::read_to_string(&board.script).expect("the script");
    let careless = text.replacen("    step install \"$1\"\n", "", 1);
    assert_ne!(careless, text);
    board.script = board.at().join("careless");
    fs::write(&board.script, careless).expect("written");
    fs::set_permissions(&board.script, PermissionsExt::from_mode(0o755)).expect("its mode");
    let second = board.release("0.2.0", "1", &[]);
    board.hand_over(&second, "release.tgb");
    assert!(board.run_until(Cut::Unpacked).status.code().is_none());
    board.run();
    assert_eq!(board.status()["result"], "Refused");
    assert_eq!(board.installed(), "unpacked 0.2.0", "neither the one nor the other");
}

#[test]
fn root_believes_nothing_of_what_the_daemon_leaves() {
    let Some(board) = Board::new() else { return };
    let at = board.at();
    let good = board.release("0.2.0", "5", &[]);
    let whole = fs::read(at.join(&good)).expect("a release");
    let offer = |bytes: &[u8]| fs::write(at.join("offered.tgb"), bytes).expect("written");
    let mut wrong = whole.clone();
    *wrong.last_mut().expect("a byte") ^= 1;
    let policy = {
        board.desk(&["bundle", "build", "p", "-o", "policy.tgb"]);
        board.desk(&["bundle", "sign", "policy.tgb", "--key", "p/keys/policy.key", "--yes"]);
        fs::read(at.join("policy.tgb")).expect("a policy")
    };
    let mut cases = vec![
        ("BadMagic", b"garbage, and no bundle at all: it is far too short".to_vec()),
        ("SectionTooLarge", vec![0x89; 18 << 20]),
        ("EntryDigestMismatch", wrong),
        ("SemanticInvalid", policy),
    ];
    for part in 0..16 {
        cases.push(("Truncated", whole[..whole.len() * part / 16].to_vec()));
    }
    for (name, bytes) in &cases {
        offer(bytes);
        assert_eq!(board.ends("offered.tgb"), ((*name).into(), Some(65)), "{} bytes", bytes.len());
        board.has("0.1.0");
    }

    // Another role's keys sign nothing here, though they are the deployment's; nor does another deployment's release key.
    let unsigned = ["release", "build", "tidegate_0.2.0.deb", "--version", "0.2.0", "--seq", "6", "-o", "u.tgb"];
    board.desk(&[&unsigned[..], &["--root", "p/root.json", "--author", "ada"]].concat());
    assert_eq!(board.ends("u.tgb"), ("ThresholdNotMet".into(), Some(65)));
    let by_policy = ["bundle", "sign", "u.tgb", "--key", "p/keys/policy.key", "--yes"];
    assert!(refused(at, exit::DATA, &by_policy).contains("does not have the role release"));
    board.desk(&["init", "other", "--deployment", "quay", "--no-passphrase"]);
    board.desk(&[&unsigned[..], &["--root", "other/root.json", "--author", "ada"]].concat());
    board.desk(&["bundle", "sign", "u.tgb", "--key", "other/keys/release.key", "--yes"]);
    assert_eq!(board.ends("u.tgb"), ("ThresholdNotMet".into(), Some(65)));

    let elsewhere = board.release("0.2.0", "7", &["--device", OTHER]);
    assert_eq!(board.ends(&elsewhere), ("NotForThisDevice".into(), Some(65)));
    let old = board.release("0.2.0", "8", &["--expires", "2000-01-01T00:00:00Z"]);
    assert_eq!(board.ends(&old), ("Expired".into(), Some(65)));
    let lower = board.release("0.0.9", "9", &[]);
    assert_eq!(board.ends(&lower), ("Rollback".into(), Some(65)));
    let misnamed = board.release_of(&format!("{}=tidegate_0.2.0.deb", architecture()), "0.2.1", "10", "release", &[]);
    assert_eq!(board.ends(&misnamed), ("Refused".into(), Some(65)));
    board.has("0.1.0");

    // Links, in each place. What they lead to is sound, and is not touched.
    let handed = at.join("state/release/release.tgb");
    symlink(at.join(&good), &handed).expect("a link");
    board.run();
    assert_eq!(board.status()["result"], "SourceNotRegular");
    assert!(!handed.exists() && at.join(&good).exists());
    fs::rename(at.join("state/release"), at.join("elsewhere")).expect("moved");
    fs::copy(at.join(&good), at.join("elsewhere/release.tgb")).expect("a copy");
    symlink(at.join("elsewhere"), at.join("state/release")).expect("a link");
    let run = board.run();
    assert!(!run.status.success() && at.join("elsewhere/release.tgb").exists(), "{}", out(&run));
    board.has("0.1.0");
    fs::remove_file(at.join("state/release")).expect("removed");
    fs::rename(at.join("elsewhere"), at.join("state/release")).expect("moved back");

    // The control: it was none of the above that kept the good one out.
    assert_eq!(board.ends(&good), ("Installed".into(), Some(0)));
    board.has("0.2.0");
    let older = board.release("0.3.0", "4", &[]);
    assert_eq!(board.ends(&older), ("Rollback".into(), Some(65)));
    let other = board.release("0.3.0", "5", &[]);
    assert_eq!(board.ends(&other), ("Equivocation".into(), Some(65)));
}

#[test]
fn what_was_judged_is_what_is_installed() {
    // Stopped right after the judgement: the daemon, taken over, now puts something else there.
    let Some(board) = Board::new() else { return };
    let at = board.at();
    let (good, evil) = (board.release("0.2.0", "1", &[]), board.package("6.6.6"));
    let stopped = |board: &Board| {
        board.hand_over(&good, "release.tgb");
        (1..90).find(|step| {
            board.run_until(Cut::Before(*step));
            board.own("next").exists()
        })
    };
    assert!(stopped(&board).is_some());
    fs::copy(&evil, at.join("state/release/release.tgb")).expect("swapped");
    board.run();
    board.has("0.2.0");

    // The negative control: were it the daemon who can write the installer's folder, this is what would be installed.
    let good = board.release("0.3.0", "2", &[]);
    board.hand_over(&good, "release.tgb");
    assert!((1..90).any(|step| {
        board.run_until(Cut::Before(step));
        board.own("step").exists()
    }));
    fs::copy(&evil, board.own("new.deb")).expect("swapped");
    board.run();
    board.has("6.6.6");
}

#[test]
fn an_older_release_needs_a_permit_and_uses_it_up() {
    let Some(board) = Board::new() else { return };
    let at = board.at();
    let (one, two) = (board.release("0.2.0", "1", &[]), board.release("0.3.0", "2", &[]));
    for each in [&one, &two] {
        assert_eq!(board.ends(each).0, "Installed");
    }
    assert_eq!(board.ends(&one), ("Rollback".into(), Some(65)));
    let id = board.desk(&["release", "status", "--folder", "own"]);
    assert!(id.contains("Rollback"), "{id}");
    let device = fs::read_to_string(board.own("device")).expect("the device is noted");
    let permit = |seq: &str, name: &str, key: &str, device: &str| {
        let made = ["permit", "--device", device, "--from", &two, "--to", &one, "--seq", seq, "-o", name];
        board.desk(&[&made[..], &["--root", "p/root.json", "--author", "ada"]].concat());
        board.desk(&["bundle", "sign", name, "--key", &format!("p/keys/{key}.key"), "--yes"]);
    };
    permit("1", "elsewhere.tgb", "permit", OTHER);
    permit("2", "permit.tgb", "permit", device.trim());
    board.hand_over("elsewhere.tgb", "permit.tgb");
    assert_eq!(board.ends(&one), ("Rollback".into(), Some(65)), "a permit for another device");
    board.hand_over("permit.tgb", "permit.tgb");
    assert_eq!(board.ends(&one), ("Installed".into(), Some(0)));
    board.has("0.2.0");
    assert_eq!(board.ends(&two), ("Rollback".into(), Some(65)), "the way back is no way forth");
    board.hand_over("permit.tgb", "permit.tgb");
    assert_eq!(board.ends(&one).0, "AlreadyInstalled");
    let third = board.release("0.4.0", "3", &[]);
    assert_eq!(board.ends(&third).0, "Installed");
    assert_eq!(fs::read(at.join("state/device.key")).expect("untouched"), KEY.as_bytes());
}

#[test]
fn a_root_that_the_daemon_has_learned_of_is_followed_by_its_signatures_alone() {
    let Some(board) = Board::new() else { return };
    let at = board.at();
    let old = board.release("0.2.0", "1", &[]);
    board.desk(&["key", "new", "eve", "--no-passphrase"]);
    let rotate =
        ["root", "rotate", "p/root.json", "-o", "p/root-2.json", "--remove", "release", "--add", "release=eve.pub"];
    board.desk(&rotate);
    for key in ["root-1", "root-2"] {
        board.desk(&["root", "sign", "p/root-2.json", "--key", &format!("p/keys/{key}.key"), "--yes"]);
    }
    // As the daemon keeps it: the link of a policy that brought it.
    let (document, block) =
        (fs::read(at.join("p/root-2.json")).expect("a root"), fs::read(at.join("p/root-2.sigs")).expect("its block"));
    let length = u32::try_from(document.len()).expect("short").to_be_bytes();
    let link = [&length[..], &document, &block].concat();
    fs::create_dir_all(at.join("state/trust/roots")).expect("a folder");
    let kept = at.join("state/trust/roots/2");
    // One signature less than it takes: the pinned root counts on, and so does the old key.
    let first_block = [&[1_u8][..], &block[1..97]].concat();
    fs::write(&kept, [&length[..], &document, &first_block].concat()).expect("written");
    assert_eq!(board.ends(&old), ("Installed".into(), Some(0)));
    fs::write(&kept, &link).expect("written");
    let late = board.release("0.3.0", "2", &[]);
    assert_eq!(board.ends(&late), ("ThresholdNotMet".into(), Some(65)), "the old key was rotated out");
    // It is the installer's own from here on: the daemon cannot take it back.
    fs::remove_file(&kept).expect("removed");
    assert_eq!(board.ends(&late), ("ThresholdNotMet".into(), Some(65)));
    let build = ["release", "build", "tidegate_0.3.0.deb", "--version", "0.3.0", "--seq", "2", "-o", "new.tgb"];
    board.desk(&[&build[..], &["--root", "p/root-2.json", "--author", "ada"]].concat());
    board.desk(&["bundle", "sign", "new.tgb", "--key", "eve.key", "--root", "p/root-2.json", "--yes"]);
    assert_eq!(board.ends("new.tgb"), ("Installed".into(), Some(0)));
}

#[test]
fn where_no_package_is_installed_nothing_is_promised() {
    let Some(board) = Board::new() else { return };
    board.run();
    assert!(board.own("seen").exists(), "the daemon hears that releases are taken");
    assert!(board.command("dpkg").args(["--purge", "tidegate"]).output().expect("dpkg runs").status.success());
    let run = board.run();
    assert!(run.status.success() && !board.own("seen").exists(), "{}", out(&run));
    let told = refused(board.at(), exit::DATA, &["release", "status", "--folder", "own"]);
    assert!(told.contains("by hand"), "{told}");
}

#[test]
fn a_device_that_was_not_told_yet_whose_signatures_count_waits_for_that_without_failing() {
    let Some(board) = Board::new() else { return };
    let root = board.at().join("p/root.json");
    let away = board.at().join("root.away");
    fs::rename(&root, &away).expect("there");
    let run = board.run();
    assert!(run.status.success() && !board.own("seen").exists(), "{}", out(&run));
    assert!(out(&run).contains("nobody's releases are installed"), "{}", out(&run));
    fs::rename(&away, &root).expect("back");
    assert!(board.run().status.success() && board.own("seen").exists());
}

#[test]
fn a_release_is_built_of_packages_and_shown_before_it_is_signed() {
    let Some(board) = Board::new() else { return };
    let at = board.at();
    board.package("0.2.0");
    let build = |more: &[&str]| {
        let common = ["release", "build", "-o", "r.tgb", "--root", "p/root.json", "--author", "ada", "--seq", "1"];
        [&common[..], more].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let fails = |more: &[&str], code: u8, said: &str| {
        let arguments = build(more);
        let told = refused(at, code, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(told.contains(said) && !at.join("r.tgb").exists(), "{told}");
    };
    fails(&["tidegate_0.2.0.deb", "--version", "0.2.1"], exit::DATA, "has version \"0.2.0\"");
    fails(&["tidegate_0.2.0.deb", "tidegate_0.2.0.deb", "--version", "0.2.0"], exit::DATA, "two packages for");
    fails(&["mips=tidegate_0.2.0.deb", "--version", "0.2.0"], exit::DATA, "no architecture of a release");
    fails(&["arm64=p/root.json", "--version", "0.2.0"], exit::DATA, "not a Debian package");
    fails(&["arm64=tidegate_0.2.0.deb", "--version", "v1"], exit::DATA, "ManifestSchema");
    let others: Vec<String> =
        ["amd64", "arm64", "armhf"].iter().map(|name| format!("{name}=tidegate_0.2.0.deb")).collect();
    let more: Vec<&str> = others.iter().map(String::as_str).chain(["--version", "0.2.0"]).collect();
    let arguments = build(&more);
    let told = board.desk(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(told.contains("amd64, arm64, armhf"), "{told}");
    let shown = board.desk(&["bundle", "inspect", "r.tgb"]);
    assert!(shown.contains("version         0.2.0") && shown.contains("arm64: a package, "), "{shown}");
    let unasked = ["bundle", "sign", "r.tgb", "--key", "p/keys/release.key"];
    assert!(refused(at, exit::DATA, &unasked).contains("--previous"), "what it changes is to be looked at");
    board.desk(&["bundle", "sign", "r.tgb", "--key", "p/keys/release.key", "--first", "--yes"]);
    let judged = board.desk(&["bundle", "verify", "r.tgb", "--root", "p/root.json"]);
    assert!(judged.contains("accepted") && judged.contains("release"), "{judged}");
    let next = board.package("0.3.0");
    let next = [
        "release",
        "build",
        next.to_str().expect("a path"),
        "--version",
        "0.3.0",
        "--previous",
        "r.tgb",
        "-o",
        "s.tgb",
    ];
    let told = board.desk(&[&next[..], &["--root", "p/root.json", "--author", "ada"]].concat());
    assert!(told.contains("seq       2"), "{told}");
    let changes = board.desk(&["bundle", "diff", "r.tgb", "s.tgb"]);
    assert!(changes.contains("~ version: 0.2.0 → 0.3.0") && changes.contains("packages: "), "{changes}");
}
