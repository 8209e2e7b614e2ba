//! What is up to date is left out, and nothing else is: every test looks at what really ran.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Output;

use rustix::process::Signal;
use serde_json::Value;

use crate::world::{Started, World, outcomes, state};

/// Stages that write down that they ran. `count` makes the same of different data with as many lines.
const CHAIN: &str = r#"
[stage.clean]
run = "echo clean >> ran; sort < raw.csv > work/clean.csv"
inputs = ["raw.csv"]
outputs = ["work/clean.csv"]
[stage.count]
run = "echo count >> ran; sh count.sh work/clean.csv > work/count"
inputs = ["work/clean.csv"]
outputs = ["work/count"]
[stage.report]
run = "echo report >> ran; echo $TITLE; cat work/count > report.txt"
inputs = ["work/count"]
outputs = ["report.txt"]
env = { TITLE = "lines" }
"#;

fn chain() -> World {
    let world = World::new(CHAIN);
    std::fs::write(world.path("raw.csv"), "b\na\n").unwrap();
    std::fs::write(world.path("count.sh"), "wc -l < $1\n").unwrap();
    world
}

/// Runs, and returns which stages ran.
fn ran(world: &World, args: &[&str]) -> Vec<String> {
    let _ = std::fs::remove_file(world.path("ran"));
    let output = world.run(args);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    stages_that_ran(world)
}

