//! Tasks that would rather have a GPU and cannot have one now.

use super::*;
use crate::run::admission::Seen;
use crate::units::Bytes;

/// A task that would rather have the only GPU, for ten seconds, than the CPU for so many.
fn prefers(cpu: Option<u64>) -> Vec<Mode> {
    let mut gpu = on_gpus(Gpus::Whole(1), 0, 10_000);
    let mut fallback = Mode { fallback: true, ..on_host(1, cpu.unwrap_or_default()) };
    if cpu.is_none() {
        (gpu.duration, fallback.duration) = (Duration::default(), Duration::default());
    }
    vec![gpu, fallback]
}

/// Returns when two of them start and in which modes, each of which takes ten seconds.
fn two(cpu: Option<u64>, live: Option<Live>) -> Vec<(u64, usize)> {
    let problem = problem(vec![prefers(cpu); 2], &[], gpus(1));
    let plan = in_file_order(&problem);
    let mut sim = Sim::new(&problem, &plan, vec![10_000; 2]);
    sim.readings.devices.splice(.., live.or(Some(Live::Unwatched)));
    sim.run();
    let mode = |task: TaskId| sim.state.task(task).attempts[0].place.mode;
    [TaskId(0), TaskId(1)].map(|task| (sim.starts[&task].0, mode(task))).to_vec()
}

#[test]
fn who_prefers_a_gpu_that_our_own_tasks_have_takes_the_cpu_where_it_is_done_sooner_there() {
    // With the GPU it would be done after twenty seconds.
    assert_eq!(two(Some(19_000), None), [(1_000, 0), (1_000, 1)]);
    assert_eq!(two(Some(20_000), None), [(1_000, 0), (11_000, 0)]);
    for unknown in [None, Some(10_000)] {
        assert_eq!(
            two(unknown, None),
            [(1_000, 0), (11_000, 0)],
            "{unknown:?}: nobody has seen how long it takes there"
        );
    }
}

#[test]
fn who_prefers_a_gpu_that_has_fallen_out_takes_the_cpu_at_once() {
    let fault = Live::Fault { fault: "lost".to_owned(), ends_tasks: true, until: "" };
    for cpu in [None, Some(500_000)] {
        assert_eq!(two(cpu, Some(fault.clone())), [(1_000, 1), (1_000, 1)], "{cpu:?}");
    }
}

#[test]
fn who_prefers_a_gpu_that_others_keep_takes_the_cpu_after_a_while() {
    let (free, used) = (Bytes(6 << 30), Bytes(10 << 30));
    let kept = Live::Seen(Seen { free, used, held: Some(Vec::new()), ..Seen::default() });
    // So does a driver that has not answered since the run began; and who needs a GPU and waits for it before does not matter.
    for (live, is_read, others) in [(kept.clone(), true, 0), (kept, true, 1), (Live::Unread, false, 0)] {
        let mut modes = vec![vec![prefers(None).remove(0)]; others];
        modes.push(prefers(None));
        let problem = problem(modes, &[], gpus(1));
        let plan = in_file_order(&problem);
        let mut sim = Sim::new(&problem, &plan, vec![10_000; 1 + others]);
        sim.readings.devices[0] = live.clone();
        let mut at = |ms: u64| {
            let read = if is_read { Millis(ms) } else { Millis::ZERO };
            (sim.now, sim.readings.at) = (Millis(ms), read);
            sim.decide();
            sim.state.tasks[others].attempts.first().map(|attempt| attempt.place.mode)
        };
        for ms in (1_000..=31_000).step_by(1_000) {
            assert_eq!(at(ms), None, "{live:?} after {ms} ms");
        }
        assert_eq!(at(32_000), Some(1), "{live:?}");
    }
}

#[test]
fn who_waited_long_for_our_own_tasks_does_not_leave_a_gpu_that_is_being_given_back() {
    let problem = problem(vec![prefers(None); 2], &[], gpus(1));
    let plan = in_file_order(&problem);
    let mut sim = Sim::new(&problem, &plan, vec![60_000; 2]);
    let used = |used: u64, held: Vec<(TaskId, Bytes)>| {
        Live::Seen(Seen {
            free: Bytes((16 - used) << 30),
            used: Bytes(used << 30),
            held: Some(held),
            ..Seen::default()
        })
    };
    let at = |sim: &mut Sim<'_>, ms: u64, live: Live| {
        (sim.now, sim.readings.at, sim.readings.devices[0]) = (Millis(ms), Millis(ms), live);
        sim.decide();
        sim.starts.len()
    };
    assert_eq!(at(&mut sim, 1_000, used(0, Vec::new())), 1);
    for ms in (2_000..61_000).step_by(1_000) {
        assert_eq!(at(&mut sim, ms, used(10, vec![(TaskId(0), Bytes(10 << 30))])), 1);
    }
    let (task, role, usage) = (TaskId(0), Role::Main, Usage::default());
    sim.now = Millis(61_000);
    sim.happens(Event::AttemptFinished { task, role, outcome: Outcome::Succeeded, usage, logged: false });
    assert_eq!(at(&mut sim, 61_000, used(10, Vec::new())), 1, "it is not given back yet");
    assert_eq!(at(&mut sim, 62_000, used(10, Vec::new())), 1, "it is not given back yet");
    for ms in (63_000..70_000).step_by(1_000) {
        at(&mut sim, ms, used(0, Vec::new()));
    }
    assert_eq!(sim.state.task(TaskId(1)).attempts[0].place.mode, 0);
}

#[test]
fn who_took_the_cpu_instead_stays_there_when_it_is_tried_again() {
    let problem = problem(vec![prefers(Some(19_000)); 2], &[], gpus(1));
    let plan = in_file_order(&problem);
    let mut sim = Sim::new(&problem, &plan, vec![10_000; 2]);
    sim.decide();
    let Problem { pipeline, graph, fleet } = &problem;
    let ledger = Ledger::new(fleet);
    // Whoever takes the run up knows in which mode it goes on.
    let other = Dispatcher::new((pipeline, graph), (fleet, &plan), ledger, Options::default(), Vec::new(), &sim.state);
    for dispatcher in [&sim.dispatcher, &other] {
        assert_eq!([TaskId(0), TaskId(1)].map(|task| dispatcher.stage_and_mode(task).1), [0, 1]);
        let request = |task| dispatcher.queues.of(TaskId(task)).request();
        assert_eq!((request(0).gpus, request(1).gpus), (Gpus::Whole(1), Gpus::None));
    }
}
