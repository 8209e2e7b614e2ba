//! The emulated machine: what `machine.json` says it has, and what the files in `held` say is taken.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Deserialize, Serialize};

/// Names the folder that holds the machine.
pub(crate) const VARIABLE: &str = "MOCK_NVML_STATE";

/// A machine with NVIDIA cards.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    /// What `nvmlInit_v2` answers; 0 is success.
    pub init: u32,
    /// The driver's version.
    pub driver: String,
    /// In the order of NVML's indices.
    pub cards: Vec<Card>,
}

/// One card.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Card {
    /// `NVIDIA H200`.
    pub name: String,
    /// `GPU-…`.
    pub uuid: String,
    /// `00000000:10:00.0`.
    pub bus: String,
    /// All of its memory, in MiB.
    pub mib: u64,
    /// What the driver keeps for itself, in MiB.
    pub reserved_mib: u64,
    /// What is taken in no process's name, in MiB.
    pub nobodys_mib: u64,
    /// Percent.
    pub utilisation: u32,
    /// Degrees Celsius.
    pub temperature: u32,
    /// Milliwatts.
    pub power: u32,
    /// Milliwatts.
    pub power_limit: u32,
    /// Compute capability.
    pub capability: (i32, i32),
    /// NUMA node.
    pub numa: u32,
    /// Its nearest CPUs; a driver that does not say without any.
    pub cpus: Vec<u32>,
    /// The PCIe switch that it sits behind.
    pub switch: Option<u32>,
    /// Cards that NVLink joins it to, by index.
    pub nvlink: Vec<usize>,
    /// What a desktop holds of its memory, in MiB: a process that draws and does not compute.
    pub desktop_mib: u64,
    /// Whether processes compute through an MPS server: they are in a list of their own, and it in that of all others.
    pub through_mps: bool,
    /// Whether the driver hides processes, as it does in some containers.
    pub hides_processes: bool,
    /// Whether what ended processes held stays taken, in nobody's name: drivers give it back seconds late.
    pub releases_late: bool,
    /// Its slices; with at least one the card is in MIG mode.
    pub slices: Vec<Slice>,
    /// Whether it is in MIG mode without any.
    pub is_sliced: bool,
    /// Why it is slowed down: bits as `nvml.h` numbers them.
    pub slowed: u64,
    /// Memory rows that were remapped, and wait for a reset.
    pub remapped: u32,
    /// Whether memory errors are corrected; a card without that says nothing of it.
    pub ecc: Option<bool>,
    /// Memory errors that could not be corrected.
    pub uncorrected: u64,
    /// Who may use it, as `nvml.h` numbers it; a driver that does not say without.
    pub compute_mode: Option<u32>,
    /// Errors that the driver has reported so far; whoever listens hears of those that are added.
    pub xids: Vec<u64>,
    /// Whether its driver is stuck: every call about it waits until that is over.
    pub stuck: bool,
    /// Error codes by function name, `*` for every function of this card.
    pub fails: BTreeMap<String, u32>,
    /// The same for the first call in each process.
    pub fails_once: BTreeMap<String, u32>,
}

/// A MIG slice of a card.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Slice {
    /// `NVIDIA A100-SXM4-80GB MIG 3g.40gb`.
    pub name: String,
    /// `MIG-…`.
    pub uuid: String,
    /// All of its memory, in MiB.
    pub mib: u64,
    /// Compute slices.
    pub compute_slices: u32,
}

impl Default for Card {
    fn default() -> Self {
        Self {
            name: "NVIDIA H200".to_owned(),
            uuid: String::new(),
            bus: String::new(),
            mib: 81_920,
            reserved_mib: 0,
            nobodys_mib: 0,
            utilisation: 0,
            temperature: 35,
            power: 75_000,
            power_limit: 700_000,
            capability: (9, 0),
            numa: 0,
            cpus: Vec::new(),
            switch: None,
            nvlink: Vec::new(),
            desktop_mib: 0,
            through_mps: false,
            hides_processes: false,
            releases_late: false,
            slices: Vec::new(),
            is_sliced: false,
            slowed: 0,
            remapped: 0,
            ecc: None,
            uncorrected: 0,
            compute_mode: None,
            xids: Vec::new(),
            stuck: false,
            fails: BTreeMap::new(),
            fails_once: BTreeMap::new(),
        }
    }
}

/// Memory that a process holds, or held to its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) pid: u32,
    pub(crate) is_alive: bool,
    pub(crate) card: usize,
    pub(crate) slice: Option<usize>,
    pub(crate) mib: u64,
}

/// The folder.
#[derive(Clone, Debug)]
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn from_env() -> Option<Self> {
        std::env::var_os(VARIABLE).map(|path| Self(path.into()))
    }

    /// Returns the file that says that a call waits for a driver that is stuck.
    pub(crate) fn waits(&self) -> PathBuf {
        self.0.join("waits")
    }

    pub(crate) fn note_that_one_waits(&self) -> io::Result<()> {
        fs::write(self.waits(), "")
    }

    pub(crate) fn machine(&self) -> io::Result<Machine> {
        Ok(serde_json::from_slice(&fs::read(self.0.join("machine.json"))?)?)
    }

    /// Writes the machine so that a reader sees the old or the new one, never a half.
    pub(crate) fn write(&self, machine: &Machine) -> io::Result<()> {
        replace(&self.0.join("machine.json"), &serde_json::to_vec_pretty(machine)?)
    }

    /// Returns what processes hold: each file `PID-CARD` or `PID-CARD.SLICE` holds a number of MiB.
    pub(crate) fn held(&self) -> Vec<Held> {
        let Ok(files) = fs::read_dir(self.0.join("held")) else { return Vec::new() };
        let mut held: Vec<_> = files.flatten().filter_map(|file| held(&file.path())).collect();
        held.sort_by_key(|held| (held.card, held.pid));
        held
    }
}

/// Replaces a file as a whole.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // The name does not end in a number: nobody takes it for a holding.
    let draft = path.with_extension(format!("{}-draft", std::process::id()));
    fs::write(&draft, bytes)?;
    fs::rename(draft, path)
}

fn held(path: &Path) -> Option<Held> {
    let (pid, place) = path.file_name()?.to_str()?.split_once('-')?;
    let (card, slice) = match place.split_once('.') {
        Some((card, slice)) => (card, Some(slice.parse().ok()?)),
        None => (place, None),
    };
    let mib = fs::read_to_string(path).ok()?.trim().parse().ok()?;
    let pid = pid.parse().ok()?;
    Some(Held { pid, is_alive: is_alive(pid), card: card.parse().ok()?, slice, mib })
}

/// Whether a process runs; one that has ended and was not waited for holds no memory.
fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}
