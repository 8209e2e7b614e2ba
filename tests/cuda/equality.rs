//! What comes back from a device is what the CPU computes.

use trainyard::cuda::Device;
use trainyard::graph::TaskGraph;
use trainyard::timing::choice::Way;
use trainyard::timing::device::{DeviceGraph, DeviceLoads, OffDevice};
use trainyard::timing::sample::{any, durations, edge_shapes, graph_of, layered};
use trainyard::timing::{Timing, loads};
use trainyard::units::{Millis, Speed};

pub(crate) fn device() -> Device {
    emulated_cuda::load();
    Device::open(0).expect("the emulated device")
}

/// Asserts that a way equals the CPU; returns whether it could be taken.
fn assert_equal(device: &Device, way: Way, name: &str, graph: &TaskGraph, seed: u64) -> bool {
    let mut on_device = match DeviceGraph::new(device, graph, way) {
        Err(OffDevice::TooWide) => return false,
        made => made.expect("a graph on the device"),
    };
    // Twice, so that what one run leaves behind does not change the next.
    for seed in [seed, seed + 1] {
        let duration = durations(graph.len(), seed);
        let (got, slack) = on_device.timing_and_slack(duration.clone()).expect("times");
        assert_eq!(got, Timing::new(graph, duration), "{way:?}: {name}");
        assert_eq!(slack, graph.ids().map(|task| got.slack(task)).collect::<Vec<_>>(), "{way:?}: {name}");
    }
    true
}

#[test]
fn every_way_equals_the_cpu_on_every_edge_shape() {
    let device = device();
    for (name, graph) in edge_shapes() {
        assert!(assert_equal(&device, Way::Levels, &name, &graph, 5));
        assert!(assert_equal(&device, Way::Dataflow, &name, &graph, 5));
        assert_equal(&device, Way::Transfer, &name, &graph, 5);
    }
}

#[test]
fn every_way_equals_the_cpu_on_random_graphs() {
    let device = device();
    let mut in_chunks = 0;
    for seed in 0..60 {
        let graph = any(1 + seed as usize * 7, seed as usize * 13, seed);
        let name = format!("random graph {seed}");
        assert!(assert_equal(&device, Way::Levels, &name, &graph, seed));
        assert!(assert_equal(&device, Way::Dataflow, &name, &graph, seed));
        in_chunks += u32::from(assert_equal(&device, Way::Transfer, &name, &graph, seed));
    }
    assert!(in_chunks >= 5, "only {in_chunks} graphs could be cut into chunks");
    for (levels, width) in [(300, 1), (120, 5), (64, 24)] {
        assert!(assert_equal(&device, Way::Transfer, "deep and narrow", &layered(levels, width, 3), 3));
    }
}

#[test]
fn a_graph_without_tasks_takes_no_time() {
    let device = device();
    for way in [Way::Levels, Way::Dataflow] {
        let mut none = DeviceGraph::new(&device, &graph_of(0, &[]), way).unwrap();
        assert_eq!(none.timing(Vec::new()).unwrap(), Timing::default());
    }
}

#[test]
fn durations_that_do_not_fit_are_refused_and_those_that_just_do_are_exact() {
    let device = device();
    let graph = graph_of(3, &[(0, 1), (1, 2)]);
    for way in Way::ALL {
        let mut on_device = DeviceGraph::new(&device, &graph, way).unwrap();
        let most = vec![Millis((1 << 31) - 3), Millis(1), Millis(1)];
        assert_eq!(on_device.timing(most.clone()).unwrap(), Timing::new(&graph, most));
        assert_eq!(on_device.timing(vec![Millis(1 << 31), Millis(1), Millis(1)]), Err(OffDevice::TooLong));
        // After a refusal it goes on.
        let few = vec![Millis(1), Millis(2), Millis(3)];
        assert_eq!(on_device.timing(few.clone()).unwrap(), Timing::new(&graph, few));
    }
}

#[test]
fn the_load_matrix_and_the_fastest_devices_equal_the_cpu() {
    let device = device();
    let speeds: Vec<Speed> = [1_000_000, 2_999_999, 3_000_000, 3_000_001, 999_983].map(Speed).to_vec();
    for n in [0, 1, 3, 4, 31, 32, 33, 1_000] {
        let duration = durations(n, 9);
        let on_device = DeviceLoads::new(&device, &duration, &speeds).unwrap();
        assert_eq!(on_device.fastest().unwrap(), loads::fastest(&duration, &speeds), "{n} tasks");
        assert_eq!(on_device.matrix().unwrap(), loads::matrix(&duration, &speeds), "{n} tasks");
    }
}

#[test]
fn a_speed_at_which_times_do_not_fit_is_refused() {
    let device = device();
    let slow = Speed(1);
    let refused = DeviceLoads::new(&device, &[Millis(1 << 30)], &[slow]).err();
    assert_eq!(refused, Some(OffDevice::Speed(slow)));
}
