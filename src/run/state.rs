//! The state of a run: a fold of its events. Live execution and a reading of the record use this one function.
//!
//! Does not decide anything and does not know precedence, resources or processes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::event::{Event, Intent, Place, Recorded, Role, RunEnd, StopReason};
use super::outcome::Outcome;
use super::raise::Raise;
use crate::graph::TaskId;
use crate::units::Millis;

mod attempt;

pub use attempt::{Attempt, Ended};

/// Where a task is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Not started yet, whatever it waits for.
    #[default]
    Waiting,
    /// An attempt failed and another follows, not before this time (ms since the Unix epoch).
    Delayed(Millis),
    /// An attempt runs.
    Running,
    /// Done.
    Succeeded,
    /// Up to date: what it would make was there already.
    Cached,
    /// Failed for good.
    Failed,
    /// Will not run.
    Skipped,
}

impl Phase {
    /// Whether nothing more will happen to the task.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Cached | Self::Failed | Self::Skipped)
    }

    /// Whether what the task makes is there.
    #[must_use]
    pub const fn is_done(self) -> bool {
        matches!(self, Self::Succeeded | Self::Cached)
    }

    /// Returns the stable word of JSON and tables.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Waiting | Self::Delayed(_) => "waiting",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Cached => "cached",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// A task and its attempts, the first one first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskState {
    /// Where it is in its life.
    pub phase: Phase,
    /// Every try.
    pub attempts: Vec<Attempt>,
    /// What the next one asks for instead of what the stage says.
    pub raise: Option<Raise>,
    /// How many of them, the first ones, no longer stand against another try: the run was resumed after they failed.
    pub forgiven: usize,
    /// When what it makes was there, ms since the Unix epoch: it had succeeded, or was found to be up to date.
    pub done_at: Option<Millis>,
    /// What it printed when it ran in an earlier run, as a path in the state folder, if it is up to date.
    pub cached_log: Option<String>,
    /// The failed task for which it was skipped, if it was for one.
    pub skipped_for: Option<TaskId>,
    /// What every place lacks for it, in words, if it failed because none could ever hold it.
    pub lacks: Option<Box<str>>,
}

impl TaskState {
    /// Returns the attempts that may stand against another try: those that the task's fate depends on.
    #[must_use]
    pub fn counted(&self) -> Cow<'_, [Attempt]> {
        let counted = &self.attempts[self.forgiven..];
        if counted.iter().all(|attempt| attempt.place.role == Role::Main) {
            return Cow::Borrowed(counted);
        }
        counted.iter().filter(|attempt| attempt.place.role == Role::Main).cloned().collect()
    }

    /// Returns how many failures stand against another try. An interruption is none, nor is having had to leave a device.
    #[must_use]
    pub fn failures(&self) -> usize {
        let counted = self.counted();
        let ended = counted.iter().filter_map(|attempt| attempt.ended.as_ref());
        ended.filter(|ended| ended.outcome.is_failure()).count()
    }

    /// Returns how often the task had to leave a device.
    #[must_use]
    pub fn displacements(&self) -> usize {
        let counted = self.counted();
        let ended = counted.iter().filter_map(|attempt| attempt.ended.as_ref());
        ended.filter(|ended| matches!(ended.outcome, Outcome::Displaced { .. })).count()
    }

    /// Returns how often the task was not let in by one of these devices.
    #[must_use]
    pub fn turned_away_by(&self, devices: &[&str]) -> usize {
        let counted = self.counted();
        let ended = counted.iter().filter_map(|attempt| attempt.ended.as_ref());
        ended.filter(|ended| ended.outcome.busy().any(|device| devices.contains(&device))).count()
    }

    /// Returns since when one attempt after the other was not let in by its devices, if the last one was not.
    #[must_use]
    pub fn turned_away_since(&self) -> Option<Millis> {
        let counted = self.counted();
        let ended = counted.iter().rev().map_while(|attempt| attempt.ended.as_ref());
        ended.take_while(|ended| ended.outcome.busy().next().is_some()).last().map(|ended| ended.at)
    }

    /// Whether the last attempt failed and that still stands: a retry follows, or the task fails.
    #[must_use]
    pub fn is_to_be_judged(&self) -> bool {
        let counts = self.attempts.len() > self.forgiven;
        let last = self.last_outcome().filter(|last| **last != Outcome::Interrupted);
        self.phase == Phase::Waiting && counts && last.is_some()
    }

    /// Returns how the last attempt ended that the task's fate depends on, if it had one and it ended. Who was interrupted
    /// beside one that had failed might have succeeded: that is no failure yet.
    #[must_use]
    pub fn last_outcome(&self) -> Option<&Outcome> {
        fn outcome(attempt: &Attempt) -> Option<&Outcome> {
            attempt.ended.as_ref().map(|ended| &ended.outcome)
        }
        let beside = self.attempts.last().and_then(outcome).filter(|last| **last == Outcome::Interrupted);
        beside.or_else(|| outcome(self.last_as(Role::Main)?.1))
    }

    /// Returns the attempts that have not ended, with their numbers: two at most, of different roles.
    pub fn open(&self) -> impl Iterator<Item = (u32, &Attempt)> {
        (1..).zip(&self.attempts).filter(|(_, attempt)| attempt.ended.is_none())
    }

    /// Returns the attempt of a role that has not ended.
    #[must_use]
    pub fn open_as(&self, role: Role) -> Option<&Attempt> {
        self.open().map(|(_, attempt)| attempt).find(|attempt| attempt.place.role == role)
    }

    /// Returns the attempt that tells how the task stands, and its number: the one that succeeded, else the last one that
    /// its fate depends on.
    #[must_use]
    pub fn telling(&self) -> Option<(u32, &Attempt)> {
        let succeeded = |attempt: &Attempt| attempt.ended.as_ref().is_some_and(|ended| ended.outcome.is_success());
        let won = self.newest_first().find(|(_, attempt)| self.phase == Phase::Succeeded && succeeded(attempt));
        won.or_else(|| self.last_as(Role::Main))
    }

    /// Returns the last attempt of a role, and its number.
    #[must_use]
    pub fn last_as(&self, role: Role) -> Option<(u32, &Attempt)> {
        self.newest_first().find(|(_, attempt)| attempt.place.role == role)
    }

    fn newest_first(&self) -> impl Iterator<Item = (u32, &Attempt)> {
        self.attempts.iter().enumerate().rev().map(|(i, attempt)| (to_number(i), attempt))
    }
}

