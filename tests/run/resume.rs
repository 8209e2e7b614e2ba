//! Runs that go on: after a kill, after Ctrl-C, after a failure; runs without a terminal, and their end from elsewhere.

use rustix::process::{Pid, Signal, getsid};
use trainyard::probe::clock;
use trainyard::units::Millis;

use crate::world::{World, of, outcomes, parent, pid_in, state, wait_for_end, wait_until};

/// The second stage waits until it is let go on; each stage writes down that it was done.
const GATED: &str = r#"
[stage.first]
run = "echo first >> done"
[stage.second]
run = "echo $$ > pid; echo ready; while ! test -e gate; do sleep 0.05; done; echo second >> done"
after = ["first"]
grace = "1s"
[stage.third]
run = "echo third >> done"
after = ["second"]
"#;

fn done(world: &World) -> String {
    std::fs::read_to_string(world.path("done")).unwrap()
}

fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_was_forced_stays_so_when_the_run_goes_on() {
    let world = World::new(
        r#"
        [stage.a]
        run = "echo a >> done; echo made > a.txt; echo ready; until test -e gate; do sleep 0.05; done"
        outputs = ["a.txt"]
        [stage.b]
        run = "echo b >> done; cp a.txt b.txt"
        inputs = ["a.txt"]
        outputs = ["b.txt"]
        [stage.c]
        run = "echo c >> done; cp b.txt c.txt"
        inputs = ["b.txt"]
        outputs = ["c.txt"]
        "#,
    );
    for (args, again) in [(&["--force"][..], "a\na\nb\nc\n"), (&["--force-stage", "a"], "a\na\n")] {
        std::fs::write(world.path("gate"), "").unwrap();
        assert!(world.run(&["--force"]).status.success());
        std::fs::remove_file(world.path("gate")).unwrap();
        std::fs::remove_file(world.path("done")).unwrap();
        let mut run = world.start(args);
        run.wait_for("ready");
        run.signal(Signal::INT);
        assert_eq!(run.end(), Some(130));
        std::fs::write(world.path("gate"), "").unwrap();
        assert!(world.command(&["resume"]).output().unwrap().status.success());
        assert_eq!(std::fs::read_to_string(world.path("done")).unwrap(), again, "{args:?}");
    }
}

#[test]
fn a_killed_run_goes_on_without_repeating_what_succeeded() {
    let world = World::new(GATED);
    let mut run = world.start(&[]);
    run.wait_for("ready");
    run.signal(Signal::KILL);
    run.end();
    // Before it is let go on, so that it cannot be done twice.
    wait_for_end(pid_in(&world.path("pid")));
    std::fs::write(world.path("gate"), "").unwrap();
    let resumed = world.command(&["resume"]).output().unwrap();
    assert_eq!(resumed.status.code(), Some(0), "{}", said(&resumed));
    assert_eq!(done(&world), "first\nsecond\nthird\n");
    let run = world.show();
    assert_eq!(run["state"], "succeeded");
    assert_eq!(outcomes(&run, "first"), ["succeeded"]);
    assert_eq!(outcomes(&run, "second"), ["interrupted", "succeeded"]);
    assert_eq!(outcomes(&run, "third"), ["succeeded"]);

    let again = world.command(&["resume", "latest"]).output().unwrap();
    assert_eq!(again.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&again.stdout).contains("nothing left to do"));
}

#[test]
fn the_time_in_which_a_killed_run_lay_dead_is_nobodys() {
    let world = World::new(GATED);
    let mut run = world.start(&[]);
    run.wait_for("ready");
    run.signal(Signal::KILL);
    run.end();
    let stage = pid_in(&world.path("pid"));
    wait_for_end(stage);
    let killed = clock::now();
    std::fs::write(world.path("gate"), "").unwrap();
    wait_until(|| clock::now() > killed + Millis(1_000));
    assert!(world.command(&["resume"]).output().unwrap().status.success());
    let run = world.show();
    let at = |time: &serde_json::Value| {
        let time: jiff::Timestamp = time.as_str().unwrap().parse().unwrap();
        Millis(u64::try_from(time.as_millisecond()).unwrap())
    };
    let attempts = &of(&run, "second")["attempts"];
    assert!(at(&attempts[0]["finished"]) <= killed, "{attempts:#}");
    let lived = (at(&run["finished"]) - at(&run["started"])) - Millis(1_000);
    let listed = world.command(&["runs", "--json"]).output().unwrap().stdout;
    let listed: serde_json::Value = serde_json::from_slice(&listed).unwrap();
    assert!(Millis(listed[0]["took_ms"].as_u64().unwrap()) <= lived, "{listed:#}");
}

#[test]
fn an_interrupted_run_goes_on_as_it_was_called() {
    let world = World::new(&GATED.replace("gate;", "$GATE;"));
    let mut run = world.start(&["--set", "second.env.GATE=gate"]);
    run.wait_for("ready");
    run.signal(Signal::INT);
    assert_eq!(run.end(), Some(130));
    std::fs::write(world.path("gate"), "").unwrap();
    let resumed = world.command(&["resume"]).output().unwrap();
    assert_eq!(resumed.status.code(), Some(0), "{}", said(&resumed));
    assert_eq!(done(&world), "first\nsecond\nthird\n");
}

