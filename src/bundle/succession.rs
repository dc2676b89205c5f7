//! The author's side of a rotation: a root document on its way from signer to signer, and the chain that leads to it.
//!
//! ```text
//! ROOT.json   the document's exact bytes: what devices are given, and what is signed
//! ROOT.sigs   its signature block, u8 n | n × ( key id 32 | signature 64 ), key ids strictly ascending
//! ```
//!
//! The next root is signed by the threshold of the old root and by that of its own; the signature of somebody who has
//! the role in both counts for both. All of them stand in one block, which has room for [`MAX_SIGNATURES`]: a pair of
//! roots that wants more could never be followed, and is refused before anybody signs.

use super::container::{self, MAX_SIGNATURES, Signature, signature_block};
use super::error::Refused;
use super::pack::{self, PackError};
use super::root::{self, Role, RootDocument, Signers};
use super::trust::{self, Rotated};
use crate::keys::SigningKey;

/// Most bytes of a signature block.
pub const MAX_BLOCK: u64 = 1 + 96 * MAX_SIGNATURES as u64;

/// A root document and the signatures over it, which nobody has judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedRoot {
    root: RootDocument,
    signatures: Vec<Signature>,
}

/// What the signatures of a root are worth, by the root before it and by its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootSigners {
    /// Of the old root; the first has none.
    pub by_old: Option<Signers>,
    /// Of its own.
    pub by_new: Signers,
}

impl RootSigners {
    /// Whether nobody need sign any more.
    #[must_use]
    pub fn are_enough(&self) -> bool {
        self.by_old.iter().chain([&self.by_new]).all(|signers| signers.keys.len() >= signers.threshold)
    }
}

impl SignedRoot {
    /// Not signed by anybody.
    #[must_use]
    pub fn unsigned(root: RootDocument) -> Self {
        Self { root, signatures: Vec::new() }
    }

    /// With the signatures of a link, ascending.
    #[must_use]
    pub fn with_signatures(root: RootDocument, signatures: Vec<Signature>) -> Self {
        Self { root, signatures }
    }

    /// From the bytes of the document and of its signature block.
    pub fn parse(document: &[u8], block: &[u8]) -> Result<Self, Refused> {
        let root = RootDocument::parse(document)?;
        let length = u32::try_from(document.len()).expect("a root document is at most 16 KiB");
        let link = [&length.to_be_bytes(), document, block].concat();
        match &*container::chain(&link)? {
            [one] => Ok(Self { root, signatures: one.signatures.clone() }),
            _ => Err(Refused::RootChainMalformed("there are bytes after the signature block".into())),
        }
    }

    /// The document.
    #[must_use]
    pub fn root(&self) -> &RootDocument {
        &self.root
    }

    /// The signatures.
    #[must_use]
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// The signature block's bytes.
    #[must_use]
    pub fn block(&self) -> Vec<u8> {
        signature_block(&self.signatures)
    }

    /// Signs with the key of somebody who has the role `root`, in the root before it or in its own.
    pub fn sign(&mut self, old: Option<&RootDocument>, key: &SigningKey) -> Result<(), PackError> {
        old.map(|old| check(old, &self.root)).transpose()?;
        let id = key.public().id();
        let roots = old.into_iter().chain([&self.root]);
        if !roots.flat_map(|root| root.role_keys(Role::Root)).any(|holder| holder.id() == id) {
            return Err(PackError::NotInRole(id, Role::Root));
        }
        pack::add(&mut self.signatures, pack::sign_root(&self.root, key))
    }

    /// Who has signed; a wrong signature by one of the holders is an error.
    pub fn signers(&self, old: Option<&RootDocument>) -> Result<RootSigners, Refused> {
        let by =
            |judge: &RootDocument| judge.signers(Role::Root, root::MEDIA_TYPE, self.root.bytes(), &self.signatures);
        Ok(RootSigners { by_old: old.map(by).transpose()?, by_new: by(&self.root)? })
    }

    /// The link of a trust chain.
    pub fn link(&self) -> Result<Vec<u8>, PackError> {
        pack::link(&self.root, self.signatures.clone())
    }
}

/// Whether `new` may follow `old`, before anybody has signed it: the next version of the same deployment, no earlier
/// epoch, and thresholds that one signature block can meet.
pub fn check(old: &RootDocument, new: &RootDocument) -> Result<(), PackError> {
    if new.deployment() != old.deployment() {
        let detail = format!("a root of deployment {:?} after one of {:?}", new.deployment(), old.deployment());
        return Err(Refused::RootWrongDeployment(detail).into());
    }
    if new.version() != old.version().saturating_add(1) {
        return Err(Refused::RootGap(format!("root version {} after version {}", new.version(), old.version())).into());
    }
    if new.epoch() < old.epoch() {
        return Err(Refused::RootEpochRegression(format!("epoch {} after epoch {}", new.epoch(), old.epoch())).into());
    }
    match signatures_needed(old, new) {
        needed if needed > usize::from(MAX_SIGNATURES) => Err(PackError::ThresholdsTooHigh(needed)),
        _ => Ok(()),
    }
}

/// The fewest signatures that meet the thresholds of both: who has the role in both signs once.
#[must_use]
pub fn signatures_needed(old: &RootDocument, new: &RootDocument) -> usize {
    let both = old.role_keys(Role::Root).filter(|key| new.role_keys(Role::Root).any(|other| other == *key)).count();
    let [of_old, of_new] = [old, new].map(|root| root.threshold(Role::Root).unwrap_or(0));
    of_old + of_new - both.min(of_old).min(of_new)
}

