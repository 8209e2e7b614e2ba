//! Graphs made up to try a computation on: the shapes at which kernels might break, random ones, and large ones to measure
//! with. The same seed gives the same graph on every machine.

use crate::graph::{Edge, Rows, Task, TaskGraph, TaskId};
use crate::units::{Bytes, Millis};

/// A small generator (xorshift). Source: Marsaglia, "Xorshift RNGs", 2003.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts at a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Returns a number below `end`, which is not zero.
    pub const fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }

    /// Returns an index below `end`, which is not zero.
    #[expect(clippy::cast_possible_truncation, reason = "less than `end`")]
    pub const fn index(&mut self, end: usize) -> usize {
        self.below(end as u64) as usize
    }
}

/// Makes a graph of `n` tasks from edges that lead from a smaller to a larger index. Edges may be given twice.
///
/// # Panics
/// When there are more tasks or edges than ids.
#[must_use]
pub fn graph_of(n: usize, edges: &[(usize, usize)]) -> TaskGraph {
    let id = |index: usize| TaskId(u32::try_from(index).expect("ids are u32"));
    let rows = |key: fn(&(usize, usize)) -> usize, value: fn(&(usize, usize)) -> usize| {
        let mut offsets = vec![0_u32; n + 1];
        for edge in edges {
            offsets[key(edge) + 1] += 1;
        }
        for i in 0..n {
            offsets[i + 1] += offsets[i];
        }
        let mut next = offsets.clone();
        let mut row = vec![Edge { task: TaskId(0), data: Bytes::ZERO }; edges.len()];
        for edge in edges {
            let slot = &mut next[key(edge)];
            row[*slot as usize].task = id(value(edge));
            *slot += 1;
        }
        Rows { offsets, edges: row }
    };
    TaskGraph {
        tasks: vec![Task::default(); n],
        before: rows(|edge| edge.1, |edge| edge.0),
        after: rows(|edge| edge.0, |edge| edge.1),
        order: (0..n).map(id).collect(),
    }
}

/// `levels` of `width` tasks each, every one behind all of the level before.
#[must_use]
pub fn complete(levels: usize, width: usize) -> TaskGraph {
    let edge = |i: usize| (i / width + 1 < levels).then(|| (0..width).map(move |k| (i, (i / width + 1) * width + k)));
    graph_of(levels * width, &(0..levels * width).filter_map(edge).flatten().collect::<Vec<_>>())
}

/// `levels` of `width` tasks, each behind up to four of the level before and sometimes one of far before.
#[must_use]
pub fn layered(levels: usize, width: usize, seed: u64) -> TaskGraph {
    let mut random = Random::new(seed);
    let mut edges = Vec::new();
    for task in width..levels * width {
        let level = task / width;
        for _ in 0..random.below(5) {
            edges.push(((level - 1) * width + random.index(width), task));
        }
        if random.below(50) == 0 {
            edges.push((random.index(level * width), task));
        }
    }
    graph_of(levels * width, &edges)
}

/// `levels` of `width` tasks, each behind `sources` of the level before, somewhere among them.
#[must_use]
pub fn even(levels: usize, width: usize, sources: usize, seed: u64) -> TaskGraph {
    let mut random = Random::new(seed);
    let mut edges = Vec::with_capacity(levels * width * sources);
    for task in width..levels * width {
        let level = task / width;
        edges.extend((0..sources).map(|_| ((level - 1) * width + random.index(width), task)));
    }
    graph_of(levels * width, &edges)
}

/// Any acyclic graph of `n` tasks.
#[must_use]
pub fn any(n: usize, edges: usize, seed: u64) -> TaskGraph {
    let mut random = Random::new(seed);
    let mut pairs = Vec::new();
    for _ in 0..edges {
        let (a, b) = (random.index(n), random.index(n));
        if a != b {
            pairs.push((a.min(b), a.max(b)));
        }
    }
    graph_of(n, &pairs)
}

/// The shapes at which a kernel of warps might break, by name.
#[must_use]
pub fn edge_shapes() -> Vec<(String, TaskGraph)> {
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
#[must_use]
pub fn durations(n: usize, seed: u64) -> Vec<Millis> {
    let mut random = Random::new(seed);
    (0..n).map(|_| Millis(random.below(10) * random.below(1_000))).collect()
}
