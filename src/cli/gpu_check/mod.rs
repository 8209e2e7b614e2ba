//! `trainyard gpu-check`: whether this machine's CUDA device computes what the CPU does, how fast, and whether packing by
//! memory holds there with real allocations. One program with everything in it, to be run where there is nothing to build,
//! and maybe once only: it is done in time, and what it found so far is written down after every row.
//!
//! What cannot be checked here is a row that says `skipped` and why; what was cut short is `unfinished`. Exit codes: 0 everything was checked and holds, 1
//! something does not, a device cannot be used or time did not suffice, 4 there is no device, 130 a signal stopped it.

#![expect(clippy::disallowed_methods, reason = "measures time and starts this program again")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use self::rows::{OVER, Rows, State};
use super::{Exit, Failure};
use crate::cuda::{self, CudaError, Device, Source};
use crate::probe::{self, Gpu, Gpus, Machine};
use crate::units::Millis;

mod children;
mod equality;
mod packing;
mod pipeline;
mod rows;
mod sanitizer;
mod speed;

/// Check that a CUDA device computes what the CPU does, how fast, and that packing holds there
#[derive(Args)]
pub(super) struct Command {
    /// Random graphs on which every kernel must equal the CPU
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    graphs: u64,
    /// Measure on small problems: a try of this command, not of the device
    #[arg(long)]
    quick: bool,
    /// Write everything as JSON, too, anew after every row
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Run this pipeline as well, `pipelines/digits.toml` for instance; it must train on the device
    #[arg(long, value_name = "FILE")]
    pipeline: Option<PathBuf>,
    /// Begin nothing after so long
    #[arg(long, value_name = "TIME", default_value = "9m")]
    within: Millis,
    /// Compare only, and with nothing but the device
    #[arg(long, hide = true)]
    only_equality: bool,
    /// Hold so many MiB of the first device instead: what the checks of packing start
    #[arg(long, hide = true, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    hold: Option<u64>,
    /// For so long
    #[arg(long, hide = true, value_name = "TIME", default_value = "1s", requires = "hold")]
    time: Millis,
    /// Take it only when another one in this folder is there to take its own
    #[arg(long, hide = true, requires = "hold")]
    meet: bool,
}

impl Command {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        if let Some(mib) = self.hold {
            return Ok(packing::hold(mib, Duration::from_millis(self.time.0), self.meet));
        }
        let within = Duration::from_millis(self.within.0);
        let ends = Instant::now().checked_add(within).ok_or_else(|| refused("--within is too long".to_owned()))?;
        let mut rows = Rows::new(ends);
        if self.only_equality {
            return Ok(self.compare(&mut rows));
        }
        if let Some(path) = &self.json {
            rows.write_to(path).map_err(|error| refused(format!("cannot write {}: {error}", path.display())))?;
        }
        rows.guard().map_err(super::state::broken)?;
        let exit = self.check(&mut rows);
        rows.kept().end(State::Done, "");
        Ok(exit)
    }

    fn check(&self, rows: &mut Rows) -> Exit {
        // What is free before there is a context.
        let machine = probe::this_machine(&probe::Options::from_env());
        self.describe(rows, &machine);
        inventory(rows, &machine);
        if !rows.begin("device", "open") {
            for part in ["equality", "speed"] {
                rows.unfinished(part, "all of it", OVER);
            }
            skip_what_runs(rows, OVER);
            return Exit::StageFailed;
        }
        let found = match cuda::guarded(|| Device::open(0)) {
            Ok(device) => Some(self.on_device(rows, &machine, device)),
            Err(error) => {
                if !could_not_open(rows, &machine, &error) {
                    packing::skip(rows, &error.to_string());
                    sanitizer::skip(rows, "there is no device");
                    rows.skipped("pipeline", "a whole run", "there is no device");
                    return Exit::Impossible;
                }
                None
            }
        };
        if let Some(Found { uuid, gpu }) = found {
            match gpu {
                Some(gpu) => packing::check(rows, gpu, self.quick),
                None => packing::skip(rows, "NVML does not show the device that CUDA opened"),
            }
            match &self.pipeline {
                Some(file) => pipeline::check(rows, file, gpu.map_or(&uuid, |gpu| &gpu.uuid)),
                None => rows.skipped("pipeline", "a whole run", "none was given (--pipeline FILE)"),
            }
            sanitizer::check(rows, gpu.map_or(&uuid, |gpu| &gpu.uuid));
        } else {
            skip_what_runs(rows, "the device cannot be opened");
        }
        if rows.failed() { Exit::StageFailed } else { Exit::Done }
    }

    /// Notes what is run where.
    fn describe(&self, rows: &mut Rows, machine: &Machine) {
        let at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let at = jiff::Timestamp::from_second(i64::try_from(at.as_secs()).unwrap_or(0)).unwrap_or_default();
        let (driver, cuda) = match &machine.gpus {
            Gpus::Found(inventory) => (inventory.driver.clone(), inventory.cuda),
            Gpus::None { .. } => (None, None),
        };
        let cpu = cpu_model();
        rows.about("version", json!(env!("CARGO_PKG_VERSION")));
        rows.about("date", json!(at.to_string()));
        rows.about("arguments", json!({ "graphs": self.graphs, "quick": self.quick, "within_ms": self.within.0 }));
        let host = json!({ "name": machine.host.name, "cpu": cpu, "cpus": machine.host.cpus_online });
        rows.about("host", host);
        rows.about("driver", json!({ "version": driver, "cuda": cuda.map(|(major, minor)| [major, minor]) }));
        let driver = driver.map_or_else(|| "NVML does not say which driver".to_owned(), |it| format!("driver {it}"));
        let quick = if self.quick { ", --quick" } else { "" };
        let cpu = cpu.unwrap_or_else(|| "an unknown CPU".to_owned());
        rows.passed("machine", &machine.host.name, &format!("{driver}, {cpu}, --graphs {}{quick}", self.graphs));
    }

    /// Does what needs the device open; returns which it was.
    fn on_device<'m>(&self, rows: &mut Rows, machine: &'m Machine, device: Device) -> Found<'m> {
        let about = device.about();
        let cuda::About { name, uuid, driver, capability, multiprocessors, memory, .. } = about;
        let version = format!("{}.{}", driver / 1_000, driver % 1_000 / 10);
        let members = json!({
            "name": name,
            "uuid": uuid,
            "cuda": driver,
            "compute_capability": [capability.0, capability.1],
            "multiprocessors": multiprocessors,
            "memory_bytes": memory.0,
        });
        rows.about("device", members);
        rows.passed(
            "device",
            name,
            &format!(
                "{uuid}, CUDA {version}, compute capability {}.{}, {multiprocessors} multiprocessors, {memory}",
                capability.0, capability.1
            ),
        );
        let found = Found::of(uuid, machine);
        kernels(rows, &device);
        equality::check(rows, &device, self.graphs, self.quick);
        speed::check(rows, &device, self.quick);
        let before = found.gpu.and_then(|gpu| Some(gpu.reading.memory.as_ref()?.free));
        let during = found.gpu.and_then(|gpu| packing::free_by_nvml(&gpu.uuid));
        drop(device);
        packing::given_back(rows, found.gpu, before, during);
        found
    }

    /// Compares the kernels with the CPU, and nothing else.
    fn compare(&self, rows: &mut Rows) -> Exit {
        let compared = cuda::guarded(|| {
            let device = Device::open(0)?;
            equality::check(rows, &device, self.graphs, true);
            Ok::<_, CudaError>(())
        });
        if let Err(error) = compared {
            rows.fail("device", "open", &error.to_string());
        }
        if rows.failed() { Exit::StageFailed } else { Exit::Done }
    }
}

