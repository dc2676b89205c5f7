//! Hears from the hub that there is something new: holds its stream of events, and wakes whoever fetches bundles.
//!
//! The hint at a stream's beginning tells what was missed while there was none. A stream that says nothing for three of
//! the hub's beats is given up. A task and a connection of its own; it fetches and believes nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use hyper::StatusCode;
use tokio::sync::{Notify, watch};
use tracing::debug;

use super::client::retry_after;
use super::hubs::Hubs;
use super::{Config, Error, Failure, Identity, Uplink, retry};
use crate::ids::DeviceId;
use crate::keys::{PublicKey, random};
use crate::spool::protocol::{BUNDLES_EVENT, HINT_LIMIT, events_path};
use crate::telemetry::Heart;

/// How long a stream may say nothing: the hub says something every 20 seconds.
const SILENCE: Duration = Duration::from_secs(65);
/// A stream that lasted so long was a good one: what ends it is no failure in a row.
const LASTED: Duration = Duration::from_secs(60);
/// Longest line that is looked at, in bytes.
const LINE_LIMIT: usize = 128;

/// Everything that the task needs.
#[derive(Debug)]
pub struct Listener {
    centre: Hubs,
    uplink: Arc<Uplink>,
    device: PublicKey,
    hint: Arc<Notify>,
    config: Config,
    /// What the hub said last.
    heard: Option<String>,
    is_open: watch::Sender<bool>,
}

impl Listener {
    /// Checks the configuration; `None` if it names no hub or wants no events. `hint` wakes whoever fetches.
    pub fn new(
        config: Config,
        uplink: &Arc<Uplink>,
        identity: &Identity,
        hint: Arc<Notify>,
    ) -> Result<Option<Self>, Error> {
        let centre = Hubs::new(&config, uplink, Some(identity))?.filter(|_| config.pull && config.events);
        let (uplink, device) = (Arc::clone(uplink), identity.public());
        let is_open = watch::Sender::new(false);
        Ok(centre.map(|centre| Self { centre, uplink, device, hint, config, heard: None, is_open }))
    }

    /// Whether the hub tells at once what is new.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<bool> {
        self.is_open.subscribe()
    }

    /// Listens until it is dropped; safe at any moment. `heart` beats in the waits.
    pub async fn run(mut self, heart: Heart) {
        let mut failures = 0_u32;
        loop {
            let begun = Instant::now();
            let (failure, asked) = heart.during(self.listen()).await;
            self.is_open.send_replace(false);
            failures = if begun.elapsed() >= LASTED { 1 } else { failures.saturating_add(1) };
            let random = random::<8>().map_or(u64::MAX, u64::from_ne_bytes);
            let Config { retry_base, retry_cap, .. } = self.config;
            let wait = retry::delay(failures, random, retry_base.0, retry_cap.0, asked);
            debug!(%failure, failures, ?wait, "the hub's events are not heard");
            heart.during(tokio::time::sleep(wait)).await;
        }
    }

    /// One stream to its end, and when the hub wants the next one.
    async fn listen(&mut self) -> (Failure, Option<Duration>) {
        let path = events_path(DeviceId::from(self.device.id()));
        let mut connection = match self.centre.connect_any().await {
            Ok((_, connection)) => connection,
            Err(failure) => return (failure, self.uplink.held().map(|(_, wait)| wait)),
        };
        let answer = match connection.get(&self.device, &path, &[]).await {
            Ok(answer) => answer,
            Err(failure) => return (failure, None),
        };
        let asked = retry_after(answer.headers());
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::FORBIDDEN => return (Failure::UnknownDevice, asked),
            StatusCode::UNAUTHORIZED => return (Failure::Unproven, asked),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => return (Failure::Busy, asked),
            // It serves no bundles, or is an older one: now and then is soon enough.
            _ => return (Failure::UnexpectedStatus, Some(self.config.pull_interval.0)),
        }
        self.is_open.send_replace(true);
        let (mut body, mut events) = (answer.into_body(), Events::default());
        loop {
            match tokio::time::timeout(SILENCE, body.frame()).await {
                Err(_) => return (Failure::RequestTimeout, None),
                Ok(None | Some(Err(_))) => return (Failure::Closed, None),
                Ok(Some(Ok(frame))) => {
                    let hint = frame.data_ref().and_then(|bytes| events.take(bytes));
                    if hint.is_some() && hint != self.heard {
                        self.heard = hint;
                        self.hint.notify_one();
                    }
                    // The hub's beat is the clock: when a window closes the stream ends within 20 seconds.
                    if let Some((failure, wait)) = self.uplink.held() {
                        return (failure, Some(wait));
                    }
                }
            }
        }
    }
}

/// What of a stream of events was read so far (HTML, 9.2.6). Pure.
#[derive(Debug, Default)]
struct Events {
    line: Vec<u8>,
    is_hint: bool,
    data: Option<String>,
}

impl Events {
    /// Reads on; the last hint that is whole.
    fn take(&mut self, bytes: &[u8]) -> Option<String> {
        let mut hint = None;
        for byte in bytes {
            match byte {
                b'\n' => hint = self.end_of_line().or(hint),
                b'\r' => {}
                // Of what is too long nothing is taken: the rest makes it no field that is known.
                byte if self.line.len() < LINE_LIMIT => self.line.push(*byte),
                _ => self.line.clear(),
            }
        }
        hint
    }

    fn end_of_line(&mut self) -> Option<String> {
        let line = String::from_utf8(std::mem::take(&mut self.line)).unwrap_or_default();
        if line.is_empty() {
            let (is_hint, data) = (std::mem::take(&mut self.is_hint), self.data.take());
            return data.filter(|data| is_hint && (1..=HINT_LIMIT).contains(&data.len()));
        }
        match line.split_once(':') {
            Some(("event", name)) => self.is_hint = name.trim_start() == BUNDLES_EVENT,
            Some(("data", data)) => self.data = Some(data.trim_start().to_owned()),
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_heard_however_its_bytes_come_and_nothing_else_is() {
        let whole = b": \n\nevent: bundles\ndata: 0123456789abcdef\n\n";
        assert_eq!(Events::default().take(whole).as_deref(), Some("0123456789abcdef"));
        let mut events = Events::default();
        let heard: Vec<_> = whole.iter().filter_map(|byte| events.take(&[*byte])).collect();
        assert_eq!(heard, ["0123456789abcdef"]);
        let two = b"event:bundles\r\ndata:a\r\n\r\nevent: bundles\ndata: b\n\n";
        assert_eq!(Events::default().take(two).as_deref(), Some("b"), "the last");
        let long = "x".repeat(1 << 20);
        for other in [
            "event: other\ndata: a\n\n",
            "data: a\n\n",
            "event: bundles\n\ndata: a\n\n",
            "event: bundles\ndata: \n\n",
            "event: bundles\ndata: a",
            &format!("event: bundles\ndata: {}\n\n", &long[..65]),
            &format!("event: bundles\ndata: {long}\n\n"),
            &long,
        ] {
            let mut events = Events::default();
            assert_eq!(events.take(other.as_bytes()), None, "{:.60}", other);
            assert!(events.line.capacity() <= 2 * LINE_LIMIT);
        }
    }
}
