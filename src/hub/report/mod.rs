//! What a person asks of a hub's store: use, gaps, devices; as a table, CSV or JSON.
//!
//! Reads through the views that both stores have, row by row: memory does not grow with what was used. It may run beside
//! a hub, and needs neither its key nor a running one. Called by `tidegate-hub report`.

pub(in crate::hub) mod devices;
mod gaps;
mod period;
mod sheet;
mod usage;

use std::collections::HashMap;
use std::io::{self, Write};

pub(in crate::hub) use period::condition;
pub use period::{Day, Period};
use sheet::Cell;
pub use sheet::Format;

use super::config::Config;
use super::ledger;
use super::ledger::reader::{Dialect, Fields, Reader, exact_sum};
use crate::clock::Reading;
use crate::ids::DeviceId;
use crate::units::Span;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// See [`ledger::Error`].
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// Where it is written takes no more: see the system's reason.
    #[error("the report cannot be written")]
    Write(#[from] io::Error),
    /// Gaps are told by device, day and reason; what a lost request asked for is lost too.
    #[error("a report of {what} is not by {by}")]
    NotBy {
        /// Of what.
        what: &'static str,
        /// What was asked.
        by: &'static str,
    },
}

impl Error {
    /// Whether only a person can help.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Ledger(error) if error.is_configuration())
    }

    /// Whether its reader went away, who has all that they wanted.
    #[must_use]
    pub fn is_reader_gone(&self) -> bool {
        matches!(self, Self::Write(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $kind:ident $what:literal { $($(#[$case_doc:meta])* $case:ident = $name:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $kind { $($(#[$case_doc])* $case),* }

        impl $kind {
            /// Its word in a command.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$case => $name),* }
            }
        }

        impl std::str::FromStr for $kind {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($name => Ok(Self::$case),)*
                    _ => Err([concat!("not ", $what, ":"), $($name),*].join(" ")),
                }
            }
        }
    };
}
use words;

words! {
    /// Of what.
    Subject "one of these" {
        /// Requests and bytes.
        Usage = "usage",
        /// Usage that is lost, said aloud.
        Gaps = "gaps",
        /// Devices, and what is the matter with each.
        Devices = "devices",
    }
}

words! {
    /// What a line of a report is for.
    By "one of these" {
        /// The API; empty where no route matched.
        Api = "api",
        /// The client application; empty where none was known.
        Application = "application",
        /// The device, and its name.
        Device = "device",
        /// The day, in UTC.
        Day = "day",
        /// What became of the requests.
        Outcome = "outcome",
        /// Why usage is lost.
        Reason = "reason",
    }
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct Query {
    /// Of what.
    pub subject: Subject,
    /// A line for each of these; none: as the subject has it.
    pub by: Vec<By>,
    /// Of which days.
    pub period: Period,
    /// Of one device.
    pub device: Option<DeviceId>,
    /// Only devices of which nothing was heard for so long.
    pub silent: Option<Span>,
    /// In what form.
    pub format: Format,
}

/// Writes a report to `out`, and to `aside` what belongs to it and is no line of it.
pub fn report(config: &Config, query: &Query, out: &mut dyn Write, aside: &mut dyn Write) -> Result<(), Error> {
    let mut reader = Reader::open(config)?;
    match query.subject {
        Subject::Usage => usage::write(&mut reader, query, out, aside),
        Subject::Gaps => gaps::write(&mut reader, query, out),
        Subject::Devices => devices::write(&mut reader, config, query, Reading::now().wall_ms, out),
    }
}

/// What people call each device.
#[derive(Debug, Default)]
struct Names(HashMap<String, String>);

impl Names {
    fn read(reader: &mut Reader) -> Result<Self, Error> {
        let mut names = HashMap::new();
        reader.rows("SELECT device, name FROM fleet", |row| -> Result<(), Error> {
            names.insert(row.text(0).to_owned(), row.text(1).to_owned());
            Ok(())
        })?;
        Ok(Self(names))
    }

    fn of(&self, device: &str) -> String {
        self.0.get(device).cloned().unwrap_or_default()
    }
}

/// What a report is by, without repeats; the columns that it has for them.
fn columns(by: &[By]) -> (Vec<By>, Vec<&'static str>) {
    let (mut keys, mut columns): (Vec<By>, Vec<&str>) = (Vec::new(), Vec::new());
    for key in by {
        if !keys.contains(key) {
            keys.push(*key);
            columns.push(key.name());
            columns.extend((*key == By::Device).then_some("name"));
        }
    }
    (keys, columns)
}

/// The cells of those columns.
fn cells(keys: &[By], row: &Fields, names: &Names) -> Vec<Cell> {
    let mut cells = Vec::new();
    for (place, key) in keys.iter().enumerate() {
        match (key, row.text(place)) {
            // How an old ClickHouse writes the day on which the clock of a device begins that has none.
            (By::Day, "0000-00-00") => cells.push(Cell::Text("1970-01-01".into())),
            (By::Device, device) => cells.extend([Cell::some(device), Cell::some(&names.of(device))]),
            (_, text) => cells.push(Cell::some(text)),
        }
    }
    cells
}

/// How much usage is lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::hub) struct Lost {
    /// Gaps whose records were counted, and how many records.
    pub(in crate::hub) counted: u64,
    pub(in crate::hub) records: u64,
    /// Gaps in which nobody can know.
    pub(in crate::hub) unknown: u64,
}

impl Lost {
    /// The columns of `gaps` that tell it.
    fn sql(dialect: Dialect) -> String {
        let records = exact_sum(dialect, "coalesce(count, 0)");
        format!("sum(count IS NOT NULL), {records}, sum(count IS NULL)")
    }

    fn read(row: &Fields, column: usize) -> Result<Self, ledger::Error> {
        Ok(Self { counted: row.count(column)?, records: row.sum(column + 1)?, unknown: row.count(column + 3)? })
    }
}
