//! The keys of a pipeline file: the one table that decoding, "did you mean" and the JSON Schema read.
//!
//! Knows words, meanings and bounds; reading the values is [`parse`](super::parse())'s business.

use std::ops::RangeInclusive;

use super::MemoryLimit;
use super::decode::{Form, Key};

/// Attempts after the first.
pub const RETRIES: RangeInclusive<i64> = 0..=1_000;
/// CPUs of one task: more than any machine has, and exact in thousandths.
pub const CPUS: RangeInclusive<f64> = 0.0..=1_000_000.0;
/// Whole devices of one task: more than any node has.
pub const DEVICES: RangeInclusive<i64> = 0..=1_024;
/// Countable resources and money: sums over a million tasks still fit into 64 bits.
pub const COUNT: RangeInclusive<i64> = 0..=1_000_000_000_000;
/// Priorities: sums along any path still fit into 64 bits.
pub const PRIORITY: RangeInclusive<i64> = -1_000_000_000..=1_000_000_000;
/// What `gpus` may say besides a number.
pub const PREFER: &str = "prefer";
/// What `gpu_memory` may say besides a size.
pub const AUTO: &str = "auto";

/// Variables that every task is started with, whatever `env` would say.
pub const SET_FOR_TASKS: [&str; 10] = [
    "CUDA_DEVICE_ORDER",
    "CUDA_VISIBLE_DEVICES",
    "TRAINYARD_RUN",
    "TRAINYARD_TASK",
    "TRAINYARD_WITHIN",
    "TRAINYARD_ATTEMPT",
    "TRAINYARD_GPU_MEMORY",
    "TRAINYARD_OUTPUTS",
    "TRAINYARD_CHECKPOINT_DIR",
    "TRAINYARD_EVENTS",
];

/// A backup's start, in expected times: above one, since before it nothing says that a task is slow.
pub const AFTER: RangeInclusive<f64> = 1.001..=1_000.0;
/// Attempts of a task at once.
pub const REPLICAS: RangeInclusive<i64> = 1..=2;

/// How a failure is written in `retry`.
const FAILURE: &str = "^((exit|signal)(:[0-9]{1,3}(-[0-9]{1,3})?)?|timeout|oom|output-missing|any)$";
const ENV: Form = Form::Map(&Form::Scalar);
const RESOURCES: Form = Form::Table(ResourceKey::FIELDS, Some(&Form::Whole(COUNT)));
const DURATION: Form = Form::OneOf(&[Form::Time, Form::Map(&Form::Time)]);
const SPEND: Form = Form::Map(&Form::Whole(COUNT));

crate::keys! {
    /// Keys at the top of the file.
    pub enum TopKey {
        /// Name of the pipeline in tables and reports; the file's name without its ending when absent.
        Name = "name": Form::Name,
        /// What every stage starts from; a stage's own value goes before.
        Defaults = "defaults": Form::Table(CommonKey::FIELDS, None),
        /// Environment variables of every stage.
        Env = "env": ENV,
        /// Who is told that a run is over, however it ended.
        OnFinish = "on_finish": Form::Table(OnFinishKey::FIELDS, None),
        /// The stages, by name.
        Stage = "stage": Form::Map(&Form::Joined(&[StageKey::FIELDS, CommonKey::FIELDS])),
    }
}

crate::keys! {
    /// Keys of `on_finish`.
    pub enum OnFinishKey {
        /// A shell line, run in the pipeline file's folder with TRAINYARD_RUN, TRAINYARD_PIPELINE and TRAINYARD_OUTCOME.
        Run = "run": Form::Text,
        /// An address that is sent a POST with a JSON object.
        Webhook = "webhook": Form::Like("^https?://[^/?#\\s]"),
        /// How long one try may take; 30 s when absent.
        Timeout = "timeout": Form::Time,
        /// Tries after the first one has failed; 3 when absent.
        Retries = "retries": Form::Whole(RETRIES),
        /// Wait before the second try, doubled for each further one: "5s", or "5s..5m" with the longest wait; "1s..1m" when absent.
        Backoff = "backoff": Form::Text,
    }
}

