//! Search among orders, thousands of candidates at a time: genetic algorithm, simulated annealing, ant colony, particle
//! swarm, each generation after generation on one population.
//!
//! `search` says what a generation is, once; a `Machine` carries it out: the CPU, which defines everything, or a device,
//! on which the population stays from the first generation to the last. Both draw the same numbers, so both return the same
//! orders. How good an order is, is a quick guess ([`Judge`]); who wants a schedule decodes the orders that come back. Does
//! not know pipelines, fleets or time.

use std::fmt;

use super::Unfit;
use super::lists::Lists;
use super::orders::{Orders, Precedence};
use super::sgs::Project;
use crate::graph::{TaskGraph, TaskId};

mod cpu;
mod device;
mod moves;
mod philox;
mod stays;
mod tables;

pub use cpu::on_cpu;
pub use device::on_device;
pub use moves::{Round, Signs, ant_orders, children, neighbours, swarm_orders};
pub use philox::philox;
pub use stays::{Population, fade, fly, leaders, leave, scatter, settle};
pub use tables::Tables;

/// Equal parts of an order that have trails of their own.
pub const BLOCKS: usize = 16;

/// A trail as it is at first: 1, with 16 bits behind the point.
const FIRST_TRAIL: u32 = 1 << 16;
/// What a leader leaves: 0.04. At most so much gathers that the key of a task stays a small number.
const GAIN: u32 = 2_621;
/// Leaders of a generation that leave trails, besides the best of all.
const LEAVE: usize = 3;
/// The first temperature, as a part of the shortest makespan: one in so many.
const COOL: u32 = 200;
/// Generations without a better order after which a search ends, unless it cools.
const PATIENCE: u32 = 100;
/// How steeply an ant prefers urgent tasks: a power.
const STEEP: u32 = 4;

/// How a population moves on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Genetic algorithm.
    Genetic,
    /// Simulated annealing, a chain for each candidate.
    Annealing,
    /// Ant colony optimization.
    Ants,
    /// Particle swarm optimization.
    Swarm,
}

/// Who comes before a task, and who waits for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Links {
    /// Those before it.
    pub before: Precedence,
    /// Those behind it.
    pub after: Precedence,
}

impl Links {
    /// Takes over the precedence of a graph.
    ///
    /// # Errors
    /// Where it has too many tasks.
    pub fn new(graph: &TaskGraph) -> Result<Self, Unfit> {
        Ok(Self { before: Precedence::new(graph)?, after: Precedence::backwards(graph)? })
    }

    /// Returns how many tasks there are.
    #[must_use]
    pub fn n_tasks(&self) -> usize {
        self.before.n_tasks()
    }
}

/// What says how good an order is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judge {
    /// List schedules on devices with memory.
    Lists(Lists),
    /// Serial schedules of a project with pooled resources.
    Project(Project),
}

impl Judge {
    fn makespan(&self, order: &[u16]) -> u32 {
        match self {
            Self::Lists(lists) => super::lists::makespan(lists, order),
            Self::Project(project) => super::sgs::makespan(project, order),
        }
    }
}

/// How urgent tasks are, as ants see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Urgency {
    /// `[n_tasks]`: how much less urgent than the most urgent each is: a logarithm, 16 bits behind the point.
    pub bias: Vec<u32>,
}

impl Urgency {
    /// Takes `[n_tasks]`, in any unit: the length of the way to the end, for instance. What is below a thousandth of the
    /// largest counts as that.
    #[must_use]
    pub fn new(ways: &[u64]) -> Self {
        let most = ways.iter().copied().max().unwrap_or(0).max(1);
        let logarithm = |way: u64| tables::exact(way.max(most / 1_000).max(1));
        let bias = ways.iter().map(|way| STEEP * (logarithm(most) - logarithm(*way))).collect();
        Self { bias }
    }
}

/// What is searched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The precedence that orders keep.
    pub links: Links,
    /// What says how good they are.
    pub judge: Judge,
    /// How urgent tasks are.
    pub urgency: Urgency,
    /// Orders that are known, at least one: the first candidates.
    pub known: Orders,
}

impl Problem {
    /// Makes a problem. `ways` as for [`Urgency::new`].
    ///
    /// # Errors
    /// Where there are too many tasks, hardly any, or no order that keeps the precedence.
    pub fn new(graph: &TaskGraph, judge: Judge, ways: &[u64], known: &[Vec<TaskId>]) -> Result<Self, Unfit> {
        let links = Links::new(graph)?;
        if links.n_tasks() < 2 {
            return Err(Unfit::TooFewTasks);
        }
        if known.is_empty() {
            return Err(Unfit::Order);
        }
        let tasks = known.iter().flatten().map(|task| u16::try_from(task.0).map_err(|_| Unfit::TooManyTasks));
        let known = Orders::new(&links.before, tasks.collect::<Result<_, _>>()?)?;
        Ok(Self { links, judge, urgency: Urgency::new(ways), known })
    }

