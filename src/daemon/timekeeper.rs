//! What the time is worth, refreshed each second for the gateway and written down every ten minutes; every hour while
//! nobody asks.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tracing::{debug, info, warn};

use crate::bundle::Moment;
use crate::clock::Reading;
use crate::config::{Time, TimeSource};
use crate::gateway::TimeState;
use crate::store::time::{ByHub, TimeFile};
use crate::units::{TimeBounds, TimeQuality, UnixSeconds};
use crate::upload;

/// How often the gateway's view is refreshed.
pub(super) const REFRESH: Duration = Duration::from_secs(1);
/// How often the floor is written down while requests come.
const PERSIST: Duration = Duration::from_secs(600);
/// How often it is while none comes. Each time is 20 KiB of flash, be it as little as it may: the file system's journal.
const PERSIST_AT_REST: Duration = Duration::from_secs(3_600);
/// What the hub's time must raise the floor by to be told, in seconds: less is drift.
const TOLD: i64 = 60;
/// How far a clock that nobody vouches for may be behind the floor and still be taken for right, in seconds: two clocks
/// drift.
const BEHIND: i64 = 300;
/// What systemd-timesyncd makes once the clock is synchronised in this boot.
const SYNCHRONISED: &str = "/run/systemd/timesync/synchronized";

/// The daemon's view of the time.
#[derive(Debug)]
pub(super) struct Timekeeper {
    file: Arc<TimeFile>,
    sources: Vec<TimeSource>,
    state: Arc<ArcSwap<TimeState>>,
    persisted: Instant,
    /// How many requests had been judged then.
    judged: u64,
    told: Option<TimeQuality>,
}

impl Timekeeper {
    pub(super) fn new(file: Arc<TimeFile>, config: &Time) -> Self {
        let state = Arc::new(ArcSwap::from_pointee(TimeState::floor(0)));
        let (sources, persisted) = (config.trust.clone(), Instant::now());
        let mut keeper = Self { file, sources, state, persisted, judged: 0, told: None };
        keeper.show(&moment(&keeper.sources));
        keeper
    }

    /// What the gateway reads.
    pub(super) fn state(&self) -> Arc<ArcSwap<TimeState>> {
        Arc::clone(&self.state)
    }

    /// Call it every [`REFRESH`], on a runtime, with the number of requests that were judged since the start. Waits for
    /// nothing.
    pub(super) fn refresh(&mut self, judged: u64) {
        let now = moment(&self.sources);
        self.show(&now);
        if self.is_due(Instant::now(), judged) {
            (self.persisted, self.judged) = (Instant::now(), judged);
            let file = Arc::clone(&self.file);
            // On a thread of its own, and not awaited: a slow card must not hold up the watchdog.
            drop(tokio::task::spawn_blocking(move || {
                if let Err(error) = file.persist(&Reading::now()) {
                    warn!(%error, "the time floor could not be written; a power cut now forgets what has passed since it last was");
                }
            }));
        }
    }

    /// By the floor requests are judged: where none was, less is at stake.
    fn is_due(&self, now: Instant, judged: u64) -> bool {
        let interval = if judged == self.judged { PERSIST_AT_REST } else { PERSIST };
        now.saturating_duration_since(self.persisted) >= interval
    }

    /// Writes the floor down for the last time.
    pub(super) fn close(&self) -> io::Result<()> {
        self.file.persist(&Reading::now())
    }

    fn show(&mut self, now: &Moment) {
        let bounds = self.file.floor().bounds(&now.reading, now.trusted);
        let TimeBounds { lower, quality, .. } = bounds;
        if self.told.replace(quality) != Some(quality) {
            let (wall_s, name) = (now.reading.wall_ms.div_euclid(1_000), quality.name());
            match quality {
                TimeQuality::Synced => info!(quality = name, lower, wall_s, "the wall clock is trusted"),
                TimeQuality::Floor => info!(quality = name, lower, wall_s, "the time is known by its floor only"),
                TimeQuality::Lost => warn!(
                    quality = name,
                    lower,
                    wall_s,
                    "the time floor was lost: it is that of the program and of what serves until something signed comes"
                ),
            }
        }
        self.state.store(Arc::new(state(bounds, now)));
    }
}

