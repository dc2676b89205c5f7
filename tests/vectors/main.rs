//! Tokens and keys against public vectors, a peer's real files, one token per refusal, and noise.

mod garbage;
mod offline;
mod peer;
mod pinning;
mod refusals;
mod wycheproof;

use std::path::PathBuf;

/// A file or folder of the shared test data; prints why the test skips where it is absent.
fn shared(path: &str) -> Option<PathBuf> {
    let full = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared")).join(path);
    if full.exists() {
        return Some(full);
    }
    println!("skipped: {} is not here; it comes with the shared test data, not with the project", full.display());
    None
}
