//! One case on one device: what it has before, what befalls it, what arrives, and what must be the same afterwards.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use tidegate::bundle::document::Document;
use tidegate::bundle::enrolment::Enrolment;
use tidegate::bundle::journal::{self, Line};
use tidegate::bundle::{Compile, DeviceFacts, ImportOutcome, Imported, Origin, outcome, pack};
use tidegate::clock::BootId;
use tidegate::disk::Machine;
use tidegate::ids::{Digest, KeyId};
use tidegate::keys::PublicKey;
use tidegate::store::time::{BUILD_TIME, HUB_LIMIT, Known, TimeFile};
use tidegate::units::UnixSeconds;

use super::arrange::{self, Way};
use super::case::{Arrange, Case, Damage, Facts, How, Offer, Start, Told};
use crate::source::Unkind;
use crate::world::{Device, Policy};

/// What all cases share: the files of `cases/world`, and devices that have taken what cases want taken before.
pub struct World {
    folder: PathBuf,
    pub root: Vec<u8>,
    pub facts: DeviceFacts,
    pub medium: String,
    pub compile: Compile<Policy>,
    /// The least that the time is when a device is first started, as a program of that day would have it.
    pub floor: Option<UnixSeconds>,
    prepared: HashMap<Vec<Vec<u8>>, Device>,
}

/// The seam of steps 15 and 16: the real one, whose policy is told by its digest alone.
fn compile(entries: &tidegate::bundle::Entries) -> Result<Policy, tidegate::bundle::SemanticProblem> {
    tidegate::bundle::compile(entries).map(|_| Policy::new())
}

/// A case under way.
pub struct Stage<'w> {
    pub world: &'w World,
    pub folder: &'w Path,
    pub device: Device,
    pub disk: Arc<Unkind>,
    /// What must serve.
    serves: Option<Digest>,
    chain_broken: bool,
    was_reset: bool,
}

/// What no refusal may change.
pub struct Before {
    kept: Vec<(PathBuf, Vec<u8>)>,
    force: Force,
    floor: UnixSeconds,
    minutes: u64,
    lines: usize,
}

/// What a device goes by, beside the time.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Force {
    serving: Option<Digest>,
    list: Option<Digest>,
    labels: BTreeMap<String, String>,
    enrolled: Option<Digest>,
    /// The newest root, and its keys of the role hub.
    root: (u64, Vec<KeyId>),
}

impl World {
    pub fn read(cases: &Path) -> Result<Self, String> {
        let folder = cases.join("world");
        let facts: Facts = toml::from_str(&text(&folder.join("device.toml"))?).map_err(said)?;
        Ok(Self {
            root: bytes(&folder.join("root.json"))?,
            folder: cases.to_owned(),
            facts: DeviceFacts { id: facts.id, labels: facts.labels },
            medium: facts.medium,
            compile,
            floor: None,
            prepared: HashMap::new(),
        })
    }

    /// Runs the case in `folder`; what went otherwise than it says.
    pub fn run(&mut self, folder: &Path) -> Result<(), String> {
        let case = Case::read(folder)?;
        if case.offer.is_empty() && case.start.is_none() {
            return Err("nothing is offered, and no start is looked at".into());
        }
        let before: Vec<_> = case.before.iter().map(|name| self.file(folder, name)).collect::<Result<_, _>>()?;
        let named: HashMap<&str, &[u8]> =
            case.before.iter().map(String::as_str).zip(before.iter().map(Vec::as_slice)).collect();
        self.prepare(&before)?;
        let disk = Arc::new(Unkind::default());
        let mut device = copied(&self.prepared[&before], Arc::<Unkind>::clone(&disk));
        for _ in 0..case.start.as_ref().map_or(0, |start| start.ends) {
            device.start();
            // What is on the disk while the process runs is all that an end out of order leaves.
            device = copied(&device, Arc::<Unkind>::clone(&disk));
        }
        for damage in &case.damage {
            befall(&device, damage, &named)?;
        }
        let mut stage =
            Stage { world: self, folder, device, disk, serves: None, chain_broken: false, was_reset: false };
        stage.start(&case, &named)?;
        for offer in &case.offer {
            stage.offer(offer).map_err(|error| format!("{}: {error}", offer.file))?;
        }
        let before = stage.before()?;
        stage.device.start();
        stage.still_serves("after a restart")?;
        let after = stage.before()?;
        if after.force != before.force {
            return Err(format!("after a restart {:?} is in force, and not {:?}", after.force, before.force));
        }
        // What serves says when it was made, and that counts after a reset too where it is near.
        let near = if stage.was_reset { HUB_LIMIT } else { 0 };
        after.is_later(&before, before.floor, near).map_err(|error| format!("after a restart {error}"))
    }

