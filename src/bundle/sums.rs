//! The checksums of a release, and the signatures of those who made it.
//!
//! ```text
//! SHA256SUMS       lines of sha256sum(1): 64 lower-case hex digits, a space, a space or *, a file's name; what is signed, byte for byte
//! SHA256SUMS.sigs  its signature block, u8 n | n × ( key id 32 | signature 64 ), over PAE("text/vnd.tidegate.sha256sums.v1", SHA256SUMS)
//! ```
//!
//! The threshold of the role release counts. A name leads to no other folder, and stands there once, so that a line means
//! one file beside the list. Pure; devices never read it by themselves: `tidegate sums` is its only caller.

use super::container::{Signature, signature_block, take_signatures};
use super::error::Refused;
use super::pack::{self, PackError};
use super::root::{Role, RootDocument, Signers};
use crate::ids::{Digest, unhex};
use crate::keys::{SigningKey, sha256};

/// The media type that its signatures are over.
pub const MEDIA_TYPE: &str = "text/vnd.tidegate.sha256sums.v1";
/// Most bytes of the list.
pub const MAX_SUMS: u64 = 64 << 10;

/// A file of the release, as the list has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The file's name; of its own folder.
    pub name: String,
    /// SHA-256 of its bytes.
    pub digest: Digest,
}

/// A list of checksums and the signatures over it, which nobody has judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedSums {
    bytes: Vec<u8>,
    lines: Vec<Line>,
    signatures: Vec<Signature>,
}

impl SignedSums {
    /// From the bytes of the list and of its signature block; `None` is that nobody has signed.
    pub fn parse(bytes: &[u8], block: Option<&[u8]>) -> Result<Self, Refused> {
        let signatures = match block.map(take_signatures).transpose()? {
            None => Vec::new(),
            Some((signatures, [])) => signatures,
            Some((_, after)) => {
                return Err(Refused::TrailingData(format!("{} bytes after the signatures", after.len())));
            }
        };
        Ok(Self { bytes: bytes.to_vec(), lines: lines(bytes)?, signatures })
    }

    /// The files that it names, in its order.
    #[must_use]
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// What those who sign read to each other.
    #[must_use]
    pub fn digest(&self) -> Digest {
        sha256(&self.bytes)
    }

    /// The signature block's bytes.
    #[must_use]
    pub fn block(&self) -> Vec<u8> {
        signature_block(&self.signatures)
    }

    /// Signs, by the root's word where one is given.
    pub fn sign(&mut self, root: Option<&RootDocument>, key: &SigningKey) -> Result<(), PackError> {
        let id = key.public().id();
        if root.is_some_and(|root| !root.role_keys(Role::Release).any(|holder| holder.id() == id)) {
            return Err(PackError::NotInRole(id, Role::Release));
        }
        pack::add(&mut self.signatures, Signature { key: id, bytes: key.sign(MEDIA_TYPE, &self.bytes) })
    }

    /// Who of the role release has signed; a wrong signature by one of them is an error.
    pub fn signers(&self, root: &RootDocument) -> Result<Signers, Refused> {
        root.signers(Role::Release, MEDIA_TYPE, &self.bytes, &self.signatures)
    }
}

