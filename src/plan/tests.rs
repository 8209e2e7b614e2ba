//! Plans of every policy against [`check`] and, for tiny problems, against all plans there are.

use proptest::prelude::*;

use super::fit::FitRule;
use super::fixture::{Problem, add_node, any_problem, on_gpus, on_host, problem};
use super::impossible::Reason;
use super::order::OrderRule;
use super::*;
use crate::fleet::Link;
use crate::spec::Gpus;
use crate::timing::fixture::graph_with_data;
use crate::units::{Bandwidth, Bytes, Share};

mod memory;

fn planned(problem: &Problem, policy: Policy) -> Result<Plan, PlanError> {
    planned_within(problem, policy, 60)
}

fn planned_within(problem: &Problem, policy: Policy, evaluations: u64) -> Result<Plan, PlanError> {
    let limits = Limits { evaluations: Some(evaluations), ..Limits::default() };
    let options = Options { policy, seed: 7, limits, ..Options::default() };
    make(&problem.pipeline, &problem.graph, &problem.fleet, &options)
}

fn every_policy() -> Vec<Policy> {
    let pairs = OrderRule::ALL.iter().flat_map(|(_, order)| FitRule::ALL.iter().map(|(_, fit)| (*order, *fit)));
    let engines = policy::Engine::ALL.iter().map(|(_, engine)| Policy::Search(*engine));
    // Engines as often as lists, so that a random pick tries both.
    let engines = engines.cycle().take(OrderRule::ALL.len() * FitRule::ALL.len());
    pairs.map(|(order, fit)| Policy::List(order, fit)).chain(engines).chain([Policy::Auto]).collect()
}

fn makespan(problem: &Problem) -> Millis {
    planned(problem, Policy::Auto).unwrap().makespan
}

fn one_node(cpus: u64, devices: &[(&str, u64, u64)]) -> Fleet {
    let mut fleet = Fleet::default();
    add_node(&mut fleet, cpus, 64, devices);
    fleet
}

#[test]
fn a_chain_of_2_2_and_3_takes_7_and_is_proven_optimal() {
    let modes = [2, 2, 3].map(|ms| vec![on_host(1, ms)]).to_vec();
    let plan = planned(&problem(modes, &[(0, 1), (1, 2)], one_node(4, &[])), Policy::Auto).unwrap();
    assert_eq!((plan.makespan, plan.lower_bound, plan.bound_by), (Millis(7), Millis(7), "critical path"));
    assert!(plan.is_optimal());
}

#[test]
fn who_is_done_needs_no_device_that_is_gone() {
    let modes = vec![vec![on_gpus(Gpus::Shared, 10, 10)], vec![on_host(1, 7)]];
    let mut problem = problem(modes, &[(0, 1)], one_node(4, &[]));
    problem.graph = problem.graph.rest(&[true, false]).0;
    for policy in every_policy() {
        assert_eq!(planned(&problem, policy).unwrap().makespan, Millis(7), "{policy}");
    }
}

#[test]
fn of_devices_that_are_equally_early_the_one_with_the_least_left_is_taken() {
    // In the fleet's order the small task would lie on the large device, and the large one would have to wait.
    let modes = [10, 75].map(|gib| vec![on_gpus(Gpus::Shared, gib, 10)]).to_vec();
    let problem = problem(modes, &[], one_node(4, &[("a", 80, 1_000), ("a", 24, 1_000)]));
    let plan = planned(&problem, Policy::List(OrderRule::Fifo, FitRule::EarliestFinish)).unwrap();
    assert_eq!(plan.makespan, Millis(10));
    let first = planned(&problem, Policy::List(OrderRule::Fifo, FitRule::FirstFit)).unwrap();
    assert_eq!(first.makespan, Millis(20));
}

#[test]
fn five_tasks_on_devices_of_speed_2_3_and_4_end_at_4() {
    // A unit of work is 12 ms, so that every quotient is whole.
    let devices = [("a", 8, 2_000), ("b", 8, 3_000), ("c", 8, 4_000)];
    let modes = [5, 8, 6, 10, 4].map(|work| vec![on_gpus(Gpus::Whole(1), 0, 12 * work)]).to_vec();
    let plan = planned(&problem(modes, &[], one_node(4, &devices)), Policy::Auto).unwrap();
    assert_eq!(plan.makespan, Millis(4 * 12));
    // Work alone gives 33 / 9 units on capacities of 9.
    assert_eq!((plan.lower_bound, plan.bound_by), (Millis(4 * 12), "exact search"));
}

