//! Runs as JSON: what `runs --json` and `show --json` print. Keys and words are stable.
//!
//! Times are RFC 3339 in UTC, memory is in bytes, what is unknown is `null`.

use std::path::Path;

use serde::Serialize;

use crate::graph::TaskId;
use crate::progress::Progress;
use crate::progress::record::Record;
use crate::progress::series::Series;
use crate::run::event::{Role, RunEnd};
use crate::run::launch;
use crate::run::outcome::Outcome;
use crate::run::state::{Attempt, Phase, RunState, TaskState};
use crate::run::store::TaskHeader;
use crate::spec::MemoryLimit;
use crate::units::Millis;

/// What is known of a run besides its events.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    /// The run's id.
    pub run: &'a str,
    /// What it was called by whoever started it.
    pub name: Option<&'a str>,
    /// The pipeline's name.
    pub pipeline: &'a str,
    /// When it started, ms since the Unix epoch.
    pub started: Millis,
    /// Whether the process that carries it out is still there.
    pub alive: bool,
}

/// A run. Without tasks in a list of runs.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    run: String,
    /// Left out where it was given none.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    pipeline: String,
    state: &'static str,
    started: String,
    finished: Option<String>,
    /// How long it went on; `null` while it does.
    took_ms: Option<u64>,
    /// `--set`, in order; left out in a list of runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    set: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tasks: Option<Vec<Task>>,
}

/// A task of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Task {
    name: String,
    stage: String,
    state: &'static str,
    /// The failed task for which it was skipped, `null` where the run was stopped; left out where it was not skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped_because: Option<Option<String>>,
    /// What every place lacks, where it failed because none could ever hold it; left out elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    lacks: Option<Box<str>>,
    /// Whether the plan had no slack for it.
    critical: bool,
    planned: Planned,
    attempts: Vec<Try>,
}

/// What was intended, as `plan --json` spells it: ms from the start of the run.
#[derive(Clone, Debug, Serialize)]
pub struct Planned {
    start_ms: u64,
    finish_ms: u64,
    /// Ids of devices, or `node/cpu`.
    places: Vec<String>,
}

/// One attempt.
#[derive(Clone, Debug, Serialize)]
pub struct Try {
    number: usize,
    started: String,
    finished: Option<String>,
    /// `Outcome`'s code; `null` while it runs.
    outcome: Option<String>,
    /// The device whose memory it ran out of, or `host`; left out where it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    ran_out_of: Option<String>,
    /// When it ran, from and to; left out where it never was suspended.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    segments: Vec<(String, Option<String>)>,
    /// Whether it is suspended now; left out where it is not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    suspended: bool,
    /// Whether it ran beside another one; left out where it did not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    backup: bool,
    node: String,
    devices: Vec<String>,
    /// Device memory reserved on each device, if any was.
    gpu_memory_bytes: Option<u64>,
    /// How it was kept to that memory: `none`, `watch`, `framework`, `mps`.
    memory_limit: &'static str,
    /// How it was helped because the attempts before ran out of memory.
    raised: Option<&'static str>,
    peak_memory_bytes: Option<u64>,
    peak_gpu_memory_bytes: Option<u64>,
    /// Path of what it printed; `null` if it printed nothing.
    log: Option<String>,
    /// What was last heard of its progress; left out where it said nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<Progress>,
    /// How its figures went: `name`, and arrays `ms` (since the attempt started), `step` and `value`; left out where there
    /// are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    series: Vec<Series>,
}

/// How files of a run are looked at.
#[derive(Clone, Copy)]
pub struct Files<'a> {
    /// Whether a file is there: an attempt that has not ended may have printed something or not.
    pub exists: &'a dyn Fn(&Path) -> bool,
    /// Reads what was heard of an attempt's progress.
    pub heard: &'a dyn Fn(&Path) -> Option<Record>,
}

