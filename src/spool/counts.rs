//! Sums that stand in for records which were not kept one by one: a flood of refusals, a full disk.
//!
//! One small file per worker, all of it written when it is made, so that adding to a sum never needs
//! room. Sums only grow; the sealing side keeps how far it has told each of them, so a killed process
//! loses nothing here either. Pure.
//!
//! File `open/counts-{worker:03}`, 8192 bytes: slot `n` is the sum of the outcome with number `n`.
//! A slot, big-endian; all zero is one that was never used:
//!
//! ```text
//! off  size  field
//! 0    8     epoch: random; a slot that had to begin anew has another one
//! 8    8     how many
//! 16   8     bytes in
//! 24   8     bytes out
//! 32   8     the first of them, milliseconds since the Unix epoch
//! 40   8     the last of them
//! 48   12    reserved = 0
//! 60   4     CRC-32 of bytes 0..60
//! ```

use crate::spool::record::Outcome;

/// Bytes of a slot.
pub(super) const SLOT: usize = 64;
/// Slots in a file: outcome numbers are below this.
pub(super) const SLOTS: usize = 128;
/// Bytes of a file.
pub(super) const FILE: usize = SLOT * SLOTS;

/// What one slot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sum {
    pub epoch: u64,
    pub count: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub from_ms: i64,
    pub to_ms: i64,
}

impl Sum {
    /// Adds one request.
    pub(super) fn add(&mut self, at_ms: i64, bytes_in: u64, bytes_out: u64) {
        if self.count == 0 {
            self.from_ms = at_ms;
        }
        self.count = self.count.saturating_add(1);
        self.bytes_in = self.bytes_in.saturating_add(bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(bytes_out);
        // The last one and not the latest: a clock that was wrong once must not make all that follows wrong.
        self.to_ms = at_ms;
    }

    pub(super) fn to_bytes(self) -> [u8; SLOT] {
        let mut bytes = [0; SLOT];
        if self == Self::default() {
            return bytes;
        }
        let fields = [self.epoch, self.count, self.bytes_in, self.bytes_out];
        for (place, field) in bytes.chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_be_bytes());
        }
        bytes[32..40].copy_from_slice(&self.from_ms.to_be_bytes());
        bytes[40..48].copy_from_slice(&self.to_ms.to_be_bytes());
        let sum = crc32fast::hash(&bytes[..60]);
        bytes[60..].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    /// `None` if the slot is damaged, or just being written.
    pub(super) fn parse(bytes: &[u8; SLOT]) -> Option<Self> {
        if *bytes == [0; SLOT] {
            return Some(Self::default());
        }
        if crc32fast::hash(&bytes[..60]).to_be_bytes() != bytes[60..] {
            return None;
        }
        let field = |at: usize| -> [u8; 8] { bytes[at..at + 8].try_into().expect("eight bytes of sixty-four") };
        Some(Self {
            epoch: u64::from_be_bytes(field(0)),
            count: u64::from_be_bytes(field(8)),
            bytes_in: u64::from_be_bytes(field(16)),
            bytes_out: u64::from_be_bytes(field(24)),
            from_ms: i64::from_be_bytes(field(32)),
            to_ms: i64::from_be_bytes(field(40)),
        })
    }
}

/// Where the slot of an outcome begins.
pub(super) fn slot_offset(outcome: Outcome) -> u64 {
    u64::from(outcome.number()) * SLOT as u64
}

/// The name of a worker's file.
pub(super) fn file_name(worker: u16) -> String {
    format!("counts-{worker:03}")
}

/// The worker of a file of that name.
pub(super) fn worker_of(name: &str) -> Option<u16> {
    let worker = name.strip_prefix("counts-")?.parse().ok()?;
    (file_name(worker) == name).then_some(worker)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_survives_its_bytes_and_a_damaged_one_is_seen() {
        let mut sum = Sum { epoch: 9, ..Sum::default() };
        sum.add(-5, 1, 2);
        sum.add(70, 3, 4);
        assert_eq!(sum, Sum { epoch: 9, count: 2, bytes_in: 4, bytes_out: 6, from_ms: -5, to_ms: 70 });
        let bytes = sum.to_bytes();
        assert_eq!(Sum::parse(&bytes), Some(sum));
        for at in 0..SLOT {
            let mut bytes = bytes;
            bytes[at] ^= 0x40;
            assert_eq!(Sum::parse(&bytes), None, "byte {at}");
        }
        assert_eq!(Sum::parse(&[0; SLOT]), Some(Sum::default()));
    }

    #[test]
    fn every_outcome_has_a_slot() {
        for outcome in Outcome::ALL {
            assert!(slot_offset(*outcome) + (SLOT as u64) <= FILE as u64, "{outcome:?}");
        }
        assert_eq!(worker_of(&file_name(7)), Some(7));
        assert_eq!(worker_of("counts-7"), None);
    }
}
