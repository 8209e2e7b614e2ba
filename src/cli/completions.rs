//! `trainyard completions SHELL`: a completion script for the user's shell.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Exit, Failure, output};

/// Print a completion script for a shell
#[derive(Args)]
pub(super) struct Command {
    /// The shell it is for
    shell: Shell,
}

impl Command {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "trainyard", &mut script);
        output::print(&String::from_utf8_lossy(&script))
    }
}
