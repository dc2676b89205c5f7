//! From files and environment to one checked value, with every problem reported at once.
//!
//! Settings come from the main file, then each `NAME.toml` of the drop-in folder beside it
//! (`tidegated.d` for `tidegated.toml`) in order of name, then from the environment; what comes later wins,
//! key by key. Each given key is first tried alone against the defaults, so that one mistake does not hide
//! the next; what is good is given on, so that it can be judged further.
//!
//! ```text
//! TIDEGATE_GATEWAY__LIMITS__CONNECTIONS=64   gateway.limits.connections: `__` stands between the names
//! TIDEGATE_STATE=/data/tidegate              state: without `__` only what stands outside every section
//! TIDEGATE_CI_CACHE=…, TIDEGATE_BUILD_TIME=…  not ours: they belong to scripts, and are not looked at
//! ```

use std::collections::BinaryHeap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Serialize, de::DeserializeOwned};
use toml::{Table, Value};

use super::reader::Reader;
use crate::disk;

/// Largest settings file, in bytes.
const FILE_LIMIT: u64 = 256 * 1024;
/// Most drop-in files.
const DROP_INS: usize = 64;
/// What a setting's name in the environment begins with.
const PREFIX: &str = "TIDEGATE_";

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, or the environment variable.
    pub source: String,
    /// The key, as `section.key`; empty where the source as a whole is meant.
    pub key: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl Problem {
    /// Whether this is about the setting of `other`, or about one that holds it. The default then stands in for
    /// what could not be read, and whatever is wrong with that is nobody's mistake.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let rest = other.key.strip_prefix(&self.key);
        !self.key.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => write!(f, "{}: {}", self.source, self.message),
            key => write!(f, "{}: {key}: {}", self.source, self.message),
        }
    }
}

/// All that is wrong with a configuration; never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0.len() == 1 { "" } else { "s" };
        write!(f, "{} problem{plural} in the configuration", self.0.len())?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

/// One setting as it was given.
#[derive(Debug)]
struct Given {
    source: String,
    path: Vec<String>,
    value: Value,
}

/// What was read.
#[derive(Debug)]
pub(super) struct Loaded<T> {
    /// All that is good, with the defaults for the rest; absent where nothing is known: no main file, or none that
    /// is TOML.
    pub(super) settings: Option<T>,
    /// All that is not.
    pub(super) problems: Vec<Problem>,
}

/// Reads everything that applies to the file at `path`. `environment` is what `std::env::vars_os` gives.
pub(super) fn load<T: Serialize + DeserializeOwned + Default>(
    path: &Path,
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> Loaded<T> {
    let mut problems = Vec::new();
    let mut given = Vec::new();
    read_file(path, &mut given, &mut problems);
    let is_known = problems.is_empty();
    for file in drop_ins(path, &mut problems) {
        read_file(&file, &mut given, &mut problems);
    }
    let known = Table::try_from(T::default()).expect("the defaults are a table");
    read_environment(environment, &known, &mut given, &mut problems);

    let mut merged = Table::new();
    for setting in &given {
        match try_alone::<T>(&setting.path, &setting.value, &known) {
            Ok(()) => insert(&mut merged, &setting.path, setting.value.clone()),
            Err(message) => {
                let messages = by_block::<T>(setting, &known).unwrap_or_else(|| vec![message]);
                let of = |message| Problem { source: setting.source.clone(), key: setting.path.join("."), message };
                problems.extend(messages.into_iter().map(of));
            }
        }
    }
    let settings = match T::deserialize(Reader(Value::Table(merged))) {
        Ok(settings) => is_known.then_some(settings),
        Err(error) => {
            let message = error.message().to_owned();
            problems.push(Problem { source: path.display().to_string(), key: String::new(), message });
            None
        }
    };
    Loaded { settings, problems }
}

fn read_file(path: &Path, given: &mut Vec<Given>, problems: &mut Vec<Problem>) {
    let source = path.display().to_string();
    let read = disk::read_limited(path, FILE_LIMIT)
        .map_err(|error| error.to_string())
        .and_then(|bytes| String::from_utf8(bytes).map_err(|_| "not UTF-8 text".to_owned()))
        .and_then(|text| text.parse::<Table>().map_err(|error| error.to_string().trim_end().to_owned()));
    match read {
        Ok(table) => flatten(&source, &mut Vec::new(), table, given),
        Err(message) => problems.push(Problem { source, key: String::new(), message }),
    }
}

fn drop_ins(path: &Path, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    let folder = path.with_extension("d");
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            let source = folder.display().to_string();
            problems.push(Problem { source, key: String::new(), message: error.to_string() });
            return Vec::new();
        }
    };
    let is_toml = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "toml");
    let files: BinaryHeap<_> = entries.flatten().map(|entry| entry.path()).filter(is_toml).collect();
    let mut files = files.into_sorted_vec();
    if files.len() > DROP_INS {
        let message = format!("holds {} files; at most {DROP_INS} are read", files.len());
        problems.push(Problem { source: folder.display().to_string(), key: String::new(), message });
        files.clear();
    }
    files
}

