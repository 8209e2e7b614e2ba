//! Lower bounds: no plan can end earlier, so the distance of a plan from them is the most that it can be improved.
//!
//! Two ideas. The *critical path* with every task at its shortest duration, and data on its way where it must move. And
//! *areas*: tasks hold amounts for a time, and what they hold together cannot exceed what all places offer together until
//! the end. An area may be taken over those tasks only that cannot start before `head` and after whose end `tail` must
//! pass, and then counts between the two. Where places differ, each class of them is weighted; any weights give a valid
//! bound, and good ones are found by raising the weight of what is overloaded (the dual of assigning fractions of tasks to
//! classes).
//!
//! Sums are exact in fixed point and rounded so that a bound is never too high; floating point only chooses which of
//! them to compute. Does not know plans.

mod moves;
mod weighted;

use moves::{Moves, moves};
pub(super) use weighted::weighted_ends;

use super::instance::{Choice, DeviceNeed, Instance};
use crate::fleet::DeviceId;
use crate::timing::Timing;
use crate::units::{Millis, Share};

/// A lower bound and what it rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// No plan can end before this.
    pub time: Millis,
    /// `critical path`, `CPUs`, `GPU memory`, …
    pub by: &'static str,
}

/// Capacities are counted in parts of 2^40, so that 2^20 tasks of a thousandth each lose less than one part in 2^10.
const ONE: u128 = 1 << 40;
/// Weights of classes are counted in parts of 2^12.
const WEIGHT: f64 = 4096.0;
/// The largest part that can be weighed.
const PART_MOST: u128 = u128::MAX >> 12;
/// Rounds in which the weights of classes are improved: further ones change the fourth digit.
const ROUNDS: usize = 24;
/// The same where there are two: as often as it takes to know a weight to one part of 2^12.
const HALVINGS: usize = 12;
/// Heads at which an area may begin: with more, the bound of a pipeline of a thousand tasks gains less than 0.1 %.
const HEADS: usize = 32;
/// Heads times tasks, at most: keeps a bound of 100,000 tasks under a tenth of a second.
const STEPS: usize = 1 << 20;

/// Returns the best lower bound of plans that interrupt no task.
#[must_use]
pub fn lower_bound(instance: &Instance<'_>, timing: &Timing) -> Bound {
    let best = with_turns(instance, timing);
    Bound { time: instance.rounded_up(best.time), ..best }
}

/// Returns when each task can end at the earliest, in milliseconds, `[n_tasks]` by TaskId.
pub(super) fn earliest_ends(instance: &Instance<'_>, timing: &Timing) -> Vec<u64> {
    let end = |task: crate::graph::TaskId| timing.earliest_start[task.index()] + timing.duration[task.index()];
    moves(instance).map_or_else(|| instance.graph.ids().map(|task| end(task).0).collect(), |moves| moves.end)
}

/// Returns the best lower bound of all plans, also those that interrupt tasks: what tasks hold together and what comes one
/// after the other is the same for both, but an interrupted one may end between the ticks.
#[must_use]
pub fn with_turns(instance: &Instance<'_>, timing: &Timing) -> Bound {
    let moves = moves(instance);
    let path = match &moves {
        Some(moves) if moves.longest > timing.makespan => Bound { time: moves.longest, by: "critical path and data" },
        Some(_) | None => Bound { time: timing.makespan, by: "critical path" },
    };
    let ends = Ends::new(instance, timing, moves);
    // The critical path wins a tie: it is the simplest reason.
    areas(instance).iter().fold(path, |best, area| area.beyond(best.time, instance, &ends).unwrap_or(best))
}

/// One resource over the classes of places that offer it.
#[derive(Debug)]
struct Axis {
    name: &'static str,
    /// Whether devices offer it, not nodes.
    of_devices: bool,
    /// `[n_classes]`: what all places of the class offer together.
    capacity: Vec<u128>,
    /// Ways to run a task of each kind, one kind after the other.
    ways: Vec<Way>,
    /// `[n_kinds]`: where its ways end.
    ends: Vec<usize>,
}

