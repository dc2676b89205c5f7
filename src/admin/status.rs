//! What `/status` tells, typed: the daemon writes it, [`client`](super::client) reads it.
//!
//! Fields are only ever added. A reader ignores those that it does not know, and `default` stands in for those
//! that an older daemon does not send, so the command and the daemon may be of different versions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{DeviceId, Digest};
use crate::units::{TimeBounds, TimeQuality, UnixSeconds};

/// The whole status of one daemon at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The version that runs.
    pub version: String,
    /// Which device this is.
    pub device: DeviceId,
    /// Its labels, from its enrolment.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// `CardCloned` or `CardRestored` where the state folder came to another machine since the device was enrolled.
    #[serde(default)]
    pub card: Option<String>,
    /// Seconds since the daemon started.
    pub uptime_seconds: u64,
    /// Why requests are not served under a policy; absent when they are.
    #[serde(default)]
    pub not_ready: Option<String>,
    /// What is in force.
    pub policy: PolicyStatus,
    /// What is known of the present moment.
    pub time: TimeStatus,
    /// The usage that waits on this device.
    pub spool: SpoolStatus,
    /// The way to the hub; absent where none is configured.
    #[serde(default)]
    pub upload: Option<UploadStatus>,
    /// The last bundles that were judged, newest first; bounded by the daemon.
    #[serde(default)]
    pub imports: Vec<Imported>,
    /// Bundles and enrolments that were refused since the start because another one had their number. Not 0 is an alarm: keys
    /// of the deployment signed both.
    #[serde(default)]
    pub equivocations: u64,
    /// How old, at least, what is known of revocations is; absent while nothing is in force.
    #[serde(default)]
    pub revocations_age_seconds: Option<u64>,
}

/// What is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum PolicyStatus {
    /// No policy: every route is refused, health and import are answered.
    SafeMode,
    /// A policy serves.
    Active {
        /// SHA-256 of its bundle's manifest.
        id: Digest,
        /// Its bundle's sequence number.
        seq: u64,
        /// The generation of the root that it was made under.
        epoch: u64,
        /// When it was activated, by the device's lower bound of the time.
        activated_at: UnixSeconds,
        /// When it turns stale; absent where it never does.
        #[serde(default)]
        expires_at: Option<UnixSeconds>,
        /// Past its expiry: it serves on, but a new bundle is due.
        stale: bool,
        /// Not yet known to be good: should it bring the daemon down, the one before it comes back.
        #[serde(default)]
        on_trial: bool,
    },
}

/// What is known of the present moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeStatus {
    /// The least that the time can be.
    pub lower: UnixSeconds,
    /// The most that it can be; absent where no trusted source says so.
    #[serde(default)]
    pub upper: Option<UnixSeconds>,
    /// Where the bounds come from.
    pub quality: TimeQuality,
}

impl From<TimeBounds> for TimeStatus {
    fn from(TimeBounds { lower, upper, quality }: TimeBounds) -> Self {
        Self { lower, upper, quality }
    }
}

/// The usage that waits on this device, and what became of the records since the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolStatus {
    /// The stream that files go into now; absent before the spool was opened for the first time in this run.
    #[serde(default)]
    pub stream: Option<String>,
    /// Usage files that the hub has not acknowledged.
    pub backlog_files: u64,
    /// Their bytes.
    pub backlog_bytes: u64,
    /// The disk that they take, by which the backlog is limited.
    #[serde(default)]
    pub disk_bytes: u64,
    /// Bytes of records that wait to be sealed.
    #[serde(default)]
    pub open_bytes: u64,
    /// Bytes of records that a power cut would take now.
    #[serde(default)]
    pub unsynced_bytes: u64,
    /// Records written in full.
    pub appended: u64,
    /// Records kept only as counters.
    pub rolled_up: u64,
    /// Records lost; each is in a gap record or a tombstone too.
    pub lost: u64,
    /// The last thing that went wrong; absent once it works again.
    #[serde(default)]
    pub last_error: Option<String>,
}

/// The way to the hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadStatus {
    /// Usage files acknowledged since the start.
    pub files: u64,
    /// Rounds of uploads that ended early since the start; a success forgets none.
    pub failures: u64,
    /// Usage files that the hub refuses for good; they stay, and are offered again every day.
    #[serde(default)]
    pub passed_over: u64,
    /// Those of them that a key signed which this device no longer has: enrol it at the hub as well.
    #[serde(default)]
    pub by_another_key: u64,
    /// Whether the hub tells at once what is new; else it is asked now and then.
    #[serde(default)]
    pub hears_events: bool,
    /// The hub that took the last file, or the last one that was tried; absent before that.
    #[serde(default)]
    pub hub: Option<String>,
    /// Why the hubs are not called now, though nothing failed: no window is open, or the day's limit is used up.
    #[serde(default)]
    pub held: Option<String>,
    /// Bytes that went to the hubs and came from there today; without a daily limit since the start, if that is later.
    #[serde(default)]
    pub day_bytes: u64,
    /// Seconds since the last receipt; absent before the first.
    #[serde(default)]
    pub last_success_seconds: Option<u64>,
    /// Why the last attempt failed; absent when it did not.
    #[serde(default)]
    pub last_error: Option<String>,
}

/// One bundle that was judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// Its file name in the inbox, cut to 128 bytes.
    pub name: String,
    /// The result's name: `Activated`, `AlreadyInstalled`, or the name of the error.
    pub result: String,
    /// When, by the device's lower bound of the time.
    pub at: UnixSeconds,
    /// The sequence number, where the manifest was believed.
    #[serde(default)]
    pub seq: Option<u64>,
}
