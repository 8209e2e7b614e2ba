//! What this machine has, for people and as JSON: the host, its GPUs, and who is on them.
//!
//! A pure view of what the probe found. What is unknown is `-` in the table and `null` in JSON, whose keys are stable.

use std::collections::BTreeMap;

use serde::Serialize;

use super::paint::{Colour, Tone};
use super::table::{Cell, Column, Table};
use crate::probe::aside::Why;
use crate::probe::gpu::{Gpu, Gpus, Link, Lost, Memory, MemoryCall, Path, Remapped};
use crate::probe::process::Identity;
use crate::probe::{Host, Machine};
use crate::units::{Bytes, Cpus, Speed};

/// Who the processes are, by pid; those that are gone or hidden are missing.
pub type Identities = BTreeMap<u32, Identity>;

/// Cells of a memory bar.
const BAR: u64 = 10;

/// Returns the machine as lines for a terminal.
#[must_use]
pub fn table(machine: &Machine, who: &Identities, colour: Colour, columns: Option<usize>) -> String {
    let mut text = host_line(&machine.host);
    match &machine.gpus {
        Gpus::None { reason } => {
            text.push_str(&format!("no GPU: {reason}\n"));
            let lost = all(machine);
            if !lost.is_empty() {
                text.push('\n');
                text.push_str(&gpus(&lost, colour, columns));
            }
        }
        Gpus::Found(inventory) => {
            let driver = inventory.driver.as_deref().unwrap_or("of unknown version");
            let cuda = inventory.cuda.map_or(String::new(), |(major, minor)| format!(", CUDA {major}.{minor}"));
            text.push_str(&format!("NVIDIA driver {driver}{cuda}\n\n"));
            text.push_str(&gpus(&all(machine), colour, columns));
            let processes = processes(&inventory.devices, who);
            if !processes.is_empty() {
                text.push('\n');
                text.push_str(&processes.render(colour, columns));
            }
        }
    }
    for warning in &machine.warnings {
        text.push_str(&format!("{} {warning}\n", colour.paint(Tone::Uneasy, "warning:")));
    }
    text
}

fn host_line(host: &Host) -> String {
    let online = host.cpus_online.filter(|online| Cpus(u64::from(*online) * Cpus::ONE.0) != host.cpus);
    let cpus = online.map_or(String::new(), |online| format!(" of {online}"));
    let available = host.memory_available.map_or(String::new(), |free| format!(", {free} available"));
    let unit = if cpus.is_empty() && host.cpus == Cpus::ONE { "CPU" } else { "CPUs" };
    format!("{}: {}{cpus} {unit}, {} memory{available}\n", host.name, host.cpus, host.memory)
}

/// A card or slice that may be used, or a card that is no device.
enum Shown<'a> {
    Gpu(&'a Gpu),
    Lost(&'a Lost),
}

impl Shown<'_> {
    fn name(&self) -> String {
        match self {
            Self::Gpu(gpu) => gpu.name(),
            Self::Lost(lost) => lost.name(),
        }
    }
}

/// Returns all of them in PCI order.
fn all(machine: &Machine) -> Vec<Shown<'_>> {
    let mut all: Vec<_> = machine.gpus.devices().iter().map(Shown::Gpu).collect();
    all.extend(machine.lost().map(Shown::Lost));
    // Slices of a card stay in their order.
    all.sort_by_key(|shown| match shown {
        Shown::Gpu(gpu) => gpu.pci_index,
        Shown::Lost(lost) => lost.pci_index,
    });
    all
}

