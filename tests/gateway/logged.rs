//! What the operator reads about it.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::rig::Terms;
use crate::scene::{scene, with_token};
use crate::upstream::SOON;

/// All that the process has logged, since somebody first looked; the workers are threads of their own.
static LINES: LazyLock<&Mutex<Vec<String>>> = LazyLock::new(|| {
    static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());
    tracing_subscriber::registry().with(Keep(&LINES)).init();
    &LINES
});

struct Keep(&'static Mutex<Vec<String>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, "{field}={value:?} ");
    }
}

impl<S: Subscriber> Layer<S> for Keep {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line(format!("{} ", event.metadata().level()));
        event.record(&mut line);
        self.0.lock().expect("no panic in here").push(line.0);
    }
}

pub(crate) fn lines_with(text: &str) -> Vec<String> {
    let lines = LINES.lock().expect("no panic in here");
    lines.iter().filter(|line| line.contains(text)).cloned().collect()
}

#[test]
fn an_endpoint_that_takes_no_connection_is_logged_and_not_for_each_request() {
    assert_eq!(lines_with("nobody.invalid"), [""; 0]);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let scene = scene(&Terms::to(address));
    let begun = Instant::now();
    // Long enough for it to be tried again.
    while begun.elapsed() < Duration::from_millis(1_200) {
        assert_eq!(scene.ask(&with_token("GET /petstore/1.0/pet/1", "")).status, 503);
        scene.record();
        std::thread::sleep(Duration::from_millis(20));
    }
    let lines = lines_with(&address.to_string());
    assert!(
        matches!(&*lines, [line] if line.starts_with("WARN ") && line.contains("takes no connection")),
        "{lines:?}"
    );
    scene.end();
}

#[test]
fn an_upstream_whose_ca_cannot_be_used_is_logged() {
    assert_eq!(lines_with("its CA cannot be used"), [""; 0]);
    let endpoints = vec!["https://localhost:1".to_owned()];
    let terms =
        Terms { endpoints, ca: vec![Box::from(&b"no certificate"[..])], ..Terms::to(([127, 0, 0, 1], 1).into()) };
    let scene = scene(&terms);
    assert_eq!(scene.ask(&with_token("GET /petstore/1.0/pet/1", "")).status, 503);
    scene.record();
    let begun = Instant::now();
    while lines_with("its CA cannot be used").is_empty() {
        assert!(begun.elapsed() < SOON);
    }
    let lines = lines_with("its CA cannot be used");
    assert!(matches!(&*lines, [line] if line.starts_with("ERROR ") && line.contains("upstream=pets")), "{lines:?}");
    scene.end();
}
