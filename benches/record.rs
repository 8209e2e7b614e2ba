//! What a long run's record costs: `cargo bench --bench record`.
//!
//! Records a run of 100,000 tasks of which all but one have succeeded, as a run does, and says how much of the disk it
//! takes; then has `trainyard resume` carry out the last one: all of it, from reading the pipeline on. Once for tasks without
//! outputs, and once for tasks that are in the cache, each of which reads what another one made.

#![expect(clippy::disallowed_methods, reason = "it measures a process from outside")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use trainyard::graph::{self, TaskGraph, TaskId};
use trainyard::run::cache::files::{Remembered, Stamp};
use trainyard::run::cache::index::{Action, Done, Index};
use trainyard::run::cache::key::{Digest, Part};
use trainyard::run::cache::manifest::{Entry, Kind};
use trainyard::run::event::{Event, Place, Process, Recorded, Role};
use trainyard::run::learn;
use trainyard::run::outcome::{Outcome, Usage};
use trainyard::run::store::{Header, Invocation, Orchestrator, Store, TaskHeader};
use trainyard::run::within::Within;
use trainyard::spec::{Source, Stage, op};
use trainyard::units::{Bytes, Millis};

/// Ten sweeps of ten thousand points, one after the other where they make something.
fn pipeline(cached: bool) -> String {
    let points: Vec<String> = (0..10_000).map(|n| n.to_string()).collect();
    let points = points.join(",");
    let stage = |n: u32| {
        let command = match (cached, n.checked_sub(1)) {
            (false, _) => "run = [\"/bin/true\"]".to_owned(),
            (true, None) => format!("run = [\"touch\", \"{{outputs}}\"]\noutputs = [\"work/{n}-{{matrix.p}}\"]"),
            (true, Some(before)) => format!(
                "run = [\"touch\", \"{{outputs}}\"]\ninputs = [\"work/{before}-{{matrix.p}}\"]\n\
                 outputs = [\"work/{n}-{{matrix.p}}\"]"
            ),
        };
        format!("[stage.s{n}]\n{command}\nmatrix = {{ p = [{points}] }}\nresources = {{ cpus = 0 }}\n")
    };
    (0..10).map(stage).collect()
}

/// What the cache knows after such a run.
fn index(state: &Path, root: &Path, graph: &TaskGraph) {
    let folder = root.as_os_str().as_encoded_bytes();
    // As the cache calls the pipeline and its folder.
    let (project, root) = (Digest::of(&[folder, b"\0p"].concat()), Digest::of(folder));
    let tasks = graph.tasks.iter().enumerate();
    let entry = |path: &String| Entry {
        path: path.clone(),
        kind: Kind::File { mode: 0o644, size: 0, digest: Digest::of(b"") },
    };
    let done: Vec<Done<'_>> = tasks
        .map(|(i, task)| Done {
            name: &task.name,
            key: Digest::of(&i.to_le_bytes()),
            trace: vec![(Part::Command, 1), (Part::Reads, 2), (Part::Writes, 3)],
            made: &[],
            action: Action { outputs: task.outputs.iter().map(entry).collect(), log: None, used: 0 },
            attempt: None,
        })
        .collect();
    let outputs = graph.tasks.iter().flat_map(|task| &task.outputs);
    let stamp = Stamp { size: 0, modified: 1, inode: 1 };
    let memo: Vec<Remembered> =
        outputs.map(|path| Remembered { path: path.clone(), stamp, digest: Digest::of(b"") }).collect();
    let index = Index::open(&state.join("cache")).expect("the cache can be made");
    index.record(&project, &root, &done, &memo).expect("the cache can be written");
}

/// Commits of a run with two tasks in flight that end as others start.
fn record(store: &mut Store, header: &Header, definitions: &[String]) {
    let mut key = store.begin(header).expect("the record can be written");
    let recorded = |event| Recorded { at: Millis(1_795_208_400_000), event };
    let usage = Usage { peak_memory: Some(Bytes(123_456_789)), ..Usage::default() };
    let tasks = u32::try_from(header.tasks.len()).expect("tasks are counted in 32 bits");
    for task in (0..tasks - 1).map(TaskId) {
        let definition = definitions[task.index() / 10_000].clone();
        let place = Place { node: "box".to_owned(), definition, ..Place::default() };
        let process = Process { pid: 1_234_567 + task.0, started: 123_456_789 };
        let events = [
            recorded(Event::AttemptStarted { task, number: 1, place }),
            recorded(Event::AttemptSpawned { task, role: Role::Main, process }),
            recorded(Event::AttemptFinished {
                task,
                role: Role::Main,
                outcome: Outcome::Succeeded,
                usage,
                logged: false,
            }),
        ];
        store.append(&mut key, &events[..1]).expect("the record can be written");
        store.append(&mut key, &events[1..]).expect("the record can be written");
    }
}

