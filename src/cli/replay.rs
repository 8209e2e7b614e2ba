//! A pipeline with the durations that a recorded run of it took, task by task.

use std::collections::HashMap;

use super::state::{self, StateArgs};
use super::{Exit, Failure, output};
use crate::fleet::Fleet;
use crate::graph::{Task, TaskGraph};
use crate::report::text;
use crate::run::learn;
use crate::run::outcome::Outcome;
use crate::run::state::{Attempt, TaskState};
use crate::run::store::RunRow;
use crate::spec::Pipeline;
use crate::units::Millis;

/// So many tasks are named at most.
const MOST_NAMED: usize = 5;

/// How long the tasks of a recorded run took.
pub(super) struct Recorded {
    run: String,
    /// By name, of those that ran and succeeded.
    took: HashMap<String, Took>,
}

/// How long a task took, and where.
struct Took {
    mode: usize,
    model: Option<String>,
    time: Millis,
}

impl Recorded {
    /// Returns the newest recorded run of a pipeline of this name in which a task succeeded.
    pub(super) fn newest(state: &StateArgs, pipeline: &Pipeline) -> Result<Self, Failure> {
        let Some(store) = state.open()? else { return Err(nothing(pipeline)) };
        let rows = store.runs().map_err(state::broken)?;
        for row in rows.iter().filter(|row| row.header.pipeline == pipeline.name) {
            let took = took(row, &state::replay(&store, row)?.tasks);
            if !took.is_empty() {
                return Ok(Self { run: row.header.id.clone(), took });
            }
        }
        Err(nothing(pipeline))
    }

    /// Whether a task ran and succeeded.
    pub(super) fn has(&self, task: &Task) -> bool {
        self.took.contains_key(&task.name)
    }

    /// Makes every task a stage of its own that takes as long as it took, on the model where it ran; on others by their
    /// speed. Tasks that did not run keep what their stage takes.
    pub(super) fn write_into(&self, pipeline: &mut Pipeline, graph: &mut TaskGraph, fleet: &Fleet) {
        let mut stages = Vec::with_capacity(graph.len());
        for (index, task) in graph.tasks.iter_mut().enumerate() {
            let mut stage = pipeline.stages[task.stage].clone();
            if let Some(Took { mode, model, time }) = self.took.get(&task.name)
                && let Some(mode) = stage.modes.get_mut(*mode)
            {
                mode.duration = learn::as_it_took(fleet, [(model.as_deref(), *time)]);
            }
            stage.name.clone_from(&task.name);
            stages.push(stage);
            task.stage = index;
        }
        pipeline.stages = stages;
    }

    /// Says of which tasks it has no time.
    pub(super) fn say_what_is_untold(&self, graph: &TaskGraph) {
        let names = graph.tasks.iter().filter(|task| !self.has(task)).map(|task| text::visible(&task.name));
        let names: Vec<_> = names.collect();
        if names.is_empty() {
            return;
        }
        let rest = names.len().saturating_sub(MOST_NAMED);
        let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
        let (count, all, run) = (names.len(), graph.len(), &self.run);
        output::note(&format!(
            "{count} of {all} tasks did not run to a good end in {run}, and are taken to need what they declare or what other runs took: {}{more}",
            names.iter().take(MOST_NAMED).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        ));
    }
}

/// How long every task took that succeeded, by name.
fn took(row: &RunRow, tasks: &[TaskState]) -> HashMap<String, Took> {
    let of = |attempt: &Attempt| {
        let ended = attempt.ended.as_ref().filter(|ended| ended.outcome == Outcome::Succeeded)?;
        let (mode, model) = (attempt.place.mode, attempt.place.model.clone());
        Some(Took { mode, model, time: attempt.ran(ended.at) })
    };
    let last = |task: &TaskState| task.telling().and_then(|(_, attempt)| of(attempt));
    let named = row.header.tasks.iter().map(|task| task.name.clone());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Device;
    use crate::graph;
    use crate::spec::Source;
    use crate::timing::Load;
    use crate::units::Speed;

    #[test]
    fn what_was_recorded_on_a_model_is_not_divided_by_its_speed() {
        let text =
            "[stage.a]\nrun = 'x'\nresources = { gpus = 1 }\nmatrix = { n = [1, 2] }\nduration = '1h'\n".to_owned();
        let source = Source { name: "p.toml".to_owned(), text };
        let (mut pipeline, mut graph) = graph::load(&source, &[], &[], graph::Limits::default()).expect("a good file");
        let device = |model: &str, speed| Device { model: model.to_owned(), speed: Speed(speed), ..Device::default() };
        let devices = vec![device("H100", 2_000_000), device("L4", 500_000)];
        let fleet = Fleet { devices, ..Fleet::default() };
        let took = Took { mode: 0, model: Some("H100".to_owned()), time: Millis(3_000) };
        let recorded = Recorded { run: "r".to_owned(), took: [("a[n=2]".to_owned(), took)].into() };
        recorded.write_into(&mut pipeline, &mut graph, &fleet);
        let on = |task: usize, device: usize| {
            let mode = &pipeline.stages[graph.tasks[task].stage].modes[0];
            Load::on_device(&mode.duration, &fleet.devices[device]).time
        };
        assert_eq!((on(1, 0), on(1, 1)), (Millis(3_000), Millis(12_000)));
        assert_eq!(on(0, 0), Millis(1_800_000), "it did not run: what it declares stands");
    }
}
