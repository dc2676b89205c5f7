//! Time: resets, what counts after one, and documents ten years ahead.

use serde_json::Value;
use tidegate::bundle::canonical;
use tidegate::bundle::reset::MEDIA_TYPE;

use super::super::lists::table;
use super::super::resets::{self, reset, value};
use super::super::sound::{self, AFTER_LATER, FAR, LATE, LISTS, POLICY, ROOTS};
use super::super::{CANDIDATE, Folder, folder};
use crate::time::signed_as;

const DAY: i64 = 86_400;
/// 2093-01-01: what resets here set the time to.
const RIGHT: i64 = FAR - 730 * DAY;
/// Ten years, of 365.25 days.
const TEN_YEARS: i64 = 315_576_000;

fn changed(seq: u64, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut value = value(seq);
    change(&mut value);
    signed_as(MEDIA_TYPE, &canonical::write(&value).expect("canonical"), &ROOTS)
}

/// From 2095 back to 2093.
fn back(seq: u64) -> Vec<u8> {
    changed(seq, |v| (v["at"], v["undoes"]) = (RIGHT.into(), FAR.into()))
}

fn at(seq: u64, issued_at: i64) -> Vec<u8> {
    sound::at(seq, "at that moment", issued_at)
}

/// A policy of that moment which expires at that other one.
fn expiring(seq: u64, issued_at: i64, expires_at: i64) -> Vec<u8> {
    let change = |m: &mut Value| {
        (m["seq"], m["issued_at"], m["expires_at"]) = (seq.into(), issued_at.into(), expires_at.into());
    };
    sound::next().changed(change).signed(&POLICY)
}

/// A device of 2095 that a reset took back to 2093.
fn taken_back(family: &'static str, slug: &str, about: &str) -> Folder {
    folder(family, slug, about).in_2095().before("reset.tgb", back(3))
}

fn resets() -> Vec<Folder> {
    let simple = |slug: &str, about: &str, bytes: Vec<u8>| {
        folder("taken", slug, about).offer(CANDIDATE, "TimeReset", bytes).from(resets::AT)
    };
    let with = |slug: &str, about: &str, change: fn(&mut Value)| simple(slug, about, changed(1, change));
    vec![
        with("reset-for-all", "A time reset for all devices.", |v| v["target"] = serde_json::json!({"all": true})),
        with("reset-for-its-label", "A time reset for the device's label.", |v| {
            v["target"] = serde_json::json!({"labels": {"site": ["pier"]}})
        }),
        with("reset-of-2-53", "A time reset of the largest number that there can be.", |v| {
            v["seq"] = (1_u64 << 53).into()
        }),
        with("reset-by-a-second", "A time reset that undoes the second after the one that it sets.", |v| {
            v["undoes"] = 1_001.into()
        }),
        with("reset-texts-of-256", "A time reset whose texts are of 256 bytes.", |v| {
            v["author"] = serde_json::json!({"reason": "r".repeat(256), "tool": "", "who": "w".repeat(256)});
        }),
        simple("reset-by-all", "A time reset by all three holders and thirteen strangers.", {
            let seeds: Vec<u8> = (1..=3).chain(40..53).collect();
            signed_as(MEDIA_TYPE, &canonical::write(&value(1)).expect("canonical"), &seeds)
        }),
        simple("reset-after-another", "Two time resets, one after the other.", reset(3))
            .offer("next.tgb", "TimeReset", reset(4))
            .from(resets::AT)
            .again(CANDIDATE, "Rollback"),
        simple(
            "reset-to-no-earlier-than-the-program",
            "A time reset to 1970: it is never before the program was made.",
            reset(1),
        )
        .offer("expired.tgb", "Expired", expiring(sound::SEQ + 1, 500, 1_000_000)),
        folder("taken", "reset-to-2093", "A time reset takes the device from 2095 to 2093.")
            .in_2095()
            .offer(CANDIDATE, "TimeReset", back(1))
            .from(RIGHT)
            .offer("soon.tgb", "Activated", expiring(AFTER_LATER, RIGHT, RIGHT + 100 * DAY)),
    ]
}

