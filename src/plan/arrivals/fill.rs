//! The rule `fill`: what of a node's devices stays unused once it is filled up with requests like those so far.
//!
//! Looks as far ahead as a node can be filled, where FGD looks at the next request only. Does not know other nodes.

use std::collections::HashMap;

use super::room::{Ask, Room};
use crate::units::Share;

/// Samples that a node is filled with, each by itself.
const HANDS: u64 = 8;

/// Requests in each. With fewer large nodes stay half empty; with more there is always one that fits, and nothing seems
/// to be lost. Both numbers were chosen by two orders of four of Alibaba's traces, and hold for the others.
const DRAWN: u64 = 16;

/// What is remembered at most: some hundred bytes each.
const REMEMBERED: usize = 1_000_000;

/// Samples of requests for devices, and what they made of the rooms that were looked at.
#[derive(Debug, Default)]
pub(super) struct Fill {
    hands: Vec<Vec<Ask>>,
    known: HashMap<Room, i64>,
}

impl Fill {
    /// Draws the samples, without chance: from all requests for devices in the order in which they will be offered, those
    /// at equal distances, for each sample from another start. `times` (`[n_asks]`) says how often each was made.
    pub(super) fn new(asks: &[Ask], times: &[u64]) -> Self {
        let mut all: Vec<_> = asks.iter().zip(times).filter(|(ask, _)| ask.gpus > 0).collect();
        // The largest first, as who has a choice would place them; of equals those that leave the most CPUs.
        all.sort_unstable_by_key(|(ask, _)| {
            (std::cmp::Reverse(ask.devices()), ask.cpus, std::cmp::Reverse(ask.memory), &ask.models)
        });
        let total: u128 = all.iter().map(|(_, times)| u128::from(**times)).sum();
        let hand = |start: u64| {
            let (mut hand, mut drawn, mut passed) = (Vec::new(), 0, 0_u128);
            for (ask, times) in &all {
                passed += u128::from(**times);
                let at = |drawn: u64| u128::from(2 * (drawn * HANDS + start) + 1) * total;
                while drawn < DRAWN && at(drawn) < u128::from(2 * HANDS * DRAWN) * passed {
                    hand.push((*ask).clone());
                    drawn += 1;
                }
            }
            hand
        };
        Self { hands: (0..HANDS).map(hand).collect(), known: HashMap::new() }
    }

    /// Returns what stays unused of a room's devices, in millionths of one, summed over the samples.
    pub(super) fn unused(&mut self, room: &Room) -> i64 {
        // Which of its devices has what left makes no difference.
        let mut room = room.clone();
        room.devices.sort_unstable();
        if let Some(unused) = self.known.get(&room) {
            return *unused;
        }
        let unused = self.hands.iter().map(|hand| left_by(hand, room.clone())).sum();
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        self.known.insert(room, unused);
        unused
    }
}

/// Fills a room with what fits of a sample, each request to the devices with the least left; returns what is left.
fn left_by(hand: &[Ask], mut room: Room) -> i64 {
    for ask in hand {
        if ask.gpus > 1 {
            if room.can_host(ask) {
                let devices = room.tightest(ask);
                room.take(ask, &devices);
            }
        } else if room.cpus >= ask.cpus && room.memory >= ask.memory && ask.accepts(room.model) {
            let enough = room.devices.iter_mut().filter(|left| **left >= ask.share);
            if let Some(left) = enough.min() {
                *left -= ask.share;
                room.cpus -= ask.cpus;
                room.memory -= ask.memory;
            }
        }
        if room.devices.iter().all(|left| *left == Share::ZERO) {
            return 0;
        }
    }
    i64::try_from(room.devices_left()).unwrap_or(i64::MAX)
}
