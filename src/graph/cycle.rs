//! Cycles: found, and named hop by hop with what makes each hop.
//!
//! Strongly connected components after Tarjan (1972), without recursion; in each, a shortest cycle through its first
//! task.

use std::collections::{HashMap, HashSet, VecDeque};

use super::{Rows, TaskId};

/// Returns a shortest cycle of every tangle of tasks that wait for each other, each from its smallest task on; the
/// first task is not repeated at the end.
pub(super) fn cycles(after: &Rows) -> Vec<Vec<TaskId>> {
    let n_tasks = after.offsets.len().saturating_sub(1);
    let component = components(after, n_tasks);
    let mut seen = HashSet::new();
    (0..u32::try_from(n_tasks).unwrap_or(u32::MAX))
        .map(TaskId)
        .filter(|task| seen.insert(component[task.index()]))
        .filter_map(|task| shortest_through(task, after, &component))
        .collect()
}

/// Returns `[n_tasks]`: tasks that can reach each other have the same number.
fn components(after: &Rows, n_tasks: usize) -> Vec<u32> {
    const UNSEEN: u32 = u32::MAX;
    let mut component = vec![UNSEEN; n_tasks];
    let (mut found_at, mut low) = (vec![UNSEEN; n_tasks], vec![0_u32; n_tasks]);
    let (mut open, mut counter, mut n_components) = (Vec::new(), 0, 0);
    // Each entry: a task and the next of its edges to look at.
    let mut path: Vec<(usize, usize)> = Vec::new();
    for root in 0..n_tasks {
        if found_at[root] == UNSEEN {
            path.push((root, 0));
        }
        while let Some((task, next)) = path.last_mut() {
            let task = *task;
            if *next == 0 {
                (found_at[task], low[task]) = (counter, counter);
                counter += 1;
                open.push(task);
            }
            let edges = after.of(TaskId(u32::try_from(task).unwrap_or(u32::MAX)));
            if let Some(edge) = edges.get(*next) {
                *next += 1;
                let other = edge.task.index();
                if found_at[other] == UNSEEN {
                    path.push((other, 0));
                } else if component[other] == UNSEEN {
                    low[task] = low[task].min(found_at[other]);
                }
                continue;
            }
            path.pop();
            if let Some((parent, _)) = path.last() {
                low[*parent] = low[*parent].min(low[task]);
            }
            if low[task] == found_at[task] {
                while let Some(member) = open.pop() {
                    component[member] = n_components;
                    if member == task {
                        break;
                    }
                }
                n_components += 1;
            }
        }
    }
    component
}

/// Returns a shortest cycle through a task within its component.
fn shortest_through(start: TaskId, after: &Rows, component: &[u32]) -> Option<Vec<TaskId>> {
    let mut from: HashMap<TaskId, TaskId> = HashMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(task) = queue.pop_front() {
        for edge in after.of(task) {
            if edge.task == start {
                let mut cycle = vec![task];
                while let Some(earlier) = cycle.last().filter(|last| **last != start).and_then(|last| from.get(last)) {
                    cycle.push(*earlier);
                }
                cycle.reverse();
                return Some(cycle);
            }
            if component[edge.task.index()] == component[start.index()] && !from.contains_key(&edge.task) {
                from.insert(edge.task, task);
                queue.push_back(edge.task);
            }
        }
    }
    None
}
