//! The relaxed problem of the exact search: places of one class become one pool that is as large as all of them.
//!
//! Variables: a start for each task and one way for each task. Constraints: a task starts after those it waits for have
//! ended (data moves in no time); at every instant the tasks that run hold no more of a pool than it has; what the ways
//! spend stays in the budgets. Objective: the end of the last task. Whatever plan is legal is a solution, so that no plan
//! ends before the best solution; a solution is a plan where its tasks can be dealt out to the places of the pools.
//!
//! Times are counted in the ticks of the instance, or in longer ones where those are too many; starts and durations are
//! then rounded down. Amounts are cut to 20 bits: what is asked for is rounded down and what is offered up. Both keep
//! every plan a solution: who runs in a tick after rounding did run at the end of that tick before. Does not know who
//! solves it.

use std::collections::BTreeSet;

use super::super::instance::{Choice, DeviceNeed, Group, Instance, gcd};
use super::super::pieces;
use super::split;
use crate::fleet::NodeId;
use crate::units::Share;

/// The relaxed problem.
pub(super) struct Pools {
    /// A tick, in milliseconds.
    pub(super) tick: u64,
    /// Whether all durations are whole ticks.
    pub(super) is_exact: bool,
    /// `[n_tasks][n_choices]`: durations in ticks.
    pub(super) ways: Vec<Vec<i32>>,
    /// What tasks share.
    pub(super) pools: Vec<Pool>,
    /// What tasks spend together.
    pub(super) budgets: Vec<Pool>,
}

/// An amount that tasks share.
pub(super) struct Pool {
    /// How much there is.
    pub(super) capacity: i32,
    /// Who takes how much: task, choice, amount; only amounts above 0.
    pub(super) uses: Vec<(usize, usize, i32)>,
}

/// Amounts are counted in at most so many parts.
const PARTS: u128 = 1 << 20;
/// Ticks that a plan may have, so that sums of two instants fit into 32 bits.
const TICKS: u64 = 1 << 28;
/// Ticks that it may have where its shortest task is a smaller part of it: whoever is moved behind others goes by its own
/// duration again and again, in one step of the solver, which nothing ends. Ways of milliseconds then take no time.
const TICKS_MIXED: u64 = 1 << 14;
/// Ticks that it may have together with all ways that are not taken, which lie behind its end one after the other.
pub(super) const BEHIND: u64 = 1 << 30;

impl Pools {
    /// Relaxes an instance of which a plan with this makespan is known.
    pub(super) fn new(instance: &Instance<'_>, makespan: u64) -> Self {
        let whole = tick(instance);
        let several = instance.graph.ids().map(|task| instance.choices(task)).filter(|choices| choices.len() > 1);
        let ways = several.flatten().map(|choice| u128::from(choice.duration().min(makespan)));
        let behind = (u128::from(makespan) + ways.sum::<u128>()).div_ceil(BEHIND.into());
        let all = instance.kinds.iter().flat_map(|kind| &kind.choices).map(Choice::duration);
        let shortest = all.filter(|duration| *duration > 0).min().unwrap_or(makespan);
        let ticks = if makespan / shortest.max(1) > TICKS_MIXED { TICKS_MIXED } else { TICKS };
        let tick = whole.max(makespan.div_ceil(ticks)).max(u64::try_from(behind).unwrap_or(u64::MAX));
        // A way that takes longer than the whole plan is never taken.
        let most = makespan / tick + 1;
        let ticks = |choice: &Choice| i32::try_from((choice.duration() / tick).min(most)).unwrap_or(i32::MAX);
        let ways = instance.graph.ids().map(|task| instance.choices(task).iter().map(ticks).collect()).collect();
        let is_exact = tick == whole;
        let mut relaxed = Self { tick, is_exact, ways, pools: Vec::new(), budgets: Vec::new() };
        relaxed.add_devices(instance);
        relaxed.add_nodes(instance);
        for (index, (_, limit)) in instance.budgets.iter().enumerate() {
            let spend = |choice: &Choice| Some(u128::from(choice.spend[index]));
            relaxed.budgets.extend(pool(instance, u128::from(*limit), spend));
        }
        relaxed
    }

