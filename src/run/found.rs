//! What stages with `gpu_memory = "auto"` are found to need while the run goes on, where no earlier run knew it.
//!
//! The first task of such a stage has a device to itself; once one has succeeded, those that still wait share devices. What
//! is too little for one of them, as for another point of a matrix, is asked for by none any more.
//! Pure: a function of the attempts that have ended, so that a resumed run knows as much.

use std::collections::{HashMap, HashSet};

use super::admission::{little, most_of_each};
use super::learn::estimate;
use crate::fleet::Fleet;
use crate::spec::{Gpus, Mode, Resources};
use crate::units::Bytes;

/// Index of a stage, and of one of its modes.
type Of = (usize, usize);

/// What was found so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// The peaks of those that have succeeded, and what is asked for by them.
    known: HashMap<Of, (Vec<Bytes>, Resources)>,
    /// Whose attempts have run out of memory: that others were not seen to hold any says nothing there.
    ran_out: HashSet<Of>,
    /// What the smallest device gives on which one of them has succeeded.
    sufficed: HashMap<Of, Bytes>,
}

impl Found {
    /// Returns what a stage asks for in a mode since it was measured; `None` where nothing is better known than before.
    pub(super) fn request(&self, of: Of) -> Option<&Resources> {
        self.known.get(&of).map(|(_, request)| request)
    }

    /// Takes in that an attempt has succeeded on a device that gives so much.
    pub(super) fn sufficed(&mut self, of: Of, whole: Bytes) {
        let smallest = self.sufficed.entry(of).or_insert(whole);
        *smallest = whole.min(*smallest);
    }

    /// Returns the request for all of a device on which one of a stage has succeeded; `None` where that is known of none, or
    /// what is asked for is no more than such a device gives beside a desktop.
    pub(super) fn all_of_smaller(&self, of: Of, asked: &Resources) -> Option<Resources> {
        let whole_of = *self.sufficed.get(&of)?;
        let is_more = !asked.wants_all_memory() && asked.gpu_memory > beside_desktop(whole_of);
        is_more.then(|| Resources { gpus: asked.gpus.whole(), gpu_memory: whole_of, alone: true, ..asked.clone() })
    }

    /// Takes in the most device memory that an attempt held which has succeeded. Returns whether the stage asks for
    /// something else now: the first time, and then whenever that was too little.
    pub(super) fn take_in(&mut self, of: Of, mode: &Mode, peak: Option<Bytes>, fleet: &Fleet) -> bool {
        let (Some(gpus), Some(peak), Bytes::ZERO) = (mode.auto, peak, mode.resources.gpu_memory) else { return false };
        if peak == Bytes::ZERO && self.ran_out.contains(&of) {
            return false;
        }
        let (mut peaks, before) =
            self.known.get(&of).cloned().map_or((Vec::new(), None), |(peaks, was)| (peaks, Some(was)));
        peaks.push(peak);
        // All of a device was too little where only a larger one is asked for.
        let too_little = before.as_ref().filter(|before| before.alone).map(|before| before.gpu_memory);
        let Some(known) = estimate::memory(&peaks, too_little.as_slice()) else { return false };
        let request = match (before, ask_for(known.value, gpus, mode, fleet)) {
            (Some(before), _) if known.value <= before.gpu_memory => before,
            (Some(before), now) if before.alone && now.wants_all_memory() => before,
            (Some(_) | None, now) => now,
        };
        let changed = self.known.get(&of).map_or(mode.resources != request, |(_, before)| *before != request);
        self.known.insert(of, (peaks, request));
        changed
    }

    /// Takes in that so much of a device was too little for an attempt. Returns whether the stage asks for something else now:
    /// half as much again, as that task does, and as what earlier runs have told counts.
    pub(super) fn too_little(&mut self, of: Of, mode: &Mode, had: Bytes, fleet: &Fleet) -> bool {
        let Some(gpus) = mode.auto else { return false };
        self.sufficed.retain(|other, whole| *other != of || had < beside_desktop(*whole));
        let (peaks, request) = self.known.get(&of).cloned().unwrap_or_else(|| (Vec::new(), mode.resources.clone()));
        let Some(known) = estimate::memory(&[], &[had]) else { return false };
        // A task that has all of a device gets no more there.
        let is_more = !request.wants_all_memory() && known.value > request.gpu_memory;
        if is_more {
            self.known.insert(of, (peaks, ask_for(known.value, gpus, mode, fleet)));
        }
        is_more
    }

    /// Takes in that all of a device was too little for a task, which asks for one that gives so much. Returns whether the
    /// stage asks for something else now: the same, unless it was measured to need no whole device.
    pub(super) fn too_small(&mut self, of: Of, mode: &Mode, larger: Bytes) -> bool {
        let Some(gpus) = mode.auto else { return false };
        self.sufficed.retain(|other, whole| *other != of || *whole >= larger);
        let (peaks, before) = self.known.get(&of).cloned().unwrap_or_else(|| (Vec::new(), mode.resources.clone()));
        let is_more = before.wants_all_memory() && larger > before.gpu_memory;
        if is_more {
            let request = Resources { gpus: gpus.whole(), gpu_memory: larger, alone: true, ..before };
            self.known.insert(of, (peaks, request));
        }
        is_more
    }

