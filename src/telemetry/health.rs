//! Heartbeats: each task of the daemon beats while it makes progress; the watchdog is fed only while all are fresh.
//!
//! A task that hangs, panics or is dropped stops beating and turns stale, so systemd restarts the daemon;
//! only [`Heart::retire`] ends the watch of a task that ended on purpose. Times are monotonic and
//! stand still in suspend, so a device that wakes up is not stale.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The heartbeats of all named tasks. Clones share one set.
#[derive(Debug, Clone)]
pub struct Heartbeats {
    origin: Instant,
    hearts: Arc<Mutex<Vec<Arc<Beat>>>>,
}

/// One task's side of its heartbeat.
#[derive(Debug)]
#[must_use = "a task whose heart is dropped turns stale"]
pub struct Heart {
    origin: Instant,
    beat: Arc<Beat>,
}

/// A task that has not beaten for longer than it promised.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("task {task} has not made progress for {silent:?}")]
pub struct Stale {
    /// The name that the task registered.
    pub task: &'static str,
    /// Since when it is silent.
    pub silent: Duration,
}

#[derive(Debug)]
struct Beat {
    task: &'static str,
    within: Duration,
    /// Milliseconds since `origin`; `RETIRED` once the task has ended on purpose.
    last: AtomicU64,
}

const RETIRED: u64 = u64::MAX;

impl Heartbeats {
    /// An empty set; `now` is the moment from which beats are counted.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { origin: now, hearts: Arc::default() }
    }

    /// Watches a task that promises to beat at least once `within` that time. It counts as beaten at `now`.
    pub fn register(&self, task: &'static str, within: Duration, now: Instant) -> Heart {
        let beat = Arc::new(Beat { task, within, last: AtomicU64::new(millis(self.origin, now)) });
        let mut hearts = self.hearts.lock().unwrap_or_else(PoisonError::into_inner);
        hearts.retain(|beat| beat.last.load(Ordering::Relaxed) != RETIRED);
        hearts.push(Arc::clone(&beat));
        Heart { origin: self.origin, beat }
    }

    /// `Ok` when every task has beaten within its time; otherwise the one that is silent for longest.
    pub fn all_fresh(&self, now: Instant) -> Result<(), Stale> {
        let silent = self.silences(now).into_iter().filter(|(beat, silent)| *silent > beat.within);
        match silent.max_by_key(|(_, silent)| *silent) {
            Some((beat, silent)) => Err(Stale { task: beat.task, silent }),
            None => Ok(()),
        }
    }

    /// How long each watched task has been silent.
    #[must_use]
    pub fn ages(&self, now: Instant) -> Vec<(&'static str, Duration)> {
        self.silences(now).into_iter().map(|(beat, silent)| (beat.task, silent)).collect()
    }

    fn silences(&self, now: Instant) -> Vec<(Arc<Beat>, Duration)> {
        let now = millis(self.origin, now);
        let hearts = self.hearts.lock().unwrap_or_else(PoisonError::into_inner);
        let watched = hearts.iter().map(|beat| (beat, beat.last.load(Ordering::Relaxed)));
        let watched = watched.filter(|(_, last)| *last != RETIRED);
        watched.map(|(beat, last)| (Arc::clone(beat), Duration::from_millis(now.saturating_sub(last)))).collect()
    }
}

impl Heart {
    /// The task made progress at `now`. One relaxed store: cheap enough for every turn of a loop.
    pub fn beat(&self, now: Instant) {
        self.beat.last.store(millis(self.origin, now), Ordering::Relaxed);
    }

    /// The task ends on purpose and is no longer watched.
    pub fn retire(self) {
        self.beat.last.store(RETIRED, Ordering::Relaxed);
    }
}

fn millis(origin: Instant, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(origin).as_millis()).unwrap_or(RETIRED - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_watchdog_is_fed_only_while_every_task_beats() {
        let start = Instant::now();
        let hearts = Heartbeats::new(start);
        assert_eq!(hearts.all_fresh(start), Ok(()), "no task, nothing to wait for");
        let worker = hearts.register("worker", 10 * SECOND, start);
        let writer = hearts.register("writer", 2 * SECOND, start);
        assert_eq!(hearts.all_fresh(start + 2 * SECOND), Ok(()));

        worker.beat(start + 3 * SECOND);
        let stale = hearts.all_fresh(start + 3 * SECOND);
        assert_eq!(stale, Err(Stale { task: "writer", silent: 3 * SECOND }), "the writer promised two seconds");

        writer.beat(start + 4 * SECOND);
        assert_eq!(hearts.all_fresh(start + 5 * SECOND), Ok(()), "a task that comes back is fresh again");
    }

    #[test]
    fn a_task_that_dies_turns_stale_and_one_that_retires_does_not() {
        let start = Instant::now();
        let hearts = Heartbeats::new(start);
        hearts.register("import", SECOND, start).retire();
        assert_eq!(hearts.all_fresh(start + 60 * SECOND), Ok(()));

        let heart = hearts.register("upload", SECOND, start);
        let died = std::thread::spawn(move || {
            let _held = heart;
            panic!("as a defect would");
        });
        assert!(died.join().is_err());
        assert!(hearts.all_fresh(start + 60 * SECOND).is_err_and(|stale| stale.task == "upload"));
        assert_eq!(hearts.ages(start + SECOND), [("upload", SECOND)]);
    }
}
