//! The decoder for pipelines that choose nothing but the order: one node, no devices, one way to run each task.
//!
//! What is free is counted tick by tick, so that hardly a branch depends on what is found. The schedules are those of the
//! decoder for everything. Source: Kolisch, "Serial and parallel resource-constrained project scheduling methods
//! revisited", 1996. Does not know where the order comes from.

use super::amounts::{Amounts, Lanes};
use super::decode::{Direction, GivenUp, Wanted};
use super::draft::Draft;
use super::instance::Instance;
use super::machine::Packed;
use crate::graph::{Rows, TaskId};

mod moments;
mod room;

use room::{Hold, OneByOne, Room, Vectors, Way, Word};

/// Ticks that a task takes in the mean, at most: with more, a list of events is shorter than what it stands for.
const LONGEST: u128 = 64;
/// Tasks waited for that are kept beside a task.
const FEW: usize = 4;

/// Places tasks of one node one after the other; amounts in as few bits as they need.
pub(super) enum Serial {
    Narrow(Ticks<u32>),
    Wide(Ticks<u64>),
}

impl Serial {
    /// Makes the decoder; `None` where there is more to choose than the order, or where amounts need more than a word.
    /// `packed` are the requests of all choices, one kind after the other.
    pub(super) fn new<const W: usize>(
        instance: &Instance<'_>,
        (lanes, offer): (&Lanes<W>, Amounts<W>),
        packed: &[Packed<W>],
    ) -> Option<Self> {
        let forced = instance.kinds.iter().all(|kind| kind.choices.len() == 1 && kind.choices[0].gang == 0);
        if instance.nodes.len() != 1 || !forced {
            return None;
        }
        let (guards, offer) = (lanes.guards().word()?, offer.word()?);
        let needs = packed.iter().map(|choice| choice.node.word()).collect::<Option<Vec<_>>>()?;
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

    /// Places all tasks in two orders, and takes far less time than twice that of one: while a processor waits for where
    /// one task goes it looks for room for the other.
    pub(super) fn decode_both(&mut self, orders: [&[TaskId]; 2], direction: Direction, drafts: &mut [Draft; 2]) {
        match self {
            Self::Narrow(ticks) => ticks.decode_both(orders, direction, drafts),
            Self::Wide(ticks) => ticks.decode_both(orders, direction, drafts),
        }
    }
}

/// Tasks of one node, times in ticks and amounts in words of type `T`.
pub(super) struct Ticks<T> {
    /// A tick, in milliseconds.
    tick: u64,
    /// `[n_tasks]`, forward and backward in time.
    tasks: [Vec<Task<T>>; 2],
    /// The tasks that are waited for, forward and backward in time.
    before: [Waits; 2],
    /// Schedules in the making.
    tables: [Table<T>; 2],
    /// What looks are faster with, where the processor has it.
    vectors: Option<Vectors>,
}

/// A schedule in the making.
struct Table<T> {
    room: Room<T>,
    /// `[n_tasks + 1]`: ends in ticks; 0 behind that of the last task.
    finish: Vec<u32>,
}

/// The tasks that each one waits for, without what an edge carries.
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

/// What is known of a task in a direction of time.
#[derive(Clone, Copy)]
struct Task<T> {
    hold: Hold<T>,
    /// The tasks that it waits for, the first [`FEW`] of them; where there are fewer, one that ends at 0 in their place.
    before: [u32; FEW],
    /// Whether there are more.
    has_more: bool,
}

impl<T: Word> Ticks<T> {
    /// `needs` are by kind.
    fn new(instance: &Instance<'_>, guards: T, offer: T, needs: &[T]) -> Option<Self> {
        let tick = instance.tick();
        let horizon = instance.horizon() / u128::from(tick);
        if horizon > LONGEST * instance.len() as u128 {
            return None;
        }
        let before = [&instance.graph.before, &instance.graph.after].map(Waits::new);
        let nobody = u32::try_from(instance.len()).ok()?;
        let of_task = |waits: &Waits, (task, kind): (usize, &u32)| {
            let kind = *kind as usize;
            let ticks = u32::try_from(instance.kinds[kind].choices[0].duration() / tick).ok()?;
            let all = waits.of(task);
            let before = std::array::from_fn(|at| all.get(at).copied().unwrap_or(nobody));
            Some(Task { hold: Hold::new(needs[kind], ticks), before, has_more: all.len() > FEW })
        };
        let all = |waits| instance.kind.iter().enumerate().map(|task| of_task(waits, task)).collect::<Option<Vec<_>>>();
        let tasks = [all(&before[0])?, all(&before[1])?];
        // No schedule ends later, unless it is built around tasks that lie where another one has them.
        let horizon = usize::try_from(horizon).ok()?;
        let tables =
            [(); 2].map(|()| Table { room: Room::new(guards, offer, horizon), finish: vec![0; tasks[0].len() + 1] });
        let vectors = Vectors::found();
        Some(Self { tick, tasks, before, tables, vectors })
    }

