//! Every mistake is told, with its place and the nearest right name, and all of them at once.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::{copy_of, fixture, problems_of};

/// Replaces one text of one file of the fixture; gives all problems.
fn after(file: &str, from: &str, to: &str) -> String {
    let folder = copy_of(&fixture("policy-source"));
    replace(folder.path(), file, from, to);
    problems_of(folder.path())
}

fn replace(folder: &Path, file: &str, from: &str, to: &str) {
    let path = folder.join(file);
    let text = fs::read_to_string(&path).expect("the file is there");
    assert!(text.contains(from), "{file} holds {from:?}");
    fs::write(path, text.replacen(from, to, 1)).expect("written");
}

#[test]
fn each_mistake_is_named_with_its_line_and_the_nearest_name() {
    for (file, from, to, told) in [
        // Unknown fields, in each kind of table
        (
            "deployment.toml",
            "author =",
            "autor =",
            "deployment.toml:2: unknown field in deployment.toml: \"autor\"; did you mean \"author\"?",
        ),
        (
            "targets.toml",
            "labels",
            "lables",
            "targets.toml:2: unknown field in a target: \"lables\"; did you mean \"labels\"?",
        ),
        (
            "plans.toml",
            "limits = [\"100",
            "limit = [\"100",
            "unknown field in a plan: \"limit\"; did you mean \"limits\"?",
        ),
        (
            "applications.toml",
            "consumer",
            "costumer",
            "applications.toml:2: unknown field in an application: \"costumer\"; did you mean \"consumer\"?",
        ),
        (
            "revocations.toml",
            "before = 2026",
            "befor = 2026",
            "revocations.toml:4: unknown field in a cut-off: \"befor\"; did you mean \"before\"?",
        ),
        (
            "apis/pets-1.toml",
            "base_path",
            "basepath",
            "apis/pets-1.toml:3: unknown field in an API: \"basepath\"; did you mean \"base_path\"?",
        ),
        (
            "apis/pets-1.toml",
            "methods",
            "method",
            "apis/pets-1.toml:9: unknown field in a route: \"method\"; did you mean \"methods\"?",
        ),
        (
            "apis/shared-upstreams.toml",
            "endpoints",
            "endpoint",
            "apis/shared-upstreams.toml:3: unknown field in an upstream: \"endpoint\"",
        ),
        (
            "issuers/site.toml",
            "max_lifetime",
            "max_life_time",
            "issuers/site.toml:4: unknown field in an issuer: \"max_life_time\"; did you mean \"max_lifetime\"?",
        ),
        ("issuers/site.toml", "kid =", "key_id =", "unknown field in a key: \"key_id\""),
        (
            "subscriptions.csv",
            "blocked",
            "blokked",
            "subscriptions.csv:1: unknown column \"blokked\"; did you mean \"blocked\"?",
        ),
        // Unknown names: every kind of reference
        (
            "deployment.toml",
            "\"north\"",
            "\"nort\"",
            "deployment.toml:3: unknown target \"nort\"; did you mean \"north\"?",
        ),
        (
            "apis/pets-2.toml",
            "plan = \"gold\"",
            "plan = \"glod\"",
            "apis/pets-2.toml:12: unknown plan \"glod\"; did you mean \"gold\"?",
        ),
        (
            "apis/pets-2.toml",
            "plan = \"bronze\"",
            "plan = \"bonze\"",
            "unknown plan \"bonze\"; did you mean \"bronze\"?",
        ),
        (
            "apis/pets-1.toml",
            "upstream = \"pets\"",
            "upstream = \"pet\"",
            "apis/pets-1.toml:4: unknown upstream \"pet\"; did you mean \"pets\"?",
        ),
        (
            "apis/pets-2.toml",
            "upstream = \"stock\"",
            "upstream = \"stok\"",
            "unknown upstream \"stok\"; did you mean \"stock\"?",
        ),
        (
            "apis/pets-2.toml",
            "\"wso2\"",
            "\"wso\"",
            "apis/pets-2.toml:6: unknown issuer \"wso\"; did you mean \"wso2\"?",
        ),
        ("applications.toml", "\"bronze\"", "\"brass\"", "applications.toml:7: unknown plan \"brass\""),
        ("revocations.toml", "\"site\"", "\"sitee\"", "unknown issuer \"sitee\"; did you mean \"site\"?"),
        (
            "subscriptions.csv",
            "Z till",
            "Z tall",
            "subscriptions.csv:2: unknown application \"Z tall\"; did you mean \"Z till\"?",
        ),
        ("subscriptions.csv", "stock", "stok", "subscriptions.csv:4: unknown API \"stok\"; did you mean \"stock\"?"),
        (
            "subscriptions.csv",
            "1.0",
            "1.1",
            "subscriptions.csv:2: unknown version of API \"pets\" \"1.1\"; did you mean \"1.0\"?",
        ),
        (
            "subscriptions.csv",
            "2.0",
            "",
            "subscriptions.csv:3: API \"pets\" has several versions; name one of: 1.0, 2.0",
        ),
        (
            "subscriptions.csv",
            "unlimited",
            "unlimted",
            "subscriptions.csv:3: unknown plan \"unlimted\"; did you mean \"unlimited\"?",
        ),
        // Values
        (
            "apis/pets-1.toml",
            "\"DELETE\"",
            "\"DELET\"",
            "apis/pets-1.toml:9: unknown method \"DELET\"; did you mean \"DELETE\"?",
        ),
        ("apis/pets-1.toml", "\"DELETE\"", "\"GET\"", "method GET stands twice"),
        ("apis/pets-1.toml", "\"/*\"", "\"/a/../b\"", "the path has a dot segment"),
        ("apis/pets-1.toml", "\"/*\"", "\"/*/x\"", "* stands alone, as the last segment"),
        (
            "apis/pets-2.toml",
            "max_body = \"64KiB\"",
            "max_body = \"64kb\"",
            "is not a number of bytes; write for example \"64KiB\"",
        ),
        (
            "apis/pets-2.toml",
            "subscription = false",
            "subscription = 0",
            "subscription must be true or false, not a integer",
        ),
        ("apis/stock.toml", "auth = \"none\"", "auth = \"non\"", "unknown auth \"non\"; did you mean \"none\"?"),
        ("apis/stock.toml", "auth = \"none\"", "", "an API whose routes want a token needs issuers"),
        ("apis/pets-1.toml", "/pets/v1", "pets/v1", "the path does not begin with /"),
        ("apis/shared-upstreams.toml", "http://", "https://", "an https endpoint needs ca"),
        ("apis/shared-upstreams.toml", "http://", "ftp://", "does not begin with http:// or https://"),
        ("issuers/site.toml", "audiences", "# audiences", "a strict issuer needs audiences"),
        ("issuers/site.toml", "issuers/site.jwks.json", "../site.jwks.json", "name a file inside the policy folder"),
        ("issuers/site.toml", "issuers/site.jwks.json", "issuers/site.jwk.json", "No such file"),
        ("issuers/legacy.toml", "PS256", "ES256", "AlgMismatch: alg does not fit the key"),
        ("targets.toml", "00112233445566778899aabbccddeeff", "0011", "expected 32 lower-case hex digits"),
        ("revocations.toml", "2027-01-01T00:00:00Z", "2027-01-01", "until must be a date and time with its offset"),
        ("subscriptions.csv", "true", "yes", "subscriptions.csv:3: blocked must be true or false"),
    ] {
        let problems = after(file, from, to);
        assert!(problems.contains(told), "{file}, {from:?} → {to:?}:\nwanted {told}\ngot {problems}");
    }
}

