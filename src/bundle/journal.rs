//! What happened to the device's policy: append-only JSON lines, each holding the hash of the one before.
//!
//! ```text
//! journal/NNNNNNNN.jsonl   canonical JSON, one object a line, at most 1 MiB a file, the newest 16 files kept
//! prev                     SHA-256 of the line before, without its line feed; across files too
//! ```
//!
//! A line is durable when [`Journal::append`] returns. A torn last line was never acknowledged and is cut
//! off at the next start; any other break is kept as it is, and told by the first line of a new file. A start
//! looks at the newest file and the one before it; [`read`] checks all.
//!
//! The kept files hold so much and no more, so nobody may fill them at will. Offers that change nothing are
//! rate-limited: whoever can offer files could else wear the flash out and push out what matters; what was
//! not written is counted in the next line. Starts are, too: a device that cannot stay up restarts every two
//! seconds, and each start would say the same.

mod examine;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use examine::{Examined, examine, examine_file};

use super::canonical;
use super::error::{Refused, plain};
use super::manifest::Author;
use super::trust::Rotated;
use super::verify::Findings;
use crate::clock::BootId;
use crate::disk::Disk;
use crate::ids::{Digest, KeyId};
use crate::keys::sha256;
use crate::units::{TimeBounds, TimeQuality, UnixSeconds};

/// A file longer than this is closed, and the next one begun.
pub const MAX_FILE: u64 = 1 << 20;
/// So many files are kept.
pub const MAX_FILES: usize = 16;
/// Offers that changed nothing which may be written at once; one more every [`OFFER_EVERY`].
pub const OFFER_BURST: u32 = 20;
/// How often a further offer that changed nothing may be written.
pub const OFFER_EVERY: Duration = Duration::from_secs(30);
/// How often starts of one boot that all serve the same are written.
pub const START_EVERY: Duration = Duration::from_secs(3_600);
/// So many alarms of a process are written whatever came lately, each once.
pub const MAX_ALARMS: usize = 16;

/// A file is closed before a line that would pass [`MAX_FILE`]; no line is longer than this.
const MAX_LINE: u64 = 16 << 10;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// The device started, and serves what the line says; not written where that is known ([`START_EVERY`]).
    Started,
    /// The active slot did not verify or failed its trial; the line says what serves instead.
    FellBack,
    /// Nothing that is there verifies: every route is refused.
    SafeMode,
    /// The state records were lost, and were made again from the slots.
    StateLost,
    /// One of the two records of the state or of the time floor was broken, and was written again.
    StateDamaged,
    /// The journal had a break; this line begins after it.
    JournalBroken,
    /// A root that a bundle brought is trusted from here on, whatever became of the bundle; the digest is the root's.
    RootRotated,
    /// A policy has served for as long as a trial lasts.
    TrialPassed,
    /// A bundle was offered.
    Import,
    /// The state folder is on another machine than before; the result says how, the detail what became of the usage.
    CardMoved,
    /// The receipt could not be put beside what was offered.
    Unreceipted,
}

