//! Whether a task is up to date, and if not, why. Plain values: how they are said is the report's business.

use super::key::Change;
use crate::graph::TaskId;

/// Whether a task is up to date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing that it depends on has changed since it made what is there.
    Cached(Cached),
    /// It runs.
    Runs(Why),
    /// It runs if a task before it, which runs, makes something else than before.
    MayRun {
        /// That task.
        after: TaskId,
    },
    /// It may be what it makes that another run writes just now: it is looked up again once that has ended.
    BeingWritten,
    /// It is done already: the run is being resumed.
    Done,
}

impl Verdict {
    /// Whether the task is up to date.
    #[must_use]
    pub const fn is_cached(&self) -> bool {
        matches!(self, Self::Cached(_))
    }
}

/// What is known of a task that is up to date.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cached {
    /// What it printed when it ran, as a path in the state folder, if it printed anything.
    pub log: Option<String>,
    /// Outputs that were not there, or not as it made them, and were or are to be restored.
    pub restored: Vec<String>,
}

/// Why a task runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is not one that is ever left out.
    Always(Always),
    /// The user wants it.
    Forced,
    /// It has not succeeded before, or what it made could not be kept: a link, say, or of inputs that changed meanwhile.
    New,
    /// Something that it depends on is not as it was.
    Changed(Vec<Change>),
    /// What it made is gone, also from the cache: the first of its outputs that is.
    OutputsGone(String),
    /// It was made while nobody was there to keep it, and this output was changed or removed since.
    ChangedSince(String),
    /// What it depends on cannot be read.
    Unreadable(String),
}

/// Why a task is never left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Always {
    /// The file says `cache = false`.
    Off,
    /// It has no outputs: nobody can see whether it is up to date.
    NoOutputs,
    /// It reads files of a folder that is its own output, and nothing may be moved from there.
    ReadsOwnOutputs,
    /// Its outputs lie in those of another task, or the other way round: they cannot be told apart.
    SharesOutputs,
    /// The state folder lies in its output.
    HoldsState,
}
