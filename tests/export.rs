//! What other programs read of a run that really took place: `metrics`, `show --tensorboard`, `show --otlp`.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic and starts the binary")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use mock_nvml::{Card, Scene};
use serde_json::Value;
use tempfile::TempDir;

/// A task that reports figures, one with a name that wants to leave its quotes, one that fails and is tried again.
const PIPELINE: &str = r#"
name = "digits"
[stage.train]
run = "for i in 1 2 3 4; do echo \"Epoch $i/4 - loss: 0.$((8 / i))\"; done"
matrix = { note = ["a\"b\\c"] }
[stage.flaky]
run = "test -e tried || { touch tried; exit 3; }"
retries = 1
backoff = "1ms"
after = ["train"]
"#;

struct World {
    dir: TempDir,
    environment: Vec<(&'static str, PathBuf)>,
}

impl World {
    fn new(environment: Vec<(&'static str, PathBuf)>) -> Self {
        let world = Self { dir: tempfile::tempdir().unwrap(), environment };
        std::fs::write(world.dir.path().join("p.toml"), PIPELINE).unwrap();
        world.stdout(&["run", "p.toml"]);
        world
    }

    fn output(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
        command
            .args(args)
            .current_dir(self.dir.path())
            .env("TRAINYARD_BOX", self.dir.path().join(".box"))
            .env("HOME", self.dir.path())
            .env("NO_COLOR", "1");
        command.env_remove("RUST_LOG").env_remove("CUDA_VISIBLE_DEVICES").stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(name, path)| (*name, path.as_path()))).output().unwrap()
    }

    fn stdout(&self, args: &[&str]) -> String {
        let output = self.output(args);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Returns all files below a folder.
    fn files(&self, folder: &str) -> Vec<PathBuf> {
        fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { walk(&path, found) } else { found.push(path) }
            }
        }
        let mut found = Vec::new();
        walk(&self.dir.path().join(folder), &mut found);
        found
    }
}

#[test]
fn a_scraper_reads_runs_tasks_and_devices() {
    let scene = Scene::new(vec![Card { utilisation: 87, ..Card::default() }]).unwrap();
    let world = World::new(scene.environment());
    let text = world.stdout(&["metrics"]);
    let has = |line: &str| assert!(text.lines().any(|other| other == line), "`{line}` is not in\n{text}");
    has("# TYPE trainyard_run_attempts_total counter");
    has("trainyard_runs{state=\"succeeded\"} 1");
    has("trainyard_runs{state=\"running\"} 0");
    let gpu = "{gpu=\"GPU-00000000-0000-4000-8000-000000000000\",device=";
    let of_gpu = |name: &str, end: &str| {
        let wanted = format!("{name}{gpu}");
        assert!(text.lines().any(|line| line.starts_with(&wanted) && line.ends_with(end)), "{name} {end}:\n{text}");
    };
    of_gpu("trainyard_gpu_memory_bytes", " 85899345920");
    of_gpu("trainyard_gpu_utilization_ratio", " 0.87");
    of_gpu("trainyard_gpu_power_watts", " 75.000");
    let attempts: Vec<&str> = text.lines().filter(|line| line.starts_with("trainyard_run_attempts_total{")).collect();
    assert!(attempts[0].ends_with("outcome=\"exited:3\"} 1") && attempts[1].ends_with("outcome=\"succeeded\"} 2"));
    let figure = r#",task="train[note=\"a\\\"b\\\\c\"]",figure="loss"} 0.2"#;
    assert!(text.lines().any(|line| line.ends_with(figure)), "{figure} is not in\n{text}");
    let run = text.split_once("run=\"").unwrap().1.split_once('"').unwrap().0;
    assert_eq!(world.output(&["metrics", run]).status.code(), Some(0));
    assert_eq!(world.output(&["metrics", "no-such-run"]).status.code(), Some(2));
}

