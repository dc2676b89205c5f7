//! The author's side: policy folders, OpenAPI imports, bundles and tokens at the desk.

mod batch;
mod check;
#[cfg(feature = "demo")]
mod demo;
mod device;
mod diff;
mod folder;
mod inspect;
mod installer;
#[cfg(feature = "passphrase")]
mod keys;
mod openapi;
mod problems;
mod program;
mod readme;
mod revoke;
mod root;
mod sums;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The package's folder.
const PACKAGE: &str = env!("CARGO_MANIFEST_DIR");

fn fixture(name: &str) -> PathBuf {
    Path::new(PACKAGE).join("tests/fixtures").join(name)
}

/// A copy of a folder that a test may change.
fn copy_of(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a temporary folder");
    copy_into(folder, copy.path());
    copy
}

fn copy_into(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("the folder is there") {
        let entry = entry.expect("a readable entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir_all(&target).expect("a new folder");
            copy_into(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

/// Tells that a test does nothing here, and why. Past the test harness, which shows nothing of a test that passes.
fn skipped(why: &str) {
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
}

/// The message of everything that is wrong with a folder.
fn problems_of(folder: &Path) -> String {
    tidegate::cli::source::read(folder).expect_err("the folder has problems").to_string()
}