#[test]
fn small_stages_share_a_device_and_large_ones_take_turns() {
    let fleet = || one_node(8, &[("H100", 80, 1_000)]);
    let of = |gib: u64| problem(vec![vec![on_gpus(Gpus::Shared, gib, 10)]; 4], &[], fleet());
    assert_eq!(makespan(&of(20)), Millis(10));
    assert_eq!(makespan(&of(40)), Millis(20));
    assert_eq!(makespan(&of(41)), Millis(40));
}

#[test]
fn a_whole_device_is_shared_with_nobody() {
    let modes = vec![
        vec![on_gpus(Gpus::Whole(1), 1, 10)],
        vec![on_gpus(Gpus::Shared, 1, 10)],
        vec![on_gpus(Gpus::Share(Share(1)), 0, 10)],
    ];
    assert_eq!(makespan(&problem(modes, &[], one_node(8, &[("H100", 80, 1_000)]))), Millis(20));
}

#[test]
fn a_gang_is_placed_on_one_node() {
    let mut fleet = one_node(8, &[("A", 8, 1_000)]);
    add_node(&mut fleet, 8, 64, &[("A", 8, 1_000), ("A", 8, 1_000)]);
    let plan = planned(&problem(vec![vec![on_gpus(Gpus::Whole(2), 0, 5)]], &[], fleet), Policy::Auto).unwrap();
    assert_eq!(plan.placed[0].node, NodeId(1));
    assert_eq!(plan.placed[0].devices, [DeviceId(1), DeviceId(2)]);
}

#[test]
fn a_gang_of_different_models_takes_as_long_as_its_slowest() {
    let fleet = one_node(8, &[("fast", 8, 4_000), ("slow", 8, 1_000)]);
    assert_eq!(makespan(&problem(vec![vec![on_gpus(Gpus::Whole(2), 0, 8)]], &[], fleet)), Millis(8));
}

#[test]
fn a_budget_keeps_enough_for_what_is_still_to_come() {
    let mut dear = on_host(1, 1);
    dear.spend.insert("money".to_owned(), 10);
    let mut needed = on_host(1, 1);
    needed.spend.insert("money".to_owned(), 5);
    let modes = vec![vec![dear.clone(), on_host(1, 100)], vec![needed]];
    let mut problem = problem(modes, &[(0, 1)], one_node(1, &[]));
    problem.fleet.budgets.insert("money".to_owned(), 14);
    assert_eq!(makespan(&problem), Millis(101));
    problem.fleet.budgets.insert("money".to_owned(), 15);
    assert_eq!(makespan(&problem), Millis(2));
    problem.fleet.budgets.insert("money".to_owned(), 4);
    let Err(PlanError::Impossible { stages, budgets }) = planned(&problem, Policy::Auto) else {
        panic!("it is too dear")
    };
    assert_eq!((stages.len(), budgets[0].least, budgets[0].limit), (0, 5, 4));
}

#[test]
fn a_budget_that_the_fleet_does_not_declare_is_refused_where_it_declares_some() {
    let mut mode = on_host(1, 1);
    mode.spend.insert("euros".to_owned(), 10);
    let mut problem = problem(vec![vec![mode]], &[], one_node(1, &[]));
    assert_eq!(makespan(&problem), Millis(1), "without budgets nothing is limited");
    let mut refused = |name: &str| {
        problem.fleet.budgets = [(name.to_owned(), 5)].into();
        planned(&problem, Policy::Auto).unwrap_err().to_string()
    };
    assert_eq!(refused("euro"), "`t0` spends `euros`, which is none of the fleet's budgets: did you mean `euro`?");
    assert!(refused("power").ends_with("declare it in `[budgets]` of the fleet file, or leave it out of `spend`"));
}

