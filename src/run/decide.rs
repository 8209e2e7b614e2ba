//! What happens next in a run: which tasks start, are tried again, fail for good or are skipped, and when it is over.
//!
//! Pure: a function of the recorded state, the plan and `now`. A dispatcher made from a replayed record goes on
//! exactly where the one that wrote the record stopped.
//!
//! The plan gives an order and intended devices. A ready task is started as soon as the ledger grants what it needs, a
//! task of higher rank first. What does not fit now holds up what does only where that would make it later.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};

use super::admission::{Denied, Grant, Ledger, Readings};
use super::event::{Event, Place, Recorded, Role};
use super::expect::{self, Expect};
use super::found::Found;
use super::learn;
use super::outcome::Outcome;
use super::raise::{Raise, Step};
use super::state::{Phase, Revised, RunState};
use crate::fleet::{DeviceId, Fleet};
use crate::graph::{TaskGraph, TaskId};
use crate::plan::Plan;
use crate::spec::{Mode, Pipeline, Resources};
use crate::units::{Bytes, Millis};
use backfill::Line;
use beside::Races;
use pause::Pause;
use queues::{Queues, Turn};
use replan::Watch;
use sharing::Sharing;
use turns::Turns;
use waiting::Why;

mod backfill;
mod beside;
mod busy;
mod devices;
mod end;
mod instead;
mod judge;
mod lookups;
mod pause;
mod queues;
mod replan;
mod sharing;
mod smaller;
#[cfg(test)]
mod tests;
mod turns;
mod waiting;

pub use sharing::{Places, overlap};
pub use waiting::{At, Reason, Waiting};

/// How a run is to be carried out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// At most so many tasks at once; `None` leaves it to the resources.
    pub jobs: Option<usize>,
    /// Whether what does not depend on a failed task goes on.
    pub keep_going: bool,
    /// Whether an MPS server runs that limits memory.
    pub mps: bool,
    /// For the jitter of retries.
    pub seed: u64,
    /// How long a turn lasts where tasks that may be suspended take turns at a device; `None` where they do not.
    pub quantum: Option<Millis>,
}

/// Decides what happens next.
#[derive(Debug)]
pub struct Dispatcher<'a> {
    pipeline: &'a Pipeline,
    graph: &'a TaskGraph,
    fleet: &'a Fleet,
    plan: Cow<'a, Plan>,
    options: Options,
    ledger: Ledger,
    /// `[n_tasks]`, by TaskId: predecessors that have not succeeded.
    blockers: Vec<u32>,
    /// Ready tasks, and what all tasks ask for.
    queues: Queues,
    /// Since when as many tasks run as may, though others are ready.
    jobs_taken: Option<Millis>,
    /// What stages were measured to need in this run.
    found: Found,
    /// How long tasks take.
    expect: Expect,
    /// When tasks that were first in line were promised to start.
    promised: HashMap<TaskId, Millis>,
    /// Since when others, not our own tasks, have kept a queue waiting whose tasks could also run elsewhere, by the expected ends
    /// of our own. A task that a device turned away has an entry of its own: the rest of its queue does not inherit its wait.
    others_keep: HashMap<(u32, Option<TaskId>), Millis>,
    /// The task that room was kept for when it was last decided what starts, and from when on.
    kept: Option<(TaskId, Millis)>,
    /// Whether the plan still holds.
    watch: Watch,
    /// Tasks that ask for what it taught that they ran out of memory, or others for which no device was large enough.
    helped: HashSet<TaskId>,
    /// Tasks that wait for their next attempt.
    delayed: BTreeSet<(Millis, TaskId)>,
    /// How often tasks were not let in.
    refusals: HashMap<TaskId, u32>,
    /// Tasks that were not let in, and by which devices, until their next attempt is planned.
    turned_away: HashMap<TaskId, Vec<DeviceId>>,
    /// Tasks whose last attempt failed and whose fate is open.
    failed: Vec<TaskId>,
    /// Attempts that were adopted, and the device of theirs that was lost meanwhile: the fleet is without it.
    stranded: Vec<(TaskId, Role, String)>,
    /// Running tasks that a second attempt may be started of.
    races: Races,
    /// Why nothing new is started for the time being.
    pause: Pause,
    /// `[n_tasks]`, by TaskId: whether it is still to be looked whether the task is up to date. Empty for no task.
    unseen: Vec<bool>,
    /// Tasks that nothing else keeps from being looked up.
    lookups: Vec<TaskId>,
    /// What other runs write.
    sharing: Sharing,
    /// Devices whose driver was seen to hide who holds their memory.
    hidden: HashSet<DeviceId>,
    /// Which tasks are suspended.
    turns: Turns,
}

