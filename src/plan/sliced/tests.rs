//! Turns by hand, and at random against [`check`](crate::plan::check()).

use proptest::prelude::*;

use crate::fleet::Fleet;
use crate::plan::fit::FitRule;
use crate::plan::fixture::{Problem, add_node, any_problem, on_gpus, problem};
use crate::plan::order::OrderRule;
use crate::plan::{self, Limits, Objective, Options, Plan, PlanError, Policy};
use crate::spec::{Gpus, Mode};
use crate::units::{Millis, Share};

fn sharing(share: u32, gib: u64, ms: u64) -> Vec<Mode> {
    let mut mode = on_gpus(Gpus::Share(Share(share * 10_000)), gib, ms);
    mode.resources.suspend = true;
    vec![mode]
}

fn fixed(share: u32, gib: u64, ms: u64) -> Vec<Mode> {
    let mut modes = sharing(share, gib, ms);
    modes[0].resources.suspend = false;
    modes
}

fn node(devices: &[(&str, u64, u64)]) -> Fleet {
    let mut fleet = Fleet::default();
    add_node(&mut fleet, 8, 64, devices);
    fleet
}

fn sliced(problem: &Problem, fit: FitRule, quantum: u64) -> Result<Plan, PlanError> {
    let policy = Policy::List(OrderRule::TimeSlice, fit);
    let options = Options { policy, quantum: Some(Millis(quantum)), seed: 5, ..Options::default() };
    plan::make(&problem.pipeline, &problem.graph, &problem.fleet, &options)
}

/// Start, finish and pieces of a task.
type Times = (u64, u64, Vec<(u64, u64)>);

fn times(plan: &Plan) -> Vec<Times> {
    let pieces = |placed: &plan::Placed| placed.segments.iter().map(|(from, to)| (from.0, to.0)).collect();
    plan.placed.iter().map(|placed| (placed.start.0, placed.finish.0, pieces(placed))).collect()
}

#[test]
fn a_short_task_is_not_stuck_behind_a_long_one() {
    let problem = problem(vec![sharing(60, 8, 100), sharing(60, 8, 10)], &[], node(&[("A", 24, 1_000)]));
    let plan = sliced(&problem, FitRule::EarliestFinish, 20).unwrap();
    assert_eq!(times(&plan), [(0, 110, vec![(0, 20), (30, 110)]), (0, 30, vec![(20, 30)])]);
    let fifo = "fifo+earliest-finish".parse().unwrap();
    let options = Options { policy: fifo, ..Options::default() };
    let fifo = plan::make(&problem.pipeline, &problem.graph, &problem.fleet, &options).unwrap();
    assert_eq!(times(&fifo), [(0, 100, vec![]), (100, 110, vec![])]);
}

#[test]
fn those_that_fit_together_run_together_and_the_third_has_its_turn() {
    // A and B run, C waits for a quantum; then A, which began first, stands back for it, and B goes on beside it.
    let modes = vec![sharing(50, 1, 30), sharing(50, 1, 30), sharing(50, 1, 10)];
    let plan = sliced(&problem(modes, &[], node(&[("A", 8, 1_000)])), FitRule::FirstFit, 10).unwrap();
    let expected = [(0, 40, vec![(0, 10), (20, 40)]), (0, 30, vec![]), (0, 20, vec![(10, 20)])];
    assert_eq!(times(&plan), expected);
}

#[test]
fn who_may_not_be_suspended_never_is_and_others_stand_back_for_it() {
    // The last one starts at once, for 0.4 and 0.6 fit together; who has 0.5 stands still until it has ended.
    let modes = vec![sharing(50, 1, 30), sharing(60, 1, 30), fixed(40, 1, 35)];
    let plan = sliced(&problem(modes, &[], node(&[("A", 8, 1_000)])), FitRule::FirstFit, 10).unwrap();
    let expected =
        [(0, 50, vec![(0, 10), (20, 30), (40, 50)]), (0, 60, vec![(10, 20), (30, 40), (50, 60)]), (0, 35, vec![])];
    assert_eq!(times(&plan), expected);
}

#[test]
fn memory_is_held_while_a_task_is_suspended() {
    let modes = vec![sharing(60, 5, 30), sharing(60, 5, 30)];
    let plan = sliced(&problem(modes, &[], node(&[("A", 8, 1_000)])), FitRule::BestFit, 10).unwrap();
    assert_eq!(times(&plan), [(0, 30, vec![]), (30, 60, vec![])]);
}

#[test]
fn two_devices_are_both_used_before_turns_are_taken() {
    let modes = vec![sharing(60, 1, 30); 2];
    let plan = sliced(&problem(modes, &[], node(&[("A", 8, 1_000), ("A", 8, 1_000)])), FitRule::EarliestFinish, 10);
    assert_eq!(times(&plan.unwrap()), [(0, 30, vec![]), (0, 30, vec![])]);
}

