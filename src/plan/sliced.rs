//! Plans of `time-slice`: tasks are placed in the order of the file as soon as there is room for them, and those that may be
//! suspended take turns at the share of their device.
//!
//! Time goes forward from event to event. Who may be suspended holds its memory and what it asks of the node from its start to
//! its end; of the device's compute it only needs that it fits by itself beside those that are never suspended. Does not know
//! how a place is scored.

use std::collections::BTreeSet;

use super::amounts::in_words;
use super::bound;
use super::budget::Purse;
use super::decode::{Decoder, Direction, FREE};
use super::draft::{Draft, Site};
use super::fit::{Fit, FitRule};
use super::instance::{Choice, DeviceNeed, Instance};
use super::machine;
use super::objective::Goal;
use super::policy::REPAIRS;
use super::random::Random;
use super::search::modes;
use super::turns::{QUANTUM, Sharer, next, turns};
use super::{Options, Plan, PlanError};
use crate::fleet::{DeviceId, NodeId};
use crate::graph::TaskId;
use crate::timing::Timing;
use crate::units::{Millis, Share};

/// Turns that a plan tells one by one, at most: more take seconds to plan and nobody reads them.
const TURNS: u64 = 100_000;

/// Makes the plan; its bounds hold for interrupted tasks.
pub(super) fn plan(
    instance: &Instance<'_>,
    timing: &Timing,
    fit: FitRule,
    options: &Options<'_>,
) -> Result<Plan, PlanError> {
    let quantum = options.quantum.unwrap_or(QUANTUM);
    let least = Millis(u64::try_from(instance.horizon()).unwrap_or(u64::MAX).div_ceil(TURNS));
    if quantum < least {
        return Err(PlanError::Quantum { quantum, least });
    }
    let open = instance.without_shares_of_turns();
    let run = |choice: &[u32]| in_words!(machine::words(&open), W => Slicer::<W>::new(&open, fit, quantum, options.seed, choice).run());
    let free = vec![FREE; instance.len()];
    let mut found = run(&free).ok_or(PlanError::TooManyResources)?;
    // Where it ran out of a budget, choices are taken that stay in all of them.
    let (mut random, mut left) = (Random::new(options.seed), REPAIRS);
    while found.is_none() && left > 0 {
        left -= 1;
        found = modes::repaired(instance, &mut random, free.clone()).and_then(|choice| run(&choice)?);
    }
    let (draft, segments) = found.ok_or(PlanError::Budgets)?;
    let bound = bound::with_turns(instance, timing);
    let mut plan = draft.into_plan(instance, options.policy.to_string());
    for (placed, segments) in plan.placed.iter_mut().zip(segments) {
        let whole = [(placed.start, placed.finish)];
        placed.segments = if segments == whole { Vec::new() } else { segments };
    }
    let goal = Goal::new(options.objective, instance);
    let (value, value_bound) = match goal.is_special() {
        true => (goal.value(&plan.placed, plan.makespan), goal.bound(timing, bound.time)),
        false => (0, 0),
    };
    let (lower_bound, bound_by, objective) = (bound.time, bound.by, options.objective);
    Ok(Plan { evaluations: 1, lower_bound, bound_by, takes_turns: true, objective, value, value_bound, ..plan })
}

/// When a task runs, from and to.
type Segments = Vec<(Millis, Millis)>;

/// A task that has been placed and has not ended.
#[derive(Clone, Debug)]
struct Running {
    task: TaskId,
    /// How much longer it has to run, in milliseconds.
    left: u64,
    runs: bool,
    /// Since when it runs or stands still.
    since: u64,
    /// The device at which it takes turns, and its share of that.
    turn: Option<(DeviceId, u64)>,
}

/// What a device's compute is promised for.
#[derive(Clone, Debug, Default)]
struct Compute {
    /// To those that are never suspended, in millionths.
    fixed: u64,
    /// The shares of those that take turns.
    turns: Vec<u64>,
}

impl Compute {
    /// Whether each of those that take turns fits by itself beside all others, a new one included.
    fn has_room(&self, choice: &Choice) -> bool {
        let widest = self.turns.iter().copied().max().unwrap_or(0);
        let (fixed, widest) = match choice.turn {
            Some(share) => (self.fixed, widest.max(share)),
            None => (self.fixed + fixed(choice), widest),
        };
        fixed + widest <= u64::from(Share::WHOLE.0)
    }
}

/// What a choice takes of its devices' compute without ever giving it up.
fn fixed(choice: &Choice) -> u64 {
    match choice.per_device {
        DeviceNeed::Exclusive => Share::WHOLE.0.into(),
        DeviceNeed::Part { share, .. } => share,
    }
}

