//! What every place has free over time, packed for the decoder, and where a request fits first.
//!
//! Does not know tasks or rules.

use super::amounts::{self, Amounts, Demand, Lanes};
use super::instance::{Choice, DeviceNeed, Instance};
use super::profile::Profile;
use crate::fleet::{DeviceId, NodeId};
use crate::units::Share;

/// What every place has free, now and over time.
pub(super) struct Machine<const W: usize> {
    pub(super) node_lanes: Lanes<W>,
    pub(super) device_lanes: Lanes<W>,
    pub(super) node_offer: Vec<Amounts<W>>,
    pub(super) device_offer: Vec<Amounts<W>>,
    pub(super) nodes: Vec<Profile<W>>,
    pub(super) devices: Vec<Profile<W>>,
    /// What every request asks for at least, save for those that ask for nothing.
    node_least: Amounts<W>,
    device_least: Amounts<W>,
}

/// A choice's requests.
#[derive(Clone, Copy)]
pub(super) struct Packed<const W: usize> {
    pub(super) node: Amounts<W>,
    /// `None`: all of the device.
    pub(super) device: Option<Amounts<W>>,
}

/// Returns how many words hold what a node or a device has.
pub(super) fn words(instance: &Instance<'_>) -> usize {
    let (node, device) = demands(instance);
    amounts::words(&node).max(amounts::words(&device))
}

/// Returns what is asked for and offered: of nodes by resource; of devices memory, then share.
pub(super) fn demands(instance: &Instance<'_>) -> (Vec<Demand>, Vec<Demand>) {
    let mut tasks_of = vec![0_u64; instance.kinds.len()];
    instance.kind.iter().for_each(|kind| tasks_of[*kind as usize] += 1);
    let mut node = vec![Demand::default(); instance.resources.len()];
    let mut device = vec![Demand::default(); 2];
    for (kind, times) in instance.kinds.iter().zip(tasks_of) {
        for choice in &kind.choices {
            node.iter_mut().zip(choice.need.iter()).for_each(|(demand, need)| demand.ask(*need, times));
            if choice.gang > 0 {
                let asked = device_amounts(choice.per_device);
                device.iter_mut().zip(asked).for_each(|(demand, need)| demand.ask(need, times));
            }
        }
    }
    for room in &instance.nodes {
        node.iter_mut().zip(&room.capacity).for_each(|(demand, amount)| demand.offer(*amount));
    }
    for room in &instance.devices {
        device[0].offer(room.memory.0);
        device[1].offer(u64::from(Share::WHOLE.0));
    }
    (node, device)
}

/// Returns the memory and share that a choice counts with in the layout of the lanes.
pub(super) const fn asked(choice: &Choice) -> [u64; 2] {
    device_amounts(choice.per_device)
}

const fn device_amounts(need: DeviceNeed) -> [u64; 2] {
    match need {
        DeviceNeed::Exclusive => [0, Share::WHOLE.0 as u64],
        DeviceNeed::Part { memory, share } => [memory, share],
    }
}

impl<const W: usize> Machine<W> {
    /// Makes the machine of an instance, empty.
    pub(super) fn new(instance: &Instance<'_>) -> Self {
        let (node, device) = demands(instance);
        let (node_lanes, device_lanes) = (Lanes::new(&node), Lanes::new(&device));
        let node_offer = instance.nodes.iter().map(|room| node_lanes.offer(room.capacity.iter().copied()));
        let node_offer: Vec<_> = node_offer.collect();
        let whole = u64::from(Share::WHOLE.0);
        let device_offer = instance.devices.iter().map(|room| device_lanes.offer([room.memory.0, whole]));
        let device_offer: Vec<_> = device_offer.collect();
        let choices = || instance.kinds.iter().flat_map(|kind| &kind.choices);
        let needs = choices().filter(|choice| choice.duration() > 0).map(|choice| &choice.need);
        let node_least = least(needs, instance.resources.len());
        let needs = choices().filter(|choice| choice.gang > 0 && choice.duration() > 0);
        let device_least = least(needs.map(|choice| device_amounts(choice.per_device)), 2);
        Self {
            nodes: node_offer.iter().map(|offer| Profile::new(*offer)).collect(),
            devices: device_offer.iter().map(|offer| Profile::new(*offer)).collect(),
            node_least: node_lanes.request(node_least),
            device_least: device_lanes.request(device_least),
            node_lanes,
            device_lanes,
            node_offer,
            device_offer,
        }
    }

    /// Packs the requests of a choice.
    pub(super) fn packed(&self, choice: &Choice) -> Packed<W> {
        let device = match choice.per_device {
            DeviceNeed::Exclusive => None,
            DeviceNeed::Part { memory, share } => Some(self.device_lanes.request([memory, share])),
        };
        Packed { node: self.node_lanes.request(choice.need.iter().copied()), device }
    }

