//! What tasks of one stage teach each other in a run.

use super::*;
use crate::fleet::DeviceId;
use crate::graph;
use crate::run::admission::Seen;
use crate::spec::Source;
use crate::units::Bytes;

#[test]
fn what_was_too_little_for_one_point_is_asked_for_by_no_other() {
    let text =
        "[stage.train]\nrun = 'x'\nmatrix = { size = [1, 2, 3] }\nresources = { cpus = 0, gpu_memory = 'auto' }\n";
    let source = Source { name: "p.toml".to_owned(), text: text.to_owned() };
    let (pipeline, graph) = graph::load(&source, &[], &[], graph::Limits::default()).expect("a good file");
    let problem = Problem { pipeline, graph, fleet: gpus(1) };
    let plan = in_file_order(&problem);
    let mut sim = Sim::new(&problem, &plan, vec![1_000; 3]);
    sim.dispatcher.options.jobs = Some(1);
    let end = |sim: &mut Sim<'_>, task: u32, outcome: Outcome, gib: u64| {
        let usage = Usage { peak_gpu_memory: Some(Bytes(gib << 30)), ..Usage::default() };
        let event = Event::AttemptFinished { task: TaskId(task), role: Role::Main, outcome, usage, logged: false };
        sim.happens(event);
    };
    let reserved = |sim: &Sim<'_>, task: u32| sim.state.task(TaskId(task)).attempts[0].place.gpu_memory.0 >> 20;
    sim.decide();
    end(&mut sim, 0, Outcome::Succeeded, 4);
    sim.decide();
    assert_eq!(reserved(&sim, 1), 5_120, "by the first one");
    end(&mut sim, 1, Outcome::OutOfMemory { device: Some("n0/gpu0".to_owned()) }, 5);
    let Problem { pipeline, graph, fleet } = &problem;
    let other =
        Dispatcher::new((pipeline, graph), (fleet, &plan), Ledger::new(fleet), Options::default(), vec![], &sim.state);
    sim.decide();
    assert_eq!(reserved(&sim, 2), 7_680, "half as much again");
    // Whoever takes the run up knows as much.
    assert_eq!(other.asked(TaskId(2)).gpu_memory, Bytes(7_680 << 20));
}

#[test]
fn a_device_that_is_too_small_for_one_is_tried_by_no_other() {
    let text = "[stage.train]\nrun = 'x'\nmatrix = { size = [1, 2] }\nresources = { cpus = 0, gpu_memory = 'auto' }\n";
    let source = Source { name: "p.toml".to_owned(), text: text.to_owned() };
    let (pipeline, graph) = graph::load(&source, &[], &[], graph::Limits::default()).expect("a good file");
    let mut fleet = gpus(2);
    fleet.devices[1].memory = Bytes(2 * fleet.devices[0].memory.0);
    let problem = Problem { pipeline, graph, fleet };
    let mut plan = in_file_order(&problem);
    plan.placed[0].devices = vec![DeviceId(0)];
    let mut sim = Sim::new(&problem, &plan, vec![1_000; 2]);
    sim.dispatcher.options.jobs = Some(1);
    sim.decide();
    let outcome = Outcome::OutOfMemory { device: Some("n0/gpu0".to_owned()) };
    let usage = Usage::default();
    sim.happens(Event::AttemptFinished { task: TaskId(0), role: Role::Main, outcome, usage, logged: false });
    sim.decide();
    let larger = Bytes(problem.fleet.devices[0].whole_memory().0 + 1);
    assert_eq!(sim.state.task(TaskId(1)).attempts[0].place.devices, ["n0/gpu1"]);
    let Problem { pipeline, graph, fleet } = &problem;
    let other =
        Dispatcher::new((pipeline, graph), (fleet, &plan), Ledger::new(fleet), Options::default(), vec![], &sim.state);
    for dispatcher in [&sim.dispatcher, &other] {
        let asked = dispatcher.asked(TaskId(1));
        assert_eq!((asked.gpu_memory, asked.alone), (larger, true), "whoever takes the run up knows as much");
    }
}

