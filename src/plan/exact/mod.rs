//! Exact search: closes the distance between the best plan and the lower bound, for small pipelines.
//!
//! Solves the relaxed problem of [`pools`] by lazy clause generation: is there a solution that ends by some time? Each
//! answer "no" raises the lower bound, each "yes" becomes the order and the choices for a schedule of the one decoder.
//! Source: Schutt et al., "Explaining the cumulative propagator", 2011; the solver is Pumpkin. Deterministic for a number
//! of steps. A solver that panics ends the exact search, not the planning. Does not know how the first schedule was found.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pumpkin_conflict_resolvers::resolvers::ResolutionResolver;
use pumpkin_core::Solver;
use pumpkin_core::constraints::Constraint;
use pumpkin_core::predicate;
use pumpkin_core::proof::ConstraintTag;
use pumpkin_core::results::{ProblemSolution, SatisfactionResultUnderAssumptions};
use pumpkin_core::termination::TerminationCondition;
use pumpkin_core::variables::{AffineView, DomainId, Literal, TransformableVariable};
use pumpkin_propagators::cumulative::options::CumulativeOptions;
use pumpkin_propagators::cumulative::time_table::CumulativeExplanationType;

use super::bound::Bound;
use super::decode::Direction;
use super::draft::Draft;
use super::fit::FitRule;
use super::search::Search;
use crate::graph::TaskId;
use crate::units::Millis;

mod pools;
pub mod proof;
mod split;

use pools::{Pool, Pools};
use split::Places;

/// What the bound of an exact search is called.
const BY: &str = "exact search";

/// Steps where nobody limits the search: about a second of one core; a quarter of them for more than so many tasks, where
/// they are dearer and what is not proven soon is hardly proven later.
const STEPS: u64 = 10_000;
const FEW_TASKS: usize = 40;

/// The time that those steps may take: with many ticks one of them can be dear.
const LONGEST: Millis = Millis(1_000);

/// Looks for better schedules and for a better bound until one meets the other or the search is over. Needs a schedule to
/// start from. A step of the solver, a decision or a conflict, counts as an evaluation.
pub(super) fn run<const W: usize>(search: &mut Search<'_, W>) {
    let Some(best) = search.best().map(|best| best.makespan) else { return };
    if search.instance.is_empty() {
        return;
    }
    search.grant(if search.instance.len() > FEW_TASKS { STEPS / 4 } else { STEPS });
    search.end_within(LONGEST);
    let pools = Pools::new(search.instance, best);
    guarded(search, |search| {
        close(search, &pools, false);
        if split::can_split(search.instance, &pools, best) {
            close(search, &pools, true);
        }
    });
}

/// Lets the solver work; where it panics, what was found so far stays, and the reason is kept. Whatever it left behind
/// in the search is made anew by the next schedule.
fn guarded<const W: usize>(search: &mut Search<'_, W>, work: impl FnOnce(&mut Search<'_, W>)) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(search))) else { return };
    search.given_up = Some(words_of(&*panic));
    search.fit.change(FitRule::EarliestFinish, search.instance);
}

/// Returns what a panic says.
fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it gave no reason").to_owned()
}

/// Closes the distance between bound and schedules on pools, or on the devices that they are made of.
fn close<const W: usize>(search: &mut Search<'_, W>, pools: &Pools, on_devices: bool) {
    // Solutions that end in the same tick as the best schedule are no better.
    let better = |search: &Search<'_, W>| {
        let best = search.best().map_or(0, |best| best.makespan);
        tick_count(best / pools.tick - u64::from(best.is_multiple_of(pools.tick) && best > 0))
    };
    let mut least = tick_count(search.bound.time.0.div_ceil(pools.tick));
    let mut most = better(search);
    if least > most || search.is_spent() {
        return;
    }
    let mut model = Model::new(search, pools, least, most);
    let places = on_devices.then(|| model.split(search, pools, most));
    while least <= most && !search.is_spent() {
        // Proofs are dearest just below the optimum, so the first questions are asked nearer to what is known to be there.
        let middle = most - (most - least) / 4;
        let (answer, spent) = model.ends_by(search, pools, middle, places.as_ref());
        search.evaluations += spent;
        match answer {
            Answer::Yes(solution) => {
                most = solution.end - 1;
                match &solution.schedule {
                    Some(schedule) => search.keep(schedule, Direction::Forward),
                    None => realise(search, &solution),
                }
                most = most.min(better(search));
            }
            Answer::No => {
                least = middle + 1;
                let time = Millis(u64::try_from(least).unwrap_or(0) * pools.tick);
                if time > search.bound.time {
                    search.bound = Bound { time, by: BY };
                    search.improved = search.evaluations;
                }
            }
            Answer::Unknown => return,
        }
    }
}

