//! How fast and how much: the caps on what goes over the wire to the hubs and comes from there. Pure.
//!
//! The bandwidth is a bucket that may run into debt: what is read and written goes in pieces of a tenth of a second, and
//! after each piece the next one waits until the bucket is paid. Of a day at most so many bytes pass; the day is UTC's, and
//! by a clock that is lost it is 24 hours of boot time. What is under way then may end, by [`SLACK`] at most.
//!
//! ```text
//! file:  "tidegate-day 1 " ‖ day of the epoch, "-" by a lost clock ‖ " " ‖ bytes ‖ " " ‖ seconds that it has lasted ‖ "\n"
//! ```

use std::time::Duration;

use crate::units::UnixSeconds;

/// Bytes beyond the day's limit with which what is under way may end: the largest usage file, 2.1 MiB, and its receipt.
pub(super) const SLACK: u64 = 4 << 20;
/// The smallest piece, in bytes: below it a system call costs more than it carries.
const PIECE: u64 = 512;
/// Seconds of a day.
const DAY: i64 = 86_400;
const MAGIC: &str = "tidegate-day 1";

/// A moment as the meter needs it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    /// `None` while the wall clock is lost.
    pub(super) wall: Option<UnixSeconds>,
    /// CLOCK_BOOTTIME.
    pub(super) boot: Duration,
}

/// Bytes a second.
#[derive(Debug)]
pub(super) struct Bucket {
    rate: u64,
    /// When what has passed is paid.
    paid: Duration,
}

impl Bucket {
    /// `rate` in bytes a second; 0 is no cap.
    pub(super) fn new(rate: u64) -> Self {
        Self { rate, paid: Duration::ZERO }
    }

    /// Most bytes of the next piece; `Err` tells how long none may pass. `now` never goes back.
    pub(super) fn piece(&self, now: Duration) -> Result<usize, Duration> {
        match self.paid.checked_sub(now).filter(|debt| !debt.is_zero()) {
            _ if self.rate == 0 => Ok(usize::MAX),
            Some(debt) => Err(debt),
            None => Ok(usize::try_from((self.rate / 10).max(PIECE)).unwrap_or(usize::MAX)),
        }
    }

    /// So many bytes have passed.
    pub(super) fn charge(&mut self, now: Duration, bytes: usize) {
        if self.rate > 0 {
            let nanos = u128::from(bytes as u64) * 1_000_000_000 / u128::from(self.rate);
            let costs = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            self.paid = self.paid.max(now).saturating_add(costs);
        }
    }
}

/// The bytes of a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Day {
    /// Since the epoch; `None` while no clock has told which.
    day: Option<i64>,
    pub(super) bytes: u64,
    /// How long it had lasted when this boot began; negative where it began later, by so much.
    lasted: i64,
}

impl Day {
    /// A day of which nothing is known.
    pub(super) fn new(now: Now) -> Self {
        Self { day: now.day(), bytes: 0, lasted: now.seconds().saturating_neg() }
    }

    /// What is kept in a file; `None` where it is not whole. The time since it was written is not counted.
    pub(super) fn read(text: &str, now: Now) -> Option<Self> {
        let mut words = text.strip_prefix(MAGIC)?.strip_suffix('\n')?.strip_prefix(' ')?.split(' ');
        let day = match words.next()? {
            "-" => None,
            day => Some(day.parse().ok()?),
        };
        let bytes = words.next()?.parse().ok()?;
        let lasted = words.next()?.parse::<u32>().ok()?;
        let lasted = i64::from(lasted).saturating_sub(now.seconds());
        words.next().is_none().then_some(Self { day, bytes, lasted })
    }

    /// As [`Self::read`] takes it.
    pub(super) fn write(&self, now: Now) -> String {
        let day = self.day.map_or_else(|| "-".to_owned(), |day| day.to_string());
        format!("{MAGIC} {day} {} {}\n", self.bytes, self.age(now))
    }

    /// Seconds that it has lasted.
    fn age(&self, now: Now) -> i64 {
        self.lasted.saturating_add(now.seconds()).max(0)
    }

    /// Turns the page if the day is over: by the calendar, or after 24 hours, whichever a clock can tell. A clock that is
    /// set back begins no new day.
    pub(super) fn turn(&mut self, now: Now) {
        let is_later = now.day().zip(self.day).is_some_and(|(today, day)| today > day);
        if is_later || self.age(now) >= DAY {
            *self = Self::new(now);
        } else if self.day.is_none() {
            self.day = now.day();
        }
    }

