//! A whole spool folder of format 1, as a device left it: every later version must go on with it, and tell this.
//!
//! In `tests/fixtures/spool`, a folder for each state that was ever written; `generations.zst` is the folder of generations,
//! packed (below). `cargo test --lib writes_the_golden_spool -- --ignored` made each, once. The device's key is the seed
//! 01…01, its boot 01…01, and what became of its requests is told at [`make`].

use std::collections::BTreeSet;

use super::model_tests::{Hub, drain};
use super::sim_tests::{Device, copy};
use super::*;
use crate::ids::{RequestId, StreamId};
use crate::keys::{PublicKey, SigningKey};
use crate::spool::WhenFull;
use crate::spool::backlog::Cursor;
use crate::spool::counts::{self, SLOT, Sum};
use crate::spool::log::{self, Found, PREAMBLE, Preamble};
use crate::spool::losses::{self, Losses};
use crate::spool::record::{Gap, GapReason, Outcome, Row, SAMPLE, UsageRecord};
use crate::spool::state::read_mark;

/// What the folder is opened at: a day after it was left.
const LATER_MS: i64 = 1_700_000_000_000 + 86_400_000;
const STREAM: u64 = 0x577f_cad6_fcd8_592b;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/spool")).join(name)
}

fn device(folder: &Path) -> Device {
    let mut device = Device::new(folder, 1, 1, u64::MAX, WhenFull::RollUp);
    device.now_ms = device.now_ms.max(LATER_MS);
    device
}

fn device_key() -> PublicKey {
    SigningKey::from_seed(&[1; 32]).expect("a seed makes a key").public()
}

/// What request `id` is told as, but for its time.
fn record_of(id: u8) -> UsageRecord<'static> {
    let mut request = RequestId([0; 16]);
    request.0[15] = id;
    UsageRecord { request, bytes_in: 1, ..SAMPLE }
}

fn behind(stream: u64, seq: u64) -> Option<Cursor> {
    Some(Cursor { stream: StreamId(stream), seq })
}

/// Answers requests `from` to `to`, of whom somebody is known.
fn answer(device: &mut Device, from: u64, to: u64) {
    for id in from..=to {
        device.now_ms += 10;
        device.request(id, true);
    }
}

/// Leaves a spool with something of everything.
fn make(folder: &Path) {
    crate::keys::seeded_tests::set(Some(1 << 32));
    let mut device = Device::new(folder, 1, 1, u64::MAX, WhenFull::RollUp);
    // 1 to 8 are in a tombstone, with 3 requests of nobody that are in its sums.
    (0..3).for_each(|id| device.request(1000 + id, false));
    answer(&mut device, 1, 8);
    device.seal();
    answer(&mut device, 9, 16);
    device.seal();
    let now_ms = device.now_ms;
    let ledger = device.ledger.as_mut().expect("it is open");
    assert!(ledger.retire_oldest(now_ms).expect("it is retired"));
    // 9 to 16 are in a generation that was damaged and is told, in the file with 33 to 40; 17 to 24 in one that nobody has told yet.
    answer(&mut device, 17, 24);
    device.seal();
    answer(&mut device, 25, 32);
    device.seal();
    for (number, is_told) in [(2, true), (3, false)] {
        let ledger = device.ledger.as_mut().expect("it is open");
        let names = ledger.generations.list().expect("it lists");
        let name = *names.iter().find(|name| name.number == number).expect("it is there");
        ledger.open = None;
        ledger.condemn(name, "somebody broke it", now_ms).expect("it is condemned");
        if is_told {
            ledger.recover(now_ms).expect("it is told");
        }
        // The next seal needs the newest one, and has not lost it.
        ledger.newest().expect("it opens");
    }
    // 25 to 32, 33 to 40 and 41 to 48 are in one generation; the hub has those in the middle, and the others wait.
    answer(&mut device, 33, 40);
    device.ledger.as_mut().expect("it is open").setup.generation_size = 1 << 20;
    device.seal();
    answer(&mut device, 41, 48);
    device.ledger.as_mut().expect("it is open").setup.generation_size = 1 << 20;
    device.seal();
    let stream = device.ledger.as_ref().expect("it is open").state.stream;
    let middle = device.oldest(behind(stream, 4)).expect("it is there");
    assert_eq!(middle.at.seq, 5);
    device.acknowledge(middle.at, &middle.digest);
    // 49 to 56 are in open logs; 5 requests of nobody came to the sums since those were told; a record and a gap wait to be.
    answer(&mut device, 49, 56);
    (0..5).for_each(|id| device.request(2000 + id, false));
    device.lose_a_record();
    device.losses.note(Gap { reason: GapReason::WriteFailed, from_ms: 5, to_ms: 6, count: None });
    device.losses.save(folder).expect("it writes");
    device.kill();
    crate::keys::seeded_tests::set(None);
}

