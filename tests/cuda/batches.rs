//! Batches on the device against this crate's own answers on the CPU.

use trainyard::batch::device::{DeviceTape, Judge, OffDevice};
use trainyard::batch::lists::{Lists, NEVER};
use trainyard::batch::orders::{Orders, Precedence};
use trainyard::batch::sgs::Project;
use trainyard::batch::tape::Tape;
use trainyard::batch::timing::{Choices, KINDS, Times, makespans};
use trainyard::graph::TaskGraph;
use trainyard::timing::sample::{Random, any, edge_shapes, graph_of, layered};

use super::equality::device;

/// The edge shapes and some random graphs.
fn graphs() -> Vec<(String, TaskGraph)> {
    let random = (0..12).map(|seed| (format!("random {seed}"), any(1 + seed as usize * 9, seed as usize * 20, seed)));
    edge_shapes().into_iter().chain(random).chain([("no task".to_owned(), graph_of(0, &[]))]).collect()
}

#[test]
fn the_longest_path_of_every_candidate_equals_the_cpu() {
    let device = device();
    for (seed, (name, graph)) in (0..).zip(graphs()) {
        let mut random = Random::new(seed);
        let n_kinds = 1 + random.index(KINDS);
        let times: Vec<u32> = (0..graph.len() * n_kinds).map(|_| random.below(1_000) as u32).collect();
        let tape = Tape::new(&graph).unwrap();
        let times = Times::new(&graph, &tape, &times, n_kinds).unwrap();
        let on_device = DeviceTape::new(&device, &tape, &times).unwrap();
        for n in [0, 1, 31, 32, 33, 130] {
            let chosen = (0..graph.len() * n).map(|_| random.index(n_kinds) as u8).collect();
            let choices = Choices::new(&times, n, chosen).unwrap();
            assert_eq!(on_device.makespans(&choices).unwrap(), makespans(&tape, &times, &choices), "{name}, {n}");
        }
    }
}

#[test]
fn list_schedules_equal_the_cpu_for_any_number_of_devices() {
    let device = device();
    let (mut never, mut done) = (0, 0);
    for (seed, (name, graph)) in (0..).zip(graphs()) {
        let mut random = Random::new(seed);
        for n_devices in [1, 2, 7, 8, 9, 16, 17, 32] {
            // Small numbers, so that many devices are equally good.
            let mut time = |_| if random.below(12) == 0 { NEVER } else { random.below(8) as u32 };
            let time: Vec<u32> = (0..graph.len() * n_devices).map(&mut time).collect();
            let memory = (0..graph.len()).map(|_| random.below(11) as u32).collect();
            let capacity = (0..n_devices).map(|_| 8 + random.below(20) as u32).collect();
            let lists = Lists::new(&graph, time, memory, capacity).unwrap();
            let orders = Orders::random(&graph, &lists.precedence, 9, seed);
            let on_device = Judge::of_lists(&device, &lists).unwrap();
            let wanted = lists.makespans(&orders);
            assert_eq!(on_device.makespans(&orders).unwrap(), wanted, "{name}, {n_devices} devices");
            never += wanted.iter().filter(|end| **end == NEVER).count();
            done += wanted.iter().filter(|end| **end != NEVER).count();
        }
    }
    assert!(never > 50 && done > 500, "{never} impossible, {done} possible");
}

#[test]
fn decoded_projects_equal_the_cpu() {
    let device = device();
    for (seed, (name, graph)) in (0..).zip(graphs()) {
        let mut random = Random::new(seed);
        // Longer than a warp looks at once, shorter, and nothing at all.
        let duration = (0..graph.len()).map(|_| random.below(3) as u32 * random.below(40) as u32).collect();
        let need: Vec<_> = (0..graph.len()).map(|_| [0; 4].map(|_: u32| random.below(6) as u32)).collect();
        let project = Project::new(&graph, duration, &need, [5, 7, 9, 32_767]).unwrap();
        let orders = Orders::random(&graph, &project.precedence, 7, seed);
        let on_device = Judge::of_project(&device, &project).unwrap();
        assert_eq!(on_device.makespans(&orders).unwrap(), project.makespans(&orders), "{name}");
    }
}

#[test]
fn what_needs_more_shared_memory_than_a_block_has_is_refused_and_what_needs_much_is_given_it() {
    let device = device();
    let graph = graph_of(1, &[]);
    let project = |ticks| Project::new(&graph, vec![ticks], &[[1; 4]], [1; 4]).unwrap();
    let order = Orders::new(&Precedence::new(&graph).unwrap(), vec![0]).unwrap();
    let much = project(20_000);
    assert_eq!(Judge::of_project(&device, &much).unwrap().makespans(&order).unwrap(), [20_000]);
    let refused = Judge::of_project(&device, &project(1 << 20)).unwrap_err();
    assert!(matches!(refused, OffDevice::TooLarge { .. }), "{refused}");
    // Finishes of a deep graph as well.
    let deep = layered(3_000, 2, 1);
    let lists = Lists::new(&deep, vec![1; 6_000], vec![1; 6_000], vec![9]).unwrap();
    let orders = Orders::random(&deep, &lists.precedence, 2, 1);
    let on_device = Judge::of_lists(&device, &lists).unwrap();
    assert_eq!(on_device.makespans(&orders).unwrap(), lists.makespans(&orders));
}
