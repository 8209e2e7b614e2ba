//! What the devices do to running tasks: which have to leave, which take too much, and who is to blame.

use super::Dispatcher;
use super::beside::role_on;
use crate::fleet::{Device, DeviceId, NotUsed};
use crate::graph::TaskId;
use crate::probe::Reading;
use crate::run::admission::{Grant, Live, Readings, Seen, is_other};
use crate::run::event::{Place, Role};
use crate::run::limit;
use crate::run::outcome::{Cause, Outcome};
use crate::run::peak::Peaks;
use crate::run::state::RunState;
use crate::spec::{Gpus, MemoryLimit};
use crate::units::{Bytes, Millis};

/// How often a task makes room for others before it stays whatever they take.
pub(super) const MOST_MOVES: usize = 3;

impl Dispatcher<'_> {
    /// Returns the attempts that have to leave their devices by these readings, and how they end by it.
    pub fn displaced(&mut self, state: &RunState, readings: &Readings, peaks: &Peaks) -> Vec<(TaskId, Role, Outcome)> {
        let started = |task: TaskId, device: DeviceId| {
            let role = role_on(state, task, &self.fleet.devices[device.index()].id);
            state.task(task).open_as(role).map_or(Millis::ZERO, |attempt| attempt.started)
        };
        let sharing = &self.sharing;
        let has_begun = |task| peaks.has_begun(task) || sharing.is_around_others(task);
        let mut leaving = self.ledger.displaced(readings, started, has_begun);
        // What stands in its way wherever it goes may be its own, in a process that cannot be told to be.
        let moves = |task: TaskId| state.task(task).displacements();
        leaving.retain(|(task, _, cause)| matches!(cause, Cause::Unfit { .. }) || moves(*task) < MOST_MOVES);
        let id = |device: DeviceId| self.fleet.devices[device.index()].id.clone();
        let named = |cause, device| match cause {
            Cause::Taken { promised, free, .. } => Cause::Taken { promised, free, by: self.overrun(device) },
            other @ (Cause::Occupied | Cause::TurnedAway { .. } | Cause::Unfit { .. }) => other,
        };
        let leaving = leaving.into_iter().map(|(task, device, cause)| (task, id(device), named(cause, device)));
        let leaving = leaving
            .map(|(task, device, cause)| (task, role_on(state, task, &device), Outcome::Displaced { device, cause }));
        leaving.chain(self.still_stranded(state)).collect()
    }

    /// Yields the adopted attempts that are still on a device which was lost before they were adopted, and how they end.
    fn still_stranded(&self, state: &RunState) -> impl Iterator<Item = (TaskId, Role, Outcome)> {
        let is_there = |task: TaskId, role: Role, device: &String| {
            state.task(task).open_as(role).is_some_and(|attempt| attempt.place.devices.contains(device))
        };
        let still = self.stranded.iter().filter(move |(task, role, device)| is_there(*task, *role, device));
        still.map(|(task, role, device)| {
            let fault = match self.fleet.lost(device) {
                Some(NotUsed::NoSlices) => "in MIG mode now, without slices",
                Some(NotUsed::Unreadable) => "unreadable",
                Some(NotUsed::Lost | NotUsed::Aside | NotUsed::Prohibited) | None => "lost: it does not answer",
            };
            let cause = Cause::Unfit { fault: fault.to_owned() };
            (*task, *role, Outcome::Displaced { device: device.clone(), cause })
        })
    }

    /// Yields what our tasks were seen to hold of each device, of which so much is in use.
    fn seen_to_hold<'r>(
        &'r self,
        readings: &'r Readings,
    ) -> impl Iterator<Item = (DeviceId, &'r Device, Bytes, (TaskId, Bytes))> {
        let read = (0..).map(DeviceId).zip(&self.fleet.devices).zip(&readings.devices);
        read.flat_map(|((id, device), live)| {
            let seen = match live {
                Live::Seen(Seen { used, held: Some(held), .. }) => Some((*used, held)),
                Live::Seen(_) | Live::Unwatched | Live::Unread | Live::Fault { .. } => None,
            };
            let ours = seen.into_iter().flat_map(|(used, held)| held.iter().map(move |holds| (used, *holds)));
            ours.filter(|(_, (task, _))| !is_other(*task)).map(move |(used, holds)| (id, device, used, holds))
        })
    }

    /// Returns the attempts that are watched and were seen to hold more of a device than is reserved for them, and how
    /// they end by it.
    #[must_use]
    pub fn over_limit(&self, state: &RunState, readings: &Readings) -> Vec<(TaskId, Role, Outcome)> {
        let mut over = Vec::new();
        for (id, device, used, (task, bytes)) in self.seen_to_hold(readings) {
            let role = role_on(state, task, &device.id);
            let attempt = state.task(task).open_as(role);
            let watched = attempt.filter(|attempt| attempt.place.limit == MemoryLimit::Watch);
            let by_itself = used - bytes <= self.ledger.puts_up_with(id);
            let most = |place: &Place| match by_itself {
                true => limit::cap(place, &[device], self.gpus(task, place.mode)),
                false => place.gpu_memory,
            };
            if watched.is_some_and(|attempt| bytes > most(&attempt.place)) {
                over.push((task, role, Outcome::OutOfMemory { device: Some(device.id.clone()) }));
            }
        }
        over
    }

    /// Returns who holds how much of a device of which less is reserved for it, and how much that is; none of them is
    /// watched.
    #[must_use]
    pub fn beyond(&self, state: &RunState, readings: &Readings) -> Vec<(TaskId, DeviceId, Bytes, Bytes)> {
        let mut beyond = Vec::new();
        for (id, device, _, (task, bytes)) in self.seen_to_hold(readings) {
            let attempt = state.task(task).open_as(role_on(state, task, &device.id));
            let Some(place) = attempt.map(|attempt| &attempt.place) else { continue };
            let counts = place.limit != MemoryLimit::Watch && place.gpu_memory > Bytes::ZERO && place.has(device);
            if counts && bytes > limit::cap(place, &[device], self.gpus(task, place.mode)) {
                beyond.push((task, id, bytes, place.gpu_memory));
            }
        }
        beyond
    }

    /// Returns the most that others hold of a device in a place beside whoever has it to himself there.
    #[must_use]
    pub fn beside(&self, place: &Place) -> Bytes {
        let devices = self.found_again(place).map(|(_, devices)| devices).unwrap_or_default();
        let beside = |id: DeviceId| self.ledger.puts_up_with(id) - self.fleet.devices[id.index()].headroom;
        devices.into_iter().map(beside).max().unwrap_or_default()
    }

    /// Returns who runs and holds how much of a device that no attempt of it was ever given.
    #[must_use]
    pub fn strays(&self, state: &RunState, readings: &Readings) -> Vec<(TaskId, DeviceId, Bytes)> {
        let is_stray = |(_, device, _, (task, bytes)): &(DeviceId, &Device, Bytes, (TaskId, Bytes))| {
            // What an earlier attempt has left there is no sign of that.
            let had = || state.task(*task).attempts.iter().any(|attempt| attempt.place.has(device));
            *bytes > Bytes::ZERO && self.ledger.grant(*task).is_some() && !had()
        };
        let strays = self.seen_to_hold(readings).filter(is_stray);
        strays.map(|(id, _, _, (task, bytes))| (task, id, bytes)).collect()
    }

    /// Returns the name of our task that has taken what was promised to others on a device.
    fn overrun(&self, device: DeviceId) -> Option<String> {
        let task = self.ledger.overrun(device).filter(|task| !is_other(*task))?;
        Some(self.graph.tasks[task.index()].name.clone())
    }

    fn gpus(&self, task: TaskId, mode: usize) -> Gpus {
        self.pipeline.stages[self.graph.tasks[task.index()].stage].modes[mode].resources.gpus
    }

    /// Takes in whether an MPS server runs by now, which can limit who starts from now on.
    pub fn learn_of_mps(&mut self, runs: bool) {
        self.options.mps = runs;
    }

    /// Returns how a task is kept to the device memory that was granted, and whether it cannot be watched as it should.
    pub(super) fn limit(&self, task: TaskId, grant: &Grant) -> (MemoryLimit, bool) {
        let asked = self.pipeline.stages[self.graph.tasks[task.index()].stage].memory_limit;
        if grant.devices.is_empty() || grant.gpu_memory == Bytes::ZERO {
            return (MemoryLimit::None, false);
        }
        let hidden = grant.devices.iter().any(|device| self.hidden.contains(device));
        limit::in_force_on(asked, self.options.mps, hidden)
    }

    /// Returns the attempts that are to be watched, on devices whose driver turns out to hide who holds their memory: as long
    /// as it does. `raw` (`[n_devices]`, by DeviceId) is what was read of them.
    pub fn turn_out_hidden(&mut self, state: &RunState, raw: &[Reading]) -> Vec<(TaskId, Role)> {
        let mut unwatched = Vec::new();
        for (id, reading) in (0..).map(DeviceId).zip(raw) {
            if reading.hides_processes() {
                self.hidden.insert(id);
            } else if reading.processes.as_ref().is_some_and(|listed| !listed.is_empty()) {
                self.hidden.remove(&id);
            }
            if !self.hidden.contains(&id) {
                continue;
            }
            let name = &self.fleet.devices[id.index()].id;
            for task in self.ledger.ours_on(id) {
                let role = role_on(state, task, name);
                let attempt = state.task(task).open_as(role);
                if attempt.is_some_and(|attempt| attempt.place.limit == MemoryLimit::Watch) {
                    unwatched.push((task, role));
                }
            }
        }
        unwatched
    }

    /// Returns the outcome as it is with the devices in mind: one that kept to what was promised to it, and ran out of
    /// memory on a device that could not keep that, is not to blame.
    #[must_use]
    pub fn explain(&self, outcome: Outcome, place: &Place, peak: Option<Bytes>) -> Outcome {
        let Outcome::OutOfMemory { device: Some(id) } = &outcome else { return outcome };
        let device = self.fleet.devices.iter().position(|device| device.id == *id);
        // Where nobody sees who holds what, it may have been itself.
        let index = device.filter(|index| !self.hidden.iter().any(|hidden| hidden.index() == *index));
        let short = index.and_then(|index| self.ledger.shortage(DeviceId(u32::try_from(index).ok()?)));
        match short {
            Some((promised, free)) if peak.unwrap_or(Bytes::ZERO) <= place.gpu_memory => {
                let by = self.fleet.devices.iter().position(|device| device.id == *id);
                let by = by.and_then(|index| self.overrun(DeviceId(u32::try_from(index).ok()?)));
                Outcome::Displaced { device: id.clone(), cause: Cause::Taken { promised, free, by } }
            }
            _ => outcome,
        }
    }
}
