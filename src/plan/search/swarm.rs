//! Particle swarm optimization: keys of tasks as positions that fly towards what they and others did best with.
//!
//! A position has a key for each task, and tasks are placed by falling keys; it is pulled towards the particle's own best
//! position and towards the best of all. Source: Kennedy and Eberhart, "Particle swarm optimization", 1995, with the
//! weights of Clerc and Kennedy, 2002; keys for orders: Zhang, Li and Tam, 2006. Choices are the decoder's. Does not know
//! what makes a schedule good.

use super::super::decode::{Direction, FREE};
use super::super::draft::Draft;
use super::super::order::{by_key, upward_rank};
use super::Search;

/// Particles.
const PARTICLES: usize = 20;
/// What stays of a velocity, and how strongly it is pulled to either best position.
const INERTIA: f64 = 0.729;
const PULL: f64 = 1.494;
/// How far particles lie apart at first, as a part of the largest key.
const SPREAD: f64 = 0.15;
/// Keys in whole numbers have so many steps.
const STEPS: f64 = 1e9;

struct Particle {
    key: Vec<f64>,
    velocity: Vec<f64>,
    best: Vec<f64>,
    makespan: u64,
}

/// Improves the best schedule until the search is over.
pub(in crate::plan) fn run<const W: usize>(search: &mut Search<'_, W>) {
    let n = search.instance.len();
    let rank = upward_rank(search.instance);
    let most = to_f64(rank.iter().copied().max().unwrap_or(0).max(1));
    let first: Vec<f64> = rank.iter().map(|rank| to_f64(*rank) / most).collect();
    let mut swarm: Vec<Particle> = (0..PARTICLES).map(|_| Particle::around(search, &first)).collect();
    let mut draft = Draft::default();
    let mut leader = (u64::MAX, first);
    while n > 1 && !search.is_over() {
        if let Some(found) = search.arrived(Direction::Forward).filter(|found| found.makespan < leader.0) {
            let early = |start: &u64| 1.0 - to_f64(*start) / to_f64(found.makespan.max(1));
            leader = (found.makespan, found.start.iter().map(early).collect());
        }
        for particle in &mut swarm {
            if search.is_over() {
                return;
            }
            particle.fly(search, &leader.1);
            let key = |task: crate::graph::TaskId, _: usize| steps(particle.key[task.index()]);
            let order = by_key(search.instance, key);
            let choice = search.modes().unwrap_or_else(|| vec![FREE; n]);
            if search.evaluate(&order, &choice, Direction::Forward, &mut draft) && draft.makespan <= particle.makespan {
                particle.makespan = draft.makespan;
                particle.best.clone_from(&particle.key);
                if draft.makespan < leader.0 {
                    leader = (draft.makespan, particle.key.clone());
                }
            }
        }
    }
}

impl Particle {
    /// Makes a particle near some keys.
    fn around<const W: usize>(search: &mut Search<'_, W>, keys: &[f64]) -> Self {
        let key: Vec<_> = keys.iter().map(|key| key + (unit(search) - 0.5) * SPREAD).collect();
        let velocity = keys.iter().map(|_| (unit(search) - 0.5) * SPREAD / 4.0).collect();
        Self { best: key.clone(), key, velocity, makespan: u64::MAX }
    }

    fn fly<const W: usize>(&mut self, search: &mut Search<'_, W>, leader: &[f64]) {
        for (i, leader) in leader.iter().enumerate() {
            let own = PULL * unit(search) * (self.best[i] - self.key[i]);
            let common = PULL * unit(search) * (leader - self.key[i]);
            self.velocity[i] = (INERTIA * self.velocity[i] + own + common).clamp(-SPREAD, SPREAD);
            self.key[i] = (self.key[i] + self.velocity[i]).clamp(-1.0, 2.0);
        }
    }
}

fn unit<const W: usize>(search: &mut Search<'_, W>) -> f64 {
    to_f64(search.random.below(1 << 32)) / to_f64(1 << 32)
}

#[expect(clippy::cast_possible_truncation, reason = "keys lie between -1 and 2")]
fn steps(key: f64) -> i64 {
    (key * STEPS) as i64
}

#[expect(clippy::cast_precision_loss, reason = "draws need not be exact")]
fn to_f64(value: u64) -> f64 {
    value as f64
}