/// How far the chain had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// The number of the newest file.
    pub file: u32,
    /// The hash of the last line.
    pub hash: Digest,
    /// The bytes of that file, the last line's line feed included.
    pub length: u64,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// What happened.
    pub event: Event,
    /// The name of how it ended: a refusal's, or `Activated`, `Permitted`, `TimeReset`, `AlreadyInstalled`, `Serving`,
    /// `Nothing`, `StateDamaged`, `RootRotated`, `TrialPassed`, `Unreceipted`, `CardCloned`,
    /// `CardRestored`.
    pub result: String,
    /// What was found, for people.
    pub detail: String,
    /// The least that the time was.
    pub at: UnixSeconds,
    /// What that is worth.
    pub quality: TimeQuality,
    /// The boot that it happened in.
    pub boot: String,
    /// The bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Its sequence number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// Keys of the role with good signatures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signers: Vec<KeyId>,
    /// Who made it, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<Author>,
    /// How it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub medium: Option<String>,
    /// The name of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// SHA-256 of the whole file as it was copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_sha256: Option<Digest>,
    /// Offers since the line before that changed nothing and were not written.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub suppressed: u64,
    /// The hash of the line before.
    pub prev: Digest,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Line {
    /// A line of `event`, to be filled and appended.
    #[must_use]
    pub fn new(event: Event, result: &str, now: TimeBounds) -> Self {
        Self {
            event,
            result: result.into(),
            detail: String::new(),
            at: now.lower,
            quality: now.quality,
            boot: BootId::now().to_string(),
            digest: None,
            seq: None,
            signers: Vec::new(),
            author: None,
            medium: None,
            file: None,
            file_sha256: None,
            suppressed: 0,
            prev: ORIGIN,
        }
    }

    /// With what came to light about the bundle.
    #[must_use]
    pub fn about(mut self, found: &Findings) -> Self {
        self.digest = found.digest;
        self.seq = found.seq;
        self.signers.clone_from(&found.signers);
        self.author.clone_from(&found.author);
        self
    }

    /// The line of a root that came with the bundle that this line is about.
    #[must_use]
    pub fn rotated(self, by: &Rotated) -> Self {
        let detail = format!("version {} of epoch {}", by.root.version(), by.root.epoch());
        let (digest, signers) = (Some(by.root.digest()), by.signers.clone());
        let (event, result) = (Event::RootRotated, "RootRotated".into());
        Self { event, result, digest, signers, seq: None, author: None, ..self }.saying(&detail)
    }

    /// With a detail for people.
    #[must_use]
    pub fn saying(mut self, detail: &str) -> Self {
        self.detail = plain(detail);
        self
    }

    /// Whether a start that this line tells of was like the one of `other`, and not long ago.
    fn is_start_like(&self, other: &Self) -> bool {
        (self.event, self.digest) == (other.event, other.digest)
            && (&self.result, &self.detail, &self.boot) == (&other.result, &other.detail, &other.boot)
            && self.at.abs_diff(other.at) < START_EVERY.as_secs()
    }

    fn is_activation(&self) -> bool {
        self.event == Event::Import && self.result == "Activated"
    }
}

/// What the first line of all has as `prev`.
const ORIGIN: Digest = Digest([0; 32]);

/// The journal, open for appending.
#[derive(Debug)]
pub struct Journal {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    number: u32,
    length: u64,
    prev: Digest,
    /// A write failed: what the file ends with is not known.
    doubtful: bool,
    /// A break that no line tells of yet.
    untold: Option<Refused>,
    /// The newest file's last start, if nothing was activated since.
    started: Option<Line>,
    allowance: Allowance,
    /// What was written beside the allowance.
    alarms: Vec<Digest>,
}

impl Journal {
    /// Opens the journal in `folder`, which must be there. A break is left as it is, and the next line will
    /// stand in a new file after one that tells of it.
    pub fn open(disk: Arc<dyn Disk>, folder: &Path) -> Self {
        let mut journal = Self {
            disk,
            folder: folder.to_owned(),
            number: 1,
            length: 0,
            prev: ORIGIN,
            doubtful: false,
            untold: None,
            started: None,
            allowance: Allowance { left: OFFER_BURST, since: Duration::ZERO, suppressed: 0 },
            alarms: Vec::new(),
        };
        journal.resume_or_begin();
        journal
    }

    /// The break that was found and is not yet told.
    #[must_use]
    pub fn broken(&self) -> Option<&Refused> {
        self.untold.as_ref()
    }

    fn resume_or_begin(&mut self) {
        (self.started, self.length) = (None, 0);
        if let Err(detail) = self.resume() {
            // An empty file is begun already: a full disk kept its first line out. One more at each try would in time
            // push out those that hold something.
            let is_begun = self.disk.open(&self.path()).is_ok_and(|(_, length)| length == 0);
            self.number = self.number.saturating_add(u32::from(!is_begun));
            self.untold = Some(Refused::JournalBroken(detail));
        }
    }

