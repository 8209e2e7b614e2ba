//! `kernels/search.cu` against the functions of `batch::search` of the same names: on every shape, in every order of threads.

use kernels_cpu::Launch;
use trainyard::batch::orders::Orders;
use trainyard::batch::search::{
    self, BLOCKS, Links, Population, Round, Signs, Tables, Urgency, ant_orders, children, neighbours, swarm_orders,
};
use trainyard::graph::TaskGraph;
use trainyard::timing::sample::{Random, any, edge_shapes};

use super::{ORDERS, launch, params};

/// Candidates: one warp of the last block has nothing to do.
const CANDIDATES: usize = 5;
const BLOCK: u32 = 64;

/// The edge shapes and some random graphs.
fn graphs() -> Vec<(String, TaskGraph)> {
    let random = (0..8).map(|seed| (format!("random {seed}"), any(2 + seed as usize * 11, seed as usize * 25, seed)));
    edge_shapes().into_iter().chain(random).collect()
}

/// A block of two warps, each with so many words of shared memory.
fn by_warp(words: usize, order: u32) -> Launch {
    let grid = (CANDIDATES as u32).div_ceil(BLOCK / 32);
    Launch { grid, block: BLOCK, shared_bytes: words as u32 * 4 * (BLOCK / 32), cooperative: false, order }
}

/// A thread for each of so many values.
fn by_value(values: usize, order: u32) -> Launch {
    Launch { grid: (values as u32).div_ceil(BLOCK), block: BLOCK, shared_bytes: 0, cooperative: false, order }
}

/// Where the arrays of both directions lie.
type Arrays = (*const u32, *const u16, *const u32, *const u16);

fn arrays(links: &Links) -> Arrays {
    let (before, after) = (&links.before, &links.after);
    (before.offset.as_ptr(), before.source.as_ptr(), after.offset.as_ptr(), after.source.as_ptr())
}

#[test]
fn orders_from_keys_equal_the_cpu() {
    let tables = Tables::default();
    for (seed, (name, graph)) in (0_u64..).zip(graphs()) {
        let (n, links, mut random) = (graph.len(), Links::new(&graph).unwrap(), Random::new(seed));
        let trail: Vec<u32> = (0..BLOCKS * n).map(|_| 1_311 + random.below(1 << 18) as u32).collect();
        let urgency = Urgency::new(&(0..n).map(|_| random.below(5_000)).collect::<Vec<_>>());
        // Small numbers, so that many tasks are equally good.
        let key: Vec<u32> = (0..CANDIDATES * n).map(|_| (random.below(9) as u32).wrapping_sub(4)).collect();
        let round = Round { seed: seed << 33 | 5, generation: 3 };
        let (mut by_ants, mut by_swarm) = (vec![0; CANDIDATES * n], vec![0; CANDIDATES * n]);
        let signs = Signs { trail: &trail, bias: &urgency.bias, tables: &tables };
        ant_orders(&links, signs, round, &mut by_ants);
        swarm_orders(&links, &key, &mut by_swarm);
        for order in ORDERS {
            let mut child = vec![u16::MAX; CANDIDATES * n];
            let (tasks, candidates, blocks, Round { seed, generation }) =
                (n as u32, CANDIDATES as u32, BLOCKS as u32, round);
            let (offset, _, next, target) = arrays(&links);
            let (t, b, k) = (trail.as_ptr(), urgency.bias.as_ptr(), key.as_ptr());
            let (r, f) = (tables.race.as_ptr(), tables.fraction.as_ptr());
            let out = child.as_mut_ptr();
            let how = by_warp(2 * n + n.div_ceil(2), order);
            // SAFETY: the arguments of the kernels, arrays as large as they say.
            unsafe {
                let all =
                    &mut params![tasks, candidates, blocks, seed, generation, offset, next, target, t, b, r, f, out];
                launch(c"ant_orders", how, all);
            }
            assert_eq!(child, by_ants, "ants: {name}, order {order}");
            let out = child.as_mut_ptr();
            // SAFETY: as above.
            unsafe { launch(c"swarm_orders", how, &mut params![tasks, candidates, offset, next, target, k, out]) };
            assert_eq!(child, by_swarm, "swarm: {name}, order {order}");
        }
    }
}

