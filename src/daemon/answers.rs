//! What the daemon says of itself when it is asked: health, status, metrics.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::watch;

use super::imports::Outcomes;
use crate::admin::{self, Later, NotTaken, PolicyStatus, SpoolStatus, Status, UploadStatus};
use crate::clock::Reading;
use crate::gateway::{ConnectionEnd, Counters, TimeState};
use crate::ids::DeviceId;
use crate::keys::PublicKey;
use crate::spool::Spool;
use crate::spool::backlog::{Backlog as _, Cursor, Unavailable};
use crate::spool::receipt::Receipt;
use crate::spool::record::Outcome;
use crate::store::hardware::Moved;
use crate::telemetry::{Connections, Counts, Heartbeats, Metrics, PolicyInForce, Sources, Spooled, Uploaded, panics};
use crate::throttle::Throttle;
use crate::units::TimeBounds;
use crate::upload;

/// Everything that can be asked about. All of it is shared with the parts that change it.
#[derive(Debug)]
pub(super) struct Daemon {
    pub(super) started: Instant,
    pub(super) device: DeviceId,
    pub(super) outcomes: Arc<Outcomes>,
    pub(super) counters: Arc<Counters>,
    pub(super) throttle: Arc<Throttle>,
    pub(super) time: Arc<ArcSwap<TimeState>>,
    pub(super) spool: Arc<Spool>,
    /// The keys of the root's hub role.
    pub(super) hub_keys: watch::Receiver<Arc<[PublicKey]>>,
    pub(super) upload: Option<watch::Receiver<upload::Status>>,
    /// Whether the hub's events are heard.
    pub(super) events: Option<watch::Receiver<bool>>,
    pub(super) uplink: Arc<upload::Uplink>,
    pub(super) hubs: Vec<String>,
    pub(super) hearts: Heartbeats,
    pub(super) metrics: OnceLock<Metrics>,
}

impl Daemon {
    /// Declares the metrics over `daemon`.
    pub(super) fn declare_metrics(daemon: &Arc<Self>) {
        let of = |daemon: &Arc<Self>| Arc::clone(daemon);
        let [requests, connections, time, policy, card, revocations] = [(); 6].map(|()| of(daemon));
        let [imports, spool, upload, tasks, throttle] = [(); 5].map(|()| of(daemon));
        let sources = Sources {
            requests: Some(Box::new(move || requests.requests())),
            connections: Some(Box::new(move || connections.connections())),
            throttle_forgotten: Some(Box::new(move || throttle.throttle.forgotten())),
            time: Some(Box::new(move || time.bounds())),
            policy: Some(Box::new(move || policy.policy_in_force())),
            card: Some(Box::new(move || card.card())),
            revocations_age: Some(Box::new(move || revocations.revocations_age())),
            imports: Some(Box::new(move || imports.outcomes.counts())),
            spool: Some(Box::new(move || spool.spooled())),
            upload: upload.upload.is_some().then(|| Box::new(move || upload.uploaded()) as Box<_>),
            tasks: Some(Box::new(move || tasks.hearts.ages(Instant::now()))),
            panics: Some(Box::new(panics)),
        };
        // Only the first declaration counts, and there is one.
        let _ = daemon.metrics.set(Metrics::new(sources));
    }

    /// One line for `systemctl status`.
    pub(super) fn line(&self) -> String {
        let policy = match self.outcomes.policy.load().id {
            Some(id) => format!("policy {} (seq {})", &id.digest.to_string()[..12], id.seq),
            None => "safe mode: no policy; drop a bundle into the inbox".to_owned(),
        };
        let spool = self.spool.status();
        let link = match self.upload.as_ref().map(|status| status.borrow().link) {
            None => "no hub configured",
            Some(upload::Link::Up) => "hub in reach",
            Some(upload::Link::Unknown) => "hub not tried yet",
            Some(upload::Link::Down { .. }) => "hub out of reach",
            Some(upload::Link::Held) => "hub not called now",
        };
        format!("{policy}; {} usage files wait, {link}; time {}", spool.files, self.bounds().quality.name())
    }

    /// How old, at least, what is known of revocations is.
    fn revocations_age(&self) -> Option<u64> {
        let as_of = self.outcomes.policy.load().revocations_as_of()?;
        Some(self.bounds().least_age(as_of))
    }

    fn bounds(&self) -> TimeBounds {
        self.time.load().bounds
    }

    /// Requests that were judged since the start.
    pub(super) fn judged(&self) -> u64 {
        Outcome::ALL.iter().map(|outcome| self.counters.requests(*outcome)).sum()
    }

    fn requests(&self) -> Vec<(&'static str, u64)> {
        let counted = |outcome: &Outcome| (outcome.name(), self.counters.requests(*outcome));
        Outcome::ALL.iter().map(counted).filter(|(_, count)| *count > 0).collect()
    }

    fn connections(&self) -> Connections {
        let Counters { accepted, accept_errors, upstream_connects, upstream_retries, .. } = &*self.counters;
        let [accepted, accept_errors, upstream, upstream_retries] =
            [accepted, accept_errors, upstream_connects, upstream_retries].map(|count| count.load(Ordering::Relaxed));
        let ended = ConnectionEnd::ALL.map(|end| (end.name(), self.counters.ended(end))).into();
        Connections { open: self.counters.open(), accepted, ended, accept_errors, upstream, upstream_retries }
    }

