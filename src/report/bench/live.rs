//! How plans did when they were carried out: what a run's record says of it, and all runs of a policy in one row.
//!
//! Does not carry anything out.

use serde::Serialize;

use super::{Comparison, Entry, median, median_part, percent, spread};
use crate::fleet::{DeviceId, Fleet, NodeId};
use crate::graph::TaskGraph;
use crate::plan::usage::Usage;
use crate::plan::{Placed, Plan};
use crate::progress::series::Series;
use crate::report::held::Held;
use crate::report::paint::{Colour, Tone};
use crate::report::table::{Cell, Column, Table};
use crate::report::{text, wording};
use crate::run::outcome::Outcome;
use crate::run::state::{Attempt, Phase, RunState, TaskState};
use crate::run::store::TaskHeader;
use crate::spec::Pipeline;
use crate::units::Millis;

/// One plan, carried out.
#[derive(Clone, Debug, PartialEq)]
pub struct Live {
    /// The seed it was made with.
    pub seed: u64,
    /// When its last task was to end; `None` where the run did not come so far as to have a plan.
    pub planned: Option<Millis>,
    /// How it went, or why it failed.
    pub done: Result<Done, String>,
}

/// A run that succeeded.
#[derive(Clone, Debug, PartialEq)]
pub struct Done {
    /// From when its first attempt was started until its last one ended.
    pub makespan: Millis,
    /// What tasks asked for of the devices, for as long as they really took.
    pub usage: Usage,
    /// The part of the devices' memory that its tasks were seen to hold, in the mean over time and devices.
    pub held: Option<f64>,
    /// The part of the time in which devices were seen to compute.
    pub busy: Option<f64>,
}

impl Live {
    /// Reads how a run of `graph`, which was built from `pipeline`, went on `fleet`: `headers` and `state` are its record,
    /// `held` what devices held meanwhile.
    #[must_use]
    pub fn of(
        seed: u64,
        (pipeline, graph, fleet): (&Pipeline, &TaskGraph, &Fleet),
        (headers, state): (&[TaskHeader], &RunState),
        held: &Held,
    ) -> Self {
        let planned = headers.iter().map(|task| task.planned.1).max();
        let is_done = state.tasks.iter().all(|task| task.phase.is_done());
        let done = if is_done { Ok(done(pipeline, graph, fleet, state, held)) } else { Err(reason(headers, state)) };
        Self { seed, planned, done }
    }
}

/// Names the task that failed first, and how.
fn reason(headers: &[TaskHeader], state: &RunState) -> String {
    let failed = |(_, task): &(&TaskHeader, &TaskState)| task.phase == Phase::Failed;
    let ended =
        |task: &TaskState| task.telling().and_then(|(_, attempt)| Some((attempt.ended.as_ref()?.at, attempt.clone())));
    let failures = headers.iter().zip(&state.tasks).filter(failed);
    let first = failures.filter_map(|(header, task)| Some((header, ended(task)?))).min_by_key(|(_, (at, _))| *at);
    let Some((header, (_, attempt))) = first else { return "it was interrupted".to_owned() };
    let words = attempt.ended.as_ref().map_or_else(String::new, |ended| wording::ending_in_numbers(&attempt, ended));
    format!("`{}` failed: {words}", text::visible(&header.name))
}