/// A place that was chosen for a task before there was room: a choice and a member of its group.
type Chosen = (u32, u32, Vec<DeviceId>);

struct Slicer<'i, const W: usize> {
    instance: &'i Instance<'i>,
    /// Its machine holds what is held now, at all times.
    decoder: Decoder<'i, W>,
    fit: Fit,
    quantum: Millis,
    now: u64,
    draft: Draft,
    /// `[n_tasks]`: predecessors that have not ended.
    blockers: Vec<usize>,
    /// Tasks that can start, in the order of the file.
    ready: BTreeSet<TaskId>,
    running: Vec<Running>,
    /// `[n_devices]`.
    compute: Vec<Compute>,
    /// `[n_tasks]`: the choice that each task must take, unless it is [`FREE`].
    wish: &'i [u32],
    /// `[n_tasks]`: where a rule that looks at no time wants it.
    chosen: Vec<Option<Chosen>>,
    purse: Purse,
    /// `[n_tasks]`: when each has run so far.
    segments: Vec<Segments>,
}

impl<'i, const W: usize> Slicer<'i, W> {
    fn new(instance: &'i Instance<'i>, fit: FitRule, quantum: Millis, seed: u64, wish: &'i [u32]) -> Self {
        let n = instance.len();
        let blockers: Vec<_> = instance.graph.ids().map(|task| instance.graph.before.of(task).len()).collect();
        let mut draft = Draft::default();
        draft.reset(n);
        Self {
            instance,
            decoder: Decoder::general(instance),
            fit: Fit::new(fit, seed, instance),
            quantum,
            now: 0,
            draft,
            ready: instance.graph.ids().filter(|task| blockers[task.index()] == 0).collect(),
            blockers,
            running: Vec::new(),
            compute: vec![Compute::default(); instance.devices.len()],
            wish,
            chosen: vec![None; n],
            purse: if wish.contains(&FREE) { Purse::new(instance) } else { Purse::open() },
            segments: vec![Vec::new(); n],
        }
    }

    /// Returns the schedule and when each task runs; `None` where a budget leaves a task without a choice.
    fn run(mut self) -> Option<(Draft, Vec<Segments>)> {
        loop {
            loop {
                self.end_what_is_done();
                if !self.place_what_is_ready()? {
                    break;
                }
            }
            if self.running.is_empty() && self.ready.is_empty() {
                break;
            }
            self.take_turns();
            let next = self.next_event()?;
            let passed = next - self.now;
            self.running.iter_mut().filter(|of| of.runs).for_each(|of| of.left -= passed);
            self.now = next;
        }
        self.draft.makespan = self.draft.finish.iter().copied().max().unwrap_or(0);
        Some((self.draft, self.segments))
    }

    /// Ends tasks that have run for as long as they take.
    fn end_what_is_done(&mut self) {
        let (done, running) = std::mem::take(&mut self.running).into_iter().partition(|of: &Running| of.left == 0);
        self.running = running;
        if done.is_empty() {
            return;
        }
        for mut of in done {
            self.stop(&mut of);
            self.draft.finish[of.task.index()] = self.now;
            for edge in self.instance.graph.after.of(of.task) {
                self.blockers[edge.task.index()] -= 1;
                if self.blockers[edge.task.index()] == 0 {
                    self.ready.insert(edge.task);
                }
            }
        }
        self.hold_again();
    }

    /// Holds what running tasks hold, and nothing else.
    fn hold_again(&mut self) {
        self.decoder.machine.clear();
        self.compute.iter_mut().for_each(|compute| *compute = Compute::default());
        for task in self.running.iter().map(|of| of.task).collect::<Vec<_>>() {
            self.hold(task);
        }
    }

    fn hold(&mut self, task: TaskId) {
        let (i, instance) = (task.index(), self.instance);
        let choice = &instance.choices(task)[self.draft.choice[i] as usize];
        for device in self.draft.devices(task) {
            let compute = &mut self.compute[device.index()];
            match choice.turn {
                Some(share) => compute.turns.push(share),
                None => compute.fixed += fixed(choice),
            }
        }
        let site = Site { choice: self.draft.choice[i], member: self.draft.member[i], start: 0, finish: FOR_EVER };
        self.decoder.chosen.clear();
        self.decoder.chosen.extend_from_slice(self.draft.devices(task));
        self.decoder.take(task, site);
    }

