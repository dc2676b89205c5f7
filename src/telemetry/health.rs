//! Heartbeats: each task of the daemon beats while it makes progress; the watchdog is fed only while all are fresh.
//!
//! A task that hangs stops beating and turns stale; one that panics, or ends without [`Heart::retire`], drops its
//! heart and is known to have ended at once. In both cases systemd restarts the daemon. Times are monotonic and
//! stand still in suspend, so a device that wakes up is not stale.

use std::borrow::Cow;
use std::pin::pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many beats fit into the time that a task may be silent: a few may come late on a busy device.
const BEATS: u32 = 12;

/// The heartbeats of all named tasks. Clones share one set.
#[derive(Debug, Clone)]
pub struct Heartbeats {
    origin: Instant,
    silence: Duration,
    hearts: Arc<Mutex<Vec<Arc<Beat>>>>,
}

/// One task's side of its heartbeat. Dropping it says that the task has ended, and should not have.
#[derive(Debug)]
#[must_use = "a task whose heart is dropped has ended"]
pub struct Heart {
    origin: Instant,
    beat: Arc<Beat>,
}

/// How long each task has been silent.
pub type Ages = Vec<(Cow<'static, str>, Duration)>;

/// Why the daemon is not whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Standstill {
    /// A task ended though it should not have: it panicked, or met an error that it could not go on from.
    #[error("task {0} has ended")]
    Ended(Cow<'static, str>),
    /// A task has not beaten for longer than it may.
    #[error("task {task} has not made progress for {silent:?}")]
    Silent {
        /// The name that the task registered.
        task: Cow<'static, str>,
        /// Since when it is silent.
        silent: Duration,
    },
}

#[derive(Debug)]
struct Beat {
    task: Cow<'static, str>,
    within: Duration,
    /// Milliseconds since `origin`.
    last: AtomicU64,
    /// One of the three below.
    state: AtomicU8,
}

const BEATING: u8 = 0;
const ENDED: u8 = 1;
const RETIRED: u8 = 2;

impl Heartbeats {
    /// An empty set; `now` is the moment from which beats are counted, `silence` how long a task may go without one.
    #[must_use]
    pub fn new(now: Instant, silence: Duration) -> Self {
        Self { origin: now, silence, hearts: Arc::default() }
    }

    /// Watches a task. It counts as beaten at `now`.
    pub fn register(&self, task: impl Into<Cow<'static, str>>, now: Instant) -> Heart {
        self.register_slow(task, Duration::ZERO, now)
    }

    /// Watches a task one step of which may take `step`: it may be silent for so much longer.
    pub fn register_slow(&self, task: impl Into<Cow<'static, str>>, step: Duration, now: Instant) -> Heart {
        let (last, state) = (AtomicU64::new(millis(self.origin, now)), AtomicU8::new(BEATING));
        let beat = Arc::new(Beat { task: task.into(), within: self.silence.saturating_add(step), last, state });
        let mut hearts = self.hearts.lock().unwrap_or_else(PoisonError::into_inner);
        hearts.retain(|beat| beat.state.load(Ordering::Relaxed) != RETIRED);
        hearts.push(Arc::clone(&beat));
        Heart { origin: self.origin, beat }
    }

    /// `Ok` when every task lives and has beaten within its time; otherwise one that has ended, or the one that is
    /// silent for longest.
    pub fn all_fresh(&self, now: Instant) -> Result<(), Standstill> {
        let watched = self.silences(now);
        if let Some((beat, _)) = watched.iter().find(|(beat, _)| beat.state.load(Ordering::Relaxed) == ENDED) {
            return Err(Standstill::Ended(beat.task.clone()));
        }
        let silent = watched.into_iter().filter(|(beat, silent)| *silent > beat.within);
        match silent.max_by_key(|(_, silent)| *silent) {
            Some((beat, silent)) => Err(Standstill::Silent { task: beat.task.clone(), silent }),
            None => Ok(()),
        }
    }

    /// How long each watched task has been silent.
    #[must_use]
    pub fn ages(&self, now: Instant) -> Ages {
        self.silences(now).into_iter().map(|(beat, silent)| (beat.task.clone(), silent)).collect()
    }

    fn silences(&self, now: Instant) -> Vec<(Arc<Beat>, Duration)> {
        let now = millis(self.origin, now);
        let hearts = self.hearts.lock().unwrap_or_else(PoisonError::into_inner);
        let watched = hearts.iter().filter(|beat| beat.state.load(Ordering::Relaxed) != RETIRED);
        let silent = |beat: &Beat| Duration::from_millis(now.saturating_sub(beat.last.load(Ordering::Relaxed)));
        watched.map(|beat| (Arc::clone(beat), silent(beat))).collect()
    }
}

impl Heart {
    /// The task made progress at `now`. One relaxed store: cheap enough for every turn of a loop.
    pub fn beat(&self, now: Instant) {
        self.beat.last.store(millis(self.origin, now), Ordering::Relaxed);
    }

    /// Waits, and beats meanwhile: for a task that has nothing to do but wait, and for one whose runtime is what
    /// may hang. Needs a runtime with a timer.
    pub async fn during<T>(&self, wait: impl Future<Output = T>) -> T {
        let mut wait = pin!(wait);
        let mut beat = tokio::time::interval((self.beat.within / BEATS).max(Duration::from_millis(1)));
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                done = &mut wait => return done,
                _ = beat.tick() => self.beat(Instant::now()),
            }
        }
    }

    /// The task ends on purpose and is no longer watched.
    pub fn retire(self) {
        self.beat.state.store(RETIRED, Ordering::Relaxed);
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        // Unless it is retired.
        let _ = self.beat.state.compare_exchange(BEATING, ENDED, Ordering::Relaxed, Ordering::Relaxed);
    }
}

