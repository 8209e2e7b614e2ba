//! A smaller device instead of more memory than can be had: stages with `gpu_memory = "auto"` ask for more than was seen, and
//! that may be more than a device gives on which one of them has succeeded, or that gives what earlier runs have seen. Where it
//! is done sooner there than after waiting, or nobody can say when there will be so much, all of such a device does as well.

use super::Dispatcher;
use super::backfill::Line;
use super::instead::Until;
use crate::fleet::{Device, DeviceId};
use crate::graph::TaskId;
use crate::run::admission::Readings;
use crate::run::event::Place;
use crate::run::expect;
use crate::run::state::{Phase, RunState, TaskState};
use crate::spec::Resources;
use crate::units::{Bytes, Millis};

impl Dispatcher<'_> {
    /// Takes in which devices give what earlier runs have seen that stages need, or found too little.
    pub(super) fn learn_what_sufficed_before(&mut self) {
        for (index, stage) in self.pipeline.stages.iter().enumerate() {
            for (mode, of) in
                stage.modes.iter().enumerate().filter(|(_, of)| of.auto.is_some() && of.seen > Bytes::ZERO)
            {
                // Its driver or a desktop may keep as much as they do everywhere.
                let gives = |device: &&Device| device.whole_memory() - device.headroom > of.seen;
                let sizes = self.fleet.devices.iter().filter(gives).map(Device::whole_memory);
                sizes.min().into_iter().for_each(|smallest| self.found.sufficed((index, mode), smallest));
            }
        }
    }

    /// Takes in that a task has succeeded on these devices.
    pub(super) fn learn_what_sufficed(&mut self, task: TaskId, devices: &[DeviceId]) {
        let smallest = devices.iter().map(|device| self.fleet.devices[device.index()].whole_memory()).min();
        if let (Some(smallest), Some(_)) = (smallest, self.mode(task).auto) {
            self.found.sufficed(self.stage_and_mode(task), smallest);
        }
    }

    /// Takes in by the record of a task on which devices it has succeeded.
    pub(super) fn learn_what_sufficed_by_record(&mut self, task: TaskId, state: &TaskState) {
        let succeeded = state.telling().filter(|_| state.phase == Phase::Succeeded);
        if let Some((_, devices)) = succeeded.and_then(|(_, attempt)| self.found_again(&attempt.place)) {
            self.learn_what_sufficed(task, &devices);
        }
    }

    /// Returns what does as well for a task as what it asks for; `None` where nothing is known to.
    pub(super) fn all_of_smaller(&self, task: TaskId) -> Option<Resources> {
        let instead = self.found.all_of_smaller(self.stage_and_mode(task), self.asked(task));
        instead.filter(|_| !self.helped.contains(&task)).map(|request| self.as_held(request))
    }

    /// Reserves all of such a device for a task that was refused what it asks for.
    pub(super) fn admit_on_smaller(
        &mut self,
        (task, queue): (TaskId, u32),
        state: &RunState,
        line: &mut Line,
        (now, readings): (Millis, &Readings),
    ) -> Option<Place> {
        let request = self.all_of_smaller(task)?;
        let until = self.until_a_gpu_is_sooner((task, queue), state.task(task), None, readings, now);
        let (mode, of, expected, fleet) = (self.mode(task), self.stage_and_mode(task), &self.expect, self.fleet);
        let admitted = self.ledger.try_admit_where((task, &request), None, readings, now, &mut |grant| {
            let planned = expect::planned(mode, fleet, grant.node, &grant.devices);
            let end = now + expected.duration(of, planned);
            let is_sooner = match until {
                Until::Whenever => true,
                Until::Before(gpu) => end < gpu,
            };
            is_sooner && line.lets_pass((task, &request), grant, end)
        });
        admitted.ok().map(|grant| self.place(task, &request, &grant))
    }
}
