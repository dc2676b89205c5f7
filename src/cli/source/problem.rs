//! What is wrong with a policy source folder, all of it, each with its place and the nearest right name.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::bundle::compile::NAME_LIMIT;

/// A place in the folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    /// The file, relative to the folder.
    pub file: Arc<str>,
    /// The line, counted from 1; 0 is the file as a whole.
    pub line: usize,
}

impl Spot {
    /// The file as a whole.
    #[must_use]
    pub fn file(name: &str) -> Self {
        Self { file: name.into(), line: 0 }
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) spot: Spot,
}

/// A text and where it stands.
pub(super) type Text = Located<String>;

/// One thing to correct.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where.
    pub spot: Spot,
    /// What, and where possible what to write instead.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.spot, self.message)
    }
}

/// Gathers problems while reading goes on.
#[derive(Debug, Default)]
pub(super) struct Problems(RefCell<Vec<Problem>>);

impl Problems {
    pub(super) fn report(&self, spot: &Spot, message: impl Into<String>) {
        self.0.borrow_mut().push(Problem { spot: spot.clone(), message: message.into() });
    }

    /// `unknown KIND "name"`, with the nearest of `known`.
    pub(super) fn unknown<'k>(&self, spot: &Spot, kind: &str, name: &str, known: impl IntoIterator<Item = &'k str>) {
        self.report(spot, format!("unknown {kind} {name:?}{}", suggestion(name, known)));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// All of them, by place.
    pub(super) fn into_sorted(self) -> Vec<Problem> {
        let mut problems = self.0.into_inner();
        problems.sort();
        problems.dedup();
        problems
    }
}

/// The names of one kind that the folder defines.
#[derive(Debug)]
pub(super) struct Names {
    kind: &'static str,
    names: BTreeMap<String, Spot>,
}

impl Names {
    pub(super) fn new(kind: &'static str) -> Self {
        Self { kind, names: BTreeMap::new() }
    }

    /// Adds a definition; false, with a problem, if the name is taken or cannot be one.
    pub(super) fn define(&mut self, name: &Text, problems: &Problems) -> bool {
        if !is_name(&name.value) {
            problems.report(&name.spot, format!("{:?} cannot name a {}: {NAME_RULE}", name.value, self.kind));
            return false;
        }
        if let Some(first) = self.names.get(&name.value) {
            problems.report(&name.spot, format!("{} {:?} is already defined at {first}", self.kind, name.value));
            return false;
        }
        self.names.insert(name.value.clone(), name.spot.clone());
        true
    }

    /// Whether a reference names something; reports it otherwise.
    pub(super) fn check(&self, name: &Text, problems: &Problems) -> bool {
        let known = self.names.contains_key(&name.value);
        if !known {
            problems.unknown(&name.spot, self.kind, &name.value, self.all());
        }
        known
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }
}

const NAME_RULE: &str = "write 1 to 128 bytes, no control characters, no space at either end";

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_LIMIT && name.trim() == name && !name.chars().any(char::is_control)
}

/// How many known names are listed where none is near.
const LISTED: usize = 8;

/// `; did you mean "gold"?`, or which names there are.
fn suggestion<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let lower = name.to_lowercase();
    let distance = |other: &str| strsim::osa_distance(&lower, &other.to_lowercase());
    let nearest = known.iter().map(|other| (distance(other), *other)).min();
    match nearest {
        Some((distance, other)) if distance <= (name.chars().count() / 3).max(2) => {
            format!("; did you mean {other:?}?")
        }
        None => "; none is defined".to_owned(),
        Some(_) => {
            let more = if known.len() > LISTED { ", …" } else { "" };
            let listed: Vec<_> = known.into_iter().take(LISTED).collect();
            format!("; known: {}{more}", listed.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_told_or_else_what_there_is() {
        let known = ["gold", "silver", "unlimited"];
        assert_eq!(suggestion("gol", known), "; did you mean \"gold\"?");
        assert_eq!(suggestion("Silver", known), "; did you mean \"silver\"?");
        assert_eq!(suggestion("bronze-tier", known), "; known: gold, silver, unlimited");
        assert_eq!(suggestion("x", []), "; none is defined");
    }
}
