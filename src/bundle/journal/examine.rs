//! A journal as somebody finds it: every line that can be read, and every place where the chain breaks.

use std::io;
use std::path::Path;

use super::{Line, MAX_FILE, MAX_LINE, ORIGIN, numbers, path};
use crate::disk::Disk;
use crate::ids::Digest;
use crate::keys::sha256;

/// What a journal holds, sound or not.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Examined {
    /// The lines that can be read, oldest first.
    pub lines: Vec<Line>,
    /// Where it breaks, file and line; none: every line follows the one before.
    pub breaks: Vec<String>,
    /// A last line that was not written to its end: a power cut, which the next start tidies up. No break.
    pub torn: Option<String>,
}

/// Reads all files of the journal in `folder`; an error is a folder that cannot be listed.
pub fn examine(disk: &dyn Disk, folder: &Path) -> io::Result<Examined> {
    let numbers = numbers(disk, folder)?;
    let mut found = Examined::default();
    let mut before: Option<(u32, Option<Digest>)> = None;
    for number in &numbers {
        let name = format!("{number:08}.jsonl");
        let is_next = before.is_none_or(|(last, _)| last.saturating_add(1) == *number);
        if !is_next {
            found.breaks.push(format!("{name}: the file before it is missing"));
        }
        // The oldest file that is kept may follow one that is no longer.
        let prev = match before {
            Some((_, prev)) => prev.filter(|_| is_next),
            None => (*number == 1).then_some(ORIGIN),
        };
        let last = match disk.read(&path(folder, *number), MAX_FILE + MAX_LINE) {
            Ok(bytes) => found.take(&name, &bytes, prev, numbers.last() == Some(number)),
            Err(error) => {
                found.breaks.push(format!("{name}: {error}"));
                None
            }
        };
        before = Some((*number, last));
    }
    Ok(found)
}

/// The same of one file alone, whose first line may follow any.
#[must_use]
pub fn examine_file(name: &str, bytes: &[u8]) -> Examined {
    let mut found = Examined::default();
    found.take(name, bytes, None, true);
    found
}

impl Examined {
    /// Takes the lines of a file; gives the hash of its last line. `prev` is that of the one before, where it is known.
    fn take(&mut self, name: &str, bytes: &[u8], prev: Option<Digest>, is_newest: bool) -> Option<Digest> {
        let mut prev = prev;
        for (at, raw) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let told = |what: &str| format!("{name}: line {}: {what}", at + 1);
            let Some(line) = raw.strip_suffix(b"\n") else {
                if is_newest {
                    self.torn = Some(told("it was not written to its end; the next start cuts it off"));
                } else {
                    self.breaks.push(told("it is cut off"));
                }
                return prev;
            };
            match serde_json::from_slice::<Line>(line) {
                Ok(parsed) => {
                    if prev.is_some_and(|prev| prev != parsed.prev) {
                        self.breaks
                            .push(told("it does not follow the line before, which was altered, or some are missing"));
                    }
                    self.lines.push(parsed);
                }
                Err(_) => self.breaks.push(told("not a line of the journal")),
            }
            prev = Some(sha256(line));
        }
        prev
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::bundle::journal::{Event, Journal};
    use crate::disk::Machine;
    use crate::units::{TimeBounds, TimeQuality};

    fn journal(lines: usize) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(std::sync::Arc::new(Machine), folder.path());
        let now = TimeBounds { lower: 1_800_000_000, upper: None, quality: TimeQuality::Floor };
        for n in 0..lines {
            journal.append(Line::new(Event::Import, "Activated", now).saying(&format!("bundle {n}"))).unwrap();
        }
        folder
    }

    #[test]
    fn a_sound_journal_has_no_break_and_every_altered_byte_makes_one() {
        let folder = journal(4);
        let file = folder.path().join("00000001.jsonl");
        let sound = examine(&Machine, folder.path()).unwrap();
        assert_eq!((sound.lines.len(), &sound.breaks[..], &sound.torn), (4, &[][..], &None));
        let bytes = fs::read(&file).unwrap();
        let last = bytes[..bytes.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
        // Of the last line only its own form can be judged: nothing follows it yet.
        for at in (0..last).step_by(7) {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            fs::write(&file, &altered).unwrap();
            assert!(!examine(&Machine, folder.path()).unwrap().breaks.is_empty(), "{at}");
        }
    }

    #[test]
    fn a_break_is_told_by_its_place_and_what_stands_after_it_is_still_read() {
        let folder = journal(4);
        let file = folder.path().join("00000001.jsonl");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replacen("bundle 1", "bundle 7", 1)).unwrap();
        let found = examine(&Machine, folder.path()).unwrap();
        assert_eq!((found.lines.len(), found.breaks.len()), (4, 1));
        assert!(found.breaks[0].starts_with("00000001.jsonl: line 3: it does not follow"), "{:?}", found.breaks);
        let without: Vec<_> = text.lines().enumerate().filter(|(at, _)| *at != 1).map(|(_, line)| line).collect();
        fs::write(&file, without.join("\n") + "\n").unwrap();
        let found = examine(&Machine, folder.path()).unwrap();
        assert!(found.breaks[0].starts_with("00000001.jsonl: line 2: it does not follow"), "{:?}", found.breaks);
    }

    #[test]
    fn a_half_written_last_line_is_told_and_is_no_break() {
        let folder = journal(3);
        let file = folder.path().join("00000001.jsonl");
        let bytes = fs::read(&file).unwrap();
        let last = bytes[..bytes.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
        for length in [last + 1, bytes.len() - 1] {
            fs::write(&file, &bytes[..length]).unwrap();
            let found = examine(&Machine, folder.path()).unwrap();
            assert_eq!((found.lines.len(), &found.breaks[..], found.torn.is_some()), (2, &[][..], true), "{length}");
        }
        // In an older file nothing was cut off by a power cut.
        fs::write(folder.path().join("00000002.jsonl"), b"").unwrap();
        assert_eq!(examine(&Machine, folder.path()).unwrap().breaks.len(), 1);
    }
}
