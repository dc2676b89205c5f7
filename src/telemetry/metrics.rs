//! Every metric of the daemon: names, help and labels in one place, in the Prometheus text format 0.0.4.
//!
//! Nothing here is counted: the parts count in plain atomics of their own, once, on their hot path, and
//! [`Sources`] reads those at scrape. A part that is not wired has no family, rather than a family of zeros.
//! A label's value comes from a closed set of names in our code, never from a request, a token or a bundle.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::prometheus_text;
use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::Ages;
use crate::units::{TimeBounds, TimeQuality, UnixSeconds};

pub use prometheus_client::encoding::prometheus_text::CONTENT_TYPE;

/// Reads a part's figures at the moment of a scrape; must not block.
pub type Read<T> = Box<dyn Fn() -> T + Send + Sync>;

/// How often each name of a closed set occurred since the start.
pub type Counts = Vec<(&'static str, u64)>;

/// Where the figures come from, wired by the daemon.
#[derive(Default)]
pub struct Sources {
    /// Requests by outcome name.
    pub requests: Option<Read<Counts>>,
    /// Connections, of both sides.
    pub connections: Option<Read<Connections>>,
    /// Counters in use that the throttle had to forget for want of room.
    pub throttle_forgotten: Option<Read<u64>>,
    /// What is known of the time.
    pub time: Option<Read<TimeBounds>>,
    /// What is in force.
    pub policy: Option<Read<PolicyInForce>>,
    /// What became of the card since the device was enrolled, by name: 1 for what did.
    pub card: Option<Read<Counts>>,
    /// How old, in seconds, what is known of revocations is at least; `None` while nothing is in force.
    pub revocations_age: Option<Read<Option<u64>>>,
    /// Bundles judged, by result name.
    pub imports: Option<Read<Counts>>,
    /// The spool's backlog and what became of the records.
    pub spool: Option<Read<Spooled>>,
    /// What reached the hub.
    pub upload: Option<Read<Uploaded>>,
    /// How long each task has been silent: [`super::Heartbeats::ages`].
    pub tasks: Option<Read<Ages>>,
    /// Panics: [`super::panics`].
    pub panics: Option<Read<u64>>,
}

/// Connections since the start: from downstream, and then those to upstreams.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Connections {
    /// Open now.
    pub open: u64,
    /// Accepted since the start.
    pub accepted: u64,
    /// Ended since the start, by how; with those that are open they make up the accepted.
    pub ended: Counts,
    /// Tries to accept one that failed.
    pub accept_errors: u64,
    /// Opened to upstreams.
    pub upstream: u64,
    /// Requests sent a second time because a connection that was kept had died.
    pub upstream_retries: u64,
}

/// The policy in force; safe mode where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyInForce {
    /// No policy: every route is refused.
    SafeMode,
    /// A policy serves.
    Active {
        /// Sequence number of its bundle.
        seq: u64,
        /// When it was activated, by the device's lower bound of the time.
        activated_at: UnixSeconds,
        /// Past its `expires_at`.
        stale: bool,
        /// On trial: not yet known to be good.
        on_trial: bool,
    },
}

/// The spool's backlog, and what became of the usage records since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spooled {
    /// Sealed bytes that the hub has not acknowledged.
    pub backlog_bytes: u64,
    /// Usage files that the hub has not acknowledged.
    pub backlog_files: u64,
    /// The disk that they take: what `spool.backlog_limit` limits.
    pub disk_bytes: u64,
    /// Bytes of records that wait to be sealed.
    pub open_bytes: u64,
    /// Bytes of records that a power cut would take now.
    pub unsynced_bytes: u64,
    /// Something of it went wrong and does not work again yet.
    pub fails: bool,
    /// Records written in full.
    pub appended: u64,
    /// Records kept only as counters.
    pub rolled_up: u64,
    /// Records lost; each is in a gap record or a tombstone too.
    pub lost: u64,
}