    /// Places ready tasks, the first one first; whether any of them has ended at once. `None` where a budget leaves a task
    /// without a choice.
    fn place_what_is_ready(&mut self) -> Option<bool> {
        let mut at_once = false;
        let balances = self.fit.rule().balances();
        // Who asks for the same as one that was refused needs not be asked, unless places or arrivals differ.
        let (alike, mut refused) = (!balances && !self.instance.has_lags(), BTreeSet::new());
        for task in self.ready.clone() {
            let kind = self.instance.kind[task.index()];
            if alike && refused.contains(&kind) {
                continue;
            }
            let site = if balances { self.balanced_site(task)? } else { self.best_site(task)? };
            let Some(site) = site else {
                refused.insert(kind);
                continue;
            };
            at_once |= site.finish == self.now;
            self.start(task, site, balances);
        }
        Some(at_once)
    }

    /// Places a task on the devices in `decoder.chosen`.
    fn start(&mut self, task: TaskId, site: Site, spent: bool) {
        self.ready.remove(&task);
        let devices = self.decoder.chosen.clone();
        let choice = &self.instance.choices(task)[site.choice as usize];
        let turn = choice.turn.and_then(|share| Some((*devices.first()?, share)));
        self.draft.set(task, site, &devices);
        if !spent {
            self.purse.spend(self.instance, task, site.choice);
            self.fit.placed(self.draft.node(self.instance, task), &devices, site.start, site.finish);
        }
        let left = choice.duration();
        let (runs, since) = (turn.is_none(), self.now);
        self.running.push(Running { task, left, runs, since, turn });
        if left > 0 {
            self.hold(task);
        }
    }

    /// Returns the best place that a task can have now, its devices in `decoder.chosen`; the inner `None` where it has to wait,
    /// the outer one where the budgets allow no choice.
    fn best_site(&mut self, task: TaskId) -> Option<Option<Site>> {
        let instance = self.instance;
        let mut best: Option<(u64, u64, Site, Vec<DeviceId>)> = None;
        let mut paid = false;
        for (index, choice) in (0..).zip(instance.choices(task)) {
            if self.wished(task).is_some_and(|wish| wish != index) || !self.purse.allows(instance, task, choice) {
                continue;
            }
            paid = true;
            for (member, (node, devices)) in (0..).zip(&instance.groups[choice.group as usize].members) {
                let is_there = self.decoder.ready(task, *node, Direction::Forward, &self.draft) <= self.now;
                let Some(delay) = self.free(task, (index, choice), *node, devices).filter(|_| is_there) else {
                    continue;
                };
                let packed = self.decoder.packed(task, index);
                let score = self.decoder.select(&self.fit, packed, choice, (*node, &[]), 0);
                let finish = self.now + choice.duration();
                let by = finish.saturating_add(delay);
                if best.as_ref().is_none_or(|(least, other, ..)| (by, score) < (*least, *other)) {
                    let chosen = self.decoder.feasible[..choice.gang as usize].iter().map(|(_, device)| *device);
                    let site = Site { choice: index, member, start: self.now, finish };
                    best = Some((by, score, site, chosen.collect()));
                }
            }
        }
        paid.then(|| {
            best.map(|(.., site, chosen)| {
                self.decoder.chosen = chosen;
                self.decoder.tightened(task, site)
            })
        })
    }

    /// Leaves in `decoder.feasible` the devices on which a choice has room now, of those where it takes turns only the ones
    /// where it has to stand back the least, and returns for how long that is; `None` where they are too few.
    fn free(
        &mut self,
        task: TaskId,
        (index, choice): (u32, &Choice),
        node: NodeId,
        devices: &[DeviceId],
    ) -> Option<u64> {
        let packed = self.decoder.packed(task, index);
        let Decoder { machine, feasible, .. } = &mut self.decoder;
        machine.earliest(packed, choice, (node, devices), 0, 0, feasible)?;
        // Whoever takes no time takes nothing.
        if choice.gang == 0 || choice.duration() == 0 {
            return Some(0);
        }
        feasible.retain(|(_, device)| self.compute[device.index()].has_room(choice));
        if feasible.len() < choice.gang as usize {
            return None;
        }
        let Some(share) = choice.turn else { return Some(0) };
        let (running, compute) = (&self.running, &self.compute);
        let delay = |device: DeviceId| {
            let room = u64::from(Share::WHOLE.0) - compute[device.index()].fixed;
            // For as long as both have to run, the one stands back for the other where they do not fit together.
            let others =
                running.iter().filter(|of| of.turn.is_some_and(|(at, other)| at == device && other + share > room));
            others.map(|of| of.left.min(choice.duration())).fold(0, u64::saturating_add)
        };
        let least = feasible.iter().map(|(_, device)| delay(*device)).min()?;
        feasible.retain(|(_, device)| delay(*device) == least);
        Some(least)
    }

