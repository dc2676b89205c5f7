//! Step 0: what stands where a bundle should, and a disk that plays along badly.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rustix::fs::{FileType, Mode, mknodat};
use tidegate::bundle::{Importer, OpenError};
use tidegate::disk::{Disk, Machine};

use crate::revocation;
use crate::world::{Device, GOLDEN_SEQ, bundle, compile, golden, key};

/// The refusals that show only here, as they were seen.
pub fn seen() -> Vec<String> {
    let mut device = Device::with_golden();
    let absent = device.folder.path().join("in/absent.tgb");
    let mut seen = ["/dev/zero".as_ref(), &*absent].map(|path| device.import(path).result.name()).to_vec();

    let (mut device, disk) = unkind();
    let path = device.folder.path().join("in/offered.tgb");
    disk.meanwhile(move || fs::write(&path, b"less").expect("it changes"));
    seen.push(device.offer(&golden()).result.name());
    disk.fill(true);
    seen.push(device.offer(&golden()).result.name());
    let now = device.now();
    if let Err(OpenError::Busy(refused)) = Importer::open(Arc::new(Machine), device.settings(), compile, &now) {
        seen.push(refused.name());
    }
    seen.into_iter().map(str::to_owned).collect()
}

type Hook = Box<dyn FnMut() + Send>;

/// The machine's disk, of which a test can say how full it is, what fails, and what happens meanwhile.
#[derive(Default)]
pub struct Unkind {
    machine: Machine,
    full: AtomicBool,
    /// Called once, after the source was opened and before it is copied.
    meanwhile: Mutex<Option<Hook>>,
    /// Writes to paths that hold this text fail, with this kind of error.
    fails: Mutex<Option<(&'static str, io::ErrorKind)>>,
}

impl fmt::Debug for Unkind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unkind")
    }
}

impl Unkind {
    pub fn fail(&self, what: Option<(&'static str, io::ErrorKind)>) {
        *self.fails.lock().expect("no panic") = what;
    }

    pub fn fill(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    /// What happens once the source was opened, and before it is copied.
    pub fn meanwhile(&self, hook: impl FnMut() + Send + 'static) {
        *self.meanwhile.lock().expect("no panic") = Some(Box::new(hook));
    }

    fn check(&self, path: &Path) -> io::Result<()> {
        match *self.fails.lock().expect("no panic") {
            Some((part, kind)) if path.to_string_lossy().contains(part) => Err(kind.into()),
            _ => Ok(()),
        }
    }
}

impl Disk for Unkind {
    fn open(&self, path: &Path) -> io::Result<(Box<dyn Read + Send>, u64)> {
        self.machine.open(path)
    }
    fn write(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        self.check(path)?;
        self.machine.write(path, bytes, mode)
    }
    fn write_from(&self, path: &Path, from: &mut dyn Read, mode: u32) -> io::Result<()> {
        self.check(path)?;
        self.machine.write_from(path, from, mode)
    }
    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.check(path)?;
        self.machine.append(path, bytes)
    }
    fn cut(&self, path: &Path, length: u64) -> io::Result<()> {
        self.machine.cut(path, length)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.machine.rename(from, to)
    }
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.machine.create_folder(path)
    }
    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.machine.remove_folder(path)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.machine.remove_file(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.machine.list(path)
    }
    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.machine.sync_folder(path)
    }
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        if let Some(mut hook) = self.meanwhile.lock().expect("no panic").take() {
            hook();
        }
        if self.full.load(Ordering::Relaxed) { Ok(4_096) } else { self.machine.free_bytes(path) }
    }
}

pub fn unkind() -> (Device, Arc<Unkind>) {
    let disk = Arc::new(Unkind::default());
    let mut device = Device::new(Arc::<Unkind>::clone(&disk));
    device.takes(&golden());
    (device, disk)
}

#[test]
fn what_is_not_a_regular_file_is_refused_without_waiting_on_it() {
    let mut device = Device::with_golden();
    let folder = device.folder.path().join("in");
    let good = folder.join("good");
    fs::write(&good, bundle(GOLDEN_SEQ + 1, "next")).expect("written");
    symlink(&good, folder.join("link.tgb")).expect("a link");
    symlink("nowhere", folder.join("dangling.tgb")).expect("a link");
    symlink("loop.tgb", folder.join("loop.tgb")).expect("a link");
    fs::create_dir(folder.join("folder.tgb")).expect("a folder");
    let pipe = folder.join("pipe.tgb");
    mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
    let _socket = std::os::unix::net::UnixListener::bind(folder.join("socket.tgb")).expect("a socket");
    for name in ["link.tgb", "dangling.tgb", "loop.tgb", "folder.tgb", "pipe.tgb", "socket.tgb"] {
        let before = device.kept();
        let outcome = device.import(&folder.join(name));
        device.was_refused(&outcome, "SourceNotRegular", name, &before);
    }
    let outcome = device.import(Path::new("/dev/zero"));
    assert_eq!(outcome.result.name(), "SourceNotRegular");
    device.still_serves_golden();
}

