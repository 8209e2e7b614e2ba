//! A genetic algorithm on two populations that look at time from opposite ends.
//!
//! A child is decoded in the other direction than its parents, so that every evaluation is also a justification; the
//! best of the children and of the population that they replace stay. Source: Debels and Vanhoucke, "A bi-population
//! based genetic algorithm for the RCPSP", 2005; changed: parents compete with children, and equal schedules are kept
//! once. Does not know how a child is made of its parents.

use super::super::decode::{Direction, FREE};
use super::super::draft::Draft;
use super::crossover::{Crossover, Orders};
use super::crowd::Wish;
use super::{Search, sample, seen};
use crate::graph::TaskId;

/// A member of a population: a schedule as seen from its own end of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Individual {
    pub(super) makespan: u64,
    /// How late its work is done: of equal makespans, one that leaves less to do at its end is easier to shorten.
    pub(super) lateness: u64,
    /// `[n_tasks]`, by TaskId: end, in milliseconds.
    pub(super) finish: Vec<u64>,
    /// `[n_tasks]`, by TaskId: index into the task's choices.
    pub(super) choice: Vec<u32>,
}

impl Individual {
    /// Takes what is inherited from a schedule.
    pub(super) fn of(draft: &Draft) -> Self {
        let (finish, choice) = (draft.finish.clone(), draft.choice.clone());
        Self { makespan: draft.makespan, lateness: 0, finish, choice }
    }

    /// What the better of two has less of.
    const fn rank(&self) -> (u64, u64) {
        (self.makespan, self.lateness)
    }
}

/// Members of a population, times the evaluations to the power of three quarters: on PSPLIB's J120 a third more are worse
/// for 5,000 evaluations and a third fewer for 50,000, both by 0.05 to 0.1 % of the makespan.
const SIZE: f64 = 0.09;
/// The same where tasks choose anew, which keeps fewer members varied: with as many as elsewhere, plans of 1,000 stages for
/// four fast and four slow devices are longer by 0.3 % after 5 s, and those of WfCommons by 0.1 %.
const SIZE_CHOOSING: f64 = 0.055;
/// Generations without a better schedule after which both populations begin anew: one for so many tasks. Three times as
/// soon, plans of PSPLIB's J120 are longer by 0.2 % after 50,000 evaluations; without it, those of J30 by 0.05 %.
const STALE: u64 = 1;
/// In a population of less than so many, one of so many members is drawn moment by moment, where there is one node and no
/// choice: without, plans of PSPLIB's J30 and J120 are longer by 0.04 and 0.05 % after 5,000 evaluations. In larger ones,
/// plans of J120 are longer by 0.1 % with them after 50,000.
const MOMENTS: (usize, u64) = (100, 4);
/// One of so many times one child is made moment by moment, and not two in their order, where there is one node and no
/// choice: one child of nine. Source: self-adapting genetic algorithm, Hartmann, 2002, without its gene. Without, plans of
/// PSPLIB's J120 are longer by 0.06 % after 5,000 evaluations, and by 0.1 % after 50,000.
const PROMPT: u64 = 5;
/// Tasks up to which schedules are made moment by moment: whoever makes them looks at all that are ready each time.
const MOMENT_TASKS: usize = 1_000;
/// Evaluations that a population is sized for where only time is limited, at most.
const EVALUATIONS: u64 = 20_000;
/// Tasks in all members of both populations, at most: 12 MB each.
const MEMORY: usize = 1 << 20;

/// Improves the best schedule until the search is over.
pub(in crate::plan) fn run<const W: usize>(search: &mut Search<'_, W>) {
    Herd::new(search).run(search);
}

/// Two populations that can be left and come back to.
pub(in crate::plan) struct Herd {
    size: usize,
    crossover: Crossover,
    /// As seen from the end that `direction` goes to.
    parents: Vec<Individual>,
    /// Of the parents, the one who becomes a father next.
    father: usize,
    children: Vec<Individual>,
    /// The population that looks the other way.
    others: Vec<Individual>,
    /// In which children are decoded.
    direction: Direction,
    /// Evaluations when both populations began, and without a better schedule after which they begin anew.
    begun: u64,
    stale: u64,
    /// The shortest makespan when it was last left.
    known: u64,
    drafts: [Draft; 2],
    wanted: [Vec<TaskId>; 2],
    /// `[n_tasks]`, by TaskId: position in the order wanted.
    position: Vec<u32>,
    orders: Orders,
}

