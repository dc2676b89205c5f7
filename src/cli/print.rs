//! How commands print: aligned pairs, times as people read them, and nothing of a file that could steer a terminal
//! or that a person would not see.

use std::fmt::{self, Write as _};
use std::io::{self, ErrorKind, Write as _};
use std::sync::OnceLock;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::units::UnixSeconds;

/// Why standard output takes nothing any more.
static LOST: OnceLock<ErrorKind> = OnceLock::new();

/// Prints to standard output. What it does not take is dropped, and told by [`finish`]: a command goes on to its end, so
/// that its exit code and what it leaves behind do not depend on who reads along.
pub(super) fn out(text: fmt::Arguments<'_>) {
    if LOST.get().is_none()
        && let Err(error) = io::stdout().write_fmt(text)
    {
        let _ = LOST.set(error.kind());
    }
}

/// Prints to standard error, if anybody reads that.
pub(super) fn aside(text: fmt::Arguments<'_>) {
    let _ = io::stderr().write_fmt(text);
}

/// An error where standard output did not take all, but where its reader went away: that one has all that it wanted.
pub(super) fn finish() -> io::Result<()> {
    let unflushed = io::stdout().flush().err().map(|error| error.kind());
    match LOST.get().copied().or(unflushed) {
        None | Some(ErrorKind::BrokenPipe) => Ok(()),
        Some(kind) => Err(kind.into()),
    }
}

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
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| visible(cell)).collect()).collect();
    let mut widths: Vec<usize> = Vec::new();
    for row in &rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    rows.iter().fold(String::new(), |mut text, row| {
        let mut line = String::from(" ");
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, " {cell:<width$} ", width = *width);
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

/// The text with everything written out that is not seen: control characters, direction marks, every white space but
/// the space itself, and what takes no ink.
#[must_use]
pub(super) fn visible(text: &str) -> String {
    let seen = |c: char| c == ' ' || !(c.is_control() || c.is_whitespace() || unseen(c));
    text.chars().map(|c| if seen(c) { c.to_string() } else { c.escape_default().to_string() }).collect()
}

/// Unicode 16's Default_Ignorable_Code_Point (DerivedCoreProperties.txt), the annotation marks and the empty Braille cell.
fn unseen(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_aligned_and_cannot_steer_a_terminal() {
        assert_eq!(pairs(&[("a", "1".into()), ("long", "\u{1b}[2J".into())]), "a     1\nlong  \\u{1b}[2J\n");
        assert_eq!(columns(&[vec!["a".into(), "bb".into()], vec!["ccc".into()]]), "  a    bb\n  ccc\n");
        assert_eq!(
            columns(&[vec!["\u{7}".into(), "b".into()], vec!["ccc".into(), "d".into()]]),
            "  \\u{7}  b\n  ccc    d\n"
        );
        assert_eq!((moment(0), moment(i64::MAX)), ("1970-01-01T00:00:00Z".into(), i64::MAX.to_string()));
    }

    #[test]
    fn what_is_not_seen_is_written_out_and_what_is_seen_stays() {
        for hidden in [
            '\u{0}',
            '\u{7f}',
            '\u{9b}',
            '\t',
            '\u{a0}',
            '\u{2003}',
            '\u{2028}',
            '\u{200b}',
            '\u{200d}',
            '\u{200e}',
            '\u{202e}',
            '\u{2066}',
            '\u{2069}',
            '\u{61c}',
            '\u{ad}',
            '\u{feff}',
            '\u{3164}',
            '\u{fe0f}',
            '\u{e0041}',
        ] {
            let shown = visible(&format!("a{hidden}b"));
            assert!(shown.starts_with("a\\") && shown.ends_with('b') && shown.is_ascii(), "{shown}");
        }
        let seen = "Grüße, 港の店 «ก็ด» e\u{301} a\\b \"c\"";
        assert_eq!(visible(seen), seen);
    }
}
