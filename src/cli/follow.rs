//! `trainyard logs -f`: prints a task's log as it grows, until the task ends.
//!
//! Woken by inotify when the log's folder changes. A file system that tells nothing (NFS) and the end of the task are
//! noticed by a look once a second: a person who reads along does not see the difference, and an idle follower costs
//! next to nothing.

use std::io::{self, BufReader};
use std::time::Duration;

use tokio::time::Instant;

use super::holes::Holes;
use super::log_out::LogOut;
use super::logs::Opened;
use super::state::{broken, is_alive};
use super::wake::Wake;
use super::{Exit, Failure, output};
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

    /// Prints until the task has ended, or nobody is there any more to carry it out.
    pub(super) fn run(mut self, mut out: LogOut) -> Result<Exit, Failure> {
        self.catch_up()?;
        let tried = self.opened.state.tasks[self.task].attempts.len();
        let mut number = self.only.unwrap_or(u32::try_from(tried.max(1)).unwrap_or(u32::MAX));
        let wake = Wake::on(self.opened.log(self.task, number).parent());
        loop {
            out.of(self.opened.name(self.task), Some(number));
            let ended = match self.attempt(number, &wake, &mut out)? {
                Ok(ended) => ended,
                Err(error) => return output::finish(Err(error)),
            };
            if ended || self.only.is_some() {
                return Ok(Exit::Done);
            }
            number += 1;
            if let Err(error) = out.heading(&format!("{}, attempt {number}", self.opened.name(self.task))) {
                return output::finish(Err(error));
            }
        }
    }

    /// Prints one attempt to its end and returns whether no other follows.
    fn attempt(&mut self, number: u32, wake: &Wake, out: &mut LogOut) -> Result<io::Result<bool>, Failure> {
        let path = self.opened.log(self.task, number);
        let mut log: Option<BufReader<Holes>> = None;
        loop {
            // Asked before the log is read: what was printed before the end is then read as well.
            self.catch_up()?;
            let (over, last) = self.stands(number);
            let again = Instant::now() + LOOK;
            loop {
                log = log.or_else(|| Holes::open(&path).ok().map(BufReader::new));
                if let Some(log) = &mut log
                    && let Err(error) = out.rest(log)
                {
                    return Ok(Err(error));
                }
                if over {
                    let ended = out.end_line();
                    if ended.is_ok() {
                        self.opened.tell_log_cut(self.task, number);
                    }
                    return Ok(ended.map(|()| last));
                }
                let left = again.saturating_duration_since(Instant::now());
                if left.is_zero() || !wake.wait(left) {
                    break;
                }
            }
        }
    }

    /// Returns whether the attempt is over, and whether it was the task's last.
    fn stands(&self, number: u32) -> (bool, bool) {
        let state = &self.opened.state;
        let task = &state.tasks[self.task];
        let gone = state.end.is_some() || !is_alive(&self.opened.row);
        let ended = task.attempts.get(number as usize - 1).is_some_and(|attempt| attempt.ended.is_some());
        let later = task.attempts.len() > number as usize;
        (ended || gone || task.phase.is_final(), (task.phase.is_final() || gone) && !later)
    }
}