/// Shows the gateway at once what an import made of the floor, so that what comes into force is not judged by a time that was
/// known before it.
pub(super) fn catch_up(shown: &ArcSwap<TimeState>, file: &TimeFile, now: &Moment) {
    shown.store(Arc::new(state(file.floor().bounds(&now.reading, now.trusted), now)));
}

/// Records carry the wall clock where it is trusted, else the later of it and the floor: a clock that is behind what is known
/// is wrong, one that is ahead may be right.
fn state(bounds: TimeBounds, now: &Moment) -> TimeState {
    let wall_ms = now.reading.wall_ms;
    let wall_ms = if bounds.upper.is_some() { wall_ms } else { wall_ms.max(bounds.lower.saturating_mul(1_000)) };
    TimeState { at: Instant::now(), bounds, wall_ms }
}

/// Raises the floor to what the hub signed, as far as it may. On a thread of its own: it is written down.
pub(super) async fn hear_hub(file: &Arc<TimeFile>, at: Option<UnixSeconds>) {
    let Some(at) = at else { return };
    let file = Arc::clone(file);
    let heard = tokio::task::spawn_blocking(move || file.raise_by_hub(at, &Reading::now())).await;
    let Ok((ByHub { raised_ms, refused_ms }, written)) = heard else { return };
    let (raised_s, refused_s) = (raised_ms / 1_000, refused_ms / 1_000);
    if refused_s > 0 {
        warn!(
            at,
            raised_s,
            refused_s,
            "the hub's time may raise the floor by no more in this epoch of the root; a new bundle or a time reset does"
        );
    } else if raised_s >= TOLD {
        info!(at, raised_s, "the hub's time raises the floor");
    } else {
        debug!(at, raised_s, "the hub's time");
    }
    if let Err(error) = written {
        warn!(%error, "the hub's time could not be written down; a power cut now forgets it");
    }
}

/// The clocks now, and whether one of `sources` vouches for the wall clock.
pub(super) fn moment(sources: &[TimeSource]) -> Moment {
    let trusted = sources.iter().any(|source| match source {
        TimeSource::Rtc => true,
        TimeSource::Ntp => std::path::Path::new(SYNCHRONISED).exists(),
    });
    Moment { reading: Reading::now(), trusted }
}

/// The wall clock as far as it is worth something: where it is trusted, and where nothing speaks against it.
pub(super) fn clock(state: Arc<ArcSwap<TimeState>>) -> upload::Clock {
    Box::new(move || plausible(&state.load().bounds, Reading::now().wall_ms.div_euclid(1_000)))
}

