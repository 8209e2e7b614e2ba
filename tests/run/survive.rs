//! `--survive`: attempts that go on when the orchestrator is killed, and are adopted by the one that resumes the run.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;
use trainyard::engine::process;
use trainyard::probe::clock;
use trainyard::units::Millis;

use crate::world::{Started, World, of, outcomes, parent, pid_in, state, told, wait_for, wait_for_end, wait_until};

/// A stage that goes on when it is let, says so, and ends as it is told to.
const GATED: &str = r#"
[stage.first]
run = "echo first >> done"
[stage.second]
run = """
echo $$ > pid; echo ready; until test -e gate; do sleep 0.05; done
echo two; touch passed; until test -e last; do sleep 0.05; done; echo three; echo second >> done; exit $(cat last)"""
after = ["first"]
grace = "1s"
[stage.third]
run = "echo third >> done"
after = ["second"]
"#;

/// Starts a run that survives, and kills its orchestrator when the gated stage has printed; returns the sentinel.
pub(crate) fn killed(world: &World, args: &[&str]) -> u32 {
    let mut run = world.start(&[&["--survive"], args].concat());
    run.wait_for("ready");
    run.signal(Signal::KILL);
    run.end();
    let stage = pid_in(&world.path("pid"));
    let sentinel = parent(stage).expect("the stage goes on");
    let id = world.show()["run"].as_str().unwrap().to_owned();
    assert!(process::is_marked(sentinel, &[format!("TRAINYARD_RUN={id}")]), "its sentinel goes on");
    sentinel
}

pub(crate) fn go_on(world: &World, gate: &str, with: &str) {
    world.put(gate, with);
}

pub(crate) fn resume(world: &World, args: &[&str]) -> (Option<i32>, Vec<Value>) {
    let output = world.command(&[&["resume", "--json"], args].concat()).output().unwrap();
    let events = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), events.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn adopted(events: &[Value]) -> &Value {
    &events.iter().find(|event| event["event"] == "run-resumed").expect("it was resumed")["adopted"]
}

fn log(world: &World) -> String {
    String::from_utf8(world.command(&["logs", "latest", "second"]).output().unwrap().stdout).unwrap()
}

pub(crate) fn done(world: &World) -> String {
    std::fs::read_to_string(world.path("done")).unwrap()
}

#[test]
fn a_task_that_goes_on_is_adopted_without_another_attempt_and_its_log_is_complete() {
    let world = World::new(GATED);
    let sentinel = killed(&world, &[]);
    go_on(&world, "gate", "");
    wait_for(&world.path("passed"));
    let mut resumed = world.command(&["resume", "--mirror"]);
    let mut resumed = resumed.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(resumed.stderr.take().unwrap()));
    let mut said = String::new();
    for line in lines.map(|line| line.unwrap()) {
        said.push_str(&line);
        if line.contains("went on by themselves") {
            go_on(&world, "last", "0");
        }
    }
    assert_eq!(resumed.wait().unwrap().code(), Some(0), "{said}");
    assert!(said.contains("three") && !said.contains("ready"), "what it prints from then on is shown: {said}");
    wait_for_end(sentinel);
    assert_eq!(done(&world), "first\nsecond\nthird\n");
    let run = world.show();
    assert_eq!((run["state"].as_str(), outcomes(&run, "second")), (Some("succeeded"), vec!["succeeded".to_owned()]));
    assert_eq!(log(&world), "ready\ntwo\nthree\n");
}

#[test]
fn a_task_that_goes_on_alone_is_followed_to_its_end() {
    let world = World::new(GATED);
    let sentinel = killed(&world, &[]);
    let mut follower = world.command(&["logs", "-f", "latest", "second"]);
    let mut follower = follower.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().as_deref(), Some("ready"));
    go_on(&world, "gate", "");
    assert_eq!(lines.next().as_deref(), Some("two"));
    go_on(&world, "last", "0");
    assert_eq!((lines.next().as_deref(), lines.next()), (Some("three"), None));
    let output = follower.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(
        said.starts_with("second has ended, and nobody carries out the run any more: `trainyard resume "),
        "{said}"
    );
    wait_for_end(sentinel);
}

