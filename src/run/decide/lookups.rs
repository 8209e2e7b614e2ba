//! Tasks that may be up to date: they are looked up once all before them are done, and start only if they are not.

use super::Dispatcher;
use crate::graph::TaskId;
use crate::units::Millis;

impl Dispatcher<'_> {
    /// Takes a task out of wherever it waits.
    pub(super) fn forget(&mut self, task: TaskId) {
        let turn = self.turn(task);
        self.failed.retain(|failed| *failed != task);
        self.delayed.retain(|(_, delayed)| *delayed != task);
        self.forget_wait(task);
        self.queues.remove(turn);
    }

    /// Returns tasks of which it is to be looked whether they are up to date, each once. They start after
    /// [`Dispatcher::runs`] at the earliest.
    pub fn take_lookups(&mut self) -> Vec<TaskId> {
        std::mem::take(&mut self.lookups)
    }

    /// Takes in that another run writes what a task may have made: it is looked up again once that has ended.
    pub fn is_being_written(&mut self, task: TaskId, now: Millis) {
        if !self.waits_for_other_run(task, now) {
            self.lookups.push(task);
        }
    }

    /// Takes in that a task is not up to date.
    pub fn runs(&mut self, task: TaskId) {
        self.queue_if_unblocked(task);
    }
}
