//! How long everything takes: the load matrix and the critical path.
//!
//! Knows durations and speeds; does not know capacities. What the kernels in `kernels/` compute is defined here: `==`.

pub mod calibrate;
pub mod choice;
pub mod chunks;
pub mod cpm;
pub mod device;
#[cfg(test)]
pub(crate) mod fixture;
pub mod kept;
pub mod layout;
pub mod load;
pub mod loads;
pub mod sample;
pub mod sweep;
pub mod ticks;

pub use cpm::{Backend, Cpu, Timing};
pub use load::{DEFAULT_DURATION, Load, LoadMatrix, Origin};
