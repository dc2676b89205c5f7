//! Where a usage file stands among those of its stream: the next, a repeat, a fork, or ahead of a hole.
//!
//! The chain shows missing, altered and reordered files, whichever way they came. Pure: the caller
//! brings what it knows of the neighbours. A verdict never loses a file: what is out of order is kept
//! and counted as soon as it comes, only the highest contiguous number waits for the hole to be filled.
//! Called by the hub.
//!
//! What counts is a function of the files that are held, and not of their order: a tombstone counts in the place of
//! every file whose number it covers, whichever of them came first, and of two tombstones the wider one does. A file and a
//! tombstone of its number alone say the same; the file says more, so it counts.

use super::segment::Header;
use crate::ids::Digest;

/// A file of the stream, as its neighbours see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The lowest number that it stands for.
    pub first: u64,
    /// The highest, which is its own.
    pub seq: u64,
    /// Whether it is a tombstone.
    pub is_tombstone: bool,
    /// Its own digest.
    pub digest: Digest,
    /// Digest of the file before `first`.
    pub previous: Option<Digest>,
    /// What the file after it names as the one before.
    pub chain_digest: Digest,
}

impl Link {
    /// That of a file of digest `digest`.
    #[must_use]
    pub fn of(header: &Header, digest: Digest) -> Self {
        let (first, seq, previous) = (header.first(), header.seq, header.previous);
        let (is_tombstone, chain_digest) = (header.stands_for.is_some(), header.chain_digest(digest));
        Self { first, seq, is_tombstone, digest, previous, chain_digest }
    }

    /// Whether it counts in the place of `other`.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let is_as_wide = self.first <= other.first && other.seq <= self.seq;
        let is_wider = (self.first, self.seq) != (other.first, other.seq);
        is_as_wide && (if is_wider { self.is_tombstone } else { other.is_tombstone })
    }

    /// Whether both can be true of one stream, where they have a number in common.
    fn agrees(&self, other: &Self) -> bool {
        let starts_agree = self.first != other.first || self.previous == other.previous;
        let ends_agree = self.seq != other.seq || self.chain_digest == other.chain_digest;
        starts_agree && ends_agree && (self.covers(other) || other.covers(self))
    }
}

/// What is known of the stream around a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    /// Highest sequence number up to which no file is missing; 0 if the first is.
    pub contiguous: u64,
    /// The files that have a number in common with it.
    pub same: Vec<Link>,
    /// What the file that ends one below would have it name.
    pub before: Option<Digest>,
    /// What the file that begins one above says is the digest of the file before it.
    pub after_expects: Option<Digest>,
}

/// What follows for the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The next one, or one that fills a hole's lower end: take it, and move on.
    Contiguous,
    /// Files before it are missing: take it, and wait for them.
    Ahead {
        /// The lowest number that is missing.
        missing: u64,
    },
    /// Taken before, byte for byte: give the same receipt again.
    Repeat,
    /// What it tells is counted by another that is here: give a receipt, and count nothing.
    Covered,
    /// Another file has this number: the state of the device was copied or set back. Keep it apart.
    ChainFork,
    /// It and a neighbour do not name each other: as bad as a fork. Keep it apart.
    PreviousMismatch,
}

