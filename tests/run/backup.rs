//! Two attempts of a task side by side: the first to succeed wins, whatever becomes of the other. A stage tells its
//! attempts apart by `TRAINYARD_ATTEMPT`.

use rustix::process::Signal;
use serde_json::Value;

use crate::world::{World, of, outcomes, pid_in, state, told, wait_for, wait_for_end, wait_until};

/// A stage of which two attempts run from the start.
fn twice(script: &str) -> World {
    World::new(&format!(
        "[stage.a]\nrun = \"\"\"{script}\"\"\"\noutputs = [\"out/a.txt\"]\nreplicas = 2\ngrace = \"200ms\"\n\
         resources = {{ cpus = 0 }}\n"
    ))
}

fn read(world: &World, path: &str) -> String {
    std::fs::read_to_string(world.path(path)).unwrap()
}

/// Returns whether each attempt of a task ran beside another.
fn backups(run: &Value, task: &str) -> Vec<bool> {
    let attempts = of(run, task)["attempts"].as_array().unwrap();
    attempts.iter().map(|attempt| attempt["backup"] == true).collect()
}

fn is_empty(world: &World, folder: &str) -> bool {
    let run = world.show()["run"].as_str().unwrap().to_owned();
    let folder = world.path(&format!(".trainyard/runs/{run}/{folder}"));
    std::fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none())
}

#[test]
fn the_first_to_succeed_wins_and_the_other_is_ended_without_a_trace() {
    let world = twice(
        "echo half > {outputs}; if [ $TRAINYARD_ATTEMPT = 1 ]; then echo $$ > pid; exec sleep 1000; fi\n\
         until test -s pid; do sleep 0.02; done; echo whole $TRAINYARD_ATTEMPT > {outputs}",
    );
    let (code, run) = world.run_and_show(&[]);
    assert_eq!((code, state(&run, "a")), (0, "succeeded"));
    assert_eq!(
        (outcomes(&run, "a"), backups(&run, "a")),
        (vec!["outrun".to_owned(), "succeeded".into()], vec![false, true])
    );
    assert_eq!(read(&world, "out/a.txt"), "whole 2\n");
    assert!(is_empty(&world, "staging") && is_empty(&world, "aside"));
    wait_for_end(pid_in(&world.path("pid")));
    // The winner's result is kept, and a lost race is nothing that anybody has to hear of again.
    let (code, run) = world.run_and_show(&[]);
    assert_eq!((code, state(&run, "a")), (0, "cached"));
}

#[test]
fn a_straggler_gets_company_once_it_has_taken_too_long() {
    let world = World::new(
        "[stage.a]\nrun = '''if [ $TRAINYARD_ATTEMPT = 1 ]; then exec sleep 1000; fi; echo $TRAINYARD_ATTEMPT > \
         \"$TRAINYARD_OUTPUTS\"'''\noutputs = [\"a.txt\"]\nbackup = { after = 1.5 }\nduration = \"200ms\"\ngrace = \"200ms\"\n\
         [stage.b]\nrun = \"cat a.txt > {outputs}\"\ninputs = [\"a.txt\"]\noutputs = [\"b.txt\"]\n",
    );
    let (code, run) = world.run_and_show(&["--json"]);
    assert_eq!((code, outcomes(&run, "a")), (0, vec!["outrun".to_owned(), "succeeded".into()]));
    assert_eq!(read(&world, "b.txt"), "2\n");
    let explained = world.command(&["explain", "a"]).output().unwrap();
    let explained = String::from_utf8(explained.stdout).unwrap();
    assert!(explained.contains("attempt 1: another attempt was faster"), "{explained}");
    let gantt = world.command(&["show", "--gantt", "run.svg"]).output().unwrap();
    assert!(gantt.status.success() && read(&world, "run.svg").contains("outrun"));
}

