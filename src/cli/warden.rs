//! `trainyard warden`: the second process of a run, see [`crate::engine::warden`]. Started by `run`, not by people.

use std::time::Duration;

use clap::Args;

use super::{Exit, Failure};
use crate::engine::warden;

/// End what a run left behind, should it die
#[derive(Args)]
pub(super) struct Command {
    /// The environment entry that the run's processes carry
    mark: String,
    /// Time between SIGTERM and SIGKILL, ms
    grace: u64,
}

impl Command {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        warden::watch(&self.mark, Duration::from_millis(self.grace));
        Ok(Exit::Done)
    }
}
