//! Devices that let in one process at a time and did not let a task in: it goes elsewhere at once where something else has
//! room, and comes back after a while, longer each time, where nothing has.
//!
//! Nobody may be seen on such a device, so that a reading tells nothing: nothing of the run is sent there until then, or until
//! a reading shows who is there, and later only where no other device does as well.

use super::Dispatcher;
use super::devices::MOST_MOVES;
use crate::fleet::DeviceId;
use crate::graph::TaskId;
use crate::run::admission::Readings;
use crate::run::event::Place;
use crate::run::outcome::{Cause, Outcome};
use crate::run::state::TaskState;
use crate::units::{Bytes, Millis};

/// How often a task is tried again that a device did not let in, and that was not seen on one itself. One that waits for the same
/// device comes first half of the times, so that this many losses in a row are no chance.
const MOST_REFUSALS: usize = 16;

/// How often a task is not let in before it lets others go first.
const OFTEN: u32 = 2;

impl Dispatcher<'_> {
    /// Returns what becomes of a task that failed saying that its device is busy. On a device that lets in one process at a time
    /// it was turned away, and is tried again. Where that happens too often it counts as the task's own failure, sooner if it was
    /// seen to hold memory, unless there is room for it elsewhere.
    #[must_use]
    pub fn explain_turned_away(
        &self,
        outcome: Outcome,
        (task, of): (TaskId, &TaskState),
        (place, peak): (&Place, Option<Bytes>),
        (now, readings): (Millis, &Readings),
    ) -> Outcome {
        if !matches!(outcome, Outcome::Exited { .. } | Outcome::Signalled { .. }) {
            return outcome;
        }
        let devices = (0..).map(DeviceId).zip(&self.fleet.devices).filter(|(_, device)| place.has(device));
        let devices: Vec<_> = devices.filter_map(|(id, _)| Some((id, self.ledger.occupied(id)?))).collect();
        let seen = devices.iter().find(|(_, is_occupied)| *is_occupied).map(|(id, _)| *id);
        let busy: Vec<DeviceId> = seen.map_or_else(|| devices.iter().map(|(id, _)| *id).collect(), |id| vec![id]);
        let was_there = peak.unwrap_or_default() > Bytes::ZERO;
        let most = if was_there { MOST_MOVES } else { MOST_REFUSALS };
        let names: Vec<&str> = busy.iter().map(|device| self.fleet.devices[device.index()].id.as_str()).collect();
        let times = of.turned_away_by(&names);
        let may_go_on = || {
            of.displacements() < most * self.fleet.devices.len() && self.has_room_but(&busy, task, place, now, readings)
        };
        match names.split_first() {
            Some((first, others)) if times < most || may_go_on() => {
                let or = others.iter().map(|other| (*other).to_owned()).collect();
                let cause = if seen.is_some() { Cause::Occupied } else { Cause::TurnedAway { or } };
                Outcome::Displaced { device: (*first).to_owned(), cause }
            }
            Some(_) | None => outcome,
        }
    }

    /// Whether a task that leaves a place has room elsewhere than on these devices.
    fn has_room_but(&self, busy: &[DeviceId], task: TaskId, place: &Place, now: Millis, readings: &Readings) -> bool {
        let mut ledger = self.ledger.clone();
        ledger.release_as(place.role, task, now);
        busy.iter().for_each(|device| ledger.turned_away(*device, now));
        ledger.has_room(self.queues.of(task).request(), readings, now)
    }

    /// Takes in how an attempt ended that may not have been let in.
    pub(super) fn note_busy(&mut self, task: TaskId, outcome: &Outcome, at: Millis) {
        let at_of = |id: &str| self.fleet.devices.iter().position(|device| device.id == id);
        let busy = outcome.busy().filter_map(|id| Some(DeviceId(u32::try_from(at_of(id)?).ok()?)));
        let busy: Vec<DeviceId> = busy.collect();
        busy.iter().for_each(|device| self.ledger.turned_away(*device, at));
        if busy.is_empty() {
            self.turned_away.remove(&task);
        } else {
            *self.refusals.entry(task).or_default() += 1;
            self.turned_away.insert(task, busy);
        }
    }

    /// Returns how often a task was not let in, where that is so often that it may be to blame itself: those go first that may be
    /// let in, and of the others the one that was turned away least.
    pub(super) fn turned_away_often(&self, task: TaskId) -> Option<u32> {
        self.refusals.get(&task).copied().filter(|times| *times >= OFTEN)
    }

    /// Lets a task wait for its next attempt; one that was not let in only where that was.
    pub(super) fn wait_for_retry(&mut self, task: TaskId, until: Millis) {
        let Some(busy) = self.turned_away.remove(&task) else {
            self.delayed.insert((until, task));
            return;
        };
        busy.into_iter().for_each(|device| self.ledger.keep_off(device, until));
        self.queue_if_unblocked(task);
    }
}
