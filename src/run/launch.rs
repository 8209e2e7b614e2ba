//! What an attempt is started with: command, environment, folders and files.
//!
//! Pure: paths are joined, not looked at.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::engine::{Launch, Staging};
use super::event::{Place, Role};
use super::limit;
use super::ports::Port;
use crate::fleet::{Device, Fleet};
use crate::graph::{Task, TaskId};
use crate::spec::backup::OUTPUTS;
use crate::spec::{self, Action, Gpus, Pipeline, op};
use crate::units::{Bytes, Cpus, Millis};

/// What all attempts of a run have in common.
#[derive(Clone, Debug)]
pub struct Ground {
    /// The run's id.
    pub run: String,
    /// The pipeline file's folder: paths of stages are relative to it.
    pub root: PathBuf,
    /// The run's own folder: logs, checkpoints, progress.
    pub dir: PathBuf,
    /// The program that carries out built-in ops.
    pub ops: PathBuf,
    /// What is set around us of the variables that limit memory.
    pub inherited: BTreeMap<String, String>,
    /// Whether attempts are to outlive the orchestrator, each with a sentinel.
    pub survive: bool,
    /// Where runs tell each other which ports their tasks have.
    pub ports: Option<PathBuf>,
}

impl Ground {
    /// Returns the log of an attempt.
    #[must_use]
    pub fn log(&self, task: &str, number: u32) -> PathBuf {
        log(&self.dir, task, number)
    }
}

/// Returns the log of an attempt in a run's folder.
#[must_use]
pub fn log(dir: &Path, task: &str, number: u32) -> PathBuf {
    of_attempt(dir, "logs", &file_name(task), number, ".log")
}

/// Returns where a task keeps what it goes on from, in a run's folder.
#[must_use]
pub fn checkpoints(dir: &Path, task: &str) -> PathBuf {
    dir.join("checkpoints").join(file_name(task))
}

/// Returns where an attempt's sentinel records what becomes of it, in a run's folder.
#[must_use]
pub fn sentinel(dir: &Path, task: &str, number: u32) -> PathBuf {
    of_attempt(dir, "attempts", &file_name(task), number, ".json")
}

/// Returns the folder of all those records.
#[must_use]
pub fn sentinels(dir: &Path) -> PathBuf {
    dir.join("attempts")
}

/// Returns the file that is locked for as long as somebody attends to a run, in the run's folder.
#[must_use]
pub fn attended(dir: &Path) -> PathBuf {
    dir.join("attended")
}

/// Returns where the progress of an attempt is kept in a run's folder.
#[must_use]
pub fn progress(dir: &Path, task: &str, number: u32) -> PathBuf {
    of_attempt(dir, "progress", &file_name(task), number, ".json")
}

/// Returns a path within a run's folder for an attempt of the task with this file name.
fn of_attempt(dir: &Path, folder: &str, name: &str, number: u32, ending: &str) -> PathBuf {
    dir.join(format!("{folder}/{name}.{number}{ending}"))
}

/// Returns the folder of all attempts' own places.
#[must_use]
pub fn all_staging(dir: &Path) -> PathBuf {
    dir.join("staging")
}

/// Returns the place of an attempt's own in a run's folder, for tasks of which two attempts may run side by side.
#[must_use]
pub fn staging(dir: &Path, task: &str, number: u32) -> PathBuf {
    all_staging(dir).join(format!("{}.{number}", file_name(task)))
}

