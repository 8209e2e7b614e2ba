//! One resource over the classes of places that offer it: what tasks hold of it, and for how long.
//!
//! What fits together is not only less than there is: beside 41 GiB of 80 no other 41 GiB fit. So amounts may also be
//! counted in a way that keeps together what fits together, and by which such a task takes all. Source: the dual feasible
//! functions of Carlier, Clautiaux and Moukrim, "New reduction procedures and lower bounds for the two-dimensional bin
//! packing problem with fixed orientation", 2007.

use std::cmp::Ordering;

use super::super::build::{CPUS, HOST_MEMORY};
use super::super::instance::{Choice, DeviceNeed, Instance};
use super::{Area, ONE, PART_MOST, WEIGHT, to_f64};
use crate::fleet::DeviceId;
use crate::units::Share;

/// Rounds in which the weights of classes are improved: further ones change the fourth digit.
const ROUNDS: usize = 24;
/// The same where there are two: as often as it takes to know a weight to one part of 2^12.
const HALVINGS: usize = 12;
/// Ways to count that are tried of each resource, and how many times the kinds of tasks they may be: a pipeline of
/// different tasks has small ones among them, that fill what the large ones leave.
const COUNTS: (usize, usize) = (16, 1 << 11);
/// With fewer, none is tried.
const COUNTS_LEAST: usize = 4;

/// One resource over the classes of places that offer it.
#[derive(Debug)]
pub(super) struct Axis {
    pub(super) name: &'static str,
    /// Whether devices offer it, not nodes.
    pub(super) of_devices: bool,
    /// `[n_classes]`: what all places of the class offer together.
    pub(super) capacity: Vec<u128>,
    /// Ways to run a task of each kind, one kind after the other.
    ways: Vec<Way>,
    /// `[n_kinds]`: where its ways end.
    ends: Vec<usize>,
}

/// One way to run a task: how much it holds for how long in which class.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    /// Index of the choice that it belongs to.
    pub(super) choice: u32,
    /// Index of the class; `None` for a way that asks nothing of this resource.
    class: Option<usize>,
    /// What it holds, times how long, as a part of what the class offers: the time for which it would fill the class, in
    /// parts of [`ONE`]; nothing where it asks for nothing.
    part: u128,
}

impl Way {
    fn new(choice: u32, class: Option<usize>, area: u128, capacity: &[u128]) -> Self {
        let class = class.filter(|_| area > 0);
        let part = class.and_then(|class| area.saturating_mul(ONE).checked_div(capacity[class])).unwrap_or(0);
        Self { choice, class, part: part.min(PART_MOST) }
    }
}

impl Axis {
    /// Lists the ways to run each kind of task, by what they hold of a resource, counted in one way.
    fn new(instance: &Instance<'_>, resource: Resource, count: Count) -> Self {
        let offers = resource.offers(instance);
        let counted = |(each, places): &(u64, u64)| u128::from(*places) * u128::from(count.of(*each, *each).1);
        let capacity: Vec<_> = offers.iter().map(counted).collect();
        let choices = instance.kinds.iter().map(|kind| kind.choices.len()).sum();
        let (mut ways, mut ends) = (Vec::with_capacity(choices), Vec::with_capacity(instance.kinds.len()));
        for kind in &instance.kinds {
            for (index, choice) in (0..).zip(&kind.choices) {
                resource.asks(instance, choice, &offers, |class, amount, time| {
                    let amount = class.map_or(0, |class| count.of(amount, offers[class].0).0);
                    ways.push(Way::new(index, class, u128::from(amount) * time, &capacity));
                });
            }
            ends.push(ways.len());
        }
        Self { name: resource.name(instance), of_devices: resource.is_of_devices(), capacity, ways, ends }
    }

    /// Yields the ways of each kind.
    pub(super) fn kinds(&self) -> impl Iterator<Item = &[Way]> {
        let mut from = 0;
        self.ends.iter().map(move |end| &self.ways[std::mem::replace(&mut from, *end)..*end])
    }

