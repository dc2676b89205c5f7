//! The time floor: the least that the time can be, on a device whose wall clock proves nothing.
//!
//! The hard bound is raised by the build time, by signed documents and by CLOCK_BOOTTIME; never by
//! NTP, a battery clock or anything a peer says. A source that the operator trusts gives both bounds for
//! the moment, and is never written down.
//!
//! ```text
//! time.0 and time.1 (store/pair), body, big-endian:
//! off  size  field
//! 0    1     version = 1
//! 1    1     flags: 1 the floor was lost, and nothing signed has raised it since
//! 2    8     hard       milliseconds since 1970, signed, at the anchor
//! 10   16    boot id    of the anchor
//! 26   8     boot time  of the anchor, milliseconds
//! ```
//!
//! [`TimeFloor`] is the pure core; [`TimeFile`] keeps it on disk.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::pair::{Found, Pair};
use crate::clock::{BootId, Reading};
use crate::disk::Disk;
use crate::units::{TimeBounds, TimeQuality, UnixSeconds};

/// When this program was built, in seconds since 1970: no device that runs it is earlier. The packager
/// sets `TIDEGATE_BUILD_TIME` when compiling; without it, or where it is earlier, it is [`WRITTEN`].
pub const BUILD_TIME: UnixSeconds = match option_env!("TIDEGATE_BUILD_TIME") {
    Some(text) if parse(text) > WRITTEN => parse(text),
    Some(_) | None => WRITTEN,
};

/// 2026-11-25 00:00 UTC, the day on which this line was written; a build cannot be older than its source.
const WRITTEN: UnixSeconds = 1_795_564_800;

/// How far a trusted clock may stand behind the floor and still be believed, in seconds: clocks of
/// those who sign run ahead a little.
const BEHIND: UnixSeconds = 300;

/// A crystal may run fast by as much as one part in this: elapsed time counts less by it, so that the
/// floor stays a lower bound over months of uptime.
const DRIFT: u32 = 5_000;

const VERSION: u8 = 1;
const LOST: u8 = 1;

/// The floor at one anchor. A copy can be read by every worker without a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeFloor {
    hard_ms: i64,
    anchor: Duration,
    lost: bool,
}

impl TimeFloor {
    /// A floor of `hard` seconds at `reading`; `lost` where no record vouches for it.
    #[must_use]
    pub fn new(hard: UnixSeconds, reading: &Reading, lost: bool) -> Self {
        Self { hard_ms: hard.saturating_mul(1_000), anchor: reading.boot, lost }
    }

    /// What is known of the moment of `reading`. `trusted`: the operator trusts the wall clock, and it is set.
    #[must_use]
    pub fn bounds(&self, reading: &Reading, trusted: bool) -> TimeBounds {
        let lower = self.lower_ms(reading).div_euclid(1_000);
        let wall = reading.wall_ms.div_euclid(1_000);
        if trusted && wall >= lower.saturating_sub(BEHIND) {
            return TimeBounds { lower: wall.max(lower), upper: Some(wall.max(lower)), quality: TimeQuality::Synced };
        }
        let quality = if self.lost { TimeQuality::Lost } else { TimeQuality::Floor };
        TimeBounds { lower, upper: None, quality }
    }

    /// The floor after a signed document named the moment `at`; it never goes back.
    #[must_use]
    pub fn raised(&self, at: UnixSeconds, reading: &Reading) -> Self {
        let here = self.moved(reading);
        Self { hard_ms: here.hard_ms.max(at.saturating_mul(1_000)), lost: false, ..here }
    }

    /// The same floor, anchored at `reading`.
    #[must_use]
    pub fn moved(&self, reading: &Reading) -> Self {
        Self { hard_ms: self.lower_ms(reading), anchor: reading.boot.max(self.anchor), lost: self.lost }
    }