impl Herd {
    /// Draws the first parents, as many as suit the search that is left.
    pub(in crate::plan) fn new<const W: usize>(search: &mut Search<'_, W>) -> Self {
        let crossover = Crossover::new(search.instance);
        let size = population(search, if crossover.chooses { SIZE_CHOOSING } else { SIZE });
        let parents = first(search, size, &crossover);
        Self {
            size,
            crossover,
            parents,
            father: 0,
            children: Vec::with_capacity(2 * size),
            others: Vec::new(),
            direction: Direction::Backward,
            begun: search.evaluations,
            stale: (search.instance.len() as u64).div_ceil(STALE) * size as u64,
            known: search.best().map_or(0, |best| best.makespan),
            drafts: Default::default(),
            wanted: Default::default(),
            position: Vec::new(),
            orders: Orders::default(),
        }
    }

    /// Improves the best schedule until the search, or its part, is over. What others found meanwhile joins the parents.
    pub(in crate::plan) fn run<const W: usize>(&mut self, search: &mut Search<'_, W>) {
        let from = self.direction.opposite();
        let found = search.best().filter(|best| best.makespan < self.known);
        let found = found.map(|best| self.crossover.member(search.instance, &seen(best.clone(), from)));
        self.parents.extend(found);
        while !search.is_over() && self.parents.len() > 1 {
            if self.father == 0 {
                let arrived = search.arrived(self.direction.opposite());
                self.parents.extend(arrived.map(|arrived| self.crossover.member(search.instance, &arrived)));
            }
            if self.father < self.parents.len() {
                match search.at_once() {
                    ..2 => self.bear(search),
                    most => self.bear_at_once(search, most),
                }
            } else {
                self.grow_up(search);
            }
        }
        self.known = search.best().map_or(0, |best| best.makespan);
    }

    /// Makes a child of the next father, or of the next two where that is faster than one after the other.
    fn bear<const W: usize>(&mut self, search: &mut Search<'_, W>) {
        let Some(child) = self.conceive(search, 0) else { return };
        let both = search.takes_both();
        if both && search.instance.len() <= MOMENT_TASKS && search.random.below(PROMPT) == 0 {
            self.position.resize(self.wanted[0].len(), 0);
            (0..).zip(&self.wanted[0]).for_each(|(at, task)| self.position[task.index()] = at);
            search.evaluate_by_moments(&self.position, self.direction, &mut self.drafts[0]);
            self.children.push(self.crossover.member(search.instance, &self.drafts[0]));
        } else if both && self.father < self.parents.len() && self.conceive(search, 1).is_some() {
            search.evaluate_both(&self.wanted, self.direction, &mut self.drafts);
            self.children.extend(self.drafts.iter().map(|draft| self.crossover.member(search.instance, draft)));
        } else if search.evaluate(&self.wanted[0], &child.choice, self.direction, &mut self.drafts[0]) {
            self.children.push(self.crossover.member(search.instance, &self.drafts[0]));
        }
    }

    /// Makes children of so many next fathers at once.
    fn bear_at_once<const W: usize>(&mut self, search: &mut Search<'_, W>, most: usize) {
        let mut wishes = Vec::with_capacity(most);
        while wishes.len() < most && self.father < self.parents.len() {
            let child = self.child(search);
            wishes.extend(child.map(|child| Wish { paid: search.is_paid(&child.choice), child }));
        }
        let Self { children, crossover, .. } = self;
        let instance = search.instance;
        search.evaluate_all(&wishes, self.direction, |draft| children.push(crossover.member(instance, draft)));
    }

