//! A graph as the kernels of `kernels/timing.cu` read it: tasks by level, in slices of a warp each.
//!
//! Within a level the tasks with most sources come first, so that the lanes of a warp have equally much to do. The way back
//! goes over the same levels from the last to the first: laid out anew, every task that nobody waits for would come first
//! and be live until its sources come. Does not know durations.

use crate::graph::{Rows, TaskGraph, TaskId};

/// Tasks of a slice: the lanes of a warp.
pub const LANES: usize = 32;

/// Sources beyond which a task gets a slice of its own, whose lanes share them: two for each lane.
const MANY: usize = 2 * LANES;

/// Fills up slots: no task.
pub const NONE: u32 = u32::MAX;

/// Tasks in the order of their places, cut into slices. Arrays as `kernels/timing.cu` describes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// `[n_tasks]`, by place: the task there.
    pub task_at: Vec<u32>,
    /// `[n_tasks]`, by TaskId: its place.
    pub place_of: Vec<u32>,
    /// `[n_levels + 1]`, the first slice of each level.
    pub level_slice: Vec<u32>,
    /// `[n_slices + 1]`, the first place of each slice.
    pub slice_task: Vec<u32>,
    /// `[n_slices + 1]`, the first slot of each slice, a multiple of [`LANES`].
    pub slice_slot: Vec<u32>,
    /// `[n_slots]`, places, or [`NONE`].
    pub source: Vec<u32>,
}

impl Layout {
    /// Lays a graph out: `sources` are those that must end before a task, `order` has them before it.
    ///
    /// # Panics
    /// When `order` names a task that `sources` does not have.
    #[must_use]
    pub fn new(sources: &Rows, order: impl Iterator<Item = TaskId>) -> Self {
        let n_tasks = sources.offsets.len().saturating_sub(1);
        let mut level = vec![0_u32; n_tasks];
        for task in order {
            let before = sources.of(task).iter().map(|edge| level[edge.task.index()] + 1);
            level[task.index()] = before.max().unwrap_or(0);
        }
        Self::of_levels(sources, &level)
    }

    /// Lays the way back out, over the levels of this layout; `after` are the rows turned round.
    #[must_use]
    pub fn back(&self, after: &Rows) -> Self {
        let n_levels = self.n_levels();
        let mut level = vec![0_u32; self.task_at.len()];
        for of in 0..n_levels {
            let places = self.level_task(of) as usize..self.level_task(of + 1) as usize;
            for task in &self.task_at[places] {
                level[*task as usize] = count(n_levels - 1 - of);
            }
        }
        Self::of_levels(after, &level)
    }

    /// Lays tasks out whose levels are known: none without a task, and above those of its sources.
    fn of_levels(sources: &Rows, level: &[u32]) -> Self {
        let n_sources = |task: u32| sources.of(TaskId(task)).len();
        let most_sources = (0..count(level.len())).map(n_sources).max().unwrap_or(0);
        let by_sources =
            sorted((0..count(level.len())).collect(), most_sources + 1, |task| most_sources - n_sources(task));
        let n_levels = level.iter().max().map_or(0, |highest| *highest as usize + 1);
        let tasks = sorted(by_sources, n_levels, |task| level[task as usize] as usize);
        let mut layout = Self {
            place_of: vec![0; tasks.len()],
            slice_task: vec![0],
            slice_slot: vec![0],
            source: Vec::with_capacity(sources.edges.len()),
            ..Self::default()
        };
        for (place, task) in (0..).zip(&tasks) {
            layout.place_of[*task as usize] = place;
        }
        for same in tasks.chunk_by(|a, b| level[*a as usize] == level[*b as usize]) {
            layout.level_slice.push(count(layout.slice_task.len() - 1));
            let many = same.partition_point(|task| n_sources(*task) > MANY);
            same[..many].chunks(1).chain(same[many..].chunks(LANES)).for_each(|slice| layout.add(sources, slice));
        }
        layout.level_slice.push(count(layout.slice_task.len() - 1));
        layout.task_at = tasks;
        layout
    }

    /// Adds a slice of tasks of one level, those with most sources first.
    fn add(&mut self, sources: &Rows, slice: &[u32]) {
        let first = self.source.len();
        match slice {
            [task] => {
                let sources = sources.of(TaskId(*task));
                self.source.extend(sources.iter().map(|edge| self.place_of[edge.task.index()]));
                self.source.resize(first + sources.len().next_multiple_of(LANES), NONE);
            }
            _ => {
                let most = slice.first().map_or(0, |task| sources.of(TaskId(*task)).len());
                self.source.resize(first + most * LANES, NONE);
                for (lane, task) in slice.iter().enumerate() {
                    let slots = self.source[first..].iter_mut().skip(lane).step_by(LANES);
                    for (slot, edge) in slots.zip(sources.of(TaskId(*task))) {
                        *slot = self.place_of[edge.task.index()];
                    }
                }
            }
        }
        self.slice_task.push(self.slice_task[self.slice_task.len() - 1] + count(slice.len()));
        self.slice_slot.push(count(self.source.len()));
    }

    /// Returns how many levels there are: the tasks of the longest chain.
    #[must_use]
    pub fn n_levels(&self) -> usize {
        self.level_slice.len() - 1
    }

    /// Returns how many slices there are.
    #[must_use]
    pub fn n_slices(&self) -> usize {
        self.slice_task.len() - 1
    }

    /// Returns the first place of a level; for `n_levels`, the number of tasks.
    #[must_use]
    pub fn level_task(&self, level: usize) -> u32 {
        self.slice_task[self.level_slice[level] as usize]
    }

    /// Returns values that are held by task in the order of the places.
    #[must_use]
    pub fn by_place<T: Copy>(&self, by_task: &[T]) -> Vec<T> {
        self.task_at.iter().map(|task| by_task[*task as usize]).collect()
    }
}

/// The layouts of a graph, there and back.
#[derive(Clone, Debug)]
pub struct Both {
    /// From the sources on: `before`.
    pub forward: Layout,
    /// From the ends on: `after`.
    pub backward: Layout,
}

impl Both {
    /// Lays a graph out.
    #[must_use]
    pub fn new(graph: &TaskGraph) -> Self {
        let forward = Layout::new(&graph.before, graph.order.iter().copied());
        Self { backward: forward.back(&graph.after), forward }
    }
}

/// Sorts tasks by a key below `keys`; equal ones stay in order. Counts, as there are about as few keys as tasks.
fn sorted(tasks: Vec<u32>, keys: usize, key: impl Fn(u32) -> usize) -> Vec<u32> {
    let mut next = vec![0_u32; keys];
    for task in &tasks {
        next[key(*task)] += 1;
    }
    let mut before = 0;
    for next in &mut next {
        before += std::mem::replace(next, before);
    }
    let mut sorted = vec![0; tasks.len()];
    for task in tasks {
        let place = &mut next[key(task)];
        sorted[*place as usize] = task;
        *place += 1;
    }
    sorted
}

/// A length as the kernels count: graphs have `u32` ids and `u32` edges, and slots are at most 32 times as many.
fn count(length: usize) -> u32 {
    u32::try_from(length).expect("a graph of u32 ids whose slots are counted in u32")
}
