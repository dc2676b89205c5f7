//! What `bundle check` finds at the desk, each with the policy that is sound but for it.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tidegate::bundle::entry::HashedId;
use tidegate::bundle::manifest::{Author, Target};
use tidegate::bundle::pack::Draft;
use tidegate::bundle::root::RootDocument;
use tidegate::cli::source::{self, Source};

use crate::program::{done, refused};

/// A folder as `init` makes it.
fn started() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    done(folder.path(), &["init", "p", "--deployment", "harbour"]);
    folder
}

fn change(folder: &Path, file: &str, change: impl FnOnce(String) -> String) {
    let path = folder.join("p").join(file);
    let text = fs::read_to_string(&path).unwrap_or_default();
    fs::write(path, change(text)).expect("written");
}

/// The rules that are broken, errors first, by the JSON that the command prints.
fn found(folder: &Path, arguments: &[&str]) -> (String, Vec<(String, String)>) {
    let all = [&["bundle", "check"][..], arguments, &["--json"]].concat();
    let output = crate::program::tidegate(folder, &all);
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let verdict = text(&said["verdict"]);
    assert_eq!(output.status.code(), Some(if verdict == "sound" { 0 } else { 65 }));
    let findings = said["findings"].as_array().expect("a list");
    (verdict, findings.iter().map(|finding| (text(&finding["severity"]), text(&finding["rule"]))).collect())
}

#[test]
fn a_new_folder_is_sound_as_a_folder_and_as_a_bundle() {
    let folder = started();
    assert_eq!(found(folder.path(), &["p"]), ("sound".into(), vec![]));
    done(folder.path(), &["bundle", "build", "p", "-o", "a.tgb"]);
    assert_eq!(done(folder.path(), &["bundle", "check", "a.tgb"]), "sound: 0 error(s), 0 warning(s)\n");
}

#[test]
fn each_rule_finds_what_it_is_for_and_nothing_else_does() {
    type Change = fn(&Path);
    let cases: [(&str, &str, Change); 10] = [
        ("error", "PlanUnreachable", |at| change(at, "plans.toml", |text| text + "\n[plans.spare]\nlimits = []\n")),
        ("error", "RouteUnreachable", |at| {
            change(at, "subscriptions.toml", |_| String::new());
            change(at, "apis/example.toml", |text| format!("plan = \"gold\"\n{text}"));
        }),
        ("error", "CutOffInFuture", |at| {
            change(at, "revocations.toml", |text| {
                text + "\n[[cut_offs]]\nissuer = \"site\"\nsubject = \"alice\"\nbefore = 2100-01-01T00:00:00Z\n"
            });
        }),
        ("warning", "ApplicationWithoutKey", |at| {
            change(at, "applications.toml", |text| text + "\n[applications.mute]\nplan = \"gold\"\n");
        }),
        ("warning", "NeedsTrustedTime", |at| {
            change(at, "apis/example.toml", |text| {
                text + "\n[[routes]]\npath = \"/late\"\nmethods = [\"GET\"]\nuncertain = \"deny\"\n"
            });
        }),
        ("warning", "TemplatesOverlap", |at| {
            change(at, "apis/example.toml", |text| {
                text + "\n[[routes]]\npath = \"/a/{id}\"\nmethods = [\"GET\"]\n\n[[routes]]\npath = \"/a/open\"\nmethods = [\"GET\"]\nauth = \"none\"\n"
            });
        }),
        // Open below another API, though each is sound by itself.
        ("warning", "TemplatesOverlap", |at| {
            change(at, "apis/example.toml", |text| text + "\n[[routes]]\npath = \"/a/b/{id}\"\nmethods = [\"GET\"]\n");
            let open = "name = \"open\"\nversion = \"1\"\nbase_path = \"/example/1.0.0/a\"\nupstream = \"example\"\n";
            change(at, "apis/open.toml", |_| {
                format!("{open}auth = \"none\"\n\n[[routes]]\npath = \"/*\"\nmethods = [\"GET\"]\n")
            });
        }),
        ("error", "DemoKeysAllowed", |at| {
            change(at, "issuers/site.toml", |text| format!("allow_demo_keys = true\n{text}"));
        }),
        ("error", "SourceInvalid", |at| {
            let twice = "\n[[routes]]\npath = \"/pets/{other}\"\nmethods = [\"GET\"]\nscopes = [\"pets:write\"]\n";
            change(at, "apis/example.toml", |text| text + twice);
        }),
        ("warning", "IssuerUnused", |at| {
            let site = fs::read_to_string(at.join("p/issuers/site.toml")).expect("it is there");
            change(at, "issuers/spare.toml", |_| {
                site.replace("https://tokens.example.com", "https://spare.example.com")
            });
        }),
    ];
    for (severity, rule, harm) in cases {
        let folder = started();
        harm(folder.path());
        let (verdict, findings) = found(folder.path(), &["p"]);
        println!("{rule}: {findings:?}");
        assert_eq!(findings, [(severity.to_owned(), rule.to_owned())]);
        assert_eq!(verdict, if severity == "error" { "refused" } else { "sound" }, "{rule}");
        refused(folder.path(), 65, &["bundle", "check", "p", "--strict"]);
    }
}

