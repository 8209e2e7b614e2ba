//! `runs`, `show` and `logs` on a recorded run, as a user calls them: own home, own time zone, no terminal.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic and starts the binary")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use trainyard::engine::process;
use trainyard::graph::TaskId;
use trainyard::run::event::{Event, Place, Process, Recorded, Role, RunEnd};
use trainyard::run::launch;
use trainyard::run::outcome::{Outcome, Usage};
use trainyard::run::store::{Header, Orchestrator, RunKey, Store, TaskHeader};
use trainyard::run::within::Within;
use trainyard::units::{Bytes, Millis};

/// 2026-11-20T21:00:00Z in ms since the Unix epoch.
const EPOCH: u64 = 1_795_208_400_000;

/// A state folder with one run that began.
struct World {
    dir: TempDir,
    store: Store,
    run: RunKey,
    id: &'static str,
}

impl World {
    /// A run of `clean` and `train[lr=0.1]`, carried out by this very process or by one that is gone.
    fn new(alive: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(&dir.path().join(".trainyard")).unwrap();
        let own = process::identify(std::process::id()).unwrap();
        let process = if alive { own } else { Process { started: own.started + 1, ..own } };
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let task = |name: &str, stage: &str| TaskHeader {
            name: name.into(),
            stage: stage.into(),
            planned: (Millis(0), Millis(1_000)),
            ..TaskHeader::default()
        };
        let id = "20261120-210000-digits-4f2a";
        let header = Header {
            id: id.into(),
            pipeline: "digits".into(),
            file: "/w/digits.toml".into(),
            orchestrator: Orchestrator {
                host,
                boot: process::boot_id(),
                pids: None,
                process,
                within: Within::default(),
            },
            started: Millis(EPOCH),
            invocation: Default::default(),
            tasks: vec![task("clean", "clean"), task("train[lr=0.1]", "train")],
        };
        let run = store.begin(&header).unwrap();
        std::fs::create_dir_all(store.run_dir(id).join("logs")).unwrap();
        Self { dir, store, run, id }
    }

    fn record(&mut self, second: u64, event: Event) {
        let recorded = Recorded { at: Millis(EPOCH + 1_000 * second), event };
        self.store.append(&mut self.run, &[recorded]).unwrap();
    }

    fn start(&mut self, second: u64, task: u32, number: u32) {
        let place = Place { node: "box".into(), ..Place::default() };
        self.record(second, Event::AttemptStarted { task: TaskId(task), number, place });
    }

    fn end(&mut self, second: u64, task: u32, code: i32) {
        let outcome = if code == 0 { Outcome::Succeeded } else { Outcome::Exited { code } };
        let usage = Usage { peak_memory: Some(Bytes(64 << 20)), ..Usage::default() };
        self.record(
            second,
            Event::AttemptFinished { task: TaskId(task), role: Role::Main, outcome, usage, logged: true },
        );
    }

    /// `clean` succeeds, `train[lr=0.1]` fails, the run ends.
    fn that_failed() -> Self {
        let mut world = Self::new(false);
        world.start(0, 0, 1);
        world.end(2, 0, 0);
        world.start(2, 1, 1);
        world.end(5, 1, 3);
        world.record(5, Event::TaskFailed { task: TaskId(1), lacks: None });
        world.record(5, Event::RunFinished { end: RunEnd::Failed });
        std::fs::write(world.log("clean", 1), "100 rows\n").unwrap();
        std::fs::write(world.log("train[lr=0.1]", 1), "\x1b[31mValueError\x1b[0m: nan\r\n").unwrap();
        world
    }

    fn log(&self, task: &str, number: u32) -> PathBuf {
        launch::log(&self.store.run_dir(self.id), task, number)
    }

