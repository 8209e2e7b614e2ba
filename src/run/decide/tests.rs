//! Dispatching on a clock that jumps from one end to the next: who starts when, and who is not kept waiting.

use std::collections::{BTreeSet, HashMap};

use proptest::prelude::*;

use super::{Dispatcher, Options, Reason, Waiting};
use crate::fleet::Fleet;
use crate::graph::TaskId;
use crate::plan::fixture::{Problem, add_node, on_gpus, on_host, problem};
use crate::plan::order::OrderRule;
use crate::plan::{self, Plan, Policy, fit::FitRule};
use crate::run::admission::{Ledger, Live, Readings};
use crate::run::event::{Because, Event, Recorded, Role};
use crate::run::outcome::{Cause, Outcome, Usage};
use crate::run::state::{Phase, RunState};
use crate::spec::{Duration, Gpus, Mode};
use crate::units::{Millis, Share};

mod beside;
mod instead;
mod learned;
mod queues;
mod turned_away;

/// Plans tasks in the order in which they are written.
fn in_file_order(problem: &Problem) -> Plan {
    let policy = Policy::List(OrderRule::Fifo, FitRule::EarliestFinish);
    let options = plan::Options { policy, ..plan::Options::default() };
    let Problem { pipeline, graph, fleet } = problem;
    let mut plan = plan::make(pipeline, graph, fleet, &options).unwrap();
    // A plan inserts tasks into gaps; here the order itself is what is tested.
    plan.rank = (0..u32::try_from(graph.len()).unwrap()).collect();
    plan
}

struct Sim<'a> {
    dispatcher: Dispatcher<'a>,
    state: RunState,
    readings: Readings,
    now: Millis,
    /// How long each task really takes.
    takes: Vec<u64>,
    ends: BTreeSet<(Millis, TaskId)>,
    starts: HashMap<TaskId, Millis>,
    /// The first time that each task was promised.
    promises: HashMap<TaskId, Millis>,
}

impl<'a> Sim<'a> {
    fn new(problem: &'a Problem, plan: &'a Plan, takes: Vec<u64>) -> Self {
        let Problem { pipeline, graph, fleet } = problem;
        let (state, ledger) = (RunState::new(graph.len()), Ledger::new(fleet));
        let options = Options::default();
        let dispatcher = Dispatcher::new((pipeline, graph), (fleet, plan), ledger, options, Vec::new(), &state);
        let readings = Readings::unwatched(fleet.devices.len());
        let (ends, starts, promises) = (BTreeSet::new(), HashMap::new(), HashMap::new());
        Self { dispatcher, state, readings, now: Millis(1_000), takes, ends, starts, promises }
    }

    fn happens(&mut self, event: Event) {
        if let Event::AttemptStarted { task, .. } = &event {
            self.starts.insert(*task, self.now);
            self.ends.insert((self.now + Millis(self.takes[task.index()]), *task));
        }
        let recorded = Recorded { at: self.now, event };
        self.state.apply(&recorded).unwrap();
        self.dispatcher.take_in(&recorded);
    }

    fn decide(&mut self) {
        let might_start = self.dispatcher.could_start(&self.state, self.now, &self.readings);
        let decided = self.dispatcher.decide(&self.state, self.now, &self.readings);
        let starts = decided.iter().any(|event| matches!(event, Event::AttemptStarted { .. }));
        assert!(might_start || !starts, "what starts is decided while no other run admits any: {decided:?}");
        for event in decided {
            self.happens(event);
        }
        for (task, at) in &self.dispatcher.promised {
            self.promises.entry(*task).or_insert(*at);
        }
    }

    /// Goes on to the next end; whether there was one.
    fn step(&mut self) -> bool {
        self.decide();
        let Some((at, _)) = self.ends.first().copied() else { return false };
        self.now = at;
        while let Some((_, task)) = self.ends.first().copied().filter(|(end, _)| *end == at) {
            self.ends.pop_first();
            let (outcome, usage) = (Outcome::Succeeded, Usage::default());
            self.happens(Event::AttemptFinished { task, role: Role::Main, outcome, usage, logged: false });
        }
        true
    }