impl<'a> Dispatcher<'a> {
    /// Makes a dispatcher that goes on from a state. What attempts hold that run in it, is entered into the ledger.
    /// `unseen` (`[n_tasks]`, or empty) says of which tasks it is to be looked whether they are up to date, once all
    /// before them are done.
    #[must_use]
    pub fn new(
        (pipeline, graph): (&'a Pipeline, &'a TaskGraph),
        (fleet, plan): (&'a Fleet, &'a Plan),
        ledger: Ledger,
        options: Options,
        unseen: Vec<bool>,
        state: &RunState,
    ) -> Self {
        let mut dispatcher = Self {
            pipeline,
            graph,
            fleet,
            plan: Cow::Borrowed(plan),
            options,
            ledger,
            blockers: vec![0; graph.len()],
            queues: Queues::new(graph.len()),
            jobs_taken: None,
            found: Found::default(),
            expect: Expect::default(),
            promised: HashMap::new(),
            others_keep: HashMap::new(),
            kept: None,
            watch: Watch::new(pipeline, plan, fleet),
            helped: HashSet::new(),
            delayed: BTreeSet::new(),
            refusals: HashMap::new(),
            turned_away: HashMap::new(),
            failed: Vec::new(),
            stranded: Vec::new(),
            races: Races::default(),
            pause: Pause::default(),
            unseen,
            lookups: Vec::new(),
            sharing: Sharing::default(),
            hidden: (0..).map(DeviceId).zip(&fleet.devices).filter(|(_, of)| of.hidden).map(|(id, _)| id).collect(),
            turns: Turns::default(),
        };
        for task in graph.ids().filter(|task| state.task(*task).phase == Phase::Succeeded) {
            let ended = state.task(task).telling().and_then(|(_, attempt)| attempt.ended.as_ref());
            dispatcher.find(task, ended.and_then(|ended| ended.usage.peak_gpu_memory));
            dispatcher.learn_from_record(task, state.task(task));
        }
        if let Some(revised) = &state.revised {
            dispatcher.revise(revised);
        }
        dispatcher.learn_what_sufficed_before();
        graph.ids().for_each(|task| dispatcher.learn_what_was_too_little(task, state.task(task)));
        graph.ids().for_each(|task| dispatcher.leave_devices_by_record(task, state));
        graph.ids().for_each(|task| dispatcher.learn_what_sufficed_by_record(task, state.task(task)));
        for task in graph.ids() {
            dispatcher.choose_queue(task, state.task(task).raise);
            let open = graph.before.of(task).iter().filter(|edge| !state.task(edge.task).phase.is_done());
            dispatcher.blockers[task.index()] = u32::try_from(open.count()).expect("edges are counted in 32 bits");
            match state.task(task).phase {
                Phase::Delayed(_) if dispatcher.is_out_of_reach(task) => dispatcher.failed.push(task),
                // An interrupted attempt is no failure: the task waits for its turn like an untried one.
                Phase::Waiting if state.task(task).is_to_be_judged() => dispatcher.failed.push(task),
                Phase::Waiting => dispatcher.queue_if_unblocked(task),
                Phase::Delayed(until) => {
                    let last = state.task(task).telling().and_then(|(_, attempt)| attempt.ended.as_ref());
                    last.into_iter().for_each(|last| dispatcher.note_busy(task, &last.outcome, last.at));
                    dispatcher.wait_for_retry(task, until);
                }
                Phase::Running => dispatcher.enter(task, state.task(task)),
                Phase::Succeeded | Phase::Cached | Phase::Failed | Phase::Skipped => {}
            }
        }
        dispatcher
    }