    pub fn file(&self, folder: &Path, name: &str) -> Result<Vec<u8>, String> {
        bytes(&if name.starts_with("world/") { self.folder.join(name) } else { folder.join(name) })
    }

    /// A device that has taken these.
    fn prepare(&mut self, before: &[Vec<u8>]) -> Result<(), String> {
        if self.prepared.contains_key(before) {
            return Ok(());
        }
        let mut device = Device::off(in_memory(), Arc::new(Machine), &self.root, self.facts.clone(), self.compile);
        if let Some(floor) = self.floor {
            let trust = device.state().join("trust");
            fs::create_dir(&trust).map_err(said)?;
            let known = Known { build: floor, signed: floor, used: false, epoch: 0 };
            let now = device.now();
            TimeFile::open(Arc::new(Machine), &trust, BootId::now(), &now.reading, known).1.map_err(said)?;
        }
        device.start();
        for bytes in before {
            let name = device.offer(bytes).result.name();
            if !outcome::is_taken(name) || name == "AlreadyInstalled" {
                return Err(format!("what should be taken before is {name}"));
            }
        }
        // Each start writes the time down: from the second on there are two records of it, whenever the program was built.
        device.start();
        device.importer = None;
        self.prepared.insert(before.to_vec(), device);
        Ok(())
    }
}

/// Where nothing waits for a disk, if there is such a place: thousands of imports sync a dozen files each, and what a
/// power cut leaves is no matter here.
fn in_memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder")
}

/// A device of the same state folder, off.
fn copied(from: &Device, disk: Arc<Unkind>) -> Device {
    let root = fs::read(from.folder.path().join("root.json")).expect("the root");
    let mut device = Device::off(in_memory(), disk, &root, from.facts.clone(), from.compile);
    copy(&from.state(), &device.state());
    device.minutes = from.minutes;
    device
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a folder").map(|entry| entry.expect("an entry")) {
        let to = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            fs::create_dir(&to).expect("made");
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("copied");
        }
    }
}

/// The last of these that is a policy, by the name that the device has for it.
fn last_policy<'b>(files: impl DoubleEndedIterator<Item = &'b [u8]>) -> Option<Digest> {
    let policy = |bytes: &[u8]| bytes.starts_with(b"\x89TGB") && bytes.get(10) == Some(&1);
    files.rev().find(|bytes| policy(bytes)).and_then(|bytes| pack::digest(bytes).ok())
}

fn befall(device: &Device, Damage { file, how }: &Damage, named: &HashMap<&str, &[u8]>) -> Result<(), String> {
    let mut path = file.clone();
    for (name, bytes) in named {
        if let Ok(digest) = pack::digest(bytes) {
            path = path.replace(&format!("{{{name}}}"), &digest.to_string());
        }
    }
    let path = device.state().join(path);
    if *how == How::Added {
        return fs::write(&path, b"x").map_err(|error| format!("{}: {error}", path.display()));
    }
    let whole = bytes(&path)?;
    let middle = whole.len() / 2;
    let spoilt = match how {
        How::Torn => whole[..middle].to_vec(),
        How::Flipped => {
            let mut flipped = whole;
            *flipped.get_mut(middle).ok_or("an empty file has no bit to flip")? ^= 1;
            flipped
        }
        How::Emptied | How::Removed | How::Added => Vec::new(),
        How::Swapped => {
            let golden = named.get("world/golden.tgb").and_then(|bytes| pack::digest(bytes).ok());
            let slot = device.state().join("slots").join(golden.ok_or("no golden bundle before")?.to_string());
            bytes(&slot.join(path.file_name().ok_or("no name")?))?
        }
        How::LineRemoved => {
            let mut lines: Vec<_> = whole.split_inclusive(|byte| *byte == b'\n').collect();
            lines.remove(lines.len().checked_sub(2).ok_or("fewer than two lines")?);
            lines.concat()
        }
    };
    let done = if *how == How::Removed { fs::remove_file(&path) } else { fs::write(&path, spoilt) };
    done.map_err(|error| format!("{}: {error}", path.display()))
}

impl Before {
    /// The time is at least `floor` since `before`, and not later by more than `near`. The clock of these devices goes on by a minute a call, of which the
    /// floor takes a little less.
    fn is_later(&self, before: &Self, floor: UnixSeconds, near: UnixSeconds) -> Result<(), String> {
        let elapsed = i64::try_from(60 * (self.minutes - before.minutes)).expect("minutes");
        if (floor..=floor + elapsed + near).contains(&self.floor) {
            return Ok(());
        }
        Err(format!("the time floor is {}, and not {floor} (it was {})", self.floor, before.floor))
    }
}

