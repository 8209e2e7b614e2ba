//! The plan of what is left of a run, made anew while the run goes on.

use super::planning::Stopwatch;
use super::session::Prepared;
use crate::plan::rest::{self, Rest, Revision};
use crate::plan::{self, Limits};
use crate::units::Millis;

/// Plans the rest of a run.
#[derive(Clone, Copy)]
pub(super) struct Again<'a> {
    pub(super) of: &'a Prepared,
    pub(super) seed: u64,
}

impl Again<'_> {
    /// Looks for a better order, for a hundredth of the time that is left and between 5 ms and a second.
    pub(super) fn plan(self, rest: &Rest) -> Option<Revision> {
        let Prepared { pipeline, graph, fleet, plan, .. } = self.of;
        let watch = Stopwatch::start();
        let clock = || watch.elapsed();
        let budget = Some(Millis((rest.expected.0 / 100).clamp(5, 1_000)));
        let limits = Limits { evaluations: None, budget, clock: Some(&clock) };
        let policy = plan.policy.parse().unwrap_or_default();
        let objective = plan.objective;
        let options = plan::Options { policy, seed: self.seed, limits, objective, ..plan::Options::default() };
        let revision = rest::rest(pipeline, graph, fleet, rest, &options);
        revision.inspect_err(|error| tracing::debug!(%error, "the rest of the run cannot be planned")).ok()
    }
}