fn stages_that_ran(world: &World) -> Vec<String> {
    let ran = std::fs::read_to_string(world.path("ran")).unwrap_or_default();
    ran.lines().map(str::to_owned).collect()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn dry(world: &World, args: &[&str]) -> String {
    let output = world.run(&[&["--dry-run"], args].concat());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn change(world: &World, from: &str, to: &str) {
    let text = std::fs::read_to_string(world.path("p.toml")).unwrap();
    assert!(text.contains(from));
    std::fs::write(world.path("p.toml"), text.replace(from, to)).unwrap();
}

/// Returns all files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

fn objects(world: &World) -> Vec<PathBuf> {
    files(&world.path(".trainyard/cache/objects"))
}

/// Returns the files that were moved aside, behind the folder of their run.
fn aside(world: &World) -> Vec<String> {
    let runs = world.path(".trainyard/runs");
    let aside = files(&runs).into_iter().filter_map(|path| {
        let path = path.strip_prefix(&runs).unwrap().to_str().unwrap().to_owned();
        path.split_once("/aside/").map(|(_, path)| path.to_owned())
    });
    aside.collect()
}

#[test]
fn a_second_run_does_nothing_and_says_so() {
    let world = chain();
    assert_eq!(ran(&world, &[]), ["clean", "count", "report"]);
    let before = std::fs::metadata(world.path("report.txt")).unwrap().modified().unwrap();
    let output = world.run(&[]);
    assert_eq!(output.status.code(), Some(0));
    // What the last stage printed is the answer, this time too.
    assert_eq!(said(&output), "lines\n\nnothing to do: all 3 tasks are up to date\n");
    assert_eq!(stages_that_ran(&world).len(), 3);
    assert_eq!(std::fs::metadata(world.path("report.txt")).unwrap().modified().unwrap(), before);
    let logs = world.command(&["logs", "latest", "report"]).output().unwrap();
    assert_eq!(said(&logs), "lines\n");
    let run = world.show();
    assert_eq!((run["state"].as_str(), state(&run, "count")), (Some("succeeded"), "cached"));
    assert!(outcomes(&run, "count").is_empty());

    let output = world.run(&["--json"]);
    let events: Vec<Value> =
        String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["run-started", "task-cached", "task-cached", "task-cached", "run-finished"]);
}

#[test]
fn an_input_that_is_touched_or_written_anew_with_the_same_content_rebuilds_nothing() {
    let world = chain();
    ran(&world, &[]);
    std::fs::write(world.path("new"), "b\na\n").unwrap();
    std::fs::rename(world.path("new"), world.path("raw.csv")).unwrap();
    assert!(ran(&world, &[]).is_empty());
}

#[test]
fn a_change_rebuilds_what_follows_only_as_far_as_it_makes_a_difference() {
    let world = chain();
    ran(&world, &[]);
    std::fs::write(world.path("raw.csv"), "b\nc\n").unwrap();
    assert_eq!(ran(&world, &[]), ["clean", "count"], "as many lines: the report is the same");
    std::fs::write(world.path("raw.csv"), "a\nb\nc\n").unwrap();
    assert_eq!(ran(&world, &[]), ["clean", "count", "report"]);
    std::fs::write(world.path("raw.csv"), "b\na\n").unwrap();
    assert!(ran(&world, &[]).is_empty(), "what was made of it before comes back");
    assert_eq!(std::fs::read_to_string(world.path("work/clean.csv")).unwrap(), "a\nb\n");
}

#[test]
fn a_changed_variable_or_command_rebuilds_its_stage() {
    let world = chain();
    ran(&world, &[]);
    change(&world, "\"lines\"", "\"rows\"");
    assert_eq!(ran(&world, &[]), ["report"]);
    change(&world, "sort < raw.csv", "sort -r < raw.csv");
    assert_eq!(ran(&world, &[]), ["clean", "count"]);
    change(&world, "sort -r < raw.csv", "sort < raw.csv");
    assert!(ran(&world, &[]).is_empty());
}

#[test]
fn an_edited_script_that_the_command_names_runs_again() {
    let world = chain();
    ran(&world, &[]);
    std::fs::write(world.path("count.sh"), "grep -c . $1\n").unwrap();
    assert!(dry(&world, &[]).contains("count   will run  `count.sh` changed"), "{}", dry(&world, &[]));
    assert_eq!(ran(&world, &[]), ["count"]);
}

#[test]
fn a_script_behind_another_shell_or_in_another_folder_counts_too() {
    for run in [
        "[\"sh\", \"-c\", \"sh top.sh > out\"]",
        "\"sh -c 'sh top.sh' > out\"",
        "\"cd sub && sh low.sh > ../out\"",
        "\"echo `sh top.sh` > out\"",
    ] {
        let world = World::new(&format!("[stage.a]\nrun = {run}\noutputs = [\"out\"]\n"));
        std::fs::create_dir(world.path("sub")).unwrap();
        let write = |text: &str| ["top.sh", "sub/low.sh"].map(|file| std::fs::write(world.path(file), text).unwrap());
        write("echo one\n");
        ran(&world, &[]);
        assert!(dry(&world, &[]).contains("1 cached"), "{run}");
        write("echo two\n");
        ran(&world, &[]);
        assert_eq!(std::fs::read_to_string(world.path("out")).unwrap(), "two\n", "{run}");
    }
}

#[test]
fn an_output_that_is_gone_or_was_changed_is_restored_without_running_anything() {
    let world = chain();
    ran(&world, &[]);
    std::fs::remove_dir_all(world.path("work")).unwrap();
    std::fs::write(world.path("report.txt"), "mine").unwrap();
    let told = dry(&world, &[]);
    assert!(told.contains("restores work/clean.csv") && told.contains("restores report.txt"), "{told}");
    assert!(!world.path("work").exists(), "a dry run changes nothing");
    assert!(ran(&world, &[]).is_empty());
    assert_eq!(std::fs::read_to_string(world.path("work/clean.csv")).unwrap(), "a\nb\n");
    assert_eq!(std::fs::read_to_string(world.path("report.txt")).unwrap().trim(), "2");
    assert_eq!(aside(&world), ["report.before/report.txt"], "what somebody wrote there is not lost");
}

#[test]
fn an_output_gets_the_permissions_back_that_it_was_made_with() {
    let world = World::new("[stage.a]\nrun = \"echo true > tool; chmod 755 tool\"\noutputs = [\"tool\"]\n");
    ran(&world, &[]);
    let tool = world.path("tool");
    let mode = || std::fs::metadata(&tool).unwrap().permissions().mode() & 0o777;
    // The second time nothing has to be looked up, and the third time there is no copy.
    for prepare in [&[][..], &["run", "p.toml"], &["cache", "gc", "--max-size", "0"]] {
        if !prepare.is_empty() {
            assert!(world.command(prepare).output().unwrap().status.success());
        }
        let inode = std::fs::metadata(&tool).unwrap().ino();
        std::fs::set_permissions(&tool, Permissions::from_mode(0o644)).unwrap();
        let output = world.run(&[]);
        assert!(said(&output).contains("restored tool"), "{prepare:?}: {}", said(&output));
        assert!(said(&output).contains("nothing to do"), "{prepare:?}: {}", said(&output));
        assert_eq!((mode(), std::fs::metadata(&tool).unwrap().ino()), (0o755, inode), "it is not written anew");
    }
}

#[test]
fn a_damaged_or_removed_object_is_made_again() {
    let world = chain();
    for damage in [true, false] {
        ran(&world, &[]);
        for object in objects(&world) {
            std::fs::remove_file(&object).unwrap();
            if damage {
                std::fs::write(&object, "????").unwrap();
            }
        }
        assert!(ran(&world, &[]).is_empty(), "the outputs themselves are in place");
        std::fs::remove_file(world.path("report.txt")).unwrap();
        assert_eq!(ran(&world, &[]), ["report"]);
        assert_eq!(std::fs::read_to_string(world.path("report.txt")).unwrap().trim(), "2");
        std::fs::remove_dir_all(world.path(".trainyard/cache")).unwrap();
    }
}

#[test]
fn a_lost_result_is_told_by_the_name_of_the_output() {
    let world = chain();
    ran(&world, &[]);
    for object in objects(&world) {
        // As long as before: that it holds something else shows only when it is read.
        let damaged = vec![b'?'; std::fs::read(&object).unwrap().len()];
        std::fs::remove_file(&object).unwrap();
        std::fs::write(&object, damaged).unwrap();
    }
    std::fs::remove_file(world.path("report.txt")).unwrap();
    let told = String::from_utf8_lossy(&world.run(&[]).stderr).into_owned();
    assert!(told.contains("`report.txt` was damaged in the cache; it is made again"), "{told}");
}

#[test]
fn verify_names_what_is_damaged_and_removes_it() {
    let world = chain();
    ran(&world, &[]);
    let verify = || world.command(&["cache", "verify"]).output().unwrap();
    let output = verify();
    assert_eq!((output.status.code(), said(&output).as_str()), (Some(0), "3 results, 2 files, 6 B: all whole\n"));
    let clean = objects(&world).into_iter().find(|object| std::fs::read(object).unwrap() == b"a\nb\n").unwrap();
    std::fs::remove_file(&clean).unwrap();
    std::fs::write(&clean, "a\nc\n").unwrap();
    let output = verify();
    assert_eq!(output.status.code(), Some(70));
    assert!(said(&output).contains("of work/clean.csv\n"), "{}", said(&output));
    assert!(!clean.exists());
    assert_eq!(verify().status.code(), Some(0));
}

#[test]
fn what_a_killed_process_has_left_half_copied_is_removed_by_the_next_run() {
    let world = chain();
    let left = world.path(".trainyard/cache/tmp/1-0/1");
    std::fs::create_dir_all(left.parent().unwrap()).unwrap();
    std::fs::write(&left, "half of a result").unwrap();
    ran(&world, &[]);
    assert!(!left.exists());
    assert!(files(&world.path(".trainyard/cache/tmp")).is_empty());
    std::fs::remove_file(world.path("report.txt")).unwrap();
    assert!(ran(&world, &[]).is_empty());
    let mut names = std::fs::read_dir(world.path("")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(!names.any(|name| name.to_string_lossy().contains("trainyard-")));
}

#[test]
fn what_only_shows_the_cache_leaves_what_is_damaged_to_verify() {
    let world = World::new("[stage.a]\nrun = \"mkdir d; echo x > d/x\"\noutputs = [\"d\"]\n");
    ran(&world, &[]);
    let list = objects(&world).into_iter().find(|object| std::fs::read(object).unwrap() != b"x\n").unwrap();
    std::fs::remove_file(&list).unwrap();
    std::fs::write(&list, "damaged").unwrap();
    for _ in 0..2 {
        let output = world.command(&["cache"]).output().unwrap();
        assert!(said(&output).starts_with("0 results, 2 files"), "{}", said(&output));
    }
    let output = world.command(&["cache", "verify"]).output().unwrap();
    assert_eq!(output.status.code(), Some(70), "{}", said(&output));
    assert!(said(&output).contains(" of d\n0 results, 2 files"), "{}", said(&output));
    assert!(!list.exists());
    let swept = said(&world.command(&["cache", "gc", "--max-size", "0"]).output().unwrap());
    assert!(swept.contains("left: 0 results, 0 files"), "{swept}");
}

#[test]
fn a_damaged_index_keeps_nothing_from_running_and_verify_mends_it() {
    let world = chain();
    ran(&world, &[]);
    let (index, aside) = (world.path(".trainyard/cache/index.db"), world.path(".trainyard/cache/index.db.damaged-1"));
    let whole = std::fs::read(&index).unwrap();
    for page in 1..whole.len() / 4_096 {
        let damage = || {
            let mut damaged = whole.clone();
            damaged[page * 4_096..][..4_096].fill(0);
            std::fs::write(&index, damaged).unwrap();
            let _ = std::fs::remove_file(&aside);
            let _ = std::fs::remove_dir_all(world.path(".trainyard/cache/standstill"));
        };
        damage();
        assert!(world.command(&["cache"]).output().unwrap().status.success());
        assert!(world.run(&["--dry-run"]).status.success());
        assert!(!aside.exists(), "what only shows moves nothing");
        ran(&world, &[]);
        let idle = said(&world.run(&[]));
        assert!(idle.contains("nothing to do"), "page {page}: {idle}");
        damage();
        let output = world.command(&["cache", "verify"]).output().unwrap();
        assert_eq!(output.status.code(), Some(70), "page {page}: {}", said(&output));
        assert!(said(&output).contains("index.db.damaged-1"), "{}", said(&output));
        assert!(aside.is_file());
        assert_eq!(world.command(&["cache", "verify"]).output().unwrap().status.code(), Some(0));
    }
}

#[test]
fn a_dry_run_refuses_what_a_run_would_refuse() {
    let world = World::new("[stage.a]\nrun = \"true\"\n[stage.b]\nrun = \"true\"\nresources = { licence = 1 }\n");
    let [dry, run] = [&["--dry-run"][..], &[]].map(|args| world.run(args));
    assert_eq!((dry.status.code(), run.status.code()), (Some(4), Some(4)), "{}", said(&dry));
    assert_eq!(String::from_utf8_lossy(&dry.stderr), String::from_utf8_lossy(&run.stderr));
    assert_eq!(String::from_utf8_lossy(&dry.stdout), "", "nothing will run");
}

#[test]
fn the_cache_is_kept_within_a_limit_the_oldest_first() {
    let world = World::new("[stage.a]\nrun = \"head -c 1000 in > a\"\ninputs = [\"in\"]\noutputs = [\"a\"]\n");
    for n in 0..5 {
        std::fs::write(world.path("in"), format!("{n}").repeat(2_000)).unwrap();
        ran(&world, &[]);
    }
    let cache = |args: &[&str]| {
        let output = world.command(&[&["cache"], args, &["--json"]].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    assert_eq!(cache(&[])["bytes"], 5_000);
    let swept = cache(&["gc", "--max-size", "2500B"]);
    assert_eq!((&swept["removed"]["files"], &swept["left"]["bytes"]), (&3.into(), &2_000.into()));
    assert_eq!(objects(&world).len(), 2);
    assert_eq!(cache(&["gc", "--max-size", "0B"])["left"]["bytes"], 0);
    assert!(dry(&world, &[]).contains("1 cached"), "what is in its place needs no copy");
    std::fs::remove_file(world.path("a")).unwrap();
    assert!(dry(&world, &[]).contains("`a` is gone, also from the cache"));
    ran(&world, &[]);
    assert_eq!(std::fs::read(world.path("a")).unwrap().len(), 1_000);
}

#[test]
fn a_killed_attempt_leaves_nothing_that_counts_as_a_result() {
    let world = World::new(
        r#"
[stage.a]
run = "echo a >> ran; echo half > out; echo ready; while ! test -e gate; do sleep 0.05; done; echo whole > out"
outputs = ["out"]
[stage.b]
run = "echo b >> ran; cat out > copy"
inputs = ["out"]
outputs = ["copy"]
"#,
    );
    let mut run = world.start(&[]);
    run.wait_for("ready");
    run.signal(Signal::KILL);
    run.end();
    std::fs::write(world.path("gate"), "").unwrap();
    assert_eq!(ran(&world, &[]), ["a", "b"]);
    assert_eq!(std::fs::read_to_string(world.path("copy")).unwrap(), "whole\n");
    assert_eq!(aside(&world), ["a.1.before/out"]);
    assert!(ran(&world, &[]).is_empty());
}

#[test]
fn what_a_failed_or_interrupted_attempt_left_is_moved_aside() {
    let world = World::new(
        "[stage.a]\nrun = \"echo half > out; echo $TRAINYARD_ATTEMPT; test $TRAINYARD_ATTEMPT = 3\"\noutputs = [\"out\"]\nretries = 1\nbackoff = \"1ms\"\n",
    );
    assert_eq!(world.run(&[]).status.code(), Some(1));
    assert!(!world.path("out").exists());
    assert_eq!(aside(&world), ["a.1/out", "a.2/out"]);
    assert!(objects(&world).is_empty());
    assert_eq!(world.command(&["resume"]).output().unwrap().status.code(), Some(0));
    assert!(world.path("out").exists());

    change(&world, "echo half > out;", "echo half > out; echo ready; sleep 1000;");
    let mut run = world.start(&[]);
    run.wait_for("ready");
    run.signal(Signal::INT);
    assert_eq!(run.end(), Some(130));
    assert!(!world.path("out").exists());
}

#[test]
fn a_stage_without_the_cache_always_runs_and_its_outputs_stay_where_they_are() {
    let world = World::new("[stage.a]\nrun = \"echo line >> out\"\noutputs = [\"out\"]\ncache = false\n");
    for lines in 1..4 {
        assert_eq!(world.run(&[]).status.code(), Some(0));
        assert_eq!(std::fs::read_to_string(world.path("out")).unwrap().lines().count(), lines);
    }
    assert!(!world.path(".trainyard/cache").exists());
}

#[test]
fn a_stage_without_outputs_runs_each_time_unless_the_file_says_otherwise() {
    let world = World::new("[stage.a]\nrun = \"echo a >> ran\"\n[stage.b]\nrun = \"echo b >> ran\"\ncache = true\n");
    assert_eq!(ran(&world, &["--jobs", "1"]), ["a", "b"]);
    assert_eq!(ran(&world, &[]), ["a"]);
}

#[test]
fn a_stage_behind_one_that_always_runs_is_looked_up_when_its_turn_comes() {
    let world = World::new(
        r#"
[stage.fetch]
run = "echo fetch >> ran; cp upstream data"
outputs = ["data"]
cache = false
[stage.use]
run = "echo use >> ran; cat data > result"
inputs = ["data"]
outputs = ["result"]
"#,
    );
    std::fs::write(world.path("upstream"), "1").unwrap();
    assert_eq!(ran(&world, &[]), ["fetch", "use"]);
    assert_eq!(ran(&world, &[]), ["fetch"]);
    std::fs::write(world.path("upstream"), "2").unwrap();
    assert_eq!(ran(&world, &[]), ["fetch", "use"]);
    let run = world.show();
    assert_eq!(state(&run, "use"), "succeeded");
}

#[test]
fn a_folder_as_an_output_comes_back_with_its_links() {
    let world = World::new(
        r#"
[stage.split]
run = "echo split >> ran; mkdir -p parts/deep && echo 1 > parts/deep/one && ln -s deep/one parts/first"
outputs = ["parts"]
[stage.join]
run = "echo join >> ran; cat parts/first > all"
inputs = ["parts/first"]
outputs = ["all"]
"#,
    );
    assert_eq!(ran(&world, &[]), ["split", "join"]);
    assert!(ran(&world, &[]).is_empty());
    std::fs::remove_dir_all(world.path("parts")).unwrap();
    std::fs::remove_file(world.path("all")).unwrap();
    assert!(dry(&world, &[]).contains("may run  split comes before it"), "{}", dry(&world, &[]));
    assert!(ran(&world, &[]).is_empty());
    assert_eq!(std::fs::read_link(world.path("parts/first")).unwrap(), Path::new("deep/one"));
    assert_eq!(std::fs::read_to_string(world.path("all")).unwrap(), "1\n");
    // Stale files of an earlier version do not mix with those of the next.
    change(&world, "echo 1 > parts/deep/one", "echo 1 > parts/deep/one && echo 2 > parts/two");
    assert_eq!(ran(&world, &[]), ["split"]);
    std::fs::write(world.path("parts/stray"), "").unwrap();
    change(&world, "echo 2 > parts/two", "echo 3 > parts/two");
    assert_eq!(ran(&world, &[]), ["split"]);
    assert!(!world.path("parts/stray").exists());
    assert!(aside(&world).iter().any(|path| path.ends_with(".before/parts/stray")));
}

#[test]
fn what_links_in_an_input_folder_lead_to_counts_on_both_sides_of_an_edge() {
    let world = World::new(
        r#"
[stage.pick]
run = "echo pick >> ran; mkdir picked; ln -s ../raw/a picked/a; ln -s ../raw picked/all; ln -s a picked/again"
outputs = ["picked"]
[stage.join]
run = "echo join >> ran; find -L picked -type f | sort | xargs cat > joined"
inputs = ["picked"]
outputs = ["joined"]
[stage.list]
run = "echo list >> ran; cat linked/* > listed"
inputs = ["linked"]
outputs = ["listed"]
"#,
    );
    for folder in ["raw", "linked"] {
        std::fs::create_dir(world.path(folder)).unwrap();
    }
    world.put("raw/a", "1");
    world.put("raw/b", "1");
    std::os::unix::fs::symlink("../raw/a", world.path("linked/a")).unwrap();
    let mut first = ran(&world, &[]);
    first.sort_unstable();
    assert_eq!(first, ["join", "list", "pick"]);
    assert!(ran(&world, &[]).is_empty());
    world.put("raw/b", "22");
    assert!(dry(&world, &[]).contains("join  will run  `picked` changed\n"), "{}", dry(&world, &[]));
    assert_eq!(ran(&world, &[]), ["join"]);
    world.put("raw/a", "33");
    let mut both = ran(&world, &[]);
    both.sort_unstable();
    assert_eq!(both, ["join", "list"]);
    assert_eq!(std::fs::read_to_string(world.path("joined")).unwrap(), "33333322");
    assert!(ran(&world, &[]).is_empty());
    // What is put back are the links, and whoever reads them finds what they read before.
    std::fs::remove_dir_all(world.path("picked")).unwrap();
    assert!(ran(&world, &[]).is_empty());
    assert_eq!(std::fs::read_link(world.path("picked/all")).unwrap(), Path::new("../raw"));
}

#[test]
fn an_input_that_changes_while_its_stage_runs_keeps_the_result_out_of_the_cache() {
    let world =
        World::new("[stage.a]\nrun = \"cat in > out; echo more >> in\"\ninputs = [\"in\"]\noutputs = [\"out\"]\n");
    std::fs::write(world.path("in"), "1\n").unwrap();
    let output = world.run(&[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(said(&output).contains("its input `in` changed while it ran"), "{}", said(&output));
    assert!(objects(&world).is_empty());
}

#[test]
fn a_file_that_the_command_names_and_makes_itself_does_not_count() {
    let world = World::new(
        "[stage.a]\nrun = [\"sh\", \"-c\", \"echo a >> ran; date +%N > $1; echo 1 > out\", \"sh\", \"a.log\"]\noutputs = [\"out\"]\n",
    );
    assert_eq!(ran(&world, &[]), ["a"]);
    assert!(world.path("a.log").exists());
    assert!(ran(&world, &[]).is_empty());
}

#[test]
fn a_file_that_a_failed_attempt_has_made_does_not_count_either() {
    const STAGE: &str = r#"
    [stage.a]
    run = ["sh", "-c", "echo a >> ran; date +%N > $1; test -e again && echo 1 > out; : > again", "sh", "a.log"]
    outputs = ["out"]
    retry = { on = ["output-missing"], max = 1 }
    "#;
    let world = World::new(STAGE);
    assert_eq!(ran(&world, &[]), ["a", "a"]);
    assert!(ran(&world, &[]).is_empty(), "{}", dry(&world, &[]));
    // The same where another run goes on with it.
    let world = World::new(&STAGE.replace("max = 1", "max = 0"));
    assert_eq!(world.run(&[]).status.code(), Some(1));
    assert_eq!(ran(&world, &[]), ["a"]);
    assert!(ran(&world, &[]).is_empty(), "{}", dry(&world, &[]));
}

/// Expects that each edit of what the only stage copies makes it run, and once.
fn each_counts(world: &World, edits: &[&str], edit: impl Fn(&str)) {
    for edited in edits {
        edit(edited);
        assert_eq!(ran(world, &[]), ["a"], "{edited}");
        assert_eq!(std::fs::read_to_string(world.path("out")).unwrap(), *edited);
        assert!(ran(world, &[]).is_empty(), "{edited}: {}", dry(world, &[]));
    }
}

#[test]
fn what_a_user_makes_of_a_file_that_a_failed_attempt_has_left_counts() {
    let world = World::new(
        r#"
        [stage.a]
        run = "echo a >> ran; test -e conf || { echo default > conf; exit 3; }; cat conf > out"
        outputs = ["out"]
        "#,
    );
    assert_eq!(world.run(&[]).status.code(), Some(1));
    // As it was left it is read, and counts from then on.
    assert_eq!(ran(&world, &[]), ["a"]);
    assert!(ran(&world, &[]).is_empty(), "{}", dry(&world, &[]));
    each_counts(&world, &["one", "two"], |edited| std::fs::write(world.path("conf"), edited).unwrap());
}

#[test]
fn a_file_that_somebody_else_makes_while_a_stage_runs_counts_once_it_is_edited() {
    let world = World::new(
        r#"
        [stage.a]
        run = "echo a >> ran; echo ready; until test -e conf; do sleep 0.02; done; cat conf > out"
        outputs = ["out"]
        "#,
    );
    let mut run = world.start(&[]);
    run.wait_for("ready");
    world.put("conf", "one");
    assert_eq!(run.end(), Some(0));
    assert!(ran(&world, &[]).is_empty(), "{}", dry(&world, &[]));
    each_counts(&world, &["two", "three", "one"], |edited| world.put("conf", edited));
}

#[test]
fn a_file_that_a_killed_attempt_has_left_does_not_count_either() {
    let world = World::new(
        r#"
        [stage.a]
        run = "echo a >> ran; date +%N > out.tmp; echo ready; until test -e gate; do sleep 0.02; done; mv out.tmp {outputs}"
        outputs = ["out"]
        "#,
    );
    let mut run = world.start(&[]);
    run.wait_for("ready");
    run.signal(Signal::KILL);
    run.end();
    std::fs::write(world.path("gate"), "").unwrap();
    assert_eq!(world.command(&["resume"]).output().unwrap().status.code(), Some(0));
    assert_eq!(std::fs::read_to_string(world.path("ran")).unwrap(), "a\na\n");
    assert_eq!(world.run(&[]).status.code(), Some(0));
    assert_eq!(std::fs::read_to_string(world.path("ran")).unwrap(), "a\na\n", "{}", dry(&world, &[]));
}

#[test]
fn what_was_made_of_an_input_that_was_another_one_for_a_while_is_not_kept() {
    let world = World::new(
        "[stage.a]\nrun = \"echo a >> ran; echo ready; until test -e gate; do sleep 0.02; done; cat in > out\"\n\
         inputs = [\"in\"]\noutputs = [\"out\"]\n",
    );
    world.put("in", "one");
    let mut run = world.start(&[]);
    run.wait_for("ready");
    world.put("in", "two");
    world.put("in", "one");
    world.put("gate", "");
    assert_eq!(run.end(), Some(0));
    assert_eq!(ran(&world, &[]), ["a"], "once more");
    assert!(ran(&world, &[]).is_empty(), "{}", dry(&world, &[]));
}

#[test]
fn whether_a_file_may_be_executed_counts() {
    let world =
        World::new("[stage.a]\nrun = \"echo a >> ran; ls -l in > out\"\ninputs = [\"in\"]\noutputs = [\"out\"]\n");
    let set_mode = |mode| std::fs::set_permissions(world.path("in"), Permissions::from_mode(mode)).unwrap();
    std::fs::write(world.path("in"), "1").unwrap();
    set_mode(0o644);
    let ran = || ran(&world, &[]);
    assert_eq!(ran(), ["a"]);
    set_mode(0o600);
    assert!(ran().is_empty(), "who else may read it is nobody's business");
    set_mode(0o744);
    assert_eq!(ran(), ["a"]);
    assert!(ran().is_empty());
    set_mode(0o644);
    assert!(ran().is_empty(), "it was made before");
}

#[test]
fn a_folder_on_the_command_line_is_not_read() {
    let world = World::new("[stage.a]\nrun = \"ls data > a\"\noutputs = [\"a\"]\n");
    std::fs::create_dir(world.path("data")).unwrap();
    std::fs::write(world.path("data/large"), "years of work").unwrap();
    ran(&world, &[]);
    let index = rusqlite::Connection::open(world.path(".trainyard/cache/index.db")).unwrap();
    let of = "SELECT count(*) FROM memo WHERE path LIKE '%large'";
    assert_eq!(index.query_row(of, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
    assert!(dry(&world, &[]).contains("1 cached"));
}

#[test]
fn what_is_forced_runs_and_what_follows_only_if_it_makes_a_difference() {
    let world = chain();
    ran(&world, &[]);
    assert_eq!(ran(&world, &["--force-stage", "clean"]), ["clean"]);
    assert_eq!(ran(&world, &["--force"]), ["clean", "count", "report"]);
    let output = world.run(&["--force-stage", "claen"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("did you mean `clean`?"), "{}", said(&output));
}

#[test]
fn a_dry_run_says_what_would_happen_and_why() {
    let world = chain();
    insta::assert_snapshot!(dry(&world, &[]), @r"
    task    verdict   why
    clean   will run  no result of it is kept from before
    count   may run   clean comes before it
    report  may run   count comes before it

    3 tasks: 1 will run, 2 may run
    ");
    assert!(!world.path(".trainyard").exists(), "it leaves nothing behind");
    ran(&world, &[]);
    std::fs::write(world.path("raw.csv"), "x\n").unwrap();
    change(&world, "sort < raw.csv", "sort -u < raw.csv");
    insta::assert_snapshot!(dry(&world, &["--force-stage", "report"]), @r"
    task    verdict   why
    clean   will run  its command changed, `raw.csv` changed
    count   may run   clean comes before it
    report  will run  forced

    3 tasks: 2 will run, 1 may run
    ");
    let as_json: Value = serde_json::from_str(&dry(&world, &["--json"])).unwrap();
    insta::assert_snapshot!(serde_json::to_string(&as_json["tasks"][0]).unwrap(), @r#"{"name":"clean","verdict":"will-run","restores":[],"after":null,"why":[{"reason":"command","how":"changed","name":null},{"reason":"input","how":"changed","name":"raw.csv"}]}"#);
    assert_eq!(as_json["tasks"][1]["after"], "clean");
}

#[test]
fn two_runs_at_once_on_one_state_folder_both_succeed() {
    let world = World::new(
        "[stage.a]\nrun = \"echo a > a-$OWN\"\nmatrix = { n = [1, 2, 3, 4] }\noutputs = [\"out/{matrix.n}\"]\n",
    );
    change(&world, "echo a > a-$OWN", "sleep 0.0{matrix.n}; echo {matrix.n} > {outputs}");
    // Each in a folder of its own, with the same content and the same cache.
    let folders = ["one", "two"].map(|name| {
        let folder = world.path(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::copy(world.path("p.toml"), folder.join("p.toml")).unwrap();
        folder
    });
    for _ in 0..2 {
        let runs: Vec<_> = folders
            .iter()
            .map(|folder| {
                let mut command = world.command(&["run", "p.toml", "--quiet", "--state", "../state"]);
                command.current_dir(folder).spawn().unwrap()
            })
            .collect();
        for mut run in runs {
            assert!(run.wait().unwrap().success());
        }
    }
    for folder in folders {
        assert_eq!(std::fs::read_to_string(folder.join("out/3")).unwrap(), "3\n");
    }
    assert_eq!(files(&world.path("state/cache/objects")).len(), 4);
    let output = world.command(&["cache", "verify", "--state", "state"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

#[test]
fn a_resumed_run_restores_what_it_still_needs_or_makes_it_again() {
    for keep in [true, false] {
        let world = World::new(
            "[stage.a]\nrun = \"echo a >> ran; echo 1 > a\"\noutputs = [\"a\"]\n[stage.b]\nrun = \"test -e gate && echo b >> ran && cat a > b\"\ninputs = [\"a\"]\noutputs = [\"b\"]\n",
        );
        assert_eq!(world.run(&[]).status.code(), Some(1));
        std::fs::remove_file(world.path("a")).unwrap();
        if !keep {
            objects(&world).iter().for_each(|object| std::fs::remove_file(object).unwrap());
        }
        std::fs::write(world.path("gate"), "").unwrap();
        let resumed = world.command(&["resume"]).output().unwrap();
        assert_eq!(resumed.status.code(), Some(0), "{}", said(&resumed));
        let ran = stages_that_ran(&world);
        assert_eq!(ran, if keep { vec!["a", "b"] } else { vec!["a", "a", "b"] });
        assert_eq!(std::fs::read_to_string(world.path("b")).unwrap(), "1\n");
    }
}

#[test]
fn whatever_changes_after_a_standstill_is_noticed() {
    let world = chain();
    ran(&world, &[]);
    let stands_still = || {
        let list = world.path(".trainyard/cache/standstill");
        let _ = std::fs::remove_dir_all(&list);
        // Files that were written a moment ago are looked at once more.
        assert!((0..20).any(|_| ran(&world, &[]).is_empty() && list.exists()));
        assert_eq!(ran(&world, &[]), [""; 0]);
    };
    stands_still();
    std::fs::write(world.path("raw.csv"), "c\nb\na\n").unwrap();
    assert_eq!(ran(&world, &[]), ["clean", "count", "report"]);
    stands_still();
    std::fs::write(world.path("count.sh"), "wc -c < $1\n").unwrap();
    assert_eq!(ran(&world, &[]), ["count", "report"], "a file that only the command names");
    stands_still();
    change(&world, "TITLE = \"lines\"", "TITLE = \"bytes\"");
    assert_eq!(ran(&world, &[]), ["report"]);
    stands_still();
    std::fs::remove_file(world.path("report.txt")).unwrap();
    assert_eq!(ran(&world, &[]), [""; 0]);
    assert!(world.path("report.txt").exists(), "it is restored");
    stands_still();
    assert_eq!(ran(&world, &["--force-stage", "count"]), ["count"]);
}

#[test]
fn what_a_later_stage_changes_in_place_is_not_kept_as_its_makers() {
    let world = World::new(
        r#"
[stage.a]
run = "head -c 64000000 /dev/zero > big; echo original > z.txt"
outputs = ["big", "z.txt"]
[stage.b]
run = "echo changed >> z.txt"
after = ["a"]
"#,
    );
    let output = world.run(&[]);
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let mut folders = vec![world.path(".trainyard/cache/objects")];
    let mut held = Vec::new();
    while let Some(folder) = folders.pop() {
        for path in folder.read_dir().unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.metadata().unwrap().len() < 100 {
                held.push(std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let is_told = said.contains("was changed after it had ended");
    // It may be kept before the other stage begins.
    assert!(is_told || held.iter().any(|text| text == "original\n"), "{said} {held:?}");
    world.command(&["run", "p.toml", "--force-stage", "b"]).output().unwrap();
    let dry = String::from_utf8(world.command(&["run", "p.toml", "--dry-run"]).output().unwrap().stdout).unwrap();
    assert!(!is_told || dry.contains("no result"), "{said} {dry}");
}

/// A stage with an input that takes minutes to read, though it takes no room.
fn with_a_huge_input() -> World {
    let world =
        World::new("[stage.a]\nrun = \"test -e go && echo > a.out\"\ninputs = [\"huge\"]\noutputs = [\"a.out\"]\n");
    set_length(&world, 1 << 40);
    world
}

fn set_length(world: &World, bytes: u64) {
    std::fs::File::create(world.path("huge")).unwrap().set_len(bytes).unwrap();
}

/// Waits until a command says that it reads, and asks it to end.
fn interrupt_reading(world: &World, args: &[&str]) -> Started {
    let mut command = Started::of(world.command(args));
    let line = command.wait_for("reading inputs and results: ");
    assert!(line.ends_with(" so far, file 1 is huge"), "{line}");
    // Not SIGINT: who starts the tests in the background of a shell has that ignored.
    command.signal(Signal::TERM);
    command
}

#[test]
fn whoever_waits_for_a_large_input_to_be_read_is_told_and_can_end_it() {
    let world = with_a_huge_input();
    let mut run = interrupt_reading(&world, &["run", "p.toml"]);
    run.wait_for("interrupted before anything was started");
    assert_eq!(run.end(), Some(130));
    assert!(said(&world.command(&["runs", "--json"]).output().unwrap()).starts_with("[]"));
    assert_ne!(interrupt_reading(&world, &["run", "p.toml", "--dry-run"]).end(), Some(0));
}

#[test]
fn a_run_that_is_interrupted_while_it_reads_before_it_goes_on_can_be_resumed() {
    let world = with_a_huge_input();
    set_length(&world, 0);
    assert_eq!(world.run(&[]).status.code(), Some(1));
    set_length(&world, 1 << 40);
    let mut resumed = interrupt_reading(&world, &["resume"]);
    resumed.wait_for("interrupted before anything was started");
    assert_eq!((resumed.end(), world.show()["state"].as_str()), (Some(130), Some("failed")));
    set_length(&world, 0);
    std::fs::write(world.path("go"), "").unwrap();
    assert_eq!(world.command(&["resume"]).status().unwrap().code(), Some(0));
}

#[test]
fn a_second_ctrl_c_does_not_wait_until_a_huge_result_is_kept() {
    let world = World::new(
        r#"
[stage.a]
run = "truncate -s 1T huge"
outputs = ["huge"]
[stage.b]
run = "echo ready; sleep 1000"
after = ["a"]
"#,
    );
    let mut run = world.start(&[]);
    run.wait_for("ready");
    run.signal(Signal::INT);
    run.wait_for("stopping");
    run.signal(Signal::INT);
    assert_eq!(run.end(), Some(130));
    assert_eq!(state(&world.show(), "a"), "succeeded");
    let half_kept = std::fs::read_dir(world.path(".trainyard/cache/keeping")).unwrap().count();
    assert_eq!(half_kept, 1, "whoever resumes the run keeps it");
}
