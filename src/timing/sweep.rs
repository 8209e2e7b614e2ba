//! Times of a graph that is laid out once and asked for often: two sweeps over its levels, eight tasks at a time where the
//! processor can.
//!
//! A sweep finds the longest path that ends with each task; over the edges turned round it finds what must follow, so that
//! both are one loop. Values are whole ticks and are only added and compared: vectors give the same bits as one task after
//! the other, and both equal [`Timing::new`]. Slices of equally many sources each: Kreutzer et al., "A unified sparse matrix
//! data format for efficient general sparse matrix-vector multiplication on modern processors with wide SIMD units", 2014.
//! Does not know where tasks run.

use super::Timing;
use super::layout::{LANES, Layout};
use super::ticks::Ticks;
use crate::graph::{Rows, TaskGraph, TaskId};
use crate::units::Millis;

/// How a sweep goes through a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// One task after the other: what vectors must equal.
    Scalar,
    /// Eight tasks at once.
    Avx2,
}

impl Step {
    /// Returns the fastest one that this processor has.
    #[must_use]
    pub fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            return Self::Avx2;
        }
        Self::Scalar
    }
}

/// A graph ready for sweeps, with the times of the last one.
#[derive(Debug)]
pub struct Sweep {
    forward: Side,
    backward: Side,
    step: Step,
    tick: Millis,
}

impl Sweep {
    /// Lays a graph out for a way of going through it; [`Step::best`] is the fastest.
    #[must_use]
    pub fn new(graph: &TaskGraph, step: Step) -> Self {
        Self {
            forward: Side::new(&graph.before, graph.order.iter().copied()),
            backward: Side::new(&graph.after, graph.order.iter().rev().copied()),
            step: if step == Step::best() { step } else { Step::Scalar },
            tick: Millis(1),
        }
    }

    /// Computes the times for durations in ticks. Returns the makespan in ticks.
    ///
    /// # Panics
    /// When there are not as many durations as tasks.
    pub fn run(&mut self, duration: &Ticks) -> u32 {
        assert_eq!(duration.count.len(), self.forward.duration.len(), "one duration for each task");
        self.tick = duration.tick;
        for side in [&mut self.forward, &mut self.backward] {
            side.load(&duration.count);
            side.sweep(self.step);
        }
        self.makespan()
    }

    /// Returns how many levels the graph has: what [`Ticks::new`] needs to know.
    #[must_use]
    pub fn n_levels(&self) -> usize {
        self.forward.layout.n_levels()
    }

    /// Returns the longest path of the last run, in ticks.
    #[must_use]
    pub fn makespan(&self) -> u32 {
        self.forward.length[1..].iter().copied().max().unwrap_or(0)
    }

    /// Returns a task's earliest start and latest start in the last run, in ticks.
    #[must_use]
    pub fn starts(&self, task: TaskId, makespan: u32) -> (u32, u32) {
        let (ahead, behind) = (&self.forward, &self.backward);
        let (at, back) = (ahead.layout.place_of[task.index()] as usize, behind.layout.place_of[task.index()] as usize);
        (ahead.length[at + 1] - ahead.duration[at], makespan - behind.length[back + 1])
    }

    /// Runs, and returns what [`Timing::new`] does; `None` where durations do not fit ticks.
    #[must_use]
    pub fn timing(&mut self, duration: Vec<Millis>) -> Option<Timing> {
        let ticks = Ticks::new(&duration, self.n_levels())?;
        let makespan = self.run(&ticks);
        let ids = (0_u32..).take(duration.len()).map(TaskId);
        let starts = ids.map(|task| self.starts(task, makespan));
        let (earliest_start, latest_start) = starts.map(|(from, to)| (ticks.time(from), ticks.time(to))).unzip();
        Some(Timing { duration, earliest_start, latest_start, makespan: ticks.time(makespan) })
    }
}

/// One direction of time.
#[derive(Debug)]
struct Side {
    /// Made by [`Layout::new`] and never changed: each of its sources is a place or [`NONE`](super::layout::NONE), and lies
    /// before the slice that names it.
    layout: Layout,
    /// `[n_tasks]`, by place, in ticks.
    duration: Vec<u32>,
    /// `[1 + n_tasks]`: 0 for no task, then, by place, the longest path that ends with the task.
    length: Vec<u32>,
}

impl Side {
    fn new(sources: &Rows, order: impl Iterator<Item = TaskId>) -> Self {
        let layout = Layout::new(sources, order);
        let n = layout.task_at.len();
        Self { layout, duration: vec![0; n], length: vec![0; n + 1] }
    }

    fn load(&mut self, by_task: &[u32]) {
        self.duration.iter_mut().zip(&self.layout.task_at).for_each(|(at, task)| *at = by_task[*task as usize]);
    }

