//! Two alternating records of one small state: the commit primitive of trust and time.
//!
//! ```text
//! NAME.0 and NAME.1, big-endian:
//! off   size  field
//! 0     4     magic "TGP1"
//! 4     4     body_len   0..65536
//! 8     8     counter    the valid record with the higher one is the state
//! 16    n     body
//! 16+n  8     checksum   the first 8 bytes of SHA-256 over all before
//! ```
//!
//! A write goes to the file that is not the newest, and is durable when it returns: a power cut leaves
//! the old state or the new one, never neither. After a failed write the next one takes the same
//! file again, so that the last known good record is never the one at risk.
//!
//! One broken record is a write that was cut off, or rot, and nobody can tell which: the other one is the
//! state, or the one before it. So it is told apart from two sound ones, and the owner of the state makes
//! the best of it from what else it knows.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::Disk;
use crate::keys::sha256;

/// Most bytes of a body.
pub const MAX_BODY: usize = 65_536;

const MAGIC: [u8; 4] = *b"TGP1";
const HEAD: usize = 16;
const CHECKSUM: usize = 8;

/// What was found when a pair was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The newest state.
    Record(Vec<u8>),
    /// One record is whole and the other is not: this is the newest state, or the one before it.
    Survivor(Vec<u8>),
    /// Neither file is there: it was never written.
    Fresh,
    /// At least one file is there, and neither is whole.
    Lost,
}

impl Found {
    /// The body of the newest record that is whole.
    #[must_use]
    pub fn body(&self) -> Option<&[u8]> {
        match self {
            Self::Record(body) | Self::Survivor(body) => Some(body),
            Self::Fresh | Self::Lost => None,
        }
    }
}

/// The pair of files.
#[derive(Debug)]
pub struct Pair {
    disk: Arc<dyn Disk>,
    paths: [PathBuf; 2],
    exists: [bool; 2],
    newest: Option<(usize, u64)>,
}

impl Pair {
    /// Opens `NAME.0` and `NAME.1` in `folder`, which must be there. Unreadable counts as broken.
    pub fn open(disk: Arc<dyn Disk>, folder: &Path, name: &str) -> (Self, Found) {
        let paths = [0, 1].map(|which| folder.join(format!("{name}.{which}")));
        let limit = (HEAD + MAX_BODY + CHECKSUM) as u64;
        let read = paths.each_ref().map(|path| match disk.read(path, limit) {
            Ok(bytes) => (true, decode(&bytes)),
            Err(error) => (error.kind() != io::ErrorKind::NotFound, None),
        });
        let exists = read.each_ref().map(|(exists, _)| *exists);
        let whole = read.iter().filter(|(_, record)| record.is_some()).count();
        let newest = read.into_iter().enumerate().filter_map(|(which, (_, record))| Some((which, record?)));
        let newest = newest.max_by_key(|(_, (counter, _))| *counter);
        let (newest, found) = match newest {
            // The second write of all makes the second file; from then on both are there.
            Some((which, (counter, body))) if whole == 2 || counter == 1 && exists != [true, true] => {
                (Some((which, counter)), Found::Record(body))
            }
            Some((which, (counter, body))) => (Some((which, counter)), Found::Survivor(body)),
            None if exists == [false, false] => (None, Found::Fresh),
            None => (None, Found::Lost),
        };
        (Self { disk, paths, exists, newest }, found)
    }

    /// Makes `body` the state. On an error the state is the old one or this one: open again to know.
    pub fn write(&mut self, body: &[u8]) -> io::Result<()> {
        let (which, counter) = self.newest.map_or((0, 1), |(which, counter)| (1 - which, counter.saturating_add(1)));
        let record = encode(counter, body)?;
        let path = self.paths.get(which).expect("which is 0 or 1");
        if self.exists[which] {
            self.disk.write(path, &record, 0o600)?;
        } else {
            // The first time by rename: a torn first record would look like a lost one.
            self.disk.replace(path, &record, 0o600)?;
            self.exists[which] = true;
        }
        self.newest = Some((which, counter));
        Ok(())
    }
}

fn encode(counter: u64, body: &[u8]) -> io::Result<Vec<u8>> {
    let len = u32::try_from(body.len()).ok().filter(|_| body.len() <= MAX_BODY);
    let len = len.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the state is too large"))?;
    let mut record = [&MAGIC[..], &len.to_be_bytes(), &counter.to_be_bytes(), body].concat();
    let checksum = sha256(&record);
    record.extend_from_slice(&checksum.0[..CHECKSUM]);
    Ok(record)
}

