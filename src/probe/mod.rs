//! What the real machine is: NVML, `/proc`, cgroups. Unknown is a value, never zero.
//!
//! Reading files and calling NVML is a thin shell; what their answers mean is decided by pure functions on text and
//! values, each beside its tests. Nothing here panics or fails for want of a driver: [`Gpus::None`] says why there is
//! no GPU, and the machine is still described. Does not know tasks or what we have promised to them.

use std::ffi::OsString;
use std::path::PathBuf;

pub mod aside;
pub mod cgroup;
pub mod clock;
pub mod disk;
pub mod gpu;
mod groups;
pub mod host;
pub mod mask;
pub mod model;
pub mod monitor;
pub mod mps;
mod nvml;
pub mod process;
pub mod speeds;
pub mod xid;

pub use gpu::{Gpu, Gpus, Lost, NoGpus, Reading, Warning};
pub use host::Host;
pub use monitor::Monitor;

use crate::fleet::{Device, Fleet, Headroom, Node, NodeId, NotUsed, Unseen, Unused};
use crate::units::{Bytes, Speed};

/// Names the NVML library to load instead of the system's.
pub const NVML_VARIABLE: &str = "TRAINYARD_NVML";

/// The library that every NVIDIA driver installs.
const NVML_LIBRARY: &str = "libnvidia-ml.so.1";

/// Where to look, and which devices we may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The NVML library: a name that the loader looks for, or a path.
    pub nvml: OsString,
    /// The folder that holds `proc` and `sys`.
    pub root: PathBuf,
    /// `CUDA_VISIBLE_DEVICES` as inherited.
    pub visible_devices: Option<String>,
    /// `CUDA_DEVICE_ORDER` as inherited.
    pub device_order: Option<String>,
    /// The file that lists devices which are not to be used; without one none is.
    pub aside: Option<PathBuf>,
    /// What of each device's memory no task may count on.
    pub headroom: Headroom,
    /// The file that holds the speeds that were measured; without one those of the table count.
    pub speeds: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nvml: NVML_LIBRARY.into(),
            root: "/".into(),
            visible_devices: None,
            device_order: None,
            aside: None,
            headroom: Headroom::default(),
            speeds: None,
        }
    }
}

impl Options {
    /// Takes from this process's environment what it says about devices.
    #[must_use]
    pub fn from_env() -> Self {
        let text = |name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        let nvml = std::env::var_os(NVML_VARIABLE).filter(|path| !path.is_empty());
        Self {
            nvml: nvml.unwrap_or_else(|| NVML_LIBRARY.into()),
            visible_devices: text("CUDA_VISIBLE_DEVICES"),
            device_order: text("CUDA_DEVICE_ORDER"),
            aside: state_home().map(|home| home.join("trainyard/devices.json")),
            speeds: state_home().map(|home| home.join("trainyard/speeds.json")),
            ..Self::default()
        }
    }

    /// Returns the list of devices that are not to be used.
    #[must_use]
    pub fn aside(&self) -> Option<aside::List> {
        self.aside.clone().map(|path| aside::List::new(path, &self.root))
    }
}

/// Returns the file by which the runs of this user tell each other which ports their tasks have.
#[must_use]
pub fn ports() -> Option<PathBuf> {
    state_home().map(|home| home.join("trainyard/ports"))
}

/// Returns the folder for what programs remember of this user: `$XDG_STATE_HOME`, or its usual place.
fn state_home() -> Option<PathBuf> {
    let named = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    named("XDG_STATE_HOME").or_else(|| Some(named("HOME")?.join(".local/state")))
}

/// This machine, as far as we may use it.
#[derive(Clone, Debug)]
pub struct Machine {
    /// CPUs, memory and name.
    pub host: Host,
    /// The devices that we may use, or why there are none.
    pub gpus: Gpus,
    /// What was odd but not fatal.
    pub warnings: Vec<Warning>,
    /// What of each device's memory no task may count on.
    pub headroom: Headroom,
}

