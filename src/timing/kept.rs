//! Times that are kept up to date while durations change: only what a change reaches is computed anew.
//!
//! For every task the longest path that leads to it and the longest that follows it are kept, which do not depend on each
//! other; a change runs along the edges, in topological order, as long as values change. Source: the incremental evaluation
//! of acyclic graphs of Alpern et al., "Incremental evaluation of computational circuits", 1990, for one direction and its
//! mirror. Equal to [`Timing::new`] at all times. Does not know where tasks run.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Timing;
use crate::graph::{Rows, TaskGraph, TaskId};
use crate::units::Millis;

/// The times of a graph whose durations change. Their sums must fit.
#[derive(Debug)]
pub struct Kept<'g> {
    graph: &'g TaskGraph,
    duration: Vec<Millis>,
    /// `[n_tasks]`: earliest start.
    head: Vec<Millis>,
    /// `[n_tasks]`: the longest path that starts with the task, itself included.
    tail: Vec<Millis>,
    /// `[n_tasks]`: position in the topological order.
    position: Vec<u32>,
    /// Tasks that nothing waits for, and those that wait for nothing.
    last: Vec<TaskId>,
    /// Positions still to be looked at, each once.
    open: BinaryHeap<Reverse<u32>>,
    /// `[n_tasks]`: whether a position is among them.
    is_open: Vec<bool>,
}

impl<'g> Kept<'g> {
    /// Computes the times for `duration`, `[n_tasks]` by TaskId.
    ///
    /// # Panics
    /// When `duration` has fewer entries than the graph has tasks.
    #[must_use]
    pub fn new(graph: &'g TaskGraph, duration: Vec<Millis>) -> Self {
        let Timing { duration, earliest_start: head, latest_start, makespan } = Timing::new(graph, duration);
        let mut position = vec![0; graph.len()];
        (0_u32..).zip(&graph.order).for_each(|(at, task)| position[task.index()] = at);
        Self {
            graph,
            duration,
            head,
            tail: latest_start.into_iter().map(|start| makespan - start).collect(),
            position,
            last: graph.ids().filter(|task| graph.after.of(*task).is_empty()).collect(),
            open: BinaryHeap::new(),
            is_open: vec![false; graph.len()],
        }
    }

    /// Gives a task another duration. Returns how many tasks were looked at.
    pub fn set(&mut self, task: TaskId, duration: Millis) -> usize {
        if std::mem::replace(&mut self.duration[task.index()], duration) == duration {
            return 0;
        }
        let graph = self.graph;
        let mut looked = 0;
        graph.after.of(task).iter().for_each(|edge| self.reopen(edge.task, false));
        while let Some(next) = self.next(false) {
            looked += 1;
            let finish = |edge: &crate::graph::Edge| self.head[edge.task.index()] + self.duration[edge.task.index()];
            let head = graph.before.of(next).iter().map(finish).max().unwrap_or_default();
            if std::mem::replace(&mut self.head[next.index()], head) != head {
                self.reopen_all(&graph.after, next, false);
            }
        }
        self.reopen(task, true);
        while let Some(next) = self.next(true) {
            looked += 1;
            let after = graph.after.of(next).iter().map(|edge| self.tail[edge.task.index()]);
            let tail = after.max().unwrap_or_default() + self.duration[next.index()];
            if std::mem::replace(&mut self.tail[next.index()], tail) != tail {
                self.reopen_all(&graph.before, next, true);
            }
        }
        looked
    }

    /// Returns the longest path.
    #[must_use]
    pub fn makespan(&self) -> Millis {
        let ends = self.last.iter().map(|task| self.head[task.index()] + self.duration[task.index()]);
        ends.max().unwrap_or_default()
    }

    /// Returns all times.
    #[must_use]
    pub fn timing(&self) -> Timing {
        let makespan = self.makespan();
        let latest_start = self.tail.iter().map(|tail| makespan - *tail).collect();
        Timing { duration: self.duration.clone(), earliest_start: self.head.clone(), latest_start, makespan }
    }

    fn reopen_all(&mut self, rows: &Rows, task: TaskId, backward: bool) {
        rows.of(task).iter().for_each(|edge| self.reopen(edge.task, backward));
    }

    fn reopen(&mut self, task: TaskId, backward: bool) {
        let at = self.position[task.index()];
        if !std::mem::replace(&mut self.is_open[at as usize], true) {
            self.open.push(Reverse(if backward { !at } else { at }));
        }
    }

    fn next(&mut self, backward: bool) -> Option<TaskId> {
        let Reverse(key) = self.open.pop()?;
        let at = if backward { !key } else { key };
        self.is_open[at as usize] = false;
        Some(self.graph.order[at as usize])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::timing::sample;

    #[test]
    fn a_change_that_is_hidden_by_a_longer_branch_goes_no_further() {
        // 0 → 1 → 3 → …, 0 → 2 → 3 → …: what 2 takes does not matter up to 5.
        let mut edges = vec![(0, 1), (0, 2), (1, 3), (2, 3)];
        edges.extend((4..100).map(|task| (task - 1, task)));
        let graph = sample::graph_of(100, &edges);
        let mut duration = vec![Millis(1); 100];
        duration[1] = Millis(5);
        let mut kept = Kept::new(&graph, duration);
        assert_eq!((kept.set(TaskId(2), Millis(4)), kept.makespan()), (3, Millis(103)));
        assert_eq!(kept.set(TaskId(2), Millis(4)), 0);
    }

    proptest! {
        #[test]
        fn after_any_changes_times_are_those_of_the_definition(
            n in 1_usize..60,
            edges in 0_usize..150,
            seed: u64,
            changes in prop::collection::vec((0_u32..60, 0_u64..40), 1..20),
        ) {
            let graph = sample::any(n, edges, seed);
            let mut duration = sample::durations(n, seed);
            let mut kept = Kept::new(&graph, duration.clone());
            for (task, time) in changes {
                let task = TaskId(task % n as u32);
                duration[task.index()] = Millis(time);
                kept.set(task, Millis(time));
                prop_assert_eq!(kept.timing(), Timing::new(&graph, duration.clone()));
            }
        }
    }
}
