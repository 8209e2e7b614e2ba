//! What a batch search is asked instead of the whole problem: orders are judged on a simpler fleet, which fits a kernel.
//!
//! Where every task can run on one device or none, the devices are kept with their speeds and memory, and each host is a few
//! columns more among which its CPUs are dealt out. Otherwise everything becomes a pool: devices, their memory, and the two
//! amounts of hosts that are most in demand; each task then takes its fastest choice. Budgets and the way of data between
//! nodes are left out, and amounts rounded: what comes back is decoded on the real fleet. Does not know how is searched.

use super::super::instance::{Choice, DeviceNeed, Instance, Kind};
use super::super::order::upward_rank;
use crate::batch::Unfit;
use crate::batch::lists::{Lists, NEVER};
use crate::batch::search::{Judge, Problem};
use crate::batch::sgs::{Project, RESOURCES};
use crate::fleet::NodeId;
use crate::graph::TaskId;
use crate::units::Share;

/// All of a device or of a host, in the parts that lists count in.
const WHOLE: u64 = 1 << 20;
/// All of a pool, in the parts that projects count in: 15 bits.
const POOL: u64 = 32_000;
/// Devices and hosts that lists can have, and tasks that each of them runs at the same time.
const COLUMNS: usize = 32;
const SEATS: u64 = 4;
/// Ticks that all tasks take one after the other: at most so many in lists, about so many in a project, four a task.
const TICKS: u128 = 1 << 30;
const PROJECT_TICKS: u128 = 2_048;

/// Returns the problem, with orders that are known, and how many looks at a place judging one order takes.
pub(super) fn problem(instance: &Instance<'_>, known: &[Vec<TaskId>]) -> Result<(Problem, u64), Unfit> {
    let columns = Columns::new(instance);
    let judge = match &columns {
        Some(columns) => Judge::Lists(columns.lists(instance)?),
        None => Judge::Project(project(instance)?),
    };
    let looks = columns.map_or(RESOURCES, |columns| columns.len()) * instance.len();
    Ok((Problem::new(instance.graph, judge, &upward_rank(instance), known)?, looks as u64))
}

/// Devices, then hosts, each of which is dealt out to a few columns.
struct Columns {
    n_devices: usize,
    hosts: Vec<NodeId>,
    /// Columns of each host.
    each: usize,
}

impl Columns {
    /// `None` where some task needs several devices, or there are too many.
    fn new(instance: &Instance<'_>) -> Option<Self> {
        let narrow = |kind: &Kind| kind.choices.iter().any(|choice| choice.gang < 2);
        if !instance.kinds.iter().all(narrow) {
            return None;
        }
        let on_host = |kind: &&Kind| kind.choices.iter().any(|choice| choice.gang == 0);
        let choices = || instance.kinds.iter().flat_map(|kind| &kind.choices).filter(|choice| choice.gang == 0);
        let nodes = |choice: &Choice| instance.groups[choice.group as usize].members.iter().map(|(node, _)| *node);
        let mut hosts: Vec<NodeId> = choices().flat_map(nodes).collect();
        hosts.sort_unstable();
        hosts.dedup();
        let n_devices = instance.devices.len();
        let room = COLUMNS.checked_sub(n_devices + hosts.len())?;
        // As many columns as the largest task of a host lets, or as all of them could fill.
        let largest = choices().flat_map(|choice| nodes(choice).map(|node| of_host(instance, choice, node))).max();
        let by_size = WHOLE / largest.unwrap_or(WHOLE).max(1);
        let kinds: Vec<bool> = instance.kinds.iter().map(|kind| on_host(&kind)).collect();
        let tasks = instance.kind.iter().filter(|kind| kinds[**kind as usize]).count() as u64;
        let wanted = usize::try_from(by_size.min(tasks.div_ceil(SEATS))).unwrap_or(COLUMNS);
        let each = wanted.clamp(1, 1 + room / hosts.len().max(1));
        Some(Self { n_devices, hosts, each })
    }

    fn len(&self) -> usize {
        self.n_devices + self.hosts.len() * self.each
    }

    /// Returns the columns of a host.
    fn of(&self, node: NodeId) -> std::ops::Range<usize> {
        let host = self.hosts.binary_search(&node).map_or(0, |host| self.n_devices + host * self.each);
        host..host + self.each
    }