#[test]
fn how_a_task_ended_while_nobody_was_there_is_learned() {
    for (code, outcome) in [("0", "succeeded"), ("7", "exited:7")] {
        let world = World::new(GATED);
        let sentinel = killed(&world, &[]);
        go_on(&world, "gate", "");
        go_on(&world, "last", code);
        wait_for_end(sentinel);
        let (exit, events) = resume(&world, &[]);
        assert_eq!(exit, Some(i32::from(code != "0")), "{events:#?}");
        assert_eq!(adopted(&events), &serde_json::json!(["second"]));
        let run = world.show();
        assert_eq!(outcomes(&run, "second"), [outcome]);
        assert!(of(&run, "second")["attempts"][0]["log"].is_string());
        let resumed = events.iter().find(|event| event["event"] == "run-resumed").unwrap()["time"].as_str().unwrap();
        let ended = of(&run, "second")["attempts"][0]["finished"].as_str().unwrap();
        assert!(ended < resumed, "it ended at {ended}, before anybody resumed at {resumed}");
        assert_eq!(log(&world), "ready\ntwo\nthree\n");
    }
}

#[test]
fn a_task_whose_sentinel_was_killed_as_well_is_tried_again() {
    let world = World::new(GATED);
    let sentinel = killed(&world, &[]);
    process::signal(sentinel, Signal::KILL);
    wait_for_end(sentinel);
    let stage = pid_in(&world.path("pid"));
    let shown = String::from_utf8(world.command(&["show"]).output().unwrap().stdout).unwrap();
    assert!(
        shown.contains("1 of its tasks goes on, and nobody will learn how that ends: `trainyard resume"),
        "{shown}"
    );
    // Nobody could learn how it ends: the resumed run ends it and begins again.
    go_on(&world, "last", "0");
    let run = std::thread::scope(|scope| {
        let resumed = scope.spawn(|| resume(&world, &[]));
        wait_for_end(stage);
        go_on(&world, "gate", "");
        resumed.join().unwrap()
    });
    assert_eq!((run.0, adopted(&run.1)), (Some(0), &serde_json::json!([])));
    assert_eq!(outcomes(&world.show(), "second"), ["interrupted", "succeeded"]);
}

#[test]
fn what_a_task_left_that_has_succeeded_is_not_taken_for_the_task() {
    let first = "setsid sleep 1000 < /dev/null > /dev/null 2>&1 & echo $! > daemon; \
                 until grep -q sleep /proc/$!/comm; do sleep 0.02; done; echo first >> done";
    let world = World::new(&GATED.replace("echo first >> done", first));
    let sentinel = killed(&world, &[]);
    let shown = told(&world.command(&["show"]).output().unwrap());
    assert!(shown.contains("1 of its tasks goes on: `trainyard resume"), "{shown}");
    assert!(
        shown.contains("processes go on that 1 of its tasks left behind: `trainyard devices --orphans`"),
        "{shown}"
    );
    assert!(!shown.contains("tries again"), "{shown}");
    go_on(&world, "gate", "");
    go_on(&world, "last", "0");
    wait_for_end(sentinel);
    assert_eq!(resume(&world, &[]).0, Some(0));
    wait_for_end(pid_in(&world.path("daemon")));
    assert_eq!(done(&world), "first\nsecond\nthird\n");
}

#[test]
fn a_daemon_of_a_task_that_ended_alone_serves_later_tasks() {
    let daemon = "setsid sleep 1000 < /dev/null > /dev/null 2>&1 & echo $! > daemon; \
                  until grep -q sleep /proc/$!/comm; do sleep 0.02; done; echo second >> done";
    let runs = "grep -q '(sleep) [SR]' /proc/$(cat daemon)/stat && echo third >> done";
    let stages = GATED.replace("echo second >> done", daemon).replace("echo third >> done", runs);
    let world = World::new(&stages);
    let sentinel = killed(&world, &[]);
    go_on(&world, "gate", "");
    go_on(&world, "last", "0");
    wait_for_end(sentinel);
    assert_eq!(resume(&world, &[]).0, Some(0));
    assert_eq!(done(&world), "first\nsecond\nthird\n");
    wait_for_end(pid_in(&world.path("daemon")));
}

