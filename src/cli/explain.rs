//! `trainyard explain [RUN] TASK`: why a task waits, in numbers, or what became of it.

use std::path::Path;

use clap::Args;

use super::logs::Opened;
use super::pipeline_file::PipelineFile;
use super::session;
use super::state::{self, StateArgs};
use super::{Exit, Failure, output};
use crate::engine::sentinel;
use crate::graph::{self, TaskGraph, TaskId};
use crate::report::explain::{Explanation, Facts};
use crate::report::reasons;
use crate::run::event::Event;
use crate::run::launch;
use crate::units::Millis;

/// Say why a task waits, in numbers, or what became of it
#[derive(Args)]
pub(super) struct Command {
    /// A run's id, the beginning of it, or its name, and a task of it; the task alone means the newest run
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
        let Some(&task) = opened.named(wanted).first() else { return Err(opened.unknown(wanted).into()) };
        let explanation = explanation(&opened, task)?;
        if self.json { output::print_json(&explanation) } else { output::print(&explanation.text()) }
    }
}

/// Explains a task of a run.
pub(super) fn explanation(opened: &Opened, task: usize) -> Result<Explanation, Failure> {
    let header = state::header(&opened.row);
    let names: Vec<String> = opened.row.header.tasks.iter().map(|task| task.name.clone()).collect();
    let dir = session::absolute(&opened.store.run_dir(header.run));
    // What a dead process noted no longer holds.
    let noted = header.alive.then(|| reasons::read(&dir)).flatten();
    let graph = graph_of(opened);
    let id = TaskId(u32::try_from(task).unwrap_or(u32::MAX));
    Ok(Explanation::of(&Facts {
        header,
        names: &names,
        state: &opened.state,
        task: id,
        graph: graph.as_ref(),
        noted: noted.as_ref(),
        unstarted: unstarted(opened, id, &dir),
        because: why_skipped(opened, id)?,
        dir: &dir,
        exists: Path::is_file,
        now: session::now(),
    }))
}

/// Returns what needs what, if the run's pipeline file still says what it said when the run was started.
fn graph_of(opened: &Opened) -> Option<TaskGraph> {
    let header = &opened.row.header;
    let called = &header.invocation;
    let max_tasks = if called.max_tasks == 0 { graph::Limits::default().max_tasks } else { called.max_tasks };
    let file = PipelineFile { file: header.file.clone().into(), sets: called.sets.clone(), max_tasks };
    let unchanged = file.has(&called.file_digest).unwrap_or(false);
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

/// Returns the failed task for which a task was skipped.
fn why_skipped(opened: &Opened, wanted: TaskId) -> Result<Option<TaskId>, Failure> {
    let events = opened.store.events(&opened.row.header.id).map_err(state::broken)?;
    Ok(events.iter().rev().find_map(|recorded| {
        let Event::TaskSkipped { task, because } = recorded.event else { return None };
        because.filter(|_| task == wanted)
    }))
}
