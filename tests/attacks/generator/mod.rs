//! Makes the folders under `cases/`, a family a module: the same bytes each time, from keys of fixed seeds and moments
//! that no build is later than in a way that matters (`sound`).

mod container;
pub mod documents;
mod entries;
mod keys;
pub mod lists;
mod manifest;
mod order;
mod p256;
mod permits;
mod releases;
mod resets;
mod roots;
mod rotation;
mod schema;
mod signatures;
pub mod sound;
mod source;
mod state;
mod sweeps;
mod tables;
mod taken;

pub use roots::long_chain;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::runner::{Arrange, Case, Damage, Facts, How, Offer, Start, Told};

/// The golden bundle, as cases name it.
const GOLDEN: &str = "world/golden.tgb";
/// What most cases offer.
const CANDIDATE: &str = "candidate.tgb";

/// One case, and the files that arrive.
#[derive(Clone)]
pub struct Folder {
    family: &'static str,
    slug: String,
    case: Case,
    files: BTreeMap<String, Vec<u8>>,
}

/// A case on a device on which the golden bundle serves; nothing is offered yet.
fn folder(family: &'static str, slug: &str, about: &str) -> Folder {
    let case = Case { about: about.into(), before: vec![GOLDEN.into()], ..Case::default() };
    Folder { family, slug: slug.into(), case, files: BTreeMap::new() }
}

/// The most common case: one file, refused by this name.
fn refused(family: &'static str, slug: &str, name: &str, about: &str, bytes: Vec<u8>) -> Folder {
    folder(family, slug, about).offer(CANDIDATE, name, bytes)
}

impl Folder {
    /// The device has taken this too.
    fn before(mut self, file: &str, bytes: Vec<u8>) -> Self {
        self.case.before.push(file.into());
        self.put(file, bytes)
    }

    /// The device has taken nothing.
    fn on_a_fresh_device(mut self) -> Self {
        self.case.before.clear();
        self
    }

    /// It is 2095 on the device, whenever its program was built.
    fn in_2095(mut self) -> Self {
        self.case.before.extend(sound::LATER.map(String::from));
        self
    }

    fn offer(self, file: &str, name: &str, bytes: Vec<u8>) -> Self {
        self.put(file, bytes).again(file, name)
    }

    /// Offers a file that is there already.
    fn again(mut self, file: &str, name: &str) -> Self {
        self.case.offer.push(Offer { file: file.into(), expect: vec![name.into()], ..Offer::default() });
        self
    }

    /// The last offer, changed.
    fn with(mut self, change: impl FnOnce(&mut Offer)) -> Self {
        change(self.case.offer.last_mut().expect("an offer"));
        self
    }

    fn arranged(self, arrange: Arrange) -> Self {
        self.with(|offer| offer.arrange = Some(arrange))
    }

    /// The root that comes with it is kept, and says what time it is at least.
    fn keeps_root(self, version: u64) -> Self {
        self.with(|offer| offer.root = Some(version))
    }

    /// The same case in another family.
    fn of_family(mut self, family: &'static str) -> Self {
        self.family = family;
        self
    }

    /// The least that the time is from here on.
    fn from(self, floor: i64) -> Self {
        self.with(|offer| offer.floor = Some(floor))
    }

    /// What befalls a file of the state folder.
    fn damaged(mut self, file: &str, how: How) -> Self {
        self.case.damage.push(Damage { file: file.into(), how });
        self
    }

    fn start(mut self, change: impl FnOnce(&mut Start)) -> Self {
        change(self.case.start.get_or_insert_default());
        self
    }

    fn put(mut self, file: &str, bytes: Vec<u8>) -> Self {
        if !file.starts_with("world/") {
            self.files.insert(file.into(), bytes);
        }
        self
    }
}

/// All of them, each in its family.
pub fn folders() -> Vec<Folder> {
    let families = [
        container::cases(),
        roots::cases(),
        rotation::cases(),
        signatures::cases(),
        manifest::cases(),
        schema::cases(),
        order::cases(),
        entries::cases(),
        keys::cases(),
        tables::cases(),
        lists::cases(),
        permits::cases(),
        releases::cases(),
        documents::cases(),
        resets::cases(),
        source::cases(),
        state::cases(),
        sweeps::cases(),
        taken::cases(),
    ];
    families.into_iter().flatten().collect()
}

/// Every file under `cases/`, by its path there.
fn files() -> BTreeMap<PathBuf, Vec<u8>> {
    let facts = sound::device();
    let facts = Facts { id: facts.id, medium: format!("usb {}", crate::world::STICK), labels: facts.labels };
    let mut files = BTreeMap::from([
        (PathBuf::from("world/device.toml"), toml::to_string(&facts).expect("plain data").into_bytes()),
        (PathBuf::from("world/golden.tgb"), sound::golden()),
        (PathBuf::from("world/root.json"), sound::root().bytes().to_vec()),
    ]);
    files.extend(sound::LATER.map(PathBuf::from).into_iter().zip(sound::later()));
    let mut put =
        |path: PathBuf, bytes| assert!(files.insert(path.clone(), bytes).is_none(), "{} twice", path.display());
    for Folder { family, slug, case, files } in folders() {
        let folder = Path::new(family).join(slug);
        put(folder.join("case.toml"), case.text().into_bytes());
        files.into_iter().for_each(|(name, bytes)| put(folder.join(name), bytes));
    }
    files
}

/// Every file that lies under `folder`.
fn lying(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for path in fs::read_dir(next).into_iter().flatten().map(|entry| entry.expect("an entry").path()) {
            if path.is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    found
}

/// In what `cases` is other than what is made here: nothing may be missing, altered, or more.
pub fn differences(cases: &Path) -> Vec<String> {
    let files = files();
    let told = |(path, bytes): (&PathBuf, &Vec<u8>)| match fs::read(cases.join(path)) {
        Ok(lying) if lying == *bytes => None,
        Ok(_) => Some(format!("{} is another", path.display())),
        Err(_) => Some(format!("{} is missing", path.display())),
    };
    let known = |path: &Path| path.strip_prefix(cases).is_ok_and(|path| files.contains_key(path));
    let stale =
        lying(cases).into_iter().filter(|path| !known(path)).map(|path| format!("nobody makes {}", path.display()));
    files.iter().filter_map(told).chain(stale).collect()
}

/// Makes `cases` what it should be.
pub fn write(cases: &Path) {
    let files = files();
    for path in lying(cases) {
        if path.strip_prefix(cases).is_ok_and(|path| !files.contains_key(path)) {
            fs::remove_file(&path).expect("removed");
            // The folder too, once it is empty.
            let _ = fs::remove_dir(path.parent().expect("a folder"));
        }
    }
    for (path, bytes) in files {
        let path = cases.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, bytes).expect("written");
    }
}
