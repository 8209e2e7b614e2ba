//! The orchestrator, or the sentinel of a task, is killed at every named point and at random times in runs of 50 tasks,
//! and the run resumed: nothing is lost,
//! nothing that had succeeded is done again, no process is left, and the outputs are those of a run in peace.
//!
//! `TRAINYARD_CRASHES=300` sets how many random times there are (30), `TRAINYARD_CRASH_SEED` repeats those of a failure.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic, and starts and times the binary"
)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use serde_json::Value;
use trainyard::engine::process;
use trainyard::run::crash;

/// Tasks of the pipeline: layers of five, each reading two files of the layer before.
const LAYERS: usize = 10;
const WIDTH: usize = 5;

/// Layers where there are many runs: with them a run has everything once.
const FEW: usize = 3;

/// Layers of which one task runs twice side by side.
const RACES: [usize; 3] = [1, 5, 9];

/// Returns the pipeline. Some stages leave processes: in their group, outside of it, and hidden from every descriptor.
fn pipeline(layers: usize) -> String {
    let mut text =
        "name = \"crash\"\n[defaults]\nresources = { cpus = 0 }\ngrace = \"200ms\"\nretries = 1\n".to_owned();
    for layer in 0..layers {
        for place in 0..WIDTH {
            let file = |layer: usize, place: usize| format!("out/{layer}-{}.txt", place % WIDTH);
            let inputs: Vec<String> = match layer {
                0 => Vec::new(),
                _ => [place, place + 1].map(|place| format!("\"{}\"", file(layer - 1, place))).to_vec(),
            };
            let left = match (layer, place) {
                (2, 0) => "sleep 1000 & ",
                (1 | 4, 1) => "setsid sleep 1000 & ",
                (0 | 6, 2) => "(setsid sleep 1000 >/dev/null 2>&1 </dev/null &) ; exec 2>&-; ",
                _ => "",
            };
            // Of these two attempts run side by side, and the very first one to begin never ends by itself. Who made them
            // is in two outputs more.
            let is_race = place == 3 && RACES.contains(&layer);
            let (race, straggles, by) = match is_race {
                true => {
                    let by = ["one", "two"].map(|name| format!(", \"by/{layer}.{name}\"")).concat();
                    (
                        "replicas = 2\n",
                        format!(
                            "mkdir lost-{layer} 2>&- && exec sleep 1000; set -- {{outputs}}; \
                     for by in $2 $3; do echo $TRAINYARD_ATTEMPT > $by; done; "
                        ),
                        by,
                    )
                }
                false => ("", "set -- {outputs}; ".to_owned(), String::new()),
            };
            // The output is whole or not there, and the task's name is in it.
            writeln!(
                text,
                "[stage.t{layer}-{place}]\n{race}run = \"{straggles}{left}{{ echo $TRAINYARD_TASK; cat {{inputs}} /dev/null; }} > $1\"\n\
                 inputs = [{}]\noutputs = [\"{}\"{by}]",
                inputs.join(", "),
                file(layer, place)
            )
            .unwrap();
        }
    }
    text
}

/// A folder in which one run is killed and resumed.
struct World {
    dir: tempfile::TempDir,
    layers: usize,
    mark: String,
    /// How attempts may end besides well or interrupted.
    allowed: Option<&'static str>,
}

impl World {
    fn new() -> Self {
        Self::of(LAYERS)
    }

