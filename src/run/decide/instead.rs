//! `gpus = "prefer"` while a run goes on: who cannot have a GPU now takes the CPU where it is done sooner there than after
//! waiting.
//!
//! At once where every GPU that could hold it is lost, in quarantine or drained, and after a while where others keep it
//! waiting, whose end nobody knows, or turn it away, or a driver does not answer. Where our own tasks do, the expected times
//! decide, once it was seen how long the stage takes on the CPU: what it declares is for devices. Who has started on the CPU
//! stays there.

use super::Dispatcher;
use super::backfill::{KEPT_BY_OTHERS, Line};
use crate::fleet::Device;
use crate::graph::TaskId;
use crate::run::admission::Readings;
use crate::run::event::Place;
use crate::run::raise::{Raise, Step};
use crate::run::state::{Phase, RunState, TaskState};
use crate::spec::{Duration, Mode, Resources};
use crate::timing::Load;
use crate::units::Millis;

/// By when a task has to be done on the CPU, or on a smaller GPU, to be sooner than with what it asks for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Until {
    /// Whenever: nobody can say when there is a GPU for it.
    Whenever,
    /// Before this.
    Before(Millis),
}

impl<'a> Dispatcher<'a> {
    /// Returns how a task runs on the CPU that would rather have a GPU, and which of its stage's modes that is.
    pub(super) fn instead(&self, task: TaskId) -> Option<(usize, &'a Mode)> {
        let (stage, mode) = self.stage_and_mode(task);
        let instead = self.pipeline.stages[stage].modes.get(mode + 1)?;
        instead.fallback.then_some((mode + 1, instead))
    }

    /// Returns what a task asks for that takes the CPU.
    fn asked_instead(&self, instead: &Mode, raise: Option<Raise>) -> Resources {
        let asked = raise.map_or_else(|| instead.resources.clone(), |raise| raise.request(&instead.resources));
        self.as_held(asked)
    }

    /// Whether a task has room with something else than what its queue asks for.
    pub(super) fn has_other_room(&self, task: TaskId, state: &TaskState, readings: &Readings, now: Millis) -> bool {
        let on_cpu = self.instead(task).map(|(_, instead)| self.asked_instead(instead, state.raise));
        let mut others = self.all_of_smaller(task).into_iter().chain(on_cpu);
        others.any(|request| self.ledger.could_admit(&request, readings, now).is_ok())
    }

    /// Takes in what a task asks for that ran out of memory. Where that is the CPU, as no device was large enough, those like it
    /// that wait and were to have all of one take the CPU as well: returns them.
    pub(super) fn leave_devices(&mut self, like: TaskId, raise: Raise, state: &RunState) -> Vec<TaskId> {
        let (of, asks_for_all) = (self.stage_and_mode(like), self.asked(like).wants_all_memory());
        // A run that goes on may have found a larger one.
        let is_larger = |device: &Device| device.whole_memory() >= raise.gpu_memory;
        let is_too_large = raise.step == Step::OnCpu && !self.fleet.devices.iter().any(is_larger);
        let is_auto = self.mode(like).auto.is_some() && asks_for_all;
        let Some((mode, _)) = self.instead(like).filter(|_| is_too_large && is_auto) else { return Vec::new() };
        let waits = |task: &TaskId| {
            let state = state.task(*task);
            matches!(state.phase, Phase::Waiting | Phase::Delayed(_)) && state.raise.is_none()
        };
        let alike = self.graph.ids().filter(|task| *task != like && self.stage_and_mode(*task) == of);
        let alike: Vec<_> = alike.filter(waits).collect();
        let plan = self.plan.to_mut();
        for task in &alike {
            let placed = &mut plan.placed[task.index()];
            (placed.mode, placed.devices) = (mode, Vec::new());
        }
        self.helped.extend(&alike);
        alike
    }

    /// Takes in by the record of a task that no device was large enough for it.
    pub(super) fn leave_devices_by_record(&mut self, task: TaskId, state: &RunState) {
        let of = state.task(task);
        let raises = of.attempts.iter().map(|attempt| attempt.raise).chain([of.raise]);
        for raise in raises.flatten() {
            self.leave_devices(task, raise, state);
        }
    }

    /// Reserves a place on the CPU for a task that would rather have a GPU and was refused one.
    pub(super) fn admit_instead(
        &mut self,
        (task, queue): (TaskId, u32),
        state: &RunState,
        line: &mut Line,
        (now, readings): (Millis, &Readings),
    ) -> Option<Place> {
        let (index, instead) = self.instead(task)?;
        let (stage, _) = self.stage_and_mode(task);
        let as_well = self.all_of_smaller(task);
        let until = self.until_a_gpu_is_sooner((task, queue), state.task(task), as_well, readings, now);
        let raise = state.task(task).raise;
        let request = self.asked_instead(instead, raise);
        // Both have what the stage declares, and each what earlier runs have seen of it.
        let is_seen = instead.duration != self.mode(task).duration && instead.duration != Duration::default();
        let (of, expect, nodes) = ((stage, index), &self.expect, &self.fleet.nodes);
        let is_seen = is_seen || expect.is_learned(of);
        let admitted = self.ledger.try_admit_where((task, &request), None, readings, now, &mut |grant| {
            let planned = Load::on_node(&instead.duration, &nodes[grant.node.index()]).time;
            let end = now + expect.duration(of, planned);
            let is_sooner = match until {
                Until::Whenever => true,
                Until::Before(gpu) => is_seen && end < gpu,
            };
            is_sooner && line.lets_pass((task, &request), grant, end)
        });
        let grant = admitted.ok()?;
        let placed = &mut self.plan.to_mut().placed[task.index()];
        (placed.mode, placed.node, placed.devices) = (index, grant.node, Vec::new());
        self.choose_queue(task, raise);
        Some(self.place(task, &request, &grant))
    }

    /// Returns by when a task has to be done with something else than what its queue asks for, or what does `as_well`, to be
    /// done sooner.
    pub(super) fn until_a_gpu_is_sooner(
        &mut self,
        (task, queue): (TaskId, u32),
        state: &TaskState,
        as_well: Option<Resources>,
        readings: &Readings,
        now: Millis,
    ) -> Until {
        let requests = std::iter::once(self.queues.at(queue).request()).chain(&as_well);
        let possible: Vec<_> = requests.filter(|request| self.ledger.possible(request).is_ok()).collect();
        if possible.is_empty() {
            return Until::Whenever;
        }
        let earliest = possible.into_iter().filter_map(|request| self.earliest(request, readings, now));
        let turned_away = state.turned_away_since();
        let kept = (queue, turned_away.map(|_| task));
        match earliest.min_by_key(|(at, ..)| *at) {
            Some((at, grant, _)) if at > now => {
                // Who was not let in waits for those of ours that may not be let in either.
                if turned_away.is_none() {
                    self.others_keep.remove(&kept);
                }
                let planned = self.planned(task, &grant);
                Until::Before(at + self.expect.duration(self.stage_and_mode(task), planned))
            }
            // By all that we know of our own tasks there is room, or never will be.
            Some(_) | None => {
                // It may have waited for our own tasks before.
                let refused = self.queues.at(queue).refused().map_or(now, |refused| refused.since);
                // Attempts that were not let in do not make it wait anew.
                let refused = turned_away.map_or(refused, |since| since.min(refused));
                let since = refused.max(*self.others_keep.entry(kept).or_insert(now));
                if now > since + KEPT_BY_OTHERS { Until::Whenever } else { Until::Before(now) }
            }
        }
    }
}