    fn lists(&self, instance: &Instance<'_>) -> Result<Lists, Unfit> {
        let largest = instance.devices.iter().map(|device| device.memory.0).max().unwrap_or(0).max(1);
        let devices = instance.devices.iter().map(|device| parts(device.memory.0, largest, WHOLE).max(1));
        let hosts = vec![WHOLE / self.each as u64; self.hosts.len() * self.each];
        let capacity: Vec<u64> = devices.chain(hosts).collect();
        let mut by_kind: Vec<(Vec<Option<u64>>, u64)> = Vec::with_capacity(instance.kinds.len());
        for kind in &instance.kinds {
            let (mut times, mut holds) = (vec![None::<u64>; self.len()], 0);
            for choice in kind.choices.iter().filter(|choice| choice.gang < 2) {
                for (node, devices) in &instance.groups[choice.group as usize].members {
                    let columns: Vec<usize> = match choice.gang {
                        0 => self.of(*node).collect(),
                        _ => devices.iter().map(|device| device.index()).collect(),
                    };
                    for column in columns {
                        let best = times[column].unwrap_or(u64::MAX);
                        times[column] = Some(best.min(choice.duration()));
                    }
                    holds = holds.max(match (choice.gang, choice.per_device) {
                        (0, _) => of_host(instance, choice, *node),
                        (_, DeviceNeed::Exclusive) => WHOLE,
                        (_, DeviceNeed::Part { memory, share }) => {
                            parts(memory, largest, WHOLE).max(parts(share, Share::WHOLE.0.into(), WHOLE))
                        }
                    });
                }
            }
            // Where it may run it fits: a device that is smaller than the largest is held as a whole by less.
            let least = times.iter().zip(&capacity).filter(|(time, _)| time.is_some()).map(|(_, room)| *room).min();
            by_kind.push((times, holds.min(least.unwrap_or(0))));
        }
        let longest = |kind: &u32| u128::from(by_kind[*kind as usize].0.iter().flatten().max().copied().unwrap_or(0));
        let tick = ticks(instance, instance.kind.iter().map(longest).sum(), TICKS);
        let time = |time: &Option<u64>| time.map_or(NEVER, |time| word(time.div_ceil(tick)));
        let row = |kind: &u32| by_kind[*kind as usize].0.iter().map(time).collect::<Vec<_>>();
        let memory = instance.kind.iter().map(|kind| word(by_kind[*kind as usize].1)).collect();
        let time = instance.kind.iter().flat_map(row).collect();
        Lists::new(instance.graph, time, memory, capacity.into_iter().map(word).collect())
    }
}

/// Returns how much of a host a task holds: of what it holds the largest part of.
fn of_host(instance: &Instance<'_>, choice: &Choice, node: NodeId) -> u64 {
    let offers = &instance.nodes[node.index()].capacity;
    choice.need.iter().zip(offers).map(|(need, offer)| parts(*need, *offer, WHOLE)).max().unwrap_or(0)
}

/// Makes a project of pools.
fn project(instance: &Instance<'_>) -> Result<Project, Unfit> {
    let fastest =
        |kind: &Kind| kind.choices.iter().enumerate().min_by_key(|(_, choice)| choice.duration()).map(|c| c.0);
    let chosen: Vec<&Choice> = instance.kinds.iter().filter_map(|kind| Some(&kind.choices[fastest(kind)?])).collect();
    let of_task = |kind: &u32| chosen[*kind as usize];
    let total = |resource: usize| instance.nodes.iter().map(|node| node.capacity[resource]).sum::<u64>();
    let demand = |resource: usize| -> u128 {
        let load = |kind: &u32| u128::from(of_task(kind).need[resource]) * u128::from(of_task(kind).duration());
        instance.kind.iter().map(load).sum::<u128>() / u128::from(total(resource).max(1))
    };
    let mut tightest: Vec<(u128, usize)> = (0..instance.resources.len()).map(|one| (demand(one), one)).collect();
    tightest.sort_unstable_by(|a, b| b.cmp(a));
    let tightest: Vec<usize> = tightest.into_iter().take(2).map(|(_, resource)| resource).collect();
    let n_devices = instance.devices.len() as u64;
    let memory: u64 = instance.devices.iter().map(|device| device.memory.0).sum();
    let need = |choice: &&Choice| {
        let gang = u64::from(choice.gang);
        let (share, held) = match choice.per_device {
            DeviceNeed::Exclusive => (u64::from(Share::WHOLE.0), 0),
            DeviceNeed::Part { memory, share } => (share, memory),
        };
        let mut need = [0; RESOURCES];
        need[0] = word(parts(gang * share, n_devices * u64::from(Share::WHOLE.0), POOL));
        need[1] = word(parts(gang.saturating_mul(held), memory, POOL));
        for (need, resource) in need[2..].iter_mut().zip(&tightest) {
            *need = word(parts(choice.need[*resource], total(*resource), POOL));
        }
        need
    };
    let needs: Vec<[u32; RESOURCES]> = chosen.iter().map(need).collect();
    let n = instance.len() as u128;
    let tick = ticks(
        instance,
        instance.kind.iter().map(|kind| u128::from(of_task(kind).duration())).sum(),
        PROJECT_TICKS.max(4 * n),
    );
    let duration = instance.kind.iter().map(|kind| word(of_task(kind).duration().div_ceil(tick))).collect();
    let need: Vec<_> = instance.kind.iter().map(|kind| needs[*kind as usize]).collect();
    Project::new(instance.graph, duration, &need, [word(POOL); RESOURCES])
}

