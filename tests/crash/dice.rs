//! A row of numbers that a seed repeats.

/// The row.
#[derive(Debug, Clone)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// A number below `sides`.
    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % sides
    }

    /// Whether something happens that does so this often in a hundred.
    pub(crate) fn happens(&mut self, percent: usize) -> bool {
        self.roll(100) < percent
    }
}
