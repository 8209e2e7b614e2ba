//! Search for a plan by another measure than its end: every order rule with every fit, then small changes of the order and of
//! where single tasks go, which are kept also where they are worse, if not worse than what was kept some time before. Source:
//! Burke and Bykov, "The late acceptance hill-climbing heuristic", 2017.
//!
//! Deterministic for a seed and a number of schedules. A plan made by an order and a fit is only measured.

use super::amounts::in_words;
use super::bound::Bound;
use super::decode::{Decoder, Direction, FREE, Wanted};
use super::draft::Draft;
use super::fit::{Fit, FitRule};
use super::instance::Instance;
use super::machine;
use super::objective::Goal;
use super::order::{OrderRule, by_key};
use super::policy::{Policy, REPAIRS};
use super::random::Random;
use super::search::modes;
use super::{Limits, Options, Plan, PlanError};
use crate::graph::TaskId;
use crate::timing::Timing;
use crate::units::Millis;

/// Schedules without a better one after which no more are tried, where nobody says how many: some, and more for each task.
const PATIENCE: (u64, u64) = (300, 3);

/// Fits that mostly lead to the best plans.
const PROMISING: [FitRule; 2] = [FitRule::EarliestFinish, FitRule::BestFit];

/// After how many changes what was kept then counts no more.
const LATE: usize = 50;

/// Time that a search may take where nobody says: a hundredth of the makespan, at most a second.
const LONGEST: Millis = Millis(1_000);

/// Makes a plan for the objective of the options.
pub(super) fn plan(
    instance: &Instance<'_>,
    timing: &Timing,
    bound: Bound,
    options: &Options<'_>,
) -> Result<Plan, PlanError> {
    let goal = Goal::new(options.objective, instance);
    let found = in_words!(machine::words(instance), W => Planner::<W>::new(instance, timing, &goal, options).best());
    let (draft, evaluations) = found.ok_or(PlanError::TooManyResources)?.ok_or(PlanError::Budgets)?;
    let plan = draft.into_plan(instance, options.policy.to_string());
    let value = goal.value(&plan.placed, plan.makespan);
    let value_bound = goal.bound(timing, bound.time);
    let (lower_bound, bound_by) = (bound.time, bound.by);
    Ok(Plan { evaluations, lower_bound, bound_by, objective: options.objective, value, value_bound, ..plan })
}

struct Planner<'a, const W: usize> {
    instance: &'a Instance<'a>,
    timing: &'a Timing,
    goal: &'a Goal<'a>,
    policy: Policy,
    limits: Limits<'a>,
    seed: u64,
    decoder: Decoder<'a, W>,
    fit: Fit,
    evaluations: u64,
    improved: u64,
    best: Option<Best>,
}

/// What a schedule is worth, and when it ends: of equal values the one that ends first is the better one.
type Measure = (u128, u64);

/// A schedule with what led to it.
struct Best {
    measure: Measure,
    draft: Draft,
    choice: Vec<u32>,
}

impl<'a, const W: usize> Planner<'a, W> {
    fn new(instance: &'a Instance<'a>, timing: &'a Timing, goal: &'a Goal<'a>, options: &Options<'a>) -> Self {
        Self {
            instance,
            timing,
            goal,
            policy: options.policy,
            limits: options.limits,
            seed: options.seed,
            decoder: Decoder::new(instance),
            fit: Fit::new(FitRule::EarliestFinish, options.seed, instance),
            evaluations: 0,
            improved: 0,
            best: None,
        }
    }

    fn best(mut self) -> Option<(Draft, u64)> {
        let free = vec![FREE; self.instance.len()];
        if let Policy::List(order, fit) = self.policy {
            self.rule(order, fit, &free);
            self.repaired(order, fit);
        } else {
            if let Some(order) = self.goal.weighty_first() {
                self.try_order(&order, &free);
            }
            let choices: Vec<_> = [Some(free), self.goal.thriftiest()].into_iter().flatten().collect();
            for choice in &choices {
                // The first answer knows both, however short the time.
                if self.best.is_none() || self.limits.evaluations.is_none_or(|most| self.evaluations < most) {
                    self.rule(OrderRule::Fifo, FitRule::EarliestFinish, choice);
                }
            }
            choices.iter().for_each(|choice| self.rules(choice));
            self.repaired(OrderRule::CriticalPath, FitRule::EarliestFinish);
            self.search();
        }
        self.best.map(|best| (best.draft, self.evaluations))
    }

