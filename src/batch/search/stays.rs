//! Who stays in a population, and what a generation leaves to the next: trails and velocities.
//!
//! Sources: Kirkpatrick et al., "Optimization by simulated annealing", 1983; Dorigo and Gambardella, 1997; Kennedy and
//! Eberhart, "Particle swarm optimization", 1995, with the weights of Clerc and Kennedy, 2002. Does not know how orders are
//! made.

use super::BLOCKS;
use super::moves::Round;
use super::philox::{Purpose, below};

/// The weakest trail, so that nothing is out of the question: 0.02.
const LEAST_TRAIL: u32 = 1_311;
/// What goes of a trail in a generation: 0.08.
const FADES: u64 = 5_243;
/// Keys of particles have 20 bits behind the point.
pub(super) const WHOLE_KEY: i32 = 1 << 20;
/// How far particles lie apart at first, and how fast one may fly: 0.15.
const SPREAD: u32 = 157_286;
/// What stays of a velocity, 0.729, and how strongly it is pulled to either best place, 1.494.
const INERTIA: i64 = 47_776;
const PULL: i64 = 97_911;

/// A population: orders, how long each takes, and the keys that they come from, or none.
#[derive(Debug)]
pub struct Population<O, M, K> {
    /// `[candidates][n_tasks]`.
    pub order: O,
    /// `[candidates]`.
    pub makespan: M,
    /// `[candidates][n_tasks]`, or empty.
    pub key: K,
}

/// Children take the places of their candidates if they are longer by no more than chance allows at this temperature, in
/// ticks: Metropolis' rule, with the draw made first. At zero they must not be longer.
pub fn settle(
    round: Round,
    temperature: u32,
    gap: &[u32],
    child: &Population<&[u16], &[u32], &[u32]>,
    kept: &mut Population<&mut [u16], &mut [u32], &mut [u32]>,
) {
    let candidates = kept.makespan.len().max(1);
    let (n, keys) = (kept.order.len() / candidates, kept.key.len() / candidates);
    for (candidate, is) in child.makespan.iter().enumerate() {
        let chance = round.draw(Purpose::Chance, candidate, 0)[0];
        let slack = (u64::from(temperature) * u64::from(gap[(chance >> 20) as usize])) >> 16;
        if u64::from(*is) > u64::from(kept.makespan[candidate]) + slack {
            continue;
        }
        let (row, key_row) = (candidate * n..(candidate + 1) * n, candidate * keys..(candidate + 1) * keys);
        kept.order[row.clone()].copy_from_slice(&child.order[row]);
        kept.key[key_row.clone()].copy_from_slice(&child.key[key_row]);
        kept.makespan[candidate] = *is;
    }
}

/// Writes the candidates with the shortest makespans to the first half of `leader`, the first among equals, and their
/// makespans to the second.
pub fn leaders(makespan: &[u32], leader: &mut [u32]) {
    let mut by_length: Vec<(u32, u32)> = makespan.iter().copied().zip(0..).collect();
    by_length.sort_unstable();
    let (candidate, length) = leader.split_at_mut(leader.len() / 2);
    for ((candidate, length), best) in candidate.iter_mut().zip(length).zip(by_length) {
        (*length, *candidate) = best;
    }
}

/// Lets all trails fade.
pub fn fade(trail: &mut [u32]) {
    for value in trail {
        let goes = u32::try_from((u64::from(*value) * FADES) >> 16).unwrap_or(0);
        *value = (*value - goes).max(LEAST_TRAIL);
    }
}

/// Lets each of `leader` leave `gain` where its tasks are in its order.
pub fn leave(n_tasks: usize, leader: &[u32], gain: u32, order: &[u16], trail: &mut [u32]) {
    for leader in leader {
        let order = &order[*leader as usize * n_tasks..][..n_tasks];
        for (place, task) in order.iter().enumerate() {
            trail[place * BLOCKS / n_tasks * n_tasks + usize::from(*task)] += gain;
        }
    }
}

/// Makes a number from -SPREAD / 2 to SPREAD / 2 of a drawn one.
fn spread(drawn: u32) -> i32 {
    below(drawn, SPREAD + 1).cast_signed() - SPREAD.cast_signed() / 2
}

/// Starts particles around one of `base`, `[bases][n_tasks]`, the first of each just there, all with a small velocity.
pub fn scatter(n_tasks: usize, seed: u64, base: &[u32], key: &mut [u32], velocity: &mut [u32]) {
    let round = Round { seed, generation: 0 };
    let bases = base.len() / n_tasks;
    for (at, (key, velocity)) in key.iter_mut().zip(velocity).enumerate() {
        let (candidate, task) = (at / n_tasks, at % n_tasks);
        let [a, b, ..] = round.draw(Purpose::First, candidate, u32::try_from(task).unwrap_or(0));
        let apart = if candidate < bases { 0 } else { spread(a) };
        *key = base[candidate % bases * n_tasks + task].wrapping_add_signed(apart);
        *velocity = (spread(b) / 4).cast_unsigned();
    }
}

