//! Who should compute the times of a graph: the processor, or a device and in which way. Predicted from the shape of the
//! graph and from five constants that are measured once per machine. Two more say who should compute a load matrix.
//!
//! Pure arithmetic in picoseconds; does not compute any times.

use serde::{Deserialize, Serialize};

use super::chunks::{Cut, MOST_LIVE};
use super::layout::Both;
use crate::graph::TaskGraph;

/// How a device finds the longest paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// A barrier across the device behind every level: for wide and shallow graphs.
    Levels,
    /// Every task waits for its own sources: for graphs of middling depth.
    Dataflow,
    /// Chunks at the same time, joined by their (max, +) matrices: for deep and narrow graphs.
    Transfer,
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Levels, Self::Dataflow, Self::Transfer];
}

/// Who computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Choice {
    /// The processor.
    Cpu,
    /// A device.
    Device(Way),
}

impl Choice {
    /// Returns its name.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Cpu => "CPU",
            Self::Device(Way::Levels) => "CUDA, level by level",
            Self::Device(Way::Dataflow) => "CUDA, dataflow",
            Self::Device(Way::Transfer) => "CUDA, in chunks",
        }
    }
}

/// What a prediction rests on. A step through a graph costs something for each task and each edge: both count as work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Tasks and edges.
    pub work: u64,
    /// Tasks.
    pub tasks: u64,
    /// Tasks of the longest chain.
    pub levels: u64,
    /// Tasks that are still waited for at the best cuts, there or back; more than [`MOST_LIVE`] rule [`Way::Transfer`]
    /// out.
    pub frontier: u64,
    /// Tasks of the largest chunk, there or back.
    pub largest: u64,
}

impl Shape {
    /// Returns the work of a graph: all that is known before it is laid out.
    #[must_use]
    pub fn work_of(graph: &TaskGraph) -> u64 {
        (graph.len() + graph.before.edges.len()) as u64
    }

    /// Returns the shape of a graph that is laid out.
    #[must_use]
    pub fn new(graph: &TaskGraph, Both { forward, backward }: &Both) -> Self {
        let most = graph.len().isqrt().max(2);
        let there = Cut::new(forward, &graph.before, most);
        let Cut { frontier, largest } = there.or_worse(Cut::new(backward, &graph.after, most));
        let levels = forward.n_levels() as u64;
        Self { work: Self::work_of(graph), tasks: graph.len() as u64, levels, frontier, largest }
    }
}

/// What a machine needs, in picoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuCost {
    /// The processor, for a unit of work in both directions.
    pub work: u64,
    /// For an entry of a load matrix.
    pub load: u64,
}

/// What a device needs, in picoseconds. With [`CpuCost`] these are the five constants, and the time that opening takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceCost {
    /// Opening it: the driver, a context, the kernels.
    pub open: u64,
    /// Laying out, uploading and bringing back, for a unit of work.
    pub carry: u64,
    /// The kernels, for a unit of work in both directions.
    pub work: u64,
    /// A barrier across all blocks.
    pub barrier: u64,
    /// From a task's end to the start of the next one of a chain.
    pub hop: u64,
    /// An entry of a load matrix, brought back.
    pub load: u64,
}

impl CpuCost {
    /// Returns how long the processor takes for the times of a graph.
    #[must_use]
    pub const fn predict(self, work: u64) -> u64 {
        work.saturating_mul(self.work)
    }

    /// Returns how long it takes for a load matrix.
    #[must_use]
    pub const fn predict_loads(self, entries: u64) -> u64 {
        entries.saturating_mul(self.load)
    }
}

impl DeviceCost {
    /// Returns how long a device takes for a load matrix, opening it included.
    #[must_use]
    pub const fn predict_loads(self, entries: u64) -> u64 {
        self.open.saturating_add(entries.saturating_mul(self.load))
    }

    /// Returns what no way can be faster than, whatever the shape.
    #[must_use]
    pub const fn least(self, work: u64) -> u64 {
        self.open.saturating_add(work.saturating_mul(self.carry.saturating_add(self.work)))
    }

