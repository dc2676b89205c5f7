//! When to try again: exponential backoff with full jitter, so that a fleet that lost its hub together
//! does not come back together. Pure: the caller brings the random number. Called by [`super::worker`].

use std::time::Duration;

/// How long to wait after `failures` failures in a row (from 1): uniformly within
/// 0..=min(cap, base · 2^(failures − 1)), by `random`; never less than `asked`, what the hub asked for, cut to `cap`.
#[must_use]
pub(super) fn delay(failures: u32, random: u64, base: Duration, cap: Duration, asked: Option<Duration>) -> Duration {
    let factor = 1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    let ceiling = base.checked_mul(factor).unwrap_or(cap).min(cap);
    // The upper 64 bits of the product are uniform in 0..=ceiling.
    let micros = u128::from(u64::try_from(ceiling.as_micros()).unwrap_or(u64::MAX)) + 1;
    let jittered = Duration::from_micros(u64::try_from((u128::from(random) * micros) >> 64).unwrap_or(u64::MAX));
    jittered.max(asked.unwrap_or_default().min(cap))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_secs(1);
    const CAP: Duration = Duration::from_secs(300);

    #[test]
    fn the_ceiling_doubles_up_to_the_cap_and_never_overflows() {
        for (failures, ceiling) in [(1, 1), (2, 2), (3, 4), (9, 256), (10, 300), (33, 300), (u32::MAX, 300)] {
            assert_eq!(delay(failures, u64::MAX, BASE, CAP, None).as_secs(), ceiling, "{failures}");
            assert_eq!(delay(failures, 0, BASE, CAP, None), Duration::ZERO, "{failures}");
        }
        assert_eq!(delay(9, u64::MAX, Duration::MAX, Duration::MAX, None).as_micros(), u128::from(u64::MAX));
    }

    #[test]
    fn half_of_the_random_range_is_half_of_the_wait() {
        assert_eq!(delay(3, 1 << 63, BASE, CAP, None), Duration::from_secs(2));
    }

    #[test]
    fn the_hub_can_ask_for_more_but_not_for_more_than_the_cap() {
        assert_eq!(delay(1, 0, BASE, CAP, Some(Duration::from_secs(7))).as_secs(), 7);
        assert_eq!(delay(1, 0, BASE, CAP, Some(Duration::from_secs(86_400))), CAP);
        assert_eq!(delay(9, u64::MAX, BASE, CAP, Some(Duration::from_secs(7))).as_secs(), 256);
    }
}
