//! `run --json`: one JSON object per line, as facts are recorded. Keys and words are stable.
//!
//! Every object has `time` (RFC 3339, UTC), `event` and `run`; those about a task have `task`, its name. Besides:
//!
//! | `event` | further keys |
//! |---|---|
//! | `run-started` | `tasks`, `planned_ms` |
//! | `attempt-started` | `attempt`, `node`, `devices`, `gpu_memory_bytes` |
//! | `attempt-spawned` | `attempt`, `pid` |
//! | `progress` | `progress` (0 to 1), `phase`, `loss`, `accuracy`, `null` where unknown |
//! | `attempt-finished` | `attempt`, `outcome`, `peak_memory_bytes`, `peak_gpu_memory_bytes`, `log` |
//! | `retry-planned` | `not_before`; after running out of memory also `raised`, `gpu_memory_bytes`, `memory_bytes` |
//! | `task-failed` | |
//! | `task-skipped` | `because`: the failed task that it needs, or `null` |
//! | `task-cached` | |
//! | `task-reopened` | |
//! | `replanned` | `because` in words, `before_ms` and `after_ms` left, `next` (the first ten), `moved` |
//! | `stop-requested` | `reason`: `task-failed` or `signal` |
//! | `run-finished` | `state`: `succeeded`, `failed` or `interrupted` |
//! | `run-resumed` | `adopted`: the tasks whose processes have gone on all the while |
//! | `waiting` | `tasks` (the first ten), `count`, `reason` in words; for waits that are long |
//!
//! `outcome` and the rest are spelled as in `show --json`. The first line is `run-started`, the last `run-finished`. A run
//! that is resumed begins with what became of the attempts that were under way, and `run-resumed`.

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::json::rfc3339;
use super::reasons::{self, Patience};
use super::wording;
use crate::graph::TaskId;
use crate::run::decide::Waiting;
use crate::run::event::{Event, Recorded, Role};
use crate::run::launch;
use crate::run::observer::{Observer, Progress, View};
use crate::units::Millis;

/// How many tasks are named that come next in a new order.
const NEXT: usize = 10;

/// Writes an object per line. After a failed write it is silent: nobody reads any more.
pub struct Stream {
    out: Box<dyn Write>,
    dir: PathBuf,
    /// The latest time that an event or a tick told.
    now: Option<Millis>,
    patience: Patience,
    /// What attempts said last: the same is not said twice.
    said: HashMap<(TaskId, Role), Progress>,
    closed: bool,
}

impl Stream {
    /// Makes an observer that writes to `out`; `dir` is the run's folder.
    #[must_use]
    pub fn new(out: Box<dyn Write>, dir: PathBuf) -> Self {
        Self { out, dir, now: None, patience: Patience::default(), said: HashMap::new(), closed: false }
    }

    fn write(&mut self, view: View<'_>, at: Millis, event: &str, further: Value) {
        let mut object = Map::new();
        object.insert("time".into(), rfc3339(at).into());
        object.insert("event".into(), event.into());
        object.insert("run".into(), view.run.into());
        if let Value::Object(further) = further {
            object.extend(further);
        }
        let line = Value::Object(object).to_string() + "\n";
        // Flushed line by line: the reader may wait for it.
        self.closed = self.closed || self.out.write_all(line.as_bytes()).and_then(|()| self.out.flush()).is_err();
    }

    /// Writes the first line, unless that was done.
    fn begin(&mut self, view: View<'_>, at: Millis) {
        if self.now.replace(at).is_none() {
            let keys = json!({"tasks": view.graph.len(), "planned_ms": view.plan.makespan.0});
            self.write(view, at, "run-started", keys);
        }
    }

