//! What is recorded when a run goes on in another process, before anything is decided.
//!
//! Pure. Whoever calls this has made sure that nothing of the run lives any more.

use super::event::Event;
use super::outcome::{Outcome, Usage};
use super::state::{Phase, RunState};
use crate::graph::TaskId;

/// Returns what happened to a run whose process is gone: its open attempts were interrupted with it, and it goes on.
/// `logged` says whether the last attempt of a task has left a log.
#[must_use]
pub fn events(state: &RunState, logged: impl Fn(TaskId) -> bool) -> Vec<Event> {
    let mut events: Vec<Event> = (0..)
        .map(TaskId)
        .zip(&state.tasks)
        .filter(|(_, task)| task.phase == Phase::Running)
        .map(|(task, _)| {
            let (outcome, usage) = (Outcome::Interrupted, Usage::default());
            Event::AttemptFinished { task, outcome, usage, logged: logged(task) }
        })
        .collect();
    events.push(Event::RunResumed { adopted: Vec::new() });
    events
}
