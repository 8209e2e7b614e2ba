//! A run against a second telling of its rules: 100,000 random steps, of which each must do what a small machine written
//! from the rules alone says. The seed is printed; `TRAINYARD_MODEL_SEED` repeats it, `TRAINYARD_MODEL_STEPS` does more.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic and reads its seed")]

use trainyard::fleet::{Device, Fleet, Node};
use trainyard::graph::{self, TaskGraph, TaskId};
use trainyard::plan::{self, Plan};
use trainyard::run::admission::{Ledger, Readings};
use trainyard::run::decide::{Dispatcher, Options};
use trainyard::run::event::{Because, Event, Place, Process, Recorded, Role, RunEnd, StopReason};
use trainyard::run::outcome::{Limit, Outcome, Usage};
use trainyard::run::resume::{self, Fate};
use trainyard::run::state::{Attempt, Phase, RunState};
use trainyard::spec::{Pipeline, Source, op};
use trainyard::units::{Bytes, Cpus, Millis};

/// SplitMix64 (Steele, Lea, Flood, 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(bound).unwrap()).unwrap()
    }

    fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    fn task(&mut self, tasks: usize) -> TaskId {
        TaskId(u32::try_from(self.below(tasks)).unwrap())
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Returns the random numbers of a test and how many steps it makes.
fn random(steps: u64) -> (Random, u64) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    let seed = number("TRAINYARD_MODEL_SEED").unwrap_or(u64::try_from(now % u128::from(u64::MAX)).unwrap());
    println!("TRAINYARD_MODEL_SEED={seed}");
    (Random(seed), number("TRAINYARD_MODEL_STEPS").map_or(steps, |all| all * steps / 100_000))
}

/// What a task is doing, in the words of the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Waits,
    Pauses(u64),
    Runs,
    Done,
    UpToDate,
    GivenUp,
    LeftOut,
}

/// One task of the second telling.
#[derive(Clone, Debug)]
struct Its {
    doing: Doing,
    /// Its attempts that have not ended, the main one and the one beside it: whether each has a process.
    ways: [Option<bool>; 2],
    /// Whether the main one is suspended.
    stands: bool,
    /// When the main one began, and whether another one has been beside it.
    begun: u64,
    raced: bool,
    tries: u32,
    /// Failures that count since the run was last taken up.
    failures: u32,
    /// Whether its last try failed.
    failed: bool,
    /// Whether the last one was beside it and was interrupted: it might have succeeded.
    lost: bool,
    /// Whether it did and nobody has said yet what follows.
    open: bool,
}

/// The second telling of a run.
#[derive(Clone, Debug)]
struct Told {
    tasks: Vec<Its>,
    stop: Option<StopReason>,
    end: Option<RunEnd>,
}

impl Told {
    fn new(tasks: usize) -> Self {
        let fresh = Its {
            doing: Doing::Waits,
            ways: [None; 2],
            stands: false,
            begun: 0,
            raced: false,
            tries: 0,
            failures: 0,
            failed: false,
            lost: false,
            open: false,
        };
        Self { tasks: vec![fresh; tasks], stop: None, end: None }
    }

    fn running(&self) -> usize {
        self.tasks.iter().flat_map(|its| its.ways).flatten().count()
    }

