//! What a stage leaves behind with another environment: nothing in it tells whose it is.

use std::path::Path;

use rustix::process::Signal;

use crate::world::{World, outcomes, parent, pid_in, wait_for, wait_for_end};

/// Whether nothing has this number, not even a process that has ended and is not awaited.
fn is_gone(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn a_daemon_with_another_environment_ends_with_its_attempt_or_with_the_run() {
    for args in [&[][..], &["--survive"]] {
        let world = World::new(
            r#"
            [stage.open]
            run = "env -i setsid sleep 1000 & echo $! > open; until grep -q sleep /proc/$!/comm; do sleep 0.02; done"
            [stage.closed]
            run = "env -i setsid sleep 1000 < /dev/null > /dev/null 2>&1 & echo $! > closed; until grep -q sleep /proc/$!/comm; do sleep 0.02; done"
            after = ["open"]
            [stage.after]
            run = "! kill -0 $(cat open) && kill -0 $(cat closed)"
            after = ["closed"]
            "#,
        );
        let output = world.run(args);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{said}");
        let [open, closed] = ["open", "closed"].map(|file| pid_in(&world.path(file)));
        assert!(is_gone(open) && is_gone(closed));
        assert!(said.contains(&format!("what tasks had left behind is ended: process {closed}")), "{said}");
    }
}

#[test]
fn a_run_that_a_task_leaves_behind_ends_with_the_run_around_it_and_that_is_said() {
    let ty = env!("CARGO_BIN_EXE_trainyard");
    let world = World::new(&format!(
        "[stage.a]\nrun = '{ty} run q.toml --detach --state within; until test -e inner; do sleep 0.02; done'\n"
    ));
    std::fs::write(world.path("q.toml"), "[stage.b]\nrun = 'touch inner; sleep 1000'\n").unwrap();
    let output = world.run(&[]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("what tasks had left behind is ended: process "), "{said}");
}

#[test]
fn daemons_of_tasks_that_run_beside_each_other_end_with_their_own() {
    let world = World::new(
        r#"
        [stage.long]
        run = "env -i setsid sleep 1000 & echo $! > long; until test -e ended; do sleep 0.02; done; kill -0 $(cat long)"
        [stage.short]
        run = "until test -e long; do sleep 0.02; done; env -i setsid sleep 1000 & echo $! > short"
        [stage.after]
        run = "! kill -0 $(cat short); echo $? > ended; exit $(cat ended)"
        after = ["short"]
        "#,
    );
    let (code, run) = world.run_and_show(&["-k"]);
    assert_eq!(
        (code, outcomes(&run, "after"), outcomes(&run, "long")),
        (0, vec!["succeeded".into()], vec!["succeeded".into()])
    );
    assert!(["long", "short"].iter().all(|file| is_gone(pid_in(&world.path(file)))));
}

#[test]
fn orphans_that_end_while_a_task_goes_on_leave_no_zombies() {
    for args in [&[][..], &["--survive"]] {
        let world = World::new(
            r#"
            [stage.a]
            run = """
            for n in 1 2 3 4 5; do (sh -c 'echo $$ >> orphans' &) ; done
            until test "$(wc -l < orphans)" = 5; do sleep 0.02; done
            echo ready; until test -e gate; do sleep 0.05; done"""
            "#,
        );
        let mut run = world.start(args);
        run.wait_for("ready");
        let orphans = std::fs::read_to_string(world.path("orphans")).unwrap();
        for orphan in orphans.lines().map(|pid| pid.parse().unwrap()) {
            wait_for_end(orphan);
            while !is_gone(orphan) {
                std::thread::yield_now();
            }
        }
        std::fs::write(world.path("gate"), "").unwrap();
        assert_eq!(run.end(), Some(0));
    }
}

#[test]
fn a_sentinel_that_is_alone_ends_what_its_stage_left() {
    let world = World::new(
        r#"
        [stage.a]
        run = """
        env -i setsid sleep 1000 < /dev/null > /dev/null 2>&1 & echo $! > stray
        echo $$ > pid; echo ready; until test -e gate; do sleep 0.05; done"""
        "#,
    );
    let mut run = world.start(&["--survive"]);
    run.wait_for("ready");
    let sentinel = parent(pid_in(&world.path("pid"))).unwrap();
    run.signal(Signal::KILL);
    run.end();
    std::fs::write(world.path("gate"), "").unwrap();
    wait_for_end(sentinel);
    wait_for_end(pid_in(&world.path("stray")));
    assert_eq!(world.command(&["resume"]).output().unwrap().status.code(), Some(0));
    assert_eq!(outcomes(&world.show(), "a"), ["succeeded"]);
}

#[test]
fn a_session_that_was_begun_outside_the_container_is_one_too() {
    let world = World::new(
        r#"
        [stage.a]
        run = """
        env -i setsid sleep 1000 < /dev/null > /dev/null 2>&1 & echo $! > stray
        echo ready > begun; until test -e gate; do sleep 0.05; done"""
        "#,
    );
    // As `docker exec` begins what it runs: in a namespace of processes that has no number for the session.
    let script = r#"
        test "$(ps -o sid= -p $$ | tr -d ' ')" = 0 || exit 77
        "$0" run p.toml --survive & until test -s begun; do sleep 0.02; done
        kill -9 $!; touch gate
        for try in $(seq 1200); do kill -0 "$(cat stray)" 2> /dev/null || break; sleep 0.05; done
        ! kill -0 "$(cat stray)" 2> /dev/null || exit 79
        "$0" resume || exit 80"#;
    let mut command = std::process::Command::new("unshare");
    command.args(["-Urpf", "--mount-proc", "sh", "-c", script, env!("CARGO_BIN_EXE_trainyard")]);
    let Ok(output) = command
        .current_dir(world.path(""))
        .env("TRAINYARD_BOX", world.path("").join(".box"))
        .env("HOME", world.path(""))
        .output()
    else {
        return;
    };
    if !matches!(output.status.code(), Some(1 | 77)) {
        assert!(output.status.success(), "{:?}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn what_runs_below_a_task_ends_with_a_killed_orchestrator_whatever_its_environment() {
    let world = World::new(
        r#"
        [stage.a]
        run = "env -i sh -c 'trap \"\" TERM; echo $$ > stray; sleep 1000; sleep 1000' & echo ready; wait"
        grace = "100ms"
        "#,
    );
    let mut run = world.start(&[]);
    run.wait_for("ready");
    wait_for(&world.path("stray"));
    while std::fs::read_to_string(world.path("stray")).unwrap().is_empty() {
        std::thread::yield_now();
    }
    run.signal(Signal::KILL);
    run.end();
    wait_for_end(pid_in(&world.path("stray")));
}

#[test]
fn what_is_in_a_group_of_a_task_ends_with_a_killed_orchestrator_though_it_has_lost_its_parent() {
    let world = World::new(
        r#"
        [stage.a]
        run = "(env -i sh -c 'trap \"\" TERM; echo $$ > stray; sleep 1000; sleep 1000' &); echo ready; sleep 1000; sleep 1000"
        grace = "100ms"
        "#,
    );
    let mut run = world.start(&[]);
    run.wait_for("ready");
    wait_for(&world.path("stray"));
    while std::fs::read_to_string(world.path("stray")).unwrap().is_empty() {
        std::thread::yield_now();
    }
    run.signal(Signal::KILL);
    run.end();
    wait_for_end(pid_in(&world.path("stray")));
}

#[test]
fn who_looks_for_what_was_left_changes_no_record_and_takes_no_survivor_for_it() {
    let world = World::new("[stage.a]\nrun = 'echo $$ > pid; echo ready; until test -e gate; do sleep 0.05; done'\n");
    let mut run = world.start(&["--survive"]);
    run.wait_for("ready");
    let (task, id) = (pid_in(&world.path("pid")), world.show()["run"].as_str().unwrap().to_owned());
    run.signal(Signal::KILL);
    run.end();
    let db = rusqlite::Connection::open(world.path(".trainyard/state.db")).unwrap();
    let version = || db.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0)).unwrap();
    let current = version();
    for other in [1, current + 1] {
        db.pragma_update(None, "user_version", other).unwrap();
        let listed = world.command(&["devices", "--orphans", "--json"]).output().unwrap();
        assert!(!String::from_utf8_lossy(&listed.stdout).contains(&id));
        assert_eq!(version(), other);
    }
    db.pragma_update(None, "user_version", current).unwrap();
    std::fs::write(world.path("gate"), "").unwrap();
    wait_for_end(task);
}
