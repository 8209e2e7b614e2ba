//! Logarithms in whole numbers, so that a device needs none of its own and every machine has the same: 16 bits behind the
//! point.

/// Entries of a table that a draw is looked up in: its upper 12 bits.
pub(super) const DRAWS: usize = 1 << 12;

/// What is looked up while searching.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// `[4096]`: exponentially distributed numbers, mean 1: -ln of the middle of each part of (0, 1).
    pub gap: Vec<u32>,
    /// `[4096]`: the binary logarithms of these, in two's complement: who has the smallest, less the logarithm of its
    /// weight, wins a race in which everyone's chance is its weight.
    pub race: Vec<u32>,
    /// `[256]`: binary logarithms of 1 to 2.
    pub fraction: Vec<u32>,
}

impl Default for Tables {
    fn default() -> Self {
        /// ln 2, with 32 bits behind the point.
        const LN_2: u64 = 2_977_044_472;
        // -ln((2 i + 1) / 8192) = ln 2 * (13 - log2(2 i + 1))
        let gap = |i: usize| word((u64::from((13 << 16) - exact(2 * i as u64 + 1)) * LN_2) >> 32);
        let gap: Vec<u32> = (0..DRAWS).map(gap).collect();
        let race = gap.iter().map(|gap| exact(u64::from((*gap).max(1))).wrapping_sub(16 << 16)).collect();
        let fraction = (0..256).map(|i| exact(256 + i) - (8 << 16)).collect();
        Self { gap, race, fraction }
    }
}

impl Tables {
    /// Returns the binary logarithm of a number, which is not zero, by its first nine bits.
    pub(super) fn logarithm(&self, value: u32) -> u32 {
        let zeros = value.leading_zeros();
        ((31 - zeros) << 16) | self.fraction[((value << zeros) >> 23 & 255) as usize]
    }
}

/// Returns the binary logarithm of a number, which is not zero, rounded down: a bit for every time that squaring what is
/// left of it reaches 2.
pub(super) fn exact(value: u64) -> u32 {
    let whole = value.ilog2();
    let mut rest = if whole > 31 { value >> (whole - 31) } else { value << (31 - whole) };
    let mut found = whole;
    for _ in 0..16 {
        rest = (rest * rest) >> 31;
        found = found << 1 | u32::from(rest >> 32 > 0);
        rest >>= u32::from(rest >> 32 > 0);
    }
    found
}

fn word(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(fixed: u32, exact: f64, by: f64) -> bool {
        (f64::from(fixed.cast_signed()) / 65_536.0 - exact).abs() < by
    }

    #[test]
    fn logarithms_are_those_of_floating_point() {
        let tables = Tables::default();
        for value in [1_u32, 2, 3, 5, 1_000, 65_535, 65_536, 1 << 31, u32::MAX] {
            assert!(close(exact(value.into()), f64::from(value).log2(), 1e-4), "{value}");
            assert!(close(tables.logarithm(value), f64::from(value).log2(), 0.006), "{value}");
        }
        assert_eq!(exact(1 << 40), 40 << 16);
        for i in [0, 1, 17, 2_048, 4_000, 4_095] {
            let gap = -((f64::from(i) + 0.5) / 4_096.0).ln();
            assert!(close(tables.gap[i as usize], gap, 1e-4), "{i}");
            assert!(close(tables.race[i as usize], gap.log2(), 0.2), "{i}");
        }
    }

    #[test]
    fn the_mean_gap_is_one() {
        let sum: u64 = Tables::default().gap.iter().map(|gap| u64::from(*gap)).sum();
        assert!((sum / DRAWS as u64).abs_diff(1 << 16) < 50, "{}", sum / DRAWS as u64);
    }
}
