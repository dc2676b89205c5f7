//! Each kept seed through each fuzz target, and what shows that the targets would find a break.
//!
//! `tests/fuzz/run` lets libFuzzer look for more; what it finds is kept in `tests/fuzz/seeds` and stays a test here.

#![expect(unreachable_pub, reason = "one binary, whose modules speak to each other")]

#[path = "fuzz/named.rs"]
mod named;
#[path = "fuzz/targets/mod.rs"]
mod targets;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use named::{NAMED, manifest};
use targets::world::{self, GOLDEN};
use targets::{TARGETS, blobs, container, documents, manifest as manifests, roots, start, token, usage};
use tidegate::bundle::canonical::NotCanonical;
use tidegate::bundle::container::BundleType;
use tidegate::bundle::root::{Role, RootDocument};
use tidegate::bundle::{EntryKind, canonical, compile, pack};
use tidegate::spool::segment;
use tidegate::token::{Circumstances, TimeVerdict, TokenError, VerifiedClaims};

fn folder(target: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/seeds")).join(target)
}

/// Whether a promise breaks in `check`.
fn breaks<T>(check: impl FnOnce() -> T) -> bool {
    catch_unwind(AssertUnwindSafe(check)).is_err()
}

#[test]
fn no_seed_of_any_target_breaks_a_promise() {
    for (name, run) in TARGETS {
        let mut seeds: Vec<_> =
            fs::read_dir(folder(name)).expect("seeds").flatten().map(|entry| entry.path()).collect();
        assert!(seeds.len() >= 5, "{name} has {} seeds", seeds.len());
        // Those that are made have a test of their own.
        seeds.retain(|path| !NAMED.iter().any(|seed| seed.target == name && path.ends_with(seed.name)));
        seeds.sort();
        for path in seeds {
            let bytes = fs::read(&path).expect("a seed can be read");
            assert!(!breaks(|| run(&bytes)), "{name} breaks on {}", path.display());
        }
    }
}

#[test]
fn the_made_seeds_are_kept_and_taken_or_refused_as_they_say() {
    let mut otherwise = Vec::new();
    for seed in &*NAMED {
        let kept = fs::read(folder(seed.target).join(seed.name)).unwrap_or_default();
        assert!(kept == seed.bytes, "{}/{} is not what is made: write_the_seeds", seed.target, seed.name);
        let (_, run) = TARGETS.iter().find(|(name, _)| *name == seed.target).expect("a target");
        if catch_unwind(|| run(&seed.bytes)).ok() != Some(seed.taken) {
            otherwise.push(format!("{}/{}", seed.target, seed.name));
        }
    }
    assert!(otherwise.is_empty(), "taken, refused or broken otherwise than they say: {otherwise:#?}");
}

/// The device's root, but that one signature of each role is enough: as if the others were not asked for.
fn weak_root() -> RootDocument {
    let mut draft = GOLDEN.root.draft().clone();
    for role in [Role::Root, Role::Policy] {
        draft.roles.get_mut(&role).expect("somebody has it").threshold = 1;
    }
    RootDocument::build(draft).expect("a sound root")
}

/// `check` breaks on what is planted, and not without.
fn finds<T>(planted: T, sound: T, check: impl Fn(T) -> bool) {
    assert!(!breaks(|| check(sound)), "it breaks without a break");
    assert!(breaks(|| check(planted)), "a planted break is not seen");
}

#[test]
fn a_device_that_asks_for_one_signature_too_few_is_found_out() {
    let next = manifest(&GOLDEN.policy, |policy| policy["seq"] = 8.into());
    let by_one = world::signatures(0b1000, BundleType::Policy.media_type(), &next);
    let payload = world::payload(&GOLDEN.policy);
    let bundle = pack::lay(BundleType::Policy, b"", &next, &by_one, payload).expect("it fits");
    finds(weak_root(), GOLDEN.root.clone(), |root| container::as_it_comes(&bundle, &root));
    finds(weak_root(), GOLDEN.root.clone(), |root| start::fresh(&root));
    let by_one = [1, 0, 0b1, 1, 0b1, 0, 0, 0];
    finds(weak_root(), GOLDEN.root.clone(), |root| roots::signed(&by_one, &root));
}

