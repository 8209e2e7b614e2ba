//! What may start now: the ledger of what we have promised to running tasks, and the rule that admits another one.
//!
//! A device admits a request only if, for a live reading,
//!
//! ```text
//! free − Σ over our running tasks (reserved − measured, where still below) − headroom ≥ request
//! ```
//!
//! so memory that is promised but not yet allocated counts, memory that others hold counts, and memory that is
//! released late is waited for. Where nobody reads a device, its capacity less our reservations takes the place of
//! `free`. Pure: readings and `now` are arguments. Does not know processes, nor what NVML is.

use std::collections::BTreeMap;

use crate::fleet::{Device, DeviceId, Fleet, NodeId};
use crate::graph::TaskId;
use crate::run::event::Role;
use crate::spec::{Gpus, Resources};
use crate::units::{Bytes, Cpus, Millis, Share};

mod book;
mod choose;
mod hidden;
mod keep;
mod lent;
mod others;
mod outlook;
mod reading;
mod refusal;
#[cfg(test)]
mod tests;

use book::Book;
use choose::Candidate;
use lent::Loan;

pub use others::{Held, HeldBy, Holding, granted, is_other, other_task};
pub use outlook::{Denied, Outlook};
pub use reading::{Live, Readings, Seen};
pub use refusal::{Refusal, Short, Why};

/// Readings that have been there for longer than this say nothing about what is free now: five readings at one a second were
/// missed.
pub const FRESH: Millis = Millis(5_000);

/// Where the driver is always slow, its readings count as new when they arrive, if they took no longer than this: a driver that
/// takes minutes is about to fail. What our own tasks were promised since the question was asked is counted on top. A stranger
/// may have come meanwhile: the next reading shows that, and a task that has taken no memory yet makes room.
const SLOWEST: Millis = Millis(60_000);

/// What others held within this time before the last reading is not given out: they may be back at once, as a program
/// that is started again and again is.
const LATELY: Millis = Millis(3_000);

/// After this time a driver shows as free what a task held that has ended; lags of up to a few seconds were reported.
/// Matters only where the driver hides processes; elsewhere what has ended is seen to be nobody's.
pub const SETTLED: Millis = Millis(10_000);

/// Of all that tasks could have of a device, a desktop holds one part in so many at most.
const LITTLE: u64 = 4;

/// Returns how much of a device's memory a desktop may hold that is put up with.
#[must_use]
pub const fn little(whole: Bytes) -> Bytes {
    Bytes(whole.0 / LITTLE)
}

/// Returns the most of each of its devices that a request can get which does not want all of their memory: less than all
/// where a desktop, or its driver, held some when they were probed. Whoever held more than those do leaves again.
#[must_use]
pub fn most_of_each(fleet: &Fleet, gpus: Gpus) -> Bytes {
    let gang = if let Gpus::Whole(gang) = gpus { gang } else { 1 };
    let most = |device: &Device| {
        let (whole, desktops) = (device.whole_memory(), little(device.whole_memory()));
        if device.in_use() <= desktops { whole - device.in_use() } else { whole }
    };
    let mut each: Vec<Bytes> = fleet.devices.iter().filter(|device| device.can_join(gang)).map(most).collect();
    each.sort_unstable();
    each.into_iter().rev().nth((gang as usize).saturating_sub(1)).unwrap_or_default()
}

/// What an admitted task holds until it is released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The host.
    pub node: NodeId,
    /// The devices, ascending; empty for a task on the host.
    pub devices: Vec<DeviceId>,
    /// Memory that is reserved on each of them; zero where the request named none.
    pub gpu_memory: Bytes,
}

/// Capacities, and what of them is promised to whom.
#[derive(Clone, Debug)]
pub struct Ledger {
    hosts: Vec<Host>,
    /// `[n_devices]`, by DeviceId.
    books: Vec<Book>,
    /// By task and which of its attempts: two of them never hold the same device.
    held: BTreeMap<(TaskId, Role), (Grant, Resources)>,
    /// Those among them that belong to other runs, and what people call the run.
    others: BTreeMap<TaskId, String>,
    /// What tasks let runs within them have.
    lent: Vec<Loan>,
    /// How often room was looked for.
    #[cfg(test)]
    pub asked: std::cell::Cell<u64>,
}