    fn policy(&self) -> PolicyStatus {
        let in_force = **self.outcomes.in_force.load();
        match self.outcomes.policy.load().id {
            None => PolicyStatus::SafeMode,
            Some(id) => PolicyStatus::Active {
                id: id.digest,
                seq: id.seq,
                epoch: id.epoch,
                activated_at: in_force.activated_at,
                expires_at: in_force.expires_at,
                stale: in_force.expires_at.is_some_and(|at| at < self.bounds().lower),
                on_trial: self.outcomes.on_trial.load(Ordering::Relaxed),
            },
        }
    }

    fn policy_in_force(&self) -> PolicyInForce {
        match self.policy() {
            PolicyStatus::SafeMode => PolicyInForce::SafeMode,
            PolicyStatus::Active { seq, activated_at, stale, on_trial, .. } => {
                PolicyInForce::Active { seq, activated_at, stale, on_trial }
            }
        }
    }

    fn card(&self) -> Counts {
        let moved = **self.outcomes.card.load();
        Moved::ALL.map(|which| (which.name(), u64::from(moved == Some(which)))).into()
    }

    fn spooled(&self) -> Spooled {
        let status = self.spool.status();
        Spooled {
            backlog_bytes: status.bytes,
            backlog_files: status.files,
            disk_bytes: status.disk_bytes,
            open_bytes: status.open_bytes,
            unsynced_bytes: status.unsynced_bytes,
            fails: status.last_error.is_some(),
            appended: status.appended,
            rolled_up: status.rolled_up,
            lost: status.lost,
        }
    }

    fn uploaded(&self) -> Uploaded {
        let status = self.upload.as_ref().map(|status| *status.borrow()).unwrap_or_default();
        Uploaded {
            files: status.files,
            failures: status.failures,
            passed_over: status.passed_over,
            by_another_key: status.by_another_key,
            day_bytes: self.uplink.day_bytes(),
            held: status.held.is_some(),
            last_success: since(status.receipt),
        }
    }
}

/// How long ago a moment of this boot was.
fn since(boot: Option<Duration>) -> Option<Duration> {
    Some(Reading::now().boot.saturating_sub(boot?))
}

impl admin::Answers for Daemon {
    fn live(&self) -> Result<(), String> {
        self.hearts.all_fresh(Instant::now()).map_err(|standstill| standstill.to_string())
    }

    fn ready(&self) -> Result<(), String> {
        match self.outcomes.policy.load().policy {
            Some(_) => Ok(()),
            None => Err("safe mode: no policy is in force".to_owned()),
        }
    }

    fn metrics(&self) -> String {
        self.metrics.get().map(Metrics::text).unwrap_or_default()
    }

    fn status(&self) -> Status {
        let spool = self.spool.status();
        let upload = self.upload.as_ref().map(|status| {
            let status = *status.borrow();
            UploadStatus {
                files: status.files,
                failures: status.failures,
                passed_over: status.passed_over,
                by_another_key: status.by_another_key,
                hears_events: self.events.as_ref().is_some_and(|open| *open.borrow()),
                hub: status.hub.and_then(|place| self.hubs.get(place).cloned()),
                held: status.held.map(|why| why.to_string()),
                day_bytes: self.uplink.day_bytes(),
                last_success_seconds: since(status.receipt).map(|age| age.as_secs()),
                last_error: status.failure.map(|failure| failure.to_string()),
            }
        });
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            device: self.device,
            labels: BTreeMap::clone(&self.outcomes.labels.load()),
            card: self.outcomes.card.load().map(|moved| moved.name().to_owned()),
            uptime_seconds: self.started.elapsed().as_secs(),
            not_ready: self.ready().err(),
            policy: self.policy(),
            time: self.bounds().into(),
            spool: SpoolStatus {
                stream: spool.stream.map(|stream| stream.to_string()),
                backlog_files: spool.files,
                backlog_bytes: spool.bytes,
                disk_bytes: spool.disk_bytes,
                open_bytes: spool.open_bytes,
                unsynced_bytes: spool.unsynced_bytes,
                appended: spool.appended,
                rolled_up: spool.rolled_up,
                lost: spool.lost,
                last_error: spool.last_error,
            },
            upload,
            imports: self.outcomes.recent(),
            equivocations: self.outcomes.equivocations(),
            revocations_age_seconds: self.revocations_age(),
        }
    }

    fn next_file(&self, after: Option<Cursor>) -> Later<'_, Result<Option<Vec<u8>>, Unavailable>> {
        Box::pin(async move { Ok(self.spool.oldest(after).await?.map(|file| file.bytes)) })
    }

    /// Whose it is need not be looked at: the spool lets go of the file of that digest, which names its maker, or of none.
    fn receipt(&self, receipt: Bytes) -> Later<'_, Result<(), NotTaken>> {
        Box::pin(async move {
            let hubs = Arc::clone(&self.hub_keys.borrow());
            let Receipt { stream, seq, digest, .. } = Receipt::verify(&receipt, &hubs).map_err(NotTaken::Refused)?;
            self.spool.acknowledge(Cursor { stream, seq }, &digest).await.map_err(|Unavailable| NotTaken::Unavailable)
        })
    }
}
