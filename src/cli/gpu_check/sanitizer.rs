//! The comparison once more under compute-sanitizer, where it is installed: accesses outside of arrays, races, values that
//! nobody wrote, barriers that not all reach.

use std::io::ErrorKind;
use std::process::{Command, Output};
use std::time::Duration;

use super::rows::Rows;

const PART: &str = "sanitizer";

const TOOLS: [&str; 4] = ["memcheck", "racecheck", "initcheck", "synccheck"];

/// Where it may be: found as a command, and where CUDA's own installer puts it.
const PLACES: [&str; 2] = ["compute-sanitizer", "/usr/local/cuda/bin/compute-sanitizer"];

/// How it exits when it found something.
const FOUND: i32 = 9;

/// What one tool may take; a kernel is some ten times slower under it.
const LIMIT: Duration = Duration::from_secs(60);

/// Skips everything.
pub(super) fn skip(rows: &mut Rows, why: &str) {
    TOOLS.iter().for_each(|tool| rows.skipped(PART, tool, why));
}

/// Compares under every tool, on the device with this UUID.
pub(super) fn check(rows: &mut Rows, uuid: &str) {
    for tool in TOOLS {
        if !rows.begin(PART, tool) {
            continue;
        }
        let runs = PLACES.iter().map(|place| {
            let mut command = Command::new(place);
            command.args(["--tool", tool, "--error-exitcode", &FOUND.to_string()]).arg(std::env::current_exe()?);
            command.args(["gpu-check", "--only-equality", "--graphs", "4"]).env("CUDA_VISIBLE_DEVICES", uuid);
            rows.run(&mut command, LIMIT)
        });
        let is_there =
            |run: &std::io::Result<Output>| !matches!(run, Err(error) if error.kind() == ErrorKind::NotFound);
        match runs.into_iter().find(is_there) {
            None => rows.skipped(PART, tool, "compute-sanitizer is not installed"),
            // How much slower kernels are under it says nothing about them.
            Some(Err(error)) if error.kind() == ErrorKind::TimedOut => {
                rows.skipped(PART, tool, &format!("it is too slow here: {error}"));
            }
            Some(Err(error)) => rows.fail(PART, tool, &error.to_string()),
            Some(Ok(run)) => judge(rows, tool, &run),
        }
    }
}

/// Tells what was found from a tool that cannot run here: then not one comparison came to its end, and it counted no error.
fn judge(rows: &mut Rows, tool: &str, run: &Output) {
    let said = [run.stdout.as_slice(), &run.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let compared = said.lines().filter(|line| line.starts_with("equality ")).count();
    let last: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = last[last.len().saturating_sub(5)..].join(" / ");
    if compared > 0 && run.status.success() {
        rows.passed(PART, tool, "clean");
    } else if compared > 0 || counted(&said) > 0 {
        rows.fail(PART, tool, &last);
    } else {
        rows.skipped(PART, tool, &format!("compute-sanitizer cannot run here: {last}"));
    }
}

/// Returns how many errors or hazards a summary counts: `ERROR SUMMARY: 2 errors`.
fn counted(said: &str) -> u64 {
    let summaries = said.lines().filter_map(|line| line.split_once(" SUMMARY: "));
    summaries.filter_map(|(_, count)| count.split(' ').next()?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_says_how_much_was_found() {
        assert_eq!(counted("========= COMPUTE-SANITIZER\n========= ERROR SUMMARY: 0 errors\n"), 0);
        assert_eq!(counted("========= ERROR SUMMARY: 12 errors\n"), 12);
        assert_eq!(counted("========= RACECHECK SUMMARY: 3 hazards displayed (3 errors, 0 warnings)\n"), 3);
        assert_eq!(counted("========= Unable to attach\n"), 0);
    }
}
