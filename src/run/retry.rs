//! Whether and when a failed attempt is followed by another.
//!
//! Pure: the jitter comes from the run's seed, so that the same run waits the same.

use super::outcome::Outcome;
use crate::graph::TaskId;
use crate::spec::{Failures, Retry};
use crate::units::Millis;

/// Returns how long to wait before the next attempt, or `None` where the task has failed for good.
///
/// `attempts` counts those made so far; of the kinds of failure that the stage names, the outcome must be one. For the
/// wait see [`wait`].
#[must_use]
pub fn wait_before_next(outcome: &Outcome, attempts: u32, retry: &Retry, seed: u64, task: TaskId) -> Option<Millis> {
    let named = retry.on.is_empty() || retry.on.iter().any(|failures| is_one_of(outcome, failures));
    if !named || !may_be_retried(outcome) || attempts > retry.retries {
        return None;
    }
    Some(wait(attempts, retry, seed, task))
}

/// Returns how long to wait after so many attempts, whatever became of them: `backoff`, twice as long after each, and up to
/// half as long again by chance, so that tasks that failed together do not come back together. Never less than `backoff`
/// nor more than `backoff_most`.
#[must_use]
pub fn wait(attempts: u32, retry: &Retry, seed: u64, task: TaskId) -> Millis {
    let doublings = attempts.saturating_sub(1).min(32);
    let whole = retry.backoff.0.saturating_mul(1 << doublings).min(retry.backoff_most.0);
    let longest = whole.saturating_add(whole / 2).min(retry.backoff_most.0);
    let shortest = (longest - (whole / 2).min(longest)).max(retry.backoff.0).min(longest);
    let chance = mix(seed ^ (u64::from(task.0) << 32) ^ u64::from(attempts));
    Millis(shortest + chance % (longest - shortest + 1))
}

/// Whether trying again can help: not where there is no program to run, nor where we ended the attempt ourselves.
const fn may_be_retried(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Exited { .. }
        | Outcome::Signalled { .. }
        | Outcome::TimedOut { .. }
        | Outcome::OutOfMemory { .. }
        | Outcome::OutputMissing { .. } => true,
        Outcome::Succeeded
        | Outcome::SpawnFailed { .. }
        | Outcome::Displaced { .. }
        | Outcome::Outrun
        | Outcome::Interrupted => false,
    }
}

/// Whether a stage that names kinds of failure wants another attempt after running out of memory, where no more of it
/// can be had.
#[must_use]
pub fn wants_another_without_more_memory(retry: &Retry) -> bool {
    retry.on.iter().any(|failures| matches!(failures, Failures::OutOfMemory | Failures::Any))
}

/// Whether an outcome is one of these failures.
fn is_one_of(outcome: &Outcome, failures: &Failures) -> bool {
    let within =
        |range: &std::ops::RangeInclusive<u8>, number: i32| u8::try_from(number).is_ok_and(|n| range.contains(&n));
    match (failures, outcome) {
        (Failures::Any, _)
        | (Failures::TimedOut, Outcome::TimedOut { .. })
        | (Failures::OutOfMemory, Outcome::OutOfMemory { .. })
        | (Failures::OutputMissing, Outcome::OutputMissing { .. }) => true,
        (Failures::Exit(codes), Outcome::Exited { code }) => within(codes, *code),
        (Failures::Signal(signals), Outcome::Signalled { signal }) => within(signals, *signal),
        (
            Failures::Exit(_)
            | Failures::Signal(_)
            | Failures::TimedOut
            | Failures::OutOfMemory
            | Failures::OutputMissing,
            _,
        ) => false,
    }
}

