//! Many distinct requests: each counts as it would if it were asked for, though few are.

use proptest::prelude::*;

use super::{Sim, declared, gpus, host, in_file_order, one_each};
use crate::plan::fixture::{on_gpus, on_host};
use crate::run::admission::Holding;
use crate::run::decide::Reason;
use crate::run::event::Event;
use crate::run::supervisor::News;
use crate::spec::{Gpus, Mode};
use crate::units::{Bytes, Millis};

/// What all that wait are told, and in which order and where all start.
fn carried_out(sim: &mut Sim<'_>) -> (Vec<String>, Vec<Event>) {
    let (mut told, mut events) = (Vec::new(), Vec::new());
    loop {
        let decided = sim.dispatcher.decide(&sim.state, sim.now, &sim.readings);
        events.extend(decided.iter().filter(|event| matches!(event, Event::AttemptStarted { .. })).cloned());
        decided.into_iter().for_each(|event| sim.happens(event));
        told.push(format!("{:?}", sim.waiting()));
        if !sim.step() {
            return (told, events);
        }
    }
}

/// Another run that writes something: whose turn it is has to be looked at one by one then.
fn somebody_writes() -> News {
    let other = Holding { run: "r".to_owned(), writes: vec!["/elsewhere".to_owned()], ..Holding::default() };
    News { hold: Some(vec![other]), made: Vec::new() }
}

fn with_memory(mut mode: Mode, bytes: u64) -> Mode {
    mode.resources.memory = Bytes(bytes);
    mode
}

#[test]
fn as_many_requests_as_tasks_are_asked_for_a_few_times_each() {
    const TASKS: u64 = 300;
    let by_host = |i: u64| with_memory(on_host(1, 100 + 7 * (i % 10)), 1_000 + i * 7_919 % TASKS);
    let by_gpu = |i: u64| {
        let mut mode = with_memory(on_gpus(Gpus::Whole(1), 0, 100 + 7 * (i % 10)), 1_000 + i);
        mode.resources.gpu_memory = Bytes(1_000 + i);
        mode
    };
    for (modes, fleet) in [
        ((0..TASKS).map(by_host).collect::<Vec<_>>(), host(4)),
        ((0..TASKS).rev().map(by_host).collect(), host(4)),
        ((0..TASKS).map(by_gpu).collect(), gpus(2)),
    ] {
        let problem = one_each(&modes, fleet);
        let plan = in_file_order(&problem);
        let mut sim = Sim::new(&problem, &plan, declared(&modes));
        let before = sim.dispatcher.ledger.asked.get();
        sim.run();
        let asked = sim.dispatcher.ledger.asked.get() - before;
        assert!(asked < 20 * TASKS, "room was looked for {asked} times");
    }
}

#[test]
fn who_is_not_asked_is_told_what_it_waits_for_and_since_when() {
    let modes: Vec<Mode> = (0..50).map(|i| with_memory(on_host(1, 1_000), 1_000 + i)).collect();
    let problem = one_each(&modes, host(4));
    let plan = in_file_order(&problem);
    let mut sim = Sim::new(&problem, &plan, declared(&modes));
    sim.step();
    sim.decide();
    let waiting = sim.waiting();
    assert_eq!(waiting.iter().map(|waiting| waiting.count).sum::<usize>(), 42);
    for (i, waiting) in (8..).zip(waiting) {
        let Reason::Room { words, .. } = &waiting.reason else { panic!("{waiting:?}") };
        assert!(words.starts_with("needs 1 CPU") && words.contains(&Bytes(1_000 + i).to_string()), "{words}");
        assert_eq!(waiting.since, Millis(1_000));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Starts, places, promises and what is told are the same where each one is asked for.
    #[test]
    fn who_is_not_asked_would_have_been_refused(
        tasks in prop::collection::vec((0_u32..6, 1_u64..4, 1_u64..16, 0_u64..4, 1_u64..40), 1..40),
    ) {
        let mode = |(kind, cpus, gib, memory, ms): &(u32, u64, u64, u64, u64)| {
            let mut mode = match kind {
                0 | 1 => on_host(*cpus, ms * 100),
                2 => on_gpus(Gpus::Shared, *gib, ms * 100),
                3 => on_gpus(Gpus::Whole(1), gib / 4, ms * 100),
                gang => on_gpus(Gpus::Whole(gang - 2), gib / 2, ms * 100),
            };
            mode.resources.alone = gib % 3 == 0 && *kind > 2;
            mode.resources.memory = Bytes(memory << 34);
            mode.resources.cpus.0 += 1_000 * (cpus / 2);
            mode
        };
        let modes: Vec<Mode> = tasks.iter().map(mode).collect();
        let mut fleet = gpus(4);
        fleet.nodes[0].cpus.0 = 6_000;
        let problem = one_each(&modes, fleet);
        let plan = in_file_order(&problem);
        let (mut few, mut each) = [(); 2].map(|()| Sim::new(&problem, &plan, declared(&modes))).into();
        each.dispatcher.hear_of_others(&somebody_writes(), each.now);
        let (told, events) = carried_out(&mut few);
        let (told_each, events_each) = carried_out(&mut each);
        prop_assert_eq!(events, events_each);
        prop_assert_eq!(told, told_each);
        prop_assert_eq!(few.promises, each.promises);
        prop_assert!(few.state.tasks.iter().all(|task| task.phase.is_final()));
    }
}