    /// The least weighted area of a task over its ways, in parts of [`ONE`] of what the classes offer.
    pub(super) fn least(ways: &[Way], weights: &[u32]) -> u128 {
        ways.iter().map(|way| Self::weighed(*way, weights)).min().unwrap_or(0)
    }

    pub(super) fn weighed(way: Way, weights: &[u32]) -> u128 {
        way.class.map_or(0, |class| way.part * u128::from(weights[class]))
    }

    /// Finds weights of the classes by repeated assignment: the classes that get more than their part become dearer.
    pub(super) fn weights(&self, instance: &Instance<'_>) -> Vec<u32> {
        let classes = self.capacity.len();
        if classes <= 1 {
            return vec![1; classes];
        }
        let mut tasks_of = vec![0_u32; self.ends.len()];
        instance.kind.iter().for_each(|kind| tasks_of[*kind as usize] += 1);
        // Class and part of each way in floating point; who can do without it weighs nothing.
        let parts = |way: &Way| (way.class.unwrap_or(0), to_f64(way.part) / to_f64(ONE));
        let parts: Vec<_> = self.ways.iter().map(parts).collect();
        let total: u128 = self.capacity.iter().sum();
        let mut weight: Vec<_> = self.capacity.iter().map(|part| to_f64(*part) / to_f64(total.max(1))).collect();
        let mut best = (0.0, weight.clone());
        let mut load = vec![0.0; classes];
        // Of two classes, between which the weight of the first lies: the larger it is, the less that class gets.
        let mut between = (0.0, 1.0);
        for round in 0..if classes == 2 { HALVINGS } else { ROUNDS } {
            load.fill(0.0);
            let mut value = 0.0;
            let mut from = 0;
            for (to, tasks) in self.ends.iter().zip(&tasks_of) {
                let cheaper = |least: (f64, usize, f64), (class, part): &(usize, f64)| {
                    let price = part * weight[*class];
                    if price < least.0 { (price, *class, *part) } else { least }
                };
                let (price, class, part) = parts[from..*to].iter().fold((f64::INFINITY, 0, 0.0), cheaper);
                value += price * f64::from(*tasks);
                load[class] += part * f64::from(*tasks);
                from = *to;
            }
            if value > best.0 {
                best = (value, weight.clone());
            }
            if let ([one, other], [left, right]) = (&load[..], &mut weight[..]) {
                *(if one > other { &mut between.0 } else { &mut between.1 }) = *left;
                *left = f64::midpoint(between.0, between.1);
                *right = 1.0 - *left;
                continue;
            }
            let most = load.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
            let step = 0.5 / f64::from(u32::try_from(round).unwrap_or(u32::MAX) + 2);
            weight.iter_mut().zip(&load).for_each(|(weight, load)| *weight *= (step * (load / most)).exp());
            let sum: f64 = weight.iter().sum();
            weight.iter_mut().for_each(|weight| *weight /= sum);
        }
        #[expect(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "between 1 and 4096")]
        let fixed = |weight: f64| (weight * WEIGHT).round().clamp(1.0, WEIGHT) as u32;
        best.1.into_iter().map(fixed).collect()
    }
}

/// What tasks hold of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resource {
    /// Of a node: an index into the instance's resources.
    OfNode(usize),
    /// Of a device: its compute, in millionths.
    Compute,
    /// Of a device: its memory, in bytes.
    Memory,
    /// Of a node: its devices, in millionths.
    Devices,
}

