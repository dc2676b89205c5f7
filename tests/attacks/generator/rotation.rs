//! Step 6: roots that would follow the device's, and what may come with one that does.

use serde_json::json;
use tidegate::bundle::container::BundleType;
use tidegate::bundle::pack;
use tidegate::bundle::root::{Role, RootDocument, RootDraft};

use super::sound::{self, bringing, link, third, third_with, to_third};
use super::{CANDIDATE, Folder, folder, p256, refused};
use crate::world::{key, signature};

/// Holders of the role root: of version 2, of version 3, of both.
const BEFORE: [u8; 2] = [1, 2];
const AFTER: [u8; 2] = [11, 12];
const BOTH: [u8; 4] = [1, 2, 11, 12];
/// Of the policy role of version 3.
const POLICY: [u8; 2] = [14, 15];

fn next() -> Vec<u8> {
    sound::policy(sound::SEQ + 1, "next")
}

fn case(slug: &str, name: &str, about: &str, links: &[Vec<u8>]) -> Folder {
    refused("rotation", slug, name, about, bringing(&next(), links))
}

fn fourth() -> RootDocument {
    third_with(|draft| (draft.version, draft.issued_at) = (4, sound::AT + 600))
}

/// Version 3 with the P-256 key among its policy keys.
fn with_p256() -> RootDocument {
    third_with(|draft| draft.keys[3].1 = p256::public(1))
}

/// A policy under that root by one holder, and by a signature of these bytes in the P-256 key's name.
fn forged_p256(bytes: [u8; 64]) -> Vec<u8> {
    let root = with_p256();
    let parts = sound::Parts::of(&sound::draft(sound::SEQ + 1, "next").assemble(&root).expect("a sound draft"));
    let forged = tidegate::bundle::container::Signature { key: p256::public(1).id(), bytes };
    bringing(&parts.with(&[parts.signature(15), forged]), &[link(&root, &BOTH)])
}

