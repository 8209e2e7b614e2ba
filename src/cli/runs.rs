//! `trainyard runs`: the recorded runs, the newest first.

use clap::{Args, Subcommand};
use jiff::tz::TimeZone;

use super::state::{self, StateArgs, broken};
use super::{Exit, Failure, output, runs_gc};
use crate::engine::attendance;
use crate::probe::clock;
use crate::report::dashboard::{self, Counts};
use crate::report::history::{self, Listed};
use crate::report::paint::Colour;
use crate::run::store::{RunRow, Store};

const NONE: &str = "no runs are recorded here\n";

/// List recorded runs, or remove old ones
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Command {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    state: StateArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum What {
    Gc(runs_gc::Command),
}

impl Command {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        if let Some(What::Gc(gc)) = self.what {
            return gc.run();
        }
        let Some(store) = self.state.open()? else {
            return if self.json { output::print_json(&[(); 0]) } else { output::print(NONE) };
        };
        let rows = store.runs().map_err(broken)?;
        say_what_is_lost(&store)?;
        if self.json {
            let runs: Vec<_> = rows.iter().map(|row| counted(&store, row)).collect();
            return output::print_json(&runs);
        }
        if rows.is_empty() {
            return output::print(NONE);
        }
        let mut listed: Vec<Listed<'_>> = Vec::with_capacity(rows.len());
        for row in &rows {
            let (tasks, away) = (row.header.tasks.len(), store.away(&row.header.id).map_err(broken)?);
            listed.push(Listed { header: state::header(row), tasks, end: row.end, away });
        }
        let table = history::runs(&listed, clock::now(), &TimeZone::system());
        output::print(&table.render(Colour::for_stdout(), output::columns()))
    }
}

/// How many runs are named that are lost.
const NAMED: usize = 3;

/// Warns of runs that have a folder and are not on record: not those that somebody is about to begin.
fn say_what_is_lost(store: &Store) -> Result<(), Failure> {
    let unrecorded = store.unrecorded().map_err(broken)?;
    let (alive, over): (Vec<_>, Vec<_>) = unrecorded.into_iter().partition(|run| state::goes_on_alone(run));
    for run in alive {
        let run = run.display();
        output::warn(&format!(
            "nothing is on record any more of {run}, and its tasks go on: `trainyard devices --orphans` lists them"
        ));
    }
    let lost: Vec<_> = over.iter().filter(|run| attendance::is_attended(run) != Some(true)).collect();
    if !lost.is_empty() {
        let named: Vec<_> = lost.iter().take(NAMED).map(|run| run.display().to_string()).collect();
        let more = if lost.len() > NAMED { format!(" and {} more", lost.len() - NAMED) } else { String::new() };
        let named = named.join(", ");
        output::warn(&format!("nothing is on record any more of {named}{more}; what was printed is in `logs` there"));
    }
    Ok(())
}

/// Returns a run with how many of its tasks are in which state. One whose record is damaged keeps none from being listed.
fn counted(store: &Store, row: &RunRow) -> dashboard::Listed {
    let header = state::header(row);
    let run = state::replay(store, row);
    if let Err(failure) = &run {
        output::warn(&format!("the tasks of {} cannot be counted: {}", header.run, failure.report));
    }
    let run = run.ok();
    let took = run.as_ref().and_then(|run| run.took(header.started));
    dashboard::Listed::new(&header, row.end, took, run.map(|run| Counts::of(&run, header.alive)))
}
