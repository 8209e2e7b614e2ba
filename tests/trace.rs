//! What Trainyard says of itself: on standard error as asked for, and always in the run's own log.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic and starts the binary")]

use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// Runs one task that succeeds.
fn run(args: &[&str], rust_log: Option<&str>) -> (TempDir, Output) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("p.toml"), "[stage.clean]\nrun = 'echo 100 rows'\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
    command
        .args(["run", "p.toml", "--quiet"])
        .args(args)
        .current_dir(folder.path())
        .env("TRAINYARD_BOX", folder.path().join(".box"))
        .env_remove("RUST_LOG");
    if let Some(filter) = rust_log {
        command.env("RUST_LOG", filter);
    }
    let output = command.output().unwrap();
    assert!(output.status.success());
    (folder, output)
}

fn errors(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn without_v_a_good_run_has_nothing_to_say() {
    let (_, output) = run(&[], None);
    assert_eq!(errors(&output).lines().count(), 1, "only how it ended: {}", errors(&output));
}

#[test]
fn lines_for_machines_name_run_task_and_attempt() {
    let (_, output) = run(&["-v", "--log-format", "json"], None);
    let errors = errors(&output);
    let lines: Vec<Value> = errors.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let ended = lines.iter().find(|line| line["fields"]["message"] == "attempt finished").expect("it is said");
    assert_eq!((&ended["level"], &ended["fields"]["outcome"]), (&"INFO".into(), &"succeeded".into()));
    let spans: Vec<&str> = ended["spans"].as_array().unwrap().iter().filter_map(|span| span["name"].as_str()).collect();
    assert_eq!(spans, ["run", "task", "attempt"]);
    assert_eq!((&ended["spans"][1]["task"], &ended["spans"][2]["number"]), (&"clean".into(), &1.into()));
}

#[test]
fn where_log_lines_are_json_nothing_else_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[stage.a]\nrun = 'exit 3'\nresources = { gpus = 'prefer', gpu_memory = '1GiB' }\n";
    std::fs::write(folder.path().join("p.toml"), text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
    command
        .args(["run", "p.toml", "--log-format", "json"])
        .current_dir(folder.path())
        .env("TRAINYARD_BOX", folder.path().join(".box"))
        .env_remove("RUST_LOG");
    let output = command.env("TRAINYARD_NVML", "no-such-library").output().unwrap();
    let errors = errors(&output);
    let lines: Vec<Value> = errors.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let said = |what: &str| lines.iter().any(|line| line["fields"]["message"].as_str().unwrap().contains(what));
    assert!(said("no-such-library") && said("attempt finished") && said("run finished"), "{errors}");
}

#[test]
fn the_environment_wins_over_v() {
    let (_, output) = run(&["-vv"], Some("error"));
    assert_eq!(errors(&output).lines().count(), 1, "{}", errors(&output));
}

#[test]
fn every_run_keeps_its_own_log_with_details() {
    let (folder, _) = run(&[], None);
    let run = std::fs::read_dir(folder.path().join(".trainyard/runs")).unwrap().next().unwrap().unwrap().path();
    let log = std::fs::read_to_string(run.join("trainyard.log")).unwrap();
    assert!(log.contains("DEBUG") && log.contains("attempt spawned") && log.contains("run finished"), "{log}");
    assert!(!log.contains('\x1b'), "{log}");
}
