//! Where two attempts of a task run side by side, each counts for what it does itself, whichever began last.

use super::{Sim, declared, gpus, in_file_order, one_each};
use crate::graph::TaskId;
use crate::plan::fixture::on_gpus;
use crate::run::admission::{Live, Seen};
use crate::run::event::{Event, Place, Role};
use crate::run::outcome::{Outcome, Usage};
use crate::run::peak::Peaks;
use crate::spec::Gpus;
use crate::units::{Bytes, Millis};

/// Has a second attempt of the first task begin now, on the other device.
fn begin_another(sim: &mut Sim<'_>) {
    let main = sim.state.task(TaskId(0)).open_as(Role::Main).unwrap().place.clone();
    let devices = vec![if main.devices[0].ends_with("gpu0") { "n0/gpu1" } else { "n0/gpu0" }.to_owned()];
    let place = Place { role: Role::Backup, devices, ..Place::clone(&main) };
    sim.happens(Event::AttemptStarted { task: TaskId(0), number: 2, place });
}

fn ended(role: Role, outcome: Outcome) -> Event {
    Event::AttemptFinished { task: TaskId(0), role, outcome, usage: Usage::default(), logged: false }
}

#[test]
fn what_runs_as_planned_does_so_beside_another_one() {
    let modes = [on_gpus(Gpus::Whole(1), 0, 10_000)];
    let problem = one_each(&modes, gpus(2));
    let plan = in_file_order(&problem);
    let mut sim = Sim::new(&problem, &plan, declared(&modes));
    sim.decide();
    sim.now = Millis(5_000);
    begin_another(&mut sim);
    let left = Millis(5_000);
    assert_eq!(sim.dispatcher.differs(TaskId(0), &sim.state, Millis(6_000), left), 0);
}

#[test]
fn who_came_last_to_a_device_leaves_it_whenever_another_attempt_began_elsewhere() {
    let modes = [on_gpus(Gpus::Shared, 6, 60_000), on_gpus(Gpus::Shared, 6, 60_000)];
    let problem = one_each(&modes, gpus(2));
    let mut plan = in_file_order(&problem);
    plan.placed[1].devices = plan.placed[0].devices.clone();
    let mut sim = Sim::new(&problem, &plan, declared(&modes));
    sim.dispatcher.options.jobs = Some(1);
    sim.decide();
    sim.dispatcher.options.jobs = None;
    sim.now = Millis(3_000);
    sim.decide();
    let place = |task| sim.state.task(TaskId(task)).open_as(Role::Main).unwrap().place.devices.clone();
    assert_eq!(place(0), place(1));
    let shared = usize::from(place(0)[0].ends_with("gpu1"));
    sim.now = Millis(5_000);
    begin_another(&mut sim);
    let taken = Seen { free: Bytes(8 << 30), used: Bytes(8 << 30), held: Some(Vec::new()), ..Seen::default() };
    sim.readings.devices[shared] = Live::Seen(taken);
    let mut leaving = Vec::new();
    for at in (6_000..30_000).step_by(1_000) {
        sim.readings.at = Millis(at);
        leaving = sim.dispatcher.displaced(&sim.state, &sim.readings, &Peaks::default());
        if !leaving.is_empty() {
            break;
        }
    }
    assert_eq!(leaving.iter().map(|(task, role, _)| (*task, *role)).collect::<Vec<_>>(), [(TaskId(1), Role::Main)]);
}

#[test]
fn a_device_is_looked_at_before_the_raise_of_whom_another_attempt_was_beside() {
    let modes = [on_gpus(Gpus::Shared, 6, 60_000)];
    let problem = one_each(&modes, gpus(2));
    let plan = in_file_order(&problem);
    let mut sim = Sim::new(&problem, &plan, declared(&modes));
    sim.decide();
    let device = sim.state.task(TaskId(0)).open_as(Role::Main).unwrap().place.devices[0].clone();
    sim.now = Millis(3_000);
    begin_another(&mut sim);
    sim.happens(ended(Role::Backup, Outcome::Exited { code: 1 }));
    sim.now = Millis(5_000);
    sim.happens(ended(Role::Main, Outcome::OutOfMemory { device: Some(device) }));
    let idle = Seen { free: Bytes(16 << 30), held: Some(Vec::new()), ..Seen::default() };
    sim.readings.devices.fill(Live::Seen(idle));
    sim.readings.at = Millis(4_000);
    assert!(sim.dispatcher.is_to_be_looked_at(TaskId(0), &sim.state, sim.now, &sim.readings));
}
