//! Runs the folders under `cases/`: each on a device of its own, whose state is a copy of one that has taken what the
//! case says, so that no case leaves anything for the next. What a case finds is a `Result`, and no panic: all that
//! fail are told at once, each with its folder.

mod arrange;
mod case;
mod stage;

pub use case::{Arrange, Case, Damage, Facts, How, Offer, Start, Told};
pub use stage::World;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use tidegate::bundle::{Refused, SemanticProblem, outcome};
use tidegate::units::UnixSeconds;

use crate::generator;
use crate::generator::sound;
use crate::world::Policy;

/// 2090-01-01.
const FAR: UnixSeconds = 3_786_912_000;

/// Where the cases lie.
pub fn cases() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/attacks/cases"))
}

/// The folder of each case, in order.
pub fn folders(cases: &Path) -> Vec<PathBuf> {
    let inside = |folder: &Path| {
        let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
        let mut folders: Vec<_> = entries.filter(|path| path.is_dir()).collect();
        folders.sort();
        folders
    };
    inside(cases).iter().filter(|family| !family.ends_with("world")).flat_map(|family| inside(family)).collect()
}

/// Runs all cases; what went wrong in which.
fn run_all(world: &mut World) -> Vec<String> {
    let folders = folders(&cases());
    let name = |folder: &Path| folder.strip_prefix(cases()).expect("inside").display().to_string();
    folders.iter().filter_map(|folder| Some(format!("{}: {}", name(folder), world.run(folder).err()?))).collect()
}