    fn sweep(&mut self, step: Step) {
        match step {
            Step::Scalar => self.walk(slice_scalar),
            #[cfg(target_arch = "x86_64")]
            // Signed indices: a graph of 2^31 tasks goes one by one.
            Step::Avx2 if self.duration.len() < 1 << 31 => self.walk(|slots, length, longest| {
                // SAFETY: `Sweep::new` keeps this way only where the processor has AVX2; the layout's sources are below
                // `n_tasks` or all ones, and `length` has `1 + n_tasks` values.
                unsafe { vectors::slice(slots, length, longest) }
            }),
            Step::Avx2 => self.walk(slice_scalar),
        }
    }

    /// Goes through all slices in order; `slice` finds the longest path into each lane.
    #[inline(always)]
    fn walk(&mut self, slice: impl Fn(&[u32], &[u32], &mut [u32])) {
        let layout = &self.layout;
        for index in 0..layout.n_slices() {
            let [first, end] = [layout.slice_task[index], layout.slice_task[index + 1]].map(|place| place as usize);
            let [from, to] = [layout.slice_slot[index], layout.slice_slot[index + 1]].map(|slot| slot as usize);
            let mut longest = [0_u32; LANES];
            slice(&layout.source[from..to], &self.length, &mut longest[..lanes(end - first)]);
            if end - first == 1 {
                // All lanes share the sources of one task.
                longest[0] = longest.iter().copied().max().unwrap_or(0);
            }
            let places = self.length[first + 1..=end].iter_mut().zip(&self.duration[first..end]);
            places.zip(longest).for_each(|((length, duration), longest)| *length = longest + duration);
        }
    }
}

/// Lanes that a slice of so many tasks uses, in whole vectors.
const fn lanes(tasks: usize) -> usize {
    if tasks == 1 { LANES } else { tasks.next_multiple_of(8) }
}

/// The longest path into each lane.
#[inline(always)]
fn slice_scalar(slots: &[u32], length: &[u32], longest: &mut [u32]) {
    for column in slots.chunks_exact(LANES) {
        for (longest, source) in longest.iter_mut().zip(column) {
            *longest = (*longest).max(length[source.wrapping_add(1) as usize]);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod vectors {
    //! The same with eight lanes at once.

    use std::arch::x86_64::{_mm256_i32gather_epi32, _mm256_loadu_si256, _mm256_max_epu32, _mm256_storeu_si256};

    use super::LANES;

    /// The longest path into each lane, of which there are whole vectors.
    ///
    /// # Safety
    /// The processor has AVX2; every source is all ones or an index into `length[1..]` that is below 2^31.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub(super) unsafe fn slice(slots: &[u32], length: &[u32], longest: &mut [u32]) {
        let base = length.as_ptr().wrapping_add(1).cast::<i32>();
        for (group, longest) in longest.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            // SAFETY: a chunk is eight values; unaligned reads and writes are meant for them.
            let mut most = unsafe { _mm256_loadu_si256(longest.as_ptr().cast()) };
            for column in slots.as_chunks::<LANES>().0 {
                let lane = column[8 * group..][..8].as_ptr();
                // SAFETY: eight values from `lane` on lie in the column; all ones are -1 and hit `length[0]`, what else is
                // there is an index into what follows it.
                let reached = unsafe { _mm256_i32gather_epi32::<4>(base, _mm256_loadu_si256(lane.cast())) };
                most = _mm256_max_epu32(most, reached);
            }
            // SAFETY: as above.
            unsafe { _mm256_storeu_si256(longest.as_mut_ptr().cast(), most) };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::timing::sample;

    fn assert_equal(name: &str, graph: &TaskGraph, duration: &[Millis]) {
        let expected = Timing::new(graph, duration.to_vec());
        for step in [Step::Scalar, Step::best()] {
            let mut sweep = Sweep::new(graph, step);
            assert_eq!(sweep.timing(duration.to_vec()).as_ref(), Some(&expected), "{name}, {step:?}");
            // What the first run left behind does not show.
            assert_eq!(sweep.timing(duration.to_vec()).as_ref(), Some(&expected), "{name}, {step:?}, again");
        }
    }

    #[test]
    fn every_shape_has_the_times_of_the_definition() {
        for (name, graph) in sample::edge_shapes() {
            assert_equal(&name, &graph, &sample::durations(graph.len(), 5));
        }
        assert_equal("nothing", &sample::graph_of(0, &[]), &[]);
    }

    #[test]
    fn durations_beyond_ticks_are_refused() {
        let graph = sample::graph_of(2, &[(0, 1)]);
        let long = vec![Millis(u64::MAX), Millis(u64::MAX - 1)];
        assert_eq!(Sweep::new(&graph, Step::best()).timing(long), None);
    }

    proptest! {
        #[test]
        fn any_graph_has_the_times_of_the_definition(n in 1_usize..300, edges in 0_usize..900, seed: u64) {
            let graph = sample::any(n, edges, seed);
            assert_equal("any", &graph, &sample::durations(n, seed));
        }
    }
}
