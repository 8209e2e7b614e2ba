//! The recorded facts of a run, in the past tense. A run is what its events say; everything shown is derived from them.
//!
//! Does not know how events are stored or acted on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::outcome::{Outcome, Usage};
use super::raise::Raise;
use crate::fleet::Device;
use crate::graph::TaskId;
use crate::spec::MemoryLimit;
use crate::units::{Bytes, Cpus, Millis, Share};

mod read;

/// A fact and when it became one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Milliseconds since the Unix epoch, by the clock of the host that recorded it.
    pub at: Millis,
    /// The fact.
    pub event: Event,
}

/// A fact about a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event", try_from = "read::Keys")]
pub enum Event {
    /// An attempt was decided on, and what it needs was reserved. Recorded before its process exists.
    AttemptStarted {
        /// The task.
        task: TaskId,
        /// Counts the task's attempts from 1.
        number: u32,
        /// Where it runs and what it holds.
        place: Place,
    },
    /// The attempt's process exists.
    AttemptSpawned {
        /// The task.
        task: TaskId,
        /// Which of its attempts.
        #[serde(default, skip_serializing_if = "is_default")]
        role: Role,
        /// Its process, which leads a process group of the same number.
        process: Process,
    },
    /// The attempt ended and nothing of it runs any more.
    AttemptFinished {
        /// The task.
        task: TaskId,
        /// Which of its attempts.
        #[serde(default, skip_serializing_if = "is_default")]
        role: Role,
        /// How.
        outcome: Outcome,
        /// What it used.
        usage: Usage,
        /// Whether it printed anything, which its log then holds.
        logged: bool,
    },
    /// The attempt is stopped, with all that it holds, while others have their turn. Recorded before it is.
    TaskSuspended {
        /// The task.
        task: TaskId,
    },
    /// The attempt goes on. Recorded before it does.
    TaskContinued {
        /// The task.
        task: TaskId,
    },
    /// The task will be tried again.
    RetryPlanned {
        /// The task.
        task: TaskId,
        /// Not before this time, in milliseconds since the Unix epoch.
        not_before: Millis,
        /// What it asks for from then on, if that is not what its stage says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        raise: Option<Raise>,
    },
    /// The task failed for good.
    TaskFailed {
        /// The task.
        task: TaskId,
        /// What every place lacks of what it asks for, in words, where it failed because none could ever hold it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lacks: Option<String>,
    },
    /// The task will not run.
    TaskSkipped {
        /// The task.
        task: TaskId,
        /// The failed task that it needs; `None` when the run was stopped.
        because: Option<TaskId>,
    },
    /// The task is up to date: what it would make is there already.
    TaskCached {
        /// The task.
        task: TaskId,
        /// What it printed when it ran, as a path in the state folder, if it printed anything.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        log: Option<String>,
    },
    /// What waits is started in another order from here on.
    Replanned {
        /// Why.
        #[serde(rename = "why")]
        because: Because,
        /// How much longer the run would have taken in the order so far.
        before: Millis,
        /// How much longer it takes now.
        after: Millis,
        /// Tasks that wait, the first one first.
        order: Vec<TaskId>,
        /// Those of them that go elsewhere.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        moved: Vec<Intent>,
    },
    /// What the task made is gone, and others still need it: it runs again.
    TaskReopened {
        /// The task.
        task: TaskId,
    },
    /// Nothing new is started from here on.
    StopRequested {
        /// Why.
        reason: StopReason,
    },
    /// The run is over.
    RunFinished {
        /// How.
        end: RunEnd,
    },
    /// Who was to be told that the run is over was told, or could not be.
    FinishTold {
        /// Why not, after all tries; `None` where everybody was told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failed: Option<String>,
    },
    /// The run goes on, carried out by another process: its stop or end is taken back, and what failed or was skipped is
    /// tried again.
    RunResumed {
        /// The tasks whose attempts have gone on all the while: every other attempt has ended.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        adopted: Vec<TaskId>,
    },
}

