//! What becomes of tasks whose last attempt failed: another try, or the end of them and of all that needs them.

use std::collections::BTreeSet;

use super::Dispatcher;
use crate::fleet::DeviceId;
use crate::graph::TaskId;
use crate::run::admission::{FRESH, Live, Readings, SETTLED};
use crate::run::event::{Event, Role, StopReason};
use crate::run::outcome::Outcome;
use crate::run::raise::{self, Raise, Step};
use crate::run::retry;
use crate::run::state::{Attempt, Phase, RunState, TaskState};
use crate::units::{Bytes, Millis};

impl Dispatcher<'_> {
    /// Plans a retry for each failed attempt, or lets the task fail with all that needs it.
    pub(super) fn judge_failures(
        &mut self,
        state: &RunState,
        now: Millis,
        readings: &Readings,
        events: &mut Vec<Event>,
    ) {
        let (mut skipped, mut judged) = (BTreeSet::new(), BTreeSet::new());
        for task in std::mem::take(&mut self.failed) {
            // While another attempt of it runs, nothing is lost yet; two that ended at once are judged as one.
            if !matches!(state.task(task).phase, Phase::Waiting | Phase::Delayed(_)) || !judged.insert(task) {
                continue;
            }
            let is_out_of_reach = state.stopping.is_none() && self.is_out_of_reach(task);
            let again = if is_out_of_reach {
                self.within_reach(task, state.task(task))
            } else {
                let Some(outcome) = state.task(task).last_outcome().filter(|last| **last != Outcome::Interrupted)
                else {
                    // An interrupted one is neither failed nor tried: it waits for its turn, or for the run to be resumed.
                    self.queue_if_unblocked(task);
                    continue;
                };
                if state.stopping.is_none() && self.is_to_be_looked_at(task, state, now, readings) {
                    self.failed.push(task);
                    continue;
                }
                self.another_try(task, outcome, state.task(task))
            };
            if let Some((wait, raise)) = again {
                if raise.is_some_and(|raise| self.learn_of_too_small(task, raise)) {
                    self.choose_queues_again(task);
                }
                for other in raise.map_or_else(Vec::new, |raise| self.leave_devices(task, raise, state)) {
                    self.choose_queue_again(other);
                }
                events.push(Event::RetryPlanned { task, not_before: now + wait, raise });
                continue;
            }
            let lacks = is_out_of_reach.then(|| self.lacks(task));
            events.push(Event::TaskFailed { task, lacks });
            self.skip_what_needs(task, state, &mut skipped, events);
            let told = events.iter().any(|event| matches!(event, Event::StopRequested { .. }));
            // That a device has gone is no failure of the run's: who does not need it goes on.
            if !self.options.keep_going && state.stopping.is_none() && !told && !is_out_of_reach {
                events.push(Event::StopRequested { reason: StopReason::TaskFailed });
            }
        }
    }

    /// Whether a task ran out of memory on a device that is looked at, and was not since, or does not tell yet whether a
    /// stranger was there: one may have come in the last moment.
    pub(super) fn is_to_be_looked_at(&self, task: TaskId, state: &RunState, now: Millis, readings: &Readings) -> bool {
        let Some((_, last)) = state.task(task).last_as(Role::Main) else { return false };
        let Some((at, Outcome::OutOfMemory { device: Some(id) })) =
            last.ended.as_ref().map(|ended| (ended.at, &ended.outcome))
        else {
            return false;
        };
        let mut devices = (0..).map(DeviceId).zip(&self.fleet.devices);
        let Some(device) = devices.find(|(_, device)| device.id == *id).map(|(device, _)| device) else {
            return false;
        };
        if !matches!(readings.devices.get(device.index()), Some(Live::Seen(_))) {
            return false;
        }
        if readings.at <= at {
            // Who does not answer is not waited for.
            return now <= at + FRESH + readings.took + readings.took;
        }
        let is_open = raise::had_all(self.asked(task), last) && self.ledger.is_crowded(device).is_none();
        is_open && now <= at + SETTLED + FRESH
    }

    /// Returns how long to wait before a failed task is tried again, and what it asks for then; `None` where it has
    /// failed for good.
    fn another_try(&self, task: TaskId, outcome: &Outcome, state: &TaskState) -> Option<(Millis, Option<Raise>)> {
        let rule = &self.pipeline.stages[self.graph.tasks[task.index()].stage].retry;
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let attempts: &[_] = &state.counted();
        let ran_out = raise::ran_out(attempts);
        if matches!(outcome, Outcome::OutOfMemory { .. }) {
            let stage = self.asked(task);
            let raise = raise::next(stage, attempts, rule.oom_retries, self.fleet, &self.ledger);
            match raise.or_else(|| self.on_cpu(task, attempts)) {
                Some(raise) => {
                    return Some((retry::wait(count(ran_out), rule, self.options.seed, task), Some(raise)));
                }
                None if !retry::wants_another_without_more_memory(rule) => return None,
                None => {}
            }
        }
        if matches!(outcome, Outcome::Displaced { .. }) {
            let busy: Vec<&str> = outcome.busy().collect();
            let times = if busy.is_empty() { state.displacements() } else { state.turned_away_by(&busy) };
            return Some((retry::wait(count(times), rule, self.options.seed, task), None));
        }
        // What was answered with more memory is not counted again.
        let answered = raise::answered(attempts, state.raise).min(ran_out);
        let others = count(state.failures() - if rule.on.is_empty() { ran_out } else { answered });
        let wait = retry::wait_before_next(outcome, others, rule, self.options.seed, task)?;
        Some((wait, None))
    }

    /// Takes in that a task ran out of a device's memory, of which it had so much and was seen to hold so much; returns whether
    /// others of its stage ask for something else now.
    pub(super) fn learn_of_too_little(
        &mut self,
        task: TaskId,
        device: &str,
        (had, peak): (Bytes, Option<Bytes>),
    ) -> bool {
        let (of, mode) = (self.stage_and_mode(task), self.mode(task));
        let device = (0..).map(DeviceId).zip(&self.fleet.devices).find(|(_, of)| of.id == device);
        let kept_to_it = peak.unwrap_or_default() < had;
        let was_taken = device.is_some_and(|(device, _)| kept_to_it && !self.ledger.could_keep(device, had));
        let is_unknown = self.found.run_out(of);
        let most = had.max(peak.unwrap_or_default());
        is_unknown || (had > Bytes::ZERO && !was_taken && self.found.too_little(of, mode, most, self.fleet))
    }

    /// Takes in what a task asks for that ran out of memory; returns whether others of its stage do so now, too: a larger
    /// device.
    fn learn_of_too_small(&mut self, task: TaskId, raise: Raise) -> bool {
        let (of, mode) = (self.stage_and_mode(task), self.mode(task));
        raise.step == Step::Larger && self.found.too_small(of, mode, raise.gpu_memory)
    }

    /// Lets the tasks that are like one, and wait unhelped, ask for what is known now.
    pub(super) fn choose_queues_again(&mut self, like: TaskId) {
        let of = self.stage_and_mode(like);
        let is_alike = |task: &TaskId| self.stage_and_mode(*task) == of && !self.helped.contains(task);
        let alike: Vec<_> = self.graph.ids().filter(is_alike).collect();
        alike.into_iter().for_each(|task| self.choose_queue_again(task));
    }

    /// Lets a task ask for what is known now.
    fn choose_queue_again(&mut self, task: TaskId) {
        let turn = self.turn(task);
        let waited = self.queues.remove(turn);
        self.choose_queue(task, None);
        if waited {
            self.queues.insert(turn);
        }
    }

    /// Takes in by the record of a task what was too little for it, where what it had was not said to be enough.
    pub(super) fn learn_what_was_too_little(&mut self, task: TaskId, state: &TaskState) {
        let following = state.attempts.iter().skip(1).map(|attempt| attempt.raise).chain([state.raise]);
        for raise in following.clone().flatten() {
            self.learn_of_too_small(task, raise);
        }
        for (attempt, raise) in state.attempts.iter().zip(following) {
            let Some(ended) = &attempt.ended else { continue };
            let is_again = raise.is_some_and(|raise| raise.step == Step::Again);
            let had = attempt.place.gpu_memory;
            let has_run_out = matches!(ended.outcome, Outcome::OutOfMemory { device: Some(_) }) && had > Bytes::ZERO;
            if has_run_out && !is_again {
                let most = had.max(ended.usage.peak_gpu_memory.unwrap_or_default());
                self.found.too_little(self.stage_and_mode(task), self.mode(task), most, self.fleet);
            }
        }
    }

    /// Whether a task asks for more than this fleet could ever give, and not for the CPU instead: the run went on where a
    /// device that could is lost, or hidden.
    pub(super) fn is_out_of_reach(&self, task: TaskId) -> bool {
        let can_be_instead =
            || self.instead(task).is_some_and(|(_, mode)| self.ledger.is_within_reach(&mode.resources));
        !self.queues.is_within_reach(task) && !can_be_instead()
    }

    /// Says what every place lacks for such a task.
    fn lacks(&self, task: TaskId) -> String {
        let request = self.queues.of(task).request();
        self.ledger.reach(request).map_or_else(|refusal| refusal.explain(self.fleet), |()| String::new())
    }

    /// Returns what such a task asks for instead since it ran out of memory; `None` where nothing would help.
    fn within_reach(&self, task: TaskId, state: &TaskState) -> Option<(Millis, Option<Raise>)> {
        let rule = &self.pipeline.stages[self.graph.tasks[task.index()].stage].retry;
        let attempts: &[_] = &state.counted();
        let raise = raise::anew(self.asked(task), attempts, rule.oom_retries, self.fleet, &self.ledger);
        let raise = raise.or_else(|| self.on_cpu(task, attempts))?;
        let ran_out = u32::try_from(raise::ran_out(attempts)).unwrap_or(u32::MAX);
        Some((retry::wait(ran_out, rule, self.options.seed, task), Some(raise)))
    }

    /// Returns what a task asks for that no device is large enough for, if it may have the CPU instead.
    fn on_cpu(&self, task: TaskId, attempts: &[Attempt]) -> Option<Raise> {
        let rule = &self.pipeline.stages[self.graph.tasks[task.index()].stage].retry;
        let (_, mode) = self.instead(task)?;
        let raise = raise::on_cpu(self.asked(task), attempts, rule.oom_retries, self.fleet)?;
        self.ledger.is_within_reach(&raise.request(&mode.resources)).then_some(raise)
    }

    fn skip_what_needs(
        &self,
        failed: TaskId,
        state: &RunState,
        skipped: &mut BTreeSet<TaskId>,
        events: &mut Vec<Event>,
    ) {
        let mut open = vec![failed];
        while let Some(task) = open.pop() {
            for edge in self.graph.after.of(task) {
                if !state.task(edge.task).phase.is_final() && skipped.insert(edge.task) {
                    events.push(Event::TaskSkipped { task: edge.task, because: Some(failed) });
                    open.push(edge.task);
                }
            }
        }
    }
}