fn done(pipeline: &Pipeline, graph: &TaskGraph, fleet: &Fleet, state: &RunState, held: &Held) -> Done {
    let attempts = || state.tasks.iter().flat_map(|task| &task.attempts);
    let start = attempts().map(|attempt| attempt.started).min().unwrap_or_default();
    let ends = attempts().filter_map(|attempt| attempt.ended.as_ref().map(|ended| ended.at));
    let end = ends.max().unwrap_or(start);
    let makespan = end - start;
    let nowhere = || Placed {
        mode: 0,
        node: NodeId(0),
        devices: Vec::new(),
        start: Millis::ZERO,
        finish: Millis::ZERO,
        segments: Vec::new(),
    };
    let placed = |task: &TaskState| {
        let telling = task.telling().map(|(_, attempt)| attempt);
        telling.and_then(|attempt| as_placed(fleet, attempt, start)).unwrap_or_else(nowhere)
    };
    let carried_out = Plan { placed: state.tasks.iter().map(placed).collect(), makespan, ..Plan::default() };
    let usage = Usage::of(pipeline, graph, fleet, &carried_out);
    let memory = |id: &str| fleet.devices.iter().find(|device| device.id == id).map(|device| device.memory.0);
    #[expect(clippy::cast_precision_loss, reason = "shown with a few digits")]
    let held_of = |series: &Series| Some(mean(series, start, end)? / memory(&series.name)?.max(1) as f64);
    let busy_of = |series: &Series| Some(mean(series, start, end)? / 100.0);
    let (held, busy) = (over(fleet, held.ours.iter().map(held_of)), over(fleet, held.busy.iter().map(busy_of)));
    Done { makespan, usage, held, busy }
}

/// Where and when an attempt ran, counted from the start of the run.
fn as_placed(fleet: &Fleet, attempt: &Attempt, start: Millis) -> Option<Placed> {
    let ended = attempt.ended.as_ref().filter(|ended| ended.outcome == Outcome::Succeeded)?;
    let place = &attempt.place;
    let device = |id: &String| (0..).map(DeviceId).zip(&fleet.devices).find(|(_, device)| device.id == *id);
    let devices = place.devices.iter().filter_map(|id| Some(device(id)?.0)).collect();
    Some(Placed {
        mode: place.mode,
        node: NodeId(0),
        devices,
        start: attempt.started - start,
        finish: ended.at - start,
        segments: attempt.pieces(ended.at).map(|(from, to)| (from - start, to - start)).collect(),
    })
}

/// Returns the mean over all devices; `None` where one of them was not seen.
#[expect(clippy::cast_precision_loss, reason = "shown with a few digits")]
fn over(fleet: &Fleet, parts: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let parts: Vec<f64> = parts.collect::<Option<_>>()?;
    let all = !parts.is_empty() && parts.len() == fleet.devices.len();
    all.then(|| parts.iter().sum::<f64>() / parts.len() as f64)
}

/// Returns the mean of a course over a time; each value holds until the next one, the first one also before it.
#[expect(clippy::cast_precision_loss, reason = "shown with a few digits")]
fn mean(series: &Series, start: Millis, end: Millis) -> Option<f64> {
    let (first, last) = (series.value.first()?, series.last()?);
    let within = series.ms.iter().zip(&series.value).filter(|(ms, _)| (start.0..end.0).contains(ms));
    let before = series.ms.partition_point(|ms| *ms < start.0);
    let mut value = before.checked_sub(1).map_or(*first, |at| series.value[at]);
    if end <= start {
        return Some(last);
    }
    let (mut since, mut sum) = (start.0, 0.0);
    for (ms, next) in within {
        sum += value * (ms - since) as f64;
        (since, value) = (*ms, *next);
    }
    sum += value * (end.0 - since) as f64;
    Some(sum / (end - start).0 as f64)
}

/// A policy's runs in one row: medians of those that succeeded.
#[derive(Clone, Debug, Serialize)]
pub(super) struct LiveRow<'a> {
    pub(super) runs: usize,
    pub(super) succeeded: usize,
    /// Why the first one that failed did.
    pub(super) error: Option<&'a str>,
    pub(super) planned_ms: Option<u64>,
    pub(super) measured_ms: Option<u64>,
    pub(super) measured_least_ms: Option<u64>,
    pub(super) measured_most_ms: Option<u64>,
    /// How much longer a run took than its plan, as a part of that; less than 0 where it was faster.
    pub(super) over_plan: Option<f64>,
    pub(super) gpu_memory_use: Option<f64>,
    pub(super) gpu_share_use: Option<f64>,
    pub(super) gpu_memory_held: Option<f64>,
    pub(super) gpu_busy: Option<f64>,
}

