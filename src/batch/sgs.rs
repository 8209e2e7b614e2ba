//! Serial schedule generation for the resource-constrained project scheduling problem: tasks are placed in a given order,
//! every one as early as its sources and the resources let it.
//!
//! Four resources are packed into a word, 16 bits each with a guard, so that one subtraction asks all of them.
//! Source: Kolisch, "Serial and parallel resource-constrained project scheduling methods revisited", 1996.

use super::orders::{Orders, Precedence};
use super::{MOST_TICKS, Unfit};
use crate::graph::TaskGraph;

/// Resources of a problem.
pub const RESOURCES: usize = 4;

/// The guard of every resource: set in a profile; what goes below zero clears it.
pub const GUARDS: u64 = 0x8000_8000_8000_8000;

/// A project: tasks that hold resources while they run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// Who waits for whom.
    pub precedence: Precedence,
    /// `[n_tasks]`, in ticks.
    pub duration: Vec<u32>,
    /// `[n_tasks]`: what it holds, packed.
    pub need: Vec<u64>,
    /// What there is, packed.
    pub capacity: u64,
    /// All durations one after the other: no schedule is longer.
    pub horizon: u32,
}

/// Packs amounts; `None` where one does not fit 15 bits.
#[must_use]
pub fn pack(amounts: [u32; RESOURCES]) -> Option<u64> {
    let fit = amounts.iter().all(|amount| *amount < 1 << 15);
    fit.then(|| amounts.iter().rev().fold(0, |word, amount| word << 16 | u64::from(*amount)))
}

/// Whether everything in `need` is there.
const fn suffices(free: u64, need: u64) -> bool {
    (free | GUARDS).wrapping_sub(need) & GUARDS == GUARDS
}

impl Project {
    /// Makes a project of `[n_tasks]` durations and needs.
    ///
    /// # Errors
    /// Where a task can never run, or numbers are too large.
    ///
    /// # Panics
    /// When there is not a duration and a need for each task.
    pub fn new(
        graph: &TaskGraph,
        duration: Vec<u32>,
        need: &[[u32; RESOURCES]],
        capacity: [u32; RESOURCES],
    ) -> Result<Self, Unfit> {
        assert_eq!((duration.len(), need.len()), (graph.len(), graph.len()), "shapes of a project");
        let capacity = pack(capacity).ok_or(Unfit::TooLarge)?;
        let need = need.iter().map(|need| pack(*need)).collect::<Option<Vec<_>>>().ok_or(Unfit::TooLarge)?;
        if need.iter().any(|need| !suffices(capacity, *need)) {
            return Err(Unfit::TooLarge);
        }
        let horizon: u64 = duration.iter().map(|duration| u64::from(*duration)).sum();
        let horizon = u32::try_from(horizon).ok().filter(|horizon| u64::from(*horizon) < MOST_TICKS);
        let horizon = horizon.ok_or(Unfit::TooLong)?;
        Ok(Self { precedence: Precedence::new(graph)?, duration, need, capacity, horizon })
    }

    /// Returns when the last task ends, for every order.
    #[must_use]
    pub fn makespans(&self, orders: &Orders) -> Vec<u32> {
        let mut room = Vec::new();
        orders.iter().map(|order| makespan_in(self, order, &mut room)).collect()
    }
}

/// Returns when the last task ends.
#[must_use]
pub fn makespan(project: &Project, order: &[u16]) -> u32 {
    makespan_in(project, order, &mut Vec::new())
}

/// As [`makespan`], with memory that is used again.
fn makespan_in(project: &Project, order: &[u16], free: &mut Vec<u64>) -> u32 {
    free.clear();
    free.resize(project.horizon as usize, project.capacity);
    let mut finish = vec![0_u32; project.duration.len()];
    let mut latest = 0;
    for task in order {
        let sources = project.precedence.of(*task).iter();
        let ready = sources.map(|source| finish[usize::from(*source)]).max().unwrap_or(0);
        let task = usize::from(*task);
        let (takes, need) = (project.duration[task] as usize, project.need[task]);
        let mut start = ready as usize;
        // From the last tick without room one goes on behind it.
        while let Some(full) = free[start..start + takes].iter().rposition(|free| !suffices(*free, need)) {
            start += full + 1;
        }
        free[start..start + takes].iter_mut().for_each(|free| *free -= need);
        finish[task] = u32::try_from(start + takes).expect("within the horizon");
        latest = latest.max(finish[task]);
    }
    latest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timing::sample::graph_of;

    fn project(edges: &[(usize, usize)], duration: &[u32], need: &[[u32; 4]], capacity: [u32; 4]) -> Project {
        Project::new(&graph_of(duration.len(), edges), duration.to_vec(), need, capacity).unwrap()
    }

    #[test]
    fn a_task_slips_into_the_first_gap_that_is_long_enough() {
        let need = [[2, 0, 0, 0], [1, 0, 0, 0], [2, 0, 0, 0], [1, 0, 0, 0]];
        // The second runs from 2 to 5, the third behind it; the fourth beside the second.
        let gap = project(&[(0, 1)], &[2, 3, 2, 3], &need, [2, 1, 1, 1]);
        assert_eq!(makespan(&gap, &[0, 1, 2, 3]), 7);
    }

    #[test]
    fn every_resource_counts() {
        let need = [[1, 0, 0, 3], [1, 0, 0, 3]];
        assert_eq!(makespan(&project(&[], &[4, 4], &need, [2, 0, 0, 5]), &[0, 1]), 8);
        assert_eq!(makespan(&project(&[], &[4, 4], &need, [2, 0, 0, 6]), &[0, 1]), 4);
    }

    #[test]
    fn a_task_without_duration_needs_no_room() {
        let need = [[1, 1, 1, 1], [1, 1, 1, 1]];
        assert_eq!(makespan(&project(&[], &[5, 0], &need, [1, 1, 1, 1]), &[0, 1]), 5);
    }

    #[test]
    fn what_nobody_has_is_refused() {
        let graph = graph_of(1, &[]);
        let new = |need, capacity| Project::new(&graph, vec![1], &[need], capacity);
        assert_eq!(new([3, 0, 0, 0], [2, 9, 9, 9]), Err(Unfit::TooLarge));
        assert_eq!(new([0; 4], [1 << 15, 0, 0, 0]), Err(Unfit::TooLarge));
        assert!(new([32_767; 4], [32_767; 4]).is_ok());
    }
}
