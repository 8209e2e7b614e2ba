//! What is read of the devices while a run goes on, on a thread of its own.

use std::collections::HashMap;

use tokio::sync::mpsc;

use super::Failure;
use super::session::Prepared;
use super::state::broken;
use crate::engine::opened::{self, Opens};
use crate::engine::process;
use crate::graph::TaskId;
use crate::probe::gpu::Fault;
use crate::probe::{self, Gpus, Monitor, Reading, mps};
use crate::run::admission::{Readings, other_task};
use crate::run::launch::run_mark;
use crate::run::supervisor::{Look, Looker, Question};

/// Returns what reads the devices of a run. All that asks the driver is done on its thread, which ends with the process: one
/// that does not answer keeps nobody.
pub(super) fn looker(of: &Prepared, run: &str) -> Result<Looker<'static>, Failure> {
    if of.machine.gpus.devices().is_empty() {
        return Ok(Looker::blind());
    }
    let (options, gpus) = (of.options.clone(), of.machine.gpus.clone());
    let mark = run_mark(run);
    let tasks: HashMap<String, TaskId> =
        of.graph.ids().map(|id| (of.graph.tasks[id.index()].name.clone(), id)).collect();
    let fleet = of.fleet.clone();
    let mut hides = false;
    let mut look = move |monitor: &mut Monitor, Question { at, running }: Question| {
        let known = |pid| {
            let ours = running.iter().find(|(process, _)| *process == pid).map(|(_, task)| *task);
            let by_mark = || tasks.get(&process::marked_as(pid, &mark, "TRAINYARD_TASK")?).copied();
            // A task of another run, for whoever knows what that was promised.
            let other = || process::marked(pid, ["TRAINYARD_RUN", "TRAINYARD_TASK"]);
            ours.or_else(by_mark).or_else(|| other().map(|[run, of]| other_task(&run, &of)))
        };
        let task = |pid| process::find_kin(pid, known);
        // Before memory is read: what is taken in between is then nobody's.
        let opened = if hides { opened::by_task(task) } else { Vec::new() };
        let read = monitor.read();
        let readings = Readings::new(at, &fleet, &read, task).with_opened(&opened);
        hides = readings.hide_who_holds();
        let of = |uuid: &Option<String>| read.iter().find(|reading| Some(&reading.uuid) == uuid.as_ref()).cloned();
        let raw: Vec<Reading> = fleet.devices.iter().map(|device| of(&device.uuid).unwrap_or_default()).collect();
        let lost = read.iter().any(|reading| matches!(reading.fault, Some(Fault::Lost(_) | Fault::Sliced)));
        Look { raw, readings, lost, mps: mps::runs() }
    };
    let (ask, asked) = std::sync::mpsc::channel::<Question>();
    let (tell, told) = mpsc::unbounded_channel();
    let read = move || {
        let Some(mut monitor) = open(&options, &gpus) else { return };
        for question in asked {
            if tell.send(look(&mut monitor, question)).is_err() {
                break;
            }
        }
    };
    std::thread::Builder::new().name("readings".into()).spawn(read).map_err(broken)?;
    // Where the thread is gone, the last reading grows old, and nothing new is started on a device.
    let ask = move |question| {
        let _ = ask.send(question);
    };
    let looker = Looker::new(ask, told);
    Ok(match Opens::of(&of.options.root.join("dev")) {
        Some(opens) => looker.with_opens(move || opens.any()),
        None => looker,
    })
}

fn open(options: &probe::Options, gpus: &Gpus) -> Option<Monitor> {
    let monitor = Monitor::open(options, gpus).unwrap_or_else(|error| {
        tracing::warn!("nothing can be started on the GPUs: {error}");
        None
    })?;
    if monitor.hears_no_errors() {
        tracing::warn!("the driver does not report errors (Xid): a GPU that fails is noticed once it does not answer");
    }
    Some(monitor)
}
