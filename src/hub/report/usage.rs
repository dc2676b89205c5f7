//! Requests and bytes, out of the view `daily`: what counts, roll-ups included, each once.

use std::io::Write;

use super::condition;
use super::sheet::{Cell, Sheet};
use super::{By, Error, Lost, Names, Query, cells, columns, exact_sum};
use crate::hub::ledger::reader::Reader;

const BY: [By; 2] = [By::Api, By::Outcome];

pub(super) fn write(
    reader: &mut Reader,
    query: &Query,
    out: &mut dyn Write,
    aside: &mut dyn Write,
) -> Result<(), Error> {
    let (keys, mut names) = columns(if query.by.is_empty() { &BY } else { &query.by });
    if keys.contains(&By::Reason) {
        return Err(Error::NotBy { what: "usage", by: By::Reason.name() });
    }
    let devices = if keys.contains(&By::Device) { Names::read(reader)? } else { Names::default() };
    names.extend(["requests", "bytes_in", "bytes_out"]);
    let width = names.len();
    let mut sheet = Sheet::new(query.format, names, out)?;
    let key_names: Vec<&str> = keys.iter().map(|key| key.name()).collect();
    let (list, dialect) = (key_names.join(", "), reader.dialect());
    let sums = ["requests", "bytes_in", "bytes_out"].map(|column| exact_sum(dialect, column)).join(", ");
    let which = condition(query.period.of_day("day"), query.device);
    let sql = format!("SELECT {list}, {sums} FROM daily {which} GROUP BY {list} ORDER BY {list}");
    let mut total = [0u64; 3];
    reader.rows(&sql, |row| -> Result<(), Error> {
        let mut cells = cells(&keys, row, &devices);
        for (place, total) in total.iter_mut().enumerate() {
            let sum = row.sum(keys.len() + 2 * place)?;
            *total = total.saturating_add(sum);
            cells.push(Cell::Number(sum));
        }
        Ok(sheet.line(&cells)?)
    })?;
    let mut last = vec![Cell::Text(String::new()); width - total.len()];
    last[0] = Cell::Text("total".into());
    last.extend(total.map(Cell::Number));
    sheet.finish(Some(&last))?;
    let lost = lost(reader, query)?;
    if lost != Lost::default() {
        writeln!(
            aside,
            "not in it: {} requests that are lost for certain, and what was lost in {} intervals in which nobody can \
             know; see `report gaps`",
            lost.records, lost.unknown
        )?;
    }
    Ok(())
}

fn lost(reader: &mut Reader, query: &Query) -> Result<Lost, Error> {
    let which = condition(query.period.of_interval("from_ms", "to_ms"), query.device);
    let sql = format!("SELECT {} FROM gaps {which}", Lost::sql(reader.dialect()));
    let mut lost = Lost::default();
    reader.rows(&sql, |row| -> Result<(), Error> {
        lost = Lost::read(row, 0)?;
        Ok(())
    })?;
    Ok(lost)
}
