//! Bundles of type 3: leave to go from one exact bundle to another, once, on exact devices.

use serde_json::{Value, json};
use tidegate::keys::sha256;

use super::sound::{self, FLOOR, PERMITS, POLICY, Parts, SEQ};
use super::{CANDIDATE, Folder, folder, refused};

/// A sound permit from the golden bundle to the older one.
pub fn parts() -> Parts {
    sound::permit_parts(1, &sound::golden(), &sound::older())
}

fn case(slug: &str, name: &str, about: &str, bytes: Vec<u8>) -> Folder {
    refused("permits", slug, name, about, bytes)
}

fn with(slug: &str, name: &str, about: &str, change: impl FnOnce(&mut Value)) -> Folder {
    case(slug, name, about, parts().changed(change).signed(&PERMITS))
}

fn permit(seq: u64, from: &[u8], to: &[u8]) -> Vec<u8> {
    sound::permit(seq, from, to)
}

/// A device that has taken the sound permit, which waits.
fn waiting(slug: &str, about: &str) -> Folder {
    folder("permits", slug, about).before("permit.tgb", parts().signed(&PERMITS))
}

/// A device that has gone by the permit.
fn gone_back(slug: &str, about: &str) -> Folder {
    waiting(slug, about).before("older.tgb", sound::older())
}