/// A run, as its events tell it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunState {
    /// `[n_tasks]`, by TaskId.
    pub tasks: Vec<TaskState>,
    /// How many tasks are in a final phase.
    pub settled: usize,
    /// How many of them failed.
    pub failed: usize,
    /// How many tasks run.
    pub running: usize,
    /// In which order what waits is started, if not as planned.
    pub revised: Option<Box<Revised>>,
    /// Set once nothing new is started.
    pub stopping: Option<StopReason>,
    /// How and when it ended (ms since the Unix epoch).
    pub end: Option<(Millis, RunEnd)>,
    /// The place of the attempt that started last: the next one is mostly alike.
    newest: Arc<Place>,
    /// Whether those who are to be told of that end were, or could not be.
    pub finish_told: bool,
    /// When nothing of it ran and nobody carried it out, until it was resumed: from and to, ms since the Unix epoch.
    pub away: Vec<(Millis, Millis)>,
    /// When its newest event was recorded.
    latest: Millis,
}

/// A new order of what waits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revised {
    /// These go first, the first one first.
    pub order: Vec<TaskId>,
    /// Where tasks should go that were intended for elsewhere.
    pub moved: BTreeMap<TaskId, Intent>,
}

/// An event that cannot follow on the state: the record is damaged, or there is a bug.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{event:?} cannot follow: {why}")]
pub struct Illegal {
    /// The event.
    pub event: Box<Event>,
    /// What stands against it.
    pub why: &'static str,
}

impl RunState {
    /// Makes the state before the first event.
    #[must_use]
    pub fn new(tasks: usize) -> Self {
        Self { tasks: vec![TaskState::default(); tasks], ..Self::default() }
    }

    /// Returns a task.
    #[must_use]
    pub fn task(&self, task: TaskId) -> &TaskState {
        &self.tasks[task.index()]
    }

    /// Returns when its newest event was recorded, ms since the Unix epoch.
    #[must_use]
    pub const fn latest(&self) -> Millis {
        self.latest
    }

    /// Returns for how long the run went on between two times, ms since the Unix epoch: that nobody carried it out for a
    /// while does not count.
    #[must_use]
    pub fn went_on(&self, from: Millis, to: Millis) -> Millis {
        self.away.iter().fold(to - from, |time, (left, back)| time - (*back - *left))
    }

    /// Returns how long the run took that started then; `None` while it has not ended.
    #[must_use]
    pub fn took(&self, started: Millis) -> Option<Millis> {
        self.end.map(|(at, _)| self.went_on(started, at))
    }

