//! Policies by name: `ORDER+FIT`, or `auto`. Does not know how a schedule is built.

use std::fmt;
use std::str::FromStr;

use super::bound::Bound;
use super::decode::{Decoder, Direction, demands};
use super::draft::Draft;
use super::fit::{Fit, FitRule};
use super::instance::Instance;
use super::justify::justify;
use super::order::OrderRule;
use super::{Options, Plan, PlanError, amounts};
use crate::spec::problem::did_you_mean;
use crate::timing::Timing;

/// Who makes a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Policy {
    /// The best of several.
    #[default]
    Auto,
    /// One pass: tasks in this order, each to the place that fits it best.
    List(OrderRule, FitRule),
}

/// A policy that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown policy `{written}`: {}", match .near {
    Some(near) => format!("did you mean `{near}`?"),
    None => "write `auto` or ORDER+FIT, like `critical-path+best-fit`".to_owned(),
})]
pub struct UnknownPolicy {
    /// What was written.
    pub written: String,
    /// What was probably meant.
    pub near: Option<String>,
}

impl FromStr for Policy {
    type Err = UnknownPolicy;

    /// Reads `auto`, `ORDER+FIT`, or one of the two alone: the other is then `critical-path` or `earliest-finish`.
    fn from_str(text: &str) -> Result<Self, UnknownPolicy> {
        let order = |name: &str| OrderRule::ALL.iter().find(|(known, _)| *known == name).map(|(_, rule)| *rule);
        let fit = |name: &str| FitRule::ALL.iter().find(|(known, _)| *known == name).map(|(_, rule)| *rule);
        let found = match text.split_once('+') {
            Some((first, second)) => order(first).zip(fit(second)),
            None if text == "auto" => return Ok(Self::Auto),
            None => order(text)
                .map(|order| (order, FitRule::EarliestFinish))
                .or_else(|| fit(text).map(|fit| (OrderRule::CriticalPath, fit))),
        };
        found.map(|(order, fit)| Self::List(order, fit)).ok_or_else(|| unknown(text))
    }
}

fn unknown(text: &str) -> UnknownPolicy {
    let orders = || OrderRule::ALL.iter().map(|(name, _)| *name);
    let fits = || FitRule::ALL.iter().map(|(name, _)| *name);
    let near = match text.split_once('+') {
        Some((first, second)) => {
            let (first, second) = (did_you_mean(first, orders()), did_you_mean(second, fits()));
            first.zip(second).map(|(first, second)| format!("{first}+{second}"))
        }
        None => did_you_mean(text, ["auto"].into_iter().chain(orders()).chain(fits())).map(str::to_owned),
    };
    UnknownPolicy { written: text.to_owned(), near }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.pad("auto"),
            Self::List(order, fit) => {
                let order = OrderRule::ALL.iter().find(|(_, rule)| rule == order).map_or("", |(name, _)| name);
                let fit = FitRule::ALL.iter().find(|(_, rule)| rule == fit).map_or("", |(name, _)| name);
                f.pad(&format!("{order}+{fit}"))
            }
        }
    }
}

/// Orders and fits that `auto` tries, the most promising first.
const PORTFOLIO: [(OrderRule, FitRule); 4] = [
    (OrderRule::CriticalPath, FitRule::EarliestFinish),
    (OrderRule::CriticalPath, FitRule::BestFit),
    (OrderRule::LeastSlack, FitRule::BestFit),
    (OrderRule::LongestFirst, FitRule::BestFit),
];

/// Tasks up to which `auto` tries its whole portfolio: beyond, one pass costs more than it is likely to gain.
const PORTFOLIO_TASKS: usize = 20_000;

/// Lets a policy make a plan; bound and check are the caller's.
pub(super) fn plan(
    instance: &Instance<'_>,
    timing: &Timing,
    bound: Bound,
    options: &Options<'_>,
) -> Result<Plan, PlanError> {
    let (node, device) = demands(instance);
    let draft = match amounts::words(&node).max(amounts::words(&device)) {
        1 => Planner::<1>::new(instance, timing, bound, options).best(),
        2..=4 => Planner::<4>::new(instance, timing, bound, options).best(),
        5..=32 => Planner::<32>::new(instance, timing, bound, options).best(),
        _ => return Err(PlanError::TooManyResources),
    };
    Ok(draft?.into_plan(instance, options.policy.to_string()))
}

struct Planner<'a, const W: usize> {
    instance: &'a Instance<'a>,
    timing: &'a Timing,
    bound: Bound,
    options: &'a Options<'a>,
    decoder: Decoder<'a, W>,
}

impl<'a, const W: usize> Planner<'a, W> {
    fn new(instance: &'a Instance<'a>, timing: &'a Timing, bound: Bound, options: &'a Options<'a>) -> Self {
        Self { instance, timing, bound, options, decoder: Decoder::new(instance) }
    }

    fn best(mut self) -> Result<Draft, PlanError> {
        match self.options.policy {
            Policy::List(order, fit) => self.list(order, fit).ok_or(PlanError::Budgets),
            Policy::Auto => self.portfolio().ok_or(PlanError::Budgets),
        }
    }

    /// One pass of an order and a fit rule; `None` where it ran out of a budget.
    fn list(&mut self, order: OrderRule, fit: FitRule) -> Option<Draft> {
        let order = order.order(self.instance, self.timing);
        let mut fit = Fit::new(fit, self.options.seed, self.instance);
        let mut draft = Draft::default();
        self.decoder.decode(&order, &mut fit, None, Direction::Forward, &mut draft).ok()?;
        Some(draft)
    }

    /// The best of several passes, each improved as long as that helps; stops at the bound.
    fn portfolio(&mut self) -> Option<Draft> {
        let tries = if self.instance.len() > PORTFOLIO_TASKS { 1 } else { PORTFOLIO.len() };
        let mut best: Option<Draft> = None;
        for (order, fit) in PORTFOLIO.into_iter().take(tries) {
            let Some(draft) = self.list(order, fit) else { continue };
            let draft = self.justified(draft, fit);
            if best.as_ref().is_none_or(|best| draft.makespan < best.makespan) {
                best = Some(draft);
            }
            if best.as_ref().is_some_and(|best| self.is_proven(best)) {
                break;
            }
        }
        best
    }

    /// Shifts a schedule back and forth until it gets no shorter.
    fn justified(&mut self, mut draft: Draft, fit: FitRule) -> Draft {
        let mut fit = Fit::new(fit, self.options.seed, self.instance);
        while self.instance.len() <= PORTFOLIO_TASKS && !self.is_proven(&draft) {
            match justify(&mut self.decoder, &mut fit, &draft) {
                Ok(shifted) if shifted.makespan < draft.makespan => draft = shifted,
                Ok(_) | Err(_) => break,
            }
        }
        draft
    }

    fn is_proven(&self, draft: &Draft) -> bool {
        draft.makespan <= self.bound.time.0
    }
}
