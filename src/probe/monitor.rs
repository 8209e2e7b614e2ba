//! Reads the devices of a run again and again while it goes on, and listens for what the driver reports of them.
//!
//! One reading costs a handful of driver calls per device and no process; how often is the caller's choice.

use std::collections::HashMap;

use super::aside::{List, Why};
use super::gpu::Fault;
use super::nvml::{self, Reports};
use super::{Gpus, NoGpus, Options, Reading, xid};

/// Keeps NVML open and reads a fixed set of devices.
#[derive(Debug)]
pub struct Monitor {
    reports: Reports,
    /// UUID of each device, and of the card that it is a slice of.
    devices: Vec<(String, Option<String>)>,
    aside: Option<List>,
    /// Devices in quarantine, by UUID, should the list not be writable.
    unfit: HashMap<String, Why>,
}

impl Monitor {
    /// Opens NVML for the devices of an inventory; `Ok(None)` if it holds none.
    ///
    /// # Errors
    /// If NVML worked when the inventory was taken and does not any more.
    pub fn open(options: &Options, gpus: &Gpus) -> Result<Option<Self>, NoGpus> {
        let card = |gpu: &super::Gpu| gpu.slice.as_ref().map(|slice| slice.card.clone());
        let devices: Vec<_> = gpus.devices().iter().map(|gpu| (gpu.uuid.clone(), card(gpu))).collect();
        if devices.is_empty() {
            return Ok(None);
        }
        let mut cards: Vec<&str> = devices.iter().map(|(uuid, card)| card.as_deref().unwrap_or(uuid)).collect();
        cards.sort_unstable();
        cards.dedup();
        let reports = Reports::open(options, &cards)?;
        Ok(Some(Self { reports, devices, aside: options.aside(), unfit: HashMap::new() }))
    }

    /// Reads every device once, in the order of the inventory. A device that is lost or set aside has a
    /// [`fault`](Reading::fault).
    pub fn read(&mut self) -> Vec<Reading> {
        self.listen();
        let listed = self.aside.as_ref().map(List::read).unwrap_or_default();
        let aside = |uuid: &str, card: Option<&str>| {
            let is_it = |other: &str| other == uuid || Some(other) == card;
            let here = self.unfit.iter().find(|(other, _)| is_it(other)).map(|(_, why)| why);
            here.or_else(|| listed.iter().find(|aside| is_it(&aside.uuid)).map(|aside| &aside.why)).cloned()
        };
        let read = |(uuid, card): &(String, Option<String>)| {
            let mut reading = nvml::read_by_uuid(self.reports.nvml(), uuid);
            // A lost device stays lost, whatever else is the matter with it.
            reading.fault = reading.fault.or_else(|| aside(uuid, card.as_deref()).map(Fault::Aside));
            reading
        };
        self.devices.iter().map(read).collect()
    }

    /// Takes in what the driver has reported since the last time.
    fn listen(&mut self) {
        for (card, why) in self.reports.take() {
            if let Why::Xid { code } = why
                && xid::fatal(code).is_none()
            {
                let words = xid::of_program(code).unwrap_or("nothing that makes it unfit");
                tracing::warn!(card, xid = code, "the driver reports an error on a device: {words}");
                continue;
            }
            tracing::warn!(card, "a device is {why}");
            if let Some(list) = &self.aside
                && let Err(error) = list.add(&card, why.clone())
            {
                tracing::warn!(card, %error, "that it is in quarantine cannot be kept for other runs");
            }
            self.unfit.insert(card, why);
        }
    }
}
