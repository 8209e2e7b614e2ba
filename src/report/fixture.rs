//! A small run for the tests of views: tasks in a chain or side by side, one GPU, a fixed clock.

use crate::fleet::{Device, Fleet, Node, NodeId};
use crate::graph::{Edge, Rows, Task, TaskGraph, TaskId};
use crate::plan::{Placed, Plan};
use crate::run::event::{Event, Place, Recorded, Role, RunEnd};
use crate::run::observer::{Observer, View};
use crate::run::outcome::{Outcome, Usage};
use crate::run::state::RunState;
use crate::units::{Bytes, Cpus, Millis, Speed};

/// 2026-11-20T21:00:00Z in ms since the Unix epoch.
const EPOCH: u64 = 1_795_208_400_000;

pub(crate) struct Scene {
    pub(crate) graph: TaskGraph,
    pub(crate) fleet: Fleet,
    pub(crate) plan: Plan,
    pub(crate) state: RunState,
}

impl Scene {
    /// Tasks of 10 s each, one after the other.
    pub(crate) fn chain(names: &[&str]) -> Self {
        Self::new(names, |i| if i == 0 { vec![] } else { vec![i - 1] })
    }

    /// Tasks of 10 s each, all at once.
    pub(crate) fn side_by_side(names: &[&str]) -> Self {
        Self::new(names, |_| vec![])
    }

    /// A chain whose second task fails twice on the GPU, and with it the run.
    pub(crate) fn failed(names: &[&str]) -> Self {
        let mut scene = Self::chain(names);
        for (at, event) in [
            (0, started(0, 1)),
            (4, finished(0, 0)),
            (5, started_on_gpu(1, 1)),
            (9, finished(1, 3)),
            (10, started_on_gpu(1, 2)),
            (12, finished(1, 3)),
            (12, failed(1)),
            (12, over(RunEnd::Failed)),
        ] {
            scene.apply(at, event);
        }
        scene
    }

    fn new(names: &[&str], before: impl Fn(usize) -> Vec<usize>) -> Self {
        let n = names.len();
        let mut stages: Vec<&str> = Vec::new();
        let mut tasks = Vec::new();
        for name in names {
            let stage = crate::report::summary::stage_of(name);
            if stages.last() != Some(&stage) {
                stages.push(stage);
            }
            tasks.push(Task { name: (*name).to_owned(), stage: stages.len() - 1, ..Task::default() });
        }
        let rows = |of: &dyn Fn(usize) -> Vec<usize>| {
            let mut rows = Rows { offsets: vec![0], edges: Vec::new() };
            for i in 0..n {
                rows.edges.extend(of(i).into_iter().map(|j| Edge { task: id(j), data: Bytes::ZERO }));
                rows.offsets.push(u32::try_from(rows.edges.len()).unwrap());
            }
            rows
        };
        let graph = TaskGraph {
            tasks,
            before: rows(&before),
            after: rows(&|i| (0..n).filter(|j| before(*j).contains(&i)).collect()),
            order: (0..n).map(id).collect(),
        };
        let depth = |i: usize| if before(i).is_empty() { 0 } else { i as u64 };
        let placed: Vec<Placed> = (0..n)
            .map(|i| Placed {
                mode: 0,
                node: NodeId(0),
                devices: vec![],
                start: Millis(10_000 * depth(i)),
                finish: Millis(10_000 * (depth(i) + 1)),
                segments: vec![],
            })
            .collect();
        let makespan = placed.iter().map(|placed| placed.finish).max().unwrap_or_default();
        let plan = Plan {
            policy: "auto".into(),
            placed,
            rank: (0..n).map(|i| u32::try_from(i).unwrap()).collect(),
            makespan,
            lower_bound: makespan,
            bound_by: "critical path",
            ..Plan::default()
        };
        let node =
            Node { name: "box".into(), cpus: Cpus(8_000), memory: Bytes::GIB, speed: Speed::ONE, ..Node::default() };
        let device = Device { id: "box/gpu0".into(), model: "H100".into(), memory: Bytes::GIB, ..Device::default() };
        let fleet = Fleet { name: "box".into(), nodes: vec![node], devices: vec![device], ..Fleet::default() };
        Self { graph, fleet, plan, state: RunState::new(n) }
    }

    pub(crate) fn view(&self) -> View<'_> {
        let Self { graph, fleet, plan, state } = self;
        View { run: "r1", graph, fleet, plan, state, started: self.time(0) }
    }

    /// Seconds of the scene's clock as ms since the Unix epoch.
    pub(crate) fn time(&self, seconds: u64) -> Millis {
        Millis(EPOCH + 1_000 * seconds)
    }

    pub(crate) fn apply(&mut self, seconds: u64, event: Event) -> Recorded {
        let recorded = Recorded { at: self.time(seconds), event };
        self.state.apply(&recorded).unwrap();
        recorded
    }

    pub(crate) fn tell(&mut self, observer: &mut dyn Observer, seconds: u64, event: Event) {
        let recorded = self.apply(seconds, event);
        observer.recorded(self.view(), &recorded);
    }
}

pub(crate) fn id(i: usize) -> TaskId {
    TaskId(u32::try_from(i).unwrap())
}

pub(crate) fn started(task: usize, number: u32) -> Event {
    let place = Place { node: "box".into(), ..Place::default() };
    Event::AttemptStarted { task: id(task), number, place }
}

pub(crate) fn started_on_gpu(task: usize, number: u32) -> Event {
    let place =
        Place { node: "box".into(), devices: vec!["box/gpu0".into()], gpu_memory: Bytes(6 << 20), ..Place::default() };
    Event::AttemptStarted { task: id(task), number, place }
}

/// Ends the attempt with an exit code.
pub(crate) fn finished(task: usize, code: i32) -> Event {
    ended(task, if code == 0 { Outcome::Succeeded } else { Outcome::Exited { code } })
}

pub(crate) fn ended(task: usize, outcome: Outcome) -> Event {
    let usage = Usage { peak_memory: Some(Bytes(64 << 20)), ..Usage::default() };
    Event::AttemptFinished { task: id(task), role: Role::Main, outcome, usage, logged: true }
}

pub(crate) fn retry(task: usize, not_before: Millis) -> Event {
    Event::RetryPlanned { task: id(task), not_before, raise: None }
}

pub(crate) fn failed(task: usize) -> Event {
    Event::TaskFailed { task: id(task), lacks: None }
}

pub(crate) fn skipped(task: usize, because: usize) -> Event {
    Event::TaskSkipped { task: id(task), because: Some(id(because)) }
}

pub(crate) fn over(end: RunEnd) -> Event {
    Event::RunFinished { end }
}

/// A writer whose text can be read afterwards; clones share it.
#[derive(Clone, Default)]
pub(crate) struct Paper(std::rc::Rc<std::cell::RefCell<Vec<u8>>>);

impl Paper {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.borrow().clone()).unwrap()
    }
}

impl std::io::Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