fn after() -> Vec<Folder> {
    let list = |seq: u64, ids: &[(u64, i64)]| {
        let parts = sound::list_parts(&sound::root(), seq, table(ids, &[]));
        parts.changed(|m| m["issued_at"] = RIGHT.into()).signed(&LISTS)
    };
    let held = [(1, RIGHT + 100 * DAY), (5, LATE)];
    vec![
        taken_back(
            "taken",
            "after-a-reset-not-undone",
            "After a reset what was made more than 400 days on is taken, and says nothing of the time.",
        )
        .offer(CANDIDATE, "Activated", at(AFTER_LATER, RIGHT + 402 * DAY))
        .offer("again.tgb", "Activated", at(AFTER_LATER + 1, FAR)),
        taken_back("taken", "after-a-reset-near", "After a reset what was made less than 400 days on is believed.")
            .offer(CANDIDATE, "Activated", at(AFTER_LATER, RIGHT + 399 * DAY))
            .from(RIGHT + 399 * DAY)
            .offer("next.tgb", "Activated", at(AFTER_LATER + 1, RIGHT + 700 * DAY))
            .from(RIGHT + 700 * DAY),
        taken_back(
            "taken",
            "after-a-reset-beyond",
            "After a reset what was made later than the time that was taken back is believed.",
        )
        .offer(CANDIDATE, "Activated", at(AFTER_LATER, FAR + 10 * DAY))
        .from(FAR + 10 * DAY),
        taken_back(
            "taken",
            "after-a-reset-by-the-root",
            "After a reset a root of more than 400 days on follows, and says nothing of the time.",
        )
        .offer(CANDIDATE, "Activated", {
            let root = sound::root_with(|draft| (draft.version, draft.issued_at) = (3, RIGHT + 500 * DAY));
            let mut draft = sound::draft(AFTER_LATER, "next");
            draft.issued_at = RIGHT;
            let next = sound::Parts::of(&draft.assemble(&root).expect("a sound draft")).signed(&POLICY);
            sound::bringing(&next, &[sound::link(&root, &ROOTS)])
        })
        .keeps_root(3),
        taken_back("taken", "after-a-reset-older-policies", "After a reset the policy that serves comes again.")
            .again(sound::LATER[6], "AlreadyInstalled"),
        folder(
            "lists",
            "counts-again",
            "After a reset an id counts again that had lapsed, and the next list lacks it.",
        )
        .in_2095()
        .before("lapsed.tgb", list(3, &held))
        .before("reset.tgb", back(3))
        .offer(CANDIDATE, "RevocationShrunk", list(4, &held[1..]))
        .offer("whole.tgb", "Activated", list(4, &held)),
        taken_back(
            "time-reset",
            "number-kept",
            "A reset was taken, and what it undoes came about once more: the same comes.",
        )
        .before("beyond.tgb", at(AFTER_LATER, FAR + 10 * DAY))
        .again("reset.tgb", "Rollback"),
        taken_back(
            "taken",
            "reset-once-more",
            "After a reset the time came too far ahead again: the next reset undoes it.",
        )
        .before("beyond.tgb", at(AFTER_LATER, FAR + 10 * DAY))
        .offer(CANDIDATE, "TimeReset", back(4))
        .from(RIGHT),
    ]
}

fn ahead() -> Vec<Folder> {
    vec![
        folder("taken", "ten-years-ahead", "Made ten years after the time that it is at least.")
            .in_2095()
            .offer(CANDIDATE, "Activated", at(AFTER_LATER, FAR + TEN_YEARS))
            .from(FAR + TEN_YEARS),
        folder("manifest", "ten-years-and-two-hours-ahead", "Made ten years and two hours after that time.")
            .in_2095()
            .offer(CANDIDATE, "IssuedAtImplausible", at(AFTER_LATER, FAR + TEN_YEARS + 7_200)),
        folder("taken", "expires-a-second-later", "It expires in the second after the one in which it was made.")
            .in_2095()
            .offer(CANDIDATE, "Activated", expiring(AFTER_LATER, FAR + DAY, FAR + DAY + 1))
            .from(FAR + DAY),
    ]
}

pub fn cases() -> Vec<Folder> {
    [resets(), after(), ahead()].concat()
}