#[test]
fn an_adopted_task_ends_with_the_run_that_adopted_it() {
    let world = World::new(GATED);
    let sentinel = killed(&world, &[]);
    let mut resumed = world.command(&["resume"]);
    let mut resumed = resumed.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(resumed.stderr.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().contains("went on by themselves")));
    process::signal(resumed.id(), Signal::INT);
    lines.for_each(drop);
    assert_eq!(resumed.wait().unwrap().code(), Some(130));
    wait_for_end(sentinel);
    wait_for_end(pid_in(&world.path("pid")));
    assert_eq!(outcomes(&world.show(), "second"), ["interrupted"]);
}

#[test]
fn an_adopted_task_keeps_its_time_limit() {
    let world = World::new(&GATED.replace("grace = \"1s\"", "grace = \"100ms\"\ntimeout = \"2s\""));
    let sentinel = killed(&world, &[]);
    let (code, _) = resume(&world, &[]);
    wait_for_end(sentinel);
    assert_eq!((code, outcomes(&world.show(), "second")), (Some(1), vec!["timed-out".to_owned()]));
}

#[test]
fn a_task_that_goes_on_alone_keeps_its_time_limit() {
    // It does not end when it is asked to.
    let stage = GATED.replace("echo $$ > pid;", "trap '' TERM; echo $$ > pid;");
    for limit in ["timeout", "idle_timeout"] {
        let world = World::new(&stage.replace("grace = \"1s\"", &format!("grace = \"100ms\"\n{limit} = \"5s\"")));
        let sentinel = killed(&world, &[]);
        wait_for_end(sentinel);
        wait_for_end(pid_in(&world.path("pid")));
        let (code, events) = resume(&world, &[]);
        assert_eq!(adopted(&events), &serde_json::json!(["second"]));
        assert_eq!((code, outcomes(&world.show(), "second")), (Some(1), vec!["timed-out".to_owned()]));
    }
}

#[test]
fn cancel_ends_what_goes_on_without_an_orchestrator() {
    let world = World::new(GATED);
    let sentinel = killed(&world, &[]);
    let shown = String::from_utf8(world.command(&["show"]).output().unwrap().stdout).unwrap();
    assert!(shown.contains("1 of its tasks goes on: `trainyard resume"), "{shown}");
    let cancelled = world.command(&["cancel"]).output().unwrap();
    assert_eq!(cancelled.status.code(), Some(0), "{}", String::from_utf8_lossy(&cancelled.stderr));
    wait_for_end(sentinel);
    wait_for_end(pid_in(&world.path("pid")));
    assert_eq!(world.show()["state"], "interrupted");
    go_on(&world, "last", "0");
    go_on(&world, "gate", "");
    let (code, events) = resume(&world, &[]);
    assert_eq!((code, adopted(&events)), (Some(0), &serde_json::json!([])));
    assert_eq!(outcomes(&world.show(), "second"), ["interrupted", "succeeded"], "what was asked for is no failure");
}

#[test]
fn nobody_begins_beside_what_goes_on_and_is_on_record_no_more() {
    let world = World::new(GATED);
    let sentinel = killed(&world, &[]);
    let run = world.show()["run"].as_str().unwrap().to_owned();
    for name in ["state.db", "state.db-wal", "state.db-shm"] {
        let _ = std::fs::remove_file(world.path(".trainyard").join(name));
    }
    let refused = world.run(&[]);
    let said = told(&refused).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains(&format!("tasks of run {run} go on of which nothing is on record any more")), "{said}");
    let listed = told(&world.command(&["runs"]).output().unwrap());
    assert!(listed.contains("and its tasks go on: `trainyard devices --orphans`"), "{listed}");
    let ended = world.command(&["devices", "--orphans", "--end", &run]).output().unwrap();
    assert!(ended.status.success(), "{}", told(&ended));
    wait_for_end(sentinel);
    wait_for_end(pid_in(&world.path("pid")));
    let listed = told(&world.command(&["runs"]).output().unwrap());
    assert!(listed.contains("what was printed is in `logs` there") && !listed.contains("go on"), "{listed}");
    go_on(&world, "last", "0");
    go_on(&world, "gate", "");
    assert!(world.run(&[]).status.success());
}

