//! Several runs at once: together they never hold more than there is, one that dies gives back what it
//! held, no output is written twice at a time, and a run is known by its name.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use trainyard::engine::process;

use crate::world::{World, outcomes, pid_in, state, told, wait_for_end};

/// Returns a pipeline with a stage that takes all CPUs, says where it is, and goes on when it is let.
fn gated(outputs: &str) -> String {
    format!(
        r#"
[stage.work]
run = "echo $$ > pid.new; mv pid.new pid; until test -e gate; do sleep 0.05; done; mkdir -p out; echo done > out/x"
resources = {{ cpus = {} }}
grace = "1s"
{outputs}
"#,
        cpus()
    )
}

/// Returns how many CPUs a run has here.
fn cpus() -> u64 {
    let output = Command::new(env!("CARGO_BIN_EXE_trainyard")).args(["devices", "--json"]).output().unwrap();
    let devices: Value = serde_json::from_slice(&output.stdout).unwrap();
    devices["host"]["cpus"].as_f64().unwrap().floor() as u64
}

fn start(world: &World, args: &[&str]) -> Child {
    let mut command = world.command(&[&["run"], args].concat());
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Asks again and again until it is so; each question is a process of its own and takes its time.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
    }
}

fn said(world: &World, args: &[&str]) -> String {
    String::from_utf8(world.command(args).output().unwrap().stdout).unwrap()
}

fn show(world: &World, run: &str) -> Value {
    serde_json::from_str(&said(world, &["show", run, "--json"])).unwrap_or(Value::Null)
}

/// Starts the gated stage under a name, and another run of a stage beside it that waits.
fn two(world: &World, first: &[&str]) -> (Child, Child, u32) {
    let one = start(world, &[&["p.toml", "--name", "first"], first].concat());
    until("the first task runs", || world.path("pid").exists());
    let pid = pid_in(&world.path("pid"));
    let other = start(world, &["q.toml", "--name", "second"]);
    (one, other, pid)
}

fn explained(world: &World) -> Value {
    serde_json::from_str(&said(world, &["explain", "second", "next", "--json"])).unwrap_or(Value::Null)
}

fn waits_for(world: &World, words: &str) {
    until(words, || explained(world)["words"].as_str().is_some_and(|said| said.contains(words)));
}

fn next(more: &str) -> String {
    format!("[stage.next]\nrun = \"echo next >> ran\"\nresources = {{ cpus = {} }}\n{more}", cpus())
}

#[test]
fn runs_at_once_never_hold_more_than_there_is() {
    // Each wants more than half of the CPUs, and fails if another is at it.
    let world = World::new(&format!(
        "[stage.s]\nrun = \"mkdir busy && echo {{matrix.n}} >> ran && rmdir busy\"\n\
         resources = {{ cpus = {} }}\nmatrix = {{ n = [1, 2, 3, 4, 5, 6, 7, 8] }}\n",
        format_args!("{:.3}", cpus() as f64 * 0.6)
    ));
    let mut runs: Vec<Child> = (0..3).map(|_| start(&world, &["p.toml"])).collect();
    for run in &mut runs {
        assert_eq!(run.wait().unwrap().code(), Some(0), "two at once: {}", said(&world, &["show"]));
    }
    assert_eq!(std::fs::read_to_string(world.path("ran")).unwrap().lines().count(), 24);
}

#[test]
fn who_waits_says_for_which_run_and_starts_when_it_gives_back() {
    let world = World::new(&gated(""));
    std::fs::write(world.path("q.toml"), next("")).unwrap();
    let (mut one, mut other, _) = two(&world, &[]);
    waits_for(&world, &format!("run first holds {} CPUs", cpus()));
    let runs = explained(&world)["runs"].clone();
    assert_eq!(runs, serde_json::json!([{"run": "first", "holds": format!("{} CPUs", cpus())}]));
    assert!(!world.path("ran").exists());
    std::fs::write(world.path("gate"), "").unwrap();
    assert_eq!((one.wait().unwrap().code(), other.wait().unwrap().code()), (Some(0), Some(0)));
}

#[test]
fn what_a_killed_run_held_is_given_back() {
    let world = World::new(&gated(""));
    std::fs::write(world.path("q.toml"), next("")).unwrap();
    let (mut one, mut other, pid) = two(&world, &[]);
    waits_for(&world, "run first holds");
    process::signal(one.id(), Signal::KILL);
    one.wait().unwrap();
    assert_eq!(other.wait().unwrap().code(), Some(0));
    wait_for_end(pid);
    assert_eq!(outcomes(&show(&world, "second"), "next"), ["succeeded"]);
}

