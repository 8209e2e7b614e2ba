//! From pipeline, graph and fleet to an [`Instance`], or to everything that can never be placed.
//!
//! Does not know time beyond the load matrix, or what else is running.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use super::impossible::{Impossible, reasons};
use super::instance::{Choice, DeviceNeed, DeviceRoom, Group, Instance, Kind, Kinds, NodeRoom};
use super::loads::Loads;
use super::objective::Objective;
use crate::fleet::{Device, DeviceId, Fleet, Node, NodeId, Spot, near};
use crate::graph::TaskGraph;
use crate::spec::{Gpus, Mode, Pipeline, Resources, Stage};
use crate::timing::{Backend, Cpu, Load};
use crate::units::Bytes;

impl<'a> Instance<'a> {
    /// Makes the problem of running `graph`, which was built from `pipeline`, on `fleet`.
    ///
    /// # Errors
    /// Every task that fits nowhere even on an empty fleet, with the reasons mode by mode.
    pub fn new(pipeline: &Pipeline, graph: &'a TaskGraph, fleet: &Fleet) -> Result<Self, Vec<Impossible>> {
        Self::timed(pipeline, graph, fleet, Objective::Makespan, &Cpu)
    }

    /// As [`new`](Self::new), for a plan with an objective: where that is energy, a task can choose between equal devices by
    /// their power. `timed_by` computes the load matrix.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn timed(
        pipeline: &Pipeline,
        graph: &'a TaskGraph,
        fleet: &Fleet,
        objective: Objective,
        timed_by: &dyn Backend,
    ) -> Result<Self, Vec<Impossible>> {
        let mut numbers = Kinds::with_capacity(pipeline.stages.len());
        let mut impossible = Vec::new();
        let (mut firsts, mut by_stage) = (Vec::new(), Vec::with_capacity(pipeline.stages.len()));
        // A stage that is done may need what is not there any more.
        let mut used = vec![false; pipeline.stages.len()];
        graph.tasks.iter().for_each(|task| used[task.stage] = true);
        for (index, stage) in pipeline.stages.iter().enumerate() {
            let number = used[index].then(|| numbers.number(stage));
            firsts.extend(number.filter(|(_, is_new)| *is_new).map(|_| stage));
            by_stage.push(number.map(|(number, _)| number));
        }
        let mut builder =
            Builder::new(pipeline, fleet, Loads::new(&firsts, fleet, timed_by), objective == Objective::Energy);
        let mut first_mode = 0;
        let mut kind = |stage: &&Stage| {
            let kind = builder.kind(stage, first_mode);
            first_mode += stage.modes.len();
            kind
        };
        let kinds: Vec<_> = firsts.iter().map(&mut kind).collect();
        for (index, stage) in pipeline.stages.iter().enumerate() {
            if by_stage[index].is_some_and(|kind| kinds[kind as usize].choices.is_empty()) {
                let of_stage = graph.tasks.iter().filter(|task| task.stage == index);
                let tasks = of_stage.map(|task| task.name.clone()).collect();
                impossible.push(Impossible { stage: index, tasks, modes: reasons(stage, fleet) });
            }
        }
        if !impossible.is_empty() {
            return Err(impossible);
        }
        Ok(Self {
            graph,
            kinds,
            kind: graph.tasks.iter().filter_map(|task| by_stage[task.stage]).collect(),
            priority: graph.tasks.iter().map(|task| pipeline.stages[task.stage].priority).collect(),
            bandwidth: bandwidths(fleet),
            resources: builder.resources,
            nodes: builder.nodes,
            devices: builder.devices,
            groups: builder.groups,
            areas: OnceLock::new(),
            budgets: fleet.budgets.iter().map(|(name, limit)| (name.clone(), *limit)).collect(),
        })
    }
}

/// Collects the parts of an instance.
struct Builder<'f> {
    fleet: &'f Fleet,
    resources: Vec<String>,
    nodes: Vec<NodeRoom>,
    devices: Vec<DeviceRoom>,
    /// `[n_classes]`: the nodes of each class.
    classes: Vec<Vec<NodeId>>,
    /// `[n_nodes]`: the devices of each node.
    on_node: Vec<Vec<DeviceId>>,
    /// `[n_classes]`: of the devices of such a node one of each class, with their number, by class.
    kinds_on: Vec<Vec<(DeviceId, usize)>>,
    groups: Vec<Group>,
    known_groups: BTreeMap<(u32, Vec<u32>), u32>,
    /// How long modes take, models aside.
    quotients: Loads,
    /// Whether devices that take different power are different.
    by_power: bool,
}

