//! How long planning takes: `cargo bench --bench plan`. Prints medians of the parts of a first answer and of whole
//! plans, with the makespan's distance from the lower bound; of nine pipelines of 30 stages, how many are proven optimal;
//! the means over ten pipelines of 1,000 stages, by CPU time: the first answer of `auto`, and what it makes of five
//! seconds; how many schedules a core makes of projects of 120 tasks.
//!
//! The stages are drawn like those of a busy GPU box: memory and durations log-normal, a quarter in gangs of 2 or 4, a
//! third sharing a device, in layers with one to three predecessors each. Equal on every machine.

#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use trainyard::fleet::{Device, Fleet, Node, NodeId};
use trainyard::graph::{self, Limits, TaskGraph};
use trainyard::plan::team::{Crew, Team};
use trainyard::plan::{self, Instance, Options, Policy, bound, check, pace};
use trainyard::spec::{After, Gpus, Located, Mode, Pipeline, Stage};
use trainyard::timing::Timing;
use trainyard::units::{Bytes, Cpus, Millis, Share, Speed};

/// Splitmix64, seeded.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, most: u64) -> u64 {
        self.next() % most
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// `e` to the power of a normal value; twelve uniform values make one.
    fn log_normal(&mut self, mean: f64, deviation: f64) -> f64 {
        let normal = (0..12).map(|_| self.unit()).sum::<f64>() - 6.0;
        (mean + deviation * normal).exp()
    }
}

/// Four fast devices of 141 GiB and four slow ones of 48 GiB in one node.
fn fleet() -> Fleet {
    let node = Node { name: "box".into(), cpus: Cpus(128_000), memory: Bytes(1 << 40), ..Node::default() };
    let device = |index: u64| {
        let (model, gib) = if index < 4 { ("fast", 141) } else { ("slow", 48) };
        let (id, memory) = (format!("box/gpu{index}"), Bytes(gib << 30));
        Device { id, node: NodeId(0), model: model.into(), memory, speed: Speed::ONE, ..Device::default() }
    };
    Fleet { name: "bench".into(), nodes: vec![node], devices: (0..8).map(device).collect(), ..Fleet::default() }
}

fn pipeline(stages: u64, seed: u64) -> Pipeline {
    let mut random = Random(seed);
    let width = (stages as f64).sqrt().ceil() as u64;
    let mut layers: Vec<Vec<u64>> = vec![Vec::new()];
    for stage in 0..stages {
        if layers.last().is_some_and(|layer| layer.len() as u64 > random.below(2 * width)) {
            layers.push(Vec::new());
        }
        layers.last_mut().expect("there is a first").push(stage);
    }
    let mut made = Vec::new();
    for (depth, layer) in layers.iter().enumerate() {
        for number in layer {
            let mut stage = Stage { name: format!("s{number}"), modes: vec![mode(&mut random)], ..Stage::default() };
            for _ in 0..if depth > 0 { 1 + random.below(3) } else { 0 } {
                let above = if random.unit() < 0.8 { depth - 1 } else { random.below(depth as u64) as usize };
                let before = layers[above][random.below(layers[above].len() as u64) as usize];
                let text = format!("s{before}");
                if stage.after.iter().all(|after| after.stage.text != text) {
                    stage.after.push(After { stage: Located { text, ..Located::default() }, ..After::default() });
                }
            }
            made.push(stage);
        }
    }
    Pipeline { name: "bench".into(), stages: made, ..Pipeline::default() }
}

fn mode(random: &mut Random) -> Mode {
    let mut mode = Mode::default();
    let gang = [1, 1, 1, 1, 1, 2, 2, 4][random.below(8) as usize];
    let share = [1_000_000, 1_000_000, 500_000, 333_333, 250_000][random.below(5) as usize];
    let held = &mut mode.resources;
    held.gpus = if gang > 1 || share == 1_000_000 { Gpus::Whole(gang) } else { Gpus::Share(Share(share)) };
    held.gpu_memory = Bytes(((random.log_normal(2.4, 0.9) * 16.0).clamp(16.0, 2_200.0) as u64) << 26);
    held.cpus = Cpus(1_000 * (1 + random.below(16)));
    held.memory = Bytes((4 + random.below(60)) << 30);
    let fast = random.log_normal(2.6, 0.8).clamp(1.0, 200.0);
    let slow = fast * (1.3 + 1.7 * random.unit());
    let millis = |seconds: f64| Millis((seconds * 1_000.0) as u64);
    mode.duration.by_model = [("fast".into(), millis(fast)), ("slow".into(), millis(slow))].into();
    mode
}