/// Returns how long a tick is, in milliseconds, so that `total` takes no more than about `most`.
fn ticks(instance: &Instance<'_>, total: u128, most: u128) -> u64 {
    u64::try_from(total.div_ceil(most)).unwrap_or(u64::MAX).max(instance.tick())
}

/// Returns how much `some` is of `all`, in parts of which there are `whole`; nothing of nothing.
fn parts(some: u64, all: u64, whole: u64) -> u64 {
    let parts = (u128::from(some) * u128::from(whole)).checked_div(all.into()).unwrap_or(0);
    u64::try_from(parts).unwrap_or(u64::MAX).min(whole)
}

fn word(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Fleet;
    use crate::plan::fixture::{Problem as Case, add_node, on_gpus, on_host, problem as case};
    use crate::spec::Gpus;

    fn judged(case: &Case, order: &[u16]) -> (Problem, u32) {
        let instance = Instance::new(&case.pipeline, &case.graph, &case.fleet).unwrap();
        let known: Vec<TaskId> = order.iter().map(|task| TaskId((*task).into())).collect();
        let (problem, _) = problem(&instance, &[known]).unwrap();
        let makespan = match &problem.judge {
            Judge::Lists(lists) => crate::batch::lists::makespan(lists, order),
            Judge::Project(project) => crate::batch::sgs::makespan(project, order),
        };
        (problem, makespan * u32::try_from(instance.tick()).unwrap())
    }

    #[test]
    fn devices_keep_their_speeds_and_their_memory() {
        let mut fleet = Fleet::default();
        add_node(&mut fleet, 4, 8, &[("A", 16, 1_000), ("B", 16, 2_000)]);
        let train = |gib, ms| vec![on_gpus(Gpus::Shared, gib, ms)];
        // Both fit beside each other on the fast one; with a third, one goes to the slow one or waits.
        let two = case(vec![train(8, 600), train(8, 600)], &[], fleet.clone());
        assert_eq!(judged(&two, &[0, 1]).1, 300);
        let three = case(vec![train(8, 600), train(8, 600), train(8, 600)], &[], fleet);
        assert_eq!(judged(&three, &[0, 1, 2]).1, 600);
    }

    #[test]
    fn a_host_runs_as_many_tasks_as_it_has_cpus() {
        let mut fleet = Fleet::default();
        add_node(&mut fleet, 16, 8, &[]);
        let sixteen = case(vec![vec![on_host(1, 500)]; 16], &[], fleet.clone());
        assert_eq!(judged(&sixteen, &(0..16).collect::<Vec<_>>()).1, 500);
        let wide = case(vec![vec![on_host(9, 500)]; 2], &[], fleet);
        assert_eq!(judged(&wide, &[0, 1]).1, 1_000);
    }

    #[test]
    fn gangs_make_it_a_project_of_pools() {
        let mut fleet = Fleet::default();
        add_node(&mut fleet, 4, 8, &[("A", 16, 1_000), ("A", 16, 1_000), ("A", 16, 1_000)]);
        let gang = |gpus| vec![on_gpus(Gpus::Whole(gpus), 1, 500)];
        let both = case(vec![gang(2), gang(1)], &[], fleet.clone());
        let (problem, makespan) = judged(&both, &[0, 1]);
        assert!(matches!(problem.judge, Judge::Project(_)));
        assert_eq!(makespan, 500);
        assert_eq!(judged(&case(vec![gang(2), gang(2)], &[], fleet), &[0, 1]).1, 1_000);
    }
}