    /// Goes on after the last whole line of the newest file.
    fn resume(&mut self) -> Result<(), String> {
        let numbers = numbers(&*self.disk, &self.folder).map_err(|error| error.to_string())?;
        let Some((newest, before)) = numbers.split_last() else { return Ok(()) };
        self.number = *newest;
        let told = |what: String| format!("{newest:08}.jsonl: {what}");
        let bytes = self.read(*newest).map_err(|error| told(error.to_string()))?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let (kept, torn) = bytes.split_at(whole);
        // A file whose only line was torn off follows the one before it.
        let earlier = || before.last().and_then(|number| last_hash(&self.read(*number).ok()?));
        self.prev = last_hash(kept).or_else(earlier).unwrap_or(ORIGIN);
        let lines = check(kept, None).map_err(told)?;
        if !torn.is_empty() {
            self.disk.cut(&self.path(), kept.len() as u64).map_err(|error| told(error.to_string()))?;
        }
        self.check_before(*newest, before.last().copied(), lines.first().map(|(line, _)| line))?;
        self.length = kept.len() as u64;
        let mut said = lines.into_iter().map(|(line, _)| line).rev();
        self.started = said.find(|line| line.event == Event::Started || line.is_activation());
        self.started.take_if(|line| line.is_activation());
        Ok(())
    }

    /// The file `before` the newest is there, is whole, and ends with what the newest's `first` line follows. One
    /// that begins with a break has told of it: every start would else find it again.
    fn check_before(&self, newest: u32, before: Option<u32>, first: Option<&Line>) -> Result<(), String> {
        if first.is_some_and(|line| line.event == Event::JournalBroken) {
            return Ok(());
        }
        let told = |what: String| format!("{:08}.jsonl: {what}", newest.saturating_sub(1));
        let last = match before {
            _ if newest == 1 => ORIGIN,
            Some(number) if number.saturating_add(1) == newest => {
                let bytes = self.read(number).map_err(|error| told(error.to_string()))?;
                let lines = check(&bytes, None).map_err(told)?;
                lines.last().map(|(_, hash)| *hash).ok_or_else(|| told("it is empty".into()))?
            }
            Some(_) | None => return Err(told("it is missing".into())),
        };
        if first.is_some_and(|line| line.prev != last) {
            return Err(told("its end is not what the next file follows".into()));
        }
        Ok(())
    }

    fn read(&self, number: u32) -> io::Result<Vec<u8>> {
        self.disk.read(&path(&self.folder, number), MAX_FILE + MAX_LINE)
    }

    /// Appends a line; it is durable when this returns.
    pub fn append(&mut self, line: Line) -> io::Result<()> {
        if self.doubtful {
            self.resume_or_begin();
        }
        if let Some(broken) = &self.untold {
            let now = TimeBounds { lower: line.at, upper: None, quality: line.quality };
            self.put(Line::new(Event::JournalBroken, broken.name(), now).saying(broken.detail()))?;
            self.untold = None;
        }
        self.put(line)
    }

    fn put(&mut self, mut line: Line) -> io::Result<()> {
        line.suppressed = self.allowance.suppressed;
        line.prev = self.prev;
        let mut bytes = canonical::write(&line).map_err(io::Error::other)?;
        let hash = sha256(&bytes);
        bytes.push(b'\n');
        if self.length > 0 && self.length + bytes.len() as u64 > MAX_FILE {
            self.number = self.number.saturating_add(1);
            self.length = 0;
        }
        let begins = self.length == 0;
        self.doubtful = true;
        self.disk.append(&self.path(), &bytes)?;
        if begins {
            self.disk.sync_folder(&self.folder)?;
            self.drop_oldest()?;
        }
        self.length += bytes.len() as u64;
        self.prev = hash;
        self.doubtful = false;
        self.allowance.suppressed = 0;
        if line.event == Event::Started || line.is_activation() {
            self.started = (line.event == Event::Started).then_some(line);
        }
        Ok(())
    }

    /// Appends the line of an offer that changed nothing, unless too many came lately; `boot` is CLOCK_BOOTTIME.
    pub fn append_unchanged(&mut self, line: Line, boot: Duration) -> io::Result<()> {
        if self.allowance.take(boot) { self.append(line) } else { Ok(()) }
    }

    /// The same for an alarm, which garbage must not keep out: the first line of each bundle is written in any case. It has
    /// good signatures, so only who has the keys for it can make more; after [`MAX_ALARMS`] these are as others.
    pub fn append_alarm(&mut self, line: Line, boot: Duration) -> io::Result<()> {
        match line.digest {
            Some(bundle) if self.alarms.len() < MAX_ALARMS && !self.alarms.contains(&bundle) => {
                self.append(line)?;
                self.alarms.push(bundle);
                Ok(())
            }
            _ => self.append_unchanged(line, boot),
        }
    }