/// Looks at this machine.
#[must_use]
pub fn this_machine(options: &Options) -> Machine {
    let (mut gpus, mut warnings) = nvml::inventory(options);
    let measured = options.speeds.clone().map(|path| speeds::List::new(path).read()).unwrap_or_default();
    let aside = options.aside().map(|list| list.read()).unwrap_or_default();
    for warning in &mut warnings {
        if let Warning::Lost(lost) = warning {
            let is_it = |aside: &aside::Aside| Some(&aside.uuid) == lost.uuid.as_ref();
            lost.drained = aside.iter().any(|aside| is_it(aside) && aside.why == aside::Why::Drained);
        }
    }
    if let Gpus::Found(inventory) = &mut gpus {
        for gpu in &mut inventory.devices {
            if gpu.reading.fault == Some(gpu::Fault::Prohibited) {
                warnings.push(Warning::Prohibited { name: gpu.name() });
            }
            if let Some(fault @ gpu::Fault::Unreadable(_)) = &gpu.reading.fault {
                warnings.push(Warning::Unreadable { name: gpu.name(), fault: fault.clone() });
            }
            if gpu.reading.one_process {
                warnings.push(Warning::OneProcess { name: gpu.name() });
            }
            gpu.measured = measured.get(gpu.card()).map(|measured| measured.speed);
            let card = gpu.slice.as_ref().map(|slice| &slice.card);
            let found = aside.iter().find(|aside| aside.uuid == gpu.uuid || Some(&aside.uuid) == card);
            if let Some(aside) = found {
                warnings.push(Warning::Aside { name: gpu.name(), why: aside.why.clone() });
                gpu.reading.fault = gpu.reading.fault.take().or(Some(gpu::Fault::Aside(aside.why.clone())));
            }
        }
    }
    Machine { host: Host::read(&options.root), gpus, warnings, headroom: options.headroom }
}

impl Machine {
    /// Yields the cards that do not answer.
    pub fn lost(&self) -> impl Iterator<Item = &Lost> {
        self.warnings.iter().filter_map(Warning::lost)
    }

    /// Returns the models of which nobody knows how fast they are, where there are others besides.
    #[must_use]
    pub fn models_of_unknown_speed(&self) -> Vec<&str> {
        let gpus = self.gpus.devices();
        let mut unknown: Vec<_> =
            gpus.iter().filter(|gpu| gpu.speed().is_none()).map(|gpu| gpu.model.as_str()).collect();
        unknown.sort_unstable();
        unknown.dedup();
        let is_alone = gpus.iter().all(|gpu| Some(&gpu.model.as_str()) == unknown.first());
        if is_alone { Vec::new() } else { unknown }
    }

