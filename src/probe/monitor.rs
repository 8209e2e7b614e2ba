//! Reads the devices of a run again and again while it goes on.
//!
//! One reading costs a handful of driver calls per device and no process; how often is the caller's choice.

use nvml_wrapper::Nvml;

use super::{Gpus, NoGpus, Options, Reading, nvml};

/// Keeps NVML open and reads a fixed set of devices.
#[derive(Debug)]
pub struct Monitor {
    nvml: Nvml,
    uuids: Vec<String>,
}

impl Monitor {
    /// Opens NVML for the devices of an inventory; `Ok(None)` if it holds none.
    ///
    /// # Errors
    /// If NVML worked when the inventory was taken and does not any more.
    pub fn open(options: &Options, gpus: &Gpus) -> Result<Option<Self>, NoGpus> {
        let uuids: Vec<_> = gpus.devices().iter().map(|gpu| gpu.uuid.clone()).collect();
        if uuids.is_empty() { Ok(None) } else { nvml::open(options).map(|nvml| Some(Self { nvml, uuids })) }
    }

    /// Reads every device once, in the order of the inventory. A lost device has a [`fault`](Reading::fault).
    #[must_use]
    pub fn read(&self) -> Vec<Reading> {
        self.uuids.iter().map(|uuid| nvml::read_by_uuid(&self.nvml, uuid)).collect()
    }
}