impl<'f> Builder<'f> {
    fn new(pipeline: &Pipeline, fleet: &'f Fleet, quotients: Loads, by_power: bool) -> Self {
        let resources = resource_names(pipeline);
        let devices = device_rooms(fleet, by_power);
        let mut on_node = vec![Vec::new(); fleet.nodes.len()];
        for (index, device) in (0..).zip(&fleet.devices) {
            on_node[device.node.index()].push(DeviceId(index));
        }
        let mut numbers = HashMap::new();
        let mut classes: Vec<Vec<NodeId>> = Vec::new();
        let mut nodes = Vec::with_capacity(fleet.nodes.len());
        for (index, node) in (0..).zip(&fleet.nodes) {
            let capacity: Vec<_> = resources.iter().map(|name| capacity(node, name)).collect();
            let inside = on_node[index as usize].iter().map(|id: &DeviceId| devices[id.index()]);
            let inside: Vec<_> = inside.map(|device: DeviceRoom| (device.class, device.spot)).collect();
            let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
            let class = *numbers.entry((capacity.clone(), node.speed, inside)).or_insert(next);
            if class == next {
                classes.push(Vec::new());
            }
            classes[class as usize].push(NodeId(index));
            nodes.push(NodeRoom { capacity, class });
        }
        let kinds_on = |nodes: &Vec<NodeId>| {
            let mut of_class: BTreeMap<u32, (DeviceId, usize)> = BTreeMap::new();
            for id in &on_node[nodes[0].index()] {
                of_class.entry(devices[id.index()].class).or_insert((*id, 0)).1 += 1;
            }
            of_class.into_values().collect()
        };
        let kinds_on = classes.iter().map(kinds_on).collect();
        let (groups, known_groups) = (Vec::new(), BTreeMap::new());
        Self { kinds_on, fleet, resources, nodes, devices, classes, on_node, groups, known_groups, quotients, by_power }
    }

    /// Returns what the tasks of a stage can choose between: modes that fit what is free now, or if there are none,
    /// those that fit once others have left the devices. Its first mode is the load matrix's `first_mode`.
    fn kind(&mut self, stage: &Stage, first_mode: usize) -> Kind {
        let now = self.choices(stage, first_mode, Device::usable_memory);
        if !now.is_empty() {
            return Kind { choices: now };
        }
        let mut choices = self.choices(stage, first_mode, Device::whole_memory);
        // It needs memory that others hold now, so nothing else of ours can be beside it.
        choices.iter_mut().for_each(|choice| (choice.per_device, choice.turn) = (DeviceNeed::Exclusive, None));
        Kind { choices }
    }

    fn choices(&mut self, stage: &Stage, first_mode: usize, memory: fn(&Device) -> Bytes) -> Vec<Choice> {
        let mut choices = Vec::new();
        let mut can_ever = false;
        let has_fallback = stage.modes.iter().any(|mode| mode.fallback);
        for (index, mode) in (0..).zip(&stage.modes) {
            if mode.fallback && can_ever {
                continue;
            }
            can_ever = false;
            for class in 0..self.classes.len() {
                let mode = (mode, first_mode + index as usize);
                can_ever |= has_fallback && self.holds(mode, class);
                self.choices_on(index, mode, class, memory, &mut choices);
            }
        }
        choices
    }

    /// Adds what a mode can choose between on the nodes of one class.
    fn choices_on(
        &mut self,
        index: u32,
        (mode, column): (&Mode, usize),
        class: usize,
        memory: fn(&Device) -> Bytes,
        choices: &mut Vec<Choice>,
    ) {
        let Some(need) = self.need(mode, class) else { return };
        let spend = self.fleet.budgets.keys().map(|name| mode.spend.get(name).copied().unwrap_or(0));
        let spend: Vec<_> = spend.collect();
        let held = &mode.resources;
        let per_device = |memory: Bytes| match held.gpus {
            Gpus::None => DeviceNeed::Part { memory: 0, share: 0 },
            // At least one byte, so that it keeps off a device that somebody has to himself.
            Gpus::Shared => DeviceNeed::Part { memory: memory.0.max(1), share: 0 },
            Gpus::Share(share) => DeviceNeed::Part { memory: memory.0, share: u64::from(share.0) },
            Gpus::Whole(_) => DeviceNeed::Exclusive,
        };
        let (gang, turn) = (gang(mode), held.turn().map(|share| u64::from(share.0)));
        let offers = self.offers((mode, column), class, memory);
        // There are many kinds of few choices each.
        choices.reserve_exact(offers.len());
        for Offer { load, memory, classes: device_classes } in offers {
            let is_for_one =
                |(room, device): (&DeviceRoom, &Device)| device.one_process && device_classes.contains(&room.class);
            let alone = gang > 0 && self.devices.iter().zip(&self.fleet.devices).any(is_for_one);
            let (per_device, turn) = if alone { (DeviceNeed::Exclusive, None) } else { (per_device(memory), turn) };
            let group = self.group(class, device_classes);
            let (need, spend) = (need.clone(), spend.clone());
            choices.push(Choice { mode: index, group, load, need, gang, per_device, spend, turn });
        }
    }

