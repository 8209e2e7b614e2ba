//! Whole runs with a scripted engine and a clock that jumps: thousands of them, each checked against what a reader of
//! the rules would expect.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Duration;

use proptest::prelude::*;
use tokio::sync::mpsc;

use super::admission::{Ledger, Live, Readings, Seen};
use super::decide::{Dispatcher, Options};
use super::engine::Stop;
use super::event::{Event, Recorded, RunEnd, StopReason};
use super::launch::Ground;
use super::observer::{Observer, View};
use super::ports::Ports;
use super::resume::Fate;
use super::state::{Phase, RunState};
use super::store::StoreError;
use super::supervisor::{Clock, FullDisk, Look, Looker, Parts, Question, Record, Replanner, RunError, Supervisor};
use crate::engine::race::Racing;
use crate::fleet::{Device, Fleet, Node};
use crate::graph::{self, TaskGraph, TaskId};
use crate::plan::{self, Plan};
use crate::probe::disk::Disk;
use crate::spec::{self, Pipeline, Source, op};
use crate::units::{Bytes, Cpus, Millis};

mod race_tests;
mod script;

use script::{Script, Scripted};

/// Keeps events in memory and fails from the n-th batch on, if told to.
#[derive(Clone, Default)]
struct Memory {
    events: Rc<RefCell<Vec<Recorded>>>,
    batches_left: Option<u32>,
    /// So often it is locked by somebody else when an attempt has ended.
    locked: u32,
}

impl Record for Memory {
    fn append(&mut self, events: &[Recorded]) -> Result<(), StoreError> {
        if let Some(left) = &mut self.batches_left {
            *left = left.checked_sub(1).ok_or(StoreError::NoState("a full disk".into()))?;
        }
        if self.locked > 0 && events.iter().any(|recorded| matches!(recorded.event, Event::AttemptFinished { .. })) {
            self.locked -= 1;
            let source = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY), None);
            return Err(StoreError::Database { path: "state.db".into(), source });
        }
        self.events.borrow_mut().extend_from_slice(events);
        Ok(())
    }
}

/// How long the user waits before pressing Ctrl-C again.
const PATIENCE: Duration = Duration::from_secs(60);

/// Folds what it is told and finds the view it is shown to agree.
struct Follower(RunState);

impl Observer for Follower {
    fn recorded(&mut self, view: View<'_>, recorded: &Recorded) {
        self.0.apply(recorded).expect("events are told in order");
        assert_eq!(&self.0, view.state, "after {recorded:?}");
    }
}

/// A pipeline, planned on a host with four CPUs.
struct Case {
    pipeline: Pipeline,
    graph: TaskGraph,
    fleet: Fleet,
    plan: Plan,
}

impl Case {
    fn new(text: &str) -> Self {
        Self::on(text, Vec::new())
    }

    /// The same, on a host that has these devices.
    fn on(text: &str, devices: Vec<Device>) -> Self {
        let source = Source { name: "case.toml".to_owned(), text: text.to_owned() };
        let parsed = spec::parse(&source, &[], op::CATALOGUE);
        assert!(parsed.problems.is_empty(), "{:?}\n{text}", parsed.problems);
        let graph = graph::build(&parsed.pipeline, graph::Limits::default()).expect("the case is right");
        let node = Node { name: "box".to_owned(), cpus: Cpus(4_000), memory: Bytes(64 << 30), ..Node::default() };
        let fleet = Fleet { name: "here".to_owned(), nodes: vec![node], devices, ..Fleet::default() };
        let plan = plan::make(&parsed.pipeline, &graph, &fleet, &plan::Options::default()).expect("it fits");
        Self { pipeline: parsed.pipeline, graph, fleet, plan }
    }