    fn run(&mut self) {
        while self.step() {}
        assert!(self.state.tasks.iter().all(|task| task.phase == Phase::Succeeded));
    }

    fn waiting(&self) -> Vec<Waiting> {
        self.dispatcher.waiting(self.now, &self.readings)
    }

    fn start(&self, task: u32) -> u64 {
        self.starts[&TaskId(task)].0
    }
}

fn host(cpus: u64) -> Fleet {
    let mut fleet = Fleet::default();
    add_node(&mut fleet, cpus, 64, &[]);
    fleet
}

fn declared(modes: &[Mode]) -> Vec<u64> {
    modes.iter().map(|mode| mode.duration.base.unwrap().0).collect()
}

fn one_each(modes: &[Mode], fleet: Fleet) -> Problem {
    problem(modes.iter().map(|mode| vec![mode.clone()]).collect(), &[], fleet)
}

/// Four small tasks, a wide one, then three hundred small ones of different lengths.
fn wide_among_small() -> Vec<Mode> {
    let small = |i: u64| on_host(1, 700 + 100 * (i % 7));
    let first = (0..4).map(small);
    first.chain([on_host(4, 500)]).chain((4..304).map(small)).collect()
}

#[test]
fn a_wide_task_among_endless_small_ones_starts_when_it_was_promised() {
    let modes = wide_among_small();
    let problem = one_each(&modes, host(4));
    let plan = in_file_order(&problem);
    let mut sim = Sim::new(&problem, &plan, declared(&modes));
    sim.run();
    let first_four = (0..4).map(|i| sim.start(i) + sim.takes[i as usize]).max().unwrap();
    assert_eq!(sim.start(4), first_four);
}

#[test]
fn a_wide_task_starts_in_bounded_time_where_everything_takes_longer_than_declared() {
    let modes = wide_among_small();
    let problem = one_each(&modes, host(4));
    let plan = in_file_order(&problem);
    // Seven times as long: what was let pass is still there when the promised time comes.
    let takes = declared(&modes).iter().map(|ms| ms * 7).collect();
    let mut sim = Sim::new(&problem, &plan, takes);
    sim.run();
    let promised = sim.promises[&TaskId(4)];
    let before = sim.starts.iter().filter(|(_, start)| **start < promised);
    let last = before.map(|(task, start)| start.0 + sim.takes[task.index()]).max().unwrap();
    assert!(sim.start(4) <= last, "{} after {last}", sim.start(4));
}

#[test]
fn what_ends_in_time_or_has_room_beside_it_passes() {
    // A long one on one of four CPUs; one for all four; then one that ends in time and one that does not.
    let modes = [on_host(1, 1_000), on_host(4, 500), on_host(1, 900), on_host(1, 1_100)];
    let problem = one_each(&modes, host(4));
    let plan = in_file_order(&problem);
    let mut sim = Sim::new(&problem, &plan, declared(&modes));
    sim.decide();
    assert_eq!(sim.starts.keys().copied().collect::<BTreeSet<_>>(), BTreeSet::from([TaskId(0), TaskId(2)]));
    let held = Reason::Held { by: "t1".to_owned(), at: Millis(2_000) };
    assert!(sim.waiting().iter().any(|waiting| waiting.reason == held), "{:?}", sim.waiting());
    let is_kept = |reason: &Reason| matches!(reason, Reason::Room { kept_from: Some(Millis(2_000)), .. });
    let kept = sim.waiting().into_iter().filter(|waiting| is_kept(&waiting.reason));
    assert_eq!(kept.map(|waiting| waiting.tasks).collect::<Vec<_>>(), [[TaskId(1)]]);
    sim.run();
    assert_eq!((sim.start(1), sim.start(3)), (2_000, 2_500));

    // On five CPUs, of which the first one has two, there is room for the last one beside the wide one.
    let modes = [on_host(2, 1_000), on_host(4, 500), on_host(1, 1_100)];
    let problem = one_each(&modes, host(5));
    let plan = in_file_order(&problem);
    let mut sim = Sim::new(&problem, &plan, declared(&modes));
    sim.run();
    assert_eq!((sim.start(1), sim.start(2)), (2_000, 1_000));
}

