//! How lines are written: CSV (RFC 4180), JSON, or a table for people.
//!
//! CSV has a line of names and ends lines with CR LF. JSON is one object a line, its keys in the order of the columns. In
//! all of them numbers are plain, times RFC 3339 in UTC, and what there is none of is empty (in JSON null). A table is
//! aligned by its first lines, and what devices wrote cannot steer the terminal.

use std::io::{self, Write};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::words;

words! {
    /// The form of a report.
    Format "one of these" {
        /// Aligned, for people.
        Table = "table",
        /// RFC 4180.
        Csv = "csv",
        /// One object a line.
        Json = "json",
    }
}

/// Lines by which a table is aligned; a later line that is wider sticks out.
const ALIGNED: usize = 1_000;

/// What stands in one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cell {
    Text(String),
    Number(u64),
    /// Milliseconds since the Unix epoch.
    Time(i64),
    /// A length of time, in seconds.
    Seconds(u64),
    YesNo(bool),
    Nothing,
}

/// The lines, on their way out.
pub(super) struct Sheet<'a> {
    columns: Vec<&'static str>,
    form: Form<'a>,
}

enum Form<'a> {
    Csv(Box<csv::Writer<&'a mut dyn Write>>),
    Json(&'a mut dyn Write),
    Table { out: &'a mut dyn Write, first: Vec<Vec<(String, bool)>>, widths: Option<Vec<usize>> },
}

impl<'a> Sheet<'a> {
    pub(super) fn new(format: Format, columns: Vec<&'static str>, out: &'a mut dyn Write) -> io::Result<Self> {
        let form = match format {
            Format::Csv => {
                let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(out);
                writer.write_record(&columns).map_err(plain)?;
                Form::Csv(Box::new(writer))
            }
            Format::Json => Form::Json(out),
            Format::Table => {
                let head = columns.iter().map(|column| ((*column).to_owned(), false)).collect();
                Form::Table { out, first: vec![head], widths: None }
            }
        };
        Ok(Self { columns, form })
    }

    /// One line, a cell for each column.
    pub(super) fn line(&mut self, cells: &[Cell]) -> io::Result<()> {
        match &mut self.form {
            Form::Csv(writer) => writer.write_record(cells.iter().map(Cell::plain)).map_err(plain),
            Form::Json(out) => {
                for (place, (column, cell)) in self.columns.iter().zip(cells).enumerate() {
                    write!(out, "{}\"{column}\":{}", if place == 0 { '{' } else { ',' }, cell.json())?;
                }
                out.write_all(b"}\n")
            }
            Form::Table { out, first, widths } => {
                let line: Vec<_> = cells.iter().map(|cell| (cell.shown(), cell.is_number())).collect();
                match widths {
                    Some(widths) => aligned(*out, &line, widths),
                    None => {
                        first.push(line);
                        if first.len() > ALIGNED {
                            *widths = Some(flush(*out, std::mem::take(first))?);
                        }
                        Ok(())
                    }
                }
            }
        }
    }

    /// Ends it; `total` is the last line of a table.
    pub(super) fn finish(mut self, total: Option<&[Cell]>) -> io::Result<()> {
        if let Some(total) = total.filter(|_| matches!(self.form, Form::Table { .. })) {
            self.line(total)?;
        }
        match self.form {
            Form::Csv(mut writer) => writer.flush(),
            Form::Json(out) => out.flush(),
            Form::Table { out, first, widths } => {
                if widths.is_none() {
                    flush(out, first)?;
                }
                out.flush()
            }
        }
    }
}

impl Cell {
    /// The text, or nothing where it is empty.
    pub(super) fn some(text: &str) -> Self {
        if text.is_empty() { Self::Nothing } else { Self::Text(text.to_owned()) }
    }

    fn plain(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) | Self::Seconds(number) => number.to_string(),
            Self::Time(at_ms) => rfc3339(*at_ms),
            Self::YesNo(is_so) => (if *is_so { "yes" } else { "no" }).to_owned(),
            Self::Nothing => String::new(),
        }
    }

    fn json(&self) -> String {
        match self {
            Self::Text(_) | Self::Time(_) => serde_json::Value::from(self.plain()).to_string(),
            Self::Number(_) | Self::Seconds(_) => self.plain(),
            Self::YesNo(is_so) => is_so.to_string(),
            Self::Nothing => "null".to_owned(),
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Text(text) => text.chars().map(|one| if one.is_control() { '\u{fffd}' } else { one }).collect(),
            Self::Seconds(seconds) => match (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60) {
                (0, 0, minutes) => format!("{minutes}min"),
                (0, hours, minutes) => format!("{hours}h {minutes:02}min"),
                (days, hours, _) => format!("{days}d {hours:02}h"),
            },
            Self::Nothing => "-".to_owned(),
            other => other.plain(),
        }
    }

    fn is_number(&self) -> bool {
        matches!(self, Self::Number(_) | Self::Seconds(_))
    }
}

