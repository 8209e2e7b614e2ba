//! The pools of one node's devices split into devices: a solution then is a plan.
//!
//! Variables besides those of the pools: whether a task holds a device. Constraints: it holds as many devices of its
//! choice as it asks for; what tasks hold of a device at one instant is no more than it has; who has a device to himself
//! shares it with nobody. Equal devices are told apart by who uses them first, so that no plan is looked at twice.
//! Does not know data that moves between nodes: there is one node only.

use pumpkin_core::results::ProblemSolution;
use pumpkin_core::variables::{DomainId, Literal, TransformableVariable};

use super::super::draft::{Draft, Site};
use super::super::instance::{Choice, DeviceNeed, Instance};
use super::super::search::Search;
use super::pools::{BEHIND, Pools};
use super::{Model, Solution, together};
use crate::fleet::DeviceId;
use crate::graph::TaskId;
use crate::units::Share;

/// Whether a task with a choice holds a device.
pub(super) struct Held {
    task: TaskId,
    choice: u32,
    device: DeviceId,
    is: Literal,
    /// Starts with the task where it holds the device, and lies parked where it does not.
    copy: DomainId,
}

/// Amounts of a device are counted in so many parts at most; where that is not exact, nothing is split.
const PARTS: u64 = 1 << 24;

/// Whether the problem on devices can be stated exactly: one node, whole ticks, and amounts and instants that fit the
/// solver's numbers for plans with this makespan.
pub(super) fn can_split(instance: &Instance<'_>, pools: &Pools, makespan: u64) -> bool {
    let most = instance.devices.iter().map(|device| device.memory.0).max().unwrap_or(0);
    let copies = instance.graph.ids().zip(&pools.ways).flat_map(|(task, ways)| {
        let devices = |choice: &Choice| instance.groups[choice.group as usize].members[0].1.len() as u64;
        let ticks = |(way, choice): (&i32, &Choice)| u64::try_from(*way).unwrap_or(0).max(1) * devices(choice);
        ways.iter().zip(instance.choices(task)).map(ticks).collect::<Vec<_>>()
    });
    let is_one_node = instance.nodes.len() == 1 && !instance.devices.is_empty();
    let fits = most / unit(instance) < PARTS && makespan / pools.tick + copies.sum::<u64>() < BEHIND;
    is_one_node && pools.is_exact && fits
}

/// The greatest common divisor of all requests for device memory.
fn unit(instance: &Instance<'_>) -> u64 {
    let memory = |choice: &Choice| match choice.per_device {
        // One byte only says that a device is used at all.
        DeviceNeed::Part { memory, .. } if memory > 1 => memory,
        DeviceNeed::Part { .. } | DeviceNeed::Exclusive => 0,
    };
    let all = instance.kinds.iter().flat_map(|kind| kind.choices.iter().map(memory));
    all.fold(0, super::super::instance::gcd).max(1)
}

impl Model {
    /// Adds devices to the pools, for solutions that end by tick `most`.
    pub(super) fn split<const W: usize>(&mut self, search: &Search<'_, W>, pools: &Pools, most: i32) -> Vec<Held> {
        let instance = search.instance;
        let mut held = Vec::new();
        let mut parked = most.saturating_add(1);
        for task in instance.graph.ids() {
            for (index, choice) in (0..).zip(instance.choices(task)).filter(|(_, choice)| choice.gang > 0) {
                let way = pools.ways[task.index()][index as usize];
                let devices = &instance.groups[choice.group as usize].members[0].1;
                let first = held.len();
                for device in devices {
                    let (is, copy) = self.copy_while(task, way, most, &mut parked);
                    held.push(Held { task, choice: index, device: *device, is, copy });
                }
                self.hold_as_many(&held[first..], task, index, choice.gang);
            }
        }
        for device in (0..).map(DeviceId).take(instance.devices.len()) {
            let of_device: Vec<_> = held.iter().filter(|held| held.device == device).collect();
            self.fit(instance, pools, &of_device, device);
        }
        self.tell_apart(instance, &held);
        held
    }

    /// Exactly as many devices are held as a choice asks for where it is taken, and none where it is not.
    fn hold_as_many(&mut self, held: &[Held], task: TaskId, choice: u32, gang: u32) {
        let gang = i32::try_from(gang).unwrap_or(i32::MAX);
        let mut terms: Vec<_> = held.iter().map(|held| held.is.get_integer_variable()).collect();
        let taken = self.taken[task.index()].get(choice as usize);
        terms.extend(taken.map(|taken| taken.get_integer_variable().scaled(-gang)));
        let right = if taken.is_some() { 0 } else { gang };
        let tag = self.solver.new_constraint_tag();
        self.solver.add_constraint(pumpkin_constraints::equals(terms, right, tag)).post();
    }