    fn of(layers: usize) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("p.toml"), pipeline(layers)).unwrap();
        let mark = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self { dir, layers, mark, allowed: None }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
        command
            .args(args)
            .current_dir(self.dir.path())
            .env("TRAINYARD_BOX", self.dir.path().join(".box"))
            .env("HOME", self.dir.path())
            .stdin(Stdio::null());
        command.env_remove("RUST_LOG").env("TRAINYARD_TEST_WORLD", &self.mark);
        hears_hang_ups(&mut command);
        command
    }

    /// Begins or goes on, whatever there is to do.
    fn args(&self, survive: bool) -> Vec<&'static str> {
        let mut args = match self.show() {
            Some(_) => vec!["resume", "latest", "--quiet", "--jobs", "4", "--budget", "0s"],
            None => vec!["run", "p.toml", "--quiet", "--jobs", "4", "--budget", "0s"],
        };
        args.extend(survive.then_some("--survive"));
        args
    }

    fn show(&self) -> Option<Value> {
        let output = self.command(&["show", "--json"]).output().unwrap();
        output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
    }

    /// Starts it and kills it when the time is up, unless it has ended.
    fn killed_after(&self, survive: bool, time: Duration) {
        let mut command = self.command(&self.args(survive));
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let watched = process::watch(child.id()).unwrap();
        let time = Timespec::try_from(time).unwrap();
        let _ = poll(&mut [PollFd::new(&watched, PollFlags::IN)], Some(&time));
        process::signal(child.id(), Signal::KILL);
        child.wait().unwrap();
    }

    /// Starts it, sends these signals when the time is up, and waits for its end.
    fn ended_by(&self, survive: bool, time: Duration, signals: &[Signal]) {
        let mut command = self.command(&self.args(survive));
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let watched = process::watch(child.id()).unwrap();
        let time = Timespec::try_from(time).unwrap();
        let _ = poll(&mut [PollFd::new(&watched, PollFlags::IN)], Some(&time));
        signals.iter().for_each(|signal| process::signal(child.id(), *signal));
        let status = child.wait().unwrap();
        self.has_ended_by(status, signals, &format!("{signals:?} after {time:?}"));
    }

    /// Starts it with the order to send itself signals at a point, and waits for its end; returns whether it came there.
    fn ended_at(&self, point: &str, signals: &[Signal], names: &str) -> bool {
        let once = self.dir.path().join("once");
        std::fs::create_dir_all(&once).unwrap();
        let mut command = self.command(&self.args(false));
        command.env("TRAINYARD_CRASH_AT", point).env("TRAINYARD_CRASH_BY", names).env("TRAINYARD_CRASH_ONCE", &once);
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        let what = format!("{names} at {point}");
        // From its record on, a run ends as its record says.
        assert!(point == "read" || matches!(status.code(), Some(0 | 130)), "{what}: {status}");
        assert!(point == "read" || self.show().is_some(), "{what}");
        self.has_ended_by(status, signals, &what);
        once.join(point.split(':').next().unwrap()).exists()
    }

    /// Asserts that a command ended as one does that these signals were sent to.
    fn has_ended_by(&self, status: std::process::ExitStatus, signals: &[Signal], what: &str) {
        // Before there is anything on record to end, a signal simply ends the command.
        let by_signal = std::os::unix::process::ExitStatusExt::signal(&status);
        let by_ours = by_signal.is_some_and(|by| signals.iter().any(|signal| signal.as_raw() == by));
        assert!(by_ours || matches!(status.code(), Some(0 | 130)), "{what}: {status}");
        if status.code() == Some(130) {
            self.is_left_alone(what);
            assert!(self.show().is_none_or(|run| run["state"] == "interrupted"), "{what}");
        }
    }

    /// Starts it with the order to die at a point; returns whether it came there.
    fn killed_at(&self, survive: bool, point: &str) -> bool {
        let mut command = self.command(&self.args(survive));
        let status =
            command.env("TRAINYARD_CRASH_AT", point).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(status.success() || status.code().is_none(), "{point}: {status}");
        !status.success()
    }

    /// Lets the run end and holds what there is then against what there must be.
    fn goes_on(&self, what: &str, peace: &Files) {
        let before = self.show().map(|run| attempts(&run)).unwrap_or_default();
        let output = self.command(&self.args(false)).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{what}: {}", said(&output));
        let run = self.show().expect("it is on record");
        assert_eq!(run["state"], "succeeded", "{what}");
        let after = attempts(&run);
        assert_eq!(after.len(), self.layers * WIDTH, "{what}: a task is lost");
        for (task, outcomes) in &after {
            let successes = outcomes.iter().filter(|outcome| *outcome == "succeeded").count();
            assert_eq!((successes, last(&run, task)), (1, Some("succeeded")), "{what}: {task}: {outcomes:?}");
            let allowed = ["succeeded", "interrupted", "outrun", self.allowed.unwrap_or("succeeded")];
            assert!(outcomes.iter().all(|outcome| allowed.contains(&outcome.as_str())), "{what}: {task}: {outcomes:?}");
        }
        for (task, outcomes) in before.iter().filter(|(_, outcomes)| outcomes.iter().any(|one| one == "succeeded")) {
            assert_eq!(outcomes.len(), after[task].len(), "{what}: {task} had succeeded and was tried again");
        }
        assert_eq!(&files(&self.dir.path().join("out")), peace, "{what}");
        for race in RACES.iter().filter(|layer| **layer < self.layers) {
            let won = after[&format!("t{race}-3")].iter().position(|outcome| outcome == "succeeded").unwrap() + 1;
            let by = ["one", "two"].map(|name| self.dir.path().join(format!("by/{race}.{name}")));
            let by = by.map(|path| std::fs::read_to_string(path).unwrap());
            assert_eq!(by, [format!("{won}\n"), format!("{won}\n")], "{what}: outputs of race {race}");
        }
        let staging = self.dir.path().join(".trainyard/runs").join(run["run"].as_str().unwrap()).join("staging");
        assert!(!staging.exists(), "{what}: {} is left", staging.display());
        self.is_left_alone(what);
    }

    /// Waits until nothing runs that was started here, this long at most: a warden may still be at it.
    fn is_left_alone(&self, what: &str) {
        let mark = [format!("TRAINYARD_TEST_WORLD={}", self.mark)];
        let until = Instant::now() + Duration::from_mins(1);
        while let Some(pid) = process::find_marked(&mark).first().copied() {
            assert!(Instant::now() < until, "{what}: process {pid} is left: {:?}", command_of(pid));
            if let Ok(watched) = process::watch(pid) {
                let second = Timespec { tv_sec: 1, tv_nsec: 0 };
                let _ = poll(&mut [PollFd::new(&watched, PollFlags::IN)], Some(&second));
            }
        }
    }
}

