//! When the order of what waits is thought over, and how a new one is taken up.
//!
//! Once a second what is left is estimated: the larger of what the longest path and what the remaining work need, with
//! running tasks by their own word and waiting ones by what others of their stage took. Where that differs by a tenth
//! from what was planned, or a device falls out or comes back, somebody is to plan the rest; whoever does, the answer
//! comes later, and what has started meanwhile stays. Does not plan.

use std::collections::BTreeSet;

use super::Dispatcher;
use crate::fleet::{DeviceId, Fleet};
use crate::graph::TaskId;
use crate::plan::rest::{Left, Rest, Revision};
use crate::plan::{Objective, Plan};
use crate::run::admission::{Live, Readings};
use crate::run::event::{Because, Event, Intent, Role};
use crate::run::expect;
use crate::run::state::{Phase, Revised, RunState};
use crate::spec::{Mode, Pipeline};
use crate::units::Millis;

/// How often it is looked whether the plan still holds, and what is no difference.
const EVERY: Millis = Millis(1_000);

/// The plan is thought over where what is left differs by more than one in so many.
const DRIFT: u64 = 10;

/// What a plan is held against.
#[derive(Debug)]
pub(super) struct Watch {
    /// When the run should end, ms since the Unix epoch.
    ends: Option<Millis>,
    /// What a plan makes of an estimate, in thousandths: it knows what is in each other's way.
    scale: u64,
    /// How many tasks the plan runs at once, in thousandths, at least one.
    parallel: u64,
    /// When to look next.
    due: Millis,
    /// Devices that nothing may start on.
    unfit: BTreeSet<DeviceId>,
    /// Why a new order was asked for that has not come yet.
    asked: Option<Because>,
    /// Whether anything says how long some stage takes: otherwise there is nothing to differ from.
    knows: bool,
}

impl Watch {
    pub(super) fn new(pipeline: &Pipeline, plan: &Plan, fleet: &Fleet) -> Self {
        let work: u128 = plan.placed.iter().map(|placed| u128::from(placed.ran().0)).sum();
        let parallel = work * 1_000 / u128::from(plan.makespan.0.max(1));
        let parallel = u64::try_from(parallel).unwrap_or(u64::MAX).max(1_000);
        let says = |mode: &Mode| mode.duration.base.is_some() || !mode.duration.by_model.is_empty();
        let knows = pipeline.stages.iter().any(|stage| stage.modes.iter().any(says));
        let aside = (0..).map(DeviceId).zip(&fleet.devices).filter(|(_, device)| device.aside);
        let unfit = aside.map(|(id, _)| id).collect();
        Self { ends: None, scale: 1_000, parallel, due: Millis::ZERO, unfit, asked: None, knows }
    }
}

/// What is left of a run.
struct Forecast {
    time: Millis,
    waiting: usize,
    /// The running task that differs most from its plan, if one does.
    task: Option<TaskId>,
}

