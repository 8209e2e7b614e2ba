//! How long everything takes: the load matrix and the critical path.
//!
//! Knows durations and speeds; does not know capacities.

pub mod cpm;
#[cfg(test)]
pub(crate) mod fixture;
pub mod load;

pub use cpm::Timing;
pub use load::{Load, LoadMatrix, Origin};
