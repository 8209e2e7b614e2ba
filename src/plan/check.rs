//! Proves a plan legal without trusting whoever made it.
//!
//! Reads pipeline, graph and fleet themselves and sweeps over the starts and ends of all tasks; it shares nothing with
//! the planners but the rule of the load matrix. Does not know how good a plan is.

use std::collections::{BTreeMap, BTreeSet};

use super::Plan;
use crate::fleet::{Device, DeviceId, Fleet, Node, NodeId};
use crate::graph::{TaskGraph, TaskId};
use crate::spec::{Gpus, Mode, Pipeline};
use crate::timing::Load;
use crate::units::{Bandwidth, Bytes, Millis, Share};

/// One way in which a plan is not legal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The plan is for another number of tasks.
    #[error("the plan has {planned} tasks and the graph {tasks}")]
    Size {
        /// Tasks in the plan.
        planned: usize,
        /// Tasks in the graph.
        tasks: usize,
    },
    /// A mode, node or device that does not exist, devices of another node, one twice, or not as many as asked for.
    #[error("`{task}` has no such place: {what}")]
    Place {
        /// The task's name.
        task: String,
        /// What is wrong with its place.
        what: &'static str,
    },
    /// The time for which it runs is not what the load matrix says.
    #[error("`{task}` is planned for {planned} and takes {takes}")]
    Duration {
        /// The task's name.
        task: String,
        /// Time from start to finish, less that for which it is suspended.
        planned: Millis,
        /// Its entry of the load matrix.
        takes: Millis,
    },
    /// A task is planned to be interrupted, and not as it may be.
    #[error("`{task}` cannot be interrupted so: {what}")]
    Pieces {
        /// The task's name.
        task: String,
        /// What is wrong.
        what: &'static str,
    },
    /// A task starts before one that it waits for has ended and its data has arrived.
    #[error("`{task}` starts at {start}, and what it needs from `{before}` is there at {ready}")]
    Precedence {
        /// The earlier task's name.
        before: String,
        /// The later task's name.
        task: String,
        /// When the earlier task's data has arrived.
        ready: Millis,
        /// When the later task starts.
        start: Millis,
    },
    /// A node or device holds more than it has.
    #[error("at {at}, `{place}` holds {held} of {what} and has {has}")]
    Capacity {
        /// The node's name or the device's id.
        place: String,
        /// What is held.
        what: String,
        /// How much is held.
        held: u128,
        /// How much there is.
        has: u64,
        /// The first instant at which it is so.
        at: Millis,
    },
    /// Two tasks use a device that one of them has to itself.
    #[error("`{task}` has `{device}` to itself and shares it with `{other}`")]
    Exclusive {
        /// The device's id.
        device: String,
        /// The task that asked for the whole device.
        task: String,
        /// The task beside it.
        other: String,
    },
    /// The modes spend more than a budget.
    #[error("the plan spends {spent} of {budget} and has {limit}")]
    Budget {
        /// The budget's name.
        budget: String,
        /// What is spent.
        spent: u128,
        /// What there is.
        limit: u64,
    },
    /// The makespan is not the last end.
    #[error("the makespan is given as {given} and is {is}")]
    Makespan {
        /// What the plan says.
        given: Millis,
        /// The last end.
        is: Millis,
    },
    /// The lower bound is above the makespan.
    #[error("the lower bound {bound} is above the makespan {makespan}")]
    Bound {
        /// The lower bound.
        bound: Millis,
        /// The makespan.
        makespan: Millis,
    },
    /// The ranks are not an order in which tasks can be started as planned.
    #[error("the order of starts puts `{task}` in a wrong place")]
    Rank {
        /// The task's name.
        task: String,
    },
}

