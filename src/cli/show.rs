//! `trainyard show`: one run with its tasks and attempts.

use std::path::Path;

use clap::Args;
use jiff::tz::TimeZone;

use super::state::{self, StateArgs};
use super::{Exit, Failure, output};
use crate::report::paint::Colour;
use crate::report::{history, json};

/// Show a run: its tasks, how they ended, what they used
#[derive(Args)]
pub(super) struct Command {
    /// A run's id or the beginning of it [default: the newest]
    run: Option<String>,
    #[command(flatten)]
    state: StateArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Command {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let (store, row) = self.state.pick(self.run.as_deref())?;
        let run = state::replay(&store, &row)?;
        let header = state::header(&row);
        let names: Vec<String> = row.header.tasks.iter().map(|task| task.name.clone()).collect();
        if self.json {
            // Absolute, so that a script can open the logs from wherever it is.
            let dir = store.run_dir(header.run);
            let dir = std::path::absolute(&dir).unwrap_or(dir);
            return output::print_json(&json::run(&header, &names, &run, &dir, Path::exists));
        }
        let (zone, colour) = (TimeZone::system(), Colour::for_stdout());
        let mut shown = history::run(&header, &names, &run, self.state.named(), &zone, colour, output::columns());
        if row.end.is_none()
            && let left @ 1.. = state::tasks_that_go_on(&row).len()
        {
            let go = if left == 1 { "goes" } else { "go" };
            let id = header.run;
            shown.push_str(&format!(
                "\n{left} of its tasks {go} on: `trainyard resume {id}` attends to them again, `trainyard cancel {id}` \
                 ends them\n"
            ));
        }
        output::print(&shown)
    }
}
