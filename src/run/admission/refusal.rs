//! Why a task may not start now, in numbers and then in words.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::fleet::{Device, DeviceId, Fleet, NodeId, NotUsed, Unused};
use crate::spec::{Gpus, Resources};
use crate::units::{Bytes, Cpus, Millis, Share};

/// Why a task may not start now: what was asked for, and what each place is short of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What was asked for.
    pub request: Box<Resources>,
    /// Whether waiting is of no use.
    pub never: bool,
    /// What nodes are short of.
    pub hosts: Vec<(NodeId, Short)>,
    /// Devices without room, and why; the others have room but are too few.
    pub devices: Vec<(DeviceId, Why)>,
    /// The one of those with the most free that lack only what no process is seen to hold, and may be the driver's own.
    pub kept: Option<DeviceId>,
}

/// What a node has too little of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum Short {
    /// CPUs.
    Cpus {
        /// Not promised to anyone.
        #[serde(rename = "left_thousandths")]
        left: Cpus,
        /// What there is.
        #[serde(rename = "all_thousandths")]
        all: Cpus,
    },
    /// Host memory.
    Memory {
        /// Not promised to anyone.
        #[serde(rename = "left_bytes")]
        left: Bytes,
        /// What there is.
        #[serde(rename = "all_bytes")]
        all: Bytes,
    },
    /// A resource that the fleet file declares.
    Custom {
        /// Its name.
        name: String,
        /// What is asked for.
        need: u64,
        /// Not promised to anyone.
        left: u64,
        /// What there is.
        all: u64,
    },
}

/// Why a device has no room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum Why {
    /// Even empty it would be too small.
    TooSmall {
        /// What a task could have at most.
        #[serde(rename = "whole_bytes")]
        whole: Bytes,
    },
    /// It is a slice of a card, and several devices are wanted: a process can use one slice only.
    Slice,
    /// A task has it to itself.
    Exclusive,
    /// Its compute mode lets in one process at a time, and there is one.
    OneProcess,
    /// It lets in one process at a time, and was busy when a task of ours came, though nobody was seen there.
    TurnedAway {
        /// When it is tried again.
        #[serde(rename = "left_ms")]
        left: Millis,
    },
    /// It is wanted whole, and tasks of ours are on it.
    Shared {
        /// How many.
        tasks: usize,
    },
    /// It is wanted whole, and others hold memory on it.
    Strangers {
        /// How much.
        #[serde(rename = "hold_bytes")]
        hold: Bytes,
    },
    /// It is wanted whole, and what tasks of ours held that have just ended there is not given back yet.
    Leaving {
        /// How much is in use.
        #[serde(rename = "hold_bytes")]
        hold: Bytes,
    },
    /// Too little of its compute is left.
    Share {
        /// What is left.
        #[serde(rename = "left_millionths")]
        left: Share,
    },
    /// Too little memory by a live reading.
    Memory {
        /// What can be allocated now.
        #[serde(rename = "free_bytes")]
        free: Bytes,
        /// What our tasks were promised and have not taken yet.
        #[serde(rename = "promised_bytes")]
        promised: Bytes,
        /// What nobody may count on.
        #[serde(rename = "headroom_bytes")]
        headroom: Bytes,
    },
    /// Too little memory by our own books, there being no live reading.
    Capacity {
        /// What tasks can have.
        #[serde(rename = "all_bytes")]
        all: Bytes,
        /// What they were promised.
        #[serde(rename = "reserved_bytes")]
        reserved: Bytes,
    },
    /// Others have just given back so much of it and may be back.
    Lately {
        /// How much.
        #[serde(rename = "hold_bytes")]
        hold: Bytes,
    },
    /// It is wanted whole, and a task has just ended on it: whether it is empty has not been read since.
    Settling,
    /// It was not read since the run began.
    Unread,
    /// It was last read too long ago.
    Stale {
        /// How long ago.
        #[serde(rename = "age_ms")]
        age: Millis,
    },
    /// It cannot be read.
    Fault {
        /// What it is: `lost: …`, `unreadable: …`, `drained by hand`.
        fault: String,
    },
}

