//! Order rules: in which order tasks are placed.
//!
//! Each rule gives every task a key; of the tasks whose predecessors are placed, the one with the largest key comes
//! next, and among equal keys the one with the larger `priority`, then the one that the file names first. Does not
//! know places.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::instance::{Choice, DeviceNeed, Instance, Kind};
use crate::fleet::{DeviceId, NodeId};
use crate::graph::TaskId;
use crate::timing::Timing;
use crate::units::Share;

/// An order rule by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OrderRule {
    /// In the order of the file.
    Fifo,
    /// The shortest first.
    ShortestFirst,
    /// The longest first.
    LongestFirst,
    /// The largest `priority` first; a task gains one point each time ten others were taken while it waited.
    Priority,
    /// The longest way to the end first: the upward rank. Source: HEFT, Topcuoglu et al., 2002.
    CriticalPath,
    /// The least slack first, then the longest way to the end.
    LeastSlack,
    /// The most direct successors first, then the longest way to the end.
    MostSuccessors,
    /// The most work for what it holds first: how fast a task is done in each place where it may run, summed up, over
    /// the part of that place that it holds while it runs.
    Efficiency,
    /// In the order of the file; those that may be suspended take turns at the device that they share.
    TimeSlice,
}

/// So many tasks taken before it raise a waiting task's priority by one, so that a low priority only waits, never
/// starves.
const AGEING: i128 = 10;

