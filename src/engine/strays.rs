//! What attempts leave behind whatever they did to its environment: this process makes itself the parent of every process
//! below it whose own parent has ended (`PR_SET_CHILD_SUBREAPER`, see prctl(2)).
//!
//! Nobody has written down which attempt such a process comes from. One that holds the attempt's output open is known by
//! that; the others are found at the end of the run, like those that carry our marks and have hidden. A process that is made the
//! parent also has to take the dead off the process table.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::end::{ROUNDS, end};
use super::process;

/// How often the dead are looked for while attempts run: one read of a small file.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Makes this process the parent of what its descendants leave. Where the system cannot, what carries no mark is not found.
pub fn adopt_orphans() {
    if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        tracing::debug!(%error, "what tasks leave without our marks is not found");
    }
}

/// Returns the children of this process's first thread: what it started there, and what it was made the parent of.
fn children() -> Vec<u32> {
    let own = std::process::id();
    let listed = fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
    listed.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Returns the children of this process that run and that nobody awaits, but for one; takes the dead among them off the
/// process table. Those that carry the mark of a run, this one or another, are not meant.
#[must_use]
pub fn adopted(but: Option<u32>) -> Vec<u32> {
    let unawaited = children().into_iter().filter(|pid| Some(*pid) != but);
    unawaited.filter(|pid| process::reap(*pid).is_none() && is_meant(*pid)).collect()
}

/// Returns the children of this process that hold the other end of this pipe.
pub(super) fn holding(output: impl AsFd) -> Vec<u32> {
    let Ok(pipe) = rustix::fs::fstat(output) else { return Vec::new() };
    let link = format!("pipe:[{}]", pipe.st_ino);
    let own = std::process::id();
    let holds = |pid: &u32| {
        let opened = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        opened.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|to| to.as_os_str() == link.as_str())
    };
    children().into_iter().filter(|pid| *pid != own && holds(pid)).collect()
}

/// Returns what runs below any of these processes and carries the mark of no run: what was started with another
/// environment.
pub(super) fn unmarked_below(roots: &[u32]) -> Vec<u32> {
    let mut below: HashMap<u32, Vec<u32>> = HashMap::new();
    for (pid, parent) in process::table() {
        below.entry(parent).or_default().push(pid);
    }
    let own = std::process::id();
    let (mut found, mut open) = (Vec::new(), roots.to_vec());
    while let Some(pid) = open.pop() {
        let children = below.remove(&pid).unwrap_or_default();
        for child in children.into_iter().filter(|child| *child != own && is_meant(*child)) {
            found.push(child);
            open.push(child);
        }
    }
    found
}

/// Returns what is in a process group that one of these processes leads and carries the mark of no run: what was started
/// with another environment, also where its parent has ended since.
pub(super) fn unmarked_beside(leaders: &[u32]) -> Vec<u32> {
    let is_led = |(pid, group): &(u32, u32)| pid != group && leaders.contains(group);
    process::groups().filter(is_led).map(|(pid, _)| pid).filter(|pid| is_meant(*pid)).collect()
}

/// Whether a process carries the mark of no run and may be ended by us: one of another user may not.
fn is_meant(pid: u32) -> bool {
    process::marked(pid, ["TRAINYARD_RUN"]).is_none() && process::may_signal(pid)
}

/// Whether a process has left our session, as a daemon does, and carries the mark of a run, by which it is found later.
pub(super) fn is_daemon(pid: u32) -> bool {
    process::session(pid) != process::session(std::process::id()) && process::marked(pid, ["TRAINYARD_RUN"]).is_some()
}

/// Ends what this process was made the parent of, but for those that are `spared`: SIGTERM, the grace, SIGKILL; again for
/// what that leaves. Returns whether there was anything.
pub(super) fn end_adopted(grace: Duration, spared: impl Fn(u32) -> bool) -> bool {
    let is_left = |pid: &u32| process::reap(*pid).is_none() && process::may_signal(*pid) && !spared(*pid);
    let alive = || children().into_iter().filter(is_left).collect::<Vec<_>>();
    let left = alive();
    if left.is_empty() {
        return false;
    }
    end(&left, grace, ROUNDS, alive);
    true
}

/// The children of an orchestrator that are attempts, each awaited by what attends to it.
#[derive(Debug, Default)]
pub(super) struct Awaited(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    attempts: HashSet<u32>,
    looked: Option<Instant>,
}

impl Awaited {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the process of an attempt. Nobody takes it for an orphan in between.
    pub(super) fn start<T, E>(&self, start: impl FnOnce() -> Result<(u32, T), E>) -> Result<(u32, T), E> {
        let mut known = self.known();
        let started = start()?;
        known.attempts.insert(started.0);
        Ok(started)
    }

    /// Forgets an attempt that was taken off the process table.
    pub(super) fn forget(&self, pid: u32) {
        self.known().attempts.remove(&pid);
    }

    /// Takes orphans that have ended off the process table.
    pub(super) fn bury(&self) {
        let known = self.known();
        for pid in children().into_iter().filter(|pid| !known.attempts.contains(pid)) {
            let _ = process::reap(pid);
        }
    }

    /// The same, unless that was done a moment ago.
    pub(super) fn bury_now_and_then(&self, now: Instant) {
        let looked = self.known().looked.replace(now);
        match looked.filter(|looked| now < *looked + LOOK_EVERY) {
            Some(looked) => self.known().looked = Some(looked),
            None => self.bury(),
        }
    }
}
