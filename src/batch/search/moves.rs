//! How new orders are made: from keys, from other orders, and by chance. Each keeps the precedence by how it is made.
//!
//! Sources: Hartmann, "A competitive genetic algorithm for resource-constrained project scheduling", 1998 (two-point
//! crossover of activity lists); Dorigo and Gambardella, "Ant colony system", 1997; changed: trails are for parts of the
//! order, and ants differ in how far they follow chance. Does not know how good an order is.

use super::philox::{Purpose, below, draw};
use super::tables::Tables;
use super::{BLOCKS, Links};

/// Ants that follow chance wholly, by a half, and so on to a 128th: the more tasks, the less chance an order bears.
const TEMPERS: u32 = 8;

/// Which generation of which search it is.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// Equal seeds draw equal numbers.
    pub seed: u64,
    /// Counted from zero, the first orders.
    pub generation: u32,
}

impl Round {
    pub(super) fn draw(self, purpose: Purpose, candidate: usize, number: u32) -> [u32; 4] {
        draw(self.seed, purpose, self.generation, small(candidate), number)
    }
}

/// What promises an ant something.
#[derive(Clone, Copy, Debug)]
pub struct Signs<'a> {
    /// `[BLOCKS][n_tasks]`: how well a task did in a part of the order; 16 bits behind the point.
    pub trail: &'a [u32],
    /// `[n_tasks]`: how much less urgent than the most urgent a task is: a logarithm, 16 bits behind the point.
    pub bias: &'a [u32],
    /// What is looked up.
    pub tables: &'a Tables,
}

/// Lets each ant write an order to `child`, `[candidates][n_tasks]`.
pub fn ant_orders(links: &Links, signs: Signs<'_>, round: Round, child: &mut [u16]) {
    let n = links.n_tasks();
    let Signs { trail, bias, tables } = signs;
    for (candidate, out) in child.chunks_mut(n).enumerate() {
        let temper = small(candidate) % TEMPERS;
        build(links, BLOCKS, out, |task, block| {
            let chance = round.draw(Purpose::Places, candidate, block << 16 | u32::from(task))[0];
            let task = usize::from(task);
            let key = (tables.race[(chance >> 20) as usize].cast_signed() >> temper) + bias[task].cast_signed();
            sortable(key - tables.logarithm(trail[block as usize * n + task]).cast_signed())
        });
    }
}

/// Writes the order of each particle's keys, `[candidates][n_tasks]`, to `child`.
pub fn swarm_orders(links: &Links, key: &[u32], child: &mut [u16]) {
    let n = links.n_tasks();
    for (out, key) in child.chunks_mut(n).zip(key.chunks(n)) {
        build(links, 1, out, |task, _| sortable(key[usize::from(task)].cast_signed()));
    }
}

/// Makes a child for each candidate of `order`, `[candidates][n_tasks]`: the beginning of the candidate, then what comes
/// first in the better of two others that are drawn, then the rest as in the candidate; up to three tasks are shifted.
pub fn children(links: &Links, round: Round, order: &[u16], makespan: &[u32], child: &mut [u16]) {
    let n = links.n_tasks();
    let (tasks, candidates) = (small(n), small(makespan.len()));
    let row = |candidate: u32| &order[candidate as usize * n..][..n];
    for (candidate, out) in child.chunks_mut(n).enumerate() {
        let [one, other, cut, end] = round.draw(Purpose::Children, candidate, 0);
        let (one, other) = (below(one, candidates), below(other, candidates));
        let father = row(small(candidate));
        let mother = row(if makespan[other as usize] < makespan[one as usize] { other } else { one });
        let (cut, end) = (below(cut, tasks + 1) as usize, below(end, tasks + 1) as usize);
        let mut marked = vec![false; n];
        let (begin, rest) = out.split_at_mut(cut.min(end));
        let (middle, rest) = rest.split_at_mut(cut.abs_diff(end));
        for (part, from) in [(begin, father), (middle, mother), (rest, father)] {
            let mut missing = from.iter().filter(|task| !std::mem::replace(&mut marked[usize::from(**task)], true));
            part.iter_mut().for_each(|place| *place = *missing.next().expect("an order has all tasks"));
        }
        let shifts = round.draw(Purpose::Children, candidate, 1)[0] % 4;
        for number in 0..shifts {
            let [which, place, ..] = round.draw(Purpose::Children, candidate, 2 + number);
            shift(links, out, which, place);
        }
    }
}

/// Makes a neighbour of each candidate of `order`, `[candidates][n_tasks]`: one or two of its tasks are shifted.
pub fn neighbours(links: &Links, round: Round, order: &[u16], child: &mut [u16]) {
    let n = links.n_tasks();
    child.copy_from_slice(order);
    for (candidate, out) in child.chunks_mut(n).enumerate() {
        let shifts = 1 + round.draw(Purpose::Neighbours, candidate, 0)[0] % 2;
        for number in 0..shifts {
            let [which, place, ..] = round.draw(Purpose::Neighbours, candidate, 1 + number);
            shift(links, out, which, place);
        }
    }
}

