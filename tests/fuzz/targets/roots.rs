//! The chain of roots that a bundle brings.
//!
//! ```text
//! 00 chain          the bytes as they come: no root is ever followed but the golden ones
//! 7b …              one root document
//! n, 8 bytes a link  the harness builds each root and signs it with the real keys that the link names: the root moves by
//!                   the rule that is told once more below, and never otherwise
//! ```

use tidegate::bundle::container::{BundleType, MAX_SIGNATURES, Signature, chain, signature_block};
use tidegate::bundle::root::{MEDIA_TYPE, Role, RoleKeys, RootDocument};
use tidegate::bundle::succession::SignedRoot;
use tidegate::bundle::trust::MAX_AHEAD;
use tidegate::bundle::verify::{Findings, Purpose};
use tidegate::bundle::{canonical, pack};

use super::world::{self, AT, GOLDEN};

/// Most links of the third form.
const LINKS: usize = 6;

/// The target.
pub fn run(bytes: &[u8]) -> bool {
    match bytes {
        [0, trust @ ..] => as_it_comes(trust, &GOLDEN.root),
        [b'{', ..] => document(bytes),
        [_, links @ ..] => signed(links, &GOLDEN.root),
        [] => false,
    }
}

/// Whatever the chain, a device of `root` follows the golden roots alone, and in their order.
pub fn as_it_comes(trust: &[u8], root: &RootDocument) -> bool {
    let found = brought(trust, root);
    for (at, next) in found.roots.iter().enumerate() {
        assert_eq!(Some(&next.root), GOLDEN.roots.get(at), "a root was followed that is not golden");
    }
    stands_by_itself(root, &found);
    if let Ok(links) = chain(trust) {
        let _ = links.iter().filter(|link| document(link.document)).count();
    }
    !found.roots.is_empty()
}

/// What comes to light of a bundle with this chain. Nobody signed the bundle itself: its roots stand all the same.
fn brought(trust: &[u8], root: &RootDocument) -> Findings {
    let Ok(file) = pack::lay(BundleType::Policy, trust, b"{}", &[], b"") else { return Findings::default() };
    let (verdict, found) = world::judge(&file, &world::fresh(root), Purpose::Install);
    let (served, again) = world::judge(&file, &world::fresh(root), Purpose::Serve);
    assert!(verdict.is_err() && served.is_err(), "a bundle that nobody signed was taken");
    assert!(again.roots.is_empty(), "what only serves again brought a root");
    found
}

/// Whatever was followed: of the same deployment, version by version, no earlier epoch, by both thresholds' own signatures.
fn stands_by_itself(root: &RootDocument, found: &Findings) {
    let mut old = root;
    for next in &found.roots {
        let new = &next.root;
        assert_eq!((new.version(), new.deployment()), (old.version() + 1, old.deployment()));
        assert!(new.epoch() >= old.epoch());
        let links = chain(&next.link).expect("a link");
        let [link] = &*links else { panic!("{} links in one", links.len()) };
        assert_eq!(link.document, new.bytes());
        for judge in [old, new] {
            let good = |signature: &&Signature| {
                judge
                    .role_keys(Role::Root)
                    .any(|key| key.id() == signature.key && key.verifies(MEDIA_TYPE, new.bytes(), &signature.bytes))
            };
            let good = link.signatures.iter().filter(good).count();
            assert!(Some(good) >= judge.threshold(Role::Root), "version {} without a threshold", new.version());
        }
        old = new;
    }
}

/// A document that is taken has one form, and is sound.
fn document(bytes: &[u8]) -> bool {
    let Ok(root) = RootDocument::parse(bytes) else { return false };
    assert_eq!(root.bytes(), bytes);
    let again = RootDocument::build(root.draft().clone()).expect("what is sound can be built");
    assert_eq!(again.bytes(), bytes, "a root has two forms");
    assert_eq!(canonical::read(bytes).and_then(|value| canonical::write(&value)).as_deref(), Ok(bytes));
    assert!(root.version() >= 1 && root.threshold(Role::Root).is_some() && root.threshold(Role::Policy).is_some());
    for role in Role::ALL {
        let keys = root.role_keys(role).count();
        assert!(root.threshold(role).is_none_or(|least| (1..=keys.min(usize::from(MAX_SIGNATURES))).contains(&least)));
        let mut ids: Vec<_> = root.role_keys(role).map(tidegate::keys::PublicKey::id).collect();
        ids.sort_unstable();
        assert!(ids.windows(2).all(|pair| pair[0] != pair[1]), "one key counts twice");
    }
    let signed = SignedRoot::unsigned(root);
    let again = SignedRoot::parse(bytes, &signed.block()).expect("a root without signatures");
    assert_eq!(again, signed);
    true
}

