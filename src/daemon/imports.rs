//! The inbox's thread: what is dropped is judged, and what is accepted is swapped in.

use std::collections::VecDeque;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::setpriority_process;
use rustix::thread::gettid;
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::card;
use super::timekeeper::{catch_up, moment};
use crate::admin;
use crate::bundle::enrolment::Labels;
use crate::bundle::inbox::Inbox;
use crate::bundle::{Active, DEFECT, ImportOutcome, Imported, Importer, Medium, Refused};
use crate::config::TimeSource;
use crate::gateway::TimeState;
use crate::ids::Digest;
use crate::keys::{PublicKey, SigningKey};
use crate::policy::revocations::Revocations;
use crate::policy::{Policy, PolicyId, Snapshot};
use crate::spool::Spool;
use crate::spool::protocol::BundleKind;
use crate::store::hardware::Moved;
use crate::telemetry::{Counts, Heart, Heartbeats, panics};
use crate::units::UnixSeconds;
use crate::upload;

/// How long the thread waits for something in the inbox: so often it shows that it is alive, and so late
/// at most is a slow look.
const WAIT: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };
/// How long it rests when the inbox cannot be read.
const REST: Duration = Duration::from_secs(5);
/// How far the thread stands behind those that serve requests, as nice(1) counts.
const NICE: i32 = 10;
/// The result that is an alarm.
const ALARM: &str = "Equivocation";
/// Imports that status shows.
const SHOWN: usize = 16;

/// When the policy in force came into force, and until when it may be installed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct InForce {
    pub(super) activated_at: UnixSeconds,
    pub(super) expires_at: Option<UnixSeconds>,
}

/// What imports change, for those who read it.
#[derive(Debug)]
pub(super) struct Outcomes {
    pub(super) policy: Arc<ArcSwap<Snapshot>>,
    pub(super) in_force: ArcSwap<InForce>,
    /// Whether the policy in force is on trial.
    pub(super) on_trial: AtomicBool,
    /// What became of the card since the device was enrolled.
    pub(super) card: ArcSwap<Option<Moved>>,
    /// The device's labels, from its enrolment.
    pub(super) labels: ArcSwap<Labels>,
    /// Snapshots that were replaced. A worker that let go of the last of one would free a policy on a request's time.
    replaced: Mutex<Vec<Arc<Snapshot>>>,
    recent: Mutex<VecDeque<admin::Imported>>,
    counts: Mutex<Vec<(&'static str, u64)>>,
}

impl Outcomes {
    pub(super) fn new() -> Self {
        Self {
            policy: Arc::new(ArcSwap::from_pointee(Snapshot::safe_mode())),
            in_force: ArcSwap::default(),
            on_trial: AtomicBool::default(),
            card: ArcSwap::default(),
            labels: ArcSwap::default(),
            replaced: Mutex::default(),
            recent: Mutex::default(),
            // There from the start: what counts an alarm must show its first.
            counts: Mutex::new(vec![(ALARM, 0)]),
        }
    }

    /// Puts a bundle's policy in force: requests that begin from here on are judged by it. `on_trial` as in
    /// [`Self::trial_is`].
    pub(super) fn put_in_force(&self, active: Active<Policy>, now: UnixSeconds, on_trial: Option<Digest>) -> Digest {
        let Active { digest, manifest, policy, .. } = active;
        let id = PolicyId { digest, seq: manifest.seq(), epoch: manifest.epoch() };
        self.in_force.store(Arc::new(InForce { activated_at: now, expires_at: manifest.expires_at() }));
        let (policy, issued_at) = (Arc::new(policy), Some(manifest.issued_at()));
        let next =
            |now: &Snapshot| Snapshot { policy: Some(Arc::clone(&policy)), id: Some(id), issued_at, ..now.clone() };
        self.replace(self.policy.rcu(|now| next(now)));
        self.trial_is(on_trial);
        digest
    }

    /// Which bundle is on trial; what serves may be another.
    fn trial_is(&self, on_trial: Option<Digest>) {
        let in_force = self.policy.load().id.map(|id| id.digest);
        self.on_trial.store(on_trial.is_some() && on_trial == in_force, Ordering::Relaxed);
    }

    /// Puts a list of revocations in force, beside the policy that is.
    pub(super) fn put_list_in_force(&self, list: Active<Revocations>) {
        let (revoked, list_issued_at) = (Arc::new(list.policy), Some(list.manifest.issued_at()));
        let next = |now: &Snapshot| Snapshot { revoked: Arc::clone(&revoked), list_issued_at, ..now.clone() };
        self.replace(self.policy.rcu(|now| next(now)));
    }

    fn replace(&self, snapshot: Arc<Snapshot>) {
        self.replaced.lock().unwrap_or_else(PoisonError::into_inner).push(snapshot);
    }

