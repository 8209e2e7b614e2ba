//! Ctrl-C once, twice, and an orchestrator that is killed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use rustix::process::Signal;
use trainyard::engine::process;

use crate::world::{Started, World, hears_hang_ups, outcomes, pid_in, state, wait_for_end, wait_until};

/// A stage that says when it runs, and cleans up when it is asked to end.
const POLITE: &str = r#"
[stage.a]
run = "trap 'echo cleaned up; exit 3' TERM; echo $$ > pid; echo ready; while :; do sleep 1000 & wait; done"
[stage.b]
run = "true"
after = ["a"]
"#;

#[test]
fn a_run_that_was_started_to_ignore_hang_ups_does() {
    let world = World::new("[stage.a]\nrun = \"echo ready; until test -e gate; do sleep 0.05; done\"\n");
    let mut command = world.command(&["run", "p.toml", "--mirror"]);
    hears_hang_ups(&mut command, false);
    let mut run = Started::of(command);
    run.wait_for("ready");
    run.signal(Signal::HUP);
    std::fs::write(world.path("gate"), "").unwrap();
    assert_eq!(run.end(), Some(0));
}

/// A stage that does not listen.
const DEAF: &str = r#"
[stage.a]
run = "trap '' TERM; echo $$ > pid; echo ready; while :; do sleep 1000; done"
"#;

#[test]
fn one_ctrl_c_lets_stages_clean_up() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let world = World::new(POLITE);
        let mut run = world.start(&[]);
        run.wait_for("ready");
        run.signal(signal);
        run.wait_for("cleaned up");
        assert_eq!(run.end(), Some(130));
        let run = world.show();
        assert_eq!(run["state"], "interrupted");
        assert_eq!((outcomes(&run, "a"), state(&run, "b")), (vec!["interrupted".to_owned()], "waiting"));
        wait_for_end(pid_in(&world.path("pid")));
    }
}

#[test]
fn a_second_ctrl_c_kills() {
    let world = World::new(DEAF);
    let mut run = world.start(&[]);
    run.wait_for("ready");
    run.signal(Signal::INT);
    run.signal(Signal::INT);
    assert_eq!(run.end(), Some(130));
    assert_eq!(outcomes(&world.show(), "a"), ["interrupted"]);
    wait_for_end(pid_in(&world.path("pid")));
}

#[test]
fn cancel_ends_a_run_that_is_stopped_and_says_what_it_waits_for() {
    let world = World::new(DEAF);
    let mut run = world.start(&[]);
    run.wait_for("ready");
    run.signal(Signal::STOP);
    let mut cancel = world.command(&["cancel"]).stderr(Stdio::piped()).spawn().unwrap();
    let waits =
        BufReader::new(cancel.stderr.take().unwrap()).lines().next().expect("it says what it waits for").unwrap();
    assert!(waits.starts_with("waiting until process "), "{waits}");
    let now = world.command(&["cancel", "--now"]).output().unwrap();
    assert!(now.status.success() && cancel.wait().unwrap().success());
    assert_eq!((run.end(), outcomes(&world.show(), "a")), (Some(130), vec!["interrupted".to_owned()]));
}

#[test]
fn what_a_stage_leaves_in_another_session_is_killed_at_once_if_that_is_asked_for() {
    const LEAVING: &str = r#"
        [stage.a]
        run = """
        setsid sh -c 'trap "" TERM; echo $$ > deaf; while :; do sleep 1000; done' &
        trap 'ENDED' TERM; until test -s deaf; do sleep 0.02; done; echo ready; while :; do sleep 0.05; done"""
        grace = "10h"
        "#;
    for (stage, asks) in [("", &["--now"][..]), ("echo asked; exit 0", &["", "--now"])] {
        let world = World::new(&LEAVING.replace("ENDED", stage));
        let mut run = world.start(&[]);
        run.wait_for("ready");
        let cancels = asks.iter().map(|ask| {
            let cancel = world.command(&["cancel"]).args(Some(ask).filter(|ask| !ask.is_empty())).spawn().unwrap();
            if *ask != "--now" {
                run.wait_for("asked");
            }
            cancel
        });
        let mut cancels = cancels.collect::<Vec<_>>();
        wait_for_end(cancels[0].id());
        wait_for_end(pid_in(&world.path("deaf")));
        assert!(cancels.iter_mut().all(|cancel| cancel.wait().unwrap().success()));
        assert_eq!((run.end(), outcomes(&world.show(), "a")), (Some(130), vec!["interrupted".to_owned()]));
    }
}

