//! What was seen on the devices at one moment, in the ledger's terms.

use std::collections::BTreeMap;

use super::{FRESH, SLOWEST};
use crate::fleet::Fleet;
use crate::graph::TaskId;
use crate::probe::{self, gpu::Fault};
use crate::units::{Bytes, Millis};

/// What was seen on all devices of a fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readings {
    /// When reading began.
    pub at: Millis,
    /// How long after that the driver had answered, where it takes long every time.
    pub took: Millis,
    /// `[n_devices]`, by DeviceId.
    pub devices: Vec<Live>,
}

/// What was seen on one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Live {
    /// Nobody looks: it is only planned for, or its driver tells nothing about memory.
    Unwatched,
    /// It is still to be read, since its driver did not answer yet: nothing may start on it.
    Unread,
    /// It could not be read, or is not to be used: nothing may start on it.
    Fault {
        /// What is the matter with it.
        fault: String,
        /// Whether nothing that runs on it can go on.
        ends_tasks: bool,
        /// How long whoever waits for it has to; empty where nobody can say.
        until: &'static str,
    },
    /// It was read.
    Seen(Seen),
}

/// The memory of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// What can still be allocated.
    pub free: Bytes,
    /// What processes hold, ours and others'; what the driver keeps for itself is not in it where that is known.
    pub used: Bytes,
    /// What each of our tasks holds, ascending by task; `None` if the driver hides processes.
    pub held: Option<Vec<(TaskId, Bytes)>>,
    /// What of `used` no listed process holds.
    pub nobodys: Bytes,
    /// What of it processes hold that only draw: a desktop.
    pub drawn: Bytes,
    /// How many processes compute there, where its compute mode lets in one at a time.
    pub one_process: Option<usize>,
    /// Whether processes of each of our tasks have a GPU open, ascending by task: the only sign of who has begun where
    /// the driver hides processes. Of a task that is not in it nobody knows.
    pub opened: Vec<(TaskId, bool)>,
}

impl Seen {
    /// Returns whether a task's processes have a GPU open; `None` where nobody knows.
    pub(super) fn has_opened(&self, task: TaskId) -> Option<bool> {
        let at = self.opened.binary_search_by_key(&task, |(task, _)| *task).ok()?;
        Some(self.opened[at].1)
    }
}

impl Readings {
    /// Returns readings of `n` devices that nobody looks at.
    #[must_use]
    pub fn unwatched(n: usize) -> Self {
        Self { devices: vec![Live::Unwatched; n], ..Self::default() }
    }

    /// Returns readings of `n` devices that are still to be read: until then nothing starts on them.
    #[must_use]
    pub fn unread(n: usize) -> Self {
        Self { devices: vec![Live::Unread; n], ..Self::default() }
    }

    /// Whether they say nothing any more about what is free.
    pub(super) fn are_old(&self, now: Millis) -> bool {
        now.saturating_sub(self.at) > self.took.min(SLOWEST) + FRESH
    }

    /// Returns what was seen on a device; nothing where there is no reading of it.
    pub(super) fn of(&self, device: usize) -> &Live {
        self.devices.get(device).unwrap_or(&Live::Unwatched)
    }

    /// Adds which tasks have a GPU open, ascending by task, where the driver does not say who holds memory. To be asked
    /// for before memory is read: what is taken in between then counts as not taken.
    #[must_use]
    pub fn with_opened(mut self, opened: &[(TaskId, bool)]) -> Self {
        for live in &mut self.devices {
            if let Live::Seen(seen) = live
                && seen.held.is_none()
            {
                seen.opened = opened.to_vec();
            }
        }
        self
    }

    /// Whether any driver did not say who holds the memory that is in use.
    #[must_use]
    pub fn hide_who_holds(&self) -> bool {
        self.devices.iter().any(|live| matches!(live, Live::Seen(Seen { held: None, .. })))
    }

    /// Translates what the probe read at `at`; `task` says whose process a pid is, `None` for a stranger's.
    #[must_use]
    pub fn new(at: Millis, fleet: &Fleet, read: &[probe::Reading], task: impl Fn(u32) -> Option<TaskId>) -> Self {
        let by_uuid: BTreeMap<_, _> = read.iter().map(|reading| (reading.uuid.as_str(), reading)).collect();
        let live = |uuid: Option<&str>| match uuid.and_then(|uuid| by_uuid.get(uuid)) {
            Some(reading) => translate(reading, &task),
            None => Live::Unwatched,
        };
        Self {
            at,
            devices: fleet.devices.iter().map(|device| live(device.uuid.as_deref())).collect(),
            ..Self::default()
        }
    }
}

fn translate(reading: &probe::Reading, task: &impl Fn(u32) -> Option<TaskId>) -> Live {
    if let Some(fault) = &reading.fault {
        let until = match fault {
            Fault::Aside(_) => "until `trainyard devices --undrain` takes it back",
            Fault::Prohibited => "until `nvidia-smi --compute-mode=DEFAULT` opens it",
            Fault::Sliced => "until that is off again; `trainyard resume` and new runs use its slices",
            Fault::Gone => "`trainyard resume` and new runs use those that it has by then",
            Fault::Lost(_) | Fault::Unreadable(_) | Fault::NoSlices => "",
        };
        return Live::Fault { fault: fault.to_string(), ends_tasks: fault.ends_tasks(), until };
    }
    let is_foreign = |pid| task(pid).is_none();
    let Some(memory) = reading.memory else {
        if reading.computing(is_foreign) == 0 {
            return Live::Unwatched;
        }
        let fault = "in use by others, and its driver does not tell how much of its memory is free".to_owned();
        return Live::Fault { fault, ends_tasks: false, until: "" };
    };
    let used = memory.total - memory.free - memory.reserved.unwrap_or(Bytes::ZERO);
    let nobodys = reading.unattributed();
    let listed = reading.processes.as_deref().unwrap_or_default();
    // A container may hide every process though memory is in use. Where one is listed, the list is believed.
    let hidden = listed.is_empty() && used > Bytes::ZERO;
    let held = nobodys.filter(|_| !hidden).map(|_| {
        let mut held: BTreeMap<TaskId, Bytes> = BTreeMap::new();
        for process in listed {
            if let (Some(task), Some(bytes)) = (task(process.pid), process.memory) {
                *held.entry(task).or_default() += bytes;
            }
        }
        held.into_iter().collect()
    });
    let nobodys = nobodys.unwrap_or(used);
    let drawn = reading.drawn(is_foreign);
    let one_process = reading.one_process.then(|| reading.computing(|_| true));
    Live::Seen(Seen { free: memory.free, used, held, nobodys, drawn, one_process, opened: Vec::new() })
}
