//! Requests that arrive one by one at a cluster and stay: where each goes, and how much of the GPUs ends up unused.
//!
//! A request is placed at once, for good, and without knowing those behind it; it is turned away only if no node can host
//! it. The experiment is that of FGD (Weng et al., "Beware of Fragmentation", USENIX ATC 2023). Does not read files.

use crate::units::{Bytes, Cpus, Share};

mod fill;
mod order;
mod room;
mod rule;
#[cfg(test)]
mod tests;

pub use order::Order;
use room::{Ask, Room};
pub use rule::{Rule, UnknownRule};
use rule::{Scorer, typical, unusable};

/// A node of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its CPUs.
    pub cpus: Cpus,
    /// Its host memory.
    pub memory: Bytes,
    /// How many devices it has.
    pub gpus: usize,
    /// What they are.
    pub model: String,
}

/// What something that arrives asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Its name.
    pub name: String,
    /// CPUs.
    pub cpus: Cpus,
    /// Host memory.
    pub memory: Bytes,
    /// How many devices; 0 for none.
    pub gpus: usize,
    /// What it takes of each of them.
    pub share: Share,
    /// The models that it may run on; empty where it does not matter.
    pub models: Vec<String>,
}

/// A cluster and what may arrive at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// What arrives.
    pub requests: Vec<Request>,
}

/// Where something went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Index of the node.
    pub node: usize,
    /// Indices of its devices, ascending.
    pub devices: Vec<usize>,
}

/// What became of everything that arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// `[n_arrivals]`: where each went; `None` for what was turned away.
    pub sites: Vec<Option<Site>>,
    /// What all devices together have, in millionths of one.
    pub capacity: u64,
    /// What was asked for of them.
    pub asked: u64,
    /// What was given.
    pub given: u64,
    /// What of the rest a request of the mix cannot use, in the mean. Source: FGD, Weng et al., 2023.
    pub fragmented: u64,
}

impl Outcome {
    /// How many were turned away.
    #[must_use]
    pub fn rejected(&self) -> usize {
        self.sites.iter().filter(|site| site.is_none()).count()
    }
}

/// What a rule makes of one kind of request on every node.
struct Costs {
    /// `[n_nodes]`: lower is better; `None` for a node that cannot host it, which stays so.
    of: Vec<Option<i64>>,
    /// How many placements they take account of.
    seen: usize,
}

/// Costs that are remembered at most, of 16 bytes each: beyond that all are forgotten. Tests forget often.
const KEPT: usize = if cfg!(test) { 8 } else { 1 << 24 };

/// A cluster that fills up.
struct Replay<'t> {
    /// Requests that ask for the same, once each.
    asks: &'t [Ask],
    /// `[n_nodes]`, those first that win a tie.
    rooms: Vec<Room>,
    /// Nodes of all placements so far, as indices into `rooms`.
    log: Vec<usize>,
    /// `[n_asks]`
    costs: Vec<Option<Costs>>,
    /// How many of them there are.
    kept: usize,
}

impl Replay<'_> {
    /// Returns the cheapest node for a request, the first of equal ones.
    fn cheapest(&mut self, ask: usize, scorer: &mut Scorer) -> Option<usize> {
        if self.costs[ask].is_none() {
            if (self.kept + 1) * self.rooms.len() > KEPT {
                self.forget();
            }
            self.kept += 1;
        }
        let (rooms, asked) = (&self.rooms, &self.asks[ask]);
        let mut cost = |room: &Room| room.can_host(asked).then(|| scorer.cost(room, asked));
        let costs = match self.costs[ask].take() {
            // What has been looked at before changes only where something was placed since.
            Some(mut costs) => {
                let mut changed = self.log[costs.seen..].to_vec();
                changed.sort_unstable();
                changed.dedup();
                for node in changed {
                    costs.of[node] = costs.of[node].and_then(|_| cost(&rooms[node]));
                }
                Costs { seen: self.log.len(), ..costs }
            }
            None => Costs { of: rooms.iter().map(cost).collect(), seen: self.log.len() },
        };
        let hosts = costs.of.iter().enumerate().filter_map(|(node, cost)| Some((cost.as_ref()?, node)));
        let found = scorer.pick(hosts.map(|(cost, node)| (*cost, node)));
        self.costs[ask] = Some(costs);
        found
    }

    fn forget(&mut self) {
        self.costs.iter_mut().for_each(|costs| *costs = None);
        self.kept = 0;
    }

    /// Places a request on a node.
    fn place(&mut self, ask: usize, node: usize, scorer: &mut Scorer) -> Vec<usize> {
        let mut devices = scorer.devices(&self.rooms[node], &self.asks[ask]);
        devices.sort_unstable();
        self.rooms[node].take(&self.asks[ask], &devices);
        self.log.push(node);
        devices
    }
}

/// Lets everything arrive in an order and places it by a rule.
#[must_use]
pub fn replay(trace: &Trace, order: &Order, rule: Rule) -> Outcome {
    let mut models: Vec<&str> = trace.nodes.iter().map(|node| node.model.as_str()).collect();
    models.sort_unstable();
    models.dedup();
    let (asks, kind) = kinds(&trace.requests, &models);
    let before = order.nodes_by_rank(trace.nodes.len());
    let rooms: Vec<Room> = before.iter().map(|node| Room::of(&trace.nodes[*node], &models)).collect();
    let mut times = vec![0_u64; asks.len()];
    kind.iter().for_each(|kind| times[*kind] += 1);
    let mix = typical(&asks, &times);
    let mut scorer = Scorer::new(rule, order.seed, &rooms, mix.clone());
    let mut replay =
        Replay { asks: &asks, rooms, log: Vec::new(), costs: asks.iter().map(|_| None).collect(), kept: 0 };
    let capacity = replay.rooms.iter().map(Room::devices_left).sum();
    let mut outcome = Outcome { capacity, ..Outcome::default() };
    let mut arrived = vec![0_u64; asks.len()];
    for (number, pod) in (1..).zip(&order.arrivals) {
        let ask = kind[*pod];
        outcome.asked += asks[ask].devices();
        arrived[ask] += 1;
        if scorer.learns_at(number) {
            scorer.learn(&asks, &arrived);
            replay.forget();
        }
        let site = replay.cheapest(ask, &mut scorer).map(|node| {
            outcome.given += asks[ask].devices();
            Site { devices: replay.place(ask, node, &mut scorer), node: before[node] }
        });
        outcome.sites.push(site);
    }
    let unusable: i128 = replay.rooms.iter().map(|room| unusable(&mix, room)).sum();
    outcome.fragmented = u64::try_from(unusable / i128::from(mix.total().max(1))).unwrap_or(0);
    outcome
}

/// Returns what is asked for, each once, and which of it every request asks for.
fn kinds(requests: &[Request], models: &[&str]) -> (Vec<Ask>, Vec<usize>) {
    let mut known = std::collections::HashMap::new();
    let mut asks = Vec::new();
    let kind = requests.iter().map(|request| {
        let ask = Ask::new(request, models);
        *known.entry(ask.clone()).or_insert_with(|| {
            asks.push(ask);
            asks.len() - 1
        })
    });
    let kind = kind.collect();
    (asks, kind)
}
