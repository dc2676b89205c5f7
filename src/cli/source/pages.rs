//! The folder's files as text, each with a limit; and nothing that looks like a part of it and would not be read.

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
const TOP: [&str; 10] = [
    "applications.toml",
    "deployment.toml",
    "last-built.toml",
    "plans.toml",
    "probes.toml",
    "revocations.toml",
    "subscriptions.csv",
    "subscriptions.toml",
    "targets.toml",
    "root.json",
];
/// Folders that are read.
const FOLDERS: [&str; 2] = ["apis", "issuers"];
/// The folder of the signing keys, which is not.
const KEYS: &str = "keys";

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
#[derive(Debug, Default)]
pub(super) struct Pages {
    pages: BTreeMap<String, Page>,
    /// Whether a file could not be read.
    unread: bool,
}

impl Pages {
    pub(super) fn read(folder: &Path, problems: &Problems) -> Result<Self, Error> {
        let mut pages = Self::default();
        let (names, folders) = list(folder)?;
        for name in folders.iter().filter(|name| *name != KEYS && !FOLDERS.contains(&name.as_str())) {
            problems.unknown(&Spot::file(name), "folder", name, FOLDERS.into_iter().chain([KEYS]));
        }
        for name in names {
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
            let (mut names, folders) = list(&path)?;
            for name in folders {
                problems.report(&Spot::file(&format!("{inner}/{name}")), "a folder in here is not read");
            }
            names.retain(|name| name.ends_with(".toml"));
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
        let text = match read_inside(folder, Path::new(name), limit) {
            Ok(bytes) => String::from_utf8(bytes).map_err(|_| "not UTF-8 text".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        match text {
            Ok(text) => {
                self.pages.insert(name.to_owned(), Page::new(name, text));
            }
            Err(why) => {
                self.unread = true;
                problems.report(&Spot::file(name), why);
            }
        }
    }

    pub(super) fn page(&self, name: &str) -> Option<&Page> {
        self.pages.get(name)
    }

    /// The files of `apis` or `issuers`, by name.
    pub(super) fn under(&self, folder: &str) -> impl Iterator<Item = &Page> {
        let prefix = format!("{folder}/");
        self.pages.iter().filter(move |(name, _)| name.starts_with(&prefix)).map(|(_, page)| page)
    }

    /// Reports every syntax error of every TOML file; whether all files could be read and parsed.
    pub(super) fn check_syntax(&self, problems: &Problems) -> bool {
        let errors = Problems::default();
        for page in self.pages.values().filter(|page| page.name().ends_with(".toml")) {
            page.parse(&errors);
        }
        let sound = errors.is_empty() && !self.unread;
        problems.extend(errors);
        sound
    }
}

/// A file of the folder. A symbolic link is followed as long as it stays inside.
pub(super) fn read_inside(folder: &Path, file: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let path = folder.join(file).canonicalize()?;
    if !path.starts_with(folder.canonicalize()?) {
        return Err(io::Error::other("a link out of the policy folder; put the file itself here"));
    }
    read_limited(&path, limit)
}

/// The names of the files in a folder, and those of the folders, without hidden ones.
fn list(folder: &Path) -> Result<(Vec<String>, Vec<String>), Error> {
    let failed = |source| Error::Io { path: folder.to_owned(), source };
    let (mut names, mut folders) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if let Some(name) = entry.file_name().to_str().filter(|name| !name.starts_with('.')) {
            let names = if entry.path().is_dir() { &mut folders } else { &mut names };
            names.push(name.to_owned());
        }
    }
    names.sort();
    folders.sort();
    Ok((names, folders))
}
