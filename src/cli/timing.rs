//! Who computes the times of a graph, the CPU or a CUDA device: chosen here, measured here, and said here.
//!
//! A device is asked only where it could pay, or where that is wanted, and is given back before this returns: planning must
//! not hold memory that a training needs. Whatever goes wrong with it, the CPU computes, and one line says why. What was
//! measured about a machine is remembered in the user's cache folder.

#![expect(clippy::disallowed_methods, reason = "what a device gains is measured")]

use std::cell::RefCell;
use std::path::PathBuf;
use std::time::Instant;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tracing::{debug, info};

use super::output;
use crate::cuda::{self, CudaError, Device, Source};
use crate::graph::TaskGraph;
use crate::probe::Host;
use crate::timing::choice::{Choice, CpuCost, DeviceCost, Shape};
use crate::timing::device::{DeviceGraph, OffDevice};
use crate::timing::layout::Layout;
use crate::timing::{Backend, Timing, calibrate};
use crate::units::Millis;

/// Tasks and edges below which no device is asked: a CPU is done with them in a few milliseconds, which is less than
/// finding a driver takes.
const FEW: u64 = 1 << 18;

/// Who may compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Where {
    /// Whoever is faster
    Auto,
    /// The CPU
    Cpu,
    /// A CUDA device; the CPU if that fails
    Cuda,
}

/// Computes times and keeps the last ones.
#[derive(Debug)]
pub(super) struct Timer {
    wanted: Where,
    last: RefCell<Timing>,
}

impl Timer {
    pub(super) fn new(wanted: Where) -> Self {
        Self { wanted, last: RefCell::default() }
    }

    /// Returns the times that were computed last.
    pub(super) fn into_timing(self) -> Timing {
        self.last.into_inner()
    }
}

impl Backend for Timer {
    fn timing(&self, graph: &TaskGraph, duration: Vec<Millis>) -> Timing {
        let work = Shape::work_of(graph);
        let asks = match self.wanted {
            Where::Cpu => false,
            Where::Auto => work >= FEW,
            Where::Cuda => true,
        };
        let known = if asks || tracing::enabled!(tracing::Level::INFO) { Known::read() } else { None };
        let timed =
            if asks { self.ask(graph, duration, known) } else { on_cpu(graph, duration, known.map(|known| known.cpu)) };
        let Timed { choice, predicted, took, timing } = timed;
        let (tasks, edges, took) = (graph.len(), graph.before.edges.len(), in_words(took));
        let predicted =
            predicted.map_or_else(|| "not predicted".to_owned(), |time| format!("predicted {}", in_words(time)));
        info!("times of {tasks} tasks and {edges} edges by {choice}: {predicted}, took {took}");
        self.last.replace(timing.clone());
        timing
    }
}

/// Times, who computed them, and how long that was thought to take and took, in picoseconds. Measuring the machine does
/// not count; opening a device does.
struct Timed {
    choice: Choice,
    predicted: Option<u64>,
    took: u64,
    timing: Timing,
}

fn on_cpu(graph: &TaskGraph, duration: Vec<Millis>, cost: Option<CpuCost>) -> Timed {
    let predicted = cost.map(|cost| cost.predict(Shape::work_of(graph)));
    let began = Instant::now();
    let timing = Timing::new(graph, duration);
    Timed { choice: Choice::Cpu, predicted, took: picos(began), timing }
}

impl Timer {
    /// Lets a device compute, if that is wanted or pays.
    fn ask(&self, graph: &TaskGraph, duration: Vec<Millis>, known: Option<Known>) -> Timed {
        let work = Shape::work_of(graph);
        let forced = self.wanted == Where::Cuda;
        if let Some(Known { cpu, device: Some(device), .. }) = &known
            && !forced
            && cpu.predict(work) <= device.cost.least(work)
        {
            return on_cpu(graph, duration, Some(*cpu));
        }
        let cpu = known.as_ref().map_or_else(|| calibrate::cpu(&nanos_since(Instant::now())), |known| known.cpu);
        match cuda::guarded(|| on_device(graph, &duration, cpu, known.clone(), forced)) {
            Ok(Some(timed)) => timed,
            Ok(None) => on_cpu(graph, duration, Some(cpu)),
            Err(error) => {
                let expected = matches!(error, OffDevice::Cuda(CudaError::NoDriver | CudaError::NoDevice(_)));
                if forced || !expected {
                    output::note(&format!("timing on the CPU: {error}"));
                }
                if expected && known.is_none() {
                    Known { cpu, device: None, version: VERSION.to_owned() }.remember();
                }
                on_cpu(graph, duration, Some(cpu))
            }
        }
    }
}