/// Returns what to start for an attempt. `beside` is what others hold of a device in its place that it puts up with, `port` a
/// free one, for tasks on several devices.
#[must_use]
pub fn describe(
    ground: &Ground,
    pipeline: &Pipeline,
    fleet: &Fleet,
    (id, task): (TaskId, &Task),
    number: u32,
    (place, beside): (&Place, Bytes),
    port: Option<u16>,
) -> Launch {
    let stage = &pipeline.stages[task.stage];
    let name = file_name(&task.name);
    let wanted: Vec<PathBuf> = task.outputs.iter().map(|output| ground.root.join(output)).collect();
    let staging = stage.backup.map(|_| Staging {
        folder: staging(&ground.dir, &task.name, number),
        wanted: wanted.clone(),
        aside: ground.dir.join("aside").join(format!("{name}.{number}")),
    });
    let written = staging.as_ref().map_or(wanted, |staging| {
        let folder = staging.folder.join("outputs");
        task.outputs.iter().map(|output| folder.join(output)).collect()
    });
    let (program, args, job) = match &staging {
        None => command(ground, task, &task.action, &written, &name),
        Some(_) => {
            let paths: Vec<String> = written.iter().map(|path| path.to_string_lossy().into_owned()).collect();
            let action = task.action_writing_to(pipeline, &paths);
            command(ground, task, &action, &written, &format!("{name}.{number}"))
        }
    };
    let devices: Vec<&Device> =
        place.devices.iter().filter_map(|id| fleet.devices.iter().find(|device| device.id == *id)).collect();
    let checkpoints = match (&staging, place.role) {
        // Two at once must not go on from each other's half-written ones.
        (Some(staging), Role::Backup) => staging.folder.join("checkpoints"),
        (Some(_) | None, _) => checkpoints(&ground.dir, &task.name),
    };
    let place_of = |folder: &str, ending: &str| of_attempt(&ground.dir, folder, &name, number, ending);
    let events = place_of("events", ".jsonl");
    let marks = marks(&ground.run, &task.name, number);

    let mut env: Vec<(String, String)> = Vec::new();
    env.extend(task.env(pipeline));
    env.extend(marks.iter().filter_map(|mark| mark.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())));
    env.extend(ground.inherited.get_key_value(AROUND).map(|(name, around)| (name.clone(), around.clone())));
    env.push(("TRAINYARD_CHECKPOINT_DIR".to_owned(), checkpoints.to_string_lossy().into_owned()));
    env.push(("TRAINYARD_EVENTS".to_owned(), events.to_string_lossy().into_owned()));
    if !written.is_empty() {
        let paths: Vec<_> = written.iter().map(|path| path.to_string_lossy()).collect();
        env.push((OUTPUTS.to_owned(), paths.join("\n")));
    }
    let held = held((place, beside), &devices, stage.modes[place.mode].resources.gpus);
    env.extend(device_env(&devices, held));
    // A stage that has a rendezvous of its own keeps it.
    env.extend(rendezvous(&devices, port, |name| last(&env, name)));
    let has = |name: &str| last(&env, name).or_else(|| ground.inherited.get(name).cloned());
    let mode = &stage.modes[place.mode];
    let learned = if mode.auto.is_some() && !devices.is_empty() { limit::to_be_learned(has) } else { Vec::new() };
    let limits = limit::env(place, &devices, mode.resources.gpus, has);
    env.extend(learned);
    env.extend(limits);
    if job.is_some() && !env.iter().any(|(name, _)| name == "OMP_NUM_THREADS") {
        // A built-in op uses the CPUs that are reserved for it.
        let cpus = stage.modes[place.mode].resources.cpus.0.div_ceil(1_000).max(1);
        env.push(("OMP_NUM_THREADS".to_owned(), cpus.to_string()));
    }

    let outputs: Vec<(String, PathBuf)> = task.outputs.iter().cloned().zip(written).collect();
    let mut folders: Vec<PathBuf> = outputs.iter().filter_map(|(_, path)| path.parent().map(Path::to_owned)).collect();
    folders.dedup();
    folders.extend(job.iter().filter_map(|(path, _)| path.parent().map(Path::to_owned)));
    Launch {
        task: id,
        role: place.role,
        program,
        args,
        cwd: ground.root.join(task.cwd(pipeline)),
        env,
        marks,
        folders,
        job,
        outputs,
        staging,
        log: place_of("logs", ".log"),
        sentinel: ground.survive.then(|| place_of("attempts", ".json")),
        events,
        progress: place_of("progress", ".json"),
        limits: stage.limits,
        suspends: stage.modes[place.mode].resources.suspend,
        stood: Millis::ZERO,
        port: port.map(|number| Port { number, file: ground.ports.clone() }),
        cpus: near_cpus(&devices, stage.modes[place.mode].resources.cpus),
        devices: place.devices.clone(),
    }
}

/// The variable that tells a task of a run within attempts whose they are: a run, a task of it, the number of the attempt, the
/// next run, each on a line.
pub const AROUND: &str = "TRAINYARD_WITHIN";

/// What stands before a line that a run shows of what a task has printed, behind blanks or the task's name. Who runs around
/// it knows by that whose words they are.
pub const QUOTED: &str = "│ ";

/// The environment entry that all processes of a run carry.
#[must_use]
pub fn run_mark(run: &str) -> String {
    format!("TRAINYARD_RUN={run}")
}

/// The environment entries that all processes of an attempt carry, and no other.
#[must_use]
pub fn marks(run: &str, task: &str, number: u32) -> Vec<String> {
    vec![run_mark(run), format!("TRAINYARD_TASK={task}"), format!("TRAINYARD_ATTEMPT={number}")]
}

type Command = (String, Vec<String>, Option<(PathBuf, String)>);