    /// Takes an event in; returns whether it may follow. One that may not changes nothing.
    fn take(&mut self, event: &Event, at: Millis) -> bool {
        let over = self.end.is_some();
        let running = self.running();
        let of = event.task().map(TaskId::index);
        if of.is_some_and(|task| task >= self.tasks.len()) || (over && !matches!(event, Event::RunResumed { .. })) {
            return false;
        }
        let idle = |its: &Its| matches!(its.doing, Doing::Waits | Doing::Pauses(_));
        let its = of.map(|task| &mut self.tasks[task]);
        match (event, its) {
            (Event::AttemptStarted { number, place, .. }, Some(its)) => {
                let fits = match place.role {
                    Role::Main => idle(its),
                    Role::Backup => its.doing == Doing::Runs && matches!(its.ways, [Some(_), None]),
                };
                let may = fits && *number == its.tries + 1;
                if may {
                    (its.doing, its.tries, its.open) = (Doing::Runs, its.tries + 1, false);
                    its.ways[place.role as usize] = Some(false);
                    (its.raced, its.lost) = (place.role == Role::Backup, false);
                    if place.role == Role::Main {
                        its.begun = at.0;
                    }
                }
                may
            }
            (Event::AttemptSpawned { role, .. }, Some(its)) => {
                let may = its.ways[*role as usize] == Some(false);
                if may {
                    its.ways[*role as usize] = Some(true);
                }
                may
            }
            (Event::AttemptFinished { role, outcome, .. }, Some(its)) => {
                let won = its.doing == Doing::Done;
                let forbidden = if won { Outcome::Succeeded } else { Outcome::Outrun };
                let may = its.ways[*role as usize].is_some() && *outcome != forbidden;
                if may {
                    its.ways[*role as usize] = None;
                    its.lost |= *role == Role::Backup && *outcome == Outcome::Interrupted;
                    its.raced &= !its.lost;
                    let failed = !matches!(outcome, Outcome::Succeeded | Outcome::Interrupted | Outcome::Outrun);
                    if *role == Role::Main {
                        its.stands = false;
                        its.failures += u32::from(failed);
                        its.failed = failed;
                    }
                    if *outcome == Outcome::Succeeded {
                        its.doing = Doing::Done;
                    } else if !won && its.ways == [None; 2] {
                        (its.doing, its.open) = (Doing::Waits, its.failed && !its.lost);
                    }
                }
                may
            }
            (Event::TaskSuspended { .. }, Some(its)) => {
                let may = its.ways[Role::Main as usize].is_some() && !its.stands;
                its.stands |= may;
                may
            }
            (Event::TaskContinued { .. }, Some(its)) => std::mem::take(&mut its.stands),
            (Event::RetryPlanned { not_before, .. }, Some(its)) => {
                let may = idle(its);
                if may {
                    (its.doing, its.open) = (Doing::Pauses(not_before.0), false);
                }
                may
            }
            (Event::TaskFailed { .. }, Some(its)) => {
                let may = idle(its);
                if may {
                    (its.doing, its.open) = (Doing::GivenUp, false);
                }
                may
            }
            (Event::TaskSkipped { .. }, Some(its)) => {
                let may = idle(its);
                if may {
                    (its.doing, its.open) = (Doing::LeftOut, false);
                }
                may
            }
            (Event::TaskCached { .. }, Some(its)) => {
                let may = idle(its);
                if may {
                    (its.doing, its.open) = (Doing::UpToDate, false);
                }
                may
            }
            (Event::TaskReopened { .. }, Some(its)) => {
                let may = matches!(its.doing, Doing::Done | Doing::UpToDate) && its.ways == [None; 2];
                if may {
                    (its.doing, its.failures, its.failed) = (Doing::Waits, 0, false);
                }
                may
            }
            (Event::StopRequested { reason }, None) => {
                let may = self.stop != Some(StopReason::Signal);
                if may {
                    self.stop = Some(*reason);
                }
                may
            }
            (Event::RunFinished { end }, None) => {
                if running == 0 {
                    self.end = Some(*end);
                }
                running == 0
            }
            (Event::RunResumed { adopted }, None) => {
                let mut named: Vec<usize> = adopted.iter().map(|task| task.index()).collect();
                named.sort_unstable();
                named.dedup();
                let runs = |task: &usize| self.tasks.get(*task).is_some_and(|its| its.doing == Doing::Runs);
                let ways = |task: &usize| self.tasks.get(*task).map_or(0, |its| its.ways.iter().flatten().count());
                let may = named.iter().map(ways).sum::<usize>() == running
                    && named.iter().all(runs)
                    && self.end != Some(RunEnd::Succeeded);
                if may {
                    (self.stop, self.end) = (None, None);
                    for its in &mut self.tasks {
                        if its.doing == Doing::GivenUp {
                            (its.failures, its.failed) = (0, false);
                        }
                        // What would have followed had the run not stopped is decided anew.
                        its.open |= its.doing == Doing::LeftOut && its.failed && !its.lost;
                        if matches!(its.doing, Doing::GivenUp | Doing::LeftOut) {
                            its.doing = Doing::Waits;
                        }
                    }
                }
                may
            }
            // What order waiting tasks have is nothing that this telling knows of.
            (Event::Replanned { order, .. }, None) => order.iter().all(|task| task.index() < self.tasks.len()),
            (event, its) => unreachable!("{event:?} {its:?}"),
        }
    }

