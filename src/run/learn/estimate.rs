//! One number of many: how much memory and time the next attempt will need, by what earlier ones did.
//!
//! Memory: the most that was seen, and a margin on it that shrinks with the number of attempts, since with few of them
//! the largest is still to come and what was seen is a lower bound (between two readings nobody looks). What was not
//! enough for an attempt counts like one that needs half as much again, and takes back that others needed none. Time: the
//! 90th percentile with a smaller margin. All in whole numbers; the order of samples does not matter.

use crate::units::{Bytes, Millis};

/// A number and how much stands behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate<T> {
    /// The number.
    pub value: T,
    /// How many attempts it comes from.
    pub runs: u32,
}

/// Margin on memory after one attempt, doubled, in thousandths: 25 % after one attempt, 10 % after four.
const MEMORY_MARGIN: u64 = 500;

/// The least margin on memory, in thousandths: allocators round, and readings miss short peaks.
const LEAST_MEMORY_MARGIN: u64 = 20;

/// The least that is reserved: a CUDA context takes 300 MiB and more, and may be missed between two readings.
const LEAST: u64 = 512 << 20;

/// Margin on time after one attempt, doubled, in thousandths.
const TIME_MARGIN: u64 = 200;

/// Returns the memory to reserve by what attempts held at most and by what was not enough; `None` where neither is
/// known, or what is known is only that nobody sees what is held. Rounded up to whole MiB.
#[must_use]
pub fn memory(peaks: &[Bytes], ran_out: &[Bytes]) -> Option<Estimate<Bytes>> {
    let held: Vec<_> = peaks.iter().copied().filter(|peak| *peak > Bytes::ZERO).collect();
    let was_missed = held.len() < peaks.len() && !ran_out.is_empty();
    if was_missed && held.is_empty() {
        // It needs memory, and what it had was too little because none was seen: more of that says nothing.
        return None;
    }
    let peaks = if was_missed { &held } else { peaks };
    let seen = peaks.iter().max().map(|most| more(most.0, memory_margin(peaks.len())));
    // As after running out of memory: half as much again.
    let missed = ran_out.iter().max().map(|most| more(most.0, 500));
    let value = seen.max(missed)?.max(LEAST);
    let runs = u32::try_from(peaks.len() + ran_out.len()).unwrap_or(u32::MAX);
    Some(Estimate { value: Bytes(value.div_ceil(Bytes::MIB.0).saturating_mul(Bytes::MIB.0)), runs })
}

/// Returns the time to plan with; `None` where no attempt has succeeded.
#[must_use]
pub fn time(times: &[Millis]) -> Option<Estimate<Millis>> {
    let mut times = times.to_vec();
    times.sort_unstable();
    // The nearest rank: of fewer than ten the longest.
    let rank = (times.len() * 9).div_ceil(10).checked_sub(1)?;
    let value = more(times[rank].0, margin(TIME_MARGIN, times.len()));
    Some(Estimate { value: Millis(value), runs: u32::try_from(times.len()).unwrap_or(u32::MAX) })
}

fn memory_margin(samples: usize) -> u64 {
    margin(MEMORY_MARGIN, samples).max(LEAST_MEMORY_MARGIN)
}

fn margin(of_none: u64, samples: usize) -> u64 {
    of_none / (u64::try_from(samples).unwrap_or(u64::MAX).saturating_add(1))
}

