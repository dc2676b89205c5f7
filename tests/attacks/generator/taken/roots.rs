//! Step 6: chains and roots at their limits, and roles that are held by keys on P-256.

use tidegate::bundle::container::{BundleType, MAX_CHAIN, MAX_ROOT};
use tidegate::bundle::document::DocumentKind;
use tidegate::bundle::pack;
use tidegate::bundle::root::{Role, RoleKeys, RootDocument, RootDraft};
use tidegate::ids::hex;

use super::super::p256::{self, Form};
use super::super::sound::{self, MADE_AT, SEQ, bringing, link, third, third_with, to_third};
use super::super::{CANDIDATE, Folder, documents, folder, lists, roots};
use super::taken;
use crate::world::key;

/// Holders of the role root of versions 2 and 3.
const BOTH: [u8; 4] = [1, 2, 11, 12];
/// Of the policy role of version 3.
const POLICY: [u8; 2] = [14, 15];

/// The next policy under `root`, with the chain that leads there.
fn under(root: &RootDocument, links: &[Vec<u8>]) -> Vec<u8> {
    bringing(&sound::policy_under(root, SEQ + 1, "next", &POLICY), links)
}

fn rotated(slug: &str, about: &str, root: &RootDocument, links: &[Vec<u8>]) -> Folder {
    taken(slug, about, under(root, links)).keeps_root(root.version())
}

/// Version 3, which only a signature of version 2's own holders is asked for, after `change`.
fn third_by(slug: &str, about: &str, change: impl FnOnce(&mut RootDraft)) -> Folder {
    let root = third_with(change);
    rotated(slug, about, &root, &[link(&root, &BOTH)])
}

fn chains() -> Vec<Folder> {
    let first = sound::root_with(|draft| draft.version = 1);
    let mine = || link(&sound::root(), &[]);
    let long = roots::long_chain(MAX_CHAIN);
    let fourth = third_with(|draft| (draft.version, draft.issued_at) = (4, sound::AT + 600));
    vec![
        taken("own-root", "It brings the device's own root, which nobody signed: it is there already.", {
            bringing(&sound::policy(SEQ + 1, "next"), &[mine()])
        }),
        rotated(
            "roots-before",
            "The chain begins before the device's root: what came before is passed over, whoever signed it.",
            &third(),
            &[link(&first, &[]), mine(), to_third()],
        ),
        rotated("two-roots", "A chain of two roots that follow.", &fourth, &[to_third(), link(&fourth, &[11, 12])]),
        taken("sixty-four-roots", "A chain of as many roots as there may be, all by the same keys.", {
            let last = 1 + MAX_CHAIN as u64;
            let root = sound::root_with(|draft| draft.version = last);
            bringing(&sound::policy_under(&root, SEQ + 1, "next", &sound::POLICY), &long)
        })
        .keeps_root(1 + MAX_CHAIN as u64),
        rotated(
            "with-strangers-link",
            "The link to version 3 has signatures by three that neither root names.",
            &third(),
            &[link(&third(), &[1, 2, 11, 12, 40, 41, 42])],
        ),
        third_by("root-made-in-1970", "The next root was made in 1970, before the one that it follows.", |draft| {
            draft.issued_at = 0;
        }),
        third_by("root-made-later", "The next root was made days after all else: it is at least so late.", |draft| {
            draft.issued_at = MADE_AT + 1_000_000;
        })
        .from(MADE_AT + 1_000_000),
        folder(
            "taken",
            "root-of-a-refused-bundle",
            "A root that follows comes with an old policy: the root is kept, and says what time it is at least.",
        )
        .offer(CANDIDATE, "Rollback", {
            let root = third_with(|draft| draft.issued_at = MADE_AT + 1_000_000);
            let old = sound::policy_under(&root, SEQ - 1, "old", &POLICY);
            bringing(&old, &[link(&root, &BOTH)])
        })
        .keeps_root(3)
        .from(MADE_AT + 1_000_000)
        .offer("next.tgb", "Activated", sound::policy_under(&third(), SEQ + 1, "next", &POLICY)),
        third_by("two-roles-alone", "The next root gives nobody a role but root and policy.", |draft| {
            draft.roles.retain(|role, _| matches!(role, Role::Root | Role::Policy));
        }),
    ]
}

/// Version 3 of 64 keys, the last of which are nobody's.
fn crowd(draft: &mut RootDraft, name: impl Fn(u8) -> String) {
    draft.keys = (0..64).map(|n| (name(n), key(11 + n).public())).collect();
}

