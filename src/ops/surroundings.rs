//! What the orchestrator tells a stage through the environment, and the device that follows from it.
//!
//! The only file here that reads the environment.
#![expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]

use std::env;
use std::path::PathBuf;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use tch::{Cuda, Device};

/// The environment of a stage.
#[derive(Debug, Default)]
pub(crate) struct Surroundings {
    /// `TRAINYARD_EVENTS`: where progress goes, as JSON lines.
    pub(crate) events: Option<PathBuf>,
    /// `TRAINYARD_CHECKPOINT_DIR`: kept between the attempts of a task.
    pub(crate) checkpoints: Option<PathBuf>,
    /// `CUDA_VISIBLE_DEVICES`: the devices that the task was placed on; none when empty.
    visible: Option<String>,
    /// `OMP_NUM_THREADS`: CPU threads of one operation.
    threads: Option<i32>,
}

impl Surroundings {
    /// Reads the environment.
    pub(crate) fn read() -> Self {
        let path = |name| env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
        Self {
            events: path("TRAINYARD_EVENTS"),
            checkpoints: path("TRAINYARD_CHECKPOINT_DIR"),
            visible: env::var("CUDA_VISIBLE_DEVICES").ok(),
            threads: env::var("OMP_NUM_THREADS").ok().and_then(|threads| threads.parse().ok()).filter(|n| *n > 0),
        }
    }

    /// Returns the device to compute on: the first visible CUDA device, or the CPU. Says so when a device was given and
    /// cannot be used.
    pub(crate) fn device(&self) -> Device {
        // libtorch would start a thread for every CPU of the machine; a stage holds one unless it says otherwise.
        tch::set_num_threads(self.threads.unwrap_or(1));
        if self.visible.as_deref().is_some_and(|visible| visible.trim().is_empty()) {
            return Device::Cpu;
        }
        let loaded = load_cuda();
        if Cuda::is_available() {
            return Device::Cuda(0);
        }
        if let Some(visible) = &self.visible {
            let why = loaded.err().unwrap_or_else(|| "it finds no device".to_owned());
            eprintln!("CUDA_VISIBLE_DEVICES is {visible}, but libtorch cannot use CUDA ({why}): this runs on the CPU");
        }
        Device::Cpu
    }
}

/// Loads libtorch's CUDA part where there is one, and leaves it loaded. The program is linked with the CPU part alone,
/// so that one binary serves machines with and without a GPU; the CUDA part registers itself when it is loaded, which
/// must come before the first question about CUDA, whose answer libtorch keeps.
fn load_cuda() -> Result<(), String> {
    // SAFETY: libtorch_cuda.so is libtorch's own; its initialisers may run at any time and from any thread.
    let library = unsafe { Library::open(Some("libtorch_cuda.so"), RTLD_NOW | RTLD_GLOBAL) };
    library.map(std::mem::forget).map_err(|error| error.to_string())
}

/// Describes libtorch in one line of JSON.
pub(crate) fn describe() -> String {
    let loaded = load_cuda();
    let available = Cuda::is_available();
    let description = serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "libtorch": LIBTORCH,
        "cuda_part": loaded.is_ok(),
        "cuda": available,
        "devices": if available { Cuda::device_count() } else { 0 },
    });
    description.to_string()
}

/// The version that the C++ interface of `tch` 0.24 is made for; its build refuses any other.
pub(crate) const LIBTORCH: &str = "2.11.0";