    /// Takes in that an attempt ran out of device memory. Returns whether the stage asks for something else now: as long
    /// as no attempt was seen to hold any, it is not known what it needs.
    pub(super) fn run_out(&mut self, of: Of) -> bool {
        self.ran_out.insert(of);
        let Some((peaks, _)) = self.known.get_mut(&of).filter(|(peaks, _)| !peaks.is_empty()) else { return false };
        peaks.retain(|peak| *peak > Bytes::ZERO);
        let is_unknown = peaks.is_empty();
        if is_unknown {
            self.known.remove(&of);
        }
        is_unknown
    }
}

/// Returns the request for so much of a device, or for all of one where none gives that.
fn ask_for(memory: Bytes, gpus: Gpus, mode: &Mode, fleet: &Fleet) -> Resources {
    let (gpus, gpu_memory) =
        if memory <= most_of_each(fleet, gpus) { (gpus, memory) } else { (gpus.whole(), Bytes::ZERO) };
    Resources { gpus, gpu_memory, ..mode.resources.clone() }
}

/// Returns what is left of a device that gives so much beside the largest desktop that is put up with.
fn beside_desktop(whole: Bytes) -> Bytes {
    whole - little(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Device;

    #[test]
    fn a_stage_shares_devices_once_it_was_measured_and_asks_for_more_where_that_was_too_little() {
        let gib = |gib: u64| Bytes(gib << 30);
        let fleet = Fleet { devices: vec![Device { memory: gib(16), ..Device::default() }], ..Fleet::default() };
        let resources = Resources { gpus: Gpus::Whole(1), ..Resources::default() };
        let mode = Mode { auto: Some(Gpus::Shared), resources: resources.clone(), ..Mode::default() };
        let mut found = Found::default();
        let mut after = |peak| {
            let changed = found.take_in((0, 0), &mode, peak, &fleet);
            (changed, found.request((0, 0)).map(|request| (request.gpus, request.gpu_memory)))
        };
        assert_eq!(after(None), (false, None));
        let first = Some((Gpus::Shared, gib(5)));
        assert_eq!(after(Some(gib(4))), (true, first));
        assert_eq!(after(Some(gib(3))), (false, first), "what was promised is not taken back");
        assert_eq!(after(Some(gib(8))), (true, Some((Gpus::Shared, gib(9)))));
        assert_eq!(after(Some(gib(16))), (true, Some((Gpus::Whole(1), Bytes::ZERO))), "more than a device has");
    }

    #[test]
    fn who_ran_out_takes_back_that_another_needed_none() {
        let fleet =
            Fleet { devices: vec![Device { memory: Bytes(16 << 30), ..Device::default() }], ..Fleet::default() };
        let resources = Resources { gpus: Gpus::Whole(1), ..Resources::default() };
        let mode = Mode { auto: Some(Gpus::Shared), resources, ..Mode::default() };
        let mut found = Found::default();
        let after = |found: &mut Found, peak| found.take_in((0, 0), &mode, Some(Bytes(peak)), &fleet);
        let asked = |found: &Found| found.request((0, 0)).map(|request| request.gpu_memory);
        assert!(after(&mut found, 0));
        assert_eq!(asked(&found), Some(Bytes(512 << 20)));
        assert!(found.run_out((0, 0)) && !found.run_out((0, 0)));
        assert_eq!(asked(&found), None, "alone, as before");
        assert!(!after(&mut found, 0), "nobody saw it");
        assert!(after(&mut found, 4 << 30));
        assert!(!found.run_out((0, 0)));
        assert_eq!(asked(&found), Some(Bytes(5 << 30)), "what was seen stands");
    }

    #[test]
    fn what_is_too_little_for_one_is_asked_for_by_none() {
        let gib = |gib: u64| Bytes(gib << 30);
        let fleet = Fleet { devices: vec![Device { memory: gib(16), ..Device::default() }], ..Fleet::default() };
        let resources = Resources { gpus: Gpus::Whole(1), ..Resources::default() };
        let mode = Mode { auto: Some(Gpus::Shared), resources, ..Mode::default() };
        let mut found = Found::default();
        assert!(!found.too_little((0, 0), &mode, gib(4), &fleet), "it has all of a device");
        assert!(found.take_in((0, 0), &mode, Some(gib(4)), &fleet));
        assert!(!found.run_out((0, 0)) && found.too_little((0, 0), &mode, gib(6), &fleet));
        assert!(!found.too_little((0, 0), &mode, gib(5), &fleet));
        assert!(!found.take_in((0, 0), &mode, Some(gib(5)), &fleet), "that is less");
        let asked = |found: &Found| found.request((0, 0)).map(|request| (request.gpus, request.gpu_memory));
        assert_eq!(asked(&found), Some((Gpus::Shared, gib(9))));
        assert!(found.too_little((0, 0), &mode, gib(12), &fleet));
        assert_eq!(asked(&found), Some((Gpus::Whole(1), Bytes::ZERO)), "more than a device has");
        // The same of what earlier runs have told, and of several devices.
        let fleet = Fleet { devices: vec![fleet.devices[0].clone(); 2], ..Fleet::default() };
        let known = Resources { gpus: Gpus::Whole(2), gpu_memory: gib(2), ..Resources::default() };
        let mode = Mode { auto: Some(Gpus::Whole(2)), resources: known, ..Mode::default() };
        let mut found = Found::default();
        assert!(found.too_little((0, 0), &mode, gib(4), &fleet) && !found.run_out((0, 0)));
        assert_eq!(asked(&found), Some((Gpus::Whole(2), gib(6))));
        assert!(found.too_little((0, 0), &mode, gib(12), &fleet));
        assert_eq!(asked(&found), Some((Gpus::Whole(2), Bytes::ZERO)));
    }

    #[test]
    fn a_device_that_is_too_small_for_one_is_asked_for_by_none() {
        let gib = |gib: u64| Bytes(gib << 30);
        let device = |size| Device { memory: gib(size), ..Device::default() };
        let fleet = Fleet { devices: vec![device(8), device(40)], ..Fleet::default() };
        let resources = Resources { gpus: Gpus::Whole(1), ..Resources::default() };
        let mode = Mode { auto: Some(Gpus::Shared), resources, ..Mode::default() };
        let asked = |found: &Found| found.request((0, 0)).map(|of| (of.gpus, of.gpu_memory, of.alone));
        let mut found = Found::default();
        assert!(found.too_small((0, 0), &mode, gib(8)) && !found.too_small((0, 0), &mode, gib(8)));
        assert_eq!(asked(&found), Some((Gpus::Whole(1), gib(8), true)));
        // What nearly all need is asked for alone as well.
        let mut large = found.clone();
        assert!(!large.take_in((0, 0), &mode, Some(gib(39)), &fleet));
        assert_eq!(asked(&large), asked(&found));
        // Else what was measured, and more than was too little.
        assert!(found.take_in((0, 0), &mode, Some(gib(4)), &fleet));
        assert_eq!(asked(&found), Some((Gpus::Shared, gib(12), false)));
        assert!(!found.too_small((0, 0), &mode, gib(40)), "that is known now");
    }

    #[test]
    fn several_devices_are_asked_for_no_more_than_as_many_give() {
        let gib = |gib: u64| Bytes(gib << 30);
        let device = |size| Device { memory: gib(size), ..Device::default() };
        let fleet = Fleet { devices: vec![device(8), device(40)], ..Fleet::default() };
        let resources = Resources { gpus: Gpus::Whole(2), ..Resources::default() };
        let mode = Mode { auto: Some(Gpus::Whole(2)), resources: resources.clone(), ..Mode::default() };
        let mut found = Found::default();
        assert!(!found.take_in((0, 0), &mode, Some(gib(7)), &fleet), "the larger one held it");
        assert_eq!(found.request((0, 0)), Some(&resources));
        assert!(Found::default().take_in((0, 0), &mode, Some(gib(6)), &fleet));
    }

    #[test]
    fn all_of_a_device_on_which_one_has_succeeded_does_until_one_runs_out_there() {
        let gib = |gib: u64| Bytes(gib << 30);
        let device = |size| Device { memory: gib(size), ..Device::default() };
        let fleet = Fleet { devices: vec![device(16), device(40)], ..Fleet::default() };
        let resources = Resources { gpus: Gpus::Whole(1), ..Resources::default() };
        let mode = Mode { auto: Some(Gpus::Shared), resources: resources.clone(), ..Mode::default() };
        let mut found = Found::default();
        assert!(found.take_in((0, 0), &mode, Some(gib(14)), &fleet));
        let asked = found.request((0, 0)).cloned().unwrap();
        assert_eq!(found.all_of_smaller((0, 0), &asked), None, "none has");
        found.sufficed((0, 0), gib(40));
        found.sufficed((0, 0), gib(16));
        let instead = |found: &Found, asked: &Resources| {
            found.all_of_smaller((0, 0), asked).map(|of| (of.gpus, of.gpu_memory, of.alone, of.wants_all_memory()))
        };
        let all = Some((Gpus::Whole(1), gib(16), true, true));
        assert_eq!(instead(&found, &asked), all);
        assert_eq!(instead(&found, &resources), None, "any device does");
        assert_eq!(instead(&found, &Resources { gpu_memory: gib(12), ..asked.clone() }), None, "it gives that");
        assert!(!found.too_little((0, 0), &mode, gib(4), &fleet));
        assert_eq!(instead(&found, &asked), all, "who had little of it says nothing");
        found.too_little((0, 0), &mode, gib(16), &fleet);
        assert_eq!(instead(&found, &asked), None);
        found.sufficed((0, 0), gib(16));
        found.too_small((0, 0), &mode, gib(16) + Bytes(1));
        assert_eq!(instead(&found, &asked), None);
    }

    #[test]
    fn what_is_declared_is_not_overruled() {
        let mode = Mode::default();
        assert!(!Found::default().take_in((0, 0), &mode, Some(Bytes::GIB), &Fleet::default()));
    }
}
