//! What a run leaves out because it is up to date: looked at before anything starts.
//!
//! A run in which everything is up to date is recorded and told here, without a plan, a look at the devices or a
//! process: it costs little more than reading the pipeline.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::presence::Processes;
use super::session::{self, Manner};
use super::state::{self, broken};
use super::stops::{Early, interrupted};
use super::{Exit, Failure, output, patience};
use crate::fleet::{Fleet, NodeId};
use crate::graph::{TaskGraph, TaskId};
use crate::plan::{Placed, Plan};
use crate::report::dry_run::some_of;
use crate::report::{self, text};
use crate::run::cache::engine::{Cache, Unkept};
use crate::run::cache::keeper::{CacheError, Keeper, Places};
use crate::run::cache::locks::half_kept;
use crate::run::cache::survey::Wish;
use crate::run::cache::verdict::{Verdict, Why};
use crate::run::event::{Event, Recorded, RunEnd};
use crate::run::files::Digest;
use crate::run::files::since::is_changed_since;
use crate::run::launch::Ground;
use crate::run::neighbours::Onlooker;
use crate::run::observer::View;
use crate::run::state::{Phase, RunState, TaskState};
use crate::run::store::{RunKey, Store};
use crate::spec::Pipeline;
use crate::spec::problem::did_you_mean;
use crate::units::Millis;

/// Stages that are named where a name is unknown.
const MOST_NAMED: usize = 24;

/// What runs although it is up to date.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Force {
    /// Run every task, also those that are up to date
    #[arg(long)]
    pub(super) force: bool,
    /// Run the tasks of this stage, also those that are up to date; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(super) force_stage: Vec<String>,
}

impl Force {
    /// Returns `[n_tasks]`: whether a task runs in any case.
    pub(super) fn forced(&self, pipeline: &Pipeline, graph: &TaskGraph) -> Result<Vec<bool>, Failure> {
        let names = || pipeline.stages.iter().map(|stage| stage.name.as_str());
        for wanted in &self.force_stage {
            if !names().any(|name| name == wanted) {
                return Err(unknown_stage(wanted, names()));
            }
        }
        let is_forced = |stage: usize| self.force || self.force_stage.contains(&pipeline.stages[stage].name);
        Ok(graph.tasks.iter().map(|task| is_forced(task.stage)).collect())
    }
}

fn unknown_stage<'n>(wanted: &str, names: impl Iterator<Item = &'n str> + Clone) -> Failure {
    let help = match did_you_mean(wanted, names.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are: {}", names.take(MOST_NAMED).collect::<Vec<_>>().join(", ")),
    };
    let report = miette::miette!(help = help, "there is no stage `{}`", text::visible(wanted));
    Failure { exit: Exit::Usage, report }
}

/// What is known of the tasks of a run before it starts.
pub(super) struct UpToDate {
    keeper: Arc<Keeper>,
    verdicts: Vec<Verdict>,
    aside: PathBuf,
    /// Tasks whose results are still to be kept.
    unkept: Vec<Unkept>,
}

impl UpToDate {
    /// Looks all tasks up, and restores outputs of those that are up to date; `None` where no task is ever left out.
    /// `ground` is the run's; for `claim` see [`Wish`].
    pub(super) fn look(
        places: Places<'_>,
        (pipeline, graph): (&Pipeline, &TaskGraph),
        ground: &Ground,
        (forced, done): (&[bool], &[bool]),
        claim: Option<&Digest>,
        early: &mut Early,
    ) -> Result<Option<Self>, Failure> {
        let others = Onlooker::new((places.state, state::here()), ground.run.clone(), places.root, Processes);
        let Some(keeper) = Keeper::open(places, pipeline, graph, done, Box::new(others)).map_err(broken)? else {
            return Ok(None);
        };
        let aside = ground.dir.join("aside");
        let wish = Wish { forced, aside: Some(&aside), claim };
        early.also_set(&keeper.transfer().switch()).map_err(broken)?;
        let survey = || keeper.survey(graph, wish);
        let verdicts =
            patience::telling(keeper.transfer(), "inputs and results", survey).map_err(|error| match error {
                CacheError::CalledOff => interrupted(),
                CacheError::Index(_) | CacheError::Project { .. } => broken(error),
            })?;
        let restored = verdicts.iter().flat_map(|verdict| match verdict {
            Verdict::Cached(cached) => cached.restored.as_slice(),
            Verdict::Runs(_) | Verdict::MayRun { .. } | Verdict::BeingWritten | Verdict::Done => &[],
        });
        let restored: Vec<String> = restored.cloned().collect();
        if !restored.is_empty() {
            let before =
                if aside.exists() { format!("; what was there is in {}", aside.display()) } else { String::new() };
            output::note(&format!("restored {}{before}", some_of(&restored)));
        }
        Ok(Some(Self { keeper: Arc::new(keeper), verdicts, aside, unkept: Vec::new() }))
    }

