//! Where and when every task should run, and how far that can be from the best.
//!
//! [`make`] turns a pipeline, its graph and a fleet into an [`Instance`] in whole numbers, lets a [`Policy`] find a
//! schedule with the one decoder, computes a lower bound, and has [`check`](check::check) prove the plan legal.
//! Does not know what is running now: that is the run's business.

use std::fmt;

use self::order::OrderRule;
use crate::batch::search::Searcher;
use crate::fleet::{DeviceId, Fleet, NodeId};
use crate::graph::{TaskGraph, TaskId};
use crate::spec::Pipeline;
use crate::timing::{Backend, Cpu};
use crate::units::Millis;

mod amounts;
pub mod arrivals;
pub mod bound;
mod budget;
mod build;
pub mod check;
mod decode;
mod draft;
mod exact;
pub mod fit;
#[cfg(test)]
pub(crate) mod fixture;
mod goal;
pub mod impossible;
pub mod instance;
mod islands;
mod loads;
mod machine;
mod mix;
mod names;
pub mod objective;
pub mod order;
pub mod pace;
mod pieces;
pub mod policy;
mod profile;
mod random;
pub mod rest;
mod search;
mod serial;
mod sliced;
pub mod team;
#[cfg(test)]
mod tests;
pub mod turns;
pub mod usage;

pub use budget::Overspent;
pub use build::wanted_memory;
pub use check::{Violation, check};
pub use exact::proof;
pub use impossible::Impossible;
pub use instance::Instance;
pub use objective::Objective;
pub use policy::Policy;

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
    /// When it really runs, from and to, ascending and apart, where that is not all the time from start to finish: it is
    /// suspended in between. Empty otherwise.
    pub segments: Vec<(Millis, Millis)>,
}

impl Placed {
    /// Yields when it runs, from and to.
    pub fn pieces(&self) -> impl Iterator<Item = (Millis, Millis)> {
        let whole = self.segments.is_empty().then_some((self.start, self.finish));
        self.segments.iter().copied().chain(whole)
    }

    /// Returns for how long it runs.
    #[must_use]
    pub fn ran(&self) -> Millis {
        self.pieces().map(|(from, to)| to - from).sum()
    }
}

/// Placement and start time of every task, and what is known of its quality.
#[derive(Clone, Debug, Default)]
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
    /// Whether tasks take turns in it. `lower_bound` then holds for plans that interrupt tasks as well, of which some end
    /// before any that does not.
    pub takes_turns: bool,
    /// Schedules that were tried to find it.
    pub evaluations: u64,
    /// Why the exact search was given up, where it broke down; plan and bound are what was found without it.
    pub given_up: Option<String>,
    /// What it was to be good for.
    pub objective: Objective,
    /// How good it is for that, in the objective's unit, and what no plan can be under; both zero for the makespan, which
    /// is counted above.
    pub value: u128,
    /// See `value`.
    pub value_bound: u128,
}

impl Plan {
    /// Returns what the plan's objective makes of it, and what no plan can be under.
    #[must_use]
    pub fn measured(&self) -> (u128, u128) {
        match self.objective {
            Objective::Makespan => (self.makespan.0.into(), self.lower_bound.0.into()),
            Objective::WeightedCompletion | Objective::Energy => (self.value, self.value_bound),
        }
    }

    /// Returns the plan as one for more tasks: `left` (`[n_tasks]`) says which of `all` tasks those of the plan are. The
    /// others are done, take no time and come last.
    #[must_use]
    pub fn among(self, left: &[TaskId], all: usize) -> Self {
        let now = Millis::ZERO;
        let nothing =
            Placed { mode: 0, node: NodeId(0), devices: Vec::new(), start: now, finish: now, segments: Vec::new() };
        let (mut placed, mut rank) = (vec![nothing; all], vec![u32::MAX; all]);
        for ((task, of_task), at) in left.iter().zip(self.placed).zip(self.rank) {
            (placed[task.index()], rank[task.index()]) = (of_task, at);
        }
        let behind = u32::try_from(left.len()).unwrap_or(u32::MAX);
        for (rank, next) in rank.iter_mut().filter(|rank| **rank == u32::MAX).zip(behind..) {
            *rank = next;
        }
        Self { placed, rank, ..self }
    }

