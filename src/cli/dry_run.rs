//! `run --dry-run`: what a run would do and why, without doing any of it.

use super::presence::Processes;
use super::session::Read;
use super::state::{self, broken};
use super::{Exit, Failure, output, patience};
use crate::graph::TaskGraph;
use crate::report::dry_run::DryRun;
use crate::report::paint::Colour;
use crate::run::cache::keeper::{Keeper, Places};
use crate::run::cache::survey::Wish;
use crate::run::cache::verdict::Verdict;
use crate::run::neighbours::Onlooker;

/// Returns what a run would do with each task.
pub(super) fn look(places: Places<'_>, read: &Read, forced: &[bool]) -> Result<Vec<Verdict>, Failure> {
    let Read { pipeline, graph, .. } = read;
    let others = Onlooker::new((places.state, state::here()), String::new(), places.root, Processes);
    let keeper = Keeper::open_to_look(places, pipeline, graph, Box::new(others)).map_err(broken)?;
    let wish = Wish { forced, ..Wish::default() };
    patience::telling(keeper.transfer(), "inputs and results", || keeper.survey(graph, wish)).map_err(broken)
}

/// Whether a run would start anything.
pub(super) fn starts(verdicts: &[Verdict]) -> bool {
    verdicts.iter().any(|verdict| matches!(verdict, Verdict::Runs(_) | Verdict::MayRun { .. }))
}

/// Prints what a run would do.
pub(super) fn show(pipeline: &str, graph: &TaskGraph, verdicts: &[Verdict], as_json: bool) -> Result<Exit, Failure> {
    let dry_run = DryRun { pipeline, graph, verdicts };
    match as_json {
        true => output::print_json(&dry_run.json()),
        false => output::print(&dry_run.text(Colour::for_stdout(), output::columns())),
    }
}
