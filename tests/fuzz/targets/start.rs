//! A device that starts on what its flash has become.
//!
//! ```text
//! record, copies, body      record 0 to 3: the body of state, enrolment, time floor or trial, with a good checksum; in one
//!                           of the two copies, or (copies = 1) in both
//! file, how, bytes          file 16 and up: how 0 is the bytes in its place, 1 behind it, 2 none of it, 3 two bytes of place
//!                           and what is there changed by the others
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tempfile::TempDir;
use tidegate::bundle::activate::OpenError;
use tidegate::bundle::root::RootDocument;
use tidegate::bundle::{Imported, Importer, Medium, Moment, Opened, Settings, canonical, compile, pack};
use tidegate::clock::Reading;
use tidegate::disk::Machine;
use tidegate::ids::Digest;
use tidegate::policy::Policy;
use tidegate::store::pair::Pair;
use tidegate::store::time::BUILD_TIME;

use super::world::{self, GOLDEN, SEQ};

const RECORDS: [&str; 4] = ["state", "enrolment", "time", "trial"];

/// What the state folder holds of a device on which two golden bundles came one after another, and a list; by its path.
static FOLDER: LazyLock<Vec<(PathBuf, Vec<u8>)>> = LazyLock::new(|| {
    let folder = device(&GOLDEN.root, &[]);
    {
        let mut opened = open(folder.path()).expect("it starts");
        for bundle in [&BUNDLES[0], &BUNDLES[1], &GOLDEN.list] {
            fs::write(folder.path().join("in.tgb"), bundle).expect("it is written");
            let outcome = opened.importer.import(&folder.path().join("in.tgb"), &Medium::Inbox, &now(1));
            assert!(matches!(outcome.result, Imported::Activated(_) | Imported::Revoked(_)), "{outcome:?}");
        }
    }
    let mut files = Vec::new();
    walk(&folder.path().join("state"), folder.path(), &mut files);
    files.sort();
    files
});

/// The golden policy without an end, and the one that follows it with another root.
pub static BUNDLES: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
    let next = |seq: u64| {
        let mut value = canonical::read(pack::head(&GOLDEN.policy).expect("a bundle").manifest()).expect("canonical");
        value["seq"] = seq.into();
        value.as_object_mut().expect("an object").remove("expires_at");
        signed(&canonical::write(&value).expect("it has a form"), 0b1_1000)
    };
    [next(SEQ), pack::with_chain(&next(SEQ + 1), &GOLDEN.links[..1]).expect("it fits")]
});

fn signed(manifest: &[u8], mask: u8) -> Vec<u8> {
    let kind = tidegate::bundle::container::BundleType::Policy;
    let signatures = world::signatures(mask, kind.media_type(), manifest);
    pack::lay(kind, b"", manifest, &signatures, world::payload(&GOLDEN.policy)).expect("it fits")
}

fn walk(folder: &Path, root: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, root, files);
        } else {
            files.push((path.strip_prefix(root).expect("inside").to_owned(), fs::read(&path).expect("a file")));
        }
    }
}

/// A folder with this pinned root and these files.
fn device(root: &RootDocument, files: &[(PathBuf, Vec<u8>)]) -> TempDir {
    let memory = Path::new("/dev/shm"); // what a start writes here is not worth a disk
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.expect("a folder");
    fs::write(folder.path().join("root.json"), root.bytes()).expect("the root is placed");
    fs::create_dir(folder.path().join("state")).expect("the state folder");
    for (path, bytes) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, bytes).expect("a file");
    }
    folder
}

/// A wall clock at 1970.
fn now(minutes: u64) -> Moment {
    Moment { reading: Reading { wall_ms: 0, boot: Duration::from_secs(60 * minutes) }, trusted: false }
}

fn open(folder: &Path) -> Result<Opened<Policy>, OpenError> {
    let (state, root) = (folder.join("state"), folder.join("root.json"));
    let settings = Settings { state, root, device: world::device(), trial: Duration::from_secs(600) };
    Importer::open(Arc::new(Machine), settings, compile, &now(2))
}

/// The target.
pub fn run(bytes: &[u8]) -> bool {
    let [which, how, bytes @ ..] = bytes else { return false };
    let mut files = FOLDER.clone();
    let record = RECORDS.get(usize::from(*which)).copied();
    if record.is_none() {
        let at = usize::from(which.wrapping_sub(16)) % files.len();
        match how & 3 {
            0 => files[at].1 = bytes.to_vec(),
            1 => files[at].1.extend_from_slice(bytes),
            2 => drop(files.remove(at)),
            _ => {
                let [high, low, change @ ..] = bytes else { return false };
                let from = usize::from(u16::from_be_bytes([*high, *low]));
                files[at].1.iter_mut().skip(from).zip(change).for_each(|(byte, change)| *byte ^= change);
            }
        }
    }
    let folder = device(&GOLDEN.root, &files);
    if let Some(record) = record {
        let trust = folder.path().join("state/trust");
        let (mut pair, _) = Pair::open(Arc::new(Machine), &trust, record);
        for _ in 0..=how & 1 {
            pair.write(bytes).expect("it is written");
        }
    }
    starts(folder.path(), record)
}

/// A device of `root` that starts for the first time.
pub fn fresh(root: &RootDocument) -> bool {
    starts(device(root, &[]).path(), None)
}

/// Whatever lies there, the device starts, serves only what a threshold signed, and is no easier to deceive. Returns
/// whether the newest bundle serves.
fn starts(folder: &Path, record: Option<&str>) -> bool {
    let first = match open(folder) {
        Ok(opened) => opened,
        // A state that no program of this version wrote under this root, and that nothing damaged.
        Err(OpenError::Newer | OpenError::Root(_)) if record == Some("state") => return false,
        Err(error) => panic!("it does not start: {error:?}"),
    };
    let serves = serving(&first);
    assert!(first.importer.time().floor().bounds(&now(2).reading, false).lower >= BUILD_TIME, "the floor went back");
    drop(first);

    let mut again = open(folder).expect("it started before");
    assert!(record == Some("trial") || serving(&again) == serves, "a second start serves something else");
    let mut value = canonical::read(pack::head(&BUNDLES[1]).expect("a bundle").manifest()).expect("canonical");
    value["seq"] = (SEQ + 9).into();
    let forged = signed(&canonical::write(&value).expect("it has a form"), 0b1100_1111);
    fs::write(folder.join("in.tgb"), forged).expect("it is written");
    let outcome = again.importer.import(&folder.join("in.tgb"), &Medium::Inbox, &now(3));
    assert!(matches!(outcome.result, Imported::Refused(_)), "a bundle of one signature: {outcome:?}");
    serves == Some(pack::digest(&BUNDLES[1]).expect("a bundle"))
}

/// What serves, which is one of the two, and what is in force, which is the list.
fn serving(opened: &Opened<Policy>) -> Option<Digest> {
    let golden = BUNDLES.each_ref().map(|bundle| pack::digest(bundle).expect("a bundle"));
    let list = opened.list.as_ref().map(|list| list.digest);
    assert!(list.is_none_or(|list| Ok(list) == pack::digest(&GOLDEN.list)), "another list is in force");
    let serves = opened.serving.as_ref().map(|active| active.digest);
    assert!(serves.is_none_or(|digest| golden.contains(&digest)), "another bundle serves");
    serves
}
