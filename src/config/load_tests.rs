use std::fs;

use serde::Deserialize;

use super::*;
use crate::units::{Bytes, Span};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Sample {
    name: String,
    part: Part,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Part {
    wait: Span,
    limit: Bytes,
    #[serde(skip_serializing_if = "Option::is_none")]
    extra: Option<u8>,
}

impl Default for Sample {
    fn default() -> Self {
        Self { name: "n".into(), part: Part::default() }
    }
}

impl Default for Part {
    fn default() -> Self {
        Self { wait: Span::secs(5), limit: Bytes(64), extra: None }
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
    load(&path, environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

#[test]
fn later_sources_win_key_by_key() {
    let config = loaded(
        "name = 'a'\n[part]\nwait = '1s'\nlimit = '1KiB'\n",
        Some("[part]\nwait = '2s'\n"),
        &[("TIDEGATE_PART__EXTRA", "7"), ("TIDEGATE_UNRELATED", "x"), ("PATH", "x")],
    )
    .expect("a good configuration");
    let part = Part { wait: Span::secs(2), limit: Bytes(1024), extra: Some(7) };
    assert_eq!(config, Sample { name: "a".into(), part });
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
fn what_is_not_toml_is_named_with_its_place() {
    let text = loaded("[part\nwait = 1", None, &[]).expect_err("not TOML").to_string();
    assert!(text.contains("t.toml") && text.contains("line 1"), "{text}");
    let huge = "#".repeat(300 * 1024);
    assert!(loaded(&huge, None, &[]).expect_err("too large").to_string().contains("larger than"));
}

#[test]
fn a_missing_file_is_a_problem_not_a_default() {
    let missing = load::<Sample>(Path::new("absent/t.toml"), std::iter::empty());
    assert!(missing.expect_err("no file").to_string().contains("absent/t.toml"));
}
