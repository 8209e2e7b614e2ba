//! `trainyard show`: one run with its tasks and attempts.

use std::path::{Path, PathBuf};

use clap::Args;
use jiff::tz::TimeZone;

use super::state::{self, StateArgs};
use super::{Exit, Failure, diff, output, session};
use crate::report::paint::Colour;
use crate::report::timeline::Timeline;
use crate::report::{chart, history, json, page, perfetto, text, timeline};

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
    /// Write a chart of plan and run to FILE, which ends in .svg or .html
    #[arg(long, value_name = "FILE")]
    gantt: Option<PathBuf>,
    /// Write a trace of plan and run to FILE, for Perfetto and chrome://tracing
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
}

impl Command {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let (store, row) = self.state.pick(self.run.as_deref())?;
        let run = state::replay(&store, &row)?;
        let header = state::header(&row);
        let names: Vec<String> = row.header.tasks.iter().map(|task| task.name.clone()).collect();
        if self.gantt.is_some() || self.trace.is_some() {
            return self.draw(&timeline::lay_out(&header, &row.header.tasks, &run, session::now()));
        }
        if self.json {
            // Absolute, so that a script can open the logs from wherever it is.
            let dir = store.run_dir(header.run);
            let dir = std::path::absolute(&dir).unwrap_or(dir);
            let files = json::Files { exists: &Path::exists, heard: &diff::heard };
            return output::print_json(&json::run(&header, &names, &run, &dir, files));
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

    /// Writes the files that were asked for, and says so.
    fn draw(&self, timeline: &Timeline) -> Result<Exit, Failure> {
        let mut written = String::new();
        let mut write = |path: &Path, text: String| {
            std::fs::write(path, text).map_err(|error| {
                let report = miette::miette!("cannot write {}: {error}", text::visible(&path.to_string_lossy()));
                Failure { exit: Exit::Usage, report }
            })?;
            written.push_str(&format!("wrote {}\n", text::visible(&path.to_string_lossy())));
            Ok::<(), Failure>(())
        };
        if let Some(path) = &self.gantt {
            let drawn = match path.extension().and_then(|extension| extension.to_str()) {
                Some("svg") => chart::svg(timeline),
                Some("html" | "htm") => page::html(timeline),
                _ => {
                    let report = miette::miette!(
                        help = "`--trace FILE` writes what Perfetto opens",
                        "a chart is written to a file that ends in .svg or .html"
                    );
                    return Err(Failure { exit: Exit::Usage, report });
                }
            };
            write(path, drawn)?;
        }
        if let Some(path) = &self.trace {
            write(path, perfetto::trace(timeline).to_string() + "\n")?;
        }
        output::print(&written)
    }
}