fn gpus(n: usize) -> Fleet {
    let mut fleet = Fleet::default();
    add_node(&mut fleet, 64, 64, &vec![("A", 16, 1_000); n]);
    fleet
}

#[test]
fn a_gang_of_gpus_among_endless_single_ones_starts_when_it_was_promised() {
    let single = |ms| on_gpus(Gpus::Whole(1), 0, ms);
    let mut modes = vec![single(1_000), single(1_500), on_gpus(Gpus::Whole(4), 0, 500)];
    modes.extend((0..200).map(|i| single(900 + 100 * (i % 5))));
    let problem = one_each(&modes, gpus(4));
    let plan = in_file_order(&problem);
    let mut sim = Sim::new(&problem, &plan, declared(&modes));
    sim.run();
    assert_eq!(sim.start(2), 2_500);
}

#[test]
fn what_the_plan_puts_first_starts_first_whatever_its_priority() {
    let modes = [on_gpus(Gpus::Whole(2), 0, 3_000), on_gpus(Gpus::Shared, 4, 500), on_gpus(Gpus::Shared, 4, 500)];
    let mut problem = one_each(&modes, gpus(2));
    (0..).zip(&mut problem.pipeline.stages).for_each(|(more, stage)| stage.priority = 5 + more);
    let plan = in_file_order(&problem);
    let mut sim = Sim::new(&problem, &plan, declared(&modes));
    sim.run();
    let starts = plan.placed.iter().map(|placed| placed.start.0 + 1_000);
    assert_eq!((0..3).map(|task| sim.start(task)).collect::<Vec<_>>(), starts.collect::<Vec<_>>());
    // Of what the plan starts at once, who has priority is the first.
    let plan = plan::make(&problem.pipeline, &problem.graph, &problem.fleet, &options()).unwrap();
    assert_eq!(plan.placed[1].start, plan.placed[2].start);
    assert!(plan.rank[2] < plan.rank[1]);
}

#[test]
fn one_that_would_be_in_the_way_on_a_device_goes_to_another() {
    // Two of three devices are for the gang: which, is open until it starts. A third task fits beside it anywhere.
    let whole = |gang, ms| on_gpus(Gpus::Whole(gang), 0, ms);
    let modes = [whole(1, 1_000), whole(1, 2_000), whole(2, 500), whole(1, 5_000)];
    let problem = one_each(&modes, gpus(3));
    let plan = in_file_order(&problem);
    let mut sim = Sim::new(&problem, &plan, declared(&modes));
    sim.run();
    // The gang waits for the first device and the free one; the last task would have taken the free one for long.
    assert_eq!((sim.start(2), sim.start(3)), (2_000, 2_500));
}

#[test]
fn nothing_is_held_for_a_task_whose_device_has_fallen_out() {
    let modes = [on_gpus(Gpus::Whole(2), 0, 500), on_gpus(Gpus::Whole(1), 0, 5_000)];
    let problem = one_each(&modes, gpus(2));
    let plan = in_file_order(&problem);
    let mut sim = Sim::new(&problem, &plan, declared(&modes));
    sim.readings.devices[1] = Live::Fault { fault: "lost".to_owned(), ends_tasks: true, until: "" };
    sim.decide();
    assert_eq!(sim.starts.keys().copied().collect::<Vec<_>>(), [TaskId(1)]);
}

#[test]
fn what_a_running_task_says_moves_the_promise_of_the_next() {
    let modes = [on_host(3, 10_000), on_host(4, 500), on_host(1, 5_000)];
    let problem = one_each(&modes, host(4));
    let plan = in_file_order(&problem);
    let start_last = |part: Option<f64>| {
        let mut sim = Sim::new(&problem, &plan, declared(&modes));
        let decided = sim.dispatcher.decide(&sim.state, sim.now, &sim.readings);
        assert_eq!(decided.len(), 2, "the last one ends long before the first: {decided:?}");
        let mut sim = Sim::new(&problem, &plan, declared(&modes));
        sim.dispatcher.options.jobs = Some(1);
        sim.decide();
        sim.dispatcher.options.jobs = None;
        sim.now = Millis(3_000);
        part.into_iter().for_each(|part| sim.dispatcher.progressed(TaskId(0), part, Millis(3_000)));
        sim.decide();
        sim.starts.contains_key(&TaskId(2))
    };
    assert!(start_last(None), "ten seconds are declared, of which eight are left");
    assert!(!start_last(Some(0.5)), "it is half done after two seconds");
}

