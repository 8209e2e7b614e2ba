//! Every kernel against the CPU function that it must equal, on the shapes at which kernels break and on random problems.

use super::rows::Rows;
use crate::batch::device::{DeviceTape, Judge};
use crate::batch::lists::{Lists, NEVER};
use crate::batch::orders::Orders;
use crate::batch::search::{self, Effort, Method, Problem, on_cpu, on_device};
use crate::batch::sgs::Project;
use crate::batch::tape::Tape;
use crate::batch::timing::{Choices, KINDS, Times, makespans};
use crate::cuda::{Device, guarded};
use crate::graph::{TaskGraph, TaskId};
use crate::timing::choice::Way;
use crate::timing::device::{DeviceGraph, DeviceLoads, OffDevice};
use crate::timing::sample::{Random, any, durations, edge_shapes, layered};
use crate::timing::{Timing, loads};
use crate::units::Speed;

/// Whether a kernel was tried, and what it should have said.
type Compared = Result<bool, String>;

/// Compares one kernel with the CPU on a graph, with numbers from a seed.
type Compare<'a> = &'a dyn Fn(&TaskGraph, u64, &Device) -> Compared;

pub(super) fn check(rows: &mut Rows, device: &Device, n_graphs: u64) {
    let way = |way: Way| move |graph: &TaskGraph, seed: u64, device: &Device| timing(device, graph, way, seed);
    let checks: [(&str, Compare<'_>); 8] = [
        ("longest_levels and slack", &way(Way::Levels)),
        ("longest_dataflow and slack", &way(Way::Dataflow)),
        ("transfer_* and slack", &way(Way::Transfer)),
        ("load_matrix and fastest_device", &|graph, seed, device| load_matrix(device, graph.len(), seed)),
        ("batch_timing", &|graph, seed, device| batch(device, graph, seed)),
        ("list_schedule", &|graph, seed, device| lists(device, graph, seed)),
        ("sgs", &|graph, seed, device| project(device, graph, seed)),
        ("search, by every method", &|graph, seed, device| searches(device, graph, seed)),
    ];
    for (what, compare) in checks {
        let shapes = edge_shapes().into_iter();
        let random = (0..n_graphs).map(|seed| (format!("random graph {seed}"), random_graph(seed)));
        let (mut equal, mut wrong) = (0_u64, None);
        for (seed, (name, graph)) in (0..).zip(shapes.chain(random)) {
            match compare(&graph, seed, device) {
                Ok(tried) => equal += u64::from(tried),
                Err(why) => {
                    wrong = Some(format!("{name}: {why}"));
                    break;
                }
            }
        }
        match wrong {
            None => rows.passed("equality", what, &format!("equal to the CPU on {equal} graphs")),
            Some(why) => rows.fail("equality", what, &why),
        }
    }
}

/// Half of them are of any shape, half deep and narrow.
fn random_graph(seed: u64) -> TaskGraph {
    let mut random = Random::new(seed);
    if seed.is_multiple_of(2) {
        let n = 1 + random.index(300);
        any(n, random.index(4 * n), seed)
    } else {
        layered(2 + random.index(60), 1 + random.index(12), seed)
    }
}

fn ensure(holds: bool, otherwise: &str) -> Result<bool, String> {
    if holds { Ok(true) } else { Err(otherwise.to_owned()) }
}

/// Makes words of an error.
fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn timing(device: &Device, graph: &TaskGraph, way: Way, seed: u64) -> Compared {
    let duration = durations(graph.len(), seed);
    let on_device = guarded(|| DeviceGraph::new(device, graph, way)?.timing(duration.clone()));
    match on_device {
        // Not every graph can be cut into chunks.
        Err(OffDevice::TooWide) => Ok(false),
        Err(error) => Err(words(error)),
        Ok(timing) => ensure(timing == Timing::new(graph, duration), "other times than the CPU's"),
    }
}

fn load_matrix(device: &Device, n: usize, seed: u64) -> Compared {
    let mut random = Random::new(seed);
    let duration = durations(n, seed);
    let speeds: Vec<Speed> = (0..1 + random.index(12)).map(|_| Speed(100_000 + random.below(9_000_000))).collect();
    let loads_on = DeviceLoads::new(device, &duration, &speeds).map_err(words)?;
    ensure(loads_on.matrix().map_err(words)? == loads::matrix(&duration, &speeds), "another load matrix")?;
    ensure(loads_on.fastest().map_err(words)? == loads::fastest(&duration, &speeds), "other fastest devices")
}

fn batch(device: &Device, graph: &TaskGraph, seed: u64) -> Compared {
    let mut random = Random::new(seed);
    let (n_kinds, n) = (1 + random.index(KINDS), 1 + random.index(100));
    let times: Vec<u32> = (0..graph.len() * n_kinds).map(|_| tick(&mut random, 1_000)).collect();
    let tape = Tape::new(graph).map_err(words)?;
    let times = Times::new(graph, &tape, &times, n_kinds).map_err(words)?;
    let chosen = (0..graph.len() * n).map(|_| u8::try_from(random.index(n_kinds)).unwrap_or(0)).collect();
    let choices = Choices::new(&times, n, chosen).map_err(words)?;
    let found = DeviceTape::new(device, &tape, &times).map_err(words)?.makespans(&choices).map_err(words)?;
    ensure(found == makespans(&tape, &times, &choices), "other lengths")
}

fn lists(device: &Device, graph: &TaskGraph, seed: u64) -> Compared {
    let lists = random_lists(graph, seed)?;
    let orders = Orders::random(graph, &lists.precedence, 20, seed);
    let found = Judge::of_lists(device, &lists).map_err(words)?.makespans(&orders).map_err(words)?;
    ensure(found == lists.makespans(&orders), "other schedules")
}

fn random_lists(graph: &TaskGraph, seed: u64) -> Result<Lists, String> {
    let mut random = Random::new(seed);
    let n_devices = 1 + random.index(32);
    let time = |random: &mut Random| if random.below(12) == 0 { NEVER } else { tick(random, 20) };
    let time: Vec<u32> = (0..graph.len() * n_devices).map(|_| time(&mut random)).collect();
    let memory = (0..graph.len()).map(|_| tick(&mut random, 11)).collect();
    let capacity = (0..n_devices).map(|_| 8 + tick(&mut random, 20)).collect();
    Lists::new(graph, time, memory, capacity).map_err(words)
}

fn project(device: &Device, graph: &TaskGraph, seed: u64) -> Compared {
    let project = random_project(graph, seed)?;
    let orders = Orders::random(graph, &project.precedence, 10, seed);
    let found = Judge::of_project(device, &project).map_err(words)?.makespans(&orders).map_err(words)?;
    ensure(found == project.makespans(&orders), "other schedules")
}

/// Searches with lists for even seeds, with a project for odd ones.
fn searches(device: &Device, graph: &TaskGraph, seed: u64) -> Compared {
    // One order only: nothing to search.
    if graph.len() < 2 {
        return Ok(false);
    }
    let judge = if seed.is_multiple_of(2) {
        search::Judge::Lists(random_lists(graph, seed)?)
    } else {
        search::Judge::Project(random_project(graph, seed)?)
    };
    let mut random = Random::new(seed);
    let ways: Vec<u64> = (0..graph.len()).map(|_| random.below(1_000)).collect();
    let known: Vec<TaskId> = graph.order.clone();
    let problem = Problem::new(graph, judge, &ways, &[known]).map_err(words)?;
    let (candidates, spent) = (1 + random.index(5), || 0);
    for method in [Method::Genetic, Method::Annealing, Method::Ants, Method::Swarm] {
        let effort = Effort { method, seed, candidates, generations: 1, wanted: 3, spent: &spent };
        let found = on_device(device, &problem, &effort).map_err(words)?;
        ensure(found == on_cpu(&problem, &effort), &format!("{method:?}: other orders"))?;
    }
    Ok(true)
}

fn random_project(graph: &TaskGraph, seed: u64) -> Result<Project, String> {
    let mut random = Random::new(seed);
    let duration = (0..graph.len()).map(|_| tick(&mut random, 3) * tick(&mut random, 40)).collect();
    let need: Vec<_> = (0..graph.len()).map(|_| [0; 4].map(|_: u32| tick(&mut random, 6))).collect();
    Project::new(graph, duration, &need, [5, 7, 9, 32_767]).map_err(words)
}

fn tick(random: &mut Random, end: u64) -> u32 {
    u32::try_from(random.below(end)).unwrap_or(0)
}