fn command_of(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// How the attempt ended that was the last to end of those of a task that were not outrun: of two side by side the first
/// may be it.
fn last<'r>(run: &'r Value, task: &str) -> Option<&'r str> {
    let tasks = run["tasks"].as_array().unwrap();
    let attempts = tasks.iter().find(|one| one["name"] == task)?["attempts"].as_array().unwrap().iter();
    let last = attempts.filter(|attempt| attempt["outcome"] != "outrun");
    // A success is the last of what ended in one millisecond.
    last.max_by_key(|attempt| (attempt["finished"].as_str(), attempt["outcome"] == "succeeded"))?["outcome"].as_str()
}

/// The outcomes of each task's attempts.
fn attempts(run: &Value) -> BTreeMap<String, Vec<String>> {
    let outcome = |attempt: &Value| attempt["outcome"].as_str().unwrap_or("none").to_owned();
    let tasks = run["tasks"].as_array().unwrap().iter();
    tasks
        .map(|task| {
            let attempts = task["attempts"].as_array().unwrap().iter().map(outcome).collect();
            (task["name"].as_str().unwrap().to_owned(), attempts)
        })
        .collect()
}

type Files = BTreeMap<String, Vec<u8>>;

fn files(folder: &Path) -> Files {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())).collect()
}

/// Runs the pipeline in peace; returns its outputs and how long it took.
fn peace() -> (Files, Duration) {
    peace_of(LAYERS)
}