#[test]
fn a_task_that_goes_on_without_its_run_keeps_what_it_holds() {
    let world = World::new(&gated(""));
    std::fs::write(world.path("q.toml"), next("")).unwrap();
    let (mut one, mut other, pid) = two(&world, &["--survive"]);
    waits_for(&world, "run first holds");
    process::signal(one.id(), Signal::KILL);
    one.wait().unwrap();
    // A look that was begun after the death, and found the task alive.
    let noted = || explained(&world)["since"].clone();
    let since = noted();
    for _ in 0..5 {
        waits_for(&world, "run first holds");
    }
    assert_eq!(noted(), since, "it has waited all the time");
    assert!(!world.path("ran").exists());
    std::fs::write(world.path("gate"), "").unwrap();
    wait_for_end(pid);
    assert_eq!(other.wait().unwrap().code(), Some(0));
}

#[test]
fn an_output_is_written_by_one_run_at_a_time_and_not_made_twice() {
    let world = World::new(&gated("outputs = [\"out/x\"]").replace(&format!("cpus = {}", cpus()), "cpus = 0"));
    let (mut one, _, pid) = {
        std::fs::write(world.path("q.toml"), "[stage.next]\nrun = \"true\"\n").unwrap();
        two(&world, &[])
    };
    let mut same = start(&world, &["p.toml", "--name", "third"]);
    let waits = || -> Value {
        serde_json::from_str(&said(&world, &["explain", "third", "work", "--json"])).unwrap_or(Value::Null)
    };
    until("the third run waits", || waits()["why"] == "output");
    let words = waits()["words"].as_str().unwrap().to_owned();
    assert!(words.starts_with("run first writes out/x"), "{words}");
    std::fs::write(world.path("gate"), "").unwrap();
    assert_eq!((one.wait().unwrap().code(), same.wait().unwrap().code()), (Some(0), Some(0)));
    wait_for_end(pid);
    assert_eq!(state(&show(&world, "third"), "work"), "cached", "it was there by then");
}

#[test]
fn what_another_run_has_made_is_not_made_again_although_nobody_looked_meanwhile() {
    let world = World::new(
        "[stage.long]\nrun = \"touch begun; until test -e gate; do sleep 0.05; done; touch {outputs}\"\noutputs = [\"long\"]\n\
         duration = \"1h\"\n[stage.short]\nrun = \"echo {matrix.n} >> ran; touch {outputs}\"\noutputs = [\"s{matrix.n}\"]\n\
         matrix = { n = [1, 2, 3] }\nduration = \"1s\"\n",
    );
    let mut one = start(&world, &["p.toml", "--name", "first", "--jobs", "1"]);
    until("the first run is at the long task", || world.path("begun").exists());
    let mut other = start(&world, &["p.toml", "--name", "second", "--jobs", "1"]);
    let has_made = |task: &str| outcomes(&show(&world, "second"), task) == ["succeeded"];
    until("the other has made the short ones", || {
        show(&world, "second").is_object() && ["1", "2", "3"].iter().all(|n| has_made(&format!("short[n={n}]")))
    });
    std::fs::write(world.path("gate"), "").unwrap();
    assert!(one.wait().unwrap().success() && other.wait().unwrap().success());
    let first = show(&world, "first");
    let states = ["long", "short[n=1]", "short[n=2]", "short[n=3]"].map(|task| state(&first, task));
    assert_eq!(states, ["succeeded", "cached", "cached", "cached"]);
    assert_eq!(std::fs::read_to_string(world.path("ran")).unwrap().lines().count(), 3);
}

#[test]
fn a_run_within_a_task_does_not_wait_for_that_task() {
    let world = World::new(&format!(
        "[stage.outer]\nrun = [\"{}\", \"run\", \"q.toml\"]\nresources = {{ cpus = {} }}\n",
        env!("CARGO_BIN_EXE_trainyard"),
        cpus()
    ));
    std::fs::write(world.path("q.toml"), next("")).unwrap();
    assert_eq!(world.run(&[]).status.code(), Some(0));
    assert!(world.path("ran").exists());
}

