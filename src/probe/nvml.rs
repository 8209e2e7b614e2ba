//! The calls to NVML: the only file that knows `nvml-wrapper`.
//!
//! The library is loaded when it is asked for. A call that the driver lacks, does not support for a device or answers
//! with an error leaves `None`; only what makes a device unusable becomes a [`Fault`].

use std::cmp::Reverse;
use std::mem::MaybeUninit;
use std::path;

use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enum_wrappers::device::{ComputeMode, TemperatureSensor};
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use nvml_wrapper::{Device, EventSet, Nvml};

use super::aside::Why;
use super::gpu::{
    Fault, Gpu, Gpus, Inventory, Lost, Memory, MemoryCall, NoGpus, Path, Process, Reading, Slice, Warning,
};
use super::mask::{self, Named};
use super::{Options, groups, model, mps};
use crate::units::Bytes;

mod details;
mod topology;

/// Loads the library and starts it.
pub(super) fn open(options: &Options) -> Result<Nvml, NoGpus> {
    Nvml::builder().lib_path(&options.nvml).init().map_err(|error| {
        if let NvmlError::FailedToLoadSymbol(lacks) = error {
            return NoGpus::TooOld { lacks };
        }
        let NvmlError::LibloadingError(why) = error else {
            return NoGpus::NotWorking { answer: error.to_string() };
        };
        let library = options.nvml.to_string_lossy().into_owned();
        // A name without a folder is looked for by the loader, in places of its own.
        if path::Path::new(&options.nvml).is_file() {
            NoGpus::NoLibrary { library, why: why.to_string() }
        } else {
            NoGpus::NoDriver { library }
        }
    })
}

/// The library, and what its driver reports of cards. Both stay open for the life of the process.
#[derive(Debug)]
pub(super) struct Reports {
    nvml: &'static Nvml,
    /// A card's UUID and what reports its events; cards and drivers without events have none.
    sets: Vec<(String, EventSet<'static>)>,
    /// Whether the driver is one that reports none.
    is_mute: bool,
}

impl Reports {
    /// Opens the library and listens for errors of these cards.
    pub(super) fn open(options: &Options, cards: &[&str]) -> Result<Self, NoGpus> {
        // Sets of events borrow the library; a run needs both to its end.
        let nvml: &'static Nvml = Box::leak(Box::new(open(options)?));
        let wanted = EventTypes::CRITICAL_XID_ERROR | EventTypes::DOUBLE_BIT_ECC_ERROR;
        let listen = |card: &&str| {
            let device = by_uuid(nvml, card).ok()?;
            let supported = device.supported_event_types().ok()? & wanted;
            let set = device.register_events(supported, nvml.create_event_set().ok()?).ok()?;
            Some(((*card).to_owned(), set))
        };
        let is_mute = matches!(nvml.create_event_set().map(drop), Err(NvmlError::FailedToLoadSymbol(_)));
        Ok(Self { nvml, sets: cards.iter().filter_map(listen).collect(), is_mute })
    }

    pub(super) const fn is_mute(&self) -> bool {
        self.is_mute
    }

    pub(super) const fn nvml(&self) -> &'static Nvml {
        self.nvml
    }

    /// Returns what was reported since the last time, without waiting for more, and how often.
    pub(super) fn take(&self) -> Vec<(String, Why, u32)> {
        /// Reports of a card that are taken at most: one in trouble may report without end.
        const MOST: u32 = 10_000;
        let mut reported: Vec<(String, Why, u32)> = Vec::new();
        for (card, set) in &self.sets {
            for _ in 0..MOST {
                let Ok(event) = set.wait(0) else { break };
                let why = match event.event_data {
                    Some(XidError::Value(code)) => Why::Xid { code },
                    Some(XidError::Unknown) => continue,
                    None if event.event_type.contains(EventTypes::DOUBLE_BIT_ECC_ERROR) => Why::Ecc,
                    None => continue,
                };
                match reported.iter_mut().find(|(of, same, _)| of == card && *same == why) {
                    Some((.., times)) => *times += 1,
                    None => reported.push((card.clone(), why, 1)),
                }
            }
        }
        reported
    }
}

/// Returns every device that we may use, or why there is none.
pub(super) fn inventory(options: &Options) -> (Gpus, Vec<Warning>) {
    let mut warnings = Vec::new();
    let gpus = open(options).and_then(|nvml| {
        let found = found(&nvml, options, &mut warnings);
        if nvml.lib().nvmlShutdown.is_err() {
            // Whoever drops it calls that.
            std::mem::forget(nvml);
        }
        found
    });
    match gpus {
        Ok(inventory) => (Gpus::Found(inventory), warnings),
        Err(reason) => (Gpus::None { reason }, warnings),
    }
}

