//! The order in which requests arrive.

use super::super::random::Random;
use super::Trace;

/// What arrives when, and which node wins a tie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// Its name: a seed, or the file that it is from.
    pub name: String,
    /// Of rules that draw.
    pub seed: u64,
    /// Indices of requests, in the order in which they arrive.
    pub arrivals: Vec<usize>,
    /// `[n_nodes]`: of equally good nodes that with the smallest rank is taken; empty: the first.
    pub ranks: Vec<u64>,
}

/// Arrivals that are drawn at most.
const MOST: usize = 10_000_000;

impl Order {
    /// Draws an order: every request once, shuffled, then drawn ones until so many percent of all devices are asked for;
    /// nodes win ties in a drawn order too. Equal seeds give equal orders.
    #[must_use]
    pub fn drawn(trace: &Trace, percent: u64, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut shuffled = |n: usize| {
            let mut all: Vec<usize> = (0..n).collect();
            (1..n).rev().for_each(|i| all.swap(i, random.index(i + 1)));
            all
        };
        let mut arrivals = shuffled(trace.requests.len());
        let ranks = shuffled(trace.nodes.len()).into_iter().map(|rank| rank as u64).collect();
        let devices = |pod: usize| trace.requests[pod].gpus as u64 * u64::from(trace.requests[pod].share.0);
        let capacity: u64 = trace.nodes.iter().map(|node| node.gpus as u64 * 1_000_000).sum();
        let mut asked: u64 = arrivals.iter().map(|pod| devices(*pod)).sum();
        // Where hardly anybody asks for a device there is nothing to wait for.
        while asked > 0 && arrivals.len() < MOST && u128::from(asked) * 100 < u128::from(capacity) * u128::from(percent)
        {
            let pod = random.index(trace.requests.len());
            asked += devices(pod);
            arrivals.push(pod);
        }
        Self { name: seed.to_string(), seed, arrivals, ranks }
    }

    /// Returns the nodes, those first that win a tie.
    pub(super) fn nodes_by_rank(&self, nodes: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..nodes).collect();
        all.sort_by_key(|node| self.ranks.get(*node));
        all
    }
}
