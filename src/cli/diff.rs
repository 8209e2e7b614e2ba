//! `trainyard diff A B`: what changed from one run to another.

use clap::Args;

use super::pipeline_file;
use super::state::{self, StateArgs};
use super::{Exit, Failure, output};
use crate::progress::record::Record;
use crate::report::definition::Definition;
use crate::report::diff::{self, Side};
use crate::report::paint::Colour;
use crate::run::launch;
use crate::run::store::{RunRow, Store};

/// Compare two runs: what their tasks are made of, how they ended, how long they took, their last figures
#[derive(Args)]
pub(super) struct Command {
    /// A run's id, the beginning of it, or its name
    a: String,
    /// Another one [default: the newest]
    b: Option<String>,
    #[command(flatten)]
    state: StateArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Command {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let diff = diff::diff(self.side(Some(&self.a))?, self.side(self.b.as_deref())?);
        if self.json {
            return output::print_json(&diff);
        }
        output::print(&diff::shown(&diff, Colour::for_stdout(), output::columns()))
    }

    fn side(&self, wanted: Option<&str>) -> Result<Side, Failure> {
        let (store, row) = self.state.pick(wanted)?;
        side(&store, &row)
    }
}

/// Reads one of the two runs.
pub(super) fn side(store: &Store, row: &RunRow) -> Result<Side, Failure> {
    let run = state::replay(store, row)?;
    let dir = store.run_dir(&row.header.id);
    let heard = |task: &str, number| heard(&launch::progress(&dir, task, number));
    let made_of = pipeline_file::recall(store.dir(), &row.header);
    let definition = made_of.map(|(pipeline, graph)| Definition::new(&pipeline, &graph));
    let side = Side::new(&state::header(row), &row.header.tasks, &run, heard);
    Ok(side.made_of(definition, row.header.invocation.sets.clone()))
}

/// Returns what was heard of an attempt; `None` where it said nothing.
pub(super) fn heard(path: &std::path::Path) -> Option<Record> {
    Record::read(&std::fs::read(path).ok()?)
}