/// Spreads a seed over 64 bits: the finaliser of SplitMix64 (Steele, Lea, Flood, 2014).
const fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::run::outcome::Limit;

    const RETRY: Retry =
        Retry { retries: 3, on: Vec::new(), oom_retries: 0, backoff: Millis(1_000), backoff_most: Millis(3_000) };

    #[test]
    fn waits_double_up_to_the_most_and_end_with_the_retries() {
        let wait = |attempts| wait_before_next(&Outcome::Exited { code: 1 }, attempts, &RETRY, 7, TaskId(3));
        for (attempts, within) in [(1, 1_000..=1_500), (2, 2_000..=3_000), (3, 1_500..=3_000)] {
            let waited = wait(attempts).expect("a retry is left").0;
            assert!(within.contains(&waited), "{waited} after attempt {attempts}");
        }
        assert_eq!(wait(4), None);
    }

    #[test]
    fn two_tasks_that_fail_together_do_not_come_back_together() {
        let wait = |task| wait_before_next(&Outcome::Exited { code: 1 }, 1, &RETRY, 7, TaskId(task));
        assert_ne!(wait(1), wait(2));
        assert_eq!(wait(1), wait(1));
    }

    #[test]
    fn a_missing_program_is_not_tried_again_whatever_is_named() {
        let outcome = Outcome::SpawnFailed { reason: "no such file".to_owned() };
        let any = Retry { on: vec![Failures::Any], ..RETRY };
        assert_eq!(wait_before_next(&outcome, 1, &RETRY, 7, TaskId(0)), None);
        assert_eq!(wait_before_next(&outcome, 1, &any, 7, TaskId(0)), None);
    }

    #[test]
    fn only_the_named_failures_are_tried_again() {
        let on = vec![Failures::Exit(75..=75), Failures::Exit(1..=9), Failures::Signal(9..=9), Failures::TimedOut];
        let retry = Retry { on, ..RETRY };
        let tried = |outcome| wait_before_next(&outcome, 1, &retry, 7, TaskId(0)).is_some();
        for code in [1, 9, 75] {
            assert!(tried(Outcome::Exited { code }), "{code}");
        }
        for code in [10, 74, 76, 255] {
            assert!(!tried(Outcome::Exited { code }), "{code}");
        }
        assert!(tried(Outcome::Signalled { signal: 9 }) && !tried(Outcome::Signalled { signal: 15 }));
        assert!(tried(Outcome::TimedOut { limit: Limit::Idle }));
        assert!(!tried(Outcome::OutOfMemory { device: None }));
        assert!(!tried(Outcome::OutputMissing { path: "x".to_owned(), leads_to: None, also: Box::default() }));
    }

    fn any_outcome() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            (1..=255_i32).prop_map(|code| Outcome::Exited { code }),
            (1..=64_i32).prop_map(|signal| Outcome::Signalled { signal }),
            Just(Outcome::TimedOut { limit: Limit::Wall }),
            Just(Outcome::OutOfMemory { device: None }),
            Just(Outcome::OutputMissing { path: "x".to_owned(), leads_to: None, also: Box::default() }),
            Just(Outcome::SpawnFailed { reason: "x".to_owned() }),
            Just(Outcome::Interrupted),
            Just(Outcome::Succeeded),
        ]
    }

    fn any_failures() -> impl Strategy<Value = Failures> {
        prop_oneof![
            Just(Failures::Any),
            (1..=255_u8, 0..=20_u8).prop_map(|(first, more)| Failures::Exit(first..=first.saturating_add(more))),
            (1..=64_u8, 0..=3_u8).prop_map(|(first, more)| Failures::Signal(first..=first + more)),
            Just(Failures::TimedOut),
            Just(Failures::OutOfMemory),
            Just(Failures::OutputMissing),
        ]
    }

    proptest! {
        /// Naming one more kind never takes a retry away, naming any is naming none, and a wait is within its bounds.
        #[test]
        fn naming_more_failures_never_means_fewer_retries(
            outcome in any_outcome(),
            on in prop::collection::vec(any_failures(), 1..4),
            more in any_failures(),
            attempts in 0..6_u32,
            seed: u64,
        ) {
            let wait = |on: Vec<Failures>| wait_before_next(&outcome, attempts, &Retry { on, ..RETRY }, seed, TaskId(1));
            let few = wait(on.clone());
            let many = wait(on.into_iter().chain([more]).collect());
            prop_assert!(few.is_none() || few == many);
            prop_assert!(many.is_none() || many == wait(Vec::new()));
            prop_assert_eq!(wait(vec![Failures::Any]), wait(Vec::new()));
            if let Some(wait) = many {
                prop_assert!(attempts <= RETRY.retries && (RETRY.backoff..=RETRY.backoff_most).contains(&wait));
            }
        }
    }
}
