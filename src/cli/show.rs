//! `trainyard show`: one run with its tasks and attempts.

use std::path::{Path, PathBuf};

use clap::Args;
use jiff::tz::TimeZone;

use super::state::{self, StateArgs};
use super::{Exit, Failure, diff, logs, output, session};
use crate::engine::notify;
use crate::engine::sentinel::{self, Found};
use crate::report::paint::Colour;
use crate::report::{chart, history, json, otlp, page, perfetto, tensorboard, text, timeline, wording};
use crate::run::launch;
use crate::run::state::RunState;
use crate::run::store::RunRow;
use crate::units::Millis;

/// How long a collector may take.
const PATIENCE: Millis = Millis(30_000);

/// Show a run: its tasks, how they ended, what they used
#[derive(Args)]
pub(super) struct Command {
    /// A run's id, the beginning of it, or its name [default: the newest]
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
    /// Write the collected figures as TensorBoard's event files below DIR
    #[arg(long, value_name = "DIR")]
    tensorboard: Option<PathBuf>,
    /// Write an OpenTelemetry trace of the run to FILE, as OTLP in JSON, or send it to a collector: http://localhost:4318
    #[arg(long, value_name = "FILE|URL")]
    otlp: Option<PathBuf>,
}

impl Command {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let (store, row) = self.state.pick(self.run.as_deref())?;
        let run = state::replay(&store, &row)?;
        let header = state::header(&row);
        let names: Vec<String> = row.header.tasks.iter().map(|task| task.name.clone()).collect();
        let written = [&self.gantt, &self.trace, &self.tensorboard, &self.otlp];
        if written.iter().any(|path| path.is_some()) {
            return self.write(&store.run_dir(header.run), &row, &run);
        }
        if self.json {
            // Absolute, so that a script can open the logs from wherever it is.
            let dir = store.run_dir(header.run);
            let dir = std::path::absolute(&dir).unwrap_or(dir);
            let files = json::Files { exists: &Path::exists, heard: &diff::heard };
            return output::print_json(&json::run(
                &header,
                (&row.header.tasks, &row.header.invocation.sets),
                &run,
                &dir,
                files,
            ));
        }
        let (zone, colour) = (TimeZone::system(), Colour::for_stdout());
        let mut shown = history::run(&header, &names, &run, self.state.named(), &zone, colour, output::columns());
        let tasks = names.iter().zip(&run.tasks).flat_map(|(name, task)| task.open().map(move |open| (name, open)));
        let cut = tasks.filter_map(|(name, open)| logs::log_cut(&row.dir, name, open));
        cut.for_each(|cut| shown.push_str(&format!("\n{cut}\n")));
        if row.end.is_none() {
            shown.push_str(&left_alone(&row, &run));
        }
        output::print(&shown)
    }

    /// Writes the files that were asked for, and says so.
    fn write(&self, dir: &Path, row: &RunRow, run: &RunState) -> Result<Exit, Failure> {
        let (header, now) = (state::header(row), session::now());
        let timeline = &timeline::lay_out(&header, &row.header.tasks, run, now);
        let mut written = String::new();
        let mut write = |path: &Path, text: String| {
            std::fs::write(path, text).map_err(|error| unwritten(path, &error))?;
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
        if let Some(path) = &self.otlp {
            let trace = otlp::trace(&header, &row.header.orchestrator.host, &row.header.tasks, run, now).to_string();
            match path.to_str().and_then(collector) {
                Some(url) => {
                    send(&url, header.run, &trace)?;
                    written.push_str(&format!("sent a trace to {}\n", text::visible(&url)));
                }
                None => write(path, trace + "\n")?,
            }
        }
        if let Some(folder) = &self.tensorboard {
            let names: Vec<String> = row.header.tasks.iter().map(|task| task.name.clone()).collect();
            let heard = |task: &str, number| diff::heard(&launch::progress(dir, task, number));
            let files = tensorboard::files(&header, &names, run, heard);
            for (path, bytes) in &files {
                to_file(&folder.join(path), bytes)?;
            }
            let (count, shown) = (wording::plural(files.len(), "event file"), folder.to_string_lossy());
            let hint = if files.is_empty() { ": no task reported figures" } else { "" };
            written.push_str(&format!("wrote {count} to {}{hint}\n", text::visible(&shown)));
        }
        output::print(&written)
    }
}

/// Returns what is said of tasks that go on although nobody carries the run out: of those that a sentinel watches, of
/// others, and of what tasks left that had ended.
fn left_alone(row: &RunRow, run: &RunState) -> String {
    let is_here = state::is_here(&row.header.orchestrator);
    let open = |name: &String| {
        let task = row.header.tasks.iter().position(|task| task.name == *name);
        task.into_iter().flat_map(|task| run.tasks[task].open().map(|(number, _)| number))
    };
    let is_watched = |name: &String| {
        let record = |number| launch::sentinel(&row.dir, name, number);
        open(name).any(|number| matches!(sentinel::find(&record(number), is_here), Found::Kept(_)))
    };
    let (alive, over): (Vec<_>, Vec<_>) =
        state::tasks_that_go_on(row).into_iter().partition(|name| open(name).next().is_some());
    let (watched, others): (Vec<_>, Vec<_>) = alive.into_iter().partition(is_watched);
    let (id, go) = (&row.header.id, |count| if count == 1 { "goes" } else { "go" });
    let mut said = String::new();
    if let count @ 1.. = watched.len() {
        said.push_str(&format!(
            "\n{count} of its tasks {} on: `trainyard resume {id}` attends to them again, `trainyard cancel {id}` ends \
             them\n",
            go(count)
        ));
    }
    if let count @ 1.. = others.len() {
        said.push_str(&format!(
            "\n{count} of its tasks {} on, and nobody will learn how that ends: `trainyard resume {id}` ends them and \
             tries again, `trainyard cancel {id}` ends them\n",
            go(count)
        ));
    }
    if let count @ 1.. = over.len() {
        said.push_str(&format!(
            "\nprocesses go on that {count} of its tasks left behind: `trainyard devices --orphans` lists them, `trainyard \
             resume {id}` and `trainyard cancel {id}` end them\n"
        ));
    }
    said
}

/// Returns where a collector takes traces, if this is the address of one.
fn collector(given: &str) -> Option<String> {
    let (scheme, rest) = given.split_once("://").filter(|(scheme, _)| ["http", "https"].contains(scheme))?;
    // OTLP over HTTP has a path of its own for every kind of signal, unless a whole one is given.
    Some(match rest.trim_end_matches('/') {
        host if !host.contains('/') => format!("{scheme}://{host}/v1/traces"),
        whole => format!("{scheme}://{whole}"),
    })
}

/// Sends a trace to a collector.
fn send(url: &str, run: &str, trace: &str) -> Result<(), Failure> {
    notify::post(url, PATIENCE, run, trace).map_err(|error| {
        let report = miette::miette!("the trace cannot be sent to {}: {error}", text::visible(url));
        Failure { exit: Exit::Usage, report }
    })
}

/// Writes a file, and the folders that it lies in.
fn to_file(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let made = folder.map_or(Ok(()), std::fs::create_dir_all);
    made.and_then(|()| std::fs::write(path, bytes)).map_err(|error| unwritten(path, &error))
}

fn unwritten(path: &Path, error: &std::io::Error) -> Failure {
    let report = miette::miette!("cannot write {}: {error}", text::visible(&path.to_string_lossy()));
    Failure { exit: Exit::Usage, report }
}
