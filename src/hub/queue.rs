//! When those are to come again who found the hub full: a queue that nobody stands in. Pure.
//!
//! Each who is turned away gets the next moment that nobody was told yet, and these lie as far apart as the hub can serve.
//! So ten thousand devices that come in one minute come back spread evenly, and not all at once.

use std::time::{Duration, Instant};

/// The shortest wait, and the longest that anybody is told.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(3_600);

/// The moments that are given away.
#[derive(Debug)]
pub(super) struct Queue {
    apart: Duration,
    /// The next one that is free.
    next: Option<Instant>,
}

impl Queue {
    /// For a hub that serves `rate` in a second; 0 counts as 1.
    pub(super) fn new(rate: u32) -> Self {
        Self { apart: Duration::from_secs(1) / rate.max(1), next: None }
    }

    /// In how many seconds whoever is turned away `now` is to come again.
    pub(super) fn seconds(&mut self, now: Instant) -> u64 {
        let (first, last) = (now + SHORTEST, now + LONGEST);
        let at = self.next.unwrap_or(first).clamp(first, last);
        self.next = Some(at + self.apart);
        let wait = at.saturating_duration_since(now);
        wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_herd_is_spread_evenly_and_a_single_one_waits_a_second() {
        let begun = Instant::now();
        let mut queue = Queue::new(100);
        let told: Vec<u64> = (0..10_000).map(|_| queue.seconds(begun)).collect();
        assert!(told.is_sorted());
        assert_eq!((told.first(), told.last()), (Some(&1), Some(&101)));
        for second in 2..=101 {
            assert_eq!(told.iter().filter(|told| **told == second).count(), if second == 101 { 99 } else { 100 });
        }
        assert_eq!(queue.seconds(begun + Duration::from_secs(60)), 41, "they are still to come");
        assert_eq!(queue.seconds(begun + Duration::from_secs(600)), 1, "they have come");
    }

    #[test]
    fn nobody_is_sent_away_for_longer_than_an_hour() {
        let begun = Instant::now();
        let mut queue = Queue::new(0);
        assert!((0..100_000).all(|_| queue.seconds(begun) <= 3_600));
    }
}
