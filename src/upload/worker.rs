//! The uploader's task: rounds of uploads, and the waits between them.
//!
//! A round asks for the time, if that is due, and sends files, oldest first, over one connection until none is left or
//! something fails. While one is on its way, the spool deletes the one before it and reads the one behind it, so two are in
//! memory at most. The hub's time comes first: a backlog of months takes hours, and the device may be at 1970.
//! A file that the hub refuses for good (a fork, a damaged file, one by a key that this device had before) is passed over
//! and counted, so that it does not hold up the files behind it. It stays in the spool, and is tried again once a day,
//! after a kick and after a start: each try costs a whole upload.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use tokio::sync::{Notify, watch};
use tracing::{debug, info, warn};

use super::client::{Answer, Connection};
use super::hubs::Hubs;
use super::uplink::part_of;
use super::{Config, Error, Failure, Identity, Link, Uplink, retry};
use crate::clock::Reading;
use crate::ids::{DeviceId, Digest};
use crate::keys::{PublicKey, random};
use crate::spool::backlog::{Backlog, Cursor, Stock, UsageFile};
use crate::spool::receipt::Receipt;
use crate::spool::segment::Unverified;
use crate::spool::timestamp::Question;
use crate::telemetry::Heart;
use crate::units::UnixSeconds;

/// How long a refused file is not sent again.
const REFUSED_AGAIN: Duration = Duration::from_secs(24 * 3600);

/// How often it is looked at least whether the hub may be called again.
const LOOK: Duration = Duration::from_secs(60);

/// How often the hub is asked for the time, beside a start and a kick: the device's own clock hardly drifts meanwhile.
const TIME_AGAIN: Duration = Duration::from_secs(6 * 3600);

/// What wakes the uploader besides its timer.
#[derive(Debug, Clone, Default)]
pub struct Wakes {
    /// A usage file was sealed: ends the wait between rounds, not the wait after a failure.
    pub sealed: Arc<Notify>,
    /// Somebody asks: ends any wait. So does a link that comes up ([`Uplink`]), after a failure.
    pub kick: Arc<Notify>,
    /// The uploader's own word to whoever fetches bundles: the hub has others than before.
    pub bundles: Arc<Notify>,
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
    /// Files that are passed over, because the hub refuses them for good.
    pub passed_over: u64,
    /// Those of them that were signed by a key which this device no longer has, and which the hub does not know:
    /// enrol the old key there as well.
    pub by_another_key: u64,
    /// Which hub of [`Config::hubs`] that was, or the last one that was tried.
    pub hub: Option<usize>,
    /// Why the hubs are not called now, though nothing failed.
    pub held: Option<Failure>,
    /// Why the last round ended early.
    pub failure: Option<Failure>,
    /// When the newest receipt came, by CLOCK_BOOTTIME: the wall clock may be anywhere, and the hub's is another.
    pub receipt: Option<Duration>,
    /// What time it was when the hub was asked last: its signed word, which may raise the floor by so much and no more.
    pub hub_time: Option<UnixSeconds>,
}

/// Everything that the task needs.
#[derive(Debug)]
pub struct Worker<B> {
    backlog: B,
    centre: Hubs,
    device: PublicKey,
    hubs: watch::Receiver<Arc<[PublicKey]>>,
    wakes: Wakes,
    uplink: Arc<Uplink>,
    links: watch::Receiver<u64>,
    config: Config,
    status: watch::Sender<Status>,
    refused: Refused,
    asked: Option<tokio::time::Instant>,
    /// The hub's last hint of what it has for this device.
    hint: Option<String>,
}

/// The files that the hub refused. Those before the last of them are refused or gone, so a round begins behind it.
#[derive(Debug, Default)]
struct Refused {
    last: Option<Cursor>,
    files: u64,
    by_another_key: u64,
    since: Option<tokio::time::Instant>,
}

/// A file that the hub has, and the spool perhaps too.
#[derive(Debug, Clone, Copy)]
struct Done {
    at: Cursor,
    digest: Digest,
    bytes: u64,
}

/// What a round came to.
enum Round {
    /// Every file that could be sent was.
    Done,
    /// Nothing may be sent for so long at most.
    Held(Failure, Duration),
    Failed(Failure, Option<Duration>),
}

/// What ended the wait between two rounds.
enum Woken {
    Timer,
    Link,
    Hand,
}

