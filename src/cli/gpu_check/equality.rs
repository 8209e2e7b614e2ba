//! Every kernel against the CPU function that it must equal, on the shapes at which kernels break and on random problems.

use std::time::Instant;

use super::rows::Rows;
use crate::batch::MOST_TICKS;
use crate::batch::device::{DeviceTape, Judge, OffDevice as OffShared};
use crate::batch::lists::{Lists, NEVER};
use crate::batch::orders::Orders;
use crate::batch::search::{self, Effort, Method, Problem, on_cpu, on_device};
use crate::batch::sgs::Project;
use crate::batch::tape::Tape;
use crate::batch::timing::{Choices, KINDS, Times, makespans};
use crate::cuda::{CudaError, Device, guarded};
use crate::graph::{TaskGraph, TaskId};
use crate::timing::choice::Way;
use crate::timing::device::{DeviceGraph, DeviceLoads, OffDevice};
use crate::timing::sample::{Random, any, durations, edge_shapes, layered};
use crate::timing::{Timing, loads};
use crate::units::{Millis, Speed};

/// Generations that searches are compared over: what ants leave fades, and annealing cools, behind the first.
pub(super) const GENERATIONS: u32 = 3;

/// Ticks that a project may last at most so that every device's shared memory takes its timeline.
const LONGEST_PROJECT: u64 = 7_000;

/// Whether a kernel was tried, and what it should have said.
type Compared = Result<bool, String>;

/// A graph, and where its numbers come from.
struct Sample {
    name: String,
    graph: TaskGraph,
    seed: u64,
    /// Whether numbers are as large as kernels can count.
    huge: bool,
    /// Orders that are judged on it.
    n_orders: usize,
}

/// Compares one kernel with the CPU.
type Compare<'a> = &'a dyn Fn(&Sample, &Device) -> Compared;

