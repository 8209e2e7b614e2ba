//! A planning problem in whole numbers: what every planner works on.
//!
//! Equal nodes and equal devices share a class, and tasks with equal modes share a kind, so that the problem stays
//! small for a sweep of thousands of tasks on a large fleet. Does not know how a plan is found.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

use super::bound::Area;
use crate::fleet::{DeviceId, NodeId, Spot};
use crate::graph::{Rows, TaskGraph, TaskId};
use crate::spec::{Mode, Stage};
use crate::timing::{Load, LoadMatrix};
use crate::units::{Bandwidth, Bytes, Millis};

/// A planning problem.
#[derive(Debug)]
pub struct Instance<'a> {
    /// The tasks and their precedence.
    pub graph: &'a TaskGraph,
    /// `[n_resources]`: what a node's amounts are of: `CPUs`, `host memory`, then custom resources by name.
    pub resources: Vec<String>,
    /// `[n_nodes]`, by NodeId.
    pub nodes: Vec<NodeRoom>,
    /// `[n_devices]`, by DeviceId.
    pub devices: Vec<DeviceRoom>,
    /// `[n_nodes * n_nodes]`: the link between two nodes; `None` where data costs no time. Empty for a single node.
    pub bandwidth: Vec<Option<Bandwidth>>,
    /// Sets of places that are alike for a choice.
    pub groups: Vec<Group>,
    /// What tasks can choose between, shared by tasks that have the same modes.
    pub kinds: Vec<Kind>,
    /// `[n_tasks]`, by TaskId: index into `kinds`.
    pub kind: Vec<u32>,
    /// `[n_tasks]`, by TaskId: the stage's priority.
    pub priority: Vec<i64>,
    /// `[n_budgets]`: names and limits of what may be spent over the whole plan.
    pub budgets: Vec<(String, u64)>,
    /// What its bounds rest on, once somebody has asked for them.
    pub(super) areas: OnceLock<Vec<Area>>,
}

/// What a node offers.
#[derive(Clone, Debug)]
pub struct NodeRoom {
    /// `[n_resources]`, in the units of the pipeline: thousandths of a CPU, bytes, pieces.
    pub capacity: Vec<u64>,
    /// Equal nodes have equal classes.
    pub class: u32,
}

/// What a device offers.
#[derive(Clone, Copy, Debug)]
pub struct DeviceRoom {
    /// The host it sits in.
    pub node: NodeId,
    /// Memory that a plan may count on.
    pub memory: Bytes,
    /// Equal devices have equal classes.
    pub class: u32,
    /// Where in its host it sits.
    pub spot: Spot,
    /// How many devices of its host are close to it in each way: whoever wants one leaves those together that are joined.
    pub beside: [u32; 3],
    /// What it takes while it idles and while all of it is in use, in watts; zero where that is not known.
    pub watts: (u64, u64),
}

/// Places that are alike for a choice: nodes of one class, each with the devices that come into question.
#[derive(Clone, Debug)]
pub struct Group {
    /// The nodes in ascending order, each with its devices, ascending; no devices for a choice that runs on the host.
    pub members: Vec<(NodeId, Vec<DeviceId>)>,
}

/// What a task can choose between.
#[derive(Clone, Debug)]
pub struct Kind {
    /// At least one, by mode and then by duration.
    pub choices: Vec<Choice>,
}

/// One mode on one group of places.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Index into the stage's modes.
    pub mode: u32,
    /// Index into the instance's groups.
    pub group: u32,
    /// How long the task takes: on its slowest device.
    pub load: Load,
    /// `[n_resources]`: what it holds of the node.
    pub need: Arc<[u64]>,
    /// How many devices it holds, all of one node; 0 on the host.
    pub gang: u32,
    /// What it holds of each device.
    pub per_device: DeviceNeed,
    /// `[n_budgets]`: what it spends.
    pub spend: Vec<u64>,
    /// The share of its device, in millionths, for which it may take turns with others.
    pub turn: Option<u64>,
}

