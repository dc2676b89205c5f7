use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Mutex;

use super::*;
use crate::keys::SigningKey;
use crate::spool::record::{Gap, GapReason, Row};
use crate::spool::segment::{Builder, Place};
use crate::stick::key::SecretKey;
use crate::stick::{walk, walk_receipts};

pub(in crate::stick) const STREAM: StreamId = StreamId(7);

pub(in crate::stick) fn device() -> SigningKey {
    SigningKey::from_seed(&[1; 32]).expect("a seed makes a key")
}

pub(in crate::stick) fn id() -> DeviceId {
    DeviceId::from(device().public().id())
}

/// A chain of files, each with one gap.
pub(in crate::stick) fn chain(len: u64) -> Vec<UsageFile> {
    let mut files: Vec<UsageFile> = Vec::new();
    for seq in 1..=len {
        files.push(file(seq, files.last().map(|file| file.digest), seq));
    }
    files
}

pub(in crate::stick) fn file(seq: u64, previous: Option<Digest>, mark: u64) -> UsageFile {
    let mut builder = Builder::new();
    let gap = Gap { reason: GapReason::UncleanStop, from_ms: 0, to_ms: mark.cast_signed(), count: Some(mark) };
    builder.push(&Row::Gap(gap)).expect("there is room");
    let place = Place { stream: STREAM, seq, previous, policy: None };
    let bytes = builder.seal(&place, &device()).expect("it seals");
    UsageFile { at: Cursor { stream: STREAM, seq }, digest: sha256(&bytes), bytes }
}

/// A spool in memory.
#[derive(Debug, Default)]
pub(in crate::stick) struct Memory(pub(in crate::stick) Mutex<Vec<UsageFile>>);

impl Memory {
    pub(in crate::stick) fn of(files: Vec<UsageFile>) -> Self {
        Self(Mutex::new(files))
    }

    pub(in crate::stick) fn seqs(&self) -> Vec<u64> {
        self.0.lock().expect("no test panics with it").iter().map(|file| file.at.seq).collect()
    }
}

impl Source for Memory {
    fn waiting(&self) -> Option<u64> {
        None
    }

    async fn next(&self, after: Option<Cursor>) -> Result<Option<UsageFile>, SourceFailed> {
        let files = self.0.lock().expect("no test panics with it");
        Ok(files.iter().find(|file| after.is_none_or(|after| file.at > after)).cloned())
    }

    async fn acknowledge(&self, at: Cursor, digest: &Digest, _: &[u8]) -> Result<(), SourceFailed> {
        self.0.lock().expect("no test panics with it").retain(|file| (file.at, &file.digest) != (at, digest));
        Ok(())
    }
}

fn order(folder: &Path) -> Order<'_> {
    Order { folder, since: None, limit: None, seal: None, now: 5 }
}

fn names(folder: &Path) -> Vec<String> {
    let (items, strange) = walk(&Folder::open(folder).expect("it opens")).expect("it lists");
    assert_eq!(strange, []);
    items.iter().map(|item| item.name.file_name()).collect()
}

#[tokio::test]
async fn what_waits_is_on_the_stick_byte_for_byte_and_a_second_export_writes_nothing() {
    let (stick, files) = (tempfile::tempdir().expect("a folder"), chain(3));
    let source = Memory::of(files.clone());
    let first = export(&source, &order(stick.path()), |_| {}).await.expect("it exports");
    assert_eq!((first.files, first.there, first.stopped, &first.no_manifest), (3, 0, None, &None));
    assert_eq!(names(stick.path()), ["1.tgu", "2.tgu", "3.tgu"]);
    let folder = stick.path().join(id().to_string());
    for file in &files {
        let path = folder.join(STREAM.to_string()).join(format!("{}.tgu", file.at.seq));
        assert_eq!(fs::read(path).expect("there"), file.bytes);
    }
    let manifest = Manifest::read(&Folder::open(&folder).expect("it opens"), id()).expect("a manifest");
    assert_eq!((manifest.made_at, manifest.files.len()), (5, 3));
    assert_eq!(source.seqs(), [1, 2, 3], "nothing leaves the spool");

    let again = export(&source, &order(stick.path()), |_| {}).await.expect("it exports");
    assert_eq!((again.files, again.there), (0, 3));
    // What was damaged on the stick meanwhile is written anew.
    fs::write(folder.join(STREAM.to_string()).join("2.tgu"), b"x").expect("written");
    let again = export(&source, &order(stick.path()), |_| {}).await.expect("it exports");
    assert_eq!((again.files, again.there), (1, 2));
}

#[tokio::test]
async fn a_limit_and_a_beginning_are_kept_to() {
    let (stick, files) = (tempfile::tempdir().expect("a folder"), chain(4));
    let two: u64 = files.iter().skip(1).take(2).map(|file| file.bytes.len() as u64).sum();
    let source = Memory::of(files);
    let order = Order { since: Some((None, 2)), limit: Some(two), ..order(stick.path()) };
    let exported = export(&source, &order, |_| {}).await.expect("it exports");
    assert_eq!((exported.files, exported.bytes, exported.stopped), (2, two, Some(Stopped::Limit)));
    assert_eq!(names(stick.path()), ["2.tgu", "3.tgu"]);
    let order = Order { since: Some((Some(STREAM), 4)), ..order };
    assert_eq!(export(&source, &order, |_| {}).await.expect("it exports").files, 1);
}

#[tokio::test]
async fn a_sealed_stick_tells_nothing_and_opens_with_the_hubs_key() {
    let (stick, folder) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let secret = SecretKey::open_or_make(&folder.path().join("hub.usage-key")).expect("made");
    let files = chain(2);
    let source = Memory::of(files.clone());
    let order = Order { seal: Some(secret.public()), ..order(stick.path()) };
    assert_eq!(export(&source, &order, |_| {}).await.expect("it exports").files, 2);
    let root = Folder::open(stick.path()).expect("it opens");
    let (items, _) = walk(&root).expect("it lists");
    for (item, file) in items.iter().zip(&files) {
        let sealed = item.read(&root, SEALED_LIMIT).expect("there");
        let open = |at| secret.open_file(&sealed, id(), at);
        assert_eq!(open(item.name.at()).as_ref(), Ok(&file.bytes));
        assert_eq!(open(Cursor { seq: 9, ..file.at }), Err(seal::Error::Broken), "renamed");
        assert!(!sealed.windows(16).any(|window| file.bytes.windows(16).any(|clear| clear == window)));
    }
    assert_eq!(export(&source, &order, |_| {}).await.expect("it exports").there, 2);
}

#[tokio::test]
async fn a_link_in_the_place_of_a_folder_leads_nowhere() {
    let (stick, outside) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    symlink(outside.path(), stick.path().join(id().to_string())).expect("a link");
    let failed = export(&Memory::of(chain(1)), &order(stick.path()), |_| {}).await;
    assert!(matches!(failed, Err(Error::Stick { .. })), "{failed:?}");
    fs::remove_file(stick.path().join(id().to_string())).expect("there");
    fs::create_dir(stick.path().join(id().to_string())).expect("made");
    symlink(outside.path(), stick.path().join(id().to_string()).join(STREAM.to_string())).expect("a link");
    assert!(export(&Memory::of(chain(1)), &order(stick.path()), |_| {}).await.is_err());
    assert_eq!(fs::read_dir(outside.path()).expect("there").count(), 0);
    let root = Folder::open(stick.path()).expect("it opens");
    assert_eq!(walk(&root).expect("it lists").1.len(), 1, "and it is told");
    assert_eq!(walk_receipts(&root).expect("it lists"), (vec![], vec![]));
}
