//! Fit rules: which place a task goes to.
//!
//! A *packing* rule looks at every place, takes those at which the task ends first, and decides among them. A
//! *balancing* rule chooses the place without looking at the time, as a load balancer does, in the first mode that the
//! fleet allows; the task then starts there as early as it can. Does not know the order of tasks.

use std::cmp::Ordering;

use super::amounts::{Amounts, Lanes};
use super::instance::Instance;
use super::machine::{self, Machine};
use super::mix::Mix;
use super::random::Random;
use crate::fleet::{DeviceId, NodeId};

/// How good a place is for a task: lower is better.
pub(super) type Score = u64;

/// A fit rule by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FitRule {
    /// Ends first; among those the place that has worked least so far, and of such devices the one with the least left,
    /// so that room in one piece stays. Source: HEFT, Topcuoglu et al., 2002.
    EarliestFinish,
    /// Ends first; among those the first in the fleet's order.
    FirstFit,
    /// Ends first; among those the one with the least left. Source: Johnson, 1974, for every resource.
    BestFit,
    /// Ends first; among those the one with the most left.
    WorstFit,
    /// Ends first; among those the one whose free amounts point most in the direction of the request.
    /// Source: Tetris, Grandl et al., 2014.
    DotProduct,
    /// Ends first; among those the one where the fewest of the pipeline's tasks lose the rest of the device.
    /// Source: FGD, Weng et al., 2023, with the pipeline itself as the mix of tasks.
    Fragmentation,
    /// Any place, drawn by the seed.
    Random,
    /// The places in turn.
    RoundRobin,
    /// The place with the least work so far.
    LeastLoaded,
    /// The place with the fewest tasks at the time the task becomes ready.
    LeastConnections,
}

impl FitRule {
    /// Every rule with its name on the command line.
    pub const ALL: [(&'static str, Self); 10] = [
        ("earliest-finish", Self::EarliestFinish),
        ("first-fit", Self::FirstFit),
        ("best-fit", Self::BestFit),
        ("worst-fit", Self::WorstFit),
        ("dot-product", Self::DotProduct),
        ("fragmentation", Self::Fragmentation),
        ("random", Self::Random),
        ("round-robin", Self::RoundRobin),
        ("least-loaded", Self::LeastLoaded),
        ("least-connections", Self::LeastConnections),
    ];

    /// Whether the place is chosen without looking at the time.
    pub(super) const fn balances(self) -> bool {
        match self {
            Self::Random | Self::RoundRobin | Self::LeastLoaded | Self::LeastConnections => true,
            Self::EarliestFinish
            | Self::FirstFit
            | Self::BestFit
            | Self::WorstFit
            | Self::DotProduct
            | Self::Fragmentation => false,
        }
    }
}

/// A fit rule at work: the rule and what it remembers of the tasks placed so far.
#[derive(Clone)]
pub(super) struct Fit {
    rule: FitRule,
    seed: u64,
    random: Random,
    /// `[n_devices + n_nodes]`: work placed so far, in milliseconds.
    busy: Vec<u64>,
    /// `[n_devices + n_nodes]`: ends of the tasks placed so far, ascending; kept for `least-connections` only.
    ends: Vec<Vec<u64>>,
    /// The place after the one used last.
    turn: usize,
    n_devices: usize,
    /// Requests for devices with how many tasks make each; for `fragmentation` only.
    mix: Mix<[u64; 2]>,
}

/// At most so many different requests stand for the mix of tasks, the most frequent ones: the score of a device costs
/// one comparison for each.
const MIX_MOST: usize = 32;

impl Fit {
    /// Makes the rule for an instance. Equal seeds give equal choices.
    pub(super) fn new(rule: FitRule, seed: u64, instance: &Instance<'_>) -> Self {
        let n_devices = instance.devices.len();
        let n = n_devices + instance.nodes.len();
        let mix = if rule == FitRule::Fragmentation { mix(instance) } else { Mix::default() };
        let ends = if rule == FitRule::LeastConnections { vec![Vec::new(); n] } else { Vec::new() };
        Self { rule, seed, random: Random::new(seed), busy: vec![0; n], ends, turn: 0, n_devices, mix }
    }

    /// Becomes another rule.
    pub(super) fn change(&mut self, rule: FitRule, instance: &Instance<'_>) {
        if self.rule != rule {
            *self = Self::new(rule, self.seed, instance);
        }
    }

    /// Forgets all tasks.
    pub(super) fn clear(&mut self) {
        self.random = Random::new(self.seed);
        self.busy.fill(0);
        self.ends.iter_mut().for_each(Vec::clear);
        self.turn = 0;
    }

    /// The rule itself.
    pub(super) const fn rule(&self) -> FitRule {
        self.rule
    }

    /// Remembers a task that was placed.
    pub(super) fn placed(&mut self, node: NodeId, devices: &[DeviceId], start: u64, finish: u64) {
        let host = devices.is_empty().then_some(self.n_devices + node.index());
        for place in devices.iter().map(|device| device.index()).chain(host) {
            self.busy[place] += finish - start;
            if let Some(ends) = self.ends.get_mut(place) {
                ends.insert(ends.partition_point(|end| *end <= finish), finish);
            }
            self.turn = place + 1;
        }
    }

