//! Tasks that a device does not let in, which lets in one process at a time.

use super::*;
use crate::units::Bytes;

/// Lets a task be turned away by its device until it has failed; returns how it ended each time.
fn until_it_fails(one_process: bool, peak: Option<Bytes>) -> Vec<Outcome> {
    let mut fleet = gpus(1);
    fleet.devices[0].one_process = one_process;
    let problem = problem(vec![vec![on_gpus(Gpus::Whole(1), 0, 1_000)]], &[], fleet);
    let plan = in_file_order(&problem);
    let mut sim = Sim::new(&problem, &plan, vec![1_000]);
    let mut outcomes = Vec::new();
    while sim.state.task(TaskId(0)).phase != Phase::Failed {
        sim.decide();
        sim.now += Millis(3_600_000);
        let of = sim.state.task(TaskId(0));
        let Some((_, attempt)) = of.open().next() else { continue };
        let said = Outcome::Exited { code: 1 };
        let outcome = sim.dispatcher.explain_turned_away(said, of, &attempt.place, peak);
        outcomes.push(outcome.clone());
        let (task, role, usage) = (TaskId(0), Role::Main, Usage::default());
        sim.happens(Event::AttemptFinished { task, role, outcome, usage, logged: true });
    }
    outcomes
}

#[test]
fn who_is_turned_away_by_a_device_for_one_process_is_tried_again_so_often() {
    let tried_again = |one_process, peak| {
        let outcomes = until_it_fails(one_process, peak);
        let (last, before) = outcomes.split_last().expect("it was tried");
        assert_eq!(*last, Outcome::Exited { code: 1 }, "at last it is its own failure");
        let cause = Cause::Occupied;
        let displaced = Outcome::Displaced { device: "n0/gpu0".to_owned(), cause };
        assert!(before.iter().all(|outcome| *outcome == displaced), "{before:?}");
        before.len()
    };
    assert_eq!(tried_again(true, None), 16, "others may come first again and again");
    assert_eq!(tried_again(true, Some(Bytes(0))), 16);
    assert_eq!(tried_again(true, Some(Bytes(1))), 3, "it was let in itself");
    assert_eq!(tried_again(false, None), 0, "others are no reason");
}