    /// Takes one event in. The only place where the state changes.
    ///
    /// # Errors
    /// An event that cannot follow on this state changes nothing.
    pub fn apply(&mut self, recorded: &Recorded) -> Result<(), Illegal> {
        let Recorded { at, event } = recorded;
        let illegal = |why| Err(Illegal { event: Box::new(event.clone()), why });
        if self.end.is_some() && !matches!(event, Event::RunResumed { .. } | Event::FinishTold { .. }) {
            return illegal("the run is over");
        }
        if let Some(task) = event.task()
            && task.index() >= self.tasks.len()
        {
            return illegal("there is no such task");
        }
        match event {
            Event::AttemptStarted { task, number, place } => {
                let state = &mut self.tasks[task.index()];
                match place.role {
                    Role::Main if !matches!(state.phase, Phase::Waiting | Phase::Delayed(_)) => {
                        return illegal("the task does not wait");
                    }
                    Role::Backup if state.phase != Phase::Running || state.open_as(Role::Main).is_none() => {
                        return illegal("there is no attempt to run beside");
                    }
                    Role::Backup if state.open_as(Role::Backup).is_some() => {
                        return illegal("another one runs beside it already");
                    }
                    Role::Main | Role::Backup => {}
                }
                if *number as usize != state.attempts.len() + 1 {
                    return illegal("attempts are counted without a gap");
                }
                state.phase = Phase::Running;
                if *self.newest != *place {
                    self.newest = Arc::new(place.clone());
                }
                let (place, raise) = (Arc::clone(&self.newest), state.raise);
                // Most tasks have one attempt; a vector would begin with room for four.
                state.attempts.reserve_exact(1);
                state.attempts.push(Attempt {
                    place,
                    raise,
                    started: *at,
                    process: None,
                    ended: None,
                    pauses: Vec::new(),
                });
                self.running += 1;
            }
            Event::AttemptSpawned { task, role, process } => match self.open_attempt(*task, *role) {
                Some(attempt) if attempt.process.is_none() => attempt.process = Some(*process),
                _ => return illegal("no attempt waits for its process"),
            },
            Event::AttemptFinished { task, role, outcome, usage, logged } => {
                let is_won = self.task(*task).phase == Phase::Succeeded;
                if is_won && outcome.is_success() {
                    return illegal("another attempt has succeeded");
                }
                if !is_won && *outcome == Outcome::Outrun {
                    return illegal("no other attempt has succeeded");
                }
                let Some(attempt) = self.open_attempt(*task, *role) else { return illegal("no attempt runs") };
                // Its sentinel may have noted it before anybody could record it.
                let at = usage.ended.map_or(*at, |ended| ended.min(*at).max(attempt.since()));
                if let Some((_, until @ None)) = attempt.pauses.last_mut() {
                    *until = Some(at);
                }
                attempt.ended = Some(Ended { at, outcome: outcome.clone(), usage: *usage, logged: *logged });
                self.running -= 1;
                if outcome.is_success() {
                    self.tasks[task.index()].done_at = Some(recorded.at);
                    self.settle(*task, Phase::Succeeded);
                } else if !is_won && self.task(*task).open().next().is_none() {
                    // What follows, a retry or the end, is an event of its own.
                    self.tasks[task.index()].phase = Phase::Waiting;
                }
            }
            Event::TaskSuspended { task } => match self.open_attempt(*task, Role::Main) {
                Some(attempt) if !attempt.is_suspended() => attempt.pauses.push((*at, None)),
                _ => return illegal("no attempt runs"),
            },
            Event::TaskContinued { task } => {
                let pause = self.open_attempt(*task, Role::Main).and_then(|attempt| attempt.pauses.last_mut());
                match pause {
                    Some((_, until @ None)) => *until = Some(*at),
                    Some(_) | None => return illegal("no attempt is suspended"),
                }
            }
            Event::RetryPlanned { task, not_before, raise } => {
                if !matches!(self.task(*task).phase, Phase::Waiting | Phase::Delayed(_)) {
                    return illegal("the task does not wait");
                }
                let state = &mut self.tasks[task.index()];
                state.phase = Phase::Delayed(*not_before);
                // Another failure in between takes nothing back.
                state.raise = raise.or(state.raise);
            }
            Event::TaskFailed { task, lacks } => {
                if !matches!(self.task(*task).phase, Phase::Waiting | Phase::Delayed(_)) {
                    return illegal("the task does not wait");
                }
                self.tasks[task.index()].lacks = lacks.as_deref().map(Box::from);
                self.settle(*task, Phase::Failed);
                self.failed += 1;
            }
            Event::TaskSkipped { task, because } => {
                if !matches!(self.task(*task).phase, Phase::Waiting | Phase::Delayed(_)) {
                    return illegal("the task does not wait");
                }
                self.tasks[task.index()].skipped_for = *because;
                self.settle(*task, Phase::Skipped);
            }
            Event::TaskCached { task, log } => {
                if !matches!(self.task(*task).phase, Phase::Waiting | Phase::Delayed(_)) {
                    return illegal("the task does not wait");
                }
                self.tasks[task.index()].cached_log.clone_from(log);
                self.tasks[task.index()].done_at = Some(recorded.at);
                self.settle(*task, Phase::Cached);
            }
            Event::Replanned { order, moved, .. } => {
                let all = order.iter().chain(moved.iter().map(|intent| &intent.task));
                if all.into_iter().any(|task| task.index() >= self.tasks.len()) {
                    return illegal("there is no such task");
                }
                let revised = self.revised.get_or_insert_default();
                revised.order.clone_from(order);
                revised.moved.extend(moved.iter().map(|intent| (intent.task, intent.clone())));
            }
            Event::TaskReopened { task } => {
                if !self.task(*task).phase.is_done() || self.task(*task).open().next().is_some() {
                    return illegal("the task is not done, or still runs");
                }
                let state = &mut self.tasks[task.index()];
                (state.phase, state.cached_log, state.done_at) = (Phase::Waiting, None, None);
                // What was done before does not stand against it.
                state.forgiven = state.attempts.len();
                self.settled -= 1;
            }
            Event::StopRequested { reason } => {
                if self.stopping == Some(StopReason::Signal) {
                    return illegal("the run stops already");
                }
                self.stopping = Some(*reason);
            }
            Event::RunFinished { end } => {
                if self.running > 0 {
                    return illegal("a task still runs");
                }
                self.end = Some((*at, *end));
            }
            Event::FinishTold { .. } => {
                if self.end.is_none() || self.finish_told {
                    return illegal("there is no end to tell of");
                }
                self.finish_told = true;
            }
            Event::RunResumed { adopted } => {
                let open = |task: &TaskId| self.tasks.get(task.index()).map_or(0, |of| of.open().count());
                let runs = |task: &TaskId| self.tasks.get(task.index()).is_some_and(|of| of.phase == Phase::Running);
                let different: std::collections::BTreeSet<_> = adopted.iter().copied().collect();
                if different.iter().map(open).sum::<usize>() != self.running || !adopted.iter().all(runs) {
                    return illegal("a task still runs that was not adopted, or does not run and was");
                }
                if matches!(self.end, Some((_, RunEnd::Succeeded))) {
                    return illegal("there is nothing left to do");
                }
                if adopted.is_empty() {
                    self.away.push((self.latest, *at));
                }
                self.reopen();
            }
        }
        self.latest = *at;
        Ok(())
    }

