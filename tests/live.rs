//! `trainyard bench --live` from the outside: plans are carried out in copies, which go with them, however it ends.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic and runs the real binary")]

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use mock_nvml::{Card, Scene};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use trainyard::engine::process;

/// A folder around a project's: copies lie in it while they are there.
struct World {
    around: tempfile::TempDir,
    home: tempfile::TempDir,
}

impl World {
    fn new(pipeline: &str) -> Self {
        let around = tempfile::tempdir().unwrap();
        fs::create_dir(around.path().join("proj")).unwrap();
        fs::write(around.path().join("proj/p.toml"), pipeline).unwrap();
        Self { around, home: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.around.path().join("proj").join(name)
    }

    /// Somewhere that is not copied.
    fn outside(&self, name: &str) -> PathBuf {
        self.around.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
        command
            .args(args)
            .current_dir(self.path(""))
            .env("TRAINYARD_BOX", self.home.path().join(".box"))
            .env("HOME", self.home.path())
            .env("NO_COLOR", "1");
        command.env("OUTSIDE", self.around.path()).env_remove("RUST_LOG").env_remove("CUDA_VISIBLE_DEVICES");
        command.stdin(Stdio::null());
        command
    }

    fn live(&self, args: &[&str]) -> Output {
        self.command(&[&["bench", "p.toml", "--live"], args].concat()).output().unwrap()
    }

    fn start(&self, args: &[&str]) -> Child {
        let mut bench = self.command(&[&["bench", "p.toml", "--live"], args].concat());
        bench.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// What lies beside the project.
    fn beside(&self) -> Vec<String> {
        let entries = fs::read_dir(self.around.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn rows(output: &Output) -> Vec<Value> {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A pipe with a name, in which stages say who they are.
struct Told {
    pipe: OwnedFd,
}

impl Told {
    fn in_file(path: &Path) -> Self {
        mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        Self { pipe: open(path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).unwrap() }
    }

    /// Waits for a process number.
    fn pid(&self) -> u32 {
        let mut text = Vec::new();
        while text.last() != Some(&b'\n') {
            let mut wait = [PollFd::new(&self.pipe, PollFlags::IN)];
            let minutes = Timespec { tv_sec: 120, tv_nsec: 0 };
            assert!(poll(&mut wait, Some(&minutes)).unwrap() > 0, "no stage says that it runs");
            let mut bytes = [0; 32];
            let read = rustix::io::read(&self.pipe, &mut bytes).unwrap();
            text.extend_from_slice(&bytes[..read]);
        }
        String::from_utf8(text).unwrap().trim().parse().unwrap()
    }
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), signal).unwrap();
}

fn wait_for_end(pid: u32) {
    if let Ok(watched) = process::watch(pid) {
        let mut one = [PollFd::new(&watched, PollFlags::IN)];
        let minutes = Timespec { tv_sec: 120, tv_nsec: 0 };
        assert!(poll(&mut one, Some(&minutes)).unwrap() > 0, "process {pid} lives on");
    }
}

fn parent(pid: u32) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Makes something, works on it twice, and counts in a file outside how often that is done.
const CHAIN: &str = r#"
name = "p"
on_finish = { run = "touch $OUTSIDE/told" }
[stage.make]
run = "echo x >> $OUTSIDE/made; cat data/in > work/made"
inputs = ["data/in"]
outputs = ["work/made"]
duration = "100ms"
resources = { cpus = 0 }
[stage.use]
run = "cat work/made > work/used-{matrix.n}"
inputs = ["work/made"]
outputs = ["work/used-{matrix.n}"]
matrix = { n = [1, 2] }
duration = "100ms"
resources = { cpus = 0 }
"#;

fn chain() -> World {
    let world = World::new(CHAIN);
    for folder in ["data", "work"] {
        fs::create_dir(world.path(folder)).unwrap();
    }
    fs::write(world.path("data/in"), "input").unwrap();
    fs::write(world.path("work/made"), "mine").unwrap();
    world
}

#[test]
fn every_plan_is_carried_out_and_nothing_of_the_users_is_touched() {
    let world = chain();
    let output = world.live(&["--policies", "fifo,critical-path+best-fit", "--seeds", "2", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let rows = rows(&output);
    assert_eq!(rows.len(), 2);
    for row in &rows {
        let live = &row["live"];
        assert_eq!((&live["runs"], &live["succeeded"], &live["error"]), (&2.into(), &2.into(), &Value::Null), "{row}");
        assert_eq!(live["planned_ms"], row["makespan_ms"], "what was compared is what was carried out");
        assert!(live["measured_ms"].as_u64() > Some(0) && live["over_plan"].is_f64(), "{row}");
    }
    assert_eq!(fs::read_to_string(world.outside("made")).unwrap().lines().count(), 4, "nothing came from a cache");
    assert_eq!(fs::read_to_string(world.path("work/made")).unwrap(), "mine");
    assert!(!world.path("work/used-1").exists() && !world.path(".trainyard").exists());
    assert_eq!(world.beside(), ["made", "proj"], "copies are gone, and nobody is told of such runs");
}

#[test]
fn what_was_measured_stands_in_every_form() {
    let world = chain();
    let output = world.live(&["--policies", "fifo", "--seeds", "1", "--html", "page.html"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("carried out on this machine") && text.contains("over plan"), "{text}");
    assert!(fs::read_to_string(world.path("page.html")).unwrap().contains("<h3>carried out on this machine</h3>"));
    let output = world.live(&["--policies", "fifo", "--seeds", "1", "--csv"]);
    let csv = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(csv.lines().next().is_some_and(|line| line.contains(",live_runs,live_succeeded,live_error,")), "{csv}");
}

#[test]
fn a_run_that_fails_is_a_result_with_its_reason() {
    let world = World::new(
        "name = 'p'\n[stage.a]\nrun = \"test -e $OUTSIDE/once || { touch $OUTSIDE/once; echo torn; exit 3; }\"\nduration = '10ms'\n",
    );
    let output = world.live(&["--policies", "fifo,ljf", "--seeds", "1", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let rows = rows(&output);
    assert_eq!(rows[0]["live"]["error"], "`a` failed: exit code 3");
    assert_eq!((&rows[0]["live"]["succeeded"], &rows[0]["live"]["measured_ms"]), (&0.into(), &Value::Null));
    assert_eq!(rows[1]["live"]["succeeded"], 1, "the next one is carried out all the same");
    let said = said(&output);
    assert!(said.contains("torn") && said.contains("`--keep DIR` keeps it"), "{said}");
}

/// Ends at once the first time, and then goes on until it is ended.
const ONCE: &str = r#"
name = "p"
[stage.a]
run = "if test -e $OUTSIDE/once; then echo $$ > $OUTSIDE/pids; exec sleep 1000; fi; touch $OUTSIDE/once"
duration = "10ms"
"#;

#[test]
fn ctrl_c_ends_the_run_and_shows_what_was_measured() {
    for end in [Signal::INT, Signal::TERM] {
        let world = World::new(ONCE);
        let told = Told::in_file(&world.outside("pids"));
        let bench = world.start(&["--policies", "fifo,ljf", "--seeds", "1", "--json"]);
        let stage = told.pid();
        signal(&bench, end);
        let output = bench.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{}", said(&output));
        wait_for_end(stage);
        let rows = rows(&output);
        assert_eq!((&rows[0]["live"]["succeeded"], &rows[1]["live"]["runs"]), (&1.into(), &0.into()), "{rows:?}");
        assert_eq!(world.beside(), ["once", "pids", "proj"]);
    }
}

#[test]
fn a_comparison_that_is_killed_leaves_no_process_and_the_next_one_its_copy_neither() {
    let world = World::new(ONCE);
    fs::write(world.outside("once"), "").unwrap();
    let told = Told::in_file(&world.outside("pids"));
    let mut bench = world.start(&["--policies", "fifo", "--seeds", "1"]);
    let stage = told.pid();
    let run = parent(stage);
    signal(&bench, Signal::KILL);
    bench.wait().unwrap();
    wait_for_end(stage);
    wait_for_end(run);
    assert_eq!(world.beside().len(), 4, "its copy is left: {:?}", world.beside());
    fs::remove_file(world.outside("once")).unwrap();
    let output = world.live(&["--policies", "fifo", "--seeds", "1"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(world.beside(), ["once", "pids", "proj"]);
}

#[test]
fn what_is_linked_is_not_copied_and_records_are_kept_on_request() {
    let world = World::new(
        "name = 'p'\n[stage.a]\nrun = \"test -L data && cat data/in > out\"\ninputs = ['data/in']\noutputs = ['out']\n\
         duration = '10ms'\n",
    );
    fs::create_dir(world.path("data")).unwrap();
    fs::write(world.path("data/in"), "input").unwrap();
    let args = ["--policies", "fifo", "--seeds", "1", "--link", "data", "--keep", "kept"];
    let output = world.live(&args);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let kept = world.path("kept/p.fifo+earliest-finish.1");
    let show = world.command(&["show", "--json", "--state", &kept.display().to_string()]).output().unwrap();
    let run: Value = serde_json::from_slice(&show.stdout).unwrap();
    assert_eq!(run["state"], "succeeded", "{run}");
    let again = world.live(&args);
    assert_eq!(again.status.code(), Some(2));
    assert!(said(&again).contains("name another folder"), "{}", said(&again));
}

/// Trains until what it holds was seen.
const SEEN: &str = r#"
name = "p"
[stage.train]
run = "TRAIN 4000 100 & until grep -q 4194304000 .trainyard/runs/$TRAINYARD_RUN/memory.json; do sleep 0.05; done; kill $!; true"
resources = { gpu_memory = "6GiB" }
duration = "3s"
timeout = "2m"
"#;

#[test]
fn what_gpus_held_is_measured() {
    let card = Card { name: "NVIDIA Emulated".to_owned(), mib: 8_192, ..Card::default() };
    let scene = Scene::new(vec![card]).unwrap();
    let world = World::new(&SEEN.replace("TRAIN ", &format!("{} ", Scene::trainer().display())));
    let mut bench = world.command(&["bench", "p.toml", "--live", "--policies", "fifo", "--seeds", "1", "--json"]);
    let output = bench.envs(scene.environment()).env("CUDA_MPS_PIPE_DIRECTORY", world.path("no-mps")).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let live = &rows(&output)[0]["live"];
    // What is asked for of all but the headroom, and what is held of all of it.
    assert!(live["gpu_memory_use"].as_f64() > Some(0.75), "{live}");
    assert!(live["gpu_memory_held"].as_f64().is_some_and(|part| part > 0.0 && part < 0.5), "{live}");
}

#[test]
fn what_earlier_runs_took_is_known_to_plans_that_are_carried_out() {
    let world = World::new("name = 'p'\n[stage.a]\nrun = \"true\"\n");
    let run = world.command(&["run", "p.toml", "--quiet"]).output().unwrap();
    assert!(run.status.success(), "{}", said(&run));
    let rows = rows(&world.live(&["--policies", "fifo", "--seeds", "1", "--json"]));
    // Where nobody knows, a task is taken to last a minute or so.
    assert!(rows[0]["makespan_ms"].as_u64() < Some(10_000), "{rows:?}");
    assert_eq!(rows[0]["live"]["planned_ms"], rows[0]["makespan_ms"]);
    let runs = world.command(&["runs", "--json"]).output().unwrap();
    let runs: Vec<Value> = serde_json::from_slice(&runs.stdout).unwrap();
    assert_eq!(runs.len(), 1, "it is no run of the user's");
}

#[test]
fn what_cannot_be_carried_out_ends_with_2_and_what_helps() {
    let world = chain();
    fs::write(world.path("fleet.toml"), "[[node]]\nname = 'box'\ncpus = 8\n").unwrap();
    let refused = |args: &[&str], words: &str| {
        let output = world.command(args).output().unwrap();
        let said = said(&output).replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(output.status.code() == Some(2) && said.contains(words), "{args:?}: {}: {said}", output.status);
    };
    refused(&["bench", "p.toml", "--live", "--fleet", "fleet.toml"], "carries plans out on this machine");
    refused(&["bench", "--live"], "name a pipeline");
    refused(&["bench", "p.toml", "--live", "--from-history"], "cannot be used with");
    refused(&["bench", "p.toml", "--link", "data"], "--live");
    refused(&["bench", "p.toml", "--live", "--link", "work"], "stages write work/");
    refused(&["bench", "p.toml", "--live", "--link", "/"], "not in the pipeline's folder");
    let named = CHAIN.replace("> work/made", &format!("> {}", world.path("work/made").display()));
    fs::write(world.path("p.toml"), named).unwrap();
    refused(&["bench", "p.toml", "--live"], "which a run in a copy would overwrite");
    assert_eq!(fs::read_to_string(world.path("work/made")).unwrap(), "mine");
    assert_eq!(world.beside(), ["proj"], "nothing was carried out");
}