#[test]
fn a_run_is_known_by_its_name() {
    let world = World::new("[stage.a]\nrun = \"echo hello\"\n[stage.b]\nrun = \"test -e ok\"\nafter = [\"a\"]\n");
    assert_eq!(world.run(&["--name", "nightly"]).status.code(), Some(1));
    assert_eq!(world.run(&[]).status.code(), Some(1));
    assert_eq!(show(&world, "nightly")["name"], "nightly");
    assert_eq!(show(&world, "latest")["name"], Value::Null);
    assert_eq!(said(&world, &["logs", "nightly", "a"]), "hello\n");
    assert!(said(&world, &["runs"]).contains("nightly"));
    assert!(said(&world, &["explain", "nightly", "b"]).contains("it failed"));
    let alone = world.command(&["explain", "nightly"]).output().unwrap();
    let words = String::from_utf8_lossy(&alone.stderr);
    assert!(alone.status.code() == Some(2) && words.contains("trainyard explain nightly TASK"), "{words}");
    assert!(said(&world, &["diff", "nightly", "latest"]).contains('b'));
    let runs: Value = serde_json::from_str(&said(&world, &["runs", "--json"])).unwrap();
    assert_eq!((&runs[1]["name"], &runs[0]["name"]), (&Value::from("nightly"), &Value::Null));

    let again = world.run(&["--name", "nightly"]);
    assert_eq!(again.status.code(), Some(2));
    let told = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(told.contains("there is already a run called `nightly`"), "{told}");
    assert_eq!(world.run(&["--name", "latest"]).status.code(), Some(2));
    let id = runs[0]["run"].as_str().unwrap();
    let taken = world.run(&["--name", id]);
    assert_eq!(taken.status.code(), Some(2), "it would mean another run");
    assert!(String::from_utf8_lossy(&taken.stderr).contains("there is already a run called"));

    std::fs::write(world.path("ok"), "").unwrap();
    assert_eq!(world.command(&["resume", "nightly"]).output().unwrap().status.code(), Some(0));
    assert_eq!(show(&world, "nightly")["state"], "succeeded");
}

#[test]
fn second_attempts_of_two_runs_do_not_hold_more_than_there_is_either() {
    // Two attempts have room at once, whosever they are; a third one fails. What a process locks is free when it ends.
    let twins = |name: &str| {
        format!(
            "name = \"{name}\"\n[stage.s]\nreplicas = 2\ngrace = \"1s\"\nmatrix = {{ n = [1, 2, 3, 4] }}\n\
             outputs = [\"{name}/{{matrix.n}}\"]\nresources = {{ cpus = {:.3} }}\nrun = \"\"\"\n\
             exec 8> slot1 9> slot2; flock -n 8 || flock -n 9 || {{ touch over; exit 1; }}\n\
             echo {{matrix.n}} > {{outputs}}; exec sleep 0.0$TRAINYARD_ATTEMPT\"\"\"\n",
            cpus() as f64 * 0.4
        )
    };
    let world = World::new(&twins("one"));
    std::fs::write(world.path("q.toml"), twins("two")).unwrap();
    let mut runs = [start(&world, &["p.toml"]), start(&world, &["q.toml"])];
    for run in &mut runs {
        assert_eq!(run.wait().unwrap().code(), Some(0), "{}", said(&world, &["show"]));
    }
    assert!(!world.path("over").exists(), "more at once than there is room for");
    for (name, n) in ["one", "two"].iter().flat_map(|name| (1..=4).map(move |n| (name, n))) {
        assert_eq!(std::fs::read_to_string(world.path(&format!("{name}/{n}"))).unwrap(), format!("{n}\n"));
    }
    let runs = std::fs::read_dir(world.path(".trainyard/runs")).unwrap().map(|run| run.unwrap().path());
    assert!(runs.map(|run| run.join("staging")).all(|staging| !staging.exists()));
}

#[test]
fn what_another_run_writes_is_not_put_back_meanwhile() {
    let world = World::new(
        r#"
[stage.train]
run = "exec 9> model; echo $LR half >&9; touch at-it; until test -e gate; do sleep 0.05; done; echo $LR whole >&9"
env = { LR = "a" }
outputs = ["model"]
"#,
    );
    let model = || std::fs::read_to_string(world.path("model")).unwrap();
    std::fs::write(world.path("gate"), "").unwrap();
    assert_eq!(start(&world, &["p.toml"]).wait().unwrap().code(), Some(0));
    for file in ["gate", "at-it"] {
        std::fs::remove_file(world.path(file)).unwrap();
    }
    let mut other = start(&world, &["p.toml", "--set", "train.env.LR=b"]);
    until("the other writes", || world.path("at-it").exists());
    // It could be put back from the cache, and must not be yet.
    let mut same = start(&world, &["p.toml", "--name", "same"]);
    until("it waits", || {
        let explained = said(&world, &["explain", "same", "train", "--json"]);
        explained.contains("writes") || same.try_wait().unwrap().is_some()
    });
    assert_eq!(model(), "b half\n");
    std::fs::write(world.path("gate"), "").unwrap();
    assert_eq!((other.wait().unwrap().code(), same.wait().unwrap().code()), (Some(0), Some(0)));
    assert_eq!(model(), "a half\na whole\n");
    assert_eq!(start(&world, &["p.toml", "--set", "train.env.LR=b"]).wait().unwrap().code(), Some(0));
    assert_eq!(model(), "b half\nb whole\n", "what each has made is kept as its own");
}