    /// Frees the snapshots that no request is judged by any more.
    fn free_replaced(&self) {
        let mut replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        replaced.retain(|snapshot| Arc::strong_count(snapshot) > 1);
    }

    /// The last imports, newest first.
    pub(super) fn recent(&self) -> Vec<admin::Imported> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Imports by result.
    pub(super) fn counts(&self) -> Counts {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Bundles, lists and enrolments of a number that another one had, since the start.
    pub(super) fn equivocations(&self) -> u64 {
        self.counts().iter().find(|(name, _)| *name == ALARM).map_or(0, |(_, count)| *count)
    }

    fn note(&self, name: &str, result: &'static str, at: UnixSeconds, seq: Option<u64>) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.truncate(SHOWN - 1);
        let name = name[..name.floor_char_boundary(128)].to_owned();
        recent.push_front(admin::Imported { name, result: result.to_owned(), at, seq });
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.iter_mut().find(|(name, _)| *name == result) {
            Some((_, count)) => *count += 1,
            None => counts.push((result, 1)),
        }
    }
}

/// The running thread.
#[derive(Debug)]
pub(super) struct Imports {
    /// Closed to wake and end the thread.
    stop: UnixStream,
    thread: JoinHandle<()>,
}

/// What the thread works with.
pub(super) struct Work {
    pub(super) importer: Importer<Policy>,
    pub(super) inbox: Inbox,
    /// The state folder.
    pub(super) state: PathBuf,
    /// The device's key, which signs receipts.
    pub(super) key: SigningKey,
    pub(super) outcomes: Arc<Outcomes>,
    pub(super) spool: Arc<Spool>,
    /// The keys of the root's hub role, for the uploader.
    pub(super) hubs: watch::Sender<Arc<[PublicKey]>>,
    /// What the hub need not send again.
    pub(super) known: Arc<upload::Known>,
    pub(super) time: Vec<TimeSource>,
    /// The time that the gateway goes by.
    pub(super) shown: Arc<ArcSwap<TimeState>>,
    pub(super) heart: Heart,
    /// All tasks, for the trial of a new policy.
    pub(super) hearts: Heartbeats,
    /// Panics that are known.
    pub(super) panics: u64,
}

impl Imports {
    pub(super) fn start(mut work: Work) -> io::Result<Self> {
        let (stop, stopped) = UnixStream::pair()?;
        let thread = std::thread::Builder::new().name("imports".into()).spawn(move || {
            // On Linux a thread's own. A large bundle is a tenth of a second of work, for which no request is to wait.
            if let Err(error) = setpriority_process(Some(gettid()), NICE) {
                warn!(%error, "bundles are judged at the priority of requests");
            }
            while work.wait(&stopped) {
                work.look(&stopped);
                work.attend();
                work.outcomes.free_replaced();
                work.heart.beat(Instant::now());
            }
            work.heart.retire();
        })?;
        Ok(Self { stop, thread })
    }

    /// Lets the import under way end; blocks so long.
    pub(super) fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            error!("the import thread panicked");
        }
    }

    /// Leaves the thread to the process's end, which is none in order: a policy on trial is to be blamed for it.
    pub(super) fn abandon(self) {
        std::mem::forget(self.stop);
    }
}

impl Work {
    /// Until the inbox has something or it is time for a look; false once the daemon stops.
    fn wait(&self, stopped: &UnixStream) -> bool {
        let mut events = [PollFd::new(stopped, PollFlags::IN), PollFd::new(&self.inbox, PollFlags::IN)];
        match poll(&mut events, Some(&WAIT)) {
            Ok(_) => events[0].revents().is_empty(),
            Err(_) => true, // interrupted: the look decides
        }
    }

    fn look(&mut self, stopped: &UnixStream) {
        let look = match self.inbox.wait(Duration::ZERO) {
            Ok(look) => look,
            Err(error) => {
                warn!(%error, "the inbox cannot be read; trying again");
                std::thread::sleep(REST);
                return;
            }
        };
        if let Some(refused) = &look.refused {
            warn!(result = refused.name(), "{refused}");
            if let Err(error) = self.importer.record(refused, &Medium::Inbox, &moment(&self.time)) {
                warn!(%error, "the journal could not be written");
            }
        }
        for path in look.ready {
            // The rest is found again at the next start.
            if is_readable(stopped) {
                return;
            }
            self.import(&path);
            // Many files on a slow card take longer than a heart may be silent.
            self.heart.beat(Instant::now());
        }
    }

    /// The trial of the policy in force, if it is on one.
    fn attend(&mut self) {
        let known = std::mem::replace(&mut self.panics, panics());
        let well = known == self.panics && self.hearts.all_fresh(Instant::now()).is_ok();
        match self.importer.attend(&moment(&self.time), well) {
            Ok(None) => {}
            Ok(Some(digest)) => info!(%digest, "the policy in force has passed its trial"),
            Err(refused) => warn!(result = refused.name(), "the end of a trial could not be written down: {refused}"),
        }
        self.outcomes.trial_is(self.importer.on_trial());
    }

