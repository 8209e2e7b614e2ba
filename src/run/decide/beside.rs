//! Second attempts beside the first ones: of stragglers once they have taken too long, or from the start.
//!
//! A task has at most one beside each attempt that its fate depends on, never on the same devices. It takes room that no
//! task wants that is ready; where there is none it waits for some.

use std::collections::BTreeSet;

use super::Dispatcher;
use super::backfill::Line;
use crate::graph::TaskId;
use crate::run::admission::{Grant, Readings, granted};
use crate::run::event::{Event, Place, Role};
use crate::run::expect;
use crate::run::outcome::Outcome;
use crate::run::state::{Attempt, RunState, TaskState};
use crate::spec::{Backup, Resources};
use crate::timing::{Load, Origin};
use crate::units::Millis;

/// Running tasks that a second attempt may be started of.
#[derive(Debug, Default)]
pub(super) struct Races {
    /// When it is time for that.
    due: BTreeSet<(Millis, TaskId)>,
    /// Those for which it is, the longest waiting first.
    wanted: BTreeSet<(Millis, TaskId)>,
}

impl Races {
    /// Returns when it is next time for a second attempt. One that only waits for room is due at no time.
    pub(super) fn next_due(&self) -> Option<Millis> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Whether one waits for room.
    pub(super) fn is_wanted(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// Yields the tasks for which it is time.
    pub(super) fn wanted(&self, now: Millis) -> impl Iterator<Item = TaskId> {
        let due = self.due.iter().take_while(move |(due, _)| *due <= now);
        self.wanted.iter().chain(due).map(|(_, task)| *task)
    }

    fn forget(&mut self, task: TaskId) {
        self.due.retain(|(_, other)| *other != task);
        self.wanted.retain(|(_, other)| *other != task);
    }
}

impl Dispatcher<'_> {
    /// Takes note of what attempts hold that were started by an earlier dispatcher.
    pub(super) fn enter(&mut self, task: TaskId, state: &TaskState) {
        for (number, attempt) in state.open() {
            self.note_running(task, attempt.place.role, number);
            self.enter_attempt(task, attempt);
        }
        let Some(main) = state.open_as(Role::Main) else { return };
        let modes = self.pipeline.stages[self.graph.tasks[task.index()].stage].modes.len();
        if main.place.mode < modes && main.place.mode != self.plan.placed[task.index()].mode {
            self.plan.to_mut().placed[task.index()].mode = main.place.mode;
            self.choose_queue(task, state.raise);
        }
        // One that was lost with an orchestrator is made up for.
        let beside = state.attempts.iter().rev().take_while(|attempt| attempt.place.role == Role::Backup);
        let was_lost =
            |attempt: &Attempt| attempt.ended.as_ref().is_some_and(|ended| ended.outcome == Outcome::Interrupted);
        if beside.into_iter().all(was_lost) {
            self.note_backup(task, &main.place, main.started);
        }
    }

    fn enter_attempt(&mut self, task: TaskId, attempt: &Attempt) {
        let place = &attempt.place;
        let found = self.found_again(place);
        let is_short = found.as_ref().is_none_or(|(_, devices)| devices.len() < place.devices.len());
        let lost = place.devices.iter().find(|device| is_short && self.fleet.is_lost(device));
        self.stranded.extend(lost.map(|device| (task, place.role, device.clone())));
        let modes = &self.pipeline.stages[self.graph.tasks[task.index()].stage].modes;
        let mode = modes.get(place.mode).unwrap_or_else(|| self.mode(task));
        // What it was granted: its stage may ask for something else by now.
        let asked = attempt.raise.map_or_else(|| mode.resources.clone(), |raise| raise.request(&mode.resources));
        let request = self.as_held(Resources { alone: asked.alone, suspend: asked.suspend, ..granted(place) });
        // Of a node that is gone there is nothing to hold.
        if let Some((node, devices)) = found {
            self.ledger.enter_as(place.role, task, &request, node, devices);
        }
        if place.role == Role::Main {
            // As if it had run without a pause until it was last stopped or continued.
            self.expect.started(task, attempt.since() - attempt.ran(attempt.since()));
            if attempt.is_suspended() {
                self.note_suspended(task, attempt.since());
            }
        }
    }

