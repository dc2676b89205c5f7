//! Quantities with their unit in the type, and the bounds that the device can put on "now".

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize, de::Error as _};

/// Seconds since the Unix epoch; may be negative. Arithmetic on it saturates.
pub type UnixSeconds = i64;

/// How much the wall clock is to be trusted: see [`TimeBounds`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeQuality {
    /// A source that the operator trusts gives both bounds.
    Synced,
    /// Only a lower bound is known: the authenticated floor plus what has elapsed since.
    Floor,
    /// Both time records were lost; the floor is the build time or the active bundle's `issued_at`.
    Lost,
}

impl TimeQuality {
    /// The word used in logs, metrics and usage records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Synced => "synced",
            Self::Floor => "floor",
            Self::Lost => "lost",
        }
    }
}

/// What is known of the present moment. `lower ≤ now ≤ upper`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeBounds {
    /// The least that the time can be.
    pub lower: UnixSeconds,
    /// The most that it can be; `None` where no trusted source says so.
    pub upper: Option<UnixSeconds>,
    /// Where the bounds come from.
    pub quality: TimeQuality,
}

impl TimeBounds {
    /// Both bounds at `now`, as a trusted source gives them.
    #[must_use]
    pub const fn exact(now: UnixSeconds) -> Self {
        Self { lower: now, upper: Some(now), quality: TimeQuality::Synced }
    }

    /// Only a lower bound.
    #[must_use]
    pub const fn floor(lower: UnixSeconds) -> Self {
        Self { lower, upper: None, quality: TimeQuality::Floor }
    }

    /// How old, at least, what is true as of `at` is, in seconds. What is taken raises the lower bound to its own moment, so
    /// a later moment is one that a time reset took back: it proves nothing, and is [`u64::MAX`] old.
    #[must_use]
    pub const fn least_age(&self, at: UnixSeconds) -> u64 {
        if at > self.lower { u64::MAX } else { self.lower.abs_diff(at) }
    }
}

/// A length of time in settings: `"250ms"`, `"5s"`, `"10m"`, `"2h"`, `"30d"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl Span {
    /// Whole milliseconds.
    #[must_use]
    pub const fn millis(ms: u64) -> Self {
        Self(Duration::from_millis(ms))
    }

    /// Whole hours.
    #[must_use]
    pub const fn hours(h: u64) -> Self {
        Self(Duration::from_secs(h * 3_600))
    }

    /// Whole seconds.
    #[must_use]
    pub const fn secs(s: u64) -> Self {
        Self(Duration::from_secs(s))
    }
}

/// A number of bytes in settings: `"512"`, `"64KiB"`, `"10MiB"`, `"2GiB"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// A quantity that could not be read; says what would be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {kind}; write for example {example:?}")]
pub struct BadQuantity {
    text: String,
    kind: &'static str,
    example: &'static str,
}

const SPANS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZES: [(&str, u64); 4] = [("", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

fn quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// The shortest exact form: the largest unit that divides `amount`.
fn shown(amount: u64, units: &[(&str, u64)]) -> String {
    let fits = units.iter().rev().find(|(_, factor)| amount.is_multiple_of(*factor) && amount >= *factor);
    let (name, factor) = fits.or(units.first()).expect("the unit tables are not empty");
    format!("{}{name}", amount / factor)
}

impl FromStr for Span {
    type Err = BadQuantity;

    fn from_str(text: &str) -> Result<Self, BadQuantity> {
        let ms = quantity(text, &SPANS);
        ms.map(Self::millis).ok_or_else(|| BadQuantity { text: text.into(), kind: "length of time", example: "5s" })
    }
}

impl FromStr for Bytes {
    type Err = BadQuantity;

    fn from_str(text: &str) -> Result<Self, BadQuantity> {
        let bytes = quantity(text, &SIZES);
        bytes.map(Self).ok_or_else(|| BadQuantity { text: text.into(), kind: "number of bytes", example: "64KiB" })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX), &SPANS))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(self.0, &SIZES))
    }
}

/// A setting that can be read but not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// Its key within its section, as `limits.connections`.
    pub key: &'static str,
    /// What is wrong with its value, and why.
    pub message: String,
}

/// What to say of the setting `key` unless its `value` lies within `bounds`; `why` says what the bounds keep off.
#[must_use]
pub fn within<T: PartialOrd + fmt::Display>(
    key: &'static str,
    value: T,
    bounds: RangeInclusive<T>,
    why: &str,
) -> Option<Unfit> {
    let (low, high) = (bounds.start(), bounds.end());
    let message = || format!("{value} is not within {low} to {high}: {why}");
    (!bounds.contains(&value)).then(|| Unfit { key, message: message() })
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

as_text!(Span, Bytes);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantity_reads_back_as_it_was_shown() {
        for text in ["250ms", "5s", "10m", "2h", "30d"] {
            assert_eq!(text.parse::<Span>().map(|s| s.to_string()), Ok(text.into()));
        }
        for text in ["512", "64KiB", "10MiB", "2GiB"] {
            assert_eq!(text.parse::<Bytes>().map(|b| b.to_string()), Ok(text.into()));
        }
    }

    #[test]
    fn a_wrong_quantity_is_refused_with_an_example() {
        for text in ["", "5", "s", "5 parsecs", "-5s", "99999999999999999999s", "18446744073709551615d"] {
            assert!(text.parse::<Span>().is_err_and(|e| e.to_string().contains("5s")), "{text}");
        }
        for text in ["", "KiB", "5kb", "18446744073709551615GiB"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }
}
