//! Two and three runs with a ledger each that are told of each other: together they never promise more than there is.

use proptest::prelude::*;

use super::*;
use crate::fleet::{Device, Node};
use crate::run::admission::{Live, Readings, Seen};

const GIB: u64 = 1 << 30;
const CARD: u64 = 24;

fn fleet() -> Fleet {
    let node = Node {
        name: "box".into(),
        cpus: Cpus(8_000),
        memory: Bytes(64 * GIB),
        resources: BTreeMap::from([("licenses".to_owned(), 3)]),
        ..Node::default()
    };
    let device = |n: u32| Device { id: format!("box/gpu{n}"), memory: Bytes(CARD * GIB), ..Device::default() };
    Fleet { nodes: vec![node], devices: (0..3).map(device).collect(), ..Fleet::default() }
}

/// A run with its own ledger.
struct Run {
    id: String,
    ledger: Ledger,
    next: u32,
}

/// What all runs have on record: the place of every attempt that has not ended, by run and task.
type Record = BTreeMap<(usize, u32), Place>;

struct World {
    fleet: Fleet,
    runs: Vec<Run>,
    record: Record,
    now: Millis,
}

#[derive(Clone, Debug)]
enum Happens {
    /// A run that has read the record admits what fits of these.
    Turn(usize, Vec<Resources>),
    /// A task of a run ends.
    Ended(usize, usize),
    /// A run is killed, with its tasks, and another takes its number.
    Killed(usize),
}

fn request() -> impl Strategy<Value = Resources> {
    let gpus = prop_oneof![
        3 => Just(Gpus::None),
        3 => Just(Gpus::Shared),
        1 => (1..3_u32).prop_map(Gpus::Whole),
        2 => (1..10_u32).prop_map(|tenths| Gpus::Share(Share(tenths * 100_000))),
    ];
    (gpus, 0..5_000_u64, 0..40_u64, 1..20_u64, 0..3_u64).prop_map(|(gpus, cpus, memory, gpu_memory, licenses)| {
        Resources {
            cpus: Cpus(cpus),
            memory: Bytes(memory * GIB),
            gpus,
            alone: false,
            gpu_memory: if gpus == Gpus::None { Bytes::ZERO } else { Bytes(gpu_memory * GIB) },
            custom: if licenses > 0 { BTreeMap::from([("licenses".to_owned(), licenses)]) } else { BTreeMap::new() },
            suspend: false,
        }
    })
}

fn happenings(runs: usize) -> impl Strategy<Value = Vec<Happens>> {
    let one = prop_oneof![
        6 => (0..runs, prop::collection::vec(request(), 1..4)).prop_map(|(run, asked)| Happens::Turn(run, asked)),
        4 => (0..runs, 0..9_usize).prop_map(|(run, nth)| Happens::Ended(run, nth)),
        1 => (0..runs).prop_map(Happens::Killed),
    ];
    prop::collection::vec(one, 1..80)
}

impl World {
    fn new(runs: usize) -> Self {
        let fleet = fleet();
        let runs = (0..runs).map(|n| Run { id: format!("r{n}"), ledger: Ledger::new(&fleet), next: 0 }).collect();
        Self { fleet, runs, record: Record::new(), now: Millis::ZERO }
    }

    /// Tells a run what others have on record.
    fn tell(&mut self, run: usize) {
        let of_others = self.record.iter().filter(|((of, _), _)| *of != run);
        let holdings: Vec<Holding> = of_others
            .map(|((of, task), place)| Holding {
                run: self.runs[*of].id.clone(),
                called: format!("the {of}."),
                task: format!("t{task}"),
                attempt: 1,
                place: place.clone(),
                writes: Vec::new(),
                within: Within::default(),
            })
            .collect();
        self.runs[run].ledger.others_hold(&self.fleet, &holdings, |_| None, self.now);
    }

    fn happens(&mut self, what: &Happens) {
        self.now += Millis(1);
        match what {
            Happens::Turn(run, asked) => {
                self.tell(*run);
                asked.iter().for_each(|request| self.ask(*run, request));
            }
            Happens::Ended(run, nth) => {
                let mut own = self.record.keys().filter(|(of, _)| of == run).copied();
                if let Some(ended) = own.nth(*nth) {
                    self.record.remove(&ended);
                    self.runs[*run].ledger.release(TaskId(ended.1), self.now);
                }
            }
            Happens::Killed(run) => {
                self.record.retain(|(of, _), _| of != run);
                self.runs[*run].ledger = Ledger::new(&self.fleet);
            }
        }
        self.check();
    }