impl<B: Backlog> Worker<B> {
    /// Checks the configuration; `None` if it names no hub. `hubs` are the keys of the root's hub role.
    pub fn new(
        config: Config,
        uplink: &Arc<Uplink>,
        backlog: B,
        identity: &Identity,
        hubs: watch::Receiver<Arc<[PublicKey]>>,
        wakes: Wakes,
    ) -> Result<Option<Self>, Error> {
        let Some(centre) = Hubs::new(&config, uplink, Some(identity))? else { return Ok(None) };
        let device = identity.public();
        let status = watch::Sender::new(Status::default());
        let (refused, asked, hint, links) = (Refused::default(), None, None, uplink.links());
        let uplink = Arc::clone(uplink);
        Ok(Some(Self { backlog, centre, device, hubs, wakes, uplink, links, config, status, refused, asked, hint }))
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
            match heart.during(self.rest(round)).await {
                Woken::Timer => {}
                Woken::Link => self.status.send_modify(|status| status.link = status.link.anew()),
                Woken::Hand => self.begin_anew(),
            }
        }
    }

    /// Until the next round.
    async fn rest(&mut self, round: Round) -> Woken {
        let (wakes, hubs) = (&self.wakes, &mut self.hubs);
        let (wait, failure) = match round {
            Round::Done => (self.config.interval.0, None),
            Round::Held(failure, wait) => {
                hold(&self.status, failure, wait);
                // Clocks are set meanwhile, and devices sleep. Not all that wait for one hour come in its first second.
                let wait = if wait > LOOK { LOOK } else { wait + part_of(self.config.interval.0.min(LOOK)) };
                (wait, Some(failure))
            }
            Round::Failed(failure, asked) => {
                let failures = record_failure(&self.status, failure);
                let random = random::<8>().map_or(u64::MAX, u64::from_ne_bytes);
                let (base, cap) = (self.config.retry_base.0, self.config.retry_cap.0);
                let wait = retry::delay(failures, random, base, cap, asked);
                debug!(%failure, failures, ?wait, "waiting for the hub");
                (wait, Some(failure))
            }
        };
        tokio::select! {
            () = wakes.sealed.notified(), if failure.is_none() => Woken::Timer,
            () = wakes.kick.notified() => Woken::Hand,
            Ok(()) = self.links.changed(), if failure.is_some_and(|failure| !failure.is_held()) => Woken::Link,
            Ok(()) = hubs.changed(), if failure == Some(Failure::NoHubKey) => Woken::Timer,
            () = tokio::time::sleep(wait) => Woken::Timer,
        }
    }

    /// After a kick nothing is due only later.
    fn begin_anew(&mut self) {
        (self.refused, self.asked) = (Refused::default(), None);
        self.centre.call_all();
        self.uplink.open_by_hand();
    }

    /// One hub after the other, until one has taken what it can.
    async fn round(&mut self, heart: &Heart) -> Round {
        if let Some((failure, wait)) = self.uplink.held() {
            return Round::Held(failure, wait);
        }
        self.status.send_if_modified(|status| {
            let was_held = status.held.take().is_some();
            status.link = if status.link == Link::Held { Link::Unknown } else { status.link };
            was_held
        });
        let mut failure = Failure::Busy;
        for place in self.centre.due() {
            match self.try_round(place, heart).await {
                Ok(()) => return Round::Done,
                Err((failed, _)) if failed.is_held() => {
                    let wait = self.uplink.held().map_or(Duration::ZERO, |(_, wait)| wait);
                    return Round::Held(failed, wait);
                }
                Err((failed, asked)) => {
                    debug!(hub = self.centre.name(place), failure = %failed, "a hub of the list");
                    self.centre.put_off(place, asked, self.config.retry_cap.0);
                    self.status.send_modify(|status| status.hub = Some(place));
                    failure = failed;
                }
            }
            if !failure.moves_on() {
                break;
            }
        }
        Round::Failed(failure, self.centre.wait())
    }

    async fn try_round(&mut self, place: usize, heart: &Heart) -> Result<(), (Failure, Option<Duration>)> {
        let early = |failure| (failure, None);
        let hubs = self.hubs.borrow_and_update().clone();
        let mut connection = None;
        let is_old = self.refused.since.is_some_and(|since| since.elapsed() >= REFUSED_AGAIN);
        let waiting = self.backlog.waiting();
        if is_old || waiting.is_some_and(|waiting| waiting.files < self.refused.files) {
            self.refused = Refused::default();
        }
        if let Some(waiting) = waiting {
            self.uplink.tell(waiting, None);
        }
        if !hubs.is_empty() && self.asked.is_none_or(|asked| asked.elapsed() >= TIME_AGAIN) {
            heart.beat(Instant::now());
            let mut open = self.centre.connect(place).await.map_err(early)?;
            // The hub may close after a refusal.
            connection = self.ask_time(place, &mut open, &hubs, heart).await.map_err(early)?.then_some(open);
        }
        let mut done = None;
        let sent = self.send_files(place, connection, &hubs, &mut done, heart).await;
        self.settle(done, heart).await.map_err(early)?;
        sent?;
        self.status.send_modify(|status| status.failure = None);
        self.tell_refused();
        Ok(())
    }

    /// Sends what waits; the last file that the hub has is `done`, and the spool may still have it. Reading costs the device
    /// flash and memory, so nothing is read before there is a hub to give it to.
    async fn send_files(
        &mut self,
        place: usize,
        mut connection: Option<Connection>,
        hubs: &[PublicKey],
        done: &mut Option<Done>,
        heart: &Heart,
    ) -> Result<(), (Failure, Option<Duration>)> {
        let early = |failure| (failure, None);
        let mut ahead = None;
        while ahead.is_some() || self.more_than(u64::from(done.is_some())) {
            heart.beat(Instant::now());
            if hubs.is_empty() {
                return Err(early(Failure::NoHubKey));
            }
            if let Some((failure, _)) = self.uplink.held() {
                return Err(early(failure));
            }
            let open = match &mut connection {
                Some(open) => open,
                none => none.insert(self.centre.connect(place).await.map_err(early)?),
            };
            let file = match ahead.take() {
                Some(file) => file,
                None => {
                    self.settle(done.take(), heart).await.map_err(early)?;
                    match self.read(self.refused.last, heart).await.map_err(early)? {
                        Some(file) => file,
                        None => break,
                    }
                }
            };
            let (at, digest, len) = (file.at, file.digest, file.bytes.len() as u64);
            let own = DeviceId::from(self.device.id());
            // After a new key the files by the old one are still another device's, which the hub may know.
            let parsed = Unverified::parse(&file.bytes);
            let maker = parsed.as_ref().map_or(own, |file| file.claimed().device());
            if let Some(waiting) = self.backlog.waiting() {
                // The files behind this one begin where it ends.
                let end = parsed.as_ref().ok().map(|file| file.claimed().last_ms.max(0) / 1_000);
                let gone =
                    Stock { files: 1 + u64::from(done.is_some()), bytes: len + done.map_or(0, |done| done.bytes) };
                self.uplink.tell(waiting.without(gone), end);
            }
            // It ends by itself as soon as nothing moves, and may take as long as it likes until then. The spool forgets the
            // file before it meanwhile, and reads the one behind it.
            let sent = heart.during(open.put(&self.device, maker, file));
            let (answer, behind) = tokio::join!(sent, self.meanwhile(done.take(), at, heart));
            ahead = behind.map_err(early)?;
            let answer = answer.map_err(early)?;
            match judge(&answer, maker, own, at, &digest, hubs) {
                Ok(_) => {
                    if answer.bundles.is_some() && answer.bundles != self.hint {
                        self.hint = answer.bundles;
                        self.wakes.bundles.notify_one();
                    }
                    *done = Some(Done { at, digest, bytes: len });
                    self.record_success(place, len);
                    info!(stream = %at.stream, seq = at.seq, bytes = len, "a usage file is at the hub");
                }
                Err(Judged::PassOver) => {
                    warn!(stream = %at.stream, seq = at.seq, status = answer.status.as_u16(), "the hub refuses a usage file");
                    self.pass_over(at, maker != own);
                    // The hub may close after a refusal.
                    connection = None;
                }
                Err(Judged::Stop(failure)) => return Err((failure, answer.retry_after)),
            }
        }
        Ok(())
    }

    /// Whether files wait beside those that the hub refused and so many others.
    fn more_than(&self, others: u64) -> bool {
        self.backlog.waiting().is_none_or(|waiting| waiting.files > self.refused.files + others)
    }

    /// The oldest file after `after`. The spool waits for its child for minutes, and has a heart of its own.
    async fn read(&self, after: Option<Cursor>, heart: &Heart) -> Result<Option<UsageFile>, Failure> {
        heart.during(self.backlog.oldest(after)).await.map_err(|_| Failure::Spool)
    }

    /// Has the spool forget a file that is at the hub.
    async fn settle(&self, done: Option<Done>, heart: &Heart) -> Result<(), Failure> {
        let Some(Done { at, digest, .. }) = done else { return Ok(()) };
        heart.during(self.backlog.acknowledge(at, &digest)).await.map_err(|_| Failure::Spool)
    }

    /// What the spool does while the file `at` is on its way: see [`Self::settle`]; and the next one, if there may be one.
    async fn meanwhile(&self, done: Option<Done>, at: Cursor, heart: &Heart) -> Result<Option<UsageFile>, Failure> {
        self.settle(done, heart).await?;
        if self.more_than(1) { self.read(Some(at), heart).await } else { Ok(None) }
    }

    /// Asks the hub what time it is; whether it said so. A hub that does not, or whom nobody believes, still gets files.
    async fn ask_time(
        &mut self,
        place: usize,
        open: &mut Connection,
        hubs: &[PublicKey],
        heart: &Heart,
    ) -> Result<bool, Failure> {
        let Some(nonce) = random() else { return Ok(true) };
        let asked = Question { device: self.device.id().into(), nonce };
        let answer = heart.during(open.time(&self.device, &asked)).await?;
        if !answer.status.is_server_error() {
            self.asked = Some(tokio::time::Instant::now());
        }
        if answer.status != StatusCode::OK {
            debug!(status = answer.status.as_u16(), "the hub does not tell the time");
            return Ok(false);
        }
        match asked.read(&answer.body, hubs) {
            Ok(at) => {
                self.status.send_modify(|status| {
                    (status.hub_time, status.link, status.hub) = (Some(at), Link::Up, Some(place))
                });
            }
            Err(error) => warn!(%error, "the hub's time is not believed"),
        }
        Ok(true)
    }

    fn pass_over(&mut self, at: Cursor, by_another_key: bool) {
        let Refused { last, files, by_another_key: others, since } = &mut self.refused;
        *last = Some(at);
        *files += 1;
        *others += u64::from(by_another_key);
        since.get_or_insert_with(tokio::time::Instant::now);
        self.tell_refused();
    }

    fn tell_refused(&self) {
        let Refused { files, by_another_key, .. } = self.refused;
        self.status.send_modify(|status| (status.passed_over, status.by_another_key) = (files, by_another_key));
    }

    fn record_success(&self, place: usize, len: u64) {
        self.status.send_modify(|status| {
            status.hub = Some(place);
            status.link = Link::Up;
            status.files += 1;
            status.bytes += len;
            status.receipt = Some(Reading::now().boot);
        });
    }
}