    /// What is held of a device at one instant is no more than it has.
    fn fit(&mut self, instance: &Instance<'_>, pools: &Pools, held: &[&Held], device: DeviceId) {
        let unit = unit(instance);
        let whole = instance.devices[device.index()].memory.0 / unit;
        let alone = instance.len() as u64;
        let amounts: [(u64, &dyn Fn(DeviceNeed) -> u64); 3] = [
            (whole, &|need| match need {
                DeviceNeed::Exclusive => whole,
                DeviceNeed::Part { memory, .. } => memory / unit,
            }),
            (u64::from(Share::WHOLE.0), &|need| match need {
                DeviceNeed::Exclusive => u64::from(Share::WHOLE.0),
                DeviceNeed::Part { share, .. } => share,
            }),
            (alone, &|need| if need == DeviceNeed::Exclusive { alone } else { 1 }),
        ];
        for (capacity, amount) in amounts {
            let (mut starts, mut durations, mut takes) = (Vec::new(), Vec::new(), Vec::new());
            for held in held {
                let choice = &instance.choices(held.task)[held.choice as usize];
                let (way, amount) = (pools.ways[held.task.index()][held.choice as usize], amount(choice.per_device));
                if way > 0 && amount > 0 {
                    starts.push(held.copy);
                    durations.push(way);
                    takes.push(i32::try_from(amount).unwrap_or(i32::MAX));
                }
            }
            if starts.is_empty() {
                continue;
            }
            let tag = self.solver.new_constraint_tag();
            let capacity = i32::try_from(capacity).unwrap_or(i32::MAX);
            let fits = together(starts, durations, takes, capacity, tag);
            self.solver.add_constraint(fits).post();
        }
    }

    /// Of two equal devices, the second is used by a task only where the first is used by it or by an earlier one.
    fn tell_apart(&mut self, instance: &Instance<'_>, held: &[Held]) {
        let alike = |a: DeviceId, b: DeviceId| {
            let (a, b) = (&instance.devices[a.index()], &instance.devices[b.index()]);
            (a.class, a.spot) == (b.class, b.spot)
        };
        for second in (1..).map(DeviceId).take(instance.devices.len().saturating_sub(1)) {
            let first = DeviceId(second.0 - 1);
            if !alike(first, second) {
                continue;
            }
            let uses = |device: DeviceId| held.iter().filter(move |held| held.device == device);
            for user in uses(second) {
                let before = uses(first).filter(|held| held.task <= user.task).map(|held| held.is.get_true_predicate());
                let clause: Vec<_> = before.chain([user.is.get_false_predicate()]).collect();
                let tag = self.solver.new_constraint_tag();
                self.solver.add_clause(clause, tag);
            }
        }
    }
}

/// Writes a solution down as a schedule.
pub(super) fn schedule(
    instance: &Instance<'_>,
    pools: &Pools,
    held: &[Held],
    values: &impl ProblemSolution,
    solution: &Solution,
) -> Draft {
    let mut devices = vec![Vec::new(); instance.len()];
    for held in held.iter().filter(|held| values.get_literal_value(held.is)) {
        if held.choice == solution.choice[held.task.index()] {
            devices[held.task.index()].push(held.device);
        }
    }
    let mut order = instance.graph.order.clone();
    // Stable, so that tasks without duration stay behind those they wait for.
    order.sort_by_key(|task| solution.start[task.index()]);
    let mut draft = Draft::default();
    draft.reset(instance.len());
    for task in order {
        let i = task.index();
        let choice = fastest(instance, task, solution.choice[i], &devices[i]);
        let start = u64::try_from(solution.start[i]).unwrap_or(0) * pools.tick;
        let finish = start + instance.choices(task)[choice as usize].duration();
        draft.set(task, Site { choice, member: 0, start, finish }, &devices[i]);
    }
    draft
}

/// Returns the shortest choice that these devices allow in the mode of `taken`: a gang that was looked for among slow and
/// fast devices may have got fast ones only.
fn fastest(instance: &Instance<'_>, task: TaskId, taken: u32, devices: &[DeviceId]) -> u32 {
    let choices = instance.choices(task);
    let allows = |choice: &Choice| {
        let members = &instance.groups[choice.group as usize].members[0].1;
        choice.mode == choices[taken as usize].mode && devices.iter().all(|device| members.contains(device))
    };
    let allowed = (0..).zip(choices).filter(|(_, choice)| !devices.is_empty() && allows(choice));
    allowed.min_by_key(|(_, choice)| choice.duration()).map_or(taken, |(index, _)| index)
}
