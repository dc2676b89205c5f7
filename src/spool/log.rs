//! The open log: where a usage record lies from the moment of its answer until it is sealed.
//!
//! One worker writes it, the rows of one turn in one write(2); nobody else holds the record, so the log is the queue.
//! A killed process loses nothing, for the page cache lives on. Rows are numbered, so that a damaged
//! stretch between two good rows is an exact count. Pure; the shells are `intake` (writes) and
//! `gather` (reads). Must never believe a length or a number without its check sum.
//!
//! File `open/{number:010}-{id:016x}.log`, which has that name once its preamble is on the disk; big-endian:
//!
//! ```text
//! off  size  field
//! 0    8     magic "\x89TGO\r\n\x1a\n"
//! 8    2     format = 1
//! 10   2     how often it is synced, in tenths of a second; 0 in logs of versions that did not tell
//! 12   16    boot id of the machine when the log was made
//! 28   8     made at, milliseconds since the Unix epoch
//! 36   4     CRC-32 of bytes 0..36
//! 40   …     rows
//! row  2     mark D7 4C
//!      2     length of the payload, 0..2048; 0 is the end row: closed in order, nothing follows
//!      4     number of the row, from 0
//!      4     CRC-32 of the eight bytes before and the payload
//!      …     payload: a `record::Row`
//! ```

use crate::spool::record::ROW_LIMIT;

/// Bytes before the first row.
pub(super) const PREAMBLE: usize = 40;
/// Bytes of a row before its payload.
pub(super) const HEAD: usize = 12;
/// The longest row, head and all.
pub(super) const FRAME_LIMIT: usize = HEAD + ROW_LIMIT;

const MAGIC: [u8; 8] = *b"\x89TGO\r\n\x1a\n";
const FORMAT: u16 = 1;
const MARK: [u8; 2] = [0xd7, 0x4c];

/// Which log: the number gives the order, the random id tells it from one of the same number in
/// another life of the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub number: u32,
    pub id: u64,
}

impl Name {
    pub(super) fn file_name(self) -> String {
        format!("{:010}-{:016x}.log", self.number, self.id)
    }

    pub(super) fn parse(file_name: &str) -> Option<Self> {
        let (number, id) = file_name.strip_suffix(".log")?.split_once('-')?;
        let name = Self { number: number.parse().ok()?, id: u64::from_str_radix(id, 16).ok()? };
        (name.file_name() == file_name).then_some(name)
    }
}

/// A machine's boot, as Linux names it; a log of another boot may have been cut by a power failure.
pub(super) type BootId = [u8; 16];

/// What a log says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Preamble {
    pub boot: BootId,
    pub made_ms: i64,
    /// In tenths of a second.
    pub sync: u16,
}

impl Preamble {
    pub(super) fn to_bytes(self) -> [u8; PREAMBLE] {
        let mut bytes = [0; PREAMBLE];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&FORMAT.to_be_bytes());
        bytes[10..12].copy_from_slice(&self.sync.to_be_bytes());
        bytes[12..28].copy_from_slice(&self.boot);
        bytes[28..36].copy_from_slice(&self.made_ms.to_be_bytes());
        let sum = crc32fast::hash(&bytes[..36]);
        bytes[36..].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    /// `None` if it is not whole: the rows can still be read, one by one.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (checked, rest) = bytes.split_at_checked(PREAMBLE - 4)?;
        let sum = rest.first_chunk::<4>()?;
        let well_formed = crc32fast::hash(checked).to_be_bytes() == *sum
            && checked.starts_with(&MAGIC)
            && checked.get(8..10) == Some(&FORMAT.to_be_bytes());
        let sync = u16::from_be_bytes(checked.get(10..12)?.try_into().ok()?);
        let boot = checked.get(12..28)?.try_into().ok()?;
        let made_ms = i64::from_be_bytes(checked.get(28..36)?.try_into().ok()?);
        well_formed.then_some(Self { boot, made_ms, sync })
    }
}

