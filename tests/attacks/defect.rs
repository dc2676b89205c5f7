//! A panic in an import is a defect of ours: told as one, once, and what serves goes on, by what the disk says.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use tidegate::bundle::inbox::Inbox;
use tidegate::bundle::journal::Event;
use tidegate::bundle::{Entries, EntryKind, Imported, Importer, SemanticProblem, pack};
use tidegate::disk::{Disk, Machine};

use crate::rotation::{link, signed, third};
use crate::world::{self, Device, GOLDEN_SEQ, Policy, bundle, golden};

/// The seam of step 15 with a defect planted in it.
fn defective(entries: &Entries) -> Result<Policy, SemanticProblem> {
    assert!(entries.get(&EntryKind::Routes).is_none_or(|routes| routes != b"unlucky"), "a planted defect");
    world::compile(entries)
}

/// Starts the device with that seam.
fn plant(device: &mut Device) {
    device.importer = None;
    let now = device.now();
    let opened = Importer::open(Arc::clone(&device.disk), device.settings(), defective, &now).expect("it starts");
    device.importer = Some(opened.importer);
}

#[test]
fn a_panic_in_the_compiler_is_told_as_a_defect_once_and_all_goes_on() {
    let mut device = Device::with_golden();
    plant(&mut device);
    let (unlucky, before) = (bundle(GOLDEN_SEQ + 1, "unlucky"), device.kept());
    for round in 0..2 {
        let outcome = device.offer(&unlucky);
        let Imported::Defect(said) = &outcome.result else { panic!("{outcome:?}") };
        let by_memory = said.contains("brought one about before");
        assert_eq!((said.contains("a planted defect"), by_memory), (round == 0, round == 1), "{said}");
        assert_eq!((outcome.receipt.result.as_str(), outcome.receipt.journal.is_some()), ("Defect", true));
        assert!(outcome.receipt.detail.contains("report it"), "{}", outcome.receipt.detail);
        let last = device.journal().pop().expect("a line");
        assert_eq!((last.event, last.result.as_str()), (Event::Import, "Defect"));
        assert_eq!(last.file_sha256, outcome.receipt.file_sha256);
        assert!(last.file_sha256.is_some() && (last.seq == Some(GOLDEN_SEQ + 1)) != by_memory, "{last:?}");
        assert_eq!(device.kept(), before);
    }
    // The same content in another file is judged, and nothing blames the bundle that serves for it.
    let again = pack::sign(&unlucky, &world::root(), &world::key(6)).expect("key 6 may sign");
    let Imported::Defect(said) = device.offer(&again).result else { panic!("a defect") };
    assert!(said.contains("a planted defect"), "{said}");
    device.takes(&bundle(GOLDEN_SEQ + 2, "next"));
    device.start();
    assert_eq!(device.serving.as_ref().map(|(_, policy)| policy.as_str()), Some("next"));
}

#[test]
fn the_file_is_moved_out_of_the_inbox_so_that_no_start_finds_it_there() {
    let mut device = Device::with_golden();
    plant(&mut device);
    let (folder, rejected) = (device.folder.path().join("in"), device.folder.path().join("rejected"));
    let mut inbox = Inbox::open(&folder, &rejected, 0).expect("a folder");
    let outcome = device.offer(&bundle(GOLDEN_SEQ + 1, "unlucky"));
    inbox.settle(&folder.join("offered.tgb"), &outcome, Instant::now()).expect("moved");
    assert!(!folder.join("offered.tgb").exists() && rejected.join("offered.tgb").exists());
}

/// The machine's disk, with a defect after the write that is counted down to.
#[derive(Debug, Default)]
struct Mined(AtomicI64);

impl Mined {
    fn step<T>(&self, done: io::Result<T>) -> io::Result<T> {
        assert!(self.0.fetch_sub(1, Ordering::Relaxed) != 1, "a planted defect");
        done
    }
}

impl Disk for Mined {
    fn open(&self, path: &Path) -> io::Result<(Box<dyn Read + Send>, u64)> {
        Machine.open(path)
    }

    fn write(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        self.step(Machine.write(path, bytes, mode))
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.step(Machine.append(path, bytes))
    }

    fn cut(&self, path: &Path, length: u64) -> io::Result<()> {
        self.step(Machine.cut(path, length))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(Machine.rename(from, to))
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.step(Machine.create_folder(path))
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.step(Machine.remove_folder(path))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.step(Machine.remove_file(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        Machine.list(path)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.step(Machine.sync_folder(path))
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        Machine.free_bytes(path)
    }
}

#[test]
fn a_panic_after_any_write_of_an_import_leaves_what_the_disk_says_in_memory_too() {
    let under_third = |seq, routes| {
        let link = link(&third(|_| ()), &[1, 2, 11, 12]);
        pack::with_chain(&signed(&third(|_| ()), seq, routes, &[14, 15]), &[link]).expect("it fits")
    };
    let next = under_third(GOLDEN_SEQ + 1, "next");
    let mut serving = Vec::new();
    for step in 1.. {
        let disk = Arc::new(Mined::default());
        let mut device = Device::new(Arc::<Mined>::clone(&disk));
        device.takes(&golden());
        disk.0.store(step, Ordering::Relaxed);
        let outcome = device.offer(&next);
        let went_off = disk.0.swap(0, Ordering::Relaxed) <= 0;
        assert_eq!(matches!(outcome.result, Imported::Defect(_)), went_off, "{step}: {outcome:?}");
        if let Imported::Activated(active) = outcome.result {
            device.serving = Some((active.digest, active.policy));
        }
        let (root, in_memory) = (outcome.root, device.serving.clone());
        // What it believes is what a start finds, and nothing of it was blamed on what served.
        let hub = device.importer.as_ref().map(|importer| importer.on_trial());
        device.start();
        assert_eq!(device.serving, in_memory, "{step}");
        assert_eq!(device.importer.as_ref().map(|importer| importer.on_trial()), hub, "{step}");
        let told = device.journal().into_iter().filter(|line| line.event == Event::RootRotated).count();
        assert_eq!(told > 0, root.is_some(), "{step}");
        serving.push(in_memory.map(|(_, policy)| policy));
        // It takes what follows.
        device.takes(&under_third(GOLDEN_SEQ + 2, "last"));
        if !went_off {
            break;
        }
    }
    let with = |policy: &str| serving.iter().filter(|serving| serving.as_deref() == Some(policy)).count();
    assert!(with("golden") > 3 && with("next") > 3 && with("golden") + with("next") == serving.len(), "{serving:?}");
}
