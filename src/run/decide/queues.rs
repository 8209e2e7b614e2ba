//! Ready tasks, one queue for each distinct request, so that a request that does not fit is asked for once.
//!
//! Tasks that can do with something else have queues of their own, for each stage and mode that they can do with: they are
//! not kept from it by those who cannot.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;

use super::waiting::Refused;
use crate::graph::TaskId;
use crate::run::admission::Ledger;
use crate::spec::{Gpus, Resources};
use crate::units::Bytes;

/// A ready task's place in its queue: the smallest goes first.
pub(super) type Turn = (u32, TaskId);

/// What makes a queue: a request, and the stage and mode that its tasks can do with instead.
pub(super) type Asked = (Resources, Option<(usize, usize)>);

/// Who is ready, and what each task asks for.
#[derive(Debug)]
pub(super) struct Queues {
    /// `[n_tasks]`, by TaskId: which of `all` the task queues in.
    of: Vec<u32>,
    all: Vec<Queue>,
    /// Which of `all` a request has.
    by_request: HashMap<Asked, u32>,
    /// The first task of each queue that is not empty.
    heads: BTreeSet<(Turn, u32)>,
}

/// Ready tasks that ask for the same.
#[derive(Debug)]
pub(super) struct Queue {
    request: Resources,
    /// Whether the fleet could ever grant that: a run that goes on may have lost what could.
    is_within_reach: bool,
    /// Whether one of its tasks may start with something else than the request.
    may_do_with_else: bool,
    turns: BTreeSet<Turn>,
    /// Why the first task could not start when it was last asked for.
    refused: Option<Refused>,
}

impl Queue {
    pub(super) const fn request(&self) -> &Resources {
        &self.request
    }

    pub(super) const fn turns(&self) -> &BTreeSet<Turn> {
        &self.turns
    }

    pub(super) const fn refused(&self) -> Option<&Refused> {
        self.refused.as_ref()
    }

    pub(super) const fn may_do_with_else(&self) -> bool {
        self.may_do_with_else
    }
}

impl Queues {
    /// Makes queues for so many tasks, each of which has to choose one.
    pub(super) fn new(tasks: usize) -> Self {
        Self { of: vec![0; tasks], all: Vec::new(), by_request: HashMap::new(), heads: BTreeSet::new() }
    }

    /// Remembers in which queue a task waits.
    pub(super) fn choose(&mut self, task: TaskId, asked: Asked, may_do_with_else: bool, ledger: &Ledger) {
        let queue = self.by_request.get(&asked).copied().unwrap_or_else(|| {
            let next = u32::try_from(self.all.len()).expect("no more queues than attempts");
            self.all.push(Queue {
                request: asked.0.clone(),
                is_within_reach: ledger.is_within_reach(&asked.0),
                may_do_with_else: false,
                turns: BTreeSet::new(),
                refused: None,
            });
            self.by_request.insert(asked, next);
            next
        });
        self.all[queue as usize].may_do_with_else |= may_do_with_else;
        self.of[task.index()] = queue;
    }

    /// Returns the queue that a task has chosen.
    pub(super) fn of(&self, task: TaskId) -> &Queue {
        self.at(self.index_of(task))
    }

    /// Returns which queue that is.
    pub(super) fn index_of(&self, task: TaskId) -> u32 {
        self.of[task.index()]
    }

    /// Returns a queue.
    pub(super) fn at(&self, queue: u32) -> &Queue {
        &self.all[queue as usize]
    }

    /// Whether the fleet could ever grant what a task asks for.
    pub(super) fn is_within_reach(&self, task: TaskId) -> bool {
        self.of(task).is_within_reach
    }

    /// Lets a task wait in the queue that it has chosen.
    pub(super) fn insert(&mut self, turn: Turn) {
        let index = self.of[turn.1.index()];
        let queue = &mut self.all[index as usize];
        let first = queue.turns.first().copied();
        queue.turns.insert(turn);
        if first.is_none_or(|first| turn < first) {
            first.map(|first| self.heads.remove(&(first, index)));
            self.heads.insert((turn, index));
        }
    }

