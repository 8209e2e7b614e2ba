//! Tasks that a device does not let in, which lets in one process at a time.

use super::*;
use crate::run::admission::Seen;
use crate::units::Bytes;

/// Devices of which the first so many let in one process at a time.
fn for_one_process(exclusive: usize, others: usize) -> Fleet {
    let mut fleet = gpus(exclusive + others);
    fleet.devices[..exclusive].iter_mut().for_each(|device| device.one_process = true);
    fleet
}

/// Ends a task's attempt that said that its device is busy, as it was seen to hold so much; returns how it ended.
fn turn_away(sim: &mut Sim<'_>, task: TaskId, peak: Option<Bytes>) -> Outcome {
    let of = sim.state.task(task);
    let (_, attempt) = of.open().next().expect("it runs");
    let (place, at) = ((&*attempt.place, peak), (sim.now, &sim.readings));
    let outcome = sim.dispatcher.explain_turned_away(Outcome::Exited { code: 1 }, (task, of), place, at);
    sim.ends.retain(|(_, other)| *other != task);
    let (role, usage, logged) = (Role::Main, Usage::default(), true);
    sim.happens(Event::AttemptFinished { task, role, outcome: outcome.clone(), usage, logged });
    outcome
}

/// Returns the devices of a task's attempts.
fn devices(sim: &Sim<'_>, task: TaskId) -> Vec<Vec<String>> {
    sim.state.task(task).attempts.iter().map(|attempt| attempt.place.devices.clone()).collect()
}

/// Lets a task be turned away by its device until it has failed; returns how it ended each time.
fn until_it_fails(fleet: Fleet, peak: Option<Bytes>) -> Vec<Outcome> {
    let problem = problem(vec![vec![on_gpus(Gpus::Whole(1), 0, 1_000)]], &[], fleet);
    let plan = in_file_order(&problem);
    let mut sim = Sim::new(&problem, &plan, vec![1_000]);
    let mut outcomes = Vec::new();
    while sim.state.task(TaskId(0)).phase != Phase::Failed {
        sim.decide();
        sim.now += Millis(3_600_000);
        if sim.state.task(TaskId(0)).open().next().is_some() {
            outcomes.push(turn_away(&mut sim, TaskId(0), peak));
        }
    }
    outcomes
}

#[test]
fn who_is_turned_away_by_a_device_for_one_process_is_tried_again_so_often() {
    let tried_again = |exclusive, others, peak| {
        let outcomes = until_it_fails(for_one_process(exclusive, others), peak);
        let (last, before) = outcomes.split_last().expect("it was tried");
        assert_eq!(*last, Outcome::Exited { code: 1 }, "at last it is its own failure");
        let cause = Cause::TurnedAway { or: Box::default() };
        let displaced = Outcome::Displaced { device: "n0/gpu0".to_owned(), cause };
        assert!(before.iter().all(|outcome| *outcome == displaced), "{before:?}");
        before.len()
    };
    assert_eq!(tried_again(1, 0, None), 16, "others may come first again and again");
    assert_eq!(tried_again(1, 0, Some(Bytes(0))), 16);
    assert_eq!(tried_again(1, 0, Some(Bytes(1))), 3, "it was let in itself");
    assert_eq!(tried_again(0, 1, None), 0, "others are no reason");
}

/// Plans two tasks for two devices, each for the one that the other would get in the order of the file.
fn crosswise(problem: &Problem) -> Plan {
    let mut plan = in_file_order(problem);
    let places = plan.placed.iter_mut().zip([1, 0]);
    places.for_each(|(placed, device)| placed.devices = vec![crate::fleet::DeviceId(device)]);
    plan
}

#[test]
fn who_is_turned_away_goes_elsewhere_as_soon_as_something_else_has_room() {
    let whole = on_gpus(Gpus::Whole(1), 0, 60_000);
    let problem = one_each(&[whole.clone(), whole], for_one_process(1, 1));
    let plan = crosswise(&problem);
    let mut sim = Sim::new(&problem, &plan, vec![20_000, 1_000]);
    sim.decide();
    let task = TaskId(1);
    // Until the other device is free, it is tried where it was, later and later.
    while sim.now < Millis(20_000) {
        if sim.state.task(task).open().next().is_some() {
            assert!(matches!(turn_away(&mut sim, task, None), Outcome::Displaced { .. }));
        }
        sim.now += Millis(100);
        sim.decide();
    }
    let before = devices(&sim, task);
    assert!((3..8).contains(&before.len()) && before.iter().all(|at| *at == ["n0/gpu0"]), "{before:?}");
    // Whoever takes the run up knows which device it was.
    let Problem { pipeline, graph, fleet } = &problem;
    let (ledger, options) = (Ledger::new(fleet), Options::default());
    let mut other = Dispatcher::new((pipeline, graph), (fleet, &plan), ledger, options, Vec::new(), &sim.state);
    assert_eq!(other.decide(&sim.state, sim.now, &sim.readings), []);
    assert!(sim.step(), "the other task ends");
    sim.run();
    assert_eq!(devices(&sim, task).split_last(), Some((&vec!["n0/gpu1".to_owned()], &before[..])));
    assert_eq!(sim.starts[&task], Millis(21_000), "at once");
}

