//! `trainyard explain [RUN] TASK`: why a task waits, in numbers, or what became of it.

use std::path::{Path, PathBuf};

use clap::Args;

use super::logs::Opened;
use super::pipeline_file::PipelineFile;
use super::session;
use super::state::{self, StateArgs};
use super::{Exit, Failure, output};
use crate::engine::sentinel;
use crate::graph::{TaskGraph, TaskId};
use crate::report::explain::{self, Explanation, Facts};
use crate::report::reasons::{self, Noted};
use crate::report::text;
use crate::run::launch;
use crate::units::Millis;

/// Say why a task waits, in numbers, or what became of it
#[derive(Args)]
pub(super) struct Command {
    /// A run's id, the beginning of it, or its name, and a task of it, or a stage for all of its tasks; alone it means the newest run
    #[arg(value_names = ["RUN", "TASK"], num_args = 1..=2, required = true)]
    names: Vec<String>,
    #[command(flatten)]
    state: StateArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Command {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let (run, wanted) = match self.names.as_slice() {
            [run, task] => (Some(run.as_str()), task.as_str()),
            [task] => (None, task.as_str()),
            _ => unreachable!("clap lets one or two names through"),
        };
        let opened = Opened::new(self.state.pick(run)?)?;
        let tasks = opened.named(wanted);
        let basis = Basis::of(&opened);
        let all: Vec<_> = tasks.iter().map(|task| basis.explanation(&opened, *task)).collect();
        match all.as_slice() {
            [] if run.is_none() && self.state.pick(Some(wanted)).is_ok() => Err(no_task(wanted)),
            [] => Err(opened.unknown(wanted).into()),
            [one] if self.json => output::print_json(one),
            [one] => output::print(&one.text()),
            all if self.json => output::print_json(&all),
            all => output::print(&explain::several(wanted, all)),
        }
    }
}

/// Says that a run was named and no task of it.
fn no_task(run: &str) -> Failure {
    let run = text::visible(run).into_owned();
    let report = miette::miette!(help = format!("name a task of it: trainyard explain {run} TASK"), "`{run}` is a run");
    Failure { exit: Exit::Usage, report }
}

/// Explains a task of a run.
pub(super) fn explanation(opened: &Opened, task: usize) -> Explanation {
    Basis::of(opened).explanation(opened, task)
}

/// What the explanations of a run's tasks have in common.
struct Basis {
    names: Vec<String>,
    dir: PathBuf,
    noted: Option<Noted>,
    graph: Option<TaskGraph>,
    now: Millis,
}

impl Basis {
    fn of(opened: &Opened) -> Self {
        let header = state::header(&opened.row);
        let dir = session::absolute(&opened.store.run_dir(header.run));
        Self {
            names: opened.row.header.tasks.iter().map(|task| task.name.clone()).collect(),
            // What a dead process noted no longer holds.
            noted: header.alive.then(|| reasons::read(&dir)).flatten(),
            graph: graph_of(opened),
            now: session::now(),
            dir,
        }
    }

    fn explanation(&self, opened: &Opened, task: usize) -> Explanation {
        let Self { names, dir, noted, graph, now } = self;
        let id = TaskId(u32::try_from(task).unwrap_or(u32::MAX));
        Explanation::of(&Facts {
            header: state::header(&opened.row),
            names,
            state: &opened.state,
            task: id,
            graph: graph.as_ref(),
            noted: noted.as_ref(),
            unstarted: unstarted(opened, id, dir),
            dir,
            exists: Path::is_file,
            now: *now,
        })
    }
}

/// Returns what needs what, if the run's pipeline file still says what it said when the run was started.
fn graph_of(opened: &Opened) -> Option<TaskGraph> {
    let header = &opened.row.header;
    let file = PipelineFile::of(header);
    let unchanged = file.has(&header.invocation.file_digest).unwrap_or(false);
    let (_, graph) = file.read(false).ok().filter(|_| unchanged)?.result.ok()?;
    graph.tasks.iter().map(|task| &task.name).eq(header.tasks.iter().map(|task| &task.name)).then_some(graph)
}

/// Returns why the sentinel of a running task cannot start it yet, and since when.
fn unstarted(opened: &Opened, task: TaskId, dir: &Path) -> Option<(String, Millis)> {
    let name = &opened.row.header.tasks[task.index()].name;
    opened.state.task(task).open().find_map(|(number, attempt)| {
        let words = sentinel::read(&launch::sentinel(dir, name, number))?.waits_for?;
        Some((words, attempt.started))
    })
}
