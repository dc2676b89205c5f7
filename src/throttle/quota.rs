//! A budget per calendar window. The state of one quota:
//!
//! ```text
//! bits 63..62  kind of window: 0 hour, 1 day, 2 month
//! bits 61..40  the window's number since 1970
//! bits 39..0   requests admitted in it
//! ```

use super::Now;
use crate::units::UnixSeconds;

const USED_BITS: u32 = 40;
const USED_MAX: u64 = (1 << USED_BITS) - 1;
const NUMBER_MAX: u64 = (1 << 22) - 1;

/// A calendar window, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// From the full hour.
    Hour = 0,
    /// From midnight.
    Day = 1,
    /// From the first of the month.
    Month = 2,
}

/// So many requests per calendar window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    count: u64,
    window: Window,
}

impl Quota {
    /// `count` requests per window; more than 2^40 − 1 counts as that.
    #[must_use]
    pub fn new(count: u64, window: Window) -> Self {
        Self { count: count.min(USED_MAX), window }
    }

    /// The state after one more request, or the whole seconds until the next window.
    pub(super) fn charge(self, state: u64, now: Now) -> Result<u64, u32> {
        // A plan that now counts in other windows starts anew.
        let state = if state >> 62 == self.window as u64 { state } else { 0 };
        let (stored, used) = (state >> USED_BITS & NUMBER_MAX, state & USED_MAX);
        let number = self.window.number(now.wall);
        let used = if number > stored { 0 } else { used };
        // Two workers can meet around a window's end in the other order: the later window is the one that counts.
        let number = number.max(stored);
        if used >= self.count {
            return Err(self.window.left(now.wall));
        }
        Ok((self.window as u64) << 62 | number << USED_BITS | (used + 1))
    }
}

/// How much is lost if this state is forgotten: what was used, and nothing once its window is over.
pub(super) fn worth(state: u64, now: Now) -> u64 {
    let window = match state >> 62 {
        0 => Window::Hour,
        1 => Window::Day,
        _ => Window::Month,
    };
    if window.number(now.wall) > state >> USED_BITS & NUMBER_MAX { 0 } else { state & USED_MAX }
}

impl Window {
    /// Which window `at` lies in, counted from 1970; moments before count as 1970.
    #[must_use]
    pub fn number(self, at: UnixSeconds) -> u64 {
        let at = u64::try_from(at).unwrap_or(0);
        let number = match self {
            Self::Hour => at / 3_600,
            Self::Day => at / 86_400,
            Self::Month => {
                let (year, month, _) = civil(at / 86_400);
                (year - 1970) * 12 + (month - 1)
            }
        };
        number.min(NUMBER_MAX)
    }

    /// Whole seconds from `at` until the window ends, at least 1.
    fn left(self, at: UnixSeconds) -> u32 {
        let at = u64::try_from(at).unwrap_or(0);
        let left = match self {
            Self::Hour => 3_600 - at % 3_600,
            Self::Day => 86_400 - at % 86_400,
            Self::Month => {
                let (year, month, day) = civil(at / 86_400);
                (days_in(year, month) - day + 1) * 86_400 - at % 86_400
            }
        };
        u32::try_from(left).unwrap_or(u32::MAX)
    }
}

/// Year, month and day of a day number since 1970-01-01 (Howard Hinnant's `civil_from_days`, for days ≥ 0).
fn civil(day: u64) -> (u64, u64, u64) {
    let day = day + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

fn days_in(year: u64, month: u64) -> u64 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 => 28 + u64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}