    /// Holds the state against this telling of it.
    fn assert_same(&self, state: &RunState) {
        for (its, task) in self.tasks.iter().zip(&state.tasks) {
            let phase = match its.doing {
                Doing::Waits => Phase::Waiting,
                Doing::Pauses(until) => Phase::Delayed(Millis(until)),
                Doing::Runs => Phase::Running,
                Doing::Done => Phase::Succeeded,
                Doing::UpToDate => Phase::Cached,
                Doing::GivenUp => Phase::Failed,
                Doing::LeftOut => Phase::Skipped,
            };
            assert_eq!((task.phase, task.attempts.len()), (phase, its.tries as usize));
            assert_eq!(task.open().count(), its.ways.iter().flatten().count());
            assert_eq!(task.failures(), its.failures as usize);
            assert_eq!(task.open_as(Role::Main).is_some_and(Attempt::is_suspended), its.stands);
        }
        let of = |doing: &[Doing]| self.tasks.iter().filter(|its| doing.contains(&its.doing)).count();
        assert_eq!(state.running, self.running());
        assert_eq!(state.failed, of(&[Doing::GivenUp]));
        assert_eq!(state.settled, of(&[Doing::GivenUp, Doing::LeftOut, Doing::Done, Doing::UpToDate]));
        assert_eq!((state.stopping, state.end.map(|(_, end)| end)), (self.stop, self.end));
    }
}

fn outcome(random: &mut Random) -> Outcome {
    match random.below(10) {
        0..5 => Outcome::Succeeded,
        5 => Outcome::Exited { code: 1 },
        6 => Outcome::Signalled { signal: 9 },
        7 => Outcome::TimedOut { limit: Limit::Wall },
        8 => Outcome::OutputMissing { path: "x".to_owned(), leads_to: None, also: Box::default() },
        _ => Outcome::SpawnFailed { reason: "x".to_owned() },
    }
}

/// Any event, sensible or not.
fn any_event(random: &mut Random, told: &Told) -> Event {
    let task = random.task(told.tasks.len() + 1);
    let role = if random.one_in(3) { Role::Backup } else { Role::Main };
    let tries = told.tasks.get(task.index()).map_or(0, |its| its.tries);
    match random.below(37) {
        0..7 => {
            let number = if random.one_in(10) { u32::try_from(random.below(4)).unwrap() } else { tries + 1 };
            Event::AttemptStarted { task, number, place: Place { role, ..Place::default() } }
        }
        7..11 => Event::AttemptSpawned { task, role, process: Process { pid: 1, started: 1 } },
        11..21 => {
            let outcome = match random.below(12) {
                0 | 1 => Outcome::Interrupted,
                2 | 3 => Outcome::Outrun,
                _ => outcome(random),
            };
            Event::AttemptFinished { task, role, outcome, usage: Usage::default(), logged: false }
        }
        21..23 => {
            let not_before = Millis(u64::try_from(random.below(1_000)).unwrap());
            Event::RetryPlanned { task, not_before, raise: None }
        }
        23 => Event::TaskFailed { task, lacks: None },
        24 => Event::TaskSkipped { task, because: None },
        25 => Event::StopRequested { reason: [StopReason::Signal, StopReason::TaskFailed][random.below(2)] },
        27 => Event::TaskCached { task, log: random.one_in(2).then(|| "runs/r/logs/x.1.log".to_owned()) },
        28 => Event::TaskReopened { task },
        33 | 34 => Event::TaskSuspended { task },
        35 | 36 => Event::TaskContinued { task },
        29 => {
            let order = (0..random.below(4)).map(|_| random.task(told.tasks.len() + 1)).collect();
            let because = Because::Lost { device: "box/gpu0".to_owned() };
            Event::Replanned { because, before: Millis(2), after: Millis(1), order, moved: Vec::new() }
        }
        26 => Event::RunFinished { end: [RunEnd::Succeeded, RunEnd::Failed, RunEnd::Interrupted][random.below(3)] },
        _ => {
            let runs = (0..).map(TaskId).zip(&told.tasks).filter(|(_, its)| its.doing == Doing::Runs);
            let mut adopted: Vec<TaskId> = runs.map(|(task, _)| task).collect();
            match random.below(6) {
                0 => drop(adopted.pop()),
                1 => adopted.push(task),
                _ => {}
            }
            Event::RunResumed { adopted }
        }
    }
}