fn peace_of(layers: usize) -> (Files, Duration) {
    let world = World::of(layers);
    let begun = Instant::now();
    let output = world.command(&world.args(false)).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let took = begun.elapsed();
    world.is_left_alone("in peace");
    let files = files(&world.dir.path().join("out"));
    assert_eq!(files.len(), layers * WIDTH);
    (files, took)
}

/// Does all of these, two at a time.
fn in_pairs<T: Send>(jobs: Vec<T>, work: impl Fn(T) + Sync) {
    let jobs = std::sync::Mutex::new(jobs.into_iter());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let job = jobs.lock().unwrap().next();
                    let Some(job) = job else { return };
                    work(job);
                }
            });
        }
    });
}

#[test]
fn a_run_killed_at_any_named_point_goes_on() {
    // The points are there in builds with debug assertions only.
    if !cfg!(debug_assertions) {
        return;
    }
    let (peace, _) = peace();
    let of_runs = [
        "read",
        "begun",
        "decided:1",
        "decided:9",
        "committed:1",
        "committed:17",
        "spawned:1",
        "spawned:26",
        "spawned:50",
    ];
    let of_ends = [
        "publishing:1",
        "keeping:1",
        "keeping:6",
        "publishing:2",
        "publishing:7",
        "publishing:12",
        "ended:1",
        "ended:23",
        "ended:50",
        "told",
        "closing",
        "dismissed",
    ];
    let of_resumes = ["taken-over", "swept", "resumed"];
    let named = of_runs.iter().chain(&of_ends).chain(&of_resumes).map(|point| point.split(':').next().unwrap());
    let named: std::collections::BTreeSet<&str> = named.collect();
    assert_eq!(named, crash::POINTS.into_iter().collect(), "every point is tried");

    let mut jobs: Vec<(&str, bool)> =
        of_runs.iter().chain(&of_ends).chain(&of_resumes).map(|point| (*point, false)).collect();
    // Where processes outlive the orchestrator, these leave the most behind.
    jobs.extend(
        [
            "committed:17",
            "spawned:26",
            "publishing:2",
            "publishing:8",
            "keeping:4",
            "ended:23",
            "closing",
            "swept",
            "resumed",
        ]
        .map(|point| (point, true)),
    );
    in_pairs(jobs, |(point, survive)| {
        let what = format!("{point}{}", if survive { ", surviving" } else { "" });
        let world = World::new();
        if of_resumes.contains(&point) {
            assert!(world.killed_at(survive, "spawned:20"), "{what}");
        }
        assert!(world.killed_at(survive, point), "{what} was not reached");
        world.goes_on(&what, &peace);
    });
}

#[test]
fn a_run_whose_sentinel_is_killed_at_any_named_point_goes_on() {
    if !cfg!(debug_assertions) {
        return;
    }
    let (peace, _) = peace();
    // With the orchestrator alive, and with one that dies a little later.
    let jobs = crash::POINTS_OF_SENTINELS.iter().flat_map(|point| [(*point, None), (*point, Some("spawned:12"))]);
    in_pairs(jobs.collect(), |(point, orchestrator)| {
        let what = format!("{point}, {orchestrator:?}");
        let world = World { allowed: Some("signalled:9"), ..World::new() };
        let once = world.dir.path().join("once");
        std::fs::create_dir(&once).unwrap();
        let points = [point].into_iter().chain(orchestrator).collect::<Vec<_>>().join(",");
        let mut command = world.command(&world.args(true));
        command.env("TRAINYARD_CRASH_AT", points).env("TRAINYARD_CRASH_ONCE", &once);
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert_eq!(status.success(), orchestrator.is_none(), "{what}: {status}");
        assert!(once.join(point).exists(), "{what}: the point was not reached");
        world.goes_on(&what, &peace);
    });
}

