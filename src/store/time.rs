//! The time floor: the least that the time can be, on a device whose wall clock proves nothing.
//!
//! The hard bound is raised by the build time, by documents that a threshold signed, by CLOCK_BOOTTIME, and by the
//! hub's signed word up to [`HUB_LIMIT`]; never by NTP, a battery clock or anything else that a peer says. A source
//! that the operator trusts gives both bounds for the moment, and is never written down. Only a reset that the root
//! signed lowers it.
//!
//! ```text
//! time.0 and time.1 (store/pair), body, big-endian:
//! off  size  field
//! 0    1     version = 2
//! 1    1     flags: 1 the floor was lost, and nothing signed has raised it since
//! 2    8     hard       milliseconds since 1970, signed, at the anchor
//! 10   16    boot id    of the anchor
//! 26   8     boot time  of the anchor, milliseconds
//! 34   8     epoch      of the root in which the next two are counted
//! 42   8     by hub     milliseconds by which the hub's word has raised hard
//! 50   8     reset      sequence number of the last reset; 0 = none
//! 58   8     disowned   the bound that the last reset took back, milliseconds since 1970, signed; least = none
//! ```
//!
//! Version 1 ends at 34; it is read, and written as version 2 by the next write.
//! [`TimeFloor`] and [`Account`] are the pure core; [`TimeFile`] keeps them on disk.

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

/// The most by which the hub's word raises the bound in one epoch of the root, in seconds: 400 days. The hub's key lies on
/// a machine with a network, and a hub whose clock is wrong, or whose key is stolen, must not close every device for good.
pub const HUB_LIMIT: UnixSeconds = 400 * 86_400;

/// The end of the year 9999: no document and no token names a later moment, and canonical JSON has no room for the latest that
/// a clock could say.
const LATEST: UnixSeconds = 253_402_300_799;

const VERSION: u8 = 2;
const WITHOUT_ACCOUNT: u8 = 1;
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
        let wall = reading.wall_ms.div_euclid(1_000).min(LATEST);
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
}

/// What else may raise the floor, and what a reset took back. Counts in one epoch of the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Account {
    epoch: u64,
    by_hub_ms: i64,
    reset: u64,
    disowned_ms: i64,
}

impl Account {
    const NEW: Self = Self { epoch: 0, by_hub_ms: 0, reset: 0, disowned_ms: i64::MIN };

    /// The account under a root of `epoch`; a later one begins a new account. What was disowned stays so.
    fn under(self, epoch: u64) -> Self {
        if epoch > self.epoch { Self { epoch, disowned_ms: self.disowned_ms, ..Self::NEW } } else { self }
    }

    /// Whether a signed moment counts. After a reset the documents that carried the floor too far are still about, and
    /// whoever has one could undo the reset by bringing it again. So until the floor has come by itself to where it was
    /// before the reset, a moment that is not beyond that counts only if it is near.
    fn believes(&self, at_ms: i64, lower_ms: i64) -> bool {
        at_ms > self.disowned_ms || at_ms <= lower_ms.saturating_add(HUB_LIMIT.saturating_mul(1_000))
    }
}

/// What became of the hub's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByHub {
    /// By how much it raised the floor, in milliseconds.
    pub raised_ms: i64,
    /// How much more it would have, were it not for [`HUB_LIMIT`].
    pub refused_ms: i64,
}

/// The root's word on the floor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reset {
    /// What it is set to.
    pub at: UnixSeconds,
    /// The least floor that is taken back.
    pub undoes: UnixSeconds,
    /// Its place in the order.
    pub seq: u64,
}

/// A reset that was not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetRefused {
    /// Its number is not above that of the last one, which this is.
    Used(u64),
    /// The floor is this, and earlier than what it takes back.
    NotReached(UnixSeconds),
}

