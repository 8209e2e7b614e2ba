//! A whole run of a pipeline whose training must really be on the device.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::rows::Rows;

/// What a stage says that was given a device and cannot use it.
const ON_CPU: &str = "this runs on the CPU";

/// What the whole run may take.
const LIMIT: Duration = Duration::from_secs(180);

/// Runs it on the device with this UUID, with a record of its own, so that nothing counts as done already.
pub(super) fn check(rows: &mut Rows, file: &Path, uuid: &str) {
    let shown = file.display().to_string();
    if !rows.begin("pipeline", &shown) {
        return;
    }
    match run(rows, file, uuid) {
        Ok(detail) => rows.passed("pipeline", &shown, &detail),
        Err(why) => rows.fail("pipeline", &shown, &why),
    }
}

fn run(rows: &Rows, file: &Path, uuid: &str) -> Result<String, String> {
    let words = |error: std::io::Error| error.to_string();
    let text = std::fs::read_to_string(file).map_err(words)?;
    let state = rows.folder().map_err(words)?.join("pipeline-state");
    let program = std::env::current_exe().map_err(words)?;
    let trainyard = |command: &mut Command| {
        let command = command.arg("--state").arg(&state).env("CUDA_VISIBLE_DEVICES", uuid);
        rows.run(command, LIMIT).map_err(words)
    };
    let mut run = Command::new(&program);
    run.arg("run").arg(file).args(["--quiet", "--timing", "cpu", "--set", "defaults.cache=false"]);
    let ran = trainyard(&mut run)?;
    if !ran.status.success() {
        return Err(String::from_utf8_lossy(&ran.stderr).trim().to_owned());
    }
    let shown = trainyard(Command::new(&program).args(["show", "--json"]))?;
    let shown: Value = serde_json::from_slice(&shown.stdout).map_err(|error| error.to_string())?;
    let log = |attempt: &Value| {
        let path = attempt["log"].as_str().map(|path| state.join(path));
        path.and_then(|path| std::fs::read(path).ok()).unwrap_or_default()
    };
    judge(&trainings(&text), &shown, &log)
}

/// Returns the stages that train; none where the pipeline does not say what its stages are.
fn trainings(text: &str) -> BTreeSet<String> {
    let pipeline: toml::Table = text.parse().unwrap_or_default();
    let stages = pipeline.get("stage").and_then(toml::Value::as_table).into_iter().flatten();
    let trains = |stage: &toml::Value| stage.get("kind").and_then(toml::Value::as_str) == Some("train");
    stages.filter(|(_, stage)| trains(stage)).map(|(name, _)| name.clone()).collect()
}

/// Returns the line in which a stage says that it cannot use its device.
fn without_device(log: &[u8]) -> Option<String> {
    String::from_utf8_lossy(log).lines().find(|line| line.contains(ON_CPU)).map(str::to_owned)
}

/// Says whether the training was on a device.
fn judge(trainings: &BTreeSet<String>, shown: &Value, log: &dyn Fn(&Value) -> Vec<u8>) -> Result<String, String> {
    let trains =
        |task: &&Value| trainings.is_empty() || task["stage"].as_str().is_some_and(|stage| trainings.contains(stage));
    let tasks: Vec<&Value> = shown["tasks"].as_array().into_iter().flatten().filter(trains).collect();
    let last = |task: &Value| task["attempts"].as_array().and_then(|attempts| attempts.last()).cloned();
    let attempts: Vec<Value> = tasks.iter().filter_map(|task| last(task)).collect();
    let given = |attempt: &&Value| attempt["devices"].as_array().is_some_and(|devices| !devices.is_empty());
    let on_device: Vec<&Value> = attempts.iter().filter(given).collect();
    if let Some(said) = on_device.iter().find_map(|attempt| without_device(&log(attempt))) {
        return Err(format!("it trained on the CPU: {said}"));
    }
    if on_device.is_empty() {
        return Err(format!("it trained on the CPU: none of {} tasks was given a device", attempts.len()));
    }
    let peak = on_device.iter().filter_map(|attempt| attempt["peak_gpu_memory_bytes"].as_u64()).max();
    let peak = peak.map_or_else(
        || "NVML does not say how much of its memory they took".to_owned(),
        |peak| format!("which took up to {} of its memory", crate::units::Bytes(peak)),
    );
    Ok(format!("succeeded; {} of {} tasks that train ran on the device, {peak}", on_device.len(), attempts.len()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn training_counts_only_on_a_device() {
        let trainings = trainings("[stage.train]\nkind = 'train'\n[stage.evaluate]\nkind = 'evaluate'\n");
        let task = |stage: &str, devices: &[&str]| json!({ "stage": stage, "attempts": [{ "devices": devices }] });
        let quiet = |_: &Value| Vec::new();
        let run = |train: &[&str]| json!({ "tasks": [task("train", train), task("evaluate", &["box/gpu0"])] });
        assert!(judge(&trainings, &run(&["box/gpu0"]), &quiet).is_ok());
        assert!(judge(&trainings, &run(&[]), &quiet).unwrap_err().contains("none of 1 tasks was given a device"));
        let loud =
            |_: &Value| b"CUDA_VISIBLE_DEVICES is 0, but libtorch cannot use CUDA: this runs on the CPU".to_vec();
        assert!(judge(&trainings, &run(&["box/gpu0"]), &loud).unwrap_err().contains("trained on the CPU"));
    }
}