/// Median of some runs, in microseconds.
fn median(runs: usize, mut work: impl FnMut()) -> f64 {
    let mut times: Vec<Duration> = (0..runs)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}

fn parts(pipeline: &Pipeline, graph: &TaskGraph, fleet: &Fleet) {
    let instance = Instance::new(pipeline, graph, fleet).expect("every stage fits");
    let timing = Timing::new(graph, instance.shortest());
    let made = |policy: &str| {
        let policy = policy.parse().expect("a policy");
        plan::make(pipeline, graph, fleet, &Options { policy, seed: 1, ..Options::default() }).expect("a plan")
    };
    let first = made("critical-path+earliest-finish");
    let build = median(21, || drop(black_box(Instance::new(pipeline, graph, fleet))));
    let cpm = median(21, || drop(black_box(Timing::new(graph, instance.shortest()))));
    let lower = median(21, || {
        black_box(bound::lower_bound(&instance, &timing));
    });
    let proof = median(21, || drop(black_box(check(pipeline, graph, fleet, &first))));
    let whole = median(21, || drop(black_box(made("critical-path+earliest-finish"))));
    let schedule = whole - build - cpm - lower - proof;
    println!(
        "  instance {build:.0} us, timing {cpm:.0} us, schedule {schedule:.0} us, bound {lower:.0} us, check {proof:.0} us: {whole:.0} us"
    );
}

/// Milliseconds of CPU time that this thread has had.
fn spent() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

/// CPU time that planning took on cores of its own: that of whoever plans, and of the slowest of those who decode at once.
struct Cores {
    begun: f64,
    /// Nanoseconds for which others were waited for.
    awaited: AtomicU64,
}

impl Cores {
    fn spent(&self) -> f64 {
        spent() - self.begun + self.awaited.load(Ordering::Relaxed) as f64 / 1e6
    }
}

impl Crew for Cores {
    fn all_at_once<'j>(&self, jobs: Vec<Box<dyn FnOnce() + Send + 'j>>) {
        let timed = |job: Box<dyn FnOnce() + Send + 'j>| {
            job();
            (spent() * 1e6) as u64
        };
        let slowest = std::thread::scope(|scope| {
            let threads: Vec<_> = jobs.into_iter().map(|job| scope.spawn(move || timed(job))).collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).max()
        });
        self.awaited.fetch_add(slowest.unwrap_or(0), Ordering::Relaxed);
    }
}

/// Plans ten pipelines of 1,000 stages with `auto`, within so many milliseconds on so many cores.
fn ten(fleet: &Fleet, budget: u64, count: u32) {
    const PIPELINES: u64 = 10;
    let (mut gap, mut time, mut tried) = (0.0, 0.0, 0);
    for seed in 1..=PIPELINES {
        let pipeline = pipeline(1_000, seed);
        let graph = graph::build(&pipeline, Limits::default()).expect("a graph");
        let cores = Cores { begun: spent(), awaited: AtomicU64::new(0) };
        let clock = || Millis(cores.spent() as u64);
        let limits = plan::Limits { budget: Some(Millis(budget)), clock: Some(&clock), ..plan::Limits::default() };
        let options = Options { seed: 1, limits, decoders: Some(Team { count, crew: &cores }), ..Options::default() };
        let plan = plan::make(&pipeline, &graph, fleet, &options).expect("a plan");
        time += cores.spent();
        gap += plan.gap() * 100.0;
        tried += plan.evaluations;
    }
    let of = |sum: f64| sum / PIPELINES as f64;
    println!(
        "ten pipelines of 1,000 stages, auto, {budget} ms, cores {count}: {:.2} % over the bound, {:.2} ms of CPU time, {} schedules",
        of(gap),
        of(time),
        tried / PIPELINES
    );
}

/// Plans nine pipelines of 30 stages with `auto`, which searches until there is nothing to find any more.
fn small(fleet: &Fleet) {
    const PIPELINES: u64 = 9;
    let (mut proven, mut slowest, mut first, mut over) = (0, 0.0_f64, 0.0, 0.0);
    for seed in 1..=PIPELINES {
        let pipeline = pipeline(30, seed);
        let graph = graph::build(&pipeline, Limits::default()).expect("a graph");
        let made = |budget: u64| {
            let begun = spent();
            let clock = || Millis((spent() - begun) as u64);
            let limits = plan::Limits { budget: Some(Millis(budget)), clock: Some(&clock), ..plan::Limits::default() };
            let options = Options { seed: 1, limits, ..Options::default() };
            (plan::make(&pipeline, &graph, fleet, &options).expect("a plan"), spent() - begun)
        };
        let ((begun, quick), (found, time)) = (made(0), made(2_000));
        proven += u64::from(found.is_optimal());
        (slowest, first) = (slowest.max(time), first + quick);
        over += (begun.makespan.0 as f64 / found.makespan.0 as f64 - 1.0) * 100.0;
    }
    let mean = |sum: f64| sum / PIPELINES as f64;
    println!(
        "nine pipelines of 30 stages, auto, 2000 ms: {proven} proven optimal, in {slowest:.0} ms of CPU time at most; first answers \
         {:.2} % over these in {:.2} ms",
        mean(over),
        mean(first)
    );
}

