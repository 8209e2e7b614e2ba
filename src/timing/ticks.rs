//! Durations as 32-bit ticks, exactly or not at all: what a kernel counts in.
//!
//! A tick is the greatest common divisor of all durations, so that nothing is rounded: whole seconds leave room for 68
//! years. Does not know the graph.

use crate::units::Millis;

/// Every path is shorter: the largest values are flags, and a length + 1 must still fit.
const LIMIT: u64 = 1 << 31;

/// Durations in a common unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticks {
    /// The unit.
    pub tick: Millis,
    /// `[n_tasks]`, by TaskId.
    pub count: Vec<u32>,
}

impl Ticks {
    /// Returns the durations in ticks, or `None` where some path might not fit: where a chain of the `n_levels` longest
    /// tasks does not.
    #[must_use]
    pub fn new(duration: &[Millis], n_levels: usize) -> Option<Self> {
        let tick = duration.iter().fold(0, |tick, duration| gcd(duration.0, tick)).max(1);
        let mut longest: Vec<u64> = duration.iter().map(|duration| duration.0 / tick).collect();
        if n_levels < longest.len() {
            longest.select_nth_unstable_by_key(n_levels, |count| std::cmp::Reverse(*count));
        }
        let sum = longest.iter().take(n_levels).fold(0_u64, |sum, count| sum.saturating_add(*count));
        if sum >= LIMIT {
            return None;
        }
        let count = duration.iter().map(|duration| u32::try_from(duration.0 / tick).ok()).collect::<Option<_>>()?;
        Some(Self { tick: Millis(tick), count })
    }

    /// Returns a number of ticks as a time.
    #[must_use]
    pub const fn time(&self, count: u32) -> Millis {
        Millis(self.tick.0 * count as u64)
    }
}

/// The greatest common divisor (Euclid).
const fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_hours_are_counted_in_hours() {
        let ticks = Ticks::new(&[Millis(7_200_000), Millis(0), Millis(10_800_000)], 3).unwrap();
        assert_eq!((ticks.tick, ticks.count.as_slice()), (Millis(3_600_000), [2, 0, 3].as_slice()));
        assert_eq!(ticks.time(2), Millis(7_200_000));
    }

    #[test]
    fn a_path_that_might_not_fit_is_refused() {
        let limit = Millis(LIMIT - 2);
        assert!(Ticks::new(&[limit, Millis(1)], 2).is_some());
        assert!(Ticks::new(&[limit, Millis(1), Millis(1)], 3).is_none());
        assert!(Ticks::new(&[limit, Millis(1), Millis(1)], 2).is_some());
        assert!(Ticks::new(&[Millis(u64::MAX), Millis(u64::MAX - 1)], 2).is_none());
    }

    #[test]
    fn tasks_that_take_no_time_at_all_fit() {
        assert_eq!(Ticks::new(&[Millis::ZERO; 2], 2).unwrap().count, [0, 0]);
    }
}
