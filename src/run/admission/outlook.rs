//! What there will be room for once running tasks have ended: a copy of the ledger in which they can be let go.
//!
//! What others hold on a device now, or that keep it busy, counts as held for good, and what our own tasks have not given
//! back yet as free: it tells what keeps a request waiting of which we know an end. Does not know when anything ends.

use super::reading::{Live, Readings, Seen};
use super::{Book, Grant, Ledger, Refusal};
use crate::fleet::{DeviceId, NodeId};
use crate::graph::TaskId;
use crate::run::event::Role;
use crate::spec::Resources;
use crate::units::{Bytes, Millis};

/// Why a task was not admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// There is no room.
    Room(Refusal),
    /// There is room only where it may not be.
    Held,
}

/// A ledger of what will be.
#[derive(Clone, Debug)]
pub struct Outlook {
    ledger: Ledger,
    readings: Readings,
}

impl Ledger {
    /// Returns what would be free by these readings if running tasks ended.
    #[must_use]
    pub fn outlook(&self, readings: &Readings, now: Millis) -> Outlook {
        let mut ledger = self.clone();
        let mut seen = Readings::unwatched(ledger.books.len());
        for (device, book) in ledger.books.iter_mut().enumerate() {
            let live = readings.of(device);
            book.look_ahead(live);
            book.stay_off(now);
            if let Live::Fault { .. } = live {
                seen.devices[device] = live.clone();
            }
        }
        Outlook { ledger, readings: seen }
    }

    /// Admits a task as [`Ledger::try_admit`] does, but only where `may` lets it.
    ///
    /// # Errors
    /// If it has to wait. Nothing is promised then.
    pub fn try_admit_where(
        &mut self,
        (task, request): (TaskId, &Resources),
        intended: Option<(NodeId, &[DeviceId])>,
        readings: &Readings,
        now: Millis,
        may: &mut dyn FnMut(&Grant) -> bool,
    ) -> Result<Grant, Denied> {
        self.admit((task, Role::Main), request, intended, readings, now, may)
    }

    /// Admits a second attempt of a task that runs, on none of the devices that the first one has.
    ///
    /// # Errors
    /// As of [`Ledger::try_admit_where`].
    pub fn try_admit_backup(
        &mut self,
        task: TaskId,
        request: &Resources,
        readings: &Readings,
        now: Millis,
        may: &mut dyn FnMut(&Grant) -> bool,
    ) -> Result<Grant, Denied> {
        self.admit((task, Role::Backup), request, None, readings, now, may)
    }

    fn admit(
        &mut self,
        (task, role): (TaskId, Role),
        request: &Resources,
        intended: Option<(NodeId, &[DeviceId])>,
        readings: &Readings,
        now: Millis,
        may: &mut dyn FnMut(&Grant) -> bool,
    ) -> Result<Grant, Denied> {
        debug_assert!(!self.held.contains_key(&(task, role)), "an attempt is admitted once until it is released");
        self.observe(readings);
        let beside = self.held.get(&(task, role.other())).map(|(grant, _)| grant.devices.clone());
        let mut avoided = beside.unwrap_or_default();
        let mut is_held = false;
        loop {
            let chosen = self.choose(request, intended, &avoided, readings, now);
            let chosen = chosen.map_err(|refusal| if is_held { Denied::Held } else { Denied::Room(refusal) })?;
            let grant = self.grant_in(chosen.node, chosen.devices, request);
            if may(&grant) {
                self.hold((task, role), request, &grant);
                return Ok(grant);
            }
            if grant.devices.is_empty() {
                return Err(Denied::Held);
            }
            is_held = true;
            avoided.extend(grant.devices);
        }
    }

    /// Returns what a request is granted in a place.
    pub(super) fn grant_in(&self, node: NodeId, devices: Vec<DeviceId>, request: &Resources) -> Grant {
        let smallest = devices.iter().map(|device| self.books[device.index()].all_of_it()).min();
        let all = smallest.filter(|_| request.alone);
        let asked = devices.iter().map(|device| self.books[device.index()].asked(request)).min();
        let gpu_memory = all.or(asked).unwrap_or(request.gpu_memory);
        Grant { node, devices, gpu_memory }
    }

    /// Writes down what an attempt was granted.
    pub(super) fn hold(&mut self, (task, role): (TaskId, Role), request: &Resources, grant: &Grant) {
        self.hosts[grant.node.index()].hold(request);
        for device in &grant.devices {
            self.books[device.index()].hold(task, request);
        }
        self.held.insert((task, role), (grant.clone(), request.clone()));
    }

    /// Yields the running attempts and what each holds.
    pub fn grants(&self) -> impl Iterator<Item = ((TaskId, Role), &Grant)> {
        self.held.iter().map(|(attempt, (grant, _))| (*attempt, grant))
    }
}

impl Outlook {
    /// Lets a running attempt end.
    pub fn release(&mut self, (task, role): (TaskId, Role)) {
        self.ledger.release_as(role, task, Millis::ZERO);
    }

    /// Returns where a request would go; `None` where there is no room for it.
    #[must_use]
    pub fn place(&self, request: &Resources) -> Option<Grant> {
        let chosen = self.ledger.choose(request, None, &[], &self.readings, Millis::ZERO).ok()?;
        Some(self.ledger.grant_in(chosen.node, chosen.devices, request))
    }

    /// Whether a request has room in a place.
    #[must_use]
    pub fn has_room(&self, request: &Resources, grant: &Grant) -> bool {
        let beside = self.ledger.puts_up_with_little(request, &self.readings);
        let room = |device: &DeviceId| {
            let book = &self.ledger.books[device.index()];
            book.room(request, (&self.readings, device.index()), Millis::ZERO, beside).is_ok()
        };
        self.ledger.hosts[grant.node.index()].shorts(request).next().is_none() && grant.devices.iter().all(room)
    }

    /// Holds what a task will have.
    pub fn hold(&mut self, task: TaskId, request: &Resources, grant: &Grant) {
        self.ledger.hold((task, Role::Main), request, grant);
    }
}

impl Book {
    /// Counts on the memory that others do not hold by a reading, and on what our tasks are about to give back.
    fn look_ahead(&mut self, live: &Live) {
        self.forget_gone();
        if let Live::Seen(Seen { used, held, .. }) = live {
            let ours: Bytes = match held {
                Some(held) => held.iter().map(|(_, bytes)| *bytes).sum(),
                None => self.reserved(),
            };
            self.count_on_all_but(*used - ours.min(*used));
        }
    }
}
