//! What ready tasks wait for, in numbers: for those who ask why nothing happens.

use serde::{Deserialize, Serialize};

use super::Dispatcher;
use crate::graph::TaskId;
use crate::run::admission::{self, HeldBy, Readings, Refusal, Short};
use crate::units::Millis;

/// Tasks of one reason that are listed; there may be more.
const LISTED: usize = 1_000;

/// Ready tasks that ask for the same and wait for the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The first of them, in the order in which they will start.
    pub tasks: Vec<TaskId>,
    /// How many they are.
    pub count: usize,
    /// Since when one of them could have started if not for the reason, ms since the Unix epoch.
    pub since: Millis,
    /// Why they wait.
    pub reason: Reason,
}

/// Why ready tasks wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum Reason {
    /// As many tasks run as `--jobs` allows.
    Jobs {
        /// How many.
        most: usize,
    },
    /// There is room, but what comes first would have to wait longer for it.
    Held {
        /// The task that comes first.
        by: String,
        /// When that is expected to start, ms since the Unix epoch.
        at: Millis,
    },
    /// No place has room.
    Room {
        /// It in a line.
        words: String,
        /// What nodes have too little of.
        nodes: Vec<At<Short>>,
        /// Why devices have no room.
        devices: Vec<At<admission::Why>>,
        /// What other runs hold of it.
        #[serde(default)]
        runs: Vec<HeldBy>,
        /// From when on room is kept for the first of the tasks, ms since the Unix epoch; `None` where none is.
        #[serde(default)]
        kept_from: Option<Millis>,
    },
    /// A disk is nearly full.
    Disk {
        /// Which, and what is left of it.
        words: String,
    },
    /// The system has no process or file to spare for what was started last, this task or another one.
    Start {
        /// What it says.
        words: String,
    },
    /// Somebody has locked what it takes to start anything.
    Locked {
        /// Who and what.
        words: String,
    },
    /// Another run writes what it would write.
    Output {
        /// The output, as the pipeline names it.
        path: String,
        /// What people call the run.
        run: String,
    },
}

/// What is wrong with one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct At<T> {
    /// A node's name or a device's id.
    pub place: String,
    /// What is wrong with it.
    pub lacks: T,
}

/// The last answer that a queue got.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refused {
    pub(super) why: Why,
    pub(super) since: Millis,
}

/// Why a queue's task was not started.
#[derive(Clone, Copy, Debug)]
pub(super) enum Why {
    /// No place has room.
    Room,
    /// It would be in the way of a task that is promised a time.
    Held { by: TaskId, at: Millis },
}

impl Dispatcher<'_> {
    /// Notes that a queue's first task was refused, again or for the first time.
    pub(super) fn note_refusal(&mut self, queue: u32, why: Why, now: Millis) {
        let since = self.queues.at(queue).refused().map_or(now, |before| before.since);
        self.queues.note(queue, Some(Refused { why, since }));
    }

    /// Returns what ready tasks wait for by the last decision; where that is room, what places have too little of now.
    #[must_use]
    pub fn waiting(&self, now: Millis, readings: &Readings) -> Vec<Waiting> {
        let pause = self.pause.reason();
        let waiting = self.queues.waiting().filter_map(|queue| {
            let (since, reason) = match (self.jobs_taken, queue.refused()) {
                _ if let Some((reason, since)) = &pause => (*since, reason.clone()),
                (Some(since), _) => (since, Reason::Jobs { most: self.options.jobs.unwrap_or(usize::MAX) }),
                (None, Some(Refused { why: Why::Room, since })) => {
                    let refusal = self.ledger.could_admit(queue.request(), readings, now).err()?;
                    let first = queue.turns().first().map(|(_, task)| *task);
                    (*since, self.room(first, &refusal))
                }
                (None, Some(Refused { why: Why::Held { by, at }, since })) => {
                    (*since, Reason::Held { by: self.graph.tasks[by.index()].name.clone(), at: *at })
                }
                (None, None) => return None,
            };
            let tasks = queue.turns().iter().take(LISTED).map(|(_, task)| *task).collect();
            Some(Waiting { tasks, count: queue.turns().len(), since, reason })
        });
        let for_outputs = self.for_outputs().map(|(task, waits)| Waiting {
            tasks: vec![task],
            count: 1,
            since: waits.since,
            reason: Reason::Output { path: waits.path.clone(), run: waits.run.clone() },
        });
        self.pause.unstarted().chain(waiting).chain(for_outputs).collect()
    }

    fn room(&self, first: Option<TaskId>, refusal: &Refusal) -> Reason {
        let nodes = refusal
            .hosts
            .iter()
            .map(|(node, short)| At { place: self.fleet.nodes[node.index()].name.clone(), lacks: short.clone() });
        let devices = refusal
            .devices
            .iter()
            .map(|(device, why)| At { place: self.fleet.devices[device.index()].id.clone(), lacks: why.clone() });
        let others = self.ledger.held_by_others(refusal);
        let runs: Vec<HeldBy> =
            others.iter().map(|of| HeldBy { run: of.run.clone(), holds: of.words(self.fleet) }).collect();
        let held = runs.iter().map(|by| format!("; run {} holds {}", by.run, by.holds));
        let left_behind = self.ledger.left_behind(refusal);
        let left = left_behind.iter().map(|(task, device, bytes)| {
            let (name, device) = (&self.graph.tasks[task.index()].name, &self.fleet.devices[device.index()].id);
            match self.ledger.grant(*task) {
                None => format!("; what {name} left behind holds {bytes} of {device} (`trainyard devices --orphans`)"),
                Some(_) => format!("; {name}, which runs elsewhere, holds {bytes} of {device}"),
            }
        });
        let smaller = first.and_then(|task| self.all_of_smaller(task)).map(|of| of.gpu_memory);
        let smaller = smaller.map(|size| format!("; all of a GPU of {size} will do, too, where that is sooner"));
        let held: Vec<String> = held.chain(left).chain(smaller).collect();
        Reason::Room {
            words: refusal.explain(self.fleet) + &held.concat(),
            nodes: nodes.collect(),
            devices: devices.collect(),
            runs,
            kept_from: self.kept.filter(|(task, _)| Some(*task) == first).map(|(_, from)| from),
        }
    }
}
