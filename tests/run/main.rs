//! `trainyard run` as a user calls it, on stages that behave badly. Nothing here sleeps: a test waits for what a stage
//! prints, or for the end of a process.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic and starts the binary")]

mod backup;
mod cache;
mod containers;
mod endings;
mod left;
mod limits;
mod removal;
mod resume;
mod scarce;
mod sharing;
mod signals;
mod strays;
mod survive;
mod whose;
mod world;