    fn decode(&mut self, wanted: &Wanted<'_>, draft: &mut Draft) -> Result<(), GivenUp> {
        #[cfg(target_arch = "x86_64")]
        if let Some(vectors) = self.vectors {
            // SAFETY: the processor has what is asked for, or there would be no `Vectors`.
            return unsafe { self.decode_in_vectors(vectors, wanted, draft) };
        }
        self.decode_with(OneByOne, wanted, draft)
    }

    fn decode_both(&mut self, orders: [&[TaskId]; 2], direction: Direction, drafts: &mut [Draft; 2]) {
        #[cfg(target_arch = "x86_64")]
        if let Some(vectors) = self.vectors {
            // SAFETY: the processor has what is asked for, or there would be no `Vectors`.
            return unsafe { self.decode_both_in_vectors(vectors, orders, direction, drafts) };
        }
        self.decode_both_with(OneByOne, orders, direction, drafts);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt")]
    fn decode_in_vectors(&mut self, vectors: Vectors, wanted: &Wanted<'_>, draft: &mut Draft) -> Result<(), GivenUp> {
        self.decode_with(vectors, wanted, draft)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt")]
    fn decode_both_in_vectors(
        &mut self,
        vectors: Vectors,
        orders: [&[TaskId]; 2],
        direction: Direction,
        drafts: &mut [Draft; 2],
    ) {
        self.decode_both_with(vectors, orders, direction, drafts);
    }

    #[inline(always)]
    fn decode_with(&mut self, way: impl Way, wanted: &Wanted<'_>, draft: &mut Draft) -> Result<(), GivenUp> {
        let tick = self.tick;
        let direction = usize::from(wanted.direction == Direction::Backward);
        let (tasks, waits) = (&self.tasks[direction][..], &self.before[direction]);
        let table = &mut self.tables[0];
        table.room.clear();
        let is_late = |task: TaskId, end: u32| {
            wanted.by.is_some_and(|(by, tail)| u64::from(end) * tick + tail[task.index()] > by)
        };
        let kept = wanted.kept.map_or(0, |(_, kept)| kept.min(wanted.order.len()));
        let (first, rest) = wanted.order.split_at(kept);
        if let Some((base, _)) = wanted.kept {
            for &task in first {
                let start = usize::try_from(base.start[task.index()] / tick).unwrap_or(usize::MAX);
                if is_late(task, table.take(way, tasks, task, start)) {
                    return Err(GivenUp);
                }
            }
        }
        for &task in rest {
            let start = table.earliest(way, tasks, waits, task);
            if is_late(task, table.take(way, tasks, task, start)) {
                return Err(GivenUp);
            }
        }
        self.write(0, wanted.order, draft);
        Ok(())
    }

    #[inline(always)]
    fn decode_both_with(
        &mut self,
        way: impl Way,
        orders: [&[TaskId]; 2],
        direction: Direction,
        drafts: &mut [Draft; 2],
    ) {
        let direction = usize::from(direction == Direction::Backward);
        let (tasks, waits) = (&self.tasks[direction][..], &self.before[direction]);
        self.tables.iter_mut().for_each(|table| table.room.clear());
        let [one, other] = &mut self.tables;
        for (&first, &second) in orders[0].iter().zip(orders[1]) {
            // First both look and then both take: no look waits for what the other one takes.
            let starts = (one.earliest(way, tasks, waits, first), other.earliest(way, tasks, waits, second));
            one.take(way, tasks, first, starts.0);
            other.take(way, tasks, second, starts.1);
        }
        for ((at, order), draft) in (0..).zip(orders).zip(drafts) {
            self.write(at, order, draft);
        }
    }

    /// Writes a schedule down, in milliseconds.
    #[inline(always)]
    fn write(&self, table: usize, order: &[TaskId], draft: &mut Draft) {
        let (tasks, finish) = (&self.tasks[0], &self.tables[table].finish);
        draft.reset(tasks.len());
        draft.order.extend_from_slice(order);
        let times = draft.start.iter_mut().zip(&mut draft.finish);
        for ((start, end), (finish, task)) in times.zip(finish.iter().zip(tasks)) {
            *end = u64::from(*finish) * self.tick;
            *start = u64::from(*finish - task.hold.ticks) * self.tick;
        }
        draft.makespan = u64::from(finish.iter().copied().max().unwrap_or(0)) * self.tick;
    }
}

impl<T: Word> Table<T> {
    /// Returns when a task can begin.
    #[inline(always)]
    fn earliest(&self, way: impl Way, tasks: &[Task<T>], waits: &Waits, task: TaskId) -> usize {
        let Task { hold, before, has_more } = &tasks[task.0 as usize];
        let mut ready = before.iter().fold(0, |ready, other| ready.max(self.finish[*other as usize]));
        if *has_more {
            let others = waits.of(task.0 as usize).iter();
            ready = others.fold(ready, |ready, other| ready.max(self.finish[*other as usize]));
        }
        self.room.earliest(way, ready as usize, hold)
    }

    /// Lets a task begin at a tick and returns its end.
    #[inline(always)]
    fn take(&mut self, way: impl Way, tasks: &[Task<T>], task: TaskId, start: usize) -> u32 {
        let end = self.room.take(way, start, &tasks[task.0 as usize].hold);
        let end = u32::try_from(end).unwrap_or(u32::MAX);
        self.finish[task.0 as usize] = end;
        end
    }
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

    /// Returns the same decoder without vectors.
    fn one_by_one(serial: Serial) -> Serial {
        match serial {
            Serial::Narrow(ticks) => Serial::Narrow(Ticks { vectors: None, ..ticks }),
            Serial::Wide(ticks) => Serial::Wide(Ticks { vectors: None, ..ticks }),
        }
    }

    /// Returns the same decoder with words of 64 bits.
    fn widened(instance: &Instance<'_>, serial: Serial) -> Serial {
        let Serial::Narrow(narrow) = serial else { return serial };
        let mut needs = vec![0; instance.kinds.len()];
        for (kind, task) in instance.kind.iter().zip(&narrow.tasks[0]) {
            needs[*kind as usize] = task.hold.need.into();
        }
        Serial::Wide(
            Ticks::new(instance, narrow.tables[0].room.guards.into(), narrow.tables[0].room.offer.into(), &needs)
                .unwrap(),
        )
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
            (wide, vectors) in any::<(bool, bool)>(),
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
            let other = any_order(&problem.graph, direction, &mut random);
            // The rest comes in another order.
            let (free, tail) = (vec![FREE; n], vec![0; n]);
            let mut second = first[..kept.min(n)].to_vec();
            second.extend(any_order(&problem.graph, direction, &mut random).into_iter().filter(|task| !second.contains(task)).collect::<Vec<_>>());
            let decode = |serial: bool| {
                let mut decoder = Decoder::<1>::new(&instance);
                assert!(matches!(decoder.serial, Some(Serial::Narrow(_))));
                decoder.serial = decoder.serial.filter(|_| serial).map(|narrow| if wide { widened(&instance, narrow) } else { narrow });
                decoder.serial = decoder.serial.map(|serial| if vectors { serial } else { one_by_one(serial) });
                let mut fit = Fit::new(FitRule::EarliestFinish, 1, &instance);
                let (mut base, mut draft) = (Draft::default(), Draft::default());
                let wanted = Wanted { order: &first, choice: &free, paid: true, direction, kept: None, near: None, by: None };
                decoder.decode(&wanted, &mut fit, &mut base).unwrap();
                let mut both = [Draft::default(), Draft::default()];
                let (from_first, from_second) = (Wanted { order: &first, ..wanted }, Wanted { order: &other, ..wanted });
                if let Some(serial) = &mut decoder.serial {
                    serial.decode_both([&first, &other], direction, &mut both);
                } else {
                    decoder.decode(&from_first, &mut fit, &mut both[0]).unwrap();
                    decoder.decode(&from_second, &mut fit, &mut both[1]).unwrap();
                }
                let both = both.map(|draft| (draft.start, draft.finish, draft.order, draft.makespan));
                let by = Some((base.makespan + slack - 15.min(base.makespan), &tail[..]));
                let wanted = Wanted { order: &second, kept: Some((&base, kept)), by, ..wanted };
                let ended = decoder.decode(&wanted, &mut fit, &mut draft);
                (base.start, base.finish, base.makespan, both, ended, ended.is_ok().then_some((draft.start, draft.finish, draft.order)))
            };
            prop_assert_eq!(decode(true), decode(false));
        }
    }
}