/// Returns a run without its tasks, which went on for that long.
#[must_use]
pub fn header(header: &Header<'_>, end: Option<(Millis, RunEnd)>, took: Option<Millis>) -> Run {
    Run {
        run: header.run.to_owned(),
        name: header.name.map(str::to_owned),
        pipeline: header.pipeline.to_owned(),
        state: state_word(end, header.alive),
        started: rfc3339(header.started),
        finished: end.map(|(at, _)| rfc3339(at)),
        took_ms: took.map(|took| took.0),
        set: None,
        tasks: None,
    }
}

/// Returns a run with its tasks and its `--set`. `dir` is the run's folder; paths of logs begin with it. What
/// files say is asked of `files`.
#[must_use]
pub fn run(
    head: &Header<'_>,
    (tasks, sets): (&[TaskHeader], &[String]),
    state: &RunState,
    dir: &Path,
    files: Files<'_>,
) -> Run {
    let shown = (0..state.tasks.len().min(tasks.len())).map(|task| one_task(head, tasks, state, task, dir, files));
    Run { set: Some(sets.to_vec()), tasks: Some(shown.collect()), ..header(head, state.end, state.took(head.started)) }
}

/// Returns one task of a run by its index, as [`run`] has it.
#[must_use]
pub fn one_task(
    head: &Header<'_>,
    tasks: &[TaskHeader],
    state: &RunState,
    index: usize,
    dir: &Path,
    files: Files<'_>,
) -> Task {
    let (TaskHeader { name, stage, planned, places, critical, .. }, task) = (&tasks[index], &state.tasks[index]);
    let name_of = |task: TaskId| tasks.get(task.index()).map(|task| task.name.clone());
    Task {
        name: name.clone(),
        stage: stage.clone(),
        state: task_word(task.phase, head.alive),
        skipped_because: (task.phase == Phase::Skipped).then(|| task.skipped_for.and_then(name_of)),
        lacks: task.lacks.clone(),
        critical: *critical,
        planned: Planned { start_ms: planned.0.0, finish_ms: planned.1.0, places: places.clone() },
        attempts: attempts(head, name, task, dir, files),
    }
}

/// Returns when an attempt ran; the last time has no end where it still runs.
fn segments(attempt: &Attempt) -> Vec<(String, Option<String>)> {
    let (ended, last) = (attempt.ended.as_ref().map(|ended| ended.at), Millis(u64::MAX));
    let end = |to: Millis| (to != last).then(|| rfc3339(to));
    attempt.pieces(ended.unwrap_or(last)).map(|(from, to)| (rfc3339(from), end(to))).collect()
}

/// Returns a task's attempts, the first one first.
pub(super) fn attempts(head: &Header<'_>, name: &str, task: &TaskState, dir: &Path, files: Files<'_>) -> Vec<Try> {
    let log = |number, attempt: &Attempt| {
        let path = launch::log(dir, name, number);
        let is_there = attempt.ended.as_ref().map_or_else(|| (files.exists)(&path), |ended| ended.logged);
        is_there.then(|| path.to_string_lossy().into_owned())
    };
    let heard = |number| (files.heard)(&launch::progress(dir, name, number)).unwrap_or_default();
    let attempt = |(number, attempt): (u32, &Attempt)| {
        let Record { at_ms, progress, series } = heard(number);
        Try {
            number: number as usize,
            started: rfc3339(attempt.started),
            finished: attempt.ended.as_ref().map(|ended| rfc3339(ended.at)),
            outcome: outcome_code(attempt, head.alive),
            ran_out_of: attempt.ended.as_ref().and_then(|ended| {
                let Outcome::OutOfMemory { device } = &ended.outcome else { return None };
                Some(device.clone().unwrap_or_else(|| "host".to_owned()))
            }),
            segments: segments(attempt),
            suspended: attempt.ended.is_none() && attempt.is_suspended(),
            backup: attempt.place.role == Role::Backup,
            node: attempt.place.node.clone(),
            devices: attempt.place.devices.clone(),
            gpu_memory_bytes: Some(attempt.place.gpu_memory.0).filter(|bytes| *bytes > 0),
            memory_limit: match attempt.ended.as_ref().is_some_and(|ended| ended.usage.hidden) {
                true => MemoryLimit::None.word(),
                false => attempt.place.limit.word(),
            },
            raised: attempt.raise.map(|raise| raise.step.word()),
            peak_memory_bytes: attempt.ended.as_ref().and_then(|ended| Some(ended.usage.peak_memory?.0)),
            peak_gpu_memory_bytes: attempt.ended.as_ref().and_then(|ended| Some(ended.usage.peak_gpu_memory?.0)),
            log: log(number, attempt),
            progress: Some(progress).filter(|progress| at_ms > 0 || *progress != Progress::default()),
            series,
        }
    };
    (1..).zip(&task.attempts).map(attempt).collect()
}