/// Why the order of what waits was thought over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum Because {
    /// What is left takes more or less time than planned.
    Drift {
        /// How much longer the run takes.
        expected: Millis,
        /// How much longer it should take.
        planned: Millis,
        /// The running task that differs most from its plan.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        task: Option<TaskId>,
    },
    /// A device has fallen out.
    Lost {
        /// Its id.
        device: String,
    },
    /// A device that had fallen out is back.
    Back {
        /// Its id.
        device: String,
    },
}

/// Where a task that waits should go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The task.
    pub task: TaskId,
    /// Index into the stage's modes.
    #[serde(default)]
    pub mode: usize,
    /// The node's name.
    pub node: String,
    /// Ids of the devices; empty on the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
}

/// What an attempt is to its task, of which two may run side by side: at most one of each role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The one that the task's fate depends on.
    #[default]
    Main,
    /// One beside it, whose success alone counts.
    Backup,
}

impl Role {
    /// Returns the other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Main => Self::Backup,
            Self::Backup => Self::Main,
        }
    }
}

/// Where an attempt runs and what it holds there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// What the attempt is to its task.
    #[serde(default, skip_serializing_if = "is_default")]
    pub role: Role,
    /// Index into the stage's modes.
    #[serde(default)]
    pub mode: usize,
    /// The node's name.
    pub node: String,
    /// Ids of the devices; empty on the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
    /// Their UUIDs; empty where any is unknown, as of attempts that earlier versions recorded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uuids: Vec<String>,
    /// Device memory reserved on each of them.
    #[serde(default)]
    pub gpu_memory: Bytes,
    /// Host memory reserved.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub memory: Bytes,
    /// Host CPUs reserved. Not known of attempts that earlier versions recorded, like the next two.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cpus: Cpus,
    /// The share of each device that is reserved; all of it for whole devices.
    #[serde(default, skip_serializing_if = "is_default")]
    pub share: Share,
    /// Other countable resources reserved.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub custom: BTreeMap<String, u64>,
    /// The devices' model; `None` on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// How it is kept to that device memory.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limit: MemoryLimit,
    /// Whether it was to be watched, which its devices' driver does not allow: it hides who holds their memory.
    #[serde(default, skip_serializing_if = "is_default")]
    pub hidden: bool,
    /// The digest of what is carried out: attempts of equal ones can be compared (see [`super::learn::definition`]).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub definition: String,
}

impl Place {
    /// Whether a device is one of its own. Ids shift where a card or a slice goes: UUIDs tell where they are known.
    #[must_use]
    pub fn has(&self, device: &Device) -> bool {
        match device.uuid.as_ref().filter(|_| !self.uuids.is_empty()) {
            Some(uuid) => self.uuids.contains(uuid),
            None => self.devices.contains(&device.id),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
const fn is_nothing(bytes: &Bytes) -> bool {
    bytes.0 == 0
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since the host's boot (field 22 of `/proc/PID/stat`).
    pub started: u64,
}

/// Why a run stops early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopReason {
    /// A task failed and `--keep-going` was not given: what runs may end.
    TaskFailed,
    /// Ctrl-C or SIGTERM: what runs is ended.
    Signal,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunEnd {
    /// Every task is done.
    Succeeded,
    /// A task failed.
    Failed,
    /// It was stopped.
    Interrupted,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_known_by_its_uuid_whatever_it_is_called_by_then() {
        let device = Device { id: "box/gpu0".to_owned(), uuid: Some("MIG-2".to_owned()), ..Device::default() };
        let place = |id: &str, uuids: &[&str]| Place {
            devices: vec![id.to_owned()],
            uuids: uuids.iter().map(|uuid| (*uuid).to_owned()).collect(),
            ..Place::default()
        };
        assert!(place("box/gpu0.1", &["MIG-2"]).has(&device), "it was called otherwise");
        assert!(!place("box/gpu0", &["MIG-1"]).has(&device), "another one was called so");
        assert!(place("box/gpu0", &[]).has(&device), "as earlier versions recorded it");
        let planned = Device { uuid: None, ..device };
        assert!(place("box/gpu0", &["MIG-1"]).has(&planned) && !place("box/gpu1", &[]).has(&planned));
    }
}