/// Returns program and arguments, and for a built-in op its job file.
fn command(ground: &Ground, task: &Task, action: &Action, written: &[PathBuf], name: &str) -> Command {
    match action {
        // Also where the stage's own PATH does not lead to it.
        Action::Shell(line) => ("/bin/sh".to_owned(), vec!["-c".to_owned(), line.text.clone()], None),
        Action::Exec(words) => {
            let mut words = words.iter().map(|word| word.text.clone());
            (words.next().unwrap_or_default(), words.collect(), None)
        }
        Action::Op { name: op, with } => {
            let with = op::find(&op.text).map(|op| spec::op_params(op, with)).unwrap_or_default();
            // Absolute, since the stage may run in a folder of its own.
            let inputs: Vec<_> = task.inputs.iter().map(|path| ground.root.join(path)).collect();
            let job = json!({
                "op": op.text,
                "with": with,
                "inputs": inputs,
                "outputs": written,
            });
            let path = ground.dir.join("ops").join(format!("{name}.json"));
            let text = format!("{job:#}\n");
            (ground.ops.display().to_string(), vec![path.display().to_string()], Some((path, text)))
        }
    }
}

/// Returns the value that counts of a variable: the last one.
fn last(env: &[(String, String)], name: &str) -> Option<String> {
    env.iter().rev().find(|(other, _)| other == name).map(|(_, value)| value.clone())
}

/// Returns what is reserved on each device: `None` where nothing was said. Who has whole devices and says nothing of memory
/// has all of it: as much as the smallest gives.
fn held((place, beside): (&Place, Bytes), devices: &[&Device], gpus: Gpus) -> Option<Bytes> {
    let all = || devices.iter().map(|device| device.whole_memory() - beside).min();
    let whole = matches!(gpus, Gpus::Whole(_)) && place.gpu_memory == Bytes::ZERO;
    let held = if whole { all() } else { Some(place.gpu_memory) };
    held.filter(|memory| *memory > Bytes::ZERO || devices.is_empty())
}

/// Returns the CPUs that are nearest to the devices, where they are known of all and are as many as the task wants: from
/// there the way to the devices is shortest, and memory is taken beside them.
fn near_cpus(devices: &[&Device], wanted: Cpus) -> Vec<u32> {
    if devices.iter().any(|device| device.near_cpus.is_empty()) {
        return Vec::new();
    }
    let mut cpus: Vec<u32> = devices.iter().flat_map(|device| device.near_cpus.iter().copied()).collect();
    cpus.sort_unstable();
    cpus.dedup();
    if Cpus(cpus.len() as u64 * Cpus::ONE.0) < wanted { Vec::new() } else { cpus }
}