    /// Returns `[known][n_tasks]`: keys that give the known orders.
    fn bases(&self) -> Vec<u32> {
        let n = self.links.n_tasks();
        let mut base = vec![0; self.known.tasks().len()];
        for (row, order) in base.chunks_mut(n).zip(self.known.iter()) {
            let places = order.iter().zip(0_u64..);
            places.for_each(|(task, place)| {
                let key = place * u64::from(stays::WHOLE_KEY.unsigned_abs()) / n as u64;
                row[usize::from(*task)] = u32::try_from(key).unwrap_or(u32::MAX);
            });
        }
        base
    }
}

/// What may be spent on a search.
#[derive(Clone, Copy)]
pub struct Effort<'a> {
    /// How the population moves on.
    pub method: Method,
    /// Equal seeds give equal answers, unless time runs out.
    pub seed: u64,
    /// Members of the population; at least as many as there are known orders.
    pub candidates: usize,
    /// Generations behind the first, at most.
    pub generations: u32,
    /// Orders that are wanted, at most as many as candidates.
    pub wanted: usize,
    /// Returns how much of the time is spent, in thousandths.
    pub spent: &'a dyn Fn() -> u32,
}

impl fmt::Debug for Effort<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, seed, candidates, generations, wanted, .. } = self;
        f.debug_tuple("Effort").field(&(method, seed, candidates, generations, wanted)).finish()
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The best orders, the best one first; equal ones once.
    pub orders: Vec<Vec<u16>>,
    /// The shortest makespan in ticks, of the first generation and of all.
    pub shortest: (u32, u32),
    /// Generations behind the first.
    pub generations: u32,
    /// Orders that were judged.
    pub evaluations: u64,
}

/// Who searches for a planner: the seam between it and devices.
pub trait Searcher: fmt::Debug {
    /// Searches, or says why not and returns `None`.
    fn search(&self, problem: &Problem, effort: &Effort<'_>) -> Option<Found>;

    /// Returns roughly how often it looks at a place in a millisecond: by that a search within a time is sized.
    fn looks_a_millisecond(&self) -> u64;

    /// Takes notice that there is nothing to search.
    fn refuse(&self, why: Unfit);
}

/// Which population: that which moves, or the best that each candidate ever was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shelf {
    Current,
    Best,
}

/// What carries a search out: makes children of candidates, judges them, and lets them settle.
trait Machine {
    type Error;

    /// Lets ants write the children.
    fn sample(&mut self, round: Round) -> Result<(), Self::Error>;
    /// Puts the known orders first among the children.
    fn know(&mut self) -> Result<(), Self::Error>;
    /// Makes children of the candidates by crossover.
    fn cross(&mut self, round: Round) -> Result<(), Self::Error>;
    /// Makes children that differ a little from their candidates.
    fn stray(&mut self, round: Round) -> Result<(), Self::Error>;
    /// Starts particles, which write the children.
    fn scatter(&mut self, round: Round) -> Result<(), Self::Error>;
    /// Lets particles fly on and write the children. The one to follow is that of the last [`lead`](Self::lead).
    fn fly(&mut self, round: Round) -> Result<(), Self::Error>;
    /// Judges the children.
    fn judge(&mut self) -> Result<(), Self::Error>;
    /// Lets the children settle.
    fn settle(&mut self, shelf: Shelf, round: Round, temperature: u32) -> Result<(), Self::Error>;
    /// Lets trails fade, and the best children and the best of all leave new ones.
    fn learn(&mut self) -> Result<(), Self::Error>;
    /// Returns the shortest makespan.
    fn lead(&mut self, shelf: Shelf) -> Result<u32, Self::Error>;
    /// Returns the best orders.
    fn best(&mut self, shelf: Shelf, wanted: usize) -> Result<Vec<Vec<u16>>, Self::Error>;
}

