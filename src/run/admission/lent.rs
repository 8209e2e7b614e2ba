//! What tasks let runs within them have: a task that starts a run of its own waits for it, and what the tasks of that run hold
//! is part of what was promised to the task around them, as far as that goes. Both together count as the larger of the two.

use std::collections::BTreeMap;

use super::{Book, Grant, Holding, Ledger};
use crate::fleet::DeviceId;
use crate::graph::TaskId;
use crate::run::event::Role;
use crate::run::within::Around;
use crate::spec::Resources;
use crate::units::{Bytes, Cpus, Share};

/// What an attempt has lent to a task within it.
#[derive(Clone, Debug)]
pub(super) struct Loan {
    from: (TaskId, Role),
    lent: Part,
    /// What the borrower holds of each device besides what it borrowed further within.
    beside: Vec<(DeviceId, Bytes)>,
}

/// Part of a node and its devices.
#[derive(Clone, Debug)]
struct Part {
    cpus: Cpus,
    memory: Bytes,
    custom: BTreeMap<String, u64>,
    devices: BTreeMap<DeviceId, (Bytes, Share)>,
}

impl Ledger {
    /// Takes back everything that was lent: by one attempt, or by all.
    pub(super) fn take_back(&mut self, from: Option<(TaskId, Role)>) {
        let is_due = |loan: &mut Loan| from.is_none_or(|from| loan.from == from);
        for Loan { from, lent, beside } in self.lent.extract_if(.., is_due).collect::<Vec<_>>() {
            let Some((grant, _)) = self.held.get(&from) else { continue };
            self.hosts[grant.node.index()].hold(&lent.of_host());
            for (device, (memory, share)) in lent.devices {
                self.books[device.index()].take_back(from.0, memory, share);
            }
            for (device, memory) in beside {
                self.books[device.index()].is_gone_from_beside(from.0, memory);
            }
        }
    }

    /// Lets tasks of other runs (`others`, with their numbers) that are within attempts have of what those hold. `own` knows
    /// those of this run.
    pub(super) fn lend(&mut self, others: &[(&Holding, TaskId)], own: impl Fn(&Around) -> Option<(TaskId, Role)>) {
        let other = |around: &Around| others.iter().find(|(of, _)| of.is(around)).map(|(_, task)| (*task, Role::Main));
        let mut left: BTreeMap<(TaskId, Role), Part> = BTreeMap::new();
        for (holding, task) in others {
            let Some((to, mut wanted)) = self.part((*task, Role::Main)) else { continue };
            for around in holding.within.outwards() {
                let Some(from) = own(around).or_else(|| other(around)) else { continue };
                let Some((grant, whole)) = self.part(from).filter(|(grant, _)| grant.node == to.node) else { continue };
                let shared = wanted.devices.iter().filter(|(device, _)| grant.devices.contains(device));
                let beside: Vec<_> = shared.map(|(device, (memory, _))| (*device, *memory)).collect();
                let lent = wanted.take_from(left.entry(from).or_insert(whole));
                self.hosts[to.node.index()].release(&lent.of_host());
                for (device, (memory, share)) in &lent.devices {
                    self.books[device.index()].lend(from.0, *memory, *share);
                }
                for (device, memory) in &beside {
                    self.books[device.index()].has_beside(from.0, *memory);
                }
                self.lent.push(Loan { from, lent, beside });
            }
        }
    }

    /// Returns what an attempt was granted, and how much that is. A share of a device that is taken in turns is nothing that
    /// somebody else could not have.
    fn part(&self, of: (TaskId, Role)) -> Option<(Grant, Part)> {
        let (grant, request) = self.held.get(&of)?;
        let share = if request.turn().is_some() { Share::ZERO } else { request.gpus.share() };
        let memory = |device: &DeviceId| self.books[device.index()].asked(request);
        let devices = grant.devices.iter().map(|device| (*device, (memory(device), share))).collect();
        let Resources { cpus, memory, custom, .. } = request;
        Some((grant.clone(), Part { cpus: *cpus, memory: *memory, custom: custom.clone(), devices }))
    }
}

impl Part {
    /// Takes what it is short of from another one, as far as both go, and returns that.
    fn take_from(&mut self, other: &mut Self) -> Self {
        let (cpus, memory) = (self.cpus.min(other.cpus), self.memory.min(other.memory));
        (self.cpus, other.cpus) = (self.cpus - cpus, other.cpus - cpus);
        (self.memory, other.memory) = (self.memory - memory, other.memory - memory);
        let mut taken = Self { cpus, memory, custom: BTreeMap::new(), devices: BTreeMap::new() };
        for (name, want) in &mut self.custom {
            let Some(has) = other.custom.get_mut(name) else { continue };
            let count = *want.min(has);
            (*want, *has) = (*want - count, *has - count);
            taken.custom.insert(name.clone(), count);
        }
        for (device, want) in &mut self.devices {
            let Some(has) = other.devices.get_mut(device) else { continue };
            let (memory, share) = (want.0.min(has.0), want.1.min(has.1));
            (*want, *has) = ((want.0 - memory, want.1 - share), (has.0 - memory, has.1 - share));
            taken.devices.insert(*device, (memory, share));
        }
        taken
    }

    fn of_host(&self) -> Resources {
        Resources { cpus: self.cpus, memory: self.memory, custom: self.custom.clone(), ..Resources::default() }
    }
}

impl Book {
    /// Lets another task have this of what was promised to one.
    fn lend(&mut self, task: TaskId, memory: Bytes, share: Share) {
        self.promises.entry(task).and_modify(|left| *left -= memory);
        self.shares -= share;
    }

    /// Takes back what a task has lent.
    fn take_back(&mut self, task: TaskId, memory: Bytes, share: Share) {
        self.promises.entry(task).and_modify(|left| *left += memory);
        self.shares += share;
    }

    /// Whoever has it to himself has let another one in that holds this.
    fn has_beside(&mut self, task: TaskId, memory: Bytes) {
        self.wanting_all.entry(task).and_modify(|beside| *beside += memory);
    }

    fn is_gone_from_beside(&mut self, task: TaskId, memory: Bytes) {
        self.wanting_all.entry(task).and_modify(|beside| *beside -= memory);
    }
}
