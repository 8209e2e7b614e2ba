//! Whose results they are: a run never goes on with what another has made, nor loses what it has made itself.

use rustix::process::Signal;
use serde_json::Value;

use crate::world::{World, of, outcomes, pid_in, state, told, wait_for_end};

/// The second stage fails until it is let; what both make tells for which model.
const MODEL: &str = r#"
[stage.train]
run = "echo $LR >> trained; echo $LR > model"
env = { LR = "a" }
outputs = ["model"]
[stage.test]
run = "test -e go && cat model > report"
inputs = ["model"]
outputs = ["report"]
"#;

fn read(world: &World, file: &str) -> String {
    std::fs::read_to_string(world.path(file)).unwrap()
}

fn ok(world: &World, args: &[&str]) -> String {
    let output = world.command(args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{args:?}: {said}");
    said
}

#[test]
fn a_run_that_goes_on_does_not_read_what_another_has_made_meanwhile() {
    let world = World::new(MODEL);
    assert_eq!(world.run(&["--name", "one"]).status.code(), Some(1));
    std::fs::write(world.path("go"), "").unwrap();
    ok(&world, &["run", "p.toml", "--set", "train.env.LR=b"]);
    assert_eq!(read(&world, "report"), "b\n");
    ok(&world, &["resume", "one"]);
    assert_eq!((read(&world, "model"), read(&world, "report")), ("a\n".into(), "a\n".into()));
    assert_eq!(read(&world, "trained"), "a\nb\n", "it was kept");
}

#[test]
fn what_was_changed_by_hand_and_was_not_kept_is_made_again() {
    let world = World::new(MODEL);
    assert_eq!(world.run(&["--name", "one"]).status.code(), Some(1));
    std::fs::write(world.path("go"), "").unwrap();
    std::fs::remove_dir_all(world.path(".trainyard/cache")).unwrap();
    // The clock of the file system goes in steps.
    std::thread::yield_now();
    while std::fs::metadata(world.path("model")).unwrap().modified().unwrap().elapsed().unwrap().as_millis() < 20 {}
    std::fs::write(world.path("model"), "").unwrap();
    ok(&world, &["resume", "one"]);
    assert_eq!((read(&world, "report"), read(&world, "trained")), ("a\n".into(), "a\na\n".into()));
}

#[test]
fn an_attempt_that_ended_alone_and_whose_result_is_another_s_is_made_again() {
    let world = World::new(
        r#"
[stage.train]
run = "echo $$ > pid.$LR; echo $LR >> trained; echo ready; until test -e gate; do sleep 0.05; done; echo $LR > model"
env = { LR = "a" }
outputs = ["model"]
[stage.test]
run = "cat model > report"
inputs = ["model"]
outputs = ["report"]
"#,
    );
    let mut run = world.start(&["--survive", "--name", "one"]);
    run.wait_for("ready");
    run.signal(Signal::KILL);
    run.end();
    std::fs::write(world.path("gate"), "").unwrap();
    wait_for_end(pid_in(&world.path("pid.a")));
    ok(&world, &["run", "p.toml", "--set", "train.env.LR=b"]);
    assert_eq!(read(&world, "report"), "b\n");
    ok(&world, &["resume", "one"]);
    assert_eq!((read(&world, "model"), read(&world, "report")), ("a\n".into(), "a\n".into()));
    let run: Value = serde_json::from_str(&ok(&world, &["show", "one", "--json"])).unwrap();
    assert_eq!(outcomes(&run, "train"), ["interrupted", "succeeded"]);
}

#[test]
fn what_a_killed_run_had_not_kept_yet_is_kept_when_it_goes_on() {
    if !cfg!(debug_assertions) {
        return;
    }
    let world = World::new(MODEL);
    std::fs::write(world.path("go"), "").unwrap();
    let killed = world.command(&["run", "p.toml"]).env("TRAINYARD_CRASH_AT", "keeping").status().unwrap();
    assert_eq!(killed.code(), None);
    assert_eq!(state(&world.show(), "train"), "succeeded");
    ok(&world, &["resume"]);
    assert_eq!(of(&world.show(), "train")["attempts"].as_array().unwrap().len(), 1);
    std::fs::remove_file(world.path("model")).unwrap();
    ok(&world, &["run", "p.toml"]);
    assert_eq!((read(&world, "model"), read(&world, "trained")), ("a\n".into(), "a\n".into()));
}

#[test]
fn what_no_run_has_made_is_never_lost_silently() {
    let world = World::new(MODEL);
    std::fs::write(world.path("model"), "two days of training").unwrap();
    let run = world.run(&[]);
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    let at = said.split("no run is known to have made what was there: model; it is in ").nth(1).expect(&said);
    let at = at.split(" now").next().unwrap();
    assert_eq!(std::fs::read_to_string(format!("{at}/model")).unwrap(), "two days of training");
    std::fs::write(world.path("go"), "").unwrap();
    assert!(!ok(&world, &["run", "p.toml", "--force"]).contains("no run is known"), "now one has");
    ok(&world, &["cache", "gc"]);
    assert!(std::path::Path::new(at).join("model").exists());
}

#[test]
fn what_is_put_back_is_said_and_what_was_there_is_kept() {
    let world = World::new(MODEL);
    std::fs::write(world.path("go"), "").unwrap();
    ok(&world, &["run", "p.toml"]);
    std::fs::write(world.path("model"), "mine").unwrap();
    let said = ok(&world, &["run", "p.toml"]);
    let at = said.split("restored model; what was there is in ").nth(1).expect(&said).lines().next().unwrap();
    assert_eq!(std::fs::read_to_string(format!("{at}/train.before/model")).unwrap(), "mine");
    assert_eq!(read(&world, "model"), "a\n");
    std::fs::remove_file(world.path("model")).unwrap();
    assert!(ok(&world, &["run", "p.toml"]).contains("restored model\n"));
}

#[test]
fn what_a_stage_has_made_whose_inputs_cannot_be_read_is_known_to_be_its_own() {
    let world = World::new("[stage.a]\nrun = \"echo $TRAINYARD_RUN > out\"\ninputs = [\"in\"]\noutputs = [\"out\"]\n");
    std::fs::create_dir(world.path("in")).unwrap();
    std::fs::write(world.path("out"), "mine").unwrap();
    let fifo = std::process::Command::new("mkfifo").arg(world.path("in/fifo")).status().unwrap();
    assert!(fifo.success());
    let mut kept = vec!["mine".to_owned()];
    for ending in ["found", "before", "before"] {
        let said = told(&world.run(&[]));
        assert_eq!(said.contains("no run is known to have made"), ending == "found", "{said}");
        let run = world.show()["run"].as_str().unwrap().to_owned();
        let aside = world.path(".trainyard/runs").join(&run).join(format!("aside/a.1.{ending}/out"));
        assert_eq!(std::fs::read_to_string(aside).unwrap().trim(), kept.pop().unwrap());
        kept.push(run);
    }
}
