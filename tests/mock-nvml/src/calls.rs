//! The exported functions: the part of NVML's C interface that Trainyard asks for.
//!
//! Each reads the state anew, lets an injected error go first, and then answers as the documentation of NVML says.

use std::collections::BTreeSet;
use std::ffi::{CStr, c_char, c_int, c_uint, c_ulong, c_ulonglong};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, Ordering};

use nvml_wrapper_sys::bindings as nvml;

use crate::events;
use crate::handle::Handle;
use crate::state::{Card, Folder, Held, Machine};

const UNINITIALIZED: u32 = 1;
const INVALID_ARGUMENT: u32 = 2;
const NOT_SUPPORTED: u32 = 3;
const NOT_FOUND: u32 = 6;
const INSUFFICIENT_SIZE: u32 = 7;
const DRIVER_NOT_LOADED: u32 = 9;
const TIMEOUT: u32 = 10;
const VERSION_MISMATCH: u32 = 25;

const MIB: u64 = 1 << 20;

/// How long a call waits before it looks again whether the driver is still stuck.
const STUCK: std::time::Duration = std::time::Duration::from_millis(20);

/// How often it was initialised and not shut down yet.
static USERS: AtomicI32 = AtomicI32::new(0);

type Answer = Result<(), u32>;

fn code(answer: Answer) -> u32 {
    answer.err().unwrap_or(0)
}

fn world() -> Result<(Folder, Machine), u32> {
    if USERS.load(Ordering::SeqCst) <= 0 {
        return Err(UNINITIALIZED);
    }
    let folder = Folder::from_env().ok_or(DRIVER_NOT_LOADED)?;
    let machine = folder.machine().map_err(|_| DRIVER_NOT_LOADED)?;
    Ok((folder, machine))
}

/// What a question about a device is answered from.
struct Asked {
    folder: Folder,
    machine: Machine,
    handle: Handle,
}

/// Cards with the functions that have failed in this process as they were to fail once.
static FAILED_ONCE: Mutex<BTreeSet<(usize, String)>> = Mutex::new(BTreeSet::new());

impl Asked {
    fn new(function: &str, raw: nvml::nvmlDevice_t) -> Result<Self, u32> {
        let (folder, mut machine) = world()?;
        let handle = Handle::from_raw(raw).ok_or(INVALID_ARGUMENT)?;
        while machine.cards.get(handle.card()).is_some_and(|card| card.stuck) {
            folder.note_that_one_waits().map_err(|_| DRIVER_NOT_LOADED)?;
            #[expect(clippy::disallowed_methods, reason = "a driver that is stuck tells nobody when it goes on")]
            std::thread::sleep(STUCK);
            machine = folder.machine().map_err(|_| DRIVER_NOT_LOADED)?;
        }
        let card = machine.cards.get(handle.card()).ok_or(INVALID_ARGUMENT)?;
        if let Some(code) = card.fails.get(function).or_else(|| card.fails.get("*")) {
            return Err(*code);
        }
        let mut failed = FAILED_ONCE.lock().map_err(|_| DRIVER_NOT_LOADED)?;
        if let Some(code) = card.fails_once.get(function)
            && failed.insert((handle.card(), function.to_owned()))
        {
            return Err(*code);
        }
        drop(failed);
        if matches!(handle, Handle::Slice(_, slice) if slice >= card.slices.len()) {
            return Err(NOT_FOUND);
        }
        Ok(Self { folder, machine, handle })
    }

    fn card(&self) -> &Card {
        &self.machine.cards[self.handle.card()]
    }

    /// Returns the index of a whole card; slices answer NOT_SUPPORTED to what is the card's.
    fn whole(&self) -> Result<usize, u32> {
        match self.handle {
            Handle::Card(card) => Ok(card),
            Handle::Slice(..) => Err(NOT_SUPPORTED),
        }
    }

    fn held(&self) -> Vec<Held> {
        let mut held = self.folder.held();
        held.retain(|held| match self.handle {
            Handle::Card(card) => held.card == card,
            Handle::Slice(card, slice) => held.card == card && held.slice == Some(slice),
        });
        held
    }

    /// Returns all memory, what is taken and what the driver keeps, in bytes.
    fn memory(&self) -> (u64, u64, u64) {
        let held = self.held().into_iter().filter(|held| held.is_alive || self.card().releases_late);
        let held: u64 = held.map(|held| held.mib).sum();
        match self.handle {
            Handle::Card(_) => {
                let card = self.card();
                (card.mib * MIB, (held + card.nobodys_mib + card.desktop_mib) * MIB, card.reserved_mib * MIB)
            }
            Handle::Slice(_, slice) => (self.card().slices[slice].mib * MIB, held * MIB, 0),
        }
    }
}

