//! `trainyard run FILE`: plan a pipeline for this machine and carry it out.

use std::path::{Path, PathBuf};

use clap::Args;

use super::detach;
use super::pipeline_file::PipelineFile;
use super::planning::Planning;
use super::session::{self, Manner, Prepared};
use super::state::{self, broken};
use super::{Exit, Failure, output};
use crate::engine::process;
use crate::graph::TaskId;
use crate::run::crash;
use crate::run::launch::Ground;
use crate::run::state::RunState;
use crate::run::store::{Header, Invocation, Orchestrator, Store, TaskHeader};
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
    /// Folder of the record, the logs and the checkpoints [default: .trainyard beside FILE]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

impl Command {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        if self.manner.detach {
            return detach::relaunch();
        }
        let dir = self.state.clone().unwrap_or_else(|| self.file.folder().join(state::FOLDER));
        let prepared = match session::prepare(&self.file, &self.planning, &dir)? {
            Ok(prepared) => prepared,
            Err(exit) => return Ok(exit),
        };
        let (mut store, aside) = Store::open_or_replace(&dir).map_err(broken)?;
        if let Some(aside) = aside {
            output::say(&format!("warning: the record of earlier runs was damaged; it is kept as {}", aside.display()));
        }
        let header = self.header(&prepared)?;
        let ground = Ground {
            run: header.id.clone(),
            root: prepared.root.clone(),
            dir: session::absolute(&store.run_dir(&header.id)),
            ops: prepared.ops.clone(),
            inherited: session::inherited(),
            survive: self.manner.survives(),
        };
        session::make_folders(&ground)?;
        let key = store.begin(&header).map_err(broken)?;
        crash::point("begun");
        self.manner.leave_if_detached(&ground)?;
        let state = RunState::new(prepared.graph.len());
        let session = prepared.session(&ground, header.started, header.started);
        session.carry_out(&self.manner, (&mut store, key), state.clone(), (state, Vec::new()))
    }

    fn header(&self, prepared: &Prepared) -> Result<Header, Failure> {
        let Prepared { pipeline, graph, machine, plan, fleet, .. } = prepared;
        let started = session::now();
        let process = process::identify(std::process::id());
        let process = process.ok_or_else(|| broken(std::io::Error::other("/proc cannot be read")))?;
        let name = &pipeline.name;
        let timing = Timing::new(graph, plan.placed.iter().map(|placed| placed.finish - placed.start).collect());
        let task_header = |id: TaskId| {
            let (task, placed) = (&graph.tasks[id.index()], &plan.placed[id.index()]);
            let devices = placed.devices.iter().map(|device| fleet.devices[device.index()].id.clone());
            let host = || format!("{}/cpu", fleet.nodes[placed.node.index()].name);
            TaskHeader {
                name: task.name.clone(),
                stage: pipeline.stages[task.stage].name.clone(),
                planned: (placed.start, placed.finish),
                places: if placed.devices.is_empty() { vec![host()] } else { devices.collect() },
                after: graph.before.of(id).iter().map(|edge| edge.task).collect(),
                critical: timing.is_critical(id),
            }
        };
        let tasks = graph.ids().map(task_header);
        // Four digits that differ for two runs that start in one second.
        let nonce = (session::subsecond() ^ process.pid.wrapping_mul(0x9E37_79B9)) & 0xFFFF;
        Ok(Header {
            id: format!("{}-{name}-{nonce:04x}", day_and_time(started)),
            pipeline: name.clone(),
            file: session::absolute(&self.file.file).display().to_string(),
            orchestrator: Orchestrator { host: machine.host.name.clone(), boot: process::boot_id(), process },
            started,
            invocation: Invocation {
                file_digest: file_digest(&self.file.file)?,
                sets: self.file.sets.clone(),
                max_tasks: self.file.max_tasks,
                jobs: self.manner.jobs(),
                keep_going: self.manner.keep_going,
                survive: self.manner.survives(),
            },
            tasks: tasks.collect(),
        })
    }
}

/// Returns the BLAKE3 of a file in hexadecimal digits.
pub(super) fn file_digest(file: &Path) -> Result<String, Failure> {
    let bytes = std::fs::read(file).map_err(|error| Failure::because(Exit::Rejected, error))?;
    Ok(blake3::hash(&bytes).to_hex().to_string())
}

/// Returns `20261121-093015`, in UTC.
fn day_and_time(at: Millis) -> String {
    let at = jiff::Timestamp::from_millisecond(i64::try_from(at.0).unwrap_or(0)).unwrap_or_default();
    at.strftime("%Y%m%d-%H%M%S").to_string()
}