/// Returns the stable word for a run. One whose process is gone without an end is interrupted, never running.
#[must_use]
pub const fn state_word(end: Option<(Millis, RunEnd)>, alive: bool) -> &'static str {
    match end {
        Some((_, RunEnd::Succeeded)) => "succeeded",
        Some((_, RunEnd::Failed)) => "failed",
        Some((_, RunEnd::Interrupted)) => "interrupted",
        None if alive => "running",
        None => "interrupted",
    }
}

/// Returns the stable word for a task. Without the process that carries the run out, nothing runs: such a task waits
/// to be resumed.
#[must_use]
pub const fn task_word(phase: Phase, alive: bool) -> &'static str {
    match phase {
        Phase::Running if !alive => Phase::Waiting.word(),
        Phase::Waiting
        | Phase::Delayed(_)
        | Phase::Running
        | Phase::Succeeded
        | Phase::Cached
        | Phase::Failed
        | Phase::Skipped => phase.word(),
    }
}

/// Returns the code of an attempt's outcome; `None` while it runs.
#[must_use]
pub fn outcome_code(attempt: &Attempt, alive: bool) -> Option<String> {
    match &attempt.ended {
        Some(ended) => Some(ended.outcome.to_string()),
        None if alive => None,
        None => Some("interrupted".into()),
    }
}

/// Returns a time in UTC, always with milliseconds: `2026-11-20T21:00:00.000Z`.
#[must_use]
pub fn rfc3339(time: Millis) -> String {
    format!("{:.3}", timestamp(time))
}

/// Returns a time in UTC, in whole seconds: `2026-11-20T21:00:00Z`.
#[must_use]
pub fn rfc3339_seconds(time: Millis) -> String {
    timestamp(Millis(time.0 / 1_000 * 1_000)).to_string()
}