    pub(super) fn charge(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    /// How long this day still is, at most.
    pub(super) fn rest(&self, now: Now) -> Duration {
        let by_boot = DAY - self.age(now);
        let by_wall = now.wall.filter(|_| now.day() == self.day).map(|wall| DAY - wall.rem_euclid(DAY));
        let rest = by_wall.map_or(by_boot, |rest| by_boot.min(rest));
        Duration::from_secs(u64::try_from(rest).unwrap_or(0))
    }
}

impl Now {
    fn day(&self) -> Option<i64> {
        self.wall.map(|wall| wall.div_euclid(DAY))
    }

    fn seconds(&self) -> i64 {
        i64::try_from(self.boot.as_secs()).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIDNIGHT: i64 = 1_772_496_000;

    fn at(wall: Option<i64>, boot_s: u64) -> Now {
        Now { wall, boot: Duration::from_secs(boot_s) }
    }

    #[test]
    fn a_bucket_lets_its_rate_pass_in_small_even_pieces_and_owes_nothing_after_a_rest() {
        for rate in [1 << 10, 256 << 10, 10 << 20] {
            let (mut bucket, mut now, mut passed) = (Bucket::new(rate), Duration::from_secs(5), 0_u64);
            while now < Duration::from_secs(15) {
                match bucket.piece(now) {
                    Ok(piece) => {
                        bucket.charge(now, piece);
                        passed += piece as u64;
                    }
                    Err(wait) => {
                        assert!(wait <= Duration::from_millis(500), "{wait:?}: it is smooth");
                        now += wait;
                    }
                }
            }
            let most = rate * 10 + (rate / 10).max(PIECE);
            assert!((rate * 10 - rate / 5..=most).contains(&passed), "{rate}: {passed}");
            // A long rest saves nothing up.
            let later = now + Duration::from_secs(3600);
            bucket.charge(later, usize::try_from(rate).expect("it fits"));
            assert_eq!(bucket.piece(later), Err(Duration::from_secs(1)));
        }
        let mut free = Bucket::new(0);
        free.charge(Duration::ZERO, usize::MAX);
        assert_eq!(free.piece(Duration::ZERO), Ok(usize::MAX));
    }

    #[test]
    fn a_day_ends_at_midnight_or_after_24_hours_and_a_clock_that_is_set_back_gives_no_other() {
        let mut day = Day::new(at(Some(MIDNIGHT + 100), 50));
        day.charge(1000);
        for still in [at(Some(MIDNIGHT + 86_399), 60), at(Some(MIDNIGHT - 400 * 86_400), 70), at(None, 80)] {
            day.turn(still);
            assert_eq!(day.bytes, 1000, "{still:?}");
        }
        assert_eq!(day.rest(at(Some(MIDNIGHT + 86_000), 90)), Duration::from_secs(400));
        day.turn(at(Some(MIDNIGHT + 86_400), 100));
        assert_eq!(day.bytes, 0, "midnight");
        day.charge(5);
        assert_eq!(day.rest(at(None, 100 + 86_399)), Duration::from_secs(1));
        day.turn(at(None, 100 + 86_400));
        assert_eq!(day.bytes, 0, "24 hours, whatever the clock says");
    }

    #[test]
    fn a_day_that_began_by_a_lost_clock_is_none_twice_when_the_clock_comes() {
        let mut day = Day::new(at(None, 10));
        day.charge(7);
        day.turn(at(Some(MIDNIGHT + 5), 20));
        assert_eq!(day.bytes, 7);
        day.turn(at(Some(MIDNIGHT + 86_400), 30));
        assert_eq!(day.bytes, 0);
    }

    #[test]
    fn a_day_goes_on_over_a_restart_and_over_another_boot_and_rubbish_is_as_nothing() {
        let mut day = Day::new(at(Some(MIDNIGHT + 100), 50));
        day.charge(1000);
        let text = day.write(at(None, 150));
        assert_eq!(Day::read(&text, at(Some(MIDNIGHT + 200), 150)), Some(day), "a restart");
        let mut after = Day::read(&text, at(None, 3)).expect("it is whole");
        assert_eq!(after.rest(at(None, 3)), Duration::from_secs(86_300), "another boot");
        after.turn(at(None, 86_302));
        assert_eq!(after.bytes, 1000);
        after.turn(at(None, 86_303));
        assert_eq!(after.bytes, 0);
        let lost = Day::new(at(None, 1));
        assert_eq!(Day::read(&lost.write(at(None, 2)), at(None, 2)), Some(lost));
        for rubbish in ["", "x", &text[..text.len() - 1], &text.replace("1000", "-1"), &format!("{text}\n")] {
            assert_eq!(Day::read(rubbish, at(None, 1)), None, "{rubbish}");
        }
    }
}
