//! What attempts left behind: processes that carry our marks though their attempt is over or nobody carries it out.
//!
//! Found by the marks in their environment, never by name. Whether an attempt is over is the record's business: it is
//! asked through a function. Processes of other users, whose environment we may not read, are not seen.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{end, process};
use crate::run::event::Process;

/// How long processes may take to end, all of them together, before they are killed.
const GRACE: Duration = Duration::from_secs(10);

/// A process that carries our marks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marked {
    /// The process.
    pub process: Process,
    /// Its run.
    pub run: String,
    /// Its task.
    pub task: String,
    /// Its attempt, counted from 1.
    pub attempt: u32,
    /// The run's folder, as its environment tells.
    pub dir: PathBuf,
}

/// Returns all processes that carry our marks, ascending.
#[must_use]
pub fn marked() -> Vec<Marked> {
    let mut found: Vec<_> = process::pids().filter(|pid| *pid != std::process::id()).filter_map(look_at).collect();
    found.sort_by_key(|marked| marked.process.pid);
    found
}

fn look_at(pid: u32) -> Option<Marked> {
    let process = process::identify(pid)?;
    let marks = ["TRAINYARD_RUN", "TRAINYARD_TASK", "TRAINYARD_ATTEMPT", "TRAINYARD_EVENTS"];
    let [run, task, attempt, events] = process::marked(pid, marks)?;
    // `RUN/events/TASK.ATTEMPT.jsonl`
    let dir = Path::new(&events).parent()?.parent()?.to_owned();
    Some(Marked { process, run, task, attempt: attempt.parse().ok()?, dir })
}

/// Whether somebody who is not part of the run itself carries a marked process out: a trainyard above it, whose record may
/// not be within our reach.
#[must_use]
pub fn is_attended(marked: &Marked) -> bool {
    let mark = [format!("TRAINYARD_RUN={}", marked.run)];
    let above = std::iter::successors(process::parent(marked.process.pid), |pid| process::parent(*pid))
        .take_while(|pid| *pid > 1);
    let mut outside = above.filter(|pid| !process::is_marked(*pid, &mark));
    outside.any(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == "trainyard"))
}

/// Ends processes: SIGTERM, ten seconds for all, SIGKILL. Returns those that are still there, which a process in an
/// uninterruptible system call may be.
#[must_use]
pub fn end(processes: &[Process]) -> Vec<Process> {
    let alive = || processes.iter().copied().filter(|process| process::is_alive(*process));
    let pids = || alive().map(|process| process.pid).collect::<Vec<_>>();
    end::end(&pids(), GRACE, 1, pids);
    alive().collect()
}
