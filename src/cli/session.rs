//! What `run` and `resume` have in common: a pipeline made ready for this machine, and carried out until it ends.

#![expect(clippy::disallowed_methods, reason = "a command reads the clock once, and where its binaries are")]

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;

use tokio::sync::mpsc;

use super::again::Again;
use super::on_finish::Finish;
use super::pipeline_file::{Loaded, PipelineFile};
use super::planning::{self, Planning};
use super::presence::Processes;
use super::state::broken;
use super::stops::{self, Early};
use super::up_to_date::UpToDate;
use super::{Exit, Failure, detach, disk, output, readings, state, trace};
use crate::engine::attendance::Share;
use crate::engine::local::Local;
use crate::engine::race::{self, Racing};
use crate::engine::warden::{self, Warden};
use crate::engine::{room, strays};
use crate::fleet::Fleet;
use crate::graph::{TaskGraph, TaskId};
use crate::plan::Plan;
pub(super) use crate::probe::clock::now;
use crate::probe::{self, Machine, mps};
use crate::report;
use crate::run::admission::Ledger;
use crate::run::cache::aside::forget_leftovers;
use crate::run::cache::engine::Caching;
use crate::run::crash;
use crate::run::decide::{Dispatcher, Options};
use crate::run::event::{Recorded, RunEnd};
use crate::run::launch::{self, Ground, run_mark};
use crate::run::layer::THREADS;
use crate::run::limit;
use crate::run::neighbours::{self, Presence, Shared};
use crate::run::observer::Observer;
use crate::run::ports::Ports;
use crate::run::state::RunState;
use crate::run::store::{RunKey, Store, StoreError};
use crate::run::supervisor::{Clock, Parts, Replanner, RunError, Supervisor};
use crate::spec::{Action, Pipeline, Stage};
use crate::units::{Bytes, Millis, ParseUnitError};

/// As long as a run may take.
const FOR_EVER: Duration = Duration::from_hours(24 * 365);

/// How a run is to be carried out and shown.
#[derive(Args, Clone, Debug)]
pub(super) struct Manner {
    /// Run at most N tasks at once
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) jobs: Option<u32>,
    /// Go on with what does not need a failed task
    #[arg(long, short)]
    pub(super) keep_going: bool,
    /// Print what stages print, each line behind its task's name
    #[arg(long)]
    mirror: bool,
    /// Print errors and the end only
    #[arg(long, short, conflicts_with = "json")]
    quiet: bool,
    /// Print one JSON object per event
    #[arg(long)]
    json: bool,
    /// Start nothing new while less than SIZE is left on the disk [default: 1GiB, or a twentieth of a small disk]
    #[arg(long, value_name = "SIZE", value_parser = size_or_zero)]
    pub(super) keep_free: Option<Bytes>,
    /// Let running tasks go on should the orchestrator die: `resume` learns how they ended [always with --detach]
    #[arg(long)]
    pub(super) survive: bool,
    /// Print the run's id and go on without this terminal; what would be shown is written to the run's folder
    #[arg(long)]
    pub(super) detach: bool,
    /// Be the process that `--detach` leaves behind
    #[arg(long, hide = true, conflicts_with = "detach")]
    detached: bool,
}

/// Reads a memory size; nothing at all needs no unit.
pub(super) fn size_or_zero(text: &str) -> Result<Bytes, ParseUnitError> {
    if text.trim() == "0" { Ok(Bytes::ZERO) } else { text.parse() }
}

impl Manner {
    /// Returns how many tasks may run at once.
    pub(super) fn jobs(&self) -> Option<usize> {
        self.jobs.map(|jobs| jobs as usize)
    }

    /// Leaves the terminal behind, now that the run is on record, if that was asked for.
    pub(super) fn leave_if_detached(&self, ground: &Ground) -> Result<(), Failure> {
        if self.detached { detach::leave_terminal(ground).map_err(broken) } else { Ok(()) }
    }

    /// Whether attempts outlive the orchestrator.
    pub(super) const fn survives(&self) -> bool {
        self.survive || self.detached
    }