/// Writes an answer to where the caller wants it.
///
/// # Safety
/// `to` is null or may be written.
unsafe fn give<T>(to: *mut T, value: T) -> Answer {
    if to.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: not null, and the caller's promise.
    unsafe { to.write(value) };
    Ok(())
}

/// Writes a text with its end.
///
/// # Safety
/// `to` is null or has room for `size` characters.
unsafe fn give_text(to: *mut c_char, size: c_uint, text: &str) -> Answer {
    if to.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    if text.len() >= size as usize {
        return Err(INSUFFICIENT_SIZE);
    }
    // SAFETY: `to` has room for `size` characters, more than the text has, so its end fits too.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast(), to, text.len());
        to.add(text.len()).write(0);
    }
    Ok(())
}

/// Writes a set of numbers as bits.
///
/// # Safety
/// `to` is null or has room for `size` words.
unsafe fn give_set(to: *mut c_ulong, size: c_uint, members: &[u32]) -> Answer {
    if to.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: not null, and the caller's promise.
    let words = unsafe { std::slice::from_raw_parts_mut(to, size as usize) };
    words.fill(0);
    for member in members {
        let word = words.get_mut((member / c_ulong::BITS) as usize).ok_or(INSUFFICIENT_SIZE)?;
        *word |= 1 << (member % c_ulong::BITS);
    }
    Ok(())
}

/// Writes PCI information of a card.
///
/// # Safety
/// `to` is null or may be written.
unsafe fn give_pci(to: *mut nvml::nvmlPciInfo_t, bus: &str) -> Answer {
    let mut parts = bus.split([':', '.']).map(|part| c_uint::from_str_radix(part, 16).unwrap_or(0));
    let mut part = || parts.next().unwrap_or(0);
    // SAFETY: a struct of numbers, for which zeroes are valid.
    let mut info: nvml::nvmlPciInfo_t = unsafe { std::mem::zeroed() };
    (info.domain, info.bus, info.device) = (part(), part(), part());
    // SAFETY: the arrays are as long as said.
    unsafe {
        give_text(info.busId.as_mut_ptr(), info.busId.len() as c_uint, bus)?;
        give(to, info)
    }
}

/// Writes the list of processes as NVML does: the count first if there is no room.
///
/// # Safety
/// `count` is null or may be used; `to` has room for `*count` entries or is null.
unsafe fn give_processes(asked: &Asked, count: *mut c_uint, to: *mut nvml::nvmlProcessInfo_t) -> Answer {
    let server = Held { pid: 1, is_alive: true, card: asked.handle.card(), slice: None, mib: 30 };
    let held = if asked.card().through_mps { vec![server] } else { computing(asked) };
    // SAFETY: the caller's promise.
    unsafe { give_list(&held, count, to) }
}

fn computing(asked: &Asked) -> Vec<Held> {
    let mut held = if asked.card().hides_processes { Vec::new() } else { asked.held() };
    held.retain(|held| held.is_alive);
    held
}

/// Writes a list of processes.
///
/// # Safety
/// As for [`give_processes`].
unsafe fn give_list(held: &[Held], count: *mut c_uint, to: *mut nvml::nvmlProcessInfo_t) -> Answer {
    if count.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: not null, and the caller's promise.
    let room = unsafe { count.replace(held.len() as c_uint) };
    if held.len() > room as usize {
        return Err(INSUFFICIENT_SIZE);
    }
    for (at, held) in held.iter().enumerate() {
        let info = nvml::nvmlProcessInfo_t {
            pid: held.pid,
            usedGpuMemory: held.mib * MIB,
            gpuInstanceId: held.slice.map_or(u32::MAX, |slice| slice as u32),
            computeInstanceId: held.slice.map_or(u32::MAX, |_| 0),
        };
        // SAFETY: `at` is below the room that the caller gave.
        unsafe { give(to.add(at), info)? };
    }
    Ok(())
}

/// Exports functions of NVML that ask about one device.
macro_rules! device_calls {
    ($(fn $name:ident($asked:ident $(, $arg:ident: $type:ty)*) $body:block)*) => {$(
        /// As NVML documents it.
        ///
        /// # Safety
        /// Pointers are null or point to what the function fills.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(device: nvml::nvmlDevice_t $(, $arg: $type)*) -> u32 {
            code(Asked::new(stringify!($name), device).and_then(|$asked| {
                // SAFETY: the caller of an exported function promises valid pointers.
                unsafe { $body }
            }))
        }
    )*};
}

