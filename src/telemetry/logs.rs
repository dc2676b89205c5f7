//! Log events: one line each on stderr, fields first, message last, in the form of logfmt.
//!
//! ```text
//! a terminal or a file   2026-11-25T04:01:02.345Z info bundle seq=7 result=Accepted msg="policy activated"
//! the journal            <6>bundle seq=7 result=Accepted msg="policy activated"
//! ```
//!
//! In the journal the priority stands in front (sd-daemon's `<N>`) and the journal has the time.
//! An event is always one line: control characters are escaped, so nobody forges a line by what they
//! send. A value is at most [`VALUE_LIMIT`] bytes and a line at most [`LINE_LIMIT`]; what is cut
//! ends in `…`. No colours, ever.

use std::fmt::{self, Write as _};
use std::os::fd::AsFd;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::{Config, Error};
use crate::clock::Reading;

/// Bytes of one value, escapes counted.
const VALUE_LIMIT: usize = 512;
/// Bytes of one line before its message.
const LINE_LIMIT: usize = 4 << 10;

/// How severe an event must be to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing.
    Off,
    /// Something is lost or broken and needs a person.
    Error,
    /// Something is refused or degraded; the daemon goes on.
    Warn,
    /// The daemon's own steps.
    #[default]
    Info,
    /// Single decisions, for finding out what is wrong.
    Debug,
    /// Everything.
    Trace,
}

/// Where the lines go, which decides what stands in front of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The systemd journal: a priority, no time.
    Journal,
    /// A terminal, a pipe or a file: the time and the level.
    Plain,
}

/// Sends every event from now on to stderr.
pub fn start(config: &Config) -> Result<(), Error> {
    let line = Line { place: Place::of_stderr() };
    let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(std::io::stderr).event_format(line);
    let subscriber = tracing_subscriber::registry().with(layer.with_filter(filter(config)));
    subscriber.try_init().map_err(|_| Error::AlreadyStarted)?;
    super::panics::watch();
    Ok(())
}

/// Our own modules by the configuration; other crates only from `warn`.
fn filter(config: &Config) -> Targets {
    let ours = LevelFilter::from(config.level);
    let others = ours.min(LevelFilter::WARN);
    let modules =
        config.modules.iter().map(|(module, level)| (format!("{CRATE}::{module}"), LevelFilter::from(*level)));
    Targets::new().with_default(others).with_target(CRATE, ours).with_targets(modules)
}

const CRATE: &str = env!("CARGO_PKG_NAME");

impl From<Level> for LevelFilter {
    fn from(level: Level) -> Self {
        match level {
            Level::Off => Self::OFF,
            Level::Error => Self::ERROR,
            Level::Warn => Self::WARN,
            Level::Info => Self::INFO,
            Level::Debug => Self::DEBUG,
            Level::Trace => Self::TRACE,
        }
    }
}

impl Place {
    /// The journal, when systemd's `JOURNAL_STREAM` names the very file that stderr is.
    #[must_use]
    pub fn of_stderr() -> Self {
        let stream = std::env::var("JOURNAL_STREAM").ok();
        Self::of(stream.as_deref(), std::io::stderr())
    }

    fn of(stream: Option<&str>, file: impl AsFd) -> Self {
        let named = stream.and_then(|stream| stream.split_once(':'));
        let named = named.and_then(|(dev, inode)| Some((dev.parse::<u64>().ok()?, inode.parse::<u64>().ok()?)));
        match (named, rustix::fs::fstat(file)) {
            (Some(named), Ok(stat)) if named == (stat.st_dev, stat.st_ino) => Self::Journal,
            _ => Self::Plain,
        }
    }
}

/// Writes one event as one line.
struct Line {
    place: Place,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        to.write_str(&self.written(event, Reading::now().wall_ms))
    }
}

impl Line {
    fn written(&self, event: &Event<'_>, wall_ms: i64) -> String {
        let mut fields = Fields { line: String::with_capacity(160), message: String::new(), cut: false };
        let level = *event.metadata().level();
        match self.place {
            Place::Journal => fields.line.push_str(priority(level)),
            Place::Plain => {
                push_time(&mut fields.line, wall_ms);
                fields.line.push_str(word(level));
            }
        }
        fields.line.push_str(part(event.metadata().target()));
        event.record(&mut fields);
        let Fields { mut line, message, cut } = fields;
        if cut {
            line.push_str(" …");
        }
        if !message.is_empty() {
            let _ = write!(line, " msg=\"{message}\"");
        }
        line.push('\n');
        line
    }
}

/// `gateway` of `tidegate::gateway::pipeline`; another crate's name as it is.
fn part(target: &str) -> &str {
    let inner = target.strip_prefix(CRATE).and_then(|rest| rest.strip_prefix("::")).unwrap_or(target);
    inner.split("::").next().unwrap_or(inner)
}

/// sd-daemon(3): 3 error, 4 warning, 6 informational, 7 debug.
fn priority(level: tracing::Level) -> &'static str {
    match level {
        tracing::Level::ERROR => "<3>",
        tracing::Level::WARN => "<4>",
        tracing::Level::INFO => "<6>",
        _ => "<7>",
    }
}

fn word(level: tracing::Level) -> &'static str {
    match level {
        tracing::Level::ERROR => " error ",
        tracing::Level::WARN => " warn ",
        tracing::Level::INFO => " info ",
        tracing::Level::DEBUG => " debug ",
        tracing::Level::TRACE => " trace ",
    }
}

/// RFC 3339 in UTC; a clock beyond the calendar is written as plain milliseconds. Written out, for the descriptions of
/// formats that `time` reads are 18 KB of code.
fn push_time(line: &mut String, wall_ms: i64) {
    let time = OffsetDateTime::from_unix_timestamp(wall_ms.div_euclid(1_000)).ok().filter(|time| time.year() >= 0);
    let _ = match time {
        Some(time) => {
            let (year, month, day) = time.to_calendar_date();
            let (hour, minute, second) = time.to_hms();
            let (month, millis) = (u8::from(month), wall_ms.rem_euclid(1_000));
            write!(line, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
        }
        None => write!(line, "{wall_ms}ms"),
    };
}

/// Collects an event's fields: `message` apart, the others in their order.
struct Fields {
    line: String,
    message: String,
    cut: bool,
}

impl Fields {
    fn push(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let mut text = Bounded(String::new());
        // An error here is the bound: what fits is kept.
        let _ = text.write_fmt(value);
        let text = text.0;
        if field.name() == "message" {
            self.message = text;
        } else if self.line.len() + field.name().len() + text.len() > LINE_LIMIT {
            self.cut = true;
        } else {
            let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'=' | b'\\');
            let quote = if !text.is_empty() && text.bytes().all(plain) { "" } else { "\"" };
            let _ = write!(self.line, " {}={quote}{text}{quote}", field.name());
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, format_args!("{value}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut causes = vec![value.to_string()];
        let mut source = value.source();
        while let Some(cause) = source {
            causes.push(cause.to_string());
            source = cause.source();
        }
        self.push(field, format_args!("{}", causes.join(": ")));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field, format_args!("{value:?}"));
    }
}

/// A text that takes no more than about [`VALUE_LIMIT`] bytes, escaped so that it can stand between quotes.
struct Bounded(String);

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if self.0.len() >= VALUE_LIMIT {
                self.0.push('…');
                return Err(fmt::Error);
            }
            match c {
                // Direction marks and line separators would let a value rearrange what a person sees.
                c if c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                    self.0.extend(c.escape_unicode());
                }
                '"' | '\\' => self.0.extend(['\\', c]),
                c => self.0.push(c),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "logs_tests.rs"]
mod tests;
