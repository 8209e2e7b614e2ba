//! How long everything takes: the load matrix and the critical path.
//!
//! Knows durations and speeds; does not know capacities. What the kernels in `kernels/` compute is defined here: `==`.

pub mod chunks;
pub mod cpm;
#[cfg(test)]
pub(crate) mod fixture;
pub mod layout;
pub mod load;
pub mod loads;
pub mod ticks;

pub use cpm::Timing;
pub use load::{Load, LoadMatrix, Origin};