/// Shows devices, with what is wrong with them beside them, or below where there is no room for that.
fn gpus(devices: &[Shown<'_>], colour: Colour, columns: Option<usize>) -> String {
    let beside = rows(devices, |shown| {
        let (tone, notes) = notes(shown);
        Cell::new(notes.join(", "), tone)
    });
    let Some(columns) = columns.filter(|columns| !beside.fits(*columns)) else { return beside.render(colour, columns) };
    let mut text = rows(devices, |_| Cell::default()).render(colour, Some(columns));
    for shown in devices {
        // How GPUs are joined is told in a wider window.
        let (tone, notes) = notes(shown);
        for note in notes.iter().filter(|_| tone != Tone::Plain) {
            text.push_str(&format!("{}: {}\n", shown.name(), colour.paint(tone, note)));
        }
    }
    text
}

fn rows(devices: &[Shown<'_>], note: impl Fn(&Shown<'_>) -> Cell) -> Table {
    let mut table = Table::new([
        Column::left("GPU"),
        Column::left("MODEL").that_goes(3),
        Column::left("UUID").that_goes(0),
        Column::left("MEMORY").that_goes(2),
        Column::right("USED"),
        Column::right("TOTAL"),
        Column::right("USE").that_goes(5),
        Column::right("TEMP").that_goes(4),
        Column::right("POWER").that_goes(1),
        Column::left("NOTE"),
    ]);
    for shown in devices {
        let gpu = match shown {
            Shown::Gpu(gpu) => gpu,
            Shown::Lost(lost) => {
                let name = Cell::new(lost.name(), Tone::Strong);
                let uuid: String = lost.uuid.as_deref().unwrap_or("-").chars().take(12).collect();
                let [a, b, c, d, e, f, g] = [const { "-" }; 7].map(Cell::from);
                table.row([name, a, Cell::from(uuid), b, c, d, e, f, g, note(shown)]);
                continue;
            }
        };
        let reading = &gpu.reading;
        let name = Cell::new(gpu.name(), Tone::Strong);
        // Twelve characters tell the cards of one machine apart, slices after `MIG-` too.
        let uuid: String = gpu.uuid.chars().take(12).collect();
        let watts = |milliwatts: u32| milliwatts / 1000;
        let power = match (reading.power, reading.power_limit) {
            (Some(power), Some(limit)) => format!("{}/{} W", watts(power), watts(limit)),
            (Some(power), None) => format!("{} W", watts(power)),
            (None, _) => "-".to_owned(),
        };
        table.row([
            name,
            Cell::from(&gpu.model),
            Cell::from(uuid),
            reading.memory.as_ref().map_or(Cell::from("-"), bar),
            or_dash(reading.memory.map(|memory| memory.total - memory.free)),
            or_dash(reading.memory.map(|memory| memory.total)),
            or_dash(reading.utilisation.map(|percent| format!("{percent}%"))),
            or_dash(reading.temperature.map(|degrees| format!("{degrees}°C"))),
            Cell::from(power),
            note(shown),
        ]);
    }
    table
}

/// Says what is wrong with a device, or which others it is joined to: that is plain.
fn notes(shown: &Shown<'_>) -> (Tone, Vec<String>) {
    let gpu = match shown {
        Shown::Gpu(gpu) => gpu,
        Shown::Lost(lost) => return (Tone::Bad, vec![fault_of(lost)]),
    };
    if let Some(fault) = &gpu.reading.fault {
        return (Tone::Bad, vec![fault.to_string()]);
    }
    let details = &gpu.details;
    let mut ails: Vec<String> = Vec::new();
    if gpu.reading.memory.is_none() {
        ails.push("its memory is not told: only for stages that name none".into());
    }
    let slowed = gpu.reading.slowed.iter().flatten();
    ails.extend(slowed.map(|reason| format!("slowed: {reason}")));
    ails.extend(details.uncorrected_errors.filter(|n| *n > 0).map(|n| format!("{n} uncorrected memory errors")));
    if let Some(remapped) = details.remapped {
        ails.extend(remapped.failed.then(|| "a memory row could not be replaced".to_owned()));
        ails.extend(remapped.pending.then(|| "memory rows wait for a reset".to_owned()));
    }
    match gpu.nvlink_group {
        _ if !ails.is_empty() => (Tone::Uneasy, ails),
        Some(group) => (Tone::Plain, vec![format!("NVLink group {group}")]),
        None => (Tone::Plain, Vec::new()),
    }
}

fn or_dash(value: Option<impl std::fmt::Display>) -> Cell {
    value.map_or_else(|| Cell::from("-"), Cell::from)
}

/// Draws how much of a device's memory is taken.
fn bar(memory: &Memory) -> Cell {
    let taken = memory.total - memory.free;
    // Rounded up: a device that is used at all does not look empty.
    let full = (u128::from(taken.0) * u128::from(BAR)).div_ceil(u128::from(memory.total.0.max(1)));
    let full = usize::try_from(full).unwrap_or(0).min(BAR as usize);
    let tone = if full * 10 >= BAR as usize * 9 { Tone::Uneasy } else { Tone::Active };
    Cell::new("█".repeat(full) + &"░".repeat(BAR as usize - full), tone)
}

fn processes(devices: &[Gpu], who: &Identities) -> Table {
    let columns = [
        Column::left("GPU"),
        Column::right("PID"),
        Column::left("USER"),
        Column::right("MEMORY"),
        Column::left("COMMAND").that_gives_way(),
    ];
    let mut table = Table::new(columns);
    for gpu in devices {
        for process in gpu.reading.processes.iter().flatten() {
            let identity = who.get(&process.pid);
            table.row([
                Cell::from(gpu.name()),
                Cell::from(process.pid),
                or_dash(identity.map(|identity| &identity.user)),
                or_dash(process.memory),
                or_dash(identity.map(|identity| &identity.command)),
            ]);
        }
        let nobodys = gpu.reading.unattributed().filter(|bytes| *bytes > Bytes::ZERO);
        if let Some(bytes) = nobodys {
            let words = Cell::new("in no process's name", Tone::Faint);
            table.row([Cell::from(gpu.name()), Cell::from("-"), Cell::from("-"), Cell::from(bytes), words]);
        }
    }
    table
}

/// The machine as JSON.
#[derive(Debug, Serialize)]
pub struct Json<'a> {
    host: JsonHost<'a>,
    driver: Option<&'a str>,
    cuda: Option<String>,
    /// Why there is no GPU; `null` if there is one.
    no_gpu: Option<String>,
    warnings: Vec<String>,
    devices: Vec<JsonDevice<'a>>,
    links: Vec<JsonLink>,
}

