//! What a record keeps of the caller's address, and how a caller is named without saying who it is.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// Length of a pseudonym's text, in bytes.
pub const PSEUDONYM_LEN: usize = 22;
const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// A keyed hash in place of a principal or an address: the first 80 bits of an HMAC-SHA256 by a key that the device
/// never shows and that rotates. `docs/usage-privacy.md` says how it is made. Written `h:` and 20 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pseudonym(pub [u8; 10]);

impl Pseudonym {
    /// Its text, in `room`: a principal's place in a record is a text, and a record allocates nothing.
    pub fn write(self, room: &mut [u8; PSEUDONYM_LEN]) -> &str {
        let (sign, digits) = room.split_at_mut(2);
        sign.copy_from_slice(b"h:");
        for (pair, byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(self.0) {
            *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
        }
        std::str::from_utf8(room).expect("hex digits are ASCII")
    }
}

impl fmt::Display for Pseudonym {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.write(&mut [0; PSEUDONYM_LEN]))
    }
}

/// The downstream's address, as much of it as the policy lets a record keep.
///
/// In a row: u8 (0 absent, 1 whole, 2 and 3 truncated, 4 hashed) and its bytes; a whole address has one more u8 before
/// them (0 IPv4, 1 IPv6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Client {
    /// Nothing of it.
    Absent,
    /// All of it.
    Whole(IpAddr),
    /// The first 24 bits of an IPv4 address.
    Network4([u8; 3]),
    /// The first 48 bits of an IPv6 address.
    Network6([u8; 6]),
    /// A keyed hash of it.
    Hashed(Pseudonym),
}

impl Client {
    /// The network that `address` is in: /24 of IPv4, /48 of IPv6.
    #[must_use]
    pub fn truncated(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let [a, b, c, _] = address.octets();
                Self::Network4([a, b, c])
            }
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, ..] = address.octets();
                Self::Network6([a, b, c, d, e, f])
            }
        }
    }

    /// As it is stored and shown: `192.0.2.7`, `192.0.2.0/24`, `2001:db8::/48`, `h:…`; `None` where it is absent.
    #[must_use]
    pub fn to_text(&self) -> Option<String> {
        match *self {
            Self::Absent => None,
            Self::Whole(address) => Some(address.to_string()),
            Self::Network4([a, b, c]) => Some(format!("{}/24", Ipv4Addr::from([a, b, c, 0]))),
            Self::Network6(network) => {
                let mut octets = [0; 16];
                octets[..6].copy_from_slice(&network);
                Some(format!("{}/48", Ipv6Addr::from(octets)))
            }
            Self::Hashed(pseudonym) => Some(pseudonym.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_told_as_much_as_is_kept_of_it() {
        let whole = |text: &str| text.parse::<IpAddr>().expect("an address");
        let truncated = |text: &str| Client::truncated(whole(text)).to_text();
        assert_eq!(Client::Absent.to_text(), None);
        assert_eq!(Client::Whole(whole("192.0.2.7")).to_text().as_deref(), Some("192.0.2.7"));
        assert_eq!(truncated("192.0.2.7").as_deref(), Some("192.0.2.0/24"));
        assert_eq!(truncated("::ffff:192.0.2.7").as_deref(), Some("192.0.2.0/24"), "not the network of all of them");
        assert_eq!(truncated("2001:db8:1:2:3:4:5:6").as_deref(), Some("2001:db8:1::/48"));
        let hashed = Client::Hashed(Pseudonym([0, 1, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0xff]));
        assert_eq!(hashed.to_text().as_deref(), Some("h:000123456789abcdefff"));
    }
}
