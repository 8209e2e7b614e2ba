//! Planning the rest of a run: what is done is left out, what runs keeps its place until it is expected to end, and what
//! would start within a moment stays as it is.
//!
//! The schedule that follows from the order so far is compared with what every order rule makes of the rest, and with
//! small changes of the best of them; a new order must be worth the change. Does not know why anyone asks.

use std::collections::HashMap;

use super::amounts::in_words;
use super::decode::{Decoder, Direction, FREE, Wanted};
use super::draft::{Draft, Site};
use super::fit::{Fit, FitRule};
use super::instance::{Instance, Kind};
use super::machine::{self, Machine};
use super::objective::Goal;
use super::order::{OrderRule, by_key};
use super::policy::Policy;
use super::random::Random;
use super::{Limits, Options, Placed, PlanError};
use crate::fleet::{DeviceId, Fleet, NodeId};
use crate::graph::{TaskGraph, TaskId};
use crate::spec::{Duration, Pipeline};
use crate::timing::{DEFAULT_DURATION, Timing};
use crate::units::Millis;

/// What is to start so soon is not moved.
const SOON: u64 = 1_000;

/// A new order must be better by this part of what is left: one in a hundred.
const WORTH: u128 = 100;

/// Schedules without a better one after which no more are tried.
const PATIENCE: u64 = 400;

/// A run under way, as far as planning goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    /// `[n_tasks]`, by TaskId.
    pub tasks: Vec<Left>,
    /// How many thousandths of their duration stages take, by stage and mode, where that is not a thousand.
    pub factors: HashMap<(usize, usize), u64>,
    /// Devices that nothing new may be started on.
    pub unfit: Vec<DeviceId>,
    /// How much longer the run is expected to take.
    pub expected: Millis,
    /// `[n_tasks]`, by TaskId: the mode and the devices that the plan has for each; empty where an early end is all that
    /// counts, for which places are found anew.
    pub intended: Vec<(usize, Vec<DeviceId>)>,
}

/// What is left of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Left {
    /// Nothing, or it will never run.
    #[default]
    Nothing,
    /// It runs.
    Running {
        /// Index into the stage's modes.
        mode: usize,
        /// Where.
        node: NodeId,
        /// On what.
        devices: Vec<DeviceId>,
        /// How much longer.
        left: Millis,
    },
    /// It has not started, or will be tried again.
    Waiting {
        /// Its place in the order so far.
        rank: u32,
        /// The mode that it must have, if that is settled.
        mode: Option<usize>,
    },
}

/// The rest of a run, planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// Tasks that wait, in the order in which they should start.
    pub order: Vec<TaskId>,
    /// Where each task of `order` should go; times count from now.
    pub placed: Vec<Placed>,
    /// How much longer the run would take in the order so far.
    pub before: Millis,
    /// How much longer it takes in this one.
    pub after: Millis,
    /// Whether it is worth the change.
    pub is_better: bool,
}

/// Plans the rest of a run of `graph`, which was built from `pipeline`, on `fleet`. The policy of the options gives order
/// and fit if it is one of those; its limits hold for the search that follows, and its objective says what is better.
///
/// # Errors
/// Where the pipeline can not be planned at all.
pub fn rest(
    pipeline: &Pipeline,
    graph: &TaskGraph,
    fleet: &Fleet,
    rest: &Rest,
    options: &Options<'_>,
) -> Result<Revision, PlanError> {
    let scaled = (!rest.factors.is_empty()).then(|| with_factors(pipeline, &rest.factors));
    let mut instance = Instance::new(scaled.as_ref().unwrap_or(pipeline), graph, fleet)?;
    leave_out(&mut instance, &rest.unfit);
    settle_modes(&mut instance, &rest.tasks);
    let goal = Goal::new(options.objective, &instance);
    let revision =
        in_words!(machine::words(&instance), W => Planner::<W>::new(&instance, rest, &goal, options).revise());
    revision.ok_or(PlanError::TooManyResources)?.ok_or(PlanError::Budgets)
}

/// Returns the pipeline with the durations that were learned.
fn with_factors(pipeline: &Pipeline, factors: &HashMap<(usize, usize), u64>) -> Pipeline {
    let mut pipeline = pipeline.clone();
    for ((stage, mode), factor) in factors {
        let Some(mode) = pipeline.stages.get_mut(*stage).and_then(|stage| stage.modes.get_mut(*mode)) else { continue };
        let scaled =
            |time: Millis| Millis(u64::try_from(u128::from(time.0) * u128::from(*factor) / 1_000).unwrap_or(u64::MAX));
        let Duration { base, by_model } = &mut mode.duration;
        if base.is_none() && by_model.is_empty() {
            *base = Some(DEFAULT_DURATION);
        }
        *base = base.map(scaled);
        by_model.values_mut().for_each(|time| *time = scaled(*time));
    }
    pipeline
}