    /// Whether no plan can be better.
    #[must_use]
    pub fn is_optimal(&self) -> bool {
        let (value, bound) = self.measured();
        value == bound
    }

    /// Returns by how much the plan may be worse than the best one, as a part of the lower bound of its objective.
    #[must_use]
    pub fn gap(&self) -> f64 {
        let (value, bound) = self.measured();
        #[expect(clippy::cast_precision_loss, reason = "shown with a few digits")]
        let part = value.saturating_sub(bound) as f64 / bound.max(1) as f64;
        part
    }
}

/// What a plan is to be like, and what may be spent on finding it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// Who makes it.
    pub policy: Policy,
    /// Equal seeds give equal plans, unless time runs out.
    pub seed: u64,
    /// How long a better plan may be looked for.
    pub limits: Limits<'a>,
    /// What makes a plan better.
    pub objective: Objective,
    /// Who searches in batches for the policies that can: see [`Policy::in_batches`].
    pub searcher: Option<&'a dyn Searcher>,
    /// On how many islands an engine searches; on one where absent.
    pub islands: Option<team::Team<'a>>,
    /// Who makes the schedules of one search at once, which changes none of them; one after the other where absent.
    pub decoders: Option<team::Team<'a>>,
    /// How long a task runs with [`OrderRule::TimeSlice`] before others have their turn; a
    /// minute when absent.
    pub quantum: Option<Millis>,
}

/// How long a better plan may be looked for. The first plan is always finished.
#[derive(Clone, Copy, Default)]
pub struct Limits<'a> {
    /// Schedules that may be tried.
    pub evaluations: Option<u64>,
    /// Time that may pass on `clock`; a second or a hundredth of the makespan, whichever is less, when absent.
    pub budget: Option<Millis>,
    /// Returns the time since planning began. Without it only `evaluations` counts.
    pub clock: Option<&'a (dyn Fn() -> Millis + Sync)>,
}

impl fmt::Debug for Limits<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = (self.evaluations, self.budget, self.clock.is_some());
        f.debug_tuple("Limits").field(&shown).finish()
    }
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Tasks that fit nowhere, even on an empty fleet, or that spend too much, even in their cheapest modes.
    #[error("{}", impossible::in_short(.stages, .budgets))]
    Impossible {
        /// Those that fit nowhere.
        stages: Vec<Impossible>,
        /// What all together exceed.
        budgets: Vec<Overspent>,
    },
    /// A stage spends of what is none of the fleet's budgets.
    #[error(
        "`{stage}` spends `{budget}`, which is none of the fleet's budgets: {}",
        .near.as_ref().map_or_else(
            || "declare it in `[budgets]` of the fleet file, or leave it out of `spend`".to_owned(),
            |near| format!("did you mean `{near}`?"),
        )
    )]
    UnknownBudget {
        /// The stage's name.
        stage: String,
        /// The budget's name.
        budget: String,
        /// What was probably meant.
        near: Option<String>,
    },
    /// No choice of modes was found that stays in all budgets, though each budget by itself would suffice.
    #[error("no choice of modes was found that stays in all budgets at once")]
    Budgets,
    /// The energy of a device is not known.
    #[error(
        "nothing says how much power {device} takes: energy is for `plan` and `bench` with a fleet file (`--fleet FILE`) that \
         says `idle_watts` and `active_watts` of each GPU, not for this machine"
    )]
    NoWatts {
        /// Its id.
        device: String,
    },
    /// A search that knows the makespan only.
    #[error("`{policy}` makes plans short: for `--objective {objective}` take `auto`, or an order and a fit")]
    OnlyMakespan {
        /// The policy.
        policy: Policy,
        /// What it was to be good for.
        objective: Objective,
    },
    /// The durations add up to more than can be counted.
    #[error("the durations add up to more than can be planned: 146 million years")]
    TooLong,
    /// So short a quantum that the turns cannot be told one by one.
    #[error("with turns of {quantum} tasks would be stopped too often: plan with `--quantum {least}` or more")]
    Quantum {
        /// The quantum.
        quantum: Millis,
        /// The shortest one.
        least: Millis,
    },
    /// More different resources than the planner can hold at once.
    #[error("the pipeline asks for too many different resources at once")]
    TooManyResources,
    /// The plan that was found is not legal: a bug of ours.
    #[error("a bug of ours: the plan found is not legal: {}", .0.first().map(ToString::to_string).unwrap_or_default())]
    Illegal(Vec<Violation>),
}

