//! What there is to run on: nodes, devices, links. Pure values, made by the probe or read from a fleet file.
//!
//! Does not know what is running: what is held at a moment is the ledger's business.

use std::collections::BTreeMap;

use crate::units::{Bandwidth, Bytes, Cpus, Speed};

pub mod file;
pub mod headroom;
pub mod keys;
pub mod near;

pub use headroom::Headroom;
pub use near::Spot;

/// Index of a node in its fleet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub u32);

/// Index of a device in its fleet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct DeviceId(pub u32);

impl NodeId {
    /// Returns the index for arrays that are held by node.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl DeviceId {
    /// Returns the index for arrays that are held by device.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// Its name; unique in the fleet.
    pub name: String,
    /// CPUs that may be used.
    pub cpus: Cpus,
    /// Memory that may be used.
    pub memory: Bytes,
    /// `P` for tasks without a GPU.
    pub speed: Speed,
    /// Other countable resources.
    pub resources: BTreeMap<String, u64>,
}

/// One GPU, or a MIG slice of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Device {
    /// `node/gpuN`, N counting the node's cards in PCI order; `node/gpuN.M` for the M-th MIG slice of card N.
    pub id: String,
    /// The host it sits in.
    pub node: NodeId,
    /// `GPU-…` or `MIG-…`; unknown for hardware that is only planned for.
    pub uuid: Option<String>,
    /// The model, as short as people say it: `H100`.
    pub model: String,
    /// All of its memory.
    pub memory: Bytes,
    /// What its driver keeps of it for itself; zero where it does not say.
    pub reserved: Bytes,
    /// Memory that nobody held when it was probed; `None` where nobody looked.
    pub free: Option<Bytes>,
    /// What of the rest may be a desktop's, which who wants all of it puts up with: what processes held that only draw, or all
    /// of it where its driver does not say whose it is.
    pub drawn: Bytes,
    /// Whether it was set aside when it was probed: it is used once it is taken back, and nothing is planned for it before.
    pub aside: bool,
    /// Whether its driver was seen to hide who holds its memory: no task can be watched on it.
    pub hidden: bool,
    /// Whether its compute mode lets in one process at a time: tasks cannot share it.
    pub one_process: bool,
    /// Memory that no task may count on: room for CUDA contexts and for what the driver takes as it runs.
    pub headroom: Bytes,
    /// `P` of the load matrix.
    pub speed: Speed,
    /// Where in its host it sits, and what joins it to others there.
    pub spot: Spot,
    /// CPUs of its host that are nearest to it; empty where nobody says.
    pub near_cpus: Vec<u32>,
    /// What it takes while it idles and while all of it is in use, in watts; `None` where nobody says.
    pub watts: Option<(u64, u64)>,
    /// Compute capability, major and minor.
    pub compute_capability: Option<(u32, u32)>,
    /// PCI bus id, `00000000:17:00.0`.
    pub pci_bus_id: Option<String>,
    /// Position among all cards of its host in PCI order, those hidden from us counted too; a MIG slice has its
    /// card's. `None` for hardware that is only planned for, and where CUDA may count otherwise.
    pub pci_index: Option<u32>,
}

impl Device {
    /// Returns the memory that a plan may count on: what was free, or everything where nobody looked, less headroom.
    #[must_use]
    pub fn usable_memory(&self) -> Bytes {
        self.free.unwrap_or(self.memory - self.reserved) - self.headroom
    }

    /// Returns the memory that tasks could have if nobody else held any: what can never fit is measured by this.
    #[must_use]
    pub fn whole_memory(&self) -> Bytes {
        self.memory - self.reserved - self.headroom
    }

    /// Returns what was in use of it when it was probed, whoever held it; zero where nobody looked.
    #[must_use]
    pub fn in_use(&self) -> Bytes {
        self.free.map_or(Bytes::ZERO, |free| self.memory - self.reserved - free)
    }

