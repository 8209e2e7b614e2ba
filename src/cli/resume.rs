//! `trainyard resume [RUN]`: go on with a run whose process is gone, that was stopped, or in which a task failed.

use std::collections::HashSet;
use std::panic;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use clap::Args;
use miette::Diagnostic;
use thiserror::Error;

use super::detach;
use super::on_finish::Finish;
use super::pipeline_file::{self, PipelineFile};
use super::planning::Planning;
use super::session::{self, Manner, Prepared, Read};
use super::state::{self, Replay, StateArgs, broken};
use super::stops::Early;
use super::up_to_date::{self, Force, UpToDate};
use super::{Exit, Failure, output};
use crate::engine::attendance::Share;
use crate::engine::sentinel::{self, Found, How};
use crate::engine::warden;
use crate::graph::TaskId;
use crate::probe;
use crate::report::summary::shell_word;
use crate::run::cache::keeper::Places;
use crate::run::crash;
use crate::run::event::{Event, Recorded, RunEnd, StopReason};
use crate::run::launch::{self, Ground, run_mark};
use crate::run::resume::{self, Fate};
use crate::run::state::{Phase, RunState, TaskState};
use crate::run::store::{Header, Invocation, RunRow, Store, TaskHeader};
use crate::units::Millis;

/// Go on with a run that was interrupted or failed; what succeeded is not done again
// Plans for other hardware are not carried out here; who asks for one is told so.
#[derive(Args)]
#[command(mut_arg("fleet", |arg| arg.hide(true)))]
pub(super) struct Command {
    /// A run's id, the beginning of it, or its name [default: the newest that has not succeeded]
    run: Option<String>,
    #[command(flatten)]
    state: StateArgs,
    #[command(flatten)]
    planning: Planning,
    #[command(flatten)]
    manner: Manner,
    /// Go on although the pipeline file has changed since the run was started
    #[arg(long)]
    changed: bool,
    /// Go on although the run was started on another machine, which is gone: nobody can see from here that it is
    #[arg(long)]
    dead: bool,
}

/// Why a run cannot go on.
#[derive(Debug, Error, Diagnostic)]
enum Refusal {
    #[error("every run has succeeded: there is nothing to resume")]
    NothingUnfinished,
    #[error("run {run} is still carried out, {by}")]
    #[diagnostic(help("`trainyard cancel {run}` ends it{hint}"))]
    UnderWay { run: String, by: String, hint: String },
    #[error("another process is resuming run {0}")]
    Outrun(String),
    #[error("the pipeline file {file} cannot be read")]
    #[diagnostic(help(
        "the run began with what is kept as `{kept}`: put that there. Where the file has moved, `trainyard run` starts anew \
         with it, and what is up to date is not done again"
    ))]
    Unread { file: String, source: std::io::Error, kept: String },
    #[error("{file} has changed since run {run} was started")]
    #[diagnostic(help(
        "`trainyard run {word}` starts anew; `trainyard resume {run} --changed` goes on with the tasks that have not \
         succeeded yet, as the file says now", word = shell_word(file)
    ))]
    Changed { file: String, run: String },
    #[error("run {run} was recorded by an earlier version, which did not note how it was called")]
    #[diagnostic(help(
        "`trainyard run {word}` starts anew; `trainyard resume {run} --changed` goes on with the tasks that have not \
         succeeded yet, as the file says now and without `--set`", word = shell_word(file)
    ))]
    Earlier { file: String, run: String },
    #[error("{file} has other tasks now than run {run}")]
    #[diagnostic(help("`trainyard run {word}` starts anew", word = shell_word(file)))]
    OtherTasks { file: String, run: String },
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let exit = match refusal {
            Refusal::NothingUnfinished | Refusal::UnderWay { .. } | Refusal::Outrun(_) => Exit::Usage,
            Refusal::Unread { .. } | Refusal::Changed { .. } | Refusal::Earlier { .. } | Refusal::OtherTasks { .. } => {
                Exit::Rejected
            }
        };
        Self { exit, report: refusal.into() }
    }
}

