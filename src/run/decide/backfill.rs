//! Backfilling: what comes first and has no room yet is promised a time, and what would make it later has to wait.
//!
//! The first task that is refused gets a reservation: the earliest instant at which, by the expected ends of what runs,
//! there will be room for it. Another task may start before it only if it is expected to have ended by then, or if there
//! is room for both. A promise never moves to a later time: where tasks run longer than expected, nothing passes any
//! more that is in the way, so that a wide task starts as soon as what ran when it was promised a time has ended.
//! Source: EASY, Lifka, "The ANL/IBM SP scheduling system", 1995; the promise that holds is ours.

use std::collections::{BTreeSet, HashMap};

use super::Dispatcher;
use super::queues::{Queues, Refusals, Turn};
use super::waiting::{Refused, Why};
use crate::fleet::{DeviceId, NodeId};
use crate::graph::TaskId;
use crate::run::admission::{Grant, Outlook, Readings, is_other};
use crate::run::event::{Place, Role};
use crate::run::expect;
use crate::run::state::TaskState;
use crate::spec::Resources;
use crate::units::Millis;

/// A task that could start by all that we know of our own tasks and is refused for so long is kept waiting by others:
/// nothing is held for it any more. Others' memory is believed to be gone a few seconds after it was given back.
pub(super) const KEPT_BY_OTHERS: Millis = Millis(30_000);

/// Tasks of one queue that are tried in one pass where what comes first lets none pass.
const TRIED: u32 = 32;

/// What the first blocked task was promised.
#[derive(Debug)]
pub(super) struct Reservation {
    pub(super) task: TaskId,
    pub(super) at: Millis,
    /// What will be at that time, the task included.
    outlook: Outlook,
}

/// The queues in one pass: who was refused, and what is held for the first of them.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// The last of the queues' first tasks that was tried.
    last: Option<(Turn, u32)>,
    /// How many tasks were passed over in a queue, of those in which any was.
    passed: HashMap<u32, u32>,
    /// Who is next in those.
    next: BTreeSet<(Turn, u32)>,
    /// What there is no room for.
    refusals: Refusals,
    /// Queues that were refused unasked, and were not the last time.
    unasked: Vec<u32>,
    /// The first task that was refused, and its queue.
    first: Option<(TaskId, u32)>,
    /// What is held for it, once somebody wants to pass; nothing where its room does not depend on our tasks.
    reservation: Option<Option<Reservation>>,
}

impl Line {
    /// Notes that there is no room for what a queue asks for.
    pub(super) fn refuse(&mut self, queue: u32, task: TaskId, queues: &Queues) {
        self.refusals.add(queue, queues);
        self.first.get_or_insert((task, queue));
    }

    /// Notes that a task would have been in the way of what comes first; a shorter one behind it may not be.
    pub(super) fn pass_over(&mut self, queue: u32, turn: Turn, queues: &Queues) {
        let passed = self.passed.entry(queue).or_default();
        *passed += 1;
        if *passed < TRIED {
            self.go_on(queue, turn, queues);
        }
    }

    /// Returns the queues that were refused unasked, and were not the last time.
    pub(super) fn take_unasked(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.unasked)
    }

    /// Goes on behind a task of a queue of which one was passed over: its first one is not tried again.
    fn go_on(&mut self, queue: u32, turn: Turn, queues: &Queues) {
        self.next.extend(queues.next(queue, turn).map(|next| (next, queue)));
    }

    /// Whether somebody wants to pass and nothing is held yet for the first in line.
    pub(super) const fn is_to_reserve(&self) -> bool {
        self.first.is_some() && self.reservation.is_none()
    }

    /// Returns what is held for the first in line.
    pub(super) fn reservation(&self) -> Option<&Reservation> {
        self.reservation.as_ref()?.as_ref()
    }

    /// Whether a task may start in a place, where it will have ended at `end`, although another one may come first.
    pub(super) fn lets_pass(&mut self, (task, request): (TaskId, &Resources), grant: &Grant, end: Millis) -> bool {
        let Some(Some(first)) = &mut self.reservation else { return true };
        if end <= first.at {
            return true;
        }
        let room = first.outlook.has_room(request, grant);
        if room {
            first.outlook.hold(task, request, grant);
        }
        room
    }
}

