//! What keeps everything from being started for the time being, whatever room there is for it: a disk that is nearly
//! full, a system that has no process or file to spare for what was started last, or somebody who has locked the record.

use std::collections::BTreeMap;

use super::Dispatcher;
use super::waiting::{Reason, Waiting};
use crate::graph::TaskId;
use crate::run::event::Role;
use crate::units::Millis;

/// Why nothing new is started.
#[derive(Clone, Debug, Default)]
pub(super) struct Pause {
    /// What is wrong with a disk, and since when.
    disk: Option<(String, Millis)>,
    /// Attempts whose process cannot be had yet: what the system says, and since when.
    unstarted: BTreeMap<(TaskId, Role), (String, Millis)>,
    /// Who keeps everybody else from starting anything, and since when; that is tried again all the while.
    locked: Option<(String, Millis)>,
}

impl Pause {
    /// Whether nothing new is started.
    pub(super) fn is_on(&self) -> bool {
        self.disk.is_some() || !self.unstarted.is_empty()
    }

    /// Returns why, and since when.
    pub(super) fn reason(&self) -> Option<(Reason, Millis)> {
        if let Some((words, since)) = &self.disk {
            return Some((Reason::Disk { words: words.clone() }, *since));
        }
        if let Some((words, since)) = &self.locked {
            return Some((Reason::Locked { words: words.clone() }, *since));
        }
        let first = self.unstarted.values().min_by_key(|(_, since)| *since);
        first.map(|(words, since)| (Reason::Start { words: words.clone() }, *since))
    }

    /// Yields the tasks that were to start, one by one.
    pub(super) fn unstarted(&self) -> impl Iterator<Item = Waiting> {
        self.unstarted.iter().map(|((task, _), (words, since))| Waiting {
            tasks: vec![*task],
            count: 1,
            since: *since,
            reason: Reason::Start { words: words.clone() },
        })
    }
}

impl Dispatcher<'_> {
    /// Starts nothing new as long as something is wrong with a disk.
    pub fn pause(&mut self, disk: Option<String>, now: Millis) {
        let since = self.pause.disk.as_ref().map_or(now, |(_, since)| *since);
        self.pause.disk = disk.map(|words| (words, since));
    }

    /// Says that nothing is started because somebody else has locked what it takes, or no longer.
    pub fn keep_waiting(&mut self, locked: Option<String>, since: Millis) {
        self.pause.locked = locked.map(|words| (words, since));
    }

    /// Takes in that the process of an attempt cannot be had yet; whether that is so of no other. Nothing else is started
    /// before it is.
    pub fn cannot_start(&mut self, (task, role): (TaskId, Role), words: String, now: Millis) -> bool {
        let is_first = self.pause.unstarted.is_empty();
        self.pause.unstarted.insert((task, role), (words, now));
        is_first
    }

    /// Forgets that an attempt waits for its process: it has one, or needs none any more.
    pub(super) fn need_not_start(&mut self, task: TaskId, role: Role) {
        self.pause.unstarted.remove(&(task, role));
    }
}
