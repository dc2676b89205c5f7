//! A card in a machine: ext4 on a loop device over a file whose content is a [`Platter`], and whose power can go.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::dice::Dice;
use crate::fuse::{self, Device};
use crate::platter::{Image, Platter};

/// Room for a spool that gives its disk back late.
const SIZE: u64 = 96 << 20;
/// How long the kernel may take to let go of a file system.
const LET_GO: Duration = Duration::from_secs(60);

/// Why there can be no card here.
pub(crate) fn lacks() -> Option<&'static str> {
    let is_root = rustix::process::geteuid().is_root();
    let has = |program: &str| runs(Command::new("sh").args(["-c", &format!("command -v {program}")])).is_ok();
    if !is_root {
        Some("not root")
    } else if File::options().read(true).write(true).open("/dev/fuse").is_err() {
        Some("no /dev/fuse")
    } else if !Path::new("/dev/loop-control").exists() {
        Some("no loop devices")
    } else if !has("mkfs.ext4") {
        Some("no mkfs.ext4")
    } else if !has("unshare") {
        Some("no unshare")
    } else {
        None
    }
}

/// A new file system, on which nothing is.
pub(crate) fn formatted() -> Image {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image");
    File::create(&path).and_then(|file| file.set_len(SIZE)).expect("an image");
    // Nothing is left for later: the kernel would write by itself while a subject is at work.
    let now = "lazy_itable_init=0,lazy_journal_init=0";
    let made = runs(Command::new("mkfs.ext4").args(["-q", "-F", "-b", "4096", "-m", "0", "-E", now]).arg(&path));
    made.expect("a file system is made");
    Image::new(&fs::read(&path).expect("it reads"))
}

/// The disk's own state, which its thread and the test share.
struct Shared {
    platter: Mutex<Power>,
    changed: Condvar,
}

struct Power {
    platter: Platter,
    /// The power goes with this write.
    cut_at: u64,
    dice: Dice,
    /// What is found after the cut.
    after_cut: Option<Image>,
}

impl Power {
    fn cut(&mut self) {
        if self.after_cut.is_none() {
            self.after_cut = Some(self.platter.after_cut(&mut self.dice));
        }
    }
}

impl Shared {
    fn power(&self) -> MutexGuard<'_, Power> {
        self.platter.lock().expect("nobody panics with it")
    }

    /// The disk, while it has power.
    fn live<T>(&self, what: impl FnOnce(&mut Platter) -> Option<T>) -> Option<T> {
        let mut power = self.power();
        if power.after_cut.is_some() { None } else { what(&mut power.platter) }
    }
}

impl Device for Shared {
    fn len(&self) -> u64 {
        self.power().platter.len()
    }

    fn read(&self, at: u64, len: usize) -> Option<Vec<u8>> {
        let at = usize::try_from(at).ok()?;
        self.live(|platter| Some(platter.read(at, len)))
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Option<()> {
        let at = usize::try_from(at).ok()?;
        self.live(|platter| platter.write(at, bytes).then_some(()))?;
        let mut power = self.power();
        if power.platter.writes() >= power.cut_at {
            power.cut();
            self.changed.notify_all();
        }
        Some(())
    }

    fn flush(&self) -> Option<()> {
        self.live(|platter| {
            platter.flush();
            Some(())
        })
    }
}

/// A card that is mounted.
pub(crate) struct Card {
    folder: TempDir,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    is_mounted: bool,
}

impl Card {
    /// Mounts what is on the disk. An error is what mount said: then nothing can be read of it any more.
    pub(crate) fn mount(image: Image) -> Result<Self, String> {
        let folder = tempfile::Builder::new().prefix("tidegate-crash-").tempdir().expect("a folder");
        let (file, root) = (folder.path().join("disk"), folder.path().join("root"));
        File::create(&file).and_then(|_| fs::create_dir(&root)).expect("places to mount on");
        let kernel = File::options().read(true).write(true).open("/dev/fuse").expect("FUSE is here");
        let options = "fd=0,rootmode=100000,user_id=0,group_id=0";
        let mut mount = Command::new("mount");
        mount.args(["-i", "-t", "fuse", "-o", options, "disk"]).arg(&file);
        mount.stdin(Stdio::from(kernel.try_clone().expect("a descriptor")));
        runs(&mut mount).expect("the disk is mounted");
        let power = Power { platter: Platter::new(image), cut_at: u64::MAX, dice: Dice(0), after_cut: None };
        let shared = Arc::new(Shared { platter: Mutex::new(power), changed: Condvar::new() });
        let ours = Arc::clone(&shared);
        let serve = move || fuse::serve(&mut { kernel }, &*ours).expect("the kernel is answered");
        let thread = Some(std::thread::Builder::new().name("disk".into()).spawn(serve).expect("a thread"));
        let mut card = Self { folder, shared, thread, is_mounted: false };
        runs(Command::new("mount").args(["-t", "ext4", "-o", "loop"]).args([&file, &root]))?;
        card.is_mounted = true;
        Ok(card)
    }