/// As NVML documents it.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> u32 {
    let Some(machine) = Folder::from_env().and_then(|folder| folder.machine().ok()) else { return DRIVER_NOT_LOADED };
    if machine.init == 0 {
        USERS.fetch_add(1, Ordering::SeqCst);
    }
    machine.init
}

/// As NVML documents it.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> u32 {
    USERS.fetch_sub(1, Ordering::SeqCst);
    0
}

/// As NVML documents it.
///
/// # Safety
/// `version` has room for `size` characters.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(version: *mut c_char, size: c_uint) -> u32 {
    // SAFETY: the caller's promise.
    code(world().and_then(|(_, machine)| unsafe { give_text(version, size, &machine.driver) }))
}

/// As NVML documents it.
///
/// # Safety
/// `version` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) -> u32 {
    // SAFETY: the caller's promise.
    code(world().and_then(|_| unsafe { give(version, 13_000) }))
}

/// As NVML documents it.
///
/// # Safety
/// `count` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> u32 {
    // SAFETY: the caller's promise.
    code(world().and_then(|(_, machine)| unsafe { give(count, machine.cards.len() as c_uint) }))
}

/// As NVML documents it. A card whose functions all fail has no handle either.
///
/// # Safety
/// `device` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: *mut nvml::nvmlDevice_t) -> u32 {
    let handle = Handle::Card(index as usize).to_raw();
    let asked = Asked::new("nvmlDeviceGetHandleByIndex_v2", handle);
    // SAFETY: the caller's promise.
    code(asked.and_then(|_| unsafe { give(device, handle) }))
}

/// As NVML documents it.
///
/// # Safety
/// `uuid` is a text with its end; `device` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, device: *mut nvml::nvmlDevice_t) -> u32 {
    code(world().and_then(|(_, machine)| {
        // SAFETY: the caller's promise.
        let uuid = unsafe { CStr::from_ptr(uuid) }.to_string_lossy();
        let handle = machine.cards.iter().enumerate().find_map(|(index, card)| {
            let slice = card.slices.iter().position(|slice| slice.uuid == uuid);
            let slice = slice.map(|slice| Handle::Slice(index, slice));
            if card.uuid == uuid { Some(Handle::Card(index)) } else { slice }
        });
        let handle = handle.ok_or(NOT_FOUND)?.to_raw();
        Asked::new("nvmlDeviceGetHandleByUUID", handle)?;
        // SAFETY: the caller's promise.
        unsafe { give(device, handle) }
    }))
}

/// As NVML documents it.
///
/// # Safety
/// `set` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetCreate(set: *mut nvml::nvmlEventSet_t) -> u32 {
    // SAFETY: the caller's promise.
    code(world().and_then(|_| unsafe { give(set, events::create()) }))
}

/// As NVML documents it.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlEventSetFree(set: nvml::nvmlEventSet_t) -> u32 {
    events::free(set);
    0
}

/// As NVML documents it.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceRegisterEvents(
    device: nvml::nvmlDevice_t,
    _types: c_ulonglong,
    set: nvml::nvmlEventSet_t,
) -> u32 {
    code(Asked::new("nvmlDeviceRegisterEvents", device).and_then(|asked| {
        events::register(set, asked.whole()?, asked.card().xids.len());
        Ok(())
    }))
}

/// As NVML documents it, but it never waits.
///
/// # Safety
/// `data` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetWait_v2(
    set: nvml::nvmlEventSet_t,
    data: *mut nvml::nvmlEventData_t,
    _timeout_ms: c_uint,
) -> u32 {
    code(world().and_then(|(_, machine)| {
        let xids = |card: usize| machine.cards.get(card).map_or(&[][..], |card| &card.xids);
        let (card, xid) = events::next(set, xids).ok_or(TIMEOUT)?;
        // SAFETY: a struct of numbers and a handle, for which zeroes are valid.
        let mut event: nvml::nvmlEventData_t = unsafe { std::mem::zeroed() };
        (event.device, event.eventType, event.eventData) = (Handle::Card(card).to_raw(), events::XID, xid);
        // SAFETY: the caller's promise.
        unsafe { give(data, event) }
    }))
}

