//! Plans of the rest of a run, from any moment of any plan.

use proptest::prelude::*;

use super::*;
use crate::plan::fixture::{Problem, add_node, any_problem, on_gpus, on_host, problem};
use crate::plan::{self, Objective, Plan};
use crate::spec::Gpus;

/// A run that has gone by its plan up to a moment, and then hears that what runs takes `factor` times as long.
fn rest_at(plan: &Plan, now: u64, factor: u64) -> Rest {
    let left = |(task, placed): (usize, &Placed)| {
        if placed.finish.0 <= now {
            return Left::Nothing;
        }
        if placed.start.0 >= now {
            return Left::Waiting { rank: plan.rank[task], mode: None };
        }
        let left = Millis((placed.finish.0 - now) * factor);
        Left::Running { mode: placed.mode, node: placed.node, devices: placed.devices.clone(), left }
    };
    Rest { tasks: plan.placed.iter().enumerate().map(left).collect(), ..Rest::default() }
}

/// Says what is wrong with a revision: something before what it needs, or more held than there is.
fn fault(problem: &Problem, rest: &Rest, revision: &Revision) -> Option<String> {
    let Problem { pipeline, graph, fleet } = problem;
    let mut placed: Vec<Option<Placed>> = vec![None; graph.len()];
    for (task, left) in rest.tasks.iter().enumerate() {
        if let Left::Running { mode, node, devices, left } = left {
            let (mode, node, devices) = (*mode, *node, devices.clone());
            placed[task] =
                Some(Placed { mode, node, devices, start: Millis::ZERO, finish: *left, segments: Vec::new() });
        }
    }
    for (task, place) in revision.order.iter().zip(&revision.placed) {
        if placed[task.index()].replace(place.clone()).is_some() {
            return Some(format!("{task:?} runs already, or comes twice"));
        }
    }
    for task in &revision.order {
        let start = placed[task.index()].as_ref()?.start;
        let before = graph.before.of(*task).iter().filter_map(|edge| placed[edge.task.index()].as_ref());
        if before.map(|before| before.finish).max().is_some_and(|ready| ready > start) {
            return Some(format!("{task:?} is too early"));
        }
    }
    let mode = |task: usize, placed: &Placed| &pipeline.stages[graph.tasks[task].stage].modes[placed.mode].resources;
    let instants: Vec<Millis> = placed.iter().flatten().map(|placed| placed.start).collect();
    instants.into_iter().find_map(|at| {
        let running = placed.iter().enumerate().filter_map(|(task, placed)| Some((task, placed.as_ref()?)));
        let running: Vec<_> = running.filter(|(_, placed)| placed.start <= at && at < placed.finish).collect();
        let over_host = (0..).map(NodeId).zip(&fleet.nodes).any(|(id, node)| {
            let here = || running.iter().filter(|(_, placed)| placed.node == id);
            let cpus = here().map(|(task, placed)| mode(*task, placed).cpus.0).sum::<u64>();
            let memory = here().map(|(task, placed)| mode(*task, placed).memory.0).sum::<u64>();
            cpus > node.cpus.0 || memory > node.memory.0
        });
        let over_device = (0..).map(DeviceId).zip(&fleet.devices).any(|(id, device)| {
            let here = || running.iter().filter(|(_, placed)| placed.devices.contains(&id));
            let whole = here().any(|(task, placed)| matches!(mode(*task, placed).gpus, crate::spec::Gpus::Whole(_)));
            let memory = here().map(|(task, placed)| mode(*task, placed).gpu_memory.0).sum::<u64>();
            (whole && here().count() > 1) || memory > device.usable_memory().0
        });
        (over_host || over_device).then(|| format!("more is held at {at} than there is"))
    })
}

#[test]
fn what_runs_ends_when_it_is_expected_to_and_not_after_all_of_its_duration() {
    let mut fleet = Fleet::default();
    add_node(&mut fleet, 2, 8, &[]);
    let problem = problem(vec![vec![on_host(1, 2_000)]; 2], &[(0, 1)], fleet);
    let running = Left::Running { mode: 0, node: NodeId(0), devices: Vec::new(), left: Millis(1) };
    let left = Rest { tasks: vec![running, Left::Waiting { rank: 1, mode: None }], ..Rest::default() };
    let revision = rest(&problem.pipeline, &problem.graph, &problem.fleet, &left, &Options::default()).unwrap();
    assert_eq!((revision.placed[0].start, revision.after), (Millis(1), Millis(2_001)));
}

#[test]
fn what_is_short_comes_first_where_tasks_are_to_end_early() {
    let mut fleet = Fleet::default();
    add_node(&mut fleet, 1, 8, &[]);
    let problem = problem([4_000, 8_000, 1_000].map(|ms| vec![on_host(1, ms)]).to_vec(), &[], fleet);
    let running = Left::Running { mode: 0, node: NodeId(0), devices: Vec::new(), left: Millis(2_000) };
    let waiting = |rank| Left::Waiting { rank, mode: None };
    let left = Rest { tasks: vec![running, waiting(1), waiting(2)], ..Rest::default() };
    let revised = |objective| {
        let limits = Limits { evaluations: Some(50), ..Limits::default() };
        let options = Options { objective, limits, ..Options::default() };
        rest(&problem.pipeline, &problem.graph, &problem.fleet, &left, &options).unwrap()
    };
    assert!(!revised(Objective::Makespan).is_better, "it takes as long either way");
    let revision = revised(Objective::WeightedCompletion);
    assert_eq!((&revision.order[..], revision.is_better), (&[TaskId(2), TaskId(1)][..], true));
}