fn to_bytes(floor: TimeFloor, account: Account, boot: BootId) -> Vec<u8> {
    let anchor = u64::try_from(floor.anchor.as_millis()).unwrap_or(u64::MAX);
    let flags = if floor.lost { LOST } else { 0 };
    [
        &[VERSION, flags][..],
        &floor.hard_ms.to_be_bytes(),
        &boot.0,
        &anchor.to_be_bytes(),
        &account.epoch.to_be_bytes(),
        &account.by_hub_ms.to_be_bytes(),
        &account.reset.to_be_bytes(),
        &account.disowned_ms.to_be_bytes(),
    ]
    .concat()
}

/// What a record says, as it stands in the boot `boot`: an anchor of another boot is before this
/// one began, so all of this boot's time has passed since.
fn from_bytes(bytes: &[u8], boot: BootId) -> Option<(TimeFloor, Account)> {
    let ([version, flags], mut rest) = bytes.split_first_chunk::<2>().map(|(head, rest)| (*head, rest))?;
    let hard_ms = i64::from_be_bytes(take(&mut rest)?);
    let same = BootId(take(&mut rest)?) == boot;
    let anchor = Duration::from_millis(u64::from_be_bytes(take(&mut rest)?));
    let floor = TimeFloor { hard_ms, anchor: if same { anchor } else { Duration::ZERO }, lost: flags & LOST != 0 };
    let account = match version {
        WITHOUT_ACCOUNT => Account::NEW,
        VERSION => Account {
            epoch: u64::from_be_bytes(take(&mut rest)?),
            by_hub_ms: i64::from_be_bytes(take(&mut rest)?),
            reset: u64::from_be_bytes(take(&mut rest)?),
            disowned_ms: i64::from_be_bytes(take(&mut rest)?),
        },
        _ => return None,
    };
    rest.is_empty().then_some((floor, account))
}

fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = from.split_first_chunk::<N>()?;
    *from = rest;
    Some(*taken)
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
    /// The epoch of the root.
    pub epoch: u64,
}

/// The floor on disk. One for a device; shared by reference.
#[derive(Debug)]
pub struct TimeFile {
    boot: BootId,
    build: UnixSeconds,
    was_damaged: bool,
    /// What [`Self::floor`] shows. A lock of its own, held for a copy: nobody who reads waits for the disk.
    shown: Mutex<TimeFloor>,
    inside: Mutex<Inside>,
}

