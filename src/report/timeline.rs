//! What a run planned and what became of it, place by place: the material of charts and traces.
//!
//! Pure. Times are ms from the start of the run. A place is a device, or the CPUs of a node. Does not know how any of it
//! is drawn.

use std::collections::BTreeMap;

use super::idle::{self, Idle};
use super::json::{Header, outcome_code, task_word};
use crate::run::state::{Attempt, RunState};
use crate::run::store::TaskHeader;
use crate::units::Millis;

/// A run from its start to its end, or to now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timeline {
    /// The run's id.
    pub run: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// The run's state, as `show --json` spells it.
    pub state: &'static str,
    /// Stages in the order of the file.
    pub stages: Vec<String>,
    /// Devices first, then the CPUs of nodes.
    pub rows: Vec<Row>,
    /// When the plan would have ended.
    pub planned_end: u64,
    /// When the run ended, or now.
    pub end: u64,
    /// `[n_tasks]`: whether the plan had no slack for a task.
    pub critical: Vec<bool>,
    /// How much of that it went on: not while nobody carried it out.
    pub took: u64,
}

/// What happened at one place.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// `box/gpu0`, `box/cpu`.
    pub place: String,
    /// What was intended.
    pub planned: Vec<Span>,
    /// What was done.
    pub actual: Vec<Span>,
    /// When nothing was done there, and why.
    pub idle: Vec<Idle>,
}

/// A task, or a try of it, at a place.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Span {
    /// The task's name.
    pub name: String,
    /// Its stage, as an index into [`Timeline::stages`].
    pub stage: usize,
    /// ms from the start of the run.
    pub from: u64,
    /// ms from the start of the run.
    pub to: u64,
    /// When it ran in between, from and to, where it was suspended for a while; empty otherwise.
    pub pieces: Vec<(u64, u64)>,
    /// Counts from 0 the lines that are needed to draw what overlaps.
    pub lane: usize,
    /// Whether the plan had no slack for it.
    pub critical: bool,
    /// Of what was done: which try it was, and how it ended; `running` while it goes on.
    pub attempt: Option<(usize, String)>,
}

impl Row {
    /// Returns how many lines are needed for what was planned and what was done.
    #[must_use]
    pub fn lanes(&self) -> (usize, usize) {
        let lanes = |spans: &[Span]| spans.iter().map(|span| span.lane + 1).max().unwrap_or(0);
        (lanes(&self.planned), lanes(&self.actual))
    }

    /// Returns for how long something was done there.
    #[must_use]
    pub fn busy(&self, end: u64) -> u64 {
        end.saturating_sub(self.idle.iter().map(|idle| idle.to - idle.from).sum())
    }
}