#[test]
fn the_state_takes_in_and_refuses_what_the_rules_say() {
    let (mut random, steps) = random(60_000);
    let mut left = steps;
    while left > 0 {
        let tasks = 1 + random.below(6);
        let (mut told, mut state) = (Told::new(tasks), RunState::new(tasks));
        for _ in 0..left.min(200) {
            let event = any_event(&mut random, &told);
            let before = state.clone();
            let may = told.take(&event, Millis(5));
            let taken = state.apply(&Recorded { at: Millis(5), event: event.clone() });
            assert_eq!(taken.is_ok(), may, "{event:?} on {before:#?}");
            assert!(may || state == before, "{event:?} was refused and changed something");
            told.assert_same(&state);
            // What is recorded is read back as it was.
            let text = serde_json::to_string(&event).unwrap();
            assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event, "{text}");
            left -= 1;
        }
    }
}

/// CPUs of the host that everything runs on; each task takes one.
const CPUS: usize = 4;

/// How long a turn at its device lasts.
const QUANTUM: Millis = Millis(40);

/// A random pipeline on a small host.
struct Case {
    pipeline: Pipeline,
    graph: TaskGraph,
    fleet: Fleet,
    plan: Plan,
    retries: Vec<u32>,
    /// How long after its first attempt a second one of a task may start.
    backups: Vec<Option<u64>>,
    /// What a task takes of the device where it takes turns, in hundredths.
    turns: Vec<Option<usize>>,
    options: Options,
}

impl Case {
    fn new(random: &mut Random) -> Self {
        let stages = 1 + random.below(10);
        let mut text = String::new();
        let (mut retries, mut backups, mut turns) = (Vec::new(), Vec::new(), Vec::new());
        for stage in 0..stages {
            let before: Vec<String> =
                (0..stage).filter(|_| random.one_in(4)).map(|before| format!("'s{before}'")).collect();
            let again = random.below(3);
            retries.push(u32::try_from(again).unwrap());
            let share = random.one_in(3).then(|| 1 + random.below(99));
            turns.push(share);
            let turn = share
                .map(|share| format!("suspend = true\nresources = {{ gpus = 0.{share:02}, gpu_memory = '1GiB' }}\n"));
            let (second, wait) = match random.below(4) {
                _ if turn.is_some() => ("", None),
                0 => ("replicas = 2\n", Some(0)),
                1 => ("backup = { after = 1.5 }\nduration = '20ms'\n", Some(30)),
                2 => ("backup = { after = 1.5 }\n", None),
                _ => ("", None),
            };
            backups.push(wait);
            text += &format!(
                "[stage.s{stage}]\nrun = 'x {{outputs}}'\noutputs = ['o{stage}']\n{second}{}after = [{}]\nretries = {again}\nbackoff = '{}ms'\n",
                turn.unwrap_or_default(),
                before.join(","),
                random.below(50)
            );
        }
        let source = Source { name: "case.toml".to_owned(), text };
        let (pipeline, graph) = graph::load(&source, &[], op::CATALOGUE, graph::Limits::default()).unwrap();
        let cpus = Cpus(u64::try_from(CPUS).unwrap() * 1_000);
        let node = Node { name: "box".to_owned(), cpus, memory: Bytes(64 << 30), ..Node::default() };
        let device = Device { id: "box/gpu0".to_owned(), memory: Bytes(64 << 30), ..Device::default() };
        let fleet = Fleet { name: "here".to_owned(), nodes: vec![node], devices: vec![device], ..Fleet::default() };
        let plan = plan::make(&pipeline, &graph, &fleet, &plan::Options::default()).unwrap();
        let jobs = Some(1 + random.below(5));
        let quantum = Some(QUANTUM);
        let options = Options { jobs, keep_going: random.one_in(2), seed: 1, quantum, ..Options::default() };
        Self { pipeline, graph, fleet, plan, retries, backups, turns, options }
    }

