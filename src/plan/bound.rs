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

mod axis;
mod moves;
mod weighted;

use axis::Axis;
use moves::{Moves, moves};
pub(super) use weighted::weighted_ends;

use super::instance::Instance;
use crate::timing::Timing;
use crate::units::Millis;

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
    instance.areas.get_or_init(|| axis::areas(instance))
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

#[cfg(test)]
mod tests;
