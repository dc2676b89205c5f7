//! The hubs in the operator's order: each round begins at the first, and the next is tried at once where one is not there.
//!
//! A hub that asks to come later is passed over until then, unless somebody asks. All of them are one deployment's: their
//! keys are of one root, so a receipt of any frees a file.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::client::{Client, Connection};
use super::{Config, Error, Failure, Identity, Uplink};
use crate::disk;

/// Largest authority file, in bytes.
const AUTHORITY_LIMIT: u64 = 1 << 20;

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Hubs(Vec<Hub>);

#[derive(Debug, Clone)]
struct Hub {
    client: Client,
    /// It asked not to be called before.
    not_before: Option<Instant>,
}

impl Hubs {
    /// The hubs that `config` names, if it names any, for the device of `identity`. Checks their addresses and pins;
    /// reads the authority file.
    pub(super) fn new(
        config: &Config,
        uplink: &Arc<Uplink>,
        identity: Option<&Identity>,
    ) -> Result<Option<Self>, Error> {
        if config.hubs.is_empty() {
            return Ok(None);
        }
        let authorities = match &config.authority_file {
            None => Vec::new(),
            Some(path) => disk::read_limited(path, AUTHORITY_LIMIT)
                .map_err(|source| Error::AuthorityFile { path: path.clone(), source })?,
        };
        let hub = |hub: &String| {
            let client = Client::new(config, hub, &authorities, Arc::clone(uplink), identity.cloned())?;
            Ok(Hub { client, not_before: None })
        };
        config.hubs.iter().map(hub).collect::<Result<_, _>>().map(|hubs| Some(Self(hubs)))
    }

    /// Those that may be called now, by their place, in order.
    pub(super) fn due(&self) -> Vec<usize> {
        let now = Instant::now();
        let is_due = |hub: &Hub| hub.not_before.is_none_or(|at| at <= now);
        self.0.iter().enumerate().filter(|(_, hub)| is_due(hub)).map(|(place, _)| place).collect()
    }

    /// Connects to one of them.
    pub(super) async fn connect(&self, place: usize) -> Result<Connection, Failure> {
        match self.0.get(place) {
            Some(hub) => hub.client.connect().await,
            None => Err(Failure::Connect),
        }
    }

    /// Connects to the first that answers, of those that may be called now.
    pub(super) async fn connect_any(&self) -> Result<(usize, Connection), Failure> {
        let mut failure = Failure::Busy;
        for place in self.due() {
            match self.connect(place).await {
                Ok(connection) => return Ok((place, connection)),
                Err(failed) if failed.moves_on() => failure = failed,
                Err(failed) => return Err(failed),
            }
        }
        Err(failure)
    }

    /// The hub at `place` asks to come again after `asked`, which `cap` cuts.
    pub(super) fn put_off(&mut self, place: usize, asked: Option<Duration>, cap: Duration) {
        if let (Some(hub), Some(asked)) = (self.0.get_mut(place), asked) {
            hub.not_before = Instant::now().checked_add(asked.min(cap));
        }
    }

    /// How long until one may be called; `None` if one may be now.
    pub(super) fn wait(&self) -> Option<Duration> {
        let now = Instant::now();
        let waits = self.0.iter().map(|hub| hub.not_before.map(|at| at.saturating_duration_since(now)));
        waits.min().flatten().filter(|wait| !wait.is_zero())
    }

    /// Whatever they asked for, all may be called.
    pub(super) fn call_all(&mut self) {
        self.0.iter_mut().for_each(|hub| hub.not_before = None);
    }

    /// The host of one, as a file name may hold it.
    pub(super) fn name(&self, place: usize) -> String {
        self.0.get(place).map(|hub| hub.client.name()).unwrap_or_default()
    }
}
