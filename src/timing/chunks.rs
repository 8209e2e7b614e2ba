//! A deep and narrow graph, cut where few tasks are still waited for: the arrays of `transfer_*` in
//! `kernels/timing.cu`.
//!
//! Between two cuts, all paths can be timed from each live task and from inside at the same time as those of every other
//! chunk; joining them is a product in (max, +) arithmetic. Does not know durations.

use super::layout::Layout;
use crate::graph::{Rows, TaskId};

/// Tasks that may be live at a cut: a lane each, and one lane for paths that start inside the chunk.
pub const MOST_LIVE: usize = 31;

/// What `carried` holds where there is no live task.
const NOBODY: i32 = i32::MIN;

/// Lanes of a warp: live tasks and the inside.
const LANES: usize = MOST_LIVE + 1;

/// What cutting a layout comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Tasks that are live at the cuts at most; more than [`MOST_LIVE`] are not cut.
    pub frontier: u64,
    /// Tasks of the largest chunk: a warp walks them one by one.
    pub largest: u64,
}

impl Cut {
    /// Returns what cutting into at most about `most` chunks comes to.
    #[must_use]
    pub fn new(layout: &Layout, sources: &Rows, most: usize) -> Self {
        let last_reader = last_readers(layout, sources);
        let live = live(layout, &last_reader);
        let least = stretches(layout.n_levels(), most).map(|levels| levels.map(|level| live[level]).min().unwrap_or(0));
        let chunks = cuts(layout, &live, most);
        let largest = chunks.windows(2).map(|chunk| u64::from(chunk[1] - chunk[0])).max();
        Self { frontier: least.max().unwrap_or(u64::MAX), largest: largest.unwrap_or(0) }
    }

    /// Returns the worse of two: both ways must be gone.
    #[must_use]
    pub fn or_worse(self, other: Self) -> Self {
        Self { frontier: self.frontier.max(other.frontier), largest: self.largest.max(other.largest) }
    }
}

/// A layout cut into chunks. A reference is a place of the same chunk, or `!k` for live task `k` of the cut before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunks {
    /// `[n_chunks + 1]`, the first place of each chunk.
    pub chunk_task: Vec<u32>,
    /// `[n_tasks]`, by place: its chunk.
    pub chunk_of: Vec<u32>,
    /// `[n_tasks + 1]`, by place: where its references start.
    pub offset: Vec<u32>,
    /// `[n_edges]`, references.
    pub reference: Vec<i32>,
    /// `[n_chunks][32]`: what becomes live task `k` of the next chunk, as a reference.
    pub carried: Vec<i32>,
}

impl Chunks {
    /// Cuts a layout into at most about `most` chunks, at ends of levels. `None` where a graph is too wide for two.
    #[must_use]
    pub fn new(layout: &Layout, sources: &Rows, most: usize) -> Option<Self> {
        let n_tasks = layout.task_at.len();
        let last_reader = last_readers(layout, sources);
        let cuts = cuts(layout, &live(layout, &last_reader), most);
        if cuts.len() < 3 {
            return None;
        }
        let mut chunks = Self { offset: vec![0], chunk_task: cuts, ..Self::default() };
        let mut live: Vec<u32> = Vec::new();
        let mut live_index = vec![0_i32; n_tasks];
        for (chunk, bounds) in (0_u32..).zip(chunks.chunk_task.clone().windows(2)) {
            let (first, end) = (bounds[0], bounds[1]);
            let reference = |place: u32| {
                if place >= first { place.cast_signed() } else { !live_index[place as usize] }
            };
            for place in first..end {
                let before = sources.of(TaskId(layout.task_at[place as usize]));
                let places = before.iter().map(|edge| layout.place_of[edge.task.index()]);
                chunks.reference.extend(places.map(reference));
                chunks.offset.push(u32::try_from(chunks.reference.len()).expect("edges are counted in u32"));
                chunks.chunk_of.push(chunk);
            }
            live.extend(first..end);
            live.retain(|place| last_reader[*place as usize] >= end);
            chunks.carried.extend(live.iter().map(|place| reference(*place)));
            chunks.carried.resize(chunks.chunk_of[first as usize] as usize * LANES + LANES, NOBODY);
            for (k, place) in (0..).zip(&live) {
                live_index[*place as usize] = k;
            }
        }
        Some(chunks)
    }

    /// Returns how many chunks there are.
    #[must_use]
    pub fn n_chunks(&self) -> usize {
        self.chunk_task.len() - 1
    }
}

/// Returns by place the last place that reads it; its own where nobody does.
fn last_readers(layout: &Layout, sources: &Rows) -> Vec<u32> {
    let mut last: Vec<u32> = (0_u32..).take(layout.task_at.len()).collect();
    for (place, task) in (0..).zip(&layout.task_at) {
        for edge in sources.of(TaskId(*task)) {
            // Places ascend, so the last one to write is the largest.
            last[layout.place_of[edge.task.index()] as usize] = place;
        }
    }
    last
}

/// Returns by level how many tasks before it are read in it or later.
fn live(layout: &Layout, last_reader: &[u32]) -> Vec<u64> {
    let n_levels = layout.n_levels();
    let starts: Vec<u32> = (0..=n_levels).map(|level| layout.level_task(level)).collect();
    let level_of = |place: u32| starts.partition_point(|start| *start <= place) - 1;
    let (mut born, mut gone) = (vec![0_u64; n_levels + 1], vec![0_u64; n_levels + 1]);
    for (place, last) in (0..).zip(last_reader) {
        born[level_of(place) + 1] += 1;
        gone[level_of(*last) + 1] += 1;
    }
    let mut now = 0;
    let live = born.iter().zip(&gone).map(|(born, gone)| {
        now = now + born - gone;
        now
    });
    live.collect()
}

/// Returns the stretches of levels, at most about `most`, each of which is cut once.
fn stretches(n_levels: usize, most: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let stretch = n_levels.div_ceil(most.max(1)).max(1);
    (1..n_levels).step_by(stretch).map(move |from| from..(from + stretch).min(n_levels))
}

/// Returns the first places of all chunks and the number of tasks: of each stretch of levels the end with the fewest live
/// tasks, if they are few enough.
fn cuts(layout: &Layout, live: &[u64], most: usize) -> Vec<u32> {
    let n_levels = layout.n_levels();
    let mut cuts = vec![0];
    for levels in stretches(n_levels, most) {
        let best = levels.min_by_key(|level| live[*level]);
        cuts.extend(best.filter(|level| live[*level] <= MOST_LIVE as u64).map(|level| layout.level_task(level)));
    }
    cuts.push(layout.level_task(n_levels));
    cuts
}
