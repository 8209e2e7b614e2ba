//! Local search: one schedule, changed a little at a time.
//!
//! The tasks of a window of the schedule are put into another order and some of them may choose anew; what lies before
//! the window stays where it is, what lies behind it keeps its choice and moves up. Now and then the schedule is decoded
//! from its other end, so that both ends are worked on. *Large neighbourhood search* takes wide windows and accepts what
//! is hardly longer; *simulated annealing* takes a few tasks and accepts what is longer with a chance that falls.
//! Sources: Shaw, "Using constraint programming and local search methods to solve vehicle routing problems", 1998;
//! Kirkpatrick et al., "Optimization by simulated annealing", 1983; threshold accepting: Dueck and Scheuer, 1990.
//! Does not know populations.

use super::super::decode::{Direction, FREE, Wanted};
use super::super::draft::Draft;
use super::Search;
use super::crossover::Orders;
use super::genetic::Individual;
use super::modes;
use crate::graph::TaskId;

/// How a local search moves.
#[derive(Clone, Copy)]
struct Style {
    /// Tasks of a window: at least this many, and up to so many, or so many hundredths of all where that is more.
    window: (usize, usize, usize),
    /// Of a hundred tasks of a window so many are moved, and so many may choose anew.
    moved: u64,
    flipped: u64,
    /// How much longer an accepted schedule may be at first, in parts of 10,000 of the best makespan.
    slack: u64,
    /// Whether that is drawn anew for each schedule.
    by_chance: bool,
    /// Whether tasks stay on their devices where that costs no time.
    stays: bool,
    /// Schedules after which the search goes on from the other end: at least these, and so many hundredths of the tasks.
    turn: (u64, u64),
}

/// Of 1,000 stages a window of up to 170 is too wide: most of what it changes makes the rest longer.
const LARGE: Style =
    Style { window: (8, 20, 3), moved: 40, flipped: 3, slack: 40, by_chance: false, stays: true, turn: (30, 0) };
const ANNEALING: Style =
    Style { window: (2, 4, 0), moved: 100, flipped: 20, slack: 150, by_chance: true, stays: false, turn: (100, 25) };

/// Evaluations that the slack is made to last for where only time is limited, for each task.
const COOLING: u64 = 100;

/// Improves the best schedule by large neighbourhood search until the search is over.
pub(in crate::plan) fn large<const W: usize>(search: &mut Search<'_, W>) {
    run(search, LARGE);
}

/// Improves the best schedule by simulated annealing until the search is over.
pub(in crate::plan) fn anneal<const W: usize>(search: &mut Search<'_, W>) {
    run(search, ANNEALING);
}

fn run<const W: usize>(search: &mut Search<'_, W>, style: Style) {
    search.justify();
    let Some(mut current) = search.best().cloned() else { return };
    let n = search.instance.len();
    let tails = Tails::new(search);
    let mut direction = Direction::Forward;
    let cooling = search.left().unwrap_or(COOLING * n as u64).max(1);
    let (begun, mut turned) = (search.evaluations, search.evaluations);
    let mut walk = Walk::new(&current);
    let mut orders = Orders::default();
    while n > 1 && !search.is_over() {
        let age = (search.evaluations - begun).min(cooling);
        let best = search.best().map_or(0, |best| best.makespan);
        let slack = u128::from(best) * u128::from(style.slack) * u128::from(cooling - age);
        let slack = u64::try_from(slack / u128::from(cooling) / 10_000).unwrap_or(0);
        let slack = if style.by_chance { chance(search.random.below(1 << 20), slack) } else { slack };
        let most = (best + slack).max(current.makespan);
        if walk.step(search, &current, style, direction, (most, tails.of(direction))) {
            std::mem::swap(&mut current, &mut walk.next);
            walk.follow(&current);
        }
        if search.evaluations - turned > style.turn.0.max(n as u64 * style.turn.1 / 100) && !search.is_over() {
            turned = search.evaluations;
            // From where the search strayed too far it goes back.
            let strayed = search.best().filter(|best| current.makespan > best.makespan + slack).cloned();
            direction = if strayed.is_some() { Direction::Backward } else { direction.opposite() };
            let from = strayed.as_ref().unwrap_or(&current);
            orders.by_end(search.instance.graph, &Individual::of(from), direction, &mut walk.order);
            let near = style.stays.then_some(from);
            if search.evaluate_near(near, &walk.order, &from.choice, direction, &mut walk.next) {
                std::mem::swap(&mut current, &mut walk.next);
            } else if let Some(best) = search.best() {
                (current, direction) = (best.clone(), Direction::Forward);
            }
            walk.follow(&current);
        }
    }
}

/// Returns so much of the slack as an exponentially distributed part of it: Metropolis' rule, with the draw made first.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a draw")]
fn chance(drawn: u64, slack: u64) -> u64 {
    let uniform = (drawn + 1) as f64 / (1_u64 << 20) as f64;
    (-uniform.ln() * slack as f64 / 3.0) as u64
}

/// What must at least follow each task, in either direction of time.
struct Tails {
    forward: Vec<u64>,
    backward: Vec<u64>,
}

