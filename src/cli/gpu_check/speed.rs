//! How fast the kernels are, by the device's own clock: medians after a warm-up, beside the bandwidth of a copy that was
//! measured a moment before. Whatever is measured is compared with the CPU first.

use std::time::Instant;

use super::equality::GENERATIONS;
use super::rows::{Figure, Rows};
use crate::batch::device::{DeviceTape, Judge};
use crate::batch::lists::Lists;
use crate::batch::orders::Orders;
use crate::batch::search::{self, Effort, Method, Problem, on_cpu, on_device};
use crate::batch::sgs::Project;
use crate::batch::tape::Tape;
use crate::batch::timing::{Choices, Times, makespans};
use crate::cuda::{CudaError, Device, guarded, pace};
use crate::graph::TaskGraph;
use crate::timing::Timing;
use crate::timing::choice::Way;
use crate::timing::device::{DeviceGraph, DeviceLoads, OffDevice};
use crate::timing::sample::{Random, durations, even};
use crate::timing::sweep::{Step, Sweep};
use crate::timing::ticks::Ticks;
use crate::units::{Millis, Speed};

/// How large the problems are, and how often they are run.
#[derive(Clone, Copy)]
struct Sizes {
    /// Runs that do not count, and those behind them of which the median does.
    warm_up: usize,
    runs: usize,
    /// The same on the CPU, behind one that does not count.
    cpu_runs: usize,
    /// Words of 16 bytes.
    copy: u64,
    loads: usize,
    wide: (usize, usize),
    deep: (usize, usize),
    candidates: usize,
    lists: usize,
    projects: usize,
    /// Candidates and generations of a search.
    search: (usize, u32),
}

const FULL: Sizes = Sizes {
    warm_up: 3,
    runs: 31,
    cpu_runs: 7,
    copy: 1 << 26,
    loads: 10_000_000,
    wide: (64, 156_250),
    deep: (100_000, 10),
    candidates: 1 << 20,
    lists: 1 << 16,
    projects: 1 << 18,
    search: (1 << 13, 50),
};

const QUICK: Sizes = Sizes {
    warm_up: 1,
    runs: 1,
    cpu_runs: 1,
    copy: 1 << 10,
    loads: 4_000,
    wide: (8, 200),
    deep: (60, 10),
    candidates: 64,
    lists: 16,
    projects: 16,
    search: (2, 1),
};

type Measured = Result<(), String>;

/// Measures something and adds its rows.
type Measure<'a> = &'a dyn Fn(&mut Rows) -> Measured;

/// A device and how it is measured.
struct Bench<'d> {
    device: &'d Device,
    sizes: Sizes,
    /// Of a copy, in GB/s.
    bandwidth: f64,
}

