//! A run that another command carries out to see how it goes: it knows what earlier runs used without being one of them,
//! tells nobody that it is over, and ends when that command does.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use super::state::broken;
use super::{Exit, Failure};
use crate::spec::Pipeline;

/// Arguments of `run` that only other commands give.
#[derive(Args, Clone, Debug)]
pub(super) struct Rehearsal {
    /// Learn from the record in DIR instead of the run's own
    #[arg(long = "rehearse", value_name = "DIR", hide = true, requires = "by")]
    history: Option<PathBuf>,
    /// The process that wants it, with which it ends
    #[arg(long = "rehearsed-by", value_name = "PID", hide = true, requires = "history")]
    by: Option<i32>,
}

impl Rehearsal {
    /// Returns the arguments for a run that this process wants.
    pub(super) fn args(history: &Path) -> [OsString; 4] {
        let by = std::process::id().to_string();
        ["--rehearse".into(), history.into(), "--rehearsed-by".into(), by.into()]
    }

    /// Has this process be asked to end when the one that wants the run dies; `None` where the run is wanted for itself.
    pub(super) fn begin(&self) -> Result<Option<Exit>, Failure> {
        let Some(by) = self.by else { return Ok(None) };
        set_parent_process_death_signal(Some(Signal::TERM)).map_err(|error| broken(std::io::Error::from(error)))?;
        // It may have died before it was asked for.
        let is_gone = getppid().is_none_or(|parent| parent.as_raw_nonzero().get() != by);
        Ok(is_gone.then_some(Exit::Interrupted))
    }

    /// Returns the pipeline as it is to be carried out.
    pub(super) fn of(&self, mut pipeline: Pipeline) -> Pipeline {
        if self.history.is_some() {
            pipeline.on_finish = None;
        }
        pipeline
    }

    /// Returns the state folder that knows what earlier runs used.
    pub(super) fn history<'a>(&'a self, own: &'a Path) -> &'a Path {
        self.history.as_deref().unwrap_or(own)
    }
}
