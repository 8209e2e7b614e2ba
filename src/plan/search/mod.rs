//! Search: finds better schedules than one pass does, for as long as it is allowed to.
//!
//! Every engine proposes orders and choices to the one decoder and keeps the best schedule. All of them are
//! deterministic for a seed and a number of evaluations; only a time limit depends on the machine. Does not know
//! pipelines.

use super::bound::Bound;
use super::decode::{Decoder, Direction, Wanted};
use super::draft::Draft;
use super::fit::{Fit, FitRule};
use super::instance::Instance;
use super::islands::Passage;
use super::random::Random;
use super::{Limits, Options};
use crate::batch::search::Searcher;
use crate::graph::TaskId;
use crate::timing::{Origin, Timing};
use crate::units::Millis;

pub(super) mod ants;
pub(super) mod batches;
mod crossover;
mod crowd;
pub(super) mod genetic;
pub(super) mod local;
pub(super) mod modes;
mod relaxed;
mod sample;
pub(super) mod swarm;

use crowd::{Crowd, Wish};
use genetic::Individual;

/// What every engine works with.
pub(super) struct Search<'a, const W: usize> {
    pub(super) instance: &'a Instance<'a>,
    pub(super) timing: &'a Timing,
    pub(super) bound: Bound,
    pub(super) limits: Limits<'a>,
    /// Who searches in batches.
    searcher: Option<&'a dyn Searcher>,
    pub(super) decoder: Decoder<'a, W>,
    pub(super) fit: Fit,
    /// Who makes schedules beside the decoder.
    crowd: Option<Crowd<'a, W>>,
    pub(super) random: Random,
    /// Schedules tried so far.
    pub(super) evaluations: u64,
    /// Schedules tried when the best one was found.
    pub(super) improved: u64,
    /// Schedules that others may start from, the best one last, as seen from the beginning of time.
    found: Vec<Draft>,
    /// Looks at a place that one schedule takes.
    looks: u64,
    /// The part of the search that goes on, which ends sooner than all of it.
    part: Part,
    /// Evaluations that an engine may have besides, where nobody limits the search.
    granted: u64,
    /// Whether most durations are guesses, so that a better plan would only be better on paper.
    guessed: bool,
    /// Why the exact search was given up, where it broke down.
    pub(super) given_up: Option<String>,
    /// To other islands, where there are some.
    passage: Option<Passage>,
    /// What came from there last.
    arrived: Option<Draft>,
}

/// A part of a search.
#[derive(Clone, Copy, Default)]
struct Part {
    /// Evaluations and time at which it ends; where all of the search does when absent.
    evaluations: Option<u64>,
    time: Option<Millis>,
    /// Whether it ends when nothing was found for long.
    patient: bool,
}

/// Schedules that are remembered for others to start from.
const FOUND: usize = 8;

/// Looks at a place that may be spent where nobody limits the search: about a second of one core.
const LOOKS: u64 = 5_000_000;
/// Makespan from which on all of [`LOOKS`] may be spent; less for a shorter one, so that planning never takes much more
/// than a hundredth of what is planned.
const FULL_MS: u64 = 100_000;
/// Evaluations without improvement after which a search that nobody limits ends: a few, and so many for each task.
const PATIENCE: (u64, u64) = (200, 25);

impl<'a, const W: usize> Search<'a, W> {
    pub(super) fn new(instance: &'a Instance<'a>, timing: &'a Timing, bound: Bound, options: &Options<'a>) -> Self {
        Self {
            instance,
            timing,
            bound,
            limits: options.limits,
            searcher: options.searcher,
            decoder: Decoder::new(instance),
            fit: Fit::new(FitRule::EarliestFinish, options.seed, instance),
            crowd: Crowd::of(instance, options),
            random: Random::new(options.seed),
            evaluations: 0,
            improved: 0,
            found: Vec::new(),
            looks: looks(instance),
            part: Part::default(),
            granted: 0,
            guessed: is_guessed(instance),
            given_up: None,
            passage: None,
            arrived: None,
        }
    }

