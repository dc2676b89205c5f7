//! The body of a usage file: its rows as columns, before compression. Pure; called by [`super::segment`] only.
//!
//! What repeats together is interned together, so a row costs five short indices in place of fifteen
//! strings and numbers. Rows that are not requests are few and stay rows. Rows come out grouped:
//! requests first, then the others, each group in the order in which it was put in.
//!
//! ```text
//! off  size  field
//! 0    4·19  length of each section, u32 big-endian
//! 76   …     the sections back to back; their lengths fill the body exactly
//!
//!  #  section     per entry
//!  0  endpoints   API | version | route | method | upstream           dictionary; string = varint length | UTF-8
//!  1  callers     application | plan | consumer | issuer              dictionary
//!  2  principals  principal                                           dictionary
//!  3  clients     u8 form | bytes: 0 absent; 4, 16 a whole address of so many bytes; 5, 17 the first 3 or 6 bytes of one
//!                 (/24 of IPv4, /48 of IPv6); 10 a keyed hash of so many bytes                       dictionary
//!  4  endings     status u16 big-endian | outcome u8 | time quality u8 (0 synced, 1 floor, 2 lost)    dictionary
//!  5  at          signed varint: at_ms − that of the row before (first: − 0), wrapping
//!  6–10           varint: index into dictionary 0–4, in order of first use
//! 11  bytes_in    varint
//! 12  bytes_out   varint
//! 13  upstream    varint: upstream_us
//! 14  own         signed varint: total_us − upstream_us
//! 15  id tag      u8: 0 the id is the next 16 bytes of section 16, and its first half joins the known halves
//!                 while they are fewer than 255; n its first half is the n-th known one
//! 16  id whole    16 bytes
//! 17  id step     signed varint: second half − that of the last id with the same first half, wrapping; big-endian halves
//! 18  others      varint length | row of `record`, never a request
//! ```
//!
//! varint: LEB128 of a u64, at most 10 bytes; signed: zigzag first.

mod intern;
mod read;
mod write;

pub(super) use read::Rows;
pub use read::{Dictionaries, Indexed};
pub(super) use write::Columns;

use super::record::ROW_LIMIT;
use crate::ids::RequestId;

const SECTIONS: usize = 19;
const TABLE_LEN: usize = SECTIONS * 4;
const DICTIONARIES: usize = 5;
const KNOWN_HALVES: usize = 255;

/// Forms of a client.
mod client {
    pub(super) const ABSENT: u8 = 0;
    pub(super) const WHOLE_4: u8 = 4;
    pub(super) const NETWORK_4: u8 = 5;
    pub(super) const HASHED: u8 = 10;
    pub(super) const WHOLE_6: u8 = 16;
    pub(super) const NETWORK_6: u8 = 17;
}

/// The most that one row can add to the body, in bytes.
pub(super) const ROW_GROWTH: usize = ROW_LIMIT + 256;

/// The body is not what the table above says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// First halves of request ids that were seen, each with the last second half: ids that one worker
/// counts up cost a byte or two, random ones their 16.
#[derive(Debug, Clone, Default)]
struct Halves {
    known: Vec<(u64, u64)>,
}

impl Halves {
    fn step_to(&mut self, first: u64, second: u64) -> Option<(u8, i64)> {
        let position = self.known.iter().position(|(known, _)| *known == first)?;
        let tag = u8::try_from(position + 1).ok()?;
        let last = std::mem::replace(&mut self.known[position].1, second);
        Some((tag, second.wrapping_sub(last).cast_signed()))
    }

    fn step(&mut self, tag: u8, step: i64) -> Option<(u64, u64)> {
        let half = self.known.get_mut(usize::from(tag).checked_sub(1)?)?;
        half.1 = half.1.wrapping_add(step.cast_unsigned());
        Some(*half)
    }

    fn learn(&mut self, first: u64, second: u64) {
        if self.known.len() < KNOWN_HALVES {
            self.known.push((first, second));
        }
    }
}

fn split(id: RequestId) -> (u64, u64) {
    let id = u128::from_be_bytes(id.0);
    ((id >> 64) as u64, id as u64)
}
