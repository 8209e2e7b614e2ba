//! `trainyard runs gc`: what it removes, and what it leaves alone.

use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::Value;
use trainyard::run::store::Store;

use crate::world::{World, told};

const QUICK: &str = r#"
[stage.a]
run = "mkdir -p $TRAINYARD_CHECKPOINT_DIR; echo half > $TRAINYARD_CHECKPOINT_DIR/step; echo hi; touch a.txt"
outputs = ["a.txt"]
"#;

fn gc(world: &World, args: &[&str]) -> Value {
    let output = world.command(&[&["runs", "gc", "--json"], args].concat()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
}

fn removed(of: &Value) -> Vec<&str> {
    of["removed"].as_array().unwrap().iter().map(|run| run["run"].as_str().unwrap()).collect()
}

/// Returns the folders that runs have, in the order of their ids.
fn folders(world: &World) -> Vec<PathBuf> {
    let entries = world.path(".trainyard/runs").read_dir().unwrap();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders
}

fn id(world: &World) -> String {
    world.show()["run"].as_str().unwrap().to_owned()
}

fn samples(world: &World) -> u32 {
    Store::open(&world.path(".trainyard")).unwrap().learn().unwrap();
    let db = rusqlite::Connection::open(world.path(".trainyard/state.db")).unwrap();
    db.query_row("SELECT count(*) FROM sample", [], |row| row.get(0)).unwrap()
}

#[test]
fn old_runs_go_and_what_was_learned_from_them_stays() {
    let world = World::new(QUICK);
    let ids: Vec<String> = (0..3)
        .map(|_| {
            assert_eq!(world.run(&["--force"]).status.code(), Some(0));
            id(&world)
        })
        .collect();
    let would = gc(&world, &["--keep", "1", "--dry-run"]);
    assert_eq!((removed(&would).len(), folders(&world).len()), (2, 3), "{would}");
    assert!(gc(&world, &["--older-than", "1h"])["removed"].as_array().unwrap().is_empty());
    let did = gc(&world, &["--keep", "1"]);
    assert_eq!(removed(&did), [&ids[1], &ids[0]]);
    assert!(did["removed_bytes"].as_u64().unwrap() > 0 && did["left"] == 1, "{did}");
    assert_eq!(folders(&world), [world.path(".trainyard/runs").join(&ids[2])]);
    let listed: Value = serde_json::from_slice(&world.command(&["runs", "--json"]).output().unwrap().stdout).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(samples(&world), 3);
    assert_eq!(world.run(&["--force"]).status.code(), Some(0));
    assert_eq!(samples(&world), 4);
}

#[test]
fn checkpoints_of_what_has_succeeded_go_and_others_stay() {
    let half = "mkdir -p $TRAINYARD_CHECKPOINT_DIR; echo half > $TRAINYARD_CHECKPOINT_DIR/step";
    let failing = format!("[stage.b]\nrun = \"{half}; exit 1\"\nafter = [\"a\"]\n");
    let world = World::new(&format!("{QUICK}{failing}"));
    assert_eq!(world.run(&[]).status.code(), Some(1));
    let checkpoint = |task: &str| folders(&world)[0].join("checkpoints").join(task).join("step");
    assert!(checkpoint("a").exists() && checkpoint("b").exists());
    let did = gc(&world, &[]);
    assert!(removed(&did).is_empty() && did["checkpoints_removed_bytes"].as_u64().unwrap() > 0, "{did}");
    assert!(!checkpoint("a").exists() && checkpoint("b").exists());
}

#[test]
fn a_run_that_goes_on_is_never_removed_and_one_that_can_be_resumed_only_by_name() {
    let world = World::new("[stage.a]\nrun = \"echo ready; until test -e gate; do sleep 0.05; done\"\n");
    let mut run = world.start(&[]);
    run.wait_for("ready");
    let id = id(&world);
    assert!(removed(&gc(&world, &["--keep", "0"])).is_empty());
    let refused = world.command(&["runs", "gc", &id]).output().unwrap();
    let said = told(&refused);
    assert!(
        refused.status.code() == Some(2) && said.contains("goes on") && said.contains("trainyard cancel"),
        "{said}"
    );
    run.signal(Signal::INT);
    assert_eq!(run.end(), Some(130));
    assert!(removed(&gc(&world, &["--keep", "0", "--older-than", "0s"])).is_empty());
    assert_eq!(removed(&gc(&world, &[&id])), [&id]);
    assert!(folders(&world).is_empty());
    assert_eq!(world.command(&["resume"]).output().unwrap().status.code(), Some(2));
}

#[test]
fn a_removal_that_was_killed_is_finished_by_the_next_one() {
    let world = World::new(QUICK);
    assert_eq!(world.run(&[]).status.code(), Some(0));
    let killed = world.command(&["runs", "gc", "--keep", "0"]).env("TRAINYARD_CRASH_AT", "removed").output().unwrap();
    assert_eq!(killed.status.code(), None);
    assert_eq!(folders(&world).len(), 1);
    assert_eq!(world.command(&["runs"]).output().unwrap().stdout, b"no runs are recorded here\n");
    assert!(gc(&world, &[])["removed_bytes"].as_u64().unwrap() > 0);
    assert!(folders(&world).is_empty());
    // What it made is still known.
    let again = world.run(&[]);
    assert!(told(&again).contains("nothing to do"), "{again:?}");
}

#[test]
fn what_no_run_has_made_is_not_removed_with_a_run() {
    let world = World::new(QUICK);
    std::fs::write(world.path("a.txt"), "two days of work").unwrap();
    assert_eq!(world.run(&[]).status.code(), Some(0));
    let did = gc(&world, &["--keep", "0"]);
    let kept = did["kept"][0].as_str().unwrap();
    assert_eq!(std::fs::read(PathBuf::from(kept).join("a.txt")).unwrap(), b"two days of work");
    gc(&world, &[]);
    assert!(std::fs::exists(kept).unwrap());
}
