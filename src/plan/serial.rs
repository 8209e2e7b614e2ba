//! The decoder for pipelines that choose nothing but the order: one node, no devices, one way to run each task.
//!
//! What is free is counted tick by tick. A task looks at [`SPAN`] ticks at once: one bit says of each whether it is too
//! full, and a run of ticks with room for all of the task is found by folding these bits onto themselves; no branch
//! depends on what is found but the last. The schedules are those of the decoder for everything. Source: Kolisch, "Serial
//! and parallel resource-constrained project scheduling methods revisited", 1996; runs of bits: Warren, "Hacker's
//! Delight", 2nd edition, 6-3. Does not know where the order comes from.

use std::ops::{BitAnd, Sub};

use super::amounts::{Amounts, Lanes};
use super::decode::{Direction, GivenUp, Wanted};
use super::draft::Draft;
use super::instance::Instance;
use super::machine::Packed;
use crate::graph::{Rows, TaskId};

mod moments;

/// Ticks that a task takes in the mean, at most: with more, a list of events is shorter than what it stands for.
const LONGEST: u128 = 64;
/// Ticks that are looked at at once.
const SPAN: usize = 32;
/// Ticks of a task that such a look finds room for, at most.
const SHORT: u32 = 16;

/// Places tasks of one node one after the other; amounts in as few bits as they need.
pub(super) enum Serial {
    Narrow(Ticks<u32>),
    Wide(Ticks<u64>),
}

impl Serial {
    /// Makes the decoder; `None` where there is more to choose than the order, or where amounts need more than a word.
    /// `packed` are the requests, `[n_kinds][n_choices]`.
    pub(super) fn new<const W: usize>(
        instance: &Instance<'_>,
        (lanes, offer): (&Lanes<W>, Amounts<W>),
        packed: &[Vec<Packed<W>>],
    ) -> Option<Self> {
        let forced = instance.kinds.iter().all(|kind| kind.choices.len() == 1 && kind.choices[0].gang == 0);
        if instance.nodes.len() != 1 || !forced {
            return None;
        }
        let (guards, offer) = (lanes.guards().word()?, offer.word()?);
        let needs = packed.iter().map(|choices| choices[0].node.word()).collect::<Option<Vec<_>>>()?;
        // What is offered has all guards, and no request has more bits than it.
        if let (Ok(guards), Ok(offer)) = (u32::try_from(guards), u32::try_from(offer)) {
            let needs = needs.iter().map(|need| u32::try_from(*need).ok()).collect::<Option<Vec<_>>>()?;
            return Ticks::new(instance, guards, offer, &needs).map(Self::Narrow);
        }
        Ticks::new(instance, guards, offer, &needs).map(Self::Wide)
    }

    /// Places all tasks.
    ///
    /// # Errors
    /// When the schedule cannot end by the time wanted.
    pub(super) fn decode(&mut self, wanted: &Wanted<'_>, draft: &mut Draft) -> Result<(), GivenUp> {
        match self {
            Self::Narrow(ticks) => ticks.decode(wanted, draft),
            Self::Wide(ticks) => ticks.decode(wanted, draft),
        }
    }
}

/// What is free, tick by tick, in words of type `T`.
pub(super) struct Ticks<T> {
    /// A tick, in milliseconds.
    tick: u64,
    /// The guards of all amounts.
    guards: T,
    /// What the empty node offers.
    offer: T,
    /// `[n_tasks]`.
    tasks: Vec<Task<T>>,
    /// What is free, by tick; at least [`SPAN`] more than are used.
    free: Vec<T>,
    /// From this tick on all of the node is free.
    used: usize,
    /// `[n_tasks]`: ends in ticks.
    finish: Vec<u32>,
    /// Who is waited for, forward and backward in time.
    before: [Waits; 2],
}

/// Whom tasks wait for, without what an edge carries: half a cache line holds the edges of a task and of its neighbours.
struct Waits {
    /// `[n_tasks + 1]`, indices into `tasks`.
    offsets: Vec<u32>,
    tasks: Vec<u32>,
}

