//! The one decoder of every policy: a serial schedule generation scheme with insertion.
//!
//! Tasks are taken in a given order; each goes to the place that the fit rule likes best, at the earliest instant at
//! which its node and enough devices of that node have room for its whole duration, which may lie before tasks that
//! were placed earlier. Source: Kolisch, "Serial and parallel resource-constrained project scheduling methods
//! revisited", 1996. Does not know where the order comes from.

use super::amounts::{Amounts, Demand, Lanes};
use super::budget::Purse;
use super::draft::{Draft, Site};
use super::fit::{Fit, Score};
use super::instance::{Choice, DeviceNeed, Instance};
use super::profile::Profile;
use crate::fleet::{DeviceId, NodeId};
use crate::graph::{Rows, TaskGraph, TaskId};
use crate::units::Share;

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

/// No choice of modes for the remaining tasks stays within the budgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OverBudget;

/// Places tasks one after the other.
pub(super) struct Decoder<'i, const W: usize> {
    pub(super) instance: &'i Instance<'i>,
    pub(super) machine: Machine<W>,
    /// `[n_kinds][n_choices]`: requests, packed.
    packed: Vec<Vec<Packed<W>>>,
    has_lags: bool,
    /// Devices that are free at the instant found, with their scores.
    feasible: Vec<(Score, DeviceId)>,
    /// Devices of the best place so far.
    chosen: Vec<DeviceId>,
}

/// What every place has free, now and over time.
pub(super) struct Machine<const W: usize> {
    pub(super) node_lanes: Lanes<W>,
    pub(super) device_lanes: Lanes<W>,
    pub(super) node_offer: Vec<Amounts<W>>,
    pub(super) device_offer: Vec<Amounts<W>>,
    pub(super) nodes: Vec<Profile<W>>,
    pub(super) devices: Vec<Profile<W>>,
    /// What every request asks for at least, save for those that ask for nothing.
    node_least: Amounts<W>,
    device_least: Amounts<W>,
}

/// A choice's requests.
#[derive(Clone, Copy)]
struct Packed<const W: usize> {
    node: Amounts<W>,
    /// `None`: all of the device.
    device: Option<Amounts<W>>,
}

/// Returns what is asked for and offered: of nodes by resource; of devices memory, then share.
pub(super) fn demands(instance: &Instance<'_>) -> (Vec<Demand>, Vec<Demand>) {
    let mut tasks_of = vec![0_u64; instance.kinds.len()];
    instance.kind.iter().for_each(|kind| tasks_of[*kind as usize] += 1);
    let mut node = vec![Demand::default(); instance.resources.len()];
    let mut device = vec![Demand::default(); 2];
    for (kind, times) in instance.kinds.iter().zip(tasks_of) {
        for choice in &kind.choices {
            node.iter_mut().zip(&choice.need).for_each(|(demand, need)| demand.ask(*need, times));
            if choice.gang > 0 {
                let asked = device_amounts(choice.per_device);
                device.iter_mut().zip(asked).for_each(|(demand, need)| demand.ask(need, times));
            }
        }
    }
    for room in &instance.nodes {
        node.iter_mut().zip(&room.capacity).for_each(|(demand, amount)| demand.offer(*amount));
    }
    for room in &instance.devices {
        device[0].offer(room.memory.0);
        device[1].offer(u64::from(Share::WHOLE.0));
    }
    (node, device)
}

/// Returns the memory and share that a choice counts with in the layout of the lanes.
pub(super) const fn asked(choice: &Choice) -> [u64; 2] {
    device_amounts(choice.per_device)
}

const fn device_amounts(need: DeviceNeed) -> [u64; 2] {
    match need {
        DeviceNeed::Exclusive => [0, Share::WHOLE.0 as u64],
        DeviceNeed::Part { memory, share } => [memory, share],
    }
}