#[test]
fn a_failed_run_tries_again_what_failed() {
    let world = World::new(
        "[stage.a]\nrun = \"echo a >> done\"\n[stage.b]\nrun = \"test -e gate\"\nafter = [\"a\"]\n[stage.c]\nrun = \"true\"\nafter = [\"b\"]\n",
    );
    assert_eq!(world.run(&[]).status.code(), Some(1));
    assert_eq!(world.command(&["resume"]).output().unwrap().status.code(), Some(1));
    std::fs::write(world.path("gate"), "").unwrap();
    assert_eq!(world.command(&["resume"]).output().unwrap().status.code(), Some(0));
    let run = world.show();
    assert_eq!(outcomes(&run, "b"), ["exited:1", "exited:1", "succeeded"]);
    assert_eq!((done(&world).as_str(), state(&run, "c")), ("a\n", "succeeded"));
}

#[test]
fn a_run_of_which_only_the_record_is_left_goes_on() {
    for tidied in [".trainyard/runs", ".trainyard/cache"] {
        let world = World::new(
            "[stage.a]\nrun = \"echo a >> done; echo said; echo it > made\"\noutputs = [\"made\"]\n[stage.b]\nrun = \"echo hears; test -e gate\"\nafter = [\"a\"]\n",
        );
        assert_eq!(world.run(&[]).status.code(), Some(1));
        std::fs::remove_dir_all(world.path(tidied)).unwrap();
        std::fs::write(world.path("gate"), "").unwrap();
        let resumed = world.command(&["resume"]).output().unwrap();
        assert_eq!(resumed.status.code(), Some(0), "{tidied}: {}", said(&resumed));
        assert_eq!(outcomes(&world.show(), "b"), ["exited:1", "succeeded"], "{tidied}");
        assert_eq!(done(&world), "a\n", "{tidied}: what succeeded is not repeated");
        for command in [["logs", "b"], ["logs", "a"], ["show", "latest"], ["cancel", "latest"]] {
            let told = world.command(&command).output().unwrap();
            assert_ne!(told.status.code(), Some(70), "{tidied}, {command:?}: {}", said(&told));
        }
    }
}