/// Lets particles fly on, pulled to where they were `best` and to where the particle `leader` was.
pub fn fly(n_tasks: usize, round: Round, leader: u32, best: &[u32], key: &mut [u32], velocity: &mut [u32]) {
    let value = |word: u32| i64::from(word.cast_signed());
    let common = &best[leader as usize * n_tasks..][..n_tasks];
    for (at, (key, velocity)) in key.iter_mut().zip(velocity).enumerate() {
        let (candidate, task) = (at / n_tasks, at % n_tasks);
        let [a, b, ..] = round.draw(Purpose::Flight, candidate, u32::try_from(task).unwrap_or(0));
        let pull = |drawn: u32, to: u32| ((PULL * i64::from(drawn >> 16)) >> 16) * (value(to) - value(*key));
        let speed = INERTIA * value(*velocity) + pull(a, best[at]) + pull(b, common[task]);
        let speed = (speed >> 16).clamp(-i64::from(SPREAD), i64::from(SPREAD));
        let to = (value(*key) + speed).clamp(-i64::from(WHOLE_KEY), i64::from(2 * WHOLE_KEY));
        (*key, *velocity) = (word(to), word(speed));
    }
}

fn word(value: i64) -> u32 {
    i32::try_from(value).unwrap_or(0).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::super::tables::Tables;
    use super::*;

    #[test]
    fn a_child_that_is_longer_stays_only_by_chance() {
        let gap = Tables::default().gap;
        let n = 4_000;
        let (orders, longer) = (vec![1_u16; n], vec![110_u32; n]);
        let taken = |temperature| {
            let (mut order, mut makespan) = (vec![0_u16; n], vec![100_u32; n]);
            let child = Population { order: &orders[..], makespan: &longer[..], key: &[][..] };
            let mut kept = Population { order: &mut order[..], makespan: &mut makespan[..], key: &mut [][..] };
            settle(Round { seed: 1, generation: 2 }, temperature, &gap, &child, &mut kept);
            assert!(order.iter().zip(&makespan).all(|(order, makespan)| (*order == 1) == (*makespan == 110)));
            order.iter().filter(|order| **order == 1).count()
        };
        assert_eq!(taken(0), 0);
        // Metropolis: e^-1 and e^-(1/4) of them.
        assert!(taken(10).abs_diff(1_472) < 150, "{}", taken(10));
        assert!(taken(40).abs_diff(3_115) < 150, "{}", taken(40));
    }

    #[test]
    fn the_first_of_the_shortest_leads() {
        let mut leader = [0; 6];
        leaders(&[7, 3, 9, 3, 5], &mut leader);
        assert_eq!(leader, [1, 3, 4, 3, 3, 5]);
    }

    #[test]
    fn trails_fade_to_the_weakest_and_leaders_leave_new_ones() {
        let mut trail = vec![1 << 16; 2 * BLOCKS];
        (0..100).for_each(|_| fade(&mut trail));
        assert!(trail.iter().all(|value| *value == LEAST_TRAIL));
        leave(2, &[1], 9, &[0, 1, 1, 0], &mut trail);
        assert_eq!((trail[1], trail[2 * BLOCKS / 2]), (LEAST_TRAIL + 9, LEAST_TRAIL + 9));
        assert_eq!(trail.iter().filter(|value| **value > LEAST_TRAIL).count(), 2);
    }

    #[test]
    fn particles_come_closer_to_the_best() {
        let (n, candidates) = (8, 50);
        let base: Vec<u32> = (0..n as u32).map(|task| task << 17).collect();
        let (mut key, mut velocity) = (vec![0; n * candidates], vec![0; n * candidates]);
        scatter(n, 5, &base, &mut key, &mut velocity);
        assert_eq!(key[..n], base[..]);
        let best = base.repeat(candidates);
        let away = |key: &[u32]| -> u64 {
            key.iter().zip(&best).map(|(key, best)| u64::from(key.cast_signed().abs_diff(best.cast_signed()))).sum()
        };
        let before = away(&key);
        for generation in 1..60 {
            fly(n, Round { seed: 5, generation }, 0, &best, &mut key, &mut velocity);
        }
        assert!(away(&key) * 4 < before, "{} of {before}", away(&key));
    }
}
