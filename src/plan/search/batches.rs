//! Search in batches: orders by the thousand, judged on a simpler fleet by whoever the planner was given for that, a CUDA
//! device for instance; the best are decoded here, and the search goes on from them.
//!
//! Of a limit it takes a half, and of a number of schedules more: the rest is as much as a search that nobody limits would
//! have. Does not know who computes.

use super::super::decode::{Direction, FREE};
use super::super::draft::Draft;
use super::{FULL_MS, Search, relaxed};
use crate::batch::search::{Effort, Method};
use crate::graph::TaskId;
use crate::units::Millis;

/// Looks at a place that may be spent where nobody limits the search: a few seconds of one core, some milliseconds of a
/// device.
const LOOKS: u64 = 1 << 28;
/// Members of a population.
const CANDIDATES: (u64, u64) = (64, 8_192);
/// Tasks in all members of a population, at most: 32 MiB for an array of orders.
const MEMORY: u64 = 1 << 24;
/// Orders that are decoded.
const WANTED: usize = 16;

/// Lets batches be searched, if there is somebody for that, and decodes what comes back.
pub(in crate::plan) fn run<const W: usize>(search: &mut Search<'_, W>, method: Method) {
    let Some(searcher) = search.searcher else { return };
    if search.found.is_empty() || search.is_over() {
        return;
    }
    let known: Vec<_> = search.found.iter().rev().map(by_start).collect();
    let (problem, looks) = match relaxed::problem(search.instance, &known) {
        Ok(problem) => problem,
        Err(why) => return searcher.refuse(why),
    };
    let time = half_of_the_time(search);
    let in_time = time.map(|(_, from, to)| searcher.looks_a_millisecond().saturating_mul(to.0 - from.0));
    let most = allowed(search, in_time, looks);
    if most < WANTED as u64 + known.len() as u64 {
        return;
    }
    let largest = (MEMORY / search.instance.len().max(1) as u64).clamp(CANDIDATES.0, CANDIDATES.1);
    let candidates = (2 * most.isqrt()).clamp(CANDIDATES.0, largest).min(most);
    let generations = u32::try_from(most / candidates - 1).unwrap_or(u32::MAX);
    // A copy draws: without a device the search goes on as if it had never been asked for.
    let seed = search.random.clone().next();
    let spent = || time.map_or(0, |(clock, from, to)| part_of((from, to), clock()));
    let candidates = usize::try_from(candidates).unwrap_or(WANTED);
    let effort = Effort { method, seed, candidates, generations, wanted: WANTED, spent: &spent };
    let Some(found) = searcher.search(&problem, &effort) else { return };
    search.granted += found.evaluations;
    search.evaluations += found.evaluations;
    search.improved = search.evaluations;
    let mut draft = Draft::default();
    for order in found.orders {
        if search.is_over() {
            return;
        }
        let order: Vec<_> = order.into_iter().map(|task| TaskId(task.into())).collect();
        let choice = search.modes().unwrap_or_else(|| vec![FREE; order.len()]);
        search.evaluate(&order, &choice, Direction::Forward, &mut draft);
    }
}

/// Tasks by start, equal ones as they were placed.
fn by_start(draft: &Draft) -> Vec<TaskId> {
    let mut order = draft.order.clone();
    order.sort_by_key(|task| draft.start[task.index()]);
    order
}

/// Returns how many orders may be judged, each of which takes so many looks, as many of which as there is time for.
fn allowed<const W: usize>(search: &Search<'_, W>, in_time: Option<u64>, looks: u64) -> u64 {
    let makespan = search.best().map_or(0, |best| best.makespan);
    match (search.limits.evaluations, in_time) {
        (None, None) => LOOKS / FULL_MS * makespan.min(FULL_MS) / looks.max(1),
        (None, Some(in_time)) => (in_time / looks.max(1)).min(u32::MAX.into()),
        (Some(_), _) => {
            let left = search.left().unwrap_or(0).saturating_sub(WANTED as u64);
            left - search.unasked().min(left / 2)
        }
    }
}

/// Returns the clock, and from when to when a batch may take; `None` where time does not count.
fn half_of_the_time<'a, const W: usize>(search: &Search<'a, W>) -> Option<(&'a dyn Fn() -> Millis, Millis, Millis)> {
    let (clock, budget) = (search.limits.clock?, search.limits.budget?);
    let now = clock();
    Some((clock, now, Millis(now.0.midpoint(search.part.time.unwrap_or(budget).0.max(now.0)))))
}

