//! Read-only views: progress, tables, Gantt charts, JSON.
//!
//! Everything a user named or a stage printed goes through [`text`] before it reaches a terminal.

pub mod paint;
pub mod table;
pub mod text;