/// Two that run at first, then a short one, one for both CPUs with another behind it, and a long one. If the second one
/// ends in time, the short one goes first; if it is late, the long one fits before the wide one.
fn late() -> (Vec<Mode>, Problem, Plan) {
    let modes = vec![
        on_host(1, 20_000),
        on_host(1, 80_000),
        on_host(1, 60_000),
        on_host(2, 50_000),
        on_host(1, 100_000),
        on_host(1, 120_000),
    ];
    let problem = problem(modes.iter().map(|mode| vec![mode.clone()]).collect(), &[(3, 4)], host(2));
    let plan = in_file_order(&problem);
    assert_eq!(plan.makespan, Millis(250_000));
    (modes, problem, plan)
}

fn options() -> plan::Options<'static> {
    let limits = plan::Limits { evaluations: Some(2_000), ..plan::Limits::default() };
    plan::Options { limits, ..plan::Options::default() }
}

fn revised(problem: &Problem, rest: &plan::rest::Rest) -> plan::rest::Revision {
    plan::rest::rest(&problem.pipeline, &problem.graph, &problem.fleet, rest, &options()).unwrap()
}

#[test]
fn a_stage_that_will_be_late_changes_the_order_of_what_follows() {
    let (modes, problem, plan) = late();
    let mut takes = declared(&modes);
    takes[1] = 140_000;
    let mut sim = Sim::new(&problem, &plan, takes);
    sim.decide();
    assert_eq!(sim.dispatcher.wants_replan(&sim.state, &sim.readings, sim.now), None, "all goes as planned");
    sim.now = Millis(6_000);
    sim.dispatcher.progressed(TaskId(1), 5.0 / 140.0, sim.now);
    let rest = sim.dispatcher.wants_replan(&sim.state, &sim.readings, sim.now).expect("the second is late");
    assert_eq!(sim.dispatcher.wants_replan(&sim.state, &sim.readings, Millis(9_000)), None, "it is asked once");
    let event = sim.dispatcher.replanned(&sim.state, Some(revised(&problem, &rest)), sim.now).expect("it is worth it");
    let Event::Replanned { because: Because::Drift { task, .. }, before, after, order, .. } = &event else {
        panic!("{event:?}");
    };
    assert_eq!(*task, Some(TaskId(1)));
    assert!(after < before);
    assert_eq!(order[0], TaskId(5), "{order:?}");
    sim.happens(event);

    // A dispatcher that is made from the record decides the same.
    let Problem { pipeline, graph, fleet } = &problem;
    let mut again = Dispatcher::new(
        (pipeline, graph),
        (fleet, &plan),
        Ledger::new(fleet),
        Options::default(),
        Vec::new(),
        &sim.state,
    );
    assert_eq!((&again.plan.rank, &again.plan.placed), (&sim.dispatcher.plan.rank, &sim.dispatcher.plan.placed));
    sim.step();
    let recorded = Recorded {
        at: sim.now,
        event: Event::AttemptFinished {
            role: Role::Main,
            task: TaskId(0),
            outcome: Outcome::Succeeded,
            usage: Usage::default(),
            logged: false,
        },
    };
    again.take_in(&recorded);
    let decided = again.decide(&sim.state, sim.now, &sim.readings);
    assert_eq!(decided, sim.dispatcher.decide(&sim.state, sim.now, &sim.readings));
    assert!(matches!(decided[..], [Event::AttemptStarted { task: TaskId(5), .. }]), "{decided:?}");
}

#[test]
fn what_starts_within_a_second_is_not_moved() {
    let (modes, problem, plan) = late();
    let mut sim = Sim::new(&problem, &plan, declared(&modes));
    sim.decide();
    sim.dispatcher.wants_replan(&sim.state, &sim.readings, sim.now);
    sim.now = Millis(20_500);
    sim.dispatcher.progressed(TaskId(1), 19.5 / 140.0, sim.now);
    let rest = sim.dispatcher.wants_replan(&sim.state, &sim.readings, sim.now).expect("the second is late");
    assert_eq!(revised(&problem, &rest).order[0], TaskId(2));
}