#[test]
fn modes_are_found_that_stay_in_two_budgets_at_once() {
    // Each task is cheap for one budget or for the other; half of them must take either way.
    let mode = |budget: &str| {
        let mut mode = on_host(1, 1);
        mode.spend.insert(budget.to_owned(), 1);
        mode
    };
    let mut problem = problem(vec![vec![mode("money"), mode("power")]; 10], &[], one_node(1, &[]));
    problem.fleet.budgets.extend([("money".to_owned(), 5), ("power".to_owned(), 5)]);
    assert_eq!(makespan(&problem), Millis(10));
}

#[test]
fn every_policy_finds_modes_that_stay_in_two_tight_budgets() {
    let mode = |budget: &str, amount, ms| {
        let mut mode = on_host(1, ms);
        mode.spend.insert(budget.to_owned(), amount);
        mode
    };
    // Whoever pays the first task with the money that it is shorter for cannot pay the second one.
    let modes = vec![vec![mode("money", 1, 1), mode("power", 1, 9)], vec![mode("money", 2, 1), mode("power", 2, 1)]];
    let mut problem = problem(modes, &[(0, 1)], one_node(1, &[]));
    problem.fleet.budgets.extend([("money".to_owned(), 2), ("power".to_owned(), 1)]);
    for policy in every_policy() {
        assert_eq!(planned(&problem, policy).unwrap().makespan, Millis(10), "{policy}");
    }
    let Problem { pipeline, graph, fleet } = &problem;
    for policy in [Policy::Auto, Policy::List(OrderRule::Fifo, FitRule::LeastLoaded)] {
        let options = Options { policy, objective: Objective::WeightedCompletion, ..Options::default() };
        assert_eq!(make(pipeline, graph, fleet, &options).unwrap().makespan, Millis(10), "{policy}");
    }
}

#[test]
fn a_search_shortens_what_one_pass_leaves_long() {
    // Packing 5, 4, 3, 3 and 3 onto two CPUs: the longest first ends at 10, the best at 9.
    let modes = [5, 4, 3, 3, 3].map(|ms| vec![on_host(1, ms)]).to_vec();
    let problem = problem(modes, &[], one_node(2, &[]));
    let list = Policy::List(OrderRule::LongestFirst, FitRule::EarliestFinish);
    assert_eq!(planned(&problem, list).unwrap().makespan, Millis(10));
    let found = planned(&problem, Policy::Search(policy::Engine::Genetic)).unwrap();
    assert_eq!((found.makespan, found.is_optimal()), (Millis(9), true));
}

#[test]
fn an_exact_search_proves_what_areas_cannot() {
    // Three tasks of which no two fit a device together, on two devices: one of them waits, though half of all memory
    // is free.
    let modes = vec![vec![on_gpus(Gpus::Shared, 5, 10)]; 3];
    let problem = problem(modes, &[], one_node(8, &[("A", 8, 1_000), ("A", 8, 1_000)]));
    let plan = planned_within(&problem, Policy::Search(policy::Engine::Exact), 2_000).unwrap();
    assert_eq!((plan.makespan, plan.lower_bound), (Millis(20), Millis(20)));
}

#[test]
fn ways_that_are_not_taken_never_lie_beyond_what_the_solver_can_count() {
    let days = |cpus, days: u64, ms: u64| on_host(cpus, days * 86_400_000 + ms);
    let modes = |i: u64| vec![days(1, 3, i), days(2, 2, 3 * i)];
    let problem = problem((0..60).map(modes).collect(), &[], one_node(64, &[]));
    let plan = planned_within(&problem, Policy::Search(policy::Engine::Exact), 50).unwrap();
    assert_eq!(plan.given_up, None);
    // The same on devices: one copy of each task for each of them.
    let fleet = one_node(64, &[("A", 80, 1_000); 16]);
    let on_device = |i: u64| vec![on_gpus(Gpus::Shared, 50, 36_000_000 + i)];
    let problem = fixture::problem((0..20).map(on_device).collect(), &[], fleet);
    let plan = planned_within(&problem, Policy::Search(policy::Engine::Exact), 50).unwrap();
    assert_eq!(plan.given_up, None);
}

