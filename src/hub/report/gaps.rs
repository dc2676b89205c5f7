//! Usage that is lost, out of the view `gaps`: records that were counted, and apart from them intervals in which nobody
//! can know.

use std::io::Write;

use super::condition;
use super::sheet::{Cell, Sheet};
use super::{By, Error, Lost, Names, Query, cells, columns};
use crate::hub::ledger::reader::{Dialect, Reader};

const BY: [By; 2] = [By::Device, By::Reason];

pub(super) fn write(reader: &mut Reader, query: &Query, out: &mut dyn Write) -> Result<(), Error> {
    let (keys, mut names) = columns(if query.by.is_empty() { &BY } else { &query.by });
    if let Some(other) = keys.iter().find(|key| !matches!(key, By::Device | By::Day | By::Reason)) {
        return Err(Error::NotBy { what: "gaps", by: other.name() });
    }
    let devices = if keys.contains(&By::Device) { Names::read(reader)? } else { Names::default() };
    names.extend(["gaps", "lost", "unknown", "first", "last"]);
    let width = names.len();
    let mut sheet = Sheet::new(query.format, names, out)?;
    let dialect = reader.dialect();
    let columns: Vec<&str> = keys.iter().map(|key| if *key == By::Day { day(dialect) } else { key.name() }).collect();
    let list = columns.join(", ");
    let which = condition(query.period.of_interval("from_ms", "to_ms"), query.device);
    let lost = Lost::sql(dialect);
    let sql =
        format!("SELECT {list}, {lost}, min(from_ms), max(to_ms) FROM gaps {which} GROUP BY {list} ORDER BY {list}");
    let mut total = Lost::default();
    reader.rows(&sql, |row| -> Result<(), Error> {
        let mut cells = cells(&keys, row, &devices);
        let lost = Lost::read(row, keys.len())?;
        total.counted = total.counted.saturating_add(lost.counted);
        total.records = total.records.saturating_add(lost.records);
        total.unknown = total.unknown.saturating_add(lost.unknown);
        cells.extend([lost.counted, lost.records, lost.unknown].map(Cell::Number));
        cells.extend([Cell::Time(row.number(keys.len() + 4)?), Cell::Time(row.number(keys.len() + 5)?)]);
        Ok(sheet.line(&cells)?)
    })?;
    let mut last = vec![Cell::Text(String::new()); width - 5];
    last[0] = Cell::Text("total".into());
    last.extend([total.counted, total.records, total.unknown].map(Cell::Number));
    last.extend([Cell::Text(String::new()), Cell::Text(String::new())]);
    Ok(sheet.finish(Some(&last))?)
}

/// The day on which a gap ends.
fn day(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => "date(to_ms / 1000, 'unixepoch')",
        Dialect::ClickHouse => "toDate(toUInt16(greatest(0, least(65535, intDiv(to_ms, 86400000)))))",
    }
}