/// Moves the task at a drawn place to another one between the last of its sources and the first that waits for it.
fn shift(links: &Links, order: &mut [u16], which: u32, place: u32) {
    let at = below(which, small(order.len())) as usize;
    let task = order[at];
    let stops = |other: &u16| links.before.of(task).contains(other) || links.after.of(task).contains(other);
    let first = order[..at].iter().rposition(stops).map_or(0, |source| source + 1);
    let last = order[at + 1..].iter().position(stops).map_or(order.len() - 1, |reader| at + reader);
    if first == last {
        return;
    }
    let to = first + below(place, small(last - first)) as usize;
    let to = to + usize::from(to >= at);
    if to > at { order[at..=to].rotate_left(1) } else { order[to..=at].rotate_right(1) }
}

/// Builds an order: of the tasks that are ready, the one with the smallest key comes next, the first among equals. `key` is
/// asked when a task becomes ready and again when the place enters another of `blocks` equal parts of the order.
fn build(links: &Links, blocks: usize, out: &mut [u16], key: impl Fn(u16, u32) -> u32) {
    let n = out.len();
    let mut missing: Vec<u32> = links.before.offset.windows(2).map(|row| row[1] - row[0]).collect();
    let mut block = 0;
    let ids = (0_u16..).take(n).zip(&missing);
    let mut ready: Vec<(u32, u16)> =
        ids.filter(|(_, missing)| **missing == 0).map(|(task, _)| (key(task, 0), task)).collect();
    for (place, out) in out.iter_mut().enumerate() {
        let now = small(place * blocks / n);
        if now != block {
            block = now;
            ready.iter_mut().for_each(|(known, task)| *known = key(*task, block));
        }
        let next = (0..ready.len()).min_by_key(|slot| ready[*slot]).expect("a graph without cycles");
        let (_, task) = ready.swap_remove(next);
        *out = task;
        for reader in links.after.of(task) {
            missing[usize::from(*reader)] -= 1;
            if missing[usize::from(*reader)] == 0 {
                ready.push((key(*reader, block), *reader));
            }
        }
    }
}

/// Signed keys in the order of unsigned ones.
const fn sortable(key: i32) -> u32 {
    key.cast_unsigned() ^ 0x8000_0000
}

fn small(length: usize) -> u32 {
    u32::try_from(length).expect("lengths of a problem that was checked")
}

#[cfg(test)]
mod tests {
    use super::super::Urgency;
    use super::*;
    use crate::batch::orders::Orders;
    use crate::timing::sample::{any, edge_shapes, graph_of};

    /// Every way to make an order makes orders of this graph from random ones.
    fn assert_kept(name: &str, graph: &crate::graph::TaskGraph, seed: u64) {
        let links = Links::new(graph).unwrap();
        let kept = |child: &[u16], how: &str| {
            assert!(Orders::new(&links.before, child.to_vec()).is_ok(), "{how}: {name}");
        };
        let (n, candidates) = (graph.len(), 12);
        let orders = Orders::random(graph, &links.before, candidates, seed);
        let makespan: Vec<u32> = (0..12).rev().collect();
        let mut child = vec![0; n * candidates];
        let mut seen = std::collections::HashSet::new();
        for generation in 0..6 {
            let round = Round { seed, generation };
            children(&links, round, orders.tasks(), &makespan, &mut child);
            kept(&child, "children");
            seen.extend(child.chunks(n).map(<[u16]>::to_vec));
            neighbours(&links, round, orders.tasks(), &mut child);
            kept(&child, "neighbours");
            let (tables, trail) = (Tables::default(), vec![1 << 16; BLOCKS * n]);
            let urgency = Urgency::new(&(0..n as u64).collect::<Vec<_>>());
            let signs = Signs { trail: &trail, bias: &urgency.bias, tables: &tables };
            ant_orders(&links, signs, round, &mut child);
            kept(&child, "ants");
            seen.extend(child.chunks(n).map(<[u16]>::to_vec));
        }
        assert!(n < 30 || name.contains("chain") || seen.len() > 50, "{name}: {} different orders", seen.len());
    }

    #[test]
    fn whatever_is_made_keeps_the_precedence() {
        for (seed, (name, graph)) in (0..).zip(edge_shapes()) {
            assert_kept(&name, &graph, seed);
        }
        for seed in 0..30 {
            assert_kept("random", &any(2 + seed as usize * 3, seed as usize * 5, seed), seed);
        }
    }

    #[test]
    fn keys_that_fall_along_an_order_give_that_order() {
        let graph = graph_of(4, &[(0, 2), (1, 3)]);
        let links = Links::new(&graph).unwrap();
        let mut child = [0; 8];
        // In the second, 2 would like to be first, and has to wait for 0.
        swarm_orders(&links, &[3, 1, 4, 2, 7, 8, (-5_i32).cast_unsigned(), 9], &mut child);
        assert_eq!(child, [1, 3, 0, 2, 0, 2, 1, 3]);
    }

    #[test]
    fn a_child_has_the_beginning_of_its_father() {
        let links = Links::new(&graph_of(40, &[])).unwrap();
        let forward: Vec<u16> = (0..40).collect();
        let backward: Vec<u16> = (0..40).rev().collect();
        let order = [forward, backward].concat();
        let mut child = vec![0; 80];
        let mut mixed = 0;
        for generation in 0..50 {
            children(&links, Round { seed: 3, generation }, &order, &[5, 4], &mut child);
            mixed += usize::from(child[..40] != order[..40] && child[..40] != order[40..]);
        }
        assert!(mixed > 25, "{mixed}");
    }
}
