//! What a command costs as a whole process: `cargo bench --bench commands`.
//!
//! `trainyard check` and `plan` are started on pipelines of 20, 1,000 and 10,000 stages. Each start alternates
//! with one of `/bin/true`, the price of a process that does nothing; medians of both and of their difference are
//! printed. With `--features torch` the same is measured for the binary that is built beside the built-in stages.

#![expect(clippy::disallowed_methods, reason = "it measures processes from outside")]

use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// A preprocessing stage, a training sweep over files, and an evaluation, again and again.
fn pipeline(stages: usize) -> String {
    let mut text = "name = \"commands\"\n".to_owned();
    for i in 0..stages {
        let before = i.checked_sub(4).map(|before| format!("inputs = [\"work/{before}.npz\"]\n")).unwrap_or_default();
        let seconds = 5 + i * 7 % 50;
        write!(
            text,
            "[stage.s{i}]\nkind = \"train\"\nrun = \"python train.py --seed {i}\"\n{before}outputs = [\"work/{i}.npz\"]\n\
             resources = {{ cpus = 1, memory = \"1GiB\" }}\nduration = \"{seconds}s\"\n"
        )
        .expect("a String takes everything");
    }
    text
}

/// Returns how long the command took, ms.
fn time(program: &str, args: &[&str], folder: &Path) -> f64 {
    let mut command = Command::new(program);
    command.args(args).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let started = Instant::now();
    let status = command.status().expect("the command starts");
    assert!(status.success(), "{program} {args:?} ended with {status}");
    started.elapsed().as_secs_f64() * 1e3
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let trainyard = env!("CARGO_BIN_EXE_trainyard");
    println!("{:<8} {:>8} {:>12} {:>12} {:>12}", "command", "stages", "wall", "/bin/true", "difference");
    for stages in [20, 1_000, 10_000] {
        std::fs::write(folder.path().join("p.toml"), pipeline(stages)).expect("the temporary folder can be written");
        for args in [&["check", "p.toml"][..], &["plan", "p.toml", "--budget", "0s"]] {
            let (mut walls, mut nothing) = (Vec::new(), Vec::new());
            for _ in 0..(if stages > 1_000 { 11 } else { 51 }) {
                nothing.push(time("/bin/true", &[], folder.path()));
                walls.push(time(trainyard, args, folder.path()));
            }
            let (wall, nothing) = (median(walls), median(nothing));
            let extra = wall - nothing;
            println!("{:<8} {stages:>8} {wall:>9.1} ms {nothing:>9.1} ms {extra:>9.1} ms", args[0]);
        }
    }
}
