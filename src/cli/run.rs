//! `trainyard run FILE`: plan a pipeline for this machine and carry it out.

#![expect(clippy::disallowed_methods, reason = "a command reads the clock once, and where its binaries are")]

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::pipeline_file::PipelineFile;
use super::planning::{self, Planning};
use super::{Exit, Failure, state, trace};
use crate::engine::local::Local;
use crate::engine::process;
use crate::engine::warden::{self, Warden};
use crate::fleet::Fleet;
use crate::graph::TaskGraph;
use crate::plan::Plan;
use crate::probe::{self, Machine, Monitor};
use crate::report;
use crate::run::admission::{Ledger, Readings};
use crate::run::decide::{Dispatcher, Options};
use crate::run::engine::Stop;
use crate::run::event::RunEnd;
use crate::run::launch::{Ground, run_mark};
use crate::run::observer::Observer;
use crate::run::state::RunState;
use crate::run::store::{Header, Orchestrator, Store, TaskHeader};
use crate::run::supervisor::{Clock, Look, Parts, Supervisor};
use crate::spec::{Action, Pipeline};
use crate::units::Millis;

/// Run a pipeline on this machine
#[derive(Args)]
pub(super) struct Command {
    #[command(flatten)]
    file: PipelineFile,
    #[command(flatten)]
    planning: Planning,
    /// Run at most N tasks at once
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    jobs: Option<u32>,
    /// Go on with what does not need a failed task
    #[arg(long, short)]
    keep_going: bool,
    /// Folder of the record, the logs and the checkpoints [default: .trainyard beside FILE]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Print what stages print, each line behind its task's name
    #[arg(long)]
    mirror: bool,
    /// Print errors and the end only
    #[arg(long, short, conflicts_with = "json")]
    quiet: bool,
    /// Print one JSON object per event
    #[arg(long)]
    json: bool,
}

impl Command {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        if self.planning.fleet.is_some() {
            let report = miette::miette!(
                help = "`trainyard plan --fleet FILE` plans for other hardware",
                "`run` runs on this machine"
            );
            return Err(Failure { exit: Exit::Usage, report });
        }
        let (pipeline, graph) = match self.file.load(true)? {
            Ok(loaded) => loaded,
            Err(exit) => return Ok(exit),
        };
        let ops = ops_program(&pipeline)?;
        let root = std::path::absolute(self.file.folder()).map_err(|error| Failure::because(Exit::Bug, error))?;
        let options = probe::Options::from_env();
        let machine = planning::this_machine(&pipeline, &options);
        let fleet = machine.fleet();
        let plan = self.planning.make(&pipeline, &graph, &fleet)?;
        let state = self.state.clone().unwrap_or_else(|| self.file.folder().join(state::FOLDER));
        let mut store = Store::open(&state).map_err(|error| Failure::because(Exit::Bug, error))?;
        let header = header(&self.file.file, (&pipeline, &graph), &machine, &plan)?;
        let ground = Ground {
            run: header.id.clone(),
            root,
            dir: std::path::absolute(store.run_dir(&header.id)).unwrap_or_else(|_| store.run_dir(&header.id)),
            ops,
        };
        let session = Session {
            pipeline: &pipeline,
            graph: &graph,
            machine: &machine,
            options: &options,
            fleet: &fleet,
            plan: &plan,
        };
        let end = session.carry_out(&self, &mut store, &header, &ground)?;
        Ok(match end {
            RunEnd::Succeeded => Exit::Done,
            RunEnd::Failed => Exit::StageFailed,
            RunEnd::Interrupted => Exit::Interrupted,
        })
    }

    fn observers(&self, dir: &Path) -> Vec<Box<dyn Observer>> {
        let style = report::Style::choose(self.quiet, self.json);
        report::observers(report::Options {
            style,
            mirror: self.mirror,
            dir: dir.to_owned(),
            elsewhere: state::elsewhere(dir.ancestors().nth(2).unwrap_or(dir)),
            screen: trace::screen(),
        })
    }
}

/// What a run needs besides its record.
struct Session<'a> {
    pipeline: &'a Pipeline,
    graph: &'a TaskGraph,
    machine: &'a Machine,
    options: &'a probe::Options,
    fleet: &'a Fleet,
    plan: &'a Plan,
}

