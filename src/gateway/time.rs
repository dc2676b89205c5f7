//! What the time is worth, refreshed by the daemon and carried forward by each request.

use std::time::Instant;

use crate::units::{TimeBounds, TimeQuality};

/// The time as of one moment. Seldom replaced; a request adds what has elapsed since.
#[derive(Debug, Clone, Copy)]
pub struct TimeState {
    /// When this was true.
    pub at: Instant,
    /// The bounds then.
    pub bounds: TimeBounds,
    /// The device's best guess then, in milliseconds since the Unix epoch; for usage records.
    pub wall_ms: i64,
}

/// One request's view of the time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) at: Instant,
    pub(super) bounds: TimeBounds,
    pub(super) wall_ms: i64,
}

impl TimeState {
    /// Only a lower bound, in seconds since the Unix epoch, true now.
    #[must_use]
    pub fn floor(lower: i64) -> Self {
        Self { at: Instant::now(), bounds: TimeBounds::floor(lower), wall_ms: lower.saturating_mul(1_000) }
    }

    /// Both bounds at a time in milliseconds since the Unix epoch, true now.
    #[must_use]
    pub fn exact(wall_ms: i64) -> Self {
        let lower = wall_ms.div_euclid(1_000);
        let bounds = TimeBounds { lower, upper: Some(lower.saturating_add(1)), quality: TimeQuality::Synced };
        Self { at: Instant::now(), bounds, wall_ms }
    }

    pub(super) fn moment(&self, at: Instant) -> Moment {
        let elapsed = at.saturating_duration_since(self.at);
        let ms = i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX);
        // The lower bound by whole seconds elapsed, the upper by begun ones: both stay bounds.
        let begun = if elapsed.is_zero() { 0 } else { (ms / 1_000).saturating_add(1) };
        let bounds = TimeBounds {
            lower: self.bounds.lower.saturating_add(ms / 1_000),
            upper: self.bounds.upper.map(|upper| upper.saturating_add(begun)),
            quality: self.bounds.quality,
        };
        Moment { at, bounds, wall_ms: self.wall_ms.saturating_add(ms) }
    }
}
