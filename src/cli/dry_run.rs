//! `run --dry-run`: what a run would do and why, without doing any of it.

use super::session::Read;
use super::state::broken;
use super::{Exit, Failure, output, patience};
use crate::report::dry_run::DryRun;
use crate::report::paint::Colour;
use crate::run::cache::keeper::{Keeper, Places};
use crate::run::cache::survey::Wish;
use crate::run::cache::verdict::Verdict;

/// Prints what a run would do, and returns whether it would start anything.
pub(super) fn show(places: Places<'_>, read: &Read, forced: &[bool], as_json: bool) -> Result<(Exit, bool), Failure> {
    let Read { pipeline, graph, .. } = read;
    let keeper = Keeper::open_to_look(places, pipeline, graph).map_err(broken)?;
    let wish = Wish { forced, ..Wish::default() };
    let verdicts =
        patience::telling(keeper.transfer(), "inputs and results", || keeper.survey(graph, wish)).map_err(broken)?;
    let dry_run = DryRun { pipeline: &pipeline.name, graph, verdicts: &verdicts };
    let exit = match as_json {
        true => output::print_json(&dry_run.json()),
        false => output::print(&dry_run.text(Colour::for_stdout(), output::columns())),
    }?;
    let starts = |verdict: &Verdict| matches!(verdict, Verdict::Runs(_) | Verdict::MayRun { .. });
    Ok((exit, verdicts.iter().any(starts)))
}