fn tick_count(ticks: u64) -> i32 {
    i32::try_from(ticks).unwrap_or(i32::MAX)
}

/// A solution of the relaxed problem.
struct Solution {
    /// `[n_tasks]`: start in ticks.
    start: Vec<i32>,
    /// `[n_tasks]`: index into the task's choices.
    choice: Vec<u32>,
    end: i32,
    /// What it means, where devices are known.
    schedule: Option<Draft>,
}

enum Answer {
    Yes(Box<Solution>),
    No,
    Unknown,
}

/// Decodes a solution's order and choices, once with each of some fits: they deal its tasks out differently.
fn realise<const W: usize>(search: &mut Search<'_, W>, solution: &Solution) {
    let graph = search.instance.graph;
    let mut order = graph.order.clone();
    // Stable, so that tasks without duration stay behind those they wait for.
    order.sort_by_key(|task| solution.start[task.index()]);
    let mut draft = Draft::default();
    for fit in [FitRule::EarliestFinish, FitRule::BestFit, FitRule::WorstFit, FitRule::FirstFit] {
        search.fit.change(fit, search.instance);
        search.evaluate(&order, &solution.choice, Direction::Forward, &mut draft);
    }
    search.fit.change(FitRule::EarliestFinish, search.instance);
}

/// Moves by the shortest duration that may take the place of one past the longest.
const MOVES: i32 = 1_000;

/// Returns the constraint that what is held at one instant is no more than there is.
///
/// Whoever is moved behind others is moved by its own duration again and again, each time with a reason of its own: from
/// such reasons the solver learns most, but it gives all of them in one step, which nothing ends. A task of a millisecond
/// beside one of a day is moved at once.
fn together(
    starts: Vec<DomainId>,
    durations: Vec<i32>,
    amounts: Vec<i32>,
    capacity: i32,
    tag: ConstraintTag,
) -> impl Constraint {
    let mut options = CumulativeOptions::default();
    let (shortest, longest) = (durations.iter().min(), durations.iter().max());
    if shortest.zip(longest).is_some_and(|(shortest, longest)| longest / shortest.max(&1) > MOVES) {
        options.propagator_options.explanation_type = CumulativeExplanationType::BigStep;
    }
    pumpkin_constraints::cumulative_with_options(starts, durations, amounts, capacity, options, tag)
}

/// The relaxed problem as the solver sees it.
struct Model {
    solver: Solver,
    /// `[n_tasks]`.
    start: Vec<DomainId>,
    /// `[n_tasks]`: its end.
    finish: Vec<View>,
    /// `[n_tasks][n_choices]`: whether the choice is taken; empty for a task with one choice.
    taken: Vec<Vec<Literal>>,
    /// `[n_tasks][n_choices]`: starts with the task where the choice is taken, and lies parked where it is not.
    copies: Vec<Vec<DomainId>>,
    /// Where the next copy lies parked: one behind the other, where they meet nobody.
    parked: i32,
    end: DomainId,
}

type View = AffineView<DomainId>;