fn plausible(bounds: &TimeBounds, wall: UnixSeconds) -> Option<UnixSeconds> {
    (bounds.upper.is_some() || wall >= bounds.lower.saturating_sub(BEHIND)).then_some(wall)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::clock::BootId;
    use crate::disk::Machine;
    use crate::disk::stuck::{goes_on, stands_still};
    use crate::store::time::{BUILD_TIME, Known};

    const CLOCKS: [i64; 9] = [0, 59, -1, 1 << 31, 1 << 32, 4_291_747_200, 253_402_300_799, i64::MIN, i64::MAX];

    fn reading(wall: i64) -> Reading {
        Reading { wall_ms: wall.saturating_mul(1_000), boot: Duration::from_secs(10) }
    }

    fn keeper(folder: &Path) -> Timekeeper {
        let known = Known { build: BUILD_TIME, signed: 0, used: false, epoch: 1 };
        let (file, written) = TimeFile::open(Arc::new(Machine), folder, BootId([1; 16]), &reading(0), known);
        written.expect("it is written");
        Timekeeper::new(Arc::new(file), &Time { trust: Vec::new() })
    }

    #[test]
    fn whatever_the_wall_clock_says_the_bounds_hold_and_records_are_never_before_the_floor() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut keeper = keeper(folder.path());
        // Each clock after each other one: it jumps back and forth, trusted and not.
        for (first, second) in CLOCKS.iter().flat_map(|a| CLOCKS.map(|b| (*a, b))) {
            for (wall, trusted) in [(first, true), (second, false), (second, true)] {
                keeper.show(&Moment { reading: reading(wall), trusted });
                let TimeState { bounds, wall_ms, .. } = **keeper.state().load();
                assert!(bounds.lower >= BUILD_TIME && wall_ms >= BUILD_TIME * 1_000, "{wall} {bounds:?} {wall_ms}");
                let believed = trusted && wall >= BUILD_TIME - 300;
                assert_eq!(bounds.upper.is_some(), believed, "{wall} {bounds:?}");
                assert_eq!(bounds.quality, if believed { TimeQuality::Synced } else { TimeQuality::Floor });
            }
        }
        keeper.show(&Moment { reading: reading(0), trusted: false });
        assert_eq!(keeper.state().load().bounds, TimeBounds::floor(BUILD_TIME), "no clock that was trusted stays");
    }

    #[test]
    fn a_clock_that_is_behind_what_is_known_is_lost_unless_it_is_trusted() {
        let floor = TimeBounds::floor(1_000_000);
        assert_eq!(plausible(&floor, 999_700), Some(999_700));
        assert_eq!(plausible(&floor, 999_699), None);
        assert_eq!(plausible(&floor, i64::MAX), Some(i64::MAX));
        assert_eq!(plausible(&TimeBounds::floor(i64::MIN), i64::MIN), Some(i64::MIN));
        assert_eq!(plausible(&TimeBounds::exact(5), 4), Some(4));
    }

    #[tokio::test]
    async fn the_hubs_word_is_heard_and_nothing_else_moves_the_floor() {
        let folder = tempfile::tempdir().expect("a folder");
        let keeper = keeper(folder.path());
        for at in CLOCKS.into_iter().filter(|at| *at < BUILD_TIME) {
            hear_hub(&keeper.file, Some(at)).await;
        }
        hear_hub(&keeper.file, None).await;
        let lower = || keeper.file.floor().bounds(&reading(0), false).lower;
        assert_eq!(lower(), BUILD_TIME);
        hear_hub(&keeper.file, Some(BUILD_TIME + 1_000_000)).await;
        // The floor counts from this machine's own CLOCK_BOOTTIME here, which is past the reading of these tests.
        assert!(lower() >= BUILD_TIME + 1_000_000);
    }

    #[test]
    fn the_floor_is_written_every_ten_minutes_of_service_and_every_hour_of_rest() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut keeper = keeper(folder.path());
        keeper.judged = 7;
        let at = |minutes: u64| keeper.persisted + Duration::from_secs(60 * minutes);
        assert!(!keeper.is_due(at(9), 8) && keeper.is_due(at(10), 8));
        assert!(!keeper.is_due(at(59), 7) && keeper.is_due(at(60), 7));
        // The first request after a rest has it written at once.
        assert!(keeper.is_due(at(30), 8));
    }

    #[tokio::test]
    async fn a_card_that_stands_still_does_not_hold_up_the_watch() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut keeper = keeper(folder.path());
        let card = folder.path().join("time.1.part");
        stands_still(&card);
        keeper.persisted = Instant::now().checked_sub(PERSIST).expect("a moment");
        let refreshed = tokio::task::spawn_blocking(move || (keeper.refresh(1), keeper.refresh(2)));
        let refreshed = tokio::time::timeout(Duration::from_secs(20), refreshed).await;
        let _card = goes_on(&card);
        refreshed.expect("it does not wait").expect("no panic");
    }
}
