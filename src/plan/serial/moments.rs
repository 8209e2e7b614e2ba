//! Schedules that are made moment by moment: of the ready tasks that fit now, one after the other begins, and where none
//! does, time goes on to the next end.
//!
//! Nothing is left idle that somebody could use, so such schedules are shorter in the mean than those of a drawn order, and
//! different ones; the shortest may be missing. Source: the parallel scheme, Kolisch, 1996, as in the decoder. Does not know
//! who comes first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::super::decode::Direction;
use super::super::draft::Draft;
use super::room::{OneByOne, Word};
use super::{Serial, Ticks};
use crate::graph::TaskId;

impl Serial {
    /// Makes a schedule; `next` gets the tasks that can begin and returns the index of the one that does.
    pub(in crate::plan) fn by_moments(
        &mut self,
        direction: Direction,
        next: impl FnMut(&[TaskId]) -> usize,
        draft: &mut Draft,
    ) {
        match self {
            Self::Narrow(ticks) => ticks.by_moments(direction, next, draft),
            Self::Wide(ticks) => ticks.by_moments(direction, next, draft),
        }
    }
}

impl<T: Word> Ticks<T> {
    fn by_moments(&mut self, direction: Direction, mut next: impl FnMut(&[TaskId]) -> usize, draft: &mut Draft) {
        let [forward, backward] = &self.before;
        let (before, behind) = match direction {
            Direction::Forward => (forward, backward),
            Direction::Backward => (backward, forward),
        };
        let (table, tasks) = (&mut self.tables[0], &self.tasks[0][..]);
        table.room.clear();
        let all = || (0_u32..).take(tasks.len());
        let mut waiting: Vec<_> = all().map(|task| before.of(task as usize).len()).collect();
        let mut ready: Vec<_> = all().filter(|task| waiting[*task as usize] == 0).map(TaskId).collect();
        let mut running: BinaryHeap<Reverse<(usize, u32)>> = BinaryHeap::new();
        let mut order = Vec::with_capacity(waiting.len());
        let (mut fitting, mut now) = (Vec::new(), 0);
        while !ready.is_empty() || !running.is_empty() {
            fitting.clear();
            // Whatever runs has begun by now, so that what is free now stays free.
            let fits = |task: &&TaskId| table.room.begins(now, &tasks[task.index()].hold);
            fitting.extend(ready.iter().filter(fits));
            let begins = (!fitting.is_empty()).then(|| fitting[next(&fitting)]);
            if let Some(task) = begins {
                ready.retain(|other| *other != task);
                let end = table.take(OneByOne, tasks, task, now);
                order.push(task);
                running.push(Reverse((end as usize, task.0)));
            } else if let Some(Reverse((end, _))) = running.peek() {
                now = *end;
            } else {
                break;
            }
            while let Some(Reverse((_, ended))) = running.peek().filter(|Reverse((end, _))| *end <= now) {
                for &freed in behind.of(*ended as usize) {
                    waiting[freed as usize] -= 1;
                    if waiting[freed as usize] == 0 {
                        ready.push(TaskId(freed));
                    }
                }
                running.pop();
            }
        }
        self.write(0, &order, draft);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fleet::Fleet;
    use crate::plan::Instance;
    use crate::plan::decode::{Decoder, FREE, Wanted};
    use crate::plan::fit::{Fit, FitRule};
    use crate::plan::fixture::{add_node, on_host, problem};
    use crate::plan::random::Random;
    use crate::timing::fixture::random_edges;

    proptest! {
        #[test]
        fn what_is_made_moment_by_moment_comes_out_of_its_order(
            (n, edges) in random_edges(12),
            drawn in prop::collection::vec((0_u64..4, 0_u64..9), 12),
            (seed, backward) in any::<(u64, bool)>(),
        ) {
            let modes = drawn.into_iter().take(n).map(|(cpus, ms)| vec![on_host(cpus, ms)]).collect();
            let mut fleet = Fleet::default();
            add_node(&mut fleet, 3, 8, &[]);
            let problem = problem(modes, &edges, fleet);
            let instance = Instance::new(&problem.pipeline, &problem.graph, &problem.fleet).unwrap();
            let mut decoder = Decoder::<1>::new(&instance);
            let mut random = Random::new(seed);
            let (mut made, mut again) = (Draft::default(), Draft::default());
            let direction = if backward { Direction::Backward } else { Direction::Forward };
            let serial = decoder.serial.as_mut().unwrap();
            serial.by_moments(direction, |ready| random.index(ready.len()), &mut made);
            let (order, choice) = (&made.order[..], &vec![FREE; n][..]);
            let wanted = Wanted { order, choice, paid: true, direction, kept: None, near: None, by: None };
            decoder.decode(&wanted, &mut Fit::new(FitRule::EarliestFinish, 1, &instance), &mut again).unwrap();
            prop_assert_eq!((&made.start, &made.finish, made.makespan), (&again.start, &again.finish, again.makespan));
        }
    }
}