    /// Where everything ran out of a budget, tries an order with choices that stay in all of them.
    fn repaired(&mut self, order: OrderRule, fit: FitRule) {
        let mut random = Random::new(self.seed);
        let mut left = REPAIRS;
        while self.best.is_none() && left > 0 && !self.instance.budgets.is_empty() {
            left -= 1;
            if let Some(choice) = modes::repaired(self.instance, &mut random, vec![FREE; self.instance.len()]) {
                self.rule(order, fit, &choice);
            }
        }
    }

    /// Tries every order with every fit, the most promising fits first.
    fn rules(&mut self, choice: &[u32]) {
        let fits = FitRule::ALL.into_iter().map(|(_, fit)| fit).filter(|fit| !PROMISING.contains(fit));
        for fit in PROMISING.into_iter().chain(fits) {
            for (_, order) in OrderRule::ALL.into_iter().filter(|(_, order)| *order != OrderRule::TimeSlice) {
                if self.best.is_none() || !self.is_over() {
                    self.rule(order, fit, choice);
                }
            }
        }
        self.fit.change(FitRule::EarliestFinish, self.instance);
    }

    fn rule(&mut self, order: OrderRule, fit: FitRule, choice: &[u32]) {
        self.fit.change(fit, self.instance);
        let order = order.order(self.instance, self.timing);
        self.try_order(&order, choice);
    }

    /// Keeps the schedule of an order if it is better than all before. Returns what it is worth; nothing where it runs
    /// out of a budget.
    fn try_order(&mut self, order: &[TaskId], choice: &[u32]) -> Option<Measure> {
        self.evaluations += 1;
        let direction = Direction::Forward;
        let wanted = Wanted { order, choice, paid: false, direction, kept: None, near: None, by: None };
        let mut draft = Draft::default();
        self.decoder.decode(&wanted, &mut self.fit, &mut draft).ok()?;
        let measure = self.goal.measure(&draft);
        if self.best.as_ref().is_none_or(|best| measure < best.measure) {
            self.improved = self.evaluations;
            self.best = Some(Best { measure, draft, choice: choice.to_vec() });
        }
        Some(measure)
    }

    /// Moves a few tasks to other places in an order, or ties one to another way to run, again and again.
    fn search(&mut self) {
        let mut random = Random::new(self.seed);
        let n = self.instance.len();
        let Some(best) = self.best.as_ref().filter(|_| n > 0) else { return };
        let mut here = (best.measure, best.draft.order.clone(), best.choice.clone());
        let mut before = [here.0; LATE];
        let mut place = vec![0_u64; n];
        for late in (0..LATE).cycle() {
            if self.is_over() {
                return;
            }
            (0..).zip(&here.1).for_each(|(at, task)| place[task.index()] = 2 * at);
            let mut choice = here.2.clone();
            for _ in 0..=random.index(3) {
                let task = random.index(n);
                let ways = self.instance.kinds[self.instance.kind[task] as usize].choices.len();
                if ways > 1 && random.below(2) == 0 {
                    choice[task] = u32::try_from(random.index(ways)).unwrap_or(FREE);
                } else {
                    place[task] = 2 * random.below(n as u64) + 1;
                }
            }
            let order = by_key(self.instance, |task, _| std::cmp::Reverse(place[task.index()]));
            let measure = self.try_order(&order, &choice);
            if let Some(measure) = measure.filter(|measure| *measure <= here.0.max(before[late])) {
                here = (measure, order, choice);
            }
            before[late] = here.0;
        }
    }

