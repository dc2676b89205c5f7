//! The program itself, from an empty folder to a verdict.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use tidegate::bundle::keyfile::AuthorKey;
use tidegate::bundle::root::{Role, RootDocument};
use tidegate::exit;

pub(crate) fn tidegate(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate")).current_dir(folder).args(arguments).output().expect("it runs")
}

pub(crate) fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) fn done(folder: &Path, arguments: &[&str]) -> String {
    let output = tidegate(folder, arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}{}", out(&output), err(&output));
    out(&output)
}

pub(crate) fn refused(folder: &Path, code: u8, arguments: &[&str]) -> String {
    let output = tidegate(folder, arguments);
    assert_eq!(output.status.code(), Some(code.into()), "{arguments:?}: {}{}", out(&output), err(&output));
    out(&output) + &err(&output)
}

#[test]
fn from_init_to_an_accepted_bundle_and_token() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    let init = tidegate(at, &["init", "p", "--deployment", "har\"bour"]);
    assert_eq!(init.status.code(), Some(exit::DATA.into()), "a deployment's name has a form: {}", err(&init));
    let init = tidegate(at, &["init", "p", "--deployment", "harbour"]);
    assert!(init.status.success() && err(&init).contains("In earnest"), "{}", err(&init));
    for key in [
        "root-1.key",
        "root-2.key",
        "root-3.key",
        "policy.key",
        "hub.key",
        "revocation.key",
        "permit.key",
        "release.key",
        "issuer.pem",
    ] {
        let mode = fs::metadata(at.join("p/keys").join(key)).expect("the key").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }

    let built = done(at, &["bundle", "build", "p", "-o", "a.tgb", "--now", "1800000000", "--reason", "first"]);
    assert!(built.contains("seq     1"), "{built}");
    let verify = ["bundle", "verify", "a.tgb", "--root", "p/root.json", "--now", "1800000000"];
    assert!(refused(at, exit::DATA, &verify).contains("refused: ThresholdNotMet: 0 of 1"));
    let sign = ["bundle", "sign", "a.tgb", "--key", "p/keys/policy.key"];
    assert!(refused(at, exit::DATA, &sign).contains("what it changes is not known"), "nobody signs blindly");
    let unasked = refused(at, exit::DATA, &[&sign[..], &["--first"]].concat());
    let what_to_do = "not a terminal, so nobody can confirm; read what is shown above, then run the same command again";
    assert!(unasked.contains(what_to_do) && unasked.contains("with --confirm"), "{unasked}");
    assert!(unasked.contains("reason          first"), "{unasked}");
    let wrong = refused(at, exit::DATA, &["bundle", "sign", "a.tgb", "--key", "p/keys/hub.key", "--yes"]);
    assert!(wrong.contains("does not have the role policy"), "{wrong}");
    let signed = done(at, &["bundle", "sign", "a.tgb", "--key", "p/keys/policy.key", "--yes"]);
    assert!(signed.contains("1 of 1 signatures"), "{signed}");
    assert!(done(at, &verify).starts_with("accepted\n"));
    let again = refused(at, exit::DATA, &["bundle", "sign", "a.tgb", "--key", "p/keys/policy.key", "--yes"]);
    assert!(again.contains("has signed already"), "{again}");

    let shown = done(at, &["bundle", "inspect", "a.tgb", "--root", "p/root.json"]);
    for told in ["harbour", "signed by       policy", "/pets/{petId}", "stock-robot", "100/second burst 200"] {
        assert!(shown.contains(told), "wanted {told} in {shown}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&done(at, &["bundle", "inspect", "a.tgb", "--json"])).expect("JSON");
    assert_eq!(json["manifest"]["seq"], 1);
    assert_eq!(json["entries"]["subscriptions"]["keys"][0]["key"], "stock-robot");

    let minted = done(
        at,
        &[
            "token",
            "mint",
            "--key",
            "p/keys/issuer.pem",
            "--kid",
            "2026-01",
            "--iss",
            "https://tokens.example.com",
            "--aud",
            "edge",
            "--client",
            "till-1",
            "--sub",
            "alice",
            "--scope",
            "pets:read",
            "--ttl",
            "1h",
            "--now",
            "1800000000",
            "--claim",
            "n=1",
        ],
    );
    let token = minted.trim();
    let check = |now: &str| tidegate(at, &["token", "check", "--bundle", "a.tgb", "--now", now, token]);
    let good = check("1800000000");
    assert!(good.status.success() && out(&good).contains("till-1"), "{}{}", out(&good), err(&good));
    let late = check("1800004000");
    assert_eq!(
        (late.status.code(), out(&late).starts_with("refused: TokenExpired: ")),
        (Some(65), true),
        "{}",
        out(&late)
    );
    let (body, signature) = token.rsplit_once('.').expect("three parts");
    let first = if signature.starts_with('A') { 'B' } else { 'A' };
    let forged = format!("{body}.{first}{}", &signature[1..]);
    let forged = refused(at, exit::DATA, &["token", "check", "--bundle", "a.tgb", "--now", "1800000000", &forged]);
    assert!(forged.starts_with("refused: SignatureInvalid: "), "{forged}");
}

#[test]
fn a_policy_of_two_signers_is_refused_after_one_and_accepted_after_two_in_turn() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    let init = tidegate(at, &["init", "p", "--policy-keys", "3", "--policy-threshold", "2"]);
    assert!(init.status.success() && out(&init).contains("policy      2 of 3 keys"), "{}{}", out(&init), err(&init));
    assert!(!err(&init).contains("one key alone signs policy"), "{}", err(&init));
    let told: Vec<_> =
        ["p/keys/policy-1.key", "p/keys/policy-2.key"].iter().map(|key| out(&init).contains(*key)).collect();
    assert_eq!((told, at.join("p/keys/policy.key").exists()), (vec![true, true], false));

    done(at, &["bundle", "build", "p", "-o", "draft.tgb"]);
    let verify = |file: &str| ["bundle", "verify", file, "--root", "p/root.json"].map(str::to_owned);
    let refusal = |file: &str| refused(at, exit::DATA, &verify(file).each_ref().map(String::as_str));
    assert!(refusal("draft.tgb").contains("refused: ThresholdNotMet: 0 of 2"));
    // The file goes from the first signer to the second, and each has only a key of their own.
    let first = ["bundle", "sign", "draft.tgb", "-o", "one.tgb", "--key", "p/keys/policy-3.key", "--yes"];
    assert!(done(at, &first).contains("Pass it on: 1 more of the role must sign."));
    assert!(refusal("one.tgb").contains("refused: ThresholdNotMet: 1 of 2"));
    let second = ["bundle", "sign", "one.tgb", "-o", "two.tgb", "--key", "p/keys/policy-1.key", "--yes"];
    let signed = done(at, &second);
    assert!(signed.contains("signed by       policy-3") && signed.contains("It is complete."), "{signed}");
    let accepted = done(at, &verify("two.tgb").each_ref().map(String::as_str));
    assert!(accepted.starts_with("accepted\n") && accepted.contains("policy-1"), "{accepted}");
    // The same signer twice is still one.
    let again = ["bundle", "sign", "one.tgb", "--key", "p/keys/policy-3.key", "--yes"];
    assert!(refused(at, exit::DATA, &again).contains("has signed already"));
}

