//! Step 0: what stands where a bundle should, and a disk that plays along badly.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tidegate::disk::{Disk, Machine};

use crate::world::{Device, GOLDEN_SEQ, bundle, golden, key};

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
fn a_source_replaced_after_it_was_opened_is_not_looked_at_again() {
    let (mut device, disk) = unkind();
    let path = device.folder.path().join("in/offered.tgb");
    let evil = device.folder.path().join("in/evil");
    fs::write(&evil, b"evil").expect("written");
    disk.meanwhile(move || fs::rename(&evil, &path).expect("replaced"));
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