#[test]
fn where_nothing_says_how_long_anything_takes_there_is_nothing_to_differ_from() {
    let mode = Mode { duration: Duration::default(), ..on_host(1, 0) };
    let problem = one_each(&vec![mode; 4], host(1));
    let plan = in_file_order(&problem);
    let mut sim = Sim::new(&problem, &plan, vec![600_000; 4]);
    for _ in 0..3 {
        assert_eq!(sim.dispatcher.wants_replan(&sim.state, &sim.readings, sim.now), None);
        sim.step();
    }
}

#[test]
fn durations_that_others_of_a_stage_took_are_planned_with() {
    let problem = one_each(&[on_host(1, 1_000), on_host(1, 1_000)], host(1));
    let mut twins = problem;
    twins.graph.tasks[1].stage = 0;
    let plan = in_file_order(&twins);
    let mut sim = Sim::new(&twins, &plan, vec![3_000, 3_000]);
    sim.step();
    sim.decide();
    let grant = sim.dispatcher.ledger.grant(TaskId(1)).unwrap().clone();
    assert_eq!(sim.dispatcher.expected_end(TaskId(1), &grant, sim.now), sim.now + Millis(3_000));
    let again = Dispatcher::new(
        (&twins.pipeline, &twins.graph),
        (&twins.fleet, &plan),
        Ledger::new(&twins.fleet),
        Options::default(),
        Vec::new(),
        &sim.state,
    );
    assert_eq!(again.expect.factors(), sim.dispatcher.expect.factors());
}

#[test]
fn a_device_that_falls_out_and_comes_back_is_planned_without_and_with() {
    let modes = vec![on_gpus(Gpus::Whole(1), 0, 10_000); 6];
    let problem = one_each(&modes, gpus(2));
    let plan = in_file_order(&problem);
    let mut sim = Sim::new(&problem, &plan, declared(&modes));
    sim.decide();
    assert_eq!(sim.dispatcher.wants_replan(&sim.state, &sim.readings, sim.now), None);
    let because = |sim: &mut Sim<'_>| {
        let rest = sim.dispatcher.wants_replan(&sim.state, &sim.readings, sim.now).expect("the devices have changed");
        let revision = revised(&problem, &rest);
        assert!(revision.placed.iter().all(|placed| !rest.unfit.iter().any(|unfit| placed.devices.contains(unfit))));
        let event = sim.dispatcher.replanned(&sim.state, Some(revision), sim.now).expect("tasks have moved");
        sim.happens(event.clone());
        let Event::Replanned { because, .. } = event else { panic!("{event:?}") };
        because
    };
    sim.now += Millis(3_000);
    sim.readings.devices[1] = Live::Fault { fault: "lost".to_owned(), ends_tasks: true, until: "" };
    assert_eq!(because(&mut sim), Because::Lost { device: "n0/gpu1".to_owned() });
    sim.now += Millis(3_000);
    sim.readings.devices[1] = Live::Unwatched;
    assert_eq!(because(&mut sim), Because::Back { device: "n0/gpu1".to_owned() });
    sim.run();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// With true durations no first in line starts later than it was promised, and all is done at last.
    #[test]
    fn nobody_starts_later_than_promised(tasks in prop::collection::vec((1_u64..5, 1_u64..40), 1..40)) {
        let modes: Vec<Mode> = tasks.iter().map(|(cpus, ms)| on_host(*cpus, ms * 100)).collect();
        let problem = one_each(&modes, host(4));
        let plan = in_file_order(&problem);
        let mut sim = Sim::new(&problem, &plan, declared(&modes));
        sim.run();
        for (task, promised) in &sim.promises {
            prop_assert!(sim.starts[task] <= *promised, "{task:?}: {:?} after {promised:?}", sim.starts[task]);
        }
    }

    /// The same for gangs of devices beside tasks that share them.
    #[test]
    fn no_gang_starts_later_than_promised(tasks in prop::collection::vec((0_u32..4, 1_u64..16, 1_u64..40), 1..40)) {
        let mode = |(gang, gib, ms): &(u32, u64, u64)| match gang {
            0 => on_gpus(Gpus::Shared, *gib, ms * 100),
            gang => on_gpus(Gpus::Whole(*gang), 0, ms * 100),
        };
        let modes: Vec<Mode> = tasks.iter().map(mode).collect();
        let problem = one_each(&modes, gpus(3));
        let plan = in_file_order(&problem);
        let mut sim = Sim::new(&problem, &plan, declared(&modes));
        sim.run();
        for (task, promised) in &sim.promises {
            prop_assert!(sim.starts[task] <= *promised, "{task:?}: {:?} after {promised:?}", sim.starts[task]);
        }
    }
}