/// One way to run a task: how much it holds for how long in which class.
#[derive(Clone, Copy, Debug)]
struct Way {
    /// Index of the choice that it belongs to.
    choice: u32,
    /// Index of the class; `None` for a way that asks nothing of this resource.
    class: Option<usize>,
    /// What it holds, times how long, as a part of what the class offers: the time for which it would fill the class, in
    /// parts of [`ONE`]; nothing where it asks for nothing.
    part: u128,
}

impl Way {
    fn new(choice: u32, class: Option<usize>, area: u128, capacity: &[u128]) -> Self {
        let class = class.filter(|_| area > 0);
        let part = class.and_then(|class| area.saturating_mul(ONE).checked_div(capacity[class])).unwrap_or(0);
        Self { choice, class, part: part.min(PART_MOST) }
    }
}

/// When a task can start at the earliest and what must follow it, for the order in which areas are summed.
struct Ends {
    /// `[n_tasks]`: earliest start, in milliseconds.
    head: Vec<u64>,
    /// `[n_tasks]`: the shortest time from the task's end to the end of all.
    tail: Vec<u64>,
    /// All tasks with head and tail in floating point, those with the longest tail first.
    by_tail: Vec<(u32, f64, f64)>,
    /// All tasks, those with the latest head first.
    by_head: Vec<u32>,
    /// Heads that are tried, the latest first.
    heads: Vec<u64>,
}

impl Ends {
    fn new(instance: &Instance<'_>, timing: &Timing, moves: Option<Moves>) -> Self {
        let (head, tail) = moves.map_or_else(
            || {
                let head = timing.earliest_start.iter().map(|start| start.0);
                let tail = instance.graph.ids().map(|task| (timing.makespan - timing.latest_finish(task)).0);
                (head.collect::<Vec<_>>(), tail.collect::<Vec<_>>())
            },
            |moves| (moves.head, moves.tail),
        );
        let ends = head.iter().zip(&tail).map(|(head, tail)| (to_f64((*head).into()), to_f64((*tail).into())));
        let mut by_tail: Vec<_> = (0..).zip(ends).map(|(task, (head, tail))| (task, head, tail)).collect();
        by_tail.sort_unstable_by_key(|(task, ..)| std::cmp::Reverse(tail[*task as usize]));
        let mut by_head: Vec<_> = (0..).take(head.len()).collect();
        by_head.sort_unstable_by_key(|task: &u32| std::cmp::Reverse(head[*task as usize]));
        let mut heads: Vec<_> = by_head.iter().rev().map(|task| head[*task as usize]).collect();
        heads.dedup();
        let most = HEADS.min(STEPS / head.len().max(1)).max(1);
        let step = heads.len().div_ceil(most).max(1);
        let mut heads: Vec<_> = heads.into_iter().step_by(step).collect();
        heads.reverse();
        Self { head, tail, by_tail, by_head, heads }
    }
}

/// A resource with the weights of its classes.
#[derive(Debug)]
pub(super) struct Area {
    axis: Axis,
    /// `[n_classes]`.
    weights: Vec<u32>,
    /// What all classes offer together, by weight, in parts of [`ONE`].
    scale: u128,
    /// `[n_kinds]`: the least weighted area of a task over its ways.
    least: Vec<u128>,
}

/// Returns every resource that some task asks for, with weights.
fn areas<'i>(instance: &'i Instance<'_>) -> &'i [Area] {
    instance.areas.get_or_init(|| axes(instance).into_iter().map(|axis| Area::new(instance, axis)).collect())
}

impl Area {
    fn new(instance: &Instance<'_>, axis: Axis) -> Self {
        let weights = axis.weights(instance);
        let scale: u128 = weights.iter().map(|weight| u128::from(*weight)).sum::<u128>() * ONE;
        let least = axis.kinds().map(|ways| Axis::least(ways, &weights)).collect();
        Self { axis, weights, scale, least }
    }

    /// Returns the best bound of this resource, where it is above another.
    fn beyond(&self, other: Millis, instance: &Instance<'_>, ends: &Ends) -> Option<Bound> {
        let Self { scale, least, .. } = self;
        let (head, tail) = best_window(other, instance, ends, least, *scale)?;
        let inside = (0..ends.head.len()).filter(|task| ends.head[*task] >= head && ends.tail[*task] >= tail);
        let sum = inside.map(|task| least[instance.kind[task] as usize]).fold(0, u128::saturating_add);
        let between = u64::try_from(sum.div_ceil(*scale)).unwrap_or(u64::MAX);
        let time = Millis(head) + Millis(between) + Millis(tail);
        (time > other).then_some(Bound { time, by: self.axis.name })
    }

