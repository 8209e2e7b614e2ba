//! The one decoder of every policy: a serial schedule generation scheme with insertion.
//!
//! Tasks are taken in a given order; each goes to the place that the fit rule likes best, at the earliest instant at
//! which its node and enough devices of that node have room for its whole duration, which may lie before tasks that
//! were placed earlier. Source: Kolisch, "Serial and parallel resource-constrained project scheduling methods
//! revisited", 1996. Does not know where the order comes from.

use super::budget::Purse;
use super::draft::{Draft, Site};
use super::fit::{Fit, Score};
use super::instance::{Choice, Instance};
use super::machine::{Machine, Packed};
use super::serial::Serial;
use crate::fleet::{DeviceId, NodeId, Spot, near};
use crate::graph::{Rows, TaskGraph, TaskId};

/// Whether tasks are placed after those they wait for, or, mirrored in time, after those that wait for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// From the beginning.
    Forward,
    /// From the end: a start is the distance of the task's end from the end of the plan.
    Backward,
}

impl Direction {
    /// Returns the other one.
    pub(super) const fn opposite(self) -> Self {
        match self {
            Self::Forward => Self::Backward,
            Self::Backward => Self::Forward,
        }
    }

    /// Returns the edges to the tasks that must be placed before a task.
    pub(super) const fn waits_for(self, graph: &TaskGraph) -> &Rows {
        match self {
            Self::Forward => &graph.before,
            Self::Backward => &graph.after,
        }
    }
}

/// Stands for a choice that the decoder may take itself.
pub(super) const FREE: u32 = u32::MAX;

/// By how many milliseconds a place on another node than the home may end earlier and is not taken: longer than any plan.
const AWAY: u64 = 1 << 63;

/// There is no schedule: the budgets leave a task without a choice, or it would end too late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GivenUp;

/// What is to be decoded.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'w> {
    /// Each task once and, in `direction`, after those it waits for.
    pub(super) order: &'w [TaskId],
    /// `[n_tasks]`, by TaskId: the choice of each task that is not [`FREE`].
    pub(super) choice: &'w [u32],
    /// Whether these choices are known to stay in the budgets.
    pub(super) paid: bool,
    pub(super) direction: Direction,
    /// So many tasks at the beginning of the order lie where this schedule has them.
    pub(super) kept: Option<(&'w Draft, usize)>,
    /// Of devices that are free as early, tasks take those that they have in this schedule: what is decoded again in the
    /// order of its starts and with its choices hardly changes.
    pub(super) near: Option<&'w Draft>,
    /// A schedule that cannot end by this time is given up; `[n_tasks]` by TaskId is what must follow each task.
    pub(super) by: Option<(u64, &'w [u64])>,
}

/// Places tasks one after the other.
pub(super) struct Decoder<'i, const W: usize> {
    pub(super) instance: &'i Instance<'i>,
    pub(super) machine: Machine<W>,
    /// `[n_kinds]`: where the choices of each kind begin in what follows.
    first: Vec<usize>,
    /// Requests of all choices, packed, one kind after the other.
    packed: Vec<Packed<W>>,
    has_lags: bool,
    /// Decodes in its place where only the order is to be chosen.
    pub(super) serial: Option<Serial>,
    /// Milliseconds that each choice wastes of the scarcest resource, in the same order; empty where none does.
    waste: Vec<u64>,
    /// How much a free choice minds waste, in eighths: it takes what ends first where waste, times this, is time as well.
    pub(super) thrift: u64,
    /// The node to which tasks go that can, whatever the time: no data then leaves it.
    pub(super) home: Option<NodeId>,
    /// Devices that are free at the instant found, with their scores.
    pub(super) feasible: Vec<(Score, DeviceId)>,
    /// Where they sit, for a gang.
    spots: Vec<Spot>,
    /// Devices of the best place so far.
    pub(super) chosen: Vec<DeviceId>,
}

impl<'i, const W: usize> Decoder<'i, W> {
    /// Makes a decoder for an instance; what it keeps of other schedules must be schedules of this instance.
    pub(super) fn new(instance: &'i Instance<'i>) -> Self {
        let mut decoder = Self::general(instance);
        let machine = &decoder.machine;
        let node = machine.node_offer.first().map(|offer| (&machine.node_lanes, *offer));
        decoder.serial = node.and_then(|node| Serial::new(instance, node, &decoder.packed));
        decoder
    }