/// What a task holds of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceNeed {
    /// All of it.
    Exclusive,
    /// Memory and a share of its compute.
    Part {
        /// Device memory, in bytes.
        memory: u64,
        /// Share of the compute, in millionths.
        share: u64,
    },
}

impl Choice {
    /// Returns how long it takes, in milliseconds.
    #[must_use]
    pub const fn duration(&self) -> u64 {
        self.load.time.0
    }
}

impl Kind {
    /// Returns the shortest duration over all choices.
    #[must_use]
    pub fn shortest(&self) -> Millis {
        self.choices.iter().map(|choice| choice.load.time).min().unwrap_or(Millis::ZERO)
    }
}

impl Instance<'_> {
    /// Returns how many tasks there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kind.len()
    }

    /// Whether there is no task at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kind.is_empty()
    }

    /// Whether some task may take turns with others at a device.
    #[must_use]
    pub fn takes_turns(&self) -> bool {
        self.kinds.iter().any(|kind| kind.choices.iter().any(|choice| choice.turn.is_some()))
    }

    /// Returns the same problem with what is taken in turns left open: who takes turns holds memory and no share.
    pub(super) fn without_shares_of_turns(&self) -> Self {
        let open = |choice: &Choice| match choice.per_device {
            // At least one byte, so that it keeps off a device that somebody has to himself.
            DeviceNeed::Part { memory, .. } if choice.turn.is_some() => {
                Choice { per_device: DeviceNeed::Part { memory: memory.max(1), share: 0 }, ..choice.clone() }
            }
            DeviceNeed::Part { .. } | DeviceNeed::Exclusive => choice.clone(),
        };
        Self {
            graph: self.graph,
            resources: self.resources.clone(),
            nodes: self.nodes.clone(),
            devices: self.devices.clone(),
            bandwidth: self.bandwidth.clone(),
            groups: self.groups.clone(),
            kinds: self.kinds.iter().map(|kind| Kind { choices: kind.choices.iter().map(open).collect() }).collect(),
            kind: self.kind.clone(),
            priority: self.priority.clone(),
            budgets: self.budgets.clone(),
            areas: OnceLock::new(),
        }
    }

    /// Returns what a task can choose between.
    #[must_use]
    pub fn choices(&self, task: TaskId) -> &[Choice] {
        &self.kinds[self.kind[task.index()] as usize].choices
    }

    /// Returns the shortest duration of every task, `[n_tasks]` by TaskId.
    #[must_use]
    pub fn shortest(&self) -> Vec<Millis> {
        let by_kind: Vec<_> = self.kinds.iter().map(Kind::shortest).collect();
        self.kind.iter().map(|kind| by_kind[*kind as usize]).collect()
    }

    /// Returns a time by which any plan without idle waiting has ended, in milliseconds: everything one after the other.
    #[must_use]
    pub fn horizon(&self) -> u128 {
        let longest = |kind: &Kind| kind.choices.iter().map(Choice::duration).max().unwrap_or(0);
        let by_kind: Vec<_> = self.kinds.iter().map(|kind| u128::from(longest(kind))).collect();
        let work: u128 = self.kind.iter().map(|kind| by_kind[*kind as usize]).sum();
        let slowest = self.bandwidth.iter().flatten().min();
        let edges = self.graph.before.edges.iter().map(|edge| edge.data);
        let moves = slowest.map_or(0, |link| edges.map(|data| u128::from(link.time_for(data).0)).sum());
        work + moves
    }

    /// Returns how long data takes from one node to another: nothing within a node or where no link is declared, as on a
    /// file system that both see.
    #[must_use]
    pub fn lag(&self, data: Bytes, from: NodeId, to: NodeId) -> Millis {
        if from == to || data == Bytes::ZERO || self.bandwidth.is_empty() {
            return Millis::ZERO;
        }
        let link = self.bandwidth[from.index() * self.nodes.len() + to.index()];
        link.map_or(Millis::ZERO, |link| link.time_for(data))
    }

    /// Whether data can cost time on some edge at all.
    #[must_use]
    pub fn has_lags(&self) -> bool {
        let carries = |rows: &Rows| rows.edges.iter().any(|edge| edge.data > Bytes::ZERO);
        self.bandwidth.iter().any(Option::is_some) && carries(&self.graph.before)
    }

    /// Returns the greatest common divisor of all durations, in milliseconds; at least 1.
    pub(super) fn tick(&self) -> u64 {
        let durations = self.kinds.iter().flat_map(|kind| kind.choices.iter().map(Choice::duration));
        durations.fold(0, gcd).max(1)
    }

    /// Returns the first instant from `time` on at which a plan can end in which nothing waits without need: a multiple
    /// of the tick, unless data on its way takes time.
    pub(super) fn rounded_up(&self, time: Millis) -> Millis {
        if self.has_lags() { time } else { Millis(time.0.checked_next_multiple_of(self.tick()).unwrap_or(time.0)) }
    }

    /// Returns `L[device][task]` with a row for each device, then for each host that a task can run on without one.
    #[must_use]
    pub fn load_matrix(&self, fleet: &crate::fleet::Fleet) -> LoadMatrix {
        let n_devices = self.devices.len();
        let mut by_kind = vec![vec![None::<Millis>; self.kinds.len()]; n_devices + self.nodes.len()];
        for (kind, choices) in self.kinds.iter().enumerate() {
            for choice in &choices.choices {
                for (node, devices) in &self.groups[choice.group as usize].members {
                    let host = devices.is_empty().then_some(n_devices + node.index());
                    for row in devices.iter().map(|device| device.index()).chain(host) {
                        let best = by_kind[row][kind].unwrap_or(Millis(u64::MAX));
                        by_kind[row][kind] = Some(best.min(choice.load.time));
                    }
                }
            }
        }
        let names = fleet.devices.iter().map(|device| device.id.clone());
        let names = names.chain(fleet.nodes.iter().map(|node| format!("{}/cpu", node.name)));
        let used = |row: usize, times: &[Option<Millis>]| row < n_devices || times.iter().any(Option::is_some);
        let rows = names.zip(by_kind).enumerate().filter(|(row, (_, times))| used(*row, times));
        let expand = |times: Vec<Option<Millis>>| self.kind.iter().map(|kind| times[*kind as usize]).collect();
        let (rows, times) = rows.map(|(_, (name, times))| (name, expand(times))).unzip();
        LoadMatrix { rows, times }
    }
}

/// Returns the greatest common divisor; of 0 and a number that number.
pub(super) const fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Gives equal stages one number: those whose modes hold, take and spend the same.
pub(super) struct Kinds<'a>(HashMap<Alike<'a>, u32>);

impl<'a> Kinds<'a> {
    /// Makes room for so many.
    pub(super) fn with_capacity(most: usize) -> Self {
        Self(HashMap::with_capacity(most))
    }

    /// Returns the number of a stage's kind, and whether it is new.
    pub(super) fn number(&mut self, stage: &'a Stage) -> (u32, bool) {
        let next = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        let number = *self.0.entry(Alike(&stage.modes)).or_insert(next);
        (number, number == next)
    }
}

/// Modes by what counts for a plan.
struct Alike<'a>(&'a [Mode]);

impl<'a> Alike<'a> {
    fn counts(&self) -> impl Iterator<Item = impl Hash + PartialEq + use<'a>> + use<'a> {
        self.0.iter().map(|mode| (&mode.resources, &mode.duration, &mode.spend, mode.fallback))
    }
}

impl PartialEq for Alike<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.counts().eq(other.counts())
    }
}

impl Eq for Alike<'_> {}

impl Hash for Alike<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.counts().for_each(|counts| counts.hash(state));
    }
}
