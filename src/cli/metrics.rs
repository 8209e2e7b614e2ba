//! `trainyard metrics [RUN]`: runs and devices in Prometheus' text format, for a scraper that reads files.

use clap::Args;

use super::attach::Gauges;
use super::diff::heard;
use super::state::{self, StateArgs, broken};
use super::{Exit, Failure, output, session};
use crate::progress::record::Record;
use crate::report::metrics::{self, Picture, Run};
use crate::run::launch;
use crate::run::state::RunState;
use crate::run::store::RunRow;

/// Print runs and devices in Prometheus' text format
#[derive(Args)]
pub(super) struct Command {
    /// A run's id, the beginning of it, or its name [default: those under way, and the newest]
    run: Option<String>,
    #[command(flatten)]
    state: StateArgs,
}

impl Command {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        output::print(&page(&self.state, self.run.as_deref())?)
    }
}

/// Returns everything that is measured of the runs in a state folder and of this machine's devices, in Prometheus' text
/// format.
pub(super) fn page(args: &StateArgs, wanted: Option<&str>) -> Result<String, Failure> {
    let (store, newest) = args.pick(wanted)?;
    let rows = store.runs().map_err(broken)?;
    let is_shown = |row: &RunRow| match wanted {
        None if state::header(row).alive => true,
        None | Some(_) => row.header.id == newest.header.id,
    };
    let shown: Vec<&RunRow> = rows.iter().filter(|row| is_shown(row)).collect();
    let states: Vec<RunState> = shown.iter().map(|row| state::replay(&store, row)).collect::<Result<_, _>>()?;
    type Heard = Box<dyn Fn(&str, u32) -> Option<Record>>;
    let heard_of = |row: &&RunRow| -> Heard {
        let dir = store.run_dir(&row.header.id);
        Box::new(move |task, number| heard(&launch::progress(&dir, task, number)))
    };
    let heard: Vec<Heard> = shown.iter().map(heard_of).collect();
    let runs: Vec<Run<'_>> = (shown.iter().zip(&states).zip(&heard))
        .map(|((row, state), heard)| Run { header: state::header(row), tasks: &row.header.tasks, state, heard })
        .collect();
    let ends: Vec<_> = rows.iter().map(|row| (row.end, state::header(row).alive)).collect();
    let under_way: Vec<_> = runs.iter().map(|run| (run.header.run, run.state)).collect();
    let devices = Gauges::of_this_machine().read(&under_way);
    Ok(metrics::render(&Picture { ends: &ends, runs: &runs, devices: &devices, now: session::now() }))
}