/// Lets the first of three tasks succeed on the smaller of two devices with nearly all of its memory, while the other one is
/// as given; returns when others start after that, and where.
fn after_one_on_the_smaller(other: &Live) -> (u64, Vec<String>) {
    let text = "[stage.train]\nrun = 'x'\nmatrix = { i = [1, 2, 3] }\nresources = { cpus = 0, gpu_memory = 'auto' }\n";
    let source = Source { name: "p.toml".to_owned(), text: text.to_owned() };
    let (pipeline, graph) = graph::load(&source, &[], &[], graph::Limits::default()).expect("a good file");
    let mut fleet = gpus(2);
    let size = fleet.devices[0].memory;
    fleet.devices[1].memory = Bytes(2 * size.0);
    let problem = Problem { pipeline, graph, fleet };
    let mut plan = in_file_order(&problem);
    plan.placed.iter_mut().for_each(|placed| placed.devices = vec![DeviceId(0)]);
    let mut sim = Sim::new(&problem, &plan, vec![1_000; 3]);
    let idle = Seen { free: size, held: Some(Vec::new()), ..Seen::default() };
    sim.readings.devices = vec![Live::Seen(idle), other.clone()];
    let at = |sim: &mut Sim<'_>, at: u64| {
        (sim.now, sim.readings.at) = (Millis(at), Millis(at));
        sim.decide();
    };
    at(&mut sim, 1_000);
    assert_eq!(sim.state.task(TaskId(0)).attempts[0].place.devices, ["n0/gpu0"]);
    let usage = Usage { peak_gpu_memory: Some(Bytes(size.0 / 10 * 9)), ..Usage::default() };
    let outcome = Outcome::Succeeded;
    sim.happens(Event::AttemptFinished { task: TaskId(0), role: Role::Main, outcome, usage, logged: false });
    let asked = sim.dispatcher.asked(TaskId(1)).gpu_memory;
    assert!(asked > size && asked < Bytes(2 * size.0), "the larger one gives that");
    for now in (2_000..60_000).step_by(1_000) {
        at(&mut sim, now);
        let started = [TaskId(1), TaskId(2)].map(|task| sim.state.task(task).attempts.first().cloned());
        if started[0].is_some() {
            return (now, started.iter().flatten().flat_map(|attempt| attempt.place.devices.clone()).collect());
        }
    }
    panic!("it waits: {:?}", sim.waiting());
}

#[test]
fn a_smaller_device_on_which_one_has_succeeded_does_where_the_larger_one_is_not_to_be_had() {
    let fault = Live::Fault { fault: "lost".to_owned(), ends_tasks: true, until: "" };
    let on_smaller = vec!["n0/gpu0".to_owned()];
    assert_eq!(after_one_on_the_smaller(&fault), (2_000, on_smaller.clone()));
    let seen =
        |free: u64, used| Seen { free: Bytes(free << 30), used: Bytes(used), held: Some(vec![]), ..Seen::default() };
    let (at, devices) = after_one_on_the_smaller(&Live::Seen(seen(0, 1 << 40)));
    assert_eq!((at > 30_000, devices), (true, on_smaller), "strangers may go again");
    let (at, devices) = after_one_on_the_smaller(&Live::Seen(seen(1 << 10, 0)));
    assert_eq!((at, devices), (2_000, vec!["n0/gpu1".to_owned(), "n0/gpu0".to_owned()]), "the larger one first");
}

#[test]
fn who_prefers_a_device_tries_none_where_the_largest_was_too_small_for_another() {
    let text = "[stage.train]\nrun = 'x'\nmatrix = { i = [1, 2, 3] }\n\
                resources = { cpus = 0, gpus = 'prefer', gpu_memory = 'auto' }\n";
    let source = Source { name: "p.toml".to_owned(), text: text.to_owned() };
    let (pipeline, graph) = graph::load(&source, &[], &[], graph::Limits::default()).expect("a good file");
    let problem = Problem { pipeline, graph, fleet: gpus(1) };
    let mut plan = in_file_order(&problem);
    plan.placed.iter_mut().for_each(|placed| (placed.mode, placed.devices) = (0, vec![DeviceId(0)]));
    let mut sim = Sim::new(&problem, &plan, vec![1_000; 3]);
    sim.dispatcher.options.jobs = Some(1);
    sim.decide();
    assert_eq!(sim.state.task(TaskId(0)).attempts[0].place.devices, ["n0/gpu0"]);
    let outcome = Outcome::OutOfMemory { device: Some("n0/gpu0".to_owned()) };
    let usage = Usage::default();
    sim.happens(Event::AttemptFinished { task: TaskId(0), role: Role::Main, outcome, usage, logged: false });
    sim.decide();
    let second = &sim.state.task(TaskId(1)).attempts[0].place;
    assert_eq!((second.mode, second.devices.len()), (1, 0));
    let Problem { pipeline, graph, fleet } = &problem;
    let other =
        Dispatcher::new((pipeline, graph), (fleet, &plan), Ledger::new(fleet), Options::default(), vec![], &sim.state);
    assert_eq!(other.stage_and_mode(TaskId(2)).1, 1, "whoever takes the run up knows as much");
    // Unless there is a larger one by then.
    let mut fleet = gpus(1);
    fleet.devices[0].memory = Bytes(2 * fleet.devices[0].memory.0);
    let ledger = Ledger::new(&fleet);
    let other = Dispatcher::new((pipeline, graph), (&fleet, &plan), ledger, Options::default(), vec![], &sim.state);
    assert_eq!(other.stage_and_mode(TaskId(2)).1, 0);
}