impl Tails {
    fn new<const W: usize>(search: &Search<'_, W>) -> Self {
        let timing = search.timing;
        let behind = |task: TaskId| (timing.makespan - timing.latest_finish(task)).0;
        let forward = search.instance.graph.ids().map(behind).collect();
        Self { forward, backward: timing.earliest_start.iter().map(|start| start.0).collect() }
    }

    fn of(&self, direction: Direction) -> &[u64] {
        match direction {
            Direction::Forward => &self.forward,
            Direction::Backward => &self.backward,
        }
    }
}

/// Where the search stands, with the memory that its steps need.
struct Walk {
    /// Tasks by start, equal ones as they were placed.
    order: Vec<TaskId>,
    next: Draft,
    /// `[n_tasks]`: position in the order in which tasks were placed.
    position: Vec<u32>,
    choice: Vec<u32>,
    changed: Vec<TaskId>,
    /// `[n_tasks]`: 0 for tasks outside the window.
    keys: Vec<u64>,
}

impl Walk {
    fn new(current: &Draft) -> Self {
        let n = current.start.len();
        let mut walk = Self {
            order: Vec::with_capacity(n),
            next: Draft::default(),
            position: vec![0; n],
            choice: Vec::new(),
            changed: Vec::with_capacity(n),
            keys: vec![0; n],
        };
        walk.follow(current);
        walk
    }

    /// Takes the order of another schedule.
    fn follow(&mut self, current: &Draft) {
        (0..).zip(&current.order).for_each(|(at, task)| self.position[task.index()] = at);
        self.order.clone_from(&current.order);
        self.order.sort_unstable_by_key(|task| (current.start[task.index()], self.position[task.index()]));
    }

    /// Decodes a neighbour into `self.next`. Returns whether it ends by `by`.
    fn step<const W: usize>(
        &mut self,
        search: &mut Search<'_, W>,
        current: &Draft,
        style: Style,
        direction: Direction,
        by: (u64, &[u64]),
    ) -> bool {
        let n = self.order.len();
        let (least, most, hundredths) = style.window;
        let widest = (n * hundredths / 100).max(most).min(n);
        let length = (least + search.random.index(widest - least.min(widest) + 1)).min(n).max(2);
        let first = search.random.index(n - length + 1);
        self.choice.clone_from(&current.choice);
        self.reorder(search, current, style, direction, first..first + length);
        // Behind the window tasks may follow the new order in their choices as well.
        if search.random.below(4) == 0 {
            self.changed[first + length..].iter().for_each(|task| self.choice[task.index()] = FREE);
        }
        let mut paid = false;
        if !search.instance.budgets.is_empty() {
            let choice = std::mem::take(&mut self.choice);
            let Some(choice) = modes::repaired(search.instance, &mut search.random, choice) else {
                search.evaluations += 1;
                return false;
            };
            paid = true;
            self.choice = choice;
        }
        // A repair may have changed what lies before the window.
        let same = |task: &&TaskId| self.choice[task.index()] == current.choice[task.index()];
        let kept = if paid { self.changed[..first].iter().take_while(same).count() } else { first };
        let (order, choice) = (&self.changed[..], &self.choice[..]);
        let wanted = Wanted {
            order,
            choice,
            paid,
            direction,
            kept: Some((current, kept)),
            near: style.stays.then_some(current),
            by: Some(by),
        };
        search.decode(&wanted, &mut self.next)
    }

    /// Puts the tasks of a window into another order, each behind those it waits for, and lets some choose anew.
    fn reorder<const W: usize>(
        &mut self,
        search: &mut Search<'_, W>,
        current: &Draft,
        style: Style,
        direction: Direction,
        window: std::ops::Range<usize>,
    ) {
        let instance = search.instance;
        let tasks = &self.order[window.clone()];
        let start = |task: TaskId| current.start[task.index()];
        let (from, to) = (start(tasks[0]), start(tasks[tasks.len() - 1]));
        for &task in tasks {
            let i = task.index();
            let moved = search.random.below(100) < style.moved;
            self.keys[i] = if moved { from + search.random.below(to - from + 1) } else { start(task) };
            let choices = instance.choices(task).len();
            if choices > 1 && search.random.below(100) < style.flipped {
                let drawn = search.random.index(choices + 1);
                self.choice[i] = if drawn == choices { FREE } else { u32::try_from(drawn).unwrap_or(FREE) };
            }
        }
        self.changed.clone_from(&self.order);
        let keys = &mut self.keys;
        // A key is never smaller than those of the tasks that it waits for; tasks of the window come in an order in which
        // these are final.
        let rows = direction.waits_for(instance.graph);
        for &task in tasks {
            let before = rows.of(task).iter().map(|edge| keys[edge.task.index()]);
            let least = before.max().unwrap_or(0);
            keys[task.index()] = keys[task.index()].max(least);
        }
        // Stable: of equal keys the one placed earlier, hence what others wait for, stays first.
        self.changed[window.clone()].sort_by_key(|task| keys[task.index()]);
        self.order[window].iter().for_each(|task| keys[task.index()] = 0);
    }
}
