//! Days that a report is of. A day is one of UTC, from midnight to midnight.

use std::str::FromStr;

use time::Date;
use time::macros::{date, format_description};

use crate::ids::DeviceId;

const DAY_MS: i64 = 86_400_000;

/// From the first day to the last, both of them too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Period {
    /// The first day; none: from the beginning.
    pub from: Option<Day>,
    /// The last day; none: to the end.
    pub to: Option<Day>,
}

/// A day of UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(Date);

impl FromStr for Day {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let day = Date::parse(text, format_description!("[year]-[month]-[day]")).ok();
        let is_four = |day: &Date| (1000..=9999).contains(&day.year());
        day.filter(is_four).map(Self).ok_or_else(|| "not a day, as 2026-01-31".to_owned())
    }
}

impl Day {
    fn start_ms(self) -> i64 {
        let days = self.0.to_julian_day() - date!(1970 - 01 - 01).to_julian_day();
        i64::from(days) * DAY_MS
    }

    fn end_ms(self) -> i64 {
        self.start_ms() + DAY_MS
    }
}

impl Period {
    /// A condition on a column that is a day.
    pub(super) fn of_day(self, column: &str) -> Vec<String> {
        let from = self.from.map(|Day(day)| format!("{column} >= '{day}'"));
        let to = self.to.map(|Day(day)| format!("{column} <= '{day}'"));
        from.into_iter().chain(to).collect()
    }

    /// A condition on the two ends of an interval, in milliseconds: it touches the period.
    pub(in crate::hub) fn of_interval(self, first: &str, last: &str) -> Vec<String> {
        let from = self.from.map(|day| format!("{last} >= {}", day.start_ms()));
        let to = self.to.map(|day| format!("{first} < {}", day.end_ms()));
        from.into_iter().chain(to).collect()
    }
}

/// A WHERE of all conditions and, where one is asked for, the device.
pub(in crate::hub) fn condition(mut conditions: Vec<String>, device: Option<DeviceId>) -> String {
    conditions.extend(device.map(|device| format!("device = '{device}'")));
    if conditions.is_empty() { String::new() } else { format!("WHERE {}", conditions.join(" AND ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_has_both_its_days_to_their_ends() {
        let day = |text: &str| text.parse::<Day>().ok();
        let period = Period { from: day("1970-01-02"), to: day("1970-01-03") };
        assert_eq!(period.of_day("day"), ["day >= '1970-01-02'", "day <= '1970-01-03'"]);
        assert_eq!(period.of_interval("a", "b"), ["b >= 86400000", "a < 259200000"]);
        assert_eq!(condition(Period::default().of_day("day"), None), "");
        for wrong in ["", "1970-1-2", "1970-02-30", "0012-01-01", "1970-01-02'", "+12970-01-01"] {
            assert_eq!(day(wrong), None, "{wrong}");
        }
    }
}
