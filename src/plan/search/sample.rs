//! Random orders around a good one. Does not know resources.

use super::super::random::Random;
use crate::graph::{TaskGraph, TaskId};
use crate::timing::Timing;

/// Added to every regret, as a part of the longest path: with none, the latest tasks would never be drawn early.
const LEAST: u64 = 100;

/// Draws an order: of the tasks that are ready, those that must end early are more likely to come next.
/// Source: regret-based biased random sampling, Drexl, "Scheduling of project networks by job assignment", 1991.
pub(super) fn order(random: &mut Random, graph: &TaskGraph, timing: &Timing) -> Vec<TaskId> {
    taken(graph, |ready, _| urgent(random, timing, ready))
}

/// Draws one of some tasks, more likely one that must end early, and returns its index.
pub(super) fn urgent(random: &mut Random, timing: &Timing, ready: &[TaskId]) -> usize {
    let latest = |task: TaskId| timing.latest_finish(task).0;
    let least = timing.makespan.0 / LEAST + 1;
    let most = ready.iter().map(|task| latest(*task)).max().unwrap_or(0);
    let regret = |task: TaskId| most - latest(task) + least;
    let mut left = random.below(ready.iter().map(|task| regret(*task)).fold(0, u64::saturating_add));
    let mut next = 0;
    while left >= regret(ready[next]) {
        left -= regret(ready[next]);
        next += 1;
    }
    next
}

/// Takes all tasks, each behind those it waits for: `next` gets the ready ones and how many were taken, and returns the
/// index of the one to take.
pub(super) fn taken(graph: &TaskGraph, mut next: impl FnMut(&[TaskId], usize) -> usize) -> Vec<TaskId> {
    let mut waiting: Vec<_> = graph.ids().map(|task| graph.before.of(task).len()).collect();
    let mut ready: Vec<_> = graph.ids().filter(|task| waiting[task.index()] == 0).collect();
    let mut order = Vec::with_capacity(graph.len());
    while !ready.is_empty() {
        let task = ready.swap_remove(next(&ready, order.len()));
        order.push(task);
        for edge in graph.after.of(task) {
            waiting[edge.task.index()] -= 1;
            if waiting[edge.task.index()] == 0 {
                ready.push(edge.task);
            }
        }
    }
    order
}