/// Searches until the effort is spent or nothing better comes.
fn search<M: Machine>(machine: &mut M, effort: &Effort<'_>) -> Result<Found, M::Error> {
    let Effort { method, seed, candidates, generations, wanted, spent } = *effort;
    let anneals = method == Method::Annealing;
    let shelf = if anneals { Shelf::Best } else { Shelf::Current };
    let first = Round { seed, generation: 0 };
    if method == Method::Swarm {
        machine.scatter(first)?;
    } else {
        machine.sample(first)?;
        machine.know()?;
    }
    machine.judge()?;
    machine.settle(Shelf::Current, first, 0)?;
    if anneals {
        machine.settle(Shelf::Best, first, 0)?;
    }
    let begun = machine.lead(shelf)?;
    let (mut shortest, mut improved, mut done) = (begun, 0, 0);
    for generation in 1..=generations {
        let age = spent();
        if age >= 1_000 || (!anneals && generation - improved > PATIENCE) {
            break;
        }
        let round = Round { seed, generation };
        match method {
            Method::Genetic => machine.cross(round)?,
            Method::Annealing => machine.stray(round)?,
            Method::Ants => machine.sample(round)?,
            Method::Swarm => machine.fly(round)?,
        }
        machine.judge()?;
        machine.settle(
            Shelf::Current,
            round,
            if anneals { temperature(begun, age, generation, generations) } else { 0 },
        )?;
        match method {
            Method::Annealing => machine.settle(Shelf::Best, round, 0)?,
            Method::Ants => machine.learn()?,
            Method::Genetic | Method::Swarm => {}
        }
        let now = machine.lead(shelf)?;
        if now < shortest {
            (shortest, improved) = (now, generation);
        }
        done = generation;
    }
    let mut orders = machine.best(shelf, wanted.min(candidates))?;
    let mut seen = std::collections::HashSet::new();
    orders.retain(|order| seen.insert(order.clone()));
    let evaluations = (u64::from(done) + 1) * candidates as u64;
    Ok(Found { orders, shortest: (begun, shortest), generations: done, evaluations })
}

/// Falls with the square of what is left, of the time or of the generations, whichever is less.
fn temperature(shortest: u32, age: u32, generation: u32, generations: u32) -> u32 {
    let age = u64::from(age).max(u64::from(generation) * 1_000 / u64::from(generations));
    let left = 1_000_u64.saturating_sub(age);
    u32::try_from(u64::from(shortest / COOL) * left * left / 1_000_000).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timing::sample::{Random, even};

    const METHODS: [Method; 4] = [Method::Genetic, Method::Annealing, Method::Ants, Method::Swarm];

    /// Ten levels of twelve tasks on four devices of different speeds, with memory for some of them.
    fn problem() -> Problem {
        let graph = even(10, 12, 2, 1);
        let mut random = Random::new(3);
        let work: Vec<u32> = (0..graph.len()).map(|_| 10 + random.below(90) as u32).collect();
        let time = work.iter().flat_map(|work| [2, 2, 3, 5].map(|slowness| work * slowness)).collect();
        let memory = (0..graph.len()).map(|_| 10 + random.below(60) as u32).collect();
        let lists = Lists::new(&graph, time, memory, vec![100; 4]).unwrap();
        let known: Vec<TaskId> = graph.ids().collect();
        Problem::new(&graph, Judge::Lists(lists), &vec![1; graph.len()], &[known]).unwrap()
    }

    fn effort(method: Method, seed: u64, spent: &dyn Fn() -> u32) -> Effort<'_> {
        Effort { method, seed, candidates: 24, generations: 40, wanted: 5, spent }
    }

    #[test]
    fn every_method_finds_better_orders_than_it_begins_with() {
        let problem = problem();
        for method in METHODS {
            let found = on_cpu(&problem, &effort(method, 1, &|| 0));
            let (begun, shortest) = found.shortest;
            assert!(shortest * 100 < begun * 99, "{method:?}: {begun} to {shortest}");
            let makespans: Vec<u32> = found.orders.iter().map(|order| problem.judge.makespan(order)).collect();
            assert!(makespans.is_sorted() && makespans[0] == shortest, "{method:?}: {makespans:?}");
            let kept = Orders::new(&problem.links.before, found.orders.concat());
            assert!(kept.is_ok(), "{method:?}");
        }
    }

    #[test]
    fn equal_seeds_give_equal_answers_and_others_others() {
        let problem = problem();
        for method in METHODS {
            let few = |seed| Effort { candidates: 12, generations: 6, ..effort(method, seed, &|| 0) };
            let found = |seed| on_cpu(&problem, &few(seed));
            assert_eq!(found(1), found(1), "{method:?}");
            assert_ne!(found(1).orders, found(2).orders, "{method:?}");
        }
    }

    #[test]
    fn a_search_ends_when_its_time_is_spent() {
        let problem = problem();
        let asked = std::cell::Cell::new(0);
        let spent = || {
            asked.set(asked.get() + 300);
            asked.get()
        };
        let found = on_cpu(&problem, &effort(Method::Genetic, 1, &spent));
        assert_eq!((found.generations, found.evaluations), (3, 4 * 24));
    }

    #[test]
    fn known_orders_are_the_first_candidates() {
        let problem = problem();
        for method in METHODS {
            let found =
                on_cpu(&problem, &Effort { generations: 0, candidates: 1, wanted: 1, ..effort(method, 1, &|| 0) });
            assert_eq!(found.orders, [problem.known.tasks()], "{method:?}");
        }
    }
}
