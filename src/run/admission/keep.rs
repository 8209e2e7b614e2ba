//! Whether what was promised on the devices can still be kept, and who has to leave where it cannot.
//!
//! Between the moment at which a task is admitted and the one at which it has taken its memory, seconds pass: others may
//! take what was promised. A task that has not taken any memory yet loses nothing by leaving, so it leaves, the youngest
//! first, until what is left suffices for the others. One that has taken part of its memory stays, even if it has given it
//! back since: it may still get along. Where a device lets in one process at a time, any other one that computes there is such a
//! shortage. It has to be there in two readings, so that a moment's peak of others moves nobody. Everything leaves a device
//! that has fallen out.

use std::collections::BTreeSet;

use super::reading::{Live, Readings, Seen};
use super::refusal::{Refusal, Why};
use super::{Book, Ledger, is_other};
use crate::fleet::DeviceId;
use crate::graph::TaskId;
use crate::run::outcome::Cause;
use crate::units::{Bytes, Millis};

impl Ledger {
    /// Takes in readings, and returns the tasks that have to leave a device, each with the device and why. `started` says
    /// when a running task was admitted to a device, `began` whether it was seen to hold memory before.
    pub fn displaced(
        &mut self,
        readings: &Readings,
        started: impl Fn(TaskId, DeviceId) -> Millis,
        began: impl Fn(TaskId) -> bool,
    ) -> Vec<(TaskId, DeviceId, Cause)> {
        let mut leaving = Vec::new();
        let have_begun = have_begun(readings);
        for (device, book) in (0..).map(DeviceId).zip(&mut self.books) {
            let live = readings.of(device.index());
            book.observe(live, readings.at);
            let shortage = book.shortage(live, readings.at);
            let is_occupied = book.is_occupied(live, readings.at);
            if let Live::Fault { fault, ends_tasks: true, .. } = live {
                let cause = Cause::Unfit { fault: fault.clone() };
                leaving.extend(ours(book).map(|(task, _)| (*task, device, cause.clone())));
            } else if let (true, Live::Seen(seen)) = (is_occupied || shortage.lasting.is_some(), live) {
                let (mut promised, free) = shortage.lasting.unwrap_or_default();
                let cause = if is_occupied { Cause::Occupied } else { Cause::Taken { promised, free, by: None } };
                // Of whom nothing is seen where processes are hidden, nobody can say that it has taken nothing.
                let has_begun = |task| match seen.held {
                    Some(_) => have_begun.contains(&task),
                    None => seen.has_opened(task) != Some(false),
                };
                let waiting = ours(book).filter(|(task, _)| !has_begun(**task) && !began(**task));
                let mut may_leave: Vec<_> =
                    waiting.map(|(task, promise)| (*task, book.counts_on(*task, *promise))).collect();
                // One that was admitted after the reading is not in it.
                may_leave.retain(|(task, promise)| started(*task, device) < readings.at && *promise > Bytes::ZERO);
                may_leave.sort_by_key(|(task, _)| std::cmp::Reverse((started(*task, device), *task)));
                for (task, promise) in may_leave {
                    if promised <= free && !is_occupied {
                        break;
                    }
                    promised -= promise;
                    leaving.push((task, device, cause.clone()));
                }
            }
        }
        leaving.sort_by_key(|(task, ..)| *task);
        leaving.dedup_by_key(|(task, ..)| *task);
        leaving
    }

    /// Returns what was still to be taken on a device and what was left for it, if that was too little when it was last
    /// read.
    #[must_use]
    pub fn shortage(&self, device: DeviceId) -> Option<(Bytes, Bytes)> {
        self.books[device.index()].short.map(|short| short.numbers)
    }

    /// Whether another process is on a device for which a task of ours is still to come, as it was last read; `None` where
    /// more than one process is let in.
    #[must_use]
    pub fn occupied(&self, device: DeviceId) -> Option<bool> {
        let book = &self.books[device.index()];
        book.one_process.then_some(book.occupied.is_some())
    }

    /// Takes in that a device which lets in one process at a time was busy when a task of ours came. Nothing is sent there for a
    /// moment, and then only where no other device does as well, until it has let one in.
    pub fn turned_away(&mut self, device: DeviceId, at: Millis) {
        let book = &mut self.books[device.index()];
        let times = book.busy.map_or(0, |busy| busy.times);
        book.busy = Some(Busy { times: times + 1, at, until: at + SOONEST });
    }