    /// Returns what a mode holds of a node, if nodes of a class have as much.
    fn need(&self, mode: &Mode, class: usize) -> Option<Arc<[u64]>> {
        let capacity = &self.nodes[self.classes[class][0].index()].capacity;
        let need: Arc<[u64]> = self.resources.iter().map(|name| asked(&mode.resources, name)).collect();
        need.iter().zip(capacity).all(|(need, capacity)| need <= capacity).then_some(need)
    }

    /// Whether a node of a class has all that a mode asks for while it idles.
    fn holds(&self, mode: (&Mode, usize), class: usize) -> bool {
        self.need(mode.0, class).is_some() && !self.offers(mode, class, Device::whole_memory).is_empty()
    }

    /// Returns what a class of nodes has for a mode, ascending by duration: the devices with exactly this load for one device,
    /// and for a gang also all faster ones, since the slowest counts.
    /// Where power counts, each for the devices of every power, and for a gang also for all that take less. Devices that let
    /// in one process at a time are apart from others, and for a part of a device's memory those with more from those with less.
    /// The mode comes with its column of the load matrix.
    fn offers(&self, (mode, column): (&Mode, usize), class: usize, memory: fn(&Device) -> Bytes) -> Vec<Offer> {
        let gang = gang(mode);
        let node = self.classes[class][0];
        if gang == 0 {
            let load = Load::divided(&mode.duration, self.quotients.on_node(node, column));
            return vec![Offer { load, memory: Bytes::ZERO, classes: Vec::new() }];
        }
        // By duration, power and memory: the classes of devices, and how many devices they are.
        let mut alike: Vec<(_, Offer, usize)> = Vec::new();
        for (id, count) in &self.kinds_on[class] {
            let device = &self.fleet.devices[id.index()];
            let wanted = wanted_memory(mode, device);
            if wanted <= memory(device) && device.can_join(gang) {
                let load = Load::on_model(&mode.duration, &device.model, self.quotients.on_device(*id, column));
                let held = if matches!(mode.resources.gpus, Gpus::Whole(_)) { Bytes::ZERO } else { wanted };
                let key = (load.time, power(device, self.by_power), device.one_process, held);
                let class = self.devices[id.index()].class;
                match alike.iter_mut().find(|(other, ..)| *other == key) {
                    Some((_, offer, devices)) => {
                        offer.classes.push(class);
                        *devices += count;
                    }
                    None => alike.push((key, Offer { load, memory: held, classes: vec![class] }, *count)),
                }
            }
        }
        alike.sort_unstable_by_key(|(key, ..)| *key);
        if gang == 1 {
            return alike.into_iter().map(|(_, offer, _)| offer).collect();
        }
        let powers: BTreeSet<u64> = alike.iter().map(|((_, power, ..), ..)| *power).collect();
        let mut offers: Vec<Offer> = Vec::new();
        for most in powers {
            let (mut all, mut count) = (BTreeSet::new(), 0);
            for (_, offer, more) in alike.iter().filter(|((_, power, ..), ..)| *power <= most) {
                all.extend(&offer.classes);
                count += more;
                let is_new = || offers.iter().all(|known| !known.classes.iter().eq(&all));
                if count >= gang as usize && is_new() {
                    offers.push(Offer { classes: all.iter().copied().collect(), ..*offer });
                }
            }
        }
        offers.sort_by_key(|offer| offer.load.time);
        offers
    }

    /// Returns the number of the group of a node class and device classes.
    fn group(&mut self, class: usize, device_classes: Vec<u32>) -> u32 {
        let next = u32::try_from(self.groups.len()).unwrap_or(u32::MAX);
        let key = (u32::try_from(class).unwrap_or(u32::MAX), device_classes);
        if let Some(known) = self.known_groups.get(&key) {
            return *known;
        }
        let wanted = |id: &DeviceId| key.1.contains(&self.devices[id.index()].class);
        let devices = |node: NodeId| self.on_node[node.index()].iter().copied().filter(wanted).collect();
        let members = self.classes[class].iter().map(|node| (*node, devices(*node))).collect();
        self.groups.push(Group { members });
        self.known_groups.insert(key, next);
        next
    }
}