    /// Whether it is the process that `--detach` leaves behind.
    pub(super) const fn is_detached(&self) -> bool {
        self.detached
    }

    /// Whether JSON is asked for.
    pub(super) const fn is_json(&self) -> bool {
        self.json
    }

    /// Says only what is wrong from here on, if that was asked for.
    pub(super) fn begin(&self) {
        if self.quiet {
            output::hush();
        }
    }

    /// Makes what shows the run. What could not be written is noted in `lost`.
    pub(super) fn observers(&self, dir: &Path, lost: &report::Lost) -> Vec<Box<dyn Observer>> {
        let style = report::Style::choose(self.quiet, self.json);
        let mut observers = report::observers(report::Options {
            lost: std::rc::Rc::clone(lost),
            style,
            mirror: self.mirror,
            dir: dir.to_owned(),
            elsewhere: state::elsewhere(dir.ancestors().nth(2).unwrap_or(dir)),
            screen: trace::screen(),
            logs_only: trace::is_json(),
        });
        observers.push(Box::new(trace::Flush));
        if self.detached {
            observers.push(Box::new(detach::Shown::new(dir)));
        }
        observers
    }
}

/// A pipeline made ready for this machine.
pub(super) struct Prepared {
    pub(super) pipeline: Pipeline,
    pub(super) graph: TaskGraph,
    pub(super) machine: Machine,
    pub(super) plan: Plan,
    /// Folder of the pipeline file, absolute.
    pub(super) root: PathBuf,
    pub(super) ops: PathBuf,
    pub(super) options: probe::Options,
    pub(super) fleet: Fleet,
    /// How long a turn lasts where tasks take turns.
    pub(super) quantum: Millis,
}

/// A pipeline that has been read and can be carried out here.
pub(super) struct Read {
    pub(super) pipeline: Pipeline,
    pub(super) graph: TaskGraph,
    /// Folder of the pipeline file, absolute.
    pub(super) root: PathBuf,
    pub(super) ops: PathBuf,
    /// BLAKE3 of the file in hexadecimal digits, and what it holds.
    pub(super) text: (String, Vec<u8>),
}

/// Reads a pipeline; the inner error is one that has been printed.
pub(super) fn read(file: &PipelineFile, planning: &Planning) -> Result<Result<Read, Exit>, Failure> {
    if planning.fleet.is_some() {
        let report = miette::miette!(
            help = "`trainyard plan --fleet FILE` plans for other hardware",
            "`run` runs on this machine"
        );
        return Err(Failure { exit: Exit::Usage, report });
    }
    let Loaded { result, texts, digest, bytes } = file.read(true)?;
    let (pipeline, graph) = match result {
        Ok(loaded) => loaded,
        Err(problems) => return Ok(Err(texts.reject(&problems))),
    };
    let ops = ops_program(&pipeline)?;
    let root = absolute(file.folder());
    Ok(Ok(Read { pipeline, graph, root, ops, text: (digest, bytes) }))
}

impl Read {
    /// Plans what is not done (`[n_tasks]`) for this machine. `dir` is the state folder, which knows what earlier runs used.
    /// `goes_on`: whether tasks run already, which are attended to whether or not the others can be placed.
    pub(super) fn prepare(
        self,
        planning: &Planning,
        dir: &Path,
        done: &[bool],
        goes_on: bool,
    ) -> Result<Prepared, Failure> {
        let Self { mut pipeline, graph, root, ops, text: _ } = self;
        let options = planning.probe()?;
        let machine = planning::this_machine(&pipeline, &options);
        let fleet = machine.fleet();
        let origins = Planning::learn(&mut pipeline, &fleet, dir);
        planning::say_what_is_unknown(&pipeline, &origins);
        planning::say_what_is_not_limited(&pipeline, &fleet, &inherited());
        planning::say_which_have_no_backup(&pipeline, &origins);
        let plan = match planning.make_rest(&pipeline, &graph, &fleet, done) {
            Err(failure) if goes_on && failure.exit == Exit::Impossible => {
                output::warn(&failure.report.to_string());
                planning.make_rest(&pipeline, &graph, &fleet, &done_or_unfit(&pipeline, &graph, &fleet, done))
            }
            planned => planned,
        }?;
        let fleet = machine.fleet_of_run();
        let quantum = planning.quantum();
        Ok(Prepared { pipeline, graph, machine, plan, root, ops, options, fleet, quantum })
    }
}