#[test]
fn each_case_comes_out_as_it_says() {
    let failed = run_all(&mut World::read(&cases()).expect("the world of the cases"));
    assert!(failed.is_empty(), "{} cases failed:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn no_case_depends_on_when_the_program_was_built() {
    let mut world = World::read(&cases()).expect("the world of the cases");
    world.floor = Some(FAR);
    let failed = run_all(&mut world);
    assert!(failed.is_empty(), "{} cases failed in 2090:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn every_name_has_a_case() {
    let folders = folders(&cases());
    let read: Vec<Case> = folders.iter().map(|folder| Case::read(folder).expect("a case")).collect();
    let seen: BTreeSet<&str> = read.iter().flat_map(Case::names).collect();
    let missing: Vec<_> = Refused::NAMES.iter().filter(|name| !seen.contains(**name)).collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
    for taken in ["Activated", "Permitted", "Enrolled", "TimeReset", "AlreadyInstalled"] {
        assert!(outcome::is_taken(taken) && seen.contains(taken), "no case for {taken}");
    }
    println!("{} cases", folders.len());
    assert!(folders.len() >= 900, "{}", folders.len());
}

#[test]
fn no_two_cases_are_the_same() {
    let mut seen = HashMap::new();
    for folder in folders(&cases()) {
        let case = Case::read(&folder).expect("a case");
        let bytes = |name: &String| {
            let cases = cases();
            fs::read(if name.starts_with("world/") { &cases } else { &folder }.join(name)).expect("a file")
        };
        let before: Vec<_> = case.before.iter().map(bytes).collect();
        let offers: Vec<_> = case.offer.iter().map(|offer| (bytes(&offer.file), offer.arrange)).collect();
        let (damage, ends) = (format!("{:?}", case.damage), case.start.map(|start| start.ends));
        let same = seen.insert((before, damage, ends, offers), folder.clone());
        assert!(same.is_none(), "{} is {}", folder.display(), same.unwrap_or_default().display());
    }
}

#[test]
fn the_cases_are_what_their_generator_makes() {
    let differences = generator::differences(&cases());
    assert!(differences.is_empty(), "write_the_cases, then look at what changed:\n{}", differences.join("\n"));
}

#[test]
#[ignore = "writes the cases; run it by hand when one is added"]
fn write_the_cases() {
    generator::write(&cases());
}

#[test]
fn the_readme_says_what_each_word_of_the_vocabulary_means() {
    let readme = fs::read_to_string(cases().parent().expect("a folder").join("README.md")).expect("the README");
    let word = |value: toml::Value| value.as_str().expect("a word").to_owned();
    let arranged = Arrange::ALL.map(|arrange| word(toml::Value::try_from(arrange).expect("plain")));
    let missing: Vec<_> = arranged.iter().filter(|word| !readme.contains(&format!("`{word}`"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// A throw-away folder of one case.
fn thrown_away(case: &Case, bytes: &[u8]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("case.toml"), case.text()).expect("written");
    fs::write(folder.path().join("candidate.tgb"), bytes).expect("written");
    folder
}

fn expecting(name: &str) -> Case {
    let offer = Offer { file: "candidate.tgb".into(), expect: vec![name.into()], ..Offer::default() };
    Case { about: "a control".into(), before: vec!["world/golden.tgb".into()], offer: vec![offer], ..Case::default() }
}

#[test]
fn negative_control_the_runner_tells_a_wrong_name_and_a_bundle_that_is_taken() {
    let mut world = World::read(&cases()).expect("the world of the cases");
    let (old, next) = (sound::policy(9, "old"), sound::policy(11, "next"));
    let mut told = |case: &Case, bytes: &[u8]| world.run(thrown_away(case, bytes).path());
    assert_eq!(told(&expecting("Rollback"), &old), Ok(()), "the control of the controls");
    for (case, bytes, why) in [
        (expecting("Equivocation"), &old, "Rollback"),
        (expecting("Rollback"), &next, "Activated"),
        (expecting("Activated"), &old, "Rollback"),
        (Case { before: vec!["candidate.tgb".into()], ..expecting("Rollback") }, &next, "AlreadyInstalled"),
        (Case { offer: vec![], ..expecting("Rollback") }, &next, "nothing"),
        (
            Case { before: vec!["world/golden.tgb".into(), "candidate.tgb".into()], ..expecting("Rollback") },
            &old,
            "taken",
        ),
    ] {
        let why_not = told(&case, bytes).expect_err("it must be told");
        assert!(why_not.contains(why), "{why_not}");
    }
    // What is taken says no other time and no other root than the case does.
    let told_of = |change: fn(&mut Offer)| {
        let mut case = expecting("Activated");
        change(&mut case.offer[0]);
        case
    };
    let (late_at, late) = (sound::FAR + 1_000, sound::at(sound::AFTER_LATER, "late", sound::FAR + 1_000));
    let in_2095 = |floor| {
        let mut case = expecting("Activated");
        case.before.extend(sound::LATER.map(String::from));
        case.offer[0].floor = floor;
        case
    };
    let rotated = sound::policy_under(&sound::third(), 11, "next", &[14, 15]);
    let rotated = sound::bringing(&rotated, &[sound::to_third()]);
    assert_eq!(told(&in_2095(Some(late_at)), &late), Ok(()));
    assert_eq!(told(&told_of(|offer| offer.root = Some(3)), &rotated), Ok(()));
    for (case, bytes, why) in [
        (in_2095(None), &late, "floor"),
        (in_2095(Some(sound::FAR)), &late, "floor"),
        (in_2095(Some(late_at + 1_000)), &late, "floor"),
        (told_of(|_| ()), &rotated, "root"),
        (told_of(|offer| offer.root = Some(4)), &rotated, "root"),
    ] {
        let why_not = told(&case, bytes).expect_err("it must be told");
        assert!(why_not.contains(why), "{why_not}");
    }
    let swept = |arrange, expect: &[&str]| {
        let expect = expect.iter().map(|name| (*name).to_owned()).collect();
        let offer = Offer { file: "candidate.tgb".into(), arrange: Some(arrange), expect, ..Offer::default() };
        Case { offer: vec![offer], ..expecting("") }
    };
    assert_eq!(told(&swept(Arrange::EveryTruncation, &["Truncated"]), &next), Ok(()));
    let never = told(&swept(Arrange::EveryTruncation, &["Truncated", "BadMagic"]), &next);
    assert!(never.expect_err("one name never comes").contains("BadMagic"));
    assert!(told(&swept(Arrange::EveryBit, &["SignatureInvalid"]), &next).is_err(), "others come too");
}

#[test]
fn negative_control_without_the_list_before_them_the_shrunk_ones_are_taken() {
    let mut world = World::read(&cases()).expect("the world of the cases");
    let mut taken = 0;
    for folder in folders(&cases()).iter().filter(|folder| folder.join("held.tgb").exists()) {
        let case = Case::read(folder).expect("a case");
        if case.before != ["world/golden.tgb", "held.tgb"] || !case.damage.is_empty() {
            continue;
        }
        let bytes = fs::read(folder.join("candidate.tgb")).expect("a list");
        assert_eq!(world.run(thrown_away(&expecting("Activated"), &bytes).path()), Ok(()), "{}", folder.display());
        taken += 1;
    }
    assert!(taken > 8, "{taken}");
}

#[test]
fn negative_control_the_runner_tells_a_verifier_that_judges_otherwise() {
    // Step 15 left out, or what takes nothing, then a device of another deployment, and one that has seen nothing.
    fn strict(_: &tidegate::bundle::Entries) -> Result<Policy, SemanticProblem> {
        Err(SemanticProblem::SemanticInvalid("nothing will do".into()))
    }
    fn blind(_: &tidegate::bundle::Entries) -> Result<Policy, SemanticProblem> {
        Ok(Policy::new())
    }
    let family = |world: &mut World, family: &str| {
        let folders =
            folders(&cases()).into_iter().filter(|folder| folder.parent().is_some_and(|f| f.ends_with(family)));
        let ran: Vec<_> = folders.map(|folder| world.run(&folder).is_ok()).collect();
        (ran.len(), ran.into_iter().filter(|ran| *ran).count())
    };
    let mut world = World::read(&cases()).expect("the world of the cases");
    world.compile = blind;
    let (all, passed) = family(&mut world, "keys");
    assert!(all > 10 && passed == 0, "{passed} of {all} passed without step 15");

    let mut world = World::read(&cases()).expect("the world of the cases");
    world.compile = strict;
    let (all, passed) = family(&mut world, "taken");
    assert!(all > 100 && passed < 3, "{passed} of {all} passed where no policy is taken");

    let mut world = World::read(&cases()).expect("the world of the cases");
    world.facts.labels.clear();
    world.root = sound::other_deployment().bytes().to_vec();
    let (all, passed) = family(&mut world, "order");
    assert!(all > 3 && passed == 0, "{passed} of {all} passed with another root");
}

#[test]
fn negative_control_a_stale_an_altered_and_an_unknown_file_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    generator::write(folder.path());
    assert_eq!(generator::differences(folder.path()), Vec::<String>::new());
    let first = folders(folder.path()).swap_remove(0);
    let candidate = first.join("case.toml");
    fs::write(&candidate, fs::read_to_string(&candidate).expect("text") + "\n").expect("written");
    let stale = first.with_file_name("stale");
    fs::create_dir(&stale).expect("made");
    fs::write(stale.join("case.toml"), "about = \"\"").expect("written");
    fs::remove_file(folder.path().join("world/root.json")).expect("removed");
    let told = generator::differences(folder.path());
    assert_eq!(told.len(), 3, "{told:?}");
    // Writing makes all good again, the stale one too.
    generator::write(folder.path());
    assert_eq!(generator::differences(folder.path()), Vec::<String>::new());
}