    fn dispatcher(&self, state: &RunState) -> Dispatcher<'_> {
        let ledger = Ledger::new(&self.fleet);
        let of = (&self.pipeline, &self.graph);
        Dispatcher::new(of, (&self.fleet, &self.plan), ledger, self.options, Vec::new(), state)
    }

    fn most_at_once(&self) -> usize {
        self.options.jobs.unwrap().min(CPUS)
    }
}

/// A run that goes through what happens to it.
struct Played<'c> {
    case: &'c Case,
    told: Told,
    state: RunState,
    dispatcher: Dispatcher<'c>,
    now: Millis,
}

impl<'c> Played<'c> {
    fn new(case: &'c Case) -> Self {
        let state = RunState::new(case.graph.len());
        let dispatcher = case.dispatcher(&state);
        Self { case, told: Told::new(case.graph.len()), state, dispatcher, now: Millis(1_000) }
    }

    fn happens(&mut self, event: Event) {
        assert!(self.told.take(&event, self.now), "{event:?} on {:#?}", self.told);
        let recorded = Recorded { at: self.now, event };
        self.state.apply(&recorded).unwrap();
        self.told.assert_same(&self.state);
        self.dispatcher.take_in(&recorded);
    }

    /// Lets the dispatcher decide, and holds what it decides against the rules. Returns how many events there were.
    fn decides(&mut self) -> u64 {
        let mut events = 0;
        loop {
            let before = self.told.clone();
            let decided = self.dispatcher.decide(&self.state, self.now, &Readings::unwatched(1));
            if decided.is_empty() {
                break;
            }
            for event in decided {
                self.may_decide(&event, &before);
                self.happens(event);
                events += 1;
            }
        }
        self.has_decided_all();
        events
    }

