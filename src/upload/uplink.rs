//! The way out of this device, which all connections to a hub share: uploads, what is fetched, what is heard.
//!
//! It says whether the hub may be called now (windows, the day's limit), over which interface and proxy, how fast, and when
//! a link came up. [`Client::connect`](super::client::Client::connect) asks it first, so outside of the windows no
//! connection is made, whoever wants one. What is under way when a window closes may end: one file, one bundle.
//! A task of its own does its chores ([`Uplink::run`]).

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fmt, io};

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::meter::{Bucket, Day, Now, SLACK};
use super::netlink::LinkEvents;
use super::proxy::Proxy;
use super::window::{Offset, Window, closed_for};
use super::{Config, Error, Failure};
use crate::clock::Reading;
use crate::disk;
use crate::keys::random;
use crate::spool::backlog::{Stock, Waits};
use crate::telemetry::Heart;
use crate::units::UnixSeconds;

/// How long after the kernel's first word the rest is waited for: an interface comes up in several steps.
const SETTLES: Duration = Duration::from_millis(500);
/// Up to this much later at random, so that devices whose access point comes back do not come back together.
const SPREAD: Duration = Duration::from_secs(1);
/// Links that come up more often than this end no wait: a radio that looks for its station says so all the time.
const GAP: Duration = Duration::from_secs(15);
/// How long the windows stand open when somebody asks.
const BY_HAND: Duration = Duration::from_secs(600);
/// How often at most the day's bytes are written down: a power cut forgets those of so long.
const SAVED: Duration = Duration::from_secs(60);
/// How often they are where nothing was sent: the day of a lost clock must end some time.
const SAVED_IDLE: Duration = Duration::from_secs(3600);
/// Largest file of them, in bytes.
const FILE_LIMIT: u64 = 256;

/// The wall clock where it is worth something, in seconds since the Unix epoch; `None` while it is lost.
pub type Clock = Box<dyn Fn() -> Option<UnixSeconds> + Send + Sync>;

/// See the module.
pub struct Uplink {
    windows: Vec<Window>,
    offset: Offset,
    clock: Clock,
    /// Until when the windows stand open, by CLOCK_BOOTTIME.
    by_hand: Mutex<Duration>,
    pub(super) interfaces: Vec<String>,
    pub(super) proxy: Option<Proxy>,
    caps: Mutex<Caps>,
    /// Bytes of a day; 0 is no limit.
    limit: u64,
    /// Where those of today are kept; `None` without a limit.
    file: Option<PathBuf>,
    origin: Instant,
    /// How often a link came up.
    links: watch::Sender<u64>,
    /// What waits on this device, once that is known; every request tells it.
    waits: Mutex<Option<Waits>>,
}

#[derive(Debug)]
struct Caps {
    bucket: Bucket,
    day: Day,
    /// What was written down last.
    saved: (Day, Instant),
}

impl fmt::Debug for Uplink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uplink").field("proxy", &self.proxy).field("caps", &self.caps).finish_non_exhaustive()
    }
}

impl Uplink {
    /// Checks the settings. `clock` is what the windows and days go by, `file` where today's bytes are kept over a start;
    /// what is kept there is read.
    pub fn new(config: &Config, clock: Clock, file: Option<PathBuf>) -> Result<Arc<Self>, Error> {
        let proxy = config.proxy.as_ref().map(|proxy| Proxy::new(proxy, config.proxy_password_file.as_deref()));
        let limit = config.daily_limit.0;
        let file = file.filter(|_| limit > 0);
        let now = Now { wall: clock(), boot: Reading::now().boot };
        let read = |file: &PathBuf| String::from_utf8(disk::read_limited(file, FILE_LIMIT).ok()?).ok();
        let day = file.as_ref().and_then(read).and_then(|text| Day::read(&text, now)).unwrap_or_else(|| Day::new(now));
        let caps = Caps { bucket: Bucket::new(config.bandwidth.0), day, saved: (day, Instant::now()) };
        Ok(Arc::new(Self {
            windows: config.windows.clone(),
            offset: config.window_offset,
            clock,
            by_hand: Mutex::default(),
            interfaces: config.interfaces.clone(),
            proxy: proxy.transpose()?,
            caps: Mutex::new(caps),
            limit,
            file,
            origin: Instant::now(),
            links: watch::Sender::new(0),
            waits: Mutex::default(),
        }))
    }

    /// Changes when a link, an address or a route came up.
    #[must_use]
    pub fn links(&self) -> watch::Receiver<u64> {
        self.links.subscribe()
    }

