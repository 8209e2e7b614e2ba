//! What is known of a run without its events. Plain values: where they are kept is the store's business.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::fleet::Headroom;
use crate::graph::TaskId;
use crate::run::event::{Process, RunEnd};
use crate::run::within::Within;
use crate::units::Millis;

/// The step of the format that keeps the tasks of a run apart: its row changes with its state, and a row is written as a
/// whole.
pub(super) const STEP: &str = "
CREATE TABLE task_list (
    run INTEGER PRIMARY KEY REFERENCES run(key),
    tasks TEXT NOT NULL
) STRICT;
INSERT INTO task_list SELECT key, tasks FROM run;
UPDATE run SET tasks = '';
";

/// What is known of a run before its first event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Unique in the state folder, and told apart by its first letters: `20261121-093015-digits-4f2a`.
    pub id: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// The pipeline file, absolute.
    pub file: String,
    /// Who carries it out.
    pub orchestrator: Orchestrator,
    /// When it started, ms since the Unix epoch.
    pub started: Millis,
    /// How it was called, so that it can be resumed alike.
    pub invocation: Invocation,
    /// `[n_tasks]`, by TaskId.
    pub tasks: Vec<TaskHeader>,
}

/// How a run was called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Invocation {
    /// BLAKE3 of the pipeline file in hexadecimal digits; empty where it is not known.
    pub file_digest: String,
    /// `--set`, in order.
    pub sets: Vec<String>,
    /// `--max-tasks`.
    pub max_tasks: usize,
    /// `--jobs`.
    pub jobs: Option<usize>,
    /// `--keep-going`.
    pub keep_going: bool,
    /// `--survive`, or `--detach`.
    pub survive: bool,
    /// `--force`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// `--force-stage`, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub force_stages: Vec<String>,
    /// `--name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How tasks that may be suspended take turns, where they do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turns: Option<Turns>,
    /// `--headroom`, or what the variable said instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headroom: Option<Headroom>,
}

/// How turns are taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turns {
    /// `--policy`.
    pub policy: String,
    /// `--quantum`.
    pub quantum: Millis,
}

/// The process that carries a run out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orchestrator {
    /// The host's name.
    pub host: String,
    /// The host's boot id, so that a process number of an earlier boot is not taken for a later process.
    pub boot: String,
    /// The PID namespace in which its number means it, as the kernel counts them; not known of records of earlier versions.
    pub pids: Option<u64>,
    /// The process.
    pub process: Process,
    /// The tasks of other runs that it is part of.
    pub within: Within,
}

/// What is recorded of a task before anything happens to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskHeader {
    /// Its name.
    pub name: String,
    /// Its stage's name.
    pub stage: String,
    /// When the plan starts and ends it, ms from the start of the plan.
    pub planned: (Millis, Millis),
    /// When the plan lets it run in between, from and to, where it is suspended for a while.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pieces: Vec<(Millis, Millis)>,
    /// Where the plan puts it: ids of devices, or `node/cpu`. Empty in records of earlier versions, like what follows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<String>,
    /// What it comes after.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<TaskId>,
    /// What it writes, as the pipeline names it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<String>,
    /// Whether the plan has no slack for it.
    #[serde(default)]
    pub critical: bool,
}

/// A recorded run without its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRow {
    /// What was known at its start.
    pub header: Header,
    /// The folder of its logs and checkpoints.
    pub dir: PathBuf,
    /// When (ms since the Unix epoch) and how it ended, if it did.
    pub end: Option<(Millis, RunEnd)>,
}
