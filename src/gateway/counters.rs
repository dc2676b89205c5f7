//! Plain counters, read by telemetry. Relaxed: each is true by itself, no two of them at the same moment.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::spool::record::Outcome;

/// How a connection from downstream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ConnectionEnd {
    /// By either side, between two requests.
    Closed,
    /// Its bytes were no HTTP request, or too large a head: hyper answered 400, 414 or 431.
    BadHead,
    /// No complete head in time: too slow a first one, or idle for too long after an answer.
    HeadTimeout,
    /// The TLS handshake failed or took too long.
    Handshake,
    /// Broken off in the middle of a request or an answer.
    Broken,
}

impl ConnectionEnd {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Closed, Self::BadHead, Self::HeadTimeout, Self::Handshake, Self::Broken];

    /// The name as a metric's label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::BadHead => "bad_head",
            Self::HeadTimeout => "head_timeout",
            Self::Handshake => "handshake",
            Self::Broken => "broken",
        }
    }
}

/// What the gateway has done since it started.
#[derive(Debug)]
pub struct Counters {
    outcomes: [AtomicU64; 128],
    ends: [AtomicU64; ConnectionEnd::ALL.len()],
    /// Connections accepted.
    pub accepted: AtomicU64,
    /// Tries to accept a connection that failed, for want of descriptors or memory.
    pub accept_errors: AtomicU64,
    /// Connections opened to upstreams.
    pub upstream_connects: AtomicU64,
    /// Requests sent a second time because a pooled connection had died.
    pub upstream_retries: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            outcomes: [const { AtomicU64::new(0) }; 128],
            ends: Default::default(),
            accepted: AtomicU64::new(0),
            accept_errors: AtomicU64::new(0),
            upstream_connects: AtomicU64::new(0),
            upstream_retries: AtomicU64::new(0),
        }
    }
}

impl Counters {
    /// Requests that ended so.
    #[must_use]
    pub fn requests(&self, outcome: Outcome) -> u64 {
        self.outcomes.get(usize::from(outcome.number())).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Connections that ended so.
    #[must_use]
    pub fn ended(&self, end: ConnectionEnd) -> u64 {
        self.ends[end as usize].load(Ordering::Relaxed)
    }

    /// Connections from downstream that are open now.
    #[must_use]
    pub fn open(&self) -> u64 {
        let ended = ConnectionEnd::ALL.iter().map(|end| self.ended(*end)).sum();
        self.accepted.load(Ordering::Relaxed).saturating_sub(ended)
    }

    pub(super) fn count_request(&self, outcome: Outcome) {
        if let Some(count) = self.outcomes.get(usize::from(outcome.number())) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn count_end(&self, end: ConnectionEnd) {
        self.ends[end as usize].fetch_add(1, Ordering::Relaxed);
    }
}
