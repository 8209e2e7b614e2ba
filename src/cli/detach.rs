//! `--detach`: a run that goes on when the terminal, or the SSH session, is gone.
//!
//! The command starts itself once more and waits until that process has put the run on record: whatever is wrong with
//! the pipeline is still said here. The other process then takes a session of its own, so that no hang-up reaches it.

#![expect(clippy::disallowed_methods, reason = "a command starts itself again")]

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::state::broken;
use super::{Exit, Failure, output, rotate};
use crate::run::event::Recorded;
use crate::run::launch::Ground;
use crate::run::observer::{Observer, View};
use crate::units::Millis;

/// Where a detached run writes what it would have shown, in the run's folder.
const SHOWN: &str = "output.log";

/// Starts this command again without a terminal, prints the run's id and leaves it alone.
pub(super) fn relaunch() -> Result<Exit, Failure> {
    let own = std::env::current_exe().map_err(broken)?;
    let args = std::env::args_os().skip(1).map(|arg| if arg == "--detach" { "--detached".into() } else { arg });
    let mut child = Command::new(own).args(args).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(broken)?;
    let mut said = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut said).map_err(broken)?;
    }
    if said.ends_with('\n') {
        return output::print(&said);
    }
    // It ended before there was a run, and has said why.
    let code = child.wait().map_err(broken)?.code();
    Ok(code.and_then(Exit::of_code).unwrap_or(Exit::Bug))
}

/// Tells the waiting command the run's id and lets go of its terminal.
pub(super) fn leave_terminal(ground: &Ground) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{}", ground.run)?;
    out.flush()?;
    show_in(&rotate::open(&ground.dir.join(SHOWN))?)?;
    // Fails only where we lead a group already, and then no terminal hangs up on us.
    let _ = rustix::process::setsid();
    Ok(())
}

/// Has everything that is shown written to a file from here on.
fn show_in(file: &File) -> std::io::Result<()> {
    rustix::stdio::dup2_stdout(file)?;
    Ok(rustix::stdio::dup2_stderr(file)?)
}

/// Keeps what a detached run shows from growing without end.
pub(super) struct Shown {
    path: PathBuf,
    /// When to look next, ms since the Unix epoch.
    due: Millis,
}

impl Shown {
    /// `dir` is the run's folder.
    pub(super) fn new(dir: &Path) -> Self {
        Self { path: dir.join(SHOWN), due: Millis::ZERO }
    }
}

impl Observer for Shown {
    fn recorded(&mut self, _: View<'_>, _: &Recorded) {}

    fn ticked(&mut self, _: View<'_>, now: Millis) {
        if now < self.due {
            return;
        }
        self.due = now + Millis(1_000);
        let length = std::fs::metadata(&self.path).map_or(0, |file| file.len());
        let fresh = rotate::rotate(&self.path, length, rotate::LONGEST);
        if let Err(error) = fresh.and_then(|fresh| fresh.map_or(Ok(()), |fresh| show_in(&fresh))) {
            tracing::debug!(%error, "what is shown grows on");
        }
    }
}
