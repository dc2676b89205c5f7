//! Lines of the log that a peer could cause at will: one a minute of each kind.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Least time between two lines.
const BETWEEN: Duration = Duration::from_secs(60);

/// When something was last said.
#[derive(Debug, Default)]
pub(super) struct Seldom(Cell<Option<Instant>>);

impl Seldom {
    /// Whether it may be said at `now`; then it counts as said.
    pub(super) fn may(&self, now: Instant) -> bool {
        let is_due = self.0.get().is_none_or(|last| now.saturating_duration_since(last) >= BETWEEN);
        if is_due {
            self.0.set(Some(now));
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_not_said_again_within_the_minute() {
        let (seldom, start) = (Seldom::default(), Instant::now());
        let said: Vec<u64> = (0..200).filter(|second| seldom.may(start + Duration::from_secs(*second))).collect();
        assert_eq!(said, [0, 60, 120, 180]);
    }
}