/// Takes devices out of all groups. A choice that is left without enough of them is none, unless it is a task's last one:
/// that waits for the devices to come back.
fn leave_out(instance: &mut Instance<'_>, unfit: &[DeviceId]) {
    if unfit.is_empty() {
        return;
    }
    let whole = instance.groups.clone();
    for group in &mut instance.groups {
        group.members.iter_mut().for_each(|(_, devices)| devices.retain(|device| !unfit.contains(device)));
    }
    let groups = &mut instance.groups;
    for kind in &mut instance.kinds {
        let enough = |group: u32, gang: u32| {
            groups[group as usize].members.iter().any(|(_, devices)| devices.len() >= gang as usize)
        };
        if kind.choices.iter().any(|choice| enough(choice.group, choice.gang)) {
            kind.choices.retain(|choice| enough(choice.group, choice.gang));
            continue;
        }
        for choice in &mut kind.choices {
            let next = u32::try_from(groups.len()).unwrap_or(u32::MAX);
            groups.push(whole[choice.group as usize].clone());
            choice.group = next;
        }
    }
}

/// Leaves tasks whose mode is settled no other.
fn settle_modes(instance: &mut Instance<'_>, tasks: &[Left]) {
    let mut kinds = HashMap::new();
    for (task, left) in tasks.iter().enumerate() {
        let Left::Waiting { mode: Some(mode), .. } = left else { continue };
        let kind = instance.kind[task];
        let choices = &instance.kinds[kind as usize].choices;
        let is_it = |mode_of: u32| mode_of as usize == *mode;
        if choices.iter().all(|choice| is_it(choice.mode)) || !choices.iter().any(|choice| is_it(choice.mode)) {
            continue;
        }
        let settled = choices.iter().filter(|choice| is_it(choice.mode)).cloned().collect();
        let next = u32::try_from(instance.kinds.len()).unwrap_or(u32::MAX);
        let number = *kinds.entry((kind, *mode)).or_insert(next);
        if number == next {
            instance.kinds.push(Kind { choices: settled });
        }
        instance.kind[task] = number;
    }
}

struct Planner<'a, const W: usize> {
    instance: &'a Instance<'a>,
    rest: &'a Rest,
    goal: &'a Goal<'a>,
    policy: Policy,
    limits: Limits<'a>,
    seed: u64,
    decoder: Decoder<'a, W>,
    fit: Fit,
    /// Decodes left to find something better.
    patience: u64,
    tried: u64,
}

/// The best schedule so far and what led to it.
struct Best {
    draft: Draft,
    choice: Vec<u32>,
    measure: (u128, u64),
}

/// A schedule and how many tasks at the beginning of its order stay where they are.
struct Base {
    draft: Draft,
    kept: usize,
}

impl<'a, const W: usize> Planner<'a, W> {
    fn new(instance: &'a Instance<'a>, rest: &'a Rest, goal: &'a Goal<'a>, options: &Options<'a>) -> Self {
        Self {
            instance,
            rest,
            goal,
            policy: options.policy,
            limits: options.limits,
            seed: options.seed,
            decoder: Decoder::general(instance),
            fit: Fit::new(FitRule::EarliestFinish, options.seed, instance),
            patience: PATIENCE,
            tried: 0,
        }
    }

    fn revise(mut self) -> Option<Revision> {
        let fixed = self.fixed();
        let intended = self.intended();
        let before = self.decode(&self.by_rank(&fixed), &intended, &fixed)?;
        let base = self.keep_what_starts_soon(&fixed, before);
        let measure = self.goal.measure(&base.draft);
        let mut best = Best { draft: base.draft.clone(), choice: intended.clone(), measure };
        let free = vec![FREE; self.instance.len()];
        for (order, fit) in self.rules() {
            let order = self.by_rule(order, &base);
            self.fit.change(fit, self.instance);
            for choice in [&intended, &free].into_iter().skip(usize::from(!self.goal.is_special())) {
                if !self.is_over() {
                    self.try_order(&order, choice, &base, &mut best);
                }
            }
        }
        self.search(&base, &mut best);
        Some(self.revision(&base, best))
    }

    /// Returns the choices that the plan has made for tasks, as far as they still can be had; free ones where an early end
    /// is all that counts.
    fn intended(&self) -> Vec<u32> {
        let mut choice = vec![FREE; self.instance.len()];
        for (task, (mode, devices)) in self.instance.graph.ids().zip(&self.rest.intended) {
            let allows = |group: u32| {
                let mut members = self.instance.groups[group as usize].members.iter();
                members.any(|(_, of)| devices.iter().all(|device| of.contains(device)))
            };
            let mut choices = (0..).zip(self.instance.choices(task));
            let found = choices.find(|(_, choice)| choice.mode as usize == *mode && allows(choice.group));
            choice[task.index()] = found.map_or(FREE, |(index, _)| index);
        }
        choice
    }

