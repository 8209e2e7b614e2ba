//! Weights of classes, what the bound passes over, and what choices waste.

use proptest::prelude::*;

use super::super::fixture::{Problem, add_node, on_gpus, problem};
use super::super::instance::Choice;
use super::*;
use crate::fleet::Fleet;
use crate::spec::{Gpus, Mode};
use crate::units::{Cpus, Share};

#[test]
fn a_choice_wastes_what_another_class_of_devices_would_not_need() {
    // Eight tasks that are four times slower on B, and eight that do not care.
    let times = |b: u64| {
        let mut mode = on_gpus(Gpus::Whole(1), 0, 10);
        mode.duration.by_model = [("A".into(), Millis(10)), ("B".into(), Millis(b))].into();
        vec![mode]
    };
    let modes = (0..16).map(|task| times(if task < 8 { 40 } else { 10 })).collect();
    let mut fleet = Fleet::default();
    add_node(&mut fleet, 64, 64, &[("A", 8, 1_000), ("B", 8, 1_000)]);
    let problem = problem(modes, &[], fleet);
    let instance = Instance::new(&problem.pipeline, &problem.graph, &problem.fleet).unwrap();
    let waste = waste(&instance);
    let on = |task: usize, model: &str| {
        let kind = instance.kind[task] as usize;
        let of_model = |choice: &Choice| {
            let device = instance.groups[choice.group as usize].members[0].1[0];
            problem.fleet.devices[device.index()].model == model
        };
        let first: usize = instance.kinds[..kind].iter().map(|kind| kind.choices.len()).sum();
        let devices = instance.kinds[kind].choices.iter().zip(&waste[first..]);
        devices.filter(|(choice, _)| of_model(choice)).map(|(_, waste)| *waste).min()
    };
    assert_eq!(on(0, "A"), Some(0));
    assert!(on(0, "B") > Some(0), "{waste:?}");
}

/// Tasks that take `times` on A, which holds them all, and twice to four times as long on B.
fn on_two_classes(times: &[u64]) -> Problem {
    let mode = |(task, time): (usize, &u64)| {
        let mut mode = on_gpus(Gpus::Whole(1), 0, *time);
        let slow = Millis(time * (2 + task as u64 % 3));
        mode.duration.by_model = [("A".into(), Millis(*time)), ("B".into(), slow)].into();
        vec![mode]
    };
    let mut fleet = Fleet::default();
    add_node(&mut fleet, 64, 64, &[("A", 3, 1_000), ("B", 5, 1_000)]);
    problem(times.iter().enumerate().map(mode).collect(), &[], fleet)
}

#[test]
fn tasks_of_which_few_fit_side_by_side_fill_what_they_leave_empty() {
    let bound = |n: usize, mode: Mode| {
        let mut fleet = Fleet::default();
        add_node(&mut fleet, 8, 64, &[("A", 80, 1_000), ("A", 80, 1_000)]);
        let problem = problem(vec![vec![mode]; n], &[], fleet);
        let instance = Instance::new(&problem.pipeline, &problem.graph, &problem.fleet).unwrap();
        lower_bound(&instance, &Timing::new(&problem.graph, instance.shortest())).time.0
    };
    let shared = |share: u32, gib: u64| on_gpus(Gpus::Share(Share(share)), gib, 10);
    // One of two GPUs at a time, two of each, and two by their parts of the compute.
    assert_eq!(bound(9, shared(1, 41)), 50);
    assert_eq!(bound(9, shared(1, 30)), 30);
    assert_eq!(bound(9, shared(400_000, 1)), 30);
    // One beside another finds too few CPUs.
    let mut large = shared(1, 1);
    large.resources.cpus = Cpus(5_000);
    assert_eq!(bound(9, large), 90);
}

proptest! {
    #[test]
    fn of_two_classes_no_weights_give_a_higher_bound(times in prop::collection::vec(1_u64..1_000, 1..40)) {
        let problem = on_two_classes(&times);
        let instance = Instance::new(&problem.pipeline, &problem.graph, &problem.fleet).unwrap();
        for area in areas(&instance).iter().filter(|area| area.weights.len() == 2) {
            let with = |weights: [u32; 2]| {
                let least: Vec<_> = area.axis.kinds().map(|ways| Axis::least(ways, &weights)).collect();
                let sum: u128 = instance.kind.iter().map(|kind| least[*kind as usize]).sum();
                to_f64(sum) / f64::from(weights[0] + weights[1])
            };
            let best = (0..=64_u32).map(|part| with([part * 64, (64 - part) * 64])).fold(0.0, f64::max);
            prop_assert!(with([area.weights[0], area.weights[1]]) >= best * 0.998, "{:?}", area.weights);
        }
    }

    #[test]
    fn what_is_passed_over_could_not_raise_the_bound(times in prop::collection::vec(1_u64..1_000, 1..40)) {
        let problem = on_two_classes(&times);
        let instance = Instance::new(&problem.pipeline, &problem.graph, &problem.fleet).unwrap();
        let timing = Timing::new(&problem.graph, instance.shortest());
        let ends = Ends::new(&instance, &timing, None);
        let each = areas(&instance).iter().filter_map(|area| area.beyond(Millis::ZERO, &instance, &ends));
        let most = each.map(|bound| bound.time).max().unwrap_or(Millis::ZERO).max(timing.makespan);
        prop_assert_eq!(with_turns(&instance, &timing).time, most);
    }
}

#[test]
fn without_a_choice_nothing_is_wasted() {
    let mut fleet = Fleet::default();
    add_node(&mut fleet, 64, 64, &[("A", 8, 1_000)]);
    let problem = problem(vec![vec![on_gpus(Gpus::Whole(1), 0, 10)]], &[], fleet);
    let instance = Instance::new(&problem.pipeline, &problem.graph, &problem.fleet).unwrap();
    assert!(waste(&instance).is_empty());
}
