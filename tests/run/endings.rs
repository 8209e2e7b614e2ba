//! How attempts end, and what becomes of a run then.

use crate::world::{World, of, outcomes, state};

#[test]
fn a_run_that_succeeds_exits_0_and_is_recorded() {
    let world = World::new("[stage.a]\nrun = \"echo hi > a.txt\"\noutputs = [\"a.txt\"]\n");
    let (code, run) = world.run_and_show(&[]);
    assert_eq!((code, run["state"].as_str()), (0, Some("succeeded")));
    assert_eq!(outcomes(&run, "a"), ["succeeded"]);
    assert_eq!(of(&run, "a")["attempts"][0]["devices"], serde_json::json!([]));
}

#[test]
fn an_output_that_a_successful_stage_did_not_make_fails_it_by_name() {
    let world = World::new("[stage.a]\nrun = \"true\"\noutputs = [\"work/a.txt\", \"work/b.txt\"]\n");
    let output = world.run(&[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("did not write `work/a.txt`, `work/b.txt`"), "{said}");
    assert_eq!(outcomes(&world.show(), "a"), ["output-missing"]);
}

#[test]
fn a_program_that_does_not_exist_is_named_and_not_tried_again() {
    let world = World::new("[stage.a]\nrun = [\"no-such-program\", \"x\"]\nretries = 3\n");
    let output = world.run(&[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("no-such-program"), "{said}");
    assert_eq!(outcomes(&world.show(), "a"), ["spawn-failed"]);
}

#[test]
fn a_folder_that_does_not_exist_is_named() {
    let world = World::new(
        "[stage.a]\nrun = \"rmdir nowhere\"\n[stage.b]\nrun = \"true\"\ncwd = \"nowhere\"\nafter = [\"a\"]\n",
    );
    let output = world.run(&[]);
    assert_eq!(output.status.code(), Some(3), "before anything starts");
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no folder `nowhere`, and no stage writes it"));
    std::fs::create_dir(world.path("nowhere")).unwrap();
    let output = world.run(&[]);
    assert_eq!(output.status.code(), Some(1), "gone when it starts");
    assert!(String::from_utf8_lossy(&output.stderr).contains("nowhere"));
}

#[test]
fn events_that_cannot_be_written_are_a_failure_of_the_command_but_not_of_the_run() {
    let world = World::new("[stage.a]\nrun = \"echo made > a\"\noutputs = [\"a\"]\n");
    // The second run has nothing to do, which is told in another way.
    for _ in 0..2 {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = world.command(&["run", "p.toml", "--json"]).stdout(full).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(70), "{said}");
        assert!(said.contains("cannot write the output: No space left on device"), "{said}");
        assert_eq!(world.show()["state"], "succeeded");
    }
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = world.command(&["run", "p.toml", "--json", "--force", "--keep-free", "0"]).stdout(writer).output();
    assert_eq!(output.unwrap().status.code(), Some(0), "who has seen enough lost nothing");
}

#[test]
fn of_a_failed_task_that_printed_nothing_this_is_said() {
    let world = World::new("[stage.a]\nrun = \"echo heard\"\n[stage.b]\nrun = \"exit 3\"\nafter = [\"a\"]\n");
    let output = world.run(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(!String::from_utf8_lossy(&output.stdout).contains("its output:"), "there is none");
    let logs = world.command(&["logs"]).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&logs.stdout), String::from_utf8_lossy(&logs.stderr));
    assert_eq!((logs.status.code(), &*out, &*err), (Some(0), "", "b printed nothing\n"));
    let logs = world.command(&["logs", "latest", "a"]).output().unwrap();
    assert_eq!((&*logs.stdout, &*logs.stderr), (&b"heard\n"[..], &b""[..]));
}

#[test]
fn a_failed_stage_is_tried_again_as_often_as_said() {
    let world = World::new(
        "[stage.a]\nrun = \"echo $TRAINYARD_ATTEMPT; test $TRAINYARD_ATTEMPT = 3\"\nretries = 2\nbackoff = \"1ms\"\n",
    );
    let (code, run) = world.run_and_show(&[]);
    assert_eq!(code, 0);
    assert_eq!(outcomes(&run, "a"), ["exited:1", "exited:1", "succeeded"]);
}

