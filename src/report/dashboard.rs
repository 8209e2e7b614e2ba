//! What the dashboard's pages show besides what `--json` prints: counts, what was planned, and what changes.
//!
//! Pure: the same run gives the same JSON. Tasks are spelled as in `show --json`; here they have their index as well, since
//! a page finds a row by it. Keys are stable.

use serde::Serialize;

use super::json::{self, Header, rfc3339};
use super::reasons::{self, Noted};
use crate::run::event::RunEnd;
use crate::run::observer::{DeviceGauge, Progress};
use crate::run::state::{Phase, RunState};
use crate::run::store;
use crate::units::Millis;

/// Tasks of one wait that are named.
const NAMED: usize = 10;

/// How many tasks of a run are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    waiting: usize,
    running: usize,
    succeeded: usize,
    cached: usize,
    failed: usize,
    skipped: usize,
}

impl Counts {
    /// Counts a run's tasks. Nothing runs where nobody carries it out.
    #[must_use]
    pub fn of(state: &RunState, alive: bool) -> Self {
        let mut counts = Self::default();
        for task in &state.tasks {
            let count = match task.phase {
                Phase::Waiting | Phase::Delayed(_) => &mut counts.waiting,
                Phase::Running if alive => &mut counts.running,
                Phase::Running => &mut counts.waiting,
                Phase::Succeeded => &mut counts.succeeded,
                Phase::Cached => &mut counts.cached,
                Phase::Failed => &mut counts.failed,
                Phase::Skipped => &mut counts.skipped,
            };
            *count += 1;
        }
        counts
    }
}

/// A run in the list, as `runs --json` has it.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    #[serde(flatten)]
    run: json::Run,
    /// `None` where its record is damaged.
    counts: Option<Counts>,
}

impl Listed {
    /// Describes a run in the list.
    #[must_use]
    pub fn new(
        header: &Header<'_>,
        end: Option<(Millis, RunEnd)>,
        took: Option<Millis>,
        counts: Option<Counts>,
    ) -> Self {
        Self { run: json::header(header, end, took), counts }
    }
}

/// What was intended, as `plan --json` spells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Planned<'a> {
    run: &'a str,
    pipeline: &'a str,
    makespan_ms: u64,
    tasks: Vec<PlannedTask<'a>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct PlannedTask<'a> {
    name: &'a str,
    stage: &'a str,
    critical: bool,
    start_ms: u64,
    finish_ms: u64,
    /// Ids of devices, or `node/cpu`.
    places: &'a [String],
    /// Indices of the tasks that come before.
    after: Vec<u32>,
}

/// Returns what was planned for a run.
#[must_use]
pub fn planned(header: &store::Header) -> Planned<'_> {
    let task = |task: &'_ store::TaskHeader| -> (u64, u64, Vec<u32>) {
        (task.planned.0.0, task.planned.1.0, task.after.iter().map(|task| task.0).collect())
    };
    let tasks = header.tasks.iter().map(|one| {
        let (start_ms, finish_ms, after) = task(one);
        PlannedTask {
            name: &one.name,
            stage: &one.stage,
            critical: one.critical,
            start_ms,
            finish_ms,
            places: &one.places,
            after,
        }
    });
    let makespan_ms = header.tasks.iter().map(|task| task.planned.1.0).max().unwrap_or(0);
    Planned { run: &header.id, pipeline: &header.pipeline, makespan_ms, tasks: tasks.collect() }
}

/// A task that changed.
#[derive(Clone, Debug, Serialize)]
pub struct Changed {
    /// Its index among the run's tasks.
    pub index: usize,
    /// As `show --json` has it, without progress.
    pub task: json::Task,
}

/// What changed in a run since a page last heard of it.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    /// The run without its tasks.
    pub run: json::Run,
    /// Its counts.
    pub counts: Counts,
    /// Whether nothing new is started any more.
    pub stopping: bool,
    /// How long it still takes.
    pub left_ms: Option<u64>,
    /// What happened to its tasks.
    pub tasks: Vec<Changed>,
}

/// How far a running attempt is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Heard {
    /// The task's index.
    pub index: usize,
    /// Which attempt it is, counted from 1.
    pub attempt: u32,
    /// What it said.
    pub progress: Option<Progress>,
    /// How long its log is.
    pub log_bytes: u64,
}

/// What tasks wait for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Wait {
    /// Indices of the first tasks.
    tasks: Vec<u32>,
    /// How many there are.
    count: usize,
    /// Since when.
    since: String,
    /// Why.
    words: String,
}

/// Returns what was noted of tasks that wait.
#[must_use]
pub fn waits(noted: Option<&Noted>) -> Vec<Wait> {
    let wait = |waiting: &crate::run::decide::Waiting| Wait {
        tasks: waiting.tasks.iter().take(NAMED).map(|task| task.0).collect(),
        count: waiting.count,
        since: rfc3339(waiting.since),
        words: reasons::reason(&waiting.reason),
    };
    noted.into_iter().flat_map(|noted| &noted.waiting).map(wait).collect()
}

/// What a device holds now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gauge<'a> {
    id: &'a str,
    model: &'a str,
    used_bytes: Option<u64>,
    ours_bytes: Option<u64>,
    total_bytes: u64,
    promised_bytes: u64,
    utilisation_percent: Option<u32>,
}

impl<'a> Gauge<'a> {
    /// Describes a device's gauge.
    #[must_use]
    pub fn new(gauge: &'a DeviceGauge) -> Self {
        Self {
            id: &gauge.id,
            model: &gauge.model,
            used_bytes: gauge.used.map(|used| used.0),
            ours_bytes: gauge.ours.map(|ours| ours.0),
            total_bytes: gauge.total.0,
            promised_bytes: gauge.promised.0,
            utilisation_percent: gauge.utilisation,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Scene, finished, over, started};
    use super::*;

    fn counted(scene: &Scene, alive: bool) -> String {
        serde_json::to_string(&Counts::of(&scene.state, alive)).unwrap()
    }

    #[test]
    fn every_task_is_counted_once() {
        let mut scene = Scene::chain(&["clean", "train", "best"]);
        scene.apply(0, started(0, 1));
        scene.apply(3, finished(0, 0));
        scene.apply(4, started(1, 1));
        assert_eq!(
            counted(&scene, true),
            r#"{"waiting":1,"running":1,"succeeded":1,"cached":0,"failed":0,"skipped":0}"#
        );
        assert_eq!(
            counted(&scene, false),
            r#"{"waiting":2,"running":0,"succeeded":1,"cached":0,"failed":0,"skipped":0}"#,
            "without the process that carries it out nothing runs"
        );
    }

    #[test]
    fn a_listed_run_is_spelled_as_runs_json_has_it() {
        let mut scene = Scene::chain(&["clean"]);
        scene.apply(0, started(0, 1));
        scene.apply(3, finished(0, 0));
        scene.apply(3, over(RunEnd::Succeeded));
        let header = Header { run: "r1", name: None, pipeline: "digits", started: scene.time(0), alive: false };
        let listed = Listed::new(&header, scene.state.end, None, Some(Counts::of(&scene.state, false)));
        let listed = serde_json::to_value(listed).unwrap();
        let run = serde_json::to_value(json::header(&header, scene.state.end, None)).unwrap();
        for (key, value) in run.as_object().unwrap() {
            assert_eq!(listed[key], *value);
        }
        assert_eq!(listed["counts"]["succeeded"], 1);
    }
}
