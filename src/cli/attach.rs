//! A recorded run followed from outside: what happened since the last look, how far tasks are, what devices hold.

use super::diff::heard;
use super::state::{self, StateArgs, broken};
use super::{Failure, session};
use crate::engine::process;
use crate::fleet::Device;
use crate::graph::TaskId;
use crate::probe::{self, Monitor};
use crate::report::estimate::Estimate;
use crate::report::json::{self, Header};
use crate::report::known::Known;
use crate::report::tally::Tally;
use crate::run::admission::{Live, Readings};
use crate::run::event::{Event, Recorded, Role};
use crate::run::launch::{self, run_mark};
use crate::run::observer::{DeviceGauge, Progress};
use crate::run::state::RunState;
use crate::run::store::{RunRow, Store};
use crate::units::Millis;

/// A run that is followed.
pub(super) struct Attached {
    pub(super) store: Store,
    pub(super) row: RunRow,
    pub(super) known: Known,
    pub(super) state: RunState,
    pub(super) tally: Tally,
    estimate: Option<Estimate>,
    /// How many of its events were taken in.
    taken: usize,
    alive: bool,
}

impl Attached {
    /// Attaches to the run that is meant: without a name the newest.
    pub(super) fn to(args: &StateArgs, wanted: Option<&str>) -> Result<Self, Failure> {
        let (store, row) = args.pick(wanted)?;
        Ok(Self::of(store, row))
    }

    /// Attaches to a run of a record.
    pub(super) fn of(store: Store, row: RunRow) -> Self {
        let known = Known::of(&row.header);
        let state = RunState::new(row.header.tasks.len());
        Self { store, row, known, state, tally: Tally::default(), estimate: None, taken: 0, alive: true }
    }

    /// Takes in what was recorded since the last call, and gives every fact to `each` once the state includes it.
    pub(super) fn catch_up(&mut self, mut each: impl FnMut(&Self, &Recorded)) -> Result<(), Failure> {
        // Asked before the record is read: what it wrote before it went is then read as well.
        self.alive = self.state.end.is_none() && state::is_alive(&self.row);
        let events = self.store.events_from(&self.row.header.id, self.taken).map_err(broken)?;
        let mut resumed = false;
        for recorded in events {
            self.state.apply(&recorded).map_err(broken)?;
            self.taken += 1;
            resumed |= matches!(recorded.event, Event::RunResumed { .. });
            let view = self.known.view(&self.state);
            let ended = self.tally.recorded(view, &recorded);
            match &mut self.estimate {
                Some(estimate) => estimate.recorded(&recorded, ended.as_ref()),
                None => self.estimate = Some(Estimate::new(view)),
            }
            each(self, &recorded);
        }
        if resumed || (!self.alive && self.state.end.is_none()) {
            // Another process may have taken the run over. Asked at each look: its tasks are not read again.
            if let Some(orchestrator) = self.store.orchestrator(&self.row.header.id).map_err(broken)? {
                self.row.header.orchestrator = orchestrator;
            }
            self.alive = self.state.end.is_none() && state::is_alive(&self.row);
        }
        self.alive &= self.state.end.is_none();
        Ok(())
    }

    /// Returns how many of its events were taken in.
    pub(super) const fn taken(&self) -> usize {
        self.taken
    }

    /// Whether somebody carries the run out.
    pub(super) const fn is_alive(&self) -> bool {
        self.alive
    }

    /// Returns what views need of the header.
    pub(super) fn header(&self) -> Header<'_> {
        let header = &self.row.header;
        let name = header.invocation.name.as_deref();
        Header { run: &header.id, name, pipeline: &header.pipeline, started: header.started, alive: self.alive }
    }

    /// Returns the run's state as `show --json` spells it.
    pub(super) const fn word(&self) -> &'static str {
        json::state_word(self.state.end, self.alive)
    }

    /// Looks at how far running tasks are, and returns what is new.
    pub(super) fn listen(&mut self) -> Vec<(TaskId, Role, Progress)> {
        let dir = self.store.run_dir(&self.row.header.id);
        self.tally.ticked(session::now());
        let running: Vec<_> = self.tally.running.iter().map(|running| (running.task, running.role)).collect();
        let mut new = Vec::new();
        for (task, role) in running {
            let number = self.state.task(task).last_as(role).map_or(0, |(number, _)| number);
            let path = launch::progress(&dir, &self.row.header.tasks[task.index()].name, number);
            if let Some(record) = heard(&path)
                && self.tally.progressed_as(role, task, &record.progress)
            {
                new.push((task, role, record.progress));
            }
        }
        new
    }

    /// Returns how long the run still takes.
    pub(super) fn left(&mut self) -> Option<Millis> {
        if !self.alive {
            return None;
        }
        self.estimate.as_mut()?.left(&self.state, &self.tally.running, session::now())
    }

    /// Returns the log of a task's last attempt.
    pub(super) fn log(&self, task: TaskId) -> Option<std::path::PathBuf> {
        let (number, _) = self.state.task(task).telling()?;
        let dir = self.store.run_dir(&self.row.header.id);
        Some(launch::log(&dir, &self.row.header.tasks[task.index()].name, number))
    }
}