#[test]
fn searches_are_never_worse_than_the_pass_that_minds_no_waste() {
    // The fast device is the scarce one, but nobody wants it yet when the first task takes the slow one to spare it.
    let on = |gpus, fast, slow| {
        let mut mode = on_gpus(gpus, 0, fast);
        mode.duration.by_model = [("fast".to_owned(), Millis(fast)), ("slow".to_owned(), Millis(slow))].into();
        vec![mode]
    };
    let whole = || on(Gpus::Whole(1), 500, 2_000);
    let modes = vec![on(Gpus::Share(Share(500_000)), 300, 360), whole(), whole()];
    let problem = problem(modes, &[(0, 1), (0, 2)], one_node(8, &[("fast", 16, 1_000), ("slow", 16, 1_000)]));
    for (_, engine) in policy::Engine::ALL {
        let plan = planned_within(&problem, Policy::Search(engine), 2).unwrap();
        assert_eq!(plan.makespan, Millis(1_300), "{engine:?}");
    }
}

#[test]
fn an_exact_search_counts_months_in_longer_ticks() {
    // In milliseconds a solution has more instants than the solver can count.
    let days = |days: u64, ms: u64| vec![on_host(1, days * 86_400_000 + ms)];
    let problem = problem(vec![days(30, 1), days(30, 3), days(30, 7)], &[], one_node(2, &[]));
    for policy in [Policy::Search(policy::Engine::Exact), Policy::Auto] {
        let plan = planned_within(&problem, policy, 2_000).unwrap();
        assert_eq!((plan.makespan, plan.bound_by), (Millis(60 * 86_400_000 + 4), "exact search"));
        assert!(plan.lower_bound > Millis(60 * 86_400_000 - 100) && plan.gap() < 1e-6, "{plan:?}");
    }
}

#[test]
fn an_exact_search_deals_gangs_out_to_devices() {
    // On the pools of both cards all four run at once; on the cards themselves the gang meets somebody on either.
    let share = |part: u32| on_gpus(Gpus::Share(Share(part)), 0, 10);
    let modes = vec![
        vec![share(600_000)],
        vec![share(600_000)],
        vec![share(400_000)],
        vec![on_gpus(Gpus::Whole(2), 0, 5), on_gpus(Gpus::Whole(1), 0, 30)],
    ];
    let problem = problem(modes, &[], one_node(8, &[("A", 8, 1_000), ("A", 8, 1_000)]));
    let plan = planned_within(&problem, Policy::Search(policy::Engine::Exact), 2_000).unwrap();
    assert_eq!((plan.makespan, plan.is_optimal()), (Millis(15), true));
}

#[test]
fn a_time_limit_ends_a_search_by_the_clock_that_it_is_given() {
    let modes = (0..30).map(|i| vec![on_host(1 + i % 3, 3 + i % 7)]).collect();
    let problem = problem(modes, &[(0, 9), (3, 12)], one_node(4, &[]));
    let asked = std::sync::atomic::AtomicU64::new(0);
    let clock = || Millis(asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1);
    let limits = Limits { evaluations: None, budget: Some(Millis(20)), clock: Some(&clock) };
    let options = Options { policy: Policy::Auto, seed: 1, limits, ..Options::default() };
    let plan = make(&problem.pipeline, &problem.graph, &problem.fleet, &options).unwrap();
    // Loops within loops each ask once more before they end.
    let asked = asked.into_inner();
    assert!(plan.is_optimal() || (20..25).contains(&asked), "asked {asked} times");
}

#[test]
fn all_that_can_never_run_is_named_at_once_with_the_numbers() {
    let mut modes = vec![vec![on_gpus(Gpus::Shared, 100, 1)], vec![on_host(1, 1)], vec![on_host(9, 1)]];
    modes[1][0].spend.insert("money".to_owned(), 3);
    modes[2][0].spend.insert("money".to_owned(), 2);
    let mut problem = problem(modes, &[], one_node(8, &[("H100", 80, 1_000)]));
    problem.fleet.devices[0].headroom = Bytes::GIB;
    problem.fleet.budgets.insert("money".to_owned(), 4);
    let Err(PlanError::Impossible { stages: found, budgets }) = planned(&problem, Policy::Auto) else {
        panic!("it should be refused")
    };
    assert_eq!(found.iter().map(|one| one.stage).collect::<Vec<_>>(), [0, 2]);
    assert_eq!(budgets, [Overspent { budget: "money".to_owned(), least: 5, limit: 4, dearest: (1, 3) }]);
    let words: Vec<_> = found.iter().map(|one| one.modes[0][0].to_string()).collect();
    assert_eq!(
        words[0],
        "it asks for 100.0 GiB of GPU memory, and the most on one device is 79.0 GiB (`n0/gpu0`, H100, 1.0 GiB kept as headroom)"
    );
    assert_eq!(words[1], "it asks for 9 CPUs, and the most on one node is 8 (`n0`)");
}