    /// Plans the rest at once, for a clock that jumps.
    fn replanner(&self) -> Replanner<'_> {
        let (answer, answers) = mpsc::unbounded_channel();
        let limits = plan::Limits { evaluations: Some(200), ..plan::Limits::default() };
        let options = plan::Options { limits, ..plan::Options::default() };
        let ask = move |rest| {
            let revision = plan::rest::rest(&self.pipeline, &self.graph, &self.fleet, &rest, &options);
            answer.send(Some(revision.expect("what could be planned once can be again"))).unwrap();
        };
        Replanner::new(ask, answers)
    }

    /// Runs the case from a state to its end; `stop_after` is when the user presses Ctrl-C.
    fn run(
        &self,
        script: &Script,
        options: Options,
        from: &mut History,
        stop_after: Option<u64>,
    ) -> Result<RunEnd, RunError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let state = from.state(self.graph.len());
            let root = from.folder.as_ref().map_or_else(|| "/p".into(), |folder| folder.path().to_owned());
            let ground = Ground {
                run: "r".to_owned(),
                dir: root.join("r"),
                root,
                ops: "trainyard-ops".into(),
                survive: false,
                inherited: BTreeMap::new(),
                ports: None,
            };
            let dispatcher = Dispatcher::new(
                (&self.pipeline, &self.graph),
                (&self.fleet, &self.plan),
                Ledger::new(&self.fleet),
                options,
                vec![script.cached.is_some(); self.graph.len()],
                &state,
            );
            let (seen, looks) = mpsc::unbounded_channel();
            let free =
                |device: &Device| Live::Seen(Seen { free: device.memory, held: Some(Vec::new()), ..Seen::default() });
            let look = move |Question { at, .. }: Question| {
                let (seen, after) = (seen.clone(), script.look_takes);
                let devices = self.fleet.devices.iter().map(free).collect();
                let readings = Readings { at, devices, ..Readings::default() };
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(after)).await;
                    let _ = seen.send(Look { readings, ..Look::default() });
                });
            };
            let looker = Looker::new(look, looks);
            let (begun, mut full_looks) = (tokio::time::Instant::now(), script.full_looks);
            let parts = Parts {
                pipeline: &self.pipeline,
                graph: &self.graph,
                fleet: &self.fleet,
                plan: &self.plan,
                ground: &ground,
                started: Millis::ZERO,
                dispatcher,
                observers: vec![Box::new(Follower(state.clone()))],
                known: Vec::new(),
                replanner: self.replanner(),
                looker,
                ports: Ports::default(),
                full_disk: Box::new(move || {
                    let since = u64::try_from(begun.elapsed().as_millis()).unwrap() + 1_000;
                    match script.full_from {
                        Some((from, until)) => (from..until).contains(&since).then_some(())?,
                        None => full_looks = full_looks.checked_sub(1)?,
                    }
                    let disk = Disk { folder: "/p".into(), free: Bytes(1), all: Bytes(9) };
                    Some(FullDisk { disk, reserve: Bytes(2), held: None })
                }),
            };
            let engine = Racing::new(Scripted::new(&self.graph, script), None);
            let clock = Clock::starting_at(Millis(1_000));
            let told = (state.clone(), Vec::new());
            let mut supervisor = Supervisor::new(parts, engine, from.memory.clone(), state, clock, told);
            let (press, mut stops) = mpsc::unbounded_channel();
            if let Some(after) = stop_after {
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(after)).await;
                    let _ = press.send(Stop::Gracefully);
                    tokio::time::sleep(PATIENCE).await;
                    let _ = press.send(Stop::Now);
                });
            }
            let ended = supervisor.carry_out(&mut stops).await;
            from.took = begun.elapsed();
            ended
        })
    }
}

/// What has been recorded over one or more sittings.
#[derive(Clone, Default)]
struct History {
    memory: Memory,
    /// How long the last sitting took.
    took: Duration,
    /// Where files are written, by those tests that do.
    folder: Option<Rc<tempfile::TempDir>>,
}

impl History {
    fn state(&self, tasks: usize) -> RunState {
        let mut state = RunState::new(tasks);
        for recorded in self.memory.events.borrow().iter() {
            state.apply(recorded).expect("a record can be replayed");
        }
        state
    }

    /// Records what a resumption does before it goes on: what ran has been interrupted.
    fn resume(&self, tasks: usize) {
        self.resume_with(tasks, |_| Fate::Lost { logged: true });
    }

    /// The same, with a fate for each attempt that ran, by its number.
    fn resume_with(&self, tasks: usize, fate: impl Fn(u32) -> Fate) {
        let resuming = super::resume::events(&self.state(tasks), |_, number| fate(number));
        let recorded = resuming.into_iter().map(|event| Recorded { at: Millis(5_000), event });
        self.memory.events.borrow_mut().extend(recorded);
    }

    fn phases(&self, case: &Case) -> BTreeMap<String, Phase> {
        let state = self.state(case.graph.len());
        case.graph.tasks.iter().zip(&state.tasks).map(|(task, state)| (task.name.clone(), state.phase)).collect()
    }
}