/// Returns how much of a span is over, in thousandths.
fn part_of((from, to): (Millis, Millis), now: Millis) -> u32 {
    let (gone, all) = (now.0.saturating_sub(from.0), to.0 - from.0);
    u32::try_from((gone.saturating_mul(1_000)).checked_div(all).unwrap_or(1_000)).unwrap_or(1_000)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::super::super::fixture::{Problem as Case, add_node, on_gpus, problem};
    use super::super::super::{Limits, Options, Placed, Plan, Policy, make};
    use crate::batch::Unfit;
    use crate::batch::search::{Effort, Found, Problem, Searcher, on_cpu};
    use crate::fleet::Fleet;
    use crate::spec::Gpus;
    use crate::timing::sample::Random;

    /// A device that is there or not, and how often it was asked.
    #[derive(Debug)]
    struct Device {
        works: bool,
        asked: Cell<u64>,
    }

    impl Searcher for Device {
        fn search(&self, problem: &Problem, effort: &Effort<'_>) -> Option<Found> {
            self.asked.set(self.asked.get() + 1);
            self.works.then(|| on_cpu(problem, effort))
        }

        fn looks_a_millisecond(&self) -> u64 {
            50_000
        }

        fn refuse(&self, why: Unfit) {
            panic!("{why}");
        }
    }

    /// Forty tasks for two devices of different speeds.
    fn case() -> Case {
        let mut random = Random::new(2);
        let mut fleet = Fleet::default();
        add_node(&mut fleet, 4, 8, &[("A", 16, 1_000), ("B", 16, 2_000)]);
        let mut mode = || vec![on_gpus(Gpus::Shared, 3 + random.below(11), 20_000 + random.below(300_000))];
        let modes = (0..40).map(|_| mode()).collect();
        problem(modes, &[(0, 9), (1, 9), (2, 14), (3, 21), (9, 30), (14, 30)], fleet)
    }

    fn planned(case: &Case, policy: &str, device: Option<&Device>) -> Plan {
        let searcher = device.map(|device| device as &dyn Searcher);
        let limits = Limits { evaluations: Some(600), ..Limits::default() };
        let options = Options { policy: policy.parse().unwrap(), seed: 3, limits, searcher, ..Options::default() };
        make(&case.pipeline, &case.graph, &case.fleet, &options).unwrap()
    }

    /// What makes plans equal.
    fn parts(plan: &Plan) -> (&[Placed], &[u32], u64) {
        (&plan.placed, &plan.rank, plan.evaluations)
    }

    #[test]
    fn what_comes_back_is_decoded_and_counted() {
        let case = case();
        let first = planned(&case, "critical-path", None).makespan;
        for policy in ["ga", "sa", "aco", "pso"] {
            let device = Device { works: true, asked: Cell::new(0) };
            let plan = planned(&case, policy, Some(&device));
            assert_eq!(device.asked.get(), 1, "{policy}");
            assert!(plan.makespan <= first, "{policy}");
            assert!((300..=600).contains(&plan.evaluations), "{policy}: {}", plan.evaluations);
            let again = Device { works: true, asked: Cell::new(0) };
            assert_eq!(parts(&plan), parts(&planned(&case, policy, Some(&again))), "{policy}");
        }
    }

    #[test]
    fn without_a_device_the_plan_is_the_one_that_nobody_was_asked_for() {
        let case = case();
        for policy in ["ga", "sa", "aco", "pso"] {
            let none = Device { works: false, asked: Cell::new(0) };
            let (with, without) = (planned(&case, policy, Some(&none)), planned(&case, policy, None));
            assert_eq!(parts(&with), parts(&without), "{policy}");
            assert_eq!(none.asked.get(), 1);
        }
    }

    #[test]
    fn auto_asks_too_and_others_do_not() {
        let case = case();
        for (policy, asked) in [("auto", 1), ("lns", 0), ("fifo", 0)] {
            let none = Device { works: false, asked: Cell::new(0) };
            let limits = Limits { evaluations: Some(60), ..Limits::default() };
            let policy: Policy = policy.parse().unwrap();
            let options = Options { policy, limits, searcher: Some(&none), ..Options::default() };
            make(&case.pipeline, &case.graph, &case.fleet, &options).unwrap();
            assert_eq!(none.asked.get(), asked, "{policy}");
        }
    }
}
