//! Who computes the load matrix and the times of a graph, the CPU or a CUDA device: chosen here, measured here, and said
//! here.
//!
//! A device is asked only where it could pay, or where that is wanted. It stays open from the load matrix to the times that
//! a plan asks for next, and is then given back: planning must not hold memory that a training needs. Whatever goes wrong
//! with it, the CPU computes, and one line says why.

#![expect(clippy::disallowed_methods, reason = "what a device gains is measured")]

use std::cell::{Cell, RefCell};
use std::time::Instant;

use clap::ValueEnum;
use tracing::{debug, info};

use self::known::{Known, KnownDevice};
use self::work::{Loads, Times, Work};
use super::{output, spare};
use crate::cuda::{self, CudaError, Device, Source};
use crate::graph::TaskGraph;
use crate::timing::choice::{Choice, CpuCost, DeviceCost};
use crate::timing::device::OffDevice;
use crate::timing::{Backend, Timing, calibrate};
use crate::units::{Millis, Speed};

mod known;
mod work;

/// Tasks and edges, or entries of a load matrix, below which no device is asked: a CPU is done with them in a few
/// milliseconds, which is less than finding a driver takes.
const FEW: u64 = 1 << 18;

/// How often a device is opened to see how long that takes.
const OPENINGS: usize = 3;

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

/// Computes load matrices and times, and keeps the last times.
#[derive(Debug)]
pub(super) struct Timer {
    wanted: Where,
    /// Open between a load matrix and the times behind it, at most.
    device: RefCell<Option<Device>>,
    /// Its number.
    ordinal: Cell<usize>,
    /// Why the CPU had to do it last. A device that has failed is not asked again, and nothing is said twice.
    failed: RefCell<Option<OffDevice>>,
    known: RefCell<Option<Known>>,
    last: RefCell<Timing>,
}

impl Timer {
    pub(super) fn new(wanted: Where) -> Self {
        let (device, ordinal, failed, known, last) = Default::default();
        Self { wanted, device, ordinal, failed, known, last }
    }

    /// Returns the times that were computed last.
    pub(super) fn into_timing(self) -> Timing {
        self.last.into_inner()
    }
}

impl Backend for Timer {
    fn loads(&self, duration: &[Millis], speed: &[Speed]) -> Vec<Vec<Millis>> {
        let (answer, device) = self.compute(&Loads { duration, speed }, None);
        self.device.replace(device);
        answer
    }

    fn timing(&self, graph: &TaskGraph, duration: Vec<Millis>) -> Timing {
        let (timing, device) = self.compute(&Times { graph, duration }, self.device.take());
        drop(device);
        self.last.replace(timing.clone());
        timing
    }
}

/// An answer, who computed it, and how long that was thought to take and took, in picoseconds. Measuring the machine does
/// not count; opening a device does.
struct Done<T> {
    by: &'static str,
    predicted: Option<u64>,
    /// What a device would have needed, where one was thought of.
    instead: Option<String>,
    took: u64,
    answer: T,
}

/// What a device made of some work, or what it would need for it, and the device.
type Tried<W> = (Result<Done<<W as Work>::Answer>, String>, Device);

fn on_cpu<W: Work>(work: &W, cost: Option<CpuCost>) -> Done<W::Answer> {
    let predicted = cost.map(|cost| work.by_cpu(cost));
    let began = Instant::now();
    let answer = work.compute();
    Done { by: Choice::Cpu.words(), predicted, instead: None, took: picos(began), answer }
}

impl Timer {
    /// Computes something and says who did; `open` is the device if one is open. Returns it if it still is.
    fn compute<W: Work>(&self, work: &W, open: Option<Device>) -> (W::Answer, Option<Device>) {
        let asks = match self.wanted {
            Where::Cpu => false,
            Where::Auto => work.size() >= FEW,
            Where::Cuda => true,
        };
        let asks = asks && !matches!(*self.failed.borrow(), Some(OffDevice::Cuda(_)));
        let known = if asks || tracing::enabled!(tracing::Level::INFO) { self.known() } else { None };
        let (done, device) =
            if asks { self.ask(work, open, known) } else { (on_cpu(work, known.map(|known| known.cpu)), open) };
        let Done { by, predicted, instead, took, answer } = done;
        let predicted = predicted.map_or_else(
            || "not predicted (nothing was measured here yet)".to_owned(),
            |time| format!("predicted {}", in_words(time)),
        );
        let instead = instead.map_or_else(String::new, |instead| format!(" ({instead})"));
        info!("{work} by {by}: {predicted}{instead}, took {}", in_words(took));
        (answer, device)
    }