    fn is_over(&self) -> bool {
        let Limits { evaluations, budget, clock } = self.limits;
        let makespan = self.best.as_ref().map_or(0, |best| best.measure.1);
        let budget = budget.unwrap_or_else(|| Millis(makespan / 100).min(LONGEST));
        let out_of_time = match clock {
            Some(clock) if evaluations.is_none() || self.limits.budget.is_some() => clock() >= budget,
            Some(_) | None => evaluations.is_none() && self.limits.budget.is_some(),
        };
        let limited = evaluations.is_some() || self.limits.budget.is_some();
        let patience = PATIENCE.0 + PATIENCE.1 * self.instance.len() as u64;
        let tired = !limited && self.evaluations - self.improved > patience;
        out_of_time || tired || evaluations.is_some_and(|most| self.evaluations >= most)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fleet::Fleet;
    use crate::plan::fixture::{Problem, add_node, any_problem, on_gpus, on_host, problem};
    use crate::plan::{self, Objective};
    use crate::spec::{Gpus, Mode};

    fn made(problem: &Problem, objective: Objective) -> Plan {
        let limits = Limits { evaluations: Some(400), ..Limits::default() };
        let options = Options { limits, objective, ..Options::default() };
        plan::make(&problem.pipeline, &problem.graph, &problem.fleet, &options).unwrap()
    }

    #[test]
    fn what_weighs_much_and_takes_little_goes_first() {
        let mut fleet = Fleet::default();
        add_node(&mut fleet, 1, 64, &[]);
        let modes = [(10_000, 1), (1_000, 1), (4_000, 20)];
        let mut problem = problem(modes.iter().map(|(ms, _)| vec![on_host(1, *ms)]).collect(), &[], fleet);
        for (stage, (_, priority)) in problem.pipeline.stages.iter_mut().zip(modes) {
            stage.priority = priority;
        }
        let plan = made(&problem, Objective::WeightedCompletion);
        // Smith's rule: by weight over duration.
        assert_eq!(plan.placed.iter().map(|placed| placed.start.0).collect::<Vec<_>>(), [5_000, 4_000, 0]);
        assert_eq!(plan.value, 15_000 + 5_000 + 20 * 4_000);
        assert_eq!(plan.value_bound, plan.value);
    }

    #[test]
    fn the_first_answer_knows_what_weighs() {
        let mut fleet = Fleet::default();
        add_node(&mut fleet, 1, 64, &[]);
        // The long one lets in what weighs most, and the first one nothing.
        let modes = [(1_000_000, 1), (50_000, 1), (1_000, 1), (1_000, 1), (1_000, 900)];
        let mut problem = problem(modes.iter().map(|(ms, _)| vec![on_host(1, *ms)]).collect(), &[(1, 4)], fleet);
        for (stage, (_, priority)) in problem.pipeline.stages.iter_mut().zip(modes) {
            stage.priority = priority;
        }
        let limits = Limits { evaluations: Some(1), ..Limits::default() };
        let options = Options { limits, objective: Objective::WeightedCompletion, ..Options::default() };
        let plan = plan::make(&problem.pipeline, &problem.graph, &problem.fleet, &options).unwrap();
        let starts: Vec<_> = plan.placed.iter().map(|placed| placed.start.0).collect();
        assert_eq!((starts, plan.evaluations), (vec![53_000, 0, 51_000, 52_000, 50_000], 1));
    }

    fn two_cards(idle: u64) -> Problem {
        let mut fleet = Fleet::default();
        add_node(&mut fleet, 4, 64, &[("fast", 16, 2_000), ("thrifty", 16, 1_000)]);
        (fleet.devices[0].watts, fleet.devices[1].watts) = (Some((idle, idle + 400)), Some((idle, idle + 100)));
        problem(vec![vec![on_gpus(Gpus::Whole(1), 0, 10_000)]], &[], fleet)
    }

    #[test]
    fn little_energy_may_take_long_and_idle_power_makes_that_dear() {
        let plan = made(&two_cards(0), Objective::Energy);
        assert_eq!((plan.makespan, plan.value, plan.is_optimal()), (Millis(10_000), 1_000_000, true));
        let plan = made(&two_cards(200), Objective::Energy);
        assert_eq!((plan.makespan, plan.value), (Millis(5_000), 2 * 200 * 5_000 + 400 * 5_000));
    }

    #[test]
    fn of_equal_devices_those_that_take_less_power_are_taken_even_later() {
        let mut fleet = Fleet::default();
        add_node(&mut fleet, 4, 64, &[("a", 16, 1_000); 4]);
        for (device, active) in fleet.devices.iter_mut().zip([400, 100, 300, 100]) {
            device.watts = Some((0, active));
        }
        let gang = |n| vec![on_gpus(Gpus::Whole(n), 0, 1_000)];
        let problem = problem(vec![gang(1), gang(1), gang(1), gang(2)], &[], fleet);
        let plan = made(&problem, Objective::Energy);
        // All one after the other on the two that take 100 W.
        assert_eq!((plan.value, plan.value_bound), (500_000, 500_000));
        let devices: Vec<_> = plan.placed.iter().flat_map(|placed| &placed.devices).map(|device| device.0).collect();
        assert!(devices.iter().all(|device| [1, 3].contains(device)), "{devices:?}");
    }

    #[test]
    fn a_search_that_knows_the_makespan_only_and_devices_of_unknown_power_are_refused() {
        let mut problem = two_cards(0);
        let Problem { pipeline, graph, .. } = problem.clone();
        let policy = "ga".parse().unwrap();
        let options = Options { policy, objective: Objective::Energy, ..Options::default() };
        let refused = plan::make(&pipeline, &graph, &problem.fleet, &options).unwrap_err();
        assert!(matches!(refused, PlanError::OnlyMakespan { .. }), "{refused}");
        problem.fleet.devices[1].watts = None;
        let options = Options { objective: Objective::Energy, ..Options::default() };
        let refused = plan::make(&pipeline, &graph, &problem.fleet, &options).unwrap_err();
        assert!(matches!(&refused, PlanError::NoWatts { device } if device == "n0/gpu1"), "{refused}");
    }

    /// The value, told a second time from the plan and the pipeline alone.
    fn recount(problem: &Problem, plan: &Plan) -> u128 {
        let Problem { pipeline, graph, fleet } = problem;
        let stage = |task: TaskId| &pipeline.stages[graph.tasks[task.index()].stage];
        let placed = || graph.ids().zip(&plan.placed);
        if plan.objective == Objective::WeightedCompletion {
            let each = placed().map(|(task, at)| u128::from(at.finish.0) * stage(task).priority.max(1) as u128);
            return each.sum();
        }
        let idle: u64 = fleet.devices.iter().map(|device| device.watts.unwrap().0).sum();
        let share = |mode: &Mode, memory: u64| match mode.resources.gpus {
            Gpus::None | Gpus::Whole(_) => 1_000_000,
            Gpus::Share(share) => u128::from(share.0),
            Gpus::Shared => (u128::from(mode.resources.gpu_memory.0.max(1)) * 1_000_000).div_ceil(memory.into()),
        };
        let of = |(task, at): (TaskId, &plan::Placed)| {
            let each = at.devices.iter().map(|device| {
                let device = &fleet.devices[device.index()];
                let (idle, active) = device.watts.unwrap();
                let share = share(&stage(task).modes[at.mode], device.usable_memory().0);
                (u128::from((at.finish - at.start).0) * u128::from(active - idle) * share).div_ceil(1_000_000)
            });
            each.sum::<u128>()
        };
        u128::from(idle) * u128::from(plan.makespan.0) + placed().map(of).sum::<u128>()
    }

    proptest! {
        #[test]
        fn no_plan_is_under_its_bound_and_its_value_is_what_it_says(
            mut problem in any_problem(8, 4_000),
            watts in prop::collection::vec((0_u64..100, 0_u64..400), 8),
            priorities in prop::collection::vec(-3_i64..9, 8),
        ) {
            for (device, (idle, more)) in problem.fleet.devices.iter_mut().zip(&watts) {
                device.watts = Some((*idle, idle + more));
            }
            for (stage, priority) in problem.pipeline.stages.iter_mut().zip(&priorities) {
                stage.priority = *priority;
            }
            let Problem { pipeline, graph, fleet } = &problem;
            for objective in [Objective::WeightedCompletion, Objective::Energy] {
                for policy in ["auto", "efficiency+best-fit", "fifo+random"] {
                    let limits = Limits { evaluations: Some(60), ..Limits::default() };
                    let policy = policy.parse().unwrap();
                    let options = Options { policy, limits, objective, ..Options::default() };
                    let Ok(plan) = plan::make(pipeline, graph, fleet, &options) else { return Ok(()) };
                    prop_assert!(plan.value >= plan.value_bound);
                    prop_assert_eq!(plan.value, recount(&problem, &plan));
                    let again = plan::make(pipeline, graph, fleet, &options).unwrap();
                    prop_assert_eq!((plan.placed, plan.value), (again.placed, again.value));
                }
            }
        }
    }
}
