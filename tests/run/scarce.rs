//! A system that has no process to spare: what was to start waits, and nothing has failed.
//!
//! The limit of processes does not hold for root, so that these runs belong to another user where root starts them. Where
//! there can be none, as in some containers, or no limit holds, that is said, and nothing is looked at.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Resource, Rlimit, Signal, getuid, prlimit};
use serde_json::Value;
use trainyard::engine::sentinel;
use trainyard::probe::clock;

use crate::world::{Started, World, outcomes, wait_until};

const NOBODY_ELSE: u32 = 54_321;

/// A short stage, another behind it, and one that goes on beside both.
const STAGES: &str = r#"
[stage.long]
run = "echo long; until test -e gate; do sleep 0.05; done"
[stage.short]
run = "echo short; until test -e go; do sleep 0.05; done"
[stage.next]
run = ["sh", "-c", "echo $TRAINYARD_ATTEMPT > next"]
after = ["short"]
outputs = ["next"]
"#;

/// A world whose commands the limit of processes holds for.
pub(crate) struct Limited {
    pub(crate) world: World,
    program: PathBuf,
}

impl Limited {
    /// Makes one; `None` where nobody can see here what a limit does, which is said.
    pub(crate) fn new(pipeline: &str) -> Option<Self> {
        let world = World::new(pipeline);
        let program = PathBuf::from(env!("CARGO_BIN_EXE_trainyard"));
        let mut limited = Self { world, program };
        match limited.become_limited() {
            Ok(()) => Some(limited),
            Err(why) => {
                // Not by the macro, whose lines are shown of failed tests only.
                let line = format!("skipped: no limit of processes can be looked at here: {why}\n");
                let _ = std::io::stderr().write_all(line.as_bytes());
                None
            }
        }
    }

    fn become_limited(&mut self) -> std::io::Result<()> {
        if getuid().is_root() {
            // The user need not be able to reach the one that was built.
            let reachable = self.world.path("trainyard");
            let linked = std::fs::hard_link(&self.program, &reachable);
            linked.or_else(|_| std::fs::copy(&self.program, &reachable).map(drop))?;
            for name in ["", "p.toml"] {
                chown(self.world.path(name), Some(NOBODY_ELSE), Some(NOBODY_ELSE))?;
            }
            std::fs::set_permissions(self.world.path(""), Permissions::from_mode(0o755))?;
            self.program = reachable;
        }
        let mut command = self.command(&["--version"]);
        // SAFETY: system calls on values.
        unsafe { command.pre_exec(starve_and_try) };
        match command.stdout(Stdio::null()).status()?.success() {
            true => Ok(()),
            false => Err(std::io::Error::other("the program does not run for another user")),
        }
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let like = self.world.command(args);
        let mut command = Command::new(&self.program);
        command.args(args).current_dir(self.world.path("")).stdin(Stdio::null());
        for (name, value) in like.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        as_user(&mut command);
        command
    }

    fn explain(&self, task: &str) -> Value {
        let output = self.command(&["explain", task, "--json"]).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Starts a run, takes its processes away once both first stages run, and waits until the next cannot start.
    fn start_and_starve(&self, args: &[&str]) -> Started {
        let mut run = Started::of(self.command(&[&["run", "p.toml", "--mirror"], args].concat()));
        run.wait_for("long");
        run.wait_for("short");
        let_start(run.pid(), false);
        std::fs::write(self.world.path("go"), "").unwrap();
        let said = run.wait_for("cannot be started yet");
        assert!(said.contains("next") && said.contains("temporarily unavailable"), "{said}");
        run
    }
}

/// Has a command belong to a user for whom the limit of processes holds.
fn as_user(command: &mut Command) {
    if getuid().is_root() {
        command.uid(NOBODY_ELSE).gid(NOBODY_ELSE);
    }
}

/// Takes processes away, and fails if there is one to be had all the same.
fn starve_and_try() -> std::io::Result<()> {
    let Rlimit { maximum, .. } = own_limit();
    rustix::process::setrlimit(Resource::Nproc, Rlimit { current: Some(1), maximum })?;
    // SAFETY: there is one thread between fork and exec, and the child of it does nothing.
    match unsafe { libc::fork() } {
        -1 => Ok(()),
        // SAFETY: as said.
        0 => unsafe { libc::_exit(0) },
        child => {
            // SAFETY: it is our child, and nothing is asked of how it ended.
            unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
            Err(std::io::ErrorKind::Unsupported.into())
        }
    }
}

/// Lets a process start others, or not.
fn let_start(pid: u32, may: bool) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap());
    // As it was for this process, which started it.
    let Rlimit { current, maximum } = own_limit();
    let limit = Rlimit { current: if may { current } else { Some(1) }, maximum };
    let mut command = Command::new("true");
    as_user(&mut command);
    // Only the same user may, and root not always.
    let set = move || Ok(prlimit(pid, Resource::Nproc, limit).map(drop)?);
    // SAFETY: a system call on values.
    unsafe { command.pre_exec(set) };
    assert!(command.status().unwrap().success());
}

fn own_limit() -> Rlimit {
    rustix::process::getrlimit(Resource::Nproc)
}