/// Returns `[n_tasks]`: what is done, or could be placed nowhere.
fn done_or_unfit(pipeline: &Pipeline, graph: &TaskGraph, fleet: &Fleet, done: &[bool]) -> Vec<bool> {
    let ledger = Ledger::new(fleet);
    let fits = |stage: &Stage| stage.modes.iter().any(|mode| ledger.is_within_reach(&mode.resources));
    let fits: Vec<bool> = pipeline.stages.iter().map(fits).collect();
    let is_done = |task: TaskId| done.get(task.index()) == Some(&true);
    graph.ids().map(|task| is_done(task) || !fits[graph.tasks[task.index()].stage]).collect()
}

/// Returns to the system what reading and planning have freed: in small pieces between others, a long run would keep it.
fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}

impl Prepared {
    /// Returns what carries the run out. `seed` is for the jitter of retries: the run's first start.
    pub(super) const fn session<'a>(
        &'a self,
        ground: &'a Ground,
        attended: &'a Share,
        jobs: Option<usize>,
        (seed, now): (Millis, Millis),
    ) -> Session<'a> {
        Session { of: self, ground, attended, jobs, seed, now, up_to_date: None }
    }

    /// Returns how many tasks may run at once: as many as was said, or fewer where the system has no room for them,
    /// and refuses where it has none for a single one.
    pub(super) fn jobs(&self, manner: &Manner) -> Result<Option<usize>, Failure> {
        let wanted = manner.jobs().unwrap_or(usize::MAX).min(self.graph.len());
        let each = self.pipeline.stages.iter().map(|stage| room::processes_of(&stage.action)).max().unwrap_or(1);
        let each = each + u64::from(manner.survives());
        match room::for_attempts(u64::try_from(wanted).unwrap_or(u64::MAX), each) {
            (0, Some(scarce)) => {
                let report = miette::miette!(help = "raise that limit", "no task can be started: {scarce}");
                Err(Failure { exit: Exit::Bug, report })
            }
            (most, Some(scarce)) => {
                output::warn(&format!("at most {most} tasks at once, since {scarce}"));
                Ok(usize::try_from(most).ok())
            }
            (_, None) => Ok(manner.jobs()),
        }
    }
}

/// A run about to be carried out.
pub(super) struct Session<'a> {
    of: &'a Prepared,
    ground: &'a Ground,
    attended: &'a Share,
    /// How many tasks may run at once.
    jobs: Option<usize>,
    seed: Millis,
    now: Millis,
    up_to_date: Option<UpToDate>,
}