#[test]
fn only_the_failures_that_a_stage_names_are_tried_again_with_its_checkpoint_kept() {
    let world = World::new(
        r#"
        [stage.a]
        run = """
        mkdir -p "$TRAINYARD_CHECKPOINT_DIR"; cd "$TRAINYARD_CHECKPOINT_DIR"; echo $TRAINYARD_ATTEMPT >> tries
        case $(wc -l < tries) in 1) exit 75;; 2) kill -9 $$;; 3) exit 4;; *) exit 0;; esac"""
        retry = { on = ["exit:75", "signal:9"], max = 5, backoff = "1ms" }
        "#,
    );
    let (code, run) = world.run_and_show(&[]);
    assert_eq!((code, outcomes(&run, "a")), (1, ["exited:75", "signalled:9", "exited:4"].map(str::to_owned).to_vec()));
    let run = run["run"].as_str().unwrap();
    let tries = std::fs::read_to_string(world.path(&format!(".trainyard/runs/{run}/checkpoints/a/tries"))).unwrap();
    assert_eq!(tries, "1\n2\n3\n");
}

#[test]
fn a_signal_is_an_ending_of_its_own() {
    let world = World::new("[stage.a]\nrun = \"kill -9 $$\"\n");
    let (code, run) = world.run_and_show(&[]);
    assert_eq!((code, outcomes(&run, "a")), (1, vec!["signalled:9".to_owned()]));
}

#[test]
fn running_out_of_memory_is_told_from_the_log() {
    let world = World::new(
        "[defaults]\noom_retries = 0\n\
         [stage.a]\nrun = \"echo \\\"DefaultCPUAllocator: can't allocate memory\\\" >&2; exit 1\"\n\
         [stage.b]\nrun = \"echo 'torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB' >&2; exit 1\"\n",
    );
    let (code, run) = world.run_and_show(&["--keep-going"]);
    assert_eq!((code, outcomes(&run, "a")), (1, vec!["out-of-memory".to_owned()]));
    assert_eq!(
        outcomes(&run, "b"),
        ["exited:1"],
        "it has no device of ours, and more memory of the host does not help"
    );
}

#[test]
fn an_output_that_is_a_link_out_of_the_project_fails_its_stage() {
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().canonicalize().unwrap().join("theirs");
    std::fs::write(&file, "theirs").unwrap();
    let folder = elsewhere.path().display();
    let line = format!("rm -r o; ln -s {folder} o");
    let world =
        World::new(&format!("[stage.a]\nrun = \"{line}\"\noutputs = [\"o/theirs\"]\nretries = 1\nbackoff = \"0s\"\n"));
    let output = world.run(&[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("`o/theirs` a link out of the project, to `{}`", file.display())), "{said}");
    assert_eq!(outcomes(&world.show(), "a"), ["output-missing"; 2]);
    assert_eq!(std::fs::read(&file).unwrap(), b"theirs", "what is not ours stays where it is");
}

#[test]
fn a_program_is_started_under_its_own_name() {
    let world = World::new("[stage.a]\nrun = [\"/bin/cat\", \"/proc/self/cmdline\"]\n");
    assert_eq!(world.run(&[]).status.code(), Some(0));
    let log = world.command(&["logs", "latest", "a"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&log.stdout), "/bin/cat\0/proc/self/cmdline\0");
}

#[test]
fn a_shell_line_starts_where_the_stages_path_leads_nowhere() {
    let world = World::new("[stage.a]\nrun = \"echo $PATH\"\nenv = { PATH = \"/nowhere\" }\n");
    let (code, run) = world.run_and_show(&[]);
    assert_eq!((code, outcomes(&run, "a")), (0, vec!["succeeded".to_owned()]));
}