crate::keys! {
    /// Keys that a stage and `[defaults]` have in common.
    pub enum CommonKey {
        /// What a task holds while it runs: cpus (1 when absent), memory, gpus, gpu_memory, and anything countable that a node declares.
        Resources = "resources": RESOURCES,
        /// Where the plan leaves a choice, larger goes first; 0 when absent.
        Priority = "priority": Form::Whole(PRIORITY),
        /// Attempts after the first one has failed; 0 when absent.
        Retries = "retries": Form::Whole(RETRIES),
        /// Attempts after those that ran out of memory, each with more of it: with half as much again, then alone on a device, then on a larger one. They do not count as `retries`; 3 when absent.
        OomRetries = "oom_retries": Form::Whole(RETRIES),
        /// Wait before the second attempt, doubled for each further one: "5s", or "5s..5m" with the longest wait.
        Backoff = "backoff": Form::Text,
        /// After which failures a task is tried again, how often, and after what wait.
        Retry = "retry": Form::Table(RetryKey::FIELDS, None),
        /// Longest wall time of one attempt; no limit when absent.
        Timeout = "timeout": Form::Time,
        /// Longest time without any output; no limit when absent.
        IdleTimeout = "idle_timeout": Form::Time,
        /// Longest time until the first output; no limit when absent.
        FirstOutputTimeout = "first_output_timeout": Form::Time,
        /// Time between asking a process to end (SIGTERM) and killing it; 30 s when absent.
        Grace = "grace": Form::Time,
        /// Most that is kept of what one attempt prints: its beginning and its end; 256 MiB when absent.
        LogLimit = "log_limit": Form::Size,
        /// How a task is kept to its `gpu_memory`: "watch" ends it when it is seen to hold more, which a driver that hides processes does not allow; "framework" also tells PyTorch, JAX and TensorFlow by their variables, without watching; "mps" lets the MPS server refuse it more, and watches where none runs; "none" when absent.
        MemoryLimit = "memory_limit": Form::Words(MemoryLimit::WORDS),
        /// Environment variables.
        Env = "env": ENV,
        /// Folder that the command runs in, relative to the pipeline file; the pipeline file's own when absent.
        Cwd = "cwd": Form::Text,
        /// Whether it is left out while nothing that it depends on has changed; when absent, true with outputs and false without. A stage that goes on from its own earlier outputs needs false: they are then left in their place.
        Cache = "cache": Form::Bool,
    }
}

crate::keys! {
    /// Keys of `retry`.
    pub enum RetryKey {
        /// The failures after which it is tried again: "exit:75", "exit:1-9" or "exit" for any code; "signal:9" or "signal"; "timeout", "oom", "output-missing", "any". Any failure when absent.
        On = "on": Form::List(&Form::Like(FAILURE)),
        /// Attempts after the first one has failed; 3 when absent.
        Max = "max": Form::Whole(RETRIES),
        /// Wait before the second attempt, doubled for each further one: "5s", or "5s..5m" with the longest wait.
        Backoff = "backoff": Form::Text,
    }
}

crate::keys! {
    /// Keys of `backup`.
    pub enum BackupKey {
        /// When the second attempt starts, in expected times of the task: 1.5 is half as long again. What is expected is `duration`, or what was learned.
        After = "after": Form::Number(AFTER),
    }
}

