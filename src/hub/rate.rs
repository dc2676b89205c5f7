//! How much one device may bring in a minute: files and bytes. Pure.
//!
//! A virtual schedule for each (GCRA): the moment at which all that it brought would have come at the even rate. Who is
//! up to a minute ahead of it may go on. What is behind the present is forgotten, so the table holds only devices that
//! brought something lately, and no more than [`MOST`] of them: only those whose signature was checked are counted.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::ids::DeviceId;

/// Most devices that are counted at a time; one more is not held back.
const MOST: usize = 65_536;
const MINUTE: Duration = Duration::from_secs(60);
/// A full table is looked through no more often than this.
const SWEEP: Duration = Duration::from_secs(1);

/// What each device has brought.
#[derive(Debug)]
pub(super) struct Rates {
    files: Duration,
    bytes: f64,
    ahead: HashMap<DeviceId, [Instant; 2]>,
    /// When it was last looked through for those within their rate.
    swept: Option<Instant>,
}

impl Rates {
    /// So many files and bytes a minute; 0 is no limit.
    pub(super) fn new(files: u32, bytes: u64) -> Self {
        let files = MINUTE.checked_div(files).unwrap_or_default();
        let bytes = if bytes == 0 { 0.0 } else { MINUTE.as_secs_f64() / bytes as f64 };
        Self { files, bytes, ahead: HashMap::new(), swept: None }
    }

    /// Counts a file of `length` bytes; or in how many seconds it may come.
    pub(super) fn take(&mut self, device: DeviceId, length: usize, now: Instant) -> Result<(), u64> {
        if self.ahead.len() >= MOST && !self.ahead.contains_key(&device) {
            if self.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP) {
                self.ahead.retain(|_, at| at.iter().any(|at| *at > now));
                self.swept = Some(now);
            }
            if self.ahead.len() >= MOST {
                return Ok(());
            }
        }
        let costs = [self.files, Duration::from_secs_f64(self.bytes * length as f64).min(MINUTE)];
        let at = self.ahead.entry(device).or_insert([now; 2]);
        let then = [0, 1].map(|which: usize| at[which].max(now) + costs[which]);
        let over = then.into_iter().map(|then| then.saturating_duration_since(now + MINUTE)).max().unwrap_or_default();
        if !over.is_zero() {
            return Err(over.as_secs() + 1);
        }
        *at = then;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: DeviceId = DeviceId([1; 16]);

    #[test]
    fn a_minute_holds_so_many_files_and_bytes_and_another_device_has_its_own() {
        let begun = Instant::now();
        let mut rates = Rates::new(60, 0);
        assert!((0..60).all(|_| rates.take(ONE, 1 << 30, begun).is_ok()));
        assert_eq!(rates.take(ONE, 0, begun), Err(2));
        assert_eq!(rates.take(DeviceId([2; 16]), 0, begun), Ok(()));
        assert_eq!(rates.take(ONE, 0, begun + Duration::from_secs(1)), Ok(()), "one a second");
        assert!(rates.take(ONE, 0, begun + Duration::from_secs(1)).is_err());
        let mut rates = Rates::new(0, 600);
        assert_eq!(rates.take(ONE, 600, begun), Ok(()));
        assert_eq!(rates.take(ONE, 100, begun), Err(11));
        assert_eq!(rates.take(ONE, 100, begun + Duration::from_secs(10)), Ok(()));
        assert_eq!(rates.take(DeviceId([2; 16]), usize::MAX, begun), Ok(()), "a file that is more than a minute's");
    }

    #[test]
    fn the_table_forgets_who_is_within_the_rate_and_has_an_end() {
        let begun = Instant::now();
        let mut rates = Rates::new(1, 0);
        let id = |number: u32| DeviceId(std::array::from_fn(|at| number.to_be_bytes()[at % 4]));
        for number in 0..100_000 {
            assert_eq!(rates.take(id(number), 1, begun), Ok(()));
        }
        assert_eq!(rates.ahead.len(), MOST);
        assert!(rates.take(id(0), 1, begun).is_err(), "who is in it is limited");
        assert_eq!(rates.take(id(200_000), 1, begun + Duration::from_secs(61)), Ok(()));
        assert_eq!(rates.ahead.len(), 1);
    }
}