    /// Scores a place for a balancing rule; `place` counts devices, then nodes.
    pub(super) fn balance(&mut self, place: usize, ready: u64) -> Score {
        let places = self.busy.len();
        match self.rule {
            FitRule::Random => self.random.next(),
            FitRule::RoundRobin => ((place + places - self.turn % places) % places) as u64,
            FitRule::LeastConnections => {
                let ends = &self.ends[place];
                (ends.len() - ends.partition_point(|end| *end <= ready)) as u64
            }
            FitRule::LeastLoaded
            | FitRule::EarliestFinish
            | FitRule::FirstFit
            | FitRule::BestFit
            | FitRule::WorstFit
            | FitRule::DotProduct
            | FitRule::Fragmentation => self.busy[place],
        }
    }

    /// Scores a node for a task without devices that starts at `start`.
    pub(super) fn score_node<const W: usize>(
        &self,
        machine: &Machine<W>,
        node: NodeId,
        need: Amounts<W>,
        start: u64,
    ) -> Score {
        let (lanes, offer) = (&machine.node_lanes, machine.node_offer[node.index()]);
        let free = || machine.nodes[node.index()].at(start);
        self.score(lanes, offer, free, need, self.n_devices + node.index())
    }

    /// Scores a device for a task that starts at `start`.
    pub(super) fn score_device<const W: usize>(
        &self,
        machine: &Machine<W>,
        device: DeviceId,
        need: Amounts<W>,
        start: u64,
    ) -> Score {
        let (lanes, offer) = (&machine.device_lanes, machine.device_offer[device.index()]);
        let free = || machine.devices[device.index()].at(start);
        if self.rule == FitRule::Fragmentation {
            return self.fragmented(lanes, free(), need);
        }
        self.score(lanes, offer, free, need, device.index())
    }

    /// Compares devices with equal scores for a task that starts at `start`.
    pub(super) fn break_tie<const W: usize>(
        &self,
        machine: &Machine<W>,
        devices: [(DeviceId, Amounts<W>); 2],
        start: u64,
    ) -> Ordering {
        if self.rule != FitRule::EarliestFinish {
            return Ordering::Equal;
        }
        let [one, other] = devices.map(|(device, need)| -> u64 {
            let left = machine.devices[device.index()].at(start).less(need);
            machine.device_lanes.relative(left, machine.device_offer[device.index()]).sum()
        });
        one.cmp(&other)
    }

    fn score<const W: usize>(
        &self,
        lanes: &Lanes<W>,
        offer: Amounts<W>,
        free: impl Fn() -> Amounts<W>,
        need: Amounts<W>,
        place: usize,
    ) -> Score {
        let parts = |amounts| lanes.relative(amounts, offer);
        match self.rule {
            FitRule::FirstFit => 0,
            FitRule::BestFit | FitRule::Fragmentation => parts(free().less(need)).sum(),
            FitRule::WorstFit => u64::MAX - parts(free().less(need)).sum::<u64>(),
            FitRule::DotProduct => {
                let product = parts(free()).zip(parts(need)).map(|(free, need)| free * need);
                u64::MAX - product.fold(0, u64::saturating_add)
            }
            FitRule::EarliestFinish
            | FitRule::Random
            | FitRule::RoundRobin
            | FitRule::LeastLoaded
            | FitRule::LeastConnections => self.busy[place],
        }
    }

    /// How much of the device's compute is lost to tasks of the mix that would fit before and no longer fit after.
    fn fragmented<const W: usize>(&self, lanes: &Lanes<W>, free: Amounts<W>, need: Amounts<W>) -> Score {
        let after = free.less(need);
        // A device without requests for shares counts as one piece.
        let lost = |free: Amounts<W>, other: Amounts<W>| {
            if lanes.fits(free, other) { 0 } else { i128::from(lanes.lane(free, 1).max(1)) }
        };
        let growth = self.mix.lost(|other| {
            let other = lanes.request(*other);
            lost(after, other) - lost(free, other)
        });
        // Growth may be negative; half the range stands for none.
        u64::try_from(growth + i128::from(u64::MAX / 2)).unwrap_or(u64::MAX)
    }
}

/// Returns the most frequent requests for devices.
fn mix(instance: &Instance<'_>) -> Mix<[u64; 2]> {
    let mut tasks_of = vec![0_u64; instance.kinds.len()];
    instance.kind.iter().for_each(|kind| tasks_of[*kind as usize] += 1);
    let first = |kind: &super::instance::Kind| kind.choices.iter().find(|choice| choice.gang > 0).map(machine::asked);
    let asked = instance.kinds.iter().zip(tasks_of).filter_map(|(kind, tasks)| Some((first(kind)?, tasks)));
    Mix::new(asked).at_most(MIX_MOST)
}
