//! A folder on a stick, held open: what is in it is reached from here and never through a link.
//!
//! A stick with links on it must not lead a privileged program to another place, so each step is one name, opened without
//! following. What is written is whole or not there.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fstat, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;

/// Most names that a folder may have; a spool with so many files would take months to make.
pub const NAMES_LIMIT: usize = 1_000_000;

/// An open folder.
#[derive(Debug)]
pub struct Folder(OwnedFd);

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::RDONLY).union(OFlags::CLOEXEC);

impl Folder {
    /// Opens the folder that a person named; a link to it is theirs to make.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(openat(CWD, path, FOLDER, Mode::empty())?))
    }

    /// Opens a folder in it.
    pub fn folder(&self, name: &str) -> io::Result<Self> {
        Ok(Self(openat(&self.0, name, FOLDER | OFlags::NOFOLLOW, Mode::empty())?))
    }

    /// Opens a folder in it, which is made, durably, if it is not there.
    pub fn made(&self, name: &str) -> io::Result<Self> {
        match mkdirat(&self.0, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => self.sync()?,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        self.folder(name)
    }

    /// The names in it, sorted; those that are not UTF-8 as they can be shown.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.0)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name == b"." || name == b".." {
                continue;
            }
            if names.len() >= NAMES_LIMIT {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            names.push(OsStr::from_bytes(&name).to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Reads a regular file of at most `limit` bytes. What is longer is `FileTooLarge`, what is no regular file `InvalidInput`;
    /// neither a pipe nor a device is waited for.
    pub fn read(&self, name: &str, limit: usize) -> io::Result<Vec<u8>> {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let opened = openat(&self.0, name, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::LOOP | Errno::NXIO => io::ErrorKind::InvalidInput.into(),
            errno => io::Error::from(errno),
        })?;
        if FileType::from_raw_mode(fstat(&opened)?.st_mode) != FileType::RegularFile {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut bytes = Vec::new();
        File::from(opened).take(limit as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > limit { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
    }

    /// Writes a file, over what has its name: the old one or the whole new one is there at every moment.
    pub fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let part = format!("{name}.part");
        let written = self.write_part(&part, bytes).and_then(|()| Ok(renameat(&self.0, &*part, &self.0, name)?));
        if written.is_err() {
            let _ = self.remove(&part); // what is left would only take the room of others
        }
        written?;
        self.sync()
    }

    fn write_part(&self, part: &str, bytes: &[u8]) -> io::Result<()> {
        self.remove(part)?; // of a write that was cut off
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(&self.0, part, flags, Mode::from_raw_mode(0o644))?);
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.0, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the names in it durable, where the file system knows that of folders.
    fn sync(&self) -> io::Result<()> {
        match rustix::fs::fsync(self.0.as_fd()) {
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;

    #[test]
    fn no_link_is_followed_and_no_pipe_is_waited_for() {
        let (stick, outside) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        fs::write(outside.path().join("secret"), b"secret").expect("written");
        symlink(outside.path(), stick.path().join("away")).expect("a link");
        symlink(outside.path().join("secret"), stick.path().join("1.tgu")).expect("a link");
        symlink(outside.path().join("made"), stick.path().join("2.tgu.part")).expect("a link");
        assert!(Command::new("mkfifo").arg(stick.path().join("pipe")).status().expect("it runs").success());
        let folder = Folder::open(stick.path()).expect("it opens");
        assert!(folder.folder("away").is_err() && folder.made("away").is_err());
        for name in ["1.tgu", "pipe", "away"] {
            assert_eq!(folder.read(name, 10).expect_err(name).kind(), io::ErrorKind::InvalidInput, "{name}");
        }
        folder.write("1.tgu", b"mine").expect("written in its place");
        folder.write("2.tgu", b"mine").expect("written");
        assert_eq!(fs::read(outside.path().join("secret")).expect("there"), b"secret");
        assert!(!outside.path().join("made").exists());
        assert_eq!(folder.read("2.tgu", 4).expect("there"), b"mine", "the control");
        assert_eq!(folder.read("2.tgu", 3).expect_err("too long").kind(), io::ErrorKind::FileTooLarge);
    }
}
