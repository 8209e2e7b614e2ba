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
        let n_tasks = level.len();
        let mut tasks: Vec<TaskId> = (0_u32..).take(n_tasks).map(TaskId).collect();
        tasks.sort_by_key(|task| (level[task.index()], std::cmp::Reverse(sources.of(*task).len())));
        let mut layout =
            Self { place_of: vec![0; n_tasks], slice_task: vec![0], slice_slot: vec![0], ..Self::default() };
        for (place, task) in (0..).zip(&tasks) {
            layout.place_of[task.index()] = place;
        }
        for same in tasks.chunk_by(|a, b| level[a.index()] == level[b.index()]) {
            layout.level_slice.push(count(layout.slice_task.len() - 1));
            let many = same.partition_point(|task| sources.of(*task).len() > MANY);
            same[..many].chunks(1).chain(same[many..].chunks(LANES)).for_each(|slice| layout.add(sources, slice));
        }
        layout.level_slice.push(count(layout.slice_task.len() - 1));
        layout.task_at = tasks.iter().map(|task| task.0).collect();
        layout
    }

    /// Adds a slice of tasks of one level.
    fn add(&mut self, sources: &Rows, slice: &[TaskId]) {
        let place = |task: TaskId, k: usize| sources.of(task).get(k).map(|edge| self.place_of[edge.task.index()]);
        let most = slice.iter().map(|task| sources.of(*task).len()).max().unwrap_or(0);
        let mut slots = Vec::new();
        match slice {
            [task] => slots.extend((0..most.next_multiple_of(LANES)).map(|k| place(*task, k).unwrap_or(NONE))),
            _ => {
                for k in 0..most {
                    let lanes = (0..LANES).map(|lane| slice.get(lane).and_then(|task| place(*task, k)));
                    slots.extend(lanes.map(|place| place.unwrap_or(NONE)));
                }
            }
        }
        self.source.extend(slots);
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

/// A length as the kernels count: graphs have `u32` ids and `u32` edges, and slots are at most 32 times as many.
fn count(length: usize) -> u32 {
    u32::try_from(length).expect("a graph of u32 ids whose slots are counted in u32")
}