fn lines(bytes: &[u8]) -> Result<Vec<Line>, Refused> {
    let wrong = |detail: &str| Refused::ManifestSchema(format!("the list of checksums: {detail}"));
    let text = std::str::from_utf8(bytes).map_err(|_| wrong("it is not UTF-8"))?;
    let Some(text) = text.strip_suffix('\n') else { return Err(wrong("its last line does not end")) };
    let mut found: Vec<Line> = Vec::new();
    for (number, line) in (1..).zip(text.split('\n')) {
        let parts = line.split_once(' ').and_then(|(digest, name)| Some((digest, name.strip_prefix([' ', '*'])?)));
        let Some((digest, name)) = parts else { return Err(wrong(&format!("line {number} is not sha256sum's"))) };
        let digest = unhex::<32>(digest).map_err(|_| wrong(&format!("line {number} has no SHA-256")))?;
        let is_plain = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\']);
        if !is_plain || name.chars().any(char::is_control) {
            return Err(wrong(&format!("line {number} names no file beside it")));
        }
        if found.iter().any(|before| before.name == name) {
            return Err(wrong(&format!("line {number} names a file for the second time")));
        }
        found.push(Line { name: name.to_owned(), digest: Digest(digest) });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::bundle::root::{RoleKeys, RootDraft};

    const LIST: &[u8] = b"0000000000000000000000000000000000000000000000000000000000000000  a.deb\n\
        1111111111111111111111111111111111111111111111111111111111111111 *b.tar.gz\n";

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32]).expect("a seed makes a key")
    }

    /// Key 1 is root and policy; 2 and 3 release together.
    fn root() -> RootDocument {
        let keys = [1, 2, 3].map(|seed| (format!("key {seed}"), key(seed).public())).into();
        let role = |keys: &[usize], threshold| RoleKeys { keys: keys.to_vec(), threshold };
        let roles = BTreeMap::from([
            (Role::Root, role(&[0], 1)),
            (Role::Policy, role(&[0], 1)),
            (Role::Release, role(&[1, 2], 2)),
        ]);
        let (deployment, issued_at) = ("harbour".into(), 1_800_000_000);
        let draft = RootDraft { deployment, epoch: 1, version: 1, issued_at, keys, roles };
        RootDocument::build(draft).expect("a sound root")
    }

    #[test]
    fn the_threshold_of_the_role_release_counts_and_nobody_else() {
        let (root, mut sums) = (root(), SignedSums::parse(LIST, None).expect("a list"));
        assert_eq!(sums.lines().iter().map(|line| &*line.name).collect::<Vec<_>>(), ["a.deb", "b.tar.gz"]);
        assert_eq!(sums.sign(Some(&root), &key(1)), Err(PackError::NotInRole(key(1).public().id(), Role::Release)));
        sums.sign(None, &key(1)).expect("without a root anybody signs");
        sums.sign(Some(&root), &key(2)).expect("a holder");
        let met = |sums: &SignedSums| sums.signers(&root).and_then(|signers| signers.meet(Role::Release));
        assert_eq!(met(&sums).map_err(|refused| refused.name()), Err("ThresholdNotMet"));
        sums.sign(Some(&root), &key(3)).expect("a holder");
        assert_eq!(sums.sign(Some(&root), &key(3)), Err(PackError::SignedAlready(key(3).public().id())));
        let read = SignedSums::parse(LIST, Some(&sums.block())).expect("it reads back");
        assert_eq!((met(&read).map(|keys| keys.len()), &read), (Ok(2), &sums));
    }

    #[test]
    fn another_byte_or_another_media_type_is_no_signature() {
        let root = root();
        let mut sums = SignedSums::parse(LIST, None).expect("a list");
        for seed in [2, 3] {
            sums.sign(None, &key(seed)).expect("few have signed");
        }
        let other = String::from_utf8_lossy(LIST).replace("a.deb", "c.deb");
        let other = SignedSums::parse(other.as_bytes(), Some(&sums.block())).expect("its form is right");
        assert_eq!(other.signers(&root).map_err(|refused| refused.name()), Err("SignatureInvalid"));
        let release = crate::bundle::container::BundleType::Release.media_type();
        let of_bundle = [2, 3].map(|seed| (key(seed).public().id(), key(seed).sign(release, LIST)));
        let mut signatures = of_bundle.map(|(key, bytes)| Signature { key, bytes });
        signatures.sort_by_key(|signature| signature.key);
        let read = SignedSums::parse(LIST, Some(&signature_block(&signatures))).expect("its form is right");
        assert_eq!(read.signers(&root).map_err(|refused| refused.name()), Err("SignatureInvalid"));
    }

    #[test]
    fn a_list_means_files_beside_it_each_once() {
        let zeros = "0".repeat(64);
        for (list, detail) in [
            (String::new(), "its last line does not end"),
            ("\n".into(), "line 1 is not sha256sum's"),
            (format!("{zeros}  a"), "its last line does not end"),
            (format!("{zeros} a\n"), "line 1 is not sha256sum's"),
            (format!("{zeros}  a\n\n"), "line 2 is not sha256sum's"),
            (format!("{}  a\n", "0".repeat(63)), "line 1 has no SHA-256"),
            (format!("{}  a\n", "A".repeat(64)), "line 1 has no SHA-256"),
            (format!("{zeros}  ../a\n"), "line 1 names no file beside it"),
            (format!("{zeros}  /etc/passwd\n"), "line 1 names no file beside it"),
            (format!("{zeros}  ..\n"), "line 1 names no file beside it"),
            (format!("{zeros}  \n"), "line 1 names no file beside it"),
            (format!("{zeros}  a\r\n"), "line 1 names no file beside it"),
            (format!("{zeros}  a\n{zeros} *a\n"), "line 2 names a file for the second time"),
        ] {
            let refused = SignedSums::parse(list.as_bytes(), None).expect_err(&list);
            assert_eq!(refused.detail(), format!("the list of checksums: {detail}"), "{list:?}");
        }
    }

    #[test]
    fn a_signature_block_that_is_cut_off_or_goes_on_is_refused() {
        let mut sums = SignedSums::parse(LIST, None).expect("a list");
        sums.sign(None, &key(2)).expect("few have signed");
        let block = sums.block();
        for length in 0..block.len() {
            assert!(SignedSums::parse(LIST, Some(&block[..length])).is_err(), "{length}");
        }
        assert!(SignedSums::parse(LIST, Some(&[&block[..], &[0]].concat())).is_err());
    }
}