impl Model {
    /// Posts the constraints for solutions that end between two ticks.
    fn new<const W: usize>(search: &Search<'_, W>, pools: &Pools, least: i32, most: i32) -> Self {
        let (graph, timing) = (search.instance.graph, search.timing);
        let mut solver = Solver::default();
        let ticks = |time: Millis| tick_count(time.0 / pools.tick);
        let head = |task: TaskId| ticks(timing.earliest_start[task.index()]);
        let tail = |task: TaskId| ticks(timing.makespan - timing.latest_finish(task));
        let shortest = |task: TaskId| pools.ways[task.index()].iter().copied().min().unwrap_or(0);
        let latest = |task: TaskId| (most - tail(task) - shortest(task)).max(head(task));
        let start: Vec<_> = graph.ids().map(|task| solver.new_bounded_integer(head(task), latest(task))).collect();
        let end = solver.new_bounded_integer(least.min(most), most);
        let (finish, copies) = (Vec::with_capacity(graph.len()), Vec::with_capacity(graph.len()));
        let (taken, parked) = (vec![Vec::new(); graph.len()], most.saturating_add(1));
        let mut model = Self { solver, start, finish, taken, copies, parked, end };
        for task in graph.ids() {
            let ways = &pools.ways[task.index()];
            if ways.len() == 1 {
                model.copies.push(vec![model.start[task.index()]]);
                model.finish.push(model.start[task.index()].offset(ways[0]));
                model.precede(search, task);
                continue;
            }
            let finish = model.solver.new_bounded_integer(head(task) + shortest(task), (most - tail(task)).max(0));
            let mut of_task = Vec::with_capacity(ways.len());
            for way in ways {
                let (taken, copy) = model.copy_while(task, *way, most - tail(task));
                // Whoever takes this way ends so much later than it starts.
                let tag = model.solver.new_constraint_tag();
                let terms = vec![copy.scaled(1), finish.scaled(-1)];
                model.solver.add_constraint(pumpkin_constraints::equals(terms, -way, tag)).implied_by(taken);
                model.taken[task.index()].push(taken);
                of_task.push(copy);
            }
            model.copies.push(of_task);
            model.finish.push(finish.offset(0));
            let (clause, tag) = (model.taken[task.index()].clone(), model.solver.new_constraint_tag());
            model.solver.add_clause(clause.iter().map(Literal::get_true_predicate).collect::<Vec<_>>(), tag);
            model.precede(search, task);
        }
        pools.pools.iter().for_each(|pool| model.share(pool, &pools.ways));
        pools.budgets.iter().for_each(|budget| model.spend(budget));
        model
    }

    /// Nothing that waits for a task starts before it ends, and the whole does not end before it.
    fn precede<const W: usize>(&mut self, search: &Search<'_, W>, task: TaskId) {
        let (after, finish) = (search.instance.graph.after.of(task), self.finish[task.index()]);
        let later = after.iter().map(|edge| self.start[edge.task.index()]).chain(after.is_empty().then_some(self.end));
        for next in later.collect::<Vec<_>>() {
            let tag = self.solver.new_constraint_tag();
            let terms = vec![finish, next.scaled(-1)];
            self.solver.add_constraint(pumpkin_constraints::less_than_or_equals(terms, 0, tag)).post();
        }
    }

    /// Makes the copy of a task that starts with it while something holds, so that it ends by `last`, and lies parked
    /// while it does not.
    fn copy_while(&mut self, task: TaskId, way: i32, last: i32) -> (Literal, DomainId) {
        let start = self.start[task.index()];
        let place = self.parked;
        self.parked = place.saturating_add(way.max(1));
        let (first, last) = (self.solver.lower_bound(&start), last - way);
        let copy = self.solver.new_bounded_integer(if last < first { place } else { first }, place);
        let tag = self.solver.new_constraint_tag();
        let holds = self.solver.new_literal_for_predicate(predicate![copy <= last], tag);
        let tag = self.solver.new_constraint_tag();
        self.solver.add_clause(vec![predicate![copy <= last], predicate![copy >= place]], tag);
        let tag = self.solver.new_constraint_tag();
        let terms = vec![copy.scaled(1), start.scaled(-1)];
        self.solver.add_constraint(pumpkin_constraints::equals(terms, 0, tag)).implied_by(holds);
        (holds, copy)
    }

    fn share(&mut self, pool: &Pool, ways: &[Vec<i32>]) {
        let lasting = pool.uses.iter().filter(|(task, choice, _)| ways[*task][*choice] > 0);
        let lasting: Vec<_> = lasting.copied().collect();
        // The solver refuses constraints without variables.
        if lasting.is_empty() {
            return;
        }
        let starts: Vec<_> = lasting.iter().map(|(task, choice, _)| self.copies[*task][*choice]).collect();
        let durations: Vec<_> = lasting.iter().map(|(task, choice, _)| ways[*task][*choice]).collect();
        let amounts: Vec<_> = lasting.iter().map(|(.., amount)| *amount).collect();
        let tag = self.solver.new_constraint_tag();
        let held = together(starts, durations, amounts, pool.capacity, tag);
        self.solver.add_constraint(held).post();
    }

