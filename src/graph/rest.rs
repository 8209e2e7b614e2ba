//! The part of a graph that is still to be done.

use super::rows::{Found, order, rows};
use super::{TaskGraph, TaskId};

impl TaskGraph {
    /// Returns the graph without the tasks that are done (`[n_tasks]`), and by its TaskIds which tasks of this graph they
    /// are. Nothing waits for a task that is done.
    #[must_use]
    pub fn rest(&self, done: &[bool]) -> (Self, Vec<TaskId>) {
        let left: Vec<TaskId> = self.ids().filter(|task| !done[task.index()]).collect();
        let mut number = vec![None; self.len()];
        for (new, old) in (0..).map(TaskId).zip(&left) {
            number[old.index()] = Some(new);
        }
        let mut found = Vec::new();
        for (after, old) in (0..).map(TaskId).zip(&left) {
            let open = self.before.of(*old).iter().filter_map(|edge| Some((number[edge.task.index()]?, edge.data)));
            found.extend(open.map(|(before, data)| Found { after, before, data }));
        }
        let (before, after) = rows(left.len(), found);
        let order = order(&before, &after);
        let tasks = left.iter().map(|task| self.tasks[task.index()].clone()).collect();
        (Self { tasks, before, after, order }, left)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Limits, load};
    use super::*;
    use crate::spec::Source;

    #[test]
    fn what_is_left_keeps_its_order_and_waits_for_nothing_that_is_done() {
        let text =
            "[stage.a]\nrun = 'a'\n[stage.b]\nrun = 'b'\nafter = ['a']\n[stage.c]\nrun = 'c'\nafter = ['a', 'b']\n";
        let source = Source { name: "p.toml".to_owned(), text: text.to_owned() };
        let (_, graph) = load(&source, &[], &[], Limits::default()).expect("a good file");
        let (rest, left) = graph.rest(&[true, false, false]);
        assert_eq!(left, [TaskId(1), TaskId(2)]);
        let names: Vec<_> = rest.tasks.iter().map(|task| task.name.as_str()).collect();
        assert_eq!(names, ["b", "c"]);
        assert!(rest.before.of(TaskId(0)).is_empty());
        assert_eq!(rest.before.of(TaskId(1)).iter().map(|edge| edge.task).collect::<Vec<_>>(), [TaskId(0)]);
        assert_eq!(rest.order, [TaskId(0), TaskId(1)]);
        assert!(graph.rest(&[true; 3]).0.is_empty());
    }
}