impl Stage<'_> {
    /// Starts the device: what it serves, and what the journal says of it.
    fn start(&mut self, case: &Case, named: &HashMap<&str, &[u8]>) -> Result<(), String> {
        let all = || case.before.iter().filter_map(|name| named.get(name.as_str()).copied());
        let Start { journal, serves, chain_broken, .. } = case.start.clone().unwrap_or_default();
        self.serves = match serves.as_deref() {
            None => last_policy(all().collect::<Vec<_>>().into_iter()),
            Some("nothing") => None,
            Some(name) => last_policy(named.get(name).copied().into_iter()),
        };
        let before = if case.start.is_some() { self.lines_anyhow()?.len() } else { 0 };
        self.device.start();
        self.chain_broken = chain_broken;
        self.still_serves("after the start")?;
        let lines = self.lines()?;
        for name in &journal {
            if !lines.iter().skip(before).any(|line| line.result == *name) {
                let told: Vec<_> = lines.iter().skip(before).map(|line| &*line.result).collect();
                return Err(format!("the start tells {told:?} and not {name}"));
            }
        }
        match (&self.device.origin, &case.start) {
            (Origin::Active | Origin::Fresh, _) | (_, Some(_)) => Ok(()),
            (other, None) => Err(format!("what was taken before does not serve as it was: {other:?}")),
        }
    }

    fn still_serves(&self, when: &str) -> Result<(), String> {
        let serving = self.device.serving.as_ref().map(|(digest, _)| *digest);
        if serving == self.serves {
            Ok(())
        } else {
            Err(format!("{when} {serving:?} serves, and not {:?}", self.serves))
        }
    }

    fn offer(&mut self, offer: &Offer) -> Result<(), String> {
        let bytes = self.world.file(self.folder, &offer.file)?;
        match arrange::way(offer.arrange) {
            Way::Once => {
                let before = self.before()?;
                let outcome = self.arranged(offer.arrange, &bytes)?;
                self.judge(offer, &bytes, &before, outcome)
            }
            Way::Sweep(variants) => self.sweep(offer, &bytes, variants),
            Way::Refused(by) => {
                let before = self.before()?;
                let name = by(self, &bytes)?;
                self.named(&offer.expect, name)?;
                self.unchanged(offer, &before)?;
                self.told(offer, name, before.lines)
            }
        }
    }

    /// What is not to change until something is taken.
    pub fn before(&mut self) -> Result<Before, String> {
        let lines = self.lines()?.len();
        let now = self.device.now();
        let importer = self.device.importer.as_ref().ok_or("it does not run")?;
        let versions = fs::read_dir(self.device.state().join("trust/roots")).into_iter().flatten().flatten();
        let newest = versions.filter_map(|file| file.file_name().to_str()?.parse().ok()).max();
        Ok(Before {
            kept: self.device.kept(),
            force: Force {
                serving: self.device.serving.as_ref().map(|(digest, _)| *digest),
                list: self.device.list.as_ref().map(|(digest, _)| *digest),
                labels: importer.device().labels.clone(),
                enrolled: importer.enrolled(),
                root: (newest.unwrap_or(0), importer.hub_keys().map(PublicKey::id).collect()),
            },
            floor: importer.time().floor().bounds(&now.reading, false).lower,
            minutes: self.device.minutes,
            lines,
        })
    }

    fn judge(
        &mut self,
        offer: &Offer,
        bytes: &[u8],
        before: &Before,
        outcome: ImportOutcome<Policy>,
    ) -> Result<(), String> {
        let name = outcome.result.name();
        self.named(&offer.expect, name).map_err(|error| format!("{error}: {:?}", outcome.result))?;
        if outcome.receipt.result != name {
            return Err(format!("the receipt says {}", outcome.receipt.result));
        }
        if outcome.unrecorded.is_some() != (offer.journal == Some(Told::WithTrouble)) {
            return Err(format!("written down: {:?}", outcome.unrecorded));
        }
        if outcome.root != offer.root {
            return Err(format!("the root from here on is {:?}, and not {:?}", outcome.root, offer.root));
        }
        let mut force = before.force.clone();
        let mut floor = offer.floor.map_or(before.floor, |floor| floor.max(before.floor));
        match outcome.result {
            // What was taken is for the caller to put in force; which it is, is for the file to say.
            Imported::Activated(active) => {
                self.serves = pack::digest(bytes).ok();
                self.device.serving = Some((active.digest, active.policy));
                force.serving = self.serves;
            }
            Imported::Revoked(list) => {
                self.device.list = Some((list.digest, list.policy));
                force.list = pack::digest(bytes).ok();
            }
            Imported::Enrolled(_) => {
                let document = Document::parse(bytes).map_err(said)?;
                force.labels = document.read::<Enrolment>().map_err(said)?.labels;
                force.enrolled = Some(document.digest());
            }
            Imported::TimeReset { .. } => {
                floor = offer.floor.ok_or("a reset without a floor")?.max(BUILD_TIME);
                self.was_reset = true;
            }
            Imported::Permitted(_) | Imported::HandedOver { .. } | Imported::UsageMayLeave { .. } => {}
            Imported::Refused(_) | Imported::AlreadyInstalled | Imported::Defect(_) => {
                self.unchanged(offer, before)?;
                return self.told(offer, name, before.lines);
            }
        }
        let after = self.before()?;
        force.root = self.root_after(offer, before, &after)?;
        if after.force != force {
            return Err(format!("{:?} is in force, and not {force:?}", after.force));
        }
        after.is_later(before, floor, 0)?;
        self.still_serves("after it was taken")?;
        self.told(offer, name, before.lines)
    }

    /// The newest root that must be there: the one that the offer says, with whichever keys of the hub it has.
    fn root_after(&self, offer: &Offer, before: &Before, after: &Before) -> Result<(u64, Vec<KeyId>), String> {
        match offer.root {
            None => Ok(before.force.root.clone()),
            Some(version) if after.force.root.0 == version => Ok(after.force.root.clone()),
            Some(version) => Err(format!("the newest root is {}, and not {version}", after.force.root.0)),
        }
    }

    fn named(&self, expect: &[String], name: &str) -> Result<(), String> {
        if *expect == [name] { Ok(()) } else { Err(format!("{name}, and not {expect:?}")) }
    }

    /// State records, slots, what is in force, labels and the time are what they were.
    pub fn unchanged(&mut self, offer: &Offer, before: &Before) -> Result<(), String> {
        let after = self.before()?;
        let in_slot = |(path, _): &&(PathBuf, Vec<u8>)| path.components().any(|part| part.as_os_str() == "slots");
        let kept = match offer {
            // A root that follows is written down whatever became of the bundle that brought it.
            Offer { root: Some(_), .. } => before.kept.iter().filter(in_slot).eq(after.kept.iter().filter(in_slot)),
            // The record may have reached the disk, so the slot that it would name stays until the next start.
            Offer { arrange: Some(Arrange::BrokenStateDisk), .. } => {
                before.kept.iter().all(|file| after.kept.contains(file))
            }
            _ => after.kept == before.kept,
        };
        let floor = offer.floor.map_or(before.floor, |floor| floor.max(before.floor));
        if !kept {
            return Err("state records or slots changed".into());
        }
        let force = Force { root: self.root_after(offer, before, &after)?, ..before.force.clone() };
        if after.force != force {
            return Err(format!("{:?} is in force, and not {force:?}", after.force));
        }
        after.is_later(before, floor, 0)?;
        self.still_serves("after the refusal")
    }

    /// The journal has one line more for it, with the result and the medium.
    fn told(&self, offer: &Offer, name: &str, before: usize) -> Result<(), String> {
        let lines = self.lines()?;
        if offer.journal == Some(Told::Nothing) {
            return if lines.len() == before { Ok(()) } else { Err("the journal has another line".into()) };
        }
        let last = lines.last().filter(|_| lines.len() > before).ok_or("the journal has no line for it")?;
        if lines.iter().any(|line| line.file.iter().chain([&line.detail]).any(|text| text.contains(char::is_control))) {
            return Err("the journal holds control characters".into());
        }
        let medium = last.medium.as_deref().unwrap_or("no medium");
        if (last.result.as_str(), medium) == (name, &*self.world.medium) {
            return Ok(());
        }
        Err(format!("the journal says {} by {medium}", last.result))
    }

    /// The journal, whose chain holds unless the case says that it does not.
    pub fn lines(&self) -> Result<Vec<Line>, String> {
        let read = journal::read(&Machine, &self.device.state().join("journal"));
        match (read, self.chain_broken) {
            (Ok(lines), false) => Ok(lines),
            (Ok(_), true) => Err("the journal's chain holds".into()),
            (Err(refused), true) if refused.name() == "JournalBroken" => self.lines_anyhow(),
            (Err(refused), _) => Err(format!("the journal: {refused}")),
        }
    }

    /// The lines of the journal that are lines, whatever became of its chain.
    fn lines_anyhow(&self) -> Result<Vec<Line>, String> {
        let folder = self.device.state().join("journal");
        let mut files: Vec<_> = fs::read_dir(&folder).map_err(said)?.flatten().map(|entry| entry.path()).collect();
        files.sort();
        let whole = files.iter().map(|file| fs::read(file).unwrap_or_default()).collect::<Vec<_>>().concat();
        Ok(whole.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }
}

/// An error as a case tells it.
pub fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn bytes(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn text(path: &Path) -> Result<String, String> {
    String::from_utf8(bytes(path)?).map_err(|error| format!("{}: {error}", path.display()))
}
