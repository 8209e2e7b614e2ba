//! What a run costs in which everything is up to date: `cargo bench --bench idle [-- --ninja=PATH]`.
//!
//! 10,000 tasks in 100 stages of 100, each of which reads what one task of the stage before it wrote: once as a pipeline,
//! and once as a graph for ninja, which is looked for in `PATH`. Both make everything, then do nothing, alternating; the
//! ratio is taken pair by pair, and its median is printed. `trainyard check`, which only reads the same file, shows how much
//! of it is start-up.

#![expect(clippy::disallowed_methods, reason = "it measures processes from outside")]

use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

const STAGES: usize = 100;
const POINTS: usize = 100;
const PAIRS: usize = 21;

fn pipeline() -> String {
    let points: Vec<String> = (0..POINTS).map(|i| i.to_string()).collect();
    let points = points.join(", ");
    let mut text = "name = \"idle\"\n[defaults]\nresources = { cpus = 0 }\n".to_owned();
    for stage in 0..STAGES {
        let inputs = match stage.checked_sub(1) {
            Some(before) => format!("inputs = [\"work/{before}-{{matrix.i}}\"]\n"),
            None => String::new(),
        };
        write!(
            text,
            "[stage.s{stage}]\nrun = [\"touch\", \"work/{stage}-{{matrix.i}}\"]\n{inputs}\
             outputs = [\"work/{stage}-{{matrix.i}}\"]\nmatrix = {{ i = [{points}] }}\n"
        )
        .expect("a String takes everything");
    }
    text
}

fn ninja_file() -> String {
    let mut text = "rule touch\n  command = touch $out\n".to_owned();
    for (stage, i) in (0..STAGES).flat_map(|stage| (0..POINTS).map(move |i| (stage, i))) {
        let input = stage.checked_sub(1).map(|before| format!(" work/{before}-{i}")).unwrap_or_default();
        writeln!(text, "build work/{stage}-{i}: touch{input}").expect("a String takes everything");
    }
    text
}

/// Runs a command to its end and returns its wall time and its CPU time, s.
fn time(program: &str, args: &[&str], folder: &Path) -> (f64, f64) {
    let started = Instant::now();
    let mut command = Command::new(program);
    command
        .args(args)
        .current_dir(folder)
        .env("TRAINYARD_BOX", folder.join(".box"))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let pid = libc::pid_t::try_from(command.spawn().expect("the program starts").id()).expect("a process number");
    // SAFETY: `rusage` is plain integers, for which zero is valid; both pointers are to live local variables, and the
    // child is ours and not waited for elsewhere.
    let (ended, usage) = unsafe {
        let (mut status, mut usage) = (0, std::mem::zeroed::<libc::rusage>());
        (libc::wait4(pid, &raw mut status, 0, &raw mut usage) == pid && status == 0, usage)
    };
    assert!(ended, "{program} {args:?} fails");
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    (started.elapsed().as_secs_f64(), seconds(usage.ru_utime) + seconds(usage.ru_stime))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let ninja = std::env::args().find_map(|arg| arg.strip_prefix("--ninja=").map(str::to_owned));
    let ninja = ninja.unwrap_or_else(|| "ninja".to_owned());
    let has_ninja = Command::new(&ninja).arg("--version").stdout(Stdio::null()).status().is_ok_and(|s| s.success());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (ours, theirs) = (folder.path().join("trainyard"), folder.path().join("ninja"));
    for (folder, file, text) in [(&ours, "p.toml", pipeline()), (&theirs, "build.ninja", ninja_file())] {
        std::fs::create_dir(folder).and_then(|()| std::fs::write(folder.join(file), text)).expect("a file");
    }
    let own = env!("CARGO_BIN_EXE_trainyard");
    println!("made everything once: {:.1} s", time(own, &["run", "p.toml", "--quiet"], &ours).0);
    // Files that were written just now are looked at once more.
    time(own, &["run", "p.toml", "--quiet"], &ours);
    if has_ninja {
        time(&ninja, &[], &theirs);
    }
    let (mut runs, mut checks, mut floors) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        floors.extend(has_ninja.then(|| time(&ninja, &[], &theirs)));
        runs.push(time(own, &["run", "p.toml", "--quiet"], &ours));
        checks.push(time(own, &["check", "p.toml"], &ours));
    }
    let ms = |times: &[(f64, f64)]| {
        let (wall, cpu) = times.iter().copied().unzip();
        format!("{:.1} ms, of which {:.1} ms on a CPU", 1e3 * median(wall), 1e3 * median(cpu))
    };
    println!("trainyard run, nothing to do: {}", ms(&runs));
    println!("trainyard check, start-up alone: {}", ms(&checks));
    if has_ninja {
        let ratio = |of: fn((f64, f64)) -> f64| {
            median(runs.iter().zip(&floors).map(|(run, floor)| of(*run) / of(*floor)).collect())
        };
        println!("ninja, nothing to do: {}", ms(&floors));
        println!("ratio {:.2}, of CPU time {:.2}", ratio(|(wall, _)| wall), ratio(|(_, cpu)| cpu));
    } else {
        println!("ninja is not installed: `pip install ninja` brings it");
    }
}
