//! From the text of a pipeline file to a checked [`Pipeline`]: every problem has a place, and all are found at once.
//!
//! Knows the file format and the parameters of built-in stages; does not know tasks, devices or the file system.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::units::{Bytes, Cpus, Millis, Share};

pub mod backup;
mod common;
pub mod decode;
mod form;
pub mod keys;
mod on_finish;
pub mod op;
mod parse;
pub mod problem;
mod quoted;
mod resources;
mod retry;
mod sets;
mod stage;
mod suspend;
pub mod template;
pub mod tree;
mod value;
mod with;

pub use parse::{Parsed, parse};
pub use problem::{Problem, Source, Span};
pub use with::op_params;

/// A checked definition: what the user wrote, with defaults and `--set` overrides applied.
#[derive(Clone, Debug, Default)]
pub struct Pipeline {
    /// `name`, or the file's stem.
    pub name: String,
    /// `[env]`: given to every stage.
    pub env: BTreeMap<String, String>,
    /// Who is told that a run is over.
    pub on_finish: Option<OnFinish>,
    /// The stages in the order of the file.
    pub stages: Vec<Stage>,
}

/// Who is told that a run is over, and how often that is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnFinish {
    /// A shell line.
    pub run: Option<String>,
    /// An address that is sent a POST: `http://…` or `https://…`.
    pub webhook: Option<String>,
    /// How long one try may take.
    pub timeout: Millis,
    /// Tries after the first.
    pub retries: u32,
    /// Wait before the second try; doubled for each further one.
    pub backoff: Millis,
    /// The longest wait.
    pub backoff_most: Millis,
}

impl Default for OnFinish {
    fn default() -> Self {
        let (timeout, backoff, backoff_most) = (Millis(30_000), Millis(1_000), Millis(60_000));
        Self { run: None, webhook: None, timeout, retries: 3, backoff, backoff_most }
    }
}

/// One step that the user wrote.
#[derive(Clone, Debug, Default)]
pub struct Stage {
    /// Unique; letters, digits, `_`, `.` and `-`.
    pub name: String,
    /// Where the name stands in the file.
    pub span: Span,
    /// `preprocess`, `feature`, `train`, `evaluate`, or any other word; `task` when absent.
    pub kind: String,
    /// What it does. Text may hold `{matrix.x}`, `{inputs}` and `{outputs}`.
    pub action: Action,
    /// Files it reads; a `*` stands for anything but `/` and matches declared outputs and existing files.
    pub inputs: Vec<Located>,
    /// Files it must have written when it succeeds.
    pub outputs: Vec<Output>,
    /// Stages that come before it, besides those it reads from.
    pub after: Vec<After>,
    /// The axes of its matrix, in the order of the file; empty for a single task.
    pub matrix: Vec<Axis>,
    /// Ways to run it, of which the planner chooses one: at least one.
    pub modes: Vec<Mode>,
    /// Larger goes first where the plan leaves a choice.
    pub priority: i64,
    /// When an attempt is given up.
    pub limits: Limits,
    /// What happens after a failed attempt.
    pub retry: Retry,
    /// Whether a second attempt may run beside the first one.
    pub backup: Option<Backup>,
    /// How its tasks are kept to the device memory that is reserved for them.
    pub memory_limit: MemoryLimit,
    /// Where the stage itself says so.
    pub memory_limit_at: Option<Span>,
    /// Added to the pipeline's `env`.
    pub env: BTreeMap<String, String>,
    /// Folder that the command runs in, relative to the pipeline file; the pipeline file's own folder when absent.
    pub cwd: Option<Located>,
    /// Whether it is left out while nothing that it depends on has changed, where the file says so.
    pub cache: Option<bool>,
}

impl Stage {
    /// Whether its results are kept and it is left out while they hold: unless the file says otherwise, where it has
    /// outputs.
    #[must_use]
    pub fn is_cached(&self) -> bool {
        self.cache.unwrap_or(!self.outputs.is_empty())
    }
}