impl<'i, const W: usize> Decoder<'i, W> {
    /// Makes a decoder for an instance.
    pub(super) fn new(instance: &'i Instance<'i>) -> Self {
        let (node, device) = demands(instance);
        let (node_lanes, device_lanes) = (Lanes::new(&node), Lanes::new(&device));
        let pack = |choice: &Choice| {
            let device = match choice.per_device {
                DeviceNeed::Exclusive => None,
                DeviceNeed::Part { memory, share } => Some(device_lanes.request([memory, share])),
            };
            Packed { node: node_lanes.request(choice.need.iter().copied()), device }
        };
        let packed = instance.kinds.iter().map(|kind| kind.choices.iter().map(pack).collect()).collect();
        let machine = Machine::new(instance, node_lanes, device_lanes);
        let has_lags = instance.has_lags();
        Self { instance, machine, packed, has_lags, feasible: Vec::new(), chosen: Vec::new() }
    }

    /// Places all tasks in `order`, which must hold each task once and, in `direction`, after those it waits for.
    /// `wish`, `[n_tasks]` by TaskId, fixes the choice of each task that is not [`FREE`]; `paid` says that these choices
    /// are known to stay in the budgets.
    ///
    /// # Errors
    /// When the budgets leave a task without a choice.
    pub(super) fn decode(
        &mut self,
        order: &[TaskId],
        fit: &mut Fit,
        wish: &[u32],
        paid: bool,
        direction: Direction,
        draft: &mut Draft,
    ) -> Result<(), OverBudget> {
        self.machine.clear();
        draft.reset(self.instance.len());
        fit.clear();
        let mut purse = if paid { Purse::open() } else { Purse::new(self.instance) };
        for &task in order {
            let wish = Some(wish[task.index()]).filter(|wish| *wish != FREE);
            let site = if fit.rule().balances() {
                self.balanced_site(task, fit, direction, draft, &purse)
            } else {
                self.best_site(task, fit, wish, direction, draft, &purse)
            };
            let site = site.ok_or(OverBudget)?;
            self.take(task, site);
            draft.set(task, site, &self.chosen);
            purse.spend(self.instance, task, site.choice);
            fit.placed(draft.node(self.instance, task), &self.chosen, site.start, site.finish);
        }
        Ok(())
    }

    /// Returns the best place for a task, its devices in `self.chosen`; `None` where the budgets allow no choice.
    fn best_site(
        &mut self,
        task: TaskId,
        fit: &Fit,
        wish: Option<u32>,
        direction: Direction,
        draft: &Draft,
        purse: &Purse,
    ) -> Option<Site> {
        let instance = self.instance;
        let kind = instance.kind[task.index()] as usize;
        let common = (!self.has_lags).then(|| self.ready(task, NodeId(0), direction, draft));
        let mut best: Option<(u64, Score, Site)> = None;
        for (index, choice) in (0..).zip(instance.choices(task)) {
            if wish.is_some_and(|wish| wish != index) || !purse.allows(instance, task, choice) {
                continue;
            }
            let duration = choice.duration();
            for (member, (node, devices)) in (0..).zip(&instance.groups[choice.group as usize].members) {
                let from = common.unwrap_or_else(|| self.ready(task, *node, direction, draft));
                let latest = best.map_or(Some(u64::MAX - duration), |(finish, ..)| finish.checked_sub(duration));
                let packed = self.packed[kind][index as usize];
                let found = latest.and_then(|latest| self.search(packed, choice, *node, devices, from, latest));
                let Some(start) = found else { continue };
                let finish = start + duration;
                let score = self.select(fit, packed, choice, *node, start);
                if best.is_none_or(|(least, other, _)| (finish, score) < (least, other)) {
                    best = Some((finish, score, Site { choice: index, member, start, finish }));
                    self.chosen.clear();
                    let gang = choice.gang as usize;
                    self.chosen.extend(self.feasible[..gang].iter().map(|(_, device)| *device));
                }
            }
        }
        best.map(|(.., site)| self.tightened(task, site))
    }

