//! Whose turn it is at the devices that tasks share which may be suspended: the same rule as in plans.
//!
//! Whoever is started holds its place and stands still until its turn comes, like one whose turn is over. Nobody's turn ends
//! by a run that stops: what runs may end, and what is to be ended is continued by whoever ends it.

use std::collections::BTreeSet;

use super::Dispatcher;
use crate::fleet::DeviceId;
use crate::graph::TaskId;
use crate::plan::turns::{Sharer, next, turns};
use crate::run::event::{Event, Role, StopReason};
use crate::run::state::RunState;
use crate::spec::Resources;
use crate::units::Millis;

/// Who is suspended, and when that may change.
#[derive(Debug, Default)]
pub(super) struct Turns {
    suspended: BTreeSet<TaskId>,
    /// When a turn ends for which somebody waits.
    due: Option<Millis>,
}

impl Turns {
    /// Returns when it is to be decided whose turn it is although nothing has happened.
    pub(super) const fn next_due(&self) -> Option<Millis> {
        self.due
    }

    /// Forgets a task that has ended.
    pub(super) fn forget(&mut self, task: TaskId) {
        self.suspended.remove(&task);
    }
}

impl Dispatcher<'_> {
    /// Returns a request as it is entered into the ledger: where nobody takes turns, who may be suspended is like others.
    pub(super) fn as_held(&self, request: Resources) -> Resources {
        Resources { suspend: request.suspend && self.options.quantum.is_some(), ..request }
    }

    /// Takes in that a task is suspended.
    pub(super) fn note_suspended(&mut self, task: TaskId, at: Millis) {
        self.turns.suspended.insert(task);
        self.expect.suspended(task, at);
    }

    /// Takes in that a task goes on.
    pub(super) fn note_continued(&mut self, task: TaskId, at: Millis) {
        self.turns.suspended.remove(&task);
        self.expect.continued(task, at);
    }

    /// Suspends those whose turn is over, and continues those whose turn it is.
    pub(super) fn take_turns(&mut self, state: &RunState, now: Millis, events: &mut Vec<Event>) {
        self.turns.due = None;
        if state.stopping == Some(StopReason::Signal) {
            return;
        }
        let Some(quantum) = self.options.quantum else {
            events.extend(self.turns.suspended.iter().map(|task| Event::TaskContinued { task: *task }));
            return;
        };
        let (mut stop, mut go_on, mut due) = (Vec::new(), Vec::new(), None);
        for device in (0..).map(DeviceId).take(self.fleet.devices.len()) {
            let (room, tasks) = self.ledger.turns(device);
            if tasks.is_empty() {
                continue;
            }
            // One that was decided on just now has not begun.
            let sharer = |(task, share)| {
                let attempt = state.task(task).open_as(Role::Main);
                let (runs, since) = attempt.map_or((false, now), |of| (!of.is_suspended(), of.since()));
                Sharer { share, runs, since }
            };
            let mut sharers: Vec<Sharer> = tasks.iter().copied().map(sharer).collect();
            let runs = turns(&sharers, room, quantum, now);
            for (((task, _), sharer), runs) in tasks.into_iter().zip(&mut sharers).zip(runs) {
                let is_new = state.task(task).open_as(Role::Main).is_none();
                match (sharer.runs || is_new, runs) {
                    (true, false) => stop.push(Event::TaskSuspended { task }),
                    (false, true) => go_on.push(Event::TaskContinued { task }),
                    (true, true) | (false, false) => {}
                }
                if sharer.runs != runs {
                    (sharer.runs, sharer.since) = (runs, now);
                }
            }
            due = next(&sharers, quantum, now).into_iter().chain(due).min();
        }
        events.extend(stop.into_iter().chain(go_on));
        self.turns.due = due;
    }
}
