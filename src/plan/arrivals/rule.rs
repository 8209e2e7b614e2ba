//! The rules by which a node is chosen for what arrives, by name.
//!
//! Each gives every node that can host a request a cost; the cheapest is taken. Does not know what comes next.

use std::fmt;
use std::str::FromStr;

use super::super::mix::Mix;
use super::super::names::{by_name, name_of, names};
use super::super::random::Random;
use super::fill::Fill;
use super::room::{Ask, Room};
use crate::spec::problem::did_you_mean;
use crate::units::Bytes;

/// Which node something goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Any node, drawn by the seed, and any of its devices.
    Random,
    /// The first node. Of its devices the one with the least left, as with every rule that does not say otherwise.
    FirstFit,
    /// The node with the least left of CPUs and devices together. Source: Johnson, 1974, for both.
    BestFit,
    /// The node with the most left, and its emptiest device.
    WorstFit,
    /// The node whose free amounts point most in the direction of the request. Source: Tetris, Grandl et al., 2014.
    DotProduct,
    /// The node where what is left becomes unusable for the fewest of all requests that may come next. What makes no
    /// great difference is a tie, which is half of its success. Source: FGD, Weng et al., 2023, rounded as there.
    Fragmentation,
    /// The node where the least more stays unused once it is filled up with requests like those that came so far.
    Fill,
}

impl Rule {
    /// Every rule with its name on the command line.
    pub const ALL: [(&'static str, Self); 7] = [
        ("random", Self::Random),
        ("first-fit", Self::FirstFit),
        ("best-fit", Self::BestFit),
        ("worst-fit", Self::WorstFit),
        ("dot-product", Self::DotProduct),
        ("fragmentation", Self::Fragmentation),
        ("fill", Self::Fill),
    ];

    /// Returns its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        name_of(&Self::ALL, &self)
    }

    /// Says what it knows of what arrives, besides what it places.
    #[must_use]
    pub const fn knows(self) -> &'static str {
        match self {
            Self::Random | Self::FirstFit | Self::BestFit | Self::WorstFit | Self::DotProduct => "nothing",
            Self::Fragmentation => "the mix of all pods",
            Self::Fill => "the pods so far",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A rule that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown fit `{written}`: {}", match .near {
    Some(near) => format!("did you mean `{near}`?"),
    None => format!("write {}", Rule::ALL.map(|(name, _)| name).join(", ")),
})]
pub struct UnknownRule {
    /// What was written.
    pub written: String,
    /// What was probably meant.
    pub near: Option<&'static str>,
}

impl FromStr for Rule {
    type Err = UnknownRule;

    fn from_str(text: &str) -> Result<Self, UnknownRule> {
        let near = || did_you_mean(text, names(&Self::ALL));
        by_name(&Self::ALL, text).ok_or_else(|| UnknownRule { written: text.to_owned(), near: near() })
    }
}

/// The most frequent requests that make up 95 % of all, without what they ask of memory: what FGD looks at.
pub(super) fn typical(asks: &[Ask], times: &[u64]) -> Mix<Ask> {
    let without_memory = |ask: &Ask| Ask { memory: Bytes::ZERO, ..ask.clone() };
    Mix::new(asks.iter().map(without_memory).zip(times.iter().copied())).covering(95)
}

/// Returns what of a room's devices a mix of requests cannot use: the sum over all of them, in millionths of a device.
pub(super) fn unusable(mix: &Mix<Ask>, room: &Room) -> i128 {
    let left = i128::from(room.devices_left());
    mix.lost(|ask| {
        if ask.gpus == 0 || room.cpus < ask.cpus || !ask.accepts(room.model) {
            return left;
        }
        let small = || room.devices.iter().filter(|left| **left < ask.share);
        let enough = room.devices.len() - small().count();
        if enough < ask.gpus { left } else { small().map(|left| i128::from(left.0)).sum() }
    })
}

/// A rule at work.
#[derive(Debug)]
pub(super) struct Scorer {
    rule: Rule,
    random: Random,
    /// The most CPUs and devices that a node has.
    most: [u64; 2],
    typical: Mix<Ask>,
    fill: Fill,
}