#[test]
fn a_killed_sentinel_is_not_taken_for_its_stage() {
    let world = World::new(GATED);
    let mut run = world.start(&["--survive"]);
    run.wait_for("ready");
    let stage = pid_in(&world.path("pid"));
    process::signal(parent(stage).expect("its sentinel"), Signal::KILL);
    run.wait_for("its sentinel was killed, and left");
    assert_eq!(run.end(), Some(1));
    assert!(!process::identify(stage).is_some_and(process::is_alive), "the stage does not go on unseen");
}

#[test]
fn endings_are_the_same_under_a_sentinel() {
    let world = World::new(
        r#"
        [stage.code]
        run = "echo out; echo err >&2; exit 3"
        [stage.killed]
        run = "kill -9 $$"
        [stage.asked]
        run = "kill -15 $$"
        [stage.missing]
        run = "true"
        outputs = ["work/never"]
        [stage.absent]
        run = ["no-such-program"]
        [stage.format]
        run = ["./noise"]
        [stage.memory]
        run = "echo 'torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB' >&2; exit 1"
        oom_retries = 0
        [stage.late]
        run = "trap '' TERM; while :; do sleep 1000; done"
        timeout = "100ms"
        grace = "100ms"
        [stage.leaving]
        run = "sleep 1000 & echo $! > one; setsid sleep 1000 & echo $! > two; echo made both"
        [stage.deaf]
        run = "trap '' TERM INT HUP; kill -TERM 0; sh -c 'exec >&- 2>&-; exit 0'; echo heard nothing"
        "#,
    );
    std::fs::write(world.path("noise"), [0_u8, 1, 2, 3]).unwrap();
    std::fs::set_permissions(world.path("noise"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (plain, surviving) = (world.run_and_show(&["-k"]), world.run_and_show(&["-k", "--survive"]));
    assert_eq!((plain.0, surviving.0), (1, 1));
    for stage in ["code", "killed", "asked", "missing", "absent", "format", "memory", "late", "leaving", "deaf"] {
        assert_eq!(outcomes(&plain.1, stage), outcomes(&surviving.1, stage), "{stage}");
        let logs = |run: &Value| {
            let log = of(run, stage)["attempts"][0]["log"].as_str().map(std::fs::read);
            log.map(Result::unwrap)
        };
        assert_eq!(logs(&plain.1), logs(&surviving.1), "{stage}");
    }
    for file in ["one", "two"] {
        wait_for_end(pid_in(&world.path(file)));
    }
}

#[test]
fn a_detached_run_survives_as_well() {
    let world = World::new(GATED);
    assert_eq!(world.command(&["run", "p.toml", "--detach"]).output().unwrap().status.code(), Some(0));
    wait_for(&world.path("pid"));
    // Written by the shell's first command: its number is in it when it is there, or a moment later.
    while std::fs::read_to_string(world.path("pid")).unwrap().is_empty() {
        std::thread::yield_now();
    }
    let sentinel = parent(pid_in(&world.path("pid"))).unwrap();
    let orchestrator = parent(sentinel).unwrap();
    process::signal(orchestrator, Signal::KILL);
    wait_for_end(orchestrator);
    go_on(&world, "gate", "");
    go_on(&world, "last", "0");
    wait_for_end(sentinel);
    let (code, events) = resume(&world, &[]);
    assert_eq!((code, adopted(&events)), (Some(0), &serde_json::json!(["second"])));
    assert_eq!(done(&world), "first\nsecond\nthird\n");
}

/// A stage that goes on when it is let, with a result, and one that reads it.
pub(crate) const MAKING: &str = r#"
[stage.second]
run = "exec sh ./make"
inputs = ["in"]
outputs = ["out"]
[stage.third]
run = "cat out; echo third >> done"
inputs = ["out"]
"#;

/// What it runs. Files that its command names itself would count as inputs.
pub(crate) const MAKE: &str = "\
echo $$ > pid; echo ready; until test -e gate; do sleep 0.05; done; echo second >> done; cat in > out; exit $(cat gate)";

pub(crate) fn made_by(make: &str) -> World {
    let world = World::new(MAKING);
    std::fs::write(world.path("in"), "one").unwrap();
    std::fs::write(world.path("make"), make).unwrap();
    world
}

pub(crate) fn making() -> (World, u32) {
    let world = made_by(MAKE);
    let sentinel = killed(&world, &[]);
    (world, sentinel)
}

/// Runs the pipeline once more, and returns the states of both tasks and what was done.
pub(crate) fn once_more(world: &World) -> ([String; 2], String) {
    let (code, run) = world.run_and_show(&[]);
    assert_eq!(code, 0, "{run:#}");
    (["second", "third"].map(|task| state(&run, task).to_owned()), done(world))
}

#[test]
fn what_ended_well_while_nobody_was_there_is_not_made_again_by_another_run() {
    let (world, sentinel) = making();
    go_on(&world, "gate", "0");
    wait_for_end(sentinel);
    let planned = told(&world.command(&["run", "p.toml", "--dry-run"]).output().unwrap());
    assert!(planned.contains("1 cached, 1 will run"), "{planned}");
    assert_eq!(once_more(&world), (["cached", "succeeded"].map(str::to_owned), "second\nthird\n".to_owned()));
    assert_eq!(log(&world), "ready\n");
    // The run that began it goes on as if nothing had been.
    let runs: Value = serde_json::from_slice(&world.command(&["runs", "--json"]).output().unwrap().stdout).unwrap();
    let (code, events) = resume(&world, &[runs[1]["run"].as_str().unwrap()]);
    assert_eq!((code, adopted(&events)), (Some(0), &serde_json::json!(["second"])));
    assert_eq!(done(&world), "second\nthird\nthird\n");
}

#[test]
fn what_a_task_still_writes_when_it_has_ended_alone_belongs_to_it() {
    let late = "trap '' TERM; (until test -e late; do sleep 0.05; done; echo late >> out) & exit 0";
    let world = made_by(&MAKE.replace("exit $(cat gate)", late));
    let sentinel = killed(&world, &[]);
    go_on(&world, "gate", "0");
    let record =
        world.path(".trainyard/runs").join(world.show()["run"].as_str().unwrap()).join("attempts/second.1.json");
    wait_until(|| std::fs::read_to_string(&record).unwrap().contains("exited"));
    let noted = clock::now();
    // More than the clock of the file system is late.
    wait_until(|| clock::now().0 > noted.0 + 50);
    go_on(&world, "late", "");
    wait_for_end(sentinel);
    assert_eq!(once_more(&world), (["cached", "succeeded"].map(str::to_owned), "second\nthird\n".to_owned()));
    assert_eq!(std::fs::read_to_string(world.path("out")).unwrap(), "onelate\n");
}

#[test]
fn a_task_that_stands_still_when_its_orchestrator_dies_goes_on_later() {
    let world = made_by(&MAKE.replace("echo ready;", "echo ready; kill -STOP $$;"));
    let mut run = world.start(&["--survive"]);
    run.wait_for("ready");
    let stage = pid_in(&world.path("pid"));
    wait_until(|| std::fs::read_to_string(format!("/proc/{stage}/stat")).unwrap().contains(") T "));
    run.signal(Signal::KILL);
    run.end();
    let sentinel = parent(stage).expect("it is there");
    go_on(&world, "gate", "0");
    process::signal(stage, Signal::CONT);
    wait_for_end(sentinel);
    let (code, events) = resume(&world, &[]);
    assert_eq!((code, adopted(&events)), (Some(0), &serde_json::json!(["second"])));
    assert_eq!(done(&world), "second\nthird\n");
}

#[test]
fn another_run_waits_for_a_task_that_goes_on_and_takes_what_it_makes() {
    let (world, sentinel) = making();
    let mut other = world.start(&[]);
    other.wait_for("writes out");
    go_on(&world, "gate", "0");
    assert_eq!(other.end(), Some(0));
    wait_for_end(sentinel);
    assert_eq!((state(&world.show(), "second"), done(&world).as_str()), ("cached", "second\nthird\n"));
}

#[test]
fn what_failed_or_was_changed_while_nobody_was_there_is_made_again() {
    let failed: fn(&World) = |world| go_on(world, "gate", "0");
    for (code, then) in [
        ("7", failed),
        ("0", |world| std::fs::write(world.path("out"), "mine").unwrap()),
        ("0", |world| {
            std::fs::write(world.path("in"), "two").unwrap();
        }),
    ] {
        let (world, sentinel) = making();
        go_on(&world, "gate", code);
        wait_for_end(sentinel);
        // The file system's clock goes in steps of some milliseconds.
        let ended = clock::now();
        wait_until(|| clock::now() > ended + Millis(50));
        then(&world);
        assert_eq!(once_more(&world), (["succeeded"; 2].map(str::to_owned), "second\nsecond\nthird\n".to_owned()));
        assert_eq!(std::fs::read(world.path("out")).unwrap(), std::fs::read(world.path("in")).unwrap());
    }
}

#[test]
fn what_was_asked_to_end_is_no_result_for_another_run() {
    let world = made_by(&format!("trap 'echo half > out; exit 0' TERM; {MAKE}"));
    let sentinel = killed(&world, &[]);
    assert!(world.command(&["cancel"]).output().unwrap().status.success());
    wait_for_end(sentinel);
    assert_eq!(std::fs::read_to_string(world.path("out")).unwrap(), "half\n");
    go_on(&world, "gate", "0");
    assert_eq!(once_more(&world), (["succeeded"; 2].map(str::to_owned), "second\nthird\n".to_owned()));
    assert_eq!(std::fs::read_to_string(world.path("out")).unwrap(), "one");
}

#[test]
fn what_was_not_kept_yet_when_its_run_was_killed_is_not_made_again_by_another_one() {
    if !cfg!(debug_assertions) {
        return;
    }
    let world = made_by(MAKE);
    go_on(&world, "gate", "0");
    let killed = world.command(&["run", "p.toml"]).env("TRAINYARD_CRASH_AT", "keeping").status().unwrap();
    assert_eq!(killed.code(), None);
    let (states, done) = once_more(&world);
    assert_eq!(states[0], "cached", "{done}");
    assert_eq!(done.matches("second").count(), 1);
}

/// Waits until a process looks at a lock again and again that somebody else holds.
fn wait_until_it_waits(pid: u32, lock: &Path) {
    wait_until(|| {
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        open.filter_map(|fd| std::fs::read_link(fd.path()).ok()).any(|file| file == lock)
    });
}

#[test]
fn who_waits_until_another_run_has_kept_something_can_be_interrupted() {
    if !cfg!(debug_assertions) {
        return;
    }
    let world = made_by(MAKE);
    go_on(&world, "gate", "0");
    let killed = world.command(&["run", "p.toml"]).env("TRAINYARD_CRASH_AT", "keeping").status().unwrap();
    assert_eq!(killed.code(), None);
    let locks = world.path(".trainyard/cache/keeping").canonicalize().unwrap();
    let lock = std::fs::read_dir(locks).unwrap().next().unwrap().unwrap().path();
    let held = std::fs::File::open(&lock).unwrap();
    held.lock().unwrap();
    let interrupt = |args: &[&str]| {
        let mut command = world.command(&[&["run", "p.toml"], args].concat());
        let mut run = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_until_it_waits(run.id(), &lock);
        process::signal(run.id(), Signal::INT);
        assert_eq!(run.wait().unwrap().code(), Some(130), "{args:?}");
    };
    // Before anything was begun; and when its turn has come, behind a stage that is run anyway.
    interrupt(&[]);
    let before = "[stage.first]\nrun = \"true\"\n[stage.second]\nafter = [\"first\"]";
    std::fs::write(world.path("p.toml"), MAKING.replace("[stage.second]", before)).unwrap();
    interrupt(&[]);
    drop(held);
    // The run that was killed may have come to the third.
    let (states, done) = once_more(&world);
    assert_eq!((states, done.matches("second").count()), (["cached", "succeeded"].map(str::to_owned), 1), "{done}");
}

#[test]
fn what_a_run_that_has_lost_its_record_ends_was_interrupted() {
    let world = World::new(
        r#"
[stage.short]
run = "until test -e gate; do sleep 0.02; done"
[stage.long]
run = "echo ready; until test -e last; do sleep 0.02; done"
[stage.next]
run = "echo next >> done"
after = ["long"]
"#,
    );
    let mut run = world.start(&["--survive"]);
    run.wait_for("ready");
    // Another file takes the place of the record, with what it held.
    let [record, copy] = ["state.db", "copy"].map(|name| world.path(".trainyard").join(name));
    std::fs::copy(&record, &copy).unwrap();
    std::fs::rename(&copy, &record).unwrap();
    go_on(&world, "gate", "");
    assert_eq!(run.end(), Some(70));
    go_on(&world, "last", "");
    let (code, events) = resume(&world, &[]);
    assert_eq!(code, Some(0), "{events:#?}");
    let run = world.show();
    assert_eq!(
        (outcomes(&run, "long"), outcomes(&run, "short").len()),
        (vec!["interrupted".into(), "succeeded".into()], 1)
    );
    assert_eq!(done(&world), "next\n");
}

/// Lets an attempt end well that has made a part, and expects who goes on to make all.
fn is_made_whole(world: &World, sentinel: u32, go_on_with: &str) {
    go_on(world, "gate", "");
    wait_for_end(sentinel);
    let output = match go_on_with {
        "resume" => world.command(&["resume"]).output().unwrap(),
        _ => world.run(&[]),
    };
    assert_eq!(output.status.code(), Some(0), "{go_on_with}: {}", told(&output));
    assert_eq!(std::fs::read_to_string(world.path("out")).unwrap(), "whole\n", "{go_on_with}");
}

#[test]
fn what_ends_well_in_the_grace_after_a_time_limit_is_no_result_where_nobody_is_there() {
    for go_on_with in ["resume", "run"] {
        let world = World::new(
            r#"
[stage.a]
run = """
trap 'echo ready; until test -e gate; do sleep 0.02; done; exit 0' TERM
echo $$ > pid; echo part > out; if test ! -e again; then touch again; sleep 1000 & wait; fi; echo whole > out"""
outputs = ["out"]
timeout = "1s"
"#,
        );
        let sentinel = killed(&world, &[]);
        is_made_whole(&world, sentinel, go_on_with);
    }
}

#[test]
fn what_ends_well_as_it_is_ended_for_another_command_is_no_result_where_nobody_is_there_any_more() {
    let text = r#"
[stage.a]
run = """
trap 'touch told; until test -e gate; do sleep 0.02; done; exit 0' TERM
echo $$ > pid; echo part > out; if test ! -e again; then touch again; echo ready; sleep 1000 & wait; fi; echo whole > out"""
outputs = ["out"]
"#;
    for go_on_with in ["resume", "run"] {
        let world = World::new(text);
        let sentinel = killed(&world, &[]);
        std::fs::write(world.path("p.toml"), text.replace("whole", "other")).unwrap();
        let mut other = world.command(&["resume", "--changed"]).spawn().unwrap();
        wait_for(&world.path("told"));
        other.kill().unwrap();
        other.wait().unwrap();
        std::fs::write(world.path("p.toml"), text).unwrap();
        is_made_whole(&world, sentinel, go_on_with);
    }
}

#[test]
fn what_ends_well_as_all_is_told_to_end_is_no_result_where_nobody_is_there() {
    for go_on_with in ["resume", "run", "resume at once"] {
        let world = World::new(
            r#"
[stage.a]
run = """
trap 'touch told; until test -e gate; do sleep 0.02; done; exit 0' TERM
echo $$ > pid; echo part > out; if test ! -e again; then touch again; echo ready; sleep 1000 & wait; fi; echo whole > out"""
outputs = ["out"]
"#,
        );
        let sentinel = killed(&world, &[]);
        process::signal_group(sentinel, Signal::TERM);
        wait_for(&world.path("told"));
        if go_on_with == "resume at once" {
            let mut resumed = Started::of(world.command(&["resume"]));
            resumed.wait_for("went on by themselves");
            go_on(&world, "gate", "");
            assert_eq!(resumed.end(), Some(0));
        }
        is_made_whole(&world, sentinel, go_on_with);
    }
}

#[test]
fn what_a_task_makes_that_tells_its_own_group_to_end_counts() {
    let world = World::new(
        r#"
[stage.a]
run = """
echo $$ > pid; echo ready; until test -e gate; do sleep 0.02; done; trap : TERM; kill 0; echo whole > out; echo >> made"""
outputs = ["out"]
"#,
    );
    let sentinel = killed(&world, &[]);
    is_made_whole(&world, sentinel, "resume");
    assert_eq!(outcomes(&world.show(), "a"), ["succeeded"]);
}