    /// Looks again before a run goes on. What is done stays so, unless it is [`lost`] and the cache cannot restore it: these
    /// tasks are reopened by the events that are returned.
    pub(super) fn look_again(
        places: Places<'_>,
        (pipeline, graph): (&Pipeline, &TaskGraph),
        ground: &Ground,
        state: &RunState,
        (lost, forced): (&[bool], &[bool]),
        early: &mut Early,
    ) -> Result<(Option<Self>, Vec<Event>), Failure> {
        let half_kept = half_kept(places, pipeline, graph.tasks.iter().map(|task| task.name.as_str()));
        let unkept = |task: &TaskId| {
            let (of, known) = (&graph.tasks[task.index()], state.task(*task));
            let (number, _) = known.telling().filter(|_| known.phase == Phase::Succeeded)?;
            let since = known.done_at?;
            let is_as_it_was = || !of.outputs.iter().any(|path| is_changed_since(&places.root.join(path), since));
            let is_unkept = !lost[task.index()] && half_kept.contains(of.name.as_str()) && is_as_it_was();
            is_unkept.then(|| Unkept { task: *task, log: ground.log(&of.name, number), at: since })
        };
        let unkept: Vec<Unkept> = graph.order.iter().filter_map(unkept).collect();
        let is_unkept = |task: usize| unkept.iter().any(|unkept| unkept.task.index() == task);
        let is_done =
            |(index, (task, lost)): (usize, (&TaskState, &bool))| task.phase.is_done() && !lost && !is_unkept(index);
        let done: Vec<bool> = state.tasks.iter().zip(lost).enumerate().map(is_done).collect();
        // What runs is not touched, and what was to run in any case and has not is not left out.
        let forced = (0..).zip(&state.tasks).map(|(index, task): (usize, _)| {
            task.phase == Phase::Running || !task.phase.is_done() && forced.get(index) == Some(&true)
        });
        let mut known =
            Self::look(places, (pipeline, graph), ground, (&forced.collect::<Vec<_>>(), &done), None, early)?;
        if let Some(known) = &mut known {
            for unkept in &unkept {
                known.verdicts[unkept.task.index()] = Verdict::Done;
            }
            known.unkept = unkept;
        }
        let mut reopened = Vec::new();
        for task in graph.order.iter().filter(|task| lost[task.index()]) {
            match known.as_mut().map(|known| &mut known.verdicts[task.index()]) {
                Some(verdict @ Verdict::Cached(_)) => *verdict = Verdict::Done,
                Some(_) | None => reopened.push(Event::TaskReopened { task: *task }),
            }
        }
        Ok((known, reopened))
    }

    /// Whether there is nothing to do.
    pub(super) fn is_all(&self) -> bool {
        self.verdicts.iter().all(Verdict::is_cached)
    }

    /// Returns `[n_tasks]`: whether a task is up to date.
    pub(super) fn done(&self) -> Vec<bool> {
        self.verdicts.iter().map(Verdict::is_cached).collect()
    }

    /// Returns `[n_tasks]`: whether it is still to be looked whether a task is up to date.
    pub(super) fn unseen(&self) -> Vec<bool> {
        self.verdicts.iter().map(|verdict| matches!(verdict, Verdict::MayRun { .. } | Verdict::BeingWritten)).collect()
    }

    /// Returns `[n_tasks]`: whether a task may be looked up once more after another run has written its outputs.
    pub(super) fn may_be_looked_up_again(&self) -> Vec<bool> {
        self.verdicts.iter().map(|verdict| !matches!(verdict, Verdict::Runs(Why::Forced))).collect()
    }

