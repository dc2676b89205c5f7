//! The centre of the reference model: a list of files, and the rule of `docs/usage-format.md` for what counts in it.

use std::collections::BTreeSet;

use crate::ids::Digest;
use crate::keys::PublicKey;
use crate::spool::backlog::{Cursor, UsageFile};
use crate::spool::record::Row;
use crate::spool::segment::{self, Header};

/// A file at the hub.
#[derive(Debug)]
pub(super) struct Held {
    header: Header,
    digest: Digest,
    requests: Vec<u64>,
    /// What its sums and its exact gaps tell.
    summed: u64,
    /// Its gaps of which nobody knows how many.
    unknown: u64,
}

impl Held {
    fn of(file: &segment::Verified) -> Self {
        let mut held =
            Self { header: *file.header(), digest: file.digest(), requests: Vec::new(), summed: 0, unknown: 0 };
        for row in file.rows() {
            match row {
                Row::Request(record) => {
                    let (_, id) = record.request.0.split_at(8);
                    held.requests.push(u64::from_be_bytes(id.try_into().expect("eight bytes")));
                }
                Row::RollUp(sum) => held.summed += sum.count,
                Row::Gap(gap) => {
                    assert!(gap.from_ms <= gap.to_ms, "a gap turned round: {gap:?}");
                    held.summed += gap.count.unwrap_or(0);
                    held.unknown += u64::from(gap.count.is_none());
                }
            }
        }
        held
    }

    pub(super) fn is_tombstone(&self) -> bool {
        self.header.stands_for.is_some()
    }

    /// Whether it counts in the place of `other`, which came after it: "What counts" of `docs/usage-format.md`.
    fn counts_for(&self, other: &Self, came_first: bool) -> bool {
        let (own, others) = ((self.header.first(), self.header.seq), (other.header.first(), other.header.seq));
        let holds = self.header.stream == other.header.stream && own.0 <= others.0 && others.1 <= own.1;
        match (self.is_tombstone(), other.is_tombstone()) {
            _ if !holds => false,
            (true, false) => own.0 < own.1,
            (true, true) => own != others || came_first,
            (false, true) => true,
            (false, false) => false,
        }
    }
}

/// The centre: whatever came, once.
#[derive(Debug, Default)]
pub(in super::super) struct Hub(pub(super) Vec<Held>);

impl Hub {
    /// Takes a file that `key` must have signed.
    pub(in super::super) fn take(&mut self, file: &UsageFile, key: &PublicKey) {
        let opened = segment::open(&file.bytes, key).expect("each file verifies");
        let held = Held::of(&opened);
        let at = Cursor { stream: held.header.stream, seq: held.header.seq };
        assert_eq!((at, held.digest), (file.at, file.digest));
        if self.0.iter().any(|known| known.digest == held.digest) {
            return;
        }
        let same =
            |known: &Held| (known.header.stream, known.header.seq) == (at.stream, at.seq) && !known.is_tombstone();
        assert!(held.is_tombstone() || !self.0.iter().any(same), "two files of number {}", at.seq);
        self.0.push(held);
    }

    /// Those that count.
    pub(super) fn counting(&self) -> impl Iterator<Item = &Held> {
        self.0.iter().enumerate().filter_map(|(at, held)| {
            let for_it = |(other_at, other): (usize, &Held)| other_at != at && other.counts_for(held, other_at < at);
            (!self.0.iter().enumerate().any(for_it)).then_some(held)
        })
    }

    /// Requests that are told, one by one, in sums, or as lost for certain; and gaps of which nobody knows.
    pub(in super::super) fn told(&self) -> (u64, u64, u64) {
        let sum = |what: fn(&Held) -> u64| self.counting().map(what).sum();
        (sum(|held| held.requests.len() as u64), sum(|held| held.summed), sum(|held| held.unknown))
    }

    /// The requests that are told one by one.
    pub(in super::super) fn requests(&self) -> BTreeSet<u64> {
        let requests: Vec<u64> = self.counting().flat_map(|held| &held.requests).copied().collect();
        let once: BTreeSet<u64> = requests.iter().copied().collect();
        assert_eq!(once.len(), requests.len(), "a request is told twice");
        once
    }

    /// Each stream is a chain from its first number to its last.
    pub(super) fn is_whole(&self) {
        let mut counting: Vec<_> = self.counting().collect();
        counting.sort_by_key(|held| (held.header.stream, held.header.first()));
        let mut last: Option<&Held> = None;
        for held in counting {
            let before = last.filter(|last| last.header.stream == held.header.stream);
            assert_eq!(
                held.header.first(),
                before.map_or(1, |before| before.header.seq + 1),
                "a hole, or a number twice"
            );
            let expected = before.map(|before| before.header.chain_digest(before.digest));
            assert_eq!(held.header.previous, expected, "number {} does not name the one before", held.header.seq);
            last = Some(held);
        }
    }
}