fn decode(record: &[u8]) -> Option<(u64, Vec<u8>)> {
    let (signed, checksum) = record.split_last_chunk::<CHECKSUM>()?;
    if sha256(signed).0[..CHECKSUM] != checksum[..] {
        return None;
    }
    let (magic, rest) = signed.split_first_chunk::<4>()?;
    let (len, rest) = rest.split_first_chunk::<4>()?;
    let (counter, body) = rest.split_first_chunk::<8>()?;
    let whole = *magic == MAGIC && u32::from_be_bytes(*len) as usize == body.len();
    whole.then(|| (u64::from_be_bytes(*counter), body.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::double::CrashDisk;

    const FOLDER: &str = "/state";

    fn disk() -> CrashDisk {
        let disk = CrashDisk::new();
        disk.create_folder(Path::new(FOLDER)).unwrap();
        disk.sync_folder(Path::new("/")).unwrap();
        disk
    }

    fn state(disk: &Arc<CrashDisk>) -> Found {
        Pair::open(Arc::<CrashDisk>::clone(disk), Path::new(FOLDER), "s").1
    }

    #[test]
    fn a_power_cut_at_any_step_leaves_the_old_state_or_the_new_one() {
        for written in 0..4_u8 {
            for cut in 0..12 {
                for seed in 0..40 {
                    let disk = Arc::new(disk());
                    let mut pair = Pair::open(Arc::<CrashDisk>::clone(&disk), Path::new(FOLDER), "s").0;
                    for n in 0..written {
                        pair.write(&[n; 40]).unwrap();
                    }
                    disk.cut_after(cut);
                    let acknowledged = pair.write(&[written; 40]).is_ok();
                    let found = state(&Arc::new(disk.after_power_cut(seed)));
                    let why = format!("written {written} cut {cut} seed {seed}: {found:?}");
                    match &found {
                        Found::Record(body) if *body == [written; 40] => {}
                        Found::Record(body) | Found::Survivor(body) => {
                            assert!(!acknowledged && written > 0 && *body == [written - 1; 40], "{why}");
                        }
                        Found::Fresh => assert!(!acknowledged && written == 0, "{why}"),
                        Found::Lost => panic!("{why}"),
                    }
                }
            }
        }
    }

    #[test]
    fn one_record_alone_would_be_lost_at_some_step() {
        // The negative control: the same cuts, without the second file.
        let mut neither = 0;
        for cut in 0..4 {
            for seed in 0..40 {
                let disk = disk();
                let path = Path::new("/state/s.0");
                disk.replace(path, &encode(1, b"old").unwrap(), 0o600).unwrap();
                disk.cut_after(cut);
                let _ = disk.write(path, &encode(2, b"new").unwrap(), 0o600);
                neither += usize::from(state(&Arc::new(disk.after_power_cut(seed))) == Found::Lost);
            }
        }
        assert!(neither > 0);
    }

    #[test]
    fn a_record_cut_at_any_byte_leaves_the_other_one() {
        let whole = encode(2, b"new").unwrap();
        for length in 0..whole.len() {
            let disk = Arc::new(disk());
            let mut pair = Pair::open(Arc::<CrashDisk>::clone(&disk), Path::new(FOLDER), "s").0;
            pair.write(b"old").unwrap();
            disk.write(Path::new("/state/s.1"), &whole[..length], 0o600).unwrap();
            assert_eq!(state(&disk), Found::Survivor(b"old".to_vec()), "{length} bytes");
            // A torn overwrite in place: the front of the new record, the rest of an old one.
            let mut mixed = encode(0, b"odd").unwrap();
            mixed[..length].copy_from_slice(&whole[..length]);
            disk.write(Path::new("/state/s.1"), &mixed, 0o600).unwrap();
            assert_eq!(state(&disk).body(), Some(&b"old"[..]), "{length} bytes over an old record");
        }
    }

    #[test]
    fn a_write_that_failed_does_not_put_the_good_record_at_risk() {
        let disk = Arc::new(disk());
        let mut pair = Pair::open(Arc::<CrashDisk>::clone(&disk), Path::new(FOLDER), "s").0;
        pair.write(b"one").unwrap();
        pair.write(b"two").unwrap();
        disk.cut_after(1);
        assert!(pair.write(b"three").is_err());
        assert!(pair.write(b"four").is_err());
        for seed in 0..20 {
            assert_eq!(state(&Arc::new(disk.after_power_cut(seed))).body(), Some(&b"two"[..]));
        }
    }

    #[test]
    fn a_record_that_rotted_or_went_is_told_whichever_it_was_until_the_next_write() {
        for written in 1..5_u8 {
            for which in ["/state/s.0", "/state/s.1"].map(Path::new) {
                for remove in [false, true] {
                    let disk = Arc::new(disk());
                    let mut pair = Pair::open(Arc::<CrashDisk>::clone(&disk), Path::new(FOLDER), "s").0;
                    (1..=written).for_each(|n| pair.write(&[n]).unwrap());
                    if disk.open(which).is_err() {
                        assert_eq!(state(&disk), Found::Record(vec![1]), "there never was a second");
                        continue;
                    }
                    if remove {
                        disk.remove_file(which).unwrap()
                    } else {
                        disk.rot(which, 16)
                    }
                    let (mut pair, found) = Pair::open(Arc::<CrashDisk>::clone(&disk), Path::new(FOLDER), "s");
                    let why = format!("{written} written, {which:?}, removed: {remove}: {found:?}");
                    match &found {
                        Found::Survivor(body) => assert!(*body == [written] || *body == [written - 1], "{why}"),
                        Found::Lost => assert!(written == 1 && !remove, "{why}"),
                        Found::Fresh => assert!(written == 1 && remove, "{why}"),
                        // The first record alone is also what a device has that never wrote a second.
                        Found::Record(body) => assert!(written == 2 && remove && *body == [1], "{why}"),
                    }
                    pair.write(&[9]).unwrap();
                    let healed = matches!(found, Found::Survivor(_) | Found::Record(_));
                    assert_eq!(state(&disk), Found::Record(vec![9]), "{why}");
                    assert!(!healed || disk.open(which).is_ok(), "{why}");
                }
            }
        }
    }

    #[test]
    fn two_broken_records_are_lost_and_not_fresh() {
        let disk = Arc::new(disk());
        assert_eq!(state(&disk), Found::Fresh);
        disk.write(Path::new("/state/s.0"), b"TGP1", 0o600).unwrap();
        assert_eq!(state(&disk), Found::Lost);
    }
}
