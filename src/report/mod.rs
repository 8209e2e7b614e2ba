//! Read-only views: progress, tables, Gantt charts, JSON.
//!
//! Everything a user named or a stage printed goes through [`text`] before it reaches a terminal.

pub mod devices;
pub mod estimate;
#[cfg(test)]
mod fixture;
pub mod json;
pub mod paint;
pub mod summary;
pub mod table;
pub mod tail;
pub mod tally;
pub mod text;
pub mod wording;
