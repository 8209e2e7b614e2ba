//! Graphs to try kernels on: the shapes at which they might break, and random ones. Knows nothing of pipeline files.

use trainyard::graph::{Edge, Rows, Task, TaskGraph, TaskId};
use trainyard::units::{Bytes, Millis};

/// A small generator for graphs that are the same on every machine (xorshift, Marsaglia 2003).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }
}

/// Makes a graph from edges that lead from a smaller to a larger index. Edges may be given twice.
pub(crate) fn graph_of(n: usize, edges: &[(usize, usize)]) -> TaskGraph {
    let rows = |mut edges: Vec<(usize, usize)>| {
        edges.sort_unstable();
        let offsets = (0..=n).map(|i| edges.partition_point(|(from, _)| *from < i) as u32).collect();
        let edge = |(_, to): &(usize, usize)| Edge { task: TaskId(*to as u32), data: Bytes::ZERO };
        Rows { offsets, edges: edges.iter().map(edge).collect() }
    };
    TaskGraph {
        tasks: vec![Task::default(); n],
        before: rows(edges.iter().map(|(a, b)| (*b, *a)).collect()),
        after: rows(edges.to_vec()),
        order: (0..n as u32).map(TaskId).collect(),
    }
}

/// `levels` of `width` tasks each, every one behind all of the level before.
fn complete(levels: usize, width: usize) -> TaskGraph {
    let edge = |i: usize| (i / width + 1 < levels).then(|| (0..width).map(move |k| (i, (i / width + 1) * width + k)));
    graph_of(levels * width, &(0..levels * width).filter_map(edge).flatten().collect::<Vec<_>>())
}

/// `levels` of `width` tasks, each behind up to four of the level before and sometimes one of far before.
pub(crate) fn layered(levels: usize, width: usize, seed: u64) -> TaskGraph {
    let mut random = Random::new(seed);
    let mut edges = Vec::new();
    for task in width..levels * width {
        let level = task / width;
        for _ in 0..random.below(5) {
            edges.push(((level - 1) * width + random.below(width as u64) as usize, task));
        }
        if random.below(50) == 0 {
            edges.push((random.below((level * width) as u64) as usize, task));
        }
    }
    graph_of(levels * width, &edges)
}

/// Any acyclic graph of `n` tasks whose numbers are shuffled along the order.
pub(crate) fn any(n: usize, edges: usize, seed: u64) -> TaskGraph {
    let mut random = Random::new(seed);
    let mut pairs = Vec::new();
    for _ in 0..edges {
        let (a, b) = (random.below(n as u64) as usize, random.below(n as u64) as usize);
        if a != b {
            pairs.push((a.min(b), a.max(b)));
        }
    }
    graph_of(n, &pairs)
}

/// The shapes at which a kernel of warps might break, by name.
pub(crate) fn edge_shapes() -> Vec<(String, TaskGraph)> {
    let chain: Vec<_> = (1..100).map(|i| (i - 1, i)).collect();
    let out: Vec<_> = (1..200).map(|i| (0, i)).collect();
    let into: Vec<_> = (0..199).map(|i| (i, 199)).collect();
    let mut shapes = vec![
        ("one task".to_owned(), graph_of(1, &[])),
        ("no edge".to_owned(), graph_of(70, &[])),
        ("chain".to_owned(), graph_of(100, &chain)),
        ("star outward".to_owned(), graph_of(200, &out)),
        ("star inward, more sources than lanes".to_owned(), graph_of(200, &into)),
        ("an edge given twice".to_owned(), graph_of(3, &[(0, 1), (0, 1), (1, 2)])),
        ("isolated among others".to_owned(), graph_of(9, &[(0, 4), (4, 8)])),
    ];
    shapes.extend([31, 32, 33, 70].map(|width| (format!("complete, {width} wide"), complete(4, width))));
    shapes.extend([31, 32, 33].map(|width| (format!("layered, {width} wide"), layered(12, width, 3))));
    shapes
}

/// Durations of which some are zero.
pub(crate) fn durations(n: usize, seed: u64) -> Vec<Millis> {
    let mut random = Random::new(seed);
    (0..n).map(|_| Millis(random.below(10) * random.below(1_000))).collect()
}