/// Returns what a pipeline says without effect, and where: no reason to reject it.
#[must_use]
pub fn without_effect(pipeline: &Pipeline) -> Vec<Problem> {
    let limited = pipeline.stages.iter().filter(|stage| stage.memory_limit != MemoryLimit::None);
    let idle = limited.filter(|stage| stage.modes.iter().all(|mode| mode.resources.gpus == Gpus::None));
    idle.filter_map(|stage| {
        let words = format!("`memory_limit` has no effect: `{}` asks for no GPU", stage.name);
        let help = "it is about GPU memory; what `resources.memory` reserves of the host's is not limited by it";
        Some(Problem::new(stage.memory_limit_at.clone()?, words).help(help))
    })
    .collect()
}

/// A text and where it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Located {
    /// The text.
    pub text: String,
    /// Its place.
    pub span: Span,
}

/// What a stage does.
#[derive(Clone, Debug)]
pub enum Action {
    /// A line for `sh -c`.
    Shell(Located),
    /// A program and its arguments, run without a shell.
    Exec(Vec<Located>),
    /// A built-in op with its parameters.
    Op {
        /// Which one: a name of [`op::CATALOGUE`].
        name: Located,
        /// `with`: parameters, checked against the catalogue at every point of the matrix.
        with: Vec<(Located, Value, Span)>,
    },
}

impl Default for Action {
    fn default() -> Self {
        Self::Exec(Vec::new())
    }
}

/// A value as TOML writes it: a parameter of an op or a point of a matrix axis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)] // a value of our own making, written and read back by us: no span is lost
pub enum Value {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number with a fraction.
    Float(f64),
    /// A text.
    Text(String),
    /// Several values.
    List(Vec<Value>),
}

/// A file that a stage promises.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Path relative to the pipeline file.
    pub path: Located,
    /// Estimate of its size, for placing the readers near it.
    pub size: Bytes,
}

/// A stage that comes before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct After {
    /// Its name.
    pub stage: Located,
    /// Data that moves along this edge.
    pub data: Bytes,
}

/// One axis of a matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// The word in `{matrix.word}`.
    pub name: Located,
    /// Its points, in the order of the file.
    pub points: Vec<Value>,
}

/// One way to run a stage.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mode {
    /// What it holds while it runs.
    pub resources: Resources,
    /// How long it takes.
    pub duration: Duration,
    /// What it uses up of the fleet's budgets.
    pub spend: BTreeMap<String, u64>,
    /// The mode before it, on the CPU instead (`gpus = "prefer"`): planned only if no device of the fleet, idle, could
    /// ever hold that one. Who takes it says so. A run also takes it where waiting for a device would take longer.
    pub fallback: bool,
    /// With `gpu_memory = "auto"`: what it holds of devices once it is known how much memory it needs. Until then it
    /// holds whole devices, and `resources` say so.
    pub auto: Option<Gpus>,
    /// The most memory of a device that earlier runs have seen it hold with that, or find too little; zero where none has.
    pub seen: Bytes,
    /// Where it stands in the file.
    pub span: Span,
}

/// How long a stage takes on a device of speed 1, if the user said so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Duration {
    /// On a device of speed 1.
    pub base: Option<Millis>,
    /// On devices of a named model, whatever their speed.
    pub by_model: BTreeMap<String, Millis>,
}

/// What a task holds while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Resources {
    /// Host CPUs; 1 when absent.
    pub cpus: Cpus,
    /// Host memory.
    pub memory: Bytes,
    /// Devices, and how much of each.
    pub gpus: Gpus,
    /// Device memory, on each device.
    pub gpu_memory: Bytes,
    /// Whether it wants all the memory of whole devices, those with so much of it; without a number it always does.
    pub alone: bool,
    /// Any other countable resource that a node declares.
    pub custom: BTreeMap<String, u64>,
    /// Whether it may be stopped and continued, and so take turns with others at the share of its device.
    pub suspend: bool,
}

impl Resources {
    /// Whether nobody else may hold memory of its devices, not even a stranger.
    #[must_use]
    pub fn wants_all_memory(&self) -> bool {
        matches!(self.gpus, Gpus::Whole(_)) && (self.alone || self.gpu_memory == Bytes::ZERO)
    }

