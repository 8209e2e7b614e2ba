//! What is recorded when a run goes on in another process, before anything is decided.
//!
//! Pure. Whoever calls this has made sure that nothing of the run lives any more.

use super::event::Event;
use super::outcome::{Outcome, Usage};
use super::state::{Phase, RunState};
use crate::graph::TaskId;

/// Returns what happened to a run whose process is gone: its open attempts were interrupted with it, and it goes on.
#[must_use]
pub fn events(state: &RunState) -> Vec<Event> {
    let mut events: Vec<Event> = (0..)
        .map(TaskId)
        .zip(&state.tasks)
        .filter(|(_, task)| task.phase == Phase::Running)
        .map(|(task, _)| {
            // Whether it printed is not known: a log that is there is shown.
            Event::AttemptFinished { task, outcome: Outcome::Interrupted, usage: Usage::default(), logged: true }
        })
        .collect();
    events.push(Event::RunResumed);
    events
}