/// Puts the head before a payload that is already at `frame[HEAD..]`; an empty one makes the end row.
pub(super) fn finish_frame(frame: &mut [u8], number: u32) {
    let len = u16::try_from(frame.len() - HEAD).expect("a row is at most ROW_LIMIT bytes");
    frame[..2].copy_from_slice(&MARK);
    frame[2..4].copy_from_slice(&len.to_be_bytes());
    frame[4..8].copy_from_slice(&number.to_be_bytes());
    let sum = frame_sum(&frame[..8], &frame[HEAD..]);
    frame[8..HEAD].copy_from_slice(&sum.to_be_bytes());
}

fn frame_sum(head: &[u8], payload: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(head);
    sum.update(payload);
    sum.finalize()
}

/// What stands at the beginning of some bytes of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// A good row of `len` bytes in all.
    Row { number: u32, payload: &'a [u8], len: usize },
    /// The end row.
    End { number: u32 },
    /// Not yet a whole row, as far as can be told.
    Partial,
    /// Not a row: damaged.
    Damaged,
}

/// Looks at the beginning of `bytes`.
pub(super) fn look(bytes: &[u8]) -> Found<'_> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else {
        return if MARK.starts_with(&bytes[..bytes.len().min(2)]) { Found::Partial } else { Found::Damaged };
    };
    let [m0, m1, l0, l1, n0, n1, n2, n3, sum @ ..] = *head;
    let len = usize::from(u16::from_be_bytes([l0, l1]));
    if [m0, m1] != MARK || len > ROW_LIMIT {
        return Found::Damaged;
    }
    let Some(payload) = rest.get(..len) else { return Found::Partial };
    if frame_sum(&head[..8], payload).to_be_bytes() != sum {
        return Found::Damaged;
    }
    let number = u32::from_be_bytes([n0, n1, n2, n3]);
    if len == 0 { Found::End { number } } else { Found::Row { number, payload, len: HEAD + len } }
}

/// Offset of the first good row after the beginning of `bytes`, which is none.
pub(super) fn resync(bytes: &[u8]) -> Option<usize> {
    (1..bytes.len()).find(|at| matches!(look(&bytes[*at..]), Found::Row { .. } | Found::End { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(number: u32, payload: &[u8]) -> Vec<u8> {
        let mut frame = [&[0; HEAD], payload].concat();
        finish_frame(&mut frame, number);
        frame
    }

    #[test]
    fn a_row_is_read_whole_or_not_at_all() {
        let bytes = frame(7, b"payload");
        assert_eq!(look(&bytes), Found::Row { number: 7, payload: b"payload", len: bytes.len() });
        for end in 0..bytes.len() {
            assert_eq!(look(&bytes[..end]), Found::Partial, "cut at {end}");
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << bit;
                assert!(matches!(look(&bytes), Found::Damaged | Found::Partial), "bit {bit} of byte {at}");
            }
        }
        assert_eq!(look(&frame(8, b"")), Found::End { number: 8 });
    }

    #[test]
    fn reading_goes_on_at_the_first_good_row_after_damage() {
        let (first, second) = (frame(0, &[9; 40]), frame(1, b"next"));
        let mut bytes = [first.clone(), second].concat();
        bytes[20] ^= 1;
        assert_eq!(look(&bytes), Found::Damaged);
        assert_eq!(resync(&bytes), Some(first.len()));
        assert_eq!(resync(&first), None);
    }

    #[test]
    fn a_log_is_known_by_its_name_and_a_damaged_preamble_by_its_check_sum() {
        let name = Name { number: 3, id: 0xabc };
        assert_eq!(Name::parse(&name.file_name()), Some(name));
        for wrong in ["", "3-abc.log", "0000000003-0000000000000abc.log.part", "0000000003-0000000000000ABC.log"] {
            assert_eq!(Name::parse(wrong), None, "{wrong}");
        }
        let preamble = Preamble { boot: [5; 16], made_ms: -1, sync: 50 };
        let bytes = preamble.to_bytes();
        assert_eq!(Preamble::parse(&bytes), Some(preamble));
        for at in 0..PREAMBLE {
            let mut bytes = bytes;
            bytes[at] ^= 1;
            assert_eq!(Preamble::parse(&bytes), None, "byte {at}");
            assert_eq!(Preamble::parse(&bytes[..at]), None);
        }
    }
}
