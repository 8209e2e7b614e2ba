//! What stages with `gpu_memory = "auto"` are found to need while the run goes on, where no earlier run knew it.
//!
//! The first task of such a stage has a device to itself; once one has succeeded, those that still wait share devices.
//! Pure: a function of the attempts that have ended, so that a resumed run knows as much.

use std::collections::{HashMap, HashSet};

use super::admission::most_of_one;
use super::learn::estimate;
use crate::fleet::Fleet;
use crate::spec::{Mode, Resources};
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
}

impl Found {
    /// Returns what a stage asks for in a mode since it was measured; `None` where nothing is better known than before.
    pub(super) fn request(&self, of: Of) -> Option<&Resources> {
        self.known.get(&of).map(|(_, request)| request)
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
        let Some(known) = estimate::memory(&peaks, &[]) else { return false };
        let request = match before {
            Some(before) if known.value <= before.gpu_memory => before,
            Some(_) | None if known.value > most_of_one(fleet) => mode.resources.clone(),
            Some(_) | None => Resources { gpus, gpu_memory: known.value, ..mode.resources.clone() },
        };
        let changed = self.known.get(&of).map_or(mode.resources != request, |(_, before)| *before != request);
        self.known.insert(of, (peaks, request));
        changed
    }

    /// Takes in that an attempt ran out of device memory. Returns whether the stage asks for something else now: as long
    /// as no attempt was seen to hold any, it is not known what it needs.
    pub(super) fn run_out(&mut self, of: Of) -> bool {
        self.ran_out.insert(of);
        let Some((peaks, _)) = self.known.get_mut(&of) else { return false };
        peaks.retain(|peak| *peak > Bytes::ZERO);
        let is_unknown = peaks.is_empty();
        if is_unknown {
            self.known.remove(&of);
        }
        is_unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Device;
    use crate::spec::Gpus;

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
    fn what_is_declared_is_not_overruled() {
        let mode = Mode::default();
        assert!(!Found::default().take_in((0, 0), &mode, Some(Bytes::GIB), &Fleet::default()));
    }
}
