//! Keeps what anybody can cause from filling the log. Pure.

use std::time::{Duration, Instant};

/// How often such a line is logged.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Lets one line in [`LINE_EVERY`] into the log.
#[derive(Debug, Default)]
pub(super) struct Seldom {
    last: Option<Instant>,
    unsaid: u64,
}

impl Seldom {
    /// How many lines were left out since the last, if it is time for one.
    pub(super) fn say(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < LINE_EVERY) {
            self.unsaid = self.unsaid.saturating_add(1);
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_get_one_line_in_ten_seconds_and_the_next_one_counts_the_rest() {
        let (mut seldom, begun) = (Seldom::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(seldom.say(at(0)), Some(0));
        assert!((0..10).all(|second| seldom.say(at(second)).is_none()));
        assert_eq!((seldom.say(at(10)), seldom.say(at(11)), seldom.say(at(20))), (Some(10), None, Some(1)));
    }
}
