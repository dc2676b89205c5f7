//! What rows come to where they are told as sums: by the hour, outcome, API and application. Pure.
//!
//! Nothing is lost of what is counted: every request is in one sum, sums that are summed again keep their counts, and
//! gaps stay gaps. What goes is the rest of a record. Called by the ledger where retention takes files away.

use std::collections::BTreeMap;

use crate::spool::record::{Gap, GapReason, Outcome, RollUp, Row};
use crate::spool::segment::{Builder, Error};

const HOUR_MS: i64 = 3_600_000;

/// Sums and gaps in the place of rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Summary {
    sums: BTreeMap<Group, Sum>,
    /// By reason, and whether the count is known: what nobody can know is not added to what somebody does.
    gaps: BTreeMap<(GapReason, bool), Gap>,
}

/// What is summed together. A sum over more than an hour is in the hour of its end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    hour: i64,
    outcome: Outcome,
    api: String,
    application: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sum {
    from_ms: i64,
    to_ms: i64,
    count: u64,
    bytes_in: u64,
    bytes_out: u64,
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.from_ms = self.from_ms.min(other.from_ms);
        self.to_ms = self.to_ms.max(other.to_ms);
        self.count = self.count.saturating_add(other.count);
        self.bytes_in = self.bytes_in.saturating_add(other.bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(other.bytes_out);
    }
}

impl Summary {
    /// Counts a row in.
    pub(super) fn add(&mut self, row: &Row<'_>) {
        let (sum, outcome, api, application) = match *row {
            Row::Request(record) => {
                let (from_ms, to_ms) = (record.at_ms, record.at_ms);
                let sum = Sum { from_ms, to_ms, count: 1, bytes_in: record.bytes_in, bytes_out: record.bytes_out };
                (sum, record.outcome, record.api, record.application)
            }
            Row::RollUp(RollUp { from_ms, to_ms, outcome, count, bytes_in, bytes_out, api, application }) => {
                (Sum { from_ms, to_ms, count, bytes_in, bytes_out }, outcome, api, application)
            }
            Row::Gap(gap) => return self.add_gap(gap),
        };
        let (api, application) = (api.to_owned(), application.to_owned());
        let group = Group { hour: sum.to_ms.div_euclid(HOUR_MS), outcome, api, application };
        self.sums.entry(group).and_modify(|known| known.add(sum)).or_insert(sum);
    }

    fn add_gap(&mut self, gap: Gap) {
        let both = |known: &mut Gap| {
            known.from_ms = known.from_ms.min(gap.from_ms);
            known.to_ms = known.to_ms.max(gap.to_ms);
            known.count = known.count.zip(gap.count).map(|(one, other)| one.saturating_add(other));
        };
        self.gaps.entry((gap.reason, gap.count.is_some())).and_modify(both).or_insert(gap);
    }

    /// Counts in what another one tells.
    pub(super) fn merge(&mut self, other: &Self) {
        for (group, sum) in &other.sums {
            self.sums.entry(group.clone()).and_modify(|known| known.add(*sum)).or_insert(*sum);
        }
        other.gaps.values().for_each(|gap| self.add_gap(*gap));
    }

    /// Requests that its sums tell, and that its gaps say are lost for certain.
    pub(super) fn count(&self) -> u64 {
        let summed = self.sums.values().map(|sum| sum.count);
        summed.chain(self.gaps.values().filter_map(|gap| gap.count)).fold(0, u64::saturating_add)
    }

    /// How many rows tell it.
    pub(super) fn rows(&self) -> usize {
        self.sums.len() + self.gaps.len()
    }

    /// The first and the last moment of it, in milliseconds since the Unix epoch; `None` where it is empty.
    pub(super) fn span(&self) -> Option<(i64, i64)> {
        let sums = self.sums.values().map(|sum| (sum.from_ms, sum.to_ms));
        let spans = sums.chain(self.gaps.values().map(|gap| (gap.from_ms, gap.to_ms)));
        spans.reduce(|(from, to), (from_ms, to_ms)| (from.min(from_ms), to.max(to_ms)))
    }

    /// The same with its sums given up: what is left of them is how many requests they told.
    pub(super) fn dropped(self) -> Self {
        let mut rest = Self { sums: BTreeMap::new(), gaps: self.gaps };
        let all = self.sums.into_values().reduce(|mut all, sum| {
            all.add(sum);
            all
        });
        if let Some(Sum { from_ms, to_ms, count, .. }) = all {
            rest.add_gap(Gap { reason: GapReason::Dropped, from_ms, to_ms, count: Some(count) });
        }
        rest
    }

