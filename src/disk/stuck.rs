//! A card that stands still in the middle of a write, for tests of what must not wait for it.

use std::fs::{self, File};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, mknodat};

/// Makes a write to `path` wait until [`goes_on`]; then it fails.
pub(crate) fn stands_still(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).expect("a pipe");
}

/// Lets the write go on; one that is yet to begin too, while the file is held.
pub(crate) fn goes_on(path: &Path) -> File {
    let card = File::options().read(true).write(true).open(path).expect("the pipe");
    fs::remove_file(path).expect("it is there");
    card
}
