//! Durable small writes: atomic replace, fsync of file and folder, free space.
//!
//! [`Disk`] is the seam through which the parts that must survive a power cut write; [`Machine`] is the
//! real one, [`double::CrashDisk`] the one that loses power where a test says.

pub mod double;
#[cfg(test)]
pub(crate) mod stuck;

use std::collections::BinaryHeap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Small durable files and their folders. What a call made is durable only where it says so.
pub trait Disk: std::fmt::Debug + Send + Sync {
    /// Opens a file for reading; gives its length in bytes too.
    fn open(&self, path: &Path) -> io::Result<(Box<dyn Read + Send>, u64)>;
    /// Makes or overwrites a file; its content is durable, its name is so after [`Disk::sync_folder`]. A cut meanwhile leaves
    /// anything in it.
    fn write(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()>;
    /// As [`Disk::write`], of all that `from` gives, which is not held as a whole where that can be helped.
    fn write_from(&self, path: &Path, from: &mut dyn Read, mode: u32) -> io::Result<()> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes)?;
        self.write(path, &bytes, mode)
    }
    /// Adds to the end of a file, made 0600 if it is not there; its content is durable.
    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Shortens a file to `length` bytes, which a full disk allows too; durable.
    fn cut(&self, path: &Path, length: u64) -> io::Result<()>;
    /// Renames a file, over another one if need be; durable after [`Disk::sync_folder`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes a folder, 0700, and those above it; no error if it is there.
    fn create_folder(&self, path: &Path) -> io::Result<()>;
    /// Removes a folder with all in it; no error if it is not there.
    fn remove_folder(&self, path: &Path) -> io::Result<()>;
    /// Removes a file; no error if it is not there.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// The names in a folder, sorted; those that are not UTF-8 are left out.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Makes the names in a folder durable.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
    /// Bytes that can still be written on the file system of `path`.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;

    /// Reads a whole file of at most `limit` bytes; a longer one is `FileTooLarge`.
    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let (from, _) = self.open(path)?;
        drain(from, limit)
    }

    /// As [`replace`].
    fn replace(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        self.write(Path::new(&part), bytes, mode)?;
        self.rename(Path::new(&part), path)?;
        self.sync_folder(path.parent().unwrap_or(Path::new("/")))
    }
}

/// The machine's own disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct Machine;

impl Disk for Machine {
    fn open(&self, path: &Path) -> io::Result<(Box<dyn Read + Send>, u64)> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok((Box::new(file), length))
    }

    /// In place, where there is a file already: blocks that are not given back and taken anew cost flash half as much, and
    /// a full disk has them. What a cut leaves may so be a mixture of both contents.
    fn write(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(false).mode(mode).open(path)?;
        file.write_all(bytes)?;
        if file.metadata()?.len() != bytes.len() as u64 {
            file.set_len(bytes.len() as u64)?;
        }
        file.sync_data()
    }

    fn write_from(&self, path: &Path, from: &mut dyn Read, mode: u32) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
        io::copy(&mut BufReader::with_capacity(64 << 10, from), &mut file)?;
        file.sync_all()
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn cut(&self, path: &Path, length: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(length)?;
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        absent_is_fine(fs::remove_dir_all(path))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        absent_is_fine(fs::remove_file(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = BinaryHeap::new();
        for entry in fs::read_dir(path)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names.into_sorted_vec())
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        sync_folder(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        free_bytes(path)
    }
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Replaces `path` by `bytes` so that a crash at any moment leaves the old content or the new one:
/// a sibling `.part` file, fsync, rename, fsync of the folder. The file has mode `mode`.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = Path::new(&part);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(part, path)?;
    sync_parent(path)
}

/// Makes the names in `folder` durable.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Makes the name of `path` durable in the folder that holds it.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => sync_folder(folder),
        _ => sync_folder(Path::new(".")),
    }
}

/// Bytes that an unprivileged process can still write on the file system of `path`.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let stats = rustix::fs::statvfs(path)?;
    Ok(stats.f_bavail.saturating_mul(stats.f_frsize))
}

/// Reads a whole file of at most `limit` bytes; a longer one is `FileTooLarge`.
pub fn read_limited(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    drain(File::open(path)?, limit)
}

fn drain(from: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {limit} bytes")));
    }
    Ok(bytes)
}