#[test]
fn init_makes_no_threshold_that_cannot_be_met() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    for (keys, threshold, told) in [
        ("2", "3", "3 of 2 policy keys cannot sign"),
        ("1", "0", "0 of 1 policy keys cannot sign"),
        ("0", "0", "0 of 0 policy keys cannot sign"),
        ("20", "17", "a threshold of 17 policy keys can never be met: a bundle has at most 16 signatures"),
    ] {
        let wrong = ["init", "p", "--policy-keys", keys, "--policy-threshold", threshold];
        assert!(refused(at, exit::DATA, &wrong).contains(told), "{keys} {threshold}");
        let root = ["init", "p", "--root-keys", keys, "--root-threshold", threshold];
        assert!(refused(at, exit::DATA, &root).contains(&told.replace("policy", "root")), "{keys} {threshold}");
        assert!(!at.join("p").exists(), "nothing was written");
    }
    done(
        at,
        &[
            "init",
            "p",
            "--root-keys",
            "16",
            "--root-threshold",
            "16",
            "--policy-keys",
            "17",
            "--policy-threshold",
            "16",
        ],
    );
}

#[test]
fn the_first_root_gives_every_role_to_a_key_of_its_own() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    let init = tidegate(at, &["init", "p"]);
    let warned = err(&init);
    for told in ["one key alone signs policy", "each of the other roles", "revocation, permit and release"] {
        assert!(warned.contains(told), "wanted {told} in {warned}");
    }
    let root = RootDocument::parse(&fs::read(at.join("p/root.json")).expect("the root")).expect("it is sound");
    let roles = [
        (Role::Root, 2, vec!["root-1", "root-2", "root-3"]),
        (Role::Policy, 1, vec!["policy"]),
        (Role::Hub, 1, vec!["hub"]),
        (Role::Revocation, 1, vec!["revocation"]),
        (Role::Permit, 1, vec!["permit"]),
        (Role::Release, 1, vec!["release"]),
    ];
    for (role, threshold, names) in roles {
        let keys = names.iter().map(|name| {
            let key = AuthorKey::open(&at.join(format!("p/keys/{name}.key"))).expect("a key file");
            assert_eq!(root.holder(key.key.public().id()), Some(*name));
            key.key.public()
        });
        assert!(root.role_keys(role).cloned().eq(keys), "{role:?}");
        assert_eq!(root.threshold(role), Some(threshold), "{role:?}");
    }
}