impl Resource {
    fn name(self, instance: &Instance<'_>) -> &'static str {
        match self {
            Self::OfNode(index) => match instance.resources[index].as_str() {
                CPUS => CPUS,
                HOST_MEMORY => HOST_MEMORY,
                _ => "custom resource",
            },
            Self::Compute | Self::Devices => "GPUs",
            Self::Memory => "GPU memory",
        }
    }

    const fn is_of_devices(self) -> bool {
        !matches!(self, Self::OfNode(_))
    }

    /// `[n_classes]`: what a place of each class offers, and how many there are.
    fn offers(self, instance: &Instance<'_>) -> Vec<(u64, u64)> {
        let mut offers = Vec::new();
        let mut add = |class: u32, each: u64| {
            let class = class as usize;
            offers.resize(offers.len().max(class + 1), (0, 0));
            offers[class] = (each, offers[class].1 + 1);
        };
        match self {
            Self::OfNode(index) => instance.nodes.iter().for_each(|node| add(node.class, node.capacity[index])),
            Self::Compute => instance.devices.iter().for_each(|device| add(device.class, WHOLE)),
            Self::Memory => instance.devices.iter().for_each(|device| add(device.class, device.memory.0)),
            Self::Devices => {
                let mut on_node = vec![0; instance.nodes.len()];
                instance.devices.iter().for_each(|device| on_node[device.node.index()] += WHOLE);
                instance.nodes.iter().zip(on_node).for_each(|(node, devices)| add(node.class, devices));
            }
        }
        offers
    }

    /// Calls `ask` for each class of places where a choice can be: with the class, the amount that it holds of one place, and
    /// for how many milliseconds, times the places; without a class where it holds none.
    fn asks(
        self,
        instance: &Instance<'_>,
        choice: &Choice,
        offers: &[(u64, u64)],
        mut ask: impl FnMut(Option<usize>, u64, u128),
    ) {
        let (gang, duration) = (u64::from(choice.gang), u128::from(choice.duration()));
        let first = instance.groups[choice.group as usize].members.first();
        let node_class = first.map(|(node, _)| instance.nodes[node.index()].class as usize);
        let amount = match self {
            Self::OfNode(index) => return ask(node_class, choice.need[index], duration),
            Self::Devices => {
                let held = match choice.per_device {
                    DeviceNeed::Exclusive => gang.saturating_mul(WHOLE),
                    DeviceNeed::Part { share, .. } => gang.saturating_mul(share),
                };
                return ask(node_class, held, duration);
            }
            Self::Compute | Self::Memory => match choice.per_device {
                DeviceNeed::Exclusive => None,
                DeviceNeed::Part { memory, .. } if self == Self::Memory => Some(memory),
                DeviceNeed::Part { share, .. } => Some(share),
            },
        };
        let class_of = |device: &DeviceId| instance.devices[device.index()].class;
        let devices = first.map_or(&[][..], |(_, devices)| devices);
        // Devices of one class lie together; where they do not, a class merely comes twice.
        for same in devices.chunk_by(|a, b| class_of(a) == class_of(b)) {
            let class = class_of(&same[0]) as usize;
            ask(Some(class), amount.unwrap_or(offers[class].0), u128::from(gang) * duration);
        }
        if devices.is_empty() {
            ask(None, 0, 0);
        }
    }
}

impl Resource {
    /// Counts a resource in the way by which tasks fill it for the longest time, if that is longer than `plain`.
    fn counted(self, instance: &Instance<'_>, plain: u128) -> Option<Area> {
        let most = COUNTS.0.min(COUNTS.1 / instance.kinds.len().max(1));
        let units = if most < COUNTS_LEAST { Vec::new() } else { self.units(instance) };
        let each = units.len().div_ceil(most.max(1)).max(1);
        let areas = units.iter().rev().step_by(each).map(|unit| {
            let area = Area::new(instance, Axis::new(instance, self, Count::InUnits(*unit)));
            (area.total(instance), area)
        });
        areas.max_by_key(|(total, _)| *total).filter(|(total, _)| *total > plain).map(|(_, area)| area)
    }

