//! Monitor and ledger together on an emulated machine that changes under them. One test in a program of its own: the
//! emulated library is told by the environment which machine it shows.

#![expect(clippy::disallowed_methods, reason = "starts stand-ins for trainings")]

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use mock_nvml::{Card, Scene};
use trainyard::graph::TaskId;
use trainyard::probe::{self, Machine, Monitor, Options};
use trainyard::run::admission::{Grant, Ledger, Readings, Refusal, Why};
use trainyard::spec::{Gpus, Resources};
use trainyard::units::{Bytes, Millis};

const GIB: u64 = 1 << 30;

/// A run's view of the machine: what is read, what is promised, which trainings are there.
struct Yard<'a> {
    scene: &'a Scene,
    machine: Machine,
    monitor: Monitor,
    ledger: Ledger,
    trainings: BTreeMap<u32, Child>,
    now: Millis,
}

impl<'a> Yard<'a> {
    fn open(scene: &'a Scene) -> Result<Self, Box<dyn Error>> {
        let [(_, library), (variable, state)]: [(&str, PathBuf); 2] =
            scene.environment().try_into().map_err(|_| "two variables")?;
        // SAFETY: the only test of this program, and nothing else of it reads the environment at this time.
        unsafe { std::env::set_var(variable, state) };
        let options = Options { nvml: library.into(), ..Options::default() };
        let machine = probe::this_machine(&options);
        let monitor = Monitor::open(&options, &machine.gpus)?.ok_or("there are cards")?;
        let ledger = Ledger::new(&machine.fleet());
        Ok(Self { scene, machine, monitor, ledger, trainings: BTreeMap::new(), now: Millis(1) })
    }

    fn read(&mut self) -> Readings {
        self.now += Millis(1);
        let read = self.monitor.read();
        let task = |pid| self.trainings.iter().find(|(_, child)| child.id() == pid).map(|(task, _)| TaskId(*task));
        Readings::new(self.now, &self.machine.fleet(), &read, task)
    }

    fn admit(&mut self, task: u32, gib: u64) -> Result<Grant, Refusal> {
        let request = Resources { gpus: Gpus::Shared, gpu_memory: Bytes(gib * GIB), ..Resources::default() };
        let readings = self.read();
        self.ledger.try_admit(TaskId(task), &request, None, &readings, self.now)
    }

    /// Starts a training of so many GiB, and returns once it holds its memory.
    fn train(&mut self, task: u32, gib: u64) -> Result<Grant, Box<dyn Error>> {
        let grant = self.admit(task, gib).map_err(|refusal| refusal.explain(&self.machine.fleet()))?;
        let card = self.machine.fleet().devices[grant.devices[0].index()].cuda_name().ok_or("a real card")?;
        let mut training = Command::new("sh");
        // Says that it has taken its memory, and then stays until it is told to end.
        training.args(["-c", "echo $2 >$MOCK_NVML_STATE/held/$$-$1; echo taken; read end", "sh", &card]);
        training.arg((gib * 1024).to_string()).envs(self.scene.environment());
        let mut training = training.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut said = [0; 5];
        training.stdout.as_mut().ok_or("piped")?.read_exact(&mut said)?;
        self.trainings.insert(task, training);
        Ok(grant)
    }

    fn end(&mut self, task: u32) -> Result<(), Box<dyn Error>> {
        let mut training = self.trainings.remove(&task).ok_or("it runs")?;
        training.kill()?;
        training.wait()?;
        self.now += Millis(1);
        self.ledger.release(TaskId(task), self.now);
        Ok(())
    }
}

fn on(grant: &Grant) -> usize {
    grant.devices[0].index()
}

#[test]
fn the_ledger_follows_a_machine_that_changes() -> Result<(), Box<dyn Error>> {
    let scene = Scene::new(vec![Card::default(), Card::default()])?;
    let mut yard = Yard::open(&scene)?;

    // A card of 80 GiB gives 77.9: a context of 0.5 GiB and 2 % stay free.
    let first = yard.train(0, 40)?;
    assert_eq!(on(&yard.train(1, 37)?), on(&first), "taken memory is not counted twice");
    let other = 1 - on(&first);
    assert_eq!(on(&yard.admit(2, 38).expect("there is room")), other);
    assert!(yard.admit(3, 41).is_err(), "promised memory counts though nobody has taken it");

    // A stranger of 21 GiB appears where 40 GiB were left beside the promise.
    let mut stranger = Command::new("cat").stdin(Stdio::piped()).spawn()?;
    scene.hold(stranger.id(), &other.to_string(), 21 * 1024)?;
    let refusal = yard.admit(3, 20).unwrap_err();
    let free = Bytes(59 * GIB);
    let why = refusal.devices.iter().find(|(device, _)| device.index() == other).map(|(_, why)| why.clone());
    assert!(matches!(why, Some(Why::Memory { free: f, promised, .. }) if f == free && promised == Bytes(38 * GIB)));

    // It leaves, and its memory with it.
    stranger.kill()?;
    stranger.wait()?;
    assert!(yard.admit(3, 20).is_err(), "it may be back at once");
    yard.now += Millis(3_000);
    assert_eq!(on(&yard.train(3, 20)?), other);

    // What a training held is there for the next one after a new reading.
    yard.end(0)?;
    assert_eq!(on(&yard.train(4, 40)?), on(&first));

    // On a lost card nothing starts, and it says so.
    scene.change(|machine| {
        machine.cards[other].fails.insert("*".to_owned(), 15);
    })?;
    yard.end(4)?;
    let refusal = yard.admit(5, 60).unwrap_err();
    assert!(refusal.explain(&yard.machine.fleet()).contains("is lost: "), "{}", refusal.explain(&yard.machine.fleet()));
    assert_eq!(on(&yard.train(5, 10)?), on(&first));

    for task in [1, 3, 5] {
        yard.end(task)?;
    }
    Ok(())
}
