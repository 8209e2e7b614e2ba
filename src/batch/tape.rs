//! A graph as a tape of instructions: in topological order, for every task where its finish goes and where those of its
//! sources are. A place is used again behind the last task that reads it, as registers are, so that the finishes of a whole
//! batch fit where memory is fast.

use super::Unfit;
use crate::graph::{TaskGraph, TaskId};

/// The tape of a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tape {
    words: Vec<u16>,
    n_rows: usize,
    order: Vec<TaskId>,
    n_edges: usize,
}

impl Tape {
    /// Writes the tape of a graph.
    ///
    /// # Errors
    /// Where tasks or rows do not fit 16 bits.
    pub fn new(graph: &TaskGraph) -> Result<Self, Unfit> {
        if graph.len() > usize::from(u16::MAX) {
            return Err(Unfit::TooManyTasks);
        }
        let mut readers: Vec<usize> = graph.ids().map(|task| graph.after.of(task).len()).collect();
        let mut row_of = vec![0_u16; graph.len()];
        let (mut free, mut n_rows) = (Vec::new(), 0_u16);
        let mut words = Vec::new();
        for task in &graph.order {
            let sources = graph.before.of(*task);
            // What this task reads last is free for what it writes: it reads before it writes.
            let mut rows = Vec::with_capacity(sources.len());
            for edge in sources {
                let source = edge.task.index();
                rows.push(row_of[source]);
                readers[source] -= 1;
                if readers[source] == 0 {
                    free.push(row_of[source]);
                }
            }
            let own = free.pop().unwrap_or_else(|| {
                n_rows += 1;
                n_rows - 1
            });
            row_of[task.index()] = own;
            if readers[task.index()] == 0 {
                free.push(own);
            }
            words.extend([own, u16::try_from(rows.len()).map_err(|_| Unfit::TooManyTasks)?]);
            words.extend(rows);
        }
        let n_edges = graph.before.edges.len();
        Ok(Self { words, n_rows: n_rows.into(), order: graph.order.clone(), n_edges })
    }

    /// Returns the instructions: row, number of sources, their rows; and so on.
    #[must_use]
    pub fn words(&self) -> &[u16] {
        &self.words
    }

    /// Returns how many rows are needed at the same time.
    #[must_use]
    pub const fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Returns the tasks in the order of the tape.
    #[must_use]
    pub fn order(&self) -> &[TaskId] {
        &self.order
    }

    /// Returns how many edges are followed for each candidate.
    #[must_use]
    pub const fn n_edges(&self) -> usize {
        self.n_edges
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timing::sample::{even, graph_of};

    #[test]
    fn a_chain_needs_one_row() {
        let graph = graph_of(4, &[(0, 1), (1, 2), (2, 3)]);
        let tape = Tape::new(&graph).unwrap();
        assert_eq!(tape.n_rows(), 1);
        assert_eq!(tape.words(), [0, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0]);
    }

    #[test]
    fn a_layered_graph_needs_about_two_layers_of_rows() {
        let tape = Tape::new(&even(50, 20, 4, 1)).unwrap();
        assert!((20..=40).contains(&tape.n_rows()), "{}", tape.n_rows());
    }
}
