//! Islands: several searches of one kind beside each other, which tell each other their best schedules now and then.
//!
//! Each has a seed of its own and its part of the schedules that may be tried. After a fixed number of them it sends its
//! best one to the next island, around the ring, and waits for that of the one before. So the result depends on the seed,
//! the number of islands and the schedules alone, however many of them run at once; only a time limit depends on the
//! machine. Source: Whitley, Rana and Heckendorn, "The island model genetic algorithm", 1999. Does not start threads: that is
//! the caller's business.

use std::sync::mpsc::{Receiver, Sender, channel};

use super::draft::Draft;
use super::search::Search;
use super::team::Team;
use super::{Limits, Options};

/// Schedules that an island tries between two exchanges.
const EVERY: u64 = 250;

/// What an island has to do with its neighbours.
pub(super) struct Passage {
    next: Sender<Option<Draft>>,
    before: Receiver<Option<Draft>>,
    /// Evaluations at which the next exchange takes place.
    due: u64,
}

impl Passage {
    /// Whether the next exchange takes place after so many evaluations.
    pub(super) const fn is_due(&self, evaluations: u64) -> bool {
        evaluations >= self.due
    }

    /// Sends the best schedule on and returns that of the island before; nothing where that has ended.
    pub(super) fn exchange(&mut self, best: Option<&Draft>) -> Option<Draft> {
        self.due += EVERY;
        // An island that has ended needs none.
        drop(self.next.send(best.cloned()));
        self.before.recv().ok().flatten()
    }
}

/// Returns the passages of a ring of islands.
fn ring(count: usize) -> Vec<Passage> {
    let (mut to, from): (Vec<_>, Vec<_>) = (0..count).map(|_| channel()).unzip();
    to.rotate_left(1);
    to.into_iter().zip(from).map(|(next, before)| Passage { next, before, due: EVERY }).collect()
}

/// Lets an engine search on all islands from the best schedule so far on, and keeps the best of what they find.
pub(super) fn run<const W: usize>(
    search: &mut Search<'_, W>,
    islands: Team<'_>,
    options: &Options<'_>,
    engine: fn(&mut Search<'_, W>),
) {
    let n = islands.count.max(1) as usize;
    let count = n as u64;
    let (instance, timing, bound) = (search.instance, search.timing, search.bound);
    let (first, left, limits) = (search.best().cloned(), search.left(), search.limits);
    let (policy, objective, seed) = (options.policy, options.objective, options.seed);
    let is_limited = limits.evaluations.is_some() || limits.budget.is_some();
    let mut found: Vec<Option<(Draft, u64)>> = Vec::new();
    found.resize_with(n, || None);
    let places = found.iter_mut().zip(ring(n)).zip(0_u64..);
    let jobs = places.map(|((found, passage), island)| {
        let first = first.clone();
        let job = move || {
            // The first ones try one more where they cannot be dealt out evenly.
            let evaluations = left.map(|left| left / count + u64::from(island < left % count));
            let limits = Limits { evaluations, ..limits };
            let seed = seed.wrapping_add(island.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            let options = Options { policy, objective, seed, limits, ..Options::default() };
            let mut search = Search::<W>::new(instance, timing, bound, &options);
            search.settle(first, passage, !is_limited);
            engine(&mut search);
            let evaluations = search.evaluations;
            *found = search.into_best().map(|best| (best, evaluations));
        };
        Box::new(job) as Box<dyn FnOnce() + Send + '_>
    });
    islands.crew.all_at_once(jobs.collect());
    for (best, evaluations) in found.into_iter().flatten() {
        search.evaluations += evaluations;
        search.keep(&best, super::decode::Direction::Forward);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fleet::Fleet;
    use crate::plan::fixture::{Problem, add_node, any_problem, on_host, problem};
    use crate::plan::policy::{Engine, Policy};
    use crate::plan::team::Crew;
    use crate::plan::{self, Plan};

    /// A thread for each job, the first or the last one started first.
    struct Threads {
        backwards: bool,
    }

    impl Crew for Threads {
        fn all_at_once<'j>(&self, mut jobs: Vec<Box<dyn FnOnce() + Send + 'j>>) {
            if self.backwards {
                jobs.reverse();
            }
            std::thread::scope(|scope| jobs.into_iter().for_each(|job| drop(scope.spawn(job))));
        }
    }

    fn planned(problem: &Problem, engine: Engine, count: u32, crew: &Threads) -> Option<Plan> {
        let limits = Limits { evaluations: Some(1_200), ..Limits::default() };
        let islands = Some(Team { count, crew });
        let options = Options { policy: Policy::Search(engine), seed: 7, limits, islands, ..Options::default() };
        plan::make(&problem.pipeline, &problem.graph, &problem.fleet, &options).ok()
    }

    #[test]
    fn what_is_sent_goes_around_the_ring() {
        let mut ring = ring(3);
        let of = |makespan| {
            let mut draft = Draft::default();
            draft.makespan = makespan;
            draft
        };
        for (island, makespan) in ring.iter_mut().zip([1, 2, 3]) {
            island.next.send(Some(of(makespan))).unwrap();
        }
        let arrived = ring.iter().map(|island| island.before.recv().unwrap().unwrap().makespan).collect::<Vec<_>>();
        assert_eq!(arrived, [3, 1, 2]);
        drop(ring.remove(0));
        assert!(ring[0].exchange(None).is_none(), "one that has ended keeps nobody waiting");
    }

    #[test]
    fn islands_that_nobody_limits_end_where_nothing_was_found_for_long_as_one_search_does() {
        let mut fleet = Fleet::default();
        add_node(&mut fleet, 2, 64, &[]);
        let Problem { pipeline, graph, fleet } = problem(vec![vec![on_host(1, 50_000)]; 3], &[], fleet);
        let evaluations = |islands| {
            let policy = Policy::Search(Engine::Genetic);
            let options = Options { policy, seed: 7, islands, ..Options::default() };
            plan::make(&pipeline, &graph, &fleet, &options).unwrap().evaluations
        };
        let crew = Threads { backwards: false };
        let (alone, four) = (evaluations(None), evaluations(Some(Team { count: 4, crew: &crew })));
        assert!(four <= 8 * alone, "{four} schedules on four islands, {alone} on one");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]
        #[test]
        fn islands_find_the_same_in_whatever_order_they_run(problem in any_problem(14, 4_000), count in 1_u32..5) {
            for (name, engine) in Engine::ALL.into_iter().filter(|(_, engine)| *engine != Engine::Exact) {
                let Some(plan) = planned(&problem, engine, count, &Threads { backwards: false }) else { return Ok(()) };
                let again = planned(&problem, engine, count, &Threads { backwards: true }).unwrap();
                prop_assert_eq!((&plan.placed, plan.evaluations), (&again.placed, again.evaluations), "{}", name);
                prop_assert!(plan.evaluations <= 1_200, "{}: {}", name, plan.evaluations);
                prop_assert!(plan.makespan >= plan.lower_bound);
            }
        }
    }
}
