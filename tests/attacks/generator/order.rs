//! Step 12: no policy from before, no second one of the same number, and a floor that only rises.

use super::sound::{self, FLOOR, POLICY, SEQ};
use super::{CANDIDATE, Folder, folder, refused};

fn case(slug: &str, name: &str, about: &str, bytes: Vec<u8>) -> Folder {
    refused("order", slug, name, about, bytes)
}

fn numbered(seq: u64, floor: u64) -> Vec<u8> {
    sound::with_manifest(|m| (m["seq"], m["security_floor"]) = (seq.into(), floor.into()))
}

pub fn cases() -> Vec<Folder> {
    let next = || sound::policy(SEQ + 1, "next");
    let raised = || numbered(SEQ + 5, SEQ + 4);
    vec![
        case(
            "below-floor",
            "BelowSecurityFloor",
            "Its number is one below the device's security floor.",
            numbered(FLOOR - 1, 0),
        ),
        case("number-1", "BelowSecurityFloor", "The first number of all, again.", numbered(1, 1)),
        case(
            "at-floor",
            "Rollback",
            "Its number is the device's security floor, below the highest seen.",
            sound::policy(FLOOR, "old"),
        ),
        case("one-below", "Rollback", "Its number is one below the highest seen.", sound::policy(SEQ - 1, "old")),
        case("same-number", "Equivocation", "Another bundle of the number that serves.", sound::policy(SEQ, "other")),
        case(
            "same-number-same-entries",
            "Equivocation",
            "The bundle that serves, but for the second in which it was made.",
            {
                sound::Parts::of(&sound::draft(SEQ, "golden").assemble(&sound::root()).expect("sound"))
                    .changed(|m| m["issued_at"] = (sound::MADE_AT + 1).into())
                    .signed(&POLICY)
            },
        )
        .with(|offer| offer.floor = Some(sound::MADE_AT + 1)),
        case(
            "floor-goes-back",
            "SecurityFloorInvalid",
            "A floor one below the device's.",
            numbered(SEQ + 1, FLOOR - 1),
        ),
        case("no-floor", "SecurityFloorInvalid", "No floor at all.", numbered(SEQ + 1, 0)),
        case(
            "floor-above-its-number",
            "SecurityFloorInvalid",
            "A floor above its own number: the device could not take it again.",
            numbered(SEQ + 1, SEQ + 2),
        ),
        case(
            "floor-of-2-53",
            "SecurityFloorInvalid",
            "The largest floor that there can be: no bundle could ever follow.",
            numbered(SEQ + 1, 1 << 53),
        ),
        folder("order", "replay-of-the-one-before", "The golden bundle again, after the next one.")
            .before("next.tgb", next())
            .again("world/golden.tgb", "Rollback"),
        folder("order", "below-a-raised-floor", "A bundle raised the floor; one that lies below it comes late.")
            .before("raised.tgb", raised())
            .offer(CANDIDATE, "BelowSecurityFloor", numbered(SEQ + 3, FLOOR)),
        folder("order", "lowers-a-raised-floor", "A bundle raised the floor; the next one would lower it.")
            .before("raised.tgb", raised())
            .offer(CANDIDATE, "SecurityFloorInvalid", numbered(SEQ + 6, FLOOR)),
        folder("order", "equivocation-twice", "Two others of one number, one after the other, and the first again.")
            .offer("second.tgb", "Equivocation", sound::policy(SEQ, "second"))
            .offer("third.tgb", "Equivocation", sound::policy(SEQ, "third"))
            .again("second.tgb", "Equivocation"),
        folder("order", "after-a-jump", "The numbers jumped by a thousand; what lies between comes late.")
            .before("jump.tgb", sound::policy(1_000, "a jump"))
            .offer(CANDIDATE, "Rollback", sound::policy(999, "between")),
    ]
}