    /// Its rows, into a file in the making.
    pub(super) fn fill(&self, builder: &mut Builder) -> Result<(), Error> {
        for (Group { outcome, api, application, .. }, sum) in &self.sums {
            let Sum { from_ms, to_ms, count, bytes_in, bytes_out } = *sum;
            let outcome = *outcome;
            builder.push(&Row::RollUp(RollUp {
                from_ms,
                to_ms,
                outcome,
                count,
                bytes_in,
                bytes_out,
                api,
                application,
            }))?;
        }
        self.gaps.values().try_for_each(|gap| builder.push(&Row::Gap(*gap)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::spool::record::{SAMPLE, UsageRecord};

    fn row(n: u8) -> Row<'static> {
        let at_ms = i64::from(n) * HOUR_MS / 5;
        let outcome = if n.is_multiple_of(2) { Outcome::Admitted } else { Outcome::TokenMissing };
        let api = if n.is_multiple_of(3) { "pets" } else { "" };
        match n % 5 {
            0 => {
                Row::Gap(Gap { reason: GapReason::LogDamaged, from_ms: at_ms, to_ms: at_ms + 9, count: Some(n.into()) })
            }
            1 => Row::Gap(Gap { reason: GapReason::UncleanStop, from_ms: at_ms, to_ms: at_ms + 9, count: None }),
            2 => {
                let (from_ms, to_ms, count) = (at_ms - 10, at_ms, n.into());
                Row::RollUp(RollUp { from_ms, to_ms, outcome, count, bytes_in: 1, bytes_out: 2, api, application: "" })
            }
            _ => Row::Request(UsageRecord { at_ms, outcome, api, ..SAMPLE }),
        }
    }

    fn counted(row: &Row<'_>) -> u64 {
        match row {
            Row::Request(_) => 1,
            Row::RollUp(sum) => sum.count,
            Row::Gap(gap) => gap.count.unwrap_or(0),
        }
    }

    #[test]
    fn requests_of_an_hour_are_one_sum_for_each_api_application_and_outcome() {
        let mut summary = Summary::default();
        let at = |hour: i64, ms: i64| UsageRecord { at_ms: hour * HOUR_MS + ms, ..SAMPLE };
        for record in [at(5, 0), at(5, HOUR_MS - 1), at(6, 0), UsageRecord { application: "other", ..at(5, 7) }] {
            summary.add(&Row::Request(record));
        }
        let sums: Vec<_> = summary.sums.iter().map(|(group, sum)| (group.hour, sum.count, sum.bytes_out)).collect();
        assert_eq!(sums, [(5, 1, 512), (5, 2, 1024), (6, 1, 512)]);
        assert_eq!(summary.span(), Some((5 * HOUR_MS, 6 * HOUR_MS)));
    }

    proptest! {
        #[test]
        fn however_rows_are_grouped_and_summed_again_nothing_counted_is_lost(
            numbers in proptest::collection::vec(any::<u8>(), 1..200), cut in any::<prop::sample::Index>(),
        ) {
            let rows: Vec<_> = numbers.iter().map(|n| row(*n)).collect();
            let mut at_once = Summary::default();
            rows.iter().for_each(|row| at_once.add(row));
            prop_assert_eq!(at_once.count(), rows.iter().map(counted).sum::<u64>());

            let (first, second) = rows.split_at(cut.index(rows.len()));
            let mut in_turn = Summary::default();
            for part in [first, second] {
                let (mut summary, mut builder) = (Summary::default(), Builder::new());
                part.iter().for_each(|row| summary.add(row));
                prop_assert!(summary.fill(&mut builder).is_ok());
                prop_assert_eq!(builder.rows() as usize, summary.rows());
                // As they are read back.
                summary.sums.iter().for_each(|(group, sum)| in_turn.add(&Row::RollUp(RollUp {
                    from_ms: sum.from_ms, to_ms: sum.to_ms, outcome: group.outcome, count: sum.count,
                    bytes_in: sum.bytes_in, bytes_out: sum.bytes_out, api: &group.api, application: &group.application,
                })));
                summary.gaps.values().for_each(|gap| in_turn.add(&Row::Gap(*gap)));
            }
            prop_assert_eq!(&in_turn, &at_once);
            let (count, unknown) = (at_once.count(), at_once.gaps.values().filter(|gap| gap.count.is_none()).count());
            let dropped = at_once.dropped();
            prop_assert!(dropped.sums.is_empty());
            prop_assert_eq!(dropped.count(), count);
            prop_assert_eq!(dropped.gaps.values().filter(|gap| gap.count.is_none()).count(), unknown);
        }
    }
}
