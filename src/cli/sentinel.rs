//! `trainyard sentinel`: the process around an attempt that outlives the orchestrator, see [`crate::engine::sentinel`].
//! Started by the engine, not by people.

use std::path::PathBuf;

use clap::Args;

use super::Failure;
use super::state::broken;
use crate::engine::sentinel::{self, Watch};
use crate::units::Bytes;

/// Start a stage, keep its log and record its end
#[derive(Args)]
pub(super) struct Command {
    /// Where its end is recorded
    record: PathBuf,
    /// Where its output goes
    log: PathBuf,
    /// The file of its program
    file: PathBuf,
    /// Most that is kept of its output, bytes
    log_limit: u64,
    /// What the program is called, and its arguments
    #[arg(last = true)]
    words: Vec<String>,
}

impl Command {
    /// Ends as the stage did, whatever its code means to us.
    pub(super) fn run(self) -> Result<u8, Failure> {
        let Self { record, log, file, log_limit, words } = self;
        let status =
            sentinel::watch(Watch { record, log, log_limit: Bytes(log_limit), file, words }).map_err(broken)?;
        Ok(u8::try_from(sentinel::end_as(status)).unwrap_or(u8::MAX))
    }
}