    /// Makes a decoder that may keep tasks at any times.
    pub(super) fn general(instance: &'i Instance<'i>) -> Self {
        let machine = Machine::new(instance);
        let (mut first, mut packed) = (Vec::with_capacity(instance.kinds.len()), Vec::new());
        for kind in &instance.kinds {
            first.push(packed.len());
            packed.extend(kind.choices.iter().map(|choice| machine.packed(choice)));
        }
        let has_lags = instance.has_lags();
        let (waste, feasible, spots, chosen) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self {
            instance,
            machine,
            first,
            packed,
            has_lags,
            serial: None,
            waste,
            thrift: 0,
            home: None,
            feasible,
            spots,
            chosen,
        }
    }

    /// Lets free choices mind waste from now on; `thrift` as in the field.
    pub(super) fn mind_waste(&mut self, thrift: u64) {
        if thrift > 0 && self.waste.is_empty() {
            self.waste = super::bound::waste(self.instance);
        }
        self.thrift = if self.waste.is_empty() { 0 } else { thrift };
    }

    /// Places all tasks.
    ///
    /// # Errors
    /// When there is no such schedule.
    pub(super) fn decode(&mut self, wanted: &Wanted<'_>, fit: &mut Fit, draft: &mut Draft) -> Result<(), GivenUp> {
        if let Some(serial) = &mut self.serial {
            return serial.decode(wanted, draft);
        }
        self.machine.clear();
        draft.reset(self.instance.len());
        fit.clear();
        let mut purse = if wanted.paid { Purse::open() } else { Purse::new(self.instance) };
        for (position, &task) in wanted.order.iter().enumerate() {
            let kept = wanted.kept.filter(|(_, kept)| position < *kept).map(|(base, _)| base);
            let site = match kept {
                Some(base) => self.kept_site(task, base),
                None => self.site(task, wanted, fit, draft, &purse).ok_or(GivenUp)?,
            };
            if wanted.by.is_some_and(|(by, tail)| site.finish + tail[task.index()] > by) {
                return Err(GivenUp);
            }
            self.take(task, site);
            draft.set(task, site, &self.chosen);
            purse.spend(self.instance, task, site.choice);
            fit.placed(draft.node(self.instance, task), &self.chosen, site.start, site.finish);
        }
        Ok(())
    }

    fn site(&mut self, task: TaskId, wanted: &Wanted<'_>, fit: &mut Fit, draft: &Draft, purse: &Purse) -> Option<Site> {
        let wish = Some(wanted.choice[task.index()]).filter(|wish| *wish != FREE);
        if fit.rule().balances() {
            self.balanced_site(task, fit, (wish, wanted.direction), draft, purse)
        } else {
            self.best_site(task, fit, wish, wanted, draft, purse)
        }
    }

    /// Returns where a task lies in another schedule, its devices in `self.chosen`.
    fn kept_site(&mut self, task: TaskId, base: &Draft) -> Site {
        let i = task.index();
        self.chosen.clear();
        self.chosen.extend_from_slice(base.devices(task));
        Site { choice: base.choice[i], member: base.member[i], start: base.start[i], finish: base.finish[i] }
    }

    /// Returns the best place for a task, its devices in `self.chosen`; `None` where the budgets allow no choice.
    fn best_site(
        &mut self,
        task: TaskId,
        fit: &Fit,
        wish: Option<u32>,
        &Wanted { direction, near, .. }: &Wanted<'_>,
        draft: &Draft,
        purse: &Purse,
    ) -> Option<Site> {
        let instance = self.instance;
        let usual = near.map_or(&[][..], |near| near.devices(task));
        let first = self.first[instance.kind[task.index()] as usize];
        let common = (!self.has_lags).then(|| self.ready(task, NodeId(0), direction, draft));
        let mut best: Option<(u64, Score, Site)> = None;
        for (index, choice) in (0..).zip(instance.choices(task)) {
            if wish.is_some_and(|wish| wish != index) || !purse.allows(instance, task, choice) {
                continue;
            }
            let duration = choice.duration();
            let minded = self.minded(first + index as usize, wish);
            for (member, (node, devices)) in (0..).zip(&instance.groups[choice.group as usize].members) {
                let from = common.unwrap_or_else(|| self.ready(task, *node, direction, draft));
                let is_away = self.home.is_some_and(|home| home != *node);
                let waste = if is_away { minded.saturating_add(AWAY) } else { minded };
                let latest =
                    best.map_or(Some(u64::MAX - duration), |(by, ..)| by.checked_sub(waste)?.checked_sub(duration));
                let packed = self.packed[first + index as usize];
                let found = latest.and_then(|latest| {
                    self.machine.earliest(packed, choice, (*node, devices), from, latest, &mut self.feasible)
                });
                let Some(start) = found else { continue };
                let finish = start + duration;
                let score = self.select(fit, packed, choice, (*node, usual), start);
                let by = finish.saturating_add(waste);
                if best.is_none_or(|(least, other, _)| (by, score) < (least, other)) {
                    best = Some((by, score, Site { choice: index, member, start, finish }));
                    self.chosen.clear();
                    let gang = choice.gang as usize;
                    self.chosen.extend(self.feasible[..gang].iter().map(|(_, device)| *device));
                }
            }
        }
        best.map(|(.., site)| self.tightened(task, site))
    }