    /// Lets an engine use a part of the evaluations and of the time that are left, or less where it is patient and finds
    /// nothing more.
    pub(super) fn part(&mut self, (of, whole): (u64, u64), patient: bool, engine: impl FnOnce(&mut Self)) {
        let evaluations = self.left().map(|left| self.evaluations.saturating_add(left.saturating_mul(of) / whole));
        let time = self.limits.budget.zip(self.limits.clock).map(|(budget, clock)| {
            let now = clock();
            now + Millis((budget - now).0 / whole * of)
        });
        self.part = Part { evaluations, time, patient };
        engine(self);
        self.part = Part::default();
    }

    /// Lets an engine have so many more evaluations where nobody limits the search: as many for a makespan from
    /// [`FULL_MS`] on, fewer for a shorter one.
    pub(super) fn grant(&mut self, evaluations: u64) {
        let makespan = self.best().map_or(0, |best| best.makespan);
        self.granted += evaluations * makespan.min(FULL_MS) / FULL_MS;
    }

    /// Returns the best schedule.
    pub(super) fn into_best(mut self) -> Option<Draft> {
        self.found.pop()
    }

    /// Places all tasks in `order` with `choice`, counts that, and keeps the schedule if it is the best so far. Returns
    /// whether it is within the budgets.
    pub(super) fn evaluate(
        &mut self,
        order: &[TaskId],
        choice: &[u32],
        direction: Direction,
        draft: &mut Draft,
    ) -> bool {
        self.evaluate_near(None, order, choice, direction, draft)
    }

    /// The same with tasks on the devices that they have in another schedule, where that costs no time.
    fn evaluate_near(
        &mut self,
        near: Option<&Draft>,
        order: &[TaskId],
        choice: &[u32],
        direction: Direction,
        draft: &mut Draft,
    ) -> bool {
        let paid = self.is_paid(choice);
        self.decode(&Wanted { order, choice, paid, direction, kept: None, near, by: None }, draft)
    }

    /// Whether choices are known to stay in the budgets.
    fn is_paid(&self, choice: &[u32]) -> bool {
        !self.instance.budgets.is_empty() && modes::fit_budgets(self.instance, choice)
    }

    /// The same for anything that can be decoded. Returns whether there is such a schedule.
    fn decode(&mut self, wanted: &Wanted<'_>, draft: &mut Draft) -> bool {
        let is_one = self.decoder.decode(wanted, &mut self.fit, draft).is_ok();
        self.count(is_one.then_some((&*draft, wanted.direction)));
        is_one
    }

    /// Returns how many schedules may be made at once; 1 where that takes longer than one after the other.
    fn at_once(&self) -> usize {
        let crowd = self.crowd.as_ref().filter(|_| self.decoder.serial.is_none());
        let most = crowd.map_or(1, |crowd| crowd.batch());
        self.left().map_or(most, |left| most.min(usize::try_from(left).unwrap_or(most)))
    }

    /// Places all tasks as each of some wishes says, at once, and counts the schedules in their order until the search is over;
    /// `made` is told of each. Only where [`at_once`](Self::at_once) is more than 1.
    fn evaluate_all(&mut self, wishes: &[Wish], direction: Direction, mut made: impl FnMut(&Draft)) {
        let Some(mut crowd) = self.crowd.take() else { return };
        crowd.decode(wishes, direction, (&self.decoder, &self.fit));
        for draft in crowd.made() {
            self.count(draft.map(|draft| (draft, direction)));
            draft.into_iter().for_each(&mut made);
            if self.is_over() {
                break;
            }
        }
        self.crowd = Some(crowd);
    }

    /// Whether two orders are decoded faster at once than one after the other, and as many may be tried.
    fn takes_both(&self) -> bool {
        self.decoder.serial.is_some() && self.left().is_none_or(|left| left > 1)
    }

    /// Places all tasks in two orders and counts both schedules, where [`takes_both`](Self::takes_both) says so.
    fn evaluate_both(&mut self, orders: &[Vec<TaskId>; 2], direction: Direction, drafts: &mut [Draft; 2]) {
        if let Some(serial) = &mut self.decoder.serial {
            serial.decode_both(orders.each_ref().map(Vec::as_slice), direction, drafts);
            drafts.iter().for_each(|draft| self.count(Some((draft, direction))));
        }
    }