fn sizes() -> Vec<Folder> {
    let all = RoleKeys { keys: (0..64).collect(), threshold: 1 };
    // Each role names all keys, and their names are of quotes, which take two bytes each in the document.
    let full = |quotes: usize| {
        third_with(|draft| {
            let quotes = |n: u8| quotes.saturating_sub(64 * usize::from(n)).min(64);
            crowd(draft, |n| format!("{:k<64}", "\"".repeat(quotes(n))));
            (draft.keys[62].1, draft.keys[63].1) = (p256::public(1), p256::public(2));
            for role in Role::ALL {
                let threshold = draft.roles.get(&role).map_or(1, |keys| keys.threshold);
                draft.roles.insert(role, RoleKeys { threshold, ..all.clone() });
            }
        })
    };
    let full = full(MAX_ROOT as usize - full(0).bytes().len());
    assert_eq!(full.bytes().len(), MAX_ROOT as usize);
    let sixteen = third_with(|draft| {
        crowd(draft, |n| format!("key {n}"));
        draft.roles.insert(Role::Policy, RoleKeys { keys: (20..36).collect(), threshold: 16 });
    });
    let by_sixteen: Vec<u8> = (31..47).collect();
    // Eleven holders of the old root or the new one, five of whom are strangers: as many as the block holds.
    let crowded: Vec<u8> = BOTH.into_iter().chain(60..72).collect();
    vec![
        rotated("root-of-16384", "A root of as many bytes as it may have.", &full, &[link(&full, &BOTH)]),
        third_by("sixty-four-keys", "A root of 64 keys, whose names are of 64 bytes.", |draft| {
            crowd(draft, |n| format!("{n:0>64}"));
        }),
        taken("sixteen-of-sixteen", "A policy by sixteen holders, all of whom must sign.", {
            let next = sound::policy_under(&sixteen, SEQ + 1, "next", &by_sixteen);
            bringing(&next, &[link(&sixteen, &BOTH)])
        })
        .keeps_root(3),
        rotated(
            "sixteen-signatures-of-a-root",
            "A link of as many signatures as it may have.",
            &third(),
            &[link(&third(), &crowded)],
        ),
    ]
}

/// Version 3, whose keys of the roles root, policy, revocation, permit and hub are on P-256; those of the role policy are
/// both needed.
fn on_p256() -> RootDocument {
    third_with(|draft| {
        draft.keys.push(("token 1".into(), p256::public(1)));
        draft.keys.push(("token 2".into(), p256::public(2)));
        draft.roles.insert(Role::Root, RoleKeys { keys: vec![0, 8], threshold: 2 });
        draft.roles.insert(Role::Policy, RoleKeys { keys: vec![8, 9], threshold: 2 });
        for role in [Role::Revocation, Role::Permit, Role::Hub] {
            draft.roles.insert(role, RoleKeys { keys: vec![9], threshold: 1 });
        }
    })
}

/// The link to it, by a token and a key of the old kind.
fn to_p256() -> Vec<u8> {
    let root = on_p256();
    let signers = [1, 2, 11].map(|seed| pack::sign_root(&root, &key(seed)));
    pack::link(&root, [&signers[..], &[p256::of_root(1, &root)]].concat()).expect("few signatures")
}

/// The next policy by both tokens, each in one of the two forms.
fn by_tokens(first: Form, second: Form) -> Vec<u8> {
    let parts = sound::Parts::of(&sound::draft(SEQ + 1, "next").assemble(&on_p256()).expect("a sound draft"));
    bringing(&parts.with(&[parts.signature_of_p256(1, first), parts.signature_of_p256(2, second)]), &[to_p256()])
}

fn tokens() -> Vec<Folder> {
    let on_tokens =
        |slug: &str, about: &str| folder("taken", slug, about).before("rotated.tgb", by_tokens(Form::Low, Form::Low));
    let list = sound::list_parts(&on_p256(), 1, lists::table(&[(5, sound::LATE)], &[]));
    let serving = by_tokens(Form::Low, Form::Low);
    let permit = sound::permit_parts(1, &serving, &sound::golden()).changed(|m| m["root_version"] = 3.into());
    let enrolment = {
        let body = documents::under_third(1, "quay");
        let body = tidegate::bundle::canonical::write(&body).expect("canonical");
        let media_type = DocumentKind::Enrolment.media_type();
        let signature = p256::signature(2, Form::Low, media_type, &body);
        let signature =
            format!("{{\"key\":\"{}\",\"signature\":\"{}\"}}", hex(&signature.key.0), hex(&signature.bytes));
        [b"{\"body\":", &body[..], format!(",\"signatures\":[{signature}],\"type\":\"{media_type}\"}}\n").as_bytes()]
            .concat()
    };
    vec![
        taken("p-256", "A root and a policy by keys on P-256.", by_tokens(Form::Low, Form::Low)).keeps_root(3),
        taken(
            "p-256-high-s",
            "Signatures on P-256 with s in the upper half of its range, as every other one is that a token makes.",
            by_tokens(Form::High, Form::High),
        )
        .keeps_root(3),
        on_tokens("p-256-list", "A list of revocations by a key on P-256.").offer(
            "list.tgb",
            "Activated",
            list.with(&[list.signature_of_p256(2, Form::Low)]),
        ),
        on_tokens("p-256-permit", "A permit by a key on P-256.").offer("permit.tgb", "Permitted", {
            assert!(permit.bundle_type == BundleType::Permit);
            permit.with(&[permit.signature_of_p256(2, Form::High)])
        }),
        on_tokens("p-256-enrolment", "An enrolment by the hub's key on P-256.").offer(
            "enrolment.tgd",
            "Enrolled",
            enrolment,
        ),
    ]
}

pub fn cases() -> Vec<Folder> {
    [chains(), sizes(), tokens()].concat()
}
