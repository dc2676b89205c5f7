//! A folder of somebody who is not believed: each step of a path in it is taken without following a link.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, statat, unlinkat};

use super::super::error::Refused;
use super::super::staging::Offered;
use crate::disk::{Disk, Machine};

/// The folder. As a disk it can be read and nothing else, and all paths are those in it.
#[derive(Debug)]
pub(super) struct Beneath(PathBuf);

impl Beneath {
    /// The folder itself may be a link: its place is root's.
    pub(super) fn of(folder: &Path) -> Self {
        Self(folder.into())
    }

    /// 0a: opens a regular file; `None` where there is none.
    pub(super) fn regular(&self, path: &Path) -> Result<Option<Offered>, Refused> {
        match self.file(path) {
            Ok(file) => Offered::of(file).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Refused::SourceNotRegular(format!("what the daemon left: {error}"))),
        }
    }

    /// Gives the name `to` to whatever has the name `path` in the same folder, unless something has it already; whether
    /// anything has it then.
    pub(super) fn claim(&self, path: &Path, to: &Path) -> io::Result<bool> {
        let absent = |error: io::Error| if error.kind() == io::ErrorKind::NotFound { Ok(false) } else { Err(error) };
        let ((folder, name), (_, to)) = match (self.parent(path), self.parent(to)) {
            (Ok(path), Ok(to)) => (path, to),
            (Err(error), _) | (_, Err(error)) => return absent(error),
        };
        if statat(&folder, &to, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            return Ok(true);
        }
        renameat(&folder, &name, &folder, &to).map(|()| true).or_else(|error| absent(error.into()))
    }

    /// Takes a name out of the folder, whatever it is the name of. A folder of that name is left: it is no bundle.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        let (folder, name) = self.parent(path)?;
        match unlinkat(&folder, &name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(_) => Ok(unlinkat(&folder, &name, AtFlags::REMOVEDIR)?),
        }
    }

    fn file(&self, path: &Path) -> io::Result<File> {
        let (folder, name) = self.parent(path)?;
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        Ok(openat(&folder, &name, flags, Mode::empty())?.into())
    }

    fn parent(&self, path: &Path) -> io::Result<(File, PathBuf)> {
        let mut folder = File::open(&self.0)?;
        let mut steps = path.components().peekable();
        while let Some(step) = steps.next() {
            let Component::Normal(name) = step else { break };
            if steps.peek().is_none() {
                return Ok((folder, name.into()));
            }
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            folder = openat(&folder, name, flags, Mode::empty())?.into();
        }
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not a path in the folder"))
    }
}

fn read_only<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl Disk for Beneath {
    fn open(&self, path: &Path) -> io::Result<(Box<dyn Read + Send>, u64)> {
        let (file, length) = Offered::of(self.file(path)?).map_err(io::Error::other)?.into_file();
        Ok((Box::new(file), length))
    }

    fn write(&self, _: &Path, _: &[u8], _: u32) -> io::Result<()> {
        read_only()
    }

    fn append(&self, _: &Path, _: &[u8]) -> io::Result<()> {
        read_only()
    }

    fn cut(&self, _: &Path, _: u64) -> io::Result<()> {
        read_only()
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        read_only()
    }

    fn create_folder(&self, _: &Path) -> io::Result<()> {
        read_only()
    }

    fn remove_folder(&self, _: &Path) -> io::Result<()> {
        read_only()
    }

    fn remove_file(&self, _: &Path) -> io::Result<()> {
        read_only()
    }

    fn list(&self, _: &Path) -> io::Result<Vec<String>> {
        read_only()
    }

    fn sync_folder(&self, _: &Path) -> io::Result<()> {
        read_only()
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Machine.free_bytes(&self.0)
    }
}