#[test]
fn a_file_that_is_not_there_is_an_error_of_the_source() {
    let mut device = Device::with_golden();
    let before = device.kept();
    let outcome = device.import(&device.folder.path().join("in/absent.tgb"));
    device.was_refused(&outcome, "SourceIo", "absent", &before);
}

#[test]
fn a_source_that_grows_or_shrinks_while_it_is_copied_is_refused() {
    for (by, about) in [(100, "grows"), (-100, "shrinks"), (-10_000, "vanishes")] {
        let (mut device, disk) = unkind();
        let path = device.folder.path().join("in/offered.tgb");
        let next = bundle(GOLDEN_SEQ + 1, "next");
        let length = (next.len() as u64).saturating_add_signed(by);
        let changed = path.clone();
        disk.meanwhile(move || {
            OpenOptions::new().write(true).open(&changed).and_then(|file| file.set_len(length)).expect("it changes");
        });
        let before = device.kept();
        let outcome = device.offer(&next);
        device.was_refused(&outcome, "SourceChanged", about, &before);
        device.still_serves_golden();
    }
}

#[test]
fn a_source_replaced_after_it_was_opened_is_not_looked_at_again() {
    let (mut device, disk) = unkind();
    let path = device.folder.path().join("in/offered.tgb");
    let evil = device.folder.path().join("in/evil");
    fs::write(&evil, b"evil").expect("written");
    disk.meanwhile(move || fs::rename(&evil, &path).expect("replaced"));
    device.takes(&bundle(GOLDEN_SEQ + 1, "next"));
}

#[test]
fn without_room_nothing_is_begun_and_with_room_again_it_goes_on() {
    let (mut device, disk) = unkind();
    let next = bundle(GOLDEN_SEQ + 1, "next");
    disk.fill(true);
    let before = device.kept();
    let outcome = device.offer(&next);
    device.was_refused(&outcome, "NoSpace", "full", &before);
    disk.fill(false);

    // The room ends while the slot is written: in its head, in one of its blobs, and in the table of a list. What was
    // written does not stay to fill the disk.
    let list = revocation::list(1, revocation::table(&[(5, 1 << 40)], &[]));
    for (part, offered) in [("/head", &next), ("/routes", &next), ("/head", &list), ("/revocations", &list)] {
        disk.fail(Some((part, io::ErrorKind::StorageFull)));
        let outcome = device.offer(offered);
        assert_eq!(outcome.result.name(), "NoSpace", "{part}");
        let slots = fs::read_dir(device.state().join("slots")).expect("the slots").count();
        assert_eq!(slots, 1, "{part}: what serves, and no half of another");
        disk.fail(None);
        device.still_serves_golden();
    }
    device.takes(&next);
    device.takes(&list);
}

#[test]
fn a_second_importer_on_the_same_state_is_refused() {
    let mut device = Device::with_golden();
    let now = device.now();
    let second = Importer::open(Arc::new(Machine), device.settings(), compile, &now);
    match second {
        Err(OpenError::Busy(refused)) => assert_eq!(refused.name(), "ImportBusy"),
        other => panic!("{other:?}"),
    }
    device.takes(&bundle(GOLDEN_SEQ + 1, "next"));
}

#[test]
fn the_result_stands_beside_the_bundle_and_follows_no_link() {
    let mut device = Device::with_golden();
    let folder = device.folder.path().join("in");
    let victim = device.folder.path().join("victim");
    fs::write(&victim, "precious").expect("written");
    for name in ["offered.tgb.result.json", "offered.tgb.result.part"] {
        let _ = fs::remove_file(folder.join(name));
        symlink(&victim, folder.join(name)).expect("a link");
    }
    let outcome = device.offer(b"garbage");
    assert!(fs::symlink_metadata(folder.join("offered.tgb.result.json")).expect("the link").is_symlink(), "not yet");
    outcome.receipt.put_beside(&folder.join("offered.tgb"), &key(1)).expect("written");
    assert_eq!(fs::read_to_string(&victim).expect("readable"), "precious");
    let result = fs::read(folder.join("offered.tgb.result.json")).expect("a result");
    let result: serde_json::Value = serde_json::from_slice(&result).expect("JSON");
    assert_eq!(result["body"]["result"], "BadMagic");
    let outcome = device.offer(&bundle(GOLDEN_SEQ + 1, "next"));
    outcome.receipt.put_beside(&folder.join("offered.tgb"), &key(1)).expect("written");
    let result = fs::read(folder.join("offered.tgb.result.json")).expect("a result");
    let result: serde_json::Value = serde_json::from_slice(&result).expect("JSON");
    assert_eq!((&result["body"]["result"], &result["body"]["seq"]), (&"Activated".into(), &(GOLDEN_SEQ + 1).into()));
}

#[test]
fn the_private_copy_does_not_outlive_the_import() {
    let mut device = Device::with_golden();
    device.offer(b"garbage");
    assert_eq!(fs::read_dir(device.state().join("staging")).expect("the folder").count(), 0);
}