/// What a node has, and how much of it is promised.
#[derive(Clone, Debug)]
struct Host {
    cpus: Cpus,
    memory: Bytes,
    custom: BTreeMap<String, u64>,
    cpus_held: Cpus,
    memory_held: Bytes,
    custom_held: BTreeMap<String, u64>,
    devices: Vec<DeviceId>,
}

impl Ledger {
    /// Opens a ledger in which nothing is promised.
    #[must_use]
    pub fn new(fleet: &Fleet) -> Self {
        let books: Vec<_> = fleet.devices.iter().map(Book::new).collect();
        let ids = |node| (0..).map(DeviceId).zip(&fleet.devices).filter(move |(_, device)| device.node == node);
        let hosts = (0..).map(NodeId).zip(&fleet.nodes).map(|(id, node)| Host {
            cpus: node.cpus,
            memory: node.memory,
            custom: node.resources.clone(),
            cpus_held: Cpus::ZERO,
            memory_held: Bytes::ZERO,
            custom_held: BTreeMap::new(),
            devices: ids(id).map(|(device, _)| device).collect(),
        });
        Self {
            hosts: hosts.collect(),
            books,
            held: BTreeMap::new(),
            others: BTreeMap::new(),
            lent: Vec::new(),
            #[cfg(test)]
            asked: std::cell::Cell::default(),
        }
    }

    /// Returns what a running task holds.
    #[must_use]
    pub fn grant(&self, task: TaskId) -> Option<&Grant> {
        let of = |role| self.held.get(&(task, role));
        of(Role::Main).or_else(|| of(Role::Backup)).map(|(grant, _)| grant)
    }

    /// Returns the memory of a device that is promised to running tasks, whether they have taken it or not.
    #[must_use]
    pub fn reserved(&self, device: DeviceId) -> Bytes {
        self.books[device.index()].reserved()
    }

    /// Returns who takes turns at a device, each with its share, and what all of them have together.
    #[must_use]
    pub fn turns(&self, device: DeviceId) -> (Share, Vec<(TaskId, Share)>) {
        let book = &self.books[device.index()];
        (book.room_for_turns(), book.turns.iter().map(|(task, share)| (*task, *share)).collect())
    }

    /// Whether the request could ever be met, were all of the fleet ours and empty, but for devices that cannot be used.
    ///
    /// # Errors
    /// If not: what every node and device is short of.
    pub fn possible(&self, request: &Resources) -> Result<(), Refusal> {
        self.possible_without(Book::is_unfit, request)
    }

    /// Whether the request could ever be met, also by devices that cannot be used for now.
    #[must_use]
    pub fn is_within_reach(&self, request: &Resources) -> bool {
        self.reach(request).is_ok()
    }

    /// The same, as a result.
    ///
    /// # Errors
    /// If not: what every node and device is short of.
    pub fn reach(&self, request: &Resources) -> Result<(), Refusal> {
        self.possible_without(|_| false, request)
    }

    fn possible_without(&self, without: impl Fn(&Book) -> bool, request: &Resources) -> Result<(), Refusal> {
        let mut empty = self.clone();
        for (task, role) in self.held.keys() {
            empty.release_as(*role, *task, Millis::ZERO);
        }
        for book in &mut empty.books {
            book.forget_strangers();
        }
        let mut readings = Readings::unwatched(empty.books.len());
        for (live, _) in readings.devices.iter_mut().zip(&empty.books).filter(|(_, book)| without(book)) {
            *live = Live::Fault { fault: "not to be used".to_owned(), ends_tasks: false, until: "" };
        }
        empty
            .choose(request, None, &[], &readings, Millis::ZERO)
            .map(|_| ())
            .map_err(|refusal| Refusal { never: true, ..refusal })
    }

