//! Measures the constants of [`choice`](super::choice) on this machine: some tenths of a second without a device.
//!
//! The clock of the processor's part is an argument; a device measures itself. Does not remember anything.

use super::choice::{CpuCost, DeviceCost, Way};
use super::cpm::Timing;
use super::device::{DeviceGraph, DeviceLoads, OffDevice};
use super::{loads, sample};
use crate::cuda::Device;
use crate::graph::TaskGraph;
use crate::units::{Millis, Speed};

/// Tries of which the median counts.
const TRIES: usize = 5;

/// Tasks of a level of the graph that the processor is measured on.
const CPU_WIDTH: usize = 2_048;

/// Sources of every task of the graphs that are measured on.
const SOURCES: usize = 4;

/// Levels of the graph on which a device's bandwidth counts, and of the one on which its latency does.
const WIDE: usize = 8;
const DEEP: usize = 500;

/// Memory that a task of the wide graph takes on a device, in bytes: its edges and times in both directions, rounded up.
const PER_TASK: u64 = 128;

/// Durations of the load matrix that is measured, and its speeds, in millionths: none divides without a remainder.
const LOADS: usize = 1 << 16;
const SPEEDS: [Speed; 4] = [Speed(700_001), Speed(1_000_003), Speed(1_300_001), Speed(2_900_017)];
const ENTRIES: u64 = (LOADS * SPEEDS.len()) as u64;

fn work(graph: &TaskGraph) -> u64 {
    super::choice::Shape::work_of(graph).max(1)
}

fn durations(graph: &TaskGraph) -> Vec<Millis> {
    sample::durations(graph.len(), 1)
}

/// Measures the processor. `clock` returns nanoseconds from any moment on.
#[must_use]
pub fn cpu(clock: &dyn Fn() -> u64) -> CpuCost {
    // Larger than caches: a graph that is worth asking about is, too.
    let graph = sample::even(64, CPU_WIDTH, SOURCES, 1);
    let duration = durations(&graph);
    let timing = median_of(clock, || drop(Timing::new(&graph, duration.clone())));
    let duration = sample::durations(LOADS, 1);
    let load = median_of(clock, || drop(loads::matrix(&duration, &SPEEDS)));
    CpuCost { work: per(timing, work(&graph)), load: per(load, ENTRIES) }
}

/// What a device was measured to need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// The constants.
    pub cost: DeviceCost,
    /// Whether it had room for graphs that keep all of it busy: if not, it may do better another time.
    pub in_full: bool,
}

/// Measures a device, with less where little of its memory is free. `open` is how long opening it takes, in nanoseconds;
/// `clock` as for [`cpu`].
///
/// # Errors
/// Of the device.
pub fn device(device: &Device, open: u64, clock: &dyn Fn() -> u64) -> Result<Measured, OffDevice> {
    // As wide as the device has threads, so that its bandwidth counts, and as narrow as a block, so that latency does.
    let threads = device.about().multiprocessors as usize * 1_024;
    // A quarter of what is free: what others take meanwhile and what the driver rounds up must not matter.
    let (free, _) = device.memory()?;
    let room = usize::try_from(free.0 / 4 / PER_TASK).unwrap_or(usize::MAX);
    let width = threads.min(room / WIDE).max(1);
    let levels = DEEP.min(room / 16).max(1);
    let (wide, deep) = (sample::even(WIDE, width, SOURCES, 1), sample::even(levels, 16, SOURCES, 1));
    let steps = 2 * levels as u64;
    let hop = per(kernels(device, &deep, Way::Dataflow)?, steps);
    let barrier = per(kernels(device, &deep, Way::Levels)?, steps);
    let flow = kernels(device, &wide, Way::Dataflow)?;
    let hops = 2 * WIDE as u64 * hop / 1_000;
    let duration = durations(&wide);
    let all = tried(clock, || {
        DeviceGraph::new(device, &wide, Way::Dataflow)?.timing(duration.clone())?;
        Ok::<_, OffDevice>(())
    })?;
    let n_loads = LOADS.min(usize::try_from(free.0 / 64).unwrap_or(usize::MAX)).max(1);
    let some = sample::durations(n_loads, 1);
    let load = tried(clock, || {
        DeviceLoads::new(device, &some, &SPEEDS)?.matrix()?;
        Ok::<_, OffDevice>(())
    })?;
    let cost = DeviceCost {
        open: open.saturating_mul(1_000),
        carry: per(all.saturating_sub(flow), work(&wide)),
        work: per(flow.saturating_sub(hops), work(&wide)).max(1),
        barrier,
        hop,
        load: per(load, (n_loads * SPEEDS.len()) as u64),
    };
    Ok(Measured { cost, in_full: width == threads && levels == DEEP && n_loads == LOADS })
}

/// Returns the median time of some tries, in nanoseconds.
fn median_of(clock: &dyn Fn() -> u64, mut work: impl FnMut()) -> u64 {
    tried(clock, || {
        work();
        Ok::<_, std::convert::Infallible>(())
    })
    .unwrap_or_else(|never| match never {})
}

/// As `median_of`, of work that may fail.
fn tried<E>(clock: &dyn Fn() -> u64, mut work: impl FnMut() -> Result<(), E>) -> Result<u64, E> {
    let mut took = Vec::with_capacity(TRIES);
    for _ in 0..TRIES {
        let before = clock();
        work()?;
        took.push(clock().saturating_sub(before));
    }
    Ok(median(took))
}

/// Returns how long the kernels of one way take for a graph, in nanoseconds.
fn kernels(device: &Device, graph: &TaskGraph, way: Way) -> Result<u64, OffDevice> {
    let mut on_device = DeviceGraph::new(device, graph, way)?;
    on_device.load(&durations(graph))?;
    let watch = device.stopwatch()?;
    on_device.compute()?;
    let mut took = Vec::with_capacity(TRIES);
    for _ in 0..TRIES {
        took.push(watch.time(|| on_device.compute())?);
    }
    Ok(median(took))
}

/// Nanoseconds for all of it as picoseconds for each.
const fn per(nanos: u64, parts: u64) -> u64 {
    let picos = nanos.saturating_mul(1_000) / parts;
    if picos == 0 { 1 } else { picos }
}

/// Returns the middle of some measurements; zero of none.
#[must_use]
pub fn median(mut times: Vec<u64>) -> u64 {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn the_processor_is_measured_by_the_clock_that_is_given() {
        let now = Cell::new(0);
        // Each look at the clock is two milliseconds later than the one before.
        let clock = || now.replace(now.get() + 2_000_000);
        let work = (64 + 63 * 4) * CPU_WIDTH as u64;
        assert_eq!(cpu(&clock), CpuCost { work: 2_000_000_000 / work, load: 2_000_000_000 / ENTRIES });
    }
}