    /// Whether it is known how much of a device's memory it gets: by a number, or as large a part as of the device.
    #[must_use]
    pub fn reserves_memory(&self) -> bool {
        match self.gpus {
            Gpus::None => false,
            Gpus::Share(_) => true,
            Gpus::Whole(_) | Gpus::Shared => self.gpu_memory > Bytes::ZERO,
        }
    }

    /// Returns the share of a device for which it can take turns with others.
    #[must_use]
    pub const fn turn(&self) -> Option<Share> {
        match self.gpus {
            Gpus::Share(share) if self.suspend => Some(share),
            Gpus::None | Gpus::Whole(_) | Gpus::Share(_) | Gpus::Shared => None,
        }
    }
}

/// How many devices, and how much of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Gpus {
    /// None: it runs on the host.
    #[default]
    None,
    /// So many whole devices of one node, to itself.
    Whole(u32),
    /// This share of one device.
    Share(Share),
    /// One device shared with others, memory being the only limit: `gpu_memory` without `gpus`.
    Shared,
}

impl Gpus {
    /// Returns the share that is taken of each device.
    #[must_use]
    pub const fn share(self) -> Share {
        match self {
            Self::Whole(_) => Share::WHOLE,
            Self::Share(share) => share,
            Self::None | Self::Shared => Share::ZERO,
        }
    }

    /// Returns whole devices, as many as were asked for: one in place of a part of it.
    #[must_use]
    pub const fn whole(self) -> Self {
        match self {
            Self::Share(_) | Self::Shared => Self::Whole(1),
            Self::None | Self::Whole(_) => self,
        }
    }
}

/// When an attempt is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Wall time of one attempt.
    pub timeout: Option<Millis>,
    /// Time without output.
    pub idle_timeout: Option<Millis>,
    /// Time until the first output.
    pub first_output_timeout: Option<Millis>,
    /// Time between SIGTERM and SIGKILL.
    pub grace: Millis,
    /// Most that is kept of what an attempt prints.
    pub log: Bytes,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            timeout: None,
            idle_timeout: None,
            first_output_timeout: None,
            grace: Millis(30_000),
            log: Bytes(256 << 20),
        }
    }
}

/// How a task is kept to the device memory that is reserved for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemoryLimit {
    /// Not at all.
    #[default]
    None,
    /// It is ended when it is seen to hold more.
    Watch,
    /// The frameworks are told by their variables.
    Framework,
    /// The MPS server refuses it more.
    Mps,
}

impl MemoryLimit {
    /// The words for them, in their order.
    pub const WORDS: &'static [&'static str] = &["none", "watch", "framework", "mps"];

    /// Returns the word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        Self::WORDS[self as usize]
    }

    /// Returns the one that a word means.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        [Self::None, Self::Watch, Self::Framework, Self::Mps].into_iter().find(|limit| limit.word() == word)
    }
}

/// What happens after a failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Attempts after the first.
    pub retries: u32,
    /// The failures after which there may be another; any where it is empty.
    pub on: Vec<Failures>,
    /// Attempts after those that ran out of memory; these do not count as `retries`.
    pub oom_retries: u32,
    /// Wait before the second attempt; doubled for each further one.
    pub backoff: Millis,
    /// The longest wait.
    pub backoff_most: Millis,
}

/// When a second attempt of a task starts beside the first one; the first to succeed wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backup {
    /// Once the first one has taken so many thousandths of its expected time.
    After {
        /// More than 1,000.
        thousandths: u64,
    },
    /// As soon as there is room for it.
    AtOnce,
}

/// Failures of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failures {
    /// Any that another attempt could help.
    Any,
    /// One of these exit codes.
    Exit(RangeInclusive<u8>),
    /// One of these signals.
    Signal(RangeInclusive<u8>),
    /// A limit passed.
    TimedOut,
    /// It ran out of memory, and more of it cannot be had.
    OutOfMemory,
    /// A promised output was not there.
    OutputMissing,
}

impl Default for Retry {
    fn default() -> Self {
        Self { retries: 0, on: Vec::new(), oom_retries: 3, backoff: Millis(1_000), backoff_most: Millis(300_000) }
    }
}
