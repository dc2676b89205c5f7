use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;

use serde::Deserialize;

use super::*;
use crate::units::{Bytes, Span};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Sample {
    name: String,
    part: Part,
    blocks: Vec<Inner>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Part {
    wait: Span,
    limit: Bytes,
    #[serde(skip_serializing_if = "Option::is_none")]
    extra: Option<u8>,
    inner: Inner,
}

#[derive(Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Inner {
    count: u32,
    names: BTreeMap<String, u8>,
}

impl Default for Sample {
    fn default() -> Self {
        Self { name: "n".into(), part: Part::default(), blocks: Vec::new() }
    }
}

impl Default for Part {
    fn default() -> Self {
        Self { wait: Span::secs(5), limit: Bytes(64), extra: None, inner: Inner::default() }
    }
}

fn loaded(main: &str, drop_in: Option<&str>, environment: &[(&str, &str)]) -> Result<Sample, Problems> {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("t.toml");
    fs::write(&path, main).expect("written");
    if let Some(text) = drop_in {
        fs::create_dir(folder.path().join("t.d")).expect("made");
        fs::write(folder.path().join("t.d/50-site.toml"), text).expect("written");
    }
    let Loaded { settings, problems } =
        load(&path, environment.iter().map(|(name, value)| (name.into(), value.into())));
    if problems.is_empty() { Ok(settings.expect("no problem, so there are settings")) } else { Err(Problems(problems)) }
}

#[test]
fn later_sources_win_key_by_key() {
    let config = loaded(
        "name = 'a'\n[part]\nwait = '1s'\nlimit = '1KiB'\n",
        Some("[part]\nwait = '2s'\n"),
        &[("TIDEGATE_PART__EXTRA", "7"), ("TIDEGATE_UNRELATED", "x"), ("PATH", "x")],
    )
    .expect("a good configuration");
    let part = Part { wait: Span::secs(2), limit: Bytes(1024), extra: Some(7), ..Part::default() };
    assert_eq!(config, Sample { name: "a".into(), part, ..Sample::default() });
}

#[test]
fn an_empty_file_gives_the_defaults() {
    assert_eq!(loaded("", None, &[]), Ok(Sample::default()));
}

#[test]
fn all_problems_come_at_once_each_with_its_key_and_its_source() {
    let problems = loaded(
        "nam = 'a'\nname = 5\n[part]\nwait = 'soon'\nlimit = '1KiB'\n",
        Some("[part]\nlimti = '2KiB'\n[prat]\nx = 1\n"),
        &[("TIDEGATE_PART__WAIT", "later")],
    )
    .expect_err("six mistakes");
    let text = problems.to_string();
    assert_eq!(problems.0.len(), 6, "{text}");
    for part in [
        "nam: unknown; did you mean \"name\"?",
        "name: invalid type",
        "part.wait: \"soon\"",
        "did you mean \"limit\"?",
        "did you mean \"part\"?",
        "TIDEGATE_PART__WAIT",
    ] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
}

#[test]
fn each_mistake_in_each_block_of_a_list_is_told() {
    let text = "[[blocks]]\ncount = -1\n[[blocks]]\ncount = 1\n[[blocks]]\ncuont = 1\nnames = 5\n";
    let problems = loaded(text, None, &[]).expect_err("three mistakes");
    let told: Vec<_> = problems.0.iter().map(|problem| (problem.key.as_str(), problem.message.as_str())).collect();
    assert_eq!(told.len(), 3, "{problems}");
    for ((key, message), starts) in told.into_iter().zip(["block 1: count: ", "block 3: cuont: ", "block 3: names: "]) {
        assert!(key == "blocks" && message.starts_with(starts), "{problems}");
    }
    let good = loaded("[[blocks]]\ncount = 1\n[[blocks]]\ncount = 2\n", None, &[]).expect("no mistake");
    assert_eq!(good.blocks.iter().map(|block| block.count).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(loaded("blocks = 5\n", None, &[]).expect_err("no list").0.len(), 1);
}

#[test]
fn what_is_not_toml_is_named_with_its_place() {
    let text = loaded("[part\nwait = 1", None, &[]).expect_err("not TOML").to_string();
    assert!(text.contains("t.toml") && text.contains("line 1"), "{text}");
    let huge = "#".repeat(300 * 1024);
    assert!(loaded(&huge, None, &[]).expect_err("too large").to_string().contains("larger than"));
}

#[test]
fn a_missing_file_is_a_problem_not_a_default() {
    let missing = load::<Sample>(Path::new("absent/t.toml"), std::iter::empty());
    assert!(missing.settings.is_none() && missing.problems[0].source == "absent/t.toml", "{missing:?}");
}

#[test]
fn the_environment_reaches_every_level_and_leaves_the_names_of_others_alone() {
    let config = loaded(
        "name = 'a'\n",
        None,
        &[
            ("TIDEGATE_NAME", "from outside"),
            ("TIDEGATE_PART__INNER__COUNT", "9"),
            ("TIDEGATE_PART__INNER__NAMES__ONE", "1"),
            ("TIDEGATE_PART", "x"),
            ("TIDEGATE_NAMES", "x"),
            ("TIDEGATE_BUILD_TIME", "x"),
            ("TIDEGATE_CROSS_CACHE", "x"),
            ("TIDEGATE_CI_CACHE", "x"),
            ("tidegate_name", "x"),
        ],
    );
    let inner = Inner { count: 9, names: [("one".into(), 1)].into() };
    assert_eq!(
        config,
        Ok(Sample { name: "from outside".into(), part: Part { inner, ..Part::default() }, ..Sample::default() })
    );

    let wrong = [("TIDEGATE_PART__INNER__CUONT", "9"), ("TIDEGATE_PRAT__WAIT", "1s"), ("TIDEGATE_PART__INNER", "{}")];
    let text = loaded("", None, &wrong).expect_err("three mistakes").to_string();
    for part in ["part.inner.cuont: unknown; did you mean \"count\"?", "did you mean \"part\"?", "is a section"] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
}

#[test]
fn what_is_not_utf_8_in_the_environment_matters_only_where_it_is_ours() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("t.toml");
    fs::write(&path, "").expect("written");
    let raw = || OsString::from_vec(vec![b'a', 0xff]);
    let environment = [("PATH".into(), raw()), (raw(), "x".into()), ("TIDEGATE_DIR".into(), raw())];
    let loaded = load::<Sample>(&path, environment.into_iter());
    assert_eq!((loaded.settings, loaded.problems), (Some(Sample::default()), vec![]));
    let loaded = load::<Sample>(&path, [("TIDEGATE_PART__WAIT".into(), raw())].into_iter());
    assert_eq!(loaded.problems.first().map(|problem| problem.key.as_str()), Some("part.wait"), "{loaded:?}");
}

#[test]
fn what_is_good_is_given_on_beside_the_problems() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("t.toml");
    fs::write(&path, "nam = 'a'\n[part]\nwait = 'soon'\nlimit = '1KiB'\n").expect("written");
    let loaded = load::<Sample>(&path, std::iter::empty());
    let part = Part { limit: Bytes(1024), ..Part::default() };
    assert_eq!((loaded.settings, loaded.problems.len()), (Some(Sample { part, ..Sample::default() }), 2));
    let about = |key: &str| Problem { source: String::new(), key: key.into(), message: String::new() };
    let wait = &loaded.problems[1];
    assert!(wait.covers(&about("part.wait")) && !wait.covers(&about("part.waiting")) && !wait.covers(&about("part")));
    assert!(about("part").covers(wait) && !about("").covers(wait), "{wait}");
}