#[test]
fn what_is_there_twice_is_refused_with_both_places() {
    let again = |file: &str, from: &str, to: &str, told: &str| {
        let problems = after(file, from, to);
        assert!(problems.contains(told), "wanted {told}\ngot {problems}");
    };
    again(
        "subscriptions.csv",
        "unlimited,robot,\"pets\",2.0,true",
        "gold,Z till,pets,1.0,",
        "subscriptions.csv:3: \"Z till\" is already subscribed to \"pets\" \"1.0\" at subscriptions.csv:2",
    );
    again("applications.toml", "a-robot", "z-1", "consumer key \"z-1\" is already defined at applications.toml:3");
    again(
        "apis/pets-2.toml",
        "version = \"2.0\"",
        "version = \"1.0\"",
        "API \"pets\" \"1.0\" is already defined at apis/pets-1.toml:1",
    );
    again(
        "apis/shared-upstreams.toml",
        "[upstreams.pets]",
        "[upstreams.stock]",
        "upstream \"stock\" is already defined at",
    );
    again("issuers/legacy.toml", "name = \"wso2\"", "name = \"site\"", "issuer \"site\" is already defined at");
    let folder = copy_of(&fixture("policy-source"));
    let path = folder.path().join("apis/stock.toml");
    let text = fs::read_to_string(&path).expect("the file") + "\n[[routes]]\npath = \"/stock\"\nmethods = [\"GET\"]\n";
    fs::write(path, text).expect("written");
    let problems = problems_of(folder.path());
    assert!(problems.contains("GET /stock is already answered by the route at apis/stock.toml:7"), "{problems}");
}