#[test]
fn a_root_of_another_deployment_is_found_out_by_the_links_that_it_lets_through() {
    let mut draft = GOLDEN.root.draft().clone();
    draft.issued_at -= 1;
    draft.version = 3;
    let other = RootDocument::build(draft).expect("a sound root");
    finds(other, GOLDEN.root.clone(), |root| roots::as_it_comes(&GOLDEN.links[1], &root));
}

#[test]
fn a_reader_that_forgives_is_found_out() {
    let forgiving = |bytes: &[u8]| serde_json::from_slice(bytes).map_err(|_| NotCanonical::NotJson);
    for text in [r#"{"a": 1}"#, r#"{"b":1,"a":1}"#, r#"{"a":1.0}"#, r#"{"a":1,"a":1}"#, r#"["\u0061"]"#, "1 "] {
        manifests::one_form(text.as_bytes(), canonical::read);
        assert!(breaks(|| manifests::one_form(text.as_bytes(), forgiving)), "{text}");
    }
}

#[test]
fn a_verifier_that_lets_a_token_through_is_found_out() {
    let anything = |_: &[u8]| token::verify_pinned(&token::GOLDEN[0]);
    let mut planted = 0;
    for seed in NAMED.iter().filter(|seed| seed.target == "token" && !seed.taken) {
        let found = match &*seed.bytes {
            [flags @ 0..0x20, rest @ ..] if token::verify_pinned(&token::of(*flags, rest)).is_err() => {
                breaks(|| token::signed(*flags, rest, anything))
            }
            [0..0x20, ..] => continue, // refused for its moment, by another stage
            _ => breaks(|| token::as_it_comes(&seed.bytes, anything)),
        };
        assert!(found, "{} was let through, and nobody saw", seed.name);
        planted += 1;
    }
    assert!(planted >= 10, "{planted} breaks were planted");
}

#[test]
fn a_judge_that_lets_a_moment_through_is_found_out() {
    fn certain(_: &VerifiedClaims, _: &Circumstances<'_>) -> Result<TimeVerdict, TokenError> {
        Ok(TimeVerdict::Certain)
    }
    let mut planted = 0;
    for seed in NAMED.iter().filter(|seed| seed.target == "token" && !seed.taken) {
        let [flags @ 0..0x20, rest @ ..] = &*seed.bytes else { continue };
        if token::verify_pinned(&token::of(*flags, rest)).is_ok() {
            let found = breaks(|| token::judged(*flags, rest, token::verify_pinned, certain));
            assert!(found, "{} was in force, and nobody saw", seed.name);
            planted += 1;
        }
    }
    assert!(planted >= 8, "{planted} breaks were planted");
}

#[test]
fn a_policy_that_is_not_its_entries_is_found_out() {
    for kind in [EntryKind::Routes, EntryKind::Subscriptions, EntryKind::Revocations] {
        let mut entries = blobs::ENTRIES.clone();
        let entry = entries.remove(&kind).expect("a golden entry");
        if kind == EntryKind::Routes {
            let other = String::from_utf8(entry).expect("text").replace("/{id}", "/x/{id}");
            entries.insert(kind, other.into_bytes());
        }
        let policy = compile(&entries).expect("it compiles");
        blobs::compiled(&policy, &entries, b"");
        let found = breaks(|| blobs::compiled(&policy, &blobs::ENTRIES, b""));
        assert!(found, "a policy of another entry {kind}, and nobody saw");
    }
}

#[test]
fn a_document_of_another_device_is_found_out() {
    let own = documents::DOCUMENTS[0].clone();
    let (other, mine) = (world::key(1).public(), world::key(9).public());
    // Whoever asks for another key's word would not believe the golden receipt.
    finds(other, mine, |key| documents::as_it_comes(&own, &key));
}

#[test]
fn a_usage_file_of_another_device_or_with_other_rows_is_found_out() {
    let (other, mine) = (world::key(1).public(), world::key(9).public());
    finds(other, mine.clone(), |key| usage::as_it_comes(&usage::GOLDEN[0], &key));
    let file = |at: usize| segment::open(&usage::GOLDEN[at], &mine).expect("it opens");
    finds(file(1), file(0), |file| usage::believed(&usage::GOLDEN[0], &file, &mine));
}

#[test]
#[ignore = "writes the made seeds; run it by hand when one is added"]
fn write_the_seeds() {
    for seed in &*NAMED {
        fs::create_dir_all(folder(seed.target)).expect("the folder");
        fs::write(folder(seed.target).join(seed.name), &seed.bytes).expect("it can be written");
    }
}