    /// Makes a schedule moment by moment, the urgent of the tasks that can begin first, by chance, and counts it. Returns
    /// whether that is how schedules are made here.
    fn draw_by_moments(&mut self, draft: &mut Draft) -> bool {
        let Self { decoder, random, timing, .. } = self;
        let Some(serial) = &mut decoder.serial else { return false };
        serial.by_moments(Direction::Forward, |ready| sample::urgent(random, timing, ready), draft);
        self.count(Some((draft, Direction::Forward)));
        true
    }

    /// Makes a schedule moment by moment, of the tasks that can begin first the one that is first in an order, and counts it,
    /// where [`takes_both`](Self::takes_both) says that schedules are made here without a choice. `[n_tasks]`, by TaskId:
    /// `position` in the order.
    fn evaluate_by_moments(&mut self, position: &[u32], direction: Direction, draft: &mut Draft) {
        if let Some(serial) = &mut self.decoder.serial {
            let place = |task: &TaskId| position[task.index()];
            let first = |ready: &[TaskId]| (0..ready.len()).min_by_key(|at| place(&ready[*at])).unwrap_or(0);
            serial.by_moments(direction, first, draft);
            self.count(Some((draft, direction)));
        }
    }

    /// Counts a schedule that was tried, and keeps it if it is the best so far.
    fn count(&mut self, found: Option<(&Draft, Direction)>) {
        self.evaluations += 1;
        if let Some((draft, direction)) = found {
            self.keep(draft, direction);
        }
        if self.passage.as_ref().is_some_and(|passage| passage.is_due(self.evaluations)) {
            self.exchange();
        }
    }

    /// Becomes an island that begins with a schedule; a patient one ends where nothing was found for long.
    pub(super) fn settle(&mut self, first: Option<Draft>, passage: Passage, patient: bool) {
        self.part.patient = patient;
        self.found.extend(first);
        self.passage = Some(passage);
    }

    /// Sends the best schedule to the next island and takes that of the one before in.
    fn exchange(&mut self) {
        let best = self.found.last();
        let arrived = self.passage.as_mut().and_then(|passage| passage.exchange(best));
        if let Some(arrived) = &arrived {
            self.keep(arrived, Direction::Forward);
        }
        self.arrived = arrived;
    }

    /// Returns what came from another island since this was last asked, as seen from an end of time.
    fn arrived(&mut self, from: Direction) -> Option<Draft> {
        let arrived = self.arrived.take()?;
        Some(seen(arrived, from))
    }

    /// Keeps a schedule if it is the best so far.
    pub(super) fn keep(&mut self, draft: &Draft, direction: Direction) {
        if self.found.last().is_some_and(|best| draft.makespan >= best.makespan) {
            return;
        }
        self.improved = self.evaluations;
        if self.found.len() == FOUND {
            self.found.remove(0);
        }
        self.found.push(match direction {
            Direction::Forward => draft.clone(),
            Direction::Backward => draft.mirrored(),
        });
    }

    /// Decodes the best schedule from its end and from its beginning, again and again, as long as that makes it shorter.
    /// Source: forward-backward improvement, Li and Willis, 1992.
    pub(super) fn justify(&mut self) {
        let mut draft = Draft::default();
        let (mut order, mut orders) = (Vec::new(), crossover::Orders::default());
        while let Some(mut turned) = self.best().map(Individual::of).filter(|_| !self.is_over()) {
            let before = self.improved;
            for direction in [Direction::Backward, Direction::Forward] {
                orders.by_end(self.instance.graph, &turned, direction, &mut order);
                if !self.evaluate(&order, &turned.choice, direction, &mut draft) {
                    return;
                }
                turned = Individual::of(&draft);
            }
            if self.improved == before {
                return;
            }
        }
    }

    /// Returns the best schedule so far.
    pub(super) fn best(&self) -> Option<&Draft> {
        self.found.last()
    }

    /// Returns how many schedules may be tried; `None` where only time is limited.
    ///
    /// Where nothing is, the number depends on the problem alone, so that what `plan` shows is what `run` does.
    fn allowed(&self) -> Option<u64> {
        if self.limits.evaluations.is_some() || self.limits.budget.is_some() {
            return self.limits.evaluations;
        }
        Some(if self.guessed { 0 } else { self.unasked() + self.granted })
    }