/// Reads the devices of this machine.
pub(super) struct Gauges {
    machine: probe::Machine,
    monitor: Option<Monitor>,
}

impl Gauges {
    /// Looks for devices; where there are none, or not here, nothing is read.
    pub(super) fn of_this_machine() -> Self {
        let options = probe::Options::from_env();
        let machine = probe::this_machine(&options);
        let monitor = Monitor::open(&options, &machine.gpus).ok().flatten();
        Self { machine, monitor }
    }

    /// Returns what every device holds and what the runs' running tasks were promised of it, each with its UUID.
    pub(super) fn read(&mut self, runs: &[(&str, &RunState)]) -> Vec<(String, DeviceGauge)> {
        let Some(monitor) = &mut self.monitor else { return Vec::new() };
        let open = runs.iter().flat_map(|(_, state)| &state.tasks).flat_map(|task| task.open());
        let held: Vec<_> = open.map(|(_, attempt)| &attempt.place).collect();
        // Devices that are set aside are read too, and are no part of the fleet.
        let fleet = self.machine.fleet();
        let read = monitor.read();
        // Which task it is does not matter here.
        let marks: Vec<_> = runs.iter().map(|(run, _)| [run_mark(run)]).collect();
        let task = |pid| marks.iter().any(|mark| process::is_marked(pid, mark)).then_some(TaskId(0));
        let readings = Readings::new(session::now(), &fleet, &read, task);
        let gauge = |(device, live): (&Device, &Live)| {
            let seen = if let Live::Seen(seen) = live { Some(seen) } else { None };
            let gauge = DeviceGauge {
                id: device.id.clone(),
                model: device.model.clone(),
                used: seen.map(|seen| seen.used),
                ours: seen.and_then(|seen| Some(seen.held.as_ref()?.iter().map(|(_, bytes)| *bytes).sum())),
                total: device.memory,
                promised: held.iter().filter(|place| place.has(device)).map(|place| place.gpu_memory).sum(),
                ..DeviceGauge::default()
            };
            let uuid = device.uuid.clone().unwrap_or_default();
            match read.iter().find(|reading| reading.uuid == uuid) {
                Some(reading) => (uuid, gauge.with(reading)),
                None => (uuid, gauge),
            }
        };
        fleet.devices.iter().zip(&readings.devices).map(gauge).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::process;
    use crate::run::event::Process;
    use crate::run::store::{Header, Orchestrator, TaskHeader};
    use crate::run::within::Within;

    #[test]
    fn who_carries_a_run_on_is_learned_without_reading_its_tasks_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        let own = process::identify(std::process::id()).unwrap();
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let here = Orchestrator { host, boot: process::boot_id(), pids: None, process: own, within: Within::default() };
        let gone = Orchestrator { process: Process { started: own.started + 1, ..own }, ..here.clone() };
        let header = Header {
            id: "r".into(),
            pipeline: "p".into(),
            file: "/p.toml".into(),
            orchestrator: gone,
            started: crate::units::Millis(1),
            invocation: Default::default(),
            tasks: vec![TaskHeader { name: "a".into(), stage: "a".into(), ..TaskHeader::default() }],
        };
        let _ = store.begin(&header).unwrap();
        let row = store.run("r").unwrap().unwrap();
        let mut attached = Attached::of(Store::open_existing(dir.path()).unwrap(), row);
        // Whoever read them once more would fail.
        let db = rusqlite::Connection::open(dir.path().join("state.db")).unwrap();
        db.execute("UPDATE task_list SET tasks = '{'", []).unwrap();
        assert!(attached.catch_up(|_, _| {}).is_ok() && !attached.is_alive());
        let _ = store.take_over(&header, &here).unwrap().unwrap();
        assert!(attached.catch_up(|_, _| {}).is_ok() && attached.is_alive());
    }
}
