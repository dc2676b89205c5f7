//! The folder's files as text, each with a limit, and none that nobody would read.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::fields::Page;
use super::problem::{Problem, Problems, Spot};
use crate::disk::read_limited;

/// Largest TOML, PEM or JWKS file of the folder, in bytes.
pub(super) const MAX_FILE: u64 = 4 << 20;
/// Largest `subscriptions.csv`, in bytes: 100,000 rows of 160.
const MAX_CSV: u64 = 16 << 20;
/// Most files in `apis` or `issuers`.
const MAX_FILES: usize = 1_024;

/// Files at the top that are read.
const TOP: [&str; 9] = [
    "applications.toml",
    "deployment.toml",
    "last-built.toml",
    "plans.toml",
    "revocations.toml",
    "subscriptions.csv",
    "subscriptions.toml",
    "targets.toml",
    "root.json",
];
const FOLDERS: [&str; 2] = ["apis", "issuers"];

/// A policy source folder that is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The path is no folder, or not readable: make one with `tidegate init`.
    #[error("{}: {source}", path.display())]
    Io {
        /// What was read.
        path: PathBuf,
        /// Why it could not be.
        source: io::Error,
    },
    /// Correct what each line says; they are all there is.
    #[error("{}", listed(.0))]
    Problems(Vec<Problem>),
}

/// Most problems that are printed.
const SHOWN: usize = 200;

fn listed(problems: &[Problem]) -> String {
    let mut text = match problems.len() {
        1 => "1 problem in the policy source:".to_owned(),
        count => format!("{count} problems in the policy source:"),
    };
    for problem in problems.iter().take(SHOWN) {
        text.push_str(&format!("\n  {problem}"));
    }
    if problems.len() > SHOWN {
        text.push_str(&format!("\n  … and {} more", problems.len() - SHOWN));
    }
    text
}

/// The texts, by name relative to the folder.
#[derive(Debug)]
pub(super) struct Pages(BTreeMap<String, Page>);

impl Pages {
    pub(super) fn read(folder: &Path, problems: &Problems) -> Result<Self, Error> {
        let mut pages = Self(BTreeMap::new());
        for name in list(folder)? {
            let known = TOP.contains(&name.as_str());
            if known && name != "root.json" && name != "last-built.toml" {
                pages.add(folder, &name, problems);
            } else if !known && (name.ends_with(".toml") || name.ends_with(".csv")) {
                problems.unknown(&Spot::file(&name), "file", &name, TOP);
            }
        }
        for inner in FOLDERS {
            let path = folder.join(inner);
            if !path.is_dir() {
                continue;
            }
            let names: Vec<_> = list(&path)?.into_iter().filter(|name| name.ends_with(".toml")).collect();
            if names.len() > MAX_FILES {
                problems.report(&Spot::file(inner), format!("more than {MAX_FILES} files"));
                continue;
            }
            for name in names {
                pages.add(folder, &format!("{inner}/{name}"), problems);
            }
        }
        Ok(pages)
    }

    fn add(&mut self, folder: &Path, name: &str, problems: &Problems) {
        let limit = if name.ends_with(".csv") { MAX_CSV } else { MAX_FILE };
        match read_limited(&folder.join(name), limit) {
            Ok(bytes) => match String::from_utf8(bytes) {
                Ok(text) => {
                    self.0.insert(name.to_owned(), Page::new(name, text));
                }
                Err(_) => problems.report(&Spot::file(name), "not UTF-8 text"),
            },
            Err(error) => problems.report(&Spot::file(name), error.to_string()),
        }
    }

    pub(super) fn page(&self, name: &str) -> Option<&Page> {
        self.0.get(name)
    }

    /// The files of `apis` or `issuers`, by name.
    pub(super) fn under(&self, folder: &str) -> impl Iterator<Item = &Page> {
        let prefix = format!("{folder}/");
        self.0.iter().filter(move |(name, _)| name.starts_with(&prefix)).map(|(_, page)| page)
    }

    /// Reports every syntax error of every TOML file.
    pub(super) fn check_syntax(&self, problems: &Problems) {
        for page in self.0.values().filter(|page| page.name().ends_with(".toml")) {
            page.parse(problems);
        }
    }
}

fn list(folder: &Path) -> Result<Vec<String>, Error> {
    let failed = |source| Error::Io { path: folder.to_owned(), source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if !entry.path().is_dir()
            && let Some(name) = entry.file_name().to_str().filter(|name| !name.starts_with('.'))
        {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}
