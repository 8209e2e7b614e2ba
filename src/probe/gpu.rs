//! What NVML says about GPUs, as values: what a device is, and what it was doing when it was read.
//!
//! A question that a driver does not answer is `None`. Does not call NVML itself.

use super::aside::Why;
use super::model;
use crate::fleet::Spot;
use crate::units::{Bytes, Speed};

/// The GPUs that we may use.
#[derive(Clone, Debug)]
pub enum Gpus {
    /// At least one, in PCI order.
    Found(Inventory),
    /// None, and why.
    None {
        /// Why.
        reason: NoGpus,
    },
}

/// What the driver showed.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// The driver's version, `580.65.06`.
    pub driver: Option<String>,
    /// The newest CUDA version that the driver runs, major and minor.
    pub cuda: Option<(u32, u32)>,
    /// In PCI order, slices of a card in the order of NVML.
    pub devices: Vec<Gpu>,
    /// Whether `CUDA_VISIBLE_DEVICES` hides others.
    pub masked: bool,
    /// What joins any two cards, also those that we may not use; in PCI order.
    pub links: Vec<Link>,
}

/// What joins two cards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Their positions among all cards, the smaller one first.
    pub between: (u32, u32),
    /// Whether NVLink joins them.
    pub nvlink: bool,
    /// The way over PCIe; `None` if the driver does not say.
    pub pcie: Option<Path>,
}

/// How far apart two cards are on PCIe, from close to far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Path {
    /// On one board.
    Board,
    /// Behind one switch.
    Switch,
    /// Behind several switches, not over a host bridge.
    Switches,
    /// Over one host bridge.
    HostBridge,
    /// Over several host bridges of one NUMA node.
    Numa,
    /// From one NUMA node to another.
    System,
}

impl Path {
    /// Returns the stable word of JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Board => "board",
            Self::Switch => "switch",
            Self::Switches => "switches",
            Self::HostBridge => "host-bridge",
            Self::Numa => "numa-node",
            Self::System => "system",
        }
    }
}

impl Gpus {
    /// Returns the devices; none where there are none.
    #[must_use]
    pub fn devices(&self) -> &[Gpu] {
        match self {
            Self::Found(inventory) => &inventory.devices,
            Self::None { .. } => &[],
        }
    }
}

/// Why there is no GPU to use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoGpus {
    /// The NVML library is not there.
    #[error("no NVIDIA driver: {library} was not found")]
    NoDriver {
        /// What was looked for.
        library: String,
    },
    /// A file of that name is there, and it is no library that could be loaded.
    #[error("no NVIDIA driver: {library} cannot be loaded: {why}")]
    NoLibrary {
        /// The file.
        library: String,
        /// What the loader said.
        why: String,
    },
    /// The library is there and refuses to work.
    #[error("the NVIDIA driver does not answer: {answer}")]
    NotWorking {
        /// What NVML said.
        answer: String,
    },
    /// The library lacks what every driver of today has.
    #[error("the NVIDIA driver is too old, or what was loaded is none: {lacks}")]
    TooOld {
        /// What the loader said.
        lacks: String,
    },
    /// A driver without a card.
    #[error("the NVIDIA driver is running but shows no GPU")]
    NoDevice,
    /// Cards that cannot be read.
    #[error("none of the {count} GPUs can be used: {first}")]
    AllLost {
        /// How many there are.
        count: u32,
        /// What is the matter with the first.
        first: Fault,
    },
    /// `CUDA_VISIBLE_DEVICES` leaves only what does not answer.
    #[error("CUDA_VISIBLE_DEVICES=\"{mask}\" names no GPU that can be used: {} is {}", lost.name(), lost.fault)]
    MaskedLost {
        /// Its value.
        mask: String,
        /// The first that it names.
        lost: Lost,
    },
    /// `CUDA_VISIBLE_DEVICES` leaves none.
    #[error("CUDA_VISIBLE_DEVICES=\"{mask}\" hides every GPU")]
    Masked {
        /// Its value.
        mask: String,
    },
}