    /// Returns the machine as a fleet of one node with the devices that we may use, those that are lost or set aside left
    /// out.
    #[must_use]
    pub fn fleet(&self) -> Fleet {
        let name = self.host.name.clone();
        let used = |gpu: &&Gpu| matches!(gpu.reading.fault, Some(gpu::Fault::Unreadable(_)) | None);
        let gpus = self.gpus.devices();
        let devices = gpus.iter().filter(used).map(|gpu| self.device(gpu)).collect();
        let node = Node { name: name.clone(), cpus: self.host.cpus, memory: self.host.memory, ..Node::default() };
        let unused = gpus.iter().filter_map(|gpu| {
            let why = match gpu.reading.fault {
                Some(gpu::Fault::Aside(_)) => NotUsed::Aside,
                Some(gpu::Fault::Lost(_) | gpu::Fault::Sliced | gpu::Fault::NoSlices | gpu::Fault::Gone) => {
                    NotUsed::Lost
                }
                Some(gpu::Fault::Prohibited) => NotUsed::Prohibited,
                Some(gpu::Fault::Unreadable(_)) | None => return None,
            };
            let memory = gpu.reading.memory.is_some().then(|| self.device(gpu).whole_memory());
            Some(Unused { name: gpu.name(), why, memory })
        });
        let lost = self.lost().map(|lost| {
            let why = match lost.fault {
                gpu::Fault::NoSlices => NotUsed::NoSlices,
                gpu::Fault::Unreadable(_) => NotUsed::Unreadable,
                gpu::Fault::Prohibited => NotUsed::Prohibited,
                gpu::Fault::Aside(_) => NotUsed::Aside,
                gpu::Fault::Lost(_) | gpu::Fault::Sliced | gpu::Fault::Gone => NotUsed::Lost,
            };
            Unused { name: lost.name(), why, memory: None }
        });
        let unused = unused.chain(lost).collect();
        let unseen = match &self.gpus {
            Gpus::None { reason: NoGpus::Masked { .. } } => Some(Unseen::Masked),
            Gpus::Found(inventory) if inventory.masked => Some(Unseen::Masked),
            Gpus::None { reason: NoGpus::NotWorking { .. } | NoGpus::NoLibrary { .. } } => Some(Unseen::NoAnswer),
            Gpus::None { reason: NoGpus::TooOld { .. } } => Some(Unseen::TooOld),
            Gpus::None {
                reason: NoGpus::NoDriver { .. } | NoGpus::NoDevice | NoGpus::AllLost { .. } | NoGpus::MaskedLost { .. },
            }
            | Gpus::Found(_) => None,
        };
        let fleet = Fleet { name: name.clone(), nodes: vec![node], devices, unused, unseen, ..Fleet::default() };
        let is_lost = |gpu: &Gpu| matches!(gpu.reading.fault, Some(gpu::Fault::Lost(_)));
        // Beside these CUDA may count otherwise.
        let is_odd = |gpu: &Gpu| is_lost(gpu) || gpu.slice.is_some();
        if self.lost().next().is_some() || gpus.iter().any(is_odd) { fleet.named_by_uuid() } else { fleet }
    }
}

impl Machine {
    /// Returns the fleet that a run has: behind the devices of [`Machine::fleet`], which a plan knows by their places, those
    /// that are set aside or closed to programs, and may be taken back or opened while it goes on.
    #[must_use]
    pub fn fleet_of_run(&self) -> Fleet {
        let mut fleet = self.fleet();
        let may_be_back = |gpu: &&Gpu| matches!(gpu.reading.fault, Some(gpu::Fault::Aside(_) | gpu::Fault::Prohibited));
        let aside = self.gpus.devices().iter().filter(may_be_back);
        let device = |gpu| Device { aside: true, ..self.device(gpu) };
        let by_uuid = fleet.devices.iter().any(|device| device.pci_index.is_none());
        fleet.devices.extend(aside.map(device));
        fleet.unused.retain(|unused| !matches!(unused.why, NotUsed::Aside | NotUsed::Prohibited));
        if by_uuid { fleet.named_by_uuid() } else { fleet }
    }

    /// Returns a GPU as a device of the only node.
    fn device(&self, gpu: &Gpu) -> Device {
        let memory = gpu.reading.memory.as_ref();
        let total = memory.map_or(Bytes::ZERO, |memory| memory.total);
        let reserved = memory.and_then(|memory| memory.reserved).unwrap_or_default();
        let hidden = gpu.reading.hides_processes();
        let in_use = memory.map_or(Bytes::ZERO, |memory| total - reserved - memory.free);
        // One of which nobody knows how fast it is does not take work from those that are known.
        let slowest = || self.gpus.devices().iter().filter_map(Gpu::speed).min();
        Device {
            watts: None,
            id: format!("{}/{}", self.host.name, gpu.name()),
            node: NodeId(0),
            uuid: Some(gpu.uuid.clone()),
            model: gpu.model.clone(),
            memory: total,
            reserved,
            free: memory.map(|memory| memory.free),
            drawn: if hidden { in_use } else { gpu.reading.drawn(|_| true) },
            aside: false,
            hidden,
            one_process: gpu.reading.one_process,
            headroom: self.headroom.of(total),
            speed: gpu.speed().or_else(slowest).unwrap_or(Speed::ONE),
            spot: gpu.spot(),
            near_cpus: host::ours(&gpu.near_cpus),
            compute_capability: gpu.compute_capability,
            pci_bus_id: gpu.pci_bus_id.clone(),
            pci_index: Some(gpu.pci_index),
        }
    }
}