impl Scorer {
    /// Makes a rule for a cluster. Equal seeds give equal choices.
    pub(super) fn new(rule: Rule, seed: u64, rooms: &[Room], typical: Mix<Ask>) -> Self {
        let most = |amount: fn(&Room) -> u64| rooms.iter().map(amount).max().unwrap_or(0).max(1);
        let most = [most(|room| room.cpus.0), most(Room::devices_left)];
        Self { rule, random: Random::new(seed), most, typical, fill: Fill::default() }
    }

    /// Whether it looks at what came so far again once so many have arrived: at every power of two, so that it always
    /// knows at least half of it.
    pub(super) fn learns_at(&self, arrived: u64) -> bool {
        self.rule == Rule::Fill && arrived.is_power_of_two()
    }

    /// Looks at what came so far; `times` (`[n_asks]`) says how often.
    pub(super) fn learn(&mut self, asks: &[Ask], times: &[u64]) {
        self.fill = Fill::new(asks, times);
    }

    /// What it costs to place a request on a node that can host it: lower is better.
    pub(super) fn cost(&mut self, room: &Room, ask: &Ask) -> i64 {
        let left = [room.cpus.0 - ask.cpus.0, room.devices_left() - ask.devices()];
        match self.rule {
            Rule::Random | Rule::FirstFit => 0,
            Rule::BestFit => self.parts(left).iter().sum(),
            Rule::WorstFit => -self.parts(left).iter().sum::<i64>(),
            Rule::DotProduct => {
                let (free, need) =
                    (self.parts([room.cpus.0, room.devices_left()]), self.parts([ask.cpus.0, ask.devices()]));
                -free.iter().zip(need).map(|(free, need)| free * need).sum::<i64>()
            }
            Rule::Fragmentation | Rule::Fill => self.best_way(room, ask).0,
        }
    }

    /// Returns CPUs and devices as parts of what the largest node has, 2^20 for all.
    fn parts(&self, amounts: [u64; 2]) -> [i64; 2] {
        let part =
            |(amount, most)| i64::try_from((u128::from(amount) << 20) / u128::from(most)).unwrap_or(i64::MAX >> 24);
        [part((amounts[0], self.most[0])), part((amounts[1], self.most[1]))]
    }

    /// Returns the cheapest way to place a request on a node, with its cost.
    fn best_way(&mut self, room: &Room, ask: &Ask) -> (i64, Vec<usize>) {
        let fills = self.rule == Rule::Fill;
        let before = if fills { self.fill.unused(room).into() } else { unusable(&self.typical, room) };
        let mut best = None;
        room.each_way(ask, |devices| {
            let mut after = room.clone();
            after.take(ask, devices);
            let cost = if fills {
                self.fill.unused(&after) - i64::try_from(before).unwrap_or(i64::MAX)
            } else {
                -rounded(before - unusable(&self.typical, &after), self.typical.total())
            };
            if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                best = Some((cost, devices.to_vec()));
            }
        });
        best.unwrap_or_default()
    }

    /// Returns the cheapest of these nodes, the first of equal ones; by chance any.
    pub(super) fn pick(&mut self, hosts: impl Iterator<Item = (i64, usize)>) -> Option<usize> {
        if self.rule == Rule::Random {
            let hosts: Vec<_> = hosts.collect();
            return (!hosts.is_empty()).then(|| hosts[self.random.index(hosts.len())].1);
        }
        hosts.min().map(|(_, node)| node)
    }

    /// Returns the devices of a node that a request gets.
    pub(super) fn devices(&mut self, room: &Room, ask: &Ask) -> Vec<usize> {
        match self.rule {
            Rule::FirstFit | Rule::BestFit | Rule::DotProduct => room.tightest(ask),
            Rule::WorstFit => room.loosest(ask),
            Rule::Fragmentation | Rule::Fill => self.best_way(room, ask).1,
            Rule::Random => {
                let mut devices = room.enough(ask);
                let drawn = |_| devices.swap_remove(self.random.index(devices.len()));
                (0..ask.gpus).map(drawn).collect()
            }
        }
    }
}

/// Returns how good it is that so much (in millionths of a device, summed over `total` requests) becomes usable, from 0
/// to 100: a hundred times the logistic function of devices in the mean, rounded down. Around none a step is 4 % of a
/// device.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "rounded on purpose")]
fn rounded(usable: i128, total: u64) -> i64 {
    let devices = usable as f64 / total.max(1) as f64 / 1e6;
    (100.0 / (1.0 + (-devices).exp())) as i64
}
