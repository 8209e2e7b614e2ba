//! What stages with `gpu_memory = "auto"` are found to need while the run goes on, where no earlier run knew it.
//!
//! The first task of such a stage has a device to itself; once one has succeeded, those that still wait share devices.
//! Pure: a function of the attempts that have ended, so that a resumed run knows as much.

use std::collections::HashMap;

use super::learn::estimate;
use crate::fleet::Fleet;
use crate::spec::{Mode, Resources};
use crate::units::Bytes;

/// Index of a stage, and of one of its modes.
type Of = (usize, usize);

/// What was found so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Found(HashMap<Of, (Vec<Bytes>, Resources)>);

impl Found {
    /// Returns what a stage asks for in a mode since it was measured; `None` where nothing is better known than before.
    pub(super) fn request(&self, of: Of) -> Option<&Resources> {
        self.0.get(&of).map(|(_, request)| request)
    }

    /// Takes in the most device memory that an attempt held which has succeeded. Returns whether the stage asks for
    /// something else now: the first time, and then whenever that was too little.
    pub(super) fn take_in(&mut self, of: Of, mode: &Mode, peak: Option<Bytes>, fleet: &Fleet) -> bool {
        let (Some(gpus), Some(peak), Bytes::ZERO) = (mode.auto, peak, mode.resources.gpu_memory) else { return false };
        let (mut peaks, before) =
            self.0.get(&of).cloned().map_or((Vec::new(), None), |(peaks, was)| (peaks, Some(was)));
        peaks.push(peak);
        let Some(known) = estimate::memory(&peaks, &[]) else { return false };
        let most = fleet.devices.iter().map(|device| device.whole_memory()).max().unwrap_or(Bytes::ZERO);
        let request = match before {
            Some(before) if known.value <= before.gpu_memory => before,
            Some(_) | None if known.value > most => mode.resources.clone(),
            Some(_) | None => Resources { gpus, gpu_memory: known.value, ..mode.resources.clone() },
        };
        let changed = self.0.get(&of).map_or(mode.resources != request, |(_, before)| *before != request);
        self.0.insert(of, (peaks, request));
        changed
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
    fn what_is_declared_is_not_overruled() {
        let mode = Mode::default();
        assert!(!Found::default().take_in((0, 0), &mode, Some(Bytes::GIB), &Fleet::default()));
    }
}
