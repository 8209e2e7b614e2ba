//! Several tasks of a run in a line each: those of a stage that is asked about by its name.

use super::Explanation;
use crate::report::{text, wording};

/// Tasks that a person may still read of; JSON has them all.
const LINES: usize = 20;

/// Says of each task where it is, those that nothing has become of yet first. `stage` is how they were asked for.
#[must_use]
pub fn several(stage: &str, all: &[Explanation]) -> String {
    let Some(first) = all.first() else { return String::new() };
    let run = text::visible(&first.run);
    let mut shown = format!("{} of run {run}: {}\n\n", text::visible(stage), wording::plural(all.len(), "task"));
    let is_open = |one: &&Explanation| matches!(one.state, "waiting" | "running");
    let open = all.iter().filter(is_open);
    for one in open.chain(all.iter().filter(|one| !is_open(one))).take(LINES) {
        shown.push_str(&format!("{}: {}: {}\n", text::visible(&one.task), one.state, one.words));
    }
    let more = all.len().saturating_sub(LINES);
    if more > 0 {
        shown.push_str(&format!("and {more} more, which --json has\n"));
    }
    shown.push_str(&format!(
        "\nhow the attempts of one went: trainyard explain {run} '{}'\n",
        text::visible(&first.task)
    ));
    shown
}
