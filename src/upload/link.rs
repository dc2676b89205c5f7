//! The link to the hub as the uploader sees it: up, down since so many tries, or refused. Pure.
//! Told in status; the spool seals more seldom while the hub is out of reach.

/// How it goes with the hub.
///
/// ```text
/// Unknown ─▶ Up ◀─▶ Down{failures}      Up, Down ─▶ Up on every accepted file; ─▶ Down on every failed round
/// any ─▶ Held ─▶ Unknown                Held while no window is open or the day's limit is used up
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
        /// How many in a row, since a link came up last.
        failures: u32,
    },
    /// Not tried: outside of the windows, or the day's limit is used up.
    Held,
}

impl Link {
    /// After a failed round.
    #[must_use]
    pub fn failed(self) -> Self {
        match self {
            Self::Down { failures } => Self::Down { failures: failures.saturating_add(1) },
            Self::Unknown | Self::Up | Self::Held => Self::Down { failures: 1 },
        }
    }

    /// After a link came up: what failed before says nothing of it.
    #[must_use]
    pub fn anew(self) -> Self {
        match self {
            Self::Down { .. } => Self::Down { failures: 0 },
            Self::Unknown | Self::Up | Self::Held => self,
        }
    }

    /// Whether the hub is taken to be in reach: until a try has failed it is.
    #[must_use]
    pub fn is_in_reach(self) -> bool {
        matches!(self, Self::Unknown | Self::Up)
    }

    /// Failures in a row.
    #[must_use]
    pub fn failures(self) -> u32 {
        match self {
            Self::Down { failures } => failures,
            Self::Unknown | Self::Up | Self::Held => 0,
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
        let anew = Link::Down { failures: 9 }.anew();
        assert_eq!((anew.is_in_reach(), anew.failed().failures()), (false, 1), "until a try succeeds");
        assert!(Link::Up.anew().is_in_reach() && Link::Unknown.is_in_reach());
    }
}