#[test]
fn a_changed_pipeline_is_not_gone_on_with_unless_told() {
    let world = World::new("[stage.a]\nrun = \"false\"\n");
    assert_eq!(world.run(&[]).status.code(), Some(1));
    std::fs::write(world.path("p.toml"), "[stage.a]\nrun = \"true\"\n").unwrap();
    let refused = world.command(&["resume"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(3));
    assert!(said(&refused).contains("has changed") && said(&refused).contains("--changed"), "{}", said(&refused));
    assert_eq!(world.command(&["resume", "--changed"]).output().unwrap().status.code(), Some(0));
}

#[test]
fn other_tasks_are_never_gone_on_with() {
    let world = World::new("[stage.a]\nrun = \"false\"\n");
    assert_eq!(world.run(&[]).status.code(), Some(1));
    std::fs::write(world.path("p.toml"), "[stage.b]\nrun = \"true\"\n").unwrap();
    let refused = world.command(&["resume", "--changed"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(3));
    assert!(said(&refused).contains("other tasks"), "{}", said(&refused));
}

#[test]
fn a_run_under_way_is_not_resumed_but_can_be_cancelled() {
    let world = World::new(GATED);
    let mut run = world.start(&[]);
    run.wait_for("ready");
    let refused = world.command(&["resume"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(said(&refused).contains("still carried out"), "{}", said(&refused));
    let cancelled = world.command(&["cancel"]).output().unwrap();
    assert_eq!(cancelled.status.code(), Some(0), "{}", said(&cancelled));
    assert!(String::from_utf8_lossy(&cancelled.stdout).contains("interrupted"));
    assert_eq!(run.end(), Some(130));
    wait_for_end(pid_in(&world.path("pid")));
    assert_eq!(world.command(&["cancel"]).output().unwrap().status.code(), Some(2), "none is under way any more");
}

#[test]
fn a_detached_run_has_a_session_of_its_own_and_ends_when_cancelled() {
    let world = World::new("[stage.a]\nrun = \"echo $PPID > parent; trap '' TERM; while :; do sleep 1000; done\"\n");
    let started = world.command(&["run", "p.toml", "--detach"]).output().unwrap();
    assert_eq!(started.status.code(), Some(0), "{}", said(&started));
    let id = String::from_utf8_lossy(&started.stdout).trim().to_owned();
    assert_eq!(world.show()["run"], id.as_str());
    let log = world.path(&format!(".trainyard/runs/{id}/output.log"));
    assert!(log.is_file());
    // The stage's first act; until then there is no process to look at.
    while !std::fs::read_to_string(world.path("parent")).is_ok_and(|pid| pid.ends_with('\n')) {
        std::thread::yield_now();
    }
    // The stage's parent is its sentinel, whose parent carries the run out.
    let orchestrator = parent(pid_in(&world.path("parent"))).unwrap();
    let orchestrator = Pid::from_raw(i32::try_from(orchestrator).unwrap()).unwrap();
    assert_eq!(getsid(Some(orchestrator)).unwrap(), orchestrator, "no hang-up of our terminal reaches it");
    let cancelled = world.command(&["cancel", &id, "--now"]).output().unwrap();
    assert_eq!(cancelled.status.code(), Some(0), "{}", said(&cancelled));
    assert_eq!(world.show()["state"], "interrupted");
}

#[test]
fn what_is_wrong_with_a_pipeline_is_said_before_a_run_detaches() {
    let world = World::new("[stage.a]\nrnu = \"true\"\n");
    let output = world.command(&["run", "p.toml", "--detach"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(said(&output).contains("rnu"), "{}", said(&output));
}

#[test]
fn a_resumed_run_tells_that_it_was_and_shows_no_log_of_what_printed_nothing() {
    let world = World::new(&GATED.replace("echo ready; ", "touch ready; "));
    let run = world.start(&[]);
    while !world.path("ready").exists() {
        std::thread::yield_now();
    }
    run.signal(Signal::KILL);
    run.end();
    let log = |run: &serde_json::Value| of(run, "second")["attempts"][0]["log"].clone();
    assert_eq!(log(&world.show()), serde_json::Value::Null, "before");
    wait_for_end(pid_in(&world.path("pid")));
    std::fs::write(world.path("gate"), "").unwrap();
    let resumed = world.command(&["resume", "--json"]).output().unwrap();
    assert_eq!(resumed.status.code(), Some(0), "{}", said(&resumed));
    let events = String::from_utf8(resumed.stdout).unwrap();
    let events: Vec<serde_json::Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let words: Vec<&str> = events.iter().take(3).map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(words, ["run-started", "attempt-finished", "run-resumed"]);
    assert_eq!((&events[1]["task"], &events[1]["log"]), (&"second".into(), &serde_json::Value::Null));
    assert_eq!(log(&world.show()), serde_json::Value::Null, "afterwards");
}

#[test]
fn a_run_of_an_earlier_version_is_told_from_a_changed_file() {
    let world = World::new("[stage.a]\nrun = \"test -e gate\"\n");
    assert_eq!(world.run(&[]).status.code(), Some(1));
    // What the columns that came later hold for a run of the first format.
    let db = rusqlite::Connection::open(world.path(".trainyard/state.db")).unwrap();
    db.execute("UPDATE run SET invocation = '{}'", []).unwrap();
    let refused = world.command(&["resume"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(3));
    assert!(
        said(&refused).contains("earlier version") && !said(&refused).contains("has changed"),
        "{}",
        said(&refused)
    );
    std::fs::write(world.path("gate"), "").unwrap();
    assert_eq!(world.command(&["resume", "--changed"]).output().unwrap().status.code(), Some(0));
}

#[test]
fn help_names_no_option_that_is_refused() {
    let world = World::new("[stage.a]\nrun = \"true\"\n");
    for command in ["run", "resume"] {
        let help = world.command(&[command, "--help"]).output().unwrap();
        assert!(!String::from_utf8_lossy(&help.stdout).contains("--fleet"), "{command}");
    }
    let refused = world.run(&["--fleet", "f.toml"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(said(&refused).contains("trainyard plan --fleet"), "{}", said(&refused));
}

#[test]
fn a_pipeline_file_that_is_gone_is_named_with_what_helps() {
    let world = World::new("[stage.a]\nrun = \"exit 1\"\n");
    assert_eq!(world.run(&[]).status.code(), Some(1));
    let text = std::fs::read_to_string(world.path("p.toml")).unwrap();
    std::fs::remove_file(world.path("p.toml")).unwrap();
    let refused = world.command(&["resume"]).output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(3), "{said}");
    assert!(said.contains(&world.path("p.toml").display().to_string()) && said.contains("No such file"), "{said}");
    let kept = said.split('`').nth(1).expect("a path that can be copied");
    assert_eq!(std::fs::read_to_string(kept).unwrap(), text);
}

#[test]
fn what_a_refusal_names_can_be_copied() {
    let world = World::new("");
    let file = world.path("my very own pipeline.toml");
    std::fs::write(&file, "[stage.a]\nrun = \"exit 1\"\n").unwrap();
    let failed = world.command(&["run", "my very own pipeline.toml"]).output().unwrap();
    assert_eq!(failed.status.code(), Some(1));
    std::fs::write(&file, "[stage.a]\nrun = \"exit 2\"\n").unwrap();
    let said = String::from_utf8(world.command(&["resume"]).output().unwrap().stderr).unwrap();
    assert!(said.contains(&format!("`trainyard run '{}'`", file.display())), "{said}");
    let run = world.show()["run"].as_str().unwrap().to_owned();
    assert!(said.contains(&format!("`trainyard resume {run} --changed`")), "{said}");
}
