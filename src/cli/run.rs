//! `trainyard run FILE`: plan a pipeline for this machine and carry it out.

use std::path::{Path, PathBuf};

use clap::Args;

use super::detach;
use super::pipeline_file::{self, PipelineFile};
use super::planning::Planning;
use super::rehearsal::Rehearsal;
use super::session::{self, Manner, Prepared, Read};
use super::state::{self, broken};
use super::stops::Early;
use super::up_to_date::{self, Force, UpToDate};
use super::{Exit, Failure, dry_run, output};
use crate::engine::attendance::{self, Share};
use crate::engine::process;
use crate::graph::TaskId;
use crate::probe;
use crate::run::cache::keeper::Places;
use crate::run::cache::standstill;
use crate::run::cache::verdict::Verdict;
use crate::run::crash;
use crate::run::event::Event;
use crate::run::files::Digest;
use crate::run::launch::Ground;
use crate::run::state::RunState;
use crate::run::store::{Header, Invocation, RunKey, Store, StoreError, TaskHeader};
use crate::spec::Pipeline;
use crate::timing::Timing;
use crate::units::Millis;

/// Run a pipeline on this machine
// Plans for other hardware are not carried out here; who asks for one is told so.
#[derive(Args)]
#[command(mut_arg("fleet", |arg| arg.hide(true)))]
pub(super) struct Command {
    #[command(flatten)]
    file: PipelineFile,
    #[command(flatten)]
    planning: Planning,
    #[command(flatten)]
    manner: Manner,
    #[command(flatten)]
    force: Force,
    /// Say of every task whether it is up to date or would run, and why; change nothing
    #[arg(long, conflicts_with = "detach")]
    dry_run: bool,
    /// Call the run NAME, which then means it wherever a run is asked for; no other run may have it
    #[arg(long, value_name = "NAME", value_parser = run_name)]
    name: Option<String>,
    /// Folder of the record, the logs, the checkpoints and the cache [default: .trainyard beside FILE]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    #[command(flatten)]
    rehearsal: Rehearsal,
}