/// Checks everything that makes a plan legal.
///
/// # Errors
/// Every violation found; where places themselves are wrong, only those.
pub fn check(pipeline: &Pipeline, graph: &TaskGraph, fleet: &Fleet, plan: &Plan) -> Result<(), Vec<Violation>> {
    if plan.placed.len() != graph.len() || plan.rank.len() != graph.len() {
        let planned = plan.placed.len().min(plan.rank.len());
        return Err(vec![Violation::Size { planned, tasks: graph.len() }]);
    }
    let checker = Checker { pipeline, graph, fleet, plan };
    let mut found: Vec<_> = graph.ids().filter_map(|task| checker.place(task)).collect();
    if !found.is_empty() {
        return Err(found);
    }
    found.extend(graph.ids().filter_map(|task| checker.pieces(task)));
    found.extend(graph.ids().filter_map(|task| checker.duration(task)));
    found.extend(checker.precedence());
    let moments = checker.moments();
    found.extend(checker.capacities(&moments));
    found.extend(checker.alone(&moments));
    found.extend(checker.budgets());
    found.extend(checker.totals());
    found.extend(checker.ranks());
    if found.is_empty() { Ok(()) } else { Err(found) }
}

struct Checker<'a> {
    pipeline: &'a Pipeline,
    graph: &'a TaskGraph,
    fleet: &'a Fleet,
    plan: &'a Plan,
}

/// Whether somebody ceases or begins to hold something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    End,
    Start,
}

/// What a task holds. A suspended one keeps its memory and all that it has of the node, and needs nothing of the compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Held {
    /// All that it asks for.
    All,
    /// All but its part of the compute.
    Memory,
    /// Its part of the compute.
    Share,
}