/// Returns a problem of two tasks on a smaller and a larger device, and the size of the smaller one.
fn small_and_large(gpus_wanted: &str) -> (Problem, Bytes) {
    let resources = format!("cpus = 0, {gpus_wanted}gpu_memory = 'auto'");
    let text = format!("[stage.train]\nrun = 'x'\nmatrix = {{ i = [1, 2] }}\nresources = {{ {resources} }}\n");
    let source = Source { name: "p.toml".to_owned(), text };
    let (pipeline, graph) = graph::load(&source, &[], &[], graph::Limits::default()).expect("a good file");
    let mut fleet = gpus(2);
    let size = fleet.devices[0].memory;
    fleet.devices[1].memory = Bytes(2 * size.0);
    (Problem { pipeline, graph, fleet }, size)
}

#[test]
fn a_smaller_device_that_gives_what_earlier_runs_have_seen_does_where_the_larger_one_is_lost() {
    let started = |tenths: u64| {
        let (mut problem, size) = small_and_large("");
        let mode = &mut problem.pipeline.stages[0].modes[0];
        mode.seen = Bytes(size.0 / 10 * tenths);
        (mode.resources.gpus, mode.resources.gpu_memory) = (Gpus::Shared, Bytes(size.0 / 10 * 12));
        let plan = in_file_order(&problem);
        let mut sim = Sim::new(&problem, &plan, vec![1_000; 2]);
        let idle = Seen { free: size, held: Some(Vec::new()), ..Seen::default() };
        let lost = Live::Fault { fault: "lost".to_owned(), ends_tasks: true, until: "" };
        sim.readings.devices = vec![Live::Seen(idle), lost];
        sim.decide();
        let first = sim.state.task(TaskId(0)).attempts.first();
        first.map(|attempt| (attempt.place.devices.clone(), attempt.place.gpu_memory >= size))
    };
    assert_eq!(started(9), Some((vec!["n0/gpu0".to_owned()], true)), "it has all of that");
    assert_eq!(started(11), None, "nobody has seen that it gives so much");
}

#[test]
fn who_prefers_a_device_does_not_leave_the_smaller_one_that_is_just_given_back() {
    let (problem, size) = small_and_large("gpus = 'prefer', ");
    let mut plan = in_file_order(&problem);
    plan.placed.iter_mut().for_each(|placed| (placed.mode, placed.devices) = (0, vec![DeviceId(0)]));
    let mut sim = Sim::new(&problem, &plan, vec![1_000; 2]);
    let idle = Seen { free: size, held: Some(Vec::new()), ..Seen::default() };
    let lost = Live::Fault { fault: "lost".to_owned(), ends_tasks: true, until: "" };
    sim.readings.devices = vec![Live::Seen(idle), lost];
    let on = |sim: &Sim<'_>, task: u32| {
        sim.state.task(TaskId(task)).attempts.first().map(|attempt| attempt.place.devices.clone())
    };
    (sim.now, sim.readings.at) = (Millis(1_000), Millis(1_000));
    sim.decide();
    assert_eq!((on(&sim, 0), on(&sim, 1)), (Some(vec!["n0/gpu0".to_owned()]), None));
    sim.now = Millis(2_000);
    let usage = Usage { peak_gpu_memory: Some(Bytes(size.0 / 10 * 9)), ..Usage::default() };
    let outcome = Outcome::Succeeded;
    sim.happens(Event::AttemptFinished { task: TaskId(0), role: Role::Main, outcome, usage, logged: false });
    sim.decide();
    assert_eq!(on(&sim, 1), None, "it is read again first");
    (sim.now, sim.readings.at) = (Millis(3_000), Millis(3_000));
    sim.decide();
    assert_eq!(on(&sim, 1), Some(vec!["n0/gpu0".to_owned()]));
}