    /// Returns how many schedules may be tried where nobody limits the search.
    fn unasked(&self) -> u64 {
        let makespan = self.best().map_or(0, |best| best.makespan);
        LOOKS / FULL_MS * makespan.min(FULL_MS) / self.looks.max(1)
    }

    /// Whether there is nothing left to look for or to look with, or nothing was found for long.
    pub(super) fn is_over(&self) -> bool {
        if self.is_spent() {
            return true;
        }
        let limited = self.limits.evaluations.is_some() || self.limits.budget.is_some();
        let (some, each) = PATIENCE;
        let patience = some + each * self.instance.len() as u64;
        (self.part.patient || !limited) && self.evaluations - self.improved > patience
    }

    /// Whether there is nothing left to look for or to look with. The first schedule is always finished.
    pub(super) fn is_spent(&self) -> bool {
        let Some(best) = self.best() else { return false };
        best.makespan <= self.bound.time.0 || self.left() == Some(0) || self.is_out_of_time()
    }

    /// Whether no time is left. A budget that no clock watches is no limit where evaluations are one, and is spent where
    /// they are not.
    pub(super) fn is_out_of_time(&self) -> bool {
        match (self.part.time.or(self.limits.budget), self.limits.clock) {
            (Some(end), Some(clock)) => clock() >= end,
            (Some(_), None) => self.limits.evaluations.is_none(),
            (None, _) => false,
        }
    }

    /// Ends the part that goes on after so long, where nobody limits the search: for an engine whose evaluations can be so
    /// dear that their number is no limit.
    pub(super) fn end_within(&mut self, time: Millis) {
        if let (None, None, Some(clock)) = (self.limits.evaluations, self.limits.budget, self.limits.clock) {
            self.part.time = Some(clock() + time);
        }
    }

    /// Returns how many more schedules may be tried; `None` where only time is limited.
    pub(super) fn left(&self) -> Option<u64> {
        self.part.evaluations.or_else(|| self.allowed()).map(|most| most.saturating_sub(self.evaluations))
    }

    /// Returns about how many schedules a core tries in the time allowed: equal on every machine.
    pub(super) fn in_budget(&self) -> u64 {
        let budget = self.limits.budget.map_or(0, |budget| budget.0);
        budget.saturating_mul(LOOKS / 1_000) / self.looks.max(1)
    }

    /// Returns choices that stay in the budgets, drawn at random; `None` where there are no budgets to stay in.
    pub(super) fn modes(&mut self) -> Option<Vec<u32>> {
        if self.instance.budgets.is_empty() {
            return None;
        }
        let free = vec![super::decode::FREE; self.instance.len()];
        modes::repaired(self.instance, &mut self.random, free)
    }

    /// Returns a child with choices that stay in the budgets, if such can be found near its own.
    fn within_budgets(&mut self, child: Individual) -> Option<Individual> {
        if self.instance.budgets.is_empty() {
            return Some(child);
        }
        let choice = modes::repaired(self.instance, &mut self.random, child.choice)?;
        Some(Individual { choice, ..child })
    }
}

/// Returns a schedule as seen from an end of time.
fn seen(draft: Draft, from: Direction) -> Draft {
    if from == Direction::Forward { draft } else { draft.mirrored() }
}

fn looks(instance: &Instance<'_>) -> u64 {
    let members = |group: u32| instance.groups[group as usize].members.iter();
    let of_choice = |group: u32| members(group).map(|(_, devices)| devices.len().max(1) as u64).sum::<u64>();
    let kinds = instance.kinds.iter();
    let by_kind: Vec<u64> = kinds.map(|kind| kind.choices.iter().map(|choice| of_choice(choice.group)).sum()).collect();
    instance.kind.iter().map(|kind| by_kind[*kind as usize]).sum()
}

fn is_guessed(instance: &Instance<'_>) -> bool {
    let guess = |kind: &&u32| instance.kinds[**kind as usize].choices[0].load.origin == Origin::Default;
    instance.kind.iter().filter(guess).count() * 2 > instance.len()
}