/// Files and folders as one: path ‖ 0 ‖ length u64, big-endian ‖ bytes; a folder's path ends in `/`.
fn pack(root: &Path, folder: &Path, packed: &mut Vec<u8>) {
    let mut paths: Vec<_> = fs::read_dir(folder).expect("it lists").flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let name = path.strip_prefix(root).expect("it is in there").to_str().expect("a name").to_owned();
        let (end, bytes) = if path.is_dir() { ("/", Vec::new()) } else { ("", fs::read(&path).expect("it reads")) };
        packed.extend([name.as_bytes(), end.as_bytes(), &[0], &(bytes.len() as u64).to_be_bytes(), &bytes].concat());
        if path.is_dir() {
            pack(root, &path, packed);
        }
    }
}

fn unpack(mut packed: &[u8], root: &Path) {
    while let Some(end) = packed.iter().position(|byte| *byte == 0) {
        let name = std::str::from_utf8(&packed[..end]).expect("a name");
        let (len, rest) = packed[end + 1..].split_first_chunk().expect("a length");
        let (bytes, rest) = rest.split_at(usize::try_from(u64::from_be_bytes(*len)).expect("short"));
        packed = rest;
        match name.strip_suffix('/') {
            Some(folder) => fs::create_dir(root.join(folder)).expect("a folder"),
            None => fs::write(root.join(name), bytes).expect("it writes"),
        }
    }
}

/// The golden folder, to be written in.
fn golden(version: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    copy(&fixture(version), folder.path());
    let packed = fs::read(folder.path().join("generations.zst")).expect("it reads");
    fs::remove_file(folder.path().join("generations.zst")).expect("removed");
    fs::create_dir(folder.path().join("generations")).expect("a folder");
    unpack(&zstd::decode_all(&packed[..]).expect("it decompresses"), &folder.path().join("generations"));
    folder
}

fn names(folder: &Path) -> Vec<String> {
    let name = |entry: fs::DirEntry| entry.file_name().into_string().expect("a name");
    let mut names: Vec<_> = fs::read_dir(folder).expect("it lists").flatten().map(name).collect();
    names.sort();
    names
}