fn millis(origin: Instant, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(origin).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_watchdog_is_fed_only_while_every_task_beats() {
        let start = Instant::now();
        let hearts = Heartbeats::new(start, 2 * SECOND);
        assert_eq!(hearts.all_fresh(start), Ok(()), "no task, nothing to wait for");
        let worker = hearts.register_slow("worker", 8 * SECOND, start);
        let writer = hearts.register("writer", start);
        assert_eq!(hearts.all_fresh(start + 2 * SECOND), Ok(()));

        worker.beat(start + 3 * SECOND);
        let stale = hearts.all_fresh(start + 3 * SECOND);
        let silent = Standstill::Silent { task: "writer".into(), silent: 3 * SECOND };
        assert_eq!(stale, Err(silent), "the writer may be silent for two seconds");

        writer.beat(start + 4 * SECOND);
        assert_eq!(hearts.all_fresh(start + 5 * SECOND), Ok(()), "a task that comes back is fresh again");
    }

    #[test]
    fn a_task_that_dies_is_known_at_once_and_one_that_retires_is_not_missed() {
        let start = Instant::now();
        let hearts = Heartbeats::new(start, SECOND);
        hearts.register("import", start).retire();
        assert_eq!(hearts.all_fresh(start + 60 * SECOND), Ok(()));

        let heart = hearts.register("upload", start);
        let died = std::thread::spawn(move || {
            let _held = heart;
            panic!("as a defect would");
        });
        assert!(died.join().is_err());
        assert_eq!(hearts.all_fresh(start), Err(Standstill::Ended("upload".into())));
        assert_eq!(hearts.ages(start + SECOND), [("upload".into(), SECOND)]);
    }

    #[tokio::test]
    async fn waiting_is_no_silence_but_a_runtime_that_hangs_is() {
        let start = Instant::now();
        let silence = Duration::from_millis(120);
        let hearts = Heartbeats::new(start, silence);
        let heart = hearts.register("waits", start);
        heart.during(tokio::time::sleep(3 * silence)).await;
        assert_eq!(hearts.all_fresh(start + 3 * silence), Ok(()));

        let hangs = async { std::thread::sleep(2 * silence) };
        heart.during(hangs).await;
        let stale = hearts.all_fresh(Instant::now());
        assert!(matches!(&stale, Err(Standstill::Silent { task, .. }) if task == "waits"), "{stale:?}");
    }
}