    /// Returns the facts that follow, those of a task behind those of all before it.
    pub(super) fn events(&self, graph: &TaskGraph) -> Vec<Event> {
        let cached = |task: &TaskId| match &self.verdicts[task.index()] {
            Verdict::Cached(cached) => Some(Event::TaskCached { task: *task, log: cached.log.clone() }),
            Verdict::Runs(_) | Verdict::MayRun { .. } | Verdict::BeingWritten | Verdict::Done => None,
        };
        graph.order.iter().filter_map(cached).collect()
    }

    /// Returns the cache for the engine.
    pub(super) fn cache(&self, graph: &TaskGraph) -> Cache {
        let names = graph.tasks.iter().map(|task| task.name.clone()).collect();
        Cache { keeper: Arc::clone(&self.keeper), aside: self.aside.clone(), names }
    }

    /// Returns the tasks whose results are still to be kept.
    pub(super) fn unkept(&self) -> Vec<Unkept> {
        self.unkept.clone()
    }

    /// Calls off what is still looked at.
    pub(super) fn call_off(&self) {
        self.keeper.transfer().call_off();
    }

    /// Remembers what was found out, at the end of a run.
    pub(super) fn finish(&self) {
        self.keeper.finish();
    }
}

/// Returns the facts of a run in which all tasks are up to date. `logs` (`[n_tasks]`) says where what they printed is.
pub(super) fn all_cached(graph: &TaskGraph, mut logs: Vec<Option<String>>) -> Vec<Event> {
    graph.order.iter().map(|task| Event::TaskCached { task: *task, log: logs[task.index()].take() }).collect()
}

/// Records and tells a run in which there is nothing to do.
pub(super) fn tell_idle(
    mut events: Vec<Event>,
    graph: &TaskGraph,
    plan: &Plan,
    ground: &Ground,
    manner: &Manner,
    (store, key): (&mut Store, &mut RunKey),
) -> Result<Exit, Failure> {
    let now = session::now();
    events.push(Event::RunFinished { end: RunEnd::Succeeded });
    let recorded: Vec<Recorded> = events.into_iter().map(|event| Recorded { at: now, event }).collect();
    let mut state = RunState::new(graph.len());
    recorded.iter().try_for_each(|recorded| state.apply(recorded)).map_err(broken)?;
    store.append(key, &recorded).map_err(broken)?;
    let fleet = Fleet::default();
    let view = View { run: &ground.run, graph, fleet: &fleet, plan, state: &state, started: now };
    let lost = report::Lost::default();
    for observer in &mut manner.observers(&ground.dir, &lost) {
        recorded.iter().for_each(|recorded| observer.recorded(view, recorded));
    }
    output::finish(lost.take().map_or(Ok(()), Err))
}

/// Returns `[n_tasks]`: whether a task is done, but what it made is not all there, or may be another's by now, and a task
/// that is not done needs it.
pub(super) fn lost(root: &Path, (pipeline, graph): (&Pipeline, &TaskGraph), state: &RunState) -> Vec<bool> {
    let mut lost = vec![false; graph.len()];
    for task in graph.order.iter().rev() {
        let runs = |task: TaskId| lost[task.index()] || !state.task(task).phase.is_done();
        let is_needed = state.task(*task).phase.is_done() && graph.after.of(*task).iter().any(|edge| runs(edge.task));
        let of = &graph.tasks[task.index()];
        // What is not kept cannot be put back as it was: whoever changed it may have meant to.
        let since = state.task(*task).done_at.filter(|_| pipeline.stages[of.stage].is_cached());
        let is_lost = |path: &Path| !path.exists() || since.is_some_and(|since| is_changed_since(path, since));
        lost[task.index()] = is_needed && of.outputs.iter().any(|output| is_lost(&root.join(output)));
    }
    lost
}

/// Returns the plan of a run in which nothing happens.
pub(super) fn idle_plan(tasks: usize) -> Plan {
    let now = Millis::ZERO;
    let placed =
        Placed { mode: 0, node: NodeId(0), devices: Vec::new(), start: now, finish: now, segments: Vec::new() };
    Plan {
        policy: "none".to_owned(),
        placed: vec![placed; tasks],
        rank: vec![0; tasks],
        makespan: now,
        lower_bound: now,
        bound_by: "nothing to do",
        evaluations: 0,
        ..Plan::default()
    }
}