/// What a class of nodes has for a mode: how long it takes there, what it holds of each device where it shares it, and the
/// classes of the devices.
struct Offer {
    load: Load,
    memory: Bytes,
    classes: Vec<u32>,
}

/// Names of the two amounts that every node has; custom resources follow them.
pub(super) const CPUS: &str = "CPUs";
pub(super) const HOST_MEMORY: &str = "host memory";

fn resource_names(pipeline: &Pipeline) -> Vec<String> {
    let modes = pipeline.stages.iter().flat_map(|stage| &stage.modes);
    let custom: BTreeSet<_> = modes.flat_map(|mode| mode.resources.custom.keys()).collect();
    let fixed = [CPUS, HOST_MEMORY].into_iter().map(str::to_owned);
    fixed.chain(custom.into_iter().cloned()).collect()
}

/// Returns what a node has of a resource, in the pipeline's units.
pub(super) fn capacity(node: &Node, resource: &str) -> u64 {
    match resource {
        CPUS => node.cpus.0,
        HOST_MEMORY => node.memory.0,
        custom => node.resources.get(custom).copied().unwrap_or(0),
    }
}

/// Returns what a mode holds of a resource, in the pipeline's units.
pub(super) fn asked(held: &Resources, resource: &str) -> u64 {
    match resource {
        CPUS => held.cpus.0,
        HOST_MEMORY => held.memory.0,
        custom => held.custom.get(custom).copied().unwrap_or(0),
    }
}

/// Returns how many devices a mode holds.
pub(super) const fn gang(mode: &Mode) -> u32 {
    match mode.resources.gpus {
        Gpus::None => 0,
        Gpus::Shared | Gpus::Share(_) => 1,
        Gpus::Whole(gang) => gang,
    }
}

/// Returns the memory that a mode needs of a device. Without a word about memory whoever wants whole devices wants all of it,
/// but for what may be the driver's own: as much as the headroom; and whoever wants a share wants as large a part of it.
#[must_use]
pub fn wanted_memory(mode: &Mode, device: &Device) -> Bytes {
    match mode.resources.gpus {
        Gpus::Whole(_) if mode.resources.gpu_memory == Bytes::ZERO => device.whole_memory() - device.headroom,
        Gpus::Share(share) if mode.resources.gpu_memory == Bytes::ZERO => share.of(device.whole_memory()),
        Gpus::None | Gpus::Whole(_) | Gpus::Share(_) | Gpus::Shared => mode.resources.gpu_memory,
    }
}

/// Returns what a device takes in use beyond what it takes idle, in watts; nothing where power doesn't count.
fn power(device: &Device, counts: bool) -> u64 {
    let watts = device.watts.filter(|_| counts);
    watts.map_or(0, |(idle, active)| active.saturating_sub(idle))
}

fn device_rooms(fleet: &Fleet, by_power: bool) -> Vec<DeviceRoom> {
    let mut spots: BTreeMap<NodeId, Vec<Spot>> = BTreeMap::new();
    fleet.devices.iter().for_each(|device| spots.entry(device.node).or_default().push(device.spot));
    let on_node = |node: NodeId| spots.get(&node).map_or(&[][..], Vec::as_slice);
    let mut numbers = HashMap::new();
    let mut room = |device: &Device| {
        let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
        let memory = device.usable_memory();
        let kind =
            (device.model.clone(), device.is_mig(), device.one_process, power(device, by_power), device.headroom);
        let class = *numbers.entry((kind, memory, device.whole_memory(), device.speed)).or_insert(next);
        DeviceRoom {
            node: device.node,
            memory,
            class,
            spot: device.spot,
            beside: near::beside(device.spot, on_node(device.node)),
            watts: device.watts.unwrap_or_default(),
        }
    };
    fleet.devices.iter().map(&mut room).collect()
}

/// `[n_nodes * n_nodes]`, or empty where no link is declared; the fastest of several links between two nodes counts.
fn bandwidths(fleet: &Fleet) -> Vec<Option<crate::units::Bandwidth>> {
    let n = fleet.nodes.len();
    if fleet.links.is_empty() {
        return Vec::new();
    }
    let mut table = vec![None; n * n];
    for link in &fleet.links {
        let (a, b) = (link.between.0.index(), link.between.1.index());
        for entry in [a * n + b, b * n + a] {
            table[entry] = table[entry].max(Some(link.bandwidth));
        }
    }
    table
}