/// What joins two cards.
#[derive(Debug, Serialize)]
struct JsonLink {
    /// Their names, as `card` of their devices has them; those that are hidden from us have one too.
    between: [String; 2],
    nvlink: bool,
    /// How far apart they are on PCIe.
    pcie: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct JsonHost<'a> {
    name: &'a str,
    cpus: f64,
    cpus_online: Option<u32>,
    memory_bytes: Bytes,
    memory_available_bytes: Option<Bytes>,
}

#[derive(Debug, Default, Serialize)]
struct JsonDevice<'a> {
    id: String,
    /// The name of the card that it is, or is a slice of.
    card: String,
    /// `null`, as everything else but `fault`, for a card that does not answer.
    uuid: Option<&'a str>,
    model: Option<&'a str>,
    name: Option<&'a str>,
    pci_index: u32,
    pci_bus_id: Option<&'a str>,
    compute_capability: Option<String>,
    speed: Option<f64>,
    /// Where that is from: `measured` here, or known of its `model`.
    speed_from: Option<&'static str>,
    numa_node: Option<u32>,
    /// CPUs of the host that it is nearest to.
    near_cpus: Option<&'a [u32]>,
    nvlink_group: Option<u32>,
    pcie_group: Option<u32>,
    mig_mode: Option<bool>,
    /// The card's UUID, for a slice of one.
    slice_of: Option<&'a str>,
    sm_clock_mhz: Option<u32>,
    memory_clock_mhz: Option<u32>,
    /// Why it runs slower than it could.
    slowed: Option<&'a [&'static str]>,
    ecc: Option<bool>,
    uncorrected_memory_errors: Option<u64>,
    remapped_rows: Option<Remapped>,
    persistence: Option<bool>,
    compute_mode: Option<&'static str>,
    pcie_generation: Option<u32>,
    pcie_width: Option<u32>,
    fault: Option<String>,
    memory_bytes: Option<Bytes>,
    memory_free_bytes: Option<Bytes>,
    memory_used_bytes: Option<Bytes>,
    memory_reserved_bytes: Option<Bytes>,
    memory_unattributed_bytes: Option<Bytes>,
    memory_call: Option<&'static str>,
    utilisation_percent: Option<u32>,
    temperature_celsius: Option<u32>,
    power_milliwatts: Option<u32>,
    power_limit_milliwatts: Option<u32>,
    processes: Option<Vec<JsonProcess<'a>>>,
}

#[derive(Debug, Serialize)]
struct JsonProcess<'a> {
    pid: u32,
    user: Option<&'a str>,
    command: Option<&'a str>,
    memory_bytes: Option<Bytes>,
}

/// Returns the machine as JSON.
#[must_use]
pub fn json<'a>(machine: &'a Machine, who: &'a Identities) -> Json<'a> {
    let host = &machine.host;
    let (inventory, no_gpu) = match &machine.gpus {
        Gpus::Found(inventory) => (Some(inventory), None),
        Gpus::None { reason } => (None, Some(reason.to_string())),
    };
    let version = |(major, minor)| format!("{major}.{minor}");
    Json {
        host: JsonHost {
            name: &host.name,
            cpus: decimal(host.cpus.0, Cpus::ONE.0),
            cpus_online: host.cpus_online,
            memory_bytes: host.memory,
            memory_available_bytes: host.memory_available,
        },
        driver: inventory.and_then(|inventory| inventory.driver.as_deref()),
        cuda: inventory.and_then(|inventory| inventory.cuda).map(version),
        no_gpu,
        warnings: machine.warnings.iter().map(ToString::to_string).collect(),
        devices: all(machine).iter().map(|shown| json_shown(&host.name, shown, who)).collect(),
        links: inventory.map(|inventory| json_links(&host.name, &inventory.links)).unwrap_or_default(),
    }
}

