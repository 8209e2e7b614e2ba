//! What tasks have left that went on while nobody was there: another run may find it in its way.

use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;
use serde_json::Value;
use trainyard::probe::clock;

use crate::survive::{MAKE, MAKING, done, go_on, killed, made_by, making, once_more, resume};
use crate::world::{World, outcomes, parent, pid_in, told, wait_for, wait_for_end, wait_until};

/// Another pipeline, whose output is in the same place.
const OTHER: &str = "[stage.other]\nrun = \"echo other >> done; echo other > out\"\noutputs = [\"out\"]\n";

/// Waits until the clock of the file system, which goes in steps, is past what it is now.
fn wait_for_the_next_tick() {
    let now = clock::now();
    wait_until(|| clock::now().0 > now.0 + 50);
}

fn ids(world: &World) -> Vec<String> {
    let runs: Value = serde_json::from_slice(&world.command(&["runs", "--json"]).output().unwrap().stdout).unwrap();
    runs.as_array().unwrap().iter().map(|run| run["run"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_result_that_is_in_the_way_of_another_pipeline_is_kept_first() {
    // In the same folder, also by another name, and in a folder of its own.
    for (other, output, of) in
        [("q.toml", "out", "out"), ("q.toml", "out", "alias/out"), ("sub/q.toml", "sub/out", "out")]
    {
        let world = made_by(&MAKE.replace("> out", &format!("> {output}")));
        let stages = MAKING.replace("\"out\"", &format!("\"{output}\"")).replace("cat out", &format!("cat {output}"));
        std::fs::write(world.path("p.toml"), stages).unwrap();
        std::fs::create_dir(world.path("sub")).unwrap();
        std::os::unix::fs::symlink(".", world.path("alias")).unwrap();
        let done_file = world.path("done");
        let stages = OTHER.replace("> out", &format!("> {of}")).replace("\"out\"", &format!("\"{of}\""));
        std::fs::write(world.path(other), stages.replace(">> done", &format!(">> {}", done_file.display()))).unwrap();
        let sentinel = killed(&world, &[]);
        go_on(&world, "gate", "0");
        wait_for_end(sentinel);
        let run = world.command(&["run", other, "--state", ".trainyard"]).output().unwrap();
        let said = told(&run);
        assert!(run.status.success() && !said.contains("no run is known"), "{said}");
        let first = ids(&world).pop().unwrap();
        assert_eq!(resume(&world, &[&first]).0, Some(0));
        assert_eq!(done(&world), "second\nother\nthird\n");
        assert_eq!(std::fs::read_to_string(world.path(output)).unwrap(), "one");
    }
}

#[test]
fn a_result_of_a_command_that_is_another_now_comes_back_with_the_command() {
    let (world, sentinel) = making();
    go_on(&world, "gate", "0");
    wait_for_end(sentinel);
    std::fs::write(world.path("p.toml"), MAKING.replace("exec sh ./make", "echo edited >> done; echo 2 > out"))
        .unwrap();
    assert!(world.run(&[]).status.success());
    std::fs::write(world.path("p.toml"), MAKING).unwrap();
    let first = ids(&world).pop().unwrap();
    assert_eq!(resume(&world, &[&first]).0, Some(0));
    let (states, done) = once_more(&world);
    assert_eq!((states, done.matches("second").count()), (["cached", "succeeded"].map(str::to_owned), 1), "{done}");
}

#[test]
fn a_file_of_its_command_that_a_task_has_made_alone_counts_only_once_it_is_edited() {
    for is_edited in [false, true] {
        for is_resumed in [false, true] {
            // What failed before has left it as well, for the one that goes on.
            let make = format!("test -e again || {{ echo first > $1; touch again; exit 3; }}; {MAKE}");
            let world = made_by(&make.replace("echo second", "date +%N > $1; echo second"));
            let stages = MAKING.replace("sh ./make\"", "sh ./make own\"\nretries = 1");
            std::fs::write(world.path("p.toml"), stages).unwrap();
            let sentinel = killed(&world, &[]);
            go_on(&world, "gate", "0");
            wait_for_end(sentinel);
            wait_for_the_next_tick();
            if is_edited {
                std::fs::write(world.path("own"), "mine").unwrap();
            }
            let planned = told(&world.command(&["run", "p.toml", "--dry-run"]).output().unwrap());
            assert!(planned.contains(if is_edited { "2 will run" } else { "1 cached" }), "{planned}");
            if is_resumed {
                assert_eq!(resume(&world, &[]).0, Some(0));
                assert_eq!(outcomes(&world.show(), "second"), ["exited:3", "succeeded"]);
            }
            let (states, done) = once_more(&world);
            let second = if is_edited { "succeeded" } else { "cached" };
            let times = if is_edited { 2 } else { 1 };
            assert_eq!((states[0].as_str(), done.matches("second").count()), (second, times), "{is_resumed}: {done}");
        }
    }
}

#[test]
fn what_a_task_has_made_alone_of_a_file_that_a_failed_attempt_left_is_not_made_again() {
    let make = format!("test -e own || {{ echo first > own; exit 3; }}; {MAKE}");
    let world = made_by(&make.replace("cat in", "cat in own"));
    std::fs::write(world.path("p.toml"), MAKING.replace("sh ./make\"", "sh ./make own\"\nretries = 1")).unwrap();
    let sentinel = killed(&world, &[]);
    go_on(&world, "gate", "0");
    wait_for_end(sentinel);
    assert_eq!(once_more(&world), (["cached", "succeeded"].map(str::to_owned), "second\nthird\n".to_owned()));
    std::fs::write(world.path("own"), "mine").unwrap();
    assert_eq!(once_more(&world).0[0], "succeeded");
    assert_eq!(std::fs::read_to_string(world.path("out")).unwrap(), "onemine");
}

#[test]
fn another_name_or_permission_is_no_change_of_what_was_made() {
    let hard_link = |world: &World| std::fs::hard_link(world.path("out"), world.path("backup")).unwrap();
    let closed = |world: &World| {
        std::fs::set_permissions(world.path("out"), PermissionsExt::from_mode(0o600)).unwrap();
    };
    for (is_resumed, change) in [(true, &hard_link as &dyn Fn(&World)), (false, &hard_link), (true, &closed)] {
        let (world, sentinel) = making();
        go_on(&world, "gate", "0");
        wait_for_end(sentinel);
        wait_for_the_next_tick();
        change(&world);
        if is_resumed {
            assert_eq!(resume(&world, &[]).0, Some(0));
            assert_eq!(outcomes(&world.show(), "second"), ["succeeded"]);
        } else {
            assert_eq!(once_more(&world).0, ["cached", "succeeded"].map(str::to_owned));
        }
        assert_eq!(done(&world), "second\nthird\n");
    }
}

#[test]
fn why_a_result_is_made_again_is_said() {
    for is_resumed in [true, false] {
        let (world, sentinel) = making();
        go_on(&world, "gate", "0");
        wait_for_end(sentinel);
        wait_for_the_next_tick();
        std::fs::write(world.path("out"), "mine").unwrap();
        let planned = told(&world.command(&["run", "p.toml", "--dry-run"]).output().unwrap());
        assert!(planned.contains("`out` was changed or removed before anybody could keep it"), "{planned}");
        let again = if is_resumed { world.command(&["resume"]).output().unwrap() } else { world.run(&[]) };
        let said = told(&again);
        assert!(said.contains("`out` was changed or removed before anybody could keep it"), "{said}");
        assert_eq!((again.status.code(), done(&world).as_str()), (Some(0), "second\nsecond\nthird\n"));
    }
}

#[test]
fn a_forced_run_waits_for_what_goes_on_and_what_it_makes_stays() {
    let world = made_by(&MAKE.replace("cat in > out", "echo $TRAINYARD_RUN > out"));
    let sentinel = killed(&world, &[]);
    let first = world.show()["run"].as_str().unwrap().to_owned();
    let mut forced = world.start(&["--force"]);
    forced.wait_for("writes out");
    go_on(&world, "gate", "0");
    assert_eq!(forced.end(), Some(0));
    wait_for_end(sentinel);
    let made = std::fs::read_to_string(world.path("out")).unwrap();
    assert!(!made.contains(&first), "{made}");
    assert_eq!(resume(&world, &[&first]).0, Some(0));
    assert_eq!(std::fs::read_to_string(world.path("out")).unwrap(), made, "the newer result stays");
    assert_eq!(done(&world).matches("second").count(), 2);
    assert_eq!(once_more(&world).0[0], "cached");
    assert_eq!(std::fs::read_to_string(world.path("out")).unwrap(), made);
}

#[test]
fn what_a_forced_task_makes_alone_takes_the_place_of_what_was_known() {
    let make = "echo second >> done; cat count > out; echo ready; until test -e gate; do sleep 0.05; done; exit 0";
    let world = made_by(&format!("echo $$ > pid; {make}"));
    std::fs::write(world.path("count"), "1").unwrap();
    go_on(&world, "gate", "0");
    assert!(world.run(&[]).status.success());
    std::fs::remove_file(world.path("gate")).unwrap();
    std::fs::write(world.path("count"), "2").unwrap();
    let sentinel = killed(&world, &["--force"]);
    go_on(&world, "gate", "0");
    wait_for_end(sentinel);
    let (states, _) = once_more(&world);
    assert_eq!((states[0].as_str(), std::fs::read_to_string(world.path("out")).unwrap().as_str()), ("cached", "2"));
}

#[test]
fn a_log_that_a_full_disk_has_cut_is_told_before_anybody_resumes() {
    // What will be its log is a device that is always full.
    let log = ".trainyard/runs/$TRAINYARD_RUN/logs/a.1.log";
    let world = World::new(&format!(
        "[stage.a]\nrun = \"ln -s /dev/full {log}; echo $$ > pid; touch ready; until test -e gate; do sleep 0.05; done; echo one\"\n"
    ));
    let run = world.start(&["--survive"]);
    wait_for(&world.path("ready"));
    run.signal(Signal::KILL);
    run.end();
    let sentinel = parent(pid_in(&world.path("pid"))).unwrap();
    go_on(&world, "gate", "");
    wait_for_end(sentinel);
    let log = world.path(".trainyard/runs").join(world.show()["run"].as_str().unwrap()).join("logs/a.1.log");
    std::fs::remove_file(&log).unwrap();
    std::fs::write(&log, "").unwrap();
    for command in [&["show"][..], &["logs", "a"], &["logs", "a", "-f"]] {
        let said = told(&world.command(command).output().unwrap());
        assert!(said.contains("a, attempt 1: the log is cut short: the disk was full"), "{command:?}: {said}");
        assert!(!said.contains("printed nothing"), "{said}");
    }
}
