//! Where a usage file stands among those of its stream: the next, a repeat, a fork, or ahead of a hole.
//!
//! The chain shows missing, altered and reordered files, whichever way they came. Pure: the caller
//! brings what it knows of the neighbours. A verdict never loses a file: what is out of order is kept
//! and counted as soon as it comes, only the highest contiguous number waits for the hole to be filled.
//! Called by the hub.

use super::segment::Place;
use crate::ids::Digest;

/// What is known of the stream around one sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Known {
    /// Highest sequence number up to which no file is missing; 0 if the first is.
    pub contiguous: u64,
    /// Digest of the file that holds this number already.
    pub same: Option<Digest>,
    /// Digest of the file one below.
    pub before: Option<Digest>,
    /// What the file one above says is the digest of the file before it.
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
    /// Another file has this number: the state of the device was copied or set back. Keep it apart.
    ChainFork,
    /// It and a neighbour do not name each other: as bad as a fork. Keep it apart.
    PreviousMismatch,
}

/// Judges a verified file of digest `digest` at `place`.
#[must_use]
pub fn judge(place: &Place, digest: &Digest, known: &Known) -> Verdict {
    if let Some(same) = known.same {
        return if same == *digest { Verdict::Repeat } else { Verdict::ChainFork };
    }
    let fits_below = known.before.is_none() || known.before == place.previous;
    let fits_above = known.after_expects.is_none_or(|expected| expected == *digest);
    if !fits_below || !fits_above {
        return Verdict::PreviousMismatch;
    }
    let missing = known.contiguous.saturating_add(1);
    if place.seq == missing { Verdict::Contiguous } else { Verdict::Ahead { missing } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::StreamId;

    const A: Digest = Digest([0xa; 32]);
    const B: Digest = Digest([0xb; 32]);
    const C: Digest = Digest([0xc; 32]);

    fn at(seq: u64, previous: Option<Digest>) -> Place {
        Place { stream: StreamId(1), seq, previous, policy: None }
    }

    #[test]
    fn files_in_order_are_contiguous() {
        assert_eq!(judge(&at(1, None), &A, &Known::default()), Verdict::Contiguous);
        let known = Known { contiguous: 1, before: Some(A), ..Known::default() };
        assert_eq!(judge(&at(2, Some(A)), &B, &known), Verdict::Contiguous);
    }

    #[test]
    fn a_repeat_is_told_from_a_fork_by_the_digest_alone() {
        let known = Known { contiguous: 5, same: Some(B), before: Some(A), after_expects: Some(B) };
        assert_eq!(judge(&at(2, Some(A)), &B, &known), Verdict::Repeat);
        assert_eq!(judge(&at(2, Some(A)), &C, &known), Verdict::ChainFork);
    }

    #[test]
    fn a_file_after_a_hole_is_taken_and_says_what_is_missing() {
        assert_eq!(judge(&at(3, Some(B)), &C, &Known::default()), Verdict::Ahead { missing: 1 });
        let known = Known { contiguous: 1, ..Known::default() };
        assert_eq!(judge(&at(3, Some(B)), &C, &known), Verdict::Ahead { missing: 2 });
    }

    #[test]
    fn neighbours_that_do_not_name_each_other_are_refused_on_either_side() {
        let below = Known { contiguous: 1, before: Some(A), ..Known::default() };
        assert_eq!(judge(&at(2, Some(C)), &B, &below), Verdict::PreviousMismatch);
        let above = Known { after_expects: Some(C), ..Known::default() };
        assert_eq!(judge(&at(1, None), &A, &above), Verdict::PreviousMismatch);
        let fills = Known { after_expects: Some(A), ..Known::default() };
        assert_eq!(judge(&at(1, None), &A, &fills), Verdict::Contiguous);
    }
}