impl From<Vec<Impossible>> for PlanError {
    fn from(stages: Vec<Impossible>) -> Self {
        Self::Impossible { stages, budgets: Vec::new() }
    }
}

/// Makes a plan for running `graph`, which was built from `pipeline`, on `fleet`.
///
/// # Errors
/// What makes a plan impossible, everything at once.
pub fn make(pipeline: &Pipeline, graph: &TaskGraph, fleet: &Fleet, options: &Options<'_>) -> Result<Plan, PlanError> {
    make_timed(pipeline, graph, fleet, options, &Cpu)
}

/// As [`make`]; `timed_by` computes the load matrix, and the earliest and latest times.
///
/// # Errors
/// As [`make`].
pub fn make_timed(
    pipeline: &Pipeline,
    graph: &TaskGraph,
    fleet: &Fleet,
    options: &Options<'_>,
    timed_by: &dyn Backend,
) -> Result<Plan, PlanError> {
    possible(fleet, options)?;
    budget::known(pipeline, graph, fleet)?;
    let instance = Instance::timed(pipeline, graph, fleet, options.objective, timed_by);
    let budgets = budget::exceeded(pipeline, graph, fleet, instance.as_ref().ok());
    let instance = match instance {
        Ok(instance) if budgets.is_empty() => instance,
        instance => return Err(PlanError::Impossible { stages: instance.err().unwrap_or_default(), budgets }),
    };
    if instance.horizon() > HORIZON_MOST {
        return Err(PlanError::TooLong);
    }
    let timing = timed_by.timing(graph, instance.shortest());
    let plan = match (options.policy, options.objective) {
        (Policy::List(OrderRule::TimeSlice, fit), _) if instance.takes_turns() => {
            sliced::plan(&instance, &timing, fit, options)?
        }
        (_, Objective::Makespan) => policy::plan(&instance, &timing, bound::lower_bound(&instance, &timing), options)?,
        (_, Objective::WeightedCompletion | Objective::Energy) => {
            goal::plan(&instance, &timing, bound::lower_bound(&instance, &timing), options)?
        }
    };
    check(pipeline, graph, fleet, &plan).map_err(PlanError::Illegal)?;
    Ok(plan)
}

/// Refuses an objective that the policy or the fleet is not made for.
fn possible(fleet: &Fleet, options: &Options<'_>) -> Result<(), PlanError> {
    let Options { policy, objective, .. } = *options;
    if matches!(policy, Policy::Search(_)) && objective != Objective::Makespan {
        return Err(PlanError::OnlyMakespan { policy, objective });
    }
    let unknown = fleet.devices.iter().find(|device| objective == Objective::Energy && device.watts.is_none());
    unknown.map_or(Ok(()), |device| Err(PlanError::NoWatts { device: device.id.clone() }))
}

/// The longest plan, in milliseconds: twice it still fits the type, so that sums of two instants never overflow.
const HORIZON_MOST: u128 = 1 << 62;
