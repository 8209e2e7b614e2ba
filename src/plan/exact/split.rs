//! The pools split into nodes and devices: a solution then is a plan.
//!
//! Variables besides those of the pools: whether a task is on a node, and whether it holds a device. Constraints: it is on
//! one node of its choice, and holds as many devices there as it asks for; what tasks hold of a node or a device at one
//! instant is no more than it has; who has a device to himself shares it with nobody; whoever waits for data from another
//! node starts once it has come. Equal nodes and equal devices are told apart by who uses them first, so that no plan is
//! looked at twice.

use pumpkin_core::results::ProblemSolution;
use pumpkin_core::variables::{DomainId, Literal, TransformableVariable};

use super::super::draft::{Draft, Site};
use super::super::instance::{Choice, DeviceNeed, Instance, gcd};
use super::super::search::Search;
use super::pools::{BEHIND, Pools};
use super::{Model, Solution, together};
use crate::fleet::{DeviceId, NodeId};
use crate::graph::TaskId;
use crate::units::Share;

/// Where tasks may be.
pub(super) struct Places {
    seats: Vec<Seat>,
    held: Vec<Held>,
}

/// Whether a task with a choice is on a node.
struct Seat {
    task: TaskId,
    choice: u32,
    /// Index into the members of the choice's group.
    member: u32,
    node: NodeId,
    /// `None` where it is in any case.
    is: Option<Literal>,
    /// Starts with the task where it is on the node, and lies parked where it is not.
    copy: DomainId,
}

/// Whether a task with a choice holds a device.
struct Held {
    task: TaskId,
    choice: u32,
    device: DeviceId,
    is: Literal,
    /// Starts with the task where it holds the device, and lies parked where it does not.
    copy: DomainId,
}

/// Amounts of a device or a node are counted in so many parts at most; where that is not exact, nothing is split.
const PARTS: u64 = 1 << 24;

/// Seats on several nodes, and pairs of seats between which data moves, up to which there is something to gain.
const SEATS: usize = 128;
const MOVES: usize = 1 << 12;

/// Whether the problem on nodes and devices can be stated exactly, and is small enough: whole ticks, and amounts and
/// instants that fit the solver's numbers for plans with this makespan.
pub(super) fn can_split(instance: &Instance<'_>, pools: &Pools, makespan: u64) -> bool {
    let most = instance.devices.iter().map(|device| device.memory.0).max().unwrap_or(0);
    let one_node = instance.nodes.len() == 1;
    let copies = instance.graph.ids().zip(&pools.ways).flat_map(|(task, ways)| {
        let places = |choice: &Choice| {
            let members = &instance.groups[choice.group as usize].members;
            let seats = if members.len() == 1 { 1 } else { 1 + members.len() };
            seats as u64 + members.iter().map(|(_, devices)| devices.len() as u64).sum::<u64>()
        };
        let ticks = |(way, choice): (&i32, &Choice)| u64::try_from(*way).unwrap_or(0).max(1) * places(choice);
        ways.iter().zip(instance.choices(task)).map(ticks).collect::<Vec<_>>()
    });
    let fits = most / unit(instance) < PARTS && makespan / pools.tick + copies.sum::<u64>() < BEHIND;
    let fits_nodes = || {
        (0..instance.resources.len()).all(|resource| {
            let most = instance.nodes.iter().map(|node| node.capacity[resource]).max().unwrap_or(0);
            node_unit(instance, resource).is_none_or(|unit| most / unit < PARTS)
        })
    };
    let is_something = if one_node { !instance.devices.is_empty() } else { is_small(instance) && fits_nodes() };
    is_something && pools.is_exact && fits
}

/// Whether tasks on several nodes are few enough.
pub(super) fn is_small(instance: &Instance<'_>) -> bool {
    let members = |choice: &Choice| instance.groups[choice.group as usize].members.len();
    let seats = |task: TaskId| instance.choices(task).iter().map(members).sum::<usize>();
    let all = instance.graph.ids().map(seats).sum::<usize>();
    let edges =
        || instance.graph.ids().flat_map(|task| instance.graph.after.of(task).iter().map(move |edge| (task, edge)));
    all <= SEATS && edges().map(|(task, edge)| seats(task) * seats(edge.task)).sum::<usize>() <= MOVES
}