fn json_links(host: &str, links: &[Link]) -> Vec<JsonLink> {
    let name = |index: u32| format!("{host}/gpu{index}");
    let link = |link: &Link| JsonLink {
        between: [name(link.between.0), name(link.between.1)],
        nvlink: link.nvlink,
        pcie: link.pcie.map(Path::word),
    };
    links.iter().map(link).collect()
}

/// Says what is the matter with a card that is no device, and whether it is drained besides.
fn fault_of(lost: &Lost) -> String {
    if lost.drained { format!("{}; {}", lost.fault, Why::Drained) } else { lost.fault.to_string() }
}

fn json_shown<'a>(host: &str, shown: &Shown<'a>, who: &'a Identities) -> JsonDevice<'a> {
    match shown {
        Shown::Gpu(gpu) => json_device(host, gpu, who),
        Shown::Lost(lost) => JsonDevice {
            id: format!("{host}/{}", lost.name()),
            card: format!("{host}/{}", lost.name()),
            uuid: lost.uuid.as_deref(),
            pci_index: lost.pci_index,
            fault: Some(fault_of(lost)),
            ..JsonDevice::default()
        },
    }
}

fn json_device<'a>(host: &str, gpu: &'a Gpu, who: &'a Identities) -> JsonDevice<'a> {
    let (reading, details) = (&gpu.reading, &gpu.details);
    let memory = reading.memory;
    let process = |process: &crate::probe::gpu::Process| {
        let identity = who.get(&process.pid);
        JsonProcess {
            pid: process.pid,
            user: identity.map(|identity| identity.user.as_str()),
            command: identity.map(|identity| identity.command.as_str()),
            memory_bytes: process.memory,
        }
    };
    JsonDevice {
        id: format!("{host}/{}", gpu.name()),
        card: format!("{host}/gpu{}", gpu.pci_index),
        uuid: Some(&gpu.uuid),
        model: Some(&gpu.model),
        name: gpu.full_name.as_deref(),
        pci_index: gpu.pci_index,
        pci_bus_id: gpu.pci_bus_id.as_deref(),
        compute_capability: gpu.compute_capability.map(|(major, minor)| format!("{major}.{minor}")),
        speed: gpu.speed().map(|speed| decimal(speed.0, Speed::ONE.0)),
        speed_from: gpu.speed().map(|_| if gpu.measured.is_some() { "measured" } else { "model" }),
        numa_node: gpu.numa_node,
        near_cpus: Some(gpu.near_cpus.as_slice()).filter(|cpus| !cpus.is_empty()),
        nvlink_group: gpu.nvlink_group,
        pcie_group: gpu.pcie_group,
        mig_mode: gpu.mig_mode,
        slice_of: gpu.slice.as_ref().map(|slice| slice.card.as_str()),
        sm_clock_mhz: details.sm_clock,
        memory_clock_mhz: details.memory_clock,
        slowed: reading.slowed.as_deref(),
        ecc: details.ecc,
        uncorrected_memory_errors: details.uncorrected_errors,
        remapped_rows: details.remapped,
        persistence: details.persistence,
        compute_mode: details.compute_mode,
        pcie_generation: details.pcie_generation,
        pcie_width: details.pcie_width,
        fault: reading.fault.as_ref().map(ToString::to_string),
        memory_bytes: memory.map(|memory| memory.total),
        memory_free_bytes: memory.map(|memory| memory.free),
        memory_used_bytes: memory.map(|memory| memory.used),
        memory_reserved_bytes: memory.and_then(|memory| memory.reserved),
        memory_unattributed_bytes: reading.unattributed(),
        memory_call: memory.map(|memory| match memory.call {
            MemoryCall::V1 => "v1",
            MemoryCall::V2 => "v2",
        }),
        utilisation_percent: reading.utilisation,
        temperature_celsius: reading.temperature,
        power_milliwatts: reading.power,
        power_limit_milliwatts: reading.power_limit,
        processes: reading.processes.as_ref().map(|processes| processes.iter().map(process).collect()),
    }
}

/// Returns a fixed-point number for JSON.
fn decimal(value: u64, one: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "thousandths of CPUs and millionths of speed, far below 2^53")]
    let decimal = value as f64 / one as f64;
    decimal
}
