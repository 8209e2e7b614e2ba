//! How fast output is read for progress, beside a plain search for line ends over the same bytes; and what that is of a run
//! that prints 10,000 lines a second.
//!
//! `cargo bench --bench progress` prints MB/s of each, the best of several rounds that alternate, and their ratio. Then it
//! runs a task that prints for ten seconds, and tells what part of that time reading its lines for progress takes, and what
//! part the whole orchestrator, both in processor time.

#![expect(clippy::disallowed_methods, reason = "measures time, and starts a run")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, poll};
use trainyard::progress::Reader;

/// What is read in one round, in bytes.
const AMOUNT: usize = 64 << 20;
/// As the engine reads a pipe.
const PIECE: usize = 16 << 10;
const ROUNDS: u32 = 7;

/// Lines of a service that tells no progress.
const PLAIN: &str = "2026-11-21 10:00:00,123 INFO  loader: opened /data/shard-000123/part-7.parquet in 12 ms\n\
    2026-11-21 10:00:00,131 DEBUG cache: key=3f2a9c hit, 4096 bytes from 10.0.0.3:8080 after 2 tries\n\
    WARNING: All log messages before initialisation are written to standard error and may be out of order\n\
    Traceback (most recent call last): File \"train.py\", line 42, in <module>\n";

const TQDM: &str =
    "\rtrain:  40%|████████████████▊                         | 120/300 [00:12<00:18,  9.95it/s, loss=0.123]";

const KERAS: &str = "\r\x1b[1m120/300\x1b[0m \x1b[32m━━━━━━━━\x1b[0m\x1b[37m━━━━━━━━━━━━\x1b[0m \x1b[1m3s\x1b[0m \
    12ms/step - accuracy: 0.9123 - loss: 0.3456";

const TRAINER: &str = "{'loss': 0.6931, 'grad_norm': 1.25, 'learning_rate': 4.5e-05, 'epoch': 0.52}\n";

/// Lines in a second, and for how many of them.
const LINES: usize = 10_000;
const SECONDS: usize = 10;
/// Set for the task, which is this program as well.
const PRINTS: &str = "TRAINYARD_BENCH_PRINTS";

fn main() {
    if std::env::var_os(PRINTS).is_some() {
        return print_in_time();
    }
    speeds();
    share_of_a_run();
}

fn speeds() {
    // A program writes far more of its own words than of bars.
    let mixed = format!("{}{TQDM}\n{TRAINER}", PLAIN.repeat(20));
    for (name, text) in [("plain", PLAIN), ("mixed", &mixed), ("tqdm", TQDM), ("keras", KERAS), ("trainer", TRAINER)] {
        let log = text.repeat(AMOUNT / text.len() + 1).into_bytes();
        let (mut search, mut read) = (Duration::MAX, Duration::MAX);
        for _ in 0..ROUNDS {
            search =
                search.min(timed(|| log.chunks(PIECE).map(|piece| memchr::memchr_iter(b'\n', piece).count()).sum()));
            read = read.min(timed(|| {
                let (mut reader, mut figures) = (Reader::default(), 0);
                log.chunks(PIECE).for_each(|piece| reader.read(piece, |_| figures += 1));
                figures
            }));
        }
        let rate = |time: Duration| log.len() as f64 / 1e6 / time.as_secs_f64();
        println!(
            "{name:8} read {:6.0} MB/s, search for line ends {:6.0} MB/s, ratio {:.3}",
            rate(read),
            rate(search),
            rate(read) / rate(search)
        );
    }
}

fn timed(work: impl FnOnce() -> usize) -> Duration {
    let start = Instant::now();
    std::hint::black_box(work());
    start.elapsed()
}

/// A figure in every tenth line, as often as any program tells one.
fn line(n: usize) -> String {
    let all = LINES * SECONDS;
    match n % 10 {
        0 => format!("step {n}/{all} - loss: {:.4} - accuracy: {:.4}\n", 2.0 / (n + 1) as f64, n as f64 / all as f64),
        _ => format!("2026-11-21 10:00:00,123 INFO  loader: opened /data/shard-{n:06}.parquet in {} ms\n", n % 17),
    }
}

fn print_in_time() {
    let (begun, mut out) = (Instant::now(), std::io::stdout());
    // A hundred times a second.
    let part = LINES / 100;
    for at in (0..LINES * SECONDS).step_by(part) {
        let text: String = (at..at + part).map(line).collect();
        out.write_all(text.as_bytes()).expect("somebody reads");
        let due = Duration::from_millis(((at + part) * 1_000 / LINES) as u64);
        pause(due.saturating_sub(begun.elapsed()));
    }
}

fn pause(time: Duration) {
    let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
    let _ = poll(&mut [], Some(&time));
}

/// Returns the processor time that a process has used, without its children; `None` once it is gone.
fn used(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit(") ").next()?.split(' ').collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    // Linux tells it in hundredths of a second everywhere.
    Some(Duration::from_millis(ticks * 10))
}

fn share_of_a_run() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let own = std::env::current_exe().expect("this program is there");
    let pipeline = format!(
        "name = \"printer\"\n[stage.print]\nrun = [{:?}]\nenv = {{ {PRINTS} = \"1\" }}\n",
        own.to_str().expect("a path in letters")
    );
    std::fs::write(folder.path().join("p.toml"), pipeline).expect("a pipeline file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
    command
        .args(["run", "p.toml", "--quiet"])
        .current_dir(folder.path())
        .env("TRAINYARD_BOX", folder.path().join(".box"))
        .stdin(Stdio::null());
    let begun = Instant::now();
    let mut child = command.spawn().expect("the run starts");
    let mut whole = Duration::ZERO;
    while child.try_wait().expect("it is ours").is_none() {
        whole = used(child.id()).unwrap_or(whole).max(whole);
        pause(Duration::from_millis(20));
    }
    let took = begun.elapsed();
    let log = std::fs::read(log_of(&folder.path().join(".trainyard/runs"))).expect("the log of the task");
    let lines = memchr::memchr_iter(b'\n', &log).count();
    assert_eq!(lines, LINES * SECONDS, "all of it was kept");
    let mut figures = 0;
    let read = timed(|| {
        let mut reader = Reader::default();
        log.chunks(PIECE).for_each(|piece| reader.read(piece, |_| figures += 1));
        figures
    });
    let part = |time: Duration| 100.0 * time.as_secs_f64() / took.as_secs_f64();
    println!(
        "a run that prints {lines} lines in {:.1} s: reading them for progress {:.3} %, the orchestrator {:.1} % of a core",
        took.as_secs_f64(),
        part(read),
        part(whole)
    );
}

fn log_of(runs: &Path) -> std::path::PathBuf {
    let run = std::fs::read_dir(runs).expect("a run").next().expect("a run").expect("a run");
    run.path().join("logs/print.1.log")
}