    /// Takes in an event that has been applied to the state.
    pub fn take_in(&mut self, recorded: &Recorded) {
        match &recorded.event {
            Event::AttemptStarted { task, number, place } => {
                self.note_running(*task, place.role, *number);
                self.note_start(*task, place, recorded.at);
            }
            Event::AttemptFinished { task, role, outcome, usage, .. } => {
                self.learn_duration((*task, *role), outcome.is_success(), recorded.at);
                let (had, devices) =
                    self.ledger.grant(*task).cloned().map(|of| (of.gpu_memory, of.devices)).unwrap_or_default();
                self.ledger.release_as(*role, *task, recorded.at);
                self.note_ended(*task, *role);
                self.turns.forget(*task);
                self.need_not_start(*task, *role);
                self.note_end(*task, *role, outcome);
                self.note_busy(*task, outcome, recorded.at);
                if outcome.is_success() {
                    devices.iter().for_each(|device| self.ledger.lets_in(*device));
                    self.learn_what_sufficed(*task, &devices);
                    if self.find(*task, usage.peak_gpu_memory) {
                        self.choose_queues_again(*task);
                    }
                    self.unblock_what_needs(*task);
                } else {
                    self.failed.push(*task);
                    if let Outcome::OutOfMemory { device: Some(device) } = outcome
                        && self.learn_of_too_little(*task, device, (had, usage.peak_gpu_memory))
                    {
                        self.choose_queues_again(*task);
                    }
                }
            }
            Event::TaskSuspended { task } => self.note_suspended(*task, recorded.at),
            Event::TaskContinued { task } => self.note_continued(*task, recorded.at),
            Event::RetryPlanned { task, not_before, raise } => {
                if raise.is_some() {
                    self.choose_queue(*task, *raise);
                }
                self.wait_for_retry(*task, *not_before);
            }
            Event::TaskCached { task, .. } => {
                self.forget(*task);
                self.unblock_what_needs(*task);
            }
            Event::Replanned { order, moved, .. } => {
                let moved = moved.iter().map(|intent| (intent.task, intent.clone())).collect();
                self.revise(&Revised { order: order.clone(), moved });
            }
            Event::AttemptSpawned { task, role, .. } => self.need_not_start(*task, *role),
            Event::TaskFailed { .. }
            | Event::TaskSkipped { .. }
            | Event::TaskReopened { .. }
            | Event::StopRequested { .. }
            | Event::RunFinished { .. }
            | Event::FinishTold { .. }
            | Event::RunResumed { .. } => {}
        }
    }

    /// Takes in what an attempt was measured to hold; returns whether tasks like it ask for something else now.
    fn find(&mut self, task: TaskId, peak: Option<Bytes>) -> bool {
        self.found.take_in(self.stage_and_mode(task), self.mode(task), peak, self.fleet)
    }

    fn unblock_what_needs(&mut self, done: TaskId) {
        let graph = self.graph;
        for edge in graph.after.of(done) {
            self.blockers[edge.task.index()] -= 1;
            self.queue_if_unblocked(edge.task);
        }
    }

