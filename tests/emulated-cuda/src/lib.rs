//! A CUDA driver for tests: a shared library with the functions of the driver that this project calls. Device memory is host
//! memory between pages that nobody may touch, and kernels are the project's own sources, compiled for the CPU.
//!
//! `EMULATED_CUDA` says what the machine is and what goes wrong on it, see [`Card`]; every call is logged. It proves the host's
//! side and the kernels' logic, never speed, nor how a driver or a device behaves.

mod calls;
mod ledger;
mod memory;
mod scene;

pub use scene::{Card, Log, Scene, load, uuid};
