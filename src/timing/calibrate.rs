//! Measures the constants of [`choice`](super::choice) on this machine: some tenths of a second without a device.
//!
//! The clock of the processor's part is an argument; a device measures itself. Does not remember anything.

use super::choice::{CpuCost, DeviceCost, Way};
use super::cpm::Timing;
use super::device::{DeviceGraph, OffDevice};
use super::sample;
use crate::cuda::Device;
use crate::graph::TaskGraph;
use crate::units::Millis;

/// Tries of which the median counts.
const TRIES: usize = 5;

/// Tasks of a level of the graph that the processor is measured on.
const CPU_WIDTH: usize = 2_048;

/// Sources of every task of the graphs that are measured on.
const SOURCES: usize = 4;

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
    let mut took = Vec::with_capacity(TRIES);
    for _ in 0..TRIES {
        let own = duration.clone();
        let before = clock();
        let timing = Timing::new(&graph, own);
        took.push(clock().saturating_sub(before));
        drop(timing);
    }
    CpuCost { work: per(median(took), work(&graph)) }
}

/// Measures a device. `open` is how long opening it took, in nanoseconds; `clock` as for [`cpu`].
///
/// # Errors
/// Of the device.
pub fn device(device: &Device, open: u64, clock: &dyn Fn() -> u64) -> Result<DeviceCost, OffDevice> {
    // As wide as the device has threads, so that its bandwidth counts, and as narrow as a block, so that latency does.
    let width = device.about().multiprocessors as usize * 1_024;
    let (wide, deep) = (sample::even(8, width, SOURCES, 1), sample::even(500, 16, SOURCES, 1));
    let deep_levels = 500;
    let hop = per(kernels(device, &deep, Way::Dataflow)?, 2 * deep_levels);
    let barrier = per(kernels(device, &deep, Way::Levels)?, 2 * deep_levels);
    let flow = kernels(device, &wide, Way::Dataflow)?;
    let hops = 2 * 8 * hop / 1_000;
    let duration = durations(&wide);
    let before = clock();
    let mut laid_out = DeviceGraph::new(device, &wide, Way::Dataflow)?;
    let timing = laid_out.timing(duration)?;
    let all = clock().saturating_sub(before);
    drop(timing);
    Ok(DeviceCost {
        open: open.saturating_mul(1_000),
        carry: per(all.saturating_sub(flow), work(&wide)),
        work: per(flow.saturating_sub(hops), work(&wide)).max(1),
        barrier,
        hop,
    })
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

fn median(mut times: Vec<u64>) -> u64 {
    times.sort_unstable();
    times[times.len() / 2]
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
        assert_eq!(cpu(&clock).work, 2_000_000_000 / work);
    }
}