/// Upload since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Uploaded {
    /// Usage files acknowledged by a signed receipt.
    pub files: u64,
    /// Rounds that ended early.
    pub failures: u64,
    /// Files that are passed over, for the hub refuses them for good.
    pub passed_over: u64,
    /// Those of them that were signed by a key which this device no longer has.
    pub by_another_key: u64,
    /// Bytes that went to the hubs and came from there today.
    pub day_bytes: u64,
    /// Outside of the windows, or the day's limit is used up.
    pub held: bool,
    /// How long ago the last receipt came; `None` before the first.
    pub last_success: Option<Duration>,
}

/// The registry, built once.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// Declares every metric over `sources`.
    #[must_use]
    pub fn new(sources: Sources) -> Self {
        let mut registry = Registry::with_prefix("tidegate");
        registry.register_collector(Box::new(sources));
        Self { registry }
    }

    /// All metrics now, as [`CONTENT_TYPE`].
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(8 << 10);
        prometheus_text::encode(&mut text, &self.registry).expect("writing to a string does not fail");
        text
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

impl Collector for Sources {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        page.gauges("build_info", "The version that runs; always 1", "version", [(env!("CARGO_PKG_VERSION"), 1u64)])?;
        if let Some(read) = &self.requests {
            page.counters("requests", "Requests answered, by outcome", "outcome", read())?;
        }
        if let Some(read) = &self.connections {
            let now = read();
            page.gauge("connections_open", "Downstream connections open now", now.open)?;
            page.counter("connections_accepted", "Downstream connections accepted", now.accepted)?;
            let help =
                "Downstream connections ended, by how: an idle one by head_timeout, a broken one in mid-answer too";
            page.counters("connections_ended", help, "end", now.ended)?;
            let help = "Tries to accept a connection that failed, for want of descriptors or memory";
            page.counter("accept_errors", help, now.accept_errors)?;
            page.counter("upstream_connections", "Connections opened to upstreams", now.upstream)?;
            let help = "Requests sent again because a kept connection to an upstream had died";
            page.counter("upstream_retries", help, now.upstream_retries)?;
        }
        if let Some(read) = &self.throttle_forgotten {
            let help = "Rates and quotas that began anew for want of room: raise throttle.slots";
            page.counter("throttle_forgotten", help, read())?;
        }
        if let Some(read) = &self.time {
            let now = read();
            let qualities = [TimeQuality::Synced, TimeQuality::Floor, TimeQuality::Lost];
            let states = qualities.map(|quality| (quality.name(), u64::from(quality == now.quality)));
            page.gauges("time_quality", "How much the wall clock is trusted: 1 for what holds", "quality", states)?;
            let help = "The least that the time can be, in seconds since the Unix epoch";
            page.gauge("time_lower_bound_timestamp_seconds", help, now.lower)?;
        }
        if let Some(read) = &self.policy {
            page.policy(read())?;
        }
        if let Some(read) = &self.card {
            let help = "1 where the state folder came to another machine since the device was enrolled, by how";
            page.gauges("card_moved", help, "how", read())?;
        }
        if let Some(age) = self.revocations_age.as_ref().and_then(|read| read()) {
            let help = "The least age of what is known of revocations; absent while nothing is in force";
            page.gauge("revocations_age_seconds", help, age)?;
        }
        if let Some(read) = &self.imports {
            page.counters("bundle_imports", "Bundles judged, by result", "result", read())?;
        }
        if let Some(read) = &self.spool {
            page.spool(read())?;
        }
        if let Some(read) = &self.upload {
            let now = read();
            page.counter("upload_files", "Usage files acknowledged by the hub's signed receipt", now.files)?;
            page.counter("upload_failures", "Rounds of uploads that ended early", now.failures)?;
            let help = "Usage files that are passed over, for the hub refuses them for good";
            page.gauge("upload_passed_over_files", help, now.passed_over)?;
            let help = "Those of them by a key that this device no longer has and the hub does not know";
            page.gauge("upload_by_another_key_files", help, now.by_another_key)?;
            let help = "Bytes that went to the hubs and came from there today: what upload.daily_limit limits";
            page.gauge("upload_day_bytes", help, now.day_bytes)?;
            let help = "1 while no window is open or the day's limit is used up; status tells which";
            page.gauge("upload_held", help, u64::from(now.held))?;
            if let Some(age) = now.last_success {
                let help = "Time since the hub's last receipt; absent before the first";
                page.gauge("upload_last_success_age_seconds", help, age.as_secs_f64())?;
            }
        }
        if let Some(read) = &self.tasks {
            let ages = read().into_iter().map(|(task, silent)| (task, silent.as_secs_f64()));
            page.gauges("task_heartbeat_age_seconds", "Time since each task's last heartbeat", "task", ages)?;
        }
        if let Some(read) = &self.panics {
            page.counter("panics", "Panics, each a defect that the log tells", read())?;
        }
        Ok(())
    }
}

