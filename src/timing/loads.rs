//! The load matrix over plain speeds, `L = T / P`, rounded up, and who is fastest: what `kernels/load_matrix.cu` must
//! equal, and the reciprocals that let a kernel divide by multiplying.
//!
//! Does not know modes or durations declared for a model: those are [`Load`](super::Load)'s.

use crate::units::{Millis, Speed};

/// Returns `[n_devices][n_tasks]`: the time of every task on every device.
#[must_use]
pub fn matrix(duration: &[Millis], speed: &[Speed]) -> Vec<Vec<Millis>> {
    speed.iter().map(|speed| duration.iter().map(|time| speed.time_for(*time)).collect()).collect()
}

/// Where tasks are fastest, and what that gives each device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fastest {
    /// `[n_tasks]`: index of the device, the first among equals.
    pub device: Vec<u16>,
    /// `[n_devices]`: the time of all tasks that are fastest there.
    pub total: Vec<Millis>,
    /// `[n_devices]`: how many these are.
    pub chosen: Vec<u32>,
}

/// Finds the fastest device of every task.
///
/// # Panics
/// Without any device, where there are tasks.
#[must_use]
pub fn fastest(duration: &[Millis], speed: &[Speed]) -> Fastest {
    let none = Fastest { total: vec![Millis::ZERO; speed.len()], chosen: vec![0; speed.len()], ..Fastest::default() };
    duration.iter().fold(none, |mut found, time| {
        let on_device = |device: &u16| speed[usize::from(*device)].time_for(*time);
        let best = (0_u16..).take(speed.len()).min_by_key(on_device).expect("a device to be fastest on");
        found.device.push(best);
        found.total[usize::from(best)] += on_device(&best);
        found.chosen[usize::from(best)] += 1;
        found
    })
}

/// `1 / P` as a kernel multiplies by it: a whole part, and a fraction in units of 2^-64, cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reciprocal {
    /// The whole part.
    pub whole: u32,
    /// The fraction.
    pub fraction: u64,
}

impl Reciprocal {
    /// Returns the reciprocal, or `None` where a product with a time up to `longest` might be rounded differently from
    /// [`Speed::time_for`] or not fit 32 bits.
    ///
    /// With `1 / P = a / b` in lowest terms, the fraction lacks `e / (b 2^64)` where `e < b`. A product with `n` then lacks
    /// `n e / (b 2^64)`, while it lies at least `1 / b` above the next smaller whole number: rounding up gives the same as
    /// long as `n e < 2^64` (Granlund and Montgomery, "Division by invariant integers using multiplication", 1994).
    #[must_use]
    pub fn new(speed: Speed, longest: u32) -> Option<Self> {
        let (a, b) = (u128::from(Speed::ONE.0), u128::from(speed.0.max(1)));
        let divisor = gcd(a, b);
        let (a, b) = (a / divisor, b / divisor);
        let shifted = (a % b) << 64;
        let fits = u32::try_from(speed.time_for(Millis(longest.into())).0).is_ok();
        let exact = u128::from(longest) * (shifted % b) < 1 << 64;
        let (whole, fraction) = (u32::try_from(a / b).ok()?, u64::try_from(shifted / b).ok()?);
        (fits && exact).then_some(Self { whole, fraction })
    }
}

/// The greatest common divisor (Euclid).
const fn gcd(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_task_goes_to_the_first_of_equally_fast_devices() {
        let found = fastest(&[Millis(10), Millis(0)], &[Speed::ONE, Speed(2_000_000), Speed(2_000_000)]);
        assert_eq!(found.device, [1, 0]);
        assert_eq!((found.total, found.chosen), (vec![Millis(0), Millis(5), Millis(0)], vec![1, 1, 0]));
    }

    proptest! {
        #[test]
        fn multiplying_by_a_reciprocal_is_dividing(time: u32, speed in 1_000_u64..10_000_000) {
            prop_assume!(time > 0);
            let Some(Reciprocal { whole, fraction }) = Reciprocal::new(Speed(speed), time) else {
                let too_long = Speed(speed).time_for(Millis(time.into())).0 > u32::MAX.into();
                prop_assert!(too_long, "every speed up to ten has an exact reciprocal");
                return Ok(());
            };
            let product = (u128::from(time) * u128::from(fraction)).div_ceil(1 << 64);
            let got = u64::from(time) * u64::from(whole) + u64::try_from(product).unwrap();
            prop_assert_eq!(Millis(got), Speed(speed).time_for(Millis(time.into())));
        }
    }
}
