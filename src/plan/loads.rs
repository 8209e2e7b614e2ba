//! `L = T / P` for every mode of a pipeline at every speed of a fleet, computed all at once by whoever computes times.
//!
//! Does not know durations that are declared for a model, nor what fits where.

use std::collections::HashMap;

use crate::fleet::{DeviceId, Fleet, NodeId};
use crate::spec::Stage;
use crate::timing::{Backend, Load};
use crate::units::{Millis, Speed};

/// The load matrix of modes and speeds.
#[derive(Debug)]
pub(super) struct Loads {
    /// `[n_speeds][n_modes]`.
    times: Vec<Vec<Millis>>,
    /// `[n_devices]` and `[n_nodes]`: whose speed is which row.
    of_device: Vec<u32>,
    of_node: Vec<u32>,
}

impl Loads {
    /// Computes it; modes are counted through all `stages`.
    pub(super) fn new(stages: &[&Stage], fleet: &Fleet, timed_by: &dyn Backend) -> Self {
        let modes = stages.iter().flat_map(|stage| &stage.modes);
        let duration: Vec<_> = modes.map(|mode| Load::at_speed_one(&mode.duration)).collect();
        let (mut speeds, mut rows) = (Vec::new(), HashMap::new());
        let mut row = |speed: Speed| {
            *rows.entry(speed).or_insert_with(|| {
                speeds.push(speed);
                u32::try_from(speeds.len() - 1).expect("fewer speeds than devices and nodes")
            })
        };
        let of_device = fleet.devices.iter().map(|device| row(device.speed)).collect();
        let of_node = fleet.nodes.iter().map(|node| row(node.speed)).collect();
        Self { times: timed_by.loads(&duration, &speeds), of_device, of_node }
    }

    /// Returns how long a mode takes on a device, models aside.
    pub(super) fn on_device(&self, device: DeviceId, mode: usize) -> Millis {
        self.times[self.of_device[device.index()] as usize][mode]
    }

    /// Returns how long a mode takes on a node's host.
    pub(super) fn on_node(&self, node: NodeId, mode: usize) -> Millis {
        self.times[self.of_node[node.index()] as usize][mode]
    }
}