/// A random pipeline of up to 12 stages and what its tasks will do. In every other case some of them are up to date.
fn cases() -> impl Strategy<Value = (String, Script)> {
    let stage = (prop::collection::vec(any::<prop::sample::Index>(), 0..3), 1_u32..5, 0_u32..3, 0_u32..3, 1_u64..500);
    let cached = prop::option::of(prop::collection::btree_set((0..12).prop_map(|i| format!("s{i}")), 0..12));
    (prop::collection::vec(stage, 1..12), cached).prop_map(|(stages, cached)| {
        let mut text = String::new();
        let mut script = Script { cached, ..Script::default() };
        for (i, (before, cpus, retries, failures, takes)) in stages.iter().enumerate() {
            let after: Vec<String> =
                before.iter().filter(|_| i > 0).map(|before| format!("\"s{}\"", before.index(i.max(1)))).collect();
            let after = after.join(", ");
            text += &format!(
                "[stage.s{i}]\nrun = \"true\"\nafter = [{after}]\nretries = {retries}\nresources = {{ cpus = {cpus} }}\n"
            );
            script.failures.insert(format!("s{i}"), *failures);
            script.takes.insert(format!("s{i}"), *takes);
        }
        (text, script)
    })
}

/// What must become of each task when everything that can go on does.
fn expected(case: &Case, script: &Script) -> BTreeMap<String, Phase> {
    let mut phases: BTreeMap<String, Phase> = BTreeMap::new();
    for task in &case.graph.order {
        let name = &case.graph.tasks[task.index()].name;
        let stage = &case.pipeline.stages[case.graph.tasks[task.index()].stage];
        let blocked =
            case.graph.before.of(*task).iter().any(|edge| !phases[&case.graph.tasks[edge.task.index()].name].is_done());
        let phase = if blocked {
            Phase::Skipped
        } else if script.cached.as_ref().is_some_and(|cached| cached.contains(name)) {
            Phase::Cached
        } else if script.failures.get(name).copied().unwrap_or(0) > stage.retry.retries {
            Phase::Failed
        } else {
            Phase::Succeeded
        };
        phases.insert(name.clone(), phase);
    }
    phases
}