/// One link of the third form.
struct Link {
    root: RootDocument,
    /// Keys whose good signatures it has.
    good: u8,
    /// Keys whose broken signatures it has.
    bad: u8,
    bytes: Vec<u8>,
}

/// ```text
/// version, epoch (signed, from the link before), root keys, their threshold, signers, broken signers,
/// 0 or 1 = another deployment, hundreds of days later
/// ```
fn links(bytes: &[u8], first: &RootDocument) -> Vec<Link> {
    let mut before = first.draft().clone();
    let mut links = Vec::new();
    for row in bytes.as_chunks::<8>().0.iter().take(LINKS) {
        let [version, epoch, keys, threshold, signers, broken, deployment, days] = *row;
        let mut next = before.clone();
        next.version = before.version.saturating_add_signed(i64::from(version.cast_signed()));
        next.epoch = before.epoch.saturating_add_signed(i64::from(epoch.cast_signed()));
        next.issued_at = before.issued_at + i64::from(days) * 100 * 86_400;
        if deployment == 1 {
            next.deployment = "quay".into();
        }
        next.keys = (1..=8).map(|seed| (format!("key {seed}"), world::key(seed).public())).collect();
        let keys = (0..8).filter(|bit| keys >> bit & 1 == 1).collect();
        next.roles.insert(Role::Root, RoleKeys { keys, threshold: threshold.into() });
        // What no author can build no device reads: the rest of the chain goes on from the root before.
        let Ok(root) = RootDocument::build(next.clone()) else { continue };
        let mut signatures = world::signatures(signers, MEDIA_TYPE, root.bytes());
        let bad = signers & broken;
        for signature in &mut signatures {
            if world::keys_of(bad).any(|key| key.public().id() == signature.key) {
                signature.bytes[usize::from(days) % 64] ^= 4;
            }
        }
        let length = u32::try_from(root.bytes().len()).expect("short").to_be_bytes();
        let bytes = [&length, root.bytes(), &signature_block(&signatures)].concat();
        links.push(Link { root, good: signers & !bad, bad, bytes });
        before = next;
    }
    links
}

/// Links by the real keys, judged by a device of `root`: exactly those are followed that the rule lets through.
pub fn signed(bytes: &[u8], root: &RootDocument) -> bool {
    let links = links(bytes, &GOLDEN.root);
    let trust = links.iter().map(|link| &*link.bytes).collect::<Vec<_>>().concat();
    let found = brought(&trust, root);
    let followed: Vec<_> = found.roots.iter().map(|next| &next.root).collect();
    assert_eq!(followed, allowed(&links), "other roots were followed than the rule allows");
    stands_by_itself(root, &found);
    !found.roots.is_empty()
}

/// The rule, from BUNDLE.md and not from the code.
fn allowed(links: &[Link]) -> Vec<&RootDocument> {
    let mut followed: Vec<&RootDocument> = Vec::new();
    let (mut before, mut lower) = (None, AT);
    for link in links {
        let mine = followed.last().copied().unwrap_or(&GOLDEN.root);
        let (new, version) = (&link.root, link.root.version());
        let contiguous = before.is_none_or(|before| version == before + 1);
        before = Some(version);
        if new.deployment() != mine.deployment() || !contiguous {
            break;
        }
        if version < mine.version() || new == mine {
            continue;
        }
        let enough = |root: &RootDocument| {
            let holders: Vec<_> = root.role_keys(Role::Root).map(tidegate::keys::PublicKey::id).collect();
            let held = |mask| world::keys_of(mask).filter(|key| holders.contains(&key.public().id())).count();
            held(link.bad) == 0 && Some(held(link.good)) >= root.threshold(Role::Root)
        };
        let next = version == mine.version() + 1 && new.epoch() >= mine.epoch();
        if !next || !enough(mine) || !enough(new) || new.issued_at() > lower + MAX_AHEAD {
            break;
        }
        lower = lower.max(new.issued_at());
        followed.push(new);
    }
    followed
}
