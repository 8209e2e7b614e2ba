//! Recorded facts as `tracing` events, within spans for run, task and attempt: for `-v` and the run's own log file.

use std::collections::HashMap;

use tracing::field::display;
use tracing::{Span, debug, info, info_span};

use crate::graph::TaskId;
use crate::run::event::{Event, Recorded};
use crate::run::observer::{Observer, View};
use crate::units::{Bytes, Millis};

/// Traces a run.
#[derive(Default)]
pub struct Journal {
    run: Option<Span>,
    /// Spans of running attempts.
    attempts: HashMap<TaskId, Span>,
}

impl Observer for Journal {
    fn recorded(&mut self, view: View<'_>, recorded: &Recorded) {
        let Self { run, attempts } = self;
        let run = run.get_or_insert_with(|| {
            let run = info_span!(parent: None, "run", id = view.run);
            info!(parent: &run, tasks = view.graph.len(), policy = view.plan.policy, planned = %view.plan.makespan,
                "run started");
            run
        });
        let name = |task: &TaskId| view.graph.tasks[task.index()].name.as_str();
        match &recorded.event {
            Event::AttemptStarted { task, number, place } => {
                let span = info_span!(parent: &*run, "task", name = name(task));
                let node = (view.fleet.nodes.len() > 1).then_some(place.node.as_str());
                let devices = (!place.devices.is_empty()).then(|| place.devices.join(","));
                let span = info_span!(parent: &span, "attempt", number, node, devices);
                let memory = (place.gpu_memory > Bytes::ZERO).then(|| display(place.gpu_memory));
                let mode = (place.mode > 0).then_some(place.mode);
                info!(parent: &span, gpu_memory = memory, mode, "attempt started");
                attempts.insert(*task, span);
            }
            Event::AttemptSpawned { task, process } => {
                debug!(parent: attempts.get(task).unwrap_or(run), pid = process.pid, "attempt spawned");
            }
            Event::AttemptFinished { task, outcome, usage, .. } => {
                let span = attempts.remove(task);
                let attempt = view.state.task(*task).attempts.last();
                let took = attempt.map_or(Millis::ZERO, |attempt| recorded.at - attempt.started);
                let peak = usage.peak_memory.map(display);
                let survivors = (usage.survivors > 0).then_some(usage.survivors);
                info!(parent: span.as_ref().unwrap_or(run), %outcome, %took, peak_memory = peak,
                    survivors, "attempt finished");
            }
            Event::RetryPlanned { task, not_before } => {
                let wait = *not_before - recorded.at;
                info!(parent: &*run, task = name(task), %wait, "retry planned");
            }
            Event::TaskFailed { task } => info!(parent: &*run, task = name(task), "task failed"),
            Event::TaskSkipped { task, because } => {
                debug!(parent: &*run, task = name(task), because = because.as_ref().map(name), "task skipped");
            }
            Event::StopRequested { reason } => info!(parent: &*run, ?reason, "stop requested"),
            Event::RunFinished { end } => info!(parent: &*run, ?end, "run finished"),
        }
    }
}