    /// Remembers in which queue a task waits: that of what its stage asks for, or of what it asks for since it ran out
    /// of memory.
    fn choose_queue(&mut self, task: TaskId, raise: Option<Raise>) {
        let is_for_cpu = raise.is_some_and(|raise| raise.step == Step::OnCpu);
        if let Some((mode, _)) = self.instead(task).filter(|_| is_for_cpu) {
            let placed = &mut self.plan.to_mut().placed[task.index()];
            (placed.mode, placed.devices) = (mode, Vec::new());
        }
        let request = self.asked(task);
        let request = match raise {
            Some(raise) => raise.request(request),
            None => request.clone(),
        };
        let request = self.as_held(request);
        if raise.is_some() {
            self.helped.insert(task);
        }
        let instead = self.instead(task).map(|(mode, _)| (self.graph.tasks[task.index()].stage, mode));
        let may_do_with_else = instead.is_some() || self.mode(task).auto.is_some();
        self.queues.choose(task, (request, instead), may_do_with_else, &self.ledger);
    }

    fn queue_if_unblocked(&mut self, task: TaskId) {
        if self.blockers[task.index()] == 0 {
            if let Some(unseen @ true) = self.unseen.get_mut(task.index()) {
                *unseen = false;
                self.lookups.push(task);
                return;
            }
            if self.is_out_of_reach(task) {
                return self.failed.push(task);
            }
            self.queues.insert(self.turn(task));
        }
    }

    /// As planned: the plan has weighed priorities where that was its aim. A task that was not let in again and again goes last.
    fn turn(&self, task: TaskId) -> Turn {
        let often = self.turned_away_often(task);
        (often.map_or(self.plan.rank[task.index()], |times| u32::MAX / 2 + times), task)
    }

    /// Returns when a retry or a second attempt is due, if one is waited for that may be started then, or a turn ends.
    #[must_use]
    pub fn next_due(&self, state: &RunState) -> Option<Millis> {
        let retry = self.delayed.first().map(|(due, _)| *due);
        let beside = self.races.next_due().filter(|_| !self.pause.is_on());
        let starts = retry.into_iter().chain(beside).min().filter(|_| state.stopping.is_none());
        starts.into_iter().chain(self.turns.next_due()).min()
    }

    /// Returns the ledger, to show what is promised and why something waits.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Decides everything that can be decided now. What is decided counts as done: the ledger holds what the started
    /// tasks need until [`Dispatcher::take_in`] hears of their end.
    pub fn decide(&mut self, state: &RunState, now: Millis, readings: &Readings) -> Vec<Event> {
        let mut events = Vec::new();
        self.judge_failures(state, now, readings, &mut events);
        let stopping =
            state.stopping.is_some() || events.iter().any(|event| matches!(event, Event::StopRequested { .. }));
        if !stopping {
            self.wake_delayed(now);
            if !self.pause.is_on() {
                let left = self.start_ready(state, now, readings, &mut events);
                self.start_beside(left, state, now, readings, &mut events);
            }
        }
        self.take_turns(state, now, &mut events);
        self.finish(state, &mut events);
        events
    }

    fn wake_delayed(&mut self, now: Millis) {
        while let Some((due, task)) = self.delayed.first().copied().filter(|(due, _)| *due <= now) {
            self.delayed.remove(&(due, task));
            self.queue_if_unblocked(task);
        }
    }

