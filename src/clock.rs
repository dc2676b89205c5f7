//! The clocks of the machine, read in one place. What they are worth is judged elsewhere.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

/// One reading of the machine's clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The wall clock, in milliseconds since the Unix epoch; whatever the machine believes, negative before 1970.
    pub wall_ms: i64,
    /// CLOCK_BOOTTIME: time since this boot, suspended time included.
    pub boot: Duration,
}

impl Reading {
    /// Reads the clocks now.
    #[must_use]
    pub fn now() -> Self {
        let wall_ms = match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
        };
        let boot = clock_gettime(ClockId::Boottime);
        let boot = Duration::new(u64::try_from(boot.tv_sec).unwrap_or(0), u32::try_from(boot.tv_nsec).unwrap_or(0));
        Self { wall_ms, boot }
    }
}
