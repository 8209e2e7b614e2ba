//! Where and when every task should run, and how far that can be from the best.
//!
//! Does not know what is running now: that is the run's business.

use crate::fleet::{DeviceId, NodeId};
use crate::units::Millis;

/// Where and when one task is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Index into the stage's modes.
    pub mode: usize,
    /// The node.
    pub node: NodeId,
    /// The devices, ascending; empty for a task on the host.
    pub devices: Vec<DeviceId>,
    /// When it starts, from the start of the plan.
    pub start: Millis,
    /// When it ends.
    pub finish: Millis,
}

/// Placement and start time of every task, and what is known of its quality.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The policy that made it, as given on the command line.
    pub policy: String,
    /// `[n_tasks]`, by TaskId.
    pub placed: Vec<Placed>,
    /// `[n_tasks]`, by TaskId: position in the order in which tasks should be started; each position once.
    pub rank: Vec<u32>,
    /// When the last task ends.
    pub makespan: Millis,
    /// No plan can end before this.
    pub lower_bound: Millis,
    /// What `lower_bound` rests on: `critical path`, `GPU memory`, …
    pub bound_by: &'static str,
}