#[test]
fn a_gpu_stage_on_a_fleet_without_gpus_is_told_of_prefer() {
    let problem = problem(vec![vec![on_gpus(Gpus::Whole(1), 0, 1)]], &[], one_node(8, &[]));
    let Err(PlanError::Impossible { stages: found, .. }) = planned(&problem, Policy::Auto) else {
        panic!("it should be refused")
    };
    assert_eq!(found[0].modes[0], [Reason::NoDevice { unused: Vec::new(), unseen: None }]);
    assert!(found[0].modes[0][0].help().contains("prefer"));
}

#[test]
fn durations_that_cannot_be_added_up_are_refused() {
    let modes = vec![vec![on_host(1, u64::MAX / 2)]; 2];
    assert!(matches!(planned(&problem(modes, &[], one_node(1, &[])), Policy::Auto), Err(PlanError::TooLong)));
}

#[test]
fn extreme_shapes_are_planned_by_every_policy() {
    let layers = |width: u32, depth: u32| -> Vec<(u32, u32)> {
        let pairs = move |layer: u32| {
            (0..width).flat_map(move |a| (0..width).map(move |b| (a + layer * width, b + (layer + 1) * width)))
        };
        (0..depth - 1).flat_map(pairs).collect()
    };
    let star = (1..20).map(|leaf| (0, leaf)).collect::<Vec<_>>();
    for (n, edges) in [(0, vec![]), (1, vec![]), (20, star), (20, layers(1, 20)), (20, layers(5, 4)), (20, vec![])] {
        for ms in [0, 3] {
            let modes = vec![vec![on_gpus(Gpus::Whole(2), 1, ms), on_host(2, 2 * ms)]; n];
            let problem = problem(modes, &edges, one_node(3, &[("A", 8, 1_000), ("A", 8, 1_000)]));
            for policy in every_policy() {
                planned(&problem, policy).unwrap();
            }
        }
    }
}

#[test]
fn where_data_is_dear_even_the_first_plan_keeps_it_on_its_node() {
    // Each task of the chain would end sooner on the other, faster node but the last one, which fits the first node only.
    let data = Bytes(1_000);
    let chain = [(0, 1, data), (1, 2, data), (2, 3, data)];
    let mut fleet = one_node(2, &[("A", 40, 1_000)]);
    add_node(&mut fleet, 2, 64, &[("A", 16, 2_000)]);
    fleet.links.push(Link { between: (NodeId(0), NodeId(1)), bandwidth: Bandwidth(10) });
    let modes = [8, 8, 8, 30].map(|gib| vec![on_gpus(Gpus::Shared, gib, 20)]).to_vec();
    let mut problem = problem(modes, &[], fleet);
    problem.graph = graph_with_data(4, &chain);
    let within = |policy, evaluations, budget| {
        let limits = Limits { evaluations, budget, clock: Some(&|| Millis(1)) };
        let options = Options { policy, limits, ..Options::default() };
        make(&problem.pipeline, &problem.graph, &problem.fleet, &options).unwrap().makespan
    };
    assert_eq!(within(Policy::Auto, None, Some(Millis::ZERO)), Millis(80));
    assert_eq!(within(Policy::Search(policy::Engine::Exact), Some(100), None), Millis(80));
}