/// Something odd that the user should know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// A card that is there but no device.
    #[error("{} is not used: {}", .0.name(), .0.fault)]
    Lost(Lost),
    /// A device that is not to be used.
    #[error("{name} is not used: it is {why}; `trainyard devices --undrain {name}` takes it back")]
    Aside {
        /// Its name within the machine.
        name: String,
        /// Why.
        why: Why,
    },
    /// A device that cannot be read now.
    #[error("{name} is not used as long as it is {fault}")]
    Unreadable {
        /// Its name within the machine.
        name: String,
        /// What is the matter with it.
        fault: Fault,
    },
    /// A device whose compute mode keeps all programs away.
    #[error(
        "{name} is not used: it is closed to programs (compute mode prohibited); `nvidia-smi --compute-mode=DEFAULT` opens it"
    )]
    Prohibited {
        /// Its name within the machine.
        name: String,
    },
    /// A device that programs cannot share.
    #[error("{name} lets in one process at a time (compute mode exclusive-process): it is given to one task at a time")]
    OneProcess {
        /// Its name within the machine.
        name: String,
    },
    /// An entry of `CUDA_VISIBLE_DEVICES` that means nothing here.
    #[error("CUDA_VISIBLE_DEVICES=\"{mask}\": {problem}")]
    Mask {
        /// Its value.
        mask: String,
        /// What is wrong with it.
        problem: super::mask::Problem,
    },
    /// Indices that CUDA itself would count in another order.
    #[error(
        "CUDA_VISIBLE_DEVICES=\"{mask}\" is read in PCI order; the cards differ, so CUDA may count them fastest first: \
         set CUDA_DEVICE_ORDER=PCI_BUS_ID or name them by UUID"
    )]
    Order {
        /// Its value.
        mask: String,
    },
}

impl Warning {
    /// Returns the card that does not answer, where that is what it is about.
    #[must_use]
    pub const fn lost(&self) -> Option<&Lost> {
        if let Self::Lost(lost) = self { Some(lost) } else { None }
    }
}

/// A card that is there but no device: it does not answer, or is in MIG mode without slices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Its position among all cards of the machine, by NVML's index.
    pub pci_index: u32,
    /// Which one it is; `None` where it does not even tell that.
    pub uuid: Option<String>,
    /// What is the matter with it.
    pub fault: Fault,
    /// Whether it is drained besides.
    pub drained: bool,
}

impl Lost {
    /// Returns its name within the machine: `gpu3`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("gpu{}", self.pci_index)
    }
}

/// One device.
#[derive(Clone, Debug)]
pub struct Gpu {
    /// `GPU-…`, or `MIG-…` for a slice.
    pub uuid: String,
    /// The card's position among all cards of the machine, in PCI order, those that do not answer counted too.
    pub pci_index: u32,
    /// PCI bus id of the card, `00000000:17:00.0`.
    pub pci_bus_id: Option<String>,
    /// The model as NVML writes it: `NVIDIA A100-SXM4-80GB`.
    pub full_name: Option<String>,
    /// The model as people say it: `A100-80GB`; `GPU` if NVML gives no name.
    pub model: String,
    /// Compute capability, major and minor.
    pub compute_capability: Option<(u32, u32)>,
    /// `P` of the load matrix, for known models.
    pub known_speed: Option<Speed>,
    /// `P` of its card as it was measured on this machine.
    pub measured: Option<Speed>,
    /// The NUMA node of the host that it is nearest to.
    pub numa_node: Option<u32>,
    /// The CPUs of the host that it is nearest to; empty where the driver does not say.
    pub near_cpus: Vec<u32>,
    /// Health, clocks and connection of its card when it was probed.
    pub details: Details,
    /// Whether the card is in MIG mode; `None` if it has no such mode.
    pub mig_mode: Option<bool>,
    /// Which slice of the card it is.
    pub slice: Option<Slice>,
    /// Devices with the same number are all joined to each other by NVLink.
    pub nvlink_group: Option<u32>,
    /// Cards with the same number sit behind one PCIe switch.
    pub pcie_group: Option<u32>,
    /// What it was doing when it was probed.
    pub reading: Reading,
}