impl Command {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        if self.manner.detach {
            return detach::relaunch();
        }
        if let Some(exit) = self.rehearsal.begin()? {
            return Ok(exit);
        }
        self.manner.begin();
        let read = match session::read(&self.file, &self.planning)? {
            Ok(read) => Read { pipeline: self.rehearsal.of(read.pipeline), ..read },
            Err(exit) => return Ok(exit),
        };
        let forced = self.force.forced(&read.pipeline, &read.graph)?;
        let dir = self.state.clone().unwrap_or_else(|| self.file.folder().join(state::FOLDER));
        let places = Places {
            state: &session::absolute(&dir),
            root: &read.root.clone(),
            ops: &read.ops.clone(),
            keep_free: self.manner.keep_free,
        };
        if self.dry_run {
            let verdicts = dry_run::look(places, &read, &forced)?;
            let (pipeline, graph) = if dry_run::starts(&verdicts) {
                // What could not be placed would not be started.
                let done: Vec<bool> = verdicts.iter().map(Verdict::is_cached).collect();
                let prepared = read.prepare(&self.planning, self.rehearsal.history(&dir), &done, false)?;
                (prepared.pipeline, prepared.graph)
            } else {
                (read.pipeline, read.graph)
            };
            return dry_run::show(&pipeline.name, &graph, &verdicts, self.manner.is_json());
        }
        state::refuse_unwritable(&dir)?;
        let (id, started) = new_id(&read.pipeline.name);
        let ground = Ground {
            dir: places.state.join("runs").join(&id),
            run: id,
            root: read.root.clone(),
            ops: read.ops.clone(),
            inherited: session::inherited(),
            survive: self.manner.survives(),
            ports: probe::ports(),
        };
        let claim = self.claim(places, &read);
        if !forced.contains(&true)
            && let Some(logs) = standstill::recall(places, &read.pipeline.name, &claim, read.graph.len())
        {
            return self.tell_idle(&read, &ground, started, &dir, up_to_date::all_cached(&read.graph, logs));
        }
        let of = (&read.pipeline, &read.graph);
        let mut early = Early::keep().map_err(broken)?;
        let up_to_date = UpToDate::look(places, of, &ground, (&forced, &[]), Some(&claim), &mut early)?;
        early.let_go()?;
        if let Some(all) = up_to_date.as_ref().filter(|known| known.is_all()) {
            let told = self.tell_idle(&read, &ground, started, &dir, all.events(&read.graph));
            all.finish();
            return told;
        }
        let digest = keep(&dir, &read);
        crash::point("read");
        // A damaged record is out of the way before anything is learned from it, and a new one is begun only with a plan.
        let store = dir.join("state.db").exists().then(|| open_store(&dir, &ground.run)).transpose()?;
        let done = up_to_date.as_ref().map(UpToDate::done).unwrap_or_default();
        let prepared = read.prepare(&self.planning, self.rehearsal.history(&dir), &done, false)?;
        let store = match store {
            Some(store) if !store.is_in_doubt() => store,
            Some(_) | None => open_store(&dir, &ground.run)?,
        };
        let jobs = prepared.jobs(&self.manner)?;
        let header = self.header((&prepared.pipeline, digest), &ground.run, started, planned(&prepared))?;
        session::make_folders(&ground)?;
        let attended = Share::take(&ground.dir).map_err(broken)?;
        early.keep_again();
        let (mut store, key) = begin(store, &header)?;
        // It is as large as the pipeline, and the record has it now.
        drop(header);
        crash::point("begun");
        self.manner.leave_if_detached(&ground)?;
        let state = RunState::new(prepared.graph.len());
        let session = prepared.session(&ground, &attended, jobs, (started, started)).with(up_to_date);
        session.carry_out(&self.manner, (&mut store, key), state.clone(), (state, Vec::new()), early)
    }

    /// Records and tells a run in which everything is up to date.
    fn tell_idle(
        &self,
        read: &Read,
        ground: &Ground,
        started: Millis,
        dir: &Path,
        cached: Vec<Event>,
    ) -> Result<Exit, Failure> {
        let plan = up_to_date::idle_plan(read.graph.len());
        let store = open_store(dir, &ground.run)?;
        let header = self.header((&read.pipeline, keep(dir, read)), &ground.run, started, unplanned(read))?;
        let (mut store, mut key) = begin(store, &header)?;
        if self.manner.is_detached() {
            session::make_folders(ground)?;
            self.manner.leave_if_detached(ground)?;
        }
        up_to_date::tell_idle(cached, &read.graph, &plan, ground, &self.manner, (&mut store, &mut key))
    }

    /// Returns what stands for everything, besides files, from which it follows that tasks are up to date.
    fn claim(&self, places: Places<'_>, read: &Read) -> Digest {
        let Places { state, root, ops, .. } = places;
        let PipelineFile { sets, max_tasks, .. } = &self.file;
        Digest::of(
            format!("{:?}", (env!("CARGO_PKG_VERSION"), state, root, ops, &read.text.0, sets, max_tasks)).as_bytes(),
        )
    }

    fn header(
        &self,
        (pipeline, file_digest): (&Pipeline, String),
        id: &str,
        started: Millis,
        tasks: Vec<TaskHeader>,
    ) -> Result<Header, Failure> {
        Ok(Header {
            id: id.to_owned(),
            pipeline: pipeline.name.clone(),
            file: session::absolute(&self.file.file).display().to_string(),
            orchestrator: state::this_process()?,
            started,
            invocation: Invocation {
                file_digest,
                sets: self.file.sets.clone(),
                max_tasks: self.file.max_tasks,
                jobs: self.manner.jobs(),
                keep_going: self.manner.keep_going,
                survive: self.manner.survives(),
                force: self.force.force,
                force_stages: self.force.force_stage.clone(),
                name: self.name.clone(),
                turns: self.planning.turns(),
                headroom: self.planning.headroom()?,
            },
            tasks,
        })
    }
}

/// Returns what is recorded of the tasks of a plan.
fn planned(prepared: &Prepared) -> Vec<TaskHeader> {
    let Prepared { pipeline, graph, plan, fleet, .. } = prepared;
    let timing = Timing::new(graph, plan.placed.iter().map(crate::plan::Placed::ran).collect());
    let task_header = |id: TaskId| {
        let (task, placed) = (&graph.tasks[id.index()], &plan.placed[id.index()]);
        let devices = placed.devices.iter().map(|device| fleet.devices[device.index()].id.clone());
        let host = || format!("{}/cpu", fleet.nodes[placed.node.index()].name);
        TaskHeader {
            name: task.name.clone(),
            stage: pipeline.stages[task.stage].name.clone(),
            planned: (placed.start, placed.finish),
            pieces: placed.segments.clone(),
            places: if placed.devices.is_empty() { vec![host()] } else { devices.collect() },
            after: graph.before.of(id).iter().map(|edge| edge.task).collect(),
            outputs: task.outputs.clone(),
            critical: timing.is_critical(id),
        }
    };
    graph.ids().map(task_header).collect()
}