/// The page being written. A counter's name gets its `_total` from the encoder.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn policy(&mut self, now: PolicyInForce) -> fmt::Result {
        let safe_mode = u64::from(now == PolicyInForce::SafeMode);
        self.gauge("policy_safe_mode", "1 while no policy is in force and every route is refused", safe_mode)?;
        let PolicyInForce::Active { seq, activated_at, stale, on_trial } = now else { return Ok(()) };
        self.gauge("policy_seq", "Sequence number of the policy in force", seq)?;
        let help = "When the policy in force was activated, in seconds since the Unix epoch";
        self.gauge("policy_activation_timestamp_seconds", help, activated_at)?;
        self.gauge("policy_stale", "1 while the policy in force is past its expiry", u64::from(stale))?;
        self.gauge("policy_on_trial", "1 while the policy in force is not yet known to be good", u64::from(on_trial))
    }

    fn spool(&mut self, now: Spooled) -> fmt::Result {
        self.gauge("spool_backlog_bytes", "Sealed usage that the hub has not acknowledged", now.backlog_bytes)?;
        self.gauge("spool_backlog_files", "Usage files that the hub has not acknowledged", now.backlog_files)?;
        let help = "Disk that sealed usage takes: what spool.backlog_limit limits";
        self.gauge("spool_disk_bytes", help, now.disk_bytes)?;
        self.gauge("spool_open_bytes", "Records that wait to be sealed", now.open_bytes)?;
        self.gauge("spool_unsynced_bytes", "Records that a power cut would take now", now.unsynced_bytes)?;
        let help = "1 while something of the spool does not work; status and log tell what";
        self.gauge("spool_failing", help, u64::from(now.fails))?;
        self.counter("spool_records_appended", "Usage records written in full", now.appended)?;
        self.counter("spool_records_rolled_up", "Usage records kept only as counters", now.rolled_up)?;
        self.counter("spool_records_lost", "Usage records lost, each told in a gap or a tombstone", now.lost)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<[(&str, &str); 0], _, u64>(&value, None)
    }

    fn gauge<V: EncodeGaugeValue>(&mut self, name: &str, help: &str, value: V) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn counters<V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'static str, V)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        values.into_iter().try_for_each(|(which, value)| {
            family.encode_family(&[(label, which)])?.encode_counter::<[(&str, &str); 0], _, u64>(&value, None)
        })
    }

    fn gauges<V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (impl AsRef<str>, V)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        values
            .into_iter()
            .try_for_each(|(which, value)| family.encode_family(&[(label, which.as_ref())])?.encode_gauge(&value))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn wired() -> Sources {
        Sources {
            requests: Some(Box::new(|| vec![("Admitted", 7), ("TokenExpired", 0)])),
            connections: Some(Box::new(|| Connections {
                open: 2,
                accepted: 9,
                ended: vec![("broken", 1)],
                accept_errors: 4,
                upstream: 6,
                upstream_retries: 7,
            })),
            throttle_forgotten: Some(Box::new(|| 3)),
            time: Some(Box::new(|| TimeBounds::floor(1_795_564_800))),
            policy: Some(Box::new(|| PolicyInForce::Active {
                seq: 41,
                activated_at: 1_700_000_000,
                stale: false,
                on_trial: true,
            })),
            card: Some(Box::new(|| vec![("CardCloned", 1), ("CardRestored", 0)])),
            revocations_age: Some(Box::new(|| Some(86_400))),
            imports: Some(Box::new(|| vec![("Rollback", 1)])),
            spool: Some(Box::new(|| Spooled {
                disk_bytes: 11,
                open_bytes: 12,
                unsynced_bytes: 13,
                fails: true,
                lost: 5,
                ..Spooled::default()
            })),
            upload: Some(Box::new(|| Uploaded {
                files: 1,
                failures: 2,
                passed_over: 14,
                by_another_key: 15,
                day_bytes: 16,
                held: true,
                last_success: Some(Duration::from_millis(1500)),
            })),
            tasks: Some(Box::new(|| vec![("writer".into(), Duration::from_secs(2))])),
            panics: Some(Box::new(|| 8)),
        }
    }

    #[test]
    fn every_family_is_told_with_its_value() {
        let page = Metrics::new(wired()).text();
        for line in [
            "tidegate_requests_total{outcome=\"Admitted\"} 7",
            "tidegate_requests_total{outcome=\"TokenExpired\"} 0",
            "tidegate_connections_open 2",
            "tidegate_connections_accepted_total 9",
            "tidegate_connections_ended_total{end=\"broken\"} 1",
            "tidegate_accept_errors_total 4",
            "tidegate_upstream_connections_total 6",
            "tidegate_upstream_retries_total 7",
            "tidegate_throttle_forgotten_total 3",
            "tidegate_time_quality{quality=\"synced\"} 0",
            "tidegate_time_quality{quality=\"floor\"} 1",
            "tidegate_revocations_age_seconds 86400",
            "tidegate_time_lower_bound_timestamp_seconds 1795564800",
            "tidegate_policy_safe_mode 0",
            "tidegate_policy_seq 41",
            "tidegate_policy_activation_timestamp_seconds 1700000000",
            "tidegate_card_moved{how=\"CardCloned\"} 1",
            "tidegate_bundle_imports_total{result=\"Rollback\"} 1",
            "tidegate_spool_backlog_bytes 0",
            "tidegate_spool_disk_bytes 11",
            "tidegate_spool_open_bytes 12",
            "tidegate_spool_unsynced_bytes 13",
            "tidegate_spool_failing 1",
            "tidegate_spool_records_lost_total 5",
            "tidegate_upload_failures_total 2",
            "tidegate_upload_passed_over_files 14",
            "tidegate_upload_by_another_key_files 15",
            "tidegate_upload_day_bytes 16",
            "tidegate_upload_held 1",
            "tidegate_upload_last_success_age_seconds 1.5",
            "tidegate_task_heartbeat_age_seconds{task=\"writer\"} 2.0",
            "tidegate_panics_total 8",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
        }
    }

    #[test]
    fn every_name_follows_the_rules_and_is_declared_once() {
        let page = Metrics::new(wired()).text();
        let mut names: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        assert!(names.len() > 20, "{page}");
        for declared in &names {
            let (name, kind) = declared.split_once(' ').expect("a name and a type");
            assert!(name.starts_with("tidegate_") && name.ends_with("_total") == (kind == "counter"), "{declared}");
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), page.matches("# TYPE ").count());
    }

    #[test]
    fn a_scrape_reads_the_counters_as_they_are_at_that_moment() {
        let count = Arc::new(AtomicU64::new(1));
        let seen = Arc::clone(&count);
        let requests: Read<Counts> = Box::new(move || vec![("Admitted", seen.load(Ordering::Relaxed))]);
        let metrics = Metrics::new(Sources { requests: Some(requests), ..Sources::default() });
        assert!(metrics.text().contains("{outcome=\"Admitted\"} 1\n"));
        count.store(u64::MAX, Ordering::Relaxed);
        assert!(metrics.text().contains("{outcome=\"Admitted\"} 18446744073709551615\n"));
    }

    #[test]
    fn a_part_that_is_not_wired_says_nothing_and_safe_mode_has_no_sequence() {
        let policy: Read<PolicyInForce> = Box::new(|| PolicyInForce::SafeMode);
        let page = Metrics::new(Sources { policy: Some(policy), ..Sources::default() }).text();
        assert!(page.contains("tidegate_policy_safe_mode 1\n"));
        assert!(!page.contains("policy_seq") && !page.contains("upload"), "{page}");
    }
}
