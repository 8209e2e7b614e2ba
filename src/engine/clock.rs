//! When things happened to an attempt: what its limits are counted from.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::process;
use super::sentinel;
use crate::probe::clock;
use crate::run::outcome::{Limit, Outcome};
use crate::spec::Limits;

/// How often a running attempt's progress file is looked at: well below what an eye takes for lag.
pub(super) const PROGRESS_EVERY: Duration = Duration::from_millis(250);

/// When things happened to an attempt and what we did about it.
pub(super) struct Clock {
    pub(super) started: Instant,
    pub(super) printed: Option<Instant>,
    pub(super) look_at_progress: Instant,
    /// Why we are ending it, and when SIGKILL follows.
    pub(super) ending: Option<(Outcome, Instant)>,
    /// Whether SIGKILL was sent.
    pub(super) killed: bool,
}

impl Clock {
    pub(super) fn start(now: Instant) -> Self {
        Self { started: now, printed: None, look_at_progress: now + PROGRESS_EVERY, ending: None, killed: false }
    }

    /// Goes on with an attempt of this age. When it last printed is not known: it is taken to be now.
    pub(super) fn go_on(now: Instant, age: Duration, has_printed: bool) -> Self {
        Self { started: now.checked_sub(age).unwrap_or(now), printed: has_printed.then_some(now), ..Self::start(now) }
    }

    /// Returns the limit that is passed next, and when.
    pub(super) fn next_limit(&self, limits: &Limits) -> Option<(Instant, Limit)> {
        next_limit(limits, self.started, self.printed)
    }

    /// Returns the limit that a stage has passed. Where its sentinel, by its record and process number, had to wait for room to
    /// start it, that is counted from then on.
    pub(super) fn passed(&mut self, limits: &Limits, sentinel: Option<(&Path, u32)>, now: Instant) -> Option<Limit> {
        let passed = |clock: &Self| clock.next_limit(limits).filter(|(at, _)| now >= *at);
        passed(self)?;
        if let Some((record, pid)) = sentinel {
            let record = sentinel::read(record);
            let began = match record.as_ref().and_then(|record| record.began) {
                Some(at) => Some(now.checked_sub((clock::now() - at).as_std()).unwrap_or(now)),
                None if record.is_none_or(|record| record.waits_for.is_some()) && !process::has_children(pid) => {
                    Some(now)
                }
                None => None,
            };
            if let Some(began) = began.filter(|began| *began > self.started) {
                self.started = began;
                self.printed = self.printed.filter(|printed| *printed > began);
            }
        }
        passed(self).map(|(_, limit)| limit)
    }
}

/// Returns the limit that an attempt passes first, and when, by its start and its last output.
pub(super) fn next_limit(limits: &Limits, started: Instant, printed: Option<Instant>) -> Option<(Instant, Limit)> {
    let first = if printed.is_none() { limits.first_output_timeout } else { None };
    let all = [
        limits.timeout.map(|limit| (started + limit.as_std(), Limit::Wall)),
        // Before the first output the time since the start counts as idle.
        limits.idle_timeout.map(|limit| (printed.unwrap_or(started) + limit.as_std(), Limit::Idle)),
        first.map(|limit| (started + limit.as_std(), Limit::FirstOutput)),
    ];
    all.into_iter().flatten().min_by_key(|(at, _)| *at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Millis;

    #[test]
    fn of_two_limits_that_are_passed_the_earlier_one_is_told() {
        let (timeout, first_output_timeout) = (Some(Millis(9_000)), Some(Millis(5_000)));
        let limits = Limits { timeout, first_output_timeout, ..Limits::default() };
        let start = Instant::now();
        let mut clock = Clock::start(start);
        let mut passed = |seconds| clock.passed(&limits, None, start + Duration::from_secs(seconds));
        assert_eq!([passed(4), passed(5), passed(10)], [None, Some(Limit::FirstOutput), Some(Limit::FirstOutput)]);
    }
}