impl OrderRule {
    /// Every rule with its name on the command line.
    pub const ALL: [(&'static str, Self); 9] = [
        ("fifo", Self::Fifo),
        ("sjf", Self::ShortestFirst),
        ("ljf", Self::LongestFirst),
        ("priority", Self::Priority),
        ("critical-path", Self::CriticalPath),
        ("least-slack", Self::LeastSlack),
        ("most-successors", Self::MostSuccessors),
        ("efficiency", Self::Efficiency),
        ("time-slice", Self::TimeSlice),
    ];

    /// Returns all tasks, each after those it waits for.
    pub(super) fn order(self, instance: &Instance<'_>, timing: &Timing) -> Vec<TaskId> {
        let rank = match self {
            Self::CriticalPath | Self::LeastSlack | Self::MostSuccessors => upward_rank(instance),
            Self::Fifo | Self::ShortestFirst | Self::LongestFirst | Self::Priority => Vec::new(),
            Self::Efficiency | Self::TimeSlice => Vec::new(),
        };
        let efficiency = if self == Self::Efficiency { efficiencies(instance) } else { Vec::new() };
        let key = |task: TaskId, taken: usize| -> (i128, i128) {
            let i = task.index();
            match self {
                Self::Fifo | Self::TimeSlice => (-i128::from(task.0), 0),
                Self::ShortestFirst => (-i128::from(timing.duration[i].0), 0),
                Self::LongestFirst => (i128::from(timing.duration[i].0), 0),
                Self::Priority => (i128::from(instance.priority[i]) * AGEING - taken as i128, 0),
                Self::CriticalPath => (i128::from(rank[i]), 0),
                Self::LeastSlack => (-i128::from(timing.slack(task).0), i128::from(rank[i])),
                Self::Efficiency => (efficiency[instance.kind[i] as usize], 0),
                Self::MostSuccessors => (instance.graph.after.of(task).len() as i128, i128::from(rank[i])),
            }
        };
        by_key(instance, key)
    }
}

/// Takes tasks in a topological order, always the one with the largest key among those that are ready. `key` is asked
/// once for each task, when it becomes ready, with the number of tasks taken before.
pub(super) fn by_key<K: Ord>(instance: &Instance<'_>, key: impl Fn(TaskId, usize) -> K) -> Vec<TaskId> {
    let graph = instance.graph;
    let mut waiting: Vec<_> = graph.ids().map(|task| graph.before.of(task).len()).collect();
    let entry = |task: TaskId, taken| (key(task, taken), instance.priority[task.index()], Reverse(task));
    let ready = graph.ids().filter(|task| waiting[task.index()] == 0);
    let mut ready: BinaryHeap<_> = ready.map(|task| entry(task, 0)).collect();
    let mut order = Vec::with_capacity(graph.len());
    while let Some((_, _, Reverse(task))) = ready.pop() {
        order.push(task);
        for edge in graph.after.of(task) {
            let left = &mut waiting[edge.task.index()];
            *left -= 1;
            if *left == 0 {
                ready.push(entry(edge.task, order.len()));
            }
        }
    }
    order
}

/// Returns how much work each kind does for what it holds, `[n_kinds]`: Σ f(t,c) / e over all places c where it may run,
/// f one over the milliseconds that it takes there, e the largest part that it holds of anything the place has; in parts
/// of 2^60. What takes no time or holds nothing comes first.
fn efficiencies(instance: &Instance<'_>) -> Vec<i128> {
    /// Parts are counted in thousandths, and nothing holds less than one.
    const WHOLE: u128 = 1_000;
    let part = |need: u64, of: u64| (u128::from(need) * WHOLE).checked_div(of.into()).unwrap_or(0);
    let held = |choice: &Choice, node: NodeId, devices: &[DeviceId]| {
        let offers = &instance.nodes[node.index()].capacity;
        let of_node = choice.need.iter().zip(offers).map(|(need, offer)| part(*need, *offer)).max().unwrap_or(0);
        let memory = devices.first().map_or(0, |device| instance.devices[device.index()].memory.0);
        let of_devices = match choice.per_device {
            _ if choice.gang == 0 => 0,
            DeviceNeed::Exclusive => WHOLE * u128::from(choice.gang),
            DeviceNeed::Part { memory: need, share } => part(need, memory).max(part(share, Share::WHOLE.0.into())),
        };
        of_node.max(of_devices).max(1)
    };
    let of_choice = |choice: &Choice| {
        let places = instance.groups[choice.group as usize].members.iter();
        let each = places.map(|(node, devices)| {
            let effort = held(choice, *node, devices) * u128::from(choice.duration().max(1));
            (devices.len().max(1) as u128) * ((1 << 60) * WHOLE / effort)
        });
        each.fold(0, u128::saturating_add)
    };
    let of_kind = |kind: &Kind| kind.choices.iter().map(of_choice).fold(0, u128::saturating_add);
    instance.kinds.iter().map(|kind| i128::try_from(of_kind(kind)).unwrap_or(i128::MAX)).collect()
}

/// Returns the longest way from the start of each task to the end, `[n_tasks]` by TaskId in thousandths of a millisecond,
/// each task at its mean duration over all places and each edge at its mean time over all pairs of nodes; a node makes a
/// pair with itself too, in which data takes no time.
pub(super) fn upward_rank(instance: &Instance<'_>) -> Vec<u64> {
    rank_with(instance, 1.0)
}

/// Returns the order of the longest way to the end with each edge at so many times its mean time.
pub(super) fn by_rank_with(instance: &Instance<'_>, edges: f64) -> Vec<TaskId> {
    let rank = rank_with(instance, edges);
    by_key(instance, |task, _| rank[task.index()])
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates; a mean need not be exact")]
fn rank_with(instance: &Instance<'_>, edges: f64) -> Vec<u64> {
    let graph = instance.graph;
    let mean: Vec<_> = instance.kinds.iter().map(|kind| mean_duration(instance, kind)).collect();
    // Milliseconds per byte; 0 where no data costs time. The table has each pair of different nodes twice.
    let nodes = to_f64(instance.nodes.len() as u64);
    let slowness = instance.bandwidth.iter().map(|link| link.map_or(0.0, |link| 1e3 / to_f64(link.0.max(1))));
    let slowness = edges * slowness.sum::<f64>() / (nodes * (nodes + 1.0)).max(1.0);
    let mut rank = vec![0.0_f64; graph.len()];
    for &task in graph.order.iter().rev() {
        let way = |edge: &crate::graph::Edge| rank[edge.task.index()] + to_f64(edge.data.0) * slowness;
        let rest = graph.after.of(task).iter().map(way).fold(0.0, f64::max);
        rank[task.index()] = rest + mean[instance.kind[task.index()] as usize];
    }
    rank.into_iter().map(|rank| (rank * 1e3) as u64).collect()
}

#[expect(clippy::cast_precision_loss, reason = "a mean need not be exact")]
fn to_f64(value: u64) -> f64 {
    value as f64
}

/// Mean over every place of every choice, in milliseconds.
fn mean_duration(instance: &Instance<'_>, kind: &Kind) -> f64 {
    let places = |group: u32| instance.groups[group as usize].members.iter().map(|(_, devices)| devices.len().max(1));
    let weighed =
        kind.choices.iter().map(|choice| (to_f64(choice.duration()), places(choice.group).sum::<usize>() as u64));
    let (sum, count) = weighed.fold((0.0, 0), |(sum, count), (time, n)| (sum + time * to_f64(n), count + n));
    sum / to_f64(count.max(1))
}
