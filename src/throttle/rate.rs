//! GCRA: one number, the theoretical arrival time (TAT), says all about a rate.
//!
//! Each admitted request moves the TAT one emission interval `T = period / count` ahead of `max(TAT, now)`; a
//! request conforms while the TAT is at most `(burst − 1) · T` ahead of now. (ITU-T I.371; never a background task.)

use std::time::Duration;

use super::Now;

/// So many requests per length of time, evenly, with a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// T, in nanoseconds; rounded up, so that rounding never admits more.
    interval: u64,
    /// (burst − 1) · T, in nanoseconds.
    tolerance: u64,
}

impl Rate {
    /// `count` requests per `per`, of which `burst` may come at once. Zeros count as one.
    #[must_use]
    pub fn new(count: u32, per: Duration, burst: u32) -> Self {
        let per = u64::try_from(per.as_nanos()).unwrap_or(u64::MAX).max(1);
        let interval = per.div_ceil(u64::from(count.max(1)));
        Self { interval, tolerance: interval.saturating_mul(u64::from(burst.saturating_sub(1))) }
    }

    /// The TAT after one more request, or the whole seconds until one would conform.
    pub(super) fn charge(self, tat: u64, now: Now) -> Result<u64, u32> {
        let now = now.mono_ns;
        // A TAT further ahead than any request can push it comes from a clock that has stepped back: the wait
        // is never longer than a full burst takes.
        let ceiling = now.saturating_add(self.tolerance).saturating_add(self.interval);
        let tat = tat.min(ceiling).max(now);
        let ahead = tat - now;
        if ahead > self.tolerance {
            let wait = (ahead - self.tolerance).div_ceil(1_000_000_000);
            return Err(u32::try_from(wait).unwrap_or(u32::MAX).max(1));
        }
        Ok(tat.saturating_add(self.interval))
    }
}

/// How much is lost if this TAT is forgotten: nothing once it has passed.
pub(super) fn worth(tat: u64, now: Now) -> u64 {
    tat.saturating_sub(now.mono_ns)
}
