//! What can be computed by the CPU or by a CUDA device: a load matrix, and the times of a graph.

use std::fmt;

use crate::cuda::Device;
use crate::graph::TaskGraph;
use crate::timing::choice::{Choice, CpuCost, DeviceCost, Shape, Way};
use crate::timing::device::{DeviceGraph, DeviceLoads, OffDevice};
use crate::timing::layout::Both;
use crate::timing::{Timing, loads};
use crate::units::{Millis, Speed};

/// Something to compute, by whom it is done soonest. All times are in picoseconds. Written, it says what it is.
pub(super) trait Work: fmt::Display {
    /// What comes out: the same by whomever.
    type Answer;
    /// What is found out on the way to a device's prediction.
    type Ready;

    /// Numbers to work through.
    fn size(&self) -> u64;
    /// Predicts the CPU.
    fn by_cpu(&self, cost: CpuCost) -> u64;
    /// Returns what no device is faster than: known at once.
    fn at_least(&self, cost: DeviceCost) -> u64;
    /// Predicts the device, and says how it would do it.
    fn on_device(&self, cost: DeviceCost) -> (u64, &'static str, Self::Ready);
    /// Lets the CPU do it.
    fn compute(&self) -> Self::Answer;
    /// Lets a device do it.
    fn compute_on(&self, device: &Device, ready: Self::Ready) -> Result<Self::Answer, OffDevice>;
}

/// The load matrix of some durations at some speeds.
pub(super) struct Loads<'a> {
    pub(super) duration: &'a [Millis],
    pub(super) speed: &'a [Speed],
}

impl fmt::Display for Loads<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (durations, speeds) = (counted(self.duration.len(), "duration"), counted(self.speed.len(), "speed"));
        write!(f, "load matrix of {durations} at {speeds}")
    }
}

impl Work for Loads<'_> {
    type Answer = Vec<Vec<Millis>>;
    type Ready = ();

    fn size(&self) -> u64 {
        self.duration.len() as u64 * self.speed.len() as u64
    }

    fn by_cpu(&self, cost: CpuCost) -> u64 {
        cost.predict_loads(self.size())
    }

    fn at_least(&self, cost: DeviceCost) -> u64 {
        cost.predict_loads(self.size())
    }

    fn on_device(&self, cost: DeviceCost) -> (u64, &'static str, ()) {
        (cost.predict_loads(self.size()), "CUDA", ())
    }

    fn compute(&self) -> Self::Answer {
        loads::matrix(self.duration, self.speed)
    }

    fn compute_on(&self, device: &Device, (): ()) -> Result<Self::Answer, OffDevice> {
        Ok(DeviceLoads::new(device, self.duration, self.speed)?.matrix()?)
    }
}

/// The earliest and latest times of a graph.
pub(super) struct Times<'a> {
    pub(super) graph: &'a TaskGraph,
    pub(super) duration: Vec<Millis>,
}

impl fmt::Display for Times<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tasks, edges) = (counted(self.graph.len(), "task"), counted(self.graph.before.edges.len(), "edge"));
        write!(f, "earliest and latest times of {tasks} and {edges}")
    }
}

impl Work for Times<'_> {
    type Answer = Timing;
    type Ready = (Both, Way);

    fn size(&self) -> u64 {
        Shape::work_of(self.graph)
    }

    fn by_cpu(&self, cost: CpuCost) -> u64 {
        cost.predict(self.size())
    }

    fn at_least(&self, cost: DeviceCost) -> u64 {
        cost.least(self.size())
    }

    fn on_device(&self, cost: DeviceCost) -> (u64, &'static str, (Both, Way)) {
        let layouts = Both::new(self.graph);
        let (way, predicted) = cost.best(&Shape::new(self.graph, &layouts));
        (predicted, Choice::Device(way).words(), (layouts, way))
    }

    fn compute(&self) -> Timing {
        Timing::new(self.graph, self.duration.clone())
    }

    fn compute_on(&self, device: &Device, (layouts, way): (Both, Way)) -> Result<Timing, OffDevice> {
        DeviceGraph::laid_out(device, self.graph, layouts, way)?.timing(self.duration.clone())
    }
}

fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