impl Gpu {
    /// Returns its name within the machine: `gpu3`, or `gpu3.0` for a slice.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.slice {
            Some(slice) => format!("gpu{}.{}", self.pci_index, slice.index),
            None => format!("gpu{}", self.pci_index),
        }
    }

    /// Returns the UUID of the card that it is, or is a slice of.
    #[must_use]
    pub fn card(&self) -> &str {
        self.slice.as_ref().map_or(&self.uuid, |slice| &slice.card)
    }

    /// Returns `P` of the load matrix: as measured, else as its model is known to be; `None` where nobody knows.
    #[must_use]
    pub fn speed(&self) -> Option<Speed> {
        let Some(measured) = self.measured else { return self.known_speed };
        match &self.slice {
            None => Some(measured),
            Some(slice) => slice.compute_slices.map(|slices| model::slice_speed(measured, &self.model, slices)),
        }
    }

    /// Returns where in the host it sits.
    #[must_use]
    pub const fn spot(&self) -> Spot {
        Spot { nvlink: self.nvlink_group, switch: self.pcie_group, numa: self.numa_node }
    }
}

/// What a card tells of its health, its clocks and its connection; `None` is what it does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Clock of the multiprocessors, in MHz.
    pub sm_clock: Option<u32>,
    /// Clock of the memory, in MHz.
    pub memory_clock: Option<u32>,
    /// Whether memory errors are corrected.
    pub ecc: Option<bool>,
    /// Memory errors since the driver was loaded that could not be corrected.
    pub uncorrected_errors: Option<u64>,
    /// Memory rows that were replaced.
    pub remapped: Option<Remapped>,
    /// Whether the driver stays loaded without a client.
    pub persistence: Option<bool>,
    /// Who may use it: `default`, `exclusive-process`, `prohibited`.
    pub compute_mode: Option<&'static str>,
    /// Generation of the PCIe link that is in use; an idle card may use an older one than it could.
    pub pcie_generation: Option<u32>,
    /// Lanes of the PCIe link that are in use.
    pub pcie_width: Option<u32>,
}

/// Memory rows of a card that were replaced by spare ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Remapped {
    /// For errors that were corrected.
    pub corrected: u32,
    /// For errors that were not.
    pub uncorrected: u32,
    /// Whether some are replaced at the next reset.
    pub pending: bool,
    /// Whether a replacement failed.
    pub failed: bool,
}

/// Which part of a card a MIG device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// UUID of the card.
    pub card: String,
    /// Its position among the card's slices.
    pub index: u32,
    /// Compute slices, of the seven (four on an A30) that a card has.
    pub compute_slices: Option<u32>,
}

/// What a device was doing at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Which device.
    pub uuid: String,
    /// Why it could not be read at all: it fell off the bus, say. Everything else is `None` then.
    pub fault: Option<Fault>,
    /// Processes that compute or draw on it, read before `memory`: what a process allocates in between is then counted as
    /// promised and as taken, never as neither. `None`: the driver does not say.
    pub processes: Option<Vec<Process>>,
    /// Its memory.
    pub memory: Option<Memory>,
    /// Whether its compute mode lets in one process at a time, and no MPS server is that one for all others.
    pub one_process: bool,
    /// How much of the time a kernel was running, in percent.
    pub utilisation: Option<u32>,
    /// Of the chip, in degrees Celsius.
    pub temperature: Option<u32>,
    /// What it draws, in milliwatts.
    pub power: Option<u32>,
    /// What it may draw, in milliwatts.
    pub power_limit: Option<u32>,
    /// Why it runs slower than it could; empty for one that is well.
    pub slowed: Option<Vec<&'static str>>,
}

/// Why a device cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It fell off the bus or needs a reset.
    #[error("lost: {0}")]
    Lost(String),
    /// Any other answer.
    #[error("unreadable: {0}")]
    Unreadable(String),
    /// Its compute mode keeps all programs away.
    #[error("closed to programs (compute mode prohibited)")]
    Prohibited,
    /// It was turned to MIG mode: programs see its slices, if it has any, and not it.
    #[error("in MIG mode now, no device of its own")]
    Sliced,
    /// It is in MIG mode, and nobody has made slices of it.
    #[error("in MIG mode without slices: `nvidia-smi mig -cgi PROFILE -C` makes some, `nvidia-smi -mig 0` ends it")]
    NoSlices,
    /// It was a slice of a card that is well.
    #[error("gone: its card has no such MIG slice any more")]
    Gone,
    /// It is not to be used.
    #[error("{0}")]
    Aside(Why),
}