    /// Takes back the end, and what failed or was skipped.
    fn reopen(&mut self) {
        (self.end, self.finish_told, self.stopping, self.failed) = (None, false, None, 0);
        for task in &mut self.tasks {
            if task.phase == Phase::Failed {
                task.forgiven = task.attempts.len();
            }
            if matches!(task.phase, Phase::Failed | Phase::Skipped) {
                (task.phase, task.skipped_for, task.lacks) = (Phase::Waiting, None, None);
                self.settled -= 1;
            }
        }
    }

    fn settle(&mut self, task: TaskId, phase: Phase) {
        self.tasks[task.index()].phase = phase;
        self.settled += 1;
    }

    /// Returns the task's attempt of a role that has not ended.
    fn open_attempt(&mut self, task: TaskId, role: Role) -> Option<&mut Attempt> {
        let mut attempts = self.tasks[task.index()].attempts.iter_mut().rev();
        attempts.find(|attempt| attempt.ended.is_none() && attempt.place.role == role)
    }
}

/// Returns the number of the attempt at this index.
fn to_number(index: usize) -> u32 {
    u32::try_from(index + 1).unwrap_or(u32::MAX)
}

impl Event {
    /// Returns the task that the event is about, if it is about one.
    #[must_use]
    pub const fn task(&self) -> Option<TaskId> {
        match self {
            Self::AttemptStarted { task, .. }
            | Self::AttemptSpawned { task, .. }
            | Self::AttemptFinished { task, .. }
            | Self::TaskSuspended { task }
            | Self::TaskContinued { task }
            | Self::RetryPlanned { task, .. }
            | Self::TaskFailed { task, .. }
            | Self::TaskSkipped { task, .. }
            | Self::TaskCached { task, .. }
            | Self::TaskReopened { task } => Some(*task),
            Self::Replanned { .. }
            | Self::StopRequested { .. }
            | Self::RunFinished { .. }
            | Self::FinishTold { .. }
            | Self::RunResumed { .. } => None,
        }
    }
}
