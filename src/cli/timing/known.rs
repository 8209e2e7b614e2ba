//! What was measured about this machine, remembered in the user's cache folder.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tracing::debug;

use crate::cuda::About;
use crate::probe::Host;
use crate::timing::choice::{CpuCost, DeviceCost};
use crate::units::Bytes;

/// Constants hold for the program that measured them: its kernels may change.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What was measured about this machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Known {
    version: String,
    pub(super) cpu: CpuCost,
    /// All that were ever measured here: not every process may see the same ones.
    devices: Vec<KnownDevice>,
}

/// A device, and what it needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KnownDevice {
    name: String,
    uuid: String,
    driver: u32,
    /// A slice of a card has the card's UUID, and less of everything.
    multiprocessors: u32,
    memory: Bytes,
    pub(super) cost: DeviceCost,
}

impl KnownDevice {
    pub(super) fn new(about: &About, cost: DeviceCost) -> Self {
        let About { name, uuid, driver, multiprocessors, memory, .. } = about.clone();
        Self { name, uuid, driver, multiprocessors, memory, cost }
    }

    /// Whether it was this device, under whatever driver.
    fn is_of(&self, other: &Self) -> bool {
        let key = |known: &Self| (known.uuid.clone(), known.multiprocessors, known.memory);
        key(self) == key(other)
    }

    /// Whether it was this device, under this driver.
    pub(super) fn is(&self, about: &About) -> bool {
        let own = (&self.uuid, self.driver, self.multiprocessors, self.memory);
        own == (&about.uuid, about.driver, about.multiprocessors, about.memory)
    }
}

impl Known {
    pub(super) fn new(cpu: CpuCost) -> Self {
        Self { version: VERSION.to_owned(), cpu, devices: Vec::new() }
    }

    /// Adds a device, in the place of what was known of it.
    pub(super) fn add(&mut self, device: KnownDevice) {
        self.devices.retain(|known| !known.is_of(&device));
        self.devices.push(device);
    }

    /// Returns what is known of this device.
    pub(super) fn of(&self, about: &About) -> Option<&KnownDevice> {
        self.devices.iter().find(|known| known.is(about))
    }

    /// Yields what each device needs.
    pub(super) fn costs(&self) -> impl Iterator<Item = DeviceCost> {
        self.devices.iter().map(|known| known.cost)
    }

    /// Returns `timing-HOST.json` in the user's cache folder: a home may be shared by machines.
    fn path() -> Option<PathBuf> {
        let named = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let cache = named("XDG_CACHE_HOME").or_else(|| Some(named("HOME")?.join(".cache")))?;
        let host = Host::read(std::path::Path::new("/")).name;
        Some(cache.join("trainyard").join(format!("timing-{host}.json")))
    }

    /// What cannot be read was never measured.
    pub(super) fn read() -> Option<Self> {
        let text = std::fs::read(Self::path()?).ok()?;
        serde_json::from_slice::<Self>(&text).ok().filter(|known| known.version == VERSION)
    }

    /// Writes it down; where that fails it is measured again next time.
    pub(super) fn remember(&self) {
        let Some(path) = Self::path() else { return };
        let write = || -> std::io::Result<()> {
            let folder = path.parent().ok_or(std::io::ErrorKind::NotFound)?;
            std::fs::create_dir_all(folder)?;
            let draft = path.with_extension(format!("{}.draft", std::process::id()));
            std::fs::write(&draft, serde_json::to_vec_pretty(self)?)?;
            std::fs::rename(draft, &path)
        };
        if let Err(error) = write() {
            debug!("{}: {error}", path.display());
        }
    }
}