/// Lays a run out. `now` is in ms since the Unix epoch, for what still runs.
#[must_use]
pub fn lay_out(header: &Header<'_>, tasks: &[TaskHeader], state: &RunState, now: Millis) -> Timeline {
    let start = header.started;
    let last_known = state.tasks.iter().flat_map(|task| &task.attempts).map(|attempt| match &attempt.ended {
        Some(ended) => ended.at,
        None => attempt.started,
    });
    // Of a run whose process is gone nobody knows when it ended: at what was last heard of it.
    let end = match state.end {
        Some((at, _)) => at,
        None if header.alive => now.max(start),
        None => last_known.max().unwrap_or(start),
    };
    let (end, took) = ((end - start).0, state.went_on(start, end).0);
    let mut stages: Vec<String> = Vec::new();
    let mut rows: BTreeMap<(bool, String), Row> = BTreeMap::new();
    for (task, happened) in tasks.iter().zip(&state.tasks) {
        let stage = stages.iter().position(|stage| *stage == task.stage).unwrap_or_else(|| {
            stages.push(task.stage.clone());
            stages.len() - 1
        });
        let span = Span { name: task.name.clone(), stage, critical: task.critical, ..Span::default() };
        for place in &task.places {
            let pieces = task.pieces.iter().map(|(from, to)| (from.0, to.0)).collect();
            let planned = Span { from: task.planned.0.0, to: task.planned.1.0, pieces, ..span.clone() };
            row(&mut rows, place).planned.push(planned);
        }
        for (number, attempt) in (1..).zip(&happened.attempts) {
            let from = (attempt.started - start).0;
            let to = attempt.ended.as_ref().map_or(end, |ended| (ended.at - start).0).max(from);
            let how = outcome_code(attempt, header.alive).unwrap_or_else(|| "running".to_owned());
            let pieces =
                attempt.pieces(start + Millis(to)).map(|(from, to)| ((from - start).0, (to - start).0)).collect();
            let done = Span { from, to, pieces, attempt: Some((number, how)), ..span.clone() };
            for place in places(attempt) {
                row(&mut rows, &place).actual.push(done.clone());
            }
        }
    }
    let mut rows: Vec<Row> = rows.into_values().collect();
    let history = idle::History::new(header, tasks, state);
    for row in &mut rows {
        into_lanes(&mut row.planned);
        into_lanes(&mut row.actual);
        row.idle = history.idle(&row.place, &row.actual, end);
    }
    let planned_end = tasks.iter().map(|task| task.planned.1.0).max().unwrap_or(0);
    let state = super::json::state_word(state.end, header.alive);
    let (run, pipeline) = (header.run.to_owned(), header.pipeline.to_owned());
    let critical = tasks.iter().map(|task| task.critical).collect();
    Timeline { run, pipeline, state, stages, rows, planned_end, end, took, critical }
}

fn row<'r>(rows: &'r mut BTreeMap<(bool, String), Row>, place: &str) -> &'r mut Row {
    let key = (is_host(place), place.to_owned());
    rows.entry(key).or_insert_with(|| Row { place: place.to_owned(), ..Row::default() })
}

/// Whether a place is the CPUs of a node.
pub(super) fn is_host(place: &str) -> bool {
    place.ends_with("/cpu")
}

/// Returns where an attempt ran: its devices, or the CPUs of its node.
pub(super) fn places(attempt: &Attempt) -> Vec<String> {
    match attempt.place.devices.as_slice() {
        [] => vec![format!("{}/cpu", attempt.place.node)],
        devices => devices.to_vec(),
    }
}

/// Puts what overlaps into different lanes, each span into the first one that is free.
fn into_lanes(spans: &mut [Span]) {
    spans.sort_by(|a, b| (a.from, a.to, &a.name).cmp(&(b.from, b.to, &b.name)));
    let mut ends: Vec<u64> = Vec::new();
    for span in spans {
        // Something of no length still takes its instant.
        let until = span.to.max(span.from + 1);
        span.lane = ends.iter().position(|end| *end <= span.from).unwrap_or(ends.len());
        match ends.get_mut(span.lane) {
            Some(end) => *end = until,
            None => ends.push(until),
        }
    }
}