/// The greatest common divisor of all requests for device memory.
fn unit(instance: &Instance<'_>) -> u64 {
    let memory = |choice: &Choice| match choice.per_device {
        // One byte only says that a device is used at all.
        DeviceNeed::Part { memory, .. } if memory > 1 => memory,
        DeviceNeed::Part { .. } | DeviceNeed::Exclusive => 0,
    };
    let all = instance.kinds.iter().flat_map(|kind| kind.choices.iter().map(memory));
    all.fold(0, gcd).max(1)
}

/// The greatest common divisor of all requests for a resource of nodes; `None` where nobody asks for it.
fn node_unit(instance: &Instance<'_>, resource: usize) -> Option<u64> {
    let choices = instance.kinds.iter().flat_map(|kind| &kind.choices);
    Some(choices.map(|choice| choice.need[resource]).fold(0, gcd)).filter(|unit| *unit > 0)
}

impl Model {
    /// Adds nodes and devices to the pools, for solutions that end by tick `most`.
    pub(super) fn split<const W: usize>(&mut self, search: &Search<'_, W>, pools: &Pools, most: i32) -> Places {
        let instance = search.instance;
        let mut places = Places { seats: Vec::new(), held: Vec::new() };
        for task in instance.graph.ids() {
            for (index, choice) in (0..).zip(instance.choices(task)) {
                let taken = self.taken[task.index()].get(index as usize).copied();
                let way = pools.ways[task.index()][index as usize];
                let members = &instance.groups[choice.group as usize].members;
                let first = places.seats.len();
                for (member, (node, _)) in (0..).zip(members) {
                    let (is, copy) = match members.len() {
                        1 => (taken, self.copies[task.index()][index as usize]),
                        _ => {
                            let (is, copy) = self.copy_while(task, way, most);
                            (Some(is), copy)
                        }
                    };
                    places.seats.push(Seat { task, choice: index, member, node: *node, is, copy });
                }
                let seats: Vec<Literal> = places.seats[first..].iter().filter_map(|seat| seat.is).collect();
                if members.len() > 1 {
                    self.as_many(&seats, 1, taken);
                }
                for (seat, (_, devices)) in places.seats[first..].iter().zip(members).filter(|_| choice.gang > 0) {
                    let first = places.held.len();
                    for device in devices {
                        let (is, copy) = self.copy_while(task, way, most);
                        places.held.push(Held { task, choice: index, device: *device, is, copy });
                    }
                    let held: Vec<Literal> = places.held[first..].iter().map(|held| held.is).collect();
                    self.as_many(&held, choice.gang, seat.is);
                }
            }
        }
        for device in (0..).map(DeviceId).take(instance.devices.len()) {
            let of_device: Vec<_> = places.held.iter().filter(|held| held.device == device).collect();
            self.fit(instance, pools, &of_device, device);
        }
        if instance.nodes.len() > 1 {
            (0..).map(NodeId).take(instance.nodes.len()).for_each(|node| self.fit_node(instance, pools, &places, node));
            self.bring(instance, pools, &places);
        }
        self.tell_apart(instance, &places);
        places
    }

    /// Exactly so many of some literals hold, and none where `only` does not.
    fn as_many(&mut self, literals: &[Literal], count: u32, only: Option<Literal>) {
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        let mut terms: Vec<_> = literals.iter().map(|literal| literal.get_integer_variable()).collect();
        terms.extend(only.map(|only| only.get_integer_variable().scaled(-count)));
        let right = if only.is_some() { 0 } else { count };
        let tag = self.solver.new_constraint_tag();
        self.solver.add_constraint(pumpkin_constraints::equals(terms, right, tag)).post();
    }

