//! One device's page of the ledger: who was promised what on it, and whether a reading leaves room for one more.

use std::collections::BTreeMap;

use super::keep::Short;
use super::reading::{Live, Seen};
use super::refusal::Why;
use super::{FRESH, LATELY, is_other, little};
use crate::fleet::{Device, Spot};
use crate::graph::TaskId;
use crate::spec::{Gpus, Resources};
use crate::units::{Bytes, Millis, Share};

/// One device: its capacity and its promises.
#[derive(Clone, Debug)]
pub(super) struct Book {
    /// What tasks can have where nobody reads the device.
    usable: Bytes,
    /// What they could have if nobody else held any.
    whole: Bytes,
    headroom: Bytes,
    spot: Spot,
    is_slice: bool,
    /// Memory promised to each running task.
    pub(super) promises: BTreeMap<TaskId, Bytes>,
    /// Those that were promised all of it, whatever their number says, but for what strangers held then, if that was more
    /// than the headroom.
    wanting_all: BTreeMap<TaskId, Bytes>,
    /// Shares promised for good.
    shares: Share,
    /// Shares of those that take turns at what is left.
    pub(super) turns: BTreeMap<TaskId, Share>,
    /// How many have it to themselves: one, unless some were entered that ran already.
    exclusive: u32,
    /// Who gave something back that no reading has shown yet: what they may have taken still counts.
    gone: Vec<Gone>,
    /// What others hold where the driver hides processes (see [`hidden`](super::hidden)); `None` before it was read.
    pub(super) strangers_hold: Option<Bytes>,
    /// What tasks that have just ended may still hold in nobody's name, and when they did.
    pub(super) leaving: Vec<(Millis, Bytes)>,
    /// What was in use by the latest reading, whoever holds it.
    used: Bytes,
    /// What others held in the latest readings, and when.
    strangers: Vec<(Millis, Bytes)>,
    /// Tasks of ours that hold memory and are promised none: what they started is still there.
    left_behind: Vec<(TaskId, Bytes)>,
    /// Set while less is left than was promised.
    pub(super) short: Option<Short>,
}

/// A task that ended after the last reading.
#[derive(Clone, Copy, Debug)]
struct Gone {
    task: TaskId,
    promise: Bytes,
    at: Millis,
}

/// What is left of a device after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Left {
    pub(super) memory: Bytes,
    pub(super) share: Share,
}

impl Book {
    pub(super) fn new(device: &Device) -> Self {
        Self {
            usable: device.usable_memory(),
            whole: device.whole_memory(),
            headroom: device.headroom,
            spot: device.spot,
            is_slice: device.is_mig(),
            promises: BTreeMap::new(),
            wanting_all: BTreeMap::new(),
            shares: Share::ZERO,
            turns: BTreeMap::new(),
            exclusive: 0,
            gone: Vec::new(),
            strangers_hold: None,
            leaving: Vec::new(),
            used: Bytes::ZERO,
            strangers: Vec::new(),
            left_behind: Vec::new(),
            short: None,
        }
    }

    pub(super) const fn spot(&self) -> Spot {
        self.spot
    }

    /// Returns the task that has it to itself.
    pub(super) fn only(&self) -> Option<TaskId> {
        self.wanting_all.keys().next().copied().filter(|_| self.promises.len() == 1)
    }

    pub(super) fn reserved(&self) -> Bytes {
        self.promises.values().copied().sum()
    }

    /// Counts on all of the device's memory, as if no stranger had held any of it when it was probed.
    pub(super) fn forget_strangers(&mut self) {
        self.usable = self.whole;
    }

    /// Counts on all of the device's memory but what others hold.
    pub(super) fn count_on_all_but(&mut self, strangers: Bytes) {
        self.usable = self.whole - strangers;
    }

    /// Takes it that all who have gone have given back what they held.
    pub(super) fn forget_gone(&mut self) {
        self.gone.clear();
        self.leaving.clear();
    }

    /// Learns from a reading what others hold.
    pub(super) fn observe(&mut self, live: &Live, at: Millis) {
        let seen = match live {
            Live::Seen(seen) => seen,
            Live::Fault { .. } => return,
            Live::Unwatched => return self.gone.clear(),
        };
        self.gone.retain(|gone| gone.at >= at);
        self.used = seen.used;
        let is_over = |task: &TaskId| !self.promises.contains_key(task) && !is_other(*task);
        let over = seen.held.iter().flatten().filter(|(task, bytes)| *bytes > Bytes::ZERO && is_over(task));
        self.left_behind = over.copied().collect();
        let unlisted = self.learn_of_strangers(seen, at);
        let held = seen.held.as_ref().map_or(unlisted, |held| self.listed_strangers(seen, held));
        // Where processes are hidden, what went a moment ago may have been ours.
        let lists = seen.held.is_some();
        self.strangers.retain(|(then, _)| lists && *then < at && *then + LATELY >= at);
        self.strangers.push((at, held));
    }

