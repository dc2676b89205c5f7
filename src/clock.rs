//! The clocks of the machine, read in one place. What they are worth is judged elsewhere.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};
use std::{fmt, fs};

use rustix::time::{ClockId, clock_gettime};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

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

/// The wall clock for TLS where dates are not what decides; before 1970 it is 1970. rustls' own panics there.
#[derive(Debug)]
pub struct WallClock;

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        let ms = u64::try_from(Reading::now().wall_ms).unwrap_or(0);
        Some(UnixTime::since_unix_epoch(Duration::from_millis(ms)))
    }
}

/// Which boot of the machine this is: readings of CLOCK_BOOTTIME compare only within one boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootId(pub [u8; 16]);

impl BootId {
    /// The kernel's id of this boot. Where it cannot be read, one of this process: elapsed time is then
    /// not carried over a restart, which errs on the safe side.
    #[must_use]
    pub fn now() -> Self {
        static THIS: OnceLock<BootId> = OnceLock::new();
        *THIS.get_or_init(|| Self::of_kernel().unwrap_or_else(Self::of_process))
    }

    fn of_kernel() -> Option<Self> {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        u128::from_str_radix(&text.trim().replace('-', ""), 16).ok().map(|id| Self(id.to_be_bytes()))
    }

    fn of_process() -> Self {
        let Reading { wall_ms, boot } = Reading::now();
        let moment = u128::from(wall_ms.unsigned_abs()) << 64 ^ boot.as_nanos();
        Self((moment ^ u128::from(std::process::id()) << 32).to_be_bytes())
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}
