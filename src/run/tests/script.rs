//! An engine that plays a script on a clock that jumps.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::graph::{TaskGraph, TaskId};
use crate::run::cache::restore::Found;
use crate::run::cache::verdict::Cached;
use crate::run::engine::{Ended, Engine, Launch, Report, Stop};
use crate::run::event::{Process, Role};
use crate::run::outcome::{Outcome, Usage};
use crate::units::Millis;

/// What every attempt of a task does, by the task's name.
#[derive(Clone, Debug, Default)]
pub(super) struct Script {
    /// How long an attempt takes, ms; `TASK.NUMBER` for that one alone.
    pub(super) takes: HashMap<String, u64>,
    /// The first attempts of these tasks fail, so many.
    pub(super) failures: HashMap<String, u32>,
    /// These fail besides, as `TASK.NUMBER`.
    pub(super) fails: BTreeSet<String>,
    /// How long one goes on that is asked to end, and not killed, ms.
    pub(super) lingers: u64,
    /// How long the driver takes to answer, ms.
    pub(super) look_takes: u64,
    /// So many looks at the disk find it full.
    pub(super) full_looks: u32,
    /// So do those between these times.
    pub(super) full_from: Option<(u64, u64)>,
    /// Tasks that are up to date, where that is looked at.
    pub(super) cached: Option<BTreeSet<String>>,
}

/// When an attempt ends, of which task and role, and with what code; without one it is interrupted.
type Running = (Instant, u32, Role, Option<i32>);

/// The outputs of an attempt, and what it writes into each.
type Written = (Vec<(String, PathBuf)>, String);

/// Plays a script.
pub(super) struct Scripted<'a> {
    graph: &'a TaskGraph,
    script: &'a Script,
    /// When each attempt ends, of which task, and its exit code; `None` for one that was stopped.
    running: BinaryHeap<Reverse<Running>>,
    spawned: VecDeque<Report>,
    /// Where those write that have a place of their own, and what.
    writes: HashMap<(u32, Role), Written>,
}

impl<'a> Scripted<'a> {
    pub(super) fn new(graph: &'a TaskGraph, script: &'a Script) -> Self {
        let (running, spawned, writes) = (BinaryHeap::new(), VecDeque::new(), HashMap::new());
        Self { graph, script, running, spawned, writes }
    }

    /// Lets attempts end early that are asked to.
    fn ask(&mut self, how: Stop, which: impl Fn(u32, Role) -> bool) {
        let lingers = if how == Stop::Now { 0 } else { self.script.lingers };
        let soon = Instant::now() + Duration::from_millis(lingers);
        let asked = self.running.drain().map(|Reverse((at, task, role, code))| match which(task, role) {
            true => Reverse((soon.min(at), task, role, if at <= soon { code } else { None })),
            false => Reverse((at, task, role, code)),
        });
        self.running = asked.collect();
    }
}

impl Engine for Scripted<'_> {
    fn start(&mut self, launch: Launch) {
        let name = &self.graph.tasks[launch.task.index()].name;
        let number = launch.marks.iter().find_map(|mark| mark.strip_prefix("TRAINYARD_ATTEMPT=")).unwrap();
        let number: u32 = number.parse().unwrap();
        let own = format!("{name}.{number}");
        let fails = number <= self.script.failures.get(name).copied().unwrap_or(0) || self.script.fails.contains(&own);
        let takes = self.script.takes.get(&own).or_else(|| self.script.takes.get(name)).copied().unwrap_or(10);
        let ends = Instant::now() + Duration::from_millis(takes);
        self.running.push(Reverse((ends, launch.task.0, launch.role, Some(i32::from(fails)))));
        let process = Process { pid: launch.task.0 + 1, started: u64::from(number) };
        self.spawned.push_back(Report::Spawned { task: launch.task, role: launch.role, process });
        if launch.staging.is_some() {
            self.writes.insert((launch.task.0, launch.role), (launch.outputs, own));
        }
    }

    fn adopt(&mut self, launch: Launch, _: Process, _: Millis) {
        self.start(launch);
        self.spawned.pop_back();
    }

    async fn next_report(&mut self) -> Report {
        if let Some(spawned) = self.spawned.pop_front() {
            return spawned;
        }
        let Some(Reverse((at, task, role, code))) = self.running.peek().copied() else {
            return std::future::pending().await;
        };
        sleep_until(at).await;
        self.running.pop();
        let (outputs, text) = self.writes.remove(&(task, role)).unwrap_or_default();
        for (_, path) in outputs {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, &text).unwrap();
        }
        let outcome = match code {
            None => Outcome::Interrupted,
            Some(0) => Outcome::Succeeded,
            Some(code) => Outcome::Exited { code },
        };
        Report::Ended(ended(task, role, outcome))
    }

    fn ready_report(&mut self) -> Option<Report> {
        self.spawned.pop_front()
    }

    fn look_up(&mut self, task: TaskId) -> bool {
        let name = &self.graph.tasks[task.index()].name;
        let is_cached = self.script.cached.as_ref().is_some_and(|cached| cached.contains(name));
        self.spawned.push_back(Report::LookedUp {
            task,
            found: if is_cached { Found::UpToDate(Cached::default()) } else { Found::Runs },
        });
        true
    }

    fn stop(&mut self, how: Stop) {
        self.ask(how, |_, _| true);
    }

    fn suspend(&mut self, _: TaskId, _: Role, _: bool) {}

    fn stop_task(&mut self, wanted: TaskId, which: Role, how: Stop) {
        self.ask(how, |task, role| task == wanted.0 && role == which);
    }
}

fn ended(task: u32, role: Role, outcome: Outcome) -> Ended {
    Ended {
        task: TaskId(task),
        role,
        outcome,
        usage: Usage::default(),
        logged: false,
        traced: false,
        turned_away: false,
        note: None,
    }
}