    /// What is held of a node at one instant is no more than it has.
    fn fit_node(&mut self, instance: &Instance<'_>, pools: &Pools, places: &Places, node: NodeId) {
        for resource in 0..instance.resources.len() {
            let Some(unit) = node_unit(instance, resource) else { continue };
            let capacity = instance.nodes[node.index()].capacity[resource] / unit;
            let here = places.seats.iter().filter(|seat| seat.node == node);
            let uses = here.map(|seat| {
                let amount = instance.choices(seat.task)[seat.choice as usize].need[resource] / unit;
                (seat.copy, pools.ways[seat.task.index()][seat.choice as usize], amount)
            });
            self.hold(uses.collect(), capacity);
        }
    }

    /// Data that moves from one node to another is there before it is read.
    fn bring(&mut self, instance: &Instance<'_>, pools: &Pools, places: &Places) {
        let seats = |task: TaskId| places.seats.iter().filter(move |seat| seat.task == task);
        for task in instance.graph.ids() {
            for edge in instance.graph.after.of(task) {
                for (from, to) in seats(task).flat_map(|from| seats(edge.task).map(move |to| (from, to))) {
                    let lag = instance.lag(edge.data, from.node, to.node).0 / pools.tick;
                    if lag == 0 {
                        continue;
                    }
                    let lag = i32::try_from(lag).unwrap_or(i32::MAX);
                    let condition = self.both(from.is, to.is);
                    let terms = vec![self.finish[task.index()], self.start[edge.task.index()].scaled(-1)];
                    let tag = self.solver.new_constraint_tag();
                    let waits = pumpkin_constraints::less_than_or_equals(terms, -lag, tag);
                    match condition {
                        Some(condition) => self.solver.add_constraint(waits).implied_by(condition),
                        None => self.solver.add_constraint(waits).post(),
                    }
                }
            }
        }
    }

    /// Returns a literal that holds where two do; what is `None` holds in any case.
    fn both(&mut self, a: Option<Literal>, b: Option<Literal>) -> Option<Literal> {
        let (Some(one), Some(other)) = (a, b) else { return a.or(b) };
        let both = self.solver.new_literal();
        let clause = vec![one.get_false_predicate(), other.get_false_predicate(), both.get_true_predicate()];
        let tag = self.solver.new_constraint_tag();
        self.solver.add_clause(clause, tag);
        Some(both)
    }

    /// Posts that no more is held at one instant than there is: by whoever starts when, for how long and how much.
    fn hold(&mut self, uses: Vec<(DomainId, i32, u64)>, capacity: u64) {
        let (mut starts, mut durations, mut takes) = (Vec::new(), Vec::new(), Vec::new());
        for (start, way, amount) in uses.into_iter().filter(|(_, way, amount)| *way > 0 && *amount > 0) {
            starts.push(start);
            durations.push(way);
            takes.push(i32::try_from(amount).unwrap_or(i32::MAX));
        }
        if !starts.is_empty() {
            let tag = self.solver.new_constraint_tag();
            let capacity = i32::try_from(capacity).unwrap_or(i32::MAX);
            let fits = together(starts, durations, takes, capacity, tag);
            self.solver.add_constraint(fits).post();
        }
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
            let uses = held.iter().map(|held| {
                let choice = &instance.choices(held.task)[held.choice as usize];
                (held.copy, pools.ways[held.task.index()][held.choice as usize], amount(choice.per_device))
            });
            self.hold(uses.collect(), capacity);
        }
    }

    /// Of two equal nodes or devices, the second is used by a task only where the first is used by it or by an earlier one.
    fn tell_apart(&mut self, instance: &Instance<'_>, places: &Places) {
        for second in (1..).map(DeviceId).take(instance.devices.len().saturating_sub(1)) {
            let first = DeviceId(second.0 - 1);
            let [a, b] = [first, second].map(|device| &instance.devices[device.index()]);
            if (a.node, a.class, a.spot) == (b.node, b.class, b.spot) {
                let uses = |device| move |held: &&Held| held.device == device;
                let of = |held: &Held| (held.task, held.is);
                let [first, second] =
                    [first, second].map(|device| places.held.iter().filter(uses(device)).map(of).collect::<Vec<_>>());
                self.first_before(&first, &second);
            }
        }
        for second in (1..).map(NodeId).take(instance.nodes.len() - 1) {
            let first = NodeId(second.0 - 1);
            if are_alike(instance, first, second) {
                let of = |seat: &Seat| Some((seat.task, seat.is?));
                let [first, second] = [first, second].map(|node| {
                    let here = places.seats.iter().filter(|seat| seat.node == node);
                    here.filter_map(of).collect::<Vec<_>>()
                });
                self.first_before(&first, &second);
            }
        }
    }

    /// Posts that somebody uses the second only where he or an earlier task uses the first.
    fn first_before(&mut self, first: &[(TaskId, Literal)], second: &[(TaskId, Literal)]) {
        for (user, is) in second {
            let before = first.iter().filter(|(task, _)| task <= user).map(|(_, is)| is.get_true_predicate());
            let clause: Vec<_> = before.chain([is.get_false_predicate()]).collect();
            let tag = self.solver.new_constraint_tag();
            self.solver.add_clause(clause, tag);
        }
    }
}