#[test]
fn an_output_is_the_same_whatever_links_lead_to_it() {
    let world = World::new(&gated("outputs = [\"out/x\"]"));
    std::fs::create_dir(world.path("out")).unwrap();
    std::os::unix::fs::symlink("out", world.path("alias")).unwrap();
    let next = "[stage.next]\nrun = \"echo next > alias/x\"\noutputs = [\"alias/x\"]\nresources = { cpus = 0 }\n";
    std::fs::write(world.path("q.toml"), next).unwrap();
    let (mut one, mut other, _) = two(&world, &[]);
    waits_for(&world, "run first writes alias/x");
    std::fs::write(world.path("gate"), "").unwrap();
    assert_eq!((one.wait().unwrap().code(), other.wait().unwrap().code()), (Some(0), Some(0)));
}

#[test]
fn a_damaged_record_is_not_taken_from_a_run_that_goes_on_with_it() {
    let world = World::new(&gated(""));
    let mut one = start(&world, &["p.toml", "--name", "first"]);
    until("the first task runs", || world.path("pid").exists());
    let database = world.path(".trainyard/state.db");
    let db = rusqlite::Connection::open(&database).unwrap();
    db.busy_timeout(Duration::from_secs(60)).unwrap();
    db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let of_samples = "SELECT rootpage FROM sqlite_schema WHERE name = 'sample'";
    let page = u64::from(db.query_row(of_samples, [], |row| row.get::<_, u32>(0)).unwrap());
    drop(db);
    let file = std::fs::File::options().write(true).open(&database).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0xA5; 4096], (page - 1) * 4096).unwrap();
    std::fs::write(world.path("q.toml"), "[stage.next]\nrun = \"true\"\n").unwrap();
    let refused = world.command(&["run", "q.toml"]).output().unwrap();
    let said = told(&refused);
    assert!(refused.status.code() == Some(70) && said.contains("goes on with it") && said.contains("cancel"), "{said}");
    std::fs::write(world.path("gate"), "").unwrap();
    assert_eq!(one.wait().unwrap().code(), Some(0));
    let next = world.command(&["run", "q.toml"]).output().unwrap();
    assert!(told(&next).contains("it is kept as"), "{next:?}");
}

#[test]
fn a_survivor_of_another_state_folder_keeps_what_it_holds() {
    let world = World::new(&gated(""));
    std::fs::write(world.path("q.toml"), next("")).unwrap();
    let mut one = start(&world, &["p.toml", "--name", "first", "--survive", "--state", "a"]);
    until("the first task runs", || world.path("pid").exists());
    let pid = pid_in(&world.path("pid"));
    process::signal(one.id(), Signal::KILL);
    one.wait().unwrap();
    let mut other = start(&world, &["q.toml", "--state", "b/link/../s"]);
    let why = || said(&world, &["explain", "next", "--state", "b/s"]);
    let words = format!("run first in {} holds {} CPUs", world.path("a").canonicalize().unwrap().display(), cpus());
    until(&words, || why().contains(&words));
    assert!(!world.path("ran").exists());
    std::fs::write(world.path("gate"), "").unwrap();
    assert_eq!(other.wait().unwrap().code(), Some(0));
    wait_for_end(pid);
}

