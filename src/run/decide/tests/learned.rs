//! What tasks of one stage teach each other in a run.

use super::*;
use crate::fleet::DeviceId;
use crate::graph;
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