#[test]
fn what_saves_energy_stays_where_it_takes_little_until_that_is_lost() {
    let mut fleet = Fleet::default();
    add_node(&mut fleet, 4, 64, &[("fast", 16, 2_000), ("thrifty", 16, 1_000)]);
    (fleet.devices[0].watts, fleet.devices[1].watts) = (Some((0, 400)), Some((0, 100)));
    let problem = problem(vec![vec![on_gpus(Gpus::Whole(1), 0, 10_000)]; 3], &[], fleet);
    let thrifty = DeviceId(1);
    let running = Left::Running { mode: 0, node: NodeId(0), devices: vec![thrifty], left: Millis(30_000) };
    let waiting = |rank| Left::Waiting { rank, mode: None };
    let places = |objective, unfit: Vec<DeviceId>| {
        let intended = if objective == Objective::Energy { vec![(0, vec![thrifty]); 3] } else { Vec::new() };
        let tasks = vec![running.clone(), waiting(1), waiting(2)];
        let left = Rest { tasks, unfit, intended, ..Rest::default() };
        let options = Options { objective, ..Options::default() };
        let revision = rest(&problem.pipeline, &problem.graph, &problem.fleet, &left, &options).unwrap();
        revision.placed.into_iter().map(|placed| placed.devices).collect::<Vec<_>>()
    };
    assert_eq!(places(Objective::Energy, Vec::new()), [[thrifty], [thrifty]]);
    assert_eq!(places(Objective::Makespan, Vec::new()), [[DeviceId(0)], [DeviceId(0)]]);
    assert_eq!(places(Objective::Energy, vec![thrifty]), [[DeviceId(0)], [DeviceId(0)]]);
}

proptest! {
    #[test]
    fn the_rest_of_any_plan_is_planned_legally(
        problem in any_problem(12, 4_000),
        part in 0_u64..100,
        factor in 1_u64..5,
        seed in any::<u64>(),
        objective in prop::sample::select(Objective::ALL.map(|(_, objective)| objective).to_vec()),
    ) {
        let Problem { pipeline, graph, fleet } = &problem;
        let limits = Limits { evaluations: Some(60), ..Limits::default() };
        let options = Options { seed, limits, ..Options::default() };
        let Ok(plan) = plan::make(pipeline, graph, fleet, &options) else { return Ok(()) };
        let now = plan.makespan.0 * part / 100;
        let intended = plan.placed.iter().filter(|_| objective != Objective::Makespan);
        let intended = intended.map(|placed| (placed.mode, placed.devices.clone())).collect();
        let left = Rest { intended, ..rest_at(&plan, now, factor) };
        let options = Options { objective, ..options };
        let revision = rest(pipeline, graph, fleet, &left, &options).unwrap();
        prop_assert_eq!(fault(&problem, &left, &revision), None);
        let waiting = left.tasks.iter().filter(|task| matches!(task, Left::Waiting { .. })).count();
        prop_assert_eq!(revision.order.len(), waiting);
        prop_assert!(objective != Objective::Makespan || revision.after <= revision.before);
        prop_assert_eq!(&revision, &rest(pipeline, graph, fleet, &left, &options).unwrap());
    }

    #[test]
    fn nothing_goes_to_a_device_that_has_fallen_out_while_there_is_another(
        problem in any_problem(10, 4_000),
        unfit in 0_u32..3,
    ) {
        let Problem { pipeline, graph, fleet } = &problem;
        let limits = Limits { evaluations: Some(30), ..Limits::default() };
        let options = Options { limits, ..Options::default() };
        let Ok(plan) = plan::make(pipeline, graph, fleet, &options) else { return Ok(()) };
        let unfit = DeviceId(unfit);
        let left = Rest { unfit: vec![unfit], ..rest_at(&plan, 0, 1) };
        let revision = rest(pipeline, graph, fleet, &left, &options).unwrap();
        prop_assert_eq!(fault(&problem, &left, &revision), None);
        for (task, placed) in revision.order.iter().zip(&revision.placed).filter(|(_, at)| at.devices.contains(&unfit)) {
            // It can go nowhere else: without the device there are too few that it fits.
            let mode = &pipeline.stages[graph.tasks[task.index()].stage].modes[placed.mode].resources;
            let gang = if let crate::spec::Gpus::Whole(gang) = mode.gpus { gang as usize } else { 1 };
            let fits = (0..).map(DeviceId).zip(&fleet.devices).filter(|(id, device)| {
                *id != unfit && device.node == placed.node && device.usable_memory() >= mode.gpu_memory
            });
            prop_assert!(fits.count() < gang, "{:?} on {:?}", task, placed);
        }
    }
}
