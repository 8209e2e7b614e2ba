//! What tasks of other runs hold of the same machine: entered into the ledger beside our own, so that together nothing is
//! given out twice.
//!
//! Such a task is known by a number of its own above all of ours. The number follows from its run and its name, so that
//! whoever reads whose process holds memory gets the same one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::Ledger;
use super::refusal::{Refusal, Short, Why};
use crate::fleet::{DeviceId, Fleet, NodeId};
use crate::graph::TaskId;
use crate::run::event::{Place, Role};
use crate::run::within::{Around, Within};
use crate::spec::{Gpus, Resources};
use crate::units::{Bytes, Cpus, Millis, Share};

/// Numbers from here on are tasks of other runs.
const FIRST: u32 = 1 << 31;

/// A task of another run and what it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// The run's id.
    pub run: String,
    /// What people call the run.
    pub called: String,
    /// The task's name.
    pub task: String,
    /// The attempt's number.
    pub attempt: u32,
    /// Where it runs and what it holds there.
    pub place: Place,
    /// What it writes: absolute paths, links in its project's folder resolved.
    pub writes: Vec<String>,
    /// The attempts that its run is part of.
    pub within: Within,
}

impl Holding {
    /// Whether it is what this attempt holds.
    #[must_use]
    pub fn is(&self, around: &Around) -> bool {
        (&self.run, &self.task, self.attempt) == (&around.run, &around.task, around.attempt)
    }
}

/// What a run holds of what a request was short of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// What people call the run.
    pub run: String,
    /// CPUs of the nodes that have too few.
    pub cpus: Cpus,
    /// Memory of the nodes that have too little.
    pub memory: Bytes,
    /// Countable resources that nodes have too little of.
    pub custom: BTreeMap<String, u64>,
    /// Memory and shares of the devices that have no room.
    pub devices: BTreeMap<DeviceId, (Bytes, Share)>,
}

/// What another run holds, in words: for those who ask why a task waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBy {
    /// What people call the run.
    pub run: String,
    /// `3 CPUs, 20.0 GiB of gpu0`.
    pub holds: String,
}

/// Returns the number of a task of another run.
#[must_use]
pub fn other_task(run: &str, task: &str) -> TaskId {
    // FNV-1a; a run and a task are told apart by what no name holds.
    let bytes = run.bytes().chain([0]).chain(task.bytes());
    let hash = bytes.fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    TaskId(FIRST | hash)
}

/// Whether a task is one of another run.
#[must_use]
pub const fn is_other(task: TaskId) -> bool {
    task.0 >= FIRST
}

/// Returns what whoever runs in a place was granted.
#[must_use]
pub fn granted(place: &Place) -> Resources {
    let gpus = match (place.devices.len(), place.share) {
        (0, _) => Gpus::None,
        (count, Share::WHOLE) => Gpus::Whole(u32::try_from(count).unwrap_or(u32::MAX)),
        (_, Share::ZERO) => Gpus::Shared,
        (_, share) => Gpus::Share(share),
    };
    let (cpus, memory, gpu_memory) = (place.cpus, place.memory, place.gpu_memory);
    Resources { cpus, memory, gpus, gpu_memory, alone: false, custom: place.custom.clone(), suspend: false }
}

impl Ledger {
    /// Takes in everything that tasks of other runs hold now, in place of what was known of it. `own` knows this run's
    /// attempts: what others hold within one of them is lent by it.
    pub fn others_hold(
        &mut self,
        fleet: &Fleet,
        holdings: &[Holding],
        own: impl Fn(&Around) -> Option<(TaskId, Role)>,
        now: Millis,
    ) {
        self.take_back(None);
        let mut gone: BTreeSet<TaskId> =
            self.held.keys().map(|(task, _)| *task).filter(|task| is_other(*task)).collect();
        let (mut called, mut tasks) = (BTreeMap::new(), Vec::new());
        for holding in holdings {
            let node = (0..).map(NodeId).zip(&fleet.nodes).find(|(_, node)| node.name == holding.place.node);
            // What another machine holds is not ours to give out.
            let Some((node, _)) = node else { continue };
            let ids = (0..).map(DeviceId).zip(&fleet.devices);
            let devices: Vec<DeviceId> =
                ids.filter(|(_, device)| holding.place.has(device)).map(|(id, _)| id).collect();
            let request = granted(&holding.place);
            let grant = self.grant_in(node, devices, &request);
            let mut task = other_task(&holding.run, &holding.task);
            // Two names of one number: rare, and then only the reading of their memory is shared.
            while called.contains_key(&task) {
                task = TaskId(FIRST | task.0.wrapping_add(1));
            }
            called.insert(task, holding.called.clone());
            tasks.push((holding, task));
            gone.remove(&task);
            match self.held.get(&(task, Role::Main)) {
                Some((held, of)) if *held == grant && *of == request => {}
                Some(_) => {
                    self.release(task, now);
                    self.enter(task, &request, node, grant.devices);
                }
                None => self.enter(task, &request, node, grant.devices),
            }
        }
        for task in gone {
            self.release(task, now);
        }
        self.others = called;
        self.lend(&tasks, own);
    }