#[test]
fn orders_from_orders_equal_the_cpu() {
    for (seed, (name, graph)) in (0_u64..).zip(graphs()) {
        let (n, links) = (graph.len(), Links::new(&graph).unwrap());
        let orders = Orders::random(&graph, &links.before, CANDIDATES, seed);
        let makespan: Vec<u32> = [4, 2, 2, 9, 7].to_vec();
        for generation in 0..4 {
            let round = Round { seed, generation };
            let (mut by_crossover, mut strayed) = (vec![0; CANDIDATES * n], vec![0; CANDIDATES * n]);
            children(&links, round, orders.tasks(), &makespan, &mut by_crossover);
            neighbours(&links, round, orders.tasks(), &mut strayed);
            for order in ORDERS {
                let mut child = vec![u16::MAX; CANDIDATES * n];
                let (tasks, candidates) = (n as u32, CANDIDATES as u32);
                let (offset, source, next, target) = arrays(&links);
                let (from, m, out) = (orders.tasks().as_ptr(), makespan.as_ptr(), child.as_mut_ptr());
                let how = by_warp(n.div_ceil(32), order);
                // SAFETY: the arguments of the kernels, arrays as large as they say.
                unsafe {
                    let all =
                        &mut params![tasks, candidates, seed, generation, offset, source, next, target, from, m, out];
                    launch(c"children", how, all);
                }
                assert_eq!(child, by_crossover, "children: {name}, generation {generation}, order {order}");
                let out = child.as_mut_ptr();
                // SAFETY: as above.
                unsafe {
                    let all =
                        &mut params![tasks, candidates, seed, generation, offset, source, next, target, from, out];
                    launch(c"neighbours", how, all);
                }
                assert_eq!(child, strayed, "neighbours: {name}, generation {generation}, order {order}");
            }
        }
    }
}

#[test]
fn whoever_settles_on_the_cpu_settles() {
    let (n, candidates) = (37_usize, 70_usize);
    let mut random = Random::new(4);
    let mut draw = |end| random.below(end) as u32;
    let orders: Vec<u16> = (0..2 * n * candidates).map(|_| draw(1 << 16) as u16).collect();
    let keys: Vec<u32> = (0..2 * n * candidates).map(|_| draw(1 << 20)).collect();
    let lengths: Vec<u32> = (0..2 * candidates).map(|i| if i % 9 == 0 { u32::MAX } else { 100 + draw(20) }).collect();
    let gap = Tables::default().gap;
    for (temperature, with_keys) in [(0, false), (5, false), (1 << 30, false), (0, true)] {
        let (tasks, n_keys) = (n as u32, if with_keys { n } else { 0 });
        let halves = |values: &[u32]| -> (Vec<u32>, Vec<u32>) {
            let (a, b) = values.split_at(n_keys * candidates);
            (a.to_vec(), b[..a.len()].to_vec())
        };
        let round = Round { seed: 9, generation: 6 };
        let (key, best) = halves(&keys);
        let (child_order, order) = orders.split_at(n * candidates);
        let (found, makespan) = lengths.split_at(candidates);
        let mut wanted = (order.to_vec(), makespan.to_vec(), best.clone());
        let child = Population { order: child_order, makespan: found, key: &key[..] };
        let mut kept = Population { order: &mut wanted.0[..], makespan: &mut wanted.1[..], key: &mut wanted.2[..] };
        search::settle(round, temperature, &gap, &child, &mut kept);
        for order_of_threads in ORDERS {
            let mut got = (order.to_vec(), makespan.to_vec(), best.clone());
            let (count, keys, Round { seed, generation }) = (candidates as u32, n_keys as u32, round);
            let (g, c, f, k) = (gap.as_ptr(), child_order.as_ptr(), found.as_ptr(), key.as_ptr());
            let (o, m, b) = (got.0.as_mut_ptr(), got.1.as_mut_ptr(), got.2.as_mut_ptr());
            let how = Launch { grid: (count).div_ceil(BLOCK / 32), ..by_warp(0, order_of_threads) };
            // SAFETY: the arguments of the kernel, arrays as large as it says.
            unsafe {
                let all = &mut params![tasks, keys, count, seed, generation, temperature, g, c, f, k, o, m, b];
                launch(c"settle", how, all);
            }
            assert_eq!(got, wanted, "temperature {temperature}, keys {with_keys}");
        }
    }
}

