//! Runs of another container of the machine: the same state folder and kernel, other process numbers. And runs that were
//! taken over.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use trainyard::engine::process;
use trainyard::run::event::{Event, Recorded};
use trainyard::run::store::{Orchestrator, Store};
use trainyard::units::Millis;

use crate::world::{World, outcomes, parent, pid_in, wait_for_end};

const GATED: &str = r#"
[stage.a]
run = "echo $$ > pid; echo begun >> begun; echo ready; until test -e gate; do sleep 0.05; done"
"#;

/// Makes the record say that the run was started in another PID namespace, where process numbers are others.
fn move_to_another_container(world: &World) {
    let db = rusqlite::Connection::open(world.path(".trainyard/state.db")).unwrap();
    db.busy_timeout(Duration::from_secs(60)).unwrap();
    assert_eq!(db.execute("UPDATE run SET pids = pids + 1, pid = 1", []).unwrap(), 1);
}

/// Returns what a command says, without the ends of its lines.
fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ")
}

fn assert_is_left_alone(world: &World) {
    assert_eq!(world.show()["state"], "running");
    for command in ["resume", "cancel"] {
        let refused = world.command(&[command]).output().unwrap();
        assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
        assert!(said(&refused).contains("in another container of this machine"), "{}", said(&refused));
    }
}

fn begun(world: &World) -> usize {
    std::fs::read_to_string(world.path("begun")).unwrap().lines().count()
}

fn resume(world: &World) {
    let resumed = world.command(&["resume"]).output().unwrap();
    assert_eq!(resumed.status.code(), Some(0), "{}", said(&resumed));
}

#[test]
fn a_run_of_another_container_is_under_way_as_long_as_something_attends_to_it() {
    let world = World::new(GATED);
    let mut run = world.start(&[]);
    run.wait_for("ready");
    let stage = process::identify(pid_in(&world.path("pid"))).unwrap();
    move_to_another_container(&world);
    assert_is_left_alone(&world);
    run.signal(Signal::KILL);
    run.end();
    // Its warden ends what is left first.
    while world.show()["state"] == "running" {
        std::thread::yield_now();
    }
    assert!(!process::is_alive(stage));
    std::fs::write(world.path("gate"), "").unwrap();
    resume(&world);
    assert_eq!((world.show()["state"].as_str(), begun(&world)), (Some("succeeded"), 2));
}

#[test]
fn what_goes_on_by_itself_in_another_container_is_waited_for_and_learned() {
    let world = World::new(GATED);
    let mut run = world.start(&["--survive"]);
    run.wait_for("ready");
    let sentinel = parent(pid_in(&world.path("pid"))).unwrap();
    run.signal(Signal::KILL);
    run.end();
    move_to_another_container(&world);
    assert_is_left_alone(&world);
    std::fs::write(world.path("gate"), "").unwrap();
    wait_for_end(sentinel);
    resume(&world);
    assert_eq!((outcomes(&world.show(), "a"), begun(&world)), (vec!["succeeded".to_owned()], 1));
}

#[test]
fn a_process_whose_run_was_taken_over_says_so_and_leaves_the_other_alone() {
    let world = World::new(GATED);
    let mut run = world.start(&[]);
    run.wait_for("ready");
    let mut store = Store::open(&world.path(".trainyard")).unwrap();
    let header = store.runs().unwrap().remove(0).header;
    let by = Orchestrator { process: process::identify(std::process::id()).unwrap(), ..header.orchestrator.clone() };
    let mut taken = store.take_over(&header, &by).unwrap().expect("nobody else takes it over");
    let resumed = Recorded { at: Millis(header.started.0 + 1), event: Event::RunResumed { adopted: Vec::new() } };
    store.append(&mut taken, &[resumed]).unwrap();
    // What a task of the other one would be.
    let mut other = Command::new("cat");
    let other = other.env("TRAINYARD_RUN", &header.id).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut other = other.spawn().unwrap();
    let other_process = process::identify(other.id()).unwrap();
    std::fs::write(world.path("gate"), "").unwrap();
    run.wait_for(&format!("{} was taken", header.id));
    assert_eq!(run.end(), Some(130));
    assert!(process::is_alive(other_process));
    drop(other.stdin.take());
    assert!(other.wait().unwrap().success());
}

#[test]
fn a_run_of_a_machine_that_is_gone_goes_on_if_that_is_said() {
    let world = World::new("[stage.a]\nrun = \"test -e gate\"\n");
    assert_eq!(world.run(&[]).status.code(), Some(1));
    let db = rusqlite::Connection::open(world.path(".trainyard/state.db")).unwrap();
    let there = "UPDATE run SET host = 'elsewhere', boot = 'another', finished = NULL, end = NULL";
    assert_eq!(db.execute(there, []).unwrap(), 1);
    drop(db);
    std::fs::write(world.path("gate"), "").unwrap();
    let refused = world.command(&["resume"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        said(&refused).contains("on elsewhere") && said(&refused).contains("--dead` goes on"),
        "{}",
        said(&refused)
    );
    let resumed = world.command(&["resume", "--dead"]).output().unwrap();
    assert_eq!(resumed.status.code(), Some(0), "{}", said(&resumed));
}