    /// Memory and compute of devices, once for every set of classes that some choice is confined to.
    fn add_devices(&mut self, instance: &Instance<'_>) {
        let classes = |group: &Group| -> BTreeSet<u32> {
            let devices = group.members.iter().flat_map(|(_, devices)| devices);
            devices.map(|device| instance.devices[device.index()].class).collect()
        };
        let by_group: Vec<_> = instance.groups.iter().map(classes).collect();
        let all: BTreeSet<u32> = by_group.iter().flatten().copied().collect();
        let sets: BTreeSet<_> = by_group.iter().filter(|set| !set.is_empty()).chain([&all]).collect();
        let memory_of =
            |class: u32| instance.devices.iter().find(|device| device.class == class).map(|room| room.memory.0);
        for set in sets {
            let inside = |choice: &Choice| choice.gang > 0 && by_group[choice.group as usize].is_subset(set);
            let rooms = || instance.devices.iter().filter(|device| set.contains(&device.class));
            let amount = |choice: &Choice, of: fn(DeviceNeed, u64) -> u64| {
                let least = by_group[choice.group as usize].iter().filter_map(|class| memory_of(*class)).min();
                inside(choice).then(|| u128::from(choice.gang) * u128::from(of(choice.per_device, least.unwrap_or(0))))
            };
            let memory = rooms().map(|room| u128::from(room.memory.0)).sum();
            let share = rooms().count() as u128 * u128::from(Share::WHOLE.0);
            self.pools.extend(pool(instance, memory, |choice| amount(choice, memory_held)));
            self.pools.extend(pool(instance, share, |choice| amount(choice, share_held)));
            let largest = rooms().map(|room| room.memory.0).max().unwrap_or(0);
            for parts in pieces::PARTS {
                let blocked = |choice: &Choice, of: fn(DeviceNeed, u64) -> u64, whole: u64| {
                    let each = u128::from(pieces::blocked(of(choice.per_device, whole), whole, parts));
                    inside(choice).then(|| u128::from(choice.gang) * each)
                };
                let capacity = rooms().count() as u128 * u128::from(pieces::blocked(1, 1, parts));
                self.pools.extend(pool(instance, capacity, |choice| blocked(choice, memory_held, largest)));
                let whole = u64::from(Share::WHOLE.0);
                self.pools.extend(pool(instance, capacity, |choice| blocked(choice, share_held, whole)));
            }
        }
    }

    /// Every resource of the nodes, once for each class of nodes and once for all together.
    fn add_nodes(&mut self, instance: &Instance<'_>) {
        let class_of = |choice: &Choice| {
            let first = instance.groups[choice.group as usize].members.first();
            first.map(|(node, _)| instance.nodes[node.index()].class)
        };
        let classes: BTreeSet<u32> = instance.nodes.iter().map(|node| node.class).collect();
        let single = (classes.len() > 1).then_some(classes.iter().copied().map(Some)).into_iter().flatten();
        for class in single.chain([None]) {
            for resource in 0..instance.resources.len() {
                let inside = instance.nodes.iter().filter(|node| class.is_none_or(|class| node.class == class));
                let capacity = inside.map(|node| u128::from(node.capacity[resource])).sum();
                let amount = |choice: &Choice| {
                    let counts = class.is_none() || class_of(choice) == class;
                    counts.then(|| u128::from(choice.need[resource]))
                };
                self.pools.extend(pool(instance, capacity, amount));
            }
        }
    }
}

/// Returns what all durations are multiples of, in milliseconds, and the times that data takes where tasks are few enough to
/// tell where each is.
fn tick(instance: &Instance<'_>) -> u64 {
    if !instance.has_lags() || !split::is_small(instance) {
        return instance.tick();
    }
    let nodes = || (0..).map(NodeId).take(instance.nodes.len());
    let pairs = || nodes().flat_map(|from| nodes().map(move |to| (from, to)));
    let edges = instance.graph.before.edges.iter();
    let lags = edges.flat_map(|edge| pairs().map(|(from, to)| instance.lag(edge.data, from, to).0));
    lags.fold(instance.tick(), gcd)
}

const fn memory_held(need: DeviceNeed, whole: u64) -> u64 {
    match need {
        DeviceNeed::Exclusive => whole,
        DeviceNeed::Part { memory, .. } => memory,
    }
}

const fn share_held(need: DeviceNeed, _: u64) -> u64 {
    match need {
        DeviceNeed::Exclusive => Share::WHOLE.0 as u64,
        DeviceNeed::Part { share, .. } => share,
    }
}

/// Makes a pool of what choices take; `None` where all tasks together cannot exhaust it.
fn pool(instance: &Instance<'_>, capacity: u128, amount: impl Fn(&Choice) -> Option<u128>) -> Option<Pool> {
    let mut asked = Vec::new();
    let mut together = 0_u128;
    for task in instance.graph.ids() {
        let mut most = 0;
        for (index, choice) in instance.choices(task).iter().enumerate() {
            let takes = amount(choice).unwrap_or(0);
            if takes > 0 {
                asked.push((task.index(), index, takes));
                most = most.max(takes);
            }
        }
        together = together.saturating_add(most);
    }
    if together <= capacity {
        return None;
    }
    let divisor = asked.iter().map(|(.., takes)| *takes).fold(0, gcd_wide).max(1);
    // Whole parts of the divisor are exact: what is left of the capacity beside them nobody can take.
    let capacity = capacity / divisor;
    let part = capacity.div_ceil(PARTS).max(1);
    let count = |amount: u128| i32::try_from(amount).unwrap_or(i32::MAX);
    let uses = asked.iter().map(|(task, choice, takes)| (*task, *choice, count(takes / divisor / part)));
    let uses = uses.filter(|(.., takes)| *takes > 0).collect();
    Some(Pool { capacity: count(capacity.div_ceil(part)), uses })
}

fn gcd_wide(a: u128, b: u128) -> u128 {
    if b == 0 { a } else { gcd_wide(b, a % b) }
}
