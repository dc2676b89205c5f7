//! Holds the source to docs/architecture.md: who may import whom, which crate is named where, what is pure, and form.
//! `ARCHITECTURE_ROOT=/path/to/checkout cargo test --test architecture` judges another checkout by these rules.

#[path = "architecture/rules.rs"]
mod rules;
#[path = "architecture/source.rs"]
mod source;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rules::{Tables, check};

fn tables() -> Tables {
    Tables::read(include_str!("../docs/architecture.md"))
}

fn root() -> PathBuf {
    std::env::var_os("ARCHITECTURE_ROOT").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

/// Every source file in `folder`, but those that cargo made: a package below `tests` may have a target folder of its own.
fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    if folder.join("CACHEDIR.TAG").exists() {
        return;
    }
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("a folder of the source can be read").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn the_source_keeps_every_rule() {
    let (root, tables) = (root(), tables());
    let mut files = Vec::new();
    rust_files(&root.join("src"), &mut files);
    rust_files(&root.join("tests"), &mut files);
    assert!(files.len() > 20, "the source was not found under {}", root.display());
    files.sort();
    let broken = files.iter().flat_map(|path| {
        let name = path.strip_prefix(&root).expect("it was found there").to_string_lossy().into_owned();
        check(&name, &fs::read_to_string(path).expect("source is UTF-8"), &tables)
    });
    let broken: Vec<String> = broken.map(|violation| violation.0).collect();
    assert!(broken.is_empty(), "{} broken rules\n{}\n", broken.len(), broken.join("\n"));
}

#[test]
fn what_cargo_made_is_not_judged() {
    let root = tempfile::tempdir().expect("a folder");
    for (folder, tag) in [("src", false), ("target", true), ("target/build", false)] {
        let folder = root.path().join(folder);
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("a.rs"), "").expect("a file");
        if tag {
            fs::write(folder.join("CACHEDIR.TAG"), "").expect("a file");
        }
    }
    let mut found = Vec::new();
    rust_files(root.path(), &mut found);
    assert_eq!(found, [root.path().join("src/a.rs")]);
}

#[test]
fn the_tables_are_whole() {
    let tables = tables();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).expect("src is there") {
        let name = entry.expect("src can be read").file_name().to_string_lossy().replace(".rs", "");
        assert!(name == "lib" || tables.imports.contains_key(&name), "src/{name} has no row in docs/architecture.md");
    }
    assert!(["sled", "hyper", "ring", "clap"].iter().all(|name| tables.crates.contains_key(*name)));
    assert_eq!(tables.imports.get("ids").map(Vec::len), Some(0), "the lowest ground imports nothing");
}

/// The targets that ship stand in a script, in two tables and in a document: a board that one of them forgot is not built,
/// not held to a budget, or not found.
#[test]
fn the_targets_are_the_same_wherever_they_stand() {
    let text = |name: &str| fs::read_to_string(root().join(name)).expect("it is there");
    let tables = |text: &str| -> toml::Table { text.parse().expect("it is TOML") };
    let script = text("cross/build.sh");
    let list =
        script.split("shipped=(").nth(1).and_then(|rest| rest.split(')').next()).expect("the script has the list");
    let shipped: BTreeSet<&str> = list.split_whitespace().collect();
    assert_eq!(shipped.len(), 6, "{shipped:?}");

    let (cross, budgets, document) =
        (tables(&text("Cross.toml")), tables(&text("cross/budgets.toml")), text("docs/device.md"));
    let in_cross: BTreeSet<&str> = cross["target"].as_table().expect("tables").keys().map(String::as_str).collect();
    assert_eq!(in_cross, shipped, "Cross.toml");
    let with_this_machine = &shipped | &BTreeSet::from(["x86_64-unknown-linux-gnu"]);
    assert_eq!(budgets.keys().map(String::as_str).collect::<BTreeSet<_>>(), with_this_machine, "cross/budgets.toml");
    let rows = document.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let in_document: BTreeSet<&str> =
        rows.filter(|cell| cell.contains("-unknown-linux-") && !cell.contains('`')).collect();
    assert_eq!(in_document, with_this_machine, "docs/device.md");
}

/// What `check` says of a file that is whole but for `body`.
fn said(name: &str, body: &str) -> Vec<String> {
    check(name, &format!("//! Head.\n{body}"), &tables()).into_iter().map(|violation| violation.0).collect()
}