pub(super) fn check(rows: &mut Rows, device: &Device, quick: bool) {
    if !rows.begin("speed", "copy") {
        return;
    }
    let mut bench = Bench { device, sizes: if quick { QUICK } else { FULL }, bandwidth: 0.0 };
    match guarded(|| bench.copy()) {
        Ok(bandwidth) => bench.bandwidth = bandwidth,
        Err(error) => return rows.fail("speed", "copy", &error.to_string()),
    }
    let Sizes { copy, runs, wide, deep, .. } = bench.sizes;
    let detail =
        format!("by a kernel: {} bytes read and written, median of {runs} runs, as everything below", 16 * copy);
    rows.measured("copy", &detail, Figure { value: bench.bandwidth, unit: "GB/s", asked: None });
    let parts: [(&str, Measure<'_>); 8] = [
        ("arithmetic", &|rows| bench.arithmetic(rows)),
        ("load matrix", &|rows| bench.load_matrix(rows)),
        ("earliest times, wide", &|rows| bench.earliest(rows, "wide", wide)),
        ("earliest times, deep", &|rows| bench.earliest(rows, "deep", deep)),
        ("batch timing", &|rows| bench.batch(rows)),
        ("list schedules", &|rows| bench.lists(rows)),
        ("projects", &|rows| bench.projects(rows)),
        ("searches", &|rows| bench.searches(rows)),
    ];
    for (what, part) in parts {
        if !rows.begin("speed", what) {
            continue;
        }
        // A panic is an error, too.
        let done = guarded(|| Ok::<_, CudaError>(part(rows)));
        if let Err(why) = done.unwrap_or_else(|error| Err(words(error))) {
            rows.fail("speed", what, &why);
        }
    }
}

impl Bench<'_> {
    /// Returns the median time of some work on the device, in seconds.
    fn median(&self, mut work: impl FnMut() -> Result<(), CudaError>) -> Result<f64, CudaError> {
        let Sizes { warm_up, runs, .. } = self.sizes;
        let watch = self.device.stopwatch()?;
        let mut times = Vec::with_capacity(runs);
        for run in 0..warm_up + runs {
            let nanos = watch.time(&mut work)?;
            if run >= warm_up {
                times.push(nanos);
            }
        }
        times.sort_unstable();
        // What is shorter than the clock can tell counts as its step.
        #[expect(clippy::cast_precision_loss, reason = "a figure with three digits")]
        let seconds = times[runs / 2].max(500) as f64 / 1e9;
        Ok(seconds)
    }

    #[expect(clippy::cast_precision_loss, reason = "figures with three digits")]
    fn copy(&self) -> Result<f64, CudaError> {
        let mut copy = pace::Copy::new(self.device, self.sizes.copy)?;
        let seconds = self.median(|| copy.start())?;
        copy.check()?;
        Ok(copy.bytes() as f64 / seconds / 1e9)
    }

    /// As `devices --calibrate` does, which compares every sum with the CPU's.
    #[expect(clippy::cast_precision_loss, reason = "figures with three digits")]
    fn arithmetic(&self, rows: &mut Rows) -> Measured {
        let mega_fmas = pace::arithmetic(self.device).map_err(words)?;
        let figure = Figure { value: mega_fmas as f64 / 1e3, unit: "G/s", asked: None };
        rows.measured("arithmetic", "fused multiply-adds of 32-bit floats", figure);
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "figures with three digits")]
    fn load_matrix(&self, rows: &mut Rows) -> Measured {
        let n = self.sizes.loads;
        let duration = durations(n, 1);
        let speeds: Vec<Speed> = (0..8).map(|i| Speed(1_000_000 + 333_333 * i)).collect();
        let loads = DeviceLoads::new(self.device, &duration, &speeds).map_err(words)?;
        let mut room = loads.room().map_err(words)?;
        let seconds = self.median(|| loads.compute(&mut room)).map_err(words)?;
        if loads.matrix().map_err(words)? != crate::timing::loads::matrix(&duration, &speeds) {
            return Err("another load matrix than the CPU's".to_owned());
        }
        let rate = (n * 4 + n * 8 * 4) as f64 / seconds / 1e9;
        let detail = format!("{n} tasks on 8 devices in {:.1} µs, {rate:.0} GB/s", seconds * 1e6);
        let figure = Figure { value: 100.0 * rate / self.bandwidth, unit: "% of the copy", asked: Some(80.0) };
        rows.measured("load matrix", &detail, figure);
        let mut seats = loads.seats().map_err(words)?;
        let seconds = self.median(|| loads.choose(&mut seats)).map_err(words)?;
        if loads.fastest().map_err(words)? != crate::timing::loads::fastest(&duration, &speeds) {
            return Err("other fastest devices than the CPU's".to_owned());
        }
        let rate = (n * 4 + n * 2) as f64 / seconds / 1e9;
        let detail = format!("of {n} tasks among 8 devices in {:.1} µs, {rate:.0} GB/s", seconds * 1e6);
        let figure = Figure { value: 100.0 * rate / self.bandwidth, unit: "% of the copy", asked: None };
        rows.measured("fastest devices", &detail, figure);
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "figures with three digits")]
    fn earliest(&self, rows: &mut Rows, name: &str, (levels, width): (usize, usize)) -> Measured {
        let graph = even(levels, width, 4, 1);
        let duration = durations(graph.len(), 1);
        let cpu = Timing::new(&graph, duration.clone());
        let by_cpu = self.by_one_core(&graph, &duration, &cpu)?;
        let (edges, step) = (graph.before.edges.len(), Step::best());
        for way in Way::ALL {
            let mut on_device = match DeviceGraph::new(self.device, &graph, way) {
                Err(OffDevice::TooWide) => {
                    rows.skipped("speed", &format!("earliest times, {name}, {way:?}"), &OffDevice::TooWide.to_string());
                    continue;
                }
                made => made.map_err(words)?,
            };
            if on_device.timing(duration.clone()).map_err(words)? != cpu {
                return Err(format!("{way:?}: other times than the CPU's"));
            }
            let forward = self.median(|| on_device.forward()).map_err(words)?;
            let both = self.median(|| on_device.compute()).map_err(words)?;
            let detail = format!(
                "{levels} levels of {width}, {edges} edges: {:.2} G edges/s; with latest times and slack {:.3} ms; one CPU core needs {:.3} ms for both",
                edges as f64 / forward / 1e9,
                both * 1e3,
                by_cpu * 1e3
            );
            let asked = Some(if name == "wide" { 1.5 } else { 1.0 });
            let figure = Figure { value: forward * 1e3, unit: "ms", asked };
            rows.measured(&format!("earliest times, {name}, {way:?}"), &detail, figure);
            let detail = format!("earliest and latest times and slack; {step:?} on the CPU, laid out before, median");
            let asked = Some(5.0).filter(|_| name == "deep");
            let figure = Figure { value: by_cpu / both, unit: "× one CPU core", asked };
            rows.measured(&format!("against the CPU, {name}, {way:?}"), &detail, figure);
        }
        Ok(())
    }

    /// Returns the median time in which one core computes all times, in seconds, as the device does: on a graph that is laid
    /// out already, warm, with the widest instructions there are.
    fn by_one_core(&self, graph: &TaskGraph, duration: &[Millis], wanted: &Timing) -> Result<f64, String> {
        let mut sweep = Sweep::new(graph, Step::best());
        let ticks = Ticks::new(duration, sweep.n_levels()).ok_or("durations that do not fit")?;
        let runs = self.sizes.cpu_runs;
        let mut times = Vec::with_capacity(runs);
        // This warms up, too.
        if sweep.timing(duration.to_vec()).as_ref() != Some(wanted) {
            return Err("the CPU disagrees with itself".to_owned());
        }
        for _ in 0..runs {
            let before = Instant::now();
            sweep.run(&ticks);
            times.push(before.elapsed());
        }
        times.sort_unstable();
        Ok(times[runs / 2].as_secs_f64())
    }

    fn batch(&self, rows: &mut Rows) -> Measured {
        let n = self.sizes.candidates;
        let graph = stages();
        let mut random = Random::new(7);
        let tape = Tape::new(&graph).map_err(words)?;
        let times: Vec<u32> = (0..graph.len() * 8).map(|_| tick(&mut random, 1_000)).collect();
        let times = Times::new(&graph, &tape, &times, 8).map_err(words)?;
        let chosen = (0..graph.len() * n).map(|_| u8::try_from(random.index(8)).unwrap_or(0)).collect();
        let choices = Choices::new(&times, n, chosen).map_err(words)?;
        let on_device = DeviceTape::new(self.device, &tape, &times).map_err(words)?;
        let (chosen, found) = on_device.room(&choices).map_err(words)?;
        let seconds = self.median(|| on_device.compute(&chosen, &found)).map_err(words)?;
        if found.read().map_err(words)? != makespans(&tape, &times, &choices) {
            return Err("other lengths than the CPU's".to_owned());
        }
        rate(rows, "batch timing", n, seconds, "candidates of 1,000 tasks with 8 durations each", 100.0);
        Ok(())
    }

    fn lists(&self, rows: &mut Rows) -> Measured {
        let n = self.sizes.lists;
        let graph = stages();
        let lists = eight_devices(&graph)?;
        let orders = Orders::random(&graph, &lists.precedence, n, 1);
        let on_device = Judge::of_lists(self.device, &lists).map_err(words)?;
        let (tasks, found) = on_device.room(&orders).map_err(words)?;
        let seconds = self.median(|| on_device.compute(&tasks, &found)).map_err(words)?;
        if found.read().map_err(words)? != lists.makespans(&orders) {
            return Err("other schedules than the CPU's".to_owned());
        }
        rate(rows, "list schedules", n, seconds, "orders of 1,000 tasks on 8 devices", 5.0);
        Ok(())
    }

    /// Whole searches by a clock on the wall, uploads and all: what a planner waits for.
    fn searches(&self, rows: &mut Rows) -> Measured {
        let graph = stages();
        let judge = search::Judge::Lists(eight_devices(&graph)?);
        let known = [graph.order.clone()];
        let problem = Problem::new(&graph, judge, &vec![1; graph.len()], &known).map_err(words)?;
        let (candidates, generations) = self.sizes.search;
        let spent = || 0;
        for method in [Method::Genetic, Method::Annealing, Method::Ants, Method::Swarm] {
            let few = Effort { method, seed: 1, candidates: 2, generations: GENERATIONS, wanted: 2, spent: &spent };
            if on_device(self.device, &problem, &few).map_err(words)? != on_cpu(&problem, &few) {
                return Err(format!("{method:?}: other orders than the CPU's"));
            }
            let many = Effort { candidates, generations, ..few };
            let before = Instant::now();
            let found = on_device(self.device, &problem, &many).map_err(words)?;
            let seconds = before.elapsed().as_secs_f64();
            #[expect(clippy::cast_precision_loss, reason = "figures with three digits")]
            let rate = found.evaluations as f64 / seconds / 1e6;
            let detail = format!(
                "{} generations of {candidates} orders of 1,000 tasks on 8 devices in {:.3} ms by a clock on the wall, from {} to {} ticks",
                found.generations,
                seconds * 1e3,
                found.shortest.0,
                found.shortest.1
            );
            rows.measured(&format!("search, {method:?}"), &detail, Figure { value: rate, unit: "M/s", asked: None });
        }
        Ok(())
    }

    fn projects(&self, rows: &mut Rows) -> Measured {
        let n = self.sizes.projects;
        let graph = even(12, 10, 2, 1);
        let mut random = Random::new(7);
        let duration = (0..graph.len()).map(|_| 1 + tick(&mut random, 10)).collect();
        let need: Vec<_> = (0..graph.len()).map(|_| [0; 4].map(|_: u32| tick(&mut random, 10))).collect();
        let project = Project::new(&graph, duration, &need, [20; 4]).map_err(words)?;
        let orders = Orders::random(&graph, &project.precedence, n, 1);
        let on_device = Judge::of_project(self.device, &project).map_err(words)?;
        let (tasks, found) = on_device.room(&orders).map_err(words)?;
        let seconds = self.median(|| on_device.compute(&tasks, &found)).map_err(words)?;
        if found.read().map_err(words)? != project.makespans(&orders) {
            return Err("other schedules than the CPU's".to_owned());
        }
        rate(rows, "projects", n, seconds, "orders of 120 tasks with 4 resources", 20.0);
        Ok(())
    }
}

fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The graph of 1,000 tasks that batches are measured on.
fn stages() -> TaskGraph {
    even(50, 20, 4, 1)
}

/// Eight devices with memory for it.
fn eight_devices(graph: &TaskGraph) -> Result<Lists, String> {
    let mut random = Random::new(7);
    let time = (0..graph.len() * 8).map(|_| 1 + tick(&mut random, 1_000)).collect();
    let memory = (0..graph.len()).map(|_| tick(&mut random, 40)).collect();
    Lists::new(graph, time, memory, vec![80; 8]).map_err(words)
}

#[expect(clippy::cast_precision_loss, reason = "figures with three digits")]
fn rate(rows: &mut Rows, what: &str, n: usize, seconds: f64, of: &str, asked: f64) {
    let figure = Figure { value: n as f64 / seconds / 1e6, unit: "M/s", asked: Some(asked) };
    rows.measured(what, &format!("{n} {of} in {:.3} ms", seconds * 1e3), figure);
}

fn tick(random: &mut Random, end: u64) -> u32 {
    u32::try_from(random.below(end)).unwrap_or(0)
}
