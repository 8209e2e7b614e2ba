//! The critical path method: when each task can start at the earliest, must start at the latest, and how much it may
//! slip, were resources without limit.
//!
//! This is the definition that any other backend must equal exactly. Two passes over the topological order, O(n + e).
//! Source: Kelley and Walker, "Critical-path planning and scheduling", 1959. Does not know where tasks run.

use super::loads;
use crate::graph::{TaskGraph, TaskId};
use crate::units::{Millis, Speed};

/// Who computes times: the seam between the processor and devices. Whoever it is, the answers are those of
/// [`loads::matrix`] and [`Timing::new`]. A plan asks for the load matrix and then, at once, for the times.
pub trait Backend: std::fmt::Debug {
    /// Computes the load matrix `L = T / P`, `[n_speeds][n_durations]`.
    fn loads(&self, duration: &[Millis], speed: &[Speed]) -> Vec<Vec<Millis>>;

    /// Computes the times for `duration`, `[n_tasks]` by TaskId.
    fn timing(&self, graph: &TaskGraph, duration: Vec<Millis>) -> Timing;
}

/// The processor.
#[derive(Clone, Copy, Debug)]
pub struct Cpu;

impl Backend for Cpu {
    fn loads(&self, duration: &[Millis], speed: &[Speed]) -> Vec<Vec<Millis>> {
        loads::matrix(duration, speed)
    }

    fn timing(&self, graph: &TaskGraph, duration: Vec<Millis>) -> Timing {
        Timing::new(graph, duration)
    }
}

/// Earliest and latest times of every task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// `[n_tasks]`, by TaskId: the durations that it was computed for.
    pub duration: Vec<Millis>,
    /// `[n_tasks]`, by TaskId: earliest start.
    pub earliest_start: Vec<Millis>,
    /// `[n_tasks]`, by TaskId: latest start that does not delay the end.
    pub latest_start: Vec<Millis>,
    /// The longest path: no plan can end before it.
    pub makespan: Millis,
}

impl Timing {
    /// Computes the times for `duration`, `[n_tasks]` by TaskId. Sums saturate.
    ///
    /// # Panics
    /// When `duration` has fewer entries than the graph has tasks.
    #[must_use]
    pub fn new(graph: &TaskGraph, duration: Vec<Millis>) -> Self {
        let mut earliest_start = vec![Millis::ZERO; graph.len()];
        let mut makespan = Millis::ZERO;
        for &task in &graph.order {
            let before = graph.before.of(task).iter().map(|edge| edge.task.index());
            let start = before.map(|i| earliest_start[i] + duration[i]).max().unwrap_or(Millis::ZERO);
            earliest_start[task.index()] = start;
            makespan = makespan.max(start + duration[task.index()]);
        }
        let mut latest_start = vec![Millis::ZERO; graph.len()];
        for &task in graph.order.iter().rev() {
            let after = graph.after.of(task).iter().map(|edge| latest_start[edge.task.index()]);
            latest_start[task.index()] = after.min().unwrap_or(makespan) - duration[task.index()];
        }
        Self { duration, earliest_start, latest_start, makespan }
    }

    /// Returns when a task can end at the earliest.
    #[must_use]
    pub fn earliest_finish(&self, task: TaskId) -> Millis {
        self.earliest_start[task.index()] + self.duration[task.index()]
    }

    /// Returns when a task must end at the latest.
    #[must_use]
    pub fn latest_finish(&self, task: TaskId) -> Millis {
        self.latest_start[task.index()] + self.duration[task.index()]
    }

    /// Returns how much a task may slip without delaying the end: one subtraction, done when somebody asks.
    #[must_use]
    pub fn slack(&self, task: TaskId) -> Millis {
        self.latest_start[task.index()] - self.earliest_start[task.index()]
    }

    /// Whether a delay of this task delays the end.
    #[must_use]
    pub fn is_critical(&self, task: TaskId) -> bool {
        self.slack(task) == Millis::ZERO
    }

    /// Returns the time from the start of a task to the end along its longest path: its upward rank.
    #[must_use]
    pub fn tail_with(&self, task: TaskId) -> Millis {
        self.makespan - self.latest_start[task.index()]
    }

