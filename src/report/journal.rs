//! Recorded facts as `tracing` events, within spans for run, task and attempt: for `-v` and the run's own log file.

use std::collections::HashMap;

use tracing::field::display;
use tracing::{Level, Span, debug, enabled, info, info_span};

use crate::graph::TaskId;
use crate::run::event::{Event, Recorded, Role};
use crate::run::observer::{Observer, View};
use crate::run::state::Attempt;
use crate::units::{Bytes, Millis};

/// Traces a run.
#[derive(Default)]
pub struct Journal {
    run: Option<Span>,
    /// Spans of running attempts.
    attempts: HashMap<(TaskId, Role), Span>,
}

impl Observer for Journal {
    fn recorded(&mut self, view: View<'_>, recorded: &Recorded) {
        let Self { run, attempts } = self;
        let run = run.get_or_insert_with(|| {
            let run = info_span!(parent: None, "run", id = view.run);
            let (tasks, policy, planned) = (view.graph.len(), &view.plan.policy, view.plan.makespan);
            run.in_scope(|| info!(tasks, policy, %planned, "run started"));
            run
        });
        let name = |task: &TaskId| view.graph.tasks[task.index()].name.as_str();
        // Spans are entered, not named as parents: the JSON format lists entered ones only.
        match &recorded.event {
            Event::AttemptStarted { task, number, place } => {
                let span = info_span!(parent: &*run, "task", task = name(task));
                let node = (view.fleet.nodes.len() > 1).then_some(place.node.as_str());
                let devices = (!place.devices.is_empty()).then(|| place.devices.join(","));
                let span = info_span!(parent: &span, "attempt", number, node, devices);
                let gpu_memory = (place.gpu_memory > Bytes::ZERO).then(|| display(place.gpu_memory));
                let mode = (place.mode > 0).then_some(place.mode);
                span.in_scope(|| info!(gpu_memory, mode, "attempt started"));
                attempts.insert((*task, place.role), span);
            }
            Event::AttemptSpawned { task, role, process } => {
                attempts.get(&(*task, *role)).unwrap_or(run).in_scope(|| debug!(pid = process.pid, "attempt spawned"));
            }
            Event::AttemptFinished { task, role, outcome, usage, .. } => {
                let span = attempts.remove(&(*task, *role));
                let attempt = view.state.task(*task).last_as(*role);
                let ended = |attempt: &Attempt| attempt.ended.as_ref().map_or(recorded.at, |ended| ended.at);
                let took = attempt.map_or(Millis::ZERO, |(_, attempt)| attempt.ran(ended(attempt)));
                let peak_memory = usage.peak_memory.map(display);
                let peak_gpu_memory = usage.peak_gpu_memory.map(display);
                let survivors = (usage.survivors > 0).then_some(usage.survivors);
                let span = span.as_ref().unwrap_or(run);
                span.in_scope(|| info!(%outcome, %took, peak_memory, peak_gpu_memory, survivors, "attempt finished"));
            }
            Event::TaskSuspended { task } => run.in_scope(|| debug!(task = name(task), "task suspended")),
            Event::TaskContinued { task } => run.in_scope(|| debug!(task = name(task), "task continued")),
            Event::RetryPlanned { task, not_before, raise } => {
                let wait = *not_before - recorded.at;
                let raised = raise.as_ref().map(super::wording::raised);
                run.in_scope(|| info!(task = name(task), %wait, raised, "retry planned"));
            }
            Event::TaskFailed { task, .. } => run.in_scope(|| info!(task = name(task), "task failed")),
            Event::TaskSkipped { task, because } => {
                let because = because.as_ref().map(name);
                run.in_scope(|| debug!(task = name(task), because, "task skipped"));
            }
            // Asked first: there may be ten thousand of them in a run that does nothing else.
            Event::TaskCached { task, .. } if enabled!(Level::DEBUG) => {
                run.in_scope(|| debug!(task = name(task), "task is up to date"));
            }
            Event::TaskCached { .. } => {}
            Event::Replanned { because, before, after, order, moved } => {
                let why = super::wording::because(because, name);
                run.in_scope(|| info!(why, %before, %after, tasks = order.len(), moved = moved.len(), "replanned"));
            }
            Event::TaskReopened { task } => run.in_scope(|| info!(task = name(task), "task reopened")),
            Event::StopRequested { reason } => run.in_scope(|| info!(?reason, "stop requested")),
            Event::RunFinished { end } => run.in_scope(|| info!(?end, "run finished")),
            Event::FinishTold { failed } => run.in_scope(|| info!(failed, "end of the run told")),
            Event::RunResumed { adopted } => run.in_scope(|| info!(adopted = adopted.len(), "run resumed")),
        }
    }
}