    /// Returns what listed processes that are not ours hold.
    fn listed_strangers(&self, seen: &Seen, held: &[(TaskId, Bytes)]) -> Bytes {
        // A task of another run counts as promised to only where we know what it was promised.
        let is_known = |task: &TaskId| !is_other(*task) || self.promises.contains_key(task);
        let ours: Bytes = held.iter().filter(|(task, _)| is_known(task)).map(|(_, bytes)| *bytes).sum();
        seen.used - ours - seen.nobodys
    }

    /// Whether others were seen lately to hold more of it than may be the driver's own.
    pub(super) fn has_strangers(&self) -> bool {
        self.held_lately() > self.headroom
    }

    /// Whether others were seen lately to hold more of it than whoever has it to himself puts up with.
    pub(super) fn is_crowded(&self) -> bool {
        self.held_lately() > self.puts_up_with()
    }

    /// Returns how much others may hold beside whoever has it to himself: the headroom, and what they held when he came.
    pub(super) fn puts_up_with(&self) -> Bytes {
        self.headroom + self.wanting_all.values().copied().max().unwrap_or(Bytes::ZERO)
    }

    /// Returns what others hold beside whom nobody is alone there now.
    fn beside(&self) -> Bytes {
        let is_ours = !self.promises.is_empty() || !self.gone.is_empty();
        let hold = if is_ours { self.held_lately() } else { self.used };
        if hold > self.headroom { hold } else { Bytes::ZERO }
    }

    /// Returns all of its memory that somebody can have to himself now.
    pub(super) fn all_of_it(&self) -> Bytes {
        self.whole - self.beside()
    }

    /// Whether a request could have it to itself once our own tasks have left it.
    pub(super) fn could_be_alone(&self, request: &Resources, live: &Live) -> bool {
        let is_ours = !self.promises.is_empty() || !self.gone.is_empty() || !self.left_behind.is_empty();
        let hold = match live {
            Live::Seen(_) if is_ours => self.held_lately(),
            Live::Seen(seen) => seen.used,
            Live::Unwatched => self.whole - self.usable,
            Live::Fault { .. } => return false,
        };
        let can_join = !self.is_slice || !matches!(request.gpus, Gpus::Whole(2..));
        hold <= self.headroom && can_join && request.gpu_memory <= self.whole
    }

    /// Returns the most that others held in the latest readings.
    fn held_lately(&self) -> Bytes {
        self.strangers.iter().map(|(_, bytes)| *bytes).max().unwrap_or(Bytes::ZERO)
    }

    /// Returns what tasks of ours have left behind, and how much of its memory that holds.
    pub(super) fn left_behind(&self) -> &[(TaskId, Bytes)] {
        if self.gone.is_empty() { &self.left_behind } else { &[] }
    }

    /// Whether a promise could be kept beside what others hold and what is promised to those that run.
    pub(super) fn could_keep(&self, promise: Bytes) -> bool {
        // The headroom is there to be used up by then.
        promise + self.reserved() + self.held_lately() <= self.whole + self.headroom
    }

    /// Returns how much more others held a moment ago than now.
    fn lately(&self) -> Bytes {
        self.held_lately() - self.strangers.last().map_or(Bytes::ZERO, |(_, now)| *now)
    }

    pub(super) fn hold(&mut self, task: TaskId, request: &Resources) {
        if request.wants_all_memory() {
            self.wanting_all.insert(task, self.beside());
        }
        self.promises.insert(task, request.gpu_memory);
        match request.turn() {
            Some(share) => drop(self.turns.insert(task, share)),
            None => self.shares += request.gpus.share(),
        }
        self.exclusive += u32::from(matches!(request.gpus, Gpus::Whole(_)));
    }

    pub(super) fn release(&mut self, task: TaskId, request: &Resources, now: Millis) {
        let promise = self.promises.remove(&task).unwrap_or(Bytes::ZERO);
        self.leaving.push((now, self.counts_on(task, promise)));
        self.wanting_all.remove(&task);
        self.gone.push(Gone { task, promise, at: now });
        match request.turn() {
            Some(_) => drop(self.turns.remove(&task)),
            None => self.shares -= request.gpus.share(),
        }
        self.exclusive = self.exclusive.saturating_sub(u32::from(matches!(request.gpus, Gpus::Whole(_))));
    }

    /// Returns what those that take turns have together.
    pub(super) fn room_for_turns(&self) -> Share {
        Share::WHOLE - self.shares
    }