    /// Returns how long all tasks together would fill the resource.
    fn total(&self, instance: &Instance<'_>) -> u128 {
        instance.kind.iter().map(|kind| self.least[*kind as usize]).fold(0, u128::saturating_add) / self.scale
    }
}

impl Axis {
    /// Makes a resource from what its classes offer and a way to list the ways of a kind.
    fn new(
        instance: &Instance<'_>,
        (name, of_devices): (&'static str, bool),
        capacity: Vec<u128>,
        mut list: impl FnMut(u32, &Choice, &mut Vec<Way>),
    ) -> Self {
        let choices = instance.kinds.iter().map(|kind| kind.choices.len()).sum();
        let (mut ways, mut ends) = (Vec::with_capacity(choices), Vec::with_capacity(instance.kinds.len()));
        for kind in &instance.kinds {
            (0..).zip(&kind.choices).for_each(|(index, choice)| list(index, choice, &mut ways));
            ends.push(ways.len());
        }
        Self { name, of_devices, capacity, ways, ends }
    }

    /// Yields the ways of each kind.
    fn kinds(&self) -> impl Iterator<Item = &[Way]> {
        let mut from = 0;
        self.ends.iter().map(move |end| &self.ways[std::mem::replace(&mut from, *end)..*end])
    }

    /// The least weighted area of a task over its ways, in parts of [`ONE`] of what the classes offer.
    fn least(ways: &[Way], weights: &[u32]) -> u128 {
        ways.iter().map(|way| Self::weighed(*way, weights)).min().unwrap_or(0)
    }

    fn weighed(way: Way, weights: &[u32]) -> u128 {
        way.class.map_or(0, |class| way.part * u128::from(weights[class]))
    }

    /// Finds weights of the classes by repeated assignment: the classes that get more than their part become dearer.
    fn weights(&self, instance: &Instance<'_>) -> Vec<u32> {
        let classes = self.capacity.len();
        if classes <= 1 {
            return vec![1; classes];
        }
        let mut tasks_of = vec![0_u32; self.ends.len()];
        instance.kind.iter().for_each(|kind| tasks_of[*kind as usize] += 1);
        // Class and part of each way in floating point; who can do without it weighs nothing.
        let parts = |way: &Way| (way.class.unwrap_or(0), to_f64(way.part) / to_f64(ONE));
        let parts: Vec<_> = self.ways.iter().map(parts).collect();
        let total: u128 = self.capacity.iter().sum();
        let mut weight: Vec<_> = self.capacity.iter().map(|part| to_f64(*part) / to_f64(total.max(1))).collect();
        let mut best = (0.0, weight.clone());
        let mut load = vec![0.0; classes];
        // Of two classes, between which the weight of the first lies: the larger it is, the less that class gets.
        let mut between = (0.0, 1.0);
        for round in 0..if classes == 2 { HALVINGS } else { ROUNDS } {
            load.fill(0.0);
            let mut value = 0.0;
            let mut from = 0;
            for (to, tasks) in self.ends.iter().zip(&tasks_of) {
                let cheaper = |least: (f64, usize, f64), (class, part): &(usize, f64)| {
                    let price = part * weight[*class];
                    if price < least.0 { (price, *class, *part) } else { least }
                };
                let (price, class, part) = parts[from..*to].iter().fold((f64::INFINITY, 0, 0.0), cheaper);
                value += price * f64::from(*tasks);
                load[class] += part * f64::from(*tasks);
                from = *to;
            }
            if value > best.0 {
                best = (value, weight.clone());
            }
            if let ([one, other], [left, right]) = (&load[..], &mut weight[..]) {
                *(if one > other { &mut between.0 } else { &mut between.1 }) = *left;
                *left = f64::midpoint(between.0, between.1);
                *right = 1.0 - *left;
                continue;
            }
            let most = load.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
            let step = 0.5 / f64::from(u32::try_from(round).unwrap_or(u32::MAX) + 2);
            weight.iter_mut().zip(&load).for_each(|(weight, load)| *weight *= (step * (load / most)).exp());
            let sum: f64 = weight.iter().sum();
            weight.iter_mut().for_each(|weight| *weight /= sum);
        }
        #[expect(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "between 1 and 4096")]
        let fixed = |weight: f64| (weight * WEIGHT).round().clamp(1.0, WEIGHT) as u32;
        best.1.into_iter().map(fixed).collect()
    }
}

/// Returns the head and tail between which an area gives the largest bound, as floating point sees it, if that can be above
/// another; `area` is by kind.
fn best_window(other: Millis, instance: &Instance<'_>, ends: &Ends, area: &[u128], scale: u128) -> Option<(u64, u64)> {
    let part: Vec<_> = area.iter().map(|area| to_f64(*area) / to_f64(scale)).collect();
    let part = |task: u32| part[instance.kind[task as usize] as usize];
    let promises = promises(ends, part);
    promises.first().filter(|(most, _)| *most >= to_f64(other.0.into()))?;
    let tasks: Vec<_> = ends.by_tail.iter().map(|(task, head, tail)| (*head, *tail, part(*task))).collect();
    let mut best: Option<(f64, u64, usize)> = None;
    for (most, head) in promises {
        if best.is_some_and(|(bound, ..)| most < bound) {
            break;
        }
        let (from, mut sum) = (to_f64(head.into()), 0.0);
        for (index, (_, tail, part)) in tasks.iter().enumerate().filter(|(_, (head, ..))| *head >= from) {
            sum += part;
            let bound = from + tail + sum;
            if best.is_none_or(|(most, ..)| bound > most) {
                best = Some((bound, head, index));
            }
        }
    }
    best.map(|(_, head, index)| (head, ends.tail[ends.by_tail[index].0 as usize]))
}

/// Returns the heads, each behind what no area from it on can exceed, the most promising first: hardly any others need to
/// be looked at.
fn promises(ends: &Ends, part: impl Fn(u32) -> f64) -> Vec<(f64, u64)> {
    let (mut sum, mut tail) = (0.0, 0);
    let mut tasks = ends.by_head.iter().peekable();
    let promise = |head: &u64| {
        while let Some(task) = tasks.next_if(|task| ends.head[**task as usize] >= *head) {
            sum += part(*task);
            tail = tail.max(ends.tail[*task as usize]);
        }
        // A little more, for sums in another order are rounded otherwise.
        ((to_f64((*head).into()) + sum + to_f64(tail.into())) * (1.0 + 1e-9), *head)
    };
    let mut promises: Vec<_> = ends.heads.iter().map(promise).collect();
    promises.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    promises
}

/// Returns the resource that is scarcest, where devices offer it.
fn scarcest<'i>(instance: &'i Instance<'_>) -> Option<&'i Area> {
    let scarcest = areas(instance).iter().max_by_key(|area| area.total(instance));
    scarcest.filter(|area| area.axis.of_devices)
}

/// Returns for how many milliseconds a task of each kind holds a whole device at least, by what is scarcest of them,
/// `[n_kinds]`. Empty where something else than devices is scarce.
#[must_use]
pub(super) fn held(instance: &Instance<'_>) -> Vec<u64> {
    let places = instance.devices.len() as u128;
    let of_kind = |area: &Area, least: &u128| {
        let held = least.saturating_mul(places) / area.scale;
        u64::try_from(held).unwrap_or(u64::MAX)
    };
    scarcest(instance).map_or_else(Vec::new, |area| area.least.iter().map(|least| of_kind(area, least)).collect())
}

/// Returns what each choice wastes, one kind after the other: by how many milliseconds of all devices together the bound
/// rises where a task takes it instead of its cheapest choice. Empty where tasks have no choice, or where something else
/// than devices is scarce: for modes that spend budgets it did not pay.
#[must_use]
pub(super) fn waste(instance: &Instance<'_>) -> Vec<u64> {
    if instance.kinds.iter().all(|kind| kind.choices.len() == 1) {
        return Vec::new();
    }
    let Some(Area { axis, weights, scale, least }) = scarcest(instance) else { return Vec::new() };
    let places = instance.devices.len() as u128;
    let mut waste = Vec::new();
    for (kind, (ways, least)) in instance.kinds.iter().zip(axis.kinds().zip(least)) {
        let first = waste.len();
        waste.resize(first + kind.choices.len(), u64::MAX);
        for way in ways {
            let dearer = (Axis::weighed(*way, weights) - least).saturating_mul(places) / scale;
            let choice = &mut waste[first + way.choice as usize];
            *choice = (*choice).min(u64::try_from(dearer).unwrap_or(u64::MAX));
        }
    }
    waste
}

#[expect(clippy::cast_precision_loss, reason = "floating point only chooses; the bound itself is exact")]
fn to_f64(value: u128) -> f64 {
    value as f64
}

/// Returns every resource that some task asks for.
fn axes(instance: &Instance<'_>) -> Vec<Axis> {
    let names = instance.resources.iter().map(|name| match name.as_str() {
        super::build::CPUS => super::build::CPUS,
        super::build::HOST_MEMORY => super::build::HOST_MEMORY,
        _ => "custom resource",
    });
    let gpus = device_axis(instance, "GPUs", |_, need| match need {
        DeviceNeed::Exclusive => u64::from(Share::WHOLE.0),
        DeviceNeed::Part { share, .. } => share,
    });
    let memory = device_axis(instance, "GPU memory", |class, need| match need {
        DeviceNeed::Exclusive => class,
        DeviceNeed::Part { memory, .. } => memory,
    });
    let of_nodes = names.enumerate().map(|(index, name)| node_axis(instance, index, name));
    // What is mostly the scarcest comes first, so that of the others little needs to be computed.
    let mut axes: Vec<_> = [gpus, memory].into_iter().chain(of_nodes).collect();
    let asked = |axis: &Axis| axis.kinds().any(|ways| ways.iter().all(|way| way.class.is_some()));
    axes.retain(asked);
    axes
}

/// A node's resource, by class of nodes.
fn node_axis(instance: &Instance<'_>, resource: usize, name: &'static str) -> Axis {
    let classes = instance.nodes.iter().map(|node| node.class as usize + 1).max().unwrap_or(0);
    let mut capacity = vec![0; classes];
    for node in &instance.nodes {
        capacity[node.class as usize] += u128::from(node.capacity[resource]);
    }
    let of_class = capacity.clone();
    Axis::new(instance, (name, false), capacity, |index, choice, ways| {
        let area = u128::from(choice.need[resource]) * u128::from(choice.duration());
        let first = instance.groups[choice.group as usize].members.first();
        let class = first.map(|(node, _)| instance.nodes[node.index()].class as usize);
        ways.push(Way::new(index, class, area, &of_class));
    })
}

/// A resource of devices, by class of devices; `amount` is given the class's memory and the request.
fn device_axis(instance: &Instance<'_>, name: &'static str, amount: impl Fn(u64, DeviceNeed) -> u64) -> Axis {
    let classes = instance.devices.iter().map(|device| device.class as usize + 1).max().unwrap_or(0);
    let (mut memory, mut capacity) = (vec![0; classes], vec![0; classes]);
    for device in &instance.devices {
        memory[device.class as usize] = device.memory.0;
        capacity[device.class as usize] += u128::from(amount(device.memory.0, DeviceNeed::Exclusive));
    }
    let class_of = |device: &DeviceId| instance.devices[device.index()].class;
    let of_class = capacity.clone();
    Axis::new(instance, (name, true), capacity, |index, choice, ways| {
        let first = instance.groups[choice.group as usize].members.first();
        let devices = first.map_or(&[][..], |(_, devices)| devices);
        let held = u128::from(choice.gang) * u128::from(choice.duration());
        let area = |class: usize| held * u128::from(amount(memory[class], choice.per_device));
        // Devices of one class lie together; where they do not, a class merely comes twice.
        let classes = devices.chunk_by(|a, b| class_of(a) == class_of(b)).map(|same| class_of(&same[0]) as usize);
        ways.extend(classes.map(|class| Way::new(index, Some(class), area(class), &of_class)));
        if devices.is_empty() {
            ways.push(Way { choice: index, class: None, part: 0 });
        }
    })
}

#[cfg(test)]
mod tests;