    fn ask(&mut self, run: usize, request: &Resources) {
        let Run { ledger, next, .. } = &mut self.runs[run];
        let task = TaskId(*next);
        match ledger.try_admit(task, request, None, &Readings::unwatched(3), self.now) {
            Ok(grant) => {
                *next += 1;
                let devices =
                    grant.devices.iter().map(|device| self.fleet.devices[device.index()].id.clone()).collect();
                let place = Place {
                    node: "box".into(),
                    devices,
                    gpu_memory: grant.gpu_memory,
                    memory: request.memory,
                    cpus: request.cpus,
                    share: request.gpus.share(),
                    custom: request.custom.clone(),
                    ..Place::default()
                };
                self.record.insert((run, task.0), place);
            }
            Err(refusal) => {
                let others = self.record.keys().any(|(of, _)| *of != run);
                assert!(others || ledger.held_by_others(&refusal).is_empty(), "nobody else holds anything");
            }
        }
    }

    /// Adds up what everyone was promised, knowing nothing of ledgers.
    fn check(&self) {
        let places = || self.record.values();
        assert!(places().map(|place| place.cpus).sum::<Cpus>() <= Cpus(8_000), "CPUs");
        assert!(places().map(|place| place.memory).sum::<Bytes>() <= Bytes(64 * GIB), "memory");
        assert!(places().flat_map(|place| place.custom.get("licenses")).sum::<u64>() <= 3, "licenses");
        for device in &self.fleet.devices {
            let on: Vec<&Place> = places().filter(|place| place.devices.contains(&device.id)).collect();
            assert!(on.iter().map(|place| place.gpu_memory).sum::<Bytes>() <= Bytes(CARD * GIB), "memory of a device");
            assert!(on.iter().map(|place| place.share).sum::<Share>() <= Share::WHOLE, "shares of a device");
            assert!(on.len() < 2 || on.iter().all(|place| place.share != Share::WHOLE), "a device to itself");
        }
    }
}

proptest! {
    #[test]
    fn two_runs_never_promise_more_than_there_is(events in happenings(2)) {
        let mut world = World::new(2);
        events.iter().for_each(|event| world.happens(event));
    }

    #[test]
    fn three_runs_never_promise_more_than_there_is_and_leave_all_of_it(events in happenings(3)) {
        let mut world = World::new(3);
        events.iter().for_each(|event| world.happens(event));
        // Who is left alone has all of it.
        world.happens(&Happens::Killed(1));
        world.happens(&Happens::Killed(2));
        while world.record.keys().any(|(run, _)| *run == 0) {
            world.happens(&Happens::Ended(0, 0));
        }
        let all = Resources {
            cpus: Cpus(8_000),
            memory: Bytes(64 * GIB),
            gpus: Gpus::Whole(3),
            alone: false,
            gpu_memory: Bytes::ZERO,
            custom: BTreeMap::from([("licenses".to_owned(), 3)]),
            suspend: false,
        };
        world.happens(&Happens::Turn(0, vec![all]));
        prop_assert_eq!(world.record.len(), 1);
    }
}

fn holding(run: &str, task: &str, place: Place) -> Holding {
    let place = Place { node: if run == "elsewhere" { "other" } else { "box" }.into(), ..place };
    Holding { run: run.into(), called: format!("{run}-called"), task: task.into(), place, ..Holding::default() }
}

fn refused(ledger: &mut Ledger, request: &Resources) -> String {
    let refusal = ledger.try_admit(TaskId(0), request, None, &Readings::unwatched(3), Millis(1)).unwrap_err();
    let held = ledger.held_by_others(&refusal).into_iter();
    let held: Vec<String> = held.map(|by| format!("{}: {}", by.run, by.words(&fleet()))).collect();
    held.join("; ")
}

