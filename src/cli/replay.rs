//! A pipeline with the durations that a recorded run of it took, task by task.

use std::collections::HashMap;

use super::state::{self, StateArgs};
use super::{Exit, Failure};
use crate::graph::TaskGraph;
use crate::report::text;
use crate::run::outcome::Outcome;
use crate::run::state::Attempt;
use crate::run::store::RunRow;
use crate::spec::{Duration, Pipeline};
use crate::units::Millis;

/// Returns the pipeline with every task as a stage of its own that takes as long as it took in the newest recorded run of
/// a pipeline of this name in which one succeeded; tasks that did not succeed keep what they declare.
pub(super) fn measured(
    state: &StateArgs,
    mut pipeline: Pipeline,
    mut graph: TaskGraph,
) -> Result<(Pipeline, TaskGraph), Failure> {
    let Some(store) = state.open()? else { return Err(nothing(&pipeline)) };
    let rows = store.runs().map_err(state::broken)?;
    let mut times = HashMap::new();
    for row in rows.iter().filter(|row| row.header.pipeline == pipeline.name) {
        times = took(row, &state::replay(&store, row)?.tasks);
        if !times.is_empty() {
            break;
        }
    }
    if times.is_empty() {
        return Err(nothing(&pipeline));
    }
    let mut stages = Vec::with_capacity(graph.len());
    for (index, task) in graph.tasks.iter_mut().enumerate() {
        let mut stage = pipeline.stages[task.stage].clone();
        if let Some((mode, time)) = times.get(task.name.as_str())
            && let Some(mode) = stage.modes.get_mut(*mode)
        {
            mode.duration = Duration { base: Some(*time), ..Duration::default() };
        }
        stage.name.clone_from(&task.name);
        stages.push(stage);
        task.stage = index;
    }
    pipeline.stages = stages;
    Ok((pipeline, graph))
}

/// The mode and the time of every task that succeeded, by name.
fn took<'r>(row: &'r RunRow, tasks: &[crate::run::state::TaskState]) -> HashMap<&'r str, (usize, Millis)> {
    let time = |attempt: &Attempt| {
        let ended = attempt.ended.as_ref().filter(|ended| ended.outcome == Outcome::Succeeded)?;
        Some((attempt.place.mode, attempt.ran(ended.at)))
    };
    let last = |task: &crate::run::state::TaskState| task.telling().and_then(|(_, attempt)| time(attempt));
    let named = row.header.tasks.iter().map(|task| task.name.as_str());
    named.zip(tasks).filter_map(|(name, task)| Some((name, last(task)?))).collect()
}

fn nothing(pipeline: &Pipeline) -> Failure {
    let name = text::visible(&pipeline.name).into_owned();
    let words = miette::miette!(
        help = "run it once, or name the state folder with --state DIR",
        "no recorded run of `{name}` has a task that succeeded: there is nothing to replay"
    );
    Failure { exit: Exit::Usage, report: words }
}