/// Returns what tells CUDA which devices there are, and the task what it holds of them. A task without a device sees none.
fn device_env(devices: &[&Device], gpu_memory: Option<Bytes>) -> Vec<(String, String)> {
    let visible: Vec<String> = devices.iter().filter_map(|device| device.cuda_name()).collect();
    let mut env = vec![("CUDA_DEVICE_ORDER", "PCI_BUS_ID".to_owned()), ("CUDA_VISIBLE_DEVICES", visible.join(","))];
    env.extend(gpu_memory.map(|memory| ("TRAINYARD_GPU_MEMORY", memory.0.to_string())));
    env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Returns where the processes of a task with several devices meet: for `torch.distributed`, both as scripts read it and as
/// `torchrun` does (its options as `PET_*`), on a port of its own. `own` is what its stage says itself, which is left out, and
/// holds for both.
fn rendezvous(devices: &[&Device], port: Option<u16>, own: impl Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    let (Some(port), [_, _, ..]) = (port, devices) else { return Vec::new() };
    let mut env = vec![("PET_NPROC_PER_NODE", devices.len().to_string())];
    for (script, torchrun, value) in [
        ("MASTER_ADDR", "PET_MASTER_ADDR", "127.0.0.1".to_owned()),
        ("MASTER_PORT", "PET_MASTER_PORT", port.to_string()),
    ] {
        let value = own(script).or_else(|| own(torchrun)).unwrap_or(value);
        env.extend([(script, value.clone()), (torchrun, value)]);
    }
    env.into_iter().filter(|(name, _)| own(name).is_none()).map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Whether a variable says where and how processes meet, as `torchrun` sets them for those that it starts (PyTorch's
/// documentation, "torchrun", "Environment Variables") or takes its options from. What is said of that around us is about
/// others, and two tasks that heard it would meet each other.
#[must_use]
pub fn is_about_others(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 11] = [
        b"LOCAL_RANK",
        b"RANK",
        b"GROUP_RANK",
        b"ROLE_RANK",
        b"LOCAL_WORLD_SIZE",
        b"WORLD_SIZE",
        b"ROLE_WORLD_SIZE",
        b"GROUP_WORLD_SIZE",
        b"ROLE_NAME",
        b"MASTER_ADDR",
        b"MASTER_PORT",
    ];
    NAMES.contains(&name) || name.starts_with(b"PET_") || name.starts_with(b"TORCHELASTIC_")
}

/// Returns a file name for a task: its own name where that is a plain one, otherwise with `%XX` for what could
/// not stand in a path, cut to what file systems take.
#[must_use]
pub fn file_name(task: &str) -> String {
    let mut name = String::with_capacity(task.len());
    for byte in task.bytes() {
        if byte.is_ascii_alphanumeric() || b"_.-=,+[]".contains(&byte) {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02X}"));
        }
    }
    if name.len() <= 180 {
        return name;
    }
    // FNV-1a tells apart what the cut made equal.
    let hash = task
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{}~{hash:016x}", &name[..160])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_cannot_leave_its_folder() {
        assert_eq!(file_name("train[lr=0.1,seed=1]"), "train[lr=0.1,seed=1]");
        assert_eq!(file_name("eval[set=../../x]"), "eval[set=..%2F..%2Fx]");
        let long = "x".repeat(300);
        assert!(file_name(&long).len() < 200);
        assert_ne!(file_name(&long), file_name(&format!("{long}y")));
    }

    #[test]
    fn a_task_without_a_device_sees_none() {
        let env = device_env(&[], Some(Bytes::ZERO));
        assert!(env.contains(&("CUDA_VISIBLE_DEVICES".to_owned(), String::new())));
        assert!(rendezvous(&[], Some(1), |_| None).is_empty());
    }

    #[test]
    fn whole_devices_are_reserved_with_all_of_their_memory() {
        let device = |memory| Device { memory: Bytes(memory), ..Device::default() };
        let (large, small, unknown) = (device(80), device(40), device(0));
        let place = |gpu_memory| Place { gpu_memory: Bytes(gpu_memory), ..Place::default() };
        let two = Gpus::Whole(2);
        let alone = Bytes::ZERO;
        assert_eq!(held((&place(0), alone), &[&large, &small], two), Some(Bytes(40)));
        assert_eq!(held((&place(0), Bytes(3)), &[&large, &small], two), Some(Bytes(37)), "beside a desktop");
        assert_eq!(held((&place(20), Bytes(3)), &[&large, &small], two), Some(Bytes(20)));
        assert_eq!(held((&place(0), alone), &[&large, &unknown], two), None);
        assert_eq!(held((&place(6), alone), &[&large], Gpus::Shared), Some(Bytes(6)));
        assert_eq!(held((&place(0), alone), &[&large], Gpus::Share(crate::units::Share(500_000))), None);
    }

    #[test]
    fn a_task_runs_on_the_cpus_near_all_of_its_devices_if_they_suffice() {
        let device = |cpus: &[u32]| Device { near_cpus: cpus.to_vec(), ..Device::default() };
        let (a, b, unknown) = (device(&[0, 1]), device(&[2, 3]), device(&[]));
        assert_eq!(near_cpus(&[&a], Cpus(2_000)), [0, 1]);
        assert_eq!(near_cpus(&[&b, &a], Cpus(3_000)), [0, 1, 2, 3]);
        assert!(near_cpus(&[&a], Cpus(2_001)).is_empty());
        assert!(near_cpus(&[&a, &unknown], Cpus(1_000)).is_empty());
        assert!(near_cpus(&[], Cpus(1_000)).is_empty());
    }

    #[test]
    fn what_every_task_is_told_cannot_be_set_by_a_stage() {
        let told = device_env(&[], Some(Bytes::ZERO)).into_iter().map(|(name, _)| name);
        let marks = marks("r", "t", 1);
        let marked = marks.iter().filter_map(|mark| mark.split_once('=')).map(|(name, _)| name.to_owned());
        for name in told.chain(marked) {
            assert!(spec::keys::SET_FOR_TASKS.contains(&name.as_str()), "{name}");
        }
    }

    #[test]
    fn several_devices_are_named_in_pci_order_with_a_rendezvous() {
        let device = |index| Device { pci_index: Some(index), ..Device::default() };
        let (a, b) = (device(2), device(5));
        let env = device_env(&[&a, &b], Some(Bytes::GIB));
        assert!(env.contains(&("CUDA_VISIBLE_DEVICES".to_owned(), "2,5".to_owned())));
        let meeting = rendezvous(&[&a, &b], Some(4711), |_| None);
        let told = |name: &str| meeting.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
        assert_eq!((told("MASTER_PORT"), told("PET_NPROC_PER_NODE")), (Some("4711"), Some("2")));
        let own = rendezvous(&[&a, &b], Some(4711), |name| (name == "MASTER_PORT").then(|| "1234".to_owned()));
        assert!(own.contains(&("PET_MASTER_PORT".to_owned(), "1234".to_owned())));
        assert!(own.iter().all(|(name, _)| name != "MASTER_PORT"));
    }
}