fn hold(status: &watch::Sender<Status>, failure: Failure, wait: Duration) {
    status.send_if_modified(|status| {
        let is_new = status.held.replace(failure) != Some(failure);
        match failure {
            Failure::DailyLimit if is_new => warn!(?wait, "{failure}: nothing more goes to the hub until tomorrow"),
            _ if is_new => info!(?wait, "{failure}"),
            _ => {}
        }
        // What failed before says nothing of now.
        (status.link, status.failure) = (Link::Held, None);
        is_new
    });
}

/// Failures in a row with this one.
fn record_failure(status: &watch::Sender<Status>, failure: Failure) -> u32 {
    let mut failures = 0;
    status.send_modify(|status| {
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

/// What an answer other than a good receipt means.
#[derive(Debug, PartialEq, Eq)]
enum Judged {
    /// This file only.
    PassOver,
    /// Whatever is sent next.
    Stop(Failure),
}

/// Judges an answer to the file `digest` at `at`, which `maker` signed. Pure.
fn judge(
    answer: &Answer,
    maker: DeviceId,
    own: DeviceId,
    at: Cursor,
    digest: &Digest,
    hubs: &[PublicKey],
) -> Result<Receipt, Judged> {
    match answer.status {
        StatusCode::OK => {
            let receipt = Receipt::verify(&answer.body, hubs).map_err(|_| Judged::Stop(Failure::ReceiptRefused))?;
            let Receipt { stream, seq, .. } = receipt;
            let for_this = receipt.device == maker && Cursor { stream, seq } == at && receipt.digest == *digest;
            if for_this { Ok(receipt) } else { Err(Judged::Stop(Failure::ReceiptRefused)) }
        }
        StatusCode::CONFLICT | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
            Err(Judged::PassOver)
        }
        StatusCode::FORBIDDEN if maker != own => Err(Judged::PassOver),
        StatusCode::FORBIDDEN => Err(Judged::Stop(Failure::UnknownDevice)),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Err(Judged::Stop(Failure::Busy)),
        _ => Err(Judged::Stop(Failure::UnexpectedStatus)),
    }
}

#[cfg(test)]
mod tests;
