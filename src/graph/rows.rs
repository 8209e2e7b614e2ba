//! Compressed rows from a list of edges, and the topological order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{Edge, Rows, TaskId};
use crate::units::Bytes;

/// A precedence as it is found: the same pair may be found several times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Found {
    pub(super) after: TaskId,
    pub(super) before: TaskId,
    pub(super) data: Bytes,
}

/// Returns who must finish before, and who waits, by task. The data of a pair that was found several times is summed.
pub(super) fn rows(n_tasks: usize, mut found: Vec<Found>) -> (Rows, Rows) {
    found.sort_unstable();
    found.dedup_by(|next, kept| {
        let same = (next.after, next.before) == (kept.after, kept.before);
        if same {
            kept.data += next.data;
        }
        same
    });
    let before = Rows {
        offsets: offsets(n_tasks, found.iter().map(|edge| edge.after)),
        edges: found.iter().map(|edge| Edge { task: edge.before, data: edge.data }).collect(),
    };
    let offsets = offsets(n_tasks, found.iter().map(|edge| edge.before));
    let mut next = offsets.clone();
    let mut edges = vec![Edge { task: TaskId(0), data: Bytes::ZERO }; found.len()];
    // `found` ascends by `after`, so every row ascends too.
    for edge in found {
        let slot = &mut next[edge.before.index()];
        edges[*slot as usize] = Edge { task: edge.after, data: edge.data };
        *slot += 1;
    }
    (before, Rows { offsets, edges })
}

/// Returns `[n_tasks + 1]` where each task's row starts, given the task of every edge.
fn offsets(n_tasks: usize, tasks: impl Iterator<Item = TaskId>) -> Vec<u32> {
    let mut offsets = vec![0; n_tasks + 1];
    for task in tasks {
        offsets[task.index() + 1] += 1;
    }
    for i in 0..n_tasks {
        offsets[i + 1] += offsets[i];
    }
    offsets
}

/// Returns a topological order, among equals the smaller id first; tasks in or behind a cycle are missing (Kahn 1962).
pub(super) fn order(before: &Rows, after: &Rows) -> Vec<TaskId> {
    let n_tasks = before.offsets.len().saturating_sub(1);
    let ids = || (0..u32::try_from(n_tasks).unwrap_or(u32::MAX)).map(TaskId);
    let mut missing: Vec<usize> = ids().map(|task| before.of(task).len()).collect();
    let mut ready: BinaryHeap<_> = ids().filter(|task| missing[task.index()] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(n_tasks);
    while let Some(Reverse(task)) = ready.pop() {
        order.push(task);
        for edge in after.of(task) {
            let missing = &mut missing[edge.task.index()];
            *missing -= 1;
            if *missing == 0 {
                ready.push(Reverse(edge.task));
            }
        }
    }
    order
}