#[test]
fn each_file_of_the_golden_spool_is_read_as_it_was_written() {
    let folder = golden("v1");
    let open = folder.path().join("open");
    let [full, last, sums] = &names(&open)[..] else { panic!("other files") };
    assert_eq!(sums.as_str(), "counts-000");
    for (name, number, ids, made_ms, is_closed) in
        [(full, 3, 35..=51, 1_700_000_000_350, true), (last, 4, 52..=56, 1_700_000_000_520, false)]
    {
        assert_eq!(log::Name::parse(name).map(|name| name.number), Some(number));
        let bytes = fs::read(open.join(name)).expect("it reads");
        assert_eq!(Preamble::parse(&bytes), Some(Preamble { boot: [1; 16], made_ms, sync: 50 }));
        let (mut at, mut read) = (PREAMBLE, Vec::new());
        while let Found::Row { number, payload, len } = log::look(&bytes[at..]) {
            let Ok(Row::Request(record)) = Row::decode(payload) else { panic!("row {number} is none") };
            let id = record.request.0[15];
            let expected = UsageRecord { at_ms: 1_700_000_000_000 + i64::from(id) * 10, ..record_of(id) };
            assert_eq!((read.len(), record), (number as usize, expected));
            read.push(id);
            at += len;
        }
        assert_eq!(read, ids.collect::<Vec<_>>());
        assert_eq!(matches!(log::look(&bytes[at..]), Found::End { number: 17 }), is_closed);
    }

    let bytes = fs::read(open.join(sums)).expect("it reads");
    let slots: Vec<_> = bytes.as_chunks::<SLOT>().0.iter().map(|slot| Sum::parse(slot).expect("it is whole")).collect();
    let used: Vec<_> = slots.iter().enumerate().filter(|(_, sum)| sum.count > 0).collect();
    let [(at, sum)] = used[..] else { panic!("{used:?}") };
    assert_eq!((at, slots.len()), (usize::from(Outcome::Admitted.number()), counts::SLOTS));
    assert_eq!((sum.count, sum.bytes_in, sum.bytes_out), (8, 8, 4096));
    assert_eq!((sum.from_ms, sum.to_ms), (1_700_000_000_000, 1_700_000_000_560));

    let losses = Losses::load(folder.path(), 9);
    let told: Vec<_> = losses.untold(&losses::Heard::default(), 9).iter().map(|gap| (gap.reason, gap.count)).collect();
    assert_eq!(told, [(GapReason::WriteFailed, None), (GapReason::WriteFailed, Some(1))]);

    let (mark, told) = read_mark(folder.path()).expect("it is whole");
    assert_eq!((mark.stream, mark.next_seq, mark.sealed.files), (STREAM, 7, 6));
    assert_eq!((mark.previous.is_some(), mark.key), (true, Some(device_key().id())));
    let cursor = mark.cursors.iter().find(|cursor| Some(cursor.id) == log::Name::parse(full).map(|name| name.id));
    assert_eq!(cursor.map(|cursor| (cursor.rows, cursor.last_ms)), Some((14, 1_700_000_000_480)));
    assert_eq!((told[&0].len(), told[&0][0].count, told[&0][0].bytes_in), (1, 3, 3));

    let [tombstone] = &names(&folder.path().join("retired"))[..] else { panic!("other files") };
    let bytes = fs::read(folder.path().join("retired").join(tombstone)).expect("it reads");
    let tombstone = segment::open(&bytes, &device_key()).expect("it verifies");
    let header = tombstone.header();
    assert_eq!((header.stream.0, header.first(), header.seq, header.others), (STREAM, 1, 1, 2));
}

#[test]
fn the_golden_spool_goes_on_and_tells_what_it_held_and_nothing_else() {
    let folder = golden("v1");
    let mut device = device(folder.path());
    let mut hub = Hub::default();
    answer(&mut device, 57, 60);
    device.stop();
    drain(&mut device, &mut hub);
    assert_eq!(hub.requests(), (25..=32).chain(41..=60).collect::<BTreeSet<_>>());
    // 8 rolled up, 8 summed, one lost record; and two gaps: the generation that nobody had told, and what the daemon saw.
    assert_eq!(hub.told(), (28, 17, 2));
    let ledger = device.ledger.as_ref().expect("it is open");
    assert_eq!(ledger.state.stream, STREAM, "it goes on in its stream");
    let kept = names(&folder.path().join("generations"));
    assert!(kept.iter().all(|name| !name.contains(".lost-")), "{kept:?}");
}

#[test]
fn the_next_file_of_the_golden_spool_names_the_last() {
    let folder = golden("v1");
    let mut device = device(folder.path());
    assert!(device.seal() > Some(8), "the open log, and the gaps");
    let [last, next] = [5, 6].map(|seq| device.oldest(behind(STREAM, seq)).expect("it is there"));
    let next = segment::open(&next.bytes, &device.key()).expect("it verifies");
    assert_eq!((last.at.seq, next.header().seq, next.header().previous), (6, 7, Some(last.digest)));
}

#[test]
#[ignore = "writes the fixture that is not there; a committed one must never change"]
fn writes_the_golden_spool() {
    let to = fixture("v1");
    if to.exists() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let spool = folder.path().join("spool");
    make(&spool);
    let (mut packed, generations) = (Vec::new(), spool.join("generations"));
    pack(&generations, &generations, &mut packed);
    fs::remove_dir_all(&generations).expect("removed");
    let _ = fs::remove_file(spool.join("ballast")); // room and nothing else
    copy(&spool, &to);
    let packed = zstd::encode_all(&packed[..], 19).expect("it compresses");
    fs::write(to.join("generations.zst"), packed).expect("it writes");
}
