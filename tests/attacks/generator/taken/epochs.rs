//! A root of a later epoch: numbers, floors, lists and enrolments begin anew, and what serves goes on.

use serde_json::Value;
use tidegate::bundle::canonical;
use tidegate::bundle::reset::MEDIA_TYPE;
use tidegate::bundle::root::RootDocument;

use super::super::sound::{self, AFTER_LATER, FAR, LATE, POLICY, SEQ, bringing, link};
use super::super::{CANDIDATE, Folder, GOLDEN, documents, folder, lists, resets};
use crate::time::signed_as;

/// Version 3 of the same keys, two epochs on: the number may leave some out.
fn root() -> RootDocument {
    sound::root_with(|draft| (draft.version, draft.epoch) = (3, 3))
}

fn to_root() -> Vec<u8> {
    link(&root(), &sound::ROOTS)
}

/// A policy of the new epoch, whose floor is 0.
fn policy(seq: u64, reason: &str) -> Vec<u8> {
    let parts = sound::Parts::of(&sound::draft(seq, reason).assemble(&root()).expect("a sound draft"));
    parts.changed(|m| m["security_floor"] = 0.into()).signed(&POLICY)
}

/// A bundle of the first number that there is, which brings the epoch.
fn first() -> Vec<u8> {
    bringing(&policy(1, "first"), &[to_root()])
}

/// A device that the new epoch has reached, and what it had before.
fn begun(slug: &str, about: &str, had: &[(&str, Vec<u8>)]) -> Folder {
    let folder = folder("taken", slug, about);
    had.iter().fold(folder, |folder, (file, bytes)| folder.before(file, bytes.clone())).before("first.tgb", first())
}

fn list(seq: u64, table: Vec<u8>) -> Vec<u8> {
    sound::list_parts(&root(), seq, table).signed(&sound::LISTS)
}

fn of_epoch(mut body: Value) -> Value {
    (body["epoch"], body["root_version"]) = (3.into(), 3.into());
    body
}

fn enrolment(seq: u64, site: &str) -> Vec<u8> {
    documents::of(&of_epoch(documents::body(seq, site)), &POLICY)
}

pub fn cases() -> Vec<Folder> {
    let held = || ("held.tgb", lists::held());
    let reset = |seq: u64, epoch: u64| {
        let mut value = resets::value(seq);
        value["epoch"] = epoch.into();
        signed_as(MEDIA_TYPE, &canonical::write(&value).expect("canonical"), &sound::ROOTS)
    };
    let second = || policy(2, "second");
    let permit = |seq: u64| {
        let parts = sound::permit_parts(seq, &second(), &first());
        parts.changed(|m| (m["epoch"], m["root_version"]) = (3.into(), 3.into())).signed(&sound::PERMITS)
    };
    vec![
        folder(
            "taken",
            "epoch-first-number",
            "The first number of a new epoch, with a floor of 0, below the old one's.",
        )
        .offer(CANDIDATE, "Activated", first())
        .keeps_root(3)
        .again(CANDIDATE, "AlreadyInstalled"),
        begun("epoch-second-number", "The second number of a new epoch, after a start.", &[])
            .offer(CANDIDATE, "Activated", second())
            .offer("first-again.tgb", "Rollback", first())
            .offer("other.tgb", "Equivocation", policy(2, "other")),
        folder("taken", "epoch-of-a-refused-bundle", "An old policy brings a new epoch: what served serves on.")
            .offer(CANDIDATE, "EpochMismatch", bringing(&sound::policy(SEQ + 1, "next"), &[to_root()]))
            .keeps_root(3)
            .again(GOLDEN, "EpochMismatch")
            .offer("first.tgb", "Activated", policy(1, "first")),
        begun(
            "epoch-first-list",
            "The first list of a new epoch gives back what a list of the one before took.",
            &[held()],
        )
        .offer("list.tgb", "Activated", list(1, lists::table(&[(7, LATE)], &[])))
        .again("list.tgb", "AlreadyInstalled"),
        begun(
            "epoch-list-stays",
            "In a new epoch the list of the one before stays in force until another comes.",
            &[held()],
        )
        .again("held.tgb", "EpochMismatch")
        .offer("list.tgb", "Activated", list(1, lists::table(&[], &[])))
        .offer("second.tgb", "Activated", list(2, lists::table(&[(5, LATE)], &[])))
        .offer("shrunk.tgb", "RevocationShrunk", list(3, lists::table(&[], &[]))),
        begun(
            "epoch-first-enrolment",
            "The first enrolment of a new epoch, after a seventh of the one before.",
            &[("enrolment.tgd", documents::enrolment(7, "quay"))],
        )
        .offer("first.tgd", "Enrolled", enrolment(1, "berth"))
        .again("first.tgd", "AlreadyInstalled")
        .offer("again.tgd", "Equivocation", enrolment(1, "pier")),
        begun(
            "epoch-labels-stay",
            "In a new epoch a device keeps its labels until another enrolment comes.",
            &[("enrolment.tgd", documents::enrolment(7, "quay"))],
        )
        .offer(CANDIDATE, "Activated", {
            let parts = sound::Parts::of(&sound::draft(2, "second").assemble(&root()).expect("a sound draft"));
            parts.changed(|m| m["target"] = serde_json::json!({"labels": {"site": ["quay"]}})).signed(&POLICY)
        }),
        begun(
            "epoch-first-permit",
            "The first permit of a new epoch, after a ninth of the one before.",
            &[("permit.tgb", sound::permit(9, &sound::golden(), &sound::older()))],
        )
        .offer("second.tgb", "Activated", second())
        .offer("first-permit.tgb", "Permitted", permit(1))
        .offer("back.tgb", "Activated", policy(1, "first")),
        begun(
            "epoch-first-reset",
            "The first time reset of a new epoch, after a third of the one before.",
            &[("reset.tgb", resets::reset(3))],
        )
        .offer("first-reset.tgb", "TimeReset", reset(1, 3))
        .from(resets::AT)
        .again("first-reset.tgb", "Rollback")
        .again("reset.tgb", "EpochMismatch"),
        folder("taken", "epoch-after-a-jump", "A new epoch in the year 2095 counts from 1 as ever.")
            .in_2095()
            .offer("last.tgb", "Activated", sound::policy(AFTER_LATER, "last"))
            .offer(
                CANDIDATE,
                "Activated",
                bringing(
                    &{
                        let mut draft = sound::draft(1, "first");
                        (draft.issued_at, draft.security_floor) = (FAR + 1_000_000, 1);
                        sound::Parts::of(&draft.assemble(&root()).expect("a sound draft")).signed(&POLICY)
                    },
                    &[to_root()],
                ),
            )
            .keeps_root(3)
            .from(FAR + 1_000_000),
    ]
}
