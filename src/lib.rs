//! Trainyard packs a training pipeline onto the GPUs you have.
//!
//! ```text
//! TOML ─ spec ─→ Pipeline ─ graph ─→ TaskGraph ─┐
//!                 fleet file or probe ─→ Fleet ─┴ timing, plan ─→ Plan ─ run, engine ─→ events ─ report ─→ you
//! ```
//!
//! # The rooms
//! Each uses only rooms above it.
//!
//! | room | what it is for |
//! |---|---|
//! | [`units`] | quantities whose unit is in the type |
//! | [`spec`] | the text of a pipeline file to a checked `Pipeline` |
//! | [`graph`] | a `Pipeline` to a `TaskGraph` |
//! | [`fleet`] | nodes, devices, links: pure values |
//! | [`cuda`] | NVIDIA devices: memory and kernels |
//! | [`timing`] | load matrix and critical path |
//! | [`batch`] | how good many candidate schedules are, at once |
//! | [`plan`] | where and when every task should run, and how good that is |
//! | [`probe`] | what the real machine is |
//! | [`progress`] | how far a program says it is |
//! | [`run`] | carries a plan out |
//! | [`engine`] | where a task runs |
//! | [`report`] | read-only views |
//! | [`cli`] | one file per subcommand |
//!
//! The room `ops`, built-in stages on libtorch, is the binary `trainyard-ops` and uses `spec` only: the orchestrator
//! never links libtorch.

// A reader that goes away must not make a command panic: `cli::output` writes.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod batch;
pub mod cli;
pub mod cuda;
pub mod engine;
pub mod fleet;
pub mod graph;
pub mod plan;
pub mod probe;
pub mod progress;
pub mod report;
pub mod run;
pub mod spec;
pub mod timing;
pub mod units;