    /// Asserts that an event is one that the rules allow to be decided on now.
    fn may_decide(&self, event: &Event, before: &Told) {
        match event {
            Event::AttemptStarted { task, place, .. } if place.role == Role::Backup => {
                assert_eq!(self.told.stop, None, "nothing starts in a run that stops");
                assert!(self.wants_backup(*task), "{:?}", self.told.tasks[task.index()]);
                assert!(self.told.running() < self.case.most_at_once(), "more at once than allowed");
            }
            Event::AttemptStarted { task, .. } => {
                assert_eq!(self.told.stop, None, "nothing starts in a run that stops");
                let its = &self.told.tasks[task.index()];
                assert!(!its.open && its.doing != Doing::Done);
                assert!(!matches!(its.doing, Doing::Pauses(until) if until > self.now.0), "too early");
                assert!(self.is_unblocked(*task), "before what it needs");
                assert!(self.told.running() < self.case.most_at_once(), "more at once than allowed");
            }
            Event::RetryPlanned { task, .. } => {
                let its = &self.told.tasks[task.index()];
                assert!(its.open && its.failures <= self.case.retries[task.index()], "once too often: {its:?}");
            }
            Event::TaskFailed { task, .. } => {
                let its = &self.told.tasks[task.index()];
                let last = self.state.task(*task).last_outcome();
                let hopeless = matches!(last, Some(Outcome::SpawnFailed { .. }));
                assert!(its.open && (hopeless || its.failures > self.case.retries[task.index()]), "too soon: {its:?}");
            }
            Event::TaskSkipped { because: Some(cause), .. } => {
                assert_eq!(self.told.tasks[cause.index()].doing, Doing::GivenUp);
            }
            Event::TaskSkipped { because: None, .. } => assert_eq!(self.told.stop, Some(StopReason::TaskFailed)),
            Event::StopRequested { reason } => {
                assert_eq!((*reason, self.case.options.keep_going), (StopReason::TaskFailed, false));
                assert_eq!(before.stop, None);
            }
            Event::RunFinished { end } => {
                let done = self.told.tasks.iter().all(|its| its.doing == Doing::Done);
                let wanted = match self.told.stop {
                    Some(StopReason::Signal) => RunEnd::Interrupted,
                    Some(StopReason::TaskFailed) => RunEnd::Failed,
                    None if done => RunEnd::Succeeded,
                    None => RunEnd::Failed,
                };
                assert_eq!(*end, wanted);
            }
            Event::TaskSuspended { task } | Event::TaskContinued { task } => {
                assert_ne!(self.told.stop, Some(StopReason::Signal), "who is to end is left alone");
                assert!(self.case.turns[task.index()].is_some(), "it takes no turns");
            }
            Event::AttemptSpawned { .. }
            | Event::FinishTold { .. }
            | Event::AttemptFinished { .. }
            | Event::TaskCached { .. }
            | Event::TaskReopened { .. }
            | Event::Replanned { .. }
            | Event::RunResumed { .. } => {
                panic!("{event:?} is nothing to decide")
            }
        }
    }

    /// Asserts that nothing was left undone that the rules want done now.
    fn has_decided_all(&self) {
        if self.told.end.is_some() {
            return;
        }
        assert!(self.told.tasks.iter().all(|its| !its.open), "a failure was not judged");
        self.has_given_turns();
        let running = self.told.running();
        assert!(self.told.stop.is_none() || running > 0, "a run that stops and has nothing left to wait for is over");
        let startable = self.case.graph.ids().any(|task| {
            let is_time = match self.told.tasks[task.index()].doing {
                Doing::Waits => true,
                Doing::Pauses(until) => until <= self.now.0,
                Doing::Runs | Doing::Done | Doing::UpToDate | Doing::GivenUp | Doing::LeftOut => false,
            };
            is_time && self.is_unblocked(task)
        });
        let full = running == self.case.most_at_once();
        let startable = startable || self.case.graph.ids().any(|task| self.wants_backup(task));
        assert!(self.told.stop.is_some() || full || !startable, "something could start");
        let pauses = self.told.tasks.iter().any(|its| matches!(its.doing, Doing::Pauses(_)));
        assert!(running > 0 || pauses, "the run is stuck: {:#?}", self.told);
    }

    /// Asserts that those who run fit the device together, and that somebody does and is told when the next turn comes.
    fn has_given_turns(&self) {
        if self.told.stop == Some(StopReason::Signal) {
            return;
        }
        let at_device = || {
            let open = self.told.tasks.iter().zip(&self.case.turns).filter(|(its, _)| its.ways[0].is_some());
            open.filter_map(|(its, share)| Some((its.stands, (*share)?)))
        };
        let together: usize = at_device().filter(|(stands, _)| !stands).map(|(_, share)| share).sum();
        assert!(together <= 100, "they do not fit together");
        if at_device().any(|(stands, _)| stands) {
            assert!(together > 0, "all stand still");
            assert!(self.dispatcher.next_due(&self.state).is_some(), "nobody's turn ever ends");
        }
    }

    /// Whether it is time for a second attempt of a task.
    fn wants_backup(&self, task: TaskId) -> bool {
        let its = &self.told.tasks[task.index()];
        let wait = self.case.backups[task.index()];
        its.doing == Doing::Runs
            && matches!(its.ways, [Some(_), None])
            && !its.raced
            && wait.is_some_and(|wait| its.begun + wait <= self.now.0)
    }

