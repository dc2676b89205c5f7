//! Whether the process that served a bundle on trial ended as it should.
//!
//! ```text
//! trust/trial.0 and .1   (store/pair); body:
//!   off  size  field
//!   0    1     version = 1
//!   1    16    boot id          the boot that the ends were counted in
//!   17   32    bundle           on trial
//!   49   1     ends             abnormal ends of its trial in that boot
//!   50   1     runs             1 while a process serves it
//! ```
//!
//! A process notes that it runs, and takes the note back when it ends in order, whatever the exit code. A note that a
//! start of the same boot finds open is an abnormal end: a panic, the watchdog, a fatal signal. One of another boot
//! is a power cut, which says nothing of the bundle. Where a note cannot be written an end goes uncounted: the trial
//! lasts longer, and nothing else.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::clock::BootId;
use crate::disk::Disk;
use crate::ids::Digest;
use crate::store::pair::Pair;

/// So many abnormal ends within one boot make a bundle known bad.
pub(super) const MAX_ENDS: u8 = 3;

const VERSION: u8 = 1;

/// The note, and the process's hold on it.
#[derive(Debug)]
pub(super) struct Trial {
    pair: Pair,
    note: Option<Note>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Note {
    boot: BootId,
    bundle: Digest,
    ends: u8,
    runs: bool,
}

impl Trial {
    /// Reads the note in `folder`; one that cannot be read counts as none.
    pub(super) fn open(disk: Arc<dyn Disk>, folder: &Path) -> Self {
        let (pair, found) = Pair::open(disk, folder, "trial");
        Self { pair, note: found.body().and_then(Note::from_bytes) }
    }

    /// Notes that this process serves `bundle`, and tells how often one that did ended abnormally in this boot.
    pub(super) fn begin(&mut self, bundle: Digest, boot: BootId) -> (u8, io::Result<()>) {
        let same = self.note.filter(|note| note.boot == boot && note.bundle == bundle);
        let ends = same.map_or(0, |note| note.ends.saturating_add(u8::from(note.runs)));
        (ends, self.put(Note { boot, bundle, ends, runs: true }))
    }

    /// Takes the note back: what becomes of this process says nothing of the bundle from here on.
    pub(super) fn end(&mut self) -> io::Result<()> {
        match self.note {
            Some(note) if note.runs => self.put(Note { runs: false, ..note }),
            _ => Ok(()),
        }
    }

    fn put(&mut self, note: Note) -> io::Result<()> {
        self.pair.write(&note.to_bytes())?;
        self.note = Some(note);
        Ok(())
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = self.end(); // else an orderly end counts for an abnormal one: two more are wanted
        }
    }
}

impl Note {
    fn to_bytes(self) -> Vec<u8> {
        [&[VERSION][..], &self.boot.0, &self.bundle.0, &[self.ends, u8::from(self.runs)]].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&[version], rest) = bytes.split_first_chunk::<1>()?;
        let (boot, rest) = rest.split_first_chunk::<16>()?;
        let (bundle, rest) = rest.split_first_chunk::<32>()?;
        let &[ends, runs @ (0 | 1)] = rest else { return None };
        (version == VERSION).then_some(Self { boot: BootId(*boot), bundle: Digest(*bundle), ends, runs: runs == 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::double::CrashDisk;

    const BOOT: BootId = BootId([1; 16]);
    const BUNDLE: Digest = Digest([2; 32]);

    fn opened(disk: &Arc<CrashDisk>) -> Trial {
        Trial::open(Arc::<CrashDisk>::clone(disk), Path::new("/trust"))
    }

    fn disk() -> Arc<CrashDisk> {
        let disk = CrashDisk::new();
        disk.create_folder(Path::new("/trust")).expect("power");
        Arc::new(disk)
    }

    #[test]
    fn only_ends_out_of_order_within_one_boot_count() {
        let disk = disk();
        let run = |bundle, boot, in_order: bool| {
            let mut trial = opened(&disk);
            let ends = trial.begin(bundle, boot).0;
            if !in_order {
                std::mem::forget(trial);
            }
            ends
        };
        assert_eq!(run(BUNDLE, BOOT, false), 0);
        assert_eq!(run(BUNDLE, BOOT, true), 1, "the process before ended out of order");
        assert_eq!(run(BUNDLE, BOOT, false), 1, "the one before did not");
        assert_eq!(run(BUNDLE, BOOT, false), 2);
        assert_eq!(run(BUNDLE, BootId([9; 16]), false), 0, "a power cut says nothing");
        assert_eq!(run(Digest([3; 32]), BootId([9; 16]), false), 0, "another bundle");
    }

    #[test]
    fn a_note_of_another_form_is_none() {
        let note = Note { boot: BOOT, bundle: BUNDLE, ends: 2, runs: true };
        let bytes = note.to_bytes();
        assert_eq!(Note::from_bytes(&bytes), Some(note));
        for end in 0..bytes.len() {
            assert_eq!(Note::from_bytes(&bytes[..end]), None, "cut at {end}");
        }
        for (at, value) in [(0, 2), (50, 2)] {
            let mut other = bytes.clone();
            other[at] = value;
            assert_eq!(Note::from_bytes(&other), None, "byte {at}");
        }
        assert_eq!(Note::from_bytes(&[bytes, vec![0]].concat()), None);
    }
}
