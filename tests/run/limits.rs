//! Time-outs, floods and full disks.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use crate::scarce::Limited;
use crate::world::{World, outcomes, told, wait_for, wait_until};

#[test]
fn an_attempt_that_takes_too_long_is_ended() {
    let world = World::new("[stage.a]\nrun = \"sleep 1000\"\ntimeout = \"50ms\"\n");
    let (code, run) = world.run_and_show(&[]);
    assert_eq!((code, outcomes(&run, "a")), (1, vec!["timed-out".to_owned()]));
}

#[test]
fn an_attempt_that_falls_silent_is_ended() {
    let world = World::new("[stage.a]\nrun = \"echo once; sleep 1000\"\nidle_timeout = \"100ms\"\n");
    assert_eq!(outcomes(&world.run_and_show(&[]).1, "a"), ["timed-out"]);
}

#[test]
fn an_attempt_that_never_prints_is_ended() {
    let world = World::new("[stage.a]\nrun = \"sleep 1000\"\nfirst_output_timeout = \"50ms\"\n");
    assert_eq!(outcomes(&world.run_and_show(&[]).1, "a"), ["timed-out"]);
}

#[test]
fn a_stage_that_ignores_sigterm_is_killed_after_the_grace() {
    let world = World::new(
        "[stage.a]\nrun = \"trap '' TERM; echo deaf; while :; do sleep 1000; done\"\ntimeout = \"100ms\"\ngrace = \"100ms\"\n",
    );
    assert_eq!(outcomes(&world.run_and_show(&[]).1, "a"), ["timed-out"]);
}

