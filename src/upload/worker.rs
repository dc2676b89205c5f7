//! The uploader's task: rounds of uploads, and the waits between them.
//!
//! A round sends files, oldest first, over one connection until none is left or something fails.
//! A file that the hub refuses for good (a fork, a damaged file) is passed over for the round and
//! counted, so that it does not hold up the files behind it; it stays in the spool.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use tokio::sync::{Notify, watch};
use tracing::{debug, info, warn};

use super::client::{Answer, Client};
use super::{Config, Error, Failure, Link, retry};
use crate::disk;
use crate::ids::{DeviceId, Digest};
use crate::keys::{PublicKey, random};
use crate::spool::backlog::{Backlog, Cursor};
use crate::spool::receipt::Receipt;
use crate::telemetry::Heart;

/// Largest authority file, in bytes.
const AUTHORITY_LIMIT: u64 = 1 << 20;

/// What wakes the uploader besides its timer.
#[derive(Debug, Clone, Default)]
pub struct Wakes {
    /// A usage file was sealed: ends the wait between rounds, not the wait after a failure.
    pub sealed: Arc<Notify>,
    /// A link came, or somebody asks: ends any wait.
    pub kick: Arc<Notify>,
}

/// What the uploader has done since it started, for status and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Status {
    /// How it goes with the hub.
    pub link: Link,
    /// Files that were acknowledged.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Rounds that ended early, all in all; [`Link::failures`] are those in a row.
    pub failures: u64,
    /// Files that the last round passed over, because the hub refuses them for good.
    pub passed_over: u64,
    /// Why the last round ended early.
    pub failure: Option<Failure>,
    /// The hub's time in the newest receipt, in milliseconds since the Unix epoch.
    pub receipt_ms: Option<i64>,
}

/// Everything that the task needs.
#[derive(Debug)]
pub struct Worker<B> {
    backlog: B,
    client: Client,
    device: PublicKey,
    hubs: watch::Receiver<Arc<[PublicKey]>>,
    wakes: Wakes,
    config: Config,
    status: watch::Sender<Status>,
}

/// What a round came to.
enum Round {
    /// Every file that could be sent was.
    Done,
    Failed(Failure, Option<Duration>),
}

/// The client of the hub that `config` names, if it names one.
pub(super) fn client(config: &Config) -> Result<Option<Client>, Error> {
    let Some(hub) = &config.hub else { return Ok(None) };
    let authorities = match &config.authority_file {
        None => Vec::new(),
        Some(path) => disk::read_limited(path, AUTHORITY_LIMIT)
            .map_err(|source| Error::AuthorityFile { path: path.clone(), source })?,
    };
    Client::new(config, hub, &authorities).map(Some)
}

impl<B: Backlog> Worker<B> {
    /// Checks the configuration; `None` if it names no hub. `hubs` are the keys of the root's hub role.
    pub fn new(
        config: Config,
        backlog: B,
        device: PublicKey,
        hubs: watch::Receiver<Arc<[PublicKey]>>,
        wakes: Wakes,
    ) -> Result<Option<Self>, Error> {
        let Some(client) = client(&config)? else { return Ok(None) };
        let status = watch::Sender::new(Status::default());
        Ok(Some(Self { backlog, client, device, hubs, wakes, config, status }))
    }

    /// Follows the task.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Uploads until it is dropped. Dropping it at any moment is safe: what was not acknowledged is sent again.
    /// `heart` beats with each step of a round and in the waits between; a step ends within [`Config::step`].
    pub async fn run(mut self, heart: Heart) {
        loop {
            let round = self.round(&heart).await;
            match round {
                Round::Done => {
                    let Self { wakes, config, .. } = &self;
                    let idle = async {
                        tokio::select! {
                            () = wakes.sealed.notified() => {}
                            () = wakes.kick.notified() => {}
                            () = tokio::time::sleep(config.interval.0) => {}
                        }
                    };
                    heart.during(idle).await;
                }
                Round::Failed(failure, asked) => {
                    let failures = self.record_failure(failure);
                    let random = random::<8>().map_or(u64::MAX, u64::from_ne_bytes);
                    let (base, cap) = (self.config.retry_base.0, self.config.retry_cap.0);
                    let wait = retry::delay(failures, random, base, cap, asked);
                    debug!(%failure, failures, ?wait, "waiting for the hub");
                    let (kick, hubs) = (&self.wakes.kick, &mut self.hubs);
                    let idle = async {
                        tokio::select! {
                            () = kick.notified() => {}
                            Ok(()) = hubs.changed(), if failure == Failure::NoHubKey => {}
                            () = tokio::time::sleep(wait) => {}
                        }
                    };
                    heart.during(idle).await;
                }
            }
        }
    }