/// Returns the state of every task as `show --json` spells it.
#[must_use]
pub fn words(header: &Header<'_>, state: &RunState) -> Vec<&'static str> {
    state.tasks.iter().map(|task| task_word(task.phase, header.alive)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Scene, failed, finished, over, started, started_on_gpu};
    use super::super::idle::Cause;
    use super::*;
    use crate::run::event::{Event, RunEnd};

    /// Task headers of a scene in which every second task is planned on the device.
    pub(crate) fn headers(scene: &Scene) -> Vec<TaskHeader> {
        let header = |(i, task): (usize, &crate::graph::Task)| TaskHeader {
            name: task.name.clone(),
            stage: task.name.clone(),
            planned: (scene.plan.placed[i].start, scene.plan.placed[i].finish),
            pieces: Vec::new(),
            places: vec![if i % 2 == 1 { "box/gpu0".into() } else { "box/cpu".into() }],
            after: scene.graph.before.of(super::super::fixture::id(i)).iter().map(|edge| edge.task).collect(),
            outputs: Vec::new(),
            critical: true,
        };
        scene.graph.tasks.iter().enumerate().map(header).collect()
    }

    fn laid_out(scene: &Scene, alive: bool, now: u64) -> Timeline {
        let header = Header { run: "r1", name: None, pipeline: "digits", started: scene.time(0), alive };
        lay_out(&header, &headers(scene), &scene.state, scene.time(now))
    }

    #[test]
    fn plan_and_what_became_of_it_stand_side_by_side() {
        let mut scene = Scene::chain(&["clean", "train", "best"]);
        for (at, event) in [
            (0, started(0, 1)),
            (4, finished(0, 0)),
            (6, started_on_gpu(1, 1)),
            (9, finished(1, 0)),
            (9, started(2, 1)),
            (12, finished(2, 0)),
            (12, over(RunEnd::Succeeded)),
        ] {
            scene.apply(at, event);
        }
        let timeline = laid_out(&scene, false, 99);
        let [gpu, cpu] = &timeline.rows[..] else { panic!("{:#?}", timeline.rows) };
        assert_eq!((gpu.place.as_str(), cpu.place.as_str()), ("box/gpu0", "box/cpu"));
        assert_eq!((gpu.planned[0].from, gpu.planned[0].to), (10_000, 20_000));
        assert_eq!((gpu.actual[0].from, gpu.actual[0].to), (6_000, 9_000));
        let causes: Vec<(u64, u64, &Cause)> = gpu.idle.iter().map(|idle| (idle.from, idle.to, &idle.cause)).collect();
        assert_eq!(
            causes,
            [(0, 4_000, &Cause::Waits("clean".into())), (4_000, 6_000, &Cause::Room), (9_000, 12_000, &Cause::Nothing)]
        );
        assert_eq!((timeline.planned_end, timeline.end, gpu.busy(timeline.end)), (30_000, 12_000, 3_000));
    }

    #[test]
    fn that_nobody_carried_the_run_out_is_no_wait_and_takes_no_time() {
        let mut scene = Scene::chain(&["clean", "train"]);
        for (at, event) in [
            (0, started(0, 1)),
            (4, finished(0, 1)),
            (4, failed(0)),
            (4, over(RunEnd::Failed)),
            (44, Event::RunResumed { adopted: Vec::new() }),
            (45, started(0, 2)),
            (47, finished(0, 0)),
            (47, started_on_gpu(1, 1)),
            (50, finished(1, 0)),
            (50, over(RunEnd::Succeeded)),
        ] {
            scene.apply(at, event);
        }
        let timeline = laid_out(&scene, false, 99);
        assert_eq!((timeline.end, timeline.took), (50_000, 10_000));
        assert_eq!(scene.state.took(scene.time(0)), Some(Millis(10_000)));
        let cpu = timeline.rows.iter().find(|row| row.place == "box/cpu").unwrap();
        let causes: Vec<(u64, u64, &Cause)> = cpu.idle.iter().map(|idle| (idle.from, idle.to, &idle.cause)).collect();
        assert_eq!(
            causes,
            [(4_000, 44_000, &Cause::Away), (44_000, 45_000, &Cause::Retry), (47_000, 50_000, &Cause::Nothing)]
        );
    }

    #[test]
    fn what_runs_goes_on_until_now_and_what_overlaps_has_lanes() {
        let mut scene = Scene::side_by_side(&["a", "b", "c", "d"]);
        scene.apply(0, started(0, 1));
        scene.apply(1, started(2, 1));
        scene.apply(2, finished(0, 1));
        let timeline = laid_out(&scene, true, 5);
        let cpu = timeline.rows.iter().find(|row| row.place == "box/cpu").unwrap();
        assert_eq!(cpu.lanes(), (2, 2));
        assert_eq!((cpu.actual[1].to, &cpu.actual[1].attempt), (5_000, &Some((1, "running".into()))));
        assert_eq!(cpu.actual[0].attempt, Some((1, "exited:1".into())));
        let lost = laid_out(&scene, false, 99);
        assert_eq!(lost.end, 2_000, "what was last heard of it");
    }
}