fn found(nvml: &Nvml, options: &Options, warnings: &mut Vec<Warning>) -> Result<Inventory, NoGpus> {
    let cards = cards(nvml, warnings)?;
    warnings.extend(cards.iter().filter_map(|(index, card)| without_slices(card, *index)).map(Warning::Lost));
    let links = topology::links(&cards);
    let between = |a: usize, b: usize| links.iter().find(|link| link.between == (cards[a.min(b)].0, cards[a.max(b)].0));
    let by_nvlink = |a: usize, b: usize| between(a, b).is_some_and(|link| link.nvlink);
    let behind_switch = |a: usize, b: usize| {
        let path = between(a, b).and_then(|link| link.pcie);
        path.is_some_and(|path| path <= Path::Switches)
    };
    let nvlink = groups::groups(cards.len(), by_nvlink);
    let switch = groups::groups(cards.len(), behind_switch);
    let mut devices = Vec::new();
    for (((index, card), nvlink_group), pcie_group) in cards.iter().zip(nvlink).zip(switch) {
        let of = devices_of(card, *index, nvlink_group).into_iter();
        devices.extend(of.map(|gpu| Gpu { pcie_group, ..gpu }));
    }
    let all = devices.len();
    let devices = masked(devices, options, warnings)?;
    let cuda = nvml.sys_cuda_driver_version().ok().and_then(|version| u32::try_from(version).ok());
    Ok(Inventory {
        driver: nvml.sys_driver_version().ok(),
        // Written as 1000 × major + 10 × minor.
        cuda: cuda.map(|version| (version / 1000, version % 1000 / 10)),
        masked: devices.len() < all,
        devices,
        links,
    })
}

/// Returns the cards that answer, in PCI order, each with its position among all cards.
///
/// NVML counts in that order but does not promise it. A card that does not answer keeps the place that NVML gives it, so
/// that the others keep theirs.
fn cards<'a>(nvml: &'a Nvml, warnings: &mut Vec<Warning>) -> Result<Vec<(u32, Device<'a>)>, NoGpus> {
    let count = nvml.device_count().map_err(|error| NoGpus::NotWorking { answer: error.to_string() })?;
    let (mut cards, mut places) = (Vec::new(), Vec::new());
    let mut first = None;
    for index in 0..count {
        // Without its UUID a card could not be told from another one later, and one that may be in MIG mode is not to be
        // taken for a whole one.
        let known = |card: Device<'a>| twice(|| card.uuid()).and_then(|_| mig_mode(&card)).map(|_| card);
        match twice(|| nvml.device_by_index(index)).and_then(known) {
            Ok(card) => {
                cards.push(card);
                places.push(index);
            }
            Err(error) => {
                let fault = fault(&error);
                first.get_or_insert_with(|| fault.clone());
                warnings.push(Warning::Lost(Lost { pci_index: index, uuid: None, fault, drained: false }));
            }
        }
    }
    let order = |card: &Device| card.pci_info().ok().map(|pci| (pci.domain, pci.bus, pci.device));
    cards.sort_by_key(order);
    match first {
        _ if !cards.is_empty() => Ok(places.into_iter().zip(cards).collect()),
        Some(first) => Err(NoGpus::AllLost { count, first }),
        None => Err(NoGpus::NoDevice),
    }
}

/// Returns what is to be said of a card in MIG mode that nobody has made slices of.
fn without_slices(card: &Device, pci_index: u32) -> Option<Lost> {
    let is_empty = is_sliced(card) && slices(card).next().is_none();
    is_empty.then(|| Lost { pci_index, uuid: card.uuid().ok(), fault: Fault::NoSlices, drained: false })
}

/// Yields the slices of a card.
fn slices<'a>(card: &'a Device<'_>) -> impl Iterator<Item = Device<'a>> {
    (0..card.mig_device_count().unwrap_or(0)).filter_map(|slice| card.mig_device_by_index(slice).ok())
}