impl Command {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let unfinished = |row: &RunRow| !matches!(row.end, Some((_, RunEnd::Succeeded)));
        let picked = self.state.pick_where(self.run.as_deref(), unfinished)?;
        let (mut store, row) = picked.ok_or(Refusal::NothingUnfinished)?;
        let run = row.header.id.clone();
        if !unfinished(&row) {
            // The orchestrator may have been killed before it ended what had hidden from its tasks.
            if !state::is_alive(&row) {
                warden::end_marked(&run_mark(&run), Duration::ZERO);
                session::sweep(&store.run_dir(&run), &HashSet::new());
                self.tell_of_the_end(&store, &row)?;
            }
            return output::print(&format!("run {run} has succeeded: there is nothing left to do\n"));
        }
        if row.end.is_none() && state::is_alive(&row) && !(self.dead && state::is_out_of_sight(&row)) {
            let by = &row.header.orchestrator;
            let by = if state::is_here(by) {
                format!("by process {} on {}", by.process.pid, by.host)
            } else {
                state::elsewhere_on(by)
            };
            let hint = if state::is_out_of_sight(&row) {
                format!("; if that machine is gone for good, `trainyard resume {run} --dead` goes on here")
            } else {
                String::new()
            };
            return Err(Refusal::UnderWay { run, by, hint }.into());
        }
        if self.manner.detach {
            return detach::relaunch();
        }
        self.manner.begin();
        match self.prepare(&row.header, &mut store)? {
            Ok((prepared, past)) => self.go_on(&prepared, past, store, &row),
            Err(exit) => Ok(exit),
        }
    }

    /// Tells that the run is over, should its orchestrator have died before it had.
    fn tell_of_the_end(&self, store: &Store, row: &RunRow) -> Result<(), Failure> {
        let (Header { id, file, invocation, .. }, Some(end)) = (&row.header, row.end) else { return Ok(()) };
        let pipeline = PipelineFile::of(&row.header);
        let is_as_it_was = pipeline.has(&invocation.file_digest).unwrap_or(false);
        if !is_as_it_was || state::replay(store, row)?.finish_told {
            return Ok(());
        }
        let Ok((pipeline, _)) = pipeline.load(false)? else { return Ok(()) };
        let Some(on_finish) = &pipeline.on_finish else { return Ok(()) };
        state::refuse_unwritable(store.dir())?;
        let mut store = Store::open(store.dir()).map_err(broken)?;
        let mut key = store
            .take_over(&row.header, &state::this_process()?)
            .map_err(broken)?
            .ok_or(Refusal::Outrun(id.clone()))?;
        let root = session::absolute(Path::new(file).parent().unwrap_or(Path::new("/")));
        let dir = session::absolute(&store.run_dir(id));
        Finish { run: id, pipeline: &pipeline.name, end, root: &root, dir: &dir }.tell(on_finish, &mut store, &mut key)
    }

    /// Reads the run's pipeline again, and plans anew what is left of it.
    fn prepare(&self, header: &Header, store: &mut Store) -> Result<Result<(Prepared, Past), Exit>, Failure> {
        let digest = &header.invocation.file_digest;
        let (run, file) = (header.id.clone(), header.file.clone());
        let pipeline = PipelineFile::of(header);
        if !self.changed && digest.is_empty() {
            return Err(Refusal::Earlier { file, run }.into());
        }
        let is_as_it_was = pipeline.has(digest).map_err(|source| {
            let kept = pipeline_file::kept(store.dir(), digest);
            Refusal::Unread { file: file.clone(), source, kept: kept.display().to_string() }
        })?;
        if !self.changed && !is_as_it_was {
            return Err(Refusal::Changed { file, run }.into());
        }
        let planning = self.planning.going_on(&header.invocation);
        let (read, told) = thread::scope(|scope| {
            let told = scope.spawn(|| Told::read(store, header));
            (session::read(&pipeline, &planning), told.join())
        });
        let read = match read? {
            Ok(read) => read,
            Err(exit) => return Ok(Err(exit)),
        };
        let now = read.graph.tasks.iter().map(|task| &task.name);
        if !now.eq(header.tasks.iter().map(|task| &task.name)) {
            return Err(Refusal::OtherTasks { file, run }.into());
        }
        let told = told.unwrap_or_else(|panic| panic::resume_unwind(panic))?;
        let past = Past::new(told, store, header, &read, !self.changed);
        let mut prepared = read.prepare(&planning, store.dir(), &past.done(), past.goes_on)?;
        past.enter(&mut prepared);
        Ok(Ok((prepared, past)))
    }

    fn go_on(&self, prepared: &Prepared, past: Past, store: Store, row: &RunRow) -> Result<Exit, Failure> {
        let run = row.header.id.clone();
        state::refuse_unwritable(store.dir())?;
        let mut store = Store::open(store.dir()).map_err(broken)?;
        let mut early = Early::keep().map_err(broken)?;
        let attended = Share::take(&row.dir).map_err(broken)?;
        let key = store.take_over(&row.header, &state::this_process()?).map_err(broken)?;
        let mut key = key.ok_or_else(|| Refusal::Outrun(run.clone()))?;
        crash::point("taken-over");
        let mut manner = self.manner.clone();
        manner.jobs = manner.jobs.or(row.header.invocation.jobs.and_then(|jobs| u32::try_from(jobs).ok()));
        manner.keep_going |= row.header.invocation.keep_going;
        manner.survive |= row.header.invocation.survive;
        let ground = Ground {
            run,
            root: prepared.root.clone(),
            dir: session::absolute(&store.run_dir(&row.header.id)),
            ops: prepared.ops.clone(),
            inherited: session::inherited(),
            survive: manner.survives(),
            ports: probe::ports(),
        };
        session::make_folders(&ground)?;
        // Whatever was recorded until the run was taken over.
        let Past { told: Told { state, events: seen }, lost, .. } = past;
        let mut replay = Replay::from(state);
        store.tell_events(&row.header.id, seen, |recorded| replay.take_in(&recorded)).map_err(broken)?;
        let mut state = replay.end()?;
        let left = Left { state: &state, row, ground: &ground, adopt: !self.changed };
        // Its warden may still be at it. What is left of an attempt must not write beside the next one.
        let mark = run_mark(&ground.run);
        left.note_asked();
        warden::end_marked_but(&mark, &left.spared(), session::longest_grace(&prepared.pipeline));
        crash::point("swept");
        let jobs = prepared.jobs(&manner)?;
        let now = session::now();
        let events = resume::events(&state, |task, number| left.fate(task, number));
        // What was interrupted ended when nobody was there, and not just now.
        let last_seen = left.last_seen().min(now);
        let at = |event: &Event| if matches!(event, Event::RunResumed { .. }) { now } else { last_seen };
        let mut events: Vec<Recorded> = events.into_iter().map(|event| Recorded { at: at(&event), event }).collect();
        let (told, replaced) = (state.clone(), left.all_replaced());
        for event in &events {
            state.apply(event).map_err(broken)?;
        }
        let dir = session::absolute(store.dir());
        let keep_free = manner.keep_free;
        let places = Places { state: &dir, root: &prepared.root, ops: &prepared.ops, keep_free };
        let of = (&prepared.pipeline, &prepared.graph);
        let Invocation { force, force_stages: force_stage, .. } = row.header.invocation.clone();
        let forced = Force { force, force_stage }.forced(&prepared.pipeline, &prepared.graph)?;
        let (up_to_date, reopened) = UpToDate::look_again(places, of, &ground, &state, (&lost, &forced), &mut early)?;
        let is_cached = |task: TaskId| up_to_date.as_ref().is_some_and(|known| known.done()[task.index()]);
        for (task, output) in replaced.into_iter().filter(|(task, _)| !is_cached(*task)) {
            let task = &prepared.graph.tasks[task.index()].name;
            output::note(&format!("`{output}` was changed or removed before anybody could keep it: {task} runs again"));
        }
        for event in reopened.into_iter().map(|event| Recorded { at: now, event }) {
            state.apply(&event).map_err(broken)?;
            events.push(event);
        }
        store.append(&mut key, &events).map_err(broken)?;
        // What is not adopted has ended, and that is on record.
        let open = state
            .tasks
            .iter()
            .zip(&prepared.graph.tasks)
            .flat_map(|(of, task)| of.open().map(|(number, _)| launch::staging(&ground.dir, &task.name, number)));
        session::sweep(&ground.dir, &open.collect());
        crash::point("resumed");
        manner.leave_if_detached(&ground)?;
        let session = prepared.session(&ground, &attended, jobs, (row.header.started, now)).with(up_to_date);
        session.carry_out(&manner, (&mut store, key), state, (told, events), early)
    }
}