pub fn cases() -> Vec<Folder> {
    let sound_link = to_third();
    let mut forged = sound_link.clone();
    *forged.last_mut().expect("a signature") ^= 1;
    let mut replayed = vec![pack::sign_root(&fourth(), &key(1)), pack::sign_root(&fourth(), &key(2))];
    replayed.extend(AFTER.map(|seed| pack::sign_root(&third(), &key(seed))));
    let policy_type: Vec<_> = BOTH.map(|seed| signature(seed, BundleType::Policy, third().bytes())).into();
    let third_with = |change: fn(&mut RootDraft)| third_with(change);
    let laid = |signatures: Vec<_>| pack::link(&third(), signatures).expect("few");
    let mut cases = vec![
        case("by-nobody", "RootThresholdOld", "Version 3, signed by nobody.", &[link(&third(), &[])]),
        case(
            "by-its-own-keys",
            "RootThresholdOld",
            "Version 3, signed by its own keys only: anybody can make such a root.",
            &[link(&third(), &AFTER)],
        ),
        case(
            "one-old-key",
            "RootThresholdOld",
            "Version 3 by its own keys and one of two of the old ones.",
            &[link(&third(), &[1, 11, 12])],
        ),
        case(
            "by-policy-keys",
            "RootThresholdOld",
            "The policy role's keys in place of the root's.",
            &[link(&third(), &[4, 5, 11, 12])],
        ),
        case(
            "by-strangers",
            "RootThresholdOld",
            "Version 3 by its own keys and two that no root names.",
            &[link(&third(), &[40, 41, 11, 12])],
        ),
        case(
            "by-old-keys-only",
            "RootThresholdNew",
            "Version 3, signed by the old keys only: nobody shows that the new ones are held.",
            &[link(&third(), &BEFORE)],
        ),
        case(
            "one-new-key",
            "RootThresholdNew",
            "Version 3 by the old keys and one of two of its own.",
            &[link(&third(), &[1, 2, 11])],
        ),
        case("signature-altered", "SignatureInvalid", "One bit of one signature is another.", &[forged]),
        case(
            "signatures-of-another-root",
            "SignatureInvalid",
            "The old keys' signatures of version 4 under version 3.",
            &[laid(replayed)],
        ),
        case(
            "signed-as-a-policy",
            "SignatureInvalid",
            "Signatures over the same bytes under the media type of a policy.",
            &[laid(policy_type)],
        ),
        case(
            "signatures-descending",
            "SignersNotAscending",
            "The signatures of a sound link the other way round.",
            &[{
                let mut block = sound_link.clone();
                let at = block.len() - 4 * 96;
                let turned: Vec<u8> = block[at..].chunks(96).rev().flatten().copied().collect();
                block.truncate(at);
                [block, turned].concat()
            }],
        ),
        case(
            "skips-a-version",
            "RootGap",
            "Version 4, soundly signed: version 3 could have revoked those who sign.",
            &[link(&fourth(), &BOTH)],
        ),
        case(
            "earlier-epoch-signed",
            "RootEpochRegression",
            "Version 3 of an earlier epoch, soundly signed: old counters would count again.",
            &[link(&third_with(|draft| draft.epoch = 0), &BOTH)],
        ),
        case(
            "other-deployment-signed",
            "RootWrongDeployment",
            "Version 3 of another deployment, soundly signed.",
            &[link(&third_with(|draft| draft.deployment = "quay".into()), &BOTH)],
        ),
        case(
            "too-far-ahead",
            "IssuedAtImplausible",
            "Version 3 of the year 9999, soundly signed: it would close every token.",
            &[link(&third_with(|draft| draft.issued_at = sound::LAST), &BOTH)],
        ),
        case(
            "lost-hub-threshold",
            "RootInvalid",
            "Version 3 with two keys of three for the hub, of which one is there.",
            &[{
                let link = link(&third(), &BOTH);
                let text = String::from_utf8_lossy(&link[4..4 + third().bytes().len()])
                    .replace("\"hub\":{\"keys\":[7],\"threshold\":1}", "\"hub\":{\"keys\":[7],\"threshold\":2}");
                [&link[..4], text.as_bytes(), &link[4 + text.len()..]].concat()
            }],
        ),
    ];
    cases.push(keeps(
        "old-keys-after-rotation",
        "ThresholdNotMet",
        "A bundle by the old policy keys brings the root that takes them away: the root is kept, the bundle is not.",
        bringing(&next(), std::slice::from_ref(&sound_link)),
    ));
    cases.push(keeps(
        "bad-link-after-a-good-one",
        "RootThresholdOld",
        "Version 3 is sound, version 4 is signed by the keys before: the first is kept.",
        bringing(&next(), &[sound_link.clone(), link(&fourth(), &BEFORE)]),
    ));
    cases.push(keeps(
        "rollback-with-rotation",
        "Rollback",
        "An old policy, signed anew by the new keys, comes with their root.",
        bringing(&sound::policy_under(&third(), sound::FLOOR, "old", &POLICY), std::slice::from_ref(&sound_link)),
    ));
    cases.push(keeps(
        "epoch-before-rotation",
        "EpochMismatch",
        "A policy of the epoch before comes with the root of a later one.",
        {
            let root = third_with(|draft| draft.epoch = 2);
            let parts = sound::Parts::of(&sound::draft(sound::SEQ + 1, "next").assemble(&root).expect("sound"));
            bringing(&parts.changed(|m| m["epoch"] = 1.into()).signed(&POLICY), &[link(&root, &BOTH)])
        },
    ));
    cases.push(keeps(
        "psychic-signature",
        "SignatureInvalid",
        "ECDSA with r = s = 0, which a careless verifier takes for any key (CVE-2022-21449).",
        forged_p256([0; 64]),
    ));
    cases.push(keeps(
        "ecdsa-order-signature",
        "SignatureInvalid",
        "ECDSA with r = s = the order of the curve, which is 0 in it.",
        forged_p256([p256::order(); 2].concat().try_into().expect("64 bytes")),
    ));
    cases.push(keeps(
        "ecdsa-key-by-ed25519-signature",
        "SignatureInvalid",
        "An Ed25519 signature in the name of an ECDSA key.",
        forged_p256(sound::next().signature(14).bytes),
    ));
    cases.push({
        let about = "Version 3 was taken; a bundle by the keys that it took away, without a chain.";
        let before = bringing(
            &sound::policy_under(&third(), sound::SEQ + 1, "next", &POLICY),
            std::slice::from_ref(&sound_link),
        );
        folder("rotation", "rotated-out-keys", about).before("rotated.tgb", before.clone()).offer(
            CANDIDATE,
            "ThresholdNotMet",
            sound::policy(sound::SEQ + 2, "by the old keys"),
        )
    });
    cases.push({
        let about = "Version 3 was taken; another version 3, signed by the same people, comes.";
        let before = bringing(
            &sound::policy_under(&third(), sound::SEQ + 1, "next", &POLICY),
            std::slice::from_ref(&sound_link),
        );
        let fork = third_with(|draft| draft.issued_at += 1);
        let candidate = bringing(&sound::policy_under(&fork, sound::SEQ + 2, "forked", &POLICY), &[link(&fork, &BOTH)]);
        folder("rotation", "fork-after-rotation", about)
            .before("rotated.tgb", before)
            .offer(CANDIDATE, "RootFork", candidate)
    });
    cases.push({
        let about = "Version 3 gives nobody the role revocation; its former holder sends a list.";
        let root = third_with(|draft| drop(draft.roles.remove(&Role::Revocation)));
        let before = bringing(&sound::policy_under(&root, sound::SEQ + 1, "next", &POLICY), &[link(&root, &BOTH)]);
        let list = sound::list(1, super::lists::table(&[(5, sound::LATE)], &[]));
        folder("rotation", "role-given-up", about).before("rotated.tgb", before).offer(
            "list.tgb",
            "ThresholdNotMet",
            list,
        )
    });
    cases.push(refused(
        "rotation",
        "needs-a-later-root",
        "RootTooOld",
        "A bundle that says that it needs root version 3.",
        sound::with_manifest(|m| m["root_version"] = json!(3)),
    ));
    cases
}

/// Refused, and the root that comes with it is trusted from here on.
fn keeps(slug: &str, name: &str, about: &str, bytes: Vec<u8>) -> Folder {
    refused("rotation", slug, name, about, bytes).keeps_root(3)
}
