//! Reads a TOML table field by field, noting every problem with its line and going on.
//!
//! A derived `Deserialize` stops at a file's first problem, so the tables are read by hand here: what a
//! reader asked for is what is known, and [`Fields::finish`] refuses whatever else stands in the table.

use std::str::FromStr;
use std::sync::Arc;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Located, Problems, Spot, Text};

/// A file's text.
#[derive(Debug)]
pub(super) struct Page {
    name: Arc<str>,
    text: String,
    /// Offset of each line's first byte.
    lines: Vec<usize>,
}

impl Page {
    pub(super) fn new(name: &str, text: String) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { name: name.into(), text, lines }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The place of a byte.
    fn spot(&self, at: usize) -> Spot {
        Spot { file: Arc::clone(&self.name), line: self.lines.partition_point(|start| *start <= at) }
    }

    /// The place of a line, counted from 1.
    pub(super) fn line(&self, line: usize) -> Spot {
        Spot { file: Arc::clone(&self.name), line }
    }

    /// Parses it as TOML; every syntax error becomes a problem.
    pub(super) fn parse(&self, problems: &Problems) -> DeTable<'_> {
        let (table, errors) = DeTable::parse_recoverable(&self.text);
        for error in errors {
            let spot = error.span().map_or_else(|| Spot::file(&self.name), |span| self.spot(span.start));
            problems.report(&spot, format!("not TOML: {}", error.message().replace('\n', ", ")));
        }
        table.into_inner()
    }
}

/// A table that is being read.
#[derive(Debug)]
pub(super) struct Fields<'t> {
    page: &'t Page,
    problems: &'t Problems,
    what: &'static str,
    table: &'t DeTable<'t>,
    known: Vec<&'static str>,
    at: Spot,
}

impl<'t> Fields<'t> {
    /// A whole file that describes `what`: "an API".
    pub(super) fn of_page(page: &'t Page, table: &'t DeTable<'t>, what: &'static str, problems: &'t Problems) -> Self {
        Self { page, problems, what, table, known: Vec::new(), at: Spot::file(&page.name) }
    }

    fn inner(&self, table: &'t DeTable<'t>, at: usize, what: &'static str) -> Self {
        Self { page: self.page, problems: self.problems, what, table, known: Vec::new(), at: self.page.spot(at) }
    }

    /// Where the table stands.
    pub(super) fn spot(&self) -> &Spot {
        &self.at
    }