#[test]
fn a_run_killed_at_random_times_goes_on() {
    let crashes = number("TRAINYARD_CRASHES").unwrap_or(30);
    let seed = seed();
    let (peace, took) = peace();
    in_pairs((0..crashes).collect(), |crash| {
        let mut random = Random(seed ^ crash.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let world = World::new();
        let kills = 1 + random.below(2);
        let mut what = format!("seed {seed}, crash {crash}:");
        for _ in 0..kills {
            let survive = random.below(2) == 0;
            // Two at a time it takes longer than alone; a kill may come after the end as well.
            let after = took.mul_f64(f64::from(u32::try_from(random.below(1_500)).unwrap()) / 1_000.0);
            write!(what, " {after:?}{}", if survive { " surviving" } else { "" }).unwrap();
            world.killed_after(survive, after);
        }
        world.goes_on(&what, &peace);
    });
}

#[test]
fn a_run_ended_by_signals_in_any_phase_leaves_nothing_and_goes_on() {
    if !cfg!(debug_assertions) {
        return;
    }
    let (peace, _) = peace_of(FEW);
    let of_runs = ["read", "begun", "decided:1", "committed:1", "committed:4", "spawned:1", "spawned:9"];
    let of_ends = ["publishing:1", "publishing:3", "keeping:2", "ended:8", "ended:15", "told", "closing", "dismissed"];
    let of_resumes = ["taken-over", "swept", "resumed"];
    let points = of_runs.iter().chain(&of_ends).chain(&of_resumes);
    let named: std::collections::BTreeSet<&str> =
        points.clone().map(|point| point.split(':').next().unwrap()).collect();
    assert_eq!(named, crash::POINTS.into_iter().collect(), "every point is tried");

    let all = [
        ("INT", &[Signal::INT][..]),
        ("TERM", &[Signal::TERM]),
        ("HUP", &[Signal::HUP]),
        ("INT,INT", &[Signal::INT, Signal::INT]),
    ];
    let jobs = points.enumerate().flat_map(|(nth, point)| [0, 1].map(|more| (*point, all[(nth + more) % all.len()])));
    in_pairs(jobs.collect(), |(point, (names, signals))| {
        let what = format!("{names} at {point}");
        let world = World::of(FEW);
        if of_resumes.contains(&point) {
            assert!(world.killed_at(false, "spawned:8"), "{what}");
        }
        assert!(world.ended_at(point, signals, names), "{what} was not reached");
        world.goes_on(&what, &peace);
    });
}

#[test]
fn a_run_ended_by_signals_at_random_times_leaves_nothing_and_goes_on() {
    let seed = seed();
    let (peace, took) = peace();
    let all = [&[Signal::INT][..], &[Signal::TERM], &[Signal::HUP], &[Signal::INT, Signal::TERM]];
    let jobs = (0..all.len() as u64).collect();
    in_pairs(jobs, |job| {
        let mut random = Random(seed ^ job.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let signals = all[usize::try_from(job).unwrap() % all.len()];
        let after = took.mul_f64(f64::from(u32::try_from(random.below(1_300)).unwrap()) / 1_000.0);
        let survive = random.below(2) == 0;
        let world = World::new();
        world.ended_by(survive, after, signals);
        world.goes_on(&format!("seed {seed}, {signals:?} after {after:?}, surviving: {survive}"), &peace);
    });
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Returns the seed of all random times, and prints it.
fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let seed = number("TRAINYARD_CRASH_SEED").unwrap_or(now);
    println!("TRAINYARD_CRASH_SEED={seed}");
    seed
}

/// SplitMix64 (Steele, Lea, Flood, 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}

/// Lets a command hear a hang-up also where these tests were started by `nohup`.
fn hears_hang_ups(command: &mut Command) {
    let set = || {
        // SAFETY: it is one that may be called between fork and exec, and installs no handler.
        unsafe { libc::signal(libc::SIGHUP, libc::SIG_DFL) };
        Ok(())
    };
    // SAFETY: as said there.
    unsafe { std::os::unix::process::CommandExt::pre_exec(command, set) };
}
