//! What of a device a task makes useless for others: more than it asks for, where the rest is too small for anybody.
//!
//! A device is cut into pieces, and an amount blocks some of them, so that amounts which fit a device together never block
//! more than all of its pieces; of two tasks that take more than half of a device each, each blocks all of it. Does not
//! know tasks.

/// Into how many parts a device is cut: see [`blocked`].
pub(super) const PARTS: [u64; 3] = [1, 2, 3];

/// Returns how many of the `parts * (parts + 1)` pieces of a device an amount of its `whole` blocks.
///
/// A dual feasible function: u^(k) of Fekete and Schepers, "New classes of fast lower bounds for bin packing problems",
/// 2001.
pub(super) fn blocked(amount: u64, whole: u64, parts: u64) -> u64 {
    let (amount, whole) = (u128::from(amount), u128::from(whole.max(1)));
    let cuts = u128::from(parts) + 1;
    let full = amount * cuts / whole;
    let exact = (amount * cuts).is_multiple_of(whole);
    u64::try_from(if exact { full * u128::from(parts) } else { full * cuts }).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn more_than_half_blocks_all_of_a_device_cut_in_two() {
        assert_eq!([49, 50, 51, 100].map(|amount| blocked(amount, 100, 1)), [0, 1, 2, 2]);
    }

    proptest! {
        #[test]
        fn what_fits_together_never_blocks_more_than_the_whole(
            cuts in prop::collection::vec(0_u64..=60, 0..6),
            parts in 1_u64..6,
        ) {
            let mut cuts = cuts;
            cuts.extend([0, 60]);
            cuts.sort_unstable();
            let together: u64 = cuts.windows(2).map(|pair| blocked(pair[1] - pair[0], 60, parts)).sum();
            prop_assert!(together <= parts * (parts + 1));
        }
    }
}