#[test]
fn what_depends_on_a_failed_stage_is_skipped_and_the_rest_goes_on_if_asked() {
    let world = World::new(
        "[stage.bad]\nrun = \"exit 7\"\n[stage.after]\nrun = \"true\"\nafter = [\"bad\"]\n[stage.other]\nrun = \"true\"\n",
    );
    let (code, run) = world.run_and_show(&["--keep-going", "--jobs", "1"]);
    assert_eq!((code, run["state"].as_str()), (1, Some("failed")));
    assert_eq!((state(&run, "bad"), state(&run, "after"), state(&run, "other")), ("failed", "skipped", "succeeded"));
}

#[test]
fn a_stage_that_leaves_a_daemon_behind_ends_with_it() {
    // The first daemon stays in the group, the second leaves it; both hold the output open.
    let world = World::new(
        "[stage.a]\nrun = \"sleep 1000 & echo $! > one; setsid sleep 1000 & echo $! > two; echo made both\"\n",
    );
    let (code, run) = world.run_and_show(&[]);
    assert_eq!((code, outcomes(&run, "a")), (0, vec!["succeeded".to_owned()]));
    for file in ["one", "two"] {
        crate::world::wait_for_end(crate::world::pid_in(&world.path(file)));
    }
}

#[test]
fn a_daemon_that_hid_from_its_stage_ends_with_the_run() {
    let world = World::new("[stage.a]\nrun = \"setsid sleep 1000 >/dev/null 2>&1 </dev/null & echo $! > hidden\"\n");
    assert_eq!(world.run(&[]).status.code(), Some(0));
    crate::world::wait_for_end(crate::world::pid_in(&world.path("hidden")));
}

#[test]
fn two_runs_on_one_state_folder_do_not_meet() {
    let world = World::new("[stage.a]\nrun = \"echo hello from $TRAINYARD_RUN\"\n");
    let runs: Vec<_> = (0..2).map(|_| world.command(&["run", "p.toml", "--quiet"]).spawn().unwrap()).collect();
    for mut run in runs {
        assert_eq!(run.wait().unwrap().code(), Some(0));
    }
    let listed = world.command(&["runs", "--json"]).output().unwrap();
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    let ids: Vec<&str> = listed.as_array().unwrap().iter().map(|run| run["run"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 2);
    for id in ids {
        let log = world.command(&["logs", id, "a"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&log.stdout), format!("hello from {id}\n"));
    }
}

#[test]
fn a_gpu_stage_on_a_machine_without_one_is_refused_before_anything_starts() {
    let world = World::new(
        "[stage.a]\nrun = \"touch started\"\n[stage.b]\nrun = \"true\"\nafter = [\"a\"]\nresources = { gpu_memory = \"1GiB\" }\n",
    );
    let output = world.command(&["run", "p.toml"]).env("TRAINYARD_NVML", "no-such-library").output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!world.path("started").exists());
}

#[test]
fn a_gpu_stage_that_only_prefers_one_runs_on_the_cpu_and_says_so() {
    let world = World::new(
        "[stage.a]\nrun = \"echo devices:$CUDA_VISIBLE_DEVICES.\"\nresources = { gpus = \"prefer\", gpu_memory = \"1GiB\" }\n",
    );
    let output = world.command(&["run", "p.toml"]).env("TRAINYARD_NVML", "no-such-library").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("no-such-library") && said.contains("CPU"), "{said}");
    let mut quiet = world.command(&["run", "p.toml", "--quiet", "--force"]);
    let quiet = quiet.env("TRAINYARD_NVML", "no-such-library").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&quiet.stderr).lines().count(), 1, "only how it ended");
    let log = world.command(&["logs", "latest", "a"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&log.stdout), "devices:.\n");
}

#[test]
fn of_a_failed_task_that_prints_an_endless_line_a_few_rows_are_shown() {
    let world = World::new("[stage.train]\nrun = \"head -c 300000 /dev/zero | tr '\\\\0' x; echo; exit 3\"");
    let output = world.run(&[]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("xxx…xxx") && said.lines().all(|line| line.chars().count() < 300), "{said}");
}