/// What the events of a run tell.
struct Told {
    state: RunState,
    /// How many there are.
    events: usize,
}

impl Told {
    /// Reads them once: for the state of the run, and for what its attempts used.
    fn read(store: &mut Store, header: &Header) -> Result<Self, Failure> {
        let mut replay = Replay::from(RunState::new(header.tasks.len()));
        let events = store.learn_from(&header.id, |recorded| replay.take_in(recorded)).map_err(broken)?;
        Ok(Self { state: replay.end()?, events: usize::try_from(events).unwrap_or(usize::MAX) })
    }
}

/// What happened before a run goes on.
struct Past {
    told: Told,
    /// `[n_tasks]`: what is done and not there as it was.
    lost: Vec<bool>,
    /// `[n_tasks]`: what runs by the record, and has ended well while nobody was there.
    ended_well: Vec<bool>,
    /// Whether anything went on by itself.
    goes_on: bool,
}

impl Past {
    /// Looks at what is left of what happened. `adopt`: whether attempts are those that the pipeline still asks for.
    fn new(told: Told, store: &Store, header: &Header, read: &Read, adopt: bool) -> Self {
        let state = &told.state;
        let lost = up_to_date::lost(&read.root, (&read.pipeline, &read.graph), state);
        let dir = store.run_dir(&header.id);
        let ended_well = |(task, of): (&TaskHeader, &TaskState)| {
            let how = |number| sentinel::own_end(&launch::sentinel(&dir, &task.name, number)).map(|ended| ended.how);
            of.phase == Phase::Running && of.open().any(|(number, _)| how(number) == Some(How::Exited(0)))
        };
        let is_here = state::is_here(&header.orchestrator);
        let is_kept = |(task, of): (&TaskHeader, &TaskState)| {
            let kept = |number| {
                let record = launch::sentinel(&dir, &task.name, number);
                !sentinel::was_asked(&record) && sentinel::find(&record, is_here) != Found::Lost
            };
            of.phase == Phase::Running && of.open().any(|(number, _)| kept(number))
        };
        let goes_on = adopt && header.tasks.iter().zip(&state.tasks).any(is_kept);
        let ended_well = header.tasks.iter().zip(&state.tasks).map(|of| adopt && ended_well(of)).collect();
        Self { told, lost, ended_well, goes_on }
    }

