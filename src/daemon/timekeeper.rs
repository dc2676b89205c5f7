//! What the time is worth, refreshed each second for the gateway and written down every ten minutes.

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
use crate::units::UnixSeconds;

/// How often the gateway's view is refreshed.
pub(super) const REFRESH: Duration = Duration::from_secs(1);
/// How often the floor is written down.
const PERSIST: Duration = Duration::from_secs(600);
/// What the hub's time must raise the floor by to be told, in seconds: less is drift.
const TOLD: i64 = 60;
/// What systemd-timesyncd makes once the clock is synchronised in this boot.
const SYNCHRONISED: &str = "/run/systemd/timesync/synchronized";

/// The daemon's view of the time.
#[derive(Debug)]
pub(super) struct Timekeeper {
    file: Arc<TimeFile>,
    sources: Vec<TimeSource>,
    state: Arc<ArcSwap<TimeState>>,
    persisted: Instant,
}

impl Timekeeper {
    pub(super) fn new(file: Arc<TimeFile>, config: &Time) -> Self {
        let state = Arc::new(ArcSwap::from_pointee(TimeState::floor(0)));
        let keeper = Self { file, sources: config.trust.clone(), state, persisted: Instant::now() };
        keeper.show(&moment(&keeper.sources));
        keeper
    }

    /// What the gateway reads.
    pub(super) fn state(&self) -> Arc<ArcSwap<TimeState>> {
        Arc::clone(&self.state)
    }

    /// Call it every [`REFRESH`].
    pub(super) fn refresh(&mut self) {
        let now = moment(&self.sources);
        self.show(&now);
        if self.persisted.elapsed() >= PERSIST {
            self.persisted = Instant::now();
            if let Err(error) = self.file.persist(&now.reading) {
                warn!(%error, "the time floor could not be written; a power cut now forgets up to twenty minutes");
            }
        }
    }

    /// Writes the floor down for the last time.
    pub(super) fn close(&self) -> io::Result<()> {
        self.file.persist(&Reading::now())
    }

    fn show(&self, now: &Moment) {
        let bounds = self.file.floor().bounds(&now.reading, now.trusted);
        // Records carry the wall clock where it is trusted, else the later of it and the floor: a clock that is behind
        // what is known is wrong, one that is ahead may be right.
        let wall_ms = if bounds.upper.is_some() {
            now.reading.wall_ms
        } else {
            now.reading.wall_ms.max(bounds.lower.saturating_mul(1_000))
        };
        self.state.store(Arc::new(TimeState { at: Instant::now(), bounds, wall_ms }));
    }
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
