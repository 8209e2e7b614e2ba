//! The longest path of one graph for many candidates, each of which chooses a duration for every task.
//!
//! The lanes of a vector register are candidates: all of them walk the same tape, so there is nothing to branch on. The same
//! source is compiled for what processors have; which of these runs is found out when it runs.
//!
//! For whoever has one graph and many durations, as the author of a search or of a what-if has. The planner's own searches
//! judge orders with devices and memory in the way ([`lists`](super::lists), [`sgs`](super::sgs)), which tells more of a
//! plan than its longest path, so none of them asks for this.

use super::tape::Tape;
use super::{MOST_TICKS, Unfit};
use crate::graph::TaskGraph;
use crate::timing::Timing;
use crate::units::Millis;

/// Durations that a task may choose between: as many as one register holds.
pub const KINDS: usize = 16;

/// Candidates that are timed at the same time: one of the widest registers.
const LANES: usize = 16;

/// Durations to choose between, by task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Times {
    /// `[n_tasks][KINDS]`, in the order of the tape, in ticks.
    by_step: Vec<[u32; KINDS]>,
    n_kinds: usize,
}

impl Times {
    /// Takes `[n_tasks][n_kinds]` by TaskId.
    ///
    /// # Errors
    /// Where there are too many, or a path may be too long.
    ///
    /// # Panics
    /// When there is not a row for each task.
    pub fn new(graph: &TaskGraph, tape: &Tape, times: &[u32], n_kinds: usize) -> Result<Self, Unfit> {
        assert_eq!(times.len(), graph.len() * n_kinds, "durations for each task");
        if n_kinds == 0 || n_kinds > KINDS {
            return Err(Unfit::TooManyKinds);
        }
        let longest = |row: &[u32]| Millis(row.iter().copied().max().unwrap_or(0).into());
        let most = Timing::new(graph, times.chunks(n_kinds).map(longest).collect());
        if most.makespan.0 >= MOST_TICKS {
            return Err(Unfit::TooLong);
        }
        let row = |task: &crate::graph::TaskId| {
            let mut row = [0; KINDS];
            row[..n_kinds].copy_from_slice(&times[task.index() * n_kinds..][..n_kinds]);
            row
        };
        Ok(Self { by_step: tape.order().iter().map(row).collect(), n_kinds })
    }

    /// Returns `[n_tasks][KINDS]`, in the order of the tape.
    #[must_use]
    pub fn by_step(&self) -> &[[u32; KINDS]] {
        &self.by_step
    }

    /// Returns how many of each row are durations.
    #[must_use]
    pub const fn n_kinds(&self) -> usize {
        self.n_kinds
    }
}

/// What each candidate chooses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choices {
    n_candidates: usize,
    by_step: Vec<u8>,
}

impl Choices {
    /// Takes `[n_tasks][n_candidates]`, tasks in the order of the tape.
    ///
    /// # Errors
    /// Where one chooses what there is not.
    ///
    /// # Panics
    /// When there is not a row for each task.
    pub fn new(times: &Times, n_candidates: usize, by_step: Vec<u8>) -> Result<Self, Unfit> {
        assert_eq!(by_step.len(), n_candidates * times.by_step.len(), "a choice for each task and candidate");
        if by_step.iter().any(|kind| usize::from(*kind) >= times.n_kinds) {
            return Err(Unfit::TooManyKinds);
        }
        Ok(Self { n_candidates, by_step })
    }

    /// Returns how many candidates there are.
    #[must_use]
    pub const fn n_candidates(&self) -> usize {
        self.n_candidates
    }

    /// Returns `[n_tasks][n_candidates]`, tasks in the order of the tape.
    #[must_use]
    pub fn by_step(&self) -> &[u8] {
        &self.by_step
    }
}

/// Returns the longest path of every candidate, in ticks.
#[must_use]
pub fn makespans(tape: &Tape, times: &Times, choices: &Choices) -> Vec<u32> {
    let walk = fastest_walk();
    let n = choices.n_candidates;
    let mut rows = vec![[0; LANES]; tape.n_rows()];
    let mut chosen = vec![[0_u8; LANES]; times.by_step.len()];
    let mut found = Vec::with_capacity(n);
    for first in (0..n).step_by(LANES) {
        let lanes = LANES.min(n - first);
        for (row, of_task) in chosen.iter_mut().zip(choices.by_step.chunks_exact(n)) {
            row[..lanes].copy_from_slice(&of_task[first..first + lanes]);
        }
        let longest = walk(tape.words(), &times.by_step, &chosen, &mut rows);
        found.extend_from_slice(&longest[..lanes]);
    }
    found
}

type Walk = fn(&[u16], &[[u32; KINDS]], &[[u8; LANES]], &mut [[u32; LANES]]) -> [u32; LANES];

