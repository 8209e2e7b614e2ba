//! An NVML for tests: a shared library that answers from a folder instead of from a driver.
//!
//! `MOCK_NVML_STATE` names the folder, which is read anew on every call, so that a test can change the machine while a
//! program is looking at it: cards fall off the bus, strangers come and go. Emulated memory counts only while the
//! process that holds it is alive, so that killing a process frees it, as on a real card.
//!
//! It proves what a program makes of NVML's answers, never how a driver behaves.

mod calls;
mod events;
mod handle;
mod scene;
mod state;

pub use scene::Scene;
pub use state::{Card, Machine, Slice};