    /// Returns a schedule of what is done and of what runs, in which nothing else is placed.
    fn fixed(&self) -> Base {
        let mut draft = Draft::default();
        draft.reset(self.instance.len());
        let is_done = |task: &&TaskId| matches!(self.rest.tasks[task.index()], Left::Nothing);
        for task in self.instance.graph.order.iter().filter(is_done) {
            draft.set(*task, Site { choice: 0, member: 0, start: 0, finish: 0 }, &[]);
        }
        let mut machine = Machine::<W>::new(self.instance);
        let mut feasible = Vec::new();
        for task in &self.instance.graph.order {
            let Left::Running { mode, node, devices, left } = &self.rest.tasks[task.index()] else { continue };
            let (site, devices) = self.running_site(*task, *mode, *node, devices, left.0);
            let choice = &self.instance.choices(*task)[site.choice as usize];
            let packed = machine.packed(choice);
            // What holds more than planning knows of counts by its end only.
            let room = (choice.gang as usize == devices.len() || devices.is_empty())
                && machine.earliest(packed, choice, (*node, devices), 0, 0, &mut feasible).is_some();
            if room {
                machine.take(packed, *node, devices, 0, left.0);
                draft.set(*task, site, devices);
            } else {
                draft.set(*task, Site { start: left.0, ..site }, &[]);
            }
        }
        let kept = draft.order.len();
        Base { draft, kept }
    }