/// The makespan of the best of all plans with whole starts below `horizon`; `check` alone says which are plans.
fn exhaustive(problem: &Problem, horizon: u64) -> Option<Millis> {
    let Ok(instance) = Instance::new(&problem.pipeline, &problem.graph, &problem.fleet) else { return None };
    let places = |task| {
        let of = |choice: &instance::Choice| {
            let (mode, time, gang) = (choice.mode as usize, choice.load.time, choice.gang as usize);
            let members = instance.groups[choice.group as usize].members.clone();
            members.into_iter().flat_map(move |(node, devices)| {
                let sets = (0_u32..1 << devices.len()).filter(move |set| set.count_ones() as usize == gang);
                sets.map(move |set| {
                    let devices = devices.iter().enumerate().filter(|(i, _)| set >> i & 1 == 1).map(|(_, id)| *id);
                    Placed {
                        mode,
                        node,
                        devices: devices.collect(),
                        start: Millis::ZERO,
                        finish: time,
                        segments: Vec::new(),
                    }
                })
            })
        };
        let places: Vec<_> = instance.choices(task).iter().flat_map(of).collect();
        let starts = (0..=horizon).map(Millis);
        let at =
            |start| places.iter().cloned().map(move |place| Placed { start, finish: place.finish + start, ..place });
        starts.flat_map(at).filter(|placed| placed.finish <= Millis(horizon)).collect::<Vec<_>>()
    };
    let options: Vec<_> = problem.graph.ids().map(places).collect();
    let mut best = None;
    let mut plan = Plan::default();
    try_all(problem, &options, &mut plan, &mut best);
    best
}

fn try_all(problem: &Problem, options: &[Vec<Placed>], plan: &mut Plan, best: &mut Option<Millis>) {
    let Some(mine) = options.get(plan.placed.len()) else {
        let mut order: Vec<_> = (0..options.len()).collect();
        order.sort_by_key(|i| (plan.placed[*i].start, *i));
        plan.rank = vec![0; order.len()];
        (0..).zip(order).for_each(|(rank, i)| plan.rank[i] = rank);
        plan.makespan = plan.placed.iter().map(|placed| placed.finish).max().unwrap_or(Millis::ZERO);
        if best.is_none_or(|best| plan.makespan < best)
            && check(&problem.pipeline, &problem.graph, &problem.fleet, plan).is_ok()
        {
            *best = Some(plan.makespan);
        }
        return;
    };
    for placed in mine {
        plan.placed.push(placed.clone());
        try_all(problem, options, plan, best);
        plan.placed.pop();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn plans_of_every_policy_are_legal_and_never_below_the_bound(
        problem in any_problem(14, 9),
        policy in prop::sample::select(every_policy()),
    ) {
        match planned(&problem, policy) {
            Ok(plan) => prop_assert!(plan.makespan >= plan.lower_bound),
            Err(PlanError::Impossible { stages, .. }) => prop_assert!(!stages.is_empty()),
            Err(other) => prop_assert!(false, "{policy}: {other}"),
        }
    }

    #[test]
    fn the_same_input_gives_the_same_plan(
        problem in any_problem(14, 9),
        policy in prop::sample::select(every_policy()),
    ) {
        let of = |plan: Result<Plan, PlanError>| plan.ok().map(|plan| (plan.placed, plan.rank, plan.makespan));
        prop_assert_eq!(of(planned(&problem, policy)), of(planned(&problem, policy)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_plan_of_a_tiny_problem_beats_the_bound_or_is_missed(problem in any_problem(3, 2)) {
        let best = exhaustive(&problem, 6);
        match planned_within(&problem, Policy::Auto, 2_000) {
            Ok(plan) => {
                // Lags can push the best plan, and the bound with it, beyond the horizon of the search.
                if let Some(best) = best {
                    prop_assert!(plan.lower_bound <= best, "bound {} above {best}", plan.lower_bound);
                }
                prop_assert!(plan.makespan >= best.unwrap_or(Millis(6)));
                // So small a problem is always proven.
                prop_assert!(plan.is_optimal(), "{} and {}", plan.makespan, plan.lower_bound);
            }
            Err(_) => prop_assert_eq!(best, None),
        }
    }

    #[test]
    fn what_is_proven_of_several_nodes_no_other_policy_beats(problem in any_problem(9, 9), seed in 1_u64..5) {
        let exact = planned_within(&problem, Policy::Search(policy::Engine::Exact), 4_000);
        let options = Options {
            policy: Policy::Search(policy::Engine::Neighbourhood),
            seed,
            limits: Limits { evaluations: Some(2_000), ..Limits::default() },
            ..Options::default()
        };
        let found = make(&problem.pipeline, &problem.graph, &problem.fleet, &options);
        if let (Ok(exact), Ok(found)) = (exact, found) {
            prop_assert!(found.makespan >= exact.lower_bound, "{} under {}", found.makespan, exact.lower_bound);
            prop_assert!(!exact.is_optimal() || found.makespan >= exact.makespan);
        }
    }
}