#[test]
fn the_leaders_are_those_of_the_cpu() {
    for candidates in [1_usize, 2, 31, 32, 33, 255, 256, 257, 1_000] {
        let mut random = Random::new(candidates as u64);
        let makespan: Vec<u32> = (0..candidates).map(|_| 50 + random.below(20) as u32).collect();
        for n_wanted in [1, 3, 16] {
            let n_wanted = candidates.min(n_wanted);
            let mut wanted = vec![0; 2 * n_wanted];
            search::leaders(&makespan, &mut wanted);
            for order in ORDERS {
                let mut leader = vec![u32::MAX; 2 * n_wanted];
                let (count, how_many) = (candidates as u32, n_wanted as u32);
                let (m, out) = (makespan.as_ptr(), leader.as_mut_ptr());
                let how = Launch { grid: 1, block: 256, shared_bytes: 64, cooperative: false, order };
                // SAFETY: the arguments of the kernel, arrays as large as it says.
                unsafe { launch(c"leaders", how, &mut params![count, how_many, m, out]) };
                assert_eq!(leader, wanted, "{n_wanted} of {candidates}");
            }
        }
    }
}

#[test]
fn trails_fade_and_are_left_as_on_the_cpu() {
    for (name, graph) in graphs() {
        let (n, links) = (graph.len(), Links::new(&graph).unwrap());
        let orders = Orders::random(&graph, &links.before, CANDIDATES, 3);
        let mut random = Random::new(n as u64);
        let first: Vec<u32> = (0..BLOCKS * n).map(|_| 1_311 + random.below(1 << 17) as u32).collect();
        // One of them twice: both leave something there.
        let leader = [3_u32, 1, 3];
        let mut wanted = first.clone();
        search::fade(&mut wanted);
        search::leave(n, &leader, 2_621, orders.tasks(), &mut wanted);
        for order in ORDERS {
            let mut trail = first.clone();
            let (tasks, blocks, values, n_leaders, gain) =
                (n as u32, BLOCKS as u32, first.len() as u32, 3_u32, 2_621_u32);
            let (l, o, t) = (leader.as_ptr(), orders.tasks().as_ptr(), trail.as_mut_ptr());
            // SAFETY: the arguments of the kernels, arrays as large as they say.
            unsafe {
                launch(c"fade", by_value(first.len(), order), &mut params![values, t]);
                launch(c"leave", by_value(3 * n, order), &mut params![tasks, blocks, n_leaders, gain, l, o, t]);
            }
            assert_eq!(trail, wanted, "{name}, order {order}");
        }
    }
}

#[test]
fn particles_fly_as_on_the_cpu() {
    for n in [2_usize, 31, 32, 33, 200] {
        let mut random = Random::new(n as u64);
        let base: Vec<u32> = (0..2 * n).map(|_| random.below(1 << 20) as u32).collect();
        let (seed, leader) = (77_u64 << 40 | 5, 2_u32);
        let values = CANDIDATES * n;
        let (mut key, mut velocity) = (vec![0; values], vec![0; values]);
        search::scatter(n, seed, &base, &mut key, &mut velocity);
        let (first_key, first_velocity) = (key.clone(), velocity.clone());
        let best: Vec<u32> = (0..values).map(|_| (random.below(3 << 20) as u32).wrapping_sub(1 << 20)).collect();
        for generation in 1..4 {
            search::fly(n, Round { seed, generation }, leader, &best, &mut key, &mut velocity);
        }
        for order in ORDERS {
            let (mut its_key, mut its_velocity) = (vec![9_u32; values], vec![9_u32; values]);
            let (tasks, candidates, bases) = (n as u32, CANDIDATES as u32, 2_u32);
            let (b, k, v) = (base.as_ptr(), its_key.as_mut_ptr(), its_velocity.as_mut_ptr());
            let (l, to, how) = (&raw const leader, best.as_ptr(), by_value(values, order));
            // SAFETY: the arguments of the kernels, arrays as large as they say.
            unsafe { launch(c"scatter", how, &mut params![tasks, candidates, bases, seed, b, k, v]) };
            assert_eq!((&its_key, &its_velocity), (&first_key, &first_velocity), "{n} tasks, order {order}");
            let (k, v) = (its_key.as_mut_ptr(), its_velocity.as_mut_ptr());
            for generation in 1..4_u32 {
                // SAFETY: as above.
                unsafe { launch(c"fly", how, &mut params![tasks, candidates, seed, generation, l, to, k, v]) };
            }
            assert_eq!((&its_key, &its_velocity), (&key, &velocity), "{n} tasks, order {order}");
        }
    }
}