    fn running_site<'d>(
        &self,
        task: TaskId,
        mode: usize,
        node: NodeId,
        devices: &'d [DeviceId],
        left: u64,
    ) -> (Site, &'d [DeviceId]) {
        let members = |group: u32| self.instance.groups[group as usize].members.iter().map(|(node, _)| *node);
        let choices = (0..).zip(self.instance.choices(task));
        let mut found = choices.filter(|(_, choice)| choice.mode as usize == mode).filter_map(|(index, choice)| {
            let member = members(choice.group).position(|member| member == node)?;
            Some((index, u32::try_from(member).ok()?))
        });
        let (choice, member) = found.next().unwrap_or((0, 0));
        (Site { choice, member, start: 0, finish: left }, devices)
    }

    /// Returns the tasks that stay, then the others in an order of keys, the largest first.
    fn ordered<K: Ord>(&self, base: &Base, key: impl Fn(TaskId) -> K) -> Vec<TaskId> {
        let mut stays = vec![false; self.instance.len()];
        let mut order = base.draft.order[..base.kept].to_vec();
        order.iter().for_each(|task| stays[task.index()] = true);
        let all = by_key(self.instance, |task, _| (stays[task.index()], key(task)));
        order.extend(all.into_iter().filter(|task| !stays[task.index()]));
        order
    }

    fn by_rank(&self, fixed: &Base) -> Vec<TaskId> {
        self.ordered(fixed, |task| match self.rest.tasks[task.index()] {
            Left::Waiting { rank, .. } => std::cmp::Reverse(rank),
            Left::Nothing | Left::Running { .. } => std::cmp::Reverse(0),
        })
    }

    fn by_rule(&self, rule: OrderRule, base: &Base) -> Vec<TaskId> {
        let shortest = self.instance.shortest();
        let left = |(task, shortest): (&Left, Millis)| match task {
            Left::Nothing => Millis::ZERO,
            Left::Running { left, .. } => *left,
            Left::Waiting { .. } => shortest,
        };
        let durations = self.rest.tasks.iter().zip(shortest).map(left).collect();
        let timing = Timing::new(self.instance.graph, durations);
        let mut place = vec![0; self.instance.len()];
        let order = rule.order(self.instance, &timing);
        (0_u32..).zip(order).for_each(|(at, task)| place[task.index()] = at);
        self.ordered(base, |task| std::cmp::Reverse(place[task.index()]))
    }

    /// Returns the rules to try, by what the plan was made with.
    fn rules(&self) -> Vec<(OrderRule, FitRule)> {
        if let Policy::List(order, fit) = self.policy {
            // A rule that looks at no time may not see that a device has fallen out.
            return vec![(order, if fit.balances() { FitRule::EarliestFinish } else { fit })];
        }
        let orders =
            [OrderRule::CriticalPath, OrderRule::LeastSlack, OrderRule::MostSuccessors, OrderRule::LongestFirst];
        let fits = [FitRule::EarliestFinish, FitRule::BestFit];
        orders.into_iter().flat_map(|order| fits.map(|fit| (order, fit))).collect()
    }

    /// Lets also those tasks of the schedule stay that start soon.
    fn keep_what_starts_soon(&self, fixed: &Base, before: Draft) -> Base {
        let soon = |task: &TaskId| before.start[task.index()] <= SOON;
        let (mut order, rest): (Vec<_>, Vec<_>) =
            before.order[fixed.kept..].iter().copied().partition(|task| soon(task));
        let kept = fixed.kept + order.len();
        order.splice(0..0, before.order[..fixed.kept].iter().copied());
        order.extend(rest);
        let mut draft = before;
        draft.order = order;
        Base { draft, kept }
    }

    fn decode(&mut self, order: &[TaskId], choice: &[u32], base: &Base) -> Option<Draft> {
        self.tried += 1;
        let kept = Some((&base.draft, base.kept));
        let wanted = Wanted { order, choice, paid: false, direction: Direction::Forward, kept, near: None, by: None };
        let mut draft = Draft::default();
        self.decoder.decode(&wanted, &mut self.fit, &mut draft).ok()?;
        Some(draft)
    }

    fn try_order(&mut self, order: &[TaskId], choice: &[u32], base: &Base, best: &mut Best) -> bool {
        let found = self.decode(order, choice, base).map(|draft| (self.goal.measure(&draft), draft));
        match found.filter(|(measure, _)| *measure < best.measure) {
            Some((measure, draft)) => {
                *best = Best { draft, choice: choice.to_vec(), measure };
                self.patience = PATIENCE;
                true
            }
            None => {
                self.patience = self.patience.saturating_sub(1);
                false
            }
        }
    }

    /// Moves a few tasks to other places in the best order, again and again; where more than an early end counts, also ties
    /// some to another way to run.
    fn search(&mut self, base: &Base, best: &mut Best) {
        let len = best.draft.order.len();
        let moving = len - base.kept;
        if moving < 2 || matches!(self.policy, Policy::List(..)) {
            return;
        }
        let mut random = Random::new(self.seed);
        let mut place = vec![0_u64; len];
        let places = |order: &[TaskId], place: &mut Vec<u64>| {
            (0..).zip(order).for_each(|(at, task)| place[task.index()] = 2 * at);
        };
        places(&best.draft.order, &mut place);
        while self.patience > 0 && !self.is_over() {
            let (mut changed, mut choice) = (place.clone(), best.choice.clone());
            for _ in 0..=random.index(3) {
                let task = best.draft.order[base.kept + random.index(moving)];
                let ways = self.instance.choices(task).len();
                if self.goal.is_special() && ways > 1 && random.below(2) == 0 {
                    choice[task.index()] = u32::try_from(random.index(ways)).unwrap_or(FREE);
                } else {
                    changed[task.index()] = 2 * (base.kept + random.index(moving)) as u64 + 1;
                }
            }
            let order = self.ordered(base, |task| std::cmp::Reverse(changed[task.index()]));
            if self.try_order(&order, &choice, base, best) {
                places(&best.draft.order, &mut place);
            }
        }
    }

    fn is_over(&self) -> bool {
        let over = |budget: Millis| self.limits.clock.is_none_or(|clock| clock() >= budget);
        self.limits.evaluations.is_some_and(|most| self.tried >= most) || self.limits.budget.is_some_and(over)
    }

    fn revision(&self, base: &Base, best: Best) -> Revision {
        let (value, _) = self.goal.measure(&base.draft);
        let gain = value.saturating_sub(best.measure.0);
        let best = best.draft;
        let (before, after) = (base.draft.makespan, best.makespan);
        let least = if self.goal.is_special() { 0 } else { u128::from(SOON.min(before / 10)) };
        let is_better = gain >= (value / WORTH).max(least).max(1);
        let waits = |task: &TaskId| matches!(self.rest.tasks[task.index()], Left::Waiting { .. });
        let mut soon = vec![false; self.instance.len()];
        base.draft.order[..base.kept].iter().for_each(|task| soon[task.index()] = true);
        let mut position = vec![0_usize; self.instance.len()];
        best.order.iter().enumerate().for_each(|(at, task)| position[task.index()] = at);
        let mut order: Vec<TaskId> = best.order.iter().copied().filter(waits).collect();
        order.sort_by_key(|task| {
            let i = task.index();
            (!soon[i], best.start[i], position[i])
        });
        let placed = |task: &TaskId| {
            let i = task.index();
            let mode = self.instance.choices(*task)[best.choice[i] as usize].mode as usize;
            let mut devices = best.devices(*task).to_vec();
            devices.sort_unstable();
            let (start, finish) = (Millis(best.start[i]), Millis(best.finish[i]));
            Placed { mode, node: best.node(self.instance, *task), devices, start, finish, segments: Vec::new() }
        };
        let placed = order.iter().map(placed).collect();
        Revision { order, placed, before: Millis(before), after: Millis(after), is_better }
    }
}

#[cfg(test)]
mod tests;