#[test]
fn figures_become_event_files_that_tensorboard_reads() {
    let world = World::new(Vec::new());
    let said = world.stdout(&["show", "--tensorboard", "tb"]);
    assert_eq!(said, "wrote 1 event file to tb\n");
    let [file] = &world.files("tb")[..] else { panic!("one task reported figures") };
    assert!(std::fs::read(file).unwrap().windows(13).any(|part| part == b"brain.Event:2"));
    // Its own reader, where it is installed.
    let read = "import sys\n\
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator as A\n\
        a = A(sys.argv[1]); a.Reload()\n\
        print([(e.step, round(e.value, 6)) for e in a.Scalars('loss')])";
    let python = std::env::var("TRAINYARD_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let is_there = Command::new(&python).args(["-c", "import tensorboard"]).output();
    if is_there.is_ok_and(|output| output.status.success()) {
        let output = Command::new(&python).args(["-c", read]).arg(file.parent().unwrap()).output().unwrap();
        let read = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(read.trim(), "[(1, 0.8), (2, 0.4), (3, 0.2), (4, 0.2)]", "{output:?}");
    }
}

#[test]
fn a_run_is_a_trace_of_spans() {
    let world = World::new(Vec::new());
    assert_eq!(world.stdout(&["show", "--otlp", "trace.json"]), "wrote trace.json\n");
    let text = std::fs::read_to_string(world.dir.path().join("trace.json")).unwrap();
    assert_eq!(text.lines().count(), 1, "an object a line");
    let trace: Value = serde_json::from_str(&text).unwrap();
    let spans = trace["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap();
    let names: Vec<&str> = spans.iter().map(|span| span["name"].as_str().unwrap()).collect();
    let train = r#"train[note="a\"b\\c"]"#;
    assert_eq!(names, ["digits", train, &format!("{train} #1"), "flaky", "flaky #1", "flaky #2"]);
    assert_eq!(spans[3]["links"][0]["spanId"], spans[1]["spanId"]);
    assert_eq!(spans[4]["status"]["message"], "exited:3");
    let again = world.stdout(&["show", "--otlp", "again.json"]);
    assert_eq!(again, "wrote again.json\n");
    assert_eq!(std::fs::read_to_string(world.dir.path().join("again.json")).unwrap(), text);
}

/// Answers one request with a status, and returns its path with what was sent.
fn answer_once(listener: &TcpListener, status: &str) -> (String, Value) {
    let (stream, _) = listener.accept().unwrap();
    let mut from = BufReader::new(stream.try_clone().unwrap());
    let (mut first, mut length) = (String::new(), 0);
    from.read_line(&mut first).unwrap();
    loop {
        let mut line = String::new();
        from.read_line(&mut line).unwrap();
        let line = line.trim().to_ascii_lowercase();
        if let Some(bytes) = line.strip_prefix("content-length:") {
            length = bytes.trim().parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).unwrap();
    write!(&stream, "HTTP/1.1 {status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}").unwrap();
    (first.split(' ').nth(1).unwrap().to_owned(), serde_json::from_slice(&body).unwrap())
}

#[test]
fn a_collector_is_sent_the_trace() {
    let world = World::new(Vec::new());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::scope(|scope| {
        let taken = scope.spawn(|| answer_once(&listener, "200 OK"));
        let said = world.stdout(&["show", "--otlp", &format!("http://127.0.0.1:{port}")]);
        assert_eq!(said, format!("sent a trace to http://127.0.0.1:{port}/v1/traces\n"));
        let (path, trace) = taken.join().unwrap();
        assert_eq!(path, "/v1/traces");
        assert_eq!(trace["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["name"], "digits");
        let refused = scope.spawn(|| answer_once(&listener, "400 Bad Request"));
        let output = world.output(&["show", "--otlp", &format!("http://127.0.0.1:{port}/own/path")]);
        assert_eq!((output.status.code(), refused.join().unwrap().0.as_str()), (Some(2), "/own/path"));
        assert!(String::from_utf8_lossy(&output.stderr).contains("cannot be sent to"), "{output:?}");
    });
}