    /// Bytes that were sent to the hubs and came from there today, as TCP carries them.
    #[must_use]
    pub fn day_bytes(&self) -> u64 {
        let now = self.now();
        let day = &mut self.caps().day;
        day.turn(now);
        day.bytes
    }

    /// Why the hub may not be called now, and how long that lasts at most.
    pub(super) fn held(&self) -> Option<(Failure, Duration)> {
        let now = self.now();
        let day = {
            let day = &mut self.caps().day;
            day.turn(now);
            *day
        };
        if self.limit > 0 && day.bytes >= self.limit {
            return Some((Failure::DailyLimit, day.rest(now)));
        }
        let is_open = *self.by_hand.lock().unwrap_or_else(PoisonError::into_inner) > now.boot;
        // By a lost clock usage could stay for ever.
        let wall = now.wall.filter(|_| !is_open)?;
        closed_for(&self.windows, self.offset, wall).map(|wait| (Failure::OutsideWindows, wait))
    }

    /// Whether so many bytes more may come today.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        self.limit == 0 || self.caps().day.bytes.saturating_add(bytes) <= self.limit.saturating_add(SLACK)
    }

    /// Somebody asks: the windows stand open for a while.
    pub(super) fn open_by_hand(&self) {
        let until = Reading::now().boot.saturating_add(BY_HAND);
        *self.by_hand.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    /// So much waits, and nothing older than `oldest`; where that is not known now, than it was last.
    pub(super) fn tell(&self, stock: Stock, oldest: Option<UnixSeconds>) {
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = oldest.or(waits.and_then(|waits| waits.oldest)).filter(|_| stock.files > 0);
        *waits = Some(Waits { stock, oldest });
    }

    /// What was told last.
    pub(super) fn waits(&self) -> Option<Waits> {
        *self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Most bytes that may pass now, or how long none may.
    pub(super) fn piece(&self) -> io::Result<Result<usize, Duration>> {
        let mut caps = self.caps();
        if self.limit > 0 && caps.day.bytes > self.limit.saturating_add(SLACK) {
            caps.day.turn(self.now());
            if caps.day.bytes > 0 {
                return Err(io::ErrorKind::QuotaExceeded.into());
            }
        }
        Ok(caps.bucket.piece(self.origin.elapsed()))
    }

    /// So many bytes have passed.
    pub(super) fn charge(&self, bytes: usize) {
        let mut caps = self.caps();
        caps.bucket.charge(self.origin.elapsed(), bytes);
        caps.day.charge(bytes);
    }

    /// Listens for links and writes the day's bytes down until it is dropped; safe at any moment.
    pub async fn run(self: Arc<Self>, heart: Heart) {
        let listen = async {
            let Err(error) = self.listen().await;
            warn!(%error, "nothing is heard of links that come up: the hub is tried by the timer alone");
            std::future::pending::<Infallible>().await
        };
        let keep = async {
            loop {
                tokio::time::sleep(SAVED).await;
                let this = Arc::clone(&self);
                if this.is_due() {
                    drop(tokio::task::spawn_blocking(move || this.save()).await);
                }
            }
        };
        heart
            .during(async {
                tokio::select! { _ = listen => {}, () = keep => {} }
            })
            .await
    }

    /// Whether the day's bytes are to be written down.
    fn is_due(&self) -> bool {
        let caps = self.caps();
        let (saved, at) = caps.saved;
        self.file.is_some() && (saved.bytes != caps.day.bytes || at.elapsed() >= SAVED_IDLE)
    }

    /// Writes the day's bytes down, where there is a limit. Blocks for the disk.
    pub fn save(&self) {
        let Some(file) = &self.file else { return };
        let now = self.now();
        let day = self.caps().day;
        if let Err(error) = disk::replace(file, day.write(now).as_bytes(), 0o600) {
            warn!(%error, "today's bytes are not written down; a restart forgets them");
        }
        self.caps().saved = (day, Instant::now());
    }

    async fn listen(&self) -> io::Result<Infallible> {
        let events = LinkEvents::open()?;
        debug!("listening for links that come up");
        loop {
            events.came_up().await?;
            tokio::time::sleep(SETTLES + part_of(SPREAD)).await;
            info!("a link came up");
            self.links.send_modify(|count| *count = count.wrapping_add(1));
            tokio::time::sleep(GAP).await;
        }
    }

    fn now(&self) -> Now {
        Now { wall: (self.clock)(), boot: Reading::now().boot }
    }

    fn caps(&self) -> MutexGuard<'_, Caps> {
        self.caps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A random part of it.
pub(super) fn part_of(whole: Duration) -> Duration {
    whole * random::<1>().map_or(0, |[byte]| byte.into()) / 255
}