    fn keys(&self, view: View<'_>, event: &Event) -> (&'static str, Value) {
        let name = |task: TaskId| view.graph.tasks[task.index()].name.as_str();
        let attempt = |task: TaskId, role| view.state.task(task).last_as(role).map_or(0, |(number, _)| number);
        match event {
            Event::AttemptStarted { task, number, place } => {
                let mut keys = json!({"task": name(*task), "attempt": number, "node": place.node,
                    "devices": place.devices, "gpu_memory_bytes": place.gpu_memory.0});
                if place.role == Role::Backup {
                    keys["backup"] = true.into();
                }
                ("attempt-started", keys)
            }
            Event::AttemptSpawned { task, role, process } => {
                ("attempt-spawned", json!({"task": name(*task), "attempt": attempt(*task, *role), "pid": process.pid}))
            }
            Event::AttemptFinished { task, role, outcome, usage, logged } => {
                let number = attempt(*task, *role);
                let log = logged.then(|| launch::log(&self.dir, name(*task), number).to_string_lossy().into_owned());
                let keys = json!({"task": name(*task), "attempt": number, "outcome": outcome.to_string(),
                    "peak_memory_bytes": usage.peak_memory.map(|peak| peak.0),
                    "peak_gpu_memory_bytes": usage.peak_gpu_memory.map(|peak| peak.0), "log": log});
                ("attempt-finished", keys)
            }
            Event::TaskSuspended { task } => {
                ("task-suspended", json!({"task": name(*task), "attempt": attempt(*task, Role::Main)}))
            }
            Event::TaskContinued { task } => {
                ("task-continued", json!({"task": name(*task), "attempt": attempt(*task, Role::Main)}))
            }
            Event::RetryPlanned { task, not_before, raise } => {
                let mut keys = json!({"task": name(*task), "not_before": rfc3339(*not_before)});
                if let Some(raise) = raise {
                    keys["raised"] = raise.step.word().into();
                    keys["gpu_memory_bytes"] = raise.gpu_memory.0.into();
                    keys["memory_bytes"] = raise.memory.0.into();
                }
                ("retry-planned", keys)
            }
            Event::TaskFailed { task, lacks: None } => ("task-failed", json!({"task": name(*task)})),
            Event::TaskFailed { task, lacks } => ("task-failed", json!({"task": name(*task), "lacks": lacks})),
            Event::TaskSkipped { task, because } => {
                ("task-skipped", json!({"task": name(*task), "because": because.map(name)}))
            }
            Event::TaskCached { task, .. } => ("task-cached", json!({"task": name(*task)})),
            Event::Replanned { because, before, after, order, moved } => {
                let next: Vec<&str> = order.iter().take(NEXT).copied().map(name).collect();
                let moved: Vec<&str> = moved.iter().map(|intent| name(intent.task)).collect();
                let why = wording::because(because, |task| name(*task));
                let keys = json!({"because": why, "before_ms": before.0, "after_ms": after.0, "next": next,
                    "moved": moved});
                ("replanned", keys)
            }
            Event::TaskReopened { task } => ("task-reopened", json!({"task": name(*task)})),
            Event::StopRequested { reason } => ("stop-requested", json!({"reason": reason})),
            Event::RunFinished { end } => ("run-finished", json!({"state": wording::end(*end)})),
            Event::FinishTold { failed } => ("finish-told", json!({"failed": failed})),
            Event::RunResumed { adopted } => {
                let adopted: Vec<&str> = adopted.iter().copied().map(name).collect();
                ("run-resumed", json!({"adopted": adopted}))
            }
        }
    }
}

impl Observer for Stream {
    fn recorded(&mut self, view: View<'_>, recorded: &Recorded) {
        if self.closed {
            return;
        }
        self.begin(view, recorded.at);
        if let Event::AttemptFinished { task, role, .. } = &recorded.event {
            self.said.remove(&(*task, *role));
        }
        let (event, keys) = self.keys(view, &recorded.event);
        self.write(view, recorded.at, event, keys);
    }

    fn progressed(&mut self, view: View<'_>, task: TaskId, role: Role, progress: &Progress) {
        if self.said.get(&(task, role)) == Some(progress) {
            return;
        }
        self.said.insert((task, role), progress.clone());
        if let (Some(now), false) = (self.now, self.closed) {
            let mut keys = json!({"task": view.graph.tasks[task.index()].name});
            if role == Role::Backup {
                keys["backup"] = true.into();
            }
            let said = serde_json::to_value(progress).expect("numbers and text only");
            if let (Value::Object(keys), Value::Object(said)) = (&mut keys, said) {
                keys.extend(said);
            }
            self.write(view, now, "progress", keys);
        }
    }

    fn waits(&mut self, view: View<'_>, now: Millis, waiting: &[Waiting]) {
        self.patience.take_in(waiting, view.state, now);
    }