#[test]
fn a_changed_bundle_and_another_root_are_refused_by_name() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    done(at, &["init", "p"]);
    done(at, &["init", "q"]);
    done(at, &["bundle", "build", "p", "-o", "a.tgb"]);
    done(at, &["bundle", "sign", "a.tgb", "--key", "p/keys/policy.key", "--yes"]);
    let other = refused(at, exit::DATA, &["bundle", "verify", "a.tgb", "--root", "q/root.json"]);
    assert!(other.contains("refused: ThresholdNotMet: "), "{other}");
    let mut bytes = fs::read(at.join("a.tgb")).expect("the bundle");
    *bytes.last_mut().expect("not empty") ^= 1;
    fs::write(at.join("b.tgb"), &bytes).expect("written");
    let changed = refused(at, exit::DATA, &["bundle", "verify", "b.tgb", "--root", "p/root.json"]);
    assert!(changed.contains("refused: EntryDigestMismatch: "), "{changed}");
    assert!(done(at, &["bundle", "inspect", "b.tgb"]).contains("DOES NOT MATCH ITS DIGEST"));
}

#[test]
fn each_build_is_one_more_and_never_less() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    done(at, &["init", "p"]);
    assert!(done(at, &["bundle", "build", "p", "-o", "a.tgb"]).contains("seq     1"));
    assert!(done(at, &["bundle", "build", "p", "-o", "a.tgb", "--seq", "7"]).contains("seq     7"));
    assert!(done(at, &["bundle", "build", "p", "-o", "b.tgb", "--seq", "3"]).contains("seq     3"));
    assert!(done(at, &["bundle", "build", "p", "-o", "a.tgb"]).contains("seq     8"));
}

#[test]
fn keys_and_folders_are_never_written_over() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    done(at, &["init", "p"]);
    let before = fs::read(at.join("p/keys/policy.key")).expect("the key");
    let told = refused(at, exit::CANT_CREATE, &["init", "p"]);
    assert!(told.contains("not empty; nothing was written"), "{told}");
    assert_eq!(fs::read(at.join("p/keys/policy.key")).expect("the key"), before);
    done(at, &["token", "keygen", "--alg", "ES256", "--name", "k"]);
    let key = fs::read(at.join("k.pem")).expect("the key");
    let told = refused(at, exit::CANT_CREATE, &["token", "keygen", "--name", "k"]);
    assert!(told.contains("k.pem: there already"), "{told}");
    assert_eq!(fs::read(at.join("k.pem")).expect("the key"), key);
}

#[test]
fn the_private_key_of_the_keygen_example_lies_where_nothing_is_published_from() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    done(at, &["init", "policy"]);
    let help = done(at, &["token", "keygen", "--help"]);
    let example = help.split("Example:\n  tidegate ").nth(1).expect("an example").lines().next().expect("a line");
    let told = done(at, &example.split(' ').collect::<Vec<_>>());
    assert!(told.contains("private  policy/keys/"), "{told}");
    let ignored = fs::read_to_string(at.join("policy/keys/.gitignore")).expect("it stands beside the keys");
    assert_eq!(ignored, "*\n");
}

#[test]
fn a_generated_key_is_pinned_by_its_jwks() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    for alg in ["EdDSA", "ES256", "ES384"] {
        done(at, &["token", "keygen", "--alg", alg, "--name", alg, "--kid", "k1"]);
        let key = format!("{alg}.pem");
        let jwks = format!("{alg}.jwks.json");
        let token = done(
            at,
            &["token", "mint", "--key", &key, "--kid", "k1", "--iss", "i", "--aud", "a", "--now", "1800000000"],
        );
        let check =
            ["token", "check", "--jwks", &jwks, "--issuer", "i", "--aud", "a", "--now", "1800000000", token.trim()];
        assert!(done(at, &check).starts_with("accepted\n"), "{alg}");
        let other =
            ["token", "check", "--jwks", &jwks, "--issuer", "i", "--aud", "b", "--now", "1800000000", token.trim()];
        assert!(refused(at, exit::DATA, &other).starts_with("refused: AudienceMismatch: "), "{alg}");
    }
}

