//! What a record says of the person behind a request: as much as the policy lets it.
//!
//! A pseudonym is the first 80 bits of an HMAC-SHA256 by a key that is the device's own and lasts for one day or month
//! of the record's own time; [`docs/usage-privacy.md`](../../docs/usage-privacy.md) says what that protects. It must
//! never show a key, and never keep what it is asked to leave out. Called by the meter.
//!
//! ```text
//! key of a period = MAC(key of pseudonyms, kind of period u8 (1 day, 2 month) | its number since 1970 u64)
//! of a principal  = MAC(key of the period, u8 1 | length of iss u32 | iss | sub)
//! of an address   = MAC(key of the period, u8 2 | address, 4 or 16 bytes)                       big-endian
//! ```

use std::net::IpAddr;
use std::sync::Arc;

use crate::keys::MacKey;
use crate::policy::{KeepAddress, KeepPrincipal, Privacy, Rotate};
use crate::spool::record::{Client, PSEUDONYM_LEN, Pseudonym};
use crate::throttle::Window;

const PRINCIPAL: u8 = 1;
const ADDRESS: u8 = 2;

/// One worker's, with the keys of the periods that it saw last.
#[derive(Debug)]
pub(super) struct Discretion {
    root: Arc<MacKey>,
    day: Option<Period>,
    month: Option<Period>,
}

#[derive(Debug)]
struct Period {
    number: u64,
    key: MacKey,
}

impl Discretion {
    pub(super) fn new(root: &Arc<MacKey>) -> Self {
        Self { root: Arc::clone(root), day: None, month: None }
    }