    /// Whether the request would be admitted now.
    pub fn has_room(&mut self, request: &Resources, readings: &Readings, now: Millis) -> bool {
        self.observe(readings);
        self.could_admit(request, readings, now).is_ok()
    }

    /// The same, by what was last observed.
    ///
    /// # Errors
    /// If not: what every node and device is short of.
    pub fn could_admit(&self, request: &Resources, readings: &Readings, now: Millis) -> Result<(), Refusal> {
        self.choose(request, None, &[], readings, now).map(|_| ())
    }

    /// Whether every node has too little for a request, whatever its devices have.
    #[must_use]
    pub fn all_lack(&self, request: &Resources) -> bool {
        self.hosts.iter().all(|host| host.shorts(request).next().is_some())
    }

    /// Learns from readings what others hold.
    pub fn observe(&mut self, readings: &Readings) {
        for (device, book) in self.books.iter_mut().enumerate() {
            book.observe(readings.of(device), readings.at);
        }
    }

    /// Admits a task: on the intended devices if they have room, else where it fits best.
    ///
    /// `readings` may be old; `now` counts from the same instant as their time and says how old.
    ///
    /// # Errors
    /// If it has to wait: what every node and device is short of. Nothing is promised then.
    pub fn try_admit(
        &mut self,
        task: TaskId,
        request: &Resources,
        intended: Option<(NodeId, &[DeviceId])>,
        readings: &Readings,
        now: Millis,
    ) -> Result<Grant, Refusal> {
        let admitted = self.try_admit_where((task, request), intended, readings, now, &mut |_| true);
        admitted.map_err(|denied| match denied {
            Denied::Room(refusal) => refusal,
            Denied::Held => Refusal::new(request),
        })
    }

    /// Enters a task that runs already, on these devices of a node, whether or not there is room for it.
    pub fn enter(&mut self, task: TaskId, request: &Resources, node: NodeId, devices: Vec<DeviceId>) {
        self.enter_as(Role::Main, task, request, node, devices);
    }

    /// Enters one of a task's attempts.
    pub fn enter_as(&mut self, role: Role, task: TaskId, request: &Resources, node: NodeId, devices: Vec<DeviceId>) {
        let grant = self.grant_in(node, devices, request);
        self.hold((task, role), request, &grant);
    }

    /// Takes back what a task held, all its processes having ended. A task that holds nothing is ignored.
    pub fn release(&mut self, task: TaskId, now: Millis) {
        self.release_as(Role::Main, task, now);
    }

    /// Takes back what one of a task's attempts held.
    pub fn release_as(&mut self, role: Role, task: TaskId, now: Millis) {
        self.take_back(Some((task, role)));
        let Some((grant, request)) = self.held.remove(&(task, role)) else { return };
        self.hosts[grant.node.index()].release(&request);
        for device in grant.devices {
            self.books[device.index()].release(task, &request, now);
        }
    }

    fn choose(
        &self,
        request: &Resources,
        intended: Option<(NodeId, &[DeviceId])>,
        avoided: &[DeviceId],
        readings: &Readings,
        now: Millis,
    ) -> Result<Candidate, Refusal> {
        #[cfg(test)]
        self.asked.set(self.asked.get() + 1);
        let mut refusal = Refusal::new(request);
        let beside = self.puts_up_with_little(request, readings);
        let mut best: Option<Candidate> = None;
        for (node, host) in (0..).map(NodeId).zip(&self.hosts) {
            let known = refusal.hosts.len();
            refusal.hosts.extend(host.shorts(request).map(|short| (node, short)));
            let fits_host = refusal.hosts.len() == known;
            let mut rooms = self.rooms(host, (request, beside), readings, now, &mut refusal);
            rooms.retain(|room| !avoided.contains(&room.device));
            if !fits_host {
                continue;
            }
            let wish = intended.filter(|(wished, _)| *wished == node).map(|(_, devices)| devices);
            let Some(candidate) = choose::devices(node, &rooms, request.gpus, wish) else { continue };
            if best.as_ref().is_none_or(|best| candidate.cost < best.cost) {
                best = Some(candidate);
            }
        }
        best.ok_or(refusal)
    }

