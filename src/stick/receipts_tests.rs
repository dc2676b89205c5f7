use std::fs;
use std::path::Path;

use super::*;
use crate::ids::Digest;
use crate::keys::SigningKey;
use crate::spool::record::{Gap, GapReason, Row};
use crate::spool::segment::{Builder, Place, StandsFor};
use crate::stick::export::tests::{Memory, STREAM, chain, device, file, id};
use crate::stick::{Form, Name, RECEIPTS};

fn hub(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32]).expect("a seed makes a key")
}

fn receipt(seq: u64, digest: Digest) -> Receipt {
    Receipt { device: id(), stream: STREAM, seq, digest, at_ms: 1 }
}

fn put(stick: &Path, name: &str, bytes: &[u8]) {
    let folder = stick.join(RECEIPTS).join(STREAM.to_string());
    fs::create_dir_all(&folder).expect("made");
    fs::write(folder.join(name), bytes).expect("written");
}

async fn taken(source: &Memory, stick: &Path) -> (Vec<(String, &'static str)>, usize) {
    let mut outcomes = Vec::new();
    let root = Folder::open(stick).expect("it opens");
    let hubs = [hub(9).public()];
    let told = |item: &Item, outcome: Outcome| outcomes.push((item.name.file_name(), outcome.name()));
    let strange = take(source, &root, id(), &hubs, told).await.expect("it reads");
    (outcomes, strange.len())
}

#[tokio::test]
async fn only_a_receipt_of_the_hub_for_this_very_file_deletes_it() {
    let (stick, files) = (tempfile::tempdir().expect("a folder"), chain(6));
    let source = Memory::of(files.clone());
    let good = |at: usize| receipt(files[at].at.seq, files[at].digest);
    put(stick.path(), "1.tgr", &good(0).sign(&hub(9)));
    put(stick.path(), "2.tgr", &good(1).sign(&hub(8)));
    put(stick.path(), "3.tgr", &Receipt { digest: Digest([3; 32]), ..good(2) }.sign(&hub(9)));
    put(stick.path(), "4.tgr", &Receipt { device: DeviceId([4; 16]), ..good(3) }.sign(&hub(9)));
    let mut altered = good(4).sign(&hub(9));
    altered[50] ^= 1;
    put(stick.path(), "5.tgr", &altered);
    put(stick.path(), "6.tgr", &vec![0; 100_000]);
    put(stick.path(), "7.tgr", &receipt(7, Digest([7; 32])).sign(&hub(9)));
    put(stick.path(), "photo.jpg", b"");
    let (outcomes, strange) = taken(&source, stick.path()).await;
    let names: Vec<_> = outcomes.iter().map(|(_, outcome)| *outcome).collect();
    let expected =
        ["Deleted", "KeyUnknown", "WrongDigest", "WrongDevice", "SignatureInvalid", "Malformed", "GoneBefore"];
    assert_eq!((&names[..], strange), (&expected[..], 1));
    assert_eq!(source.seqs(), [2, 3, 4, 5, 6]);
    // The same stick again.
    assert_eq!(taken(&source, stick.path()).await.0.first().map(|(_, outcome)| *outcome), Some("GoneBefore"));
    assert_eq!(source.seqs(), [2, 3, 4, 5, 6]);
    // A stick that went round has another device's receipts rightly.
    fs::create_dir(stick.path().join(DeviceId([4; 16]).to_string())).expect("made");
    assert_eq!(taken(&source, stick.path()).await.0.get(3).map(|(_, outcome)| *outcome), Some("OfAnotherDevice"));
}

#[tokio::test]
async fn a_file_that_became_part_of_a_tombstone_meanwhile_is_no_alarm() {
    let (stick, files) = (tempfile::tempdir().expect("a folder"), chain(4));
    let mut builder = Builder::new();
    let gap = Gap { reason: GapReason::UncleanStop, from_ms: 0, to_ms: 1, count: Some(9) };
    builder.push(&Row::Gap(gap)).expect("there is room");
    let place = Place { stream: STREAM, seq: 3, previous: None, policy: None };
    let bytes = builder.bury(&place, StandsFor { first: 1, digest: files[2].digest }, &device()).expect("it seals");
    let mut tombstone = file(3, Some(files[1].digest), 3);
    (tombstone.digest, tombstone.bytes) = (crate::keys::sha256(&bytes), bytes);
    let source = Memory::of(vec![tombstone.clone(), files[3].clone()]);
    put(stick.path(), "2.tgr", &receipt(2, files[1].digest).sign(&hub(9)));
    put(stick.path(), "3.tgr", &receipt(3, files[2].digest).sign(&hub(9)));
    let (outcomes, _) = taken(&source, stick.path()).await;
    assert!(outcomes.iter().all(|(_, outcome)| *outcome == "Retired"), "{outcomes:?}");
    assert_eq!(source.seqs(), [3, 4]);
    let name = Name { stream: STREAM, seq: 3, first: Some(1), form: Form::Receipt };
    put(stick.path(), &name.file_name(), &receipt(3, tombstone.digest).sign(&hub(9)));
    assert!(taken(&source, stick.path()).await.0.contains(&("1-3.tgr".into(), "Deleted")));
    assert_eq!(source.seqs(), [4]);
}
