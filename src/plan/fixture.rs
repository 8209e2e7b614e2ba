//! Problems for tests: written by hand, or drawn at random. Knows nothing of pipeline files.

use proptest::prelude::*;

use crate::fleet::{Device, Fleet, Link, Node, NodeId};
use crate::graph::TaskGraph;
use crate::spec::{Duration, Gpus, Mode, Pipeline, Resources, Stage};
use crate::timing::fixture::{graph_of, graph_with_data, random_edges};
use crate::units::{Bandwidth, Bytes, Cpus, Millis, Share, Speed};

/// A pipeline with its graph and the fleet it is to run on.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(crate) pipeline: Pipeline,
    pub(crate) graph: TaskGraph,
    pub(crate) fleet: Fleet,
}

/// Makes a node with devices, each given by model, memory in GiB and speed in thousandths.
pub(crate) fn add_node(fleet: &mut Fleet, cpus: u64, gib: u64, devices: &[(&str, u64, u64)]) {
    let number = fleet.nodes.len();
    let name = format!("n{number}");
    for (index, (model, gib, speed)) in devices.iter().enumerate() {
        fleet.devices.push(Device {
            id: format!("{name}/gpu{index}"),
            node: NodeId(number as u32),
            model: (*model).to_owned(),
            memory: Bytes(gib << 30),
            speed: Speed(speed * 1_000),
            ..Device::default()
        });
    }
    fleet.nodes.push(Node { name, cpus: Cpus(cpus * 1_000), memory: Bytes(gib << 30), ..Node::default() });
}

/// Makes a mode that holds `cpus` whole CPUs for `ms`.
pub(crate) fn on_host(cpus: u64, ms: u64) -> Mode {
    let resources = Resources { cpus: Cpus(cpus * 1_000), ..Resources::default() };
    Mode { resources, duration: Duration { base: Some(Millis(ms)), ..Duration::default() }, ..Mode::default() }
}

/// Makes a mode that holds devices, with `gib` of each, and no CPU for `ms`.
pub(crate) fn on_gpus(gpus: Gpus, gib: u64, ms: u64) -> Mode {
    let mut mode = on_host(0, ms);
    (mode.resources.gpus, mode.resources.gpu_memory) = (gpus, Bytes(gib << 30));
    mode
}

/// Makes a problem of stages with these modes, a task each.
pub(crate) fn problem(modes: Vec<Vec<Mode>>, edges: &[(u32, u32)], fleet: Fleet) -> Problem {
    let graph = graph_of(modes.len(), edges);
    let stage = |(index, modes)| Stage { name: format!("t{index}"), modes, ..Stage::default() };
    let stages = modes.into_iter().enumerate().map(stage).collect();
    Problem { pipeline: Pipeline { name: "p".to_owned(), stages, ..Pipeline::default() }, graph, fleet }
}

fn any_mode(longest: u64) -> impl Strategy<Value = Mode> {
    let gpus = prop_oneof![
        3 => Just(Gpus::None),
        2 => (1_u32..3).prop_map(Gpus::Whole),
        2 => Just(Gpus::Shared),
        1 => prop_oneof![Just(333_333), Just(500_000)].prop_map(|share| Gpus::Share(Share(share))),
    ];
    (gpus, 0_u64..3, 0_u64..5, 1_u64..12, 0..=longest, 0_u64..2).prop_map(|(gpus, cpus, gib, device_gib, ms, tools)| {
        let mut mode = if gpus == Gpus::None { on_host(cpus, ms) } else { on_gpus(gpus, device_gib, ms) };
        mode.resources.memory = Bytes(gib << 30);
        if tools > 0 {
            mode.resources.custom.insert("tools".to_owned(), tools);
        }
        mode
    })
}

/// Draws a mode, and what is taken in its place where no GPU could hold it, if it only prefers one.
fn any_modes(longest: u64) -> impl Strategy<Value = Vec<Mode>> {
    (any_mode(longest), 0_u64..3).prop_map(|(mode, prefers)| {
        let mut fallback = Mode { fallback: true, ..mode.clone() };
        (fallback.resources.gpus, fallback.resources.gpu_memory) = (Gpus::None, Bytes::ZERO);
        let has_gpu = mode.resources.gpus != Gpus::None;
        [mode].into_iter().chain((has_gpu && prefers == 0).then_some(fallback)).collect()
    })
}

fn any_fleet() -> impl Strategy<Value = Fleet> {
    let device = prop_oneof![Just(("A", 16, 1_000)), Just(("B", 8, 2_000)), Just(("C", 12, 1_500))];
    let node = (2_u64..4, 3_u64..6, prop::collection::vec(device, 0..4));
    let bandwidth = prop::option::of(Just(Bandwidth(1 << 30)));
    (prop::collection::vec(node, 1..3), bandwidth).prop_map(|(nodes, bandwidth)| {
        let mut fleet = Fleet { name: "f".to_owned(), ..Fleet::default() };
        for (cpus, gib, devices) in nodes {
            add_node(&mut fleet, cpus, gib, &devices);
        }
        for node in &mut fleet.nodes {
            node.resources.insert("tools".to_owned(), 1);
        }
        if let (Some(bandwidth), 2) = (bandwidth, fleet.nodes.len()) {
            fleet.links.push(Link { between: (NodeId(0), NodeId(1)), bandwidth });
        }
        fleet
    })
}

/// Draws problems of up to `most` tasks of up to two modes, which may only prefer a GPU, and `longest` milliseconds; some fit nowhere.
pub(crate) fn any_problem(most: usize, longest: u64) -> impl Strategy<Value = Problem> {
    let of_task = prop::collection::vec(any_modes(longest), 1..3).prop_map(|modes| modes.concat());
    let modes = prop::collection::vec(of_task, most);
    (random_edges(most), modes, any_fleet()).prop_map(|((n, edges), mut modes, fleet)| {
        modes.truncate(n);
        let mut problem = problem(modes, &edges, fleet);
        // A gibibyte takes a second over the link: one byte in a thousand, about a millisecond.
        let data = |index: usize| Bytes(if index.is_multiple_of(2) { 2 << 20 } else { 0 });
        let edges: Vec<_> = edges.iter().enumerate().map(|(i, (a, b))| (*a, *b, data(i))).collect();
        problem.graph = graph_with_data(n, &edges);
        problem
    })
}