/// Returns what is recorded of tasks none of which is planned, since all are up to date.
fn unplanned(read: &Read) -> Vec<TaskHeader> {
    let Read { pipeline, graph, .. } = read;
    let task_header = |id: TaskId| {
        let task = &graph.tasks[id.index()];
        TaskHeader {
            name: task.name.clone(),
            stage: pipeline.stages[task.stage].name.clone(),
            planned: (Millis::ZERO, Millis::ZERO),
            pieces: Vec::new(),
            places: Vec::new(),
            after: graph.before.of(id).iter().map(|edge| edge.task).collect(),
            outputs: task.outputs.clone(),
            critical: false,
        }
    };
    graph.ids().map(task_header).collect()
}

/// Keeps the pipeline file with the record, and returns its digest.
fn keep(dir: &Path, read: &Read) -> String {
    let (digest, bytes) = &read.text;
    pipeline_file::keep(dir, digest, bytes);
    digest.clone()
}

/// Opens the record for a new run, which is our `own`. A damaged one is moved aside, unless another run goes on with it.
fn open_store(dir: &Path, own: &str) -> Result<Store, Failure> {
    let goes_on = |run: &Path| !run.ends_with(own) && attendance::is_attended(run) == Some(true);
    let (store, aside) = Store::open_or_replace(dir, goes_on).map_err(state::unopened)?;
    if let Some(aside) = aside {
        output::warn(&format!("the record of earlier runs was damaged; it is kept as {}", aside.display()));
    }
    refuse_beside_unrecorded(&store)?;
    Ok(store)
}

/// Refuses to begin beside tasks that have survived a run of which nothing is on record any more: what they write is
/// unknown.
fn refuse_beside_unrecorded(store: &Store) -> Result<(), Failure> {
    let unrecorded = store.unrecorded().map_err(broken)?;
    let Some(run) = unrecorded.into_iter().find(|run| state::goes_on_alone(run)) else { return Ok(()) };
    let run = run.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let report = miette::miette!(
        help = format!("wait for their end, or end them: `trainyard devices --orphans --end {run}`"),
        "tasks of run {run} go on of which nothing is on record any more, and may write what this run would"
    );
    Err(Failure { exit: Exit::Usage, report })
}

/// Records a new run, whose name must be its own. A record that shows only here that it is damaged is moved aside.
fn begin(mut store: Store, header: &Header) -> Result<(Store, RunKey), Failure> {
    let begun = match store.begin(header) {
        Err(StoreError::Corrupt { .. }) => {
            let dir = store.dir().to_owned();
            drop(store);
            store = open_store(&dir, &header.id)?;
            store.begin(header)
        }
        begun => begun,
    };
    begun.map(|key| (store, key)).map_err(|error| {
        let StoreError::NameTaken { name, run } = &error else { return broken(error) };
        let report = miette::miette!(
            help = "choose another name; `trainyard runs` lists all",
            "there is already a run called `{name}`: {run}"
        );
        Failure { exit: Exit::Usage, report }
    })
}

/// Reads a run's name: a word that can be told from `latest` and typed without quotes.
fn run_name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    match text {
        "latest" => Err("`latest` means the newest run".to_owned()),
        _ if text.is_empty() || text.len() > 64 || text.starts_with('-') || !text.chars().all(plain) => {
            Err("a name has 1 to 64 of A-Z, a-z, 0-9, `_`, `.`, `-`, and does not begin with `-`".to_owned())
        }
        _ => Ok(text.to_owned()),
    }
}

/// Returns the id of a run that starts now, and the time.
fn new_id(pipeline: &str) -> (String, Millis) {
    let started = session::now();
    let nonce = nonce(std::process::id(), &process::boot_id(), process::namespace());
    (format!("{}-{pipeline}-{nonce:04x}", day_and_time(started)), started)
}

/// Returns what tells runs apart that begin in one second. The system gives no number to two processes so soon, and other
/// machines and containers are shifted against this one.
fn nonce(pid: u32, boot: &str, namespace: Option<u64>) -> u16 {
    let digest = blake3::hash(format!("{boot} {namespace:?}").as_bytes());
    let shift = u16::from_le_bytes([digest.as_bytes()[0], digest.as_bytes()[1]]);
    (pid & 0xFFFF) as u16 ^ shift
}

/// Returns `20261121-093015`, in UTC.
fn day_and_time(at: Millis) -> String {
    let at = jiff::Timestamp::from_millisecond(i64::try_from(at.0).unwrap_or(0)).unwrap_or_default();
    at.strftime("%Y%m%d-%H%M%S").to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn runs_of_one_second_have_different_ids() {
        let ids: HashSet<u16> = (0..=0xFFFF).map(|pid| nonce(pid, "boot", Some(1))).collect();
        assert_eq!(ids.len(), 0x1_0000);
        assert_ne!(nonce(7, "boot", Some(1)), nonce(7, "boot", Some(2)), "another container");
        assert_ne!(nonce(7, "boot", Some(1)), nonce(7, "other", Some(1)), "another machine");
    }
}
