//! The property that matters: whatever happens in between, our own promises never exceed a device.

use super::*;

/// What may happen on a machine between two decisions.
#[derive(Clone, Debug)]
enum Happens {
    Asked(u64),
    Opened(usize),
    Allocated(usize, u64),
    Freed(usize),
    Ended(usize),
    StrangerTook(u64),
    StrangerLeft,
    ReadProcesses,
    ReadMemory,
    Passed(u64),
}

fn happenings() -> impl Strategy<Value = Vec<Happens>> {
    let one = prop_oneof![
        5 => (1..60_u64).prop_map(Happens::Asked),
        5 => (0..8_usize, 1..40_u64).prop_map(|(task, bytes)| Happens::Allocated(task, bytes)),
        2 => (0..8_usize).prop_map(Happens::Freed),
        2 => (0..8_usize).prop_map(Happens::Ended),
        2 => (0..8_usize).prop_map(Happens::Opened),
        1 => (1..50_u64).prop_map(Happens::StrangerTook),
        1 => Just(Happens::StrangerLeft),
        4 => Just(Happens::ReadProcesses),
        4 => Just(Happens::ReadMemory),
        3 => (1..3_000_u64).prop_map(Happens::Passed),
    ];
    prop::collection::vec(one, 1..120)
}

/// A card of 100 GiB as it really is, beside the ledger that only knows readings.
struct World {
    ledger: Ledger,
    now: Millis,
    next: u32,
    tasks: BTreeMap<TaskId, Running>,
    /// Taken by tasks that ended and not yet given back by the driver, and when each ended.
    lagging: Vec<(Millis, u64)>,
    stranger: u64,
    /// What strangers took since the memory was last read.
    unseen: u64,
    /// What of strangers looks like a task's, processes being hidden: it came while one had a device open, was admitted in
    /// the middle of a reading, or had ended a moment ago.
    mistaken: u64,
    /// What each task held and whether it had the device open when processes were read.
    processes: (Millis, Vec<(TaskId, Running)>),
    readings: Readings,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    promised: u64,
    taken: u64,
    open: bool,
}

/// What a driver shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Lists,
    Hides,
    /// It hides processes, and a stranger is there from the beginning to the end.
    HidesBesideStrangers,
}

/// What the stranger holds that stays.
const RESIDENT: u64 = 3;

const CARD: u64 = 100;

impl World {
    fn new(kind: Kind) -> Self {
        let stranger = if kind == Kind::HidesBesideStrangers { RESIDENT } else { 0 };
        let mut world = Self {
            ledger: Ledger::new(&fleet(&[CARD], &[])),
            now: Millis(1),
            next: 0,
            tasks: BTreeMap::new(),
            lagging: Vec::new(),
            stranger,
            unseen: 0,
            mistaken: 0,
            processes: (Millis::ZERO, Vec::new()),
            readings: readings(0, vec![seen(CARD, 0, &[])]),
            kind,
        };
        world.happens(&Happens::ReadProcesses);
        world.happens(&Happens::ReadMemory);
        world
    }

    /// Whether processes were read and memory not yet.
    fn is_reading(&self) -> bool {
        self.processes.0 > self.readings.at
    }

    fn late(&self) -> u64 {
        self.lagging.iter().map(|(_, taken)| taken).sum()
    }

    fn taken(&self) -> u64 {
        self.tasks.values().map(|task| task.taken).sum::<u64>() + self.late() + self.stranger
    }

    fn nth(&mut self, n: usize) -> Option<&mut Running> {
        let n = n % self.tasks.len().max(1);
        self.tasks.values_mut().nth(n)
    }