/// A project of 120 tasks of 1 to 10 seconds that share four resources of one node, like those of PSPLIB's J120.
fn project(seed: u64) -> (Pipeline, Fleet) {
    let mut random = Random(seed);
    let names = ["r0", "r1", "r2", "r3"];
    let mut stages = Vec::new();
    for number in 0..120_u64 {
        let mut stage = Stage { name: format!("s{number}"), modes: vec![Mode::default()], ..Stage::default() };
        let mode = &mut stage.modes[0];
        mode.duration.base = Some(Millis(1_000 * (1 + random.below(10))));
        mode.resources.cpus = Cpus(0);
        let held = names.iter().map(|name| ((*name).into(), 1 + random.below(10)));
        mode.resources.custom = held.collect();
        for _ in 0..1 + random.below(3) {
            let text = format!("s{}", number.saturating_sub(1 + random.below(25)));
            if text != stage.name && stage.after.iter().all(|after| after.stage.text != text) {
                stage.after.push(After { stage: Located { text, ..Located::default() }, ..After::default() });
            }
        }
        stages.push(stage);
    }
    let resources = names.iter().map(|name| ((*name).into(), 20 + random.below(20))).collect();
    let node = Node { name: "shop".into(), cpus: Cpus(1_000), memory: Bytes(1 << 30), resources, ..Node::default() };
    let pipeline = Pipeline { name: "project".into(), stages, ..Pipeline::default() };
    (pipeline, Fleet { name: "shop".into(), nodes: vec![node], ..Fleet::default() })
}

/// Makes schedules of ten projects: of one order again and again, and in a genetic search, of ever another one.
fn projects() {
    const TIMES: u64 = 20_000;
    let (mut one, mut other, mut tried) = (0.0, 0.0, 0);
    for seed in 1..=10 {
        let (pipeline, fleet) = project(seed);
        let graph = graph::build(&pipeline, Limits::default()).expect("a graph");
        let instance = Instance::new(&pipeline, &graph, &fleet).expect("every stage fits");
        let timing = Timing::new(&graph, instance.shortest());
        let begun = spent();
        black_box(pace::schedules(&instance, &timing, TIMES)).expect("few resources");
        one += spent() - begun;
        let begun = spent();
        let limits = plan::Limits { evaluations: Some(TIMES), ..plan::Limits::default() };
        let options = Options { policy: "ga".parse().expect("a policy"), limits, ..Options::default() };
        tried += plan::make(&pipeline, &graph, &fleet, &options).expect("a plan").evaluations;
        other += spent() - begun;
    }
    let (one, other) = ((10 * TIMES) as f64 / one, tried as f64 / other);
    println!("projects of 120 tasks: {one:.0} k schedules a second of CPU time, {other:.0} k in a genetic search");
}

fn main() {
    let fleet = fleet();
    projects();
    small(&fleet);
    ten(&fleet, 0, 1);
    for cores in [1, 8] {
        ten(&fleet, 5_000, cores);
    }
    for stages in [20, 100, 1_000, 10_000] {
        let pipeline = pipeline(stages, 1);
        let graph = graph::build(&pipeline, Limits::default()).expect("a graph");
        println!("{stages} stages on 8 devices");
        parts(&pipeline, &graph, &fleet);
        for policy in ["fifo+first-fit", "critical-path+best-fit", "critical-path+random", "auto"] {
            let policy: Policy = policy.parse().expect("a policy");
            let mut gap = 0.0;
            let time = median(if stages > 100 { 1 } else { 5 }, || {
                let options = Options { policy, seed: 1, ..Options::default() };
                gap = plan::make(&pipeline, &graph, &fleet, &options).expect("a plan").gap();
            });
            println!("  {policy:24} {:9.2} ms, {:6.2} % over the bound", time / 1e3, gap * 100.0);
        }
    }
}