    /// Returns what other runs hold of what a refused request was short of, the run of the first name first.
    #[must_use]
    pub fn held_by_others(&self, refusal: &Refusal) -> Vec<Held> {
        let mut held: BTreeMap<&str, Held> = BTreeMap::new();
        for (task, called) in &self.others {
            let Some((grant, request)) = self.held.get(&(*task, Role::Main)) else { continue };
            let of = held.entry(called).or_insert_with(|| Held { run: called.clone(), ..Held::default() });
            for (_, short) in refusal.hosts.iter().filter(|(node, _)| *node == grant.node) {
                match short {
                    Short::Cpus { .. } => of.cpus += request.cpus,
                    Short::Memory { .. } => of.memory += request.memory,
                    Short::Custom { name, .. } => {
                        *of.custom.entry(name.clone()).or_default() += request.custom.get(name).copied().unwrap_or(0);
                    }
                }
            }
            for (device, why) in refusal.devices.iter().filter(|(device, _)| grant.devices.contains(device)) {
                if is_for_want_of_room(why) {
                    let (memory, share) = of.devices.entry(*device).or_default();
                    *memory += request.gpu_memory;
                    *share += request.gpus.share();
                }
            }
        }
        held.into_values().filter(Held::is_something).collect()
    }
}

/// Whether a device would have room if less were promised on it.
const fn is_for_want_of_room(why: &Why) -> bool {
    match why {
        // Whoever is no task of this run counts as a stranger.
        Why::Exclusive
        | Why::OneProcess
        | Why::Shared { .. }
        | Why::Share { .. }
        | Why::Memory { .. }
        | Why::Capacity { .. }
        | Why::Strangers { .. }
        | Why::Leaving { .. } => true,
        Why::TooSmall { .. }
        | Why::Slice
        | Why::TurnedAway { .. }
        | Why::Lately { .. }
        | Why::Settling
        | Why::Unread
        | Why::Stale { .. }
        | Why::Fault { .. } => false,
    }
}

impl Held {
    fn is_something(&self) -> bool {
        let custom = self.custom.values().any(|count| *count > 0);
        custom || self.cpus > Cpus::ZERO || self.memory > Bytes::ZERO || !self.devices.is_empty()
    }

    /// Says it: `3 CPUs, 20.0 GiB of gpu0, all of gpu1`.
    #[must_use]
    pub fn words(&self, fleet: &Fleet) -> String {
        let mut words = String::new();
        let mut add = |what: std::fmt::Arguments<'_>| {
            let comma = if words.is_empty() { "" } else { ", " };
            write!(words, "{comma}{what}").expect("a String takes everything");
        };
        if self.cpus > Cpus::ZERO {
            add(format_args!("{} CPU{}", self.cpus, if self.cpus == Cpus::ONE { "" } else { "s" }));
        }
        if self.memory > Bytes::ZERO {
            add(format_args!("{} of memory", self.memory));
        }
        for (name, count) in self.custom.iter().filter(|(_, count)| **count > 0) {
            add(format_args!("{count} {name}"));
        }
        for (device, (memory, share)) in &self.devices {
            let id = &fleet.devices[device.index()].id;
            let name = if fleet.nodes.len() < 2 { id.rsplit('/').next().unwrap_or(id) } else { id };
            match (*memory, *share) {
                (_, Share::WHOLE) => add(format_args!("all of {name}")),
                (Bytes::ZERO, Share::ZERO) => add(format_args!("a part of {name}")),
                (Bytes::ZERO, share) => add(format_args!("a share of {share} of {name}")),
                (memory, _) => add(format_args!("{memory} of {name}")),
            }
        }
        words
    }
}

#[cfg(test)]
mod tests;