    /// Makes the wishes of a child of the next father, and the order that they come to.
    fn conceive<const W: usize>(&mut self, search: &mut Search<'_, W>, at: usize) -> Option<Individual> {
        let child = self.child(search)?;
        self.orders.by_end(search.instance.graph, &child, self.direction, &mut self.wanted[at]);
        Some(child)
    }

    /// Makes the wishes of a child of the next father.
    fn child<const W: usize>(&mut self, search: &mut Search<'_, W>) -> Option<Individual> {
        let mother = tournament(search, &self.parents);
        let (father, mother) = (&self.parents[self.father], &self.parents[mother]);
        let child = self.crossover.child(&mut search.random, search.instance, father, mother);
        self.father += 1;
        search.within_budgets(child)
    }

    /// Lets the best of the children and of those that look their way become the parents of the next ones.
    fn grow_up<const W: usize>(&mut self, search: &mut Search<'_, W>) {
        let mut children = std::mem::take(&mut self.children);
        children.append(&mut self.others);
        children.sort_by(|a, b| (a.rank(), &a.finish).cmp(&(b.rank(), &b.finish)));
        children.dedup();
        children.truncate(self.size);
        self.others = std::mem::replace(&mut self.parents, children);
        self.direction = self.direction.opposite();
        self.father = 0;
        if search.evaluations - self.begun.max(search.improved) > self.stale && !search.is_over() {
            // All of them have become alike: others begin anew, without the best, who would take over at once.
            self.others.clear();
            self.parents = drawn(search, self.size, &self.crossover);
            (self.direction, self.begun) = (Direction::Backward, search.evaluations);
        }
    }
}

/// Returns how many members a population has.
fn population<const W: usize>(search: &Search<'_, W>, factor: f64) -> usize {
    let evaluations = search.left().unwrap_or_else(|| search.in_budget().min(EVALUATIONS));
    let evaluations = u32::try_from(evaluations).unwrap_or(u32::MAX);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 2^24")]
    let wanted = (f64::from(evaluations).sqrt() * f64::from(evaluations).sqrt().sqrt() * factor) as usize;
    wanted.clamp(8, 256).min(MEMORY / search.instance.len().max(1))
}

/// The first parents: the best schedules so far and others drawn.
fn first<const W: usize>(search: &mut Search<'_, W>, size: usize, crossover: &Crossover) -> Vec<Individual> {
    let found = search.found.iter().map(|found| crossover.member(search.instance, found));
    let mut parents: Vec<_> = found.collect();
    parents.extend(drawn(search, size, crossover));
    parents.sort_by_key(Individual::rank);
    parents.truncate(size);
    parents
}

/// Parents drawn around the order of latest finishes, some of them as time goes by.
fn drawn<const W: usize>(search: &mut Search<'_, W>, size: usize, crossover: &Crossover) -> Vec<Individual> {
    let mut parents = Vec::with_capacity(size);
    let mut draft = Draft::default();
    let free = vec![FREE; search.instance.len()];
    let thrift = search.decoder.thrift;
    let is_quick = search.decoder.serial.is_some() && search.instance.len() <= MOMENT_TASKS;
    let by_moments = is_quick && size < MOMENTS.0;
    for _ in 0..size {
        if search.is_over() {
            break;
        }
        if thrift > 0 {
            search.decoder.thrift = search.random.below(2 * thrift + 1);
        }
        if by_moments && search.random.below(MOMENTS.1) == 0 && search.draw_by_moments(&mut draft) {
            parents.push(crossover.member(search.instance, &draft));
            continue;
        }
        let order = sample::order(&mut search.random, search.instance.graph, search.timing);
        let choice = search.modes().unwrap_or_else(|| free.clone());
        if search.evaluate(&order, &choice, Direction::Forward, &mut draft) {
            parents.push(crossover.member(search.instance, &draft));
        }
    }
    search.decoder.thrift = thrift;
    parents
}

/// Returns the better of two parents drawn at random.
fn tournament<const W: usize>(search: &mut Search<'_, W>, parents: &[Individual]) -> usize {
    let (a, b) = (search.random.index(parents.len()), search.random.index(parents.len()));
    if parents[b].rank() < parents[a].rank() { b } else { a }
}