#[test]
fn all_problems_of_all_files_are_told_at_once() {
    let folder = copy_of(&fixture("policy-source"));
    replace(folder.path(), "apis/pets-1.toml", "upstream = \"pets\"", "upstream = \"pet\"\nplam = \"gold\"\nfoo = 1");
    replace(folder.path(), "plans.toml", "50_000/day", "50_000/dya");
    replace(folder.path(), "subscriptions.csv", "stock", "stick");
    replace(folder.path(), "deployment.toml", "deployment", "deploiment");
    fs::write(folder.path().join("subscription.toml"), "").expect("written");
    let problems = problems_of(folder.path());
    assert!(problems.starts_with("7 problems") || problems.starts_with("8 problems"), "{problems}");
    for told in [
        "\"pet\"",
        "\"plam\"",
        "\"foo\"",
        "50_000/dya",
        "\"stick\"",
        "\"deploiment\"",
        "unknown file \"subscription.toml\"; did you mean \"subscriptions.toml\"?",
    ] {
        assert!(problems.contains(told), "wanted {told}\ngot {problems}");
    }
}

#[test]
fn a_private_weak_or_published_key_is_never_pinned() {
    let private = "jwks = '''{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\",\"d\":\"AA\"}'''";
    let weak =
        "jwks = '''{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}'''";
    for (key, told) in [
        (private, "PrivateKeyInBundle"),
        (weak, "WeakKey"),
        ("jwks = '''{\"kty\":\"oct\",\"k\":\"AA\"}'''", "PrivateKeyInBundle"),
        ("pem = 'x'", "KeyM"),
    ] {
        let problems = after("issuers/site.toml", "file = \"issuers/site.jwks.json\"", key);
        assert!(problems.contains(told), "wanted {told}\ngot {problems}");
        assert!(!problems.contains("\"AA\""), "nothing of a private key is shown: {problems}");
    }
}