    fn command(&self, args: &[&str]) -> Command {
        command_in(self.dir.path(), args)
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn stdout(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

fn command_in(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
    command
        .args(args)
        .current_dir(folder)
        .env_clear()
        .env("TRAINYARD_BOX", folder.join(".box"))
        .env("HOME", folder)
        .env("TZ", "UTC")
        .stdin(Stdio::null());
    command
}

#[test]
fn runs_are_listed_from_any_folder_below() {
    let world = World::that_failed();
    let below = world.dir.path().join("a/b");
    std::fs::create_dir_all(&below).unwrap();
    let output = command_in(&below, &["runs"]).output().unwrap();
    insta::assert_snapshot!(String::from_utf8(output.stdout).unwrap(), @"
    run                          pipeline  state   tasks  started       time
    20261120-210000-digits-4f2a  digits    failed      2  Nov 20 21:00    5s
    ");
}

#[test]
fn runs_as_json_have_counts_and_no_tasks() {
    let world = World::that_failed();
    insta::assert_snapshot!(world.stdout(&["runs", "--json"]), @r#"[{"run":"20261120-210000-digits-4f2a","pipeline":"digits","state":"failed","started":"2026-11-20T21:00:00.000Z","finished":"2026-11-20T21:00:05.000Z","took_ms":5000,"counts":{"waiting":0,"running":0,"succeeded":1,"cached":0,"failed":1,"skipped":0}}]"#);
}

#[test]
fn the_time_until_a_run_is_resumed_is_not_its_own() {
    let mut world = World::that_failed();
    world.record(45, Event::RunResumed { adopted: Vec::new() });
    world.start(46, 1, 2);
    world.end(50, 1, 0);
    world.record(50, Event::RunFinished { end: RunEnd::Succeeded });
    assert!(world.stdout(&["runs"]).contains("Nov 20 21:00   10s"), "{}", world.stdout(&["runs"]));
    assert!(world.stdout(&["show"]).contains("took 10s"));
    let runs: serde_json::Value = serde_json::from_str(&world.stdout(&["runs", "--json"])).unwrap();
    assert_eq!((&runs[0]["took_ms"], &runs[0]["counts"]["succeeded"]), (&10_000.into(), &2.into()));
}

#[test]
fn where_nothing_was_recorded_the_list_is_empty() {
    let folder = tempfile::tempdir().unwrap();
    let output = command_in(folder.path(), &["runs", "--json"]).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), b"[]\n".as_slice()));
}

#[test]
fn a_run_is_shown_by_the_beginning_of_its_id() {
    let world = World::that_failed();
    insta::assert_snapshot!(world.stdout(&["show", "20261120"]), @"
    run 20261120-210000-digits-4f2a of digits: failed, started 2026-11-20 21:00:00, took 5s

    task           state      start  time  attempts  peak memory  ended
    clean          succeeded    +0s    2s         1     64.0 MiB
    train[lr=0.1]  failed       +2s    3s         1     64.0 MiB  exited:3

    its output: trainyard logs 20261120-210000-digits-4f2a 'train[lr=0.1]'
    ");
}

#[test]
fn a_script_can_open_the_logs_that_json_names() {
    let world = World::that_failed();
    let run: serde_json::Value = serde_json::from_str(&world.stdout(&["show", "--json"])).unwrap();
    let log = run["tasks"][1]["attempts"][0]["log"].as_str().unwrap();
    assert!(Path::new(log).is_absolute() && std::fs::read(log).unwrap().ends_with(b": nan\r\n"));
    assert_eq!((&run["state"], &run["tasks"][1]["state"]), (&"failed".into(), &"failed".into()));
}

#[test]
fn a_run_whose_process_is_gone_is_not_shown_as_running() {
    let mut world = World::new(false);
    world.start(0, 0, 1);
    let run: serde_json::Value = serde_json::from_str(&world.stdout(&["show", "--json"])).unwrap();
    assert_eq!((&run["state"], &run["tasks"][0]["state"]), (&"interrupted".into(), &"waiting".into()));
    assert_eq!(run["tasks"][0]["attempts"][0]["outcome"], "interrupted");
    assert!(!world.stdout(&["runs"]).contains("running"));
}

#[test]
fn a_run_whose_process_is_there_is_running() {
    let mut world = World::new(true);
    world.start(0, 0, 1);
    let run: serde_json::Value = serde_json::from_str(&world.stdout(&["show", "--json"])).unwrap();
    assert_eq!((&run["state"], &run["tasks"][0]["state"]), (&"running".into(), &"running".into()));
}

#[test]
fn an_unknown_run_is_a_usage_error_that_names_the_newest() {
    let world = World::that_failed();
    let output = world.run(&["show", "2025"]);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("there is no run `2025`") && error.contains(world.id), "{error}");
}

#[test]
fn logs_without_a_task_are_those_of_the_failed_one_byte_by_byte() {
    let world = World::that_failed();
    assert_eq!(world.stdout(&["logs"]), "\x1b[31mValueError\x1b[0m: nan\r\n");
}

#[test]
fn logs_take_a_task_or_a_stage_of_the_newest_run() {
    let world = World::that_failed();
    assert_eq!(world.stdout(&["logs", "clean"]), "100 rows\n");
    assert_eq!(world.stdout(&["logs", "latest", "clean"]), "100 rows\n");
    assert!(world.stdout(&["logs", "latest", "train"]).contains("ValueError"));
}

#[test]
fn logs_as_json_are_an_object_for_each_line() {
    let world = World::that_failed();
    insta::assert_snapshot!(world.stdout(&["logs", "latest", "clean", "--json"]), @r#"{"task":"clean","attempt":1,"line":"100 rows"}"#);
    let followed = world.stdout(&["logs", "latest", "clean", "-f", "--json"]);
    assert_eq!(followed, "{\"task\":\"clean\",\"attempt\":1,\"line\":\"100 rows\"}\n");
}

#[test]
fn where_none_failed_all_logs_are_printed_under_headings() {
    let mut world = World::new(false);
    for task in [0, 1] {
        world.start(0, task, 1);
        world.end(1, task, 0);
    }
    world.record(1, Event::RunFinished { end: RunEnd::Succeeded });
    std::fs::write(world.log("clean", 1), "100 rows\n").unwrap();
    std::fs::write(world.log("train[lr=0.1]", 1), "loss 0.1\n").unwrap();
    insta::assert_snapshot!(world.stdout(&["logs"]), @"
    ==> clean, attempt 1: succeeded <==
    100 rows

    ==> train[lr=0.1], attempt 1: succeeded <==
    loss 0.1
    ");
}

#[test]
fn a_misspelt_task_is_answered_with_the_nearest_name() {
    let world = World::that_failed();
    let output = world.run(&["logs", "latest", "claen"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(error.contains("no task `claen`") && error.contains("did you mean `clean`?"), "{error}");
}

#[test]
fn an_attempt_that_never_was_is_a_usage_error() {
    let world = World::that_failed();
    let output = world.run(&["logs", "latest", "clean", "--attempt", "2"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("clean has no attempt 2: there was one"));
}

#[test]
fn following_prints_what_comes_until_the_task_ends_through_a_retry() {
    let mut world = World::new(true);
    world.start(0, 0, 1);
    let mut log = std::fs::File::create(world.log("clean", 1)).unwrap();
    let mut follower = world.command(&["logs", "-f"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines().map(Result::unwrap);

    log.write_all(b"one\n").unwrap();
    assert_eq!(lines.next().as_deref(), Some("one"));
    log.write_all(b"two\n").unwrap();
    assert_eq!(lines.next().as_deref(), Some("two"));

    world.end(1, 0, 1);
    world.start(1, 0, 2);
    std::fs::write(world.log("clean", 2), "again\n").unwrap();
    assert_eq!(lines.next().as_deref(), Some("==> clean, attempt 2 <=="));
    assert_eq!(lines.next().as_deref(), Some("again"));

    world.end(2, 0, 0);
    assert_eq!(lines.next(), None);
    assert_eq!(follower.wait().unwrap().code(), Some(0));
}

#[test]
fn following_ends_with_the_task_though_another_one_prints_all_the_time() {
    let mut world = World::new(true);
    world.start(0, 0, 1);
    world.start(0, 1, 1);
    std::fs::write(world.log("clean", 1), "one\n").unwrap();
    let mut noisy = std::fs::File::create(world.log("train[lr=0.1]", 1)).unwrap();
    let (ended, heard) = std::sync::mpsc::channel();
    let other = std::thread::spawn(move || {
        // Gives up far later than anything is looked at.
        let until = Instant::now() + Duration::from_secs(30);
        while Instant::now() < until {
            noisy.write_all(b"more\n").unwrap();
            if heard.recv_timeout(Duration::from_millis(1)) == Ok(()) {
                return true;
            }
        }
        false
    });
    let mut follower = world.command(&["logs", "latest", "clean", "-f"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().as_deref(), Some("one"));
    world.end(1, 0, 0);
    assert_eq!(lines.next(), None);
    let _ = ended.send(());
    assert!(other.join().unwrap(), "it was followed until the other one was silent");
    assert_eq!(follower.wait().unwrap().code(), Some(0));
}

#[test]
fn a_follower_of_a_lost_run_does_not_wait_for_ever_and_says_so() {
    let mut world = World::new(false);
    world.start(0, 0, 1);
    std::fs::write(world.log("clean", 1), "one\n").unwrap();
    let output = world.run(&["logs", "latest", "clean", "-f"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), b"one\n".as_slice()));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.starts_with("nobody carries out the run any more, and clean is not done: `trainyard resume "),
        "{said}"
    );
}

#[test]
fn an_attempt_that_never_comes_has_no_heading() {
    let mut world = World::new(true);
    world.start(0, 0, 1);
    std::fs::write(world.log("clean", 1), "one\n").unwrap();
    world.end(1, 0, 1);
    let mut follower = world.command(&["logs", "latest", "clean", "-f"]);
    let mut follower = follower.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().as_deref(), Some("one"));
    world.record(2, Event::RunFinished { end: RunEnd::Interrupted });
    assert_eq!(lines.next(), None);
    let said = String::from_utf8(follower.wait_with_output().unwrap().stderr).unwrap();
    assert!(said.starts_with("the run has ended, and clean is not done: `trainyard resume "), "{said}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let world = World::that_failed();
    std::fs::write(world.log("train[lr=0.1]", 1), "x\n".repeat(1_000_000)).unwrap();
    let mut printer = world.command(&["logs"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(printer.stdout.take());
    let output = printer.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), b"".as_slice()));
}