    /// Makes every place empty.
    pub(super) fn clear(&mut self) {
        self.nodes.iter_mut().zip(&self.node_offer).for_each(|(profile, offer)| profile.clear(*offer));
        self.devices.iter_mut().zip(&self.device_offer).for_each(|(profile, offer)| profile.clear(*offer));
    }

    /// Returns what a request holds of a device.
    pub(super) fn need_of(&self, packed: Packed<W>, device: DeviceId) -> Amounts<W> {
        packed.device.unwrap_or_else(|| self.device_lanes.all_of(self.device_offer[device.index()]))
    }

    /// Holds what a choice asks for.
    pub(super) fn take(&mut self, packed: Packed<W>, node: NodeId, devices: &[DeviceId], start: u64, finish: u64) {
        self.nodes[node.index()].take(&self.node_lanes, self.node_least, packed.node, start, finish);
        for device in devices {
            let need = self.need_of(packed, *device);
            self.devices[device.index()].take(&self.device_lanes, self.device_least, need, start, finish);
        }
    }

    /// Returns the earliest start in `from..=latest` on one node, and leaves in `feasible` the devices that are free
    /// from then on for the whole duration, by DeviceId: at least as many as the choice asks for.
    pub(super) fn earliest(
        &self,
        packed: Packed<W>,
        choice: &Choice,
        (node, devices): (NodeId, &[DeviceId]),
        from: u64,
        latest: u64,
        feasible: &mut Vec<(u64, DeviceId)>,
    ) -> Option<u64> {
        let profile = &self.nodes[node.index()];
        let duration = choice.duration();
        let on_node = |from: u64| profile.earliest(&self.node_lanes, packed.node, from, duration, latest);
        feasible.clear();
        // Devices are asked first: they are mostly what is waited for, and have fewer steps.
        let mut start = from;
        match choice.gang {
            0 => on_node(from),
            1 => loop {
                let free = self.first_free(packed, devices, (start, duration, latest), feasible)?;
                start = on_node(free)?;
                if start == free {
                    return Some(start);
                }
            },
            gang => {
                let free = |device: DeviceId, from: u64| {
                    let (need, profile) = (self.need_of(packed, device), &self.devices[device.index()]);
                    profile.earliest(&self.device_lanes, need, from, duration, latest)
                };
                feasible.extend(devices.iter().filter_map(|device| Some((free(*device, start)?, *device))));
                let mut has_room = None;
                loop {
                    let enough = nth_free(feasible, gang as usize)?;
                    if has_room != Some(enough) {
                        has_room = Some(on_node(enough)?);
                    }
                    if has_room == Some(start) {
                        feasible.retain(|(at, _)| *at == start);
                        feasible.sort_unstable_by_key(|(_, device)| *device);
                        return Some(start);
                    }
                    start = has_room?;
                    // A device that is first free later is not free before.
                    feasible.retain_mut(|(at, device)| {
                        let later = if *at < start { free(*device, start) } else { Some(*at) };
                        later.inspect(|later| *at = *later).is_some()
                    });
                }
            }
        }
    }

    /// Returns when the first of some devices is free for a duration, and leaves those that are free then.
    fn first_free(
        &self,
        packed: Packed<W>,
        devices: &[DeviceId],
        (start, duration, mut latest): (u64, u64, u64),
        feasible: &mut Vec<(u64, DeviceId)>,
    ) -> Option<u64> {
        feasible.clear();
        for device in devices {
            let (need, profile) = (self.need_of(packed, *device), &self.devices[device.index()]);
            if let Some(free) = profile.earliest(&self.device_lanes, need, start, duration, latest) {
                if free < latest {
                    feasible.clear();
                    latest = free;
                }
                feasible.push((free, *device));
            }
        }
        feasible.first().map(|(free, _)| *free)
    }
}

/// Returns when the last of a gang's first devices is free by itself: before, fewer than the gang are.
fn nth_free(devices: &mut [(u64, DeviceId)], gang: usize) -> Option<u64> {
    (gang <= devices.len()).then(|| devices.select_nth_unstable(gang - 1).1.0)
}

/// Returns the least that any request which asks for something asks of each resource.
fn least(needs: impl Iterator<Item = impl AsRef<[u64]>>, n: usize) -> Vec<u64> {
    let mut least: Option<Vec<u64>> = None;
    for need in needs {
        let need = need.as_ref();
        if need.iter().all(|amount| *amount == 0) {
            continue;
        }
        match &mut least {
            Some(least) => least.iter_mut().zip(need).for_each(|(least, amount)| *least = (*least).min(*amount)),
            None => least = Some(need.to_vec()),
        }
    }
    least.unwrap_or_else(|| vec![0; n])
}