#[test]
fn garbage_and_cut_files_are_refused_and_nothing_panics() {
    let files = [
        "deployment.toml",
        "plans.toml",
        "applications.toml",
        "revocations.toml",
        "targets.toml",
        "subscriptions.csv",
        "apis/pets-2.toml",
        "issuers/site.toml",
    ];
    for file in files {
        let folder = copy_of(&fixture("policy-source"));
        let path = folder.path().join(file);
        let whole = fs::read(&path).expect("the file");
        for cut in (0..whole.len()).step_by(7) {
            fs::write(&path, &whole[..cut]).expect("written");
            // A cut at a line's end may be a smaller folder that is right in itself.
            let _ = tidegate::cli::source::read(folder.path());
        }
        for garbage in [&b"\xff\xfe\x00"[..], b"= = =\n[[[", b"\0", &[b'['; 5_000], b"a = \"\\u0000\"", b"\"\"\"\n"] {
            fs::write(&path, garbage).expect("written");
            assert!(tidegate::cli::source::read(folder.path()).is_err(), "{file}: {}", garbage.escape_ascii());
        }
    }
}

#[test]
fn a_huge_file_is_refused_by_name_before_it_is_read() {
    let folder = copy_of(&fixture("policy-source"));
    let huge = fs::File::create(folder.path().join("apis/huge.toml")).expect("created");
    huge.set_len(8 << 30).expect("a sparse file of 8 GiB");
    let problems = problems_of(folder.path());
    assert!(problems.contains("apis/huge.toml: larger than 4194304 bytes"), "{problems}");
}

#[test]
fn a_folder_that_nobody_would_read_is_refused_with_the_nearest_name() {
    let folder = copy_of(&fixture("policy-source"));
    for known in ["keys", ".git"] {
        fs::create_dir(folder.path().join(known)).expect("a folder");
    }
    tidegate::cli::source::read(folder.path()).expect("keys and hidden folders are nobody's concern");
    fs::rename(folder.path().join("issuers"), folder.path().join("issuer")).expect("renamed");
    fs::create_dir_all(folder.path().join("apis/v2")).expect("a folder");
    fs::create_dir(folder.path().join("drafts")).expect("a folder");
    let problems = problems_of(folder.path());
    for told in [
        "issuer: unknown folder \"issuer\"; did you mean \"issuers\"?",
        "drafts: unknown folder \"drafts\"; known: apis, issuers, keys",
        "apis/v2: a folder in here is not read",
    ] {
        assert!(problems.contains(told), "wanted {told}\ngot {problems}");
    }
    let folder = copy_of(&fixture("policy-source"));
    fs::rename(folder.path().join("apis"), folder.path().join("api")).expect("renamed");
    let problems = problems_of(folder.path());
    assert!(problems.contains("api: unknown folder \"api\"; did you mean \"apis\"?"), "{problems}");
}

#[test]
fn a_link_is_followed_inside_the_folder_and_never_out_of_it() {
    const OUT: &str = "a link out of the policy folder";
    let outside = copy_of(&fixture("policy-source"));
    for file in ["issuers/site.jwks.json", "issuers/site.toml", "apis/stock.toml", "plans.toml", "subscriptions.csv"] {
        let folder = copy_of(&fixture("policy-source"));
        let path = folder.path().join(file);
        fs::remove_file(&path).expect("removed");
        symlink(outside.path().join(file), &path).expect("a link");
        let problems = problems_of(folder.path());
        assert!(problems.contains(OUT), "{file}: {problems}");
        fs::remove_file(&path).expect("removed");
        fs::copy(outside.path().join(file), folder.path().join("kept")).expect("a copy");
        symlink(folder.path().join("kept"), &path).expect("a link");
        tidegate::cli::source::read(folder.path()).unwrap_or_else(|error| panic!("{file}: {error}"));
    }
    let folder = copy_of(&fixture("policy-source"));
    fs::remove_dir_all(folder.path().join("issuers")).expect("removed");
    symlink(outside.path().join("issuers"), folder.path().join("issuers")).expect("a link");
    assert!(problems_of(folder.path()).contains(OUT), "a whole folder");
    let by_link = folder.path().join("inner");
    symlink(outside.path(), &by_link).expect("a link");
    tidegate::cli::source::read(&by_link).expect("the policy folder itself may be named by a link");
}
