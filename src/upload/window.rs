//! When the device may be on line: windows of the day, by UTC or by a fixed offset from it. Pure.
//!
//! ```text
//! WINDOW = HH:MM-HH:MM     the end is not part of it; one that ends before it begins goes on over midnight
//! OFFSET = +HH:MM | -HH:MM what is added to UTC; there is no summer time here
//! ```

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize, de::Error as _};

use crate::units::UnixSeconds;

/// Seconds of a day.
const DAY: i64 = 86_400;
/// The largest offset that a place on Earth has, in minutes.
const OFFSET_LIMIT: i64 = 14 * 60;

/// A part of every day, in minutes since midnight.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Window {
    from: i64,
    /// From 1 to 1440; before `from` it is tomorrow's.
    to: i64,
}

/// What is added to UTC, in minutes.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Offset(i64);

/// What is no window or offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadWindow {
    /// Write two times of a day that differ.
    #[error("not a window; write for example \"22:00-06:00\"")]
    Window,
    /// Write what the place is ahead of UTC (`+`) or behind it (`-`).
    #[error("not an offset; write for example \"+01:00\", at most 14 hours")]
    Offset,
}

/// How long `now` is outside of all `windows`; `None` within one of them, and where there are none.
pub(super) fn closed_for(windows: &[Window], offset: Offset, now: UnixSeconds) -> Option<Duration> {
    let of_day = now.saturating_add(offset.0 * 60).rem_euclid(DAY);
    let until = windows.iter().map(|window| window.opens_in(of_day)).min()?;
    u64::try_from(until).ok().filter(|until| *until > 0).map(Duration::from_secs)
}

impl Window {
    /// Seconds until it opens; 0 while it is open. `of_day` are the seconds since midnight.
    fn opens_in(self, of_day: i64) -> i64 {
        let (from, to) = (self.from * 60, self.to * 60);
        let length = (to - from).rem_euclid(DAY);
        // All of the day.
        let length = if length == 0 { DAY } else { length };
        let since = (of_day - from).rem_euclid(DAY);
        if since < length { 0 } else { DAY - since }
    }
}

/// `HH:MM` in minutes.
fn minutes(text: &str) -> Option<i64> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str, most: i64| {
        let is_plain = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<i64>().ok().filter(|number| is_plain && *number <= most)
    };
    Some(number(hours, 24)? * 60 + number(minutes, 59)?).filter(|minutes| *minutes <= 24 * 60)
}

impl FromStr for Window {
    type Err = BadWindow;

    fn from_str(text: &str) -> Result<Self, BadWindow> {
        let ends = text.split_once('-').and_then(|(from, to)| Some((minutes(from)?, minutes(to)?)));
        // 00:00-24:00 is all of a day; that 08:00-08:00 is meant so, or the opposite, nobody can tell.
        let (from, to) = ends.filter(|(from, to)| from != to && *from < 24 * 60).ok_or(BadWindow::Window)?;
        Ok(Self { from, to })
    }
}

impl FromStr for Offset {
    type Err = BadWindow;

    fn from_str(text: &str) -> Result<Self, BadWindow> {
        let (sign, rest) = match (text.strip_prefix('+'), text.strip_prefix('-')) {
            (Some(rest), _) => (1, rest),
            (_, Some(rest)) => (-1, rest),
            _ => return Err(BadWindow::Offset),
        };
        minutes(rest)
            .filter(|minutes| *minutes <= OFFSET_LIMIT)
            .map(|ahead| Self(sign * ahead))
            .ok_or(BadWindow::Offset)
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to } = self;
        write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, ahead) = (if self.0 < 0 { '-' } else { '+' }, self.0.abs());
        write!(f, "{sign}{:02}:{:02}", ahead / 60, ahead % 60)
    }
}

macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                std::borrow::Cow::<'de, str>::deserialize(from)?.parse().map_err(D::Error::custom)
            }
        }
    )*};
}

as_text!(Window, Offset);

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(windows: &[&str], offset: &str, now: UnixSeconds) -> Option<u64> {
        let windows: Vec<Window> = windows.iter().map(|text| text.parse().expect("a window")).collect();
        closed_for(&windows, offset.parse().expect("an offset"), now).map(|wait| wait.as_secs())
    }

    /// 3 March 2026, midnight UTC.
    const MIDNIGHT: i64 = 1_772_496_000;

    fn at(hour: i64, minute: i64) -> i64 {
        MIDNIGHT + hour * 3600 + minute * 60
    }

    #[test]
    fn a_window_opens_and_closes_to_the_second_also_over_midnight() {
        let night = ["22:00-06:00", "12:00-13:00"];
        for (now, expected) in [
            (at(21, 59) + 59, Some(1)),
            (at(22, 0), None),
            (at(23, 59) + 59, None),
            (at(0, 0), None),
            (at(5, 59) + 59, None),
            (at(6, 0), Some(6 * 3600)),
            (at(12, 0), None),
            (at(12, 59) + 59, None),
            (at(13, 0), Some(9 * 3600)),
            (at(20, 0) - 400 * DAY, Some(2 * 3600)),
            (at(20, 0) - 40_000 * DAY, Some(2 * 3600)), // before 1970
        ] {
            assert_eq!(closed(&night, "+00:00", now), expected, "{now}");
        }
        assert_eq!(closed(&[], "+00:00", at(3, 0)), None, "none is always");
        for hour in 0..24 {
            assert_eq!(closed(&["00:00-24:00"], "+00:00", at(hour, 0)), None);
        }
        assert_eq!(closed(&["00:00-00:01"], "+00:00", at(0, 1)), Some(DAY.unsigned_abs() - 60));
        for now in [i64::MIN, i64::MAX] {
            assert!(closed(&["00:00-12:00", "12:00-24:00"], "-14:00", now).is_none());
        }
    }

    #[test]
    fn an_offset_moves_the_day_and_not_its_length() {
        assert_eq!(closed(&["22:00-06:00"], "+01:00", at(21, 0)), None);
        assert_eq!(closed(&["22:00-06:00"], "+01:00", at(5, 0)), Some(16 * 3600));
        assert_eq!(closed(&["22:00-06:00"], "-05:30", at(3, 29)), Some(60));
        assert_eq!(closed(&["22:00-06:00"], "-05:30", at(3, 30)), None);
    }

    #[test]
    fn what_is_no_window_or_offset_is_refused_and_what_is_reads_back() {
        for wrong in [
            "",
            "22:00",
            "22-06",
            "8:00-9:00",
            "22:00-25:00",
            "22:60-23:00",
            "24:00-06:00",
            "08:00-08:00",
            "24:01-02:00",
            "+1:00-02:00",
        ] {
            assert_eq!(wrong.parse::<Window>(), Err(BadWindow::Window), "{wrong}");
        }
        for wrong in ["", "01:00", "+1", "+15:00", "+14:01", "Z", "--01:00"] {
            assert_eq!(wrong.parse::<Offset>(), Err(BadWindow::Offset), "{wrong}");
        }
        for right in ["22:00-06:00", "00:00-24:00"] {
            assert_eq!(right.parse::<Window>().map(|window| window.to_string()), Ok(right.into()));
        }
        for right in ["+00:00", "-05:30", "+14:00"] {
            assert_eq!(right.parse::<Offset>().map(|offset| offset.to_string()), Ok(right.into()));
        }
    }
}
