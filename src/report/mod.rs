//! Read-only views: progress, tables, Gantt charts, JSON.
//!
//! While a run goes on, [`observers`] show it: [`bars`], [`lines`] or a JSON [`stream`], with a [`mirror`] of what
//! stages print. Afterwards [`history`], [`json`] and [`summary`] show what the record says. Everything a user named or a stage
//! printed goes through [`text`] before it reaches a terminal.

pub mod bars;
pub mod bench;
pub mod chart;
pub mod dashboard;
pub mod definition;
pub mod devices;
pub mod diff;
pub mod dry_run;
pub mod estimate;
pub mod explain;
#[cfg(test)]
mod fixture;
pub mod frame;
mod gantt;
pub mod held;
pub mod history;
pub mod idle;
pub mod journal;
pub mod json;
pub mod known;
pub mod lines;
pub mod markup;
pub mod metrics;
pub mod mirror;
mod observers;
pub mod orphans;
pub mod otlp;
pub mod page;
pub mod paint;
pub mod perfetto;
pub mod plan;
pub mod reasons;
mod rows;
pub mod screen;
pub mod story;
pub mod stream;
pub mod summary;
pub mod table;
pub mod tail;
pub mod tally;
pub mod tensorboard;
pub mod text;
pub mod timeline;
pub mod watch;
pub mod wording;

pub use observers::{Lost, Options, Style, observers};
