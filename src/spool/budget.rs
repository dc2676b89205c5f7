//! How many refusals before authentication are told one by one. Anybody can cause those, so they may
//! never push paid usage out: what is over the budget is only counted. Pure; one per worker.

use std::time::Duration;

/// A rate with a burst of one second, by the generic cell rate algorithm.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    /// Time between two records; `None` where none may be told in full.
    interval: Option<Duration>,
    burst: Duration,
    /// When the budget will be whole again.
    whole_at: Duration,
}

impl Budget {
    /// `per_second` records a second, shared by `workers` of them; each has at least one at a time.
    pub(super) fn new(per_second: u32, workers: u16) -> Self {
        let workers = u32::from(workers.max(1));
        let interval = (per_second > 0).then(|| Duration::from_secs(1) * workers / per_second);
        let burst = Duration::from_secs(1).max(interval.unwrap_or_default());
        Self { interval, burst, whole_at: Duration::ZERO }
    }

    /// Takes one record's worth at `now`, a time since any fixed moment that never goes back.
    pub(super) fn take(&mut self, now: Duration) -> bool {
        let Some(interval) = self.interval else { return false };
        let next = self.whole_at.max(now) + interval;
        let fits = next.saturating_sub(now) <= self.burst;
        if fits {
            self.whole_at = next;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_gets_its_rate_and_no_more_however_it_is_spread() {
        for (workers, per_worker) in [(1, 10), (2, 5), (4, 2)] {
            let mut budget = Budget::new(10, workers);
            let taken = |second: u64, budget: &mut Budget| {
                (0..1000).filter(|ms| budget.take(Duration::from_millis(second * 1000 + ms))).count()
            };
            taken(5, &mut budget); // the burst
            let steady: usize = (6..16).map(|second| taken(second, &mut budget)).sum();
            let expected = 100 / usize::from(workers);
            assert!(steady.abs_diff(expected) <= per_worker, "{steady} of {expected} for {workers} workers");
        }
    }

    #[test]
    fn a_quiet_minute_saves_up_one_second_at_most() {
        let mut budget = Budget::new(10, 1);
        let at = Duration::from_secs(60);
        assert_eq!((0..100).filter(|_| budget.take(at)).count(), 10);
        assert_eq!((0..100).filter(|_| Budget::new(0, 1).take(at)).count(), 0);
    }

    #[test]
    fn more_workers_than_records_still_tell_some() {
        let mut budget = Budget::new(1, 8);
        assert!(budget.take(Duration::from_secs(1)));
        assert!(!budget.take(Duration::from_secs(2)));
        assert!(budget.take(Duration::from_secs(9)));
    }
}
