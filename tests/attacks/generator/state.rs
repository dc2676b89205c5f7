//! What befalls a device's own files while it is off: torn and rotten records, slots, roots and journals. No older
//! policy comes back by it, and nothing serves that does not verify.

use super::sound::{self, SEQ};
use super::{CANDIDATE, Folder, GOLDEN, How, Start, folder, lists};

fn next() -> Vec<u8> {
    sound::policy(SEQ + 1, "next")
}

/// A device that has the golden bundle and the next one, on which the older of them is offered again.
fn rolled_back(slug: &str, about: &str) -> Folder {
    folder("state", slug, about).before("next.tgb", next())
}

fn tells(name: &'static str) -> impl FnOnce(&mut Start) {
    move |start| start.journal = vec![name.into()]
}

fn serves(name: &'static str, file: &'static str) -> impl FnOnce(&mut Start) {
    move |start| (start.journal, start.serves) = (vec![name.into()], Some(file.into()))
}

const RECORDS: [&str; 2] = ["trust/state.0", "trust/state.1"];

fn records() -> Vec<Folder> {
    let one = |slug: &str, record: usize, how, about: &str| {
        rolled_back(slug, about).damaged(RECORDS[record], how).start(tells("StateDamaged")).again(GOLDEN, "Rollback")
    };
    let both = |slug: &str, how, about: &str| {
        rolled_back(slug, about)
            .damaged(RECORDS[0], how)
            .damaged(RECORDS[1], how)
            .start(tells("StateLost"))
            .again(GOLDEN, "Rollback")
    };
    vec![
        one("record-0-torn", 0, How::Torn, "The first state record is cut off; the bundle before comes again."),
        one("record-1-torn", 1, How::Torn, "The second state record is cut off; the bundle before comes again."),
        one(
            "record-0-flipped",
            0,
            How::Flipped,
            "One bit of the first state record is another; the bundle before comes again.",
        ),
        one(
            "record-1-flipped",
            1,
            How::Flipped,
            "One bit of the second state record is another; the bundle before comes again.",
        ),
        one("record-0-removed", 0, How::Removed, "The first state record is gone; the bundle before comes again."),
        one("record-1-emptied", 1, How::Emptied, "The second state record is empty; the bundle before comes again."),
        both(
            "records-torn",
            How::Torn,
            "Both state records are cut off: they are made again from the slots, and the bundle before comes again.",
        ),
        both(
            "records-flipped",
            How::Flipped,
            "One bit of each state record is another; the bundle before comes again.",
        ),
        both("records-removed", How::Removed, "Both state records are gone; the bundle before comes again."),
        rolled_back("record-of-a-permit-flipped", "One state record is rotten; a permit that was used comes again.")
            .before("permit.tgb", sound::permit(1, &next(), &sound::older()))
            .before("older.tgb", sound::older())
            .damaged(RECORDS[1], How::Flipped)
            .start(tells("StateDamaged"))
            .again("permit.tgb", "PermitUsed"),
        rolled_back(
            "records-of-a-list-removed",
            "Both state records are gone; a list that gives everything back comes.",
        )
        .before("held.tgb", lists::held())
        .damaged(RECORDS[0], How::Removed)
        .damaged(RECORDS[1], How::Removed)
        .start(tells("StateLost"))
        .offer("list.tgb", "RevocationShrunk", sound::list(4, lists::table(&[], &[]))),
        rolled_back(
            "time-record-flipped",
            "One record of the time floor is rotten: it is told, and the time does not go back before what was signed.",
        )
        .damaged("trust/time.0", How::Flipped)
        .start(tells("StateDamaged"))
        .offer(
            CANDIDATE,
            "Expired",
            sound::with_manifest(|m| (m["seq"], m["expires_at"]) = ((SEQ + 2).into(), sound::AT.into())),
        ),
        rolled_back("time-records-removed", "Both records of the time floor are gone; a policy that expired comes.")
            .damaged("trust/time.0", How::Removed)
            .damaged("trust/time.1", How::Removed)
            .start(|_| ())
            .offer(
                CANDIDATE,
                "Expired",
                sound::with_manifest(|m| (m["seq"], m["expires_at"]) = ((SEQ + 2).into(), sound::AT.into())),
            ),
        folder(
            "state",
            "enrolment-records-torn",
            "Both records of the enrolment are cut off: it is told, and the policy serves on.",
        )
        .before("enrolment.tgd", super::documents::enrolment(1, "quay"))
        .before("second.tgd", super::documents::enrolment(2, "berth"))
        .damaged("trust/enrolment.0", How::Torn)
        .damaged("trust/enrolment.1", How::Torn)
        .start(tells("StateDamaged"))
        .offer(
            CANDIDATE,
            "NotForThisDevice",
            sound::with_manifest(|m| m["target"] = serde_json::json!({"labels": {"site": ["berth"]}})),
        ),
    ]
}