    fn spend(&mut self, budget: &Pool) {
        let mut fixed = 0_i32;
        let mut terms = Vec::new();
        for (task, choice, amount) in &budget.uses {
            match self.taken[*task].get(*choice) {
                Some(taken) => terms.push(taken.get_integer_variable().scaled(*amount)),
                None => fixed = fixed.saturating_add(*amount),
            }
        }
        if terms.is_empty() {
            return;
        }
        let tag = self.solver.new_constraint_tag();
        let limit = budget.capacity.saturating_sub(fixed);
        self.solver.add_constraint(pumpkin_constraints::less_than_or_equals(terms, limit, tag)).post();
    }

    /// Asks whether there is a solution that ends by a tick, and says how many steps that took.
    fn ends_by<const W: usize>(
        &mut self,
        search: &Search<'_, W>,
        pools: &Pools,
        by: i32,
        places: Option<&Places>,
    ) -> (Answer, u64) {
        let mut steps = Steps { left: search.left().unwrap_or(u64::MAX), spent: 0, search };
        let mut brancher = self.solver.default_brancher();
        let mut resolver = ResolutionResolver::default();
        let end = self.end;
        let result =
            self.solver.satisfy_under_assumptions(&mut brancher, &mut steps, &mut resolver, &[predicate![end <= by]]);
        let answer = match result {
            SatisfactionResultUnderAssumptions::Satisfiable(found) => {
                let found = found.solution();
                let start = self.start.iter().map(|start| found.get_integer_value(*start)).collect();
                let is_taken = |literal: &Literal| found.get_literal_value(*literal);
                let index = |taken: &Vec<Literal>| taken.iter().position(is_taken).unwrap_or(0);
                let choice = self.taken.iter().map(|taken| u32::try_from(index(taken)).unwrap_or(0)).collect();
                let mut solution = Solution { start, choice, end: found.get_integer_value(end), schedule: None };
                let schedule = places.map(|places| split::schedule(search.instance, pools, places, &found, &solution));
                solution.schedule = schedule;
                Answer::Yes(Box::new(solution))
            }
            SatisfactionResultUnderAssumptions::UnsatisfiableUnderAssumptions(_)
            | SatisfactionResultUnderAssumptions::Unsatisfiable(_) => Answer::No,
            SatisfactionResultUnderAssumptions::Unknown(_) => Answer::Unknown,
        };
        (answer, steps.spent)
    }
}

/// Ends the solver after a number of steps or when the search's time is over.
struct Steps<'s, 'a, const W: usize> {
    left: u64,
    spent: u64,
    search: &'s Search<'a, W>,
}

/// The clock is asked once in so many steps.
const GLANCE: u64 = 8;