#[test]
fn each_broken_rule_is_told_with_its_file_and_line() {
    let far = "\n".repeat(rules::LINES);
    let home = concat!("const P: &str = \"/wo", "rk/main\";");
    for (rule, name, body) in [
        ("import table", "src/gateway/pipeline.rs", "use crate::bundle::verify;"),
        (
            "import table",
            "src/gateway/pipeline.rs",
            "use crate::{ids::Digest,\n policy::{self, Policy}, store::{Cursor, self}};",
        ),
        ("import table", "src/gateway/mod.rs", "fn f() { super::disk::sync_folder(p); }"),
        ("import table", "src/gateway/tls/keys.rs", "use super::super::super::upload::Client;"),
        ("import table", "src/gateway/mod.rs", "mod inner { use super::super::hub::Hub; }"),
        ("import table", "src/gateway/meter.rs", "use crate::spool;"),
        ("import table", "src/gateway/meter.rs", "use crate::spool::handle::Spool;"),
        ("import table", "src/upload/worker.rs", "use crate::bundle::verify::Verified;"),
        ("import table", "src/bundle/mod.rs", "use crate::gateway as g;"),
        ("import table", "src/policy/mod.rs", "use crate::*;"),
        ("import table", "src/admin/mod.rs", "use crate::daemon::Daemon;"),
        ("import table", "src/cli/status.rs", "use crate::gateway::Gateway;"),
        ("import table", "src/bin/tidegated.rs", "fn main() { tidegate::spool::open(); }"),
        ("import table", "src/newcomer/mod.rs", ""),
        ("crate rule", "src/gateway/pool.rs", "fn f(db: &sled::Db) {}"),
        ("crate rule", "src/bundle/mod.rs", "use {std::io, hyper::Request};"),
        ("crate rule", "src/bundle/mod.rs", "use hyper_util::rt::TokioIo;"),
        ("crate rule", "src/gateway/pool.rs", "use ring::digest;"),
        ("crate rule", "src/config/mod.rs", "#[derive(clap::Parser)] struct A;"),
        ("crate rule", "src/spool/mod.rs", "use ::sled::Db;\nuse ::ring::rand;"),
        ("purity", "src/policy/mod.rs", "use std::{fmt, fs};"),
        ("purity", "src/token/mod.rs", "fn f() { std::time::SystemTime::now(); }"),
        ("purity", "src/throttle/mod.rs", "use std::time::Instant; fn f() { Instant::now(); }"),
        ("purity", "src/admission/mod.rs", "fn f() { crate::clock::Reading::now(); }"),
        ("purity", "src/admission/mod.rs", "fn f(since: std::time::Instant) { since.elapsed(); }"),
        ("purity", "src/admission/mod.rs", "fn f(since: &std::time::Instant) { std::time::Instant::elapsed(since); }"),
        ("purity", "src/throttle/mod.rs", "use std::time::Instant as I; fn f() { I::now(); }"),
        (
            "purity",
            "src/throttle/mod.rs",
            "use std::time as t; fn f(at: Option<u8>) { at.map_or_else(t::Instant::now, g); }",
        ),
        ("purity", "src/throttle/mod.rs", "type I = std::time::SystemTime; fn f() { <I>::now(); }"),
        ("purity", "src/token/mod.rs", "fn f() { time::OffsetDateTime::now_utc(); }"),
        ("purity", "src/admission/mod.rs", "use tokio as t;"),
        ("purity", "src/policy/mod.rs", "use std::net::{IpAddr, TcpStream};"),
        ("unsafe", "src/disk.rs", "fn f() { unsafe { g() } }"),
        ("unwrap", "src/disk.rs", "fn f() { g().unwrap(); }"),
        ("unwrap", "src/disk.rs", "fn f() { g()\n.expect(\" \"); }"),
        ("unwrap", "src/disk.rs", "#[cfg(not(test))] fn f() { g().unwrap(); }"),
        ("unwrap", "src/disk.rs", "#[cfg(test)] const A: [u8; 2] = [1, 2]; fn f() { g().unwrap(); }"),
        ("unwrap", "src/disk.rs", "#[cfg(test)] mod tests { fn a() { '}'; } } fn f<'a>(c: &'a str) { c.unwrap(); }"),
        ("test module", "src/disk.rs", "mod disk_tests;"),
        ("file length", "src/disk.rs", &far),
        ("file length", "tests/e2e/main.rs", &far),
        ("machine path", "src/disk.rs", home),
        ("machine path", "src/disk/tests.rs", home),
    ] {
        let said = said(name, body);
        let named =
            said.iter().any(|text| text.starts_with(&format!("{name}:")) && text.contains(&format!(": {rule}: ")));
        assert!(named, "{rule} not seen in {name}: {body}\n{said:?}");
    }
    let headless = check("src/spool/mod.rs", "use std::fmt;\n", &tables());
    assert!(headless.iter().any(|violation| violation.0.contains("module head")), "{headless:?}");
    let told = said("src/policy/mod.rs", "\nuse std::fmt;\nuse std::env;");
    assert!(told.len() == 1 && told[0].starts_with("src/policy/mod.rs:4: purity: std::env; take"), "{told:?}");
}