    /// Starts nothing on such a device until then. The wait is a second at least, doubles with each refusal and ends after half a
    /// minute at the latest, for other tasks may be let in; a reading that shows who holds the device ends it sooner.
    pub fn keep_off(&mut self, device: DeviceId, until: Millis) {
        let busy = &mut self.books[device.index()].busy;
        *busy = busy.map(|busy| {
            let least = Millis(SOONEST.0 << (busy.times - 1).min(16)).min(LATEST);
            Busy { until: until.clamp(busy.at + least, busy.at + LATEST), ..busy }
        });
    }

    /// Takes in that a device has let a task in.
    pub fn lets_in(&mut self, device: DeviceId) {
        self.books[device.index()].busy = None;
    }

    /// Returns the task that holds so much more than was promised to it that a device is short.
    #[must_use]
    pub fn overrun(&self, device: DeviceId) -> Option<TaskId> {
        self.books[device.index()].short.and_then(|short| short.by)
    }

    /// Yields our own tasks that something of a device is promised to.
    pub fn ours_on(&self, device: DeviceId) -> impl Iterator<Item = TaskId> + '_ {
        ours(&self.books[device.index()]).map(|(task, _)| *task)
    }

    /// Returns what tasks of ours hold unpromised, most of it left behind, on devices of which a refused request lacks
    /// memory, or that it would have to itself.
    #[must_use]
    pub fn left_behind(&self, refusal: &Refusal) -> Vec<(TaskId, DeviceId, Bytes)> {
        let is_in_use = |why: &Why| {
            matches!(why, Why::Memory { .. } | Why::Strangers { .. } | Why::Leaving { .. } | Why::OneProcess)
        };
        let short = refusal.devices.iter().filter(|(_, why)| is_in_use(why));
        let left = |(device, _): &(DeviceId, Why)| {
            let of = self.books[device.index()].left_behind();
            of.iter().map(|(task, bytes)| (*task, *device, *bytes)).collect::<Vec<_>>()
        };
        short.flat_map(left).collect()
    }

    /// Returns the task that has a device to itself and what it has gained since, where its driver does not say who holds that.
    #[must_use]
    pub fn gained_alone(&self, device: DeviceId, seen: &Seen) -> Option<(TaskId, Bytes)> {
        let book = &self.books[device.index()];
        let task = book.only().filter(|task| !is_other(*task) && !book.is_crowded())?;
        Some((task, book.grown(seen)))
    }

    /// Whether strangers hold much of a device that a task has, or was the last to have, to itself; `None` as long as that
    /// may be what it has not given back yet.
    #[must_use]
    pub fn is_crowded(&self, device: DeviceId) -> Option<bool> {
        self.books[device.index()].was_crowded()
    }

    /// Returns how much others may hold of a device beside the task that has it to itself.
    #[must_use]
    pub fn puts_up_with(&self, device: DeviceId) -> Bytes {
        self.books[device.index()].puts_up_with()
    }

    /// Whether what was promised to a task that has gone could be kept on a device beside what strangers hold and what is
    /// promised to others.
    #[must_use]
    pub fn could_keep(&self, device: DeviceId, promise: Bytes) -> bool {
        self.books[device.index()].could_keep(promise)
    }

    /// Whether any device is short of what was promised on it, or lets in nobody but another one: it should be read again soon.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.books.iter().any(|book| book.short.is_some() || book.occupied.is_some())
    }
}

/// How long nothing is sent to a device that was busy when a task came, until it is known when that is tried again.
const SOONEST: Millis = Millis(1_000);

/// How long nothing is sent there at most, however long the task that was turned away pauses.
const LATEST: Millis = Millis(30_000);

/// A device that was busy when a task of ours came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Busy {
    /// How often, since it let one in.
    pub(super) times: u32,
    /// When that was last.
    at: Millis,
    /// Until when nothing is sent there.
    until: Millis,
}

/// A device on which less is left than was promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Short {
    /// The reading in which that was first seen.
    since: Millis,
    /// What was still to be taken, and what was left.
    numbers: (Bytes, Bytes),
    /// The task that holds so much more than was promised to it that without that there would be enough.
    by: Option<TaskId>,
}