/// Returns a value and so many thousandths of it, rounded up.
fn more(value: u64, thousandths: u64) -> u64 {
    let added = (u128::from(value) * u128::from(thousandths)).div_ceil(1_000);
    value.saturating_add(u64::try_from(added).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GIB: u64 = 1 << 30;

    fn peaks(gib: &[u64]) -> Vec<Bytes> {
        gib.iter().map(|gib| Bytes(gib * GIB)).collect()
    }

    #[test]
    fn nothing_known_is_no_number() {
        assert_eq!((memory(&[], &[]), time(&[])), (None, None));
    }

    #[test]
    fn after_one_attempt_a_quarter_is_added_and_after_four_a_tenth() {
        let value = |gib: &[u64]| memory(&peaks(gib), &[]).unwrap().value.0;
        assert_eq!(value(&[8]), 10 * GIB);
        assert_eq!(value(&[10, 9, 8, 10]), 11 * GIB);
        assert_eq!(value(&[100; 24]), 102 * GIB);
        assert_eq!(value(&[100; 60]), 102 * GIB, "and never less than a fiftieth");
    }

    #[test]
    fn what_was_not_enough_is_exceeded_by_half() {
        let known = memory(&peaks(&[4]), &peaks(&[8])).unwrap();
        assert_eq!((known.value, known.runs), (Bytes(12 * GIB), 2));
        assert_eq!(memory(&peaks(&[20]), &peaks(&[8])).unwrap().value, Bytes(25 * GIB));
    }

    #[test]
    fn who_was_seen_to_take_nothing_is_given_room_for_a_context() {
        assert_eq!(memory(&[Bytes::ZERO], &[]).unwrap(), Estimate { value: Bytes(512 << 20), runs: 1 });
    }

    #[test]
    fn who_ran_out_did_not_need_none() {
        let little = Bytes(512 << 20);
        assert_eq!(memory(&[Bytes::ZERO; 3], &[little, little]), None);
        assert_eq!(memory(&[], &[little]).unwrap().value, Bytes(768 << 20));
        let known = memory(&[Bytes::ZERO, Bytes(8 * GIB)], &[little]).unwrap();
        assert_eq!((known.value, known.runs), (Bytes(10 * GIB), 2), "what was seen stands");
    }

    #[test]
    fn times_are_planned_by_their_90th_percentile() {
        let times: Vec<_> = (1..=100).map(|s| Millis(s * 1_000)).collect();
        assert_eq!(time(&times).unwrap(), Estimate { value: Millis(90_090), runs: 100 });
        assert_eq!(time(&[Millis(1_000)]).unwrap().value, Millis(1_100));
    }

    fn some_bytes() -> impl Strategy<Value = Vec<Bytes>> {
        prop::collection::vec((1..1_u64 << 40).prop_map(Bytes), 1..100)
    }

    proptest! {
        #[test]
        fn memory_is_never_below_what_was_seen_and_a_fiftieth(seen in some_bytes()) {
            let most = seen.iter().max().unwrap().0;
            prop_assert!(memory(&seen, &[]).unwrap().value.0 >= most + most / 50);
        }

        #[test]
        fn memory_is_more_than_what_was_not_enough(seen in some_bytes(), short in some_bytes()) {
            let most = short.iter().max().unwrap().0;
            prop_assert!(memory(&seen, &short).unwrap().value.0 >= most + most / 2);
        }

        #[test]
        fn a_larger_sample_never_makes_the_estimate_smaller(mut seen in some_bytes(), at in 0_usize..100, more in 0_u64..1 << 40) {
            let before = memory(&seen, &[]).unwrap().value;
            let at = at % seen.len();
            seen[at] += Bytes(more);
            prop_assert!(memory(&seen, &[]).unwrap().value >= before);
        }

        #[test]
        fn more_samples_of_the_same_never_make_it_larger(one in 1..1_u64 << 40, n in 1_usize..80) {
            let of = |n: usize| (memory(&vec![Bytes(one); n], &[]).unwrap().value, time(&vec![Millis(one); n]).unwrap().value);
            let (fewer, more) = (of(n), of(n + 1));
            prop_assert!(more.0 <= fewer.0 && more.1 <= fewer.1);
        }

        #[test]
        fn having_seen_nothing_changes_nothing_of_who_ran_out_and_was_seen(
            seen in some_bytes(), short in some_bytes(), missed in 0_usize..4,
        ) {
            let mut with = vec![Bytes::ZERO; missed];
            with.extend(&seen);
            prop_assert_eq!(memory(&with, &short), memory(&seen, &short));
        }

        #[test]
        fn the_order_of_samples_does_not_matter(seen in some_bytes()) {
            let reversed: Vec<_> = seen.iter().rev().copied().collect();
            prop_assert_eq!(memory(&seen, &[]), memory(&reversed, &[]));
            let times = |of: &[Bytes]| of.iter().map(|bytes| Millis(bytes.0)).collect::<Vec<_>>();
            prop_assert_eq!(time(&times(&seen)), time(&times(&reversed)));
        }
    }
}