    /// Returns by how many milliseconds a choice, counted over all kinds, may end later than another that wastes nothing.
    fn minded(&self, choice: usize, wish: Option<u32>) -> u64 {
        if self.thrift == 0 || wish.is_some() || self.waste.is_empty() {
            return 0;
        }
        self.waste[choice].saturating_mul(self.thrift) / 8
    }

    /// Returns the site with the shortest duration that its devices allow: a gang that was looked for among slow and
    /// fast devices may have got fast ones only.
    pub(super) fn tightened(&self, task: TaskId, site: Site) -> Site {
        if self.chosen.len() < 2 {
            return site;
        }
        let instance = self.instance;
        let taken = &instance.choices(task)[site.choice as usize];
        let (node, _) = instance.groups[taken.group as usize].members[site.member as usize];
        let holds = |choice: &Choice| {
            // Groups of one mode on nodes of one class list the same nodes.
            let member = instance.groups[choice.group as usize].members.get(site.member as usize);
            let all = |devices: &[DeviceId]| self.chosen.iter().all(|device| devices.contains(device));
            choice.mode == taken.mode && member.is_some_and(|(other, devices)| *other == node && all(devices))
        };
        let mut faster = (0..).zip(instance.choices(task)).filter(|(_, choice)| holds(choice));
        let fastest = faster.next().map_or((site.choice, taken), |found| found);
        Site { choice: fastest.0, finish: site.start + fastest.1.duration(), ..site }
    }

    /// Returns what a choice of a task asks for, packed.
    pub(super) fn packed(&self, task: TaskId, choice: u32) -> Packed<W> {
        self.packed[self.first[self.instance.kind[task.index()] as usize] + choice as usize]
    }

    /// Returns the place that a balancing rule chooses without looking at the time, in the mode that is wished or else in
    /// the first that the budgets allow, as a choice and a member of its group, its devices in `self.chosen`; `None` where
    /// they allow none.
    pub(super) fn balanced_place(
        &mut self,
        task: TaskId,
        fit: &mut Fit,
        (wish, direction): (Option<u32>, Direction),
        draft: &Draft,
        purse: &Purse,
    ) -> Option<(u32, u32)> {
        let instance = self.instance;
        let choices = instance.choices(task);
        let wished = wish.map(|wish| &choices[wish as usize]);
        let first = wished.or_else(|| choices.iter().find(|choice| purse.allows(instance, task, choice)))?.mode;
        let mut best: Option<(Score, u32, u32)> = None;
        for (index, choice) in (0..).zip(choices).filter(|(_, choice)| choice.mode == first) {
            if !purse.allows(instance, task, choice) {
                continue;
            }
            for (member, (node, devices)) in (0..).zip(&instance.groups[choice.group as usize].members) {
                let ready = self.ready(task, *node, direction, draft);
                let score = self.balance(fit, choice, *node, devices, ready);
                if best.is_none_or(|(least, ..)| score < least) {
                    best = Some((score, index, member));
                    self.chosen.clear();
                    self.chosen.extend(self.feasible.iter().map(|(_, device)| *device));
                }
            }
        }
        best.map(|(_, index, member)| (index, member))
    }

    /// Returns the place that a balancing rule chooses, and the earliest start there; `None` where the budgets allow none.
    fn balanced_site(
        &mut self,
        task: TaskId,
        fit: &mut Fit,
        (wish, direction): (Option<u32>, Direction),
        draft: &Draft,
        purse: &Purse,
    ) -> Option<Site> {
        let (index, member) = self.balanced_place(task, fit, (wish, direction), draft, purse)?;
        let instance = self.instance;
        let choice = &instance.choices(task)[index as usize];
        let (node, _) = instance.groups[choice.group as usize].members[member as usize];
        let packed = self.packed(task, index);
        let ready = self.ready(task, node, direction, draft);
        let devices = std::mem::take(&mut self.chosen);
        let most = u64::MAX - choice.duration();
        let start = self.machine.earliest(packed, choice, (node, &devices), ready, most, &mut self.feasible);
        self.chosen = devices;
        let site = start.map(|start| Site { choice: index, member, start, finish: start + choice.duration() });
        site.map(|site| self.tightened(task, site))
    }

