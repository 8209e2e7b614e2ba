//! Choices that stay in the budgets: repaired by local search before anything is scheduled.
//!
//! Keeping to several budgets at once is a knapsack problem of its own; a schedule that is made of choices that do not
//! keep to them is worth nothing. Does not know time.

use super::super::decode::FREE;
use super::super::instance::Instance;
use super::super::random::Random;

/// Flips for each task before a repair is given up: PSPLIB's multi-mode instances need fewer than two.
const FLIPS: usize = 20;

/// What is spent by a choice for every task.
struct Ledger<'a> {
    instance: &'a Instance<'a>,
    /// `[n_budgets]`: what all choices spend together.
    spent: Vec<u128>,
}

impl<'a> Ledger<'a> {
    fn new(instance: &'a Instance<'a>, choice: &[u32]) -> Self {
        let mut ledger = Self { instance, spent: vec![0; instance.budgets.len()] };
        for (task, choice) in choice.iter().enumerate() {
            ledger
                .spent
                .iter_mut()
                .zip(spend(instance, task, *choice))
                .for_each(|(sum, spend)| *sum += u128::from(*spend));
        }
        ledger
    }

    /// By how much the budgets are exceeded, each as a part of itself, if a task took another choice.
    fn excess(&self, task: usize, from: u32, to: u32) -> f64 {
        let flips = spend(self.instance, task, from).iter().zip(spend(self.instance, task, to));
        let after = self.spent.iter().zip(flips).map(|(sum, (from, to))| sum - u128::from(*from) + u128::from(*to));
        let over =
            after.zip(&self.instance.budgets).map(|(sum, (_, limit))| (sum.saturating_sub(u128::from(*limit)), limit));
        #[expect(clippy::cast_precision_loss, reason = "only compared")]
        let parts = over.map(|(over, limit)| over as f64 / (*limit).max(1) as f64);
        parts.sum()
    }

    fn flip(&mut self, task: usize, from: u32, to: u32) {
        let flips = spend(self.instance, task, from).iter().zip(spend(self.instance, task, to));
        self.spent
            .iter_mut()
            .zip(flips)
            .for_each(|(sum, (from, to))| *sum = *sum - u128::from(*from) + u128::from(*to));
    }

    fn is_within(&self) -> bool {
        self.spent.iter().zip(&self.instance.budgets).all(|(sum, (_, limit))| *sum <= u128::from(*limit))
    }
}

fn spend<'a>(instance: &'a Instance<'_>, task: usize, choice: u32) -> &'a [u64] {
    &instance.kinds[instance.kind[task] as usize].choices[choice as usize].spend
}

/// Whether choices for all tasks, none of them [`FREE`], stay in the budgets together.
pub(super) fn fit_budgets(instance: &Instance<'_>, choice: &[u32]) -> bool {
    choice.iter().all(|choice| *choice != FREE) && Ledger::new(instance, choice).is_within()
}

/// Changes choices, as few as it can, until they stay in the budgets; `None` where it does not find how.
pub(in crate::plan) fn repaired(
    instance: &Instance<'_>,
    random: &mut Random,
    mut choice: Vec<u32>,
) -> Option<Vec<u32>> {
    let n_choices = |task: usize| instance.kinds[instance.kind[task] as usize].choices.len();
    for (task, choice) in choice.iter_mut().enumerate() {
        if *choice == FREE {
            *choice = u32::try_from(random.index(n_choices(task))).unwrap_or(0);
        }
    }
    let mut ledger = Ledger::new(instance, &choice);
    for _ in 0..FLIPS * choice.len() {
        if ledger.is_within() {
            return Some(choice);
        }
        // A few tasks are looked at, and the flip that helps most is made; now and then one that hurts gets it moving.
        let candidates = (0..4).map(|_| random.index(choice.len())).collect::<Vec<_>>();
        let flips = candidates.iter().flat_map(|task| {
            let others = (0..u32::try_from(n_choices(*task)).unwrap_or(0)).filter(|to| *to != choice[*task]);
            others.map(|to| (*task, to)).collect::<Vec<_>>()
        });
        let best = flips.min_by(|a, b| {
            let excess = |flip: &(usize, u32)| ledger.excess(flip.0, choice[flip.0], flip.1);
            excess(a).total_cmp(&excess(b))
        });
        if let Some((task, to)) = best {
            ledger.flip(task, choice[task], to);
            choice[task] = to;
        }
    }
    ledger.is_within().then_some(choice)
}
