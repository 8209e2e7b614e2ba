//! Who watches a run: bars, plain lines, a JSON stream. Observers are told after a fact is recorded and can change
//! nothing.

use super::decide::Waiting;
use super::event::{Recorded, Role};
use super::state::RunState;
use crate::fleet::Fleet;
use crate::graph::{TaskGraph, TaskId};
use crate::plan::Plan;
use crate::probe::Reading;
pub use crate::progress::Progress;
use crate::units::{Bytes, Millis};

/// What an observer may look at.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The run's id.
    pub run: &'a str,
    /// The tasks.
    pub graph: &'a TaskGraph,
    /// What it runs on.
    pub fleet: &'a Fleet,
    /// What was intended.
    pub plan: &'a Plan,
    /// What happened so far, up to what was told last.
    pub state: &'a RunState,
    /// When the run was first started, ms since the Unix epoch.
    pub started: Millis,
}

/// What one device holds at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceGauge {
    /// `node/gpuN`.
    pub id: String,
    /// As short as people say it: `H100`.
    pub model: String,
    /// Memory that anybody holds.
    pub used: Option<Bytes>,
    /// What of it running tasks of ours hold; `None` where the driver does not say whose it is.
    pub ours: Option<Bytes>,
    /// All of its memory.
    pub total: Bytes,
    /// Whether the driver hides who holds it.
    pub hidden: bool,
    /// Memory that running tasks of ours reserved, whether they hold it already or not.
    pub promised: Bytes,
    /// Part of the time in which it computed, in percent.
    pub utilisation: Option<u32>,
    /// °C.
    pub temperature: Option<u32>,
    /// What it draws, in mW.
    pub power: Option<u32>,
    /// The most that it may draw, in mW.
    pub power_limit: Option<u32>,
    /// Why it runs slower than it could; nothing where it is well or does not say.
    pub slowed: Vec<&'static str>,
}

impl DeviceGauge {
    /// Returns the memory that is held by others.
    #[must_use]
    pub fn others(&self) -> Option<Bytes> {
        Some(self.used? - self.ours?)
    }

    /// Takes in what a reading says besides memory.
    #[must_use]
    pub fn with(self, reading: &Reading) -> Self {
        let Reading { utilisation, temperature, power, power_limit, .. } = *reading;
        let slowed = reading.slowed.clone().unwrap_or_default();
        Self { utilisation, temperature, power, power_limit, slowed, ..self }
    }
}

/// Someone who watches a run. `now` is in milliseconds since the Unix epoch.
pub trait Observer {
    /// A fact was recorded; the view's state is the one right after it, whatever has happened since.
    fn recorded(&mut self, view: View<'_>, recorded: &Recorded);

    /// A running attempt said how far it is.
    fn progressed(&mut self, view: View<'_>, task: TaskId, role: Role, progress: &Progress) {
        let _ = (view, task, role, progress);
    }

    /// A running attempt printed something: any bytes, not whole lines.
    fn printed(&mut self, view: View<'_>, task: TaskId, role: Role, output: &[u8]) {
        let _ = (view, task, role, output);
    }

    /// What ready tasks wait for has changed; told now and then, not at every change.
    fn waits(&mut self, view: View<'_>, now: Millis, waiting: &[Waiting]) {
        let _ = (view, now, waiting);
    }

    /// The devices were looked at: one gauge each, in the order of the fleet.
    fn gauged(&mut self, view: View<'_>, now: Millis, gauges: &[DeviceGauge]) {
        let _ = (view, now, gauges);
    }

    /// Time passed: a few times a second while anything runs.
    fn ticked(&mut self, view: View<'_>, now: Millis) {
        let _ = (view, now);
    }
}
