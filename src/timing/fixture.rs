//! Graphs for tests: written by hand, or drawn at random. Knows nothing of pipeline files.

use proptest::prelude::*;

use crate::graph::{Edge, Rows, Task, TaskGraph, TaskId};
use crate::units::Bytes;

/// Makes a graph of `n` tasks `t0`, `t1`, …, each of a stage of its own, from edges that lead from a smaller to a
/// larger index.
pub(crate) fn graph_of(n: usize, edges: &[(u32, u32)]) -> TaskGraph {
    let with_data: Vec<_> = edges.iter().map(|(a, b)| (*a, *b, Bytes::ZERO)).collect();
    graph_with_data(n, &with_data)
}

/// Makes the same with data along the edges.
pub(crate) fn graph_with_data(n: usize, edges: &[(u32, u32, Bytes)]) -> TaskGraph {
    let task = |stage| Task { name: format!("t{stage}"), stage, ..Task::default() };
    let reversed: Vec<_> = edges.iter().map(|(a, b, data)| (*b, *a, *data)).collect();
    TaskGraph {
        tasks: (0..n).map(task).collect(),
        before: rows(n, &reversed),
        after: rows(n, edges),
        order: (0..n).map(|i| TaskId(i as u32)).collect(),
    }
}

fn rows(n: usize, edges: &[(u32, u32, Bytes)]) -> Rows {
    let mut sorted = edges.to_vec();
    sorted.sort_by_key(|(a, b, _)| (*a, *b));
    sorted.dedup_by_key(|(a, b, _)| (*a, *b));
    let offsets = (0..=n as u32).map(|i| sorted.partition_point(|(a, _, _)| *a < i) as u32).collect();
    Rows { offsets, edges: sorted.iter().map(|(_, b, data)| Edge { task: TaskId(*b), data: *data }).collect() }
}

/// Draws up to `most` tasks and acyclic edges among them.
pub(crate) fn random_edges(most: usize) -> impl Strategy<Value = (usize, Vec<(u32, u32)>)> {
    (1..=most).prop_flat_map(move |n| {
        let edge = (0..n as u32, 0..n as u32);
        let edges = prop::collection::vec(edge, 0..2 * n).prop_map(|pairs| {
            let mut edges: Vec<_> =
                pairs.into_iter().filter(|(a, b)| a != b).map(|(a, b)| (a.min(b), a.max(b))).collect();
            edges.sort_unstable();
            edges.dedup();
            edges
        });
        (Just(n), edges)
    })
}