fn slots() -> Vec<Folder> {
    let rotten = |slug: &str, file: &str, how, name: &'static str, about: &str| {
        rolled_back(slug, about)
            .damaged(&format!("slots/{{next.tgb}}/{file}"), how)
            .start(serves(name, GOLDEN))
            // What was seen does not go back with the slot.
            .offer("other.tgb", "Equivocation", sound::policy(SEQ + 1, "other"))
            .again("next.tgb", "Activated")
    };
    vec![
        rotten(
            "slot-head-flipped",
            "head",
            How::Flipped,
            "SignatureInvalid",
            "A bit of the active slot's head is another: the one before serves, and the same bundle heals it.",
        ),
        rotten("slot-head-torn", "head", How::Torn, "Truncated", "The active slot's head is cut off."),
        rotten(
            "slot-blob-flipped",
            "routes",
            How::Flipped,
            "EntryDigestMismatch",
            "A bit of a blob of the active slot is another.",
        ),
        rotten("slot-blob-torn", "issuers", How::Torn, "Truncated", "A blob of the active slot is cut off."),
        rotten("slot-blob-removed", "throttle", How::Removed, "Truncated", "A blob of the active slot is gone."),
        rotten("slot-file-added", "probes", How::Added, "TrailingData", "A file more lies in the active slot."),
        rotten(
            "slot-of-another",
            "head",
            How::Swapped,
            "EntryDigestMismatch",
            "The active slot's head is that of the bundle before, which is older.",
        ),
        folder(
            "state",
            "only-slot-flipped",
            "The only slot is rotten: nothing serves, and an older bundle is still refused.",
        )
        .damaged("slots/{world/golden.tgb}/head", How::Flipped)
        .start(serves("SignatureInvalid", "nothing"))
        .offer("older.tgb", "Rollback", sound::older()),
        rolled_back(
            "both-slots-flipped",
            "Both slots are rotten: nothing serves, and the older bundle is still refused.",
        )
        .damaged("slots/{next.tgb}/head", How::Flipped)
        .damaged("slots/{world/golden.tgb}/routes", How::Flipped)
        .start(serves("SignatureInvalid", "nothing"))
        .again(GOLDEN, "Rollback"),
        folder(
            "state",
            "list-flipped",
            "The list of revocations is rotten: nothing serves without it, and no policy comes in.",
        )
        .before("held.tgb", lists::held())
        .damaged("slots/{held.tgb}/revocations", How::Flipped)
        .start(serves("EntryDigestMismatch", "nothing"))
        .offer(CANDIDATE, "StateLost", next())
        .offer("older-list.tgb", "RevocationRollback", sound::list(2, lists::table(&[], &[]))),
    ]
}