/// Returns the devices of a card: itself, or its slices if it is in MIG mode.
fn devices_of(card: &Device, index: u32, group: Option<u32>) -> Vec<Gpu> {
    let mig_mode = mig_mode(card).ok().flatten();
    if mig_mode != Some(true) {
        return describe(card, card, index)
            .map(|gpu| Gpu { nvlink_group: group, mig_mode, ..gpu })
            .into_iter()
            .collect();
    }
    let Ok(uuid) = card.uuid() else { return Vec::new() };
    let slices = (0..).zip(slices(card)).filter_map(|(position, slice)| {
        let gpu = describe(&slice, card, index)?;
        let compute_slices = slice.attributes().ok().map(|attributes| attributes.compute_instance_slice_count);
        let card_name = card.name().map(|name| model::short_name(&name)).unwrap_or_default();
        let speed = model::speed(&card_name).zip(compute_slices);
        Some(Gpu {
            mig_mode,
            known_speed: speed.map(|(speed, slices)| model::slice_speed(speed, &card_name, slices)),
            slice: Some(Slice { card: uuid.clone(), index: position, compute_slices }),
            ..gpu
        })
    });
    slices.collect()
}

/// Describes a device; what a slice does not say itself is its card's.
fn describe(device: &Device, card: &Device, pci_index: u32) -> Option<Gpu> {
    let uuid = device.uuid().ok()?;
    let full_name = device.name().or_else(|_| card.name()).ok();
    let model = full_name.as_deref().map_or_else(|| "GPU".to_owned(), model::short_name);
    let capability = card.cuda_compute_capability().ok();
    let capability = capability.and_then(|c| Some((u32::try_from(c.major).ok()?, u32::try_from(c.minor).ok()?)));
    Some(Gpu {
        reading: read(device, uuid.clone()),
        uuid,
        pci_index,
        pci_bus_id: card.pci_info().ok().map(|pci| pci.bus_id),
        full_name,
        known_speed: model::speed(&model),
        measured: None,
        model,
        compute_capability: capability,
        numa_node: topology::numa_node(card),
        near_cpus: topology::near_cpus(card),
        details: details::details(card),
        mig_mode: None,
        slice: None,
        nvlink_group: None,
        pcie_group: None,
    })
}

impl<'a> From<&'a Gpu> for Named<'a> {
    fn from(gpu: &'a Gpu) -> Self {
        let card = gpu.slice.as_ref().map(|slice| slice.card.as_str());
        Self { uuid: &gpu.uuid, card, pci_index: gpu.pci_index }
    }
}

impl<'a> From<&'a Lost> for Named<'a> {
    fn from(lost: &'a Lost) -> Self {
        Self { uuid: lost.uuid.as_deref().unwrap_or(""), card: None, pci_index: lost.pci_index }
    }
}

/// Leaves the devices that the inherited mask shows.
fn masked(devices: Vec<Gpu>, options: &Options, warnings: &mut Vec<Warning>) -> Result<Vec<Gpu>, NoGpus> {
    let lost = || warnings.iter().filter_map(Warning::lost);
    let Some(mask) = options.visible_devices.clone() else {
        let count = u32::try_from(lost().count()).unwrap_or(u32::MAX);
        let all_lost = lost().next().map(|first| NoGpus::AllLost { count, first: first.fault.clone() });
        return if devices.is_empty() { Err(all_lost.unwrap_or(NoGpus::NoDevice)) } else { Ok(devices) };
    };
    let mut named: Vec<_> = devices.iter().map(Named::from).collect();
    // A lost card that the mask names by its index is in vain, and no mistake: the rest of the mask counts.
    named.extend(lost().map(Named::from));
    let visible = mask::visible(&mask, &named);
    if let Some(problem) = visible.problem {
        warnings.push(Warning::Mask { mask: mask.clone(), problem });
    }
    let pci_order = options.device_order.as_deref() == Some("PCI_BUS_ID");
    let alike = devices.windows(2).all(|pair| pair[0].full_name == pair[1].full_name);
    if visible.by_index && !pci_order && !alike {
        warnings.push(Warning::Order { mask: mask.clone() });
    }
    let all = devices.len();
    let shown = devices.into_iter().enumerate().filter(|(index, _)| visible.devices.contains(index));
    let shown: Vec<_> = shown.map(|(_, gpu)| gpu).collect();
    if !shown.is_empty() {
        return Ok(shown);
    }
    // Behind the devices that answer come those that are lost.
    let named = visible.devices.iter().find_map(|index| warnings.iter().filter_map(Warning::lost).nth(index - all));
    Err(match named {
        Some(lost) => NoGpus::MaskedLost { mask, lost: lost.clone() },
        None => NoGpus::Masked { mask },
    })
}