    pub(super) fn problems(&self) -> &'t Problems {
        self.problems
    }

    /// Whether the field is there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.table.contains_key(name)
    }

    fn take(&mut self, name: &'static str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.known.push(name);
        self.table.get(name)
    }

    fn wrong(&self, name: &str, value: &Spanned<DeValue<'_>>, wanted: &str) {
        let spot = self.page.spot(value.span().start);
        self.problems.report(&spot, format!("{name} must be {wanted}, not a {}", value.get_ref().type_str()));
    }

    /// A text, if the field is there.
    pub(super) fn text(&mut self, name: &'static str) -> Option<Text> {
        let value = self.take(name)?;
        let text = value.get_ref().as_str();
        if text.is_none() {
            self.wrong(name, value, "a text in quotes");
        }
        Some(Located { value: text?.to_owned(), spot: self.page.spot(value.span().start) })
    }

    /// A text that must be there and not be empty.
    pub(super) fn needed(&mut self, name: &'static str) -> Option<Text> {
        if !self.has(name) {
            self.known.push(name);
            self.problems.report(&self.at, format!("{} needs {name} = \"…\"", self.what));
            return None;
        }
        let text = self.text(name)?;
        if text.value.is_empty() {
            self.problems.report(&text.spot, format!("{name} is empty"));
            return None;
        }
        Some(text)
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, name: &'static str, default: bool) -> bool {
        let Some(value) = self.take(name) else { return default };
        value.get_ref().as_bool().unwrap_or_else(|| {
            self.wrong(name, value, "true or false");
            default
        })
    }

    /// A whole number that is not negative.
    pub(super) fn number(&mut self, name: &'static str) -> Option<Located<u64>> {
        let value = self.take(name)?;
        let number =
            value.get_ref().as_integer().and_then(|digits| u64::from_str_radix(digits.as_str(), digits.radix()).ok());
        if number.is_none() {
            self.wrong(name, value, "a whole number that is not negative");
        }
        Some(Located { value: number?, spot: self.page.spot(value.span().start) })
    }

    /// A text in a form of its own: a length of time, a number of bytes.
    pub(super) fn parsed<T: FromStr>(&mut self, name: &'static str) -> Option<Located<T>>
    where
        T::Err: std::fmt::Display,
    {
        let text = self.text(name)?;
        match text.value.parse() {
            Ok(value) => Some(Located { value, spot: text.spot }),
            Err(error) => {
                self.problems.report(&text.spot, format!("{name}: {error}"));
                None
            }
        }
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&mut self, name: &'static str, words: &[(&'static str, T)]) -> Option<T> {
        let text = self.text(name)?;
        let found = words.iter().find(|(word, _)| *word == text.value).map(|(_, value)| *value);
        if found.is_none() {
            self.problems.unknown(&text.spot, name, &text.value, words.iter().map(|(word, _)| *word));
        }
        found
    }

    /// A list of texts; `None` if the field is not there.
    pub(super) fn texts(&mut self, name: &'static str) -> Option<Vec<Text>> {
        let value = self.take(name)?;
        let Some(items) = value.get_ref().as_array() else {
            self.wrong(name, value, "a list of texts");
            return None;
        };
        let mut texts = Vec::with_capacity(items.len());
        for item in items.iter() {
            match item.get_ref().as_str() {
                Some(text) => texts.push(Located { value: text.to_owned(), spot: self.page.spot(item.span().start) }),
                None => self.wrong(name, item, "a list of texts"),
            }
        }
        Some(texts)
    }

    /// A moment in Unix seconds: a TOML date and time with its offset, or a whole number.
    pub(super) fn moment(&mut self, name: &'static str) -> Option<i64> {
        let value = self.take(name)?;
        let seconds = match value.get_ref() {
            DeValue::Integer(digits) => i64::from_str_radix(digits.as_str(), digits.radix()).ok(),
            DeValue::Datetime(moment) => {
                OffsetDateTime::parse(&moment.to_string(), &Rfc3339).ok().map(|t| t.unix_timestamp())
            }
            _ => None,
        };
        if seconds.is_none() {
            self.wrong(name, value, "a date and time with its offset, 2026-01-31T12:00:00Z");
        }
        seconds
    }

    /// A table, if the field is there: `[usage]`.
    pub(super) fn table(&mut self, name: &'static str, what: &'static str) -> Option<Self> {
        let value = self.take(name)?;
        let Some(table) = value.get_ref().as_table() else {
            self.wrong(name, value, "a table");
            return None;
        };
        Some(self.inner(table, value.span().start, what))
    }

    /// The sub-tables of a table, with their names: `[plans.gold]`.
    pub(super) fn tables(&mut self, name: &'static str, what: &'static str) -> Vec<(Text, Self)> {
        let Some(value) = self.take(name) else { return Vec::new() };
        let Some(table) = value.get_ref().as_table() else {
            self.wrong(name, value, "a table of tables");
            return Vec::new();
        };
        let mut tables = Vec::new();
        for (key, value) in table {
            let text = Located { value: key.get_ref().to_string(), spot: self.page.spot(key.span().start) };
            match value.get_ref().as_table() {
                Some(inner) => tables.push((text, self.inner(inner, key.span().start, what))),
                None => self.wrong(key.get_ref(), value, "a table"),
            }
        }
        tables.sort_by_key(|(_, fields)| fields.at.line);
        tables
    }

    /// The tables of a list: `[[routes]]`.
    pub(super) fn rows(&mut self, name: &'static str, what: &'static str) -> Vec<Self> {
        let Some(value) = self.take(name) else { return Vec::new() };
        let Some(items) = value.get_ref().as_array() else {
            self.wrong(name, value, "a list of tables");
            return Vec::new();
        };
        let mut rows = Vec::with_capacity(items.len());
        for item in items.iter() {
            match item.get_ref().as_table() {
                Some(table) => rows.push(self.inner(table, item.span().start, what)),
                None => self.wrong(name, item, "a list of tables"),
            }
        }
        rows
    }

    /// A table of lists of texts: `labels = { site = ["north"] }`.
    pub(super) fn lists(&mut self, name: &'static str) -> Vec<(Text, Vec<Text>)> {
        let Some(value) = self.take(name) else { return Vec::new() };
        let Some(table) = value.get_ref().as_table() else {
            self.wrong(name, value, "a table of lists");
            return Vec::new();
        };
        let mut lists = Vec::new();
        for (key, value) in table {
            let text = Located { value: key.get_ref().to_string(), spot: self.page.spot(key.span().start) };
            let items =
                value.get_ref().as_array().map(|items| items.iter().map(|item| (item, item.get_ref().as_str())));
            match items {
                Some(items) => {
                    let mut texts = Vec::new();
                    for (item, text) in items {
                        match text {
                            Some(text) => {
                                texts.push(Located { value: text.to_owned(), spot: self.page.spot(item.span().start) })
                            }
                            None => self.wrong(key.get_ref(), item, "a list of texts"),
                        }
                    }
                    lists.push((text, texts));
                }
                None => self.wrong(key.get_ref(), value, "a list of texts"),
            }
        }
        lists
    }

    /// Refuses every field that nobody asked for.
    pub(super) fn finish(self) {
        for key in self.table.keys().filter(|key| !self.known.contains(&&**key.get_ref())) {
            let spot = self.page.spot(key.span().start);
            let kind = format!("field in {}:", self.what);
            self.problems.unknown(&spot, &kind, key.get_ref(), self.known.iter().copied());
        }
    }
}