/// Skips what runs whole programs on the device.
fn skip_what_runs(rows: &mut Rows, why: &str) {
    packing::skip(rows, why);
    rows.skipped("pipeline", "a whole run", why);
    sanitizer::skip(rows, why);
}

fn refused(words: String) -> Failure {
    Failure { exit: Exit::Usage, report: miette::miette!("{words}") }
}

/// The device that CUDA opened, and what NVML knows as that.
struct Found<'m> {
    uuid: String,
    gpu: Option<&'m Gpu>,
}

impl<'m> Found<'m> {
    /// CUDA names the card of a slice: that is one of ours where no other slice of it is.
    fn of(uuid: &str, machine: &'m Machine) -> Self {
        let gpus = machine.gpus.devices();
        let mut slices = gpus.iter().filter(|gpu| gpu.slice.as_ref().is_some_and(|slice| slice.card == uuid));
        let only_slice = slices.next().filter(|_| slices.next().is_none());
        Self { uuid: uuid.to_owned(), gpu: gpus.iter().find(|gpu| gpu.uuid == uuid).or(only_slice) }
    }
}

/// Says why there is no device to check. Returns whether one is there that cannot be used.
fn could_not_open(rows: &mut Rows, machine: &Machine, error: &CudaError) -> bool {
    let shown = machine.gpus.devices().len();
    let is_there = shown > 0 || !matches!(error, CudaError::NoDriver | CudaError::NoDevice(_));
    if !is_there {
        for part in ["device", "equality", "speed"] {
            rows.skipped(part, "all of it", &error.to_string());
        }
        return false;
    }
    let more = if shown > 0 { format!("; NVML shows {shown}") } else { String::new() };
    rows.fail("device", "open", &format!("{error}{more}"));
    for part in ["equality", "speed"] {
        rows.skipped(part, "all of it", "the device cannot be opened");
    }
    true
}

/// Has the driver compile every kernel, and notes what it made of them.
fn kernels(rows: &mut Rows, device: &Device) {
    const PART: &str = "kernels";
    if !rows.begin(PART, "registers") {
        return;
    }
    let mut found = serde_json::Map::new();
    let mut spills = Vec::new();
    for source in Source::ALL {
        for name in source.kernels(device.about().capability) {
            match cuda::guarded(|| device.kernel(source, name)?.registers()) {
                Ok((registers, spilled)) => {
                    found.insert(name.to_owned(), json!({ "registers": registers, "spilled_bytes": spilled }));
                    spills.extend((spilled > 0).then(|| format!("{name} ({spilled} bytes)")));
                }
                Err(error) => return rows.fail(PART, "registers", &format!("{name}: {error}")),
            }
        }
    }
    let detail = match spills.as_slice() {
        [] => format!("{} kernels, none of which keeps anything in local memory", found.len()),
        some => format!("{} kernels; local memory: {}", found.len(), some.join(", ")),
    };
    rows.about("kernels", found.into());
    rows.passed(PART, "registers", &detail);
}

/// Returns the processor's name as the kernel writes it.
fn cpu_model() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Says what NVML sees.
fn inventory(rows: &mut Rows, machine: &Machine) {
    match &machine.gpus {
        Gpus::None { reason, .. } => rows.skipped("NVML", "inventory", &reason.to_string()),
        Gpus::Found(_) => {
            for gpu in machine.gpus.devices() {
                let name = gpu.full_name.as_deref().unwrap_or("a device without a name");
                let memory = gpu.reading.memory.as_ref();
                let memory = memory.map_or_else(
                    || "memory unknown".to_owned(),
                    |memory| format!("{} of {} free", memory.free, memory.total),
                );
                rows.passed("NVML", name, &format!("{}, {memory}", gpu.uuid));
            }
        }
    }
}
