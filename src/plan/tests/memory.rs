//! What plans make of memory: that of shares, that which others hold, and too little of it for a stage that prefers a GPU.

use proptest::prelude::*;

use super::super::fixture::{add_node, any_problem, on_gpus, on_host, problem};
use super::super::*;
use super::{every_policy, makespan, one_node, planned};
use crate::spec::{Gpus, Mode};
use crate::units::{Bytes, Cpus, Share};

#[test]
fn a_share_without_a_word_about_memory_holds_as_large_a_part_of_it() {
    let half = || vec![on_gpus(Gpus::Share(Share(500_000)), 0, 10)];
    let beside = |gib, devices: &[(&str, u64, u64)]| {
        let problem = problem(vec![half(), vec![on_gpus(Gpus::Shared, gib, 10)]], &[], one_node(8, devices));
        let first = makespan(&problem);
        for policy in every_policy() {
            assert!(planned(&problem, policy).unwrap().makespan >= first, "{policy}");
        }
        first
    };
    assert_eq!(beside(12, &[("A", 24, 1_000)]), Millis(10));
    assert_eq!(beside(13, &[("A", 24, 1_000)]), Millis(20));
    // Of devices that are equally fast the larger one has more of both.
    assert_eq!(beside(13, &[("A", 24, 1_000), ("A", 12, 1_000)]), Millis(10));
    assert_eq!(beside(20, &[("A", 40, 1_000)]), Millis(10));
    // What is in use or kept as headroom is no part of what both have.
    let mut problem = problem(vec![half(); 2], &[], one_node(8, &[("A", 24, 1_000)]));
    problem.fleet.devices[0].headroom = Bytes::GIB;
    assert_eq!(makespan(&problem), Millis(10));
    problem.fleet.devices[0].free = Some(Bytes(20 << 30));
    assert_eq!(makespan(&problem), Millis(20));
    problem.fleet.devices[0].free = Some(Bytes(4 << 30));
    assert_eq!(makespan(&problem), Millis(20));
}

#[test]
fn a_plan_that_overfills_a_device_with_shares_is_found_out() {
    let modes = vec![vec![on_gpus(Gpus::Share(Share(500_000)), 0, 10)], vec![on_gpus(Gpus::Shared, 20, 10)]];
    let problem = problem(modes, &[], one_node(8, &[("A", 24, 1_000)]));
    let mut plan = planned(&problem, Policy::Auto).unwrap();
    assert_eq!(plan.makespan, Millis(20));
    plan.placed.iter_mut().for_each(|placed| (placed.start, placed.finish) = (Millis(0), Millis(10)));
    (plan.makespan, plan.lower_bound) = (Millis(10), Millis(10));
    let found = check(&problem.pipeline, &problem.graph, &problem.fleet, &plan).unwrap_err();
    assert!(matches!(&found[..], [Violation::Capacity { what, .. }] if what == "bytes"), "{found:?}");
}

#[test]
fn a_stage_that_prefers_a_gpu_takes_the_cpu_only_where_no_gpu_could_ever_hold_it() {
    let fallback = Mode { fallback: true, ..on_host(1, 1) };
    let modes = vec![vec![on_gpus(Gpus::Shared, 40, 50), fallback]];
    let mode_on = |fleet: Fleet| planned(&problem(modes.clone(), &[], fleet), Policy::Auto).unwrap().placed[0].mode;
    assert_eq!(mode_on(one_node(8, &[])), 1);
    assert_eq!(mode_on(one_node(8, &[("small", 24, 1_000)])), 1);
    assert_eq!(mode_on(one_node(8, &[("large", 80, 1_000)])), 0);
    let mut held_by_others = one_node(8, &[("large", 80, 1_000)]);
    held_by_others.devices[0].free = Some(Bytes::GIB);
    assert_eq!(mode_on(held_by_others), 0);
}

#[test]
fn a_stage_that_prefers_a_gpu_takes_the_cpu_where_no_node_has_a_gpu_and_all_else_that_it_asks_for() {
    let mut gpu = on_gpus(Gpus::Shared, 20, 10);
    gpu.resources.cpus = Cpus(2_000);
    let fallback = Mode { fallback: true, ..on_host(2, 10) };
    let planned_on = |cpus: u64, gib: u64| {
        let mut fleet = one_node(2, &[]);
        add_node(&mut fleet, cpus, 64, &[("A", gib, 1_000)]);
        let plan = planned(&problem(vec![vec![gpu.clone(), fallback.clone()]], &[], fleet), Policy::Auto).unwrap();
        (plan.placed[0].mode, plan.placed[0].node)
    };
    assert_eq!(planned_on(1, 10), (1, NodeId(0)));
    assert_eq!(planned_on(1, 24), (1, NodeId(0)), "a larger GPU beside too few CPUs changes nothing");
    assert_eq!(planned_on(2, 24), (0, NodeId(1)));
}

#[test]
fn a_stage_that_must_wait_for_others_to_leave_a_device_is_planned_alone_on_it() {
    let modes = vec![vec![on_gpus(Gpus::Shared, 40, 10)], vec![on_gpus(Gpus::Shared, 1, 10)]];
    let mut problem = problem(modes, &[], one_node(8, &[("large", 80, 1_000)]));
    problem.fleet.devices[0].free = Some(Bytes(2 << 30));
    assert_eq!(makespan(&problem), Millis(20));
}

#[test]
fn who_wants_all_of_a_device_is_planned_where_nobody_else_is_or_must_wait() {
    let mut fleet = one_node(8, &[("large", 80, 1_000), ("large", 80, 1_000)]);
    fleet.devices[0].free = Some(Bytes(60 << 30));
    let two = vec![vec![on_gpus(Gpus::Whole(1), 0, 10)]; 2];
    let (plan, devices) =
        (planned(&problem(two, &[], fleet.clone()), Policy::Auto).unwrap(), |at: &Placed| at.devices.clone());
    assert!(plan.placed.iter().map(devices).all(|on| on == [DeviceId(1)]));
    // With a word about memory it shares what is left.
    let beside = vec![vec![on_gpus(Gpus::Whole(1), 50, 10)]; 2];
    assert_eq!(makespan(&problem(beside, &[], fleet.clone())), Millis(10));
    let both = vec![vec![on_gpus(Gpus::Whole(2), 0, 10)]];
    assert_eq!(
        planned(&problem(both, &[], fleet), Policy::Auto).unwrap().placed[0].devices,
        [DeviceId(0), DeviceId(1)]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn more_memory_never_makes_a_feasible_problem_infeasible(
        mut problem in any_problem(4, 5),
        (of_devices, of_nodes) in (0_u64..9, 0_u64..2),
    ) {
        let before = planned(&problem, Policy::Auto).is_ok();
        problem.fleet.devices.iter_mut().for_each(|device| device.memory += Bytes(of_devices << 30));
        problem.fleet.nodes.iter_mut().for_each(|node| node.memory += Bytes(of_nodes << 30));
        prop_assert!(!before || planned(&problem, Policy::Auto).is_ok());
    }
}
