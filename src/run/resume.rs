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

/// Returns what happened to a run whose process is gone, and that it goes on. `fate` says what became of an attempt that
/// had not ended, by its number. One whose task had succeeded by another is ended: nothing is adopted of it.
#[must_use]
pub fn events(state: &RunState, fate: impl Fn(TaskId, u32) -> Fate) -> Vec<Event> {
    let mut events = Vec::new();
    let mut adopted = Vec::new();
    for (task, of) in (0..).map(TaskId).zip(&state.tasks) {
        let is_won = of.phase == Phase::Succeeded;
        for (number, attempt) in of.open() {
            let role = attempt.place.role;
            match fate(task, number) {
                Fate::Kept(process) if !is_won => {
                    // The orchestrator may have died between starting it and recording that.
                    if attempt.process.is_none() {
                        events.push(Event::AttemptSpawned { task, role, process });
                    }
                    if adopted.last() != Some(&task) {
                        adopted.push(task);
                    }
                }
                kept_or_lost @ (Fate::Kept(_) | Fate::Lost { .. }) => {
                    let logged = matches!(kept_or_lost, Fate::Lost { logged: true });
                    let outcome = if is_won { Outcome::Outrun } else { Outcome::Interrupted };
                    events.push(Event::AttemptFinished { task, role, outcome, usage: Usage::default(), logged });
                }
            }
        }
    }
    events.push(Event::RunResumed { adopted });
    events
}
