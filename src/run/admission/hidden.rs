//! What is known of a device whose driver hides processes, as in most containers: only how much is in use, and which of
//! our tasks have a GPU open at all.
//!
//! What has grown may be a task's or a stranger's, and nothing tells them apart, so each side is counted by what is
//! certain. A task that has no GPU open has taken nothing: what grew is not its own, and it is still to take all of its
//! promise. What is more than all that have one open were promised is a stranger's. The rest counts as taken by our tasks
//! only where no stranger is known of: beside strangers, what was promised counts in full until its task ends. What
//! strangers hold is in `free` already, so that a promise is at worst counted twice, and not given away. What stays
//! possible: a device's first stranger comes while a task of ours is taking its memory, and passes for it.

use super::SETTLED;
use super::book::Book;
use super::reading::Seen;
use crate::graph::TaskId;
use crate::units::{Bytes, Millis};

impl Book {
    /// Takes in a reading, and returns what others hold by it: no more than is certain.
    pub(super) fn learn_of_strangers(&mut self, seen: &Seen, at: Millis) -> Bytes {
        self.leaving.retain(|(then, _)| *then + SETTLED >= at);
        let least = self.strangers_hold.map_or(seen.nobodys, |known| known.min(seen.nobodys));
        let not_closed = self.counted_on(|task| seen.has_opened(task) != Some(false));
        let ours = self.has_number_for_each().then(|| not_closed + self.still_leaving());
        let more = ours.map_or(Bytes::ZERO, |ours| seen.nobodys - least - ours);
        self.strangers_hold = Some(least + more);
        least + more
    }

    /// Returns the most that our tasks may still take of what they were promised.
    pub(super) fn due_at_most(&self, seen: &Seen) -> Bytes {
        let all = self.counted_on(|_| true);
        let open = self.counted_on(|task| seen.has_opened(task) == Some(true));
        let is_clear = !self.has_strangers() && self.has_number_for_each();
        let taken = if is_clear { self.grown(seen) - self.still_leaving() } else { Bytes::ZERO };
        all - open.min(taken)
    }

    /// Returns the least that our tasks have still to take of what they were promised.
    pub(super) fn due_at_least(&self, seen: &Seen) -> Bytes {
        let closed = self.counted_on(|task| seen.has_opened(task) == Some(false));
        let others = self.counted_on(|task| seen.has_opened(task) != Some(false));
        closed + (others - self.grown(seen))
    }

    /// Returns what is in use beside what strangers are known to hold.
    pub(super) fn grown(&self, seen: &Seen) -> Bytes {
        self.strangers_hold.map_or(Bytes::ZERO, |strangers| seen.nobodys - strangers)
    }

    /// Returns what tasks that have just ended may still hold.
    fn still_leaving(&self) -> Bytes {
        self.leaving.iter().map(|(_, bytes)| *bytes).sum()
    }

    /// Returns what some of the running tasks count on together.
    pub(super) fn counted_on(&self, which: impl Fn(TaskId) -> bool) -> Bytes {
        let chosen = self.promises.iter().filter(|(task, _)| which(**task));
        chosen.map(|(task, promise)| self.counts_on(*task, *promise)).sum()
    }

    /// Whether it is known of each running task how much it counts on.
    fn has_number_for_each(&self) -> bool {
        self.promises.iter().all(|(task, promise)| self.counts_on(*task, *promise) > Bytes::ZERO)
    }
}
