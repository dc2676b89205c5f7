//! What the ledger has, for people: a statement's rows, one by one, in bounded memory.
//!
//! Nothing is written and no store is made, so it needs no key of the hub, and may run beside one. With SQLite all that
//! one reader reads is of one moment; ClickHouse answers each statement as of its own.

use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

use super::clickhouse::ClickHouse;
use super::{Error, clickhouse, sqlite};
use crate::hub::config::Config;

/// A store that is only read.
#[derive(Debug)]
pub(in crate::hub) struct Reader(Source);

#[derive(Debug)]
enum Source {
    Sqlite(Connection),
    ClickHouse(ClickHouse),
}

/// In whose SQL a statement is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::hub) enum Dialect {
    Sqlite,
    ClickHouse,
}

/// A row, its fields as text; `None` is NULL.
#[derive(Debug, Default)]
pub(in crate::hub) struct Fields(Vec<Option<String>>);

impl Reader {
    /// Opens the store that the configuration names, which a hub of this version has made.
    pub(in crate::hub) fn open(config: &Config) -> Result<Self, Error> {
        Ok(Self(match &config.clickhouse {
            None => Source::Sqlite(open_sqlite(&config.database)?),
            Some(settings) => Source::ClickHouse(ClickHouse::connect(settings)?),
        }))
    }

    pub(in crate::hub) fn dialect(&self) -> Dialect {
        match self.0 {
            Source::Sqlite(_) => Dialect::Sqlite,
            Source::ClickHouse(_) => Dialect::ClickHouse,
        }
    }

    /// Gives each row of a SELECT to `each`, until that fails.
    pub(in crate::hub) fn rows<E: From<Error>>(
        &mut self,
        sql: &str,
        mut each: impl FnMut(&Fields) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut fields = Fields::default();
        match &mut self.0 {
            Source::Sqlite(db) => {
                let mut query = db.prepare(sql).map_err(Error::from)?;
                let columns = query.column_count();
                let mut rows = query.query([]).map_err(Error::from)?;
                while let Some(row) = rows.next().map_err(Error::from)? {
                    fields.0.clear();
                    for column in 0..columns {
                        fields.0.push(text_of(row.get_ref(column).map_err(Error::from)?));
                    }
                    each(&fields)?;
                }
                Ok(())
            }
            Source::ClickHouse(store) => {
                let mut outcome = Ok(());
                let read = store.lines(&format!("{sql} FORMAT TabSeparated"), &mut |line| {
                    outcome = fields.read_tabs(line).map_err(E::from).and_then(|()| each(&fields));
                    outcome.is_ok()
                });
                outcome?;
                read.map_err(|error| Error::from(error).into())
            }
        }
    }
}

impl Fields {
    /// The text of a field, empty where it is NULL or there is none.
    pub(in crate::hub) fn text(&self, column: usize) -> &str {
        self.0.get(column).and_then(Option::as_deref).unwrap_or_default()
    }

    /// A whole number of a field, 0 where it is NULL.
    pub(in crate::hub) fn number(&self, column: usize) -> Result<i64, Error> {
        match self.0.get(column).and_then(Option::as_deref) {
            None => Ok(0),
            Some(text) => text.parse().map_err(|_| Error::Damaged("a number is none")),
        }
    }

    /// The same of what cannot be below 0.
    pub(in crate::hub) fn count(&self, column: usize) -> Result<u64, Error> {
        match self.0.get(column).and_then(Option::as_deref) {
            None => Ok(0),
            Some(text) => text.parse().map_err(|_| Error::Damaged("a count is none")),
        }
    }

    /// A sum whose parts of 2^32 and of 1 stand in two fields; what is over the end of 64 bits stays at it.
    pub(in crate::hub) fn sum(&self, column: usize) -> Result<u64, Error> {
        let sum = (u128::from(self.count(column)?) << 32) + u128::from(self.count(column + 1)?);
        Ok(u64::try_from(sum).unwrap_or(u64::MAX))
    }

    /// A line of `TabSeparated`.
    fn read_tabs(&mut self, line: &[u8]) -> Result<(), Error> {
        self.0.clear();
        for field in line.split(|byte| *byte == b'\t') {
            let text = if field == b"\\N" { None } else { Some(unescaped(field)?) };
            self.0.push(text);
        }
        Ok(())
    }
}

/// Two columns that together are the exact sum of what cannot be below 0: no sum of them is beyond what a store holds.
pub(in crate::hub) fn exact_sum(dialect: Dialect, of: &str) -> String {
    match dialect {
        Dialect::Sqlite => format!("sum({of} / 4294967296), sum({of} % 4294967296)"),
        Dialect::ClickHouse => format!("sum(intDiv({of}, 4294967296)), sum({of} % 4294967296)"),
    }
}

fn open_sqlite(path: &Path) -> Result<Connection, Error> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.busy_timeout(sqlite::BUSY)?;
    // From the first statement on, until the reader goes.
    db.execute_batch("BEGIN")?;
    let pragma = |name| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (version, application) = (pragma("user_version")?, pragma("application_id")?);
    match version {
        _ if application != sqlite::APPLICATION_ID => Err(Error::Foreign),
        newer if newer > sqlite::SCHEMA_VERSION => Err(Error::NewerSchema(newer)),
        older if older < sqlite::SCHEMA_VERSION => Err(Error::OlderSchema(older)),
        _ => Ok(db),
    }
}

fn text_of(value: ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string()),
        ValueRef::Real(number) => Some(number.to_string()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
    }
}

fn unescaped(field: &[u8]) -> Result<String, Error> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.iter().copied();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next().ok_or(clickhouse::Error::Answer)? {
                b'n' => b'\n',
                b't' => b'\t',
                b'r' => b'\r',
                b'b' => 8,
                b'f' => 12,
                b'0' => 0,
                itself => itself,
            },
            other => other,
        });
    }
    // Names of the ledger are UTF-8; what a person wrote into the tables may be anything.
    Ok(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_tabs_reads_as_what_was_written() {
        let mut fields = Fields::default();
        fields.read_tabs(b"a\\tb\\\\\\'c\t\\N\t\t12\t\xff").expect("it reads");
        assert_eq!(fields.text(0), "a\tb\\'c");
        assert_eq!((fields.text(1), fields.text(2), fields.text(9)), ("", "", ""));
        assert_eq!((fields.number(3).ok(), fields.number(1).ok(), fields.number(0).ok()), (Some(12), Some(0), None));
        assert_eq!(fields.text(4), "\u{fffd}");
        assert!(fields.read_tabs(b"a\\").is_err());
    }

    #[test]
    fn a_sum_of_parts_is_exact_to_the_end_of_64_bits_and_stays_there() {
        let mut fields = Fields::default();
        fields.read_tabs(b"1\t4294967297\t18446744073709551615\t1").expect("it reads");
        assert_eq!(fields.sum(0).ok(), Some((1 << 32) + (1 << 32) + 1));
        assert_eq!(fields.sum(2).ok(), Some(u64::MAX));
    }
}