    /// Returns how long a device takes in one way, opening it included; `None` where the way is none for this shape.
    #[must_use]
    pub fn predict(self, way: Way, shape: &Shape) -> Option<u64> {
        let both = |steps: u64, each: u64| steps.saturating_mul(each).saturating_mul(2);
        let kernels = match way {
            Way::Levels => both(shape.levels, self.barrier),
            Way::Dataflow => both(shape.levels, self.hop),
            Way::Transfer if shape.frontier > MOST_LIVE as u64 => return None,
            Way::Transfer => {
                // A warp walks a chunk task by task, and one warp all chunks: the largest is waited for. Every edge is followed
                // for 32 starts.
                let chunks = shape.tasks.isqrt().max(2).min(shape.levels.max(1));
                let walk = both(shape.largest + chunks, self.hop);
                walk.saturating_add(shape.work.saturating_mul(self.work).saturating_mul(31))
            }
        };
        Some(self.least(shape.work).saturating_add(kernels))
    }

    /// Returns the fastest way and how long it takes.
    #[must_use]
    pub fn best(self, shape: &Shape) -> (Way, u64) {
        let all = Way::ALL.into_iter().filter_map(|way| Some((way, self.predict(way, shape)?)));
        all.min_by_key(|(_, time)| *time).unwrap_or((Way::Dataflow, u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    /// About what a large card is expected to need; no measurement.
    const DEVICE: DeviceCost = DeviceCost { open: 0, carry: 0, work: 10, barrier: 1_500_000, hop: 600_000, load: 0 };

    #[test]
    fn a_wide_graph_flows_and_a_deep_narrow_one_goes_in_chunks() {
        let wide = Shape { work: 5_000_000, tasks: 1_000_000, levels: 64, frontier: 15_000, largest: 1_000_000 };
        assert_eq!(DEVICE.best(&wide).0, Way::Dataflow);
        let deep = Shape { work: 5_000_000, tasks: 1_000_000, levels: 100_000, frontier: 10, largest: 2_000 };
        assert_eq!(DEVICE.best(&deep).0, Way::Transfer);
    }

    #[test]
    fn a_cheap_barrier_makes_levels_the_way() {
        let wide = Shape { work: 5_000_000, tasks: 1_000_000, levels: 64, frontier: 15_000, largest: 1_000_000 };
        assert_eq!(DeviceCost { barrier: 1_000, ..DEVICE }.best(&wide).0, Way::Levels);
    }

    #[test]
    fn a_graph_that_cannot_be_cut_has_no_prediction_in_chunks() {
        let wide = Shape { work: 100, tasks: 50, levels: 4, frontier: 32, largest: 50 };
        assert_eq!(DEVICE.predict(Way::Transfer, &wide), None);
    }

    #[test]
    fn one_chunk_with_nearly_all_tasks_is_no_way() {
        let deep = Shape { work: 5_000_000, tasks: 1_000_000, levels: 100_000, frontier: 10, largest: 999_000 };
        assert_eq!(DEVICE.best(&deep).0, Way::Dataflow);
    }

    #[test]
    fn the_way_back_through_a_deep_graph_is_cut_as_finely_as_the_way_there() {
        let leaves = |n: usize| -> Vec<_> {
            (0..n).flat_map(|i| [(2 * i, 2 * i + 1), (2 * i, 2 * i + 2)]).filter(|(_, to)| *to < 2 * n).collect()
        };
        for graph in [sample::even(2_000, 10, 4, 1), sample::graph_of(20_000, &leaves(10_000))] {
            let Shape { frontier, largest, tasks, .. } = Shape::new(&graph, &Both::new(&graph));
            // Two stretches of levels may lie between two cuts.
            assert!(frontier <= MOST_LIVE as u64 && largest <= 2 * tasks.isqrt() + 20, "{frontier}, {largest}");
        }
    }

    #[test]
    fn no_prediction_is_below_the_least() {
        let shape = Shape { work: 1_000, tasks: 500, levels: 10, frontier: 3, largest: 40 };
        for way in Way::ALL {
            assert!(DEVICE.predict(way, &shape).unwrap() >= DEVICE.least(shape.work));
        }
    }
}
