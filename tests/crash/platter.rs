//! What a disk holds, for sure and until it is flushed. Pure: neither file nor clock.
//!
//! A write is seen at once by whoever reads, and is durable with the next flush. A cut leaves what was durable, and of each
//! 4 KiB piece that was written since, each writing by its own luck: none of it, all of it, or some of its sectors. So
//! pieces reach the disk in any order between two flushes, as a real device's do.

use std::sync::Arc;

use crate::dice::Dice;

/// What a file system writes at once.
pub(crate) const PIECE: usize = 4 << 10;
/// What a device writes whole.
const SECTOR: usize = 512;
/// Of a hundred pieces that arrive, so many arrive torn.
const TORN: usize = 6;

type Piece = [u8; PIECE];

/// The content of a disk; what was never written is zeros.
#[derive(Clone)]
pub(crate) struct Image(Vec<Option<Arc<Piece>>>);

impl Image {
    /// An image of `bytes`, whose length is a whole number of pieces.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let piece = |bytes: &[u8]| bytes.iter().any(|byte| *byte != 0).then(|| Arc::new(to_piece(bytes)));
        Self(bytes.chunks(PIECE).map(piece).collect())
    }

    pub(crate) fn len(&self) -> u64 {
        (self.0.len() * PIECE) as u64
    }

    fn read(&self, at: usize, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len);
        for (index, part) in parts(at, len.min((self.0.len() * PIECE).saturating_sub(at))) {
            match &self.0[index] {
                Some(piece) => bytes.extend_from_slice(&piece[part]),
                None => bytes.resize(bytes.len() + part.len(), 0),
            }
        }
        bytes
    }

    fn piece(&mut self, index: usize) -> &mut Piece {
        Arc::make_mut(self.0[index].get_or_insert_with(|| Arc::new([0; PIECE])))
    }
}

/// One piece as one write left it.
struct Written {
    index: usize,
    piece: Arc<Piece>,
}

/// How a disk treats its flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flush {
    /// Durable when it returns.
    Honest,
    /// It says so, and keeps all of it in its memory: the control.
    Lies,
}

/// The disk.
pub(crate) struct Platter {
    seen: Image,
    durable: Image,
    unflushed: Vec<Written>,
    flush: Flush,
    writes: u64,
}

impl Platter {
    pub(crate) fn new(image: Image) -> Self {
        Self { seen: image.clone(), durable: image, unflushed: Vec::new(), flush: Flush::Honest, writes: 0 }
    }

    pub(crate) fn len(&self) -> u64 {
        self.seen.len()
    }

    /// Writes since it was made.
    pub(crate) fn writes(&self) -> u64 {
        self.writes
    }

    pub(crate) fn read(&self, at: usize, len: usize) -> Vec<u8> {
        self.seen.read(at, len)
    }

    /// Writes within the disk; `false` where that would be beyond its end.
    pub(crate) fn write(&mut self, at: usize, bytes: &[u8]) -> bool {
        if (at + bytes.len()) as u64 > self.len() {
            return false;
        }
        self.writes += 1;
        let mut rest = bytes;
        for (index, part) in parts(at, bytes.len()) {
            let (now, later) = rest.split_at(part.len());
            self.seen.piece(index)[part].copy_from_slice(now);
            self.unflushed.extend(self.seen.0[index].clone().map(|piece| Written { index, piece }));
            rest = later;
        }
        true
    }

    pub(crate) fn flush(&mut self) {
        if self.flush == Flush::Honest {
            for Written { index, piece } in self.unflushed.drain(..) {
                self.durable.0[index] = Some(piece);
            }
        }
    }

    /// From here on no flush does anything.
    pub(crate) fn lie(&mut self) {
        self.flush(); // of what came before
        self.flush = Flush::Lies;
    }

    /// What is found after the power went. A disk that lies loses all that it had in its memory.
    pub(crate) fn after_cut(&self, dice: &mut Dice) -> Image {
        let mut found = self.durable.clone();
        if self.flush == Flush::Lies {
            return found;
        }
        // At some cuts next to nothing had arrived, at others next to all.
        let arrive = [0, 10, 50, 90, 100][dice.roll(5)];
        for Written { index, piece } in &self.unflushed {
            if !dice.happens(arrive) {
                continue;
            }
            if dice.happens(TORN) {
                let place = found.piece(*index);
                for sector in (0..PIECE).step_by(SECTOR).map(|at| at..at + SECTOR) {
                    if dice.roll(2) == 0 {
                        place[sector.clone()].copy_from_slice(&piece[sector]);
                    }
                }
            } else {
                found.0[*index] = Some(Arc::clone(piece));
            }
        }
        found
    }

    /// What is found when it was let go in order.
    pub(crate) fn image(&self) -> Image {
        self.seen.clone()
    }
}

/// The pieces that a stretch touches, and the part of each.
fn parts(at: usize, len: usize) -> impl Iterator<Item = (usize, std::ops::Range<usize>)> {
    let end = at + len;
    (at / PIECE..end.div_ceil(PIECE)).map(move |index| {
        let begin = index * PIECE;
        (index, at.max(begin) - begin..end.min(begin + PIECE) - begin)
    })
}

fn to_piece(bytes: &[u8]) -> Piece {
    let mut piece = [0; PIECE];
    piece[..bytes.len()].copy_from_slice(bytes);
    piece
}

#[test]
fn what_was_flushed_is_there_after_any_cut_and_of_the_rest_each_piece_by_its_own_luck() {
    let mut kept = [0; 3];
    for seed in 0..200 {
        let mut platter = Platter::new(Image::new(&[0; 8 * PIECE]));
        assert!(platter.write(100, &[1; 2 * PIECE]));
        platter.flush();
        assert!(platter.write(PIECE, &[2; 2 * PIECE]) && platter.write(4 * PIECE, &[3; PIECE]));
        assert!(!platter.write(8 * PIECE - 1, &[4; 2]), "beyond the end");
        assert_eq!(platter.read(PIECE - 1, 2), [1, 2], "what is written is seen at once");
        let found = platter.after_cut(&mut Dice(seed));
        assert_eq!(found.read(99, 2), [0, 1]);
        let all = found.read(0, 8 * PIECE);
        assert!(all[100..PIECE].iter().all(|byte| *byte == 1), "flushed, and not written since");
        assert!(all[PIECE..PIECE + 100].iter().all(|byte| *byte == 1 || *byte == 2), "old or new");
        let second = &all[PIECE..2 * PIECE];
        let new = second.iter().filter(|byte| **byte == 2).count();
        kept[if new == 0 {
            0
        } else if new == PIECE {
            1
        } else {
            2
        }] += 1;
        platter.lie();
        assert!(platter.write(0, &[9; PIECE]));
        platter.flush();
        assert_eq!(platter.read(0, 1), [9]);
        assert_eq!(platter.after_cut(&mut Dice(seed)).read(0, 1), [0], "a disk that lies has nothing of it");
    }
    assert!(kept.iter().all(|count| *count > 0), "old, new and torn: {kept:?}");
}
