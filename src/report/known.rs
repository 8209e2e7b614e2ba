//! A run as observers see it, put together again from its record: for those who look from outside.
//!
//! What the record does not hold stays empty: what tasks do, how fast devices are.

use std::collections::BTreeSet;

use crate::fleet::{Device, DeviceId, Fleet, Node, NodeId};
use crate::graph::{Edge, Rows, Task, TaskGraph, TaskId};
use crate::plan::{Placed, Plan};
use crate::run::observer::View;
use crate::run::state::RunState;
use crate::run::store::Header;
use crate::units::{Bytes, Millis};

/// Tasks, fleet and plan of a recorded run.
#[derive(Clone, Debug)]
pub struct Known {
    /// The run's id.
    pub run: String,
    /// Its tasks with their names and what they come after.
    pub graph: TaskGraph,
    /// Places that the plan names.
    pub fleet: Fleet,
    /// When and where each task was to run.
    pub plan: Plan,
    /// When the run was first started, ms since the Unix epoch.
    pub started: Millis,
}

impl Known {
    /// Puts a run together. Edges that would make a circle, which no version records, are left out.
    #[must_use]
    pub fn of(header: &Header) -> Self {
        let places: BTreeSet<&str> = header.tasks.iter().flat_map(|task| &task.places).map(String::as_str).collect();
        let node_of = |place: &str| place.split('/').next().unwrap_or(place).to_owned();
        let mut names: Vec<String> = places.iter().map(|place| node_of(place)).collect();
        names.push(header.orchestrator.host.clone());
        names.sort_unstable();
        names.dedup();
        let node = |place: &str| {
            let at = names.iter().position(|name| *name == node_of(place)).unwrap_or(0);
            NodeId(u32::try_from(at).unwrap_or(0))
        };
        let devices: Vec<Device> = places
            .iter()
            .filter(|place| !place.ends_with("/cpu"))
            .map(|place| Device { id: (*place).to_owned(), node: node(place), ..Device::default() })
            .collect();
        let device = |place: &String| devices.iter().position(|device| device.id == *place);
        let placed = header.tasks.iter().map(|task| Placed {
            mode: 0,
            node: task.places.first().map_or(NodeId(0), |place| node(place)),
            devices: task.places.iter().filter_map(device).map(|at| DeviceId(u32::try_from(at).unwrap_or(0))).collect(),
            start: task.planned.0,
            finish: task.planned.1,
            segments: task.pieces.clone(),
        });
        let placed: Vec<Placed> = placed.collect();
        let makespan = placed.iter().map(|placed| placed.finish).max().unwrap_or_default();
        let graph = graph(header);
        let rank = (0..u32::try_from(placed.len()).unwrap_or(u32::MAX)).collect();
        let plan = Plan { placed, rank, makespan, lower_bound: Millis::ZERO, ..Plan::default() };
        let nodes = names.into_iter().map(|name| Node { name, ..Node::default() }).collect();
        let fleet = Fleet { name: header.orchestrator.host.clone(), nodes, devices, ..Fleet::default() };
        Self { run: header.id.clone(), graph, fleet, plan, started: header.started }
    }

    /// Returns what observers look at.
    #[must_use]
    pub fn view<'a>(&'a self, state: &'a RunState) -> View<'a> {
        let Self { run, graph, fleet, plan, started } = self;
        View { run, graph, fleet, plan, state, started: *started }
    }
}

fn graph(header: &Header) -> TaskGraph {
    let n = header.tasks.len();
    let mut before: Vec<Vec<TaskId>> = header.tasks.iter().map(|task| task.after.clone()).collect();
    before.iter_mut().for_each(|row| row.retain(|task| task.index() < n));
    let mut after: Vec<Vec<TaskId>> = vec![Vec::new(); n];
    let ids = || (0..).map(TaskId).take(n);
    for (task, row) in ids().zip(&before) {
        row.iter().for_each(|other| after[other.index()].push(task));
    }
    let mut open: Vec<usize> = before.iter().map(Vec::len).collect();
    let mut order: Vec<TaskId> = ids().filter(|task| open[task.index()] == 0).collect();
    let mut next = 0;
    while let Some(task) = order.get(next).copied() {
        next += 1;
        for other in &after[task.index()] {
            open[other.index()] -= 1;
            if open[other.index()] == 0 {
                order.push(*other);
            }
        }
    }
    if order.len() < n {
        before = vec![Vec::new(); n];
        after = vec![Vec::new(); n];
        order = ids().collect();
    }
    let mut stages: Vec<&str> = Vec::new();
    let task =
        |task: &'_ crate::run::store::TaskHeader, stage| Task { name: task.name.clone(), stage, ..Task::default() };
    let mut tasks = Vec::with_capacity(n);
    for header in &header.tasks {
        let stage = stages.iter().position(|stage| *stage == header.stage).unwrap_or_else(|| {
            stages.push(&header.stage);
            stages.len() - 1
        });
        tasks.push(task(header, stage));
    }
    TaskGraph { tasks, before: rows(&before), after: rows(&after), order }
}

fn rows(of: &[Vec<TaskId>]) -> Rows {
    let mut rows = Rows { offsets: vec![0], edges: Vec::new() };
    for row in of {
        let mut row = row.clone();
        row.sort_unstable();
        row.dedup();
        rows.edges.extend(row.into_iter().map(|task| Edge { task, data: Bytes::ZERO }));
        rows.offsets.push(u32::try_from(rows.edges.len()).unwrap_or(u32::MAX));
    }
    rows
}