    /// Appends a start: `why` it does not serve what was chosen, and what it serves. Nothing where the last start of
    /// this boot said just that, less than [`START_EVERY`] ago.
    pub fn append_start(&mut self, why: Option<Line>, started: Line) -> io::Result<()> {
        if self.untold.is_none() && self.started.as_ref().is_some_and(|last| last.is_start_like(&started)) {
            return Ok(());
        }
        why.into_iter().chain([started]).try_for_each(|line| self.append(line))
    }

    /// Where the chain ends.
    #[must_use]
    pub fn position(&self) -> Position {
        Position { file: self.number, hash: self.prev, length: self.length }
    }

    fn path(&self) -> PathBuf {
        path(&self.folder, self.number)
    }

    fn drop_oldest(&self) -> io::Result<()> {
        let numbers = numbers(&*self.disk, &self.folder)?;
        let surplus = numbers.len().saturating_sub(MAX_FILES);
        numbers.iter().take(surplus).try_for_each(|number| self.disk.remove_file(&path(&self.folder, *number)))
    }
}

/// Reads and checks the whole journal in `folder`, oldest line first; `JournalBroken` says where it breaks.
pub fn read(disk: &dyn Disk, folder: &Path) -> Result<Vec<Line>, Refused> {
    let broken = |detail: String| Refused::JournalBroken(detail);
    let numbers = numbers(disk, folder).map_err(|error| broken(error.to_string()))?;
    let mut lines = Vec::new();
    let mut before: Option<(u32, Digest)> = None;
    for number in numbers {
        let path = path(folder, number);
        let told = |detail: String| broken(format!("{}: {detail}", path.display()));
        if before.is_some_and(|(last, _)| last.saturating_add(1) != number) {
            return Err(told("the file before it is missing".into()));
        }
        let bytes = disk.read(&path, MAX_FILE + MAX_LINE).map_err(|error| told(error.to_string()))?;
        // The oldest file's first line may follow one that is no longer kept.
        let prev = before.map(|(_, hash)| hash).or((number == 1).then_some(ORIGIN));
        let checked = check(&bytes, prev).map_err(told)?;
        let hash = checked.last().map(|(_, hash)| *hash).or(prev).unwrap_or(ORIGIN);
        before = Some((number, hash));
        lines.extend(checked.into_iter().map(|(line, _)| line));
    }
    Ok(lines)
}

/// The lines of one file with their hashes, if each follows the one before.
fn check(bytes: &[u8], prev: Option<Digest>) -> Result<Vec<(Line, Digest)>, String> {
    let mut prev = prev;
    let mut lines = Vec::new();
    for (at, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let broken = |what: &str| format!("line {}: {what}", at + 1);
        let line = line.strip_suffix(b"\n").ok_or_else(|| broken("it is cut off"))?;
        let parsed: Line = serde_json::from_slice(line).map_err(|_| broken("not a line of the journal"))?;
        if prev.is_some_and(|prev| prev != parsed.prev) {
            return Err(broken("it does not follow the line before"));
        }
        let hash = sha256(line);
        prev = Some(hash);
        lines.push((parsed, hash));
    }
    Ok(lines)
}

fn last_hash(bytes: &[u8]) -> Option<Digest> {
    let last = bytes.strip_suffix(b"\n")?.rsplit(|byte| *byte == b'\n').next()?;
    Some(sha256(last))
}

fn numbers(disk: &dyn Disk, folder: &Path) -> io::Result<Vec<u32>> {
    let names = disk.list(folder)?;
    Ok(names.iter().filter_map(|name| name.strip_suffix(".jsonl")?.parse().ok()).collect())
}

fn path(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{number:08}.jsonl"))
}

/// How many offers that changed nothing may still be written.
#[derive(Debug)]
struct Allowance {
    left: u32,
    since: Duration,
    suppressed: u64,
}

impl Allowance {
    fn take(&mut self, now: Duration) -> bool {
        let earned = now.saturating_sub(self.since).as_secs() / OFFER_EVERY.as_secs();
        if earned > 0 {
            self.left = self.left.saturating_add(u32::try_from(earned).unwrap_or(u32::MAX)).min(OFFER_BURST);
            self.since = now;
        }
        if let Some(left) = self.left.checked_sub(1) {
            self.left = left;
            return true;
        }
        self.suppressed = self.suppressed.saturating_add(1);
        false
    }
}

#[cfg(test)]
mod tests;
