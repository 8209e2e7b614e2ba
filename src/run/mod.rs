//! Carries a plan out.
//!
//! The pure half ([`admission`], [`state`], [`event`], [`outcome`]) takes values and `now`; the shell half talks to processes, clocks and the disk.

pub mod admission;
pub mod engine;
pub mod event;
pub mod launch;
pub mod observer;
pub mod outcome;
pub mod retry;
pub mod state;
pub mod store;