    /// Returns the place that a balancing rule has chosen when a task became ready, if that has room now; as
    /// [`Self::best_site`].
    fn balanced_site(&mut self, task: TaskId) -> Option<Option<Site>> {
        let instance = self.instance;
        if self.chosen[task.index()].is_none() {
            let wish = self.wished(task);
            let Self { decoder, fit, draft, purse, .. } = self;
            let (index, member) = decoder.balanced_place(task, fit, (wish, Direction::Forward), draft, purse)?;
            let devices = decoder.chosen.clone();
            let choice = &instance.choices(task)[index as usize];
            let (node, _) = instance.groups[choice.group as usize].members[member as usize];
            purse.spend(instance, task, index);
            fit.placed(node, &devices, self.now, self.now + choice.duration());
            self.chosen[task.index()] = Some((index, member, devices));
        }
        let Some((index, member, devices)) = self.chosen[task.index()].clone() else { return Some(None) };
        let choice = &instance.choices(task)[index as usize];
        let (node, _) = instance.groups[choice.group as usize].members[member as usize];
        let is_there = self.decoder.ready(task, node, Direction::Forward, &self.draft) <= self.now;
        let free = self.free(task, (index, choice), node, &devices).filter(|_| is_there);
        Some(free.map(|_| {
            self.decoder.chosen = devices;
            let site = Site { choice: index, member, start: self.now, finish: self.now + choice.duration() };
            self.decoder.tightened(task, site)
        }))
    }

    /// Returns the choice that a task must take.
    fn wished(&self, task: TaskId) -> Option<u32> {
        Some(self.wish[task.index()]).filter(|wish| *wish != FREE)
    }

    /// Lets those run whose turn it is.
    fn take_turns(&mut self) {
        for device in 0..self.compute.len() {
            let at: Vec<usize> = self.at(device).collect();
            if at.is_empty() {
                continue;
            }
            let room = u64::from(Share::WHOLE.0) - self.compute[device].fixed;
            let room = Share(u32::try_from(room).unwrap_or(u32::MAX));
            let runs = turns(&self.sharers(&at), room, self.quantum, Millis(self.now));
            for (at, runs) in at.into_iter().zip(runs) {
                let mut of = self.running[at].clone();
                match (of.runs, runs) {
                    (true, false) => self.stop(&mut of),
                    (false, true) => (of.runs, of.since) = (true, self.now),
                    (true, true) | (false, false) => {}
                }
                self.running[at] = of;
            }
        }
    }

    /// Notes that a task does not run from now on.
    fn stop(&mut self, of: &mut Running) {
        if of.runs && of.since < self.now {
            self.segments[of.task.index()].push((Millis(of.since), Millis(self.now)));
        }
        (of.runs, of.since) = (false, self.now);
    }

    /// Yields which of the running tasks take turns at a device.
    fn at(&self, device: usize) -> impl Iterator<Item = usize> {
        let here = move |of: &Running| of.turn.is_some_and(|(at, _)| at.index() == device);
        self.running.iter().enumerate().filter(move |(_, of)| here(of)).map(|(at, _)| at)
    }

    fn sharers(&self, at: &[usize]) -> Vec<Sharer> {
        let sharer = |of: &Running| {
            let (_, share) = of.turn.unwrap_or((DeviceId(0), 0));
            let share = Share(u32::try_from(share).unwrap_or(u32::MAX));
            Sharer { share, runs: of.runs, since: Millis(of.since) }
        };
        at.iter().map(|at| sharer(&self.running[*at])).collect()
    }

    /// Returns when something happens next; `None` where nothing ever does.
    fn next_event(&self) -> Option<u64> {
        let ends = self.running.iter().filter(|of| of.runs).map(|of| self.now + of.left);
        let turns = (0..self.compute.len()).filter_map(|device| {
            let at: Vec<usize> = self.at(device).collect();
            next(&self.sharers(&at), self.quantum, Millis(self.now)).map(|at| at.0)
        });
        ends.chain(turns).chain(self.arrivals()).min()
    }

    /// Yields when data reaches nodes on which ready tasks could run.
    fn arrivals(&self) -> impl Iterator<Item = u64> {
        let instance = self.instance;
        let waiting = self.ready.iter().filter(|_| instance.has_lags());
        let nodes = (0..).take(instance.nodes.len()).map(NodeId);
        let times = waiting.flat_map(move |task| {
            nodes.clone().map(|node| self.decoder.ready(*task, node, Direction::Forward, &self.draft))
        });
        times.filter(|at| *at > self.now)
    }
}

/// What is held now is held at all times, as far as the machine is asked.
const FOR_EVER: u64 = u64::MAX / 2;

#[cfg(test)]
mod tests;