#[test]
fn those_that_share_a_device_take_turns_and_whoever_takes_the_run_up_goes_on_there() {
    let mut mode = on_gpus(Gpus::Share(Share(600_000)), 1, 100);
    mode.resources.suspend = true;
    let mut fleet = Fleet::default();
    add_node(&mut fleet, 4, 64, &[("A", 8, 1_000)]);
    let problem = one_each(&[mode.clone(), mode], fleet);
    let (plan, Problem { pipeline, graph, fleet }) = (in_file_order(&problem), &problem);
    let dispatcher = |quantum: Option<u64>, state: &RunState| {
        let options = Options { quantum: quantum.map(Millis), ..Options::default() };
        Dispatcher::new((pipeline, graph), (fleet, &plan), Ledger::new(fleet), options, Vec::new(), state)
    };
    let mut state = RunState::new(2);
    let decide = |dispatcher: &mut Dispatcher<'_>, state: &mut RunState, at: u64| {
        let events = dispatcher.decide(state, Millis(at), &Readings::unwatched(1));
        for event in &events {
            let recorded = Recorded { at: Millis(at), event: event.clone() };
            state.apply(&recorded).unwrap();
            dispatcher.take_in(&recorded);
        }
        let turn = |event: &Event| {
            let stops = matches!(event, Event::TaskSuspended { .. });
            let is_one = stops || matches!(event, Event::TaskContinued { .. });
            event.task().filter(|_| is_one).map(|task| (task.0, !stops))
        };
        (events.len(), events.iter().filter_map(turn).collect::<Vec<_>>())
    };
    let mut first = dispatcher(Some(10), &state);
    // Both are started; the second one stands still until its turn comes.
    assert_eq!(decide(&mut first, &mut state, 1_000), (3, vec![(1, false)]));
    assert_eq!(first.next_due(&state), Some(Millis(1_010)));
    assert_eq!(decide(&mut first, &mut state, 1_009), (0, vec![]));
    assert_eq!(decide(&mut first, &mut state, 1_010), (2, vec![(0, false), (1, true)]));
    let mut other = dispatcher(Some(10), &state);
    assert_eq!(decide(&mut other, &mut state, 1_015), (0, vec![]));
    assert_eq!(other.next_due(&state), Some(Millis(1_020)));
    // Where nobody takes turns any more, nobody stands still.
    assert_eq!(decide(&mut dispatcher(None, &state.clone()), &mut state.clone(), 1_016), (1, vec![(0, true)]));
    assert_eq!(decide(&mut other, &mut state, 1_020), (2, vec![(1, false), (0, true)]));
    let (outcome, usage) = (Outcome::Succeeded, Usage::default());
    let event = Event::AttemptFinished { task: TaskId(0), role: Role::Main, outcome, usage, logged: false };
    let ended = Recorded { at: Millis(1_025), event };
    state.apply(&ended).unwrap();
    other.take_in(&ended);
    assert_eq!(decide(&mut other, &mut state, 1_025), (1, vec![(1, true)]));
    let attempt = &state.task(TaskId(1)).attempts[0];
    let pieces: Vec<_> = attempt.pieces(Millis(1_030)).map(|(from, to)| (from.0, to.0)).collect();
    assert_eq!((pieces, attempt.ran(Millis(1_030))), (vec![(1_010, 1_020), (1_025, 1_030)], Millis(15)));
}
