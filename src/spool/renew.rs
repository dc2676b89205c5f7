//! A new life of a spool that was copied: what comes from here on is told once, by whoever has it.
//!
//! A copy of the state folder is a second device with the same key. Sealed files may stay in both: the hub knows each
//! by its stream and number, and takes it once. The open logs may not, for either would seal them under a number of
//! its own; and neither may go on with the stream of both. So the logs are set aside, where a person can put them back,
//! and a mark makes the ledger begin a new stream.
//!
//! ```text
//! renew              the next file that is sealed begins a stream, and removes the mark
//! open.aside-<n>     open logs and sums as they were, and losses that were not told yet
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::disk;
use crate::spool::losses;

/// Most folders of logs that are set aside; then the names are used up, and a person has to look.
const MAX_ASIDE: u32 = 64;

/// Renews the spool in `folder`, before it is started; where its open logs are now, if it had any. Durable when it
/// returns; done again after a crash in between, it sets nothing more aside.
pub fn renew(folder: &Path) -> io::Result<Option<PathBuf>> {
    if !folder.exists() {
        return Ok(None);
    }
    File::create(mark(folder))?.sync_all()?;
    disk::sync_folder(folder)?;
    let open = folder.join("open");
    // Losses that wait would be told by either, as the logs would.
    if losses::path(folder).exists() {
        fs::create_dir_all(&open)?;
        fs::rename(losses::path(folder), losses::path(&open))?;
        disk::sync_folder(&open)?;
    }
    let is_empty = match fs::read_dir(&open) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => return Err(error),
    };
    if is_empty {
        return Ok(None);
    }
    let free = (1..=MAX_ASIDE).map(|n| folder.join(format!("open.aside-{n}"))).find(|path| !path.exists());
    let aside = free.ok_or_else(|| io::Error::other("too many logs were set aside; move them elsewhere"))?;
    fs::rename(&open, &aside)?;
    disk::sync_folder(folder)?;
    Ok(Some(aside))
}

/// Whether the ledger has to begin a new stream.
pub(super) fn is_due(folder: &Path) -> bool {
    mark(folder).exists()
}

/// The new stream has its first file.
pub(super) fn done(folder: &Path) -> io::Result<()> {
    match fs::remove_file(mark(folder)) {
        Ok(()) => disk::sync_folder(folder),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn mark(folder: &Path) -> PathBuf {
    folder.join("renew")
}
