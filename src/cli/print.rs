//! How commands print: aligned pairs, times as people read them, and nothing of a file that could steer a terminal.

use std::fmt::Write as _;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::units::UnixSeconds;

/// Lines of `label  value`, the values aligned.
#[must_use]
pub(super) fn pairs(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
    rows.iter().fold(String::new(), |mut text, (label, value)| {
        let _ = writeln!(text, "{label:<width$}  {}", visible(value));
        text
    })
}

/// Rows of cells in columns, each as wide as its widest cell.
#[must_use]
pub(super) fn columns(rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    rows.iter().fold(String::new(), |mut text, row| {
        let mut line = String::from(" ");
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, " {:<width$} ", visible(cell), width = *width);
        }
        text.push_str(line.trim_end());
        text.push('\n');
        text
    })
}

/// `2026-01-31T12:00:00Z`, or the number where it is no date.
#[must_use]
pub(super) fn moment(seconds: UnixSeconds) -> String {
    let date = OffsetDateTime::from_unix_timestamp(seconds).ok().and_then(|date| date.format(&Rfc3339).ok());
    date.unwrap_or_else(|| seconds.to_string())
}

/// The text with its control characters written out.
#[must_use]
pub(super) fn visible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_aligned_and_cannot_steer_a_terminal() {
        assert_eq!(pairs(&[("a", "1".into()), ("long", "\u{1b}[2J".into())]), "a     1\nlong  \\u{1b}[2J\n");
        assert_eq!(columns(&[vec!["a".into(), "bb".into()], vec!["ccc".into()]]), "  a    bb\n  ccc\n");
        assert_eq!((moment(0), moment(i64::MAX)), ("1970-01-01T00:00:00Z".into(), i64::MAX.to_string()));
    }
}