/// Tables are walked; everything else, lists of tables too, is one setting.
fn flatten(source: &str, path: &mut Vec<String>, table: Table, given: &mut Vec<Given>) {
    for (key, value) in table {
        path.push(key);
        match value {
            Value::Table(inner) => flatten(source, path, inner, given),
            value => given.push(Given { source: source.to_owned(), path: path.clone(), value }),
        }
        path.pop();
    }
}

/// Takes the settings out of the environment. A value is TOML where it reads as such, else a string. A name with `__`
/// is always meant as a setting, so a wrong one is a problem. One without is a setting only where it names one that
/// stands outside every section; any other belongs to a script, and is left alone even where it comes near one.
fn read_environment(
    environment: impl Iterator<Item = (OsString, OsString)>,
    known: &Table,
    given: &mut Vec<Given>,
    problems: &mut Vec<Problem>,
) {
    let found: BinaryHeap<_> = environment
        .filter_map(|(name, text)| {
            let name = name.into_string().ok()?;
            let key = name.strip_prefix(PREFIX)?.to_ascii_lowercase();
            let is_top = known.get(&key).is_some_and(|value| !value.is_table());
            (is_top || key.contains("__")).then_some((name, key, text))
        })
        .collect();
    for (source, key, text) in found.into_sorted_vec() {
        let path: Vec<String> = key.split("__").map(str::to_owned).collect();
        match text.into_string() {
            Ok(text) => {
                let value = format!("v = {text}").parse::<Table>().ok().and_then(|mut table| table.remove("v"));
                given.push(Given { source, path, value: value.unwrap_or(Value::String(text)) });
            }
            Err(_) => problems.push(Problem { source, key: path.join("."), message: "not UTF-8 text".to_owned() }),
        }
    }
}

/// What is wrong with a list of blocks (`[[gateway.listeners]]`), each line of each block tried alone; `None` where it is
/// no such list, or where nothing of it is wrong by itself.
fn by_block<T: DeserializeOwned>(setting: &Given, known: &Table) -> Option<Vec<String>> {
    let mut messages = Vec::new();
    for (number, block) in setting.value.as_array()?.iter().enumerate() {
        for (key, value) in block.as_table()? {
            let line = Value::Array(vec![Value::Table(Table::from_iter([(key.clone(), value.clone())]))]);
            if let Err(message) = try_alone::<T>(&setting.path, &line, known) {
                messages.push(format!("block {}: {key}: {message}", number + 1));
            }
        }
    }
    (!messages.is_empty()).then_some(messages)
}

/// Reads the defaults with this one setting changed.
fn try_alone<T: DeserializeOwned>(path: &[String], value: &Value, known: &Table) -> Result<(), String> {
    unknown_name(path, known)?;
    let mut alone = Table::new();
    insert(&mut alone, path, value.clone());
    T::deserialize(Reader(Value::Table(alone))).map(drop).map_err(|error| error.message().to_owned())
}

/// A name that no setting has, with the nearest that one has. Members that are absent by default
/// are not in `known`; those the deserialiser judges.
fn unknown_name(path: &[String], known: &Table) -> Result<(), String> {
    let Some((name, rest)) = path.split_first() else { return Ok(()) };
    match known.get(name) {
        Some(Value::Table(inner)) if !rest.is_empty() => unknown_name(rest, inner),
        Some(Value::Table(_)) => Err("is a section, not a setting".to_owned()),
        Some(_) if rest.is_empty() => Ok(()),
        Some(_) => Err("is a setting, not a section".to_owned()),
        None => match nearest(name, known.keys()) {
            Some(near) => Err(format!("unknown; did you mean {near:?}?")),
            None => Ok(()),
        },
    }
}

fn nearest<'k>(name: &str, known: impl Iterator<Item = &'k String>) -> Option<&'k str> {
    let scored = known.map(|key| (strsim::damerau_levenshtein(name, key), key.as_str()));
    scored.filter(|(distance, key)| *distance <= 1 + key.len() / 4).min().map(|(_, key)| key)
}

fn insert(table: &mut Table, path: &[String], value: Value) {
    match path {
        [] => {}
        [last] => drop(table.insert(last.clone(), value)),
        [section, rest @ ..] => {
            let inner = table.entry(section.clone()).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