#[test]
fn interrupted_plans_may_end_before_any_other_and_the_bound_knows() {
    // Three tasks of half a device: in one piece they take two rounds, in turns one and a half.
    let problem = problem(vec![sharing(50, 1, 20); 3], &[], node(&[("A", 8, 1_000)]));
    let plan = sliced(&problem, FitRule::FirstFit, 10).unwrap();
    assert_eq!((plan.makespan, plan.lower_bound, plan.is_optimal()), (Millis(30), Millis(30), true));
    let whole = plan::make(&problem.pipeline, &problem.graph, &problem.fleet, &Options::default()).unwrap();
    assert_eq!((whole.makespan, whole.lower_bound), (Millis(40), Millis(40)));
}

#[test]
fn turns_too_short_to_tell_are_refused() {
    let problem = problem(vec![sharing(60, 1, 100_000_000); 2], &[], node(&[("A", 8, 1_000)]));
    let error = sliced(&problem, FitRule::FirstFit, 100).unwrap_err();
    assert!(matches!(error, PlanError::Quantum { least: Millis(2_000), .. }), "{error}");
}

#[test]
fn a_wrong_piece_is_found() {
    let problem = problem(vec![sharing(60, 8, 100), sharing(60, 8, 10)], &[], node(&[("A", 24, 1_000)]));
    let Problem { pipeline, graph, fleet } = &problem;
    let right = sliced(&problem, FitRule::EarliestFinish, 20).unwrap();
    let found = |change: &dyn Fn(&mut Plan)| {
        let mut plan = right.clone();
        change(&mut plan);
        plan::check(pipeline, graph, fleet, &plan).unwrap_err()
    };
    // Both run at once, one of them for too long, at a wrong time, or in a plan without turns.
    found(&|plan| plan.placed[0].segments = vec![(Millis(0), Millis(25)), (Millis(35), Millis(110))]);
    found(&|plan| plan.placed[0].segments[0].1 = Millis(21));
    found(&|plan| plan.placed[0].segments = vec![(Millis(0), Millis(20)), (Millis(20), Millis(100))]);
    found(&|plan| plan.placed[0].segments.swap(0, 1));
    found(&|plan| plan.takes_turns = false);
    let mut other = problem.clone();
    other.pipeline.stages[0].modes[0].resources.suspend = false;
    assert!(plan::check(&other.pipeline, graph, fleet, &right).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn plans_of_turns_are_legal_with_every_fit_and_never_below_the_bound(
        mut problem in any_problem(14, 40),
        suspend in prop::collection::vec((any::<bool>(), 1_u32..=100), 28),
        fit in prop::sample::select(FitRule::ALL.map(|(_, fit)| fit).to_vec()),
        (quantum, objective) in (1_u64..20, prop::sample::select(vec![Objective::Makespan, Objective::WeightedCompletion])),
    ) {
        let modes = problem.pipeline.stages.iter_mut().flat_map(|stage| &mut stage.modes);
        for (mode, (suspend, share)) in modes.zip(suspend) {
            if mode.resources.gpus == Gpus::Shared {
                mode.resources.gpus = Gpus::Share(Share(share * 9_999));
            }
            mode.resources.suspend = suspend && matches!(mode.resources.gpus, Gpus::Share(_));
        }
        let policy = Policy::List(OrderRule::TimeSlice, fit);
        let options = Options { policy, quantum: Some(Millis(quantum)), objective, seed: 3, ..Options::default() };
        let make = || plan::make(&problem.pipeline, &problem.graph, &problem.fleet, &options);
        match make() {
            // That it is legal was checked where it was made.
            Ok(plan) => {
                prop_assert!(plan.makespan >= plan.lower_bound && plan.value >= plan.value_bound);
                prop_assert_eq!(plan.placed, make().unwrap().placed);
            }
            Err(PlanError::Impossible { stages, .. }) => prop_assert!(!stages.is_empty()),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    #[test]
    fn without_a_task_that_may_be_suspended_it_is_fifo(
        problem in any_problem(14, 9),
        fit in prop::sample::select(FitRule::ALL.map(|(_, fit)| fit).to_vec()),
    ) {
        let made = |order| {
            let limits = Limits { evaluations: Some(1), ..Limits::default() };
            let options = Options { policy: Policy::List(order, fit), limits, ..Options::default() };
            let plan = plan::make(&problem.pipeline, &problem.graph, &problem.fleet, &options);
            plan.ok().map(|plan| (plan.placed, plan.rank, plan.lower_bound, plan.takes_turns))
        };
        prop_assert_eq!(made(OrderRule::TimeSlice), made(OrderRule::Fifo));
    }
}