    /// Takes a task out of the queue that it has chosen; whether it waited there.
    pub(super) fn remove(&mut self, turn: Turn) -> bool {
        self.remove_from(self.of[turn.1.index()], turn)
    }

    /// Takes a task out of a queue that it may have left for another one since; whether it waited there.
    pub(super) fn remove_from(&mut self, index: u32, turn: Turn) -> bool {
        let queue = &mut self.all[index as usize];
        let waited = queue.turns.remove(&turn);
        if self.heads.remove(&(turn, index)) {
            self.heads.extend(queue.turns.first().map(|next| (*next, index)));
        }
        waited
    }

    /// Takes all tasks out.
    pub(super) fn take_all(&mut self) -> Vec<TaskId> {
        self.heads.clear();
        self.all.iter_mut().flat_map(|queue| std::mem::take(&mut queue.turns)).map(|(_, task)| task).collect()
    }

    /// Notes why the first task of a queue was refused, again or for the first time; `None` once it was admitted.
    pub(super) fn note(&mut self, queue: u32, refused: Option<Refused>) {
        self.all[queue as usize].refused = refused;
    }

    /// Yields the queues in which somebody waits, in the order in which they came to be.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Queue> {
        self.all.iter().filter(|queue| !queue.turns.is_empty())
    }

    /// Yields the first task of each queue, those of lower rank than one; of all without one.
    pub(super) fn heads_after(&self, last: Option<(Turn, u32)>) -> impl Iterator<Item = (Turn, u32)> {
        self.heads.range((last.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded)).copied()
    }

    /// Returns who comes after a task of a queue there.
    pub(super) fn next(&self, queue: u32, after: Turn) -> Option<Turn> {
        self.at(queue).turns.range((Bound::Excluded(after), Bound::Unbounded)).next().copied()
    }
}

/// Which requests there is no room for, as long as nothing is given out or given back: whoever asks for no less than was
/// refused is refused unasked.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// Queues that were refused devices: those that ask for the least. Host resources are as quickly asked for.
    queues: Vec<u32>,
}

impl Refusals {
    /// Whether a request would be refused for certain.
    pub(super) fn include(&self, request: &Resources, queues: &Queues, ledger: &Ledger) -> bool {
        let is_known = |refused: &u32| asks_no_less(request, &queues.at(*refused).request);
        ledger.all_lack(request) || self.queues.iter().any(is_known)
    }

    /// Takes in that there is no room for what a queue asks for.
    pub(super) fn add(&mut self, queue: u32, queues: &Queues) {
        let request = &queues.at(queue).request;
        if request.gpus != Gpus::None {
            self.queues.retain(|known| !asks_no_less(&queues.at(*known).request, request));
            self.queues.push(queue);
        }
    }

    /// Takes in that something was given out: that may change what somebody puts up with who wants all of a device.
    pub(super) fn forget(&mut self) {
        self.queues.clear();
    }
}

/// Whether there can be no room for a request where there is none for the other one.
fn asks_no_less(request: &Resources, other: &Resources) -> bool {
    let Resources { cpus, memory, gpus, gpu_memory, alone, custom, suspend } = other;
    let is_same_kind = (request.gpus, request.alone, request.suspend) == (*gpus, *alone, *suspend);
    // Without a number a part of a device asks for as much of its memory. Those who want all of it put up with a desktop where
    // none is so large without one.
    let is_larger = || request.gpu_memory > *gpu_memory && *gpu_memory > Bytes::ZERO && !request.wants_all_memory();
    let of_custom = |(name, need): (&String, &u64)| request.custom.get(name).is_some_and(|asked| asked >= need);
    is_same_kind
        && (request.gpu_memory == *gpu_memory || is_larger())
        && request.cpus >= *cpus
        && request.memory >= *memory
        && custom.iter().all(of_custom)
}
