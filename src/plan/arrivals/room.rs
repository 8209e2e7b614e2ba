//! What a node has left, and the ways in which a request can have it. Does not know which way is best.

use super::{Node, Request};
use crate::units::{Bytes, Cpus, Share};

/// What a node has left.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Room {
    pub(super) cpus: Cpus,
    pub(super) memory: Bytes,
    /// `[n_devices]`: what of each is left.
    pub(super) devices: Vec<Share>,
    /// Which model its devices are: an index into the cluster's models.
    pub(super) model: usize,
}

/// A request in the numbers of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Ask {
    pub(super) cpus: Cpus,
    pub(super) share: Share,
    pub(super) gpus: usize,
    /// `[n_models]`: whether it may run on each; empty where it does not matter.
    pub(super) models: Vec<bool>,
    pub(super) memory: Bytes,
}

impl Ask {
    pub(super) fn new(request: &Request, models: &[&str]) -> Self {
        let wanted = |model: &&str| request.models.iter().any(|wanted| wanted == model);
        let any = request.gpus == 0 || request.models.is_empty();
        Self {
            cpus: request.cpus,
            share: if request.gpus == 0 { Share::ZERO } else { request.share },
            gpus: request.gpus,
            models: if any { Vec::new() } else { models.iter().map(wanted).collect() },
            memory: request.memory,
        }
    }

    /// Whether it may run on devices of a model.
    pub(super) fn accepts(&self, model: usize) -> bool {
        self.models.get(model).copied().unwrap_or(true)
    }

    /// What it takes of all devices together.
    pub(super) fn devices(&self) -> u64 {
        self.gpus as u64 * u64::from(self.share.0)
    }
}

impl Room {
    /// What an empty node has.
    pub(super) fn of(node: &Node, models: &[&str]) -> Self {
        let model = models.iter().position(|model| *model == node.model).unwrap_or(models.len());
        Self { cpus: node.cpus, memory: node.memory, devices: vec![Share::WHOLE; node.gpus], model }
    }

    /// Whether a request can have what it asks for.
    pub(super) fn can_host(&self, ask: &Ask) -> bool {
        let enough = || self.devices.iter().filter(|left| **left >= ask.share).count() >= ask.gpus;
        self.cpus >= ask.cpus && self.memory >= ask.memory && (ask.gpus == 0 || ask.accepts(self.model) && enough())
    }

    /// What is left of all devices together.
    pub(super) fn devices_left(&self) -> u64 {
        self.devices.iter().map(|left| u64::from(left.0)).sum()
    }

    /// Takes what a request asks for, of these devices.
    pub(super) fn take(&mut self, ask: &Ask, devices: &[usize]) {
        self.cpus -= ask.cpus;
        self.memory -= ask.memory;
        devices.iter().for_each(|device| self.devices[*device] -= ask.share);
    }

    /// Returns the devices that a request could have, those with the least left first; of equal ones the first.
    pub(super) fn tightest(&self, ask: &Ask) -> Vec<usize> {
        let mut devices = self.enough(ask);
        devices.sort_by_key(|device| self.devices[*device]);
        devices.truncate(ask.gpus);
        devices
    }

    /// The same, those with the most left first.
    pub(super) fn loosest(&self, ask: &Ask) -> Vec<usize> {
        let mut devices = self.enough(ask);
        devices.sort_by_key(|device| std::cmp::Reverse(self.devices[*device]));
        devices.truncate(ask.gpus);
        devices
    }

    /// Returns the devices with enough left for a request.
    pub(super) fn enough(&self, ask: &Ask) -> Vec<usize> {
        (0..self.devices.len()).filter(|device| ask.gpus > 0 && self.devices[*device] >= ask.share).collect()
    }

    /// Calls with every way to choose devices that makes a difference: for a part of one device each that has another
    /// amount left, otherwise the tightest.
    pub(super) fn each_way(&self, ask: &Ask, mut call: impl FnMut(&[usize])) {
        if ask.gpus != 1 || ask.share == Share::WHOLE {
            return call(&self.tightest(ask));
        }
        for (device, left) in self.devices.iter().enumerate().filter(|(_, left)| **left >= ask.share) {
            if !self.devices[..device].contains(left) {
                call(&[device]);
            }
        }
    }
}
