//! Precedence in 16 bits, and orders that keep it.

use super::Unfit;
use crate::graph::{Rows, TaskGraph, TaskId};
use crate::timing::sample::Random;

/// The sources of every task: `source[offset[i]..offset[i + 1]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Precedence {
    /// `[n_tasks + 1]`.
    pub offset: Vec<u32>,
    /// `[n_edges]`.
    pub source: Vec<u16>,
}

impl Precedence {
    /// Takes over the precedence of a graph.
    ///
    /// # Errors
    /// Where it has too many tasks.
    pub fn new(graph: &TaskGraph) -> Result<Self, Unfit> {
        Self::of_rows(graph, &graph.before)
    }

    /// Takes over the precedence of a graph with time running the other way: sources of a task are those that wait for it.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn backwards(graph: &TaskGraph) -> Result<Self, Unfit> {
        Self::of_rows(graph, &graph.after)
    }

    fn of_rows(graph: &TaskGraph, rows: &Rows) -> Result<Self, Unfit> {
        let Rows { offsets, edges } = rows;
        if graph.len() > usize::from(u16::MAX) {
            return Err(Unfit::TooManyTasks);
        }
        let source = edges.iter().map(|edge| id(edge.task)).collect();
        let offset = if offsets.is_empty() { vec![0] } else { offsets.clone() };
        Ok(Self { offset, source })
    }

    /// Returns how many tasks there are.
    #[must_use]
    pub fn n_tasks(&self) -> usize {
        self.offset.len() - 1
    }

    /// Returns those that must end before a task.
    #[must_use]
    pub fn of(&self, task: u16) -> &[u16] {
        let task = usize::from(task);
        &self.source[self.offset[task] as usize..self.offset[task + 1] as usize]
    }
}

fn id(task: TaskId) -> u16 {
    u16::try_from(task.0).expect("tasks are counted before")
}

/// Candidates that are orders: sources stand before those that wait for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orders {
    n_tasks: usize,
    tasks: Vec<u16>,
}

impl Orders {
    /// Takes `[n_candidates][n_tasks]`.
    ///
    /// # Errors
    /// Where one of them does not keep the precedence.
    pub fn new(precedence: &Precedence, tasks: Vec<u16>) -> Result<Self, Unfit> {
        let n_tasks = precedence.n_tasks();
        if !tasks.len().is_multiple_of(n_tasks.max(1)) {
            return Err(Unfit::Order);
        }
        let mut placed = vec![usize::MAX; n_tasks];
        for (candidate, order) in tasks.chunks(n_tasks.max(1)).enumerate() {
            for task in order {
                let sources = || precedence.of(*task).iter().all(|source| placed[usize::from(*source)] == candidate);
                let fits = usize::from(*task) < n_tasks && placed[usize::from(*task)] != candidate && sources();
                if !fits {
                    return Err(Unfit::Order);
                }
                placed[usize::from(*task)] = candidate;
            }
        }
        Ok(Self { n_tasks, tasks })
    }

    /// Draws candidates: every next task is any of those whose sources are placed.
    #[must_use]
    pub fn random(graph: &TaskGraph, precedence: &Precedence, candidates: usize, seed: u64) -> Self {
        let n_tasks = precedence.n_tasks();
        let mut random = Random::new(seed);
        let mut tasks = Vec::with_capacity(candidates * n_tasks);
        for _ in 0..candidates {
            let mut missing: Vec<u32> = precedence.offset.windows(2).map(|row| row[1] - row[0]).collect();
            let ids = (0_u16..).take(n_tasks);
            let mut ready: Vec<u16> =
                ids.zip(&missing).filter(|(_, missing)| **missing == 0).map(|(id, _)| id).collect();
            while !ready.is_empty() {
                let task = ready.swap_remove(random.index(ready.len()));
                tasks.push(task);
                for edge in graph.after.of(TaskId(task.into())) {
                    let missing = &mut missing[edge.task.index()];
                    *missing -= 1;
                    if *missing == 0 {
                        ready.push(id(edge.task));
                    }
                }
            }
        }
        Self { n_tasks, tasks }
    }

    /// Returns how many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tasks.len() / self.n_tasks.max(1)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Returns each of them.
    pub fn iter(&self) -> impl Iterator<Item = &[u16]> {
        self.tasks.chunks(self.n_tasks.max(1))
    }

    /// Returns `[n_candidates][n_tasks]`.
    #[must_use]
    pub fn tasks(&self) -> &[u16] {
        &self.tasks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timing::sample::{any, graph_of};

    #[test]
    fn an_order_is_taken_only_if_it_keeps_the_precedence() {
        let graph = graph_of(3, &[(0, 1), (1, 2)]);
        let precedence = Precedence::new(&graph).unwrap();
        assert!(Orders::new(&precedence, vec![0, 1, 2]).is_ok());
        for wrong in [vec![1, 0, 2], vec![0, 0, 1], vec![0, 1], vec![0, 1, 3], vec![0, 1, 2, 0, 2, 1]] {
            assert_eq!(Orders::new(&precedence, wrong), Err(Unfit::Order));
        }
    }

    #[test]
    fn drawn_orders_keep_the_precedence() {
        let graph = any(60, 100, 4);
        let precedence = Precedence::new(&graph).unwrap();
        let drawn = Orders::random(&graph, &precedence, 20, 1);
        assert_eq!(drawn.len(), 20);
        assert_eq!(Orders::new(&precedence, drawn.tasks().to_vec()), Ok(drawn));
    }
}