/// Returns the row of a policy whose plans were carried out.
pub(super) fn row(entry: &Entry) -> Option<LiveRow<'_>> {
    let runs = entry.live.as_deref()?;
    let done = || runs.iter().filter_map(|live| Some((live.planned, live.done.as_ref().ok()?)));
    let makespans = || done().map(|(_, done)| done.makespan.0);
    let part = |of: fn(&Done) -> Option<f64>| median_part(done().filter_map(|(_, done)| of(done)));
    #[expect(clippy::cast_precision_loss, reason = "shown with a few digits")]
    let over = |(planned, done): (Option<Millis>, &Done)| {
        let planned = planned?.0.max(1) as f64;
        Some(done.makespan.0 as f64 / planned - 1.0)
    };
    Some(LiveRow {
        runs: runs.len(),
        succeeded: done().count(),
        error: runs.iter().find_map(|live| live.done.as_ref().err()).map(String::as_str),
        planned_ms: median(runs.iter().filter_map(|live| Some(live.planned?.0)).collect()),
        measured_ms: median(makespans().collect()),
        measured_least_ms: makespans().min(),
        measured_most_ms: makespans().max(),
        over_plan: median_part(done().filter_map(over)),
        gpu_memory_use: part(|done| done.usage.memory),
        gpu_share_use: part(|done| done.usage.share),
        gpu_memory_held: part(|done| done.held),
        gpu_busy: part(|done| done.busy),
    })
}

/// Headings of the table, in text and on the page, behind the policy's.
pub(super) const HEADINGS: [&str; 9] =
    ["planned", "measured", "spread", "over plan", "memory", "share", "held", "busy", "runs"];

impl LiveRow<'_> {
    /// Returns what stands below [`HEADINGS`].
    pub(super) fn cells(&self) -> [String; HEADINGS.len()] {
        let time = |ms: Option<u64>| ms.map_or(String::new(), |ms| Millis(ms).to_string());
        let part = |part: Option<f64>| part.map_or(String::new(), percent);
        let spread = spread(self.measured_least_ms, self.measured_most_ms, self.measured_ms);
        let over = self.over_plan.map_or(String::new(), |over| format!("{:+.1} %", over * 100.0));
        let runs = if self.succeeded == self.runs {
            self.runs.to_string()
        } else {
            format!("{} of {}", self.succeeded, self.runs)
        };
        [
            time(self.planned_ms),
            time(self.measured_ms),
            part(spread),
            over,
            part(self.gpu_memory_use),
            part(self.gpu_share_use),
            part(self.gpu_memory_held),
            part(self.gpu_busy),
            runs,
        ]
    }
}

/// Returns the rows of all policies whose plans were carried out, with their names.
pub(super) fn rows(comparison: &Comparison) -> Vec<(&str, LiveRow<'_>)> {
    let rows = comparison.entries.iter().filter_map(|entry| Some((entry.policy.as_str(), row(entry)?)));
    rows.filter(|(_, row)| row.runs > 0).collect()
}

/// Returns how plans did as a table under a line that says so; empty where none was carried out.
pub(super) fn text(comparison: &Comparison, colour: Colour, most: Option<usize>) -> String {
    let rows = rows(comparison);
    if rows.is_empty() {
        return String::new();
    }
    let columns = HEADINGS.map(Column::right);
    let mut table =
        Table::new([&[Column::left("policy").that_gives_way()], &columns[..], &[Column::left("")]].concat());
    let best = rows.iter().filter_map(|(_, row)| row.measured_ms).min();
    for (policy, row) in &rows {
        let tone = if row.measured_ms.is_some() && row.measured_ms == best { Tone::Strong } else { Tone::Plain };
        let cells = std::iter::once(*policy).map(|policy| Cell::new(policy, tone));
        let error = row.error.map_or_else(Cell::default, |error| Cell::new(error, Tone::Bad));
        table.row(cells.chain(row.cells().map(|cell| Cell::new(cell, tone))).chain([error]));
    }
    colour.paint(Tone::Strong, TITLE) + "\n" + &table.render(colour, most)
}