impl Refusal {
    pub(super) fn new(request: &Resources) -> Self {
        Self { request: Box::new(request.clone()), never: false, hosts: Vec::new(), devices: Vec::new(), kept: None }
    }

    /// Says it in one line: `needs 21.3 GiB of one GPU; gpu0 free 18.0 GiB, promised 4.0 GiB, headroom 2.1 GiB; …`.
    #[must_use]
    pub fn explain(&self, fleet: &Fleet) -> String {
        let memory = self.request.gpu_memory;
        // Who ran out of all that a device gives wants a larger one: a byte more.
        let is_more =
            |(_, why): &(DeviceId, Why)| matches!(why, Why::TooSmall { whole } if memory == *whole + Bytes(1));
        let more_than = if self.devices.iter().any(is_more) { "more than " } else { "" };
        let mut text = format!("needs {}", needs(&self.request, &format!("{more_than}{memory}")));
        let one_node = fleet.nodes.len() < 2;
        for (node, short) in &self.hosts {
            let node = if one_node { "the machine" } else { &fleet.nodes[node.index()].name };
            let _ = write!(text, "; {node} has {}", short_words(short));
        }
        let wants_device = self.request.gpus != Gpus::None;
        if wants_device && fleet.devices.is_empty() {
            text.push_str("; there is no GPU");
        } else if wants_device && self.devices.len() < fleet.devices.len() && self.hosts.is_empty() {
            let _ = write!(
                text,
                "; {} of {} GPUs have room",
                fleet.devices.len() - self.devices.len(),
                fleet.devices.len()
            );
        }
        for (device, why) in &self.devices {
            let id = &fleet.devices[device.index()].id;
            let name = if one_node { id.rsplit('/').next().unwrap_or(id) } else { id };
            let _ = write!(text, "; {name} {}", why_words(why));
            if let (Gpus::Share(share), Bytes::ZERO, Why::Memory { .. }) =
                (self.request.gpus, self.request.gpu_memory, why)
            {
                let asked = share.of(fleet.devices[device.index()].whole_memory());
                let _ = write!(text, " ({share} of its memory is {asked})");
            }
        }
        if wants_device {
            fleet.unused.iter().for_each(|unused| text.push_str(&unused_words(unused)));
        }
        let is_silent = |(_, why): &(DeviceId, Why)| matches!(why, Why::Unread | Why::Stale { .. });
        if self.devices.iter().any(is_silent) {
            text.push_str("; where that lasts, `nvidia-smi --gpu-reset` or a reboot of the host helps");
        }
        let strangers = self.devices.iter().filter_map(|(device, why)| {
            let Why::Strangers { hold } = why else { return None };
            Some((&fleet.devices[device.index()], *hold))
        });
        if let Some(remedy) = beside_others(&self.request, strangers) {
            let _ = write!(text, "; {remedy}");
        }
        let kept = self.devices.iter().find(|(device, _)| Some(*device) == self.kept);
        if let Some((device, Why::Memory { free, headroom, .. })) = kept {
            let id = &fleet.devices[device.index()].id;
            let name = if one_node { id.rsplit('/').next().unwrap_or(id) } else { id };
            let most = (*free - *headroom).0 / Bytes::MIB.0;
            let _ = write!(
                text,
                "; no process is seen to hold what it lacks of {name}: where that is the driver's own, it gets at most \
                 {most} MiB as `gpu_memory`"
            );
        }
        text
    }
}

/// Says how a task could start beside others that hold memory of the devices which it wants for itself: `it may start
/// beside them with a number in `gpu_memory` (at most 21990 MiB)`.
fn beside_others<'a>(request: &Resources, held: impl Iterator<Item = (&'a Device, Bytes)>) -> Option<String> {
    let most = held.map(|(device, hold)| (device.whole_memory() - hold).0 / Bytes::MIB.0).max()?;
    let is_said = most > 0 && request.gpu_memory == Bytes::ZERO;
    is_said.then(|| format!("it may start beside them with a number in `gpu_memory` (at most {most} MiB)"))
}

