//! Which devices the hub knows, for requests: nobody waits for the ledger to ask.
//!
//! Three ways to be enrolled: the configuration lists it, a person added it to the ledger (`tidegate-hub device add`), or
//! an enrolment lies in the folder of bundles for which the root vouches. A revocation in the ledger goes before all.
//! Renewed from the ledger's change counter while the hub runs.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::HeaderValue;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::bundles::List;
use super::config::device_key;
use super::ledger::{By, Device, Enrolled, Heard};
use super::refusal::Refusal;
use super::writer::Writer;
use crate::clock::Reading;
use crate::ids::DeviceId;
use crate::spool::backlog::Waits;
use crate::spool::protocol::DEVICE_KEY;

/// Most devices that `enrol = "any"` lets in.
const GUESTS_LIMIT: usize = 10_000;

/// How often the ledger is asked whether devices have changed.
const LOOK: Duration = Duration::from_secs(1);
/// After so many of these it is told who was heard of, in one write for all.
const TELL: u64 = 30;

/// Everybody, as of a moment.
#[derive(Debug, Clone, Default)]
struct Roll {
    enrolled: HashMap<DeviceId, Arc<Device>>,
    revoked: HashSet<DeviceId>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Devices {
    /// Those of the configuration.
    listed: HashMap<DeviceId, Arc<Device>>,
    /// Whether whoever comes with its own key is let in.
    guests: bool,
    roll: watch::Sender<Arc<Roll>>,
    /// Those that were heard of since the ledger was told, and what of their backlog.
    heard: Mutex<HashMap<DeviceId, Option<(Waits, i64)>>>,
    /// How many hints of a backlog could not be read.
    unread: AtomicU64,
}

impl Devices {
    pub(super) fn new(listed: HashMap<DeviceId, Device>, guests: bool) -> Self {
        let listed: HashMap<_, _> = listed.into_iter().map(|(id, device)| (id, Arc::new(device))).collect();
        let roll = Roll { enrolled: listed.clone(), revoked: HashSet::new() };
        Self {
            listed,
            guests,
            roll: watch::Sender::new(Arc::new(roll)),
            heard: Mutex::default(),
            unread: AtomicU64::new(0),
        }
    }

    /// Takes over what the ledger has now.
    pub(super) fn renew(&self, ledger: Vec<Enrolled>) {
        let mut roll = Roll { enrolled: self.listed.clone(), revoked: HashSet::new() };
        for Enrolled { device, by, is_revoked } in ledger {
            if is_revoked {
                roll.revoked.insert(device.id());
            } else if by == By::Command || (self.guests && by == By::Any) {
                roll.enrolled.entry(device.id()).or_insert_with(|| Arc::new(device));
            }
        }
        self.roll.send_replace(Arc::new(roll));
    }

    /// A device that is known has shown that it is there, and `told` what waits on it.
    pub(super) fn hear(&self, id: DeviceId, told: Option<&HeaderValue>) {
        let waits = told.and_then(|told| {
            let waits = told.to_str().ok().and_then(Waits::read);
            self.unread.fetch_add(u64::from(waits.is_none()), Ordering::Relaxed);
            Some((waits?, Reading::now().wall_ms))
        });
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let before = heard.entry(id).or_default();
        *before = waits.or(*before);
    }

    /// How many hints of a backlog could not be read since the start.
    pub(super) fn unread(&self) -> u64 {
        self.unread.load(Ordering::Relaxed)
    }

    /// Tells the ledger who was heard of; where it is busy, the next time.
    pub(super) fn tell(&self, writer: &Writer) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let told = heard.iter().map(|(device, waits)| Heard { device: *device, waits: *waits }).collect();
        if !heard.is_empty() && writer.touch(told) {
            heard.clear();
        }
    }

    /// Renews it again and again until it is dropped.
    pub(super) async fn tend(&self, writer: Writer) {
        let mut known = None;
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for turn in 1_u64.. {
            look.tick().await;
            if turn.is_multiple_of(TELL) {
                self.tell(&writer);
            }
            // Where the ledger does not answer, its thread has said why; the last roll stays.
            if let Ok(Some((now, devices))) = writer.devices_since(known).await {
                known = Some(now);
                self.renew(devices);
            }
        }
    }

    /// Wakes whoever waits for another standing of a device.
    pub(super) fn changes(&self) -> Changes {
        Changes(self.roll.subscribe())
    }

    /// The enrolled device, also by what lies in the folder; or, where guests are let in, the one whose key is shown.
    pub(super) fn find(
        &self,
        id: DeviceId,
        headers: &HeaderMap,
        folder: Option<&List>,
    ) -> Result<Arc<Device>, Refusal> {
        let roll = self.roll.borrow();
        if roll.revoked.contains(&id) {
            return Err(Refusal::DeviceRevoked);
        }
        if let Some(device) = roll.enrolled.get(&id) {
            return Ok(Arc::clone(device));
        }
        drop(roll);
        let device = |key, came_by_itself| Arc::new(Device { key, name: id.to_string(), came_by_itself });
        if let Some(key) = folder.and_then(|list| list.enrolled(id)) {
            return Ok(device(key, false));
        }
        let shown = headers.get(DEVICE_KEY).and_then(|value| value.to_str().ok()).and_then(device_key);
        match shown.filter(|key| self.guests && DeviceId::from(key.id()) == id) {
            Some(key) => Ok(device(key, true)),
            None => Err(Refusal::UnknownDevice),
        }
    }

    /// Remembers a guest, after its signature proved that it has the key.
    pub(super) fn admit_guest(&self, device: &Arc<Device>) -> Result<(), Refusal> {
        let id = device.id();
        if self.roll.borrow().enrolled.contains_key(&id) {
            return Ok(());
        }
        let mut is_admitted = false;
        self.roll.send_if_modified(|roll| {
            if roll.enrolled.len() < GUESTS_LIMIT && !roll.revoked.contains(&id) {
                Arc::make_mut(roll).enrolled.insert(id, Arc::clone(device));
                is_admitted = true;
            }
            false // nobody's standing is worse
        });
        if is_admitted { Ok(()) } else { Err(Refusal::UnknownDevice) }
    }
}

/// See [`Devices::changes`].
#[derive(Debug, Clone)]
pub(super) struct Changes(watch::Receiver<Arc<Roll>>);

impl Changes {
    /// Until a device is revoked that was not; for ever once the hub goes.
    pub(super) async fn revoked(&mut self, id: DeviceId) {
        if self.0.wait_for(|roll| roll.revoked.contains(&id)).await.is_err() {
            std::future::pending().await
        }
    }
}
