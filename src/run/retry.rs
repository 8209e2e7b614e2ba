//! Whether and when a failed attempt is followed by another.
//!
//! Pure: the jitter comes from the run's seed, so that the same run waits the same.

use super::outcome::Outcome;
use crate::graph::TaskId;
use crate::spec::Retry;
use crate::units::Millis;

/// Returns how long to wait before the next attempt, or `None` where the task has failed for good.
///
/// `attempts` counts those made so far. The wait doubles with each attempt up to `backoff_most`; its upper half is
/// jitter, so that tasks that failed together do not come back together.
#[must_use]
pub fn wait_before_next(outcome: &Outcome, attempts: u32, retry: &Retry, seed: u64, task: TaskId) -> Option<Millis> {
    if !may_be_retried(outcome) || attempts > retry.retries {
        return None;
    }
    Some(wait(attempts, retry, seed, task))
}

/// Returns how long to wait after so many attempts, whatever became of them.
#[must_use]
pub fn wait(attempts: u32, retry: &Retry, seed: u64, task: TaskId) -> Millis {
    let doublings = attempts.saturating_sub(1).min(32);
    let whole = retry.backoff.0.saturating_mul(1 << doublings).min(retry.backoff_most.0);
    let jitter = mix(seed ^ (u64::from(task.0) << 32) ^ u64::from(attempts)) % (whole / 2 + 1);
    Millis(whole - jitter)
}

/// Whether trying again can help: not where there is no program to run, nor where we ended the attempt ourselves.
const fn may_be_retried(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Exited { .. }
        | Outcome::Signalled { .. }
        | Outcome::TimedOut { .. }
        | Outcome::OutOfMemory { .. }
        | Outcome::OutputMissing { .. } => true,
        Outcome::Succeeded | Outcome::SpawnFailed { .. } | Outcome::Interrupted => false,
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
    use super::*;

    const RETRY: Retry = Retry { retries: 3, oom_retries: 0, backoff: Millis(1_000), backoff_most: Millis(3_000) };

    #[test]
    fn waits_double_up_to_the_most_and_end_with_the_retries() {
        let wait = |attempts| wait_before_next(&Outcome::Exited { code: 1 }, attempts, &RETRY, 7, TaskId(3));
        for (attempts, whole) in [(1, 1_000), (2, 2_000), (3, 3_000)] {
            let waited = wait(attempts).expect("a retry is left").0;
            assert!((whole / 2..=whole).contains(&waited), "{waited} after attempt {attempts}");
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
    fn a_missing_program_is_not_tried_again() {
        let outcome = Outcome::SpawnFailed { reason: "no such file".to_owned() };
        assert_eq!(wait_before_next(&outcome, 1, &RETRY, 7, TaskId(0)), None);
    }
}