/// Returns the CPU time of all processes that were started here and have ended.
fn cpu_time() -> Duration {
    // SAFETY: `rusage` is plain integers, for which zero is valid, and the pointer is to a live local variable.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    let time = |time: libc::timeval| {
        let micros = time.tv_sec * 1_000_000 + time.tv_usec;
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}

fn main() {
    for (name, cached) in [("without outputs", false), ("with an output each", true)] {
        println!("100,000 tasks {name}:");
        measure(cached);
    }
}

fn measure(cached: bool) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("p.toml");
    let text = pipeline(cached);
    std::fs::write(&file, &text).expect("the temporary folder can be written");
    let source = Source { name: "p.toml".to_owned(), text: text.clone() };
    let limits = graph::Limits { max_tasks: 10_000 };
    let (pipeline, graph) = graph::load(&source, &[], op::CATALOGUE, limits).expect("a good file");
    let task = |task: &graph::Task| TaskHeader {
        name: task.name.clone(),
        stage: pipeline.stages[task.stage].name.clone(),
        planned: (Millis(0), Millis(1_000)),
        ..TaskHeader::default()
    };
    let orchestrator = Orchestrator {
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        boot: "another".to_owned(),
        pids: None,
        process: Process { pid: 1, started: 1 },
        within: Within::default(),
    };
    let invocation = Invocation {
        file_digest: blake3::hash(text.as_bytes()).to_hex().to_string(),
        max_tasks: limits.max_tasks,
        ..Invocation::default()
    };
    let header = Header {
        id: "r1".to_owned(),
        pipeline: "p".to_owned(),
        file: file.display().to_string(),
        orchestrator,
        started: Millis(1_795_208_400_000),
        invocation,
        tasks: graph.tasks.iter().map(task).collect(),
    };
    let state = folder.path().join(".trainyard");
    let definition = |stage: &Stage| learn::definition(&pipeline, stage, &stage.modes[0]);
    let definitions: Vec<String> = pipeline.stages.iter().map(definition).collect();
    record(&mut Store::open(&state).expect("the record can be made"), &header, &definitions);
    if cached {
        index(&state, folder.path(), &graph);
    }
    let size = std::fs::metadata(state.join("state.db")).expect("the record").len();
    println!("  their record takes {}", Bytes(size));

    let mut times: Vec<(Duration, Duration)> = Vec::new();
    for nth in 0..5 {
        // Each time the same record.
        let copy = folder.path().join(format!("state{nth}"));
        std::fs::create_dir(&copy).expect("the temporary folder can be written");
        std::fs::copy(state.join("state.db"), copy.join("state.db")).expect("the record can be copied");
        if cached {
            let (from, to) = (state.join("cache"), copy.join("cache"));
            std::fs::create_dir(&to).expect("the temporary folder can be written");
            std::fs::copy(from.join("index.db"), to.join("index.db")).expect("the cache can be copied");
            // What the last task reads: one that is gone would be made again.
            std::fs::create_dir_all(folder.path().join("work")).expect("the temporary folder can be written");
            std::fs::write(folder.path().join("work/8-9999"), "").expect("the temporary folder can be written");
        }
        let (begun, cpu) = (Instant::now(), cpu_time());
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
        command
            .args(["resume", "--quiet", "--budget", "0s", "--state"])
            .arg(&copy)
            .current_dir(folder.path())
            .env("TRAINYARD_BOX", folder.path().join(".box"));
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("the binary starts");
        assert!(status.success(), "the run is resumed: {status}");
        times.push((begun.elapsed(), cpu_time() - cpu));
    }
    times.sort_unstable();
    let (wall, cpu) = times[2];
    println!(
        "  resuming them and carrying out the last one takes {:.2} s, {:.2} s of it on a CPU (median of 5)",
        wall.as_secs_f64(),
        cpu.as_secs_f64()
    );
}
