//! The decoder for pipelines that choose nothing but the order: one node, no devices, one way to run each task.
//!
//! What is free is counted tick by tick, so that a task costs a few comparisons and no search among events. The schedules
//! are those of the decoder for everything; a search tries twice as many of them for projects of 120 tasks in the same
//! time. Source: Kolisch, "Serial and parallel resource-constrained project scheduling methods revisited", 1996. Does not
//! know where the order comes from.

use super::amounts::{Amounts, Lanes};
use super::decode::{GivenUp, Wanted};
use super::draft::Draft;
use super::instance::Instance;
use super::machine::Packed;
use crate::graph::TaskId;

/// Ticks that a task takes in the mean, at most: with more, a list of events is shorter than what it stands for.
const LONGEST: u128 = 64;

/// Places tasks of one node one after the other.
pub(super) struct Serial<const W: usize> {
    /// A tick, in milliseconds.
    tick: u64,
    lanes: Lanes<W>,
    /// What the empty node offers.
    offer: Amounts<W>,
    /// `[n_tasks]`: how many ticks each takes, and what it holds.
    tasks: Vec<(u32, Amounts<W>)>,
    /// What is free, by tick.
    free: Vec<Amounts<W>>,
    /// From this tick on all of the node is free.
    used: usize,
    /// `[n_tasks]`: ends in ticks.
    finish: Vec<u32>,
}

impl<const W: usize> Serial<W> {
    /// Makes the decoder; `None` where there is more to choose than the order. `packed` are the requests,
    /// `[n_kinds][n_choices]`.
    pub(super) fn new(
        instance: &Instance<'_>,
        node: (&Lanes<W>, Amounts<W>),
        packed: &[Vec<Packed<W>>],
    ) -> Option<Self> {
        let forced = instance.kinds.iter().all(|kind| kind.choices.len() == 1 && kind.choices[0].gang == 0);
        let tick = instance.tick();
        let horizon = instance.horizon() / u128::from(tick);
        if instance.nodes.len() != 1 || !forced || horizon > LONGEST * instance.len() as u128 {
            return None;
        }
        let of_kind = |kind: &u32| {
            let kind = *kind as usize;
            let ticks = instance.kinds[kind].choices[0].duration() / tick;
            Some((u32::try_from(ticks).ok()?, packed[kind][0].node))
        };
        let tasks = instance.kind.iter().map(of_kind).collect::<Option<Vec<_>>>()?;
        // No schedule ends later, unless it is built around tasks that lie where another one has them.
        let free = vec![node.1; usize::try_from(horizon).ok()? + 1];
        let finish = vec![0; tasks.len()];
        Some(Self { tick, lanes: node.0.clone(), offer: node.1, tasks, free, used: 0, finish })
    }

    /// Places all tasks.
    ///
    /// # Errors
    /// When the schedule cannot end by the time wanted.
    pub(super) fn decode(
        &mut self,
        instance: &Instance<'_>,
        wanted: &Wanted<'_>,
        draft: &mut Draft,
    ) -> Result<(), GivenUp> {
        self.free[..self.used].fill(self.offer);
        self.used = 0;
        draft.reset(self.tasks.len());
        let rows = wanted.direction.waits_for(instance.graph);
        for (position, &task) in wanted.order.iter().enumerate() {
            let i = task.index();
            let kept = wanted.kept.filter(|(_, kept)| position < *kept).map(|(base, _)| base);
            let (ticks, need) = self.tasks[i];
            let start = match kept {
                Some(base) => usize::try_from(base.start[i] / self.tick).unwrap_or(usize::MAX),
                None => {
                    let ends = rows.of(task).iter().map(|edge| self.finish[edge.task.index()]);
                    self.earliest(ends.max().unwrap_or(0) as usize, ticks as usize, need)
                }
            };
            self.take(start, ticks as usize, need);
            self.finish[i] = u32::try_from(start).unwrap_or(u32::MAX) + ticks;
            let finish = u64::from(self.finish[i]) * self.tick;
            if wanted.by.is_some_and(|(by, tail)| finish + tail[i] > by) {
                return Err(GivenUp);
            }
            place(draft, task, start as u64 * self.tick, finish);
        }
        Ok(())
    }

    /// Returns the first tick from `start` on at which something fits for so many ticks.
    fn earliest(&self, mut start: usize, ticks: usize, need: Amounts<W>) -> usize {
        // From the last tick without room one goes on behind it; behind the last one taken there is room.
        while start < self.used {
            let window = &self.free[start..(start + ticks).min(self.used)];
            let Some(full) = window.iter().rposition(|free| !self.lanes.fits(*free, need)) else { break };
            start += full + 1;
        }
        start
    }

    fn take(&mut self, start: usize, ticks: usize, need: Amounts<W>) {
        let end = start + ticks;
        if end > self.free.len() {
            self.free.resize(end, self.offer);
        }
        self.used = self.used.max(end);
        self.free[start..end].iter_mut().for_each(|free| *free = free.less(need));
    }
}

