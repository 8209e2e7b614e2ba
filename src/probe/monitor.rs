//! Reads the devices of a run again and again while it goes on, and listens for what the driver reports of them.
//!
//! One reading costs a handful of driver calls per device and no process; how often is the caller's choice.

use std::collections::{HashMap, HashSet};

use super::aside::{List, Why};
use super::gpu::Fault;
use super::nvml::{self, Reports};
use super::{Gpus, NoGpus, Options, Reading, xid};

/// Keeps NVML open and reads a fixed set of devices.
#[derive(Debug)]
pub struct Monitor {
    reports: Reports,
    devices: Vec<Known>,
    aside: Option<List>,
    /// Devices in quarantine, by UUID, that could not be put on the list.
    unfit: HashMap<String, Why>,
    /// UUIDs of devices that did not answer when they were last read.
    lost: HashSet<String>,
}

/// A device that is read.
#[derive(Debug)]
struct Known {
    name: String,
    uuid: String,
    /// UUID of the card that it is, or is a slice of.
    card: String,
}

impl Monitor {
    /// Opens NVML for the devices of an inventory; `Ok(None)` if it holds none.
    ///
    /// # Errors
    /// If NVML worked when the inventory was taken and does not any more.
    pub fn open(options: &Options, gpus: &Gpus) -> Result<Option<Self>, NoGpus> {
        let known = |gpu: &super::Gpu| Known { name: gpu.name(), uuid: gpu.uuid.clone(), card: gpu.card().to_owned() };
        let devices: Vec<_> = gpus.devices().iter().map(known).collect();
        if devices.is_empty() {
            return Ok(None);
        }
        let mut cards: Vec<&str> = devices.iter().map(|known| known.card.as_str()).collect();
        cards.sort_unstable();
        cards.dedup();
        let reports = Reports::open(options, &cards)?;
        Ok(Some(Self { reports, devices, aside: options.aside(), unfit: HashMap::new(), lost: HashSet::new() }))
    }

    /// Whether the driver is too old to report errors of its cards: one that fails is noticed once it does not answer.
    #[must_use]
    pub const fn hears_no_errors(&self) -> bool {
        self.reports.is_mute()
    }

    /// Reads every device once, in the order of the inventory. A device that is lost or set aside has a
    /// [`fault`](Reading::fault).
    pub fn read(&mut self) -> Vec<Reading> {
        self.listen();
        let nvml = self.reports.nvml();
        let mut readings: Vec<_> =
            self.devices.iter().map(|known| nvml::read_by_uuid(nvml, &known.uuid, &known.card)).collect();
        self.note_lost(&readings);
        let listed = self.aside.as_ref().map(List::read).unwrap_or_default();
        let aside = |known: &Known| {
            let is_it = |other: &str| other == known.uuid || other == known.card;
            let here = self.unfit.iter().find(|(other, _)| is_it(other)).map(|(_, why)| why);
            here.or_else(|| listed.iter().find(|aside| is_it(&aside.uuid)).map(|aside| &aside.why)).cloned()
        };
        for (reading, known) in readings.iter_mut().zip(&self.devices) {
            // A lost device is lost, whatever else is the matter with it.
            reading.fault = reading.fault.take().or_else(|| aside(known).map(Fault::Aside));
        }
        readings
    }

    /// Puts devices in quarantine that have been lost since they were last read: one that answers again is not well.
    fn note_lost(&mut self, readings: &[Reading]) {
        for reading in readings {
            let Some(Fault::Lost(answer)) = &reading.fault else {
                self.lost.remove(&reading.uuid);
                continue;
            };
            if self.lost.insert(reading.uuid.clone()) {
                self.quarantine(reading.uuid.clone(), Why::Lost { answer: answer.clone() });
            }
        }
    }

    /// Takes in what the driver has reported since the last time.
    fn listen(&mut self) {
        for (card, why, times) in self.reports.take() {
            if let Why::Xid { code } = why
                && xid::fatal(code).is_none()
            {
                let (names, words) = (self.names(&card), xid::harmless(code));
                let times = if times > 1 { format!(" {times} times") } else { String::new() };
                tracing::warn!(xid = code, "the driver reports an error on {names}{times}: {words}");
                continue;
            }
            self.quarantine(card, why);
        }
    }

    /// Returns how a device is called, or the slices of a card.
    fn names(&self, uuid: &str) -> String {
        let is_it = |known: &&Known| known.uuid == uuid || known.card == uuid;
        let names: Vec<&str> = self.devices.iter().filter(is_it).map(|known| known.name.as_str()).collect();
        names.join(", ")
    }

    /// Keeps a device from being used until it is taken back.
    fn quarantine(&mut self, device: String, why: Why) {
        tracing::warn!(device, "{} is {why}", self.names(&device));
        match self.aside.as_ref().map(|list| list.add(&device, why.clone())) {
            Some(Ok(())) => return,
            Some(Err(error)) => {
                tracing::warn!(device, %error, "that it is in quarantine cannot be kept for other runs");
            }
            None => {}
        }
        self.unfit.insert(device, why);
    }
}