impl Waits {
    fn new(rows: &Rows) -> Self {
        Self { offsets: rows.offsets.clone(), tasks: rows.edges.iter().map(|edge| edge.task.0).collect() }
    }

    #[inline]
    fn of(&self, task: usize) -> &[u32] {
        &self.tasks[self.offsets[task] as usize..self.offsets[task + 1] as usize]
    }
}

/// What is known of a task.
#[derive(Clone, Copy)]
struct Task<T> {
    /// How long it takes.
    ticks: u32,
    /// What it holds.
    need: T,
    /// By how much bits are folded so that those stay from which on `ticks` of them are set; for short tasks.
    folds: [u8; 4],
}

impl<T: Copy + Default + PartialEq + Sub<Output = T> + BitAnd<Output = T>> Ticks<T> {
    /// `needs` are by kind.
    fn new(instance: &Instance<'_>, guards: T, offer: T, needs: &[T]) -> Option<Self> {
        let tick = instance.tick();
        let horizon = instance.horizon() / u128::from(tick);
        if horizon > LONGEST * instance.len() as u128 {
            return None;
        }
        let of_kind = |kind: &u32| {
            let kind = *kind as usize;
            let ticks = u32::try_from(instance.kinds[kind].choices[0].duration() / tick).ok()?;
            Some(Task { ticks, need: needs[kind], folds: folds(ticks) })
        };
        let tasks = instance.kind.iter().map(of_kind).collect::<Option<Vec<_>>>()?;
        // No schedule ends later, unless it is built around tasks that lie where another one has them.
        let free = vec![offer; usize::try_from(horizon).ok()? + SPAN];
        let finish = vec![0; tasks.len()];
        let before = [&instance.graph.before, &instance.graph.after].map(Waits::new);
        Some(Self { tick, guards, offer, tasks, free, used: 0, finish, before })
    }

    fn decode(&mut self, wanted: &Wanted<'_>, draft: &mut Draft) -> Result<(), GivenUp> {
        self.clear();
        let kept = wanted.kept.map_or(0, |(_, kept)| kept.min(wanted.order.len()));
        let (first, rest) = wanted.order.split_at(kept);
        if let Some((base, _)) = wanted.kept {
            for &task in first {
                let start = base.start[task.index()] / self.tick;
                self.take(task.index(), usize::try_from(start).unwrap_or(usize::MAX));
                self.in_time(task, wanted)?;
            }
        }
        let direction = usize::from(wanted.direction == Direction::Backward);
        for &task in rest {
            let i = task.0 as usize;
            let ends = self.before[direction].of(i).iter().map(|other| self.finish[*other as usize]);
            let start = self.earliest(ends.max().unwrap_or(0) as usize, self.tasks[i]);
            self.take(i, start);
            self.in_time(task, wanted)?;
        }
        self.write(wanted.order, draft);
        Ok(())
    }

    /// Makes the node empty.
    fn clear(&mut self) {
        self.free[..self.used].fill(self.offer);
        self.used = 0;
    }

    /// Gives a task up that ends too late.
    #[inline]
    fn in_time(&self, task: TaskId, wanted: &Wanted<'_>) -> Result<(), GivenUp> {
        let Some((by, tail)) = wanted.by else { return Ok(()) };
        let i = task.index();
        if u64::from(self.finish[i]) * self.tick + tail[i] > by { Err(GivenUp) } else { Ok(()) }
    }

    /// Writes the schedule down, in milliseconds.
    fn write(&self, order: &[TaskId], draft: &mut Draft) {
        draft.reset(self.tasks.len());
        draft.order.extend_from_slice(order);
        let times = draft.start.iter_mut().zip(&mut draft.finish);
        for ((start, finish), (end, task)) in times.zip(self.finish.iter().zip(&self.tasks)) {
            *finish = u64::from(*end) * self.tick;
            *start = u64::from(*end - task.ticks) * self.tick;
        }
        draft.makespan = u64::from(self.finish.iter().copied().max().unwrap_or(0)) * self.tick;
    }

