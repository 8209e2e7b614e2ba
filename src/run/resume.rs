//! What is recorded when a run goes on in another process, before anything is decided.
//!
//! Pure. Whoever calls this has made sure that nothing of the run lives any more but the attempts that it adopts.

use super::event::{Event, Process};
use super::outcome::{Outcome, Usage};
use super::state::{Phase, RunState};
use crate::graph::TaskId;

/// What became of an attempt while nobody carried the run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its sentinel lives or has recorded its end: it is adopted.
    Kept(Process),
    /// It was interrupted. `logged`: whether it has left a log.
    Lost {
        /// Whether it has left a log.
        logged: bool,
    },
}

/// Returns what happened to a run whose process is gone, and that it goes on. `fate` says what became of the last attempt
/// of a task that was running.
#[must_use]
pub fn events(state: &RunState, fate: impl Fn(TaskId) -> Fate) -> Vec<Event> {
    let mut events = Vec::new();
    let mut adopted = Vec::new();
    let tasks = (0..).map(TaskId).zip(&state.tasks);
    for (task, of) in tasks.filter(|(_, task)| task.phase == Phase::Running) {
        match fate(task) {
            Fate::Kept(process) => {
                // The orchestrator may have died between starting it and recording that.
                if of.attempts.last().is_some_and(|attempt| attempt.process.is_none()) {
                    events.push(Event::AttemptSpawned { task, process });
                }
                adopted.push(task);
            }
            Fate::Lost { logged } => {
                let (outcome, usage) = (Outcome::Interrupted, Usage::default());
                events.push(Event::AttemptFinished { task, outcome, usage, logged });
            }
        }
    }
    events.push(Event::RunResumed { adopted });
    events
}