impl Session<'_> {
    fn carry_out(
        &self,
        command: &Command,
        store: &mut Store,
        header: &Header,
        ground: &Ground,
    ) -> Result<RunEnd, Failure> {
        let Self { pipeline, graph, .. } = *self;
        let bug = |error: std::io::Error| Failure::because(Exit::Bug, error);
        for folder in ["logs", "events"] {
            std::fs::create_dir_all(ground.dir.join(folder)).map_err(bug)?;
        }
        trace::to_run_folder(&ground.dir).map_err(bug)?;
        let mut key = store.begin(header).map_err(|error| Failure::because(Exit::Bug, error))?;
        let state = RunState::new(graph.len());
        let jobs = command.jobs.map(|jobs| jobs as usize);
        let options = Options { jobs, keep_going: command.keep_going, seed: header.started.0 };
        let dispatcher =
            Dispatcher::new((pipeline, graph), (self.fleet, self.plan), Ledger::new(self.fleet), options, &state);
        let parts = Parts {
            pipeline,
            graph,
            fleet: self.fleet,
            plan: self.plan,
            ground,
            dispatcher,
            observers: command.observers(&ground.dir),
            look: self.look(&header.id)?,
        };
        let mark = run_mark(&header.id);
        let grace = pipeline.stages.iter().map(|stage| stage.limits.grace).max().unwrap_or_default();
        let warden = Warden::start(&mark, grace.as_std()).map_err(bug)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(bug)?;
        let ended = runtime.block_on(async {
            let mut stops = signals().map_err(bug)?;
            let clock = Clock::starting_at(header.started);
            let engine = Local::new(command.mirror);
            let mut supervisor = Supervisor::new(parts, engine, (store, &mut key), state, clock);
            supervisor.carry_out(&mut stops).await.map_err(|error| Failure::because(Exit::Bug, error))
        });
        // What left its group and closed its output was not seen when its task ended.
        warden::end_marked(&mark, Duration::ZERO);
        warden.dismiss();
        ended
    }

    /// Returns what reads the devices' memory while the run goes on.
    fn look(&self, run: &str) -> Result<Box<dyn FnMut(Millis) -> Look + '_>, Failure> {
        let monitor = Monitor::open(self.options, &self.machine.gpus);
        let Some(monitor) = monitor.map_err(|error| Failure::because(Exit::Bug, error))? else {
            return Ok(Box::new(|_| Look::default()));
        };
        let mark = run_mark(run);
        let tasks: std::collections::HashMap<String, _> =
            self.graph.ids().map(|id| (self.graph.tasks[id.index()].name.clone(), id)).collect();
        Ok(Box::new(move |now| {
            let read = monitor.read();
            let task =
                |pid| process::marked_as(pid, &mark, "TRAINYARD_TASK").and_then(|name| tasks.get(&name).copied());
            let readings = Readings::new(now, self.fleet, &read, task);
            Look { readings, utilisation: read.iter().map(|reading| reading.utilisation).collect() }
        }))
    }
}

/// Returns what the user asks for by signals: the first one ends the run gracefully, the next one at once.
fn signals() -> std::io::Result<mpsc::UnboundedReceiver<Stop>> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        for stop in std::iter::once(Stop::Gracefully).chain(std::iter::repeat(Stop::Now)) {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hang_up.recv() => {}
            }
            if sender.send(stop).is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

fn header(
    file: &Path,
    (pipeline, graph): (&Pipeline, &TaskGraph),
    machine: &Machine,
    plan: &Plan,
) -> Result<Header, Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let started = Millis(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
    let own = process::identify(std::process::id());
    let process = own.ok_or_else(|| Failure::because(Exit::Bug, std::io::Error::other("/proc cannot be read")))?;
    let name = &pipeline.name;
    let tasks = graph.tasks.iter().zip(&plan.placed).map(|(task, placed)| TaskHeader {
        name: task.name.clone(),
        stage: pipeline.stages[task.stage].name.clone(),
        planned: (placed.start, placed.finish),
    });
    // Four digits that differ for two runs that start in one second.
    let nonce = (now.subsec_nanos() ^ process.pid.wrapping_mul(0x9E37_79B9)) & 0xFFFF;
    Ok(Header {
        id: format!("{}-{name}-{nonce:04x}", day_and_time(started)),
        pipeline: name.clone(),
        file: std::path::absolute(file).unwrap_or_else(|_| file.to_owned()).display().to_string(),
        orchestrator: Orchestrator { host: machine.host.name.clone(), boot: process::boot_id(), process },
        started,
        tasks: tasks.collect(),
    })
}

/// Returns `20261121-093015`, in UTC.
fn day_and_time(at: Millis) -> String {
    let at = jiff::Timestamp::from_millisecond(i64::try_from(at.0).unwrap_or(0)).unwrap_or_default();
    at.strftime("%Y%m%d-%H%M%S").to_string()
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
        Some(stage) if !is_file(&path) => Err(Failure::because(
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

fn is_file(path: &Path) -> bool {
    path.is_file()
}