/// Compares all of them, within two fifths of the time that is left: figures come behind.
pub(super) fn check(rows: &mut Rows, device: &Device, n_graphs: u64, quick: bool) {
    let way = |way: Way| move |sample: &Sample, device: &Device| timing(device, sample, way);
    let checks: [(&str, Compare<'_>); 8] = [
        ("longest_levels and slack", &way(Way::Levels)),
        ("longest_dataflow and slack", &way(Way::Dataflow)),
        ("transfer_* and slack", &way(Way::Transfer)),
        ("load_matrix and fastest_device", &|sample, device| load_matrix(device, sample)),
        ("batch_timing", &|sample, device| batch(device, sample)),
        ("list_schedule", &|sample, device| lists(device, sample)),
        ("sgs", &|sample, device| project(device, sample)),
        ("search, by every method", &|sample, device| searches(device, sample)),
    ];
    let ends = Instant::now() + rows.left() * 2 / 5;
    for (left, (what, compare)) in (1..=8_u32).rev().zip(checks) {
        if rows.begin("equality", what) {
            let until = Instant::now() + ends.saturating_duration_since(Instant::now()) / left;
            compare_all(rows, device, what, compare, samples(n_graphs, quick), until);
        }
    }
}

/// Makes one row of many comparisons. The first sample is compared however long it takes.
fn compare_all(
    rows: &mut Rows,
    device: &Device,
    what: &str,
    compare: Compare<'_>,
    samples: impl Iterator<Item = Sample>,
    until: Instant,
) {
    let (mut equal, mut huge, mut largest) = (0_u64, 0_u64, 0);
    let mut samples = samples.peekable();
    while let Some(sample) = samples.next() {
        // A panic is a wrong answer, too.
        let compared = guarded(|| Ok::<_, CudaError>(compare(&sample, device)));
        match compared.unwrap_or_else(|error| Err(words(error))) {
            Ok(true) => {
                (equal, huge) = (equal + 1, huge + u64::from(sample.huge));
                largest = largest.max(sample.graph.len());
            }
            Ok(false) => {}
            Err(why) => return rows.fail("equality", what, &format!("{}: {why}", sample.name)),
        }
        if samples.peek().is_some() && Instant::now() >= until {
            let detail = format!("equal to the CPU on {equal} graphs; then its time was over (--within TIME)");
            return rows.unfinished("equality", what, &detail);
        }
    }
    if equal == 0 {
        return rows.skipped("equality", what, "no graph could be tried");
    }
    let detail = format!(
        "equal to the CPU on {equal} graphs of up to {largest} tasks, {huge} of them with numbers near the limits"
    );
    rows.passed("equality", what, &detail);
}

/// Makes the shapes at which kernels break, large ones, and random ones.
fn samples(n_graphs: u64, quick: bool) -> impl Iterator<Item = Sample> {
    let shapes = edge_shapes().into_iter().map(|(name, graph)| (name, graph, false));
    let large: &[(usize, usize, bool)] = match (quick, n_graphs) {
        (true, 0) => &[],
        (true, _) => &[(12, 26, true)],
        (false, _) => &[(40, 26, true), (12, 128, false), (300, 6, true)],
    };
    let large = large.iter().map(|&(levels, width, huge)| {
        (format!("{levels} levels of {width}"), layered(levels, width, levels as u64), huge)
    });
    let random = (0..n_graphs).map(|seed| (format!("random graph {seed}"), random_graph(seed), seed % 8 == 7));
    let all = shapes.map(|(name, graph, huge)| (name.to_string(), graph, huge)).chain(large).chain(random);
    let n_orders = if quick { 5 } else { 20 };
    (0..).zip(all).map(move |(seed, (name, graph, huge))| Sample { name, graph, seed, huge, n_orders })
}

impl Sample {
    /// Returns a number below `end`, or of those that the kernels can just count where `n` of them are added up.
    fn tick(&self, random: &mut Random, end: u64, n: usize) -> u32 {
        let end = if self.huge { (MOST_TICKS - 1) / n.max(1) as u64 } else { end };
        tick(random, end)
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

fn timing(device: &Device, sample: &Sample, way: Way) -> Compared {
    let Sample { graph, seed, huge, .. } = sample;
    let duration = if *huge {
        let (mut random, n) = (Random::new(*seed), graph.len());
        (0..n).map(|_| Millis(sample.tick(&mut random, 1, n).into())).collect()
    } else {
        durations(graph.len(), *seed)
    };
    let on_device = guarded(|| DeviceGraph::new(device, graph, way)?.timing_and_slack(duration.clone()));
    match on_device {
        // Not every graph can be cut into chunks.
        Err(OffDevice::TooWide) => Ok(false),
        Err(error) => Err(words(error)),
        Ok((timing, slack)) => {
            let cpu = Timing::new(graph, duration);
            ensure(slack.into_iter().eq(graph.ids().map(|task| cpu.slack(task))), "other slack than the CPU's")?;
            ensure(timing == cpu, "other times than the CPU's")
        }
    }
}

fn load_matrix(device: &Device, sample: &Sample) -> Compared {
    let mut random = Random::new(sample.seed);
    let duration = durations(sample.graph.len(), sample.seed);
    let speeds: Vec<Speed> = (0..1 + random.index(12)).map(|_| Speed(100_000 + random.below(9_000_000))).collect();
    let loads_on = DeviceLoads::new(device, &duration, &speeds).map_err(words)?;
    ensure(loads_on.matrix().map_err(words)? == loads::matrix(&duration, &speeds), "another load matrix")?;
    ensure(loads_on.fastest().map_err(words)? == loads::fastest(&duration, &speeds), "other fastest devices")
}

fn batch(device: &Device, sample: &Sample) -> Compared {
    let (graph, mut random) = (&sample.graph, Random::new(sample.seed));
    let (n_kinds, n) = (1 + random.index(KINDS), 1 + random.index(100));
    let times: Vec<u32> = (0..graph.len() * n_kinds).map(|_| sample.tick(&mut random, 1_000, graph.len())).collect();
    let tape = Tape::new(graph).map_err(words)?;
    let times = Times::new(graph, &tape, &times, n_kinds).map_err(words)?;
    let chosen = (0..graph.len() * n).map(|_| u8::try_from(random.index(n_kinds)).unwrap_or(0)).collect();
    let choices = Choices::new(&times, n, chosen).map_err(words)?;
    let found = DeviceTape::new(device, &tape, &times).map_err(words)?.makespans(&choices).map_err(words)?;
    ensure(found == makespans(&tape, &times, &choices), "other lengths")
}

fn lists(device: &Device, sample: &Sample) -> Compared {
    let lists = random_lists(sample)?;
    let orders = Orders::random(&sample.graph, &lists.precedence, sample.n_orders, sample.seed);
    let found = Judge::of_lists(device, &lists).map_err(words)?.makespans(&orders).map_err(words)?;
    ensure(found == lists.makespans(&orders), "other schedules")
}

fn random_lists(sample: &Sample) -> Result<Lists, String> {
    let (graph, mut random) = (&sample.graph, Random::new(sample.seed));
    let n_devices = 1 + random.index(32);
    let time = |random: &mut Random| if random.below(12) == 0 { NEVER } else { sample.tick(random, 20, graph.len()) };
    let time: Vec<u32> = (0..graph.len() * n_devices).map(|_| time(&mut random)).collect();
    // Memory may grow to 2^29.
    let unit = if sample.huge { 19_000_000 } else { 1 };
    let memory = (0..graph.len()).map(|_| unit * tick(&mut random, 11)).collect();
    let capacity = (0..n_devices).map(|_| unit * (8 + tick(&mut random, 20))).collect();
    Lists::new(graph, time, memory, capacity).map_err(words)
}

fn project(device: &Device, sample: &Sample) -> Compared {
    let project = random_project(sample)?;
    let orders = Orders::random(&sample.graph, &project.precedence, sample.n_orders, sample.seed);
    match Judge::of_project(device, &project).and_then(|judge| Ok(judge.makespans(&orders)?)) {
        // The timeline of a project has to fit the shared memory of a block.
        Err(OffShared::TooLarge { .. }) => Ok(false),
        Err(error) => Err(words(error)),
        Ok(found) => ensure(found == project.makespans(&orders), "other schedules"),
    }
}

/// Searches with lists for even seeds, with a project for odd ones.
fn searches(device: &Device, sample: &Sample) -> Compared {
    let Sample { graph, seed, .. } = sample;
    let seed = *seed;
    // One order only: nothing to search.
    if graph.len() < 2 {
        return Ok(false);
    }
    let judge = if seed.is_multiple_of(2) {
        search::Judge::Lists(random_lists(sample)?)
    } else {
        search::Judge::Project(random_project(sample)?)
    };
    let mut random = Random::new(seed);
    let ways: Vec<u64> = (0..graph.len()).map(|_| random.below(1_000)).collect();
    let known: Vec<TaskId> = graph.order.clone();
    let problem = Problem::new(graph, judge, &ways, &[known]).map_err(words)?;
    let (candidates, spent) = (1 + random.index(5), || 0);
    for method in [Method::Genetic, Method::Annealing, Method::Ants, Method::Swarm] {
        let effort = Effort { method, seed, candidates, generations: GENERATIONS, wanted: 3, spent: &spent };
        let found = match on_device(device, &problem, &effort) {
            Err(OffShared::TooLarge { .. }) => return Ok(false),
            found => found.map_err(words)?,
        };
        ensure(found == on_cpu(&problem, &effort), &format!("{method:?}: other orders"))?;
    }
    Ok(true)
}

fn random_project(sample: &Sample) -> Result<Project, String> {
    let (graph, mut random) = (&sample.graph, Random::new(sample.seed));
    let duration = |random: &mut Random| match graph.len() > 300 || sample.huge {
        true => tick(random, 1 + LONGEST_PROJECT / graph.len() as u64),
        false => tick(random, 3) * tick(random, 40),
    };
    let duration = (0..graph.len()).map(|_| duration(&mut random)).collect();
    let need: Vec<_> = (0..graph.len()).map(|_| [0; 4].map(|_: u32| tick(&mut random, 6))).collect();
    Project::new(graph, duration, &need, [5, 7, 9, 32_767]).map_err(words)
}

fn tick(random: &mut Random, end: u64) -> u32 {
    u32::try_from(random.below(end)).unwrap_or(0)
}
