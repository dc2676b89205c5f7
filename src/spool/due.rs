//! When to seal. Pure: what waits and the time in, verdict out.

use std::time::Duration;

use crate::spool::segment::{RAW_LIMIT, ROWS_LIMIT};

/// What waits in the open logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Unsealed {
    pub rows: u64,
    pub bytes: u64,
    /// Something that no running intake holds: an earlier run's logs, sums, gaps.
    pub left_over: bool,
}

/// Keeps since when something waits, and not to try again too soon after a failure.
#[derive(Debug, Default)]
pub(super) struct Due {
    waiting_since: Option<Duration>,
    failures: u32,
    not_before: Duration,
}

/// Longest pause after a failure.
const PAUSE_LIMIT: Duration = Duration::from_secs(60);

impl Due {
    /// Whether to seal at `now`, a time that never goes back; `after` is how long a row may wait.
    pub(super) fn is_due(&mut self, now: Duration, waits: &Unsealed, after: Duration) -> bool {
        let is_empty = waits.rows == 0 && waits.bytes == 0 && !waits.left_over;
        if is_empty {
            self.waiting_since = None;
            return false;
        }
        let since = *self.waiting_since.get_or_insert(now);
        let is_full = waits.rows >= u64::from(ROWS_LIMIT) || waits.bytes >= RAW_LIMIT as u64;
        now >= self.not_before && (is_full || waits.left_over || now.saturating_sub(since) >= after)
    }

    /// A seal succeeded: what waits now has only begun to wait.
    pub(super) fn sealed(&mut self) {
        *self = Self::default();
    }

    /// A seal failed: wait a little longer each time.
    pub(super) fn failed(&mut self, now: Duration) {
        self.failures = self.failures.saturating_add(1);
        let pause = Duration::from_secs(1).saturating_mul(1 << self.failures.min(6)).min(PAUSE_LIMIT);
        self.not_before = now.saturating_add(pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    fn rows(rows: u64) -> Unsealed {
        Unsealed { rows, bytes: rows * 100, left_over: false }
    }

    #[test]
    fn a_full_file_is_sealed_at_once_and_a_small_one_when_its_time_has_come() {
        let mut due = Due::default();
        assert!(!due.is_due(at(0), &rows(0), at(60)));
        assert!(!due.is_due(at(100), &rows(1), at(60)), "it has only begun to wait");
        assert!(!due.is_due(at(159), &rows(9), at(60)));
        assert!(due.is_due(at(160), &rows(9), at(60)));
        assert!(due.is_due(at(101), &rows(10_000), at(60)));
        assert!(due.is_due(at(101), &Unsealed { rows: 1, bytes: 2 << 20, left_over: false }, at(60)));
        due.sealed();
        assert!(!due.is_due(at(161), &rows(9), at(60)));
        assert!(due.is_due(at(162), &Unsealed { left_over: true, ..rows(0) }, at(60)));
    }

    #[test]
    fn failures_are_tried_again_ever_more_slowly_but_within_a_minute() {
        let mut due = Due::default();
        let mut now = at(0);
        let mut tried = Vec::new();
        for _ in 0..8 {
            while !due.is_due(now, &rows(20_000), at(60)) {
                now += at(1);
            }
            tried.push(now.as_secs());
            due.failed(now);
        }
        assert_eq!(tried, [0, 2, 6, 14, 30, 62, 122, 182]);
    }
}
