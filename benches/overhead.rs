//! What running a task costs beyond its process: `cargo bench --bench overhead`.
//!
//! The floor starts the same number of `/bin/true` by `posix_spawn`, two in flight, and does nothing else. Then
//! `trainyard run --jobs 2` does it with a log where a task prints and a durable record of each attempt. Floor and run
//! alternate; the ratio is taken pair by pair, and its median is printed. Peak memory is the kernel's figure for
//! the orchestrator. The last line is an orchestrator that holds 1 GiB besides: a fork would copy its page tables. Its clock
//! runs from when it holds them until the run is over: to take so much memory and to give it back is not counted.

#![expect(clippy::disallowed_methods, clippy::zombie_processes, reason = "it measures processes from outside")]

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Set where this program is the orchestrator.
const BALLAST: &str = "TRAINYARD_BENCH_BALLAST";

/// What it prints when it holds what it is to hold, and once the run is over.
const MARK: u8 = 0;

/// A workload: its name and for each task those it comes after.
struct Workload {
    name: &'static str,
    after: Vec<Vec<usize>>,
    /// What the orchestrator holds besides, bytes.
    ballast: usize,
}

fn workloads(most: usize) -> Vec<Workload> {
    let independent = |n| vec![Vec::new(); n];
    let chain = |n: usize| (0..n).map(|i| i.checked_sub(1).into_iter().collect()).collect();
    let mut all = vec![
        Workload { name: "1,000 independent", after: independent(1_000), ballast: 0 },
        Workload { name: "chain of 1,000", after: chain(1_000), ballast: 0 },
        Workload { name: "100 layers x 20", after: layers(100, 20), ballast: 0 },
        Workload { name: "10,000 independent", after: independent(10_000), ballast: 0 },
        Workload { name: "1,000 with 1 GiB", after: independent(1_000), ballast: 1 << 30 },
    ];
    all.retain(|workload| workload.after.len() <= most);
    all
}

/// Each task comes after three of the layer before, spread by a fixed stride.
fn layers(depth: usize, width: usize) -> Vec<Vec<usize>> {
    let task = |layer: usize, i: usize| layer * width + i % width;
    (0..depth * width)
        .map(|n| match (n / width, n % width) {
            (0, _) => Vec::new(),
            (layer, i) => vec![task(layer - 1, i), task(layer - 1, i + 7), task(layer - 1, i + 13)],
        })
        .collect()
}

fn pipeline(workload: &Workload) -> String {
    let mut text = "name = \"overhead\"\n".to_owned();
    for (i, after) in workload.after.iter().enumerate() {
        let after: Vec<String> = after.iter().map(|before| format!("\"t{before}\"")).collect();
        let after = after.join(", ");
        let resources = "{ cpus = 0 }";
        write!(text, "[stage.t{i}]\nrun = [\"/bin/true\"]\nafter = [{after}]\nresources = {resources}\n")
            .expect("a String takes everything");
    }
    text
}

/// Returns a command whose programs load as they do for a user: cargo names folders in which every one would look for its
/// libraries first.
fn plain(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_remove("LD_LIBRARY_PATH");
    command
}

/// Two threads take tasks in order; a task that comes after others waits for its turn only roughly, as the floor is
/// about processes, not order: a chain is run by one thread.
fn floor(workload: &Workload) -> Duration {
    let in_flight = if workload.name.starts_with("chain") { 1 } else { 2 };
    let next = AtomicUsize::new(0);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..in_flight {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::Relaxed) < workload.after.len() {
                    let child = plain("/bin/true").stdin(Stdio::null()).stdout(Stdio::null()).spawn();
                    assert!(child.and_then(|mut child| child.wait()).expect("/bin/true runs").success());
                }
            });
        }
    });
    started.elapsed()
}

/// Returns wall time and peak memory (bytes) of one run, by this program where it is to hold something besides.
fn run(file: &Path, state: &Path, ballast: usize) -> (Duration, u64) {
    let mut command = match ballast {
        0 => plain(env!("CARGO_BIN_EXE_trainyard")),
        _ => plain(std::env::current_exe().expect("this program")),
    };
    if ballast > 0 {
        command.env(BALLAST, ballast.to_string());
    }
    let mut started = Instant::now();
    command.arg("run").arg(file).args(["--jobs", "2", "--quiet", "--state"]).arg(state);
    command.env("TRAINYARD_BOX", state.with_extension("box"));
    let mut child = command.stdout(Stdio::piped()).spawn().expect("the benchmark's own binary starts");
    let mut told = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut marked = || {
        let mut text = Vec::new();
        told.read_until(MARK, &mut text).is_ok() && text.ends_with(&[MARK])
    };
    if ballast > 0 {
        assert!(marked(), "it says when it holds what it is to hold");
        started = Instant::now();
    }
    let over = (ballast > 0 && marked()).then(|| started.elapsed());
    let pid = libc::pid_t::try_from(child.id()).expect("a process number");
    let (mut status, mut usage) = (0, no_usage());
    // SAFETY: both pointers are to live local variables, and the child is ours and not waited for elsewhere.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    assert!(waited == pid && libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "the run failed");
    (over.unwrap_or_else(|| started.elapsed()), u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024)
}

fn no_usage() -> libc::rusage {
    // SAFETY: `rusage` is plain integers, for which zero is valid.
    unsafe { std::mem::zeroed() }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Takes the place of `trainyard`, holding so many bytes.
fn orchestrate(ballast: usize) -> ExitCode {
    // Written to, byte by byte: only what is in memory counts. Not the helpers that it starts as itself.
    let held = vec![1_u8; if std::env::args().nth(1).as_deref() == Some("run") { ballast } else { 0 }];
    let mark = || {
        if !held.is_empty() {
            let mut out = std::io::stdout();
            out.write_all(&[MARK]).and_then(|()| out.flush()).expect("the benchmark reads it");
        }
    };
    mark();
    let exit = trainyard::cli::main();
    mark();
    drop(std::hint::black_box(held));
    exit
}

fn main() -> ExitCode {
    if let Some(ballast) = std::env::var(BALLAST).ok().and_then(|bytes| bytes.parse().ok()) {
        return orchestrate(ballast);
    }
    let most = std::env::args().find_map(|arg| arg.strip_prefix("--most=")?.parse().ok()).unwrap_or(10_000);
    println!("{:<20} {:>10} {:>10} {:>8} {:>12}", "workload", "floor", "run", "ratio", "peak memory");
    for workload in workloads(most) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("pipeline.toml");
        std::fs::write(&file, pipeline(&workload)).expect("the temporary folder can be written");
        let pairs = if workload.after.len() > 5_000 { 3 } else { 7 };
        let (mut ratios, mut floors, mut runs, mut peak) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for pair in 0..pairs {
            let before = floor(&workload).as_secs_f64();
            let (took, memory) = run(&file, &folder.path().join(format!("state{pair}")), workload.ballast);
            let after = floor(&workload).as_secs_f64();
            ratios.push(took.as_secs_f64() / f64::midpoint(before, after));
            floors.push(f64::midpoint(before, after));
            runs.push(took.as_secs_f64());
            peak = peak.max(memory);
        }
        let (floor, run, ratio) = (median(floors), median(runs), median(ratios));
        let peak = trainyard::units::Bytes(peak);
        println!("{:<20} {floor:>8.2} s {run:>8.2} s {ratio:>8.2} {peak:>12}", workload.name);
    }
    ExitCode::SUCCESS
}
