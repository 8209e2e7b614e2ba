//! `show --gantt`, `show --trace`, `show --json` and `diff` on runs that really took place.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic and starts the binary")]

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A matrix with a name that would like to be markup, and a task that reports figures.
const PIPELINE: &str = r#"
[stage.clean]
run = "echo done"
[stage.train]
run = "for i in 1 2 3 4; do echo \"Epoch $i/4 - loss: 0.$((8 / i)) - accuracy: 0.{matrix.part}\"; done"
after = ["clean"]
matrix = { part = [5], tag = ["<script>alert(1)</script>"] }
"#;

struct World(TempDir);

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("p.toml"), PIPELINE).unwrap();
        Self(dir)
    }

    fn output(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
        command
            .args(args)
            .current_dir(self.0.path())
            .env("TRAINYARD_BOX", self.0.path().join(".box"))
            .env("HOME", self.0.path())
            .env("NO_COLOR", "1");
        command.env_remove("RUST_LOG").env_remove("CUDA_VISIBLE_DEVICES").stdin(Stdio::null()).output().unwrap()
    }

    fn stdout(&self, args: &[&str]) -> String {
        let output = self.output(args);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }
}

#[test]
fn a_run_is_drawn_beside_its_plan_and_names_are_only_text() {
    let world = World::new();
    world.stdout(&["run", "p.toml"]);
    let said = world.stdout(&["show", "--gantt", "a.svg", "--trace", "a.json"]);
    assert_eq!(said, "wrote a.svg\nwrote a.json\n");
    world.stdout(&["show", "--gantt", "a.html"]);
    for file in ["a.svg", "a.html"] {
        let drawn = world.read(file);
        assert!(!drawn.contains("<script") && drawn.contains("&lt;script&gt;"), "{drawn}");
        assert!(drawn.contains("clean, planned: ") && drawn.contains("<title>clean: succeeded, "), "{drawn}");
        assert!(!drawn.contains("http://") || file == "a.svg" && drawn.matches("http").count() == 1, "{drawn}");
    }
}

#[test]
fn a_trace_has_every_attempt_in_microseconds_and_the_plan_beside_it() {
    let world = World::new();
    world.stdout(&["run", "p.toml"]);
    world.stdout(&["show", "--trace", "a.json"]);
    let trace: Value = serde_json::from_str(&world.read("a.json")).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let of = |cat: &str| events.iter().filter(|event| event["cat"] == cat).collect::<Vec<_>>();
    assert_eq!((of("attempt").len(), of("plan").len()), (2, 2));
    let (clean, train) = (&of("attempt")[0], &of("attempt")[1]);
    assert_eq!((&clean["name"], &clean["args"]["outcome"]), (&"clean".into(), &"succeeded".into()));
    let end = clean["ts"].as_u64().unwrap() + clean["dur"].as_u64().unwrap();
    assert!(end <= train["ts"].as_u64().unwrap() && clean["dur"].as_u64().unwrap() % 1_000 == 0, "{trace:#}");
    assert!(events.iter().any(|event| event["ph"] == "M" && event["name"] == "thread_name"));
}

#[test]
fn a_chart_that_is_neither_svg_nor_html_is_refused() {
    let world = World::new();
    world.stdout(&["run", "p.toml"]);
    let output = world.output(&["show", "--gantt", "a.png"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains(".svg or .html"));
    assert!(!world.path("a.png").exists());
    let output = world.output(&["show", "--gantt", "nowhere/a.svg"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(!world.path("nowhere").exists(), "a mistyped folder is not made");
}

#[test]
fn figures_that_a_stage_printed_are_in_the_json() {
    let world = World::new();
    world.stdout(&["run", "p.toml"]);
    let run: Value = serde_json::from_str(&world.stdout(&["show", "--json"])).unwrap();
    let attempt = &run["tasks"][1]["attempts"][0];
    assert_eq!((&attempt["progress"]["progress"], &attempt["progress"]["phase"]), (&1.0.into(), &"epoch 4/4".into()));
    let series = attempt["series"].as_array().unwrap();
    let loss = series.iter().find(|series| series["name"] == "loss").unwrap();
    assert_eq!(loss["value"], serde_json::json!([0.8, 0.4, 0.2, 0.2]));
    assert_eq!(loss["step"], serde_json::json!([1.0, 2.0, 3.0, 4.0]));
    assert!(run["tasks"][0]["attempts"][0].get("series").is_none(), "what said nothing has none");
}

#[test]
fn two_runs_are_compared_by_what_came_out() {
    let world = World::new();
    world.stdout(&["run", "p.toml"]);
    let first: Value = serde_json::from_str(&world.stdout(&["show", "--json"])).unwrap();
    let first = first["run"].as_str().unwrap().to_owned();
    std::fs::write(world.path("p.toml"), PIPELINE.replace("8 / i", "4 / i").replace("echo done", "exit 3")).unwrap();
    world.output(&["run", "p.toml", "--keep-going"]);
    let shown = world.stdout(&["diff", &first]);
    assert!(shown.contains("succeeded → exited:3"), "{shown}");
    let diff: Value = serde_json::from_str(&world.stdout(&["diff", &first, "latest", "--json"])).unwrap();
    assert_eq!((&diff["a"]["state"], &diff["b"]["state"]), (&"succeeded".into(), &"failed".into()));
    assert_eq!(diff["tasks"][0]["b"]["outcome"], "exited:3");
    assert_eq!(diff["tasks"][1]["a"]["figures"]["accuracy"], 0.5);
    assert_eq!(diff["tasks"][1]["b"]["state"], "skipped");
    assert!(shown.contains("clean: run\n  a  echo done\n  b  exit 3\n"), "{shown}");
}

#[test]
fn two_runs_are_compared_by_what_their_tasks_are_made_of() {
    let world = World::new();
    world.stdout(&["run", "p.toml", "--name", "first"]);
    let edited = PIPELINE.replace("[stage.clean]", "[stage.clean]\nenv = { SEED = '1' }\nresources = { cpus = 0.5 }");
    std::fs::write(world.path("p.toml"), edited).unwrap();
    world.stdout(&["run", "p.toml", "--set", "train.retries=2"]);
    std::fs::remove_file(world.path("p.toml")).unwrap();
    let shown = world.stdout(&["diff", "first"]);
    assert!(shown.contains("--set\n  a  (not set)\n  b  train.retries=2\n"), "{shown}");
    assert!(shown.contains("clean: env.SEED\n  a  (not set)\n  b  \"1\"\n"), "{shown}");
    let diff: Value = serde_json::from_str(&world.stdout(&["diff", "first", "--json"])).unwrap();
    let retries = serde_json::json!([{"key": "retries", "a": null, "b": "2"}]);
    assert_eq!((&diff["tasks"][1]["changes"], &diff["b"]["set"][0]), (&retries, &"train.retries=2".into()));
    let keys = diff["tasks"][0]["changes"].as_array().unwrap().iter().map(|change| change["key"].as_str().unwrap());
    assert_eq!(keys.collect::<Vec<_>>(), ["env.SEED", "resources.cpus"]);
    let kept = std::fs::read_dir(world.path(".trainyard/pipelines")).unwrap();
    assert_eq!(kept.count(), 2, "a file is kept once, and nothing is left half-written");
}