#[test]
fn a_task_of_which_nobody_knows_how_long_it_takes_has_no_backup_and_that_is_said() {
    let world = World::new("[stage.a]\nrun = \"echo x > {outputs}\"\noutputs = [\"a.txt\"]\nbackup = { after = 2 }\n");
    let output = world.run(&[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(said.matches("no backup until it is known how long they take").count(), 1, "{said}");
    assert_eq!(outcomes(&world.show(), "a"), ["succeeded"]);
    let again = world.run(&["--force"]);
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(again.status.success() && !said.contains("no backup"), "{:?} it was learned: {said}", again.status);
}

#[test]
fn a_failure_beside_a_success_is_no_failure() {
    for failing in [1, 2] {
        let world = twice(&format!(
            "if [ $TRAINYARD_ATTEMPT = {failing} ]; then echo half > {{outputs}}; touch failed; exit 3; fi\n\
             until test -e failed; do sleep 0.02; done; echo whole > {{outputs}}"
        ));
        let (code, run) = world.run_and_show(&[]);
        let mut wanted = ["succeeded", "succeeded"];
        wanted[failing - 1] = "exited:3";
        assert_eq!((code, outcomes(&run, "a")), (0, wanted.map(str::to_owned).to_vec()));
        assert_eq!(read(&world, "out/a.txt"), "whole\n");
    }
}

#[test]
fn who_is_interrupted_beside_a_failure_might_have_succeeded() {
    for signal in [Signal::KILL, Signal::TERM] {
        let world = twice(
            "case $TRAINYARD_ATTEMPT in 1) exit 3 ;; 2) touch begun; exec sleep 1000 ;; esac; echo whole > {outputs}",
        );
        let run = world.start(&[]);
        wait_for(&world.path("begun"));
        wait_until(|| outcomes(&world.show(), "a")[0] == "exited:3");
        run.signal(signal);
        run.end();
        assert_eq!(state(&world.show(), "a"), "waiting");
        let resumed = world.command(&["resume"]).output().unwrap();
        assert!(resumed.status.success(), "{}", told(&resumed));
        let outcomes = outcomes(&world.show(), "a");
        assert_eq!(outcomes[..2], ["exited:3", "interrupted"]);
        assert_eq!(outcomes[2..].iter().filter(|outcome| *outcome == "succeeded").count(), 1, "{outcomes:?}");
        assert_eq!(read(&world, "out/a.txt"), "whole\n");
    }
}

#[test]
fn two_failures_side_by_side_count_as_one_try() {
    let world = twice("echo $TRAINYARD_ATTEMPT >> tried; echo x > {outputs}; test -e good");
    let (code, run) = world.run_and_show(&[]);
    assert_eq!((code, state(&run, "a"), outcomes(&run, "a").len()), (1, "failed", 2));
    assert!(!world.path("out/a.txt").exists());
    assert!(!is_empty(&world, "aside"), "what failed attempts left can be looked at");

    let script = "if [ $TRAINYARD_ATTEMPT -le 2 ]; then exit 1; fi; echo $TRAINYARD_ATTEMPT > {outputs}";
    let world = World::new(&format!(
        "[stage.a]\nrun = \"{script}\"\noutputs = [\"a.txt\"]\nreplicas = 2\nretries = 1\nbackoff = \"1ms\"\n\
         resources = {{ cpus = 0 }}\n"
    ));
    let (code, run) = world.run_and_show(&[]);
    let outcomes = outcomes(&run, "a");
    assert_eq!((code, &outcomes[..2]), (0, &["exited:1".to_owned(), "exited:1".to_owned()][..]));
    assert_eq!(outcomes[2..].iter().filter(|outcome| *outcome == "succeeded").count(), 1, "{outcomes:?}");
    assert_eq!(outcomes.len(), 4, "{outcomes:?}");
}

#[test]
fn a_stage_that_writes_elsewhere_than_it_was_told_to_has_not_written_its_output() {
    let world = twice(": {outputs}; p=out; mkdir -p $p; echo x > $p/a.txt");
    let (code, run) = world.run_and_show(&[]);
    assert_eq!((code, outcomes(&run, "a")), (1, vec!["output-missing".to_owned(), "output-missing".into()]));
}

#[test]
fn a_folder_is_published_whole_and_what_was_in_its_place_is_kept() {
    let script = "mkdir {outputs}; echo $TRAINYARD_ATTEMPT > {outputs}/x; cp {outputs}/x {outputs}/y";
    let world = World::new(&format!(
        "[stage.a]\nrun = \"{script}\"\noutputs = [\"made\"]\nreplicas = 2\ncache = false\ncwd = \".\"\n"
    ));
    std::fs::create_dir(world.path("made")).unwrap();
    std::fs::write(world.path("made/mine"), "mine").unwrap();
    let (code, run) = world.run_and_show(&["--jobs", "1"]);
    assert_eq!((code, outcomes(&run, "a").first().map(String::as_str)), (0, Some("succeeded")));
    assert_eq!((read(&world, "made/x"), read(&world, "made/y")), ("1\n".into(), "1\n".into()));
    assert!(!world.path("made/mine").exists());
    let aside = world.path(&format!(".trainyard/runs/{}/aside", run["run"].as_str().unwrap()));
    let kept = std::fs::read_dir(aside).unwrap().map(|entry| entry.unwrap().path().join("made/mine"));
    assert_eq!(kept.filter(|path| path.exists()).count(), 1);
}

#[test]
fn ctrl_c_ends_both_and_the_run_goes_on_with_both() {
    let world = twice(
        "test -e go && { echo $TRAINYARD_ATTEMPT > {outputs}; exit; }\n\
         echo $$ > pid$TRAINYARD_ATTEMPT; test $TRAINYARD_ATTEMPT = 2 && { until test -s pid1; do sleep 0.02; done; \
         echo ready; }; exec sleep 1000",
    );
    let mut run = world.start(&[]);
    run.wait_for("ready");
    run.signal(Signal::INT);
    assert_eq!(run.end(), Some(130));
    assert_eq!(outcomes(&world.show(), "a"), ["interrupted", "interrupted"]);
    for pid in ["pid1", "pid2"] {
        wait_for_end(pid_in(&world.path(pid)));
    }
    std::fs::write(world.path("go"), "").unwrap();
    assert!(world.command(&["resume", "--quiet"]).status().unwrap().success());
    let run = world.show();
    assert_eq!(outcomes(&run, "a").iter().filter(|outcome| *outcome == "succeeded").count(), 1);
}

#[test]
fn a_race_goes_on_without_its_orchestrator_and_is_decided_by_the_next_one() {
    let world = twice(
        "echo $$ > pid$TRAINYARD_ATTEMPT; test $TRAINYARD_ATTEMPT = 1 && exec sleep 1000\n\
         until test -s pid1; do sleep 0.02; done; echo ready\n\
         until test -e go; do sleep 0.02; done; echo $TRAINYARD_ATTEMPT > {outputs}",
    );
    let mut run = world.start(&["--survive"]);
    run.wait_for("ready");
    run.signal(Signal::KILL);
    assert_eq!(run.end(), None);
    let winner = pid_in(&world.path("pid2"));
    std::fs::write(world.path("go"), "").unwrap();
    wait_for_end(winner);
    assert!(world.command(&["resume", "--quiet"]).status().unwrap().success());
    let run = world.show();
    assert_eq!(outcomes(&run, "a"), ["outrun", "succeeded"]);
    assert_eq!(read(&world, "out/a.txt"), "2\n");
    wait_for_end(pid_in(&world.path("pid1")));
}