    /// Returns the first tick from `start` on at which a task fits for all of its ticks.
    #[inline]
    fn earliest(&self, mut start: usize, task: Task<T>) -> usize {
        if task.ticks > SHORT {
            return self.earliest_for_long(start, task);
        }
        // Behind the last tick taken there is room; who takes no time needs none.
        while start < self.used && task.ticks > 0 {
            let full = self.full(start, task.need);
            // What fits at once needs no search: a processor that foresees it need not wait for what was found.
            if full & ((1 << task.ticks) - 1) == 0 {
                return start;
            }
            let room = task.folds.iter().fold(!full, |room, by| room & room >> by);
            if room != 0 {
                return start + room.trailing_zeros() as usize;
            }
            // Between the last tick without room and the end of the span the task does not fit, but it may begin there.
            start += SPAN - full.leading_zeros() as usize;
        }
        start
    }

    /// Returns which of the ticks from `start` on have too little, one bit for each.
    #[inline]
    fn full(&self, start: usize, need: T) -> u32 {
        let ticks = self.free[start..].first_chunk::<SPAN>();
        let full = |free: T| u32::from((free - need) & self.guards != self.guards);
        ticks.map_or(0, |ticks| (0..SPAN).fold(0, |bits, at| bits | full(ticks[at]) << at))
    }

    fn earliest_for_long(&self, mut start: usize, task: Task<T>) -> usize {
        let ticks = task.ticks as usize;
        while start < self.used {
            let window = &self.free[start..(start + ticks).min(self.used)];
            let is_full = |free: &T| (*free - task.need) & self.guards != self.guards;
            let Some(full) = window.iter().rposition(is_full) else { break };
            start += full + 1;
        }
        start
    }

    #[inline]
    fn take(&mut self, task: usize, start: usize) {
        let Task { ticks, need, .. } = self.tasks[task];
        let end = start + ticks as usize;
        if end + SPAN > self.free.len() {
            self.free.resize(end + SPAN, self.offer);
        }
        self.used = self.used.max(end);
        match self.free[start..].first_chunk_mut::<{ SHORT as usize }>() {
            // As many steps for each task: the processor never goes on a step too far.
            Some(free) if ticks <= SHORT => {
                (0..).zip(free).for_each(|(at, free)| *free = *free - if at < ticks { need } else { T::default() });
            }
            _ => self.free[start..end].iter_mut().for_each(|free| *free = *free - need),
        }
        self.finish[task] = u32::try_from(end).unwrap_or(u32::MAX);
    }
}

/// Returns by how much bits are folded so that those stay from which on so many are set.
fn folds(ticks: u32) -> [u8; 4] {
    let mut left = ticks.clamp(1, SHORT) - 1;
    [1, 2, 4, 8].map(|most: u8| {
        let by = left.min(most.into());
        left -= by;
        u8::try_from(by).unwrap_or(most)
    })
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

    /// Returns the same decoder with words of 64 bits.
    fn widened(instance: &Instance<'_>, serial: Serial) -> Serial {
        let Serial::Narrow(narrow) = serial else { return serial };
        let mut needs = vec![0; instance.kinds.len()];
        for (kind, task) in instance.kind.iter().zip(&narrow.tasks) {
            needs[*kind as usize] = task.need.into();
        }
        Serial::Wide(Ticks::new(instance, narrow.guards.into(), narrow.offer.into(), &needs).unwrap())
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
            drawn in prop::collection::vec((0_u64..4, 0_u64..9, prop_oneof![5 => 0_u64..6, 1 => 10_u64..40]), 12),
            (seed, kept, backward, slack) in (any::<u64>(), 0_usize..12, any::<bool>(), 0_u64..30),
            wide in any::<bool>(),
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
                assert!(matches!(decoder.serial, Some(Serial::Narrow(_))));
                decoder.serial = decoder.serial.filter(|_| serial).map(|narrow| if wide { widened(&instance, narrow) } else { narrow });
                let mut fit = Fit::new(FitRule::EarliestFinish, 1, &instance);
                let (mut base, mut draft) = (Draft::default(), Draft::default());
                let wanted = Wanted { order: &first, choice: &free, paid: true, direction, kept: None, near: None, by: None };
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
