use std::io;
use std::sync::{Arc, Mutex};

use super::*;

/// What a subscriber with our line format writes while `events` runs.
fn lines(place: Place, config: &Config, events: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);
    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let sink = Sink::default();
    let to = sink.clone();
    let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || to.clone());
    let layer = layer.event_format(Line { place }).with_filter(filter(config));
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), events);
    String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
}

#[test]
fn the_journal_gets_a_priority_and_no_time_fields_first_message_last() {
    let text = lines(Place::Journal, &Config::default(), || {
        tracing::info!(target: "tidegate::bundle::activate", seq = 7, result = "Accepted", "policy activated");
        tracing::error!(target: "tidegate::spool", "a generation will not open");
        tracing::warn!(target: "hyper::proto", retry = true);
    });
    assert_eq!(
        text,
        "<6>bundle seq=7 result=Accepted msg=\"policy activated\"\n\
         <3>spool msg=\"a generation will not open\"\n\
         <4>hyper retry=true\n"
    );
}

#[test]
fn a_plain_line_starts_with_the_time_in_utc() {
    let text = lines(Place::Plain, &Config::default(), || tracing::info!(target: "tidegate::daemon", "ready"));
    let (time, rest) = text.split_once(' ').expect("a time and the rest");
    assert_eq!(rest, "info daemon msg=\"ready\"\n");
    assert!(OffsetDateTime::parse(time, &time::format_description::well_known::Rfc3339).is_ok(), "{time}");
    assert_eq!(time.len(), "2026-11-25T04:01:02.345Z".len());
}

#[test]
fn a_clock_at_any_value_still_gives_a_line() {
    for (wall_ms, expected) in [(0, "1970-01-01T00:00:00.000Z"), (-1, "1969-12-31T23:59:59.999Z"), (i64::MAX, "ms")] {
        let mut line = String::new();
        push_time(&mut line, wall_ms);
        assert!(line.ends_with(expected), "{wall_ms}: {line}");
    }
}

#[test]
fn nobody_forges_a_line_by_what_they_send() {
    let text = lines(Place::Journal, &Config::default(), || {
        let path = "/a\n<0>daemon msg=\"all is well\" \u{1b}[2J\u{202e}";
        tracing::info!(target: "tidegate::gateway", path, "odd = \"path\"\r\n");
    });
    assert_eq!(text.matches('\n').count(), 1, "{text:?}");
    assert!(!text.contains(['\u{1b}', '\u{202e}', '\r']), "{text:?}");
    assert!(text.starts_with("<6>gateway path=\"/a\\u{a}<0>daemon msg=\\\"all"), "{text:?}");
}

#[test]
fn a_backslash_does_not_end_the_quotes_early() {
    let text = lines(Place::Journal, &Config::default(), || {
        tracing::info!(target: "tidegate::gateway", path = r#"\" admin=yes \"#, "x");
    });
    assert_eq!(text, "<6>gateway path=\"\\\\\\\" admin=yes \\\\\" msg=\"x\"\n");
}

#[test]
fn long_values_and_many_fields_are_cut_and_the_message_is_still_there() {
    let long = "x".repeat(100_000);
    let text = lines(Place::Journal, &Config::default(), || {
        let l = long.as_str();
        tracing::info!(target: "tidegate::gateway", a = l, b = l, c = l, d = l, e = l, f = l, g = l, h = l, i = l, "end");
        tracing::info!(target: "tidegate::gateway", "{long}");
    });
    let (first, second) = text.split_once('\n').expect("two lines");
    assert!(first.len() < LINE_LIMIT + 2 * VALUE_LIMIT && first.ends_with(" … msg=\"end\""), "{}", first.len());
    assert!(second.len() < 2 * VALUE_LIMIT, "{}", second.len());
}

#[test]
fn levels_hold_for_us_for_single_modules_and_for_other_crates() {
    let config = Config { level: Level::Warn, modules: [("gateway".into(), Level::Debug)].into() };
    let text = lines(Place::Journal, &config, || {
        tracing::info!(target: "tidegate::bundle", "hidden: below our level");
        tracing::debug!(target: "tidegate::gateway::tls", "shown: its module says debug");
        tracing::trace!(target: "tidegate::gateway::tls", "hidden: below its module's level");
        tracing::warn!(target: "tidegate::bundle", "shown: at our level");
        tracing::info!(target: "rustls::client", "hidden: another crate");
    });
    assert_eq!((text.matches("shown").count(), text.matches("hidden").count()), (2, 0), "{text}");
    let off = Config { level: Level::Off, ..Config::default() };
    assert_eq!(lines(Place::Journal, &off, || tracing::error!(target: "rustls", "hidden")), "");
}

#[test]
fn an_error_is_told_with_its_causes() {
    let text = lines(Place::Journal, &Config::default(), || {
        let error = super::super::Error::AlreadyStarted;
        tracing::warn!(target: "tidegate::daemon", error = &error as &dyn std::error::Error, "not started");
    });
    assert_eq!(text, "<4>daemon error=\"logging was started twice in one process\" msg=\"not started\"\n");
}

#[test]
fn only_the_very_stream_that_systemd_names_is_the_journal() {
    let file = tempfile::tempfile().unwrap();
    let stat = rustix::fs::fstat(&file).unwrap();
    let named = format!("{}:{}", stat.st_dev, stat.st_ino);
    assert_eq!(Place::of(Some(&named), &file), Place::Journal);
    for other in [None, Some(""), Some("1:2"), Some("journal"), Some("99999999999999999999:1")] {
        assert_eq!(Place::of(other, &file), Place::Plain, "{other:?}");
    }
}