    /// Starts ready tasks, best first, until nothing more fits; returns how many more may run, and what has to wait.
    fn start_ready(
        &mut self,
        state: &RunState,
        now: Millis,
        readings: &Readings,
        events: &mut Vec<Event>,
    ) -> (usize, Line) {
        let mut free_jobs = self.options.jobs.unwrap_or(usize::MAX).saturating_sub(state.running);
        let mut line = Line::default();
        while free_jobs > 0 {
            let Some((turn @ (_, task), queue)) = self.first_untried(&mut line) else { break };
            if self.waits_for_other_run(task, now) {
                self.take_out(&mut line, queue, turn);
                continue;
            }
            if line.is_to_reserve() {
                self.reserve(&mut line, readings, now);
            }
            let admitted = self.admit(task, queue, &mut line, (now, readings)).or_else(|denied| match denied {
                Denied::Room(refusal) => {
                    let smaller = self.admit_on_smaller((task, queue), state, &mut line, (now, readings));
                    let instead =
                        smaller.or_else(|| self.admit_instead((task, queue), state, &mut line, (now, readings)));
                    instead.ok_or(Denied::Room(refusal))
                }
                Denied::Held => Err(Denied::Held),
            });
            match admitted {
                Ok(place) => {
                    self.promised.remove(&task);
                    self.take_out(&mut line, queue, turn);
                    let number = u32::try_from(state.task(task).attempts.len()).unwrap_or(u32::MAX - 1) + 1;
                    events.push(Event::AttemptStarted { task, number, place });
                    free_jobs -= 1;
                }
                Err(Denied::Room(_)) => {
                    line.refuse(queue, task, &self.queues);
                    self.note_refusal(queue, Why::Room, now);
                }
                Err(Denied::Held) => {
                    line.pass_over(queue, turn, &self.queues);
                    if let Some(first) = line.reservation() {
                        let why = Why::Held { by: first.task, at: first.at };
                        self.note_refusal(queue, why, now);
                    }
                }
            }
        }
        line.take_unasked().into_iter().for_each(|queue| self.note_refusal(queue, Why::Room, now));
        self.kept = line.reservation().map(|first| (first.task, first.at));
        self.jobs_taken = (free_jobs == 0).then(|| self.jobs_taken.unwrap_or(now));
        (free_jobs, line)
    }

    /// Reserves what a task of a queue asks for, on its intended devices if they have room, but not in the way of what
    /// comes first.
    fn admit(
        &mut self,
        task: TaskId,
        queue: u32,
        line: &mut Line,
        (now, readings): (Millis, &Readings),
    ) -> Result<Place, Denied> {
        let placed = &self.plan.placed[task.index()];
        let request = self.queues.at(queue).request();
        let (mode, of) = (self.mode(task), self.stage_and_mode(task));
        let takes = |grant: &Grant| {
            let planned = expect::planned(mode, self.fleet, grant.node, &grant.devices);
            self.expect.duration(of, planned)
        };
        let intended = Some((placed.node, placed.devices.as_slice()));
        let grant = self.ledger.try_admit_where((task, request), intended, readings, now, &mut |grant| {
            line.lets_pass((task, request), grant, now + takes(grant))
        })?;
        let place = self.place(task, request, &grant);
        self.queues.note(queue, None);
        Ok(place)
    }

    /// Returns where an attempt runs that was granted what it asked for.
    fn place(&self, task: TaskId, request: &Resources, grant: &Grant) -> Place {
        let devices = || grant.devices.iter().map(|device| &self.fleet.devices[device.index()]);
        let (stage, mode) = self.stage_and_mode(task);
        let (limit, hidden) = self.limit(task, grant);
        Place {
            role: Role::Main,
            mode,
            node: self.fleet.nodes[grant.node.index()].name.clone(),
            devices: devices().map(|device| device.id.clone()).collect(),
            uuids: devices().map(|device| device.uuid.clone()).collect::<Option<_>>().unwrap_or_default(),
            gpu_memory: grant.gpu_memory,
            memory: request.memory,
            cpus: request.cpus,
            share: request.gpus.share(),
            custom: request.custom.clone(),
            limit,
            hidden,
            model: devices().next().map(|device| device.model.clone()),
            definition: learn::definition(self.pipeline, &self.pipeline.stages[stage], self.mode(task)),
        }
    }

    /// Returns what a task asks for as long as it was not helped: what its stage says, or was measured to need.
    fn asked(&self, task: TaskId) -> &Resources {
        self.found.request(self.stage_and_mode(task)).unwrap_or(&self.mode(task).resources)
    }

    fn stage_and_mode(&self, task: TaskId) -> (usize, usize) {
        (self.graph.tasks[task.index()].stage, self.plan.placed[task.index()].mode)
    }

    fn mode(&self, task: TaskId) -> &'a Mode {
        let stage = &self.pipeline.stages[self.graph.tasks[task.index()].stage];
        &stage.modes[self.plan.placed[task.index()].mode]
    }
}
