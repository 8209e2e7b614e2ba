//! The time limits of a stage whose orchestrator is gone: kept by its sentinel.
//!
//! As long as the orchestrator listens, it keeps them itself and the sentinel looks on.

use std::time::Duration;

use rustix::event::Timespec;
use rustix::process::Signal;
use tokio::time::Instant;

use super::clock::next_limit;
use super::process;
use crate::run::outcome::Limit;
use crate::spec::Limits;

/// How often it is looked whether the orchestrator is still there once a limit has passed, and whether what was killed has
/// ended.
const AGAIN: Duration = Duration::from_secs(1);

/// When a stage must end, and what was done about it.
pub(super) struct Overtime {
    limits: Limits,
    started: Instant,
    printed: Option<Instant>,
    /// Since when it stands still.
    stands: Option<Instant>,
    /// The limit that it has passed, and when SIGKILL follows.
    ending: Option<(Limit, Instant)>,
    /// Entries of the environment by which all processes of the attempt are known.
    marks: Vec<String>,
}

impl Overtime {
    /// Starts the clocks of a stage that starts now. Its marks are ours.
    pub(super) fn start(limits: Limits) -> Self {
        let mark = |name: &str| Some(format!("{name}={}", std::env::var_os(name)?.into_string().ok()?));
        let marks = ["TRAINYARD_RUN", "TRAINYARD_TASK", "TRAINYARD_ATTEMPT"].into_iter().filter_map(mark).collect();
        Self { limits, started: Instant::now(), printed: None, stands: None, ending: None, marks }
    }

    /// Takes in that it has printed something.
    pub(super) fn has_printed(&mut self) {
        self.printed = Some(Instant::now());
    }

    /// Takes in that the stage stands still, or goes on: as long as it stands still its time does too.
    pub(super) fn stand(&mut self, stands: bool) {
        let now = Instant::now();
        match (self.stands, stands) {
            (None, true) => self.stands = Some(now),
            (Some(since), false) => {
                self.started += now - since;
                self.printed = self.printed.map(|printed| now.min(printed + (now - since)));
                self.stands = None;
            }
            (None, false) | (Some(_), true) => {}
        }
    }

    /// Lets everything go on that the attempt has started.
    pub(super) fn go_on(&mut self) {
        self.signal(Signal::CONT);
        self.stand(false);
    }

    /// Returns the limit for which it was ended.
    pub(super) fn ended_for(&self) -> Option<Limit> {
        self.ending.map(|(limit, _)| limit)
    }

    /// Does what is due for the stage and returns for how long nothing else will be; `None` for good. `alone` says whether
    /// the orchestrator is gone.
    pub(super) fn wait(&mut self, alone: impl FnOnce() -> bool) -> Option<Timespec> {
        let now = Instant::now();
        let due = match self.ending {
            Some((limit, kill_at)) if now >= kill_at => {
                self.signal(Signal::KILL);
                self.ending = Some((limit, now + AGAIN));
                now + AGAIN
            }
            Some((_, kill_at)) => kill_at,
            None if self.stands.is_some() => return None,
            None => match next_limit(&self.limits, self.started, self.printed)? {
                (at, _) if now < at => at,
                (_, limit) if alone() => {
                    self.signal(Signal::TERM);
                    self.signal(Signal::CONT);
                    let kill_at = now + self.limits.grace.as_std();
                    self.ending = Some((limit, kill_at));
                    kill_at
                }
                _ => now + AGAIN,
            },
        };
        // Rounded up: a moment before there would be nothing to do yet.
        Timespec::try_from(due.saturating_duration_since(now) + Duration::from_millis(1)).ok()
    }

    /// Reaches everything that the attempt has started, but not this process.
    fn signal(&self, signal: Signal) {
        if !self.marks.is_empty() {
            process::find_marked(&self.marks).into_iter().for_each(|pid| process::signal(pid, signal));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Millis;

    #[test]
    fn the_time_of_a_stage_that_stands_still_does_too() {
        let limits = Limits { timeout: Some(Millis::ZERO), ..Limits::default() };
        // Nothing carries its marks: there are none.
        let mut overtime = Overtime { marks: Vec::new(), ..Overtime::start(limits) };
        overtime.stand(true);
        assert!(overtime.wait(|| true).is_none());
        assert_eq!(overtime.ended_for(), None);
        overtime.go_on();
        assert!(overtime.wait(|| true).is_some());
        assert_eq!(overtime.ended_for(), Some(Limit::Wall));
    }
}