#[test]
fn a_bundle_is_judged_by_its_dates_at_the_moment_that_is_asked_for() {
    let folder = started();
    change(folder.path(), "deployment.toml", |text| format!("valid_for = \"90d\"\n{text}"));
    let day = 86_400;
    let build = ["bundle", "build", "p", "-o", "a.tgb", "--now", "1800000000"];
    done(folder.path(), &build);
    for (now, rule) in [(-1, "IssuedInFuture"), (0, ""), (77, "ExpiresSoon"), (90, "Expired"), (1000, "Expired")] {
        let now = (1_800_000_000 + now * day).to_string();
        let (verdict, findings) = found(folder.path(), &["a.tgb", "--now", &now]);
        let rules: Vec<_> = findings.iter().map(|(_, rule)| rule.as_str()).collect();
        assert_eq!(rules, if rule.is_empty() { vec![] } else { vec![rule] }, "{now}");
        assert_eq!(verdict == "sound", ["", "ExpiresSoon"].contains(&rule));
    }
}

#[test]
fn what_is_no_policy_is_refused_with_its_reason() {
    let folder = started();
    fs::write(folder.path().join("bad.tgb"), b"\x89TGB").expect("written");
    assert!(refused(folder.path(), 65, &["bundle", "check", "bad.tgb"]).contains("the preamble alone has 32"));
    refused(folder.path(), 74, &["bundle", "check", "none.tgb"]);
}

/// The bundle `p.tgb` of the folder's policy after `harm`, which the source would not let anybody write.
pub(crate) fn harmed(folder: &Path, harm: impl FnOnce(&mut Source)) {
    let mut source = source::read(&folder.join("p")).expect("a sound folder");
    harm(&mut source);
    let root = RootDocument::parse(&fs::read(folder.join("p/root.json")).expect("the root")).expect("it is sound");
    let entries = source.entries().into_iter().map(|(kind, bytes)| (kind, (kind.name().to_owned(), bytes)));
    let draft = Draft {
        author: Author { who: "ada".into(), tool: "tests".into(), reason: String::new() },
        target: Target::All,
        seq: 1,
        security_floor: 0,
        issued_at: 1_800_000_000,
        expires_at: None,
        base: None,
        requires: Vec::new(),
        entries: entries.collect(),
    };
    fs::write(folder.join("p.tgb"), draft.assemble(&root).expect("it has a form")).expect("written");
}

#[test]
fn a_bundle_that_no_folder_makes_is_checked_as_it_is() {
    type Harm = fn(&mut Source);
    type Findings = &'static [(&'static str, &'static str)];
    let cases: [(&str, Findings, Harm); 5] = [
        ("nothing", &[], |_| ()),
        ("an API without routes", &[("error", "ApiWithoutRoutes")], |source| {
            let mut api = source.routes.apis[0].clone();
            (api.name, api.base_path, api.plan, api.routes) = ("z".into(), "/z".into(), None, Vec::new());
            source.routes.apis.push(api);
        }),
        // A device refuses it too, by the name that the journal has.
        ("an issuer without keys", &[("error", "IssuerWithoutKeys"), ("error", "SemanticInvalid")], |source| {
            source.issuers.issuers[0].keys.clear();
        }),
        ("a small-order key", &[("error", "WeakKey")], |source| {
            source.issuers.issuers[0].keys[0].jwk.x = Some("A".repeat(43));
        }),
        ("a list that fills its entry", &[("warning", "NearLimit")], |source| {
            let row = |hash| HashedId { hash, until: i64::MAX };
            source.revocations.ids = (1..=850_000).map(row).collect();
        }),
    ];
    for (what, wanted, harm) in cases {
        let folder = started();
        harmed(folder.path(), harm);
        let (verdict, findings) = found(folder.path(), &["p.tgb", "--now", "1800000000"]);
        let wanted: Vec<_> =
            wanted.iter().map(|(severity, rule)| ((*severity).to_owned(), (*rule).to_owned())).collect();
        assert_eq!(findings, wanted, "{what}");
        let is_refused = wanted.iter().any(|(severity, _)| severity == "error");
        assert_eq!(verdict, if is_refused { "refused" } else { "sound" }, "{what}");
    }
}