    /// Leaves the devices of a node that a balancing rule likes best in `self.feasible` and returns their worst score.
    fn balance(&mut self, fit: &mut Fit, choice: &Choice, node: NodeId, devices: &[DeviceId], ready: u64) -> Score {
        self.feasible.clear();
        if choice.gang == 0 {
            return fit.balance(self.instance.devices.len() + node.index(), ready);
        }
        self.feasible.extend(devices.iter().map(|device| (fit.balance(device.index(), ready), *device)));
        self.feasible.sort_unstable();
        self.feasible.truncate(choice.gang as usize);
        self.feasible.last().map_or(0, |(worst, _)| *worst)
    }

    /// Returns when a task's predecessors, in `direction`, have ended and their data has reached a node.
    pub(super) fn ready(&self, task: TaskId, node: NodeId, direction: Direction, draft: &Draft) -> u64 {
        let rows = direction.waits_for(self.instance.graph);
        let arrival = |edge: &crate::graph::Edge| {
            let finish = draft.finish[edge.task.index()];
            if !self.has_lags {
                return finish;
            }
            let from = draft.node(self.instance, edge.task);
            finish + self.instance.lag(edge.data, from, node).0
        };
        rows.of(task).iter().map(arrival).max().unwrap_or(0)
    }

    /// Scores the free devices, moves the best ones to the front and returns the score of the place: lower is better.
    /// Nothing is better than all of the devices that the task usually has.
    pub(super) fn select(
        &mut self,
        fit: &Fit,
        packed: Packed<W>,
        choice: &Choice,
        (node, usual): (NodeId, &[DeviceId]),
        start: u64,
    ) -> Score {
        let gang = choice.gang as usize;
        if gang == 0 {
            return fit.score_node(&self.machine, node, packed.node, start);
        }
        if usual.len() == gang && self.move_to_front(usual) {
            return 0;
        }
        let machine = &self.machine;
        for (score, device) in &mut self.feasible {
            *score = fit.score_device(machine, *device, machine.need_of(packed, *device), start);
        }
        if gang == 1 {
            let beside = |device: DeviceId| self.instance.devices[device.index()].beside;
            let rank = |a: &usize, b: &usize| {
                let ((score, one), (of_other, other)) = (self.feasible[*a], self.feasible[*b]);
                let first = (score, beside(one)).cmp(&(of_other, beside(other)));
                let devices = || [one, other].map(|device| (device, machine.need_of(packed, device)));
                first.then_with(|| fit.break_tie(machine, devices(), start)).then_with(|| one.cmp(&other))
            };
            let best = (0..self.feasible.len()).min_by(rank).unwrap_or(0);
            self.feasible.swap(0, best);
            return self.feasible[0].0;
        }
        let spot = |device: DeviceId| self.instance.devices[device.index()].spot;
        self.spots.clear();
        self.spots.extend(self.feasible.iter().map(|(_, device)| spot(*device)));
        let part = near::closest(&self.spots, gang);
        self.feasible.sort_unstable_by_key(|(score, device)| (!spot(*device).is_within(&part), *score, *device));
        self.feasible[..gang].iter().map(|(score, _)| score).fold(0, |sum, score| sum.saturating_add(*score))
    }

    /// Moves some devices to the front of those that are free. Returns whether all of them are.
    fn move_to_front(&mut self, devices: &[DeviceId]) -> bool {
        (0..).zip(devices).all(|(at, device)| {
            let found = self.feasible[at..].iter().position(|(_, free)| free == device);
            found.inspect(|found| self.feasible.swap(at, at + found)).is_some()
        })
    }

    /// Holds what a task needs.
    pub(super) fn take(&mut self, task: TaskId, site: Site) {
        let packed = self.packed(task, site.choice);
        let choice = &self.instance.choices(task)[site.choice as usize];
        let (node, _) = self.instance.groups[choice.group as usize].members[site.member as usize];
        self.machine.take(packed, node, &self.chosen, site.start, site.finish);
    }
}