/// Judges a verified file. Where it is taken, those of `known.same` that it [covers](Link::covers) count no more.
#[must_use]
pub fn judge(file: &Link, known: &Known) -> Verdict {
    if known.same.iter().any(|held| held.digest == file.digest) {
        return Verdict::Repeat;
    }
    if known.same.iter().any(|held| !held.agrees(file)) {
        return Verdict::ChainFork;
    }
    if known.same.iter().any(|held| held.covers(file)) {
        return Verdict::Covered;
    }
    let fits_below = known.before.is_none() || known.before == file.previous;
    let fits_above = known.after_expects.is_none_or(|expected| expected == file.chain_digest);
    if !fits_below || !fits_above {
        return Verdict::PreviousMismatch;
    }
    let missing = known.contiguous.saturating_add(1);
    // A tombstone may begin among files that are here already.
    if file.first <= missing { Verdict::Contiguous } else { Verdict::Ahead { missing } }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Digest = Digest([0xa; 32]);
    const B: Digest = Digest([0xb; 32]);
    const C: Digest = Digest([0xc; 32]);
    const D: Digest = Digest([0xd; 32]);

    fn file(seq: u64, previous: Option<Digest>, digest: Digest) -> Link {
        Link { first: seq, seq, is_tombstone: false, digest, previous, chain_digest: digest }
    }

    /// A tombstone of some digest of its own.
    fn tombstone(first: u64, seq: u64, previous: Option<Digest>, chain_digest: Digest) -> Link {
        let digest = Digest([(first * 16 + seq) as u8; 32]);
        Link { first, seq, is_tombstone: true, digest, previous, chain_digest }
    }

    fn known(contiguous: u64, same: &[Link]) -> Known {
        Known { contiguous, same: same.to_vec(), ..Known::default() }
    }

    #[test]
    fn files_in_order_are_contiguous() {
        assert_eq!(judge(&file(1, None, A), &Known::default()), Verdict::Contiguous);
        let before = Known { contiguous: 1, before: Some(A), ..Known::default() };
        assert_eq!(judge(&file(2, Some(A), B), &before), Verdict::Contiguous);
    }

    #[test]
    fn a_repeat_is_told_from_a_fork_by_the_digest_alone() {
        let held = Known { before: Some(A), after_expects: Some(B), ..known(5, &[file(2, Some(A), B)]) };
        assert_eq!(judge(&file(2, Some(A), B), &held), Verdict::Repeat);
        assert_eq!(judge(&file(2, Some(A), C), &held), Verdict::ChainFork);
    }

    #[test]
    fn a_file_after_a_hole_is_taken_and_says_what_is_missing() {
        assert_eq!(judge(&file(3, Some(B), C), &Known::default()), Verdict::Ahead { missing: 1 });
        assert_eq!(judge(&file(3, Some(B), C), &known(1, &[])), Verdict::Ahead { missing: 2 });
    }

    #[test]
    fn neighbours_that_do_not_name_each_other_are_refused_on_either_side() {
        let below = Known { contiguous: 1, before: Some(A), ..Known::default() };
        assert_eq!(judge(&file(2, Some(C), B), &below), Verdict::PreviousMismatch);
        let above = Known { after_expects: Some(C), ..Known::default() };
        assert_eq!(judge(&file(1, None, A), &above), Verdict::PreviousMismatch);
        let fills = Known { after_expects: Some(A), ..Known::default() };
        assert_eq!(judge(&file(1, None, A), &fills), Verdict::Contiguous);
        // A tombstone shows to those after it the digest of the last file that it stands for.
        assert_eq!(judge(&tombstone(1, 3, None, A), &fills), Verdict::Contiguous);
        assert_eq!(judge(&tombstone(1, 3, None, B), &fills), Verdict::PreviousMismatch);
    }

    #[test]
    fn of_a_file_and_a_tombstone_over_it_the_tombstone_counts_whichever_came_first() {
        let (inner, wide) = (file(2, Some(A), B), tombstone(1, 3, None, C));
        assert_eq!(judge(&wide, &known(0, &[inner])), Verdict::Contiguous);
        assert!(wide.covers(&inner) && !inner.covers(&wide));
        assert_eq!(judge(&inner, &known(3, &[wide])), Verdict::Covered);
        // A tombstone may begin where everything is here already.
        assert_eq!(judge(&wide, &known(2, &[file(1, None, A), inner])), Verdict::Contiguous);
    }

    #[test]
    fn of_a_file_and_a_tombstone_for_it_alone_the_file_counts() {
        let (whole, alone) = (file(2, Some(A), B), tombstone(2, 2, Some(A), B));
        assert_eq!(judge(&alone, &known(2, &[whole])), Verdict::Covered);
        assert_ne!(judge(&whole, &known(2, &[alone])), Verdict::Covered);
        assert!(whole.covers(&alone) && !alone.covers(&whole));
    }

    #[test]
    fn of_two_tombstones_the_wider_counts_and_of_equal_ones_the_first() {
        let (small, wide) = (tombstone(1, 2, None, B), tombstone(1, 4, None, D));
        assert_eq!(judge(&wide, &known(2, &[small])), Verdict::Contiguous);
        assert_eq!(judge(&small, &known(4, &[wide])), Verdict::Covered);
        let other = Link { digest: A, ..wide };
        assert_eq!(judge(&other, &known(4, &[wide])), Verdict::Covered);
    }

    #[test]
    fn what_contradicts_what_is_here_is_a_fork() {
        let wide = tombstone(1, 3, None, C);
        assert_eq!(judge(&file(3, Some(B), D), &known(3, &[wide])), Verdict::ChainFork, "another last file");
        assert_eq!(judge(&wide, &known(3, &[file(3, Some(B), D)])), Verdict::ChainFork);
        assert_eq!(judge(&tombstone(2, 5, Some(A), D), &known(3, &[wide])), Verdict::ChainFork, "it covers it in part");
        let elsewhere = tombstone(2, 3, Some(D), C);
        assert_eq!(judge(&elsewhere, &known(3, &[file(2, Some(A), B)])), Verdict::ChainFork, "another one before it");
    }
}
