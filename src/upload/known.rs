//! Which of the hub's bundles need not be fetched: what is in force, and what came already, whatever became of it.
//!
//! Most of what the importer refuses it refuses again: so a bundle is fetched once, until something is accepted that
//! may change that (a base, a permit, a root, a list), and once a day for what time may have made good. Kept in a file,
//! so that a start fetches nothing that was refused before. Shared by the puller, which says what it fetched, and the
//! importer's thread, which says what was accepted.

use std::collections::BinaryHeap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tracing::warn;

use crate::clock::Reading;
use crate::disk;
use crate::ids::Digest;
use crate::spool::protocol::BundleKind;

/// Largest file, in bytes.
const FILE_LIMIT: u64 = 16 << 10;
/// Most fetched bundles that are remembered, of all kinds.
const FETCHED_LIMIT: usize = 16;
/// After this a refused bundle is fetched once more.
const AGAIN_MS: i64 = 24 * 3600 * 1000;

/// See the module.
#[derive(Debug)]
pub struct Known {
    file: PathBuf,
    kept: Mutex<Kept>,
    /// Something that was refused may be accepted now.
    pub(super) again: Notify,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    #[serde(skip)]
    in_force: Vec<(BundleKind, Digest)>,
    /// The last permit that was accepted: it is never in force for long.
    permit: Option<Digest>,
    fetched: Vec<Fetched>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Fetched {
    kind: BundleKind,
    digest: Digest,
    /// By the wall clock, in milliseconds since the Unix epoch.
    at_ms: i64,
}

impl Known {
    /// Reads what is kept in `file`, where it is there and whole; `in_force` is what serves at this start.
    #[must_use]
    pub fn open(file: PathBuf, in_force: Vec<(BundleKind, Digest)>) -> Self {
        let kept = disk::read_limited(&file, FILE_LIMIT).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let kept = Kept { in_force, ..kept.unwrap_or_default() };
        Self { file, kept: Mutex::new(kept), again: Notify::new() }
    }

    /// This was accepted: it is in force from here on, or a permit that waits for its bundle.
    pub fn accepted(&self, kind: BundleKind, digest: Digest) {
        let mut kept = self.kept();
        kept.in_force.retain(|(of, _)| *of != kind);
        kept.in_force.push((kind, digest));
        if kind == BundleKind::Permit && kept.permit.replace(digest) != Some(digest) {
            self.save(&kept);
        }
        self.forget(kept, |fetched| fetched.digest == digest);
    }

    /// A new root, or something else by which all is judged.
    pub fn judged_anew(&self) {
        self.forget(self.kept(), |_| false);
    }

    fn forget(&self, mut kept: MutexGuard<'_, Kept>, but: impl Fn(&Fetched) -> bool) {
        let before = kept.fetched.len();
        kept.fetched.retain(but);
        if kept.fetched.len() < before {
            self.again.notify_one();
            self.save(&kept);
        }
    }

    /// This is in the inbox now. Blocks for the disk.
    pub(super) fn fetched(&self, kind: BundleKind, digest: Digest) {
        let mut kept = self.kept();
        kept.fetched.retain(|fetched| fetched.digest != digest);
        let surplus = (kept.fetched.len() + 1).saturating_sub(FETCHED_LIMIT);
        kept.fetched.drain(..surplus);
        kept.fetched.push(Fetched { kind, digest, at_ms: Reading::now().wall_ms });
        self.save(&kept);
    }

    /// What of a kind the hub need not send.
    pub(super) fn of(&self, kind: BundleKind) -> Vec<Digest> {
        self.at(kind, Reading::now().wall_ms)
    }

    fn at(&self, kind: BundleKind, now_ms: i64) -> Vec<Digest> {
        let kept = self.kept();
        let in_force = kept.in_force.iter().filter(|(of, _)| *of == kind).map(|(_, digest)| *digest);
        let permit = kept.permit.filter(|_| kind == BundleKind::Permit);
        // A clock that was set back makes everything due again, not nothing.
        let is_new = |fetched: &&Fetched| (0..AGAIN_MS).contains(&now_ms.saturating_sub(fetched.at_ms));
        let fetched = kept.fetched.iter().filter(|fetched| fetched.kind == kind).filter(is_new);
        let known: BinaryHeap<Digest> = in_force.chain(permit).chain(fetched.map(|fetched| fetched.digest)).collect();
        let mut known = known.into_sorted_vec();
        known.dedup();
        known
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn save(&self, kept: &Kept) {
        let bytes = serde_json::to_vec(kept).expect("digests, names and numbers are JSON");
        if let Err(error) = disk::replace(&self.file, &bytes, 0o600) {
            warn!(%error, "what was fetched from the hub is not written down; a start fetches it again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> i64 {
        Reading::now().wall_ms
    }

    #[test]
    fn a_bundle_that_was_fetched_is_known_until_something_is_accepted_or_a_day_has_gone_and_over_a_start() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("fetched.json");
        let [old, refused, base] = [1, 2, 3].map(|byte| Digest([byte; 32]));
        let open = || Known::open(file.clone(), vec![(BundleKind::Policy, old)]);
        let known = open();
        assert_eq!(known.of(BundleKind::Policy), [old]);
        known.fetched(BundleKind::Policy, refused);
        for known in [&known, &open()] {
            assert_eq!(known.of(BundleKind::Policy), [old, refused]);
            assert_eq!(known.of(BundleKind::Revocation), []);
            assert_eq!(known.at(BundleKind::Policy, now() + AGAIN_MS), [old], "a day later");
            assert_eq!(known.at(BundleKind::Policy, now() - 100_000), [old], "by a clock that was set back");
        }
        known.accepted(BundleKind::Policy, base);
        for known in [&known, &Known::open(file.clone(), vec![(BundleKind::Policy, base)])] {
            assert_eq!(known.of(BundleKind::Policy), [base], "the refused one may be good now");
        }
        known.fetched(BundleKind::Policy, refused);
        known.judged_anew();
        assert_eq!(open().of(BundleKind::Policy), [old]);
    }

    #[test]
    fn the_last_permit_is_known_over_a_start_and_a_file_of_rubbish_is_as_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("fetched.json");
        let known = Known::open(file.clone(), Vec::new());
        known.accepted(BundleKind::Permit, Digest([1; 32]));
        known.accepted(BundleKind::Policy, Digest([2; 32]));
        assert_eq!(Known::open(file.clone(), Vec::new()).of(BundleKind::Permit), [Digest([1; 32])]);
        std::fs::write(&file, b"{\"permit\":\"x").expect("written");
        assert_eq!(Known::open(file, Vec::new()).of(BundleKind::Permit), []);
    }

    #[test]
    fn no_more_is_remembered_than_a_request_can_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let known = Known::open(folder.path().join("fetched.json"), Vec::new());
        (0..100).for_each(|byte| known.fetched(BundleKind::Policy, Digest([byte; 32])));
        assert_eq!(known.of(BundleKind::Policy).len(), FETCHED_LIMIT);
        assert_eq!(known.of(BundleKind::Policy).last(), Some(&Digest([99; 32])), "the latest");
    }
}
