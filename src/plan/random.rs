//! Seeded randomness: the same seed gives the same numbers on every machine. Not for secrets.

/// SplitMix64. Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// Starts at a seed.
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next number.
    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `most`, 0 where that is 0. The bias of the multiplication is below 2^-32 for the numbers
    /// of tasks and milliseconds that it is used for.
    pub(super) const fn below(&mut self, most: u64) -> u64 {
        ((self.next() as u128 * most as u128) >> 64) as u64
    }

    /// Returns an index into `len` things, 0 where there are none.
    #[expect(clippy::cast_possible_truncation, reason = "less than `len`")]
    pub(super) const fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }
}
