//! When a run is over, and how.

use std::collections::BTreeSet;

use super::Dispatcher;
use crate::graph::TaskId;
use crate::run::event::{Event, RunEnd, StopReason};
use crate::run::state::RunState;

impl Dispatcher<'_> {
    /// Ends the run once nothing runs and nothing can be started any more.
    pub(super) fn finish(&mut self, state: &RunState, events: &mut Vec<Event>) {
        let mut settled = state.settled;
        let mut stopping = state.stopping;
        let mut failed = state.failed > 0;
        for event in events.iter() {
            match event {
                Event::AttemptStarted { .. } | Event::RetryPlanned { .. } if stopping.is_none() => return,
                Event::TaskFailed { .. } => (settled, failed) = (settled + 1, true),
                Event::TaskSkipped { .. } => settled += 1,
                Event::StopRequested { reason } => stopping = Some(*reason),
                Event::AttemptStarted { .. }
                | Event::RetryPlanned { .. }
                | Event::AttemptSpawned { .. }
                | Event::AttemptFinished { .. }
                | Event::TaskSuspended { .. }
                | Event::TaskContinued { .. }
                | Event::TaskCached { .. }
                | Event::TaskReopened { .. }
                | Event::Replanned { .. }
                | Event::RunFinished { .. }
                | Event::FinishTold { .. }
                | Event::RunResumed { .. } => {}
            }
        }
        if state.running > 0 || state.end.is_some() {
            return;
        }
        let end = match stopping {
            Some(StopReason::Signal) => RunEnd::Interrupted,
            Some(StopReason::TaskFailed) => {
                self.skip_the_rest(state, events);
                RunEnd::Failed
            }
            None if settled < state.tasks.len() => return,
            None if failed => RunEnd::Failed,
            None => RunEnd::Succeeded,
        };
        events.push(Event::RunFinished { end });
    }

    fn skip_the_rest(&self, state: &RunState, events: &mut Vec<Event>) {
        let decided: BTreeSet<TaskId> = events
            .iter()
            .filter(|event| matches!(event, Event::TaskFailed { .. } | Event::TaskSkipped { .. }))
            .filter_map(Event::task)
            .collect();
        let rest = self.graph.ids().filter(|task| !state.task(*task).phase.is_final() && !decided.contains(task));
        events.extend(rest.map(|task| Event::TaskSkipped { task, because: None }));
    }
}
