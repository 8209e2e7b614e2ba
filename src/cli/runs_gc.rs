//! `trainyard runs gc`: removes what runs have left, and whole runs where that is asked for.
//!
//! A run leaves the record first and its folder goes then; what a killed `gc` did not come to is done by the next one.

use std::collections::HashSet;
use std::path::PathBuf;

use clap::Args;
use miette::Diagnostic;
use serde_json::json;
use thiserror::Error;

use super::state::{self, StateArgs, broken};
use super::{Exit, Failure, output, session};
use crate::engine::{attendance, process};
use crate::report::{text, wording};
use crate::run::event::RunEnd;
use crate::run::state::{Phase, RunState};
use crate::run::store::{RunRow, Store};
use crate::run::{crash, remains};
use crate::units::{Bytes, Millis};

/// Remove old runs: their logs, checkpoints and events; what later runs learn from them stays. Without a RUN, --keep or
/// --older-than only checkpoints of tasks that have succeeded
#[derive(Args)]
pub(super) struct Command {
    /// Runs to remove, by id, the beginning of it, or name; also ones that could be resumed
    #[arg(value_name = "RUN", conflicts_with_all = ["keep", "older_than"])]
    runs: Vec<String>,
    /// Remove runs that have succeeded or failed, but for the newest N of all runs
    #[arg(long, value_name = "N")]
    keep: Option<usize>,
    /// Remove runs that have succeeded or failed so long ago, like 30d; with --keep only those beyond the newest N
    #[arg(long, value_name = "TIME", value_parser = |text: &str| text.parse::<Millis>())]
    older_than: Option<Millis>,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    state: StateArgs,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// Why a run that was named is not removed.
#[derive(Debug, Error, Diagnostic)]
#[error("run {run} goes on: {how}")]
#[diagnostic(help("wait for its end, or `trainyard cancel {run}` first"))]
struct GoesOn {
    run: String,
    how: String,
}

/// What was removed.
#[derive(Default)]
struct Removed {
    /// Runs and what they took.
    runs: Vec<(String, Bytes)>,
    /// How many tasks of other runs had checkpoints, and what these took.
    checkpoints: (usize, Bytes),
    /// What runs that were removed earlier had still left.
    rest: Bytes,
    /// Where that is which no run has made.
    found: Vec<PathBuf>,
    /// How many runs are left.
    left: usize,
}

impl Command {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let mut removed = Removed::default();
        if let Some(mut store) = self.state.open()? {
            if !self.dry_run {
                state::refuse_unwritable(store.dir())?;
            }
            self.remove(&mut store, &mut removed)?;
        }
        if self.json { output::print_json(&removed.json()) } else { output::print(&removed.text(self.dry_run)) }
    }

    fn remove(&self, store: &mut Store, removed: &mut Removed) -> Result<(), Failure> {
        let rows = store.runs().map_err(broken)?;
        let chosen = self.chosen(store, &rows)?;
        let mut left = Vec::new();
        for row in &rows {
            let is_removed = chosen.contains(&row.header.id) && (self.dry_run || store.remove(row).map_err(broken)?);
            if !is_removed {
                left.push(row);
                continue;
            }
            crash::point(crash::POINT_OF_REMOVALS);
            let (bytes, found) = remains::remove(&row.dir, self.dry_run).map_err(broken)?;
            removed.runs.push((row.header.id.clone(), bytes));
            removed.found.extend(found);
        }
        let gone: HashSet<&String> = removed.runs.iter().map(|(run, _)| run).collect();
        for run in store.removed().map_err(broken)?.iter().filter(|run| !gone.contains(run)) {
            let (bytes, _) = remains::remove(&store.run_dir(run), self.dry_run).map_err(broken)?;
            removed.rest += bytes;
        }
        for row in &left {
            if row.end.is_some() && goes_on(row).is_none() {
                let (count, bytes) = self.remove_checkpoints(store, row)?;
                removed.checkpoints = (removed.checkpoints.0 + count, removed.checkpoints.1 + bytes);
            }
        }
        // Whoever records something would have to wait for it.
        if !self.dry_run && left.iter().all(|row| goes_on(row).is_none()) {
            store.shrink().map_err(broken)?;
        }
        removed.left = left.len();
        Ok(())
    }