struct Shortage {
    /// What was still to be taken and what was left, if that was so in an earlier reading as well.
    lasting: Option<(Bytes, Bytes)>,
}

impl Book {
    /// Compares what is left of the device with what our tasks are still to take.
    fn shortage(&mut self, live: &Live, at: Millis) -> Shortage {
        let numbers = match live {
            Live::Seen(Seen { free, held: Some(held), .. }) => {
                let due = self.promises.keys().zip(self.running(held));
                let due = due.map(|(task, (promise, measured))| self.counts_on(*task, promise) - measured);
                let promised: Bytes = due.sum();
                // The headroom is there to be used up by then.
                let over = self.promises.keys().zip(self.running(held));
                let over = over.map(|(task, (promise, measured))| (measured - promise, *task));
                let unpromised = self.left_behind().iter().map(|(task, measured)| (*measured, *task));
                let most = over.chain(unpromised).max();
                let by = most.filter(|(over, _)| *over >= promised - *free).map(|(_, task)| task);
                (promised > *free).then_some(((promised, *free), by))
            }
            Live::Seen(seen) => {
                let promised = self.due_at_least(seen);
                (promised > seen.free).then_some(((promised, seen.free), None))
            }
            Live::Unwatched | Live::Unread | Live::Fault { .. } => None,
        };
        let since = self.short.map_or(at, |short| short.since);
        self.short = numbers.map(|(numbers, by)| Short { since, numbers, by });
        Shortage { lasting: self.short.filter(|short| short.since < at).map(|short| short.numbers) }
    }

    /// Returns for how long nothing is sent to it any more, as it was busy when a task came.
    pub(super) fn is_kept_off(&self, now: Millis) -> Option<Millis> {
        self.busy.map(|busy| busy.until - now).filter(|left| *left > Millis::ZERO)
    }

    /// Takes in from a reading who is there: from then on readings tell when they have left.
    pub(super) fn look_who_is_there(&mut self, seen: &Seen, at: Millis) {
        if let Some(busy) = &mut self.busy
            && (seen.one_process > Some(0) && at > busy.at)
        {
            busy.until = Millis::ZERO;
        }
        self.busy = self.busy.filter(|_| seen.one_process.is_some());
    }

    /// Keeps off it for good where it is kept off now.
    pub(super) fn stay_off(&mut self, now: Millis) {
        let is_kept_off = self.is_kept_off(now).is_some();
        self.busy = self.busy.filter(|_| is_kept_off).map(|busy| Busy { until: Millis(u64::MAX), ..busy });
    }

    /// Whether it lets in one process at a time, and that is another's than of a task of ours which is still to come, in an
    /// earlier reading as well.
    fn is_occupied(&mut self, live: &Live, at: Millis) -> bool {
        let is_out = |seen: &Seen, task: TaskId| match &seen.held {
            Some(held) => !held.iter().any(|(other, _)| *other == task),
            None => seen.has_opened(task) == Some(false),
        };
        let is_occupied = match live {
            Live::Seen(seen) if seen.one_process > Some(0) => ours(self).any(|(task, _)| is_out(seen, *task)),
            Live::Seen(_) | Live::Unwatched | Live::Unread | Live::Fault { .. } => false,
        };
        self.occupied = is_occupied.then(|| self.occupied.unwrap_or(at));
        self.occupied.is_some_and(|since| since < at)
    }
}

/// Yields what our own tasks were promised on a device: whether those of other runs leave is decided there.
fn ours(book: &Book) -> impl Iterator<Item = (&TaskId, &Bytes)> {
    book.promises.iter().filter(|(task, _)| !is_other(**task))
}

/// Returns the tasks that have taken memory on any device.
fn have_begun(readings: &Readings) -> BTreeSet<TaskId> {
    let held = readings.devices.iter().filter_map(|live| match live {
        Live::Seen(seen) => seen.held.as_ref(),
        Live::Unwatched | Live::Unread | Live::Fault { .. } => None,
    });
    held.flatten().filter(|(_, bytes)| *bytes > Bytes::ZERO).map(|(task, _)| *task).collect()
}
