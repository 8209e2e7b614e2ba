//! One device's page of the ledger: who was promised what on it, and whether a reading leaves room for one more.

use std::collections::BTreeMap;

use super::keep::{Busy, Short};
use super::reading::{Live, Readings, Seen};
use super::refusal::Why;
use super::{LATELY, SETTLED, is_other, little};
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
    /// Whether its compute mode lets in one process at a time.
    pub(super) one_process: bool,
    /// Whether nothing can run on it by the latest reading, or by what was known before.
    is_unfit: bool,
    /// Memory promised to each running task.
    pub(super) promises: BTreeMap<TaskId, Bytes>,
    /// Those that were promised all of it, whatever their number says, but for what strangers held then, if that was more
    /// than the headroom.
    pub(super) wanting_all: BTreeMap<TaskId, Bytes>,
    /// What strangers held beside whoever was the last to have it to himself, if that was more than the headroom.
    was_beside: Bytes,
    /// Shares promised for good.
    pub(super) shares: Share,
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
    /// What of that no task of ours holds that may be known.
    not_ours: Bytes,
    /// The same before the first of those ended that have just ended.
    not_ours_before: Bytes,
    /// What others held in the latest readings, and when.
    strangers: Vec<(Millis, Bytes)>,
    /// About how much has been in use since when, whoever holds it; `None` before it was read.
    steady: Option<(Millis, Bytes)>,
    /// Who was promised all of it before it was read: what strangers held then is still to be learned.
    unread: Vec<TaskId>,
    /// Tasks of ours that hold memory and are promised none: what they started is still there.
    left_behind: Vec<(TaskId, Bytes)>,
    /// Set while less is left than was promised.
    pub(super) short: Option<Short>,
    /// Since when another process is where one is let in, though a task of ours is to come.
    pub(super) occupied: Option<Millis>,
    /// Set from when it was busy as a task came until it lets one in.
    pub(super) busy: Option<Busy>,
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
            one_process: device.one_process,
            is_unfit: device.aside,
            promises: BTreeMap::new(),
            wanting_all: BTreeMap::new(),
            was_beside: Bytes::ZERO,
            shares: Share::ZERO,
            turns: BTreeMap::new(),
            exclusive: 0,
            gone: Vec::new(),
            strangers_hold: None,
            leaving: Vec::new(),
            used: Bytes::ZERO,
            not_ours: Bytes::ZERO,
            not_ours_before: Bytes::ZERO,
            strangers: Vec::new(),
            steady: None,
            unread: Vec::new(),
            left_behind: Vec::new(),
            short: None,
            occupied: None,
            busy: None,
        }
    }

    pub(super) const fn is_unfit(&self) -> bool {
        self.is_unfit
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

    /// Counts on all of the device's memory, as if no stranger were there, nor had been when it was probed.
    pub(super) fn forget_strangers(&mut self) {
        (self.usable, self.busy) = (self.whole, None);
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
        self.is_unfit = matches!(live, Live::Fault { .. }) || (self.is_unfit && !matches!(live, Live::Seen(_)));
        let seen = match live {
            Live::Seen(seen) => seen,
            Live::Unread | Live::Fault { .. } => return,
            Live::Unwatched => return self.gone.clear(),
        };
        self.gone.retain(|gone| gone.at >= at);
        (self.used, self.one_process) = (seen.used, seen.one_process.is_some());
        self.look_who_is_there(seen, at);
        let is_over = |task: &TaskId| !self.promises.contains_key(task) && !is_other(*task);
        let over = seen.held.iter().flatten().filter(|(task, bytes)| *bytes > Bytes::ZERO && is_over(task));
        self.left_behind = over.copied().collect();
        let unlisted = self.learn_of_strangers(seen, at);
        let ours = seen.held.as_ref().map_or_else(|| self.counted_on(|_| true), |held| self.held_by_ours(held));
        self.not_ours = seen.used - ours;
        let held = if seen.held.is_some() { self.not_ours - seen.nobodys } else { unlisted };
        // Where processes are hidden, what went a moment ago may have been ours.
        let lists = seen.held.is_some();
        self.strangers.retain(|(then, _)| lists && *then < at && *then + LATELY >= at);
        self.strangers.push((at, held));
        let change = |before: Bytes| (before - seen.used).max(seen.used - before);
        let goes_on = self.steady.filter(|(_, before)| change(*before) <= self.headroom);
        self.steady = goes_on.or(Some((at, seen.used)));
        // Whoever ran already has not been beside less than what is seen first.
        for task in std::mem::take(&mut self.unread) {
            let beside = self.of_others(held);
            self.wanting_all.entry(task).and_modify(|known| *known = (*known).max(beside));
        }
    }

    /// Returns how much of what is in use whoever wants all of it puts up with, where he could nowhere be alone: a
    /// desktop's part, if it is little. A driver that hides processes does not tell whose that is: it must have been there
    /// for a while and have stayed the same, and none of it be what tasks of ours have not given back yet.
    fn desktops(&self, seen: &Seen, at: Millis) -> Bytes {
        let desktops = match seen.held {
            Some(_) => seen.drawn,
            None if !self.leaving.is_empty() => Bytes::ZERO,
            None => self.steady.filter(|(since, _)| *since + SETTLED <= at).map_or(Bytes::ZERO, |_| seen.used),
        };
        self.put_up_with(desktops)
    }

    /// Returns what of desktops' memory is put up with: all of it, if it is little.
    fn put_up_with(&self, desktops: Bytes) -> Bytes {
        if desktops <= little(self.whole) { desktops } else { Bytes::ZERO }
    }

    /// Returns all that somebody gets of it beside a desktop that is put up with, where there is one.
    pub(super) fn left_by_desktop(&self, live: &Live, at: Millis) -> Option<Bytes> {
        let desktops = match live {
            Live::Seen(seen) => self.desktops(seen, at),
            Live::Unwatched => Some(self.whole - self.usable).filter(|hold| *hold <= little(self.whole))?,
            Live::Unread | Live::Fault { .. } => return None,
        };
        (desktops > self.headroom).then(|| self.whole - desktops)
    }

    /// Returns what somebody gets of it who is alone there.
    pub(super) const fn whole(&self) -> Bytes {
        self.whole
    }

    /// Returns what tasks hold that something of it was promised to.
    fn held_by_ours(&self, held: &[(TaskId, Bytes)]) -> Bytes {
        // A task of another run counts as promised to only where we know what it was promised.
        let is_known = |task: &TaskId| !is_other(*task) || self.promises.contains_key(task);
        held.iter().filter(|(task, _)| is_known(task)).map(|(_, bytes)| *bytes).sum()
    }

    /// Whether others were seen lately to hold more of it than may be the driver's own.
    pub(super) fn has_strangers(&self) -> bool {
        self.held_lately() > self.headroom
    }

    /// Whether others were seen lately to hold more of it than whoever has it to himself puts up with.
    pub(super) fn is_crowded(&self) -> bool {
        self.held_lately() > self.puts_up_with()
    }

    /// Returns how much others may hold beside whoever has it to himself, or was the last to: the headroom, and what they
    /// held when he came.
    pub(super) fn puts_up_with(&self) -> Bytes {
        self.headroom + self.wanting_all.values().copied().max().unwrap_or(self.was_beside)
    }

    /// Whether others hold more of it, in anybody's name or nobody's, than whoever had it to himself put up with; `None` as
    /// long as that may be what he has not given back yet.
    pub(super) fn was_crowded(&self) -> Option<bool> {
        let is_crowded = self.is_crowded();
        let may_be = !is_crowded && self.not_ours > self.puts_up_with();
        (!may_be || self.leaving.is_empty()).then_some(is_crowded || may_be)
    }

    /// Returns what others hold beside whom nobody is alone there now.
    fn beside(&self) -> Bytes {
        let is_ours = !self.promises.is_empty() || !self.gone.is_empty();
        let hold = if is_ours { self.held_lately() } else { self.used };
        self.of_others(hold)
    }

    /// Returns what of so much is others': nothing where it may be the driver's own.
    fn of_others(&self, held: Bytes) -> Bytes {
        if held > self.headroom { held } else { Bytes::ZERO }
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
            Live::Unread | Live::Fault { .. } => return false,
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
        // Of ours, some may hold what was promised to others.
        let unpromised: Bytes = self.left_behind().iter().map(|(_, bytes)| *bytes).sum();
        // The headroom is there to be used up by then.
        promise + self.reserved() + self.held_lately() + unpromised <= self.whole + self.headroom
    }

    /// Returns how much more others held a moment ago than now.
    fn lately(&self) -> Bytes {
        self.held_lately() - self.strangers.last().map_or(Bytes::ZERO, |(_, now)| *now)
    }

    /// Returns the memory that a request asks for: as large a part as of the device, where it names that only.
    pub(super) fn asked(&self, request: &Resources) -> Bytes {
        match request.gpus {
            Gpus::Share(share) if request.gpu_memory == Bytes::ZERO => share.of(self.whole),
            Gpus::None | Gpus::Whole(_) | Gpus::Share(_) | Gpus::Shared => request.gpu_memory,
        }
    }

    pub(super) fn hold(&mut self, task: TaskId, request: &Resources) {
        if request.wants_all_memory() {
            self.wanting_all.insert(task, self.beside());
            if self.strangers.is_empty() {
                self.unread.push(task);
            }
        }
        self.promises.insert(task, self.asked(request));
        match request.turn() {
            Some(share) => drop(self.turns.insert(task, share)),
            None => self.shares += request.gpus.share(),
        }
        self.exclusive += u32::from(matches!(request.gpus, Gpus::Whole(_)));
    }

    pub(super) fn release(&mut self, task: TaskId, request: &Resources, now: Millis) {
        let promise = self.promises.remove(&task).unwrap_or(Bytes::ZERO);
        let promise = self.counts_on(task, promise);
        if self.leaving.is_empty() {
            self.not_ours_before = self.not_ours;
        }
        self.leaving.push((now, promise));
        self.was_beside = self.wanting_all.remove(&task).unwrap_or(self.was_beside);
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
    /// its memory puts up with a desktop.
    pub(super) fn room(
        &self,
        request: &Resources,
        (readings, device): (&Readings, usize),
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
        if self.one_process && !self.promises.is_empty() {
            return Err(Why::OneProcess);
        }
        if let Some(left) = self.is_kept_off(now) {
            return Err(Why::TurnedAway { left });
        }
        // Each of those that take turns must fit by itself beside all that never stand back.
        let share_left = match request.turn() {
            Some(_) => self.room_for_turns(),
            None => self.room_for_turns() - self.turns.values().copied().max().unwrap_or(Share::ZERO),
        };
        if request.gpus.share() > share_left {
            return Err(Why::Share { left: share_left });
        }
        let memory = self.memory_left(request, (readings, device), now, beside)?;
        let left = memory - self.asked(request);
        // Of who wants all of it nothing is left: what others hold of it is what he does not get.
        let memory = if request.wants_all_memory() { self.whole - left } else { left };
        Ok(Left { memory, share: share_left - request.gpus.share() })
    }

    /// Returns the memory that the request can have; an error if that is too little.
    fn memory_left(
        &self,
        request: &Resources,
        (readings, device): (&Readings, usize),
        now: Millis,
        beside: bool,
    ) -> Result<Bytes, Why> {
        let asked = self.asked(request);
        let seen = match readings.of(device) {
            Live::Unwatched => {
                // Nobody has looked since it was probed; what strangers held then is all that is known of them.
                let hold = self.whole - self.usable;
                let desktops = if beside { self.put_up_with(hold) } else { Bytes::ZERO };
                self.refuse_strangers(request, hold, desktops)?;
                let all = if request.wants_all_memory() { self.whole } else { self.usable };
                let left = all - self.reserved();
                let fits = asked <= left;
                return fits.then_some(left).ok_or(Why::Capacity { all: self.usable, reserved: self.reserved() });
            }
            Live::Unread => return Err(Why::Unread),
            Live::Fault { fault, until, .. } => {
                let comma = if until.is_empty() { "" } else { ", " };
                return Err(Why::Fault { fault: format!("{fault}{comma}{until}") });
            }
            Live::Seen(seen) => seen,
        };
        if readings.are_old(now) {
            return Err(Why::Stale { age: now - readings.at });
        }
        if !self.gone.is_empty() && (request.wants_all_memory() || self.one_process) {
            return Err(Why::Settling);
        }
        if seen.one_process.is_some_and(|computing| computing > 0) {
            return Err(Why::OneProcess);
        }
        let desktops = if beside { self.desktops(seen, readings.at) } else { Bytes::ZERO };
        self.refuse_strangers(request, seen.used, desktops)?;
        let promised = self.promised(seen);
        // A number of whoever wants all of it says how large a device has to be.
        let put_up_with = if request.wants_all_memory() { seen.used } else { Bytes::ZERO };
        let left = seen.free - promised - self.headroom;
        if asked > seen.free + put_up_with - promised - self.headroom {
            return Err(Why::Memory { free: seen.free, promised, headroom: self.headroom });
        }
        let lately = self.lately();
        let fits = asked <= left - lately || request.wants_all_memory();
        fits.then_some(left - lately).ok_or(Why::Lately { hold: lately })
    }

    /// Returns the most that a request could be for, where it lacks only what no process is seen to hold, and no more than
    /// may be the driver's own: one that does not say what it keeps.
    pub(super) fn most_beside_driver(&self, request: &Resources, live: &Live, why: &Why) -> Option<Bytes> {
        let (Live::Seen(seen), Why::Memory { free, promised: Bytes::ZERO, headroom }) = (live, why) else {
            return None;
        };
        let most = *free - *headroom;
        let nobodys = seen.nobodys.min(seen.used);
        (nobodys <= self.headroom && self.asked(request) <= most + nobodys).then_some(most)
    }

    /// Refuses a device that others hold so much of besides desktops, if the request wants all of it.
    fn refuse_strangers(&self, request: &Resources, hold: Bytes, desktops: Bytes) -> Result<(), Why> {
        // As much as the headroom may be the driver's own.
        let alone = hold - desktops <= self.headroom || !request.wants_all_memory();
        // What was there before they ended is not theirs.
        let others = self.held_lately().max(self.not_ours_before);
        let is_left = !self.leaving.is_empty() && others - desktops <= self.headroom;
        alone.then_some(()).ok_or(if is_left { Why::Leaving { hold } } else { Why::Strangers { hold } })
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
