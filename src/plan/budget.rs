//! What is spent over a whole plan: keeps enough for the tasks that are still to come.
//!
//! For one budget this never ends without a choice when there is one at all; for several it may, since the cheapest
//! modes for one budget can be dear for another. Does not know time.

use std::cmp::Reverse;

use super::PlanError;
use super::instance::{Choice, Instance};
use crate::fleet::Fleet;
use crate::graph::{TaskGraph, TaskId};
use crate::spec::Pipeline;
use crate::spec::problem::did_you_mean;

/// What is left of the budgets while a schedule is built.
pub(super) struct Purse {
    /// `[n_budgets]`: left after what was spent, less the least that all tasks still to come will spend.
    spare: Vec<u128>,
    /// `[n_kinds][n_budgets]`: the least that a task spends.
    least: Vec<Vec<u64>>,
}

impl Purse {
    /// Fills it with the fleet's budgets.
    pub(super) fn new(instance: &Instance<'_>) -> Self {
        if instance.budgets.is_empty() {
            return Self::open();
        }
        let least = least(instance);
        let reserved = reserved(instance, &least);
        // Whoever makes a purse has seen that the least fits the budgets.
        let spare = instance.budgets.iter().zip(reserved);
        let spare = spare.map(|((_, limit), least)| u128::from(*limit).saturating_sub(least)).collect();
        Self { spare, least }
    }

    /// A purse that allows everything.
    pub(super) const fn open() -> Self {
        Self { spare: Vec::new(), least: Vec::new() }
    }

    /// Whether a task may take a choice.
    pub(super) fn allows(&self, instance: &Instance<'_>, task: TaskId, choice: &Choice) -> bool {
        self.spare.is_empty() || {
            let least = &self.least[instance.kind[task.index()] as usize];
            let extra = choice.spend.iter().zip(least).map(|(spend, least)| u128::from(spend - least));
            extra.zip(&self.spare).all(|(extra, spare)| extra <= *spare)
        }
    }

    /// Spends what a task's choice costs.
    pub(super) fn spend(&mut self, instance: &Instance<'_>, task: TaskId, choice: u32) {
        if self.spare.is_empty() {
            return;
        }
        let least = &self.least[instance.kind[task.index()] as usize];
        let choice = &instance.choices(task)[choice as usize];
        for ((spare, spend), least) in self.spare.iter_mut().zip(&choice.spend).zip(least) {
            *spare -= u128::from(spend - least);
        }
    }
}

/// Refuses a stage that spends of what is none of the fleet's budgets; a fleet without any says that nothing is limited.
pub(super) fn known(pipeline: &Pipeline, graph: &TaskGraph, fleet: &Fleet) -> Result<(), PlanError> {
    if fleet.budgets.is_empty() {
        return Ok(());
    }
    for stage in graph.tasks.iter().map(|task| &pipeline.stages[task.stage]) {
        let mut spent = stage.modes.iter().flat_map(|mode| mode.spend.keys());
        if let Some(budget) = spent.find(|budget| !fleet.budgets.contains_key(*budget)) {
            let near = did_you_mean(budget, fleet.budgets.keys().map(String::as_str)).map(str::to_owned);
            return Err(PlanError::UnknownBudget { stage: stage.name.clone(), budget: budget.clone(), near });
        }
    }
    Ok(())
}

/// A budget that even the cheapest modes exceed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overspent {
    /// The budget's name.
    pub budget: String,
    /// What the cheapest modes spend together.
    pub least: u128,
    /// What there is.
    pub limit: u64,
    /// Index of the stage whose tasks spend most, and what they spend together.
    pub dearest: (usize, u128),
}

/// Returns all budgets that even the cheapest modes exceed. Without an instance, as some tasks fit nowhere, every mode may be
/// the cheapest.
pub(super) fn exceeded(
    pipeline: &Pipeline,
    graph: &TaskGraph,
    fleet: &Fleet,
    instance: Option<&Instance<'_>>,
) -> Vec<Overspent> {
    let of_kinds = instance.map(|instance| (instance, least(instance)));
    let exceeded = |(index, (name, limit)): (usize, (&String, &u64))| {
        let of_task = |task: TaskId| match &of_kinds {
            Some((instance, least)) => least[instance.kind[task.index()] as usize][index],
            None => {
                let modes = &pipeline.stages[graph.tasks[task.index()].stage].modes;
                modes.iter().map(|mode| mode.spend.get(name).copied().unwrap_or(0)).min().unwrap_or(0)
            }
        };
        let mut by_stage = vec![0_u128; pipeline.stages.len()];
        graph.ids().for_each(|task| by_stage[graph.tasks[task.index()].stage] += u128::from(of_task(task)));
        let least = by_stage.iter().sum();
        let dearest = (0..).zip(by_stage).max_by_key(|(stage, spent)| (*spent, Reverse(*stage)))?;
        (least > u128::from(*limit)).then(|| Overspent { budget: name.clone(), least, limit: *limit, dearest })
    };
    fleet.budgets.iter().enumerate().filter_map(exceeded).collect()
}

/// `[n_kinds][n_budgets]`: the least that a task spends, each budget for itself.
fn least(instance: &Instance<'_>) -> Vec<Vec<u64>> {
    let of = |b: usize, choices: &[Choice]| choices.iter().map(|choice| choice.spend[b]).min().unwrap_or(0);
    let budgets = 0..instance.budgets.len();
    instance.kinds.iter().map(|kind| budgets.clone().map(|b| of(b, &kind.choices)).collect()).collect()
}

fn reserved(instance: &Instance<'_>, least: &[Vec<u64>]) -> Vec<u128> {
    let sum = |b: usize| instance.kind.iter().map(|kind| u128::from(least[*kind as usize][b])).sum();
    (0..instance.budgets.len()).map(sum).collect()
}