impl Dispatcher<'_> {
    /// Returns what is to be planned, if the order of what waits should be thought over; not again before
    /// [`Dispatcher::replanned`] has heard of it.
    pub fn wants_replan(&mut self, state: &RunState, readings: &Readings, now: Millis) -> Option<Rest> {
        let is_over = state.stopping.is_some() || state.end.is_some();
        if is_over || self.watch.asked.is_some() || now < self.watch.due {
            return None;
        }
        self.watch.due = now + EVERY;
        let changed = self.changed_device(state, readings);
        if changed.is_none() && !self.watch.knows {
            return None;
        }
        let forecast = self.forecast(state, now);
        if forecast.waiting == 0 {
            return None;
        }
        let expected = expect::scaled(forecast.time, self.watch.scale);
        let planned = *self.watch.ends.get_or_insert(now + expected) - now;
        let differs = planned.0.abs_diff(expected.0);
        let drifts =
            forecast.waiting > 1 && differs > EVERY.0 && differs.saturating_mul(DRIFT) > planned.max(expected).0;
        let drift = drifts.then_some(Because::Drift { expected, planned, task: forecast.task });
        self.watch.asked = changed.or(drift);
        self.watch.asked.is_some().then(|| Rest { expected, ..self.rest(state, now) })
    }

    /// Takes in what came of it, or that nothing did; returns the event that takes a new order up.
    pub fn replanned(&mut self, state: &RunState, revision: Option<Revision>, now: Millis) -> Option<Event> {
        let because = self.watch.asked.take()?;
        let Some(revision) = revision else {
            self.watch.due = now + EVERY + EVERY;
            return None;
        };
        let estimate = self.forecast(state, now).time.0.max(1);
        let scale = u128::from(revision.after.0) * 1_000 / u128::from(estimate);
        self.watch.scale = u64::try_from(scale).unwrap_or(1_000).clamp(100, 10_000);
        self.watch.ends = Some(now + revision.after);
        self.watch.due = now + EVERY.max(Millis(revision.after.0 / 20));
        if !revision.is_better && matches!(because, Because::Drift { .. }) {
            return None;
        }
        let waits = |task: &TaskId| matches!(state.task(*task).phase, Phase::Waiting | Phase::Delayed(_));
        let moved = revision.order.iter().zip(&revision.placed).filter(|(task, placed)| {
            let intended = &self.plan.placed[task.index()];
            let may = intended.mode == placed.mode || state.task(**task).attempts.is_empty();
            let same = (intended.mode, intended.node, &intended.devices) == (placed.mode, placed.node, &placed.devices);
            waits(task) && may && !same
        });
        let moved: Vec<Intent> = moved
            .map(|(task, placed)| Intent {
                task: *task,
                mode: placed.mode,
                node: self.fleet.nodes[placed.node.index()].name.clone(),
                devices: placed.devices.iter().map(|device| self.fleet.devices[device.index()].id.clone()).collect(),
            })
            .collect();
        let order: Vec<TaskId> = revision.order.iter().copied().filter(waits).collect();
        if moved.is_empty() && order.is_sorted_by_key(|task| self.plan.rank[task.index()]) {
            return None;
        }
        Some(Event::Replanned { because, before: revision.before, after: revision.after, order, moved })
    }

    /// Takes up a new order, and new places for some tasks.
    pub(super) fn revise(&mut self, revised: &Revised) {
        let queued = self.queues.take_all();
        let plan = self.plan.to_mut();
        let first = u32::try_from(revised.order.len()).unwrap_or(u32::MAX);
        plan.rank.iter_mut().for_each(|rank| *rank = rank.saturating_add(first));
        for (rank, task) in (0..).zip(&revised.order) {
            plan.rank[task.index()] = rank;
        }
        for intent in revised.moved.values() {
            self.intend(intent);
        }
        for task in queued {
            self.queues.insert(self.turn(task));
        }
    }

    /// Takes up where a task should go, as far as that is there.
    fn intend(&mut self, intent: &Intent) {
        let i = intent.task.index();
        let place =
            super::Place { node: intent.node.clone(), devices: intent.devices.clone(), ..super::Place::default() };
        let modes = self.pipeline.stages[self.graph.tasks[i].stage].modes.len();
        let Some((node, devices)) = self.found_again(&place).filter(|_| intent.mode < modes) else { return };
        let new_mode = self.plan.placed[i].mode != intent.mode;
        if new_mode && self.helped.contains(&intent.task) {
            // What it asks for is of the mode in which it was tried.
            return;
        }
        let placed = &mut self.plan.to_mut().placed[i];
        (placed.mode, placed.node, placed.devices) = (intent.mode, node, devices);
        if new_mode {
            self.choose_queue(intent.task, None);
        }
    }

    /// Returns the device that has fallen out or come back since the last look, if tasks wait for devices.
    fn changed_device(&mut self, state: &RunState, readings: &Readings) -> Option<Because> {
        let devices = (0..).map(DeviceId).zip(&readings.devices);
        let unfit = devices.filter(|(_, live)| matches!(live, Live::Fault { .. })).map(|(id, _)| id);
        let unfit: BTreeSet<_> = unfit.collect();
        let before = std::mem::replace(&mut self.watch.unfit, unfit);
        let name = |device: &DeviceId| self.fleet.devices[device.index()].id.clone();
        let lost = self.watch.unfit.difference(&before).next().map(|device| Because::Lost { device: name(device) });
        let back = || before.difference(&self.watch.unfit).next().map(|device| Because::Back { device: name(device) });
        let changed = lost.or_else(back)?;
        let waits = |task: &TaskId| matches!(state.task(*task).phase, Phase::Waiting | Phase::Delayed(_));
        let mut waiting = self.graph.ids().filter(waits);
        waiting.any(|task| !self.plan.placed[task.index()].devices.is_empty()).then_some(changed)
    }

    /// Estimates what is left. O(tasks + edges).
    fn forecast(&self, state: &RunState, now: Millis) -> Forecast {
        let mut tail = vec![0_u64; self.graph.len()];
        let (mut work, mut path, mut waiting) = (0_u64, 0, 0);
        let mut worst: Option<(u64, TaskId)> = None;
        for task in self.graph.order.iter().rev() {
            let own = match state.task(*task).phase {
                Phase::Waiting | Phase::Delayed(_) => {
                    waiting += 1;
                    let placed = &self.plan.placed[task.index()];
                    let planned = expect::planned(self.mode(*task), self.fleet, placed.node, &placed.devices);
                    self.expect.duration(self.stage_and_mode(*task), planned)
                }
                Phase::Running => {
                    let left = self.left(*task, now);
                    let differs = self.differs(*task, state, now, left);
                    worst = worst.max(Some((differs, *task)).filter(|_| differs > EVERY.0));
                    left
                }
                Phase::Succeeded | Phase::Cached | Phase::Failed | Phase::Skipped => continue,
            };
            let behind = self.graph.after.of(*task).iter().map(|edge| tail[edge.task.index()]).max().unwrap_or(0);
            tail[task.index()] = behind.saturating_add(own.0);
            path = path.max(tail[task.index()]);
            work = work.saturating_add(own.0);
        }
        let shared = u128::from(work) * 1_000 / u128::from(self.watch.parallel);
        let time = Millis(path.max(u64::try_from(shared).unwrap_or(u64::MAX)));
        Forecast { time, waiting, task: worst.map(|(_, task)| task) }
    }

    /// Returns how much longer a running task takes.
    fn left(&self, task: TaskId, now: Millis) -> Millis {
        self.ledger.grant(task).map_or(Millis::ZERO, |grant| self.expected_end(task, grant, now) - now)
    }

    /// Returns by how much a running task differs from its plan that has so much `left`, in milliseconds.
    pub(super) fn differs(&self, task: TaskId, state: &RunState, now: Millis, left: Millis) -> u64 {
        let open = [Role::Main, Role::Backup].into_iter().find_map(|role| state.task(task).open_as(role));
        let ran = open.map_or(Millis::ZERO, |attempt| attempt.ran(now));
        let planned = self.ledger.grant(task).map_or(Millis::ZERO, |grant| self.planned(task, grant));
        (ran + left).0.abs_diff(planned.0)
    }

    /// Puts down what is left, to be planned.
    fn rest(&self, state: &RunState, now: Millis) -> Rest {
        let left = |task: TaskId| match state.task(task).phase {
            Phase::Succeeded | Phase::Cached | Phase::Failed | Phase::Skipped => Left::Nothing,
            Phase::Waiting | Phase::Delayed(_) => {
                let (rank, tried) = (self.plan.rank[task.index()], !state.task(task).attempts.is_empty());
                Left::Waiting { rank, mode: tried.then_some(self.plan.placed[task.index()].mode) }
            }
            Phase::Running => {
                let grant = self.ledger.grant(task);
                grant.map_or(Left::Nothing, |grant| Left::Running {
                    mode: self.plan.placed[task.index()].mode,
                    node: grant.node,
                    devices: grant.devices.clone(),
                    left: self.left(task, now),
                })
            }
        };
        let tasks = self.graph.ids().map(left).collect();
        let unfit = self.watch.unfit.iter().copied().collect();
        let placed = self.plan.placed.iter().filter(|_| self.plan.objective != Objective::Makespan);
        let intended = placed.map(|placed| (placed.mode, placed.devices.clone())).collect();
        Rest { tasks, factors: self.expect.factors(), unfit, expected: Millis::ZERO, intended }
    }
}
