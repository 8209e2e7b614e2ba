//! Forward-backward improvement: shifts every task as late as it can go, then everything as early as it can go again.
//!
//! Each pass is the decoder itself with the modes that the schedule has; the way back never makes a schedule of one
//! pass longer by much and usually makes it shorter. Source: Valls, Ballestín and Quintanilla, "Justification and
//! RCPSP: a technique that pays", 2005. Does not know where the schedule came from.

use std::cmp::Reverse;

use super::decode::{Decoder, Direction, OverBudget};
use super::draft::Draft;
use super::fit::Fit;
use crate::graph::TaskId;

/// Returns the schedule shifted to the right and back to the left.
///
/// # Errors
/// Never where the schedule is within the budgets.
pub(super) fn justify<const W: usize>(
    decoder: &mut Decoder<'_, W>,
    fit: &mut Fit,
    draft: &Draft,
) -> Result<Draft, OverBudget> {
    let mut late = Draft::default();
    decoder.decode(&backwards(draft), fit, Some(&draft.choice), Direction::Backward, &mut late)?;
    let mut early = Draft::default();
    decoder.decode(&backwards(&late), fit, Some(&draft.choice), Direction::Forward, &mut early)?;
    Ok(early)
}

/// Returns the tasks by their ends, the last first, and of those that end together the one placed last first: an order
/// for the opposite direction.
fn backwards(draft: &Draft) -> Vec<TaskId> {
    let mut position = vec![0_u32; draft.order.len()];
    (0..).zip(&draft.order).for_each(|(at, task)| position[task.index()] = at);
    let mut order = draft.order.clone();
    order.sort_unstable_by_key(|task| Reverse((draft.finish[task.index()], position[task.index()])));
    order
}