#[test]
fn what_cannot_be_started_waits_for_the_end_of_another_task_and_has_not_failed() {
    for args in [&[][..], &["--survive"]] {
        let Some(limited) = Limited::new(STAGES) else { return };
        let run = limited.start_and_starve(args);
        wait_until(|| limited.explain("next")["why"] == "start");
        let explained = limited.explain("next");
        assert!(explained["words"].as_str().unwrap().contains("no room for another process"), "{explained}");
        let_start(run.pid(), true);
        std::fs::write(limited.world.path("gate"), "").unwrap();
        assert_eq!(run.end(), Some(0));
        assert_eq!(outcomes(&limited.world.show(), "next"), ["succeeded"]);
        assert_eq!(std::fs::read_to_string(limited.world.path("next")).unwrap(), "1\n");
    }
}

#[test]
fn what_cannot_be_started_is_tried_again_also_where_nothing_ends() {
    let Some(limited) = Limited::new(STAGES) else { return };
    let mut run = limited.start_and_starve(&[]);
    let_start(run.pid(), true);
    run.wait_for("done     next");
    std::fs::write(limited.world.path("gate"), "").unwrap();
    assert_eq!(run.end(), Some(0));
}

#[test]
fn a_run_that_is_stopped_gives_up_what_cannot_be_started() {
    let Some(limited) = Limited::new(STAGES) else { return };
    let run = limited.start_and_starve(&[]);
    run.signal(Signal::INT);
    assert_eq!(run.end(), Some(130));
    assert_eq!(outcomes(&limited.world.show(), "next"), ["interrupted"]);
}

/// Starts a sentinel that cannot start its stage, and waits until it says so.
fn starved_sentinel(limited: &Limited, line: &str) -> (Child, PathBuf) {
    let [record, log] = ["attempts/a.1.json", "a.1.log"].map(|name| limited.world.path(name));
    let words = [
        record.to_str().unwrap(),
        log.to_str().unwrap(),
        "/bin/sh",
        "1000000",
        "--grace",
        "1000",
        "--",
        "sh",
        "-c",
        line,
    ];
    let mut command = limited.command(&[&["sentinel"], &words[..]].concat());
    let starve = || {
        let maximum = own_limit().maximum;
        Ok(rustix::process::setrlimit(Resource::Nproc, Rlimit { current: Some(1), maximum })?)
    };
    // SAFETY: two system calls on values.
    unsafe { command.pre_exec(starve) };
    let child = command.stdout(Stdio::piped()).spawn().unwrap();
    wait_until(|| sentinel::read(&record).is_some_and(|record| record.waits_for.is_some()));
    (child, record)
}

#[test]
fn a_sentinel_waits_for_a_process_as_well() {
    let Some(limited) = Limited::new("") else { return };
    let (child, record) = starved_sentinel(&limited, "echo hi; exit 3");
    let_start(child.id(), true);
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(3));
    assert_eq!(sentinel::read(&record).unwrap().ended.unwrap().how, sentinel::How::Exited(3));
    let log = std::fs::read_to_string(limited.world.path("a.1.log")).unwrap();
    assert!(log.contains("cannot be started yet") && log.ends_with("\nhi\n"), "{log}");
}

#[test]
fn a_sentinel_that_waits_for_a_process_can_be_ended() {
    let Some(limited) = Limited::new("") else { return };
    let (child, record) = starved_sentinel(&limited, "true");
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(child.wait_with_output().unwrap().status.code(), None);
    assert_eq!(sentinel::read(&record).unwrap().ended.unwrap().how, sentinel::How::Signalled(15));
}

/// Has a sentinel wait for longer than a limit of its stage, and returns the outcomes then.
fn after_a_wait(limit: &str, line: &str) -> Vec<String> {
    // A device that is always full is in the place of its first record.
    let world = World::new(&format!(
        "[stage.first]\nrun = \"ln -s /dev/full .trainyard/runs/$TRAINYARD_RUN/attempts/next.1.new\"\n\
         [stage.next]\nrun = \"touch begun; {line}\"\nafter = [\"first\"]\n{limit} = \"3s\"\n"
    ));
    let mut run = world.start(&["--survive"]);
    run.wait_for("cannot be started yet");
    let said = clock::now();
    wait_until(|| clock::now().0 > said.0 + 3_300);
    assert!(!world.path("begun").exists());
    let id = world.show()["run"].as_str().unwrap().to_owned();
    std::fs::remove_file(world.path(&format!(".trainyard/runs/{id}/attempts/next.1.new"))).unwrap();
    run.end();
    assert!(world.path("begun").exists());
    outcomes(&world.show(), "next")
}

#[test]
fn what_a_sentinel_waits_does_not_count_for_the_limits_of_its_stage() {
    std::thread::scope(|scope| {
        let limits = ["timeout", "idle_timeout", "first_output_timeout"];
        let short = limits.map(|limit| scope.spawn(move || after_a_wait(limit, "echo hi")));
        let long = scope.spawn(|| after_a_wait("timeout", "exec sleep 1000"));
        assert_eq!(short.map(|one| one.join().unwrap()), [["succeeded"]; 3]);
        assert!(long.join().unwrap()[0].starts_with("timed-out"));
    });
}