    /// What a record of the moment `at_ms` keeps of `sub`, whom `iss` vouches for; a hash is written in `room`.
    pub(super) fn principal<'r>(
        &mut self,
        privacy: Privacy,
        at_ms: i64,
        (iss, sub): (&str, &'r str),
        room: &'r mut [u8; PSEUDONYM_LEN],
    ) -> &'r str {
        match privacy.principal {
            KeepPrincipal::Clear => sub,
            KeepPrincipal::Absent => "",
            KeepPrincipal::Hashed => {
                let iss_len = u32::try_from(iss.len()).unwrap_or(u32::MAX).to_be_bytes();
                let parts = [&[PRINCIPAL][..], &iss_len, iss.as_bytes(), sub.as_bytes()];
                self.pseudonym(privacy.rotate, at_ms, &parts).write(room)
            }
        }
    }

    /// What a record of the moment `at_ms` keeps of `address`.
    pub(super) fn client(&mut self, privacy: Privacy, at_ms: i64, address: IpAddr) -> Client {
        match privacy.address {
            KeepAddress::Clear => Client::Whole(address),
            KeepAddress::Truncated => Client::truncated(address),
            KeepAddress::Absent => Client::Absent,
            KeepAddress::Hashed => {
                let mut hash =
                    |bytes: &[u8]| Client::Hashed(self.pseudonym(privacy.rotate, at_ms, &[&[ADDRESS], bytes]));
                match address {
                    IpAddr::V4(address) => hash(&address.octets()),
                    IpAddr::V6(address) => hash(&address.octets()),
                }
            }
        }
    }

    fn pseudonym(&mut self, rotate: Rotate, at_ms: i64, parts: &[&[u8]]) -> Pseudonym {
        let mac = self.key(rotate, at_ms).mac(parts);
        let mut first = [0; 10];
        first.copy_from_slice(&mac[..10]);
        Pseudonym(first)
    }

    fn key(&mut self, rotate: Rotate, at_ms: i64) -> &MacKey {
        let (window, kind, kept) = match rotate {
            Rotate::Day => (Window::Day, 1, &mut self.day),
            Rotate::Month => (Window::Month, 2, &mut self.month),
        };
        let number = window.number(at_ms.div_euclid(1_000));
        if kept.as_ref().is_some_and(|period| period.number != number) {
            *kept = None;
        }
        let root = &self.root;
        let made = || Period { number, key: root.derive(&[&[kind], &number.to_be_bytes()]) };
        &kept.get_or_insert_with(made).key
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::SigningKey;

    /// 2026-12-01T00:00:00Z.
    const DECEMBER_MS: i64 = 1_796_083_200_000;
    const DAY_MS: i64 = 86_400_000;
    const HASHED: Privacy =
        Privacy { principal: KeepPrincipal::Hashed, address: KeepAddress::Hashed, rotate: Rotate::Month };
    const DAILY: Privacy = Privacy { rotate: Rotate::Day, ..HASHED };

    fn device(seed: u8) -> Discretion {
        let key = SigningKey::from_seed(&[seed; 32]).expect("a seed makes a key");
        Discretion::new(&Arc::new(key.mac_key(crate::gateway::PSEUDONYMS)))
    }

    fn name(of: &mut Discretion, privacy: Privacy, at_ms: i64, who: (&str, &str)) -> String {
        of.principal(privacy, at_ms, who, &mut [0; PSEUDONYM_LEN]).to_owned()
    }

    const ANNA: (&str, &str) = ("https://idp.example", "anna");

    #[test]
    fn the_same_person_has_the_same_pseudonym_until_the_period_ends_by_the_records_own_time() {
        let mut device = device(1);
        let mut at = |privacy, at_ms| name(&mut device, privacy, at_ms, ANNA);
        let november = at(HASHED, DECEMBER_MS - 1);
        let december = at(HASHED, DECEMBER_MS);
        assert_ne!(november, december, "one millisecond later a month begins");
        assert_eq!(at(HASHED, DECEMBER_MS + 31 * DAY_MS - 1), december, "to the end of the 31st");
        assert_ne!(at(HASHED, DECEMBER_MS + 31 * DAY_MS), december);
        // A request that began before and ends later is of the time when it began.
        assert_eq!(at(HASHED, DECEMBER_MS - 1), november);

        let first = at(DAILY, DECEMBER_MS);
        assert_ne!(first, december, "a day's key is no month's");
        assert_eq!(at(DAILY, DECEMBER_MS + DAY_MS - 1), first);
        assert_ne!(at(DAILY, DECEMBER_MS + DAY_MS), first);
        assert_ne!(at(DAILY, DECEMBER_MS - 1), first);
    }

    #[test]
    fn another_device_another_issuer_and_another_person_have_other_pseudonyms() {
        let one = name(&mut device(1), HASHED, DECEMBER_MS, ANNA);
        assert_eq!(name(&mut device(1), HASHED, DECEMBER_MS, ANNA), one, "each worker of a device gives the same");
        assert_ne!(name(&mut device(2), HASHED, DECEMBER_MS, ANNA), one);
        for other in [("https://idp.example", "bert"), ("https://idp.other", "anna"), ("https://idp.examplea", "nna")] {
            assert_ne!(name(&mut device(1), HASHED, DECEMBER_MS, other), one, "{other:?}");
        }
    }

    #[test]
    fn an_address_is_hashed_by_the_same_rules_and_never_as_a_principal_is() {
        let address = IpAddr::from([192, 0, 2, 7]);
        let client = |device: &mut Discretion, at_ms| device.client(HASHED, at_ms, address);
        let mut one = device(1);
        let hashed = client(&mut one, DECEMBER_MS);
        let Client::Hashed(pseudonym) = hashed else { panic!("not hashed") };
        assert_eq!(client(&mut one, DECEMBER_MS + 1), hashed);
        assert_ne!(client(&mut one, DECEMBER_MS - 1), hashed);
        assert_ne!(client(&mut device(2), DECEMBER_MS), hashed);
        assert_ne!(one.client(HASHED, DECEMBER_MS, IpAddr::from([192, 0, 2, 8])), hashed);
        let as_text = String::from_utf8_lossy(&[192, 0, 2, 7]).into_owned();
        assert_ne!(name(&mut one, HASHED, DECEMBER_MS, ("", &as_text)), pseudonym.to_string());
    }

    #[test]
    fn the_pseudonyms_of_a_known_seed_stay_as_they_are() {
        // Whoever has to answer a person's request makes them again, by the document and another program.
        let mut device = device(1);
        assert_eq!(name(&mut device, HASHED, DECEMBER_MS, ANNA), "h:9588ebaf911332f5bd1d");
        let client = device.client(DAILY, DECEMBER_MS, IpAddr::from([192, 0, 2, 7]));
        assert_eq!(client.to_text().as_deref(), Some("h:d5af50c4b0f09722d768"));
    }
}