    /// Returns the site with the shortest duration that its devices allow: a gang that was looked for among slow and
    /// fast devices may have got fast ones only.
    fn tightened(&self, task: TaskId, site: Site) -> Site {
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

    /// Returns the place that a balancing rule chooses without looking at the time, in the first mode that the budgets
    /// allow, and the earliest start there; `None` where they allow none.
    fn balanced_site(
        &mut self,
        task: TaskId,
        fit: &mut Fit,
        direction: Direction,
        draft: &Draft,
        purse: &Purse,
    ) -> Option<Site> {
        let instance = self.instance;
        let choices = instance.choices(task);
        let first = choices.iter().find(|choice| purse.allows(instance, task, choice))?.mode;
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
        let (_, index, member) = best?;
        let choice = &choices[index as usize];
        let (node, _) = instance.groups[choice.group as usize].members[member as usize];
        let packed = self.packed[instance.kind[task.index()] as usize][index as usize];
        let ready = self.ready(task, node, direction, draft);
        let devices = std::mem::take(&mut self.chosen);
        let start = self.search(packed, choice, node, &devices, ready, u64::MAX - choice.duration());
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
    fn ready(&self, task: TaskId, node: NodeId, direction: Direction, draft: &Draft) -> u64 {
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

    /// Returns the earliest start in `from..=latest` on one node, and leaves in `self.feasible` the devices that are
    /// free from then on for the whole duration: at least as many as the choice asks for.
    fn search(
        &mut self,
        packed: Packed<W>,
        choice: &Choice,
        node: NodeId,
        devices: &[DeviceId],
        from: u64,
        latest: u64,
    ) -> Option<u64> {
        let machine = &self.machine;
        let (duration, gang) = (choice.duration(), choice.gang as usize);
        let mut start = from;
        loop {
            start = machine.nodes[node.index()].earliest(&machine.node_lanes, packed.node, start, duration, latest)?;
            self.feasible.clear();
            if gang == 0 {
                return Some(start);
            }
            for device in devices {
                let need = machine.need_of(packed, *device);
                let profile = &machine.devices[device.index()];
                if let Some(free) = profile.earliest(&machine.device_lanes, need, start, duration, latest) {
                    self.feasible.push((free, *device));
                }
            }
            if self.feasible.len() < gang {
                return None;
            }
            // Before the instant at which the gang-th device is first free, fewer than the gang are.
            let (_, (enough, _), _) = self.feasible.select_nth_unstable(gang - 1);
            let enough = *enough;
            if enough == start {
                self.feasible.retain(|(free, _)| *free == start);
                self.feasible.sort_unstable_by_key(|(_, device)| *device);
                return Some(start);
            }
            start = enough;
        }
    }

    /// Scores the free devices, moves the best ones to the front and returns the score of the place: lower is better.
    fn select(&mut self, fit: &Fit, packed: Packed<W>, choice: &Choice, node: NodeId, start: u64) -> Score {
        let gang = choice.gang as usize;
        let machine = &self.machine;
        if gang == 0 {
            return fit.score_node(machine, node, packed.node, start);
        }
        for (score, device) in &mut self.feasible {
            *score = fit.score_device(machine, *device, machine.need_of(packed, *device), start);
        }
        if gang == 1 {
            let best = (0..self.feasible.len()).min_by_key(|i| self.feasible[*i]).unwrap_or(0);
            self.feasible.swap(0, best);
            return self.feasible[0].0;
        }
        let island = self.island(gang);
        let apart =
            |device: DeviceId| island.is_some_and(|_| self.instance.devices[device.index()].nvlink_group != island);
        self.feasible.sort_unstable_by_key(|(score, device)| (apart(*device), *score, *device));
        self.feasible[..gang].iter().map(|(score, _)| score).fold(0, |sum, score| sum.saturating_add(*score))
    }

    /// Returns the NVLink group with the fewest free devices that still has enough of them for a gang.
    fn island(&self, gang: usize) -> Option<u32> {
        let group = |device: &DeviceId| self.instance.devices[device.index()].nvlink_group;
        let mut groups: Vec<_> = self.feasible.iter().filter_map(|(_, device)| group(device)).collect();
        groups.sort_unstable();
        let sizes = groups.chunk_by(|a, b| a == b).map(|same| (same.len(), same[0]));
        sizes.filter(|(size, _)| *size >= gang).min().map(|(_, group)| group)
    }

    /// Holds what a task needs.
    fn take(&mut self, task: TaskId, site: Site) {
        let kind = self.instance.kind[task.index()] as usize;
        let packed = self.packed[kind][site.choice as usize];
        let choice = &self.instance.kinds[kind].choices[site.choice as usize];
        let (node, _) = self.instance.groups[choice.group as usize].members[site.member as usize];
        self.machine.take_node(node, packed.node, site.start, site.finish);
        for device in &self.chosen {
            let need = self.machine.need_of(packed, *device);
            self.machine.take_device(*device, need, site.start, site.finish);
        }
    }
}

impl<const W: usize> Machine<W> {
    fn new(instance: &Instance<'_>, node_lanes: Lanes<W>, device_lanes: Lanes<W>) -> Self {
        let node_offer = instance.nodes.iter().map(|room| node_lanes.offer(room.capacity.iter().copied()));
        let node_offer: Vec<_> = node_offer.collect();
        let whole = u64::from(Share::WHOLE.0);
        let device_offer = instance.devices.iter().map(|room| device_lanes.offer([room.memory.0, whole]));
        let device_offer: Vec<_> = device_offer.collect();
        let choices = || instance.kinds.iter().flat_map(|kind| &kind.choices);
        let needs = choices().filter(|choice| choice.duration() > 0).map(|choice| choice.need.clone());
        let node_least = least(needs, instance.resources.len());
        let needs = choices().filter(|choice| choice.gang > 0 && choice.duration() > 0);
        let device_least = least(needs.map(|choice| device_amounts(choice.per_device).to_vec()), 2);
        Self {
            nodes: node_offer.iter().map(|offer| Profile::new(*offer)).collect(),
            devices: device_offer.iter().map(|offer| Profile::new(*offer)).collect(),
            node_least: node_lanes.request(node_least),
            device_least: device_lanes.request(device_least),
            node_lanes,
            device_lanes,
            node_offer,
            device_offer,
        }
    }

    fn clear(&mut self) {
        self.nodes.iter_mut().zip(&self.node_offer).for_each(|(profile, offer)| profile.clear(*offer));
        self.devices.iter_mut().zip(&self.device_offer).for_each(|(profile, offer)| profile.clear(*offer));
    }

    fn need_of(&self, packed: Packed<W>, device: DeviceId) -> Amounts<W> {
        packed.device.unwrap_or_else(|| self.device_lanes.all_of(self.device_offer[device.index()]))
    }

    fn take_node(&mut self, node: NodeId, need: Amounts<W>, start: u64, finish: u64) {
        self.nodes[node.index()].take(&self.node_lanes, self.node_least, need, start, finish);
    }

    fn take_device(&mut self, device: DeviceId, need: Amounts<W>, start: u64, finish: u64) {
        self.devices[device.index()].take(&self.device_lanes, self.device_least, need, start, finish);
    }
}

/// Returns the least that any request which asks for something asks of each resource.
fn least(needs: impl Iterator<Item = Vec<u64>>, n: usize) -> Vec<u64> {
    let asking = needs.filter(|need| need.iter().any(|amount| *amount > 0));
    let least = asking.reduce(|a, b| a.iter().zip(b).map(|(a, b)| (*a).min(b)).collect());
    least.unwrap_or_else(|| vec![0; n])
}