/// What stands above the figures of runs.
pub(super) const TITLE: &str = "carried out on this machine";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture::{Scene, failed, finished, over, started};
    use crate::run::event::RunEnd;

    fn series(name: &str, points: &[(u64, f64)]) -> Series {
        let mut book = crate::progress::series::Book::default();
        points.iter().for_each(|(ms, value)| book.push(name, *ms, None, *value));
        book.series()[0].clone()
    }

    #[test]
    fn a_mean_is_over_time_and_the_first_value_holds_before_it() {
        let course = series("a", &[(10, 4.0), (20, 8.0), (100, 1.0)]);
        assert_eq!(mean(&course, Millis(0), Millis(40)), Some((4.0 * 20.0 + 8.0 * 20.0) / 40.0));
        assert_eq!(mean(&course, Millis(15), Millis(25)), Some(6.0));
        assert_eq!(mean(&course, Millis(15), Millis(15)), Some(1.0));
    }

    fn live(scene: &Scene) -> Live {
        let headers: Vec<_> = scene
            .graph
            .tasks
            .iter()
            .zip(1..)
            .map(|(task, end)| TaskHeader {
                name: task.name.clone(),
                planned: (Millis(0), Millis(end * 10_000)),
                ..TaskHeader::default()
            })
            .collect();
        let all = (&Pipeline::default(), &TaskGraph::default(), &Fleet::default());
        Live::of(7, all, (&headers, &scene.state), &Held::default())
    }

    #[test]
    fn a_makespan_is_from_the_first_start_to_the_last_end() {
        let mut scene = Scene::chain(&["clean", "train"]);
        for (at, event) in [
            (3, started(0, 1)),
            (8, finished(0, 0)),
            (9, started(1, 1)),
            (20, finished(1, 0)),
            (25, over(RunEnd::Succeeded)),
        ] {
            scene.apply(at, event);
        }
        let live = live(&scene);
        assert_eq!((live.seed, live.planned), (7, Some(Millis(20_000))));
        assert_eq!(
            live.done.map(|done| (done.makespan, done.usage, done.held)),
            Ok((Millis(17_000), Usage::default(), None))
        );
    }

    #[test]
    fn a_run_that_failed_says_which_task_did() {
        let mut scene = Scene::chain(&["clean", "train"]);
        for (at, event) in [(0, started(0, 1)), (5, finished(0, 3)), (5, failed(0)), (5, over(RunEnd::Failed))] {
            scene.apply(at, event);
        }
        assert_eq!(live(&scene).done, Err("`clean` failed: exit code 3".to_owned()));
    }

    #[test]
    fn a_row_has_medians_of_what_succeeded_and_the_first_reason() {
        let done = |ms| Done { makespan: Millis(ms), usage: Usage::default(), held: Some(0.5), busy: None };
        let run = |seed, done| Live { seed, planned: Some(Millis(10_000)), done };
        let live =
            vec![run(1, Ok(done(11_000))), run(2, Err("`a` failed: exit code 1".into())), run(3, Ok(done(12_000)))];
        let entry = Entry { policy: "auto".into(), trials: Ok(Vec::new()), live: Some(live) };
        let row = row(&entry).unwrap();
        assert_eq!(
            (row.runs, row.succeeded, row.measured_ms, row.measured_most_ms),
            (3, 2, Some(11_500), Some(12_000))
        );
        assert_eq!(row.cells(), ["10s", "11.50s", "8.7 %", "+15.0 %", "", "", "50.0 %", "", "2 of 3"]);
        assert_eq!(row.error, Some("`a` failed: exit code 1"));
    }
}