    fn import(&mut self, path: &Path) {
        let now = moment(&self.time);
        let medium = &Medium::of_inbox(path.file_name().unwrap_or_default());
        let outcome = self.importer.import(path, medium, &now);
        let settled = self.inbox.settle(path, &outcome, Instant::now());
        let ImportOutcome { name, result, digest, resumed, root, judged: _, receipt, unrecorded } = outcome;
        if let Some(error) = unrecorded {
            warn!(%error, "an import could not be written into the journal or the time floor");
        }
        if let Err(error) = settled {
            warn!(%error, file = name, "a judged file could not be moved out of the inbox");
        }
        if let Some(version) = root {
            info!(file = name, version, "a new root is trusted");
            self.hubs.send_replace(self.importer.hub_keys().cloned().collect());
            self.outcomes.labels.store(Arc::new(self.importer.device().labels.clone()));
            self.known.judged_anew();
        }
        catch_up(&self.shown, &self.importer.time(), &moment(&self.time));
        let at = self.importer.time().floor().bounds(&now.reading, now.trusted).lower;
        if let Some(list) = resumed.list {
            self.known.accepted(BundleKind::Revocation, list.digest);
            self.outcomes.put_list_in_force(list);
        }
        if let Some(active) = resumed.serving {
            info!(digest = %active.digest, "what was kept serves again");
            self.known.accepted(BundleKind::Policy, active.digest);
            self.spool.policy_is(self.outcomes.put_in_force(active, at, self.importer.on_trial()));
        }
        let word = result.name();
        let seq = match result {
            Imported::Activated(active) => {
                let seq = active.manifest.seq();
                let digest = self.outcomes.put_in_force(*active, at, self.importer.on_trial());
                self.spool.policy_is(digest);
                self.known.accepted(BundleKind::Policy, digest);
                info!(file = name, %digest, seq, "a new policy is in force");
                Some(seq)
            }
            Imported::Revoked(list) => {
                let seq = list.manifest.seq();
                let (ids, cut_offs) = list.policy.len();
                info!(file = name, seq, ids, cut_offs, "a new list of revocations is in force");
                self.known.accepted(BundleKind::Revocation, list.digest);
                self.outcomes.put_list_in_force(*list);
                Some(seq)
            }
            Imported::Permitted(permit) => {
                info!(file = name, from = %permit.from, to = %permit.to, "a permit waits for the bundle that it names");
                if let Some(digest) = digest {
                    self.known.accepted(BundleKind::Permit, digest);
                }
                None
            }
            Imported::HandedOver { seq, .. } => {
                info!(file = name, seq, "a release is with the installer");
                Some(seq)
            }
            Imported::TimeReset { from, to } => {
                warn!(file = name, from, to, "the root has set the time floor");
                self.known.judged_anew();
                None
            }
            Imported::Enrolled(enrolment) => {
                let seq = enrolment.seq;
                info!(
                    file = name,
                    seq,
                    labels = enrolment.labels.len(),
                    "the device has the labels of a new enrolment"
                );
                if let Some(digest) = self.importer.enrolled() {
                    self.known.accepted(BundleKind::Enrolment, digest);
                }
                self.outcomes.labels.store(Arc::new(enrolment.labels));
                if let Err(error) = card::settle(&self.state) {
                    warn!(%error, "the record of the machine could not be written");
                }
                self.outcomes.card.store(Arc::default());
                Some(seq)
            }
            Imported::UsageMayLeave { until } => {
                info!(file = name, until, "usage may leave with the stick that brought this note");
                None
            }
            Imported::AlreadyInstalled => {
                info!(file = name, "the bundle is in force already");
                None
            }
            Imported::Defect(said) => {
                error!(file = name, result = word, "{said}; {DEFECT}");
                None
            }
            Imported::Refused(refused) => {
                warn_refused(&name, digest, &refused);
                None
            }
        };
        self.outcomes.note(&name, word, at, seq);
        // Last: whoever waits for it finds in force what it says, and in status.
        if let Err(error) = receipt.put_beside(path, &self.key) {
            warn!(%error, file = name, "the receipt could not be put beside the bundle");
            if let Err(error) = self.importer.record_unreceipted(&name, &error, medium, &now) {
                warn!(%error, "the journal could not be written");
            }
        }
    }
}

/// Whether there is something to read, or the other end is closed.
fn is_readable(stream: &UnixStream) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(stream, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
}

fn warn_refused(name: &str, digest: Option<Digest>, refused: &Refused) {
    let digest = digest.map(|digest| digest.to_string()).unwrap_or_default();
    if refused.is_alarm() {
        error!(file = name, digest, result = refused.name(), "refused: {refused}");
    } else {
        warn!(file = name, digest, result = refused.name(), "refused: {refused}");
    }
}