/// The roots that a bundle brings and that follow `from`, each by its own signatures, oldest first. None where the
/// bundle brings no later one.
pub fn brought(bundle: &[u8], from: &RootDocument) -> Result<Vec<Rotated>, Refused> {
    followed(from, pack::head(bundle)?.trust())
}

/// As [`brought`], of the bytes of a chain.
pub fn followed(from: &RootDocument, chain: &[u8]) -> Result<Vec<Rotated>, Refused> {
    let mut rotated = Vec::new();
    trust::follow(from, &container::chain(chain)?, None, &mut rotated)?;
    Ok(rotated)
}

/// Whether each of `links`, oldest first, follows the one before it.
pub fn check_links(links: &[SignedRoot]) -> Result<(), PackError> {
    for pair in links.windows(2) {
        let [old, new] = pair else { continue };
        check(&old.root, &new.root)?;
        followed(&old.root, &new.link()?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::bundle::root::{RoleKeys, RootDraft};

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32]).expect("a seed makes a key")
    }

    /// A root of these root keys and a threshold; the first is the policy key too.
    fn root(version: u64, seeds: impl IntoIterator<Item = u8>, threshold: usize) -> RootDocument {
        let keys: Vec<_> = seeds.into_iter().map(|seed| (format!("key {seed}"), key(seed).public())).collect();
        let roles = BTreeMap::from([
            (Role::Root, RoleKeys { keys: (0..keys.len()).collect(), threshold }),
            (Role::Policy, RoleKeys { keys: vec![0], threshold: 1 }),
        ]);
        let (deployment, issued_at) = ("harbour".into(), 1_800_000_000);
        RootDocument::build(RootDraft { deployment, epoch: 1, version, issued_at, keys, roles }).expect("a sound root")
    }

    #[test]
    fn two_thresholds_that_one_block_cannot_hold_are_refused_before_anybody_signs() {
        let old = root(1, 1..=9, 9);
        for (new, needed) in [
            (root(2, 11..=17, 7), 16),
            (root(2, 11..=18, 8), 17),
            (root(2, 9..=16, 8), 16),
            (root(2, 1..=9, 9), 9),
            (root(2, 1..=16, 16), 16),
            (root(2, 1..=3, 1), 9),
        ] {
            assert_eq!(signatures_needed(&old, &new), needed);
            let signed = SignedRoot::unsigned(new.clone()).sign(Some(&old), &key(1));
            match needed {
                17 => assert_eq!((check(&old, &new), signed), {
                    (Err(PackError::ThresholdsTooHigh(17)), Err(PackError::ThresholdsTooHigh(17)))
                }),
                _ => assert_eq!((check(&old, &new), signed), (Ok(()), Ok(()))),
            }
        }
    }

    #[test]
    fn the_fewest_signatures_that_are_told_are_enough_and_one_less_is_not() {
        let (old, new) = (root(1, 1..=4, 3), root(2, 3..=7, 4));
        let needed = signatures_needed(&old, &new);
        let mut signed = SignedRoot::unsigned(new);
        for (count, seed) in (1..).zip([3, 4, 1, 5, 6]) {
            assert!(!signed.signers(Some(&old)).expect("no wrong one").are_enough(), "{count}");
            signed.sign(Some(&old), &key(seed)).expect("a holder");
            let read = SignedRoot::parse(signed.root().bytes(), &signed.block()).expect("it reads back");
            assert_eq!(read, signed);
            assert_eq!(signed.signers(Some(&old)).expect("no wrong one").are_enough(), count == needed, "{count}");
        }
        assert_eq!(followed(&old, &signed.link().expect("few signatures")).expect("it follows").len(), 1);
        assert_eq!(signed.sign(Some(&old), &key(9)), Err(PackError::NotInRole(key(9).public().id(), Role::Root)));
        assert_eq!(signed.sign(Some(&old), &key(3)), Err(PackError::SignedAlready(key(3).public().id())));
    }

    #[test]
    fn what_does_not_follow_is_refused_by_its_name() {
        let old = root(1, 1..=3, 2);
        let name = |result: Result<(), PackError>| match result {
            Err(PackError::Refused(refused)) => refused.name(),
            other => panic!("{other:?}"),
        };
        assert_eq!(name(check(&old, &root(3, 1..=3, 2))), "RootGap");
        assert_eq!(name(check(&old, &root(1, 1..=3, 2))), "RootGap");
        let sign = |root: RootDocument, old: &RootDocument, seeds: &[u8]| {
            let mut signed = SignedRoot::unsigned(root);
            seeds.iter().for_each(|seed| signed.sign(Some(old), &key(*seed)).expect("a holder"));
            signed
        };
        let second = sign(root(2, 4..=6, 2), &old, &[1, 2, 4, 5]);
        let third = |seeds: &[u8]| sign(root(3, 7..=9, 2), second.root(), seeds);
        let links = |last| check_links(&[SignedRoot::unsigned(old.clone()), second.clone(), last]);
        assert_eq!(links(third(&[4, 5, 7, 8])), Ok(()));
        assert_eq!(name(links(third(&[4, 7, 8]))), "RootThresholdOld");
        assert_eq!(name(links(third(&[4, 5, 7]))), "RootThresholdNew");
    }

    #[test]
    fn a_signature_block_that_is_cut_off_or_goes_on_is_refused() {
        let mut signed = SignedRoot::unsigned(root(1, 1..=3, 2));
        signed.sign(None, &key(1)).expect("a holder");
        let (document, block) = (signed.root().bytes().to_vec(), signed.block());
        for length in 0..block.len() {
            assert!(SignedRoot::parse(&document, &block[..length]).is_err(), "{length}");
        }
        assert!(SignedRoot::parse(&document, &[&block[..], &[0]].concat()).is_err());
        assert_eq!(SignedRoot::parse(&document, &block), Ok(signed));
    }
}