fn roots() -> Vec<Folder> {
    let lost = |slug: &str, how, about: &str| {
        let rotated = sound::policy_under(&sound::third(), SEQ + 1, "next", &[14, 15]);
        folder("state", slug, about)
            .before("rotated.tgb", sound::bringing(&rotated, &[sound::to_third()]))
            .damaged("trust/roots/3", how)
            .start(serves("StateLost", "nothing"))
    };
    let old_keys = || sound::policy(SEQ + 2, "by the old keys");
    let fork = || sound::third_with(|draft| draft.issued_at += 1);
    vec![
        lost(
            "root-removed",
            How::Removed,
            "The root that was rotated to is gone: keys that were rotated out do not become good by it.",
        )
        .offer(CANDIDATE, "StateLost", old_keys()),
        lost(
            "root-flipped",
            How::Flipped,
            "The root that was rotated to is rotten; another root of its version comes, signed by the same people.",
        )
        .offer(CANDIDATE, "StateLost", sound::bringing(&old_keys(), &[sound::link(&fork(), &[1, 2, 11, 12])])),
        lost(
            "root-removed-and-forged",
            How::Removed,
            "The root that was rotated to is gone; another one comes, signed by its own keys.",
        )
        .offer(CANDIDATE, "RootThresholdOld", sound::bringing(&old_keys(), &[sound::link(&fork(), &[11, 12])])),
        lost(
            "root-removed-and-reset",
            How::Removed,
            "The root that was rotated to is gone; a time reset by the old keys comes.",
        )
        .offer("reset.tgb", "StateLost", super::resets::reset(1)),
        lost(
            "root-removed-and-enrolment",
            How::Removed,
            "The root that was rotated to is gone; an enrolment by the old keys comes.",
        )
        .offer("enrolment.tgd", "StateLost", super::documents::enrolment(1, "quay")),
    ]
}

fn trials() -> Vec<Folder> {
    let failed = |slug: &str, about: &str| {
        rolled_back(slug, about).start(|start| {
            (start.ends, start.journal, start.serves) = (3, vec!["KnownBad".into()], Some(GOLDEN.into()));
        })
    };
    vec![
        failed(
            "trial-failed",
            "The next bundle ended the daemon three times: the one before serves, and that one does not come in again.",
        )
        .again("next.tgb", "KnownBad"),
        failed("trial-failed-and-permit", "The next bundle failed its trial; a permit would lead to it.").offer(
            "permit.tgb",
            "PermitForbidden",
            sound::permit(1, &sound::golden(), &next()),
        ),
        failed(
            "trial-failed-and-another",
            "The next bundle failed its trial; another of its number comes in its place.",
        )
        .offer(CANDIDATE, "Equivocation", sound::policy(SEQ + 1, "mended, under the same number")),
        folder(
            "state",
            "first-trial-failed",
            "The first bundle of all ended the daemon three times: nothing serves, and it does not come in again.",
        )
        .start(|start| {
            (start.ends, start.journal, start.serves) = (3, vec!["KnownBad".into()], Some("nothing".into()));
        })
        .again(GOLDEN, "KnownBad"),
        rolled_back(
            "two-ends",
            "Two ends out of order are one too few: the bundle serves on, and the one before it is refused.",
        )
        .start(|start| start.ends = 2)
        .again(GOLDEN, "Rollback"),
    ]
}

fn journals() -> Vec<Folder> {
    let broken = |slug: &str, how, about: &str| {
        rolled_back(slug, about)
            .damaged("journal/00000001.jsonl", how)
            .start(|start| (start.journal, start.chain_broken) = (vec!["JournalBroken".into()], true))
            .again(GOLDEN, "Rollback")
    };
    vec![
        broken("journal-flipped", How::Flipped, "A bit of the journal was altered: it is told, and a new file begins."),
        broken("journal-line-removed", How::LineRemoved, "A line of the journal was taken out."),
        folder(
            "state",
            "journal-line-torn",
            "The journal is cut off within a line, as a power cut leaves it: the chain goes on.",
        )
        .damaged("journal/00000001.jsonl", How::Torn)
        .start(|_| ())
        .offer("older.tgb", "Rollback", sound::older()),
    ]
}

pub fn cases() -> Vec<Folder> {
    [records(), slots(), roots(), trials(), journals()].concat()
}