#[test]
fn who_was_turned_away_often_does_not_fail_beside_a_device_that_has_room() {
    let whole = on_gpus(Gpus::Whole(1), 0, 60_000);
    let problem = one_each(&[whole.clone(), whole], for_one_process(1, 1));
    let plan = crosswise(&problem);
    let (day, task) = (86_400_000, TaskId(1));
    let mut sim = Sim::new(&problem, &plan, vec![day, 1_000]);
    for _ in 0..16 {
        sim.decide();
        turn_away(&mut sim, task, None);
        sim.decide();
        sim.now += Millis(3_600_000);
    }
    sim.decide();
    let (outcome, usage) = (Outcome::Succeeded, Usage::default());
    sim.ends.retain(|(_, other)| *other != TaskId(0));
    sim.happens(Event::AttemptFinished { task: TaskId(0), role: Role::Main, outcome, usage, logged: false });
    assert!(matches!(turn_away(&mut sim, task, None), Outcome::Displaced { .. }));
    sim.decide();
    sim.run();
    assert_eq!(devices(&sim, task).last(), Some(&vec!["n0/gpu1".to_owned()]));
}

#[test]
fn several_devices_are_found_among_which_the_busy_one_is_not() {
    for busy in ["n0/gpu0", "n0/gpu1", "n0/gpu2"] {
        let problem = problem(vec![vec![on_gpus(Gpus::Whole(2), 0, 1_000)]], &[], for_one_process(3, 0));
        let plan = in_file_order(&problem);
        let mut sim = Sim::new(&problem, &plan, vec![1_000]);
        loop {
            sim.decide();
            let at = devices(&sim, TaskId(0)).pop().expect("it is started");
            if !at.iter().any(|device| device == busy) {
                break;
            }
            let cause = Cause::TurnedAway { or: at[1..].into() };
            assert_eq!(turn_away(&mut sim, TaskId(0), None), Outcome::Displaced { device: at[0].clone(), cause });
            sim.decide();
            sim.now += Millis(3_600_000);
        }
        assert!(devices(&sim, TaskId(0)).len() < 5, "{busy}: {:?}", devices(&sim, TaskId(0)));
    }
}

#[test]
fn who_prefers_a_gpu_and_is_turned_away_again_and_again_takes_the_cpu_after_a_while() {
    let mut gpu = on_gpus(Gpus::Whole(1), 0, 10_000);
    gpu.duration = Duration::default();
    let cpu = Mode { fallback: true, duration: Duration::default(), ..on_host(1, 0) };
    let problem = problem(vec![vec![gpu, cpu]], &[], for_one_process(1, 0));
    let plan = in_file_order(&problem);
    let mut sim = Sim::new(&problem, &plan, vec![1_000]);
    let task = TaskId(0);
    sim.readings.devices[0] = Live::Seen(Seen { free: Bytes(16 << 30), one_process: Some(0), ..Seen::default() });
    let at = loop {
        sim.readings.at = sim.now;
        sim.decide();
        let mode = sim.state.task(task).open().next().map(|(_, attempt)| attempt.place.mode);
        match mode {
            Some(0) => drop(turn_away(&mut sim, task, None)),
            Some(_) => break sim.now,
            None => {}
        }
        sim.now += Millis(500);
        assert!(sim.now < Millis(60_000), "it waits on and on");
    };
    assert!((Millis(31_000)..Millis(33_000)).contains(&at), "{at}");
}

#[test]
fn who_is_never_let_in_does_not_hold_up_those_who_are() {
    let whole = on_gpus(Gpus::Whole(1), 0, 1_000);
    let problem = one_each(&vec![whole; 20], for_one_process(1, 0));
    let plan = in_file_order(&problem);
    let mut sim = Sim::new(&problem, &plan, vec![1_000; 20]);
    let others_are_done = |sim: &Sim<'_>| sim.state.tasks[1..].iter().all(|task| task.phase == Phase::Succeeded);
    while !others_are_done(&sim) {
        sim.decide();
        if sim.state.task(TaskId(0)).open().next().is_some() {
            turn_away(&mut sim, TaskId(0), None);
        } else if !sim.step() {
            sim.now += Millis(100);
        }
    }
    assert!(sim.now < Millis(26_000), "nineteen of a second each end at {}", sim.now);
    assert!(devices(&sim, TaskId(0)).len() < 4);
}

#[test]
fn several_who_prefer_a_gpu_and_are_turned_away_take_the_cpu() {
    let mut gpu = on_gpus(Gpus::Whole(1), 0, 10_000);
    gpu.duration = Duration::default();
    let cpu = Mode { fallback: true, duration: Duration::default(), ..on_host(1, 0) };
    let problem = problem(vec![vec![gpu, cpu]; 3], &[], for_one_process(2, 0));
    let plan = in_file_order(&problem);
    let mut sim = Sim::new(&problem, &plan, vec![1_000; 3]);
    let seen = Live::Seen(Seen { free: Bytes(16 << 30), one_process: Some(0), ..Seen::default() });
    sim.readings.devices.fill(seen);
    let tasks = [TaskId(0), TaskId(1), TaskId(2)];
    let mode = |sim: &Sim<'_>, task: TaskId| sim.state.task(task).open().next().map(|(_, attempt)| attempt.place.mode);
    while !tasks.iter().all(|task| mode(&sim, *task) == Some(1)) {
        sim.readings.at = sim.now;
        sim.decide();
        // Who is turned away runs for a moment: those behind it wait for it meanwhile.
        sim.decide();
        for task in tasks {
            if mode(&sim, task) == Some(0) {
                turn_away(&mut sim, task, None);
            }
        }
        sim.now += Millis(100);
        assert!(sim.now < Millis(100_000), "they wait on and on");
    }
}
