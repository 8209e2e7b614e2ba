//! What a test does: says what the card is and what goes wrong, and looks at what was called.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use serde::{Deserialize, Serialize};

/// Holds a [`Card`] as JSON.
pub(crate) const VARIABLE: &str = "EMULATED_CUDA";

/// Names the file that calls are appended to.
pub(crate) const LOG_VARIABLE: &str = "EMULATED_CUDA_LOG";

/// The emulated cards, all alike, and what goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Card {
    /// How many there are.
    pub count: i32,
    /// Whether the driver counts them against the order of their PCI addresses, as it does with the fastest one last.
    pub backwards: bool,
    /// Compute capability.
    pub capability: (i32, i32),
    /// The CUDA version of the driver.
    pub version: i32,
    /// Free memory, in bytes.
    pub memory: usize,
    /// Multiprocessors, of 1,024 threads each.
    pub multiprocessors: i32,
    /// Error codes by function name.
    pub fails: BTreeMap<String, u32>,
    /// The call, counted from zero, that fails, and with what.
    pub fails_at: Option<(u64, u32)>,
    /// The call, counted from zero, from which on every call fails: a card that fell off the bus.
    pub lost_at: Option<u64>,
}

impl Default for Card {
    fn default() -> Self {
        Self {
            count: 1,
            backwards: false,
            capability: (9, 0),
            version: 12_080,
            memory: 1 << 30,
            multiprocessors: 2,
            fails: BTreeMap::new(),
            fails_at: None,
            lost_at: None,
        }
    }
}

impl Card {
    pub(crate) fn from_env() -> Self {
        let text = env::var_os(VARIABLE);
        let Some(text) = text.and_then(|text| text.into_string().ok()) else { return Self::default() };
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{VARIABLE}: {error}"))
    }
}

/// Returns the UUID of the card with this number, as NVML would write it.
#[must_use]
pub fn uuid(number: u8) -> String {
    let byte = |n: usize| format!("{number:02x}").repeat(n);
    format!("GPU-{}-{}-{}-{}-{}", byte(4), byte(2), byte(2), byte(2), byte(6))
}

/// A machine with an emulated driver in a folder of its own, which goes when this is dropped.
#[derive(Debug)]
pub struct Scene {
    folder: tempfile::TempDir,
}

impl Scene {
    /// Installs the driver.
    pub fn new() -> io::Result<Self> {
        Self::without(&[])
    }

    /// Installs a driver that lacks these functions.
    pub fn without(functions: &[&str]) -> io::Result<Self> {
        let scene = Self { folder: tempfile::tempdir()? };
        let mut bytes = fs::read(library())?;
        for name in functions {
            rename(&mut bytes, name);
        }
        fs::write(scene.folder.path().join("libcuda.so.1"), bytes)?;
        Ok(scene)
    }

    /// Returns the variables under which a program finds this driver with such a card, and an empty log.
    pub fn environment(&self, card: &Card) -> io::Result<Vec<(&'static str, PathBuf)>> {
        let log = self.folder.path().join("calls");
        fs::write(&log, "")?;
        let card = serde_json::to_string(card)?;
        let path = self.folder.path().to_owned();
        Ok(vec![("LD_LIBRARY_PATH", path), (VARIABLE, card.into()), (LOG_VARIABLE, log)])
    }

    /// Returns what was called since the environment was made.
    pub fn log(&self) -> io::Result<Log> {
        let text = fs::read_to_string(self.folder.path().join("calls"))?;
        Ok(Log(text.lines().map(str::to_owned).collect()))
    }
}

/// Calls, one a line: the function's name, its answer, and for a launch what was launched.
#[derive(Clone, Debug)]
pub struct Log(pub Vec<String>);

impl Log {
    /// Returns how often a function succeeded.
    #[must_use]
    pub fn count(&self, function: &str) -> usize {
        let wanted = format!("{function} 0");
        self.0.iter().filter(|line| **line == wanted || line.starts_with(&format!("{wanted} "))).count()
    }

    /// Returns the names of the kernels that were launched, in order.
    #[must_use]
    pub fn kernels(&self) -> Vec<&str> {
        let launches = self.0.iter().filter_map(|line| {
            let line =
                line.strip_prefix("cuLaunchKernel 0 ").or_else(|| line.strip_prefix("cuLaunchCooperativeKernel 0 "))?;
            line.split(' ').next()
        });
        launches.collect()
    }
}

/// Returns the shared library: cargo puts it beside the test programs that depend on this crate.
fn library() -> PathBuf {
    let test = env::current_exe().expect("a test program has a path");
    test.with_file_name("libemulated_cuda.so")
}

/// Makes the emulated driver the driver of this process. Must come before the first look for one.
pub fn load() {
    let path = library();
    load_path(&path).unwrap_or_else(|| panic!("{} cannot be loaded", path.display()));
}

fn load_path(path: &Path) -> Option<()> {
    let name = CString::new(path.as_os_str().as_bytes()).ok()?;
    // SAFETY: a text that ends in NUL; the library has no initialisers. It stays loaded.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    (!handle.is_null()).then_some(())
}

/// Renames a function in the table of names, where looking it up then fails as if it had never been there.
fn rename(bytes: &mut [u8], name: &str) {
    let wanted = [b"\0", name.as_bytes(), b"\0"].concat();
    let found: Vec<usize> =
        bytes.windows(wanted.len()).enumerate().filter(|(_, part)| *part == wanted).map(|(at, _)| at).collect();
    for at in found {
        bytes[at + 1] = b'x';
    }
}