/// Whether two nodes are equal and joined alike to all others.
fn are_alike(instance: &Instance<'_>, a: NodeId, b: NodeId) -> bool {
    let n = instance.nodes.len();
    let link = |from: usize, to: usize| instance.bandwidth.get(from * n + to).copied().flatten();
    let (a, b) = (a.index(), b.index());
    let joined = |c: usize| c == a || c == b || link(a, c) == link(b, c) && link(c, a) == link(c, b);
    instance.nodes[a].class == instance.nodes[b].class && link(a, b) == link(b, a) && (0..n).all(joined)
}

/// Writes a solution down as a schedule.
pub(super) fn schedule(
    instance: &Instance<'_>,
    pools: &Pools,
    places: &Places,
    values: &impl ProblemSolution,
    solution: &Solution,
) -> Draft {
    let is_chosen = |task: TaskId, choice: u32| choice == solution.choice[task.index()];
    let mut devices = vec![Vec::new(); instance.len()];
    for held in places.held.iter().filter(|held| is_chosen(held.task, held.choice)) {
        if values.get_literal_value(held.is) {
            devices[held.task.index()].push(held.device);
        }
    }
    let mut sites = vec![(0, NodeId(0)); instance.len()];
    for seat in places.seats.iter().filter(|seat| is_chosen(seat.task, seat.choice)) {
        if seat.is.is_none_or(|is| values.get_literal_value(is)) {
            sites[seat.task.index()] = (seat.member, seat.node);
        }
    }
    let mut order = instance.graph.order.clone();
    // Stable, so that tasks without duration stay behind those they wait for.
    order.sort_by_key(|task| solution.start[task.index()]);
    let mut draft = Draft::default();
    draft.reset(instance.len());
    for task in order {
        let i = task.index();
        let (member, node) = sites[i];
        let (choice, member) =
            fastest(instance, task, node, (solution.choice[i], &devices[i])).unwrap_or((solution.choice[i], member));
        let start = u64::try_from(solution.start[i]).unwrap_or(0) * pools.tick;
        let finish = start + instance.choices(task)[choice as usize].duration();
        draft.set(task, Site { choice, member, start, finish }, &devices[i]);
    }
    draft
}

/// Returns the shortest choice that these devices of a node allow in the mode of `taken`, and its member: a gang that was
/// looked for among slow and fast devices may have got fast ones only.
fn fastest(
    instance: &Instance<'_>,
    task: TaskId,
    node: NodeId,
    (taken, devices): (u32, &[DeviceId]),
) -> Option<(u32, u32)> {
    let choices = instance.choices(task);
    let member = |choice: &Choice| {
        let members = &instance.groups[choice.group as usize].members;
        let has = |(at, of): &(NodeId, Vec<DeviceId>)| *at == node && devices.iter().all(|device| of.contains(device));
        u32::try_from(members.iter().position(has)?).ok()
    };
    let same = (0..).zip(choices).filter(|(_, choice)| choice.mode == choices[taken as usize].mode && choice.gang > 0);
    let allowed = same.filter_map(|(index, choice)| Some((choice.duration(), index, member(choice)?)));
    let fastest = allowed.filter(|_| !devices.is_empty()).min();
    fastest.map(|(_, index, member)| (index, member))
}