impl Checker<'_> {
    fn name(&self, task: TaskId) -> String {
        self.graph.tasks[task.index()].name.clone()
    }

    fn mode(&self, task: TaskId) -> Option<&Mode> {
        let stage = self.pipeline.stages.get(self.graph.tasks[task.index()].stage)?;
        stage.modes.get(self.plan.placed[task.index()].mode)
    }

    fn place(&self, task: TaskId) -> Option<Violation> {
        let placed = &self.plan.placed[task.index()];
        let wrong = |what| Some(Violation::Place { task: self.name(task), what });
        let Some(mode) = self.mode(task) else { return wrong("the mode does not exist") };
        if placed.node.index() >= self.fleet.nodes.len() {
            return wrong("the node does not exist");
        }
        let gang = gang_of(mode);
        if placed.devices.len() != gang || !placed.devices.is_sorted_by(|one, next| one < next) {
            return wrong("not as many devices as it asks for, or not in order");
        }
        for device in &placed.devices {
            let Some(device) = self.fleet.devices.get(device.index()) else {
                return wrong("a device does not exist");
            };
            if device.node != placed.node {
                return wrong("a device is on another node");
            }
            if memory_of(mode, device) > device.whole_memory() {
                return wrong("a device is too small");
            }
            if u32::try_from(gang).is_ok_and(|gang| !device.can_join(gang)) {
                return wrong("a slice of a card is among several devices");
            }
        }
        if mode.fallback && self.holds_preferred(task) {
            return wrong("it has a GPU to prefer");
        }
        None
    }

    /// Whether some node, idle, has all that the mode before the one planned asks for.
    fn holds_preferred(&self, task: TaskId) -> bool {
        let modes = &self.pipeline.stages[self.graph.tasks[task.index()].stage].modes;
        let Some(preferred) = self.plan.placed[task.index()].mode.checked_sub(1).and_then(|index| modes.get(index))
        else {
            return false;
        };
        let (asked, gang) = (&preferred.resources, gang_of(preferred));
        let large = |device: &&Device| {
            let joins = u32::try_from(gang).is_ok_and(|gang| device.can_join(gang));
            joins && memory_of(preferred, device) <= device.whole_memory()
        };
        let mut on_node = vec![0; self.fleet.nodes.len()];
        self.fleet.devices.iter().filter(large).for_each(|device| on_node[device.node.index()] += 1);
        let has_all = |(node, devices): (&Node, usize)| {
            let custom = |(name, amount): (&String, &u64)| node.resources.get(name).is_some_and(|has| has >= amount);
            let custom = asked.custom.iter().filter(|(_, amount)| **amount > 0).all(custom);
            devices >= gang && asked.cpus <= node.cpus && asked.memory <= node.memory && custom
        };
        self.fleet.nodes.iter().zip(on_node).any(has_all)
    }

    /// A task that is interrupted allows it, and runs within its stay until the end of that, one piece after the other.
    fn pieces(&self, task: TaskId) -> Option<Violation> {
        let placed = &self.plan.placed[task.index()];
        let (first, last) = (placed.segments.first()?, placed.segments.last()?);
        let wrong = |what| Some(Violation::Pieces { task: self.name(task), what });
        let resources = self.mode(task).map(|mode| &mode.resources);
        if !resources.is_some_and(|held| held.suspend && matches!(held.gpus, Gpus::Share(_))) {
            return wrong("it may not be suspended");
        }
        if !self.plan.takes_turns {
            return wrong("nobody takes turns in this plan");
        }
        if first.0 < placed.start || last.1 != placed.finish {
            return wrong("it runs before its start, or not until its end");
        }
        let in_order = placed.segments.windows(2).all(|pair| pair[0].1 <= pair[1].0);
        if !in_order || placed.segments.iter().any(|(from, to)| from >= to) {
            return wrong("its pieces overlap, or are empty");
        }
        None
    }

    fn duration(&self, task: TaskId) -> Option<Violation> {
        let placed = &self.plan.placed[task.index()];
        let mode = self.mode(task)?;
        let on_device = |device: &DeviceId| Load::on_device(&mode.duration, &self.fleet.devices[device.index()]).time;
        let on_node = || Load::on_node(&mode.duration, &self.fleet.nodes[placed.node.index()]).time;
        let takes = placed.devices.iter().map(on_device).max().unwrap_or_else(on_node);
        if placed.segments.is_empty() {
            let ends = placed.start.0.checked_add(takes.0);
            let planned = placed.finish - placed.start;
            return (ends != Some(placed.finish.0)).then(|| Violation::Duration {
                task: self.name(task),
                planned,
                takes,
            });
        }
        let ran: u128 = placed.segments.iter().map(|(from, to)| u128::from(to.0.saturating_sub(from.0))).sum();
        let planned = Millis(u64::try_from(ran).unwrap_or(u64::MAX));
        (ran != u128::from(takes.0)).then(|| Violation::Duration { task: self.name(task), planned, takes })
    }

    fn bandwidth(&self, a: NodeId, b: NodeId) -> Option<Bandwidth> {
        let joins = |ends: (NodeId, NodeId)| ends == (a, b) || ends == (b, a);
        self.fleet.links.iter().filter(|link| joins(link.between)).map(|link| link.bandwidth).max()
    }

    fn precedence(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        let mut known = BTreeMap::new();
        for task in self.graph.ids() {
            let placed = &self.plan.placed[task.index()];
            for edge in self.graph.before.of(task) {
                let before = &self.plan.placed[edge.task.index()];
                let mut ready = before.finish;
                if before.node != placed.node && edge.data > Bytes::ZERO {
                    let ends = (before.node, placed.node);
                    let link = known.entry(ends).or_insert_with(|| self.bandwidth(ends.0, ends.1));
                    ready += link.map_or(Millis::ZERO, |link| link.time_for(edge.data));
                }
                if placed.start < ready {
                    let (before, task, start) = (self.name(edge.task), self.name(task), placed.start);
                    found.push(Violation::Precedence { before, task, ready, start });
                }
            }
        }
        found
    }

    /// Returns all moments at which somebody begins to hold something, or ceases to, by time; ends count before starts.
    fn moments(&self) -> Vec<(Millis, Turn, TaskId, Held)> {
        let mut moments = Vec::with_capacity(2 * self.graph.len());
        for task in self.graph.ids() {
            let placed = &self.plan.placed[task.index()];
            let held = if placed.segments.is_empty() { Held::All } else { Held::Memory };
            let pieces = placed.segments.iter().map(|(from, to)| (*from, *to, Held::Share));
            let all = pieces.chain([(placed.start, placed.finish, held)]);
            for (from, to, held) in all.filter(|(from, to, _)| from < to) {
                moments.extend([(from, Turn::Start, task, held), (to, Turn::End, task, held)]);
            }
        }
        moments.sort_unstable();
        moments
    }

    /// Sums up what is held of everything, from moment to moment.
    fn capacities(&self, moments: &[(Millis, Turn, TaskId, Held)]) -> Vec<Violation> {
        let modes = self.pipeline.stages.iter().flat_map(|stage| &stage.modes);
        let names: BTreeSet<_> = modes.flat_map(|mode| mode.resources.custom.keys()).collect();
        let names: Vec<_> = names.into_iter().collect();
        let of_node = |node: &Node| {
            let custom = names.iter().map(|name| node.resources.get(*name).copied().unwrap_or(0));
            [node.cpus.0, node.memory.0].into_iter().chain(custom).collect::<Vec<_>>()
        };
        let of_device = |device: &Device| [device.usable_memory().0, u64::from(Share::WHOLE.0)];
        let (nodes, devices) = (&self.fleet.nodes, &self.fleet.devices);
        let has: Vec<_> = nodes.iter().flat_map(of_node).chain(devices.iter().flat_map(of_device)).collect();
        let (row, of_devices) = (2 + names.len(), nodes.len() * (2 + names.len()));
        let mut held = vec![0_i128; has.len()];
        let mut found: BTreeMap<usize, (Millis, u128)> = BTreeMap::new();
        for (at, turn, task, part) in moments {
            let (placed, Some(mode)) = (&self.plan.placed[task.index()], self.mode(*task)) else { continue };
            let asked = &mode.resources;
            let mut change = |index: usize, amount: u64| {
                held[index] += if *turn == Turn::Start { i128::from(amount) } else { -i128::from(amount) };
                if held[index] > i128::from(has[index]) {
                    found.entry(index).or_insert((*at, held[index].unsigned_abs()));
                }
            };
            if *part != Held::Share {
                let on_node = placed.node.index() * row;
                change(on_node, asked.cpus.0);
                change(on_node + 1, asked.memory.0);
                for (name, amount) in &asked.custom {
                    change(on_node + 2 + names.partition_point(|other| *other < name), *amount);
                }
            }
            for device in &placed.devices {
                let on_device = of_devices + 2 * device.index();
                if *part != Held::Share {
                    // A task that asks for more than is free now waits until others have left: it holds all there is.
                    let memory = memory_of(mode, &devices[device.index()]).0;
                    change(on_device, memory.min(has[on_device]));
                }
                if *part != Held::Memory {
                    change(on_device + 1, part_of(mode).0.into());
                }
            }
        }
        let told = |(index, (at, held)): (usize, (Millis, u128))| {
            let (place, what) = match index.checked_sub(of_devices) {
                Some(index) => (&devices[index / 2].id, ["bytes", "millionths of its compute"][index % 2]),
                None => {
                    let fixed = ["thousandths of CPUs", "bytes of host memory"];
                    let custom = || names[index % row - 2].as_str();
                    (&nodes[index / row].name, fixed.get(index % row).copied().unwrap_or_else(custom))
                }
            };
            Violation::Capacity { place: place.clone(), what: what.to_owned(), held, has: has[index], at }
        };
        found.into_iter().map(told).collect()
    }

    /// Finds on every device a task beside one that has it to itself.
    fn alone(&self, moments: &[(Millis, Turn, TaskId, Held)]) -> Vec<Violation> {
        let mut by_start = vec![Vec::new(); self.fleet.devices.len()];
        for (_, _, task, _) in
            moments.iter().filter(|(_, turn, _, held)| (*turn, *held != Held::Share) == (Turn::Start, true))
        {
            self.plan.placed[task.index()].devices.iter().for_each(|device| by_start[device.index()].push(*task));
        }
        let on_devices = self.fleet.devices.iter().zip(by_start);
        on_devices.filter_map(|(device, tasks)| self.exclusive(&device.id, &tasks)).collect()
    }

    /// Finds a task beside one that has the device to itself; `tasks` are those of the device by start.
    fn exclusive(&self, device: &str, tasks: &[TaskId]) -> Option<Violation> {
        let alone = |task: TaskId| self.mode(task).is_some_and(|mode| matches!(mode.resources.gpus, Gpus::Whole(_)));
        let end = |task: TaskId| self.plan.placed[task.index()].finish;
        // The last end so far of all tasks, and of those that are alone.
        let mut last: Option<TaskId> = None;
        let mut last_alone: Option<TaskId> = None;
        for &task in tasks {
            let start = self.plan.placed[task.index()].start;
            let against = if alone(task) { last } else { last_alone };
            if let Some(other) = against.filter(|other| end(*other) > start) {
                let (alone, beside) = if alone(task) { (task, other) } else { (other, task) };
                let (task, other) = (self.name(alone), self.name(beside));
                return Some(Violation::Exclusive { device: device.to_owned(), task, other });
            }
            let later = |known: Option<TaskId>| known.filter(|known| end(*known) >= end(task)).or(Some(task));
            last = later(last);
            if alone(task) {
                last_alone = later(last_alone);
            }
        }
        None
    }

    fn budgets(&self) -> Vec<Violation> {
        let spent = |budget: &str| -> u128 {
            let modes = self.graph.ids().filter_map(|task| self.mode(task));
            modes.filter_map(|mode| mode.spend.get(budget)).map(|amount| u128::from(*amount)).sum()
        };
        let of_fleet = self.fleet.budgets.iter().map(|(name, limit)| (name, *limit, spent(name)));
        let over = of_fleet.filter(|(_, limit, spent)| *spent > u128::from(*limit));
        over.map(|(name, limit, spent)| Violation::Budget { budget: name.clone(), spent, limit }).collect()
    }

    fn totals(&self) -> Vec<Violation> {
        let is = self.plan.placed.iter().map(|placed| placed.finish).max().unwrap_or(Millis::ZERO);
        let (given, bound) = (self.plan.makespan, self.plan.lower_bound);
        let wrong = (given != is).then_some(Violation::Makespan { given, is });
        let above = (bound > is).then_some(Violation::Bound { bound, makespan: is });
        wrong.into_iter().chain(above).collect()
    }

    /// Each rank once, starts in the order of ranks, and no task before one that it waits for.
    fn ranks(&self) -> Vec<Violation> {
        let mut by_rank = vec![None; self.graph.len()];
        let mut found = Vec::new();
        for task in self.graph.ids() {
            match by_rank.get_mut(self.plan.rank[task.index()] as usize) {
                Some(slot @ None) => *slot = Some(task),
                Some(Some(_)) | None => found.push(Violation::Rank { task: self.name(task) }),
            }
        }
        let order: Vec<_> = by_rank.into_iter().flatten().collect();
        let start = |task: TaskId| self.plan.placed[task.index()].start;
        let late = order.windows(2).filter(|pair| start(pair[0]) > start(pair[1])).map(|pair| pair[1]);
        let rank = |task: TaskId| self.plan.rank[task.index()];
        let early = |task: &TaskId| self.graph.before.of(*task).iter().any(|edge| rank(edge.task) >= rank(*task));
        let early = self.graph.ids().filter(early);
        found.extend(late.chain(early).map(|task| Violation::Rank { task: self.name(task) }));
        found
    }
}

/// Returns the part of a device's compute that a mode holds.
const fn part_of(mode: &Mode) -> Share {
    match mode.resources.gpus {
        Gpus::Share(share) => share,
        Gpus::Whole(_) => Share::WHOLE,
        Gpus::None | Gpus::Shared => Share::ZERO,
    }
}

/// Returns the memory that a mode holds of a device: what it names, and where it names a share only, as large a part.
fn memory_of(mode: &Mode, device: &Device) -> Bytes {
    match (mode.resources.gpus, mode.resources.gpu_memory) {
        (Gpus::Share(share), Bytes::ZERO) => share.of(device.whole_memory()),
        (_, named) => named,
    }
}

/// Returns how many devices a mode holds.
const fn gang_of(mode: &Mode) -> usize {
    match mode.resources.gpus {
        Gpus::None => 0,
        Gpus::Shared | Gpus::Share(_) => 1,
        Gpus::Whole(gang) => gang as usize,
    }
}
