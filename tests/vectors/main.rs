//! Tokens and keys against public vectors, a peer's real files, one token per refusal, and noise.

mod garbage;
mod offline;
mod peer;
mod pinning;
mod refusals;
mod wycheproof;

use std::io::Write as _;
use std::path::PathBuf;

/// A file or folder of the shared test data; prints why the test skips where it is absent.
fn shared(path: &str) -> Option<PathBuf> {
    let full = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared")).join(path);
    if full.exists() {
        return Some(full);
    }
    skipped(&format!("{} is not here; it comes with the shared test data, not with the project", full.display()));
    None
}

/// Tells that a test does nothing here, and why. Past the test harness, which shows nothing of a test that passes.
fn skipped(why: &str) {
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
}