impl Dispatcher<'_> {
    /// Returns the first task that was not tried yet, and its queue. Once room is held for the first in line, those are passed
    /// over that are refused for certain.
    pub(super) fn first_untried(&self, line: &mut Line) -> Option<(Turn, u32)> {
        let Line { last, next, refusals, unasked, reservation, .. } = line;
        let may_pass_over = reservation.is_some() && !self.anybody_writes();
        let behind = next.first().copied();
        let is_before = |head: &(Turn, u32)| behind.is_none_or(|behind| *head < behind);
        let head = self.queues.heads_after(*last).take_while(is_before).find(|head @ (_, index)| {
            *last = Some(*head);
            let queue = self.queues.at(*index);
            let is_refused = may_pass_over
                && !queue.may_do_with_else()
                && refusals.include(queue.request(), &self.queues, &self.ledger);
            if is_refused && !matches!(queue.refused(), Some(Refused { why: Why::Room, .. })) {
                unasked.push(*index);
            }
            !is_refused
        });
        head.or_else(|| next.pop_first())
    }

    /// Takes a task out of the queue in which it was tried.
    pub(super) fn take_out(&mut self, line: &mut Line, queue: u32, turn: Turn) {
        self.queues.remove_from(queue, turn);
        line.refusals.forget();
        if line.passed.contains_key(&queue) {
            line.go_on(queue, turn, &self.queues);
        }
    }

    /// Takes in how far a running task says it is, 0 to 1.
    pub fn progressed(&mut self, task: TaskId, part: f64, now: Millis) {
        self.expect.progressed(task, part, now);
    }

    /// Takes in how an attempt ended, before it gives back what it holds.
    pub(super) fn learn_duration(&mut self, (task, role): (TaskId, Role), success: bool, at: Millis) {
        // Times are kept of the first of two attempts only.
        if role == Role::Backup {
            return;
        }
        let planned = self.ledger.grant(task).map(|grant| self.planned(task, grant));
        self.expect.ended(task, self.stage_and_mode(task), at, planned, success);
    }

    /// Takes in how long the last attempt took of a task that succeeded before this dispatcher was made.
    pub(super) fn learn_from_record(&mut self, task: TaskId, state: &TaskState) {
        let last = state.telling().and_then(|(_, attempt)| Some((attempt, attempt.ended.as_ref()?)));
        let Some((attempt, ended)) = last else { return };
        let stage = self.graph.tasks[task.index()].stage;
        let mode = self.pipeline.stages[stage].modes.get(attempt.place.mode);
        if let Some((mode, (node, devices))) = mode.zip(self.found_again(&attempt.place)) {
            let planned = expect::planned(mode, self.fleet, node, &devices);
            self.expect.learn((stage, attempt.place.mode), attempt.ran(ended.at), planned);
        }
    }

    /// Returns the node and those of the devices that a recorded place names; `None` of a node that is gone.
    pub(super) fn found_again(&self, place: &Place) -> Option<(NodeId, Vec<DeviceId>)> {
        let (node, _) = (0..).map(NodeId).zip(&self.fleet.nodes).find(|(_, node)| node.name == place.node)?;
        let devices = (0..).map(DeviceId).zip(&self.fleet.devices);
        let devices = devices.filter(|(_, device)| place.has(device)).map(|(id, _)| id);
        Some((node, devices.collect()))
    }

    /// Returns how long a task is planned to take where it runs.
    pub(super) fn planned(&self, task: TaskId, grant: &Grant) -> Millis {
        expect::planned(self.mode(task), self.fleet, grant.node, &grant.devices)
    }

    /// Returns when a running task is expected to end.
    pub(super) fn expected_end(&self, task: TaskId, grant: &Grant, now: Millis) -> Millis {
        self.expect.end(task, self.stage_and_mode(task), self.planned(task, grant), now)
    }

    /// Promises a time to the first in line, unless its room does not depend on our tasks.
    pub(super) fn reserve(&mut self, line: &mut Line, readings: &Readings, now: Millis) {
        line.reservation = line.first.map(|(task, queue)| self.promise(task, queue, readings, now));
    }

    fn promise(&mut self, task: TaskId, queue: u32, readings: &Readings, now: Millis) -> Option<Reservation> {
        let request = self.queues.at(queue).request();
        let (at, grant, mut outlook) = self.earliest(request, readings, now)?;
        let promised = self.promised.entry(task).or_insert(at);
        if at == now && now > *promised + KEPT_BY_OTHERS {
            return None;
        }
        *promised = at.min(*promised);
        outlook.hold(task, request, &grant);
        Some(Reservation { task, at: *promised, outlook })
    }

    /// Returns when and where there will be room for a request by the expected ends of what runs, and what else will be
    /// then; `None` where its room does not depend on our tasks.
    pub(super) fn earliest(
        &self,
        request: &Resources,
        readings: &Readings,
        now: Millis,
    ) -> Option<(Millis, Grant, Outlook)> {
        // When a task of another run ends is not known: what it holds counts as held for good.
        let grants = self.ledger.grants().filter(|((running, _), _)| !is_other(*running));
        let mut ends: Vec<_> =
            grants.map(|(running, grant)| (self.expected_end(running.0, grant, now), running)).collect();
        ends.sort_unstable();
        let mut outlook = self.ledger.outlook(readings, now);
        let (mut at, mut ends) = (now, ends.into_iter());
        loop {
            if let Some(grant) = outlook.place(request) {
                return Some((at, grant, outlook));
            }
            let (end, ending) = ends.next()?;
            outlook.release(ending);
            at = end;
        }
    }
}
