//! How long everything takes: the load matrix and the critical path.
//!
//! Knows durations and speeds; does not know capacities.