#[derive(Debug)]
struct Inside {
    floor: TimeFloor,
    account: Account,
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
        let recorded = found.body().and_then(|bytes| from_bytes(bytes, boot));
        let (floor, account) = match recorded {
            Some((floor, account)) => {
                let here = floor.moved(reading);
                // A newer program or root can know better than the record; that alone heals no loss.
                let signed_ms =
                    Some(known.signed.saturating_mul(1_000)).filter(|at| account.believes(*at, here.hard_ms));
                let hard_ms = here.hard_ms.max(known.build.saturating_mul(1_000)).max(signed_ms.unwrap_or(i64::MIN));
                (TimeFloor { hard_ms, ..here }, account)
            }
            None => {
                let lost = found != Found::Fresh || known.used;
                (TimeFloor::new(known.build.max(known.signed), reading, lost), Account::NEW)
            }
        };
        let account = account.under(known.epoch);
        let was_damaged = matches!(found, Found::Survivor(_));
        let (shown, inside) = (Mutex::new(floor), Mutex::new(Inside { floor, account, pair }));
        let file = Self { boot, build: known.build, was_damaged, shown, inside };
        let written = file.persist(reading);
        (file, written)
    }

    /// Whether one of the two records was not whole when this was opened: the floor may then be the one before
    /// the last, lower by an interval or by a signed document that was refused.
    #[must_use]
    pub fn was_damaged(&self) -> bool {
        self.was_damaged
    }

    /// The floor as it is now.
    #[must_use]
    pub fn floor(&self) -> TimeFloor {
        *self.shown()
    }

    /// Raises the floor to the moment that a document names which a threshold signed, and writes it down if it rose.
    pub fn raise(&self, at: UnixSeconds, reading: &Reading) -> io::Result<()> {
        let mut inside = self.inside();
        let before = inside.floor.moved(reading);
        if inside.account.believes(at.saturating_mul(1_000), before.hard_ms) {
            inside.floor = before.raised(at, reading);
        }
        if inside.floor == before { Ok(()) } else { self.show_and_write(&mut inside) }
    }

    /// Raises the floor to the moment that the hub signed, as far as [`HUB_LIMIT`] lets it in this epoch, and writes it
    /// down if it rose. An error means only that it is not written down.
    pub fn raise_by_hub(&self, at: UnixSeconds, reading: &Reading) -> (ByHub, io::Result<()>) {
        let mut inside = self.inside();
        let here = inside.floor.moved(reading);
        let wanted = at.saturating_mul(1_000).saturating_sub(here.hard_ms);
        let left = HUB_LIMIT.saturating_mul(1_000).saturating_sub(inside.account.by_hub_ms).max(0);
        let raised_ms = wanted.clamp(0, left);
        let outcome = ByHub { raised_ms, refused_ms: wanted.max(0).saturating_sub(raised_ms) };
        if raised_ms == 0 {
            return (outcome, Ok(()));
        }
        inside.account.by_hub_ms = inside.account.by_hub_ms.saturating_add(raised_ms);
        inside.floor = TimeFloor { hard_ms: here.hard_ms.saturating_add(raised_ms), lost: false, ..here };
        (outcome, self.show_and_write(&mut inside))
    }

    /// Sets the floor to the moment that a reset of the root's names, where it stands as far ahead as the reset says; never
    /// below the build time. The hub's allowance begins anew: what it gave is taken back with the rest. On an error of the
    /// disk the floor is as it was, for a reset that a restart forgets must not be told as done.
    pub fn reset(&self, reset: Reset, reading: &Reading) -> Result<io::Result<()>, ResetRefused> {
        let mut inside = self.inside();
        let Reset { at, undoes, seq } = reset;
        if seq <= inside.account.reset {
            return Err(ResetRefused::Used(inside.account.reset));
        }
        let (before, account) = (inside.floor.moved(reading), inside.account);
        if before.hard_ms < undoes.saturating_mul(1_000) {
            return Err(ResetRefused::NotReached(before.hard_ms.div_euclid(1_000)));
        }
        let floor = TimeFloor { anchor: before.anchor, ..TimeFloor::new(at.max(self.build), reading, false) };
        let taken_back = if before.hard_ms > floor.hard_ms { before.hard_ms } else { i64::MIN };
        let disowned_ms = account.disowned_ms.max(taken_back);
        (inside.floor, inside.account) = (floor, Account { by_hub_ms: 0, reset: seq, disowned_ms, ..account });
        let written = inside.write(self.boot);
        if written.is_err() {
            (inside.floor, inside.account) = (before, account);
        }
        *self.shown() = inside.floor;
        Ok(written)
    }

    /// The device trusts a root of `epoch` from here on; written down with the next write.
    pub fn under(&self, epoch: u64) {
        let mut inside = self.inside();
        inside.account = inside.account.under(epoch);
    }

    /// Writes the floor as of `reading`: at intervals, and when the daemon ends.
    pub fn persist(&self, reading: &Reading) -> io::Result<()> {
        let mut inside = self.inside();
        inside.floor = inside.floor.moved(reading);
        self.show_and_write(&mut inside)
    }

    /// What is known holds whether it can be written or not.
    fn show_and_write(&self, inside: &mut Inside) -> io::Result<()> {
        *self.shown() = inside.floor;
        inside.write(self.boot)
    }

    fn shown(&self) -> MutexGuard<'_, TimeFloor> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inside {
    fn write(&mut self, boot: BootId) -> io::Result<()> {
        self.pair.write(&to_bytes(self.floor, self.account, boot))
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