    fn record_failure(&self, failure: Failure) -> u32 {
        let mut failures = 0;
        self.status.send_modify(|status| {
            if status.failure != Some(failure) {
                warn!(%failure, "usage is not uploaded");
            }
            status.link = status.link.failed();
            status.failure = Some(failure);
            status.failures += 1;
            failures = status.link.failures();
        });
        failures
    }

    async fn round(&mut self, heart: &Heart) -> Round {
        match self.try_round(heart).await {
            Ok(()) => Round::Done,
            Err((failure, asked)) => Round::Failed(failure, asked),
        }
    }

    async fn try_round(&mut self, heart: &Heart) -> Result<(), (Failure, Option<Duration>)> {
        let early = |failure| (failure, None);
        let hubs = self.hubs.borrow_and_update().clone();
        let mut connection = None;
        let mut after: Option<Cursor> = None;
        let mut passed_over = 0;
        // Reading costs the device flash and memory, so nothing is read before there is a hub to give it to.
        while self.backlog.waiting().is_none_or(|waiting| waiting > passed_over) {
            heart.beat(Instant::now());
            if hubs.is_empty() {
                return Err(early(Failure::NoHubKey));
            }
            let open = match &mut connection {
                Some(open) => open,
                none => none.insert(self.client.connect().await.map_err(early)?),
            };
            let Some(file) = self.backlog.oldest(after).await.map_err(|_| early(Failure::Spool))? else { break };
            let (at, digest, len) = (file.at, file.digest, file.bytes.len() as u64);
            let answer = open.put(&self.device, file).await.map_err(early)?;
            match judge(&answer, self.device.id().into(), at, &digest, &hubs) {
                Ok(receipt) => {
                    self.backlog.acknowledge(at, &digest).await.map_err(|_| early(Failure::Spool))?;
                    self.record_success(len, receipt.at_ms);
                    info!(stream = %at.stream, seq = at.seq, bytes = len, "a usage file is at the hub");
                }
                Err(Judged::PassOver) => {
                    warn!(stream = %at.stream, seq = at.seq, status = answer.status.as_u16(), "the hub refuses a usage file");
                    passed_over += 1;
                    after = Some(at);
                    // The hub may close after a refusal.
                    connection = None;
                }
                Err(Judged::Stop(failure)) => return Err((failure, answer.retry_after)),
            }
        }
        self.status.send_modify(|status| {
            status.passed_over = passed_over;
            status.failure = None;
        });
        Ok(())
    }

    fn record_success(&self, len: u64, receipt_ms: i64) {
        self.status.send_modify(|status| {
            status.link = Link::Up;
            status.files += 1;
            status.bytes += len;
            status.receipt_ms = Some(receipt_ms);
        });
    }
}

/// What an answer other than a good receipt means.
#[derive(Debug, PartialEq, Eq)]
enum Judged {
    /// This file only.
    PassOver,
    /// Whatever is sent next.
    Stop(Failure),
}

/// Judges an answer to the file `digest` at `at` of `device`. Pure.
fn judge(
    answer: &Answer,
    device: DeviceId,
    at: Cursor,
    digest: &Digest,
    hubs: &[PublicKey],
) -> Result<Receipt, Judged> {
    match answer.status {
        StatusCode::OK => {
            let receipt = Receipt::verify(&answer.body, hubs).map_err(|_| Judged::Stop(Failure::ReceiptRefused))?;
            let Receipt { stream, seq, .. } = receipt;
            let for_this = receipt.device == device && Cursor { stream, seq } == at && receipt.digest == *digest;
            if for_this { Ok(receipt) } else { Err(Judged::Stop(Failure::ReceiptRefused)) }
        }
        StatusCode::CONFLICT | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
            Err(Judged::PassOver)
        }
        StatusCode::FORBIDDEN => Err(Judged::Stop(Failure::UnknownDevice)),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Err(Judged::Stop(Failure::Busy)),
        _ => Err(Judged::Stop(Failure::UnexpectedStatus)),
    }
}

#[cfg(test)]
mod tests;