#[test]
fn runs_of_two_state_folders_write_an_output_one_after_the_other() {
    let outputs = "outputs = [\"out/x\"]";
    let world = World::new(&gated(outputs).replace(&format!("cpus = {}", cpus()), "cpus = 0"));
    std::fs::write(
        world.path("q.toml"),
        format!("[stage.next]\nrun = \"cat out/x > seen; mkdir -p out; echo next > out/x\"\n{outputs}\nresources = {{ cpus = 0 }}\n"),
    )
    .unwrap();
    let mut one = start(&world, &["p.toml", "--name", "first", "--state", "a"]);
    until("the first task runs", || world.path("pid").exists());
    let mut other = start(&world, &["q.toml", "--state", "b"]);
    let words = format!("run first in {}", world.path("a").canonicalize().unwrap().display());
    until(&words, || said(&world, &["explain", "next", "--state", "b"]).contains(&words));
    std::fs::write(world.path("gate"), "").unwrap();
    assert_eq!((one.wait().unwrap().code(), other.wait().unwrap().code()), (Some(0), Some(0)));
    assert_eq!(std::fs::read_to_string(world.path("out/x")).unwrap(), "next\n");
}

#[test]
fn a_run_within_tasks_of_other_state_folders_does_not_wait_for_them() {
    let nested = |stage: &str, file: &str| {
        format!(
            "[stage.{stage}]\nrun = [\"{}\", \"run\", \"{file}\", \"--state\", \"{file}.state\"]\nresources = {{ cpus = {} }}\n",
            env!("CARGO_BIN_EXE_trainyard"),
            cpus()
        )
    };
    let world = World::new(&nested("outer", "q.toml"));
    std::fs::write(world.path("q.toml"), nested("inner", "r.toml")).unwrap();
    std::fs::write(world.path("r.toml"), next("")).unwrap();
    assert_eq!(world.run(&[]).status.code(), Some(0));
    assert!(world.path("ran").exists());
}

#[test]
fn who_cannot_meet_others_says_so_once_and_goes_on() {
    let world = World::new(&next(""));
    std::fs::write(world.path(".box"), "").unwrap();
    let run = world.run(&[]);
    let words = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(0), "{words}");
    assert_eq!(words.matches("runs with other state folders are not seen").count(), 1, "{words}");
}

#[test]
fn who_goes_on_is_met_again_where_the_folder_to_meet_was_removed() {
    let world = World::new(&gated(""));
    std::fs::write(world.path("q.toml"), next("")).unwrap();
    let mut one = start(&world, &["p.toml", "--name", "first", "--state", "a"]);
    until("the first task runs", || world.path("pid").exists());
    std::fs::remove_dir_all(world.path(".box")).unwrap();
    let entered = || std::fs::read_dir(world.path(".box")).is_ok_and(|files| files.count() == 2);
    until("it comes back", || entered() && !said(&world, &["runs", "--state", "a"]).is_empty());
    let mut other = start(&world, &["q.toml", "--state", "b"]);
    until("the other waits", || said(&world, &["explain", "next", "--state", "b"]).contains("run first in"));
    std::fs::write(world.path("gate"), "").unwrap();
    assert_eq!((one.wait().unwrap().code(), other.wait().unwrap().code()), (Some(0), Some(0)));
}

#[test]
fn who_cannot_start_anything_since_somebody_has_locked_the_box_says_who_that_is() {
    let world = World::new("[stage.next]\nrun = 'touch ran'\n");
    std::fs::create_dir(world.path(".box")).unwrap();
    let lock = std::fs::File::create(world.path(".box/lock")).unwrap();
    lock.lock().unwrap();
    let mut run = world.start(&[]);
    let words = format!("process {} has locked {}", std::process::id(), world.path(".box/lock").display());
    run.wait_for(&words);
    until("it is explained", || said(&world, &["explain", "next"]).contains(&words));
    assert!(!world.path("ran").exists());
    drop(lock);
    assert_eq!(run.end(), Some(0));
    assert!(world.path("ran").exists());
}

#[test]
fn two_tasks_with_half_of_the_cpus_each_whose_runs_want_all_of_them_go_one_after_the_other() {
    let ty = env!("CARGO_BIN_EXE_trainyard");
    let stage = |name: &str| {
        format!(
            "[stage.{name}]\nrun = [\"{ty}\", \"run\", \"q.toml\", \"--state\", \"{name}\"]\nresources = {{ cpus = 0.5 }}\n"
        )
    };
    let world = World::new(&(stage("one") + &stage("two")));
    let both = "until test -e one/state.db && test -e two/state.db; do sleep 0.05; done";
    let within = format!("[stage.all]\nrun = 'mkdir busy; {both}; rmdir busy'\nresources = {{ cpus = {} }}\n", cpus());
    std::fs::write(world.path("q.toml"), within).unwrap();
    assert_eq!(world.run(&[]).status.code(), Some(0));
}