impl Fault {
    /// Whether nothing that runs on the device can go on.
    #[must_use]
    pub const fn ends_tasks(&self) -> bool {
        match self {
            Self::Lost(_) | Self::Sliced | Self::NoSlices | Self::Gone => true,
            Self::Unreadable(_) | Self::Prohibited => false,
            Self::Aside(why) => why.ends_tasks(),
        }
    }
}

/// A device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// All of it.
    pub total: Bytes,
    /// What can still be allocated.
    pub free: Bytes,
    /// What is taken; includes what the driver keeps for itself if it came from [`MemoryCall::V1`].
    pub used: Bytes,
    /// What the driver keeps for itself; only [`MemoryCall::V2`] says.
    pub reserved: Option<Bytes>,
    /// Which call said so.
    pub call: MemoryCall,
}

/// NVML's two ways to ask for memory, which count the driver's own part differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryCall {
    /// `nvmlDeviceGetMemoryInfo`.
    V1,
    /// `nvmlDeviceGetMemoryInfo_v2`, drivers from 510 on.
    V2,
}

/// A process that computes or draws on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id, as the driver sees it: in a container it may not be ours.
    pub pid: u32,
    /// What it holds of the device's memory.
    pub memory: Option<Bytes>,
    /// Whether it only draws, as a desktop does.
    pub draws: bool,
}

impl Reading {
    /// Returns the memory in use that no listed process holds; `None` where processes or memory are unknown.
    ///
    /// A container that hides pids, and memory of a process that has just ended, show up here.
    #[must_use]
    pub fn unattributed(&self) -> Option<Bytes> {
        let memory = self.memory?;
        // Of those that draw a driver need not know it.
        let held = |process: &Process| process.memory.or(process.draws.then_some(Bytes::ZERO));
        let known: Bytes = self.processes.as_ref()?.iter().map(held).sum::<Option<Bytes>>()?;
        // What is neither free nor the driver's is held by somebody, whichever call it came from.
        Some(memory.total - memory.free - memory.reserved.unwrap_or(Bytes::ZERO) - known)
    }

    /// Returns how many processes compute on it, of those that count; where the driver does not say, memory in use tells of
    /// one.
    #[must_use]
    pub fn computing(&self, counts: impl Fn(u32) -> bool) -> usize {
        let listed = self.processes.iter().flatten().filter(|process| !process.draws && counts(process.pid)).count();
        listed.max(usize::from(listed == 0 && self.hides_processes()))
    }

    /// Returns what processes hold that only draw, of those that count: a desktop.
    #[must_use]
    pub fn drawn(&self, counts: impl Fn(u32) -> bool) -> Bytes {
        let listed = self.processes.as_deref().unwrap_or_default();
        let drawing = || listed.iter().filter(|process| process.draws && counts(process.pid));
        let told: Bytes = drawing().filter_map(|process| process.memory).sum();
        // What the driver does not tell of a desktop is nobody's.
        let is_untold = drawing().any(|process| process.memory.is_none());
        told + if is_untold { self.unattributed().unwrap_or_default() } else { Bytes::ZERO }
    }

    /// Whether the driver hides who holds the device's memory, as it does in containers: nobody can tell then what a
    /// process takes. Of an idle device that is not known before.
    #[must_use]
    pub fn hides_processes(&self) -> bool {
        /// What a device in nobody's hands may show as used; a CUDA context takes 300 MiB and more.
        const IDLE: Bytes = Bytes(64 << 20);
        let Some(memory) = self.memory else { return false };
        match self.processes.as_deref() {
            None => true,
            // The first version counts what the driver keeps for itself.
            Some([]) => memory.reserved.is_some_and(|reserved| memory.total - memory.free - reserved > IDLE),
            Some(listed) => listed.iter().any(|process| !process.draws && process.memory.is_none()),
        }
    }
}