    /// The root of its file system.
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// From here on its flush is a lie.
    pub(crate) fn lie(&self) {
        let done = Command::new("sync").arg("-f").arg(self.root()).status().expect("sync runs");
        assert!(done.success());
        self.shared.power().platter.lie();
    }

    /// The power goes with the write that comes so many writes from now.
    pub(crate) fn cut_after(&self, writes: u64, seed: u64) {
        let mut power = self.shared.power();
        power.cut_at = power.platter.writes() + writes;
        power.dice = Dice(seed);
    }

    /// Waits until the power is gone, or takes it when the time is up or as soon as `enough`. Tells whether it went by itself.
    pub(crate) fn until_cut(&self, limit: Duration, enough: impl Fn() -> bool) -> bool {
        let deadline = Instant::now() + limit;
        let mut power = self.shared.power();
        while power.after_cut.is_none() {
            if Instant::now() >= deadline || enough() {
                power.cut();
                return false;
            }
            let step = Duration::from_millis(5);
            power = self.shared.changed.wait_timeout(power, step).expect("nobody panics with it").0;
        }
        true
    }

    /// Takes the card out, and tells what is on it.
    pub(crate) fn take_out(mut self) -> Image {
        self.unmount();
        let power = self.shared.power();
        power.after_cut.clone().unwrap_or_else(|| power.platter.image())
    }

    /// The kernel lets go once nobody has a file open; those who had were killed a moment ago.
    fn unmount(&mut self) {
        let [file, root] = ["disk", "root"].map(|name| self.folder.path().join(name));
        if std::mem::take(&mut self.is_mounted) {
            insist(Command::new("umount").arg(&root));
        }
        if let Some(thread) = self.thread.take() {
            insist(Command::new("umount").arg(&file));
            thread.join().expect("the disk's thread ends");
        }
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        self.unmount();
    }
}

fn insist(command: &mut Command) {
    let deadline = Instant::now() + LET_GO;
    while let Err(error) = runs(command) {
        assert!(Instant::now() < deadline || std::thread::panicking(), "{command:?}: {error}");
        if Instant::now() >= deadline {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn runs(command: &mut Command) -> Result<(), String> {
    let output = command.stdout(Stdio::null()).output().map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

#[test]
fn a_file_that_was_synced_survives_and_one_that_was_not_may_go() {
    if crate::cycles::skips() {
        return;
    }
    let empty = formatted();
    let mut lost = 0;
    for seed in 0..6 {
        let card = Card::mount(empty.clone()).expect("it mounts");
        let [synced, loose] = ["synced", "loose"].map(|name| card.root().join(name));
        fs::write(&synced, [1; 20_000]).expect("written");
        File::open(&synced).and_then(|file| file.sync_all()).expect("synced");
        File::open(card.root()).and_then(|folder| folder.sync_all()).expect("synced");
        fs::write(&loose, [2; 20_000]).expect("written");
        card.cut_after(0, seed);
        assert!(!card.until_cut(Duration::ZERO, || true));
        let card = Card::mount(card.take_out()).expect("it mounts again");
        assert_eq!(fs::read(card.root().join("synced")).expect("it is there"), [1; 20_000]);
        lost += u32::from(fs::read(card.root().join("loose")).ok() != Some(vec![2; 20_000]));
    }
    assert_eq!(lost, 6, "the page cache is gone with the power");
}