    fn happens(&mut self, what: &Happens) {
        self.now += Millis(1);
        let now = self.now;
        self.lagging.retain(|(ended, _)| now - *ended < SETTLED);
        match what {
            Happens::Asked(need) => self.ask(*need),
            Happens::Opened(n) => {
                let Some(task) = self.nth(*n) else { return };
                task.open = true;
                // What came since the last reading came before nobody knows what.
                self.mistaken += self.unseen;
            }
            Happens::Allocated(n, bytes) => {
                let free = CARD - self.taken();
                let Some(task) = self.nth(*n).filter(|task| task.open) else { return };
                task.taken += (*bytes).min(task.promised - task.taken).min(free);
            }
            // What a task gives back between the two calls of one reading, microseconds apart, is for the headroom.
            Happens::Freed(_) if self.is_reading() => {}
            Happens::Freed(n) => {
                if let Some(task) = self.nth(*n) {
                    (task.taken, task.open) = (0, false);
                }
            }
            Happens::Ended(n) => {
                let Some(task) = self.tasks.keys().nth(n % self.tasks.len().max(1)).copied() else { return };
                let taken = self.tasks.remove(&task).map_or(0, |task| task.taken);
                self.lagging.push((now, taken));
                self.ledger.release(task, now);
            }
            Happens::StrangerTook(bytes) => {
                let took = (*bytes).min(CARD - self.taken());
                self.stranger += took;
                self.unseen += took;
                if self.tasks.values().any(|task| task.open) {
                    self.mistaken += took;
                }
            }
            Happens::StrangerLeft => {
                self.stranger = if self.kind == Kind::HidesBesideStrangers { RESIDENT } else { 0 };
            }
            Happens::ReadProcesses => {
                self.processes = (now, self.tasks.iter().map(|(id, task)| (*id, *task)).collect());
            }
            Happens::ReadMemory if !self.is_reading() => {}
            Happens::ReadMemory => {
                let (at, listed) = self.processes.clone();
                let is_new = |task: &TaskId| !listed.iter().any(|(other, _)| other == task);
                let is_leaving = self.lagging.iter().any(|(ended, _)| at - *ended <= SETTLED);
                if is_leaving || self.tasks.keys().any(is_new) {
                    self.mistaken += self.unseen;
                }
                let used = gib(self.taken());
                let (held, nobodys) = match self.kind {
                    Kind::Lists => {
                        let held = listed.iter().map(|(id, task)| (*id, gib(task.taken)));
                        (Some(held.collect()), gib(self.late()))
                    }
                    Kind::Hides | Kind::HidesBesideStrangers => (None, used),
                };
                let live = Live::Seen(Seen { free: gib(CARD) - used, used, held, nobodys, ..Seen::default() });
                let opened: Vec<_> = listed.iter().map(|(id, task)| (*id, task.open)).collect();
                self.readings = Readings { at, devices: vec![live], ..Readings::default() }.with_opened(&opened);
                self.ledger.observe(&self.readings);
                self.unseen = 0;
            }
            Happens::Passed(ms) => self.now += Millis(*ms),
        }
    }

    fn ask(&mut self, need: u64) {
        // Few ids, so that many are tried again.
        let Some(task) = (0..12).map(|n| TaskId((self.next + n) % 12)).find(|task| !self.tasks.contains_key(task))
        else {
            return;
        };
        if self.ledger.try_admit(task, &shared(need), None, &self.readings, self.now).is_err() {
            return;
        }
        self.next += 1;
        self.tasks.insert(task, Running { promised: need, taken: 0, open: false });
        let promised: u64 = self.tasks.values().map(|task| task.promised).sum();
        // What a stranger took after the reading could not be known.
        let known = promised + self.late() + self.stranger - self.unseen.min(self.stranger);
        let passes_for_ours = if self.kind == Kind::Hides { self.mistaken } else { 0 };
        assert!(known < CARD + passes_for_ours, "{known} GiB of {CARD} promised or held, with 1 GiB of headroom");
    }
}

proptest! {
    #[test]
    fn no_interleaving_promises_more_than_there_is(events in happenings()) {
        let mut world = World::new(Kind::Lists);
        for event in &events {
            world.happens(event);
        }
    }

    #[test]
    fn hidden_processes_do_not_change_that_but_for_who_comes_unseen(events in happenings()) {
        let mut world = World::new(Kind::Hides);
        for event in &events {
            world.happens(event);
        }
    }

    #[test]
    fn beside_hidden_strangers_nothing_is_promised_twice_whoever_comes(events in happenings()) {
        let mut world = World::new(Kind::HidesBesideStrangers);
        for event in &events {
            world.happens(event);
        }
    }
}
