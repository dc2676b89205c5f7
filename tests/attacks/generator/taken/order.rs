//! Step 12: the next number, what serves already, and what a permit leads back to.

use serde_json::json;

use super::super::sound::{self, FLOOR, LATE, PERMITS, SEQ};
use super::super::{CANDIDATE, Folder, GOLDEN, documents, folder, lists, permits};
use super::taken;

fn numbered(seq: u64, floor: u64) -> Vec<u8> {
    sound::with_manifest(|m| (m["seq"], m["security_floor"]) = (seq.into(), floor.into()))
}

fn policies() -> Vec<Folder> {
    vec![
        folder("taken", "first-of-all", "The first bundle on a device that has taken nothing.")
            .on_a_fresh_device()
            .offer(CANDIDATE, "Activated", sound::policy(1, "first"))
            .from(sound::MADE_AT),
        folder("taken", "first-number-later", "The first bundle on a device, of the number 1000.")
            .on_a_fresh_device()
            .offer(CANDIDATE, "Activated", numbered(1_000, 0))
            .from(sound::MADE_AT)
            .offer("next.tgb", "Activated", numbered(1_001, 0)),
        folder("taken", "serves-already", "The bundle that serves comes again: it is there, and nothing changes.")
            .again(GOLDEN, "AlreadyInstalled"),
        folder("taken", "serves-already-after-refusals", "What serves comes again after others of its number came.")
            .offer("other.tgb", "Equivocation", sound::policy(SEQ, "other"))
            .again(GOLDEN, "AlreadyInstalled"),
        folder("taken", "serves-already-with-a-root", "What serves comes again, and brings the next root.")
            .offer(
                CANDIDATE,
                "AlreadyInstalled",
                sound::bringing(
                    &sound::golden_by(&[4, 5]),
                    &[sound::link(&sound::root_with(|draft| draft.version = 3), &sound::ROOTS)],
                ),
            )
            .keeps_root(3),
        folder("taken", "serves-already-by-others", "What serves comes again, signed by other holders.").offer(
            CANDIDATE,
            "AlreadyInstalled",
            sound::golden_by(&[5, 6]),
        ),
        taken("floor-at-its-number", "A security floor that is its own number.", numbered(SEQ + 1, SEQ + 1))
            .again(CANDIDATE, "AlreadyInstalled")
            .offer("next.tgb", "Activated", numbered(SEQ + 2, SEQ + 1)),
        taken("a-jump", "Its number is a thousand above the highest seen.", sound::policy(SEQ + 1_000, "a jump"))
            .offer("next.tgb", "Activated", sound::policy(SEQ + 1_001, "next")),
    ]
}

/// What another permit leads to: of a number between the floor and what serves, and with a lower floor than the device's.
fn lower() -> Vec<u8> {
    numbered(SEQ - 2, 1)
}

fn by_permit() -> Vec<Folder> {
    let golden = sound::golden();
    let permit = |seq: u64, from: &[u8], to: &[u8]| sound::permit(seq, from, to);
    let permitted =
        |slug: &str, about: &str, bytes: Vec<u8>| folder("taken", slug, about).offer("permit.tgb", "Permitted", bytes);
    let with = |change: fn(&mut serde_json::Value)| permits::parts().changed(change).signed(&PERMITS);
    vec![
        permitted("permit-used", "A permit leads from what serves to an older policy.", with(|_| ()))
            .again("permit.tgb", "AlreadyInstalled")
            .offer("older.tgb", "Activated", sound::older())
            .again("older.tgb", "AlreadyInstalled"),
        folder("taken", "permit-used-after-a-start", "A permit waited over a start.")
            .before("permit.tgb", permits::parts().signed(&PERMITS))
            .again("permit.tgb", "AlreadyInstalled")
            .offer("older.tgb", "Activated", sound::older()),
        permitted("permit-for-devices", "A permit for two devices, the second of which is this one.", {
            with(|m| m["target"] = json!({"devices": ["08".repeat(16), sound::device().id]}))
        })
        .offer("older.tgb", "Activated", sound::older()),
        permitted("permit-expires", "A permit that expires in the year 3000.", with(|m| m["expires_at"] = LATE.into()))
            .offer("older.tgb", "Activated", sound::older()),
        permitted("permit-to-its-number", "A permit leads to another policy of the number that serves.", {
            permit(1, &golden, &sound::policy(SEQ, "other"))
        })
        .offer("other.tgb", "Activated", sound::policy(SEQ, "other")),
        permitted("permit-to-a-lower-floor", "A permit leads to a policy of a lower floor; the device's stays.", {
            permit(1, &golden, &lower())
        })
        .offer("lower.tgb", "Activated", lower())
        .offer("floor.tgb", "BelowSecurityFloor", sound::policy(FLOOR - 1, "below"))
        .offer("next.tgb", "SecurityFloorInvalid", numbered(SEQ + 1, FLOOR - 1))
        .offer("last.tgb", "Activated", numbered(SEQ + 1, FLOOR)),
        permitted("permit-replaced", "A newer permit takes the place of the one that waits, and leads elsewhere.", {
            with(|_| ())
        })
        .offer("newer.tgb", "Permitted", permit(3, &golden, &sound::policy(SEQ, "other")))
        .offer("other.tgb", "Activated", sound::policy(SEQ, "other")),
        permitted("permit-passed-by", "A permit waits; the next policy comes, which needs none.", with(|_| ())).offer(
            "next.tgb",
            "Activated",
            sound::policy(SEQ + 1, "next"),
        ),
        permitted("permit-and-what-serves", "A permit waits; what serves comes again, and the permit waits on.", {
            with(|_| ())
        })
        .again(GOLDEN, "AlreadyInstalled")
        .offer("older.tgb", "Activated", sound::older()),
        permitted("back-and-forth", "Two permits lead back and forth again.", with(|_| ()))
            .offer("older.tgb", "Activated", sound::older())
            .offer("forth.tgb", "Permitted", permit(2, &sound::older(), &golden))
            .again(GOLDEN, "Activated")
            .offer("next.tgb", "Activated", sound::policy(SEQ + 1, "next")),
        permitted("next-after-a-permit", "A permit was used; the number after the highest seen comes.", with(|_| ()))
            .offer("older.tgb", "Activated", sound::older())
            .offer("next.tgb", "Activated", sound::policy(SEQ + 1, "next")),
    ]
}

fn in_force() -> Vec<Folder> {
    vec![
        folder("taken", "list-in-force", "The list that is in force comes again.")
            .before("list.tgb", lists::held())
            .again("list.tgb", "AlreadyInstalled"),
        folder("taken", "enrolled-already", "The enrolment that the device has comes again.")
            .before("enrolment.tgd", documents::enrolment(2, "quay"))
            .again("enrolment.tgd", "AlreadyInstalled")
            .offer("older.tgd", "EnrolmentRollback", documents::enrolment(1, "quay")),
    ]
}

pub fn cases() -> Vec<Folder> {
    [policies(), by_permit(), in_force()].concat()
}