    fn ticked(&mut self, view: View<'_>, now: Millis) {
        if self.closed {
            return;
        }
        self.begin(view, now);
        for Waiting { tasks, count, reason, .. } in self.patience.due(now, view.state) {
            let tasks: Vec<_> = tasks.iter().take(10).map(|task| &view.graph.tasks[task.index()].name).collect();
            let keys = json!({"tasks": tasks, "count": count, "reason": reasons::reason(&reason)});
            self.write(view, now, "waiting", keys);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::report::fixture::{
        Paper, Scene, ended, failed, finished, id, over, retry, skipped, started, started_on_gpu,
    };
    use crate::run::event::{Process, RunEnd, StopReason};
    use crate::run::outcome::Outcome;

    fn streamed() -> String {
        let paper = Paper::default();
        let mut stream = Stream::new(Box::new(paper.clone()), Path::new("/state/runs/r1").to_owned());
        let mut scene = Scene::chain(&["train", "best"]);
        let process = Process { pid: 4711, started: 1 };
        scene.tell(&mut stream, 0, started_on_gpu(0, 1));
        scene.tell(&mut stream, 0, Event::AttemptSpawned { task: id(0), role: Role::Main, process });
        stream.ticked(scene.view(), scene.time(1));
        for _ in 0..2 {
            stream.progressed(
                scene.view(),
                id(0),
                Role::Main,
                &Progress { progress: Some(0.5), ..Progress::default() },
            );
        }
        scene.tell(&mut stream, 2, ended(0, Outcome::OutOfMemory { device: Some("box/gpu0".into()) }));
        let not_before = scene.time(3);
        scene.tell(&mut stream, 2, retry(0, not_before));
        scene.tell(&mut stream, 3, started(0, 2));
        scene.tell(&mut stream, 4, finished(0, 1));
        scene.tell(&mut stream, 4, failed(0));
        scene.tell(&mut stream, 4, Event::StopRequested { reason: StopReason::TaskFailed });
        scene.tell(&mut stream, 4, skipped(1, 0));
        scene.tell(&mut stream, 4, over(RunEnd::Failed));
        paper.text()
    }

    #[test]
    fn keys_and_words_are_stable() {
        insta::assert_snapshot!(streamed(), @r#"
        {"time":"2026-11-20T21:00:00.000Z","event":"run-started","run":"r1","tasks":2,"planned_ms":20000}
        {"time":"2026-11-20T21:00:00.000Z","event":"attempt-started","run":"r1","task":"train","attempt":1,"node":"box","devices":["box/gpu0"],"gpu_memory_bytes":6291456}
        {"time":"2026-11-20T21:00:00.000Z","event":"attempt-spawned","run":"r1","task":"train","attempt":1,"pid":4711}
        {"time":"2026-11-20T21:00:01.000Z","event":"progress","run":"r1","task":"train","progress":0.5,"phase":null,"loss":null,"accuracy":null}
        {"time":"2026-11-20T21:00:02.000Z","event":"attempt-finished","run":"r1","task":"train","attempt":1,"outcome":"out-of-memory","peak_memory_bytes":67108864,"peak_gpu_memory_bytes":null,"log":"/state/runs/r1/logs/train.1.log"}
        {"time":"2026-11-20T21:00:02.000Z","event":"retry-planned","run":"r1","task":"train","not_before":"2026-11-20T21:00:03.000Z"}
        {"time":"2026-11-20T21:00:03.000Z","event":"attempt-started","run":"r1","task":"train","attempt":2,"node":"box","devices":[],"gpu_memory_bytes":0}
        {"time":"2026-11-20T21:00:04.000Z","event":"attempt-finished","run":"r1","task":"train","attempt":2,"outcome":"exited:1","peak_memory_bytes":67108864,"peak_gpu_memory_bytes":null,"log":"/state/runs/r1/logs/train.2.log"}
        {"time":"2026-11-20T21:00:04.000Z","event":"task-failed","run":"r1","task":"train"}
        {"time":"2026-11-20T21:00:04.000Z","event":"stop-requested","run":"r1","reason":"task-failed"}
        {"time":"2026-11-20T21:00:04.000Z","event":"task-skipped","run":"r1","task":"best","because":"train"}
        {"time":"2026-11-20T21:00:04.000Z","event":"run-finished","run":"r1","state":"failed"}
        "#);
    }

    #[test]
    fn every_line_is_an_object_with_time_event_and_run() {
        for line in streamed().lines() {
            let object: Value = serde_json::from_str(line).expect("a JSON value");
            assert!(object["time"].is_string() && object["event"].is_string() && object["run"] == "r1", "{line}");
        }
    }

    #[test]
    fn a_reader_that_goes_away_does_not_stop_the_run() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let mut stream = Stream::new(Box::new(Closed), PathBuf::new());
        let mut scene = Scene::chain(&["train"]);
        scene.tell(&mut stream, 0, started(0, 1));
        assert!(stream.closed);
        scene.tell(&mut stream, 1, finished(0, 0));
    }
}