impl Session<'_> {
    /// Lets the run leave out what is up to date.
    pub(super) fn with(mut self, up_to_date: Option<UpToDate>) -> Self {
        self.up_to_date = up_to_date;
        self
    }

    /// Carries the run out from a state, and returns how the command ends. `untold` are the newest events of the record,
    /// of which no observer has heard, and the state before them; `early` keeps the signals since the run is ours.
    pub(super) fn carry_out(
        &self,
        manner: &Manner,
        recorded: (&mut Store, RunKey),
        state: RunState,
        untold: (RunState, Vec<Recorded>),
        early: Early,
    ) -> Result<Exit, Failure> {
        std::thread::scope(|scope| {
            // Linux lets what a thread starts wait where that has computed for long, as planning does: this one has not.
            let run = move || self.carry_out_beside(scope, manner, recorded, state, untold, early);
            let run = std::thread::Builder::new().spawn_scoped(scope, run).map_err(broken)?;
            run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// The same; what is planned while the run goes on has threads in `scope`.
    fn carry_out_beside<'s, 'e>(
        &'e self,
        scope: &'s std::thread::Scope<'s, 'e>,
        manner: &Manner,
        (store, mut key): (&mut Store, RunKey),
        state: RunState,
        (told, untold): (RunState, Vec<Recorded>),
        early: Early,
    ) -> Result<Exit, Failure> {
        give_memory_back();
        let Prepared { pipeline, graph, fleet, plan, .. } = self.of;
        let (jobs, seed) = (self.jobs, self.seed.0);
        let quantum = plan.takes_turns.then_some(self.of.quantum);
        let options = Options { jobs, keep_going: manner.keep_going, mps: mps::runs(), seed, quantum };
        let unseen = self.up_to_date.as_ref().map(UpToDate::unseen).unwrap_or_default();
        let mut dispatcher =
            Dispatcher::new((pipeline, graph), (fleet, plan), Ledger::new(fleet), options, unseen, &state);
        let look_up_again = self.up_to_date.as_ref().map(UpToDate::may_be_looked_up_again).unwrap_or_default();
        let outputs = graph.tasks.iter().flat_map(|task| &task.outputs).map(String::as_str);
        dispatcher.share(self.ground.run.clone(), neighbours::places(&self.of.root, outputs), look_up_again);
        let (answer, answers) = mpsc::unbounded_channel();
        let again = Again { of: self.of, seed };
        let ask = move |rest| {
            let answer = answer.clone();
            let (to_thread, no_thread) = (answer.clone(), answer);
            let started =
                std::thread::Builder::new().spawn_scoped(scope, move || drop(to_thread.send(again.plan(&rest))));
            if started.is_err() {
                // The order so far stays.
                let _ = no_thread.send(None);
            }
        };
        let lost = report::Lost::default();
        let ports = Ports::open(self.ground.ports.clone());
        let mark = run_mark(&self.ground.run);
        // Where attempts are to survive us, nobody ends them when we die.
        let start = || Warden::start(&mark, longest_grace(pipeline), self.attended, ports.copy());
        let warden = (!manner.survives()).then(start).transpose().map_err(broken)?;
        let parts = Parts {
            pipeline,
            graph,
            fleet,
            plan,
            ground: self.ground,
            started: self.seed,
            dispatcher,
            observers: manner.observers(&self.ground.dir, &lost),
            known: self.up_to_date.as_ref().map(|known| known.events(graph)).unwrap_or_default(),
            replanner: Replanner::new(ask, answers),
            looker: readings::looker(self.of, &self.ground.run)?,
            ports,
            full_disk: disk::full(self.ground, manner.keep_free),
        };
        strays::adopt_orphans();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(THREADS)
            .thread_keep_alive(FOR_EVER)
            .build()
            .map_err(broken)?;
        store.attend(true).map_err(broken)?;
        // One that is there whatever the system has to spare later.
        runtime.spawn_blocking(|| ());
        let ended = runtime.block_on(async {
            let mut stops = early.hand_over().map_err(broken)?;
            let cache = self.up_to_date.as_ref().map(|known| known.cache(graph));
            let unkept = self.up_to_date.as_ref().map(UpToDate::unkept).unwrap_or_default();
            let local = Local::new(manner.mirror, stops::told_with_all().map_err(broken)?).map_err(broken)?;
            let engine = Caching::new(Racing::new(local, manner.keep_free), cache, unkept);
            // Planning and looking at files took their time.
            let clock = Clock::starting_at(now().max(self.now));
            let record = Shared::new((&mut *store, &mut key), &Processes, state::here(), self.now);
            let mut supervisor = Supervisor::new(parts, engine, record, state, clock, (told, untold));
            Ok::<_, Failure>(supervisor.carry_out(&mut stops).await)
        })?;
        // Whoever still looks something up waits in vain.
        self.up_to_date.iter().for_each(UpToDate::call_off);
        store.attend(false).map_err(broken)?;
        // What left its group and closed its output was not seen when its task ended.
        crash::point("closing");
        // What carries the mark of a run that was taken over is somebody else's by now.
        if !matches!(ended, Err(RunError::Store(StoreError::TakenOver { .. }))) {
            let warden = warden.as_ref().map(Warden::pid);
            warden::end_leftovers(&mark, || strays::adopted(warden));
        }
        if ended.is_ok() {
            sweep(&self.ground.dir, &HashSet::new());
        }
        if let (Ok(_), Some(on_finish)) = (&ended, &pipeline.on_finish) {
            Finish::of(self.ground, pipeline, store)?.tell(on_finish, store, &mut key)?;
        }
        if let Some(warden) = warden {
            warden.dismiss();
        }
        crash::point("dismissed");
        let exit = match ended.map_err(broken)? {
            RunEnd::Succeeded => {
                if let Err(error) = forget_leftovers(&self.ground.dir.join("aside")) {
                    tracing::debug!(%error, "what failed attempts left stays aside");
                }
                Exit::Done
            }
            RunEnd::Failed => Exit::StageFailed,
            RunEnd::Interrupted => Exit::Interrupted,
        };
        match (lost.take(), exit) {
            // Whoever closes a terminal interrupts the run, and takes from it where it writes.
            (Some(error), Exit::Interrupted) => output::warn(&format!("cannot write the output: {error}")),
            (lost, _) => drop(output::finish(lost.map_or(Ok(()), Err))?),
        }
        Ok(exit)
    }
}

/// Removes what attempts of a run have left in places of their own, but for those that are `kept`.
pub(super) fn sweep(dir: &Path, kept: &HashSet<PathBuf>) {
    if let Err(error) = race::sweep(&launch::all_staging(dir), kept) {
        tracing::debug!(%error, "what attempts left in places of their own stays");
    }
}

/// Returns the longest time that a stage is given to end by itself.
pub(super) fn longest_grace(pipeline: &Pipeline) -> Duration {
    pipeline.stages.iter().map(|stage| stage.limits.grace).max().unwrap_or_default().as_std()
}

/// Makes the folders of a run, and writes its log lines there from now on.
pub(super) fn make_folders(ground: &Ground) -> Result<(), Failure> {
    for folder in ["logs", "events"] {
        std::fs::create_dir_all(ground.dir.join(folder)).map_err(broken)?;
    }
    trace::to_run_folder(&ground.dir).map_err(broken)
}

/// Returns what is set around us of the variables that limit memory, and which tasks are around us.
pub(super) fn inherited() -> BTreeMap<String, String> {
    let set = |name: &str| Some((name.to_owned(), std::env::var_os(name)?.into_string().ok()?));
    let within = Processes.within().lines();
    let around = (!within.is_empty()).then(|| (launch::AROUND.to_owned(), within));
    limit::VARIABLES.into_iter().filter_map(set).chain(around).collect()
}

/// Returns a path from the root on, links left as they are.
pub(super) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Returns the time that was so long ago.
pub(super) fn ago(time: Duration) -> SystemTime {
    SystemTime::now().checked_sub(time).unwrap_or(UNIX_EPOCH)
}

/// Returns the program of the built-in ops: `$TRAINYARD_OPS`, or the one beside this program.
fn ops_program(pipeline: &Pipeline) -> Result<PathBuf, Failure> {
    let path = std::env::var_os("TRAINYARD_OPS").map(PathBuf::from).or_else(|| {
        let own = std::env::current_exe().ok()?;
        Some(own.with_file_name("trainyard-ops"))
    });
    let path = path.unwrap_or_else(|| PathBuf::from("trainyard-ops"));
    let uses = pipeline.stages.iter().find(|stage| matches!(stage.action, Action::Op { .. }));
    match uses {
        Some(stage) if !path.is_file() => Err(Failure::because(
            Exit::Impossible,
            std::io::Error::other(format!(
                "stage `{}` uses a built-in op, but {} is not there: build it with `make build`, or name it in \
                 TRAINYARD_OPS",
                stage.name,
                path.display()
            )),
        )),
        _ => Ok(path),
    }
}