/// Replays the record and checks at every step that precedence and capacity hold.
fn check_record(case: &Case, history: &History, jobs: Option<usize>) {
    let mut state = RunState::new(case.graph.len());
    for recorded in history.memory.events.borrow().iter() {
        if let Event::AttemptStarted { task, .. } = recorded.event {
            for edge in case.graph.before.of(task) {
                assert!(state.task(edge.task).phase.is_done(), "started before what it needs");
            }
        }
        state.apply(recorded).expect("a record can be replayed");
        let running = |id: &TaskId| state.task(*id).phase == Phase::Running;
        let cpus: Cpus = case
            .graph
            .ids()
            .filter(running)
            .map(|id| case.pipeline.stages[case.graph.tasks[id.index()].stage].modes[0].resources.cpus)
            .sum();
        assert!(cpus <= case.fleet.nodes[0].cpus, "over capacity: {cpus}");
        assert!(state.running <= jobs.unwrap_or(usize::MAX));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn every_task_ends_as_the_rules_say((text, script) in cases(), jobs in prop::option::of(1_usize..4)) {
        let case = Case::new(&text);
        let mut history = History::default();
        let end = case.run(&script, Options { jobs, keep_going: true, seed: 1, ..Options::default() }, &mut history, None).unwrap();
        let expected = expected(&case, &script);
        prop_assert_eq!(history.phases(&case), expected.clone());
        let clean = expected.values().all(|phase| phase.is_done());
        prop_assert_eq!(end, if clean { RunEnd::Succeeded } else { RunEnd::Failed });
        check_record(&case, &history, jobs);
    }

    #[test]
    fn a_run_that_is_stopped_and_gone_on_with_ends_like_one_that_is_not((text, script) in cases(), stop in 0_u64..2_000) {
        let case = Case::new(&text);
        // An interrupted attempt is no failure of the script's: failing tasks would be tried once more than expected.
        let script = Script { failures: HashMap::new(), ..script };
        let mut history = History::default();
        let options = Options { keep_going: true, ..Options::default() };
        let first = case.run(&script, options, &mut history, Some(stop)).unwrap();
        if first == RunEnd::Interrupted {
            history.resume(case.graph.len());
            let second = case.run(&script, options, &mut history, None).unwrap();
            prop_assert_eq!(second, RunEnd::Succeeded);
        }
        prop_assert!(history.phases(&case).values().all(|phase| phase.is_done()));
        check_record(&case, &history, None);
    }

    #[test]
    fn a_record_cut_anywhere_is_resumed_to_the_same_end_and_repeats_no_success(
        (text, script) in cases(),
        cut in any::<prop::sample::Index>(),
    ) {
        let case = Case::new(&text);
        let script = Script { failures: HashMap::new(), ..script };
        let mut history = History::default();
        let options = Options { keep_going: true, ..Options::default() };
        case.run(&script, options, &mut history, None).unwrap();
        let whole = history.memory.events.borrow().len();
        history.memory.events.borrow_mut().truncate(cut.index(whole));
        history.resume(case.graph.len());
        prop_assert_eq!(case.run(&script, options, &mut history, None).unwrap(), RunEnd::Succeeded);
        for task in &history.state(case.graph.len()).tasks {
            let succeeded = task.attempts.iter().filter_map(|attempt| attempt.ended.as_ref());
            let made = usize::from(task.phase != Phase::Cached);
            prop_assert_eq!(succeeded.filter(|ended| ended.outcome.is_success()).count(), made);
        }
        check_record(&case, &history, None);
    }

    #[test]
    fn a_record_that_fails_ends_what_runs((text, script) in cases(), batches in 0_u32..20) {
        let case = Case::new(&text);
        let mut history = History::default();
        history.memory.batches_left = Some(batches);
        let ended = case.run(&script, Options { keep_going: true, ..Options::default() }, &mut history, None);
        if let Err(error) = ended {
            prop_assert!(matches!(error, RunError::Store(_)));
        }
        check_record(&case, &history, None);
    }
}

const TWO_BRANCHES: &str = r#"
[stage.bad]
run = "false"
[stage.needs_bad]
run = "true"
after = ["bad"]
[stage.slow]
run = "true"
[stage.after_slow]
run = "true"
after = ["slow"]
"#;

fn two_branches() -> (Case, Script) {
    let script = Script {
        takes: HashMap::from([("bad".to_owned(), 10), ("slow".to_owned(), 50)]),
        failures: HashMap::from([("bad".to_owned(), 1)]),
        ..Script::default()
    };
    (Case::new(TWO_BRANCHES), script)
}

#[test]
fn the_first_failure_lets_what_runs_end_and_skips_the_rest() {
    let (case, script) = two_branches();
    let mut history = History::default();
    let end = case.run(&script, Options::default(), &mut history, None).unwrap();
    assert_eq!(end, RunEnd::Failed);
    let phases = history.phases(&case);
    assert_eq!(phases["bad"], Phase::Failed);
    assert_eq!(phases["slow"], Phase::Succeeded);
    assert_eq!((phases["needs_bad"], phases["after_slow"]), (Phase::Skipped, Phase::Skipped));
}

#[test]
fn a_wish_to_stop_that_comes_while_a_failure_is_put_on_record_finds_an_end() {
    let case = Case::new("[stage.bad]\nrun = \"false\"\n");
    let script = Script { failures: HashMap::from([("bad".to_owned(), 1)]), ..Script::default() };
    let mut history = History::default();
    history.memory.locked = 3;
    assert_eq!(case.run(&script, Options::default(), &mut history, Some(1_000)).unwrap(), RunEnd::Failed);
    let events = history.memory.events.borrow();
    let is_wish = |recorded: &Recorded, reason| recorded.event == Event::StopRequested { reason };
    let told = |reason| events.iter().position(|recorded| is_wish(recorded, reason)).unwrap();
    assert!(told(StopReason::TaskFailed) < told(StopReason::Signal));
}

#[test]
fn a_task_that_is_made_again_is_not_done_until_it_is() {
    let case = Case::new("[stage.a]\nrun = \"true\"\n[stage.b]\nrun = \"x\"\nafter = [\"a\"]\n");
    let script = Script { failures: HashMap::from([("b".to_owned(), 1)]), ..Script::default() };
    let mut history = History::default();
    case.run(&script, Options::default(), &mut history, None).unwrap();
    history.resume(2);
    let mut state = history.state(2);
    assert!(state.tasks[0].done_at.is_some());
    state.apply(&Recorded { at: Millis(9_000), event: Event::TaskReopened { task: TaskId(0) } }).unwrap();
    assert_eq!((state.tasks[0].phase, state.tasks[0].done_at), (Phase::Waiting, None));
}

#[test]
fn a_second_wish_to_stop_is_heard_while_a_run_without_a_record_ends_what_runs() {
    let (case, script) = two_branches();
    let mut history = History::default();
    history.memory.batches_left = Some(1);
    let script = Script { takes: HashMap::from([("slow".to_owned(), 900_000)]), lingers: 600_000, ..script };
    let ended = case.run(&script, Options { keep_going: true, ..Options::default() }, &mut history, Some(100));
    assert!(matches!(ended, Err(RunError::Store(_))), "{ended:?}");
    assert!(history.took < 2 * PATIENCE, "{:?}", history.took);
}

#[test]
fn a_run_waits_for_room_on_the_disk_and_goes_on_by_itself() {
    let case = Case::new("[stage.a]\nrun = \"true\"\n");
    let script = Script { full_looks: 3, ..Script::default() };
    let mut history = History::default();
    assert_eq!(case.run(&script, Options::default(), &mut history, None).unwrap(), RunEnd::Succeeded);
    let started = history.memory.events.borrow()[0].at;
    // Looked at once a second, from the first second on.
    assert!(started >= Millis(4_000), "started at {started}");
}

#[test]
fn keep_going_skips_only_what_needs_the_failed_task() {
    let (case, script) = two_branches();
    let mut history = History::default();
    let options = Options { keep_going: true, ..Options::default() };
    assert_eq!(case.run(&script, options, &mut history, None).unwrap(), RunEnd::Failed);
    let phases = history.phases(&case);
    assert_eq!((phases["needs_bad"], phases["after_slow"]), (Phase::Skipped, Phase::Succeeded));
}

#[test]
fn a_failed_run_that_is_resumed_tries_again_what_failed_and_what_was_skipped() {
    let (case, script) = two_branches();
    let mut history = History::default();
    assert_eq!(case.run(&script, Options::default(), &mut history, None).unwrap(), RunEnd::Failed);
    history.resume(case.graph.len());
    assert_eq!(case.run(&script, Options::default(), &mut history, None).unwrap(), RunEnd::Succeeded);
    let state = history.state(case.graph.len());
    let attempts: Vec<usize> = state.tasks.iter().map(|task| task.attempts.len()).collect();
    assert_eq!(attempts, [2, 1, 1, 1]);
}

#[test]
fn a_retry_waits_for_its_backoff() {
    let case = Case::new("[stage.a]\nrun = \"true\"\nretries = 1\nbackoff = \"10s\"\n");
    let script = Script { failures: HashMap::from([("a".to_owned(), 1)]), ..Script::default() };
    let mut history = History::default();
    assert_eq!(case.run(&script, Options::default(), &mut history, None).unwrap(), RunEnd::Succeeded);
    let state = history.state(1);
    let [first, second] = &state.tasks[0].attempts[..] else { panic!("two attempts: {state:?}") };
    let waited = second.started - first.ended.as_ref().unwrap().at;
    assert!((10_000..=15_100).contains(&waited.0), "waited {waited}");
}

#[test]
fn nothing_starts_on_a_device_before_its_driver_has_answered() {
    let text = "[stage.gpu]\nrun = 'x'\nresources = { gpu_memory = '1GiB' }\n[stage.cpu]\nrun = 'x'\n";
    let device = Device { id: "box/gpu0".to_owned(), memory: Bytes(8 << 30), ..Device::default() };
    let case = Case::on(text, vec![device]);
    let script = Script { look_takes: 60_000, ..Script::default() };
    let mut history = History::default();
    let end = case.run(&script, Options::default(), &mut history, None).unwrap();
    assert_eq!(end, RunEnd::Succeeded);
    let events = history.memory.events.borrow();
    let started = |of: u32| {
        let is_it = |event: &Event| matches!(event, Event::AttemptStarted { task, .. } if task.0 == of);
        events.iter().find(|recorded| is_it(&recorded.event)).map(|recorded| recorded.at)
    };
    // What it says counts once it has taken long twice.
    assert_eq!(started(0), Some(Millis(122_000)));
    assert!(started(1) < Some(Millis(61_000)), "{:?}", started(1));
}
