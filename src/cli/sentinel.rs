//! `trainyard sentinel`: the process around an attempt that outlives the orchestrator, see [`crate::engine::sentinel`].
//! Started by the engine, not by people.

use std::path::PathBuf;

use clap::Args;

use super::Failure;
use super::state::broken;
use crate::engine::sentinel::{self, Watch};
use crate::run::ports::Port;
use crate::spec::Limits;
use crate::units::{Bytes, Millis};

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
    /// Wall time that it has, ms
    #[arg(long)]
    timeout: Option<u64>,
    /// Time without output, ms
    #[arg(long)]
    idle_timeout: Option<u64>,
    /// Time until its first output, ms
    #[arg(long)]
    first_output_timeout: Option<u64>,
    /// Time between SIGTERM and SIGKILL, ms
    #[arg(long)]
    grace: u64,
    /// The port that it was given
    #[arg(long, requires = "ports")]
    port: Option<u16>,
    /// Where those who have ports say so
    #[arg(long)]
    ports: Option<PathBuf>,
    /// What it is to make
    #[arg(long = "output")]
    outputs: Vec<PathBuf>,
    /// What the program is called, and its arguments
    #[arg(last = true)]
    words: Vec<String>,
}

impl Command {
    /// Ends as the stage did, whatever its code means to us.
    pub(super) fn run(self) -> Result<u8, Failure> {
        let Self {
            record,
            log,
            file,
            log_limit,
            timeout,
            idle_timeout,
            first_output_timeout,
            grace,
            port,
            ports,
            outputs,
            words,
        } = self;
        let port = port.map(|number| Port { number, file: ports });
        let limits = Limits {
            timeout: timeout.map(Millis),
            idle_timeout: idle_timeout.map(Millis),
            first_output_timeout: first_output_timeout.map(Millis),
            grace: Millis(grace),
            log: Bytes(log_limit),
        };
        let status = sentinel::watch(Watch { record, log, limits, port, outputs, file, words }).map_err(broken)?;
        Ok(u8::try_from(sentinel::end_as(status)).unwrap_or(u8::MAX))
    }
}
