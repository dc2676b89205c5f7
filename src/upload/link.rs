//! The link to the hub as the uploader sees it: up, down since so many tries, or refused. Pure.
//! Told in status; the spool seals more seldom while the hub is out of reach.

/// How it goes with the hub.
///
/// ```text
/// Unknown ─▶ Up ◀─▶ Down{failures}      Up, Down ─▶ Up on every accepted file; ─▶ Down on every failed round
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Link {
    /// Not tried since the start.
    #[default]
    Unknown,
    /// The last try reached the hub, and it gave a good receipt or told the time.
    Up,
    /// The last tries failed.
    Down {
        /// How many in a row.
        failures: u32,
    },
}

impl Link {
    /// After a failed round.
    #[must_use]
    pub fn failed(self) -> Self {
        match self {
            Self::Down { failures } => Self::Down { failures: failures.saturating_add(1) },
            Self::Unknown | Self::Up => Self::Down { failures: 1 },
        }
    }

    /// Failures in a row.
    #[must_use]
    pub fn failures(self) -> u32 {
        match self {
            Self::Down { failures } => failures,
            Self::Unknown | Self::Up => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_add_up_and_a_success_forgets_them() {
        assert_eq!(Link::Unknown.failed(), Link::Down { failures: 1 });
        assert_eq!(Link::Up.failed().failed().failures(), 2);
        assert_eq!(Link::Down { failures: u32::MAX }.failed().failures(), u32::MAX);
        assert_eq!(Link::Up.failures(), 0);
    }
}