fn place(draft: &mut Draft, task: TaskId, start: u64, finish: u64) {
    let i = task.index();
    (draft.start[i], draft.finish[i]) = (start, finish);
    draft.order.push(task);
    draft.makespan = draft.makespan.max(finish);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::decode::{Decoder, Direction, FREE};
    use super::super::fit::{Fit, FitRule};
    use super::super::fixture::{add_node, on_gpus, on_host, problem};
    use super::super::random::Random;
    use super::*;
    use crate::fleet::Fleet;
    use crate::graph::TaskGraph;
    use crate::spec::Gpus;
    use crate::timing::fixture::random_edges;

    fn node(gpus: &[(&str, u64, u64)]) -> Fleet {
        let mut fleet = Fleet::default();
        add_node(&mut fleet, 3, 8, gpus);
        fleet
    }

    /// Returns the tasks in an order drawn among those that keep the precedence in a direction.
    fn any_order(graph: &TaskGraph, direction: Direction, random: &mut Random) -> Vec<TaskId> {
        let mut order: Vec<TaskId> = Vec::new();
        while order.len() < graph.len() {
            let placed = |task: TaskId| order.contains(&task);
            let is_ready = |task: &TaskId| direction.waits_for(graph).of(*task).iter().all(|edge| placed(edge.task));
            let ready: Vec<_> = graph.ids().filter(|task| !placed(*task) && is_ready(task)).collect();
            let next = ready[random.index(ready.len())];
            order.push(next);
        }
        order
    }

    #[test]
    fn only_pipelines_without_a_choice_are_decoded_so() {
        let is_serial = |modes, fleet| {
            let problem = problem(modes, &[], fleet);
            let instance = Instance::new(&problem.pipeline, &problem.graph, &problem.fleet).unwrap();
            Decoder::<1>::new(&instance).serial.is_some()
        };
        assert!(is_serial(vec![vec![on_host(1, 2_000)], vec![on_host(2, 3_000)]], node(&[])));
        assert!(!is_serial(vec![vec![on_host(1, 2_000), on_host(2, 1_000)]], node(&[])));
        assert!(!is_serial(vec![vec![on_gpus(Gpus::Whole(1), 0, 2_000)]], node(&[("A", 8, 1_000)])));
        // Two ticks that are far apart.
        assert!(!is_serial(vec![vec![on_host(1, 2_000)], vec![on_host(2, 2_000_001)]], node(&[])));
    }

    proptest! {
        #[test]
        fn the_schedules_are_those_of_the_decoder_for_everything(
            (n, edges) in random_edges(12),
            drawn in prop::collection::vec((0_u64..4, 0_u64..9, 0_u64..6), 12),
            (seed, kept, backward, slack) in (any::<u64>(), 0_usize..12, any::<bool>(), 0_u64..30),
        ) {
            let mode = |(cpus, gib, ms): (u64, u64, u64)| {
                let mut mode = on_host(cpus, ms);
                mode.resources.memory = crate::units::Bytes(gib << 30);
                vec![mode]
            };
            let modes = drawn.into_iter().take(n).map(mode).collect();
            let problem = problem(modes, &edges, node(&[]));
            let instance = Instance::new(&problem.pipeline, &problem.graph, &problem.fleet).unwrap();
            let direction = if backward { Direction::Backward } else { Direction::Forward };
            let mut random = Random::new(seed);
            let first = any_order(&problem.graph, direction, &mut random);
            // The rest comes in another order.
            let (free, tail) = (vec![FREE; n], vec![0; n]);
            let mut second = first[..kept.min(n)].to_vec();
            second.extend(any_order(&problem.graph, direction, &mut random).into_iter().filter(|task| !second.contains(task)).collect::<Vec<_>>());
            let decode = |serial: bool| {
                let mut decoder = Decoder::<1>::new(&instance);
                assert!(decoder.serial.is_some());
                decoder.serial = decoder.serial.filter(|_| serial);
                let mut fit = Fit::new(FitRule::EarliestFinish, 1, &instance);
                let (mut base, mut draft) = (Draft::default(), Draft::default());
                let wanted = Wanted { order: &first, choice: &free, paid: true, direction, kept: None, by: None };
                decoder.decode(&wanted, &mut fit, &mut base).unwrap();
                let by = Some((base.makespan + slack - 15.min(base.makespan), &tail[..]));
                let wanted = Wanted { order: &second, kept: Some((&base, kept)), by, ..wanted };
                let ended = decoder.decode(&wanted, &mut fit, &mut draft);
                (base.start, base.finish, base.makespan, ended, ended.is_ok().then_some((draft.start, draft.finish, draft.order)))
            };
            prop_assert_eq!(decode(true), decode(false));
        }
    }
}
