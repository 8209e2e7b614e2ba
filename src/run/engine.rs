//! What a run asks of whatever carries its attempts out: start this, tell me how it goes, end everything.
//!
//! The seam between deciding and doing: the local engine starts processes, the tests' engine plays a script.

use std::path::PathBuf;

use super::cache::restore::Found;
use super::event::{Process, Role};
use super::observer::Progress;
use super::outcome::{Outcome, Usage};
use super::ports::Port;
use crate::graph::TaskId;
use crate::spec::Limits;
use crate::units::Millis;

/// Everything an engine needs to know to carry out one attempt.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    /// The task, for the reports.
    pub task: TaskId,
    /// Which of its attempts, for the reports.
    pub role: Role,
    /// The program.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Where it runs.
    pub cwd: PathBuf,
    /// Added to our own environment, later entries over earlier ones.
    pub env: Vec<(String, String)>,
    /// Entries that no other attempt has: what is left of this one is found by them.
    pub marks: Vec<String>,
    /// Folders that must exist before it starts.
    pub folders: Vec<PathBuf>,
    /// A file to write before it starts, and its text: the job of a built-in op.
    pub job: Option<(PathBuf, String)>,
    /// Files that must exist after it succeeded: as the pipeline names them, and where they are.
    pub outputs: Vec<(String, PathBuf)>,
    /// Where it writes instead of where its outputs are wanted, if another attempt may run beside it.
    pub staging: Option<Staging>,
    /// Where its output goes; made once it prints.
    pub log: PathBuf,
    /// Where its sentinel records what becomes of it; without it, it has none and ends with the orchestrator.
    pub sentinel: Option<PathBuf>,
    /// Where it may write its progress.
    pub events: PathBuf,
    /// Where what is heard of its progress is kept; made once there is any.
    pub progress: PathBuf,
    /// When it is given up.
    pub limits: Limits,
    /// Whether it may be suspended.
    pub suspends: bool,
    /// For how long it was suspended before it was adopted.
    pub stood: Millis,
    /// The port that it was given, which its sentinel keeps for it.
    pub port: Option<Port>,
    /// CPUs that it is to run on; any where there are none.
    pub cpus: Vec<u32>,
    /// Ids of its devices, the first of which an out-of-memory is put down to.
    pub devices: Vec<String>,
}

/// A place of an attempt's own, from which its outputs are moved to where they are wanted once it has succeeded first.
#[derive(Clone, Debug, Default)]
pub struct Staging {
    /// The folder. [`Launch::outputs`] lie in it.
    pub folder: PathBuf,
    /// Where each of the outputs is wanted, in their order.
    pub wanted: Vec<PathBuf>,
    /// Where to put what a failed attempt left, or what is in the way of a good one.
    pub aside: PathBuf,
}

/// What an engine reports about a running attempt.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// Its process exists.
    Spawned {
        /// The task.
        task: TaskId,
        /// Which of its attempts.
        role: Role,
        /// The process.
        process: Process,
    },
    /// The system has no process or file to spare for it now. It is tried again until there is one, or it is not wanted
    /// any more; said once.
    HeldUp {
        /// The task.
        task: TaskId,
        /// Which of its attempts.
        role: Role,
        /// What the system said.
        reason: String,
    },
    /// It printed something. Sent only where someone wants to see it.
    Printed {
        /// The task.
        task: TaskId,
        /// Which of its attempts.
        role: Role,
        /// The bytes, not whole lines.
        output: Vec<u8>,
    },
    /// It said how far it is.
    Progressed {
        /// The task.
        task: TaskId,
        /// Which of its attempts.
        role: Role,
        /// How far.
        progress: Progress,
    },
    /// It ended, and nothing of it runs any more.
    Ended(Ended),
    /// A task was looked up that might be up to date.
    LookedUp {
        /// The task.
        task: TaskId,
        /// Whether it is.
        found: Found,
    },
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The task.
    pub task: TaskId,
    /// Which of its attempts.
    pub role: Role,
    /// How.
    pub outcome: Outcome,
    /// What it used.
    pub usage: Usage,
    /// Whether its log holds anything.
    pub logged: bool,
    /// Whether it printed the trace of an exception: what it failed of.
    pub traced: bool,
    /// Whether it printed that a device let it not in, since it is busy.
    pub turned_away: bool,
    /// Something about the ending that a person should read: processes left behind, a log cut short.
    pub note: Option<String>,
}

impl Ended {
    /// The end of an attempt that never began.
    #[must_use]
    pub fn never_began(launch: &Launch, outcome: Outcome, note: Option<String>) -> Self {
        Self {
            task: launch.task,
            role: launch.role,
            outcome,
            usage: Usage::default(),
            logged: false,
            traced: false,
            turned_away: false,
            note,
        }
    }
}

/// How urgently attempts are to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// Not at all.
    #[default]
    No,
    /// SIGTERM, then SIGKILL after the grace.
    Gracefully,
    /// SIGKILL.
    Now,
}

/// Somewhere attempts can run.
pub trait Engine {
    /// Starts an attempt; its reports follow, the last of which is always [`Report::Ended`]. Behind a stop of everything
    /// none begins: it is reported as interrupted.
    fn start(&mut self, launch: Launch);

    /// Attends to an attempt that an earlier orchestrator started `age` ago and whose sentinel lives or has recorded its
    /// end; its reports follow, the last of which is always [`Report::Ended`].
    fn adopt(&mut self, launch: Launch, sentinel: Process, age: Millis);

    /// Waits for the next report. Losing the future loses no report.
    fn next_report(&mut self) -> impl Future<Output = Report>;

    /// Returns a report that is there already.
    fn ready_report(&mut self) -> Option<Report>;

    /// Ends all attempts that run.
    fn stop(&mut self, how: Stop);

    /// Ends one attempt of a task, if it runs.
    fn stop_task(&mut self, task: TaskId, role: Role, how: Stop);

    /// Stops everything that an attempt has started, or lets it go on. One that is ended meanwhile goes on for that.
    fn suspend(&mut self, task: TaskId, role: Role, suspended: bool);

    /// Looks whether a task is up to date; whether [`Report::LookedUp`] follows. Without a cache nothing ever is.
    fn look_up(&mut self, task: TaskId) -> bool {
        let _ = task;
        false
    }

    /// Takes in that a task's success is on record: what it made may be kept.
    fn keep(&mut self, task: TaskId) {
        let _ = task;
    }

    /// Waits until everything is done that follows from attempts that have ended. Losing the future loses only that.
    fn settle(&mut self) -> impl Future<Output = ()> {
        std::future::ready(())
    }
}