#[test]
fn what_keeps_the_rules_is_let_through() {
    for (name, body) in [
        ("src/gateway/pipeline.rs", "use crate::{admission::admit, policy::Policy, spool::Intake};\nuse super::tls;"),
        ("src/gateway/tls.rs", "use rustls::ServerConfig; use ring::hmac;"),
        (
            "src/gateway/a.rs",
            "// use crate::bundle;\n/* /* crate::store */ sled::Db */ const A: &str = \"crate::hub \\\" sled::\";",
        ),
        ("src/gateway/a.rs", "const A: &str = r#\"use crate::store; \" unsafe\"#; const B: char = '\"'; fn f<'a>() {}"),
        ("src/policy/mod.rs", "use std::net::IpAddr; use std::time::Duration; fn f(now: std::time::Instant) {}"),
        ("src/throttle/mod.rs", "fn f(at: At) { g(now, at.now, at.elapsed, at.now()); let now = elapsed(); }"),
        (
            "src/policy/mod.rs",
            "#[cfg(test)]\nmod tests { use crate::gateway::G; fn f() { std::fs::read(p).unwrap(); } }",
        ),
        ("src/policy/mod.rs", "#[cfg(test)]\n#[path = \"x_tests.rs\"]\nmod tests;"),
        ("src/policy/router_tests.rs", "use crate::bundle; fn f() { g().unwrap(); }"),
        ("src/config/mod.rs", "use crate::{gateway::Config as Gateway, admin::Config};"),
        ("src/cli/demo/mod.rs", "use crate::{daemon, hub::Hub};"),
        ("src/daemon/mod.rs", "use crate::{gateway::Gateway, bundle, spool};"),
        ("src/disk.rs", "fn f() { g().unwrap_or(1); g().expect(\"it was just checked\"); }"),
        ("src/disk.rs", concat!("/// See `tests/wo", "rk/main`.\nconst FREE: [&str; 1] = [\"framework/\"];")),
    ] {
        assert_eq!(said(name, body), Vec::<String>::new(), "{name}: {body}");
    }
}

#[test]
fn every_direct_dependency_has_its_reason_and_every_reason_its_dependency() {
    let manifest: toml::Table = include_str!("../Cargo.toml").parse().expect("Cargo.toml is TOML");
    let page = include_str!("../docs/dependencies.md");
    let reasons: Vec<(&str, &str)> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` |"))
        .map(|(name, reason)| (name, reason.trim()))
        .collect();
    let mut direct = BTreeSet::new();
    for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
        for (name, value) in manifest.get(table).and_then(toml::Value::as_table).into_iter().flatten() {
            direct.insert(name.as_str());
            let rows: Vec<&str> = reasons.iter().filter(|(row, _)| row == name).map(|(_, reason)| *reason).collect();
            assert!(!rows.is_empty(), "{name} of Cargo.toml has no row in docs/dependencies.md: say why it is there");
            assert!(rows.iter().all(|reason| reason.matches(" | ").count() >= 2), "{name}: why, instead of, features");
            for feature in value.get("features").and_then(toml::Value::as_array).into_iter().flatten() {
                let feature = feature.as_str().expect("a feature is a string");
                let told = rows.iter().any(|reason| reason.contains(&format!("`{feature}`")));
                assert!(told, "feature {feature} of {name} is not told in docs/dependencies.md");
            }
        }
    }
    let unused: Vec<&str> = reasons.iter().map(|(name, _)| *name).filter(|name| !direct.contains(name)).collect();
    assert!(unused.is_empty(), "docs/dependencies.md has rows for what Cargo.toml does not: {unused:?}");
}