    fn is_unblocked(&self, task: TaskId) -> bool {
        self.case.graph.before.of(task).iter().all(|edge| self.told.tasks[edge.task.index()].doing == Doing::Done)
    }

    /// Lets something happen.
    fn goes_on(&mut self, random: &mut Random) {
        self.now += Millis(u64::try_from(random.below(20)).unwrap());
        let ways = |task: TaskId| {
            let ways = [Role::Main, Role::Backup].into_iter().zip(self.told.tasks[task.index()].ways);
            ways.filter_map(move |(role, way)| Some((task, role, way?)))
        };
        let running: Vec<(TaskId, Role, bool)> = self.case.graph.ids().flat_map(ways).collect();
        match random.below(40) {
            0 if self.told.stop != Some(StopReason::Signal) => {
                self.happens(Event::StopRequested { reason: StopReason::Signal });
            }
            1 | 2 => self.is_taken_up(random),
            3..8 if !running.is_empty() => {
                let (task, role, has_process) = running[random.below(running.len())];
                if !has_process {
                    self.happens(Event::AttemptSpawned { task, role, process: Process { pid: 1, started: 1 } });
                }
            }
            _ if !running.is_empty() => {
                let (task, role, _) = running[random.below(running.len())];
                let stopped = self.told.stop == Some(StopReason::Signal);
                let outcome = match outcome(random) {
                    Outcome::Succeeded if self.told.tasks[task.index()].doing == Doing::Done => Outcome::Outrun,
                    _ if stopped && random.one_in(2) => Outcome::Interrupted,
                    other @ (Outcome::Succeeded
                    | Outcome::Exited { .. }
                    | Outcome::Signalled { .. }
                    | Outcome::TimedOut { .. }
                    | Outcome::OutOfMemory { .. }
                    | Outcome::OutputMissing { .. }
                    | Outcome::SpawnFailed { .. }
                    | Outcome::Displaced { .. }
                    | Outcome::Outrun
                    | Outcome::Interrupted) => other,
                };
                self.happens(Event::AttemptFinished { task, role, outcome, usage: Usage::default(), logged: false });
            }
            _ => self.now += Millis(30),
        }
    }

    /// The orchestrator dies, and another one takes the run up; some attempts have gone on.
    fn is_taken_up(&mut self, random: &mut Random) {
        if self.told.end == Some(RunEnd::Succeeded) {
            return;
        }
        let kept: Vec<[bool; 2]> = self.told.tasks.iter().map(|_| [random.one_in(2), random.one_in(2)]).collect();
        let fate = |task: TaskId, number: u32| match kept[task.index()][number as usize % 2] {
            true => Fate::Kept(Process { pid: 2, started: 2 }),
            false => Fate::Lost { logged: false },
        };
        for event in resume::events(&self.state, fate) {
            assert!(self.told.take(&event, self.now), "{event:?}");
            self.state.apply(&Recorded { at: self.now, event }).unwrap();
            self.told.assert_same(&self.state);
        }
        self.dispatcher = self.case.dispatcher(&self.state);
    }
}

#[test]
fn what_is_decided_is_what_the_rules_want_whatever_happens() {
    let (mut random, steps) = random(40_000);
    let (mut made, mut ends) = (0, 0_u32);
    while made < steps {
        let case = Case::new(&mut random);
        let mut played = Played::new(&case);
        // A run that was stopped or failed is taken up again now and then.
        for _ in 0..300 {
            made += 1 + played.decides();
            if played.told.end.is_some() {
                ends += 1;
                if played.told.end == Some(RunEnd::Succeeded) || random.one_in(3) {
                    break;
                }
                played.is_taken_up(&mut random);
            } else {
                // Several things may happen before anything is decided.
                for _ in 0..=random.below(3) {
                    played.goes_on(&mut random);
                }
            }
        }
    }
    assert!(u64::from(ends) > steps / 1_000, "only {ends} ends in {made} steps");
}