impl<const W: usize> TerminationCondition for Steps<'_, '_, W> {
    fn should_stop(&mut self) -> bool {
        if self.spent == self.left {
            return true;
        }
        self.spent += 1;
        self.spent.is_multiple_of(GLANCE) && self.search.is_out_of_time()
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{add_node, on_gpus, on_host, problem};
    use super::super::policy::Policy;
    use super::super::{Instance, Options};
    use super::*;
    use crate::spec::Gpus;
    use crate::timing::Timing;
    use crate::units::Share;

    #[test]
    fn steps_that_are_dear_do_not_make_planning_long() {
        let mut fleet = crate::fleet::Fleet::default();
        add_node(&mut fleet, 2, 64, &[]);
        let mut modes = vec![vec![on_host(1, 517)]; 9];
        modes.push(vec![on_host(1, 60_000)]);
        let edges: Vec<_> = (0..9).map(|task| (task, 9)).collect();
        let problem = problem(modes, &edges, fleet);
        let instance = Instance::new(&problem.pipeline, &problem.graph, &problem.fleet).unwrap();
        let timing = Timing::new(&problem.graph, instance.shortest());
        let bound = super::super::bound::lower_bound(&instance, &timing);
        // Every look at this clock is half a second later than the one before.
        let looks = std::sync::atomic::AtomicU64::new(0);
        let clock = || Millis(500 * (looks.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1));
        let limits = super::super::Limits { clock: Some(&clock), ..super::super::Limits::default() };
        let options = Options { policy: Policy::Auto, limits, ..Options::default() };
        let mut search = Search::<1>::new(&instance, &timing, bound, &options);
        let any = [super::super::decode::FREE; 10];
        search.evaluate(&problem.graph.order, &any, Direction::Forward, &mut Draft::default());
        run(&mut search);
        let looks = looks.into_inner();
        assert!(looks <= 8, "{looks} looks");
    }

    #[test]
    fn tasks_of_milliseconds_beside_one_of_days_keep_nobody_waiting() {
        let mut fleet = crate::fleet::Fleet::default();
        add_node(&mut fleet, 64, 512, &[("A", 80, 1_000), ("A", 80, 1_000), ("B", 48, 700), ("B", 24, 400)]);
        let (half, whole) = (|ms| on_gpus(Gpus::Share(Share(500_000)), 8, ms), |ms| on_gpus(Gpus::Shared, 15, ms));
        let pair = |ms| on_gpus(Gpus::Whole(2), 0, ms);
        let long = [pair(526_504_281), whole(397_167_631), pair(635_062_811), half(512_478_196)];
        let short = [half(7), whole(83_972), pair(3_706), half(22)];
        let modes = short.into_iter().chain(long).map(|mode| vec![mode]).collect();
        let problem = problem(modes, &[(2, 3)], fleet);
        // By moves of milliseconds one step of the solver takes minutes, and all of the memory.
        let instance = Instance::new(&problem.pipeline, &problem.graph, &problem.fleet).unwrap();
        let makespan = 1_200_000_000;
        let moves = makespan / Pools::new(&instance, makespan).tick;
        assert!((10_000..20_000).contains(&moves), "{moves}");
        for policy in [Policy::Auto, "exact".parse().unwrap()] {
            let limits = super::super::Limits { evaluations: Some(2_000), ..super::super::Limits::default() };
            let options = Options { policy, limits, ..Options::default() };
            let plan = super::super::make(&problem.pipeline, &problem.graph, &problem.fleet, &options).unwrap();
            assert!(plan.gap() < 0.01, "{policy}: {}", plan.gap());
        }
    }

    #[test]
    fn no_more_steps_are_counted_than_may_be_taken() {
        let mut fleet = crate::fleet::Fleet::default();
        add_node(&mut fleet, 2, 64, &[]);
        let problem = problem(vec![vec![on_host(1, 5)]; 3], &[], fleet);
        let instance = Instance::new(&problem.pipeline, &problem.graph, &problem.fleet).unwrap();
        let timing = Timing::new(&problem.graph, instance.shortest());
        let bound = super::super::bound::lower_bound(&instance, &timing);
        let search = Search::<1>::new(&instance, &timing, bound, &Options::default());
        let mut steps = Steps { left: 3, spent: 0, search: &search };
        let taken = (0..9).take_while(|_| !steps.should_stop()).count();
        assert_eq!((taken, steps.spent), (3, 3));
    }

    #[test]
    fn a_solver_that_panics_leaves_what_was_found_and_a_reason() {
        let mut fleet = crate::fleet::Fleet::default();
        add_node(&mut fleet, 2, 64, &[]);
        let problem = problem(vec![vec![on_host(1, 5)]; 3], &[], fleet);
        let instance = Instance::new(&problem.pipeline, &problem.graph, &problem.fleet).unwrap();
        let timing = Timing::new(&problem.graph, instance.shortest());
        let bound = super::super::bound::lower_bound(&instance, &timing);
        let options = Options { policy: Policy::Auto, ..Options::default() };
        let mut search = Search::<1>::new(&instance, &timing, bound, &options);
        search.evaluate(
            &problem.graph.order,
            &[super::super::decode::FREE; 3],
            Direction::Forward,
            &mut Draft::default(),
        );
        guarded(&mut search, |search| {
            search.fit.change(FitRule::WorstFit, search.instance);
            panic!("out of {}", "literals");
        });
        assert_eq!(search.given_up.as_deref(), Some("out of literals"));
        assert_eq!(search.fit.rule(), FitRule::EarliestFinish);
        assert_eq!(search.into_best().map(|best| best.makespan), Some(10));
    }
}