/// Walks the tape for a block of candidates.
#[inline(always)]
fn walk(tape: &[u16], times: &[[u32; KINDS]], chosen: &[[u8; LANES]], rows: &mut [[u32; LANES]]) -> [u32; LANES] {
    let mut longest = [0; LANES];
    let mut tape = tape;
    for (times, chosen) in times.iter().zip(chosen) {
        let [row, n_sources, rest @ ..] = tape else { break };
        let (sources, rest) = rest.split_at(usize::from(*n_sources));
        tape = rest;
        let mut end = [0; LANES];
        for source in sources {
            let source = &rows[usize::from(*source)];
            for lane in 0..LANES {
                end[lane] = end[lane].max(source[lane]);
            }
        }
        for lane in 0..LANES {
            end[lane] += times[usize::from(chosen[lane]) % KINDS];
            longest[lane] = longest[lane].max(end[lane]);
        }
        rows[usize::from(*row)] = end;
    }
    longest
}

fn plain(tape: &[u16], times: &[[u32; KINDS]], chosen: &[[u8; LANES]], rows: &mut [[u32; LANES]]) -> [u32; LANES] {
    walk(tape, times, chosen, rows)
}

/// Returns the walk for the widest registers that this processor has.
#[cfg(target_arch = "x86_64")]
fn fastest_walk() -> Walk {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    fn avx512(tape: &[u16], times: &[[u32; KINDS]], chosen: &[[u8; LANES]], rows: &mut [[u32; LANES]]) -> [u32; LANES] {
        walk(tape, times, chosen, rows)
    }
    #[target_feature(enable = "avx2")]
    fn avx2(tape: &[u16], times: &[[u32; KINDS]], chosen: &[[u8; LANES]], rows: &mut [[u32; LANES]]) -> [u32; LANES] {
        walk(tape, times, chosen, rows)
    }
    let has = [
        is_x86_feature_detected!("avx512f"),
        is_x86_feature_detected!("avx512bw"),
        is_x86_feature_detected!("avx512vl"),
        is_x86_feature_detected!("avx512dq"),
    ];
    if has.iter().all(|has| *has) {
        // SAFETY: the processor has them.
        return |tape, times, chosen, rows| unsafe { avx512(tape, times, chosen, rows) };
    }
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has it.
        return |tape, times, chosen, rows| unsafe { avx2(tape, times, chosen, rows) };
    }
    plain
}

/// Returns the walk for this processor.
#[cfg(not(target_arch = "x86_64"))]
fn fastest_walk() -> Walk {
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timing::sample::{Random, any, edge_shapes};

    /// Times each candidate by itself.
    fn one_by_one(graph: &TaskGraph, tape: &Tape, times: &[u32], n_kinds: usize, choices: &Choices) -> Vec<u32> {
        let of = |candidate: usize| {
            let mut duration = vec![Millis::ZERO; graph.len()];
            for (step, task) in tape.order().iter().enumerate() {
                let kind = choices.by_step[step * choices.n_candidates + candidate];
                duration[task.index()] = Millis(times[task.index() * n_kinds + usize::from(kind)].into());
            }
            u32::try_from(Timing::new(graph, duration).makespan.0).unwrap()
        };
        (0..choices.n_candidates).map(of).collect()
    }

    fn assert_equal(graph: &TaskGraph, n_candidates: usize, n_kinds: usize, seed: u64) {
        let mut random = Random::new(seed);
        let tape = Tape::new(graph).unwrap();
        let times: Vec<u32> = (0..graph.len() * n_kinds).map(|_| random.below(1_000) as u32).collect();
        let chosen = (0..graph.len() * n_candidates).map(|_| random.below(n_kinds as u64) as u8).collect();
        let of_tape = Times::new(graph, &tape, &times, n_kinds).unwrap();
        let choices = Choices::new(&of_tape, n_candidates, chosen).unwrap();
        let wanted = one_by_one(graph, &tape, &times, n_kinds, &choices);
        assert_eq!(makespans(&tape, &of_tape, &choices), wanted);
        let first: Vec<_> = (0..graph.len())
            .map(|step| {
                let mut lanes = [0; LANES];
                let n = n_candidates.min(LANES);
                lanes[..n].copy_from_slice(&choices.by_step[step * n_candidates..][..n]);
                lanes
            })
            .collect();
        let longest = plain(tape.words(), of_tape.by_step(), &first, &mut vec![[0; LANES]; tape.n_rows()]);
        assert_eq!(longest[..n_candidates.min(LANES)], wanted[..n_candidates.min(LANES)]);
    }

    #[test]
    fn every_candidate_takes_as_long_as_by_itself() {
        for (_, graph) in edge_shapes() {
            assert_equal(&graph, 3, 2, 1);
        }
        for (seed, n_candidates) in (0..).zip([1, 31, 32, 33, 64, 100]) {
            assert_equal(&any(40, 90, seed), n_candidates, 1 + n_candidates % KINDS, seed);
        }
    }

    #[test]
    fn what_cannot_be_counted_is_refused() {
        let graph = crate::timing::sample::graph_of(2, &[(0, 1)]);
        let tape = Tape::new(&graph).unwrap();
        assert_eq!(Times::new(&graph, &tape, &[1 << 30, 1 << 30], 1), Err(Unfit::TooLong));
        assert_eq!(Times::new(&graph, &tape, &[0; 34], 17), Err(Unfit::TooManyKinds));
        let times = Times::new(&graph, &tape, &[1, 2], 1).unwrap();
        assert_eq!(Choices::new(&times, 1, vec![0, 1]), Err(Unfit::TooManyKinds));
    }
}