    fn lower_ms(&self, reading: &Reading) -> i64 {
        let elapsed = reading.boot.saturating_sub(self.anchor);
        let elapsed = elapsed.saturating_sub(elapsed / DRIFT);
        self.hard_ms.saturating_add(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
    }

    fn to_bytes(self, boot: BootId) -> Vec<u8> {
        let anchor = u64::try_from(self.anchor.as_millis()).unwrap_or(u64::MAX);
        let flags = if self.lost { LOST } else { 0 };
        [&[VERSION, flags][..], &self.hard_ms.to_be_bytes(), &boot.0, &anchor.to_be_bytes()].concat()
    }

    /// The floor of a record, as it stands in the boot `boot`: an anchor of another boot is before this
    /// one began, so all of this boot's time has passed since.
    fn from_bytes(bytes: &[u8], boot: BootId) -> Option<Self> {
        let ([VERSION, flags], rest) = bytes.split_first_chunk::<2>()? else { return None };
        let (hard, rest) = rest.split_first_chunk::<8>()?;
        let (id, rest) = rest.split_first_chunk::<16>()?;
        let anchor: &[u8; 8] = rest.try_into().ok()?;
        let same = BootId(*id) == boot;
        let anchor = if same { Duration::from_millis(u64::from_be_bytes(*anchor)) } else { Duration::ZERO };
        Some(Self { hard_ms: i64::from_be_bytes(*hard), anchor, lost: flags & LOST != 0 })
    }
}

/// What a lost floor is rebuilt from.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// When the program was built: [`BUILD_TIME`].
    pub build: UnixSeconds,
    /// The `issued_at` of the pinned root and, if there is one, of the active bundle: the later.
    pub signed: UnixSeconds,
    /// Whether the device has held a bundle before, so that an absent record is a lost one.
    pub used: bool,
}

/// The floor on disk. One for a device; shared by reference.
#[derive(Debug)]
pub struct TimeFile {
    boot: BootId,
    was_damaged: bool,
    inside: Mutex<Inside>,
}

#[derive(Debug)]
struct Inside {
    floor: TimeFloor,
    pair: Pair,
}

impl TimeFile {
    /// Opens the floor's two records in `folder`, and writes one. A write that fails (a full disk) is told
    /// beside the floor, which holds all the same: time must not depend on room.
    pub fn open(
        disk: Arc<dyn Disk>,
        folder: &Path,
        boot: BootId,
        reading: &Reading,
        known: Known,
    ) -> (Self, io::Result<()>) {
        let (pair, found) = Pair::open(disk, folder, "time");
        let signed = known.build.max(known.signed);
        let recorded = found.body().and_then(|bytes| TimeFloor::from_bytes(bytes, boot));
        let floor = match recorded {
            Some(floor) => {
                let here = floor.moved(reading);
                // A newer program or root can know better than the record; that alone heals no loss.
                TimeFloor { hard_ms: here.hard_ms.max(signed.saturating_mul(1_000)), ..here }
            }
            None => TimeFloor::new(signed, reading, found != Found::Fresh || known.used),
        };
        let was_damaged = matches!(found, Found::Survivor(_));
        let file = Self { boot, was_damaged, inside: Mutex::new(Inside { floor, pair }) };
        let written = file.persist(reading);
        (file, written)
    }

    /// Whether one of the two records was not whole when this was opened: the floor may then be the one before
    /// the last, lower by ten minutes or by a signed document that was refused.
    #[must_use]
    pub fn was_damaged(&self) -> bool {
        self.was_damaged
    }

    /// The floor as it is now.
    #[must_use]
    pub fn floor(&self) -> TimeFloor {
        self.inside().floor
    }

    /// Raises the floor to the moment that a signed document names, and writes it down if it rose.
    pub fn raise(&self, at: UnixSeconds, reading: &Reading) -> io::Result<()> {
        let mut inside = self.inside();
        let before = inside.floor.moved(reading);
        inside.floor = before.raised(at, reading);
        if inside.floor == before { Ok(()) } else { inside.persist(self.boot) }
    }

    /// Writes the floor as of `reading`: every ten minutes, and when the daemon ends.
    pub fn persist(&self, reading: &Reading) -> io::Result<()> {
        let mut inside = self.inside();
        inside.floor = inside.floor.moved(reading);
        inside.persist(self.boot)
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inside {
    fn persist(&mut self, boot: BootId) -> io::Result<()> {
        self.pair.write(&self.floor.to_bytes(boot))
    }
}

const fn parse(text: &str) -> UnixSeconds {
    match UnixSeconds::from_str_radix(text, 10) {
        Ok(at) => at,
        Err(_) => panic!("TIDEGATE_BUILD_TIME is not seconds since 1970"),
    }
}

#[cfg(test)]
mod tests;
