//! The time limits of a stage whose orchestrator is gone: kept by its sentinel.
//!
//! As long as the orchestrator listens, it keeps them itself and the sentinel looks on.

use std::time::Duration;

use rustix::event::Timespec;
use rustix::process::Signal;
use tokio::time::Instant;

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
        Self { limits, started: Instant::now(), printed: None, ending: None, marks }
    }

    /// Takes in that it has printed something.
    pub(super) fn has_printed(&mut self) {
        self.printed = Some(Instant::now());
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
            None => match self.next_limit()? {
                (at, _) if now < at => at,
                (_, limit) if alone() => {
                    self.signal(Signal::TERM);
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

    fn next_limit(&self) -> Option<(Instant, Limit)> {
        let Limits { timeout, idle_timeout, first_output_timeout, .. } = self.limits;
        let first = if self.printed.is_none() { first_output_timeout } else { None };
        let all = [
            timeout.map(|limit| (self.started + limit.as_std(), Limit::Wall)),
            idle_timeout.map(|limit| (self.printed.unwrap_or(self.started) + limit.as_std(), Limit::Idle)),
            first.map(|limit| (self.started + limit.as_std(), Limit::FirstOutput)),
        ];
        all.into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// Reaches everything that the attempt has started, but not this process.
    fn signal(&self, signal: Signal) {
        if !self.marks.is_empty() {
            process::find_marked(&self.marks).into_iter().for_each(|pid| process::signal(pid, signal));
        }
    }
}