    /// Whether a request that wants all of a device's memory puts up with strangers who hold little of it: where they hold
    /// some of so many devices that it could nowhere be alone, whichever of our own tasks end, as a desktop does. A device
    /// that has less than another one beside its desktop is not waited for.
    fn puts_up_with_little(&self, request: &Resources, readings: &Readings) -> bool {
        if !request.wants_all_memory() {
            return false;
        }
        let gang = match request.gpus {
            Gpus::Whole(gang) => gang as usize,
            Gpus::None | Gpus::Shared | Gpus::Share(_) => 1,
        };
        let beside = |(device, book): (usize, &Book)| book.left_by_desktop(readings.of(device), readings.at);
        let most = self.books.iter().enumerate().filter_map(beside).max().unwrap_or_default();
        let could_be_alone = |device: &&DeviceId| {
            let book = &self.books[device.index()];
            book.whole() >= most && book.could_be_alone(request, readings.of(device.index()))
        };
        let has_enough = |host: &Host| host.devices.iter().filter(could_be_alone).count() >= gang;
        !self.hosts.iter().any(has_enough)
    }

    /// Returns the devices of a host that have room for the request; notes why the others do not.
    fn rooms(
        &self,
        host: &Host,
        (request, beside): (&Resources, bool),
        readings: &Readings,
        now: Millis,
        refusal: &mut Refusal,
    ) -> Vec<choose::Room> {
        if request.gpus == Gpus::None {
            return Vec::new();
        }
        let (mut rooms, mut kept) = (Vec::new(), None);
        for device in &host.devices {
            let book = &self.books[device.index()];
            match book.room(request, (readings, device.index()), now, beside) {
                Ok(left) => {
                    let busy = book.busy.map_or(0, |busy| busy.times);
                    rooms.push(choose::Room { device: *device, spot: book.spot(), left, busy });
                }
                Err(why) => {
                    let most = book.most_beside_driver(request, readings.of(device.index()), &why);
                    if most.is_some_and(|most| kept.is_none_or(|before| most > before)) {
                        (kept, refusal.kept) = (most, Some(*device));
                    }
                    refusal.devices.push((*device, why));
                }
            }
        }
        rooms
    }
}

impl Host {
    /// Yields everything of the node that the request finds too little of.
    fn shorts(&self, request: &Resources) -> impl Iterator<Item = Short> {
        let (cpus, memory) = (self.cpus - self.cpus_held, self.memory - self.memory_held);
        let of_cpus = (request.cpus > cpus).then_some(Short::Cpus { left: cpus, all: self.cpus });
        let of_memory = (request.memory > memory).then_some(Short::Memory { left: memory, all: self.memory });
        let of_custom = request.custom.iter().filter_map(|(name, need)| {
            let all = self.custom.get(name).copied().unwrap_or(0);
            let left = all.saturating_sub(self.custom_held.get(name).copied().unwrap_or(0));
            (*need > left).then(|| Short::Custom { name: name.clone(), need: *need, left, all })
        });
        of_cpus.into_iter().chain(of_memory).chain(of_custom)
    }

    fn hold(&mut self, request: &Resources) {
        self.cpus_held += request.cpus;
        self.memory_held += request.memory;
        for (name, need) in &request.custom {
            *self.custom_held.entry(name.clone()).or_default() += need;
        }
    }

    fn release(&mut self, request: &Resources) {
        self.cpus_held -= request.cpus;
        self.memory_held -= request.memory;
        for (name, need) in &request.custom {
            if let Some(held) = self.custom_held.get_mut(name) {
                *held = held.saturating_sub(*need);
            }
        }
    }
}
