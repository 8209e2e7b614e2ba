//! Has the rest of the run planned by somebody else while the loop goes on.

use tokio::sync::mpsc;

use super::{Record, RunError, Supervisor};
use crate::plan::rest::{Rest, Revision};
use crate::run::engine::Engine;

/// Who plans the rest of a run.
pub struct Replanner<'a> {
    ask: Box<dyn FnMut(Rest) + 'a>,
    answers: mpsc::UnboundedReceiver<Option<Revision>>,
}

impl<'a> Replanner<'a> {
    /// Makes one of something that takes a question and later sends an answer, one for each; `None` is no plan.
    pub fn new(ask: impl FnMut(Rest) + 'a, answers: mpsc::UnboundedReceiver<Option<Revision>>) -> Self {
        Self { ask: Box::new(ask), answers }
    }

    /// Returns the next answer; waits for ever where nothing was asked.
    pub(super) async fn answer(&mut self) -> Option<Revision> {
        match self.answers.recv().await {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }
}

impl<E: Engine, R: Record> Supervisor<'_, E, R> {
    /// Asks for a new order if the plan no longer holds.
    pub(super) fn replan_if_due(&mut self) {
        let now = self.clock.now();
        let parts = &mut self.parts;
        if let Some(rest) = parts.dispatcher.wants_replan(&self.state, &self.look.readings, now) {
            (parts.replanner.ask)(rest);
        }
    }

    pub(super) fn on_revision(&mut self, revision: Option<Revision>) -> Result<(), RunError> {
        let event = self.parts.dispatcher.replanned(&self.state, revision, self.clock.now());
        event.map_or(Ok(()), |event| self.note(&[event]))
    }
}