    /// Returns `[n_tasks]`: what needs no plan.
    fn done(&self) -> Vec<bool> {
        let tasks = self.told.state.tasks.iter().zip(&self.lost).zip(&self.ended_well);
        tasks.map(|((task, lost), ended_well)| task.phase.is_done() && !lost || *ended_well).collect()
    }

    /// Enters into the plan in which mode tasks were done.
    fn enter(&self, Prepared { pipeline, graph, plan, .. }: &mut Prepared) {
        for (id, _) in graph.ids().zip(self.done()).filter(|(_, done)| *done) {
            let modes = &pipeline.stages[graph.tasks[id.index()].stage].modes;
            let mode = self.told.state.task(id).telling().map(|(_, attempt)| attempt.place.mode);
            plan.placed[id.index()].mode = mode.filter(|mode| *mode < modes.len()).unwrap_or(0);
        }
    }
}

/// What an orchestrator left that is gone.
struct Left<'a> {
    state: &'a RunState,
    row: &'a RunRow,
    ground: &'a Ground,
    /// Whether attempts that go on are those that the pipeline still asks for.
    adopt: bool,
}

impl Left<'_> {
    /// Returns what became of an attempt that had not ended.
    fn fate(&self, task: TaskId, number: u32) -> Fate {
        let name = &self.row.header.tasks[task.index()].name;
        // What was asked to end has ended, or is about to: that is no end of its own. So was one that has lost.
        let is_lost = self.state.task(task).phase != Phase::Running;
        let orchestrator = &self.row.header.orchestrator;
        let sentinel = launch::sentinel(&self.ground.dir, name, number);
        let wanted = self.takes_up() && !is_lost && !sentinel::was_asked(&sentinel);
        match sentinel::find(&sentinel, state::is_here(orchestrator)) {
            Found::Kept(process) if wanted && self.replaced(task, number).is_none() => Fate::Kept(process),
            Found::Kept(_) | Found::Lost => Fate::Lost { logged: self.ground.log(name, number).exists() },
        }
    }

    fn takes_up(&self) -> bool {
        self.adopt && self.state.stopping != Some(StopReason::Signal)
    }

    /// Returns when the last sign of life was seen of attempts that had not ended, or of who carried them out, ms since the
    /// Unix epoch.
    fn last_seen(&self) -> Millis {
        let tasks = self.row.header.tasks.iter().zip(&self.state.tasks);
        let logs = tasks.flat_map(|(task, of)| of.open().map(|(number, _)| self.ground.log(&task.name, number)));
        let printed = logs.filter_map(|log| {
            let since = std::fs::metadata(log).ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
            Some(Millis(u64::try_from(since.as_millis()).ok()?))
        });
        printed.fold(self.state.latest(), Millis::max)
    }

    /// Returns the output that somebody else has written, of an attempt that ended with nobody there: another run may do so
    /// then.
    fn replaced(&self, task: TaskId, number: u32) -> Option<String> {
        let TaskHeader { name, outputs, .. } = &self.row.header.tasks[task.index()];
        let record = sentinel::read(&launch::sentinel(&self.ground.dir, name, number));
        let left = record.and_then(|record| record.ended?.left());
        // Of a race, what has won comes into its place later.
        let is_staged = launch::staging(&self.ground.dir, name, number).exists();
        let places: Vec<PathBuf> = outputs.iter().map(|output| self.ground.root.join(output)).collect();
        let changed = left.filter(|_| !is_staged)?.first_changed(&places)?;
        outputs.iter().zip(&places).find(|(_, place)| *place == changed).map(|(output, _)| output.clone())
    }

    /// Returns what somebody else has written of each task whose attempt does not count for that.
    fn all_replaced(&self) -> Vec<(TaskId, String)> {
        let is_wanted = |task: &TaskState| self.takes_up() && task.phase == Phase::Running;
        let running = (0..).map(TaskId).zip(&self.state.tasks).filter(|(_, task)| is_wanted(task));
        let open = running.flat_map(|(id, task)| task.open().map(move |(number, _)| (id, number)));
        open.filter_map(|(task, number)| Some((task, self.replaced(task, number)?))).collect()
    }

    /// Returns the marks of each attempt that is to go on.
    fn spared(&self) -> Vec<Vec<String>> {
        let kept = self.open().filter(|(task, number)| matches!(self.fate(*task, *number), Fate::Kept(_)));
        kept.map(|(task, number)| launch::marks(&self.ground.run, self.name(task), number)).collect()
    }

    /// Notes of the attempts that have not ended and are not spared that they are asked to end: should this process die before
    /// they have, nobody takes that for an end of their own.
    fn note_asked(&self) {
        let not_spared = self.open().filter(|(task, number)| matches!(self.fate(*task, *number), Fate::Lost { .. }));
        let records = not_spared.map(|(task, number)| launch::sentinel(&self.ground.dir, self.name(task), number));
        let goes_on = |record: &PathBuf| sentinel::read(record).is_some_and(|record| record.ended.is_none());
        records.filter(goes_on).for_each(|record| sentinel::note_asked(&record));
    }

    /// Yields the attempts that had not ended when anybody was there last.
    fn open(&self) -> impl Iterator<Item = (TaskId, u32)> {
        let tasks = (0..).map(TaskId).zip(&self.state.tasks);
        tasks.flat_map(|(id, task)| task.open().map(move |(number, _)| (id, number)))
    }

    fn name(&self, task: TaskId) -> &str {
        &self.row.header.tasks[task.index()].name
    }
}
