//! The built-in stages as the orchestrator uses them: one process a stage, on the shipped pipelines and real data.
#![cfg(feature = "torch")]
#![expect(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test of whole processes")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use trainyard::graph::{self, TaskGraph};
use trainyard::spec::{self, Action, Source, op};

/// A folder with the shipped data, in which stages run.
struct Bench(TempDir);

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/data");
        fs::create_dir(folder.path().join("data")).unwrap();
        for file in fs::read_dir(data).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), folder.path().join("data").join(file.file_name())).unwrap();
        }
        Self(folder)
    }

    fn command(&self, job: &Value) -> Command {
        let file = self.0.path().join("job.json");
        fs::write(&file, job.to_string()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard-ops"));
        command.arg(file).current_dir(self.0.path());
        command.env("CUDA_VISIBLE_DEVICES", "").env_remove("TRAINYARD_EVENTS").env_remove("TRAINYARD_CHECKPOINT_DIR");
        command
    }

    fn ends(&self, job: &Value) -> Output {
        self.command(job).output().unwrap()
    }

    fn succeeds(&self, job: &Value) -> String {
        let output = self.ends(job);
        assert!(output.status.success(), "{job}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a job that must fail, and returns the one line it says.
    fn fails(&self, job: &Value) -> String {
        let output = self.ends(job);
        assert_eq!(output.status.code(), Some(1), "{job}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        text
    }

    fn read(&self, path: &str) -> Vec<u8> {
        fs::read(self.0.path().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn json(&self, path: &str) -> Value {
        serde_json::from_slice(&self.read(path)).unwrap()
    }

    /// Carries a shipped pipeline out, task by task in the order of its graph. Returns what each stage printed last.
    fn pipeline(&self, name: &str) -> BTreeMap<String, String> {
        let (pipeline, graph) = load(name);
        let mut printed = BTreeMap::new();
        for id in &graph.order {
            let task = &graph.tasks[id.index()];
            let Action::Op { name, with } = &task.action else { panic!("{}: not a built-in stage", task.name) };
            let with = spec::op_params(op::find(&name.text).unwrap(), with);
            let job = json!({ "op": name.text, "with": with, "inputs": task.inputs, "outputs": task.outputs });
            printed.insert(pipeline.stages[task.stage].name.clone(), self.succeeds(&job));
        }
        printed
    }
}

fn load(name: &str) -> (spec::Pipeline, TaskGraph) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines").join(name);
    let source = Source { name: name.to_owned(), text: fs::read_to_string(path).unwrap() };
    graph::load(&source, &[], op::CATALOGUE, graph::Limits::default()).unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// A job with the catalogue's defaults, and some parameters set.
fn job(name: &str, with: Value, inputs: &[&str], outputs: &[&str]) -> Value {
    let mut complete = spec::op_params(op::find(name).unwrap(), &[]);
    complete.extend(with.as_object().unwrap().clone());
    json!({ "op": name, "with": complete, "inputs": inputs, "outputs": outputs })
}

/// Makes `train` and `test` of the digits, standardized.
fn digits(bench: &Bench) {
    bench.succeeds(&job("data.csv", json!({}), &["data/digits.csv.gz"], &["all"]));
    bench.succeeds(&job("data.split", json!({ "test": 0.3333 }), &["all"], &["a", "b"]));
    bench.succeeds(&job("feature.standardize", json!({}), &["a", "b"], &["train", "test"]));
}

fn train(with: Value, output: &str) -> Value {
    let mut complete = json!({ "model": "mlp", "epochs": 6, "hidden": [32], "dropout": 0.2, "patience": 4 });
    complete.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
    job("torch.train", complete, &["train"], &[output])
}

#[test]
fn the_best_of_six_models_reads_97_of_100_unseen_digits() {
    let bench = Bench::new();
    let printed = bench.pipeline("digits.toml");
    let report = bench.json("work/digits/report.json");
    assert_eq!(report["models"].as_array().unwrap().len(), 6);
    assert_eq!(report["best"]["rows"], 599);
    let best = report["best"]["accuracy"].as_f64().unwrap();
    assert!(best >= 0.97, "{best}");
    assert!(printed["report"].contains(&format!("with accuracy {best:.4}")), "{}", printed["report"]);
}

#[test]
fn logistic_regression_tells_zeros_from_ones() {
    let bench = Bench::new();
    bench.pipeline("libsvm-logistic.toml");
    let evaluation = bench.json("work/libsvm-logistic/evaluation.json");
    let accuracy = evaluation["accuracy"].as_f64().unwrap();
    assert!(accuracy >= 0.95, "{accuracy}");
    let predictions = String::from_utf8(bench.read("work/libsvm-logistic/predictions.csv")).unwrap();
    let mut lines = predictions.lines();
    assert_eq!(lines.next(), Some("row,predicted,actual,p_0,p_1"));
    let right = lines.clone().filter(|line| line.split(',').nth(1) == line.split(',').nth(2)).count();
    assert_eq!(right as f64 / lines.count() as f64, accuracy);
}

#[test]
fn a_sweep_shares_its_preparation_and_ranks_every_point() {
    let bench = Bench::new();
    let printed = bench.pipeline("sweep.toml");
    let report = bench.json("work/sweep/report.json");
    assert_eq!(report["models"].as_array().unwrap().len(), 12);
    assert!(report["best"]["accuracy"].as_f64().unwrap() >= 0.95, "{}", report["best"]["accuracy"]);
    let classes: Vec<&Value> = report["best"]["per_class"].as_array().unwrap().iter().map(|c| &c["class"]).collect();
    assert_eq!(classes, ["malignant", "benign"]);
    assert!(printed["components"].contains("of 30 components explain"), "{}", printed["components"]);
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_does_not() {
    let bench = Bench::new();
    digits(&bench);
    for (model, seed, output) in [("cnn", 1, "a1"), ("cnn", 1, "a2"), ("cnn", 2, "b")] {
        bench.succeeds(&train(json!({ "model": model, "epochs": 2, "channels": [4, 8], "seed": seed }), output));
    }
    assert_eq!(bench.read("a1"), bench.read("a2"));
    assert_ne!(bench.read("a1"), bench.read("b"));
}

#[test]
fn a_killed_training_that_is_resumed_ends_as_if_it_had_never_been_interrupted() {
    let bench = Bench::new();
    digits(&bench);
    for optimizer in ["adam", "sgd"] {
        // So many epochs that the kill, sent after the third, comes long before the last.
        let with = json!({ "optimizer": optimizer, "lr": 0.003, "epochs": 60, "patience": 60, "batch_size": 256 });
        let whole = bench.succeeds(&train(with.clone(), "whole"));
        assert!(!whole.contains("resumed"));

        let checkpoints = bench.0.path().join("checkpoints").join(optimizer);
        let resumable = train(with, "resumed");
        let mut command = bench.command(&resumable);
        command.env("TRAINYARD_CHECKPOINT_DIR", &checkpoints).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Once the third epoch is reported, the checkpoint of the second is whole.
        assert!(lines.any(|line| line.unwrap().starts_with("epoch 3/60")));
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success());
        assert!(!bench.0.path().join("resumed").exists());

        let output = bench.command(&resumable).env("TRAINYARD_CHECKPOINT_DIR", &checkpoints).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.starts_with("resumed after epoch "), "{said}");
        assert!(!said.contains("epoch 1/60"), "{said}");
        assert_eq!(bench.read("resumed"), bench.read("whole"), "{optimizer}");
        fs::remove_file(bench.0.path().join("resumed")).unwrap();
    }
}

#[test]
fn a_checkpoint_of_other_parameters_is_not_continued() {
    let bench = Bench::new();
    digits(&bench);
    for (lr, resumed) in [(0.001, false), (0.001_234_567_890_123_456_7, false), (0.001_234_567_890_123_456_7, true)] {
        let mut command = bench.command(&train(json!({ "epochs": 1, "lr": lr }), "model"));
        let output = command.env("TRAINYARD_CHECKPOINT_DIR", bench.0.path()).output().unwrap();
        assert!(output.status.success());
        assert_eq!(String::from_utf8(output.stdout).unwrap().starts_with("resumed"), resumed, "lr {lr}");
    }
}

#[test]
fn progress_goes_to_the_orchestrator_line_by_line() {
    let bench = Bench::new();
    digits(&bench);
    let events = bench.0.path().join("events.jsonl");
    let mut command = bench.command(&train(json!({}), "model"));
    assert!(command.env("TRAINYARD_EVENTS", &events).output().unwrap().status.success());
    let events = fs::read_to_string(events).unwrap();
    let lines: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 6);
    assert_eq!((&lines[2]["progress"], &lines[2]["phase"]), (&json!(0.5), &json!("epoch 3/6")));
    assert!(lines[5]["loss"].as_f64().unwrap() < lines[0]["loss"].as_f64().unwrap());
    assert!(lines[5]["accuracy"].as_f64().unwrap() > 0.8);
}

#[test]
fn patience_stops_a_training_that_no_longer_gains() {
    let bench = Bench::new();
    digits(&bench);
    let said = bench.succeeds(&train(json!({ "epochs": 500, "lr": 0.02, "patience": 2 }), "model"));
    assert!(said.lines().count() < 200, "{said}");
    // A validation set of one's own is watched too.
    let mut job = train(json!({ "epochs": 2 }), "model");
    job["inputs"] = json!(["train", "test"]);
    assert!(bench.succeeds(&job).contains("held out"));
}

#[test]
fn what_cannot_be_done_is_said_in_one_line_that_mends_it() {
    let bench = Bench::new();
    digits(&bench);
    fs::write(bench.0.path().join("bad.csv"), "a,b,c\n1,2,x\n1,oops,y\n").unwrap();
    bench.succeeds(&train(json!({ "epochs": 1 }), "model"));
    bench.succeeds(&job("data.csv", json!({}), &["data/breast_cancer.csv"], &["cancer"]));
    bench.succeeds(&job("feature.pca", json!({ "components": 10 }), &["train"], &["ten"]));
    let none = json!({});
    for (job, words) in [
        (job("data.csv", none.clone(), &["bad.csv"], &["o"]), &["bad.csv: line 3, column `b`", "`oops`"][..]),
        (job("data.csv", none.clone(), &["nowhere.csv"], &["o"]), &["cannot read nowhere.csv"]),
        (
            job("data.split", none.clone(), &["model"], &["o", "p"]),
            &["model: this is a model", "a data set", "order of `inputs`"],
        ),
        (
            job("torch.evaluate", none.clone(), &["model", "cancer"], &["o"]),
            &["cancer: 30 features", "the model has 64"],
        ),
        (job("torch.train", json!({ "model": "cnn" }), &["ten"], &["o"]), &["square images", "10 features", "mlp"]),
        (
            job("torch.train", json!({ "model": "mlp", "lr": 1000, "optimizer": "sgd" }), &["train"], &["o"]),
            &["diverged", "lower `lr`"],
        ),
        (job("report.best", none.clone(), &["bad.csv"], &["o"]), &["bad.csv: this is not a report"]),
        (job("data.csv", json!({ "colour": 1 }), &["bad.csv"], &["o"]), &["data.csv", "colour"]),
    ] {
        let said = bench.fails(&job);
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
        assert!(!bench.0.path().join("o").exists());
    }
}

#[test]
fn out_of_memory_keeps_the_text_of_libtorch_without_its_stack() {
    let bench = Bench::new();
    digits(&bench);
    // A layer of 2^32 weights takes 16 GiB, and the process may have 12.
    let job = bench.command(&train(json!({ "hidden": [65_536, 65_536] }), "model"));
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -v 12582912 && exec \"$0\" \"$1\"", env!("CARGO_BIN_EXE_trainyard-ops"), "job.json"]);
    let output = limited.current_dir(job.get_current_dir().unwrap()).env("CUDA_VISIBLE_DEVICES", "").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("DefaultCPUAllocator: can't allocate memory"), "{said}");
    assert!(!said.contains("frame #"), "{said}");
}

#[test]
fn it_says_what_libtorch_it_has() {
    let output = Command::new(env!("CARGO_BIN_EXE_trainyard-ops")).arg("--devices").output().unwrap();
    let devices: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(devices["libtorch"], "2.11.0");
    assert!(devices["devices"].is_u64());
}