fn rfc3339(at_ms: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp(at_ms.div_euclid(1_000)).ok();
    // A device's clock may say anything; what is no date stays a number.
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| at_ms.to_string())
}

/// Writes the first lines, and says how wide the columns are.
fn flush(out: &mut dyn Write, lines: Vec<Vec<(String, bool)>>) -> io::Result<Vec<usize>> {
    let mut widths = Vec::new();
    for line in &lines {
        widths.resize(line.len().max(widths.len()), 0);
        for (width, (text, _)) in widths.iter_mut().zip(line) {
            *width = text.chars().count().max(*width);
        }
    }
    // A name stands over its numbers.
    let numbers: Vec<bool> = lines.last().into_iter().flatten().map(|(_, is_number)| *is_number).collect();
    for (place, mut line) in lines.into_iter().enumerate() {
        if place == 0 {
            line.iter_mut().zip(&numbers).for_each(|((_, is_number), so)| *is_number = *so);
        }
        aligned(out, &line, &widths)?;
    }
    Ok(widths)
}

fn aligned(out: &mut dyn Write, line: &[(String, bool)], widths: &[usize]) -> io::Result<()> {
    let mut text = String::new();
    for ((cell, is_number), width) in line.iter().zip(widths) {
        let cell = if *is_number { format!("{cell:>width$}  ") } else { format!("{cell:<width$}  ") };
        text.push_str(&cell);
    }
    writeln!(out, "{}", text.trim_end())
}

fn plain(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: Format, lines: &[Vec<Cell>]) -> String {
        let mut out = Vec::new();
        let mut sheet = Sheet::new(format, vec!["api", "n", "at", "ok"], &mut out).expect("it is written");
        for line in lines {
            sheet.line(line).expect("it is written");
        }
        sheet.finish(lines.first().map(Vec::as_slice)).expect("it is written");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn what_is_written_reads_back_whatever_is_in_it() {
        let nasty = "a,\"b\"\r\nc;\u{1b}[31m\\";
        let line = vec![Cell::Text(nasty.into()), Cell::Number(u64::MAX), Cell::Time(-1), Cell::Nothing];
        let csv_text = written(Format::Csv, std::slice::from_ref(&line));
        assert!(csv_text.starts_with("api,n,at,ok\r\n") && csv_text.ends_with("\r\n"), "{csv_text:?}");
        let mut reader = csv::Reader::from_reader(csv_text.as_bytes());
        let read = reader.records().next().expect("a line").expect("RFC 4180");
        assert_eq!(read, vec![nasty, &u64::MAX.to_string(), "1969-12-31T23:59:59Z", ""]);
        let json: serde_json::Value = serde_json::from_str(&written(Format::Json, &[line])).expect("JSON");
        assert_eq!(json, serde_json::json!({"api": nasty, "n": u64::MAX, "at": "1969-12-31T23:59:59Z", "ok": null}));
    }

    #[test]
    fn a_table_is_aligned_has_a_total_and_steers_no_terminal() {
        let line =
            |api: &str, number| vec![Cell::some(api), Cell::Number(number), Cell::Seconds(93_784), Cell::YesNo(true)];
        let table = written(Format::Table, &[line("long\u{1b}[2J", 5), line("", 1_000)]);
        let expected = "api          n      at  ok\nlong\u{fffd}[2J     5  1d 02h  yes\n-         1000  1d 02h  yes\n";
        assert_eq!(table, format!("{expected}long\u{fffd}[2J     5  1d 02h  yes\n"));
        // Lines beyond those by which it is aligned are written as they come.
        let many: Vec<_> = (0..ALIGNED as u64 + 5).map(|number| line("a", number)).collect();
        assert_eq!(written(Format::Table, &many).lines().count(), ALIGNED + 7);
    }
}