fn timestamp(time: Millis) -> jiff::Timestamp {
    let ms = i64::try_from(time.0).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture::{Scene, failed, finished, over, skipped, started, started_on_gpu};

    fn shown(scene: &Scene, alive: bool) -> String {
        let header_of = |task: &crate::graph::Task| TaskHeader {
            name: task.name.clone(),
            stage: "train".into(),
            planned: (Millis(0), Millis(10_000)),
            places: vec!["box/gpu0".into()],
            critical: true,
            ..TaskHeader::default()
        };
        let tasks: Vec<TaskHeader> = scene.graph.tasks.iter().map(header_of).collect();
        let header = Header { run: "r1", name: None, pipeline: "digits", started: scene.time(0), alive };
        let files = Files { exists: &|_| true, heard: &|_| None };
        let run = run(&header, (&tasks, &["train.retries=1".into()]), &scene.state, Path::new("/state/runs/r1"), files);
        serde_json::to_string_pretty(&run).expect("text and numbers only")
    }

    #[test]
    fn a_run_shows_every_attempt_with_outcome_place_and_log() {
        let mut scene = Scene::chain(&["train"]);
        scene.apply(0, started_on_gpu(0, 1));
        scene.apply(3, finished(0, 1));
        scene.apply(4, started(0, 2));
        scene.apply(6, finished(0, 0));
        scene.apply(6, over(RunEnd::Succeeded));
        insta::assert_snapshot!(shown(&scene, false), @r#"
        {
          "run": "r1",
          "pipeline": "digits",
          "state": "succeeded",
          "started": "2026-11-20T21:00:00.000Z",
          "finished": "2026-11-20T21:00:06.000Z",
          "took_ms": 6000,
          "set": [
            "train.retries=1"
          ],
          "tasks": [
            {
              "name": "train",
              "stage": "train",
              "state": "succeeded",
              "critical": true,
              "planned": {
                "start_ms": 0,
                "finish_ms": 10000,
                "places": [
                  "box/gpu0"
                ]
              },
              "attempts": [
                {
                  "number": 1,
                  "started": "2026-11-20T21:00:00.000Z",
                  "finished": "2026-11-20T21:00:03.000Z",
                  "outcome": "exited:1",
                  "node": "box",
                  "devices": [
                    "box/gpu0"
                  ],
                  "gpu_memory_bytes": 6291456,
                  "memory_limit": "none",
                  "raised": null,
                  "peak_memory_bytes": 67108864,
                  "peak_gpu_memory_bytes": null,
                  "log": "/state/runs/r1/logs/train.1.log"
                },
                {
                  "number": 2,
                  "started": "2026-11-20T21:00:04.000Z",
                  "finished": "2026-11-20T21:00:06.000Z",
                  "outcome": "succeeded",
                  "node": "box",
                  "devices": [],
                  "gpu_memory_bytes": null,
                  "memory_limit": "none",
                  "raised": null,
                  "peak_memory_bytes": 67108864,
                  "peak_gpu_memory_bytes": null,
                  "log": "/state/runs/r1/logs/train.2.log"
                }
              ]
            }
          ]
        }
        "#);
    }

    #[test]
    fn a_task_that_was_skipped_names_the_one_that_failed() {
        let mut scene = Scene::chain(&["clean", "train"]);
        for (at, event) in [(0, started(0, 1)), (3, finished(0, 1)), (3, failed(0)), (3, skipped(1, 0))] {
            scene.apply(at, event);
        }
        assert!(shown(&scene, true).contains("\"skipped_because\": \"clean\""));
    }

    #[test]
    fn a_run_whose_process_is_gone_is_interrupted_and_nothing_in_it_runs() {
        let mut scene = Scene::chain(&["train"]);
        scene.apply(0, started(0, 1));
        assert!(shown(&scene, true).contains("\"running\""));
        let gone = shown(&scene, false);
        assert!(!gone.contains("\"running\""));
        insta::assert_snapshot!(gone, @r#"
        {
          "run": "r1",
          "pipeline": "digits",
          "state": "interrupted",
          "started": "2026-11-20T21:00:00.000Z",
          "finished": null,
          "took_ms": null,
          "set": [
            "train.retries=1"
          ],
          "tasks": [
            {
              "name": "train",
              "stage": "train",
              "state": "waiting",
              "critical": true,
              "planned": {
                "start_ms": 0,
                "finish_ms": 10000,
                "places": [
                  "box/gpu0"
                ]
              },
              "attempts": [
                {
                  "number": 1,
                  "started": "2026-11-20T21:00:00.000Z",
                  "finished": null,
                  "outcome": "interrupted",
                  "node": "box",
                  "devices": [],
                  "gpu_memory_bytes": null,
                  "memory_limit": "none",
                  "raised": null,
                  "peak_memory_bytes": null,
                  "peak_gpu_memory_bytes": null,
                  "log": "/state/runs/r1/logs/train.1.log"
                }
              ]
            }
          ]
        }
        "#);
    }

    #[test]
    fn a_run_in_a_list_has_no_tasks() {
        let header_only =
            header(&Header { run: "r1", name: None, pipeline: "digits", started: Millis(0), alive: true }, None, None);
        insta::assert_snapshot!(
            serde_json::to_string(&header_only).expect("text and numbers only"),
            @r#"{"run":"r1","pipeline":"digits","state":"running","started":"1970-01-01T00:00:00.000Z","finished":null,"took_ms":null}"#
        );
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(rfc3339(Millis(1_795_208_400_000)), "2026-11-20T21:00:00.000Z");
        assert_eq!(rfc3339(Millis(1_795_208_400_120)), "2026-11-20T21:00:00.120Z");
        assert_eq!(rfc3339_seconds(Millis(1_795_208_400_620)), "2026-11-20T21:00:00Z");
    }
}
