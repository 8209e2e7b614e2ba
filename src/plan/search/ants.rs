//! Ant colony optimization: orders drawn from what good schedules had in common.
//!
//! A trail says how well a task did at a place of the order and with a choice. Each ant takes, of the tasks that are
//! ready, one by trail and by how much must follow it; the best schedule of a round and the best of all leave trails, the
//! others fade. Sources: Dorigo and Gambardella, "Ant colony system", 1997; Merkle, Middendorf and Schmeck, "Ant colony
//! optimization for resource-constrained project scheduling", 2002; changed: places of the order are blocks. Does not
//! know what makes a schedule good.

use super::super::decode::{Direction, FREE};
use super::super::draft::Draft;
use super::super::order::upward_rank;
use super::{Search, sample};
use crate::graph::TaskId;

/// Ants of a round.
const ANTS: usize = 12;
/// Blocks that the order is cut into.
const BLOCKS: usize = 16;
/// Part of a trail that stays after a round.
const STAYS: f64 = 0.92;
/// The weakest trail, so that nothing is out of the question.
const LEAST: f64 = 0.02;
/// Of so many draws one follows chance, the others the best trail.
const EXPLORES: u64 = 4;

struct Trails {
    /// `[n_tasks][BLOCKS]`.
    place: Vec<[f64; BLOCKS]>,
    /// `[n_tasks][n_choices + 1]`: the last one lets the decoder choose.
    choice: Vec<Vec<f64>>,
    /// `[n_tasks]`: how promising it is to take a task early, in (0, 1].
    hope: Vec<f64>,
}

/// Improves the best schedule until the search is over.
pub(in crate::plan) fn run<const W: usize>(search: &mut Search<'_, W>) {
    let mut trails = Trails::new(search);
    let mut draft = Draft::default();
    let n = search.instance.len();
    while n > 1 && !search.is_over() {
        let mut round: Option<Draft> = None;
        for _ in 0..ANTS {
            if search.is_over() {
                return;
            }
            let order = trails.order(search);
            let choice = match search.modes() {
                Some(choice) => choice,
                None => trails.choices(search),
            };
            let found = search.evaluate(&order, &choice, Direction::Forward, &mut draft);
            if found && round.as_ref().is_none_or(|best| draft.makespan < best.makespan) {
                round = Some(draft.clone());
            }
        }
        trails.fade();
        if let Some(best) = round {
            trails.leave(search, &best);
        }
        if let Some(best) = search.best().cloned() {
            trails.leave(search, &best);
        }
    }
}

impl Trails {
    fn new<const W: usize>(search: &Search<'_, W>) -> Self {
        let rank = upward_rank(search.instance);
        let most = to_f64(rank.iter().copied().max().unwrap_or(0).max(1));
        let of_task = |task: TaskId| vec![1.0; search.instance.choices(task).len() + 1];
        Self {
            place: vec![[1.0; BLOCKS]; rank.len()],
            choice: search.instance.graph.ids().map(of_task).collect(),
            hope: rank.iter().map(|rank| (to_f64(*rank) / most).max(0.001)).collect(),
        }
    }

    /// Draws an order: each task behind those it waits for.
    fn order<const W: usize>(&self, search: &mut Search<'_, W>) -> Vec<TaskId> {
        let graph = search.instance.graph;
        sample::taken(graph, |ready, placed| {
            let block = placed * BLOCKS / graph.len();
            // A steep power: an ant that cannot see far takes what much depends on.
            let pull = |task: &TaskId| self.place[task.index()][block] * self.hope[task.index()].powi(4);
            if search.random.below(EXPLORES) == 0 {
                drawn(search, &ready.iter().map(pull).collect::<Vec<_>>())
            } else {
                (0..ready.len()).max_by(|a, b| pull(&ready[*a]).total_cmp(&pull(&ready[*b]))).unwrap_or(0)
            }
        })
    }

    fn choices<const W: usize>(&self, search: &mut Search<'_, W>) -> Vec<u32> {
        let draw = |trail: &Vec<f64>| {
            let drawn = drawn(search, trail);
            if drawn + 1 == trail.len() { FREE } else { u32::try_from(drawn).unwrap_or(FREE) }
        };
        self.choice.iter().map(draw).collect()
    }

    fn fade(&mut self) {
        let fade = |trail: &mut f64| *trail = (*trail * STAYS).max(LEAST);
        self.place.iter_mut().flatten().for_each(fade);
        self.choice.iter_mut().flatten().for_each(fade);
    }

    fn leave<const W: usize>(&mut self, search: &Search<'_, W>, draft: &Draft) {
        let mut order = draft.order.clone();
        order.sort_by_key(|task| draft.start[task.index()]);
        for (position, task) in order.iter().enumerate() {
            self.place[task.index()][position * BLOCKS / order.len()] += 1.0 - STAYS;
            let choice = draft.choice[task.index()] as usize;
            if search.instance.choices(*task).len() > 1 {
                self.choice[task.index()][choice] += 1.0 - STAYS;
            }
        }
    }
}

/// Draws an index by weight.
fn drawn<const W: usize>(search: &mut Search<'_, W>, weights: &[f64]) -> usize {
    let mut left = to_f64(search.random.below(1 << 32)) / to_f64(1 << 32) * weights.iter().sum::<f64>();
    for (index, weight) in weights.iter().enumerate() {
        left -= weight;
        if left < 0.0 {
            return index;
        }
    }
    weights.len().saturating_sub(1)
}

#[expect(clippy::cast_precision_loss, reason = "draws need not be exact")]
fn to_f64(value: u64) -> f64 {
    value as f64
}