/// Computes on the first device; `None` where the CPU is faster.
fn on_device(
    graph: &TaskGraph,
    duration: &[Millis],
    cpu: CpuCost,
    known: Option<Known>,
    forced: bool,
) -> Result<Option<Timed>, OffDevice> {
    let before = Instant::now();
    let device = Device::open(0)?;
    // Compiling the kernels is part of opening a device.
    let _any = device.kernel(Source::Timing, "slack")?;
    let opened = nanos_since(before)();
    let about = device.about();
    let same = |known: &KnownDevice| known.uuid == about.uuid && known.driver == about.driver;
    let cost = match known.and_then(|known| known.device).filter(same) {
        Some(known) => known.cost,
        None => {
            debug!("measuring {} ({})", about.name, about.uuid);
            let cost = calibrate::device(&device, opened, &nanos_since(before))?;
            let (name, uuid) = (about.name.clone(), about.uuid.clone());
            let known = KnownDevice { name, uuid, driver: about.driver, cost };
            Known { cpu, device: Some(known), version: VERSION.to_owned() }.remember();
            cost
        }
    };
    let began = Instant::now();
    let layout = Layout::new(&graph.before, graph.order.iter().copied());
    let shape = Shape::new(graph, &layout);
    let (way, predicted) = cost.best(&shape);
    if !forced && cpu.predict(shape.work) <= predicted {
        return Ok(None);
    }
    let timing = DeviceGraph::laid_out(&device, graph, layout, way)?.timing(duration.to_vec())?;
    let took = opened.saturating_mul(1_000).saturating_add(picos(began));
    Ok(Some(Timed { choice: Choice::Device(way), predicted: Some(predicted), took, timing }))
}

/// Constants hold for the program that measured them: its kernels may change.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What was measured about this machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    version: String,
    cpu: CpuCost,
    device: Option<KnownDevice>,
}

/// A device, and what it needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KnownDevice {
    name: String,
    uuid: String,
    driver: u32,
    cost: DeviceCost,
}

impl Known {
    /// Returns `timing-HOST.json` in the user's cache folder: a home may be shared by machines.
    fn path() -> Option<PathBuf> {
        let named = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let cache = named("XDG_CACHE_HOME").or_else(|| Some(named("HOME")?.join(".cache")))?;
        let host = Host::read(std::path::Path::new("/")).name;
        Some(cache.join("trainyard").join(format!("timing-{host}.json")))
    }

    /// What cannot be read was never measured.
    fn read() -> Option<Self> {
        let text = std::fs::read(Self::path()?).ok()?;
        serde_json::from_slice::<Self>(&text).ok().filter(|known| known.version == VERSION)
    }

    /// Writes it down; where that fails it is measured again next time.
    fn remember(&self) {
        let Some(path) = Self::path() else { return };
        let write = || -> std::io::Result<()> {
            let folder = path.parent().ok_or(std::io::ErrorKind::NotFound)?;
            std::fs::create_dir_all(folder)?;
            let draft = path.with_extension(format!("{}.draft", std::process::id()));
            std::fs::write(&draft, serde_json::to_vec_pretty(self)?)?;
            std::fs::rename(draft, &path)
        };
        if let Err(error) = write() {
            debug!("{}: {error}", path.display());
        }
    }
}

/// Returns a clock in nanoseconds.
fn nanos_since(start: Instant) -> impl Fn() -> u64 {
    move || u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn picos(start: Instant) -> u64 {
    nanos_since(start)().saturating_mul(1_000)
}

/// Writes picoseconds with three digits: `1.23 ms`.
fn in_words(picos: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let micros = picos as f64 / 1e6;
    match micros {
        few if few < 1e3 => format!("{few:.1} µs"),
        some if some < 1e6 => format!("{:.2} ms", some / 1e3),
        many => format!("{:.2} s", many / 1e6),
    }
}
