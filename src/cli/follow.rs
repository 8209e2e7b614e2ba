//! `trainyard logs -f`: prints a task's log as it grows, until the task ends.
//!
//! Woken by inotify when the log's folder changes. A file system that tells nothing (NFS) and the end of the task are
//! noticed by a look once a second: a person who reads along does not see the difference, and an idle follower costs
//! next to nothing. A task that goes on without its orchestrator is followed as long as its sentinel lives.

use std::io::{self, BufReader};
use std::time::Duration;

use tokio::time::Instant;

use super::holes::Holes;
use super::log_out::LogOut;
use super::logs::Opened;
use super::state::{broken, is_alive, is_here};
use super::wake::Wake;
use super::{Exit, Failure, output};
use crate::engine::process;
use crate::engine::sentinel::{self, Record};
use crate::report::text;
use crate::run::launch;
use crate::run::state::RunState;

/// How long at most nothing is looked at, and the record is not read again though other tasks print.
const LOOK: Duration = Duration::from_secs(1);

/// Follows one task.
pub(super) struct Follow {
    opened: Opened,
    task: usize,
    /// The attempt to print; the latest one, and then those that follow it, where none was asked for.
    only: Option<u32>,
    /// How many of the run's events were taken in.
    taken: usize,
}

impl Follow {
    pub(super) fn new(mut opened: Opened, task: usize, only: Option<u32>) -> Self {
        // Taken in once more, and from then on as it grows.
        opened.state = RunState::new(opened.row.header.tasks.len());
        Self { opened, task, only, taken: 0 }
    }

    /// Takes in what was recorded since the last time.
    fn catch_up(&mut self) -> Result<(), Failure> {
        for recorded in self.opened.store.events_from(&self.opened.row.header.id, self.taken).map_err(broken)? {
            self.opened.state.apply(&recorded).map_err(broken)?;
            self.taken += 1;
        }
        Ok(())
    }

    /// Prints until the task has ended, or nobody is there any more to carry it out: that is said.
    pub(super) fn run(mut self, mut out: LogOut) -> Result<Exit, Failure> {
        self.catch_up()?;
        let tried = self.opened.state.tasks[self.task].attempts.len();
        let first = self.only.unwrap_or(u32::try_from(tried.max(1)).unwrap_or(u32::MAX));
        let wake = Wake::on(self.opened.log(self.task, first).parent());
        for number in first.. {
            out.of(self.opened.name(self.task), Some(number));
            match self.attempt((number, number > first), &wake, &mut out)? {
                Ok(Stands::Last(why)) => why.iter().for_each(|why| output::say(why)),
                Ok(Stands::GoesOn | Stands::Over) if self.only.is_none() => continue,
                Ok(Stands::GoesOn | Stands::Over) => {}
                Err(error) => return output::finish(Err(error)),
            }
            break;
        }
        Ok(Exit::Done)
    }

    /// Prints one attempt to its end, once it has begun, and returns what is to be expected then.
    fn attempt(
        &mut self,
        (number, has_heading): (u32, bool),
        wake: &Wake,
        out: &mut LogOut,
    ) -> Result<io::Result<Stands>, Failure> {
        let path = self.opened.log(self.task, number);
        let mut log: Option<BufReader<Holes>> = None;
        let mut heading = has_heading.then(|| format!("{}, attempt {number}", self.opened.name(self.task)));
        loop {
            // Asked before the record is read, and that before the log: what came before the end is then read as well.
            let is_carried_out = self.is_carried_out()?;
            self.catch_up()?;
            let stands = self.stands(number, is_carried_out);
            if self.opened.state.tasks[self.task].attempts.len() >= number as usize
                && let Some(heading) = heading.take()
                && let Err(error) = out.heading(&heading)
            {
                return Ok(Err(error));
            }
            let again = Instant::now() + LOOK;
            loop {
                log = log.or_else(|| Holes::open(&path).ok().map(BufReader::new));
                if let Some(log) = &mut log
                    && let Err(error) = out.rest(log)
                {
                    return Ok(Err(error));
                }
                if !matches!(stands, Stands::GoesOn) {
                    let ended = out.end_line();
                    if ended.is_ok() {
                        self.opened.tell_log_cut(self.task, number);
                    }
                    return Ok(ended.map(|()| stands));
                }
                let left = again.saturating_duration_since(Instant::now());
                if left.is_zero() || !wake.wait(left) {
                    break;
                }
            }
        }
    }

    /// Whether somebody carries out the run.
    fn is_carried_out(&mut self) -> Result<bool, Failure> {
        let Opened { row, store, .. } = &mut self.opened;
        if !is_alive(row)
            && let Some(orchestrator) = store.orchestrator(&row.header.id).map_err(broken)?
        {
            // Another process may have taken it over.
            row.header.orchestrator = orchestrator;
        }
        Ok(is_alive(row))
    }

    /// Returns how an attempt stands in a run that is carried out, or not.
    fn stands(&self, number: u32, is_carried_out: bool) -> Stands {
        let Opened { state, row, .. } = &self.opened;
        let task = &state.tasks[self.task];
        let attempt = task.attempts.get(number as usize - 1);
        let is_latest = task.attempts.len() <= number as usize;
        if task.phase.is_final() || attempt.is_some_and(|attempt| attempt.ended.is_some()) {
            return if task.phase.is_final() && is_latest { Stands::Last(None) } else { Stands::Over };
        }
        let (name, run) = (&row.header.tasks[self.task].name, &row.header.id);
        let record = launch::sentinel(&row.dir, name, number);
        let is_kept = || {
            let lives = |record: Record| record.ended.is_none() && process::is_alive(record.sentinel);
            is_here(&row.header.orchestrator) && sentinel::read(&record).is_some_and(lives)
        };
        let has_run_ended = state.end.is_some();
        if !has_run_ended && (is_carried_out || is_kept()) {
            return Stands::GoesOn;
        }
        if !is_latest {
            return Stands::Over;
        }
        let name = text::visible(name);
        let has_ended = sentinel::read(&record).is_some_and(|record| record.ended.is_some());
        Stands::Last(Some(match (has_run_ended, has_ended) {
            (true, _) => format!("the run has ended, and {name} is not done: `trainyard resume {run}` goes on with it"),
            (false, true) => format!(
                "{name} has ended, and nobody carries out the run any more: `trainyard resume {run}` takes up how it ended"
            ),
            (false, false) => format!(
                "nobody carries out the run any more, and {name} is not done: `trainyard resume {run}` goes on with it"
            ),
        }))
    }
}

/// How an attempt that is followed stands.
enum Stands {
    /// More may come of it, or it has not begun.
    GoesOn,
    /// It is over, and another one may follow.
    Over,
    /// Nothing more comes, and why, where that is not the end of the task.
    Last(Option<String>),
}