#[test]
fn a_flood_of_output_stays_in_bounded_memory() {
    const FLOOD: u64 = 1 << 30;
    let world = World::new(&format!("[stage.a]\nrun = \"head -c {FLOOD} /dev/zero\"\n"));
    // 64 MiB of address space for data: what does not stream through does not fit.
    let script = format!("ulimit -d 65536; exec {} run p.toml --quiet", env!("CARGO_BIN_EXE_trainyard"));
    let output = std::process::Command::new("sh")
        .args(["-c", &script])
        .current_dir(world.path(""))
        .env("TRAINYARD_BOX", world.path("").join(".box"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let run = world.show();
    let log = run["tasks"][0]["attempts"][0]["log"].as_str().unwrap();
    let log = std::fs::metadata(log).unwrap();
    // The middle is a hole, or was left out where the file system has none.
    assert!(log.len() == FLOOD || log.len() < 300 << 20, "{}", log.len());
    assert!(std::os::unix::fs::MetadataExt::blocks(&log) * 512 < 300 << 20);
}

#[test]
fn a_long_log_keeps_its_beginning_and_its_end() {
    let world =
        World::new("[stage.a]\nrun = \"echo begin; seq 1 100000; echo end\"\nlog_limit = \"64KiB\"\nretries = 0\n");
    for survive in [&[][..], &["--survive"]] {
        let (code, _) = world.run_and_show(survive);
        let log = String::from_utf8(world.command(&["logs", "latest", "a"]).output().unwrap().stdout).unwrap();
        assert_eq!(code, 0);
        assert!(log.starts_with("begin\n1\n2\n") && log.ends_with("\n99999\n100000\nend\n"), "{}", log.len());
        assert!(log.contains("left out") && log.len() < 80 << 10, "{}", log.len());
    }
}

#[test]
fn a_full_disk_cuts_the_log_short_and_the_stage_goes_on() {
    // Before it prints, the stage makes a device that is always full of what will be its log.
    let log = ".trainyard/runs/$TRAINYARD_RUN/logs/a.1.log";
    let world = World::new(&format!(
        "[stage.a]\nrun = \"ln -s /dev/full {log}; echo one; echo two; echo done > result\"\noutputs = [\"result\"]\n"
    ));
    for args in [&["--force"][..], &["--force", "--survive"]] {
        let output = world.run(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(said.contains("the log is cut short") && said.contains("No space left"), "{said}");
        let run = world.show();
        assert_eq!(outcomes(&run, "a"), ["succeeded"]);
        // On a real disk there would be an empty file.
        let log = world.path(&format!(".trainyard/runs/{}/logs/a.1.log", run["run"].as_str().unwrap()));
        std::fs::remove_file(&log).unwrap();
        std::fs::write(&log, "").unwrap();
        for command in [&["show"][..], &["logs", "a"]] {
            let said = told(&world.command(command).output().unwrap());
            assert!(said.contains("a, attempt 1: the log is cut short: the disk was full"), "{command:?}: {said}");
            assert!(!said.contains("printed nothing"), "{said}");
        }
    }
}

#[test]
fn a_limit_on_the_size_of_files_cuts_the_log_short_and_the_stage_goes_on() {
    let world =
        World::new("[stage.a]\nrun = \"head -c 3000000 /dev/zero; echo done > result\"\noutputs = [\"result\"]\n");
    let script = format!("ulimit -f 2000; exec {} run p.toml --quiet", env!("CARGO_BIN_EXE_trainyard"));
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", &script])
        .current_dir(world.path(""))
        .env("TRAINYARD_BOX", world.path("").join(".box"))
        .env_remove("RUST_LOG");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("the log is cut short: File too large"), "{said}");
}

#[test]
fn a_record_that_is_removed_while_the_run_goes_on_ends_it_with_a_word() {
    let world = World::new("[stage.a]\nrun = \"rm -rf .trainyard\"\n[stage.b]\nrun = \"touch b\"\nafter = [\"a\"]\n");
    let output = world.run(&[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(70), "{said}");
    assert!(said.contains("was removed or replaced while the run went on"), "{said}");
    assert!(!world.path("b").exists());
}

#[test]
fn where_few_files_may_be_open_fewer_tasks_run_at_once() {
    let stages: String =
        (0..40).map(|n| format!("[stage.t{n}]\nrun = \"true\"\nresources = {{ cpus = 0 }}\n")).collect();
    let world = World::new(&stages);
    let run = |limit: &str| {
        let script = format!("{limit}; exec {} run p.toml --quiet", env!("CARGO_BIN_EXE_trainyard"));
        let mut command = std::process::Command::new("sh");
        command
            .args(["-c", &script])
            .current_dir(world.path(""))
            .env("TRAINYARD_BOX", world.path("").join(".box"))
            .env_remove("RUST_LOG");
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = run("ulimit -n 100");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("at most 9 tasks at once, since this process may have 100 files open"), "{said}");
    let (code, said) = run("ulimit -S -n 100");
    assert_eq!((code, said.contains("at most")), (Some(0), false), "the limit is raised: {said}");
    let (code, said) = run("ulimit -n 66");
    assert_eq!(code, Some(70), "{said}");
    assert!(said.contains("no task can be started"), "{said}");
    let runs = world.path(".trainyard/runs").read_dir().unwrap().count();
    assert_eq!(runs, 2, "nothing is recorded of it");
}

#[test]
fn nothing_is_started_while_the_disk_has_too_little_room() {
    let world = World::new("[stage.a]\nrun = \"touch started\"\n");
    let left = world.path(".trainyard/runs/old/aside/a.1");
    std::fs::create_dir_all(&left).unwrap();
    std::fs::write(left.join("half"), vec![1; 3 << 20]).unwrap();
    let mut run = world.start(&["--keep-free", "1000000TiB"]);
    let said = run.wait_for("nothing new is started");
    let frees = "/runs/old/aside/a.1` frees 3.0 MiB";
    assert!(said.contains(frees), "{said}");
    let explained = || told(&world.command(&["explain", "a"]).output().unwrap()).replace(' ', "");
    wait_until(|| explained().contains(&frees.replace(' ', "")));
    assert!(said.contains("are kept free"), "{said}");
    assert!(run.seen()[0].contains("1 task, planned"), "the run is named first: {:#?}", run.seen());
    let explain = || String::from_utf8(world.command(&["explain", "a"]).output().unwrap().stdout).unwrap();
    wait_until(|| explain().contains("nothing new is started: ") && explain().contains("are kept free"));
    run.signal(rustix::process::Signal::INT);
    assert_eq!(run.end(), Some(130));
    assert!(!world.path("started").exists());
    assert_eq!(world.run(&["--keep-free", "0B"]).status.code(), Some(0));
}

#[test]
fn a_record_that_somebody_else_has_locked_is_waited_for() {
    let world = World::new(
        r#"
[stage.short]
run = "echo ready; until test -e gate; do sleep 0.05; done"
[stage.long]
run = "touch going; until test -e last; do sleep 0.05; done; echo $TRAINYARD_ATTEMPT >> done"
[stage.next]
run = "echo $TRAINYARD_ATTEMPT >> next"
after = ["short"]
"#,
    );
    let mut run = world.start(&[]);
    run.wait_for("ready");
    wait_for(&world.path("going"));
    let lock = rusqlite::Connection::open(world.path(".trainyard/state.db")).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    std::fs::write(world.path("gate"), "").unwrap();
    run.wait_for("another process has locked the record");
    std::fs::write(world.path("last"), "").unwrap();
    while !world.path("done").exists() {
        std::thread::yield_now();
    }
    assert!(!world.path("next").exists(), "nothing starts that is not on record");
    lock.execute_batch("ROLLBACK").unwrap();
    assert_eq!(run.end(), Some(0));
    for file in ["done", "next"] {
        assert_eq!(std::fs::read_to_string(world.path(file)).unwrap(), "1\n", "{file}");
    }
}

/// Runs a script in the world's folder, with the binary as `$0` and mounts of its own; `None` where the system does not let us
/// have them: the script says so by 77.
fn with_own_mounts(world: &World, script: &str) -> Option<Output> {
    let mut command = std::process::Command::new("unshare");
    command
        .args(["-rm", "sh", "-c", script, env!("CARGO_BIN_EXE_trainyard")])
        .current_dir(world.path(""))
        .env("TRAINYARD_BOX", world.path("").join(".box"));
    let output = command.env("HOME", world.path("")).env_remove("RUST_LOG").output().ok()?;
    (!matches!(output.status.code(), Some(1 | 77))).then_some(output)
}

#[test]
fn a_copy_for_the_cache_leaves_free_what_is_kept_free() {
    let world = World::new(
        "[stage.a]\nrun = \"head -c 40M /dev/zero > a.bin\"\noutputs = [\"a.bin\"]\n\
         [stage.b]\nrun = \"mkdir d; for n in 1 2 3; do head -c 5M /dev/zero > d/$n; echo $n >> d/$n; done\"\n\
         outputs = [\"d\"]\nafter = [\"a\"]\n",
    );
    // A small disk of its own, where the system lets us have one.
    let script = "mkdir disk && mount -t tmpfs -o size=64m none disk || exit 77; cp p.toml disk && cd disk || exit 78
                  \"$0\" run p.toml || exit 79; \"$0\" run p.toml || exit 80";
    let Some(output) = with_own_mounts(&world, script) else { return };
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("`a.bin`: 40.0 MiB are needed, and only "), "{said}");
    assert_eq!(said.matches(" are needed, and only ").count(), 2, "{said}");
    assert!(said.contains("nothing to do"), "{said}");
}

#[test]
fn a_task_that_is_to_survive_waits_for_room_for_its_record() {
    let world = World::new(
        "[stage.a]\nrun = \"echo a > begun; until test -e gate; do sleep 0.02; done\"\n\
         [stage.b]\nrun = \"echo b >> done\"\nafter = [\"a\"]\nmatrix = { n = [1, 2, 3, 4, 5, 6, 7, 8] }\n\
         resources = { cpus = 0.1 }\n",
    );
    // A small disk of its own for the state, where the system lets us have one; it is full when the others begin.
    let script = r#"
        mkdir st && mount -t tmpfs -o size=8m none st || exit 77
        "$0" run p.toml --survive --state st --keep-free 0 --mirror > told 2>&1 & until test -s begun; do sleep 0.02; done
        cat /dev/zero > st/fill 2> /dev/null
        touch gate
        until grep -q 'cannot be started yet' told; do kill -0 $! || { cat told; exit 79; }; sleep 0.02; done
        rm st/fill
        wait $! || { cat told; exit 80; }
        grep -q '"began"' st/runs/*/attempts/b*.json || { cat st/runs/*/attempts/*; exit 81; }"#;
    let Some(output) = with_own_mounts(&world, script) else { return };
    assert!(output.status.success(), "{:?}: {}", output.status, String::from_utf8_lossy(&output.stdout));
    assert_eq!(std::fs::read_to_string(world.path("done")).unwrap(), "b\n".repeat(8));
}

#[test]
fn what_ends_on_a_full_disk_is_up_to_date() {
    let world = World::new(
        "[stage.a]\nrun = \"echo > begun-{matrix.n}; until test -e gate; do sleep 0.02; done; echo a > {outputs}\"\n\
         outputs = [\"out/{matrix.n}\"]\nmatrix = { n = [1, 2, 3] }\nresources = { cpus = 0.1 }\n",
    );
    let script = r#"
        mkdir st && mount -t tmpfs -o size=8m none st || exit 77
        "$0" run p.toml --state st --keep-free 256KiB > told 2>&1 &
        until test -e begun-1 -a -e begun-2 -a -e begun-3; do sleep 0.02; done
        cat /dev/zero > st/fill 2> /dev/null
        touch gate
        wait $! || { cat told; exit 79; }
        rm st/fill
        "$0" run p.toml --state st"#;
    let Some(output) = with_own_mounts(&world, script) else { return };
    let said = String::from_utf8_lossy(&output.stdout);
    let told = std::fs::read_to_string(world.path("told")).unwrap();
    assert!(output.status.success() && said.contains("nothing to do"), "{:?}: {said}, {told}", output.status);
}

#[test]
fn where_nothing_can_be_written_another_state_folder_is_named() {
    let (Some(limited), Some(elsewhere)) = (Limited::new("[stage.a]\nrun = \"true\"\n"), Limited::new("")) else {
        return;
    };
    let folder = limited.world.path("");
    let mode = |mode| std::fs::set_permissions(&folder, Permissions::from_mode(mode)).unwrap();
    mode(0o555);
    let refused = limited.command(&["run", "p.toml"]).output().unwrap();
    let said = told(&refused);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("cannot be written") && said.contains("--state DIR"), "{said}");
    let other = elsewhere.world.path("state");
    let state = limited.command(&["run", "p.toml", "--state", other.to_str().unwrap()]).output().unwrap();
    mode(0o755);
    assert_eq!(state.status.code(), Some(0), "{}", String::from_utf8_lossy(&state.stderr));
    std::fs::set_permissions(&other, Permissions::from_mode(0o555)).unwrap();
    for what in ["gc", "verify"] {
        let refused = limited.command(&["cache", what, "--state", other.to_str().unwrap()]).output().unwrap();
        let said = told(&refused);
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains("cannot be written") && said.contains("--state DIR"), "{said}");
    }
    std::fs::set_permissions(&other, Permissions::from_mode(0o755)).unwrap();
}
