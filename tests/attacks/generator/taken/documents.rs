//! Enrolments by both roles, at the limits of their form.

use serde_json::{Value, json};

use super::super::documents::{body, enrolled_by_hub, enrolment, of, under_the_policy_role, under_third};
use super::super::sound::{self, MADE_AT, POLICY};
use super::super::{Folder, folder};

const FILE: &str = "candidate.tgd";
/// The policy role and the hub of version 3.
const THIRD: [u8; 2] = [14, 15];
const HUB: [u8; 1] = [17];

fn case(slug: &str, about: &str, bytes: Vec<u8>) -> Folder {
    folder("taken", slug, about).offer(FILE, "Enrolled", bytes)
}

fn with(slug: &str, about: &str, change: impl FnOnce(&mut Value)) -> Folder {
    let mut body = body(1, "quay");
    change(&mut body);
    case(slug, about, of(&body, &POLICY))
}

/// A policy for devices of this site.
fn for_site(seq: u64, site: &str) -> Vec<u8> {
    sound::with_manifest(|m| (m["seq"], m["target"]) = (seq.into(), json!({"labels": {"site": [site]}})))
}

/// The same under version 3.
fn for_site_under_third(seq: u64, site: &str) -> Vec<u8> {
    let parts = sound::Parts::of(&sound::draft(seq, "a site").assemble(&sound::third()).expect("a sound draft"));
    parts.changed(|m| m["target"] = json!({"labels": {"site": [site]}})).signed(&THIRD)
}

pub fn cases() -> Vec<Folder> {
    let next = sound::SEQ + 1;
    vec![
        case(
            "enrolled",
            "An enrolment: policies for its labels are taken, and none for those before.",
            enrolment(1, "quay"),
        )
        .again(FILE, "AlreadyInstalled")
        .offer("before.tgb", "NotForThisDevice", for_site(next, "pier"))
        .offer("now.tgb", "Activated", for_site(next, "quay")),
        case("enrolled-twice", "The next enrolment changes the labels.", enrolment(1, "quay"))
            .offer("second.tgd", "Enrolled", enrolment(2, "berth"))
            .again(FILE, "EnrolmentRollback")
            .offer("now.tgb", "Activated", for_site(next, "berth")),
        with("enrolled-without-labels", "An enrolment of no labels: none is left of those before.", |b| {
            b["labels"] = json!({})
        })
        .offer("before.tgb", "NotForThisDevice", for_site(next, "pier")),
        with("enrolled-under-an-earlier-root", "An enrolment that needs root version 1.", |b| {
            b["root_version"] = 1.into()
        }),
        with("enrolled-of-2-53", "An enrolment of the largest number that there can be.", |b| {
            b["seq"] = (1_u64 << 53).into()
        }),
        with("enrolled-in-1970", "An enrolment that was made in 1970.", |b| b["issued_at"] = 0.into()),
        with(
            "enrolled-later",
            "An enrolment of days after all else, by the policy role: it is at least so late.",
            |b| b["issued_at"] = (MADE_AT + 1_000_000).into(),
        )
        .from(MADE_AT + 1_000_000),
        case("enrolled-by-all", "An enrolment by three holders and thirteen strangers.", {
            of(&body(1, "quay"), &[4, 5, 6].into_iter().chain(40..53).collect::<Vec<_>>())
        }),
        folder("taken", "enrolled-on-a-fresh-device", "An enrolment on a device on which nothing serves.")
            .on_a_fresh_device()
            .offer(FILE, "Enrolled", enrolment(1, "quay"))
            .from(MADE_AT),
        under_the_policy_role("hub-first", "The hub's first enrolment, of the number above that of the policy role's.")
            .of_family("taken")
            .offer(FILE, "Enrolled", of(&under_third(6, "berth"), &HUB)),
        enrolled_by_hub("hub", "The hub's enrolment comes again; its next one changes the labels.")
            .of_family("taken")
            .again("hub.tgd", "AlreadyInstalled")
            .offer(FILE, "Enrolled", of(&under_third(10, "berth"), &HUB))
            .offer("now.tgb", "Activated", for_site_under_third(sound::SEQ + 2, "berth")),
        enrolled_by_hub("hub-later", "The hub's enrolment of days after all else: it vouches for no time.")
            .of_family("taken")
            .offer(FILE, "Enrolled", {
                let mut body = under_third(10, "berth");
                body["issued_at"] = (MADE_AT + 1_000_000).into();
                of(&body, &HUB)
            }),
        enrolled_by_hub("policy-role-after-the-hub", "The policy role's enrolment of a number below the hub's.")
            .of_family("taken")
            .offer(FILE, "Enrolled", of(&under_third(6, "berth"), &THIRD))
            .offer("hub-again.tgd", "Enrolled", of(&under_third(10, "quay"), &HUB)),
        enrolled_by_hub(
            "hub-between",
            "The policy role spoke again; the hub's number lies between that and its own last one.",
        )
        .offer("policy-role-again.tgd", "Enrolled", of(&under_third(6, "berth"), &THIRD))
        .offer(FILE, "EnrolmentRollback", of(&under_third(8, "quay"), &HUB))
        .again("hub.tgd", "EnrolmentRollback"),
        enrolled_by_hub(
            "hub-by-a-policy-role-too",
            "An enrolment by the hub and by one of two holders of the policy role.",
        )
        .of_family("taken")
        .offer(FILE, "Enrolled", of(&under_third(10, "berth"), &[14, 17])),
    ]
}