    /// Lets a device compute, if that is wanted or pays.
    fn ask<W: Work>(&self, work: &W, open: Option<Device>, known: Option<Known>) -> (Done<W::Answer>, Option<Device>) {
        let forced = self.wanted == Where::Cuda;
        let least = known.iter().flat_map(Known::costs).map(|cost| work.at_least(cost)).min();
        if let (Some(Known { cpu, .. }), Some(least), None) = (&known, least, &open)
            && !forced
            && work.by_cpu(*cpu) <= least
        {
            let instead = Some(format!("CUDA: at least {}", in_words(least)));
            return (Done { instead, ..on_cpu(work, Some(*cpu)) }, None);
        }
        let cpu = known.as_ref().map_or_else(|| calibrate::cpu(&nanos_since(Instant::now())), |known| known.cpu);
        match cuda::guarded(|| self.on_device(work, open, cpu, known.clone())) {
            Ok((Ok(done), device)) => (done, Some(device)),
            Ok((Err(instead), device)) => (Done { instead: Some(instead), ..on_cpu(work, Some(cpu)) }, Some(device)),
            Err(error) => {
                let is_expected = match &error {
                    OffDevice::Cuda(CudaError::NoDriver) => true,
                    // A driver without a card may be meant so; one that has lost its card is not.
                    OffDevice::Cuda(CudaError::NoDevice(_)) => !spare::has_a_card(),
                    OffDevice::Cuda(_) | OffDevice::TooLong | OffDevice::TooWide | OffDevice::Speed(_) => false,
                };
                if (forced || !is_expected) && self.failed.borrow().as_ref() != Some(&error) {
                    output::note(&format!("timing on the CPU: {error}"));
                }
                if self.known.borrow().is_none() {
                    self.remember(Known::new(cpu));
                }
                self.failed.replace(Some(error));
                (on_cpu(work, Some(cpu)), None)
            }
        }
    }

    /// Computes on the first device to spare, or says what it would need where the CPU is faster.
    fn on_device<W: Work>(
        &self,
        work: &W,
        open: Option<Device>,
        cpu: CpuCost,
        known: Option<Known>,
    ) -> Result<Tried<W>, OffDevice> {
        let (device, opened) = match open {
            Some(device) => (device, None),
            None => {
                let before = Instant::now();
                spare::start()?;
                let started = nanos_since(before)();
                self.ordinal.set(spare::first()?);
                let (device, opened) = timed(self.ordinal.get())?;
                (device, Some((started, opened)))
            }
        };
        let known = known.unwrap_or_else(|| Known::new(cpu));
        let (device, cost) = match known.of(device.about()).map(|known| known.cost) {
            Some(cost) => (device, cost),
            None => self.measure(device, known, opened.unwrap_or_default())?,
        };
        // What is open already costs nothing more.
        let cost = if opened.is_some() { cost } else { DeviceCost { open: 0, ..cost } };
        let began = Instant::now();
        let (predicted, by, ready) = work.on_device(cost);
        if self.wanted != Where::Cuda && work.by_cpu(cpu) <= predicted {
            return Ok((Err(format!("{by}: {}", in_words(predicted))), device));
        }
        let answer = work.compute_on(&device, ready)?;
        let opened = opened.map_or(0, |(started, opened)| (started + opened).saturating_mul(1_000));
        let took = opened.saturating_add(picos(began));
        Ok((Ok(Done { by, predicted: Some(predicted), instead: None, took, answer }), device))
    }

    /// Measures a device that took so long to open, in nanoseconds: to start the driver, which is done once, and to open it.
    fn measure(
        &self,
        mut device: Device,
        mut known: Known,
        (started, opened): (u64, u64),
    ) -> Result<(Device, DeviceCost), OffDevice> {
        debug!("measuring {} ({})", device.about().name, device.about().uuid);
        let mut openings = vec![opened];
        while openings.len() < OPENINGS {
            // Not before the one before it is given back.
            drop(device);
            let (again, opened) = timed(self.ordinal.get())?;
            device = again;
            openings.push(opened);
        }
        let open = started + calibrate::median(openings);
        let calibrate::Measured { cost, in_full } = calibrate::device(&device, open, &nanos_since(Instant::now()))?;
        known.add(KnownDevice::new(device.about(), cost));
        if in_full {
            self.remember(known);
        } else {
            self.known.replace(Some(known));
        }
        Ok((device, cost))
    }

    /// Returns what is known of this machine.
    fn known(&self) -> Option<Known> {
        let mut known = self.known.borrow_mut();
        if known.is_none() {
            *known = Known::read();
        }
        known.clone()
    }

    fn remember(&self, known: Known) {
        known.remember();
        self.known.replace(Some(known));
    }
}

/// Opens a device; returns how long that took, in nanoseconds. Compiling the kernels is part of it.
fn timed(ordinal: usize) -> Result<(Device, u64), CudaError> {
    let before = Instant::now();
    let device = Device::open(ordinal)?;
    device.kernel(Source::LoadMatrix, "load_matrix")?;
    device.kernel(Source::Timing, "slack")?;
    Ok((device, nanos_since(before)()))
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