/// A stage that forks, forks twice and closes its descriptors; none of it listens.
const HORDE: &str = r#"
[stage.a]
run = """
trap '' TERM
sh -c 'echo $$ > child; exec sleep 1000' &
(setsid sh -c 'echo $$ > daemon; exec sleep 1000' &)
(setsid sh -c 'echo $$ > closed; exec sleep 1000 <&- >&- 2>&-' <&- >&- 2>&- &)
until test -s child && test -s daemon && test -s closed; do sleep 0.02; done
echo $$ > pid; echo ready; exec sleep 1000"""
grace = "200ms"
"#;

#[test]
fn whatever_a_stage_does_to_stay_it_ends_with_the_run() {
    for signals in [&[Signal::INT][..], &[Signal::TERM], &[Signal::HUP], &[Signal::INT, Signal::INT]] {
        let world = World::new(HORDE);
        let mut run = world.start(&[]);
        run.wait_for("ready");
        signals.iter().for_each(|signal| run.signal(*signal));
        assert_eq!(run.end(), Some(130), "{signals:?}");
        assert_eq!(outcomes(&world.show(), "a"), ["interrupted"]);
        for pid in ["pid", "child", "daemon", "closed"] {
            wait_for_end(pid_in(&world.path(pid)));
        }
    }
}

#[test]
fn a_run_that_waits_to_try_again_ends_at_once() {
    for signals in [&[Signal::INT][..], &[Signal::TERM], &[Signal::HUP], &[Signal::INT, Signal::INT]] {
        let world = World::new("[stage.a]\nrun = \"exit 3\"\nretries = 1\nbackoff = \"100s\"\n");
        let mut run = world.start(&[]);
        run.wait_for("again in");
        signals.iter().for_each(|signal| run.signal(*signal));
        assert_eq!(run.end(), Some(130), "{signals:?}");
        assert_eq!(outcomes(&world.show(), "a"), ["exited:3"], "it did not wait for that");
    }
}

#[test]
fn nothing_survives_an_orchestrator_that_is_killed_and_no_ghost_is_listed() {
    let world = World::new(&format!("{DEAF}grace = \"100ms\"\n"));
    let mut run = world.start(&[]);
    run.wait_for("ready");
    run.signal(Signal::KILL);
    assert_eq!(run.end(), None);
    wait_for_end(pid_in(&world.path("pid")));
    assert_eq!(world.show()["state"], "interrupted");
}

#[test]
fn a_stage_that_a_shutdown_ends_before_its_orchestrator_was_interrupted() {
    // Who tells the orchestrator waits until the stage has been buried.
    let world = World::new(
        r#"
[stage.a]
run = """
test -e again && exit 0; touch again
(trap '' TERM; touch armed; while kill -0 $$ 2> gone; do sleep 0.02; done; kill -TERM $PPID) &
until test -e armed; do sleep 0.02; done; kill -TERM $$; sleep 1000"""
[stage.b]
run = "echo b >> done"
after = ["a"]
"#,
    );
    assert_eq!(world.run(&[]).status.code(), Some(130));
    let run = world.show();
    assert_eq!((outcomes(&run, "a"), state(&run, "b")), (vec!["interrupted".to_owned()], "waiting"));
    assert_eq!(world.command(&["resume"]).output().unwrap().status.code(), Some(0));
    assert_eq!(outcomes(&world.show(), "a"), ["interrupted", "succeeded"]);
}

#[test]
fn a_part_that_a_task_saves_as_all_is_told_to_end_is_no_result() {
    for args in [&[][..], &["--survive"]] {
        let world = World::new(
            r#"
[stage.a]
run = """
trap 'exit 0' TERM; echo $$ > pid; echo part > out
if test ! -e again; then touch again; echo ready; sleep 1000 & wait; fi; echo whole > out"""
outputs = ["out"]
"#,
        );
        let mut run = world.start(args);
        run.wait_for("ready");
        // It is told as well, and hears of it only when its task has ended.
        run.signal(Signal::STOP);
        run.signal(Signal::TERM);
        let stage = pid_in(&world.path("pid"));
        process::signal(stage, Signal::TERM);
        wait_until(|| !Path::new(&format!("/proc/{stage}/fd/0")).exists());
        run.signal(Signal::CONT);
        assert_eq!(run.end(), Some(130), "{args:?}");
        assert_eq!(outcomes(&world.show(), "a"), ["interrupted"], "{args:?}");
        assert_eq!(world.run(&[]).status.code(), Some(0));
        assert_eq!(std::fs::read_to_string(world.path("out")).unwrap(), "whole\n");
    }
}