#[test]
fn who_waits_is_told_which_run_holds_what() {
    let fleet = fleet();
    let mut ledger = Ledger::new(&fleet);
    let on = |device: &str, gib: u64, share: Share| Place {
        devices: vec![device.to_owned()],
        gpu_memory: Bytes(gib * GIB),
        share,
        cpus: Cpus(3_000),
        ..Place::default()
    };
    let holdings = [
        holding("a", "x", on("box/gpu0", 20, Share::ZERO)),
        holding("a", "y", on("box/gpu1", 0, Share::WHOLE)),
        holding("b", "x", on("box/gpu2", 0, Share(700_000))),
        holding("elsewhere", "x", Place { cpus: Cpus(8_000), ..Place::default() }),
    ];
    ledger.others_hold(&fleet, &holdings, |_| None, Millis(0));
    let gpu = Resources { gpus: Gpus::Share(Share(500_000)), gpu_memory: Bytes(8 * GIB), ..Resources::default() };
    insta::assert_snapshot!(refused(&mut ledger, &gpu), @"a-called: 20.0 GiB of gpu0, all of gpu1; b-called: a share of 0.7 of gpu2");
    let cpus = Resources { cpus: Cpus(2_000), ..Resources::default() };
    insta::assert_snapshot!(refused(&mut ledger, &cpus), @"a-called: 6 CPUs; b-called: 3 CPUs");
    // What is given back can be had, and whoever gave it back is not named any more.
    ledger.others_hold(&fleet, &holdings[2..], |_| None, Millis(1));
    assert!(ledger.try_admit(TaskId(0), &gpu, None, &Readings::unwatched(3), Millis(2)).is_ok());
}

#[test]
fn what_a_task_of_another_run_has_taken_is_not_counted_twice() {
    let fleet = fleet();
    let mut ledger = Ledger::new(&fleet);
    let place = Place { devices: vec!["box/gpu0".to_owned()], gpu_memory: Bytes(20 * GIB), ..Place::default() };
    ledger.others_hold(&fleet, &[holding("a", "x", place)], |_| None, Millis(0));
    let held = Some(vec![(other_task("a", "x"), Bytes(15 * GIB))]);
    let seen = Seen { free: Bytes(9 * GIB), used: Bytes(15 * GIB), held, ..Seen::default() };
    let fault = || Live::Fault { fault: "drained".into(), ends_tasks: false, until: "" };
    let readings = Readings { at: Millis(5), devices: vec![Live::Seen(seen), fault(), fault()], ..Readings::default() };
    let shared = |gib: u64| Resources { gpus: Gpus::Shared, gpu_memory: Bytes(gib * GIB), ..Resources::default() };
    assert!(!ledger.has_room(&shared(5), &readings, Millis(6)), "9 GiB are free, 5 of them promised");
    assert!(ledger.has_room(&shared(4), &readings, Millis(6)));
    let moved = ledger.displaced(&readings, |_, _| Millis::ZERO, |_| false);
    assert_eq!(moved, [], "tasks of others are not ours to move");
}

/// What is held within what: each of these is within the one that its number names, if it names one before it.
type Tree = Vec<(usize, Resources)>;

fn tree() -> impl Strategy<Value = Tree> {
    prop::collection::vec((0..5_usize, request()), 1..6)
}

/// Returns which one each is within, and a place for each: devices from the first on.
fn places(tree: &Tree) -> (Vec<Option<usize>>, Vec<Place>) {
    let around = tree.iter().enumerate().map(|(at, (around, _))| (*around < at).then_some(*around)).collect();
    let place = |(_, of): &(usize, Resources)| {
        let count = match of.gpus {
            Gpus::None => 0,
            Gpus::Whole(count) => count,
            Gpus::Share(_) | Gpus::Shared => 1,
        };
        Place {
            node: "box".into(),
            devices: (0..count).map(|n| format!("box/gpu{n}")).collect(),
            gpu_memory: of.gpu_memory,
            share: of.gpus.share(),
            cpus: of.cpus,
            memory: of.memory,
            custom: of.custom.clone(),
            ..Place::default()
        }
    };
    (around, tree.iter().map(place).collect())
}

/// Returns how much of something all of them hold together: each as much as itself or as those within it.
fn together(around: &[Option<usize>], held: &[u64]) -> u64 {
    let mut within = vec![0; held.len() + 1];
    for at in (0..held.len()).rev() {
        let most = held[at].max(within[at]);
        within[around[at].unwrap_or(held.len())] += most;
    }
    within[held.len()]
}

/// Returns the holdings of all but the first, which is a task of the run itself if `own`.
fn holdings(around: &[Option<usize>], places: &[Place], own: bool) -> Vec<Holding> {
    let name = |at: usize| (format!("r{at}"), format!("t{at}"));
    let within = |at: usize| {
        let outwards: Vec<usize> = std::iter::successors(around[at], |at| around[*at]).collect();
        outwards.into_iter().rev().map(name).fold(Within::default(), |within, (run, task)| within.and(&run, &task, 1))
    };
    let all = places.iter().enumerate().skip(usize::from(own));
    all.map(|(at, place)| {
        let ((run, task), place, within) = (name(at), place.clone(), within(at));
        Holding { called: run.clone(), run, task, attempt: 1, place, within, ..Holding::default() }
    })
    .collect()
}