/// Returns the device with this UUID; a driver that does not find it by that is asked for each card and slice.
fn by_uuid<'a>(nvml: &'a Nvml, uuid: &str) -> Result<Device<'a>, NvmlError> {
    let found = nvml.device_by_uuid(uuid);
    let Err(NvmlError::FailedToLoadSymbol(_)) = found else { return found };
    for card in (0..nvml.device_count()?).filter_map(|index| nvml.device_by_index(index).ok()) {
        let is_it = |device: &Device| device.uuid().is_ok_and(|own| own == uuid);
        let slices = (0..card.mig_device_count().unwrap_or(0)).filter_map(|slice| card.mig_device_by_index(slice).ok());
        if let Some(slice) = slices.into_iter().find(is_it) {
            return Ok(slice);
        }
        if is_it(&card) {
            return Ok(card);
        }
    }
    Err(NvmlError::NotFound)
}

/// Reads what the device with this UUID is doing, which is a card or a slice of one.
pub(super) fn read_by_uuid(nvml: &Nvml, uuid: &str, card: &str) -> Reading {
    let read = by_uuid(nvml, uuid).map(|device| (uuid == card && is_sliced(&device), read(&device, uuid.to_owned())));
    let reading = match read {
        Ok((true, reading)) => Reading { fault: reading.fault.or(Some(Fault::Sliced)), ..reading },
        Ok((false, reading)) => reading,
        Err(error) => Reading { uuid: uuid.to_owned(), fault: Some(fault(&error)), ..Reading::default() },
    };
    // Of a card that is lost nobody can say what became of its slices.
    let answers = || by_uuid(nvml, card).and_then(|card| memory(&card)).is_ok();
    match reading.fault {
        Some(Fault::Lost(_)) if uuid != card && answers() => Reading { fault: Some(Fault::Gone), ..reading },
        Some(_) | None => reading,
    }
}

/// Whether a card is in MIG mode.
fn is_sliced(card: &Device) -> bool {
    matches!(mig_mode(card), Ok(Some(true)))
}

/// Returns whether a card is in MIG mode; `None` where it has none.
fn mig_mode(card: &Device) -> Result<Option<bool>, NvmlError> {
    match twice(|| card.mig_mode()) {
        Ok(mode) => Ok(Some(mode.current == 1)),
        Err(error) if is_unknown(&error) || matches!(error, NvmlError::InvalidArg) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Asks again where the driver does not know for once: a card that is well may answer so when it is busy.
fn twice<T>(ask: impl Fn() -> Result<T, NvmlError>) -> Result<T, NvmlError> {
    let for_once = |error: &NvmlError| matches!(error, NvmlError::Unknown | NvmlError::Timeout | NvmlError::InUse);
    ask().or_else(|error| if for_once(&error) { ask() } else { Err(error) })
}

/// Reads what a device is doing: processes first, then memory (see [`Reading::processes`]).
fn read(device: &Device, uuid: String) -> Reading {
    let processes = processes(device);
    let mode = device.compute_mode().ok();
    let is_for_one = matches!(mode, Some(ComputeMode::ExclusiveProcess | ComputeMode::ExclusiveThread));
    match memory(device) {
        Ok(memory) => Reading {
            uuid,
            fault: (mode == Some(ComputeMode::Prohibited)).then_some(Fault::Prohibited),
            processes,
            memory,
            one_process: is_for_one && !mps::runs(),
            utilisation: device.utilization_rates().ok().map(|rates| rates.gpu),
            temperature: device.temperature(TemperatureSensor::Gpu).ok(),
            power: device.power_usage().ok(),
            power_limit: device.enforced_power_limit().or_else(|_| device.power_management_limit()).ok(),
            slowed: details::slowed(device),
        },
        Err(error) => Reading { uuid, fault: Some(fault(&error)), ..Reading::default() },
    }
}

fn fault(error: &NvmlError) -> Fault {
    let lost = |words: &str| Fault::Lost(words.to_owned());
    if matches!(error, NvmlError::GpuLost) {
        lost("it fell off the bus or cannot be reached")
    } else if matches!(error, NvmlError::ResetRequired) {
        lost("it needs a reset")
    } else if matches!(error, NvmlError::NotFound) {
        lost("the driver does not know it any more")
    } else if is_unknown(error) {
        Fault::Unreadable(format!("its driver is too old, or does not support it: {error}"))
    } else {
        Fault::Unreadable(error.to_string())
    }
}

/// Whether an answer means "this driver or device cannot say", rather than "something is wrong with it".
fn is_unknown(error: &NvmlError) -> bool {
    matches!(error, NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_) | NvmlError::FunctionNotFound)
}

/// Whether an answer means that the driver has this call with another version of its struct.
fn is_of_another_version(error: &NvmlError) -> bool {
    const VERSION_MISMATCH: u32 = 25;
    matches!(error, NvmlError::UnexpectedVariant(VERSION_MISMATCH))
}

/// Returns a device's memory by the newest call that the driver has; `None` if the device has no memory of its own.
fn memory(device: &Device) -> Result<Option<Memory>, NvmlError> {
    match twice(|| device.memory_info()) {
        Ok(info) => Ok(Some(Memory {
            total: Bytes(info.total),
            free: Bytes(info.free),
            used: Bytes(info.used),
            reserved: Some(Bytes(info.reserved)),
            call: MemoryCall::V2,
        })),
        // An older driver may know the call and not this version of what it fills.
        Err(error) if is_unknown(&error) || is_of_another_version(&error) => match memory_v1(device) {
            Err(error) if is_unknown(&error) => Ok(None),
            other => other.map(Some),
        },
        Err(error) => Err(error),
    }
}

/// Asks the call that drivers before 510 have; `nvml-wrapper` offers only the second version.
fn memory_v1(device: &Device) -> Result<Memory, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetMemoryInfo.as_ref())?;
    let mut info = MaybeUninit::zeroed();
    // SAFETY: the handle belongs to `device`, whose library is still loaded, and `info` is the struct that the call
    // fills; zeroes are valid numbers in it.
    let info = unsafe {
        nvml_try(call(device.handle(), info.as_mut_ptr()))?;
        info.assume_init()
    };
    Ok(Memory {
        total: Bytes(info.total),
        free: Bytes(info.free),
        used: Bytes(info.used),
        reserved: None,
        call: MemoryCall::V1,
    })
}