    /// Returns one longest path from first to last task; among equal ones, the one with the smallest TaskIds.
    ///
    /// Always the processor's work: one step hangs on the one before, and each needs no more than the times of the tasks
    /// that it passes, which are here already.
    #[must_use]
    pub fn critical_path(&self, graph: &TaskGraph) -> Vec<TaskId> {
        let starts = |task: &TaskId| self.is_critical(*task) && graph.before.of(*task).is_empty();
        let Some(mut task) = graph.ids().find(starts) else { return Vec::new() };
        let mut path = vec![task];
        while let Some(next) = self.critical_after(graph, task) {
            path.push(next);
            task = next;
        }
        path
    }

    /// The next task of the critical path: critical itself and starting the moment `task` ends.
    fn critical_after(&self, graph: &TaskGraph, task: TaskId) -> Option<TaskId> {
        let end = self.earliest_finish(task);
        let mut after = graph.after.of(task).iter().map(|edge| edge.task);
        after.find(|next| self.is_critical(*next) && self.earliest_start[next.index()] == end)
    }
}

#[cfg(test)]
mod tests {
    use petgraph::algo::toposort;
    use petgraph::graph::DiGraph;
    use proptest::prelude::*;

    use super::*;
    use crate::timing::fixture::{graph_of, random_edges};

    fn millis(values: &[u64]) -> Vec<Millis> {
        values.iter().copied().map(Millis).collect()
    }

    #[test]
    fn a_chain_of_2_2_and_3_takes_7_and_is_critical_throughout() {
        let graph = graph_of(3, &[(0, 1), (1, 2)]);
        let timing = Timing::new(&graph, millis(&[2, 2, 3]));
        assert_eq!(timing.makespan, Millis(7));
        assert_eq!(timing.earliest_start, millis(&[0, 2, 4]));
        assert_eq!(timing.latest_start, timing.earliest_start);
        assert_eq!(timing.critical_path(&graph), [TaskId(0), TaskId(1), TaskId(2)]);
    }

    #[test]
    fn a_short_branch_has_slack_and_is_not_on_the_path() {
        let graph = graph_of(4, &[(0, 1), (0, 2), (1, 3), (2, 3)]);
        let timing = Timing::new(&graph, millis(&[1, 5, 2, 1]));
        assert_eq!(timing.slack(TaskId(2)), Millis(3));
        assert_eq!(timing.critical_path(&graph), [TaskId(0), TaskId(1), TaskId(3)]);
    }

    #[test]
    fn no_task_at_all_takes_no_time() {
        let graph = graph_of(0, &[]);
        let timing = Timing::new(&graph, Vec::new());
        assert_eq!(timing.makespan, Millis::ZERO);
        assert!(timing.critical_path(&graph).is_empty());
    }

    #[test]
    fn a_sum_that_overflows_saturates() {
        let graph = graph_of(2, &[(0, 1)]);
        let timing = Timing::new(&graph, millis(&[u64::MAX, u64::MAX]));
        assert_eq!(timing.makespan, Millis(u64::MAX));
    }

    proptest! {
        #[test]
        fn times_equal_a_longest_path_over_petgraphs_order(
            (n, edges) in random_edges(24),
            durations in prop::collection::vec(0_u64..50, 24),
        ) {
            let graph = graph_of(n, &edges);
            let timing = Timing::new(&graph, millis(&durations[..n]));
            let mut oracle = DiGraph::<u64, ()>::new();
            let nodes: Vec<_> = durations[..n].iter().map(|duration| oracle.add_node(*duration)).collect();
            oracle.extend_with_edges(edges.iter().map(|(a, b)| (nodes[*a as usize], nodes[*b as usize])));
            let mut start = vec![0; n];
            for node in toposort(&oracle, None).unwrap() {
                for next in oracle.neighbors(node) {
                    start[next.index()] = start[next.index()].max(start[node.index()] + oracle[node]);
                }
            }
            let makespan = (0..n).map(|i| start[i] + durations[i]).max().unwrap_or(0);
            prop_assert_eq!(&timing.earliest_start, &millis(&start));
            prop_assert_eq!(timing.makespan, Millis(makespan));
            let path = timing.critical_path(&graph);
            let length: Millis = path.iter().map(|task| timing.duration[task.index()]).sum();
            prop_assert_eq!(length, timing.makespan);
        }
    }
}
