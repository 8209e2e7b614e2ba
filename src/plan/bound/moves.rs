//! When tasks can end and what must follow them where data takes time from node to node.
//!
//! The critical path over nodes: on each node a task takes as long as it does there at least, and begins once the data of
//! every predecessor is there, from whichever node that is soonest. What waits for the same task may want it on different
//! nodes, so the times are no plan; but no plan is sooner.

use crate::graph::{Rows, TaskId};
use crate::plan::instance::Instance;
use crate::units::{Bytes, Millis};

/// Edges times pairs of nodes, at most: some tens of milliseconds.
const PAIRS: usize = 1 << 23;
/// On a node where a task cannot run.
const NEVER: u64 = u64::MAX;

/// The times of all tasks, in milliseconds.
#[derive(Debug)]
pub(super) struct Moves {
    /// `[n_tasks]`: earliest start.
    pub(super) head: Vec<u64>,
    /// `[n_tasks]`: earliest end.
    pub(super) end: Vec<u64>,
    /// `[n_tasks]`: the shortest time from the task's end to the end of all.
    pub(super) tail: Vec<u64>,
    /// No plan can end before this.
    pub(super) longest: Millis,
}

/// Returns the times; `None` where no data takes time, or there are too many nodes to look at all pairs of them.
pub(super) fn moves(instance: &Instance<'_>) -> Option<Moves> {
    let (graph, n_nodes) = (instance.graph, instance.nodes.len());
    let pairs = graph.before.edges.len().checked_mul(n_nodes * n_nodes)?;
    if pairs > PAIRS || !instance.has_lags() {
        return None;
    }
    let shortest = shortest(instance);
    let time = |task: TaskId| &shortest[instance.kind[task.index()] as usize * n_nodes..][..n_nodes];
    let there = |data, here: usize, other: usize| lag(instance, data, other, here);
    let back = |data, here: usize, other: usize| lag(instance, data, here, other);
    let ends = pass(n_nodes, graph.order.iter(), &graph.before, time, there);
    let starts = pass(n_nodes, graph.order.iter().rev(), &graph.after, time, back);
    let mut moves = Moves { head: Vec::new(), end: Vec::new(), tail: Vec::new(), longest: Millis::ZERO };
    for task in graph.ids() {
        let row = task.index() * n_nodes..(task.index() + 1) * n_nodes;
        let (ends, starts, times) = (&ends[row.clone()], &starts[row], time(task));
        let each = || (0..n_nodes).filter(|node| times[*node] != NEVER);
        let least = |of: &dyn Fn(usize) -> u64| each().map(of).min().unwrap_or(0);
        moves.head.push(least(&|node| ends[node] - times[node]));
        moves.end.push(least(&|node| ends[node]));
        moves.tail.push(least(&|node| starts[node] - times[node]));
        let through = least(&|node| ends[node] + (starts[node] - times[node]));
        moves.longest = moves.longest.max(Millis(through));
    }
    Some(moves)
}

/// Returns how long each kind takes at least on each node, `[n_kinds * n_nodes]`.
fn shortest(instance: &Instance<'_>) -> Vec<u64> {
    let n_nodes = instance.nodes.len();
    let mut shortest = vec![NEVER; instance.kinds.len() * n_nodes];
    for (kind, row) in instance.kinds.iter().zip(shortest.chunks_exact_mut(n_nodes.max(1))) {
        for choice in &kind.choices {
            for (node, _) in &instance.groups[choice.group as usize].members {
                let least = &mut row[node.index()];
                *least = (*least).min(choice.duration());
            }
        }
    }
    shortest
}

fn lag(instance: &Instance<'_>, data: Bytes, from: usize, to: usize) -> u64 {
    let node = |index| crate::fleet::NodeId(u32::try_from(index).unwrap_or(u32::MAX));
    instance.lag(data, node(from), node(to)).0
}

/// Returns when each task is over on each node, `[n_tasks * n_nodes]`, in the direction in which `waits_for` looks back;
/// `lag` is given the node where the task is and the one of what it waits for.
fn pass<'t>(
    n_nodes: usize,
    order: impl Iterator<Item = &'t TaskId>,
    waits_for: &Rows,
    time: impl Fn(TaskId) -> &'t [u64],
    lag: impl Fn(Bytes, usize, usize) -> u64,
) -> Vec<u64> {
    let mut over = vec![NEVER; (waits_for.offsets.len().saturating_sub(1)) * n_nodes];
    for &task in order {
        for (node, time) in time(task).iter().enumerate().filter(|(_, time)| **time != NEVER) {
            let arrival = |edge: &crate::graph::Edge| {
                let before = over[edge.task.index() * n_nodes..][..n_nodes].iter().enumerate();
                let from = before.filter(|(_, over)| **over != NEVER);
                from.map(|(other, over)| over.saturating_add(lag(edge.data, node, other))).min().unwrap_or(0)
            };
            let ready = waits_for.of(task).iter().map(arrival).max().unwrap_or(0);
            over[task.index() * n_nodes + node] = ready.saturating_add(*time).min(NEVER - 1);
        }
    }
    over
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{Fleet, Link, NodeId};
    use crate::plan;
    use crate::plan::fixture::{add_node, on_gpus, on_host, problem};
    use crate::spec::Gpus;
    use crate::timing::fixture::graph_with_data;
    use crate::units::Bandwidth;

    #[test]
    fn data_that_must_move_is_waited_for() {
        let mut fleet = Fleet::default();
        add_node(&mut fleet, 4, 64, &[]);
        add_node(&mut fleet, 1, 64, &[("A", 16, 1_000)]);
        fleet.links.push(Link { between: (NodeId(0), NodeId(1)), bandwidth: Bandwidth(1 << 30) });
        // Only the first node has four CPUs, only the second a GPU. A third task could run on either.
        let modes = vec![vec![on_host(4, 1_000)], vec![on_gpus(Gpus::Whole(1), 1, 2_000)], vec![on_host(1, 500)]];
        let mut problem = problem(modes, &[], fleet);
        problem.graph = graph_with_data(3, &[(0, 1, Bytes(8 << 30)), (1, 2, Bytes(1 << 30))]);
        let made = plan::make(&problem.pipeline, &problem.graph, &problem.fleet, &plan::Options::default()).unwrap();
        assert_eq!((made.makespan, made.lower_bound), (Millis(11_500), Millis(11_500)));
        assert_eq!(made.bound_by, "critical path and data");
        let instance = Instance::new(&problem.pipeline, &problem.graph, &problem.fleet).unwrap();
        let moves = moves(&instance).unwrap();
        assert_eq!(moves.head, [0, 9_000, 11_000]);
        assert_eq!(moves.end, [1_000, 11_000, 11_500]);
        assert_eq!(moves.tail, [10_500, 500, 0]);
    }
}
