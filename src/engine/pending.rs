//! Attempts for which the system has no process or file to spare: they start once it has, the first one first.
//!
//! They are tried again whenever an attempt of ours has ended, and now and then besides: whatever else takes the room may
//! be somebody else's.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::room::is_scarce;
use super::supervise::Wish;
use crate::run::engine::{Launch, Stop};

/// How soon it is tried again where nothing of ours ends; from then on twice as long each time, up to the most.
const WAIT: Duration = Duration::from_millis(100);
const MOST: Duration = Duration::from_secs(5);

/// An attempt before it has a process, and what is wanted of it.
pub(super) type Unstarted = (Launch, watch::Receiver<Wish>);

/// Why there is no process.
#[derive(Debug)]
pub(super) struct Refusal {
    /// What the system said.
    pub(super) reason: String,
    /// Whether it may say otherwise later.
    pub(super) is_scarce: bool,
}

impl Refusal {
    /// What the system said, in words that tell of what.
    pub(super) fn of(error: &io::Error, words: impl FnOnce(&io::Error) -> String) -> Self {
        Self { reason: words(error), is_scarce: is_scarce(error) }
    }
}

/// Attempts that wait for their process.
#[derive(Debug)]
pub(super) struct Pending {
    waiting: VecDeque<Unstarted>,
    /// When to try again, and how long after that.
    due: Instant,
    wait: Duration,
}

impl Pending {
    pub(super) fn new() -> Self {
        Self { waiting: VecDeque::new(), due: Instant::now(), wait: WAIT }
    }

    /// Returns when to try again, if anything waits.
    pub(super) fn due(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then_some(self.due)
    }

    /// Lets an attempt wait that could not be started for the first time.
    pub(super) fn push(&mut self, attempt: Unstarted) {
        if self.waiting.is_empty() {
            self.wait = WAIT;
            self.due = Instant::now() + WAIT;
        }
        self.waiting.push_back(attempt);
    }

    /// Returns the next one to be tried.
    pub(super) fn next(&mut self) -> Option<Unstarted> {
        self.waiting.pop_front()
    }

    /// Lets one wait again that was tried.
    pub(super) fn refuse(&mut self, attempt: Unstarted) {
        self.wait = MOST.min(self.wait * 2);
        self.due = Instant::now() + self.wait;
        self.waiting.push_front(attempt);
    }

    /// Takes in that an attempt has ended: the next one may have room now.
    pub(super) fn take_heart(&mut self) {
        (self.wait, self.due) = (WAIT, Instant::now());
    }

    /// Returns those that are not wanted any more.
    pub(super) fn unwanted(&mut self) -> Vec<Launch> {
        let (wanted, not): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|(_, wish)| wish.borrow().stop == Stop::No);
        self.waiting = wanted;
        not.into_iter().map(|(launch, _)| launch).collect()
    }
}