proptest! {
    #[test]
    fn what_is_held_within_a_task_is_not_held_twice(tree in tree(), own in any::<bool>(), then in 0..6_usize) {
        let fleet = fleet();
        let (around, places) = places(&tree);
        let mut ledger = Ledger::new(&fleet);
        if own {
            let devices = (0..places[0].devices.len() as u32).map(DeviceId).collect();
            ledger.enter(TaskId(0), &granted(&places[0]), NodeId(0), devices);
        }
        let of_own = |of: &Around| (own && of.run == "r0").then_some((TaskId(0), Role::Main));
        let all = holdings(&around, &places, own);
        ledger.others_hold(&fleet, &all, of_own, Millis(0));
        let sum = |of: &dyn Fn(&Place) -> u64| together(&around, &places.iter().map(of).collect::<Vec<_>>());
        let host = &ledger.hosts[0];
        prop_assert_eq!(host.cpus_held.0, sum(&|place| place.cpus.0));
        prop_assert_eq!(host.memory_held.0, sum(&|place| place.memory.0));
        let licenses = sum(&|place| place.custom.get("licenses").copied().unwrap_or(0));
        prop_assert_eq!(host.custom_held.get("licenses").copied().unwrap_or(0), licenses);
        for (device, book) in ledger.books.iter().enumerate() {
            let on = |place: &Place| place.devices.contains(&format!("box/gpu{device}"));
            let asked = |place: &Place| if on(place) { book.asked(&granted(place)).0 } else { 0 };
            prop_assert_eq!(book.reserved().0, sum(&asked));
            let share = |place: &Place| if on(place) { u64::from(place.share.0) } else { 0 };
            prop_assert_eq!(u64::from(book.shares.0), sum(&share));
        }
        // Some of them end, in whatever order, and at last all.
        let rest: Vec<Holding> = all.iter().take(then).cloned().collect();
        if own && then % 2 == 0 {
            ledger.release(TaskId(0), Millis(1));
        }
        ledger.others_hold(&fleet, &rest, of_own, Millis(2));
        ledger.release(TaskId(0), Millis(3));
        ledger.others_hold(&fleet, &[], of_own, Millis(4));
        let host = &ledger.hosts[0];
        prop_assert_eq!((host.cpus_held, host.memory_held), (Cpus::ZERO, Bytes::ZERO));
        prop_assert_eq!(host.custom_held.values().sum::<u64>(), 0);
        prop_assert!(ledger.books.iter().all(|book| book.reserved() == Bytes::ZERO && book.shares == Share::ZERO));
    }
}

#[test]
fn who_has_a_device_to_himself_is_not_short_by_what_runs_within_him() {
    let fleet = fleet();
    let mut ledger = Ledger::new(&fleet);
    let whole = Resources { gpus: Gpus::Whole(1), ..Resources::default() };
    ledger.enter(TaskId(0), &whole, NodeId(0), vec![DeviceId(0)]);
    let reading = |at: u64, used: u64| {
        let held = Some(if used > 0 { vec![(other_task("a", "n"), Bytes(used * GIB))] } else { Vec::new() });
        let seen = Seen { free: Bytes((CARD - used) * GIB), used: Bytes(used * GIB), held, ..Seen::default() };
        let fault = || Live::Fault { fault: "drained".into(), ends_tasks: false, until: "" };
        Readings { at: Millis(at), devices: vec![Live::Seen(seen), fault(), fault()], ..Readings::default() }
    };
    ledger.observe(&reading(1, 0));
    let place = Place { devices: vec!["box/gpu0".to_owned()], gpu_memory: Bytes(12 * GIB), ..Place::default() };
    let within = Within::default().and("own", "t", 1);
    let own = |of: &Around| (of.run == "own").then_some((TaskId(0), Role::Main));
    ledger.others_hold(&fleet, &[Holding { within, ..holding("a", "n", place) }], own, Millis(2));
    for at in 3..9 {
        assert_eq!(ledger.displaced(&reading(at, 2 * (at - 3)), |_, _| Millis(0), |_| false), []);
    }
    ledger.others_hold(&fleet, &[], own, Millis(9));
    assert_eq!(ledger.puts_up_with(DeviceId(0)), Bytes::ZERO, "what was lent is taken back");
}