    /// Returns the ids of the runs that are to go.
    fn chosen(&self, store: &Store, rows: &[RunRow]) -> Result<HashSet<String>, Failure> {
        if !self.runs.is_empty() {
            let marks = store.marks().map_err(broken)?;
            let one = |wanted: &String| {
                let run = state::pick(&marks, Some(wanted), store.dir())?.to_owned();
                let how = rows.iter().find(|row| row.header.id == run).and_then(goes_on);
                how.map_or(Ok(run.clone()), |how| {
                    Err(Failure { exit: Exit::Usage, report: GoesOn { run, how }.into() })
                })
            };
            return self.runs.iter().map(one).collect();
        }
        if self.keep.is_none() && self.older_than.is_none() {
            return Ok(HashSet::new());
        }
        let now = session::now();
        let is_old = |row: &&RunRow| match row.end {
            Some((at, RunEnd::Succeeded | RunEnd::Failed)) => self.older_than.is_none_or(|time| now - at >= time),
            // It may be resumed.
            Some((_, RunEnd::Interrupted)) | None => false,
        };
        let old = rows.iter().skip(self.keep.unwrap_or(0)).filter(is_old);
        Ok(old.filter(|row| goes_on(row).is_none()).map(|row| row.header.id.clone()).collect())
    }

    /// Removes what tasks of a run that has ended keep to go on from, though they are done.
    fn remove_checkpoints(&self, store: &Store, row: &RunRow) -> Result<(usize, Bytes), Failure> {
        if !row.dir.join("checkpoints").is_dir() {
            return Ok((0, Bytes::ZERO));
        }
        // Of a damaged record nothing is known.
        let Ok(RunState { tasks, .. }) = state::replay(store, row) else { return Ok((0, Bytes::ZERO)) };
        let done = row.header.tasks.iter().zip(&tasks).filter(|(_, task)| task.phase == Phase::Succeeded);
        remains::remove_checkpoints(&row.dir, done.map(|(task, _)| task.name.as_str()), self.dry_run).map_err(broken)
    }
}

/// Returns how a run goes on: also one that has ended is attended to for a moment.
fn goes_on(row: &RunRow) -> Option<String> {
    let orchestrator = &row.header.orchestrator;
    let alive = if row.end.is_none() {
        state::is_alive(row)
    } else {
        state::is_here(orchestrator) && process::is_alive(orchestrator.process)
    };
    if alive {
        return Some(format!("process {} on {} carries it out", orchestrator.process.pid, orchestrator.host));
    }
    let tasks = if row.end.is_none() { state::tasks_that_go_on(row).len() } else { 0 };
    if tasks > 0 {
        return Some(format!("{} of it by themselves", wording::plural(tasks, "task")));
    }
    (attendance::is_attended(&row.dir) == Some(true)).then(|| "something attends to it".to_owned())
}

impl Removed {
    fn bytes(&self) -> Bytes {
        let runs: Bytes = self.runs.iter().map(|(_, bytes)| *bytes).sum();
        runs + self.checkpoints.1 + self.rest
    }

    fn text(&self, only_look: bool) -> String {
        let verb = if only_look { "would be removed" } else { "removed" };
        let mut said = String::new();
        for (run, bytes) in &self.runs {
            said.push_str(&format!("{verb}: {}, {bytes}\n", text::visible(run)));
        }
        if let (count @ 1.., bytes) = self.checkpoints {
            let tasks = wording::plural(count, "task");
            said.push_str(&format!("{verb}: checkpoints of {tasks} that succeeded, {bytes}\n"));
        }
        if self.rest > Bytes::ZERO {
            said.push_str(&format!("{verb}: what was left of runs that are gone, {}\n", self.rest));
        }
        for path in &self.found {
            said.push_str(&format!(
                "kept: {}, which no run is known to have made\n",
                text::visible(&path.to_string_lossy())
            ));
        }
        let runs = |count| wording::plural(count, "run");
        said.push_str(&format!("{verb}: {}, {}; left: {}\n", runs(self.runs.len()), self.bytes(), runs(self.left)));
        said
    }

    fn json(&self) -> serde_json::Value {
        let runs = self.runs.iter().map(|(run, bytes)| json!({"run": run, "bytes": bytes.0}));
        json!({
            "removed": runs.collect::<Vec<_>>(),
            "checkpoints_removed_bytes": self.checkpoints.1.0,
            "removed_bytes": self.bytes().0,
            "kept": self.found,
            "left": self.left,
        })
    }
}