crate::keys! {
    /// Keys that only a stage has.
    pub enum StageKey {
        /// What kind of step it is: preprocess, feature, train, evaluate, or any other word.
        Kind = "kind": Form::Name,
        /// The command: a line for the shell, or an array of program and arguments, run without a shell.
        Run = "run": Form::OneOf(&[Form::Text, Form::List(&Form::Text)]),
        /// A built-in op instead of `run`.
        Use = "use": Form::Name,
        /// Parameters of the op.
        With = "with": Form::Map(&Form::Value),
        /// Files it reads, relative to the pipeline file; `*` and `?` match anything but `/`.
        Inputs = "inputs": Form::List(&Form::Text),
        /// Files it must have written when it succeeds, relative to the pipeline file.
        Outputs = "outputs": Form::List(&Form::OneOf(&[Form::Text, Form::Table(OutputKey::FIELDS, None)])),
        /// Stages that come before it, besides those whose outputs it reads.
        After = "after": Form::List(&Form::OneOf(&[Form::Text, Form::Table(AfterKey::FIELDS, None)])),
        /// Axes and their points: one task for each combination.
        Matrix = "matrix": Form::Map(&Form::List(&Form::Value)),
        /// Ways to run it, of which the planner chooses one.
        Modes = "modes": Form::List(&Form::Table(ModeKey::FIELDS, None)),
        /// Starts a second attempt of a task that takes much longer than expected, beside the first one; the first to succeed wins, and the other is ended with what it wrote. The command must say where it writes by `{outputs}` or `$TRAINYARD_OUTPUTS`.
        Backup = "backup": Form::Table(BackupKey::FIELDS, None),
        /// 2 runs two attempts of each task at once, as soon as there is room for the second one; as with `backup` the first to succeed wins. 1 when absent.
        Replicas = "replicas": Form::Whole(REPLICAS),
        /// Whether its tasks may be stopped and continued (SIGSTOP, SIGCONT), so that with `--policy time-slice` those that hold shares of one device can take turns; false when absent. For `gpus` below 1.
        Suspend = "suspend": Form::Bool,
        /// Estimate on a device of speed 1.0, or one estimate for each device model; learned from history when absent.
        Duration = "duration": DURATION,
        /// What it uses up of the fleet's budgets.
        Spend = "spend": SPEND,
    }
}

crate::keys! {
    /// Keys of `resources`; any other word is a countable resource that a node declares.
    pub enum ResourceKey {
        /// Host CPUs, decimals allowed; 1 when absent.
        Cpus = "cpus": Form::Number(CPUS),
        /// Host memory.
        Memory = "memory": Form::Size,
        /// Whole devices for itself, a share of one device (below 1) and, without `gpu_memory`, as large a part of its memory, or "prefer": one device if the fleet has any that can hold it, else the CPU, which a run also takes where no device is to be had soon.
        Gpus = "gpus": Form::OneOf(&[Form::Whole(DEVICES), Form::Number(0.0..=1.0), Form::Words(&[PREFER])]),
        /// Memory on each device; without `gpus` the device is shared and memory alone is the limit. "auto": what attempts before were measured to need, and as long as nothing is known the device alone.
        GpuMemory = "gpu_memory": Form::OneOf(&[Form::Size, Form::Words(&[AUTO])]),
    }
}

crate::keys! {
    /// Keys of one of several `modes`.
    pub enum ModeKey {
        /// What a task holds while it runs in this mode.
        Resources = "resources": RESOURCES,
        /// Estimate in this mode.
        Duration = "duration": DURATION,
        /// What this mode uses up of the fleet's budgets.
        Spend = "spend": SPEND,
    }
}

crate::keys! {
    /// Keys of an output that is written as a table.
    pub enum OutputKey {
        /// The file, relative to the pipeline file.
        Path = "path": Form::Text,
        /// Estimate of its size: it costs time between different nodes.
        Size = "size": Form::Size,
    }
}

crate::keys! {
    /// Keys of an entry of `after` that is written as a table.
    pub enum AfterKey {
        /// The stage that comes before.
        Stage = "stage": Form::Name,
        /// Data that moves along this edge: it costs time between different nodes.
        Data = "data": Form::Size,
    }
}