    /// Returns the units by which an amount that somebody asks for counts as much as it can, ascending.
    fn units(self, instance: &Instance<'_>) -> Vec<u64> {
        let offers = self.offers(instance);
        let mut units = Vec::new();
        for choice in instance.kinds.iter().flat_map(|kind| &kind.choices) {
            self.asks(instance, choice, &offers, |class, amount, _| {
                let each = class.map_or(0, |class| offers[class].0);
                let unit = if amount <= each / 2 { amount } else { each.saturating_sub(amount) + 1 };
                // In units of one, everything counts as it is.
                units.extend((2..=each / 2).contains(&unit).then_some(unit));
            });
        }
        units.sort_unstable();
        units.dedup();
        units
    }
}

/// All of a device's compute.
const WHOLE: u64 = Share::WHOLE.0 as u64;

/// How amounts are counted.
#[derive(Clone, Copy, Debug)]
enum Count {
    AsTheyAre,
    /// By how often this unit fits, and where an amount is more than half of what there is, by how often it does not fit
    /// beside it.
    InUnits(u64),
}

impl Count {
    /// Returns what an amount counts, and what there is of it: amounts of which no more are asked for than `capacity` count
    /// no more than that together.
    fn of(self, amount: u64, capacity: u64) -> (u64, u64) {
        match self {
            Self::InUnits(unit) if amount <= capacity && (1..=capacity / 2).contains(&unit) => {
                let fits = capacity / unit;
                let counted = match (amount).cmp(&(capacity - amount)) {
                    Ordering::Less => 2 * (amount / unit),
                    Ordering::Equal => fits,
                    Ordering::Greater => 2 * (fits - (capacity - amount) / unit),
                };
                (counted, 2 * fits)
            }
            Self::InUnits(_) | Self::AsTheyAre => (amount, capacity),
        }
    }
}

/// Returns every resource that some task asks for, and again those of which a way to count says more than the amounts.
pub(super) fn areas(instance: &Instance<'_>) -> Vec<Area> {
    // What is mostly the scarcest comes first, so that of the others little needs to be computed.
    let of_nodes = (0..instance.resources.len()).map(Resource::OfNode);
    let resources = [Resource::Compute, Resource::Memory].into_iter().chain(of_nodes);
    let asked = |axis: &Axis| axis.kinds().any(|ways| ways.iter().all(|way| way.class.is_some()));
    let plain = resources.map(|resource| (resource, Axis::new(instance, resource, Count::AsTheyAre)));
    let plain = plain.filter(|(_, axis)| asked(axis)).map(|(resource, axis)| (resource, Area::new(instance, axis)));
    let plain: Vec<_> = plain.collect();
    let counted = plain.iter().flat_map(|(resource, area)| {
        let together = (*resource == Resource::Compute).then_some(Resource::Devices);
        let counted = [Some(*resource), together].into_iter().flatten();
        counted.filter_map(|resource| resource.counted(instance, area.total(instance)))
    });
    let counted: Vec<_> = counted.collect();
    plain.into_iter().map(|(_, area)| area).chain(counted).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_fits_together_fits_however_it_is_counted(
            capacity in 1_u64..200,
            asks in prop::collection::vec(0_u64..200, 0..12),
            unit in 0_u64..120,
        ) {
            let (mut left, mut counted) = (capacity, 0);
            for amount in asks {
                // As much of it as there is room for.
                let amount = amount.min(left);
                left -= amount;
                let (count, of) = Count::InUnits(unit).of(amount, capacity);
                counted += count;
                prop_assert!(counted <= of, "{} of {} in units of {}", counted, of, unit);
            }
            let (all, of) = Count::InUnits(unit).of(capacity, capacity);
            prop_assert_eq!(all, of);
        }
    }

    #[test]
    fn more_than_half_counts_as_all() {
        assert_eq!(Count::InUnits(40).of(41, 80), (4, 4));
        assert_eq!(Count::InUnits(40).of(40, 80), (2, 4));
        assert_eq!(Count::InUnits(30).of(30, 80), (2, 4));
    }
}