pub fn cases() -> Vec<Folder> {
    let below = || {
        let low = sound::draft(FLOOR - 1, "below").assemble(&sound::root()).expect("sound");
        Parts::of(&low).changed(|m| m["security_floor"] = 1.into()).signed(&POLICY)
    };
    let next = || sound::policy(SEQ + 1, "next");
    let golden = sound::golden();
    vec![
        with("for-all", "PermitForbidden", "A permit for all devices.", |m| m["target"] = json!({"all": true})),
        with("by-label", "PermitForbidden", "A permit for devices by label.", |m| {
            m["target"] = json!({"labels": {"site": ["pier"]}})
        }),
        with("another-device", "NotForThisDevice", "A permit for another device.", |m| m["target"] = sound::others()),
        with("no-device", "TargetEmpty", "A permit for no device.", |m| m["target"] = json!({"devices": []})),
        with("without-leave", "ManifestSchema", "A permit that permits nothing.", |m| {
            drop(m.as_object_mut().expect("members").remove("permit"))
        }),
        with("without-from", "ManifestSchema", "A permit that does not say what it leads away from.", |m| {
            m["permit"] = json!({"to": "ab".repeat(32)})
        }),
        with("without-to", "ManifestSchema", "A permit that does not say where it leads.", |m| {
            m["permit"] = json!({"from": "ab".repeat(32)})
        }),
        with("leave-a-text", "ManifestSchema", "One digest in place of two.", |m| m["permit"] = "ab".repeat(32).into()),
        with("leave-with-more", "ManifestSchema", "Two digests and a third member.", |m| {
            m["permit"]["until"] = 1.into()
        }),
        with("with-a-base", "UnsupportedRequirement", "A permit that stands on a base.", |m| {
            m["base"] = "ab".repeat(32).into()
        }),
        with("earlier-epoch", "EpochMismatch", "A permit of the epoch before.", |m| m["epoch"] = 0.into()),
        with("other-deployment", "WrongDeployment", "A permit of another deployment.", |m| {
            m["deployment"] = "quay".into()
        }),
        with("expired", "Expired", "A permit that expired in 1970.", |m| m["expires_at"] = 1.into()),
        with("with-a-floor", "SecurityFloorInvalid", "A permit that moves the floor.", |m| {
            m["security_floor"] = 1.into()
        }),
        with("from-another", "PermitNotApplicable", "A permit away from what does not serve.", |m| {
            m["permit"]["from"] = "ab".repeat(32).into()
        }),
        with("to-what-serves", "PermitUsed", "A permit to what serves already.", |m| {
            m["permit"]["to"] = m["permit"]["from"].clone()
        }),
        with("turned-round", "PermitUsed", "The sound permit with its two digests exchanged.", |m| {
            let (from, to) = (m["permit"]["from"].clone(), m["permit"]["to"].clone());
            m["permit"] = json!({"from": to, "to": from});
        }),
        with("says-policy", "TypeMismatch", "A policy in the container of a permit.", |m| m["type"] = "policy".into()),
        case("with-an-entry", "EntryNotAllowed", "A permit that brings routes.", {
            let entries = json!([{"kind": "routes", "len": 1, "name": "routes", "sha256": sha256(b"p")}]);
            Parts { payload: b"p".to_vec(), ..parts().changed(|m| m["entries"] = entries) }.signed(&PERMITS)
        }),
        case("with-bytes-of-no-entry", "PayloadLengthMismatch", "A permit with bytes that no entry names.", {
            Parts { payload: b"p".to_vec(), ..parts() }.signed(&PERMITS)
        }),
        case("by-the-policy-role", "ThresholdNotMet", "A permit by the policy role.", parts().signed(&POLICY)),
        case("by-nobody", "ThresholdNotMet", "A permit that nobody signed.", parts().signed(&[])),
        folder("permits", "to-without-leave", "What a permit would lead to, without one.").offer(
            "older.tgb",
            "Rollback",
            sound::older(),
        ),
        waiting("another-of-the-number", "A permit waits; another bundle of the number that serves comes.").offer(
            CANDIDATE,
            "PermitDigestMismatch",
            sound::policy(SEQ, "other"),
        ),
        waiting("another-old-one", "A permit waits; another bundle of the number that it leads to comes.").offer(
            CANDIDATE,
            "PermitDigestMismatch",
            sound::policy(FLOOR, "another"),
        ),
        waiting("older-permit", "A permit waits; an older one, to another bundle, comes.")
            .before("newer.tgb", permit(3, &golden, &sound::policy(SEQ, "other")))
            .offer(CANDIDATE, "PermitUsed", permit(2, &golden, &sound::policy(SEQ - 1, "yet another"))),
        waiting("replaced-permit", "A newer permit took the place of the one that waits; what the first named comes.")
            .before("newer.tgb", permit(3, &golden, &sound::policy(SEQ, "other")))
            .offer("older.tgb", "PermitDigestMismatch", sound::older()),
        waiting("ended-by-the-next", "A permit waited; the next bundle ended it.").before("next.tgb", next()).offer(
            "older.tgb",
            "Rollback",
            sound::older(),
        ),
        gone_back("twice", "A permit was used; it comes again.").again("permit.tgb", "PermitUsed"),
        gone_back("way-forth-again", "A permit was used; the bundle that it led away from comes again.")
            .again("world/golden.tgb", "Rollback"),
        gone_back("another-behind-it", "A permit was used; another old bundle comes.").offer(
            CANDIDATE,
            "Rollback",
            sound::policy(SEQ - 1, "another"),
        ),
        gone_back("number-again", "A permit was used; another one of its number comes.").offer(
            CANDIDATE,
            "PermitUsed",
            permit(1, &sound::older(), &sound::policy(SEQ - 1, "another")),
        ),
        gone_back(
            "number-again-from-elsewhere",
            "A permit was used; another one of its number, from what does not serve.",
        )
        .offer(CANDIDATE, "PermitUsed", permit(1, &golden, &sound::policy(SEQ - 1, "another"))),
        waiting("waiting-to-what-serves", "A permit waits; a newer one leads to what serves.").offer(
            CANDIDATE,
            "PermitUsed",
            permit(2, &sound::older(), &golden),
        ),
        gone_back(
            "back-and-forth",
            "Two permits led back and forth; the first comes again, from the bundle that serves.",
        )
        .before("forth.tgb", permit(2, &sound::older(), &golden))
        .before("world/golden.tgb", Vec::new())
        .again("permit.tgb", "PermitUsed"),
        folder("permits", "below-the-floor", "A permit leads below the security floor.")
            .before("permit.tgb", permit(1, &golden, &below()))
            .offer(CANDIDATE, "BelowSecurityFloor", below()),
        folder("permits", "to-a-forgery", "A permit leads to a bundle; one of its manifest and another payload comes.")
            .before("permit.tgb", parts().signed(&PERMITS))
            .offer(CANDIDATE, "EntryDigestMismatch", {
                let mut forged = sound::older();
                *forged.last_mut().expect("a payload") ^= 1;
                forged
            }),
        folder("permits", "unsigned-target", "A permit leads to a bundle; it comes with one signature of two.")
            .before("permit.tgb", parts().signed(&PERMITS))
            .offer(CANDIDATE, "ThresholdNotMet", sound::policy_under(&sound::root(), FLOOR, "older", &[4])),
        folder("permits", "on-a-fresh-device", "A permit on a device on which nothing serves.")
            .on_a_fresh_device()
            .offer(CANDIDATE, "PermitNotApplicable", parts().signed(&PERMITS))
            .with(|offer| offer.floor = Some(sound::MADE_AT)),
    ]
}