#[test]
fn an_import_is_ready_to_build() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    done(at, &["init", "p"]);
    let petstore = concat!(env!("CARGO_MANIFEST_DIR"), "/config/petstore.yaml");
    let import = ["import", "openapi", petstore, "--into", "p", "--name", "shop", "--upstream", "http://127.0.0.1:9"];
    let imported = tidegate(at, &import);
    assert!(imported.status.success() && out(&imported).contains("8 routes"), "{}", err(&imported));
    assert!(err(&imported).contains("subscriptions: an application needs one to this API"), "{}", err(&imported));
    assert!(refused(at, exit::CANT_CREATE, &import).contains("File exists"));
    assert!(done(at, &["bundle", "build", "p", "-o", "a.tgb"]).contains("2 APIs, 13 routes"));
}

/// The commands below one, by its help.
fn subcommands(help: &str) -> Vec<String> {
    let listed = help.split("\nCommands:\n").nth(1).unwrap_or_default().lines().take_while(|line| !line.is_empty());
    let name = |line: &str| {
        line.strip_prefix("  ").filter(|rest| !rest.starts_with(' '))?.split(' ').next().map(str::to_owned)
    };
    listed.filter_map(name).filter(|name| name != "help").collect()
}

#[test]
fn every_command_has_help_with_an_example_and_a_wrong_line_is_64() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    let mut with_example = Vec::new();
    let mut left = vec![Vec::new()];
    while let Some(command) = left.pop() {
        let words: Vec<_> = command.iter().map(String::as_str).chain(["--help"]).collect();
        let help = done(at, &words);
        match subcommands(&help) {
            below if below.is_empty() => {
                assert!(help.contains("Example:\n  tidegate ") || help.contains("Examples:\n  tidegate "), "{words:?}");
                with_example.push(command.join(" "));
            }
            below => left.extend(below.into_iter().map(|name| [&command[..], &[name]].concat())),
        }
    }
    for known in ["init", "bundle sign", "sideload", "token check"] {
        assert!(with_example.iter().any(|command| command == known), "{known} is not in {with_example:?}");
    }
    refused(at, exit::USAGE, &["bundle", "frobnicate"]);
    refused(at, exit::USAGE, &["bundle", "verify", "a.tgb"]);
}

#[test]
fn a_wrong_line_is_64_from_every_program_also_where_it_is_not_text() {
    let not_text = OsStr::from_bytes(b"\xff\xfe");
    let mut programs = vec![env!("CARGO_BIN_EXE_tidegate")];
    programs.extend(option_env!("CARGO_BIN_EXE_tidegate-hub"));
    for program in programs {
        for wrong in [OsStr::new("frobnicate"), OsStr::new("--frobnicate"), not_text] {
            let output = Command::new(program).arg(wrong).output().expect("it runs");
            assert_eq!(output.status.code(), Some(exit::USAGE.into()), "{program} {wrong:?}: {}", err(&output));
            assert!(!err(&output).contains("panicked"), "{program} {wrong:?}: {}", err(&output));
        }
        let help = Command::new(program).arg("--help").output().expect("it runs");
        assert_eq!((help.status.code(), out(&help).contains("Usage")), (Some(0), true), "{program}");
    }
}

#[test]
fn a_reader_that_goes_away_ends_a_command_quietly_and_a_full_disk_does_not() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    done(at, &["init", "p"]);
    done(at, &["bundle", "build", "p", "-o", "a.tgb"]);
    let closed = || {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        writer
    };
    for (arguments, code) in [
        (&["bundle", "inspect", "a.tgb"][..], exit::OK),
        (&["bundle", "check", "p"], exit::OK),
        (&["bundle", "sign", "--help"], exit::OK),
        // The answer is in the exit code too.
        (&["bundle", "verify", "a.tgb", "--root", "p/root.json"], exit::DATA),
        (&["bundle", "verify"], exit::USAGE),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        let output = command.current_dir(at).args(arguments).stdout(closed()).output().expect("it runs");
        let told = err(&output);
        assert_eq!(output.status.code(), Some(code.into()), "{arguments:?}: {told}");
        assert!(!told.contains("panicked") && !told.contains("roken pipe"), "{arguments:?}: {told}");
        let both = command.stdout(closed()).stderr(closed()).status().expect("it runs");
        assert_eq!(both.code(), Some(code.into()), "{arguments:?}");
    }
    let full = fs::File::options().write(true).open("/dev/full").expect("Linux has it");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let inspect = command.current_dir(at).args(["bundle", "inspect", "a.tgb"]).stdout(full);
    let output = inspect.output().expect("it runs");
    assert_eq!(output.status.code(), Some(exit::IO.into()), "{}", err(&output));
    assert!(err(&output).contains("standard output: "), "{}", err(&output));
}
