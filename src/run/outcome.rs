//! How an attempt ended. Every ending is a variant; nothing is told apart by its text.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::units::{Bytes, Millis};

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum Outcome {
    /// Exit code 0 and every promised output is there.
    Succeeded,
    /// Another exit code.
    Exited {
        /// The code, 1 to 255.
        code: i32,
    },
    /// Ended by a signal.
    Signalled {
        /// The signal's number.
        signal: i32,
    },
    /// Ended by us because a limit had passed.
    TimedOut {
        /// Which limit.
        limit: Limit,
    },
    /// It ran out of memory.
    OutOfMemory {
        /// The device's id; `None` for the host's memory.
        device: Option<String>,
    },
    /// Exit code 0, but a promised output is not there, or not within the project.
    OutputMissing {
        /// The first such one, as the pipeline names it.
        path: String,
        /// Where it leads through a link, if it is there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        leads_to: Option<String>,
        /// The others that are not there.
        #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
        also: Box<[String]>,
    },
    /// The process could not be started.
    SpawnFailed {
        /// What the system said.
        reason: String,
    },
    /// Ended by us, out of memory, or turned away, because its device could not keep what was promised. Another attempt
    /// follows, which counts against nothing.
    Displaced {
        /// The device's id.
        device: String,
        /// Why.
        cause: Cause,
    },
    /// Another attempt of the task had succeeded meanwhile: it was ended by us, or came too late. What it made is gone.
    Outrun,
    /// Ended by us because the run was stopped, or lost with the orchestrator.
    Interrupted,
}

/// Why a device could not keep what was promised on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum Cause {
    /// Others took memory between the promise and the task's taking it.
    Taken {
        /// What our tasks on the device were still to take.
        promised: Bytes,
        /// What was left for them.
        free: Bytes,
        /// The task of the same run that holds so much more than is reserved for it; `None` for anybody else.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    /// It lets in one process at a time, and another one was seen to come first.
    Occupied,
    /// It lets in one process at a time, and said that it was busy; nobody was seen there.
    TurnedAway {
        /// Other devices of the attempt of which it may as well have been one.
        #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
        or: Box<[String]>,
    },
    /// The device fell out.
    Unfit {
        /// What is the matter with it.
        fault: String,
    },
}

/// Which limit an attempt passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// `timeout`: wall time.
    Wall,
    /// `idle_timeout`: time without output.
    Idle,
    /// `first_output_timeout`: time until the first output.
    FirstOutput,
}

impl Outcome {
    /// Whether the work is done.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        matches!(self, Self::Succeeded)
    }

    /// Whether it stands against another try. An interruption does not, nor does having had to leave a device, or a lost
    /// race.
    #[must_use]
    pub const fn is_failure(&self) -> bool {
        !matches!(self, Self::Succeeded | Self::Interrupted | Self::Displaced { .. } | Self::Outrun)
    }

    /// Yields the ids of the devices one of which turned the attempt away because another process held it.
    pub fn busy(&self) -> impl Iterator<Item = &str> {
        let device = if let Self::Displaced { device, cause } = self { Some((device, cause)) } else { None };
        let busy = device.and_then(|(device, cause)| match cause {
            Cause::Occupied => Some((device, &[][..])),
            Cause::TurnedAway { or } => Some((device, &or[..])),
            Cause::Taken { .. } | Cause::Unfit { .. } => None,
        });
        busy.into_iter().flat_map(|(first, others)| std::iter::once(first).chain(others)).map(String::as_str)
    }
}

impl fmt::Display for Outcome {
    /// Writes the stable code that JSON shows: `succeeded`, `exited:1`, `signalled:9`, `timed-out`, …
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Succeeded => f.write_str("succeeded"),
            Self::Exited { code } => write!(f, "exited:{code}"),
            Self::Signalled { signal } => write!(f, "signalled:{signal}"),
            Self::TimedOut { .. } => f.write_str("timed-out"),
            Self::OutOfMemory { .. } => f.write_str("out-of-memory"),
            Self::OutputMissing { .. } => f.write_str("output-missing"),
            Self::SpawnFailed { .. } => f.write_str("spawn-failed"),
            Self::Displaced { .. } => f.write_str("displaced"),
            Self::Outrun => f.write_str("outrun"),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

/// Why the log of an attempt is cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogCut {
    /// There was no room on the disk.
    DiskFull,
    /// It could not be written otherwise.
    Unwritable,
}

/// What an attempt was measured to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Peak resident memory of the largest process of the attempt, as the kernel accounts it; unknown where that is not
    /// more than the orchestrator's own (see [`crate::engine::process::own_peak_memory`]).
    pub peak_memory: Option<Bytes>,
    /// Peak device memory, on the device where it was largest.
    pub peak_gpu_memory: Option<Bytes>,
    /// Processes that outlived the stage's own and were ended by us.
    pub survivors: u32,
    /// Whether it was not watched after all, since its devices' driver hid who holds their memory.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hidden: bool,
    /// When its command began, ms since the Unix epoch, where that had to wait for room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<Millis>,
    /// When it ended, ms since the Unix epoch, where its sentinel noted that while no orchestrator was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Millis>,
    /// Whether its log is cut short, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_cut: Option<LogCut>,
}