    /// Returns what a request would leave of the device, or why there is no room for it. `beside`: whether who wants all of
    /// its memory puts up with strangers who hold little.
    pub(super) fn room(
        &self,
        request: &Resources,
        (live, at): (&Live, Millis),
        now: Millis,
        beside: bool,
    ) -> Result<Left, Why> {
        if request.gpu_memory > self.whole {
            return Err(Why::TooSmall { whole: self.whole });
        }
        if self.is_slice && matches!(request.gpus, Gpus::Whole(2..)) {
            return Err(Why::Slice);
        }
        if self.exclusive > 0 {
            return Err(Why::Exclusive);
        }
        if matches!(request.gpus, Gpus::Whole(_)) && !self.promises.is_empty() {
            return Err(Why::Shared { tasks: self.promises.len() });
        }
        // Each of those that take turns must fit by itself beside all that never stand back.
        let share_left = match request.turn() {
            Some(_) => self.room_for_turns(),
            None => self.room_for_turns() - self.turns.values().copied().max().unwrap_or(Share::ZERO),
        };
        if request.gpus.share() > share_left {
            return Err(Why::Share { left: share_left });
        }
        let memory = self.memory_left(request, (live, at), now, beside)?;
        Ok(Left { memory: memory - request.gpu_memory, share: share_left - request.gpus.share() })
    }

    /// Returns the memory that the request can have; an error if that is too little.
    fn memory_left(
        &self,
        request: &Resources,
        (live, at): (&Live, Millis),
        now: Millis,
        beside: bool,
    ) -> Result<Bytes, Why> {
        let seen = match live {
            Live::Unwatched => {
                let left = self.usable - self.reserved();
                // Nobody has looked since it was probed; what strangers held then is all that is known of them.
                self.refuse_strangers(request, self.whole - self.usable, beside)?;
                let fits = request.gpu_memory <= left;
                return fits.then_some(left).ok_or(Why::Capacity { all: self.usable, reserved: self.reserved() });
            }
            Live::Fault { fault, until, .. } => {
                let comma = if until.is_empty() { "" } else { ", " };
                return Err(Why::Fault { fault: format!("{fault}{comma}{until}") });
            }
            Live::Seen(seen) => seen,
        };
        if now.saturating_sub(at) > FRESH {
            return Err(Why::Stale { age: now - at });
        }
        if !self.gone.is_empty() && request.wants_all_memory() {
            return Err(Why::Settling);
        }
        self.refuse_strangers(request, seen.used, beside)?;
        let promised = self.promised(seen);
        let left = seen.free - promised - self.headroom;
        if request.gpu_memory > left {
            return Err(Why::Memory { free: seen.free, promised, headroom: self.headroom });
        }
        let lately = self.lately();
        let fits = request.gpu_memory <= left - lately;
        fits.then_some(left - lately).ok_or(Why::Lately { hold: lately })
    }

    /// Refuses a device that others hold so much of, if the request wants all of it.
    fn refuse_strangers(&self, request: &Resources, hold: Bytes, beside: bool) -> Result<(), Why> {
        // As much as the headroom may be the driver's own.
        let most = if beside { self.headroom.max(little(self.whole)) } else { self.headroom };
        let alone = hold <= most || !request.wants_all_memory();
        alone.then_some(()).ok_or(Why::Strangers { hold })
    }

    /// Returns what our tasks were promised and have not taken yet.
    fn promised(&self, seen: &Seen) -> Bytes {
        let Some(held) = &seen.held else {
            let gone: Bytes = self.gone.iter().map(|gone| gone.promise).sum();
            return gone + self.due_at_most(seen);
        };
        let gone = self.gone.iter().map(|gone| {
            let measured = held.binary_search_by_key(&gone.task, |(task, _)| *task);
            gone.promise - measured.map_or(Bytes::ZERO, |at| held[at].1)
        });
        gone.sum::<Bytes>() + self.running(held).map(|(promise, measured)| promise - measured).sum()
    }

    /// Returns what a running task counts on: of a device that it has to itself all but what others may hold beside it.
    pub(super) fn counts_on(&self, task: TaskId, promise: Bytes) -> Bytes {
        let all = self.wanting_all.get(&task).map(|beside| self.whole - self.headroom - *beside);
        all.map_or(promise, |all| all.max(promise))
    }

    /// Yields promise and measurement of each running task; both sides ascend by task.
    pub(super) fn running<'a>(&'a self, held: &'a [(TaskId, Bytes)]) -> impl Iterator<Item = (Bytes, Bytes)> + 'a {
        let mut rest = held;
        self.promises.iter().map(move |(task, promise)| {
            let passed = rest.iter().take_while(|(other, _)| other < task).count();
            rest = &rest[passed..];
            // What was measured of a task that was tried again since is its earlier attempt's.
            let again = self.gone.iter().any(|gone| gone.task == *task);
            let measured = rest.first().filter(|(other, _)| other == task && !again);
            (*promise, measured.map_or(Bytes::ZERO, |(_, bytes)| *bytes))
        })
    }
}