/// Returns the processes that compute on a device and those that only draw on it, in ascending order of pid; `None` where
/// nobody says who computes.
fn processes(device: &Device) -> Option<Vec<Process>> {
    let listed = match device.running_compute_processes() {
        Err(NvmlError::FailedToLoadSymbol(_)) => device.running_compute_processes_v2(),
        other => other,
    };
    let drawing = match device.running_graphics_processes() {
        Err(NvmlError::FailedToLoadSymbol(_)) => device.running_graphics_processes_v2(),
        other => other,
    };
    // Who computes through an MPS server is in a list of its own: the other one has the server.
    let through_mps = device.mps_running_compute_processes();
    let mut processes: Vec<_> = listed.ok()?.iter().map(|info| process(info, false)).collect();
    processes.extend(through_mps.unwrap_or_default().iter().map(|info| process(info, false)));
    processes.extend(drawing.unwrap_or_default().iter().map(|info| process(info, true)));
    // Who is in several counts once, as the one that is said to hold most.
    processes.sort_by_key(|process| (process.pid, process.draws, Reverse(process.memory)));
    processes.dedup_by_key(|process| process.pid);
    Some(processes)
}

fn process(info: &ProcessInfo, draws: bool) -> Process {
    let memory = match info.used_gpu_memory {
        UsedGpuMemory::Used(bytes) => Some(Bytes(bytes)),
        UsedGpuMemory::Unavailable => None,
    };
    Process { pid: info.pid, memory, draws }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_there_is_a_reason_and_no_panic() {
        let options = Options { nvml: "libno-such-driver.so.1".into(), ..Options::default() };
        let (gpus, warnings) = inventory(&options);
        assert!(matches!(gpus, Gpus::None { reason: NoGpus::NoDriver { .. } }));
        assert!(warnings.is_empty());
    }

    #[test]
    fn a_file_that_is_no_library_is_not_said_to_be_missing() {
        let options = Options { nvml: "/etc/passwd".into(), ..Options::default() };
        let Gpus::None { reason } = inventory(&options).0 else { panic!("no GPU in there") };
        let said = reason.to_string();
        assert!(said.starts_with("no NVIDIA driver: /etc/passwd cannot be loaded: "), "{said}");
    }

    #[test]
    fn a_library_that_is_something_else_is_a_reason_too() {
        let options = Options { nvml: "libc.so.6".into(), ..Options::default() };
        assert!(matches!(inventory(&options).0, Gpus::None { reason: NoGpus::TooOld { .. } }));
    }
}