    /// Whether it is a slice of a card in MIG mode.
    #[must_use]
    pub fn is_mig(&self) -> bool {
        self.uuid.as_deref().is_some_and(|uuid| uuid.starts_with("MIG-"))
    }

    /// Whether it can be one of so many devices of a task: a process can use one MIG slice, and nothing beside it.
    #[must_use]
    pub fn can_join(&self, gang: u32) -> bool {
        gang < 2 || !self.is_mig()
    }

    /// Returns what names it in `CUDA_VISIBLE_DEVICES` under `CUDA_DEVICE_ORDER=PCI_BUS_ID`: its PCI index, or its
    /// UUID if it is a MIG slice or has no index that CUDA agrees on; `None` for hardware that is only planned for.
    #[must_use]
    pub fn cuda_name(&self) -> Option<String> {
        let index = self.pci_index.filter(|_| !self.is_mig());
        index.map(|index| index.to_string()).or_else(|| self.uuid.clone())
    }
}

/// A connection between two nodes. Without one they share a file system: data takes no time from one to the other.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// Its ends, in any order.
    pub between: (NodeId, NodeId),
    /// Its rate, the same in both directions.
    pub bandwidth: Bandwidth,
}

/// Everything there is to run on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fleet {
    /// Its name.
    pub name: String,
    /// At least one.
    pub nodes: Vec<Node>,
    /// In the order of nodes, then of PCI bus ids.
    pub devices: Vec<Device>,
    /// Connections between nodes.
    pub links: Vec<Link>,
    /// What may be spent over a whole plan.
    pub budgets: BTreeMap<String, u64>,
    /// Devices that are there and cannot be used.
    pub unused: Vec<Unused>,
    /// Why not even those are known, or not all devices, where that is so.
    pub unseen: Option<Unseen>,
}

/// A device that is there and cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unused {
    /// Its name within its host: `gpu3`.
    pub name: String,
    /// Why.
    pub why: NotUsed,
    /// What tasks could have of its memory; `None` where it does not say.
    pub memory: Option<Bytes>,
}

/// Why a device that is there cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotUsed {
    /// It was drained by hand, or is in quarantine.
    Aside,
    /// It does not answer.
    Lost,
    /// Its compute mode keeps all programs away.
    Prohibited,
    /// It is in MIG mode, and nobody has made slices of it.
    NoSlices,
    /// It answers, but does not tell what it has to.
    Unreadable,
}

/// Why no device of a host is known, although there may be some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unseen {
    /// `CUDA_VISIBLE_DEVICES` hides them.
    Masked,
    /// Their driver does not answer, or cannot be loaded.
    NoAnswer,
    /// Their driver lacks what is needed to ask for them.
    TooOld,
}

impl Fleet {
    /// Whether a device with this id, or the card that it is a slice of, is there and does not answer.
    #[must_use]
    pub fn is_lost(&self, id: &str) -> bool {
        self.lost(id).is_some()
    }

    /// Returns why a device with this id, or the card that it is a slice of, is there and is none; `None` where that is not so.
    #[must_use]
    pub fn lost(&self, id: &str) -> Option<NotUsed> {
        let name = id.rsplit('/').next().unwrap_or(id);
        let card = name.split('.').next().unwrap_or(name);
        let is_it = |unused: &&Unused| unused.name == name || unused.name == card;
        let is_gone = |why: &NotUsed| !matches!(why, NotUsed::Aside | NotUsed::Prohibited);
        self.unused.iter().filter(is_it).map(|unused| unused.why).find(is_gone)
    }

    /// Returns it with devices that tasks are told of by their UUIDs. Where a card is lost, CUDA leaves it out and counts
    /// those behind it anew: an index would name another card.
    #[must_use]
    pub fn named_by_uuid(mut self) -> Self {
        self.devices.iter_mut().for_each(|device| device.pci_index = None);
        self
    }
}