device_calls! {
    fn nvmlDeviceGetUUID(asked, uuid: *mut c_char, size: c_uint) {
        match asked.handle {
            Handle::Card(_) => give_text(uuid, size, &asked.card().uuid),
            Handle::Slice(_, slice) => give_text(uuid, size, &asked.card().slices[slice].uuid),
        }
    }

    fn nvmlDeviceGetName(asked, name: *mut c_char, size: c_uint) {
        match asked.handle {
            Handle::Card(_) => give_text(name, size, &asked.card().name),
            Handle::Slice(_, slice) => give_text(name, size, &asked.card().slices[slice].name),
        }
    }

    fn nvmlDeviceGetPciInfo_v3(asked, info: *mut nvml::nvmlPciInfo_t) {
        give_pci(info, &asked.card().bus)
    }

    fn nvmlDeviceGetMemoryInfo(asked, info: *mut nvml::nvmlMemory_t) {
        let (total, used, reserved) = asked.memory();
        give(info, nvml::nvmlMemory_t { total, free: total.saturating_sub(used + reserved), used: used + reserved })
    }

    fn nvmlDeviceGetMemoryInfo_v2(asked, info: *mut nvml::nvmlMemory_v2_t) {
        let wanted = size_of::<nvml::nvmlMemory_v2_t>() as u32 | 2 << 24;
        if info.is_null() || (*info).version != wanted {
            return Err(VERSION_MISMATCH);
        }
        let (total, used, reserved) = asked.memory();
        give(info, nvml::nvmlMemory_v2_t { version: wanted, total, reserved, free: total.saturating_sub(used + reserved), used })
    }

    fn nvmlDeviceGetUtilizationRates(asked, rates: *mut nvml::nvmlUtilization_t) {
        asked.whole()?;
        give(rates, nvml::nvmlUtilization_t { gpu: asked.card().utilisation, memory: 0 })
    }

    fn nvmlDeviceGetTemperature(asked, _sensor: c_uint, degrees: *mut c_uint) {
        give(degrees, asked.card().temperature)
    }

    fn nvmlDeviceGetPowerUsage(asked, milliwatts: *mut c_uint) {
        asked.whole()?;
        give(milliwatts, asked.card().power)
    }

    fn nvmlDeviceGetEnforcedPowerLimit(asked, milliwatts: *mut c_uint) {
        asked.whole()?;
        give(milliwatts, asked.card().power_limit)
    }

    fn nvmlDeviceGetCudaComputeCapability(asked, major: *mut c_int, minor: *mut c_int) {
        give(major, asked.card().capability.0)?;
        give(minor, asked.card().capability.1)
    }

    fn nvmlDeviceGetMemoryAffinity(asked, size: c_uint, nodes: *mut c_ulong, _scope: c_uint) {
        give_set(nodes, size, &[asked.card().numa])
    }

    fn nvmlDeviceGetCpuAffinity(asked, size: c_uint, cpus: *mut c_ulong) {
        if asked.card().cpus.is_empty() {
            return Err(NOT_SUPPORTED);
        }
        give_set(cpus, size, &asked.card().cpus)
    }

    fn nvmlDeviceGetTopologyCommonAncestor(asked, other: nvml::nvmlDevice_t, level: *mut c_uint) {
        const SINGLE_SWITCH: c_uint = 10;
        const NODE: c_uint = 40;
        const SYSTEM: c_uint = 50;
        let other = Handle::from_raw(other).ok_or(INVALID_ARGUMENT)?.card();
        let (one, other) = (asked.card(), asked.machine.cards.get(other).ok_or(INVALID_ARGUMENT)?);
        let behind_one_switch = one.switch.is_some() && one.switch == other.switch;
        give(level, if behind_one_switch { SINGLE_SWITCH } else if one.numa == other.numa { NODE } else { SYSTEM })
    }

    fn nvmlDeviceGetMigMode(asked, current: *mut c_uint, pending: *mut c_uint) {
        let mode = c_uint::from(asked.card().is_sliced || !asked.card().slices.is_empty());
        give(current, mode)?;
        give(pending, mode)
    }

    fn nvmlDeviceGetMaxMigDeviceCount(asked, count: *mut c_uint) {
        asked.whole()?;
        give(count, 7)
    }

    fn nvmlDeviceGetMigDeviceHandleByIndex(asked, index: c_uint, slice: *mut nvml::nvmlDevice_t) {
        let (card, index) = (asked.whole()?, index as usize);
        if index >= asked.card().slices.len() {
            return Err(NOT_FOUND);
        }
        give(slice, Handle::Slice(card, index).to_raw())
    }

    fn nvmlDeviceGetAttributes_v2(asked, attributes: *mut nvml::nvmlDeviceAttributes_t) {
        let Handle::Slice(_, slice) = asked.handle else { return Err(NOT_SUPPORTED) };
        let slice = &asked.card().slices[slice];
        let mut answer: nvml::nvmlDeviceAttributes_t = std::mem::zeroed();
        answer.computeInstanceSliceCount = slice.compute_slices;
        answer.gpuInstanceSliceCount = slice.compute_slices;
        answer.memorySizeMB = slice.mib;
        give(attributes, answer)
    }

    fn nvmlDeviceGetP2PStatus(asked, other: nvml::nvmlDevice_t, _what: c_uint, status: *mut c_uint) {
        const NOT_SUPPORTED_BY_TOPOLOGY: u32 = 6;
        let other = Handle::from_raw(other).ok_or(INVALID_ARGUMENT)?.card();
        asked.whole()?;
        give(status, if asked.card().nvlink.contains(&other) { 0 } else { NOT_SUPPORTED_BY_TOPOLOGY })
    }

    fn nvmlDeviceGetNvLinkState(asked, link: c_uint, active: *mut c_uint) {
        asked.whole()?;
        give(active, c_uint::from((link as usize) < asked.card().nvlink.len()))
    }

    fn nvmlDeviceGetNvLinkRemotePciInfo_v2(asked, link: c_uint, info: *mut nvml::nvmlPciInfo_t) {
        let other = *asked.card().nvlink.get(link as usize).ok_or(NOT_SUPPORTED)?;
        give_pci(info, &asked.machine.cards[other].bus)
    }

    fn nvmlDeviceGetClockInfo(asked, domain: c_uint, mhz: *mut c_uint) {
        const MEMORY: c_uint = 2;
        asked.whole()?;
        give(mhz, if domain == MEMORY { 3_201 } else { 1_980 })
    }

    fn nvmlDeviceGetCurrentClocksThrottleReasons(asked, reasons: *mut c_ulonglong) {
        give(reasons, asked.card().slowed)
    }

    fn nvmlDeviceGetRemappedRows(
        asked, corrected: *mut c_uint, uncorrected: *mut c_uint, pending: *mut c_uint, failed: *mut c_uint
    ) {
        give(corrected, 0)?;
        give(uncorrected, asked.card().remapped)?;
        give(pending, c_uint::from(asked.card().remapped > 0))?;
        give(failed, 0)
    }

    fn nvmlDeviceGetEccMode(asked, current: *mut c_uint, pending: *mut c_uint) {
        let mode = c_uint::from(asked.card().ecc.ok_or(NOT_SUPPORTED)?);
        give(current, mode)?;
        give(pending, mode)
    }

    fn nvmlDeviceGetTotalEccErrors(asked, kind: c_uint, _since: c_uint, errors: *mut c_ulonglong) {
        const UNCORRECTED: c_uint = 1;
        if asked.card().ecc != Some(true) {
            return Err(NOT_SUPPORTED);
        }
        give(errors, if kind == UNCORRECTED { asked.card().uncorrected } else { 0 })
    }

    fn nvmlDeviceGetComputeMode(asked, mode: *mut c_uint) {
        give(mode, asked.card().compute_mode.ok_or(NOT_SUPPORTED)?)
    }

    fn nvmlDeviceGetPersistenceMode(asked, mode: *mut c_uint) {
        asked.whole()?;
        give(mode, 1)
    }

    fn nvmlDeviceGetCurrPcieLinkGeneration(asked, generation: *mut c_uint) {
        asked.whole()?;
        give(generation, 5)
    }

    fn nvmlDeviceGetCurrPcieLinkWidth(asked, lanes: *mut c_uint) {
        asked.whole()?;
        give(lanes, 16)
    }

    fn nvmlDeviceGetSupportedEventTypes(asked, types: *mut c_ulonglong) {
        asked.whole()?;
        give(types, events::TYPES)
    }

    fn nvmlDeviceGetComputeRunningProcesses_v3(asked, count: *mut c_uint, to: *mut nvml::nvmlProcessInfo_t) {
        give_processes(&asked, count, to)
    }

    fn nvmlDeviceGetMPSComputeRunningProcesses_v3(asked, count: *mut c_uint, to: *mut nvml::nvmlProcessInfo_t) {
        let held = if asked.card().through_mps { computing(&asked) } else { Vec::new() };
        give_list(&held, count, to)
    }

    fn nvmlDeviceGetGraphicsRunningProcesses_v3(asked, count: *mut c_uint, to: *mut nvml::nvmlProcessInfo_t) {
        let desktop = if asked.card().hides_processes { 0 } else { asked.card().desktop_mib };
        let drawing = Held { pid: 1, is_alive: true, card: asked.handle.card(), slice: None, mib: desktop };
        give_list(&Vec::from_iter((desktop > 0).then_some(drawing)), count, to)
    }

    fn nvmlDeviceGetComputeRunningProcesses_v2(asked, count: *mut c_uint, to: *mut nvml::nvmlProcessInfo_t) {
        give_processes(&asked, count, to)
    }
}
