//! The page's password, by HTTP Basic (RFC 7617), and how often one may be wrong. Pure.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::ids::Digest;
use crate::keys::sha256;

/// Fewest bytes of a password.
pub(super) const LEAST: usize = 12;
/// Most bytes of a header that is looked at.
const SHOWN_LIMIT: usize = 8 << 10;

/// How many wrong ones an address may bring at once, and after how long it may bring another.
const AT_ONCE: u32 = 5;
const EACH: Duration = Duration::from_secs(12);
/// Most addresses that are counted at a time; one more has to wait.
const MOST: usize = 4_096;

/// By its digest, so that neither its length nor where a guess differs shows in the time that it takes.
/// `Debug` shows nothing of it.
pub(super) struct Password(Digest);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

impl Password {
    /// What stands in its file, without the end of the line; `None` if that is too short.
    pub(super) fn new(file: &[u8]) -> Option<Self> {
        let password = file.strip_suffix(b"\n").unwrap_or(file);
        let password = password.strip_suffix(b"\r").unwrap_or(password);
        (password.len() >= LEAST).then(|| Self(sha256(password)))
    }

    /// Whether the header has it, whatever the user's name.
    pub(super) fn is_in(&self, shown: &[u8]) -> bool {
        let Some((scheme, credentials)) = shown.split_at_checked("Basic ".len()) else { return false };
        if shown.len() > SHOWN_LIMIT || !scheme.eq_ignore_ascii_case(b"Basic ") {
            return false;
        }
        let credentials = STANDARD.decode(credentials.trim_ascii()).unwrap_or_default();
        let Some(colon) = credentials.iter().position(|byte| *byte == b':') else { return false };
        let shown = sha256(credentials.get(colon + 1..).unwrap_or_default());
        // In one time, whatever differs.
        shown.0.iter().zip(self.0.0).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
    }
}

/// Wrong passwords, by address: a virtual schedule for each (GCRA).
#[derive(Debug, Default)]
pub(super) struct Failures(HashMap<IpAddr, Instant>);

impl Failures {
    /// Whether an address may try; or in how many seconds.
    pub(super) fn may(&mut self, address: IpAddr, now: Instant) -> Result<(), u64> {
        if self.0.len() >= MOST {
            self.0.retain(|_, until| *until > now);
        }
        match self.0.get(&whose(address)) {
            None if self.0.len() >= MOST => Err(EACH.as_secs()),
            None => Ok(()),
            Some(until) => {
                let over = (*until + EACH).saturating_duration_since(now + EACH * AT_ONCE);
                if over.is_zero() { Ok(()) } else { Err(over.as_secs() + 1) }
            }
        }
    }

    /// It was wrong.
    pub(super) fn count(&mut self, address: IpAddr, now: Instant) {
        let until = self.0.entry(whose(address)).or_insert(now);
        *until = (*until).max(now) + EACH;
    }
}

/// One of IPv6 has as many addresses as it likes in its network.
fn whose(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<u8> {
        format!("Basic {}", STANDARD.encode(text)).into_bytes()
    }

    #[test]
    fn the_password_of_the_file_is_taken_under_any_name_and_no_other_is() {
        let password = Password::new(b"correct: horse\r\n").expect("it is long enough");
        assert!(password.is_in(&shown("fleet:correct: horse")));
        assert!(password.is_in(&shown(":correct: horse")));
        assert!(password.is_in(&[b"basic ", &shown("a:correct: horse")[6..]].concat()));
        for wrong in ["", ":", "a:", "correct: horse", "a:correct: hors", "a:correct: horse ", "a:Correct: horse"] {
            assert!(!password.is_in(&shown(wrong)), "{wrong}");
        }
        for wrong in [&b""[..], b"Basic", b"Basic !", b"Bearer YTpjb3JyZWN0OiBob3JzZQ==", &[0xff; 9000]] {
            assert!(!password.is_in(wrong));
        }
        assert!(Password::new(b"short pass\n").is_none() && Password::new(b"").is_none());
    }

    #[test]
    fn an_address_that_guesses_is_held_back_and_nobody_else_is() {
        let (mut failures, begun) = (Failures::default(), Instant::now());
        let address = |last: u8| IpAddr::from([10, 0, 0, last]);
        let at = |seconds| begun + Duration::from_secs(seconds);
        for _ in 0..AT_ONCE {
            assert_eq!(failures.may(address(1), begun), Ok(()));
            failures.count(address(1), begun);
        }
        assert_eq!(failures.may(address(1), begun), Err(13));
        assert_eq!(failures.may(address(2), begun), Ok(()));
        assert_eq!(failures.may(address(1), at(12)), Ok(()));
        failures.count(address(1), at(12));
        assert!(failures.may(address(1), at(12)).is_err());
        assert_eq!(failures.may(address(1), at(3600)), Ok(()));
        // A network of IPv6 is one.
        let of = |text: &str| text.parse::<IpAddr>().expect("an address");
        (0..AT_ONCE).for_each(|_| failures.count(of("2001:db8::1"), begun));
        assert!(failures.may(of("2001:db8::ffff:2"), begun).is_err());
        assert_eq!(failures.may(of("2001:db8:0:1::1"), begun), Ok(()));
    }

    #[test]
    fn the_table_of_addresses_has_an_end_and_is_free_again() {
        let (mut failures, begun) = (Failures::default(), Instant::now());
        for number in 0..MOST as u32 {
            failures.count(IpAddr::from(number.to_be_bytes()), begun);
        }
        let newcomer = IpAddr::from([200, 0, 0, 1]);
        assert!(failures.may(newcomer, begun).is_err());
        assert_eq!(failures.may(newcomer, begun + Duration::from_secs(13)), Ok(()));
        assert!(failures.0.is_empty());
    }
}