    /// Takes in that an attempt was started at a time.
    pub(super) fn note_start(&mut self, task: TaskId, place: &Place, at: Millis) {
        if place.role == Role::Main {
            self.expect.started(task, at);
        }
        self.note_backup(task, place, at);
    }

    /// Takes in that a second attempt may follow on one that was started at a time.
    fn note_backup(&mut self, task: TaskId, place: &Place, at: Millis) {
        let backup = self.pipeline.stages[self.graph.tasks[task.index()].stage].backup;
        if let (Role::Main, Some(backup)) = (place.role, backup)
            && let Some(after) = self.wait_for(task, place, backup)
        {
            self.races.due.insert((at + after, task));
        }
    }

    /// Takes in that an attempt ended.
    pub(super) fn note_end(&mut self, task: TaskId, role: Role, outcome: &Outcome) {
        if role == Role::Main || outcome.is_success() {
            self.races.forget(task);
        }
    }

    /// Returns how long after the first attempt the second one starts; `None` where nobody knows how long it should take.
    fn wait_for(&self, task: TaskId, place: &Place, backup: Backup) -> Option<Millis> {
        let Backup::After { thousandths } = backup else { return Some(Millis::ZERO) };
        let modes = &self.pipeline.stages[self.graph.tasks[task.index()].stage].modes;
        let duration = &modes.get(place.mode)?.duration;
        let first = place.devices.first();
        let device = self.fleet.devices.iter().find(|device| first == Some(&device.id));
        let load = match (device, self.fleet.nodes.iter().find(|node| node.name == place.node)) {
            (Some(device), _) => Load::on_device(duration, device),
            (None, Some(node)) => Load::on_node(duration, node),
            (None, None) => return None,
        };
        let after = u128::from(load.time.0) * u128::from(thousandths) / 1_000;
        (load.origin == Origin::Declared).then_some(Millis(u64::try_from(after).unwrap_or(u64::MAX)))
    }

    /// Starts second attempts for which it is time, as far as there is room that is not in the way of what comes first.
    pub(super) fn start_beside(
        &mut self,
        (mut free_jobs, mut line): (usize, Line),
        state: &RunState,
        now: Millis,
        readings: &Readings,
        events: &mut Vec<Event>,
    ) {
        while let Some(due) = self.races.due.first().copied().filter(|(due, _)| *due <= now) {
            self.races.due.remove(&due);
            self.races.wanted.insert(due);
        }
        for wanted in self.races.wanted.clone() {
            if free_jobs == 0 {
                return;
            }
            if line.is_to_reserve() {
                self.reserve(&mut line, readings, now);
            }
            let (_, task) = wanted;
            let request = self.queues.of(task).request().clone();
            let (of, mode) = (self.stage_and_mode(task), self.mode(task));
            let takes = |grant: &Grant| {
                let planned = expect::planned(mode, self.fleet, grant.node, &grant.devices);
                self.expect.duration(of, planned)
            };
            let admitted = self.ledger.try_admit_backup(task, &request, readings, now, &mut |grant| {
                line.lets_pass((task, &request), grant, now + takes(grant))
            });
            let Ok(grant) = admitted else { continue };
            self.races.wanted.remove(&wanted);
            let place = Place { role: Role::Backup, ..self.place(task, &request, &grant) };
            let number = u32::try_from(state.task(task).attempts.len()).unwrap_or(u32::MAX - 1) + 1;
            events.push(Event::AttemptStarted { task, number, place });
            free_jobs -= 1;
        }
    }
}

/// Returns which of a task's attempts runs on a device.
pub(super) fn role_on(state: &RunState, task: TaskId, device: &str) -> Role {
    let backup = state.task(task).open_as(Role::Backup);
    let is_there = backup.is_some_and(|attempt| attempt.place.devices.iter().any(|id| id == device));
    if is_there { Role::Backup } else { Role::Main }
}
