//! Random orders around a good one. Does not know resources.

use super::super::random::Random;
use crate::graph::{TaskGraph, TaskId};
use crate::timing::Timing;

/// Added to every regret, as a part of the longest path: with none, the latest tasks would never be drawn early.
const LEAST: u64 = 100;

/// Draws an order: of the tasks that are ready, those that must end early are more likely to come next.
/// Source: regret-based biased random sampling, Drexl, "Scheduling of project networks by job assignment", 1991.
pub(super) fn order(random: &mut Random, graph: &TaskGraph, timing: &Timing) -> Vec<TaskId> {
    let latest = |task: TaskId| timing.latest_finish(task).0;
    let mut waiting: Vec<_> = graph.ids().map(|task| graph.before.of(task).len()).collect();
    let mut ready = Ready::new(graph.len());
    graph.ids().filter(|task| waiting[task.index()] == 0).for_each(|task| ready.push(task, latest(task)));
    let mut order = Vec::with_capacity(graph.len());
    while !ready.tasks.is_empty() {
        let least = timing.makespan.0 / LEAST + 1;
        let task = ready.draw(random, least);
        order.push(task);
        for edge in graph.after.of(task) {
            waiting[edge.task.index()] -= 1;
            if waiting[edge.task.index()] == 0 {
                ready.push(edge.task, latest(edge.task));
            }
        }
    }
    order
}

/// Tasks that are ready, and a tree over them by which one is drawn without looking at all of them, as [`urgent`] would.
struct Ready {
    tasks: Vec<TaskId>,
    /// The root is 1, the children of `i` are `2 i` and `2 i + 1`; the last half are the tasks.
    tree: Vec<Latest>,
}

/// The latest ends of some tasks.
#[derive(Clone, Copy, Default)]
struct Latest {
    count: u64,
    sum: u128,
    most: u64,
}

impl Ready {
    fn new(most: usize) -> Self {
        Self { tasks: Vec::new(), tree: vec![Latest::default(); 2 * most.next_power_of_two()] }
    }

    fn push(&mut self, task: TaskId, latest: u64) {
        self.set(self.tasks.len(), Latest { count: 1, sum: latest.into(), most: latest });
        self.tasks.push(task);
    }

    fn set(&mut self, place: usize, leaf: Latest) {
        let mut at = self.tree.len() / 2 + place;
        self.tree[at] = leaf;
        while at > 1 {
            at /= 2;
            let (left, right) = (self.tree[2 * at], self.tree[2 * at + 1]);
            let (count, sum) = (left.count + right.count, left.sum + right.sum);
            self.tree[at] = Latest { count, sum, most: left.most.max(right.most) };
        }
    }

    /// Takes one out; each has the regret of ending as late as it may, and this least of it.
    fn draw(&mut self, random: &mut Random, least: u64) -> TaskId {
        let all = self.tree[1];
        let each = u128::from(all.most) + u128::from(least);
        let regret = |of: Latest| u128::from(of.count) * each - of.sum;
        let mut left = u128::from(random.below(u64::try_from(regret(all)).unwrap_or(u64::MAX)));
        let leaves = self.tree.len() / 2;
        let mut at = 1;
        while at < leaves {
            at *= 2;
            let before = regret(self.tree[at]);
            if left >= before {
                left -= before;
                at += 1;
            }
        }
        let (place, last) = (at - leaves, self.tasks.len() - 1);
        let moved = self.tree[leaves + last];
        self.set(place, moved);
        self.set(last, Latest::default());
        self.tasks.swap_remove(place)
    }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::timing::fixture::{graph_of, random_edges};
    use crate::units::Millis;

    proptest! {
        #[test]
        fn an_order_is_drawn_as_if_all_were_looked_at(
            (n, edges) in random_edges(40), times in prop::collection::vec(0_u64..1_000, 40), seed: u64,
        ) {
            let graph = graph_of(n, &edges);
            let timing = Timing::new(&graph, times[..n].iter().map(|time| Millis(*time)).collect());
            let (mut one, mut other) = (Random::new(seed), Random::new(seed));
            let looked_at = taken(&graph, |ready, _| urgent(&mut one, &timing, ready));
            prop_assert_eq!(order(&mut other, &graph, &timing), looked_at);
        }
    }
}