/// Says of a device that the run does without how it is used again.
fn unused_words(unused: &Unused) -> String {
    let (was, once) = match unused.why {
        NotUsed::Aside => ("set aside", "it is taken back"),
        NotUsed::Lost => ("lost", "it answers"),
        NotUsed::Prohibited => ("closed to programs", "its compute mode lets them in"),
        NotUsed::NoSlices => ("in MIG mode without slices", "it has some"),
        NotUsed::Unreadable => ("unreadable", "it can be read"),
    };
    format!("; {} was {was} when the run began: `trainyard resume` and new runs use it once {once}", unused.name)
}

fn needs(request: &Resources, memory: &str) -> String {
    let mut parts = match (request.gpus, request.gpu_memory) {
        (Gpus::None, _) => Vec::new(),
        (Gpus::Whole(count), Bytes::ZERO) => vec![format!("{count} whole {}", plural(count))],
        (Gpus::Whole(1), _) => vec![format!("1 whole GPU of {memory}")],
        (Gpus::Whole(count), _) => vec![format!("{count} whole {} with {memory} each", plural(count))],
        (Gpus::Share(share), Bytes::ZERO) => vec![format!("{share} of one GPU")],
        (Gpus::Share(share), _) => vec![format!("{share} of one GPU with {memory}")],
        (Gpus::Shared, _) => vec![format!("{memory} of one GPU")],
    };
    if request.cpus > Cpus::ZERO {
        parts.push(format!("{} CPU{}", request.cpus, if request.cpus == Cpus::ONE { "" } else { "s" }));
    }
    if request.memory > Bytes::ZERO {
        parts.push(format!("{} of memory", request.memory));
    }
    parts.extend(request.custom.iter().map(|(name, need)| format!("{need} {name}")));
    if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") }
}

const fn plural(count: u32) -> &'static str {
    if count == 1 { "GPU" } else { "GPUs" }
}

fn short_words(short: &Short) -> String {
    match short {
        Short::Cpus { left, all: Cpus::ONE } => format!("{left} of 1 CPU left"),
        Short::Cpus { left, all } => format!("{left} of {all} CPUs left"),
        Short::Memory { left, all } => format!("{left} of {all} memory left"),
        Short::Custom { name, all: 0, .. } => format!("no {name}"),
        Short::Custom { name, left, all, .. } => format!("{left} of {all} {name} left"),
    }
}

fn why_words(why: &Why) -> String {
    match why {
        Why::TooSmall { whole } => format!("gives {whole} at most"),
        Why::Slice => "is a MIG slice, of which a task can use only one".to_owned(),
        Why::Exclusive => "is taken whole".to_owned(),
        Why::OneProcess => "is used, and lets in one process at a time (compute mode exclusive-process)".to_owned(),
        Why::TurnedAway { left } => {
            let left = Millis(left.0.div_ceil(1_000) * 1_000);
            format!("turned a task away as busy (compute mode exclusive-process) and is tried again in {left}")
        }
        Why::Shared { tasks: 1 } => "is used by 1 task".to_owned(),
        Why::Shared { tasks } => format!("is used by {tasks} tasks"),
        Why::Strangers { hold } => format!("has {hold} held by others"),
        Why::Leaving { hold } => format!("has {hold} in use that its last task has not given back yet"),
        Why::Share { left } => format!("has a share of {left} left"),
        Why::Memory { free, promised, headroom } => format!("free {free}, promised {promised}, headroom {headroom}"),
        Why::Capacity { all, reserved } => format!("reserved {reserved} of {all}"),
        Why::Lately { hold } => format!("had {hold} more held by others a moment ago"),
        Why::Settling => "has just been released and is read again".to_owned(),
        Why::Unread => "was not read yet: its driver does not answer".to_owned(),
        Why::Stale { age } => format!("was last read {age} ago: its driver does not answer"),
        Why::Fault { fault } => format!("is {fault}"),
    }
}
